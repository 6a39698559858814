//! Constants that passes look into and make.

use bytes::Bytes;

use crate::graph::{Graph, Value};
use crate::types::{DType, Tensor, TensorType};

/// Largest constant whose elements are compared with each other.
const MAX_SPLAT_ELEMS: u64 = 4096;

/// The value of a constant whose elements are all equal.
pub(super) fn splat(graph: &Graph, value: Value) -> Option<f64> {
    let tensor = graph.const_of(value)?;
    let elems = tensor.ty().elems();
    if elems == 0 || elems > MAX_SPLAT_ELEMS {
        return None;
    }
    let size = tensor.ty().dtype().bytes() as usize;
    let first = tensor.bytes().get(..size)?;
    tensor.bytes().chunks_exact(size).all(|c| c == first).then(|| tensor.get_f64(0))?
}

/// A tensor of a floating-point type; each value rounds to the nearest. `None` for other types or a wrong number.
pub(super) fn float_tensor(dtype: DType, shape: &[u64], values: impl Iterator<Item = f64>) -> Option<Tensor> {
    let bytes: Vec<u8> = match dtype {
        DType::F16 => values.flat_map(|v| half::f16::from_f64(v).to_le_bytes()).collect(),
        DType::BF16 => values.flat_map(|v| half::bf16::from_f64(v).to_le_bytes()).collect(),
        DType::F32 => values.flat_map(|v| (v as f32).to_le_bytes()).collect(),
        DType::F64 => values.flat_map(f64::to_le_bytes).collect(),
        DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool => return None,
    };
    Tensor::new(TensorType::new(dtype, shape).ok()?, Bytes::from(bytes)).ok()
}

/// A tensor of a floating-point type with one value everywhere.
pub(super) fn filled(dtype: DType, shape: &[u64], value: f64) -> Option<Tensor> {
    let elems: u64 = shape.iter().product();
    float_tensor(dtype, shape, (0..elems).map(|_| value))
}

/// Whether a coefficient of a model is meant to be `exact`: it may be the product of two constants that were rounded to
/// half precision on the way, each with a relative error of at most 2^-11.
pub(super) fn is_about(actual: f64, exact: f64) -> bool {
    (actual - exact).abs() <= exact.abs() * 2f64.powi(-10)
}
