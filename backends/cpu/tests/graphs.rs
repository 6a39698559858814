//! Random graphs, lowered, expanded, scheduled and compiled, against the interpreter of the same scheduled program.

mod common;

use aic_ir::lower::lower;
use aic_ir::machine::Target;
use aic_ir::schedule::{Level, Options, schedule};
use aic_ir::testing::random_graph;
use aic_ir::tile::math;

#[test]
fn random_graphs_give_the_same_bits_as_the_interpreter() {
    for seed in 60..100 {
        let (graph, inputs) = random_graph(seed, 8);
        for machine in common::MACHINES.into_iter().chain([common::AARCH64]) {
            let target = common::target(machine);
            let mut naive = lower(&graph).unwrap();
            math::expand(&mut naive, target.machine().fma);
            for level in [Level::Naive, Level::Tiled, Level::Small, Level::Full] {
                let scheduled = schedule(&naive, &target, &Options { level })
                    .unwrap_or_else(|e| panic!("seed {seed}, {machine}, {level:?}: {e}"));
                common::check(&format!("seed {seed}, {level:?}"), &scheduled.program, &inputs, machine);
            }
        }
    }
}
