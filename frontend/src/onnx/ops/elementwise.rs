//! Arithmetic of elements.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, INTS, NUMBERS, SIGNED};
use super::{OpRule, VARIADIC, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// Bases of powers.
const POWERS: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::I32, DType::I64];

pub(super) const RULES: &[OpRule] = &[
    rule("Add", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Add)).types(NUMBERS),
    rule("Sub", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Sub)).types(NUMBERS),
    rule("Mul", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Mul)).types(NUMBERS),
    rule("Div", (2, 2), &[], "numbers of one type; broadcasts; integers truncate", |c| binary(c, BinaryOp::Div))
        .types(NUMBERS),
    rule("Pow", (2, 2), &[], "float base; integer base with a constant exponent of 1 to 4", pow)
        .types(POWERS)
        .own(&[(1, NUMBERS)]),
    rule("Mod", (2, 2), &["fmod"], "integers; the sign of the divisor, with fmod = 1 that of the dividend", modulo)
        .types(INTS)
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
    rule("Sin", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Sin)).types(FLOATS),
    rule("Cos", (1, 1), &[], "floats", |c| unary(c, UnaryOp::Cos)).types(FLOATS),
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

/// The exponent may be of another type than the base, whose type the result has.
fn pow(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (base, exponent) = (c.operand(0)?, c.operand(1)?);
    let dtype = c.dtype(base);
    if dtype.is_float() {
        let exponent = c.emit(Op::Cast { to: dtype }, &[exponent])?;
        return c.binary(BinaryOp::Pow, base, exponent);
    }
    let times = c.graph.scalar_of(exponent).filter(|e| [1.0, 2.0, 3.0, 4.0].contains(e));
    let times = times.ok_or("powers of integers need a constant exponent of 1 to 4")?;
    let mut result = base;
    for _ in 1..times as u32 {
        result = c.binary(BinaryOp::Mul, result, base)?;
    }
    Ok(result)
}

/// `r = a - trunc(a / b) · b`, and unless `fmod` is set, `r + b` where `r` is not 0 and has not the sign of `b`.
fn modulo(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (a, b) = (c.operand(0)?, c.operand(1)?);
    let dtype = c.dtype(a);
    if !dtype.is_int() {
        return Err("only integers are supported".into());
    }
    let quotient = c.binary(BinaryOp::Div, a, b)?;
    let whole = c.binary(BinaryOp::Mul, quotient, b)?;
    let rest = c.binary(BinaryOp::Sub, a, whole)?;
    if c.flag("fmod", false)? || !dtype.is_signed_int() {
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
    c.emit(Op::Select, &[wrap, wrapped, rest])
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
