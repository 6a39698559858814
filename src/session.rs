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
        self.compile_observed(model, &mut Dump::from_env()?)
    }

    /// Compiles a model while someone watches.
    ///
    /// # Errors
    /// As [`Session::compile`].
    pub fn compile_observed(&self, model: &Model, observer: &mut dyn Observer) -> Result<Artifacts, Error> {
        pipeline::run(model, &self.config, &self.target, observer)
    }

    /// Compiles a model and writes `libNAME.a`, `NAME.h` and `aic.h` into a folder, all or none. Gives the lines that tell
    /// Cargo, on a build script's standard output, what to link and to watch.
    ///
    /// # Errors
    /// As [`Session::compile`], and when the folder cannot be written to.
    pub fn compile_into(&self, model: &Model, folder: &Path) -> Result<String, Error> {
        let artifacts = self.compile(model)?;
        let name = &artifacts.graph.name;
        let mut outputs = Outputs::new();
        for kind in [EmitKind::StaticLib, EmitKind::Header] {
            artifacts.write(kind, outputs.create(&folder.join(kind.file_name(name)))?)?;
        }
        outputs.add(&folder.join(header::COMMON_NAME), header::common().as_bytes())?;
        outputs.commit()?;
        let mut lines = String::new();
        for file in model.files() {
            lines += &format!("cargo:rerun-if-changed={}\n", file.display());
        }
        lines += &format!("cargo:rustc-link-search=native={}\n", folder.display());
        lines += &format!("cargo:rustc-link-lib=static={name}\n");
        Ok(lines)
    }
}

/// Compiles a model in a build script: writes `libNAME.a`, `NAME.h` and `aic.h` into `OUT_DIR` for Cargo's target, and prints
/// what Cargo is to link and to watch. Gives the folder. Dynamic dimensions and everything else that needs saying are said
/// with a [`Config`] and [`Session::compile_into`].
///
/// # Errors
/// When the model is refused, or the script does not run under Cargo.
pub fn compile(model: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let variable = |name: &str| {
        let text = format!("{name} is not set: aic::compile is for build scripts; elsewhere use aic::Config");
        std::env::var(name).map_err(|_| Error::Refused(text))
    };
    let (folder, triple) = (PathBuf::from(variable("OUT_DIR")?), variable("TARGET")?);
    let model = Model::open(model)?;
    let session = Config::new().target(crate::TargetSpec::new().triple(&triple)).session()?;
    let lines = session.compile_into(&model, &folder)?;
    std::io::Write::write_all(&mut std::io::stdout().lock(), lines.as_bytes())
        .map_err(|e| Error::io("write", "standard output", e))?;
    Ok(folder)
}
