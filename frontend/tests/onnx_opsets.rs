//! Operators in the forms of older operator sets: what is an operand today was an attribute, and softmax took matrices.

mod common;

use aic_frontend::onnx::schema::{AttributeProto, TensorProto, data_type};
use aic_ir::types::Tensor;
use common::*;

/// One node on one input of floats, with constants as further operands; `None` leaves one out.
fn node(opset: i64, op: &str, x: &Tensor, constants: &[Option<TensorProto>], attributes: Vec<AttributeProto>) -> Model {
    let dims: Vec<String> = x.ty().shape().iter().map(u64::to_string).collect();
    let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
    let mut model = Model::new(opset).input("x", data_type::FLOAT, &dims);
    let mut names = vec!["x".to_owned()];
    for constant in constants {
        names.push(constant.as_ref().map(|c| c.name.clone()).unwrap_or_default());
        if let Some(constant) = constant {
            model = model.initializer(constant.clone());
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    model.node_with(op, &names, &["y"], attributes).output("y")
}

fn counted(shape: &[u64]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32 - 3.5).collect();
    f32s(shape, &values)
}

fn attr_floats(name: &str, values: &[f32]) -> AttributeProto {
    let mut attribute = attr_float(name, 0.0);
    attribute.r#type = aic_frontend::onnx::schema::attribute_type::FLOATS;
    attribute.floats = values.to_vec();
    attribute
}

/// Operator, last operator set with attributes, those, first with operands, and these.
type Form = (&'static str, i64, Vec<AttributeProto>, i64, Vec<Option<TensorProto>>);

#[test]
fn attributes_that_became_operands_mean_the_same() {
    let list = |name: &str, values: &[i64]| Some(ints(name, &[values.len() as i64], values));
    let number = |name: &str, value: f32| Some(floats(name, &[], &[value]));
    let x = counted(&[1, 4, 6]);
    let forms: Vec<Form> = vec![
        ("Squeeze", 12, vec![attr_ints("axes", &[0])], 13, vec![list("a", &[0])]),
        ("Unsqueeze", 12, vec![attr_ints("axes", &[0, 2])], 13, vec![list("a", &[0, 2])]),
        ("ReduceSum", 12, vec![attr_ints("axes", &[1])], 13, vec![list("a", &[1])]),
        ("ReduceMax", 17, vec![attr_ints("axes", &[2])], 18, vec![list("a", &[2])]),
        ("ReduceLogSumExp", 17, vec![attr_ints("axes", &[-1, 1])], 18, vec![list("a", &[-1, 1])]),
        (
            "Clip",
            10,
            vec![attr_float("min", -1.0), attr_float("max", 2.0)],
            11,
            vec![number("l", -1.0), number("h", 2.0)],
        ),
        ("Clip", 7, vec![attr_float("max", 2.0)], 11, vec![None, number("h", 2.0)]),
        (
            "Slice",
            9,
            vec![attr_ints("starts", &[1, -4]), attr_ints("ends", &[9, -1]), attr_ints("axes", &[1, 2])],
            10,
            vec![list("s", &[1, -4]), list("e", &[9, -1]), list("a", &[1, 2])],
        ),
        (
            "Pad",
            10,
            vec![attr_ints("pads", &[0, 1, 0, 0, 0, 2]), attr_float("value", 0.5)],
            11,
            vec![list("p", &[0, 1, 0, 0, 0, 2]), number("v", 0.5)],
        ),
        ("TopK", 9, vec![attr_int("k", 3)], 10, vec![list("k", &[3])]),
        (
            "Upsample",
            7,
            vec![attr_floats("scales", &[1.0, 1.0, 2.5])],
            9,
            vec![Some(floats("s", &[3], &[1.0, 1.0, 2.5]))],
        ),
    ];
    for (op, old, attributes, new, operands) in forms {
        let shared = if op == "TopK" { vec![attr_int("axis", 1)] } else { vec![] };
        let before = node(old, op, &x, &[], [attributes.clone(), shared.clone()].concat());
        let after = node(new, op, &x, &operands, shared.clone());
        assert_eq!(before.run(std::slice::from_ref(&x)), after.run(std::slice::from_ref(&x)), "{op}");
        // Neither form is read in the operator sets of the other.
        let early = node(old, op, &x, &operands, shared.clone()).refusal();
        assert!(
            early.contains("is missing") || early.contains("are missing") || early.contains("not supported"),
            "{early}"
        );
        if op != "Upsample" {
            let late = node(new, op, &x, &[], [attributes, shared].concat()).refusal();
            assert!(late.contains("is an operand in operator set"), "{late}");
        }
    }
}

#[test]
fn softmax_was_of_matrices() {
    let x = counted(&[2, 2, 2]);
    let one = |opset, attributes| node(opset, "Softmax", &x, &[], attributes).run(std::slice::from_ref(&x));
    // From dimension 1 on: each half is one row.
    let rows: Vec<f64> = one(11, vec![]).chunks(4).map(|row| row.iter().sum()).collect();
    assert_close(&rows, &[1.0, 1.0]);
    // Of the last dimension alone.
    assert_eq!(one(11, vec![attr_int("axis", 2)]), one(13, vec![]));
    let all: f64 = one(7, vec![attr_int("axis", 0)]).iter().sum();
    assert_close(&[all], &[1.0]);
}

#[test]
fn resizing_was_simple() {
    // Asymmetric, the neighbour below where a dimension grows and that above where it shrinks.
    let x = f32s(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let resize = |opset, scale: f32, attributes| {
        let scales = Some(floats("s", &[1], &[scale]));
        let operands = if opset < 11 { vec![scales] } else { vec![None, scales] };
        node(opset, "Resize", &x, &operands, attributes).run(std::slice::from_ref(&x))
    };
    assert_eq!(resize(10, 1.5, vec![]), [1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
    assert_eq!(resize(10, 0.6, vec![]), [1.0, 3.0]);
    assert_eq!(resize(13, 0.6, vec![]), [1.0, 3.0]);
    let old_linear = resize(10, 2.0, vec![attr_text("mode", "linear")]);
    assert_eq!(old_linear, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0]);
    assert_eq!(resize(13, 2.0, vec![attr_text("mode", "linear")]), [1.0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.0]);
}

#[test]
fn operators_end_where_others_replace_them() {
    let x = counted(&[1, 1, 4]);
    let scales = Some(floats("s", &[3], &[1.0, 1.0, 2.0]));
    let text = node(10, "Upsample", &x, &[scales], vec![]).refusal();
    assert!(text.contains("supported up to operator set 9"), "{text}");
}
