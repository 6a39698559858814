//! `cache`: what an operand reads during a loop's iteration is copied to a private buffer first.
//!
//! ```text
//! loop h 12 {                                       loop h 12 {
//!   mma s[d2, d3] += q[d2, 32h+k0] k[d3, 32h+k0]      copy kt[d0, d1] = k[d0, 32h + d1]      kt stored by (1)(0)
//! }                                             ─▶    mma  s[d2, d3] += q[d2, 32h+k0] kt[d3, k0]
//!                                                   }
//! ```
//!
//! The copy turns strided reads into contiguous ones (with `order`), and padded windows into full boxes: the fill value of the
//! original access moves to the copy; where it is known which coordinates lie outside, a statement `NAME_fill` writes the
//! value everywhere and the copy is of what lies inside only.

use super::{Refusal, check_free, check_free_buffer, kernel_named, stmt_named};
use crate::schedule::Operand;
use crate::tile::{
    Access, Affine, BufferData, Dim, Exec, Expr, Item, Layout, LayoutDim, Loop, Program, Space, StmtData, StmtOp,
    Storage, Var,
};

pub(super) fn cache(
    program: &mut Program,
    kernel: &str,
    stmt: &str,
    operand: Operand,
    at: Option<&str>,
    into: &str,
    order: &[usize],
) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    check_free_buffer(program, into)?;
    let data = &program.kernels[k];
    let copy_name = format!("{stmt}_copy");
    check_free(data, &copy_name)?;
    let s = stmt_named(data, stmt)?;
    let at = at.map(|name| data.loop_named(name).ok_or_else(|| Refusal::NoLoop(name.to_owned()))).transpose()?;
    let (_, around) = data.locate(s).ok_or_else(|| Refusal::NoStmt(stmt.to_owned()))?;
    let outer_count = match at {
        Some(l) => {
            1 + around
                .iter()
                .position(|&x| x == l)
                .ok_or_else(|| Refusal::Illegal(format!("`{stmt}` does not stand inside `{}`", data.loops[l].name)))?
        }
        None => 0,
    };
    let outer: &[Loop] = &around[..outer_count];
    let access = operand_of(&data.stmts[s], operand)
        .ok_or_else(|| Refusal::Illegal(format!("`{stmt}` has no such operand")))?
        .clone();
    let body = at.map_or(Some(data.body.as_slice()), |l| data.loop_body(l)).unwrap_or_default();
    let mut inside = Vec::new();
    crate::tile::walk::collect_stmts(body, &mut inside);
    if inside.iter().any(|&x| data.stmts[x].write().buffer == access.buffer) {
        return Err(Refusal::Illegal(format!(
            "`{}` is written while the copy is in use",
            program.buffers[access.buffer].name
        )));
    }
    let rank = access.index.len();
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(Refusal::Illegal(format!("the order is not a permutation of the {rank} axes")));
    }

    let extents = |v: Var| data.extent_of(&data.stmts[s], v);
    let mut shape = Vec::with_capacity(rank);
    let mut source = Vec::with_capacity(rank);
    let mut index = Vec::with_capacity(rank);
    for (p, e) in access.index.iter().enumerate() {
        let (origin, inner) = separate(e, outer).ok_or_else(|| {
            Refusal::Illegal(format!("coordinate {p} of `{stmt}` mixes loops inside and outside of the copy"))
        })?;
        let (low, high) = inner.range(&extents);
        let extent = (high - low + 1) as u64;
        shape.push(extent);
        let own = if extent == 1 { Affine::constant(0) } else { Affine::dim(p) };
        source.push(origin.add_constant(low).add(&own));
        index.push(inner.add_constant(-low));
    }
    let size = &program.buffers[access.buffer].shape;
    let range = |p: usize| {
        source[p].range(&|v| match v {
            Var::Loop(l) => data.loops[l].extent,
            Var::Dim(i) => shape[i as usize],
        })
    };
    let inside = if access.fill.is_some() { parts_inside(&source, &shape, size, &range) } else { None };
    let fill = access.fill.filter(|_| inside.is_some());
    let fill_name = format!("{stmt}_fill");
    if fill.is_some() {
        check_free(data, &fill_name)?;
    }
    let dims = |shape: &[u64]| -> Vec<Dim> {
        let dim = |(p, &extent): (usize, &u64)| Dim { name: format!("c{p}"), extent, exec: Exec::Unroll };
        shape.iter().enumerate().map(dim).collect()
    };
    let own = |p: usize, shape: &[u64]| if shape[p] == 1 { Affine::constant(0) } else { Affine::dim(p) };
    let whole: Vec<Affine> = (0..rank).map(|p| own(p, &shape)).collect();
    let dtype = program.buffers[access.buffer].dtype;
    let layout = Layout {
        dims: order.iter().map(|&axis| LayoutDim { axis, div: 1, modulo: None, extent: shape[axis] }).collect(),
    };
    let storage = Storage::Local(Space::Scratch);
    let buffer =
        program.buffers.push(BufferData { name: into.to_owned(), dtype, shape: shape.clone(), layout, storage });
    let data = &mut program.kernels[k];
    let mut items = Vec::new();
    let (mut copied, mut dst) = (shape.clone(), whole.clone());
    if let (Some(value), Some(inside)) = (fill, inside) {
        let op = StmtOp::Map { dst: Access::new(buffer, whole), value: Expr::constant(value) };
        items.push(StmtData { name: fill_name, dims: dims(&shape), op, intrinsic: None });
        copied = inside.iter().map(|&(low, high)| (high - low) as u64).collect();
        dst = (0..rank).map(|p| own(p, &copied).add_constant(inside[p].0)).collect();
        for (p, e) in source.iter_mut().enumerate() {
            let own_part = own(p, &shape);
            *e = e.sub(&own_part).add(&dst[p]);
        }
    }
    let op = StmtOp::Copy {
        dst: Access::new(buffer, dst),
        src: Access { buffer: access.buffer, index: source, fill: if fill.is_some() { None } else { access.fill } },
    };
    items.push(StmtData { name: copy_name, dims: dims(&copied), op, intrinsic: None });
    let items: Vec<Item> = items.into_iter().map(|stmt| Item::Stmt(data.stmts.push(stmt))).collect();
    if let Some(a) = operand_of_mut(&mut data.stmts[s], operand) {
        *a = Access::new(buffer, index);
    }
    match at.and_then(|l| data.locate_loop(l)) {
        None => drop(data.body.splice(0..0, items)),
        Some((mut path, _)) => {
            path.push(0);
            let body = data.body_at_mut(&path).ok_or_else(|| Refusal::Illegal("no such position".into()))?;
            body.splice(0..0, items);
        }
    }
    Ok(())
}

/// For each coordinate of the copy, the first that lies inside the source and the one after the last; `None` if that differs
/// between iterations of outer loops, or nothing does.
fn parts_inside(
    source: &[Affine],
    shape: &[u64],
    size: &[u64],
    range: &dyn Fn(usize) -> (i64, i64),
) -> Option<Vec<(i64, i64)>> {
    let one = |p: usize| -> Option<(i64, i64)> {
        let own = if shape[p] == 1 { Affine::constant(0) } else { Affine::dim(p) };
        let (extent, size) = (shape[p] as i64, size[p] as i64);
        match source[p].sub(&own).as_constant() {
            Some(origin) => {
                let (low, high) = ((-origin).clamp(0, extent), (size - origin).clamp(0, extent));
                (low < high).then_some((low, high))
            }
            None => {
                let (low, high) = range(p);
                (low >= 0 && high < size).then_some((0, extent))
            }
        }
    };
    (0..source.len()).map(one).collect()
}

fn operand_of(stmt: &StmtData, operand: Operand) -> Option<&Access> {
    match (&stmt.op, operand) {
        (
            StmtOp::Copy { src, .. }
            | StmtOp::Reduce { src, .. }
            | StmtOp::Gather { src, .. }
            | StmtOp::Scatter { src, .. },
            Operand::A,
        ) => Some(src),
        (StmtOp::Mma { a, .. }, Operand::A) => Some(a),
        (StmtOp::Mma { b, .. }, Operand::B) => Some(b),
        (StmtOp::Map { value, .. }, Operand::A) => value.loads().next(),
        (
            StmtOp::Copy { .. }
            | StmtOp::Map { .. }
            | StmtOp::Reduce { .. }
            | StmtOp::Gather { .. }
            | StmtOp::Scatter { .. },
            _,
        ) => None,
    }
}

fn operand_of_mut(stmt: &mut StmtData, operand: Operand) -> Option<&mut Access> {
    match (&mut stmt.op, operand) {
        (
            StmtOp::Copy { src, .. }
            | StmtOp::Reduce { src, .. }
            | StmtOp::Gather { src, .. }
            | StmtOp::Scatter { src, .. },
            Operand::A,
        ) => Some(src),
        (StmtOp::Mma { a, .. }, Operand::A) => Some(a),
        (StmtOp::Mma { b, .. }, Operand::B) => Some(b),
        (StmtOp::Map { value, .. }, Operand::A) => value.loads_mut().next(),
        (
            StmtOp::Copy { .. }
            | StmtOp::Map { .. }
            | StmtOp::Reduce { .. }
            | StmtOp::Gather { .. }
            | StmtOp::Scatter { .. },
            _,
        ) => None,
    }
}

/// Splits a coordinate into the terms of outer loops and the rest; `None` if one term has both.
fn separate(e: &Affine, outer: &[Loop]) -> Option<(Affine, Affine)> {
    let mut origin = Vec::new();
    let mut inner = Vec::new();
    for (atom, c) in e.terms() {
        let (mut uses_outer, mut uses_inner) = (false, false);
        Affine::from_terms([(atom.clone(), 1)], 0).for_each_var(&mut |v| match v {
            Var::Loop(l) if outer.contains(&l) => uses_outer = true,
            Var::Loop(_) | Var::Dim(_) => uses_inner = true,
        });
        match (uses_outer, uses_inner) {
            (true, true) => return None,
            (true, false) => origin.push((atom.clone(), *c)),
            (false, _) => inner.push((atom.clone(), *c)),
        }
    }
    Some((Affine::from_terms(origin, 0), Affine::from_terms(inner, e.constant_part())))
}
