//! Operators that find elements by indices that are data: lookups and updates, extremes and their positions, sums along
//! a dimension.

use aic_ir::graph::{ArgOp, BinaryOp, Op, ScatterOp, Value};
use aic_ir::types::DType;

use super::accept::{ANY, I64, INDICES, NUMBERS, WIDE};
use super::constant::numbers;
use super::{OpRule, many, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

const SCATTERED: &str = "indices out of range are an error at run time; every reduction, in the order of the updates";

pub(super) const RULES: &[OpRule] = &[
    rule("Gather", (2, 2), &["axis"], "indices out of range are an error at run time", gather)
        .types(ANY)
        .own(&[(1, INDICES)]),
    rule("GatherElements", (2, 2), &["axis"], "indices out of range are an error at run time", gather_elements)
        .types(ANY)
        .own(&[(1, INDICES)])
        .since(11),
    rule("GatherND", (2, 2), &["batch_dims"], "indices out of range are an error at run time", gather_nd)
        .types(ANY)
        .own(&[(1, I64)])
        .since(11),
    rule("Scatter", (3, 3), &["axis"], "indices out of range are an error at run time", scatter_elements)
        .types(ANY)
        .own(&[(1, INDICES)])
        .since(9)
        .until(10),
    rule("ScatterElements", (3, 3), &["axis", "reduction"], SCATTERED, scatter_elements)
        .types(ANY)
        .own(&[(1, INDICES)])
        .since(11),
    rule("ScatterND", (3, 3), &["reduction"], SCATTERED, scatter_nd).types(ANY).own(&[(1, I64)]).since(11),
    rule("ArgMax", (1, 1), &["axis", "keepdims", "select_last_index"], "numbers", |c| arg(c, ArgOp::Max))
        .types(NUMBERS),
    rule("ArgMin", (1, 1), &["axis", "keepdims", "select_last_index"], "numbers", |c| arg(c, ArgOp::Min))
        .types(NUMBERS),
    many("TopK", (1, 2), &["axis", "k", "largest", "sorted"], "constant k; sorted in any case", top_k)
        .types(NUMBERS)
        .own(&[(1, I64)]),
    rule("CumSum", (2, 2), &["exclusive", "reverse"], "constant axis", cum_sum)
        .types(WIDE)
        .own(&[(1, INDICES)])
        .since(11),
    rule("ReverseSequence", (2, 2), &["batch_axis", "time_axis"], "two or more dimensions", reverse_sequence)
        .types(ANY)
        .own(&[(1, I64)])
        .since(10),
    rule("OneHot", (3, 3), &["axis"], "constant depth", one_hot).types(ANY).own(&[(0, NUMBERS), (1, NUMBERS)]).since(9),
];

/// Refuses constant indices that are out of range.
fn check_indices(c: &mut NodeContext<'_>, indices: Value, size: u64) -> Result<(), Reason> {
    let Some((low, high)) = c.index_range(indices) else { return Ok(()) };
    let size = size as i64;
    match [low, high].into_iter().find(|i| !(-size..size).contains(i)) {
        Some(index) => Err(format!("index {index} is out of range for {size} elements").into()),
        None => Ok(()),
    }
}

/// The attribute `axis`, 0 unless given, of operand 0.
fn axis(c: &NodeContext<'_>) -> Result<usize, Reason> {
    c.axis(c.int("axis")?.unwrap_or(0), c.rank(c.operand(0)?))
}

fn gather(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, indices) = (c.operand(0)?, c.operand(1)?);
    let axis = axis(c)?;
    let size = c.shape(x)[axis];
    check_indices(c, indices, size)?;
    c.emit(Op::Gather { axis }, &[x, indices])
}

fn gather_elements(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, indices) = (c.operand(0)?, c.operand(1)?);
    let axis = axis(c)?;
    let size = c.shape(x)[axis];
    check_indices(c, indices, size)?;
    c.emit(Op::GatherElements { axis }, &[x, indices])
}

/// Tuples of one index into the first dimension are a plain lookup.
fn gather_nd(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, indices) = (c.operand(0)?, c.operand(1)?);
    let batch = c.int("batch_dims")?.unwrap_or(0);
    let batch_dims = usize::try_from(batch).map_err(|_| format!("batch_dims = {batch} is not supported"))?;
    match c.shape(indices).split_last() {
        Some((&1, places)) if batch_dims == 0 && c.rank(x) > 0 => {
            let places = places.to_vec();
            let size = c.shape(x)[0];
            check_indices(c, indices, size)?;
            let flat = c.reshape(indices, places)?;
            c.emit(Op::Gather { axis: 0 }, &[x, flat])
        }
        _ => c.emit(Op::GatherNd { batch_dims }, &[x, indices]),
    }
}

fn combine(c: &NodeContext<'_>) -> Result<ScatterOp, Reason> {
    Ok(match c.text("reduction", "none")? {
        "none" => ScatterOp::Replace,
        "add" => ScatterOp::Add,
        "mul" => ScatterOp::Mul,
        "max" => ScatterOp::Max,
        "min" => ScatterOp::Min,
        other => return Err(format!("reduction = {other:?} is not supported").into()),
    })
}

fn scatter_elements(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let operands = [c.operand(0)?, c.operand(1)?, c.operand(2)?];
    let axis = axis(c)?;
    let combine = combine(c)?;
    let size = c.shape(operands[0])[axis];
    check_indices(c, operands[1], size)?;
    c.emit(Op::ScatterElements { axis, combine }, &operands)
}

fn scatter_nd(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let operands = [c.operand(0)?, c.operand(1)?, c.operand(2)?];
    let combine = combine(c)?;
    c.emit(Op::ScatterNd { combine }, &operands)
}

fn arg(c: &mut NodeContext<'_>, op: ArgOp) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axis = axis(c)?;
    let last = c.flag("select_last_index", false)?;
    let keep = c.flag("keepdims", true)?;
    let result = c.emit(Op::ArgReduce { op, axis, last }, &[x])?;
    if keep {
        return Ok(result);
    }
    let mut shape = c.shape(result).to_vec();
    shape.remove(axis);
    c.reshape(result, shape)
}

/// `k` is an attribute before operator set 10.
fn top_k(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    let x = c.operand(0)?;
    let axis = c.axis(c.int("axis")?.unwrap_or(-1), c.rank(x))?;
    let k = match c.opset < 10 {
        true => c.int("k")?.ok_or("attribute `k` is missing")?,
        false => {
            c.refuse_attribute("k")?;
            c.int_operand(1, "k")?
        }
    };
    let k = u64::try_from(k).map_err(|_| format!("k = {k} is not supported"))?;
    let largest = c.flag("largest", true)?;
    c.emit_all(Op::TopK { k, axis, largest }, &[x])
}

fn cum_sum(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axis = c.axis(c.int_operand(1, "the axis")?, c.rank(x))?;
    let (exclusive, reverse) = (c.flag("exclusive", false)?, c.flag("reverse", false)?);
    c.emit(Op::CumSum { axis, exclusive, reverse }, &[x])
}

/// Element `t` of a sequence of length `n` comes from `n - 1 - t` if `t < n`, and from `t` behind.
fn reverse_sequence(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, lengths) = (c.operand(0)?, c.operand(1)?);
    let shape = c.shape(x).to_vec();
    let batch = c.axis(c.int("batch_axis")?.unwrap_or(1), shape.len())?;
    let time = c.axis(c.int("time_axis")?.unwrap_or(0), shape.len())?;
    if batch == time || c.shape(lengths) != [shape[batch]] {
        return Err(format!("lengths of shape {:?} for an operand of shape {shape:?}", c.shape(lengths)).into());
    }
    let mut along = vec![1; shape.len()];
    along[batch] = shape[batch];
    let lengths = c.reshape(lengths, along)?;
    let mut along = vec![1; shape.len()];
    along[time] = shape[time];
    let place = numbers(c, shape[time], 0)?;
    let place = c.reshape(place, along)?;
    let inside = c.binary(BinaryOp::Lt, place, lengths)?;
    let last = c.binary_scalar(BinaryOp::Sub, lengths, 1.0)?;
    let mirrored = c.binary(BinaryOp::Sub, last, place)?;
    let from = c.select(inside, mirrored, place)?;
    let from = c.expand(from, shape)?;
    c.emit(Op::GatherElements { axis: time }, &[x, from])
}

/// Compares indices, of which negative ones count from the end, with `0, 1, …, depth - 1` along a new dimension.
fn one_hot(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (indices, values) = (c.operand(0)?, c.operand(2)?);
    let depth = c.constant_operand(1, "the depth")?;
    let depth = (depth.ty().elems() == 1).then(|| depth.get_f64(0)).flatten();
    let depth = depth.filter(|d| (0.0..=super::pick::MAX_PICKED as f64).contains(d));
    let depth = depth.ok_or("the depth must be one number of at most 2^20")? as u64;
    if c.shape(values) != [2] {
        return Err(format!("values have shape {:?} instead of [2]", c.shape(values)).into());
    }
    let rank = c.rank(indices) + 1;
    let axis = c.axis(c.int("axis")?.unwrap_or(-1), rank)?;
    let indices = c.cast(indices, DType::I64)?;
    let from_end = c.binary_scalar(BinaryOp::Add, indices, depth as f64)?;
    let negative = c.binary_scalar(BinaryOp::Lt, indices, 0.0)?;
    let indices = c.select(negative, from_end, indices)?;
    let mut shape = c.shape(indices).to_vec();
    shape.insert(axis, 1);
    let indices = c.reshape(indices, shape)?;
    let mut along = vec![1; rank];
    along[axis] = depth;
    let places = numbers(c, depth, 0)?;
    let places = c.reshape(places, along)?;
    let hot = c.binary(BinaryOp::Eq, indices, places)?;
    let off = c.slice(values, vec![0], vec![1])?;
    let on = c.slice(values, vec![1], vec![1])?;
    let (off, on) = (c.reshape(off, [])?, c.reshape(on, [])?);
    c.select(hot, on, off)
}
