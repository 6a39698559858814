//! Hugging Face folders: `config.json` and `model.safetensors` of `bert` and `distilbert` encoders, and what
//! sentence-transformers adds (`modules.json`, `1_Pooling/config.json`).
//!
//! The program is written from the architecture's definition, with the names of the checkpoint's modules on its nodes:
//!
//! - inputs `input_ids`, `attention_mask` and, for `bert`, `token_type_ids`, all `i64[batch, seq]`;
//! - outputs `last_hidden_state: f32[batch, seq, hidden]`, then `sentence_embedding: f32[batch, ...]` where the folder
//!   has a pooling module, or else `pooler_output: f32[batch, hidden]` where the checkpoint has a pooler.

mod config;
mod encoder;
mod sentence;
mod weights;

use std::collections::BTreeMap;

use aic_ir::graph::{Graph, Value};
use aic_ir::types::DType;
use bytes::Bytes;

use crate::Inspection;
use crate::builder::{Builder, Reason};
use crate::error::ReadError;
use crate::files::{FileName, Files, FilesError};
use crate::shapes::{self, Dim, InputInfo, ShapeBindings};
use config::{EncoderConfig, Family};
use weights::Weights;

/// Values of `model_type` that are read.
pub const ARCHITECTURES: [&str; 2] = ["bert", "distilbert"];

impl From<Reason> for ReadError {
    fn from(Reason(text): Reason) -> Self {
        ReadError::Unsupported(text)
    }
}

/// Reads a folder. The batch is 1 unless it is bound; the sequence length must be bound, unless the folder states one
/// (`max_seq_length` of `sentence_bert_config.json`).
///
/// # Errors
/// When a file is missing or malformed, the architecture is not supported, or tensors do not have the shapes that the
/// configuration asks for.
pub fn read(files: &dyn Files, bindings: &ShapeBindings) -> Result<Graph, ReadError> {
    let folder = Folder::open(files)?;
    let mut defaults = vec![("batch", 1)];
    defaults.extend(folder.default_sequence.map(|n| ("seq", n)));
    folder.build(bindings, &defaults)
}

/// What a folder's model declares. It holds nothing that would be refused: what is not supported is an error.
///
/// # Errors
/// As [`read`], except that no dimension needs to be bound.
pub fn inspect(files: &dyn Files, bindings: &ShapeBindings) -> Result<Inspection, ReadError> {
    let folder = Folder::open(files)?;
    let graph = folder.build(bindings, &[("batch", 1), ("seq", folder.default_sequence.unwrap_or(1))])?;
    let outputs = graph.outputs.iter().map(|o| o.name.clone()).collect();
    Ok(Inspection { inputs: folder.inputs(), outputs, operators: BTreeMap::new(), refused: Vec::new() })
}

/// The parts of a folder.
struct Folder {
    config: EncoderConfig,
    weights: Weights,
    /// What follows the encoder.
    modules: Option<sentence::Modules>,
    default_sequence: Option<u64>,
}

impl Folder {
    fn open(files: &dyn Files) -> Result<Self, ReadError> {
        let modules = sentence::read_modules(files)?;
        let path = modules.as_ref().map_or("", |m| m.transformer_path.as_str());
        let config = required(files, path, "config.json")?;
        let config = EncoderConfig::parse(&config, modules.is_some())?;
        let weights = Weights::parse(required(files, path, "model.safetensors")?)?;
        let default_sequence = sentence::max_seq_length(files, path)?;
        Ok(Self { config, weights, modules, default_sequence })
    }

    fn inputs(&self) -> Vec<InputInfo> {
        let mut names = vec!["input_ids", "attention_mask"];
        if self.config.family == Family::Bert {
            names.push("token_type_ids");
        }
        let dims = vec![Dim::Symbol("batch".to_owned()), Dim::Symbol("seq".to_owned())];
        let input = |name: &str| InputInfo { name: name.to_owned(), dtype: DType::I64, dims: Some(dims.clone()) };
        names.into_iter().map(input).collect()
    }

    fn build(&self, bindings: &ShapeBindings, defaults: &[(&str, u64)]) -> Result<Graph, ReadError> {
        let inputs = self.inputs();
        let types = shapes::resolve(&inputs, bindings, defaults)?;
        let &[batch, seq] = types[0].shape() else { return Err(Reason::from("inputs must be matrices").into()) };
        if batch == 0 || seq == 0 {
            return Err(Reason::from("batch and seq must be at least 1").into());
        }
        if seq > self.config.positions {
            return Err(ReadError::Unsupported(format!(
                "a sequence of {seq} tokens, but the model has {} positions (max_position_embeddings)",
                self.config.positions
            )));
        }
        let mut builder = Builder::new(self.config.family.name(), 0);
        let values: Vec<Value> = inputs.iter().zip(types).map(|(i, ty)| builder.graph.add_input(&i.name, ty)).collect();
        let mut encoder = encoder::Encoder::new(&mut builder, &self.config, &self.weights, batch, seq)?;
        let hidden = encoder.run(values[0], values[1], values.get(2).copied())?;
        let pooled = match self.modules.is_some() {
            true => None,
            false => encoder.pooler(hidden)?,
        };
        add_output(&mut builder, "last_hidden_state", hidden);
        if let Some(modules) = &self.modules
            && let Some(embedding) = modules.apply(&mut builder, hidden, values[1])?
        {
            add_output(&mut builder, "sentence_embedding", embedding);
        }
        if let Some(pooled) = pooled {
            add_output(&mut builder, "pooler_output", pooled);
        }
        Ok(builder.graph)
    }
}

/// Declares an output and gives its value the output's name.
fn add_output(builder: &mut Builder, name: &str, value: Value) {
    builder.graph.values[value].name = name.to_owned();
    builder.graph.add_output(name, value);
}

/// Joins a module's folder and a file's name.
fn join(path: &str, name: &str) -> Result<FileName, FilesError> {
    match path.trim_end_matches('/') {
        "" | "." => FileName::new(name),
        path => FileName::new(&format!("{path}/{name}")),
    }
}

fn required(files: &dyn Files, path: &str, name: &str) -> Result<Bytes, ReadError> {
    match files.read(&join(path, name)?) {
        Err(FilesError::NotFound(file)) if name.ends_with(".safetensors") => Err(ReadError::Unsupported(format!(
            "there is no file `{file}` in the model's folder; weights in other forms (`pytorch_model.bin`, shards) are not read"
        ))),
        result => Ok(result?),
    }
}

fn optional(files: &dyn Files, path: &str, name: &str) -> Result<Option<Bytes>, ReadError> {
    match files.read(&join(path, name)?) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FilesError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Parses a JSON file.
fn json<T: serde::de::DeserializeOwned>(bytes: &Bytes, name: &str) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|e| ReadError::Malformed(format!("{name}: {e}")))
}
