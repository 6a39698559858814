//! Element types, shapes and constants: the vocabulary that every level shares.
//!
//! Shapes come from model files, which are hostile: every product of dimensions goes through [`element_count`], which
//! reports overflow instead of wrapping, and is bounded by [`MAX_ELEMENTS`] so that later address arithmetic in `i64`
//! cannot overflow either.

use std::fmt;

use bytes::Bytes;

/// Largest number of elements of one tensor. Leaves room for byte offsets of any element type in an `i64`.
pub const MAX_ELEMENTS: u64 = 1 << 40;

/// Largest rank of a tensor.
pub const MAX_RANK: usize = 16;

/// Element type of a tensor. Storage is little-endian and unpadded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Truth value in one byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every element type, in declaration order.
    pub const ALL: [DType; 13] = [
        DType::F16,
        DType::BF16,
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ];

    /// Size of one element in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Whether this is an integer type; truth values are not integers.
    pub fn is_int(self) -> bool {
        !self.is_float() && self != DType::Bool
    }

    /// Whether this is a signed integer type.
    pub fn is_signed_int(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }

    /// The name in text forms: `f32`, `i64`, `bool`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
        }
    }

    /// The element type of that text name, if there is one.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a shape is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The product of the dimensions passes [`MAX_ELEMENTS`].
    #[error("shape {0:?} has more than 2^40 elements")]
    TooLarge(Vec<u64>),
    /// More than [`MAX_RANK`] dimensions.
    #[error("rank {0} is above the limit of {MAX_RANK}")]
    RankTooHigh(usize),
}

/// Number of elements of a shape; 1 for a scalar. Dimensions of 0 count as 1 towards the limit, so that every product of
/// some of the dimensions (a stride, the size of a part) stays below it too.
pub fn element_count(shape: &[u64]) -> Result<u64, ShapeError> {
    if shape.len() > MAX_RANK {
        return Err(ShapeError::RankTooHigh(shape.len()));
    }
    let nonzero = shape
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d.max(1)).filter(|&n| n <= MAX_ELEMENTS))
        .ok_or_else(|| ShapeError::TooLarge(shape.to_vec()))?;
    Ok(if shape.contains(&0) { 0 } else { nonzero })
}

/// Element type and static shape of a tensor. Constructed only through [`TensorType::new`], so the element count and
/// the byte size are known not to overflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    dtype: DType,
    shape: Vec<u64>,
}

impl TensorType {
    /// Checks the shape against the limits and builds the type.
    pub fn new(dtype: DType, shape: impl Into<Vec<u64>>) -> Result<Self, ShapeError> {
        let shape = shape.into();
        element_count(&shape)?;
        Ok(Self { dtype, shape })
    }

    /// A rank-0 tensor of one element.
    pub fn scalar(dtype: DType) -> Self {
        Self { dtype, shape: Vec::new() }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn elems(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Size in bytes when stored densely.
    pub fn bytes(&self) -> u64 {
        self.elems() * self.dtype.bytes()
    }

    /// The same shape with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Self { dtype, shape: self.shape.clone() }
    }
}

impl fmt::Display for TensorType {
    /// `f32[1, 128, 384]`, `i64[]` for a scalar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// A constant tensor: a type and its dense little-endian bytes, row-major.
///
/// `bytes` is a range of a buffer that the driver read once ([`Bytes`] counts references), so a 90 MB model is in
/// memory once however often its tensors are passed around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    ty: TensorType,
    bytes: Bytes,
}

/// A constant whose bytes do not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ty} needs {} bytes, but {actual_bytes} are given", ty.bytes())]
pub struct TensorSizeError {
    /// The declared type.
    pub ty: TensorType,
    /// How many bytes there are.
    pub actual_bytes: usize,
}

impl Tensor {
    /// Pairs a type with its bytes, whose number must be exactly right.
    pub fn new(ty: TensorType, bytes: Bytes) -> Result<Self, TensorSizeError> {
        if ty.bytes() == bytes.len() as u64 {
            Ok(Self { ty, bytes })
        } else {
            Err(TensorSizeError { ty, actual_bytes: bytes.len() })
        }
    }

    /// A tensor of 32-bit floats. Fails if the number of values is not that of the shape.
    pub fn from_f32(shape: impl Into<Vec<u64>>, values: &[f32]) -> Option<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(TensorType::new(DType::F32, shape).ok()?, bytes.into()).ok()
    }

    /// A tensor of 64-bit integers. Fails if the number of values is not that of the shape.
    pub fn from_i64(shape: impl Into<Vec<u64>>, values: &[i64]) -> Option<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(TensorType::new(DType::I64, shape).ok()?, bytes.into()).ok()
    }

    /// A rank-0 tensor of one 32-bit float.
    pub fn scalar_f32(value: f32) -> Self {
        Self { ty: TensorType::scalar(DType::F32), bytes: Bytes::copy_from_slice(&value.to_le_bytes()) }
    }

    /// Type of the tensor.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Dense little-endian bytes, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same bytes under another shape of as many elements.
    pub fn reshaped(&self, shape: impl Into<Vec<u64>>) -> Option<Self> {
        Self::new(TensorType::new(self.ty.dtype, shape).ok()?, self.bytes.clone()).ok()
    }

    /// Element `index` in row-major order as a float, whatever the element type; integers above 2^53 round.
    /// `None` past the end.
    pub fn get_f64(&self, index: u64) -> Option<f64> {
        let size = self.ty.dtype.bytes();
        let start = usize::try_from(index.checked_mul(size)?).ok()?;
        let b = self.bytes.get(start..start.checked_add(size as usize)?)?;
        Some(match self.ty.dtype {
            DType::F16 => half::f16::from_le_bytes(b.try_into().ok()?).to_f64(),
            DType::BF16 => half::bf16::from_le_bytes(b.try_into().ok()?).to_f64(),
            DType::F32 => f64::from(f32::from_le_bytes(b.try_into().ok()?)),
            DType::F64 => f64::from_le_bytes(b.try_into().ok()?),
            DType::U64 => u64::from_le_bytes(b.try_into().ok()?) as f64,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::Bool => {
                self.get_i64(index)? as f64
            }
        })
    }

    /// Element `index` in row-major order as an integer; `None` past the end or for floating-point tensors.
    pub fn get_i64(&self, index: u64) -> Option<i64> {
        let size = self.ty.dtype.bytes();
        let start = usize::try_from(index.checked_mul(size)?).ok()?;
        let b = self.bytes.get(start..start.checked_add(size as usize)?)?;
        Some(match self.ty.dtype {
            DType::I8 => i64::from(i8::from_le_bytes(b.try_into().ok()?)),
            DType::I16 => i64::from(i16::from_le_bytes(b.try_into().ok()?)),
            DType::I32 => i64::from(i32::from_le_bytes(b.try_into().ok()?)),
            DType::I64 => i64::from_le_bytes(b.try_into().ok()?),
            DType::U8 | DType::Bool => i64::from(*b.first()?),
            DType::U16 => i64::from(u16::from_le_bytes(b.try_into().ok()?)),
            DType::U32 => i64::from(u32::from_le_bytes(b.try_into().ok()?)),
            DType::U64 => u64::from_le_bytes(b.try_into().ok()?) as i64,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => return None,
        })
    }
}
