//! What an object says of itself: a note that is not loaded, for `aic inspect` and other tools.
//!
//! In ELF it is in section `.note.aic` with owner `aic` and type 1, and its contents are JSON; a linked program holds one
//! note for each model in it. Mach-O and COFF objects hold the same bytes, in `__AIC,__note` and `.note.aic`, which their linkers
//! leave out.

use serde::{Deserialize, Serialize};

use super::interface::Interface;
use super::object::{Object, SectionKind};
use crate::CpuTarget;

/// Name of the section.
pub const SECTION: &str = ".note.aic";

/// Segment of the section in Mach-O.
pub const MACHO_SEGMENT: &str = "__AIC";

/// Name of the section in Mach-O.
pub const MACHO_SECTION: &str = "__note";

/// Owner of the note.
pub const OWNER: &str = "aic";

/// Type of the note.
pub const TYPE: u32 = 1;

/// The contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Compiler and version.
    pub generator: String,
    /// The platform.
    pub target: String,
    /// Name of the machine that the code was scheduled for.
    pub cpu: String,
    /// Features that the processor must have.
    pub features: Vec<String>,
    /// Bytes of machine code.
    pub code_bytes: u64,
    /// Bytes of constants, embedded weights included.
    pub constant_bytes: u64,
    /// Hash of the interface, as symbols carry it.
    pub interface_hash: String,
    /// The interface.
    pub interface: Interface,
}

impl Note {
    /// The note of an object that is complete but for it.
    pub fn new(interface: &Interface, object: &Object, target: &CpuTarget) -> Self {
        Self {
            generator: generator(),
            target: target.triple.to_string(),
            cpu: target.machine.name.clone(),
            features: target.machine.features.clone(),
            code_bytes: object.bytes_of(SectionKind::Text),
            constant_bytes: object.bytes_of(SectionKind::ReadOnly),
            interface_hash: interface.hash(),
            interface: interface.clone(),
        }
    }

    /// The note of a section that [`Note::to_bytes`] made; `None` if it did not.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |i: usize| Some(u32::from_le_bytes(*bytes.get(4 * i..)?.first_chunk()?));
        let owner = OWNER.len() + 1;
        let named = bytes.get(12..12 + OWNER.len())? == OWNER.as_bytes();
        if !(named && word(0)? as usize == owner && word(2)? == TYPE) {
            return None;
        }
        let start = 12 + owner.next_multiple_of(4);
        let json = bytes.get(start..start.checked_add(word(1)? as usize)?)?;
        serde_json::from_slice(json).ok()
    }

    /// The note as a section holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps with other keys than strings are what JSON cannot hold; there are none.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut out = Vec::with_capacity(json.len() + 20);
        for word in [OWNER.len() as u32 + 1, json.len() as u32, TYPE] {
            out.extend(word.to_le_bytes());
        }
        out.extend(OWNER.as_bytes());
        out.resize(out.len() + 4 - OWNER.len() % 4, 0);
        out.extend(json);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }
}

/// Compiler and version, as headers and notes name it.
pub fn generator() -> String {
    format!("aic {}", env!("CARGO_PKG_VERSION"))
}
