//! ONNX files: operator sets 7 to 23 (<https://onnx.ai/onnx/>).
//!
//! A model is read in stages:
//!
//! ```text
//! bytes ─decode─▶ messages, names checked ─shapes─▶ static input types ─import─▶ graph
//! ```
//!
//! Weights stay ranges of the file's buffer. Nodes that no output depends on are left out, and arithmetic on shapes is
//! evaluated on the way (see `crate::fold`), so that `Reshape` and its kin get the constants they need. Functions of the
//! model and graphs inside of nodes are imported where they are used. Nodes are visited in the file's order, and those of
//! functions and bodies are counted: time and memory are proportional to the file.

mod context;
mod control;
mod decode;
mod functions;
mod import;
mod inputs;
mod names;
mod ops;
mod scan;
pub mod schema;
mod scope;
mod sparse;
mod survey;
mod tensor;
mod wire;

use aic_ir::graph::Graph;
use bytes::Bytes;

pub use decode::{IR_VERSIONS, OPSETS};
pub use ops::{OpRule, REFUSED, Refusal, supported};

use crate::error::{ReadError, RefusedNode};
use crate::files::Files;
use crate::shapes::{self, ShapeBindings};

use crate::{Inspection, Refused};
use survey::Survey;

/// Reads a model with its dynamic dimensions fixed. `files` is the model's folder, for external data.
///
/// # Errors
/// When the file is malformed, dimensions stay open, or nodes are not supported, all of which are listed.
pub fn read(bytes: Bytes, files: &dyn Files, bindings: &ShapeBindings) -> Result<Graph, ReadError> {
    let file_bytes = bytes.len() as u64;
    let decoded = decode::decode(bytes)?;
    let inputs = import::declared_inputs(&decoded.graph)?;
    let types = shapes::resolve(&inputs, bindings, &[])?;
    import::import(&decoded, &inputs, types, files, file_bytes)
}

/// What a model declares, and what of it would be refused: judged by operators alone while dimensions are open, and by
/// reading the model once `bindings` fix them.
///
/// # Errors
/// When the file is malformed, or bindings do not fit it.
pub fn inspect(bytes: Bytes, files: &dyn Files, bindings: &ShapeBindings) -> Result<Inspection, ReadError> {
    let file_bytes = bytes.len() as u64;
    let decoded = decode::decode(bytes)?;
    let inputs = import::declared_inputs(&decoded.graph)?;
    let Survey { operators, refused, .. } = Survey::of(&decoded);
    let refused: Vec<RefusedNode> = match shapes::resolve(&inputs, bindings, &[]) {
        Ok(types) => match import::import(&decoded, &inputs, types, files, file_bytes) {
            Ok(_) => Vec::new(),
            Err(ReadError::Refused(Refused { nodes })) => nodes,
            Err(error) => return Err(error),
        },
        Err(shapes::ShapesError::Unbound { .. }) => refused,
        Err(error) => return Err(error.into()),
    };
    let outputs = decoded.graph.output.iter().map(|o| o.name.clone()).collect();
    Ok(Inspection { inputs, outputs, operators, unused: Vec::new(), refused })
}
