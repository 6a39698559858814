//! Sampling at places that are data: grids of coordinates.
//!
//! Each place is a weighted sum of its neighbours, or its nearest one. Their positions in the flattened image are computed
//! as integers and looked up per batch.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::{FLOATS, NUMBERS};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[rule(
    "GridSample",
    (2, 2),
    &["align_corners", "mode", "padding_mode"],
    "two or three spatial dimensions, cubic with two; modes other than nearest for floats only",
    grid_sample,
)
.types(FLOATS)
.own(&[(0, NUMBERS)])
.since(16)];

#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One neighbour along one dimension: its index, whether it is inside, and its weight.
struct Neighbour {
    index: Value,
    inside: Value,
    weight: Option<Value>,
}

fn grid_sample(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (x, grid) = (c.operand(0)?, c.operand(1)?);
    let shape = c.shape(x).to_vec();
    let places = c.shape(grid).to_vec();
    let spatial = shape.len().saturating_sub(2);
    let fits = (2..=3).contains(&spatial)
        && places.len() == shape.len()
        && places[0] == shape[0]
        && places[spatial + 1] == spatial as u64
        && !shape[2..].contains(&0);
    if !fits {
        return Err(format!("a grid of shape {places:?} does not fit an operand of shape {shape:?}").into());
    }
    let padding = match c.text("padding_mode", "zeros")? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(format!("padding_mode = {other:?} is not supported").into()),
    };
    let mode = c.text("mode", "linear")?.to_owned();
    let align = c.flag("align_corners", false)?;
    if mode != "nearest" && !c.dtype(x).is_float() {
        return Err(format!("elements of type {} can only be sampled with mode \"nearest\"", c.dtype(x)).into());
    }
    let wide = if c.dtype(grid) == DType::F64 { DType::F64 } else { DType::F32 };
    let grid = c.cast(grid, wide)?;
    let mut along = Vec::new();
    for i in 0..spatial {
        // The last coordinate belongs to the first spatial dimension.
        let mut starts = vec![0; spatial + 2];
        starts[spatial + 1] = (spatial - 1 - i) as u64;
        let coordinate = c.slice(grid, starts, [&places[..=spatial], &[1]].concat())?;
        let count: u64 = places[1..=spatial].iter().product();
        let coordinate = c.reshape(coordinate, [places[0], count])?;
        along.push(neighbours(c, coordinate, shape[i + 2], &mode, padding, align)?);
    }
    let result = c.in_f32(x, |c, x| gather(c, x, &along, padding))?;
    c.reshape(result, [&shape[..2], &places[1..=spatial]].concat())
}

/// The neighbours of each place along a dimension of `size` elements.
fn neighbours(
    c: &mut NodeContext<'_>,
    coordinate: Value,
    size: u64,
    mode: &str,
    padding: Padding,
    align: bool,
) -> Result<Vec<Neighbour>, Reason> {
    let n = size as f64;
    let (low, high) = if align { (0.0, n - 1.0) } else { (-0.5, n - 0.5) };
    let shifted = c.binary_scalar(BinaryOp::Add, coordinate, 1.0)?;
    let scaled = c.binary_scalar(BinaryOp::Mul, shifted, (high - low) / 2.0)?;
    let mut place = c.binary_scalar(BinaryOp::Add, scaled, low)?;
    if mode == "nearest" {
        place = c.unary(UnaryOp::Round, place)?;
    }
    place = match padding {
        Padding::Zeros => place,
        Padding::Border => clamp(c, place, 0.0, n - 1.0)?,
        Padding::Reflection => reflect(c, place, low, high)?,
    };
    let base = c.unary(UnaryOp::Floor, place)?;
    let fraction = c.binary(BinaryOp::Sub, place, base)?;
    let offsets_and_weights: Vec<(f64, Option<Value>)> = match mode {
        "nearest" => {
            // A reflection may have moved the place off the integers.
            return Ok(vec![neighbour(c, place, None, (low, high), size, padding)?]);
        }
        "linear" | "bilinear" => {
            let rest = c.scalar_binary(BinaryOp::Sub, 1.0, fraction)?;
            vec![(0.0, Some(rest)), (1.0, Some(fraction))]
        }
        "cubic" | "bicubic" => {
            let mut all = Vec::new();
            for offset in [-1.0, 0.0, 1.0, 2.0] {
                let distance = c.binary_scalar(BinaryOp::Sub, fraction, offset)?;
                let distance = c.unary(UnaryOp::Abs, distance)?;
                all.push((offset, Some(cubic_weight(c, distance, (0.0..=1.0).contains(&offset))?)));
            }
            all
        }
        other => return Err(format!("mode = {other:?} is not supported").into()),
    };
    let mut result = Vec::new();
    for (offset, weight) in offsets_and_weights {
        let index = c.binary_scalar(BinaryOp::Add, base, offset)?;
        result.push(neighbour(c, index, weight, (low, high), size, padding)?);
    }
    Ok(result)
}

/// The weight of a neighbour at a distance of up to 1 (`near`) or of 1 to 2 (Keys 1981, with `a = -0.75`).
fn cubic_weight(c: &mut NodeContext<'_>, t: Value, near: bool) -> Result<Value, Reason> {
    let a = -0.75;
    let coefficients = if near { [a + 2.0, -(a + 3.0), 0.0, 1.0] } else { [a, -5.0 * a, 8.0 * a, -4.0 * a] };
    let mut result = c.binary_scalar(BinaryOp::Mul, t, coefficients[0])?;
    result = c.binary_scalar(BinaryOp::Add, result, coefficients[1])?;
    for &coefficient in &coefficients[2..] {
        result = c.binary(BinaryOp::Mul, result, t)?;
        result = c.binary_scalar(BinaryOp::Add, result, coefficient)?;
    }
    Ok(result)
}

fn clamp(c: &mut NodeContext<'_>, x: Value, low: f64, high: f64) -> Result<Value, Reason> {
    let x = c.binary_scalar(BinaryOp::Max, x, low)?;
    c.binary_scalar(BinaryOp::Min, x, high)
}

/// Mirrors places at both ends again and again.
fn reflect(c: &mut NodeContext<'_>, x: Value, low: f64, high: f64) -> Result<Value, Reason> {
    let range = high - low;
    if range == 0.0 {
        let zero = c.binary_scalar(BinaryOp::Mul, x, 0.0)?;
        return c.binary_scalar(BinaryOp::Add, zero, low);
    }
    let offset = c.binary_scalar(BinaryOp::Sub, x, low)?;
    let turns = c.binary_scalar(BinaryOp::Div, offset, 2.0 * range)?;
    let turns = c.unary(UnaryOp::Floor, turns)?;
    let whole = c.binary_scalar(BinaryOp::Mul, turns, 2.0 * range)?;
    let rest = c.binary(BinaryOp::Sub, offset, whole)?;
    let back = c.scalar_binary(BinaryOp::Sub, 2.0 * range, rest)?;
    let folded = c.binary(BinaryOp::Min, rest, back)?;
    c.binary_scalar(BinaryOp::Add, folded, low)
}

fn neighbour(
    c: &mut NodeContext<'_>,
    mut place: Value,
    weight: Option<Value>,
    bounds: (f64, f64),
    size: u64,
    padding: Padding,
) -> Result<Neighbour, Reason> {
    let last = (size - 1) as f64;
    if padding == Padding::Reflection {
        place = reflect(c, place, bounds.0, bounds.1)?;
    }
    let not_below = c.scalar_binary(BinaryOp::Le, 0.0, place)?;
    let not_above = c.binary_scalar(BinaryOp::Le, place, last)?;
    let inside = c.binary(BinaryOp::And, not_below, not_above)?;
    let bounded = clamp(c, place, 0.0, last)?;
    Ok(Neighbour { index: c.cast(bounded, DType::I64)?, inside, weight })
}

/// Looks up and sums every combination of neighbours. `x: [N, C, spatial...]` to `[N, C, places]`.
fn gather(c: &mut NodeContext<'_>, x: Value, along: &[Vec<Neighbour>], padding: Padding) -> Result<Value, Reason> {
    let shape = c.shape(x).to_vec();
    let image: u64 = shape[2..].iter().product();
    let flat = c.reshape(x, [shape[0], shape[1], image])?;
    let rows = c.transpose(flat, [0, 2, 1])?;
    let dtype = c.dtype(x);
    let zero = c.scalar(dtype, 0.0)?;
    let combinations = along.iter().fold(vec![Vec::new()], |all: Vec<Vec<&Neighbour>>, neighbours| {
        all.iter().flat_map(|chosen| neighbours.iter().map(move |n| [chosen.as_slice(), &[n]].concat())).collect()
    });
    let mut sum: Option<Value> = None;
    for chosen in combinations {
        let mut index: Option<Value> = None;
        let mut inside: Option<Value> = None;
        let mut weight: Option<Value> = None;
        for (i, neighbour) in chosen.iter().enumerate() {
            index = Some(match index {
                None => neighbour.index,
                Some(outer) => {
                    let scaled = c.binary_scalar(BinaryOp::Mul, outer, shape[i + 2] as f64)?;
                    c.binary(BinaryOp::Add, scaled, neighbour.index)?
                }
            });
            inside = Some(match inside {
                None => neighbour.inside,
                Some(inside) => c.binary(BinaryOp::And, inside, neighbour.inside)?,
            });
            weight = match (weight, neighbour.weight) {
                (Some(a), Some(b)) => Some(c.binary(BinaryOp::Mul, a, b)?),
                (a, b) => a.or(b),
            };
        }
        let (Some(index), Some(inside)) = (index, inside) else { continue };
        let column = [c.shape(index), &[1]].concat();
        let index = c.reshape(index, column.as_slice())?;
        let mut part = c.emit(Op::GatherNd { batch_dims: 1 }, &[rows, index])?;
        if padding == Padding::Zeros {
            let inside = c.reshape(inside, column.as_slice())?;
            part = c.select(inside, part, zero)?;
        }
        if let Some(weight) = weight {
            let weight = c.cast(weight, dtype)?;
            let weight = c.reshape(weight, column)?;
            part = c.binary(BinaryOp::Mul, part, weight)?;
        }
        sum = Some(match sum {
            None => part,
            Some(sum) => c.binary(BinaryOp::Add, sum, part)?,
        });
    }
    let sum = sum.ok_or("there are no spatial dimensions")?;
    c.transpose(sum, [0, 2, 1])
}
