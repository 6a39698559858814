//! Constants: `TensorProto` to [`Tensor`].
//!
//! Raw data is taken as a range of the file's buffer, external data as a range that [`Files`] returns; only elements
//! in typed fields are copied. The number of bytes must be exactly that of the shape.

use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;

use super::schema::{TensorProto, data_type};
use crate::builder::{Builder, Reason};
use crate::error::ReadError;
use crate::files::{FileName, Files};

/// Why a constant is not read.
pub(super) enum TensorError {
    /// The element type is not supported; its name.
    DType(String),
    /// The message is broken or its data cannot be read.
    Broken(ReadError),
}

pub(super) fn broken(name: &str, text: impl std::fmt::Display) -> TensorError {
    TensorError::Broken(ReadError::Malformed(format!("constant `{name}`: {text}")))
}

/// The element type for ONNX's number, or the name of a type that is not supported.
pub(super) fn dtype(number: i32) -> Result<DType, String> {
    Ok(match number {
        data_type::FLOAT => DType::F32,
        data_type::UINT8 => DType::U8,
        data_type::INT8 => DType::I8,
        data_type::UINT16 => DType::U16,
        data_type::INT16 => DType::I16,
        data_type::INT32 => DType::I32,
        data_type::INT64 => DType::I64,
        data_type::BOOL => DType::Bool,
        data_type::FLOAT16 => DType::F16,
        data_type::DOUBLE => DType::F64,
        data_type::UINT32 => DType::U32,
        data_type::UINT64 => DType::U64,
        data_type::BFLOAT16 => DType::BF16,
        data_type::STRING => return Err("string".to_owned()),
        14 | 15 => return Err("complex".to_owned()),
        17..=20 | 24 => return Err("8-bit float".to_owned()),
        21 | 22 | 25 | 26 => return Err("integer of less than 8 bits".to_owned()),
        23 | 27 | 28 => return Err("float of less than 8 bits".to_owned()),
        other => return Err(format!("number {other}")),
    })
}

/// Reads a constant. `name` is used in errors.
pub(super) fn tensor(
    proto: &TensorProto,
    name: &str,
    files: &dyn Files,
    builder: &mut Builder,
) -> Result<Tensor, TensorError> {
    let dtype = dtype(proto.data_type).map_err(TensorError::DType)?;
    let dims: Option<Vec<u64>> = proto.dims.iter().map(|&d| u64::try_from(d).ok()).collect();
    let dims = dims.ok_or_else(|| broken(name, format_args!("shape {:?} has negative dimensions", proto.dims)))?;
    let ty = TensorType::new(dtype, dims).map_err(|e| broken(name, e))?;
    match proto.raw_data.is_some() && dtype != DType::Bool {
        true => content(proto, ty, name, files, builder),
        // What is copied, checked or looked up is so once.
        false => {
            let address = std::ptr::from_ref(proto).addr();
            builder.copied_once(address, |builder| content(proto, ty, name, files, builder))
        }
    }
}

/// The elements of a constant, and its type with them.
fn content(
    proto: &TensorProto,
    ty: TensorType,
    name: &str,
    files: &dyn Files,
    builder: &mut Builder,
) -> Result<Tensor, TensorError> {
    let dtype = ty.dtype();
    let external = proto.data_location == 1;
    let typed = typed_data(proto, dtype, name)?;
    let bytes = match (&proto.raw_data, typed, external) {
        (None, None, true) => external_data(proto, &ty, name, files)?,
        (Some(raw), None, false) => raw.clone(),
        (None, Some(typed), false) => typed,
        (None, None, false) => Bytes::new(),
        _ => return Err(broken(name, "has its data in several places")),
    };
    if dtype == DType::Bool && external {
        // Any number of constants may name the same bytes of another file, and these are read and may be copied.
        builder.charge(bytes.len() as u64).map_err(|Reason(text)| broken(name, text))?;
    }
    let bytes = if dtype == DType::Bool { truth_values(bytes) } else { bytes };
    Tensor::new(ty, bytes).map_err(|e| broken(name, e))
}

/// Elements of the typed field that belongs to the element type; `None` when all typed fields are empty.
fn typed_data(proto: &TensorProto, dtype: DType, name: &str) -> Result<Option<Bytes>, TensorError> {
    let lengths = [
        proto.float_data.len(),
        proto.int32_data.len(),
        proto.int64_data.len(),
        proto.double_data.len(),
        proto.uint64_data.len(),
    ];
    if lengths.iter().all(|&n| n == 0) {
        return Ok(None);
    }
    if lengths.iter().filter(|&&n| n > 0).count() > 1 {
        return Err(broken(name, "has its data in several places"));
    }
    let range = |_| broken(name, format_args!("an element does not fit {dtype}"));
    let ints = &proto.int32_data;
    let bytes: Vec<u8> = match dtype {
        DType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => {
            let values: Result<Vec<u32>, _> = proto.uint64_data.iter().map(|&v| u32::try_from(v)).collect();
            values.map_err(range)?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        DType::I32 => ints.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I16 => {
            let values: Result<Vec<i16>, _> = ints.iter().map(|&v| i16::try_from(v)).collect();
            values.map_err(range)?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        DType::I8 => {
            let values: Result<Vec<i8>, _> = ints.iter().map(|&v| i8::try_from(v)).collect();
            values.map_err(range)?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        // 16-bit floats are stored as their bits.
        DType::U16 | DType::F16 | DType::BF16 => {
            let values: Result<Vec<u16>, _> = ints.iter().map(|&v| u16::try_from(v)).collect();
            values.map_err(range)?.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        DType::U8 => ints.iter().map(|&v| u8::try_from(v)).collect::<Result<_, _>>().map_err(range)?,
        DType::Bool => ints.iter().map(|&v| u8::from(v != 0)).collect(),
    };
    if bytes.is_empty() {
        return Err(broken(name, format_args!("its elements are in a field that is not that of {dtype}")));
    }
    Ok(Some(bytes.into()))
}

/// Truth values are stored as 0 and 1; files may hold any other byte for true.
fn truth_values(bytes: Bytes) -> Bytes {
    if bytes.iter().all(|&b| b <= 1) { bytes } else { bytes.iter().map(|&b| u8::from(b != 0)).collect() }
}

/// The range of another file that `external_data` names.
fn external_data(proto: &TensorProto, ty: &TensorType, name: &str, files: &dyn Files) -> Result<Bytes, TensorError> {
    let (mut location, mut offset, mut length) = (None, 0, None);
    for entry in &proto.external_data {
        let number = || {
            entry.value.parse::<u64>().map_err(|_| {
                broken(name, format_args!("external data has {} {:?}, which is no number", entry.key, entry.value))
            })
        };
        match entry.key.as_str() {
            "location" => location = Some(entry.value.as_str()),
            "offset" => offset = number()?,
            "length" => length = Some(number()?),
            // `checksum` and keys of other tools do not change what is read.
            _ => {}
        }
    }
    let location = location.ok_or_else(|| broken(name, "external data has no location"))?;
    if let Some(length) = length.filter(|&n| n != ty.bytes()) {
        return Err(broken(name, format_args!("{ty} needs {} bytes, but external data has {length}", ty.bytes())));
    }
    let located = |e| broken(name, e);
    let file = FileName::new(location).map_err(located)?;
    files.read_range(&file, offset, ty.bytes()).map_err(located)
}
