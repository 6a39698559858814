//! What sentence-transformers puts after an encoder: pooling over tokens and normalization.

use aic_ir::graph::{BinaryOp, Op, ReduceOp, UnaryOp, Value};
use aic_ir::types::DType;
use serde::Deserialize;

use super::{join, json, optional, required};
use crate::builder::{Builder, Reason};
use crate::error::{ReadError, Refused, RefusedNode};
use crate::files::Files;

/// A line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    name: String,
    #[serde(default)]
    path: String,
    r#type: String,
}

/// `1_Pooling/config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pooling {
    word_embedding_dimension: Option<u64>,
    pooling_mode_cls_token: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<u64>,
}

/// The modules of a folder.
pub(super) struct Modules {
    /// Folder of the encoder; empty for the model's own.
    pub transformer_path: String,
    pooling: Option<Pooling>,
    normalize: bool,
}

/// Reads `modules.json` and the configuration of the pooling module, where there are any.
pub(super) fn read_modules(files: &dyn Files) -> Result<Option<Modules>, ReadError> {
    let Some(bytes) = optional(files, "", "modules.json")? else { return Ok(None) };
    let list: Vec<Module> = json(&bytes, "modules.json")?;
    let mut modules = Modules { transformer_path: String::new(), pooling: None, normalize: false };
    let mut refused = Vec::new();
    for (index, module) in list.iter().enumerate() {
        let kind = module.r#type.rsplit('.').next().unwrap_or_default();
        match kind {
            "Transformer" if index == 0 => modules.transformer_path.clone_from(&module.path),
            "Pooling" if index == 1 => {
                let bytes = required(files, &module.path, "config.json")?;
                let name = join(&module.path, "config.json")?;
                modules.pooling = Some(json(&bytes, name.as_str())?);
            }
            // Without a pooling module before it, it would normalize tokens.
            "Normalize" if index == 2 && modules.pooling.is_some() => modules.normalize = true,
            _ => refused.push(RefusedNode {
                name: module.name.clone(),
                op: module.r#type.clone(),
                reason: format!(
                    "module {index} of modules.json; supported are Transformer, Pooling, Normalize in this order"
                ),
            }),
        }
    }
    if refused.is_empty() { Ok(Some(modules)) } else { Err(Refused { nodes: refused }.into()) }
}

/// The sequence length that the folder states.
pub(super) fn max_seq_length(files: &dyn Files, path: &str) -> Result<Option<u64>, ReadError> {
    let name = "sentence_bert_config.json";
    let Some(bytes) = optional(files, path, name)? else { return Ok(None) };
    let SentenceConfig { max_seq_length } = json(&bytes, name)?;
    Ok(max_seq_length)
}

/// The first token's vector: `[B, S, H] -> [B, H]`
pub(super) fn first_token(b: &mut Builder, hidden: Value) -> Result<Value, Reason> {
    let &[batch, _, size] = b.shape(hidden) else { return Err("hidden states must have rank 3".into()) };
    let first = b.slice(hidden, vec![0; 3], vec![batch, 1, size])?;
    b.reshape(first, [batch, size])
}

impl Modules {
    /// The sentence embedding `[B, H · modes]` from the hidden states `[B, S, H]` and the mask `[B, S]`; `None` without
    /// a pooling module.
    pub fn apply(&self, b: &mut Builder, hidden: Value, mask: Value) -> Result<Option<Value>, ReadError> {
        let Some(pooling) = &self.pooling else { return Ok(None) };
        let &[batch, seq, size] = b.shape(hidden) else {
            return Err(Reason::from("hidden states must have rank 3").into());
        };
        if let Some(stated) = pooling.word_embedding_dimension.filter(|&d| d != size) {
            return Err(ReadError::Malformed(format!(
                "the pooling module's word_embedding_dimension is {stated}, but the encoder gives {size}"
            )));
        }
        if pooling.pooling_mode_weightedmean_tokens || pooling.pooling_mode_lasttoken {
            return Err(ReadError::Unsupported(
                "pooling by weighted mean or last token; cls, max, mean and mean_sqrt_len are supported".to_owned(),
            ));
        }
        b.node_name = "pooling".to_owned();
        // In the order in which sentence-transformers joins them.
        let mut parts = Vec::new();
        if pooling.pooling_mode_cls_token {
            parts.push(first_token(b, hidden)?);
        }
        if pooling.pooling_mode_max_tokens {
            parts.push(max(b, hidden, mask, [batch, seq, 1])?);
        }
        if pooling.pooling_mode_mean_tokens || pooling.pooling_mode_mean_sqrt_len_tokens {
            let (sum, count) = sum(b, hidden, mask, [batch, seq, 1])?;
            if pooling.pooling_mode_mean_tokens {
                parts.push(b.binary(BinaryOp::Div, sum, count)?);
            }
            if pooling.pooling_mode_mean_sqrt_len_tokens {
                let root = b.unary(UnaryOp::Sqrt, count)?;
                parts.push(b.binary(BinaryOp::Div, sum, root)?);
            }
        }
        if parts.is_empty() {
            return Err(ReadError::Unsupported("the pooling module states no mode that is supported".to_owned()));
        }
        let joined = b.emit(Op::Concat { axis: 1 }, &parts)?;
        Ok(Some(if self.normalize { normalize(b, joined)? } else { joined }))
    }
}

/// The largest element over the tokens; padding counts as -1e9.
fn max(b: &mut Builder, hidden: Value, mask: Value, tokens: [u64; 3]) -> Result<Value, Reason> {
    let padding = b.binary_scalar(BinaryOp::Eq, mask, 0.0)?;
    let padding = b.reshape(padding, tokens)?;
    let low = b.scalar(DType::F32, -1e9)?;
    let kept = b.emit(Op::Select, &[padding, low, hidden])?;
    b.reduce(ReduceOp::Max, kept, &[1], false)
}

/// Sum over the tokens `[B, H]`, and their number `[B, 1]`, at least 1e-9.
fn sum(b: &mut Builder, hidden: Value, mask: Value, tokens: [u64; 3]) -> Result<(Value, Value), Reason> {
    let mask = b.emit(Op::Cast { to: DType::F32 }, &[mask])?;
    let mask = b.reshape(mask, tokens)?;
    let kept = b.binary(BinaryOp::Mul, hidden, mask)?;
    let sum = b.reduce(ReduceOp::Sum, kept, &[1], false)?;
    let count = b.reduce(ReduceOp::Sum, mask, &[1], false)?;
    let count = b.binary_scalar(BinaryOp::Max, count, 1e-9)?;
    Ok((sum, count))
}

/// `x / max(‖x‖, 1e-12)`, as `torch.nn.functional.normalize`.
fn normalize(b: &mut Builder, x: Value) -> Result<Value, Reason> {
    b.node_name = "normalize".to_owned();
    let square = b.binary(BinaryOp::Mul, x, x)?;
    let sum = b.reduce(ReduceOp::Sum, square, &[1], true)?;
    let norm = b.unary(UnaryOp::Sqrt, sum)?;
    let norm = b.binary_scalar(BinaryOp::Max, norm, 1e-12)?;
    b.binary(BinaryOp::Div, x, norm)
}
