//! `exp`, `tanh` and `sigmoid`: all three are an `e^y` inside.
//!
//! `y = n ln 2 + f` with `n` an integer and `|f| <= ln 2 / 2`; then `e^y = 2^n e^f`. `n` is found by adding a constant so large
//! that the sum is rounded to an integer, whose bits are then shifted to where exponents stand.

use super::{Code, MAGIC};
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

/// `y` reduced: `bits` of a float whose low bits are `n` plus a bias, and `f`.
struct Reduced {
    bits: ExprRef,
    f: ExprRef,
}

impl Code {
    /// Reduces `y`, and adds `bias` to the integer in `bits`.
    fn reduce(&mut self, y: ExprRef, bias: f32) -> Reduced {
        let magic = self.f(MAGIC + bias);
        let shifted = self.fma_by(y, std::f32::consts::LOG2_E, magic);
        let n = self.sub(shifted, magic);
        let f = self.fma_by(n, -LN2_HIGH, y);
        let f = self.fma_by(n, -LN2_LOW, f);
        Reduced { bits: self.bits(shifted), f }
    }

    /// `e^f` for a reduced argument.
    fn exp_reduced(&mut self, f: ExprRef) -> ExprRef {
        let [c2, c3, c4, c5, c6] = EXP;
        self.polynomial(f, &[1.0, 1.0, c2, c3, c4, c5, c6])
    }

    /// `e^y`.
    pub(super) fn exp(&mut self, y: ExprRef) -> ExprRef {
        self.exp_of_sum(y, None)
    }

    /// `e^(y + low)`, where `low` is much smaller than `y`.
    pub(super) fn exp_of_sum(&mut self, y: ExprRef, low: Option<ExprRef>) -> ExprRef {
        // Beyond these bounds the result is infinite or 0 anyway.
        let y = self.at_most(y, 89.0);
        let y = self.at_least(y, -104.0);
        // With a bias of 2 * 127, both halves of `n` become biased exponents by shifting. The bits of the magic number
        // above the nine that count are shifted out.
        let Reduced { bits, f } = self.reduce(y, 254.0);
        let f = match low {
            Some(low) => self.add(f, low),
            None => f,
        };
        let power = self.exp_reduced(f);
        // 2^n may be beyond the exponents of a float while the result is not (a subnormal one), so it is multiplied in two
        // steps, of which the first is exact.
        let half = self.shr(bits, 1);
        let rest = self.binary(ScalarBinary::Sub, bits, half);
        let (half, rest) = (self.shl(half, 23), self.shl(rest, 23));
        let (half, rest) = (self.float(half), self.float(rest));
        let scaled = self.mul(power, half);
        self.mul(scaled, rest)
    }

    /// `tanh x = -(e^-2a - 1) / (e^-2a + 1)` with the sign of `x`, where `a = |x|`.
    ///
    /// With `t = e^-2a - 1` that is `-t / (t + 2)`, which is accurate for small `a` too, if `t` is.
    pub(super) fn tanh(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        // 1 - tanh(9.1) is below a quarter of a unit in the last place.
        let a = self.at_most(a, 9.1);
        let y = self.scale(a, -2.0);
        // A bias of 127 makes the shifted bits 2^n.
        let Reduced { bits, f } = self.reduce(y, 127.0);
        let q = self.polynomial(f, &EXPM1);
        let square = self.mul(f, f);
        let p = self.fma(square, q, f);
        let power = self.shl(bits, 23);
        let power = self.float(power);
        // 2^n (1 + p) - 1
        let minus_one = self.f(-1.0);
        let power_less_one = self.add(power, minus_one);
        let t = self.fma(power, p, power_less_one);
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
        let y = self.at_least(y, -104.0);
        // No power is above 1, so 2^(n + 64) is always a float; 2^-64 follows as a factor, for subnormal results.
        let Reduced { bits, f } = self.reduce(y, 127.0 + 64.0);
        let power = self.exp_reduced(f);
        let scale = self.shl(bits, 23);
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
