//! Finding the operator at which compiled code leaves the reference.
//!
//! A prefix of the graph's nodes is a model of its own, whose outputs are the values that the rest needs. Some prefix is
//! right (the empty one) and some is wrong (the whole graph), so halving finds two neighbours that differ by one node.
//! Prefixes go through the same stages as the model did, with the same fusions where these lie within the prefix.

use aic_ir::graph::interp::{self, ErrorModel, Evaluated};
use aic_ir::graph::{Graph, Output, Value, passes};
use aic_ir::types::Tensor;
use rustc_hash::FxHashSet;

use crate::compare::{Difference, Tolerance, compare_evaluated};
use crate::pipeline::{Compilation, compile};
use crate::{Artifacts, Config, Error, Limits};

/// Where compiled code leaves the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Name of the user's node.
    pub node: String,
    /// The operator, as text forms name it.
    pub op: &'static str,
    /// How its result differs.
    pub difference: Difference,
    /// Number of nodes of the graph before it.
    pub position: usize,
}

/// Finds the first diverging operator of a compiled model, for inputs in the model's order. `None` if every prefix that was
/// tried agrees with the interpreter, the whole graph too.
///
/// # Errors
/// When the graph cannot be interpreted, or a prefix cannot be compiled or run.
pub fn bisect(
    artifacts: &Artifacts,
    inputs: &[Tensor],
    config: &Config,
    tolerance: &Tolerance,
) -> Result<Option<Divergence>, Error> {
    let config = Config { schedule: None, limits: Limits::default(), states: Vec::new(), ..config.clone() };
    first_divergence(&artifacts.graph, inputs, tolerance, &mut |graph| {
        let model_sha256 = artifacts.artifact.interface.model_sha256.clone();
        let job = Compilation { declared: graph.clone(), graph, passes: passes::Report::default(), model_sha256 };
        compile(job, &config, &artifacts.target, &mut ())?.runner()?.run(inputs)
    })
}

/// The search, for any executor of graphs.
fn first_divergence(
    graph: &Graph,
    inputs: &[Tensor],
    tolerance: &Tolerance,
    execute: &mut dyn FnMut(Graph) -> Result<Vec<Tensor>, Error>,
) -> Result<Option<Divergence>, Error> {
    let reference =
        interp::evaluate_all(graph, inputs, ErrorModel::Independent).map_err(|e| Error::stage("the interpreter", e))?;
    let mut wrong = |length: usize| -> Result<Option<Difference>, Error> {
        let (prefix, values) = prefix(graph, length);
        let outputs = execute(prefix)?;
        for (value, output) in values.into_iter().zip(outputs) {
            let Some(expected) = &reference[value] else { continue };
            let difference = judge(&graph.values[value].name, &output, expected, tolerance)?;
            if !difference.passed {
                return Ok(Some(difference));
            }
        }
        Ok(None)
    };

    let Some(mut difference) = wrong(graph.order.len())? else { return Ok(None) };
    // Invariant: the prefix of length `right` agrees, the one of length `end` does not.
    let (mut right, mut end) = (0, graph.order.len());
    while end - right > 1 {
        let middle = right + (end - right) / 2;
        match wrong(middle)? {
            Some(d) => (difference, end) = (d, middle),
            None => right = middle,
        }
    }
    let node = &graph.nodes[graph.order[end - 1]];
    Ok(Some(Divergence { node: node.name.clone(), op: node.op.name(), difference, position: end - 1 }))
}

fn judge(name: &str, output: &Tensor, expected: &Evaluated, tolerance: &Tolerance) -> Result<Difference, Error> {
    compare_evaluated(name, output, expected, tolerance).map_err(Error::Mismatch)
}

/// The first `length` nodes as a graph, and which values its outputs are: those that the rest or the outputs need.
fn prefix(graph: &Graph, length: usize) -> (Graph, Vec<Value>) {
    let (head, rest) = graph.order.split_at(length);
    let needed: FxHashSet<Value> = rest
        .iter()
        .flat_map(|&n| graph.nodes[n].inputs.iter().copied())
        .chain(graph.outputs.iter().map(|o| o.value))
        .collect();
    let made = head.iter().flat_map(|&n| graph.nodes[n].outputs.iter().copied());
    let values: Vec<Value> = made.filter(|v| needed.contains(v)).collect();
    let outputs = values.iter().map(|&value| Output { name: value.to_string(), value }).collect();
    (Graph { order: head.to_vec(), outputs, ..graph.clone() }, values)
}

#[cfg(test)]
mod tests {
    use aic_ir::graph::{Op, UnaryOp};
    use aic_ir::types::{DType, TensorType};

    use super::*;

    /// `tanh`, again and again; the node at `fault` computes the sigmoid instead.
    fn chain(fault: Option<usize>) -> Graph {
        let mut graph = Graph::new("chain");
        let mut value = graph.add_input("x", TensorType::new(DType::F32, [4]).expect("small"));
        for i in 0..9 {
            let op = if Some(i) == fault { UnaryOp::Sigmoid } else { UnaryOp::Tanh };
            value = graph.add_node(format!("node{i}"), Op::Unary(op), &[value]).expect("fits");
        }
        graph.add_output("y", value);
        graph
    }

    #[test]
    fn the_faulty_operator_is_found_wherever_it_is() {
        let inputs = [Tensor::from_f32([4], &[0.5, -0.25, 1.0, 2.0]).expect("fits")];
        for fault in (0..9).map(Some).chain([None]) {
            let mut runs = 0;
            // An executor that computes something else at one node, whatever the graph's prefix.
            let mut execute = |graph: Graph| {
                runs += 1;
                let broken = Graph { nodes: chain(fault).nodes, ..graph };
                let outputs = interp::evaluate(&broken, &inputs).map_err(|e| Error::stage("test", e))?;
                Ok(outputs.iter().map(Evaluated::to_tensor).collect())
            };
            let found = first_divergence(&chain(None), &inputs, &Tolerance::default(), &mut execute);
            let found = found.expect("runs").map(|d| (d.position, d.node));
            assert_eq!(found, fault.map(|i| (i, format!("node{i}"))));
            assert!(runs <= 6, "{runs} runs");
        }
    }
}
