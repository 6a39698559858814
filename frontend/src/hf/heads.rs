//! What follows the encoder in the classes of `transformers`: outputs under the names that their ONNX exporters give.
//!
//! `B` is the batch, `S` the sequence, `H` the hidden size, `V` the vocabulary, `L` the number of labels.

use aic_ir::graph::{GeluKind, Value};

use super::architecture::{Family, Head};
use super::config::{Activation, EncoderConfig};
use super::encoder::{WORDS, pooler};
use super::layers::Layers;
use crate::builder::Reason;
use crate::error::ReadError;

/// Outputs in order, with their names.
pub(super) type Outputs = Vec<(&'static str, Value)>;

/// Names of the modules of a masked language model's head: a transformation, then the words' embeddings.
struct LanguageModel {
    dense: &'static str,
    norm: &'static str,
    activation: Activation,
    /// The last matrix, where it is not that of the embeddings.
    decoder: &'static str,
    /// The names that the last bias has had.
    biases: &'static [&'static str],
}

impl LanguageModel {
    fn of(config: &EncoderConfig) -> Self {
        let activation = config.sizes.activation;
        match config.architecture.family {
            Family::Bert => Self {
                dense: "cls.predictions.transform.dense",
                norm: "cls.predictions.transform.LayerNorm",
                activation,
                decoder: "cls.predictions.decoder",
                biases: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
            },
            Family::DistilBert => Self {
                dense: "vocab_transform",
                norm: "vocab_layer_norm",
                activation,
                decoder: "vocab_projector",
                biases: &["vocab_projector.bias"],
            },
            Family::Roberta => Self {
                dense: "lm_head.dense",
                norm: "lm_head.layer_norm",
                activation: Activation::Gelu(GeluKind::Erf),
                decoder: "lm_head.decoder",
                biases: &["lm_head.bias", "lm_head.decoder.bias"],
            },
            Family::Electra => Self {
                dense: "generator_predictions.dense",
                norm: "generator_predictions.LayerNorm",
                activation: Activation::Gelu(GeluKind::Erf),
                decoder: "generator_lm_head",
                biases: &["generator_lm_head.bias"],
            },
            Family::Albert => Self {
                dense: "predictions.dense",
                norm: "predictions.LayerNorm",
                activation,
                decoder: "predictions.decoder",
                biases: &["predictions.bias", "predictions.decoder.bias"],
            },
        }
    }
}

/// The outputs of the configured class from the hidden states `[B, S, H]`.
pub(super) fn outputs(layers: &mut Layers<'_>, config: &EncoderConfig, hidden: Value) -> Result<Outputs, ReadError> {
    match config.head {
        Head::Encoder => {
            let mut outputs = vec![("last_hidden_state", hidden)];
            if let Some(name) =
                config.architecture.pooler().filter(|n| layers.weights().contains(&format!("{n}.weight")))
            {
                outputs.push(("pooler_output", pooler(layers, name, hidden)?));
            }
            Ok(outputs)
        }
        Head::SequenceClassification => Ok(vec![("logits", sequence(layers, config, hidden)?)]),
        Head::TokenClassification => Ok(vec![("logits", classifier(layers, config, "classifier", hidden)?)]),
        Head::QuestionAnswering => question(layers, hidden),
        Head::MaskedLm => Ok(vec![("logits", language_model(layers, config, hidden)?)]),
        Head::NextSentencePrediction => {
            let pooled = required_pooler(layers, config, hidden)?;
            Ok(vec![("logits", layers.linear("cls.seq_relationship", pooled, 2)?)])
        }
        Head::PreTraining => pre_training(layers, config, hidden),
    }
}

/// `[..., H] -> [..., L]`; the number of labels is the configuration's, or else the tensor's.
fn classifier(layers: &mut Layers<'_>, config: &EncoderConfig, name: &str, x: Value) -> Result<Value, ReadError> {
    let rows = layers.weights().rows(&format!("{name}.weight"))?;
    layers.linear(name, x, config.labels.unwrap_or(rows))
}

fn required_pooler(layers: &mut Layers<'_>, config: &EncoderConfig, hidden: Value) -> Result<Value, ReadError> {
    pooler(layers, config.architecture.pooler().unwrap_or("pooler"), hidden)
}

/// Logits of a whole sequence: `[B, S, H] -> [B, L]`
fn sequence(layers: &mut Layers<'_>, config: &EncoderConfig, hidden: Value) -> Result<Value, ReadError> {
    let (dense, function, last) = match config.architecture.family {
        Family::Bert | Family::Albert => {
            let pooled = required_pooler(layers, config, hidden)?;
            return classifier(layers, config, "classifier", pooled);
        }
        Family::DistilBert => ("pre_classifier", Activation::Relu, "classifier"),
        Family::Roberta => ("classifier.dense", Activation::Tanh, "classifier.out_proj"),
        Family::Electra => ("classifier.dense", Activation::Gelu(GeluKind::Erf), "classifier.out_proj"),
    };
    layers.b.node_name = dense.to_owned();
    let first = layers.first_token(hidden)?;
    let x = layers.linear(dense, first, config.sizes.hidden)?;
    let x = layers.activation(function, x)?;
    classifier(layers, config, last, x)
}

/// Where the answer starts and ends: `[B, S]` each.
fn question(layers: &mut Layers<'_>, hidden: Value) -> Result<Outputs, ReadError> {
    let both = layers.linear("qa_outputs", hidden, 2)?;
    let [batch, seq] = tokens(layers, hidden)?;
    let mut part = |index: u64| -> Result<Value, ReadError> {
        let part = layers.b.slice(both, vec![0, 0, index], vec![batch, seq, 1])?;
        Ok(layers.b.reshape(part, [batch, seq])?)
    };
    Ok(vec![("start_logits", part(0)?), ("end_logits", part(1)?)])
}

/// Batch and sequence of hidden states.
fn tokens(layers: &Layers<'_>, hidden: Value) -> Result<[u64; 2], Reason> {
    match layers.b.shape(hidden) {
        &[batch, seq, _] => Ok([batch, seq]),
        _ => Err("hidden states must have rank 3".into()),
    }
}

/// Logits of every word: `[B, S, H] -> [B, S, V]`
fn language_model(layers: &mut Layers<'_>, config: &EncoderConfig, hidden: Value) -> Result<Value, ReadError> {
    let names = LanguageModel::of(config);
    let sizes = &config.sizes;
    let x = layers.linear(names.dense, hidden, sizes.embedding)?;
    let x = layers.activation(names.activation, x)?;
    let x = layers.layer_norm(names.norm, x, sizes.epsilon)?;
    let shape = [sizes.vocabulary, sizes.embedding];
    let words = format!("{WORDS}.weight");
    let decoder = format!("{}.weight", names.decoder);
    let w = if config.tied {
        layers.weights().same_if_present(&words, &decoder)?;
        layers.weight(&words, &shape)?
    } else {
        layers.weight(&decoder, &shape)?
    };
    // Both names of the bias may be stored.
    let mut stored = names.biases.iter().filter(|n| layers.weights().contains(n));
    let bias = stored.next().unwrap_or(&names.biases[0]);
    for other in stored {
        layers.weights().same_if_present(bias, other)?;
    }
    let bias = layers.weight(bias, &[sizes.vocabulary])?;
    layers.affine(names.decoder, x, w, bias)
}

/// The outputs of the classes that models are trained with first.
fn pre_training(layers: &mut Layers<'_>, config: &EncoderConfig, hidden: Value) -> Result<Outputs, ReadError> {
    let (name, output) = match config.architecture.family {
        Family::Electra => {
            // Whether each token was replaced: `[B, S]`.
            let x = layers.linear("discriminator_predictions.dense", hidden, config.sizes.hidden)?;
            let x = layers.activation(config.sizes.activation, x)?;
            let logits = layers.linear("discriminator_predictions.dense_prediction", x, 1)?;
            let shape = tokens(layers, hidden)?;
            return Ok(vec![("logits", layers.b.reshape(logits, shape)?)]);
        }
        Family::Albert => ("sop_classifier.classifier", "sop_logits"),
        Family::Bert | Family::DistilBert | Family::Roberta => ("cls.seq_relationship", "seq_relationship_logits"),
    };
    let words = language_model(layers, config, hidden)?;
    let pooled = required_pooler(layers, config, hidden)?;
    Ok(vec![("prediction_logits", words), (output, layers.linear(name, pooled, 2)?)])
}
