//! What a model uses, and which operators of it are not supported whatever its shapes are.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{Decoded, label};
use super::functions::Function;
use super::import::{Rules, op_name};
use super::names::{graphs, liveness};
use super::schema::{GraphProto, NodeProto};
use crate::error::RefusedNode;

/// What was found in a model.
pub(super) struct Survey<'m> {
    /// Operators and functions, and how often each is used: in a function, for all of its calls once.
    pub operators: BTreeMap<String, usize>,
    /// The nodes whose operators are not supported.
    pub refused: Vec<RefusedNode>,
    model: &'m Decoded,
    rules: Rules,
    /// Functions found, by position in `waiting`, and the user's nodes that call them.
    waiting: Vec<(&'m Function, &'m NodeProto)>,
    known: BTreeSet<usize>,
}

/// Where nodes are.
#[derive(Clone, Copy)]
struct Place<'m> {
    opset: i64,
    /// The user's node that calls the function they are in.
    call: Option<&'m NodeProto>,
    /// Whether they may be left out: they are in a branch of an `If`.
    optional: bool,
}

impl<'m> Survey<'m> {
    /// Looks at every node that an output may depend on.
    pub fn of(model: &'m Decoded) -> Self {
        let (operators, refused, waiting, known) = Default::default();
        let mut survey = Self { operators, refused, model, rules: Rules::new(), waiting, known };
        survey.graph(&model.graph, Place { opset: model.opset, call: None, optional: false });
        let mut next = 0;
        while let Some(&(function, call)) = survey.waiting.get(next) {
            let place = Place { opset: function.opset, call: Some(call), optional: false };
            survey.nodes(&function.proto.node, function.proto.output.iter().map(String::as_str), place);
            next += 1;
        }
        survey
    }

    fn graph(&mut self, graph: &'m GraphProto, place: Place<'m>) {
        self.nodes(&graph.node, graph.output.iter().map(|o| o.name.as_str()), place);
    }

    fn nodes(&mut self, nodes: &'m [NodeProto], outputs: impl Iterator<Item = &'m str>, place: Place<'m>) {
        let live = liveness(nodes, outputs).live;
        for (node, _) in nodes.iter().zip(live).filter(|&(_, live)| live) {
            *self.operators.entry(op_name(node)).or_insert(0) += 1;
            match self.model.functions.called_by(node) {
                Some(function) => {
                    if self.known.insert(std::ptr::from_ref(function).addr()) {
                        self.waiting.push((function, place.call.unwrap_or(node)));
                    }
                }
                None => {
                    let named = place.call.unwrap_or(node);
                    if let Err(reason) = self.rules.of(node, place.opset)
                        && !place.optional
                    {
                        self.refused.push(reason.at(label(named), op_name(node)));
                    }
                }
            }
            let optional = place.optional || node.op_type == "If";
            graphs(node).for_each(|graph| self.graph(graph, Place { optional, ..place }));
        }
    }
}
