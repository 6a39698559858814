//! Activation functions, written with the arithmetic of the graph where it has no operator of that name.

use aic_ir::graph::{BinaryOp, GeluKind, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, NUMBERS, SIGNED, WIDE};
use super::elementwise::unary;
use super::trigonometry::composed;
use super::{OpRule, rule};
use crate::builder::{Builder, Reason};
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Relu", (1, 1), &[], "numbers", relu).types(SIGNED),
    rule("LeakyRelu", (1, 1), &["alpha"], "floats", leaky_relu).types(FLOATS),
    rule("PRelu", (2, 2), &[], "numbers; the slope broadcasts", prelu).types(WIDE),
    rule("Elu", (1, 1), &["alpha"], "floats", elu).types(FLOATS),
    rule("Celu", (1, 1), &["alpha"], "floats", celu).types(FLOATS).since(12),
    rule("Selu", (1, 1), &["alpha", "gamma"], "floats", selu).types(FLOATS),
    rule("Softplus", (1, 1), &[], "floats", |c| composed(c, |c, x| softplus(c, x))).types(FLOATS),
    rule("Softsign", (1, 1), &[], "floats", |c| composed(c, |c, x| softsign(c, x))).types(FLOATS),
    rule("Mish", (1, 1), &[], "floats", |c| composed(c, mish)).types(FLOATS).since(18),
    rule("ThresholdedRelu", (1, 1), &["alpha"], "floats", thresholded_relu).types(FLOATS).since(10),
    rule("Shrink", (1, 1), &["bias", "lambd"], "numbers", shrink).types(NUMBERS).since(9),
    rule("Sigmoid", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Sigmoid)).types(FLOATS),
    rule("HardSigmoid", (1, 1), &["alpha", "beta"], "floats", |c| {
        let x = c.operand(0)?;
        let (alpha, beta) = (c.float("alpha", 0.2)?, c.float("beta", 0.5)?);
        c.in_f32(x, |c, x| hard_sigmoid(c, x, f64::from(alpha), f64::from(beta)))
    })
    .types(FLOATS),
    rule("HardSwish", (1, 1), &[], "floats", |c| composed(c, hard_swish)).types(FLOATS).since(14),
    rule("Gelu", (1, 1), &["approximate"], "floats; by erf, or approximated by tanh", gelu).types(FLOATS).since(20),
];

fn relu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    c.binary_scalar(BinaryOp::Max, x, 0.0)
}

/// `x < 0 ? slope : x`.
pub(super) fn select_negative(c: &mut Builder, x: Value, negative: Value) -> Result<Value, Reason> {
    let is_negative = c.binary_scalar(BinaryOp::Lt, x, 0.0)?;
    c.emit(Op::Select, &[is_negative, negative, x])
}

fn leaky_relu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = c.float("alpha", 0.01)?;
    let scaled = c.binary_scalar(BinaryOp::Mul, x, f64::from(alpha))?;
    select_negative(c, x, scaled)
}

fn prelu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, slope) = (c.operand(0)?, c.operand(1)?);
    let scaled = c.binary(BinaryOp::Mul, x, slope)?;
    if c.shape(scaled) != c.shape(x) {
        return Err(format!("the slope of shape {:?} does not broadcast to {:?}", c.shape(slope), c.shape(x)).into());
    }
    select_negative(c, x, scaled)
}

/// `scale (e^min(x, 0) - 1)`, the exponential of what is not above 0 so that it stays finite.
pub(super) fn below_zero(c: &mut Builder, x: Value, scale: f64) -> Result<Value, Reason> {
    let low = c.binary_scalar(BinaryOp::Min, x, 0.0)?;
    let exp = c.unary(UnaryOp::Expm1, low)?;
    c.binary_scalar(BinaryOp::Mul, exp, scale)
}

/// `x < 0 ? alpha (e^x - 1) : x`.
fn elu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = f64::from(c.float("alpha", 1.0)?);
    c.in_f32(x, |c, x| {
        let negative = below_zero(c, x, alpha)?;
        select_negative(c, x, negative)
    })
}

/// `max(0, x) + min(0, alpha (e^(x/alpha) - 1))`.
fn celu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = f64::from(c.float("alpha", 1.0)?);
    c.in_f32(x, |c, x| {
        let scaled = c.binary_scalar(BinaryOp::Div, x, alpha)?;
        let exp = c.unary(UnaryOp::Expm1, scaled)?;
        let curve = c.binary_scalar(BinaryOp::Mul, exp, alpha)?;
        let low = c.binary_scalar(BinaryOp::Min, curve, 0.0)?;
        let high = c.binary_scalar(BinaryOp::Max, x, 0.0)?;
        c.binary(BinaryOp::Add, high, low)
    })
}

/// `gamma (x > 0 ? x : alpha (e^x - 1))`.
fn selu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = f64::from(c.float("alpha", 1.673_263_2)?);
    let gamma = f64::from(c.float("gamma", 1.050_701)?);
    c.in_f32(x, |c, x| {
        let negative = below_zero(c, x, alpha)?;
        let bent = select_negative(c, x, negative)?;
        c.binary_scalar(BinaryOp::Mul, bent, gamma)
    })
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`, where nothing overflows.
pub(super) fn softplus(c: &mut Builder, x: Value) -> Result<Value, Reason> {
    let abs = c.unary(UnaryOp::Abs, x)?;
    let negative = c.unary(UnaryOp::Neg, abs)?;
    let exp = c.unary(UnaryOp::Exp, negative)?;
    let log = c.unary(UnaryOp::Log1p, exp)?;
    let high = c.binary_scalar(BinaryOp::Max, x, 0.0)?;
    c.binary(BinaryOp::Add, high, log)
}

/// `x / (1 + |x|)`.
pub(super) fn softsign(c: &mut Builder, x: Value) -> Result<Value, Reason> {
    let abs = c.unary(UnaryOp::Abs, x)?;
    let divisor = c.binary_scalar(BinaryOp::Add, abs, 1.0)?;
    c.binary(BinaryOp::Div, x, divisor)
}

/// `x tanh(ln(1 + e^x))`.
fn mish(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let softplus = softplus(c, x)?;
    let gate = c.unary(UnaryOp::Tanh, softplus)?;
    c.binary(BinaryOp::Mul, x, gate)
}

/// `x > alpha ? x : 0`.
fn thresholded_relu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = f64::from(c.float("alpha", 1.0)?);
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0)?;
    let above = c.scalar_binary(BinaryOp::Lt, alpha, x)?;
    c.select(above, x, zero)
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
fn shrink(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let (bias, lambd) = (f64::from(c.float("bias", 0.0)?), f64::from(c.float("lambd", 0.5)?));
    let dtype = c.dtype(x);
    // Compared and shifted as floats, since both numbers may have fractions where `x` has none.
    let wide = if dtype == DType::F64 || dtype.is_int() { DType::F64 } else { DType::F32 };
    let x = c.cast(x, wide)?;
    let zero = c.scalar(wide, 0.0)?;
    let below = c.binary_scalar(BinaryOp::Lt, x, -lambd)?;
    let above = c.scalar_binary(BinaryOp::Lt, lambd, x)?;
    let raised = c.binary_scalar(BinaryOp::Add, x, bias)?;
    let lowered = c.binary_scalar(BinaryOp::Sub, x, bias)?;
    let high = c.select(above, lowered, zero)?;
    let result = c.select(below, raised, high)?;
    c.cast(result, dtype)
}

/// `max(0, min(1, alpha x + beta))`.
pub(super) fn hard_sigmoid(c: &mut Builder, x: Value, alpha: f64, beta: f64) -> Result<Value, Reason> {
    let scaled = c.binary_scalar(BinaryOp::Mul, x, alpha)?;
    let shifted = c.binary_scalar(BinaryOp::Add, scaled, beta)?;
    let low = c.binary_scalar(BinaryOp::Min, shifted, 1.0)?;
    c.binary_scalar(BinaryOp::Max, low, 0.0)
}

fn hard_swish(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let gate = hard_sigmoid(c, x, f64::from(1.0f32 / 6.0), 0.5)?;
    c.binary(BinaryOp::Mul, x, gate)
}

fn gelu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let kind = match c.text("approximate", "none")? {
        "none" => GeluKind::Erf,
        "tanh" => GeluKind::Tanh,
        other => return Err(format!("approximate = {other:?} is not supported").into()),
    };
    c.emit(Op::Gelu(kind), &[x])
}
