//! Naive programs compute what graphs mean: the tile interpreter against the graph interpreter, operator by operator.

use crate::graph::interp::evaluate;
use proptest::prelude::*;

use crate::graph::{Graph, Value};
use crate::lower::lower;
use crate::testing::random_graph;
use crate::tile::{Scalar, StmtOp, interp, math};
use crate::types::{DType, Tensor, TensorType};

/// Lowers `graph "g" { body }` and runs it on a few inputs.
fn check(body: &str) {
    let text = format!("graph \"g\" {{ {body} }}");
    let graph = Graph::parse(&text, None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    graph.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
    for seed in 1..4 {
        let inputs: Vec<Tensor> =
            graph.inputs.iter().enumerate().map(|(i, &v)| numbers(&graph, v, seed * 7 + i as u64)).collect();
        check_on(&graph, &inputs);
    }
}

/// Runs a graph and its naive program on the same inputs.
fn check_on(graph: &Graph, inputs: &[Tensor]) {
    let program = lower(graph).unwrap();
    let expected = evaluate(graph, inputs).unwrap();
    let actual = interp::run(&program, inputs).unwrap_or_else(|e| panic!("{e}\n{graph}"));
    assert_eq!(expected.len(), actual.len());
    for (e, a) in expected.iter().zip(&actual) {
        let comparison = e.check(a).unwrap();
        assert_eq!(comparison.outside, 0, "{comparison:?}\n{graph}");
    }
    // Again with functions as they are compiled, for both kinds of machines.
    for fused in [false, true] {
        let mut expanded = program.clone();
        math::expand(&mut expanded, fused);
        let products_agree = expanded.kernels.values().flat_map(|k| k.stmts.values()).all(|s| match &s.op {
            StmtOp::Mma { acc, fused: one_rounding, .. } => {
                *one_rounding == (fused && expanded.buffers[acc.buffer].dtype.is_float())
            }
            _ => true,
        });
        assert!(products_agree);
        let actual = interp::run(&expanded, inputs).unwrap_or_else(|e| panic!("{e}\n{graph}"));
        for (e, a) in expected.iter().zip(&actual) {
            let comparison = e.check(a).unwrap();
            assert_eq!(comparison.outside, 0, "expanded, fused {fused}: {comparison:?}\n{graph}");
        }
    }
}

/// Quarters in -2 to 2 with no two neighbors equal; integers and truth values 0 or 1.
fn numbers(graph: &Graph, value: Value, seed: u64) -> Tensor {
    let ty: &TensorType = graph.ty(value);
    let bytes: Vec<u8> = (0..ty.elems())
        .flat_map(|i| {
            let r = (i + seed) * 7 % 17;
            match ty.dtype() {
                DType::F32 => (r as f32 / 4.0 - 2.0).to_le_bytes().to_vec(),
                _ => (r % 2).to_le_bytes()[..ty.dtype().bytes() as usize].to_vec(),
            }
        })
        .collect();
    Tensor::new(ty.clone(), bytes.into()).unwrap()
}

#[test]
fn elementwise_operators() {
    for op in
        ["neg", "abs", "exp", "erf", "tanh", "sigmoid", "sin", "cos", "round", "floor", "ceil", "gelu_erf", "gelu_tanh"]
    {
        check(&format!(r#"in v0 "x": f32[2, 3] v1 "y": f32[2, 3] = {op} v0 out "y" v1"#));
    }
    for op in ["recip", "log", "sqrt"] {
        check(&format!(r#"in v0 "x": f32[2, 3] v1 "p": f32[2, 3] = exp v0 v2 "y": f32[2, 3] = {op} v1 out "y" v2"#));
    }
    for op in ["add", "sub", "mul", "max", "min"] {
        check(&format!(r#"in v0 "x": f32[2, 1] in v1 "z": f32[3] v2 "y": f32[2, 3] = {op} v0, v1 out "y" v2"#));
        check(&format!(r#"in v0 "x": i32[2, 1] in v1 "z": i32[3] v2 "y": i32[2, 3] = {op} v0, v1 out "y" v2"#));
    }
    for op in ["eq", "lt", "le"] {
        check(&format!(r#"in v0 "x": f32[2, 1] in v1 "z": f32[3] v2 "y": bool[2, 3] = {op} v0, v1 out "y" v2"#));
    }
    for op in ["and", "or", "xor", "eq"] {
        check(&format!(r#"in v0 "x": bool[2, 1] in v1 "z": bool[3] v2 "y": bool[2, 3] = {op} v0, v1 out "y" v2"#));
    }
    check(r#"in v0 "x": f32[2, 3] const v1 "c": f32[1] = [1.5] v2 "y": f32[2, 3] = mul v0, v1 out "y" v2"#);
    check(
        r#"in v0 "c": bool[3] in v1 "a": f32[2, 1] in v2 "b": f32[] v3 "y": f32[2, 3] = select v0, v1, v2 out "y" v3"#,
    );
    check(
        r#"in v0 "x": f32[2, 3] v1 "y": i32[2, 3] = cast v0 {to: i32} v2 "z": bool[2, 3] = cast v1 {to: bool} out "y" v1 out "z" v2"#,
    );
    check(
        r#"in v0 "x": f32[2, 3, 2] in v1 "s": f32[3] in v2 "b": f32[3] in v3 "m": f32[3] in v5 "a": f32[3] v4 "v": f32[3] = abs v5
        v6 "y": f32[2, 3, 2] = batch_norm v0, v1, v2, v3, v4 {epsilon: 0.5} out "y" v6"#,
    );
}

#[test]
fn products() {
    check(r#"in v0 "a": f32[2, 1, 3, 4] in v1 "b": f32[3, 4, 5] v2 "y": f32[2, 3, 3, 5] = matmul v0, v1 out "y" v2"#);
    check(
        r#"in v0 "a": f32[3, 4] in v1 "b": f32[5, 4] v3 "t": f32[4, 5] = transpose v1 {perm: [1, 0]}
        v2 "y": f32[3, 5] = matmul v0, v3 out "y" v2"#,
    );
    check(r#"in v0 "a": f32[3, 0] in v1 "b": f32[0, 5] v2 "y": f32[3, 5] = matmul v0, v1 out "y" v2"#);
}

#[test]
fn windows() {
    for (x, w, attributes, y) in [
        (
            "2, 4, 5, 6",
            "6, 2, 3, 2",
            "strides: [2, 1], dilations: [1, 2], pads: [[1, 0], [2, 1]], groups: 2",
            "2, 6, 2, 7",
        ),
        (
            "1, 3, 4, 4",
            "6, 1, 3, 3",
            "strides: [1, 1], dilations: [1, 1], pads: [[1, 1], [1, 1]], groups: 3",
            "1, 6, 4, 4",
        ),
        (
            "1, 3, 4, 4",
            "2, 3, 1, 1",
            "strides: [1, 1], dilations: [1, 1], pads: [[0, 0], [0, 0]], groups: 1",
            "1, 2, 4, 4",
        ),
    ] {
        check(&format!(
            r#"in v0 "x": f32[{x}] in v1 "w": f32[{w}] v3 "y": f32[{y}] = conv v0, v1 {{{attributes}}} out "y" v3"#
        ));
    }
    check(
        r#"in v0 "x": f32[1, 12] in v1 "w": f32[2, 3, 2] in v2 "b": f32[2] v4 "r": f32[1, 3, 4] = reshape v0 {shape: [1, 3, 4]}
        v3 "y": f32[1, 2, 5] = conv v4, v1, v2 {strides: [1], dilations: [1], pads: [[1, 1]], groups: 1} out "y" v3"#,
    );
    for pool in ["pool_max", "pool_mean", "pool_mean_padded"] {
        check(&format!(
            r#"in v0 "x": f32[1, 2, 5, 4] v1 "y": f32[1, 2, 3, 4] =
            {pool} v0 {{kernel: [3, 2], strides: [2, 1], dilations: [1, 1], pads: [[1, 1], [0, 1]]}} out "y" v1"#
        ));
    }
    check(
        r#"in v0 "x": i32[1, 2, 5] v1 "y": i32[1, 2, 5] = pool_max v0 {kernel: [3], strides: [1], dilations: [1], pads: [[1, 1]]} out "y" v1"#,
    );
}

#[test]
fn reductions() {
    for op in ["sum", "mean", "max", "min", "prod"] {
        check(&format!(
            r#"in v0 "x": f32[2, 3, 4] v1 "y": f32[2, 4] = reduce_{op} v0 {{axes: [1], keep_dims: false}} out "y" v1"#
        ));
        check(&format!(
            r#"in v0 "x": f32[2, 3, 4] v1 "y": f32[1, 3, 1] = reduce_{op} v0 {{axes: [0, 2], keep_dims: true}} out "y" v1"#
        ));
    }
    check(r#"in v0 "x": i64[5] v1 "y": i64[] = reduce_sum v0 {axes: [0], keep_dims: false} out "y" v1"#);
}

#[test]
fn rows() {
    for axis in 0..3 {
        check(&format!(r#"in v0 "x": f32[2, 3, 4] v1 "y": f32[2, 3, 4] = softmax v0 {{axis: {axis}}} out "y" v1"#));
    }
    for (axis, dims) in [(1, "3, 4"), (2, "4")] {
        check(&format!(
            r#"in v0 "x": f32[2, 3, 4] in v1 "s": f32[{dims}] in v2 "b": f32[{dims}]
            v3 "y": f32[2, 3, 4] = layer_norm v0, v1, v2 {{axis: {axis}, epsilon: 1e-5}} out "y" v3"#
        ));
    }
    check(
        r#"in v0 "q": f32[2, 2, 3, 4] in v1 "k": f32[2, 2, 5, 4] in v2 "v": f32[2, 2, 5, 6] in v3 "b": f32[2, 1, 1, 5]
        v4 "y": f32[2, 2, 3, 6] = attention v0, v1, v2, v3 {scale: 0.5} out "y" v4"#,
    );
}

#[test]
fn heads_split_and_merged() {
    check(
        r#"in v0 "x": f32[2, 3, 8]
        v1 "r": f32[2, 3, 4, 2] = reshape v0 {shape: [2, 3, 4, 2]} v2 "t": f32[2, 4, 3, 2] = transpose v1 {perm: [0, 2, 1, 3]}
        v3 "a": f32[2, 4, 3, 2] = attention v2, v2, v2 {scale: 1.0} v4 "u": f32[2, 3, 4, 2] = transpose v3 {perm: [0, 2, 1, 3]}
        v5 "m": f32[2, 3, 8] = reshape v4 {shape: [2, 3, 8]} out "m" v5"#,
    );
}

#[test]
fn movement() {
    check(
        r#"in v0 "a": f32[2, 3] in v1 "b": f32[2, 1] v2 "y": f32[2, 7] = concat v0, v1, v0 {axis: 1} v3 "z": f32[7, 2] = transpose v2 {perm: [1, 0]} out "z" v3"#,
    );
    check(
        r#"in v0 "x": f32[2, 5] v1 "s": f32[1, 3] = slice v0 {starts: [1, 4], sizes: [1, 3], steps: [1, -2]}
        v2 "p": f32[4, 4] = pad v1 {pads: [[1, 2], [0, 1]], value: 2.5} out "p" v2"#,
    );
    check(
        r#"in v0 "x": f32[2, 1, 3] v1 "e": f32[4, 2, 5, 3] = expand v0 {shape: [4, 2, 5, 3]} v2 "r": f32[40, 3] = reshape v1 {shape: [40, 3]}
        v3 "y": f32[40, 3] = exp v2 out "y" v3 out "e" v1"#,
    );
    check(
        r#"in v0 "x": f32[2, 3, 4] in v1 "i": i64[2, 5] v2 "y": f32[2, 2, 5, 4] = gather v0, v1 {axis: 1} out "y" v2"#,
    );
    check(
        r#"in v0 "x": f32[6, 4] in v1 "i": i32[4] v3 "s": i32[2] = slice v1 {starts: [1], sizes: [2], steps: [2]}
        v4 "r": f32[2, 3, 4] = reshape v0 {shape: [2, 3, 4]} v2 "y": f32[2, 2, 4] = gather v4, v3 {axis: 1} out "y" v2"#,
    );
    check(
        r#"in v0 "x": f32[6] in v1 "i": i64[2, 2] v3 "n": i64[2, 2] = neg v1 v2 "y": f32[2, 2] = gather v0, v3 {axis: 0} out "y" v2"#,
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs(seed: u64, size in 1usize..25) {
        let (graph, inputs) = random_graph(seed, size);
        check_on(&graph, &inputs);
    }
}

#[test]
fn remainders_of_floats_are_exact() {
    let mut values = vec![0.0, 1.0, 1.5, 3.0, 0.1, 7.25, 1e-3, 1e10, 16_777_213.0, 1e38, f64::from(f32::MAX), 1e-38];
    values.extend([f64::from(f32::MIN_POSITIVE), f64::from(f32::from_bits(1)), f64::from(f32::from_bits(3)), 5e-42]);
    values.extend([f64::INFINITY, f64::NAN, 1e300, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(3), 5e-310]);
    values.extend(values.clone().iter().map(|v| -v));
    let n = values.len() as u64;
    for dtype in [DType::F32, DType::F64] {
        let of = |shape: &[u64]| {
            let size = dtype.bytes() as usize;
            let bytes = values.iter().flat_map(|&v| Scalar::from_f64(dtype, v).bits.to_le_bytes()[..size].to_vec());
            let bytes: Vec<u8> = bytes.collect();
            Tensor::new(TensorType::new(dtype, shape).unwrap(), bytes.into()).unwrap()
        };
        let text = format!(
            "graph \"g\" {{ in v0 \"a\": {dtype}[{n}, 1] in v1 \"b\": {dtype}[{n}] \
             v2 \"y\": {dtype}[{n}, {n}] = rem v0, v1 out \"y\" v2 }}"
        );
        let graph = Graph::parse(&text, None).unwrap();
        let inputs = [of(&[n, 1]), of(&[n])];
        let expected = evaluate(&graph, &inputs).unwrap();
        assert!((0..expected[0].ty().elems() as usize).all(|i| expected[0].err(i) == 0.0));
        check_on(&graph, &inputs);
    }
}

#[test]
fn the_best_element_may_be_a_state() {
    check(
        r#"in v0 "s": f32[1] in v1 "x": f32[3, 7]
        v2 "": f32[1], v3 "": i64[3, 1] = scan v0, v1 {trips: 3, reverse: false, states: 1, sequences: 1} @ "scan" graph "b" {
            in v0 "s": f32[1] in v1 "row": f32[7]
            v2 "joined": f32[8] = concat v1, v0 {axis: 0}
            v3 "best": f32[1], v4 "where": i64[1] = top_k v2 {k: 1, axis: 0, largest: true}
            out "s" v3 out "i" v4
        }
        out "best" v2 out "where" v3"#,
    );
}
