//! Columns of blocks added into an image, and determinants: operators that are sums of a few slices.

use aic_ir::graph::{BinaryOp, Op, Value};

use super::accept::{FLOATS, I64, NUMBERS};
use super::constant::dims;
use super::window::attribute_sizes;
use super::{OpRule, rule};
use crate::builder::Reason;
use crate::onnx::context::NodeContext;

/// Largest number of elements of a block, each of which becomes a term of a sum.
const MAX_BLOCK: u64 = 1024;

/// Largest matrix whose determinant is expanded.
const MAX_DETERMINANT: u64 = 4;

pub(super) const RULES: &[OpRule] = &[
    rule(
        "Col2Im",
        (3, 3),
        &["dilations", "pads", "strides"],
        "constant shapes; blocks of at most 1024 elements",
        col2im,
    )
    .types(NUMBERS)
    .own(&[(1, I64), (2, I64)])
    .since(18),
    rule("Det", (1, 1), &[], "matrices of at most 4 rows", det).types(FLOATS).since(11),
];

/// For each element of the block, its columns with zeros between them, moved to where they belong in the image.
fn col2im(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let (image, block) = (dims(&c.int_list(1, "the image")?)?, dims(&c.int_list(2, "the block")?)?);
    let spatial = image.len();
    let list = |name: &str, count: usize, default: u64| match c.ints_attribute(name)? {
        Some(list) => attribute_sizes(name, list, count),
        None => Ok(vec![default; count]),
    };
    let (strides, dilations) = (list("strides", spatial, 1)?, list("dilations", spatial, 1)?);
    let pads = list("pads", 2 * spatial, 0)?;
    let elements = block.iter().try_fold(1u64, |n, &b| n.checked_mul(b)).filter(|n| (1..=MAX_BLOCK).contains(n));
    let elements = elements.ok_or_else(|| format!("blocks of shape {block:?} are not supported"))?;
    let mut padded = Vec::with_capacity(spatial);
    let mut places = Vec::with_capacity(spatial);
    for i in 0..spatial.min(block.len()) {
        let size = image[i].saturating_add(pads[i]).saturating_add(pads[i + spatial]);
        let count = aic_ir::graph::infer::window_output(size, block[i], strides[i], dilations[i], (0, 0));
        places.push(count.map_err(|e| e.to_string())?);
        padded.push(size);
    }
    let &[n, channels, columns] = c.shape(x) else { return Err("three dimensions are needed".into()) };
    let count = places.iter().try_fold(1u64, |n, &p| n.checked_mul(p));
    if block.len() != spatial || !channels.is_multiple_of(elements) || count != Some(columns) {
        return Err(format!("columns {:?} do not fit an image of shape {image:?}", c.shape(x)).into());
    }
    let channels = channels / elements;
    let split = c.reshape(x, [&[n, channels, elements], places.as_slice()].concat())?;
    let mut sum: Option<Value> = None;
    for element in 0..elements {
        let mut starts = vec![0; spatial + 3];
        starts[2] = element;
        let part = c.slice(split, starts, [&[n, channels, 1], places.as_slice()].concat())?;
        let mut pads = vec![(0, 0), (0, 0)];
        let mut rest = element;
        for i in (0..spatial).rev() {
            let before = rest % block[i] * dilations[i];
            rest /= block[i];
            pads.insert(2, (before, padded[i] - before - ((places[i] - 1) * strides[i] + 1)));
        }
        let spread = spread(c, part, [n, channels], &places, &strides)?;
        let moved = c.emit(Op::Pad { pads, value: 0.0 }, &[spread])?;
        sum = Some(match sum {
            None => moved,
            Some(sum) => c.binary(BinaryOp::Add, sum, moved)?,
        });
    }
    let sum = sum.ok_or("the block is empty")?;
    let starts = [&[0, 0], &pads[..spatial]].concat();
    c.slice(sum, starts, [&[n, channels], image.as_slice()].concat())
}

/// Zeros between the elements of the spatial dimensions, so that they are `strides` apart.
fn spread(c: &mut NodeContext<'_>, x: Value, lead: [u64; 2], places: &[u64], strides: &[u64]) -> Result<Value, Reason> {
    let pairs = places.iter().flat_map(|&p| [p, 1]);
    let split = c.reshape(x, lead.into_iter().chain(pairs).collect::<Vec<_>>())?;
    let gaps = strides.iter().flat_map(|&s| [(0, 0), (0, s - 1)]);
    let pads: Vec<(u64, u64)> = [(0, 0), (0, 0)].into_iter().chain(gaps).collect();
    let padded = c.emit(Op::Pad { pads, value: 0.0 }, &[split])?;
    let merged = places.iter().zip(strides).map(|(p, s)| p * s);
    let merged = c.reshape(padded, lead.into_iter().chain(merged).collect::<Vec<_>>())?;
    // The last element has no zeros after it.
    let sizes = places.iter().zip(strides).map(|(p, s)| (p - 1) * s + 1);
    let sizes: Vec<u64> = lead.into_iter().chain(sizes).collect();
    c.slice(merged, vec![0; sizes.len()], sizes)
}

fn det(c: &mut NodeContext<'_>) -> Result<Value, Reason> {
    let x = c.operand(0)?;
    let &[ref batch @ .., rows, columns] = c.shape(x) else { return Err("the rank must be at least 2".into()) };
    if rows != columns || !(1..=MAX_DETERMINANT).contains(&rows) {
        return Err(format!("a matrix of {rows} × {columns} is not supported").into());
    }
    let batch = batch.to_vec();
    c.in_f32(x, |c, x| {
        let columns: Vec<u64> = (0..rows).collect();
        let result = minor(c, x, &batch, 0, &columns)?;
        c.reshape(result, batch.as_slice())
    })
}

/// The determinant of the rows from `row` on and some columns, expanded along the first of the rows.
fn minor(c: &mut NodeContext<'_>, x: Value, batch: &[u64], row: u64, columns: &[u64]) -> Result<Value, Reason> {
    let mut sum: Option<Value> = None;
    for (i, &column) in columns.iter().enumerate() {
        let mut starts = vec![0; batch.len()];
        starts.extend([row, column]);
        let mut term = c.slice(x, starts, [batch, &[1, 1]].concat())?;
        if columns.len() > 1 {
            let rest: Vec<u64> = columns.iter().copied().filter(|&other| other != column).collect();
            let inner = minor(c, x, batch, row + 1, &rest)?;
            term = c.binary(BinaryOp::Mul, term, inner)?;
        }
        sum = Some(match sum {
            None => term,
            Some(sum) => c.binary(if i % 2 == 0 { BinaryOp::Add } else { BinaryOp::Sub }, sum, term)?,
        });
    }
    sum.ok_or_else(|| "the matrix is empty".into())
}
