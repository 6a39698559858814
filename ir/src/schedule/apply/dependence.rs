//! Which iterations touch which parts of a buffer.
//!
//! All legality rests on one sufficient condition. An access is *partitioned* by a variable `v` at a coordinate if that
//! coordinate is `c·v + base + local` with `0 <= local < c`, where `base` does not depend on the statement's own tile: then
//! different values of `v` touch disjoint parts of the buffer. If every access to a buffer is partitioned by the same
//! variable at the same coordinate with the same `c` and `base`, no value flows between iterations.
//!
//! Terms whose factors are multiples of `c` times the extent of `v` change nothing about that: modulo this period they
//! vanish, so the parts are still disjoint, though no longer contiguous. They stand where a convolution writes its result
//! flattened, `64·channel + 8·row + column`, and a row or a column is split off.

use crate::tile::{Access, Affine, Atom, Var};

/// The partition of a coordinate: step and base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Elements that one value of the variable covers.
    pub step: i64,
    /// What the coordinate is for the variable 0 and the tile at its origin: a constant and terms of other loops.
    pub base: Affine,
    /// Whether the part of one value repeats, once for each value of terms above the variable's own range. Such a part
    /// is not an interval, so a temporary cannot shrink to it.
    pub repeats: bool,
}

/// Whether a coordinate is partitioned by `var`. `outer` tells which other variables belong to `base`.
pub fn partition(
    index: &Affine,
    var: Var,
    outer: &dyn Fn(Var) -> bool,
    extents: &dyn Fn(Var) -> u64,
) -> Option<Partition> {
    let step = index.coefficient(var);
    if step < 1 {
        return None;
    }
    let rest = index.sub(&Affine::from_terms([(Atom::Var(var), step)], 0));
    if rest.uses(var) {
        return None;
    }
    let is_outer = |atom: &Atom| {
        let mut all = true;
        let single = Affine::from_terms([(atom.clone(), 1)], 0);
        single.for_each_var(&mut |v| all &= outer(v));
        all
    };
    let (base, local): (Vec<_>, Vec<_>) = rest.terms().iter().cloned().partition(|(atom, _)| is_outer(atom));
    let part = |local: Vec<(Atom, i64)>, repeats| {
        let (low, high) = Affine::from_terms(local, 0).range(extents);
        let base = Affine::from_terms(base.iter().cloned(), rest.constant_part() + low);
        (high - low < step).then_some(Partition { step, base, repeats })
    };
    let period = i64::try_from(extents(var)).ok().and_then(|extent| step.checked_mul(extent)).filter(|&p| p > 0);
    part(local.clone(), false).or_else(|| {
        let below = |&(_, factor): &(Atom, i64)| period.is_none_or(|p| factor % p != 0);
        part(local.into_iter().filter(below).collect(), true)
    })
}

/// One access seen from a rewriting: the access, the variable that is moved, and the ranges at its statement.
pub struct Seen<'a> {
    /// The access.
    pub access: &'a Access,
    /// The variable whose values must not interact.
    pub var: Var,
    /// Ranges of the variables at the statement.
    pub extents: Box<dyn Fn(Var) -> u64 + 'a>,
}

/// The coordinate at which all accesses (to one buffer) are partitioned alike, if there is one.
pub fn common_partition(seen: &[Seen<'_>], outer: &dyn Fn(Var) -> bool) -> Option<(usize, Partition)> {
    let rank = seen.first()?.access.index.len();
    (0..rank).find_map(|p| {
        let mut all = seen.iter().map(|s| partition(&s.access.index[p], s.var, outer, &*s.extents));
        let mut common = all.next()??;
        for other in all {
            let other = other.filter(|o| o.step == common.step && o.base == common.base)?;
            common.repeats |= other.repeats;
        }
        Some((p, common))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_partition_the_hidden_dimension_only_when_their_elements_stay_inside() {
        let index = Affine::dim(0).scale(32).add(&Affine::dim(1));
        let extents = |d| move |v: Var| if v == Var::Dim(1) { d } else { 12 };
        let none = |_: Var| false;
        assert_eq!(partition(&index, Var::Dim(0), &none, &extents(32)).map(|p| p.step), Some(32));
        assert_eq!(partition(&index, Var::Dim(0), &none, &extents(33)), None);
    }

    #[test]
    fn terms_above_the_range_of_the_variable_repeat_its_parts() {
        // 64·channel + 8·row + column
        let index = Affine::dim(0).scale(64).add(&Affine::dim(1).scale(8)).add(&Affine::dim(2));
        let none = |_: Var| false;
        let extents = |rows| move |v: Var| if v == Var::Dim(1) { rows } else { 8 };
        let repeats = |d, rows| partition(&index, Var::Dim(d), &none, &extents(rows)).map(|p| (p.step, p.repeats));
        assert_eq!(repeats(0, 8), Some((64, false)));
        assert_eq!(repeats(1, 8), Some((8, true)));
        assert_eq!(repeats(2, 8), Some((1, true)));
        // A ninth row would be the next channel's first.
        assert_eq!(repeats(1, 9), None);
    }
}
