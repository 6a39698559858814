//! Reading artifacts back: objects, archives, shared libraries and linked programs.
//!
//! Files may be anything: nothing here trusts a size or an offset.

use object::read::archive::ArchiveFile;
use object::read::elf::{ElfFile64, FileHeader as _, NoteIterator, SectionHeader as _};
use object::{
    Endianness, Object as _, ObjectKind, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolKind, elf, macho,
    pe,
};

use super::format::Format;
use super::note::{self, Note};
use super::weights;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A relocatable object.
    Object,
    /// A static archive.
    StaticLibrary,
    /// A shared library, or a position-independent program.
    SharedLibrary,
    /// A linked program.
    Program,
    /// A block of external weights.
    Weights(weights::Header),
}

/// A section of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionSize {
    /// Its name.
    pub name: String,
    /// Its size in memory, in bytes.
    pub bytes: u64,
    /// Whether it may be written at run time.
    pub writable: bool,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// What kind of file it is.
    pub kind: Kind,
    /// What the models in it say of themselves.
    pub models: Vec<Note>,
    /// Sections that are loaded, in order.
    pub sections: Vec<SectionSize>,
    /// Names of symbols that others can see, sorted.
    pub exported: Vec<String>,
    /// Names of symbols that are missing, sorted.
    pub undefined: Vec<String>,
}

/// Why a file is no artifact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not a format that artifacts have.
    #[error(
        "neither a 64-bit little-endian ELF file, nor a Mach-O or COFF object, nor an archive of such, nor weights"
    )]
    Format,
    /// Damaged, or cut off.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// No model in it.
    #[error("the file holds no compiled model")]
    NoModel,
}

/// Whether a file starts as an artifact does, whatever follows.
pub fn looks_like_artifact(bytes: &[u8]) -> bool {
    format_of(bytes).is_some() || bytes.starts_with(b"!<arch>\n") || bytes.starts_with(&weights::MAGIC)
}

/// The format that a file's first bytes are of.
fn format_of(bytes: &[u8]) -> Option<Format> {
    let coff = [pe::IMAGE_FILE_MACHINE_AMD64, pe::IMAGE_FILE_MACHINE_ARM64].map(|m| m.0.to_le_bytes());
    if bytes.starts_with(&elf::ELFMAG) {
        Some(Format::Elf)
    } else if bytes.starts_with(&macho::MH_MAGIC_64.to_le_bytes()) {
        Some(Format::MachO)
    } else if coff.iter().any(|m| bytes.starts_with(m)) && bytes.get(4..8) == Some(&[0; 4]) {
        // There is no more of a magic number than the machine, and the time that artifacts do not have.
        Some(Format::Coff)
    } else {
        None
    }
}

/// Reads a file.
///
/// # Errors
/// When it is no artifact, or damaged.
pub fn read(bytes: &[u8]) -> Result<Contents, ReadError> {
    if bytes.starts_with(&weights::MAGIC) {
        return read_weights(bytes);
    }
    let mut contents = Contents {
        kind: Kind::StaticLibrary,
        models: Vec::new(),
        sections: Vec::new(),
        exported: Vec::new(),
        undefined: Vec::new(),
    };
    if bytes.starts_with(b"!<arch>\n") {
        let archive = ArchiveFile::parse(bytes).map_err(damaged)?;
        for member in archive.members() {
            let data = member.map_err(damaged)?.data(bytes).map_err(damaged)?;
            read_object(data, &mut contents)?;
        }
    } else {
        contents.kind = read_object(bytes, &mut contents)?.ok_or(ReadError::Format)?;
    }
    if contents.models.is_empty() {
        return Err(ReadError::NoModel);
    }
    for names in [&mut contents.exported, &mut contents.undefined] {
        names.sort();
        names.dedup();
    }
    Ok(contents)
}

fn damaged(error: object::Error) -> ReadError {
    ReadError::Damaged(error.to_string())
}

fn read_weights(bytes: &[u8]) -> Result<Contents, ReadError> {
    let header = weights::Header::parse(bytes).ok_or_else(|| ReadError::Damaged("its header".to_owned()))?;
    let body = usize::try_from(weights::HEADER_BYTES).ok().and_then(|h| bytes.get(h..)).unwrap_or_default();
    let mut checksum = weights::Checksum::default();
    checksum.update(body);
    if body.len() as u64 != header.weights_bytes || checksum.finish() != header.checksum {
        return Err(ReadError::Damaged("its weights are not those that its header describes".to_owned()));
    }
    let (models, sections, exported, undefined) = Default::default();
    Ok(Contents { kind: Kind::Weights(header), models, sections, exported, undefined })
}

/// Reads a file of any of the formats; `None` if it is of none.
fn read_object(bytes: &[u8], contents: &mut Contents) -> Result<Option<Kind>, ReadError> {
    match format_of(bytes) {
        None => Ok(None),
        Some(Format::Elf) => read_elf(bytes, contents).map(Some),
        Some(format @ (Format::MachO | Format::Coff)) => {
            let file = object::File::parse(bytes).map_err(damaged)?;
            if file.kind() != ObjectKind::Relocatable {
                return Ok(None);
            }
            for section in file.sections() {
                let name = section.name().map_err(damaged)?.to_owned();
                let segment = section.segment_name().map_err(damaged)?;
                if name == note::SECTION || (segment, &name[..]) == (Some(note::MACHO_SEGMENT), note::MACHO_SECTION) {
                    let note = Note::from_bytes(section.data().map_err(damaged)?);
                    contents.models.push(note.ok_or_else(|| ReadError::Damaged("its note is none".to_owned()))?);
                    continue;
                }
                let writable = match section.flags() {
                    SectionFlags::Coff { characteristics } => characteristics.contains(pe::IMAGE_SCN_MEM_WRITE),
                    _ => segment != Some("__TEXT"),
                };
                contents.sections.push(SectionSize { name, bytes: section.size(), writable });
            }
            // Sections have symbols in COFF.
            for symbol in file.symbols().filter(|s| s.kind() != SymbolKind::Section) {
                let name = symbol.name().map_err(damaged)?;
                let name = name.strip_prefix(format.symbol_prefix()).unwrap_or(name).to_owned();
                if symbol.is_undefined() {
                    contents.undefined.push(name);
                } else if symbol.is_global() {
                    contents.exported.push(name);
                }
            }
            Ok(Some(Kind::Object))
        }
    }
}

fn read_elf(bytes: &[u8], contents: &mut Contents) -> Result<Kind, ReadError> {
    let file: ElfFile64<'_, Endianness> = ElfFile64::parse(bytes).map_err(damaged)?;
    let endian = file.endian();
    if endian != Endianness::Little {
        return Err(ReadError::Format);
    }
    for section in file.sections() {
        let header = section.elf_section_header();
        let flags = header.sh_flags(endian);
        let name = section.name().map_err(damaged)?;
        if flags.0 & elf::SHF_ALLOC.0 != 0 {
            let writable = flags.0 & elf::SHF_WRITE.0 != 0;
            contents.sections.push(SectionSize { name: name.to_owned(), bytes: section.size(), writable });
        }
        if name == note::SECTION {
            let notes: Option<NoteIterator<'_, elf::FileHeader64<Endianness>>> =
                header.notes(endian, bytes).map_err(damaged)?;
            let mut notes = notes.ok_or_else(|| ReadError::Damaged("its note is none".to_owned()))?;
            while let Some(n) = notes.next().map_err(damaged)? {
                if n.name() == note::OWNER.as_bytes() && n.n_type(endian).0 == note::TYPE {
                    let json = serde_json::from_slice(n.desc()).map_err(|e| ReadError::Damaged(e.to_string()))?;
                    contents.models.push(json);
                }
            }
        }
    }
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let name = symbol.name().map_err(damaged)?;
        if name.is_empty() {
            continue;
        }
        if symbol.is_undefined() {
            contents.undefined.push(name.to_owned());
        } else if symbol.is_global() {
            contents.exported.push(name.to_owned());
        }
    }
    Ok(match file.elf_header().e_type(endian) {
        elf::ET_REL => Kind::Object,
        elf::ET_DYN => Kind::SharedLibrary,
        _ => Kind::Program,
    })
}
