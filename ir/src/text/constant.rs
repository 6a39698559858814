//! Types and constants in text forms: small constants inline, large ones as a hash into a side file.
//!
//! A text of a 90 MB model stays readable because a constant of more than [`MAX_INLINE`] elements prints as the
//! [`ContentHash`] of its bytes; [`SideConsts`] maps hashes back to bytes and has a file form of its own. It sits here
//! rather than with the graph because tile programs hold the same constants.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::{Cursor, Float, ParseError, Token};
use crate::types::{DType, Tensor, TensorType};

/// Largest number of elements that are printed inline.
pub const MAX_INLINE: u64 = 16;

/// Hash of a constant's bytes: 128 bits of multiply-and-rotate over 64-bit words. It identifies content among the
/// constants of one program; it does not resist forgery, so readers of side files compute it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        // Offset basis and prime of the 128-bit FNV hash (draft-eastlake-fnv). FNV takes bytes; over words, the rotation
        // carries high bits down into the next multiplication.
        const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = (1 << 88) + 0x13b;
        let step = |state: u128, word: u64| (state ^ u128::from(word)).wrapping_mul(PRIME).rotate_left(67);
        let (words, tail) = bytes.as_chunks::<8>();
        let mut state = words.iter().fold(BASIS, |state, w| step(state, u64::from_le_bytes(*w)));
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        state = step(state, u64::from_le_bytes(last));
        Self(step(step(state, bytes.len() as u64), 0))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:032x}", self.0)
    }
}

/// Constants that a text names by hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideConsts {
    entries: BTreeMap<ContentHash, Bytes>,
}

/// Why bytes are not a side file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SideError {
    /// The first bytes are not those of a side file.
    #[error("not a file of constants")]
    Magic,
    /// The file ends inside the entry at that byte.
    #[error("the file of constants ends inside the entry at byte {0}")]
    Truncated(usize),
}

impl SideConsts {
    const MAGIC: &[u8; 8] = b"aiccnst1";

    /// No constants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a constant if it is too large to print inline.
    pub fn add(&mut self, tensor: &Tensor) {
        if tensor.ty().elems() > MAX_INLINE {
            self.entries.insert(ContentHash::of(tensor.bytes()), tensor.bytes().clone());
        }
    }

    /// The bytes with that hash.
    pub fn get(&self, hash: ContentHash) -> Option<&Bytes> {
        self.entries.get(&hash)
    }

    /// Whether there are no constants.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The side file in parts, to be written one after the other: a magic number, then per constant its length as
    /// 64 bits, little-endian, and its bytes. Parts share the constants' memory.
    pub fn file_parts(&self) -> Vec<Bytes> {
        let mut parts = vec![Bytes::from_static(Self::MAGIC)];
        for bytes in self.entries.values() {
            parts.push(Bytes::copy_from_slice(&(bytes.len() as u64).to_le_bytes()));
            parts.push(bytes.clone());
        }
        parts
    }

    /// Reads a side file; the constants share its memory.
    ///
    /// # Errors
    /// When the bytes are not a side file, or end early.
    pub fn from_file(mut file: Bytes) -> Result<Self, SideError> {
        let total = file.len();
        if !file.starts_with(Self::MAGIC) {
            return Err(SideError::Magic);
        }
        let mut entries = BTreeMap::new();
        file = file.slice(Self::MAGIC.len()..);
        while !file.is_empty() {
            let truncated = SideError::Truncated(total - file.len());
            let Some((length, _)) = file.split_first_chunk::<8>() else { return Err(truncated) };
            let length = usize::try_from(u64::from_le_bytes(*length)).ok();
            let Some(end) = length.and_then(|n| n.checked_add(8)).filter(|&end| end <= file.len()) else {
                return Err(truncated);
            };
            let bytes = file.slice(8..end);
            entries.insert(ContentHash::of(&bytes), bytes);
            file = file.slice(end..);
        }
        Ok(Self { entries })
    }
}

/// Writes a constant's contents as [`Cursor::constant`] reads them: `[1.0, 2.0]`, or a hash.
#[derive(Clone, Copy, Debug)]
pub struct Constant<'a>(pub &'a Tensor);

impl fmt::Display for Constant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Constant(tensor) = self;
        if tensor.ty().elems() > MAX_INLINE {
            return write!(f, "{}", ContentHash::of(tensor.bytes()));
        }
        f.write_str("[")?;
        for (i, bytes) in tensor.bytes().chunks_exact(tensor.ty().dtype().bytes() as usize).enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            // Little-endian, so the bits of the element are the low bits here.
            let mut wide = [0; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            write!(f, "{}", Element(tensor.ty().dtype(), u64::from_le_bytes(wide)))?;
        }
        f.write_str("]")
    }
}

/// Writes one element, given by its bits, as [`Cursor::element`] reads it.
#[derive(Clone, Copy, Debug)]
pub struct Element(pub DType, pub u64);

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Element(dtype, bits) = self;
        match dtype {
            DType::F16 => write!(f, "{}", Float(half::f16::from_bits(bits as u16))),
            DType::BF16 => write!(f, "{}", Float(half::bf16::from_bits(bits as u16))),
            DType::F32 => write!(f, "{}", Float(f32::from_bits(bits as u32))),
            DType::F64 => write!(f, "{}", Float(f64::from_bits(bits))),
            DType::I8 => write!(f, "{}", bits as i8),
            DType::I16 => write!(f, "{}", bits as i16),
            DType::I32 => write!(f, "{}", bits as i32),
            DType::I64 => write!(f, "{}", bits as i64),
            DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => write!(f, "{bits}"),
        }
    }
}

impl Cursor<'_> {
    /// Takes a type as [`TensorType`] prints it.
    ///
    /// # Errors
    /// When another token is at hand, or the shape passes the limits.
    pub fn tensor_type(&mut self) -> Result<TensorType, ParseError> {
        let start = self.offset();
        let dtype = self.dtype()?;
        let shape = self.list("[", "]", Self::u64)?;
        TensorType::new(dtype, shape).map_err(|e| self.error_at(start, e.to_string()))
    }

    /// Takes the name of an element type.
    ///
    /// # Errors
    /// When another token is at hand.
    pub fn dtype(&mut self) -> Result<DType, ParseError> {
        let dtype = match self.peek() {
            Token::Word(name) => DType::from_name(name),
            Token::Number(_) | Token::Hash(_) | Token::Str(_) | Token::Punct(_) | Token::End => None,
        };
        let dtype = dtype.ok_or_else(|| self.expected("an element type"))?;
        self.take()?;
        Ok(dtype)
    }

    /// Takes the contents of a constant of the given type: a list of its elements, or a hash that `side` knows.
    ///
    /// # Errors
    /// When an element does not fit the type, their number does not fit the shape, or the hash is unknown.
    pub fn constant(&mut self, ty: TensorType, side: Option<&SideConsts>) -> Result<Tensor, ParseError> {
        let start = self.offset();
        let bytes = if let Token::Hash(digits) = *self.peek() {
            let hash = u128::from_str_radix(digits, 16).ok().map(ContentHash);
            let bytes = hash.and_then(|hash| side?.get(hash)).cloned();
            let bytes = bytes.ok_or_else(|| self.error(format!("the file of constants has no `#{digits}`")))?;
            self.take()?;
            bytes
        } else {
            let elements = self.list("[", "]", |c| c.element(ty.dtype()))?;
            let size = ty.dtype().bytes() as usize;
            elements.iter().flat_map(|e| e.to_le_bytes().into_iter().take(size)).collect()
        };
        Tensor::new(ty, bytes).map_err(|e| self.error_at(start, e.to_string()))
    }

    /// Takes an element as [`Element`] prints it, and gives its bits, zero-extended.
    ///
    /// # Errors
    /// When another token is at hand, or an integer does not fit the type.
    pub fn element(&mut self, dtype: DType) -> Result<u64, ParseError> {
        let bits = match dtype {
            DType::F16 => u64::from(self.float::<half::f16>()?.to_bits()),
            DType::BF16 => u64::from(self.float::<half::bf16>()?.to_bits()),
            DType::F32 => u64::from(self.float::<f32>()?.to_bits()),
            DType::F64 => self.float::<f64>()?.to_bits(),
            DType::I8 => self.integer(i8::MIN.into(), i8::MAX.into())?,
            DType::I16 => self.integer(i16::MIN.into(), i16::MAX.into())?,
            DType::I32 => self.integer(i32::MIN.into(), i32::MAX.into())?,
            DType::I64 => self.integer(i64::MIN.into(), i64::MAX.into())?,
            DType::U8 => self.integer(0, u8::MAX.into())?,
            DType::U16 => self.integer(0, u16::MAX.into())?,
            DType::U32 => self.integer(0, u32::MAX.into())?,
            DType::U64 => self.integer(0, u64::MAX.into())?,
            DType::Bool => self.integer(0, 1)?,
        };
        Ok(if dtype.bytes() == 8 { bits } else { bits & ((1 << (8 * dtype.bytes())) - 1) })
    }

    /// Takes an integer in a range; the result holds its low 64 bits.
    fn integer(&mut self, min: i128, max: i128) -> Result<u64, ParseError> {
        let start = self.offset();
        let value = self.i128()?;
        if (min..=max).contains(&value) {
            Ok(value as u64)
        } else {
            Err(self.error_at(start, format!("{value} is not in {min} to {max}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[u64], bytes: &[u8]) -> Tensor {
        Tensor::new(TensorType::new(dtype, shape).unwrap(), Bytes::copy_from_slice(bytes)).unwrap()
    }

    #[test]
    fn every_element_type_survives() {
        for dtype in DType::ALL {
            let size = dtype.bytes() as usize;
            for fill in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = vec![fill; size];
                bytes.extend((0..size).map(|i| i as u8));
                if dtype == DType::Bool {
                    bytes = vec![fill & 1, 1];
                }
                let original = tensor(dtype, &[2], &bytes);
                let text = Constant(&original).to_string();
                let read = Cursor::new(&text).unwrap().constant(original.ty().clone(), None);
                assert_eq!(read, Ok(original), "{text}");
            }
        }
        let none = tensor(DType::F32, &[0, 3], &[]);
        assert_eq!(Cursor::new("[]").unwrap().constant(none.ty().clone(), None), Ok(none));
    }

    #[test]
    fn elements_are_checked() {
        let read = |text: &str, dtype, shape: &[u64]| {
            Cursor::new(text).unwrap().constant(TensorType::new(dtype, shape).unwrap(), None).is_ok()
        };
        assert!(read("[-128]", DType::I8, &[1]));
        assert!(!read("[128]", DType::I8, &[1]));
        assert!(!read("[-1]", DType::U64, &[1]));
        assert!(!read("[2]", DType::Bool, &[1]));
        assert!(!read("[1.5]", DType::I32, &[1]));
        assert!(!read("[1.5, 2]", DType::F32, &[1]));
        assert!(!read("[1.5]", DType::F32, &[1 << 40]));
        assert!(!read("#00", DType::F32, &[1]));
    }

    #[test]
    fn large_constants_go_to_the_side() {
        let bytes: Vec<u8> = (0..17 * 4).collect();
        let large = tensor(DType::F32, &[17], &bytes);
        let small = tensor(DType::F32, &[16], &bytes[4..]);
        let mut side = SideConsts::new();
        side.add(&small);
        assert!(side.is_empty());
        side.add(&large);
        side.add(&large);
        let file: Bytes = side.file_parts().concat().into();
        assert_eq!(file.len(), 8 + 8 + 17 * 4);
        let read = SideConsts::from_file(file.clone()).unwrap();
        assert_eq!(read, side);
        let text = Constant(&large).to_string();
        assert!(text.starts_with('#'));
        assert_eq!(Cursor::new(&text).unwrap().constant(large.ty().clone(), Some(&read)), Ok(large));
        for end in 0..file.len() {
            let expected = if end < 8 { Some(SideError::Magic) } else { Some(SideError::Truncated(8)) };
            let expected = expected.filter(|_| end != 8);
            assert_eq!(SideConsts::from_file(file.slice(..end)).err(), expected);
        }
        let hostile = [SideConsts::MAGIC.as_slice(), &[0xff; 8]].concat();
        assert_eq!(SideConsts::from_file(hostile.into()), Err(SideError::Truncated(8)));
    }

    #[test]
    fn hashes_differ() {
        let zeros = [0u8; 64];
        let mut hashes: Vec<ContentHash> = (0..64).map(|n| ContentHash::of(&zeros[..n])).collect();
        for i in 0..64 {
            let mut bytes = zeros;
            bytes[i] = 1;
            hashes.push(ContentHash::of(&bytes));
        }
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 128);
    }
}
