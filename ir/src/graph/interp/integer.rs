//! Arithmetic on integers and truth values. They are kept in an `i64`, `u64` as its bits, and wrap to their type.

use crate::graph::{BinaryOp, UnaryOp};
use crate::types::DType;

/// The low bits of a number, as a number of that integer type.
pub(super) fn wrap(dtype: DType, v: i64) -> i64 {
    match dtype {
        DType::I8 => i64::from(v as i8),
        DType::I16 => i64::from(v as i16),
        DType::I32 => i64::from(v as i32),
        DType::U8 => i64::from(v as u8),
        DType::U16 => i64::from(v as u16),
        DType::U32 => i64::from(v as u32),
        DType::Bool => i64::from(v != 0),
        DType::I64 | DType::U64 | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => v,
    }
}

/// A float truncated toward zero and saturated to an integer type; NaN gives 0. For `bool`, whether it is not 0.
pub(super) fn from_float(dtype: DType, v: f64) -> i64 {
    match dtype {
        DType::I8 => i64::from(v as i8),
        DType::I16 => i64::from(v as i16),
        DType::I32 => i64::from(v as i32),
        DType::U8 => i64::from(v as u8),
        DType::U16 => i64::from(v as u16),
        DType::U32 => i64::from(v as u32),
        DType::U64 => v as u64 as i64,
        DType::Bool => i64::from(v != 0.0),
        DType::I64 | DType::F16 | DType::BF16 | DType::F32 | DType::F64 => v as i64,
    }
}

/// Order of two numbers of that type.
fn less(dtype: DType, a: i64, b: i64) -> bool {
    if dtype == DType::U64 { (a as u64) < (b as u64) } else { a < b }
}

/// A function of one integer. Functions of floats alone give their operand; inference refuses them for integers.
pub(super) fn unary(op: UnaryOp, dtype: DType, v: i64) -> i64 {
    match op {
        UnaryOp::Neg => wrap(dtype, v.wrapping_neg()),
        UnaryOp::Abs if dtype.is_signed_int() => wrap(dtype, v.wrapping_abs()),
        UnaryOp::Not if dtype == DType::Bool => i64::from(v == 0),
        UnaryOp::Not => wrap(dtype, !v),
        UnaryOp::Abs
        | UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sqrt
        | UnaryOp::Recip
        | UnaryOp::Erf
        | UnaryOp::Tanh
        | UnaryOp::Sigmoid
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Atan
        | UnaryOp::Expm1
        | UnaryOp::Log1p
        | UnaryOp::Round
        | UnaryOp::Floor
        | UnaryOp::Ceil => v,
    }
}

/// `a` to the power `b`, wrapping; for negative exponents the exact power truncated toward zero.
fn power(dtype: DType, a: i64, b: i64) -> i64 {
    if dtype.is_signed_int() && b < 0 {
        return match a {
            1 => 1,
            -1 if b & 1 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut exponent) = (1i64, a, b as u64);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        exponent >>= 1;
    }
    wrap(dtype, result)
}

/// By how many bits a shift moves; `None` if by all of them.
fn amount(dtype: DType, b: i64) -> Option<u32> {
    u32::try_from(b).ok().filter(|&b| u64::from(b) < 8 * dtype.bytes())
}

/// A function of two integers of type `dtype`.
pub(super) fn binary(op: BinaryOp, dtype: DType, a: i64, b: i64) -> i64 {
    match op {
        BinaryOp::Add => wrap(dtype, a.wrapping_add(b)),
        BinaryOp::Sub => wrap(dtype, a.wrapping_sub(b)),
        BinaryOp::Mul => wrap(dtype, a.wrapping_mul(b)),
        BinaryOp::Div if b == 0 => 0,
        BinaryOp::Div if dtype == DType::U64 => (a as u64 / b as u64) as i64,
        BinaryOp::Div => wrap(dtype, a.wrapping_div(b)),
        BinaryOp::Rem if b == 0 => a,
        BinaryOp::Rem if dtype == DType::U64 => (a as u64 % b as u64) as i64,
        BinaryOp::Rem => a.wrapping_rem(b),
        BinaryOp::Pow => power(dtype, a, b),
        BinaryOp::Max => {
            if less(dtype, a, b) {
                b
            } else {
                a
            }
        }
        BinaryOp::Min => {
            if less(dtype, b, a) {
                b
            } else {
                a
            }
        }
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::Shl => match amount(dtype, b) {
            Some(b) => wrap(dtype, a.wrapping_shl(b)),
            None => 0,
        },
        BinaryOp::Shr => match amount(dtype, b) {
            Some(b) if dtype == DType::U64 => (a as u64 >> b) as i64,
            Some(b) => a >> b,
            None if dtype.is_signed_int() && a < 0 => -1,
            None => 0,
        },
        BinaryOp::Eq => i64::from(a == b),
        BinaryOp::Lt => i64::from(less(dtype, a, b)),
        BinaryOp::Le => i64::from(!less(dtype, b, a)),
    }
}

/// Error bound of [`binary`] for operands with bounds: 0 if both are certain, or if a certain one decides alone.
pub(super) fn binary_err(op: BinaryOp, dtype: DType, (a, a_err): (i64, f64), (b, b_err): (i64, f64)) -> f64 {
    let decides = |v: i64, err: f64| {
        err == 0.0
            && match op {
                BinaryOp::And | BinaryOp::Mul => v == 0,
                BinaryOp::Or => v == unary(UnaryOp::Not, dtype, 0),
                BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Div
                | BinaryOp::Rem
                | BinaryOp::Pow
                | BinaryOp::Max
                | BinaryOp::Min
                | BinaryOp::Xor
                | BinaryOp::Shl
                | BinaryOp::Shr
                | BinaryOp::Eq
                | BinaryOp::Lt
                | BinaryOp::Le => false,
            }
    };
    if decides(a, a_err) || decides(b, b_err) { 0.0 } else { a_err.max(b_err) }
}
