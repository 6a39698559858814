//! Evaluated tensors and their comparison with what an executor computed.

use bytes::Bytes;

use super::ErrorModel;
use super::num::{Num, Rounding};
use crate::types::{DType, Tensor, TensorType};

/// A tensor that the interpreter computed: floats with error bounds, or integers and truth values.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    ty: TensorType,
    pub(super) data: Data,
    /// Error bound per element: 0 or infinite for integers. Empty if all are 0.
    pub(super) err: Vec<f64>,
}

/// Elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// Of floating-point types.
    Float(Vec<f64>),
    /// Of integer types and `bool`; `u64` as the bits of an `i64`.
    Int(Vec<i64>),
}

/// Two tensors of different types cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a tensor of type {expected}, got one of type {actual}")]
pub struct TypeMismatch {
    /// Type of the evaluated tensor.
    pub expected: TensorType,
    /// Type of the other tensor.
    pub actual: TensorType,
}

/// How an actual tensor compares with the evaluated one.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Largest absolute difference, over elements where both numbers are finite.
    pub max_abs: f64,
    /// Largest difference relative to the evaluated value, over the same elements where that is not 0.
    pub max_rel: f64,
    /// Cosine of the angle between the tensors as vectors, over elements where both numbers are finite; 1 if both are
    /// all zeros.
    pub cosine: f64,
    /// How many elements lie outside their error bound.
    pub outside: u64,
    /// Row-major index of the first such element.
    pub first_outside: Option<u64>,
    /// How many elements are undetermined, which accept any number.
    pub undetermined: u64,
}

impl Evaluated {
    /// A tensor as it is, without error.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        let bytes = tensor.bytes();
        macro_rules! read {
            ($variant:ident, $ty:ty, $size:literal, $convert:expr) => {
                Data::$variant(
                    bytes.as_chunks::<$size>().0.iter().map(|b| $convert(<$ty>::from_le_bytes(*b))).collect(),
                )
            };
        }
        let data = match tensor.ty().dtype() {
            DType::F16 => read!(Float, half::f16, 2, half::f16::to_f64),
            DType::BF16 => read!(Float, half::bf16, 2, half::bf16::to_f64),
            DType::F32 => read!(Float, f32, 4, f64::from),
            DType::F64 => read!(Float, f64, 8, f64::from),
            DType::I8 => read!(Int, i8, 1, i64::from),
            DType::I16 => read!(Int, i16, 2, i64::from),
            DType::I32 => read!(Int, i32, 4, i64::from),
            DType::I64 | DType::U64 => read!(Int, i64, 8, i64::from),
            DType::U8 | DType::Bool => read!(Int, u8, 1, i64::from),
            DType::U16 => read!(Int, u16, 2, i64::from),
            DType::U32 => read!(Int, u32, 4, i64::from),
        };
        Self { ty: tensor.ty().clone(), data, err: Vec::new() }
    }

    /// Pairs a type of no elements with no elements.
    pub(super) fn empty(ty: TensorType) -> Self {
        let data = if ty.dtype().is_float() { Data::Float(Vec::new()) } else { Data::Int(Vec::new()) };
        Self { ty, data, err: Vec::new() }
    }

    pub(super) fn from_nums(ty: TensorType, nums: impl IntoIterator<Item = Num>) -> Self {
        let (values, err) = nums.into_iter().map(|x| (x.v, x.e)).unzip();
        Self::new(ty, Data::Float(values), err)
    }

    pub(super) fn from_ints(ty: TensorType, ints: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let (values, err) = ints.into_iter().unzip();
        Self::new(ty, Data::Int(values), err)
    }

    pub(super) fn new(ty: TensorType, data: Data, mut err: Vec<f64>) -> Self {
        if err.iter().all(|&e| e == 0.0) {
            err = Vec::new();
        }
        Self { ty, data, err }
    }

    /// Tensors one after the other, as rows of a type.
    pub(super) fn stacked(ty: TensorType, rows: &[Self]) -> Self {
        let exact = rows.iter().all(|row| row.err.is_empty());
        let errs = |row: &Self| (0..row.ty.elems() as usize).map(|i| row.err(i)).collect::<Vec<_>>();
        let err = if exact { Vec::new() } else { rows.iter().flat_map(errs).collect() };
        let data = if ty.dtype().is_float() {
            Data::Float(rows.iter().filter_map(Self::floats).flatten().copied().collect())
        } else {
            Data::Int(rows.iter().filter_map(Self::ints).flatten().copied().collect())
        };
        Self::new(ty, data, err)
    }

    /// The same elements under another type of as many elements.
    pub(super) fn with_type(mut self, ty: TensorType) -> Self {
        self.ty = ty;
        self
    }

    /// A result of arithmetic, which 16-bit floats are rounded after.
    pub(super) fn stored(self, model: ErrorModel) -> Self {
        let dtype = self.ty.dtype();
        if !matches!(dtype, DType::F16 | DType::BF16) {
            return self;
        }
        let r = Rounding::new(dtype, model);
        let count = self.ty.elems() as usize;
        Self::from_nums(self.ty.clone(), (0..count).map(|i| r.stored(self.num(i))))
    }

    /// Type of the tensor.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Elements of a tensor of a floating-point type, row-major, not rounded to that type.
    pub fn floats(&self) -> Option<&[f64]> {
        match &self.data {
            Data::Float(values) => Some(values),
            Data::Int(_) => None,
        }
    }

    /// Elements of a tensor of an integer type or `bool`, row-major; `u64` as the bits of an `i64`.
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Float(_) => None,
            Data::Int(values) => Some(values),
        }
    }

    /// Error bound of an element by its row-major index: infinite if it is undetermined. 0 past the end.
    pub fn err(&self, index: usize) -> f64 {
        self.err.get(index).copied().unwrap_or(0.0)
    }

    /// The element with its bound; integers convert.
    pub(super) fn num(&self, index: usize) -> Num {
        let v = match &self.data {
            Data::Float(values) => values[index],
            Data::Int(values) if self.ty.dtype() == DType::U64 => values[index] as u64 as f64,
            Data::Int(values) => values[index] as f64,
        };
        Num { v, e: self.err(index) }
    }

    /// The integer with its bound; floats truncate.
    pub(super) fn int(&self, index: usize) -> (i64, f64) {
        let v = match &self.data {
            Data::Float(values) => values[index] as i64,
            Data::Int(values) => values[index],
        };
        (v, self.err(index))
    }

    /// The elements at some indices, as a tensor of the given type.
    pub(super) fn at(&self, ty: TensorType, indices: impl Iterator<Item = usize> + Clone) -> Self {
        let err = if self.err.is_empty() { Vec::new() } else { indices.clone().map(|i| self.err[i]).collect() };
        let data = match &self.data {
            Data::Float(values) => Data::Float(indices.map(|i| values[i]).collect()),
            Data::Int(values) => Data::Int(indices.map(|i| values[i]).collect()),
        };
        Self::new(ty, data, err)
    }

    /// The tensor rounded to its element type.
    pub fn to_tensor(&self) -> Tensor {
        let bytes = element_bytes(self.ty.dtype(), &self.data);
        match Tensor::new(self.ty.clone(), bytes) {
            Ok(tensor) => tensor,
            // There are as many elements as the shape says, so this is never reached.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Compares a tensor of the same type with this one.
    ///
    /// # Errors
    /// When the types differ.
    pub fn check(&self, actual: &Tensor) -> Result<Comparison, TypeMismatch> {
        if actual.ty() != &self.ty {
            return Err(TypeMismatch { expected: self.ty.clone(), actual: actual.ty().clone() });
        }
        let actual = Self::from_tensor(actual);
        let mut result =
            Comparison { max_abs: 0.0, max_rel: 0.0, cosine: 1.0, outside: 0, first_outside: None, undetermined: 0 };
        let (mut dot, mut norm, mut actual_norm) = (0.0, 0.0, 0.0);
        for i in 0..self.ty.elems() as usize {
            let (expected, actual_value) = (self.num(i), actual.num(i).v);
            let inside = match (&self.data, &actual.data) {
                (Data::Int(x), Data::Int(y)) => x[i] == y[i],
                _ if expected.v.is_nan() => actual_value.is_nan(),
                _ => expected.v == actual_value || (actual_value - expected.v).abs() <= expected.e,
            };
            if expected.is_undetermined() {
                result.undetermined += 1;
            } else if !inside {
                result.outside += 1;
                result.first_outside.get_or_insert(i as u64);
            }
            if expected.v.is_finite() && actual_value.is_finite() {
                let difference = (actual_value - expected.v).abs();
                result.max_abs = result.max_abs.max(difference);
                if expected.v != 0.0 {
                    result.max_rel = result.max_rel.max(difference / expected.v.abs());
                }
                dot += expected.v * actual_value;
                norm += expected.v * expected.v;
                actual_norm += actual_value * actual_value;
            }
        }
        result.cosine = match (norm > 0.0, actual_norm > 0.0) {
            (true, true) => dot / (norm.sqrt() * actual_norm.sqrt()),
            (false, false) => 1.0,
            _ => 0.0,
        };
        Ok(result)
    }
}

fn element_bytes(dtype: DType, data: &Data) -> Bytes {
    let bytes: Vec<u8> = match data {
        Data::Float(values) => match dtype {
            DType::F16 => values.iter().flat_map(|&v| half::f16::from_f64(v).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&v| half::bf16::from_f64(v).to_le_bytes()).collect(),
            DType::F64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::F32
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        },
        Data::Int(values) => {
            let size = dtype.bytes() as usize;
            // Little-endian, so the low bytes come first.
            values.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect()
        }
    };
    bytes.into()
}
