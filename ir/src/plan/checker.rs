//! The checker: replays a program against a plan, and shares no code with the planner.
//!
//! It knows nothing of lifetimes. It keeps, for every byte of the arena, which buffer wrote there last and by which
//! statement; walks steps, loops and statements in order; and asks of every read whether the bytes are still its buffer's.
//! Each loop (and each tile of more than one point) is walked twice, so that what one iteration does to the next is seen. Regions are the bounding ranges of
//! accesses. Rules, each an error of [`CheckError`]:
//!
//! 1. a buffer that is used lies in the place that its storage asks for, on an aligned offset, inside the block;
//! 2. constants overlap only where they are the same bytes;
//! 3. a read of the arena finds some bytes of its buffer and none of another's;
//! 4. unless the other buffer was written there by the very statement that reads, element for element in place, and no
//!    element is visited twice.

use std::collections::BTreeMap;
use std::fmt;

use cranelift_entity::SecondaryMap;
use rustc_hash::FxHashSet;

use super::{ALIGN_BYTES, Place, Plan};
use crate::tile::walk::walk;
use crate::tile::{
    Access, Buffer, Inst, Item, Kernel, KernelData, Loop, Program, Space, Step, Stmt, StmtOp, Storage, Var,
};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A buffer that is used has no place, or one of the wrong kind.
    #[error("{buffer} has the wrong place {place:?}")]
    WrongPlace {
        /// The buffer.
        buffer: Buffer,
        /// Its place.
        place: Place,
    },
    /// An offset is not aligned.
    #[error("{buffer} lies at byte {offset}, which is no multiple of {ALIGN_BYTES}")]
    Misaligned {
        /// The buffer.
        buffer: Buffer,
        /// Its offset.
        offset: u64,
    },
    /// A buffer ends behind the end of its block.
    #[error("{buffer} at byte {offset} ends outside its block of {block_bytes} bytes")]
    OutOfBlock {
        /// The buffer.
        buffer: Buffer,
        /// Its offset.
        offset: u64,
        /// Size of the block.
        block_bytes: u64,
    },
    /// Two different constants share bytes of the weight block.
    #[error("constants {first} and {second} overlap")]
    ConstantsOverlap {
        /// One constant.
        first: Buffer,
        /// The other.
        second: Buffer,
    },
    /// A read finds bytes that another buffer has overwritten.
    #[error("step {step}: {reader} reads {buffer}, but {by} has overwritten it")]
    Overwritten {
        /// Index of the step.
        step: usize,
        /// The kernel's and the statement's name, or `check`.
        reader: String,
        /// The buffer that is read.
        buffer: Buffer,
        /// The buffer that lies there now.
        by: Buffer,
    },
    /// A read of a buffer of which nothing was written.
    #[error("step {step}: {reader} reads {buffer}, which nothing has written")]
    Unwritten {
        /// Index of the step.
        step: usize,
        /// The kernel's and the statement's name, or `check`.
        reader: String,
        /// The buffer.
        buffer: Buffer,
    },
    /// Loops are nested too deeply to be walked.
    #[error("{kernel} nests more than {MAX_DEPTH} loops")]
    TooDeep {
        /// The kernel.
        kernel: Kernel,
    },
}

/// All broken rules, in the order in which they were met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckErrors(pub Vec<CheckError>);

impl fmt::Display for CheckErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the memory plan breaks {} rules", self.0.len())?;
        self.0.iter().try_for_each(|e| write!(f, "\n  {e}"))
    }
}

impl std::error::Error for CheckErrors {}

/// Loops are walked twice each, so their nesting must be bounded.
const MAX_DEPTH: usize = 14;

/// Errors kept at most; the rest of a broken plan says no more.
const MAX_ERRORS: usize = 100;

/// Checks a plan against its program.
///
/// # Errors
/// All broken rules.
pub fn check(program: &Program, plan: &Plan) -> Result<(), CheckErrors> {
    let mut checker =
        Checker { program, plan, owners: BTreeMap::new(), errors: Vec::new(), step: 0, ran: FxHashSet::default() };
    checker.check_places();
    // Replaying needs every place to be sound.
    if checker.errors.is_empty() {
        checker.replay();
    }
    if checker.errors.is_empty() { Ok(()) } else { Err(CheckErrors(checker.errors)) }
}

/// Who wrote a range of the arena last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    end: u64,
    buffer: Buffer,
    /// Step and statement.
    by: (usize, Stmt),
}

/// What one statement does to the arena: bytes `(start, end)` of buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Effect {
    /// With the buffer that may stand there instead (rule 4).
    reads: Vec<(Buffer, (u64, u64), Option<Buffer>)>,
    write: Option<(Buffer, (u64, u64))>,
}

impl Effect {
    fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.write.is_none()
    }
}

struct Checker<'a> {
    program: &'a Program,
    plan: &'a Plan,
    /// Disjoint ranges of the arena by their start.
    owners: BTreeMap<u64, Owner>,
    errors: Vec<CheckError>,
    step: usize,
    /// Statements that ran in this step.
    ran: FxHashSet<Stmt>,
}

impl Checker<'_> {
    fn error(&mut self, error: CheckError) {
        if self.errors.len() < MAX_ERRORS && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Rules 1 and 2.
    fn check_places(&mut self) {
        let mut constants: Vec<(u64, u64, Buffer)> = Vec::new();
        for buffer in self.used_buffers() {
            let place = self.plan.places[buffer];
            let block = match (&self.program.buffers[buffer].storage, place) {
                (Storage::Input(i), Place::Input(j)) | (Storage::Output(i), Place::Output(j)) if *i == j => continue,
                (Storage::Local(Space::Reg), Place::None) => continue,
                (Storage::Temp | Storage::Local(Space::Scratch), Place::Arena(offset)) => {
                    (offset, self.plan.arena_bytes)
                }
                (Storage::Const(_), Place::Weights(offset)) => (offset, self.plan.weights_bytes),
                _ => {
                    self.error(CheckError::WrongPlace { buffer, place });
                    continue;
                }
            };
            let (offset, block_bytes) = block;
            if offset % ALIGN_BYTES != 0 {
                self.error(CheckError::Misaligned { buffer, offset });
            }
            let end = self.size(buffer).and_then(|bytes| offset.checked_add(bytes)).filter(|&end| end <= block_bytes);
            match end {
                None => self.error(CheckError::OutOfBlock { buffer, offset, block_bytes }),
                Some(end) if matches!(place, Place::Weights(_)) && end > offset => {
                    constants.push((offset, end, buffer))
                }
                Some(_) => {}
            }
        }
        constants.sort_unstable();
        for pair in constants.windows(2) {
            let ((start, end, first), (next, next_end, second)) = (pair[0], pair[1]);
            if next < end && !(start == next && end == next_end && self.same_bytes(first, second)) {
                self.error(CheckError::ConstantsOverlap { first, second });
            }
        }
    }

    fn used_buffers(&self) -> Vec<Buffer> {
        let mut used: Vec<Buffer> = self.program.inputs.iter().chain(&self.program.outputs).copied().collect();
        for step in &self.program.steps {
            match step {
                Step::Check { buffer, .. } => used.push(*buffer),
                Step::Run(kernel) => used.extend(self.program.kernels[*kernel].buffers()),
                Step::Repeat { .. } | Step::End => {}
            }
        }
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Size in bytes; `None` on overflow.
    fn size(&self, buffer: Buffer) -> Option<u64> {
        let data = &self.program.buffers[buffer];
        data.layout.dims.iter().try_fold(data.dtype.bytes(), |n, d| n.checked_mul(d.extent))
    }

    fn same_bytes(&self, a: Buffer, b: Buffer) -> bool {
        let (a, b) = (&self.program.buffers[a], &self.program.buffers[b]);
        let (Storage::Const(x), Storage::Const(y)) = (&a.storage, &b.storage) else { return false };
        let size = |t: &crate::types::Tensor| (t.ty().dtype().bytes(), t.ty().shape().to_vec());
        a.layout == b.layout && size(x) == size(y) && x.bytes() == y.bytes()
    }

    /// Rules 3 and 4.
    fn replay(&mut self) {
        let program = self.program;
        // Open repeats, and whether they run for the second time. As for loops, two rounds show all there is to see.
        let mut open: Vec<(usize, bool)> = Vec::new();
        let mut index = 0;
        while let Some(step) = program.steps.get(index) {
            self.step = index;
            match step {
                Step::Repeat { trips } => open.push((index, *trips < 2)),
                Step::End => match open.last_mut() {
                    Some((begin, second)) if !*second => {
                        *second = true;
                        index = *begin;
                    }
                    _ => drop(open.pop()),
                },
                Step::Check { buffer, .. } => {
                    if let Some((start, end)) = self.whole(*buffer) {
                        self.read(*buffer, start, end, || "check".to_owned(), |_| false);
                    }
                }
                Step::Run(kernel) => {
                    let k = &program.kernels[*kernel];
                    let mut effects = SecondaryMap::new();
                    walk(&k.body, &mut Vec::new(), &mut |item, around| {
                        if let Item::Stmt(stmt) = item {
                            effects[*stmt] = self.effect(k, *stmt, around);
                        }
                    });
                    self.ran.clear();
                    self.run(*kernel, &k.body, &effects, 0);
                }
            }
            index += 1;
        }
    }

    /// Runs a body; says whether anything in it touches the arena.
    fn run(&mut self, kernel: Kernel, body: &[Item], effects: &SecondaryMap<Stmt, Effect>, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            self.error(CheckError::TooDeep { kernel });
            return false;
        }
        let k = &self.program.kernels[kernel];
        let mut touched = false;
        for item in body {
            match item {
                Item::Stmt(stmt) if effects[*stmt].is_empty() => {}
                Item::Stmt(stmt) => {
                    // The points of a tile are iterations too.
                    for _ in 0..k.stmts[*stmt].points().min(2) {
                        self.execute(k, *stmt, &effects[*stmt]);
                    }
                    touched = true;
                }
                Item::Loop(l, inner) => {
                    let touches = k.loops[*l].extent > 0 && self.run(kernel, inner, effects, depth + 1);
                    if touches && k.loops[*l].extent > 1 {
                        self.run(kernel, inner, effects, depth + 1);
                    }
                    touched |= touches;
                }
            }
        }
        touched
    }

    fn execute(&mut self, kernel: &KernelData, stmt: Stmt, effect: &Effect) {
        let by = (self.step, stmt);
        // The first point of a running sum reads nothing of the sum, though its region is that of all points.
        let s = &kernel.stmts[stmt];
        let starts = self.ran.insert(stmt) && s.carries() && matches!(s.op, StmtOp::Map { .. });
        for &(buffer, (start, end), replaced) in &effect.reads {
            if starts && buffer == s.write().buffer {
                continue;
            }
            let reader = || format!("{}.{}", kernel.name, kernel.stmts[stmt].name);
            self.read(buffer, start, end, reader, |owner| replaced == Some(owner.buffer) && owner.by == by);
        }
        if let Some((buffer, (start, end))) = effect.write {
            self.write(start, Owner { end, buffer, by });
        }
    }

    /// What a statement does to the arena.
    fn effect(&self, kernel: &KernelData, stmt: Stmt, around: &[Loop]) -> Effect {
        let s = &kernel.stmts[stmt];
        let mut effect = Effect::default();
        // Positions that come from data may be any.
        let anywhere = |access: &Access| s.data_coordinate().is_some_and(|data| std::ptr::eq(data.access, access));
        for access in s.reads() {
            let region = if anywhere(access) { self.whole(access.buffer) } else { self.region(kernel, stmt, access) };
            if let Some(region) = region {
                effect.reads.push((access.buffer, region, self.replaces_in_place(kernel, stmt, access, around)));
            }
        }
        let write = s.write();
        let region = if anywhere(write) { self.whole(write.buffer) } else { self.region(kernel, stmt, write) };
        effect.write = region.map(|region| (write.buffer, region));
        effect
    }

    /// Arena bytes of a whole buffer.
    fn whole(&self, buffer: Buffer) -> Option<(u64, u64)> {
        let Place::Arena(offset) = self.plan.places[buffer] else { return None };
        let size = self.size(buffer)?;
        (size > 0).then_some((offset, offset + size))
    }

    /// Arena bytes between the first and the last element that an access can touch.
    fn region(&self, kernel: &KernelData, stmt: Stmt, access: &Access) -> Option<(u64, u64)> {
        let (start, end) = self.whole(access.buffer)?;
        let data = &self.program.buffers[access.buffer];
        let stmt = &kernel.stmts[stmt];
        let extents = |v: Var| kernel.extent_of(stmt, v);
        let (low, high) = data.layout.offset(&access.index, &extents).range(&extents);
        // Coordinates outside are padding, which is not read.
        let last = (end - start) / data.dtype.bytes() - 1;
        let byte = |element: i64| start + u64::try_from(element).unwrap_or(0).min(last) * data.dtype.bytes();
        Some((byte(low), byte(high) + data.dtype.bytes()))
    }

    fn read(
        &mut self,
        buffer: Buffer,
        start: u64,
        end: u64,
        reader: impl Fn() -> String,
        allowed: impl Fn(&Owner) -> bool,
    ) {
        let before = self.owners.range(..=start).next_back().filter(|(_, o)| o.end > start);
        let mut found = before.into_iter().chain(self.owners.range(start + 1..end)).map(|(_, owner)| *owner).peekable();
        let nothing = found.peek().is_none();
        let foreign = found.find(|o| o.buffer != buffer && !allowed(o));
        let step = self.step;
        if let Some(owner) = foreign {
            self.error(CheckError::Overwritten { step, reader: reader(), buffer, by: owner.buffer });
        } else if nothing {
            self.error(CheckError::Unwritten { step, reader: reader(), buffer });
        }
    }

    fn write(&mut self, start: u64, owner: Owner) {
        let touched: Vec<(u64, Owner)> =
            self.owners.range(..owner.end).rev().take_while(|(_, o)| o.end > start).map(|(s, o)| (*s, *o)).collect();
        for (from, old) in touched {
            self.owners.remove(&from);
            if from < start {
                self.owners.insert(from, Owner { end: start, ..old });
            }
            if old.end > owner.end {
                self.owners.insert(owner.end, old);
            }
        }
        self.owners.insert(start, owner);
    }

    /// The buffer that a statement writes, if it may replace what `read` reads (rule 4).
    fn replaces_in_place(&self, kernel: &KernelData, stmt: Stmt, read: &Access, around: &[Loop]) -> Option<Buffer> {
        let s = &kernel.stmts[stmt];
        let write = s.write();
        let (old, new) = (&self.program.buffers[read.buffer], &self.program.buffers[write.buffer]);
        let pointwise = match &s.op {
            StmtOp::Copy { src, .. } => src.index == write.index && src.fill.is_none(),
            StmtOp::Map { value, .. } => value.insts.iter().all(|inst| {
                let Inst::Load(a) = inst else { return true };
                a.buffer != read.buffer || (a.index == write.index && a.fill.is_none())
            }),
            StmtOp::Mma { .. } | StmtOp::Reduce { .. } | StmtOp::Gather { .. } | StmtOp::Scatter { .. } => false,
        };
        let congruent = self.plan.places[read.buffer] == self.plan.places[write.buffer]
            && old.layout == new.layout
            && old.dtype.bytes() == new.dtype.bytes();
        // Backends may move loads of a buffer that the kernel does not write; so no other statement may load it.
        let only_reader =
            kernel.stmts_in_order().into_iter().all(|other| other == stmt || !kernel.stmts[other].touches(read.buffer));
        (pointwise && congruent && only_reader && self.visits_once(kernel, stmt, around)).then_some(write.buffer)
    }

    /// Whether every step of a variable moves the written element farther than all finer variables together can.
    fn visits_once(&self, kernel: &KernelData, stmt: Stmt, around: &[Loop]) -> bool {
        let s = &kernel.stmts[stmt];
        let extents = |v: Var| kernel.extent_of(s, v);
        let write = s.write();
        let offset = self.program.buffers[write.buffer].layout.offset(&write.index, &extents);
        let dims = (0..s.dims.len()).map(|i| Var::Dim(i as u32));
        let mut strides: Vec<(u64, u64)> = Vec::new();
        for var in dims.chain(around.iter().map(|&l| Var::Loop(l))) {
            if extents(var) > 1 {
                strides.push((offset.coefficient(var).unsigned_abs(), extents(var)));
            }
        }
        strides.sort_unstable();
        let mut reach = 0u64;
        for (stride, extent) in strides {
            if stride <= reach {
                return false;
            }
            reach = reach.saturating_add(stride.saturating_mul(extent - 1));
        }
        offset.is_linear()
    }
}
