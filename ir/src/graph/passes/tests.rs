//! Tests of passes, as text before and after. Every pair is also evaluated on the same random inputs.

mod fusions;
mod simple;

use proptest::prelude::*;

use super::{Graph, Options, compact, run};
use crate::graph::interp::evaluate;
use crate::testing::{Rng, random_graph};
use crate::types::{DType, Tensor, TensorType};

/// Operators of a graph after a pass, one line each; checks that both graphs compute the same.
fn after(pass: fn(&mut Graph) -> usize, body: &str) -> String {
    let text = format!("graph \"g\" {{ {body} }}");
    let before = Graph::parse(&text, None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut graph = before.clone();
    let changes = pass(&mut graph);
    graph.verify().unwrap_or_else(|e| panic!("{e}\n{graph}"));
    compact::run(&mut graph);
    graph.verify().unwrap_or_else(|e| panic!("{e}\n{graph}"));
    let mut compacted = before.clone();
    compact::run(&mut compacted);
    assert!(changes > 0 || compacted == graph, "a change was not counted:\n{before}\n{graph}");
    assert_same(&before, &graph);
    let printed = graph.to_string();
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|l| l.starts_with('v')).collect();
    lines.join("\n")
}

/// The operators' mnemonics alone.
fn ops(pass: fn(&mut Graph) -> usize, body: &str) -> String {
    let printed = after(pass, body);
    let op = |line: &str| line.split(" = ").nth(1).and_then(|r| r.split(' ').next()).unwrap_or("").to_owned();
    printed.lines().map(op).collect::<Vec<_>>().join(" ")
}

/// Checks that two graphs give the same within both error bounds, for a few random inputs.
fn assert_same(before: &Graph, after: &Graph) {
    for seed in 0..3 {
        let mut rng = Rng::new(seed);
        let inputs: Vec<Tensor> = before.inputs.iter().map(|&v| rng.tensor(before.ty(v), 2.0)).collect();
        assert_same_on(before, after, &inputs);
    }
}

fn assert_same_on(before: &Graph, after: &Graph, inputs: &[Tensor]) {
    let expected = evaluate(before, inputs).unwrap();
    let actual = evaluate(after, inputs).unwrap();
    assert_eq!(expected.len(), actual.len());
    for (e, a) in expected.iter().zip(&actual) {
        assert_eq!(e.ty(), a.ty());
        assert_eq!(e.ints(), a.ints(), "{before}\n{after}");
        let (Some(x), Some(y)) = (e.floats(), a.floats()) else { continue };
        for i in 0..x.len() {
            let bound = e.err(i) + a.err(i);
            let same = (x[i] - y[i]).abs() <= bound || x[i] == y[i] || (x[i].is_nan() && y[i].is_nan());
            assert!(same, "{} is not {} within {bound}\n{before}\n{after}", y[i], x[i]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The passes keep what random graphs compute.
    #[test]
    fn random_graphs_keep_their_meaning(seed: u64, size in 1usize..25) {
        let (before, inputs) = random_graph(seed, size);
        let mut after = before.clone();
        run(&mut after, Options::default(), &mut |_, _, _, _| {}).unwrap();
        after.verify().unwrap();
        assert_same_on(&before, &after, &inputs);
    }
}

#[test]
fn the_observer_sees_every_pass_and_its_changes() {
    let text = "graph \"g\" { in v0 \"x\": f32[2] v1 \"y\": f32[2] = cast v0 {to: f32} v2 \"z\": f32[2] = exp v1 out \"z\" v2 }";
    let mut graph = Graph::parse(text, None).unwrap();
    let mut seen = Vec::new();
    let report = run(&mut graph, Options::default(), &mut |name, _, changed, _| seen.push((name.to_owned(), changed)));
    let runs: Vec<(String, bool)> = report.unwrap().runs.iter().map(|r| (r.pass.to_owned(), r.changes > 0)).collect();
    assert_eq!(runs, seen);
    let changed: Vec<&str> = seen.iter().filter(|s| s.1).map(|s| s.0.as_str()).collect();
    assert_eq!(changed, ["canonicalize", "compact"]);
}

#[test]
fn a_broken_graph_is_reported_in_debug_builds() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", TensorType::scalar(DType::F32));
    graph.add_output("y", x);
    graph.add_output("y", x);
    let error = run(&mut graph, Options::default(), &mut |_, _, _, _| {}).unwrap_err();
    assert_eq!(error.pass, "input");
}
