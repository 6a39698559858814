//! Scheduled programs to machine code.
//!
//! ```text
//! kernel ─kernel──▶ Cranelift function: loops, scopes
//!          statement   tiles as straight-line code
//!          expression  instructions of `map`        rounding  whole numbers without a C library
//!          values      operands: loads, stores, splats, constants
//!          lanes       factors as lanes of vectors
//!          registers   buffers that are variables
//!          address     affine offsets as pointer arithmetic
//!          intrinsic   calls of assembled micro-kernels
//! function ─native─▶ bytes, calls, stack
//! program ──entry──▶ the function that runs all steps
//! ```

mod address;
mod entry;
mod expression;
mod intrinsic;
mod kernel;
mod lanes;
pub(crate) mod legal;
mod native;
mod registers;
mod rounding;
mod statement;
mod types;
mod values;
mod vectorize;

use std::hash::BuildHasher;

use aic_ir::machine::GemmTile;
use aic_ir::plan::Plan;
use aic_ir::tile::{Kernel, Program, Step};
use cranelift_codegen::ir;
use cranelift_frontend::FunctionBuilderContext;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::code::{Compiled, Function, StepCode};
use crate::microkernel::{self, Width};
use crate::{CpuError, CpuTarget};

/// What to keep and add beside the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep the Cranelift IR of each function as text.
    pub clif: bool,
    /// Keep the assembly of each function as text, in the code generator's notation.
    pub asm: bool,
    /// Add an entry for each step, so that steps can be timed alone.
    pub step_entries: bool,
}

/// Compiles a scheduled and planned program.
///
/// Kernels whose functions come out equal share one; its symbol is the name of the first.
///
/// # Errors
/// When a kernel is not [legal](aic_ir::machine::Target::legal), a buffer is not placed, or the code generator fails.
pub fn compile(program: &Program, plan: &Plan, target: &CpuTarget, options: &Options) -> Result<Compiled, CpuError> {
    let mut context = FunctionBuilderContext::new();
    let mut table = FunctionTable::new(options.asm);
    let mut by_hash: FxHashMap<u64, Vec<(ir::Function, usize)>> = FxHashMap::default();
    let mut of_kernel: FxHashMap<Kernel, usize> = FxHashMap::default();
    for step in &program.steps {
        let Step::Run(k) = step else { continue };
        if of_kernel.contains_key(k) {
            continue;
        }
        let kernel = &program.kernels[*k];
        legal::legal(program, kernel).map_err(|reason| CpuError::Kernel { kernel: kernel.name.clone(), reason })?;
        let body = kernel::build(program, kernel, target, &mut table, &mut context)?;
        // What a function calls is named outside of its stencil.
        let callees = body.params.user_named_funcs();
        let equal = by_hash.entry(FxBuildHasher.hash_one(&body.stencil)).or_default();
        let same = |f: &ir::Function| f.stencil == body.stencil && f.params.user_named_funcs() == callees;
        let index = match equal.iter().find(|(f, _)| same(f)) {
            Some((_, index)) => *index,
            None => {
                let callee_stack_bytes = if callees.is_empty() { 0 } else { microkernel::STACK_BYTES };
                let symbol = unique_symbol(&kernel.name, &mut table.symbols);
                let function = native::compile(body.clone(), symbol, target, options, callee_stack_bytes)?;
                let index = table.add(function);
                equal.push((body, index));
                index
            }
        };
        of_kernel.insert(*k, index);
    }
    let mut steps = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        let (name, function) = match step {
            Step::Check { buffer, .. } => (format!("check {}", program.buffers[*buffer].name), None),
            Step::Run(k) => (program.kernels[*k].name.clone(), of_kernel.get(k).copied()),
            Step::Repeat { trips } => (format!("repeat {trips}"), None),
            Step::End => ("end".to_owned(), None),
        };
        steps.push(StepCode { name, function, entry: None });
    }
    let mut add_entry = |name: &str, range: std::ops::Range<usize>, table: &mut FunctionTable| {
        let callees = steps[range.clone()].iter().filter_map(|s| s.function);
        let deepest = callees.map(|f| table.functions[f].stack_bytes).max().unwrap_or(0);
        let body = entry::build(program, plan, target, range, &of_kernel, &mut context)?;
        let symbol = unique_symbol(name, &mut table.symbols);
        Ok::<usize, CpuError>(table.add(native::compile(body, symbol, target, options, deepest)?))
    };
    let mut entries = Vec::new();
    if options.step_entries {
        for i in 0..program.steps.len() {
            // Where a repeat begins or ends there is nothing to run: the steps inside count its rounds themselves.
            let marks = matches!(program.steps[i], Step::Repeat { .. } | Step::End);
            let steps = if marks { i..i } else { i..i + 1 };
            entries.push(add_entry(&format!("step_{i}"), steps, &mut table)?);
        }
    }
    let entry = add_entry("entry", 0..program.steps.len(), &mut table)?;
    for (step, entry) in steps.iter_mut().zip(entries) {
        step.entry = Some(entry);
    }
    let bytes = |buffers: &[aic_ir::tile::Buffer]| buffers.iter().map(|b| program.buffers[*b].bytes()).collect();
    Ok(Compiled {
        functions: table.functions,
        entry,
        steps,
        input_bytes: bytes(&program.inputs),
        output_bytes: bytes(&program.outputs),
        arena_bytes: plan.arena_bytes,
        weights_bytes: plan.weights_bytes,
        arch: target.machine.arch,
        features: target.machine.features.clone(),
    })
}

/// The functions of a program while it is compiled.
pub(super) struct FunctionTable {
    functions: Vec<Function>,
    symbols: FxHashSet<String>,
    gemms: FxHashMap<(Width, GemmTile), usize>,
    asm: bool,
}

impl FunctionTable {
    fn new(asm: bool) -> Self {
        Self { functions: Vec::new(), symbols: FxHashSet::default(), gemms: FxHashMap::default(), asm }
    }

    fn add(&mut self, function: Function) -> usize {
        self.functions.push(function);
        self.functions.len() - 1
    }

    /// The micro-kernel of a tile; assembled once for all kernels that use it.
    pub(super) fn gemm(&mut self, name: &str, width: Width, tile: GemmTile) -> Result<usize, String> {
        let key = (width, tile);
        if let Some(&index) = self.gemms.get(&key) {
            return Ok(index);
        }
        let tile = &key.1;
        let symbol = format!("{name}_{}x{}x{}", tile.rows, tile.columns, tile.steps());
        let symbol = unique_symbol(&symbol, &mut self.symbols);
        let function = microkernel::assemble(width, tile, symbol, self.asm).map_err(|e| e.to_string())?;
        let index = self.add(function);
        self.gemms.insert(key, index);
        Ok(index)
    }
}

/// A name that assemblers accept and that no other function has.
fn unique_symbol(name: &str, taken: &mut FxHashSet<String>) -> String {
    let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut symbol = safe.clone();
    let mut n = 2;
    while !taken.insert(symbol.clone()) {
        symbol = format!("{safe}_{n}");
        n += 1;
    }
    symbol
}
