//! `sin` and `cos`.
//!
//! `x = n pi/2 + f` with `|f| <= pi/4`. The low bits of `n` say which of the two polynomials in `f` it is, and its sign.

use super::{Code, Format};
use crate::tile::expr::{ExprRef, ScalarBinary};

/// `pi/2` in three parts. With fused multiply-add, the first subtraction is exact: `n` times the part is a multiple of 2^-23,
/// as `x` is, and the difference is small.
const FUSED_PARTS: [f32; 3] = [1.570_796_4, -4.371_139e-8, -1.715_124_3e-15];

/// `pi/2` in five parts, of which the first four have 8 bits: products with `n` below 2^16 are exact.
const SHORT_PARTS: [f32; 5] = [
    f32::from_bits(0x3fc9_0000),
    f32::from_bits(0x39fd_0000),
    f32::from_bits(0x35aa_0000),
    f32::from_bits(0x3088_0000),
    f32::from_bits(0x2c34_611a),
];

/// `(sin f - f) / f^3` in powers of `f^2`, relative error 2^-27.9.
const SIN: [f32; 3] = [f32::from_bits(0xbe2a_aaa3), f32::from_bits(0x3c08_83bb), f32::from_bits(0xb94c_a97d)];

/// `(cos f - 1 + f^2 / 2) / f^4` in powers of `f^2`, relative error 2^-33.
const COS: [f32; 3] = [f32::from_bits(0x3d2a_aaa5), f32::from_bits(0xbab6_0614), f32::from_bits(0x37cc_f406)];

/// `pi/2` in four parts, of which the first three have 33 bits: products with `n` below 2^20 are exact.
const PARTS_DOUBLE: [f64; 4] = [
    f64::from_bits(0x3ff9_21fb_5440_0000),
    f64::from_bits(0x3dd0_b461_1a60_0000),
    f64::from_bits(0x3ba3_198a_2e00_0000),
    f64::from_bits(0x397b_839a_2520_49c1),
];

/// [`SIN`] in binary64: 2^-56.5.
const SIN_DOUBLE: [f64; 6] = [
    -0.1666666666666663,
    0.008333333333322063,
    -0.0001984126982954276,
    2.7557313604566113e-06,
    -2.5050745042607483e-08,
    1.5896067726840965e-10,
];

/// [`COS`] in binary64: 2^-59.4.
const COS_DOUBLE: [f64; 6] = [
    0.041666666666666595,
    -0.0013888888888872975,
    2.4801587288800014e-05,
    -2.755731416397553e-07,
    2.0875698708665433e-09,
    -1.1358423534256258e-11,
];

impl Code {
    /// Sine of an angle in radians.
    pub(super) fn sin(&mut self, x: ExprRef) -> ExprRef {
        self.quadrants(x, 0)
    }

    /// Cosine of an angle in radians.
    pub(super) fn cos(&mut self, x: ExprRef) -> ExprRef {
        self.quadrants(x, 1)
    }

    /// `sin(x + quadrants * pi/2)`.
    fn quadrants(&mut self, x: ExprRef, quadrants: i32) -> ExprRef {
        let magic = self.f(self.format.magic());
        let two_over_pi = match self.format {
            Format::Single => f64::from(std::f32::consts::FRAC_2_PI),
            Format::Double => std::f64::consts::FRAC_2_PI,
        };
        let shifted = self.fma_by(x, two_over_pi, magic);
        let n = self.sub(shifted, magic);
        let parts: Vec<f64> = match (self.format, self.fused) {
            (Format::Single, true) => FUSED_PARTS.map(f64::from).to_vec(),
            (Format::Single, false) => SHORT_PARTS.map(f64::from).to_vec(),
            (Format::Double, _) => PARTS_DOUBLE.to_vec(),
        };
        let f = parts.iter().fold(x, |f, &part| self.fma_by(n, -part, f));
        let square = self.mul(f, f);
        let mut cosine = vec![1.0, -0.5];
        let q = match self.format {
            Format::Single => {
                cosine.extend(COS.map(f64::from));
                self.polynomial(square, &SIN)
            }
            Format::Double => {
                cosine.extend(COS_DOUBLE);
                self.polynomial(square, &SIN_DOUBLE)
            }
        };
        let cube = self.mul(square, f);
        let sin = self.fma(cube, q, f);
        let cos = self.polynomial(square, &cosine);
        let mut bits = self.bits(shifted);
        if quadrants != 0 {
            let quadrants = self.i(i64::from(quadrants));
            bits = self.add(bits, quadrants);
        }
        let (one, two, zero) = (self.i(1), self.i(2), self.i(0));
        let odd = self.and(bits, one);
        let even = self.eq(odd, zero);
        let magnitude = self.select(even, sin, cos);
        let negative = self.and(bits, two);
        let sign = self.shl(negative, self.format.width() - 2);
        let magnitude = self.bits(magnitude);
        let y = self.binary(ScalarBinary::Xor, magnitude, sign);
        let y = self.float(y);
        // Where the reduction has lost all bits, at least the bounds hold.
        let y = self.at_most(y, 1.0);
        self.at_least(y, -1.0)
    }
}
