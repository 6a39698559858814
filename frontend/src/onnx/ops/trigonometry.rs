//! Functions of angles, hyperbolic functions and their inverses, from the few that the graph has.
//!
//! The forms are those that lose no digits: near 0, where results are as small as arguments, by `e^x - 1` and
//! `ln(1 + x)`; and where arguments are so large that a square or an exponential would overflow, by another form.

use aic_ir::graph::{BinaryOp, UnaryOp, Value};

use super::accept::FLOATS;
use super::elementwise::unary;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Sin", (1, 1), &[], "elementwise", |c| unary(c, UnaryOp::Sin)).types(FLOATS),
    rule("Cos", (1, 1), &[], "elementwise", |c| unary(c, UnaryOp::Cos)).types(FLOATS),
    rule("Tan", (1, 1), &[], "elementwise", |c| composed(c, tan)).types(FLOATS),
    rule("Asin", (1, 1), &[], "elementwise", |c| composed(c, asin)).types(FLOATS),
    rule("Acos", (1, 1), &[], "elementwise", |c| composed(c, acos)).types(FLOATS),
    rule("Atan", (1, 1), &[], "elementwise", |c| unary(c, UnaryOp::Atan)).types(FLOATS),
    rule("Sinh", (1, 1), &[], "elementwise", |c| composed(c, sinh)).types(FLOATS).since(9),
    rule("Cosh", (1, 1), &[], "elementwise", |c| composed(c, cosh)).types(FLOATS).since(9),
    rule("Tanh", (1, 1), &[], "elementwise", |c| unary(c, UnaryOp::Tanh)).types(FLOATS),
    rule("Asinh", (1, 1), &[], "elementwise", |c| composed(c, asinh)).types(FLOATS).since(9),
    rule("Acosh", (1, 1), &[], "elementwise", |c| composed(c, acosh)).types(FLOATS).since(9),
    rule("Atanh", (1, 1), &[], "elementwise", |c| composed(c, atanh)).types(FLOATS).since(9),
];

/// Above this, `e^-2x` is nothing beside 1 in binary64, and below `e^x` is finite in binary32.
const LARGE_EXPONENT: f64 = 22.0;

/// Above this, `1/x²` is nothing beside 1 in binary64, and below `x²` is finite in binary32.
const LARGE_SQUARE: f64 = 1e8;

/// Applies a function of one operand, composed of others.
pub(super) fn composed(
    c: &mut NodeContext<'_>,
    function: fn(&mut NodeContext<'_>, Value) -> Result<Value, Reason>,
) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    c.in_f32(x, function)
}

fn tan(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let (sin, cos) = (c.unary(UnaryOp::Sin, x)?, c.unary(UnaryOp::Cos, x)?);
    c.binary(BinaryOp::Div, sin, cos)
}

/// `1 - x` and `1 + x`.
fn around_one(c: &mut NodeContext<'_>, x: Value) -> Result<(Value, Value), Reason> {
    Ok((c.scalar_binary(BinaryOp::Sub, 1.0, x)?, c.binary_scalar(BinaryOp::Add, x, 1.0)?))
}

/// `atan(x / √((1 - x)(1 + x)))`.
fn asin(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let (below, above) = around_one(c, x)?;
    let square = c.binary(BinaryOp::Mul, below, above)?;
    let root = c.unary(UnaryOp::Sqrt, square)?;
    let tangent = c.binary(BinaryOp::Div, x, root)?;
    c.unary(UnaryOp::Atan, tangent)
}

/// `2 atan √((1 - x) / (1 + x))`.
fn acos(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let (below, above) = around_one(c, x)?;
    let square = c.binary(BinaryOp::Div, below, above)?;
    let tangent = c.unary(UnaryOp::Sqrt, square)?;
    let half = c.unary(UnaryOp::Atan, tangent)?;
    c.binary_scalar(BinaryOp::Mul, half, 2.0)
}

/// `e^|x| / 2`, which is finite wherever the hyperbolic functions are, and `e^(|x|/2)`.
fn half_exponential(c: &mut NodeContext<'_>, magnitude: Value) -> Result<(Value, Value), Reason> {
    let half = c.binary_scalar(BinaryOp::Mul, magnitude, 0.5)?;
    let root = c.unary(UnaryOp::Exp, half)?;
    let halved = c.binary_scalar(BinaryOp::Mul, root, 0.5)?;
    Ok((c.binary(BinaryOp::Mul, halved, root)?, root))
}

/// With `e = e^|x| - 1`, the magnitude is `(e + e/(e + 1)) / 2`; for large `x` it is `e^|x| / 2`.
fn sinh(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let magnitude = c.unary(UnaryOp::Abs, x)?;
    let bounded = c.binary_scalar(BinaryOp::Min, magnitude, LARGE_EXPONENT)?;
    let e = c.unary(UnaryOp::Expm1, bounded)?;
    let next = c.binary_scalar(BinaryOp::Add, e, 1.0)?;
    let quotient = c.binary(BinaryOp::Div, e, next)?;
    let sum = c.binary(BinaryOp::Add, e, quotient)?;
    let small = c.binary_scalar(BinaryOp::Mul, sum, 0.5)?;
    let (large, _) = half_exponential(c, magnitude)?;
    let is_small = c.binary_scalar(BinaryOp::Lt, magnitude, LARGE_EXPONENT)?;
    let result = c.select(is_small, small, large)?;
    with_sign_of(c, result, x)
}

/// `e^|x| / 2 + e^-|x| / 2`.
fn cosh(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let magnitude = c.unary(UnaryOp::Abs, x)?;
    let (large, root) = half_exponential(c, magnitude)?;
    let inverse = c.unary(UnaryOp::Recip, root)?;
    let square = c.binary(BinaryOp::Mul, inverse, inverse)?;
    let small = c.binary_scalar(BinaryOp::Mul, square, 0.5)?;
    c.binary(BinaryOp::Add, large, small)
}

/// The magnitude is `ln(1 + x + x²/(1 + √(x² + 1)))`; for large `x` it is `ln x + ln 2`.
fn asinh(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let magnitude = c.unary(UnaryOp::Abs, x)?;
    let bounded = c.binary_scalar(BinaryOp::Min, magnitude, LARGE_SQUARE)?;
    let square = c.binary(BinaryOp::Mul, bounded, bounded)?;
    let (_, next) = around_one(c, square)?;
    let root = c.unary(UnaryOp::Sqrt, next)?;
    let divisor = c.binary_scalar(BinaryOp::Add, root, 1.0)?;
    let more = c.binary(BinaryOp::Div, square, divisor)?;
    let sum = c.binary(BinaryOp::Add, bounded, more)?;
    let small = c.unary(UnaryOp::Log1p, sum)?;
    let result = unless_large(c, magnitude, small)?;
    with_sign_of(c, result, x)
}

/// With `t = x - 1`, it is `ln(1 + t + √(t (t + 2)))`; for large `x` it is `ln x + ln 2`, and below 1 NaN.
fn acosh(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let bounded = c.binary_scalar(BinaryOp::Min, x, LARGE_SQUARE)?;
    let t = c.binary_scalar(BinaryOp::Sub, bounded, 1.0)?;
    let next = c.binary_scalar(BinaryOp::Add, t, 2.0)?;
    let square = c.binary(BinaryOp::Mul, t, next)?;
    let root = c.unary(UnaryOp::Sqrt, square)?;
    let sum = c.binary(BinaryOp::Add, t, root)?;
    let small = c.unary(UnaryOp::Log1p, sum)?;
    let result = unless_large(c, x, small)?;
    let outside = c.binary_scalar(BinaryOp::Lt, x, 1.0)?;
    let dtype = c.dtype(x);
    let nan = c.scalar(dtype, f64::NAN)?;
    c.select(outside, nan, result)
}

/// `x <= LARGE_SQUARE ? small : ln x + ln 2`.
fn unless_large(c: &mut NodeContext<'_>, x: Value, small: Value) -> Result<Value, Reason> {
    let log = c.unary(UnaryOp::Log, x)?;
    let large = c.binary_scalar(BinaryOp::Add, log, std::f64::consts::LN_2)?;
    let is_small = c.binary_scalar(BinaryOp::Le, x, LARGE_SQUARE)?;
    c.select(is_small, small, large)
}

/// The magnitude is `ln(1 + 2x/(1 - x)) / 2`.
fn atanh(c: &mut NodeContext<'_>, x: Value) -> Result<Value, Reason> {
    let magnitude = c.unary(UnaryOp::Abs, x)?;
    let (below, _) = around_one(c, magnitude)?;
    let doubled = c.binary_scalar(BinaryOp::Mul, magnitude, 2.0)?;
    let quotient = c.binary(BinaryOp::Div, doubled, below)?;
    let log = c.unary(UnaryOp::Log1p, quotient)?;
    let result = c.binary_scalar(BinaryOp::Mul, log, 0.5)?;
    with_sign_of(c, result, x)
}

/// A magnitude with the sign of `x`.
fn with_sign_of(c: &mut NodeContext<'_>, magnitude: Value, x: Value) -> Result<Value, Reason> {
    let negative = c.binary_scalar(BinaryOp::Lt, x, 0.0)?;
    let negated = c.unary(UnaryOp::Neg, magnitude)?;
    c.select(negative, negated, magnitude)
}
