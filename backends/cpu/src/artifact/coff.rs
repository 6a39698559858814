//! COFF relocatable files, written as a stream (Microsoft, "PE Format").
//!
//! Every section of code or constants is a COMDAT of its own, so that linkers drop what is not called (`/OPT:REF`). Its symbol
//! stands behind the section's, as the format wants it. Time stamps are zero.

use std::io;

use aic_ir::machine::Arch;
use object::pe;
use object::write::StreamingBuffer;
use object::write::coff::{AuxSymbolSection, FileHeader, Name, SectionHeader, Symbol, Writer};

use super::ArtifactError;
use super::format::{Sink, with_addends};
use super::object::{Binding, Data, Object, RelocationKind, Section, SectionKind};
use super::weights::Weights;

/// Most sections of a file; numbers above have other meanings.
const MAX_SECTIONS: usize = 0xfeff;

/// Largest file: offsets have 32 bits.
const MAX_BYTES: u64 = u32::MAX as u64;

/// Writes an object as a COFF file.
///
/// # Errors
/// When `out` fails, the weights do not fit their plan, or the object is too large for the format.
pub fn write(object: &Object, arch: Arch, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
    let names = section_names(object);
    let mut buffer = StreamingBuffer::new(out);
    let mut failure = Ok(());
    let mut writer = Writer::new(&mut buffer);
    let layout = Layout::reserve(object, &names, &mut writer)?;
    let machine = match arch {
        Arch::X86_64 => pe::IMAGE_FILE_MACHINE_AMD64,
        Arch::Aarch64 => pe::IMAGE_FILE_MACHINE_ARM64,
    };
    writer.write_file_header(FileHeader { machine, ..FileHeader::default() }).map_err(internal)?;
    for place in &layout.sections {
        writer.write_section_header(section_header(place));
    }
    for place in &layout.sections {
        if place.data > 0 {
            writer.write_section_align();
        }
        match &place.section.data {
            Data::Bytes(bytes) => writer.write(&with_addends(bytes, &place.section.relocations)?),
            Data::Weights { .. } => failure = failure.and(weights.write(&mut Sink(|bytes: &[u8]| writer.write(bytes)))),
        }
        writer.write_relocations_count(place.section.relocations.len());
        for r in &place.section.relocations {
            writer.write_relocation(object::write::coff::Relocation {
                virtual_address: r.offset as u32,
                symbol: layout.symbols[r.symbol].0,
                typ: relocation_type(r.kind),
            });
        }
    }
    // After weights that do not fit their plan, offsets no longer hold.
    failure?;
    layout.write_symbols(object, &mut writer);
    writer.write_strtab();
    buffer.result()?;
    Ok(())
}

/// Size of the file that [`write()`] makes.
///
/// # Errors
/// When the object is too large for the format.
pub fn file_bytes(object: &Object) -> Result<u64, ArtifactError> {
    let names = section_names(object);
    let mut nowhere: Vec<u8> = Vec::new();
    let mut writer = Writer::new(&mut nowhere);
    Layout::reserve(object, &names, &mut writer)?;
    Ok(writer.reserved_len())
}

fn internal(error: object::write::Error) -> ArtifactError {
    ArtifactError::Internal(error.to_string())
}

/// Names of sections as this format has them: linkers join those that are equal up to a `$`.
fn section_names(object: &Object) -> Vec<String> {
    let name = |s: &Section| match s.kind {
        SectionKind::Text => s.name.replacen(".text.", ".text$", 1),
        SectionKind::ReadOnly => s.name.replacen(".rodata.", ".rdata$", 1),
        SectionKind::Note | SectionKind::StackNote => s.name.clone(),
    };
    object.sections.iter().map(name).collect()
}

/// A section of the file.
struct Place<'a> {
    section: &'a Section,
    name: Name,
    data: u32,
    relocations: u32,
    /// Whether linkers may drop it: it has a symbol.
    comdat: bool,
}

/// Offsets and indices of everything in the file.
struct Layout<'a> {
    sections: Vec<Place<'a>>,
    /// Index and name of each symbol of the object.
    symbols: Vec<(u32, Name)>,
}

impl<'a> Layout<'a> {
    fn reserve(object: &'a Object, names: &'a [String], writer: &mut Writer<'a>) -> Result<Self, ArtifactError> {
        let too_large = || ArtifactError::TooLarge("COFF");
        if object.sections.len() > MAX_SECTIONS || object.sections.iter().any(|s| s.data.len() > MAX_BYTES) {
            return Err(too_large());
        }
        writer.reserve_file_header();
        writer.reserve_section_headers(object.sections.len() as u16);
        let mut sections = Vec::with_capacity(object.sections.len());
        let mut end = 0;
        for (section, name) in object.sections.iter().zip(names) {
            let name = writer.add_name(name.as_bytes());
            let data = writer.reserve_section(section.data.len() as usize);
            let relocations = writer.reserve_relocations(section.relocations.len());
            let comdat = matches!(section.kind, SectionKind::Text | SectionKind::ReadOnly);
            sections.push(Place { section, name, data, relocations, comdat });
            end += section.data.len() + 10 * section.relocations.len() as u64 + 64;
        }
        // Symbols come in the order of sections: the section's, then its own.
        let mut symbols = Vec::with_capacity(object.symbols.len());
        for symbol in &object.symbols {
            writer.reserve_symbol_index();
            writer.reserve_aux_section();
            let name = writer.add_name(symbol.name.as_bytes());
            symbols.push((writer.reserve_symbol_index(), name));
            end += 128 + symbol.name.len() as u64;
        }
        if end > MAX_BYTES {
            return Err(too_large());
        }
        writer.reserve_symtab_strtab().map_err(internal)?;
        Ok(Self { sections, symbols })
    }

    fn write_symbols(&self, object: &Object, writer: &mut Writer<'_>) {
        for (symbol, &(_, name)) in object.symbols.iter().zip(&self.symbols) {
            let place = &self.sections[symbol.section];
            // Numbers of sections count from 1.
            let section_number = pe::SymbolSection(symbol.section as i32 + 1);
            writer.write_symbol(Symbol {
                name: place.name,
                section_number,
                storage_class: pe::IMAGE_SYM_CLASS_STATIC,
                number_of_aux_symbols: 1,
                ..Symbol::default()
            });
            writer.write_aux_section(AuxSymbolSection {
                length: place.section.data.len() as u32,
                number_of_relocations: place.section.relocations.len() as u32,
                selection: pe::IMAGE_COMDAT_SELECT_NODUPLICATES,
                ..AuxSymbolSection::default()
            });
            let is_function = place.section.kind == SectionKind::Text;
            writer.write_symbol(Symbol {
                name,
                section_number,
                typ: if is_function { pe::IMAGE_SYM_DTYPE_FUNCTION.into() } else { pe::SymbolType::default() },
                storage_class: match symbol.binding {
                    Binding::Local => pe::IMAGE_SYM_CLASS_STATIC,
                    Binding::Global => pe::IMAGE_SYM_CLASS_EXTERNAL,
                },
                ..Symbol::default()
            });
        }
    }
}

fn section_header(place: &Place<'_>) -> SectionHeader {
    let section = place.section;
    let contents = match section.kind {
        SectionKind::Text => pe::IMAGE_SCN_CNT_CODE | pe::IMAGE_SCN_MEM_EXECUTE | pe::IMAGE_SCN_MEM_READ,
        SectionKind::ReadOnly => pe::IMAGE_SCN_CNT_INITIALIZED_DATA | pe::IMAGE_SCN_MEM_READ,
        SectionKind::Note | SectionKind::StackNote => pe::IMAGE_SCN_LNK_INFO | pe::IMAGE_SCN_LNK_REMOVE,
    };
    // 1 byte is 1, and each power of two one more.
    let align = pe::SectionFlags((section.align.trailing_zeros() + 1) << 20);
    let comdat = if place.comdat { pe::IMAGE_SCN_LNK_COMDAT } else { pe::SectionFlags(0) };
    let more = if section.relocations.len() > 0xffff { pe::IMAGE_SCN_LNK_NRELOC_OVFL } else { pe::SectionFlags(0) };
    SectionHeader {
        name: place.name,
        size_of_raw_data: section.data.len() as u32,
        pointer_to_raw_data: place.data,
        pointer_to_relocations: place.relocations,
        number_of_relocations: section.relocations.len() as u32,
        characteristics: contents | align | comdat | more,
        ..SectionHeader::default()
    }
}

fn relocation_type(kind: RelocationKind) -> pe::RelocationType {
    match kind {
        RelocationKind::X86Call | RelocationKind::X86PcRel => pe::IMAGE_REL_AMD64_REL32,
        RelocationKind::Aarch64Call => pe::IMAGE_REL_ARM64_BRANCH26,
        RelocationKind::Aarch64Page => pe::IMAGE_REL_ARM64_PAGEBASE_REL21,
        RelocationKind::Aarch64PageOffset => pe::IMAGE_REL_ARM64_PAGEOFFSET_12A,
    }
}
