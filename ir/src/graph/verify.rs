//! The verifier of graphs. It runs after every pass in debug builds and in all tests; lowering takes its evidence.
//!
//! Rules, in the order they are checked:
//! 1. *Handles.* Every handle in a definition, a node, `order`, `inputs` and `outputs` is of the graph's own maps. The
//!    rules below are checked only if this one holds.
//! 2. *Definitions.* A value and its definition name each other: `inputs[i]` is the value of `Input(i)`, result `i` of a
//!    node is the value of `Node(n, i)`, and a constant's value has the constant's type.
//! 3. *Order.* `order` lists a node at most once, and after the nodes that compute its operands. Outputs are inputs,
//!    constants, or computed by a node in `order`.
//! 4. *Types.* A node in `order` has the results that [`super::Op::infer_all`] gives for its operands, and the body of a
//!    scan obeys these rules.
//! 5. *Names.* Inputs have distinct names, and so have outputs.
//!
//! Nodes outside `order` are dead: only their handles and definitions are checked.

use std::fmt;

use cranelift_entity::{EntityRef, PrimaryMap, SecondaryMap};
use rustc_hash::FxHashSet;

use super::{Graph, Node, Op, Value, ValueDef};
use crate::text::Quoted;
use crate::types::TensorType;

/// What the verifier found out on the way, and the evidence that a graph obeys the rules.
#[derive(Clone, Debug)]
pub struct GraphInfo {
    uses: SecondaryMap<Value, u32>,
    positions: SecondaryMap<Node, Option<u32>>,
}

impl GraphInfo {
    /// How many operands of nodes in `order` and outputs of the graph a value is.
    pub fn uses(&self, value: Value) -> u32 {
        self.uses[value]
    }

    /// Index of a node in `order`; `None` for nodes that are not in force.
    pub fn position(&self, node: Node) -> Option<u32> {
        self.positions[node]
    }
}

/// One broken rule: where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The entity, as text forms write it, and its name and operator: `n3 "l0.q" matmul`.
    pub entity: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entity, self.message)
    }
}

/// All broken rules of one graph; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct VerifyErrors(pub Vec<VerifyError>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl Graph {
    /// Checks the [rules](self).
    ///
    /// # Errors
    /// With every broken rule that could be checked.
    pub fn verify(&self) -> Result<GraphInfo, VerifyErrors> {
        let mut verifier = Verifier { graph: self, errors: Vec::new() };
        verifier.handles();
        if !verifier.errors.is_empty() {
            return Err(VerifyErrors(verifier.errors));
        }
        verifier.definitions();
        let positions = verifier.order();
        verifier.types();
        verifier.names();
        if !verifier.errors.is_empty() {
            return Err(VerifyErrors(verifier.errors));
        }
        let mut uses = SecondaryMap::with_capacity(self.values.len());
        let operands = self.order.iter().flat_map(|&n| &self.nodes[n].inputs);
        for &value in operands.chain(self.outputs.iter().map(|o| &o.value)) {
            uses[value] += 1;
        }
        Ok(GraphInfo { uses, positions })
    }
}

struct Verifier<'a> {
    graph: &'a Graph,
    errors: Vec<VerifyError>,
}

impl Verifier<'_> {
    fn error(&mut self, entity: String, message: String) {
        self.errors.push(VerifyError { entity, message });
    }

    /// An error unless `entity` is a handle of `map`.
    fn exists<K, V>(&mut self, map: &PrimaryMap<K, V>, entity: K, place: impl FnOnce() -> String)
    where
        K: EntityRef + fmt::Display,
    {
        if !map.is_valid(entity) {
            self.error(place(), format!("{entity} does not exist"));
        }
    }

    fn handles(&mut self) {
        let Graph { name: _, values, nodes, order, consts, inputs, outputs } = self.graph;
        for (value, data) in values {
            match data.def {
                ValueDef::Input(_) => {}
                ValueDef::Const(c) => self.exists(consts, c, || value_text(self.graph, value)),
                ValueDef::Node(n, _) => self.exists(nodes, n, || value_text(self.graph, value)),
            }
        }
        for (node, data) in nodes {
            for &value in data.inputs.iter().chain(&data.outputs) {
                self.exists(values, value, || node_text(self.graph, node));
            }
        }
        for &node in order {
            self.exists(nodes, node, || "order".to_owned());
        }
        for &value in inputs {
            self.exists(values, value, || "inputs".to_owned());
        }
        for output in outputs {
            self.exists(values, output.value, || output_text(&output.name));
        }
    }

    fn definitions(&mut self) {
        let graph = self.graph;
        for (value, data) in &graph.values {
            let (agrees, what) = match data.def {
                ValueDef::Input(i) => (graph.inputs.get(i as usize) == Some(&value), format!("input {i}")),
                ValueDef::Node(n, i) => {
                    (graph.nodes[n].outputs.get(i as usize) == Some(&value), format!("result {i} of {n}"))
                }
                ValueDef::Const(c) => {
                    let ty = graph.consts[c].ty();
                    if *ty != data.ty {
                        let message = format!("has type {}, but {c} has type {ty}", data.ty);
                        self.error(value_text(graph, value), message);
                    }
                    continue;
                }
            };
            if !agrees {
                self.error(value_text(graph, value), format!("is defined as {what}, which is another value"));
            }
        }
        for (i, &value) in graph.inputs.iter().enumerate() {
            if graph.values[value].def != ValueDef::Input(i as u32) {
                self.error(value_text(graph, value), format!("is listed as input {i}, but not defined so"));
            }
        }
        for (node, data) in &graph.nodes {
            for (i, &value) in data.outputs.iter().enumerate() {
                if graph.values[value].def != ValueDef::Node(node, i as u32) {
                    let message = format!("has {value} as result {i}, which is not defined so");
                    self.error(node_text(graph, node), message);
                }
            }
        }
    }

    fn order(&mut self) -> SecondaryMap<Node, Option<u32>> {
        let graph = self.graph;
        let mut positions: SecondaryMap<Node, Option<u32>> = SecondaryMap::with_capacity(graph.nodes.len());
        for (i, &node) in graph.order.iter().enumerate() {
            if let Some(first) = positions[node].replace(i as u32) {
                self.error(node_text(graph, node), format!("is in the order twice, at {first} and {i}"));
            }
        }
        for (i, &node) in graph.order.iter().enumerate() {
            for &operand in &graph.nodes[node].inputs {
                let Some(source) = graph.node_of(operand) else { continue };
                let problem = match positions[source] {
                    Some(at) if (at as usize) < i => continue,
                    Some(_) => "only later",
                    None => "by a node that is not in the order",
                };
                self.error(node_text(graph, node), format!("uses {operand}, which is computed {problem}"));
            }
        }
        for output in &graph.outputs {
            if graph.node_of(output.value).is_some_and(|source| positions[source].is_none()) {
                let message = format!("{} is computed by a node that is not in the order", output.value);
                self.error(output_text(&output.name), message);
            }
        }
        positions
    }

    fn types(&mut self) {
        let graph = self.graph;
        for &node in &graph.order {
            let data = &graph.nodes[node];
            let operands: Vec<&TensorType> = data.inputs.iter().map(|&v| graph.ty(v)).collect();
            if let Op::Scan(scan) = &data.op
                && let Err(errors) = scan.body.verify()
            {
                self.error(node_text(graph, node), format!("the body is broken:\n{errors}"));
                continue;
            }
            let types = match data.op.infer_all(&operands) {
                Ok(types) => types,
                Err(error) => {
                    self.error(node_text(graph, node), error.to_string());
                    continue;
                }
            };
            if types.len() != data.outputs.len() {
                let message = format!("has {} results instead of {}", data.outputs.len(), types.len());
                self.error(node_text(graph, node), message);
                continue;
            }
            for (ty, &result) in types.iter().zip(&data.outputs) {
                if ty != graph.ty(result) {
                    let message = format!("computes {ty}, but {result} has type {}", graph.ty(result));
                    self.error(node_text(graph, node), message);
                }
            }
        }
    }

    fn names(&mut self) {
        let graph = self.graph;
        let mut seen = FxHashSet::default();
        for &value in &graph.inputs {
            if !seen.insert(graph.values[value].name.as_str()) {
                self.error(value_text(graph, value), "has the name of an earlier input".to_owned());
            }
        }
        let mut seen = FxHashSet::default();
        for output in &graph.outputs {
            if !seen.insert(output.name.as_str()) {
                self.error(output_text(&output.name), "has the name of an earlier output".to_owned());
            }
        }
    }
}

fn value_text(graph: &Graph, value: Value) -> String {
    format!("{value} {}", Quoted(&graph.values[value].name))
}

fn node_text(graph: &Graph, node: Node) -> String {
    let data = &graph.nodes[node];
    format!("{node} {} {}", Quoted(&data.name), data.op.name())
}

fn output_text(name: &str) -> String {
    format!("output {}", Quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{BinaryOp, Const, UnaryOp};
    use crate::types::{DType, Tensor};

    /// `y = exp(x) + c`, returned as `y`.
    fn sample() -> Graph {
        let mut graph = Graph::new("sample");
        let x = graph.add_input("x", TensorType::new(DType::F32, [2]).unwrap());
        let c = graph.add_const("c", Tensor::scalar_f32(1.0));
        let e = graph.add_node("e", Op::Unary(UnaryOp::Exp), &[x]).unwrap();
        let y = graph.add_node("s", Op::Binary(BinaryOp::Add), &[e, c]).unwrap();
        graph.add_output("y", y);
        graph
    }

    #[track_caller]
    fn broken(change: impl FnOnce(&mut Graph), expected: &[&str]) {
        let mut graph = sample();
        change(&mut graph);
        let errors = graph.verify().unwrap_err().to_string();
        assert_eq!(errors, expected.join("\n"));
    }

    #[test]
    fn accepts_and_counts() {
        let info = sample().verify().unwrap();
        assert_eq!([0, 1, 2, 3].map(|v| info.uses(Value::new(v))), [1, 1, 1, 1]);
        assert_eq!(info.position(Node::new(1)), Some(1));
        Graph::new("empty").verify().unwrap();
    }

    #[test]
    fn dead_nodes_are_allowed() {
        let mut graph = sample();
        let x = graph.inputs[0];
        let (node, value) = graph.detached_node("dead", Op::Unary(UnaryOp::Neg), &[x]).unwrap();
        let info = graph.verify().unwrap();
        assert_eq!((info.uses(value), info.position(node)), (0, None));
        graph.add_output("z", value);
        assert_eq!(
            graph.verify().unwrap_err().to_string(),
            "output \"z\": v4 is computed by a node that is not in the order"
        );
    }

    #[test]
    fn finds_bad_handles() {
        broken(
            |g| {
                g.values[Value::new(1)].def = ValueDef::Const(Const::new(7));
                g.nodes[Node::new(0)].inputs[0] = Value::new(99);
                g.order.push(Node::new(5));
                g.inputs.push(Value::new(50));
                g.outputs[0].value = Value::new(60);
            },
            &[
                "v1 \"c\": c7 does not exist",
                "n0 \"e\" exp: v99 does not exist",
                "order: n5 does not exist",
                "inputs: v50 does not exist",
                "output \"y\": v60 does not exist",
            ],
        );
    }

    #[test]
    fn finds_bad_definitions() {
        broken(
            |g| {
                g.values[Value::new(0)].def = ValueDef::Input(1);
                g.values[Value::new(2)].def = ValueDef::Node(Node::new(0), 4);
            },
            &[
                "v0 \"x\": is defined as input 1, which is another value",
                "v2 \"e\": is defined as result 4 of n0, which is another value",
                "v0 \"x\": is listed as input 0, but not defined so",
                "n0 \"e\" exp: has v2 as result 0, which is not defined so",
            ],
        );
        broken(
            |g| g.consts[Const::new(0)] = Tensor::from_f32([1], &[1.0]).unwrap(),
            &["v1 \"c\": has type f32[], but c0 has type f32[1]"],
        );
    }

    #[test]
    fn finds_bad_order() {
        broken(|g| g.order.reverse(), &["n1 \"s\" add: uses v2, which is computed only later"]);
        broken(
            |g| g.order = vec![Node::new(1), Node::new(1)],
            &[
                "n1 \"s\" add: is in the order twice, at 0 and 1",
                "n1 \"s\" add: uses v2, which is computed by a node that is not in the order",
                "n1 \"s\" add: uses v2, which is computed by a node that is not in the order",
            ],
        );
        // A node that uses its own result.
        broken(
            |g| g.nodes[Node::new(0)].inputs[0] = Value::new(2),
            &["n0 \"e\" exp: uses v2, which is computed only later"],
        );
    }

    #[test]
    fn finds_bad_types_and_names() {
        broken(
            |g| g.values[Value::new(3)].ty = TensorType::new(DType::F32, [3]).unwrap(),
            &["n1 \"s\" add: computes f32[2], but v3 has type f32[3]"],
        );
        broken(
            |g| g.nodes[Node::new(0)].op = Op::Unary(UnaryOp::Not),
            &["n0 \"e\" not: element type f32 is not accepted here"],
        );
        broken(
            |g| {
                let x = g.inputs[0];
                g.add_output("y", x);
                g.add_input("x", TensorType::scalar(DType::I64));
            },
            &["v4 \"x\": has the name of an earlier input", "output \"y\": has the name of an earlier output"],
        );
    }
}
