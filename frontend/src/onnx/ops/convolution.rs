//! Convolution.

use aic_ir::graph::{ConvAttrs, Op, Value, infer};

use super::accept::FLOATS;
use super::window::Window;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[rule(
    "Conv",
    (2, 3),
    &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
    "one to three spatial dimensions",
    conv,
)
.types(FLOATS)];

/// Checks that `kernel_shape`, if given, is that of the weights.
pub(super) fn check_kernel_shape(c: &NodeContext<'_>, kernel: &[u64]) -> Result<(), Reason> {
    match c.ints_attribute("kernel_shape")? {
        Some(declared) if !declared.iter().copied().eq(kernel.iter().map(|&k| k as i64)) => {
            Err(format!("kernel_shape {declared:?} is not that of the weights, {kernel:?}").into())
        }
        _ => Ok(()),
    }
}

/// The number of groups.
pub(super) fn groups(c: &NodeContext<'_>) -> Result<u64, Reason> {
    let groups = c.int("group")?.unwrap_or(1);
    u64::try_from(groups).ok().filter(|&g| g >= 1).ok_or_else(|| format!("group = {groups} is not supported").into())
}

fn conv(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, w) = (c.operand(0)?, c.operand(1)?);
    let kernel = c.shape(w).get(2..).unwrap_or_default().to_vec();
    check_kernel_shape(c, &kernel)?;
    let window = Window::read(c, x, kernel)?;
    let groups = groups(c)?;
    if window.kernel.len() == 3 {
        return conv_3d(c, window, groups);
    }
    let Window { strides, dilations, pads, .. } = window;
    let mut operands = vec![x, w];
    operands.extend(c.optional(2));
    c.emit(Op::Conv(ConvAttrs { strides, dilations, pads, groups }), &operands)
}

/// The first spatial dimension of the kernel becomes part of the channels: a convolution over the other two, of as many
/// shifted operands as it has elements, for each place along that dimension of the result.
fn conv_3d(c: &mut NodeContext<'_>, window: Window, groups: u64) -> Result<Value, Reason> {
    let (x, w) = (c.operand(0)?, c.operand(1)?);
    let (&[n, channels, depth, height, width], &[out, group_channels, taps, kh, kw]) = (c.shape(x), c.shape(w)) else {
        return Err("operand and weights differ in rank".into());
    };
    let Window { strides, dilations, pads, .. } = window;
    let places = infer::window_output(depth, taps, strides[0], dilations[0], pads[0]).map_err(|e| e.to_string())?;
    let padded = c.emit(Op::Pad { pads: vec![(0, 0), (0, 0), pads[0], (0, 0), (0, 0)], value: 0.0 }, &[x])?;
    let mut shifted = Vec::new();
    for tap in 0..taps {
        let part = c.emit(
            Op::Slice {
                starts: vec![0, 0, tap * dilations[0], 0, 0],
                sizes: vec![n, channels, places, height, width],
                steps: vec![1, 1, strides[0] as i64, 1, 1],
            },
            &[padded],
        )?;
        let part = c.transpose(part, [0, 2, 1, 3, 4])?;
        shifted.push(c.reshape(part, [n, places, channels, 1, height, width])?);
    }
    let stacked = c.concat(&shifted, 3)?;
    let merged = [n.checked_mul(places), channels.checked_mul(taps), group_channels.checked_mul(taps)];
    let [Some(batch), Some(merged), Some(group_merged)] = merged else { return Err("too many channels".into()) };
    let flat = c.reshape(stacked, [batch, merged, height, width])?;
    let weights = c.reshape(w, [out, group_merged, kh, kw])?;
    let attrs = ConvAttrs {
        strides: strides[1..].to_vec(),
        dilations: dilations[1..].to_vec(),
        pads: pads[1..].to_vec(),
        groups,
    };
    let mut operands = vec![flat, weights];
    operands.extend(c.optional(2));
    let result = c.emit(Op::Conv(attrs), &operands)?;
    let &[.., oh, ow] = c.shape(result) else { return Err("the result has no spatial dimensions".into()) };
    let split = c.reshape(result, [n, places, out, oh, ow])?;
    c.transpose(split, [0, 2, 1, 3, 4])
}
