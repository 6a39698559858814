//! Quasi-affine expressions: integer coordinates as sums of scaled variables, floor divisions and remainders.
//!
//! Variables are loops and tile dimensions; each ranges over `0..extent`. An expression is kept in one canonical form
//! (terms sorted by atom, no zero coefficients, no two terms of one atom), so that equality of forms implies equality of
//! functions. Divisions and remainders simplify with the ranges of their variables: for `d < 32`,
//! `(32 h + d) / 32 = h` and `(32 h + d) % 32 = d`, which is what turns reshapes back into plain strides.

use std::fmt;

use super::Loop;

/// A variable: an enclosing loop, or a dimension of the statement's tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Var {
    /// Index of an enclosing loop.
    Loop(Loop),
    /// Index within the statement's tile, by position of the dimension.
    Dim(u32),
}

/// What a term scales.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A variable.
    Var(Var),
    /// `floor(expression / divisor)`, divisor at least 2.
    FloorDiv(Box<Affine>, i64),
    /// `expression mod modulus`, in `0..modulus`; modulus at least 2.
    Mod(Box<Affine>, i64),
}

/// `constant + Σ coefficient · atom`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Affine {
    /// Sorted by atom, coefficients not zero.
    terms: Vec<(Atom, i64)>,
    /// The constant.
    constant: i64,
}

/// Number of values a variable takes.
pub type Extents<'a> = &'a dyn Fn(Var) -> u64;

impl Affine {
    /// A constant.
    pub fn constant(value: i64) -> Self {
        Self { terms: Vec::new(), constant: value }
    }

    /// A variable.
    pub fn var(var: Var) -> Self {
        Self { terms: vec![(Atom::Var(var), 1)], constant: 0 }
    }

    /// The tile dimension at position `i`.
    pub fn dim(i: usize) -> Self {
        Self::var(Var::Dim(i as u32))
    }

    /// A loop's index.
    pub fn of_loop(l: Loop) -> Self {
        Self::var(Var::Loop(l))
    }

    /// Builds the canonical form from any list of terms.
    pub fn from_terms(terms: impl IntoIterator<Item = (Atom, i64)>, constant: i64) -> Self {
        let mut all: Vec<(Atom, i64)> = terms.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut terms: Vec<(Atom, i64)> = Vec::with_capacity(all.len());
        for (atom, c) in all {
            match terms.last_mut() {
                Some((last, sum)) if *last == atom => *sum = sum.wrapping_add(c),
                _ => terms.push((atom, c)),
            }
        }
        terms.retain(|t| t.1 != 0);
        Self { terms, constant }
    }

    /// The terms, sorted by atom.
    pub fn terms(&self) -> &[(Atom, i64)] {
        &self.terms
    }

    /// The constant part.
    pub fn constant_part(&self) -> i64 {
        self.constant
    }

    /// The value, if it does not depend on any variable.
    pub fn as_constant(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// The variable, if this is exactly one.
    pub fn as_var(&self) -> Option<Var> {
        match (&self.terms[..], self.constant) {
            ([(Atom::Var(v), 1)], 0) => Some(*v),
            _ => None,
        }
    }

    /// Coefficient of a variable outside divisions and remainders.
    pub fn coefficient(&self, var: Var) -> i64 {
        self.terms.iter().find(|(a, _)| *a == Atom::Var(var)).map_or(0, |t| t.1)
    }

    /// Sum.
    pub fn add(&self, other: &Affine) -> Self {
        let terms = self.terms.iter().chain(&other.terms).cloned();
        Self::from_terms(terms, self.constant.wrapping_add(other.constant))
    }

    /// Difference.
    pub fn sub(&self, other: &Affine) -> Self {
        self.add(&other.scale(-1))
    }

    /// Sum with a constant.
    pub fn add_constant(&self, value: i64) -> Self {
        Self { terms: self.terms.clone(), constant: self.constant.wrapping_add(value) }
    }

    /// Product with a constant.
    pub fn scale(&self, factor: i64) -> Self {
        let terms = self.terms.iter().map(|(a, c)| (a.clone(), c.wrapping_mul(factor)));
        Self::from_terms(terms, self.constant.wrapping_mul(factor))
    }

    /// Smallest and largest value over the variables' ranges (not always attained when terms share variables).
    pub fn range(&self, extents: Extents) -> (i64, i64) {
        let mut lo = i128::from(self.constant);
        let mut hi = lo;
        for (atom, c) in &self.terms {
            let (a, b) = match atom {
                Atom::Var(v) => (0, (extents(*v).max(1) - 1) as i64),
                Atom::FloorDiv(e, d) => {
                    let (a, b) = e.range(extents);
                    (a.div_euclid(*d), b.div_euclid(*d))
                }
                Atom::Mod(e, m) => {
                    let (a, b) = e.range(extents);
                    if a.div_euclid(*m) == b.div_euclid(*m) { (a.rem_euclid(*m), b.rem_euclid(*m)) } else { (0, m - 1) }
                }
            };
            let (x, y) = (i128::from(a) * i128::from(*c), i128::from(b) * i128::from(*c));
            lo += x.min(y);
            hi += x.max(y);
        }
        let clamp = |x: i128| x.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        (clamp(lo), clamp(hi))
    }

    /// Splits into `divisor · quotient + rest`, taking every term whose coefficient is a multiple of the divisor.
    fn split_multiples(&self, divisor: i64) -> (Affine, Affine) {
        let (whole, rest): (Vec<_>, Vec<_>) = self.terms.iter().cloned().partition(|(_, c)| c % divisor == 0);
        let quotient =
            Self::from_terms(whole.into_iter().map(|(a, c)| (a, c / divisor)), self.constant.div_euclid(divisor));
        (quotient, Self { terms: rest, constant: self.constant.rem_euclid(divisor) })
    }

    /// `floor(self / divisor)`, simplified; `divisor` at least 1.
    pub fn floor_div(&self, divisor: i64, extents: Extents) -> Self {
        if divisor == 1 {
            return self.clone();
        }
        let (quotient, rest) = self.split_multiples(divisor);
        let (lo, hi) = rest.range(extents);
        let (lo, hi) = (lo.div_euclid(divisor), hi.div_euclid(divisor));
        if lo == hi {
            return quotient.add_constant(lo);
        }
        // floor(floor(e / a) / b) = floor(e / ab)
        if let ([(Atom::FloorDiv(e, d), 1)], 0) = (&rest.terms[..], rest.constant)
            && let Some(product) = d.checked_mul(divisor)
        {
            return quotient.add(&e.floor_div(product, extents));
        }
        let atom = Atom::FloorDiv(Box::new(rest), divisor);
        quotient.add(&Self { terms: vec![(atom, 1)], constant: 0 })
    }

    /// `self mod modulus` in `0..modulus`, simplified; `modulus` at least 1.
    pub fn modulo(&self, modulus: i64, extents: Extents) -> Self {
        if modulus == 1 {
            return Self::constant(0);
        }
        let (_, rest) = self.split_multiples(modulus);
        let (lo, hi) = rest.range(extents);
        if lo.div_euclid(modulus) == hi.div_euclid(modulus) {
            return rest.add_constant(-lo.div_euclid(modulus) * modulus);
        }
        // (e mod km) mod m = e mod m
        if let ([(Atom::Mod(e, m), 1)], 0) = (&rest.terms[..], rest.constant)
            && m % modulus == 0
        {
            return e.modulo(modulus, extents);
        }
        Self { terms: vec![(Atom::Mod(Box::new(rest), modulus), 1)], constant: 0 }
    }

    /// Replaces every variable and simplifies with the ranges of the new variables.
    pub fn substitute(&self, map: &dyn Fn(Var) -> Affine, extents: Extents) -> Self {
        let mut out = Self::constant(self.constant);
        for (atom, c) in &self.terms {
            let value = match atom {
                Atom::Var(v) => map(*v),
                Atom::FloorDiv(e, d) => e.substitute(map, extents).floor_div(*d, extents),
                Atom::Mod(e, m) => e.substitute(map, extents).modulo(*m, extents),
            };
            out = out.add(&value.scale(*c));
        }
        out
    }

    /// Simplifies again under (narrower) ranges; variables of one value become 0.
    pub fn simplified(&self, extents: Extents) -> Self {
        self.substitute(&|v| if extents(v) <= 1 { Self::constant(0) } else { Self::var(v) }, extents)
    }

    /// Joins `c·k·floor(e/k) + c·(e mod k)` to `c·e`: what the row-major offset of a split coordinate comes to.
    pub fn recombined(&self) -> Self {
        let mut terms = self.terms.clone();
        let mut joined = Self::constant(self.constant);
        'search: loop {
            for i in 0..terms.len() {
                let (Atom::Mod(e, k), c) = &terms[i] else { continue };
                let wanted = Atom::FloorDiv(e.clone(), *k);
                if let Some(j) = terms.iter().position(|(a, d)| *a == wanted && c.checked_mul(*k) == Some(*d)) {
                    joined = joined.add(&e.scale(*c));
                    let (first, second) = (i.max(j), i.min(j));
                    terms.remove(first);
                    terms.remove(second);
                    continue 'search;
                }
            }
            return joined.add(&Self { terms, constant: 0 });
        }
    }

    /// Value at a point.
    pub fn eval(&self, value: &dyn Fn(Var) -> i64) -> i64 {
        self.terms.iter().fold(self.constant, |sum, (atom, c)| {
            let a = match atom {
                Atom::Var(v) => value(*v),
                Atom::FloorDiv(e, d) => e.eval(value).div_euclid(*d),
                Atom::Mod(e, m) => e.eval(value).rem_euclid(*m),
            };
            sum.wrapping_add(a.wrapping_mul(*c))
        })
    }

    /// Calls `f` for every variable, also those inside divisions and remainders.
    pub fn for_each_var(&self, f: &mut dyn FnMut(Var)) {
        for (atom, _) in &self.terms {
            match atom {
                Atom::Var(v) => f(*v),
                Atom::FloorDiv(e, _) | Atom::Mod(e, _) => e.for_each_var(f),
            }
        }
    }

    /// Whether a variable occurs.
    pub fn uses(&self, var: Var) -> bool {
        let mut found = false;
        self.for_each_var(&mut |v| found |= v == var);
        found
    }

    /// Whether every atom is a variable: no division, no remainder.
    pub fn is_linear(&self) -> bool {
        self.terms.iter().all(|(a, _)| matches!(a, Atom::Var(_)))
    }

    /// Prints with names for the variables; parsed back by the text form.
    pub fn display<'a>(&'a self, name: &'a dyn Fn(Var) -> String) -> impl fmt::Display + 'a {
        DisplayAffine { affine: self, name }
    }
}

struct DisplayAffine<'a> {
    affine: &'a Affine,
    name: &'a dyn Fn(Var) -> String,
}

impl fmt::Display for DisplayAffine<'_> {
    /// `32*i + d0 - 1`, `(4*i + d0) / 3`, `(i + 1) % 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Affine { terms, constant } = self.affine;
        let mut first = true;
        for (atom, c) in terms {
            match (first, *c < 0) {
                (true, true) => f.write_str("-")?,
                (true, false) => {}
                (false, true) => f.write_str(" - ")?,
                (false, false) => f.write_str(" + ")?,
            }
            first = false;
            if c.unsigned_abs() != 1 {
                write!(f, "{}*", c.unsigned_abs())?;
            }
            match atom {
                Atom::Var(v) => f.write_str(&(self.name)(*v))?,
                Atom::FloorDiv(e, d) => write!(f, "(({}) / {d})", e.display(self.name))?,
                Atom::Mod(e, m) => write!(f, "(({}) % {m})", e.display(self.name))?,
            }
        }
        match (first, *constant) {
            (true, c) => write!(f, "{c}"),
            (false, 0) => Ok(()),
            (false, c) if c < 0 => write!(f, " - {}", c.unsigned_abs()),
            (false, c) => write!(f, " + {c}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(i: usize) -> Affine {
        Affine::dim(i)
    }

    #[test]
    fn reshape_of_heads_simplifies_to_strides() {
        let ext = |v: Var| if v == Var::Dim(1) { 32 } else { 12 };
        let e = d(0).scale(32).add(&d(1));
        assert_eq!(e.floor_div(32, &ext), d(0));
        assert_eq!(e.modulo(32, &ext), d(1));
    }

    #[test]
    fn divisions_that_do_not_simplify_keep_their_value() {
        let ext = |_| 7;
        let e = d(0).scale(5).add(&d(1)).add_constant(-3);
        for (q, r) in [(e.floor_div(4, &ext), e.modulo(4, &ext))] {
            for a in 0..7 {
                for b in 0..7 {
                    let at = |v: Var| if v == Var::Dim(0) { a } else { b };
                    let x = 5 * a + b - 3;
                    assert_eq!(q.eval(&at), x.div_euclid(4));
                    assert_eq!(r.eval(&at), x.rem_euclid(4));
                    assert_eq!(q.scale(12).add(&r.scale(3)).recombined().eval(&at), 3 * x);
                }
            }
        }
    }

    #[test]
    fn recombination_removes_the_division() {
        let ext = |_| 1000;
        let e = d(0);
        let offset = e.floor_div(7, &ext).scale(14).add(&e.modulo(7, &ext).scale(2));
        assert_eq!(offset.recombined(), e.scale(2));
    }

    #[test]
    fn ranges_bound_every_value() {
        let ext = |_| 5;
        let e = d(0).scale(-3).add(&d(1).floor_div(2, &ext)).add_constant(2);
        assert_eq!(e.range(&ext), (-10, 4));
    }
}
