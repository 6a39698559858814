//! Constant folding, canonical forms, equal values, dead nodes.

use super::{after, ops};
use crate::graph::passes::{canonicalize, dead, equal, fold};

const IN: &str = r#"in v0 "x": f32[2, 3]"#;

fn canonical(statements: &str) -> String {
    after(canonicalize::run, &format!("{IN} {statements}"))
}

#[test]
fn identities_disappear() {
    for identity in [
        r#"const v1 "c": f32[3] = [1.0, 1.0, 1.0] v2 "y": f32[2, 3] = mul v0, v1"#,
        r#"const v1 "c": f32[] = [1.0] v2 "y": f32[2, 3] = mul v1, v0"#,
        r#"const v1 "c": f32[] = [0.0] v2 "y": f32[2, 3] = add v0, v1"#,
        r#"const v1 "c": f32[] = [0.0] v2 "y": f32[2, 3] = sub v0, v1"#,
        r#"const v1 "c": f32[] = [1.0] v2 "y": f32[2, 3] = div v0, v1"#,
        r#"const v1 "c": f32[] = [1.0] v2 "y": f32[2, 3] = pow v0, v1"#,
        r#"v2 "y": f32[2, 3] = cast v0 {to: f32}"#,
        r#"v1 "t": f32[6] = reshape v0 {shape: [6]} v2 "y": f32[2, 3] = reshape v1 {shape: [2, 3]}"#,
        r#"v1 "t": f32[3, 2] = transpose v0 {perm: [1, 0]} v2 "y": f32[2, 3] = transpose v1 {perm: [1, 0]}"#,
        r#"v2 "y": f32[2, 3] = slice v0 {starts: [0, 0], sizes: [2, 3], steps: [1, 1]}"#,
        r#"v2 "y": f32[2, 3] = expand v0 {shape: [2, 3]}"#,
        r#"v2 "y": f32[2, 3] = concat v0 {axis: 1}"#,
        r#"v2 "y": f32[2, 3] = pad v0 {pads: [[0, 0], [0, 0]], value: 1.0}"#,
        r#"v1 "t": f32[2, 3] = neg v0 v2 "y": f32[2, 3] = neg v1"#,
        r#"v2 "y": f32[2, 3] = reduce_sum v0 {axes: [], keep_dims: true}"#,
        r#"const v1 "c": bool[] = [1] v3 "n": f32[2, 3] = neg v0 v2 "y": f32[2, 3] = select v1, v0, v3"#,
    ] {
        let end = r#" v9 "z": f32[2, 3] = exp v2 out "z" v9"#;
        assert_eq!(canonical(&format!("{identity}{end}")), "v1 \"z\": f32[2, 3] = exp v0", "{identity}");
    }
}

#[test]
fn what_only_looks_like_an_identity_stays() {
    for (statement, op) in [
        (r#"v1 "y": f32[2, 3] = slice v0 {starts: [1, 0], sizes: [2, 3], steps: [-1, 1]} out "y" v1"#, "slice"),
        (r#"const v2 "c": f32[1, 1, 1] = [1.0] v1 "y": f32[1, 2, 3] = mul v0, v2 out "y" v1"#, "mul"),
        (r#"const v2 "c": f32[3] = [1.0, 1.0, 2.0] v1 "y": f32[2, 3] = mul v0, v2 out "y" v1"#, "mul"),
        (r#"const v2 "c": f32[] = [0.0] v1 "y": f32[2, 3] = sub v2, v0 out "y" v1"#, "sub"),
        (r#"const v2 "c": f32[] = [3.0] v1 "y": f32[2, 3] = div v0, v2 out "y" v1"#, "div"),
        (r#"const v2 "c": f32[] = [4.0] v1 "y": f32[2, 3] = pow v0, v2 out "y" v1"#, "pow"),
    ] {
        assert_eq!(ops(canonicalize::run, &format!("{IN} {statement}")), op);
    }
}

#[test]
fn divisions_with_exact_reciprocals_become_products() {
    let text = r#"const v1 "c": f32[] = [8.0] v2 "y": f32[2, 3] = div v0, v1 out "y" v2"#;
    assert_eq!(canonical(text), "v2 \"y\": f32[2, 3] = mul v0, v1");
    let text = r#"const v1 "c": f32[] = [1.0] v2 "y": f32[2, 3] = div v1, v0 out "y" v2"#;
    assert_eq!(canonical(text), "v1 \"y\": f32[2, 3] = recip v0");
}

#[test]
fn powers_become_products_and_roots() {
    for (exponent, expected) in
        [("2.0", "mul"), ("3.0", "mul mul"), ("0.5", "sqrt"), ("-1.0", "recip"), ("-0.5", "sqrt recip")]
    {
        let text = format!(
            r#"{IN} const v1 "c": f32[] = [{exponent}] v3 "a": f32[2, 3] = exp v0 v2 "y": f32[2, 3] = pow v3, v1 out "y" v2"#
        );
        assert_eq!(ops(canonicalize::run, &text), format!("exp {expected}"));
    }
}

#[test]
fn views_of_views_become_one() {
    let text = r#"v1 "a": f32[3, 2] = reshape v0 {shape: [3, 2]} v2 "b": f32[6] = reshape v1 {shape: [6]} out "b" v2"#;
    assert_eq!(canonical(text), "v1 \"b\": f32[6] = reshape v0 {shape: [6]}");
    let text = r#"in v5 "w": f32[2, 3, 4]
        v1 "a": f32[4, 2, 3] = transpose v5 {perm: [2, 0, 1]} v2 "b": f32[2, 4, 3] = transpose v1 {perm: [1, 0, 2]} out "b" v2"#;
    assert_eq!(canonical(text), "v2 \"b\": f32[2, 4, 3] = transpose v1 {perm: [0, 2, 1]}");
}

#[test]
fn gathers_of_ranges_are_slices() {
    let text = r#"const v1 "i": i64[] = [-1] v2 "y": f32[2] = gather v0, v1 {axis: 1} out "y" v2"#;
    assert_eq!(
        canonical(text),
        "v1 \"\": f32[2, 1] = slice v0 {starts: [0, 2], sizes: [2, 1], steps: [1, 1]} @ \"y\"\n\
         v2 \"y\": f32[2] = reshape v1 {shape: [2]}"
    );
    let text = r#"const v1 "i": i64[1, 2] = [2, 0] v2 "y": f32[2, 1, 2] = gather v0, v1 {axis: 1} out "y" v2"#;
    assert!(canonical(text).contains("slice v0 {starts: [0, 2], sizes: [2, 2], steps: [1, -2]}"));
    let text = r#"const v1 "i": i64[3] = [0, 2, 1] v2 "y": f32[2, 3] = gather v0, v1 {axis: 1} out "y" v2"#;
    assert!(canonical(text).contains("gather"));
}

#[test]
fn constants_fold_and_their_users_keep_names() {
    let text = r#"in v0 "x": f32[2] const v1 "a": f32[2] = [1.0, 2.0] const v2 "b": f32[2] = [2.0, 2.0]
        v3 "c": bool[2] = lt v1, v2 v4 "m": f32[2] = select v3, v0, v1 out "m" v4 out "c" v3"#;
    assert_eq!(after(fold::run, text), "v3 \"m\": f32[2] = select v1, v0, v2");
}

#[test]
fn growing_views_are_not_folded() {
    let text = r#"in v0 "x": f32[2, 3] const v1 "a": f32[3] = [1.0, 2.0, 3.0]
        v2 "b": f32[3] = neg v1 v3 "c": f32[2, 3] = expand v2 {shape: [2, 3]} v4 "y": f32[2, 3] = mul v0, v3 out "y" v4"#;
    assert_eq!(ops(fold::run, text), "expand mul");
    let small = r#"in v0 "x": f32[2] const v1 "a": f32[1, 2] = [1.0, 2.0]
        v2 "b": f32[2] = reshape v1 {shape: [2]} v4 "y": f32[2] = mul v0, v2 out "y" v4"#;
    assert_eq!(ops(fold::run, small), "mul");
}

#[test]
fn large_transposes_and_results_are_not_folded() {
    use crate::graph::{Graph, Op, UnaryOp};
    use crate::types::{DType, Tensor, TensorType};
    let mut graph = Graph::new("g");
    let weights = Tensor::from_f32([256, 256], &vec![0.5; 256 * 256]).unwrap();
    let w = graph.add_const("w", weights);
    let x = graph.add_input("x", TensorType::new(DType::F32, [1, 256]).unwrap());
    let t = graph.add_node("t", Op::Transpose { perm: vec![1, 0] }, &[w]).unwrap();
    let flat = graph.add_node("flat", Op::Reshape { shape: vec![1, 256, 256] }, &[t]).unwrap();
    let y = graph.add_node("y", Op::MatMul, &[x, flat]).unwrap();
    graph.add_output("y", y);
    let one = graph.add_const("one", Tensor::scalar_f32(1.0));
    let huge = graph.add_node("huge", Op::Expand { shape: vec![1 << 30] }, &[one]).unwrap();
    let huge = graph.add_node("exp", Op::Unary(UnaryOp::Exp), &[huge]).unwrap();
    graph.add_output("huge", huge);
    assert_eq!(fold::run(&mut graph), 0);
    assert_eq!(graph.order.len(), 5);
}

#[test]
fn indices_out_of_range_are_left_alone() {
    use crate::graph::{Graph, Op};
    use crate::types::Tensor;
    let mut graph = Graph::new("g");
    let table = graph.add_const("table", Tensor::from_f32([2], &[1.0, 2.0]).unwrap());
    let index = graph.add_const("index", Tensor::from_i64([1], &[2]).unwrap());
    let y = graph.add_node("y", Op::Gather { axis: 0 }, &[table, index]).unwrap();
    graph.add_output("y", y);
    assert_eq!((fold::run(&mut graph), canonicalize::run(&mut graph)), (0, 0));
}

#[test]
fn equal_values_become_one() {
    let text = r#"in v0 "x": f32[2] const v1 "a": f32[] = [2.0] const v2 "b": f32[] = [2.0]
        v3 "p": f32[2] = mul v0, v1 v4 "q": f32[2] = mul v0, v2 v5 "y": f32[2] = add v3, v4 out "y" v5 out "q" v4"#;
    assert_eq!(after(equal::run, text), "v2 \"p\": f32[2] = mul v0, v1\nv3 \"y\": f32[2] = add v2, v2");
}

#[test]
fn constants_of_different_sign_of_zero_stay_apart() {
    let text = r#"in v0 "x": f32[2] const v1 "a": f32[] = [0.0] const v2 "b": f32[] = [-0.0]
        v3 "p": f32[2] = div v0, v1 v4 "q": f32[2] = div v0, v2 out "p" v3 out "q" v4"#;
    assert_eq!(ops(equal::run, text), "div div");
}

#[test]
fn dead_nodes_go() {
    let text =
        r#"in v0 "x": f32[2] v1 "a": f32[2] = exp v0 v2 "b": f32[2] = neg v1 v3 "y": f32[2] = abs v0 out "y" v3"#;
    assert_eq!(after(dead::run, text), "v1 \"y\": f32[2] = abs v0");
}
