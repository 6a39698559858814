//! The memory of a run: the stored bytes of every buffer, and which elements were ever written.

use bytes::Bytes;

use super::InterpErrorKind;
use super::access::FILL;
use crate::tile::Buffer;
use crate::types::DType;

/// Stored bytes of one buffer.
#[derive(Debug, Default)]
pub(super) enum Memory {
    /// Not used by the program.
    #[default]
    Absent,
    /// Inputs and constants.
    Shared(Bytes),
    /// What the program writes: bytes, and for each element whether it was written.
    Owned(Vec<u8>, Vec<bool>),
}

/// Reads the element at `offset` as zero-extended bits; `None` past the end.
fn get(bytes: &[u8], size: usize, offset: usize) -> Option<u64> {
    fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
        bytes.as_chunks::<N>().0.get(offset).copied()
    }
    Some(match size {
        1 => u64::from(*bytes.get(offset)?),
        2 => u64::from(u16::from_le_bytes(array(bytes, offset)?)),
        4 => u64::from(u32::from_le_bytes(array(bytes, offset)?)),
        _ => u64::from_le_bytes(array(bytes, offset)?),
    })
}

fn set(bytes: &mut [u8], size: usize, offset: usize, bits: u64) -> Option<()> {
    fn array<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
        *bytes.as_chunks_mut::<N>().0.get_mut(offset)? = value;
        Some(())
    }
    match size {
        1 => array(bytes, offset, (bits as u8).to_le_bytes()),
        2 => array(bytes, offset, (bits as u16).to_le_bytes()),
        4 => array(bytes, offset, (bits as u32).to_le_bytes()),
        _ => array(bytes, offset, bits.to_le_bytes()),
    }
}

impl Memory {
    /// Memory to be written, of which nothing is yet.
    pub(super) fn unwritten(elems: u64, dtype: DType) -> Self {
        Memory::Owned(vec![0; (elems * dtype.bytes()) as usize], vec![false; elems as usize])
    }

    /// Reads one element.
    pub(super) fn read(&self, buffer: Buffer, dtype: DType, offset: usize) -> Result<u64, InterpErrorKind> {
        let size = dtype.bytes() as usize;
        let bits = match self {
            Memory::Absent => None,
            Memory::Shared(bytes) => get(bytes, size, offset),
            Memory::Owned(bytes, written) => {
                if written.get(offset) == Some(&false) {
                    return Err(InterpErrorKind::Unwritten { buffer, offset: offset as u64 });
                }
                get(bytes, size, offset)
            }
        };
        bits.ok_or(InterpErrorKind::OutOfStorage { buffer, offset: offset as u64 })
    }

    /// Reads the elements at `offsets` into `out`; [`FILL`] gives `fill`.
    pub(super) fn read_all(
        &self,
        buffer: Buffer,
        dtype: DType,
        offsets: &[usize],
        fill: u64,
        out: &mut Vec<u64>,
    ) -> Result<(), InterpErrorKind> {
        out.clear();
        for &offset in offsets {
            out.push(if offset == FILL { fill } else { self.read(buffer, dtype, offset)? });
        }
        Ok(())
    }

    /// Writes one element.
    pub(super) fn write(
        &mut self,
        buffer: Buffer,
        dtype: DType,
        offset: usize,
        bits: u64,
    ) -> Result<(), InterpErrorKind> {
        let Memory::Owned(bytes, written) = self else { return Err(InterpErrorKind::ReadOnly { buffer }) };
        let outside = InterpErrorKind::OutOfStorage { buffer, offset: offset as u64 };
        *written.get_mut(offset).ok_or(outside.clone())? = true;
        set(bytes, dtype.bytes() as usize, offset, bits).ok_or(outside)
    }
}
