//! The list of what a compile made: hashes, flags, version. No times and no paths, so that equal compiles give equal lists.

use serde::Serialize;

use super::note::Note;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its kind, as `--emit` names it.
    pub kind: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the contents, in hexadecimal.
    pub sha256: String,
}

/// The list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest<'a> {
    /// Form of this list.
    pub schema: &'static str,
    /// Flags that shaped the result, without paths, in a fixed order.
    pub flags: Vec<String>,
    /// What the object says of itself.
    pub model: &'a Note,
    /// Files in the order of their kinds.
    pub files: Vec<File>,
}

impl<'a> Manifest<'a> {
    /// A list in canonical order.
    pub fn new(model: &'a Note, mut flags: Vec<String>, mut files: Vec<File>) -> Self {
        flags.sort();
        files.sort_by(|a, b| a.kind.cmp(&b.kind));
        Self { schema: "aic-manifest-1", flags, model, files }
    }

    /// As JSON, indented.
    pub fn to_json(&self) -> String {
        // Maps with other keys than strings are what JSON cannot hold; there are none.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
