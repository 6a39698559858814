//! Compaction: rebuilds the graph of what is in force only, and numbers it in evaluation order.
//!
//! Input: any graph. Output: every value, node and constant is used, except inputs, which are the model's interface. Last,
//! so that constants that were folded away are dropped, and their memory with them.
//!
//! ```text
//! v0 input, v1 dead, v2 = exp v0   →   v0 input, v1 = exp v0
//! ```

use cranelift_entity::SecondaryMap;

use super::dead;
use crate::graph::{Graph, NodeData, Output, Value, ValueData, ValueDef};

pub(super) fn run(graph: &mut Graph) -> usize {
    let removed = dead::run(graph);
    let old = std::mem::take(graph);
    let mut new = Graph::new(old.name.clone());
    let mut moved: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    for &input in &old.inputs {
        let data = &old.values[input];
        moved[input] = Some(new.add_input(data.name.clone(), data.ty.clone()));
    }
    for &node in &old.order {
        let data = &old.nodes[node];
        let inputs = data.inputs.iter().filter_map(|&v| move_value(&old, &mut new, &mut moved, v)).collect();
        let key = new.nodes.next_key();
        let mut outputs = Vec::with_capacity(data.outputs.len());
        for (i, &v) in data.outputs.iter().enumerate() {
            let value = &old.values[v];
            let def = ValueDef::Node(key, i as u32);
            let value = new.values.push(ValueData { name: value.name.clone(), ty: value.ty.clone(), def });
            moved[v] = Some(value);
            outputs.push(value);
        }
        new.nodes.push(NodeData { name: data.name.clone(), op: data.op.clone(), inputs, outputs });
        new.order.push(key);
    }
    for Output { name, value } in &old.outputs {
        if let Some(value) = move_value(&old, &mut new, &mut moved, *value) {
            new.add_output(name.clone(), value);
        }
    }
    let dropped = old.values.len() - new.values.len() + old.consts.len() - new.consts.len();
    *graph = new;
    removed + dropped
}

/// The new value for an old one; constants are moved on first use.
fn move_value(
    old: &Graph,
    new: &mut Graph,
    moved: &mut SecondaryMap<Value, Option<Value>>,
    value: Value,
) -> Option<Value> {
    if moved[value].is_none()
        && let Some(tensor) = old.const_of(value)
    {
        moved[value] = Some(new.add_const(old.values[value].name.clone(), tensor.clone()));
    }
    moved[value]
}
