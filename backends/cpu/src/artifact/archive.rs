//! Static archives: one object behind a symbol table, in the System V (GNU) form.
//!
//! Written here and not by a library because the known ones take members as whole buffers, and the member holds the weights.
//! Format: `ar(5)` of FreeBSD, and "Archive File Format" in the System V ABI. Times and owners are zero, so that equal
//! inputs give equal bytes.

use std::io;

use aic_ir::machine::Arch;

use super::object::Object;
use super::weights::Weights;
use super::{ArtifactError, elf};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: u64 = 60;

/// Writes an archive that holds one object.
///
/// # Errors
/// When `out` fails, the weights do not fit their plan, or the object is too large for the format.
pub fn write(
    object: &Object,
    member: &str,
    arch: Arch,
    weights: Weights<'_>,
    out: &mut dyn io::Write,
) -> Result<(), ArtifactError> {
    let object_bytes = elf::file_bytes(object)?;
    let mut names = Vec::new();
    for symbol in object.public_symbols() {
        names.extend_from_slice(symbol.as_bytes());
        names.push(0);
    }
    let count = object.public_symbols().count();
    // Members start at even offsets. So may the first that follows the symbol table.
    names.resize(names.len().next_multiple_of(2), 0);
    let table_bytes = 4 + 4 * count as u64 + names.len() as u64;
    // A member's name ends in `/`; one that is too long for the header goes into a table of its own.
    let name = format!("{member}/");
    let (name, long_name) = if name.len() <= 16 { (name, None) } else { ("/0".to_owned(), Some(format!("{name}\n"))) };
    let long_bytes = long_name.as_ref().map_or(0, |n| HEADER_BYTES + n.len().next_multiple_of(2) as u64);
    let object_offset = MAGIC.len() as u64 + HEADER_BYTES + table_bytes + long_bytes;
    let object_offset = u32::try_from(object_offset).map_err(|_| too_large())?;

    out.write_all(MAGIC)?;
    write_header(out, "/", table_bytes)?;
    out.write_all(&(count as u32).to_be_bytes())?;
    for _ in 0..count {
        out.write_all(&object_offset.to_be_bytes())?;
    }
    out.write_all(&names)?;
    if let Some(long) = long_name {
        write_header(out, "//", long.len() as u64)?;
        out.write_all(long.as_bytes())?;
        if long.len() % 2 == 1 {
            out.write_all(b"\n")?;
        }
    }
    write_header(out, &name, object_bytes)?;
    elf::write(object, arch, weights, out)?;
    if object_bytes % 2 == 1 {
        out.write_all(b"\n")?;
    }
    Ok(())
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
