//! Gathers and scatters of small constants, and the operators along one dimension: exporters compute positions and patch
//! shapes with them.
//!
//! Elements are only moved, or are integers; the bounds on operands that may be larger than the result are here.

use aic_ir::graph::{ArgOp, BinaryOp, ScatterOp};
use aic_ir::types::{DType, Tensor, TensorType};
use bytes::Bytes;

use super::{MAX_ELEMS, Number, around, binary, element, map, row_major, walk};

/// The position that an index names in a dimension.
fn position(indices: &Tensor, i: u64, size: u64) -> Option<u64> {
    let index = indices.get_i64(i)?;
    let index = if index < 0 { index.checked_add_unsigned(size)? } else { index };
    u64::try_from(index).ok().filter(|&i| i < size)
}

/// For each element of a gather's result, which element it reads.
pub(super) fn gather(x: &Tensor, indices: &Tensor, axis: usize) -> Option<Vec<u64>> {
    let (outer, inner) = around(x.ty().shape(), axis)?;
    let size = *x.ty().shape().get(axis)?;
    let mut offsets = Vec::new();
    for o in 0..outer {
        for i in 0..indices.ty().elems() {
            let index = position(indices, i, size)?;
            offsets.extend((0..inner).map(|r| (o * size + index) * inner + r));
        }
    }
    Some(offsets)
}

/// For each index, the element of a tensor of that shape that it names along a dimension.
pub(super) fn elements(shape: &[u64], indices: &Tensor, axis: usize) -> Option<Vec<u64>> {
    let mut strides = row_major(shape);
    let stride = std::mem::take(strides.get_mut(axis)?) as u64;
    let size = *shape.get(axis)?;
    let others = walk(indices.ty().shape(), 0, &strides).into_iter().enumerate();
    others.map(|(i, other)| Some(other + position(indices, i as u64, size)? * stride)).collect()
}

/// For each tuple of indices, the elements of a tensor of that shape that it names.
pub(super) fn tuples(shape: &[u64], indices: &Tensor, batch_dims: usize) -> Option<Vec<u64>> {
    let (&k, places) = indices.ty().shape().split_last()?;
    let dense = row_major(shape);
    let (batch, indexed) = (dense.get(..batch_dims)?, batch_dims..batch_dims + k as usize);
    let mut strides = batch.to_vec();
    strides.resize(places.len(), 0);
    let inner: u64 = shape.get(indexed.end..)?.iter().product();
    let mut offsets = Vec::new();
    for (tuple, first) in walk(places, 0, &strides).into_iter().enumerate() {
        let mut first = first;
        for (j, axis) in indexed.clone().enumerate() {
            first += position(indices, tuple as u64 * k + j as u64, *shape.get(axis)?)? * *dense.get(axis)? as u64;
        }
        offsets.extend(first..first + inner);
    }
    Some(offsets)
}

/// A scatter to the given elements, one for each update.
pub(super) fn scatter(combine: ScatterOp, x: &Tensor, offsets: Vec<u64>, updates: &Tensor) -> Option<Bytes> {
    let combine = combine.binary();
    if combine.is_some() && x.ty().dtype().is_float() {
        return None;
    }
    let mut elements: Vec<Number> = (0..x.ty().elems()).map(|i| element(x, i)).collect::<Option<_>>()?;
    for (i, offset) in offsets.into_iter().enumerate() {
        let (old, update) = (elements.get_mut(usize::try_from(offset).ok()?)?, element(updates, i as u64)?);
        // Sums and products wrap to the element's type in the end.
        *old = combine.map_or(Some(update), |op| binary(op, *old, update))?;
    }
    map(x.ty(), |i| elements.get(i as usize).copied())
}

/// Whether an index operand is small enough to be read whole.
pub(super) fn is_small(x: &Tensor) -> bool {
    x.ty().elems() <= MAX_ELEMS
}

/// For each line along a dimension, the offsets of its elements.
fn lines(shape: &[u64], axis: usize) -> Option<Vec<Vec<u64>>> {
    let (outer, inner) = around(shape, axis)?;
    let size = *shape.get(axis)?;
    let line = |o: u64, i: u64| (0..size).map(|k| (o * size + k) * inner + i).collect();
    Some((0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| line(o, i)).collect())
}

/// Positions of the largest or smallest integers.
pub(super) fn arg_reduce(op: ArgOp, axis: usize, last: bool, x: &Tensor, ty: &TensorType) -> Option<Bytes> {
    if !is_small(x) || x.ty().dtype().is_float() {
        return None;
    }
    let key = |offset: u64| -> Option<i128> {
        let v = x.get_i64(offset)?;
        let v = if x.ty().dtype() == DType::U64 { i128::from(v as u64) } else { i128::from(v) };
        Some(if op == ArgOp::Max { v } else { -v })
    };
    let mut results = Vec::new();
    for line in lines(x.ty().shape(), axis)? {
        let mut best: Option<(i128, i64)> = None;
        for (k, offset) in line.into_iter().enumerate() {
            let v = key(offset)?;
            if best.is_none_or(|(best, _)| v > best || (last && v == best)) {
                best = Some((v, k as i64));
            }
        }
        results.push(best?.1);
    }
    map(ty, |i| results.get(i as usize).copied().map(Number::Signed))
}

/// Running sums of integers.
pub(super) fn cumsum(axis: usize, exclusive: bool, reverse: bool, x: &Tensor) -> Option<Bytes> {
    let dtype = x.ty().dtype();
    if !is_small(x) || dtype.is_float() {
        return None;
    }
    let zero = if dtype == DType::U64 { Number::Unsigned(0) } else { Number::Signed(0) };
    let mut results = vec![zero; usize::try_from(x.ty().elems()).ok()?];
    for mut line in lines(x.ty().shape(), axis)? {
        if reverse {
            line.reverse();
        }
        let mut sum = zero;
        for offset in line {
            let next = binary(BinaryOp::Add, sum, element(x, offset)?)?;
            *results.get_mut(usize::try_from(offset).ok()?)? = if exclusive { sum } else { next };
            sum = next;
        }
    }
    map(x.ty(), |i| results.get(i as usize).copied())
}
