//! Finding the operator at which compiled code leaves the reference.
//!
//! A prefix of the graph's nodes is a model of its own, whose outputs are the values that the rest needs. Some prefix is
//! right (the empty one) and some is wrong (the whole graph), so halving finds two neighbours that differ by one node.
//! Prefixes go through the same stages as the model did, with the same fusions where these lie within the prefix.

use aic_cpu::CpuTarget;
use aic_ir::graph::interp::{self, ErrorModel, Evaluated};
use aic_ir::graph::{Graph, Output, Value};
use aic_ir::types::Tensor;
use rustc_hash::FxHashSet;

use crate::compare::{Difference, Tolerance, compare_evaluated};
use crate::pipeline::{Compilation, compile};
use crate::{Artifacts, Config, Error};

/// Where compiled code leaves the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Name of the user's node.
    pub node: String,
    /// The operator, in text form.
    pub op: String,
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
    let graph = &artifacts.graph;
    let reference =
        interp::evaluate_all(graph, inputs, ErrorModel::Independent).map_err(|e| Error::stage("the interpreter", e))?;
    let config = Config { schedule: None, limits: Default::default(), ..config.clone() };
    let wrong = |length: usize| -> Result<Option<(Value, Difference)>, Error> {
        let (prefix, values) = prefix(graph, length);
        let outputs = run(prefix, inputs, artifacts, &config, &artifacts.target)?;
        for (value, output) in values.into_iter().zip(outputs) {
            let Some(expected) = &reference[value] else { continue };
            let difference = judge(&graph.values[value].name, &output, expected, tolerance)?;
            if !difference.passed {
                return Ok(Some((value, difference)));
            }
        }
        Ok(None)
    };

    let Some(mut found) = wrong(graph.order.len())? else { return Ok(None) };
    // Invariant: the prefix of length `right` agrees, the one of length `end` does not.
    let (mut right, mut end) = (0, graph.order.len());
    while end - right > 1 {
        let middle = right + (end - right) / 2;
        match wrong(middle)? {
            Some(difference) => (found, end) = (difference, middle),
            None => right = middle,
        }
    }
    let node = &graph.nodes[graph.order[end - 1]];
    Ok(Some(Divergence {
        node: node.name.clone(),
        op: format!("{:?}", node.op).split(['(', ' ', '{']).next().unwrap_or_default().to_lowercase(),
        difference: found.1,
        position: end - 1,
    }))
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

fn run(
    graph: Graph,
    inputs: &[Tensor],
    artifacts: &Artifacts,
    config: &Config,
    target: &CpuTarget,
) -> Result<Vec<Tensor>, Error> {
    let job = Compilation {
        declared: graph.clone(),
        graph,
        passes: Default::default(),
        model_sha256: artifacts.artifact.interface.model_sha256.clone(),
    };
    compile(job, config, target, &mut ())?.runner()?.run(inputs)
}
