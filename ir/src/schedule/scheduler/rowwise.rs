//! Kernels without contraction: reductions along rows, elementwise kernels, and the scalar loops of the lowest level.

use super::{Directive, Level, Refusal, ScheduleError, Scheduler, uses_dim};
use crate::tile::{StmtOp, Var};

/// Vectors per tile of an elementwise statement, and partial results of a reduction: enough to hide the latency of an addition.
const VECTORS_PER_TILE: u64 = 4;

/// Instructions of an expression from which a tile has one vector only, to keep straight-line code short.
const LONG_EXPRESSION: usize = 160;

/// Instructions of an expression from which a tile is a single point.
const ENDLESS_EXPRESSION: usize = 640;

impl Scheduler<'_> {
    /// Schedules statements without contraction: common outer dimensions become loops around all of them; each
    /// statement then gets vectors along its last dimension.
    pub(super) fn rowwise(&mut self, kernel: &str, stmts: &[String]) -> Result<(), ScheduleError> {
        let common = self.common_dims(kernel, stmts)?;
        let mut has_reduce = false;
        for s in stmts {
            has_reduce |= matches!(self.stmt(kernel, s)?.op, StmtOp::Reduce { .. });
        }
        // A reduction whose source is contiguous along a kept dimension runs in vectors of it; so do elementwise kernels.
        let inner = self.contiguous_dim(kernel, stmts, &common)?;
        let inner = match (inner, has_reduce) {
            (Some(dim), true) => self.contiguous_along(kernel, stmts, &dim)?.then_some(dim),
            (Some(dim), false) => Some(dim),
            (None, _) => None,
        };
        for dim in common.iter().filter(|&dim| inner.as_ref() != Some(dim)) {
            if !self.try_hoist(kernel, stmts, dim)? {
                return self.each_by_itself(kernel, stmts);
            }
        }
        match inner {
            Some(dim) => self.across(kernel, stmts, &dim),
            None => self.each_by_itself(kernel, stmts),
        }
    }

    /// Gives every statement loops of its own; nothing is shared.
    pub(super) fn each_by_itself(&mut self, kernel: &str, stmts: &[String]) -> Result<(), ScheduleError> {
        stmts.iter().try_for_each(|s| self.finish(kernel, s))
    }

    /// Like [`Scheduler::hoist`], where the statements may turn out not to run together (the parts of a concatenation write
    /// other places of one buffer in the same iteration); says whether they do.
    fn try_hoist(&mut self, kernel: &str, stmts: &[String], dim: &str) -> Result<bool, ScheduleError> {
        match self.hoist(kernel, stmts, dim) {
            Ok(()) => Ok(true),
            Err(ScheduleError::Refused { refusal: Refusal::Illegal(_), .. }) if stmts.len() > 1 => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes a dimension of extent above 1 a loop around statements.
    pub(super) fn hoist(&mut self, kernel: &str, stmts: &[String], dim: &str) -> Result<(), ScheduleError> {
        let extent = match stmts.first() {
            Some(s) => self.extent(kernel, s, dim)?.unwrap_or(1),
            None => 1,
        };
        if extent > 1 {
            self.split(kernel, stmts, dim, 1, &format!("i{dim}"))?;
        }
        Ok(())
    }

    /// Whether every reduction reads contiguously along a kept dimension rather than along what it reduces.
    fn contiguous_along(&self, kernel: &str, stmts: &[String], dim: &str) -> Result<bool, ScheduleError> {
        let data = self.data(kernel)?;
        for s in stmts {
            let stmt = self.stmt(kernel, s)?;
            let (StmtOp::Reduce { src, .. }, Some(d)) = (&stmt.op, stmt.dim_named(dim)) else { continue };
            let layout = &self.program.buffers[src.buffer].layout;
            let offset = layout.offset(&src.index, &|v| data.extent_of(stmt, v));
            if offset.coefficient(Var::Dim(d as u32)) != 1 || stmt.dims[d].extent < self.target.machine().lanes_f32() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs statements in tiles of a common dimension, so that what passes between them stays in registers.
    pub(super) fn across(&mut self, kernel: &str, stmts: &[String], dim: &str) -> Result<(), ScheduleError> {
        let lanes = self.target.machine().lanes_f32();
        let Some(first) = stmts.first() else { return Ok(()) };
        let extent = self.extent(kernel, first, dim)?.unwrap_or(1);
        let longest = self.longest_expression(kernel, stmts)?;
        let narrow = self.level == Level::Small || stmts.len() > 6 || longest > LONG_EXPRESSION;
        let tile = if longest > ENDLESS_EXPRESSION {
            1
        } else if narrow {
            lanes
        } else {
            lanes * VECTORS_PER_TILE
        };
        let size = if extent >= tile { tile } else { (extent / lanes * lanes).max(1) };
        let rest = match self.split_if_larger(kernel, stmts, dim, extent, size) {
            Err(ScheduleError::Refused { refusal: Refusal::Illegal(_), .. }) if stmts.len() > 1 => {
                return self.each_by_itself(kernel, stmts);
            }
            rest => rest?,
        };
        for s in stmts {
            self.finish_across(kernel, s, dim)?;
        }
        match rest {
            Some(rest) => self.across(kernel, &rest, dim),
            None => Ok(()),
        }
    }

    /// Most instructions of an expression of some statements.
    fn longest_expression(&self, kernel: &str, stmts: &[String]) -> Result<usize, ScheduleError> {
        let mut longest = 0;
        for s in stmts {
            if let StmtOp::Map { value, .. } = &self.stmt(kernel, s)?.op {
                longest = longest.max(value.insts.len());
            }
        }
        Ok(longest)
    }

    fn split_if_larger(
        &mut self,
        kernel: &str,
        stmts: &[String],
        dim: &str,
        extent: u64,
        size: u64,
    ) -> Result<Option<Vec<String>>, ScheduleError> {
        if extent > size { self.split(kernel, stmts, dim, size, "j") } else { Ok(None) }
    }

    /// Reduced dimensions of one statement become loops; the common dimension is executed in vectors.
    fn finish_across(&mut self, kernel: &str, stmt: &str, dim: &str) -> Result<(), ScheduleError> {
        let data = self.stmt(kernel, stmt)?;
        // A reduction over nothing combines single elements, point by point.
        let reduces = matches!(data.op, StmtOp::Reduce { .. })
            && !data.dims.is_empty()
            && !uses_dim(&data.write().index, data.dims.len() - 1);
        if !reduces {
            self.loops_over_rest(kernel, stmt, dim)?;
            self.try_vectorize(kernel, stmt, dim);
            return Ok(());
        }
        self.apply(Directive::Rfactor { kernel: kernel.to_owned(), stmt: stmt.to_owned(), lanes: 1 })?;
        self.try_vectorize(kernel, &format!("{stmt}_zero"), dim);
        let acc = format!("{stmt}_acc");
        self.loops_over_rest(kernel, &acc, dim)?;
        self.try_vectorize(kernel, &acc, dim);
        Ok(())
    }

    /// Every dimension of a statement but one becomes a loop, outermost first.
    fn loops_over_rest(&mut self, kernel: &str, stmt: &str, keep: &str) -> Result<(), ScheduleError> {
        let dims: Vec<(String, u64)> =
            self.stmt(kernel, stmt)?.dims.iter().map(|d| (d.name.clone(), d.extent)).collect();
        for (dim, extent) in dims {
            if dim != keep && extent > 1 {
                self.split(kernel, &[stmt.to_owned()], &dim, 1, &format!("i{dim}"))?;
            }
        }
        Ok(())
    }

    /// Gives one statement, whose common dimensions are loops already, a nest of its own.
    pub(super) fn finish(&mut self, kernel: &str, stmt: &str) -> Result<(), ScheduleError> {
        let lanes = self.target.machine().lanes_f32();
        let data = self.stmt(kernel, stmt)?;
        let Some(last) = data.dims.last().cloned() else { return Ok(()) };
        if matches!(data.op, StmtOp::Reduce { .. }) {
            let reduced = !uses_dim(&data.write().index, data.dims.len() - 1);
            if data.points() == 1 || !reduced {
                return self.loops_over_rest(kernel, stmt, "");
            }
            let wide = lanes * if self.level == Level::Small { 1 } else { VECTORS_PER_TILE };
            let partials = [wide, lanes].into_iter().find(|&p| last.extent >= p).unwrap_or(1);
            self.apply(Directive::Rfactor { kernel: kernel.to_owned(), stmt: stmt.to_owned(), lanes: partials })?;
            self.try_vectorize(kernel, &format!("{stmt}_zero"), "l");
            let tail = (last.extent % partials > 0).then(|| format!("{stmt}_acc_t"));
            for acc in std::iter::once(format!("{stmt}_acc")).chain(tail) {
                self.loops_over_rest(kernel, &acc, "l")?;
                self.try_vectorize(kernel, &acc, "l");
            }
            return Ok(());
        }
        let dims: Vec<String> = data.dims.iter().map(|d| d.name.clone()).collect();
        // Points that depend on each other keep their order.
        let inner = if data.carries() { None } else { self.contiguous_dim(kernel, &[stmt.to_owned()], &dims)? };
        let inner = inner.unwrap_or(last.name);
        self.loops_over_rest(kernel, stmt, &inner)?;
        self.across(kernel, &[stmt.to_owned()], &inner)
    }

    /// Plain loops around one statement: every dimension, one point at a time.
    pub(super) fn scalar_loops(&mut self, kernel: &str, stmt: &str) -> Result<(), ScheduleError> {
        let data = self.stmt(kernel, stmt)?;
        let reduces = matches!(data.op, StmtOp::Reduce { .. })
            && data.dims.iter().any(|d| d.name.starts_with('k') && d.extent > 1)
            && !uses_dim(&data.write().index, data.dims.len() - 1);
        if !reduces {
            return self.loops_over_rest(kernel, stmt, "");
        }
        let kept: Vec<String> =
            data.dims.iter().filter(|d| d.name.starts_with('d') && d.extent > 1).map(|d| d.name.clone()).collect();
        for dim in kept {
            self.split(kernel, &[stmt.to_owned()], &dim, 1, &format!("i{dim}"))?;
        }
        self.apply(Directive::Rfactor { kernel: kernel.to_owned(), stmt: stmt.to_owned(), lanes: 1 })?;
        self.loops_over_rest(kernel, &format!("{stmt}_acc"), "l")
    }
}
