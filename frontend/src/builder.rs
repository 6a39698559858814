//! Building the graph: nodes with inferred types, folded at once where they are small constants.

use std::collections::BTreeMap;

use aic_ir::graph::{BinaryOp, Graph, Op, ReduceOp, UnaryOp, Value};
use aic_ir::types::{DType, ShapeError, Tensor, TensorType};

use crate::error::RefusedNode;
use crate::fold;

/// Bytes of constants that may be computed while reading, beyond the file's size.
const BUDGET_BYTES: u64 = 16 << 20;

/// Nodes and computed constants that any model may have, and for how many bytes of its file it may have one more. An
/// operand of `Max` is two bytes in the file and a node in the graph, which later becomes a kernel.
const BASE_VALUES: u64 = 1 << 16;
const BYTES_PER_VALUE: u64 = 16;

/// Operands whose types are shown in an error.
const SHOWN_OPERANDS: usize = 6;

/// Why a node is refused, without the node's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub String);

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<ShapeError> for Reason {
    fn from(error: ShapeError) -> Self {
        Self(error.to_string())
    }
}

impl Reason {
    /// The reason with the node it concerns.
    pub fn at(self, name: &str, op: impl Into<String>) -> RefusedNode {
        RefusedNode { name: name.to_owned(), op: op.into(), reason: self.0 }
    }
}

/// A graph under construction. Values made here have no names; the importer names those that the model names.
pub(crate) struct Builder {
    /// The graph so far.
    pub graph: Graph,
    /// Name of the model's node that is being imported.
    pub node_name: String,
    scalars: BTreeMap<(DType, u64), Value>,
    index_ranges: BTreeMap<Value, Option<(i64, i64)>>,
    budget_bytes: u64,
    values_left: u64,
    /// Whether more nodes were asked for than the model may have.
    exhausted: bool,
    /// Constants of the file that were copied, by the address of their message: the body of a loop or a function is
    /// imported any number of times.
    copied: BTreeMap<usize, Tensor>,
}

/// A graph that is left alone while a body inside it is built.
pub(crate) struct Outer {
    /// The graph.
    pub graph: Graph,
    scalars: BTreeMap<(DType, u64), Value>,
    index_ranges: BTreeMap<Value, Option<(i64, i64)>>,
}

impl Builder {
    /// An empty graph whose folded constants are bounded in proportion to the file.
    pub fn new(name: &str, file_bytes: u64) -> Self {
        Self {
            graph: Graph::new(name),
            node_name: String::new(),
            scalars: BTreeMap::new(),
            index_ranges: BTreeMap::new(),
            budget_bytes: BUDGET_BYTES.saturating_add(file_bytes),
            values_left: BASE_VALUES.saturating_add(file_bytes / BYTES_PER_VALUE),
            exhausted: false,
            copied: BTreeMap::new(),
        }
    }

    /// Counts a node, or something that is done as if there were one, against what a file of this size may ask for.
    pub fn step(&mut self) -> Result<(), Reason> {
        match self.values_left.checked_sub(1) {
            Some(left) => {
                self.values_left = left;
                Ok(())
            }
            None => {
                self.exhausted = true;
                Err("the model comes to more nodes than a file of its size may hold".into())
            }
        }
    }

    /// Whether [`Self::step`] failed.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// A constant that is made once for each message of the file, however often that is imported.
    pub fn copied_once<E>(
        &mut self,
        address: usize,
        make: impl FnOnce(&mut Self) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        if let Some(known) = self.copied.get(&address) {
            return Ok(known.clone());
        }
        let made = make(self)?;
        self.copied.insert(address, made.clone());
        Ok(made)
    }

    /// Starts the graph of a body.
    pub fn enter_body(&mut self) -> Outer {
        Outer {
            graph: std::mem::take(&mut self.graph),
            scalars: std::mem::take(&mut self.scalars),
            index_ranges: std::mem::take(&mut self.index_ranges),
        }
    }

    /// Goes back to the graph around a body; gives that of the body.
    pub fn leave_body(&mut self, outer: Outer) -> Graph {
        let Outer { graph, scalars, index_ranges } = outer;
        (self.scalars, self.index_ranges) = (scalars, index_ranges);
        std::mem::replace(&mut self.graph, graph)
    }

    /// Element type of a value.
    pub fn dtype(&self, value: Value) -> DType {
        self.graph.ty(value).dtype()
    }

    /// Shape of a value.
    pub fn shape(&self, value: Value) -> &[u64] {
        self.graph.ty(value).shape()
    }

    /// Rank of a value.
    pub fn rank(&self, value: Value) -> usize {
        self.graph.ty(value).rank()
    }

    /// Applies an operator. Nothing is added where the result is the operand itself, and where it is a small constant
    /// it is computed at once.
    pub fn emit(&mut self, op: Op, operands: &[Value]) -> Result<Value, Reason> {
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let ty = op.infer(&types).map_err(|e| {
            let more = if types.len() > SHOWN_OPERANDS { ", …" } else { "" };
            let types: Vec<String> = types.iter().take(SHOWN_OPERANDS).map(|t| t.to_string()).collect();
            Reason(format!("{e} (operands: {}{more})", types.join(", ")))
        })?;
        if let &[x] = operands
            && is_identity(&op, self.graph.ty(x), &ty)
        {
            return Ok(x);
        }
        self.step()?;
        let constants: Option<Vec<&Tensor>> = operands.iter().map(|&v| self.graph.const_of(v)).collect();
        if let Some(constants) = constants {
            let work = ty.bytes().max(fold::reads_at_most(&op));
            let affordable = matches!(op, Op::Reshape { .. }) || work <= self.budget_bytes;
            if let Some(tensor) = affordable.then(|| fold::evaluate(&op, &constants, &ty)).flatten() {
                if !matches!(op, Op::Reshape { .. }) {
                    self.budget_bytes -= work;
                }
                return Ok(self.graph.add_const("", tensor));
            }
        }
        let value = self.graph.add_node(self.node_name.as_str(), op, operands).map_err(|e| Reason(e.to_string()))?;
        self.graph.values[value].name.clear();
        Ok(value)
    }

    /// Applies an operator of any number of results. Such operators are not computed here, constant or not.
    pub fn emit_all(&mut self, op: Op, operands: &[Value]) -> Result<Vec<Value>, Reason> {
        self.step()?;
        self.graph.add_node_of_many(self.node_name.as_str(), op, operands).map_err(|e| Reason(e.to_string()))
    }

    /// Applies a unary operator.
    pub fn unary(&mut self, op: UnaryOp, x: Value) -> Result<Value, Reason> {
        self.emit(Op::Unary(op), &[x])
    }

    /// Applies a binary operator.
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Result<Value, Reason> {
        self.emit(Op::Binary(op), &[a, b])
    }

    /// Applies a binary operator to a value and a number in the value's element type.
    pub fn binary_scalar(&mut self, op: BinaryOp, a: Value, b: f64) -> Result<Value, Reason> {
        let b = self.scalar(self.dtype(a), b)?;
        self.binary(op, a, b)
    }

    /// Applies a binary operator to a number in a value's element type and the value.
    pub fn scalar_binary(&mut self, op: BinaryOp, a: f64, b: Value) -> Result<Value, Reason> {
        let a = self.scalar(self.dtype(b), a)?;
        self.binary(op, a, b)
    }

    /// Selects between two values.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Result<Value, Reason> {
        self.emit(Op::Select, &[condition, a, b])
    }

    /// Converts the element type.
    pub fn cast(&mut self, x: Value, to: DType) -> Result<Value, Reason> {
        self.emit(Op::Cast { to }, &[x])
    }

    /// Permutes dimensions.
    pub fn transpose(&mut self, x: Value, perm: impl Into<Vec<usize>>) -> Result<Value, Reason> {
        self.emit(Op::Transpose { perm: perm.into() }, &[x])
    }

    /// Joins along a dimension.
    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Result<Value, Reason> {
        self.emit(Op::Concat { axis }, parts)
    }

    /// Broadcasts to a shape.
    pub fn expand(&mut self, x: Value, shape: impl Into<Vec<u64>>) -> Result<Value, Reason> {
        self.emit(Op::Expand { shape: shape.into() }, &[x])
    }

    /// Reshapes.
    pub fn reshape(&mut self, x: Value, shape: impl Into<Vec<u64>>) -> Result<Value, Reason> {
        self.emit(Op::Reshape { shape: shape.into() }, &[x])
    }

    /// Reduces; kept dimensions become 1.
    pub fn reduce(&mut self, op: ReduceOp, x: Value, axes: &[usize], keep_dims: bool) -> Result<Value, Reason> {
        self.emit(Op::Reduce { op, axes: axes.to_vec(), keep_dims }, &[x])
    }

    /// Selects the elements `starts[i] + k`, `k < sizes[i]`.
    pub fn slice(&mut self, x: Value, starts: Vec<u64>, sizes: Vec<u64>) -> Result<Value, Reason> {
        let steps = vec![1; starts.len()];
        self.emit(Op::Slice { starts, sizes, steps }, &[x])
    }

    /// A constant of rank 0, shared by all who ask for the same.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Result<Value, Reason> {
        let key = (dtype, value.to_bits());
        if let Some(&known) = self.scalars.get(&key) {
            return Ok(known);
        }
        let tensor = fold::scalar(dtype, value).ok_or("a constant cannot be made")?;
        let made = self.graph.add_const("", tensor);
        self.scalars.insert(key, made);
        Ok(made)
    }

    /// Smallest and largest element of a constant of integers; `None` if it is none, or is empty. A constant is looked
    /// at once, however many nodes share it.
    pub fn index_range(&mut self, value: Value) -> Option<(i64, i64)> {
        let Self { graph, index_ranges, .. } = self;
        *index_ranges.entry(value).or_insert_with(|| {
            let tensor = graph.const_of(value)?;
            let elements = (0..tensor.ty().elems()).map_while(|i| tensor.get_i64(i));
            elements
                .fold(None, |range, i| Some(range.map_or((i, i), |(low, high): (i64, i64)| (low.min(i), high.max(i)))))
        })
    }

    /// A constant computed while reading, within the budget.
    pub fn constant(&mut self, tensor: Tensor) -> Result<Value, Reason> {
        self.charge(tensor.ty().bytes())?;
        Ok(self.graph.add_const("", tensor))
    }

    /// A constant vector of 64-bit integers.
    pub fn ints(&mut self, values: &[i64]) -> Result<Value, Reason> {
        let tensor = Tensor::from_i64([values.len() as u64], values).ok_or("a constant cannot be made")?;
        self.constant(tensor)
    }

    /// Takes bytes from the budget of computed constants.
    pub fn charge(&mut self, bytes: u64) -> Result<(), Reason> {
        self.budget_bytes =
            self.budget_bytes.checked_sub(bytes).ok_or("the constants computed while reading exceed their budget")?;
        Ok(())
    }
}

/// Whether an operator of one operand returns it unchanged.
fn is_identity(op: &Op, x: &TensorType, result: &TensorType) -> bool {
    if x != result {
        return false;
    }
    match op {
        Op::Cast { .. } | Op::Reshape { .. } | Op::Expand { .. } | Op::Concat { .. } => true,
        Op::Transpose { perm } => perm.is_sorted(),
        Op::Slice { steps, .. } => steps.iter().all(|&s| s == 1),
        Op::Pad { pads, .. } => pads.iter().all(|&p| p == (0, 0)),
        Op::Reduce { axes, .. } => axes.is_empty(),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::MatMul
        | Op::Conv(_)
        | Op::Pool(_)
        | Op::Softmax { .. }
        | Op::LayerNorm { .. }
        | Op::BatchNorm { .. }
        | Op::Gelu(_)
        | Op::Attention { .. }
        | Op::Gather { .. }
        | Op::Scan(_)
        | Op::ArgReduce { .. }
        | Op::CumSum { .. }
        | Op::TopK { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. } => false,
    }
}
