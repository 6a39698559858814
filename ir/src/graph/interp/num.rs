//! One floating-point element with its error bound, and elementary arithmetic on such pairs.

use super::ErrorModel;
use crate::types::DType;

/// A value and how far a correct evaluation may lie from it. Infinities and NaN with a finite bound are certain; their
/// bound is then 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Num {
    /// The value.
    pub(super) v: f64,
    /// The error bound; infinite where the result is undetermined.
    pub(super) e: f64,
}

impl Num {
    pub(super) fn exact(v: f64) -> Self {
        Self { v, e: 0.0 }
    }

    pub(super) fn undetermined(v: f64) -> Self {
        Self { v, e: f64::INFINITY }
    }

    pub(super) fn is_undetermined(self) -> bool {
        self.e == f64::INFINITY
    }

    pub(super) fn low(self) -> f64 {
        self.v - self.e
    }

    pub(super) fn high(self) -> f64 {
        self.v + self.e
    }

    /// Whether 0 is within the bound.
    fn may_be_zero(self) -> bool {
        self.v.abs() <= self.e
    }
}

/// Distance of two numbers; 0 for equal infinities.
pub(super) fn distance(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { (a - b).abs() }
}

/// Roundings that a function of 4 ULP makes: an ULP is at most twice the unit roundoff of the value.
pub(super) const FUNCTION: f64 = 8.0;

/// How an element type rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    dtype: DType,
    model: ErrorModel,
    /// Unit roundoff, with a little more for the rounding of the reference itself, and a margin for independent errors.
    pub(super) u: f64,
    /// Absolute error near 0, where the relative model ends.
    pub(super) eta: f64,
    /// Numbers of this magnitude and more round to infinity.
    pub(super) overflow: f64,
    /// Integers up to this magnitude are representable.
    pub(super) integers: f64,
}

impl Rounding {
    pub(super) fn new(dtype: DType, model: ErrorModel) -> Self {
        let power = |n: i32| libm::ldexp(1.0, n);
        // Precision in bits, largest exponent, exponent of the error near 0. Single precision allows results below the
        // smallest normal number to be flushed; the half format has so few of them that it may not.
        let (precision, max_exponent, small) = match dtype {
            DType::F16 => (11, 16, -24),
            DType::BF16 => (8, 128, -126),
            DType::F64 => (53, 1023, -1022),
            DType::F32
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool => (24, 128, -126),
        };
        // The reference rounds like `f64`, so there both errors are of one size.
        let u = if dtype == DType::F64 { power(-52) } else { power(-precision) * (1.0 + power(-16)) };
        let u = if model == ErrorModel::Independent { 4.0 * u } else { u };
        let overflow =
            if dtype == DType::F64 { f64::MAX } else { power(max_exponent) - power(max_exponent - precision - 1) };
        Self { dtype, model, u, eta: power(small), overflow, integers: power(precision) }
    }

    /// `γₙ = nu/(1 - nu)`: the relative error of `n` roundings.
    pub(super) fn gamma(&self, n: f64) -> f64 {
        let nu = n * self.u;
        if nu < 1.0 { nu / (1.0 - nu) } else { f64::INFINITY }
    }

    /// How the error of one term enters a sum: itself, or its square.
    pub(super) fn term(&self, e: f64) -> f64 {
        match self.model {
            ErrorModel::WorstCase => e,
            ErrorModel::Independent => e * e,
        }
    }

    /// How far one term's own rounding and its share of the sum's move a sum of `n` terms, relative to the term, before
    /// [`Rounding::term`]. In the worst case that is `γₙ`. A sum of independent terms drifts by `√n` times its terms'
    /// root mean square, and each of the `n` roundings is relative to that.
    pub(super) fn sum_factor(&self, n: f64) -> f64 {
        match self.model {
            ErrorModel::WorstCase => self.gamma(n),
            ErrorModel::Independent => n.sqrt() * self.u,
        }
    }

    /// The bound of a sum `v` of `n` terms from the sum of what [`Rounding::term`] gave. Where the terms are not of mean
    /// 0, partial sums grow in proportion to `v` as well, and `n` independent roundings are relative to them.
    pub(super) fn sum_error(&self, terms: f64, v: f64, n: f64) -> f64 {
        match self.model {
            ErrorModel::WorstCase => terms,
            ErrorModel::Independent => terms.sqrt() + n.sqrt() * self.u * v.abs(),
        }
    }

    /// How errors combine.
    pub(super) fn model(&self) -> ErrorModel {
        self.model
    }

    /// How operators on this type round inside: those on 16-bit floats compute in binary32.
    pub(super) fn computing(&self) -> Self {
        match self.dtype {
            DType::F16 | DType::BF16 => self.of(DType::F32),
            _ => *self,
        }
    }

    /// A result that is rounded to the type, or is not.
    pub(super) fn stored(&self, x: Num) -> Num {
        let size = x.v.abs() + x.e;
        if x.is_undetermined() || !x.v.is_finite() || (x.e == 0.0 && self.holds(x.v)) {
            return x;
        }
        if size >= self.overflow { Num::undetermined(x.v) } else { Num { v: x.v, e: x.e + self.u * size + self.eta } }
    }

    /// The same model for another element type.
    pub(super) fn of(&self, dtype: DType) -> Self {
        Self::new(dtype, self.model)
    }

    /// Whether the type holds the number exactly.
    fn holds(&self, v: f64) -> bool {
        round_to(self.dtype, v) == v
    }

    /// The result of an operation whose exact value is within `propagated` of `v` for all operands within their bounds,
    /// and which then errs relatively by `roundings` unit roundoffs.
    pub(super) fn settle(&self, v: f64, propagated: f64, roundings: f64) -> Num {
        if propagated.is_nan() || propagated == f64::INFINITY {
            return Num::undetermined(v);
        }
        if !v.is_finite() {
            return Num { v, e: if propagated == 0.0 { 0.0 } else { f64::INFINITY } };
        }
        let high = v.abs() + propagated;
        let factor = 1.0 + (roundings - 1.0).max(0.0) * self.u;
        if high * factor >= self.overflow {
            let certain = (v.abs() - propagated) / factor >= self.overflow;
            return if certain { Num::exact(f64::INFINITY.copysign(v)) } else { Num::undetermined(v) };
        }
        Num { v, e: propagated + high * roundings * self.u + self.eta }
    }

    /// Like [`Rounding::settle`] for an operation that IEEE 754 rounds correctly. If its operands are certain and the
    /// type holds the result, it is exact.
    pub(super) fn correct(&self, v: f64, propagated: f64) -> Num {
        if propagated == 0.0 && self.holds(v) { Num::exact(v) } else { self.settle(v, propagated, 1.0) }
    }

    /// A monotone function with `roundings` unit roundoffs: the bound follows from the ends of the operand's interval.
    pub(super) fn monotone(&self, x: Num, f: impl Fn(f64) -> f64, roundings: f64) -> Num {
        let v = f(x.v);
        if x.is_undetermined() {
            return Num::undetermined(v);
        }
        let propagated = if x.e == 0.0 { 0.0 } else { distance(f(x.high()), v).max(distance(f(x.low()), v)) };
        self.settle(v, propagated, roundings)
    }

    /// A monotone function whose results are representable, so that nothing rounds.
    pub(super) fn monotone_exact(&self, x: Num, f: impl Fn(f64) -> f64) -> Num {
        let v = f(x.v);
        if x.is_undetermined() {
            return Num::undetermined(v);
        }
        Num { v, e: if x.e == 0.0 { 0.0 } else { distance(f(x.high()), v).max(distance(f(x.low()), v)) } }
    }

    pub(super) fn add(&self, a: Num, b: Num) -> Num {
        let (v, propagated) = (a.v + b.v, a.e + b.e);
        if !(a.v.is_finite() && b.v.is_finite()) && propagated < f64::INFINITY {
            return Num::exact(v);
        }
        self.correct(v, propagated)
    }

    pub(super) fn sub(&self, a: Num, b: Num) -> Num {
        self.add(a, Num { v: -b.v, e: b.e })
    }

    /// `(a ± ea)(b ± eb)` differs from `ab` by at most `|a|eb + |b|ea + ea eb`.
    pub(super) fn mul(&self, a: Num, b: Num) -> Num {
        let v = a.v * b.v;
        if a.is_undetermined() || b.is_undetermined() {
            return Num::undetermined(v);
        }
        if !(a.v.is_finite() && b.v.is_finite()) {
            // An infinity times an uncertain number is certain if that number's sign is.
            let open = [a, b].iter().any(|x| x.e > 0.0 && x.may_be_zero());
            return if open { Num::undetermined(v) } else { Num::exact(v) };
        }
        self.correct(v, a.v.abs() * b.e + b.v.abs() * a.e + a.e * b.e)
    }

    /// `a'/b' - a/b = ((a' - a) - (a/b)(b' - b))/b'`, so the quotient differs by at most `(ea + |a/b| eb)/(|b| - eb)`.
    pub(super) fn div(&self, a: Num, b: Num) -> Num {
        let v = a.v / b.v;
        let sign_open = |x: Num| x.e > 0.0 && x.may_be_zero();
        if a.is_undetermined() || b.is_undetermined() || sign_open(b) {
            return Num::undetermined(v);
        }
        if b.v == 0.0 || !(a.v.is_finite() && b.v.is_finite()) {
            return if sign_open(a) && b.v == 0.0 { Num::undetermined(v) } else { Num::exact(v) };
        }
        let propagated = if a.e + b.e == 0.0 { 0.0 } else { (a.e + v.abs() * b.e) / (b.v.abs() - b.e) };
        self.correct(v, propagated)
    }

    pub(super) fn sqrt(&self, x: Num) -> Num {
        if x.is_undetermined() || (x.e > 0.0 && x.low() < 0.0) {
            return Num::undetermined(x.v.sqrt());
        }
        // The square root is steepest at the lower end.
        let v = x.v.sqrt();
        self.correct(v, if x.e == 0.0 { 0.0 } else { v - x.low().sqrt() })
    }

    /// The larger, which is as uncertain as the ends of both intervals are. The larger of a NaN is unspecified.
    pub(super) fn max(&self, a: Num, b: Num) -> Num {
        if a.v.is_nan() || b.v.is_nan() || a.is_undetermined() || b.is_undetermined() {
            return Num::undetermined(a.v.max(b.v));
        }
        let v = a.v.max(b.v);
        Num { v, e: distance(a.high().max(b.high()), v).max(distance(a.low().max(b.low()), v)) }
    }

    pub(super) fn min(&self, a: Num, b: Num) -> Num {
        let negated = |x: Num| Num { v: -x.v, e: x.e };
        negated(self.max(negated(a), negated(b)))
    }
}

/// The number of that element type nearest to a float; the float itself for integer types.
pub(super) fn round_to(dtype: DType, v: f64) -> f64 {
    match dtype {
        DType::F16 => half::f16::from_f64(v).to_f64(),
        DType::BF16 => half::bf16::from_f64(v).to_f64(),
        DType::F32 => f64::from(v as f32),
        DType::F64
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F32: fn() -> Rounding = || Rounding::new(DType::F32, ErrorModel::WorstCase);

    fn num(v: f64, e: f64) -> Num {
        Num { v, e }
    }

    #[test]
    fn constants_of_the_types() {
        assert_eq!(F32().overflow, libm::ldexp(1.0, 128) - libm::ldexp(1.0, 103));
        assert_eq!((F32().overflow * (1.0 - 1e-16)) as f32, f32::MAX);
        assert_eq!(F32().overflow as f32, f32::INFINITY);
        let half = F32().of(DType::F16);
        assert_eq!(half::f16::from_f64(half.overflow), half::f16::INFINITY);
        assert_eq!(half::f16::from_f64(half.overflow - 1.0), half::f16::MAX);
        let brain = F32().of(DType::BF16);
        assert_eq!(half::bf16::from_f64(brain.overflow), half::bf16::INFINITY);
        assert_eq!(half::bf16::from_f64(brain.overflow * (1.0 - 1e-9)), half::bf16::MAX);
    }

    #[test]
    fn exact_results_stay_exact() {
        let r = F32();
        assert_eq!(r.sub(num(1.0, 0.0), num(1.0, 0.0)), num(0.0, 0.0));
        assert_eq!(r.mul(num(0.0, 0.0), num(-f64::from(f32::MAX), 0.0)).e, 0.0);
        assert_eq!(r.add(num(-f64::from(f32::MAX), 0.0), num(-10.0, 0.0)), num(-f64::from(f32::MAX), 0.0));
        assert!(r.div(num(1.0, 0.0), num(3.0, 0.0)).e > 0.0);
        assert_eq!(r.sqrt(num(4.0, 0.0)), num(2.0, 0.0));
    }

    #[test]
    fn infinities_and_nan_are_certain_or_undetermined() {
        let r = F32();
        let inf = f64::INFINITY;
        assert_eq!(r.add(num(-inf, 0.0), num(3.0, 0.5)), num(-inf, 0.0));
        assert!(r.add(num(-inf, 0.0), num(inf, 0.0)).v.is_nan());
        assert_eq!(r.mul(num(inf, 0.0), num(-3.0, 0.5)), num(-inf, 0.0));
        assert_eq!(r.mul(num(inf, 0.0), num(0.1, 0.5)).e, inf);
        assert_eq!(r.div(num(1.0, 0.1), num(0.0, 0.0)), num(inf, 0.0));
        assert_eq!(r.div(num(1.0, 0.0), num(0.1, 0.2)).e, inf);
        assert_eq!(r.div(num(1.0, 0.3), num(inf, 0.0)), num(0.0, 0.0));
        assert_eq!(r.mul(num(1e30, 0.0), num(1e30, 0.0)), num(inf, 0.0));
        assert_eq!(r.mul(num(1e19, 0.0), num(1e19, 1e18)).e, 1e37 + 1.1e38 * r.u + r.eta);
        assert_eq!(r.mul(num(3e19, 1e19), num(1e19, 0.0)).e, inf);
        assert_eq!(r.max(num(f64::NAN, 0.0), num(1.0, 0.0)).e, inf);
        assert_eq!(r.max(num(-inf, 0.0), num(1.0, 0.25)), num(1.0, 0.25));
    }

    #[test]
    fn bounds_hold_the_ends() {
        let r = F32();
        for (a, b) in [(num(2.0, 0.5), num(-3.0, 0.25)), (num(-0.5, 1.0), num(4.0, 0.5))] {
            for (x, y) in [(a.low(), b.low()), (a.low(), b.high()), (a.high(), b.low()), (a.high(), b.high())] {
                for (result, exact) in [
                    (r.add(a, b), x + y),
                    (r.sub(a, b), x - y),
                    (r.mul(a, b), x * y),
                    (r.div(a, b), x / y),
                    (r.max(a, b), x.max(y)),
                    (r.min(a, b), x.min(y)),
                ] {
                    assert!((exact - result.v).abs() <= result.e, "{a:?} {b:?} {result:?} {exact}");
                }
            }
        }
        let root = r.sqrt(num(4.0, 3.0));
        assert!((1.0 - root.v).abs() <= root.e && root.e < 1.001);
    }
}
