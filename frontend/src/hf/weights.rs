//! `model.safetensors`, whole or in shards: tensors by name, as ranges of the files' buffers, with their shapes checked.
//!
//! The format (<https://huggingface.co/docs/safetensors>) and its checks are the `safetensors` crate's: offsets lie
//! inside the file, do not overlap and fit the shapes. Names that occur twice, in one header or in two shards, are refused.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{join, json, optional};
use crate::error::ReadError;
use crate::files::Files;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint.
pub(super) struct Weights {
    tensors: BTreeMap<String, Stored>,
    /// What precedes the encoder's names: `bert.` where the checkpoint was saved with a head.
    prefix: &'static str,
}

struct Stored {
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: Bytes,
    used: Cell<bool>,
}

/// The index of a checkpoint in shards.
#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl Weights {
    /// Reads the headers of the files in a folder; unused tensors cost nothing more. `prefix` may precede the encoder's
    /// names, one of which is `probe`.
    pub fn open(files: &dyn Files, path: &str, prefix: &'static str, probe: &str) -> Result<Self, ReadError> {
        let tensors = match optional(files, path, WHOLE)? {
            Some(file) => tensors_of(file, WHOLE)?,
            None => shards(files, path)?,
        };
        let prefix = ["", prefix]
            .into_iter()
            .find(|prefix| tensors.contains_key(&format!("{prefix}{probe}")))
            .ok_or_else(|| malformed(format!("tensor `{probe}` is missing")))?;
        Ok(Self { prefix, tensors })
    }

    /// Whether the checkpoint has a tensor, of the encoder or a head.
    pub fn contains(&self, name: &str) -> bool {
        self.stored(name).is_some()
    }

    /// First dimension of a tensor.
    pub fn rows(&self, name: &str) -> Result<u64, ReadError> {
        let stored = self.stored(name).ok_or_else(|| malformed(format!("tensor `{name}` is missing")))?;
        stored.shape.first().copied().ok_or_else(|| malformed(format!("tensor `{name}` has no dimensions")))
    }

    /// A tensor in `f32`, of the shape that the configuration asks for. Stored in 16 bits, it is converted to twice its
    /// bytes in memory.
    pub fn tensor(&self, name: &str, shape: &[u64]) -> Result<Tensor, ReadError> {
        let malformed = |text: String| malformed(format!("tensor `{name}` {text}"));
        let stored = self.stored(name).ok_or_else(|| malformed("is missing".to_owned()))?;
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
        stored.used.set(true);
        let ty = TensorType::new(DType::F32, shape).map_err(|e| malformed(e.to_string()))?;
        Tensor::new(ty, bytes).map_err(|e| malformed(e.to_string()))
    }

    /// Requires that a tensor which another stands for is the same, if it is stored too.
    pub fn same_if_present(&self, kept: &str, other: &str) -> Result<(), ReadError> {
        let (Some(a), Some(b)) = (self.stored(kept), self.stored(other)) else { return Ok(()) };
        if (a.dtype, &a.shape, &a.bytes) != (b.dtype, &b.shape, &b.bytes) {
            return Err(ReadError::Unsupported(format!(
                "tensors `{kept}` and `{other}` are one by config.json, but their values differ; if they should, set \
                 tie_word_embeddings to false"
            )));
        }
        b.used.set(true);
        Ok(())
    }

    /// Names of the tensors that no module has asked for, without the encoder's prefix, in order.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.tensors.iter().filter(|(_, stored)| !stored.used.get());
        unused.map(|(name, _)| name.strip_prefix(self.prefix).unwrap_or(name))
    }

    /// Encoders' names come after the prefix, heads' names do not.
    fn stored(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(&format!("{}{name}", self.prefix)).or_else(|| self.tensors.get(name))
    }
}

fn malformed(text: String) -> ReadError {
    ReadError::Malformed(format!("{WHOLE}: {text}"))
}

/// The tensors of one file.
fn tensors_of(file: Bytes, name: &str) -> Result<BTreeMap<String, Stored>, ReadError> {
    let views = SafeTensors::deserialize(&file)
        .map_err(|e| ReadError::Malformed(format!("{name} is not a safetensors file, or a damaged one: {e}")))?;
    // The crate keeps the last of several entries of one name.
    let header = file.get(..8).and_then(|n| n.try_into().ok()).map(u64::from_le_bytes);
    let header = header.and_then(|n| file.get(8..usize::try_from(n).ok()?.checked_add(8)?)).unwrap_or_default();
    let _names: UniqueMap<IgnoredAny> = json(&file.slice_ref(header), name)?;
    let stored = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let shape = view.shape().iter().map(|&d| d as u64).collect();
        let bytes = file.slice_ref(view.data());
        (name.to_owned(), Stored { dtype: view.dtype(), shape, bytes, used: Cell::new(false) })
    };
    Ok(views.iter().map(stored).collect())
}

/// The tensors of all files that the index names.
fn shards(files: &dyn Files, path: &str) -> Result<BTreeMap<String, Stored>, ReadError> {
    let Some(index) = optional(files, path, INDEX)? else {
        return Err(ReadError::Unsupported(format!(
            "there is neither `{WHOLE}` nor `{INDEX}` in the model's folder; weights in other forms (`pytorch_model.bin`, \
             `tf_model.h5`) are not read. To convert them: load the model with transformers and call \
             `model.save_pretrained(folder, safe_serialization=True)`"
        )));
    };
    let Index { weight_map: UniqueMap(weight_map) } = json(&index, INDEX)?;
    let names: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    let mut tensors = BTreeMap::new();
    let mut homes: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        let file = files.read(&join(path, name)?)?;
        for (tensor, stored) in tensors_of(file, name)? {
            if let Some(other) = homes.insert(tensor.clone(), name) {
                return Err(ReadError::Malformed(format!("tensor `{tensor}` is in `{other}` and in `{name}`")));
            }
            tensors.insert(tensor, stored);
        }
    }
    for (tensor, file) in &weight_map {
        if homes.get(tensor) != Some(&file.as_str()) {
            return Err(ReadError::Malformed(format!("{INDEX}: tensor `{tensor}` is not in `{file}`")));
        }
    }
    Ok(tensors)
}

/// A JSON object whose keys are distinct.
struct UniqueMap<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, T>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format!("`{key}` occurs twice")));
                    }
                    map.insert(key, value);
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}
