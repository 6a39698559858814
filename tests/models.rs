//! Whole models, from their files to native code, against what onnxruntime computed for the same inputs.
//!
//! `tests/models/setup.py` writes models and reference outputs below `target/test-assets` (or the folder that
//! `AIC_TEST_ASSETS` names); a missing one fails here with the command that makes it.

mod common;

use aic::compare::{Tolerance, compare};
use aic::inputs::Arrays;
use aic::{Artifacts, Config, Model, TargetSpec, digits};
use aic_ir::types::Tensor;
use common::{asset, reference};

/// Compiles a model for the shapes of the inputs it declares.
fn compile(model: &Model, inputs: &[(String, Tensor)], target: TargetSpec) -> (Artifacts, Vec<Tensor>) {
    let mut config = Config::new().target(target);
    let declared = model.inspect(config.shapes()).expect("readable").inputs;
    let mut arrays = Arrays::new();
    for (name, tensor) in inputs.iter().filter(|(n, _)| declared.iter().any(|i| i.name == *n)) {
        config = config.input_shape(name, tensor.ty().shape()).expect("one shape");
        arrays.add(name.clone(), tensor.clone()).expect("one array");
    }
    let artifacts = config.session().expect("a target").compile(model).unwrap_or_else(|e| panic!("{model:?}: {e:?}"));
    let inputs = arrays.in_order(&artifacts.program, None).expect("all inputs");
    (artifacts, inputs)
}

/// Runs a model on a reference's inputs; every output that both have must agree. Gives how many that are.
fn check(path: &str, name: &str) -> usize {
    let reference = reference(name);
    let model = Model::open(asset(path)).expect("opens");
    let (artifacts, inputs) = compile(&model, &reference.inputs, TargetSpec::native());
    let outputs = artifacts.runner().expect("maps").run(&inputs).expect("runs");
    let tolerance = Tolerance { atol: 2e-5, rtol: 1e-4, min_cosine: Some(0.999_999) };
    let mut compared = 0;
    for (output, got) in artifacts.output_names().iter().zip(&outputs) {
        let Some((_, expected)) = reference.outputs.iter().find(|(n, _)| n == output) else { continue };
        let difference = compare(output, got, expected, &tolerance).expect("same shape");
        assert!(difference.passed, "{path} on {name}: {difference:?}");
        compared += 1;
    }
    assert!(compared > 0, "{path} has none of the outputs of {name}");
    compared
}

#[test]
fn minilm_from_its_folder() {
    for name in ["minilm_s1", "minilm_s16", "minilm_s128", "minilm_s128_masked", "minilm_b2_s16"] {
        check("minilm", name);
    }
}

#[test]
fn minilm_from_onnx() {
    check("onnx/minilm_s1.onnx", "minilm_s1");
    check("onnx/minilm_s16.onnx", "minilm_s16");
    check("onnx/minilm_s128.onnx", "minilm_s128");
    check("onnx/minilm_s128.onnx", "minilm_s128_masked");
}

#[test]
fn minilm_from_onnx_with_dynamic_shapes_and_external_data() {
    check("onnx/minilm_dyn.onnx", "minilm_b2_s16");
    check("onnx/minilm_dyn_pooled.onnx", "minilm_s16");
    check("onnx/minilm_ext.onnx", "minilm_s16");
}

#[test]
fn small_encoders_both_ways() {
    for model in ["bert_tiny", "distilbert_tiny"] {
        for case in ["s1", "s16", "s16_masked", "b2_s24"] {
            check(model, &format!("{model}_{case}"));
            check(&format!("onnx/{model}.onnx"), &format!("{model}_{case}"));
        }
    }
}

/// Every class of `transformers` that is read, each output against its definition in binary64.
#[test]
fn classes_with_their_heads() {
    let folders = std::fs::read_dir(asset("classes")).expect("a folder");
    let mut names: Vec<String> =
        folders.map(|f| f.expect("a folder").file_name().into_string().expect("a plain name")).collect();
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert_eq!(check(&format!("classes/{name}"), &name), reference(&name).outputs.len(), "{name}");
    }
}

#[test]
fn digits_one_by_one_and_at_once() {
    let reference = reference("digits");
    let expected = &reference.outputs.iter().find(|(n, _)| n == "logits").expect("logits").1;
    let (artifacts, inputs) = compile(&digits::model(), &reference.inputs, TargetSpec::native());
    let logits = artifacts.runner().expect("maps").run(&inputs).expect("runs").swap_remove(0);
    let tolerance = Tolerance { atol: 2e-5, rtol: 1e-4, min_cosine: Some(0.999_999) };
    let all = compare("logits", &logits, expected, &tolerance).expect("same shape");
    assert!(all.passed, "{all:?}");

    // The plainest processor computes the same, image by image.
    let target = TargetSpec::new().cpu("x86-64");
    let session = Config::new().target(target).shape("batch=1").expect("a shape").session().expect("a target");
    let mut runner = session.compile(&digits::model()).expect("compiles").runner().expect("maps");
    for (i, (image, _)) in digits::held_out().expect("readable").into_iter().enumerate().take(50) {
        let logits = runner.run(&[image]).expect("runs").swap_remove(0);
        let row = expected.bytes().slice(i * 40..(i + 1) * 40);
        let row = Tensor::new(logits.ty().clone(), row).expect("ten floats");
        let one = compare("logits", &logits, &row, &tolerance).expect("same shape");
        assert!(one.passed, "image {i}: {one:?}");
    }
}

#[test]
fn levels_of_optimization_agree() {
    let reference = reference("bert_tiny_s16");
    let model = Model::open(asset("bert_tiny")).expect("opens");
    let mut results: Vec<Tensor> = Vec::new();
    for level in [aic::OptLevel::None, aic::OptLevel::Tiled, aic::OptLevel::Speed, aic::OptLevel::Size] {
        let mut config = Config::new().target(TargetSpec::native()).opt_level(level);
        let mut arrays = Arrays::new();
        for (name, tensor) in &reference.inputs {
            config = config.input_shape(name, tensor.ty().shape()).expect("one shape");
            arrays.add(name.clone(), tensor.clone()).expect("one array");
        }
        let artifacts = config.session().expect("a target").compile(&model).expect("compiles");
        let inputs = arrays.in_order(&artifacts.program, None).expect("all inputs");
        results.push(artifacts.runner().expect("maps").run(&inputs).expect("runs").swap_remove(0));
    }
    for other in &results[1..] {
        let difference = compare("output", other, &results[0], &Tolerance { atol: 2e-5, rtol: 1e-4, min_cosine: None });
        assert!(difference.as_ref().is_ok_and(|d| d.passed), "{difference:?}");
    }
}
