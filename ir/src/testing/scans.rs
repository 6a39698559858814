//! Random scans: the body is a random graph, some of whose outputs are carried to inputs of their type.

use super::Rng;
use super::graphs::{is_tame, random_nodes};
use crate::graph::interp::evaluate;
use crate::graph::{BinaryOp, Graph, Op, Scan, Value};
use crate::types::{Tensor, TensorType};

/// A scan over a random graph of about `size` nodes, with inputs for it.
pub(super) fn random_scan(seed: u64, size: usize) -> (Graph, Vec<Tensor>) {
    let (graph, inputs) = scan(seed, size, true);
    // The body is tame for its own inputs; those of later rounds may be anything, no positions where it needs some.
    let tame = evaluate(&graph, &inputs).is_ok_and(|outputs| outputs.iter().all(is_tame));
    if tame { (graph, inputs) } else { scan(seed, size, false) }
}

/// The same, where rounds may differ: they carry states and have rows of their own.
fn scan(seed: u64, size: usize, differ: bool) -> (Graph, Vec<Tensor>) {
    let rng = &mut Rng::new(seed);
    let (mut body, tensors) = random_nodes(seed, size);
    let trips = *rng.pick(&[1, 2, 3, 5]);

    // Inputs become states, sequences and captured values, in this order.
    let ty = |body: &Graph, v: Value| body.ty(v).clone();
    let mut free: Vec<usize> = (0..tensors.len()).collect();
    let mut states = Vec::new();
    let mut outputs = std::mem::take(&mut body.outputs);
    let mut carried = Vec::new();
    let mut i = 0;
    while i < outputs.len() && rng.one_in(2) {
        let output = ty(&body, outputs[i].value);
        match free.iter().position(|&input| differ && ty(&body, body.inputs[input]) == output) {
            Some(at) => {
                states.push(free.remove(at));
                carried.push(outputs.remove(i));
            }
            None => i += 1,
        }
    }
    // A row and a state may be one value, and a row may be a state as it was.
    outputs.extend(carried.iter().filter(|_| rng.one_in(2)).cloned());
    if let Some(&state) = states.first()
        && rng.one_in(3)
    {
        outputs.push(crate::graph::Output { name: "old".into(), value: body.inputs[state] });
    }
    let (sequences, captured): (Vec<usize>, Vec<usize>) = free.into_iter().partition(|_| !rng.one_in(3));
    let order: Vec<usize> = states.iter().chain(&sequences).chain(&captured).copied().collect();
    let old = std::mem::take(&mut body.inputs);
    for (position, &input) in order.iter().enumerate() {
        body.values[old[input]].def = crate::graph::ValueDef::Input(position as u32);
        body.inputs.push(old[input]);
    }
    body.outputs = carried.into_iter().chain(outputs).collect();
    for (n, output) in body.outputs.iter_mut().enumerate() {
        output.name = format!("r{n}");
    }

    let mut graph = Graph::new(format!("random scan {seed}"));
    let mut inputs = Vec::new();
    let mut operands = Vec::new();
    for (position, &input) in order.iter().enumerate() {
        let is_sequence = (states.len()..states.len() + sequences.len()).contains(&position);
        let tensor = if is_sequence { rows(rng, &tensors[input], trips, differ) } else { tensors[input].clone() };
        operands.push(graph.add_input(format!("x{position}"), tensor.ty().clone()));
        inputs.push(tensor);
    }
    let scan = Scan { body, trips, reverse: rng.one_in(2), states: states.len(), sequences: sequences.len() };
    let results = graph.add_node_of_many("scan", Op::Scan(Box::new(scan)), &operands).expect("operands fit the body");
    for (n, result) in results.into_iter().enumerate() {
        // Some results are read by a node, some are returned as they are.
        let read = graph.ty(result).dtype().is_float() && rng.one_in(2);
        let value = if read { graph.add_node("sum", Op::Binary(BinaryOp::Add), &[result, result]) } else { Ok(result) };
        graph.add_output(format!("y{n}"), value.expect("a sum of equal types"));
    }
    (graph, inputs)
}

/// A sequence of rows like a tensor: floats may differ from row to row, while what may be positions stays as it is.
fn rows(rng: &mut Rng, row: &Tensor, trips: u64, differ: bool) -> Tensor {
    let shape: Vec<u64> = std::iter::once(trips).chain(row.ty().shape().iter().copied()).collect();
    let ty = TensorType::new(row.ty().dtype(), shape).expect("small shape");
    if differ && ty.dtype().is_float() {
        return rng.tensor(&ty, 2.0);
    }
    Tensor::new(ty, row.bytes().repeat(trips as usize).into()).expect("as many bytes as rows")
}
