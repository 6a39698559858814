//! Accesses resolved to offsets: which element of a buffer each point of a tile refers to.
//!
//! Coordinates are split once per statement into what depends on loops and what depends on tile dimensions. Each time the
//! statement runs, its accesses are resolved against the loops' values. If every coordinate stays inside the buffer over the
//! whole tile and its storage position is linear there, the points are walked by strides; else each
//! point computes its coordinates, is checked, and goes through the layout. Nothing here uses the symbolic simplification
//! that the compiler relies on.

use super::InterpErrorKind;
use crate::tile::{Access, Affine, Atom, Buffer, Dim, LayoutDim, Var};

/// The offset that stands for "outside: take the fill value".
pub(super) const FILL: usize = usize::MAX;

/// One coordinate as a function of loops and dimensions.
#[derive(Debug)]
struct Coordinate {
    constant: i64,
    loops: Vec<(usize, i64)>,
    /// Per dimension of the tile.
    dims: Vec<i64>,
    /// Divisions and remainders of loops only: constant within a run of the statement.
    outer: Affine,
    /// Divisions and remainders that involve the tile's dimensions.
    inner: Affine,
}

/// An access, prepared for a statement.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) buffer: Buffer,
    pub(super) fill: Option<u64>,
    shape: Vec<i64>,
    layout: Vec<LayoutDim>,
    coordinates: Vec<Coordinate>,
}

/// An access during one run of its statement.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Offset of the first point and stride per dimension, if walked by strides.
    strided: Option<(i64, Vec<i64>)>,
    /// Value of each coordinate at the first point, divisions of dimensions left out.
    base: Vec<i64>,
}

/// The dimensions of a tile that have more than one point; the others are always 0 and cost nothing.
#[derive(Debug)]
pub(super) struct Active {
    /// Number of points of each active dimension.
    pub(super) extents: Vec<i64>,
    /// For every dimension of the statement, its position among the active ones.
    slots: Vec<Option<usize>>,
}

impl Active {
    pub(super) fn new(dims: &[Dim]) -> Self {
        let mut active = Self { extents: Vec::new(), slots: Vec::new() };
        for d in dims {
            active.slots.push((d.extent > 1).then_some(active.extents.len()));
            if d.extent > 1 {
                active.extents.push(d.extent as i64);
            }
        }
        active
    }

    fn slot(&self, dim: u32) -> Option<usize> {
        self.slots.get(dim as usize).copied().flatten()
    }

    /// Values of variables at a point of the active dimensions.
    fn values<'a>(&'a self, loops: &'a [i64], point: &'a [i64]) -> impl Fn(Var) -> i64 + 'a {
        move |v| match v {
            Var::Loop(l) => loops.get(l.as_u32() as usize).copied().unwrap_or(0),
            Var::Dim(d) => self.slot(d).and_then(|s| point.get(s)).copied().unwrap_or(0),
        }
    }
}

impl Prepared {
    pub(super) fn new(access: &Access, shape: &[u64], layout: &[LayoutDim], active: &Active) -> Self {
        let coordinates = access.index.iter().map(|index| {
            let mut c = Coordinate {
                constant: index.constant_part(),
                loops: Vec::new(),
                dims: vec![0; active.extents.len()],
                outer: Affine::constant(0),
                inner: Affine::constant(0),
            };
            for (atom, factor) in index.terms() {
                match atom {
                    Atom::Var(Var::Loop(l)) => c.loops.push((l.as_u32() as usize, *factor)),
                    Atom::Var(Var::Dim(d)) => {
                        if let Some(slot) = active.slot(*d) {
                            c.dims[slot] = *factor;
                        }
                    }
                    Atom::FloorDiv(e, _) | Atom::Mod(e, _) => {
                        let mut tile = false;
                        e.for_each_var(&mut |v| tile |= matches!(v, Var::Dim(_)));
                        let term = Affine::from_terms([(atom.clone(), *factor)], 0);
                        let part = if tile { &mut c.inner } else { &mut c.outer };
                        *part = part.add(&term);
                    }
                }
            }
            c
        });
        Self {
            buffer: access.buffer,
            fill: access.fill.map(|s| s.bits),
            shape: shape.iter().map(|&d| d as i64).collect(),
            layout: layout.to_vec(),
            coordinates: coordinates.collect(),
        }
    }

    /// Prepares to walk a tile of these extents under the loops' values.
    pub(super) fn resolve(&self, active: &Active, loops: &[i64], out: &mut Resolved) {
        out.base.clear();
        let value = active.values(loops, &[]);
        for c in &self.coordinates {
            let index = |l: usize| loops.get(l).copied().unwrap_or(0);
            let linear = c.loops.iter().fold(c.constant, |sum, &(l, f)| sum.wrapping_add(f.wrapping_mul(index(l))));
            out.base.push(linear.wrapping_add(c.outer.eval(&value)));
        }
        let mut strided = out.strided.take().unwrap_or_default();
        out.strided = self.strided(&active.extents, &out.base, &mut strided).then_some(strided);
    }

    /// Whether the tile can be walked by strides, which are then written to `out`.
    fn strided(&self, extents: &[i64], base: &[i64], (offset, strides): &mut (i64, Vec<i64>)) -> bool {
        let range = |start: i64, steps: &dyn Fn(usize) -> i64| {
            let (mut lo, mut hi) = (i128::from(start), i128::from(start));
            for (d, &n) in extents.iter().enumerate() {
                let reach = i128::from(steps(d)) * i128::from(n - 1);
                lo += reach.min(0);
                hi += reach.max(0);
            }
            (lo, hi)
        };
        for ((c, &start), &size) in self.coordinates.iter().zip(base).zip(&self.shape) {
            let (lo, hi) = range(start, &|d| c.dims[d]);
            if c.inner != Affine::constant(0) || lo < 0 || hi >= i128::from(size) {
                return false;
            }
        }
        *offset = 0;
        strides.clear();
        strides.resize(extents.len(), 0);
        for dim in &self.layout {
            let (c, div) = (&self.coordinates[dim.axis], dim.div as i64);
            let mut start = base[dim.axis];
            // Does the position move with the tile, and in whole steps?
            let (lo, hi) = range(start, &|d| c.dims[d]);
            let moves = |lo: i128, hi: i128, by: i64| lo.div_euclid(i128::from(by)) != hi.div_euclid(i128::from(by));
            let moving = moves(lo, hi, div);
            let whole = |d: usize, by: i64| extents[d] <= 1 || c.dims[d] % by == 0;
            if moving && !(0..extents.len()).all(|d| whole(d, div)) {
                return false;
            }
            start = start.div_euclid(div);
            let step = |d: usize| if moving { c.dims[d] / div } else { 0 };
            let mut wraps = false;
            if let Some(m) = dim.modulo {
                let m = m as i64;
                let (lo, hi) = range(start, &step);
                // Strides survive a remainder only where it does not wrap within the tile.
                wraps = moves(lo, hi, m);
                if wraps && !(0..extents.len()).all(|d| extents[d] <= 1 || step(d) % m == 0) {
                    return false;
                }
                start = start.rem_euclid(m);
            }
            let extent = dim.extent as i64;
            *offset = offset.wrapping_mul(extent).wrapping_add(start);
            for (d, stride) in strides.iter_mut().enumerate() {
                *stride = stride.wrapping_mul(extent).wrapping_add(if wraps { 0 } else { step(d) });
            }
        }
        true
    }

    /// Offset of one point, computed from its coordinates. `axis` replaces a coordinate by a value given.
    pub(super) fn offset_at(
        &self,
        resolved: &Resolved,
        active: &Active,
        loops: &[i64],
        point: &[i64],
        axis: Option<(usize, i64)>,
    ) -> Result<usize, InterpErrorKind> {
        let mut at = Vec::with_capacity(self.coordinates.len());
        for (i, (c, &base)) in self.coordinates.iter().zip(&resolved.base).enumerate() {
            at.push(match axis {
                Some((axis, value)) if axis == i => value,
                _ => {
                    let linear =
                        c.dims.iter().zip(point).fold(base, |sum, (f, p)| sum.wrapping_add(f.wrapping_mul(*p)));
                    linear.wrapping_add(c.inner.eval(&active.values(loops, point)))
                }
            });
        }
        if at.iter().zip(&self.shape).any(|(c, n)| !(0..*n).contains(c)) {
            return match self.fill {
                Some(_) => Ok(FILL),
                None => Err(InterpErrorKind::OutOfBounds { buffer: self.buffer, index: at }),
            };
        }
        let offset = self.layout.iter().fold(0, |offset: u64, dim| {
            let c = at[dim.axis] as u64 / dim.div;
            offset * dim.extent + dim.modulo.map_or(c, |m| c % m)
        });
        Ok(offset as usize)
    }

    /// Appends the offsets of a run of points along the last dimension, from `point` on.
    pub(super) fn run(
        &self,
        resolved: &Resolved,
        active: &Active,
        loops: &[i64],
        point: &mut [i64],
        count: usize,
        out: &mut Vec<usize>,
    ) -> Result<(), InterpErrorKind> {
        match &resolved.strided {
            Some((base, strides)) => {
                let mut offset =
                    point.iter().zip(strides).fold(*base, |sum, (p, s)| sum.wrapping_add(p.wrapping_mul(*s)));
                let stride = strides.last().copied().unwrap_or(0);
                out.extend((0..count).map(|_| {
                    let this = offset as usize;
                    offset = offset.wrapping_add(stride);
                    this
                }));
            }
            None => {
                let start = point.last().copied();
                for i in 0..count {
                    if let (Some(last), Some(start)) = (point.last_mut(), start) {
                        *last = start + i as i64;
                    }
                    out.push(self.offset_at(resolved, active, loops, point, None)?);
                }
                if let (Some(last), Some(start)) = (point.last_mut(), start) {
                    *last = start;
                }
            }
        }
        Ok(())
    }

    /// The stride along the last dimension, if the tile is walked by strides.
    pub(super) fn last_stride(&self, resolved: &Resolved) -> Option<i64> {
        resolved.strided.as_ref().map(|(_, s)| s.last().copied().unwrap_or(0))
    }
}
