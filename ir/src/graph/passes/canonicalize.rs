//! Canonical forms: identities disappear, and equal things get one spelling that later passes match.
//!
//! Input and output: any graph. Rewritings keep every bit, except the sign of a zero in `x + 0`, and `x^n` for small `n`,
//! where products and roots are at least as accurate as the power. A division by a constant becomes a product only
//! where the reciprocal is exact.
//!
//! ```text
//! reshape (reshape x)          →  reshape x              pow x, 2           →  mul x, x
//! transpose (transpose x)      →  transpose x, or x      div x, 8           →  mul x, 0.125
//! x · 1, x + 0, cast to same   →  x                      gather x, [2, 3]   →  slice x
//! ```

use super::constant::{filled, splat};
use super::rewrite::{Rewriter, rewrite};
use crate::graph::{BinaryOp, Graph, Node, Op, UnaryOp, Value};
use crate::types::{Tensor, element_count};

/// Rounds of rewriting; each sees the results of the one before. Chains in real models take two or three.
const MAX_ROUNDS: usize = 16;

/// Longest list of indices that is looked at. Any number of gathers may share one.
const MAX_PROGRESSION: u64 = 4096;

/// Largest divisor that becomes a factor of its own shape.
const MAX_FACTOR_ELEMS: u64 = 64;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut changes = 0;
    for _ in 0..MAX_ROUNDS {
        let round = rewrite(graph, &mut rule);
        changes += round;
        if round == 0 {
            break;
        }
    }
    changes
}

fn rule(rw: &mut Rewriter<'_>, node: Node) -> Option<Value> {
    let data = rw.graph.nodes[node].clone();
    let result = rw.result(node)?;
    let ty = rw.graph.ty(result).clone();
    let x = *data.inputs.first()?;
    let same_type = *rw.graph.ty(x) == ty;
    match &data.op {
        Op::Reshape { .. } if same_type => Some(x),
        Op::Reshape { .. } => {
            let (_, inner) = rw.def(x)?;
            let (is_reshape, source) = (matches!(inner.op, Op::Reshape { .. }), *inner.inputs.first()?);
            if is_reshape { rw.add(node, data.op, &[source]) } else { None }
        }
        Op::Transpose { perm } if perm.is_sorted() => Some(x),
        Op::Transpose { perm } => {
            let (_, inner) = rw.def(x)?;
            let Op::Transpose { perm: first } = &inner.op else { return None };
            let (perm, source) = (perm.iter().map(|&axis| first[axis]).collect(), inner.inputs[0]);
            rw.add(node, Op::Transpose { perm }, &[source])
        }
        // Taking all elements with step 1: a reversal has the same type.
        Op::Slice { starts, steps, .. } => {
            let forward = steps.iter().zip(ty.shape()).all(|(&step, &size)| step == 1 || size <= 1);
            (same_type && forward && starts.iter().zip(ty.shape()).all(|(&s, &size)| s == 0 || size == 0)).then_some(x)
        }
        Op::Expand { .. } | Op::Cast { .. } if same_type => Some(x),
        Op::Concat { .. } if data.inputs.len() == 1 => Some(x),
        Op::Pad { pads, .. } if pads.iter().all(|&p| p == (0, 0)) => Some(x),
        Op::Reduce { axes, .. } if axes.iter().all(|&axis| rw.shape(x)[axis] == 1) => rw.reshaped(node, x, ty.shape()),
        Op::Unary(op @ (UnaryOp::Neg | UnaryOp::Not)) => rw.unary(x, *op).map(|(_, inner)| inner),
        Op::Binary(op) => binary(rw, node, *op, [x, data.inputs[1]], result),
        Op::Select => {
            let chosen = if splat(rw.graph, x)? != 0.0 { data.inputs[1] } else { data.inputs[2] };
            if *rw.graph.ty(chosen) == ty {
                return Some(chosen);
            }
            rw.add(node, Op::Expand { shape: ty.shape().to_vec() }, &[chosen])
        }
        Op::Gather { axis } => gather(rw, node, *axis, [x, data.inputs[1]], result),
        _ => None,
    }
}

fn binary(rw: &mut Rewriter<'_>, node: Node, op: BinaryOp, [a, b]: [Value; 2], result: Value) -> Option<Value> {
    let ty = rw.graph.ty(result).clone();
    let is = |v: Value, c: f64| splat(rw.graph, v) == Some(c);
    let fits = |v: Value| *rw.graph.ty(v) == ty;
    match op {
        BinaryOp::Mul if is(b, 1.0) && fits(a) => Some(a),
        BinaryOp::Mul if is(a, 1.0) && fits(b) => Some(b),
        BinaryOp::Add if is(b, 0.0) && fits(a) => Some(a),
        BinaryOp::Add if is(a, 0.0) && fits(b) => Some(b),
        BinaryOp::Sub if is(b, 0.0) && fits(a) => Some(a),
        BinaryOp::Div if is(b, 1.0) && fits(a) => Some(a),
        BinaryOp::Div if ty.dtype().is_float() && is(a, 1.0) && fits(b) => {
            rw.add(node, Op::Unary(UnaryOp::Recip), &[b])
        }
        BinaryOp::Div if ty.dtype().is_float() => {
            let reciprocal = exact_reciprocal(splat(rw.graph, b)?)?;
            // One element will do, unless the divisor's shape makes the result's: constants are not multiplied.
            let shape = if fits(a) { Vec::new() } else { rw.shape(b).to_vec() };
            if element_count(&shape).ok()? > MAX_FACTOR_ELEMS {
                return None;
            }
            let factor = filled(ty.dtype(), &shape, reciprocal)?;
            let factor = rw.add_const("", factor);
            rw.add(node, Op::Binary(BinaryOp::Mul), &[a, factor])
        }
        BinaryOp::Pow if fits(a) => {
            let exponent = splat(rw.graph, b)?;
            power(rw, node, a, exponent)
        }
        _ => None,
    }
}

/// `1 / c` where that is exact in every floating-point type: for small powers of two.
fn exact_reciprocal(c: f64) -> Option<f64> {
    let is_power_of_two = c.to_bits() & ((1 << 52) - 1) == 0;
    (is_power_of_two && (2f64.powi(-14)..=2f64.powi(14)).contains(&c.abs())).then(|| 1.0 / c)
}

fn power(rw: &mut Rewriter<'_>, node: Node, x: Value, exponent: f64) -> Option<Value> {
    let mul = Op::Binary(BinaryOp::Mul);
    if exponent == 1.0 {
        Some(x)
    } else if exponent == 2.0 {
        rw.add(node, mul, &[x, x])
    } else if exponent == 3.0 {
        let square = rw.add(node, mul.clone(), &[x, x])?;
        rw.add(node, mul, &[square, x])
    } else if !rw.graph.ty(x).dtype().is_float() {
        None
    } else if exponent == 0.5 {
        rw.add(node, Op::Unary(UnaryOp::Sqrt), &[x])
    } else if exponent == -1.0 {
        rw.add(node, Op::Unary(UnaryOp::Recip), &[x])
    } else if exponent == -0.5 {
        let root = rw.add(node, Op::Unary(UnaryOp::Sqrt), &[x])?;
        rw.add(node, Op::Unary(UnaryOp::Recip), &[root])
    } else {
        None
    }
}

/// A gather of constant indices at equal distances is a slice. Indices out of range are left for lowering to report.
fn gather(rw: &mut Rewriter<'_>, node: Node, axis: usize, [x, indices]: [Value; 2], result: Value) -> Option<Value> {
    let shape = rw.shape(x).to_vec();
    let (start, size, step) = progression(rw.graph.const_of(indices)?, shape[axis])?;
    let mut starts = vec![0; shape.len()];
    let mut sizes = shape;
    let mut steps = vec![1; sizes.len()];
    (starts[axis], sizes[axis], steps[axis]) = (start, size, step);
    let slice = rw.add(node, Op::Slice { starts, sizes, steps }, &[x])?;
    let shape = rw.shape(result).to_vec();
    rw.reshaped(node, slice, &shape)
}

/// Start, number and step of indices at equal distances, all within `bound`.
fn progression(indices: &Tensor, bound: u64) -> Option<(u64, u64, i64)> {
    let size = indices.ty().elems();
    if size > MAX_PROGRESSION {
        return None;
    }
    let at = |n: u64| {
        let index = indices.get_i64(n)?;
        let index = if index < 0 { index.checked_add(bound as i64)? } else { index };
        u64::try_from(index).ok().filter(|&i| i < bound)
    };
    let start = at(0)?;
    if size == 1 {
        return Some((start, 1, 1));
    }
    let step = at(1)? as i64 - start as i64;
    let mut expected = start as i64;
    for n in 0..size {
        if at(n)? as i64 != expected {
            return None;
        }
        expected += step;
    }
    (step != 0).then_some((start, size, step))
}
