//! Matrix products.

use aic_ir::graph::{BinaryOp, Op, Value};

use super::accept::{FLOATS, WIDE};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("MatMul", (2, 2), &[], "any ranks; integers wrap", matmul).types(WIDE),
    rule("Gemm", (2, 3), &["alpha", "beta", "transA", "transB"], "floats", gemm).types(FLOATS),
];

/// Vectors become matrices of one row or column, as numpy does, and the dimension added is removed again.
fn matmul(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (mut a, mut b) = (c.operand(0)?, c.operand(1)?);
    let (a_rank, b_rank) = (c.rank(a), c.rank(b));
    if a_rank == 0 || b_rank == 0 {
        return Err("operands must not be scalars".into());
    }
    if a_rank == 1 {
        let size = c.shape(a)[0];
        a = c.reshape(a, [1, size])?;
    }
    if b_rank == 1 {
        let size = c.shape(b)[0];
        b = c.reshape(b, [size, 1])?;
    }
    let product = c.emit(Op::MatMul, &[a, b])?;
    let mut shape = c.shape(product).to_vec();
    if b_rank == 1 {
        shape.pop();
    }
    if a_rank == 1 {
        shape.remove(shape.len() - 1 - usize::from(b_rank != 1));
    }
    c.reshape(product, shape)
}

/// `alpha · A B + beta · C`, with `A` and `B` transposed where the attributes say so.
fn gemm(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (a, b) = (c.operand(0)?, c.operand(1)?);
    if (c.rank(a), c.rank(b)) != (2, 2) {
        return Err("operands must be matrices".into());
    }
    let (alpha, beta) = (c.float("alpha", 1.0)?, c.float("beta", 1.0)?);
    let turned = |c: &mut NodeContext<'_>, x, flag: &str| match c.flag(flag, false)? {
        true => c.emit(Op::Transpose { perm: vec![1, 0] }, &[x]),
        false => Ok(x),
    };
    let (a, b) = (turned(c, a, "transA")?, turned(c, b, "transB")?);
    let mut result = c.emit(Op::MatMul, &[a, b])?;
    if alpha != 1.0 {
        result = c.binary_scalar(BinaryOp::Mul, result, f64::from(alpha))?;
    }
    if let Some(mut bias) = c.optional(2).filter(|_| beta != 0.0) {
        if beta != 1.0 {
            bias = c.binary_scalar(BinaryOp::Mul, bias, f64::from(beta))?;
        }
        let shape = c.shape(result).to_vec();
        result = c.binary(BinaryOp::Add, result, bias)?;
        if c.shape(result) != shape {
            return Err(format!("the bias of shape {:?} does not broadcast to {shape:?}", c.shape(bias)).into());
        }
    }
    Ok(result)
}
