//! Hugging Face folders: `config.json` and `model.safetensors` of BERT-like encoders with their heads, and what
//! sentence-transformers adds (`modules.json`, `1_Pooling/config.json`).
//!
//! The program is written from the architecture's definition, with the names of the checkpoint's modules on its nodes.
//! Inputs are `input_ids`, `attention_mask` and, for `bert`, `electra` and `albert`, `token_type_ids`, all
//! `i64[batch, seq]`. Outputs are those of the class that `architectures` names:
//!
//! | class | outputs |
//! |---|---|
//! | `…Model`, or none | `last_hidden_state: f32[batch, seq, hidden]`; `pooler_output: f32[batch, hidden]` where the checkpoint has a pooler |
//! | `…ForSequenceClassification`, `…ForNextSentencePrediction` | `logits: f32[batch, labels]` |
//! | `…ForTokenClassification` | `logits: f32[batch, seq, labels]` |
//! | `…ForQuestionAnswering` | `start_logits`, `end_logits: f32[batch, seq]` |
//! | `…ForMaskedLM` | `logits: f32[batch, seq, vocabulary]` |
//! | `…ForPreTraining` | `prediction_logits` and `seq_relationship_logits` (`bert`) or `sop_logits` (`albert`); `logits: f32[batch, seq]` (`electra`) |
//!
//! A folder of sentence-transformers gives `last_hidden_state` and, with a pooling module,
//! `sentence_embedding: f32[batch, ...]`, whatever the class is.
//!
//! No tensor is left out in silence: those of another head than the class has are listed by [`inspect`], unknown ones
//! are refused.

mod architecture;
mod config;
mod encoder;
mod heads;
mod layers;
mod sentence;
mod weights;

use std::collections::BTreeMap;

use aic_ir::graph::{Graph, Value};
use aic_ir::types::DType;
use bytes::Bytes;

use crate::Inspection;
use crate::builder::{Builder, Reason};
use crate::error::{ReadError, Refused};
use crate::files::{FileName, Files, FilesError};
use crate::shapes::{self, Dim, InputInfo, ShapeBindings};
pub use architecture::model_types;
use config::EncoderConfig;
use layers::Layers;
use weights::Weights;

/// First parts of the names of heads' tensors.
const HEADS: [&str; 13] = [
    "classifier.",
    "cls.",
    "discriminator_predictions.",
    "generator_lm_head.",
    "generator_predictions.",
    "lm_head.",
    "pre_classifier.",
    "predictions.",
    "qa_outputs.",
    "sop_classifier.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "vocab_transform.",
];

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
    let unused = folder.leftovers()?;
    Ok(Inspection { inputs: folder.inputs(), outputs, operators: BTreeMap::new(), unused, refused: Vec::new() })
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
        let probe = format!("{}.weight", encoder::WORDS);
        let weights = Weights::open(files, path, config.architecture.prefix, &probe)?;
        let default_sequence = sentence::max_seq_length(files, path)?;
        Ok(Self { config, weights, modules, default_sequence })
    }

    fn inputs(&self) -> Vec<InputInfo> {
        let mut names = vec!["input_ids", "attention_mask"];
        if self.config.architecture.takes_token_types() {
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
        let EncoderConfig { architecture, sizes, .. } = &self.config;
        if seq > sizes.longest() {
            return Err(ReadError::Unsupported(format!(
                "a sequence of {seq} tokens, but the model has {} positions (max_position_embeddings{})",
                sizes.longest(),
                if sizes.padding.is_some() { ", less those up to pad_token_id" } else { "" }
            )));
        }
        let mut builder = Builder::new(architecture.model_type, 0);
        let values: Vec<Value> = inputs.iter().zip(types).map(|(i, ty)| builder.graph.add_input(&i.name, ty)).collect();
        let mut layers = Layers::new(&mut builder, &self.weights);
        let mut encoder = encoder::Encoder { layers: &mut layers, architecture, sizes, batch, seq };
        let hidden = encoder.run(values[0], values[1], values.get(2).copied())?;
        let outputs = match &self.modules {
            Some(modules) => {
                let embedding = modules.apply(layers.b, hidden, values[1])?;
                let embedding = embedding.map(|value| ("sentence_embedding", value));
                [("last_hidden_state", hidden)].into_iter().chain(embedding).collect()
            }
            None => heads::outputs(&mut layers, &self.config, hidden)?,
        };
        for (name, value) in outputs {
            add_output(&mut builder, name, value);
        }
        self.leftovers()?;
        Ok(builder.graph)
    }

    /// After building: the tensors that belong to another head than is read. Others that nothing uses are refused, except
    /// for the buffers that older versions of `transformers` stored, and the pooler that classes without one may keep.
    fn leftovers(&self) -> Result<Vec<String>, ReadError> {
        let EncoderConfig { architecture, class, .. } = &self.config;
        let pooler = architecture.pooler().map(|name| format!("{name}."));
        let known = |name: &str| {
            matches!(name, "embeddings.position_ids" | "embeddings.token_type_ids")
                || pooler.as_ref().is_some_and(|pooler| name.starts_with(pooler))
        };
        // Without a class, a head would be left out that may be meant.
        let stated = class.is_some() || self.modules.is_some();
        let of_heads = |name: &str| stated && HEADS.iter().any(|head| name.starts_with(head));
        let (listed, refused): (Vec<&str>, Vec<&str>) =
            self.weights.unused().filter(|name| !known(name)).partition(|name| of_heads(name));
        if refused.is_empty() {
            return Ok(listed.into_iter().map(str::to_owned).collect());
        }
        let reason = match class {
            Some(class) => format!("no part of `{class}` uses this tensor"),
            None => {
                "no part of the encoder uses this tensor, and config.json names no class in architectures".to_owned()
            }
        };
        let nodes = refused.iter().map(|name| Reason(reason.clone()).at(name, "tensor")).collect();
        Err(Refused { nodes }.into())
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
    Ok(files.read(&join(path, name)?)?)
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
