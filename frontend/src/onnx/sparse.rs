//! Constants stored as coordinates and values: `SparseTensorProto` to a dense [`Tensor`].
//!
//! The specification has the values in ascending order of their places, each place at most once. The dense elements
//! may be many more than the file has bytes, so they are taken from the budget of computed constants.

use aic_ir::types::{DType, Tensor, TensorType};

use super::schema::SparseTensorProto;
use super::tensor::{self, TensorError, broken};
use crate::builder::{Builder, Reason};
use crate::files::Files;

/// Reads a constant. `name` is used in errors.
pub(super) fn tensor(
    proto: &SparseTensorProto,
    name: &str,
    files: &dyn Files,
    builder: &mut Builder,
) -> Result<Tensor, TensorError> {
    // The address of the message is that of its values, too.
    let address = std::ptr::from_ref(&proto.dims).addr();
    builder.copied_once(address, |builder| dense(proto, name, files, builder))
}

fn dense(
    proto: &SparseTensorProto,
    name: &str,
    files: &dyn Files,
    builder: &mut Builder,
) -> Result<Tensor, TensorError> {
    let values = proto.values.as_ref().ok_or_else(|| broken(name, "a sparse constant without values"))?;
    let values = tensor::tensor(values, name, files, builder)?;
    let &[count] = values.ty().shape() else {
        return Err(broken(name, format_args!("sparse values have type {} instead of a list", values.ty())));
    };
    let dims: Option<Vec<u64>> = proto.dims.iter().map(|&d| u64::try_from(d).ok()).collect();
    let dims = dims.ok_or_else(|| broken(name, format_args!("shape {:?} has negative dimensions", proto.dims)))?;
    let ty = TensorType::new(values.ty().dtype(), dims).map_err(|e| broken(name, e))?;
    builder.charge(ty.bytes()).map_err(|Reason(text)| broken(name, text))?;
    let size = ty.dtype().bytes() as usize;
    let mut bytes = vec![0; usize::try_from(ty.bytes()).map_err(|e| broken(name, e))?];
    if count > 0 {
        let places = places(proto, count, &ty, name, files, builder)?;
        for (value, place) in values.bytes().chunks_exact(size).zip(places) {
            let place = usize::try_from(place).ok().and_then(|p| bytes.chunks_exact_mut(size).nth(p));
            place.ok_or_else(|| broken(name, "a sparse value lies outside"))?.copy_from_slice(value);
        }
    }
    Tensor::new(ty, bytes.into()).map_err(|e| broken(name, e))
}

/// Places of the values in row-major order, ascending and inside the type's shape.
fn places(
    proto: &SparseTensorProto,
    count: u64,
    ty: &TensorType,
    name: &str,
    files: &dyn Files,
    builder: &mut Builder,
) -> Result<Vec<u64>, TensorError> {
    let indices = proto.indices.as_ref().ok_or_else(|| broken(name, "a sparse constant without indices"))?;
    let indices = tensor::tensor(indices, name, files, builder)?;
    let rank = ty.rank() as u64;
    let linear = indices.ty().shape() == [count];
    if indices.ty().dtype() != DType::I64 || !(linear || indices.ty().shape() == [count, rank]) {
        return Err(broken(
            name,
            format_args!("sparse indices have type {} instead of i64[{count}] or i64[{count}, {rank}]", indices.ty()),
        ));
    }
    let index = |at: u64, size: u64| {
        let index = indices.get_i64(at).and_then(|i| u64::try_from(i).ok()).filter(|&i| i < size);
        index.ok_or_else(|| {
            let given = indices.get_i64(at).unwrap_or_default();
            broken(name, format_args!("sparse index {given} is out of range for {size} elements"))
        })
    };
    let mut places: Vec<u64> = Vec::with_capacity(indices.ty().elems() as usize);
    for at in 0..count {
        let place = match linear {
            true => index(at, ty.elems())?,
            // Inside the shape, so the sum is less than the number of elements.
            false => {
                let mut place = 0;
                for (axis, &size) in ty.shape().iter().enumerate() {
                    place = place * size + index(at * rank + axis as u64, size)?;
                }
                place
            }
        };
        if places.last().is_some_and(|&last| last >= place) {
            return Err(broken(name, "sparse indices are not in ascending order, or one is given twice"));
        }
        places.push(place);
    }
    Ok(places)
}
