//! Walking kernels: which accesses a statement makes, where items stand in the tree, and rewriting of coordinates.

use super::{Access, Affine, Buffer, Item, KernelData, Loop, LoopKind, Program, Step, Stmt, StmtData, StmtOp, Var};

/// A coordinate of an access that a statement takes from memory.
#[derive(Clone, Copy, Debug)]
pub struct DataCoordinate<'a> {
    /// The access.
    pub access: &'a Access,
    /// The coordinate.
    pub axis: usize,
    /// Where it comes from.
    pub index: &'a Access,
}

/// Position of an item in a kernel's tree: the index in each nested body, outermost first.
pub type Path = Vec<usize>;

impl StmtData {
    /// The access that the statement writes.
    pub fn write(&self) -> &Access {
        match &self.op {
            StmtOp::Copy { dst, .. }
            | StmtOp::Map { dst, .. }
            | StmtOp::Reduce { dst, .. }
            | StmtOp::Gather { dst, .. }
            | StmtOp::Scatter { dst, .. } => dst,
            StmtOp::Mma { acc, .. } => acc,
        }
    }

    /// The accesses that the statement reads, accumulators included.
    pub fn reads(&self) -> Vec<&Access> {
        match &self.op {
            StmtOp::Copy { src, .. } => vec![src],
            StmtOp::Map { value, .. } => value.loads().collect(),
            StmtOp::Mma { acc, a, b, .. } => vec![acc, a, b],
            StmtOp::Reduce { dst, src, .. } => vec![dst, src],
            StmtOp::Gather { src, index, .. } => vec![src, index],
            // The elements that it does not replace stay, so it needs them all.
            StmtOp::Scatter { dst, src, index, .. } => vec![dst, src, index],
        }
    }

    /// The coordinate that comes from data, if the statement has one.
    pub fn data_coordinate(&self) -> Option<DataCoordinate<'_>> {
        match &self.op {
            StmtOp::Gather { src, index, axis, .. } => Some(DataCoordinate { access: src, axis: *axis, index }),
            StmtOp::Scatter { dst, index, axis, .. } => Some(DataCoordinate { access: dst, axis: *axis, index }),
            StmtOp::Copy { .. } | StmtOp::Map { .. } | StmtOp::Mma { .. } | StmtOp::Reduce { .. } => None,
        }
    }

    /// Whether points may touch elements that other points write, so that their order matters beyond that of a sum.
    pub fn carries(&self) -> bool {
        match &self.op {
            StmtOp::Map { dst, value } => value.loads().any(|a| a.buffer == dst.buffer && a.index != dst.index),
            StmtOp::Scatter { .. } => true,
            StmtOp::Copy { .. } | StmtOp::Mma { .. } | StmtOp::Reduce { .. } | StmtOp::Gather { .. } => false,
        }
    }

    /// Every access once, reads and writes (an accumulator appears once).
    pub fn accesses(&self) -> Vec<&Access> {
        match &self.op {
            StmtOp::Copy { dst, src } => vec![dst, src],
            StmtOp::Map { dst, value } => std::iter::once(dst).chain(value.loads()).collect(),
            StmtOp::Mma { acc, a, b, .. } => vec![acc, a, b],
            StmtOp::Reduce { dst, src, .. } => vec![dst, src],
            StmtOp::Gather { dst, src, index, .. } | StmtOp::Scatter { dst, src, index, .. } => vec![dst, src, index],
        }
    }

    /// Every access once, to be rewritten.
    pub fn accesses_mut(&mut self) -> Vec<&mut Access> {
        match &mut self.op {
            StmtOp::Copy { dst, src } => vec![dst, src],
            StmtOp::Map { dst, value } => std::iter::once(dst).chain(value.loads_mut()).collect(),
            StmtOp::Mma { acc, a, b, .. } => vec![acc, a, b],
            StmtOp::Reduce { dst, src, .. } => vec![dst, src],
            StmtOp::Gather { dst, src, index, .. } | StmtOp::Scatter { dst, src, index, .. } => vec![dst, src, index],
        }
    }

    /// Whether the statement touches a buffer.
    pub fn touches(&self, buffer: Buffer) -> bool {
        // Asked for all statements of a program again and again, so without making lists.
        let is = |a: &Access| a.buffer == buffer;
        match &self.op {
            StmtOp::Copy { dst, src } | StmtOp::Reduce { dst, src, .. } => is(dst) || is(src),
            StmtOp::Map { dst, value } => is(dst) || value.loads().any(is),
            StmtOp::Mma { acc, a, b, .. } => is(acc) || is(a) || is(b),
            StmtOp::Gather { dst, src, index, .. } | StmtOp::Scatter { dst, src, index, .. } => {
                is(dst) || is(src) || is(index)
            }
        }
    }

    /// Position of the dimension of that name.
    pub fn dim_named(&self, name: &str) -> Option<usize> {
        self.dims.iter().position(|d| d.name == name)
    }

    /// Number of points of the tile.
    pub fn points(&self) -> u64 {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// Replaces variables in every coordinate and simplifies with the ranges of the new ones.
    pub fn substitute(&mut self, map: &dyn Fn(Var) -> Affine, extents: &dyn Fn(Var) -> u64) {
        for access in self.accesses_mut() {
            for index in &mut access.index {
                *index = index.substitute(map, extents);
            }
        }
    }
}

impl KernelData {
    /// Number of values of a variable, as seen from a statement.
    pub fn extent_of(&self, stmt: &StmtData, var: Var) -> u64 {
        match var {
            Var::Loop(l) => self.loops[l].extent,
            Var::Dim(i) => stmt.dims[i as usize].extent,
        }
    }

    /// Statements in force, in order of the text.
    pub fn stmts_in_order(&self) -> Vec<Stmt> {
        let mut out = Vec::new();
        collect_stmts(&self.body, &mut out);
        out
    }

    /// The statement in force of that name.
    pub fn stmt_named(&self, name: &str) -> Option<Stmt> {
        first_stmt(&self.body, &|s| self.stmts[s].name == name)
    }

    /// Whether a statement in force touches a buffer.
    pub fn touches(&self, buffer: Buffer) -> bool {
        first_stmt(&self.body, &|s| self.stmts[s].touches(buffer)).is_some()
    }

    /// The loop in force of that name.
    pub fn loop_named(&self, name: &str) -> Option<Loop> {
        let mut found = None;
        walk(&self.body, &mut Vec::new(), &mut |item, _| {
            if let Item::Loop(l, _) = item
                && self.loops[*l].name == name
            {
                found = Some(*l);
            }
        });
        found
    }

    /// Where a statement stands, and the loops around it from the outermost.
    pub fn locate(&self, stmt: Stmt) -> Option<(Path, Vec<Loop>)> {
        find(&self.body, &|item| matches!(item, Item::Stmt(s) if *s == stmt))
    }

    /// Where a loop stands, and the loops around it from the outermost.
    pub fn locate_loop(&self, l: Loop) -> Option<(Path, Vec<Loop>)> {
        find(&self.body, &|item| matches!(item, Item::Loop(x, _) if *x == l))
    }

    /// The body that holds the item at `path`.
    pub fn body_at_mut(&mut self, path: &[usize]) -> Option<&mut Vec<Item>> {
        let mut body = &mut self.body;
        for &i in &path[..path.len().checked_sub(1)?] {
            match body.get_mut(i)? {
                Item::Loop(_, inner) => body = inner,
                Item::Stmt(_) => return None,
            }
        }
        Some(body)
    }

    /// The body of a loop.
    pub fn loop_body(&self, l: Loop) -> Option<&[Item]> {
        let mut found = None;
        walk(&self.body, &mut Vec::new(), &mut |item, _| {
            if let Item::Loop(x, inner) = item
                && *x == l
            {
                found = Some(inner.as_slice());
            }
        });
        found
    }

    /// The loops that the program's repeats run, outermost first, and the body in the innermost of them.
    pub fn repeated(&self) -> (Vec<Loop>, &[Item]) {
        let (mut loops, mut body) = (Vec::new(), self.body.as_slice());
        while let [Item::Loop(l, inner)] = body
            && self.loops[*l].kind == LoopKind::Repeat
        {
            loops.push(*l);
            body = inner;
        }
        (loops, body)
    }

    /// Buffers that the kernel touches, in order of first use.
    pub fn buffers(&self) -> Vec<Buffer> {
        let mut out: Vec<Buffer> = Vec::new();
        for s in self.stmts_in_order() {
            for a in self.stmts[s].accesses() {
                if !out.contains(&a.buffer) {
                    out.push(a.buffer);
                }
            }
        }
        out
    }
}

impl Program {
    /// Trips of the repeats around a step, outermost first.
    pub fn repeats_around(&self, step: usize) -> Vec<u64> {
        let mut around = Vec::new();
        for step in self.steps.iter().take(step) {
            match step {
                Step::Repeat { trips } => around.push(*trips),
                Step::End => drop(around.pop()),
                Step::Check { .. } | Step::Run(_) => {}
            }
        }
        around
    }
}

/// Statements of a body in order of the text.
pub fn collect_stmts(body: &[Item], out: &mut Vec<Stmt>) {
    walk(body, &mut Vec::new(), &mut |item, _| {
        if let Item::Stmt(s) = item {
            out.push(*s);
        }
    });
}

/// The first statement of a body, in order of the text, for which something holds.
fn first_stmt(body: &[Item], wanted: &dyn Fn(Stmt) -> bool) -> Option<Stmt> {
    body.iter().find_map(|item| match item {
        Item::Stmt(s) => wanted(*s).then_some(*s),
        Item::Loop(_, inner) => first_stmt(inner, wanted),
    })
}

/// Calls `f` for every item in order of the text, with the loops around it.
pub fn walk<'a>(body: &'a [Item], around: &mut Vec<Loop>, f: &mut dyn FnMut(&'a Item, &[Loop])) {
    for item in body {
        f(item, around);
        if let Item::Loop(l, inner) = item {
            around.push(*l);
            walk(inner, around, f);
            around.pop();
        }
    }
}

fn find(body: &[Item], wanted: &dyn Fn(&Item) -> bool) -> Option<(Path, Vec<Loop>)> {
    for (i, item) in body.iter().enumerate() {
        if wanted(item) {
            return Some((vec![i], Vec::new()));
        }
        if let Item::Loop(l, inner) = item
            && let Some((mut path, mut loops)) = find(inner, wanted)
        {
            path.insert(0, i);
            loops.insert(0, *l);
            return Some((path, loops));
        }
    }
    None
}
