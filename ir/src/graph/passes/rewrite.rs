//! Rewriting a graph node by node: what all passes that match patterns share.
//!
//! [`rewrite`] walks the nodes in evaluation order and asks a rule about each. A rule that knows a better form adds the nodes
//! it needs (they come at the place of the node) and names the value that takes the place of the node's result. Nodes that
//! lose their last user stay until [`super::dead`] takes them away.

use cranelift_entity::SecondaryMap;

use crate::graph::{BinaryOp, Graph, Node, NodeData, Op, UnaryOp, Value};
use crate::types::Tensor;

/// A graph that is being rewritten.
pub(super) struct Rewriter<'g> {
    pub(super) graph: &'g mut Graph,
    /// Nodes that use a value, once for each operand. May list nodes that have been replaced, never leaves one out.
    users: SecondaryMap<Value, Vec<Node>>,
    /// Values that the graph returns.
    returned: SecondaryMap<Value, bool>,
    order: Vec<Node>,
}

/// Applies a rule once to every node. Returns how many were replaced.
pub(super) fn rewrite(graph: &mut Graph, rule: &mut dyn FnMut(&mut Rewriter<'_>, Node) -> Option<Value>) -> usize {
    let old_order = std::mem::take(&mut graph.order);
    let mut users: SecondaryMap<Value, Vec<Node>> = SecondaryMap::new();
    for &node in &old_order {
        for &v in &graph.nodes[node].inputs {
            users[v].push(node);
        }
    }
    let mut returned = SecondaryMap::new();
    for output in &graph.outputs {
        returned[output.value] = true;
    }
    let mut replaced: SecondaryMap<Value, Option<Value>> = SecondaryMap::new();
    let mut changes = 0;
    let mut rw = Rewriter { graph, users, returned, order: Vec::with_capacity(old_order.len()) };
    for node in old_order {
        for v in &mut rw.graph.nodes[node].inputs {
            *v = replaced[*v].unwrap_or(*v);
        }
        let kept = rw.order.len();
        match (rule(&mut rw, node), rw.graph.nodes[node].outputs.first().copied()) {
            (Some(new), Some(old)) => {
                changes += 1;
                replaced[old] = Some(new);
                let users = std::mem::take(&mut rw.users[old]);
                rw.users[new].extend(users);
                rw.returned[new] |= rw.returned[old];
                if rw.graph.values[new].name.is_empty() && rw.graph.node_of(new).is_some() {
                    rw.graph.values[new].name = rw.graph.values[old].name.clone();
                }
            }
            _ => {
                rw.order.truncate(kept);
                rw.order.push(node);
            }
        }
    }
    rw.graph.order = rw.order;
    for output in &mut rw.graph.outputs {
        output.value = replaced[output.value].unwrap_or(output.value);
    }
    changes
}

impl Rewriter<'_> {
    /// Adds a node at the place of `at`, whose user name it takes; `None` if the operands do not fit the operator.
    pub(super) fn add(&mut self, at: Node, op: Op, inputs: &[Value]) -> Option<Value> {
        let name = self.graph.nodes[at].name.clone();
        let (node, value) = self.graph.detached_node(name, op, inputs).ok()?;
        self.graph.values[value].name.clear();
        for &v in inputs {
            self.users[v].push(node);
        }
        self.order.push(node);
        Some(value)
    }

    /// Adds a constant made by the compiler.
    pub(super) fn add_const(&mut self, name: &str, tensor: Tensor) -> Value {
        self.graph.add_const(name, tensor)
    }

    /// The value under another shape of as many elements, without a node if it has that shape or is a constant.
    pub(super) fn reshaped(&mut self, at: Node, value: Value, shape: &[u64]) -> Option<Value> {
        if self.graph.ty(value).shape() == shape {
            return Some(value);
        }
        if let Some(tensor) = self.graph.const_of(value) {
            let tensor = tensor.reshaped(shape)?;
            let name = self.graph.values[value].name.clone();
            return Some(self.add_const(&name, tensor));
        }
        self.add(at, Op::Reshape { shape: shape.to_vec() }, &[value])
    }

    /// Whether nobody but the given nodes sees the result of any of `interior`.
    pub(super) fn closed(&self, interior: &[Node], root: Node) -> bool {
        let inside = |user: &Node| *user == root || interior.contains(user);
        interior.iter().flat_map(|&n| &self.graph.nodes[n].outputs).all(|&v| self.only_used_by(v, &inside))
    }

    fn only_used_by(&self, value: Value, inside: &dyn Fn(&Node) -> bool) -> bool {
        !self.returned[value] && self.users[value].iter().all(inside)
    }

    /// Shape of a value.
    pub(super) fn shape(&self, value: Value) -> &[u64] {
        self.graph.ty(value).shape()
    }

    /// Type of a node's result: its element type and shape.
    pub(super) fn result(&self, node: Node) -> Option<Value> {
        self.graph.nodes[node].outputs.first().copied()
    }

    /// The node that computes a value.
    pub(super) fn def(&self, value: Value) -> Option<(Node, &NodeData)> {
        self.graph.node_of(value).map(|n| (n, &self.graph.nodes[n]))
    }

    /// Matches `op(x)`.
    pub(super) fn unary(&self, value: Value, op: UnaryOp) -> Option<(Node, Value)> {
        let (node, data) = self.def(value)?;
        (data.op == Op::Unary(op)).then(|| (node, data.inputs[0]))
    }

    /// Matches `op(a, b)`.
    pub(super) fn binary(&self, value: Value, op: BinaryOp) -> Option<(Node, Value, Value)> {
        let (node, data) = self.def(value)?;
        (data.op == Op::Binary(op)).then(|| (node, data.inputs[0], data.inputs[1]))
    }

    /// Matches `op(a, b)` with operands in both orders.
    pub(super) fn commuted(&self, value: Value, op: BinaryOp) -> Vec<(Node, Value, Value)> {
        self.binary(value, op).map_or(Vec::new(), |(n, a, b)| vec![(n, a, b), (n, b, a)])
    }

    /// Matches `x · c` and `x / c` with a scalar constant, where the result has the shape of `x`: the node, `x`, the factor.
    pub(super) fn scaled(&self, value: Value) -> Option<(Node, Value, f64)> {
        let same_shape = |x: Value| self.shape(x) == self.shape(value);
        if let Some((node, x, c)) = self.binary(value, BinaryOp::Div) {
            let c = self.graph.scalar_of(c)?;
            return (same_shape(x) && c != 0.0).then_some((node, x, 1.0 / c));
        }
        self.commuted(value, BinaryOp::Mul)
            .into_iter()
            .find_map(|(node, x, c)| Some((node, x, self.graph.scalar_of(c)?)).filter(|t| same_shape(t.1)))
    }
}
