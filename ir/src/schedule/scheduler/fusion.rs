//! First phase: elementwise kernels become epilogues of the kernels whose results they read.
//!
//! A consumer joins when it is one statement that reads the producer's result at the same coordinates at which it writes its
//! own, over the same box: then both run tile by tile under common loops and the intermediate value stays in registers.

use super::super::apply::kernel_named;
use super::{Directive, ScheduleError, Scheduler};
use crate::tile::{Access, Affine, Buffer, Kernel, Program, Step, StmtData, StmtOp, Storage, Var};

/// Most statements of a joined kernel; bounds the code that one tile comes to.
const MAX_STMTS: usize = 24;

impl Scheduler<'_> {
    /// Joins kernels until no pair qualifies.
    pub(super) fn join_kernels(&mut self) -> Result<(), ScheduleError> {
        let mut position = 0;
        while position < self.program.steps.len() {
            if let Step::Run(k) = self.program.steps[position]
                && let Some(consumer) = self.find_consumer(k)
            {
                let kernel = self.program.kernels[k].name.clone();
                if self.attempt(Directive::Fuse { kernel: kernel.clone(), consumer }).is_ok() {
                    // The joined kernel may stand later now: look at it again from where it stands.
                    let k = kernel_named(&self.program, &kernel).map_err(|r| self.bug(&kernel, r))?;
                    let at = self.program.steps.iter().position(|s| *s == Step::Run(k));
                    position = position.min(at.unwrap_or(position));
                    continue;
                }
            }
            position += 1;
        }
        Ok(())
    }

    /// The first later kernel that can be an epilogue of `k`.
    fn find_consumer(&self, k: Kernel) -> Option<String> {
        let data = &self.program.kernels[k];
        let stmts = data.stmts_in_order();
        if stmts.len() >= MAX_STMTS {
            return None;
        }
        let last = &data.stmts[*stmts.last()?];
        let result = last.write();
        // The last statement must overwrite the whole result.
        if matches!(last.op, StmtOp::Scatter { .. })
            || rounds_of(result, last).is_none()
            || !matches!(self.program.buffers[result.buffer].storage, Storage::Temp)
        {
            return None;
        }
        let start = self.program.steps.iter().position(|s| *s == Step::Run(k))? + 1;
        for step in &self.program.steps[start..] {
            let Step::Run(c) = step else { continue };
            let consumer = &self.program.kernels[*c];
            if !consumer.touches(result.buffer) {
                continue;
            }
            let body = consumer.stmts_in_order();
            let [only] = body[..] else { return None };
            let stmt = &consumer.stmts[only];
            let elementwise = matches!(stmt.op, StmtOp::Map { .. } | StmtOp::Copy { .. });
            let same_box = stmt.dims.len() == last.dims.iter().filter(|d| d.name.starts_with('d')).count()
                && stmt.dims.iter().all(|d| last.dims.iter().any(|l| l.name == d.name && l.extent == d.extent));
            let pointwise = rounds_of(stmt.write(), stmt).is_some()
                && stmt.reads().iter().all(|read| {
                    writes_to(&self.program, k, read.buffer)
                        .all(|(write, by)| rounds_of(read, stmt).is_some_and(|at| rounds_of(write, by) == Some(at)))
                });
            // What the producer reads whole and the consumer overwrites, as a state of a scan, has to be read before.
            let written = stmt.write();
            let in_place = stmts.iter().all(|&s| {
                let by = &data.stmts[s];
                let mut others = by.accesses().into_iter().filter(|a| a.buffer == written.buffer);
                others.all(|a| rounds_of(a, by).is_some_and(|at| rounds_of(written, stmt) == Some(at)))
            });
            return (elementwise && same_box && pointwise && in_place).then(|| consumer.name.clone());
        }
        None
    }
}

/// The accesses with which a kernel writes a buffer, each with its statement.
fn writes_to(program: &Program, k: Kernel, buffer: Buffer) -> impl Iterator<Item = (&Access, &StmtData)> {
    let data = &program.kernels[k];
    let stmts = data.stmts_in_order().into_iter().map(move |s| &data.stmts[s]);
    stmts.map(|stmt| (stmt.write(), stmt)).filter(move |(write, _)| write.buffer == buffer)
}

/// Where in a buffer of rows a statement goes over one row point by point: the leading coordinates, which depend on the rounds
/// of repeats alone. Empty if it goes over the whole buffer, `None` if it does something else.
fn rounds_of<'a>(access: &'a Access, stmt: &StmtData) -> Option<&'a [Affine]> {
    let dims: Vec<usize> = (0..stmt.dims.len()).filter(|&i| stmt.dims[i].name.starts_with('d')).collect();
    let leading = access.index.len().checked_sub(dims.len())?;
    let (rounds, own) = access.index.split_at(leading);
    let in_order = own.iter().zip(&dims).all(|(e, &d)| {
        e.as_var() == Some(Var::Dim(d as u32)) || (stmt.dims[d].extent == 1 && *e == Affine::constant(0))
    });
    let moves = |e: &Affine| e.as_constant().is_none() && !(0..stmt.dims.len()).any(|d| e.uses(Var::Dim(d as u32)));
    (access.fill.is_none() && in_order && rounds.iter().all(moves)).then_some(rounds)
}
