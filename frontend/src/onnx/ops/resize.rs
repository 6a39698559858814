//! Resizing: attributes, sizes, and where each element of the result lies on the operand.
//!
//! Every mode is separable, and sizes are known when compiling. So each dimension by itself comes to constant indices
//! (nearest) or constant indices and weights (linear, cubic), which [`super::resample`] applies.

use aic_ir::graph::{BinaryOp, Op, Value};
use aic_ir::types::{DType, Tensor};

use super::accept::{ANY, FLOATS, I64};
use super::pick::{MAX_PICKED, pick};
use super::resample::{Kernel, Taps, resample};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule(
        "Resize",
        (1, 4),
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        "every mode; constant scales, sizes and region; other modes than nearest for floats only",
        resize,
    )
    .types(ANY)
    .own(&[(1, FLOATS), (2, FLOATS), (3, I64)])
    .since(10),
    rule("Upsample", (1, 2), &["mode", "scales"], "constant scales; other modes than nearest for floats only", resize)
        .types(ANY)
        .own(&[(1, &[DType::F32])])
        .until(9),
];

/// Which neighbour is the nearest.
#[derive(Clone, Copy)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// How elements of the result are computed.
#[derive(Clone, Copy)]
enum Mode {
    Nearest(Nearest),
    Weighted { kernel: Kernel, antialias: bool, exclude_outside: bool },
}

/// One dimension that is resized.
struct Dimension {
    axis: usize,
    input: u64,
    output: u64,
    /// Elements of the result per element of the operand, as given or computed from sizes.
    scale: f32,
    /// Size of the result before it is rounded.
    exact: f64,
    /// First and last place of the region that is resized, relative to the dimension.
    region: (f64, f64),
}

fn resize(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let simple = c.opset < 11;
    let coordinates = if simple { "asymmetric" } else { c.text("coordinate_transformation_mode", "half_pixel")? };
    let coordinates = coordinates.to_owned();
    let mode = mode(c, simple)?;
    let dimensions = dimensions(c, coordinates == "tf_crop_and_resize")?;
    let extrapolation = f64::from(c.float("extrapolation_value", 0.0)?);
    if matches!(mode, Mode::Weighted { .. }) && !c.dtype(x).is_float() {
        return Err(format!("elements of type {} can only be resized with mode \"nearest\"", c.dtype(x)).into());
    }
    c.in_f32(x, |c, mut x| {
        let mut outside = Vec::new();
        for d in &dimensions {
            if d.input == 0 {
                return Err(format!("dimension {} has no elements to resize", d.axis).into());
            }
            // Before the lists are made: a small file may ask for many long ones.
            c.charge(d.list_bytes(mode))?;
            let places: Vec<f64> = (0..d.output).map(|i| d.place(&coordinates, i)).collect::<Result<_, Reason>>()?;
            let last = (d.input - 1) as f64;
            let is_outside = |&place: &f64| place < 0.0 || place > last;
            if coordinates == "tf_crop_and_resize" && places.iter().any(is_outside) {
                outside.push((d.axis, places.iter().map(is_outside).collect::<Vec<bool>>()));
            }
            x = along(c, x, d, mode, &places, simple)?;
        }
        for (axis, flags) in outside {
            x = replace(c, x, axis, &flags, extrapolation)?;
        }
        Ok(x)
    })
}

fn mode(c: &NodeContext<'_>, simple: bool) -> Result<Mode, Reason> {
    let kernel = match c.text("mode", "nearest")? {
        "nearest" => {
            let nearest = if simple { "floor" } else { c.text("nearest_mode", "round_prefer_floor")? };
            return Ok(Mode::Nearest(match nearest {
                "round_prefer_floor" => Nearest::PreferFloor,
                "round_prefer_ceil" => Nearest::PreferCeil,
                "floor" => Nearest::Floor,
                "ceil" => Nearest::Ceil,
                other => return Err(format!("nearest_mode = {other:?} is not supported").into()),
            }));
        }
        // The second name is that of early versions.
        "linear" | "bilinear" => Kernel::Linear,
        "cubic" => Kernel::Cubic { a: f64::from(c.float("cubic_coeff_a", -0.75)?) },
        other => return Err(format!("mode = {other:?} is not supported").into()),
    };
    let (antialias, exclude_outside) = (c.flag("antialias", false)?, c.flag("exclude_outside", false)?);
    Ok(Mode::Weighted { kernel, antialias, exclude_outside })
}

/// A constant list of floats; `None` if it is omitted or empty.
fn float_list(c: &NodeContext<'_>, index: usize, what: &str, most: usize) -> Result<Option<Vec<f64>>, Reason> {
    if c.optional(index).is_none() {
        return Ok(None);
    }
    let tensor: &Tensor = c.constant_operand(index, what)?;
    if tensor.ty().rank() != 1 || tensor.ty().elems() > most as u64 {
        return Err(format!("{what} have type {} instead of a short list", tensor.ty()).into());
    }
    let list: Vec<f64> = (0..tensor.ty().elems()).map_while(|i| tensor.get_f64(i)).collect();
    Ok((!list.is_empty()).then_some(list))
}

/// The dimensions that change, from scales or sizes.
fn dimensions(c: &NodeContext<'_>, crops: bool) -> Result<Vec<Dimension>, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let axes: Vec<usize> = match c.ints_attribute("axes")? {
        Some(axes) => {
            c.axes(axes, rank)?;
            axes.iter().map(|&axis| c.axis(axis, rank)).collect::<Result<_, _>>()?
        }
        None => (0..rank).collect(),
    };
    let (scales, sizes) = if c.opset < 9 {
        c.refuse_operand(1, "scales")?;
        (c.floats_attribute("scales")?.map(|list| list.iter().map(|&s| f64::from(s)).collect()), None)
    } else if c.opset < 11 {
        (float_list(c, 1, "the scales", rank)?, None)
    } else {
        let sizes = c.optional_int_list(3, "the sizes")?.filter(|sizes| !sizes.is_empty());
        (float_list(c, 2, "the scales", rank)?, sizes)
    };
    let regions = match crops {
        true => float_list(c, 1, "the region", 2 * rank)?.ok_or("a region is needed")?,
        false => [vec![0.0; axes.len()], vec![1.0; axes.len()]].concat(),
    };
    if regions.len() != 2 * axes.len() {
        return Err(format!("a region of {} numbers for {} dimensions", regions.len(), axes.len()).into());
    }
    let inputs: Vec<u64> = axes.iter().map(|&axis| c.shape(x)[axis]).collect();
    let resized = match (scales, sizes) {
        (Some(scales), None) => from_scales(&inputs, &scales)?,
        (None, Some(sizes)) => from_sizes(&inputs, &sizes, c.text("keep_aspect_ratio_policy", "stretch")?)?,
        _ => return Err("either scales or sizes are needed".into()),
    };
    let all = axes.iter().zip(&inputs).zip(resized).enumerate();
    let all = all.map(|(i, ((&axis, &input), (output, scale, exact)))| {
        let region = (regions[i], regions[i + axes.len()]);
        Dimension { axis, input, output, scale, exact, region }
    });
    // Where nothing is scaled, every mode gives the operand, unless a region is cut from it.
    Ok(all.filter(|d| d.output != d.input || d.scale != 1.0 || d.region != (0.0, 1.0)).collect())
}

/// Size of the result, scale, and size before it is rounded.
type Resized = (u64, f32, f64);

fn from_scales(inputs: &[u64], scales: &[f64]) -> Result<Vec<Resized>, Reason> {
    if scales.len() != inputs.len() {
        return Err(format!("{} scales for {} dimensions", scales.len(), inputs.len()).into());
    }
    let sizes = inputs.iter().zip(scales).map(|(&input, &scale)| {
        let scale = scale as f32;
        let exact = input as f32 * scale;
        if !(scale > 0.0 && exact <= MAX_PICKED as f32) {
            return Err(format!("a dimension of {input} elements cannot be scaled by {scale}").into());
        }
        Ok((exact.floor() as u64, scale, input as f64 * f64::from(scale)))
    });
    sizes.collect()
}

fn from_sizes(inputs: &[u64], sizes: &[i64], policy: &str) -> Result<Vec<Resized>, Reason> {
    if sizes.len() != inputs.len() {
        return Err(format!("{} sizes for {} dimensions", sizes.len(), inputs.len()).into());
    }
    let too_large = || Reason(format!("sizes {sizes:?} are not in 0 to 2^20"));
    let sizes: Vec<u64> = sizes
        .iter()
        .map(|&s| u64::try_from(s).ok().filter(|&s| s <= MAX_PICKED).ok_or_else(too_large))
        .collect::<Result<_, _>>()?;
    let ratios = || inputs.iter().zip(&sizes).map(|(&input, &size)| size as f32 / input as f32);
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(ratios().fold(f32::INFINITY, f32::min)),
        "not_smaller" => Some(ratios().fold(0.0, f32::max)),
        other => return Err(format!("keep_aspect_ratio_policy = {other:?} is not supported").into()),
    };
    let resized = inputs.iter().zip(&sizes).zip(ratios()).map(|((&input, &size), ratio)| match common {
        None => Ok((size, ratio, size as f64)),
        Some(scale) => {
            let exact = f64::from(scale) * input as f64;
            let rounded = (exact + 0.5).floor();
            if !(0.0..=MAX_PICKED as f64).contains(&rounded) {
                return Err(too_large());
            }
            Ok((rounded as u64, scale, rounded))
        }
    });
    resized.collect()
}

impl Dimension {
    /// Where element `i` of the result lies on the operand, in the words of the specification.
    fn place(&self, coordinates: &str, i: u64) -> Result<f64, Reason> {
        let (x, scale) = (i as f64, self.exact_scale());
        let (input, exact) = (self.input as f64, self.exact);
        Ok(match coordinates {
            "half_pixel" => (x + 0.5) / scale - 0.5,
            "half_pixel_symmetric" => {
                let adjustment = self.output as f64 / exact;
                input / 2.0 * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            "pytorch_half_pixel" if self.output <= 1 => 0.0,
            "pytorch_half_pixel" => (x + 0.5) / scale - 0.5,
            "align_corners" if exact == 1.0 => 0.0,
            "align_corners" => x * (input - 1.0) / (exact - 1.0),
            "asymmetric" => x / scale,
            "tf_crop_and_resize" => {
                let (start, end) = self.region;
                match self.output > 1 {
                    true => start * (input - 1.0) + x * (end - start) * (input - 1.0) / (exact - 1.0),
                    false => 0.5 * (start + end) * (input - 1.0),
                }
            }
            other => return Err(format!("coordinate_transformation_mode = {other:?} is not supported").into()),
        })
    }

    /// Bytes of the lists that resizing makes.
    fn list_bytes(&self, mode: Mode) -> u64 {
        let neighbours = match mode {
            Mode::Nearest(_) => 1,
            Mode::Weighted { kernel, antialias, .. } => Taps::count_of(kernel, self.shrink(antialias)),
        };
        self.output.saturating_mul(neighbours.saturating_add(1)).saturating_mul(8)
    }

    /// How much wider than for a dimension that grows the kernel is, as its inverse.
    fn shrink(&self, antialias: bool) -> f64 {
        if antialias { self.exact_scale().min(1.0) } else { 1.0 }
    }

    /// The scale without the rounding of a quotient of sizes.
    fn exact_scale(&self) -> f64 {
        if self.exact == self.output as f64 { self.exact / self.input as f64 } else { f64::from(self.scale) }
    }
}

/// Resizes one dimension.
fn along(
    c: &mut NodeContext<'_>,
    x: Value,
    d: &Dimension,
    mode: Mode,
    places: &[f64],
    simple: bool,
) -> Result<Value, Reason> {
    let last = (d.input - 1) as f64;
    match mode {
        Mode::Nearest(nearest) => {
            // Before operator set 11 the neighbour above was taken where a dimension became smaller.
            let nearest = if simple && d.scale < 1.0 { Nearest::Ceil } else { nearest };
            let list: Vec<u64> = places
                .iter()
                .map(|&place| {
                    // As everybody computes it: what is an integer but for rounding is one.
                    let place = f64::from(place as f32);
                    let chosen = match nearest {
                        Nearest::PreferFloor => (place - 0.5).ceil(),
                        Nearest::PreferCeil => (place + 0.5).floor(),
                        Nearest::Floor => place.floor(),
                        Nearest::Ceil => place.ceil(),
                    };
                    chosen.clamp(0.0, last) as u64
                })
                .collect();
            pick(c, x, d.axis, &list)
        }
        Mode::Weighted { kernel, antialias, exclude_outside } => {
            let taps = Taps::new(places, d.input, kernel, d.shrink(antialias), exclude_outside);
            resample(c, x, d.axis, &taps)
        }
    }
}

/// Replaces what lies outside of the operand.
fn replace(c: &mut NodeContext<'_>, x: Value, axis: usize, outside: &[bool], value: f64) -> Result<Value, Reason> {
    let flags: Vec<i64> = outside.iter().map(|&flag| i64::from(flag)).collect();
    let flags = c.ints(&flags)?;
    let flags = c.binary_scalar(BinaryOp::Eq, flags, 1.0)?;
    let mut along = vec![1; c.rank(x)];
    along[axis] = outside.len() as u64;
    let flags = c.reshape(flags, along)?;
    let dtype = c.dtype(x);
    let value = c.scalar(dtype, value)?;
    c.emit(Op::Select, &[flags, value, x])
}
