//! Layouts: from logical coordinates to storage.
//!
//! A layout is a list of storage dimensions, outermost first, each taken from one logical axis by a floor division and a
//! remainder. Storage is row-major over them. That covers transposition, blocking, vector panels, row padding and rings:
//!
//! ```text
//! [N, K] row-major            (0) (1)
//! [N, K] in panels of 8 rows  (0 / 8) (1) (0 % 8)        eight columns of the product side by side
//! rolling window of 3 rows    (0 % 3) (1)
//! ```

use super::affine::Affine;
use crate::types::MAX_ELEMENTS;

/// Why a layout does not fit a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A storage dimension is taken from an axis that the shape does not have.
    #[error("the layout names axis {axis}, but the rank is {rank}")]
    Axis {
        /// The axis named.
        axis: usize,
        /// The rank of the shape.
        rank: usize,
    },
    /// A divisor, modulus or extent of 0, or too large.
    #[error("storage dimension {dim} has a divisor, modulus or extent outside 1..=2^40")]
    Degenerate {
        /// Position of the storage dimension.
        dim: usize,
    },
    /// A storage dimension is too small for the coordinates that it holds.
    #[error("storage dimension {dim} has extent {extent}, but holds {needed} positions")]
    Extent {
        /// Position of the storage dimension.
        dim: usize,
        /// Its extent.
        extent: u64,
        /// What the shape needs.
        needed: u64,
    },
    /// More than 2^40 elements in storage.
    #[error("the layout has more than 2^40 elements")]
    TooLarge,
    /// Two elements share a place (a ring, or an axis left out), where each must have its own.
    #[error("axis {axis} is not stored whole: the layout is a ring there, or its blocks do not nest")]
    Lossy {
        /// The axis.
        axis: usize,
    },
    /// The bytes given are not those of the shape.
    #[error("shape {shape:?} does not fit a tensor of {elems} elements")]
    Tensor {
        /// The shape.
        shape: Vec<u64>,
        /// Elements of the tensor.
        elems: u64,
    },
}

/// One storage dimension: `(coordinate[axis] / div) % modulo`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayoutDim {
    /// The logical axis.
    pub axis: usize,
    /// Divisor, at least 1.
    pub div: u64,
    /// Modulus, or `None` for the whole quotient.
    pub modulo: Option<u64>,
    /// Size of this storage dimension; may be larger than needed (padding).
    pub extent: u64,
}

/// Storage order of a buffer. See the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Storage dimensions, outermost first.
    pub dims: Vec<LayoutDim>,
}

impl Layout {
    /// Row-major, without padding.
    pub fn row_major(shape: &[u64]) -> Self {
        let dims =
            shape.iter().enumerate().map(|(axis, &extent)| LayoutDim { axis, div: 1, modulo: None, extent }).collect();
        Self { dims }
    }

    /// The axes whole, without padding, from outermost to innermost in the given order.
    pub fn permuted(shape: &[u64], order: &[usize]) -> Self {
        let dims = order.iter().map(|&axis| LayoutDim { axis, div: 1, modulo: None, extent: shape[axis] }).collect();
        Self { dims }
    }

    /// The order of the axes, if this is [`Layout::permuted`] of `shape`.
    pub fn permutation(&self, shape: &[u64]) -> Option<Vec<usize>> {
        let order: Vec<usize> = self.dims.iter().map(|d| d.axis).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        let permutes = sorted.iter().copied().eq(0..shape.len());
        (permutes && *self == Self::permuted(shape, &order)).then_some(order)
    }

    /// Panels: `axis` in blocks of `block`, whose elements lie innermost; the other axes in the given order between.
    pub fn panels(shape: &[u64], axis: usize, block: u64, inner: &[usize]) -> Self {
        let mut dims = vec![LayoutDim { axis, div: block, modulo: None, extent: shape[axis].div_ceil(block) }];
        dims.extend(inner.iter().map(|&a| LayoutDim { axis: a, div: 1, modulo: None, extent: shape[a] }));
        dims.push(LayoutDim { axis, div: 1, modulo: Some(block), extent: block });
        Self { dims }
    }

    /// Number of elements in storage, padding included.
    pub fn elems(&self) -> u64 {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// Whether this is [`Layout::row_major`] of `shape`.
    pub fn is_row_major(&self, shape: &[u64]) -> bool {
        *self == Self::row_major(shape)
    }

    /// Element offset in storage of symbolic logical coordinates. `extents` bounds the variables for simplification.
    pub fn offset(&self, index: &[Affine], extents: &dyn Fn(super::Var) -> u64) -> Affine {
        let mut offset = Affine::constant(0);
        for d in &self.dims {
            let mut c = index[d.axis].clone();
            if d.div > 1 {
                c = c.floor_div(d.div as i64, extents);
            }
            if let Some(m) = d.modulo {
                c = c.modulo(m as i64, extents);
            }
            offset = offset.scale(d.extent as i64).add(&c);
        }
        offset.recombined()
    }

    /// Element offset in storage of concrete logical coordinates.
    pub fn offset_of(&self, index: &[u64]) -> u64 {
        self.dims.iter().fold(0, |offset, d| {
            let c = index[d.axis] / d.div;
            offset * d.extent + d.modulo.map_or(c, |m| c % m)
        })
    }

    /// Checks that every coordinate of `shape` has a place in storage, be it shared with others, as in a ring.
    ///
    /// # Errors
    /// The first storage dimension that names no axis, is degenerate, or is too small.
    pub fn check_places(&self, shape: &[u64]) -> Result<(), LayoutError> {
        let mut elems: u64 = 1;
        for (dim, d) in self.dims.iter().enumerate() {
            let &size = shape.get(d.axis).ok_or(LayoutError::Axis { axis: d.axis, rank: shape.len() })?;
            let sane = |n: u64| (1..=MAX_ELEMENTS).contains(&n);
            if !sane(d.div) || !d.modulo.is_none_or(sane) || !sane(d.extent.max(1)) {
                return Err(LayoutError::Degenerate { dim });
            }
            let quotients = size.div_ceil(d.div);
            let needed = d.modulo.map_or(quotients, |m| m.min(quotients));
            if d.extent < needed {
                return Err(LayoutError::Extent { dim, extent: d.extent, needed });
            }
            elems = elems.checked_mul(d.extent).filter(|&n| n <= MAX_ELEMENTS).ok_or(LayoutError::TooLarge)?;
        }
        Ok(())
    }

    /// Checks that every element of `shape` has a place of its own, that is, that the storage dimensions of each axis are the
    /// digits of its coordinate in a mixed radix. Rings are not: they keep a window only.
    ///
    /// # Errors
    /// What [`Layout::check_places`] reports, or the first axis that loses elements.
    pub fn check(&self, shape: &[u64]) -> Result<(), LayoutError> {
        self.check_places(shape)?;
        for (axis, &size) in shape.iter().enumerate() {
            let mut digits: Vec<&LayoutDim> = self.dims.iter().filter(|d| d.axis == axis).collect();
            digits.sort_by_key(|d| d.div);
            // How many coordinates the digits so far tell apart; `None` when all.
            let mut known = Some(1);
            for d in digits {
                if known != Some(d.div) {
                    return Err(LayoutError::Lossy { axis });
                }
                known = d.modulo.and_then(|m| m.checked_mul(d.div));
            }
            if known.is_some_and(|n| n < size) {
                return Err(LayoutError::Lossy { axis });
            }
        }
        Ok(())
    }
}
