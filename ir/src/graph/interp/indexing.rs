//! Operators that find elements by data: gathers and scatters.
//!
//! An undetermined index may be any: what a gather reads there is undetermined, and so is the whole result of a scatter
//! that writes there.

use bytes::Bytes;

use super::movement::{Offsets, dense_strides};
use super::num::{Num, Rounding};
use super::value::{Data, Evaluated};
use super::{OpError, integer};
use crate::graph::ScatterOp;
use crate::types::{Tensor, TensorType};

/// Where something is in a dense tensor, and whether that is certain.
type Place = (usize, bool);

/// The position that an index names in a dimension.
fn position(indices: &Evaluated, i: usize, size: u64) -> Result<Place, OpError> {
    let (index, err) = indices.int(i);
    let from_start = if index < 0 { index.checked_add_unsigned(size).unwrap_or(-1) } else { index };
    match usize::try_from(from_start) {
        Ok(position) if (position as u64) < size => Ok((position, err == 0.0)),
        _ if err > 0.0 && size > 0 => Ok((0, false)),
        _ => Err(OpError::Index { index, size }),
    }
}

/// The elements that a gather reads.
fn gathered(
    axis: usize,
    shape: &[u64],
    indices: &Evaluated,
) -> Result<impl Iterator<Item = Place> + Clone + use<>, OpError> {
    let size = shape[axis];
    let rows: Result<Vec<Place>, OpError> =
        (0..indices.ty().elems() as usize).map(|i| position(indices, i, size)).collect();
    let rows = rows?;
    let outer: usize = shape[..axis].iter().product::<u64>() as usize;
    let inner: usize = shape[axis + 1..].iter().product::<u64>() as usize;
    let size = size as usize;
    Ok((0..outer).flat_map(move |o| {
        rows.clone().into_iter().flat_map(move |(row, certain)| {
            let first = (o * size + row) * inner;
            (first..first + inner).map(move |i| (i, certain))
        })
    }))
}

/// The elements at some places.
fn take(x: &Evaluated, ty: TensorType, places: impl Iterator<Item = Place> + Clone) -> Evaluated {
    let mut result = x.at(ty, places.clone().map(|(i, _)| i));
    if places.clone().any(|(_, certain)| !certain) {
        result.err.resize(result.ty().elems() as usize, 0.0);
        for (err, (_, certain)) in result.err.iter_mut().zip(places) {
            if !certain {
                *err = f64::INFINITY;
            }
        }
    }
    result
}

pub(super) fn gather(axis: usize, x: &Evaluated, indices: &Evaluated, ty: TensorType) -> Result<Evaluated, OpError> {
    Ok(take(x, ty, gathered(axis, x.ty().shape(), indices)?))
}

/// A gather that reads a constant's bytes directly.
pub(super) fn gather_constant(
    axis: usize,
    table: &Tensor,
    indices: &Evaluated,
    ty: TensorType,
) -> Result<Evaluated, OpError> {
    if !indices.err.is_empty() {
        return gather(axis, &Evaluated::from_tensor(table), indices, ty);
    }
    let size = ty.dtype().bytes() as usize;
    let mut bytes = Vec::with_capacity(ty.bytes() as usize);
    for (i, _) in gathered(axis, table.ty().shape(), indices)? {
        bytes.extend_from_slice(&table.bytes()[i * size..(i + 1) * size]);
    }
    match Tensor::new(ty, Bytes::from(bytes)) {
        Ok(tensor) => Ok(Evaluated::from_tensor(&tensor)),
        // One element was read for each of the result.
        Err(error) => unreachable!("{error}"),
    }
}

/// For each index, the element of a tensor of that shape that it names along a dimension.
fn elements(axis: usize, shape: &[u64], indices: &Evaluated) -> Result<Vec<Place>, OpError> {
    let mut strides = dense_strides(shape);
    let stride = std::mem::replace(&mut strides[axis], 0) as usize;
    let others = Offsets::new(indices.ty().shape(), strides, 0);
    others
        .enumerate()
        .map(|(i, other)| {
            let (position, certain) = position(indices, i, shape[axis])?;
            Ok((other + position * stride, certain))
        })
        .collect()
}

/// For each tuple of indices, the first element of what it names in a tensor of that shape, and how many elements that
/// is.
fn tuples(batch_dims: usize, shape: &[u64], indices: &Evaluated) -> Result<(Vec<Place>, usize), OpError> {
    let Some((&k, places)) = indices.ty().shape().split_last() else { return Ok((Vec::new(), 0)) };
    let k = k as usize;
    let dense = dense_strides(shape);
    let strides = (0..places.len()).map(|i| if i < batch_dims { dense[i] } else { 0 }).collect();
    let firsts: Result<Vec<Place>, OpError> = Offsets::new(places, strides, 0)
        .enumerate()
        .map(|(tuple, batch)| {
            (0..k).try_fold((batch, true), |(first, all_certain), j| {
                let axis = batch_dims + j;
                let (position, certain) = position(indices, tuple * k + j, shape[axis])?;
                Ok((first + position * dense[axis] as usize, all_certain && certain))
            })
        })
        .collect();
    let inner: u64 = shape[batch_dims + k..].iter().product();
    Ok((firsts?, inner as usize))
}

fn expanded(firsts: &[Place], inner: usize) -> impl Iterator<Item = Place> + Clone {
    firsts.iter().flat_map(move |&(first, certain)| (first..first + inner).map(move |i| (i, certain)))
}

pub(super) fn gather_elements(
    axis: usize,
    x: &Evaluated,
    indices: &Evaluated,
    ty: TensorType,
) -> Result<Evaluated, OpError> {
    Ok(take(x, ty, elements(axis, x.ty().shape(), indices)?.into_iter()))
}

pub(super) fn gather_nd(
    batch_dims: usize,
    x: &Evaluated,
    indices: &Evaluated,
    ty: TensorType,
) -> Result<Evaluated, OpError> {
    let (firsts, inner) = tuples(batch_dims, x.ty().shape(), indices)?;
    Ok(take(x, ty, expanded(&firsts, inner)))
}

pub(super) fn scatter_elements(
    axis: usize,
    combine: ScatterOp,
    [x, indices, updates]: [&Evaluated; 3],
    r: &Rounding,
) -> Result<Evaluated, OpError> {
    Ok(scatter(combine, x, elements(axis, x.ty().shape(), indices)?.into_iter(), updates, r))
}

pub(super) fn scatter_nd(
    combine: ScatterOp,
    [x, indices, updates]: [&Evaluated; 3],
    r: &Rounding,
) -> Result<Evaluated, OpError> {
    let (firsts, inner) = tuples(0, x.ty().shape(), indices)?;
    Ok(scatter(combine, x, expanded(&firsts, inner), updates, r))
}

fn scatter(
    combine: ScatterOp,
    x: &Evaluated,
    places: impl Iterator<Item = Place> + Clone,
    updates: &Evaluated,
    r: &Rounding,
) -> Evaluated {
    let ty = x.ty().clone();
    let count = ty.elems() as usize;
    let certain = places.clone().all(|(_, certain)| certain);
    let mut result = match &x.data {
        Data::Float(_) => {
            let mut elements: Vec<Num> = (0..count).map(|i| x.num(i)).collect();
            for (i, (place, _)) in places.enumerate() {
                let (old, update) = (elements[place], updates.num(i));
                elements[place] = match combine {
                    ScatterOp::Replace => update,
                    ScatterOp::Add => r.add(old, update),
                    ScatterOp::Mul => r.mul(old, update),
                    ScatterOp::Max => r.max(old, update),
                    ScatterOp::Min => r.min(old, update),
                };
            }
            Evaluated::from_nums(ty, elements)
        }
        Data::Int(_) => {
            let dtype = ty.dtype();
            let mut elements: Vec<(i64, f64)> = (0..count).map(|i| x.int(i)).collect();
            for (i, (place, _)) in places.enumerate() {
                let (old, update) = (elements[place], updates.int(i));
                elements[place] = match combine.binary() {
                    None => update,
                    Some(op) => {
                        (integer::binary(op, dtype, old.0, update.0), integer::binary_err(op, dtype, old, update))
                    }
                };
            }
            Evaluated::from_ints(ty, elements)
        }
    };
    if !certain {
        result.err = vec![f64::INFINITY; count];
    }
    result
}
