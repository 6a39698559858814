//! The remainder of floats, exactly: long division of mantissas as integers.
//!
//! With `a = m_a 2^e_a` and `b = m_b 2^e_b`, where the mantissas are integers, and `e_a >= e_b`, the remainder is
//! `(m_a 2^(e_a - e_b) mod m_b) 2^e_b`. The power is multiplied in as many bits at a time as a 64-bit integer leaves above
//! a mantissa, with a remainder after each. A quotient in floating point would be inexact from the width of a mantissa on.

use crate::tile::{Expr, ExprRef, Inst, Scalar, ScalarBinary, ScalarUnary};
use crate::types::DType;

/// A floating-point format by its fields.
struct Fields {
    float: DType,
    int: DType,
    /// Bits of the mantissa that are stored.
    mantissa: u64,
    /// Largest exponent of a number, as it is stored.
    max_exponent: u64,
}

/// Appends the remainder of `a` divided by `b`, of type `f32` or `f64`. 16-bit floats are `f32` here.
pub(super) fn remainder(expr: &mut Expr, dtype: DType, a: ExprRef, b: ExprRef) -> ExprRef {
    let fields = match dtype {
        DType::F64 => Fields { float: dtype, int: DType::I64, mantissa: 52, max_exponent: 2046 },
        _ => Fields { float: dtype, int: DType::I32, mantissa: 23, max_exponent: 254 },
    };
    let (large, small) = (expr.push(Inst::Unary(ScalarUnary::Abs, a)), expr.push(Inst::Unary(ScalarUnary::Abs, b)));
    let (m_a, e_a) = fields.split(expr, large);
    let (m_b, e_b) = fields.split(expr, small);
    let zero = wide(expr, 0);
    let difference = binary(expr, ScalarBinary::Sub, e_a, e_b);
    let is_smaller = binary(expr, ScalarBinary::Lt, e_a, e_b);
    let mut left = expr.push(Inst::Select(is_smaller, zero, difference));
    // Mantissas have one bit more than are stored.
    let step = 63 - fields.mantissa;
    let most = wide(expr, step);
    let mut m = m_a;
    for _ in 0..(fields.max_exponent - 1).div_ceil(step) {
        let by = binary(expr, ScalarBinary::Min, left, most);
        let shifted = binary(expr, ScalarBinary::Shl, m, by);
        let quotient = binary(expr, ScalarBinary::Div, shifted, m_b);
        let whole = binary(expr, ScalarBinary::Mul, quotient, m_b);
        m = binary(expr, ScalarBinary::Sub, shifted, whole);
        left = binary(expr, ScalarBinary::Sub, left, by);
    }
    // Below 2^53, so exact, and so is each product: the result is a multiple of the smallest number with that exponent.
    let m = expr.push(Inst::Cast(DType::I64, m));
    let m = expr.push(Inst::Cast(fields.float, m));
    let unit = float(expr, dtype, libm::ldexp(1.0, -(fields.mantissa as i32)));
    let fraction = binary(expr, ScalarBinary::Mul, m, unit);
    let position = wide(expr, fields.mantissa);
    let power = binary(expr, ScalarBinary::Shl, e_b, position);
    let power = fields.number(expr, power);
    let magnitude = binary(expr, ScalarBinary::Mul, fraction, power);
    let magnitude = expr.push(Inst::Select(is_smaller, large, magnitude));
    let (nothing, infinity) = (float(expr, dtype, 0.0), float(expr, dtype, f64::INFINITY));
    let finite = binary(expr, ScalarBinary::Lt, large, infinity);
    let divides = binary(expr, ScalarBinary::Lt, nothing, small);
    let valid = binary(expr, ScalarBinary::And, finite, divides);
    let nan = float(expr, dtype, f64::NAN);
    let magnitude = expr.push(Inst::Select(valid, magnitude, nan));
    // The sign of `a`, also of a zero.
    let bits = expr.push(Inst::Bitcast(fields.int, a));
    let sign = expr.push(Inst::Const(Scalar { dtype: fields.int, bits: 1 << (8 * dtype.bytes() - 1) }));
    let sign = binary(expr, ScalarBinary::And, bits, sign);
    let magnitude = expr.push(Inst::Bitcast(fields.int, magnitude));
    let signed = binary(expr, ScalarBinary::Or, magnitude, sign);
    expr.push(Inst::Bitcast(fields.float, signed))
}

impl Fields {
    /// Mantissa and exponent, as it is stored but at least 1, of a magnitude, both `u64`. Of infinities and NaN, anything.
    fn split(&self, expr: &mut Expr, x: ExprRef) -> (ExprRef, ExprRef) {
        let bits = self.bits(expr, x);
        let position = wide(expr, self.mantissa);
        let stored = binary(expr, ScalarBinary::Shr, bits, position);
        let one = wide(expr, 1);
        let exponent = binary(expr, ScalarBinary::Max, stored, one);
        // A subnormal number has the exponent 1 and no hidden bit.
        let normal = binary(expr, ScalarBinary::Min, stored, one);
        let hidden = binary(expr, ScalarBinary::Shl, normal, position);
        let mask = wide(expr, (1 << self.mantissa) - 1);
        let fraction = binary(expr, ScalarBinary::And, bits, mask);
        (binary(expr, ScalarBinary::Or, fraction, hidden), exponent)
    }

    fn bits(&self, expr: &mut Expr, x: ExprRef) -> ExprRef {
        if self.float == DType::F64 {
            return expr.push(Inst::Bitcast(DType::U64, x));
        }
        let bits = expr.push(Inst::Bitcast(DType::U32, x));
        expr.push(Inst::Cast(DType::U64, bits))
    }

    fn number(&self, expr: &mut Expr, bits: ExprRef) -> ExprRef {
        if self.float == DType::F64 {
            return expr.push(Inst::Bitcast(DType::F64, bits));
        }
        let bits = expr.push(Inst::Cast(DType::U32, bits));
        expr.push(Inst::Bitcast(DType::F32, bits))
    }
}

fn binary(expr: &mut Expr, op: ScalarBinary, a: ExprRef, b: ExprRef) -> ExprRef {
    expr.push(Inst::Binary(op, a, b))
}

fn wide(expr: &mut Expr, value: u64) -> ExprRef {
    expr.push(Inst::Const(Scalar { dtype: DType::U64, bits: value }))
}

fn float(expr: &mut Expr, dtype: DType, value: f64) -> ExprRef {
    expr.push(Inst::Const(Scalar::from_f64(dtype, value)))
}
