//! Mutated models, the whole way from bytes to a plan: nothing panics, and memory stays in proportion.
//!
//! Valid models are changed in their bytes and in their structure, from a seed. `AIC_FUZZ_ITERATIONS` sets how many are
//! tried and `AIC_FUZZ_SEED` where to begin; the seed of a model that fails is printed, and trying only that one needs
//! `AIC_FUZZ_SEED=… AIC_FUZZ_ITERATIONS=1`. `AIC_FUZZ_CORPUS` names a folder with ONNX files to begin from instead.

mod common;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/programs.rs"]
mod programs;
#[path = "fuzz/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aic_frontend::{MemoryFiles, ShapeBindings, hf, onnx};
use aic_ir::testing::Rng;
use bytes::Bytes;
use common::alloc::{Counting, peak_of};
use common::compile;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory that any model may take, and how much more for each of its bytes.
const BASE_BYTES: usize = 64 << 20;
const BYTES_PER_BYTE: usize = 16;

/// Longest message for one model; a list of nodes has a line for each.
const MAX_LINE_BYTES: usize = 4096;

/// A model under test: its files, of which `MODEL` is the ONNX file if there is one, and flags of shapes.
#[derive(Clone)]
pub struct Case {
    /// Contents by name.
    pub files: BTreeMap<String, Bytes>,
    /// As for `--shape`.
    pub flags: Vec<String>,
}

/// Name of the ONNX file of a case.
pub const MODEL: &str = "model.onnx";

impl Case {
    fn bytes(&self) -> usize {
        self.files.values().map(Bytes::len).sum()
    }

    /// Reads and compiles; the message of a refusal.
    fn run(&self) -> Result<(), String> {
        let mut files = MemoryFiles::new();
        for (name, bytes) in &self.files {
            files.insert(name.as_str(), bytes.clone());
        }
        let mut bindings = ShapeBindings::new();
        for flag in &self.flags {
            bindings.parse(flag).map_err(|e| e.to_string())?;
        }
        let graph = match self.files.get(MODEL) {
            Some(model) => onnx::read(model.clone(), &files, &bindings),
            None => hf::read(&files, &bindings),
        };
        let graph = graph.map_err(|e| e.to_string())?;
        compile::evaluated(&graph);
        compile::compiled(graph)
    }

    fn hash(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        for (name, bytes) in &self.files {
            hasher.write(name.as_bytes());
            hasher.write(bytes);
        }
        hasher.finish()
    }

    /// Writes the files where a person can look at them.
    fn save(&self) -> String {
        let folder = format!("{}/fuzz-{:016x}", env!("CARGO_TARGET_TMPDIR"), self.hash());
        for (name, bytes) in &self.files {
            let path = std::path::Path::new(&folder).join(name);
            let made = path.parent().map(std::fs::create_dir_all);
            made.transpose().and_then(|_| std::fs::write(&path, bytes)).expect("the folder of test output is writable");
        }
        folder
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
        Err(_) => default,
    }
}

/// Ends the process with the seed when one model takes so long that it must be a hang; a message is better than
/// nothing happening.
fn watch(current: Arc<AtomicU64>) {
    const HANG: Duration = Duration::from_secs(120);
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(HANG);
            let now = current.load(Ordering::Relaxed);
            if now == last {
                #[allow(clippy::print_stderr, reason = "the process ends here")]
                {
                    eprintln!("seed {now} takes longer than {HANG:?}");
                }
                std::process::abort();
            }
            last = now;
        }
    });
}

#[test]
fn mutated_models_compile_or_are_refused() {
    let (first, iterations) = (number("AIC_FUZZ_SEED", 0), number("AIC_FUZZ_ITERATIONS", 2000));
    let corpus = std::env::var_os("AIC_FUZZ_CORPUS");
    let seeds = match &corpus {
        Some(folder) => seeds::of_folder(folder.as_ref()),
        None => seeds::all(),
    };
    for seed in seeds.iter().filter(|_| corpus.is_none()) {
        seed.run().unwrap_or_else(|e| panic!("a seed is refused: {e}"));
    }
    let current = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&current));
    let mut compiled = 0;
    let mut failures = Vec::new();
    for seed in first..first.saturating_add(iterations) {
        current.store(seed, Ordering::Relaxed);
        let case = mutate::mutated(&seeds, &mut Rng::new(seed));
        let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| case.run())));
        let limit = BASE_BYTES + BYTES_PER_BYTE * case.bytes();
        let problem = match result {
            Err(_) => Some("panics".to_owned()),
            Ok(_) if peak > limit => Some(format!("takes {peak} bytes of memory, {limit} are allowed")),
            Ok(Err(message)) => bad_message(&message),
            Ok(Ok(())) => {
                compiled += 1;
                None
            }
        };
        if let Some(problem) = problem {
            failures.push(format!("seed {seed} {problem}: {}", case.save()));
            if failures.len() >= 20 {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // Mutations that spoil every model would test the first checks only.
    assert!(
        iterations < 200 || corpus.is_some() || compiled > iterations / 20,
        "only {compiled} of {iterations} models compile"
    );
}

/// What is wrong with a refusal's text: it must be readable on a terminal, line by line.
fn bad_message(message: &str) -> Option<String> {
    let strange = message.chars().any(|c| c.is_control() && c != '\n');
    let long = message.lines().any(|line| line.len() > MAX_LINE_BYTES);
    (message.is_empty() || strange || long).then(|| format!("is refused with a bad message: {message:.200?}"))
}
