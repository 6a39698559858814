//! Operators on the bits of integers.

use aic_ir::graph::{BinaryOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::INTS;
use super::elementwise::{binary, unary};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

const UNSIGNED: &[DType] = &[DType::U8, DType::U16, DType::U32, DType::U64];

pub(super) const RULES: &[OpRule] = &[
    rule("BitShift", (2, 2), &["direction"], "broadcasts; by the width or more gives 0", bit_shift)
        .types(UNSIGNED)
        .since(11),
    rule("BitwiseAnd", (2, 2), &[], "broadcasts", |c| binary(c, BinaryOp::And)).types(INTS).since(18),
    rule("BitwiseOr", (2, 2), &[], "broadcasts", |c| binary(c, BinaryOp::Or)).types(INTS).since(18),
    rule("BitwiseXor", (2, 2), &[], "broadcasts", |c| binary(c, BinaryOp::Xor)).types(INTS).since(18),
    rule("BitwiseNot", (1, 1), &[], "elementwise", |c| unary(c, UnaryOp::Not)).types(INTS).since(18),
];

fn bit_shift(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    match c.text("direction", "")? {
        "LEFT" => binary(c, BinaryOp::Shl),
        "RIGHT" => binary(c, BinaryOp::Shr),
        other => Err(format!("direction = {other:?} is not supported").into()),
    }
}
