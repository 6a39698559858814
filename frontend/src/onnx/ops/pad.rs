//! Padding: with a value, or with elements of the operand.

use aic_ir::graph::{Op, Value};
use aic_ir::types::DType;

use super::accept::{ANY, I64, INDICES};
use super::constant::dims;
use super::pick::{MAX_PICKED, pick};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Pad", (1, 4), &["mode", "pads", "value"], "every mode; constant pads and axes; negative pads crop", pad)
        .types(ANY)
        .own(&[(1, I64), (3, INDICES)]),
    rule("CenterCropPad", (2, 2), &["axes"], "constant shape", center_crop_pad)
        .types(ANY)
        .own(&[(1, INDICES)])
        .since(18),
];

fn pad(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let list = c.list_since(11, 1, "pads")?.ok_or("`pads` are missing")?;
    let axes: Vec<i64> = match c.optional_int_list(3, "the axes")? {
        Some(axes) => axes,
        None => (0..rank as i64).collect(),
    };
    if list.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} dimensions", list.len(), axes.len()).into());
    }
    c.axes(&axes, rank)?;
    let (mut pads, mut starts, mut sizes) = (vec![(0, 0); rank], vec![0; rank], c.shape(x).to_vec());
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, rank)?;
        let (before, after) = (list[i], list[i + axes.len()]);
        let crop = |pad: i64| pad.min(0).unsigned_abs();
        let (crop_before, crop_after) = (crop(before), crop(after));
        sizes[axis] = crop_before
            .checked_add(crop_after)
            .and_then(|cropped| sizes[axis].checked_sub(cropped))
            .ok_or_else(|| format!("pads {before} and {after} crop more than dimension {axis} has"))?;
        starts[axis] = crop_before;
        pads[axis] = (before.max(0) as u64, after.max(0) as u64);
    }
    let cropped = c.slice(x, starts, sizes)?;
    match c.text("mode", "constant")? {
        "constant" => with_value(c, cropped, pads),
        "edge" => with_elements(c, cropped, &pads, |i, n| i.clamp(0, n - 1)),
        "reflect" => with_elements(c, cropped, &pads, reflected),
        "wrap" => with_elements(c, cropped, &pads, i64::rem_euclid),
        other => Err(format!("mode = {other:?} is not supported").into()),
    }
}

/// Where position `i` falls in `n` elements that are mirrored at the first and the last again and again.
fn reflected(i: i64, n: i64) -> i64 {
    if n == 1 {
        return 0;
    }
    let place = i.rem_euclid(2 * (n - 1));
    if place < n { place } else { 2 * (n - 1) - place }
}

/// Pads with elements of the operand, dimension by dimension.
fn with_elements(
    c: &mut NodeContext<'_>,
    mut x: Value,
    pads: &[(u64, u64)],
    element: impl Fn(i64, i64) -> i64,
) -> Result<Value, Reason> {
    for (axis, &(before, after)) in pads.iter().enumerate().filter(|&(_, &pads)| pads != (0, 0)) {
        let size = c.shape(x)[axis];
        if size == 0 {
            return Err(format!("dimension {axis} has no elements to pad with").into());
        }
        let total = before.checked_add(after).and_then(|n| n.checked_add(size)).filter(|&n| n <= MAX_PICKED);
        let total = total.ok_or_else(|| format!("dimension {axis} becomes longer than 2^20 elements"))?;
        c.charge(total * 8)?;
        let list: Vec<u64> = (0..total as i64).map(|i| element(i - before as i64, size as i64) as u64).collect();
        x = pick(c, x, axis, &list)?;
    }
    Ok(x)
}

/// Pads with the value of operand 2 (or the attribute of old), which may be computed.
fn with_value(c: &mut NodeContext<'_>, x: Value, pads: Vec<(u64, u64)>) -> Result<Value, Reason> {
    if c.opset < 11 {
        let value = f64::from(c.float("value", 0.0)?);
        return c.emit(Op::Pad { pads, value }, &[x]);
    }
    c.refuse_attribute("value")?;
    let Some(value) = c.optional(2) else { return c.emit(Op::Pad { pads, value: 0.0 }, &[x]) };
    if c.graph.ty(value).elems() != 1 {
        return Err("the value of the padding must be one number".into());
    }
    // Wide integers are not numbers of binary64.
    let exact = !matches!(c.dtype(x), DType::I64 | DType::U64);
    let known = c.graph.scalar_of(value).filter(|v| exact || v.abs() < 2f64.powi(53));
    if let Some(value) = known {
        return c.emit(Op::Pad { pads, value }, &[x]);
    }
    let sizes = c.shape(x).to_vec();
    let padded = c.emit(Op::Pad { pads: pads.clone(), value: 0.0 }, &[x])?;
    let value = c.reshape(value, [])?;
    let mut result = padded;
    for (axis, &(before, after)) in pads.iter().enumerate().filter(|&(_, &pads)| pads != (0, 0)) {
        // Along this dimension, whether an element is of the operand.
        let yes = c.scalar(DType::Bool, 1.0)?;
        let inside = c.expand(yes, [sizes[axis]])?;
        let inside = c.emit(Op::Pad { pads: vec![(before, after)], value: 0.0 }, &[inside])?;
        let mut along = vec![1; sizes.len()];
        along[axis] = c.shape(inside)[0];
        let inside = c.reshape(inside, along)?;
        result = c.select(inside, result, value)?;
    }
    Ok(result)
}

/// Crops or pads with zeros around the middle; of an odd number, the larger half is at the end.
fn center_crop_pad(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let target = dims(&c.int_list(1, "the shape")?)?;
    let axes: Vec<i64> = match c.ints_attribute("axes")? {
        Some(axes) => axes.to_vec(),
        None => (0..rank as i64).collect(),
    };
    c.axes(&axes, rank)?;
    if target.len() != axes.len() {
        return Err(format!("{} sizes for {} dimensions", target.len(), axes.len()).into());
    }
    let (mut pads, mut starts, mut sizes) = (vec![(0, 0); rank], vec![0; rank], c.shape(x).to_vec());
    for (&axis, &size) in axes.iter().zip(&target) {
        let axis = c.axis(axis, rank)?;
        let missing = size.saturating_sub(sizes[axis]);
        pads[axis] = (missing / 2, missing - missing / 2);
        starts[axis] = sizes[axis].saturating_sub(size) / 2;
        sizes[axis] = sizes[axis].min(size);
    }
    let cropped = c.slice(x, starts, sizes)?;
    c.emit(Op::Pad { pads, value: 0.0 }, &[cropped])
}

#[cfg(test)]
mod tests {
    use super::reflected;

    #[test]
    fn mirrors_face_each_other() {
        let places: Vec<i64> = (-4..8).map(|i| reflected(i, 4)).collect();
        assert_eq!(places, [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(reflected(5, 1), 0);
    }
}
