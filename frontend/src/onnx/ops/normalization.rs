//! Normalization over the batch, over features, over groups of channels and over neighbours.

use aic_ir::graph::{BinaryOp, Op, PoolAttrs, PoolKind, ReduceOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::FLOATS;
use super::pool::{root, to_power};
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
    rule(
        "GroupNormalization",
        (3, 3),
        &["epsilon", "num_groups", "stash_type"],
        "scale and bias per group before operator set 21, per channel from then on",
        group_normalization,
    )
    .types(FLOATS)
    .since(18),
    rule("LpNormalization", (1, 1), &["axis", "p"], "p = 1 or 2; 0 where the norm is 0", lp_normalization)
        .types(FLOATS),
    rule("MeanVarianceNormalization", (1, 1), &["axes"], "floats", mean_variance_normalization).types(FLOATS).since(9),
    rule("LRN", (1, 1), &["alpha", "beta", "bias", "size"], "at least one spatial dimension", local_response)
        .types(FLOATS),
];

fn batch_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    c.expect_int("training_mode", 0)?;
    c.expect_int("spatial", 1)?;
    let mut operands = c.all_operands()?;
    let epsilon = c.float("epsilon", 1e-5)?;
    let dtype = c.dtype(c.operand(0)?);
    if operands.iter().all(|&v| c.dtype(v) == dtype) {
        return c.emit(Op::BatchNorm { epsilon }, &operands);
    }
    // Statistics and parameters may be of wider types than the operand.
    let wide = if operands.iter().any(|&v| c.dtype(v) == DType::F64) { DType::F64 } else { DType::F32 };
    for operand in &mut operands {
        *operand = c.cast(*operand, wide)?;
    }
    let result = c.emit(Op::BatchNorm { epsilon }, &operands)?;
    c.cast(result, dtype)
}

/// Layer normalization over the dimensions from `axis` on, without parameters.
fn plain_layer_norm(c: &mut NodeContext<'_>, x: Value, axis: usize, epsilon: f32) -> Result<Value, Reason> {
    let dtype = c.dtype(x);
    let shape = c.shape(x)[axis..].to_vec();
    let (one, zero) = (c.scalar(dtype, 1.0)?, c.scalar(dtype, 0.0)?);
    let (ones, zeros) = (c.expand(one, shape.as_slice())?, c.expand(zero, shape)?);
    c.emit(Op::LayerNorm { axis, epsilon }, &[x, ones, zeros])
}

/// Scales and shifts dimension 1, which has as many elements as the parameters.
fn per_channel(c: &mut NodeContext<'_>, x: Value, scale: Value, bias: Value) -> Result<Value, Reason> {
    let shape = c.shape(x).to_vec();
    if shape.len() < 2 || c.shape(scale) != &shape[1..2] || c.shape(bias) != &shape[1..2] {
        return Err(format!("operands {shape:?}, {:?}, {:?} do not fit", c.shape(scale), c.shape(bias)).into());
    }
    let mut channels = vec![1; shape.len() - 1];
    channels[0] = shape[1];
    let (scale, bias) = (c.reshape(scale, channels.as_slice())?, c.reshape(bias, channels)?);
    let scaled = c.binary(BinaryOp::Mul, x, scale)?;
    c.binary(BinaryOp::Add, scaled, bias)
}

/// Layer normalization over the spatial dimensions, scaled and shifted per channel.
fn instance_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, scale, bias) = (c.operand(0)?, c.operand(1)?, c.operand(2)?);
    let epsilon = c.float("epsilon", 1e-5)?;
    if c.rank(x) < 3 {
        return Err(format!("rank {} has no spatial dimensions", c.rank(x)).into());
    }
    let normalized = plain_layer_norm(c, x, 2, epsilon)?;
    per_channel(c, normalized, scale, bias)
}

/// Layer normalization over the channels of each group and the spatial dimensions, scaled and shifted per group or
/// channel.
fn group_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, scale, bias) = (c.operand(0)?, c.operand(1)?, c.operand(2)?);
    let epsilon = c.float("epsilon", 1e-5)?;
    let shape = c.shape(x).to_vec();
    let &[n, channels, ref spatial @ ..] = shape.as_slice() else { return Err("an operand needs channels".into()) };
    let groups = c.int("num_groups")?.and_then(|g| u64::try_from(g).ok()).filter(|&g| g > 0);
    let groups = groups.filter(|&g| channels.is_multiple_of(g));
    let groups = groups.ok_or_else(|| format!("num_groups must divide {channels} channels"))?;
    let members = spatial.iter().product::<u64>() * (channels / groups);
    let grouped = c.reshape(x, [n, groups, members])?;
    let normalized = plain_layer_norm(c, grouped, 2, epsilon)?;
    if c.opset < 21 {
        let result = per_channel(c, normalized, scale, bias)?;
        return c.reshape(result, shape);
    }
    let normalized = c.reshape(normalized, shape)?;
    per_channel(c, normalized, scale, bias)
}

/// `x / (Σ |x|^p)^(1/p)` along a dimension.
fn lp_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axis = c.axis(c.int("axis")?.unwrap_or(-1), c.rank(x))?;
    let p = c.int("p")?.unwrap_or(2);
    if !(1..=2).contains(&p) {
        return Err(format!("p = {p} is not supported").into());
    }
    c.in_f32(x, |c, x| {
        let powers = to_power(c, x, p)?;
        let sum = c.reduce(ReduceOp::Sum, powers, &[axis], true)?;
        let norm = root(c, sum, p)?;
        let dtype = c.dtype(norm);
        let one = c.scalar(dtype, 1.0)?;
        let zero = c.binary_scalar(BinaryOp::Eq, norm, 0.0)?;
        let divisor = c.select(zero, one, norm)?;
        c.binary(BinaryOp::Div, x, divisor)
    })
}

/// `(x - mean) / (√variance + 1e-9)` over some dimensions.
fn mean_variance_normalization(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axes = c.ints_attribute("axes")?.unwrap_or(&[0, 2, 3]).to_vec();
    let axes = c.axes(&axes, c.rank(x))?;
    c.in_f32(x, |c, x| {
        let mean = c.reduce(ReduceOp::Mean, x, &axes, true)?;
        let centred = c.binary(BinaryOp::Sub, x, mean)?;
        let square = c.binary(BinaryOp::Mul, centred, centred)?;
        let variance = c.reduce(ReduceOp::Mean, square, &axes, true)?;
        let deviation = c.unary(UnaryOp::Sqrt, variance)?;
        let divisor = c.binary_scalar(BinaryOp::Add, deviation, 1e-9)?;
        c.binary(BinaryOp::Div, centred, divisor)
    })
}

/// `x / (bias + alpha · m)^beta` with the mean `m` of the squares of `size` neighbouring channels, those beyond the first
/// and last taken as 0.
fn local_response(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let shape = c.shape(x).to_vec();
    let &[n, channels, ref spatial @ ..] = shape.as_slice() else { return Err("an operand needs channels".into()) };
    let size = c.int("size")?.and_then(|s| u32::try_from(s).ok()).filter(|&s| s > 0);
    let size = u64::from(size.ok_or("`size` must be at least 1")?);
    let (alpha, beta) = (f64::from(c.float("alpha", 1e-4)?), f64::from(c.float("beta", 0.75)?));
    let bias = f64::from(c.float("bias", 1.0)?);
    let places = spatial.iter().product();
    c.in_f32(x, |c, x| {
        let square = c.binary(BinaryOp::Mul, x, x)?;
        let flat = c.reshape(square, [n, 1, channels, places])?;
        let attrs = PoolAttrs {
            kind: PoolKind::AverageIncludePad,
            kernel: vec![size, 1],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads: vec![((size - 1) / 2, size / 2), (0, 0)],
        };
        let mean = c.emit(Op::Pool(attrs), &[flat])?;
        let mean = c.reshape(mean, shape.as_slice())?;
        let scaled = c.binary_scalar(BinaryOp::Mul, mean, alpha)?;
        let shifted = c.binary_scalar(BinaryOp::Add, scaled, bias)?;
        let divisor = c.binary_scalar(BinaryOp::Pow, shifted, beta)?;
        c.binary(BinaryOp::Div, x, divisor)
    })
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
