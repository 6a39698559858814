//! The window of convolution and pooling: attributes and padding that they share.

use aic_ir::graph::{Value, infer};

use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// A window over the spatial dimensions, with attributes of the same number each.
pub(super) struct Window {
    pub kernel: Vec<u64>,
    pub strides: Vec<u64>,
    pub dilations: Vec<u64>,
    pub pads: Vec<(u64, u64)>,
}

impl Window {
    /// Reads `strides`, `dilations`, `pads` and `auto_pad` for an operand `x: [N, C, spatial...]`.
    pub fn read(c: &NodeContext<'_>, x: Value, kernel: Vec<u64>) -> Result<Self, Reason> {
        let input = c.shape(x).get(2..).unwrap_or_default();
        let spatial = input.len();
        if spatial == 0 || kernel.len() != spatial {
            return Err(format!("{spatial} spatial dimensions with {} of the window", kernel.len()).into());
        }
        let sizes = |name: &str| -> Result<Vec<u64>, Reason> {
            match c.ints_attribute(name)? {
                None => Ok(vec![1; spatial]),
                Some(list) => attribute_sizes(name, list, spatial),
            }
        };
        let (strides, dilations) = (sizes("strides")?, sizes("dilations")?);
        for (what, list) in [("kernel_shape", &kernel), ("strides", &strides), ("dilations", &dilations)] {
            if list.contains(&0) {
                return Err(format!("{what} {list:?} holds a 0").into());
            }
        }
        let auto_pad = c.text("auto_pad", "NOTSET")?;
        let pads = match auto_pad {
            "NOTSET" => match c.ints_attribute("pads")? {
                None => vec![(0, 0); spatial],
                Some(list) => {
                    let list = attribute_sizes("pads", list, 2 * spatial)?;
                    (0..spatial).map(|i| (list[i], list[i + spatial])).collect()
                }
            },
            "VALID" => vec![(0, 0); spatial],
            "SAME_UPPER" | "SAME_LOWER" => (0..spatial)
                .map(|i| {
                    let total = same_padding(input[i], kernel[i], strides[i], dilations[i])
                        .ok_or("the attributes of the window are too large")?;
                    let (less, more) = (total / 2, total - total / 2);
                    Ok(if auto_pad == "SAME_UPPER" { (less, more) } else { (more, less) })
                })
                .collect::<Result<_, Reason>>()?,
            other => return Err(format!("auto_pad = {other:?} is not supported").into()),
        };
        Ok(Self { kernel, strides, dilations, pads })
    }
}

pub(super) fn attribute_sizes(name: &str, list: &[i64], count: usize) -> Result<Vec<u64>, Reason> {
    // What exceeds 32 bits is refused here, so that sums and products of these numbers cannot overflow.
    let sizes: Option<Vec<u64>> = list.iter().map(|&v| u32::try_from(v).ok().map(u64::from)).collect();
    sizes
        .filter(|sizes| sizes.len() == count)
        .ok_or_else(|| format!("{name} = {list:?}: {count} numbers of at least 0 are needed").into())
}

/// Padding in sum so that the output has `⌈input / stride⌉` elements.
fn same_padding(input: u64, kernel: u64, stride: u64, dilation: u64) -> Option<u64> {
    let steps = input.div_ceil(stride).saturating_sub(1);
    let reach = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    Some(steps.checked_mul(stride)?.checked_add(reach)?.saturating_sub(input))
}

/// Padding at the end that gives the output size of `ceil_mode`: a last, incomplete window counts unless it starts
/// beyond the input and the padding before it. Padding at the end changes neither a maximum nor a mean without it.
pub(super) fn ceil_padding(
    size: u64,
    kernel: u64,
    stride: u64,
    dilation: u64,
    pads: (u64, u64),
) -> Result<u64, Reason> {
    let whole = infer::window_output(size, kernel, stride, dilation, pads).map_err(|e| e.to_string())?;
    let reach = (kernel - 1) * dilation + 1;
    let end = whole * stride + reach;
    let padded = size + pads.0 + pads.1;
    // `whole` complete windows fit; one more starts at `whole · stride`.
    let uncovered = padded > end - stride && whole * stride < size + pads.0;
    Ok(if uncovered { end - padded } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::{ceil_padding, same_padding};

    #[test]
    fn same_padding_keeps_the_size() {
        assert_eq!(same_padding(5, 3, 1, 1), Some(2));
        assert_eq!(same_padding(6, 3, 2, 1), Some(1));
        assert_eq!(same_padding(5, 2, 1, 3), Some(3));
        assert_eq!(same_padding(0, 3, 1, 1), Some(3));
    }

    #[test]
    fn incomplete_windows_count_in_ceil_mode() {
        // 5 elements, windows of 2 by 2: the last window holds one element.
        assert_eq!(ceil_padding(5, 2, 2, 1, (0, 0)), Ok(1));
        assert_eq!(ceil_padding(6, 2, 2, 1, (0, 0)), Ok(0));
        // Windows at 0 and 3 fit 7 padded elements exactly.
        assert_eq!(ceil_padding(5, 4, 3, 1, (1, 1)), Ok(0));
        // A third window would start at 4, in the padding after the input.
        assert_eq!(ceil_padding(3, 3, 2, 1, (1, 2)), Ok(0));
    }
}
