//! Scalar expressions of `map` statements, on single elements and on vectors.
//!
//! Instructions whose operands are the same in all lanes are done once, on scalars. In vectors a truth value is a mask of
//! all ones or all zeros; alone it is a byte, 0 or 1.

use aic_ir::tile::{Combine, Expr, ExprRef, Inst, ScalarBinary, ScalarUnary, Stmt, StmtData};
use aic_ir::types::DType;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, I32, I32X4, I64};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};

use super::kernel::Emitter;
use super::statement::chunks;
use super::types::{LANES, scalar_type, vector_type};
use super::values::{Operand, Val};

/// Up to this many constants stay in registers from point to point.
const KEPT_CONSTANTS: usize = 6;

/// Expressions of at least so many instructions are mostly one chain of dependent ones.
const LONG_EXPRESSION: usize = 16;

/// So many chunks of a long expression are computed at once, instruction by instruction: their chains overlap, and they share
/// the loads of constants.
const INTERLEAVED: usize = 2;

impl Emitter<'_, '_> {
    pub(super) fn map(&mut self, s: Stmt, stmt: &StmtData, expr: &Expr, vector: Option<usize>) -> Result<(), String> {
        let types = expr.dtypes(&|b| self.program.buffers.get(b).map(|d| d.dtype)).map_err(|e| e.to_string())?;
        let dst = self.operand(s, 0);
        let loads: Vec<Operand> = (0..expr.loads().count()).map(|i| self.operand(s, i + 1)).collect();
        let constants = expr.insts.iter().filter(|i| matches!(i, Inst::Const(_))).count();
        let in_place = expr.loads().any(|l| l.buffer == stmt.write().buffer && l != stmt.write());
        let together = if in_place || expr.insts.len() < LONG_EXPRESSION { 1 } else { INTERLEAVED };
        for group in chunks(stmt, vector, &|_| true).chunks(together) {
            if constants > KEPT_CONSTANTS {
                self.memo.forget_constants();
            }
            let mut values: Vec<Vec<Val>> = vec![Vec::with_capacity(types.len()); group.len()];
            let mut next_load = loads.iter();
            for inst in &expr.insts {
                let load = if matches!(inst, Inst::Load(_)) { next_load.next() } else { None };
                for (chunk, values) in group.iter().zip(&mut values) {
                    let value = match load {
                        Some(operand) => self.read(operand, chunk)?,
                        None => self.instruction(inst, values, &types)?,
                    };
                    values.push(value);
                }
            }
            for (chunk, values) in group.iter().zip(values) {
                let result = *values.last().ok_or("an empty expression")?;
                self.write(&dst, chunk, result)?;
            }
        }
        Ok(())
    }

    fn instruction(&mut self, inst: &Inst, values: &[Val], types: &[DType]) -> Result<Val, String> {
        let of = |r: &ExprRef| (values[r.0 as usize], types[r.0 as usize]);
        Ok(match inst {
            Inst::Load(_) => return Err("a load without an operand".into()),
            Inst::Const(c) => Val { value: self.constant(*c, false)?, wide: false },
            Inst::Unary(op, a) => {
                let (a, from) = of(a);
                Val { value: self.unary(*op, a, from)?, wide: a.wide }
            }
            Inst::Binary(op, a, b) => {
                let ((a, from), (b, _)) = (of(a), of(b));
                self.binary(*op, a, b, from)?
            }
            Inst::Fma(a, b, c) => {
                let ([a, b, c], wide) = self.same_width([of(a), of(b), of(c)])?;
                Val { value: self.fma(a, b, c)?, wide }
            }
            Inst::Select(c, a, b) => self.select(of(c).0, of(a), of(b))?,
            Inst::Cast(to, a) => {
                let (a, from) = of(a);
                self.convert_val(a, from, *to)?
            }
            Inst::Bitcast(to, a) => {
                let (a, from) = of(a);
                Val { value: self.bitcast(a, from, *to)?, wide: a.wide }
            }
            Inst::Math(f, _) => return Err(format!("`{}` was not expanded", f.name())),
            Inst::Pow(..) => return Err("`pow` was not expanded".into()),
        })
    }

    /// Operands all scalar or all in vectors.
    fn same_width<const N: usize>(&mut self, operands: [(Val, DType); N]) -> Result<([Value; N], bool), String> {
        let wide = operands.iter().any(|(v, _)| v.wide);
        let mut values = operands.map(|(v, _)| v.value);
        if wide {
            for (value, (v, ty)) in values.iter_mut().zip(operands) {
                *value = self.widen(v, ty)?;
            }
        }
        Ok((values, wide))
    }

    /// `x * y + z`, rounded once.
    pub(super) fn fma(&mut self, x: Value, y: Value, z: Value) -> Result<Value, String> {
        if !self.target.machine.fma {
            return Err(format!("machine `{}` has no fused multiply-add", self.target.machine.name));
        }
        Ok(self.b.ins().fma(x, y, z))
    }

    /// The combination of two elements, or of the lanes of two vectors.
    pub(super) fn combine(&mut self, op: Combine, dtype: DType, a: Value, b: Value) -> Value {
        match (op, dtype.is_float()) {
            (Combine::Add, true) => self.b.ins().fadd(a, b),
            (Combine::Add, false) => self.b.ins().iadd(a, b),
            (Combine::Mul, true) => self.b.ins().fmul(a, b),
            (Combine::Mul, false) => self.b.ins().imul(a, b),
            (Combine::Max, _) => self.max(dtype, a, b),
            (Combine::Min, _) => self.min(dtype, a, b),
        }
    }

    /// `a > b ? a : b`, in the form that x86's `max` instructions compute.
    fn max(&mut self, dtype: DType, a: Value, b: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let greater = if dtype.is_float() {
            self.b.ins().fcmp(FloatCC::LessThan, b, a)
        } else if dtype.is_signed_int() {
            self.b.ins().icmp(IntCC::SignedGreaterThan, a, b)
        } else {
            self.b.ins().icmp(IntCC::UnsignedGreaterThan, a, b)
        };
        self.choose(ty, greater, a, b)
    }

    /// `a < b ? a : b`, in the form that x86's `min` instructions compute.
    fn min(&mut self, dtype: DType, a: Value, b: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let less = if dtype.is_float() {
            self.b.ins().fcmp(FloatCC::LessThan, a, b)
        } else if dtype.is_signed_int() {
            self.b.ins().icmp(IntCC::SignedLessThan, a, b)
        } else {
            self.b.ins().icmp(IntCC::UnsignedLessThan, a, b)
        };
        self.choose(ty, less, a, b)
    }

    /// Selects by a scalar truth value, or lane by lane by a mask.
    fn choose(&mut self, ty: Type, condition: Value, a: Value, b: Value) -> Value {
        if !ty.is_vector() {
            return self.b.ins().select(condition, a, b);
        }
        let mask = self.retype(condition, ty);
        self.b.ins().bitselect(mask, a, b)
    }

    /// The same bits as another vector type.
    fn retype(&mut self, v: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(v) == ty {
            return v;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), v)
    }

    fn unary(&mut self, op: ScalarUnary, a: Val, dtype: DType) -> Result<Value, String> {
        let (v, float) = (a.value, dtype.is_float());
        Ok(match op {
            ScalarUnary::Neg if float => self.b.ins().fneg(v),
            ScalarUnary::Neg => self.b.ins().ineg(v),
            ScalarUnary::Abs if float => self.b.ins().fabs(v),
            ScalarUnary::Abs if dtype.is_signed_int() => self.b.ins().iabs(v),
            ScalarUnary::Abs => v,
            ScalarUnary::Sqrt => self.b.ins().sqrt(v),
            ScalarUnary::Round | ScalarUnary::Floor | ScalarUnary::Ceil => self.round(op, v)?,
            ScalarUnary::Not if a.wide => self.b.ins().bnot(v),
            ScalarUnary::Not => self.b.ins().bxor_imm_u(v, 1),
        })
    }

    fn binary(&mut self, op: ScalarBinary, a: Val, b: Val, dtype: DType) -> Result<Val, String> {
        if let (ScalarBinary::Shl | ScalarBinary::Shr, true) = (op, a.wide || b.wide) {
            return Ok(Val { value: self.shift_vector(op, a, b, dtype)?, wide: true });
        }
        let ([a, b], wide) = self.same_width([(a, dtype), (b, dtype)])?;
        let (float, signed) = (dtype.is_float(), dtype.is_signed_int());
        let value = match op {
            ScalarBinary::Add => self.combine(Combine::Add, dtype, a, b),
            ScalarBinary::Sub if float => self.b.ins().fsub(a, b),
            ScalarBinary::Sub => self.b.ins().isub(a, b),
            ScalarBinary::Mul => self.combine(Combine::Mul, dtype, a, b),
            ScalarBinary::Div if float => self.b.ins().fdiv(a, b),
            ScalarBinary::Div if wide => {
                let ty = self.b.func.dfg.value_type(a);
                self.by_lanes(ty, &[a, b], |e, x| Ok(e.divide(x[0], x[1], signed)))?
            }
            ScalarBinary::Div => self.divide(a, b, signed),
            ScalarBinary::Max => self.max(dtype, a, b),
            ScalarBinary::Min => self.min(dtype, a, b),
            ScalarBinary::And => self.b.ins().band(a, b),
            ScalarBinary::Or => self.b.ins().bor(a, b),
            ScalarBinary::Xor => self.b.ins().bxor(a, b),
            ScalarBinary::Shl => self.b.ins().ishl(a, b),
            ScalarBinary::Shr if signed => self.b.ins().sshr(a, b),
            ScalarBinary::Shr => self.b.ins().ushr(a, b),
            ScalarBinary::Eq if float => self.b.ins().fcmp(FloatCC::Equal, a, b),
            ScalarBinary::Lt if float => self.b.ins().fcmp(FloatCC::LessThan, a, b),
            ScalarBinary::Le if float => self.b.ins().fcmp(FloatCC::LessThanOrEqual, a, b),
            ScalarBinary::Eq => self.b.ins().icmp(IntCC::Equal, a, b),
            ScalarBinary::Lt if signed => self.b.ins().icmp(IntCC::SignedLessThan, a, b),
            ScalarBinary::Lt => self.b.ins().icmp(IntCC::UnsignedLessThan, a, b),
            ScalarBinary::Le if signed => self.b.ins().icmp(IntCC::SignedLessThanOrEqual, a, b),
            ScalarBinary::Le => self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, a, b),
        };
        Ok(Val { value, wide })
    }

    /// Integer division: 0 for a divisor of 0, wrapping for the most negative dividend over -1, and never a trap.
    fn divide(&mut self, a: Value, b: Value, signed: bool) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let (zero, one) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, 1));
        let by_zero = self.b.ins().icmp_imm_s(IntCC::Equal, b, 0);
        if !signed {
            let divisor = self.b.ins().select(by_zero, one, b);
            let quotient = self.b.ins().udiv(a, divisor);
            return self.b.ins().select(by_zero, zero, quotient);
        }
        let by_minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let special = self.b.ins().bor(by_zero, by_minus_one);
        let divisor = self.b.ins().select(special, one, b);
        let quotient = self.b.ins().sdiv(a, divisor);
        let negated = self.b.ins().ineg(a);
        let quotient = self.b.ins().select(by_minus_one, negated, quotient);
        self.b.ins().select(by_zero, zero, quotient)
    }

    /// Vectors are shifted by one amount for all lanes; other amounts take each lane alone.
    fn shift_vector(&mut self, op: ScalarBinary, a: Val, b: Val, dtype: DType) -> Result<Value, String> {
        let signed = dtype.is_signed_int();
        let v = self.widen(a, dtype)?;
        let shift = |e: &mut Self, v: Value, by: Value| match op {
            ScalarBinary::Shl => e.b.ins().ishl(v, by),
            _ if signed => e.b.ins().sshr(v, by),
            _ => e.b.ins().ushr(v, by),
        };
        if !b.wide {
            return Ok(shift(self, v, b.value));
        }
        let ty = self.b.func.dfg.value_type(v);
        self.by_lanes(ty, &[v, b.value], |e, x| Ok(shift(e, x[0], x[1])))
    }

    /// What vectors have no instruction for, one lane at a time.
    fn by_lanes(
        &mut self,
        ty: Type,
        operands: &[Value],
        mut f: impl FnMut(&mut Self, &[Value]) -> Result<Value, String>,
    ) -> Result<Value, String> {
        let mut result = None;
        for lane in 0..LANES as u8 {
            let elements: Vec<Value> = operands.iter().map(|&v| self.b.ins().extractlane(v, lane)).collect();
            let element = f(self, &elements)?;
            result = Some(match result {
                None => self.b.ins().scalar_to_vector(ty, element),
                Some(v) => self.b.ins().insertlane(v, element, lane),
            });
        }
        result.ok_or_else(|| "a vector without lanes".into())
    }

    fn select(&mut self, c: Val, a: (Val, DType), b: (Val, DType)) -> Result<Val, String> {
        let ([x, y], wide) = self.same_width([a, b])?;
        if !c.wide {
            return Ok(Val { value: self.b.ins().select(c.value, x, y), wide });
        }
        let (x, y) = (self.widen(Val { value: x, wide }, a.1)?, self.widen(Val { value: y, wide }, a.1)?);
        let ty = self.b.func.dfg.value_type(x);
        Ok(Val { value: self.choose(ty, c.value, x, y), wide: true })
    }

    fn bitcast(&mut self, a: Val, from: DType, to: DType) -> Result<Value, String> {
        let ty = if a.wide { vector_type(to).ok_or("no such vector")? } else { scalar_type(to) };
        if a.wide {
            return Ok(self.retype(a.value, ty));
        }
        if from.is_float() == to.is_float() {
            return Ok(a.value);
        }
        Ok(self.b.ins().bitcast(ty, MemFlagsData::new(), a.value))
    }

    /// A value as another element type: floats to integers truncate and saturate, integers wrap.
    pub(super) fn convert_val(&mut self, a: Val, from: DType, to: DType) -> Result<Val, String> {
        if from == to {
            return Ok(a);
        }
        let value = if a.wide { self.convert_vector(a.value, from, to)? } else { self.convert(a.value, from, to)? };
        Ok(Val { value, wide: a.wide })
    }

    fn convert_vector(&mut self, v: Value, from: DType, to: DType) -> Result<Value, String> {
        Ok(match (from, to) {
            (DType::F32, DType::I32) => self.b.ins().fcvt_to_sint_sat(I32X4, v),
            (DType::I32, DType::F32) => self.b.ins().fcvt_from_sint(F32X4, v),
            (DType::I32, DType::U32) | (DType::U32, DType::I32) => v,
            // Lanes of two bytes are zero-extended.
            (DType::U16, DType::I32 | DType::U32) => v,
            (DType::I32 | DType::U32, DType::U16) => {
                let low = self.constant(aic_ir::tile::Scalar::i32(0xffff), true)?;
                self.b.ins().band(v, low)
            }
            (DType::F32, DType::U32) => self.by_lanes(I32X4, &[v], |e, x| e.convert(x[0], from, to))?,
            (DType::U32, DType::F32) => self.by_lanes(F32X4, &[v], |e, x| e.convert(x[0], from, to))?,
            (DType::Bool, DType::I32 | DType::U32) => self.b.ins().ineg(v),
            (DType::Bool, DType::F32) => {
                let one = self.constant(aic_ir::tile::Scalar::f32(1.0), true)?;
                let one = self.retype(one, I32X4);
                let bits = self.b.ins().band(v, one);
                self.retype(bits, F32X4)
            }
            (DType::F32, DType::Bool) => {
                let zero = self.constant(aic_ir::tile::Scalar::f32(0.0), true)?;
                self.b.ins().fcmp(FloatCC::NotEqual, v, zero)
            }
            (DType::I32 | DType::U32, DType::Bool) => {
                let zero = self.constant(aic_ir::tile::Scalar::i32(0), true)?;
                self.b.ins().icmp(IntCC::NotEqual, v, zero)
            }
            _ => return Err(format!("there is no cast of vectors from {from} to {to}")),
        })
    }

    fn convert(&mut self, v: Value, from: DType, to: DType) -> Result<Value, String> {
        let ty = scalar_type(to);
        Ok(match (from.is_float(), to.is_float()) {
            _ if to == DType::Bool && from.is_float() => {
                let zero = if from == DType::F64 { self.b.ins().f64const(0.0) } else { self.b.ins().f32const(0.0) };
                self.b.ins().fcmp(FloatCC::NotEqual, v, zero)
            }
            _ if to == DType::Bool => self.b.ins().icmp_imm_s(IntCC::NotEqual, v, 0),
            (true, true) if ty == F64 => self.b.ins().fpromote(F64, v),
            (true, true) => self.b.ins().fdemote(F32, v),
            (true, false) => self.float_to_int(v, to, ty),
            (false, true) => {
                let bytes = from.bytes();
                let signed = from.is_signed_int();
                let wide = match (signed, bytes) {
                    (true, 1 | 2) => self.b.ins().sextend(I32, v),
                    (false, 1 | 2) => self.b.ins().uextend(I32, v),
                    (false, 4) => self.b.ins().uextend(I64, v),
                    _ => v,
                };
                if !signed && bytes == 8 {
                    self.b.ins().fcvt_from_uint(ty, wide)
                } else {
                    self.b.ins().fcvt_from_sint(ty, wide)
                }
            }
            (false, false) => {
                let (a, b) = (from.bytes(), to.bytes());
                if b < a {
                    self.b.ins().ireduce(ty, v)
                } else if b == a {
                    v
                } else if from.is_signed_int() {
                    self.b.ins().sextend(ty, v)
                } else {
                    self.b.ins().uextend(ty, v)
                }
            }
        })
    }

    /// Truncates toward zero and saturates; NaN gives 0. Narrow types saturate in 32 bits first.
    fn float_to_int(&mut self, v: Value, to: DType, ty: Type) -> Value {
        let narrow = to.bytes() < 4;
        let wide = if narrow { I32 } else { ty };
        if !to.is_signed_int() && !narrow {
            return self.b.ins().fcvt_to_uint_sat(wide, v);
        }
        let v = self.b.ins().fcvt_to_sint_sat(wide, v);
        if !narrow {
            return v;
        }
        let bits = 8 * to.bytes() as u32;
        let (lo, hi) = if to.is_signed_int() {
            (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
        } else {
            (0, (1i64 << bits) - 1)
        };
        let lo = self.b.ins().iconst(I32, lo & 0xffff_ffff);
        let hi = self.b.ins().iconst(I32, hi);
        let above = self.b.ins().icmp(IntCC::SignedGreaterThan, v, hi);
        let v = self.b.ins().select(above, hi, v);
        let below = self.b.ins().icmp(IntCC::SignedLessThan, v, lo);
        let v = self.b.ins().select(below, lo, v);
        self.b.ins().ireduce(ty, v)
    }
}
