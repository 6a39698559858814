//! Tests of the text form of graphs: every operator's spelling, round trips, and refused texts.

use cranelift_entity::EntityRef;

use crate::graph::{Graph, Node, UnaryOp, Value};
use crate::text::constant::SideConsts;

const EVERY_OPERATOR: &str = r#"graph "every \"operator\"" {
  in v0 "x": f32[2, 3, 4]
  in v1 "image": f32[1, 4, 5, 5]
  in v2 "ids": i64[2]
  in v3 "mask": bool[4]
  const v4 "w": f32[4, 2] = [0.5, -1.0, 0.1, -0.0, inf, nan #7fc00000, 1e-10, 3.4028235e38]
  const v5 "kernel": f32[2, 2, 1, 3] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
  const v6 "": f32[2] = [1.0, 2.0]
  const v7 "unit": f32[4] = [1.0, 1.0, 1.0, 1.0]
  const v8 "table": f32[20, 1] = #dd822fb801e40db2719779ecefd4a2c3
  v9 "product": f32[2, 3, 2] = matmul v0, v4
  v10 "": f32[1, 2, 3, 3] = conv v1, v5, v6 {strides: [2, 1], dilations: [1, 1], pads: [[0, 1], [0, 0]], groups: 2} @ "c"
  v11 "p": f32[1, 4, 2, 2] = pool_max v1 {kernel: [2, 2], strides: [2, 2], dilations: [1, 1], pads: [[0, 0], [0, 0]]}
  v12 "p": f32[1, 4, 2, 2] = pool_mean v1 {kernel: [2, 2], strides: [2, 2], dilations: [1, 1], pads: [[0, 0], [0, 0]]}
  v13 "p": f32[1, 4, 2, 2] = pool_mean_padded v1 {kernel: [2, 2], strides: [2, 2], dilations: [1, 1], pads: [[0, 0], [0, 0]]}
  v14 "s": f32[2, 4] = reduce_sum v0 {axes: [1], keep_dims: false}
  v15 "s": f32[1, 3, 1] = reduce_mean v0 {axes: [0, 2], keep_dims: true}
  v16 "s": f32[2, 3, 4] = reduce_max v0 {axes: [], keep_dims: true}
  v17 "s": f32[2, 4] = reduce_min v0 {axes: [1], keep_dims: false}
  v18 "s": f32[2, 4] = reduce_prod v0 {axes: [1], keep_dims: false}
  v19 "s": f32[2, 3, 4] = softmax v0 {axis: 2}
  v20 "n": f32[2, 3, 4] = layer_norm v0, v7, v7 {axis: 2, epsilon: 1e-5}
  v21 "n": f32[1, 4, 5, 5] = batch_norm v1, v7, v7, v7, v7 {epsilon: 0.0}
  v22 "g": f32[2, 3, 4] = gelu_erf v0
  v23 "g": f32[2, 3, 4] = gelu_tanh v0
  v24 "a": f32[1, 4, 5, 5] = attention v1, v1, v1 {scale: 0.125}
  v25 "r": f32[24] = reshape v0 {shape: [24]}
  v26 "t": f32[4, 2, 3] = transpose v0 {perm: [2, 0, 1]}
  v27 "e": f32[7, 2, 3, 4] = expand v0 {shape: [7, 2, 3, 4]}
  v28 "c": f32[2, 3, 8] = concat v0, v0 {axis: 2}
  v29 "l": f32[1, 3, 2] = slice v0 {starts: [1, 2, 0], sizes: [1, 3, 2], steps: [1, -1, 2]}
  v30 "d": f32[2, 4, 6] = pad v0 {pads: [[0, 0], [1, 0], [2, 0]], value: -inf}
  v31 "g": f32[2, 1] = gather v8, v2 {axis: 0}
  v32 "w": f32[2, 3, 4] = select v3, v0, v7
  v33 "i": i32[2, 3, 4] = cast v0 {to: i32}
  v34 "b": bool[2, 3, 4] = lt v0, v7
  v35 "b": bool[4] = not v3
  v36 "x": f32[2, 3, 4] = exp v0
  v37 "m": i64[2, 1, 4] = arg_max v0 {axis: 1, last: false}
  v38 "m": i64[2, 1, 4] = arg_min v0 {axis: 1, last: true}
  v39 "c": f32[2, 3, 4] = cumsum v0 {axis: 1, exclusive: true, reverse: false}
  v40 "g": f32[2, 1, 4] = gather_elements v0, v37 {axis: 1}
  v41 "g": f32[4] = gather_nd v0, v2 {batch_dims: 0}
  v42 "s": f32[2, 3, 4] = scatter_elements v0, v37, v40 {axis: 1, combine: max}
  v43 "s": f32[2, 3, 4] = scatter_nd v0, v2, v41 {combine: replace}
  v44 "k": f32[2, 2, 4], v45 "i": i64[2, 2, 4] = top_k v0 {k: 2, axis: 1, largest: true}
  out "y" v36
  out "z" v0
  out "y\n" v36
}
"#;

fn table() -> SideConsts {
    let mut side = SideConsts::new();
    side.add(&crate::types::Tensor::from_f32([20], &[1.0; 20]).unwrap());
    side
}

#[test]
fn every_operator_survives() {
    let graph = Graph::parse(EVERY_OPERATOR, Some(&table())).unwrap();
    graph.verify().unwrap();
    assert_eq!(graph.to_string(), EVERY_OPERATOR);
    assert_eq!(graph.side_consts(), table());
    // A NaN in the constants is held as bytes, so equality holds.
    assert_eq!(Graph::parse(&graph.to_string(), Some(&table())).unwrap(), graph);
}

#[test]
fn printing_is_canonical() {
    let text = r#"graph "g" { in v7 "x": f32[2] // an input
        const v9 "unused": f32[] = [1.0]
        v8 "a": f32[2] = exp v7   const v1 "c": f32[] = [2]
        v3 "b": f32[2] = add v8, v1 out "y" v3 }"#;
    let printed = Graph::parse(text, None).unwrap().to_string();
    let expected = "graph \"g\" {\n  in v0 \"x\": f32[2]\n  const v1 \"c\": f32[] = [2.0]\n  \
        v2 \"a\": f32[2] = exp v0\n  v3 \"b\": f32[2] = add v2, v1\n  out \"y\" v3\n}\n";
    assert_eq!(printed, expected);
    assert_eq!(Graph::parse(&printed, None).unwrap().to_string(), printed);
}

#[test]
fn broken_graphs_print() {
    let mut graph = Graph::parse(EVERY_OPERATOR, Some(&table())).unwrap();
    graph.order.reverse();
    graph.order.push(Node::new(4_000_000_000));
    graph.inputs.push(Value::new(4_000_000_000));
    graph.outputs[0].value = Value::new(4_000_000_000);
    graph.nodes[Node::new(0)].inputs[0] = Value::new(4_000_000_000);
    graph.nodes[Node::new(1)].outputs.clear();
    let text = graph.to_string();
    assert!(text.contains("undefined_v4000000000") && text.contains("undefined_n4000000000"), "{text}");
}

#[track_caller]
fn refused(text: &str, line: usize, column: usize, message: &str) {
    let error = Graph::parse(text, None).unwrap_err();
    assert_eq!((error.line, error.column, error.message.as_str()), (line, column, message));
}

#[test]
fn errors_point_at_the_guilty_token() {
    let with = |statement: &str| format!("graph \"g\" {{\n in v0 \"x\": f32[2, 2]\n {statement}\n}}");
    refused("", 1, 1, "expected `graph`, found the end");
    refused("graph \"g\" {", 1, 12, "expected a handle `v0`, found the end");
    refused("graph \"g\" {} x", 1, 14, "expected the end, found `x`");
    refused(&with("in v0 \"y\": f32[]"), 3, 5, "v0 is defined twice");
    refused(&with("in v1 \"y\": f33[]"), 3, 13, "expected an element type, found `f33`");
    refused(
        &with("in v1 \"y\": f32[18446744073709551616]"),
        3,
        17,
        "18446744073709551616 is not an integer of 64 bits",
    );
    refused(&with("const v1 \"y\": f32[2] = [1.0]"), 3, 25, "f32[2] needs 8 bytes, but 4 are given");
    refused(&with("const v1 \"y\": f32[2] = #12"), 3, 25, "the file of constants has no `#12`");
    refused(&with("v1 \"y\": f32[2, 2] = exq v0"), 3, 22, "there is no operator `exq`");
    refused(&with("v1 \"y\": f32[2, 2] = exp v1"), 3, 26, "v1 is not defined before");
    refused(&with("v1 \"y\": f32[2, 2] = exp"), 3, 22, "takes 1 operands, but 0 are given");
    refused(&with("v1 \"y\": f32[2] = exp v0"), 3, 10, "the operator computes f32[2, 2], not f32[2]");
    refused(&with("v1 \"y\": f32[2, 2] = softmax v0 {axis: 2}"), 3, 22, "dimension 2 of a tensor of rank 2");
    refused(&with("v1 \"y\": f32[2, 2] = softmax v0"), 4, 1, "expected `{`, found `}`");
    refused(&with("v1 \"y\": f32[2, 2] = softmax v0 {axes: 1}"), 3, 34, "expected `axis`, found `axes`");
    refused(&with("v1 \"y\": f32[2, 2] = softmax v0 {axis: 1, axis: 1}"), 3, 41, "expected `}`, found `,`");
    refused(&with("out y v0"), 3, 6, "expected a quoted string, found `y`");
}

#[test]
fn truncated_texts_are_refused() {
    let end = EVERY_OPERATOR.trim_end().len();
    for length in (0..end).filter(|&n| EVERY_OPERATOR.is_char_boundary(n)) {
        Graph::parse(&EVERY_OPERATOR[..length], Some(&table())).unwrap_err();
    }
}

#[test]
fn mangled_texts_do_not_panic() {
    let bytes = EVERY_OPERATOR.as_bytes();
    let mut accepted = 0;
    for at in (0..bytes.len()).step_by(5) {
        for by in [b'9', b'"', b'v', b'\\'] {
            let mut mangled = bytes.to_vec();
            mangled[at] = by;
            let Ok(text) = String::from_utf8(mangled) else { continue };
            accepted += usize::from(Graph::parse(&text, Some(&table())).is_ok());
        }
    }
    assert!(accepted > 0, "some changes of names and numbers must be harmless");
}

#[test]
fn node_names_are_kept() {
    let graph = Graph::parse(EVERY_OPERATOR, Some(&table())).unwrap();
    assert_eq!(graph.nodes[Node::new(1)].name, "c");
    assert_eq!(graph.nodes[Node::new(0)].name, "product");
    assert_eq!(graph.nodes[Node::new(27)].op, crate::graph::Op::Unary(UnaryOp::Exp));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Printing and reading is the identity up to numbering, and the second printing is the first.
    #[test]
    fn random_graphs_survive(seed: u64, size in 0usize..20) {
        let (graph, inputs) = crate::testing::random_graph(seed, size);
        let side = graph.side_consts();
        let text = graph.to_string();
        let read = Graph::parse(&text, Some(&side)).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(Graph::parse(&read.to_string(), Some(&read.side_consts())).unwrap(), read);
        // As text, in which a NaN equals itself.
        let outputs = |g: &Graph| format!("{:?}", crate::graph::interp::evaluate(g, &inputs).unwrap());
        assert!(outputs(&read) == outputs(&graph));
    }
}
