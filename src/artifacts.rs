//! A compiled model, and writing it in every form there is.

use std::io::{self, Write};
use std::process::Command;

use aic_cpu::artifact::{Artifact, ArtifactError, Format, TensorSpec, cdylib};
use aic_cpu::artifact::{Weights as Block, interface::Spec};
use aic_cpu::{Compiled, CpuTarget};
use aic_ir::graph::{Graph, passes};
use aic_ir::plan::{self, Plan};
use aic_ir::schedule::{KernelCost, Schedule};
use aic_ir::tile::Program;

use target_lexicon::{Architecture, OperatingSystem};

use crate::config::{Limits, Weights};
use crate::{Config, EmitKind, Error, Runner, report};

/// Everything that compiling a model gives. Made by [`Session::compile`](crate::Session::compile).
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// The graph after its passes.
    pub graph: Graph,
    /// The graph as it was read: what the model means.
    pub declared: Graph,
    /// What the passes did.
    pub passes: passes::Report,
    /// How the program was scheduled.
    pub schedule: Schedule,
    /// What every kernel is predicted to cost, in the order of execution.
    pub costs: Vec<KernelCost>,
    /// The scheduled program.
    pub program: Program,
    /// Where its buffers lie.
    pub plan: Plan,
    /// Its code.
    pub compiled: Compiled,
    /// The code with its C interface.
    pub artifact: Artifact,
    /// What it was compiled for.
    pub target: CpuTarget,
    /// The C compiler that links, if one was named.
    pub(crate) linker: Option<String>,
}

impl Artifacts {
    /// Names of the outputs in the user's model, in order.
    pub fn output_names(&self) -> Vec<String> {
        self.graph.outputs.iter().map(|o| o.name.clone()).collect()
    }

    /// Maps the code for execution in this process.
    ///
    /// # Errors
    /// When the code is not for this processor.
    pub fn runner(&self) -> Result<Runner, Error> {
        Runner::new(self)
    }

    /// The contents of one kind of file.
    ///
    /// # Errors
    /// As [`Artifacts::write`].
    pub fn emit(&self, kind: EmitKind) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.write(kind, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes one kind of file. Weights are streamed, so the file is never held in memory.
    ///
    /// # Errors
    /// When `out` fails; [`Error::Refused`] for `weights` when they are embedded, for `cdylib` when the system's `cc` fails, and
    /// for `manifest` and `dep-info`, which are about other files ([`report`]).
    pub fn write(&self, kind: EmitKind, out: &mut dyn Write) -> Result<(), Error> {
        let weights = self.weights();
        let text = match kind {
            EmitKind::Obj => return self.artifact.write_object(weights, out).map_err(artifact_error),
            EmitKind::StaticLib => return self.artifact.write_static_library(weights, out).map_err(artifact_error),
            EmitKind::CDyLib => return self.link(out),
            EmitKind::Weights if self.artifact.weights_header.is_none() => {
                return Err(Error::Refused("the weights are embedded; ask for --weights external".to_owned()));
            }
            EmitKind::Weights => return self.artifact.write_weights(weights, out).map_err(artifact_error),
            EmitKind::Header => self.artifact.header(),
            EmitKind::Report => report::report(self),
            EmitKind::Graph => self.graph.to_string(),
            EmitKind::Tile => self.program.to_string(),
            EmitKind::Schedule => self.schedule.to_string(),
            EmitKind::Plan => plan::text::print(&self.program, &self.plan),
            EmitKind::Clif => self.listing(|f| f.clif.as_deref()) + &self.artifact.clif,
            EmitKind::Asm => self.listing(|f| f.asm.as_deref()),
            EmitKind::Manifest | EmitKind::DepInfo => {
                return Err(Error::Refused(format!("`{}` is about other files", kind.name())));
            }
        };
        out.write_all(text.as_bytes()).map_err(|e| artifact_error(e.into()))
    }

    fn weights(&self) -> Block<'_> {
        Block::new(&self.program, &self.plan)
    }

    fn listing(&self, of: impl Fn(&aic_cpu::Function) -> Option<&str>) -> String {
        let mut text = String::new();
        for function in &self.compiled.functions {
            text += &format!("; {}\n{}\n", function.symbol, of(function).unwrap_or_default());
        }
        text
    }

    /// The C compiler that links shared libraries for the target.
    fn linker(&self) -> Result<&str, Error> {
        let triple = &self.target.triple;
        if self.target.format != Format::Elf {
            let text =
                format!("shared libraries are linked for ELF only: link the object with the tools of `{triple}`");
            return Err(Error::Refused(text));
        }
        if triple.operating_system == OperatingSystem::None_ {
            return Err(Error::Refused(format!("`{triple}` has no shared libraries: nothing there would load them")));
        }
        Ok(match (&self.linker, triple.architecture) {
            (Some(linker), _) => linker,
            (None, architecture) if architecture == target_lexicon::HOST.architecture => "cc",
            (None, Architecture::Aarch64(_)) => "aarch64-linux-gnu-gcc",
            (None, _) => "x86_64-linux-gnu-gcc",
        })
    }

    /// Links a shared library, in a folder of its own.
    fn link(&self, out: &mut dyn Write) -> Result<(), Error> {
        let linker = self.linker()?;
        let tool = |e: io::Error| Error::Io { action: "use", path: "temporary folder".into(), source: e };
        let folder = tempfile::tempdir().map_err(tool)?;
        let path = |name: &str| folder.path().join(name);
        let mut object = io::BufWriter::new(std::fs::File::create(path("model.o")).map_err(tool)?);
        self.artifact.write_object(self.weights(), &mut object).map_err(artifact_error)?;
        object.flush().map_err(tool)?;
        std::fs::write(path("exports"), cdylib::version_script(&self.artifact)).map_err(tool)?;
        let soname = EmitKind::CDyLib.file_name(&self.artifact.interface.name);
        // Paths are relative to the folder, so that nothing of it gets into the library.
        let arguments = cdylib::link_arguments("model.o", "exports", "library", &soname);
        let run = Command::new(linker).args(arguments).current_dir(folder.path()).output();
        let run = run.map_err(|e| {
            let triple = &self.target.triple;
            Error::Refused(format!(
                "linking for `{triple}` needs a C compiler for it: `{linker}`: {e}; --linker names another"
            ))
        })?;
        if !run.status.success() {
            let text = String::from_utf8_lossy(&run.stderr);
            return Err(Error::Refused(format!("linking with `{linker}` failed: {}", text.trim())));
        }
        let mut library = std::fs::File::open(path("library")).map_err(tool)?;
        io::copy(&mut library, out).map_err(|e| artifact_error(e.into()))?;
        Ok(())
    }

    /// Checks sizes against limits.
    pub(crate) fn enforce(&self, limits: &Limits) -> Result<(), Error> {
        let interface = &self.artifact.interface;
        let sizes = [
            ("arena", interface.arena_bytes, limits.arena_bytes),
            ("weights", interface.weights_bytes, limits.weights_bytes),
            ("stack", interface.stack_bytes, limits.stack_bytes),
        ];
        let over: Vec<String> = sizes
            .into_iter()
            .filter_map(|(name, actual, limit)| {
                let limit = limit.filter(|&l| actual > l)?;
                Some(format!("{name} takes {actual} bytes, {limit} are allowed"))
            })
            .collect();
        if over.is_empty() { Ok(()) } else { Err(Error::Limit(over.join("; "))) }
    }
}

/// The interface that a configuration asks for.
pub(crate) fn spec(graph: &Graph, config: &Config, model_sha256: String) -> Spec {
    let tensor =
        |name: &str, value| TensorSpec { name: name.to_owned(), ty: graph.ty(value).clone(), quantization: None };
    Spec {
        name: graph.name.clone(),
        inputs: graph.inputs.iter().map(|&v| tensor(&graph.values[v].name, v)).collect(),
        outputs: graph.outputs.iter().map(|o| tensor(&o.name, o.value)).collect(),
        states: config.states.clone(),
        external_weights: config.weights == Weights::External,
        model_sha256,
    }
}

pub(crate) fn artifact_error(error: ArtifactError) -> Error {
    match error {
        ArtifactError::Io(source) => Error::Io { action: "write", path: "output".into(), source },
        e => Error::stage("the artifact writer", e),
    }
}
