//! Dead nodes: takes nodes that no output needs out of the evaluation order.
//!
//! Input and output: any graph. It comes before the fusions, which count a value's users, and is part of
//! [`super::compact`].
//!
//! ```text
//! a = exp x; b = neg x; out b   →   b = neg x; out b
//! ```

use cranelift_entity::SecondaryMap;

use crate::graph::{Graph, Value};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut needed: SecondaryMap<Value, bool> = SecondaryMap::new();
    for output in &graph.outputs {
        needed[output.value] = true;
    }
    let before = graph.order.len();
    let mut order = std::mem::take(&mut graph.order);
    order.reverse();
    order.retain(|&node| {
        let data = &graph.nodes[node];
        let live = data.outputs.iter().any(|&v| needed[v]);
        if live {
            for &v in &data.inputs {
                needed[v] = true;
            }
        }
        live
    });
    order.reverse();
    graph.order = order;
    before - graph.order.len()
}
