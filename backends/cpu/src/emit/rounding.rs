//! Rounding to whole numbers.
//!
//! AArch64 and SSE4.1 have instructions. On the x86-64 baseline Cranelift would call a C library, so the rounding is done by
//! adding and subtracting 2^23 (2^52 for binary64), which leaves no fraction bits and rounds to nearest even; larger
//! numbers, infinities and NaN have no fraction and stay.

use aic_ir::machine::Arch;
use aic_ir::tile::ScalarUnary;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32, F64, I32, I64};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};

use super::kernel::Emitter;

impl Emitter<'_, '_> {
    /// Rounds each lane by one of the three rounding instructions.
    pub(super) fn round(&mut self, op: ScalarUnary, x: Value) -> Result<Value, String> {
        if self.target.machine.arch == Arch::Aarch64 || self.target.machine.has("sse4.1") {
            return Ok(match op {
                ScalarUnary::Floor => self.b.ins().floor(x),
                ScalarUnary::Ceil => self.b.ins().ceil(x),
                _ => self.b.ins().nearest(x),
            });
        }
        let ty = self.b.func.dfg.value_type(x);
        let magic = self.float(ty, if ty.lane_type() == F32 { f64::from(1u32 << 23) } else { (1u64 << 52) as f64 })?;
        let one = self.float(ty, 1.0)?;
        let magnitude = self.b.ins().fabs(x);
        let shifted = self.b.ins().fadd(magnitude, magic);
        let whole = self.b.ins().fsub(shifted, magic);
        let nearest = self.with_sign(ty, whole, x);
        let rounded = match op {
            ScalarUnary::Floor => {
                let lower = self.b.ins().fsub(nearest, one);
                let over = self.b.ins().fcmp(FloatCC::GreaterThan, nearest, x);
                self.pick(ty, over, lower, nearest)
            }
            ScalarUnary::Ceil => {
                let upper = self.b.ins().fadd(nearest, one);
                let under = self.b.ins().fcmp(FloatCC::LessThan, nearest, x);
                self.pick(ty, under, upper, nearest)
            }
            _ => nearest,
        };
        // A result of zero keeps the sign of the operand; others have it already.
        let rounded = self.with_sign(ty, rounded, x);
        let small = self.b.ins().fcmp(FloatCC::LessThan, magnitude, magic);
        Ok(self.pick(ty, small, rounded, x))
    }

    fn float(&mut self, ty: Type, value: f64) -> Result<Value, String> {
        let scalar = match ty.lane_type() {
            F64 => self.b.ins().f64const(value),
            _ => self.b.ins().f32const(value as f32),
        };
        Ok(if ty.is_vector() { self.b.ins().splat(ty, scalar) } else { scalar })
    }

    fn pick(&mut self, ty: Type, condition: Value, a: Value, b: Value) -> Value {
        if !ty.is_vector() {
            return self.b.ins().select(condition, a, b);
        }
        let mask = self.bits(ty, condition);
        self.b.ins().bitselect(mask, a, b)
    }

    fn bits(&mut self, ty: Type, v: Value) -> Value {
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        if self.b.func.dfg.value_type(v) == ty { v } else { self.b.ins().bitcast(ty, flags, v) }
    }

    /// The magnitude of `a` with the sign of `b`.
    fn with_sign(&mut self, ty: Type, a: Value, b: Value) -> Value {
        let int = if ty.lane_type() == F64 { I64 } else { I32 };
        let int = if ty.is_vector() { int.by(ty.lane_count()).unwrap_or(int) } else { int };
        let magnitude = self.b.ins().fabs(a);
        let (magnitude, sign) = (self.bits(int, magnitude), self.bits(int, b));
        let mask =
            if ty.lane_type() == F64 { self.b.ins().iconst(I64, i64::MIN) } else { self.b.ins().iconst(I32, 1 << 31) };
        let mask = if ty.is_vector() { self.b.ins().splat(int, mask) } else { mask };
        let sign = self.b.ins().band(sign, mask);
        let bits = self.b.ins().bor(magnitude, sign);
        self.bits(ty, bits)
    }
}
