//! Operators that move elements without computing, and the walk over strided elements that others use.

use super::integer;
use super::num::{Num, Rounding};
use super::value::{Data, Evaluated};
use crate::types::TensorType;

/// Offsets of a strided tensor's elements in row-major order of its indices.
#[derive(Clone, Debug)]
pub(super) struct Offsets {
    shape: Vec<usize>,
    strides: Vec<isize>,
    index: Vec<usize>,
    offset: isize,
    left: usize,
}

impl Offsets {
    /// `start + Σ index[i] · strides[i]` for every index of `shape`.
    pub(super) fn new(shape: &[u64], strides: Vec<isize>, start: usize) -> Self {
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        Self { index: vec![0; shape.len()], left: shape.iter().product(), shape, strides, offset: start as isize }
    }
}

impl Iterator for Offsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.offset as usize;
        for i in (0..self.shape.len()).rev() {
            self.index[i] += 1;
            self.offset += self.strides[i];
            if self.index[i] < self.shape[i] {
                break;
            }
            self.offset -= self.strides[i] * self.index[i] as isize;
            self.index[i] = 0;
        }
        Some(offset)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Distances in elements between neighbours along each dimension of a dense row-major tensor.
pub(super) fn dense_strides(shape: &[u64]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}

/// For every element of a broadcast result, the element of an operand that it reads.
pub(super) fn broadcast_offsets(operand: &TensorType, result: &TensorType) -> Offsets {
    let missing = result.rank() - operand.rank();
    let mut strides = vec![0; missing];
    let dense = dense_strides(operand.shape());
    strides.extend(operand.shape().iter().zip(dense).map(|(&d, stride)| if d == 1 { 0 } else { stride }));
    Offsets::new(result.shape(), strides, 0)
}

pub(super) fn transpose(perm: &[usize], x: &Evaluated, ty: TensorType) -> Evaluated {
    let dense = dense_strides(x.ty().shape());
    let offsets = Offsets::new(ty.shape(), perm.iter().map(|&axis| dense[axis]).collect(), 0);
    x.at(ty, offsets)
}

pub(super) fn expand(x: &Evaluated, ty: TensorType) -> Evaluated {
    let offsets = broadcast_offsets(x.ty(), &ty);
    x.at(ty, offsets)
}

pub(super) fn slice(starts: &[u64], steps: &[i64], x: &Evaluated, ty: TensorType) -> Evaluated {
    let dense = dense_strides(x.ty().shape());
    let start = starts.iter().zip(&dense).map(|(&start, &stride)| start as usize * stride as usize).sum();
    // A step past a dimension of one element is never taken, and may be too long to multiply.
    let strides = (0..dense.len()).map(|i| if ty.shape()[i] > 1 { dense[i] * steps[i] as isize } else { 0 }).collect();
    let offsets = Offsets::new(ty.shape(), strides, start);
    x.at(ty, offsets)
}

pub(super) fn concat(axis: usize, operands: &[&Evaluated], ty: TensorType) -> Evaluated {
    let outer: u64 = ty.shape()[..axis].iter().product();
    let inner: u64 = ty.shape()[axis + 1..].iter().product();
    // Per outer index, the range of each operand that follows in the result.
    let ranges = (0..outer as usize).flat_map(|o| {
        operands.iter().map(move |x| {
            let length = (x.ty().shape()[axis] * inner) as usize;
            (*x, o * length..(o + 1) * length)
        })
    });
    let elements = ranges.flat_map(|(x, range)| range.map(move |i| (x, i)));
    if ty.dtype().is_float() {
        Evaluated::from_nums(ty, elements.map(|(x, i)| x.num(i)))
    } else {
        Evaluated::from_ints(ty, elements.map(|(x, i)| x.int(i)))
    }
}

pub(super) fn pad(pads: &[(u64, u64)], value: f64, x: &Evaluated, ty: TensorType, r: &Rounding) -> Evaluated {
    let dense = dense_strides(ty.shape());
    let start = pads.iter().zip(&dense).map(|(&(before, _), &stride)| before as usize * stride as usize).sum();
    let inside = Offsets::new(x.ty().shape(), dense, start);
    let count = ty.elems() as usize;
    match &x.data {
        Data::Float(_) => {
            let fill = r.correct(value, 0.0);
            let mut result = vec![if value.is_nan() { Num::exact(value) } else { fill }; count];
            for (i, target) in inside.enumerate() {
                result[target] = x.num(i);
            }
            Evaluated::from_nums(ty, result)
        }
        Data::Int(_) => {
            let mut result = vec![(integer::from_float(ty.dtype(), value), 0.0); count];
            for (i, target) in inside.enumerate() {
                result[target] = x.int(i);
            }
            Evaluated::from_ints(ty, result)
        }
    }
}
