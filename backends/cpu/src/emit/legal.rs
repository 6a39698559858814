//! What the backend emits, and how much of it: the answer to [`aic_ir::machine::Target::legal`].

use aic_ir::tile::{Exec, Inst, Item, KernelData, Program, Space, StmtData, StmtOp, Storage};

use super::address::is_unrolled;
use super::types::{LANES, scalar_type};
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
        scalar_type(data.dtype).map_err(|reason| format!("`{}`: {reason}", data.name))?;
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
        StmtOp::Copy { .. } | StmtOp::Mma { .. } | StmtOp::Reduce { .. } => 2,
        StmtOp::Gather { .. } => 4,
        StmtOp::Map { value, .. } => {
            if value.insts.iter().any(|i| matches!(i, Inst::Math(..) | Inst::Pow(..))) {
                return Err(format!("`{}` has elementary functions that were not expanded", stmt.name));
            }
            for inst in &value.insts {
                if let Inst::Cast(dtype, _) | Inst::Bitcast(dtype, _) = inst {
                    scalar_type(*dtype)?;
                }
            }
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
