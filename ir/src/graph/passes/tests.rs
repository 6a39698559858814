//! Tests of passes, as text before and after. Every pair is also evaluated on the same random inputs.

mod fusions;
mod simple;

use super::{Graph, Options, compact, run};
use crate::graph::interp::evaluate;
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
        let mut state = seed;
        let inputs: Vec<Tensor> = before.inputs.iter().map(|&v| random_tensor(before.ty(v), &mut state)).collect();
        let expected = evaluate(before, &inputs).unwrap();
        let actual = evaluate(after, &inputs).unwrap();
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
}

/// Small numbers: floats in -2 to 2, integers and truth values 0 or 1.
fn random_tensor(ty: &TensorType, state: &mut u64) -> Tensor {
    let mut next = || {
        // Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bytes: Vec<u8> = (0..ty.elems())
        .flat_map(|_| {
            let r = next();
            match ty.dtype() {
                DType::F32 => (((r >> 40) as f32 / 4_194_304.0) - 2.0).to_le_bytes().to_vec(),
                _ => (r & 1).to_le_bytes()[..ty.dtype().bytes() as usize].to_vec(),
            }
        })
        .collect();
    Tensor::new(ty.clone(), bytes.into()).unwrap()
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
