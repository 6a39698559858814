//! What the tests of compiled code share: running a program on the JIT and in the tile interpreter, and comparing bits.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod aarch64;
pub mod levels;

use std::cell::RefCell;

use aic_cpu::jit::Jit;
use aic_cpu::{Compiled, CpuTarget, Options};
use aic_ir::machine::{Arch, builtin};
use aic_ir::plan::{self, Place, Plan};
use aic_ir::tile::{Program, Step, Storage, interp, materialize};
use aic_ir::types::Tensor;

/// Every level of x86-64. Code for the last is disassembled everywhere, and runs where the processor has it.
pub const MACHINES: [&str; 4] = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"];

/// What runs in another processor's emulator.
pub const AARCH64: &str = "aarch64";

pub fn target(machine: &str) -> CpuTarget {
    let machine = builtin(machine).unwrap();
    let triple = match machine.arch {
        Arch::X86_64 => "x86_64-unknown-linux-gnu",
        Arch::Aarch64 => "aarch64-unknown-none",
    };
    CpuTarget::new(machine, triple.parse().unwrap()).unwrap()
}

/// The weight block that a plan describes.
pub fn weights(program: &Program, plan: &Plan) -> Vec<u8> {
    let mut block = vec![0; plan.weights_bytes as usize];
    for (b, data) in &program.buffers {
        if let (Storage::Const(tensor), Place::Weights(offset)) = (&data.storage, plan.places[b]) {
            let bytes = materialize(tensor, &data.layout, &data.shape).unwrap();
            block[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }
    block
}

pub fn compile(program: &Program, target: &CpuTarget) -> (Compiled, Vec<u8>) {
    let plan = plan::plan(program).unwrap();
    plan::check(program, &plan).unwrap();
    let options = Options { clif: true, asm: false, step_entries: true };
    let compiled = aic_cpu::compile(program, &plan, target, &options).unwrap_or_else(|e| panic!("{e}"));
    let weights = weights(program, &plan);
    (compiled, weights)
}

/// Runs a program on its machine, in this process or an emulator, and in the tile interpreter; the outputs must have equal
/// bits, NaNs aside.
pub fn check(what: &str, program: &Program, inputs: &[Tensor], machine: &str) {
    let expected = interp::run(program, inputs).unwrap_or_else(|e| panic!("{what}: interpreter: {e}"));
    let (compiled, weights) = compile(program, &target(machine));
    let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes().as_ref()).collect();
    if machine == AARCH64 {
        let (status, outputs) = emulated(&compiled, &weights, &bytes);
        assert_eq!(status, 0, "{what}, {machine}");
        assert_same(&format!("{what}, {machine}"), &compiled, outputs, &expected);
        return;
    }
    levels::assert_within(what, &compiled, machine);
    if machine == "x86-64-v4" && !std::is_x86_feature_detected!("avx512vl") {
        return;
    }
    let mut jit = Jit::new(&compiled, &weights).unwrap();
    let mut outputs = Vec::new();
    jit.run(&bytes, &mut outputs).unwrap();
    assert_same(&format!("{what}, {machine}"), &compiled, outputs, &expected);
    // Step by step gives the same, but for repeats: there a step runs all its rounds before the next step.
    if program.steps.iter().any(|s| matches!(s, Step::Repeat { .. })) {
        return;
    }
    jit.set_inputs(&bytes).unwrap();
    assert_eq!(jit.call_steps().unwrap().len(), program.steps.len());
    for (i, e) in expected.iter().enumerate() {
        let actual = Tensor::new(e.ty().clone(), jit.output(i).unwrap().to_vec().into()).unwrap();
        assert_eq!(first_difference(&actual, e).map(|d| d.0), None, "{what}: step by step, output {i}");
    }
}

/// Status and outputs of a program on AArch64; each thread has an emulator of its own.
pub fn emulated(compiled: &Compiled, weights: &[u8], inputs: &[&[u8]]) -> (i32, Vec<Vec<u8>>) {
    thread_local!(static MACHINE: RefCell<Option<aarch64::Machine>> = const { RefCell::new(None) });
    MACHINE.with_borrow_mut(|m| m.get_or_insert_with(aarch64::Machine::start).run(compiled, weights, inputs))
}

fn assert_same(what: &str, compiled: &Compiled, outputs: Vec<Vec<u8>>, expected: &[Tensor]) {
    for (i, (actual, expected)) in outputs.into_iter().zip(expected).enumerate() {
        let actual = Tensor::new(expected.ty().clone(), actual.into()).unwrap();
        if let Some((at, a, e)) = first_difference(&actual, expected) {
            let clif: String = compiled.functions.iter().filter_map(|f| f.clif.clone()).collect();
            panic!("{what}: output {i} element {at} is {a:?}, the interpreter says {e:?}\n{clif}");
        }
    }
}

fn first_difference(a: &Tensor, b: &Tensor) -> Option<(u64, f64, f64)> {
    let size = a.ty().dtype().bytes() as usize;
    let is_float = a.ty().dtype().is_float();
    (0..a.ty().elems()).find_map(|i| {
        let range = i as usize * size..(i as usize + 1) * size;
        let (x, y) = (a.get_f64(i)?, b.get_f64(i)?);
        let equal = a.bytes()[range.clone()] == b.bytes()[range] || (is_float && x.is_nan() && y.is_nan());
        (!equal).then_some((i, x, y))
    })
}
