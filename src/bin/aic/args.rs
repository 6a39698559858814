//! The command line as typed. Each command's module resolves its own part into a job; here is only the definition, so that
//! help, usage errors and parsing come from one place.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Compiles distilled student models into native code that needs no runtime.
///
/// Data goes to stdout, messages to stderr. Exit status: 0 for success, 1 for a refused input, a mismatch or a limit that is
/// exceeded, 2 for wrong use.
#[derive(Debug, Parser)]
#[command(name = "aic", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model to an object, a library, a header, or a dump of one of its forms
    ///
    /// Without a model and without flags, does what `aic demo` does.
    Compile(CompileArgs),
    /// Compile a model in memory and run it once
    Run(RunArgs),
    /// Compare a compiled model with expected outputs or with the reference interpreter
    Check(CheckArgs),
    /// Measure how long one run takes
    Bench(BenchArgs),
    /// Show what a model or an artifact holds
    Inspect(InspectArgs),
    /// List the supported operators of every reader
    Ops(TableArgs),
    /// List targets: triples, processors and machines
    Targets(TableArgs),
    /// Compile, run and check the model that comes with the compiler
    Demo(TableArgs),
}

/// Which model, and with which shapes.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// An ONNX file or a Hugging Face folder
    pub model: PathBuf,
    /// Fix dynamic dimensions: of an input (`input_ids=1x128`) or of a symbol (`batch=1`); may be repeated
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
}

/// For which machine, and how.
#[derive(Args, Debug, Default)]
pub struct TargetArgs {
    /// `native`, or a triple as `x86_64-unknown-linux-gnu`
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    /// Processor to compile for; `aic targets` lists them
    #[arg(long, value_name = "NAME")]
    pub target_cpu: Option<String>,
    /// Processor features to add or take away: `+avxvnni,-fma`
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub target_feature: Vec<String>,
    /// Machine description in TOML, instead of a built-in one
    #[arg(long, value_name = "FILE", conflicts_with = "target_cpu")]
    pub machine: Option<PathBuf>,
    /// How much to optimize: 0 to 3 for speed, s for size
    #[arg(short = 'O', value_name = "LEVEL", default_value = "2")]
    pub opt_level: OptLevel,
    /// Schedule to apply instead of a computed one, as `--emit schedule` writes it
    #[arg(long, value_name = "FILE")]
    pub schedule: Option<PathBuf>,
}

/// `-O`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OptLevel {
    /// No graph passes beyond what is needed, no vectors.
    #[value(name = "0")]
    O0,
    /// As 2.
    #[value(name = "1")]
    O1,
    /// For speed.
    #[default]
    #[value(name = "2")]
    O2,
    /// For speed, and larger code.
    #[value(name = "3")]
    O3,
    /// For size.
    #[value(name = "s")]
    Size,
}

/// What to feed.
#[derive(Args, Debug)]
pub struct InputArgs {
    /// An input array: `NAME=FILE.npy`, `NAME=FILE.npz` (the archive's array of that name) or `FILE.npz` (all of them)
    #[arg(long, value_name = "NAME=FILE")]
    pub input: Vec<String>,
    /// Fill inputs that are not given with random values from this seed
    #[arg(long, value_name = "SEED")]
    pub random: Option<u64>,
}

/// Arguments of `compile`.
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// An ONNX file or a Hugging Face folder
    pub model: Option<PathBuf>,
    /// Fix dynamic dimensions: of an input (`input_ids=1x128`) or of a symbol (`batch=1`); may be repeated
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
    /// Output file; its extension chooses what to write (.o .obj .a .lib .so .h .d) unless --emit does
    #[arg(short, long, value_name = "FILE", conflicts_with = "out_dir")]
    pub output: Option<PathBuf>,
    /// Folder for outputs without a path of their own
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
    /// What to write: KIND[=PATH], separated by commas
    ///
    /// Kinds: obj, staticlib, cdylib, header, weights, manifest, dep-info, report, graph, tile, schedule, plan, clif, asm.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub emit: Vec<String>,
    /// Name of the model in symbols and file names; by default the file's stem
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Feed output OUT back as input IN of the next run, in a block that the caller keeps; may be repeated
    #[arg(long, value_name = "IN=OUT")]
    pub state: Vec<String>,
    /// Where the weights lie: in the code's object, or in a file that the caller loads
    #[arg(long, value_name = "WHERE", default_value = "embedded")]
    pub weights: WeightsPlace,
    /// C compiler that links shared libraries for the target
    #[arg(long, value_name = "PROGRAM")]
    pub linker: Option<String>,
    /// Fail when the result is larger: arena=64KiB,weights=1MiB,stack=2KiB
    #[arg(long, value_name = "NAME=SIZE", value_delimiter = ',')]
    pub limit: Vec<String>,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `--weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WeightsPlace {
    /// In the object's read-only data.
    Embedded,
    /// In a checked blob that the caller passes to `run_ex`.
    External,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Where to write the outputs: a .npz file, or a folder for one .npy file each
    #[arg(long, short, value_name = "FILE.npz|DIR")]
    pub output: Option<PathBuf>,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The inputs.
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Expected outputs, by name
    #[arg(long, value_name = "FILE.npz", required_unless_present = "against", conflicts_with = "against")]
    pub expected: Option<PathBuf>,
    /// Compare with the interpreter of a form of the model, inside the error bounds that it computes
    #[arg(long, value_name = "FORM")]
    pub against: Option<Against>,
    /// Absolute tolerance
    #[arg(long, value_name = "X")]
    pub atol: Option<f64>,
    /// Relative tolerance
    #[arg(long, value_name = "X")]
    pub rtol: Option<f64>,
    /// Smallest cosine that passes
    #[arg(long, value_name = "X")]
    pub min_cosine: Option<f64>,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `--against`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// The graph, in binary64 with running error bounds.
    Graph,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// The inputs; random ones if nothing is said
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Number of threads; code runs on one so far, whatever is asked for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// How long to measure
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,
    /// Also measure every kernel alone, beside the cost model's prediction
    #[arg(long)]
    pub per_kernel: bool,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// An ONNX file, a Hugging Face folder, or an object or library that aic wrote
    pub model: PathBuf,
    /// Fix dynamic dimensions: of an input (`input_ids=1x128`) or of a symbol (`batch=1`); may be repeated
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of commands that only print a table.
#[derive(Args, Debug)]
pub struct TableArgs {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Command {
    /// The command's name, as in the `schema` field of its JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Compile(_) => "compile",
            Command::Run(_) => "run",
            Command::Check(_) => "check",
            Command::Bench(_) => "bench",
            Command::Inspect(_) => "inspect",
            Command::Ops(_) => "ops",
            Command::Targets(_) => "targets",
            Command::Demo(_) => "demo",
        }
    }

    /// Whether JSON was asked for.
    pub fn json(&self) -> bool {
        match self {
            Command::Compile(a) => a.json,
            Command::Run(a) => a.json,
            Command::Check(a) => a.json,
            Command::Bench(a) => a.json,
            Command::Inspect(a) => a.json,
            Command::Ops(a) | Command::Targets(a) | Command::Demo(a) => a.json,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_kind_of_output() {
        let mut command = Cli::command();
        let compile = command.find_subcommand_mut("compile").expect("exists");
        let help = compile.render_long_help().to_string();
        for kind in aic::EmitKind::ALL {
            assert!(help.contains(kind.name()), "{}", kind.name());
        }
    }
}
