//! Conversions of 16-bit floats, as integer instructions on the bits of binary32.
//!
//! The forms for binary16 are those of Fabian Giesen ("Float to half done quick", 2012): a product by 2^112 aligns
//! exponents, subnormal numbers included, and a sum with 1/2 rounds what becomes subnormal where its last bit stands. All
//! rounding is to nearest, ties to even, once.

use super::{Code, Format, is_half};
use crate::tile::expr::{ExprRef, Inst, Scalar, ScalarBinary, ScalarUnary};
use crate::types::DType;

/// Exponent bits of binary32: its infinity.
const INFINITY: i64 = 0x7f80_0000;

impl Code {
    /// A cast from or to a 16-bit float. Leaves the format at binary32.
    pub(super) fn convert(&mut self, from: DType, to: DType, x: ExprRef) -> ExprRef {
        self.format = Format::Single;
        if from == to {
            return x;
        }
        if is_half(from) {
            let single = self.half_to_single(from, x);
            return match to {
                DType::F16 | DType::BF16 => self.single_to_half(to, single),
                DType::F32 => single,
                _ => self.expr.push(Inst::Cast(to, single)),
            };
        }
        let single = match from {
            DType::F32 => x,
            DType::F64 => self.double_to_odd(x),
            // Their largest numbers are exact in binary32.
            DType::I8 | DType::I16 | DType::U8 | DType::U16 | DType::Bool => self.expr.push(Inst::Cast(DType::F32, x)),
            DType::I32 | DType::U32 => {
                let double = self.expr.push(Inst::Cast(DType::F64, x));
                self.double_to_odd(double)
            }
            _ => {
                let odd = self.long_to_odd(from, x);
                let double = self.expr.push(Inst::Cast(DType::F64, odd));
                self.double_to_odd(double)
            }
        };
        self.single_to_half(to, single)
    }

    /// A 16-bit float as binary32, which holds it exactly.
    pub(super) fn half_to_single(&mut self, from: DType, x: ExprRef) -> ExprRef {
        let half = self.expr.push(Inst::Bitcast(DType::U16, x));
        let bits = self.expr.push(Inst::Cast(DType::I32, half));
        if from == DType::BF16 {
            let bits = self.shl(bits, 16);
            return self.float(bits);
        }
        let magnitude_mask = self.i(0x7fff);
        let magnitude = self.and(bits, magnitude_mask);
        let sign = self.binary(ScalarBinary::Xor, bits, magnitude);
        let sign = self.shl(sign, 16);
        let shifted = self.shl(magnitude, 13);
        let shifted = self.float(shifted);
        let scaled = self.scale(shifted, libm::ldexp(1.0, 112));
        let scaled = self.bits(scaled);
        // Infinity and NaN have the largest exponent here as well.
        let largest = self.i(0x7bff);
        let special = self.lt(largest, magnitude);
        let infinity = self.i(INFINITY);
        let as_special = self.binary(ScalarBinary::Or, scaled, infinity);
        let magnitude = self.select(special, as_special, scaled);
        let both = self.binary(ScalarBinary::Or, magnitude, sign);
        self.float(both)
    }

    /// A binary32 as the nearest 16-bit float.
    pub(super) fn single_to_half(&mut self, to: DType, x: ExprRef) -> ExprRef {
        let bits = self.bits(x);
        let magnitude_mask = self.i(i32::MAX);
        let magnitude = self.and(bits, magnitude_mask);
        let sign = self.binary(ScalarBinary::Xor, bits, magnitude);
        let rounded = if to == DType::BF16 { self.rounded_to_bf16(magnitude) } else { self.rounded_to_f16(magnitude) };
        // Shifted with copies of the sign, which are cut off.
        let sign = self.shr(sign, 16);
        let both = self.binary(ScalarBinary::Or, rounded, sign);
        let half = self.expr.push(Inst::Cast(DType::U16, both));
        self.expr.push(Inst::Bitcast(to, half))
    }

    /// Drops low bits, rounding to nearest, ties to even.
    fn round_bits(&mut self, bits: ExprRef, dropped: i32) -> ExprRef {
        let last = self.shr(bits, dropped);
        let one = self.i(1);
        let odd = self.and(last, one);
        let below_half = self.i((1 << (dropped - 1)) - 1);
        let sum = self.add(bits, below_half);
        let sum = self.add(sum, odd);
        self.shr(sum, dropped)
    }

    fn rounded_to_bf16(&mut self, magnitude: ExprRef) -> ExprRef {
        let rounded = self.round_bits(magnitude, 16);
        let (infinity, nan) = (self.i(INFINITY), self.i(0x7fc0));
        let is_nan = self.lt(infinity, magnitude);
        self.select(is_nan, nan, rounded)
    }

    fn rounded_to_f16(&mut self, magnitude: ExprRef) -> ExprRef {
        // Exponents in the bias of the half; numbers from 65520 on round up to its infinity by themselves.
        let rebias = self.i(-(112 << 23));
        let rebiased = self.add(magnitude, rebias);
        let normal = self.round_bits(rebiased, 13);
        let half = self.f(0.5);
        let float = self.float(magnitude);
        let sum = self.add(float, half);
        let sum = self.bits(sum);
        let half_bits = self.i(0.5f32.to_bits());
        let subnormal = self.sub(sum, half_bits);
        let smallest = self.i(113 << 23);
        let small = self.lt(magnitude, smallest);
        let rounded = self.select(small, subnormal, normal);
        let (largest, half_infinity) = (self.i((143 << 23) - 1), self.i(0x7c00));
        let large = self.lt(largest, magnitude);
        let rounded = self.select(large, half_infinity, rounded);
        let (infinity, nan) = (self.i(INFINITY), self.i(0x7e00));
        let is_nan = self.lt(infinity, magnitude);
        self.select(is_nan, nan, rounded)
    }

    /// A binary64 rounded to odd in binary32, so that a second rounding to fewer bits is the only one that counts (Boldo
    /// and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    fn double_to_odd(&mut self, x: ExprRef) -> ExprRef {
        let nearest = self.expr.push(Inst::Cast(DType::F32, x));
        let back = self.expr.push(Inst::Cast(DType::F64, nearest));
        let bits = self.bits(nearest);
        let magnitude = |code: &mut Self, x| code.expr.push(Inst::Unary(ScalarUnary::Abs, x));
        let (exact, rounded) = (magnitude(self, x), magnitude(self, back));
        let (one, zero) = (self.i(1), self.i(0));
        let up = self.lt(exact, rounded);
        let down = self.lt(rounded, exact);
        let excess = self.select(up, one, zero);
        let truncated = self.sub(bits, excess);
        // NaN is neither above nor below, and stays.
        let inexact = self.binary(ScalarBinary::Or, up, down);
        let last = self.select(inexact, one, zero);
        let odd = self.binary(ScalarBinary::Or, truncated, last);
        self.float(odd)
    }

    /// A 64-bit integer with its low 11 bits gathered in the one above them, if it has more than 53: a number that binary64
    /// holds, and that lies on the same side of every number of fewer bits. (Also for negative ones: clearing rounds down,
    /// and of two neighbours the odd one is taken.)
    fn long_to_odd(&mut self, dtype: DType, x: ExprRef) -> ExprRef {
        let int = |code: &mut Self, bits: u64| code.constant(Scalar { dtype, bits });
        let (low_mask, high_mask, zero) = (int(self, 0x7ff), int(self, !0x7ff), int(self, 0));
        let eleven = int(self, 11);
        let low = self.and(x, low_mask);
        let high = self.and(x, high_mask);
        let none = self.eq(low, zero);
        let sticky = int(self, 1 << 11);
        let last = self.select(none, zero, sticky);
        let odd = self.binary(ScalarBinary::Or, high, last);
        // Small: the bits from 53 on are all equal to the sign (all zero, if unsigned).
        let top = self.binary(ScalarBinary::Shr, x, eleven);
        let by = int(self, 42);
        let top = self.binary(ScalarBinary::Shr, top, by);
        let ones = int(self, u64::MAX);
        let positive = self.eq(top, zero);
        let negative = self.eq(top, ones);
        let small = self.binary(ScalarBinary::Or, positive, negative);
        self.select(small, x, odd)
    }
}
