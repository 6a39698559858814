//! First stage: bytes to messages, and the checks that concern the file as a whole.
//!
//! After [`decode`] the format version and the operator set are supported, every name is defined at most once, and
//! every use follows its definition ([`super::names`]). Which operators are used, and whether their operands fit, is
//! judged later.

use bytes::Bytes;
use prost::Message;

use super::functions::Functions;
use super::schema::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use super::{names, wire};
use crate::error::ReadError;

/// Operator sets that are read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=23;

/// Versions of the file format that are read. Before 3 there was no operator set; 14 is the newest published.
pub const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=14;

/// A decoded model whose structure was checked.
pub(super) struct Decoded {
    /// The graph.
    pub graph: GraphProto,
    /// Version of the standard operator set.
    pub opset: i64,
    /// The functions that the model brings along.
    pub functions: Functions,
}

/// Whether a domain is that of the standard operators.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// A domain, in the one spelling that it has here.
pub(super) fn domain(domain: &str) -> &str {
    if is_standard(domain) { "" } else { domain }
}

/// The name under which errors speak of a node: its own, or that of its first result.
pub(super) fn label(node: &NodeProto) -> &str {
    match node.name.as_str() {
        "" => node.output.iter().map(String::as_str).find(|n| !n.is_empty()).unwrap_or_default(),
        name => name,
    }
}

fn malformed(text: impl Into<String>) -> ReadError {
    ReadError::Malformed(text.into())
}

/// Decodes a model and checks its structure.
pub(super) fn decode(bytes: Bytes) -> Result<Decoded, ReadError> {
    if bytes.is_empty() {
        return Err(malformed("the file is empty"));
    }
    wire::check(&bytes).map_err(|e| malformed(e.to_string()))?;
    let model = ModelProto::decode(bytes).map_err(|e| malformed(format!("not an ONNX file, or a damaged one: {e}")))?;
    let ModelProto { ir_version, producer_name: _, graph, opset_import, functions } = model;
    let graph = graph.ok_or_else(|| malformed("not an ONNX model: it holds no graph"))?;
    if !IR_VERSIONS.contains(&ir_version) {
        let (first, last) = (IR_VERSIONS.start(), IR_VERSIONS.end());
        return Err(ReadError::Unsupported(format!("ONNX format version {ir_version}; {first} to {last} are read")));
    }
    let opset = standard_opset(&opset_import)?;
    let opset = opset.ok_or_else(|| malformed("the model imports no standard operator set (`ai.onnx`)"))?;
    if !OPSETS.contains(&opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return Err(ReadError::Unsupported(format!("operator set {opset}; {first} to {last} are read")));
    }
    names::check_graph(&graph)?;
    let functions = Functions::new(functions, opset)?;
    Ok(Decoded { graph, opset, functions })
}

/// The version of the standard operator set that is imported, if one is.
pub(super) fn standard_opset(imports: &[OperatorSetIdProto]) -> Result<Option<i64>, ReadError> {
    let mut standard = imports.iter().filter(|o| is_standard(&o.domain)).map(|o| o.version);
    let opset = standard.next();
    match standard.any(|other| Some(other) != opset) {
        true => Err(malformed("the standard operator set is imported in two versions")),
        false => Ok(opset),
    }
}
