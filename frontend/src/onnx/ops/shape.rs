//! Operators that change or ask for shapes and keep the elements.

use aic_ir::graph::{Op, Value, infer};
use aic_ir::types::{DType, Tensor};

use super::accept::{ANY, BOOL, FLOATS, I64};
use super::constant::dims;
use super::{OpRule, many, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

pub(super) const RULES: &[OpRule] = &[
    rule("Identity", (1, 1), &[], "tensors", |c| c.operand(0)).types(ANY),
    many(
        "Dropout",
        (1, 3),
        &["ratio", "seed"],
        "inference only, where it does nothing; the mask since operator set 12",
        dropout,
    )
    .types(FLOATS)
    .own(&[(2, BOOL)]),
    rule("Reshape", (2, 2), &["allowzero"], "constant shape", reshape).types(ANY).own(&[(1, I64)]),
    rule("Flatten", (1, 1), &["axis"], "any type but strings", flatten).types(ANY),
    rule("Transpose", (1, 1), &["perm"], "any type but strings", transpose).types(ANY),
    rule("Squeeze", (1, 2), &["axes"], "constant axes", squeeze).types(ANY).own(&[(1, I64)]),
    rule("Unsqueeze", (1, 2), &["axes"], "constant axes", unsqueeze).types(ANY).own(&[(1, I64)]),
    rule("Expand", (2, 2), &[], "constant shape", expand).types(ANY).own(&[(1, I64)]).since(8),
    rule("Shape", (1, 1), &["start", "end"], "gives a constant", shape).types(ANY),
    rule("Size", (1, 1), &[], "gives a constant", size).types(ANY),
    rule("DepthToSpace", (1, 1), &["blocksize", "mode"], "four dimensions; both modes", depth_to_space).types(ANY),
    rule("SpaceToDepth", (1, 1), &["blocksize"], "four dimensions", space_to_depth).types(ANY),
];

/// A constant `training_mode` of false, and any ratio, leave the tensor as it is.
/// The mask is true everywhere; before operator set 12 its content was not defined, so it is not given.
fn dropout(c: &mut NodeContext<'_>) -> Result<Vec<Value>, Reason> {
    if c.opset < 12 {
        c.refuse_operand(1, "ratio")?;
    } else {
        c.refuse_attribute("ratio")?;
    }
    if c.optional(2).is_some() && c.constant_operand(2, "the training mode")?.get_i64(0) != Some(0) {
        return Err("training mode is not supported".into());
    }
    let x = c.operand(0)?;
    let mut results = vec![x];
    if c.opset >= 12 && c.node.output.get(1).is_some_and(|o| !o.is_empty()) {
        let shape = c.shape(x).to_vec();
        let kept = c.scalar(DType::Bool, 1.0)?;
        results.push(c.emit(Op::Expand { shape }, &[kept])?);
    }
    Ok(results)
}

/// A dimension of 0 copies that of the operand (unless `allowzero` is set), and one of -1 is what remains.
fn reshape(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let target = c.int_list(1, "the target shape")?;
    let zero_copies = !c.flag("allowzero", false)?;
    let mut shape = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, &dim) in target.iter().enumerate() {
        shape.push(match dim {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if zero_copies => *c.shape(x).get(i).ok_or_else(|| {
                format!("shape {target:?} copies dimension {i}, but the operand has rank {}", c.rank(x))
            })?,
            dim => u64::try_from(dim).map_err(|_| format!("shape {target:?} is not valid"))?,
        });
    }
    if let Some(open) = open {
        let known = aic_ir::types::element_count(&shape)?;
        let elems = c.graph.ty(x).elems();
        if known == 0 || !elems.is_multiple_of(known) {
            return Err(format!("{elems} elements do not fit shape {target:?}").into());
        }
        shape[open] = elems / known;
    }
    c.reshape(x, shape)
}

fn flatten(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let axis = match c.int("axis")?.unwrap_or(1) {
        axis if axis == rank as i64 => rank,
        axis => c.axis(axis, rank)?,
    };
    let (rows, columns) = c.shape(x).split_at(axis);
    let shape = [rows.iter().product(), columns.iter().product()];
    c.reshape(x, shape)
}

fn transpose(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let rank = c.rank(x);
    let perm = match c.ints_attribute("perm")? {
        Some(perm) => perm.iter().map(|&p| c.axis(p, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    c.emit(Op::Transpose { perm }, &[x])
}

fn squeeze(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let shape = c.shape(x);
    let axes = match c.list_since(13, 1, "axes")? {
        Some(axes) => c.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(format!("dimension {axis} of shape {shape:?} is not 1").into());
    }
    let kept: Vec<u64> = (0..shape.len()).filter(|i| !axes.contains(i)).map(|i| shape[i]).collect();
    c.reshape(x, kept)
}

fn unsqueeze(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let axes = c.list_since(13, 1, "axes")?.ok_or("`axes` are missing")?;
    let rank = c.rank(x) + axes.len();
    let axes = c.axes(&axes, rank)?;
    let mut old = c.shape(x).iter().copied();
    let shape: Vec<u64> =
        (0..rank).map(|i| if axes.binary_search(&i).is_ok() { 1 } else { old.next().unwrap_or(1) }).collect();
    c.reshape(x, shape)
}

/// The target shape broadcasts with that of the operand, so its dimensions of 1 keep the operand's.
fn expand(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let target = dims(&c.int_list(1, "the target shape")?)?;
    let shape = infer::broadcast(c.shape(x), &target).map_err(|e| e.to_string())?;
    c.emit(Op::Expand { shape }, &[x])
}

fn shape(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let dims: Vec<i64> = c.shape(c.operand(0)?).iter().map(|&d| d as i64).collect();
    let rank = dims.len() as i64;
    let clamp = |position: i64| if position < 0 { position.saturating_add(rank).max(0) } else { position.min(rank) };
    let start = clamp(c.int("start")?.unwrap_or(0)) as usize;
    let end = clamp(c.int("end")?.unwrap_or(rank)) as usize;
    c.ints(dims.get(start..end).unwrap_or_default())
}

fn size(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let elems = c.graph.ty(c.operand(0)?).elems() as i64;
    let tensor = Tensor::from_i64([], &[elems]).ok_or("a constant cannot be made")?;
    c.constant(tensor)
}

/// Shape `[N, C, H, W]` and block size.
fn blocks(c: &NodeContext<'_>) -> Result<([u64; 4], u64), Reason> {
    let &[n, channels, h, w] = c.shape(c.operand(0)?) else { return Err("four dimensions are needed".into()) };
    let block = c.int("blocksize")?.and_then(|b| u64::try_from(b).ok()).filter(|b| (1..=1 << 20).contains(b));
    Ok(([n, channels, h, w], block.ok_or("blocksize must be at least 1")?))
}

fn depth_to_space(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let ([n, channels, h, w], b) = blocks(c)?;
    if !channels.is_multiple_of(b * b) {
        return Err(format!("{channels} channels are no multiple of blocksize² = {}", b * b).into());
    }
    let depth = channels / (b * b);
    let (split, perm) = match c.text("mode", "DCR")? {
        "DCR" => ([n, b, b, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, depth, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(format!("mode = {other:?} is not supported").into()),
    };
    let split = c.reshape(x, split)?;
    let moved = c.emit(Op::Transpose { perm }, &[split])?;
    c.reshape(moved, [n, depth, h * b, w * b])
}

fn space_to_depth(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let ([n, channels, h, w], b) = blocks(c)?;
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(format!("{h} × {w} is no multiple of blocksize {b}").into());
    }
    let split = c.reshape(x, [n, channels, h / b, b, w / b, b])?;
    let moved = c.emit(Op::Transpose { perm: vec![0, 3, 5, 1, 2, 4] }, &[split])?;
    let depth = channels.checked_mul(b * b).ok_or("too many channels")?;
    c.reshape(moved, [n, depth, h / b, w / b])
}
