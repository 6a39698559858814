//! Rules 11 to 14: element types, and the ranges of indices.

use super::{Placed, Rule, Verifier};
use crate::tile::{Access, Affine, Buffer, Inst, KernelData, ScalarBinary, Step, StmtData, StmtOp, Storage};
use crate::types::DType;

/// Whether sums of products of `operand` can be kept in `acc`.
pub(super) fn accumulates(operand: DType, acc: DType) -> bool {
    let wider = acc.bytes() >= operand.bytes();
    match (operand, acc) {
        (DType::Bool, _) | (_, DType::Bool) => false,
        // The two formats of 16 bits do not hold each other's values.
        (a, b) if a == b => true,
        (a, b) if a.is_float() => b.is_float() && wider && b.bytes() > a.bytes(),
        (a, b) => b.is_int() && wider && (b.is_signed_int() || !a.is_signed_int()),
    }
}

/// Arithmetic operations of an instruction.
pub(super) fn operations(inst: &Inst) -> u64 {
    match inst {
        Inst::Load(_) | Inst::Const(_) | Inst::Cast(..) | Inst::Bitcast(..) | Inst::Select(..) => 0,
        Inst::Binary(ScalarBinary::And | ScalarBinary::Or | ScalarBinary::Xor, ..) => 0,
        Inst::Binary(ScalarBinary::Shl | ScalarBinary::Shr, ..) => 0,
        Inst::Unary(..) | Inst::Binary(..) | Inst::Math(..) | Inst::Pow(..) => 1,
        Inst::Fma(..) => 2,
    }
}

impl Verifier<'_> {
    /// Types of every statement.
    pub(super) fn dtypes(&mut self, kernel: &KernelData, placed: &[Placed]) {
        for p in placed {
            let stmt = &kernel.stmts[p.stmt];
            if let Err(rule) = self.stmt_types(kernel, stmt) {
                self.report_stmt(kernel, p.stmt, rule);
            }
        }
    }

    fn dtype(&self, access: &Access) -> DType {
        self.program.buffers[access.buffer].dtype
    }

    fn stmt_types(&self, kernel: &KernelData, stmt: &StmtData) -> Result<(), Rule> {
        let same = |what, expected: DType, actual: DType| {
            if expected == actual { Ok(()) } else { Err(Rule::Type { what, expected: expected.to_string(), actual }) }
        };
        match &stmt.op {
            StmtOp::Copy { dst, src } => same("the source", self.dtype(dst), self.dtype(src)),
            StmtOp::Map { dst, value } => {
                let types = value.dtypes(&|b| self.program.buffers.get(b).map(|d| d.dtype)).map_err(Rule::Expr)?;
                types.last().map_or(Ok(()), |&actual| same("the value", self.dtype(dst), actual))
            }
            StmtOp::Mma { acc, a, b, fused: _ } => {
                let (operand, sum) = (self.dtype(a), self.dtype(acc));
                same("the right operand", operand, self.dtype(b))?;
                if accumulates(operand, sum) {
                    Ok(())
                } else {
                    let expected = format!("a type that holds sums of {operand}");
                    Err(Rule::Type { what: "the accumulator", expected, actual: sum })
                }
            }
            StmtOp::Reduce { dst, op: _, src } => {
                same("the source", self.dtype(dst), self.dtype(src))?;
                match self.dtype(src) {
                    DType::Bool => {
                        Err(Rule::Type { what: "the source", expected: "a number".into(), actual: DType::Bool })
                    }
                    _ => Ok(()),
                }
            }
            StmtOp::Gather { dst, src, index, axis } => {
                same("the source", self.dtype(dst), self.dtype(src))?;
                self.data_coordinate(kernel, src, index, *axis)
            }
            StmtOp::Scatter { dst, op, src, index, axis } => {
                same("the source", self.dtype(dst), self.dtype(src))?;
                if op.is_some() && self.dtype(src) == DType::Bool {
                    return Err(Rule::Type { what: "the source", expected: "a number".into(), actual: DType::Bool });
                }
                self.data_coordinate(kernel, dst, index, *axis)
            }
        }
    }

    /// Rule 14 for an access whose coordinate `axis` is read at `index`.
    fn data_coordinate(&self, kernel: &KernelData, access: &Access, index: &Access, axis: usize) -> Result<(), Rule> {
        let dtype = self.dtype(index);
        if !matches!(dtype, DType::I32 | DType::I64) {
            let expected = "i32 or i64".to_owned();
            return Err(Rule::Type { what: "the index", expected, actual: dtype });
        }
        let Some(&size) = self.program.buffers[access.buffer].shape.get(axis) else {
            return Err(Rule::GatherAxis { buffer: access.buffer, axis });
        };
        if access.index[axis] != Affine::constant(0) {
            return Err(Rule::GatherCoordinate);
        }
        if let Some(fill) = index.fill {
            let value = if dtype == DType::I32 { i64::from(fill.bits as i32) } else { fill.bits as i64 };
            within(value, size)?;
        }
        self.index_range(kernel, index.buffer, size)
    }

    /// Whether all of a buffer's elements are proved to be positions of a dimension of `size`.
    fn index_range(&self, kernel: &KernelData, buffer: Buffer, size: u64) -> Result<(), Rule> {
        let mut checked = false;
        for step in &self.program.steps {
            match step {
                Step::Repeat { .. } | Step::End => {}
                Step::Check { buffer: b, bound } => checked |= *b == buffer && *bound <= size,
                Step::Run(k) => {
                    let Some(other) = self.program.kernels.get(*k) else { continue };
                    if std::ptr::eq(other, kernel) {
                        break;
                    }
                    let stmts = other.stmts_in_order().into_iter().filter_map(|s| other.stmts.get(s));
                    checked &= !stmts.map(|s| s.write().buffer).any(|b| b == buffer);
                }
            }
        }
        let written_here = kernel.stmts_in_order().iter().any(|s| kernel.stmts[*s].write().buffer == buffer);
        if checked && !written_here {
            return Ok(());
        }
        match &self.program.buffers[buffer].storage {
            Storage::Const(t) => (0..t.ty().elems()).filter_map(|i| t.get_i64(i)).try_for_each(|i| within(i, size)),
            Storage::Input(_) | Storage::Output(_) | Storage::Temp | Storage::Local(_) => {
                Err(Rule::Unchecked(buffer, size))
            }
        }
    }
}

fn within(index: i64, size: u64) -> Result<(), Rule> {
    let (index, bound) = (i128::from(index), i128::from(size));
    if (-bound..bound).contains(&index) { Ok(()) } else { Err(Rule::ConstIndex(size)) }
}
