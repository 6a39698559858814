//! The encoder as a graph: embeddings, layers and pooler. All families compute the same layers; they differ in names, in
//! how positions are counted, in embeddings of a size of their own and in layers that share weights.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::architecture::{Architecture, Family, LayerNames};
use super::config::{Activation, Sizes};
use super::layers::Layers;
use crate::error::ReadError;

/// The table that language models' heads share.
pub(super) const WORDS: &str = "embeddings.word_embeddings";

/// Writes an encoder into a graph. `B` is the batch, `S` the sequence, `H` the hidden size.
pub(super) struct Encoder<'a, 'b> {
    pub layers: &'a mut Layers<'b>,
    pub architecture: &'static Architecture,
    pub sizes: &'a Sizes,
    pub batch: u64,
    pub seq: u64,
}

impl Encoder<'_, '_> {
    /// `(input_ids, attention_mask, token_type_ids: [B, S]) -> [B, S, H]`
    pub fn run(&mut self, ids: Value, mask: Value, token_types: Option<Value>) -> Result<Value, ReadError> {
        let bias = self.attention_bias(mask)?;
        let mut x = self.embeddings(ids, token_types)?;
        for layer in 0..self.sizes.layers {
            match self.architecture.family {
                Family::Bert | Family::Roberta | Family::Electra => {
                    x = self.layer(&format!("encoder.layer.{layer}"), x, bias)?;
                }
                Family::DistilBert => x = self.layer(&format!("transformer.layer.{layer}"), x, bias)?,
                Family::Albert => {
                    // As `transformers` computes it, in binary64.
                    let group = (layer as f64 / (self.sizes.layers as f64 / self.sizes.groups as f64)) as u64;
                    for inner in 0..self.sizes.layers_per_group {
                        let stem = format!("encoder.albert_layer_groups.{group}.albert_layers.{inner}");
                        x = self.layer(&stem, x, bias)?;
                    }
                }
            }
        }
        Ok(x)
    }

    fn embeddings(&mut self, ids: Value, token_types: Option<Value>) -> Result<Value, ReadError> {
        let &Sizes { embedding, hidden, vocabulary, positions, padding, epsilon, .. } = self.sizes;
        let mut x = self.layers.embedding(WORDS, [vocabulary, embedding], ids)?;
        if self.sizes.token_types > 0 {
            let name = "embeddings.token_type_embeddings";
            let size = [self.sizes.token_types, embedding];
            let rows = match token_types {
                Some(token_types) => self.layers.embedding(name, size, token_types)?,
                // Where there is no input, all tokens are of the first type.
                None => {
                    let table = self.layers.weight(&format!("{name}.weight"), &size)?;
                    self.layers.b.node_name = name.to_owned();
                    self.layers.b.slice(table, vec![0, 0], vec![1, embedding])?
                }
            };
            x = self.layers.b.binary(BinaryOp::Add, x, rows)?;
        }
        let name = "embeddings.position_embeddings";
        let size = [positions, embedding];
        let places = match padding {
            Some(padding) => {
                let places = self.positions_of_tokens(ids, padding)?;
                self.layers.embedding(name, size, places)?
            }
            None => {
                let table = self.layers.weight(&format!("{name}.weight"), &size)?;
                self.layers.b.node_name = name.to_owned();
                self.layers.b.slice(table, vec![0, 0], vec![self.seq, embedding])?
            }
        };
        x = self.layers.b.binary(BinaryOp::Add, x, places)?;
        x = self.layers.layer_norm("embeddings.LayerNorm", x, epsilon)?;
        match self.architecture.family {
            Family::Albert => self.layers.linear("encoder.embedding_hidden_mapping_in", x, hidden),
            Family::Electra if embedding != hidden => self.layers.linear("embeddings_project", x, hidden),
            _ => Ok(x),
        }
    }

    /// Where each token stands, counted over tokens alone and from `padding + 1` on; padding itself stands at
    /// `padding` (`create_position_ids_from_input_ids` of `transformers.models.roberta`). `[B, S] -> [B, S]`
    fn positions_of_tokens(&mut self, ids: Value, padding: u64) -> Result<Value, ReadError> {
        let b = &mut *self.layers.b;
        b.node_name = "embeddings.position_ids".to_owned();
        let is_padding = b.binary_scalar(BinaryOp::Eq, ids, padding as f64)?;
        let is_token = b.unary(UnaryOp::Not, is_padding)?;
        let ones = b.emit(Op::Cast { to: DType::I64 }, &[is_token])?;
        let count = b.emit(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[ones])?;
        let places = b.binary(BinaryOp::Mul, count, ones)?;
        Ok(b.binary_scalar(BinaryOp::Add, places, padding as f64)?)
    }

    /// What is added to the scores: 0 for tokens, and for padding the least `f32`, as the reference has it; a row
    /// without tokens then attends to all alike and stays finite. `[B, S] -> [B, 1, 1, S]`
    fn attention_bias(&mut self, mask: Value) -> Result<Value, ReadError> {
        let b = &mut *self.layers.b;
        b.node_name = "attention_mask".to_owned();
        let padding = b.binary_scalar(BinaryOp::Eq, mask, 0.0)?;
        let zero = b.scalar(DType::F32, 0.0)?;
        let least = b.scalar(DType::F32, f64::from(f32::MIN))?;
        let bias = b.emit(Op::Select, &[padding, least, zero])?;
        Ok(b.reshape(bias, [self.batch, 1, 1, self.seq])?)
    }

    /// `[B, S, H] -> [B, heads, S, H / heads]`
    fn heads(&mut self, name: &str, x: Value) -> Result<Value, ReadError> {
        let (hidden, heads) = (self.sizes.hidden, self.sizes.heads);
        let x = self.layers.linear(name, x, hidden)?;
        let split = self.layers.b.reshape(x, [self.batch, self.seq, heads, hidden / heads])?;
        Ok(self.layers.b.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[split])?)
    }

    /// A layer with the norm after each of its halves.
    fn layer(&mut self, stem: &str, x: Value, bias: Value) -> Result<Value, ReadError> {
        let names = LayerNames::new(self.architecture.family, stem);
        let &Sizes { hidden, heads, intermediate, epsilon, activation, .. } = self.sizes;
        let (q, k, v) = (self.heads(&names.query, x)?, self.heads(&names.key, x)?, self.heads(&names.value, x)?);
        let b = &mut *self.layers.b;
        b.node_name = names.query.rsplit_once('.').map_or("", |(attention, _)| attention).to_owned();
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        let context = b.emit(Op::Attention { scale }, &[q, k, v, bias])?;
        let rows = b.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context])?;
        let rows = b.reshape(rows, [self.batch, self.seq, hidden])?;
        let projected = self.layers.linear(&names.attention_output, rows, hidden)?;
        let sum = self.layers.b.binary(BinaryOp::Add, projected, x)?;
        let x = self.layers.layer_norm(&names.attention_norm, sum, epsilon)?;

        let widened = self.layers.linear(&names.inner, x, intermediate)?;
        let activated = self.layers.activation(activation, widened)?;
        let narrowed = self.layers.linear(&names.outer, activated, hidden)?;
        let sum = self.layers.b.binary(BinaryOp::Add, narrowed, x)?;
        self.layers.layer_norm(&names.output_norm, sum, epsilon)
    }
}

/// `tanh(W x + b)` of the first token: `[B, S, H] -> [B, H]`
pub(super) fn pooler(layers: &mut Layers<'_>, name: &str, hidden: Value) -> Result<Value, ReadError> {
    layers.b.node_name = name.to_owned();
    let first = layers.first_token(hidden)?;
    let size = layers.b.shape(first).last().copied().unwrap_or(1);
    let dense = layers.linear(name, first, size)?;
    Ok(layers.activation(Activation::Tanh, dense)?)
}
