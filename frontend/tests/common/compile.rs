//! A model's whole way through the compiler up to the plan, as far as no backend is needed.

use aic_ir::graph::{Graph, Op, interp, passes};
use aic_ir::machine::{Machine, Target, builtin};
use aic_ir::schedule::{Level, Options, ScheduleError, Scheduled, schedule};
use aic_ir::tile::{KernelData, Program, verify};
use aic_ir::types::Tensor;
use aic_ir::{lower, plan};

/// A machine whose backend takes every kernel.
struct AnyKernel(Machine);

impl Target for AnyKernel {
    fn machine(&self) -> &Machine {
        &self.0
    }

    fn legal(&self, _: &Program, _: &KernelData) -> Result<(), String> {
        Ok(())
    }
}

/// Passes and lowering. An error is a refusal in words for the user; everything that blames the compiler panics.
pub fn lowered(mut graph: Graph) -> Result<Program, String> {
    graph.verify().unwrap_or_else(|e| panic!("the reader made a broken graph:\n{e}"));
    passes::run(&mut graph, passes::Options::default(), &mut |_, _, _, _| {}).unwrap_or_else(|e| panic!("{e}"));
    let program = lower::lower(&graph).map_err(|e| e.to_string())?;
    verify::verify(&program).unwrap_or_else(|e| panic!("the naive program is broken:\n{e}"));
    Ok(program)
}

/// Lowering, then schedule and plan of a program.
pub fn compiled(graph: Graph) -> Result<(), String> {
    let program = scheduled(&lowered(graph)?)?;
    let plan = match plan::plan(&program) {
        Ok(plan) => plan,
        Err(e @ plan::PlanError::TooLarge { .. }) => return Err(e.to_string()),
        Err(e) => panic!("{e}"),
    };
    plan::check(&program, &plan).unwrap_or_else(|e| panic!("{e}"));
    Ok(())
}

/// The built-in scheduler's program.
pub fn scheduled(program: &Program) -> Result<Program, String> {
    let target = AnyKernel(builtin("x86-64-v3").unwrap_or_else(|e| panic!("{e}")));
    match schedule(program, &target, &Options { level: Level::Full }) {
        Ok(Scheduled { program, .. }) => {
            verify::verify(&program).unwrap_or_else(|e| panic!("the scheduled program is broken:\n{e}"));
            Ok(program)
        }
        Err(e @ ScheduleError::Unsupported { .. }) => Err(e.to_string()),
        Err(e) => panic!("{e}"),
    }
}

/// Evaluates a small graph on zeros; larger ones are left alone.
pub fn evaluated(graph: &Graph) {
    const MAX_ELEMS: u64 = 1 << 12;
    let small = is_small(graph, MAX_ELEMS);
    let work = work_of_all(graph);
    if !small || work > 1 << 22 {
        return;
    }
    let zeros = |ty: &aic_ir::types::TensorType| Tensor::new(ty.clone(), vec![0; ty.bytes() as usize].into());
    let inputs: Result<Vec<Tensor>, _> = graph.inputs.iter().map(|&v| zeros(graph.ty(v))).collect();
    // An index out of range is an error of the run.
    let _result = interp::evaluate(graph, &inputs.unwrap_or_else(|e| panic!("{e}")));
}

fn is_small(graph: &Graph, most: u64) -> bool {
    let bodies = graph.nodes.values().filter_map(|node| match &node.op {
        Op::Scan(scan) => Some(&scan.body),
        _ => None,
    });
    graph.values.values().all(|v| v.ty.elems() <= most) && bodies.into_iter().all(|body| is_small(body, most))
}

fn work_of_all(graph: &Graph) -> u64 {
    graph.order.iter().map(|&n| work_of(graph, n)).fold(0, u64::saturating_add)
}

/// At most as many steps as evaluating a node takes.
fn work_of(graph: &Graph, node: aic_ir::graph::Node) -> u64 {
    let data = &graph.nodes[node];
    let elems = |v: &aic_ir::graph::Value| graph.ty(*v).elems().max(1);
    let results: u64 = data.outputs.iter().map(elems).sum();
    match &data.op {
        Op::Scan(scan) => scan.trips.saturating_mul(work_of_all(&scan.body).saturating_add(1)),
        _ => data.inputs.iter().map(elems).max().unwrap_or(1).saturating_mul(results),
    }
}
