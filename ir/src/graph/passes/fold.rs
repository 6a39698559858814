//! Constant folding: nodes whose operands are constants become constants.
//!
//! Input and output: any graph. First, because everything else is simpler to match on constants, and again after
//! canonicalization.
//!
//! Folding is budgeted, since a small file may describe large results: each operand and result is at most
//! [`MAX_TENSOR_ELEMS`], all results together at most the file's constants plus [`EXTRA_BYTES`], and all that is read and
//! combined for them [`EXTRA_WORK`] plus [`WORK_PER_ELEMENT`] for each element of the constants: many nodes may read one
//! large constant, or a window that is padding but for one element. Views (transpose, slice, expand, and reshapes of them) cost nothing later on, so one
//! that no folded node needs is left as it is unless it is small and does not grow: a mask that is broadcast stays a small
//! constant, and a large weight is never transposed.
//!
//! ```text
//! c = lt [0, 1], [1, 1]; y = select c, x, [5]   →   y = select [true, false], x, [5]
//! ```

use cranelift_entity::SecondaryMap;

use crate::graph::interp::{Evaluated, evaluate_op};
use crate::graph::{Graph, Op, Value};
use crate::types::Tensor;

/// Largest operand or result of a node that is folded. Evaluation takes 16 bytes for each element, whatever its type.
const MAX_TENSOR_ELEMS: u64 = 1 << 20;

/// How many bytes folding may evaluate beyond the size of the file's constants.
const EXTRA_BYTES: u64 = 16 << 20;

/// Largest view of a constant that is made a constant of its own.
const MAX_VIEW_BYTES: u64 = 64 << 10;

/// Most elements that folding reads or combines, beyond [`WORK_PER_ELEMENT`].
const EXTRA_WORK: u64 = 1 << 26;

/// How many more of them for each element of the graph's constants: a few passes over all of them.
const WORK_PER_ELEMENT: u64 = 8;

pub(super) fn run(graph: &mut Graph) -> usize {
    let folded = evaluate(graph);
    let kept = choose(graph, &folded);
    let mut changes = 0;
    let mut constants: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    let order = std::mem::take(&mut graph.order);
    for node in order {
        let result = graph.nodes[node].outputs.first().copied();
        if let Some(result) = result
            && let Some(tensor) = &folded[result]
            && !kept[result].stays
        {
            changes += 1;
            if kept[result].needed {
                let name = graph.values[result].name.clone();
                constants[result] = Some(graph.add_const(name, tensor.clone()));
            }
            continue;
        }
        for v in &mut graph.nodes[node].inputs {
            *v = constants[*v].unwrap_or(*v);
        }
        graph.order.push(node);
    }
    for output in &mut graph.outputs {
        output.value = constants[output.value].unwrap_or(output.value);
    }
    changes
}

/// Evaluates what the budget allows, node by node, each result rounded to its type as the model would.
fn evaluate(graph: &Graph) -> SecondaryMap<Value, Option<Tensor>> {
    let mut budget = graph.consts.values().map(|t| t.ty().bytes()).fold(EXTRA_BYTES, u64::saturating_add);
    let elems = graph.consts.values().map(|t| t.ty().elems()).fold(0, u64::saturating_add);
    let mut work_left = EXTRA_WORK.saturating_add(elems.saturating_mul(WORK_PER_ELEMENT));
    let mut folded: SecondaryMap<Value, Option<Tensor>> = SecondaryMap::new();
    for &node in &graph.order {
        let data = &graph.nodes[node];
        let &[result] = data.outputs.as_slice() else { continue };
        let bytes = graph.ty(result).bytes();
        let is_view = matches!(data.op, Op::Reshape { .. });
        if !is_view && (graph.ty(result).elems() > MAX_TENSOR_ELEMS || bytes > budget) {
            continue;
        }
        let operands: Option<Vec<&Tensor>> =
            data.inputs.iter().map(|&v| graph.const_of(v).or(folded[v].as_ref())).collect();
        let Some(operands) = operands else { continue };
        let value = match (&data.op, operands.as_slice()) {
            // The same bytes, however large.
            (Op::Reshape { shape }, [x]) => x.reshaped(shape.as_slice()),
            _ if operands.iter().any(|t| t.ty().elems() > MAX_TENSOR_ELEMS) => None,
            _ => {
                let read = operands.iter().map(|t| t.ty().elems()).fold(0, u64::saturating_add);
                let work = work(graph, &data.op, &data.inputs, result).saturating_add(read);
                let Some(left) = work_left.checked_sub(work) else { continue };
                (budget, work_left) = (budget - bytes, left);
                let operands: Vec<Evaluated> = operands.into_iter().map(Evaluated::from_tensor).collect();
                evaluate_op(&data.op, &operands.iter().collect::<Vec<_>>())
                    .ok()
                    .filter(|y| (0..graph.ty(result).elems() as usize).all(|i| y.err(i).is_finite()))
                    .map(|y| y.to_tensor())
            }
        };
        folded[result] = value;
    }
    folded
}

/// How many elements are combined to compute a result, where that is more than the operands have.
fn work(graph: &Graph, op: &Op, inputs: &[Value], result: Value) -> u64 {
    let size = |operand: usize, axis: usize| {
        inputs.get(operand).and_then(|&v| graph.ty(v).shape().get(axis)).copied().unwrap_or(1)
    };
    let last = |operand: usize| size(operand, inputs.get(operand).map_or(0, |&v| graph.ty(v).rank().max(1) - 1));
    let each = match op {
        Op::MatMul => last(0),
        Op::Conv(attrs) => (1..attrs.strides.len() + 2).map(|axis| size(1, axis)).fold(1, u64::saturating_mul),
        Op::Pool(attrs) => attrs.kernel.iter().copied().fold(1, u64::saturating_mul),
        Op::Attention { .. } => size(1, 2).saturating_mul(last(0).saturating_add(1)),
        _ => 1,
    };
    graph.ty(result).elems().saturating_mul(each)
}

/// What happens to a value that was evaluated.
#[derive(Clone, Copy, Default)]
struct Choice {
    /// Something that is not folded uses it.
    needed: bool,
    /// Its node is left as it is.
    stays: bool,
}

/// Decides backwards, from those that use a value to the value.
fn choose(graph: &Graph, folded: &SecondaryMap<Value, Option<Tensor>>) -> SecondaryMap<Value, Choice> {
    let views = better_as_views(graph);
    let mut choices: SecondaryMap<Value, Choice> = SecondaryMap::new();
    for output in &graph.outputs {
        choices[output.value].needed = true;
    }
    for &node in graph.order.iter().rev() {
        let data = &graph.nodes[node];
        let Some(&result) = data.outputs.first() else { continue };
        choices[result].stays = choices[result].needed && views[result];
        if folded[result].is_none() || choices[result].stays {
            for &v in &data.inputs {
                choices[v].needed = true;
            }
        }
    }
    choices
}

/// Views that would grow or move many bytes if they were made constants.
fn better_as_views(graph: &Graph) -> SecondaryMap<Value, bool> {
    let mut views: SecondaryMap<Value, bool> = SecondaryMap::new();
    for &node in &graph.order {
        let data = &graph.nodes[node];
        let (&[x], &[result]) = (data.inputs.as_slice(), data.outputs.as_slice()) else { continue };
        let bytes = graph.ty(result).bytes();
        views[result] = match data.op {
            Op::Transpose { .. } | Op::Slice { .. } | Op::Expand { .. } => {
                views[x] || bytes > graph.ty(x).bytes() || bytes > MAX_VIEW_BYTES
            }
            // The same bytes as its operand, so no worse than that.
            Op::Reshape { .. } => views[x],
            _ => false,
        };
    }
    views
}
