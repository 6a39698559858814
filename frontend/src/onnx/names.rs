//! Names of the file: their spelling, that each is defined once before its use, and which of them the outputs need.
//!
//! A graph inside a node's attribute sees the names that are defined around the node; a function sees its own only. A
//! name that is defined in a graph hides one of the graphs around it, from the graph's first node on.
//!
//! Names come from the file and could be chosen to collide in an unseeded hash, so they are kept in ordered maps.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::label;
use super::schema::{AttributeProto, FunctionProto, GraphProto, NodeProto, SparseTensorProto, ValueInfoProto};
use crate::error::ReadError;

/// Longest name. Names are copied to everything that a node becomes, so their size is bounded.
const MAX_NAME_BYTES: usize = 1024;

fn malformed(text: impl Into<String>) -> ReadError {
    ReadError::Malformed(text.into())
}

/// Checks the names of a graph and of those inside it.
pub(super) fn check_graph(graph: &GraphProto) -> Result<(), ReadError> {
    graph_spelling(graph)?;
    if let Some(name) = first_repeated(graph.output.iter().map(|o| &o.name)) {
        return Err(malformed(format!("two outputs are named `{name}`")));
    }
    if graph.output.is_empty() {
        return Err(malformed("the graph has no outputs"));
    }
    Definitions(Vec::new()).graph(graph)
}

/// Checks the names of a function.
pub(super) fn check_function(function: &FunctionProto) -> Result<(), ReadError> {
    let own = [&function.name, &function.domain, &function.overload];
    let names = own.into_iter().chain(&function.input).chain(&function.output).chain(&function.attribute);
    names.chain(function.attribute_proto.iter().map(|a| &a.name)).try_for_each(|name| spelling(name))?;
    nodes_spelling(&function.node)?;
    let inside = |error| match error {
        ReadError::Malformed(text) => malformed(format!("function `{}`: {text}", function.name)),
        other => other,
    };
    if let Some(name) = first_repeated(function.output.iter()) {
        return Err(inside(malformed(format!("two outputs are named `{name}`"))));
    }
    Definitions(Vec::new()).function(function).map_err(inside)
}

fn first_repeated<'m>(mut names: impl Iterator<Item = &'m String>) -> Option<&'m String> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(name.as_str()))
}

/// The graphs in a node's attributes.
pub(super) fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|a| a.g.as_deref())
}

/// Names are short and hold no control characters: they go into messages, reports and the text forms, and symbols are
/// made of them.
fn spelling(name: &str) -> Result<(), ReadError> {
    if name.len() > MAX_NAME_BYTES {
        let start: String = name.chars().take(40).collect();
        let length = name.len();
        return Err(malformed(format!("the name `{start}…` has {length} bytes; at most {MAX_NAME_BYTES} are read")));
    }
    match name.chars().any(char::is_control) {
        true => Err(malformed(format!("the name `{name}` holds control characters"))),
        false => Ok(()),
    }
}

fn graph_spelling(graph: &GraphProto) -> Result<(), ReadError> {
    let infos = graph.input.iter().chain(&graph.output).flat_map(info_names);
    let constants = graph.initializer.iter().map(|t| &t.name).chain(sparse_names(&graph.sparse_initializer));
    std::iter::once(&graph.name).chain(infos).chain(constants).try_for_each(|name| spelling(name))?;
    nodes_spelling(&graph.node)
}

/// Graphs nest no deeper than the decoder lets them, so recursion is bounded.
fn nodes_spelling(nodes: &[NodeProto]) -> Result<(), ReadError> {
    for node in nodes {
        let own = [&node.name, &node.op_type, &node.domain, &node.overload];
        let attributes = node.attribute.iter().flat_map(|a: &AttributeProto| [&a.name, &a.ref_attr_name]);
        let names = own.into_iter().chain(&node.input).chain(&node.output).chain(attributes);
        names.into_iter().try_for_each(|name| spelling(name))?;
        graphs(node).try_for_each(graph_spelling)?;
    }
    Ok(())
}

/// The names in what is declared about an input or output: its own, and its symbols.
fn info_names(info: &ValueInfoProto) -> impl Iterator<Item = &String> {
    let shape = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let symbols = shape.into_iter().flat_map(|s| &s.dim).filter_map(|d| d.dim_param.as_ref());
    std::iter::once(&info.name).chain(symbols)
}

/// Names of sparse constants.
fn sparse_names(constants: &[SparseTensorProto]) -> impl Iterator<Item = &String> {
    constants.iter().filter_map(|s| s.values.as_ref()).map(|t| &t.name)
}

/// What defines a name.
#[derive(Clone, Copy, PartialEq)]
enum Definition {
    Input,
    Initializer,
    /// The node of that index.
    Node(usize),
}

/// The names of one graph.
struct Names<'m> {
    nodes: &'m [NodeProto],
    defined: BTreeMap<&'m str, Definition>,
    /// The node that is checked; graphs in its attributes see what was defined before it.
    at: usize,
}

/// The names of the graph that is checked, behind those of the graphs around it.
struct Definitions<'m>(Vec<Names<'m>>);

impl<'m> Definitions<'m> {
    fn function(&mut self, function: &'m FunctionProto) -> Result<(), ReadError> {
        let inputs = function.input.iter().map(String::as_str);
        self.body(inputs, std::iter::empty(), &function.node, function.output.iter().map(String::as_str))
    }

    fn graph(&mut self, graph: &'m GraphProto) -> Result<(), ReadError> {
        let inputs = graph.input.iter().map(|i| i.name.as_str());
        let initializers = graph.initializer.iter().map(|t| &t.name).chain(sparse_names(&graph.sparse_initializer));
        let outputs = graph.output.iter().map(|o| o.name.as_str());
        self.body(inputs, initializers.map(String::as_str), &graph.node, outputs)
    }

    fn body(
        &mut self,
        inputs: impl Iterator<Item = &'m str>,
        initializers: impl Iterator<Item = &'m str>,
        nodes: &'m [NodeProto],
        outputs: impl Iterator<Item = &'m str>,
    ) -> Result<(), ReadError> {
        let mut defined: BTreeMap<&str, Definition> = BTreeMap::new();
        for input in inputs {
            if input.is_empty() {
                return Err(malformed("an input has no name"));
            }
            if defined.insert(input, Definition::Input).is_some() {
                return Err(malformed(format!("two inputs are named `{input}`")));
            }
        }
        for initializer in initializers {
            if initializer.is_empty() {
                return Err(malformed("an initializer has no name"));
            }
            // An initializer may repeat an input's name: it was its default value before IR version 4.
            if defined.insert(initializer, Definition::Initializer) == Some(Definition::Initializer) {
                return Err(malformed(format!("two initializers are named `{initializer}`")));
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                if defined.insert(output, Definition::Node(index)).is_some() {
                    return Err(malformed(format!(
                        "node `{}` defines `{output}`, which is defined already",
                        label(node)
                    )));
                }
            }
        }
        self.0.push(Names { nodes, defined, at: 0 });
        for (index, node) in nodes.iter().enumerate() {
            if let Some(names) = self.0.last_mut() {
                names.at = index;
            }
            for input in node.input.iter().filter(|i| !i.is_empty()) {
                self.used_by(node, input)?;
            }
            for graph in graphs(node) {
                self.graph(graph)?;
            }
        }
        if let Some(names) = self.0.last_mut() {
            names.at = nodes.len();
        }
        for output in outputs {
            if self.find(output).is_none() {
                return Err(malformed(format!("output `{output}` is defined by nothing")));
            }
        }
        self.0.pop();
        Ok(())
    }

    /// The innermost graph that defines a name, and what does.
    fn find(&self, name: &str) -> Option<(&Names<'m>, Definition)> {
        self.0.iter().rev().find_map(|names| names.defined.get(name).map(|&d| (names, d)))
    }

    fn used_by(&self, node: &NodeProto, name: &str) -> Result<(), ReadError> {
        match self.find(name) {
            None => Err(malformed(format!("node `{}` uses `{name}`, which nothing defines", label(node)))),
            Some((names, Definition::Node(at))) if at >= names.at => Err(malformed(format!(
                "node `{}` uses `{name}` before node `{}` defines it: the nodes form a cycle or are out of order",
                label(node),
                names.nodes.get(at).map(label).unwrap_or_default()
            ))),
            Some(_) => Ok(()),
        }
    }
}

/// Names that the outputs of a graph depend on, and for each node whether it takes part.
pub(super) struct Liveness<'m> {
    /// Names that a live node or the graph's outputs use.
    pub used: BTreeSet<&'m str>,
    /// Per node: whether an output depends on it.
    pub live: Vec<bool>,
}

/// Walks the nodes backwards, which the checks above made a reverse topological order.
pub(super) fn liveness<'m>(nodes: &'m [NodeProto], outputs: impl Iterator<Item = &'m str>) -> Liveness<'m> {
    let mut used: BTreeSet<&str> = outputs.collect();
    let mut live = vec![false; nodes.len()];
    for (node, live) in nodes.iter().zip(&mut live).rev() {
        if node.output.iter().any(|o| used.contains(o.as_str())) {
            *live = true;
            use_all(node, &mut used);
        }
    }
    Liveness { used, live }
}

/// Adds the names that a node and the graphs inside it use, those that are defined inside among them: what else has
/// such a name is live without need, which does no harm.
fn use_all<'m>(node: &'m NodeProto, used: &mut BTreeSet<&'m str>) {
    used.extend(node.input.iter().map(String::as_str).filter(|i| !i.is_empty()));
    for graph in graphs(node) {
        used.extend(graph.output.iter().map(|o| o.name.as_str()));
        graph.node.iter().for_each(|node| use_all(node, used));
    }
}
