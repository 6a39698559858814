//! ELF relocatable files, written as a stream.
//!
//! The weights go straight from the packer to the output: `object`'s higher-level writer would hold them twice. Everything
//! follows from the object and the weights alone, so equal inputs give equal bytes.

use std::io;

use aic_ir::machine::Arch;
use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use object::write::{StreamingBuffer, StringId};

use super::ArtifactError;
use super::format::Sink;
use super::object::{Binding, Data, Object, RelocationKind, Section, SectionKind};
use super::weights::Weights;

/// Where a section goes.
struct Place {
    index: SectionIndex,
    offset: u64,
    name: StringId,
    relocations: Option<(StringId, u64)>,
}

/// Writes an object as an ELF file.
///
/// # Errors
/// When `out` fails, or the weights do not fit their plan.
pub fn write(object: &Object, arch: Arch, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
    let names = relocation_names(object);
    let mut buffer = StreamingBuffer::new(out);
    let mut failure = Ok(());
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
    let layout = Layout::reserve(object, &names, &mut writer)?;
    writer
        .write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_REL,
            e_machine: match arch {
                Arch::X86_64 => elf::EM_X86_64,
                Arch::Aarch64 => elf::EM_AARCH64,
            },
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })
        .map_err(internal)?;
    for section in &object.sections {
        writer.write_align(section.align);
        match &section.data {
            Data::Bytes(bytes) => writer.write(bytes),
            Data::Weights { .. } => {
                failure = failure.and(weights.write(&mut Sink(|bytes: &[u8]| writer.write(bytes))));
            }
        }
    }
    // After weights that do not fit their plan, offsets no longer hold.
    failure?;
    layout.write_rest(object, &mut writer);
    buffer.result()?;
    Ok(())
}

/// Size of the file that [`write()`] makes.
///
/// # Errors
/// When there are too many names.
pub fn file_bytes(object: &Object) -> Result<u64, ArtifactError> {
    let names = relocation_names(object);
    let mut nowhere: Vec<u8> = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut nowhere);
    Layout::reserve(object, &names, &mut writer)?;
    Ok(writer.reserved_len())
}

fn internal(error: object::write::Error) -> ArtifactError {
    ArtifactError::Internal(error.to_string())
}

fn relocation_names(object: &Object) -> Vec<String> {
    object.sections.iter().map(|s| format!(".rela{}", s.name)).collect()
}

/// Offsets and indices of everything in the file.
struct Layout {
    sections: Vec<Place>,
    symbols: Vec<(SymbolIndex, StringId)>,
    local_symbols: u32,
}

impl Layout {
    fn reserve<'a>(object: &'a Object, names: &'a [String], writer: &mut Writer<'a>) -> Result<Self, ArtifactError> {
        writer.reserve_file_header();
        let mut sections = Vec::with_capacity(object.sections.len());
        for (section, relocation_name) in object.sections.iter().zip(names) {
            let index = writer.reserve_section_index();
            let offset = writer.reserve(section.data.len(), section.align);
            let name = writer.add_section_name(section.name.as_bytes());
            let relocations = (!section.relocations.is_empty()).then(|| {
                writer.reserve_section_index();
                (writer.add_section_name(relocation_name.as_bytes()), 0)
            });
            sections.push(Place { index, offset, name, relocations });
        }
        writer.reserve_null_symbol_index();
        let mut symbols = vec![None; object.symbols.len()];
        let mut local_symbols = 0;
        // ELF wants local symbols first.
        for binding in [Binding::Local, Binding::Global] {
            for (symbol, slot) in object.symbols.iter().zip(&mut symbols) {
                if symbol.binding == binding {
                    let index = writer.reserve_symbol_index(Some(sections[symbol.section].index));
                    *slot = Some((index, writer.add_string(symbol.name.as_bytes())));
                }
            }
            if binding == Binding::Local {
                local_symbols = writer.symbol_count();
            }
        }
        writer.reserve_symtab_section_index();
        writer.reserve_symtab();
        if writer.symtab_shndx_needed() {
            writer.reserve_symtab_shndx_section_index();
        }
        writer.reserve_symtab_shndx();
        writer.reserve_strtab_section_index();
        writer.reserve_strtab().map_err(internal)?;
        for (section, place) in object.sections.iter().zip(&mut sections) {
            if let Some((_, offset)) = &mut place.relocations {
                *offset = writer.reserve_relocations(section.relocations.len(), true);
            }
        }
        writer.reserve_shstrtab_section_index();
        writer.reserve_shstrtab().map_err(internal)?;
        writer.reserve_section_headers();
        Ok(Self { sections, symbols: symbols.into_iter().flatten().collect(), local_symbols })
    }

    /// Everything behind the sections' contents.
    fn write_rest(&self, object: &Object, writer: &mut Writer<'_>) {
        writer.write_null_symbol();
        for binding in [Binding::Local, Binding::Global] {
            for (symbol, &(_, name)) in object.symbols.iter().zip(&self.symbols) {
                if symbol.binding != binding {
                    continue;
                }
                let section = &object.sections[symbol.section];
                let st_bind = if binding == Binding::Local { elf::STB_LOCAL } else { elf::STB_GLOBAL };
                let st_type = if section.kind == SectionKind::Text { elf::STT_FUNC } else { elf::STT_OBJECT };
                let sym = Sym {
                    section: Some(self.sections[symbol.section].index.0),
                    st_name: writer.string_offset(Some(name)),
                    st_info: elf::SymbolInfo::new(st_bind, st_type),
                    st_other: elf::SymbolOther(0),
                    st_shndx: elf::SymbolSection(0),
                    st_value: 0,
                    st_size: section.data.len(),
                };
                writer.write_symbol(&sym);
            }
        }
        writer.write_symtab_shndx();
        writer.write_strtab();
        for section in object.sections.iter().filter(|s| !s.relocations.is_empty()) {
            writer.write_align_relocation();
            for relocation in &section.relocations {
                writer.write_relocation(
                    true,
                    &Rel {
                        r_offset: relocation.offset,
                        r_sym: self.symbols[relocation.symbol].0.0,
                        r_type: match relocation.kind {
                            RelocationKind::X86Call => elf::R_X86_64_PLT32,
                            RelocationKind::X86PcRel => elf::R_X86_64_PC32,
                            RelocationKind::Aarch64Call => elf::R_AARCH64_CALL26,
                            RelocationKind::Aarch64Page => elf::R_AARCH64_ADR_PREL_PG_HI21,
                            RelocationKind::Aarch64PageOffset => elf::R_AARCH64_ADD_ABS_LO12_NC,
                        },
                        r_addend: relocation.addend,
                    },
                );
            }
        }
        writer.write_shstrtab();
        writer.write_null_section_header();
        let symtab = writer.symtab_index();
        for (section, place) in object.sections.iter().zip(&self.sections) {
            let header = section_header(section, place, writer);
            writer.write_section_header(&header);
            if let Some((name, offset)) = place.relocations {
                let count = section.relocations.len();
                writer.write_relocation_section_header(name, place.index, symtab, offset, count, true);
            }
        }
        writer.write_symtab_section_header(self.local_symbols);
        writer.write_symtab_shndx_section_header();
        writer.write_strtab_section_header();
        writer.write_shstrtab_section_header();
    }
}

fn section_header(section: &Section, place: &Place, writer: &Writer<'_>) -> SectionHeader {
    let (sh_type, sh_flags) = match section.kind {
        SectionKind::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
        SectionKind::ReadOnly => (elf::SHT_PROGBITS, elf::SHF_ALLOC),
        SectionKind::Note => (elf::SHT_NOTE, elf::SectionFlags(0)),
        SectionKind::StackNote => (elf::SHT_PROGBITS, elf::SectionFlags(0)),
    };
    SectionHeader {
        sh_name: writer.section_name_offset(Some(place.name)),
        sh_type,
        sh_flags,
        sh_addr: 0,
        sh_offset: place.offset,
        sh_size: section.data.len(),
        sh_link: 0,
        sh_info: 0,
        sh_addralign: section.align,
        sh_entsize: 0,
    }
}
