//! Reductions and pooling.

use super::ErrorModel;
use super::integer;
use super::movement::{Offsets, dense_strides};
use super::num::{Num, Rounding};
use super::value::{Data, Evaluated};
use crate::graph::{BinaryOp, PoolAttrs, PoolKind, ReduceOp};
use crate::types::TensorType;

/// A sum of terms with bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    /// Sum of the terms.
    v: f64,
    /// Sum of their magnitudes.
    magnitude: f64,
    /// Sum of their squares.
    squares: f64,
    /// Sum of their bounds, each as [`Rounding::term`] enters it.
    e: f64,
    /// Whether all terms are integers.
    integral: bool,
    /// Whether a term is not finite.
    special: bool,
}

impl Sum {
    pub(super) const EMPTY: Self =
        Self { v: 0.0, magnitude: 0.0, squares: 0.0, e: 0.0, integral: true, special: false };

    pub(super) fn add(&mut self, x: Num, r: &Rounding) {
        self.v += x.v;
        self.magnitude += x.v.abs();
        self.squares += x.v * x.v;
        self.e += r.term(x.e);
        self.integral &= x.v.fract() == 0.0;
        self.special |= !x.v.is_finite();
    }

    /// The sum of `n` terms with `extra` more roundings on each: it errs by `γ Σ|terms|`. Certain integers that no
    /// partial sum takes past the type's precision sum exactly.
    pub(super) fn total(&self, n: f64, extra: f64, r: &Rounding) -> Num {
        if self.special {
            // Infinities and NaN win over any rounding.
            return if self.e < f64::INFINITY { Num::exact(self.v) } else { Num::undetermined(self.v) };
        }
        if self.e == 0.0 && self.integral && self.magnitude <= r.integers {
            return Num::exact(self.v);
        }
        if self.magnitude + self.e >= r.overflow {
            return Num::undetermined(self.v);
        }
        let factor = r.sum_factor(n + extra);
        let own = match r.model() {
            ErrorModel::WorstCase => factor * (self.magnitude + self.e),
            ErrorModel::Independent => factor * factor * (self.squares + self.e),
        };
        let e = r.sum_error(self.e + own, self.v, n + extra) + r.eta;
        if e.is_nan() { Num::undetermined(self.v) } else { Num { v: self.v, e } }
    }

    /// The mean of `n` terms, as a quotient or as a product with a rounded `1/n`. NaN of no terms.
    pub(super) fn mean(&self, n: f64, r: &Rounding) -> Num {
        if n == 0.0 {
            return Num::exact(f64::NAN);
        }
        let sum = self.total(n, 0.0, r);
        let v = sum.v / n;
        // Dividing by a power of two and multiplying by its inverse are the same.
        if sum.e == 0.0 && (n.log2().fract() == 0.0 || !v.is_finite()) {
            return r.div(sum, Num::exact(n));
        }
        r.settle(v, sum.e / n, 3.0)
    }
}

/// A product of factors with bounds. Partial products may overflow or underflow in some order although the whole does
/// not, which `largest` bounds: the product of the factors above 1.
#[derive(Clone, Copy, Debug)]
struct Product {
    v: f64,
    high: f64,
    largest: f64,
}

impl Product {
    const EMPTY: Self = Self { v: 1.0, high: 1.0, largest: 1.0 };

    fn multiply(&mut self, x: Num) {
        self.v *= x.v;
        self.high *= x.v.abs() + x.e;
        self.largest *= (x.v.abs() + x.e).max(1.0);
    }

    fn total(&self, n: f64, exact: bool, r: &Rounding) -> Num {
        if self.largest.is_nan() || self.largest >= r.overflow {
            return Num::undetermined(self.v);
        }
        if exact && self.v.fract() == 0.0 && self.largest <= r.integers {
            return Num::exact(self.v);
        }
        // Π(|x| + e) - |Πx| is how far the exact product may move.
        let propagated = (self.high - self.v.abs()).max(0.0);
        Num { v: self.v, e: propagated + r.gamma(n) * self.high + r.eta * self.largest * n }
    }
}

pub(super) fn reduce(op: ReduceOp, axes: &[usize], x: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let shape = x.ty().shape();
    let terms: u64 = axes.iter().map(|&axis| shape[axis]).product();
    // For each element of `x`, the result it goes into: reduced dimensions have stride 0.
    let kept: Vec<u64> = (0..shape.len()).map(|i| if axes.contains(&i) { 1 } else { shape[i] }).collect();
    let mut strides = dense_strides(&kept);
    for &axis in axes {
        strides[axis] = 0;
    }
    let targets = Offsets::new(shape, strides, 0);
    let count = ty.elems() as usize;
    match &x.data {
        Data::Float(_) => {
            let results: Vec<Num> = match op {
                ReduceOp::Sum | ReduceOp::Mean => {
                    let mut sums = vec![Sum::EMPTY; count];
                    for (i, target) in targets.enumerate() {
                        sums[target].add(x.num(i), r);
                    }
                    let n = terms as f64;
                    sums.iter().map(|s| if op == ReduceOp::Sum { s.total(n, 0.0, r) } else { s.mean(n, r) }).collect()
                }
                ReduceOp::Max | ReduceOp::Min => {
                    let start = if op == ReduceOp::Max { f64::NEG_INFINITY } else { f64::INFINITY };
                    let mut results = vec![Num::exact(start); count];
                    for (i, target) in targets.enumerate() {
                        let (best, x) = (results[target], x.num(i));
                        results[target] = if op == ReduceOp::Max { r.max(best, x) } else { r.min(best, x) };
                    }
                    results
                }
                ReduceOp::Prod => {
                    let mut products = vec![Product::EMPTY; count];
                    for (i, target) in targets.enumerate() {
                        products[target].multiply(x.num(i));
                    }
                    let exact = x.err.is_empty();
                    products.iter().map(|p| p.total(terms as f64, exact, r)).collect()
                }
            };
            Evaluated::from_nums(ty, results)
        }
        Data::Int(_) => {
            let dtype = ty.dtype();
            let (binary, start) = match op {
                ReduceOp::Sum | ReduceOp::Mean => (BinaryOp::Add, Some(0)),
                ReduceOp::Prod => (BinaryOp::Mul, Some(1)),
                ReduceOp::Max => (BinaryOp::Max, None),
                ReduceOp::Min => (BinaryOp::Min, None),
            };
            let mut results: Vec<Option<(i64, f64)>> = vec![start.map(|s| (s, 0.0)); count];
            for (i, target) in targets.enumerate() {
                let (v, err) = x.int(i);
                results[target] = Some(match results[target] {
                    Some((best, best_err)) => (integer::binary(binary, dtype, best, v), best_err.max(err)),
                    None => (v, err),
                });
            }
            let finished = results.into_iter().map(|x| {
                let (v, err) = x.unwrap_or((0, f64::INFINITY));
                let v = if op == ReduceOp::Mean { integer::binary(BinaryOp::Div, dtype, v, terms as i64) } else { v };
                (v, err)
            });
            Evaluated::from_ints(ty, finished)
        }
    }
}

/// The positions of one window along one dimension that lie inside the input.
fn window(
    output: usize,
    size: u64,
    kernel: u64,
    stride: u64,
    dilation: u64,
    before: u64,
) -> impl Iterator<Item = usize> + Clone {
    // Inference bounds all of these by 2^40, and their products by the padded size.
    let start = output as i64 * stride as i64 - before as i64;
    let (dilation, size) = (dilation as i64, size as i64);
    let first = if start >= 0 { 0 } else { (-start + dilation - 1) / dilation };
    let end = if start >= size { 0 } else { (size - start + dilation - 1) / dilation };
    (first..end.min(kernel as i64)).map(move |k| (start + k * dilation) as usize)
}

pub(super) fn pool(attrs: &PoolAttrs, x: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let PoolAttrs { kind, kernel, strides, dilations, pads } = attrs;
    // One spatial dimension is two with a first of one element.
    let spatial = kernel.len();
    let at = |values: &[u64], i: usize| if spatial == 2 { values[i] } else { [1, values[0]][i] };
    let before = |i: usize| if spatial == 2 { pads[i].0 } else { [0, pads[0].0][i] };
    let input = |i: usize| at(&x.ty().shape()[2..], i);
    let output = |i: usize| at(&ty.shape()[2..], i) as usize;
    let along = |i: usize, o: usize| window(o, input(i), at(kernel, i), at(strides, i), at(dilations, i), before(i));
    let planes = (ty.shape()[0] * ty.shape()[1]) as usize;
    let (height, width) = (input(0) as usize, input(1) as usize);
    let positions = (0..planes).flat_map(|p| {
        let rows = 0..output(0);
        rows.flat_map(move |i| (0..output(1)).map(move |j| (p, i, j)))
    });
    let elements = |(p, i, j): (usize, usize, usize)| {
        let columns = along(1, j);
        along(0, i).flat_map(move |y| columns.clone().map(move |z| (p * height + y) * width + z))
    };
    match &x.data {
        Data::Float(_) => Evaluated::from_nums(
            ty.clone(),
            positions.map(|position| match kind {
                PoolKind::Max => {
                    elements(position).fold(Num::exact(f64::NEG_INFINITY), |best, i| r.max(best, x.num(i)))
                }
                PoolKind::AverageIncludePad | PoolKind::AverageExcludePad => {
                    let mut sum = Sum::EMPTY;
                    let mut inside = 0;
                    for i in elements(position) {
                        sum.add(x.num(i), r);
                        inside += 1;
                    }
                    let all = at(kernel, 0) as f64 * at(kernel, 1) as f64;
                    sum.mean(if *kind == PoolKind::AverageExcludePad { f64::from(inside) } else { all }, r)
                }
            }),
        ),
        Data::Int(_) => Evaluated::from_ints(
            ty.clone(),
            positions.map(|position| {
                let mut all = elements(position).map(|i| x.int(i));
                let first = all.next().unwrap_or((0, f64::INFINITY));
                all.fold(first, |(best, best_err), (v, err)| {
                    (integer::binary(BinaryOp::Max, ty.dtype(), best, v), best_err.max(err))
                })
            }),
        ),
    }
}
