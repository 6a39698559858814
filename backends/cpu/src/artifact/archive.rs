//! Static archives: one object behind tables of its symbols, in the flavor that each format's linkers read.
//!
//! | format | flavor | tables |
//! |---|---|---|
//! | ELF | System V (GNU) | `/` |
//! | COFF | Microsoft | `/`, and a second one with the symbols in order |
//! | Mach-O | BSD | `__.SYMDEF SORTED` |
//!
//! Written here and not by a library because the known ones take members as whole buffers, and the member holds the weights.
//! Formats: `ar(5)` of FreeBSD, "Archive File Format" in the System V ABI, "Archive (Library) File Format" in Microsoft's "PE
//! Format", and Apple's `mach-o/ranlib.h`. Times and owners are zero, so that equal inputs give equal bytes.

use std::io;

use aic_ir::machine::Arch;

use super::ArtifactError;
use super::format::Format;
use super::object::Object;
use super::weights::Weights;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: u64 = 60;

/// Longest name in a header, with the `/` behind it.
const NAME_BYTES: usize = 16;

/// Alignment of members: Apple's linkers map 64-bit objects in place.
const BSD_ALIGN: u64 = 8;

/// Writes an archive that holds one object.
///
/// # Errors
/// When `out` fails, the weights do not fit their plan, or the object is too large for the format.
pub fn write(
    object: &Object,
    member: &str,
    format: Format,
    arch: Arch,
    weights: Weights<'_>,
    out: &mut dyn io::Write,
) -> Result<(), ArtifactError> {
    let object_bytes = format.file_bytes(object)?;
    let mut symbols: Vec<String> =
        object.public_symbols().map(|name| format!("{}{name}", format.symbol_prefix())).collect();
    if format != Format::Elf {
        symbols.sort_unstable();
    }
    out.write_all(MAGIC)?;
    match format {
        Format::Elf => system_v(&symbols, member, object_bytes, false, out)?,
        Format::Coff => system_v(&symbols, member, object_bytes, true, out)?,
        Format::MachO => bsd(&symbols, member, object_bytes, out)?,
    }
    format.write(object, arch, weights, out)?;
    let align = if format == Format::MachO { BSD_ALIGN } else { 2 };
    out.write_all(&vec![b'\n'; (object_bytes.next_multiple_of(align) - object_bytes) as usize])?;
    Ok(())
}

/// Everything before the object, in the System V flavor or Microsoft's.
fn system_v(
    symbols: &[String],
    member: &str,
    object_bytes: u64,
    microsoft: bool,
    out: &mut dyn io::Write,
) -> Result<(), ArtifactError> {
    let mut names: Vec<u8> = symbols.iter().flat_map(|s| s.bytes().chain([0])).collect();
    // Members start at even offsets. So may the first that follows the symbol table.
    names.resize(names.len().next_multiple_of(2), 0);
    let count = symbols.len() as u64;
    let first_bytes = 4 + 4 * count + names.len() as u64;
    // Number of members, their offsets, number of symbols, the member of each, names.
    let second_bytes = 4 + 4 + 4 + 2 * count + names.len() as u64;
    // A member's name ends in `/`; one that is too long for the header goes into a table of its own.
    let name = format!("{member}/");
    let end = if microsoft { "\0" } else { "/\n" };
    let (name, long_name) =
        if name.len() <= NAME_BYTES { (name, None) } else { ("/0".to_owned(), Some(format!("{member}{end}"))) };
    let long_bytes = long_name.as_ref().map_or(0, |n| HEADER_BYTES + n.len().next_multiple_of(2) as u64);
    let second = if microsoft { HEADER_BYTES + second_bytes } else { 0 };
    let offset = MAGIC.len() as u64 + HEADER_BYTES + first_bytes + second + long_bytes;
    let offset = u32::try_from(offset).map_err(|_| too_large())?;
    write_header(out, "/", first_bytes)?;
    out.write_all(&(count as u32).to_be_bytes())?;
    for _ in 0..count {
        out.write_all(&offset.to_be_bytes())?;
    }
    out.write_all(&names)?;
    if microsoft {
        write_header(out, "/", second_bytes)?;
        for word in [1, offset, count as u32] {
            out.write_all(&word.to_le_bytes())?;
        }
        for _ in 0..count {
            out.write_all(&1u16.to_le_bytes())?;
        }
        out.write_all(&names)?;
    }
    if let Some(long) = long_name {
        write_header(out, "//", long.len() as u64)?;
        out.write_all(long.as_bytes())?;
        if long.len() % 2 == 1 {
            out.write_all(b"\n")?;
        }
    }
    write_header(out, &name, object_bytes)
}

/// Everything before the object, in the BSD flavor: names stand behind headers and are part of the member.
fn bsd(symbols: &[String], member: &str, object_bytes: u64, out: &mut dyn io::Write) -> Result<(), ArtifactError> {
    const TABLE: &str = "__.SYMDEF SORTED";
    let mut names: Vec<u8> = symbols.iter().flat_map(|s| s.bytes().chain([0])).collect();
    names.resize(names.len().next_multiple_of(BSD_ALIGN as usize), 0);
    let table_bytes = 4 + 8 * symbols.len() as u64 + 4 + names.len() as u64;
    // The name takes what is missing to the alignment of what follows it.
    let named = |at: u64, name: &str| (at + HEADER_BYTES + name.len() as u64).next_multiple_of(BSD_ALIGN);
    let table_start = named(MAGIC.len() as u64, TABLE);
    let table_end = (table_start + table_bytes).next_multiple_of(BSD_ALIGN);
    let object_start = named(table_end, member);
    let offset = u32::try_from(table_end).map_err(|_| too_large())?;

    let header = |out: &mut dyn io::Write, at: u64, start: u64, name: &str, end: u64| {
        let name_bytes = start - at - HEADER_BYTES;
        write_header(out, &format!("#1/{name_bytes}"), end - at - HEADER_BYTES)?;
        let mut padded = name.as_bytes().to_vec();
        padded.resize(name_bytes as usize, 0);
        out.write_all(&padded).map_err(ArtifactError::from)
    };
    header(out, MAGIC.len() as u64, table_start, TABLE, table_end)?;
    out.write_all(&(8 * symbols.len() as u32).to_le_bytes())?;
    let mut name_offset = 0u32;
    for symbol in symbols {
        out.write_all(&name_offset.to_le_bytes())?;
        out.write_all(&offset.to_le_bytes())?;
        name_offset += symbol.len() as u32 + 1;
    }
    out.write_all(&(names.len() as u32).to_le_bytes())?;
    out.write_all(&names)?;
    out.write_all(&vec![0; (table_end - table_start - table_bytes) as usize])?;
    header(out, table_end, object_start, member, object_start + object_bytes)
}

fn too_large() -> ArtifactError {
    ArtifactError::Internal("too large for an archive".to_owned())
}

/// Name, time, owner, group, mode and size, in fixed columns of text.
fn write_header(out: &mut dyn io::Write, name: &str, bytes: u64) -> Result<(), ArtifactError> {
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{bytes:<10}`\n", 0, 0, 0, 644);
    if header.len() as u64 != HEADER_BYTES {
        return Err(too_large());
    }
    out.write_all(header.as_bytes())?;
    Ok(())
}
