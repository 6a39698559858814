//! The built-in scheduler: a producer of directives.
//!
//! It works in three phases. First it joins kernels: an elementwise kernel that reads what another has just written, point by
//! point, becomes that kernel's epilogue. Then images get their storage: channels last, with the borders that windows need
//! ([`channels`]). Then it gives every kernel a loop nest by the kind of its statements:
//!
//! | statements | template | file |
//! |---|---|---|
//! | one `mma` | register tile over weights in panels, epilogue in registers | [`contraction`] |
//! | several `mma` (attention) | a few rows at a time, whole score rows resident | [`attention`] |
//! | a `reduce` (softmax, layer norm, pooling) | row by row, partial results in vectors | [`rowwise`] |
//! | only `map`, `copy`, `gather`, `scatter` | vectors along the last dimension | [`rowwise`] |
//!
//! Every choice is made by counting ([`tiles`]), never by a clock, and every step is a [`Directive`] that was applied by the
//! same code that applies a schedule from a file. So the result is a [`Schedule`] that reproduces the program.

mod attention;
mod channels;
mod contraction;
mod fusion;
mod rowwise;
mod tiles;

pub(super) use tiles::step_cycles;

use rustc_hash::FxHashMap;

use super::apply::{apply_directive, kernel_named};
use super::{DimRef, Directive, KernelCost, Refusal, Schedule, ScheduleError, cost};
use crate::machine::Target;
use crate::tile::verify::register_bytes;
use crate::tile::{
    Affine, Buffer, Item, KernelData, LoopKind, Program, Space, Step, Stmt, StmtData, StmtOp, Storage, Var, hash,
};

/// How much the scheduler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Plain scalar loops, one kernel for each operator.
    Naive,
    /// Vectors and register tiles, one kernel for each operator.
    Tiled,
    /// Also joins kernels.
    Full,
    /// Like `Full`, with small tiles, for little code.
    Small,
}

/// What the scheduler is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much it does.
    pub level: Level,
}

/// A scheduled program, with the schedule that makes it and what each kernel is predicted to cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduled {
    /// The scheduled program.
    pub program: Program,
    /// The directives that made it.
    pub schedule: Schedule,
    /// One prediction for each kernel, in order of execution.
    pub costs: Vec<KernelCost>,
}

/// Schedules a naive program for a target.
///
/// # Errors
/// When the backend cannot emit a kernel; a refused directive is a bug of the scheduler and reported as such.
pub fn schedule(program: &Program, target: &dyn Target, options: &Options) -> Result<Scheduled, ScheduleError> {
    let mut s = Scheduler {
        program: program.clone(),
        target,
        level: options.level,
        schedule: Schedule { program_hash: hash::program_hash(program), directives: Vec::new() },
    };
    if matches!(options.level, Level::Full | Level::Small) {
        s.join_kernels()?;
    }
    if options.level != Level::Naive {
        s.images()?;
    }
    s.kernels()?;
    let Scheduler { program, schedule, .. } = s;
    for step in &program.steps {
        if let Step::Run(k) = step {
            let data = &program.kernels[*k];
            target.legal(&program, data).map_err(|reason| ScheduleError::Unsupported {
                kernel: data.name.clone(),
                sources: data.sources.clone(),
                reason,
            })?;
        }
    }
    let costs = cost(&program, target);
    Ok(Scheduled { program, schedule, costs })
}

/// The program being scheduled and the directives so far.
struct Scheduler<'a> {
    program: Program,
    target: &'a dyn Target,
    level: Level,
    schedule: Schedule,
}

impl Scheduler<'_> {
    /// Applies a directive that must be legal.
    fn apply(&mut self, directive: Directive) -> Result<(), ScheduleError> {
        let position = self.schedule.directives.len();
        self.attempt(directive.clone()).map_err(|refusal| ScheduleError::Refused {
            position,
            directive: Box::new(directive),
            refusal,
        })
    }

    /// Applies a directive if it is legal.
    fn attempt(&mut self, directive: Directive) -> Result<(), Refusal> {
        apply_directive(&mut self.program, &directive, self.target)?;
        self.schedule.directives.push(directive);
        Ok(())
    }

    /// Schedules every kernel. Directives look their kernel up among the steps and ask whether others use its buffers;
    /// meanwhile only steps that give the answers are there, or else the time would grow with the square of the model.
    fn kernels(&mut self) -> Result<(), ScheduleError> {
        /// One user besides the kernel itself settles every question; checks count as users.
        const USERS: usize = 2;
        let steps = std::mem::take(&mut self.program.steps);
        let mut users: FxHashMap<Buffer, Vec<&Step>> = FxHashMap::default();
        for step in &steps {
            let buffers = match step {
                Step::Run(k) => self.program.kernels[*k].buffers(),
                Step::Check { buffer, .. } => vec![*buffer],
                Step::Repeat { .. } | Step::End => Vec::new(),
            };
            for b in buffers {
                let of_buffer = users.entry(b).or_default();
                if of_buffer.len() < USERS {
                    of_buffer.push(step);
                }
            }
        }
        for step in &steps {
            let Step::Run(k) = step else { continue };
            let data = &self.program.kernels[*k];
            let name = data.name.clone();
            let around = data.buffers().into_iter().flat_map(|b| users.get(&b).into_iter().flatten().copied());
            self.program.steps = std::iter::once(step).chain(around.filter(|other| *other != step)).cloned().collect();
            self.kernel(&name)?;
        }
        self.program.steps = steps;
        Ok(())
    }

    fn kernel_names(&self) -> Vec<String> {
        let runs = self.program.steps.iter().filter_map(|s| match s {
            Step::Run(k) => Some(self.program.kernels[*k].name.clone()),
            Step::Check { .. } | Step::Repeat { .. } | Step::End => None,
        });
        runs.collect()
    }

    /// The kernel of a name that the scheduler knows to be in force.
    fn data(&self, kernel: &str) -> Result<&KernelData, ScheduleError> {
        match kernel_named(&self.program, kernel) {
            Ok(k) => Ok(&self.program.kernels[k]),
            Err(refusal) => Err(self.bug(kernel, refusal)),
        }
    }

    fn bug(&self, kernel: &str, refusal: Refusal) -> ScheduleError {
        let directive = Directive::Fuse { kernel: kernel.to_owned(), consumer: String::new() };
        ScheduleError::Refused { position: self.schedule.directives.len(), directive: Box::new(directive), refusal }
    }

    /// The statement of a name that the scheduler knows to be in force.
    fn stmt(&self, kernel: &str, name: &str) -> Result<&StmtData, ScheduleError> {
        let data = self.data(kernel)?;
        match data.stmt_named(name) {
            Some(s) => Ok(&data.stmts[s]),
            None => Err(self.bug(kernel, Refusal::NoStmt(name.to_owned()))),
        }
    }

    /// Gives one kernel its loop nest.
    fn kernel(&mut self, kernel: &str) -> Result<(), ScheduleError> {
        let data = self.data(kernel)?;
        let names: Vec<String> = data.stmts_in_order().iter().map(|&s| data.stmts[s].name.clone()).collect();
        let count = |f: &dyn Fn(&StmtOp) -> bool| data.stmts.values().filter(|s| f(&s.op)).count();
        let contractions = count(&|op| matches!(op, StmtOp::Mma { .. }));
        if self.level == Level::Naive {
            for name in &names {
                self.scalar_loops(kernel, name)?;
            }
        } else {
            match contractions {
                0 => self.rowwise(kernel, &names)?,
                1 => self.contraction(kernel, &names)?,
                _ => self.attention(kernel, &names)?,
            }
        }
        self.place_temporaries(kernel)?;
        if self.level != Level::Naive {
            self.mark_parallel(kernel)?;
        }
        Ok(())
    }

    /// Declares the kernel's outermost loops parallel where that is proved.
    fn mark_parallel(&mut self, kernel: &str) -> Result<(), ScheduleError> {
        let data = self.data(kernel)?;
        let (_, body) = data.repeated();
        let outermost: Vec<String> = body
            .iter()
            .filter_map(|item| match item {
                Item::Loop(l, _) => Some(&data.loops[*l]),
                Item::Stmt(_) => None,
            })
            // Unrolled loops stay so: what they index may lie in registers.
            .filter(|l| l.extent > 1 && !matches!(l.kind, LoopKind::Unrolled))
            .map(|l| l.name.clone())
            .collect();
        for loop_name in outermost {
            // Refused where iterations depend on each other: then it stays sequential.
            let _stays = self.attempt(Directive::Parallel { kernel: kernel.to_owned(), loop_name });
        }
        Ok(())
    }

    /// Splits one dimension out of several statements; returns the names of the peeled rest, if there is one.
    fn split(
        &mut self,
        kernel: &str,
        stmts: &[String],
        dim: &str,
        factor: u64,
        loop_name: &str,
    ) -> Result<Option<Vec<String>>, ScheduleError> {
        let Some(first) = stmts.first() else { return Ok(None) };
        let stmt = self.stmt(kernel, first)?;
        let extent = stmt.dim_named(dim).map_or(1, |d| stmt.dims[d].extent);
        let dims = stmts.iter().map(|s| DimRef { stmt: s.clone(), dim: dim.to_owned() }).collect();
        let into = self.fresh_loop(kernel, loop_name)?;
        let rest = (!extent.is_multiple_of(factor)).then(|| stmts.iter().map(|s| format!("{s}_{into}")).collect());
        self.apply(Directive::Split { kernel: kernel.to_owned(), dims, factor, into })?;
        Ok(rest)
    }

    /// A loop name that the kernel does not use yet.
    fn fresh_loop(&self, kernel: &str, base: &str) -> Result<String, ScheduleError> {
        let data = self.data(kernel)?;
        let free = |n: &String| data.loop_named(n).is_none() && data.stmt_named(n).is_none();
        let numbered = (1..).map(|i: u32| format!("{base}{i}"));
        Ok(std::iter::once(base.to_owned()).chain(numbered).find(free).unwrap_or_default())
    }

    /// Extent of a dimension, if the statement has it.
    fn extent(&self, kernel: &str, stmt: &str, dim: &str) -> Result<Option<u64>, ScheduleError> {
        let stmt = self.stmt(kernel, stmt)?;
        Ok(stmt.dim_named(dim).map(|d| stmt.dims[d].extent))
    }

    /// Executes a dimension in vectors where that is legal.
    fn try_vectorize(&mut self, kernel: &str, stmt: &str, dim: &str) -> bool {
        let dim = DimRef { stmt: stmt.to_owned(), dim: dim.to_owned() };
        self.attempt(Directive::Vectorize { kernel: kernel.to_owned(), dim }).is_ok()
    }

    /// The common dimension along which the last statement writes side by side; the last one if there is none.
    fn contiguous_dim(
        &self,
        kernel: &str,
        stmts: &[String],
        common: &[String],
    ) -> Result<Option<String>, ScheduleError> {
        let Some(last) = stmts.last() else { return Ok(None) };
        let (data, stmt) = (self.data(kernel)?, self.stmt(kernel, last)?);
        let write = stmt.write();
        let layout = &self.program.buffers[write.buffer].layout;
        let offset = layout.offset(&write.index, &|v| data.extent_of(stmt, v));
        let contiguous = |name: &&String| {
            stmt.dim_named(name).is_some_and(|d| stmt.dims[d].extent > 1 && offset.coefficient(Var::Dim(d as u32)) == 1)
        };
        Ok(common.iter().find(contiguous).or(common.last()).cloned())
    }

    /// Names of the dimensions of a result that all statements have with the same extent, in the first one's order.
    fn common_dims(&self, kernel: &str, stmts: &[String]) -> Result<Vec<String>, ScheduleError> {
        let Some(first) = stmts.first() else { return Ok(Vec::new()) };
        let mut common: Vec<(String, u64)> =
            self.stmt(kernel, first)?.dims.iter().map(|d| (d.name.clone(), d.extent)).collect();
        common.retain(|(name, _)| name.starts_with('d'));
        for s in &stmts[1..] {
            let stmt = self.stmt(kernel, s)?;
            common.retain(|(name, extent)| stmt.dims.iter().any(|d| d.name == *name && d.extent == *extent));
        }
        Ok(common.into_iter().map(|(name, _)| name).collect())
    }

    /// Moves what only this kernel uses out of the arena: to registers where every element has a fixed one and there is room
    /// beside those before it, else to scratch memory.
    fn place_temporaries(&mut self, kernel: &str) -> Result<(), ScheduleError> {
        let data = self.data(kernel)?;
        let own: Vec<Buffer> =
            data.buffers().into_iter().filter(|&b| self.program.buffers[b].storage == Storage::Temp).collect();
        for b in own {
            let info = &self.program.buffers[b];
            let in_registers = |x| x == b || self.program.buffers[x].storage == Storage::Local(Space::Reg);
            let limit = self.target.machine().vector_registers * self.target.machine().vector_bytes;
            let small = info.layout.elems() * info.dtype.bytes() <= limit;
            let fits = small && register_bytes(&self.program, self.data(kernel)?, &in_registers) <= limit;
            let buffer = info.name.clone();
            let place = |space| Directive::Place { kernel: kernel.to_owned(), buffer: buffer.clone(), space };
            if !(fits && self.attempt(place(Space::Reg)).is_ok()) {
                // Refused where other kernels use the buffer too: then it stays in the arena.
                let _stays = self.attempt(place(Space::Scratch));
            }
        }
        Ok(())
    }

    /// Statement handle of a name.
    fn handle(&self, kernel: &str, name: &str) -> Result<Stmt, ScheduleError> {
        let data = self.data(kernel)?;
        data.stmt_named(name).ok_or_else(|| self.bug(kernel, Refusal::NoStmt(name.to_owned())))
    }
}

/// Whether a coordinate uses the tile dimension at position `d`.
fn uses_dim(index: &[Affine], d: usize) -> bool {
    index.iter().any(|e| e.uses(Var::Dim(d as u32)))
}
