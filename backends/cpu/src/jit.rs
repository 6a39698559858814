//! Running compiled programs in this process.
//!
//! The only unsafe code of the crate is here: mapping generated code and calling it. What makes that sound is checked before:
//! the code is for this architecture and needs no instruction set that this processor lacks, the blocks have the sizes
//! and alignments that the program was planned with, and calls among functions stay inside the mapping.

#![allow(unsafe_code, reason = "generated code can only be called through a function pointer")]

use std::time::{Duration, Instant};

use aic_ir::machine::Arch;
use aic_ir::plan::ALIGN_BYTES;
use memmap2::{Mmap, MmapMut};

use crate::code::{Compiled, StepCode};
use crate::status::Status;

/// The signature of entries.
type Entry = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8, *const u8) -> i32;

/// Why code cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// The code is for another architecture than this process.
    #[error("the code is for another processor architecture")]
    Architecture,
    /// The code uses instructions that this processor does not have.
    #[error("this processor lacks {0}")]
    Feature(String),
    /// The weights are not as large as the plan says.
    #[error("the weights have {actual} bytes, the program needs {expected}")]
    Weights {
        /// Bytes that the plan places.
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// The system refused memory for code.
    #[error("no memory for code: {0}")]
    Memory(#[from] std::io::Error),
    /// A call that does not reach, or a function that does not exist.
    #[error("internal error: {0}")]
    Link(&'static str),
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Too few or too many inputs.
    #[error("the program takes {expected} inputs, {actual} are given")]
    InputCount {
        /// Inputs of the program.
        expected: usize,
        /// Inputs given.
        actual: usize,
    },
    /// An input of another size.
    #[error("input {index} has {actual} bytes, the program takes {expected}")]
    InputSize {
        /// Position of the input.
        index: usize,
        /// Bytes that the program reads.
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// The program ended with a status other than [`Status::Ok`].
    #[error("{}", .0.doc())]
    Status(Status),
    /// The program ended with a number that is no status: a defect of the compiler.
    #[error("the program returned {0}, which is no status")]
    Unknown(i32),
    /// Steps were not compiled to be run alone.
    #[error("the program was compiled without entries for single steps")]
    NoStepEntries,
}

/// Memory with the alignment of a block.
#[derive(Clone, Debug, Default)]
struct Block {
    lines: Vec<Line>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

const _: () = assert!(align_of::<Line>() as u64 == ALIGN_BYTES);

impl Block {
    fn zeroed(bytes: u64) -> Self {
        let bytes = bytes as usize;
        Self { lines: vec![Line([0; 64]); bytes.div_ceil(64)], bytes }
    }

    fn copy_of(data: &[u8]) -> Self {
        let mut block = Self::zeroed(data.len() as u64);
        block.as_mut_slice().copy_from_slice(data);
        block
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `bytes` initialized bytes; u8 has no alignment.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }
}

/// A program that is ready to run, with its weights, arena, inputs and outputs.
#[derive(Debug)]
pub struct Jit {
    code: Mmap,
    entry: usize,
    steps: Vec<StepCode>,
    step_offsets: Vec<Option<usize>>,
    weights: Block,
    arena: Block,
    inputs: Vec<Block>,
    outputs: Vec<Block>,
}

impl Jit {
    /// Maps the code and copies the weights.
    ///
    /// # Errors
    /// When this process cannot run the code, or the weights are not those of the plan.
    pub fn new(compiled: &Compiled, weights: &[u8]) -> Result<Self, JitError> {
        let here = if cfg!(target_arch = "x86_64") {
            Some(Arch::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Arch::Aarch64)
        } else {
            None
        };
        if here != Some(compiled.arch) {
            return Err(JitError::Architecture);
        }
        let missing: Vec<&str> = compiled.features.iter().map(String::as_str).filter(|f| !host_has(f)).collect();
        if !missing.is_empty() {
            return Err(JitError::Feature(missing.join(", ")));
        }
        if weights.len() as u64 != compiled.weights_bytes {
            return Err(JitError::Weights { expected: compiled.weights_bytes, actual: weights.len() as u64 });
        }
        let (code, offsets) = link(compiled)?;
        let at = |i: usize| offsets.get(i).copied().ok_or(JitError::Link("a function that does not exist"));
        let step_offsets = compiled.steps.iter().map(|s| s.entry.map(at).transpose()).collect::<Result<_, _>>()?;
        let blocks = |sizes: &[u64]| sizes.iter().map(|&n| Block::zeroed(n)).collect();
        Ok(Self {
            entry: at(compiled.entry)?,
            code,
            steps: compiled.steps.clone(),
            step_offsets,
            weights: Block::copy_of(weights),
            arena: Block::zeroed(compiled.arena_bytes),
            inputs: blocks(&compiled.input_bytes),
            outputs: blocks(&compiled.output_bytes),
        })
    }

    /// The steps of the program, in order.
    pub fn steps(&self) -> &[StepCode] {
        &self.steps
    }

    /// Copies the inputs in, in the model's order: dense little-endian elements.
    ///
    /// # Errors
    /// When their number or a size is wrong.
    pub fn set_inputs(&mut self, inputs: &[&[u8]]) -> Result<(), RunError> {
        if inputs.len() != self.inputs.len() {
            return Err(RunError::InputCount { expected: self.inputs.len(), actual: inputs.len() });
        }
        for (index, (block, input)) in self.inputs.iter_mut().zip(inputs).enumerate() {
            if block.bytes != input.len() {
                let (expected, actual) = (block.bytes as u64, input.len() as u64);
                return Err(RunError::InputSize { index, expected, actual });
            }
            block.as_mut_slice().copy_from_slice(input);
        }
        Ok(())
    }

    /// Runs on the inputs set last.
    ///
    /// # Errors
    /// When the program ends with another status than [`Status::Ok`].
    pub fn call(&mut self) -> Result<(), RunError> {
        self.call_at(self.entry)
    }

    /// Runs step by step on the inputs set last and gives the time of each. A step inside a repeat runs for all rounds at
    /// once, so what the outputs hold afterwards is right only for programs without repeats.
    ///
    /// # Errors
    /// As [`Jit::call`], and when the program was compiled without entries for single steps.
    pub fn call_steps(&mut self) -> Result<Vec<Duration>, RunError> {
        let mut times = Vec::with_capacity(self.step_offsets.len());
        for i in 0..self.step_offsets.len() {
            let offset = self.step_offsets[i].ok_or(RunError::NoStepEntries)?;
            let start = Instant::now();
            self.call_at(offset)?;
            times.push(start.elapsed());
        }
        Ok(times)
    }

    /// The bytes of an output after a run, dense; `None` if there is no such output.
    pub fn output(&self, index: usize) -> Option<&[u8]> {
        self.outputs.get(index).map(Block::as_slice)
    }

    /// Runs on these inputs and stores the outputs, in the model's order.
    ///
    /// # Errors
    /// As [`Jit::set_inputs`] and [`Jit::call`].
    pub fn run(&mut self, inputs: &[&[u8]], outputs: &mut Vec<Vec<u8>>) -> Result<(), RunError> {
        self.set_inputs(inputs)?;
        self.call()?;
        outputs.clear();
        outputs.extend(self.outputs.iter().map(|b| b.as_slice().to_vec()));
        Ok(())
    }

    fn call_at(&mut self, offset: usize) -> Result<(), RunError> {
        let inputs: Vec<*const u8> = self.inputs.iter().map(|b| b.lines.as_ptr().cast()).collect();
        let outputs: Vec<*mut u8> = self.outputs.iter_mut().map(|b| b.lines.as_mut_ptr().cast()).collect();
        // SAFETY: `offset` is the start of a function of this signature in an executable mapping of code for this
        // processor, and the code reads and writes only inside these blocks: the plan gave their sizes, the plan's checker
        // and the verifier of tile programs proved every access.
        let status = unsafe {
            let entry: Entry = std::mem::transmute(self.code.as_ptr().add(offset));
            entry(
                inputs.as_ptr(),
                outputs.as_ptr(),
                self.arena.lines.as_mut_ptr().cast(),
                self.weights.lines.as_ptr().cast(),
            )
        };
        match Status::from_code(status) {
            Some(Status::Ok) => Ok(()),
            Some(other) => Err(RunError::Status(other)),
            None => Err(RunError::Unknown(status)),
        }
    }
}

/// Makes the functions executable; with the offset of each.
fn link(compiled: &Compiled) -> Result<(Mmap, Vec<usize>), JitError> {
    let image = compiled.image().map_err(JitError::Link)?;
    let mut memory = MmapMut::map_anon(image.bytes.len().max(1))?;
    memory[..image.bytes.len()].copy_from_slice(&image.bytes);
    Ok((memory.make_exec()?, image.offsets))
}

/// Whether this processor has a feature of machine files.
#[cfg(target_arch = "x86_64")]
fn host_has(feature: &str) -> bool {
    macro_rules! detect {
        ($($name:tt)*) => {
            match feature {
                $($name => std::arch::is_x86_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    detect!("sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "bmi1" "bmi2" "lzcnt" "avx512f"
        "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512bitalg" "avx512vbmi" "avx512vbmi2" "avx512vnni"
        "avx512ifma" "avx512vpopcntdq" "avxvnni" "f16c")
}

/// Whether this processor has a feature of machine files.
#[cfg(target_arch = "aarch64")]
fn host_has(feature: &str) -> bool {
    macro_rules! detect {
        ($($name:tt)*) => {
            match feature {
                $($name => std::arch::is_aarch64_feature_detected!($name),)*
                _ => false,
            }
        };
    }
    detect!("neon" "lse" "dotprod" "i8mm" "fp16" "bf16")
}

/// Whether this processor has a feature of machine files; no code runs here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn host_has(_: &str) -> bool {
    false
}
