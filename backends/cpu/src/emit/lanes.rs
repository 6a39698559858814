//! Factors of multiply-adds as lanes of vectors.
//!
//! AArch64 multiplies a vector by one element of another in one instruction (`fmla v0.4s, v1.4s, v2.s[3]`; Arm Architecture
//! Reference Manual, C7.2, "FMLA (by element)"). So scalars that lie side by side in memory are loaded four at a time and never
//! spread: a quarter of the loads, and no register for the copy. Only what the tile multiplies is loaded.

use aic_ir::machine::Arch;
use aic_ir::tile::Buffer;
use aic_ir::types::DType;
use cranelift_codegen::ir::types::{F32X4, I8X16};
use cranelift_codegen::ir::{ConstantData, Endianness, InstBuilder, MemFlagsData, Value};
use rustc_hash::FxHashMap;

use super::address::Terms;
use super::kernel::Emitter;
use super::statement::Multiply;
use super::types::LANES;
use super::values::{Chunk, Operand, Val};

/// Registers for what a step loads and uses at once.
const STREAMING_REGISTERS: u64 = 3;

/// Elements of an operand that are read as lanes: by their place, the point of the vector's first element, and the lane.
pub(super) type Quads = FxHashMap<(Terms, i64), (Vec<i64>, usize)>;

impl Emitter<'_, '_> {
    /// Groups the elements of an operand that are factors of whole vectors into runs of [`LANES`] adjacent ones.
    pub(super) fn quads(&self, op: &Operand, chunks: impl Iterator<Item = Chunk>) -> Quads {
        let mut quads = Quads::default();
        if self.target.machine.arch != Arch::Aarch64 || op.dtype != DType::F32 || !self.is_plain_memory(op) {
            return quads;
        }
        let mut rows: FxHashMap<Terms, Vec<(i64, Vec<i64>)>> = FxHashMap::default();
        for chunk in chunks.filter(|c| c.vector.is_some() && self.is_uniform(op, c)) {
            let (terms, constant, _) = self.place(op, &chunk);
            rows.entry(terms).or_default().push((constant, chunk.point));
        }
        for (terms, mut elements) in rows {
            elements.sort_by_key(|e| e.0);
            elements.dedup_by_key(|e| e.0);
            let mut rest = &elements[..];
            while let Some((first, point)) = rest.first() {
                let run = rest.iter().zip(0..LANES as i64).take_while(|(e, lane)| e.0 == first + lane).count();
                if run == LANES {
                    quads.extend((0..LANES).map(|lane| ((terms.clone(), first + lane as i64), (point.clone(), lane))));
                }
                rest = &rest[run..];
            }
        }
        quads
    }

    /// Reads an operand as a factor: a lane of a quad, spread, or as [`Emitter::read`] does.
    pub(super) fn factor(&mut self, op: &Operand, quads: &Quads, chunk: &Chunk) -> Result<Val, String> {
        if quads.is_empty() || chunk.vector.is_none() {
            return self.read(op, chunk);
        }
        let (terms, constant, _) = self.place(op, chunk);
        let Some((first, lane)) = quads.get(&(terms, constant)) else { return self.read(op, chunk) };
        let Some(vector) = self.read_vector(op, first)? else { return self.read(op, chunk) };
        Ok(Val { value: self.spread_lane(vector, *lane), wide: true })
    }

    /// Before a step of a tile whose accumulators are in registers, forgets loads that do not fit beside them: loading them
    /// again is cheaper than storing them. Those go first that the step does not use, then the latest. (Where factors are no
    /// lanes, loads are operands of the multiply-adds.)
    pub(super) fn forget_what_rests(
        &mut self,
        step: &Multiply,
        points: impl Iterator<Item = Chunk>,
        accumulators: usize,
    ) {
        let machine = &self.target.machine;
        let room = machine.vector_registers.saturating_sub(accumulators as u64 + STREAMING_REGISTERS);
        if !machine.mac_by_lane || self.memo.loads.len() as u64 <= room {
            return;
        }
        // Whether each element that is used is in a quad.
        let mut used = FxHashMap::default();
        for at in points {
            for (op, quads) in [(&step.a, &step.a_quads), (&step.b, &step.b_quads)] {
                let (terms, constant, _) = self.place(op, &at);
                let key = (terms, constant);
                let lane = quads.get(&key).map(|(_, lane)| *lane as i64);
                used.insert((op.buffer, key.0, constant - lane.unwrap_or(0)), lane.is_some());
            }
        }
        let loads = &mut self.memo.loads;
        loads.retain(|(buffer, terms, constant, _), _| used.contains_key(&(*buffer, terms.clone(), *constant)));
        let in_quad = |key: &(Buffer, Terms, i64, bool)| used.get(&(key.0, key.1.clone(), key.2)) == Some(&true);
        let mut single: Vec<Value> = loads.iter().filter(|(key, _)| !in_quad(key)).map(|(_, &v)| v).collect();
        let quads = loads.len() - single.len();
        single.sort_unstable();
        single.truncate((room as usize).saturating_sub(quads));
        loads.retain(|key, v| in_quad(key) || single.binary_search(v).is_ok());
    }

    /// One lane in all lanes: the form that the code generator folds into multiply-adds.
    fn spread_lane(&mut self, vector: Value, lane: usize) -> Value {
        if let Some(&spread) = self.memo.lanes.get(&(vector, lane)) {
            return spread;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        let bytes: Vec<u8> = (0..LANES).flat_map(|_| (0..4).map(|byte| (4 * lane + byte) as u8)).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let source = self.b.ins().bitcast(I8X16, flags, vector);
        let spread = self.b.ins().shuffle(source, source, mask);
        let spread = self.b.ins().bitcast(F32X4, flags, spread);
        self.memo.lanes.insert((vector, lane), spread);
        spread
    }
}
