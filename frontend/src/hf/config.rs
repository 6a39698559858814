//! `config.json`: the architecture, its head and its sizes, under one set of names for all families.

use std::collections::BTreeMap;

use aic_ir::graph::GeluKind;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::architecture::{self, Architecture, Family, Head};
use super::json;
use crate::error::ReadError;

/// A function between two products, or after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu(GeluKind),
    Relu,
    Silu,
    Tanh,
}

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EncoderConfig {
    pub architecture: &'static Architecture,
    pub head: Head,
    /// Name of the class in `architectures`, if there is one.
    pub class: Option<String>,
    /// Whether the embeddings of words are also the last matrix of a language model's head.
    pub tied: bool,
    /// Number of classes, where it is stated.
    pub labels: Option<u64>,
    pub sizes: Sizes,
}

/// Sizes of an encoder, and what else its layers depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    /// Size of the hidden states.
    pub hidden: u64,
    /// Size of the embeddings; that of the hidden states, unless the architecture projects them.
    pub embedding: u64,
    pub layers: u64,
    /// Groups of layers that share weights, and layers in a group; 1 except for `albert`.
    pub groups: u64,
    pub layers_per_group: u64,
    pub heads: u64,
    pub intermediate: u64,
    pub vocabulary: u64,
    pub positions: u64,
    /// Number of the padding token, where positions depend on it.
    pub padding: Option<u64>,
    /// Rows of the token type embedding; 0 for `distilbert`, which has none.
    pub token_types: u64,
    pub epsilon: f32,
    pub activation: Activation,
}

/// What all families have.
#[derive(Deserialize)]
struct Common {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    add_cross_attention: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default)]
    id2label: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default)]
    num_labels: Option<u64>,
    #[serde(default)]
    quantization_config: Option<IgnoredAny>,
}

/// Defaults are those of `transformers`' configurations of these families; sizes have none here.
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
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default = "epsilon")]
    layer_norm_eps: f32,
    #[serde(default)]
    position_embedding_type: Option<String>,
    /// The number 1 is that of `roberta`'s family, which alone needs it.
    #[serde(default = "one")]
    pad_token_id: u64,
    /// 128 is the default of both families that have it.
    #[serde(default = "default_embedding")]
    embedding_size: u64,
    #[serde(default = "one")]
    num_hidden_groups: u64,
    #[serde(default = "one")]
    inner_group_num: u64,
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
    #[serde(default)]
    activation: Option<String>,
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}

fn two() -> u64 {
    2
}

fn default_embedding() -> u64 {
    128
}

fn epsilon() -> f32 {
    1e-12
}

const NAME: &str = "config.json";

impl EncoderConfig {
    /// Reads `config.json`. A folder of sentence-transformers uses the encoder alone, whatever the checkpoint was saved
    /// from.
    pub fn parse(bytes: &Bytes, encoder_only: bool) -> Result<Self, ReadError> {
        let common: Common = json(bytes, NAME)?;
        let architecture = architecture::find(common.model_type.as_deref())?;
        let class = match common.architectures.unwrap_or_default().as_slice() {
            [] => None,
            [class] => Some(class.clone()),
            several => {
                return Err(unsupported(format!("more than one class in architectures: {}", several.join(", "))));
            }
        };
        let head = match &class {
            Some(class) if !encoder_only => Head::of_class(architecture, class)?,
            _ => Head::Encoder,
        };
        if common.is_decoder || common.add_cross_attention {
            return Err(unsupported("is_decoder or add_cross_attention; only encoders are supported".to_owned()));
        }
        if common.quantization_config.is_some() {
            return Err(unsupported("quantization_config; only F32, F16 and BF16 weights are read".to_owned()));
        }
        let labels = common.id2label.map(|labels| labels.len() as u64).or(common.num_labels);
        let sizes = match architecture.family {
            Family::DistilBert => Sizes::of_distilbert(json(bytes, NAME)?)?,
            family => Sizes::of_bert(json(bytes, NAME)?, family)?,
        };
        if sizes.heads == 0 || sizes.hidden == 0 || !sizes.hidden.is_multiple_of(sizes.heads) {
            return Err(ReadError::Malformed(format!(
                "{NAME}: {} attention heads do not divide a hidden size of {}",
                sizes.heads, sizes.hidden
            )));
        }
        Ok(Self { architecture, head, class, tied: common.tie_word_embeddings, labels, sizes })
    }
}

impl Sizes {
    fn of_bert(c: Bert, family: Family) -> Result<Self, ReadError> {
        if let Some(kind) = c.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(unsupported(format!("position_embedding_type `{kind}`; only `absolute` is supported")));
        }
        let (groups, layers_per_group) = match family {
            Family::Albert => (c.num_hidden_groups, c.inner_group_num),
            _ => (1, 1),
        };
        if groups == 0 || groups > c.num_hidden_layers.max(1) || layers_per_group == 0 {
            return Err(ReadError::Malformed(format!(
                "{NAME}: {groups} groups of {layers_per_group} layers for {} layers",
                c.num_hidden_layers
            )));
        }
        let default = if family == Family::Albert { "gelu_new" } else { "gelu" };
        Ok(Self {
            hidden: c.hidden_size,
            embedding: match family {
                Family::Electra | Family::Albert => c.embedding_size,
                _ => c.hidden_size,
            },
            layers: c.num_hidden_layers,
            groups,
            layers_per_group,
            heads: c.num_attention_heads,
            intermediate: c.intermediate_size,
            vocabulary: c.vocab_size,
            positions: c.max_position_embeddings,
            padding: (family == Family::Roberta).then_some(c.pad_token_id),
            token_types: c.type_vocab_size,
            epsilon: c.layer_norm_eps,
            activation: activation(c.hidden_act.as_deref().unwrap_or(default))?,
        })
    }

    fn of_distilbert(c: DistilBert) -> Result<Self, ReadError> {
        Ok(Self {
            hidden: c.dim,
            embedding: c.dim,
            layers: c.n_layers,
            groups: 1,
            layers_per_group: 1,
            heads: c.n_heads,
            intermediate: c.hidden_dim,
            vocabulary: c.vocab_size,
            positions: c.max_position_embeddings,
            padding: None,
            token_types: 0,
            // Fixed in `transformers.models.distilbert`.
            epsilon: epsilon(),
            activation: activation(c.activation.as_deref().unwrap_or("gelu"))?,
        })
    }

    /// The longest sequence that there are positions for.
    pub fn longest(&self) -> u64 {
        match self.padding {
            Some(padding) => self.positions.saturating_sub(padding.saturating_add(1)),
            None => self.positions,
        }
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
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        other => {
            let known = "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, swish and tanh";
            Err(unsupported(format!("activation `{other}`; supported are {known}")))
        }
    }
}
