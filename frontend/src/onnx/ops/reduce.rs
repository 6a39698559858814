//! Reductions, and those that are written as a reduction with arithmetic around it.

use aic_ir::graph::{BinaryOp, ReduceOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, I64, WIDE};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

const ATTRIBUTES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

/// What the largest and smallest element are taken of.
const CHOSEN: &[DType] = &[
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

/// A rule of a reduction, with the types of what it reduces.
const fn reduction_rule(
    name: &'static str,
    types: &'static [DType],
    import: fn(&mut NodeContext<'_>) -> Result<Value, Reason>,
) -> OpRule {
    rule(name, (1, 2), ATTRIBUTES, "constant axes", import).types(types).own(&[(1, I64)])
}

pub(super) const RULES: &[OpRule] = &[
    reduction_rule("ReduceSum", WIDE, |c| plain(c, ReduceOp::Sum, 13)),
    reduction_rule("ReduceMean", WIDE, mean),
    reduction_rule("ReduceMax", CHOSEN, |c| chosen(c, ReduceOp::Max)),
    reduction_rule("ReduceMin", CHOSEN, |c| chosen(c, ReduceOp::Min)),
    reduction_rule("ReduceProd", WIDE, |c| plain(c, ReduceOp::Prod, 18)),
    reduction_rule("ReduceL1", WIDE, l1),
    reduction_rule("ReduceL2", WIDE, l2),
    reduction_rule("ReduceSumSquare", WIDE, sum_square),
    reduction_rule("ReduceLogSum", FLOATS, log_sum),
    reduction_rule("ReduceLogSumExp", FLOATS, log_sum_exp),
];

/// Which dimensions are reduced and whether they are kept.
struct Reduction {
    axes: Vec<usize>,
    keep_dims: bool,
}

impl Reduction {
    /// Axes are an operand from operator set `since` on, an attribute before. Without any, all dimensions are reduced, or
    /// with `noop_with_empty_axes` none: the arithmetic around the reduction remains.
    fn read(c: &NodeContext<'_>, since: i64) -> Result<Self, Reason> {
        let rank = c.rank(c.operand(0)?);
        let axes = c.list_since(since, 1, "axes")?.unwrap_or_default();
        let keep_dims = c.flag("keepdims", true)?;
        let noop = c.flag("noop_with_empty_axes", false)?;
        let axes = if axes.is_empty() && !noop { (0..rank).collect() } else { c.axes(&axes, rank)? };
        Ok(Self { axes, keep_dims })
    }

    /// The shape of the result.
    fn shape(&self, shape: &[u64]) -> Vec<u64> {
        let sizes = shape.iter().enumerate();
        sizes
            .filter(|(i, _)| self.keep_dims || !self.axes.contains(i))
            .map(|(i, &d)| if self.axes.contains(&i) { 1 } else { d })
            .collect()
    }

    fn of(&self, c: &mut NodeContext<'_>, op: ReduceOp, x: Value) -> Result<Value, Reason> {
        match self.axes.is_empty() {
            true => Ok(x),
            false => c.reduce(op, x, &self.axes, self.keep_dims),
        }
    }
}

fn plain(c: &mut NodeContext<'_>, op: ReduceOp, since: i64) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    Reduction::read(c, since)?.of(c, op, x)
}

/// The mean of integers is their sum divided, truncated.
fn mean(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let reduction = Reduction::read(c, 18)?;
    if c.dtype(x).is_float() {
        return reduction.of(c, ReduceOp::Mean, x);
    }
    let count: u64 = reduction.axes.iter().map(|&axis| c.shape(x)[axis]).product();
    let sum = reduction.of(c, ReduceOp::Sum, x)?;
    c.binary_scalar(BinaryOp::Div, sum, count as f64)
}

/// The smallest value of a type, which is the largest of no values; with `negated`, the largest.
fn extreme(dtype: DType, op: ReduceOp) -> f64 {
    let smallest = op == ReduceOp::Max;
    let bits = 8 * dtype.bytes() as i32;
    match (dtype.is_float(), dtype.is_signed_int(), smallest) {
        (true, _, true) => f64::NEG_INFINITY,
        (true, _, false) => f64::INFINITY,
        (false, true, true) => -f64::from(bits - 1).exp2(),
        (false, true, false) => f64::from(bits - 1).exp2(),
        (false, false, true) => 0.0,
        (false, false, false) => f64::from(bits).exp2(),
    }
}

/// The largest or smallest element: true is larger than false, and of no elements it is what any other would replace.
fn chosen(c: &mut NodeContext<'_>, op: ReduceOp) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let dtype = c.dtype(x);
    let reduction = Reduction::read(c, 18)?;
    if reduction.axes.iter().any(|&axis| c.shape(x)[axis] == 0) {
        let value = if dtype == DType::Bool { f64::from(u8::from(op == ReduceOp::Min)) } else { extreme(dtype, op) };
        let shape = reduction.shape(c.shape(x));
        let value = c.scalar(dtype, value)?;
        return c.expand(value, shape);
    }
    if dtype != DType::Bool {
        return reduction.of(c, op, x);
    }
    let numbers = c.cast(x, DType::U8)?;
    let result = reduction.of(c, op, numbers)?;
    c.cast(result, DType::Bool)
}

fn l1(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let reduction = Reduction::read(c, 18)?;
    let x = c.operand(0)?;
    let abs = c.unary(UnaryOp::Abs, x)?;
    reduction.of(c, ReduceOp::Sum, abs)
}

fn square_summed(c: &mut NodeContext<'_>, x: Value, reduction: &Reduction) -> Result<Value, Reason> {
    let square = c.binary(BinaryOp::Mul, x, x)?;
    reduction.of(c, ReduceOp::Sum, square)
}

fn sum_square(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let reduction = Reduction::read(c, 18)?;
    let x = c.operand(0)?;
    c.in_f32(x, |c, x| square_summed(c, x, &reduction))
}

/// The root of the sum of squares; of integers it is truncated.
fn l2(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let reduction = Reduction::read(c, 18)?;
    let x = c.operand(0)?;
    let dtype = c.dtype(x);
    c.in_f32(x, |c, x| {
        let sum = square_summed(c, x, &reduction)?;
        if dtype.is_float() {
            return c.unary(UnaryOp::Sqrt, sum);
        }
        let sum = c.cast(sum, DType::F64)?;
        let root = c.unary(UnaryOp::Sqrt, sum)?;
        c.cast(root, dtype)
    })
}

fn log_sum(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let reduction = Reduction::read(c, 18)?;
    let x = c.operand(0)?;
    c.in_f32(x, |c, x| {
        let sum = reduction.of(c, ReduceOp::Sum, x)?;
        c.unary(UnaryOp::Log, sum)
    })
}

/// `m + ln Σ e^(x - m)` with the maximum `m`, where nothing overflows; an infinite maximum is taken as 0, so that its
/// difference from itself does not become NaN.
fn log_sum_exp(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let reduction = Reduction::read(c, 18)?;
    let x = c.operand(0)?;
    let shape = reduction.shape(c.shape(x));
    if reduction.axes.is_empty() {
        return Ok(x);
    }
    if reduction.axes.iter().any(|&axis| c.shape(x)[axis] == 0) {
        let dtype = c.dtype(x);
        let nothing = c.scalar(dtype, f64::NEG_INFINITY)?;
        return c.expand(nothing, shape);
    }
    c.in_f32(x, |c, x| {
        let max = c.reduce(ReduceOp::Max, x, &reduction.axes, true)?;
        let magnitude = c.unary(UnaryOp::Abs, max)?;
        let infinite = c.binary_scalar(BinaryOp::Eq, magnitude, f64::INFINITY)?;
        let dtype = c.dtype(x);
        let zero = c.scalar(dtype, 0.0)?;
        let max = c.select(infinite, zero, max)?;
        let shifted = c.binary(BinaryOp::Sub, x, max)?;
        let exp = c.unary(UnaryOp::Exp, shifted)?;
        let sum = c.reduce(ReduceOp::Sum, exp, &reduction.axes, true)?;
        let log = c.unary(UnaryOp::Log, sum)?;
        let result = c.binary(BinaryOp::Add, log, max)?;
        c.reshape(result, shape)
    })
}
