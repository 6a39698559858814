//! The graph: *what* a model computes.
//!
//! Values are tensors in SSA form with an element type and a static shape. Nodes apply operators of the closed set
//! [`Op`], whose semantics are written beside each variant. Constants are ranges of shared byte buffers
//! ([`crate::types::Tensor`]). A graph is acyclic by construction: a node may use only values that exist already, and
//! [`Graph::nodes`] lists nodes in evaluation order.
//!
//! Arithmetic contract:
//! - Float operators are IEEE 754 in the operands' type, with results within the error bound that the reference
//!   interpreter computes; the order of a sum is free inside that bound. NaN propagates through arithmetic; `max` and
//!   `min` of a NaN are unspecified.
//! - Integer `add`, `sub`, `mul` and `neg` wrap. Integer division truncates toward zero; division by zero gives 0, and
//!   its remainder is the dividend.
//! - Binary operators and `select` broadcast as numpy does: shapes align at the last dimension, 1 stretches.

pub mod infer;
pub mod interp;
pub mod op;
pub mod passes;
pub mod scan;
pub mod text;
pub mod verify;

use bytes::Bytes;
use cranelift_entity::{PrimaryMap, entity_impl};

use crate::types::{Tensor, TensorType};
pub use op::{ArgOp, BinaryOp, ConvAttrs, GeluKind, Op, PoolAttrs, PoolKind, ReduceOp, ScatterOp, UnaryOp};
pub use scan::Scan;

/// A tensor in the graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);
entity_impl!(Value, "v");

/// One application of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(u32);
entity_impl!(Node, "n");

/// A constant of the graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Const(u32);
entity_impl!(Const, "c");

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueDef {
    /// The graph's input of that index.
    Input(u32),
    /// A constant.
    Const(Const),
    /// A result of a node: the node and which result.
    Node(Node, u32),
}

/// A value: its name in the user's model, type and definition.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueData {
    /// The tensor's name in the user's model; empty for values made by the compiler.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: ValueDef,
}

/// A node: operator, operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeData {
    /// The node's name in the user's model (or that of its first result); errors and reports show it.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Operands, in the order that the operator documents.
    pub inputs: Vec<Value>,
    /// Results.
    pub outputs: Vec<Value>,
}

/// A named result of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name in the user's model.
    pub name: String,
    /// The value returned.
    pub value: Value,
}

/// A model as a graph. See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// All values ever made; some may be unused after passes.
    pub values: PrimaryMap<Value, ValueData>,
    /// All nodes ever made; those in force are listed in `order`.
    pub nodes: PrimaryMap<Node, NodeData>,
    /// The nodes in force, in evaluation order: operands before users.
    pub order: Vec<Node>,
    /// Constants.
    pub consts: PrimaryMap<Const, Tensor>,
    /// Inputs, in the model's order. Each value's definition is `ValueDef::Input` of its position here.
    pub inputs: Vec<Value>,
    /// Outputs, in the model's order. One value may be returned under several names.
    pub outputs: Vec<Output>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds an input of the model.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> Value {
        let def = ValueDef::Input(self.inputs.len() as u32);
        let value = self.values.push(ValueData { name: name.into(), ty, def });
        self.inputs.push(value);
        value
    }

    /// Adds a constant and the value that stands for it.
    pub fn add_const(&mut self, name: impl Into<String>, tensor: Tensor) -> Value {
        let ty = tensor.ty().clone();
        let def = ValueDef::Const(self.consts.push(tensor));
        self.values.push(ValueData { name: name.into(), ty, def })
    }

    /// Appends a node with one result, whose type is inferred; the result carries the node's name.
    ///
    /// # Errors
    /// When the operands do not fit the operator ([`op::InferError`]).
    pub fn add_node(&mut self, name: impl Into<String>, op: Op, inputs: &[Value]) -> Result<Value, op::InferError> {
        let (node, value) = self.detached_node(name, op, inputs)?;
        self.order.push(node);
        Ok(value)
    }

    /// Like [`Graph::add_node`], but leaves it to the caller (a pass) to insert the node into `order`.
    ///
    /// # Errors
    /// When the operands do not fit the operator ([`op::InferError`]).
    pub fn detached_node(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[Value],
    ) -> Result<(Node, Value), op::InferError> {
        let types: Vec<&TensorType> = inputs.iter().map(|&v| &self.values[v].ty).collect();
        let ty = op.infer(&types)?;
        let name = name.into();
        let node = self.nodes.next_key();
        let value = self.values.push(ValueData { name: name.clone(), ty, def: ValueDef::Node(node, 0) });
        self.nodes.push(NodeData { name, op, inputs: inputs.to_vec(), outputs: vec![value] });
        Ok((node, value))
    }

    /// Appends a node with any number of results, whose types are inferred. The caller names the results.
    ///
    /// # Errors
    /// When the operands do not fit the operator ([`op::InferError`]).
    pub fn add_node_of_many(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[Value],
    ) -> Result<Vec<Value>, op::InferError> {
        let types: Vec<&TensorType> = inputs.iter().map(|&v| &self.values[v].ty).collect();
        let types = op.infer_all(&types)?;
        let node = self.nodes.next_key();
        let define = |(i, ty): (usize, TensorType)| {
            self.values.push(ValueData { name: String::new(), ty, def: ValueDef::Node(node, i as u32) })
        };
        let outputs: Vec<Value> = types.into_iter().enumerate().map(define).collect();
        self.nodes.push(NodeData { name: name.into(), op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        self.order.push(node);
        Ok(outputs)
    }

    /// Declares a result of the model.
    pub fn add_output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push(Output { name: name.into(), value });
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.values[value].ty
    }

    /// The constant that a value stands for, if it is one.
    pub fn const_of(&self, value: Value) -> Option<&Tensor> {
        match self.values[value].def {
            ValueDef::Const(c) => Some(&self.consts[c]),
            ValueDef::Input(_) | ValueDef::Node(..) => None,
        }
    }

    /// The node that computes a value, if one does.
    pub fn node_of(&self, value: Value) -> Option<Node> {
        match self.values[value].def {
            ValueDef::Node(n, _) => Some(n),
            ValueDef::Input(_) | ValueDef::Const(_) => None,
        }
    }

    /// The single element of a constant of one element, as a float.
    pub fn scalar_of(&self, value: Value) -> Option<f64> {
        self.const_of(value).filter(|t| t.ty().elems() == 1).and_then(|t| t.get_f64(0))
    }

    /// Bytes of a constant, or `None` for computed values.
    pub fn const_bytes(&self, value: Value) -> Option<&Bytes> {
        self.const_of(value).map(Tensor::bytes)
    }
}
