//! The passes over graphs, and the one function that lists them in order: [`run`].
//!
//! A pass is a free function `(&mut Graph) -> number of changes` in a file of its own, whose header says what it takes,
//! what it leaves, and why it sits where it does. Passes keep what the graph computes within the float contract of
//! [`crate::graph`]; integer results never change.

mod attention;
mod canonicalize;
mod compact;
mod constant;
mod conv;
mod dead;
mod equal;
mod fold;
mod gelu;
mod layer_norm;
mod rewrite;

use std::time::{Duration, Instant};

use super::verify::VerifyErrors;
use super::{Graph, Op};

/// What the passes may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether exported shapes of LayerNorm, GELU, attention and batch normalization become operators of their own.
    pub fuse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { fuse: true }
    }
}

/// A pass that broke the graph: a defect of the compiler, found in debug builds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the graph is broken after pass '{pass}':\n{errors}")]
pub struct PassError {
    /// Name of the pass, or `input` for the graph as it was given.
    pub pass: &'static str,
    /// What the verifier found.
    pub errors: VerifyErrors,
}

/// One execution of a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRun {
    /// Name of the pass.
    pub pass: &'static str,
    /// How many rewritings it made.
    pub changes: usize,
    /// How long it took.
    pub time: Duration,
}

/// What the passes did, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every execution of a pass.
    pub runs: Vec<PassRun>,
}

/// Runs all passes on a verified graph. `observer` is called after each pass with its name, the graph, whether the pass
/// changed it, and its time; dumps are made there.
///
/// # Errors
/// In debug builds, when a pass breaks a rule of the verifier.
pub fn run(
    graph: &mut Graph,
    options: Options,
    observer: &mut dyn FnMut(&str, &Graph, bool, Duration),
) -> Result<Report, PassError> {
    let mut passes = Passes { graph, observer, report: Report::default() };
    passes.verify("input")?;

    passes.pass("fold", fold::run)?;
    passes.pass("canonicalize", canonicalize::run)?;
    passes.pass("equal", equal::run)?;
    // Canonical forms expose further constants: a gather of a range became a slice, a power became a product.
    passes.pass("fold", fold::run)?;
    // Fusions ask who else uses a value: from here on, every node is needed.
    passes.pass("dead", dead::run)?;

    if options.fuse {
        passes.pass("layer_norm", layer_norm::run)?;
        passes.pass("gelu", gelu::run)?;
        passes.pass("attention", attention::run)?;
        passes.pass("conv", conv::run)?;
        // Fusions leave transposes and reshapes of transposes and reshapes behind.
        passes.pass("canonicalize", canonicalize::run)?;
        passes.pass("equal", equal::run)?;
    }
    passes.pass("compact", compact::run)?;
    // From here on, all values, nodes and constants are in use, and the graph does not change.
    Ok(passes.report)
}

/// Runs a pass on the bodies of scans, the innermost first: what it finds there counts for the graph around them.
fn in_bodies(graph: &mut Graph, pass: Pass) -> usize {
    let mut changes = 0;
    for &node in &graph.order {
        if let Op::Scan(scan) = &mut graph.nodes[node].op {
            changes += in_bodies(&mut scan.body, pass) + pass(&mut scan.body);
        }
    }
    changes
}

/// A pass: rewrites a graph and gives the number of changes.
pub type Pass = fn(&mut Graph) -> usize;

/// Every pass by its name, for running one alone: in tests, or to find out which one is at fault.
pub const PASSES: [(&str, Pass); 9] = [
    ("fold", fold::run),
    ("canonicalize", canonicalize::run),
    ("equal", equal::run),
    ("dead", dead::run),
    ("layer_norm", layer_norm::run),
    ("gelu", gelu::run),
    ("attention", attention::run),
    ("conv", conv::run),
    ("compact", compact::run),
];

/// The graph under way.
struct Passes<'a> {
    graph: &'a mut Graph,
    observer: &'a mut dyn FnMut(&str, &Graph, bool, Duration),
    report: Report,
}

impl Passes<'_> {
    fn pass(&mut self, pass: &'static str, run: Pass) -> Result<(), PassError> {
        let start = Instant::now();
        let changes = in_bodies(self.graph, run) + run(self.graph);
        let time = start.elapsed();
        self.verify(pass)?;
        (self.observer)(pass, self.graph, changes > 0, time);
        self.report.runs.push(PassRun { pass, changes, time });
        Ok(())
    }

    fn verify(&self, pass: &'static str) -> Result<(), PassError> {
        if cfg!(debug_assertions) {
            self.graph.verify().map_err(|errors| PassError { pass, errors })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
