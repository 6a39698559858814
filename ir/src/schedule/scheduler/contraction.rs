//! Kernels with one contraction: matrix products and convolutions, with their epilogues.
//!
//! ```text
//! loop batch …                    every dimension but two
//!   copy padded = input           convolutions: the border is written once, the inner tile sees full boxes
//!   loop j                        columns, in panels of the right operand: a panel stays in the nearest cache
//!     loop i                      rows
//!       map acc = 0               m × n, registers
//!       loop p                    the reduced dimension
//!         mma acc += a b
//!       map y = f(acc + bias)     the epilogue, from registers
//! ```
//!
//! Columns are outside rows because in students the weights are larger than the activations: each panel is read from memory
//! once, and the activations stay in the second-level cache.

use super::tiles::register_tile;
use super::{Directive, Level, ScheduleError, Scheduler, uses_dim};
use crate::machine::Intrinsic;
use crate::schedule::Operand;
use crate::tile::{Access, Atom, Buffer, Layout, StmtData, StmtOp, Storage, Var};

/// Most multiply-adds of one tile in straight-line code.
const MAX_TILE_MACS: u64 = 160;

/// Steps of the reduced dimension in one tile: amortizes the loop's own instructions.
const REDUCED_STEPS: u64 = 4;

/// Most instructions of a statement of an epilogue that is repeated for all of a register tile.
const MAX_EPILOGUE: u64 = 2048;

/// Fewest steps of the reduced dimension that a micro-kernel is called for.
const MIN_INTRINSIC_DEPTH: u64 = 8;

/// What the template needs to know about a contraction.
pub(super) struct Contraction {
    /// The statement's name.
    pub mma: String,
    /// The operand that is loaded in vectors.
    pub vector: Operand,
    /// Name and extent of the dimension that is executed in vectors.
    pub columns: (String, u64),
    /// Name and extent of the other dimension of the register tile.
    pub rows: Option<(String, u64)>,
    /// The micro-kernel that executes full tiles, if the target has one for this contraction.
    pub intrinsic: Option<Intrinsic>,
    /// Whether the columns are the channels of an image.
    pub by_channels: bool,
}

impl Scheduler<'_> {
    /// Schedules a kernel with one contraction.
    pub(super) fn contraction(&mut self, kernel: &str, names: &[String]) -> Result<(), ScheduleError> {
        let mut stmts = names.to_vec();
        self.stage_accumulator(kernel, &mut stmts)?;
        let Some(c) = self.analyze(kernel, &stmts)? else {
            return self.each_by_itself(kernel, &stmts);
        };
        let common = self.common_dims(kernel, &stmts)?;
        let in_tile = |d: &String| *d == c.columns.0 || c.rows.as_ref().is_some_and(|r| r.0 == *d);
        // The images of a batch come one by one, so that the padded copy is of one image.
        let (batch, rest): (Vec<_>, Vec<_>) = common.iter().filter(|d| !in_tile(d)).cloned().partition(|d| d == "d0");
        for dim in &batch {
            self.hoist(kernel, &stmts, dim)?;
        }
        let c = self.split_groups(kernel, &stmts, c)?;
        self.prepare_operands(kernel, &c)?;
        if self.columns_outermost(kernel, &c)? {
            return self.register_tiles(kernel, &stmts, &c, &rest);
        }
        for dim in &rest {
            self.hoist(kernel, &stmts, dim)?;
        }
        self.register_tiles(kernel, &stmts, &c, &[])
    }

    /// Makes the groups of a convolution a loop, so that all columns read the same channels.
    fn split_groups(&mut self, kernel: &str, stmts: &[String], c: Contraction) -> Result<Contraction, ScheduleError> {
        let stmt = self.stmt(kernel, &c.mma)?;
        let Some(d) = stmt.dim_named(&c.columns.0).filter(|_| c.by_channels) else { return Ok(c) };
        let width =
            stmt.reads().into_iter().flat_map(|a| &a.index).flat_map(|e| e.terms()).find_map(|(atom, _)| match atom {
                Atom::FloorDiv(e, width) if e.as_var() == Some(Var::Dim(d as u32)) => Some(*width as u64),
                Atom::FloorDiv(..) | Atom::Mod(..) | Atom::Var(_) => None,
            });
        let Some(width) = width.filter(|&w| w < c.columns.1) else { return Ok(c) };
        self.split(kernel, stmts, &c.columns.0, width, "g")?;
        Ok(self.analyze(kernel, stmts)?.unwrap_or(c))
    }

    /// Whether panels of columns are the outermost loop, around the lines of an image: then each panel of weights is read once
    /// and the image once for each panel. Else it is the other way round, which is better for an image that no
    /// cache holds.
    fn columns_outermost(&self, kernel: &str, c: &Contraction) -> Result<bool, ScheduleError> {
        let StmtOp::Mma { a, b, .. } = &self.stmt(kernel, &c.mma)?.op else { return Ok(false) };
        let (moving, still) = if c.vector == Operand::A { (a, b) } else { (b, a) };
        let bytes = |access: &Access| self.program.buffers[access.buffer].bytes();
        let memory = &self.target.machine().memory;
        let cache = memory.iter().filter(|l| l.bytes > 0).map(|l| l.bytes).max().unwrap_or(u64::MAX);
        Ok(c.by_channels && (bytes(still) <= cache / 2 || bytes(moving) > cache / 2))
    }

    /// Lets the contraction accumulate in a temporary of this kernel, if its accumulator is not one.
    pub(super) fn stage_accumulator(&mut self, kernel: &str, stmts: &mut Vec<String>) -> Result<(), ScheduleError> {
        let Some(mma) = self.find_mma(kernel, stmts)? else { return Ok(()) };
        let acc = self.stmt(kernel, &mma)?.write().buffer;
        if self.is_private(kernel, acc)? {
            return Ok(());
        }
        let mut group = Vec::new();
        for s in stmts.iter() {
            let stmt = self.stmt(kernel, s)?;
            if stmt.write().buffer == acc {
                group.push(s.clone());
            } else if stmt.touches(acc) {
                break;
            }
        }
        let Some(last) = group.last().cloned() else { return Ok(()) };
        let buffer = self.program.buffers[acc].name.clone();
        let into = format!("{kernel}_acc");
        let staged = self.attempt(Directive::Stage { kernel: kernel.to_owned(), stmts: group, buffer, into });
        if staged.is_ok()
            && let Some(at) = stmts.iter().position(|s| *s == last)
        {
            stmts.insert(at + 1, format!("{last}_store"));
        }
        Ok(())
    }

    /// Whether a buffer is a temporary of this kernel alone.
    fn is_private(&self, kernel: &str, buffer: Buffer) -> Result<bool, ScheduleError> {
        let name = &self.data(kernel)?.name;
        let elsewhere = self.program.steps.iter().any(|step| match step {
            crate::tile::Step::Run(k) => {
                let data = &self.program.kernels[*k];
                data.touches(buffer) && data.name != *name
            }
            crate::tile::Step::Check { buffer: b, .. } => *b == buffer,
            crate::tile::Step::Repeat { .. } | crate::tile::Step::End => false,
        });
        Ok(!elsewhere && matches!(self.program.buffers[buffer].storage, Storage::Temp))
    }

    fn find_mma(&self, kernel: &str, stmts: &[String]) -> Result<Option<String>, ScheduleError> {
        for s in stmts {
            if matches!(self.stmt(kernel, s)?.op, StmtOp::Mma { .. }) {
                return Ok(Some(s.clone()));
            }
        }
        Ok(None)
    }

    /// Finds the roles of the dimensions; `None` if the statements do not share the result's dimensions.
    pub(super) fn analyze(&self, kernel: &str, stmts: &[String]) -> Result<Option<Contraction>, ScheduleError> {
        let Some(mma) = self.find_mma(kernel, stmts)? else { return Ok(None) };
        let common = self.common_dims(kernel, stmts)?;
        let stmt = self.stmt(kernel, &mma)?;
        let StmtOp::Mma { a, b, .. } = &stmt.op else { return Ok(None) };
        let channels = self.channels_are_columns(kernel, stmts, stmt)?;
        let columns = channels.or_else(|| common.last().and_then(|name| stmt.dim_named(name)));
        let Some(columns) = columns else { return Ok(None) };
        // The operand that varies along the columns is loaded in vectors; if both do, or none, the right one.
        let vector = if uses_dim(&a.index, columns) && !uses_dim(&b.index, columns) { Operand::A } else { Operand::B };
        let (moving, still) = match vector {
            Operand::A => (a, b),
            Operand::B => (b, a),
        };
        let candidates: Vec<usize> = common
            .iter()
            .filter_map(|name| stmt.dim_named(name))
            .filter(|&d| d != columns && stmt.dims[d].extent > 1)
            .collect();
        // Rows best reuse what is loaded in vectors; else they reuse the broadcasts.
        let rows = candidates
            .iter()
            .rev()
            .find(|&&d| !uses_dim(&moving.index, d))
            .or_else(|| candidates.iter().rev().find(|&&d| !uses_dim(&still.index, d)));
        let named = |d: usize| (stmt.dims[d].name.clone(), stmt.dims[d].extent);
        let intrinsic = self.intrinsic_for(stmt, stmt.dims[columns].extent);
        let (columns, rows, by_channels) = (named(columns), rows.map(|&d| named(d)), channels.is_some());
        Ok(Some(Contraction { mma, vector, columns, rows, intrinsic, by_channels }))
    }

    /// A micro-kernel for a contraction: enough steps to pay for loading and storing the accumulators, and columns that fill a
    /// vector, or a good part of it where rests are masked.
    fn intrinsic_for(&self, stmt: &StmtData, columns: u64) -> Option<Intrinsic> {
        let StmtOp::Mma { acc, a, b, fused: true } = &stmt.op else { return None };
        let depth: u64 = stmt.dims.iter().filter(|d| d.name.starts_with('k')).map(|d| d.extent).product();
        let suits = |i: &&Intrinsic| {
            let accesses = [acc, a, b];
            depth >= MIN_INTRINSIC_DEPTH
                && (columns >= i.unit.lanes || (i.unit.masked && columns > i.unit.lanes / 2))
                && accesses.iter().all(|x| self.program.buffers[x.buffer].dtype == i.dtype)
        };
        if self.level == Level::Small { None } else { self.target.intrinsics().iter().find(suits).copied() }
    }

    /// Makes the operands what the inner tile needs: constants in panels, strided ones transposed, padded ones padded.
    pub(super) fn prepare_operands(&mut self, kernel: &str, c: &Contraction) -> Result<(), ScheduleError> {
        let lanes = self.target.machine().lanes_f32();
        for operand in [Operand::A, Operand::B] {
            let stmt = self.stmt(kernel, &c.mma)?;
            let Some(access) = operand_access(stmt, operand).cloned() else { continue };
            let info = &self.program.buffers[access.buffer];
            let Some(d) = stmt.dim_named(&c.columns.0) else { continue };
            let var = Var::Dim(d as u32);
            let data = self.data(kernel)?;
            let offset = info.layout.offset(&access.index, &|v| data.extent_of(stmt, v));
            let strided = operand == c.vector && c.columns.1 >= lanes && offset.coefficient(var) > 1;
            let axis = access.index.iter().position(|e| e.as_var() == Some(var));
            if access.fill.is_none() && !(strided && axis.is_some()) {
                self.panels(kernel, c, operand)?;
                continue;
            }
            if matches!(info.storage, Storage::Const(_)) && access.fill.is_none() {
                self.panels(kernel, c, operand)?;
                continue;
            }
            // A private copy: contiguous along the columns, and with its border filled in.
            let rank = access.index.len();
            let mut order: Vec<usize> = (0..rank).collect();
            if strided && let Some(axis) = axis {
                order.retain(|&x| x != axis);
                order.push(axis);
            }
            let (_, around) = data.locate(self.handle(kernel, &c.mma)?).unwrap_or_default();
            let at = around.last().map(|&l| data.loops[l].name.clone());
            let into = format!("{kernel}_{}_{}", c.mma, if operand == Operand::A { "a" } else { "b" });
            let (kernel_name, mma) = (kernel.to_owned(), c.mma.clone());
            self.apply(Directive::Cache { kernel: kernel_name, stmt: mma, operand, at, into, order })?;
            for part in ["fill", "copy"].map(|part| format!("{}_{part}", c.mma)) {
                if self.data(kernel)?.stmt_named(&part).is_some() {
                    self.finish(kernel, &part)?;
                }
            }
        }
        Ok(())
    }

    /// Stores a constant that is loaded in vectors in panels as wide as the register tile; and where multiply-adds take lanes,
    /// the other operand in panels as high as it.
    fn panels(&mut self, kernel: &str, c: &Contraction, operand: Operand) -> Result<(), ScheduleError> {
        let (m, n) = self.tile_of(c);
        let (dim, block) = match &c.rows {
            _ if operand == c.vector => (&c.columns.0, n),
            Some((rows, _)) if self.target.machine().mac_by_lane => (rows, m),
            _ => return Ok(()),
        };
        let stmt = self.stmt(kernel, &c.mma)?;
        let (Some(access), Some(d)) = (operand_access(stmt, operand), stmt.dim_named(dim)) else {
            return Ok(());
        };
        let info = &self.program.buffers[access.buffer];
        let var = Var::Dim(d as u32);
        let axis = access.index.iter().position(|e| e.coefficient(var) == 1 && e.is_linear());
        let (Some(axis), true) = (axis, matches!(info.storage, Storage::Const(_))) else {
            return Ok(());
        };
        let uses: usize = self
            .program
            .kernels
            .values()
            .map(|k| k.stmts_in_order().iter().filter(|&&s| k.stmts[s].touches(access.buffer)).count())
            .sum();
        // Where columns start inside (a group of a convolution), a panel is what they reach.
        let inside = operand == c.vector && access.index[axis].as_var() != Some(var);
        let block = if inside { c.columns.1 } else { block };
        if uses > 1 || block < 2 || !info.layout.is_row_major(&info.shape) {
            return Ok(());
        }
        // What is reduced last lies next to the columns.
        let mut inner: Vec<usize> = (0..info.shape.len()).filter(|&x| x != axis).collect();
        inner.sort_by_key(|&x| (0..stmt.dims.len()).rfind(|&d| access.index[x].uses(Var::Dim(d as u32))));
        let layout = Layout::panels(&info.shape, axis, block, &inner);
        let buffer = info.name.clone();
        self.apply(Directive::Layout { buffer, layout })
    }

    /// Rows and columns of the register tile.
    fn tile_of(&self, c: &Contraction) -> (u64, u64) {
        let rows = c.rows.as_ref().map_or(1, |r| r.1);
        if let Some(intrinsic) = &c.intrinsic {
            let tile = register_tile(&intrinsic.unit, rows, c.columns.1);
            return (tile.m.min(intrinsic.max_rows), tile.n);
        }
        let tile = register_tile(&self.target.machine().mac_unit(), rows, c.columns.1);
        match self.level {
            Level::Small => (tile.m.min(2), tile.n.min(8)),
            Level::Naive | Level::Tiled | Level::Full => (tile.m, tile.n),
        }
    }

    /// Tiles columns, then rows, then the reduced dimensions, with peeled rests; the dimensions `inside` become loops between
    /// columns and rows.
    pub(super) fn register_tiles(
        &mut self,
        kernel: &str,
        stmts: &[String],
        c: &Contraction,
        inside: &[String],
    ) -> Result<(), ScheduleError> {
        let (m, n) = self.tile_of(c);
        let lanes = self.target.machine().lanes_f32();
        let mut pending = vec![stmts.to_vec()];
        while let Some(group) = pending.pop() {
            let extent = match group.first() {
                Some(s) => self.extent(kernel, s, &c.columns.0)?.unwrap_or(1),
                None => continue,
            };
            let wide = c.intrinsic.map_or(lanes, |i| i.unit.lanes);
            let step = if extent >= wide { wide } else { lanes };
            let size = if extent >= n {
                n
            } else if c.intrinsic.is_some_and(|i| i.unit.masked) {
                extent
            } else {
                (extent / step * step).max(extent.min(lanes - 1))
            };
            if extent > size {
                pending.extend(self.split(kernel, &group, &c.columns.0, size, "j")?);
            }
            for dim in inside {
                self.hoist(kernel, &group, dim)?;
            }
            self.row_tiles(kernel, &group, c, m)?;
        }
        Ok(())
    }

    fn row_tiles(&mut self, kernel: &str, stmts: &[String], c: &Contraction, m: u64) -> Result<(), ScheduleError> {
        let mut groups = vec![stmts.to_vec()];
        if let (Some((rows, _)), Some(first)) = (&c.rows, stmts.first()) {
            let extent = self.extent(kernel, first, rows)?.unwrap_or(1);
            if extent > m {
                groups.extend(self.split(kernel, stmts, rows, m, "i")?);
            }
        }
        for group in groups {
            let mut epilogue = Vec::new();
            let mut by_intrinsic = false;
            let mut after = Vec::new();
            let mut accumulated = false;
            for (i, s) in group.iter().cloned().enumerate() {
                if matches!(self.stmt(kernel, &s)?.op, StmtOp::Mma { .. }) {
                    by_intrinsic = self.try_intrinsic(kernel, &s, c);
                    if by_intrinsic && i > 0 {
                        // Refused where the sums do not start from zero.
                        self.try_intrinsic(kernel, &group[i - 1], c);
                    }
                    if !by_intrinsic {
                        self.reduced_loops(kernel, &s, &c.columns.0)?;
                    }
                    accumulated = true;
                } else if by_intrinsic {
                    epilogue.push(s);
                } else if accumulated {
                    after.push(s);
                } else {
                    self.try_vectorize(kernel, &s, &c.columns.0);
                }
            }
            // What is too long to be repeated for all of the tile takes the sums from memory, as after a micro-kernel.
            if self.straight_line(kernel, &after, &c.columns.0)? > MAX_EPILOGUE {
                epilogue.append(&mut after);
            }
            for s in &after {
                self.try_vectorize(kernel, s, &c.columns.0);
            }
            if let Some((rows, _)) = &c.rows {
                self.long_epilogue(kernel, &after, rows)?;
            }
            // A micro-kernel's tile is larger than what the code generator's registers hold: its epilogue runs in rows of it.
            if let (Some((rows, _)), Some(_)) = (&c.rows, epilogue.first()) {
                self.hoist(kernel, &epilogue, rows)?;
            }
            if !epilogue.is_empty() {
                self.across(kernel, &epilogue, &c.columns.0)?;
            }
        }
        Ok(())
    }

    /// Instructions of the longest of some statements on a whole tile, executed in vectors of columns that fill them.
    fn straight_line(&self, kernel: &str, stmts: &[String], columns: &str) -> Result<u64, ScheduleError> {
        let lanes = self.target.machine().lanes_f32();
        let mut longest = 0;
        for s in stmts {
            let stmt = self.stmt(kernel, s)?;
            let StmtOp::Map { value, .. } = &stmt.op else { continue };
            let fills = |d: usize| stmt.dims[d].extent.is_multiple_of(lanes);
            let four_bytes = self.program.buffers[stmt.write().buffer].dtype.bytes() == 4;
            let vector = if four_bytes && stmt.dim_named(columns).is_some_and(fills) { lanes } else { 1 };
            longest = longest.max((stmt.points() / vector).saturating_mul(value.insts.len() as u64));
        }
        Ok(longest)
    }

    /// Runs an epilogue that passes values on row by row, so that they take registers for a row and not for the tile. The rows
    /// are unrolled: the accumulators stay where they are.
    fn long_epilogue(&mut self, kernel: &str, stmts: &[String], rows: &str) -> Result<(), ScheduleError> {
        let [first, _, _, ..] = stmts else { return Ok(()) };
        if self.level != Level::Full || self.extent(kernel, first, rows)?.unwrap_or(1) < 2 {
            return Ok(());
        }
        self.hoist(kernel, stmts, rows)?;
        let data = self.data(kernel)?;
        let (_, around) = data.locate(self.handle(kernel, first)?).unwrap_or_default();
        if let Some(&l) = around.last() {
            let loop_name = data.loops[l].name.clone();
            self.apply(Directive::Unroll { kernel: kernel.to_owned(), loop_name })?;
        }
        Ok(())
    }

    /// Gives a whole tile to the micro-kernel, if it takes it.
    fn try_intrinsic(&mut self, kernel: &str, stmt: &str, c: &Contraction) -> bool {
        c.intrinsic.is_some_and(|i| {
            let (kernel, stmt, name) = (kernel.to_owned(), stmt.to_owned(), i.name.to_owned());
            self.attempt(Directive::Intrinsic { kernel, stmt, name }).is_ok()
        })
    }

    /// Loops over the reduced dimensions of a contraction, outermost first, until the tile is small enough.
    fn reduced_loops(&mut self, kernel: &str, mma: &str, columns: &str) -> Result<(), ScheduleError> {
        let lanes = self.target.machine().lanes_f32();
        let mut pending = vec![mma.to_owned()];
        while let Some(name) = pending.pop() {
            let stmt = self.stmt(kernel, &name)?;
            let vectors =
                if stmt.dim_named(columns).is_some_and(|d| stmt.dims[d].extent % lanes == 0) { lanes } else { 1 };
            let reduced: Vec<(String, u64)> = stmt
                .dims
                .iter()
                .filter(|d| d.name.starts_with('k') && d.extent > 1)
                .map(|d| (d.name.clone(), d.extent))
                .collect();
            let steps: u64 = reduced.iter().map(|d| d.1).product();
            let macs = stmt.points() / vectors;
            let Some((outermost, extent)) = reduced.first().cloned() else {
                self.try_vectorize(kernel, &name, columns);
                continue;
            };
            if macs <= MAX_TILE_MACS && (steps <= 2 * REDUCED_STEPS || reduced.len() > 1) {
                self.try_vectorize(kernel, &name, columns);
                continue;
            }
            let wanted = if reduced.len() == 1 { REDUCED_STEPS } else { 1 };
            let fits = (1..=wanted).rev().find(|f| macs / extent * f <= MAX_TILE_MACS).unwrap_or(1);
            let factor = fits.min(extent);
            if factor == extent {
                self.try_vectorize(kernel, &name, columns);
                continue;
            }
            let rest = self.split(kernel, std::slice::from_ref(&name), &outermost, factor, "p")?;
            pending.extend(rest.into_iter().flatten());
            if factor == 1 && reduced.len() > 1 {
                pending.push(name);
            } else {
                self.try_vectorize(kernel, &name, columns);
            }
        }
        Ok(())
    }
}

fn operand_access(stmt: &StmtData, operand: Operand) -> Option<&Access> {
    match (&stmt.op, operand) {
        (StmtOp::Mma { a, .. }, Operand::A) => Some(a),
        (StmtOp::Mma { b, .. }, Operand::B) => Some(b),
        _ => None,
    }
}
