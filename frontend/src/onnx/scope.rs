//! What the names of a model stand for: scopes of names, and bodies of loops, which are graphs of their own.
//!
//! Importing a graph inside a node, or a function, opens a scope. Names are looked up from the innermost scope outwards,
//! up to that of the function that is open; a function sees nothing of its callers. The body of a loop is built as a
//! graph of its own, so that a value from around it enters as a further input, or as a constant where it is a small one:
//! the importer must know the numbers that operators need.

use std::collections::BTreeMap;

use aic_ir::graph::{Graph, Value};

use super::import::Importer;
use crate::builder::{Outer, Reason};
use crate::fold;

/// What a name of the model stands for.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Value(Value),
    /// Nothing: an optional operand of a function that its call omits.
    Absent,
    /// The result of a refused node, or of one that depends on it.
    Refused,
}

impl Slot {
    /// The value, if it is one.
    pub fn value(self) -> Option<Value> {
        match self {
            Slot::Value(value) => Some(value),
            Slot::Absent | Slot::Refused => None,
        }
    }
}

/// Most scopes inside each other, which bounds the importer's recursion.
const MAX_SCOPES: usize = 64;

/// The names of one graph or function.
pub(super) struct Scope<'m> {
    names: BTreeMap<&'m str, Slot>,
    /// How many bodies are open around the values of this scope.
    level: usize,
    /// Whether names of the scopes around this one are hidden.
    is_function: bool,
}

/// A body that is being built.
pub(super) struct OpenBody {
    /// What was built before, around it.
    outer: Outer,
    /// Values from around the body, in the order of the inputs that stand for them.
    captured: Vec<Value>,
    /// What stands in the body for a value from around it.
    known: BTreeMap<Value, Value>,
}

impl<'m> Importer<'m> {
    pub fn open_scope(&mut self, is_function: bool) -> Result<(), Reason> {
        if self.scopes.len() >= MAX_SCOPES {
            return Err(format!("graphs and functions are nested more than {MAX_SCOPES} deep").into());
        }
        self.scopes.push(Scope { names: BTreeMap::new(), level: self.bodies.len(), is_function });
        Ok(())
    }

    pub fn close_scope(&mut self) {
        self.scopes.pop();
    }

    /// Whether nodes are those of the model's own graph, outside of functions and graphs in nodes.
    pub fn in_main_graph(&self) -> bool {
        self.scopes.len() == 1
    }

    /// Gives a name its meaning in the innermost scope.
    pub fn define(&mut self, name: &'m str, slot: Slot) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name, slot);
        }
    }

    /// What a name stands for, as a value of the graph that is being built.
    pub fn resolve(&mut self, name: &str) -> Slot {
        if name.is_empty() {
            return Slot::Absent;
        }
        for scope in self.scopes.iter().rev() {
            match scope.names.get(name) {
                Some(&Slot::Value(value)) => {
                    let level = scope.level;
                    return Slot::Value(self.capture(value, level));
                }
                Some(&other) => return other,
                None if scope.is_function => break,
                None => {}
            }
        }
        // Names were checked, so the node that defines this one was not reached.
        Slot::Refused
    }

    /// The value that stands for `value`, of the graph with `level` bodies around it, in the innermost body.
    fn capture(&mut self, mut value: Value, level: usize) -> Value {
        for at in level..self.bodies.len() {
            let (open, inner) = self.bodies.split_at_mut(at + 1);
            let Some(body) = open.last_mut() else { return value };
            let graph = inner.first_mut().map_or(&mut self.builder.graph, |inner| &mut inner.outer.graph);
            value = *body.known.entry(value).or_insert_with(|| {
                let around = &body.outer.graph;
                match around.const_of(value).filter(|t| t.ty().elems() <= fold::MAX_ELEMS) {
                    Some(tensor) => graph.add_const("", tensor.clone()),
                    None => {
                        let name = format!("outer{}", body.captured.len());
                        body.captured.push(value);
                        graph.add_input(name, around.ty(value).clone())
                    }
                }
            });
        }
        value
    }

    /// Starts the graph of a body; what is imported from now on goes there.
    pub fn open_body(&mut self) {
        let outer = self.builder.enter_body();
        self.bodies.push(OpenBody { outer, captured: Vec::new(), known: BTreeMap::new() });
    }

    /// Ends the innermost body: its graph, and the values from around it that stand for its last inputs.
    pub fn close_body(&mut self) -> (Graph, Vec<Value>) {
        match self.bodies.pop() {
            Some(body) => (self.builder.leave_body(body.outer), body.captured),
            None => (Graph::default(), Vec::new()),
        }
    }
}
