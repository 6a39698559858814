//! No bytes make the reader panic: damaged models, and models of random nodes.

mod common;

use aic_frontend::MemoryFiles;
use aic_frontend::onnx::{self, schema::*};
use common::*;
use proptest::prelude::*;

/// A model that touches most parts of the reader.
fn sample() -> Model {
    Model::new(20)
        .input("x", data_type::FLOAT, &["1", "2", "4", "4"])
        .floats("w", &[3, 2, 3, 3], &[0.5; 54])
        .ints("axes", &[0])
        .ints("target", &[0, -1])
        .initializer(TensorProto { int32_data: vec![1, 0], ..tensor("b", data_type::BOOL, &[2], vec![]) })
        .node_with("Conv", &["x", "w"], &["c"], vec![attr_ints("pads", &[1, 1, 1, 1]), attr_ints("strides", &[2, 2])])
        .node_with("MaxPool", &["c"], &["p"], vec![attr_ints("kernel_shape", &[2, 2])])
        .node("Shape", &["p"], &["s"])
        .node("Reshape", &["p", "target"], &["r"])
        .node_with("ReduceSum", &["s", "axes"], &["n"], vec![attr_int("keepdims", 1)])
        .node("Cast", &["n"], &["unused"])
        .node_with("Concat", &["n", "s"], &["k"], vec![attr_int("axis", -1)])
        .node_with("Gather", &["k", "axes"], &["g"], vec![attr_int("axis", 0)])
        .node("Softmax", &["r"], &["m"])
        .output("m")
        .output("g")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_read_or_refused(
        cut in 0.0..1.5f64,
        changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..6),
    ) {
        let mut bytes = sample().bytes().to_vec();
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        for (place, value) in changes {
            let place = (bytes.len() as f64 * place) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        if let Ok(graph) = onnx::read(bytes.into(), &MemoryFiles::new(), &bindings(&[])) {
            prop_assert!(graph.verify().is_ok());
        }
    }

    #[test]
    fn random_nodes_are_read_or_refused(
        op in 0..onnx::supported().count(),
        operands in prop::collection::vec(0..8usize, 8),
        extra in 0..4usize,
        results in prop::sample::select(vec![1, 1, 1, 2, 3]),
        shapes in prop::collection::vec(shape(), 4),
        lists in prop::collection::vec(prop::collection::vec(number(), 0..5), 4),
        attributes in prop::collection::vec((0..10usize, number(), prop::collection::vec(number(), 0..5)), 12),
        float_type in prop::sample::select(vec![data_type::FLOAT, data_type::FLOAT16, data_type::INT64, data_type::BOOL]),
    ) {
        let Some(rule) = onnx::supported().nth(op) else { return Ok(()) };
        let mut model = Model::new(23);
        let mut names = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let dims: Vec<&str> = shape.iter().map(String::as_str).collect();
            names.push(format!("x{i}"));
            model = model.input(&names[i], float_type, &dims);
        }
        for (i, list) in lists.iter().enumerate() {
            names.push(format!("l{i}"));
            // The last is a scalar where it has one element.
            let dims: &[i64] = if i == 3 && list.len() == 1 { &[] } else { &[list.len() as i64] };
            model = model.initializer(ints(&names[4 + i], dims, list));
        }
        // The first operand is an input more often than a list, later ones less often.
        let count = rule.operands.1.min(rule.operands.0 + extra);
        let operand = |(place, &i): (usize, &usize)| names[if place == 0 { i % 6 } else { i }].as_str();
        let inputs: Vec<&str> = operands.iter().enumerate().take(count).map(operand).collect();
        let outputs: Vec<String> = (0..results).map(|i| format!("y{i}")).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let attributes = rule.attributes.iter().zip(&attributes).filter_map(|(name, (kind, number, list))| {
            // Mostly of the type that attributes of this name have; others are omitted or of a wrong type.
            let listed = ["axes", "dilations", "kernel_shape", "pads", "perm", "strides", "value_ints"].contains(name);
            Some(match kind {
                0..6 => return None,
                6..8 if listed => attr_ints(name, list),
                6..8 if ["auto_pad", "mode", "approximate"].contains(name) => attr_text(name, "SAME_UPPER"),
                6..8 if *name == "value" => attr_tensor(name, ints("", &[list.len() as i64], list)),
                6..8 if ["alpha", "beta", "epsilon", "scale", "softcap"].contains(name) => attr_float(name, 0.5),
                6..8 => attr_int(name, *number),
                8 => attr_float(name, *number as f32),
                _ => attr_ints(name, list),
            })
        });
        model = model.node_with(rule.name, &inputs, &outputs, attributes.collect());
        for output in outputs {
            model = model.output(output);
        }
        if let Ok(graph) = model.read() {
            prop_assert!(graph.verify().is_ok());
        }
    }
}

/// Numbers at the edges, and small ones.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![12 => -2..4i64, 1 => prop::sample::select(vec![i64::MIN, i64::MAX, 1 << 32, 1 << 40, -(1 << 40)])]
}

/// Small shapes, some with very large or empty dimensions.
fn shape() -> impl Strategy<Value = Vec<String>> {
    let dim = prop_oneof![16 => 1..4u64, 1 => prop::sample::select(vec![0, 1 << 20, 1 << 40])];
    prop::collection::vec(dim.prop_map(|d| d.to_string()), 0..6)
}
