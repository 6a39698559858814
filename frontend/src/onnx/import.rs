//! Last stage: node by node into the graph.
//!
//! The nodes are in topological order, so one pass suffices. Calls of functions and graphs inside of nodes are imported
//! where they stand ([`super::scope`], [`super::control`]); their depth is bounded, and every node that is imported
//! because of one is counted, so that a few bytes cannot ask for endless work.
//!
//! A node that is refused marks its results, and what uses them is skipped silently: one missing operator gives one
//! line in the error, not a thousand. A model is refused if an output depends on a refused node.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use aic_ir::graph::{Graph, Value};
use aic_ir::types::{DType, Tensor, TensorType};

use super::context::NodeContext;
use super::decode::{Decoded, OPSETS, is_standard, label};
use super::functions::Function;
use super::names::{self, Liveness};
use super::ops::{self, Import, OpRule};
use super::schema::{AttributeProto, GraphProto, NodeProto};
use super::scope::{OpenBody, Scope, Slot};
use super::sparse;
use super::tensor::{self, TensorError};
use crate::builder::{Builder, Reason};
use crate::error::{ReadError, Refused, RefusedNode};
use crate::files::Files;
use crate::shapes::InputInfo;

/// Operators by name.
pub(super) struct Rules(BTreeMap<&'static str, &'static OpRule>);

impl Rules {
    pub fn new() -> Self {
        Self(ops::supported().map(|rule| (rule.name, rule)).collect())
    }

    /// The rule of a node's operator, if number of operands and attributes are what it knows.
    pub fn of(&self, node: &NodeProto, opset: i64) -> Result<&'static OpRule, Reason> {
        if let Some(reason) = ops::refusal(&node.op_type) {
            return Err(format!("the operator is not supported: {reason}").into());
        }
        if !is_standard(&node.domain) {
            return Err(format!("operators of domain `{}` are not supported", node.domain).into());
        }
        let rule = *self.0.get(node.op_type.as_str()).ok_or("the operator is not supported")?;
        let (since, until) = (rule.since, rule.until);
        if opset < since {
            return Err(
                format!("the operator is supported from operator set {since} on; the model uses {opset}").into()
            );
        }
        if opset > until {
            return Err(format!("the operator is supported up to operator set {until}; the model uses {opset}").into());
        }
        let given = node.input.len();
        let (least, most) = rule.operands;
        if given < least || given > most || node.input[..least].iter().any(String::is_empty) {
            return Err(match most {
                _ if least == most => format!("takes {least} operands, but {given} are given").into(),
                usize::MAX => format!("takes at least {least} operands, but {given} are given").into(),
                _ => format!("takes {least} to {most} operands, but {given} are given").into(),
            });
        }
        for (index, attribute) in node.attribute.iter().enumerate() {
            if !rule.attributes.contains(&attribute.name.as_str()) {
                return Err(format!("attribute `{}` is not supported", attribute.name).into());
            }
            // Bounded, since all attributes before were known and different.
            if node.attribute[..index].iter().any(|a| a.name == attribute.name) {
                return Err(format!("attribute `{}` is given twice", attribute.name).into());
            }
        }
        Ok(rule)
    }
}

/// Name of a node's operator for errors: with its domain unless that is the standard one.
pub(super) fn op_name(node: &NodeProto) -> String {
    if is_standard(&node.domain) { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) }
}

/// The graph's inputs: those that no initializer gives a value.
pub(super) fn declared_inputs(graph: &GraphProto) -> Result<Vec<InputInfo>, ReadError> {
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    let initialized: BTreeSet<&str> = graph.initializer.iter().chain(sparse).map(|t| t.name.as_str()).collect();
    let mut inputs = Vec::new();
    let mut refused = Vec::new();
    for input in graph.input.iter().filter(|i| !initialized.contains(i.name.as_str())) {
        match super::inputs::input_info(input) {
            Ok(info) => inputs.push(info),
            Err(reason) => refused.push(reason.at(&input.name, "graph input")),
        }
    }
    if refused.is_empty() { Ok(inputs) } else { Err(Refused { nodes: refused }.into()) }
}

/// How many reasons for one call are compared, so that none is given twice.
const SHOWN_REFUSALS: usize = 16;

/// What the operator of a node is.
enum Target<'m> {
    Rule(&'static OpRule),
    Function(&'m Function),
}

/// A call of a function that is being imported.
struct Call<'m> {
    node: &'m NodeProto,
    function: &'m Function,
    /// The attributes of the function that have a value.
    attributes: BTreeMap<&'m str, &'m AttributeProto>,
    /// How many nodes were refused before.
    refused_before: usize,
}

/// A model on its way into the graph.
pub(super) struct Importer<'m> {
    pub builder: Builder,
    pub scopes: Vec<Scope<'m>>,
    pub bodies: Vec<OpenBody>,
    pub refused: Vec<RefusedNode>,
    /// By the address of a body: how often it could not be that of a scan.
    pub no_scans: BTreeMap<usize, u32>,
    model: &'m Decoded,
    files: &'m dyn Files,
    rules: Rules,
    calls: Vec<Call<'m>>,
    /// By the address of the nodes: a body is imported once for each of its iterations.
    liveness: BTreeMap<usize, Rc<Liveness<'m>>>,
}

/// Imports a model whose inputs have the given types.
pub(super) fn import<'m>(
    model: &'m Decoded,
    inputs: &'m [InputInfo],
    types: Vec<TensorType>,
    files: &'m dyn Files,
    file_bytes: u64,
) -> Result<Graph, ReadError> {
    let proto = &model.graph;
    let mut importer = Importer {
        builder: Builder::new(&proto.name, file_bytes),
        scopes: Vec::new(),
        bodies: Vec::new(),
        refused: Vec::new(),
        no_scans: BTreeMap::new(),
        model,
        files,
        rules: Rules::new(),
        calls: Vec::new(),
        liveness: BTreeMap::new(),
    };
    importer.open_scope(false).map_err(|Reason(text)| ReadError::Malformed(text))?;
    for (input, ty) in inputs.iter().zip(types) {
        let value = importer.builder.graph.add_input(&input.name, ty);
        importer.define(&input.name, Slot::Value(value));
    }
    let liveness = importer.liveness(&proto.node, proto.output.iter().map(|o| o.name.as_str()));
    importer.initializers(proto, &liveness)?;
    importer.nodes(&proto.node, &liveness);
    match importer.outputs(proto) {
        true => Ok(importer.builder.graph),
        false => Err(Refused { nodes: importer.refused }.into()),
    }
}

impl<'m> Importer<'m> {
    fn liveness(&mut self, nodes: &'m [NodeProto], outputs: impl Iterator<Item = &'m str>) -> Rc<Liveness<'m>> {
        let known = self.liveness.entry(nodes.as_ptr().addr());
        Rc::clone(known.or_insert_with(|| Rc::new(names::liveness(nodes, outputs))))
    }

    fn initializers(&mut self, proto: &'m GraphProto, liveness: &Liveness<'m>) -> Result<(), ReadError> {
        let used = |name: &str| liveness.used.contains(name);
        for initializer in proto.initializer.iter().filter(|t| used(&t.name)) {
            let tensor = tensor::tensor(initializer, &initializer.name, self.files, &mut self.builder);
            self.initializer(&initializer.name, tensor)?;
        }
        for sparse in &proto.sparse_initializer {
            let Some(values) = sparse.values.as_ref().filter(|t| used(&t.name)) else { continue };
            let tensor = sparse::tensor(sparse, &values.name, self.files, &mut self.builder);
            self.initializer(&values.name, tensor)?;
        }
        Ok(())
    }

    fn initializer(&mut self, name: &'m str, tensor: Result<Tensor, TensorError>) -> Result<(), ReadError> {
        let slot = match tensor {
            Ok(tensor) => {
                Slot::Value(self.builder.graph.add_const(if self.in_main_graph() { name } else { "" }, tensor))
            }
            Err(TensorError::Broken(error)) => return Err(error),
            Err(TensorError::DType(dtype)) => {
                let reason = Reason(format!("element type {dtype} is not supported"));
                self.refused.push(reason.at(name, "initializer"));
                Slot::Refused
            }
        };
        self.define(name, slot);
        Ok(())
    }

    /// Imports the nodes that the outputs of their graph depend on.
    fn nodes(&mut self, nodes: &'m [NodeProto], liveness: &Liveness<'m>) {
        for (node, _) in nodes.iter().zip(&liveness.live).filter(|&(_, &live)| live) {
            // Without this, every further node would be refused for the same reason.
            if self.builder.is_exhausted() {
                break;
            }
            self.node(node, liveness);
        }
    }

    fn node(&mut self, node: &'m NodeProto, liveness: &Liveness<'m>) {
        let mut operands = Vec::with_capacity(node.input.len());
        let mut poisoned = false;
        for name in &node.input {
            match self.resolve(name) {
                Slot::Value(value) => operands.push(Some(value)),
                Slot::Absent => operands.push(None),
                Slot::Refused => poisoned = true,
            }
        }
        // The operator of a node without operands is judged even so.
        let results = self.target(node).and_then(|target| match poisoned {
            true => Ok(Vec::new()),
            false => self.apply(target, node, &operands, liveness),
        });
        let results = results.unwrap_or_else(|reason| {
            self.refuse(node, reason);
            Vec::new()
        });
        for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            self.define(name, results.get(index).copied().unwrap_or(Slot::Refused));
        }
    }

    fn target(&self, node: &NodeProto) -> Result<Target<'m>, Reason> {
        let opset = self.calls.last().map_or(self.model.opset, |call| call.function.opset);
        match self.model.functions.called_by(node) {
            Some(function) => Ok(Target::Function(function)),
            None => self.rules.of(node, opset).map(Target::Rule),
        }
    }

    /// Notes a refused node under the name that the user knows: inside of a function, that of the outermost call.
    fn refuse(&mut self, node: &NodeProto, reason: Reason) {
        let Some(call) = self.calls.first() else {
            self.refused.push(reason.at(label(node), op_name(node)));
            return;
        };
        let function = self.calls.last().map_or("", |inner| &inner.function.proto.name);
        let text = format!("in function `{function}`, `{}` ({}): {}", label(node), op_name(node), reason.0);
        let known = self.refused.get(call.refused_before..).unwrap_or_default();
        // A function may be called by a function any number of times.
        if !known.iter().take(SHOWN_REFUSALS).any(|r| r.reason == text) {
            self.refused.push(Reason(text).at(label(call.node), op_name(call.node)));
        }
    }

    /// Imports one node.
    fn apply(
        &mut self,
        target: Target<'m>,
        node: &'m NodeProto,
        operands: &[Option<Value>],
        liveness: &Liveness<'m>,
    ) -> Result<Vec<Slot>, Reason> {
        if !self.in_main_graph() {
            self.builder.step()?;
        }
        let first_new = self.builder.graph.values.next_key();
        self.label_nodes(node);
        let results = match target {
            Target::Function(function) => self.call(function, node, operands)?,
            Target::Rule(rule) => self.apply_rule(rule, node, operands)?,
        };
        let extra = node.output.iter().skip(results.len()).find(|o| liveness.used.contains(o.as_str()));
        if let Some(extra) = extra {
            return Err(format!("the result `{extra}` is not supported").into());
        }
        if self.in_main_graph() {
            for (name, &slot) in node.output.iter().zip(&results) {
                let Slot::Value(value) = slot else { continue };
                let data = &mut self.builder.graph.values[value];
                if value >= first_new && data.name.is_empty() {
                    data.name.clone_from(name);
                }
            }
        }
        Ok(results)
    }

    /// Imports one node of a supported operator.
    fn apply_rule(
        &mut self,
        rule: &OpRule,
        node: &'m NodeProto,
        operands: &[Option<Value>],
    ) -> Result<Vec<Slot>, Reason> {
        ops::check_operands(rule, node, operands, &self.builder)?;
        let values = match rule.import {
            Import::One(import) => vec![import(&mut self.context(node, operands))?],
            Import::Many(import) => import(&mut self.context(node, operands))?,
            Import::Graphs(import) => return import(self, node, operands),
        };
        ops::check_result(rule, &values, &self.builder)?;
        Ok(values.into_iter().map(Slot::Value).collect())
    }

    /// Names what is built from here on after a node, or after the outermost call that it is imported for.
    pub fn label_nodes(&mut self, node: &NodeProto) {
        let node = self.calls.first().map_or(node, |call| call.node);
        self.builder.node_name.clear();
        self.builder.node_name.push_str(label(node));
    }

    /// What the importer of a node sees.
    pub fn context<'a>(&'a mut self, node: &'a NodeProto, operands: &'a [Option<Value>]) -> NodeContext<'a> {
        let call = self.calls.last();
        NodeContext {
            builder: &mut self.builder,
            node,
            files: self.files,
            opset: call.map_or(self.model.opset, |call| call.function.opset),
            operands,
            references: call.map(|call| &call.attributes),
        }
    }

    /// Imports a function in place of its call.
    fn call(
        &mut self,
        function: &'m Function,
        node: &'m NodeProto,
        operands: &[Option<Value>],
    ) -> Result<Vec<Slot>, Reason> {
        let Function { proto, opset } = function;
        let name = &proto.name;
        if self.calls.iter().any(|call| std::ptr::eq(call.function, function)) {
            return Err(format!("function `{name}` calls itself").into());
        }
        if !OPSETS.contains(opset) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(format!("its function is of operator set {opset}; {first} to {last} are read").into());
        }
        if operands.len() > proto.input.len() {
            let (most, given) = (proto.input.len(), operands.len());
            return Err(format!("its function takes {most} operands, but {given} are given").into());
        }
        let attributes = self.call_attributes(function, node)?;
        self.open_scope(true)?;
        let slots = operands.iter().map(|operand| operand.map_or(Slot::Absent, Slot::Value));
        for (input, slot) in proto.input.iter().zip(slots.chain(std::iter::repeat(Slot::Absent))) {
            self.define(input, slot);
        }
        self.calls.push(Call { node, function, attributes, refused_before: self.refused.len() });
        let liveness = self.liveness(&proto.node, proto.output.iter().map(String::as_str));
        self.nodes(&proto.node, &liveness);
        let results = proto.output.iter().map(|name| self.resolve(name)).collect();
        self.calls.pop();
        self.close_scope();
        Ok(results)
    }

    /// The values of a function's attributes: those of the call, which may be those of the call around it, or defaults.
    fn call_attributes(
        &self,
        function: &'m Function,
        node: &'m NodeProto,
    ) -> Result<BTreeMap<&'m str, &'m AttributeProto>, Reason> {
        let proto = &function.proto;
        let mut attributes: BTreeMap<&str, &AttributeProto> =
            proto.attribute_proto.iter().map(|a| (a.name.as_str(), a)).collect();
        let declared: BTreeSet<&str> =
            proto.attribute.iter().map(String::as_str).chain(attributes.keys().copied()).collect();
        for attribute in &node.attribute {
            let name = attribute.name.as_str();
            if !declared.contains(name) {
                return Err(format!("its function has no attribute `{name}`").into());
            }
            let value = match attribute.ref_attr_name.as_str() {
                "" => Some(attribute),
                outer => self.calls.last().and_then(|call| call.attributes.get(outer).copied()),
            };
            if let Some(value) = value {
                attributes.insert(name, value);
            }
        }
        Ok(attributes)
    }

    /// Imports a graph inside of a node, with values for its inputs.
    pub fn subgraph(&mut self, graph: &'m GraphProto, inputs: &[Slot]) -> Result<Vec<Slot>, Reason> {
        if graph.input.len() != inputs.len() {
            let takes = graph.input.len();
            return Err(format!("graph `{}` takes {takes} inputs instead of {}", graph.name, inputs.len()).into());
        }
        self.open_scope(false)?;
        for (input, &slot) in graph.input.iter().zip(inputs) {
            self.define(&input.name, slot);
        }
        let liveness = self.liveness(&graph.node, graph.output.iter().map(|o| o.name.as_str()));
        let initializers = self.initializers(graph, &liveness);
        if initializers.is_ok() {
            self.nodes(&graph.node, &liveness);
        }
        let results = graph.output.iter().map(|o| self.resolve(&o.name)).collect();
        self.close_scope();
        initializers.map(|()| results).map_err(|e| Reason(e.to_string()))
    }

    /// Declares the outputs; whether all could be.
    fn outputs(&mut self, proto: &'m GraphProto) -> bool {
        for output in &proto.output {
            let name = &output.name;
            let value = match self.resolve(name) {
                Slot::Value(value) => value,
                Slot::Absent => {
                    self.refuse_output(name, "is an omitted operand of a function".to_owned());
                    continue;
                }
                Slot::Refused => continue,
            };
            let declared = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map(|t| t.elem_type);
            // Declared shapes of outputs are often stale; the inferred ones hold.
            match declared.filter(|&number| number != 0).map(tensor::dtype) {
                Some(Err(dtype)) => self.refuse_output(name, format!("element type {dtype} is not supported")),
                Some(Ok(dtype)) if dtype != self.builder.dtype(value) => self.refuse_output_type(name, dtype, value),
                _ => self.builder.graph.add_output(name, value),
            }
        }
        self.builder.graph.outputs.len() == proto.output.len()
    }

    fn refuse_output_type(&mut self, name: &str, declared: DType, value: Value) {
        let actual = self.builder.dtype(value);
        self.refuse_output(name, format!("is declared as {declared}, but {actual} is computed"));
    }

    fn refuse_output(&mut self, name: &str, reason: String) {
        self.refused.push(Reason(reason).at(name, "graph output"));
    }
}
