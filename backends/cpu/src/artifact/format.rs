//! The formats of object files, and what their writers share.

use std::io;

use aic_ir::machine::Arch;
use target_lexicon::{BinaryFormat, Triple};

use super::object::{Object, Relocation, RelocationKind};
use super::weights::Weights;
use super::{ArtifactError, coff, elf, macho};

/// A format of object files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Linux, other Unix systems, and no system at all.
    Elf,
    /// macOS.
    MachO,
    /// Windows.
    Coff,
}

impl Format {
    /// The format of a platform's objects; `None` for those that are not written here.
    pub fn of(triple: &Triple) -> Option<Self> {
        match triple.binary_format {
            BinaryFormat::Elf => Some(Self::Elf),
            BinaryFormat::Macho => Some(Self::MachO),
            BinaryFormat::Coff => Some(Self::Coff),
            _ => None,
        }
    }

    /// What stands before the name of every symbol.
    pub fn symbol_prefix(self) -> &'static str {
        match self {
            Self::Elf | Self::Coff => "",
            Self::MachO => "_",
        }
    }

    /// Writes an object file.
    ///
    /// # Errors
    /// When `out` fails, the weights do not fit their plan, or the object passes what the format can express.
    pub(super) fn write(
        self,
        object: &Object,
        arch: Arch,
        weights: Weights<'_>,
        out: &mut dyn io::Write,
    ) -> Result<(), ArtifactError> {
        match self {
            Self::Elf => elf::write(object, arch, weights, out),
            Self::MachO => macho::write(object, arch, weights, out),
            Self::Coff => coff::write(object, arch, weights, out),
        }
    }

    /// Size of the file that [`Format::write`] makes.
    ///
    /// # Errors
    /// As there.
    pub(super) fn file_bytes(self, object: &Object) -> Result<u64, ArtifactError> {
        match self {
            Self::Elf => elf::file_bytes(object),
            Self::MachO => macho::file_bytes(object),
            Self::Coff => coff::file_bytes(object),
        }
    }
}

/// Code whose fields hold what is added to the symbols' addresses, for formats whose relocations do not.
///
/// Displacements of x86-64 count from the end of their four bytes there, and from their start here.
///
/// # Errors
/// For fields outside of the code and addends that a field cannot hold, which are defects.
pub(super) fn with_addends(code: &[u8], relocations: &[Relocation]) -> Result<Vec<u8>, ArtifactError> {
    let internal = |what: &str| ArtifactError::Internal(what.to_owned());
    let mut code = code.to_vec();
    for r in relocations {
        match r.kind {
            RelocationKind::X86Call | RelocationKind::X86PcRel => {
                let addend = i32::try_from(r.addend + 4).map_err(|_| internal("an addend of more than 32 bits"))?;
                let at = usize::try_from(r.offset).ok();
                let field = at.and_then(|at| code.get_mut(at..at.checked_add(4)?));
                field
                    .ok_or_else(|| internal("a reference outside of its code"))?
                    .copy_from_slice(&addend.to_le_bytes());
            }
            RelocationKind::Aarch64Call | RelocationKind::Aarch64Page | RelocationKind::Aarch64PageOffset => {
                if r.addend != 0 {
                    return Err(internal("an addend in an instruction"));
                }
            }
        }
    }
    Ok(code)
}

/// Passes what is written on to a function that cannot fail, or keeps failures elsewhere.
pub(super) struct Sink<F>(pub(super) F);

impl<F: FnMut(&[u8])> io::Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
