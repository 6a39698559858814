//! Execution of statements.
//!
//! A statement is prepared once per kernel. Its points are taken in row-major order, a few hundred at a time: the operands of
//! all of them are read, each instruction is done for all, and the results are written in order. Where a point may read
//! what an earlier one of the same statement writes, points are taken one at a time, so the result is always
//! that of the sequential definition.

use super::InterpErrorKind;
use super::access::{Active, FILL, Prepared, Resolved};
use super::memory::Memory;
use super::scalar::{self, Number, for_number};
use crate::tile::{Access, Buffer, Combine, Expr, Inst, Program, ScalarBinary, StmtData, StmtOp};
use crate::types::DType;

/// Points taken at a time.
const CHUNK: usize = 256;

/// What a statement does with the values that it has read.
#[derive(Debug)]
enum Action {
    /// Writes the value of an expression: which instruction each load is, and the types of all.
    Map { insts: Vec<Inst>, loads: Vec<usize>, types: Vec<DType> },
    /// Writes what it read.
    Copy,
    /// Adds products to `dst`.
    Mma { fused: bool, operands: DType },
    /// Combines by a tree.
    Reduce { op: ScalarBinary },
    /// Reads again, at a position that was read.
    Gather { src: Prepared, src_dtype: DType, axis: usize, size: i64 },
    /// Writes at a position that was read.
    Scatter { op: Option<ScalarBinary>, axis: usize, size: i64 },
}

/// A statement, ready to run.
#[derive(Debug)]
pub(super) struct Ready {
    active: Active,
    dst: Prepared,
    dtype: DType,
    loads: Vec<(Prepared, DType)>,
    action: Action,
    /// Whether a load reads the buffer that is written.
    in_place: bool,
    /// Whether every such load reads exactly the element that is written.
    same_element: bool,
    // Reused from run to run.
    resolved: Vec<Resolved>,
    offsets: Vec<Vec<usize>>,
    values: Vec<Vec<u64>>,
    registers: Vec<Vec<u64>>,
    groups: Groups,
}

/// Points of a reduction by the element they go to.
#[derive(Debug, Default)]
struct Groups {
    /// For each element of `dst`, its group plus 1.
    of_offset: Vec<u32>,
    offsets: Vec<usize>,
    members: Vec<Vec<u64>>,
}

fn combine(op: Combine) -> ScalarBinary {
    match op {
        Combine::Add => ScalarBinary::Add,
        Combine::Mul => ScalarBinary::Mul,
        Combine::Max => ScalarBinary::Max,
        Combine::Min => ScalarBinary::Min,
    }
}

impl Ready {
    /// Prepares a statement of a program whose buffers have been checked.
    pub(super) fn new(program: &Program, stmt: &StmtData) -> Result<Self, InterpErrorKind> {
        let active = Active::new(&stmt.dims);
        let prepare = |access: &Access| -> Result<(Prepared, DType), InterpErrorKind> {
            let malformed = |reason: &str| Err(InterpErrorKind::Malformed(reason.to_owned()));
            let Some(data) = program.buffers.get(access.buffer) else { return malformed("an unknown buffer") };
            if access.index.len() != data.shape.len() {
                return malformed("an access with too few or too many coordinates");
            }
            if access.fill.is_some_and(|f| f.dtype != data.dtype) {
                return malformed("a fill value of another type than its buffer");
            }
            Ok((Prepared::new(access, &data.shape, &data.layout.dims, &active), data.dtype))
        };
        let (dst_access, sources): (&Access, Vec<&Access>) = match &stmt.op {
            StmtOp::Copy { dst, src } | StmtOp::Reduce { dst, src, .. } => (dst, vec![src]),
            StmtOp::Map { dst, value } => (dst, value.loads().collect()),
            StmtOp::Mma { acc, a, b, .. } => (acc, vec![a, b]),
            StmtOp::Gather { dst, index, .. } => (dst, vec![index]),
            StmtOp::Scatter { dst, src, index, .. } => (dst, vec![src, index]),
        };
        let mut in_place = sources.iter().any(|s| s.buffer == dst_access.buffer);
        let same_element = sources.iter().all(|s| s.buffer != dst_access.buffer || *s == dst_access);
        let (dst, dtype) = prepare(dst_access)?;
        if dst.fill.is_some() {
            return Err(InterpErrorKind::Malformed("a fill value where memory is written".into()));
        }
        let loads = sources.iter().map(|s| prepare(s)).collect::<Result<Vec<_>, _>>()?;
        let type_error = |what: &str| Err(InterpErrorKind::Malformed(format!("{what} of the wrong type")));
        let action = match &stmt.op {
            StmtOp::Copy { .. } if loads[0].1 == dtype => Action::Copy,
            StmtOp::Copy { .. } => return type_error("a copy"),
            StmtOp::Map { value, .. } => {
                let types = value
                    .dtypes(&|b| program.buffers.get(b).map(|d| d.dtype))
                    .map_err(|e| InterpErrorKind::Malformed(e.to_string()))?;
                if types.last() != Some(&dtype) {
                    return type_error("a value");
                }
                let Expr { insts } = value;
                let loads = (0..insts.len()).filter(|&i| matches!(insts[i], Inst::Load(_))).collect();
                Action::Map { insts: insts.clone(), loads, types }
            }
            StmtOp::Mma { fused, .. } if loads[0].1 == loads[1].1 && dtype != DType::Bool => {
                Action::Mma { fused: *fused, operands: loads[0].1 }
            }
            StmtOp::Mma { .. } => return type_error("a factor"),
            StmtOp::Reduce { op, .. } if loads[0].1 == dtype && dtype != DType::Bool => {
                Action::Reduce { op: combine(*op) }
            }
            StmtOp::Reduce { .. } => return type_error("a reduction"),
            StmtOp::Gather { src, axis, .. } => {
                let (prepared, src_dtype) = prepare(src)?;
                if src_dtype != dtype || !matches!(loads[0].1, DType::I32 | DType::I64) {
                    return type_error("a gather");
                }
                in_place |= src.buffer == dst_access.buffer;
                let Some(&size) = program.buffers[src.buffer].shape.get(*axis) else {
                    return Err(InterpErrorKind::Malformed("a gather along an axis that does not exist".into()));
                };
                Action::Gather { src: prepared, src_dtype, axis: *axis, size: size as i64 }
            }
            StmtOp::Scatter { dst, op, axis, .. } => {
                if loads[0].1 != dtype || !matches!(loads[1].1, DType::I32 | DType::I64) {
                    return type_error("a scatter");
                }
                let Some(&size) = program.buffers[dst.buffer].shape.get(*axis) else {
                    return Err(InterpErrorKind::Malformed("a scatter along an axis that does not exist".into()));
                };
                // An element may be written again, by the same statement.
                in_place = true;
                Action::Scatter { op: op.map(combine), axis: *axis, size: size as i64 }
            }
        };
        let count = loads.len() + 2;
        Ok(Self {
            active,
            dst,
            dtype,
            loads,
            action,
            in_place,
            same_element,
            resolved: (0..count).map(|_| Resolved::default()).collect(),
            offsets: vec![Vec::new(); count],
            values: vec![Vec::new(); count],
            registers: Vec::new(),
            groups: Groups::default(),
        })
    }

    /// Runs the statement for every point of its tile.
    pub(super) fn run(&mut self, loops: &[i64], memory: &mut [Memory]) -> Result<(), InterpErrorKind> {
        let extents = std::mem::take(&mut self.active.extents);
        self.active.extents = extents.clone();
        self.dst.resolve(&self.active, loops, &mut self.resolved[0]);
        for (i, (load, _)) in self.loads.iter().enumerate() {
            load.resolve(&self.active, loops, &mut self.resolved[i + 1]);
        }
        if let Action::Gather { src, .. } = &self.action {
            src.resolve(&self.active, loops, &mut self.resolved[self.loads.len() + 1]);
        }
        let row = extents.last().copied().unwrap_or(1) as usize;
        // A point may see what an earlier one wrote, unless every point keeps to an element of its own.
        let own_element = || self.same_element && self.dst.last_stride(&self.resolved[0]).is_some_and(|s| s != 0);
        let (chunk, within_row) = match &self.action {
            // The tree is over all points: everything is read before anything is written.
            Action::Reduce { .. } => (CHUNK, false),
            _ if !self.in_place => (CHUNK, false),
            Action::Map { .. } | Action::Copy if own_element() => (CHUNK, true),
            _ => (1, false),
        };
        let mut point = vec![0; extents.len()];
        loop {
            // The next points, as runs along the last dimension.
            for offsets in &mut self.offsets {
                offsets.clear();
            }
            let first = point.clone();
            let mut taken = 0;
            let mut done = false;
            while taken < chunk && !done && !(within_row && taken > 0) {
                let position = point.last().copied().unwrap_or(0) as usize;
                let count = (row - position).min(chunk - taken);
                self.dst.run(&self.resolved[0], &self.active, loops, &mut point, count, &mut self.offsets[0])?;
                for (i, (load, _)) in self.loads.iter().enumerate() {
                    let (resolved, offsets) = (&self.resolved[i + 1], &mut self.offsets[i + 1]);
                    load.run(resolved, &self.active, loops, &mut point, count, offsets)?;
                }
                taken += count;
                done = !advance(&mut point, &extents, count as i64);
            }
            self.step(loops, memory, &first, &extents)?;
            if done {
                break;
            }
        }
        if let Action::Reduce { op } = self.action {
            self.groups.finish(op, self.dtype, &self.dst, memory)?;
        }
        Ok(())
    }

    /// Does what the statement does for the points at hand.
    fn step(
        &mut self,
        loops: &[i64],
        memory: &mut [Memory],
        first: &[i64],
        extents: &[i64],
    ) -> Result<(), InterpErrorKind> {
        let count = self.loads.len();
        for (i, (load, dtype)) in self.loads.iter().enumerate() {
            let from = &memory[load.buffer.as_u32() as usize];
            let fill = load.fill.unwrap_or(0);
            from.read_all(load.buffer, *dtype, &self.offsets[i + 1], fill, &mut self.values[i])?;
        }
        let dst = self.dst.buffer;
        let points = self.offsets[0].len();
        let result = match &self.action {
            Action::Copy => &self.values[0],
            Action::Map { insts, loads, types } => {
                self.registers.resize_with(insts.len(), Vec::new);
                for (value, &inst) in self.values.iter_mut().zip(loads) {
                    std::mem::swap(value, &mut self.registers[inst]);
                }
                for (i, inst) in insts.iter().enumerate() {
                    let (before, rest) = self.registers.split_at_mut(i);
                    evaluate(inst, types, before, &mut rest[0], points);
                }
                &self.registers[insts.len() - 1]
            }
            Action::Mma { fused, operands } => {
                let (a, b) = self.values.split_at_mut(1);
                let (a, b) = (&mut a[0], &mut b[0]);
                if *operands != self.dtype {
                    for v in a.iter_mut().chain(b.iter_mut()) {
                        *v = scalar::cast_one(*operands, self.dtype, *v);
                    }
                }
                let into = &mut memory[dst.as_u32() as usize];
                for_number!(self.dtype, T => for ((&offset, a), b) in self.offsets[0].iter().zip(a).zip(b) {
                    let (a, b) = (T::of(*a), T::of(*b));
                    let acc = T::of(into.read(dst, self.dtype, offset)?);
                    let sum = if *fused { Number::fma(a, b, acc) } else { Number::add(acc, Number::mul(a, b)) };
                    into.write(dst, self.dtype, offset, sum.bits())?;
                });
                return Ok(());
            }
            Action::Reduce { .. } => {
                self.groups.collect(&self.offsets[0], &self.values[0]);
                return Ok(());
            }
            Action::Gather { src, src_dtype, axis, size } => {
                let from = &memory[src.buffer.as_u32() as usize];
                let (indices, rest) = self.values.split_at_mut(1);
                let out = &mut rest[0];
                out.clear();
                let mut point = first.to_vec();
                for &bits in &indices[0] {
                    let at = position(self.loads[0].1, bits, src.buffer, *size)?;
                    let resolved = &self.resolved[count + 1];
                    let offset = src.offset_at(resolved, &self.active, loops, &point, Some((*axis, at)))?;
                    out.push(match (offset, src.fill) {
                        (FILL, Some(fill)) => fill,
                        _ => from.read(src.buffer, *src_dtype, offset)?,
                    });
                    advance(&mut point, extents, 1);
                }
                &self.values[1]
            }
            Action::Scatter { op, axis, size } => {
                let mut point = first.to_vec();
                let into = &mut memory[dst.as_u32() as usize];
                for (&update, &index) in self.values[0].iter().zip(&self.values[1]) {
                    let at = position(self.loads[1].1, index, dst, *size)?;
                    let place = Some((*axis, at));
                    let offset = self.dst.offset_at(&self.resolved[0], &self.active, loops, &point, place)?;
                    let mut result = [update];
                    if let Some(op) = op {
                        let old = into.read(dst, self.dtype, offset)?;
                        scalar::binary(*op, self.dtype, &[old], &[update], &mut result);
                    }
                    into.write(dst, self.dtype, offset, result[0])?;
                    advance(&mut point, extents, 1);
                }
                return Ok(());
            }
        };
        let into = &mut memory[dst.as_u32() as usize];
        for (&offset, &bits) in self.offsets[0].iter().zip(result) {
            into.write(dst, self.dtype, offset, bits)?;
        }
        Ok(())
    }
}

/// The position that an index names in a dimension of `buffer`.
fn position(dtype: DType, bits: u64, buffer: Buffer, size: i64) -> Result<i64, InterpErrorKind> {
    let index = if dtype == DType::I32 { i64::from(bits as i32) } else { bits as i64 };
    let at = if index < 0 { index.wrapping_add(size) } else { index };
    if (0..size).contains(&at) {
        Ok(at)
    } else {
        Err(InterpErrorKind::GatherIndex { buffer, index, bound: size as u64 })
    }
}

/// Moves `count` points on along the last dimension, at most to its end; false after the last point.
fn advance(point: &mut [i64], extents: &[i64], count: i64) -> bool {
    let mut by = count;
    for (p, &n) in point.iter_mut().zip(extents).rev() {
        *p += by;
        if *p < n {
            return true;
        }
        *p = 0;
        by = 1;
    }
    false
}

/// Evaluates one instruction for all points. Loads are in place already.
fn evaluate(inst: &Inst, types: &[DType], before: &[Vec<u64>], out: &mut Vec<u64>, points: usize) {
    if let Inst::Load(_) = inst {
        return;
    }
    out.clear();
    out.resize(points, 0);
    let value = |r: crate::tile::ExprRef| before[r.0 as usize].as_slice();
    let dtype = |r: crate::tile::ExprRef| types[r.0 as usize];
    match inst {
        Inst::Load(_) => {}
        Inst::Const(s) => out.fill(s.bits),
        Inst::Unary(op, a) => scalar::unary(*op, dtype(*a), value(*a), out),
        Inst::Binary(op, a, b) => scalar::binary(*op, dtype(*a), value(*a), value(*b), out),
        Inst::Fma(a, b, c) => scalar::fma(dtype(*a), value(*a), value(*b), value(*c), out),
        Inst::Select(c, a, b) => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = if value(*c)[i] != 0 { value(*a)[i] } else { value(*b)[i] };
            }
        }
        Inst::Cast(to, a) => scalar::cast(dtype(*a), *to, value(*a), out),
        Inst::Bitcast(_, a) => out.copy_from_slice(value(*a)),
        Inst::Math(f, a) => scalar::math(*f, dtype(*a), value(*a), out),
        Inst::Pow(a, b) => scalar::pow(dtype(*a), value(*a), value(*b), out),
    }
}

impl Groups {
    fn collect(&mut self, offsets: &[usize], values: &[u64]) {
        for (&offset, &value) in offsets.iter().zip(values) {
            if self.of_offset.len() <= offset {
                self.of_offset.resize(offset + 1, 0);
            }
            let slot = &mut self.of_offset[offset];
            if *slot == 0 {
                self.offsets.push(offset);
                *slot = self.offsets.len() as u32;
                if self.members.len() < self.offsets.len() {
                    self.members.push(Vec::new());
                }
            }
            self.members[*slot as usize - 1].push(value);
        }
    }

    /// Reduces every group by the tree, combines it with the old value, and starts anew.
    fn finish(
        &mut self,
        op: ScalarBinary,
        dtype: DType,
        dst: &Prepared,
        memory: &mut [Memory],
    ) -> Result<(), InterpErrorKind> {
        let into = &mut memory[dst.buffer.as_u32() as usize];
        let mut combined = Vec::new();
        for (offset, values) in self.offsets.drain(..).zip(&mut self.members) {
            self.of_offset[offset] = 0;
            while values.len() > 1 {
                let half = values.len().div_ceil(2);
                let (low, high) = values.split_at(half);
                combined.clear();
                combined.resize(high.len(), 0);
                scalar::binary(op, dtype, &low[..high.len()], high, &mut combined);
                values[..combined.len()].copy_from_slice(&combined);
                values.truncate(half);
            }
            let old = into.read(dst.buffer, dtype, offset)?;
            let mut result = [0];
            scalar::binary(op, dtype, &[old], values, &mut result);
            values.clear();
            into.write(dst.buffer, dtype, offset, result[0])?;
        }
        Ok(())
    }
}
