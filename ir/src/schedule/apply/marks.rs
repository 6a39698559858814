//! Directives that change how code runs, not what the tree is: `vectorize`, `unroll`, `parallel`, `intrinsic`; and `reorder`.

use super::dependence::{Seen, common_partition};
use super::{Refusal, dim_of, kernel_named, stmt_named};
use crate::machine::{Target, zeroed_contraction};
use crate::schedule::DimRef;
use crate::tile::{
    Access, Exec, Expr, ExprRef, Inst, Item, KernelData, Loop, LoopKind, Program, Space, StmtData, StmtOp, Storage, Var,
};
use crate::types::DType;

/// Executes a dimension in vectors: 4-byte elements, side by side or all the same.
pub(super) fn vectorize(program: &mut Program, kernel: &str, dim: &DimRef, target: &dyn Target) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let data = &program.kernels[k];
    let s = stmt_named(data, &dim.stmt)?;
    let d = dim_of(data, s, &dim.dim)?;
    let stmt = &data.stmts[s];
    let fail = |reason: String| Err(Refusal::Illegal(format!("`{}`: {reason}", stmt.name)));
    let lanes = target.machine().lanes_f32();
    if !stmt.dims[d].extent.is_multiple_of(lanes) {
        return fail(format!("extent {} is not a multiple of {lanes} lanes", stmt.dims[d].extent));
    }
    if stmt.dims.iter().any(|x| x.exec == Exec::Vector) {
        return fail("another dimension is executed in vectors already".into());
    }
    if matches!(stmt.op, StmtOp::Reduce { .. }) {
        return fail("a reduction runs by its tree; rfactor it and vectorize the accumulation".into());
    }
    let var = Var::Dim(d as u32);
    let moves = !matches!(stmt.op, StmtOp::Mma { .. } | StmtOp::Reduce { .. });
    for access in stmt.accesses() {
        let info = &program.buffers[access.buffer];
        if access.fill.is_some() {
            return fail("a clipped access is scalar".into());
        }
        if let Some(reason) = stride_problem(program, data, stmt, access, var) {
            return fail(reason);
        }
        let fills = fills_lanes(info.dtype) || (moves && is_half(info.dtype));
        if !fills && access.index.iter().any(|e| e.uses(var)) {
            return fail(format!("elements of type {} do not fill the lanes", info.dtype));
        }
    }
    if !stmt.write().index.iter().any(|e| e.uses(var)) {
        return fail("every lane would write the same element".into());
    }
    if let Some(data) = stmt.data_coordinate()
        && data.index.index.iter().any(|e| e.uses(var))
    {
        return fail("positions that differ by lane are taken one by one".into());
    }
    if matches!(stmt.op, StmtOp::Map { .. }) && stmt.carries() {
        return fail("its points depend on each other".into());
    }
    if let StmtOp::Map { value, .. } = &stmt.op
        && let Some(reason) = lane_problem(program, value)
    {
        return fail(reason);
    }
    program.kernels[k].stmts[s].dims[d].exec = Exec::Vector;
    Ok(())
}

/// Why an access is neither contiguous nor constant along a dimension.
fn stride_problem(program: &Program, data: &KernelData, stmt: &StmtData, access: &Access, var: Var) -> Option<String> {
    let info = &program.buffers[access.buffer];
    let offset = info.layout.offset(&access.index, &|v| data.extent_of(stmt, v));
    let stride = offset.coefficient(var);
    let mut hidden = false;
    for (atom, _) in offset.terms() {
        if let crate::tile::Atom::FloorDiv(e, _) | crate::tile::Atom::Mod(e, _) = atom {
            hidden |= e.uses(var);
        }
    }
    (hidden || !(0..=1).contains(&stride)).then(|| format!("`{}` is not contiguous along it", info.name))
}

/// Why an expression cannot be evaluated in lanes of four bytes. 16-bit floats are bits in such lanes: they may be moved,
/// and taken as `u16` to be extended or cut off.
fn lane_problem(program: &Program, value: &Expr) -> Option<String> {
    let types = match value.dtypes(&|b| program.buffers.get(b).map(|d| d.dtype)) {
        Ok(types) => types,
        Err(error) => return Some(error.to_string()),
    };
    let of = |r: &ExprRef| types[r.0 as usize];
    let lane = |dtype: DType| fills_lanes(dtype) || dtype == DType::Bool;
    value.insts.iter().zip(&types).find_map(|(inst, &dtype)| match inst {
        Inst::Load(_) => (!fills_lanes(dtype) && !is_half(dtype)).then(|| format!("it loads elements of type {dtype}")),
        Inst::Const(_) | Inst::Select(..) | Inst::Bitcast(..) if is_half(dtype) || dtype == DType::U16 => None,
        Inst::Cast(to, a) if *to == DType::U16 || of(a) == DType::U16 => {
            let other = if *to == DType::U16 { of(a) } else { *to };
            let plain = matches!(other, DType::I32 | DType::U32);
            (!plain).then(|| format!("it casts {} to {to}", of(a)))
        }
        Inst::Cast(_, a) | Inst::Unary(_, a) | Inst::Math(_, a) | Inst::Binary(_, a, _) | Inst::Pow(a, _)
            if !lane(of(a)) =>
        {
            Some(format!("it computes with type {}", of(a)))
        }
        _ => (!lane(dtype)).then(|| format!("it computes with type {dtype}")),
    })
}

/// Whether four elements of a type are a vector.
fn fills_lanes(dtype: DType) -> bool {
    dtype.bytes() == 4
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Repeats a loop's body in the code.
pub(super) fn unroll(program: &mut Program, kernel: &str, name: &str) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let l = own_loop(&program.kernels[k], name)?;
    program.kernels[k].loops[l].kind = LoopKind::Unrolled;
    Ok(())
}

/// Declares that a loop's iterations are independent, after proving it.
pub(super) fn parallel(program: &mut Program, kernel: &str, name: &str) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let data = &program.kernels[k];
    let l = own_loop(data, name)?;
    if data.loops[l].kind == LoopKind::Unrolled {
        // It may index registers.
        return Err(Refusal::Illegal(format!("`{name}` is unrolled")));
    }
    check_independent(program, data, l)?;
    program.kernels[k].loops[l].kind = LoopKind::Parallel;
    Ok(())
}

/// Exchanges two perfectly nested loops, one of which is independent.
pub(super) fn reorder(program: &mut Program, kernel: &str, outer: &str, inner: &str) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let data = &program.kernels[k];
    let (o, i) = (own_loop(data, outer)?, own_loop(data, inner)?);
    match data.loop_body(o) {
        Some([Item::Loop(x, _)]) if *x == i => {}
        _ => return Err(Refusal::Illegal(format!("`{inner}` is not the only item of `{outer}`"))),
    }
    check_independent(program, data, o).or_else(|_| check_independent(program, data, i))?;
    let (path, _) = data.locate_loop(o).ok_or_else(|| Refusal::NoLoop(outer.to_owned()))?;
    let at = path[path.len() - 1];
    let body = program.kernels[k].body_at_mut(&path).ok_or_else(|| Refusal::NoLoop(outer.to_owned()))?;
    if let Some(Item::Loop(_, nested)) = body.get_mut(at)
        && let Some(Item::Loop(_, leaf)) = nested.pop()
    {
        body[at] = Item::Loop(i, vec![Item::Loop(o, leaf)]);
    }
    Ok(())
}

/// Names the micro-kernel that executes a statement's tile.
pub(super) fn intrinsic(
    program: &mut Program,
    kernel: &str,
    stmt: &str,
    name: &str,
    target: &dyn Target,
) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let s = stmt_named(&program.kernels[k], stmt)?;
    let Some(intrinsic) = target.intrinsics().iter().find(|i| i.name == name) else {
        return Err(Refusal::Illegal(format!("machine `{}` has no intrinsic `{name}`", target.machine().name)));
    };
    let data = &program.kernels[k];
    if matches!(data.stmts[s].op, StmtOp::Map { .. }) {
        let sum = zeroed_contraction(program, data, s).map_err(|e| Refusal::Illegal(format!("`{stmt}`: {e}")))?;
        if data.stmts[sum].intrinsic.as_deref() != Some(name) {
            return Err(Refusal::Illegal(format!("`{stmt}`: the contraction after it is not given to `{name}`")));
        }
        program.kernels[k].stmts[s].intrinsic = Some(name.to_owned());
        return Ok(());
    }
    intrinsic.tile(program, data, &data.stmts[s]).map_err(|e| Refusal::Illegal(format!("`{stmt}`: {e}")))?;
    program.kernels[k].stmts[s].intrinsic = Some(name.to_owned());
    Ok(())
}

/// A loop of that name which is the kernel's own.
fn own_loop(data: &KernelData, name: &str) -> Result<Loop, Refusal> {
    let l = data.loop_named(name).ok_or_else(|| Refusal::NoLoop(name.to_owned()))?;
    if data.loops[l].kind == LoopKind::Repeat {
        return Err(Refusal::Illegal(format!("`{name}` is run by the program, one iteration for each call")));
    }
    Ok(l)
}

/// Proves that no value flows between iterations of a loop: every buffer written inside is either private to the kernel and
/// not used outside the loop, or all accesses to it inside are partitioned by the loop's variable.
fn check_independent(program: &Program, data: &KernelData, l: Loop) -> Result<(), Refusal> {
    let mut inside = Vec::new();
    crate::tile::walk::collect_stmts(data.loop_body(l).unwrap_or_default(), &mut inside);
    let (_, around) = data.locate_loop(l).ok_or_else(|| Refusal::NoLoop(data.loops[l].name.clone()))?;
    let outer = |v: Var| matches!(v, Var::Loop(x) if around.contains(&x));
    for &writer in &inside {
        let buffer = data.stmts[writer].write().buffer;
        let private = matches!(program.buffers[buffer].storage, Storage::Local(Space::Scratch | Space::Reg))
            && data.stmts_in_order().iter().all(|s| inside.contains(s) || !data.stmts[*s].touches(buffer))
            && inside.iter().all(|&s| data.stmts[s].write().buffer != buffer || !data.stmts[s].carries());
        let seen: Vec<Seen<'_>> = inside
            .iter()
            .map(|&s| &data.stmts[s])
            .flat_map(|stmt| stmt.accesses().into_iter().map(move |access| (stmt, access)))
            .filter(|(_, access)| access.buffer == buffer)
            .map(|(stmt, access)| Seen {
                access,
                var: Var::Loop(l),
                extents: Box::new(move |v| data.extent_of(stmt, v)),
            })
            .collect();
        if !private && common_partition(&seen, &outer).is_none() {
            return Err(Refusal::Illegal(format!(
                "iterations of `{}` may touch the same elements of `{}`",
                data.loops[l].name, program.buffers[buffer].name
            )));
        }
    }
    Ok(())
}
