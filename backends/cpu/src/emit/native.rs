//! Cranelift functions to machine code, and the proof that the code is self-contained.

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName};

use super::Options;
use crate::code::{Call, CallKind, Function};
use crate::{CpuError, CpuTarget};

/// Bytes of a frame that lie above the frame pointer: the return address and the caller's frame pointer, on both architectures.
const FRAME_HEADER_BYTES: u64 = 16;

/// Compiles a function. Calls refer to functions by the index of their user name. `callee_stack_bytes` is the largest stack of
/// what it calls.
///
/// # Errors
/// When Cranelift refuses the function, or its code refers to anything but functions of the program.
pub(crate) fn compile(
    function: ir::Function,
    symbol: String,
    target: &CpuTarget,
    options: &Options,
    callee_stack_bytes: u64,
) -> Result<Function, CpuError> {
    let internal = |reason: String| CpuError::Internal { symbol: symbol.clone(), reason };
    let clif = options.clif.then(|| function.display().to_string());
    let names = function.params.user_named_funcs().clone();
    let mut context = Context::for_function(function);
    context.set_disasm(options.asm);
    let code = context
        .compile(&*target.isa, &mut ControlPlane::default())
        .map_err(|e| internal(format!("code generator: {:?}", e.inner)))?;
    let mut calls = Vec::new();
    for reloc in code.buffer.relocs() {
        let kind = match reloc.kind {
            Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4 => CallKind::X86PcRel32,
            Reloc::Arm64Call => CallKind::Aarch64Call26,
            other => return Err(internal(format!("a relocation of kind {other:?}"))),
        };
        let callee = match &reloc.target {
            FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => names[*name].index as usize,
            other => return Err(internal(format!("a reference to {other:?}, which is not part of the program"))),
        };
        calls.push(Call { offset: reloc.offset, kind, target: callee, addend: reloc.addend });
    }
    let frame = code.buffer.frame_layout().map(|f| u64::from(f.frame_to_fp_offset));
    let frame = frame.ok_or_else(|| internal("no frame layout".into()))?;
    Ok(Function {
        code: code.code_buffer().to_vec(),
        align: u64::from(code.buffer.alignment).max(16),
        calls,
        stack_bytes: frame + FRAME_HEADER_BYTES + callee_stack_bytes,
        clif,
        asm: code.vcode.clone(),
        symbol,
    })
}
