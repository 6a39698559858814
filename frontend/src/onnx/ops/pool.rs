//! Pooling over windows and over whole spatial dimensions.
//!
//! The graph pools over one or two dimensions. More are pooled one after the other: the largest of the largest is the
//! largest, and the number of elements in a window is the product of those along its dimensions, so a mean of means is the
//! mean.

use aic_ir::graph::{ArgOp, BinaryOp, Op, PoolAttrs, PoolKind, ReduceOp, UnaryOp, Value, infer};
use aic_ir::types::DType;

use super::accept::FLOATS;
use super::constant::numbers;
use super::window::{Window, attribute_sizes, ceil_padding};
use super::{OpRule, many, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// What the largest element of a window is taken of.
const MAX_POOLED: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::I8, DType::U8];

/// Largest number of elements of a window whose largest element's index is asked for.
const MAX_INDEXED_WINDOW: u64 = 256;

pub(super) const RULES: &[OpRule] = &[
    many(
        "MaxPool",
        (1, 1),
        &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"],
        "windows of padding alone are refused; indices with windows of up to 256 elements",
        max_pool,
    )
    .types(MAX_POOLED),
    rule(
        "AveragePool",
        (1, 1),
        &["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"],
        "windows of padding alone are refused",
        average_pool,
    )
    .types(FLOATS),
    rule(
        "LpPool",
        (1, 1),
        &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "p", "pads", "strides"],
        "p of at least 1",
        lp_pool,
    )
    .types(FLOATS),
    rule("GlobalAveragePool", (1, 1), &[], "floats", |c| global(c, ReduceOp::Mean)).types(FLOATS),
    rule("GlobalMaxPool", (1, 1), &[], "floats", |c| global(c, ReduceOp::Max)).types(FLOATS),
    rule("GlobalLpPool", (1, 1), &["p"], "p of at least 1", global_lp_pool).types(FLOATS),
];

/// The window of operand 0, and its padding at the end with what `ceil_mode` adds.
fn window(c: &NodeContext<'_>) -> Result<(Window, Vec<u64>), Reason> {
    let x = c.operand(0)?;
    let kernel = c.ints_attribute("kernel_shape")?.ok_or("attribute `kernel_shape` is missing")?;
    let kernel = attribute_sizes("kernel_shape", kernel, kernel.len())?;
    let window = Window::read(c, x, kernel)?;
    let mut extra = vec![0; window.kernel.len()];
    if c.flag("ceil_mode", false)? {
        for (i, extra) in extra.iter_mut().enumerate() {
            let size = c.shape(x)[i + 2];
            *extra = ceil_padding(size, window.kernel[i], window.strides[i], window.dilations[i], window.pads[i])?;
        }
    }
    Ok((window, extra))
}

/// Padding at the end beyond the declared one.
fn widened(mut window: Window, extra: &[u64]) -> Window {
    window.pads.iter_mut().zip(extra).for_each(|(pads, extra)| pads.1 += extra);
    window
}

/// Pools over all spatial dimensions: over the last two at once, then over those before, one by one.
fn pool(c: &mut NodeContext<'_>, x: Value, kind: PoolKind, window: &Window) -> Result<Value, Reason> {
    let Window { kernel, strides, dilations, pads } = window;
    let attrs = |from: usize, to: usize| PoolAttrs {
        kind,
        kernel: kernel[from..to].to_vec(),
        strides: strides[from..to].to_vec(),
        dilations: dilations[from..to].to_vec(),
        pads: pads[from..to].to_vec(),
    };
    let spatial = kernel.len();
    if spatial <= 2 {
        return c.emit(Op::Pool(attrs(0, spatial)), &[x]);
    }
    let split = spatial - 2;
    let mut shape = c.shape(x).to_vec();
    let (outer, inner) = shape.split_at(2 + split);
    let flat = c.reshape(x, [&[1, outer.iter().product()], inner].concat())?;
    let mut result = c.emit(Op::Pool(attrs(split, spatial)), &[flat])?;
    shape.splice(2 + split.., c.shape(result)[2..].to_vec());
    for i in (0..split).rev() {
        let (outer, inner) = (shape[..i + 2].iter().product(), shape[i + 3..].iter().product());
        let flat = c.reshape(result, [1, outer, shape[i + 2], inner])?;
        let PoolAttrs { mut kernel, mut strides, mut dilations, mut pads, .. } = attrs(i, i + 1);
        kernel.push(1);
        strides.push(1);
        dilations.push(1);
        pads.push((0, 0));
        result = c.emit(Op::Pool(PoolAttrs { kind, kernel, strides, dilations, pads }), &[flat])?;
        shape[i + 2] = c.shape(result)[2];
    }
    c.reshape(result, shape)
}

fn max_pool(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    let x = c.operand(0)?;
    let (window, extra) = window(c)?;
    let window = widened(window, &extra);
    let mut results = vec![pool(c, x, PoolKind::Max, &window)?];
    if c.node.output.get(1).is_some_and(|o| !o.is_empty()) {
        results.push(indices(c, x, &window)?);
    }
    Ok(results)
}

/// Which element of the whole operand is the largest of each window: of the shifted operands, one for each place in the
/// window, the first that is the largest gives the place in the window.
fn indices(c: &mut NodeContext<'_>, x: Value, window: &Window) -> Result<Value, Reason> {
    let Window { kernel, strides, dilations, pads } = window;
    let places = kernel.iter().try_fold(1u64, |n, &k| n.checked_mul(k)).filter(|&n| n <= MAX_INDEXED_WINDOW);
    let places = places.ok_or("indices of windows of more than 256 elements are not supported")?;
    let shape = c.shape(x).to_vec();
    // Of integers, no element of a wider type's padding is as large as any of the operand.
    let (x, lowest) = match c.dtype(x).is_float() {
        true => (x, f64::NEG_INFINITY),
        false => (c.cast(x, DType::I32)?, -1024.0),
    };
    let padded = c.emit(Op::Pad { pads: [&[(0, 0), (0, 0)], pads.as_slice()].concat(), value: lowest }, &[x])?;
    let mut sizes = shape[..2].to_vec();
    for (i, &size) in shape[2..].iter().enumerate() {
        let size = infer::window_output(size, kernel[i], strides[i], dilations[i], pads[i]);
        sizes.push(size.map_err(|e| e.to_string())?);
    }
    let steps: Vec<i64> = [1, 1].into_iter().chain(strides.iter().map(|&s| s as i64)).collect();
    let mut shifted = Vec::new();
    for place in 0..places {
        let mut starts = vec![0; shape.len()];
        let mut rest = place;
        for i in (0..kernel.len()).rev() {
            starts[i + 2] = rest % kernel[i] * dilations[i];
            rest /= kernel[i];
        }
        let part = c.emit(Op::Slice { starts, sizes: sizes.clone(), steps: steps.clone() }, &[padded])?;
        shifted.push(c.reshape(part, [&[1], sizes.as_slice()].concat())?);
    }
    let stacked = c.concat(&shifted, 0)?;
    let place = c.emit(Op::ArgReduce { op: ArgOp::Max, axis: 0, last: false }, &[stacked])?;
    let mut place = c.reshape(place, sizes.as_slice())?;
    // Distance of neighbours along each spatial dimension; `storage_order` may ask for columns instead of rows.
    let spatial = shape.len() - 2;
    let columns = c.flag("storage_order", false)?;
    let distance = |i: usize| -> u64 {
        let inner = if columns { 2..i + 2 } else { i + 3..shape.len() };
        shape[inner].iter().product()
    };
    let mut sum: Option<Value> = None;
    for i in (0..spatial).rev() {
        let whole = c.binary_scalar(BinaryOp::Div, place, kernel[i] as f64)?;
        let before = c.binary_scalar(BinaryOp::Mul, whole, kernel[i] as f64)?;
        let along = c.binary(BinaryOp::Sub, place, before)?;
        place = whole;
        let along = c.binary_scalar(BinaryOp::Mul, along, (dilations[i] * distance(i)) as f64)?;
        let start = axis_numbers(c, sizes[i + 2], strides[i] * distance(i), &sizes, i + 2)?;
        let start = c.binary_scalar(BinaryOp::Sub, start, (pads[i].0 * distance(i)) as f64)?;
        let position = c.binary(BinaryOp::Add, along, start)?;
        sum = Some(match sum {
            None => position,
            Some(sum) => c.binary(BinaryOp::Add, sum, position)?,
        });
    }
    let sum = sum.ok_or("there are no spatial dimensions")?;
    let image = shape[2..].iter().product();
    let channel = axis_numbers(c, shape[1], image, &sizes, 1)?;
    let batch = axis_numbers(c, shape[0], image * shape[1], &sizes, 0)?;
    let base = c.binary(BinaryOp::Add, batch, channel)?;
    c.binary(BinaryOp::Add, sum, base)
}

/// `0, step, 2 step, …` along one dimension of a shape.
fn axis_numbers(c: &mut NodeContext<'_>, count: u64, step: u64, shape: &[u64], axis: usize) -> Result<Value, Reason> {
    let numbers = numbers(c, count, 0)?;
    let scaled = c.binary_scalar(BinaryOp::Mul, numbers, step as f64)?;
    let mut along = vec![1; shape.len()];
    along[axis] = count;
    c.reshape(scaled, along)
}

fn average_pool(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let (window, extra) = window(c)?;
    if !c.flag("count_include_pad", false)? {
        return pool(c, x, PoolKind::AverageExcludePad, &widened(window, &extra));
    }
    if extra.iter().all(|&extra| extra == 0) {
        return pool(c, x, PoolKind::AverageIncludePad, &window);
    }
    // The declared padding counts, what the last windows reach beyond it does not.
    let pads = [&[(0, 0), (0, 0)], window.pads.as_slice()].concat();
    let padded = c.emit(Op::Pad { pads, value: 0.0 }, &[x])?;
    let window = Window { pads: extra.iter().map(|&extra| (0, extra)).collect(), ..window };
    pool(c, padded, PoolKind::AverageExcludePad, &window)
}

/// The order of a norm.
fn norm_order(c: &NodeContext<'_>) -> Result<i64, Reason> {
    match c.int("p")?.unwrap_or(2) {
        p if p >= 1 => Ok(p),
        p => Err(format!("p = {p} is not supported").into()),
    }
}

/// `|x|^p`.
pub(super) fn to_power(c: &mut NodeContext<'_>, x: Value, p: i64) -> Result<Value, Reason> {
    match p {
        1 => c.unary(UnaryOp::Abs, x),
        2 => c.binary(BinaryOp::Mul, x, x),
        p => {
            let magnitude = c.unary(UnaryOp::Abs, x)?;
            c.binary_scalar(BinaryOp::Pow, magnitude, p as f64)
        }
    }
}

/// `x^(1/p)` of what is not negative.
pub(super) fn root(c: &mut NodeContext<'_>, x: Value, p: i64) -> Result<Value, Reason> {
    match p {
        1 => Ok(x),
        2 => c.unary(UnaryOp::Sqrt, x),
        p => c.binary_scalar(BinaryOp::Pow, x, 1.0 / p as f64),
    }
}

/// `(Σ |x|^p)^(1/p)`: the sum is the mean times the number of elements, padding added as zeros.
fn lp_pool(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let p = norm_order(c)?;
    let x = c.operand(0)?;
    let (window, extra) = window(c)?;
    let window = widened(window, &extra);
    let elements: f64 = window.kernel.iter().map(|&k| k as f64).product();
    c.in_f32(x, |c, x| {
        let powers = to_power(c, x, p)?;
        let mean = pool(c, powers, PoolKind::AverageIncludePad, &window)?;
        let sum = c.binary_scalar(BinaryOp::Mul, mean, elements)?;
        root(c, sum, p)
    })
}

/// The spatial dimensions of operand 0.
fn spatial_axes(c: &NodeContext<'_>) -> Result<Vec<usize>, Reason> {
    match c.rank(c.operand(0)?) {
        rank if rank >= 3 => Ok((2..rank).collect()),
        rank => Err(format!("rank {rank} has no spatial dimensions").into()),
    }
}

fn global(c: &mut NodeContext<'_>, op: ReduceOp) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axes = spatial_axes(c)?;
    c.reduce(op, x, &axes, true)
}

fn global_lp_pool(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let p = norm_order(c)?;
    let x = c.operand(0)?;
    let axes = spatial_axes(c)?;
    c.in_f32(x, |c, x| {
        let powers = to_power(c, x, p)?;
        let sum = c.reduce(ReduceOp::Sum, powers, &axes, true)?;
        root(c, sum, p)
    })
}
