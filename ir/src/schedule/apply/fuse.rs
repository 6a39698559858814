//! `fuse`: two kernels become one.
//!
//! ```text
//! kernel matmul_3 { init; mma }            kernel matmul_3 { init; mma; add_4_map }
//! kernel add_4 { map }               ─▶
//! ```
//!
//! Only the order of whole kernels changes, so it is enough that nothing between them touches what is moved. Statements keep
//! running one after the other; `split` then brings them under common loops. Inside a repeat both kernels run once in each
//! round, and so does the joined one: their repeat loops become one. Nothing moves into a repeat or out of it.

use super::{Refusal, kernel_named};
use crate::tile::{Affine, Atom, Buffer, Item, Kernel, KernelData, Loop, Program, Step, Stmt, Var};
use cranelift_entity::SecondaryMap;

pub(super) fn fuse(program: &mut Program, kernel: &str, consumer: &str) -> Result<(), Refusal> {
    let (k, c) = (kernel_named(program, kernel)?, kernel_named(program, consumer)?);
    let position = |k: Kernel| program.steps.iter().position(|s| *s == Step::Run(k));
    let (Some(first), Some(second)) = (position(k), position(c)) else {
        return Err(Refusal::Illegal("a kernel is not in force".into()));
    };
    if first >= second {
        return Err(Refusal::Illegal(format!("`{consumer}` does not run after `{kernel}`")));
    }
    let between = &program.steps[first + 1..second];
    let apart = |kernel| {
        let moved = uses(program, kernel);
        between.iter().all(|s| independent(program, s, &moved))
    };
    let joined_at = if apart(c) {
        first
    } else if apart(k) {
        second
    } else {
        return Err(Refusal::Illegal(format!("a step between `{kernel}` and `{consumer}` depends on one of them")));
    };
    append(program, k, c, consumer);
    program.steps[joined_at] = Step::Run(k);
    program.steps.remove(if joined_at == first { second } else { first });
    Ok(())
}

/// Whether a step and a kernel, given what that reads and writes, can change places.
fn independent(program: &Program, step: &Step, (reads, writes): &(Vec<Buffer>, Vec<Buffer>)) -> bool {
    match step {
        Step::Repeat { .. } | Step::End => false,
        // A check proves the range of indices for the kernels after it.
        Step::Check { buffer, .. } => !reads.contains(buffer) && !writes.contains(buffer),
        Step::Run(other) => {
            let (other_reads, other_writes) = uses(program, *other);
            let apart = |a: &[Buffer], b: &[Buffer]| a.iter().all(|x| !b.contains(x));
            apart(writes, &other_reads) && apart(writes, &other_writes) && apart(reads, &other_writes)
        }
    }
}

/// Buffers that a kernel reads, and those it writes.
fn uses(program: &Program, kernel: Kernel) -> (Vec<Buffer>, Vec<Buffer>) {
    let data = &program.kernels[kernel];
    let stmts = data.stmts_in_order();
    let reads = stmts.iter().flat_map(|&s| data.stmts[s].reads()).map(|a| a.buffer).collect();
    let writes = stmts.iter().map(|&s| data.stmts[s].write().buffer).collect();
    (reads, writes)
}

/// Appends the consumer's tree with its loops and statements renumbered and their names prefixed.
fn append(program: &mut Program, k: Kernel, c: Kernel, prefix: &str) {
    let consumer = program.kernels[c].clone();
    let target = &mut program.kernels[k];
    let mut loops: SecondaryMap<Loop, Option<Loop>> = SecondaryMap::new();
    let (repeats, theirs) = (target.repeated().0, consumer.repeated().0);
    let depth = repeats.len();
    for (&ours, &theirs) in repeats.iter().zip(&theirs) {
        loops[theirs] = Some(ours);
    }
    for (l, data) in &consumer.loops {
        if loops[l].is_some() {
            continue;
        }
        let mut data = data.clone();
        data.name = format!("{prefix}_{}", data.name);
        loops[l] = Some(target.loops.push(data));
    }
    let renumber = |v: Var| match v {
        Var::Loop(l) => Var::Loop(loops[l].unwrap_or(l)),
        Var::Dim(i) => Var::Dim(i),
    };
    let mut stmts: SecondaryMap<Stmt, Option<Stmt>> = SecondaryMap::new();
    for (s, data) in &consumer.stmts {
        let mut data = data.clone();
        data.name = format!("{prefix}_{}", data.name);
        for access in data.accesses_mut() {
            access.index.iter_mut().for_each(|e| *e = rename(e, &renumber));
        }
        stmts[s] = Some(target.stmts.push(data));
    }
    let (_, body) = consumer.repeated();
    let items: Vec<Item> = body.iter().map(|i| renumber_item(i, &loops, &stmts)).collect();
    innermost_repeated(target, depth).extend(items);
    for source in consumer.sources {
        if !target.sources.contains(&source) {
            target.sources.push(source);
        }
    }
}

/// The body inside the outermost `depth` loops, each the only item of the body around it.
fn innermost_repeated(kernel: &mut KernelData, depth: usize) -> &mut Vec<Item> {
    let mut body = &mut kernel.body;
    for _ in 0..depth {
        match body.first_mut() {
            Some(Item::Loop(_, inner)) => body = inner,
            Some(Item::Stmt(_)) | None => unreachable!("a kernel's repeat loops hold all of it"),
        }
    }
    body
}

/// Renames variables without simplifying.
fn rename(e: &Affine, map: &dyn Fn(Var) -> Var) -> Affine {
    let terms = e.terms().iter().map(|(atom, c)| {
        let atom = match atom {
            Atom::Var(v) => Atom::Var(map(*v)),
            Atom::FloorDiv(inner, d) => Atom::FloorDiv(Box::new(rename(inner, map)), *d),
            Atom::Mod(inner, m) => Atom::Mod(Box::new(rename(inner, map)), *m),
        };
        (atom, *c)
    });
    Affine::from_terms(terms, e.constant_part())
}

fn renumber_item(
    item: &Item,
    loops: &SecondaryMap<Loop, Option<Loop>>,
    stmts: &SecondaryMap<Stmt, Option<Stmt>>,
) -> Item {
    match item {
        Item::Loop(l, body) => {
            Item::Loop(loops[*l].unwrap_or(*l), body.iter().map(|i| renumber_item(i, loops, stmts)).collect())
        }
        Item::Stmt(s) => Item::Stmt(stmts[*s].unwrap_or(*s)),
    }
}
