//! Element types as Cranelift types.

use aic_ir::types::DType;
use cranelift_codegen::ir::Type;
use cranelift_codegen::ir::types::{F32, F32X4, F64, I8, I16, I32, I32X4, I64};

/// Number of 4-byte elements of a vector. Cranelift's portable vectors have 128 bits.
pub(super) const LANES: usize = 4;

/// The type of one element in a register; truth values are 0 or 1 in a byte.
pub(super) fn scalar_type(dtype: DType) -> Result<Type, String> {
    match dtype {
        DType::F32 => Ok(F32),
        DType::F64 => Ok(F64),
        DType::I8 | DType::U8 | DType::Bool => Ok(I8),
        DType::I16 | DType::U16 => Ok(I16),
        DType::I32 | DType::U32 => Ok(I32),
        DType::I64 | DType::U64 => Ok(I64),
        DType::F16 | DType::BF16 => Err(format!("element type {dtype} is not supported on CPUs")),
    }
}

/// The type of a vector of elements, where statements may be vectorized; of truth values, masks of all ones or zeros.
pub(super) fn vector_type(dtype: DType) -> Option<Type> {
    match dtype {
        DType::F32 => Some(F32X4),
        DType::I32 | DType::U32 => Some(I32X4),
        DType::F16
        | DType::BF16
        | DType::F64
        | DType::I8
        | DType::I16
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U64
        | DType::Bool => None,
    }
}
