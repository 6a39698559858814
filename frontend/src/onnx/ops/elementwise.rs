//! Arithmetic of elements.

use aic_ir::graph::{BinaryOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, NUMBERS, SIGNED};
use super::{OpRule, VARIADIC, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Add", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Add)).types(NUMBERS),
    rule("Sub", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Sub)).types(NUMBERS),
    rule("Mul", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Mul)).types(NUMBERS),
    rule("Div", (2, 2), &[], "numbers of one type; broadcasts; integers truncate", |c| binary(c, BinaryOp::Div))
        .types(NUMBERS),
    rule("Mod", (2, 2), &["fmod"], "the sign of the divisor, with fmod = 1 of the dividend; broadcasts", modulo)
        .types(NUMBERS)
        .since(10),
    rule("Max", (1, VARIADIC), &[], "numbers of one type; broadcasts", |c| chain(c, BinaryOp::Max)).types(NUMBERS),
    rule("Min", (1, VARIADIC), &[], "numbers of one type; broadcasts", |c| chain(c, BinaryOp::Min)).types(NUMBERS),
    rule("Sum", (1, VARIADIC), &[], "floats; broadcasts", |c| chain(c, BinaryOp::Add)).types(FLOATS),
    rule("Mean", (1, VARIADIC), &[], "floats; broadcasts", mean).types(FLOATS),
    rule("Neg", (1, 1), &[], "numbers", |c| unary(c, UnaryOp::Neg)).types(SIGNED),
    rule("Abs", (1, 1), &[], "numbers", |c| unary(c, UnaryOp::Abs)).types(NUMBERS),
    rule("Sqrt", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Sqrt)).types(FLOATS),
    rule("Exp", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Exp)).types(FLOATS),
    rule("Log", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Log)).types(FLOATS),
    rule("Reciprocal", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Recip)).types(FLOATS),
    rule("Erf", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Erf)).types(FLOATS).since(9),
    rule("Sign", (1, 1), &[], "numbers", sign).types(NUMBERS).since(9),
    rule("Floor", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Floor)).types(FLOATS),
    rule("Ceil", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Ceil)).types(FLOATS),
    rule("Round", (1, 1), &[], "floats; ties to even", |c| unary(c, UnaryOp::Round)).types(FLOATS).since(11),
    rule("Clip", (1, 3), &["max", "min"], "numbers; bounds may be omitted", clip).types(NUMBERS),
];

pub(super) fn unary(c: &mut NodeContext<'_>, op: UnaryOp) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    c.unary(op, x)
}

pub(super) fn binary(c: &mut NodeContext<'_>, op: BinaryOp) -> Result<Value, Reason> {
    let (a, b) = (c.operand(0)?, c.operand(1)?);
    c.binary(op, a, b)
}

fn chain(c: &mut NodeContext<'_>, op: BinaryOp) -> Result<Value, Reason> {
    let operands = c.all_operands()?;
    let mut result = c.operand(0)?;
    for &x in operands.iter().skip(1) {
        result = c.binary(op, result, x)?;
    }
    Ok(result)
}

fn mean(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let count = c.operands.len() as f64;
    let sum = chain(c, BinaryOp::Add)?;
    c.binary_scalar(BinaryOp::Div, sum, count)
}

/// -1, 0 or 1; zeros and NaN stay as they are.
fn sign(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let dtype = c.dtype(x);
    let (zero, one) = (c.scalar(dtype, 0.0)?, c.scalar(dtype, 1.0)?);
    let positive = c.binary(BinaryOp::Lt, zero, x)?;
    let result = c.select(positive, one, x)?;
    if !dtype.is_float() && !dtype.is_signed_int() {
        return Ok(result);
    }
    let minus_one = c.scalar(dtype, -1.0)?;
    let negative = c.binary(BinaryOp::Lt, x, zero)?;
    c.select(negative, minus_one, result)
}

/// The remainder has the sign of the dividend. Unless `fmod` is set, the divisor is added where the remainder is not 0 and
/// has not the divisor's sign.
fn modulo(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (a, b) = (c.operand(0)?, c.operand(1)?);
    let dtype = c.dtype(a);
    let rest = c.binary(BinaryOp::Rem, a, b)?;
    if c.flag("fmod", false)? || !(dtype.is_float() || dtype.is_signed_int()) {
        return Ok(rest);
    }
    let zero = c.scalar(dtype, 0.0)?;
    let rest_negative = c.binary(BinaryOp::Lt, rest, zero)?;
    let b_negative = c.binary(BinaryOp::Lt, b, zero)?;
    let signs_differ = c.binary(BinaryOp::Xor, rest_negative, b_negative)?;
    let rest_zero = c.binary(BinaryOp::Eq, rest, zero)?;
    let rest_nonzero = c.unary(UnaryOp::Not, rest_zero)?;
    let wrap = c.binary(BinaryOp::And, signs_differ, rest_nonzero)?;
    let wrapped = c.binary(BinaryOp::Add, rest, b)?;
    c.select(wrap, wrapped, rest)
}

fn clip(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let mut x = c.operand(0)?;
    for (index, name, op) in [(1, "min", BinaryOp::Max), (2, "max", BinaryOp::Min)] {
        if c.opset < 11 {
            c.refuse_operand(index, name)?;
            if let Some(bound) = c.optional_float(name)? {
                x = c.binary_scalar(op, x, f64::from(bound))?;
            }
            continue;
        }
        c.refuse_attribute(name)?;
        let Some(bound) = c.optional(index) else { continue };
        if c.graph.ty(bound).elems() != 1 {
            return Err("bounds must be scalars".into());
        }
        let bound = c.reshape(bound, [])?;
        x = c.binary(op, x, bound)?;
    }
    match c.dtype(x) {
        DType::Bool => Err("truth values are not numbers".into()),
        _ => Ok(x),
    }
}
