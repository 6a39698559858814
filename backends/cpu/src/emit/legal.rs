//! What the backend emits, and how much of it: the answer to [`aic_ir::machine::Target::legal`].

use aic_ir::tile::{Access, Exec, Expr, ExprRef, Inst, Item, KernelData, Program, Space, StmtData, StmtOp, Storage};
use aic_ir::types::DType;

use super::address::is_unrolled;
use super::types::LANES;
use super::vectorize::vectorizable;

/// Most instructions of one statement. Compile time grows faster than the length of straight-line code.
const MAX_STATEMENT: u64 = 4096;
/// Most instructions of a kernel, repeated bodies counted as often as they are repeated.
const MAX_KERNEL: u64 = 65_536;
/// Instructions to call a micro-kernel.
const CALL: u64 = 8;
/// Most elements of a buffer in registers; more would only be spilled.
pub(super) const MAX_REGISTER_ELEMS: u64 = 1024;

/// Whether a kernel can be emitted.
///
/// # Errors
/// The reason.
pub(crate) fn legal(program: &Program, kernel: &KernelData) -> Result<(), String> {
    for buffer in kernel.buffers() {
        let data = &program.buffers[buffer];
        if matches!(data.storage, Storage::Local(Space::Reg)) && data.layout.elems() > MAX_REGISTER_ELEMS {
            return Err(format!("`{}` has {} elements, too many for registers", data.name, data.layout.elems()));
        }
    }
    let total = body(program, kernel, &kernel.body)?;
    if total > MAX_KERNEL {
        return Err(format!(
            "the kernel would be {total} instructions of straight-line code; the limit is {MAX_KERNEL}"
        ));
    }
    Ok(())
}

fn body(program: &Program, kernel: &KernelData, items: &[Item]) -> Result<u64, String> {
    items.iter().try_fold(0u64, |sum, item| {
        let length = match item {
            Item::Stmt(s) => statement(program, &kernel.stmts[*s])?,
            Item::Loop(l, inner) => {
                let times = if is_unrolled(kernel, *l) { kernel.loops[*l].extent } else { 1 };
                body(program, kernel, inner)?.saturating_mul(times)
            }
        };
        Ok(sum.saturating_add(length))
    })
}

fn statement(program: &Program, stmt: &StmtData) -> Result<u64, String> {
    if stmt.intrinsic.is_some() {
        return Ok(CALL);
    }
    if stmt.dims.iter().any(|d| d.exec == Exec::Vector) {
        vectorizable(program, stmt)?;
    }
    let each = match &stmt.op {
        StmtOp::Mma { .. } | StmtOp::Reduce { .. } => {
            let half = |a: &&Access| is_half(program.buffers[a.buffer].dtype);
            if let Some(a) = stmt.accesses().into_iter().find(half) {
                let data = &program.buffers[a.buffer];
                return Err(format!(
                    "`{}` computes with `{}`, whose elements are {}",
                    stmt.name, data.name, data.dtype
                ));
            }
            2
        }
        StmtOp::Copy { .. } => 2,
        StmtOp::Gather { .. } => 4,
        StmtOp::Scatter { .. } => 6,
        StmtOp::Map { value, .. } => {
            if value.insts.iter().any(|i| matches!(i, Inst::Math(..) | Inst::Pow(..))) {
                return Err(format!("`{}` has elementary functions that were not expanded", stmt.name));
            }
            halves_as_bits(program, stmt, value)?;
            value.insts.len() as u64 + 1
        }
    };
    let points = stmt.dims.iter().fold(1u64, |n, d| {
        let steps = if d.exec == Exec::Vector { d.extent.div_ceil(LANES as u64) } else { d.extent };
        n.saturating_mul(steps)
    });
    let length = points.saturating_mul(each);
    if length > MAX_STATEMENT {
        return Err(format!(
            "`{}` would be {length} instructions of straight-line code; the limit is {MAX_STATEMENT}",
            stmt.name
        ));
    }
    Ok(length)
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// 16-bit floats are only moved and taken as bits; conversions and arithmetic have been expanded.
fn halves_as_bits(program: &Program, stmt: &StmtData, value: &Expr) -> Result<(), String> {
    let types = value.dtypes(&|b| program.buffers.get(b).map(|d| d.dtype)).map_err(|e| e.to_string())?;
    let half = |r: &ExprRef| is_half(types[r.0 as usize]);
    for inst in &value.insts {
        let computes = match inst {
            Inst::Load(_) | Inst::Const(_) | Inst::Bitcast(..) | Inst::Select(..) => false,
            Inst::Cast(to, a) => is_half(*to) || half(a),
            Inst::Unary(_, a) | Inst::Math(_, a) | Inst::Binary(_, a, _) | Inst::Pow(a, _) | Inst::Fma(a, _, _) => {
                half(a)
            }
        };
        if computes {
            return Err(format!("`{}` computes with 16-bit floats by {inst:?}", stmt.name));
        }
    }
    Ok(())
}
