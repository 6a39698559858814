//! Application of directives: one file per primitive, each a checked rewriting of a program.
//!
//! Every rewriting checks before it changes anything, so a [`Refusal`] leaves the program as it was. No rewriting consults the machine, except that `vectorize` and `intrinsic` ask the target for its vector
//! width and micro-kernels.

mod cache;
mod dependence;
mod fuse;
mod marks;
mod pad;
mod rfactor;
mod split;
mod storage;

use super::{Directive, Refusal, Schedule, ScheduleError};
use crate::machine::Target;
use crate::tile::{Buffer, Kernel, KernelData, Program, Step, Stmt, hash};

/// Applies a schedule to the naive program it was made for.
///
/// # Errors
/// When the schedule is stale, or a directive is refused.
pub fn apply(program: &Program, schedule: &Schedule, target: &dyn Target) -> Result<Program, ScheduleError> {
    let actual = hash::program_hash(program);
    if schedule.program_hash != actual {
        return Err(ScheduleError::Stale { expected: schedule.program_hash, actual });
    }
    let mut program = program.clone();
    for (position, directive) in schedule.directives.iter().enumerate() {
        apply_directive(&mut program, directive, target).map_err(|refusal| ScheduleError::Refused {
            position,
            directive: Box::new(directive.clone()),
            refusal,
        })?;
    }
    Ok(program)
}

/// Applies one directive.
///
/// # Errors
/// When it is not legal; the program is then as it was.
pub fn apply_directive(program: &mut Program, directive: &Directive, target: &dyn Target) -> Result<(), Refusal> {
    match directive {
        Directive::Fuse { kernel, consumer } => fuse::fuse(program, kernel, consumer),
        Directive::Split { kernel, dims, factor, into } => split::split(program, kernel, dims, *factor, into),
        Directive::Reorder { kernel, outer, inner } => marks::reorder(program, kernel, outer, inner),
        Directive::Cache { kernel, stmt, operand, at, into, order } => {
            cache::cache(program, kernel, stmt, *operand, at.as_deref(), into, order)
        }
        Directive::Stage { kernel, stmts, buffer, into } => storage::stage(program, kernel, stmts, buffer, into),
        Directive::Layout { buffer, layout } => storage::layout(program, buffer, layout),
        Directive::Pad { buffer, border, value } => pad::pad(program, buffer, border, *value),
        Directive::Place { kernel, buffer, space } => storage::place(program, kernel, buffer, *space),
        Directive::Rfactor { kernel, stmt, lanes } => rfactor::rfactor(program, kernel, stmt, *lanes),
        Directive::Vectorize { kernel, dim } => marks::vectorize(program, kernel, dim, target),
        Directive::Unroll { kernel, loop_name } => marks::unroll(program, kernel, loop_name),
        Directive::Parallel { kernel, loop_name } => marks::parallel(program, kernel, loop_name),
        Directive::Intrinsic { kernel, stmt, name } => marks::intrinsic(program, kernel, stmt, name, target),
    }
}

/// The kernel in force of that name.
pub(super) fn kernel_named(program: &Program, name: &str) -> Result<Kernel, Refusal> {
    program
        .steps
        .iter()
        .find_map(|step| match step {
            Step::Run(k) if program.kernels[*k].name == name => Some(*k),
            Step::Run(_) | Step::Check { .. } | Step::Repeat { .. } | Step::End => None,
        })
        .ok_or_else(|| Refusal::NoKernel(name.to_owned()))
}

/// The buffer of that name.
pub(super) fn buffer_named(program: &Program, name: &str) -> Result<Buffer, Refusal> {
    let found = program.buffers.iter().find(|(_, b)| b.name == name).map(|(b, _)| b);
    found.ok_or_else(|| Refusal::NoBuffer(name.to_owned()))
}

/// The statement in force of that name.
fn stmt_named(kernel: &KernelData, name: &str) -> Result<Stmt, Refusal> {
    kernel.stmt_named(name).ok_or_else(|| Refusal::NoStmt(name.to_owned()))
}

/// Position of a dimension of a statement.
fn dim_of(kernel: &KernelData, stmt: Stmt, name: &str) -> Result<usize, Refusal> {
    let data = &kernel.stmts[stmt];
    let missing = || Refusal::NoDim { stmt: data.name.clone(), dim: name.to_owned() };
    data.dim_named(name).ok_or_else(missing)
}

/// Refuses a statement or loop name that the kernel uses already.
fn check_free(kernel: &KernelData, name: &str) -> Result<(), Refusal> {
    let taken = kernel.stmt_named(name).is_some() || kernel.loop_named(name).is_some();
    if taken || name.is_empty() { Err(Refusal::Taken(name.to_owned())) } else { Ok(()) }
}

/// Refuses a buffer name that the program uses already.
fn check_free_buffer(program: &Program, name: &str) -> Result<(), Refusal> {
    let taken = program.buffers.values().any(|b| b.name == name);
    if taken || name.is_empty() { Err(Refusal::Taken(name.to_owned())) } else { Ok(()) }
}

/// Refuses a kernel name that the program uses already.
fn check_free_kernel(program: &Program, name: &str) -> Result<(), Refusal> {
    let taken = program.kernels.values().any(|k| k.name == name);
    if taken || name.is_empty() { Err(Refusal::Taken(name.to_owned())) } else { Ok(()) }
}

/// Whether any kernel in force other than `kernel`, or a check, touches a buffer.
fn used_elsewhere(program: &Program, kernel: Kernel, buffer: Buffer) -> bool {
    program.steps.iter().any(|step| match step {
        Step::Check { buffer: b, .. } => *b == buffer,
        Step::Run(k) => *k != kernel && program.kernels[*k].touches(buffer),
        Step::Repeat { .. } | Step::End => false,
    })
}
