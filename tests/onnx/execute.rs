//! Running a case in this process, on the graph interpreter and as compiled code.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use aic::{Config, Model, Session, TargetSpec};
use aic_frontend::onnx::schema::{TensorProto, data_type};
use aic_ir::graph::interp;
use aic_ir::types::{DType, Tensor};
use prost::Message;

use crate::case::Case;
use crate::error;

/// How a case went.
pub enum Outcome {
    Passed {
        /// Largest distance of a float that the compiled code gives, in units of the last place.
        ulp: f64,
        /// Inputs that were made constants, since operators need to know them when compiling.
        constants: Vec<String>,
    },
    /// The importer refuses the model, in these words.
    Refused(String),
    /// Something else went wrong.
    Failed(String),
}

/// Runs a case. Inputs that have to be known when compiling become initializers.
pub fn run(case: &Case) -> Outcome {
    let mut constants = Vec::new();
    loop {
        match catch_unwind(AssertUnwindSafe(|| attempt(case, &constants))) {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
                return Outcome::Failed(format!("panics: {}", text.unwrap_or_default()));
            }
            Ok(Attempt::Passed(ulp)) => return Outcome::Passed { ulp, constants },
            Ok(Attempt::Failed(text)) => return Outcome::Failed(text),
            Ok(Attempt::Refused(text)) => {
                let more = needed(case, &text, &constants);
                if more.is_empty() {
                    return Outcome::Refused(text);
                }
                constants.extend(more);
            }
        }
    }
}

/// The inputs that an error asks to be known: the one it names, or, where that is computed from inputs, all that are
/// integers or truth values.
fn needed(case: &Case, text: &str, constants: &[String]) -> Vec<String> {
    let Some((before, _)) = text.split_once("`) must be known at compile time") else { return Vec::new() };
    let name = before.rsplit_once("(`").map_or("", |(_, name)| name);
    let open = || case.inputs.iter().filter(|(n, _)| !constants.contains(n));
    if open().any(|(n, _)| n == name) {
        return vec![name.to_owned()];
    }
    let is_float = |t: &Option<Tensor>| t.as_ref().is_none_or(|t| t.ty().dtype().is_float());
    open().filter(|(_, t)| !is_float(t)).map(|(n, _)| n.clone()).collect()
}

enum Attempt {
    Passed(f64),
    Refused(String),
    Failed(String),
}

fn attempt(case: &Case, constants: &[String]) -> Attempt {
    let mut proto = case.model.clone();
    let graph = proto.graph.as_mut().expect("a graph");
    for (name, tensor) in case.inputs.iter().filter(|(n, _)| constants.contains(n)) {
        graph.initializer.extend(tensor.as_ref().map(|t| initializer(name, t)));
    }
    let model = Model::from_onnx(&case.name, proto.encode_to_vec());
    let given: Vec<_> = case.inputs.iter().filter(|(n, _)| !constants.contains(n)).collect();
    let mut config = Config::new().target(TargetSpec::native());
    for (name, tensor) in &given {
        let Some(tensor) = tensor else { continue };
        config = config.input_shape(name, tensor.ty().shape()).expect("one shape");
    }
    let graph = match model.read(config.shapes()) {
        Ok(graph) => graph,
        Err(aic::Error::Model { source, .. }) => return Attempt::Refused(source.to_string()),
        Err(error) => return Attempt::Failed(error.to_string()),
    };
    let tensors: Vec<Tensor> = given.iter().filter_map(|(_, t)| t.clone()).collect();
    match execute(case, &graph, &tensors, &model, &config.session().expect("a target")) {
        Ok(ulp) => Attempt::Passed(ulp),
        Err(text) => Attempt::Failed(text),
    }
}

fn execute(
    case: &Case,
    graph: &aic_ir::graph::Graph,
    inputs: &[Tensor],
    model: &Model,
    session: &Session,
) -> Result<f64, String> {
    let evaluated = interp::evaluate(graph, inputs).map_err(|e| format!("interpreter: {e}"))?;
    let evaluated: Vec<Tensor> = evaluated.iter().map(interp::Evaluated::to_tensor).collect();
    check(case, &evaluated).map_err(|e| format!("interpreter: {e}"))?;
    let artifacts = session.compile(model).map_err(|e| format!("compiling: {}", chain(&e)))?;
    let outputs = artifacts.runner().and_then(|mut r| r.run(inputs)).map_err(|e| format!("running: {}", chain(&e)))?;
    check(case, &outputs).map_err(|e| format!("compiled: {e}"))
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The largest distance over all outputs.
fn check(case: &Case, outputs: &[Tensor]) -> Result<f64, String> {
    if outputs.len() != case.outputs.len() {
        return Err(format!("{} outputs instead of {}", outputs.len(), case.outputs.len()));
    }
    let mut worst: f64 = 0.0;
    for ((name, expected), got) in case.outputs.iter().zip(outputs) {
        let expected = expected.as_ref().ok_or("the expected output is not an array")?;
        worst = worst.max(error::compare(name, got, expected, case.tolerance)?);
    }
    Ok(worst)
}

fn initializer(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: tensor.ty().shape().iter().map(|&d| d as i64).collect(),
        data_type: number(tensor.ty().dtype()),
        raw_data: Some(tensor.bytes().clone()),
        ..TensorProto::default()
    }
}

/// ONNX's number of an element type.
pub fn number(dtype: DType) -> i32 {
    match dtype {
        DType::F16 => data_type::FLOAT16,
        DType::BF16 => data_type::BFLOAT16,
        DType::F32 => data_type::FLOAT,
        DType::F64 => data_type::DOUBLE,
        DType::I8 => data_type::INT8,
        DType::I16 => data_type::INT16,
        DType::I32 => data_type::INT32,
        DType::I64 => data_type::INT64,
        DType::U8 => data_type::UINT8,
        DType::U16 => data_type::UINT16,
        DType::U32 => data_type::UINT32,
        DType::U64 => data_type::UINT64,
        DType::Bool => data_type::BOOL,
    }
}
