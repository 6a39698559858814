//! Powers of integers, by squaring.

use super::elementwise::constant;
use crate::tile::{Expr, ExprRef, Inst, Scalar, ScalarBinary};
use crate::types::DType;

/// Appends `a` to the power `b` for integers of type `dtype`: wrapping, and the exact power truncated toward zero where the
/// exponent is negative (which is 0 unless `a` is 1 or -1; 0 for `a = 0`).
pub(super) fn integer_power(expr: &mut Expr, dtype: DType, a: ExprRef, b: ExprRef) -> ExprRef {
    let exponent = match expr.insts[b.0 as usize] {
        Inst::Const(s) => Some(s.bits),
        _ => None,
    };
    let width = 8 * dtype.bytes();
    let sign_bit = 1u64 << (width - 1);
    let negative_is_known = exponent.map(|bits| dtype.is_signed_int() && bits & sign_bit != 0);
    let one = constant(expr, dtype, 1.0);
    let mut power = None;
    let mut square = a;
    // Bits of the exponent, from the lowest; those of a constant are known.
    for bit in 0..width {
        let known = exponent.map(|bits| bits >> bit & 1 == 1);
        if exponent.is_some_and(|bits| bits >> bit == 0) || negative_is_known == Some(true) {
            break;
        }
        if bit > 0 {
            square = expr.push(Inst::Binary(ScalarBinary::Mul, square, square));
        }
        let factor = match known {
            Some(false) => continue,
            Some(true) => square,
            None => {
                let odd = bit_of(expr, dtype, b, bit);
                expr.push(Inst::Select(odd, square, one))
            }
        };
        power = Some(match power {
            Some(power) => expr.push(Inst::Binary(ScalarBinary::Mul, power, factor)),
            None => factor,
        });
    }
    let power = power.unwrap_or(one);
    if !dtype.is_signed_int() || negative_is_known == Some(false) {
        return power;
    }
    let zero = constant(expr, dtype, 0.0);
    let minus_one = constant(expr, dtype, -1.0);
    let is_one = expr.push(Inst::Binary(ScalarBinary::Eq, a, one));
    let is_minus_one = expr.push(Inst::Binary(ScalarBinary::Eq, a, minus_one));
    let odd = bit_of(expr, dtype, b, 0);
    let alternating = expr.push(Inst::Select(odd, minus_one, one));
    let inverse = expr.push(Inst::Select(is_minus_one, alternating, zero));
    let inverse = expr.push(Inst::Select(is_one, one, inverse));
    let negative = expr.push(Inst::Binary(ScalarBinary::Lt, b, zero));
    expr.push(Inst::Select(negative, inverse, power))
}

/// Whether a bit is set.
fn bit_of(expr: &mut Expr, dtype: DType, x: ExprRef, bit: u64) -> ExprRef {
    let mask = expr.push(Inst::Const(Scalar { dtype, bits: 1 << bit }));
    let masked = expr.push(Inst::Binary(ScalarBinary::And, x, mask));
    expr.push(Inst::Binary(ScalarBinary::Eq, masked, mask))
}
