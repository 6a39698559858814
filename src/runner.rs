//! Compiled code in this process: run on arrays, timed as a whole and step by step.

use std::time::Duration;

use aic_cpu::artifact::Weights;
use aic_cpu::jit::{Jit, RunError};
use aic_ir::types::{Tensor, TensorType};

use crate::artifacts::artifact_error;
use crate::{Artifacts, Error};

/// Code that is mapped and ready to run, with its weights and arena. Made by [`Artifacts::runner`].
#[derive(Debug)]
pub struct Runner {
    jit: Jit,
    inputs: Vec<TensorType>,
    outputs: Vec<TensorType>,
    /// Positions of the steps that run kernels, in order.
    kernel_steps: Vec<usize>,
}

impl Runner {
    pub(crate) fn new(artifacts: &Artifacts) -> Result<Self, Error> {
        let weights = Weights::new(&artifacts.program, &artifacts.plan).to_vec().map_err(artifact_error)?;
        let jit = Jit::new(&artifacts.compiled, &weights)
            .map_err(|e| Error::Refused(format!("this host cannot run the code: {e}")))?;
        let graph = &artifacts.graph;
        let steps = artifacts.compiled.steps.iter().enumerate();
        Ok(Self {
            jit,
            inputs: graph.inputs.iter().map(|&v| graph.ty(v).clone()).collect(),
            outputs: graph.outputs.iter().map(|o| graph.ty(o.value).clone()).collect(),
            kernel_steps: steps.filter(|(_, s)| s.function.is_some()).map(|(i, _)| i).collect(),
        })
    }

    /// Runs on inputs in the model's order; gives the outputs in theirs.
    ///
    /// # Errors
    /// When inputs have other types than the model's, or an index among them is out of range.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.load(inputs)?;
        self.execute()?;
        let output = |(i, ty): (usize, &TensorType)| {
            let bytes = self.jit.output(i).unwrap_or_default().to_vec();
            Tensor::new(ty.clone(), bytes.into()).map_err(|e| Error::internal("run", e))
        };
        self.outputs.iter().enumerate().map(output).collect()
    }

    /// Copies inputs in, for [`Runner::execute`].
    ///
    /// # Errors
    /// When their number or a type is wrong.
    pub fn load(&mut self, inputs: &[Tensor]) -> Result<(), Error> {
        for (i, (given, ty)) in inputs.iter().zip(&self.inputs).enumerate() {
            if given.ty() != ty {
                return Err(Error::Refused(format!("input {i} is {ty}, but {} is given", given.ty())));
            }
        }
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes().as_ref()).collect();
        self.jit.set_inputs(&bytes).map_err(run_error)
    }

    /// Runs on the inputs loaded last.
    ///
    /// # Errors
    /// When an index among them is out of range.
    pub fn execute(&mut self) -> Result<(), Error> {
        self.jit.call().map_err(run_error)
    }

    /// Runs kernel by kernel on the inputs loaded last; gives the time of each, in the order of
    /// [`Artifacts::costs`]. For configurations with [`step_entries`](crate::Config::step_entries).
    ///
    /// # Errors
    /// As [`Runner::execute`].
    pub fn execute_kernels(&mut self) -> Result<Vec<Duration>, Error> {
        let times = self.jit.call_steps().map_err(run_error)?;
        Ok(self.kernel_steps.iter().filter_map(|&i| times.get(i).copied()).collect())
    }
}

fn run_error(error: RunError) -> Error {
    match error {
        RunError::Unknown(_) | RunError::NoStepEntries => Error::internal("run", error),
        RunError::InputCount { .. } | RunError::InputSize { .. } | RunError::Status(_) => {
            Error::Refused(error.to_string())
        }
    }
}
