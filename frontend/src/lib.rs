//! Readers: one module per file format, each producing an [`aic_ir::graph::Graph`].
//!
//! | module | reads |
//! |---|---|
//! | [`onnx`] | ONNX files, operator sets 7 to 23 |
//! | [`hf`] | Hugging Face folders: `config.json` and `model.safetensors` of encoders |
//! | [`files`] | how readers get at other files of the model's folder, and which names they may ask for |
//! | [`shapes`] | fixing dynamic dimensions |
//! | [`error`] | why a model is refused |
//!
//! Readers do no input or output: the caller gives the bytes and the access to further files. They never panic,
//! whatever the bytes are, and take time and memory in proportion to them.

mod body;
mod builder;
pub mod error;
pub mod files;
mod fold;
pub mod hf;
pub mod onnx;
pub mod shapes;

use std::collections::BTreeMap;

use aic_ir::graph::Graph;
use bytes::Bytes;

pub use error::{ReadError, Refused, RefusedNode};
pub use files::{FileName, Files, FilesError, MemoryFiles};
pub use shapes::{Dim, InputInfo, ShapeBindings, ShapesError};

/// Where a model comes from.
#[derive(Clone, Copy)]
pub enum ModelSource<'a> {
    /// An ONNX file.
    Onnx {
        /// The file.
        bytes: &'a Bytes,
        /// The folder it lies in.
        files: &'a dyn Files,
    },
    /// A Hugging Face folder.
    HuggingFace {
        /// The folder.
        files: &'a dyn Files,
    },
}

/// Reads a model with its dynamic dimensions fixed.
///
/// # Errors
/// When files are missing or malformed, dimensions stay open, or parts are not supported.
pub fn read(source: ModelSource<'_>, bindings: &ShapeBindings) -> Result<Graph, ReadError> {
    match source {
        ModelSource::Onnx { bytes, files } => onnx::read(bytes.clone(), files, bindings),
        ModelSource::HuggingFace { files } => hf::read(files, bindings),
    }
}

/// What a model declares, and what of it would be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Inputs with their dynamic dimensions.
    pub inputs: Vec<InputInfo>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Operators of the model's own format and how often each is used; empty for formats without operators.
    pub operators: BTreeMap<String, usize>,
    /// Constants of the model that no part of it uses, where the format lets them be seen.
    pub unused: Vec<String>,
    /// What would be refused.
    pub refused: Vec<RefusedNode>,
}

/// Looks at a model without fixing its dimensions; with `bindings` that fix them, the judgement is complete.
///
/// # Errors
/// When files are missing or malformed, or bindings do not fit the model.
pub fn inspect(source: ModelSource<'_>, bindings: &ShapeBindings) -> Result<Inspection, ReadError> {
    match source {
        ModelSource::Onnx { bytes, files } => onnx::inspect(bytes.clone(), files, bindings),
        ModelSource::HuggingFace { files } => hf::inspect(files, bindings),
    }
}
