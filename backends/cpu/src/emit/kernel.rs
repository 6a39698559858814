//! One kernel as one Cranelift function: parameters, loops, scopes.
//!
//! The function takes one pointer for each buffer that it touches in memory, in order of first use, then the round of each
//! repeat around it, outermost first, and returns nothing.
//! Loops test at the top, so that every value carried around has one use and loads can be folded into their users.
//! Instructions are emitted in the order in which they shall run: Cranelift compiles these functions without its mid-end,
//! which would move all multiply-adds of a tile behind all of its loads.

use aic_ir::tile::{Access, Affine, Buffer, Item, KernelData, Loop, Program, Space, Stmt, StmtOp, Storage};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, FuncRef, Function, InstBuilder, Signature, UserFuncName, Value, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use rustc_hash::{FxHashMap, FxHashSet};

use super::FunctionTable;
use super::address::{DATA, Index, Key, is_unrolled};
use super::registers::Registers;
use super::values::Memo;
use crate::target::INTERNAL_CONVENTION;
use crate::{CpuError, CpuTarget};

/// State while a kernel's function is built.
pub(super) struct Emitter<'a, 'f> {
    pub(super) b: FunctionBuilder<'f>,
    pub(super) program: &'a Program,
    pub(super) kernel: &'a KernelData,
    pub(super) target: &'a CpuTarget,
    /// Pointers to buffers in memory.
    params: FxHashMap<Buffer, Value>,
    /// Buffers that the kernel writes.
    pub(super) written: FxHashSet<Buffer>,
    /// Buffers in registers.
    pub(super) registers: FxHashMap<Buffer, Registers>,
    /// Element offset of every access of every statement, in the order of `StmtData::accesses`.
    pub(super) offsets: FxHashMap<Stmt, Vec<Affine>>,
    /// Loops around the current position.
    pub(super) loops: FxHashMap<Loop, Index>,
    /// What has been computed, from the function's start inwards.
    pub(super) scopes: Vec<FxHashMap<Key, Value>>,
    /// The coordinate that a gather or scatter read.
    pub(super) data: Option<Value>,
    /// What the current statement has loaded.
    pub(super) memo: Memo,
    /// Functions of the program, for what kernels call.
    pub(super) table: &'a mut FunctionTable,
    /// Those that this kernel calls already.
    pub(super) callees: FxHashMap<usize, FuncRef>,
}

/// Buffers that a kernel's function takes as pointers, in order.
pub(super) fn params(program: &Program, kernel: &KernelData) -> Vec<Buffer> {
    let in_memory = |b: &Buffer| !matches!(program.buffers[*b].storage, Storage::Local(Space::Reg));
    kernel.buffers().into_iter().filter(in_memory).collect()
}

/// Builds the function of a kernel.
///
/// # Errors
/// When the kernel does something that this backend does not emit.
pub(super) fn build(
    program: &Program,
    kernel: &KernelData,
    target: &CpuTarget,
    table: &mut FunctionTable,
    context: &mut FunctionBuilderContext,
) -> Result<Function, CpuError> {
    let mut sig = Signature::new(INTERNAL_CONVENTION);
    let buffers = params(program, kernel);
    let (repeats, body) = kernel.repeated();
    sig.params.extend((0..buffers.len() + repeats.len()).map(|_| AbiParam::new(I64)));
    let mut function = Function::with_name_signature(UserFuncName::default(), sig);
    let mut b = FunctionBuilder::new(&mut function, context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let values = b.block_params(entry).to_vec();
    let stmts = kernel.stmts_in_order();
    let rounds = repeats.into_iter().zip(values.iter().skip(buffers.len()).map(|&v| Index::Value(v, 0))).collect();
    let mut emitter = Emitter {
        b,
        program,
        kernel,
        target,
        params: buffers.into_iter().zip(values).collect(),
        written: stmts.iter().map(|&s| kernel.stmts[s].write().buffer).collect(),
        registers: FxHashMap::default(),
        offsets: FxHashMap::default(),
        loops: rounds,
        scopes: vec![FxHashMap::default()],
        data: None,
        memo: Memo::default(),
        table,
        callees: FxHashMap::default(),
    };
    let fail = |reason: String| CpuError::Kernel { kernel: kernel.name.clone(), reason };
    for &s in &stmts {
        let mut stmt = kernel.stmts[s].clone();
        if let StmtOp::Gather { src: access, axis, .. } | StmtOp::Scatter { dst: access, axis, .. } = &mut stmt.op
            && let Some(coordinate) = access.index.get_mut(*axis)
        {
            *coordinate = Affine::var(DATA);
        }
        let offset = |a: &Access| program.buffers[a.buffer].layout.offset(&a.index, &|v| emitter.extent(s, v));
        let offsets = stmt.accesses().into_iter().map(offset).collect();
        emitter.offsets.insert(s, offsets);
    }
    emitter.declare_registers(&stmts).map_err(fail)?;
    emitter.body(body).map_err(fail)?;
    emitter.b.ins().return_(&[]);
    emitter.b.finalize(target.isa.frontend_config());
    Ok(function)
}

impl Emitter<'_, '_> {
    /// The pointer to a buffer in memory.
    pub(super) fn pointer(&self, buffer: Buffer) -> Option<Value> {
        self.params.get(&buffer).copied()
    }

    /// Pointer and element size of the buffer of a statement's access; `None` for buffers in registers.
    pub(super) fn base_of(&self, stmt: Stmt, access: usize) -> Option<(Value, i64)> {
        let buffer = self.kernel.stmts[stmt].accesses().get(access)?.buffer;
        Some((self.pointer(buffer)?, self.program.buffers[buffer].dtype.bytes() as i64))
    }

    fn body(&mut self, items: &[Item]) -> Result<(), String> {
        for item in items {
            match item {
                Item::Stmt(s) => self.statement(*s)?,
                Item::Loop(l, body) => self.loop_(*l, body)?,
            }
        }
        Ok(())
    }

    fn loop_(&mut self, l: Loop, body: &[Item]) -> Result<(), String> {
        let extent = self.kernel.loops[l].extent;
        if is_unrolled(self.kernel, l) {
            for i in 0..extent {
                self.loops.insert(l, Index::Known(i as i64));
                self.body(body)?;
            }
            self.loops.remove(&l);
            return Ok(());
        }
        let mut stmts = Vec::new();
        aic_ir::tile::walk::collect_stmts(body, &mut stmts);
        let [header, inner, exit] = [(); 3].map(|()| self.b.create_block());
        let index = self.b.append_block_param(header, I64);
        self.loops.insert(l, Index::Value(index, self.scopes.len()));
        let pointers = self.pointers_of(l, body, &stmts, header);
        let zero = self.b.ins().iconst(I64, 0);
        let first: Vec<_> = std::iter::once(zero).chain(pointers.iter().map(|p| p.first)).map(Into::into).collect();
        self.b.ins().jump(header, &first);
        self.b.switch_to_block(header);
        let done = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, index, extent as i64);
        self.b.ins().brif(done, exit, &[], inner, &[]);
        self.b.seal_block(inner);
        self.b.switch_to_block(inner);
        self.scopes.push(pointers.iter().map(|p| (p.key.clone(), p.value)).collect());
        self.prepare_addresses(&stmts);
        self.body(body)?;
        self.loops.remove(&l);
        self.scopes.pop();
        let steps = std::iter::once((index, 1)).chain(pointers.iter().map(|p| (p.value, p.step)));
        let next: Vec<_> = steps.map(|(value, step)| self.b.ins().iadd_imm_s(value, step).into()).collect();
        self.b.ins().jump(header, &next);
        self.b.seal_block(header);
        self.b.seal_block(exit);
        self.b.switch_to_block(exit);
        Ok(())
    }
}
