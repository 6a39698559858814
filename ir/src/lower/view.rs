//! Views: where the elements of a value lie in a buffer, as quasi-affine maps.
//!
//! A view has one coordinate of its buffer for each dimension of the buffer, as a function of the value's own coordinates
//! (`Var::Dim(i)` is coordinate `i` of the value). The operators that only rename elements are composed into it here.

use cranelift_entity::PrimaryMap;

use super::kernel::Tile;
use crate::graph::Op;
use crate::tile::{Access, Affine, Buffer, BufferData, Scalar, Var};

/// Where a value lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// The buffer.
    pub(super) buffer: Buffer,
    /// Shape of the value.
    pub(super) shape: Vec<u64>,
    /// Coordinates in the buffer as functions of the value's.
    pub(super) index: Vec<Affine>,
    /// Whether every element of the buffer is an element of the value.
    pub(super) whole: bool,
}

impl View {
    /// A whole buffer of the value's own shape.
    pub(super) fn identity(buffer: Buffer, shape: &[u64]) -> Self {
        Self { buffer, shape: shape.to_vec(), index: (0..shape.len()).map(Affine::dim).collect(), whole: true }
    }

    /// The element at the value's coordinates `index`, which are functions of the dimensions of `tile`.
    pub(super) fn at(&self, index: &[Affine], tile: &Tile) -> Access {
        let extents = |v: Var| tile.extent(v);
        let replaced = |a: &Affine| a.substitute(&|v| of_dim(v, index), &extents);
        Access::new(self.buffer, self.index.iter().map(replaced).collect())
    }

    /// Like [`View::at`] with coordinates that may be outside the value in dimensions that are [plain](Self::plain_axis).
    pub(super) fn at_padded(&self, index: &[Affine], tile: &Tile, fill: Scalar) -> Access {
        Access { fill: Some(fill), ..self.at(index, tile) }
    }

    /// The view of the result of a renaming operator, of shape `result`, applied to this value.
    pub(super) fn through(&self, op: &Op, result: &[u64]) -> View {
        let tile = Tile::of(result);
        let mut whole = self.whole;
        let operand_index: Vec<Affine> = match op {
            Op::Transpose { perm } => {
                let mut index = vec![Affine::constant(0); perm.len()];
                for (i, &axis) in perm.iter().enumerate() {
                    index[axis] = Affine::dim(i);
                }
                index
            }
            Op::Slice { starts, sizes, steps } => {
                whole &= *sizes == self.shape;
                let coordinate = |i: usize| match (starts[i], sizes[i]) {
                    (0, 1) => Affine::dim(i),
                    (start, 1) => Affine::constant(start as i64),
                    (start, _) => Affine::dim(i).scale(steps[i]).add_constant(start as i64),
                };
                (0..sizes.len()).map(coordinate).collect()
            }
            Op::Expand { .. } => {
                let at: Vec<Affine> = (0..result.len()).map(Affine::dim).collect();
                super::broadcast_index(&self.shape, result, &at)
            }
            _ => {
                let at: Vec<Affine> = (0..result.len()).map(Affine::dim).collect();
                reshape_index(result, &self.shape, &at, &tile)
            }
        };
        let Access { buffer, index, fill: _ } = self.at(&operand_index, &tile);
        View { buffer, shape: result.to_vec(), index, whole }
    }

    /// How many terms its coordinates have, those inside divisions and remainders included.
    pub(super) fn terms(&self) -> usize {
        let mut count = 0;
        self.index.iter().for_each(|a| a.for_each_var(&mut |_| count += 1));
        count
    }

    /// Writes an identity as such even where dimensions of extent 1 hide it, so that equal accesses look equal.
    pub(super) fn tidied(mut self, buffers: &PrimaryMap<Buffer, BufferData>) -> Self {
        let identity = buffers[self.buffer].shape == self.shape
            && self.index.iter().enumerate().all(|(i, a)| self.shape[i] == 1 || *a == Affine::dim(i));
        if identity {
            self.index = (0..self.shape.len()).map(Affine::dim).collect();
        }
        self
    }

    /// The dimension of the buffer that is exactly dimension `axis` of the value, of the same size and with no other
    /// dimension depending on it: the condition for coordinates that are outside, or that come from data.
    pub(super) fn plain_axis(&self, axis: usize, buffers: &PrimaryMap<Buffer, BufferData>) -> Option<usize> {
        let var = Var::Dim(axis as u32);
        let position = self.index.iter().position(|a| a.as_var() == Some(var))?;
        let alone = self.index.iter().enumerate().all(|(i, a)| i == position || !a.uses(var));
        (alone && buffers[self.buffer].shape[position] == self.shape[axis]).then_some(position)
    }
}

fn of_dim(var: Var, index: &[Affine]) -> Affine {
    match var {
        Var::Dim(i) => index[i as usize].clone(),
        Var::Loop(_) => Affine::var(var),
    }
}

/// Coordinates in the result of a reshape or transposition of the element at `index` of the operand; `None` for other
/// operators. `index` are functions of the dimensions of `tile`.
pub(super) fn forward(op: &Op, operand: &[u64], index: &[Affine], tile: &Tile) -> Option<Vec<Affine>> {
    match op {
        Op::Reshape { shape } => Some(reshape_index(operand, shape, index, tile)),
        Op::Transpose { perm } => Some(perm.iter().map(|&axis| index[axis].clone()).collect()),
        _ => None,
    }
}

/// Coordinates in shape `to` of the element at `index` of shape `from`, of as many elements.
///
/// Both shapes are cut into groups of dimensions with equal products, such as `[2, 3 | 4]` and `[6 | 4]`; each group is
/// linearized and taken apart by itself, so that no division spans more than it must.
fn reshape_index(from: &[u64], to: &[u64], index: &[Affine], tile: &Tile) -> Vec<Affine> {
    let mut out = vec![Affine::constant(0); to.len()];
    if from.contains(&0) || to.contains(&0) {
        return out;
    }
    let extents = |v: Var| tile.extent(v);
    let (mut i, mut j) = (0, 0);
    while i < from.len() && j < to.len() {
        let (first_i, first_j) = (i, j);
        let (mut elems_from, mut elems_to) = (from[i], to[j]);
        (i, j) = (i + 1, j + 1);
        while elems_from != elems_to {
            if elems_from < elems_to {
                elems_from *= from[i];
                i += 1;
            } else {
                elems_to *= to[j];
                j += 1;
            }
        }
        if (i - first_i, j - first_j) == (1, 1) {
            out[first_j] = index[first_i].clone();
            continue;
        }
        let linear = (first_i..i).filter(|&a| from[a] != 1).fold(Affine::constant(0), |sum, a| {
            let sum = sum.scale(from[a] as i64);
            sum.add(&index[a])
        });
        let mut stride = 1i64;
        for b in (first_j..j).rev() {
            if to[b] != 1 {
                let quotient = linear.floor_div(stride, &extents);
                let outermost = stride as u64 * to[b] == elems_to;
                out[b] = if outermost { quotient } else { quotient.modulo(to[b] as i64, &extents) };
                stride *= to[b] as i64;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshaped(from: &[u64], to: &[u64]) -> Vec<Affine> {
        let at: Vec<Affine> = (0..from.len()).map(Affine::dim).collect();
        reshape_index(from, to, &at, &Tile::of(from))
    }

    fn d(i: usize) -> Affine {
        Affine::dim(i)
    }

    #[test]
    fn merging_dimensions_is_linear() {
        assert_eq!(reshaped(&[1, 128, 12, 32], &[128, 384]), [d(1), d(2).scale(32).add(&d(3))]);
        assert_eq!(reshaped(&[128, 384], &[1, 128, 384]), [Affine::constant(0), d(0), d(1)]);
    }

    #[test]
    fn groups_keep_divisions_apart() {
        let ext = |v| if v == Var::Dim(0) { 6 } else { 4 };
        let quotient = d(0).floor_div(3, &ext);
        assert_eq!(reshaped(&[6, 4], &[2, 3, 4]), [quotient, d(0).modulo(3, &ext), d(1)]);
    }

    #[test]
    fn every_reshape_keeps_row_major_order() {
        for (from, to) in [
            (vec![4, 6], vec![3, 8]),
            (vec![2, 3, 4], vec![4, 3, 2]),
            (vec![24], vec![2, 1, 12, 1]),
            (vec![1, 24, 1], vec![6, 4]),
            (vec![], vec![1, 1]),
        ] {
            let map = reshaped(&from, &to);
            for n in 0..from.iter().product::<u64>() {
                let at = unravel(n, &from);
                let value = |v: Var| if let Var::Dim(i) = v { at[i as usize] as i64 } else { 0 };
                let got: Vec<u64> = map.iter().map(|a| a.eval(&value) as u64).collect();
                assert_eq!(got, unravel(n, &to), "{from:?} to {to:?} at {at:?}");
            }
        }
    }

    fn unravel(mut n: u64, shape: &[u64]) -> Vec<u64> {
        let mut at = vec![0; shape.len()];
        for (i, &d) in shape.iter().enumerate().rev() {
            at[i] = n % d;
            n /= d;
        }
        at
    }
}
