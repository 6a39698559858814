//! 16-bit floats are stored, not computed with: operators on `f16` and `bf16` run in `f32` between casts.
//!
//! Input form: any graph. Output form: one where only casts and operators that move elements see 16-bit floats. It is the
//! first step of lowering, so that kernels, the scheduler and backends know no arithmetic of these types.
//!
//! ```text
//! y: f16 = matmul(x: f16, w: f16)          x' = cast x; y' = matmul(x', w'); z' = tanh(y'); z = cast z'
//! z: f16 = tanh(y)
//! ```
//!
//! A result stays in `f32` for the operators that compute with it: excess precision between operators, which the graph's
//! error bounds allow. It is rounded where the model says so (a cast), where it is returned, and where an operator decides
//! by its value (a comparison, a cast to an integer), so that equal 16-bit numbers stay equal. Constants are converted here,
//! which is once, and not where they are only moved (an embedding table).

use std::borrow::Cow;

use bytes::Bytes;
use cranelift_entity::SecondaryMap;

use crate::graph::op::InferError;
use crate::graph::scan::Scan;
use crate::graph::{BinaryOp, Graph, Node, Op, ScatterOp, UnaryOp, Value, ValueDef};
use crate::types::{DType, Tensor};

/// What an operator does with its operands' values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Arithmetic: operands and results in `f32`.
    Compute,
    /// A decision: operands rounded.
    Decide,
    /// Other coordinates of the same elements, without a kernel; commutes with casts.
    Rename,
    /// Elements are copied as they are.
    Move,
    /// Has a graph of its own, whose inputs and outputs keep their types.
    Enclose,
}

/// Exhaustive, so that a new operator does not compile until it has a role.
fn role(op: &Op) -> Role {
    match op {
        Op::Binary(b) if b.is_comparison() => Role::Decide,
        Op::Binary(BinaryOp::Rem) | Op::Unary(UnaryOp::Round | UnaryOp::Floor | UnaryOp::Ceil) => Role::Decide,
        Op::ArgReduce { .. } | Op::TopK { .. } => Role::Decide,
        Op::Unary(_)
        | Op::Binary(_)
        | Op::MatMul
        | Op::Conv(_)
        | Op::Pool(_)
        | Op::Reduce { .. }
        | Op::Softmax { .. }
        | Op::LayerNorm { .. }
        | Op::BatchNorm { .. }
        | Op::Gelu(_)
        | Op::CumSum { .. }
        | Op::Attention { .. } => Role::Compute,
        Op::ScatterElements { combine, .. } | Op::ScatterNd { combine } => match combine {
            ScatterOp::Replace => Role::Move,
            ScatterOp::Add | ScatterOp::Mul | ScatterOp::Max | ScatterOp::Min => Role::Compute,
        },
        Op::Cast { to } if to.is_float() => Role::Compute,
        Op::Cast { .. } => Role::Decide,
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } => Role::Rename,
        Op::Select | Op::Concat { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Gather { .. } => Role::Move,
        Op::GatherElements { .. } | Op::GatherNd { .. } => Role::Move,
        Op::Scan(_) => Role::Enclose,
    }
}

/// The graph with arithmetic on 16-bit floats in `f32`.
///
/// # Errors
/// The node and the reason, when operands do not fit an operator; a verified graph has no such node.
pub(super) fn widen(graph: &Graph) -> Result<Cow<'_, Graph>, (String, InferError)> {
    if !graph.values.values().any(|v| is_half(v.ty.dtype())) {
        return Ok(Cow::Borrowed(graph));
    }
    let mut widening = Widening {
        source: graph,
        out: Graph::new(graph.name.clone()),
        stored: SecondaryMap::new(),
        wide: SecondaryMap::new(),
        computed: SecondaryMap::new(),
    };
    for &input in &graph.inputs {
        let data = &graph.values[input];
        widening.stored[input] = Some(widening.out.add_input(data.name.clone(), data.ty.clone()));
    }
    for &node in &graph.order {
        widening.node(node).map_err(|e| (graph.nodes[node].name.clone(), e))?;
    }
    for output in &graph.outputs {
        let value = widening.stored(output.value).map_err(|e| (output.name.clone(), e))?;
        widening.out.add_output(output.name.clone(), value);
    }
    Ok(Cow::Owned(widening.out))
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The new graph, and where it has the values of the old one.
struct Widening<'g> {
    source: &'g Graph,
    out: Graph,
    /// Values in their own element type.
    stored: SecondaryMap<Value, Option<Value>>,
    /// 16-bit floats in `f32`.
    wide: SecondaryMap<Value, Option<Value>>,
    /// Values that were computed in `f32`, and are not rounded yet.
    computed: SecondaryMap<Value, bool>,
}

impl Widening<'_> {
    fn node(&mut self, node: Node) -> Result<(), InferError> {
        let data = &self.source.nodes[node];
        let role = role(&data.op);
        let in_wide = match role {
            Role::Compute => true,
            Role::Decide | Role::Enclose => false,
            Role::Rename | Role::Move => data.inputs.iter().any(|&v| self.computed[v]),
        };
        let mut operands = Vec::with_capacity(data.inputs.len());
        for &v in &data.inputs {
            operands.push(match role {
                _ if !is_half(self.source.ty(v).dtype()) => self.stored(v)?,
                _ if in_wide => self.wide(v)?,
                Role::Decide => {
                    let rounded = self.stored(v)?;
                    self.cast(v, rounded, DType::F32)?
                }
                Role::Compute | Role::Rename | Role::Move | Role::Enclose => self.stored(v)?,
            });
        }
        // A cast of what is `f32` here already.
        if let (&Op::Cast { to }, &[x], &[result]) = (&data.op, operands.as_slice(), data.outputs.as_slice())
            && self.out.ty(x).dtype() == to
        {
            self.stored[result] = Some(x);
            return Ok(());
        }
        let op = match &data.op {
            Op::Scan(scan) => {
                let body = widen(&scan.body).map_err(|(_, error)| error)?.into_owned();
                Op::Scan(Box::new(Scan { body, ..scan.as_ref().clone() }))
            }
            op => op.clone(),
        };
        let values = self.out.add_node_of_many(data.name.clone(), op, &operands)?;
        for (&result, value) in data.outputs.iter().zip(values) {
            self.out.values[value].name.clone_from(&self.source.values[result].name);
            if is_half(self.source.ty(result).dtype()) && self.out.ty(value).dtype() == DType::F32 {
                self.computed[result] = true;
                self.wide[result] = Some(value);
            } else {
                self.stored[result] = Some(value);
            }
        }
        Ok(())
    }

    /// A cast that stands for value `v` of the old graph.
    fn cast(&mut self, v: Value, value: Value, to: DType) -> Result<Value, InferError> {
        let name = match self.source.node_of(v) {
            Some(node) => self.source.nodes[node].name.clone(),
            None => self.source.values[v].name.clone(),
        };
        self.out.add_node(name, Op::Cast { to }, &[value])
    }

    /// A value in its own element type.
    fn stored(&mut self, v: Value) -> Result<Value, InferError> {
        if let Some(value) = self.stored[v] {
            return Ok(value);
        }
        let data = &self.source.values[v];
        let value = match (data.def, self.wide[v]) {
            (ValueDef::Const(c), _) => self.out.add_const(data.name.clone(), self.source.consts[c].clone()),
            (_, Some(wide)) => {
                let value = self.cast(v, wide, data.ty.dtype())?;
                self.out.values[value].name.clone_from(&data.name);
                value
            }
            // A value that nothing defines; the verifier has refused the graph.
            (ValueDef::Input(_) | ValueDef::Node(..), None) => self.out.add_input(data.name.clone(), data.ty.clone()),
        };
        self.stored[v] = Some(value);
        Ok(value)
    }

    /// A 16-bit float value in `f32`. Casts go before renaming operators, so that constants are converted here and what is
    /// expanded is converted once.
    fn wide(&mut self, v: Value) -> Result<Value, InferError> {
        let mut renamed = Vec::new();
        let mut source = v;
        while self.wide[source].is_none()
            && let Some(node) = self.source.node_of(source)
            && let data = &self.source.nodes[node]
            && role(&data.op) == Role::Rename
            && let &[operand] = data.inputs.as_slice()
        {
            renamed.push((source, node));
            source = operand;
        }
        let mut value = match (self.wide[source], self.source.const_of(source).and_then(converted)) {
            (Some(value), _) => value,
            (None, Some(tensor)) => self.out.add_const(self.source.values[source].name.clone(), tensor),
            (None, None) => {
                let stored = self.stored(source)?;
                self.cast(source, stored, DType::F32)?
            }
        };
        self.wide[source] = Some(value);
        for (result, node) in renamed.into_iter().rev() {
            let data = &self.source.nodes[node];
            value = self.out.add_node(data.name.clone(), data.op.clone(), &[value])?;
            self.wide[result] = Some(value);
        }
        Ok(value)
    }
}

/// The elements of a tensor of 16-bit floats in `f32`, which holds them all.
fn converted(tensor: &Tensor) -> Option<Tensor> {
    let halves = tensor.bytes().as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    let bytes: Vec<u8> = match tensor.ty().dtype() {
        DType::F16 => halves.flat_map(|h| half::f16::from_bits(h).to_f32().to_le_bytes()).collect(),
        _ => halves.flat_map(|h| half::bf16::from_bits(h).to_f32().to_le_bytes()).collect(),
    };
    Tensor::new(tensor.ty().with_dtype(DType::F32), Bytes::from(bytes)).ok()
}
