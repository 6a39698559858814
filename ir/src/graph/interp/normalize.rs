//! Softmax and normalizations.

use super::movement::{Offsets, dense_strides};
use super::num::{FUNCTION, Num, Rounding};
use super::reduce::Sum;
use super::value::Evaluated;

/// Softmax of one row, in place.
///
/// Let `d = x - max`. The maximum cancels between numerator and denominator, so its own error does not matter; what an
/// evaluation exponentiates differs from `d` by at most `δ = e + u(|d| + e)`, `e` being that of the element and of the
/// maximum for the rounding. The quotient then lies between `exp(d - δ)/Σ exp(d + δ)` and `exp(d + δ)/Σ exp(d - δ)`,
/// with the roundings of two exponentials, the sum, and the division, and always within 0 and 1.
pub(super) fn softmax_row(row: &mut [Num], r: &Rounding) {
    let max = row.iter().map(|x| x.v).fold(f64::NEG_INFINITY, f64::max);
    let open = |x: &Num| x.is_undetermined() || x.v.is_nan() || x.v == f64::INFINITY;
    if row.iter().any(open) || max == f64::NEG_INFINITY {
        row.fill(Num::undetermined(f64::NAN));
        return;
    }
    let max_e = row.iter().copied().fold(Num::exact(f64::NEG_INFINITY), |best, x| r.max(best, x)).e;
    // Value and ends of the exponential; minus infinity gives 0 for certain.
    let exponentials = |x: &Num| {
        let d = x.v - max;
        if d == f64::NEG_INFINITY {
            return (0.0, 0.0, 0.0);
        }
        let delta = x.e + r.u * (d.abs() + x.e + max_e);
        (libm::exp(d), libm::exp(d - delta), libm::exp(d + delta))
    };
    let (mut sum, mut low_sum, mut high_sum) = (0.0, 0.0, 0.0);
    for x in &*row {
        let (value, low, high) = exponentials(x);
        sum += value;
        low_sum += low;
        high_sum += high;
    }
    let roundings = r.gamma(row.len() as f64 + 2.0 * FUNCTION + 2.0);
    for x in row {
        let (value, low, high) = exponentials(x);
        let v = value / sum;
        // Where an interval is so wide that its end over- or underflows, 0 and 1 bound the result.
        let low = (low / high_sum).max(0.0);
        let high = (high / low_sum).min(1.0);
        let widest = if high.is_nan() { 1.0 } else { high };
        *x = Num { v, e: (widest - v).max(v - low) + roundings.min(1.0) * widest + r.eta };
    }
}

pub(super) fn softmax(axis: usize, x: &Evaluated, r: &Rounding) -> Evaluated {
    let shape = x.ty().shape();
    let strides = dense_strides(shape);
    let (length, stride) = (shape[axis] as usize, strides[axis] as usize);
    let mut result = vec![Num::exact(0.0); x.ty().elems() as usize];
    // The first elements of all rows along the axis.
    let mut starts = shape.to_vec();
    starts[axis] = 1;
    let mut row = Vec::with_capacity(length);
    for start in Offsets::new(&starts, strides, 0) {
        row.clear();
        row.extend((0..length).map(|i| x.num(start + i * stride)));
        softmax_row(&mut row, r);
        for (i, &y) in row.iter().enumerate() {
            result[start + i * stride] = y;
        }
    }
    Evaluated::from_nums(x.ty().clone(), result)
}

/// `1/√x` for a positive operand, as a root and a division or as one function.
fn inverse_sqrt(x: Num, r: &Rounding) -> Num {
    let v = 1.0 / x.v.sqrt();
    if x.is_undetermined() || (x.e > 0.0 && x.low() <= 0.0) {
        return Num::undetermined(v);
    }
    // Steepest at the lower end.
    let propagated = if x.e == 0.0 { 0.0 } else { 1.0 / x.low().sqrt() - v };
    r.settle(v, propagated, FUNCTION)
}

/// Rows of `n` elements. The mean is a sum, deviations are differences, and the variance is the mean of their squares,
/// as two passes or Welford's update compute it; `E[x²] - E[x]²` cancels and is no correct evaluation. Each step is
/// bounded by the arithmetic of [`Num`].
pub(super) fn layer_norm(axis: usize, epsilon: f32, [x, scale, bias]: [&Evaluated; 3], r: &Rounding) -> Evaluated {
    let length = x.ty().shape()[axis..].iter().product::<u64>() as usize;
    let n = length as f64;
    let mut result = Vec::with_capacity(x.ty().elems() as usize);
    let mut deviations = Vec::with_capacity(length);
    for start in (0..x.ty().elems() as usize).step_by(length.max(1)) {
        let mut sum = Sum::EMPTY;
        for i in 0..length {
            sum.add(x.num(start + i), r);
        }
        let mean = sum.mean(n, r);
        deviations.clear();
        deviations.extend((0..length).map(|i| r.sub(x.num(start + i), mean)));
        let mut squares = Sum::EMPTY;
        for &d in &deviations {
            squares.add(r.mul(d, d), r);
        }
        let variance = squares.mean(n, r);
        let inverse = inverse_sqrt(r.add(variance, Num::exact(f64::from(epsilon))), r);
        for (i, &d) in deviations.iter().enumerate() {
            result.push(r.add(r.mul(r.mul(d, inverse), scale.num(i)), bias.num(i)));
        }
    }
    Evaluated::from_nums(x.ty().clone(), result)
}

/// `x·a + (bias - mean·a)` with `a = scale/√(variance + ε)`. A pass may compute the parenthesis beforehand, so `x·a` and
/// `mean·a` are bounded as separate terms of a sum, which also bounds the difference taken first.
pub(super) fn batch_norm(epsilon: f32, x: &Evaluated, parameters: [&Evaluated; 4], r: &Rounding) -> Evaluated {
    let [scale, bias, mean, variance] = parameters;
    let shape = x.ty().shape();
    let inner = shape[2..].iter().product::<u64>() as usize;
    let channels = shape[1] as usize;
    let factors: Vec<(Num, Num)> = (0..channels)
        .map(|c| {
            let inverse = inverse_sqrt(r.add(variance.num(c), Num::exact(f64::from(epsilon))), r);
            let factor = r.mul(inverse, scale.num(c));
            (factor, r.mul(mean.num(c), factor))
        })
        .collect();
    let elements = (0..x.ty().elems() as usize).map(|i| {
        let c = i / inner % channels;
        let (factor, shift) = factors[c];
        let mut sum = Sum::EMPTY;
        sum.add(r.mul(x.num(i), factor), r);
        sum.add(Num { v: -shift.v, e: shift.e }, r);
        sum.add(bias.num(c), r);
        sum.total(3.0, 1.0, r)
    });
    Evaluated::from_nums(x.ty().clone(), elements)
}
