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

    /// Checks that every element of `shape` has a place of its own: per axis, the remainders chain from 1 without gaps and
    /// extents hold all quotients.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, shape: &[u64]) -> Result<(), String> {
        if self.dims.iter().any(|d| d.axis >= shape.len()) {
            return Err(format!("an axis is not below the rank {}", shape.len()));
        }
        for (axis, &extent) in shape.iter().enumerate() {
            let mut parts: Vec<&LayoutDim> = self.dims.iter().filter(|d| d.axis == axis).collect();
            parts.sort_by_key(|d| d.div);
            let mut next = Some(1);
            for d in parts {
                if next != Some(d.div) || d.modulo == Some(0) {
                    return Err(format!("the parts of axis {axis} do not chain"));
                }
                next = d.modulo.and_then(|m| d.div.checked_mul(m));
                if d.extent < d.modulo.unwrap_or_else(|| extent.div_ceil(d.div)) {
                    return Err(format!("an extent of axis {axis} is too small"));
                }
                if d.modulo.is_some() && next.is_none() {
                    return Err(format!("the parts of axis {axis} overflow"));
                }
            }
            if next.is_some_and(|covered| covered < extent) {
                return Err(format!("axis {axis} is not covered"));
            }
        }
        let elems = self.dims.iter().try_fold(1u64, |n, d| n.checked_mul(d.extent));
        match elems {
            Some(n) if n <= crate::types::MAX_ELEMENTS => Ok(()),
            _ => Err("it has too many elements".to_owned()),
        }
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
}
