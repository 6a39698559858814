//! Compiling with one configuration, any number of models; and the one call that a build script needs.

use std::path::{Path, PathBuf};

use aic_cpu::CpuTarget;
use aic_cpu::artifact::header;

use crate::observe::{Dump, Observer};
use crate::output::Outputs;
use crate::{Artifacts, Config, EmitKind, Error, Model, pipeline};

/// A configuration with its target found. Made by [`Config::session`].
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    target: CpuTarget,
}

impl Session {
    pub(crate) fn new(config: Config, target: CpuTarget) -> Self {
        Self { config, target }
    }

    /// The target.
    pub fn target(&self) -> &CpuTarget {
        &self.target
    }

    /// Compiles a model; dumps as `AIC_DUMP` asks for.
    ///
    /// # Errors
    /// What the first stage that refuses the model says.
    pub fn compile(&self, model: &Model) -> Result<Artifacts, Error> {
        self.compile_observed(model, &mut Dump::from_env())
    }

    /// Compiles a model while someone watches.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn compile_observed(&self, model: &Model, observer: &mut dyn Observer) -> Result<Artifacts, Error> {
        pipeline::run(model, &self.config, &self.target, observer)
    }
}

/// Compiles a model in a build script: writes `libNAME.a`, `NAME.h` and `aic.h` into `OUT_DIR` for Cargo's target, and prints
/// what Cargo is to link and to watch. Gives the folder.
///
/// # Errors
/// When the model is refused, or the script does not run under Cargo. Dynamic dimensions need a [`Config`]; then write
/// [`Artifacts::emit`]'s files yourself.
pub fn compile(model: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let variable = |name: &str| {
        let text = format!("{name} is not set: aic::compile is for build scripts; elsewhere use aic::Config");
        std::env::var(name).map_err(|_| Error::Refused(text))
    };
    let (folder, triple) = (PathBuf::from(variable("OUT_DIR")?), variable("TARGET")?);
    let model = Model::open(model)?;
    let target = crate::TargetSpec::new().triple(&triple);
    let artifacts = Config::new().target(target).session()?.compile(&model)?;
    let mut outputs = Outputs::new();
    for kind in [EmitKind::StaticLib, EmitKind::Header] {
        artifacts.write(kind, outputs.create(&folder.join(kind.file_name(model.name())))?)?;
    }
    outputs.add(&folder.join(header::COMMON_NAME), header::common().as_bytes())?;
    outputs.commit()?;
    let mut lines = String::new();
    for file in model.files() {
        lines += &format!("cargo:rerun-if-changed={}\n", file.display());
    }
    lines += &format!("cargo:rustc-link-search=native={}\n", folder.display());
    lines += &format!("cargo:rustc-link-lib=static={}\n", model.name());
    std::io::Write::write_all(&mut std::io::stdout().lock(), lines.as_bytes())
        .map_err(|e| Error::io("write", "standard output", e))?;
    Ok(folder)
}
