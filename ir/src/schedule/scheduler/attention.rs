//! Kernels with several contractions around row operations: attention.
//!
//! ```text
//! loop b, h                         every dimension that all statements share, but the last
//!   copy kᵀ                         operands that are strided along the columns, once per head
//!   loop i                          a few rows: their whole score rows stay in scratch memory
//!     loop j { scores = scale · q kᵀ + bias }
//!     loop row { max; exp; sum }
//!     loop e { out = (p v) / sum }
//! ```
//!
//! The score row is resident, and softmax is computed as written; there is no online rescaling.

use super::{ScheduleError, Scheduler};
use crate::tile::StmtOp;

/// Rows of scores that are resident at once: what the register tile of the products needs.
const ROWS: u64 = 4;

/// The same where a micro-kernel computes the products.
const INTRINSIC_ROWS: u64 = 8;

/// A run of statements that is scheduled as one piece.
enum Segment {
    /// An initialization, a contraction and its epilogue.
    Contraction(Vec<String>),
    /// Row operations.
    Rows(Vec<String>),
}

impl Scheduler<'_> {
    /// Schedules a kernel with several contractions.
    pub(super) fn attention(&mut self, kernel: &str, stmts: &[String]) -> Result<(), ScheduleError> {
        let common = self.common_dims(kernel, stmts)?;
        let Some((rows, batch)) = common.split_last() else {
            return stmts.iter().try_for_each(|s| self.finish(kernel, s));
        };
        for dim in batch {
            self.hoist(kernel, stmts, dim)?;
        }
        for segment in self.segments(kernel, stmts)? {
            if let Segment::Contraction(group) = segment
                && let Some(c) = self.analyze(kernel, &group)?
            {
                self.prepare_operands(kernel, &c)?;
            }
        }
        let extent = match stmts.first() {
            Some(s) => self.extent(kernel, s, rows)?.unwrap_or(1),
            None => 1,
        };
        let at_once = if self.target.intrinsics().is_empty() { ROWS } else { INTRINSIC_ROWS };
        let mut groups = vec![stmts.to_vec()];
        if extent > at_once {
            groups.extend(self.split(kernel, stmts, rows, at_once, "i")?);
        }
        for group in groups {
            for segment in self.segments(kernel, &group)? {
                match segment {
                    Segment::Contraction(group) => match self.analyze(kernel, &group)? {
                        Some(c) => self.register_tiles(kernel, &group, &c, &[])?,
                        None => group.iter().try_for_each(|s| self.finish(kernel, s))?,
                    },
                    Segment::Rows(group) => self.rowwise(kernel, &group)?,
                }
            }
        }
        Ok(())
    }

    /// Cuts the statements into contractions with their epilogues, and the row operations between them.
    fn segments(&self, kernel: &str, stmts: &[String]) -> Result<Vec<Segment>, ScheduleError> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut i = 0;
        while i < stmts.len() {
            let starts = match stmts.get(i + 1) {
                Some(next) => matches!(self.stmt(kernel, next)?.op, StmtOp::Mma { .. }),
                None => false,
            };
            if !starts {
                match segments.last_mut() {
                    Some(Segment::Rows(group)) => group.push(stmts[i].clone()),
                    Some(Segment::Contraction(_)) | None => segments.push(Segment::Rows(vec![stmts[i].clone()])),
                }
                i += 1;
                continue;
            }
            let mut group = vec![stmts[i].clone(), stmts[i + 1].clone()];
            i += 2;
            while i < stmts.len() && self.is_epilogue(kernel, &group, &stmts[i])? {
                group.push(stmts[i].clone());
                i += 1;
            }
            segments.push(Segment::Contraction(group));
        }
        Ok(segments)
    }

    /// Whether a statement continues a contraction point by point.
    fn is_epilogue(&self, kernel: &str, group: &[String], name: &str) -> Result<bool, ScheduleError> {
        let Some(first) = group.first() else { return Ok(false) };
        let init = self.stmt(kernel, first)?;
        let stmt = self.stmt(kernel, name)?;
        let mut written = Vec::new();
        for s in group {
            written.push(self.stmt(kernel, s)?.write().buffer);
        }
        let reads = stmt.reads().iter().any(|a| written.contains(&a.buffer));
        Ok(reads && matches!(stmt.op, StmtOp::Map { .. } | StmtOp::Copy { .. }) && stmt.dims == init.dims)
    }
}
