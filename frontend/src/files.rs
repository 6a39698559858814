//! Access to the files of a model's folder, given by the caller, and the names that may be asked for.
//!
//! Readers do no input or output themselves. A model file can name other files (ONNX external data, modules of a
//! sentence-transformers folder); such names come from outside and are checked here, so that an implementation of
//! [`Files`] never sees one that leaves the folder by its spelling. Links inside the folder are the implementation's
//! to check.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

/// Longest name of a file.
const MAX_NAME_BYTES: usize = 1024;

/// A plain relative name of a file below the model's folder: parts joined by `/`, none of them empty, `.` or `..`,
/// without backslashes, colons (drive letters and streams) and control characters, and not endless.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// Checks the spelling of a name.
    ///
    /// # Errors
    /// [`FilesError::BadName`] when the name could leave the folder or is not plain.
    pub fn new(name: &str) -> Result<Self, FilesError> {
        let plain = name.len() <= MAX_NAME_BYTES
            && !name.contains(|c: char| matches!(c, '\\' | ':') || c.is_control())
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if plain { Ok(Self(name.to_owned())) } else { Err(FilesError::BadName(name.chars().take(200).collect())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a file of the model's folder could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// The name is not that of a file inside the folder.
    #[error("file name {0:?} is refused: only plain relative names inside the model's folder are read")]
    BadName(String),
    /// There is no such file.
    #[error("there is no file `{0}` in the model's folder")]
    NotFound(String),
    /// A range passes the end of its file.
    #[error("bytes {offset}..{end} of file `{name}` are asked for, but it has only {file_bytes}", end = offset.saturating_add(*length))]
    OutOfRange {
        /// Name of the file.
        name: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// Reading failed; the text is the system's.
    #[error("file `{name}` cannot be read: {reason}")]
    Io {
        /// Name of the file.
        name: String,
        /// The system's message.
        reason: String,
    },
}

/// The files of a model's folder.
///
/// Implementations read each file once and return ranges of that one buffer: a hostile model may ask for the same
/// bytes a million times. They follow no link out of the folder.
pub trait Files {
    /// The whole file.
    ///
    /// # Errors
    /// [`FilesError::NotFound`] if there is none (readers take optional files by it), or another [`FilesError`].
    fn read(&self, name: &FileName) -> Result<Bytes, FilesError>;

    /// `length` bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Files::read`], and [`FilesError::OutOfRange`] past the end of the file.
    fn read_range(&self, name: &FileName, offset: u64, length: u64) -> Result<Bytes, FilesError> {
        let file = self.read(name)?;
        let range = || {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (end <= file.len()).then(|| file.slice(start..end))
        };
        range().ok_or_else(|| FilesError::OutOfRange {
            name: name.0.clone(),
            offset,
            length,
            file_bytes: file.len() as u64,
        })
    }
}

/// A folder held in memory. Empty, it stands for a model that may use no other file.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(BTreeMap<String, Bytes>);

impl MemoryFiles {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, name: impl Into<String>, bytes: impl Into<Bytes>) {
        self.0.insert(name.into(), bytes.into());
    }
}

impl Files for MemoryFiles {
    fn read(&self, name: &FileName) -> Result<Bytes, FilesError> {
        self.0.get(name.as_str()).cloned().ok_or_else(|| FilesError::NotFound(name.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in
            ["", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "./a", "a\\b", "C:x", "a\0b", "a\nb", "\u{1b}[2J"]
        {
            assert_eq!(FileName::new(bad), Err(FilesError::BadName(bad.into())));
        }
        for good in ["a", "a/b.bin", "1_Pooling/config.json", "..a", "a..b"] {
            assert_eq!(FileName::new(good).map(|n| n.0), Ok(good.to_owned()));
        }
    }

    #[test]
    fn ranges_are_checked() {
        let mut files = MemoryFiles::new();
        files.insert("w", vec![0, 1, 2, 3]);
        let name = FileName::new("w").expect("plain name");
        assert_eq!(files.read_range(&name, 1, 3).expect("in range").as_ref(), [1, 2, 3]);
        for (offset, length) in [(2, 3), (5, 0), (u64::MAX, 1), (0, u64::MAX)] {
            let error = files.read_range(&name, offset, length).expect_err("out of range");
            assert!(matches!(error, FilesError::OutOfRange { file_bytes: 4, .. }), "{error}");
        }
    }
}
