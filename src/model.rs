//! Models on their way in: where they lie, and their bytes, each file read once.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use aic_frontend::{Inspection, MemoryFiles, ModelSource, ShapeBindings};
use aic_ir::graph::Graph;
use bytes::Bytes;

use crate::Error;
use crate::folder::{Folder, read_all};

/// A model that was opened but not yet read.
pub struct Model {
    name: String,
    path: PathBuf,
    source: Source,
}

enum Source {
    /// An ONNX file in a folder, which may hold its external data.
    Onnx(Bytes, Folder),
    /// An ONNX file that is not on disk and so has no external data.
    Memory(Bytes, MemoryFiles),
    /// A Hugging Face folder.
    HuggingFace(Folder),
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Model {
    /// Opens an ONNX file or a Hugging Face folder. Its name is the file's stem, or the folder's name.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Refused`] when it is neither a regular file nor a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |e| Error::io("read", path, e);
        let kind = fs::metadata(path).map_err(io)?;
        if kind.is_dir() {
            // The folder may be given as `.` or `model/..`.
            let name = path.canonicalize().map_err(io)?.file_name().map(|n| n.to_string_lossy().into_owned());
            let source = Source::HuggingFace(Folder::new(path));
            return Ok(Self { name: identifier(&name.unwrap_or_default()), path: path.to_owned(), source });
        }
        if !kind.is_file() {
            return Err(Error::Refused(format!("model `{}` is neither a file nor a folder", path.display())));
        }
        let bytes = fs::File::open(path).and_then(read_all).map_err(io)?;
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let name = identifier(&path.file_stem().unwrap_or_default().to_string_lossy());
        Ok(Self { name, path: path.to_owned(), source: Source::Onnx(bytes, Folder::new(folder)) })
    }

    /// An ONNX file in memory. It may not refer to external data.
    pub fn from_onnx(name: &str, bytes: impl Into<Bytes>) -> Self {
        let source = Source::Memory(bytes.into(), MemoryFiles::new());
        Self { name: identifier(name), path: PathBuf::from(name), source }
    }

    /// The model's name, a C identifier.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the model lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file read so far, the model itself first: what an artifact depends on.
    pub fn files(&self) -> Vec<PathBuf> {
        let others = |folder: &Folder| folder.paths_read();
        match &self.source {
            Source::Onnx(_, folder) => std::iter::once(self.path.clone()).chain(others(folder)).collect(),
            Source::Memory(..) => Vec::new(),
            Source::HuggingFace(folder) => others(folder),
        }
    }

    /// The bytes read so far, with their names relative to the model's folder, in a fixed order: what the model's hash is
    /// taken over.
    pub fn contents(&self) -> Vec<(String, Bytes)> {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match &self.source {
            Source::Onnx(bytes, folder) => std::iter::once((file, bytes.clone())).chain(folder.contents()).collect(),
            Source::Memory(bytes, _) => vec![(file, bytes.clone())],
            Source::HuggingFace(folder) => folder.contents(),
        }
    }

    /// Reads the model with its dynamic dimensions fixed.
    ///
    /// # Errors
    /// [`Error::Model`] when the reader refuses it.
    pub fn read(&self, shapes: &ShapeBindings) -> Result<Graph, Error> {
        aic_frontend::read(self.source(), shapes).map_err(|e| self.refused(e))
    }

    /// What the model declares, and what of it would be refused.
    ///
    /// # Errors
    /// [`Error::Model`] when its files are malformed or the shapes do not fit.
    pub fn inspect(&self, shapes: &ShapeBindings) -> Result<Inspection, Error> {
        aic_frontend::inspect(self.source(), shapes).map_err(|e| self.refused(e))
    }

    fn source(&self) -> ModelSource<'_> {
        match &self.source {
            Source::Onnx(bytes, files) => ModelSource::Onnx { bytes, files },
            Source::Memory(bytes, files) => ModelSource::Onnx { bytes, files },
            Source::HuggingFace(files) => ModelSource::HuggingFace { files },
        }
    }

    fn refused(&self, source: aic_frontend::ReadError) -> Error {
        Error::Model { path: self.path.clone(), source }
    }
}

/// A C identifier that resembles a text: other characters become `_`, and a digit does not come first.
pub(crate) fn identifier(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.chars().next().is_none_or(|c| c.is_ascii_digit()) {
        name.insert_str(0, "model_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        assert_eq!(identifier("all-MiniLM-L6-v2"), "all_MiniLM_L6_v2");
        assert_eq!(identifier("7b"), "model_7b");
        assert_eq!(identifier(""), "model_");
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        assert!(matches!(Model::open("/dev/null"), Err(Error::Refused(_))));
        assert!(matches!(Model::open("/no/such/model.onnx"), Err(Error::Io { .. })));
    }
}
