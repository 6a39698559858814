//! `log`, `log1p` and `pow`.
//!
//! `x = 2^e m` with `m` in `[sqrt(1/2), sqrt(2))`; then `log x = e ln 2 + log m`.

use super::{Code, Format};
use crate::tile::expr::{ExprRef, Inst, ScalarUnary};

/// `(log(1 + f) - f + f^2 / 2) / f^3`; the logarithm has a relative error of 2^-27.2.
const LOG: [f32; 8] = [
    f32::from_bits(0x3eaa_aaaa),
    f32::from_bits(0xbe80_0113),
    f32::from_bits(0x3e4c_d004),
    f32::from_bits(0xbe2a_3923),
    f32::from_bits(0x3e11_6d0c),
    f32::from_bits(0xbe06_c29a),
    f32::from_bits(0x3e02_adc9),
    f32::from_bits(0xbd9c_5b10),
];

/// `(log((1 + s) / (1 - s)) - 2 s) / s^3` in powers of `s^2`; the logarithm has a relative error of 2^-31.
const ATANH: [f32; 4] = [
    f32::from_bits(0x3f2a_aaaa),
    f32::from_bits(0x3ecc_cd3e),
    f32::from_bits(0x3e92_1c56),
    f32::from_bits(0x3e71_7eeb),
];

/// As [`ATANH`] in binary64, for the logarithm itself: 2^-59.1.
const LOG_DOUBLE: [f64; 7] = [
    0.6666666666666735,
    0.39999999999411073,
    0.28571428743309535,
    0.2222219846693633,
    0.18183570421002693,
    0.15313880654571047,
    0.14797783289874145,
];

/// [`ATANH`] in binary64: 2^-60.7.
const ATANH_DOUBLE: [f64; 10] = [
    0.6666666666666666,
    0.4,
    0.28571428571428203,
    0.22222222222325777,
    0.18181818165053906,
    0.15384617061190273,
    0.13333226340661844,
    0.11769066230886184,
    0.1041682225271526,
    0.11053548109679796,
];

impl Code {
    /// `x` as `2^e m`: the float `e`, and `m`. Not for zeros, infinities, NaN and negative numbers.
    fn split_exponent(&mut self, x: ExprRef) -> (ExprRef, ExprRef) {
        let mantissa = self.format.mantissa();
        let (smallest, sqrt_half) = match self.format {
            Format::Single => (f64::from(f32::MIN_POSITIVE), i64::from(std::f32::consts::FRAC_1_SQRT_2.to_bits())),
            Format::Double => (f64::MIN_POSITIVE, std::f64::consts::FRAC_1_SQRT_2.to_bits() as i64),
        };
        let smallest = self.f(smallest);
        let subnormal = self.lt(x, smallest);
        let larger = self.scale(x, libm::ldexp(1.0, mantissa));
        let normal = self.select(subnormal, larger, x);
        let bits = self.bits(normal);
        let sqrt_half = self.i(sqrt_half);
        let above = self.sub(bits, sqrt_half);
        let e = self.shr(above, mantissa);
        let exponent = self.shl(e, mantissa);
        let m = self.sub(bits, exponent);
        let m = self.float(m);
        let e = self.expr.push(Inst::Cast(self.format.float(), e));
        let (moved, kept) = (self.f(-f64::from(mantissa)), self.f(0.0));
        let correction = self.select(subnormal, moved, kept);
        (self.add(e, correction), m)
    }

    /// Natural logarithm.
    pub(super) fn log(&mut self, x: ExprRef) -> ExprRef {
        let (e, m) = self.split_exponent(x);
        let minus_one = self.f(-1.0);
        let f = self.add(m, minus_one);
        let square = self.mul(f, f);
        let (ln2_high, ln2_low) = self.ln2();
        // Small terms first.
        let low = self.scale(e, ln2_low);
        let low = match self.format {
            Format::Single => {
                let cube = self.mul(square, f);
                let q = self.polynomial(f, &LOG);
                let low = self.fma(cube, q, low);
                self.fma_by(square, -0.5, low)
            }
            // log m = f - f^2/2 + s (f^2/2 + s^2 q(s^2)) with s = f / (2 + f), as in fdlibm (Sun Microsystems, 1993).
            Format::Double => {
                let two = self.f(2.0);
                let d = self.add(f, two);
                let s = self.div(f, d);
                let s_square = self.mul(s, s);
                let q = self.polynomial(s_square, &LOG_DOUBLE);
                let half_square = self.scale(square, 0.5);
                let r = self.fma(s_square, q, half_square);
                let low = self.fma(s, r, low);
                self.sub(low, half_square)
            }
        };
        let rest = self.add(f, low);
        let mut y = self.fma_by(e, ln2_high, rest);
        // Infinity and NaN are their own logarithms.
        let infinity = self.f(f32::INFINITY);
        let finite = self.lt(x, infinity);
        y = self.select(finite, y, x);
        let zero = self.f(0.0);
        let is_zero = self.eq(x, zero);
        let minus_infinity = self.f(f32::NEG_INFINITY);
        y = self.select(is_zero, minus_infinity, y);
        let negative = self.lt(x, zero);
        let nan = self.f(f32::NAN);
        self.select(negative, nan, y)
    }

    /// `log(1 + x)`. The sum `u` rounds; what is lost, `x - (u - 1)`, is in the logarithm what it is relative to `u`.
    pub(super) fn log1p(&mut self, x: ExprRef) -> ExprRef {
        let (one, minus_one) = (self.f(1.0), self.f(-1.0));
        let u = self.add(x, one);
        let y = self.log(u);
        let whole = self.add(u, minus_one);
        let lost = self.sub(x, whole);
        let correction = self.div(lost, u);
        let corrected = self.add(y, correction);
        let infinity = self.f(f32::INFINITY);
        let finite = self.lt(x, infinity);
        let positive = self.lt(minus_one, x);
        let inside = self.and(finite, positive);
        let y = self.select(inside, corrected, y);
        let magnitude = self.abs(y);
        self.with_sign(magnitude, x)
    }

    /// `log x` as a sum of two floats, with a relative error of about 2^-31 (2^-63 in binary64). Arguments as for [`Code::split_exponent`].
    fn log_of_two_parts(&mut self, x: ExprRef) -> (ExprRef, ExprRef) {
        let (e, m) = self.split_exponent(x);
        // log m = log((1 + s) / (1 - s)) with s = f / (2 + f), as a sum too.
        let (minus_one, two) = (self.f(-1.0), self.f(2.0));
        let f = self.add(m, minus_one);
        let (d, d_low) = self.exact_sum(two, f);
        let s = self.div(f, d);
        let (product, error) = self.exact_product(s, d);
        // f - s (d + d_low), of which the first difference is exact.
        let rest = self.sub(f, product);
        let rest = self.sub(rest, error);
        let s_times = self.mul(s, d_low);
        let rest = self.sub(rest, s_times);
        let s_low = self.div(rest, d);
        let (high, low) = match self.format {
            Format::Single => {
                let square = self.mul(s, s);
                let cube = self.mul(square, s);
                let q = self.polynomial(square, &ATANH);
                let high = self.scale(s, 2.0);
                let low = self.scale(s_low, 2.0);
                (high, self.fma(cube, q, low))
            }
            Format::Double => self.series_of_two_parts(s, s_low),
        };
        // The first product is exact, and not smaller than 2 s unless it is 0.
        let (ln2_high, ln2_low) = self.ln2();
        let whole = self.scale(e, ln2_high);
        let (high, error) = self.exact_sum(whole, high);
        let low = self.add(low, error);
        let low = self.fma_by(e, ln2_low, low);
        self.exact_sum(high, low)
    }

    /// `2 s + s^3 q(s^2)` for `s + s_low` as a sum: exponents of binary64 multiply errors by up to 745, so the cube and the
    /// first coefficient have two parts as well.
    fn series_of_two_parts(&mut self, s: ExprRef, s_low: ExprRef) -> (ExprRef, ExprRef) {
        let (square, square_low) = self.exact_product(s, s);
        let twice = self.scale(s, 2.0);
        let square_low = self.fma(twice, s_low, square_low);
        let rest = self.polynomial(square, &ATANH_DOUBLE[1..]);
        let rest = self.mul(square, rest);
        // 2/3, of which the coefficient is the first part.
        let first = self.f(ATANH_DOUBLE[0]);
        let (q, q_low) = self.exact_sum(first, rest);
        let first_low = self.f(3.700_743_415_417_188e-17);
        let q_low = self.add(q_low, first_low);
        let (p, p_low) = self.exact_product(square, q);
        let p_low = self.fma(square, q_low, p_low);
        let p_low = self.fma(square_low, q, p_low);
        let (cube, cube_low) = self.exact_product(p, s);
        let cube_low = self.fma(p_low, s, cube_low);
        let cube_low = self.fma(p, s_low, cube_low);
        let (high, low) = self.exact_sum(twice, cube);
        let low = self.add(low, cube_low);
        let s_low = self.scale(s_low, 2.0);
        (high, self.add(low, s_low))
    }

    /// `a` to the power `b`; `exponent` is `b` if it is a constant.
    pub(super) fn pow(&mut self, a: ExprRef, b: ExprRef, exponent: Option<f64>) -> ExprRef {
        // What normalizations and activations use; one or two roundings.
        if exponent == Some(2.0) {
            return self.mul(a, a);
        }
        if exponent == Some(3.0) {
            let square = self.mul(a, a);
            return self.mul(square, a);
        }
        let (zero, one) = (self.f(0.0), self.f(1.0));
        let (infinity, minus_infinity) = (self.f(f32::INFINITY), self.f(f32::NEG_INFINITY));
        let magnitude = self.abs(a);
        let (log, log_low) = self.log_of_two_parts(magnitude);
        // From here on, a power is 0, 1 or infinite.
        let bound = match self.format {
            Format::Single => libm::ldexp(1.0, 32),
            Format::Double => libm::ldexp(1.0, 64),
        };
        let bounded = self.at_most(b, bound);
        let bounded = self.at_least(bounded, -bound);
        let (y, error) = self.exact_product(bounded, log);
        let low = self.fma(bounded, log_low, error);
        // Beyond, the power overflows or vanishes, and the low part may be large.
        let y_magnitude = self.abs(y);
        let bound = self.f(f64::from(self.format.bias() + 1));
        let small = self.lt(y_magnitude, bound);
        let low = self.select(small, low, zero);
        let mut power = self.exp_of_sum(y, Some(low));

        let b_negative = self.lt(b, zero);
        let is_zero = self.eq(a, zero);
        let of_zero = self.select(b_negative, infinity, zero);
        power = self.select(is_zero, of_zero, power);
        let is_infinite = self.eq(magnitude, infinity);
        let of_infinity = self.select(b_negative, zero, infinity);
        power = self.select(is_infinite, of_infinity, power);

        // A negative base takes integer exponents only; odd ones keep its sign.
        let rounded = self.expr.push(Inst::Unary(ScalarUnary::Round, b));
        let integer = self.eq(rounded, b);
        let b_bits = self.expr.push(Inst::Cast(self.format.int(), b));
        let one_bit = self.i(1);
        let last = self.and(b_bits, one_bit);
        let odd = self.eq(last, one_bit);
        let odd = self.and(odd, integer);
        // All larger floats are even.
        let b_magnitude = self.abs(b);
        let limit = self.f(libm::ldexp(2.0, self.format.mantissa()));
        let exact = self.lt(b_magnitude, limit);
        let odd = self.and(odd, exact);
        let signed = self.with_sign(power, a);
        power = self.select(odd, signed, power);
        let negative = self.lt(a, zero);
        let finite = self.lt(minus_infinity, a);
        let invalid = self.and(negative, finite);
        let fraction = self.expr.push(Inst::Unary(ScalarUnary::Not, integer));
        let invalid = self.and(invalid, fraction);
        let nan = self.f(f32::NAN);
        power = self.select(invalid, nan, power);
        for x in [a, b] {
            let number = self.eq(x, x);
            power = self.select(number, power, x);
        }
        // These two hold for NaN as well.
        let to_zero = self.eq(b, zero);
        power = self.select(to_zero, one, power);
        let of_one = self.eq(a, one);
        self.expr.push(Inst::Select(of_one, one, power))
    }
}
