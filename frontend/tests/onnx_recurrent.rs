//! Recurrent layers, against arithmetic by hand on layers of one element.

mod common;

use aic_frontend::onnx::schema::*;
use aic_ir::graph::Op;
use common::*;

const FLOAT: i32 = data_type::FLOAT;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A layer of one element on three steps of two sequences, weights 0.5 for the input and 0.25 for the state in every
/// gate, biases 0.1 and 0.2.
fn layer(
    op: &str,
    gates: usize,
    directions: usize,
    lengths: Option<[i32; 2]>,
    attributes: Vec<AttributeProto>,
) -> Model {
    let count = (directions * gates) as i64;
    let (d, g) = (directions as i64, gates as i64);
    let mut model = Model::new(14)
        .input("x", FLOAT, &["3", "2", "1"])
        .floats("w", &[d, g, 1], &vec![0.5; count as usize])
        .floats("r", &[d, g, 1], &vec![0.25; count as usize])
        .floats("b", &[d, 2 * g], &[vec![0.1; gates], vec![0.2; gates]].concat().repeat(directions));
    if let Some(lengths) = lengths {
        model = model.initializer(TensorProto {
            int32_data: lengths.to_vec(),
            raw_data: None,
            ..tensor("lengths", data_type::INT32, &[2], vec![])
        });
    }
    let lengths = if lengths.is_some() { "lengths" } else { "" };
    model.node_with(op, &["x", "w", "r", "b", lengths], &["y", "h"], attributes).output("y").output("h")
}

const X: [f32; 6] = [1.0, -2.0, 0.5, 3.0, -1.5, 0.25];

/// Both outputs.
fn run(model: &Model) -> (Vec<f64>, Vec<f64>) {
    let graph = model.read().unwrap_or_else(|e| panic!("{e}"));
    let x = [f32s(&[3, 2, 1], &X)];
    (evaluate(&graph, &x, 0), evaluate(&graph, &x, 1))
}

/// Outputs of the three steps of one sequence for a function of input and state.
fn steps(inputs: [f64; 3], mut step: impl FnMut(f64, f64) -> f64) -> Vec<f64> {
    let mut h = 0.0;
    inputs
        .iter()
        .map(|&x| {
            h = step(x, h);
            h
        })
        .collect()
}

fn sequence(index: usize) -> [f64; 3] {
    [0, 1, 2].map(|t| f64::from(X[t * 2 + index]))
}

#[test]
fn one_product_for_all_steps_and_one_in_the_loop() {
    let graph = layer("LSTM", 4, 1, None, vec![]).read().expect("a good model");
    let count = |ops: Vec<&Op>| ops.iter().filter(|op| matches!(op, Op::MatMul)).count();
    assert_eq!(count(ops(&graph)), 1);
    let scan = ops(&graph).into_iter().find_map(|op| match op {
        Op::Scan(scan) => Some(scan),
        _ => None,
    });
    let scan = scan.expect("steps are a scan");
    assert_eq!((scan.trips, scan.states, scan.sequences, count(ops(&scan.body))), (3, 2, 1, 1));
}

#[test]
fn lstm() {
    let (y, h) = run(&layer("LSTM", 4, 1, None, vec![]));
    for index in 0..2 {
        let mut cell = 0.0;
        let expected = steps(sequence(index), |x, h| {
            let gate = 0.5 * x + 0.25 * h + 0.3;
            cell = sigmoid(gate) * cell + sigmoid(gate) * gate.tanh();
            sigmoid(gate) * cell.tanh()
        });
        let actual: Vec<f64> = (0..3).map(|t| y[t * 2 + index]).collect();
        assert_close(&actual, &expected);
        assert_close(&h[index..=index], &expected[2..]);
    }
}

#[test]
fn gru_with_both_forms_of_reset() {
    for before in [0, 1] {
        let (_, h) = run(&layer("GRU", 3, 1, None, vec![attr_int("linear_before_reset", before)]));
        let expected = steps(sequence(0), |x, h| {
            let gate = sigmoid(0.5 * x + 0.25 * h + 0.3);
            let new = match before {
                0 => (0.5 * x + 0.25 * gate * h + 0.3).tanh(),
                _ => (0.5 * x + 0.1 + gate * (0.25 * h + 0.2)).tanh(),
            };
            (1.0 - gate) * new + gate * h
        });
        assert_close(&h[..1], &expected[2..]);
    }
}

#[test]
fn directions_and_lengths() {
    let cell = |x: f64, h: f64| (0.5 * x + 0.25 * h + 0.3).tanh();
    let both = vec![attr_text("direction", "bidirectional")];
    let (y, h) = run(&layer("RNN", 1, 2, Some([3, 2]), both));
    // [T, D, B, 1]
    let at = |t: usize, d: usize, b: usize| y[(t * 2 + d) * 2 + b];
    let forward = steps(sequence(0), cell);
    assert_close(&[at(0, 0, 0), at(1, 0, 0), at(2, 0, 0)], &forward);
    let [a, b, c] = sequence(0);
    let backward = steps([c, b, a], cell);
    assert_close(&[at(2, 1, 0), at(1, 1, 0), at(0, 1, 0)], &backward);
    // The second sequence has two steps; its states stay, its outputs are 0 after them.
    let [a, b, _] = sequence(1);
    let forward = steps([a, b, 0.0], cell);
    assert_close(&[at(0, 0, 1), at(1, 0, 1), at(2, 0, 1)], &[forward[0], forward[1], 0.0]);
    let backward = steps([b, a, 0.0], cell);
    assert_close(&[at(1, 1, 1), at(0, 1, 1), at(2, 1, 1)], &[backward[0], backward[1], 0.0]);
    assert_close(&h, &[at(2, 0, 0), forward[1], at(0, 1, 0), backward[1]]);
}

#[test]
fn sequences_without_steps_end_at_zero() {
    let mut model = layer("LSTM", 4, 1, Some([0, 1]), vec![]).floats("one", &[1, 2, 1], &[1.0, 1.0]);
    model.graph().node[0].input.extend(["one".to_owned(), "one".to_owned()]);
    let (y, h) = run(&model);
    assert_eq!((y[0], h[0]), (0.0, 0.0));
    let gate = 0.5 * f64::from(X[1]) + 0.25 + 0.3;
    let cell = sigmoid(gate) + sigmoid(gate) * gate.tanh();
    assert_close(&h[1..], &[sigmoid(gate) * cell.tanh()]);
    let mut none = layer("GRU", 3, 1, None, vec![]);
    none.graph().input[0] = value_info("x", FLOAT, &["0", "2", "1"]);
    let graph = none.read().expect("a good model");
    assert_eq!(graph.ty(graph.outputs[0].value).shape(), [0, 1, 2, 1]);
    assert_eq!(evaluate(&graph, &[f32s(&[0, 2, 1], &[])], 1), [0.0, 0.0]);
}

#[test]
fn activations_take_their_parameters_in_order() {
    let attributes = || {
        vec![
            attr_text("direction", "bidirectional"),
            attr_texts("activations", &["Affine", "LeakyRelu"]),
            AttributeProto {
                floats: vec![2.0, 0.5],
                r#type: attribute_type::FLOATS,
                ..attr_int("activation_alpha", 0)
            },
            AttributeProto { floats: vec![1.0], r#type: attribute_type::FLOATS, ..attr_int("activation_beta", 0) },
        ]
    };
    let (_, h) = run(&layer("RNN", 1, 2, None, attributes()));
    let forward = steps(sequence(1), |x, h| 2.0 * (0.5 * x + 0.25 * h + 0.3) + 1.0);
    assert_close(&h[1..2], &forward[2..]);
    let [a, b, c] = sequence(1);
    let backward = steps([c, b, a], |x, h| {
        let sum = 0.5 * x + 0.25 * h + 0.3;
        if sum < 0.0 { 0.5 * sum } else { sum }
    });
    assert_close(&h[3..], &backward[2..]);
    let mut attributes = attributes();
    attributes.pop();
    let text = layer("RNN", 1, 2, None, attributes).refusal();
    assert!(text.contains("activation Affine needs its parameters"), "{text}");
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let with = |attributes| layer("GRU", 3, 1, None, attributes).refusal();
    assert!(with(vec![attr_int("hidden_size", 2)]).contains("hidden_size is not 1"));
    assert!(with(vec![attr_text("direction", "up")]).contains("direction = \"up\""));
    assert!(with(vec![attr_texts("activations", &["Tanh"])]).contains("takes 2 activations, but 1 are given"));
    assert!(with(vec![attr_texts("activations", &["Tanh", "Exp"])]).contains("activation \"Exp\" is not supported"));
    assert!(with(vec![attr_text("direction", "bidirectional")]).contains("R has shape [1, 3, 1] instead of [2, 3, 1]"));
}
