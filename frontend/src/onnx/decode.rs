//! First stage: bytes to messages, and the checks that concern the file as a whole.
//!
//! After [`decode`] the format version and the operator set are supported, every name is defined at most once, and
//! every use follows its definition. Which operators are used, and whether their operands fit, is judged later.
//!
//! Names come from the file and could be chosen to collide in an unseeded hash, so they are kept in ordered maps.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use super::schema::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::wire;
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
    /// Domain and name of the functions that the model brings along.
    pub functions: BTreeSet<(String, String)>,
}

/// Whether a domain is that of the standard operators.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
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
    if !wire::is_proportionate(&bytes) {
        return Err(malformed("its messages would take far more memory than the file has bytes"));
    }
    let model = ModelProto::decode(bytes).map_err(|e| malformed(format!("not an ONNX file, or a damaged one: {e}")))?;
    let ModelProto { ir_version, producer_name: _, graph, opset_import, functions } = model;
    let graph = graph.ok_or_else(|| malformed("not an ONNX model: it holds no graph"))?;
    if !IR_VERSIONS.contains(&ir_version) {
        let (first, last) = (IR_VERSIONS.start(), IR_VERSIONS.end());
        return Err(ReadError::Unsupported(format!("ONNX format version {ir_version}; {first} to {last} are read")));
    }
    let mut standard = opset_import.iter().filter(|o| is_standard(&o.domain)).map(|o| o.version);
    let opset = standard.next().ok_or_else(|| malformed("the model imports no standard operator set (`ai.onnx`)"))?;
    if standard.any(|other| other != opset) {
        return Err(malformed("the model imports the standard operator set in two versions"));
    }
    if !OPSETS.contains(&opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return Err(ReadError::Unsupported(format!("operator set {opset}; {first} to {last} are read")));
    }
    check_spelling(&graph)?;
    check_names(&graph)?;
    let functions = functions.into_iter().map(|f| (f.domain, f.name)).collect();
    Ok(Decoded { graph, opset, functions })
}

/// Longest name. Names are copied to everything that a node becomes, so their size is bounded.
const MAX_NAME_BYTES: usize = 1024;

/// Names are short and hold no control characters: they go into messages, reports and the text forms, and symbols are
/// made of them.
fn check_spelling(graph: &GraphProto) -> Result<(), ReadError> {
    let infos = graph.input.iter().chain(&graph.output).flat_map(info_names);
    let constants = graph.initializer.iter().chain(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()));
    let nodes = graph.node.iter().flat_map(|node| {
        let own = [&node.name, &node.op_type, &node.domain];
        own.into_iter().chain(&node.input).chain(&node.output).chain(node.attribute.iter().map(|a| &a.name))
    });
    for name in std::iter::once(&graph.name).chain(infos).chain(constants.map(|t| &t.name)).chain(nodes) {
        if name.len() > MAX_NAME_BYTES {
            let start: String = name.chars().take(40).collect();
            let length = name.len();
            return Err(malformed(format!(
                "the name `{start}…` has {length} bytes; at most {MAX_NAME_BYTES} are read"
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(malformed(format!("the name `{name}` holds control characters")));
        }
    }
    Ok(())
}

/// The names in what is declared about an input or output: its own, and its symbols.
fn info_names(info: &ValueInfoProto) -> impl Iterator<Item = &String> {
    let shape = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let symbols = shape.into_iter().flat_map(|s| &s.dim).filter_map(|d| d.dim_param.as_ref());
    std::iter::once(&info.name).chain(symbols)
}

/// What defines a name.
#[derive(Clone, Copy, PartialEq)]
enum Definition {
    Input,
    Initializer,
    /// The node of that index.
    Node(usize),
}

/// Every name is defined once, before its first use.
fn check_names(graph: &GraphProto) -> Result<(), ReadError> {
    let mut definitions: BTreeMap<&str, Definition> = BTreeMap::new();
    for input in &graph.input {
        if input.name.is_empty() {
            return Err(malformed("an input has no name"));
        }
        if definitions.insert(&input.name, Definition::Input).is_some() {
            return Err(malformed(format!("two inputs are named `{}`", input.name)));
        }
    }
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    for initializer in graph.initializer.iter().chain(sparse) {
        if initializer.name.is_empty() {
            return Err(malformed("an initializer has no name"));
        }
        // An initializer may repeat an input's name: it was its default value before IR version 4.
        if definitions.insert(&initializer.name, Definition::Initializer) == Some(Definition::Initializer) {
            return Err(malformed(format!("two initializers are named `{}`", initializer.name)));
        }
    }
    for (index, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if definitions.insert(output, Definition::Node(index)).is_some() {
                return Err(malformed(format!("node `{}` defines `{output}`, which is defined already", label(node))));
            }
        }
    }
    for (index, node) in graph.node.iter().enumerate() {
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            match definitions.get(input.as_str()) {
                None => {
                    return Err(malformed(format!("node `{}` uses `{input}`, which nothing defines", label(node))));
                }
                Some(&Definition::Node(at)) if at >= index => {
                    return Err(malformed(format!(
                        "node `{}` uses `{input}` before node `{}` defines it: the nodes form a cycle or are out of order",
                        label(node),
                        label(&graph.node[at])
                    )));
                }
                Some(_) => {}
            }
        }
    }
    let mut outputs: BTreeSet<&str> = BTreeSet::new();
    for output in &graph.output {
        if !definitions.contains_key(output.name.as_str()) {
            return Err(malformed(format!("output `{}` is defined by nothing", output.name)));
        }
        if !outputs.insert(&output.name) {
            return Err(malformed(format!("two outputs are named `{}`", output.name)));
        }
    }
    if graph.output.is_empty() {
        return Err(malformed("the graph has no outputs"));
    }
    Ok(())
}

/// Names that the outputs depend on, and for each node whether it takes part.
pub(super) struct Liveness<'m> {
    /// Names that a live node or the graph's outputs use.
    pub used: BTreeSet<&'m str>,
    /// Per node: whether an output depends on it.
    pub live: Vec<bool>,
}

/// Walks the nodes backwards, which [`check_names`] made a reverse topological order.
pub(super) fn liveness(graph: &GraphProto) -> Liveness<'_> {
    let mut used: BTreeSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let mut live = vec![false; graph.node.len()];
    for (node, live) in graph.node.iter().zip(&mut live).rev() {
        if node.output.iter().any(|o| used.contains(o.as_str())) {
            *live = true;
            used.extend(node.input.iter().map(String::as_str).filter(|i| !i.is_empty()));
        }
    }
    Liveness { used, live }
}
