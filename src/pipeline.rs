//! The way of a model, from its files to machine code: the one function that lists the stages in order.

use std::time::Instant;

use aic_cpu::CpuTarget;
use aic_ir::graph::{Graph, passes};
use aic_ir::schedule::{self, Level, Schedule, Scheduled};
use aic_ir::tile::{self, Program};
use aic_ir::{lower, plan};
use sha2::{Digest, Sha256};

use crate::config::OptLevel;
use crate::observe::{Event, Observer};
use crate::{Artifacts, Config, Error, Model, artifacts};

/// Stages by the names that their events have; those of the passes on graphs come in between.
pub(crate) const STAGES: [&str; 7] = ["read", "lower", "math", "schedule", "plan", "compile", "artifact"];

/// Compiles a model for a target.
///
/// # Errors
/// Whatever the first stage that refuses the model says; limits of the configuration that are exceeded.
pub fn run(
    model: &Model,
    config: &Config,
    target: &CpuTarget,
    observer: &mut dyn Observer,
) -> Result<Artifacts, Error> {
    let mut watch = Watch { observer };

    // Files to graph. From here on, every shape is static and every operator is one of the closed set.
    let mut graph = watch.stage("read", || model.read(&config.shapes), Graph::to_string)?;
    graph.name = config.name.clone().unwrap_or_else(|| model.name().to_owned());
    let model_sha256 = fingerprint(model);
    watch.verify("read", || graph.verify().map(|_| ()))?;
    let declared = graph.clone();

    // Graph to graph.
    watch.observer.begin("passes");
    let options = passes::Options { fuse: config.opt_level != OptLevel::None };
    let passes = passes::run(&mut graph, options, &mut |pass, graph, changed, time| {
        watch.observer.after(&Event { pass, changed, time, text: &|| graph.to_string() });
    })
    .map_err(|e| Error::internal("passes", e))?;

    compile(Compilation { graph, declared, passes, model_sha256 }, config, target, watch.observer)
}

/// A graph ready to be lowered.
pub(crate) struct Compilation {
    /// The graph after its passes.
    pub graph: Graph,
    /// The graph as it was read.
    pub declared: Graph,
    /// What the passes did.
    pub passes: passes::Report,
    /// Hash of the model's files.
    pub model_sha256: String,
}

/// The second half of [`run`], from a graph on.
pub(crate) fn compile(
    job: Compilation,
    config: &Config,
    target: &CpuTarget,
    observer: &mut dyn Observer,
) -> Result<Artifacts, Error> {
    let mut watch = Watch { observer };
    let Compilation { graph, declared, passes, model_sha256 } = job;

    // Graph to naive tile program. From here on, nobody looks at operators.
    let naive =
        watch.stage("lower", || lower::lower(&graph).map_err(|e| Error::stage("lowering", e)), Program::to_string)?;
    watch.verify("lower", || tile::verify::verify(&naive).map(|_| ()))?;

    // Functions to the instructions that machines have. From here on, results are the same bits in every executor.
    let naive = watch.stage(
        "math",
        || {
            let mut naive = naive;
            tile::math::expand(&mut naive, target.machine.fma);
            Ok(naive)
        },
        Program::to_string,
    )?;
    watch.verify("math", || tile::verify::verify(&naive).map(|_| ()))?;

    // Naive to scheduled program. From here on, no statement moves.
    let Scheduled { program, schedule, costs } = watch.stage(
        "schedule",
        || match &config.schedule {
            Some(text) => given_schedule(text, &naive, target),
            None => {
                let options = schedule::Options { level: level(config.opt_level) };
                schedule::schedule(&naive, target, &options).map_err(|e| Error::stage("the scheduler", e))
            }
        },
        |s| s.program.to_string(),
    )?;
    drop(naive);
    watch.verify("schedule", || tile::verify::verify_for(&program, &target.machine).map(|_| ()))?;

    // Every buffer to its bytes; the checker does not trust the planner, so it runs in release too.
    let plan = watch.stage(
        "plan",
        || plan::plan(&program).map_err(|e| Error::stage("the planner", e)),
        |plan| plan::text::print(&program, plan),
    )?;
    plan::check(&program, &plan).map_err(|e| Error::internal("plan", e))?;

    // Program to machine code.
    let compiled = watch.stage(
        "compile",
        || {
            let options =
                aic_cpu::Options { clif: config.listings, asm: config.listings, step_entries: config.step_entries };
            aic_cpu::compile(&program, &plan, target, &options).map_err(|e| Error::stage("the code generator", e))
        },
        |compiled| compiled.functions.iter().filter_map(|f| f.clif.as_deref()).collect(),
    )?;

    let spec = artifacts::spec(&graph, config, model_sha256);
    let artifact = watch.stage(
        "artifact",
        || {
            let weights = aic_cpu::artifact::Weights::new(&program, &plan);
            aic_cpu::artifact::Artifact::new(&compiled, &spec, weights, target).map_err(artifacts::artifact_error)
        },
        |artifact| artifact.header(),
    )?;

    let target = target.clone();
    let linker = config.linker.clone();
    let artifacts =
        Artifacts { graph, declared, passes, schedule, costs, program, plan, compiled, artifact, target, linker };
    artifacts.enforce(&config.limits)?;
    Ok(artifacts)
}

/// Applies a schedule that the user gives.
fn given_schedule(text: &str, naive: &Program, target: &CpuTarget) -> Result<Scheduled, Error> {
    let refused = |e| Error::stage("the given schedule", e);
    let schedule = Schedule::parse(text).map_err(refused)?;
    let program = schedule::apply(naive, &schedule, target).map_err(refused)?;
    let costs = schedule::cost(&program, target);
    Ok(Scheduled { program, schedule, costs })
}

fn level(opt_level: OptLevel) -> Level {
    match opt_level {
        OptLevel::None => Level::Naive,
        OptLevel::Tiled => Level::Tiled,
        OptLevel::Speed => Level::Full,
        OptLevel::Size => Level::Small,
    }
}

/// SHA-256 over the model's files, each with its name and length.
fn fingerprint(model: &Model) -> String {
    let mut hash = Sha256::new();
    let contents = model.contents();
    if let [(_, bytes)] = contents.as_slice() {
        // One file: the hash that `sha256sum` prints.
        hash.update(bytes);
    } else {
        for (name, bytes) in &contents {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Times stages and tells the observer.
struct Watch<'a> {
    observer: &'a mut dyn Observer,
}

impl Watch<'_> {
    fn stage<T>(
        &mut self,
        stage: &'static str,
        work: impl FnOnce() -> Result<T, Error>,
        text: impl Fn(&T) -> String,
    ) -> Result<T, Error> {
        debug_assert!(STAGES.contains(&stage), "{stage} is listed");
        self.observer.begin(stage);
        let start = Instant::now();
        let result = work()?;
        let time = start.elapsed();
        self.observer.after(&Event { pass: stage, changed: true, time, text: &|| text(&result) });
        Ok(result)
    }

    /// In debug builds and tests, what a stage leaves must pass its verifier.
    fn verify<E: std::fmt::Display>(
        &self,
        stage: &'static str,
        verdict: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), Error> {
        if cfg!(debug_assertions) { verdict().map_err(|e| Error::internal(stage, e)) } else { Ok(()) }
    }
}
