//! Statements as straight-line code.
//!
//! All points of the tile are unrolled in row-major order, the vector dimension in vectors and a rest of single points. An
//! `mma` with its accumulator in registers takes the reduced dimensions outermost instead: every element still sees its
//! products in ascending order, and operands are loaded once for all that use them.

use aic_ir::tile::{Combine, Stmt, StmtData, StmtOp, Var};
use aic_ir::types::DType;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};

use super::kernel::Emitter;
use super::lanes::Quads;
use super::types::LANES;
use super::values::{Chunk, Memo, Operand, Val};
use super::vectorize::vector_dim;

/// The operands of an `mma`.
pub(super) struct Multiply {
    pub(super) a: Operand,
    pub(super) b: Operand,
    acc: Operand,
    fused: bool,
    /// Whether every product of a step takes another element (or vector) of the operand.
    a_once: bool,
    b_once: bool,
    /// What of the operands is read as lanes of vectors.
    pub(super) a_quads: Quads,
    pub(super) b_quads: Quads,
}

impl Emitter<'_, '_> {
    pub(super) fn statement(&mut self, s: Stmt) -> Result<(), String> {
        let kernel = self.kernel;
        let stmt = &kernel.stmts[s];
        if let Some(name) = &stmt.intrinsic {
            return self.intrinsic(s, stmt, name);
        }
        self.memo = Memo::default();
        let vector = vector_dim(self.program, stmt);
        match &stmt.op {
            StmtOp::Copy { .. } => {
                let (dst, src) = (self.operand(s, 0), self.operand(s, 1));
                for chunk in chunks(stmt, vector, &|_| true) {
                    let value = self.read(&src, &chunk)?;
                    self.write(&dst, &chunk, value)?;
                }
                Ok(())
            }
            StmtOp::Map { value, .. } => self.map(s, stmt, value, vector),
            StmtOp::Mma { fused, .. } => self.mma(s, stmt, *fused, vector),
            StmtOp::Reduce { op, .. } => self.reduce(s, stmt, *op, vector),
            StmtOp::Gather { .. } | StmtOp::Scatter { .. } => self.by_data(s, stmt, vector),
        }
    }

    fn mma(&mut self, s: Stmt, stmt: &StmtData, fused: bool, vector: Option<usize>) -> Result<(), String> {
        let [acc, a, b] = [0, 1, 2].map(|i| self.operand(s, i));
        let result = stmt.write();
        let kept = |d: usize| result.index.iter().any(|e| e.uses(Var::Dim(d as u32)));
        // Lanes of a vector are different results.
        let vector = vector.filter(|&v| kept(v));
        let all = |chunk: &Chunk, rest: &Chunk| {
            let mut point = chunk.point.clone();
            for (d, p) in point.iter_mut().enumerate() {
                *p += rest.point[d];
            }
            Chunk { point, vector: chunk.vector }
        };
        let (results, products) = (chunks(stmt, vector, &kept), chunks(stmt, None, &|d| !kept(d)));
        let points = || products.iter().flat_map(|k| results.iter().map(move |r| all(r, k)));
        let [a_quads, b_quads] = [&a, &b].map(|op| if fused { self.quads(op, points()) } else { Quads::default() });
        let mut step = Multiply { a, b, acc, fused, a_once: true, b_once: true, a_quads, b_quads };
        if self.registers.contains_key(&step.acc.buffer) {
            // Whether neighbours in the order of results have other operands.
            let once = |op: &Operand| -> bool {
                let places: Vec<_> = results.iter().map(|r| self.place(op, r)).collect();
                places.windows(2).all(|p| p[0] != p[1])
            };
            (step.a_once, step.b_once) = (once(&step.a), once(&step.b));
            for k in &products {
                self.forget_what_rests(&step, results.iter().map(|r| all(r, k)), results.len());
                for r in &results {
                    let at = all(r, k);
                    let old = self.read(&step.acc, &at)?;
                    let new = self.multiply_add(&step, &at, old)?;
                    self.write(&step.acc, &at, new)?;
                }
            }
        } else {
            for r in &results {
                let mut sum = self.read(&step.acc, r)?;
                for k in &products {
                    sum = self.multiply_add(&step, &all(r, k), sum)?;
                }
                self.write(&step.acc, r, sum)?;
            }
        }
        Ok(())
    }

    fn multiply_add(&mut self, step: &Multiply, at: &Chunk, sum: Val) -> Result<Val, String> {
        let (a, b, acc) = (&step.a, &step.b, &step.acc);
        let (x, y) = (self.factor(a, &step.a_quads, at)?, self.factor(b, &step.b_quads, at)?);
        let wide = at.vector.is_some();
        // x86 overwrites the first factor, and copies it before if it is used again. A scalar spread over all lanes for one
        // product is loaded and spread by one instruction; for several, copies of the vector were measured to be cheaper.
        let swap = if x.wide { !y.wide && step.b_once } else { y.wide && !step.a_once };
        let (x, y) = if swap { ((y, b), (x, a)) } else { ((x, a), (y, b)) };
        let [x, y] = [x, y].map(|(v, op)| -> Result<Value, String> {
            let v = self.convert_val(v, op.dtype, acc.dtype)?;
            if wide { self.widen(v, acc.dtype) } else { Ok(v.value) }
        });
        let (x, y) = (x?, y?);
        let sum = if wide { self.widen(sum, acc.dtype)? } else { sum.value };
        let value = if !acc.dtype.is_float() {
            let product = self.b.ins().imul(x, y);
            self.b.ins().iadd(sum, product)
        } else if step.fused {
            self.fma(x, y, sum)?
        } else {
            let product = self.b.ins().fmul(x, y);
            self.b.ins().fadd(sum, product)
        };
        Ok(Val { value, wide })
    }

    fn reduce(&mut self, s: Stmt, stmt: &StmtData, op: Combine, vector: Option<usize>) -> Result<(), String> {
        let (dst, src) = (self.operand(s, 0), self.operand(s, 1));
        let result = stmt.write();
        let kept = |d: usize| result.index.iter().any(|e| e.uses(Var::Dim(d as u32)));
        let along = vector.filter(|&v| kept(v));
        // A reduced vector dimension is taken in vectors where that keeps the row-major order of the elements.
        let across = vector.filter(|&v| !kept(v) && (v + 1..stmt.dims.len()).all(kept));
        let points = chunks(stmt, across, &|d| !kept(d));
        for r in chunks(stmt, along, &kept) {
            let mut values = Vec::with_capacity(points.len());
            for k in &points {
                let point = r.point.iter().zip(&k.point).map(|(a, b)| a + b).collect();
                let at = Chunk { point, vector: r.vector.or(k.vector) };
                let value = self.read(&src, &at)?;
                let wide = at.vector.is_some();
                values.push(Val { value: if wide { self.widen(value, src.dtype)? } else { value.value }, wide });
            }
            let tree = if r.vector.is_none() && values.iter().any(|v| v.wide) {
                self.tree_across(op, src.dtype, values)?
            } else {
                self.tree(op, src.dtype, values.iter().map(|v| v.value).collect())?
            };
            let old = self.read(&dst, &r)?;
            let old = if r.vector.is_some() { self.widen(old, dst.dtype)? } else { old.value };
            let value = self.combine(op, dst.dtype, old, tree);
            self.write(&dst, &r, Val { value, wide: r.vector.is_some() })?;
        }
        Ok(())
    }

    /// The tree of [`aic_ir::tile`]: the second half is combined onto the first until one is left.
    fn tree(&mut self, op: Combine, dtype: DType, mut values: Vec<Value>) -> Result<Value, String> {
        while values.len() > 1 {
            let half = values.len().div_ceil(2);
            for i in 0..values.len() - half {
                values[i] = self.combine(op, dtype, values[i], values[i + half]);
            }
            values.truncate(half);
        }
        values.pop().ok_or_else(|| "a reduction of nothing".into())
    }

    /// The same tree over elements that lie in vectors: whole vectors are combined while halves are whole vectors.
    fn tree_across(&mut self, op: Combine, dtype: DType, mut values: Vec<Val>) -> Result<Value, String> {
        while values.len() > 1 && values.len().is_multiple_of(2) && values.iter().all(|v| v.wide) {
            let half = values.len() / 2;
            for i in 0..half {
                values[i].value = self.combine(op, dtype, values[i].value, values[i + half].value);
            }
            values.truncate(half);
        }
        let mut elements = Vec::new();
        for v in values {
            if v.wide {
                elements.extend((0..LANES).map(|lane| self.b.ins().extractlane(v.value, lane as u8)));
            } else {
                elements.push(v.value);
            }
        }
        self.tree(op, dtype, elements)
    }

    /// A gather or a scatter: one coordinate of an access comes from memory, point by point.
    fn by_data(&mut self, s: Stmt, stmt: &StmtData, vector: Option<usize>) -> Result<(), String> {
        let data = stmt.data_coordinate().ok_or("a statement without positions")?;
        let shape = &self.program.buffers[data.access.buffer].shape;
        let size = *shape.get(data.axis).ok_or("positions along no dimension")?;
        let by_lane = data.index.index.iter().any(|e| vector.is_some_and(|v| e.uses(Var::Dim(v as u32))));
        let vector = vector.filter(|_| !by_lane);
        let [dst, src, index] = [0, 1, 2].map(|i| self.operand(s, i));
        let mut wrapped: Option<(Value, Value)> = None;
        for chunk in chunks(stmt, vector, &|_| true) {
            // Positions may have been computed in the scope of another one's address.
            let before = self.data.take();
            let position = self.read_element(&index, &chunk.point)?;
            self.data = before;
            let coordinate = match wrapped {
                Some((from, to)) if from == position => to,
                _ => {
                    self.set_data(None);
                    let wide = match index.dtype {
                        DType::I64 => position,
                        _ => self.b.ins().sextend(I64, position),
                    };
                    let from_end = self.b.ins().iadd_imm_s(wide, size as i64);
                    let negative = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, wide, 0);
                    self.b.ins().select(negative, from_end, wide)
                }
            };
            wrapped = Some((position, coordinate));
            self.set_data(Some(coordinate));
            let mut value = self.read(&src, &chunk)?;
            if let StmtOp::Scatter { op: Some(op), .. } = &stmt.op {
                let wide = chunk.vector.is_some();
                let old = self.read(&dst, &chunk)?;
                let [old, new] = [(old, &dst), (value, &src)]
                    .map(|(v, operand)| if wide { self.widen(v, operand.dtype) } else { Ok(v.value) });
                value = Val { value: self.combine(*op, dst.dtype, old?, new?), wide };
            }
            self.write(&dst, &chunk, value)?;
        }
        self.set_data(None);
        Ok(())
    }
}

/// The points of the dimensions that `select` chooses, in row-major order, the others at 0; dimension `vector` in vectors as
/// far as they go.
pub(super) fn chunks(stmt: &StmtData, vector: Option<usize>, select: &dyn Fn(usize) -> bool) -> Vec<Chunk> {
    let mut all = vec![Chunk { point: vec![0; stmt.dims.len()], vector: None }];
    for (d, dim) in stmt.dims.iter().enumerate().filter(|(d, _)| select(*d)) {
        let extent = dim.extent as i64;
        let mut next = Vec::with_capacity(all.len());
        for chunk in all {
            let mut at = 0;
            while at < extent {
                let wide = vector == Some(d) && at + LANES as i64 <= extent;
                let mut point = chunk.point.clone();
                point[d] = at;
                next.push(Chunk { point, vector: if wide { vector } else { chunk.vector } });
                at += if wide { LANES as i64 } else { 1 };
            }
        }
        all = next;
    }
    all
}
