//! `aic bench`: how long one run takes, and every kernel beside its prediction.

use std::time::{Duration, Instant};

use aic::Model;
use aic::bench::{KernelTime, Times, measure, quality};
use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::args::BenchArgs;
use crate::job::{self, DefaultTarget};
use crate::reply::{Reply, count, fields, size, table, time_ms};

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<Reply> {
    if !(args.seconds.is_finite() && (0.0..=86_400.0).contains(&args.seconds)) {
        bail!(aic::Error::Refused(format!("--seconds {} is not between 0 and a day", args.seconds)));
    }
    let budget = Duration::from_secs_f64(args.seconds);
    let start = Instant::now();
    let model = Model::open(&args.model.model)?;
    let mut config = job::config(&args.target, &args.model.shape, DefaultTarget::Native)?;
    if args.per_kernel {
        config = config.step_entries();
    }
    let (arrays, config) = job::arrays(&model, &args.inputs, config)?;
    let artifacts = job::compile(&model, config)?;
    let mut runner = artifacts.runner()?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;

    let seed = args.inputs.random.or(args.inputs.input.is_empty().then_some(0));
    runner.load(&arrays.in_order(&artifacts.program, seed)?)?;
    let times = measure(budget, || runner.execute())?;
    let kernels = if args.per_kernel { per_kernel(&artifacts, &mut runner, budget)? } else { Vec::new() };

    let predicted_ms = artifacts.costs.iter().map(|c| c.seconds).sum::<f64>() * 1e3;
    let flops = artifacts.costs.iter().map(|c| c.flops).sum::<f64>();
    let mut object = json!({
        "model": args.model.model.display().to_string(),
        "machine": artifacts.target.machine.name,
        "threads": 1,
        "threads_requested": args.threads,
        "median_ms": times.median_ms,
        "min_ms": times.min_ms,
        "q1_ms": times.q1_ms,
        "q3_ms": times.q3_ms,
        "runs": times.runs,
        "compile_ms": compile_ms,
        "arena_bytes": artifacts.plan.arena_bytes,
        "weights_bytes": artifacts.plan.weights_bytes,
        "flops": flops,
        "gflops": flops / times.median_ms.max(1e-9) / 1e6,
        "predicted_ms": predicted_ms,
    });
    let mut text =
        summary(&times, compile_ms, predicted_ms, flops, artifacts.plan.arena_bytes, &artifacts.target.machine.name);
    if !kernels.is_empty() {
        object["kernels"] = kernels_json(&kernels);
        text += "\n";
        text += &kernels_table(&kernels);
        if let Some(q) = quality(&kernels) {
            object["cost_model"] = json!({ "median_error": q.median_error, "rank_correlation": q.rank_correlation });
            text += &format!(
                "cost model: median error {:.0} %, rank correlation {:.2}\n",
                q.median_error * 100.0,
                q.rank_correlation
            );
        }
    }
    Ok(Reply::ok(text, fields(object)))
}

fn summary(t: &Times, compile_ms: f64, predicted_ms: f64, flops: f64, arena_bytes: u64, machine: &str) -> String {
    format!(
        "median {}  (quartiles {} to {}, minimum {}, {} runs, 1 thread)\n\
         {:.1} GFLOP/s of {} FLOPs, predicted {}, arena {}, compiled in {} for {machine}\n",
        time_ms(t.median_ms),
        time_ms(t.q1_ms),
        time_ms(t.q3_ms),
        time_ms(t.min_ms),
        t.runs,
        flops / t.median_ms.max(1e-9) / 1e6,
        count(flops as u64),
        time_ms(predicted_ms),
        size(arena_bytes),
        time_ms(compile_ms),
    )
}

/// Measures every kernel within runs of the whole model, so that caches are as they are there.
fn per_kernel(artifacts: &aic::Artifacts, runner: &mut aic::Runner, budget: Duration) -> Result<Vec<KernelTime>> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); artifacts.costs.len()];
    measure(budget, || {
        for (all, time) in times.iter_mut().zip(runner.execute_kernels()?) {
            all.push(time);
        }
        Ok::<_, aic::Error>(())
    })?;
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
    };
    let pairs = artifacts.costs.iter().zip(times);
    Ok(pairs.map(|(cost, times)| KernelTime { cost: cost.clone(), seconds: median(times) }).collect())
}

fn kernels_json(kernels: &[KernelTime]) -> Value {
    let total: f64 = kernels.iter().map(|k| k.seconds).sum();
    kernels
        .iter()
        .map(|k| {
            json!({
                "kernel": k.cost.kernel,
                "flops": k.cost.flops,
                "predicted_us": k.cost.seconds * 1e6,
                "measured_us": k.seconds * 1e6,
                "gflops": k.cost.flops / k.seconds.max(1e-12) / 1e9,
                "share": k.seconds / total.max(1e-12),
            })
        })
        .collect()
}

fn kernels_table(kernels: &[KernelTime]) -> String {
    let total: f64 = kernels.iter().map(|k| k.seconds).sum();
    let rows: Vec<_> = kernels
        .iter()
        .map(|k| {
            vec![
                k.cost.kernel.clone(),
                format!("{:.1}", k.cost.seconds * 1e6),
                format!("{:.1}", k.seconds * 1e6),
                format!("{:.1}", k.cost.flops / k.seconds.max(1e-12) / 1e9),
                format!("{:.1} %", 100.0 * k.seconds / total.max(1e-12)),
            ]
        })
        .collect();
    table(&["kernel", "predicted µs", "measured µs", "GFLOP/s", "share"], &rows)
}
