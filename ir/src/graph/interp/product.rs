//! Matrix products, convolution and attention: values and bounds in one pass of a blocked kernel.

use super::integer;
use super::movement::broadcast_offsets;
use super::normalize::softmax_row;
use super::num::{Num, Rounding};
use super::value::Evaluated;
use crate::graph::ConvAttrs;
use crate::types::TensorType;

/// Roundings per term beyond those of the sum: the product itself, a bias, and two of a factor that a pass folded into
/// the weights (a batch norm's, attention's scale).
const EXTRA: f64 = 4.0;

/// Columns that the kernel computes at once.
const PANEL: usize = 8;

/// Elements of a matrix and their bounds (none if all are 0), `rows` and `columns` apart.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    v: &'a [f64],
    e: &'a [f64],
    start: usize,
    row: usize,
    column: usize,
}

/// Multiplies `a: [m, k]` and `b: [k, n]` into `m·n` elements.
///
/// For terms `a'b'` with `|a' - a| ≤ ea` and `|b' - b| ≤ eb`, a sum of `k` terms in any order, fused or not, errs by at
/// most `Σ(ea|b| + (|a| + ea) eb) + γ Σ(|a| + ea)(|b| + eb)`. With `t = ea + γ(|a| + ea)` per element of `a` that is
/// `Σ t|b| + (|a| + ea + t) eb`: one more product per term, or two where `b` has bounds. For independent errors, the same
/// with the squares of all factors.
fn multiply(a: Matrix<'_>, b: Matrix<'_>, (m, k, n): (usize, usize, usize), r: &Rounding) -> Vec<Num> {
    let roundings = k as f64 + EXTRA;
    let factor = r.sum_factor(roundings);
    let bound = |x: Matrix<'_>, i: usize| x.e.get(i).copied().unwrap_or(0.0);
    let (mut a_value, mut a_own, mut a_other) =
        (Vec::with_capacity(m * k), Vec::with_capacity(m * k), Vec::with_capacity(m * k));
    for i in 0..m {
        for p in 0..k {
            let at = a.start + i * a.row + p * a.column;
            let (v, e) = (a.v[at], bound(a, at));
            let rounding = r.term(factor * (v.abs() + e));
            a_value.push(v);
            a_own.push(r.term(e) + rounding);
            a_other.push(r.term(v.abs() + e) + rounding);
        }
    }
    let mut result = vec![Num::exact(0.0); m * n];
    let mut panel = vec![[0.0; PANEL]; k];
    let mut panel_size = vec![[0.0; PANEL]; k];
    let mut panel_e = vec![[0.0; PANEL]; if b.e.is_empty() { 0 } else { k }];
    for first in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - first);
        let places = |p: usize| (0..width).map(move |j| b.start + p * b.row + (first + j) * b.column);
        for (p, (columns, sizes)) in panel.iter_mut().zip(&mut panel_size).enumerate() {
            columns.iter_mut().zip(places(p)).for_each(|(column, at)| *column = b.v[at]);
            *sizes = columns.map(|v| r.term(v.abs()));
        }
        for (p, columns) in panel_e.iter_mut().enumerate() {
            columns.iter_mut().zip(places(p)).for_each(|(column, at)| *column = r.term(b.e[at]));
        }
        for i in 0..m {
            let range = i * k..(i + 1) * k;
            let mut value = [0.0; PANEL];
            let mut error = [0.0; PANEL];
            let terms = a_value[range.clone()].iter().zip(&a_own[range.clone()]);
            for ((&x, &own), (columns, sizes)) in terms.zip(panel.iter().zip(&panel_size)) {
                for j in 0..PANEL {
                    value[j] += x * columns[j];
                    error[j] += own * sizes[j];
                }
            }
            for (&other, columns) in a_other[range].iter().zip(&panel_e) {
                for j in 0..PANEL {
                    error[j] += other * columns[j];
                }
            }
            for j in 0..width {
                // Each product may also lose up to eta near 0.
                let e = r.sum_error(error[j], value[j], roundings) + r.eta * k as f64;
                result[i * n + first + j] = product_num(value[j], e, r.gamma(roundings), r);
            }
        }
    }
    result
}

/// One sum of products with its bound. Terms that are not finite leave it undetermined, as does a sum of magnitudes that
/// might overflow: in the worst case that sum is at most `e/γ`.
fn product_num(v: f64, e: f64, gamma: f64, r: &Rounding) -> Num {
    if e < f64::INFINITY && v.is_finite() && e < r.overflow * gamma { Num { v, e } } else { Num::undetermined(v) }
}

fn matrix(x: &Evaluated, start: usize, row: usize, column: usize) -> Matrix<'_> {
    Matrix { v: x.floats().unwrap_or_default(), e: &x.err, start, row, column }
}

pub(super) fn matmul(a: &Evaluated, b: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let rank = ty.rank();
    let dims = |x: &Evaluated| {
        let shape = x.ty().shape();
        (shape[shape.len() - 2] as usize, shape[shape.len() - 1] as usize)
    };
    let ((m, k), (_, n)) = (dims(a), dims(b));
    let batches = |x: &Evaluated| {
        let rank_x = x.ty().rank();
        batch_offsets(&x.ty().shape()[..rank_x - 2], &ty.shape()[..rank - 2])
    };
    if let (Some(a_ints), Some(b_ints)) = (a.ints(), b.ints()) {
        let elements = batches(a).into_iter().zip(batches(b)).flat_map(|(i, j)| {
            (0..m * n).map(move |at| {
                let terms = (0..k).map(move |p| (i * m * k + at / n * k + p, j * k * n + p * n + at % n));
                terms.fold((0i64, 0.0f64), |(sum, err), (x, y)| {
                    let product = a_ints[x].wrapping_mul(b_ints[y]);
                    (sum.wrapping_add(product), err.max(a.err(x)).max(b.err(y)))
                })
            })
        });
        let dtype = ty.dtype();
        return Evaluated::from_ints(ty, elements.map(|(v, err)| (integer::wrap(dtype, v), err)));
    }
    let mut result = Vec::with_capacity(ty.elems() as usize);
    // One matrix `b` for many rows of `a`: multiply once, so that `b` is read once.
    if b.ty().rank() == 2 {
        let rows = ty.elems() as usize / n;
        result = multiply(matrix(a, 0, k, 1), matrix(b, 0, n, 1), (rows, k, n), r);
        return Evaluated::from_nums(ty, result);
    }
    for (i, j) in batches(a).into_iter().zip(batches(b)) {
        let (a, b) = (matrix(a, i * m * k, k, 1), matrix(b, j * k * n, n, 1));
        result.extend(multiply(a, b, (m, k, n), r));
    }
    Evaluated::from_nums(ty, result)
}

/// For every index of the broadcast leading dimensions, the index into those of an operand.
fn batch_offsets(operand: &[u64], result: &[u64]) -> Vec<usize> {
    let ty = |shape: &[u64]| TensorType::new(crate::types::DType::F32, shape);
    match (ty(operand), ty(result)) {
        (Ok(operand), Ok(result)) => broadcast_offsets(&operand, &result).collect(),
        // Parts of valid shapes are valid.
        _ => Vec::new(),
    }
}

/// Convolution as a product of the kernel `[O/groups, C/groups·window]` with columns of the input, some rows of the
/// output at a time, so that the columns stay small.
pub(super) fn conv(
    attrs: &ConvAttrs,
    [x, w]: [&Evaluated; 2],
    bias: Option<&Evaluated>,
    ty: TensorType,
    r: &Rounding,
) -> Evaluated {
    const COLUMN_ELEMENTS: usize = 1 << 20;
    let ConvAttrs { strides, dilations, pads, groups } = attrs;
    // One spatial dimension is two with a first of one element.
    let spatial = strides.len();
    let at = |values: &[u64], i: usize| (if spatial == 2 { values[i] } else { [1, values[0]][i] }) as usize;
    let input = [at(&x.ty().shape()[2..], 0), at(&x.ty().shape()[2..], 1)];
    let kernel = [at(&w.ty().shape()[2..], 0), at(&w.ty().shape()[2..], 1)];
    let output = [at(&ty.shape()[2..], 0), at(&ty.shape()[2..], 1)];
    let before: Vec<u64> = pads.iter().map(|p| p.0).collect();
    let before = if spatial == 2 { [before[0], before[1]] } else { [0, before[0]] };
    let groups = *groups as usize;
    let batch = x.ty().shape()[0] as usize;
    let (channels, filters) = (x.ty().shape()[1] as usize / groups, w.ty().shape()[0] as usize / groups);
    let k = channels * kernel[0] * kernel[1];
    let places = output[0] * output[1];
    let chunk = (COLUMN_ELEMENTS / k.max(1)).clamp(PANEL, places.max(PANEL));
    let source = |o: usize, tap: usize, i: usize| {
        let position = o as i64 * at(strides, i) as i64 + tap as i64 * at(dilations, i) as i64 - before[i] as i64;
        usize::try_from(position).ok().filter(|&p| p < input[i])
    };
    let values = x.floats().unwrap_or_default();
    let mut result = vec![Num::exact(0.0); ty.elems() as usize];
    for image in 0..batch {
        for group in 0..groups {
            for first in (0..places).step_by(chunk) {
                let n = chunk.min(places - first);
                let mut columns = vec![0.0; k * n];
                let mut columns_e = vec![0.0; if x.err.is_empty() { 0 } else { k * n }];
                for row in 0..k {
                    let (channel, tap) = (row / (kernel[0] * kernel[1]), row % (kernel[0] * kernel[1]));
                    let plane = (image * groups + group) * channels + channel;
                    for j in 0..n {
                        let (oy, ox) = ((first + j) / output[1], (first + j) % output[1]);
                        let (Some(y), Some(z)) = (source(oy, tap / kernel[1], 0), source(ox, tap % kernel[1], 1))
                        else {
                            continue;
                        };
                        let i = (plane * input[0] + y) * input[1] + z;
                        columns[row * n + j] = values[i];
                        if let Some(e) = columns_e.get_mut(row * n + j) {
                            *e = x.err(i);
                        }
                    }
                }
                let a = matrix(w, group * filters * k, k, 1);
                let b = Matrix { v: &columns, e: &columns_e, start: 0, row: n, column: 1 };
                let products = multiply(a, b, (filters, k, n), r);
                for (i, y) in products.into_iter().enumerate() {
                    let filter = group * filters + i / n;
                    let target = (image * groups * filters + filter) * places + first + i % n;
                    result[target] = match bias {
                        Some(bias) => add_bias(y, bias.num(filter), k, r),
                        None => y,
                    };
                }
            }
        }
    }
    Evaluated::from_nums(ty, result)
}

/// Adds one more term to a sum of `k` products, in any place of its order; [`EXTRA`] has counted its rounding for the
/// other terms.
fn add_bias(y: Num, bias: Num, k: usize, r: &Rounding) -> Num {
    let sum = y.v + bias.v;
    let e = y.e + bias.e + r.sum_factor(k as f64 + EXTRA) * (bias.v.abs() + bias.e);
    let overflow = sum.abs() + e >= r.overflow;
    if e.is_nan() || !sum.is_finite() || overflow { Num::undetermined(sum) } else { Num { v: sum, e } }
}

/// Scores are a product, a scale (which may also multiply queries or keys beforehand; [`EXTRA`] counts it) and a bias; each
/// row goes through softmax; the weights multiply the values. Dividing by the softmax's sum after the second product is
/// covered by [`EXTRA`] likewise.
pub(super) fn attention(
    scale: f32,
    [q, k, v]: [&Evaluated; 3],
    bias: Option<&Evaluated>,
    ty: TensorType,
    r: &Rounding,
) -> Evaluated {
    let dim = |x: &Evaluated, i: usize| x.ty().shape()[i] as usize;
    let (heads, queries, depth) = (dim(q, 0) * dim(q, 1), dim(q, 2), dim(q, 3));
    let (keys, width) = (dim(v, 2), dim(v, 3));
    let scale = Num::exact(f64::from(scale));
    let scores_shape = [ty.shape()[0], ty.shape()[1], ty.shape()[2], keys as u64];
    let bias_offsets = bias.map(|bias| {
        let offsets = TensorType::new(ty.dtype(), scores_shape).map(|scores| broadcast_offsets(bias.ty(), &scores));
        (bias, offsets.map(Iterator::collect::<Vec<_>>).unwrap_or_default())
    });
    let mut result = Vec::with_capacity(ty.elems() as usize);
    for head in 0..heads {
        let a = matrix(q, head * queries * depth, depth, 1);
        let transposed = matrix(k, head * keys * depth, 1, depth);
        let mut scores = multiply(a, transposed, (queries, depth, keys), r);
        for (i, score) in scores.iter_mut().enumerate() {
            *score = r.mul(*score, scale);
            if let Some((bias, offsets)) = &bias_offsets {
                *score = r.add(*score, bias.num(offsets[head * queries * keys + i]));
            }
        }
        for row in scores.chunks_mut(keys.max(1)) {
            softmax_row(row, r);
        }
        let (weights, weights_e): (Vec<f64>, Vec<f64>) = scores.iter().map(|x| (x.v, x.e)).unzip();
        let a = Matrix { v: &weights, e: &weights_e, start: 0, row: keys, column: 1 };
        let b = matrix(v, head * keys * width, width, 1);
        result.extend(multiply(a, b, (queries, keys, width), r));
    }
    Evaluated::from_nums(ty, result)
}
