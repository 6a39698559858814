//! Tile programs: *how* a model is computed.
//!
//! A [`Program`] is a list of kernels over buffers. A kernel is a tree: the body of a loop is a sequence of loops and
//! statements, so nests may be imperfect. A [statement](StmtData) works on a *tile*: it has a box of dimensions of its
//! own ([`StmtData::dims`]) and is executed for every point of that box. Lowering makes the *naive* program: one kernel
//! for each operator, whole tensors as tiles, no loops. Scheduling moves dimensions out of tiles into loops
//! ([`crate::schedule`]), until what remains in a statement is what a machine does in a few instructions.
//!
//! ```text
//! naive                                        scheduled
//! kernel matmul {                              kernel matmul {
//!   map  y[d0, d1] = 0      d0:128 d1:384        loop i 32 { loop j 48 {
//!   mma  y[d0, d1] +=       d0:128 d1:384          map  acc[d0, d1] = 0          d0:4 d1:8v
//!        a[d0, k] b[k, d1]  k:384                  loop p 384 {
//! }                                                  mma  acc[d0, d1] += a[4i+d0, p] b[p, 8j+d1]   d0:4 d1:8v k:1
//!                                                  }
//!                                                  copy y[4i+d0, 8j+d1] = acc[d0, d1]
//!                                                }}
//!                                              }
//! ```
//!
//! # Semantics
//!
//! - Kernels run in the order of [`Program::steps`]. Steps between a [`Step::Repeat`] and its [`Step::End`] run again and again:
//!   states of a recurrent layer are temporaries that the steps of one round read and the next round finds changed. Each
//!   kernel in there stands, whole, in a loop of kind [`LoopKind::Repeat`], one iteration of which is one call, so that what
//!   is read off a kernel alone (ranges, sizes, costs) is right for all its calls together.
//! - Items of a body run in order; a loop runs its body for 0, 1, …,
//!   `extent - 1`. `Parallel` loops are proved free of dependences between iterations, so any order gives the same
//!   memory. Interpreters always run in order.
//! - A statement visits its points in row-major order of `dims`, as if each point were read, computed and written before
//!   the next. `Vector` dimensions may be computed at once: the verifier proves that no point depends on another.
//! - `map` and `copy` write `dst` at every point. `mma` adds the product of `a` and `b` to `acc`, in ascending order of the
//!   points; with `fused` the product is not rounded before it is added (one rounding), else it is (two roundings).
//!   Operands of a narrower type than `acc` are converted to it first, which is exact.
//! - `reduce` combines all points that share a `dst` element by a fixed tree and then combines the result with `dst`'s old
//!   value, as `op(old, tree)`. The tree over points `x[0..n]` (row-major): `h = ceil(n/2)`; `x[i] = op(x[i], x[i+h])` for
//!   `i < n-h`; repeat with `n = h` until one is left. So the order of rounding is part of the program.
//! - `gather` copies `src` at a position given by data: `index` is read, a negative value counts from the end of dimension
//!   `axis`, and the coordinate of `src` in that dimension is replaced by it. A [`Step::Check`] before the kernel proved the range.
//! - `scatter` is the same the other way round: a coordinate of `dst` comes from data. Without an operator `src` replaces
//!   the element; with one the element becomes `op(old, src)`. Points may meet, and are taken in their order.
//! - A `map` may read its own buffer at other coordinates than it writes, and write an element more than once: running
//!   sums and insertions are such. A read then sees what earlier points wrote.
//! - Float arithmetic is IEEE 754 binary32 (or the stated type) with round-to-nearest-even. Integer arithmetic wraps. Which
//!   of the NaNs a NaN result is, is not part of the semantics.
//! - `max` and `min` are `a > b ? a : b` and `a < b ? a : b`: with a NaN, or two zeros, the second operand.
//! - Reading memory that was never written is an error of the program; the interpreter reports it.
//!
//! Coordinates in an access are *logical*; the buffer's [`Layout`] maps them to storage. Views (reshape, transpose, slice,
//! broadcast) do not exist as buffers: they are composed into the access.

pub mod affine;
pub mod expr;
pub mod hash;
pub mod interp;
pub mod layout;
pub mod materialize;
pub mod math;
pub mod text;
pub mod typing;
pub mod verify;
pub mod walk;

use cranelift_entity::{PrimaryMap, entity_impl};

use crate::types::{DType, Tensor};
pub use affine::{Affine, Atom, Var};
pub use expr::{Expr, ExprRef, Inst, MathFn, Scalar, ScalarBinary, ScalarUnary};
pub use layout::{Layout, LayoutDim, LayoutError};
pub use materialize::materialize;

/// A loop of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loop(u32);
entity_impl!(Loop, "l");

/// A statement of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stmt(u32);
entity_impl!(Stmt, "s");

/// A buffer of a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(u32);
entity_impl!(Buffer, "b");

/// A kernel of a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel(u32);
entity_impl!(Kernel, "k");

/// What holds a buffer's bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// The caller's input of that index; read-only, and never in the arena.
    Input(u32),
    /// The caller's output of that index; never in the arena.
    Output(u32),
    /// A constant: the dense logical tensor. Its stored bytes are the tensor in the buffer's layout.
    Const(Tensor),
    /// The arena, alive from the first write to the last read.
    Temp,
    /// Private to one kernel: scratch memory, or registers.
    Local(Space),
}

/// Where a kernel's private buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory close to the unit; part of the arena, counted per thread.
    Scratch,
    /// Registers: indexed only by tile dimensions and unrolled loops, so that every element is a fixed register.
    Reg,
}

/// A buffer: element type, logical shape, layout and storage.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferData {
    /// Name of the tensor in the user's model, or one made by lowering; unique in the program.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Logical shape.
    pub shape: Vec<u64>,
    /// Storage order of the logical coordinates.
    pub layout: Layout,
    /// What holds the bytes.
    pub storage: Storage,
}

impl BufferData {
    /// A buffer in row-major layout.
    pub fn dense(name: impl Into<String>, dtype: DType, shape: &[u64], storage: Storage) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), layout: Layout::row_major(shape), storage }
    }

    /// Size in storage, padding of the layout included.
    pub fn bytes(&self) -> u64 {
        self.layout.elems() * self.dtype.bytes()
    }
}

/// How the iterations of a loop may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// In order; may carry memory from one iteration to the next.
    Sequential,
    /// In any order, or at once: proved independent.
    Parallel,
    /// In order, with the body repeated in the code.
    Unrolled,
    /// One iteration for each call of the kernel: a [`Step::Repeat`] around the call counts. These loops are the outermost
    /// of a kernel, one for each repeat around it, and hold all of it.
    Repeat,
}

/// A loop from 0 to `extent`, exclusive, by 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoopData {
    /// Name, unique in the kernel; schedules refer to it.
    pub name: String,
    /// Number of iterations, at least 1.
    pub extent: u64,
    /// How iterations may be run.
    pub kind: LoopKind,
}

/// One element of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A loop and its body.
    Loop(Loop, Vec<Item>),
    /// A statement.
    Stmt(Stmt),
}

/// How the points of a tile dimension are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exec {
    /// One after the other, in straight-line code.
    Unroll,
    /// In vectors of the machine's width; at most one dimension of a statement.
    Vector,
}

/// A dimension of a statement's tile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    /// Name, unique in the statement: `d0`, `d1`, … follow the result's dimensions, `k0`, `k1`, … are reduced.
    pub name: String,
    /// Number of points.
    pub extent: u64,
    /// How they are executed.
    pub exec: Exec,
}

/// A reference to one element of a buffer for each point of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The buffer.
    pub buffer: Buffer,
    /// Logical coordinates, one per dimension of the buffer.
    pub index: Vec<Affine>,
    /// If given, coordinates may lie outside the buffer and then read as this value; only for reads.
    /// Without it the verifier proves that they never do.
    pub fill: Option<Scalar>,
}

impl Access {
    /// An access that stays inside the buffer.
    pub fn new(buffer: Buffer, index: Vec<Affine>) -> Self {
        Self { buffer, index, fill: None }
    }
}

/// How `reduce` combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// `a + b`.
    Add,
    /// `a * b`.
    Mul,
    /// `a > b ? a : b`.
    Max,
    /// `a < b ? a : b`.
    Min,
}

/// What a statement does at each point of its tile.
#[derive(Clone, Debug, PartialEq)]
pub enum StmtOp {
    /// `dst = src`, between spaces or layouts.
    Copy {
        /// Written.
        dst: Access,
        /// Read.
        src: Access,
    },
    /// `dst = value`, a scalar expression over loads.
    Map {
        /// Written; the expression may read it at the same coordinates.
        dst: Access,
        /// The expression.
        value: Expr,
    },
    /// `acc += a * b`: a contraction. A dimension's role follows from who uses it: `acc` and `a` (m), `acc` and `b` (n),
    /// all three (batch), only `a` and `b` (k).
    Mma {
        /// Read and written.
        acc: Access,
        /// Left operand.
        a: Access,
        /// Right operand.
        b: Access,
        /// Whether products are added unrounded.
        fused: bool,
    },
    /// `dst = op(dst, tree of src)` over the dimensions that `dst` does not use.
    Reduce {
        /// Read and written.
        dst: Access,
        /// How elements combine.
        op: Combine,
        /// Read.
        src: Access,
    },
    /// `dst = src[.., index, ..]`.
    Gather {
        /// Written.
        dst: Access,
        /// Read; its coordinate `axis` is ignored (written as 0) and replaced by the data.
        src: Access,
        /// Position in dimension `axis`: `i32` or `i64`.
        index: Access,
        /// The dimension of `src` that data indexes.
        axis: usize,
    },
    /// `dst[.., index, ..] = src`, or `op` of the old element and `src`.
    Scatter {
        /// Written, and read if there is an operator; its coordinate `axis` is ignored (written as 0) and replaced by the
        /// data.
        dst: Access,
        /// How elements combine, if they are not replaced.
        op: Option<Combine>,
        /// Read.
        src: Access,
        /// Position in dimension `axis`: `i32` or `i64`.
        index: Access,
        /// The dimension of `dst` that data indexes.
        axis: usize,
    },
}

/// A statement. See the [module documentation](self).
#[derive(Clone, Debug, PartialEq)]
pub struct StmtData {
    /// Name, unique in the kernel; schedules refer to it.
    pub name: String,
    /// The tile: dimensions in order, outermost first.
    pub dims: Vec<Dim>,
    /// What is done at each point.
    pub op: StmtOp,
    /// Name of the machine's intrinsic that executes the whole tile, if the schedule chose one.
    pub intrinsic: Option<String>,
}

/// A kernel: a function of its buffers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelData {
    /// Stable name, unique in the program, after the operator: `matmul_3`.
    pub name: String,
    /// Names of the user's nodes that it computes.
    pub sources: Vec<String>,
    /// Loops ever made; those in force are in `body`.
    pub loops: PrimaryMap<Loop, LoopData>,
    /// Statements ever made; those in force are in `body`.
    pub stmts: PrimaryMap<Stmt, StmtData>,
    /// The tree.
    pub body: Vec<Item>,
}

/// One step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every element `i` of the `i32` or `i64` buffer must satisfy `-bound <= i < bound`, else the run ends with the status
    /// "index out of range". Checks of inputs come before all kernels.
    Check {
        /// The indices.
        buffer: Buffer,
        /// Number of valid positions.
        bound: u64,
    },
    /// Runs a kernel.
    Run(Kernel),
    /// Runs the steps up to the matching [`Step::End`] again and again.
    Repeat {
        /// How many times, at least 1.
        trips: u64,
    },
    /// Ends what the last open [`Step::Repeat`] repeats.
    End,
}

/// A tile program: one entry of a module, for one choice of shapes. See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Name of the model.
    pub name: String,
    /// All buffers ever made; unused ones take no memory.
    pub buffers: PrimaryMap<Buffer, BufferData>,
    /// All kernels ever made; those in force are in `steps`.
    pub kernels: PrimaryMap<Kernel, KernelData>,
    /// What runs, in order.
    pub steps: Vec<Step>,
    /// The buffer of each input, in the model's order.
    pub inputs: Vec<Buffer>,
    /// The buffer of each output, in the model's order.
    pub outputs: Vec<Buffer>,
}
