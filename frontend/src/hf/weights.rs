//! `model.safetensors`: tensors by name, as ranges of the file's buffer, with their shapes checked.
//!
//! The format (<https://huggingface.co/docs/safetensors>) and its checks are the `safetensors` crate's: offsets lie
//! inside the file, do not overlap and fit the shapes.

use std::collections::BTreeMap;

use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};

use crate::error::ReadError;

/// The tensors of a checkpoint.
pub(super) struct Weights {
    tensors: BTreeMap<String, Stored>,
    /// What precedes the encoder's names: `bert.` where the checkpoint was saved with a head.
    prefix: String,
}

struct Stored {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Bytes,
}

impl Weights {
    /// Reads the header of the file; unused tensors cost nothing more.
    pub fn parse(file: Bytes) -> Result<Self, ReadError> {
        let views = SafeTensors::deserialize(&file).map_err(|e| {
            ReadError::Malformed(format!("model.safetensors is not a safetensors file, or a damaged one: {e}"))
        })?;
        let stored = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let shape = view.shape().iter().map(|&d| d as u64).collect();
            (name.to_owned(), Stored { dtype: view.dtype(), shape, bytes: file.slice_ref(view.data()) })
        };
        let tensors: BTreeMap<String, Stored> = views.iter().map(stored).collect();
        const FIRST: &str = "embeddings.word_embeddings.weight";
        let prefix = ["", "bert.", "distilbert."]
            .into_iter()
            .find(|prefix| tensors.contains_key(&format!("{prefix}{FIRST}")))
            .ok_or_else(|| ReadError::Malformed(format!("model.safetensors: tensor `{FIRST}` is missing")))?;
        Ok(Self { prefix: prefix.to_owned(), tensors })
    }

    /// Whether the checkpoint has a tensor of the encoder.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    /// A tensor of the encoder in `f32`, of the shape that the configuration asks for. Stored in 16 bits, it is
    /// converted to twice its bytes in memory.
    pub fn tensor(&self, name: &str, shape: &[u64]) -> Result<Tensor, ReadError> {
        let malformed = |text: String| ReadError::Malformed(format!("model.safetensors: tensor `{name}` {text}"));
        let stored =
            self.tensors.get(&format!("{}{name}", self.prefix)).ok_or_else(|| malformed("is missing".to_owned()))?;
        if stored.shape != shape {
            let hint = if name.contains("attention") { " (pruned attention heads are not supported)" } else { "" };
            let actual = &stored.shape;
            return Err(malformed(format!("has shape {actual:?}, but config.json asks for {shape:?}{hint}")));
        }
        let widen = |f: fn([u8; 2]) -> f32| -> Bytes {
            stored.bytes.as_chunks().0.iter().flat_map(|&b| f(b).to_le_bytes()).collect::<Vec<u8>>().into()
        };
        let bytes = match stored.dtype {
            Dtype::F32 => stored.bytes.clone(),
            Dtype::F16 => widen(|b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => widen(|b| half::bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(ReadError::Unsupported(format!(
                    "tensor `{name}` has element type {other:?}; F32, F16 and BF16 are read"
                )));
            }
        };
        let ty = TensorType::new(DType::F32, shape).map_err(|e| malformed(e.to_string()))?;
        Tensor::new(ty, bytes).map_err(|e| malformed(e.to_string()))
    }
}
