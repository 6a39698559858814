//! The reference interpreter of graphs: every value in `f64`, with a bound on how far a correct evaluation in the
//! operators' own types may lie from it. Compiled code is checked against it, and it says what the operators mean.
//!
//! # The bound
//! An element is a value `v` and an error bound `e`: every evaluation that computes each operator in its element type, in
//! any order of its sums, and with functions good to 4 ULP, lies within `e` of `v`. Bounds are propagated forward with the
//! standard model of floating-point arithmetic (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed.,
//! chapters 2 and 3): `fl(a ∘ b) = (a ∘ b)(1 + δ)` with `|δ| ≤ u`, and a sum of `n` terms errs by at most
//! `γₙ Σ|terms|`, `γₙ = nu/(1 - nu)`. Results are never rounded to the element type, so `v` is the better reference.
//!
//! `e` is infinite where the result is *undetermined*: it hangs on a decision (a comparison, a cast to an integer, an
//! overflow, a division) that the uncertainty of the operands leaves open. NaN and infinities are certain where `e` is 0.
//! Elements that any evaluation computes exactly have `e = 0`, so masks made of zeros and ones stay decidable.
//!
//! 16-bit floats are stored, and computed with in `f32`: an operator's result is rounded to 16 bits at most once, or kept as
//! it is for the next operator. Where it passes the largest number of 16 bits it is undetermined.
//!
//! Integers are exact, wrap to their type, and are either certain or undetermined.
//!
//! # Two models
//! [`ErrorModel::WorstCase`] is rigorous, but in a sum of products it adds the magnitudes of errors that really cancel, so
//! after a few layers of a network the bound says nothing. [`ErrorModel::Independent`] takes the errors of a sum's terms
//! for independent and of mean 0 and adds their squares (Higham and Mary, *A new approach to probabilistic rounding error
//! analysis*, SIAM J. Sci. Comput. 41(5), 2019), with a factor of four on each rounding for the dependence there is. It
//! serves whole networks; it is wrong where one error enters a long sum many times, as after a broadcast.

mod elementwise;
mod indexing;
mod integer;
mod movement;
mod normalize;
mod num;
mod order;
mod product;
mod reduce;
mod scan;
mod value;

use std::borrow::Cow;

use cranelift_entity::SecondaryMap;

use super::op::InferError;
use super::verify::{GraphInfo, VerifyErrors};
use super::{Graph, Op, ScatterOp, Value, ValueDef};
use crate::types::{Tensor, TensorType};
use num::Rounding;
pub use value::{Comparison, Evaluated, TypeMismatch};

/// Largest number of elements of one evaluated tensor; each takes 16 bytes.
pub const MAX_EVALUATED_ELEMENTS: u64 = 1 << 28;

/// Why a graph cannot be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// The graph breaks the verifier's rules.
    #[error("the graph is broken:\n{0}")]
    Invalid(VerifyErrors),
    /// Too few or too many inputs.
    #[error("the graph has {expected} inputs, but {actual} are given")]
    InputCount {
        /// How many inputs the graph has.
        expected: usize,
        /// How many are given.
        actual: usize,
    },
    /// An input of another type.
    #[error("input {name:?} has type {expected}, but {actual} is given")]
    InputType {
        /// Name of the input.
        name: String,
        /// Its type.
        expected: TensorType,
        /// The type of the tensor given.
        actual: TensorType,
    },
    /// A node could not be evaluated.
    #[error("node {name:?}: {error}")]
    Node {
        /// Name of the node.
        name: String,
        /// Why.
        error: OpError,
    },
}

/// Why an operator cannot be evaluated on given operands.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpError {
    /// The operands do not fit the operator.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An index of a gather or scatter is out of range.
    #[error("index {index} is out of range for a dimension of {size} elements")]
    Index {
        /// The index.
        index: i64,
        /// Size of the dimension indexed.
        size: u64,
    },
    /// The result has more than [`MAX_EVALUATED_ELEMENTS`].
    #[error("a result of type {0} is too large to evaluate")]
    TooLarge(TensorType),
    /// A step of a scan could not be evaluated.
    #[error("step {step}: {error}")]
    Step {
        /// Which step, from 0.
        step: u64,
        /// Why.
        error: Box<InterpError>,
    },
}

/// How errors combine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorModel {
    /// As badly as they can: the bound holds for every evaluation.
    #[default]
    WorstCase,
    /// As independent errors do in sums: a narrow bound that holds in practice.
    Independent,
}

/// Evaluates a graph's outputs for inputs in the graph's order, with rigorous bounds.
///
/// # Errors
/// When the graph is broken, inputs do not fit it, or an index is out of range.
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Evaluated>, InterpError> {
    evaluate_with(graph, inputs, ErrorModel::WorstCase)
}

/// Evaluates a graph's outputs for inputs in the graph's order.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(graph: &Graph, inputs: &[Tensor], model: ErrorModel) -> Result<Vec<Evaluated>, InterpError> {
    let values = run(graph, inputs, model, false)?;
    Ok(graph.outputs.iter().filter_map(|output| value_of(graph, &values, output.value).map(Cow::into_owned)).collect())
}

/// Evaluates every input of a graph and every result of a node in force, for bisecting a divergence. Constants and dead
/// values have none.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_all(
    graph: &Graph,
    inputs: &[Tensor],
    model: ErrorModel,
) -> Result<SecondaryMap<Value, Option<Evaluated>>, InterpError> {
    run(graph, inputs, model, true)
}

/// Evaluates one operator, with rigorous bounds.
///
/// # Errors
/// When the operands do not fit the operator, the result is too large, or an index is out of range.
pub fn evaluate_op(op: &Op, operands: &[&Evaluated]) -> Result<Evaluated, OpError> {
    apply(op, operands, ErrorModel::WorstCase)
}

/// Evaluates one operator of any number of results, with rigorous bounds.
///
/// # Errors
/// As [`evaluate_op`].
pub fn evaluate_op_all(op: &Op, operands: &[&Evaluated]) -> Result<Vec<Evaluated>, OpError> {
    apply_all(op, operands, ErrorModel::WorstCase)
}

fn apply_all(op: &Op, operands: &[&Evaluated], model: ErrorModel) -> Result<Vec<Evaluated>, OpError> {
    match (op, operands) {
        (Op::Scan(scan), _) => scan::scan(scan, operands, model),
        (Op::TopK { k, axis, largest }, [x]) => {
            let types = op.infer_all(&[x.ty()])?;
            match types.iter().find(|ty| ty.elems() > MAX_EVALUATED_ELEMENTS) {
                Some(large) => Err(OpError::TooLarge(large.clone())),
                None => Ok(order::top_k(*k, *axis, *largest, x, types)),
            }
        }
        _ => Ok(vec![apply(op, operands, model)?]),
    }
}

fn apply(op: &Op, operands: &[&Evaluated], model: ErrorModel) -> Result<Evaluated, OpError> {
    let types: Vec<&TensorType> = operands.iter().map(|x| x.ty()).collect();
    let ty = op.infer(&types)?;
    if ty.elems() > MAX_EVALUATED_ELEMENTS {
        return Err(OpError::TooLarge(ty));
    }
    if ty.elems() == 0 {
        return Ok(Evaluated::empty(ty));
    }
    let stored = Rounding::new(operands.first().map_or(ty.dtype(), |x| x.ty().dtype()), model);
    let r = &stored.computing();
    let result = match (op, operands) {
        (Op::Unary(op), [x]) => elementwise::unary(*op, x, r),
        (Op::Binary(op), [a, b]) => elementwise::binary(*op, a, b, ty, r),
        (Op::Select, [condition, a, b]) => elementwise::select(condition, a, b, ty),
        (Op::Cast { to }, [x]) => elementwise::cast(x, ty, &stored.of(*to)),
        (Op::MatMul, [a, b]) => product::matmul(a, b, ty, r),
        (Op::Conv(attrs), [x, w, bias @ ..]) => product::conv(attrs, [x, w], bias.first().copied(), ty, r),
        (Op::Pool(attrs), [x]) => reduce::pool(attrs, x, ty, r),
        (Op::Reduce { op, axes, keep_dims: _ }, [x]) => reduce::reduce(*op, axes, x, ty, r),
        (Op::Softmax { axis }, [x]) => normalize::softmax(*axis, x, r),
        (Op::LayerNorm { axis, epsilon }, [x, scale, bias]) => {
            normalize::layer_norm(*axis, *epsilon, [x, scale, bias], r)
        }
        (Op::BatchNorm { epsilon }, [x, scale, bias, mean, variance]) => {
            normalize::batch_norm(*epsilon, x, [scale, bias, mean, variance], r)
        }
        (Op::Gelu(kind), [x]) => elementwise::gelu(*kind, x, r),
        (Op::Attention { scale }, [q, k, v, bias @ ..]) => {
            product::attention(*scale, [q, k, v], bias.first().copied(), ty, r)
        }
        (Op::Reshape { shape: _ }, [x]) => (*x).clone().with_type(ty),
        (Op::Transpose { perm }, [x]) => movement::transpose(perm, x, ty),
        (Op::Expand { shape: _ }, [x]) => movement::expand(x, ty),
        (Op::Concat { axis }, operands) => movement::concat(*axis, operands, ty),
        (Op::Slice { starts, sizes: _, steps }, [x]) => movement::slice(starts, steps, x, ty),
        (Op::Pad { pads, value }, [x]) => movement::pad(pads, *value, x, ty, &stored),
        (Op::Gather { axis }, [x, indices]) => indexing::gather(*axis, x, indices, ty)?,
        (Op::ArgReduce { op, axis, last }, [x]) => order::arg_reduce(*op, *axis, *last, x, ty),
        (Op::CumSum { axis, exclusive, reverse }, [x]) => order::cumsum(*axis, *exclusive, *reverse, x, r),
        (Op::GatherElements { axis }, [x, indices]) => indexing::gather_elements(*axis, x, indices, ty)?,
        (Op::GatherNd { batch_dims }, [x, indices]) => indexing::gather_nd(*batch_dims, x, indices, ty)?,
        (Op::ScatterElements { axis, combine }, [x, indices, updates]) => {
            indexing::scatter_elements(*axis, *combine, [x, indices, updates], r)?
        }
        (Op::ScatterNd { combine }, [x, indices, updates]) => indexing::scatter_nd(*combine, [x, indices, updates], r)?,
        // Inference has checked the number of operands.
        _ => return Err(OpError::Infer(InferError::Arity { expected: "other", actual: operands.len() })),
    };
    Ok(if moves(op) { result } else { result.stored(model) })
}

/// Whether an operator only moves elements, or rounds them by itself.
fn moves(op: &Op) -> bool {
    match op {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. } | Op::Concat { .. } | Op::Slice { .. } => true,
        Op::Select | Op::Pad { .. } | Op::Cast { .. } => true,
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => true,
        Op::ScatterElements { combine, .. } | Op::ScatterNd { combine } => *combine == ScatterOp::Replace,
        _ => false,
    }
}

fn run(
    graph: &Graph,
    inputs: &[Tensor],
    model: ErrorModel,
    keep_all: bool,
) -> Result<SecondaryMap<Value, Option<Evaluated>>, InterpError> {
    let info = graph.verify().map_err(InterpError::Invalid)?;
    if inputs.len() != graph.inputs.len() {
        return Err(InterpError::InputCount { expected: graph.inputs.len(), actual: inputs.len() });
    }
    for (&value, tensor) in graph.inputs.iter().zip(inputs) {
        let data = &graph.values[value];
        if data.ty != *tensor.ty() {
            return Err(InterpError::InputType {
                name: data.name.clone(),
                expected: data.ty.clone(),
                actual: tensor.ty().clone(),
            });
        }
    }
    let inputs = inputs.iter().map(Evaluated::from_tensor).collect();
    run_verified(graph, &info, inputs, model, keep_all)
}

/// Evaluates a graph that obeys the rules, on inputs of its types.
fn run_verified(
    graph: &Graph,
    info: &GraphInfo,
    inputs: Vec<Evaluated>,
    model: ErrorModel,
    keep_all: bool,
) -> Result<SecondaryMap<Value, Option<Evaluated>>, InterpError> {
    let mut values: SecondaryMap<Value, Option<Evaluated>> = SecondaryMap::with_capacity(graph.values.len());
    for (&value, evaluated) in graph.inputs.iter().zip(inputs) {
        values[value] = Some(evaluated);
    }
    let mut uses_left: SecondaryMap<Value, u32> = SecondaryMap::with_capacity(graph.values.len());
    for value in graph.values.keys() {
        uses_left[value] = info.uses(value);
    }
    for &node in &graph.order {
        let data = &graph.nodes[node];
        let results = evaluate_node(graph, &values, &data.op, &data.inputs, model)
            .map_err(|error| InterpError::Node { name: data.name.clone(), error })?;
        for (&value, result) in data.outputs.iter().zip(results) {
            values[value] = Some(result);
        }
        for &value in &data.inputs {
            uses_left[value] -= 1;
            if uses_left[value] == 0 && !keep_all {
                values[value] = None;
            }
        }
    }
    Ok(values)
}

fn evaluate_node(
    graph: &Graph,
    values: &SecondaryMap<Value, Option<Evaluated>>,
    op: &Op,
    operands: &[Value],
    model: ErrorModel,
) -> Result<Vec<Evaluated>, OpError> {
    // A lookup in a large constant table converts the rows it reads only.
    if let (Op::Gather { axis }, &[table, indices]) = (op, operands)
        && let (Some(table), Some(indices)) = (graph.const_of(table), value_of(graph, values, indices))
    {
        let ty = op.infer(&[table.ty(), indices.ty()])?;
        if ty.elems() > MAX_EVALUATED_ELEMENTS {
            return Err(OpError::TooLarge(ty));
        }
        return Ok(vec![indexing::gather_constant(*axis, table, &indices, ty)?]);
    }
    let operands: Vec<Cow<'_, Evaluated>> = operands.iter().filter_map(|&v| value_of(graph, values, v)).collect();
    let operands: Vec<&Evaluated> = operands.iter().map(AsRef::as_ref).collect();
    apply_all(op, &operands, model)
}

/// A value that is evaluated already, or a constant, which is converted anew for each use.
fn value_of<'a>(
    graph: &Graph,
    values: &'a SecondaryMap<Value, Option<Evaluated>>,
    value: Value,
) -> Option<Cow<'a, Evaluated>> {
    match graph.values[value].def {
        ValueDef::Const(c) => Some(Cow::Owned(Evaluated::from_tensor(&graph.consts[c]))),
        ValueDef::Input(_) | ValueDef::Node(..) => values[value].as_ref().map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests;
