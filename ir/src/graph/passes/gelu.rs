//! Fusion of GELU, in both forms, from the primitive operators that exporters write.
//!
//! Input: a canonical graph (powers are products). Output: `gelu_erf` and `gelu_tanh` where nobody else sees a value in
//! between. One operator is one kernel with the accuracy of one rounding, instead of five to eight.
//!
//! ```text
//! x · 0.5 · (1 + erf (x / 1.4142135))                               →   gelu_erf x
//! 0.5 · x · (1 + tanh (0.7978846 · (x + 0.044715 · x · x · x)))     →   gelu_tanh x
//! ```
//!
//! Exporters write the factors in every order and association. So expressions are read as polynomials: around the
//! `erf` or `tanh` called `t`, the root must be `x/2 + x t/2`, and the argument a polynomial of `x` alone. Constants may have
//! been rounded to half precision.

use std::collections::BTreeMap;

use super::constant::is_about;
use super::rewrite::{Rewriter, rewrite};
use crate::graph::{BinaryOp, GeluKind, Graph, Node, Op, UnaryOp, Value};
use crate::types::DType;

/// How deep expressions are followed.
const MAX_DEPTH: usize = 6;

/// Most `erf` and `tanh` that are tried for one root, and most values that are tried as `x` for each: GELU needs one and
/// three, a sum of it with others a few more.
const MAX_BENDS: usize = 4;
const MAX_CANDIDATES: usize = 16;

/// Coefficients of `x^i t^j` by `(i, j)`; none is 0.
type Poly = BTreeMap<(u32, u32), f64>;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite(graph, &mut rule)
}

fn rule(rw: &mut Rewriter<'_>, root: Node) -> Option<Value> {
    if !matches!(rw.graph.nodes[root].op, Op::Binary(BinaryOp::Mul | BinaryOp::Add)) {
        return None;
    }
    let y = rw.result(root)?;
    let mut bends = Vec::new();
    find_bends(rw, y, MAX_DEPTH, &mut bends);
    let (x, kind) = bends.into_iter().find_map(|(t, kind, argument)| {
        let mut candidates = Vec::new();
        collect_operands(rw, argument, MAX_DEPTH, &mut candidates);
        let x = candidates.into_iter().find(|&x| matches(rw, root, y, x, t, kind, argument))?;
        Some((x, kind))
    })?;
    rw.add(root, Op::Gelu(kind), &[x])
}

/// The `erf` and `tanh` that a product or sum is made of, each with its argument.
fn find_bends(rw: &Rewriter<'_>, value: Value, depth: usize, found: &mut Vec<(Value, GeluKind, Value)>) {
    let Some((_, data)) = rw.def(value) else { return };
    if found.len() >= MAX_BENDS || found.iter().any(|t| t.0 == value) {
        return;
    }
    match &data.op {
        Op::Unary(UnaryOp::Erf) => found.push((value, GeluKind::Erf, data.inputs[0])),
        Op::Unary(UnaryOp::Tanh) => found.push((value, GeluKind::Tanh, data.inputs[0])),
        Op::Binary(BinaryOp::Mul | BinaryOp::Add) if depth > 0 => {
            for &operand in &data.inputs {
                find_bends(rw, operand, depth - 1, found);
            }
        }
        _ => {}
    }
}

/// Values that an argument is computed from, nearest first: candidates for `x`.
fn collect_operands(rw: &Rewriter<'_>, argument: Value, depth: usize, found: &mut Vec<Value>) {
    let mut level = vec![argument];
    for _ in 0..depth {
        let mut next = Vec::new();
        for value in level {
            if rw.graph.const_of(value).is_some() || found.contains(&value) {
                continue;
            }
            if found.len() >= MAX_CANDIDATES {
                return;
            }
            found.push(value);
            if let Some((_, data)) = rw.def(value)
                && matches!(data.op, Op::Binary(_))
            {
                next.extend_from_slice(&data.inputs);
            }
        }
        level = next;
    }
}

fn matches(rw: &Rewriter<'_>, root: Node, y: Value, x: Value, t: Value, kind: GeluKind, argument: Value) -> bool {
    // Constants are recognized with less accuracy than binary64 has.
    if rw.graph.ty(x).dtype() == DType::F64 {
        return false;
    }
    let mut interior = Vec::new();
    let mut reader = Reader { rw, x, t: None, interior: &mut interior };
    let Some(argument) = reader.poly(argument, MAX_DEPTH) else { return false };
    let root_two_over_pi = (2.0 / std::f64::consts::PI).sqrt();
    let wanted: &[((u32, u32), f64)] = match kind {
        GeluKind::Erf => &[((1, 0), std::f64::consts::FRAC_1_SQRT_2)],
        GeluKind::Tanh => &[((1, 0), root_two_over_pi), ((3, 0), 0.044715 * root_two_over_pi)],
    };
    if !is_poly(&argument, wanted) {
        return false;
    }
    interior.extend(rw.graph.node_of(t));
    let mut reader = Reader { rw, x, t: Some(t), interior: &mut interior };
    let Some(whole) = reader.poly(y, MAX_DEPTH) else { return false };
    interior.retain(|&n| n != root);
    is_poly(&whole, &[((1, 0), 0.5), ((1, 1), 0.5)]) && rw.closed(&interior, root)
}

fn is_poly(actual: &Poly, wanted: &[((u32, u32), f64)]) -> bool {
    actual.len() == wanted.len() && actual.iter().zip(wanted).all(|((power, &a), (p, w))| power == p && is_about(a, *w))
}

/// Reads expressions as polynomials in `x` and `t`.
struct Reader<'r, 'g> {
    rw: &'r Rewriter<'g>,
    x: Value,
    t: Option<Value>,
    /// Nodes read.
    interior: &'r mut Vec<Node>,
}

impl Reader<'_, '_> {
    fn poly(&mut self, value: Value, depth: usize) -> Option<Poly> {
        if value == self.x {
            return Some(Poly::from([((1, 0), 1.0)]));
        }
        if Some(value) == self.t {
            return Some(Poly::from([((0, 1), 1.0)]));
        }
        if let Some(c) = self.rw.graph.scalar_of(value) {
            return Some(Poly::from([((0, 0), c)]));
        }
        let (node, data) = self.rw.def(value)?;
        let depth = depth.checked_sub(1)?;
        if self.rw.shape(value) != self.rw.shape(self.x) {
            return None;
        }
        let Op::Binary(op) = data.op else { return None };
        let (a, b) = (self.poly(data.inputs[0], depth)?, self.poly(data.inputs[1], depth)?);
        if !self.interior.contains(&node) {
            self.interior.push(node);
        }
        match op {
            BinaryOp::Add => Some(sum(&a, &b, 1.0)),
            BinaryOp::Sub => Some(sum(&a, &b, -1.0)),
            BinaryOp::Mul => product(&a, &b),
            BinaryOp::Div => {
                let divisor = *b.get(&(0, 0)).filter(|&&c| b.len() == 1 && c != 0.0)?;
                Some(a.into_iter().map(|(power, c)| (power, c / divisor)).collect())
            }
            _ => None,
        }
    }
}

fn sum(a: &Poly, b: &Poly, factor: f64) -> Poly {
    let mut out = a.clone();
    for (&power, &c) in b {
        *out.entry(power).or_insert(0.0) += factor * c;
    }
    out.retain(|_, c| *c != 0.0);
    out
}

/// `None` above the degrees that GELU has.
fn product(a: &Poly, b: &Poly) -> Option<Poly> {
    let mut out = Poly::new();
    for (&(i, j), &c) in a {
        for (&(k, l), &d) in b {
            if i + k > 3 || j + l > 1 {
                return None;
            }
            *out.entry((i + k, j + l)).or_insert(0.0) += c * d;
        }
    }
    out.retain(|_, c| *c != 0.0);
    Some(out)
}
