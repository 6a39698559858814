//! Transposed convolution, as ordinary convolutions of parts of the kernel.
//!
//! A result at `o` sums `x[i] w[k]` over all `o + pad = stride · i + dilation · k`. Results `stride` apart, a *phase*, use
//! the same elements of the kernel, those `stride / gcd(stride, dilation)` apart, on a window of `x` that moves by one. So
//! each phase is a convolution of stride 1, and the phases are interleaved: nothing is multiplied by inserted zeros
//! (Shi et al., *Is the deconvolution layer the same as a convolutional layer?*, arXiv 1609.07009).

use aic_ir::graph::{BinaryOp, ConvAttrs, Op, Value};

use super::accept::FLOATS;
use super::convolution::{check_kernel_shape, groups};
use super::window::{Window, attribute_sizes};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[rule(
    "ConvTranspose",
    (2, 3),
    &["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"],
    "one or two spatial dimensions",
    conv_transpose,
)
.types(FLOATS)];

/// Largest number of phases, each of which becomes a convolution.
const MAX_PHASES: u64 = 1024;

/// What a phase is along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    /// First element of the kernel that is used.
    first: u64,
    /// How many are used.
    taps: u64,
    /// Where the window starts on `x` for the first result.
    start: i64,
}

/// One spatial dimension.
struct Dimension {
    input: u64,
    output: u64,
    stride: u64,
    /// Distance of the elements of the kernel that a phase uses.
    tap_step: u64,
    /// Distance of the elements of `x` that a phase uses.
    dilation: u64,
    /// Results of each phase; together they are at least those of the output.
    places: u64,
    phases: Vec<Phase>,
}

impl Dimension {
    fn new(input: u64, output: u64, kernel: u64, stride: u64, dilation: u64, pad: u64) -> Self {
        let common = gcd(stride, dilation);
        let (tap_step, reach) = (stride / common, dilation / common);
        let phases = (0..stride).map(|phase| {
            let shifted = phase + pad;
            let residue = shifted % stride;
            // The first element of the kernel whose results lie in this phase, if any.
            let first = (0..tap_step.min(kernel)).find(|k| k * dilation % stride == residue);
            let Some(first) = first else { return Phase { first: 0, taps: 0, start: 0 } };
            let taps = (kernel - first).div_ceil(tap_step);
            let newest = (shifted / stride) as i64 + (residue as i64 - (first * dilation) as i64) / stride as i64;
            Phase { first, taps, start: newest - ((taps - 1) * reach) as i64 }
        });
        let phases = phases.collect();
        Self { input, output, stride, tap_step, dilation: reach, places: output.div_ceil(stride), phases }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn conv_transpose(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, w) = (c.operand(0)?, c.operand(1)?);
    let (x_shape, w_shape) = (c.shape(x).to_vec(), c.shape(w).to_vec());
    let groups = groups(c)?;
    let ([_, channels, input @ ..], [w_channels, out_group, kernel @ ..]) = (x_shape.as_slice(), w_shape.as_slice())
    else {
        return Err("operand and weights need channels".into());
    };
    if channels != w_channels || !channels.is_multiple_of(groups) || input.len() != kernel.len() {
        return Err(format!("weights {w_shape:?} do not fit operand {x_shape:?} with {groups} groups").into());
    }
    if !(1..=2).contains(&input.len()) {
        return Err(format!("{} spatial dimensions; one or two are supported", input.len()).into());
    }
    if input.contains(&0) {
        return Err("an operand without elements is not supported".into());
    }
    check_kernel_shape(c, kernel)?;
    let out = out_group.checked_mul(groups).ok_or("too many channels")?;
    let dimensions = dimensions(c, input, kernel)?;
    let bias = c.optional(2);
    if let Some(bias) = bias.filter(|&b| c.shape(b) != [out]) {
        return Err(format!("the bias has shape {:?} instead of [{out}]", c.shape(bias)).into());
    }
    let weights = output_first(c, w, groups)?;
    let joined = match groups == 1 && one_window(&dimensions) {
        true => all_phases(c, x, weights, &dimensions)?,
        false => phase_by_phase(c, x, weights, groups, &dimensions)?,
    };
    let mut sizes = c.shape(joined).to_vec();
    sizes.iter_mut().skip(2).zip(&dimensions).for_each(|(size, d)| *size = d.output);
    let result = c.slice(joined, vec![0; sizes.len()], sizes)?;
    let Some(bias) = bias else { return Ok(result) };
    let mut along = vec![1; dimensions.len() + 1];
    along[0] = out;
    let bias = c.reshape(bias, along)?;
    c.binary(BinaryOp::Add, result, bias)
}

/// Sizes and padding of the result. The padding at the end only says how large the result is.
fn dimensions(c: &NodeContext<'_>, input: &[u64], kernel: &[u64]) -> Result<Vec<Dimension>, Reason> {
    let spatial = input.len();
    let x = c.operand(0)?;
    let same = c.text("auto_pad", "NOTSET")?;
    let Window { strides, dilations, pads, .. } = Window::read(c, x, kernel.to_vec())?;
    let list = |name: &str| c.ints_attribute(name)?.map(|list| attribute_sizes(name, list, spatial)).transpose();
    let extra = list("output_padding")?.unwrap_or_else(|| vec![0; spatial]);
    let mut shape = match c.ints_attribute("output_shape")? {
        // Some exporters give batch and channels, too.
        Some(list) if list.len() == spatial + 2 => Some(attribute_sizes("output_shape", &list[2..], spatial)?),
        Some(list) => Some(attribute_sizes("output_shape", list, spatial)?),
        None => None,
    };
    if shape.is_none() && same.starts_with("SAME") {
        shape = Some(input.iter().zip(&strides).map(|(&size, &stride)| size.saturating_mul(stride)).collect());
    }
    if strides.iter().try_fold(1, |n: u64, &s| n.checked_mul(s)).is_none_or(|n| n > MAX_PHASES) {
        return Err(format!("strides {strides:?} make more than {MAX_PHASES} phases").into());
    }
    let mut result = Vec::with_capacity(spatial);
    for i in 0..spatial {
        let whole = (input[i] - 1)
            .checked_mul(strides[i])
            .and_then(|n| n.checked_add((kernel[i] - 1).checked_mul(dilations[i])?)?.checked_add(1 + extra[i]))
            .ok_or("the result is too large")?;
        let (output, pad) = match &shape {
            None => (whole.checked_sub(pads[i].0 + pads[i].1).ok_or("the pads are larger than the result")?, pads[i].0),
            Some(shape) => {
                let total = whole.saturating_sub(shape[i]);
                (shape[i], if same == "SAME_UPPER" { total / 2 } else { total - total / 2 })
            }
        };
        result.push(Dimension::new(input[i], output, kernel[i], strides[i], dilations[i], pad));
    }
    Ok(result)
}

/// Weights `[C, O/groups, kernel...]` as those of a convolution, `[O, C/groups, kernel...]`.
fn output_first(c: &mut NodeContext<'_>, w: Value, groups: u64) -> Result<Value, Reason> {
    let shape = c.shape(w).to_vec();
    let (channels, kernel) = shape.split_at(2);
    let split = c.reshape(w, [&[groups, channels[0] / groups, channels[1]], kernel].concat())?;
    let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..3 + kernel.len()).collect();
    let turned = c.transpose(split, perm)?;
    c.reshape(turned, [&[groups * channels[1], channels[0] / groups], kernel].concat())
}

/// Whether all phases have windows of one size in one place.
fn one_window(dimensions: &[Dimension]) -> bool {
    dimensions.iter().all(|d| {
        let [first, rest @ ..] = d.phases.as_slice() else { return false };
        first.taps > 0 && rest.iter().all(|p| (p.taps, p.start) == (first.taps, first.start))
    })
}

/// The kernel's elements of one phase, reversed: a convolution looks forward where this looks back.
fn phase_weights(
    c: &mut NodeContext<'_>,
    weights: Value,
    dimensions: &[Dimension],
    phases: &[Phase],
) -> Result<Value, Reason> {
    let mut sizes = c.shape(weights).to_vec();
    let mut starts = vec![0; sizes.len()];
    let mut steps = vec![1; sizes.len()];
    for (i, (d, p)) in dimensions.iter().zip(phases).enumerate() {
        starts[i + 2] = p.first + (p.taps - 1) * d.tap_step;
        sizes[i + 2] = p.taps;
        steps[i + 2] = if p.taps == 1 { 1 } else { -(d.tap_step as i64) };
    }
    c.emit(Op::Slice { starts, sizes, steps }, &[weights])
}

/// A convolution that gives the results of one phase (or of all, if the weights do).
fn phase_conv(
    c: &mut NodeContext<'_>,
    x: Value,
    weights: Value,
    groups: u64,
    dimensions: &[Dimension],
    phases: &[Phase],
) -> Result<Option<Value>, Reason> {
    let mut sizes = c.shape(x).to_vec();
    let mut starts = vec![0; sizes.len()];
    let mut pads = Vec::new();
    for (i, (d, p)) in dimensions.iter().zip(phases).enumerate() {
        // The window starts inside `x` or before it, and ends inside or behind it.
        let end = p.start + ((p.taps - 1) * d.dilation + d.places) as i64;
        let before = (-p.start).max(0) as u64;
        let first = p.start.max(0) as u64;
        let last = end.clamp(0, d.input as i64) as u64;
        if first >= last {
            return Ok(None);
        }
        (starts[i + 2], sizes[i + 2]) = (first, last - first);
        pads.push((before, (end - last as i64).max(0) as u64));
    }
    let x = c.slice(x, starts, sizes)?;
    let attrs = ConvAttrs {
        strides: vec![1; dimensions.len()],
        dilations: dimensions.iter().map(|d| d.dilation).collect(),
        pads,
        groups,
    };
    c.emit(Op::Conv(attrs), &[x, weights]).map(Some)
}

/// Calls for every combination of phases, in row-major order.
fn combinations(dimensions: &[Dimension]) -> Vec<Vec<Phase>> {
    dimensions.iter().fold(vec![Vec::new()], |all, d| {
        all.iter().flat_map(|prefix| d.phases.iter().map(move |&p| [prefix.as_slice(), &[p]].concat())).collect()
    })
}

/// One convolution whose channels are those of every phase.
fn all_phases(c: &mut NodeContext<'_>, x: Value, weights: Value, dimensions: &[Dimension]) -> Result<Value, Reason> {
    let combinations = combinations(dimensions);
    let mut parts = Vec::with_capacity(combinations.len());
    for phases in &combinations {
        parts.push(phase_weights(c, weights, dimensions, phases)?);
    }
    let (n, out) = (c.shape(x)[0], c.shape(weights)[0]);
    let joined = c.concat(&parts, 0)?;
    let Some(first) = combinations.first() else { return Err("there are no phases".into()) };
    let Some(result) = phase_conv(c, x, joined, 1, dimensions, first)? else { return zeros(c, x, out, dimensions) };
    // [N, phases..., O, places...] to [N, O, (place, phase)...].
    let spatial = dimensions.len();
    let strides = dimensions.iter().map(|d| d.stride);
    let places = dimensions.iter().map(|d| d.places);
    let split: Vec<u64> = [n].into_iter().chain(strides).chain([out]).chain(places).collect();
    let split = c.reshape(result, split)?;
    let pairs = (0..spatial).flat_map(|i| [spatial + 2 + i, 1 + i]);
    let perm: Vec<usize> = [0, spatial + 1].into_iter().chain(pairs).collect();
    let moved = c.transpose(split, perm)?;
    c.reshape(moved, whole_shape(n, out, dimensions))
}

/// Shape of the interleaved phases, from which the result is cut.
fn whole_shape(n: u64, out: u64, dimensions: &[Dimension]) -> Vec<u64> {
    [n, out].into_iter().chain(dimensions.iter().map(|d| d.places * d.stride)).collect()
}

fn zeros(c: &mut NodeContext<'_>, x: Value, out: u64, dimensions: &[Dimension]) -> Result<Value, Reason> {
    let (n, dtype) = (c.shape(x)[0], c.dtype(x));
    let zero = c.scalar(dtype, 0.0)?;
    c.expand(zero, whole_shape(n, out, dimensions))
}

/// A convolution for each phase; then the phases along the last dimension are interleaved, and those along the first.
fn phase_by_phase(
    c: &mut NodeContext<'_>,
    x: Value,
    weights: Value,
    groups: u64,
    dimensions: &[Dimension],
) -> Result<Value, Reason> {
    let (n, out, dtype) = (c.shape(x)[0], c.shape(weights)[0], c.dtype(x));
    let places: Vec<u64> = [n, out].into_iter().chain(dimensions.iter().map(|d| d.places)).collect();
    let mut parts = Vec::new();
    for phases in combinations(dimensions) {
        let part = match phases.iter().all(|p| p.taps > 0) {
            true => {
                let weights = phase_weights(c, weights, dimensions, &phases)?;
                phase_conv(c, x, weights, groups, dimensions, &phases)?
            }
            false => None,
        };
        parts.push(match part {
            Some(part) => part,
            None => {
                let zero = c.scalar(dtype, 0.0)?;
                c.expand(zero, places.as_slice())?
            }
        });
    }
    for (i, d) in dimensions.iter().enumerate().rev() {
        let mut joined = Vec::new();
        for chunk in parts.chunks(d.stride as usize) {
            let Some(&first) = chunk.first() else { continue };
            let shape = c.shape(first).to_vec();
            let (before, after) = shape.split_at(i + 3);
            let mut columns = Vec::new();
            for &part in chunk {
                columns.push(c.reshape(part, [before, &[1], after].concat())?);
            }
            let stacked = c.concat(&columns, i + 3)?;
            let (before, after) = shape.split_at(i + 2);
            joined.push(c.reshape(stacked, [before, &[d.places * d.stride], &after[1..]].concat())?);
        }
        parts = joined;
    }
    parts.first().copied().ok_or_else(|| "there are no phases".into())
}

#[cfg(test)]
mod tests {
    use super::{Dimension, Phase};

    #[test]
    fn phases_use_the_kernel_in_turn() {
        // Kernel 4, stride 2, padding 1: even results use elements 1 and 3, odd ones 0 and 2.
        let d = Dimension::new(5, 10, 4, 2, 1, 1);
        assert_eq!(d.phases, [Phase { first: 1, taps: 2, start: -1 }, Phase { first: 0, taps: 2, start: 0 }]);
        assert_eq!((d.places, d.tap_step, d.dilation), (5, 2, 1));
        // A kernel smaller than the stride leaves phases empty.
        let d = Dimension::new(5, 15, 1, 3, 1, 0);
        assert_eq!(d.phases.iter().map(|p| p.taps).collect::<Vec<_>>(), [1, 0, 0]);
    }
}
