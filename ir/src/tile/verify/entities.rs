//! Rules 1 to 6, 17 and 18: what exists, once, under which name and of which size.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Placed, Rule, Verifier};
use crate::tile::text::MAX_DEPTH;
use crate::tile::{Buffer, Item, Kernel, KernelData, Loop, LoopKind, Step, Stmt, Storage};
use crate::types::{DType, element_count};

/// Most points of a statement over all iterations.
const MAX_POINTS: u64 = 1 << 60;

impl Verifier<'_> {
    /// Shapes, layouts, constants and names of buffers.
    pub(super) fn buffers(&mut self) {
        let program = self.program;
        let mut names: FxHashSet<&str> = FxHashSet::default();
        for (b, data) in &program.buffers {
            if !names.insert(&data.name) {
                self.report_buffer(b, Rule::Name(data.name.clone()));
            }
            let elems = match element_count(&data.shape) {
                // A tensor without elements takes no memory, and no statement has a point that touches it.
                Ok(0) => continue,
                Ok(elems) => elems,
                Err(e) => {
                    self.report_buffer(b, Rule::Shape(e));
                    continue;
                }
            };
            let layout = match data.storage {
                Storage::Local(_) => data.layout.check_places(&data.shape),
                _ => data.layout.check(&data.shape),
            };
            if let Err(e) = layout {
                self.report_buffer(b, Rule::Layout(e));
                continue;
            }
            let stored = data.layout.elems();
            if stored > elems.saturating_mul(256).saturating_add(1 << 16) {
                self.report_buffer(b, Rule::Padding { elems: stored, needed: elems });
            }
            match &data.storage {
                Storage::Input(_) | Storage::Output(_) if !data.layout.is_row_major(&data.shape) => {
                    self.report_buffer(b, Rule::CallerLayout);
                }
                Storage::Const(t) if t.ty().dtype() != data.dtype || t.ty().elems() != elems => {
                    self.report_buffer(b, Rule::Constant { actual: t.ty().to_string() });
                }
                _ => {}
            }
        }
    }

    /// Inputs and outputs, in both directions.
    pub(super) fn interface(&mut self) {
        let program = self.program;
        for (what, list) in [("input", &program.inputs), ("output", &program.outputs)] {
            for (index, &b) in list.iter().enumerate() {
                let number = match program.buffers.get(b).map(|d| &d.storage) {
                    Some(Storage::Input(i)) if what == "input" => Some(*i),
                    Some(Storage::Output(i)) if what == "output" => Some(*i),
                    Some(_) => None,
                    None => {
                        self.report(None, format!("{what} {index}"), Rule::NoBuffer(b));
                        continue;
                    }
                };
                if number.map(|n| n as usize) != Some(index) {
                    self.report_buffer(b, Rule::InterfaceStorage { what, index });
                }
            }
        }
        for (b, data) in &program.buffers {
            let (what, list, index) = match data.storage {
                Storage::Input(i) => ("input", &program.inputs, i),
                Storage::Output(i) => ("output", &program.outputs, i),
                Storage::Const(_) | Storage::Temp | Storage::Local(_) => continue,
            };
            if list.get(index as usize) != Some(&b) {
                self.report_buffer(b, Rule::Interface { what, index });
            }
        }
    }

    /// What runs, and which kernels share private buffers.
    pub(super) fn steps(&mut self) {
        let program = self.program;
        let mut ran: FxHashSet<Kernel> = FxHashSet::default();
        let mut names: FxHashSet<&str> = FxHashSet::default();
        let mut owners: FxHashMap<Buffer, Kernel> = FxHashMap::default();
        let mut open: Vec<u64> = Vec::new();
        for (i, step) in program.steps.iter().enumerate() {
            match *step {
                Step::Repeat { trips } => open.push(trips),
                Step::End => {
                    if open.pop().is_none() {
                        self.report(None, format!("step {i}"), Rule::Repeat);
                    }
                }
                Step::Check { buffer, bound } => {
                    let Some(data) = program.buffers.get(buffer) else {
                        self.report(None, format!("step {i}"), Rule::NoBuffer(buffer));
                        continue;
                    };
                    if !matches!(data.dtype, DType::I32 | DType::I64) {
                        let expected = "i32 or i64".to_owned();
                        self.report_buffer(buffer, Rule::Type { what: "an index", expected, actual: data.dtype });
                    }
                    if bound == 0 {
                        self.report_buffer(buffer, Rule::EmptyCheck);
                    }
                    if matches!(data.storage, Storage::Input(_)) && !ran.is_empty() {
                        self.report_buffer(buffer, Rule::LateCheck);
                    }
                }
                Step::Run(k) => {
                    let Some(kernel) = program.kernels.get(k) else {
                        self.report(None, format!("step {i}"), Rule::NoKernel(k));
                        continue;
                    };
                    if !ran.insert(k) {
                        self.report(Some(kernel), k.to_string(), Rule::RunsTwice);
                        continue;
                    }
                    if repeats_of(kernel) != open {
                        self.report(Some(kernel), k.to_string(), Rule::Repeat);
                    }
                    if !names.insert(&kernel.name) {
                        self.report(Some(kernel), k.to_string(), Rule::Name(kernel.name.clone()));
                    }
                    let stmts = kernel.stmts_in_order().into_iter().filter_map(|s| kernel.stmts.get(s));
                    for b in stmts.flat_map(|s| s.accesses()).map(|a| a.buffer) {
                        let private = program.buffers.get(b).is_some_and(|d| matches!(d.storage, Storage::Local(_)));
                        if private && *owners.entry(b).or_insert(k) != k {
                            self.report(Some(kernel), k.to_string(), Rule::Shared(b));
                            owners.insert(b, k);
                        }
                    }
                }
            }
        }
        if !open.is_empty() {
            self.report(None, "steps".to_owned(), Rule::Repeat);
        }
    }

    /// The tree: gives the statements in force in order of the text.
    pub(super) fn tree(&mut self, kernel: &KernelData) -> Vec<Placed> {
        let mut placed = Vec::new();
        let mut walk = TreeWalk { loops: FxHashSet::default(), stmts: FxHashSet::default(), placed: &mut placed };
        self.body(kernel, &kernel.body, &mut Vec::new(), &mut walk);
        let mut names: FxHashSet<&str> = FxHashSet::default();
        for p in &placed {
            let stmt = &kernel.stmts[p.stmt];
            if !names.insert(&stmt.name) {
                self.report_stmt(kernel, p.stmt, Rule::Name(stmt.name.clone()));
            }
            let mut dims: FxHashSet<&str> = FxHashSet::default();
            for d in &stmt.dims {
                if !dims.insert(&d.name) {
                    self.report_stmt(kernel, p.stmt, Rule::Name(d.name.clone()));
                }
                if p.around.iter().any(|l| kernel.loops[*l].name == d.name) {
                    self.report_stmt(kernel, p.stmt, Rule::HiddenLoop(d.name.clone()));
                }
            }
            let extents = stmt.dims.iter().map(|d| d.extent).chain(p.around.iter().map(|l| kernel.loops[*l].extent));
            match extents.clone().try_fold(1u64, |n, e| n.checked_mul(e).filter(|&n| n <= MAX_POINTS)) {
                None => self.report_stmt(kernel, p.stmt, Rule::TooManyPoints),
                Some(0) => self.report_stmt(kernel, p.stmt, Rule::Empty),
                Some(_) => {}
            }
        }
        placed
    }

    fn body(&mut self, kernel: &KernelData, body: &[Item], around: &mut Vec<Loop>, walk: &mut TreeWalk<'_>) {
        for item in body {
            match item {
                Item::Stmt(s) => {
                    if kernel.stmts.get(*s).is_none() {
                        self.report(Some(kernel), "body".into(), Rule::NoStmt(*s));
                    } else if !walk.stmts.insert(*s) {
                        self.report_stmt(kernel, *s, Rule::Twice);
                    } else {
                        walk.placed.push(Placed { stmt: *s, around: around.clone() });
                    }
                }
                Item::Loop(l, inner) => {
                    let Some(data) = kernel.loops.get(*l) else {
                        self.report(Some(kernel), "body".into(), Rule::NoLoop(*l));
                        continue;
                    };
                    let entity = format!("{l} {:?}", data.name);
                    if walk.loops.contains(l) {
                        self.report(Some(kernel), entity, Rule::Twice);
                        continue;
                    }
                    if data.kind == LoopKind::Repeat && around.len() >= repeats_of(kernel).len() {
                        self.report(Some(kernel), entity, Rule::Repeat);
                        continue;
                    }
                    if around.len() >= MAX_DEPTH {
                        self.report(Some(kernel), entity, Rule::TooDeep(MAX_DEPTH));
                        continue;
                    }
                    if walk.loops.iter().any(|x| kernel.loops[*x].name == data.name) {
                        self.report(Some(kernel), entity.clone(), Rule::Name(data.name.clone()));
                    }
                    if data.extent == 0 {
                        self.report(Some(kernel), entity, Rule::Empty);
                    }
                    walk.loops.insert(*l);
                    around.push(*l);
                    self.body(kernel, inner, around, walk);
                    around.pop();
                }
            }
        }
    }
}

/// What the walk over a tree has met.
struct TreeWalk<'a> {
    loops: FxHashSet<Loop>,
    stmts: FxHashSet<Stmt>,
    placed: &'a mut Vec<Placed>,
}

/// Extents of the repeat loops that hold all of a kernel, outermost first. Takes kernels with broken handles.
fn repeats_of(kernel: &KernelData) -> Vec<u64> {
    let (mut extents, mut body) = (Vec::new(), kernel.body.as_slice());
    while let [Item::Loop(l, inner)] = body
        && let Some(data) = kernel.loops.get(*l).filter(|data| data.kind == LoopKind::Repeat)
    {
        extents.push(data.extent);
        body = inner;
    }
    extents
}
