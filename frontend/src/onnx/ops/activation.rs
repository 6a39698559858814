//! Activation functions, written with the arithmetic of the graph where it has no operator of that name.

use aic_ir::graph::{BinaryOp, GeluKind, Op, UnaryOp, Value};

use super::accept::{FLOATS, SIGNED, WIDE};
use super::elementwise::unary;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Relu", (1, 1), &[], "numbers", relu).types(SIGNED),
    rule("LeakyRelu", (1, 1), &["alpha"], "floats", leaky_relu).types(FLOATS),
    rule("PRelu", (2, 2), &[], "numbers; the slope broadcasts", prelu).types(WIDE),
    rule("Elu", (1, 1), &["alpha"], "floats", elu).types(FLOATS),
    rule("Softplus", (1, 1), &[], "floats", softplus).types(FLOATS),
    rule("Sigmoid", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Sigmoid)).types(FLOATS),
    rule("HardSigmoid", (1, 1), &["alpha", "beta"], "floats", |c| {
        let x = c.operand(0)?;
        let (alpha, beta) = (c.float("alpha", 0.2)?, c.float("beta", 0.5)?);
        hard_sigmoid(c, x, alpha, beta)
    })
    .types(FLOATS),
    rule("HardSwish", (1, 1), &[], "floats", hard_swish).types(FLOATS).since(14),
    rule("Tanh", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Tanh)).types(FLOATS),
    rule("Gelu", (1, 1), &["approximate"], "floats; by erf, or approximated by tanh", gelu).types(FLOATS).since(20),
];

fn relu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    c.binary_scalar(BinaryOp::Max, x, 0.0)
}

/// `x < 0 ? slope : x`.
fn select_negative(c: &mut NodeContext<'_>, x: Value, negative: Value) -> Result<Value, Reason> {
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

/// `x < 0 ? alpha (e^x - 1) : x`, the exponential of what is not above 0 so that it stays finite.
fn elu(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let alpha = c.float("alpha", 1.0)?;
    let low = c.binary_scalar(BinaryOp::Min, x, 0.0)?;
    let exp = c.unary(UnaryOp::Exp, low)?;
    let shifted = c.binary_scalar(BinaryOp::Sub, exp, 1.0)?;
    let scaled = c.binary_scalar(BinaryOp::Mul, shifted, f64::from(alpha))?;
    select_negative(c, x, scaled)
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)`, where nothing overflows.
fn softplus(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let abs = c.unary(UnaryOp::Abs, x)?;
    let negative = c.unary(UnaryOp::Neg, abs)?;
    let exp = c.unary(UnaryOp::Exp, negative)?;
    let one_plus = c.binary_scalar(BinaryOp::Add, exp, 1.0)?;
    let log = c.unary(UnaryOp::Log, one_plus)?;
    let high = c.binary_scalar(BinaryOp::Max, x, 0.0)?;
    c.binary(BinaryOp::Add, high, log)
}

/// `max(0, min(1, alpha x + beta))`.
fn hard_sigmoid(c: &mut NodeContext<'_>, x: Value, alpha: f32, beta: f32) -> Result<Value, Reason> {
    let scaled = c.binary_scalar(BinaryOp::Mul, x, f64::from(alpha))?;
    let shifted = c.binary_scalar(BinaryOp::Add, scaled, f64::from(beta))?;
    let low = c.binary_scalar(BinaryOp::Min, shifted, 1.0)?;
    c.binary_scalar(BinaryOp::Max, low, 0.0)
}

fn hard_swish(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let gate = hard_sigmoid(c, x, 1.0 / 6.0, 0.5)?;
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
