//! How a model is to be compiled: a builder, from which [`Config::session`] makes a [`Session`] once and for all.

use aic_cpu::CpuTarget;
use aic_frontend::ShapeBindings;

use crate::{Error, Session, TargetSpec};

/// How much to optimize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptLevel {
    /// As little as possible: the naive program, for tests and for finding errors.
    None,
    /// Vectors and register tiles, but one kernel for each operator.
    Tiled,
    /// For speed.
    #[default]
    Speed,
    /// For size.
    Size,
}

/// Where the weights of an artifact lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// In the object's read-only data.
    #[default]
    Embedded,
    /// In a file of their own, which the caller loads.
    External,
}

/// Sizes that must not be exceeded, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the arena.
    pub arena_bytes: Option<u64>,
    /// Of the weight block.
    pub weights_bytes: Option<u64>,
    /// Of the stack.
    pub stack_bytes: Option<u64>,
}

/// How a model is to be compiled. See the setters; the default compiles for the host's platform and a common processor.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(crate) target: TargetSpec,
    pub(crate) shapes: ShapeBindings,
    pub(crate) name: Option<String>,
    pub(crate) states: Vec<(String, String)>,
    pub(crate) weights: Weights,
    pub(crate) opt_level: OptLevel,
    pub(crate) schedule: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) listings: bool,
    pub(crate) step_entries: bool,
    pub(crate) linker: Option<String>,
}

impl Config {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// For which platform and machine.
    #[must_use]
    pub fn target(mut self, target: TargetSpec) -> Self {
        self.target = target;
        self
    }

    /// Fixes a dynamic dimension: `batch=1` for a symbol, `input_ids=1x128` for an input.
    ///
    /// # Errors
    /// When the text has another form, or contradicts an earlier one.
    pub fn shape(mut self, binding: &str) -> Result<Self, Error> {
        self.shapes.parse(binding).map_err(|e| Error::Refused(e.to_string()))?;
        Ok(self)
    }

    /// Fixes an input to a shape.
    ///
    /// # Errors
    /// When another shape was given for it before.
    pub fn input_shape(mut self, input: &str, shape: &[u64]) -> Result<Self, Error> {
        self.shapes.bind(input, shape).map_err(|e| Error::Refused(e.to_string()))?;
        Ok(self)
    }

    /// The shapes fixed so far.
    pub fn shapes(&self) -> &ShapeBindings {
        &self.shapes
    }

    /// Name of the model in symbols and file names, a C identifier; by default the file's stem.
    ///
    /// # Errors
    /// When it is not an identifier.
    pub fn name(mut self, name: &str) -> Result<Self, Error> {
        if crate::model::identifier(name) != name {
            return Err(Error::Refused(format!("name `{name}` is not a C identifier")));
        }
        self.name = Some(name.to_owned());
        Ok(self)
    }

    /// Feeds an output back as an input of the next run, kept in a block of the caller's.
    #[must_use]
    pub fn state(mut self, input: &str, output: &str) -> Self {
        self.states.push((input.to_owned(), output.to_owned()));
        self
    }

    /// Where the weights lie.
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// The C compiler that links shared libraries: one for the target; by default the one of the usual name.
    #[must_use]
    pub fn linker(mut self, program: &str) -> Self {
        self.linker = Some(program.to_owned());
        self
    }

    /// How much to optimize.
    #[must_use]
    pub fn opt_level(mut self, level: OptLevel) -> Self {
        self.opt_level = level;
        self
    }

    /// Text of a schedule to apply instead of a computed one.
    #[must_use]
    pub fn schedule(mut self, text: &str) -> Self {
        self.schedule = Some(text.to_owned());
        self
    }

    /// Sizes that must not be exceeded.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps Cranelift IR and disassembly of every function; takes memory, so only on demand.
    #[must_use]
    pub fn listings(mut self) -> Self {
        self.listings = true;
        self
    }

    /// Adds an entry for every step, so that steps can be timed one by one.
    #[must_use]
    pub fn step_entries(mut self) -> Self {
        self.step_entries = true;
        self
    }

    /// Resolves the target.
    ///
    /// # Errors
    /// [`Error::Refused`] for targets that do not exist or are not supported.
    pub fn session(self) -> Result<Session, Error> {
        let (triple, machine) = self.target.resolve()?;
        let target = CpuTarget::new(machine, triple).map_err(|e| Error::Refused(e.to_string()))?;
        Ok(Session::new(self, target))
    }
}
