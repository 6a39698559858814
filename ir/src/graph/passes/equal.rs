//! Equal values: two nodes that apply one operator to the same values become one, and so do equal constants.
//!
//! Input and output: any graph. It comes after canonicalization, which makes equal things look equal, and before the
//! fusions, which expect that `x - mean` is one value however often the exporter wrote it.
//!
//! ```text
//! a = sub x, m; b = sub x, m; c = mul a, b   →   a = sub x, m; c = mul a, a
//! ```

use bytes::Bytes;
use cranelift_entity::SecondaryMap;
use rustc_hash::FxHashMap;

use super::rewrite::rewrite;
use crate::graph::{Graph, Value};
use crate::types::{Tensor, TensorType};

/// Constants up to this size are compared by content, larger ones by where their bytes are.
const MAX_COMPARED_BYTES: usize = 4096;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut changes = merge_constants(graph);
    // The printed operator is the key: operators hold floats, whose equality is not that of what they do (0 and -0).
    let mut seen: FxHashMap<(String, Vec<Value>), Value> = FxHashMap::default();
    changes += rewrite(graph, &mut |rw, node| {
        let data = &rw.graph.nodes[node];
        let &[result] = data.outputs.as_slice() else { return None };
        let key = (format!("{:?}", data.op), data.inputs.clone());
        let first = *seen.entry(key).or_insert(result);
        (first != result).then_some(first)
    });
    changes
}

/// What makes two constants equal.
#[derive(PartialEq, Eq, Hash)]
enum Content {
    Bytes(TensorType, Bytes),
    Place(TensorType, usize),
}

fn content(tensor: &Tensor) -> Content {
    let bytes = tensor.bytes();
    if bytes.len() <= MAX_COMPARED_BYTES {
        Content::Bytes(tensor.ty().clone(), bytes.clone())
    } else {
        Content::Place(tensor.ty().clone(), bytes.as_ptr() as usize)
    }
}

fn merge_constants(graph: &mut Graph) -> usize {
    let mut seen: FxHashMap<Content, Value> = FxHashMap::default();
    let mut merged: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    let mut changes = 0;
    for i in 0..graph.order.len() {
        let node = graph.order[i];
        for operand in 0..graph.nodes[node].inputs.len() {
            let value = graph.nodes[node].inputs[operand];
            let first = match (merged[value], graph.const_of(value)) {
                (Some(first), _) => first,
                (None, Some(tensor)) => *seen.entry(content(tensor)).or_insert(value),
                (None, None) => continue,
            };
            merged[value] = Some(first);
            if first != value {
                changes += 1;
                graph.nodes[node].inputs[operand] = first;
            }
        }
    }
    changes
}
