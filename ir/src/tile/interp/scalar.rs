//! Arithmetic on scalars, exactly as compiled code must do it.
//!
//! Values travel as bits (zero-extended to 64), in slices of equal length: one call does one instruction for many points.
//! 16-bit floats compute in binary32 and round back, which for add, subtract, multiply, divide and square root is the
//! correctly rounded result, since 24 >= 2 * 11 + 2 (Figueroa, "When is double rounding innocuous?", 1995). Fused
//! multiply-add and conversions from binary64 go through round-to-odd, which any later rounding to fewer bits turns into
//! the correct one (Boldo & Melquiond, "Emulation of FMA and correctly rounded sums", 2008).

use half::{bf16, f16};

use crate::tile::expr::{MathFn, ScalarBinary, ScalarUnary};
use crate::types::DType;

/// A type with arithmetic.
pub(super) trait Number: Copy + PartialOrd {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    /// `self * b + c`, for floats rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    fn max(self, b: Self) -> Self {
        if self > b { self } else { b }
    }
    fn min(self, b: Self) -> Self {
        if self < b { self } else { b }
    }
}

/// A floating-point type.
trait Float: Number {
    fn to_f64(self) -> f64;
    /// Nearest, ties to even.
    fn round_from(value: f64) -> Self;
    fn sqrt(self) -> Self;
}

/// An integer type.
trait Int: Number {
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
    fn shl(self, b: Self) -> Self;
    fn shr(self, b: Self) -> Self;
    fn saturated_from(value: f64) -> Self;
}

macro_rules! impl_int {
    ($ty:ty, $unsigned:ty, $abs:expr) => {
        impl Number for $ty {
            fn of(bits: u64) -> Self {
                bits as Self
            }
            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }
            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }
            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }
            fn div(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_div(b) }
            }
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            fn abs(self) -> Self {
                $abs(self)
            }
            fn fma(self, b: Self, c: Self) -> Self {
                self.wrapping_mul(b).wrapping_add(c)
            }
        }
        impl Int for $ty {
            fn and(self, b: Self) -> Self {
                self & b
            }
            fn or(self, b: Self) -> Self {
                self | b
            }
            fn xor(self, b: Self) -> Self {
                self ^ b
            }
            fn shl(self, b: Self) -> Self {
                self.wrapping_shl(b as u32)
            }
            fn shr(self, b: Self) -> Self {
                self.wrapping_shr(b as u32)
            }
            fn saturated_from(value: f64) -> Self {
                value as Self
            }
        }
    };
}
impl_int!(i8, u8, i8::wrapping_abs);
impl_int!(i16, u16, i16::wrapping_abs);
impl_int!(i32, u32, i32::wrapping_abs);
impl_int!(i64, u64, i64::wrapping_abs);
impl_int!(u8, u8, std::convert::identity);
impl_int!(u16, u16, std::convert::identity);
impl_int!(u32, u32, std::convert::identity);
impl_int!(u64, u64, std::convert::identity);

macro_rules! impl_float {
    ($ty:ty, $bits:ty, $fma:path) => {
        impl Number for $ty {
            fn of(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
            fn add(self, b: Self) -> Self {
                self + b
            }
            fn sub(self, b: Self) -> Self {
                self - b
            }
            fn mul(self, b: Self) -> Self {
                self * b
            }
            fn div(self, b: Self) -> Self {
                self / b
            }
            fn neg(self) -> Self {
                -self
            }
            fn abs(self) -> Self {
                <$ty>::abs(self)
            }
            fn fma(self, b: Self, c: Self) -> Self {
                $fma(self, b, c)
            }
        }
        impl Float for $ty {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn round_from(value: f64) -> Self {
                value as Self
            }
            fn sqrt(self) -> Self {
                <$ty>::sqrt(self)
            }
        }
    };
}
impl_float!(f32, u32, libm::fmaf);
impl_float!(f64, u64, libm::fma);

macro_rules! impl_half {
    ($ty:ty) => {
        impl Number for $ty {
            fn of(bits: u64) -> Self {
                Self::from_bits(bits as u16)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
            fn add(self, b: Self) -> Self {
                Self::from_f32(self.to_f32() + b.to_f32())
            }
            fn sub(self, b: Self) -> Self {
                Self::from_f32(self.to_f32() - b.to_f32())
            }
            fn mul(self, b: Self) -> Self {
                Self::from_f32(self.to_f32() * b.to_f32())
            }
            fn div(self, b: Self) -> Self {
                Self::from_f32(self.to_f32() / b.to_f32())
            }
            fn neg(self) -> Self {
                Self::from_bits(self.to_bits() ^ 0x8000)
            }
            fn abs(self) -> Self {
                Self::from_bits(self.to_bits() & 0x7fff)
            }
            fn fma(self, b: Self, c: Self) -> Self {
                // The product is exact in binary64.
                Self::round_from(add_to_odd(self.to_f64() * b.to_f64(), c.to_f64()))
            }
        }
        impl Float for $ty {
            fn to_f64(self) -> f64 {
                <$ty>::to_f64(self)
            }
            fn round_from(value: f64) -> Self {
                Self::from_f32(to_f32_odd(value))
            }
            fn sqrt(self) -> Self {
                Self::from_f32(self.to_f32().sqrt())
            }
        }
    };
}
impl_half!(f16);
impl_half!(bf16);

/// `a + b` rounded to odd: toward zero, with the last bit set when inexact.
fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // The exact error of the sum (Knuth's TwoSum).
    let b_part = sum - a;
    let error = (a - (sum - b_part)) + (b - b_part);
    if error == 0.0 || !error.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    // The exact value lies between `sum` and its neighbour on the side of the error; one of the two is odd: not `sum`.
    let toward_larger = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if toward_larger { sum.to_bits() + 1 } else { sum.to_bits() - 1 })
}

/// Rounds to odd in binary32.
fn to_f32_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if nearest.is_nan() || f64::from(nearest) == value {
        return nearest;
    }
    let toward_zero = nearest.to_bits() - u32::from(f64::from(nearest).abs() > value.abs());
    f32::from_bits(toward_zero | 1)
}

macro_rules! for_number {
    ($dtype:expr, $t:ident => $e:expr) => {
        match $dtype {
            DType::F16 => {
                type $t = half::f16;
                $e
            }
            DType::BF16 => {
                type $t = half::bf16;
                $e
            }
            DType::F32 => {
                type $t = f32;
                $e
            }
            DType::F64 => {
                type $t = f64;
                $e
            }
            DType::I8 => {
                type $t = i8;
                $e
            }
            DType::I16 => {
                type $t = i16;
                $e
            }
            DType::I32 => {
                type $t = i32;
                $e
            }
            DType::I64 => {
                type $t = i64;
                $e
            }
            DType::U8 | DType::Bool => {
                type $t = u8;
                $e
            }
            DType::U16 => {
                type $t = u16;
                $e
            }
            DType::U32 => {
                type $t = u32;
                $e
            }
            DType::U64 => {
                type $t = u64;
                $e
            }
        }
    };
}
pub(super) use for_number;

macro_rules! for_float {
    ($dtype:expr, $t:ident => $e:expr, else $other:expr) => {
        match $dtype {
            DType::F16 => {
                type $t = half::f16;
                $e
            }
            DType::BF16 => {
                type $t = half::bf16;
                $e
            }
            DType::F32 => {
                type $t = f32;
                $e
            }
            DType::F64 => {
                type $t = f64;
                $e
            }
            DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool => $other,
        }
    };
}

macro_rules! for_int {
    ($dtype:expr, $t:ident => $e:expr, else $other:expr) => {
        match $dtype {
            DType::I8 => {
                type $t = i8;
                $e
            }
            DType::I16 => {
                type $t = i16;
                $e
            }
            DType::I32 => {
                type $t = i32;
                $e
            }
            DType::I64 => {
                type $t = i64;
                $e
            }
            DType::U8 | DType::Bool => {
                type $t = u8;
                $e
            }
            DType::U16 => {
                type $t = u16;
                $e
            }
            DType::U32 => {
                type $t = u32;
                $e
            }
            DType::U64 => {
                type $t = u64;
                $e
            }
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => $other,
        }
    };
}

fn map1<T: Number>(a: &[u64], out: &mut [u64], f: impl Fn(T) -> T) {
    for (out, a) in out.iter_mut().zip(a) {
        *out = f(T::of(*a)).bits();
    }
}

fn map2<T: Number>(a: &[u64], b: &[u64], out: &mut [u64], f: impl Fn(T, T) -> T) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(T::of(*a), T::of(*b)).bits();
    }
}

fn compare<T: Number>(a: &[u64], b: &[u64], out: &mut [u64], f: impl Fn(T, T) -> bool) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = u64::from(f(T::of(*a), T::of(*b)));
    }
}

/// One operand. The expression is typed, so the operation takes `dtype`.
pub(super) fn unary(op: ScalarUnary, dtype: DType, a: &[u64], out: &mut [u64]) {
    use libm::{ceil, floor, rint};
    match op {
        ScalarUnary::Neg => for_number!(dtype, T => map1(a, out, <T as Number>::neg)),
        ScalarUnary::Abs => for_number!(dtype, T => map1(a, out, <T as Number>::abs)),
        ScalarUnary::Not => map1(a, out, |x: u64| x ^ 1),
        // Rounding to an integer in binary64 is exact for every smaller type.
        ScalarUnary::Sqrt => for_float!(dtype, T => map1(a, out, <T as Float>::sqrt), else ()),
        ScalarUnary::Round => for_float!(dtype, T => map1(a, out, |x: T| T::round_from(rint(x.to_f64()))), else ()),
        ScalarUnary::Floor => for_float!(dtype, T => map1(a, out, |x: T| T::round_from(floor(x.to_f64()))), else ()),
        ScalarUnary::Ceil => for_float!(dtype, T => map1(a, out, |x: T| T::round_from(ceil(x.to_f64()))), else ()),
    }
}

/// Two operands of type `dtype`.
pub(super) fn binary(op: ScalarBinary, dtype: DType, a: &[u64], b: &[u64], out: &mut [u64]) {
    match op {
        ScalarBinary::Add => for_number!(dtype, T => map2(a, b, out, <T as Number>::add)),
        ScalarBinary::Sub => for_number!(dtype, T => map2(a, b, out, <T as Number>::sub)),
        ScalarBinary::Mul => for_number!(dtype, T => map2(a, b, out, <T as Number>::mul)),
        ScalarBinary::Div => for_number!(dtype, T => map2(a, b, out, <T as Number>::div)),
        ScalarBinary::Max => for_number!(dtype, T => map2(a, b, out, <T as Number>::max)),
        ScalarBinary::Min => for_number!(dtype, T => map2(a, b, out, <T as Number>::min)),
        ScalarBinary::And => for_int!(dtype, T => map2(a, b, out, <T as Int>::and), else ()),
        ScalarBinary::Or => for_int!(dtype, T => map2(a, b, out, <T as Int>::or), else ()),
        ScalarBinary::Xor => for_int!(dtype, T => map2(a, b, out, <T as Int>::xor), else ()),
        ScalarBinary::Shl => for_int!(dtype, T => map2(a, b, out, <T as Int>::shl), else ()),
        ScalarBinary::Shr => for_int!(dtype, T => map2(a, b, out, <T as Int>::shr), else ()),
        ScalarBinary::Eq => for_number!(dtype, T => compare(a, b, out, |a: T, b| a == b)),
        ScalarBinary::Lt => for_number!(dtype, T => compare(a, b, out, |a: T, b| a < b)),
        ScalarBinary::Le => for_number!(dtype, T => compare(a, b, out, |a: T, b| a <= b)),
    }
}

/// `a * b + c`, rounded once.
pub(super) fn fma(dtype: DType, a: &[u64], b: &[u64], c: &[u64], out: &mut [u64]) {
    for_number!(dtype, T => for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = Number::fma(T::of(*a), T::of(*b), T::of(*c)).bits();
    });
}

/// Conversion of values from one type to another.
pub(super) fn cast(from: DType, to: DType, a: &[u64], out: &mut [u64]) {
    for (out, &a) in out.iter_mut().zip(a) {
        *out = cast_one(from, to, a);
    }
}

/// Conversion of one value.
pub(super) fn cast_one(from: DType, to: DType, bits: u64) -> u64 {
    if from == to {
        return bits;
    }
    if from.is_float() {
        let value = for_float!(from, T => Float::to_f64(T::of(bits)), else 0.0);
        return match to {
            // Not equal to zero: a NaN is true.
            DType::Bool => u64::from(value != 0.0),
            to => for_float!(to, T => T::round_from(value).bits(),
                else for_int!(to, T => <T as Int>::saturated_from(value).bits(), else 0)),
        };
    }
    // Sign- or zero-extended to 64 bits.
    let wide = match from {
        DType::I8 => bits as i8 as i64 as u64,
        DType::I16 => bits as i16 as i64 as u64,
        DType::I32 => bits as i32 as i64 as u64,
        _ => bits,
    };
    let signed = from.is_signed_int();
    match to {
        DType::Bool => u64::from(bits != 0),
        DType::F32 if signed => Number::bits(wide as i64 as f32),
        DType::F32 => Number::bits(wide as f32),
        DType::F64 if signed => Number::bits(wide as i64 as f64),
        DType::F64 => Number::bits(wide as f64),
        DType::F16 | DType::BF16 => {
            // Beyond 53 bits, keep the dropped ones as a sticky bit, so that the one rounding below is the right one.
            let magnitude = if signed { (wide as i64).unsigned_abs() } else { wide };
            let sticky = u64::from(magnitude & 0x7ff != 0) << 11;
            let exact = if magnitude >> 53 == 0 { magnitude } else { magnitude & !0x7ff | sticky };
            let value = if signed && (wide as i64) < 0 { -(exact as f64) } else { exact as f64 };
            for_float!(to, T => T::round_from(value).bits(), else 0)
        }
        to => for_int!(to, T => T::of(wide).bits(), else 0),
    }
}

/// An elementary function: the binary64 result of `libm`, rounded.
pub(super) fn math(f: MathFn, dtype: DType, a: &[u64], out: &mut [u64]) {
    let exact = |x: f64| match f {
        MathFn::Exp => libm::exp(x),
        MathFn::Log => libm::log(x),
        MathFn::Erf => libm::erf(x),
        MathFn::Tanh => libm::tanh(x),
        MathFn::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        MathFn::Sin => libm::sin(x),
        MathFn::Cos => libm::cos(x),
        MathFn::Atan => libm::atan(x),
        MathFn::Expm1 => libm::expm1(x),
        MathFn::Log1p => libm::log1p(x),
    };
    for_float!(dtype, T => map1(a, out, |x: T| T::round_from(exact(x.to_f64()))), else ());
}

/// `a` to the power `b`.
pub(super) fn pow(dtype: DType, a: &[u64], b: &[u64], out: &mut [u64]) {
    for_float!(dtype, T => map2(a, b, out, |a: T, b| T::round_from(libm::pow(a.to_f64(), b.to_f64()))), else ());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(op: ScalarBinary, dtype: DType, a: u64, b: u64) -> u64 {
        let mut out = [0];
        binary(op, dtype, &[a], &[b], &mut out);
        out[0]
    }

    #[test]
    fn maximum_takes_the_second_operand_when_unordered() {
        let nan = u64::from(f32::NAN.to_bits());
        let one_bits = u64::from(1f32.to_bits());
        let minus_zero = 1 << 31;
        for op in [ScalarBinary::Max, ScalarBinary::Min] {
            assert_eq!(one(op, DType::F32, nan, one_bits), one_bits);
            assert_eq!(one(op, DType::F32, one_bits, nan), nan);
            assert_eq!(one(op, DType::F32, 0, minus_zero), minus_zero);
            assert_eq!(one(op, DType::F32, minus_zero, 0), 0);
        }
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(one(ScalarBinary::Add, DType::I8, 0x7f, 1), 0x80);
        assert_eq!(one(ScalarBinary::Div, DType::I32, 0x8000_0000, 0xffff_ffff), 0x8000_0000);
        assert_eq!(one(ScalarBinary::Div, DType::I32, 7, 0), 0);
        assert_eq!(one(ScalarBinary::Shr, DType::I16, 0x8000, 3), 0xf000);
        assert_eq!(one(ScalarBinary::Shr, DType::U16, 0x8000, 3), 0x1000);
        assert_eq!(one(ScalarBinary::Lt, DType::I32, 0xffff_ffff, 0), 1);
        assert_eq!(one(ScalarBinary::Lt, DType::U32, 0xffff_ffff, 0), 0);
    }

    #[test]
    fn casts_saturate_and_wrap() {
        let f = |v: f32| u64::from(v.to_bits());
        assert_eq!(cast_one(DType::F32, DType::I8, f(-300.0)), 0x80);
        assert_eq!(cast_one(DType::F32, DType::U8, f(-3.0)), 0);
        assert_eq!(cast_one(DType::F32, DType::I32, f(f32::NAN)), 0);
        assert_eq!(cast_one(DType::F32, DType::I32, f(-1.9)), 0xffff_ffff);
        assert_eq!(cast_one(DType::F32, DType::Bool, f(f32::NAN)), 1);
        assert_eq!(cast_one(DType::I32, DType::I8, 0x1ff), 0xff);
        assert_eq!(cast_one(DType::I8, DType::I64, 0xff), u64::MAX);
        assert_eq!(cast_one(DType::I8, DType::F32, 0xff), f(-1.0));
        assert_eq!(cast_one(DType::U64, DType::F32, u64::MAX), f(18446744073709551615.0));
    }

    #[test]
    fn conversions_to_16_bits_round_once() {
        // Just above the middle of two neighbours, by less than a binary32 holds.
        let above = 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40);
        assert_eq!(f16::round_from(above), f16::from_bits(0x3c01));
        assert_eq!(f16::round_from(1.0 + f64::powi(2.0, -11)), f16::from_bits(0x3c00));
        assert_eq!(bf16::round_from(1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -50)), bf16::from_bits(0x3f81));
        let value = (1u64 << 62) + (1 << 54) + 1;
        assert_eq!(cast_one(DType::I64, DType::BF16, value), u64::from(bf16::from_f32(4.6477043e18).to_bits()));
        assert_eq!(f16::round_from(1e300), f16::INFINITY);
        assert_eq!(f16::round_from(-1e-300).to_bits(), 0x8000);
    }

    #[test]
    fn fused_multiply_add_of_16_bits_rounds_once() {
        // 2^-24 * 2^-24 is far below the last bit of 1 + half a unit, yet decides.
        let (tiny, x) = (f16::from_bits(1), f16::from_f32(2049.0));
        assert_eq!(Number::fma(tiny, tiny, x), x);
        // 45 * 1.5 = 67.5 exactly representable; the sum 2048 + 67.5 rounds once to even.
        let sum = Number::fma(f16::from_f32(45.0), f16::from_f32(1.5), f16::from_f32(2048.0));
        assert_eq!(sum, f16::from_f32(2116.0));
        assert_eq!(add_to_odd(1.0, f64::powi(2.0, -80)), 1.0 + f64::EPSILON);
        assert_eq!(add_to_odd(1.0, -f64::powi(2.0, -80)), 1.0 - f64::EPSILON / 2.0);
    }
}
