//! Mach-O relocatable files, written as a stream (Apple, `mach-o/loader.h`, `nlist.h`, `reloc.h`).
//!
//! The format has room for 255 sections, so all code is in one and all constants are in another; linkers split both at their
//! symbols (`MH_SUBSECTIONS_VIA_SYMBOLS`) and drop what is not called. Names of symbols start with an underscore.

use std::io;

use aic_ir::machine::Arch;
use object::Endianness;
use object::macho::{self, RelocationInfo};
use object::write::macho::{
    BuildVersionCommand, DysymtabCommand, Encoder, MachHeader, Nlist, SectionHeader, SegmentCommand, SymtabCommand,
};
use object::write::{StreamingBuffer, WritableBuffer};

use super::ArtifactError;
use super::format::{Format, Sink, with_addends};
use super::note;
use super::object::{Binding, Data, Object, RelocationKind, SectionKind};
use super::weights::Weights;

/// Largest file: offsets have 32 bits.
const MAX_BYTES: u64 = u32::MAX as u64;

/// The one segment's sections, in order: segment and section as linkers look for them.
const SECTIONS: [(SectionKind, &str, &str); 3] = [
    (SectionKind::Text, "__TEXT", "__text"),
    (SectionKind::ReadOnly, "__TEXT", "__const"),
    (SectionKind::Note, note::MACHO_SEGMENT, note::MACHO_SECTION),
];

/// Versions of macOS that the code runs on, as `xxxx.yy.zz` in nibbles: the first of each architecture that tools still take.
fn minimum_version(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => 0x000a_0d00,
        Arch::Aarch64 => 0x000b_0000,
    }
}

/// Writes an object as a Mach-O file.
///
/// # Errors
/// When `out` fails, the weights do not fit their plan, or the object is too large for the format.
pub fn write(object: &Object, arch: Arch, weights: Weights<'_>, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
    let layout = Layout::new(object)?;
    let mut out = Counted { buffer: StreamingBuffer::new(out), count: 0 };
    layout.write_commands(&mut out, arch);
    for section in &layout.sections {
        for member in &section.members {
            out.pad_until(section.offset + member.offset);
            match &object.sections[member.section].data {
                Data::Bytes(bytes) => {
                    out.write_bytes(&with_addends(bytes, &object.sections[member.section].relocations)?);
                }
                // Whatever follows weights that do not fit their plan would be out of place.
                Data::Weights { .. } => weights.write(&mut Sink(|bytes: &[u8]| out.write_bytes(bytes)))?,
            }
        }
    }
    layout.write_tables(&mut out, object);
    out.buffer.result()?;
    Ok(())
}

/// Size of the file that [`write()`] makes.
///
/// # Errors
/// When the object is too large for the format.
pub fn file_bytes(object: &Object) -> Result<u64, ArtifactError> {
    Ok(Layout::new(object)?.end)
}

fn encoder() -> Encoder<Endianness> {
    Encoder::new(Endianness::Little, true)
}

/// An output that knows how much was written.
struct Counted<'a> {
    buffer: StreamingBuffer<&'a mut dyn io::Write>,
    count: u64,
}

impl Counted<'_> {
    fn pad_until(&mut self, offset: u64) {
        self.write_zeros(offset.saturating_sub(self.count));
    }
}

impl WritableBuffer for Counted<'_> {
    fn reserve(&mut self, size: u64) -> Result<(), ()> {
        self.buffer.reserve(size)
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.buffer.write_bytes(bytes);
    }
}

/// A section of the object inside a section of the file.
struct Member {
    section: usize,
    offset: u64,
}

/// A section of the file.
struct Place {
    segment: &'static str,
    name: &'static str,
    kind: SectionKind,
    align: u64,
    /// Address, which is the distance from the first section.
    address: u64,
    /// Offset in the file.
    offset: u64,
    bytes: u64,
    members: Vec<Member>,
    /// Offset and number of its relocations.
    relocations: (u64, usize),
}

/// Offsets and indices of everything in the file.
struct Layout {
    sections: Vec<Place>,
    /// Positions of the object's symbols in the order of the file: local ones first.
    order: Vec<usize>,
    local_symbols: u32,
    /// Position of each of the object's symbols in that order.
    positions: Vec<u32>,
    /// Number of the file's section, from 1, and address, of each of the object's sections.
    places: Vec<(u8, u64)>,
    /// Names with their zeros, and where each symbol's starts.
    names: Vec<u8>,
    name_offsets: Vec<u32>,
    /// Bytes of the sections together.
    segment_bytes: u64,
    segment_offset: u64,
    symbols_offset: u64,
    names_offset: u64,
    end: u64,
}

impl Layout {
    fn new(object: &Object) -> Result<Self, ArtifactError> {
        let encoder = encoder();
        let mut sections = Vec::new();
        let mut address = 0u64;
        for (kind, segment, name) in SECTIONS {
            let of_kind = || object.sections.iter().enumerate().filter(|(_, s)| s.kind == kind);
            let align = of_kind().map(|(_, s)| s.align).max().unwrap_or(1);
            address = address.next_multiple_of(align);
            let mut bytes = 0u64;
            let mut members = Vec::new();
            for (section, s) in of_kind() {
                bytes = bytes.next_multiple_of(s.align);
                members.push(Member { section, offset: bytes });
                bytes += s.data.len();
            }
            let count = of_kind().map(|(_, s)| s.relocations.len()).sum();
            if bytes > 0 {
                let relocations = (0, count);
                sections.push(Place { segment, name, kind, align, address, offset: 0, bytes, members, relocations });
                address += bytes;
            }
        }
        let commands = encoder.segment_command_size(sections.len() as u32)
            + encoder.build_version_command_size(0)
            + encoder.symtab_command_size()
            + encoder.dysymtab_command_size();
        let align = sections.iter().map(|s| s.align).max().unwrap_or(1);
        let segment_offset = (encoder.mach_header_size() + commands).next_multiple_of(align);
        let mut end = (segment_offset + address).next_multiple_of(8);
        for section in &mut sections {
            section.offset = segment_offset + section.address;
            if section.relocations.1 > 0 {
                section.relocations.0 = end;
                end += section.relocations.1 as u64 * encoder.relocation_size();
            }
        }
        let mut order: Vec<usize> = (0..object.symbols.len()).collect();
        order.sort_by_key(|&i| object.symbols[i].binding);
        let local_symbols = object.symbols.iter().filter(|s| s.binding == Binding::Local).count() as u32;
        let mut positions = vec![0; order.len()];
        for (position, &i) in order.iter().enumerate() {
            positions[i] = position as u32;
        }
        let mut places = vec![(0, 0); object.sections.len()];
        for (number, section) in sections.iter().enumerate() {
            for member in &section.members {
                places[member.section] = (number as u8 + 1, section.address + member.offset);
            }
        }
        let symbols_offset = end;
        let names_offset = symbols_offset + order.len() as u64 * encoder.nlist_size();
        // The empty name is at the start.
        let mut names = vec![0];
        let mut name_offsets = Vec::with_capacity(object.symbols.len());
        for symbol in &object.symbols {
            name_offsets.push(names.len() as u32);
            names.extend(Format::MachO.symbol_prefix().bytes().chain(symbol.name.bytes()).chain([0]));
        }
        names.resize(names.len().next_multiple_of(8), 0);
        let end = names_offset + names.len() as u64;
        if end > MAX_BYTES {
            return Err(ArtifactError::TooLarge("Mach-O"));
        }
        Ok(Self {
            sections,
            order,
            local_symbols,
            positions,
            places,
            names,
            name_offsets,
            segment_bytes: address,
            segment_offset,
            symbols_offset,
            names_offset,
            end,
        })
    }

    fn write_commands(&self, out: &mut Counted<'_>, arch: Arch) {
        let encoder = encoder();
        let count = self.sections.len() as u32;
        let sizes = [
            encoder.segment_command_size(count),
            encoder.build_version_command_size(0),
            encoder.symtab_command_size(),
            encoder.dysymtab_command_size(),
        ];
        let (cputype, cpusubtype) = match arch {
            Arch::X86_64 => (macho::CPU_TYPE_X86_64, macho::CPU_SUBTYPE_X86_64_ALL),
            Arch::Aarch64 => (macho::CPU_TYPE_ARM64, macho::CPU_SUBTYPE_ARM64_ALL),
        };
        encoder.mach_header(
            out,
            &MachHeader {
                cputype,
                cpusubtype: cpusubtype.into(),
                filetype: macho::MH_OBJECT,
                ncmds: sizes.len() as u32,
                sizeofcmds: sizes.iter().sum::<u64>() as u32,
                flags: macho::MH_SUBSECTIONS_VIA_SYMBOLS,
            },
        );
        let all = macho::VM_PROT_READ | macho::VM_PROT_WRITE | macho::VM_PROT_EXECUTE;
        encoder.segment_command(
            out,
            &SegmentCommand {
                segname: [0; 16],
                vmaddr: 0,
                vmsize: self.segment_bytes,
                fileoff: self.segment_offset,
                filesize: self.segment_bytes,
                maxprot: all,
                initprot: all,
                nsects: count,
                flags: macho::SegmentFlags(0),
            },
        );
        for section in &self.sections {
            encoder.section_header(
                out,
                &SectionHeader {
                    sectname: padded(section.name),
                    segname: padded(section.segment),
                    addr: section.address,
                    size: section.bytes,
                    offset: section.offset as u32,
                    align: section.align.trailing_zeros(),
                    reloff: section.relocations.0 as u32,
                    nreloc: section.relocations.1 as u32,
                    flags: match section.kind {
                        SectionKind::Text => macho::S_ATTR_PURE_INSTRUCTIONS | macho::S_ATTR_SOME_INSTRUCTIONS,
                        SectionKind::ReadOnly => macho::SectionFlags(0),
                        SectionKind::Note | SectionKind::StackNote => macho::S_ATTR_DEBUG,
                    },
                    reserved1: 0,
                    reserved2: 0,
                    reserved3: 0,
                },
            );
        }
        let version = macho::Version(minimum_version(arch));
        let platform = macho::PLATFORM_MACOS;
        encoder.build_version_command(out, &BuildVersionCommand { platform, minos: version, sdk: version, ntools: 0 });
        encoder.symtab_command(
            out,
            &SymtabCommand {
                symoff: self.symbols_offset as u32,
                nsyms: self.order.len() as u32,
                stroff: self.names_offset as u32,
                strsize: self.names.len() as u32,
            },
        );
        let all = self.order.len() as u32;
        encoder.dysymtab_command(
            out,
            &DysymtabCommand {
                ilocalsym: 0,
                nlocalsym: self.local_symbols,
                iextdefsym: self.local_symbols,
                nextdefsym: all - self.local_symbols,
                iundefsym: all,
                nundefsym: 0,
                tocoff: 0,
                ntoc: 0,
                modtaboff: 0,
                nmodtab: 0,
                extrefsymoff: 0,
                nextrefsyms: 0,
                indirectsymoff: 0,
                nindirectsyms: 0,
                extreloff: 0,
                nextrel: 0,
                locreloff: 0,
                nlocrel: 0,
            },
        );
    }

    fn write_tables(&self, out: &mut Counted<'_>, object: &Object) {
        let encoder = encoder();
        for section in self.sections.iter().filter(|s| s.relocations.1 > 0) {
            out.pad_until(section.relocations.0);
            for member in &section.members {
                for r in &object.sections[member.section].relocations {
                    let info = RelocationInfo {
                        r_address: (member.offset + r.offset) as u32,
                        r_symbolnum: self.positions[r.symbol],
                        r_pcrel: r.kind != RelocationKind::Aarch64PageOffset,
                        r_length: 2,
                        r_extern: true,
                        r_type: relocation_type(r.kind),
                    };
                    encoder.relocation(out, &info);
                }
            }
        }
        out.pad_until(self.symbols_offset);
        for &i in &self.order {
            let symbol = &object.symbols[i];
            let (n_sect, n_value) = self.places[symbol.section];
            let external = if symbol.binding == Binding::Global { macho::N_EXT } else { macho::SymbolFlags(0) };
            let n_type = macho::SymbolFlags(macho::N_SECT.0) | external;
            let n_desc = macho::SymbolDesc(0);
            encoder.nlist(out, &Nlist { n_strx: self.name_offsets[i], n_type, n_sect, n_desc, n_value });
        }
        out.write_bytes(&self.names);
    }
}

fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn relocation_type(kind: RelocationKind) -> macho::RelocationType {
    match kind {
        RelocationKind::X86Call => macho::X86_64_RELOC_BRANCH,
        RelocationKind::X86PcRel => macho::X86_64_RELOC_SIGNED,
        RelocationKind::Aarch64Call => macho::ARM64_RELOC_BRANCH26,
        RelocationKind::Aarch64Page => macho::ARM64_RELOC_PAGE21,
        RelocationKind::Aarch64PageOffset => macho::ARM64_RELOC_PAGEOFF12,
    }
}
