//! Normalization over the batch, over features, and of exponentials.

use aic_ir::graph::{BinaryOp, Op, ReduceOp, UnaryOp, Value};

use super::accept::FLOATS;
use super::{OpRule, many, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule(
        "BatchNormalization",
        (5, 5),
        &["epsilon", "momentum", "spatial", "training_mode"],
        "floats; inference only",
        batch_normalization,
    )
    .types(FLOATS),
    rule("InstanceNormalization", (3, 3), &["epsilon"], "floats", instance_normalization).types(FLOATS),
    many("LayerNormalization", (2, 3), &["axis", "epsilon", "stash_type"], "floats", layer_normalization)
        .types(FLOATS)
        .since(17),
    rule("RMSNormalization", (2, 2), &["axis", "epsilon", "stash_type"], "floats", rms_normalization)
        .types(FLOATS)
        .since(23),
    rule("Softmax", (1, 1), &["axis"], "floats", softmax).types(FLOATS),
    rule("LogSoftmax", (1, 1), &["axis"], "floats", log_softmax).types(FLOATS),
];

fn batch_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    c.expect_int("training_mode", 0)?;
    c.expect_int("spatial", 1)?;
    let operands = c.all_operands()?;
    let epsilon = c.float("epsilon", 1e-5)?;
    c.emit(Op::BatchNorm { epsilon }, &operands)
}

/// Layer normalization without parameters over the spatial dimensions, scaled and shifted per channel.
fn instance_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, scale, bias) = (c.operand(0)?, c.operand(1)?, c.operand(2)?);
    let epsilon = c.float("epsilon", 1e-5)?;
    let shape = c.shape(x).to_vec();
    if shape.len() < 3 || c.shape(scale) != &shape[1..2] || c.shape(bias) != &shape[1..2] {
        return Err(format!("operands {shape:?}, {:?}, {:?} do not fit", c.shape(scale), c.shape(bias)).into());
    }
    let dtype = c.dtype(x);
    let (one, zero) = (c.scalar(dtype, 1.0)?, c.scalar(dtype, 0.0)?);
    let ones = c.emit(Op::Expand { shape: shape[2..].to_vec() }, &[one])?;
    let zeros = c.emit(Op::Expand { shape: shape[2..].to_vec() }, &[zero])?;
    let normalized = c.emit(Op::LayerNorm { axis: 2, epsilon }, &[x, ones, zeros])?;
    let mut channels = vec![1; shape.len() - 1];
    channels[0] = shape[1];
    let (scale, bias) = (c.reshape(scale, channels.as_slice())?, c.reshape(bias, channels)?);
    let scaled = c.binary(BinaryOp::Mul, normalized, scale)?;
    c.binary(BinaryOp::Add, scaled, bias)
}

/// The first normalized dimension of operand 0. Statistics are in `f32` or better in any case, so `stash_type` is
/// satisfied by `f32`.
fn first_axis(c: &NodeContext<'_>) -> Result<usize, Reason> {
    c.expect_int("stash_type", 1)?;
    c.axis(c.int("axis")?.unwrap_or(-1), c.rank(c.operand(0)?))
}

/// Scale and bias may be of any shape that broadcasts to the normalized dimensions.
/// The mean and `1 / √(variance + epsilon)` are added where the node names them.
fn layer_normalization(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    let (x, scale) = (c.operand(0)?, c.operand(1)?);
    let axis = first_axis(c)?;
    let epsilon = c.float("epsilon", 1e-5)?;
    let dtype = c.dtype(x);
    let normalized = c.shape(x)[axis..].to_vec();
    let bias = match c.optional(2) {
        Some(bias) => bias,
        None => c.scalar(dtype, 0.0)?,
    };
    let scale = c.emit(Op::Expand { shape: normalized.clone() }, &[scale])?;
    let bias = c.emit(Op::Expand { shape: normalized }, &[bias])?;
    let mut results = vec![c.emit(Op::LayerNorm { axis, epsilon }, &[x, scale, bias])?];
    if c.node.output.iter().skip(1).any(|o| !o.is_empty()) {
        let axes: Vec<usize> = (axis..c.rank(x)).collect();
        let mean = c.reduce(ReduceOp::Mean, x, &axes, true)?;
        let centred = c.binary(BinaryOp::Sub, x, mean)?;
        let square = c.binary(BinaryOp::Mul, centred, centred)?;
        let variance = c.reduce(ReduceOp::Mean, square, &axes, true)?;
        let shifted = c.binary_scalar(BinaryOp::Add, variance, f64::from(epsilon))?;
        let root = c.unary(UnaryOp::Sqrt, shifted)?;
        results.extend([mean, c.unary(UnaryOp::Recip, root)?]);
    }
    Ok(results)
}

/// `x / √(mean(x²) + epsilon) · scale`.
fn rms_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, scale) = (c.operand(0)?, c.operand(1)?);
    let axis = first_axis(c)?;
    let epsilon = c.float("epsilon", 1e-5)?;
    let shape = c.shape(x).to_vec();
    let axes: Vec<usize> = (axis..shape.len()).collect();
    let square = c.binary(BinaryOp::Mul, x, x)?;
    let mean = c.reduce(ReduceOp::Mean, square, &axes, true)?;
    let shifted = c.binary_scalar(BinaryOp::Add, mean, f64::from(epsilon))?;
    let root = c.unary(UnaryOp::Sqrt, shifted)?;
    let normalized = c.binary(BinaryOp::Div, x, root)?;
    let result = c.binary(BinaryOp::Mul, normalized, scale)?;
    match c.shape(result) == shape {
        true => Ok(result),
        false => Err(format!("the scale of shape {:?} does not broadcast to {shape:?}", c.shape(scale)).into()),
    }
}

fn softmax(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    along_axis(c, |c, x, axis| c.emit(Op::Softmax { axis }, &[x]))
}

/// Applies a function along `axis`. Before operator set 13 the dimensions from `axis` (1 unless given) on are taken as
/// one, and those before it as another.
fn along_axis(
    c: &mut NodeContext<'_>,
    function: impl FnOnce(&mut NodeContext<'_>, Value, usize) -> Result<Value, Reason>,
) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    if c.opset >= 13 {
        let axis = c.axis(c.int("axis")?.unwrap_or(-1), rank)?;
        return function(c, x, axis);
    }
    let axis = match c.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        axis => c.axis(axis, rank)?,
    };
    if axis + 1 == rank {
        return function(c, x, axis);
    }
    let shape = c.shape(x).to_vec();
    let (rows, columns) = shape.split_at(axis);
    let matrix = c.reshape(x, [rows.iter().product(), columns.iter().product()])?;
    let result = function(c, matrix, 1)?;
    c.reshape(result, shape)
}

/// `x - max - ln Σ e^(x - max)`.
fn log_softmax(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    along_axis(c, log_softmax_along)
}

fn log_softmax_along(c: &mut NodeContext<'_>, x: Value, axis: usize) -> Result<Value, Reason> {
    let max = c.reduce(ReduceOp::Max, x, &[axis], true)?;
    let shifted = c.binary(BinaryOp::Sub, x, max)?;
    let exp = c.unary(UnaryOp::Exp, shifted)?;
    let sum = c.reduce(ReduceOp::Sum, exp, &[axis], true)?;
    let log = c.unary(UnaryOp::Log, sum)?;
    c.binary(BinaryOp::Sub, shifted, log)
}
