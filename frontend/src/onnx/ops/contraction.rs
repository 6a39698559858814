//! Matrix products and convolution.

use aic_ir::graph::{BinaryOp, ConvAttrs, Op, Value};

use super::accept::FLOATS;
use super::window::Window;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("MatMul", (2, 2), &[], "floats; any ranks", matmul).types(FLOATS),
    rule("Gemm", (2, 3), &["alpha", "beta", "transA", "transB"], "floats", gemm).types(FLOATS),
    rule(
        "Conv",
        (2, 3),
        &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
        "floats; one or two spatial dimensions",
        conv,
    )
    .types(FLOATS),
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

fn conv(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, w) = (c.operand(0)?, c.operand(1)?);
    let kernel = c.shape(w).get(2..).unwrap_or_default().to_vec();
    if let Some(declared) = c.ints_attribute("kernel_shape")?
        && !declared.iter().copied().eq(kernel.iter().map(|&k| k as i64))
    {
        return Err(format!("kernel_shape {declared:?} is not that of the weights, {kernel:?}").into());
    }
    let Window { strides, dilations, pads, .. } = Window::read(c, x, kernel)?;
    let groups = u64::try_from(c.int("group")?.unwrap_or(1)).map_err(|_| "group must be at least 1")?;
    let mut operands = vec![x, w];
    operands.extend(c.optional(2));
    c.emit(Op::Conv(ConvAttrs { strides, dilations, pads, groups }), &operands)
}
