//! Levels of x86-64: each uses what it adds, and nothing of the next.
//!
//! That nothing is beyond a level is also checked for every program of the other tests of compiled code.

mod common;

use aic_ir::graph::Graph;
use aic_ir::lower::lower;
use aic_ir::machine::Target;
use aic_ir::schedule::{Level, Options, schedule};
use aic_ir::tile::math;
use aic_ir::types::{Tensor, TensorType};
use common::levels::{LEVELS, features};
use iced_x86::CpuidFeature;

/// A product, roundings, functions, integers: what the levels have different instructions for.
const GRAPH: &str = r#"graph "levels" {
  in v0 "x": f32[16, 24]
  in v1 "w": f32[24, 32]
  in v2 "i": i32[16, 32]
  in v3 "l": i64[16, 32]
  v4 "p": f32[16, 32] = matmul v0, v1
  v5 "r": f32[16, 32] = round v4
  v6 "s": f32[16, 32] = floor v4
  v7 "t": f32[16, 32] = tanh v4
  v8 "m": i32[16, 32] = mul v2, v2
  v9 "n": i32[16, 32] = max v8, v2
  v10 "a": i64[16, 32] = abs v3
  v11 "h": f16[16, 32] = cast v7 {to: f16}
  v12 "u": u32[16, 32] = cast v4 {to: u32}
  v13 "d": f64[16, 32] = cast v3 {to: f64}
  out "r" v5
  out "s" v6
  out "n" v9
  out "a" v10
  out "h" v11
  out "u" v12
  out "d" v13
}
"#;

#[test]
fn a_level_uses_what_it_adds_and_nothing_beyond() {
    let graph = Graph::parse(GRAPH, None).unwrap();
    let tensor = |ty: &TensorType| aic_ir::testing::Rng::new(5).tensor(ty, 4.0);
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|&v| tensor(graph.ty(v))).collect();
    let typical = [CpuidFeature::SSE2, CpuidFeature::SSE4_1, CpuidFeature::FMA, CpuidFeature::AVX512F];
    for ((machine, _), expected) in LEVELS.into_iter().zip(typical) {
        let target = common::target(machine);
        let mut naive = lower(&graph).unwrap();
        math::expand(&mut naive, target.machine().fma);
        let mut used = Vec::new();
        for level in [Level::Naive, Level::Tiled, Level::Small, Level::Full] {
            let program = schedule(&naive, &target, &Options { level }).unwrap().program;
            used.extend(features(&common::compile(&program, &target).0));
            common::check(&format!("{level:?}"), &program, &inputs, machine);
        }
        // Every level contains the ones before it; x86-64-v3 encodes their instructions anew.
        assert!(used.iter().any(|(feature, _)| *feature == expected), "{machine} does not use {expected:?}");
    }
}
