//! `exp`, `expm1`, `tanh` and `sigmoid`: all of them are an `e^y` inside.
//!
//! `y = n ln 2 + f` with `n` an integer and `|f| <= ln 2 / 2`; then `e^y = 2^n e^f`. `n` is found by adding a constant so large
//! that the sum is rounded to an integer, whose bits are then shifted to where exponents stand.

use super::{Code, Format};
use crate::tile::expr::{ExprRef, ScalarBinary};

/// `ln 2` in two parts; the first has 15 bits, so that its product with `n` is exact.
pub(super) const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
/// The rest of `ln 2`.
pub(super) const LN2_LOW: f32 = 1.428_606_8e-6;

/// `(e^f - 1 - f) / f^2`; `e^f` has a relative error of 2^-28.2.
const EXP: [f32; 5] = [
    f32::from_bits(0x3eff_fffe),
    f32::from_bits(0x3e2a_aa46),
    f32::from_bits(0x3d2a_ac2c),
    f32::from_bits(0x3c09_1ed3),
    f32::from_bits(0x3ab5_60a1),
];

/// The same, fitted to the relative error of `e^f - 1`: 2^-26.1.
const EXPM1: [f32; 5] = [
    f32::from_bits(0x3eff_ffff),
    f32::from_bits(0x3e2a_aa55),
    f32::from_bits(0x3d2a_abcd),
    f32::from_bits(0x3c09_161c),
    f32::from_bits(0x3ab5_6028),
];

/// [`EXP`] in binary64: 2^-56.3.
const EXP_DOUBLE: [f64; 10] = [
    0.5000000000000011,
    0.1666666666666641,
    0.04166666666652973,
    0.00833333333349498,
    0.001388888894375879,
    0.0001984126950576047,
    2.480149295080446e-05,
    2.755758681881435e-06,
    2.7630305859655486e-07,
    2.50000138317822e-08,
];

/// [`EXPM1`] in binary64: 2^-59.6.
const EXPM1_DOUBLE: [f64; 11] = [
    0.5,
    0.16666666666666677,
    0.041666666666666505,
    0.008333333333321653,
    0.0013888888888962617,
    0.000198412698860735,
    2.480158717220584e-05,
    2.7557244254062392e-06,
    2.755740279366568e-07,
    2.510902452950259e-08,
    2.0875324233829476e-09,
];

/// `ln 2` in two parts in binary64; the first has 32 bits, so that its product with `n` is exact.
pub(super) const LN2_HIGH_DOUBLE: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
/// The rest of `ln 2`.
pub(super) const LN2_LOW_DOUBLE: f64 = 1.908_214_929_270_587_7e-10;

/// `y` reduced: `bits` of a float whose low bits are `n` plus a bias, and `f`.
struct Reduced {
    bits: ExprRef,
    f: ExprRef,
}

impl Code {
    /// Reduces `y`, and adds `bias` to the integer in `bits`.
    fn reduce(&mut self, y: ExprRef, bias: i32) -> Reduced {
        let magic = self.f(self.format.magic() + f64::from(bias));
        let shifted = match self.format {
            Format::Single => self.fma_by(y, std::f32::consts::LOG2_E, magic),
            Format::Double => self.fma_by(y, std::f64::consts::LOG2_E, magic),
        };
        let n = self.sub(shifted, magic);
        let (high, low) = self.ln2();
        let f = self.fma_by(n, -high, y);
        let f = self.fma_by(n, -low, f);
        Reduced { bits: self.bits(shifted), f }
    }

    /// `ln 2` in two parts.
    pub(super) fn ln2(&self) -> (f64, f64) {
        match self.format {
            Format::Single => (f64::from(LN2_HIGH), f64::from(LN2_LOW)),
            Format::Double => (LN2_HIGH_DOUBLE, LN2_LOW_DOUBLE),
        }
    }

    /// `e^f` for a reduced argument.
    fn exp_reduced(&mut self, f: ExprRef) -> ExprRef {
        let mut coefficients = vec![1.0, 1.0];
        match self.format {
            Format::Single => coefficients.extend(EXP.map(f64::from)),
            Format::Double => coefficients.extend(EXP_DOUBLE),
        }
        self.polynomial(f, &coefficients)
    }

    /// `e^y`.
    pub(super) fn exp(&mut self, y: ExprRef) -> ExprRef {
        self.exp_of_sum(y, None)
    }

    /// `e^(y + low)`, where `low` is much smaller than `y`.
    pub(super) fn exp_of_sum(&mut self, y: ExprRef, low: Option<ExprRef>) -> ExprRef {
        // Beyond these bounds the result is infinite or 0 anyway.
        let (largest, smallest) = match self.format {
            Format::Single => (89.0, -104.0),
            Format::Double => (710.0, -746.0),
        };
        let y = self.at_most(y, largest);
        let y = self.at_least(y, smallest);
        // With twice the bias of exponents, both halves of `n` become biased exponents by shifting. The bits of the magic
        // number above those that count are shifted out.
        let Reduced { bits, f } = self.reduce(y, 2 * self.format.bias());
        let f = match low {
            Some(low) => self.add(f, low),
            None => f,
        };
        let power = self.exp_reduced(f);
        // 2^n may be beyond the exponents of a float while the result is not (a subnormal one), so it is multiplied in two
        // steps, of which the first is exact.
        let half = self.shr(bits, 1);
        let rest = self.binary(ScalarBinary::Sub, bits, half);
        let mantissa = self.format.mantissa();
        let (half, rest) = (self.shl(half, mantissa), self.shl(rest, mantissa));
        let (half, rest) = (self.float(half), self.float(rest));
        let scaled = self.mul(power, half);
        self.mul(scaled, rest)
    }

    /// `e^y - 1` for `y` so small that `2^n` is a float.
    fn expm1_bounded(&mut self, y: ExprRef) -> ExprRef {
        // The bias of exponents makes the shifted bits 2^n.
        let Reduced { bits, f } = self.reduce(y, self.format.bias());
        let q = match self.format {
            Format::Single => self.polynomial(f, &EXPM1),
            Format::Double => self.polynomial(f, &EXPM1_DOUBLE),
        };
        let square = self.mul(f, f);
        let p = self.fma(square, q, f);
        let power = self.shl(bits, self.format.mantissa());
        let power = self.float(power);
        // 2^n (1 + p) - 1
        let minus_one = self.f(-1.0);
        let power_less_one = self.add(power, minus_one);
        self.fma(power, p, power_less_one)
    }

    /// `e^x - 1`.
    pub(super) fn expm1(&mut self, x: ExprRef) -> ExprRef {
        // From here on, the 1 is below a quarter of a unit in the last place, or all that is left.
        let bound = match self.format {
            Format::Single => 18.1,
            Format::Double => 38.2,
        };
        let y = self.at_most(x, bound);
        let y = self.at_least(y, -bound);
        let near = self.expm1_bounded(y);
        let far = self.exp(x);
        let limit = self.f(bound);
        let is_far = self.lt(limit, x);
        let result = self.select(is_far, far, near);
        let magnitude = self.abs(result);
        self.with_sign(magnitude, x)
    }

    /// `tanh x = -(e^-2a - 1) / (e^-2a + 1)` with the sign of `x`, where `a = |x|`.
    ///
    /// With `t = e^-2a - 1` that is `-t / (t + 2)`, which is accurate for small `a` too, if `t` is.
    pub(super) fn tanh(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        // From here on, 1 - tanh is below a quarter of a unit in the last place.
        let bound = match self.format {
            Format::Single => f64::from(9.1f32),
            Format::Double => 19.4,
        };
        let a = self.at_most(a, bound);
        let y = self.scale(a, -2.0);
        let t = self.expm1_bounded(y);
        let two = self.f(2.0);
        let denominator = self.add(t, two);
        let quotient = self.div(t, denominator);
        let magnitude = self.abs(quotient);
        self.with_sign(magnitude, x)
    }

    /// `1 / (1 + e^-x)`, with `s = e^-|x|`: `1 / (1 + s)`, times `s` for negative `x`.
    pub(super) fn sigmoid(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        let y = self.neg(a);
        let smallest = match self.format {
            Format::Single => -104.0,
            Format::Double => -746.0,
        };
        let y = self.at_least(y, smallest);
        // No power is above 1, so 2^(n + 64) is always a float; 2^-64 follows as a factor, for subnormal results.
        let Reduced { bits, f } = self.reduce(y, self.format.bias() + 64);
        let power = self.exp_reduced(f);
        let scale = self.shl(bits, self.format.mantissa());
        let scale = self.float(scale);
        let scaled = self.mul(power, scale);
        let s = self.scale(scaled, f32::from_bits((127 - 64) << 23));
        let one = self.f(1.0);
        let denominator = self.add(s, one);
        let positive = self.div(one, denominator);
        let negative = self.mul(s, positive);
        let zero = self.f(0.0);
        let below = self.lt(x, zero);
        self.select(below, negative, positive)
    }
}
