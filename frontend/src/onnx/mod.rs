//! ONNX files: operator sets 7 to 23 (<https://onnx.ai/onnx/>).
//!
//! A model is read in stages:
//!
//! ```text
//! bytes ─decode─▶ messages, names checked ─shapes─▶ static input types ─import─▶ graph
//! ```
//!
//! Weights stay ranges of the file's buffer. Nodes that no output depends on are left out, and arithmetic on shapes is
//! evaluated on the way (see `crate::fold`), so that `Reshape` and its kin get the constants they need. Nodes are visited in
//! the file's order, in one loop: time and memory are proportional to the file.

mod context;
mod decode;
mod import;
mod inputs;
mod ops;
pub mod schema;
mod tensor;
mod wire;

use std::collections::BTreeMap;

use aic_ir::graph::Graph;
use bytes::Bytes;

pub use decode::{IR_VERSIONS, OPSETS};
pub use ops::{OpRule, supported};

use crate::error::{ReadError, RefusedNode};
use crate::files::Files;
use crate::shapes::{self, ShapeBindings};
use crate::{Inspection, Refused};

/// Reads a model with its dynamic dimensions fixed. `files` is the model's folder, for external data.
///
/// # Errors
/// When the file is malformed, dimensions stay open, or nodes are not supported, all of which are listed.
pub fn read(bytes: Bytes, files: &dyn Files, bindings: &ShapeBindings) -> Result<Graph, ReadError> {
    let file_bytes = bytes.len() as u64;
    let decoded = decode::decode(bytes)?;
    let inputs = import::declared_inputs(&decoded.graph)?;
    let types = shapes::resolve(&inputs, bindings, &[])?;
    let liveness = decode::liveness(&decoded.graph);
    import::import(&decoded, &liveness, &inputs, types, files, file_bytes)
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
    let liveness = decode::liveness(&decoded.graph);
    let live = || decoded.graph.node.iter().zip(&liveness.live).filter(|&(_, &live)| live).map(|(node, _)| node);
    let mut operators = BTreeMap::new();
    for node in live() {
        *operators.entry(import::op_name(node)).or_insert(0) += 1;
    }
    let refused: Vec<RefusedNode> = match shapes::resolve(&inputs, bindings, &[]) {
        Ok(types) => match import::import(&decoded, &liveness, &inputs, types, files, file_bytes) {
            Ok(_) => Vec::new(),
            Err(ReadError::Refused(Refused { nodes })) => nodes,
            Err(error) => return Err(error),
        },
        Err(shapes::ShapesError::Unbound { .. }) => {
            let rules = import::Rules::new();
            let judge = |node| Some(rules.of(node, &decoded).err()?.at(decode::label(node), import::op_name(node)));
            live().filter_map(judge).collect()
        }
        Err(error) => return Err(error.into()),
    };
    let outputs = decoded.graph.output.iter().map(|o| o.name.clone()).collect();
    Ok(Inspection { inputs, outputs, operators, refused })
}
