//! Weighted sums of neighbours along one dimension, with weights known when compiling: the linear and cubic modes of
//! resizing.
//!
//! Where a dimension grows by a whole factor, the elements of the result between two of the operand repeat the same
//! weights: such a *phase* is a sum of shifted operands, each times a number, and the phases are interleaved. Otherwise
//! neighbours are looked up and multiplied by a vector of weights, and where there are many of them, it is a matrix product.

use aic_ir::graph::{BinaryOp, Op, Value};
use aic_ir::types::{DType, Tensor};

use super::pick::pick;
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// Largest factor whose phases are computed one by one.
const MAX_PHASES: usize = 8;

/// With more neighbours than this, the sum is a matrix product.
const MAX_LOOKUPS: usize = 4;

/// How weights fall with the distance.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    /// `1 - |t|`.
    Linear,
    /// Keys, *Cubic convolution interpolation for digital image processing* (IEEE Trans. ASSP 29(6), 1981).
    Cubic {
        /// Slope at a distance of 1.
        a: f64,
    },
}

impl Kernel {
    fn radius(self) -> f64 {
        match self {
            Kernel::Linear => 1.0,
            Kernel::Cubic { .. } => 2.0,
        }
    }

    fn weight(self, t: f64) -> f64 {
        let t = t.abs();
        match self {
            Kernel::Linear => (1.0 - t).max(0.0),
            Kernel::Cubic { a } if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
            Kernel::Cubic { a } if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
            Kernel::Cubic { .. } => 0.0,
        }
    }
}

/// The neighbours of each element of the result and their weights.
pub(super) struct Taps {
    /// Elements of the operand's dimension.
    input: u64,
    /// For each element of the result, its first neighbour; it and those that follow may lie outside of the operand, where
    /// the outermost elements count.
    first: Vec<i64>,
    /// For each element of the result, the weights of its neighbours, all of one number.
    weights: Vec<Vec<f64>>,
}

impl Taps {
    /// The first neighbour, relative to the one below a place.
    fn start_of(kernel: Kernel, shrink: f64) -> i64 {
        ((-kernel.radius() / shrink).floor() as i64).saturating_add(1)
    }

    /// Number of neighbours of each place.
    pub fn count_of(kernel: Kernel, shrink: f64) -> u64 {
        Self::start_of(kernel, shrink).unsigned_abs().saturating_mul(2).saturating_add(2)
    }

    /// Neighbours of some places on a dimension of `input` elements. A `shrink` below 1 widens the kernel, so that every
    /// element of the operand counts; with `exclude_outside` those outside do not.
    pub fn new(places: &[f64], input: u64, kernel: Kernel, shrink: f64, exclude_outside: bool) -> Self {
        let start = Self::start_of(kernel, shrink);
        let count = Self::count_of(kernel, shrink) as usize;
        // What lies further outside than the kernel is wide is where its outermost neighbours are.
        let (low, high) = (-(count as f64), (input as usize + count) as f64);
        let mut taps = Self { input, first: Vec::new(), weights: Vec::new() };
        for place in places.iter().map(|p| p.clamp(low, high)) {
            let base = place.floor();
            let first = base as i64 + start;
            let mut weights: Vec<f64> = (0..count as i64)
                .map(|k| match (0..input as i64).contains(&(first + k)) || !exclude_outside {
                    true => kernel.weight(((start + k) as f64 - (place - base)) * shrink),
                    false => 0.0,
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 && (exclude_outside || shrink < 1.0) {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            taps.first.push(first);
            taps.weights.push(weights);
        }
        taps
    }

    fn count(&self) -> usize {
        self.weights.first().map_or(0, Vec::len)
    }

    fn index(&self, element: usize, tap: usize) -> u64 {
        (self.first[element] + tap as i64).clamp(0, self.input as i64 - 1) as u64
    }

    /// The factor by which the dimension grows, if it is whole and every phase repeats its weights.
    fn phases(&self) -> Option<usize> {
        let input = usize::try_from(self.input).ok()?;
        let factor = self.first.len().checked_div(input)?;
        let repeats = (2..=MAX_PHASES).contains(&factor)
            && factor * input == self.first.len()
            && (0..self.first.len()).all(|i| {
                let phase = i % factor;
                let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
                self.first[i] - (i / factor) as i64 == self.first[phase]
                    && self.weights[i].iter().zip(&self.weights[phase]).all(close)
            });
        repeats.then_some(factor)
    }
}

/// Applies weights along a dimension of floats.
pub(super) fn resample(c: &mut NodeContext<'_>, x: Value, axis: usize, taps: &Taps) -> Result<Value, Reason> {
    if let Some(factor) = taps.phases() {
        return by_phases(c, x, axis, taps, factor);
    }
    if taps.count() > MAX_LOOKUPS {
        return by_product(c, x, axis, taps);
    }
    let mut along = vec![1; c.rank(x)];
    along[axis] = taps.first.len() as u64;
    let mut sum = None;
    for tap in 0..taps.count() {
        let list: Vec<u64> = (0..taps.first.len()).map(|i| taps.index(i, tap)).collect();
        let neighbours = pick(c, x, axis, &list)?;
        let weights = vector(c, x, taps.weights.iter().map(|w| w[tap]), &along)?;
        let scaled = c.binary(BinaryOp::Mul, neighbours, weights)?;
        sum = Some(match sum {
            None => scaled,
            Some(sum) => c.binary(BinaryOp::Add, sum, scaled)?,
        });
    }
    sum.ok_or_else(|| "the result is empty".into())
}

/// A constant of the operand's element type.
fn vector(
    c: &mut NodeContext<'_>,
    like: Value,
    values: impl Iterator<Item = f64>,
    shape: &[u64],
) -> Result<Value, Reason> {
    let dtype = c.dtype(like);
    let bytes: Vec<u8> = match dtype {
        DType::F64 => values.flat_map(f64::to_le_bytes).collect(),
        _ => values.flat_map(|v| (v as f32).to_le_bytes()).collect(),
    };
    let ty = aic_ir::types::TensorType::new(if dtype == DType::F64 { dtype } else { DType::F32 }, shape)?;
    let tensor = Tensor::new(ty, bytes.into()).map_err(|e| e.to_string())?;
    c.constant(tensor)
}

/// Phase by phase: shifted operands, surrounded by copies of their outermost elements, times numbers.
fn by_phases(c: &mut NodeContext<'_>, x: Value, axis: usize, taps: &Taps, factor: usize) -> Result<Value, Reason> {
    let shape = c.shape(x).to_vec();
    let size = shape[axis] as i64;
    let used = |phase: usize| taps.weights[phase].iter().enumerate().filter(|(_, w)| **w != 0.0);
    let offsets = || (0..factor).flat_map(|phase| used(phase).map(move |(tap, _)| taps.first[phase] + tap as i64));
    let (low, high) = (offsets().min().unwrap_or(0).min(0), offsets().max().unwrap_or(0).max(0));
    let list: Vec<u64> = (low..size + high).map(|i| i.clamp(0, size - 1) as u64).collect();
    let widened = pick(c, x, axis, &list)?;
    let (before, after) = (&shape[..axis], &shape[axis + 1..]);
    let mut phases = Vec::with_capacity(factor);
    for phase in 0..factor {
        let mut sum = None;
        for (tap, &weight) in used(phase) {
            let mut starts = vec![0; shape.len()];
            starts[axis] = (taps.first[phase] + tap as i64 - low) as u64;
            let shifted = c.slice(widened, starts, shape.clone())?;
            let scaled = match weight == 1.0 {
                true => shifted,
                false => c.binary_scalar(BinaryOp::Mul, shifted, weight)?,
            };
            sum = Some(match sum {
                None => scaled,
                Some(sum) => c.binary(BinaryOp::Add, sum, scaled)?,
            });
        }
        let sum = sum.ok_or("all weights are 0")?;
        phases.push(c.reshape(sum, [before, &[shape[axis], 1], after].concat())?);
    }
    let interleaved = c.concat(&phases, axis + 1)?;
    c.reshape(interleaved, [before, &[shape[axis] * factor as u64], after].concat())
}

/// The product with the matrix of all weights, the dimension brought to the end and back.
fn by_product(c: &mut NodeContext<'_>, x: Value, axis: usize, taps: &Taps) -> Result<Value, Reason> {
    let (rows, columns) = (taps.input, taps.first.len() as u64);
    let elements = rows.checked_mul(columns).ok_or("the weights are too many")?;
    // Before the matrix is made, since `c.constant` would refuse it only after.
    c.charge(elements.saturating_mul(8))?;
    let mut matrix = vec![0.0; elements as usize];
    for (column, weights) in taps.weights.iter().enumerate() {
        for (tap, weight) in weights.iter().enumerate() {
            matrix[taps.index(column, tap) as usize * columns as usize + column] += weight;
        }
    }
    let matrix = vector(c, x, matrix.into_iter(), &[rows, columns])?;
    let rank = c.rank(x);
    let last: Vec<usize> = (0..rank).filter(|&i| i != axis).chain([axis]).collect();
    let turned = c.transpose(x, last.as_slice())?;
    let lead: Vec<u64> = c.shape(turned)[..rank - 1].to_vec();
    let flat = c.reshape(turned, [lead.iter().product(), rows])?;
    let product = c.emit(Op::MatMul, &[flat, matrix])?;
    let split = c.reshape(product, [lead.as_slice(), &[columns]].concat())?;
    let mut back = vec![0; rank];
    last.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    c.transpose(split, back)
}
