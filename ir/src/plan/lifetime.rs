//! Lifetimes: from when to when each buffer of the arena is alive.
//!
//! Time counts the items at the top of kernels' bodies, over all steps in order: such an item (a whole loop nest, or a
//! statement) ends before the next begins. A kernel's private scratch lives from the first to the last item that touches
//! it. A temporary lives from the start of the first step to the end of the last step that touches it: inside a kernel,
//! backends may move its loads, which are known not to change there. What a repeat touches lives while it runs.
//!
//! Two temporaries that meet in one statement may share their bytes, when every point of the statement reads the one for
//! the last time exactly where it writes the other ([`in_place`]).

use cranelift_entity::SecondaryMap;

use crate::tile::{
    Access, Affine, Buffer, BufferData, Inst, Item, KernelData, Loop, Program, Space, Step, Storage, Var,
};
use crate::tile::{StmtData, StmtOp};

/// When a buffer is alive: from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub first: usize,
    pub last: usize,
}

/// Lifetimes of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Lifetimes {
    /// Of every buffer in the arena that is used.
    pub of: SecondaryMap<Buffer, Option<Lifetime>>,
    /// Pairs `(read for the last time, written for the first time)` that may share their bytes, in order of the steps.
    /// No buffer stands in two pairs on the same side.
    pub in_place: Vec<(Buffer, Buffer)>,
    /// Constants that are read, in order of first use.
    pub constants: Vec<Buffer>,
}

impl Lifetimes {
    /// Walks the program once.
    pub fn of(program: &Program) -> Self {
        let mut out = Self::default();
        let mut used = SecondaryMap::<Buffer, bool>::new();
        let mut steps = Vec::with_capacity(program.steps.len());
        let mut now = 0;
        let mut repeats = Vec::new();
        for step in &program.steps {
            let start = now;
            match step {
                Step::Repeat { .. } => {
                    repeats.push(start);
                    now += 1;
                }
                Step::End => {
                    // The next round finds what this one leaves, so what a repeat touches lives all the time it runs.
                    if let Some(begin) = repeats.pop() {
                        out.stretch(program, begin, now);
                    }
                    now += 1;
                }
                Step::Check { buffer, .. } => {
                    out.touch(program, *buffer, now, now, now, &mut used);
                    now += 1;
                }
                Step::Run(kernel) => {
                    let kernel = &program.kernels[*kernel];
                    let end = start + kernel.body.len().max(1) - 1;
                    for item in &kernel.body {
                        for_each_stmt(item, &mut |stmt| {
                            for access in kernel.stmts[stmt].accesses() {
                                out.touch(program, access.buffer, now, start, end, &mut used);
                            }
                        });
                        now += 1;
                    }
                    now = end + 1;
                }
            }
            steps.push((start, now - 1));
        }
        for (step, &(start, end)) in program.steps.iter().zip(&steps) {
            if let Step::Run(kernel) = step {
                out.pair_in_place(program, &program.kernels[*kernel], start, end);
            }
        }
        out
    }

    /// Extends a buffer's lifetime to the item `now` of the step from `start` to `end`.
    fn touch(
        &mut self,
        program: &Program,
        buffer: Buffer,
        now: usize,
        start: usize,
        end: usize,
        used: &mut SecondaryMap<Buffer, bool>,
    ) {
        let (first, last) = match program.buffers[buffer].storage {
            Storage::Input(_) | Storage::Output(_) | Storage::Local(Space::Reg) => return,
            Storage::Const(_) => {
                if !std::mem::replace(&mut used[buffer], true) {
                    self.constants.push(buffer);
                }
                return;
            }
            Storage::Temp => (start, end),
            Storage::Local(Space::Scratch) => (now, now),
        };
        let life = self.of[buffer].get_or_insert(Lifetime { first, last });
        life.last = life.last.max(last);
    }

    /// Lets temporaries that are alive at some time from `begin` to `end` live all of it.
    fn stretch(&mut self, program: &Program, begin: usize, end: usize) {
        for (buffer, life) in self.of.iter_mut() {
            let Some(life) = life else { continue };
            let temporary = matches!(program.buffers[buffer].storage, Storage::Temp);
            if temporary && life.last >= begin {
                *life = Lifetime { first: life.first.min(begin), last: life.last.max(end) };
            }
        }
    }

    fn pair_in_place(&mut self, program: &Program, kernel: &KernelData, start: usize, end: usize) {
        let mut loops = Vec::new();
        let mut found = Vec::new();
        for_each_stmt_in(&kernel.body, &mut loops, &mut |stmt, loops| {
            let stmt = &kernel.stmts[stmt];
            let written = stmt.write().buffer;
            let begins = self.of[written].is_some_and(|l| l.first == start && l.last > end);
            if !begins || !matches!(program.buffers[written].storage, Storage::Temp) {
                return;
            }
            let source = stmt.reads().into_iter().find(|read| {
                let ends = self.of[read.buffer].is_some_and(|l| l.last == end && l.first < start);
                let taken = self.in_place.iter().chain(&found).any(|p| p.0 == read.buffer || p.1 == written);
                ends && !taken && in_place(program, kernel, stmt, loops, read)
            });
            found.extend(source.map(|read| (read.buffer, written)));
        });
        self.in_place.extend(found);
    }
}

/// Whether a statement may write its result over what `read` reads: both have the same storage, every access of the
/// statement to either is at the written coordinates, no other statement of the kernel reads the one or writes the other,
/// and no two executions of the statement touch the same element.
fn in_place(program: &Program, kernel: &KernelData, stmt: &StmtData, loops: &[Loop], read: &Access) -> bool {
    let write = stmt.write();
    let (from, to) = (&program.buffers[read.buffer], &program.buffers[write.buffer]);
    let same_storage =
        from.dtype.bytes() == to.dtype.bytes() && from.shape == to.shape && from.layout == to.layout && to.bytes() > 0;
    let elementwise = match &stmt.op {
        StmtOp::Copy { src, .. } => src.index == write.index && src.fill.is_none(),
        StmtOp::Map { value, .. } => value.insts.iter().all(|inst| match inst {
            Inst::Load(a) if a.buffer == write.buffer => false,
            Inst::Load(a) if a.buffer == read.buffer => a.index == write.index && a.fill.is_none(),
            _ => true,
        }),
        StmtOp::Mma { .. } | StmtOp::Reduce { .. } | StmtOp::Gather { .. } | StmtOp::Scatter { .. } => false,
    };
    let alone = kernel.stmts_in_order().iter().map(|&s| &kernel.stmts[s]).all(|other| {
        std::ptr::eq(other, stmt) || !(other.touches(read.buffer) || other.write().buffer == write.buffer)
    });
    same_storage
        && matches!(from.storage, Storage::Temp)
        && elementwise
        && alone
        && visits_once(kernel, stmt, loops, to, &write.index)
}

/// Whether no two executions of a statement touch the same element: the offset is a mixed-radix number of the variables.
fn visits_once(kernel: &KernelData, stmt: &StmtData, loops: &[Loop], buffer: &BufferData, index: &[Affine]) -> bool {
    let extents = |v: Var| kernel.extent_of(stmt, v);
    let offset = buffer.layout.offset(index, &extents);
    let vars = loops.iter().map(|&l| Var::Loop(l)).chain((0..stmt.dims.len()).map(|i| Var::Dim(i as u32)));
    let mut digits: Vec<(u64, u64)> =
        vars.filter(|&v| extents(v) > 1).map(|v| (offset.coefficient(v).unsigned_abs(), extents(v))).collect();
    digits.sort_unstable();
    let mut radix = 1;
    offset.is_linear()
        && digits.into_iter().all(|(weight, extent)| {
            let fits = weight >= radix;
            radix = weight.saturating_mul(extent);
            fits
        })
}

fn for_each_stmt(item: &Item, f: &mut dyn FnMut(crate::tile::Stmt)) {
    for_each_stmt_in(std::slice::from_ref(item), &mut Vec::new(), &mut |s, _| f(s));
}

fn for_each_stmt_in(body: &[Item], loops: &mut Vec<Loop>, f: &mut dyn FnMut(crate::tile::Stmt, &[Loop])) {
    crate::tile::walk::walk(body, loops, &mut |item, around| {
        if let Item::Stmt(s) = item {
            f(*s, around);
        }
    });
}
