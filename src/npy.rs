//! Arrays in numpy's `.npy` format, read and written.
//!
//! Format: `\x93NUMPY`, version, length of the header, a Python dictionary with `descr`, `fortran_order` and `shape`, data
//! (numpy/lib/format.py, "Format Version 1.0" to "3.0"). Only plain little-endian element types are taken; arrays in
//! Fortran order are brought into row-major order. bfloat16, which numpy does not know, is the two-byte void `V2` that the
//! `ml_dtypes` package writes.
//!
//! The header is read here and not by a crate, because those at hand evaluate it as a general Python literal with a
//! parser generator and big integers behind it, and the three keys need neither.

use aic_ir::types::{DType, Tensor, TensorType};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Why an array file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// Not in the format.
    #[error("not a valid .npy array: {0}")]
    Malformed(&'static str),
    /// The element type is not one that models have.
    #[error("element type `{0}` is not supported; use little-endian floats, integers or bool")]
    ElementType(String),
    /// The shape passes a limit.
    #[error(transparent)]
    Shape(#[from] aic_ir::types::ShapeError),
    /// The data is shorter or longer than the shape says.
    #[error("{ty} needs {} bytes, but the file has {actual_bytes}", ty.bytes())]
    Size {
        /// The declared type.
        ty: TensorType,
        /// Size of the data.
        actual_bytes: usize,
    },
    /// The archive around the arrays cannot be read.
    #[error("not a valid .npz archive: {0}")]
    Archive(String),
    /// An archive has no array of that name.
    #[error("the archive has no array `{name}`; it has {has}")]
    Missing {
        /// The name asked for.
        name: String,
        /// The names there are.
        has: String,
    },
}

/// Reads one array.
///
/// # Errors
/// [`NpyError`] for anything but a complete array of a supported element type.
pub fn read(bytes: &[u8]) -> Result<Tensor, NpyError> {
    use NpyError::Malformed;
    let rest = bytes.strip_prefix(MAGIC).ok_or(Malformed("the magic string is missing"))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Malformed("it ends inside the header"))?;
    let (length, rest) = match version[0] {
        1 => {
            let (n, rest) = rest.split_first_chunk::<2>().ok_or(Malformed("it ends inside the header"))?;
            (u64::from(u16::from_le_bytes(*n)), rest)
        }
        2 | 3 => {
            let (n, rest) = rest.split_first_chunk::<4>().ok_or(Malformed("it ends inside the header"))?;
            (u64::from(u32::from_le_bytes(*n)), rest)
        }
        _ => return Err(Malformed("the version is not 1, 2 or 3")),
    };
    if length > rest.len() as u64 {
        return Err(Malformed("it ends inside the header"));
    }
    let (header, data) = rest.split_at(length as usize);
    let header = std::str::from_utf8(header).map_err(|_| Malformed("the header is not text"))?;
    let Header { dtype, fortran_order, shape } = Header::parse(header)?;
    let ty = TensorType::new(dtype, shape)?;
    if ty.bytes() != data.len() as u64 {
        return Err(NpyError::Size { ty, actual_bytes: data.len() });
    }
    let data = if fortran_order { to_row_major(&ty, data) } else { data.to_vec() };
    Tensor::new(ty.clone(), data.into()).map_err(|e| NpyError::Size { ty, actual_bytes: e.actual_bytes })
}

/// Writes one array, in row-major order.
pub fn write(tensor: &Tensor) -> Vec<u8> {
    let descr = match tensor.ty().dtype() {
        DType::F16 => "<f2",
        DType::BF16 => "|V2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
    };
    let dims: String = tensor.ty().shape().iter().map(|d| format!("{d}, ")).collect();
    let dims = if tensor.ty().rank() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data starts at a multiple of 64; ranks are bounded, so the header is shorter than a u16 can say.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut out = Vec::with_capacity(10 + header.len() + tensor.bytes().len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(tensor.bytes());
    out
}

/// The three keys of a header.
struct Header {
    dtype: DType,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, NpyError> {
        use NpyError::Malformed;
        let descr = value_of(text, "descr")?;
        let descr = quoted(descr).ok_or_else(|| NpyError::ElementType(descr.chars().take(60).collect()))?;
        let fortran_order = match value_of(text, "fortran_order")? {
            v if v.starts_with("True") => true,
            v if v.starts_with("False") => false,
            _ => return Err(Malformed("`fortran_order` is neither True nor False")),
        };
        let shape = value_of(text, "shape")?;
        let dims = shape
            .strip_prefix('(')
            .and_then(|s| s.split_once(')'))
            .ok_or(Malformed("`shape` is not a tuple"))?
            .0
            .trim()
            .trim_end_matches(',');
        let shape = match dims {
            "" => Vec::new(),
            dims => dims
                .split(',')
                .map(|d| d.trim().trim_end_matches('L').parse())
                .collect::<Result<_, _>>()
                .map_err(|_| Malformed("`shape` is not a tuple of numbers"))?,
        };
        Ok(Header { dtype: dtype_of(descr)?, fortran_order, shape })
    }
}

/// The text after `'key':`.
fn value_of<'a>(text: &'a str, key: &str) -> Result<&'a str, NpyError> {
    let after = |quote: char| text.split_once(&format!("{quote}{key}{quote}"));
    let (_, rest) = after('\'').or_else(|| after('"')).ok_or(NpyError::Malformed("a key of the header is missing"))?;
    let value = rest.trim_start().strip_prefix(':').ok_or(NpyError::Malformed("the header is not a dictionary"))?;
    Ok(value.trim_start())
}

/// The string literal at the start of a text; `None` for structured types, whose `descr` is a list.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote).map(|(inner, _)| inner)
}

fn dtype_of(descr: &str) -> Result<DType, NpyError> {
    let refused = || NpyError::ElementType(descr.chars().take(60).collect());
    let code = match descr.as_bytes().first() {
        Some(b'<' | b'|') => &descr[1..],
        // `=` is the native order; files are written on little-endian hosts alone as long as this is one.
        Some(b'=') if cfg!(target_endian = "little") => &descr[1..],
        Some(b'>') if descr.ends_with('1') => &descr[1..],
        _ => return Err(refused()),
    };
    Ok(match code {
        "f2" => DType::F16,
        "V2" => DType::BF16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        _ => return Err(refused()),
    })
}

/// Reorders dense data from Fortran order, first dimension fastest, to row-major. `data` has the size of `ty`.
fn to_row_major(ty: &TensorType, data: &[u8]) -> Vec<u8> {
    let size = ty.dtype().bytes() as usize;
    let shape: Vec<usize> = ty.shape().iter().map(|&d| d as usize).collect();
    let mut strides = vec![size; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0usize; shape.len()];
    let mut out = Vec::with_capacity(data.len());
    while out.len() < data.len() {
        let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        out.extend_from_slice(&data[at..at + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        for shape in [vec![], vec![3], vec![2, 0], vec![2, 3, 4]] {
            for dtype in DType::ALL {
                let ty = TensorType::new(dtype, shape.clone()).expect("small");
                let bytes: Vec<u8> = (0..ty.bytes()).map(|i| (i % 2) as u8).collect();
                let tensor = Tensor::new(ty, bytes.into()).expect("size fits");
                let written = write(&tensor);
                assert_eq!((written.len() - tensor.bytes().len()) % 64, 0);
                assert_eq!(read(&written), Ok(tensor));
            }
        }
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n";
        let tensor = read(&file(header, &[1, 4, 2, 5, 3, 6])).expect("valid");
        assert_eq!(tensor.bytes().as_ref(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = write(&Tensor::from_f32([2, 2], &[1.0, 2.0, 3.0, 4.0]).expect("fits"));
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "cut at {end}");
        }
        let text = |header: &str| read(&file(header, &[0; 8])).map_err(|e| e.to_string());
        let order = "'fortran_order': False";
        assert!(text(&format!("{{'descr': '>f4', {order}, 'shape': (2,)}}")).is_err_and(|e| e.contains(">f4")));
        assert!(text(&format!("{{'descr': [('a', '<f4')], {order}, 'shape': (2,)}}")).is_err());
        assert!(text(&format!("{{'descr': '<f4', {order}, 'shape': (3,)}}")).is_err_and(|e| e.contains("12 bytes")));
        assert!(text(&format!("{{'descr': '<f4', {order}, 'shape': (-1,)}}")).is_err());
        assert!(text(&format!("{{'descr': '<f4', {order}, 'shape': (9999999999, 9999999999)}}")).is_err());
    }
}
