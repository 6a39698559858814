//! Fusion of LayerNorm from the primitive operators that exporters write.
//!
//! Input: a canonical graph (powers are products, equal nodes are one). Output: `layer_norm` where mean, variance and
//! normalization over trailing dimensions were spelled out and nobody else sees a value in between. Before attention,
//! whose operands it leaves alone, for no deeper reason than the order of a BERT layer.
//!
//! ```text
//! m = mean x; d = x - m; v = mean (d · d); y = d / √(v + ε) · scale + bias   →   y = layer_norm x, scale, bias
//! ```
//!
//! Accepted variants: operands in any order, `d · (1 / √…)`, `d · ((1 / √…) · scale)`, and `x · w + (bias - m · w)` with
//! `w = (1 / √…) · scale`; scale and bias may have leading dimensions of 1. Without scale and bias, ones and zeros
//! are taken.

use super::constant::filled;
use super::rewrite::{Rewriter, rewrite};
use crate::graph::{BinaryOp, Graph, Node, Op, ReduceOp, UnaryOp, Value};
use crate::types::{DType, element_count};

pub(super) fn run(graph: &mut Graph) -> usize {
    // Those with scale and bias first: otherwise their beginnings would match by themselves.
    rewrite(graph, &mut affine) + super::dead::run(graph) + rewrite(graph, &mut bare)
}

/// What a matched normalization computes, before scale and bias.
struct Normal {
    x: Value,
    axis: usize,
    epsilon: f32,
    /// The mean, for forms that use it again.
    mean: Value,
    /// Nodes between `x` and the reciprocal deviation, or the whole normalization.
    interior: Vec<Node>,
}

fn affine(rw: &mut Rewriter<'_>, root: Node) -> Option<Value> {
    let y = rw.result(root)?;
    let (normal, scale, bias) = rw
        .commuted(y, BinaryOp::Add)
        .into_iter()
        .find_map(|(_, scaled, bias)| scaled_normal(rw, scaled, bias).or_else(|| folded_mean(rw, scaled, bias)))?;
    if !rw.closed(&normal.interior, root) {
        return None;
    }
    let dims = rw.shape(normal.x)[normal.axis..].to_vec();
    if rw.shape(y) != rw.shape(normal.x) || !trails(rw.shape(scale), &dims) || !trails(rw.shape(bias), &dims) {
        return None;
    }
    let scale = rw.reshaped(root, scale, &dims)?;
    let bias = rw.reshaped(root, bias, &dims)?;
    let Normal { x, axis, epsilon, mean: _, interior: _ } = normal;
    rw.add(root, Op::LayerNorm { axis, epsilon }, &[x, scale, bias])
}

fn bare(rw: &mut Rewriter<'_>, root: Node) -> Option<Value> {
    let y = rw.result(root)?;
    let Normal { x, axis, epsilon, mean: _, mut interior } = normalized(rw, y)?;
    interior.retain(|&n| n != root);
    if !rw.closed(&interior, root) {
        return None;
    }
    let (dtype, dims) = (rw.graph.ty(x).dtype(), rw.shape(x)[axis..].to_vec());
    let ones = everywhere(rw, root, dtype, &dims, 1.0)?;
    let zeros = everywhere(rw, root, dtype, &dims, 0.0)?;
    rw.add(root, Op::LayerNorm { axis, epsilon }, &[x, ones, zeros])
}

/// Largest row for which scale and bias are constants of that many elements.
const MAX_FILLED: u64 = 1024;

/// One value in a shape: a constant, or if that would be large (a few bytes of a file may ask for any shape) a view of one.
fn everywhere(rw: &mut Rewriter<'_>, at: Node, dtype: DType, dims: &[u64], value: f64) -> Option<Value> {
    let name = if value == 0.0 { "zeros" } else { "ones" };
    if element_count(dims).ok()? <= MAX_FILLED {
        let tensor = filled(dtype, dims, value)?;
        return Some(rw.add_const(name, tensor));
    }
    let scalar = filled(dtype, &[], value)?;
    let scalar = rw.add_const(name, scalar);
    rw.add(at, Op::Expand { shape: dims.to_vec() }, &[scalar])
}

/// Whether a shape is `dims` after leading dimensions of 1.
fn trails(shape: &[u64], dims: &[u64]) -> bool {
    shape.strip_suffix(dims).is_some_and(|leading| leading.iter().all(|&d| d == 1))
}

/// `n · scale`, or `d · (r · scale)`; the bias is passed through.
fn scaled_normal(rw: &Rewriter<'_>, scaled: Value, bias: Value) -> Option<(Normal, Value, Value)> {
    rw.commuted(scaled, BinaryOp::Mul).into_iter().find_map(|(node, a, b)| {
        if let Some(mut normal) = normalized(rw, a) {
            normal.interior.push(node);
            return Some((normal, b, bias));
        }
        let (normal, scale) = weight(rw, b)?;
        let (center, x, mean) = rw.binary(a, BinaryOp::Sub)?;
        (x == normal.x && mean == normal.mean && normal.interior.contains(&center)).then(|| {
            let interior = [normal.interior.as_slice(), &[node]].concat();
            (Normal { interior, ..normal }, scale, bias)
        })
    })
}

/// `x · w` with the shift `bias - m · w`, where `w = r · scale`.
fn folded_mean(rw: &Rewriter<'_>, scaled: Value, shift: Value) -> Option<(Normal, Value, Value)> {
    rw.commuted(scaled, BinaryOp::Mul).into_iter().find_map(|(node, x, w)| {
        let (normal, scale) = weight(rw, w)?;
        let (difference, bias, product) = rw.binary(shift, BinaryOp::Sub)?;
        let (product, _, _) =
            rw.commuted(product, BinaryOp::Mul).into_iter().find(|&(_, m, v)| m == normal.mean && v == w)?;
        (x == normal.x).then(|| {
            let interior = [normal.interior.as_slice(), &[node, difference, product]].concat();
            (Normal { interior, ..normal }, scale, bias)
        })
    })
}

/// `w = r · scale` with `r = 1 / √(variance + ε)`.
fn weight(rw: &Rewriter<'_>, w: Value) -> Option<(Normal, Value)> {
    rw.commuted(w, BinaryOp::Mul).into_iter().find_map(|(node, r, scale)| {
        let (reciprocal, deviation) = rw.unary(r, UnaryOp::Recip)?;
        let mut normal = deviation_of(rw, deviation)?;
        normal.interior.extend([reciprocal, node]);
        Some((normal, scale))
    })
}

/// `d / √(variance + ε)` or `d · (1 / √(variance + ε))`.
fn normalized(rw: &Rewriter<'_>, value: Value) -> Option<Normal> {
    let (mut normal, centered) = if let Some((node, centered, deviation)) = rw.binary(value, BinaryOp::Div) {
        let mut normal = deviation_of(rw, deviation)?;
        normal.interior.push(node);
        (normal, centered)
    } else {
        rw.commuted(value, BinaryOp::Mul).into_iter().find_map(|(node, centered, r)| {
            let (reciprocal, deviation) = rw.unary(r, UnaryOp::Recip)?;
            let mut normal = deviation_of(rw, deviation)?;
            normal.interior.extend([reciprocal, node]);
            Some((normal, centered))
        })?
    };
    let (node, x, mean) = rw.binary(centered, BinaryOp::Sub)?;
    if !normal.interior.contains(&node) {
        normal.interior.push(node);
    }
    (x == normal.x && mean == normal.mean).then_some(normal)
}

/// `√(mean (d · d) + ε)` with `d = x - mean x`, both means over the same trailing dimensions.
fn deviation_of(rw: &Rewriter<'_>, value: Value) -> Option<Normal> {
    let (root, sum) = rw.unary(value, UnaryOp::Sqrt)?;
    rw.commuted(sum, BinaryOp::Add).into_iter().find_map(|(add, variance, epsilon)| {
        let exact = rw.graph.scalar_of(epsilon)?;
        let epsilon = exact as f32;
        if rw.graph.ty(sum).dtype() == DType::F64 && f64::from(epsilon) != exact {
            return None;
        }
        let (variance, square, axis) = trailing_mean(rw, variance)?;
        let (square, d, e) = rw.binary(square, BinaryOp::Mul)?;
        if d != e {
            return None;
        }
        let (center, x, mean) = rw.binary(d, BinaryOp::Sub)?;
        let (mean_node, of, mean_axis) = trailing_mean(rw, mean)?;
        (of == x && mean_axis == axis).then(|| Normal {
            x,
            axis,
            epsilon,
            mean,
            interior: vec![root, add, variance, square, center, mean_node],
        })
    })
}

/// A mean over all dimensions from one on, which stay with size 1: the node, its operand, and that dimension.
fn trailing_mean(rw: &Rewriter<'_>, value: Value) -> Option<(Node, Value, usize)> {
    let (node, data) = rw.def(value)?;
    let Op::Reduce { op: ReduceOp::Mean, axes, keep_dims: true } = &data.op else { return None };
    let (x, axis) = (data.inputs[0], *axes.first()?);
    let rank = rw.graph.ty(x).rank();
    (axes.iter().copied().eq(axis..rank)).then_some((node, x, axis))
}
