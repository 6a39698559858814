//! Types of the operators that find elements by data: gathers and scatters.
//!
//! Whether an index is in range shows only at run time; here it is checked that some index is, if there are any.

use super::{accept, arity, check, check_axis, check_shape, same_dtype};
use crate::graph::op::{InferError, ScatterOp};
use crate::types::{DType, TensorType};

fn check_indices(indices: &TensorType) -> Result<(), InferError> {
    accept(matches!(indices.dtype(), DType::I32 | DType::I64), indices.dtype())
}

/// That there is something at every index that could be valid.
fn check_indexed(sizes: &[u64], indices: &TensorType) -> Result<(), InferError> {
    check(indices.elems() == 0 || !sizes.contains(&0), || {
        format!("one of the dimensions indexed, {sizes:?}, is empty: no index is valid")
    })
}

pub(super) fn gather(axis: usize, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, indices] = operands else { return Err(arity("2", operands)) };
    check_axis(axis, x)?;
    check_indices(indices)?;
    check_indexed(&x.shape()[axis..=axis], indices)?;
    let shape = [&x.shape()[..axis], indices.shape(), &x.shape()[axis + 1..]].concat();
    Ok(TensorType::new(x.dtype(), shape)?)
}

/// That indices fit a tensor element by element.
fn check_elements(axis: usize, x: &TensorType, indices: &TensorType) -> Result<(), InferError> {
    check_axis(axis, x)?;
    check_indices(indices)?;
    let fits = x.rank() == indices.rank() && (0..x.rank()).all(|i| i == axis || indices.shape()[i] <= x.shape()[i]);
    check(fits, || {
        format!("indices {:?} along dimension {axis} do not lie within shape {:?}", indices.shape(), x.shape())
    })?;
    check_indexed(&x.shape()[axis..=axis], indices)
}

pub(super) fn gather_elements(axis: usize, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, indices] = operands else { return Err(arity("2", operands)) };
    check_elements(axis, x, indices)?;
    Ok(indices.with_dtype(x.dtype()))
}

/// That the last dimension of the indices numbers dimensions of a tensor from `batch_dims` on; gives their number and the
/// indices' other dimensions.
fn check_tuples<'a>(
    batch_dims: usize,
    x: &TensorType,
    indices: &'a TensorType,
) -> Result<(usize, &'a [u64]), InferError> {
    check_indices(indices)?;
    let (k, places) = match indices.shape() {
        [places @ .., k] => (usize::try_from(*k).unwrap_or(usize::MAX), places),
        [] => (usize::MAX, [].as_slice()),
    };
    let dims = x.rank().checked_sub(batch_dims).filter(|&dims| k <= dims && batch_dims <= places.len());
    check(dims.is_some(), || {
        format!(
            "indices {:?} do not number dimensions of shape {:?} after the first {batch_dims}",
            indices.shape(),
            x.shape()
        )
    })?;
    check_indexed(&x.shape()[batch_dims..batch_dims + k], indices)?;
    Ok((k, places))
}

pub(super) fn gather_nd(batch_dims: usize, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, indices] = operands else { return Err(arity("2", operands)) };
    let (k, places) = check_tuples(batch_dims, x, indices)?;
    check(places[..batch_dims] == x.shape()[..batch_dims], || {
        format!("the first {batch_dims} dimensions of {:?} and {:?} differ", x.shape(), indices.shape())
    })?;
    Ok(TensorType::new(x.dtype(), [places, &x.shape()[batch_dims + k..]].concat())?)
}

fn check_combine(combine: ScatterOp, x: &TensorType) -> Result<(), InferError> {
    accept(combine == ScatterOp::Replace || x.dtype() != DType::Bool, x.dtype())
}

pub(super) fn scatter_elements(
    axis: usize,
    combine: ScatterOp,
    operands: &[&TensorType],
) -> Result<TensorType, InferError> {
    let &[x, indices, updates] = operands else { return Err(arity("3", operands)) };
    check_elements(axis, x, indices)?;
    same_dtype(x, &[updates])?;
    check_combine(combine, x)?;
    check_shape("updates", updates, indices.shape())?;
    Ok(x.clone())
}

pub(super) fn scatter_nd(combine: ScatterOp, operands: &[&TensorType]) -> Result<TensorType, InferError> {
    let &[x, indices, updates] = operands else { return Err(arity("3", operands)) };
    let (k, places) = check_tuples(0, x, indices)?;
    same_dtype(x, &[updates])?;
    check_combine(combine, x)?;
    check_shape("updates", updates, &[places, &x.shape()[k..]].concat())?;
    Ok(x.clone())
}
