//! What operators mean: small models, evaluated by the reference interpreter.

mod common;

use aic_frontend::onnx::schema::{TensorProto, data_type};
use aic_ir::graph::Op;
use aic_ir::types::Tensor;
use common::*;

/// One node with attributes on inputs of fixed types, the operands beyond those given as constants.
fn run(
    opset: i64,
    op: &str,
    attributes: Vec<aic_frontend::onnx::schema::AttributeProto>,
    inputs: &[Tensor],
    constants: &[TensorProto],
) -> Vec<f64> {
    let mut model = Model::new(opset);
    let mut names = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let dims: Vec<String> = input.ty().shape().iter().map(u64::to_string).collect();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        let elem_type = match input.ty().dtype() {
            aic_ir::types::DType::F32 => data_type::FLOAT,
            aic_ir::types::DType::Bool => data_type::BOOL,
            _ => data_type::INT64,
        };
        names.push(format!("x{i}"));
        model = model.input(&names[i], elem_type, &dims);
    }
    for constant in constants {
        names.push(constant.name.clone());
        model = model.initializer(constant.clone());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    model.node_with(op, &names, &["y"], attributes).output("y").run(inputs)
}

#[test]
fn arithmetic() {
    let a = i64s(&[5], &[7, -7, 7, -7, 6]);
    let b = i64s(&[5], &[3, 3, -3, -3, -3]);
    assert_eq!(run(13, "Mod", vec![], &[a.clone(), b.clone()], &[]), [1.0, 2.0, -2.0, -1.0, 0.0]);
    assert_eq!(run(13, "Mod", vec![attr_int("fmod", 1)], &[a.clone(), b], &[]), [1.0, -1.0, 1.0, -1.0, 0.0]);
    assert_eq!(run(13, "Pow", vec![], &[a], &[ints("e", &[], &[2])]), [49.0, 49.0, 49.0, 49.0, 36.0]);
    let x = f32s(&[3], &[-2.0, 0.5, 8.0]);
    assert_eq!(
        run(13, "Clip", vec![], std::slice::from_ref(&x), &[floats("lo", &[], &[-1.0]), floats("hi", &[], &[6.0])]),
        [-1.0, 0.5, 6.0]
    );
    assert_eq!(run(13, "Pow", vec![], std::slice::from_ref(&x), &[ints("e", &[], &[2])]), [4.0, 0.25, 64.0]);
    assert_eq!(
        run(13, "Max", vec![], std::slice::from_ref(&x), &[floats("a", &[], &[0.0]), floats("b", &[1], &[1.0])]),
        [1.0, 1.0, 8.0]
    );
    assert_eq!(run(13, "Greater", vec![], &[x], &[floats("a", &[], &[0.5])]), [0.0, 0.0, 1.0]);
}

#[test]
fn activations() {
    let x = [f32s(&[3], &[-2.0, 0.0, 4.0])];
    assert_eq!(run(13, "Relu", vec![], &x, &[]), [0.0, 0.0, 4.0]);
    assert_close(&run(13, "LeakyRelu", vec![attr_float("alpha", 0.1)], &x, &[]), &[-0.2, 0.0, 4.0]);
    assert_close(&run(14, "HardSwish", vec![], &x, &[]), &[-2.0 / 6.0, 0.0, 4.0]);
    assert_close(&run(13, "Elu", vec![], &x, &[]), &[(-2f64).exp() - 1.0, 0.0, 4.0]);
    assert_close(&run(13, "Softplus", vec![], &x, &[]), &[(-2f64).exp().ln_1p(), 2f64.ln(), 4f64.exp().ln_1p()]);
    assert_close(&run(20, "Gelu", vec![], &x, &[]), &[-0.045500, 0.0, 3.999873]);
    assert_close(&run(20, "Gelu", vec![attr_text("approximate", "tanh")], &x, &[]), &[-0.045402, 0.0, 3.999930]);
    let odd = [f32s(&[2], &[f32::NAN, 1.0])];
    assert_eq!(run(13, "IsNaN", vec![], &odd, &[]), [1.0, 0.0]);
}

#[test]
fn shapes_and_slices() {
    let x = [f32s(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])];
    let list = |name: &str, values: &[i64]| ints(name, &[values.len() as i64], values);
    let slice = [list("s", &[-1]), list("e", &[i64::MIN]), list("a", &[1]), list("t", &[-2])];
    assert_eq!(run(13, "Slice", vec![], &x, &slice), [2.0, 0.0, 5.0, 3.0]);
    assert_eq!(
        run(13, "Tile", vec![], &x, &[list("r", &[1, 2])]),
        [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 5.0]
    );
    // One row of 9 before, the last column cropped.
    let pads = [list("p", &[1, 0, 0, -1]), floats("v", &[], &[9.0])];
    assert_eq!(run(13, "Pad", vec![], &x, &pads), [9.0, 9.0, 0.0, 1.0, 3.0, 4.0]);
    assert_eq!(run(13, "GatherND", vec![], &x, &[ints("i", &[2, 2], &[1, 0, -1, -1])]), [3.0, 5.0]);
    assert_eq!(run(14, "Trilu", vec![attr_int("upper", 0)], &x, &[]), [0.0, 0.0, 0.0, 3.0, 4.0, 0.0]);
    assert_eq!(run(14, "Trilu", vec![], &x, &[ints("k", &[], &[1])]), [0.0, 1.0, 2.0, 0.0, 0.0, 5.0]);
    assert_eq!(run(13, "Transpose", vec![], &x, &[]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(
        run(13, "Range", vec![], &[], &[ints("a", &[], &[5]), ints("b", &[], &[0]), ints("c", &[], &[-2])]),
        [5.0, 3.0, 1.0]
    );
    let blocks = [f32s(&[1, 4, 1, 1], &[1.0, 2.0, 3.0, 4.0])];
    assert_eq!(run(13, "DepthToSpace", vec![attr_int("blocksize", 2)], &blocks, &[]), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn splits_are_equal_given_or_with_a_smaller_rest() {
    let x = [i64s(&[7], &[0, 1, 2, 3, 4, 5, 6])];
    let model = |opset, attributes| {
        let model = Model::new(opset).input("x", data_type::INT64, &["7"]);
        model.node_with("Split", &["x"], &["a", "b", "c"], attributes).output("c")
    };
    assert_eq!(model(18, vec![attr_int("num_outputs", 3)]).run(&x), [6.0]);
    assert!(model(13, vec![]).refusal().contains("7 elements do not split into 3 equal parts"));
    assert!(model(18, vec![attr_int("num_outputs", 2)]).refusal().contains("num_outputs"));
    let sized = Model::new(13).input("x", data_type::INT64, &["7"]).ints("n", &[1, 0, 6]);
    let sized = sized.node("Split", &["x", "n"], &["a", "b", "c"]).output("c");
    assert_eq!(sized.run(&x), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn reductions() {
    let x = [f32s(&[2, 2], &[3.0, 4.0, 0.0, -2.0])];
    let axes = [ints("a", &[1], &[-1])];
    assert_close(&run(18, "ReduceL2", vec![], &x, &axes), &[5.0, 2.0]);
    assert_close(&run(13, "ReduceL1", vec![attr_ints("axes", &[0])], &x, &[]), &[3.0, 6.0]);
    assert_close(&run(13, "ReduceMean", vec![attr_int("keepdims", 0)], &x, &[]), &[1.25]);
    assert_close(&run(18, "ReduceMax", vec![attr_int("noop_with_empty_axes", 1)], &x, &[]), &[3.0, 4.0, 0.0, -2.0]);
    let expected = [4.0 + (-1f64).exp().ln_1p(), (-2f64).exp().ln_1p()];
    assert_close(&run(18, "ReduceLogSumExp", vec![], &x, &axes), &expected);
    assert_close(
        &run(13, "LogSoftmax", vec![], &x, &[]),
        &[3.0 - expected[0], 4.0 - expected[0], -expected[1], -2.0 - expected[1]],
    );
}

#[test]
fn products() {
    let v = [f32s(&[2], &[1.0, 2.0])];
    let m = floats("m", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(run(13, "MatMul", vec![], &v, std::slice::from_ref(&m)), [7.0, 10.0]);
    assert_eq!(run(13, "MatMul", vec![], &v, &[floats("w", &[2], &[3.0, 4.0])]), [11.0]);
    let x = [f32s(&[1, 2], &[1.0, 2.0])];
    let attributes = vec![attr_float("alpha", 2.0), attr_float("beta", 0.5), attr_int("transB", 1)];
    assert_eq!(run(13, "Gemm", attributes, &x, &[m, floats("c", &[2], &[10.0, 20.0])]), [15.0, 32.0]);
}

#[test]
fn windows() {
    let x = [f32s(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0])];
    let w = [floats("w", &[1, 1, 3], &[1.0, 1.0, 1.0])];
    let same = vec![attr_text("auto_pad", "SAME_UPPER"), attr_ints("strides", &[2])];
    assert_eq!(run(13, "Conv", same, &x, &w), [3.0, 9.0, 9.0]);
    // One element of padding in sum: after the input in the one mode, before it in the other.
    let odd = [floats("w", &[1, 1, 2], &[1.0, 10.0])];
    assert_eq!(run(13, "Conv", vec![attr_text("auto_pad", "SAME_UPPER")], &x, &odd), [21.0, 32.0, 43.0, 54.0, 5.0]);
    assert_eq!(run(13, "Conv", vec![attr_text("auto_pad", "SAME_LOWER")], &x, &odd), [10.0, 21.0, 32.0, 43.0, 54.0]);
    let pool =
        |ceil: i64| vec![attr_ints("kernel_shape", &[2]), attr_ints("strides", &[2]), attr_int("ceil_mode", ceil)];
    assert_eq!(run(13, "AveragePool", pool(0), &x, &[]), [1.5, 3.5]);
    assert_eq!(run(13, "AveragePool", pool(1), &x, &[]), [1.5, 3.5, 5.0]);
    assert_eq!(run(13, "MaxPool", pool(1), &x, &[]), [2.0, 4.0, 5.0]);
    assert_eq!(run(13, "GlobalAveragePool", vec![], &x, &[]), [3.0]);
}

#[test]
fn normalizations() {
    let x = [f32s(&[1, 2], &[1.0, 3.0])];
    let scale = floats("s", &[1], &[2.0]);
    let epsilon = || vec![attr_float("epsilon", 0.0)];
    assert_close(&run(17, "LayerNormalization", epsilon(), &x, std::slice::from_ref(&scale)), &[-2.0, 2.0]);
    let root = 5f64.sqrt();
    assert_close(&run(23, "RMSNormalization", epsilon(), &x, &[scale]), &[2.0 / root, 6.0 / root]);
    let model = Model::new(17).input("x", data_type::FLOAT, &["1", "2"]).floats("s", &[2], &[1.0, 1.0]);
    let model = model.node_with("LayerNormalization", &["x", "s"], &["y", "", "r"], epsilon());
    assert_close(&model.output("r").run(&x), &[1.0]);
}

/// With equal keys, a query takes the mean of the values it may see; one that may see none gives zeros.
#[test]
fn attention_sees_what_the_masks_leave() {
    let q = f32s(&[1, 1, 2, 1], &[1.0, 1.0]);
    let k = f32s(&[1, 1, 2, 1], &[1.0, 1.0]);
    let v = f32s(&[1, 1, 2, 1], &[2.0, 4.0]);
    let operands = [q, k, v];
    assert_close(&run(23, "Attention", vec![], &operands, &[]), &[3.0, 3.0]);
    assert_close(&run(23, "Attention", vec![attr_int("is_causal", 1)], &operands, &[]), &[2.0, 3.0]);
    let [q, k, v] = operands;
    let mask = bools(&[2, 2], &[0, 0, 0, 1]);
    assert_close(&run(23, "Attention", vec![], &[q, k, v, mask], &[]), &[0.0, 4.0]);
}

#[test]
fn constants_of_every_form() {
    let model = |attribute| Model::new(13).node_with("Constant", &[], &["y"], vec![attribute]).output("y");
    assert_eq!(model(attr_int("value_int", -3)).run(&[]), [-3.0]);
    assert_eq!(model(attr_ints("value_ints", &[1, 2])).run(&[]), [1.0, 2.0]);
    assert_eq!(model(attr_float("value_float", 0.5)).run(&[]), [0.5]);
    assert_eq!(model(attr_tensor("value", floats("", &[2], &[1.0, 2.0]))).run(&[]), [1.0, 2.0]);
    let filled = Model::new(13).ints("s", &[1 << 19, 1 << 19]);
    let value = vec![attr_tensor("value", ints("", &[1], &[7]))];
    let filled = filled.node_with("ConstantOfShape", &["s"], &["y"], value).output("y").read();
    let filled = filled.expect("a large constant shape takes no memory");
    assert_eq!(ops(&filled), [&Op::Expand { shape: vec![1 << 19, 1 << 19] }]);
}
