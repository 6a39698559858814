//! CPU backend: scheduled tile programs to native code, and that code to artifacts.
//!
//! ```text
//! scheduled program + plan ─emit─▶ Cranelift IR ─native─▶ functions ─┬─ jit ───────▶ run here
//!                                                                    └─ artifact ──▶ .o .a .so .h
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`target`] | the target: a machine, a triple and Cranelift's settings for it; what the backend can emit |
//! | [`jit`] | running in this process |
//! | [`status`] | the status numbers of the C interface |
//! | [`emit`] | scheduled programs to Cranelift IR to machine code |
//! | `microkernel` | assembled matrix-product tiles in 256- and 512-bit vectors, where the schedule asks for them |
//! | [`code`] | compiled functions: bytes, calls among each other, stack |
//! | [`artifact`] | objects, archives, shared libraries, headers and weights of a compiled program; the C interface |
//!
//! Every loop and statement comes from the tile program; there are no operator bodies and no runtime here.

pub mod artifact;
pub mod code;
pub mod emit;
pub mod jit;
mod microkernel;
pub mod status;
pub mod target;

pub use code::{Call, CallKind, Compiled, Function, StepCode};
pub use emit::{Options, compile};
pub use target::CpuTarget;

use aic_ir::machine::MachineError;

/// Why a program cannot be compiled for a CPU.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CpuError {
    /// Not a target that this backend writes code for.
    #[error("target `{triple}`: {reason}")]
    Target {
        /// The triple asked for.
        triple: String,
        /// Why it is refused.
        reason: String,
    },
    /// A machine file that is refused.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A kernel that the backend cannot emit; the scheduler should have asked [`aic_ir::machine::Target::legal`].
    #[error("kernel `{kernel}`: {reason}")]
    Kernel {
        /// The kernel's name.
        kernel: String,
        /// What is not supported.
        reason: String,
    },
    /// The plan does not place a buffer that code reaches.
    #[error("buffer `{buffer}` has no place in the plan")]
    Unplaced {
        /// The buffer's name.
        buffer: String,
    },
    /// A defect of the compiler: Cranelift refused the code, or the code is not self-contained.
    #[error("internal error in `{symbol}`: {reason}")]
    Internal {
        /// The function.
        symbol: String,
        /// What went wrong.
        reason: String,
    },
}
