//! Schedules: *how, on this machine*, as a value.
//!
//! A [`Schedule`] is a list of [directives](Directive), each a checked rewriting of a program that keeps what it computes.
//! Directives name kernels, statements, dimensions, loops and buffers by their stable names, and the schedule carries a hash
//! of the naive program it was made for, so it can be dumped, edited by hand and given back; a stale one is an error.
//! Whoever produces directives (the built-in scheduler, a tuner, a person) can be wrong only about speed: an illegal
//! directive is refused with its reason, never applied.
//!
//! Text form, one directive a line:
//!
//! ```text
//! schedule for 5f3c9a10b2d4e6f8
//! fuse matmul_3 gelu_4
//! split matmul_3 init.d1, mma.d1, gelu_4_map.d1 by 4 -> i
//! layout "l0.ffn.weight" (0/8)(1)(0%8)
//! place matmul_3 "t7" reg
//! vectorize matmul_3 mma.d2
//! ```

mod apply;
mod cost;
mod error;
mod scheduler;
#[cfg(test)]
mod tests;
mod text;

pub use apply::{apply, apply_directive};
pub use cost::{KernelCost, cost};
pub use error::{Refusal, ScheduleError};
pub use scheduler::{Level, Options, Scheduled, schedule};

/// One dimension of one statement of a kernel: `mma.d1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DimRef {
    /// The statement's name.
    pub stmt: String,
    /// The dimension's name.
    pub dim: String,
}

/// Which operand of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// `src` of `copy`, `reduce` and `gather`; `a` of `mma`; the first load of `map`.
    A,
    /// `b` of `mma`.
    B,
}

/// A checked rewriting. Names are those in force when the directive is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// Appends the body of `consumer` to that of `kernel`, and removes `consumer`. Legal when no step between them touches
    /// what is moved. Statements of the consumer get its name as prefix: `gelu_4_map`.
    Fuse {
        /// The kernel that grows.
        kernel: String,
        /// The kernel that goes.
        consumer: String,
    },
    /// Moves a dimension out of adjacent statements into one new loop around them, which steps by `factor`; what stays in the
    /// tile has extent `factor`. If `factor` does not divide the extent, the rest is peeled: a copy of the statements (and of
    /// the temporaries they share), with `_` and the loop's name appended to names, follows the loop. Temporaries that only these
    /// statements use shrink to what one iteration needs. Legal when every value that one of the statements takes from
    /// another comes from the same iteration.
    Split {
        /// The kernel.
        kernel: String,
        /// One dimension of each of the statements, all of one extent.
        dims: Vec<DimRef>,
        /// Points of the tile that remain, at least 1.
        factor: u64,
        /// Name of the new loop.
        into: String,
    },
    /// Exchanges two perfectly nested loops.
    Reorder {
        /// The kernel.
        kernel: String,
        /// The outer of the two.
        outer: String,
        /// The inner of the two.
        inner: String,
    },
    /// Copies what an operand reads during one iteration of a loop (or the whole kernel) into a private buffer before that body
    /// runs, and reads the copy instead. The copy is a new statement `NAME_copy` at the start of the body.
    Cache {
        /// The kernel.
        kernel: String,
        /// The statement.
        stmt: String,
        /// Which operand.
        operand: Operand,
        /// The loop at the start of whose body the copy is made; the kernel's start if `None`.
        at: Option<String>,
        /// Name of the new buffer.
        into: String,
        /// Storage order of the new buffer: its logical axes from outermost to innermost.
        order: Vec<usize>,
    },
    /// Lets adjacent statements compute into a new temporary instead of a buffer that one of them initializes, and copies it
    /// to the buffer after the last of them, by a new statement `LAST_store`. Makes an accumulator that can live in registers.
    Stage {
        /// The kernel.
        kernel: String,
        /// The statements.
        stmts: Vec<String>,
        /// The buffer that they write.
        buffer: String,
        /// Name of the temporary.
        into: String,
    },
    /// Sets the storage order of a constant or temporary.
    Layout {
        /// The buffer.
        buffer: String,
        /// The new layout.
        layout: crate::tile::Layout,
    },
    /// Gives a temporary a border: every axis grows by so many elements before and after, what is there now keeps its place
    /// between, and a new kernel `border_N` (`bN` is the buffer) in front of the first that touches the buffer writes the border. Reads beyond the
    /// buffer that give a fill value then read that value from the border. Legal when all fill values are `value`.
    Pad {
        /// The buffer.
        buffer: String,
        /// Elements before and after, for each axis.
        border: Vec<(u64, u64)>,
        /// What the border holds.
        value: crate::tile::Scalar,
    },
    /// Makes a temporary that only one kernel uses private to it.
    Place {
        /// The kernel.
        kernel: String,
        /// The buffer.
        buffer: String,
        /// Where it goes.
        space: crate::tile::Space,
    },
    /// Splits a reduction into `lanes` partial results: an initialization `NAME_zero`, an accumulation `NAME_acc` of whole tiles
    /// of `lanes` elements (and a rest `NAME_acc_t`), then the reduction of the partial results. Only the last reduced dimension is split.
    Rfactor {
        /// The kernel.
        kernel: String,
        /// The `reduce` statement.
        stmt: String,
        /// Number of partial results, at least 1.
        lanes: u64,
    },
    /// Executes a dimension in vectors.
    Vectorize {
        /// The kernel.
        kernel: String,
        /// The dimension; its extent is a multiple of the vector's lanes.
        dim: DimRef,
    },
    /// Repeats a loop's body in the code.
    Unroll {
        /// The kernel.
        kernel: String,
        /// The loop.
        loop_name: String,
    },
    /// Declares that a loop's iterations may run at once. Legal when the access maps prove it.
    Parallel {
        /// The kernel.
        kernel: String,
        /// The loop.
        loop_name: String,
    },
    /// Executes a statement's whole tile by an intrinsic of the machine.
    Intrinsic {
        /// The kernel.
        kernel: String,
        /// The statement.
        stmt: String,
        /// The intrinsic's name.
        name: String,
    },
}

/// A schedule: directives for one naive program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Content hash of the naive program.
    pub program_hash: u64,
    /// The directives, in order of application.
    pub directives: Vec<Directive>,
}
