//! Fusions: what must match, and what must not.

use super::ops;
use crate::graph::passes::{Options, attention, canonicalize, conv, gelu, layer_norm, run};

const LN: &str = r#"in v0 "x": f32[2, 4] const v1 "eps": f32[] = [1e-5]
    const v2 "scale": f32[4] = [1.0, 2.0, 3.0, 4.0] const v3 "bias": f32[1, 4] = [0.5, 0.25, 0.125, 0.0]
    v10 "m": f32[2, 1] = reduce_mean v0 {axes: [1], keep_dims: true} v11 "d": f32[2, 4] = sub v0, v10
    v12 "q": f32[2, 4] = mul v11, v11 v13 "v": f32[2, 1] = reduce_mean v12 {axes: [1], keep_dims: true} "#;

fn layer_norm_of(rest: &str) -> String {
    ops(layer_norm::run, &format!("{LN} {rest}"))
}

#[test]
fn layer_norm_in_the_variants_that_exporters_write() {
    for rest in [
        // torch: (d / sqrt(v + eps)) * scale + bias
        r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v16 "n": f32[2, 4] = div v11, v15
           v17 "w": f32[2, 4] = mul v16, v2 v18 "y": f32[2, 4] = add v17, v3 out "y" v18"#,
        // commuted throughout
        r#"v14 "e": f32[2, 1] = add v1, v13 v15 "s": f32[2, 1] = sqrt v14 v16 "n": f32[2, 4] = div v11, v15
           v17 "w": f32[2, 4] = mul v2, v16 v18 "y": f32[2, 4] = add v3, v17 out "y" v18"#,
        // d * (1 / sqrt)
        r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v19 "r": f32[2, 1] = recip v15
           v16 "n": f32[2, 4] = mul v19, v11 v17 "w": f32[2, 4] = mul v16, v2 v18 "y": f32[2, 4] = add v17, v3 out "y" v18"#,
        // d * ((1 / sqrt) * scale)
        r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v19 "r": f32[2, 1] = recip v15
           v16 "w": f32[2, 4] = mul v19, v2 v17 "n": f32[2, 4] = mul v11, v16 v18 "y": f32[2, 4] = add v17, v3 out "y" v18"#,
        // x * w + (bias - m * w)
        r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v19 "r": f32[2, 1] = recip v15
           v16 "w": f32[2, 4] = mul v19, v2 v17 "n": f32[2, 4] = mul v0, v16 v20 "mw": f32[2, 4] = mul v10, v16
           v21 "b": f32[2, 4] = sub v3, v20 v18 "y": f32[2, 4] = add v17, v21 out "y" v18"#,
        // without scale and bias
        r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v16 "n": f32[2, 4] = div v11, v15 out "n" v16"#,
    ] {
        assert_eq!(layer_norm_of(rest), "layer_norm", "{rest}");
    }
}

#[test]
fn layer_norm_of_a_scale_alone_keeps_the_product() {
    let rest = r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v16 "n": f32[2, 4] = div v11, v15
           v17 "w": f32[2, 4] = mul v16, v2 out "w" v17"#;
    assert_eq!(layer_norm_of(rest), "layer_norm mul");
}

#[test]
fn layer_norm_does_not_match_when_someone_looks_inside() {
    let end = r#"v14 "e": f32[2, 1] = add v13, v1 v15 "s": f32[2, 1] = sqrt v14 v16 "n": f32[2, 4] = div v11, v15
           v17 "w": f32[2, 4] = mul v16, v2 v18 "y": f32[2, 4] = add v17, v3 out "y" v18"#;
    // the variance is an output; the centered value has another user
    for other in [r#"out "v" v13"#, r#"v30 "o": f32[2, 4] = exp v11 out "o" v30"#] {
        assert!(!layer_norm_of(&format!("{end} {other}")).contains("layer_norm"), "{other}");
    }
    // the normalized value has another user: what comes before it still fuses
    let seen = layer_norm_of(&format!(r#"{end} v30 "o": f32[2, 4] = exp v16 out "o" v30"#));
    assert_eq!(seen, "layer_norm mul add exp");
}

#[test]
fn layer_norm_does_not_match_other_means() {
    let text = r#"in v0 "x": f32[4, 4] const v1 "eps": f32[] = [1e-5]
        v10 "m": f32[4, 1] = reduce_mean v0 {axes: [1], keep_dims: true} v11 "d": f32[4, 4] = sub v0, v10
        v12 "q": f32[4, 4] = mul v11, v11 v13 "v": f32[1, 4] = reduce_mean v12 {axes: [0], keep_dims: true}
        v14 "e": f32[1, 4] = add v13, v1 v15 "s": f32[1, 4] = sqrt v14 v16 "n": f32[4, 4] = div v11, v15 out "n" v16"#;
    assert!(!ops(layer_norm::run, text).contains("layer_norm"));
    let sum = format!(
        "{LN} v14 \"e\": f32[2, 1] = add v13, v1 v15 \"s\": f32[2, 1] = sqrt v14 v16 \"n\": f32[2, 4] = div v0, v15 out \"n\" v16"
    );
    assert!(!ops(layer_norm::run, &sum).contains("layer_norm"));
}

fn gelu_of(statements: &str) -> String {
    ops(
        gelu::run,
        &format!(
            r#"in v0 "x": f32[4] const v1 "half": f32[] = [0.5] const v2 "one": f32[] = [1.0]
            const v3 "root": f32[] = [1.4142135] const v4 "inverse": f32[] = [0.70710677]
            const v5 "c": f32[] = [0.044715] const v6 "k": f32[] = [0.7978846] {statements}"#
        ),
    )
}

#[test]
fn gelu_erf_in_every_order() {
    for text in [
        r#"v10 "u": f32[4] = div v0, v3 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = add v11, v2
           v13 "h": f32[4] = mul v0, v12 v14 "y": f32[4] = mul v13, v1 out "y" v14"#,
        r#"v10 "u": f32[4] = mul v4, v0 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = add v2, v11
           v13 "h": f32[4] = mul v1, v0 v14 "y": f32[4] = mul v13, v12 out "y" v14"#,
        r#"v10 "u": f32[4] = mul v4, v0 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = add v2, v11
           v13 "h": f32[4] = mul v12, v1 v14 "y": f32[4] = mul v0, v13 out "y" v14"#,
        r#"v10 "u": f32[4] = mul v4, v0 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = mul v1, v11
           v13 "h": f32[4] = add v12, v1 v14 "y": f32[4] = mul v0, v13 out "y" v14"#,
    ] {
        assert_eq!(gelu_of(text), "gelu_erf", "{text}");
    }
}

#[test]
fn gelu_of_a_sum_keeps_the_sum() {
    let text = r#"v9 "s": f32[4] = add v0, v5 v10 "u": f32[4] = div v9, v3 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = add v11, v2
           v13 "h": f32[4] = mul v9, v12 v14 "y": f32[4] = mul v13, v1 out "y" v14"#;
    assert_eq!(gelu_of(text), "add gelu_erf");
}

#[test]
fn gelu_tanh_in_its_associations() {
    for text in [
        // 0.5 x (1 + tanh(k (x + c x³)))
        r#"v10 "p": f32[4] = mul v0, v0 v11 "q": f32[4] = mul v10, v0 v12 "r": f32[4] = mul v5, v11 v13 "s": f32[4] = add v0, v12
           v14 "u": f32[4] = mul v6, v13 v15 "t": f32[4] = tanh v14 v16 "a": f32[4] = add v2, v15
           v17 "h": f32[4] = mul v1, v0 v18 "y": f32[4] = mul v17, v16 out "y" v18"#,
        // 0.5 x (1 + tanh(x k (1 + c x x)))
        r#"v10 "p": f32[4] = mul v5, v0 v11 "q": f32[4] = mul v10, v0 v12 "r": f32[4] = add v2, v11 v13 "s": f32[4] = mul v0, v6
           v14 "u": f32[4] = mul v13, v12 v15 "t": f32[4] = tanh v14 v16 "a": f32[4] = add v2, v15
           v17 "h": f32[4] = mul v1, v0 v18 "y": f32[4] = mul v17, v16 out "y" v18"#,
    ] {
        assert_eq!(gelu_of(text), "gelu_tanh", "{text}");
    }
}

#[test]
fn gelu_does_not_match_wrong_constants_or_onlookers() {
    let with = |c: &str, half: &str, more: &str| {
        let text = format!(
            r#"in v0 "x": f32[4] const v1 "half": f32[] = [{half}] const v2 "one": f32[] = [1.0] const v4 "inverse": f32[] = [{c}]
            v10 "u": f32[4] = mul v4, v0 v11 "e": f32[4] = erf v10 v12 "a": f32[4] = add v2, v11
            v13 "h": f32[4] = mul v1, v0 v14 "y": f32[4] = mul v13, v12 out "y" v14 {more}"#
        );
        ops(gelu::run, &text).contains("gelu")
    };
    assert!(with("0.70710677", "0.5", ""));
    assert!(!with("0.7", "0.5", ""));
    assert!(!with("0.70710677", "0.51", ""));
    assert!(!with("0.70710677", "0.5", r#"out "e" v11"#));
    assert!(!with("0.70710677", "0.5", r#"v20 "o": f32[4] = exp v13 out "o" v20"#));
}

const QKV: &str = r#"in v0 "q": f32[1, 2, 3, 4] in v1 "k": f32[1, 2, 5, 4] in v2 "v": f32[1, 2, 5, 6] in v3 "bias": f32[1, 1, 1, 5]
    in v4 "mask": bool[1, 1, 1, 5] const v5 "scale": f32[] = [0.5] const v6 "root": f32[] = [0.70710677] const v7 "low": f32[] = [-3.4028235e38]
    const v8 "two": f32[] = [2.0] const v9 "slight": f32[] = [-10000.0]
    v10 "kt": f32[1, 2, 4, 5] = transpose v1 {perm: [0, 1, 3, 2]} "#;

const END: &str =
    r#"v40 "p": f32[1, 2, 3, 5] = softmax v30 {axis: 3} v41 "y": f32[1, 2, 3, 6] = matmul v40, v2 out "y" v41"#;

fn attention_of(middle: &str) -> String {
    let pass = |graph: &mut crate::graph::Graph| {
        let changes = attention::run(graph);
        canonicalize::run(graph) + changes
    };
    ops(pass, &format!("{QKV} {middle} {END}"))
}

#[test]
fn attention_with_scales_biases_and_masks() {
    for (middle, expected) in [
        (r#"v30 "s": f32[1, 2, 3, 5] = matmul v0, v10"#, "attention"),
        (r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v30 "t": f32[1, 2, 3, 5] = mul v20, v5"#, "attention"),
        (
            r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v21 "t": f32[1, 2, 3, 5] = div v20, v8
               v30 "b": f32[1, 2, 3, 5] = add v21, v3"#,
            "attention",
        ),
        (
            r#"v19 "qs": f32[1, 2, 3, 4] = mul v0, v5 v20 "s": f32[1, 2, 3, 5] = matmul v19, v10
               v30 "b": f32[1, 2, 3, 5] = add v3, v20"#,
            "attention",
        ),
        (
            r#"v18 "ks": f32[1, 2, 4, 5] = mul v10, v6 v19 "qs": f32[1, 2, 3, 4] = mul v0, v6
               v30 "s": f32[1, 2, 3, 5] = matmul v19, v18"#,
            "attention",
        ),
        (
            r#"v17 "ks": f32[1, 2, 5, 4] = mul v1, v6 v18 "kt": f32[1, 2, 4, 5] = transpose v17 {perm: [0, 1, 3, 2]}
               v19 "qs": f32[1, 2, 3, 4] = mul v0, v6 v30 "s": f32[1, 2, 3, 5] = matmul v19, v18"#,
            "attention",
        ),
        (
            r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v30 "m": f32[1, 2, 3, 5] = select v4, v7, v20"#,
            "select attention",
        ),
        (
            r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v21 "t": f32[1, 2, 3, 5] = mul v20, v5
               v30 "m": f32[1, 2, 3, 5] = select v4, v21, v7"#,
            "select attention",
        ),
    ] {
        assert_eq!(attention_of(middle), expected, "{middle}");
    }
}

#[test]
fn attention_takes_keys_in_any_arrangement() {
    let text = format!(
        r#"in v0 "q": f32[1, 2, 3, 4] in v1 "k": f32[1, 5, 2, 4] in v2 "v": f32[1, 2, 5, 6]
        v10 "kt": f32[1, 2, 4, 5] = transpose v1 {{perm: [0, 2, 3, 1]}} v30 "s": f32[1, 2, 3, 5] = matmul v0, v10 {END}"#
    );
    let pass = |graph: &mut crate::graph::Graph| attention::run(graph) + canonicalize::run(graph);
    assert_eq!(ops(pass, &text), "transpose attention");
}

#[test]
fn attention_does_not_match_when_someone_looks_inside() {
    for middle in [
        r#"v30 "s": f32[1, 2, 3, 5] = matmul v0, v10 out "s" v30"#,
        r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v30 "b": f32[1, 2, 3, 5] = add v20, v3 v31 "o": f32[1, 2, 3, 5] = exp v20 out "o" v31"#,
        // a mask that does not absorb the score
        r#"v20 "s": f32[1, 2, 3, 5] = matmul v0, v10 v30 "m": f32[1, 2, 3, 5] = select v4, v9, v20"#,
    ] {
        assert!(!attention_of(middle).contains("attention"), "{middle}");
    }
    // scaled queries that someone else uses stay scaled
    let shared = r#"v19 "qs": f32[1, 2, 3, 4] = mul v0, v5 out "qs" v19 v30 "s": f32[1, 2, 3, 5] = matmul v19, v10"#;
    assert_eq!(attention_of(shared), "mul attention");
}

const CONV: &str = r#"in v0 "x": f32[1, 2, 4] const v1 "w": f32[3, 2, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.5, 2.5, 3.5]
    const v2 "b": f32[3] = [0.5, -0.5, 0.25] const v3 "s": f32[3] = [1.0, 2.0, 0.5] const v4 "v": f32[3] = [1.0, 0.25, 4.0]
    const v5 "c": f32[3, 1] = [2.0, -1.0, 0.5] const v6 "p": f32[3] = [2.0, -1.0, 0.5]
    v10 "y": f32[1, 3, 3] = conv v0, v1, v2 {strides: [1], dilations: [1], pads: [[0, 0]], groups: 1}
    v11 "z": f32[1, 3, 3] = conv v0, v1 {strides: [1], dilations: [1], pads: [[0, 0]], groups: 1} "#;

#[test]
fn channelwise_constants_go_into_convolutions() {
    for rest in [
        r#"v20 "n": f32[1, 3, 3] = batch_norm v10, v3, v2, v2, v4 {epsilon: 1e-5} out "n" v20"#,
        r#"v20 "n": f32[1, 3, 3] = batch_norm v11, v3, v2, v2, v4 {epsilon: 1e-5} v21 "o": f32[1, 3, 3] = add v20, v5 out "o" v21"#,
        r#"v20 "n": f32[1, 3, 3] = mul v5, v11 v21 "o": f32[1, 3, 3] = sub v20, v5 out "o" v21"#,
    ] {
        assert_eq!(ops(conv::run, &format!("{CONV} {rest}")), "conv", "{rest}");
    }
}

#[test]
fn other_users_and_other_dimensions_keep_convolutions_as_they_are() {
    for (rest, expected) in [
        // along the last dimension
        (r#"v20 "n": f32[1, 3, 3] = mul v10, v6 out "n" v20"#, "conv mul"),
        (r#"v20 "n": f32[1, 3, 3] = mul v10, v5 out "n" v20 out "y" v10"#, "conv mul"),
        (r#"v20 "n": f32[1, 3, 3] = sub v5, v10 out "n" v20"#, "conv sub"),
    ] {
        assert_eq!(ops(conv::run, &format!("{CONV} {rest}")), expected);
    }
}

#[test]
fn all_passes_together_fuse_an_exported_layer_norm() {
    // torch writes the square as a power and subtracts the mean twice.
    let text = r#"in v0 "x": f32[2, 4] const v1 "eps": f32[] = [1e-12] const v2 "scale": f32[4] = [1.0, 2.0, 3.0, 4.0]
        const v3 "bias": f32[4] = [0.5, 0.25, 0.125, 0.0] const v4 "two": f32[] = [2.0]
        v10 "m": f32[2, 1] = reduce_mean v0 {axes: [1], keep_dims: true} v11 "d": f32[2, 4] = sub v0, v10
        v12 "e": f32[2, 4] = sub v0, v10 v13 "q": f32[2, 4] = pow v12, v4
        v14 "v": f32[2, 1] = reduce_mean v13 {axes: [1], keep_dims: true} v15 "ve": f32[2, 1] = add v14, v1
        v16 "s": f32[2, 1] = sqrt v15 v17 "n": f32[2, 4] = div v11, v16 v18 "w": f32[2, 4] = mul v17, v2
        v19 "y": f32[2, 4] = add v18, v3 out "y" v19"#;
    let fused = |graph: &mut crate::graph::Graph| {
        run(graph, Options::default(), &mut |_, _, _, _| {}).unwrap().runs.iter().map(|r| r.changes).sum()
    };
    let plain = |graph: &mut crate::graph::Graph| {
        run(graph, Options { fuse: false }, &mut |_, _, _, _| {}).unwrap().runs.iter().map(|r| r.changes).sum()
    };
    assert_eq!(ops(fused, text), "layer_norm");
    assert_eq!(ops(plain, text), "reduce_mean sub mul reduce_mean add sqrt div mul add");
}
