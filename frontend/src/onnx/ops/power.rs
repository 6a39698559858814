//! Powers: of floats by the graph's operator, of integers exactly.

use aic_ir::graph::{BinaryOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::NUMBERS;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// Bases of powers.
const BASES: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::I32, DType::I64];

pub(super) const RULES: &[OpRule] =
    &[rule("Pow", (2, 2), &[], "the result has the type of the base; powers of integers wrap; broadcasts", pow)
        .types(BASES)
        .own(&[(1, NUMBERS)])];

/// Exponents of integers have as many bits that matter: any other base than -1, 0 and 1 has passed 64 bits by then.
const EXPONENT_BITS: u32 = 6;

fn pow(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let (base, exponent) = (c.operand(0)?, c.operand(1)?);
    let dtype = c.dtype(base);
    if dtype.is_float() {
        let exponent = c.cast(exponent, dtype)?;
        return c.binary(BinaryOp::Pow, base, exponent);
    }
    if c.dtype(exponent).is_float() {
        return by_floats(c, base, exponent);
    }
    match c.graph.scalar_of(exponent) {
        Some(times) if (0.0..64.0).contains(&times) => constant_power(c, base, times as u32, exponent),
        _ => computed_power(c, base, exponent),
    }
}

/// Powers in binary64, truncated; what lies so near to an integer that it may be one is taken for it.
fn by_floats(c: &mut NodeContext<'_>, base: Value, exponent: Value) -> Result<Value, Reason> {
    let dtype = c.dtype(base);
    let (base, exponent) = (c.cast(base, DType::F64)?, c.cast(exponent, DType::F64)?);
    let power = c.binary(BinaryOp::Pow, base, exponent)?;
    let nearest = c.unary(UnaryOp::Round, power)?;
    let difference = c.binary(BinaryOp::Sub, power, nearest)?;
    let difference = c.unary(UnaryOp::Abs, difference)?;
    let magnitude = c.unary(UnaryOp::Abs, nearest)?;
    let tolerance = c.binary_scalar(BinaryOp::Mul, magnitude, 1e-14)?;
    let is_integer = c.binary(BinaryOp::Le, difference, tolerance)?;
    let result = c.select(is_integer, nearest, power)?;
    c.cast(result, dtype)
}

/// Squares and multiplies; the exponent only gives its shape.
fn constant_power(c: &mut NodeContext<'_>, base: Value, times: u32, exponent: Value) -> Result<Value, Reason> {
    let dtype = c.dtype(base);
    let mut result = c.scalar(dtype, 1.0)?;
    let mut square = base;
    let mut first = true;
    for bit in 0..u32::BITS - times.leading_zeros() {
        if bit > 0 {
            square = c.binary(BinaryOp::Mul, square, square)?;
        }
        if times >> bit & 1 == 1 {
            result = if first { square } else { c.binary(BinaryOp::Mul, result, square)? };
            first = false;
        }
    }
    let shape = aic_ir::graph::infer::broadcast(c.shape(base), c.shape(exponent)).map_err(|e| e.to_string())?;
    c.expand(result, shape)
}

/// The product of the squarings that the exponent's bits choose. A negative exponent leaves -1 and 1 what they are, and
/// of other bases 0.
fn computed_power(c: &mut NodeContext<'_>, base: Value, exponent: Value) -> Result<Value, Reason> {
    let dtype = c.dtype(base);
    let exponent = c.cast(exponent, DType::I64)?;
    let one = c.scalar(dtype, 1.0)?;
    let zero = c.scalar(dtype, 0.0)?;
    let mut square = base;
    let mut result = one;
    for bit in 0..EXPONENT_BITS {
        if bit > 0 {
            square = c.binary(BinaryOp::Mul, square, square)?;
        }
        let shifted = c.binary_scalar(BinaryOp::Shr, exponent, f64::from(bit))?;
        let low = c.binary_scalar(BinaryOp::And, shifted, 1.0)?;
        let chosen = c.cast(low, DType::Bool)?;
        let factor = c.select(chosen, square, one)?;
        result = c.binary(BinaryOp::Mul, result, factor)?;
    }
    let magnitude = c.unary(UnaryOp::Abs, base)?;
    let is_unit = c.binary(BinaryOp::Eq, magnitude, one)?;
    let is_zero = c.binary(BinaryOp::Eq, base, zero)?;
    let negative = c.binary_scalar(BinaryOp::Lt, exponent, 0.0)?;
    let vanishes = c.select(is_unit, result, zero)?;
    let result = c.select(negative, vanishes, result)?;
    let positive = c.scalar_binary(BinaryOp::Lt, 0.0, exponent)?;
    let stays_zero = c.binary(BinaryOp::And, is_zero, positive)?;
    c.select(stays_zero, zero, result)
}
