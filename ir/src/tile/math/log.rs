//! `log` and `pow`.
//!
//! `x = 2^e m` with `m` in `[sqrt(1/2), sqrt(2))`; then `log x = e ln 2 + log m`.

use super::Code;
use super::exp::{LN2_HIGH, LN2_LOW};
use crate::tile::expr::{ExprRef, Inst, ScalarUnary};
use crate::types::DType;

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

impl Code {
    /// `x` as `2^e m`: the float `e`, and `m`. Not for zeros, infinities, NaN and negative numbers.
    fn split_exponent(&mut self, x: ExprRef) -> (ExprRef, ExprRef) {
        let smallest = self.f(f32::MIN_POSITIVE);
        let subnormal = self.lt(x, smallest);
        let larger = self.scale(x, 8_388_608.0);
        let normal = self.select(subnormal, larger, x);
        let bits = self.bits(normal);
        let sqrt_half = self.i(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32);
        let above = self.sub(bits, sqrt_half);
        let e = self.shr(above, 23);
        let exponent = self.shl(e, 23);
        let m = self.sub(bits, exponent);
        let m = self.float(m);
        let e = self.expr.push(Inst::Cast(DType::F32, e));
        let (moved, kept) = (self.f(-23.0), self.f(0.0));
        let correction = self.select(subnormal, moved, kept);
        (self.add(e, correction), m)
    }

    /// Natural logarithm.
    pub(super) fn log(&mut self, x: ExprRef) -> ExprRef {
        let (e, m) = self.split_exponent(x);
        let minus_one = self.f(-1.0);
        let f = self.add(m, minus_one);
        let square = self.mul(f, f);
        let cube = self.mul(square, f);
        let q = self.polynomial(f, &LOG);
        // Small terms first.
        let low = self.scale(e, LN2_LOW);
        let low = self.fma(cube, q, low);
        let low = self.fma_by(square, -0.5, low);
        let rest = self.add(f, low);
        let mut y = self.fma_by(e, LN2_HIGH, rest);
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

    /// `log x` as a sum of two floats, with a relative error of about 2^-31. Arguments as for [`Code::split_exponent`].
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
        let square = self.mul(s, s);
        let cube = self.mul(square, s);
        let q = self.polynomial(square, &ATANH);
        let high = self.scale(s, 2.0);
        let low = self.scale(s_low, 2.0);
        let low = self.fma(cube, q, low);
        // The first product is exact, and not smaller than 2 s unless it is 0.
        let whole = self.scale(e, LN2_HIGH);
        let (high, error) = self.exact_sum(whole, high);
        let low = self.add(low, error);
        let low = self.fma_by(e, LN2_LOW, low);
        self.exact_sum(high, low)
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
        // From 2^32 on, a power is 0, 1 or infinite.
        let bounded = self.at_most(b, 4_294_967_296.0);
        let bounded = self.at_least(bounded, -4_294_967_296.0);
        let (y, error) = self.exact_product(bounded, log);
        let low = self.fma(bounded, log_low, error);
        // Beyond, the power overflows or vanishes, and the low part may be large.
        let y_magnitude = self.abs(y);
        let bound = self.f(128.0);
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
        let b_bits = self.expr.push(Inst::Cast(DType::I32, b));
        let one_bit = self.i(1);
        let last = self.and(b_bits, one_bit);
        let odd = self.eq(last, one_bit);
        let odd = self.and(odd, integer);
        // All floats from 2^24 on are even.
        let b_magnitude = self.abs(b);
        let limit = self.f(16_777_216.0);
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
