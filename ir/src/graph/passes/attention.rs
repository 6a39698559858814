//! Fusion of attention from two matrix products and the softmax between them.
//!
//! Input: a canonical graph without dead nodes. Output: `attention` where all operands have four dimensions and nobody else
//! sees a value in between. After LayerNorm and GELU, whose patterns hold no matrix products.
//!
//! ```text
//! s = matmul q, transpose k; p = softmax (s / 8 + bias); y = matmul p, v   →   y = attention q, k, v, bias
//! ```
//!
//! The scale may sit on the scores, on the queries, on the keys, or partly on each. Instead of a bias, a `select` may
//! put a constant where a mask says so, if that constant is so low that adding it to any score gives it again. The keys
//! may come in any arrangement: a transposition is added, and merges with the one that is there.

use super::constant::float_tensor;
use super::rewrite::{Rewriter, rewrite};
use crate::graph::{BinaryOp, Graph, Node, Op, Value};
use crate::types::DType;

/// Largest value of a `select` that masks: adding it to a score of magnitude below 10^20 does not change it.
const MASKED: f64 = -1e30;

/// Most scalar factors of one operand.
const MAX_FACTORS: usize = 4;

pub(super) fn run(graph: &mut Graph) -> usize {
    rewrite(graph, &mut rule)
}

/// The second operand of the sum before the softmax.
#[derive(Clone, Copy)]
enum Bias {
    None,
    Add(Value),
    /// `condition ? score : low`, or the other way round.
    Select {
        condition: Value,
        low: f64,
        low_if_true: bool,
    },
}

fn rule(rw: &mut Rewriter<'_>, root: Node) -> Option<Value> {
    let data = &rw.graph.nodes[root];
    if data.op != Op::MatMul {
        return None;
    }
    let (weights, v) = (data.inputs[0], data.inputs[1]);
    let (softmax, data) = rw.def(weights)?;
    if data.op != (Op::Softmax { axis: 3 }) {
        return None;
    }
    let mut interior = vec![softmax];
    let (scores, bias) = biased(rw, data.inputs[0], &mut interior);
    let mut scale = 1.0;
    let products = peel(rw, scores, &mut scale, &mut interior);
    let (matmul, data) = rw.def(products)?;
    if data.op != Op::MatMul || rw.graph.ty(products).rank() != 4 {
        return None;
    }
    interior.push(matmul);
    let (q, k) = (data.inputs[0], data.inputs[1]);
    // Scaled operands are worth taking apart only if nobody else needs them scaled.
    let q = peel_closed(rw, q, &mut scale, &mut interior, root);
    let k = peel_closed(rw, k, &mut scale, &mut interior, root);
    if !rw.closed(&interior, root) {
        return None;
    }
    // The operator's scale has the accuracy of binary32.
    if rw.graph.ty(products).dtype() == DType::F64 && f64::from(scale as f32) != scale {
        return None;
    }
    let k = rw.add(root, Op::Transpose { perm: vec![0, 1, 3, 2] }, &[k])?;
    let mut operands = vec![q, k, v];
    match bias {
        Bias::None => {}
        Bias::Add(bias) => operands.push(bias),
        Bias::Select { condition, low, low_if_true } => {
            let dtype = rw.graph.ty(products).dtype();
            let (low, zero) =
                (float_tensor(dtype, &[], [low].into_iter())?, float_tensor(dtype, &[], [0.0].into_iter())?);
            let (low, zero) = (rw.add_const("masked", low), rw.add_const("unmasked", zero));
            let choices = if low_if_true { [low, zero] } else { [zero, low] };
            operands.push(rw.add(root, Op::Select, &[condition, choices[0], choices[1]])?);
        }
    }
    rw.add(root, Op::Attention { scale: scale as f32 }, &operands)
}

/// Takes the bias off the operand of the softmax.
fn biased(rw: &Rewriter<'_>, value: Value, interior: &mut Vec<Node>) -> (Value, Bias) {
    let is_scores = |v: Value| {
        let mut scale = 1.0;
        let v = peel(rw, v, &mut scale, &mut Vec::new());
        rw.def(v).is_some_and(|(_, data)| data.op == Op::MatMul) && rw.shape(v) == rw.shape(value)
    };
    let sum = rw.commuted(value, BinaryOp::Add).into_iter().find(|t| is_scores(t.1));
    if let Some((node, scores, bias)) = sum {
        interior.push(node);
        return (scores, Bias::Add(bias));
    }
    if let Some((node, data)) = rw.def(value)
        && data.op == Op::Select
        && let &[condition, a, b] = data.inputs.as_slice()
    {
        for (scores, low, low_if_true) in [(a, b, false), (b, a, true)] {
            if let Some(low) = rw.graph.scalar_of(low).filter(|&low| low <= MASKED)
                && is_scores(scores)
            {
                interior.push(node);
                return (scores, Bias::Select { condition, low, low_if_true });
            }
        }
    }
    (value, Bias::None)
}

/// Takes scalar factors off a value; exporters write one or two. A longer chain may be shared by any number of products.
fn peel(rw: &Rewriter<'_>, mut value: Value, scale: &mut f64, interior: &mut Vec<Node>) -> Value {
    for _ in 0..MAX_FACTORS {
        let Some((node, x, factor)) = rw.scaled(value) else { break };
        *scale *= factor;
        interior.push(node);
        value = x;
    }
    value
}

/// Like [`peel`], through one transposition, and only if the factors have no other users.
fn peel_closed(rw: &mut Rewriter<'_>, value: Value, scale: &mut f64, interior: &mut Vec<Node>, root: Node) -> Value {
    let mut factor = *scale;
    let mut nodes = interior.clone();
    let mut peeled = peel(rw, value, &mut factor, &mut nodes);
    let transposed = rw.def(peeled).and_then(|(node, data)| match &data.op {
        Op::Transpose { .. } => Some((node, data.op.clone(), data.inputs[0])),
        _ => None,
    });
    if let Some((node, op, x)) = transposed {
        let mut inner = nodes.clone();
        let mut inner_factor = factor;
        let y = peel(rw, x, &mut inner_factor, &mut inner);
        if y != x {
            inner.push(node);
            if rw.closed(&inner, root)
                && let Some(y) = rw.add(root, op, &[y])
            {
                (peeled, factor, nodes) = (y, inner_factor, inner);
            }
        }
    }
    if peeled == value || !rw.closed(&nodes, root) {
        return value;
    }
    (*scale, *interior) = (factor, nodes);
    peeled
}
