//! Why a schedule, or one directive of it, is refused.

use super::Directive;

/// Why a directive cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No kernel of that name is in force.
    #[error("there is no kernel `{0}`")]
    NoKernel(String),
    /// The kernel has no statement of that name.
    #[error("there is no statement `{0}`")]
    NoStmt(String),
    /// The statement has no dimension of that name.
    #[error("statement `{stmt}` has no dimension `{dim}`")]
    NoDim {
        /// The statement.
        stmt: String,
        /// The dimension asked for.
        dim: String,
    },
    /// The kernel has no loop of that name.
    #[error("there is no loop `{0}`")]
    NoLoop(String),
    /// No buffer of that name.
    #[error("there is no buffer `{0}`")]
    NoBuffer(String),
    /// A name for something new is taken.
    #[error("the name `{0}` is taken")]
    Taken(String),
    /// The rewriting would change what is computed, or is not defined here.
    #[error("{0}")]
    Illegal(String),
}

/// Why scheduling failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The schedule was made for another program.
    #[error("the schedule was made for program {expected:016x}, but this program is {actual:016x}")]
    Stale {
        /// Hash in the schedule.
        expected: u64,
        /// Hash of the program at hand.
        actual: u64,
    },
    /// A directive was refused.
    #[error("directive {} (`{directive}`): {refusal}", position + 1)]
    Refused {
        /// Position in the schedule, from 0.
        position: usize,
        /// The directive.
        directive: Box<Directive>,
        /// Why.
        refusal: Refusal,
    },
    /// The backend cannot emit a kernel.
    #[error("kernel `{kernel}` (of {}): {reason}", sources.join(", "))]
    Unsupported {
        /// The kernel.
        kernel: String,
        /// The user's nodes that it computes.
        sources: Vec<String>,
        /// The backend's reason.
        reason: String,
    },
    /// The text of a schedule does not parse.
    #[error(transparent)]
    Syntax(#[from] crate::text::ParseError),
}
