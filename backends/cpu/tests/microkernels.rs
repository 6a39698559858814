//! Matrix products that the schedule gives to assembled micro-kernels, bit for bit against the tile interpreter.

mod common;

use aic_ir::graph::{BinaryOp, GeluKind, Graph, Op};
use aic_ir::lower::lower;
use aic_ir::machine::Target;
use aic_ir::schedule::{Level, Options, Schedule, apply, schedule};
use aic_ir::testing::Rng;
use aic_ir::tile::{Program, math};
use aic_ir::types::{DType, TensorType};

/// Machines with micro-kernels that this processor can run.
fn machines() -> Vec<&'static str> {
    let mut found = vec!["x86-64-v3"];
    if std::arch::is_x86_feature_detected!("avx512f") {
        found.push("x86-64-v4");
    }
    found
}

/// `gelu(x w + b)` with `w` stored as `[K, N]` or `[N, K]`.
fn dense(m: u64, k: u64, n: u64, transposed: bool, rng: &mut Rng) -> Graph {
    let mut graph = Graph::new("dense");
    let ty = |shape: &[u64]| TensorType::new(DType::F32, shape).unwrap();
    let x = graph.add_input("x", ty(&[m, k]));
    let shape = if transposed { [n, k] } else { [k, n] };
    let w = rng.tensor(&ty(&shape), 1.0);
    let mut w = graph.add_const("w", w);
    if transposed {
        w = graph.add_node("wt", Op::Transpose { perm: vec![1, 0] }, &[w]).unwrap();
    }
    let b = rng.tensor(&ty(&[n]), 1.0);
    let b = graph.add_const("b", b);
    let y = graph.add_node("mm", Op::MatMul, &[x, w]).unwrap();
    let y = graph.add_node("add", Op::Binary(BinaryOp::Add), &[y, b]).unwrap();
    let y = graph.add_node("gelu", Op::Gelu(GeluKind::Erf), &[y]).unwrap();
    graph.add_output("y", y);
    graph
}

fn uses_intrinsics(program: &Program) -> bool {
    program.kernels.values().any(|k| k.stmts_in_order().iter().any(|&s| k.stmts[s].intrinsic.is_some()))
}

#[test]
fn products_of_all_sizes_give_the_same_bits_as_the_interpreter() {
    let mut rng = Rng::new(7);
    let sizes = [(1, 8, 16), (5, 9, 48), (8, 33, 96), (9, 16, 50), (17, 40, 130), (3, 64, 64), (13, 8, 24)];
    for (m, k, n) in sizes {
        for transposed in [false, true] {
            let graph = dense(m, k, n, transposed, &mut rng);
            let input = rng.tensor(&TensorType::new(DType::F32, [m, k]).unwrap(), 1.0);
            for machine in machines() {
                let target = common::target(machine);
                let mut naive = lower(&graph).unwrap();
                math::expand(&mut naive, target.machine().fma);
                let scheduled = schedule(&naive, &target, &Options { level: Level::Full }).unwrap();
                assert!(uses_intrinsics(&scheduled.program), "{m}x{k}x{n} on {machine}");
                common::check(&format!("{m}x{k}x{n}"), &scheduled.program, std::slice::from_ref(&input), machine);
            }
        }
    }
}

#[test]
fn attention_gives_the_same_bits_as_the_interpreter() {
    let mut rng = Rng::new(11);
    let mut graph = Graph::new("attention");
    let shape = [1, 2, 21, 16];
    let ty = TensorType::new(DType::F32, shape).unwrap();
    let [q, k, v] = ["q", "k", "v"].map(|name| graph.add_input(name, ty.clone()));
    let y = graph.add_node("attention", Op::Attention { scale: 0.25 }, &[q, k, v]).unwrap();
    graph.add_output("y", y);
    let inputs = [rng.tensor(&ty, 1.0), rng.tensor(&ty, 1.0), rng.tensor(&ty, 1.0)];
    for machine in machines() {
        let target = common::target(machine);
        let mut naive = lower(&graph).unwrap();
        math::expand(&mut naive, target.machine().fma);
        let scheduled = schedule(&naive, &target, &Options { level: Level::Full }).unwrap();
        assert!(uses_intrinsics(&scheduled.program), "{machine}");
        common::check("attention", &scheduled.program, &inputs, machine);
    }
}

#[test]
fn a_statement_that_does_not_fit_is_refused() {
    let graph = dense(4, 16, 32, false, &mut Rng::new(3));
    let target = common::target("x86-64-v3");
    let mut naive = lower(&graph).unwrap();
    math::expand(&mut naive, true);
    let refusal = |directive: &str| {
        let hash = aic_ir::tile::hash::program_hash(&naive);
        let schedule = Schedule::parse(&format!("schedule for #{hash:016x}\n{directive}\n")).unwrap();
        apply(&naive, &schedule, &target).map(|_| ()).map_err(|e| e.to_string())
    };
    let kernel = naive.kernels.values().next().unwrap().name.clone();
    for (directive, reason) in [
        (format!("intrinsic {kernel} mma f32_gemm_avx512"), "has no intrinsic"),
        (format!("intrinsic {kernel} init f32_gemm_avx2"), "is not given to"),
        (format!("intrinsic {kernel} mma f32_gemm_avx2"), "does not fit its registers"),
    ] {
        let error = refusal(&directive);
        assert!(error.as_ref().is_err_and(|e| e.contains(reason)), "{directive}: {error:?}");
    }
}
