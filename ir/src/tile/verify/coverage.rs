//! Rules 19 and 20: what is read was written before, and outputs are whole.
//!
//! The walk follows the text and keeps the boxes of coordinates that were surely written. Inside a loop its index is one
//! fixed, unknown value, so an interval may move with loops: `[4 i, 4 i + 3]` is the step 4 of loop `i` and the range 0 to
//! 3. After the loop, intervals are widened over all its values, if that leaves no gaps. A read is covered if subtracting
//! the boxes leaves nothing of it, for the values of loops at hand, or widened over some of the innermost.

use super::{Rule, Verifier};
use crate::tile::{
    Access, Affine, Atom, Buffer, Item, KernelData, Loop, LoopKind, Program, Step, Stmt, StmtData, StmtOp, Storage, Var,
};

/// Most pieces into which a read is cut before it counts as not covered.
const MAX_PIECES: usize = 256;

/// What counts as written before a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// What the same iteration of the loops around wrote.
    EachIteration,
    /// Also what earlier iterations of a sequential loop around may have written: any write to the buffer in the loop.
    EarlierIterations,
}

/// Values of a coordinate: `Σ step * loop + lo ..= hi`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// Steps of the loops around; sorted, none 0.
    steps: Vec<(Loop, i64)>,
    lo: i64,
    hi: i64,
}

type Box = Vec<Span>;

/// The walk. Which elements of every buffer (or of one) are surely written.
pub(super) struct Coverage<'a> {
    program: &'a Program,
    strictness: Strictness,
    only: Option<Buffer>,
    written: Vec<(Buffer, Box)>,
    /// Buffers with writes that are not boxes.
    irregular: Vec<Buffer>,
    /// Loops around, outermost first, with the buffers that their bodies write.
    around: Vec<(Loop, Vec<Buffer>)>,
    /// Reads that are not covered.
    pub(super) unwritten: Vec<(Stmt, Buffer)>,
}

impl Verifier<'_> {
    /// Walks the whole program.
    pub(super) fn coverage(&mut self) {
        let program = self.program;
        let mut coverage = Coverage::new(program, Strictness::EarlierIterations, None);
        for step in &program.steps {
            match step {
                Step::Repeat { .. } | Step::End => {}
                Step::Check { buffer, .. } => {
                    if !coverage.covers_all(*buffer) {
                        self.report_buffer(*buffer, Rule::Partial);
                    }
                }
                Step::Run(k) => {
                    let kernel = &program.kernels[*k];
                    coverage.body(kernel, &kernel.body);
                    for (s, b) in std::mem::take(&mut coverage.unwritten) {
                        self.report_stmt(kernel, s, Rule::Unwritten(b));
                    }
                }
            }
        }
        for &b in &program.outputs {
            if !coverage.covers_all(b) {
                self.report_buffer(b, Rule::Partial);
            }
        }
    }
}

impl<'a> Coverage<'a> {
    pub(super) fn new(program: &'a Program, strictness: Strictness, only: Option<Buffer>) -> Self {
        Self {
            program,
            strictness,
            only,
            written: Vec::new(),
            irregular: Vec::new(),
            around: Vec::new(),
            unwritten: Vec::new(),
        }
    }

    /// Walks a body.
    pub(super) fn body(&mut self, kernel: &KernelData, body: &[Item]) {
        for item in body {
            match item {
                Item::Stmt(s) => self.stmt(kernel, *s),
                Item::Loop(l, inner) => {
                    let before = self.written.len();
                    let mut stmts = Vec::new();
                    crate::tile::walk::collect_stmts(inner, &mut stmts);
                    let writes = stmts.iter().map(|s| kernel.stmts[*s].write().buffer).collect();
                    self.around.push((*l, writes));
                    self.body(kernel, inner);
                    self.around.pop();
                    let extent = kernel.loops[*l].extent;
                    for (b, mut written) in self.written.split_off(before) {
                        if widen_exactly(&mut written, *l, extent) {
                            self.add(b, written);
                        } else if !self.irregular.contains(&b) {
                            self.irregular.push(b);
                        }
                    }
                }
            }
        }
    }

    /// Whether a buffer is written by the program, rather than given to it.
    fn follows(&self, b: Buffer) -> bool {
        let given = matches!(self.program.buffers[b].storage, Storage::Input(_) | Storage::Const(_));
        !given && self.only.is_none_or(|only| only == b)
    }

    fn stmt(&mut self, kernel: &KernelData, s: Stmt) {
        let stmt = &kernel.stmts[s];
        for read in stmt.reads() {
            if self.follows(read.buffer) && !self.covered(kernel, stmt, read) {
                self.unwritten.push((s, read.buffer));
            }
        }
        let write = stmt.write();
        // What a scatter writes was written before.
        if !self.follows(write.buffer) || matches!(stmt.op, StmtOp::Scatter { .. }) {
            return;
        }
        match exact_box(kernel, stmt, write) {
            Some(written) => self.add(write.buffer, written),
            None if self.irregular.contains(&write.buffer) => {}
            None => self.irregular.push(write.buffer),
        }
    }

    fn add(&mut self, b: Buffer, written: Box) {
        if !self.written.iter().any(|(x, old)| *x == b && contains(old, &written)) {
            self.written.push((b, written));
        }
    }

    fn covers_all(&self, b: Buffer) -> bool {
        let whole: Box = self.program.buffers[b]
            .shape
            .iter()
            .map(|&size| Span { steps: Vec::new(), lo: 0, hi: size as i64 - 1 })
            .collect();
        !self.follows(b) || self.irregular.contains(&b) || self.subtracts(b, &whole)
    }

    fn covered(&self, kernel: &KernelData, stmt: &StmtData, read: &Access) -> bool {
        let shape = &self.program.buffers[read.buffer].shape;
        let mut spans: Box = read.index.iter().map(|i| hull(kernel, stmt, i)).collect();
        if let Some(data) = stmt.data_coordinate().filter(|data| data.access == read)
            && let (Some(span), Some(&size)) = (spans.get_mut(data.axis), shape.get(data.axis))
        {
            *span = Span { steps: Vec::new(), lo: 0, hi: size as i64 - 1 };
        }
        let cut = |spans: &Box| -> Box {
            // What lies outside is not read.
            let mut spans = spans.clone();
            for (span, &size) in spans.iter_mut().zip(shape) {
                if read.fill.is_some() && span.steps.is_empty() {
                    (span.lo, span.hi) = (span.lo.max(0), span.hi.min(size as i64 - 1));
                }
            }
            spans
        };
        if self.subtracts(read.buffer, &cut(&spans)) {
            return true;
        }
        for (l, _) in self.around.iter().rev() {
            for span in &mut spans {
                widen(span, *l, kernel.loops[*l].extent);
            }
            if self.subtracts(read.buffer, &cut(&spans)) {
                return true;
            }
        }
        if self.strictness == Strictness::EachIteration {
            return false;
        }
        let carried = |(l, writes): &(Loop, Vec<Buffer>)| {
            kernel.loops[*l].kind != LoopKind::Parallel && writes.contains(&read.buffer)
        };
        let own = stmt.write().buffer == read.buffer && stmt.write().index != read.index;
        own || self.irregular.contains(&read.buffer) || self.around.iter().any(carried)
    }

    /// Whether what is written leaves nothing of a box.
    fn subtracts(&self, b: Buffer, wanted: &Box) -> bool {
        let mut pieces = vec![wanted.clone()];
        for (_, written) in self.written.iter().filter(|(x, _)| *x == b) {
            pieces = pieces.into_iter().flat_map(|piece| subtract(piece, written)).collect();
            if pieces.len() > MAX_PIECES {
                return false;
            }
        }
        // A piece may be empty from the start: a read of which all is outside.
        !pieces.iter().any(|p| p.iter().all(|s| s.lo <= s.hi))
    }
}

/// Whether the first box holds the second; both move alike.
fn contains(outer: &Box, inner: &Box) -> bool {
    outer.iter().zip(inner).all(|(o, i)| o.steps == i.steps && o.lo <= i.lo && i.hi <= o.hi)
}

/// The parts of `piece` outside `written`. Boxes that move differently are not compared.
fn subtract(mut piece: Box, written: &Box) -> Vec<Box> {
    let apart = |(p, w): (&Span, &Span)| p.steps != w.steps || p.hi < w.lo || w.hi < p.lo;
    if piece.iter().zip(written).any(apart) {
        return vec![piece];
    }
    let mut out = Vec::new();
    for axis in 0..piece.len() {
        let w = &written[axis];
        if piece[axis].lo < w.lo {
            let mut below = piece.clone();
            below[axis].hi = w.lo - 1;
            out.push(below);
            piece[axis].lo = w.lo;
        }
        if piece[axis].hi > w.hi {
            let mut above = piece.clone();
            above[axis].lo = w.hi + 1;
            out.push(above);
            piece[axis].hi = w.hi;
        }
    }
    out
}

/// An interval around all values of a coordinate, moving with loops where it is linear in them.
fn hull(kernel: &KernelData, stmt: &StmtData, index: &Affine) -> Span {
    let mut steps = Vec::new();
    let mut rest = Vec::new();
    for (atom, c) in index.terms() {
        match atom {
            Atom::Var(Var::Loop(l)) => steps.push((*l, *c)),
            Atom::Var(Var::Dim(_)) | Atom::FloorDiv(..) | Atom::Mod(..) => rest.push((atom.clone(), *c)),
        }
    }
    steps.sort_unstable();
    let rest = Affine::from_terms(rest, index.constant_part());
    let (lo, hi) = rest.range(&|v| kernel.extent_of(stmt, v));
    Span { steps, lo, hi }
}

/// The box of coordinates of an access, if they are all of one: each coordinate is a sum of variables without gaps, and no
/// dimension moves two coordinates.
fn exact_box(kernel: &KernelData, stmt: &StmtData, access: &Access) -> Option<Box> {
    let mut used = vec![false; stmt.dims.len()];
    let mut spans = Vec::with_capacity(access.index.len());
    for index in &access.index {
        let mut moving: Vec<(i64, u64)> = Vec::new();
        for (atom, c) in index.terms() {
            match atom {
                Atom::Var(Var::Loop(_)) => {}
                Atom::Var(Var::Dim(d)) => {
                    let d = *d as usize;
                    let extent = stmt.dims.get(d)?.extent;
                    if extent > 1 {
                        if std::mem::replace(&mut used[d], true) {
                            return None;
                        }
                        moving.push((*c, extent));
                    }
                }
                Atom::FloorDiv(..) | Atom::Mod(..) => return None,
            }
        }
        moving.sort_unstable_by_key(|(c, _)| c.unsigned_abs());
        let mut length: u64 = 1;
        for (c, extent) in moving {
            if c.unsigned_abs() > length {
                return None;
            }
            length = length.checked_add(c.unsigned_abs().checked_mul(extent - 1)?)?;
        }
        spans.push(hull(kernel, stmt, index));
    }
    Some(spans)
}

/// Widens an interval over all values of a loop.
fn widen(span: &mut Span, l: Loop, extent: u64) {
    if let Some(at) = span.steps.iter().position(|(x, _)| *x == l) {
        let (_, step) = span.steps.remove(at);
        let reach = step.saturating_mul(extent as i64 - 1);
        span.lo = span.lo.saturating_add(reach.min(0));
        span.hi = span.hi.saturating_add(reach.max(0));
    }
}

/// Widens a box over all values of a loop; false if that would add what is not in it.
fn widen_exactly(written: &mut Box, l: Loop, extent: u64) -> bool {
    let step_of = |s: &Span| s.steps.iter().find(|(x, _)| *x == l).map(|(_, c)| *c);
    let moving: Vec<(usize, i64)> =
        written.iter().enumerate().filter_map(|(i, s)| step_of(s).map(|c| (i, c))).collect();
    if extent > 1 {
        match moving.as_slice() {
            [] => return true,
            &[(axis, step)] => {
                let length = (written[axis].hi - written[axis].lo).unsigned_abs() + 1;
                if step.unsigned_abs() > length {
                    return false;
                }
            }
            _ => return false,
        }
    }
    for span in written.iter_mut() {
        widen(span, l, extent);
    }
    true
}
