//! The parts that encoders and heads are made of: linear layers, norms, embeddings and activations, on the tensors of
//! a checkpoint, under the names of its modules.

use std::collections::BTreeMap;

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};

use super::config::Activation;
use super::weights::Weights;
use crate::builder::{Builder, Reason};
use crate::error::ReadError;

/// Writes modules into a graph.
pub(super) struct Layers<'a> {
    /// The graph under construction.
    pub b: &'a mut Builder,
    weights: &'a Weights,
    /// The constants made so far: a tensor that several modules use is one constant, and is converted once.
    constants: BTreeMap<String, Value>,
}

impl<'a> Layers<'a> {
    pub fn new(b: &'a mut Builder, weights: &'a Weights) -> Self {
        Self { b, weights, constants: BTreeMap::new() }
    }

    /// The checkpoint.
    pub fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// A tensor of the checkpoint as a constant of that name.
    pub fn weight(&mut self, name: &str, shape: &[u64]) -> Result<Value, ReadError> {
        if let Some(&known) = self.constants.get(name)
            && self.b.shape(known) == shape
        {
            return Ok(known);
        }
        let tensor = self.weights.tensor(name, shape)?;
        let value = self.b.graph.add_const(name, tensor);
        self.constants.insert(name.to_owned(), value);
        Ok(value)
    }

    /// `x Wᵀ + b`: `[..., in] -> [..., out]`
    pub fn linear(&mut self, name: &str, x: Value, output: u64) -> Result<Value, ReadError> {
        let input = self.last_dim(x);
        let w = self.weight(&format!("{name}.weight"), &[output, input])?;
        let bias = self.weight(&format!("{name}.bias"), &[output])?;
        self.affine(name, x, w, bias)
    }

    /// `x Wᵀ + b` for tensors at hand; checkpoints store `W: [out, in]`, and the transposition is left to constant folding.
    pub fn affine(&mut self, name: &str, x: Value, w: Value, bias: Value) -> Result<Value, ReadError> {
        self.b.node_name = name.to_owned();
        let w = self.b.emit(Op::Transpose { perm: vec![1, 0] }, &[w])?;
        let product = self.b.emit(Op::MatMul, &[x, w])?;
        Ok(self.b.binary(BinaryOp::Add, product, bias)?)
    }

    /// Over the last dimension.
    pub fn layer_norm(&mut self, name: &str, x: Value, epsilon: f32) -> Result<Value, ReadError> {
        // Checkpoints converted from TensorFlow have the older names.
        let old = self.weights.contains(&format!("{name}.gamma"));
        let (scale, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let size = self.last_dim(x);
        let scale = self.weight(&format!("{name}.{scale}"), &[size])?;
        let bias = self.weight(&format!("{name}.{bias}"), &[size])?;
        self.b.node_name = name.to_owned();
        let axis = self.b.rank(x) - 1;
        Ok(self.b.emit(Op::LayerNorm { axis, epsilon }, &[x, scale, bias])?)
    }

    /// The rows of a table of `[rows, size]`: `[...] -> [..., size]`
    pub fn embedding(&mut self, name: &str, [rows, size]: [u64; 2], indices: Value) -> Result<Value, ReadError> {
        let table = self.weight(&format!("{name}.weight"), &[rows, size])?;
        self.b.node_name = name.to_owned();
        Ok(self.b.emit(Op::Gather { axis: 0 }, &[table, indices])?)
    }

    /// A function of each element; its node gets the name of the module before it.
    pub fn activation(&mut self, function: Activation, x: Value) -> Result<Value, Reason> {
        match function {
            Activation::Gelu(kind) => self.b.emit(Op::Gelu(kind), &[x]),
            Activation::Relu => self.b.binary_scalar(BinaryOp::Max, x, 0.0),
            Activation::Silu => {
                let gate = self.b.unary(UnaryOp::Sigmoid, x)?;
                self.b.binary(BinaryOp::Mul, x, gate)
            }
            Activation::Tanh => self.b.unary(UnaryOp::Tanh, x),
        }
    }

    /// The first token's vector: `[B, S, H] -> [B, H]`
    pub fn first_token(&mut self, hidden: Value) -> Result<Value, Reason> {
        super::sentence::first_token(self.b, hidden)
    }

    fn last_dim(&self, x: Value) -> u64 {
        self.b.shape(x).last().copied().unwrap_or(1)
    }
}
