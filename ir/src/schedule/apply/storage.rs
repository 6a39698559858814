//! `stage`, `layout`, `place`: where intermediate values live and how they are stored.

use super::{Refusal, buffer_named, check_free, check_free_buffer, kernel_named, stmt_named, used_elsewhere};
use crate::tile::{BufferData, Dim, Exec, Item, Layout, Program, Space, StmtData, StmtOp, Storage, Var};

/// Lets statements compute into a new temporary and copies it to the buffer after the last of them.
pub(super) fn stage(
    program: &mut Program,
    kernel: &str,
    stmts: &[String],
    buffer: &str,
    into: &str,
) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let b = buffer_named(program, buffer)?;
    check_free_buffer(program, into)?;
    let data = &program.kernels[k];
    let group = stmts.iter().map(|s| stmt_named(data, s)).collect::<Result<Vec<_>, _>>()?;
    let (Some(&first), Some(&last)) = (group.first(), group.last()) else {
        return Err(Refusal::Illegal("no statement is named".into()));
    };
    let store_name = format!("{}_store", data.stmts[last].name);
    check_free(data, &store_name)?;
    // The first statement overwrites whole elements, and all of them use the same ones, so the temporary is complete.
    let write = data.stmts[first].write().clone();
    if write.buffer != b || data.stmts[first].reads().iter().any(|a| a.buffer == b) {
        return Err(Refusal::Illegal(format!("`{}` does not initialize `{buffer}`", data.stmts[first].name)));
    }
    let dims: Vec<Dim> = data.stmts[first].dims.clone();
    let info = &program.buffers[b];
    let covers = write.index.len() == dims.len()
        && write.index.iter().enumerate().all(|(i, e)| {
            dims[i].extent == info.shape[i] && (dims[i].extent == 1 || e.as_var() == Some(Var::Dim(i as u32)))
        });
    if !covers {
        return Err(Refusal::Illegal(format!("`{}` does not write the whole of `{buffer}`", data.stmts[first].name)));
    }
    let temp = program.buffers.push(BufferData::dense(into, info.dtype, &info.shape.clone(), Storage::Temp));
    let data = &mut program.kernels[k];
    for &s in &group {
        for access in data.stmts[s].accesses_mut() {
            if access.buffer == b {
                access.buffer = temp;
            }
        }
    }
    let src = crate::tile::Access { buffer: temp, ..write.clone() };
    let dims = dims.into_iter().map(|d| Dim { exec: Exec::Unroll, ..d }).collect();
    let op = StmtOp::Copy { dst: write, src };
    let store = data.stmts.push(StmtData { name: store_name, dims, op, intrinsic: None });
    let (path, _) = data.locate(last).ok_or_else(|| Refusal::NoStmt(stmts[stmts.len() - 1].clone()))?;
    let at = path[path.len() - 1] + 1;
    let body = data.body_at_mut(&path).ok_or_else(|| Refusal::Illegal("no such position".into()))?;
    body.insert(at, Item::Stmt(store));
    Ok(())
}

/// Sets the storage order of a constant, temporary or private buffer.
pub(super) fn layout(program: &mut Program, buffer: &str, layout: &Layout) -> Result<(), Refusal> {
    let b = buffer_named(program, buffer)?;
    let info = &mut program.buffers[b];
    if matches!(info.storage, Storage::Input(_) | Storage::Output(_)) {
        return Err(Refusal::Illegal(format!("`{buffer}` belongs to the caller, who stores it row-major")));
    }
    layout.check(&info.shape).map_err(|e| Refusal::Illegal(e.to_string()))?;
    info.layout = layout.clone();
    Ok(())
}

/// Makes a temporary private to the one kernel that uses it.
pub(super) fn place(program: &mut Program, kernel: &str, buffer: &str, space: Space) -> Result<(), Refusal> {
    let k = kernel_named(program, kernel)?;
    let b = buffer_named(program, buffer)?;
    if !matches!(program.buffers[b].storage, Storage::Temp | Storage::Local(_)) {
        return Err(Refusal::Illegal(format!("`{buffer}` is not a temporary")));
    }
    if used_elsewhere(program, k, b) {
        return Err(Refusal::Illegal(format!("`{buffer}` is used by other kernels too")));
    }
    if space == Space::Reg {
        let data = &program.kernels[k];
        for s in data.stmts_in_order() {
            let stmt = &data.stmts[s];
            if stmt.intrinsic.is_some() && stmt.touches(b) {
                return Err(Refusal::Illegal(format!("`{}` needs `{buffer}` in memory for its intrinsic", stmt.name)));
            }
            if stmt.data_coordinate().is_some_and(|data| data.access.buffer == b) {
                return Err(Refusal::Illegal(format!("data indexes `{buffer}` in `{}`", stmt.name)));
            }
            for access in stmt.accesses().into_iter().filter(|a| a.buffer == b) {
                let mut indexed_by_loop = false;
                for e in &access.index {
                    e.for_each_var(&mut |v| {
                        indexed_by_loop |=
                            matches!(v, Var::Loop(l) if data.loops[l].kind != crate::tile::LoopKind::Unrolled)
                    });
                }
                if indexed_by_loop || access.fill.is_some() {
                    return Err(Refusal::Illegal(format!(
                        "`{}` indexes `{buffer}` by a loop, so its elements are not fixed registers",
                        stmt.name
                    )));
                }
            }
        }
    }
    program.buffers[b].storage = Storage::Local(space);
    Ok(())
}
