//! `split`: a dimension of adjacent statements becomes a loop around them.
//!
//! ```text
//! map  t[d0, d1] = 0                         loop i 3 {
//! mma  t[d0, d1] += a[d0, k0] b[k0, d1]        map  t[d0, d1] = 0                              d0:4
//! map  y[d0, d1] = max(t[d0, d1], 0)    ─▶     mma  t[d0, d1] += a[4i + d0, k0] b[k0, d1]
//!                  d0:14                       map  y[4i + d0, d1] = max(t[d0, d1], 0)
//!                                            }
//!                                            … the same with 12 + d0, d0:2, and t_i: the peeled rest
//! ```

use super::dependence::{Partition, Seen, common_partition};
use super::{Refusal, check_free, check_free_buffer, dim_of, kernel_named, stmt_named, used_elsewhere};
use crate::schedule::DimRef;
use crate::tile::{
    Affine, Buffer, BufferData, Item, Kernel, KernelData, Layout, LoopData, LoopKind, Program, Stmt, StmtData, StmtOp,
    Storage, Var,
};

/// A temporary that shrinks to one iteration's part.
struct Contraction {
    buffer: Buffer,
    coordinate: usize,
    partition: Partition,
}

pub(super) fn split(
    program: &mut Program,
    kernel: &str,
    dims: &[DimRef],
    factor: u64,
    into: &str,
) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let data = &program.kernels[k];
    check_free(data, into)?;
    let mut group: Vec<(Stmt, usize)> = Vec::with_capacity(dims.len());
    for d in dims {
        let s = stmt_named(data, &d.stmt)?;
        group.push((s, dim_of(data, s, &d.dim)?));
    }
    let Some(&(first, d)) = group.first() else { return Err(Refusal::Illegal("no dimension is named".into())) };
    let extent = data.stmts[first].dims[d].extent;
    if factor == 0 || factor > extent {
        return Err(Refusal::Illegal(format!("factor {factor} does not lie between 1 and the extent {extent}")));
    }
    if let Some(&(s, _)) = group.iter().find(|&&(s, d)| data.stmts[s].dims[d].extent != extent) {
        return Err(Refusal::Illegal(format!("dimension of `{}` is not of extent {extent}", data.stmts[s].name)));
    }
    let at = adjacent(program, k, &group)?;
    for &(s, d) in &group {
        check_order(&data.stmts[s], d)?;
        check_carried(data, &data.stmts[s], d)?;
    }
    let contractions = check_flow(program, k, &group)?;
    let rest = extent % factor;
    if rest > 0 {
        for &(s, _) in &group {
            check_free(data, &format!("{}_{into}", data.stmts[s].name))?;
        }
        for c in &contractions {
            check_free_buffer(program, &format!("{}_{into}", program.buffers[c.buffer].name))?;
        }
    }

    let l = program.kernels[k].loops.push(LoopData {
        name: into.to_owned(),
        extent: extent / factor,
        kind: LoopKind::Sequential,
    });
    let mut tail = Vec::new();
    if rest > 0 {
        let origin = Affine::constant((extent - rest) as i64);
        let mut copies = Vec::new();
        for c in &contractions {
            copies.push((c.buffer, clone_for_rest(program, c, rest, into)));
        }
        for &(s, d) in &group {
            let mut copy = program.kernels[k].stmts[s].clone();
            copy.name = format!("{}_{into}", copy.name);
            retarget(program, k, &mut copy, d, rest, &origin);
            contract_accesses(&mut copy, &contractions, &origin);
            for access in copy.accesses_mut() {
                if let Some((_, new)) = copies.iter().find(|(old, _)| *old == access.buffer) {
                    access.buffer = *new;
                }
            }
            tail.push(Item::Stmt(program.kernels[k].stmts.push(copy)));
        }
    }
    let origin = if extent / factor == 1 { Affine::constant(0) } else { Affine::of_loop(l).scale(factor as i64) };
    for &(s, d) in &group {
        let mut stmt = program.kernels[k].stmts[s].clone();
        retarget(program, k, &mut stmt, d, factor, &origin);
        contract_accesses(&mut stmt, &contractions, &origin);
        program.kernels[k].stmts[s] = stmt;
    }
    for c in &contractions {
        shrink(&mut program.buffers[c.buffer], c, factor);
    }
    let new_items = std::iter::once(Item::Loop(l, group.iter().map(|&(s, _)| Item::Stmt(s)).collect())).chain(tail);
    let position = at.last().copied().unwrap_or(0);
    let body = program.kernels[k].body_at_mut(&at).ok_or_else(|| Refusal::Illegal("no such position".into()))?;
    body.splice(position..position + group.len(), new_items);
    Ok(())
}

/// The path of the first statement, if the group stands side by side in the order given.
fn adjacent(program: &Program, k: Kernel, group: &[(Stmt, usize)]) -> Result<Vec<usize>, Refusal> {
    let data = &program.kernels[k];
    let apart = || Refusal::Illegal("the statements do not stand side by side, in this order, in one body".into());
    let (start, _) = data.locate(group[0].0).ok_or_else(apart)?;
    for (i, &(s, _)) in group.iter().enumerate() {
        let (path, _) = data.locate(s).ok_or_else(apart)?;
        let (last, parent) = path.split_last().ok_or_else(apart)?;
        if parent != &start[..start.len() - 1] || *last != start[start.len() - 1] + i {
            return Err(apart());
        }
    }
    Ok(start)
}

/// Refuses to move a reduced dimension where that would change the order of rounding.
fn check_order(stmt: &StmtData, d: usize) -> Result<(), Refusal> {
    let reduced = |i: usize| !stmt.write().index.iter().any(|e| e.uses(Var::Dim(i as u32)));
    if !reduced(d) || stmt.dims[d].extent == 1 {
        return Ok(());
    }
    if matches!(stmt.op, StmtOp::Reduce { .. }) {
        return Err(Refusal::Illegal(format!(
            "`{}` reduces over `{}` by a fixed tree; use rfactor",
            stmt.name, stmt.dims[d].name
        )));
    }
    match (0..d).find(|&i| reduced(i) && stmt.dims[i].extent > 1) {
        Some(i) => Err(Refusal::Illegal(format!(
            "`{}` accumulates over `{}` before `{}`; moving the latter out would reorder the sum",
            stmt.name, stmt.dims[i].name, stmt.dims[d].name
        ))),
        None => Ok(()),
    }
}

/// Refuses to move a dimension out where points of the statement that depend on each other would change their order: it
/// must keep them apart, or each dimension that it passes must.
fn check_carried(data: &KernelData, stmt: &StmtData, d: usize) -> Result<(), Refusal> {
    if !stmt.carries() {
        return Ok(());
    }
    let buffer = stmt.write().buffer;
    let keeps_apart = |dim: usize| {
        let accesses = stmt.accesses().into_iter().filter(|a| a.buffer == buffer);
        let seen: Vec<Seen<'_>> = accesses
            .map(|access| Seen {
                access,
                var: Var::Dim(dim as u32),
                extents: Box::new(move |v| data.extent_of(stmt, v)),
            })
            .collect();
        common_partition(&seen, &|v| matches!(v, Var::Loop(_))).is_some()
    };
    let passed = (0..d).find(|&e| stmt.dims[e].extent > 1 && !keeps_apart(e));
    match passed {
        Some(e) if stmt.dims[d].extent > 1 && !keeps_apart(d) => Err(Refusal::Illegal(format!(
            "points of `{}` depend on each other along `{}`, which `{}` would pass",
            stmt.name, stmt.dims[e].name, stmt.dims[d].name
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Checks that no value flows between iterations, and finds the temporaries that shrink.
fn check_flow(program: &Program, k: Kernel, group: &[(Stmt, usize)]) -> Result<Vec<Contraction>, Refusal> {
    let data = &program.kernels[k];
    let outer = |v: Var| matches!(v, Var::Loop(_));
    let mut contractions = Vec::new();
    for buffer in data.buffers() {
        let mut seen = Vec::new();
        let mut writers = 0;
        let mut touching = 0;
        for &(s, d) in group {
            let stmt = &data.stmts[s];
            writers += usize::from(stmt.write().buffer == buffer);
            touching += usize::from(stmt.touches(buffer));
            for access in stmt.accesses().into_iter().filter(|a| a.buffer == buffer) {
                let extents = Box::new(move |v| data.extent_of(stmt, v));
                seen.push(Seen { access, var: Var::Dim(d as u32), extents });
            }
        }
        if writers == 0 {
            continue;
        }
        let partition = common_partition(&seen, &outer);
        if touching > 1 && partition.is_none() {
            let stmt = group.iter().find(|&&(s, _)| data.stmts[s].touches(buffer)).map(|&(s, _)| s);
            let name = stmt.map_or_else(String::new, |s| data.stmts[s].name.clone());
            return Err(Refusal::Illegal(format!(
                "`{}`, which `{name}` and others use, carries values between iterations",
                program.buffers[buffer].name
            )));
        }
        let info = &program.buffers[buffer];
        let private = matches!(info.storage, Storage::Temp | Storage::Local(_))
            && info.layout.permutation(&info.shape).is_some()
            && !used_elsewhere(program, k, buffer)
            && data
                .stmts_in_order()
                .iter()
                .all(|s| group.iter().any(|(g, _)| g == s) || !data.stmts[*s].touches(buffer));
        if let (true, Some((coordinate, partition))) = (private, partition.filter(|(_, p)| !p.repeats)) {
            contractions.push(Contraction { buffer, coordinate, partition });
        }
    }
    Ok(contractions)
}

/// Sets the extent of a dimension and moves its coordinates to `origin`.
fn retarget(program: &Program, k: Kernel, stmt: &mut StmtData, d: usize, extent: u64, origin: &Affine) {
    stmt.dims[d].extent = extent;
    let moved = if extent == 1 { origin.clone() } else { origin.add(&Affine::dim(d)) };
    let dims = stmt.dims.clone();
    let loops = &program.kernels[k].loops;
    let extents = |v: Var| match v {
        Var::Loop(l) => loops[l].extent,
        Var::Dim(i) => dims[i as usize].extent,
    };
    stmt.substitute(&|v| if v == Var::Dim(d as u32) { moved.clone() } else { Affine::var(v) }, &extents);
}

/// Takes the iteration's origin out of the coordinates of contracted temporaries.
fn contract_accesses(stmt: &mut StmtData, contractions: &[Contraction], origin: &Affine) {
    for access in stmt.accesses_mut() {
        if let Some(c) = contractions.iter().find(|c| c.buffer == access.buffer) {
            let index = &mut access.index[c.coordinate];
            *index = index.sub(&origin.scale(c.partition.step)).sub(&c.partition.base);
        }
    }
}

fn shrink(buffer: &mut BufferData, c: &Contraction, points: u64) {
    let order = buffer.layout.permutation(&buffer.shape);
    buffer.shape[c.coordinate] = c.partition.step as u64 * points;
    buffer.layout =
        order.map_or_else(|| Layout::row_major(&buffer.shape), |order| Layout::permuted(&buffer.shape, &order));
}

fn clone_for_rest(program: &mut Program, c: &Contraction, rest: u64, into: &str) -> Buffer {
    let mut copy = program.buffers[c.buffer].clone();
    copy.name = format!("{}_{into}", copy.name);
    shrink(&mut copy, c, rest);
    program.buffers.push(copy)
}
