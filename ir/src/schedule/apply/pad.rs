//! `pad`: a temporary gets a border, so that windows that reach beyond it are full boxes.
//!
//! ```text
//!                                             kernel border_7 { map t[0, d1] = 0; map t[29, d1] = 0; … }
//! kernel a { map t[d0, d1] = … }        ─▶    kernel a { map t[d0 + 1, d1 + 1] = … }
//! kernel b { … t[d0 + k0 - 1, ..] fill 0 }    kernel b { … t[d0 + k0, ..] }
//! ```
//!
//! The producer writes to where the consumer reads: nothing is copied.

use super::{Refusal, buffer_named, check_free_kernel};
use crate::tile::{
    Access, Affine, Buffer, Dim, Exec, Expr, Item, KernelData, Layout, Program, Scalar, Step, StmtData, StmtOp, Storage,
};
use crate::types::MAX_ELEMENTS;

pub(super) fn pad(program: &mut Program, buffer: &str, border: &[(u64, u64)], value: Scalar) -> Result<(), Refusal> {
    let b = buffer_named(program, buffer)?;
    let info = &program.buffers[b];
    let fail = |reason: String| Err(Refusal::Illegal(format!("`{buffer}` {reason}")));
    if info.storage != Storage::Temp {
        return fail("is not a temporary".into());
    }
    let Some(order) = info.layout.permutation(&info.shape) else {
        return fail("is not stored axis by axis".into());
    };
    if border.len() != info.shape.len() {
        return fail(format!("has {} axes, and a border is given for {}", info.shape.len(), border.len()));
    }
    let grown = |(&size, &(before, after)): (&u64, &(u64, u64))| size.checked_add(before)?.checked_add(after);
    let shape: Option<Vec<u64>> = info.shape.iter().zip(border).map(grown).collect();
    let elems = |shape: &Vec<u64>| shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS));
    let Some(shape) = shape.filter(|shape| elems(shape).is_some()) else {
        return fail("would be too large".into());
    };
    if value.dtype != info.dtype || !value.is_valid() {
        return fail(format!("holds no {:?}", value.dtype));
    }
    let kernel_name = format!("border_{}", b.as_u32());
    check_free_kernel(program, &kernel_name)?;
    let mut first = None;
    let mut repeats = 0;
    let mut kernels = Vec::new();
    for (position, step) in program.steps.iter().enumerate() {
        match step {
            Step::Run(k) if program.kernels[*k].touches(b) => {
                if first.is_none() && repeats > 0 {
                    return fail("is first used in a repeat".into());
                }
                first.get_or_insert(position);
                kernels.push(*k);
            }
            Step::Check { buffer, .. } if *buffer == b => return fail("holds indices that are checked".into()),
            Step::Repeat { .. } => repeats += 1,
            Step::End => repeats -= 1,
            Step::Run(_) | Step::Check { .. } => {}
        }
    }
    let Some(first) = first else { return fail("is not used".into()) };
    for &k in &kernels {
        let data = &program.kernels[k];
        for s in data.stmts_in_order() {
            if data.stmts[s].data_coordinate().is_some_and(|coordinate| coordinate.access.buffer == b) {
                return fail(format!("is indexed by data in `{}`", data.stmts[s].name));
            }
            let other = |a: &&Access| a.buffer == b && a.fill.is_some_and(|fill| fill != value);
            if data.stmts[s].reads().iter().any(other) {
                return fail(format!("has another value around it in `{}`", data.stmts[s].name));
            }
        }
    }

    for &k in &kernels {
        let data = &program.kernels[k];
        for s in data.stmts_in_order() {
            let mut stmt = program.kernels[k].stmts[s].clone();
            let extents: Vec<u64> = stmt.dims.iter().map(|d| d.extent).collect();
            let loops = &program.kernels[k].loops;
            let extent = |v| match v {
                crate::tile::Var::Loop(l) => loops[l].extent,
                crate::tile::Var::Dim(i) => extents[i as usize],
            };
            for access in stmt.accesses_mut().into_iter().filter(|a| a.buffer == b) {
                for (index, &(before, _)) in access.index.iter_mut().zip(border) {
                    *index = index.add_constant(before as i64);
                }
                let inside = |(index, &size): (&Affine, &u64)| {
                    let (low, high) = index.range(&extent);
                    low >= 0 && high < size as i64
                };
                if access.index.iter().zip(&shape).all(inside) {
                    access.fill = None;
                }
            }
            program.kernels[k].stmts[s] = stmt;
        }
    }
    let sources = program.kernels[kernels[0]].sources.clone();
    let written = border_kernel(kernel_name, sources, b, &shape, border, value);
    let info = &mut program.buffers[b];
    info.layout = Layout::permuted(&shape, &order);
    info.shape = shape;
    if let Some(data) = written {
        let k = program.kernels.push(data);
        program.steps.insert(first, Step::Run(k));
    }
    Ok(())
}

/// The kernel that writes the border: for each axis what lies before and after, over the inside of earlier axes and the whole
/// of later ones.
fn border_kernel(
    name: String,
    sources: Vec<String>,
    buffer: Buffer,
    shape: &[u64],
    border: &[(u64, u64)],
    value: Scalar,
) -> Option<KernelData> {
    let mut kernel = KernelData { name, sources, ..KernelData::default() };
    for axis in 0..shape.len() {
        let (before, after) = border[axis];
        for (part, start, count) in [("before", 0, before), ("after", shape[axis] - after, after)] {
            if count == 0 {
                continue;
            }
            let mut dims = Vec::with_capacity(shape.len());
            let mut index = Vec::with_capacity(shape.len());
            for (i, &size) in shape.iter().enumerate() {
                let (origin, extent) = match i.cmp(&axis) {
                    std::cmp::Ordering::Less => (border[i].0, size - border[i].0 - border[i].1),
                    std::cmp::Ordering::Equal => (start, count),
                    std::cmp::Ordering::Greater => (0, size),
                };
                let own = if extent == 1 { Affine::constant(0) } else { Affine::dim(i) };
                index.push(own.add_constant(origin as i64));
                dims.push(Dim { name: format!("d{i}"), extent, exec: Exec::Unroll });
            }
            if dims.iter().any(|d| d.extent == 0) {
                continue;
            }
            let op = StmtOp::Map { dst: Access::new(buffer, index), value: Expr::constant(value) };
            let stmt = StmtData { name: format!("{part}{axis}"), dims, op, intrinsic: None };
            let stmt = kernel.stmts.push(stmt);
            kernel.body.push(Item::Stmt(stmt));
        }
    }
    (!kernel.body.is_empty()).then_some(kernel)
}
