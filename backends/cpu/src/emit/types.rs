//! Element types as Cranelift types.

use aic_ir::types::DType;
use cranelift_codegen::ir::Type;
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I16, I32, I32X4, I64};

/// Number of 4-byte elements of a vector. Cranelift's portable vectors have 128 bits.
pub(super) const LANES: usize = 4;

/// The type of one element in a register; truth values are 0 or 1 in a byte.
pub(super) fn scalar_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 => F32,
        DType::F64 => F64,
        DType::I8 | DType::U8 | DType::Bool => I8,
        // 16-bit floats are bits: conversions are integer instructions.
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => I16,
        DType::I32 | DType::U32 => I32,
        DType::I64 | DType::U64 => I64,
    }
}

/// The type of a vector of elements, where statements may be vectorized; of truth values, masks of all ones or zeros.
/// Elements of two bytes that are bits of floats are zero-extended to lanes of four.
pub(super) fn vector_type(dtype: DType) -> Option<Type> {
    match dtype {
        DType::F32 => Some(F32X4),
        DType::I32 | DType::U32 | DType::F16 | DType::BF16 | DType::U16 => Some(I32X4),
        DType::F64 | DType::I8 | DType::I16 | DType::I64 | DType::U8 | DType::U64 | DType::Bool => None,
    }
}

/// Whether vectors of a type have lanes wider than its elements.
pub(super) fn is_extended(dtype: DType) -> bool {
    dtype.bytes() == 2
}
