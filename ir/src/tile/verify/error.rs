//! What the verifier reports.

use std::fmt;

use crate::tile::layout::LayoutError;
use crate::tile::typing::ExprError;
use crate::tile::{Buffer, Kernel, Loop, Stmt};
use crate::types::{DType, ShapeError};

/// Which rule is broken. The rules are listed in the [module documentation](super).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Rule {
    #[error("{0} does not exist")]
    NoBuffer(Buffer),
    #[error("{0} does not exist")]
    NoKernel(Kernel),
    #[error("{0} does not exist")]
    NoLoop(Loop),
    #[error("{0} does not exist")]
    NoStmt(Stmt),
    #[error("it stands in the body more than once")]
    Twice,
    #[error("loops nest deeper than {0}")]
    TooDeep(usize),
    #[error("the name `{0}` is used twice")]
    Name(String),
    #[error("the dimension `{0}` has the name of a loop around it")]
    HiddenLoop(String),
    #[error("an extent is 0")]
    Empty,
    #[error("more than 2^60 points")]
    TooManyPoints,
    #[error("{0}")]
    Shape(ShapeError),
    #[error("{0}")]
    Layout(LayoutError),
    #[error("the padding of the layout multiplies its size: {elems} elements for {needed}")]
    Padding { elems: u64, needed: u64 },
    #[error("the caller's buffers are row-major")]
    CallerLayout,
    #[error("the constant is {actual}, of another element type or size")]
    Constant { actual: String },
    #[error("{what} {index} of the interface is not this buffer")]
    Interface { what: &'static str, index: u32 },
    #[error("{what} {index} is a buffer of another storage or number")]
    InterfaceStorage { what: &'static str, index: usize },
    #[error("{buffer} has {rank} dimensions, but the access has {given} coordinates")]
    Arity { buffer: Buffer, rank: usize, given: usize },
    #[error("dimension {0} is not one of the tile")]
    DimScope(u32),
    #[error("{0} is not a loop around it")]
    LoopScope(Loop),
    #[error("coordinate {axis} of {buffer} takes {lo} to {hi}, which is outside 0 to {size}, exclusive")]
    Bounds { buffer: Buffer, axis: usize, lo: i64, hi: i64, size: u64 },
    #[error("{0} is written, but is an input or a constant")]
    ReadOnly(Buffer),
    #[error("a write has no fill value")]
    FilledWrite,
    #[error("the fill value is a {fill}, the buffer holds {dtype}")]
    FillType { fill: DType, dtype: DType },
    #[error("{what} is {actual}, but must be {expected}")]
    Type { what: &'static str, expected: String, actual: DType },
    #[error("{0}")]
    Expr(ExprError),
    #[error("{buffer} has no axis {axis} that data could index")]
    GatherAxis { buffer: Buffer, axis: usize },
    #[error("the coordinate that data replaces must be written as 0")]
    GatherCoordinate,
    #[error("the indices in {0} are not proved to be below {1}: no check, or it comes too early")]
    Unchecked(Buffer, u64),
    #[error("a constant index is outside -{0}..{0}")]
    ConstIndex(u64),
    #[error("more than one dimension is executed in vectors")]
    Vectors,
    #[error("lanes of `{dim}` write the same element of {buffer}")]
    SameElement { dim: String, buffer: Buffer },
    #[error("lanes of `{dim}` read what others write in {buffer}")]
    LaneDependence { dim: String, buffer: Buffer },
    #[error("iterations may touch the same elements of {0}")]
    Dependence(Buffer),
    #[error("{0} is private to a kernel, but another one uses it too")]
    Shared(Buffer),
    #[error("{buffer} lies in registers, but is indexed by {by}")]
    RegisterIndex { buffer: Buffer, by: String },
    #[error("registers hold {bytes} bytes at once, the machine has {limit}")]
    Registers { bytes: u64, limit: u64 },
    #[error("{0} is read where it may not have been written")]
    Unwritten(Buffer),
    #[error("not every element is proved to be written")]
    Partial,
    #[error("a check of an input comes after a kernel")]
    LateCheck,
    #[error("a check has the bound 0")]
    EmptyCheck,
    #[error("repeats do not nest, or are not those of the kernel's repeat loops")]
    Repeat,
    #[error("it runs more than once")]
    RunsTwice,
}

/// A broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// The kernel's name, if it is about one.
    pub kernel: Option<String>,
    /// The entity, with its name: `s3 "mma"`.
    pub entity: String,
    /// What is wrong.
    pub rule: Rule,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            write!(f, "kernel {kernel}: ")?;
        }
        write!(f, "{}: {}", self.entity, self.rule)
    }
}

/// Everything that is wrong with a program; at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyErrors(pub Vec<VerifyError>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { "\n" } else { "" })?;
            write!(f, "{e}")?;
        }
        Ok(())
    }
}

impl std::error::Error for VerifyErrors {}
