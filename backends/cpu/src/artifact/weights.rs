//! The weight block, and its form outside the code.
//!
//! The block is never held in memory as a whole: constants are packed and handed on one at a time, so a compile needs no
//! more memory for it than the largest constant.
//!
//! An external block ([`Header`]) begins with 64 bytes that say what follows; all numbers little-endian:
//!
//! | offset | bytes | holds |
//! |---|---|---|
//! | 0 | 8 | `AICWGHT` and a zero |
//! | 8 | 4 | version of this format: 1 |
//! | 12 | 4 | size of this header: 64 |
//! | 16 | 8 | size of the whole block with this header |
//! | 24 | 8 | [checksum](Checksum) of the weights |
//! | 32 | 32 | SHA-256 of the weights |
//! | 64 | | the weights |

use std::io;

use aic_ir::plan::{ALIGN_BYTES, Place, Plan};
use aic_ir::tile::materialize::materialize;
use aic_ir::tile::{Buffer, Program, Storage};
use sha2::{Digest, Sha256};

use super::ArtifactError;

/// Size of the header of an external block.
pub const HEADER_BYTES: u64 = 64;

/// First bytes of an external block.
pub const MAGIC: [u8; 8] = *b"AICWGHT\0";

/// The constants of a planned program, in their places.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    program: &'a Program,
    plan: &'a Plan,
}

impl<'a> Weights<'a> {
    /// The weights of a program under a plan that was made for it.
    pub fn new(program: &'a Program, plan: &'a Plan) -> Self {
        Self { program, plan }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.plan.weights_bytes
    }

    /// Writes the block, one constant after the other; gaps are zero.
    ///
    /// # Errors
    /// When `out` fails, or the plan does not fit the program.
    pub fn write(&self, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
        let mut at = 0u64;
        for (offset, buffer) in self.in_order() {
            let data = &self.program.buffers[buffer];
            let Storage::Const(tensor) = &data.storage else { return Err(ArtifactError::Weights(data.name.clone())) };
            let bytes = materialize(tensor, &data.layout, &data.shape)
                .map_err(|_| ArtifactError::Weights(data.name.clone()))?;
            let end = offset.checked_add(bytes.len() as u64).filter(|&end| offset >= at && end <= self.bytes());
            let end = end.ok_or_else(|| ArtifactError::Weights(data.name.clone()))?;
            write_zeros(out, offset - at)?;
            out.write_all(&bytes)?;
            at = end;
        }
        write_zeros(out, self.bytes() - at)
    }

    /// The whole block, for running in this process.
    ///
    /// # Errors
    /// When the plan does not fit the program.
    pub fn to_vec(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut block = Vec::new();
        self.write(&mut block)?;
        Ok(block)
    }

    /// The header of the external form.
    ///
    /// # Errors
    /// When the plan does not fit the program.
    pub fn header(&self) -> Result<Header, ArtifactError> {
        let mut digests = Digests { checksum: Checksum::default(), sha256: Sha256::new() };
        self.write(&mut digests)?;
        Ok(Header {
            weights_bytes: self.bytes(),
            checksum: digests.checksum.finish(),
            sha256: digests.sha256.finalize().into(),
        })
    }

    /// One buffer of each place, by offset.
    fn in_order(&self) -> Vec<(u64, Buffer)> {
        let mut constants: Vec<(u64, Buffer)> = Vec::new();
        for buffer in self.program.buffers.keys() {
            if let Place::Weights(offset) = self.plan.places[buffer]
                && self.program.buffers[buffer].bytes() > 0
            {
                constants.push((offset, buffer));
            }
        }
        constants.sort_unstable();
        constants.dedup_by_key(|c| c.0);
        constants
    }
}

fn write_zeros(out: &mut dyn io::Write, count: u64) -> Result<(), ArtifactError> {
    for _ in 0..count / ALIGN_BYTES {
        out.write_all(&[0; ALIGN_BYTES as usize])?;
    }
    out.write_all(&[0; ALIGN_BYTES as usize][..(count % ALIGN_BYTES) as usize])?;
    Ok(())
}

/// What an external block says of itself. See the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Size of the weights, without the header.
    pub weights_bytes: u64,
    /// [Checksum] of the weights.
    pub checksum: u64,
    /// SHA-256 of the weights.
    pub sha256: [u8; 32],
}

impl Header {
    /// Size of the whole block.
    pub fn block_bytes(&self) -> u64 {
        HEADER_BYTES + self.weights_bytes
    }

    /// The header as it is stored.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&1u32.to_le_bytes());
        out[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.block_bytes().to_le_bytes());
        out[24..32].copy_from_slice(&self.checksum.to_le_bytes());
        out[32..].copy_from_slice(&self.sha256);
        out
    }

    /// Reads a header. `None` if the bytes are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES as usize] = bytes.get(..HEADER_BYTES as usize)?.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let header = Self {
            weights_bytes: word(16).checked_sub(HEADER_BYTES)?,
            checksum: word(24),
            sha256: std::array::from_fn(|i| bytes[32 + i]),
        };
        (header.to_bytes() == *bytes).then_some(header)
    }
}

/// The checksum of weights: over little-endian 64-bit words `w`, from [`Checksum::START`],
/// `h = (h ^ w) * PRIME; h = h ^ (h >> 29)`.
///
/// Each step is a bijection of `h` and of `w`, so any one changed word changes the result; the shift carries high bits
/// down, which plain FNV-1a does not. It finds damage, not forgery; the SHA-256 beside it is for that.
#[derive(Clone, Copy, Debug)]
pub struct Checksum {
    hash: u64,
    word: [u8; 8],
    filled: usize,
}

impl Checksum {
    /// The first value: the offset basis of FNV-1a, 64 bits.
    pub const START: u64 = 0xcbf2_9ce4_8422_2325;
    /// The factor: the prime of FNV-1a, 64 bits.
    pub const PRIME: u64 = 0x0000_0100_0000_01b3;
    /// How far high bits are carried down.
    pub const SHIFT: u32 = 29;

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.word[self.filled] = byte;
            self.filled += 1;
            if self.filled == 8 {
                self.step();
            }
        }
    }

    fn step(&mut self) {
        self.hash = (self.hash ^ u64::from_le_bytes(self.word)).wrapping_mul(Self::PRIME);
        self.hash ^= self.hash >> Self::SHIFT;
        (self.word, self.filled) = ([0; 8], 0);
    }

    /// The checksum; a last word that is not full is filled with zeros.
    pub fn finish(mut self) -> u64 {
        if self.filled > 0 {
            self.step();
        }
        self.hash
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self { hash: Self::START, word: [0; 8], filled: 0 }
    }
}

struct Digests {
    checksum: Checksum,
    sha256: Sha256,
}

impl io::Write for Digests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.checksum.update(bytes);
        self.sha256.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_damage_is_seen() {
        let header = Header { weights_bytes: 128, checksum: 7, sha256: [9; 32] };
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes), Some(header));
        assert_eq!(Header::parse(&bytes[..63]), None);
        for i in 0..16 {
            let mut bad = bytes;
            bad[i] ^= 1;
            assert_eq!(Header::parse(&bad), None, "byte {i}");
        }
    }

    #[test]
    fn checksum_sees_every_changed_bit_and_pairs_of_signs() {
        let sum = |bytes: &[u8]| {
            let mut c = Checksum::default();
            c.update(bytes);
            c.finish()
        };
        let bytes: Vec<u8> = (0..64).collect();
        let good = sum(&bytes);
        for bit in 0..512 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&bad), good, "bit {bit}");
        }
        for (i, j) in [(0, 1), (0, 7), (3, 5)] {
            let mut bad = bytes.clone();
            bad[8 * i + 7] ^= 0x80;
            bad[8 * j + 7] ^= 0x80;
            assert_ne!(sum(&bad), good);
        }
        let mut parts = Checksum::default();
        parts.update(&bytes[..5]);
        parts.update(&bytes[5..]);
        assert_eq!(parts.finish(), good);
    }
}
