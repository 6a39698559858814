//! Which statements can be executed in vectors.

use aic_ir::tile::{Exec, Program, StmtData, StmtOp};
use aic_ir::types::DType;

use super::types::vector_type;

/// The vector dimension of a statement, if it has one.
pub(super) fn vector_dim(program: &Program, stmt: &StmtData) -> Option<usize> {
    let v = stmt.dims.iter().position(|d| d.exec == Exec::Vector)?;
    vectorizable(program, stmt).is_ok().then_some(v)
}

/// Whether every value of a statement has a vector form: elements of four bytes in memory, truth values only between
/// instructions.
///
/// # Errors
/// The reason.
pub(super) fn vectorizable(program: &Program, stmt: &StmtData) -> Result<(), String> {
    let in_vectors = |dtype: DType| vector_type(dtype).is_some();
    let mut accesses = stmt.accesses();
    if let StmtOp::Gather { index, .. } = &stmt.op {
        // Positions are read one by one.
        accesses.retain(|a| *a != index);
    }
    if let Some(a) = accesses.iter().find(|a| !in_vectors(program.buffers[a.buffer].dtype)) {
        let data = &program.buffers[a.buffer];
        return Err(format!("`{}` is vectorized, but elements of `{}` are {}", stmt.name, data.name, data.dtype));
    }
    let StmtOp::Map { value, .. } = &stmt.op else { return Ok(()) };
    let types = value.dtypes(&|b| program.buffers.get(b).map(|d| d.dtype)).map_err(|e| e.to_string())?;
    for (inst, ty) in value.insts.iter().zip(&types) {
        if !(in_vectors(*ty) || *ty == DType::Bool) {
            return Err(format!("`{}` is vectorized, but computes {ty} by {inst:?}", stmt.name));
        }
    }
    Ok(())
}
