//! Recurrent layers: `RNN`, `GRU` and `LSTM`.
//!
//! What a layer makes of its input, `X Wᵀ` and the biases, does not depend on its state, so it is one product for all steps
//! outside of the loop. The body of the scan has the product of the state and the gates ([`cells`]). Where sequences have
//! lengths, a mask that is computed outside keeps the state of the sequences that are over; a reversed layer runs from
//! the last step to the first under the same mask, which is the sequence reversed within its length.
//!
//! Shapes: `T` steps, `B` sequences, `I` features, `H` elements of the state, `D` directions, `G` gates.

mod activation;
mod cells;

use aic_ir::graph::{BinaryOp, Op, Value};
use aic_ir::types::DType;

use super::accept::FLOATS;
use super::constant::numbers;
use super::{OpRule, many};
use crate::body::{Next, Step, Steps};
use crate::builder::{Builder, Reason};
use crate::onnx::context::NodeContext;
use activation::Activation;
use cells::Cell;

pub(super) const RULES: &[OpRule] = &[
    layer("RNN", (3, 6), ATTRIBUTES, |c| import(c, Cell::Rnn)),
    layer("GRU", (3, 6), GRU_ATTRIBUTES, |c| {
        let linear_before_reset = c.flag("linear_before_reset", false)?;
        import(c, Cell::Gru { linear_before_reset })
    }),
    layer("LSTM", (3, 8), LSTM_ATTRIBUTES, |c| {
        let input_forget = c.flag("input_forget", false)?;
        import(c, Cell::Lstm { input_forget })
    }),
];

const ATTRIBUTES: &[&str] =
    &["activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout"];
const GRU_ATTRIBUTES: &[&str] = &[
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "layout",
    "linear_before_reset",
];
const LSTM_ATTRIBUTES: &[&str] = &[
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
];

const fn layer(
    name: &'static str,
    operands: (usize, usize),
    attributes: &'static [&'static str],
    import: fn(&mut NodeContext<'_>) -> Result<Vec<Value>, Reason>,
) -> OpRule {
    let doc = "floats; all directions, activations and layouts; lengths of sequences, initial states";
    many(name, operands, attributes, doc, import).types(FLOATS).own(&[(4, &[DType::I32])])
}

/// The operand that has the lengths of sequences.
const LENGTHS: usize = 4;

/// A layer whose operands were checked.
struct Layer {
    cell: Cell,
    clip: Option<f64>,
    /// `T`, `B`, `H`.
    sizes: [u64; 3],
    /// `[T, B, I]`.
    x: Value,
    /// `[T, B, 1]`: whether a sequence has a step.
    mask: Option<Value>,
    /// Whether the outputs of all steps are asked for.
    stacked: bool,
}

/// The operands of one direction.
struct Direction {
    reverse: bool,
    activations: Vec<Activation>,
    /// `[G·H, I]`.
    w: Value,
    /// `[G·H, H]`.
    r: Value,
    /// `[2·G·H]`.
    b: Option<Value>,
    /// `[B, H]` each.
    states: Vec<Value>,
    /// Weights of the peepholes, `[3·H]`.
    p: Option<Value>,
}

/// Computes layers of 16-bit floats in binary32, so that states are rounded where they are results only.
fn import(c: &mut NodeContext<'_>, cell: Cell) -> Result<Vec<Value>, Reason> {
    let dtype = c.dtype(c.operand(0)?);
    let wide = if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype };
    let mut operands = c.operands.to_vec();
    for (_, operand) in operands.iter_mut().enumerate().filter(|&(index, _)| index != LENGTHS) {
        *operand = operand.map(|value| c.cast(value, wide)).transpose()?;
    }
    let results = import_wide(&mut NodeContext { builder: c.builder, operands: &operands, ..*c }, cell)?;
    results.into_iter().map(|value| c.cast(value, dtype)).collect()
}

fn import_wide(c: &mut NodeContext<'_>, cell: Cell) -> Result<Vec<Value>, Reason> {
    let (x, w, r) = (c.operand(0)?, c.operand(1)?, c.operand(2)?);
    let batch_first = match c.int("layout")?.unwrap_or(0) {
        0 => false,
        1 => true,
        other => return Err(format!("layout = {other} is not supported").into()),
    };
    let reversed: &[bool] = match c.text("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(format!("direction = {other:?} is not supported").into()),
    };
    let x = if batch_first { swap(c, x, 3)? } else { x };
    let count = reversed.len() as u64;
    let gates = cell.gates();
    let (&[steps, batch, features], &[_, rows, hidden]) = (c.shape(x), c.shape(r)) else {
        return Err("the input and the weights must have rank 3".into());
    };
    let expect = |c: &Builder, value: Value, what: &str, shape: &[u64]| match c.shape(value) == shape {
        true => Ok(()),
        false => Err(Reason(format!("{what} has shape {:?} instead of {shape:?}", c.shape(value)))),
    };
    expect(c, r, "R", &[count, rows, hidden])?;
    if gates.checked_mul(hidden) != Some(rows) {
        return Err(format!("R has shape {:?}, which is not {gates} gates of {hidden} elements", c.shape(r)).into());
    }
    expect(c, w, "W", &[count, rows, features])?;
    if c.int("hidden_size")?.is_some_and(|n| u64::try_from(n) != Ok(hidden)) {
        return Err(format!("hidden_size is not {hidden}, which the weights have").into());
    }
    let b = c.optional(3);
    if let Some(b) = b {
        expect(c, b, "B", &[count, rows.saturating_mul(2)])?;
    }
    let lengths = c.optional(LENGTHS);
    let mask = match lengths {
        Some(lengths) => mask(c, lengths, steps, batch)?,
        None => None,
    };
    let mut states = Vec::new();
    for (index, what) in [(5, "the initial state"), (6, "the initial cell")].into_iter().take(cell.states()) {
        let state = match c.optional(index) {
            Some(state) => {
                let state = if batch_first { swap(c, state, 3)? } else { state };
                started(c, state, lengths)?
            }
            None => {
                let dtype = c.dtype(x);
                let zero = c.scalar(dtype, 0.0)?;
                c.emit(Op::Expand { shape: vec![count, batch, hidden] }, &[zero])?
            }
        };
        expect(c, state, what, &[count, batch, hidden])?;
        states.push(state);
    }
    let p = c.optional(7);
    if let Some(p) = p {
        expect(c, p, "P", &[count, hidden.saturating_mul(3)])?;
    }
    let clip = match c.optional_float("clip")? {
        Some(clip) if clip > 0.0 => Some(f64::from(clip)),
        Some(clip) => return Err(format!("clip = {clip} is not supported").into()),
        None => None,
    };
    if steps == 0 {
        // As for single sequences without steps.
        let (output, state) = match batch_first {
            false => (vec![0, count, batch, hidden], vec![count, batch, hidden]),
            true => (vec![batch, 0, count, hidden], vec![batch, count, hidden]),
        };
        let dtype = c.dtype(x);
        let zero = c.scalar(dtype, 0.0)?;
        let output = c.emit(Op::Expand { shape: output }, &[zero])?;
        let state = c.emit(Op::Expand { shape: state }, &[zero])?;
        return Ok(std::iter::once(output).chain(std::iter::repeat_n(state, cell.states())).collect());
    }
    let stacked = c.node.output.first().is_some_and(|name| !name.is_empty());
    let layer = Layer { cell, clip, sizes: [steps, batch, hidden], x, mask, stacked };

    let mut activations = activation::read(c, cell.activations(), reversed.len())?.into_iter();
    // Per direction: last states, then the outputs of all steps.
    let mut results: Vec<Vec<Value>> = Vec::new();
    for (index, &reverse) in reversed.iter().enumerate() {
        let index = index as u64;
        let mut own = |value: Value| c.row(value, index);
        let direction = Direction {
            reverse,
            activations: activations.by_ref().take(cell.activations().len()).collect(),
            w: own(w)?,
            r: own(r)?,
            b: b.map(&mut own).transpose()?,
            states: states.iter().map(|&v| own(v)).collect::<Result<_, _>>()?,
            p: p.map(&mut own).transpose()?,
        };
        results.push(layer.run(c, &direction)?);
    }
    let mut joined = Vec::new();
    for part in 0..results.first().map_or(0, Vec::len) {
        let parts: Vec<Value> = results.iter().filter_map(|r| r.get(part).copied()).collect();
        // The directions become the first dimension of states, and the second of outputs.
        let axis = usize::from(part >= cell.states());
        joined.push(join(c, &parts, axis, batch_first)?);
    }
    if stacked {
        joined.rotate_right(1);
    } else if let Some(&state) = joined.first() {
        // Nobody uses the first result.
        joined.insert(0, state);
    }
    Ok(joined)
}

/// Joins directions along a new dimension; `[D, B, H]` or `[T, D, B, H]`, batches first if asked for.
fn join(c: &mut Builder, parts: &[Value], axis: usize, batch_first: bool) -> Result<Value, Reason> {
    let mut lifted = Vec::with_capacity(parts.len());
    for &part in parts {
        let mut shape = c.shape(part).to_vec();
        shape.insert(axis, 1);
        lifted.push(c.reshape(part, shape)?);
    }
    let joined = c.emit(Op::Concat { axis }, &lifted)?;
    match (batch_first, axis) {
        (false, _) => Ok(joined),
        (true, 0) => swap(c, joined, 3),
        (true, _) => c.emit(Op::Transpose { perm: vec![2, 0, 1, 3] }, &[joined]),
    }
}

/// Exchanges the first two dimensions.
fn swap(c: &mut Builder, x: Value, rank: usize) -> Result<Value, Reason> {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(0, 1);
    c.emit(Op::Transpose { perm }, &[x])
}

/// The initial state, but 0 for sequences without steps: their last state is 0 in all runtimes.
fn started(c: &mut Builder, state: Value, lengths: Option<Value>) -> Result<Value, Reason> {
    let Some(lengths) = lengths.filter(|&l| c.index_range(l).is_none_or(|(least, _)| least < 1)) else {
        return Ok(state);
    };
    let dtype = c.dtype(lengths);
    let none = c.scalar(dtype, 0.0)?;
    let any = c.binary(BinaryOp::Lt, none, lengths)?;
    let any = c.reshape(any, [c.graph.ty(lengths).elems(), 1])?;
    let zero = c.scalar(c.dtype(state), 0.0)?;
    c.emit(Op::Select, &[any, state, zero])
}

/// Which steps each sequence has, `[T, B, 1]`; `None` if it is known that all have all.
fn mask(c: &mut Builder, lengths: Value, steps: u64, batch: u64) -> Result<Option<Value>, Reason> {
    if c.shape(lengths) != [batch] || !c.dtype(lengths).is_int() {
        return Err(format!("sequence_lens has type {} instead of i32[{batch}]", c.graph.ty(lengths)).into());
    }
    if c.index_range(lengths).is_some_and(|(least, _)| u64::try_from(least).is_ok_and(|n| n >= steps)) {
        return Ok(None);
    }
    let lengths = c.emit(Op::Cast { to: DType::I64 }, &[lengths])?;
    let lengths = c.reshape(lengths, [1, batch, 1])?;
    let step = numbers(c, steps, 0)?;
    let step = c.reshape(step, [steps, 1, 1])?;
    c.binary(BinaryOp::Lt, step, lengths).map(Some)
}

impl Layer {
    /// One direction: the last states, and if asked for the outputs of all steps, `[T, B, H]`.
    fn run(&self, c: &mut Builder, direction: &Direction) -> Result<Vec<Value>, Reason> {
        let [steps, batch, hidden] = self.sizes;
        let &Direction { reverse, ref activations, w, r, b, ref states, p } = direction;
        let gates = self.cell.gates();
        let (bias, late_bias) = match b {
            Some(b) => self.cell.biases(c, b, hidden)?,
            None => (None, None),
        };
        // The input's part of all gates at all steps.
        let features = c.shape(w)[1];
        let flat = c.reshape(self.x, [steps.saturating_mul(batch), features])?;
        let w = c.emit(Op::Transpose { perm: vec![1, 0] }, &[w])?;
        let mut given = c.emit(Op::MatMul, &[flat, w])?;
        if let Some(bias) = bias {
            given = c.binary(BinaryOp::Add, given, bias)?;
        }
        let given = c.reshape(given, [steps, batch, gates.saturating_mul(hidden)])?;

        let sequences: Vec<Value> = std::iter::once(given).chain(self.mask).collect();
        let captured = self.cell.captured(c, r, p, late_bias, hidden)?;
        let operands = Steps { trips: steps, reverse, states, sequences: &sequences, captured: &captured };
        c.scan(&operands, |c, Step { states, rows, captured }| {
            let gates = cells::Gates { given: rows[0], hidden, clip: self.clip, activations };
            let mut next = self.cell.step(c, &gates, &states, &captured)?;
            let mut output = next[0];
            if let Some(&mask) = rows.get(1) {
                let zero = c.scalar(c.dtype(output), 0.0)?;
                output = c.emit(Op::Select, &[mask, output, zero])?;
                for (new, &old) in next.iter_mut().zip(&states) {
                    *new = c.emit(Op::Select, &[mask, *new, old])?;
                }
            }
            Ok(Next { states: next, rows: if self.stacked { vec![output] } else { Vec::new() } })
        })
    }
}
