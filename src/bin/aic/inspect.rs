//! `aic inspect`: what a model declares and computes, what of it would be refused; what an artifact holds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aic::{Config, Error, Model};
use aic_cpu::artifact::read::{self, Kind};
use aic_ir::graph::Graph;
use anyhow::Result;
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::job::{self, DefaultTarget};
use crate::reply::{Reply, Status, count, fields, size};

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<Reply> {
    if let Some(reply) = artifact(&args.model)? {
        return Ok(reply);
    }
    let model = Model::open(&args.model)?;
    let config = job::config(&args.target, &args.shape, DefaultTarget::Native)?;
    let inspection = model.inspect(config.shapes())?;

    let mut text = String::from("inputs\n");
    for input in &inspection.inputs {
        text += &format!("  {input}\n");
    }
    text += "outputs\n";
    for output in &inspection.outputs {
        text += &format!("  {output}\n");
    }
    if !inspection.operators.is_empty() {
        text += "operators\n";
        for (op, n) in &inspection.operators {
            text += &format!("  {n:>5}  {op}\n");
        }
    }
    if !inspection.unused.is_empty() {
        text += "not used\n";
        for name in &inspection.unused {
            text += &format!("  {name}\n");
        }
    }
    let mut object = json!({
        "inputs": inspection.inputs.iter().map(|i| json!({
            "name": i.name,
            "dtype": i.dtype.name(),
            "dims": i.dims.as_ref().map(|dims| dims.iter().map(dim_json).collect::<Vec<_>>()),
        })).collect::<Vec<_>>(),
        "outputs": inspection.outputs,
        "operators": inspection.operators,
        "unused": inspection.unused,
        "refused": inspection.refused.iter()
            .map(|n| json!({ "name": n.name, "op": n.op, "reason": n.reason })).collect::<Vec<_>>(),
    });
    if !inspection.refused.is_empty() {
        text += "would be refused\n";
        for node in &inspection.refused {
            text += &format!("  {node}\n");
        }
        let n = inspection.refused.len();
        return Ok(Reply::ok(text, fields(object)).with_status(Status::Refused, format!("{n} nodes are not supported")));
    }
    let verdict = compiled(&model, config, &mut text, &mut object);
    let reply = |text, object| Reply::ok(text, fields(object));
    match verdict {
        Ok(()) => Ok(reply(text, object)),
        // Dynamic dimensions are something to see here, not a fault: everything that can be said without shapes was said.
        Err(e) if open_shapes(&e) => {
            text += &format!("sizes are known once dimensions are fixed: {e:#}\n");
            Ok(reply(text, object))
        }
        Err(e) => {
            let message = format!("{e:#}");
            Ok(reply(text, object).with_status(Status::Refused, message))
        }
    }
}

/// What a file holds, if it starts as artifacts do.
fn artifact(path: &Path) -> Result<Option<Reply>> {
    let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut start = Vec::new();
    if path.is_file() {
        let file = File::open(path).map_err(failed)?;
        file.take(16).read_to_end(&mut start).map_err(failed)?;
    }
    if !read::looks_like_artifact(&start) {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let contents = read::read(&bytes).map_err(|e| Error::Refused(format!("artifact `{}`: {e}", path.display())))?;
    let (kind, weights) = match &contents.kind {
        Kind::Object => ("object", None),
        Kind::StaticLibrary => ("static library", None),
        Kind::SharedLibrary => ("shared library", None),
        Kind::Program => ("program", None),
        Kind::Weights(header) => ("weights", Some(header.weights_bytes)),
    };
    let mut text = format!("{kind} of {}\n", size(bytes.len() as u64));
    for note in &contents.models {
        let interface = &note.interface;
        text += &format!(
            "model {} by {}\n  sha256 {}\n  arena {}, weights {}, state {}, stack {}\n",
            interface.name,
            note.generator,
            interface.model_sha256,
            size(interface.arena_bytes),
            size(interface.weights_bytes),
            size(interface.state_bytes),
            size(interface.stack_bytes),
        );
        for (side, tensors) in [("input", &interface.inputs), ("output", &interface.outputs)] {
            for t in tensors {
                text += &format!("  {side} {}: {}{:?}\n", t.name, t.dtype, t.shape);
            }
        }
    }
    let loaded: u64 = contents.sections.iter().map(|s| s.bytes).sum();
    text += &format!("{} sections of {} are loaded\n", contents.sections.len(), size(loaded));
    for (what, names) in [("exported", &contents.exported), ("undefined", &contents.undefined)] {
        if !names.is_empty() {
            text += &format!("{what}: {}\n", names.join(" "));
        }
    }
    let sections: Vec<_> =
        contents.sections.iter().map(|s| json!({ "name": s.name, "bytes": s.bytes, "writable": s.writable })).collect();
    let object = json!({
        "kind": kind,
        "models": serde_json::to_value(&contents.models)?,
        "weights_bytes": weights,
        "sections": sections,
        "exported": contents.exported,
        "undefined": contents.undefined,
    });
    Ok(Some(Reply::ok(text, fields(object))))
}

/// Adds what is known once the model is compiled.
fn compiled(model: &Model, config: Config, text: &mut String, object: &mut Value) -> Result<()> {
    let artifacts = job::compile(model, config)?;
    let (parameters, constant_bytes) = constants(&artifacts.declared);
    let flops: f64 = artifacts.costs.iter().map(|c| c.flops).sum();
    let predicted_ms = artifacts.costs.iter().map(|c| c.seconds).sum::<f64>() * 1e3;
    *text += &format!(
        "parameters {} in {}, {} FLOPs a run\ncompiled for {}: {} kernels, arena {}, weights {}, stack {}, predicted {}\n",
        count(parameters),
        size(constant_bytes),
        count(flops as u64),
        artifacts.target.machine.name,
        artifacts.costs.len(),
        size(artifacts.plan.arena_bytes),
        size(artifacts.plan.weights_bytes),
        size(artifacts.compiled.stack_bytes()),
        crate::reply::time_ms(predicted_ms),
    );
    let sizes = json!({
        "parameters": parameters,
        "constant_bytes": constant_bytes,
        "flops": flops,
        "machine": artifacts.target.machine.name,
        "kernels": artifacts.costs.len(),
        "arena_bytes": artifacts.plan.arena_bytes,
        "weights_bytes": artifacts.plan.weights_bytes,
        "stack_bytes": artifacts.compiled.stack_bytes(),
        "predicted_ms": predicted_ms,
    });
    if let (Value::Object(object), Value::Object(sizes)) = (object, sizes) {
        object.extend(sizes);
    }
    Ok(())
}

/// Number of elements and bytes of the float constants: the trained parameters.
fn constants(graph: &Graph) -> (u64, u64) {
    let floats = graph.consts.values().filter(|t| t.ty().dtype().is_float());
    floats.fold((0, 0), |(n, bytes), t| (n + t.ty().elems(), bytes + t.ty().bytes()))
}

fn open_shapes(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        matches!(
            e.downcast_ref::<aic_frontend::ReadError>(),
            Some(aic_frontend::ReadError::Shapes(aic_frontend::ShapesError::Unbound { .. }))
        )
    })
}

fn dim_json(dim: &aic_frontend::Dim) -> Value {
    match dim {
        aic_frontend::Dim::Fixed(n) => json!(n),
        aic_frontend::Dim::Symbol(name) => json!(name),
        aic_frontend::Dim::Unknown => Value::Null,
    }
}
