//! Reductions, and those that are written as a reduction with arithmetic around it.

use aic_ir::graph::{BinaryOp, ReduceOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, I64, WIDE};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

const ATTRIBUTES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

/// What the largest and smallest element are taken of.
const REDUCED_MAX: &[DType] = &[
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U32,
    DType::U64,
    DType::Bool,
];

pub(super) const RULES: &[OpRule] = &[
    rule("ReduceSum", (1, 2), ATTRIBUTES, "numbers; constant axes", |c| plain(c, ReduceOp::Sum, 13))
        .types(WIDE)
        .own(&[(1, I64)]),
    rule("ReduceMean", (1, 2), ATTRIBUTES, "floats; constant axes", |c| plain(c, ReduceOp::Mean, 18))
        .types(FLOATS)
        .own(&[(1, I64)]),
    rule("ReduceMax", (1, 2), ATTRIBUTES, "numbers; constant axes", |c| plain(c, ReduceOp::Max, 18))
        .types(REDUCED_MAX)
        .own(&[(1, I64)]),
    rule("ReduceMin", (1, 2), ATTRIBUTES, "numbers; constant axes", |c| plain(c, ReduceOp::Min, 18))
        .types(REDUCED_MAX)
        .own(&[(1, I64)]),
    rule("ReduceProd", (1, 2), ATTRIBUTES, "numbers; constant axes", |c| plain(c, ReduceOp::Prod, 18))
        .types(WIDE)
        .own(&[(1, I64)]),
    rule("ReduceL1", (1, 2), ATTRIBUTES, "numbers; constant axes", l1).types(WIDE).own(&[(1, I64)]),
    rule("ReduceL2", (1, 2), ATTRIBUTES, "floats; constant axes", l2).types(FLOATS).own(&[(1, I64)]),
    rule("ReduceSumSquare", (1, 2), ATTRIBUTES, "numbers; constant axes", sum_square).types(WIDE).own(&[(1, I64)]),
    rule("ReduceLogSum", (1, 2), ATTRIBUTES, "floats; constant axes", log_sum).types(FLOATS).own(&[(1, I64)]),
    rule("ReduceLogSumExp", (1, 2), ATTRIBUTES, "floats; constant axes", log_sum_exp).types(FLOATS).own(&[(1, I64)]),
];

/// Which dimensions are reduced and whether they are kept.
struct Reduction {
    axes: Vec<usize>,
    keep_dims: bool,
}

/// Axes are an operand from operator set `since` on, an attribute before. `None` when there is nothing to do.
fn reduction(c: &NodeContext<'_>, since: i64) -> Result<Option<Reduction>, Reason> {
    let rank = c.rank(c.operand(0)?);
    let axes = c.list_since(since, 1, "axes")?.unwrap_or_default();
    let keep_dims = c.flag("keepdims", true)?;
    if !axes.is_empty() {
        return Ok(Some(Reduction { axes: c.axes(&axes, rank)?, keep_dims }));
    }
    match c.flag("noop_with_empty_axes", false)? {
        true => Ok(None),
        false => Ok(Some(Reduction { axes: (0..rank).collect(), keep_dims })),
    }
}

/// As [`reduction`], for operators that do more than to reduce: there `noop_with_empty_axes` is not well defined.
fn composite(c: &NodeContext<'_>) -> Result<Reduction, Reason> {
    reduction(c, 18)?.ok_or_else(|| "noop_with_empty_axes is not supported here".into())
}

fn plain(c: &mut NodeContext<'_>, op: ReduceOp, since: i64) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    match reduction(c, since)? {
        Some(Reduction { axes, keep_dims }) => c.reduce(op, x, &axes, keep_dims),
        None => Ok(x),
    }
}

fn l1(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let Reduction { axes, keep_dims } = composite(c)?;
    let x = c.operand(0)?;
    let abs = c.unary(UnaryOp::Abs, x)?;
    c.reduce(ReduceOp::Sum, abs, &axes, keep_dims)
}

fn sum_square(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let Reduction { axes, keep_dims } = composite(c)?;
    let x = c.operand(0)?;
    let square = c.binary(BinaryOp::Mul, x, x)?;
    c.reduce(ReduceOp::Sum, square, &axes, keep_dims)
}

fn l2(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let sum = sum_square(c)?;
    c.unary(UnaryOp::Sqrt, sum)
}

fn log_sum(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let Reduction { axes, keep_dims } = composite(c)?;
    let x = c.operand(0)?;
    let sum = c.reduce(ReduceOp::Sum, x, &axes, keep_dims)?;
    c.unary(UnaryOp::Log, sum)
}

/// `m + ln Σ e^(x - m)` with the maximum `m`, where nothing overflows.
fn log_sum_exp(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let Reduction { axes, keep_dims } = composite(c)?;
    let x = c.operand(0)?;
    let max = c.reduce(ReduceOp::Max, x, &axes, true)?;
    let shifted = c.binary(BinaryOp::Sub, x, max)?;
    let exp = c.unary(UnaryOp::Exp, shifted)?;
    let sum = c.reduce(ReduceOp::Sum, exp, &axes, true)?;
    let log = c.unary(UnaryOp::Log, sum)?;
    let result = c.binary(BinaryOp::Add, log, max)?;
    if keep_dims {
        return Ok(result);
    }
    let shape = c.shape(x);
    let kept: Vec<u64> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    c.reshape(result, kept)
}
