//! Which iterations touch which parts of a buffer.
//!
//! All legality rests on one sufficient condition. An access is *partitioned* by a variable `v` at a coordinate if that
//! coordinate is `c·v + base + local` with `0 <= local < c`, where `base` does not depend on the statement's own tile: then
//! different values of `v` touch disjoint parts of the buffer. If every access to a buffer is partitioned by the same
//! variable at the same coordinate with the same `c` and `base`, no value flows between iterations.

use crate::tile::{Access, Affine, Atom, Var};

/// The partition of a coordinate: step and base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Elements that one value of the variable covers.
    pub step: i64,
    /// What the coordinate is for the variable 0 and the tile at its origin: a constant and terms of other loops.
    pub base: Affine,
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
    let (low, high) = Affine::from_terms(local, 0).range(extents);
    let base = Affine::from_terms(base, rest.constant_part() + low);
    (high - low < step).then_some(Partition { step, base })
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
        let first = all.next()??;
        all.all(|other| other.as_ref() == Some(&first)).then_some((p, first))
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
        assert_eq!(partition(&index, Var::Dim(1), &none, &extents(32)), None);
    }
}
