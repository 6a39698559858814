//! Which statements can be executed in vectors.

use aic_ir::tile::{Exec, Inst, Program, StmtData, StmtOp};
use aic_ir::types::DType;

use super::types::{is_extended, vector_type};

/// The vector dimension of a statement, if it has one.
pub(super) fn vector_dim(program: &Program, stmt: &StmtData) -> Option<usize> {
    let v = stmt.dims.iter().position(|d| d.exec == Exec::Vector)?;
    vectorizable(program, stmt).is_ok().then_some(v)
}

/// Whether every value of a statement has a vector form: elements of four bytes in memory (16-bit floats are extended to
/// that), truth values only between instructions.
///
/// # Errors
/// The reason.
pub(super) fn vectorizable(program: &Program, stmt: &StmtData) -> Result<(), String> {
    let in_vectors = |dtype: DType| vector_type(dtype).is_some();
    let mut accesses = stmt.accesses();
    if let Some(data) = stmt.data_coordinate() {
        // Positions are read one by one.
        accesses.retain(|a| *a != data.index);
    }
    if let Some(a) = accesses.iter().find(|a| !in_vectors(program.buffers[a.buffer].dtype)) {
        let data = &program.buffers[a.buffer];
        return Err(format!("`{}` is vectorized, but elements of `{}` are {}", stmt.name, data.name, data.dtype));
    }
    let arithmetic = matches!(stmt.op, StmtOp::Mma { .. } | StmtOp::Reduce { .. });
    if arithmetic && accesses.iter().any(|a| is_extended(program.buffers[a.buffer].dtype)) {
        return Err(format!("`{}` is vectorized, but computes with elements of two bytes", stmt.name));
    }
    let StmtOp::Map { value, .. } = &stmt.op else { return Ok(()) };
    let types = value.dtypes(&|b| program.buffers.get(b).map(|d| d.dtype)).map_err(|e| e.to_string())?;
    for (inst, ty) in value.insts.iter().zip(&types) {
        if !(in_vectors(*ty) || *ty == DType::Bool) || !has_vector_form(inst, *ty, &types) {
            return Err(format!("`{}` is vectorized, but computes {ty} by {inst:?}", stmt.name));
        }
    }
    Ok(())
}

/// Whether an instruction of that result can be done in vectors. Lanes of two bytes are only moved and converted.
fn has_vector_form(inst: &Inst, result: DType, types: &[DType]) -> bool {
    let whole = |dtype: DType| !is_extended(dtype);
    match inst {
        Inst::Load(_) | Inst::Const(_) | Inst::Bitcast(..) | Inst::Select(..) => true,
        Inst::Cast(to, a) => match types[a.0 as usize] {
            from if whole(from) && whole(*to) => true,
            DType::U16 => matches!(to, DType::I32 | DType::U32),
            from => *to == DType::U16 && matches!(from, DType::I32 | DType::U32),
        },
        Inst::Unary(_, a) | Inst::Math(_, a) | Inst::Binary(_, a, _) | Inst::Pow(a, _) | Inst::Fma(a, _, _) => {
            whole(result) && whole(types[a.0 as usize])
        }
    }
}
