//! The operator `Scan`: sequences along any dimension, in either direction, brought into the form of a repetition.

use aic_ir::graph::{Op, Value};

use super::context::axis as dimension;
use super::control::{Repeat, graph_attribute};
use super::import::Importer;
use super::schema::{GraphProto, NodeProto};
use super::scope::Slot;
use crate::builder::{Builder, Reason};

/// A `Scan` and its attributes.
struct Scan<'m> {
    node: &'m NodeProto,
    body: &'m GraphProto,
    /// Dimension of the steps, for each sequence and for each stacked result.
    axes: (Vec<i64>, Vec<i64>),
    /// Whether the steps run backward, for each sequence and for each stacked result.
    backward: (Vec<bool>, Vec<bool>),
}

pub(super) fn import_scan<'m>(
    importer: &mut Importer<'m>,
    node: &'m NodeProto,
    operands: &[Option<Value>],
) -> Result<Vec<Slot>, Reason> {
    let body = graph_attribute(node, "body")?;
    let c = importer.context(node, operands);
    let batched = c.opset < 9;
    if batched && c.optional(0).is_some() {
        return Err("lengths of sequences are not supported".into());
    }
    let operands: Option<Vec<Value>> = operands.iter().skip(usize::from(batched)).copied().collect();
    let operands = operands.ok_or("an operand is omitted")?;
    let count = c.int("num_scan_inputs")?.ok_or("attribute `num_scan_inputs` is missing")?;
    let states = usize::try_from(count).ok().filter(|&n| n >= 1).and_then(|n| operands.len().checked_sub(n));
    let states = states.ok_or_else(|| format!("{count} of its {} operands cannot be sequences", operands.len()))?;
    let count = operands.len() - states;
    let stacked = body.output.len().checked_sub(states).ok_or("its body does not return its states")?;
    let list = |name: &str, count: usize| -> Result<Vec<i64>, Reason> {
        match c.ints_attribute(name)? {
            None => Ok(vec![0; count]),
            Some(list) if list.len() == count => Ok(list.to_vec()),
            Some(list) => Err(format!("{name} has {} elements instead of {count}", list.len()).into()),
        }
    };
    let directions = |name: &str, count: usize| -> Result<Vec<bool>, Reason> {
        list(name, count)?
            .into_iter()
            .map(|d| match d {
                0 => Ok(false),
                1 => Ok(true),
                other => Err(format!("{name} has {other}, which is neither 0 nor 1").into()),
            })
            .collect()
    };
    let backward = match batched {
        true => (directions("directions", count)?, vec![false; stacked]),
        false => (directions("scan_input_directions", count)?, directions("scan_output_directions", stacked)?),
    };
    let axes = (list("scan_input_axes", count)?, list("scan_output_axes", stacked)?);
    let scan = Scan { node, body, axes, backward };
    match batched {
        true => scan.batched(importer, &operands, states),
        false => scan.import(importer, &operands, states),
    }
}

impl<'m> Scan<'m> {
    /// In operator sets before 9, every operand and result has the batch as a further leading dimension.
    fn batched(&self, importer: &mut Importer<'m>, operands: &[Value], states: usize) -> Result<Vec<Slot>, Reason> {
        let batch = leading(&importer.builder, operands).filter(|&batch| batch > 0);
        let batch = batch.ok_or("its operands are not of one batch")?;
        let mut parts: Vec<Vec<Value>> = vec![Vec::new(); self.body.output.len()];
        for index in 0..batch {
            importer.builder.step()?;
            let rows: Result<Vec<Value>, Reason> = operands.iter().map(|&v| importer.builder.row(v, index)).collect();
            let results = self.import(importer, &rows?, states)?;
            for (parts, slot) in parts.iter_mut().zip(results) {
                // Why is noted already.
                let Some(value) = slot.value() else { return Ok(vec![Slot::Refused; self.node.output.len()]) };
                parts.push(value);
            }
        }
        parts.iter().map(|rows| importer.builder.stack(rows).map(Slot::Value)).collect()
    }

    fn import(&self, importer: &mut Importer<'m>, operands: &[Value], states: usize) -> Result<Vec<Slot>, Reason> {
        let (states, sequences) = operands.split_at(states);
        let builder = &mut importer.builder;
        let sequences = sequences.iter().zip(&self.axes.0);
        let sequences: Result<Vec<Value>, Reason> = sequences.map(|(&v, &axis)| to_front(builder, v, axis)).collect();
        let mut sequences = sequences?;
        let trips = leading(builder, &sequences).ok_or("its sequences are not of one length")?;
        // If all run backward, so does the repetition; otherwise single ones are turned around.
        let reverse = self.backward.0.iter().chain(&self.backward.1).all(|&b| b);
        if !reverse {
            for (sequence, _) in sequences.iter_mut().zip(&self.backward.0).filter(|&(_, &b)| b) {
                *sequence = flip(builder, *sequence)?;
            }
        }
        let body = self.body;
        let repeat = Repeat { body, is_loop: false, states: states.to_vec(), sequences, trips: Some(trips), reverse };
        let mut results = importer.repeat(self.node, &repeat)?;
        let attributes = self.axes.1.iter().zip(&self.backward.1);
        for (slot, (&axis, &backward)) in results.iter_mut().skip(states.len()).zip(attributes) {
            let Some(mut value) = slot.value() else { continue };
            if backward && !reverse {
                value = flip(&mut importer.builder, value)?;
            }
            *slot = Slot::Value(from_front(&mut importer.builder, value, axis)?);
        }
        Ok(results)
    }
}

/// The leading dimension that some values have in common.
fn leading(builder: &Builder, values: &[Value]) -> Option<u64> {
    let &first = builder.shape(*values.first()?).first()?;
    values.iter().all(|&v| builder.shape(v).first() == Some(&first)).then_some(first)
}

/// Moves a dimension to the front.
fn to_front(builder: &mut Builder, x: Value, axis: i64) -> Result<Value, Reason> {
    let mut perm: Vec<usize> = (0..builder.rank(x)).collect();
    let axis = dimension(axis, perm.len())?;
    let moved = perm.remove(axis);
    perm.insert(0, moved);
    builder.emit(Op::Transpose { perm }, &[x])
}

/// Moves the first dimension elsewhere.
fn from_front(builder: &mut Builder, x: Value, axis: i64) -> Result<Value, Reason> {
    let mut perm: Vec<usize> = (1..builder.rank(x)).collect();
    let axis = dimension(axis, perm.len() + 1)?;
    perm.insert(axis, 0);
    builder.emit(Op::Transpose { perm }, &[x])
}

/// Turns the order of the rows around.
fn flip(builder: &mut Builder, x: Value) -> Result<Value, Reason> {
    let shape = builder.shape(x).to_vec();
    let Some(last) = shape.first().and_then(|n| n.checked_sub(1)) else { return Ok(x) };
    let (mut starts, mut steps) = (vec![0; shape.len()], vec![1; shape.len()]);
    (starts[0], steps[0]) = (last, -1);
    builder.emit(Op::Slice { starts, sizes: shape, steps }, &[x])
}
