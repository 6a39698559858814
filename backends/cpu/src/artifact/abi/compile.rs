//! From Cranelift IR to the code and references of one function of the interface.

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, Function};
use cranelift_codegen::isa::TargetIsa;

use super::{Reference, Referent, Wrapper, WrapperCode};
use crate::artifact::ArtifactError;
use crate::artifact::object::RelocationKind;

/// Everything that functions of the interface may refer to; the position is the index of the external name.
const REFERENTS: [Referent; 4] =
    [Referent::Entry, Referent::Weights, Referent::Wrapper(Wrapper::Guard), Referent::Wrapper(Wrapper::Cpu)];

/// Index of a referent in user-defined external names.
pub fn name_index(referent: Referent) -> u32 {
    REFERENTS.iter().position(|&r| r == referent).unwrap_or(REFERENTS.len()) as u32
}

/// Bytes of the return address and the saved frame pointer, above what Cranelift counts.
const LINKAGE_BYTES: u64 = 16;

/// Compiles one function.
pub fn compile(wrapper: Wrapper, function: Function, isa: &dyn TargetIsa) -> Result<WrapperCode, ArtifactError> {
    let internal = |reason: String| ArtifactError::Internal(format!("{}: {reason}", wrapper.name()));
    let clif = function.display().to_string();
    let mut context = Context::for_function(function);
    let code =
        context.compile(isa, &mut ControlPlane::default()).map_err(|e| internal(format!("{:?}", e.inner)))?.clone();
    let names = &context.func.params;
    let mut references = Vec::new();
    for reloc in code.buffer.relocs() {
        let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = &reloc.target else {
            return Err(internal(format!("a reference to {:?}", reloc.target)));
        };
        let to = names.user_named_funcs().get(*name).and_then(|n| REFERENTS.get(n.index as usize));
        let to = *to.ok_or_else(|| internal("a reference to nothing".to_owned()))?;
        let kind = match (reloc.kind, to) {
            (Reloc::X86CallPCRel4 | Reloc::X86PCRel4, Referent::Weights) => RelocationKind::X86PcRel,
            (Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4, _) => RelocationKind::X86Call,
            (Reloc::Arm64Call, _) => RelocationKind::Aarch64Call,
            (Reloc::Aarch64AdrPrelPgHi21, _) => RelocationKind::Aarch64Page,
            (Reloc::Aarch64AddAbsLo12Nc, _) => RelocationKind::Aarch64PageOffset,
            (other, _) => return Err(internal(format!("an unexpected relocation {other:?}"))),
        };
        references.push(Reference { offset: reloc.offset, kind, to, addend: reloc.addend });
    }
    let frame = code.buffer.frame_layout().map_or(0, |l| u64::from(l.frame_to_fp_offset));
    Ok(WrapperCode {
        wrapper,
        code: code.buffer.data().to_vec(),
        align: u64::from(code.buffer.alignment).max(16),
        references,
        frame_bytes: frame + LINKAGE_BYTES,
        clif: Some(clif),
    })
}
