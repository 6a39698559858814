//! Rules 15 and 16: vectors and parallel loops.

use super::coverage::{Coverage, Strictness};
use super::{Placed, Rule, Verifier};
use crate::tile::walk::collect_stmts;
use crate::tile::{
    Access, Affine, Atom, Buffer, Exec, Item, KernelData, Loop, LoopKind, Stmt, StmtData, StmtOp, Storage, Var,
};

impl Verifier<'_> {
    /// Dimensions that are executed in vectors.
    pub(super) fn vectors(&mut self, kernel: &KernelData, placed: &[Placed]) {
        for p in placed {
            let stmt = &kernel.stmts[p.stmt];
            let lanes: Vec<usize> = (0..stmt.dims.len()).filter(|&d| stmt.dims[d].exec == Exec::Vector).collect();
            let &[lane] = lanes.as_slice() else {
                if lanes.len() > 1 {
                    self.report_stmt(kernel, p.stmt, Rule::Vectors);
                }
                continue;
            };
            let var = Var::Dim(lane as u32);
            let dim = stmt.dims[lane].name.clone();
            let (write, tree) = (stmt.write(), matches!(stmt.op, StmtOp::Reduce { .. }));
            let reduced = tree && !write.index.iter().any(|i| i.uses(var));
            if !reduced && !write.index.iter().any(|i| distinct(i, var)) {
                self.report_stmt(kernel, p.stmt, Rule::SameElement { dim: dim.clone(), buffer: write.buffer });
            }
            // What is reduced is read before anything is written.
            for read in stmt.reads().into_iter().filter(|_| !tree) {
                if read.buffer == write.buffer && read.index != write.index && !disjoint(kernel, stmt, read, write) {
                    let rule = Rule::LaneDependence { dim: dim.clone(), buffer: read.buffer };
                    self.report_stmt(kernel, p.stmt, rule);
                }
            }
        }
    }

    /// Loops whose iterations may run at once.
    pub(super) fn parallel(&mut self, kernel: &KernelData) {
        let mut found = Vec::new();
        crate::tile::walk::walk(&kernel.body, &mut Vec::new(), &mut |item, around| {
            if let Item::Loop(l, body) = item
                && kernel.loops[*l].kind == LoopKind::Parallel
            {
                found.push((*l, body, around.to_vec()));
            }
        });
        for (l, body, around) in found {
            let mut inside = Vec::new();
            collect_stmts(body, &mut inside);
            let mut written: Vec<Buffer> = Vec::new();
            for s in &inside {
                let b = kernel.stmts[*s].write().buffer;
                if !written.contains(&b) {
                    written.push(b);
                }
            }
            for b in written {
                if !partitioned(kernel, &inside, l, &around, b) && !self.private(kernel, body, &inside, b) {
                    let entity = format!("{l} {:?}", kernel.loops[l].name);
                    self.report(Some(kernel), entity, Rule::Dependence(b));
                }
            }
        }
    }

    /// Whether a buffer belongs to one iteration: only the loop uses it, and each iteration writes before it reads.
    fn private(&self, kernel: &KernelData, body: &[Item], inside: &[Stmt], b: Buffer) -> bool {
        let local = matches!(self.program.buffers[b].storage, Storage::Local(_));
        let elsewhere = kernel.stmts_in_order().iter().any(|s| !inside.contains(s) && kernel.stmts[*s].touches(b));
        let mut coverage = Coverage::new(self.program, Strictness::EachIteration, Some(b));
        local && !elsewhere && {
            coverage.body(kernel, body);
            coverage.unwritten.is_empty()
        }
    }
}

/// Whether different values of a variable give different coordinates, the others being equal.
fn distinct(index: &Affine, var: Var) -> bool {
    index.coefficient(var) != 0 && !in_division(index, var)
}

fn in_division(index: &Affine, var: Var) -> bool {
    index.terms().iter().any(|(atom, _)| match atom {
        Atom::Var(_) => false,
        Atom::FloorDiv(e, _) | Atom::Mod(e, _) => e.uses(var),
    })
}

/// Whether two accesses of a statement never meet during one run of it: at some coordinate their ranges over the tile,
/// under equal values of loops, are apart.
fn disjoint(kernel: &KernelData, stmt: &StmtData, a: &Access, b: &Access) -> bool {
    let extents = |v: Var| kernel.extent_of(stmt, v);
    a.index.iter().zip(&b.index).any(|(x, y)| {
        let ((x_loops, x), (y_loops, y)) = (split_loops(x), split_loops(y));
        let ((x_lo, x_hi), (y_lo, y_hi)) = (x.range(&extents), y.range(&extents));
        x_loops == y_loops && (x_hi < y_lo || y_hi < x_lo)
    })
}

/// Terms that use loops only, and the others with the constant.
fn split_loops(index: &Affine) -> (Affine, Affine) {
    split(index, &|v| matches!(v, Var::Loop(_)))
}

/// Terms all of whose variables are wanted, and the others with the constant.
fn split(index: &Affine, wanted: &dyn Fn(Var) -> bool) -> (Affine, Affine) {
    let (yes, no): (Vec<_>, Vec<_>) = index.terms().iter().cloned().partition(|(atom, c)| {
        let mut all = true;
        Affine::from_terms([(atom.clone(), *c)], 0).for_each_var(&mut |v| all &= wanted(v));
        all
    });
    (Affine::from_terms(yes, 0), Affine::from_terms(no, index.constant_part()))
}

/// Whether some coordinate of all accesses to a buffer is cut by the loop into parts that do not overlap: it is
/// `step * loop + outer + rest`, with the same step and the same terms of loops around everywhere, and all values of
/// `rest` lie within `step` of each other.
fn partitioned(kernel: &KernelData, inside: &[Stmt], l: Loop, around: &[Loop], b: Buffer) -> bool {
    let accesses = || {
        let stmts = inside.iter().map(|s| &kernel.stmts[*s]);
        stmts.flat_map(|s| s.accesses().into_iter().map(move |a| (s, a))).filter(|(_, a)| a.buffer == b)
    };
    let Some((_, first)) = accesses().next() else { return true };
    (0..first.index.len()).any(|position| {
        let var = Var::Loop(l);
        let mut window: Option<(i64, i64)> = None;
        let step = first.index[position].coefficient(var);
        let outer = |v: Var| matches!(v, Var::Loop(x) if around.contains(&x));
        let common = split(&first.index[position], &outer).0;
        for (stmt, access) in accesses() {
            let index = &access.index[position];
            let (fixed, rest) = split(index, &outer);
            if fixed != common || index.coefficient(var) != step || in_division(index, var) {
                return false;
            }
            let rest = rest.sub(&Affine::of_loop(l).scale(step));
            let (lo, hi) = rest.range(&|v| kernel.extent_of(stmt, v));
            window = Some(window.map_or((lo, hi), |w| (w.0.min(lo), w.1.max(hi))));
        }
        window.is_some_and(|(lo, hi)| hi.saturating_sub(lo) < step.saturating_abs())
    })
}
