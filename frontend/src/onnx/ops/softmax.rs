//! Normalized exponentials, and the choice of the largest element.

use aic_ir::graph::{ArgOp, BinaryOp, Op, ReduceOp, UnaryOp, Value};

use super::accept::FLOATS;
use super::constant::numbers;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Softmax", (1, 1), &["axis"], "before operator set 13 over all dimensions from the axis on", softmax)
        .types(FLOATS),
    rule("LogSoftmax", (1, 1), &["axis"], "as Softmax", log_softmax).types(FLOATS),
    rule("Hardmax", (1, 1), &["axis"], "as Softmax; the first of equal elements", hardmax).types(FLOATS),
];

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
    if c.graph.ty(x).elems() == 0 {
        return Ok(x);
    }
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
    along_axis(c, |c, x, axis| c.in_f32(x, |c, x| log_softmax_along(c, x, axis)))
}

fn log_softmax_along(c: &mut NodeContext<'_>, x: Value, axis: usize) -> Result<Value, Reason> {
    let max = c.reduce(ReduceOp::Max, x, &[axis], true)?;
    let shifted = c.binary(BinaryOp::Sub, x, max)?;
    let exp = c.unary(UnaryOp::Exp, shifted)?;
    let sum = c.reduce(ReduceOp::Sum, exp, &[axis], true)?;
    let log = c.unary(UnaryOp::Log, sum)?;
    c.binary(BinaryOp::Sub, shifted, log)
}

fn hardmax(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    along_axis(c, |c, x, axis| {
        let mut along = vec![1; c.rank(x)];
        along[axis] = c.shape(x)[axis];
        let largest = c.emit(Op::ArgReduce { op: ArgOp::Max, axis, last: false }, &[x])?;
        let positions = numbers(c, along[axis], 0)?;
        let positions = c.reshape(positions, along)?;
        let chosen = c.binary(BinaryOp::Eq, positions, largest)?;
        let dtype = c.dtype(x);
        c.cast(chosen, dtype)
    })
}
