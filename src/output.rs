//! Output files, all or nothing: contents go into a temporary file in the target's folder, and only a complete one gets
//! the name asked for. A failed run leaves what was there before.

use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Files that are written together: none has its name before [`Outputs::commit`] is called.
#[derive(Debug, Default)]
pub struct Outputs {
    files: Vec<Output>,
}

/// A file under way. Write to it, then tell whether that worked with [`Outputs::commit`].
#[derive(Debug)]
struct Output {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    /// Under a temporary name.
    Temporary(BufWriter<tempfile::NamedTempFile>),
    /// For what is no regular file (a device, a pipe) and must not be replaced by one.
    Special(Vec<u8>),
}

impl Outputs {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a file under a temporary name in the folder of `path`.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to, or `path` is a folder.
    pub fn create(&mut self, path: &Path) -> Result<&mut dyn Write, Error> {
        // Renaming would replace a link by a file; what it points to is meant.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.files.iter().any(|f| f.path == path && matches!(f.contents, Contents::Temporary(_))) {
            let twice = std::io::Error::new(std::io::ErrorKind::AlreadyExists, "two outputs have this name");
            return Err(Error::io("write", &path, twice));
        }
        let special = fs::metadata(&path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        let contents = if special {
            Contents::Special(Vec::new())
        } else {
            Contents::Temporary(BufWriter::new(temporary(&path)?))
        };
        self.files.push(Output { path, contents });
        match self.files.last_mut().map(|f| &mut f.contents) {
            Some(Contents::Temporary(file)) => Ok(file),
            Some(Contents::Special(bytes)) => Ok(bytes),
            None => unreachable!("a file was just added"),
        }
    }

    /// Adds a file with these contents.
    ///
    /// # Errors
    /// As [`Outputs::create`], and when writing fails.
    pub fn add(&mut self, path: &Path, contents: &[u8]) -> Result<(), Error> {
        self.create(path)?.write_all(contents).map_err(|e| Error::io("write", path, e))
    }

    /// Gives every file its name.
    ///
    /// # Errors
    /// When a file cannot be completed or renamed; files before it have their names already.
    pub fn commit(self) -> Result<(), Error> {
        let mut complete = Vec::with_capacity(self.files.len());
        for Output { path, contents } in self.files {
            complete.push(match contents {
                Contents::Temporary(file) => {
                    (Ok(file.into_inner().map_err(|e| Error::io("write", &path, e.into_error()))?), path)
                }
                Contents::Special(bytes) => (Err(bytes), path),
            });
        }
        for (contents, path) in complete {
            match contents {
                Ok(file) => drop(file.persist(&path).map_err(|e| Error::io("write", &path, e.error))?),
                Err(bytes) => fs::write(&path, bytes).map_err(|e| Error::io("write", &path, e))?,
            }
        }
        Ok(())
    }
}

/// An empty file under a name of its own, beside `path`.
fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, Error> {
    if path.is_dir() {
        return Err(Error::io("write", path, std::io::ErrorKind::IsADirectory.into()));
    }
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    // As any other new file: the mode that the user's mask leaves, not that of a secret.
    tempfile::Builder::new()
        .prefix(".aic-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        // The kind alone: the error's own text names the temporary file.
        .map_err(|e| Error::io("write", path, e.kind().into()))
}

/// Makes a folder and those above it.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io("create folder", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("lists")
            .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_left_unless_committed() {
        let folder = tempfile::tempdir().expect("folder");
        let mut outputs = Outputs::new();
        outputs.add(&folder.path().join("a"), b"1").expect("writes");
        assert!(outputs.add(&folder.path().join("missing/b"), b"2").is_err());
        drop(outputs);
        assert!(names(folder.path()).is_empty());

        let mut outputs = Outputs::new();
        outputs.add(&folder.path().join("a"), b"1").expect("writes");
        outputs.add(&folder.path().join("b"), b"2").expect("writes");
        assert!(outputs.add(&folder.path().join("a"), b"3").is_err_and(|e| e.to_string().contains("a")));
        outputs.commit().expect("renames");
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn devices_and_links_stay_what_they_are() {
        let folder = tempfile::tempdir().expect("folder");
        let link = folder.path().join("link");
        fs::write(folder.path().join("a"), b"old").expect("writes");
        std::os::unix::fs::symlink(folder.path().join("a"), &link).expect("links");
        let mut outputs = Outputs::new();
        outputs.add(Path::new("/dev/null"), b"1").expect("accepts");
        outputs.add(&link, b"new").expect("writes");
        outputs.commit().expect("writes");
        assert!(!fs::metadata("/dev/null").expect("exists").is_file());
        assert!(fs::symlink_metadata(&link).expect("exists").is_symlink());
        assert_eq!(fs::read(&link).expect("reads"), b"new");
    }

    #[test]
    fn folders_are_not_overwritten() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(Outputs::new().add(folder.path(), b"1").is_err());
    }
}
