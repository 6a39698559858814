//! Comparisons, truth values, selection and conversion of element types.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{ANY, BOOL, FLOATS, NUMBERS};
use super::elementwise::{binary, unary};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;
use crate::onnx::tensor::dtype;

pub(super) const RULES: &[OpRule] = &[
    rule("Equal", (2, 2), &[], "any one type but strings; broadcasts", |c| binary(c, BinaryOp::Eq)).types(ANY),
    rule("Less", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Lt)).types(NUMBERS),
    rule("LessOrEqual", (2, 2), &[], "numbers of one type; broadcasts", |c| binary(c, BinaryOp::Le))
        .types(NUMBERS)
        .since(12),
    rule("Greater", (2, 2), &[], "numbers of one type; broadcasts", |c| swapped(c, BinaryOp::Lt)).types(NUMBERS),
    rule("GreaterOrEqual", (2, 2), &[], "numbers of one type; broadcasts", |c| swapped(c, BinaryOp::Le))
        .types(NUMBERS)
        .since(12),
    rule("And", (2, 2), &[], "truth values; broadcasts", |c| binary(c, BinaryOp::And)).types(BOOL),
    rule("Or", (2, 2), &[], "truth values; broadcasts", |c| binary(c, BinaryOp::Or)).types(BOOL),
    rule("Xor", (2, 2), &[], "truth values; broadcasts", |c| binary(c, BinaryOp::Xor)).types(BOOL),
    rule("Not", (1, 1), &[], "truth values", |c| unary(c, UnaryOp::Not)).types(BOOL),
    rule("IsNaN", (1, 1), &[], "floats", is_nan).types(FLOATS).since(9),
    rule("IsInf", (1, 1), &["detect_negative", "detect_positive"], "floats", is_inf).types(FLOATS).since(10),
    rule("Where", (3, 3), &[], "any type but strings; broadcasts", where_).types(ANY).own(&[(0, BOOL)]).since(9),
    // `saturate` and `round_mode` concern 8-bit floats only, which no value has here.
    rule(
        "Cast",
        (1, 1),
        &["to", "saturate"],
        "numbers and truth values of 8 to 64 bits; floats truncate and saturate",
        cast,
    )
    .types(ANY)
    .gives(ANY),
    rule("CastLike", (2, 2), &["saturate"], "as Cast", cast_like).types(ANY).since(15),
];

/// `a > b` is `b < a`.
fn swapped(c: &mut NodeContext<'_>, op: BinaryOp) -> Result<Value, Reason> {
    let (a, b) = (c.operand(0)?, c.operand(1)?);
    c.binary(op, b, a)
}

/// Only a NaN differs from itself.
fn is_nan(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    if !c.dtype(x).is_float() {
        return Err(format!("element type {} is not accepted here", c.dtype(x)).into());
    }
    let equal = c.binary(BinaryOp::Eq, x, x)?;
    c.unary(UnaryOp::Not, equal)
}

fn is_inf(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let infinity = match (c.flag("detect_negative", true)?, c.flag("detect_positive", true)?) {
        (true, true) => {
            let magnitude = c.unary(UnaryOp::Abs, x)?;
            return c.binary_scalar(BinaryOp::Eq, magnitude, f64::INFINITY);
        }
        (false, true) => f64::INFINITY,
        (true, false) => f64::NEG_INFINITY,
        (false, false) => {
            let shape = c.shape(x).to_vec();
            let no = c.scalar(DType::Bool, 0.0)?;
            return c.expand(no, shape);
        }
    };
    c.binary_scalar(BinaryOp::Eq, x, infinity)
}

fn where_(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let operands = c.all_operands()?;
    c.emit(Op::Select, &operands)
}

/// The element type of ONNX's number for it.
pub(super) fn element_type(number: i64) -> Result<DType, Reason> {
    let number = i32::try_from(number).map_err(|_| format!("element type number {number} is not supported"))?;
    dtype(number).map_err(|name| format!("element type {name} is not supported").into())
}

fn cast(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let to = element_type(c.int("to")?.ok_or("attribute `to` is missing")?)?;
    c.cast(x, to)
}

fn cast_like(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, like) = (c.operand(0)?, c.operand(1)?);
    let to = c.dtype(like);
    c.emit(Op::Cast { to }, &[x])
}
