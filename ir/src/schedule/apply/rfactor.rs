//! `rfactor`: a reduction in `lanes` partial results (Suriana, Adams, Kamil: Parallel associative reductions in Halide, CGO 2017).
//!
//! ```text
//!                                          map    p[l] = 0                               l:16
//! reduce z[] += x[k0]      k0:50    ─▶     map    p[l] = p[l] + x[16·k0 + l]      k0:3   l:16
//!                                          map    p[l] = p[l] + x[48 + l]                l:2
//!                                          reduce z[] += p[l]                            l:16
//! ```

use super::{Refusal, check_free, check_free_buffer, kernel_named, stmt_named};
use crate::tile::{
    Access, Affine, BufferData, Combine, Dim, Exec, Expr, Inst, Item, Program, Scalar, ScalarBinary, StmtData, StmtOp,
    Storage, Var,
};
use crate::types::DType;

pub(super) fn rfactor(program: &mut Program, kernel: &str, stmt: &str, lanes: u64) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let data = &program.kernels[k];
    let s = stmt_named(data, stmt)?;
    let old = data.stmts[s].clone();
    let StmtOp::Reduce { dst, op, src } = &old.op else {
        return Err(Refusal::Illegal(format!("`{stmt}` is not a reduction")));
    };
    let reduced = |i: usize| !dst.index.iter().any(|e| e.uses(Var::Dim(i as u32)));
    let last = old.dims.len().wrapping_sub(1);
    if old.dims.is_empty() || !reduced(last) {
        return Err(Refusal::Illegal(format!("the last dimension of `{stmt}` is not reduced")));
    }
    let extent = old.dims[last].extent;
    if lanes == 0 || lanes > extent {
        return Err(Refusal::Illegal(format!("{lanes} lanes do not lie between 1 and the extent {extent}")));
    }
    let [zero_name, acc_name, tail_name] = ["zero", "acc", "acc_t"].map(|suffix| format!("{stmt}_{suffix}"));
    for name in [&zero_name, &acc_name, &tail_name] {
        check_free(data, name)?;
    }
    let partial_name = format!("{kernel}_{stmt}_partial");
    check_free_buffer(program, &partial_name)?;
    let dtype = program.buffers[dst.buffer].dtype;

    // Partial results keep the dimensions that the result keeps, then one for the lanes.
    let kept: Vec<usize> = (0..last).filter(|&i| !reduced(i)).collect();
    let mut shape: Vec<u64> = kept.iter().map(|&i| old.dims[i].extent).collect();
    shape.push(lanes);
    let partial = program.buffers.push(BufferData::dense(&partial_name, dtype, &shape, Storage::Temp));
    let lane_dim = |extent| Dim { name: "l".to_owned(), extent, exec: Exec::Unroll };
    let at = |dims: &[Dim], positions: &[usize]| -> Vec<Affine> {
        positions.iter().map(|&i| if dims[i].extent == 1 { Affine::constant(0) } else { Affine::dim(i) }).collect()
    };

    let mut kept_dims: Vec<Dim> = kept.iter().map(|&i| old.dims[i].clone()).collect();
    kept_dims.push(lane_dim(lanes));
    let all: Vec<usize> = (0..kept_dims.len()).collect();
    let zero_op =
        StmtOp::Map { dst: Access::new(partial, at(&kept_dims, &all)), value: Expr::constant(identity(*op, dtype)) };
    let mut items = vec![StmtData { name: zero_name, dims: kept_dims.clone(), op: zero_op, intrinsic: None }];

    let mut accumulate = |name: String, whole: u64, lanes_here: u64, origin: i64| {
        let mut dims = old.dims.clone();
        dims[last].extent = whole;
        dims.push(lane_dim(lanes_here));
        let lane = if lanes_here == 1 { Affine::constant(0) } else { Affine::dim(last + 1) };
        let start = if whole == 1 { Affine::constant(origin) } else { Affine::dim(last).scale(lanes as i64) };
        let moved = start.add(&lane);
        let extents = |v: Var| match v {
            Var::Dim(i) => dims[i as usize].extent,
            Var::Loop(l) => program.kernels[k].loops[l].extent,
        };
        let mut src = src.clone();
        for e in &mut src.index {
            *e = e.substitute(&|v| if v == Var::Dim(last as u32) { moved.clone() } else { Affine::var(v) }, &extents);
        }
        let mut index = at(&dims, &kept);
        index.push(lane);
        let dst = Access::new(partial, index);
        let mut value = Expr::default();
        let x = value.push(Inst::Load(dst.clone()));
        let y = value.push(Inst::Load(src));
        value.push(Inst::Binary(scalar_op(*op), x, y));
        items.push(StmtData { name, dims, op: StmtOp::Map { dst, value }, intrinsic: None });
    };
    accumulate(acc_name, extent / lanes, lanes, 0);
    if !extent.is_multiple_of(lanes) {
        accumulate(tail_name, 1, extent % lanes, (extent - extent % lanes) as i64);
    }

    let mut final_dims: Vec<Dim> = old.dims.clone();
    for (i, d) in final_dims.iter_mut().enumerate() {
        if reduced(i) {
            d.extent = 1;
        }
    }
    final_dims[last] = lane_dim(lanes);
    let mut index = at(&final_dims, &kept);
    index.push(if lanes == 1 { Affine::constant(0) } else { Affine::dim(last) });
    let op = StmtOp::Reduce { dst: dst.clone(), op: *op, src: Access::new(partial, index) };
    program.kernels[k].stmts[s] = StmtData { dims: final_dims, op, ..old.clone() };

    let data = &mut program.kernels[k];
    let new: Vec<Item> = items.into_iter().map(|stmt| Item::Stmt(data.stmts.push(stmt))).collect();
    let (path, _) = data.locate(s).ok_or_else(|| Refusal::NoStmt(stmt.to_owned()))?;
    let position = path[path.len() - 1];
    let body = data.body_at_mut(&path).ok_or_else(|| Refusal::Illegal("no such position".into()))?;
    body.splice(position..position, new);
    Ok(())
}

/// The instruction that combines two values.
fn scalar_op(op: Combine) -> ScalarBinary {
    match op {
        Combine::Add => ScalarBinary::Add,
        Combine::Mul => ScalarBinary::Mul,
        Combine::Max => ScalarBinary::Max,
        Combine::Min => ScalarBinary::Min,
    }
}

/// The value that changes nothing: 0, 1, or the least or greatest value of the type.
fn identity(op: Combine, dtype: DType) -> Scalar {
    let (least, greatest) = match dtype {
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::I64 => return Scalar { dtype, bits: identity_i64(op) as u64 },
        DType::U8 | DType::Bool => (0.0, f64::from(u8::MAX)),
        DType::U16 => (0.0, f64::from(u16::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        DType::U64 if op == Combine::Min => return Scalar { dtype, bits: u64::MAX },
        DType::U64 => (0.0, 0.0),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => (f64::NEG_INFINITY, f64::INFINITY),
    };
    let value = match op {
        // x + (-0) is x for every x, -0 included.
        Combine::Add if dtype.is_float() => -0.0,
        Combine::Add => 0.0,
        Combine::Mul => 1.0,
        Combine::Max => least,
        Combine::Min => greatest,
    };
    Scalar::from_f64(dtype, value)
}

fn identity_i64(op: Combine) -> i64 {
    match op {
        Combine::Add => 0,
        Combine::Mul => 1,
        Combine::Max => i64::MIN,
        Combine::Min => i64::MAX,
    }
}
