//! Attention as one operator.

use aic_ir::graph::{BinaryOp, Op, ReduceOp, Value};
use aic_ir::types::DType;

use super::accept::FLOATS;
use super::constant::numbers;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// A mask is added to the scores, or says which of them count.
const MASKS: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::Bool];

pub(super) const RULES: &[OpRule] = &[rule(
    "Attention",
    (3, 6),
    &["is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"],
    "floats; grouped heads, mask and causal mask; no cache, soft cap or score output",
    attention,
)
.types(FLOATS)
.own(&[(3, MASKS)])
.since(23)];

fn attention(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    c.refuse_operand(4, "past_key")?;
    c.refuse_operand(5, "past_value")?;
    if c.float("softcap", 0.0)? != 0.0 {
        return Err("a soft cap is not supported".into());
    }
    let rank = c.rank(c.operand(0)?);
    let q = heads(c, 0, "q_num_heads")?;
    let k = heads(c, 1, "kv_num_heads")?;
    let v = heads(c, 2, "kv_num_heads")?;
    let (&[batch, q_heads, queries, depth], &[_, _, keys, value_depth]) = (c.shape(q), c.shape(v)) else {
        return Err("operands must have rank 3 or 4".into());
    };
    let (k, v) = (repeat_heads(c, k, q_heads)?, repeat_heads(c, v, q_heads)?);
    let scale = match c.optional_float("scale")? {
        Some(scale) => scale,
        None => 1.0 / (depth as f32).sqrt(),
    };
    let mut operands = vec![q, k, v];
    let bias = bias(c, q, queries, keys)?;
    operands.extend(bias);
    let mut result = c.emit(Op::Attention { scale }, &operands)?;
    if let Some(bias) = bias.filter(|_| c.optional(3).is_some()) {
        result = clear_hidden_rows(c, result, bias)?;
    }
    if rank == 4 {
        return Ok(result);
    }
    let rows = c.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[result])?;
    c.reshape(rows, [batch, queries, q_heads.saturating_mul(value_depth)])
}

/// Operand `index` as `[batch, heads, sequence, depth]`; with rank 3 it is `[batch, sequence, heads · depth]`.
fn heads(c: &mut NodeContext<'_>, index: usize, attribute: &str) -> Result<Value, Reason> {
    let x = c.operand(index)?;
    let &[batch, sequence, width] = c.shape(x) else { return Ok(x) };
    let count = c.int(attribute)?.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0 && width.is_multiple_of(n));
    let count = count.ok_or_else(|| format!("{attribute} must divide the width {width} of operands of rank 3"))?;
    let split = c.reshape(x, [batch, sequence, count, width / count])?;
    c.emit(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[split])
}

/// Repeats each head of keys or values for its group of query heads.
fn repeat_heads(c: &mut NodeContext<'_>, x: Value, q_heads: u64) -> Result<Value, Reason> {
    let &[batch, heads, sequence, depth] = c.shape(x) else { return Err("operands must have rank 3 or 4".into()) };
    if heads == q_heads {
        return Ok(x);
    }
    if heads == 0 || !q_heads.is_multiple_of(heads) {
        return Err(format!("{heads} heads of keys do not divide {q_heads} heads of queries").into());
    }
    let split = c.reshape(x, [batch, heads, 1, sequence, depth])?;
    let repeated = c.emit(Op::Expand { shape: vec![batch, heads, q_heads / heads, sequence, depth] }, &[split])?;
    c.reshape(repeated, [batch, q_heads, sequence, depth])
}

/// A query that may attend to no key gives zeros, as the specification has it, where the softmax alone gives NaN. The
/// causal mask alone hides no row: every query sees the first key.
fn clear_hidden_rows(c: &mut NodeContext<'_>, result: Value, bias: Value) -> Result<Value, Reason> {
    let last = c.rank(bias).checked_sub(1).ok_or("the mask must have rank 1 or more")?;
    let best = c.reduce(ReduceOp::Max, bias, &[last], true)?;
    let hidden = c.binary_scalar(BinaryOp::Eq, best, f64::NEG_INFINITY)?;
    let dtype = c.dtype(result);
    let zero = c.scalar(dtype, 0.0)?;
    c.emit(Op::Select, &[hidden, zero, result])
}

/// What is added to the scores: the mask (truth values select between 0 and −∞), the causal mask, or both.
fn bias(c: &mut NodeContext<'_>, q: Value, queries: u64, keys: u64) -> Result<Option<Value>, Reason> {
    let dtype = c.dtype(q);
    let (zero, hidden) = (c.scalar(dtype, 0.0)?, c.scalar(dtype, f64::NEG_INFINITY)?);
    let mask = match c.optional(3) {
        Some(mask) if !c.dtype(mask).is_float() => Some(c.emit(Op::Select, &[mask, zero, hidden])?),
        mask => mask,
    };
    if !c.flag("is_causal", false)? {
        return Ok(mask);
    }
    let row = numbers(c, queries, 0)?;
    let row = c.reshape(row, [queries, 1])?;
    let column = numbers(c, keys, 0)?;
    let visible = c.binary(BinaryOp::Le, column, row)?;
    let causal = match mask {
        Some(mask) => c.emit(Op::Select, &[visible, mask, hidden])?,
        None => c.emit(Op::Select, &[visible, zero, hidden])?,
    };
    Ok(Some(causal))
}
