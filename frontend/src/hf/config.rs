//! `config.json`: the architecture and its sizes, under one set of names for both families.

use aic_ir::graph::GeluKind;
use bytes::Bytes;
use serde::Deserialize;

use super::{ARCHITECTURES, json};
use crate::error::ReadError;

/// The architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    DistilBert,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Bert => ARCHITECTURES[0],
            Family::DistilBert => ARCHITECTURES[1],
        }
    }
}

/// The activation between the two products of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu(GeluKind),
    Relu,
}

/// Sizes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EncoderConfig {
    pub family: Family,
    pub hidden: u64,
    pub layers: u64,
    pub heads: u64,
    pub intermediate: u64,
    pub vocabulary: u64,
    pub positions: u64,
    /// Rows of the token type embedding; 0 for `distilbert`, which has none.
    pub token_types: u64,
    pub epsilon: f32,
    pub activation: Activation,
}

#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

/// Defaults are those of `transformers.BertConfig`.
#[derive(Deserialize)]
struct Bert {
    vocab_size: u64,
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    intermediate_size: u64,
    max_position_embeddings: u64,
    #[serde(default = "two")]
    type_vocab_size: u64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
}

/// Defaults are those of `transformers.DistilBertConfig`.
#[derive(Deserialize)]
struct DistilBert {
    vocab_size: u64,
    dim: u64,
    n_layers: u64,
    n_heads: u64,
    hidden_dim: u64,
    max_position_embeddings: u64,
    #[serde(default = "gelu")]
    activation: String,
}

fn two() -> u64 {
    2
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

fn epsilon() -> f32 {
    1e-12
}

impl EncoderConfig {
    /// Reads `config.json`. A classifier or another head is refused, unless the folder is one of sentence-transformers,
    /// which uses the encoder alone whatever the checkpoint was saved from.
    pub fn parse(bytes: &Bytes, encoder_only: bool) -> Result<Self, ReadError> {
        const NAME: &str = "config.json";
        let Kind { model_type, architectures } = json(bytes, NAME)?;
        let family = match model_type.as_deref() {
            Some("bert") => Family::Bert,
            Some("distilbert") => Family::DistilBert,
            Some(other) => {
                return Err(unsupported(format!("architecture `{other}`; supported are {}", ARCHITECTURES.join(", "))));
            }
            None => {
                let list = ARCHITECTURES.join(", ");
                return Err(unsupported(format!("{NAME} has no model_type; supported are {list}")));
            }
        };
        let encoders = ["Model", "ForMaskedLM", "ForPreTraining"];
        let head = architectures.iter().flatten().find(|a| !encoders.iter().any(|e| a.ends_with(e)));
        if let Some(head) = head.filter(|_| !encoder_only) {
            return Err(unsupported(format!("`{head}` has a head that is not supported; the encoder alone is")));
        }
        let config = match family {
            Family::Bert => {
                let c: Bert = json(bytes, NAME)?;
                if c.position_embedding_type != "absolute" {
                    let kind = c.position_embedding_type;
                    return Err(unsupported(format!("position_embedding_type `{kind}`; only `absolute` is supported")));
                }
                if c.is_decoder {
                    return Err(unsupported("is_decoder; only encoders are supported".to_owned()));
                }
                Self {
                    family,
                    hidden: c.hidden_size,
                    layers: c.num_hidden_layers,
                    heads: c.num_attention_heads,
                    intermediate: c.intermediate_size,
                    vocabulary: c.vocab_size,
                    positions: c.max_position_embeddings,
                    token_types: c.type_vocab_size,
                    epsilon: c.layer_norm_eps,
                    activation: activation(&c.hidden_act)?,
                }
            }
            Family::DistilBert => {
                let c: DistilBert = json(bytes, NAME)?;
                Self {
                    family,
                    hidden: c.dim,
                    layers: c.n_layers,
                    heads: c.n_heads,
                    intermediate: c.hidden_dim,
                    vocabulary: c.vocab_size,
                    positions: c.max_position_embeddings,
                    token_types: 0,
                    // Fixed in `transformers.models.distilbert`.
                    epsilon: epsilon(),
                    activation: activation(&c.activation)?,
                }
            }
        };
        if config.heads == 0 || config.hidden == 0 || !config.hidden.is_multiple_of(config.heads) {
            return Err(ReadError::Malformed(format!(
                "{NAME}: {} attention heads do not divide a hidden size of {}",
                config.heads, config.hidden
            )));
        }
        Ok(config)
    }
}

fn unsupported(text: String) -> ReadError {
    ReadError::Unsupported(text)
}

fn activation(name: &str) -> Result<Activation, ReadError> {
    match name {
        "gelu" => Ok(Activation::Gelu(GeluKind::Erf)),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::Gelu(GeluKind::Tanh)),
        "relu" => Ok(Activation::Relu),
        other => {
            Err(unsupported(format!("activation `{other}`; supported are gelu, gelu_new, gelu_pytorch_tanh and relu")))
        }
    }
}
