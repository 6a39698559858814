//! Rules 7 to 10: coordinates, fill values, and what may be written or held in registers.

use super::{Placed, Rule, Verifier};
use crate::tile::{
    Access, Affine, Atom, Buffer, KernelData, Loop, LoopKind, Program, Space, Stmt, StmtData, Storage, Var,
};

/// Most points for which coordinates are evaluated one by one where their ranges are not enough.
const MAX_EVALUATED: u64 = 1 << 16;

/// Values of each coordinate of an access, cut to the shape where there is a fill value.
pub(super) fn hull(kernel: &KernelData, stmt: &StmtData, access: &Access, shape: &[u64]) -> Vec<(i64, i64)> {
    let extents = |v: Var| kernel.extent_of(stmt, v);
    let cut = |(lo, hi): (i64, i64), size: u64| {
        if access.fill.is_some() { (lo.max(0), hi.min(size as i64 - 1)) } else { (lo, hi) }
    };
    access.index.iter().zip(shape).map(|(i, &size)| cut(i.range(&extents), size)).collect()
}

impl Verifier<'_> {
    /// Handles and variables, so that later rules can look them up.
    pub(super) fn scopes(&mut self, kernel: &KernelData, placed: &[Placed]) {
        for p in placed {
            let stmt = &kernel.stmts[p.stmt];
            for access in stmt.accesses() {
                let Some(data) = self.program.buffers.get(access.buffer) else {
                    self.report_stmt(kernel, p.stmt, Rule::NoBuffer(access.buffer));
                    continue;
                };
                let (rank, given) = (data.shape.len(), access.index.len());
                if rank != given {
                    self.report_stmt(kernel, p.stmt, Rule::Arity { buffer: access.buffer, rank, given });
                }
                for index in &access.index {
                    let mut bad = None;
                    index.for_each_var(&mut |v| match v {
                        Var::Dim(d) if d as usize >= stmt.dims.len() => bad = Some(Rule::DimScope(d)),
                        Var::Loop(l) if !p.around.contains(&l) => bad = Some(Rule::LoopScope(l)),
                        Var::Dim(_) | Var::Loop(_) => {}
                    });
                    if let Some(rule) = bad {
                        self.report_stmt(kernel, p.stmt, rule);
                    }
                }
            }
        }
    }

    /// Bounds, fill values, writes and registers.
    pub(super) fn accesses(&mut self, kernel: &KernelData, placed: &[Placed]) {
        for p in placed {
            let stmt = &kernel.stmts[p.stmt];
            let write = stmt.write();
            if matches!(self.program.buffers[write.buffer].storage, Storage::Input(_) | Storage::Const(_)) {
                self.report_stmt(kernel, p.stmt, Rule::ReadOnly(write.buffer));
            }
            if write.fill.is_some() {
                self.report_stmt(kernel, p.stmt, Rule::FilledWrite);
            }
            for access in stmt.accesses() {
                let data = &self.program.buffers[access.buffer];
                if let Some(fill) = access.fill
                    && (fill.dtype != data.dtype || !fill.is_valid())
                {
                    self.report_stmt(kernel, p.stmt, Rule::FillType { fill: fill.dtype, dtype: data.dtype });
                }
                if access.fill.is_none() {
                    self.bounds(kernel, p, access);
                }
                if data.storage == Storage::Local(Space::Reg) {
                    self.register_access(kernel, p, access);
                }
            }
        }
    }

    fn bounds(&mut self, kernel: &KernelData, p: &Placed, access: &Access) {
        let stmt = &kernel.stmts[p.stmt];
        let extents = |v: Var| kernel.extent_of(stmt, v);
        let shape = &self.program.buffers[access.buffer].shape;
        for (axis, (index, &size)) in access.index.iter().zip(shape).enumerate() {
            let inside = |(lo, hi): (i64, i64)| lo >= 0 && hi < size as i64;
            let range = index.range(&extents);
            let (lo, hi) = if inside(range) { range } else { exact_range(index, &extents).unwrap_or(range) };
            if !inside((lo, hi)) {
                self.report_stmt(kernel, p.stmt, Rule::Bounds { buffer: access.buffer, axis, lo, hi, size });
            }
        }
    }

    fn register_access(&mut self, kernel: &KernelData, p: &Placed, access: &Access) {
        let buffer = access.buffer;
        let mut by = access.fill.map(|_| "a fill value".to_owned());
        for index in &access.index {
            index.for_each_var(&mut |v| {
                if let Var::Loop(l) = v
                    && kernel.loops[l].kind != LoopKind::Unrolled
                {
                    by = Some(format!("the loop {:?}", kernel.loops[l].name));
                }
            });
        }
        if kernel.stmts[p.stmt].data_coordinate().is_some_and(|data| data.access == access) {
            by = Some("data".to_owned());
        }
        if let Some(by) = by {
            self.report_stmt(kernel, p.stmt, Rule::RegisterIndex { buffer, by });
        }
    }
}

/// Bytes of registers alive at once, if these buffers are in registers: each from the first to the last statement that
/// touches it, and over the whole of a loop if it is touched both inside and outside.
pub fn register_bytes(program: &Program, kernel: &KernelData, in_registers: &dyn Fn(Buffer) -> bool) -> u64 {
    let stmts = kernel.stmts_in_order();
    let around: Vec<Vec<Loop>> = stmts.iter().map(|&s| kernel.locate(s).unwrap_or_default().1).collect();
    let mut change = vec![0i64; stmts.len() + 1];
    for b in kernel.buffers().into_iter().filter(|b| in_registers(*b)) {
        let touches = |s: &Stmt| kernel.stmts[*s].touches(b);
        let Some(mut first) = stmts.iter().position(touches) else { continue };
        let Some(mut last) = stmts.iter().rposition(touches) else { continue };
        let (start, end) = (first, last);
        for l in around[start].iter().chain(&around[end]) {
            let inside = |loops: &Vec<Loop>| loops.contains(l);
            if !(inside(&around[start]) && inside(&around[end])) {
                first = first.min(around.iter().position(inside).unwrap_or(first));
                last = last.max(around.iter().rposition(inside).unwrap_or(last));
            }
        }
        let bytes = program.buffers[b].bytes() as i64;
        change[first] += bytes;
        change[last + 1] -= bytes;
    }
    let mut alive = 0i64;
    let most = change.iter().map(|c| {
        alive += c;
        alive
    });
    most.max().unwrap_or(0).max(0) as u64
}

/// Smallest and largest value over all points, if they are few.
fn exact_range(index: &Affine, extents: &dyn Fn(Var) -> u64) -> Option<(i64, i64)> {
    let mut vars: Vec<Var> = Vec::new();
    let mut nested = false;
    for (atom, _) in index.terms() {
        nested |= !matches!(atom, Atom::Var(_));
    }
    index.for_each_var(&mut |v| {
        if !vars.contains(&v) {
            vars.push(v);
        }
    });
    let points = vars.iter().try_fold(1u64, |n, v| n.checked_mul(extents(*v)))?;
    // Ranges of sums of variables are exact already.
    if !nested || points > MAX_EVALUATED {
        return None;
    }
    let mut range: Option<(i64, i64)> = None;
    for point in 0..points {
        let value = index.eval(&|v| {
            let mut rest = point;
            for w in &vars {
                if *w == v {
                    return (rest % extents(*w)) as i64;
                }
                rest /= extents(*w);
            }
            0
        });
        let (lo, hi) = range.unwrap_or((value, value));
        range = Some((lo.min(value), hi.max(value)));
    }
    range
}
