//! Operators that take parts of tensors, join them and repeat them.

use aic_ir::graph::{Op, Value};

use super::accept::{ANY, I64, INDICES};
use super::{OpRule, VARIADIC, many, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Concat", (1, VARIADIC), &["axis"], "tensors of one type", concat).types(ANY),
    many("Split", (1, 2), &["axis", "num_outputs", "split"], "constant sizes, or equal parts", split)
        .types(ANY)
        .own(&[(1, I64)]),
    rule("Slice", (1, 5), &["axes", "ends", "starts"], "constant bounds and steps", slice).types(ANY).own(&[
        (1, INDICES),
        (2, INDICES),
        (3, INDICES),
        (4, INDICES),
    ]),
    rule("Tile", (2, 2), &[], "constant repeats", tile).types(ANY).own(&[(1, I64)]),
];

fn concat(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let operands = c.all_operands()?;
    let axis = c.int("axis")?.ok_or("attribute `axis` is missing")?;
    let axis = c.axis(axis, c.rank(c.operand(0)?))?;
    c.emit(Op::Concat { axis }, &operands)
}

fn split(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    let x = c.operand(0)?;
    let axis = c.axis(c.int("axis")?.unwrap_or(0), c.rank(x))?;
    let size = c.shape(x)[axis];
    let parts = c.node.output.len() as u64;
    let sizes: Vec<u64> = match c.list_since(13, 1, "split")? {
        Some(sizes) => super::constant::dims(&sizes)?,
        None => {
            // Since operator set 18 the number of parts may not divide the size; then the last part is smaller.
            let num_outputs = c.int("num_outputs")?;
            if parts == 0 || num_outputs.is_some_and(|n| n != parts as i64) {
                return Err(format!("num_outputs does not match the {parts} results").into());
            }
            let part = size.div_ceil(parts);
            if num_outputs.is_none() && part * parts != size {
                return Err(format!("{size} elements do not split into {parts} equal parts").into());
            }
            (0..parts).map(|i| part.min(size.saturating_sub(i * part))).collect()
        }
    };
    let total = sizes.iter().try_fold(0u64, |n, &s| n.checked_add(s));
    if sizes.len() as u64 != parts || total != Some(size) {
        return Err(format!("sizes {sizes:?} do not split {size} elements into {parts} parts").into());
    }
    let mut start = 0;
    let mut results = Vec::with_capacity(sizes.len());
    for part in sizes {
        let mut starts = vec![0; c.rank(x)];
        let mut shape = c.shape(x).to_vec();
        (starts[axis], shape[axis]) = (start, part);
        results.push(c.slice(x, starts, shape)?);
        start += part;
    }
    Ok(results)
}

/// Bounds may lie outside and negative ones count from the end; both as in numpy.
fn slice(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let begins = c.list_since(10, 1, "starts")?.ok_or("`starts` are missing")?;
    let ends = c.list_since(10, 2, "ends")?.ok_or("`ends` are missing")?;
    let axes: Vec<i64> = match c.list_since(10, 3, "axes")? {
        Some(axes) => axes,
        None => (0..begins.len() as i64).collect(),
    };
    let by = match c.optional_int_list(4, "the steps")? {
        Some(steps) => steps,
        None => vec![1; begins.len()],
    };
    if [ends.len(), axes.len(), by.len()] != [begins.len(); 3] {
        return Err("starts, ends, axes and steps differ in number".into());
    }
    c.axes(&axes, rank)?;
    let (mut starts, mut sizes, mut steps) = (vec![0; rank], c.shape(x).to_vec(), vec![1; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, rank)?;
        if by[i] == 0 {
            return Err("a step is 0".into());
        }
        (starts[axis], sizes[axis], steps[axis]) = bounds(sizes[axis], begins[i], ends[i], by[i]);
    }
    c.emit(Op::Slice { starts, sizes, steps }, &[x])
}

/// First element, number of elements and step of a slice `start..end` by `step` of a dimension of `size` elements.
fn bounds(size: u64, start: i64, end: i64, step: i64) -> (u64, u64, i64) {
    let n = i128::from(size);
    let wrap = |position: i64| i128::from(position) + if position < 0 { n } else { 0 };
    let (start, end, step) = (wrap(start), wrap(end), i128::from(step));
    let (first, distance) = match step > 0 {
        true => (start.clamp(0, n), end.clamp(0, n) - start.clamp(0, n)),
        false => {
            let last = (n - 1).max(0);
            (start.clamp(0, last), start.clamp(0, last) - end.clamp(-1, last))
        }
    };
    let count = if n == 0 { 0 } else { (distance.max(0) + step.abs() - 1) / step.abs() };
    match count {
        0 => (0, 0, 1),
        1 => (first as u64, 1, 1),
        // Two elements inside the dimension are less than its size apart.
        _ => (first as u64, count as u64, step as i64),
    }
}

/// Each repeated dimension gets one of 1 before it, which is expanded and then merged with it.
fn tile(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let repeats = super::constant::dims(&c.int_list(1, "the repeats")?)?;
    if repeats.len() != c.rank(x) {
        return Err(format!("{} repeats for rank {}", repeats.len(), c.rank(x)).into());
    }
    let mut result = x;
    for (axis, &times) in repeats.iter().enumerate().filter(|&(_, &times)| times != 1) {
        let shape = c.shape(result).to_vec();
        let (before, after) = shape.split_at(axis);
        let split = c.reshape(result, [before, &[1], after].concat())?;
        let expanded = c.emit(Op::Expand { shape: [before, &[times], after].concat() }, &[split])?;
        let merged = after[0].checked_mul(times).ok_or("the result is too large")?;
        result = c.reshape(expanded, [before, &[merged], &after[1..]].concat())?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::bounds;

    #[test]
    fn slices_are_those_of_numpy() {
        assert_eq!(bounds(5, 1, 3, 1), (1, 2, 1));
        assert_eq!(bounds(5, -2, i64::MAX, 1), (3, 2, 1));
        assert_eq!(bounds(5, 0, i64::MAX, 2), (0, 3, 2));
        assert_eq!(bounds(5, -1, i64::MIN, -1), (4, 5, -1));
        assert_eq!(bounds(5, i64::MAX, 0, -2), (4, 2, -2));
        assert_eq!(bounds(5, 3, 1, 1), (0, 0, 1));
        assert_eq!(bounds(0, 0, i64::MAX, -1), (0, 0, 1));
        assert_eq!(bounds(5, i64::MIN, i64::MAX, i64::MAX), (0, 1, 1));
        assert_eq!(bounds(5, 4, i64::MIN, i64::MIN), (4, 1, 1));
    }
}
