//! From arguments as typed to what the library takes: the part that several commands share.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;

use aic::inputs::Arrays;
use aic::observe::Dump;
use aic::{Artifacts, Config, Error, Model, TargetSpec};

use crate::args::{Cli, InputArgs, OptLevel, TargetArgs};
use crate::progress::Progress;

/// What is compiled for when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultTarget {
    /// A common processor, the same on every host: what is written to files.
    Common,
    /// This host: what is run here.
    Native,
}

/// Resolves target, shapes and schedule.
pub fn config(target: &TargetArgs, shapes: &[String], default: DefaultTarget) -> Result<Config> {
    let mut config = Config::new().target(target_spec(target, default)?).opt_level(match target.opt_level {
        OptLevel::O0 => aic::OptLevel::None,
        OptLevel::O1 => aic::OptLevel::Tiled,
        OptLevel::O2 | OptLevel::O3 => aic::OptLevel::Speed,
        OptLevel::Size => aic::OptLevel::Size,
    });
    for shape in shapes {
        config = config.shape(shape)?;
    }
    if let Some(path) = &target.schedule {
        config = config.schedule(&read_text(path)?);
    }
    Ok(config)
}

fn target_spec(target: &TargetArgs, default: DefaultTarget) -> Result<TargetSpec> {
    let plain = target.target.is_none() && target.target_cpu.is_none() && target.machine.is_none();
    let mut spec = match default {
        DefaultTarget::Native if plain => TargetSpec::native(),
        DefaultTarget::Native | DefaultTarget::Common => TargetSpec::new(),
    };
    if let Some(triple) = &target.target {
        spec = spec.triple(triple);
    }
    if let Some(cpu) = &target.target_cpu {
        spec = spec.cpu(cpu);
    }
    if let Some(path) = &target.machine {
        spec = spec.machine_file(&read_text(path)?);
    }
    for features in &target.target_feature {
        spec = spec.features(features);
    }
    Ok(spec)
}

/// Wrong use, as clap would say it.
pub fn usage(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, message)
}

/// Refuses `-`, by which other tools mean a stream: here the table of what was written goes to standard output.
pub fn named_file(path: &Path) -> Result<(), clap::Error> {
    if path == Path::new("-") {
        return Err(usage("`-` is no output file: a file of that name is `./-`, and standard output is /dev/stdout"));
    }
    Ok(())
}

/// Reads a text file that a flag names.
pub fn read_text(path: &Path) -> Result<String> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    Ok(std::fs::read_to_string(path).map_err(io)?)
}

/// Reads the arrays that are given, and takes the shapes of their inputs from them.
pub fn arrays(model: &Model, args: &InputArgs, mut config: Config) -> Result<(Arrays, Config)> {
    let declared = if args.input.is_empty() { Vec::new() } else { model.inspect(config.shapes())?.inputs };
    let arrays = Arrays::load(&args.input, &declared)?;
    for (name, shape) in arrays.shapes() {
        config = config.input_shape(name, shape).with_context(|| format!("shape of the array for `{name}`"))?;
    }
    Ok((arrays, config))
}

/// Compiles with a progress bar, and dumps as `AIC_DUMP` asks for.
pub fn compile(model: &Model, config: Config) -> Result<Artifacts> {
    let dump = Dump::from_env()?;
    let mut watch = (Progress::start(), dump);
    Ok(config.session()?.compile_observed(model, &mut watch)?)
}
