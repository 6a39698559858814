//! Why a model is refused: one error type for all readers, by blame.

use std::fmt;

use crate::files::FilesError;
use crate::shapes::ShapesError;

/// Why a model cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file breaks its format; the text says where.
    #[error("malformed model: {}", Printable(.0))]
    Malformed(String),
    /// The file is well formed, but as a whole of a kind that is not supported (version, architecture).
    #[error("unsupported model: {}", Printable(.0))]
    Unsupported(String),
    /// Parts of the model are not supported; all of them are listed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Dynamic dimensions are left open, or given shapes do not fit.
    #[error(transparent)]
    Shapes(#[from] ShapesError),
    /// A file of the model's folder cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// A node (or input, output or constant) of the user's model that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedNode {
    /// Name of the node in the user's model, or of its first result if the node has none.
    pub name: String,
    /// Operator, with its domain unless that is the standard one: `Einsum`, `com.microsoft.FusedMatMul`.
    pub op: String,
    /// What about it is not supported.
    pub reason: String,
}

impl fmt::Display for RefusedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}): {}", Printable(&self.name), Printable(&self.op), Printable(&self.reason))
    }
}

/// Most characters of a text that are shown.
const MAX_CHARS: usize = 1000;

/// A text that quotes the model, as one line for a terminal: control characters are escaped, so that a name can
/// neither break the line nor steer the terminal, and what is endless is cut.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            if i == MAX_CHARS {
                return f.write_str("…");
            }
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Every part of a model that is not supported, in the model's order. What depends on a refused node is not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The refused nodes; at least one.
    pub nodes: Vec<RefusedNode>,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nodes.len() {
            1 => f.write_str("one node of the model is not supported:")?,
            n => write!(f, "{n} nodes of the model are not supported:")?,
        }
        for node in &self.nodes {
            write!(f, "\n  {node}")?;
        }
        Ok(())
    }
}
