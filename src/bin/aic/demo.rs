//! `aic demo`, and `aic compile` without anything: the embedded model compiled, run on the images that nobody trained it
//! on, and checked against the interpreter.

use std::time::{Duration, Instant};

use aic::bench::measure;
use aic::compare::{Tolerance, compare_evaluated};
use aic::{Config, TargetSpec, digits};
use aic_ir::graph::interp::{self, ErrorModel};
use anyhow::{Context, Result};
use serde_json::json;

use crate::job;
use crate::reply::{Reply, Status, count, fields, size, time_ms};

/// Runs the command.
pub fn run() -> Result<Reply> {
    let model = digits::model();
    let images = digits::held_out()?;
    let start = Instant::now();
    let artifacts = job::compile(&model, Config::new().target(TargetSpec::native()).shape("batch=1")?)?;
    let mut runner = artifacts.runner()?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;

    let (mut right, mut outside, mut max_abs) = (0, 0, 0.0f64);
    for (image, label) in &images {
        let inputs = std::slice::from_ref(image);
        let logits = runner.run(inputs)?;
        let logits = logits.first().context("the model has no output")?;
        right += usize::from(digits::largest(logits) == Some(u64::from(*label)));
        let expected = interp::evaluate_with(&artifacts.declared, inputs, ErrorModel::Independent)?;
        let expected = expected.first().context("the model has no output")?;
        let difference =
            compare_evaluated("logits", logits, expected, &Tolerance::default()).map_err(aic::Error::Mismatch)?;
        outside += usize::from(!difference.passed);
        max_abs = max_abs.max(difference.max_abs);
    }
    let times = measure(Duration::from_millis(50), || runner.execute())?;

    let accuracy = right as f64 / images.len() as f64;
    let flops: f64 = artifacts.costs.iter().map(|c| c.flops).sum();
    let text = format!(
        "digits: a student of 3,402 parameters, distilled from a teacher of 405,054 (tests/models/README.md)\n\
         compiled in {} for {}: {} FLOPs, arena {}, weights {}\n\
         accuracy {:.2} % ({right} of {} held-out images), {} per image\n\
         against the interpreter: largest difference {max_abs:.1e}, {outside} of {} outputs outside their error bound\n\
         \n\
         Try next:\n\
         \x20 aic compile MODEL.onnx --out-dir out     an object and a header that link into any C program\n\
         \x20 aic bench MODEL.onnx --per-kernel        where the time goes\n\
         \x20 aic check MODEL.onnx --random 1 --against graph\n\
         \x20 aic --help\n",
        time_ms(compile_ms),
        artifacts.target.machine.name,
        count(flops as u64),
        size(artifacts.plan.arena_bytes),
        size(artifacts.plan.weights_bytes),
        accuracy * 100.0,
        images.len(),
        time_ms(times.median_ms),
        images.len(),
    );
    let reply = Reply::ok(
        text,
        fields(json!({
            "model": "digits",
            "machine": artifacts.target.machine.name,
            "images": images.len(),
            "right": right,
            "accuracy": accuracy,
            "max_abs": max_abs,
            "outside": outside,
            "median_ms": times.median_ms,
            "compile_ms": compile_ms,
            "arena_bytes": artifacts.plan.arena_bytes,
            "weights_bytes": artifacts.plan.weights_bytes,
        })),
    );
    Ok(match outside {
        0 => reply,
        n => reply.with_status(Status::Mismatch, format!("{n} outputs lie outside the interpreter's error bound")),
    })
}
