//! Attention as one operator.

use aic_ir::graph::{BinaryOp, Op, ReduceOp, UnaryOp, Value};
use aic_ir::types::DType;

use super::accept::FLOATS;
use super::constant::numbers;
use super::{OpRule, many};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// A mask is added to the scores, or says which of them count.
const MASKS: &[DType] = &[DType::F16, DType::BF16, DType::F32, DType::F64, DType::Bool];

pub(super) const RULES: &[OpRule] = &[many(
    "Attention",
    (3, 6),
    &["is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"],
    "grouped heads, masks, causal masks, caches of keys and values, soft caps; every result",
    attention,
)
.types(FLOATS)
.own(&[(3, MASKS)])
.since(23)];

/// What is asked for beside the result.
struct Scores {
    /// Which stage of the scores, if they are a result.
    stage: Option<i64>,
    /// Bound of their magnitude, if there is one.
    cap: Option<f64>,
}

fn attention(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    let wanted = |index: usize| c.node.output.get(index).is_some_and(|o| !o.is_empty());
    let stage = wanted(3).then(|| c.int("qk_matmul_output_mode")).transpose()?.map(|mode| mode.unwrap_or(0));
    let cap = Some(f64::from(c.float("softcap", 0.0)?)).filter(|&cap| cap > 0.0);
    let rank = c.rank(c.operand(0)?);
    let q = heads(c, 0, "q_num_heads")?;
    let k = heads(c, 1, "kv_num_heads")?;
    let v = heads(c, 2, "kv_num_heads")?;
    let (k, past) = with_past(c, k, 4)?;
    let (v, _) = with_past(c, v, 5)?;
    let (&[batch, q_heads, queries, depth], &[_, _, keys, value_depth]) = (c.shape(q), c.shape(v)) else {
        return Err("operands must have rank 3 or 4".into());
    };
    let (all_k, all_v) = (repeat_heads(c, k, q_heads)?, repeat_heads(c, v, q_heads)?);
    let scale = match c.optional_float("scale")? {
        Some(scale) => scale,
        None => 1.0 / (depth as f32).sqrt(),
    };
    // As an attribute of one operator the scale has 32 bits.
    let exact = c.dtype(q) != DType::F64 || c.has_attribute("scale");
    let wide_scale = if exact { f64::from(scale) } else { 1.0 / (depth as f64).sqrt() };
    let bias = bias(c, q, [queries, keys, past])?;
    let masked = c.optional(3).is_some();
    let (mut result, scores) = match (stage, cap) {
        (None, None) if wide_scale == f64::from(scale) => {
            let mut operands = vec![q, all_k, all_v];
            operands.extend(bias);
            (c.emit(Op::Attention { scale }, &operands)?, None)
        }
        _ => step_by_step(c, [q, all_k, all_v], wide_scale, bias.map(|bias| (bias, masked)), &Scores { stage, cap })?,
    };
    if let Some(bias) = bias.filter(|_| masked) {
        result = clear_hidden_rows(c, result, bias)?;
    }
    if rank == 3 {
        let rows = c.transpose(result, [0, 2, 1, 3])?;
        result = c.reshape(rows, [batch, queries, q_heads.saturating_mul(value_depth)])?;
    }
    Ok([result, k, v].into_iter().chain(scores).collect())
}

/// Keys or values after those of a cache, if there is one, and how many that holds.
fn with_past(c: &mut NodeContext<'_>, x: Value, index: usize) -> Result<(Value, u64), Reason> {
    let Some(past) = c.optional(index) else { return Ok((x, 0)) };
    let &[_, _, length, _] = c.shape(past) else { return Err("a cache must have rank 4".into()) };
    Ok((c.concat(&[past, x], 2)?, length))
}

/// The same with each step by itself, where something happens to the scores on the way or they are a result, too. Scores
/// of 16 bits are computed in `f32`.
fn step_by_step(
    c: &mut NodeContext<'_>,
    operands: [Value; 3],
    scale: f64,
    bias: Option<(Value, bool)>,
    wanted: &Scores,
) -> Result<(Value, Option<Value>), Reason> {
    let dtype = c.dtype(operands[0]);
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let [q, k, v] = operands;
    let (q, k, v) = (c.cast(q, wide)?, c.cast(k, wide)?, c.cast(v, wide)?);
    let turned = c.transpose(k, [0, 1, 3, 2])?;
    let product = c.emit(Op::MatMul, &[q, turned])?;
    let raw = c.binary_scalar(BinaryOp::Mul, product, scale)?;
    let capped = match wanted.cap {
        Some(cap) => {
            let inner = c.binary_scalar(BinaryOp::Div, raw, cap)?;
            let tanh = c.unary(UnaryOp::Tanh, inner)?;
            c.binary_scalar(BinaryOp::Mul, tanh, cap)?
        }
        None => raw,
    };
    let biased = match bias {
        Some((bias, _)) => {
            let bias = c.cast(bias, wide)?;
            c.binary(BinaryOp::Add, capped, bias)?
        }
        None => capped,
    };
    let axis = c.rank(biased).checked_sub(1).ok_or("the scores have no dimensions")?;
    let mut weights = c.emit(Op::Softmax { axis }, &[biased])?;
    if let Some((bias, true)) = bias {
        weights = clear_hidden_rows(c, weights, bias)?;
    }
    let result = c.emit(Op::MatMul, &[weights, v])?;
    let scores = match wanted.stage {
        None => None,
        Some(0) => Some(raw),
        Some(1) => Some(capped),
        Some(2) => Some(biased),
        Some(3) => Some(weights),
        Some(mode) => return Err(format!("qk_matmul_output_mode = {mode} is not supported").into()),
    };
    let scores = scores.map(|scores| c.cast(scores, dtype)).transpose()?;
    Ok((c.cast(result, dtype)?, scores))
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

/// What is added to the scores: the mask (truth values select between 0 and −∞), the causal mask, or both. A mask for
/// fewer keys than there are hides the rest; a causal one shows the keys of the cache.
fn bias(c: &mut NodeContext<'_>, q: Value, sizes: [u64; 3]) -> Result<Option<Value>, Reason> {
    let [queries, keys, past] = sizes;
    let dtype = c.dtype(q);
    let (zero, hidden) = (c.scalar(dtype, 0.0)?, c.scalar(dtype, f64::NEG_INFINITY)?);
    let mut mask = match c.optional(3) {
        Some(mask) if !c.dtype(mask).is_float() => Some(c.select(mask, zero, hidden)?),
        mask => mask,
    };
    if let Some(given) = mask
        && let Some(missing) = c.shape(given).last().and_then(|&last| keys.checked_sub(last)).filter(|&n| n > 0)
        && c.shape(given).last() != Some(&1)
    {
        let mut pads = vec![(0, 0); c.rank(given)];
        if let Some(last) = pads.last_mut() {
            last.1 = missing;
        }
        mask = Some(c.emit(Op::Pad { pads, value: f64::NEG_INFINITY }, &[given])?);
    }
    if !c.flag("is_causal", false)? {
        return Ok(mask);
    }
    let row = numbers(c, queries, past as i64)?;
    let row = c.reshape(row, [queries, 1])?;
    let column = numbers(c, keys, 0)?;
    let visible = c.binary(BinaryOp::Le, column, row)?;
    let shown = mask.unwrap_or(zero);
    c.select(visible, shown, hidden).map(Some)
}
