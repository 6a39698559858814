//! Rotary position embeddings (Su et al., arXiv 2104.09864).

use aic_ir::graph::{BinaryOp, Op, Value};

use super::accept::{FLOATS, I64};
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[rule(
    "RotaryEmbedding",
    (3, 4),
    &["interleaved", "num_heads", "rotary_embedding_dim"],
    "three or four dimensions; with or without positions",
    rotary_embedding,
)
.types(FLOATS)
.own(&[(3, I64)])
.since(23)];

/// Rotates pairs `(a, b)` of features by the angles of the caches: `(a cos - b sin, a sin + b cos)`. The pairs are the
/// halves of the rotated features, or neighbours.
fn rotary_embedding(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let shape = c.shape(x).to_vec();
    // To [batch, sequence, heads, features].
    let x = match *shape.as_slice() {
        [_, _, _, _] => c.transpose(x, [0, 2, 1, 3])?,
        [batch, sequence, width] => {
            let heads = c.int("num_heads")?.and_then(|n| u64::try_from(n).ok());
            let heads = heads.filter(|&n| n > 0 && width.is_multiple_of(n));
            let heads = heads.ok_or_else(|| format!("num_heads must divide the width {width}"))?;
            c.reshape(x, [batch, sequence, heads, width / heads])?
        }
        _ => return Err(format!("rank {} is not supported, only 3 and 4", shape.len()).into()),
    };
    let whole = c.shape(x).to_vec();
    let features = whole[3];
    let rotated = match c.int("rotary_embedding_dim")?.unwrap_or(0) {
        0 => features,
        dim => u64::try_from(dim).ok().filter(|&d| d <= features).ok_or("rotary_embedding_dim is out of range")?,
    };
    if !rotated.is_multiple_of(2) {
        return Err(format!("{rotated} rotated features are no pairs").into());
    }
    let (cos, sin) = (angles(c, 1, &whole, rotated / 2)?, angles(c, 2, &whole, rotated / 2)?);
    let interleaved = c.flag("interleaved", false)?;
    let half = |c: &mut NodeContext<'_>, second: u64| {
        let (start, step) = if interleaved { (second, 2) } else { (second * rotated / 2, 1) };
        let sizes = [&whole[..3], &[rotated / 2]].concat();
        c.emit(Op::Slice { starts: vec![0, 0, 0, start], sizes, steps: vec![1, 1, 1, step] }, &[x])
    };
    let (a, b) = (half(c, 0)?, half(c, 1)?);
    let term = |c: &mut NodeContext<'_>, x, y| c.binary(BinaryOp::Mul, x, y);
    let (a_cos, b_sin) = (term(c, a, cos)?, term(c, b, sin)?);
    let (a_sin, b_cos) = (term(c, a, sin)?, term(c, b, cos)?);
    let real = c.binary(BinaryOp::Sub, a_cos, b_sin)?;
    let imaginary = c.binary(BinaryOp::Add, a_sin, b_cos)?;
    let mut result = if interleaved {
        let pair = [&whole[..3], &[rotated / 2, 1]].concat();
        let (real, imaginary) = (c.reshape(real, pair.as_slice())?, c.reshape(imaginary, pair)?);
        let joined = c.concat(&[real, imaginary], 4)?;
        c.reshape(joined, [&whole[..3], &[rotated]].concat())?
    } else {
        c.concat(&[real, imaginary], 3)?
    };
    if rotated < features {
        let sizes = [&whole[..3], &[features - rotated]].concat();
        let rest = c.slice(x, vec![0, 0, 0, rotated], sizes)?;
        result = c.concat(&[result, rest], 3)?;
    }
    match shape.len() {
        4 => c.transpose(result, [0, 2, 1, 3]),
        _ => c.reshape(result, shape),
    }
}

/// A cache of cosines or sines as `[batch, sequence, 1, pairs]`: that of each position, or of each place in the sequence.
fn angles(c: &mut NodeContext<'_>, index: usize, whole: &[u64], pairs: u64) -> Result<Value, Reason> {
    let cache = c.operand(index)?;
    let cache = match c.optional(3) {
        Some(positions) => c.emit(Op::Gather { axis: 0 }, &[cache, positions])?,
        None => cache,
    };
    if c.shape(cache) != [whole[0], whole[1], pairs] {
        let (found, needed) = (c.shape(cache), [whole[0], whole[1], pairs]);
        return Err(format!("operand {index} gives angles of shape {found:?} instead of {needed:?}").into());
    }
    c.reshape(cache, [whole[0], whole[1], 1, pairs])
}
