//! The cost model: predicted time of each kernel of a scheduled program.
//!
//! A roofline per kernel (Williams, Waterman, Patterson: "Roofline", CACM 2009). Computation: every statement's points, in
//! vectors or one by one, at the machine's rates; contractions by [`tiles`](super::scheduler)' count. Memory: every byte of the
//! kernel's buffers once, from the level that holds the working set; constants of a program that is larger than a
//! cache come from memory each run. The prediction is the larger of the two, plus the cost of the call.

use super::scheduler::step_cycles;
use crate::machine::{Intrinsic, Machine, MemoryLevel, Target};
use crate::tile::{Exec, Inst, Item, KernelData, Program, Step, StmtData, StmtOp, Storage};

/// Cycles to call a micro-kernel and return.
const INTRINSIC_CALL_CYCLES: f64 = 12.0;

/// Prediction for one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelCost {
    /// The kernel's name.
    pub kernel: String,
    /// Float operations: two for each multiply-add, one for each other arithmetic instruction of a `map` or `reduce`.
    pub flops: f64,
    /// Bytes of buffers outside the kernel that it touches.
    pub bytes: f64,
    /// Predicted seconds.
    pub seconds: f64,
}

/// Predicts every kernel of a scheduled program, in order of execution.
pub fn cost(program: &Program, target: &dyn Target) -> Vec<KernelCost> {
    let runs = program.steps.iter().filter_map(|step| match step {
        Step::Run(k) => Some(*k),
        Step::Check { .. } | Step::Repeat { .. } | Step::End => None,
    });
    let kernels: Vec<_> = runs.collect();
    let mut weights = 0.0;
    for data in program.buffers.values() {
        if matches!(data.storage, Storage::Const(_)) {
            weights += data.bytes() as f64;
        }
    }
    kernels.into_iter().map(|k| kernel_cost(program, &program.kernels[k], target, weights)).collect()
}

fn kernel_cost(program: &Program, data: &KernelData, target: &dyn Target, weights: f64) -> KernelCost {
    let machine = target.machine();
    let calls: u64 = data.repeated().0.iter().map(|&l| data.loops[l].extent).product();
    let mut cycles = machine.call_cycles * calls as f64;
    let mut flops = 0.0;
    body_cycles(data, &data.body, 1.0, target, &mut cycles, &mut flops);
    let mut activations = 0.0;
    let mut constants = 0.0;
    for b in data.buffers() {
        let info = &program.buffers[b];
        // A gather touches only the rows that it takes, a scatter those that it gives.
        let gathered = data.stmts_in_order().iter().find_map(|&s| match &data.stmts[s].op {
            StmtOp::Gather { dst, src, .. } if src.buffer == b => Some(program.buffers[dst.buffer].bytes() as f64),
            StmtOp::Scatter { dst, src, .. } if dst.buffer == b => Some(program.buffers[src.buffer].bytes() as f64),
            StmtOp::Gather { .. }
            | StmtOp::Scatter { .. }
            | StmtOp::Copy { .. }
            | StmtOp::Map { .. }
            | StmtOp::Mma { .. }
            | StmtOp::Reduce { .. } => None,
        });
        let bytes = gathered.unwrap_or(info.bytes() as f64);
        match info.storage {
            Storage::Const(_) => constants += bytes,
            Storage::Input(_) | Storage::Output(_) | Storage::Temp => activations += bytes,
            Storage::Local(_) => {}
        }
    }
    let seconds_of =
        |bytes: f64, set: f64| level_for(machine, set).map_or(0.0, |l| bytes / l.bandwidth + l.latency_ns * 1e-9);
    let memory = seconds_of(constants, weights.max(constants)) + seconds_of(activations, activations + constants);
    let seconds = (cycles / machine.clock_hz).max(memory);
    KernelCost { kernel: data.name.clone(), flops, bytes: activations + constants, seconds }
}

/// The nearest level that holds a working set.
fn level_for(machine: &Machine, bytes: f64) -> Option<&MemoryLevel> {
    machine.memory.iter().find(|l| l.bytes == 0 || l.bytes as f64 >= bytes).or(machine.memory.last())
}

fn body_cycles(data: &KernelData, body: &[Item], times: f64, target: &dyn Target, cycles: &mut f64, flops: &mut f64) {
    for item in body {
        match item {
            Item::Loop(l, inner) => {
                let n = data.loops[*l].extent as f64;
                *cycles += times * n;
                body_cycles(data, inner, times * n, target, cycles, flops);
            }
            Item::Stmt(s) => {
                let (c, f) = stmt_cost(&data.stmts[*s], target);
                *cycles += times * c;
                *flops += times * f;
            }
        }
    }
}

/// Cycles and float operations of one execution of a tile.
fn stmt_cost(stmt: &StmtData, target: &dyn Target) -> (f64, f64) {
    let machine = target.machine();
    if let Some(i) = target.intrinsics().iter().find(|i| stmt.intrinsic.as_deref() == Some(i.name)) {
        // What sets accumulators to zero is part of the contraction after it.
        return if matches!(stmt.op, StmtOp::Map { .. }) { (0.0, 0.0) } else { intrinsic_cost(stmt, i) };
    }
    let lanes = machine.lanes_f32() as f64;
    let points = stmt.points() as f64;
    let vector = stmt.dims.iter().find(|d| d.exec == Exec::Vector);
    let issued = if vector.is_some() { points / lanes } else { points };
    match &stmt.op {
        StmtOp::Mma { a, b, .. } => {
            let distinct = |index: &[crate::tile::Affine]| -> f64 {
                let used = stmt
                    .dims
                    .iter()
                    .enumerate()
                    .filter(|(d, _)| index.iter().any(|e| e.uses(crate::tile::Var::Dim(*d as u32))));
                let along_vector = used.clone().any(|(_, d)| d.exec == Exec::Vector);
                let elements: u64 = used.map(|(_, d)| d.extent).product();
                if along_vector { elements as f64 / lanes } else { elements as f64 }
            };
            let loads = (distinct(&a.index) + distinct(&b.index)) / machine.loads_per_cycle;
            ((issued / machine.mac_per_cycle).max(loads), 2.0 * points)
        }
        StmtOp::Map { value, .. } => {
            let mut arithmetic = 0.0;
            let mut loads = 1.0;
            for inst in &value.insts {
                match inst {
                    Inst::Load(_) => loads += 1.0,
                    Inst::Const(_) => {}
                    // Divisions and square roots are not pipelined as well as the rest.
                    Inst::Binary(crate::tile::ScalarBinary::Div, ..)
                    | Inst::Unary(crate::tile::ScalarUnary::Sqrt, _) => {
                        arithmetic += 4.0;
                    }
                    Inst::Math(..) | Inst::Pow(..) => arithmetic += 20.0,
                    Inst::Unary(..)
                    | Inst::Binary(..)
                    | Inst::Fma(..)
                    | Inst::Select(..)
                    | Inst::Cast(..)
                    | Inst::Bitcast(..) => {
                        arithmetic += 1.0;
                    }
                }
            }
            let per_point = (arithmetic / machine.alu_per_cycle).max(loads / machine.loads_per_cycle);
            (issued * per_point, points * arithmetic)
        }
        StmtOp::Scatter { op: Some(_), .. } => (issued * 3.0 / machine.loads_per_cycle, points),
        StmtOp::Copy { .. } | StmtOp::Gather { .. } | StmtOp::Scatter { op: None, .. } => {
            (issued * 2.0 / machine.loads_per_cycle, 0.0)
        }
        // A tree of scalar operations, one after the other at its last levels.
        StmtOp::Reduce { .. } => (points * 2.0, points),
    }
}

/// A tile that a micro-kernel executes: its steps at the unit's rates, and a load and a store of every accumulator.
fn intrinsic_cost(stmt: &StmtData, intrinsic: &Intrinsic) -> (f64, f64) {
    let points = stmt.points() as f64;
    let results: u64 = stmt.dims.iter().filter(|d| d.name.starts_with('d')).map(|d| d.extent).product();
    let rows = stmt.dims.iter().filter(|d| d.name.starts_with('d')).rev().nth(1).map_or(1, |d| d.extent);
    let columns = results / rows.max(1);
    let steps = points / (results as f64).max(1.0);
    let accumulators = 2.0 * results as f64 / intrinsic.unit.lanes as f64;
    (steps * step_cycles(&intrinsic.unit, rows, columns) + accumulators + INTRINSIC_CALL_CYCLES, 2.0 * points)
}
