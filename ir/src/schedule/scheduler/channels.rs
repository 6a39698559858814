//! Second phase: how images are stored.
//!
//! What convolutions read and write is stored channels last, `[N, C, H, W]` as `(0)(2)(3)(1)`: then the channels fill the vectors
//! of every kernel on the way, whatever the stride, the window and the size of the image, and a convolution is a matrix
//! product whose rows are neighbouring points. Windows that reach beyond the image get a border there ([`Directive::Pad`]).

use std::collections::BTreeSet;

use super::{Directive, ScheduleError, Scheduler, uses_dim};
use crate::schedule::Operand;
use crate::tile::{Access, Atom, Buffer, KernelData, Layout, Scalar, Step, StmtData, StmtOp, Storage, Var};

/// Fewest output channels of a convolution that runs by channels.
const MIN_CHANNELS: u64 = 4;

/// The axis of channels in images and weights.
const CHANNELS: usize = 1;

impl Scheduler<'_> {
    /// Chooses layouts and borders of images.
    pub(super) fn images(&mut self) -> Result<(), ScheduleError> {
        for kernel in self.kernel_names() {
            let data = self.data(&kernel)?;
            let mut stmts: Vec<String> = data.stmts_in_order().iter().map(|&s| data.stmts[s].name.clone()).collect();
            if self.convolution_of(data).is_some() {
                self.stage_accumulator(&kernel, &mut stmts)?;
            }
        }
        for b in self.images_by_channels() {
            let info = &self.program.buffers[b];
            let mut order: Vec<usize> = (0..info.shape.len()).collect();
            order.remove(CHANNELS);
            order.push(CHANNELS);
            let (buffer, layout) = (info.name.clone(), Layout::permuted(&info.shape, &order));
            self.apply(Directive::Layout { buffer, layout })?;
        }
        self.borders()
    }

    /// The temporaries that are stored channels last.
    fn images_by_channels(&self) -> BTreeSet<Buffer> {
        let mut chosen = BTreeSet::new();
        for step in &self.program.steps {
            let Step::Run(k) = step else { continue };
            let data = &self.program.kernels[*k];
            let stmts: Vec<&StmtData> = data.stmts_in_order().iter().map(|&s| &data.stmts[s]).collect();
            let Some(last) = stmts.last() else { continue };
            let rank = self.program.buffers[last.write().buffer].shape.len();
            let mut found = Vec::new();
            if let Some((mma, x)) = self.convolution_of(data) {
                let image = if x == Operand::A { mma.accesses()[1] } else { mma.accesses()[2] };
                found.push(image.buffer);
            } else if !stmts.iter().any(|s| s.reads().iter().any(|a| chosen.contains(&a.buffer))) {
                continue;
            }
            found.extend(stmts.iter().filter(|s| keeps_channels(s)).map(|s| s.write().buffer));
            let image = |b: &Buffer| {
                let info = &self.program.buffers[*b];
                info.shape.len() == rank.max(3)
                    && info.storage == Storage::Temp
                    && info.layout.is_row_major(&info.shape)
                    && !self.is_divided(*b)
            };
            chosen.extend(found.into_iter().filter(image));
        }
        chosen
    }

    /// Whether some kernel other than a convolution reads or writes a buffer at divided coordinates: a view that wants
    /// the elements in the order of the model.
    fn is_divided(&self, b: Buffer) -> bool {
        self.program.steps.iter().any(|step| {
            let Step::Run(k) = step else { return false };
            let data = &self.program.kernels[*k];
            let divided = |a: &&Access| {
                let divides = |atom: &Atom| matches!(atom, Atom::FloorDiv(..) | Atom::Mod(..));
                a.buffer == b && a.index.iter().any(|e| e.terms().iter().any(|(atom, _)| divides(atom)))
            };
            data.touches(b)
                && self.convolution_of(data).is_none()
                && data.stmts_in_order().iter().any(|&s| data.stmts[s].accesses().iter().any(divided))
        })
    }

    /// The contraction of a kernel that is a convolution (a matrix product of constant weights and an image is one), and which
    /// operand the image is.
    fn convolution_of<'k>(&self, data: &'k KernelData) -> Option<(&'k StmtData, Operand)> {
        let mut all = data.stmts_in_order().into_iter().map(|s| &data.stmts[s]);
        let mma = all.find(|s| matches!(s.op, StmtOp::Mma { .. }))?;
        if all.any(|s| matches!(s.op, StmtOp::Mma { .. })) {
            return None;
        }
        Some((mma, self.image_of(mma)?))
    }

    /// The operand of a contraction that is an image: the weights are constant and move with the channels of the result, but
    /// with no other of its dimensions; the image moves with all others.
    fn image_of(&self, stmt: &StmtData) -> Option<Operand> {
        let StmtOp::Mma { acc, a, b, .. } = &stmt.op else { return None };
        if acc.index.len() < 3 {
            return None;
        }
        let channel = stmt.dim_named("d1")?;
        if stmt.dims[channel].extent < MIN_CHANNELS {
            return None;
        }
        let others = || {
            let kept = |&d: &usize| stmt.dims[d].name.starts_with('d') && stmt.dims[d].extent > 1;
            (0..stmt.dims.len()).filter(kept).filter(move |&d| d != channel)
        };
        let fits = |image: &Access, weights: &Access| {
            matches!(self.program.buffers[weights.buffer].storage, Storage::Const(_))
                && !matches!(self.program.buffers[image.buffer].storage, Storage::Const(_))
                && uses_dim(&weights.index, channel)
                && others().all(|d| uses_dim(&image.index, d) && !uses_dim(&weights.index, d))
        };
        match (fits(a, b), fits(b, a)) {
            (true, _) => Some(Operand::A),
            (false, true) => Some(Operand::B),
            (false, false) => None,
        }
    }

    /// The dimension of channels, if a contraction is a convolution and its sums, its result, or what it reads, has them side
    /// by side.
    pub(super) fn channels_are_columns(
        &self,
        kernel: &str,
        stmts: &[String],
        mma: &StmtData,
    ) -> Result<Option<usize>, ScheduleError> {
        let (Some(image), Some(d), Some(last)) = (self.image_of(mma), mma.dim_named("d1"), stmts.last()) else {
            return Ok(None);
        };
        let common = self.common_dims(kernel, stmts)?;
        if !common.iter().any(|name| name == "d1") {
            return Ok(None);
        }
        let (data, last) = (self.data(kernel)?, self.stmt(kernel, last)?);
        let step = |stmt: &StmtData, access: &Access, d: usize| {
            let layout = &self.program.buffers[access.buffer].layout;
            let offset = layout.offset(&access.index, &|v| data.extent_of(stmt, v));
            offset.coefficient(Var::Dim(d as u32))
        };
        let read = mma.accesses()[if image == Operand::A { 1 } else { 2 }];
        let reduced = mma.dims.iter().rposition(|d| d.name.starts_with('k'));
        let result = last.dim_named("d1").map(|d| step(last, last.write(), d));
        let side_by_side = result == Some(1)
            || step(mma, mma.write(), d) == 1
            || step(mma, read, d) == 1
            || reduced.is_some_and(|k| step(mma, read, k) == 1);
        Ok(side_by_side.then_some(d))
    }

    /// Gives temporaries that windows reach beyond a border with the value that is read there.
    fn borders(&mut self) -> Result<(), ScheduleError> {
        // Few buffers are read beyond their border, and looking at one takes a walk over the program.
        let mut buffers = BTreeSet::new();
        for step in &self.program.steps {
            let Step::Run(k) = step else { continue };
            for stmt in self.program.kernels[*k].stmts.values() {
                buffers.extend(stmt.reads().into_iter().filter(|a| a.fill.is_some()).map(|a| a.buffer));
            }
        }
        for b in buffers {
            let Some((border, value)) = self.border_of(b) else { continue };
            let buffer = self.program.buffers[b].name.clone();
            // Refused where readers want different values: then each makes a copy of its own.
            let _stays = self.attempt(Directive::Pad { buffer, border, value });
        }
        Ok(())
    }

    /// How far reads reach beyond a temporary, for each axis, and the value there; `None` if they do not.
    fn border_of(&self, b: Buffer) -> Option<(Vec<(u64, u64)>, Scalar)> {
        let info = &self.program.buffers[b];
        if info.storage != Storage::Temp {
            return None;
        }
        let mut border = vec![(0, 0); info.shape.len()];
        let mut value = None;
        for step in &self.program.steps {
            let Step::Run(k) = step else { continue };
            let data = &self.program.kernels[*k];
            for s in data.stmts_in_order() {
                let stmt = &data.stmts[s];
                for access in stmt.reads().into_iter().filter(|a| a.buffer == b && a.fill.is_some()) {
                    value = access.fill;
                    for ((index, &size), (before, after)) in access.index.iter().zip(&info.shape).zip(&mut border) {
                        let (low, high) = index.range(&|v| data.extent_of(stmt, v));
                        *before = (*before).max(low.min(0).unsigned_abs());
                        *after = (*after).max((high + 1 - size as i64).max(0) as u64);
                    }
                }
            }
        }
        // A border that is larger than what it surrounds is not worth its memory.
        let small = border.iter().zip(&info.shape).all(|(&(before, after), &size)| before + after <= size.max(8));
        value.filter(|_| small && border.iter().any(|&x| x != (0, 0))).map(|value| (border, value))
    }
}

/// Whether a statement writes its own dimensions in order, so that its `d1` are channels.
fn keeps_channels(stmt: &StmtData) -> bool {
    let index = &stmt.write().index;
    index.get(CHANNELS).is_some_and(|e| {
        let d = stmt.dim_named("d1");
        d.is_some_and(|d| e.as_var() == Some(Var::Dim(d as u32)) || stmt.dims[d].extent == 1)
    })
}
