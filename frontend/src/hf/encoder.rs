//! The encoder as a graph: embeddings, layers and pooler (Devlin et al., arXiv 1810.04805; Sanh et al., arXiv
//! 1910.01108). Both families compute the same; they differ in names, and `bert` adds token types.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};
use aic_ir::types::DType;

use super::config::{Activation, EncoderConfig, Family};
use super::weights::Weights;
use crate::builder::Builder;
use crate::error::ReadError;

/// Names of a layer's modules in the checkpoint.
struct LayerNames {
    query: String,
    key: String,
    value: String,
    attention_output: String,
    attention_norm: String,
    inner: String,
    outer: String,
    output_norm: String,
}

impl LayerNames {
    fn new(family: Family, layer: u64) -> Self {
        let (stem, parts) = match family {
            Family::Bert => (
                format!("encoder.layer.{layer}"),
                [
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                    "attention.output.LayerNorm",
                    "intermediate.dense",
                    "output.dense",
                    "output.LayerNorm",
                ],
            ),
            Family::DistilBert => (
                format!("transformer.layer.{layer}"),
                [
                    "attention.q_lin",
                    "attention.k_lin",
                    "attention.v_lin",
                    "attention.out_lin",
                    "sa_layer_norm",
                    "ffn.lin1",
                    "ffn.lin2",
                    "output_layer_norm",
                ],
            ),
        };
        let [query, key, value, attention_output, attention_norm, inner, outer, output_norm] =
            parts.map(|part| format!("{stem}.{part}"));
        Self { query, key, value, attention_output, attention_norm, inner, outer, output_norm }
    }
}

/// Writes an encoder into a graph. `B` is the batch, `S` the sequence, `H` the hidden size.
pub(super) struct Encoder<'a> {
    b: &'a mut Builder,
    config: &'a EncoderConfig,
    weights: &'a Weights,
    batch: u64,
    seq: u64,
}

impl<'a> Encoder<'a> {
    pub fn new(
        b: &'a mut Builder,
        config: &'a EncoderConfig,
        weights: &'a Weights,
        batch: u64,
        seq: u64,
    ) -> Result<Self, ReadError> {
        Ok(Self { b, config, weights, batch, seq })
    }

    /// `(input_ids, attention_mask, token_type_ids: [B, S]) -> [B, S, H]`
    pub fn run(&mut self, ids: Value, mask: Value, token_types: Option<Value>) -> Result<Value, ReadError> {
        let bias = self.attention_bias(mask)?;
        let mut x = self.embeddings(ids, token_types)?;
        for layer in 0..self.config.layers {
            x = self.layer(&LayerNames::new(self.config.family, layer), x, bias)?;
        }
        Ok(x)
    }

    /// `tanh(W x + b)` of the first token, where the checkpoint has the weights: `[B, S, H] -> [B, H]`
    pub fn pooler(&mut self, hidden: Value) -> Result<Option<Value>, ReadError> {
        if !self.weights.contains("pooler.dense.weight") {
            return Ok(None);
        }
        self.b.node_name = "pooler".to_owned();
        let first = super::sentence::first_token(self.b, hidden)?;
        let size = self.config.hidden;
        let dense = self.linear("pooler.dense", first, size, size)?;
        Ok(Some(self.b.unary(UnaryOp::Tanh, dense)?))
    }

    /// A tensor of the checkpoint as a constant of that name.
    fn weight(&mut self, name: &str, shape: &[u64]) -> Result<Value, ReadError> {
        let tensor = self.weights.tensor(name, shape)?;
        Ok(self.b.graph.add_const(name, tensor))
    }

    /// `x Wᵀ + b`; the checkpoint stores `W: [out, in]`, and the transposition is left to constant folding.
    fn linear(&mut self, name: &str, x: Value, input: u64, output: u64) -> Result<Value, ReadError> {
        self.b.node_name = name.to_owned();
        let w = self.weight(&format!("{name}.weight"), &[output, input])?;
        let bias = self.weight(&format!("{name}.bias"), &[output])?;
        let w = self.b.emit(Op::Transpose { perm: vec![1, 0] }, &[w])?;
        let product = self.b.emit(Op::MatMul, &[x, w])?;
        Ok(self.b.binary(BinaryOp::Add, product, bias)?)
    }

    fn layer_norm(&mut self, name: &str, x: Value) -> Result<Value, ReadError> {
        self.b.node_name = name.to_owned();
        // Checkpoints converted from TensorFlow have the older names.
        let old = self.weights.contains(&format!("{name}.gamma"));
        let (scale, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let scale = self.weight(&format!("{name}.{scale}"), &[self.config.hidden])?;
        let bias = self.weight(&format!("{name}.{bias}"), &[self.config.hidden])?;
        let axis = self.b.rank(x) - 1;
        Ok(self.b.emit(Op::LayerNorm { axis, epsilon: self.config.epsilon }, &[x, scale, bias])?)
    }

    fn embeddings(&mut self, ids: Value, token_types: Option<Value>) -> Result<Value, ReadError> {
        let hidden = self.config.hidden;
        self.b.node_name = "embeddings.word_embeddings".to_owned();
        let words = self.weight("embeddings.word_embeddings.weight", &[self.config.vocabulary, hidden])?;
        let mut x = self.b.emit(Op::Gather { axis: 0 }, &[words, ids])?;
        if let Some(token_types) = token_types {
            self.b.node_name = "embeddings.token_type_embeddings".to_owned();
            let table = self.weight("embeddings.token_type_embeddings.weight", &[self.config.token_types, hidden])?;
            let rows = self.b.emit(Op::Gather { axis: 0 }, &[table, token_types])?;
            x = self.b.binary(BinaryOp::Add, x, rows)?;
        }
        self.b.node_name = "embeddings.position_embeddings".to_owned();
        let positions = self.weight("embeddings.position_embeddings.weight", &[self.config.positions, hidden])?;
        let positions = self.b.slice(positions, vec![0, 0], vec![self.seq, hidden])?;
        x = self.b.binary(BinaryOp::Add, x, positions)?;
        self.layer_norm("embeddings.LayerNorm", x)
    }

    /// What is added to the scores: 0 for tokens, and for padding the least `f32`, as the reference has it; a row
    /// without tokens then attends to all alike and stays finite. `[B, S] -> [B, 1, 1, S]`
    fn attention_bias(&mut self, mask: Value) -> Result<Value, ReadError> {
        self.b.node_name = "attention_mask".to_owned();
        let padding = self.b.binary_scalar(BinaryOp::Eq, mask, 0.0)?;
        let zero = self.b.scalar(DType::F32, 0.0)?;
        let least = self.b.scalar(DType::F32, f64::from(f32::MIN))?;
        let bias = self.b.emit(Op::Select, &[padding, least, zero])?;
        Ok(self.b.reshape(bias, [self.batch, 1, 1, self.seq])?)
    }

    /// `[B, S, H] -> [B, heads, S, H / heads]`
    fn heads(&mut self, name: &str, x: Value) -> Result<Value, ReadError> {
        let (hidden, heads) = (self.config.hidden, self.config.heads);
        let x = self.linear(name, x, hidden, hidden)?;
        let split = self.b.reshape(x, [self.batch, self.seq, heads, hidden / heads])?;
        Ok(self.b.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[split])?)
    }

    fn layer(&mut self, names: &LayerNames, x: Value, bias: Value) -> Result<Value, ReadError> {
        let (hidden, inner) = (self.config.hidden, self.config.intermediate);
        let (q, k, v) = (self.heads(&names.query, x)?, self.heads(&names.key, x)?, self.heads(&names.value, x)?);
        self.b.node_name = names.query.rsplit_once('.').map_or("", |(attention, _)| attention).to_owned();
        let scale = 1.0 / ((hidden / self.config.heads) as f32).sqrt();
        let context = self.b.emit(Op::Attention { scale }, &[q, k, v, bias])?;
        let rows = self.b.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context])?;
        let rows = self.b.reshape(rows, [self.batch, self.seq, hidden])?;
        let projected = self.linear(&names.attention_output, rows, hidden, hidden)?;
        let sum = self.b.binary(BinaryOp::Add, projected, x)?;
        let x = self.layer_norm(&names.attention_norm, sum)?;

        let widened = self.linear(&names.inner, x, hidden, inner)?;
        let activated = match self.config.activation {
            Activation::Gelu(kind) => self.b.emit(Op::Gelu(kind), &[widened])?,
            Activation::Relu => self.b.binary_scalar(BinaryOp::Max, widened, 0.0)?,
        };
        let narrowed = self.linear(&names.outer, activated, inner, hidden)?;
        let sum = self.b.binary(BinaryOp::Add, narrowed, x)?;
        self.layer_norm(&names.output_norm, sum)
    }
}
