//! Operands of statements: what an access reads or writes at one point, or at one vector of points.
//!
//! A value that is the same for all lanes stays scalar until an instruction needs it in a vector. Loads, splats and
//! constants are remembered within a statement, loads only of buffers that the statement does not write.

use aic_ir::tile::{Affine, Buffer, Scalar, Stmt, Var};
use aic_ir::types::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I32X4, I64X2};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value};
use rustc_hash::FxHashMap;

use super::address::Terms;
use super::kernel::Emitter;
use super::types::{LANES, is_extended, scalar_type, vector_type};

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Val {
    /// The Cranelift value.
    pub(super) value: Value,
    /// Whether it is a vector.
    pub(super) wide: bool,
}

/// Where a statement is executed: one point, or [`LANES`] points along a dimension from that point on.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) point: Vec<i64>,
    pub(super) vector: Option<usize>,
}

/// Values that hold for the rest of the current statement.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// By buffer, terms, constant in elements, and whether it is a vector.
    pub(super) loads: FxHashMap<(Buffer, Terms, i64, bool), Value>,
    splats: FxHashMap<Value, Value>,
    /// Lanes of vectors in all lanes.
    pub(super) lanes: FxHashMap<(Value, usize), Value>,
    constants: FxHashMap<(Scalar, bool), Value>,
    scalar_of: FxHashMap<Value, Scalar>,
}

impl Memo {
    /// Forgets constants, so that later uses load them again instead of keeping them in registers.
    pub(super) fn forget_constants(&mut self) {
        self.constants.clear();
    }
}

/// An access, prepared for the current position of its statement.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    stmt: Stmt,
    pub(super) buffer: Buffer,
    pub(super) dtype: DType,
    offset: Affine,
    linear: Option<Linear>,
    /// Value outside, and each coordinate with its number of valid positions.
    fill: Option<(Scalar, Vec<(Affine, u64)>)>,
    /// Whether loads may be remembered.
    stable: bool,
}

/// An offset that is linear in the dimensions of the tile.
#[derive(Clone, Debug)]
struct Linear {
    terms: Terms,
    constant: i64,
    factors: Vec<i64>,
}

/// The elements that a vector of points refers to.
enum Lanes {
    /// The same for all.
    Uniform,
    /// Adjacent, in order.
    Contiguous,
    /// Anything else.
    Scattered,
}

/// Where a point lies inside a buffer with a fill value.
enum Inside {
    Always,
    Never,
    If(Value),
}

impl Emitter<'_, '_> {
    /// Prepares access number `access` (in the order of `StmtData::accesses`) of a statement.
    pub(super) fn operand(&mut self, stmt: Stmt, access: usize) -> Operand {
        let data = &self.kernel.stmts[stmt];
        let accesses = data.accesses();
        let a = accesses[access];
        let buffer = &self.program.buffers[a.buffer];
        let offset = self.resolve(stmt, &self.offsets[&stmt][access]);
        let fill = a.fill.map(|f| {
            let coordinates = a.index.iter().map(|e| self.resolve(stmt, e));
            (f, coordinates.zip(buffer.shape.iter().copied()).collect())
        });
        let in_atoms = |v: Var| {
            let direct = i64::from(offset.coefficient(v) != 0);
            let mut all = 0;
            offset.for_each_var(&mut |w| all += i64::from(w == v));
            all > direct
        };
        let dims = 0..data.dims.len() as u32;
        let linear = (!dims.clone().any(|d| in_atoms(Var::Dim(d)))).then(|| Linear {
            // Terms of data change from point to point.
            terms: self.terms(&offset, buffer.dtype.bytes() as i64),
            constant: offset.constant_part(),
            factors: dims.map(|d| offset.coefficient(Var::Dim(d))).collect(),
        });
        let linear = linear.filter(|_| !offset.uses(super::address::DATA));
        Operand {
            stmt,
            buffer: a.buffer,
            dtype: buffer.dtype,
            offset,
            linear,
            fill,
            stable: data.write().buffer != a.buffer,
        }
    }

    /// Terms and constant (in elements) of an operand's offset at a point.
    fn position(&self, op: &Operand, point: &[i64]) -> (Terms, i64) {
        if let Some(l) = &op.linear {
            let constant = l.factors.iter().zip(point).fold(l.constant, |sum, (f, p)| sum + f * p);
            return (l.terms.clone(), constant);
        }
        let at = self.at_point(op.stmt, &op.offset, point);
        (self.terms(&at, op.dtype.bytes() as i64), at.constant_part())
    }

    /// What identifies the elements that a chunk refers to.
    pub(super) fn place(&self, op: &Operand, chunk: &Chunk) -> (Terms, i64, bool) {
        let (terms, constant) = self.position(op, &chunk.point);
        (terms, constant, chunk.vector.is_some())
    }

    fn at_point(&self, stmt: Stmt, e: &Affine, point: &[i64]) -> Affine {
        let map = |v: Var| match v {
            Var::Dim(d) => point.get(d as usize).map_or(Affine::var(v), |&p| Affine::constant(p)),
            Var::Loop(_) => Affine::var(v),
        };
        e.substitute(&map, &|v| self.extent(stmt, v))
    }

    fn lane_point(chunk: &Chunk, lane: usize) -> Vec<i64> {
        let mut point = chunk.point.clone();
        if let Some(v) = chunk.vector {
            point[v] += lane as i64;
        }
        point
    }

    fn lanes(&self, op: &Operand, chunk: &Chunk) -> Lanes {
        let Some(v) = chunk.vector else { return Lanes::Uniform };
        if let Some((_, coordinates)) = &op.fill
            && coordinates.iter().any(|(e, _)| e.uses(Var::Dim(v as u32)))
        {
            return Lanes::Scattered;
        }
        if let Some(l) = &op.linear {
            return match l.factors[v] {
                0 => Lanes::Uniform,
                1 => Lanes::Contiguous,
                _ => Lanes::Scattered,
            };
        }
        let (terms, constant) = self.position(op, &chunk.point);
        let steps: Vec<Option<i64>> = (1..LANES)
            .map(|lane| {
                let (t, c) = self.position(op, &Self::lane_point(chunk, lane));
                (t == terms).then(|| c - constant)
            })
            .collect();
        if steps.iter().all(|s| *s == Some(0)) {
            Lanes::Uniform
        } else if steps.iter().zip(1..).all(|(s, lane)| *s == Some(lane)) {
            Lanes::Contiguous
        } else {
            Lanes::Scattered
        }
    }

    /// Whether all lanes of a chunk refer to one element.
    pub(super) fn is_uniform(&self, op: &Operand, chunk: &Chunk) -> bool {
        matches!(self.lanes(op, chunk), Lanes::Uniform)
    }

    /// Whether an operand's elements are all there in memory, and stay what they are during the statement.
    pub(super) fn is_plain_memory(&self, op: &Operand) -> bool {
        op.fill.is_none() && op.stable && !self.registers.contains_key(&op.buffer)
    }

    /// Reads an operand.
    pub(super) fn read(&mut self, op: &Operand, chunk: &Chunk) -> Result<Val, String> {
        match self.lanes(op, chunk) {
            Lanes::Uniform => Ok(Val { value: self.read_element(op, &chunk.point)?, wide: false }),
            Lanes::Contiguous => {
                if let Some(value) = self.read_vector(op, &chunk.point)? {
                    return Ok(Val { value, wide: true });
                }
                self.read_scattered(op, chunk)
            }
            Lanes::Scattered => self.read_scattered(op, chunk),
        }
    }

    /// The address of the element of one point of a buffer in memory.
    pub(super) fn element_pointer(&mut self, op: &Operand, point: &[i64]) -> Result<Value, String> {
        let (terms, constant) = self.position(op, point);
        let base = self.pointer(op.buffer).ok_or("a buffer without a pointer")?;
        let address = self.address(op.stmt, base, &terms);
        let displacement = self.displacement(op, constant)?;
        Ok(self.b.ins().iadd_imm_s(address, i64::from(displacement)))
    }

    fn read_scattered(&mut self, op: &Operand, chunk: &Chunk) -> Result<Val, String> {
        let mut value = None;
        for lane in 0..LANES {
            let element = self.read_element(op, &Self::lane_point(chunk, lane))?;
            let element = self.lane_of(element, op.dtype);
            value = Some(match value {
                None => {
                    let ty = vector_type(op.dtype).ok_or("no vectors of this element type")?;
                    self.b.ins().scalar_to_vector(ty, element)
                }
                Some(v) => self.b.ins().insertlane(v, element, lane as u8),
            });
        }
        Ok(Val { value: value.ok_or("an empty vector")?, wide: true })
    }

    /// Reads the element of one point.
    pub(super) fn read_element(&mut self, op: &Operand, point: &[i64]) -> Result<Value, String> {
        let ty = scalar_type(op.dtype);
        self.read_with(op, point, ty, false)?.ok_or_else(|| "an element that cannot be read".into())
    }

    /// Reads the elements from a point on as a vector; `None` where that takes single elements.
    pub(super) fn read_vector(&mut self, op: &Operand, point: &[i64]) -> Result<Option<Value>, String> {
        let Some(ty) = vector_type(op.dtype) else { return Ok(None) };
        self.read_with(op, point, ty, true)
    }

    fn read_with(&mut self, op: &Operand, point: &[i64], ty: Type, wide: bool) -> Result<Option<Value>, String> {
        let inside = self.inside(op, point);
        if let (Inside::Never, Some((fill, _))) = (&inside, &op.fill) {
            return Ok(Some(self.constant(*fill, wide)?));
        }
        let (terms, constant) = self.position(op, point);
        if let Some(registers) = self.registers.get(&op.buffer).cloned() {
            if !terms.is_empty() || matches!(inside, Inside::If(_)) {
                return Err("a buffer in registers is indexed by a loop".into());
            }
            return if wide {
                self.register_vector(&registers, constant)
            } else {
                self.register_element(&registers, constant).map(Some)
            };
        }
        let key = (op.buffer, terms, constant, wide);
        if op.stable
            && self.data.is_none()
            && let Some(&v) = self.memo.loads.get(&key)
        {
            return Ok(Some(v));
        }
        let (_, terms, _, _) = &key;
        let base = self.pointer(op.buffer).ok_or("a buffer without a pointer")?;
        let mut address = self.address(op.stmt, base, terms);
        let mut displacement = self.displacement(op, constant)?;
        let mut flags = MemFlagsData::new().with_notrap();
        if let Inside::If(inside) = inside {
            // The whole vector from the buffer's start must be there to be read in place of what lies outside.
            if wide && self.program.buffers[op.buffer].bytes() < u64::from(ty.bytes()) {
                return Ok(None);
            }
            let wanted = self.b.ins().iadd_imm_s(address, i64::from(displacement));
            address = self.b.ins().select(inside, wanted, base);
            displacement = 0;
        }
        if !self.written.contains(&op.buffer) {
            flags = flags.with_readonly().with_can_move();
        }
        let mut value = if wide && is_extended(op.dtype) {
            self.b.ins().uload16x4(flags, address, displacement)
        } else {
            self.b.ins().load(ty, flags, address, displacement)
        };
        if let (Inside::If(inside), Some((fill, _))) = (inside, &op.fill) {
            let fill = self.constant(*fill, wide)?;
            value = self.b.ins().select(inside, value, fill);
        }
        if op.stable && self.data.is_none() {
            self.memo.loads.insert(key, value);
        }
        Ok(Some(value))
    }

    fn displacement(&self, op: &Operand, constant: i64) -> Result<i32, String> {
        constant
            .checked_mul(op.dtype.bytes() as i64)
            .and_then(|d| i32::try_from(d).ok())
            .ok_or_else(|| "an offset within a tile passes 2 GiB".into())
    }

    fn inside(&mut self, op: &Operand, point: &[i64]) -> Inside {
        let Some((_, coordinates)) = &op.fill else { return Inside::Always };
        let mut all: Option<Value> = None;
        for (e, size) in coordinates {
            let e = self.at_point(op.stmt, e, point);
            let (lo, hi) = e.range(&|v| self.extent(op.stmt, v));
            let last = *size as i64 - 1;
            // Nothing lies inside an empty buffer, and nothing in it can be read in place of what lies outside.
            if *size == 0 || hi < 0 || lo > last {
                return Inside::Never;
            }
            if lo >= 0 && hi <= last {
                continue;
            }
            let v = self.integer(op.stmt, &e);
            // Negative coordinates are large unsigned ones.
            let ok = self.b.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, v, last);
            all = Some(match all {
                Some(a) => self.b.ins().band(a, ok),
                None => ok,
            });
        }
        all.map_or(Inside::Always, Inside::If)
    }

    /// Writes an operand.
    pub(super) fn write(&mut self, op: &Operand, chunk: &Chunk, value: Val) -> Result<(), String> {
        if chunk.vector.is_none() {
            return self.write_element(op, &chunk.point, value.value);
        }
        let wide = self.widen(value, op.dtype)?;
        if matches!(self.lanes(op, chunk), Lanes::Contiguous) && self.write_vector(op, &chunk.point, wide)? {
            return Ok(());
        }
        for lane in 0..LANES {
            let mut element = self.b.ins().extractlane(wide, lane as u8);
            if is_extended(op.dtype) {
                element = self.b.ins().ireduce(scalar_type(op.dtype), element);
            }
            self.write_element(op, &Self::lane_point(chunk, lane), element)?;
        }
        Ok(())
    }

    fn write_vector(&mut self, op: &Operand, point: &[i64], value: Value) -> Result<bool, String> {
        let (terms, constant) = self.position(op, point);
        if let Some(registers) = self.registers.get(&op.buffer).cloned() {
            return self.set_register_vector(&registers, constant, value);
        }
        self.store(op, &terms, constant, value)?;
        Ok(true)
    }

    fn write_element(&mut self, op: &Operand, point: &[i64], value: Value) -> Result<(), String> {
        let (terms, constant) = self.position(op, point);
        if let Some(registers) = self.registers.get(&op.buffer).cloned() {
            if !terms.is_empty() {
                return Err("a buffer in registers is indexed by a loop".into());
            }
            return self.set_register(&registers, constant, value);
        }
        self.store(op, &terms, constant, value)
    }

    fn store(&mut self, op: &Operand, terms: &Terms, constant: i64, value: Value) -> Result<(), String> {
        let base = self.pointer(op.buffer).ok_or("a buffer without a pointer")?;
        let address = self.address(op.stmt, base, terms);
        let displacement = self.displacement(op, constant)?;
        let extended = is_extended(op.dtype) && self.b.func.dfg.value_type(value).is_vector();
        let value = if extended { self.narrowed(value) } else { value };
        self.b.ins().store(MemFlagsData::new().with_notrap(), value, address, displacement);
        Ok(())
    }

    /// An element as a lane of its type's vectors.
    fn lane_of(&mut self, element: Value, dtype: DType) -> Value {
        if is_extended(dtype) { self.b.ins().uextend(I32, element) } else { element }
    }

    /// The low halves of four lanes, side by side in 64 bits.
    fn narrowed(&mut self, lanes: Value) -> Value {
        // Packing saturates signed numbers, so each half becomes one.
        let high = self.b.ins().ishl_imm_u(lanes, 16);
        let signed = self.b.ins().sshr_imm_u(high, 16);
        let packed = self.b.ins().snarrow(signed, signed);
        let packed = self.b.ins().bitcast(I64X2, MemFlagsData::new().with_endianness(Endianness::Little), packed);
        self.b.ins().extractlane(packed, 0)
    }

    /// A constant.
    pub(super) fn constant(&mut self, scalar: Scalar, wide: bool) -> Result<Value, String> {
        let wide_type = if wide { vector_type(scalar.dtype).or(mask_of(scalar.dtype)) } else { None };
        if let Some(&v) = self.memo.constants.get(&(scalar, wide)) {
            return Ok(v);
        }
        let value = if let Some(ty) = wide_type {
            let lane =
                if scalar.dtype == DType::Bool { (scalar.bits as u32).wrapping_neg() } else { scalar.bits as u32 };
            let bytes: Vec<u8> = (0..LANES).flat_map(|_| lane.to_le_bytes()).collect();
            let data = self.b.func.dfg.constants.insert(ConstantData::from(&bytes[..]));
            self.b.ins().vconst(ty, data)
        } else {
            match scalar.dtype {
                DType::F32 => self.b.ins().f32const(f32::from_bits(scalar.bits as u32)),
                DType::F64 => self.b.ins().f64const(f64::from_bits(scalar.bits)),
                dtype => self.b.ins().iconst(scalar_type(dtype), scalar.bits as i64),
            }
        };
        if !wide {
            self.memo.scalar_of.insert(value, scalar);
        }
        self.memo.constants.insert((scalar, wide), value);
        Ok(value)
    }

    /// The scalar that a value is, if it is a constant.
    pub(super) fn scalar_of(&self, value: Value) -> Option<Scalar> {
        self.memo.scalar_of.get(&value).copied()
    }

    /// A value in all lanes of a vector; truth values become masks.
    pub(super) fn widen(&mut self, v: Val, dtype: DType) -> Result<Value, String> {
        if v.wide {
            return Ok(v.value);
        }
        if let Some(scalar) = self.scalar_of(v.value) {
            return self.constant(scalar, true);
        }
        if let Some(&wide) = self.memo.splats.get(&v.value) {
            return Ok(wide);
        }
        let wide = if dtype == DType::Bool {
            let lane = self.b.ins().uextend(I32, v.value);
            let lane = self.b.ins().ineg(lane);
            self.b.ins().splat(I32X4, lane)
        } else {
            let ty = vector_type(dtype).ok_or_else(|| format!("there are no vectors of {dtype}"))?;
            let lane = self.lane_of(v.value, dtype);
            self.b.ins().splat(ty, lane)
        };
        self.memo.splats.insert(v.value, wide);
        Ok(wide)
    }
}

/// Truth values in vectors are masks as wide as the elements compared.
fn mask_of(dtype: DType) -> Option<Type> {
    (dtype == DType::Bool).then_some(I32X4)
}
