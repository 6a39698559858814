//! The reference interpreter of tile programs: what a program means, naive or scheduled.
//!
//! It does exactly what [the semantics](super) say, rounding by rounding, so compiled code is compared with it bit for bit
//! (NaNs excepted: any is as good as another). Loops run in order, layouts are followed, elementary functions are the
//! `libm` result in binary64, rounded; after [`super::math`] none are left and every instruction is exact. It also detects
//! what verified programs never do: reads of memory that was never written, coordinates outside a buffer, writes to
//! inputs and constants.
//!
//! Each statement is prepared once ([`stmt`]); accesses that are linear in a tile are walked by strides ([`access`]).

mod access;
mod memory;
mod scalar;
mod stmt;

use rustc_hash::FxHashMap;

use super::layout::LayoutError;
use super::{Buffer, Item, Kernel, KernelData, Program, Step, Stmt, Storage, materialize};
use crate::types::{DType, Tensor, TensorType};
use memory::Memory;
use stmt::Ready;

/// Most memory that a run may take, in bytes: programs come from files.
const MEMORY_LIMIT: u64 = 1 << 34;

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpErrorKind {
    /// Too few or too many inputs.
    #[error("the program takes {expected} inputs, {actual} are given")]
    InputCount {
        /// Inputs of the program.
        expected: usize,
        /// Inputs given.
        actual: usize,
    },
    /// An input of another type or shape.
    #[error("input {index} is {actual}, the program takes {expected}")]
    InputType {
        /// Position of the input.
        index: usize,
        /// What the program takes.
        expected: TensorType,
        /// What is given.
        actual: TensorType,
    },
    /// A [`Step::Check`] failed: an index that the caller gave is out of range.
    #[error("index {index} is out of range: {buffer} must hold -{bound}..{bound}")]
    Check {
        /// The indices.
        buffer: Buffer,
        /// The index.
        index: i64,
        /// Number of valid positions.
        bound: u64,
    },
    /// A gather or scatter at a position that no check proved.
    #[error("gather or scatter at index {index} of {buffer}, which has {bound} positions")]
    GatherIndex {
        /// What is gathered from, or scattered to.
        buffer: Buffer,
        /// The index.
        index: i64,
        /// Number of valid positions.
        bound: u64,
    },
    /// Coordinates outside a buffer, without a fill value.
    #[error("{buffer} has no element {index:?}")]
    OutOfBounds {
        /// The buffer.
        buffer: Buffer,
        /// The coordinates.
        index: Vec<i64>,
    },
    /// An offset outside a buffer's storage.
    #[error("{buffer} has no storage at element offset {offset}")]
    OutOfStorage {
        /// The buffer.
        buffer: Buffer,
        /// The offset.
        offset: u64,
    },
    /// A read of memory that nothing wrote.
    #[error("{buffer} is read at element offset {offset}, which was never written")]
    Unwritten {
        /// The buffer.
        buffer: Buffer,
        /// The offset in storage.
        offset: u64,
    },
    /// A write to an input or a constant.
    #[error("{buffer} is read-only")]
    ReadOnly {
        /// The buffer.
        buffer: Buffer,
    },
    /// A layout that does not fit its buffer.
    #[error("{buffer}: {error}")]
    Layout {
        /// The buffer.
        buffer: Buffer,
        /// What is wrong.
        error: LayoutError,
    },
    /// A program that the verifier refuses.
    #[error("the program is malformed: {0}")]
    Malformed(String),
    /// More memory than the interpreter takes.
    #[error("the buffers take {bytes} bytes, the limit is {MEMORY_LIMIT}")]
    TooLarge {
        /// Bytes of all buffers.
        bytes: u64,
    },
}

/// Why a run failed, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", place(.kernel, .stmt))]
pub struct InterpError {
    /// The kernel's name, if one was running.
    pub kernel: Option<String>,
    /// The statement's name, if one was running.
    pub stmt: Option<String>,
    /// Why.
    pub kind: InterpErrorKind,
}

fn place(kernel: &Option<String>, stmt: &Option<String>) -> String {
    match (kernel, stmt) {
        (Some(k), Some(s)) => format!("{k}.{s}: "),
        (Some(k), None) => format!("{k}: "),
        (None, _) => String::new(),
    }
}

impl From<InterpErrorKind> for InterpError {
    fn from(kind: InterpErrorKind) -> Self {
        Self { kernel: None, stmt: None, kind }
    }
}

/// Gives the tensor in a buffer, if it is wholly written.
pub type Reader<'a> = dyn Fn(Buffer) -> Option<Tensor> + 'a;

/// Runs a program on one tensor per input and gives one per output, both in the model's order.
///
/// # Errors
/// When inputs do not fit, when a check of indices fails, and on everything that the verifier should have refused.
pub fn run(program: &Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, InterpError> {
    run_observed(program, inputs, &mut |_, _| {})
}

/// Like [`run`], and calls `observe` when a kernel has finished, with access to the tensor in any buffer (`None` if it is
/// not wholly written).
///
/// # Errors
/// As [`run`].
pub fn run_observed(
    program: &Program,
    inputs: &[Tensor],
    observe: &mut dyn FnMut(Kernel, &Reader),
) -> Result<Vec<Tensor>, InterpError> {
    let mut memory = allocate(program, inputs)?;
    // Open repeats: where each began, its trips, and the round under way.
    let mut open: Vec<(usize, u64, u64)> = Vec::new();
    let mut at = 0;
    while let Some(step) = program.steps.get(at) {
        match step {
            Step::Check { buffer, bound } => check(program, &memory, *buffer, *bound)?,
            Step::Run(kernel) => {
                let data = program.kernels.get(*kernel).ok_or_else(|| malformed("an unknown kernel"))?;
                let rounds: Vec<u64> = open.iter().map(|r| r.2).collect();
                run_kernel(program, data, &rounds, &mut memory)
                    .map_err(|e| InterpError { kernel: Some(data.name.clone()), ..e })?;
                observe(*kernel, &|b| dense(program, &memory, b).ok());
            }
            Step::Repeat { trips } => open.push((at, *trips, 0)),
            Step::End => {
                let (begin, trips, round) = open.last_mut().ok_or_else(|| malformed("an end without a repeat"))?;
                *round += 1;
                if round < trips {
                    at = *begin;
                } else {
                    open.pop();
                }
            }
        }
        at += 1;
    }
    program.outputs.iter().map(|&b| Ok(dense(program, &memory, b)?)).collect()
}

fn malformed(reason: &str) -> InterpErrorKind {
    InterpErrorKind::Malformed(reason.to_owned())
}

/// Memory for every buffer that a kernel in force, a check, or the interface uses.
fn allocate(program: &Program, inputs: &[Tensor]) -> Result<Vec<Memory>, InterpErrorKind> {
    if inputs.len() != program.inputs.len() {
        return Err(InterpErrorKind::InputCount { expected: program.inputs.len(), actual: inputs.len() });
    }
    let mut used: Vec<Buffer> = program.inputs.iter().chain(&program.outputs).copied().collect();
    for step in &program.steps {
        match step {
            Step::Repeat { .. } | Step::End => {}
            Step::Check { buffer, .. } => used.push(*buffer),
            Step::Run(k) => {
                let kernel = program.kernels.get(*k).ok_or_else(|| malformed("an unknown kernel"))?;
                used.extend(kernel.stmts.values().flat_map(|s| s.accesses()).map(|a| a.buffer));
            }
        }
    }
    used.sort_unstable();
    used.dedup();
    let mut memory: Vec<Memory> = Vec::new();
    memory.resize_with(program.buffers.len(), Memory::default);
    let mut total = 0u64;
    for buffer in used {
        let data = program.buffers.get(buffer).ok_or_else(|| malformed("an unknown buffer"))?;
        let layout = |error| InterpErrorKind::Layout { buffer, error };
        let ty = TensorType::new(data.dtype, data.shape.clone()).map_err(|e| malformed(&e.to_string()))?;
        data.layout.check_places(&data.shape).map_err(layout)?;
        total = total.saturating_add(data.bytes());
        if total > MEMORY_LIMIT {
            return Err(InterpErrorKind::TooLarge { bytes: total });
        }
        memory[buffer.as_u32() as usize] = match &data.storage {
            Storage::Input(_) => {
                let index = program.inputs.iter().position(|&b| b == buffer);
                let index = index.ok_or_else(|| malformed("an input buffer that is no input"))?;
                let input = &inputs[index];
                if *input.ty() != ty {
                    return Err(InterpErrorKind::InputType { index, expected: ty, actual: input.ty().clone() });
                }
                Memory::Shared(materialize(input, &data.layout, &data.shape).map_err(layout)?)
            }
            Storage::Const(tensor) => {
                if tensor.ty().dtype() != data.dtype {
                    return Err(malformed("a constant of another type than its buffer"));
                }
                Memory::Shared(materialize(tensor, &data.layout, &data.shape).map_err(layout)?)
            }
            Storage::Output(_) | Storage::Temp | Storage::Local(_) => {
                Memory::unwritten(data.layout.elems(), data.dtype)
            }
        };
    }
    Ok(memory)
}

/// The place of an entity in the memory.
fn at(memory: &[Memory], buffer: Buffer) -> Result<&Memory, InterpErrorKind> {
    memory.get(buffer.as_u32() as usize).ok_or_else(|| malformed("an unknown buffer"))
}

/// Calls `f` with the storage offset of every element, in row-major order of the logical coordinates.
fn for_each_offset(
    program: &Program,
    buffer: Buffer,
    mut f: impl FnMut(usize) -> Result<(), InterpErrorKind>,
) -> Result<(), InterpErrorKind> {
    let data = program.buffers.get(buffer).ok_or_else(|| malformed("an unknown buffer"))?;
    if data.shape.contains(&0) {
        return Ok(());
    }
    let mut index = vec![0; data.shape.len()];
    loop {
        f(data.layout.offset_of(&index) as usize)?;
        let mut axis = data.shape.len();
        loop {
            if axis == 0 {
                return Ok(());
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < data.shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

fn check(program: &Program, memory: &[Memory], buffer: Buffer, bound: u64) -> Result<(), InterpErrorKind> {
    let from = at(memory, buffer)?;
    let dtype = program.buffers[buffer].dtype;
    if !matches!(dtype, DType::I32 | DType::I64) {
        return Err(malformed("a check of something other than i32 or i64"));
    }
    for_each_offset(program, buffer, |offset| {
        let bits = from.read(buffer, dtype, offset)?;
        let index = if dtype == DType::I32 { i64::from(bits as i32) } else { bits as i64 };
        let inside = i128::from(index) >= -i128::from(bound) && i128::from(index) < i128::from(bound);
        if inside { Ok(()) } else { Err(InterpErrorKind::Check { buffer, index, bound }) }
    })
}

/// The logical tensor in a buffer.
fn dense(program: &Program, memory: &[Memory], buffer: Buffer) -> Result<Tensor, InterpErrorKind> {
    let from = at(memory, buffer)?;
    let data = program.buffers.get(buffer).ok_or_else(|| malformed("an unknown buffer"))?;
    let mut bytes = Vec::with_capacity(data.shape.iter().product::<u64>() as usize * data.dtype.bytes() as usize);
    for_each_offset(program, buffer, |offset| {
        let bits = from.read(buffer, data.dtype, offset)?;
        bytes.extend_from_slice(&bits.to_le_bytes()[..data.dtype.bytes() as usize]);
        Ok(())
    })?;
    let ty = TensorType::new(data.dtype, data.shape.clone()).map_err(|e| malformed(&e.to_string()))?;
    Tensor::new(ty, bytes.into()).map_err(|e| malformed(&e.to_string()))
}

/// One kernel being run.
struct Run<'a> {
    kernel: &'a KernelData,
    ready: FxHashMap<Stmt, Ready>,
    /// Index of each loop.
    loops: Vec<i64>,
}

/// Runs a kernel in the given rounds of the repeats around it, outermost first.
fn run_kernel(
    program: &Program,
    kernel: &KernelData,
    rounds: &[u64],
    memory: &mut [Memory],
) -> Result<(), InterpError> {
    let mut run = Run { kernel, ready: FxHashMap::default(), loops: vec![0; kernel.loops.len()] };
    for stmt in kernel.stmts_in_order() {
        let data = kernel.stmts.get(stmt).ok_or_else(|| malformed("an unknown statement"))?;
        if data.dims.iter().any(|d| d.extent == 0) {
            return Err(malformed("a tile without points").into());
        }
        let ready = Ready::new(program, data).map_err(|kind| run.at(stmt, kind))?;
        run.ready.insert(stmt, ready);
    }
    let mut body = kernel.body.as_slice();
    for &round in rounds {
        let [Item::Loop(l, inner)] = body else { return Err(malformed("a repeated kernel without its loop").into()) };
        run.loops[l.as_u32() as usize] = round as i64;
        body = inner;
    }
    run.body(body, memory)
}

impl Run<'_> {
    fn at(&self, stmt: Stmt, kind: InterpErrorKind) -> InterpError {
        InterpError { kernel: None, stmt: Some(self.kernel.stmts[stmt].name.clone()), kind }
    }

    /// Runs a body. Recursion is as deep as loops nest, which the verifier bounds.
    fn body(&mut self, body: &[Item], memory: &mut [Memory]) -> Result<(), InterpError> {
        for item in body {
            match item {
                Item::Stmt(s) => {
                    let ready = self.ready.get_mut(s).ok_or_else(|| malformed("an unknown statement"))?;
                    if let Err(kind) = ready.run(&self.loops, memory) {
                        return Err(self.at(*s, kind));
                    }
                }
                Item::Loop(l, inner) => {
                    let extent = self.kernel.loops.get(*l).ok_or_else(|| malformed("an unknown loop"))?.extent;
                    for i in 0..extent {
                        self.loops[l.as_u32() as usize] = i as i64;
                        self.body(inner, memory)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
