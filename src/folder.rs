//! A model's folder on disk: each file is read once, and none outside the folder is reachable through it.
//!
//! Model files name other files, and model files are hostile. Spelling is checked by the reader
//! ([`aic_frontend::files::FileName`]); here every component is opened relative to the folder's handle without following
//! links, and the opened handle itself must be a regular file with one name (a hard link could stand for a file outside).
//! The one exception is the cache layout of the Hugging Face hub, whose snapshots are folders of links into a
//! `blobs` folder beside them: links there are followed, and only there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aic_frontend::files::{FileName, Files, FilesError};
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// The files of one folder. See the [module documentation](self).
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    blobs: Option<PathBuf>,
    cache: RefCell<BTreeMap<FileName, Bytes>>,
}

impl Folder {
    /// The files of the folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let blobs = hub_blobs(&path);
        Self { path, blobs, cache: RefCell::default() }
    }

    /// Paths of all files read so far, in the order of their names.
    pub fn paths_read(&self) -> Vec<PathBuf> {
        self.cache.borrow().keys().map(|n| self.path.join(n.as_str())).collect()
    }

    /// All files read so far, in the order of their names.
    pub fn contents(&self) -> Vec<(String, Bytes)> {
        self.cache.borrow().iter().map(|(n, b)| (n.as_str().to_owned(), b.clone())).collect()
    }

    fn open(&self, name: &FileName) -> Result<File, FilesError> {
        let refused = |reason: &str| FilesError::Io { name: name.as_str().to_owned(), reason: reason.to_owned() };
        let failed = |e: rustix::io::Errno| match e {
            rustix::io::Errno::NOENT => FilesError::NotFound(name.as_str().to_owned()),
            rustix::io::Errno::LOOP | rustix::io::Errno::MLINK => refused("it is a symbolic link"),
            e => refused(&std::io::Error::from(e).to_string()),
        };
        let step = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut at = openat(CWD, &self.path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())
            .map_err(failed)?;
        let (folders, last) = match name.as_str().rsplit_once('/') {
            Some((folders, last)) => (folders.split('/').collect(), last),
            None => (Vec::new(), name.as_str()),
        };
        for folder in folders {
            at = openat(&at, folder, step | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        }
        // Without NONBLOCK, opening a pipe would wait for a writer.
        match openat(&at, last, step | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                match links(&file) {
                    Some(1) => Ok(file),
                    Some(_) => Err(refused("it is a hard link, so it may be a file of another folder")),
                    None => Err(refused("it is not a regular file")),
                }
            }
            Err(e @ (rustix::io::Errno::LOOP | rustix::io::Errno::MLINK)) => {
                let target = self.path.join(name.as_str()).canonicalize().ok();
                match target.filter(|t| self.blobs.is_some() && t.parent() == self.blobs.as_deref()) {
                    Some(target) => File::open(target).map_err(|e| refused(&e.to_string())),
                    None => Err(failed(e)),
                }
            }
            Err(e) => Err(failed(e)),
        }
    }
}

impl Files for Folder {
    fn read(&self, name: &FileName) -> Result<Bytes, FilesError> {
        if let Some(bytes) = self.cache.borrow().get(name) {
            return Ok(bytes.clone());
        }
        let bytes = read_all(self.open(name)?)
            .map_err(|e| FilesError::Io { name: name.as_str().to_owned(), reason: e.to_string() })?;
        self.cache.borrow_mut().insert(name.clone(), bytes.clone());
        Ok(bytes)
    }
}

/// Reads a regular file into one buffer of its exact size.
pub(crate) fn read_all(file: File) -> std::io::Result<Bytes> {
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    let capacity = usize::try_from(size).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(capacity).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    // Not a byte more than announced: a growing file must not take memory without bound.
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Number of names of a regular file; `None` for anything else.
fn links(file: &File) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.nlink())
}

/// The `blobs` folder of a hub cache, if the folder is `models--…/snapshots/REVISION`.
fn hub_blobs(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let snapshots = folder.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn read(folder: &Path, name: &str) -> Result<Bytes, String> {
        let name = FileName::new(name).map_err(|e| e.to_string())?;
        Folder::new(folder).read(&name).map_err(|e| e.to_string())
    }

    #[test]
    fn only_plain_files_inside_the_folder_are_read() {
        let outside = tempfile::tempdir().expect("folder");
        fs::write(outside.path().join("secret"), b"secret").expect("writes");
        let model = tempfile::tempdir_in(outside.path()).expect("folder");
        let path = |name: &str| model.path().join(name);
        fs::create_dir(path("sub")).expect("makes");
        fs::write(path("sub/data"), b"data").expect("writes");
        symlink("../secret", path("link")).expect("links");
        symlink("..", path("up")).expect("links");
        fs::hard_link(outside.path().join("secret"), path("hard")).expect("links");

        assert_eq!(read(model.path(), "sub/data").as_deref(), Ok(b"data".as_ref()));
        assert!(read(model.path(), "link").is_err_and(|e| e.contains("symbolic link")));
        assert!(read(model.path(), "up/secret").is_err());
        assert!(read(model.path(), "hard").is_err_and(|e| e.contains("hard link")));
        assert!(read(model.path(), "sub").is_err_and(|e| e.contains("regular file")));
        assert!(read(model.path(), "none").is_err_and(|e| e.contains("no file")));
        assert!(read(model.path(), "../secret").is_err());
    }

    #[test]
    fn the_hub_cache_may_link_into_its_blobs() {
        let cache = tempfile::tempdir().expect("folder");
        let snapshot = cache.path().join("models--a--b/snapshots/0123");
        fs::create_dir_all(&snapshot).expect("makes");
        fs::create_dir_all(cache.path().join("models--a--b/blobs")).expect("makes");
        fs::write(cache.path().join("models--a--b/blobs/ff"), b"config").expect("writes");
        fs::write(cache.path().join("secret"), b"secret").expect("writes");
        symlink("../../blobs/ff", snapshot.join("config.json")).expect("links");
        symlink("../../../secret", snapshot.join("other")).expect("links");
        assert_eq!(read(&snapshot, "config.json").as_deref(), Ok(b"config".as_ref()));
        assert!(read(&snapshot, "other").is_err());
    }

    #[test]
    fn files_are_read_once() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("w"), [1; 4096]).expect("writes");
        let files = Folder::new(folder.path());
        let name = FileName::new("w").expect("plain");
        let first = files.read(&name).expect("reads");
        let range = files.read_range(&name, 16, 8).expect("reads");
        assert_eq!(range.as_ptr(), first[16..].as_ptr());
    }
}
