//! Fusion of what follows a convolution channel by channel into its weights and bias.
//!
//! Input: any graph without dead nodes. Output: batch normalizations, products and sums with per-channel constants right
//! after a convolution with constant weights are gone. After constant folding, which makes their operands constants.
//!
//! ```text
//! batch_norm (conv x, w, b), s, o, m, v   →   conv x, w · a, (b - m) · a + o     with a = s / √(v + ε)
//! ```
//!
//! New weights are computed in `f64` and rounded once.

use super::constant::float_tensor;
use super::rewrite::{Rewriter, rewrite};
use crate::graph::{BinaryOp, Graph, Node, Op, Value};

/// Bytes of new weights and biases beyond the size of the graph's constants: any number of convolutions may share their
/// weights, and each would get its own.
const EXTRA_BYTES: u64 = 16 << 20;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut budget = graph.consts.values().map(|t| t.ty().bytes()).fold(EXTRA_BYTES, u64::saturating_add);
    rewrite(graph, &mut |rw, root| rule(rw, root, &mut budget))
}

/// `y = factor[c] · x + shift[c]` for each channel.
struct PerChannel {
    factor: Vec<f64>,
    shift: Vec<f64>,
}

fn rule(rw: &mut Rewriter<'_>, root: Node, budget: &mut u64) -> Option<Value> {
    let data = &rw.graph.nodes[root];
    let y = rw.result(root)?;
    let is_conv = |v: &Value| rw.def(*v).is_some_and(|(_, data)| matches!(data.op, Op::Conv(_)));
    let x = match &data.op {
        Op::BatchNorm { .. } | Op::Binary(BinaryOp::Sub) => data.inputs.first().copied().filter(is_conv)?,
        Op::Binary(BinaryOp::Mul | BinaryOp::Add) => data.inputs.iter().copied().find(is_conv)?,
        _ => return None,
    };
    let (conv, data) = rw.def(x)?;
    if rw.graph.ty(x) != rw.graph.ty(y) || !rw.closed(&[conv], root) {
        return None;
    }
    // All that is made has a place for each channel, or for each weight; a convolution of nothing has weights for none.
    let weights = rw.graph.const_of(*data.inputs.get(1)?)?.ty();
    let channels = *rw.shape(x).get(1)?;
    if channels > weights.elems() {
        return None;
    }
    let cost = weights.bytes().saturating_add(channels.saturating_mul(8));
    let left = budget.checked_sub(cost)?;
    let data = &rw.graph.nodes[root];
    let change = match &data.op {
        Op::BatchNorm { epsilon } => batch_norm(rw, &data.inputs, f64::from(*epsilon))?,
        Op::Binary(op) => {
            let constant = *data.inputs.iter().find(|&&v| v != x)?;
            elementwise(rw, *op, x, constant)?
        }
        _ => return None,
    };
    *budget = left;
    let data = &rw.graph.nodes[conv];
    let Op::Conv(attrs) = &data.op else { return None };
    let attrs = attrs.clone();
    let (input, w_value, b_value) = (data.inputs[0], data.inputs[1], data.inputs.get(2).copied());
    let (w, dtype) = (rw.graph.const_of(w_value)?, rw.graph.ty(x).dtype());
    let old_bias: Vec<f64> = match b_value {
        Some(b) => channel_values(rw, b)?,
        None => vec![0.0; channels as usize],
    };
    let bias = float_tensor(
        dtype,
        &[channels],
        old_bias.iter().zip(&change.factor).zip(&change.shift).map(|((b, factor), shift)| b * factor + shift),
    )?;
    let weights = if change.factor.iter().all(|&f| f == 1.0) {
        None
    } else {
        let per_channel = (w.ty().elems() / channels.max(1)).max(1);
        let scaled = (0..w.ty().elems()).map(|n| {
            // All elements exist and belong to a channel.
            let factor = change.factor.get((n / per_channel) as usize).copied().unwrap_or(1.0);
            w.get_f64(n).unwrap_or(0.0) * factor
        });
        Some(float_tensor(dtype, w.ty().shape(), scaled)?)
    };
    let name = rw.graph.values[w_value].name.clone();
    let weights = weights.map_or(w_value, |tensor| rw.add_const(&name, tensor));
    let name = b_value.map_or_else(|| format!("{name}.bias"), |b| rw.graph.values[b].name.clone());
    let bias = rw.add_const(&name, bias);
    rw.add(root, Op::Conv(attrs), &[input, weights, bias])
}

fn channel_values(rw: &Rewriter<'_>, value: Value) -> Option<Vec<f64>> {
    let tensor = rw.graph.const_of(value)?;
    (0..tensor.ty().elems()).map(|n| tensor.get_f64(n)).collect()
}

fn batch_norm(rw: &Rewriter<'_>, inputs: &[Value], epsilon: f64) -> Option<PerChannel> {
    let &[_, scale, bias, mean, variance] = inputs else { return None };
    let [scale, bias, mean, variance] = [scale, bias, mean, variance].map(|v| channel_values(rw, v));
    let (scale, bias, mean, variance) = (scale?, bias?, mean?, variance?);
    let factor: Vec<f64> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let shift = bias.iter().zip(&mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    Some(PerChannel { factor, shift })
}

/// `conv ∘ c` where the constant `c` has one element, or one per channel.
fn elementwise(rw: &Rewriter<'_>, op: BinaryOp, conv: Value, constant: Value) -> Option<PerChannel> {
    let shape = rw.shape(conv);
    let &[_, channels, ..] = shape else { return None };
    let operand = rw.shape(constant);
    let skipped = shape.len().checked_sub(operand.len())?;
    let per_channel = operand.iter().enumerate().all(|(i, &d)| d == 1 || skipped + i == 1);
    if !per_channel {
        return None;
    }
    let mut values = channel_values(rw, constant)?;
    if let &[value] = values.as_slice() {
        values = vec![value; channels as usize];
    }
    if values.len() as u64 != channels {
        return None;
    }
    let ones = vec![1.0; values.len()];
    let zeros = vec![0.0; values.len()];
    Some(match op {
        BinaryOp::Mul => PerChannel { factor: values, shift: zeros },
        BinaryOp::Sub => PerChannel { factor: ones, shift: values.iter().map(|v| -v).collect() },
        _ => PerChannel { factor: ones, shift: values },
    })
}
