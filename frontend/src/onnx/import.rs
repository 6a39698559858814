//! Last stage: node by node into the graph.
//!
//! The nodes are in topological order, so one pass suffices and nothing recurses. A node that is refused marks its
//! results, and what uses them is skipped silently: one missing operator gives one line in the error, not a thousand.

use std::collections::{BTreeMap, BTreeSet};

use aic_ir::graph::{Graph, Value};
use aic_ir::types::{DType, TensorType};

use super::context::NodeContext;
use super::decode::{Decoded, Liveness, is_standard, label};
use super::ops::{self, Import, OpRule};
use super::schema::{GraphProto, NodeProto};
use super::tensor::{self, TensorError};
use crate::builder::{Builder, Reason};
use crate::error::{ReadError, Refused, RefusedNode};
use crate::files::Files;
use crate::shapes::InputInfo;

/// What a name of the model stands for.
#[derive(Clone, Copy)]
enum Slot {
    Value(Value),
    /// The result of a refused node, or of one that depends on it.
    Refused,
}

/// Operators by name.
pub(super) struct Rules(BTreeMap<&'static str, &'static OpRule>);

impl Rules {
    pub fn new() -> Self {
        Self(ops::supported().map(|rule| (rule.name, rule)).collect())
    }

    /// The rule of a node's operator, if number of operands and attributes are what it knows.
    pub fn of(&self, node: &NodeProto, decoded: &Decoded) -> Result<&'static OpRule, Reason> {
        let functions = &decoded.functions;
        if !functions.is_empty() && functions.contains(&(node.domain.clone(), node.op_type.clone())) {
            return Err("functions of the model itself are not supported; inline them (`onnx.inliner`)".into());
        }
        if !is_standard(&node.domain) {
            return Err(format!("operators of domain `{}` are not supported", node.domain).into());
        }
        let rule = *self.0.get(node.op_type.as_str()).ok_or("the operator is not supported")?;
        if decoded.opset < rule.since {
            let (since, opset) = (rule.since, decoded.opset);
            return Err(
                format!("the operator is supported from operator set {since} on; the model uses {opset}").into()
            );
        }
        let given = node.input.len();
        let (least, most) = rule.operands;
        if given < least || given > most || node.input[..least].iter().any(String::is_empty) {
            return Err(match least == most {
                true => format!("takes {least} operands, but {given} are given").into(),
                false => format!("takes {least} to {most} operands, but {given} are given").into(),
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
    let initialized: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
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

struct Importer<'m> {
    builder: Builder,
    slots: BTreeMap<&'m str, Slot>,
    refused: Vec<RefusedNode>,
}

/// Imports a model whose inputs have the given types.
pub(super) fn import(
    decoded: &Decoded,
    liveness: &Liveness<'_>,
    inputs: &[InputInfo],
    types: Vec<TensorType>,
    files: &dyn Files,
    file_bytes: u64,
) -> Result<Graph, ReadError> {
    let proto = &decoded.graph;
    let mut importer =
        Importer { builder: Builder::new(&proto.name, file_bytes), slots: BTreeMap::new(), refused: Vec::new() };
    for (input, ty) in inputs.iter().zip(types) {
        let value = importer.builder.graph.add_input(&input.name, ty);
        importer.slots.insert(&input.name, Slot::Value(value));
    }
    importer.initializers(proto, liveness, files)?;
    let rules = Rules::new();
    for (node, _) in proto.node.iter().zip(&liveness.live).filter(|&(_, &live)| live) {
        importer.node(node, decoded, &rules, liveness, files);
    }
    importer.outputs(proto);
    match importer.refused.is_empty() {
        true => Ok(importer.builder.graph),
        false => Err(Refused { nodes: importer.refused }.into()),
    }
}

impl<'m> Importer<'m> {
    fn initializers(
        &mut self,
        proto: &'m GraphProto,
        liveness: &Liveness<'_>,
        files: &dyn Files,
    ) -> Result<(), ReadError> {
        for initializer in proto.initializer.iter().filter(|t| liveness.used.contains(t.name.as_str())) {
            let name = initializer.name.as_str();
            let slot = match tensor::tensor(initializer, name, files, &mut self.builder) {
                Ok(tensor) => Slot::Value(self.builder.graph.add_const(name, tensor)),
                Err(TensorError::Broken(error)) => return Err(error),
                Err(TensorError::DType(dtype)) => {
                    let reason = Reason(format!("element type {dtype} is not supported"));
                    self.refused.push(reason.at(name, "initializer"));
                    Slot::Refused
                }
            };
            self.slots.insert(name, slot);
        }
        let sparse = proto.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
        for values in sparse.filter(|t| liveness.used.contains(t.name.as_str())) {
            self.refused.push(Reason::from("sparse constants are not supported").at(&values.name, "initializer"));
            self.slots.insert(&values.name, Slot::Refused);
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: &'m NodeProto,
        decoded: &Decoded,
        rules: &Rules,
        liveness: &Liveness<'_>,
        files: &dyn Files,
    ) {
        let mut operands = Vec::with_capacity(node.input.len());
        let mut poisoned = false;
        for name in &node.input {
            match self.slots.get(name.as_str()) {
                Some(Slot::Value(value)) => operands.push(Some(*value)),
                Some(Slot::Refused) => poisoned = true,
                None => operands.push(None),
            }
        }
        let results = if poisoned {
            // The node's own operator is judged even so; its operands cannot be.
            rules.of(node, decoded).map(|_| None)
        } else {
            rules
                .of(node, decoded)
                .and_then(|rule| self.apply(rule, node, &operands, decoded.opset, liveness, files))
                .map(Some)
        };
        let results = results.unwrap_or_else(|reason| {
            self.refused.push(reason.at(label(node), op_name(node)));
            None
        });
        for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let slot = results.as_ref().and_then(|r| r.get(index)).map_or(Slot::Refused, |&v| Slot::Value(v));
            self.slots.insert(name, slot);
        }
    }

    /// Imports one node and names its results.
    fn apply(
        &mut self,
        rule: &OpRule,
        node: &NodeProto,
        operands: &[Option<Value>],
        opset: i64,
        liveness: &Liveness<'_>,
        files: &dyn Files,
    ) -> Result<Vec<Value>, Reason> {
        let first_new = self.builder.graph.values.next_key();
        self.builder.node_name.clear();
        self.builder.node_name.push_str(label(node));
        let mut context = NodeContext { builder: &mut self.builder, node, files, opset, operands };
        let results = match rule.import {
            Import::One(import) => vec![import(&mut context)?],
            Import::Many(import) => import(&mut context)?,
        };
        let extra = node.output.iter().skip(results.len()).find(|o| liveness.used.contains(o.as_str()));
        if let Some(extra) = extra {
            return Err(format!("the result `{extra}` is not supported").into());
        }
        for (name, &value) in node.output.iter().zip(&results) {
            let data = &mut self.builder.graph.values[value];
            if value >= first_new && data.name.is_empty() {
                data.name.clone_from(name);
            }
        }
        Ok(results)
    }

    fn outputs(&mut self, proto: &GraphProto) {
        for output in &proto.output {
            let Some(&Slot::Value(value)) = self.slots.get(output.name.as_str()) else { continue };
            let declared = output.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).map(|t| t.elem_type);
            // Declared shapes of outputs are often stale; the inferred ones hold.
            match declared.filter(|&number| number != 0).map(tensor::dtype) {
                Some(Err(dtype)) => self.refuse_output(&output.name, format!("element type {dtype} is not supported")),
                Some(Ok(dtype)) if dtype != self.builder.dtype(value) => {
                    self.refuse_output_type(&output.name, dtype, value)
                }
                _ => self.builder.graph.add_output(&output.name, value),
            }
        }
    }

    fn refuse_output_type(&mut self, name: &str, declared: DType, value: Value) {
        let actual = self.builder.dtype(value);
        self.refuse_output(name, format!("is declared as {declared}, but {actual} is computed"));
    }

    fn refuse_output(&mut self, name: &str, reason: String) {
        self.refused.push(Reason(reason).at(name, "graph output"));
    }
}
