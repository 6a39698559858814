//! `atan`.
//!
//! The magnitude is reduced to at most `tan(pi/8)` by `atan a = pi/4 + atan((a - 1)/(a + 1))` and
//! `atan a = pi/2 - atan(1/a)`, by one division for both.

use super::{Code, Format};
use crate::tile::expr::ExprRef;

/// `(atan(t) - t) / t^3` in powers of `t^2` up to `tan(pi/8)`; the function has a relative error of 2^-30.4.
const ATAN: [f32; 5] = [
    f32::from_bits(0xbeaa_aaa5),
    f32::from_bits(0x3e4c_c8f1),
    f32::from_bits(0xbe11_dccf),
    f32::from_bits(0x3dd9_11ea),
    f32::from_bits(0xbd79_70d8),
];

/// [`ATAN`] in binary64: 2^-58.2.
const ATAN_DOUBLE: [f64; 12] = [
    -0.33333333333333326,
    0.19999999999997642,
    -0.14285714285384776,
    0.11111111087995255,
    -0.09090908138550192,
    0.0769228263575464,
    -0.06666225104874532,
    0.0587700704824987,
    -0.05218317772082715,
    0.04503227959158668,
    -0.03346762463587913,
    0.015188819689879693,
];

impl Code {
    /// Arc tangent.
    pub(super) fn atan(&mut self, x: ExprRef) -> ExprRef {
        let a = self.abs(x);
        let (zero, one, minus_one) = (self.f(0.0), self.f(1.0), self.f(-1.0));
        // tan(pi/8) and tan(3 pi/8).
        let (low, high) = (self.f(std::f64::consts::SQRT_2 - 1.0), self.f(std::f64::consts::SQRT_2 + 1.0));
        let middle = self.lt(low, a);
        let far = self.lt(high, a);
        let less = self.add(a, minus_one);
        let more = self.add(a, one);
        let numerator = self.select(middle, less, a);
        let numerator = self.select(far, minus_one, numerator);
        let denominator = self.select(middle, more, one);
        let denominator = self.select(far, a, denominator);
        let t = self.div(numerator, denominator);
        // pi/2 in two parts; halves of them are those of pi/4.
        let (half_turn, rest) = match self.format {
            Format::Single => (f64::from(std::f32::consts::FRAC_PI_2), -4.371_139_000_186_241e-8),
            Format::Double => (std::f64::consts::FRAC_PI_2, 6.123_233_995_736_766e-17),
        };
        let mut parts = [half_turn, rest].map(|part| {
            let (whole, half) = (self.f(part), self.f(part / 2.0));
            let near = self.select(middle, half, zero);
            self.select(far, whole, near)
        });
        let square = self.mul(t, t);
        let cube = self.mul(square, t);
        let q = match self.format {
            Format::Single => self.polynomial(square, &ATAN),
            Format::Double => self.polynomial(square, &ATAN_DOUBLE),
        };
        // Small terms first.
        parts[1] = self.fma(cube, q, parts[1]);
        let low = self.add(parts[1], t);
        let magnitude = self.add(parts[0], low);
        self.with_sign(magnitude, x)
    }
}
