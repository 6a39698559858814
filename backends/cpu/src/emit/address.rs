//! Addresses: element offsets, which are affine in loops, as Cranelift values.
//!
//! An address is the sum of a base pointer, terms of the loops, and a constant that goes into the load or store. Terms are
//! added from the outermost loop inwards, and each partial sum is computed once in the body of the loop that it depends on
//! (see [`Emitter::prepare_addresses`]), because Cranelift runs here without its own loop-invariant code motion. Where an access
//! cannot add two registers and a constant, innermost loops carry addresses along (see [`Emitter::pointers_of`]).

use aic_ir::machine::Arch;
use aic_ir::tile::{Affine, Atom, Item, Loop, Stmt, Var};
use cranelift_codegen::ir::{Block, InstBuilder, Value, types::I64};

use rustc_hash::FxHashMap;

use super::kernel::Emitter;

/// The coordinate that a gather or scatter reads from memory, as a variable of affine expressions. No statement has that many
/// dimensions.
pub(super) const DATA: Var = Var::Dim(u32::MAX);

/// Terms of an offset in bytes, in the order in which they are added.
pub(super) type Terms = Vec<(Atom, i64)>;

/// What a loop's index is at the current position.
#[derive(Clone, Copy, Debug)]
pub(super) enum Index {
    /// The loop is unrolled, or has one iteration.
    Known(i64),
    /// A value, and the depth of the loop's scope.
    Value(Value, usize),
}

/// Most addresses that a loop carries along; there are 31 registers, and loops around use some.
const MAX_POINTERS: usize = 12;

/// An address that a loop carries along.
pub(super) struct Pointer {
    /// What it is the address of.
    pub(super) key: Key,
    /// Its value before the first iteration.
    pub(super) first: Value,
    /// Its value in an iteration.
    pub(super) value: Value,
    /// Bytes from one iteration to the next.
    pub(super) step: i64,
}

/// Something computed in a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Base pointer plus terms, in bytes.
    Address(Value, Terms),
    /// An atom times a constant.
    Scaled(Atom, i64),
    /// The value of an expression.
    Integer(Affine),
}

impl Emitter<'_, '_> {
    /// Number of values of a variable.
    pub(super) fn extent(&self, stmt: Stmt, var: Var) -> u64 {
        match var {
            Var::Loop(l) => self.kernel.loops[l].extent,
            DATA => {
                let data = self.kernel.stmts[stmt].data_coordinate();
                data.and_then(|d| self.program.buffers[d.access.buffer].shape.get(d.axis)).map_or(1, |&n| n)
            }
            Var::Dim(d) => self.kernel.stmts[stmt].dims.get(d as usize).map_or(1, |d| d.extent),
        }
    }

    /// Puts the indices of unrolled loops in.
    pub(super) fn resolve(&self, stmt: Stmt, e: &Affine) -> Affine {
        let map = |v: Var| match v {
            Var::Loop(l) => match self.loops.get(&l) {
                Some(Index::Known(i)) => Affine::constant(*i),
                Some(Index::Value(..)) | None => Affine::var(v),
            },
            Var::Dim(_) => Affine::var(v),
        };
        e.substitute(&map, &|v| self.extent(stmt, v))
    }

    /// Depth of the scope where an atom has a value: that of its innermost loop. `None` if it has none here.
    pub(super) fn depth(&self, atom: &Atom) -> Option<usize> {
        let mut depth = Some(0);
        let mut visit = |v: Var| {
            let here = match v {
                Var::Loop(l) => match self.loops.get(&l) {
                    Some(Index::Value(_, depth)) => Some(*depth),
                    Some(Index::Known(_)) => Some(0),
                    None => None,
                },
                DATA => self.data.map(|_| self.scopes.len() - 1),
                Var::Dim(_) => None,
            };
            depth = depth.zip(here).map(|(a, b)| a.max(b));
        };
        match atom {
            Atom::Var(v) => visit(*v),
            Atom::FloorDiv(e, _) | Atom::Mod(e, _) => e.for_each_var(&mut visit),
        }
        depth
    }

    /// The terms of an element offset that have values here, in bytes and in order of depth.
    pub(super) fn terms(&self, offset: &Affine, elem_bytes: i64) -> Terms {
        let mut terms: Vec<(usize, (Atom, i64))> = offset
            .terms()
            .iter()
            .filter_map(|(atom, c)| Some((self.depth(atom)?, (atom.clone(), c.checked_mul(elem_bytes)?))))
            .collect();
        terms.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        terms.into_iter().map(|t| t.1).collect()
    }

    fn lookup(&self, key: &Key) -> Option<Value> {
        self.scopes.iter().rev().find_map(|s| s.get(key).copied())
    }

    fn remember(&mut self, key: Key, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(key, value);
        }
    }

    /// Sets the coordinate that a gather or scatter read. What is computed from it has a scope of its own, up to the next call.
    pub(super) fn set_data(&mut self, data: Option<Value>) {
        if self.data == data {
            return;
        }
        if self.data.is_some() {
            self.scopes.pop();
        }
        if data.is_some() {
            self.scopes.push(FxHashMap::default());
        }
        self.data = data;
    }

    /// `base` plus terms, in bytes.
    pub(super) fn address(&mut self, stmt: Stmt, base: Value, terms: &[(Atom, i64)]) -> Value {
        let mut known = terms.len();
        let mut address = base;
        while known > 0 {
            if let Some(v) = self.lookup(&Key::Address(base, terms[..known].to_vec())) {
                address = v;
                break;
            }
            known -= 1;
        }
        for i in known..terms.len() {
            let term = self.scaled(stmt, &terms[i].0, terms[i].1);
            address = self.b.ins().iadd(address, term);
            self.remember(Key::Address(base, terms[..=i].to_vec()), address);
        }
        address
    }

    /// The addresses that an innermost loop carries along, as parameters of its first block: those that grow by a constant.
    ///
    /// AArch64 adds a constant to one register, or two registers, so that with an index a constant takes an instruction for
    /// each access.
    pub(super) fn pointers_of(&mut self, l: Loop, body: &[Item], stmts: &[Stmt], header: Block) -> Vec<Pointer> {
        let inside = |item: &Item| matches!(item, Item::Loop(l, _) if !is_unrolled(self.kernel, *l));
        if self.target.machine.arch != Arch::Aarch64 || body.iter().any(inside) {
            return Vec::new();
        }
        let mut found: Vec<(Stmt, Value, Terms)> = Vec::new();
        for &s in stmts {
            for i in 0..self.offsets[&s].len() {
                let Some((base, elem_bytes)) = self.base_of(s, i) else { continue };
                let offset = self.resolve(s, &self.offsets[&s][i].clone());
                let terms = self.terms(&offset, elem_bytes);
                let here = |(atom, _): &&(Atom, i64)| self.depth(atom) == Some(self.scopes.len());
                let grows = terms.last().is_some_and(|t| t.0 == Atom::Var(Var::Loop(l)));
                let known = found.iter().any(|(_, b, t)| *b == base && *t == terms);
                if grows && terms.iter().filter(here).count() == 1 && !known && found.len() < MAX_POINTERS {
                    found.push((s, base, terms));
                }
            }
        }
        let mut pointers = Vec::with_capacity(found.len());
        for (s, base, terms) in found {
            let Some(((_, step), outer)) = terms.split_last() else { continue };
            let first = self.address(s, base, outer);
            let value = self.b.append_block_param(header, I64);
            pointers.push(Pointer { step: *step, first, value, key: Key::Address(base, terms) });
        }
        pointers
    }

    /// Computes, at the start of a loop's body, the parts of addresses that depend on nothing deeper.
    pub(super) fn prepare_addresses(&mut self, stmts: &[Stmt]) {
        let depth = self.scopes.len() - 1;
        for &s in stmts {
            for i in 0..self.offsets[&s].len() {
                let Some((base, elem_bytes)) = self.base_of(s, i) else { continue };
                let offset = self.resolve(s, &self.offsets[&s][i].clone());
                let terms = self.terms(&offset, elem_bytes);
                if terms.last().is_some_and(|t| self.depth(&t.0) == Some(depth)) {
                    self.address(s, base, &terms);
                }
            }
        }
    }

    fn scaled(&mut self, stmt: Stmt, atom: &Atom, factor: i64) -> Value {
        let key = Key::Scaled(atom.clone(), factor);
        if let Some(v) = self.lookup(&key) {
            return v;
        }
        let v = self.atom(stmt, atom);
        let v = self.multiply(v, factor);
        self.remember(key, v);
        v
    }

    fn multiply(&mut self, v: Value, factor: i64) -> Value {
        if factor == 1 {
            v
        } else if factor > 0 && factor.count_ones() == 1 {
            self.b.ins().ishl_imm_u(v, i64::from(factor.trailing_zeros()))
        } else {
            self.b.ins().imul_imm_s(v, factor)
        }
    }

    fn atom(&mut self, stmt: Stmt, atom: &Atom) -> Value {
        match atom {
            Atom::Var(v) => self.variable(*v),
            Atom::FloorDiv(e, d) => self.floor_div(stmt, e, *d),
            Atom::Mod(e, m) => {
                let v = self.integer(stmt, e);
                if m.count_ones() == 1 {
                    // Two's complement: the low bits are the remainder of negative values too.
                    self.b.ins().band_imm_s(v, m - 1)
                } else {
                    let q = self.floor_div(stmt, e, *m);
                    let whole = self.multiply(q, *m);
                    self.b.ins().isub(v, whole)
                }
            }
        }
    }

    fn variable(&mut self, v: Var) -> Value {
        let index = match v {
            DATA => self.data.map(|d| Index::Value(d, 0)),
            Var::Loop(l) => self.loops.get(&l).copied(),
            Var::Dim(_) => None,
        };
        match index {
            Some(Index::Value(v, _)) => v,
            Some(Index::Known(i)) => self.b.ins().iconst(I64, i),
            // Offsets of points have no dimensions left, so this is a value that nothing uses.
            None => self.b.ins().iconst(I64, 0),
        }
    }

    /// The value of an expression over loops and data.
    pub(super) fn integer(&mut self, stmt: Stmt, e: &Affine) -> Value {
        let key = Key::Integer(e.clone());
        if let Some(v) = self.lookup(&key) {
            return v;
        }
        let mut sum: Option<Value> = None;
        for (atom, c) in e.terms() {
            let term = self.scaled(stmt, atom, *c);
            sum = Some(match sum {
                Some(s) => self.b.ins().iadd(s, term),
                None => term,
            });
        }
        let v = match sum {
            Some(s) if e.constant_part() == 0 => s,
            Some(s) => self.b.ins().iadd_imm_s(s, e.constant_part()),
            None => self.b.ins().iconst(I64, e.constant_part()),
        };
        self.remember(key, v);
        v
    }

    /// `floor(e / d)`, also where `e` is negative.
    fn floor_div(&mut self, stmt: Stmt, e: &Affine, d: i64) -> Value {
        if d.count_ones() == 1 {
            let v = self.integer(stmt, e);
            return self.b.ins().sshr_imm_u(v, i64::from(d.trailing_zeros()));
        }
        let key = Key::Scaled(Atom::FloorDiv(Box::new(e.clone()), d), 1);
        if let Some(v) = self.lookup(&key) {
            return v;
        }
        // A multiple of the divisor makes the dividend non-negative: floor((e + k d) / d) - k = floor(e / d).
        let (lo, hi) = e.range(&|v| self.extent(stmt, v));
        let k = if lo < 0 { -lo.div_euclid(d) } else { 0 };
        let v = self.integer(stmt, &e.add_constant(k * d));
        let q = match reciprocal(d as u64, hi.saturating_add(k * d).max(0) as u64) {
            Some((multiplier, shift)) => {
                let product = self.b.ins().imul_imm_s(v, multiplier as i64);
                self.b.ins().ushr_imm_u(product, i64::from(shift))
            }
            None => {
                let divisor = self.b.ins().iconst(I64, d);
                self.b.ins().udiv(v, divisor)
            }
        };
        let q = if k == 0 { q } else { self.b.ins().iadd_imm_s(q, -k) };
        self.remember(key, q);
        q
    }
}

/// A multiplier `m` and shift `s` with `floor(n / d) = (n m) >> s` for all `n <= max`, and `max m` below 2^63. Follows Granlund
/// and Montgomery, "Division by invariant integers using multiplication" (1994): `m = ceil(2^s / d)` is exact while
/// `max (m d - 2^s) < 2^s`.
fn reciprocal(d: u64, max: u64) -> Option<(u64, u32)> {
    (0..63).find_map(|s| {
        let power = 1u128 << s;
        let m = power.div_ceil(u128::from(d));
        let error = m * u128::from(d) - power;
        let exact = u128::from(max) * error < power;
        let fits = u128::from(max) * m < 1 << 63;
        (exact && fits).then_some((m as u64, s))
    })
}

/// Loops of a body that are emitted as loops, not unrolled.
pub(super) fn is_unrolled(kernel: &aic_ir::tile::KernelData, l: Loop) -> bool {
    kernel.loops[l].extent <= 1 || kernel.loops[l].kind == aic_ir::tile::LoopKind::Unrolled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_divide_exactly() {
        for d in [3u64, 5, 6, 7, 12, 49, 384, 1000, 30522] {
            for max in [d, 100, 65_535, 1 << 20, 1 << 31] {
                let Some((m, s)) = reciprocal(d, max) else { panic!("{d} up to {max}") };
                for n in (0..200).chain([max / 2, max - 1, max]).chain((1..50).map(|i| i * d % (max + 1))) {
                    if n <= max {
                        assert_eq!((n * m) >> s, n / d, "{n} / {d}");
                    }
                }
            }
        }
    }
}
