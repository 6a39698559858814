//! The driver's error type: what went wrong, by blame, with the causes below it as a chain.

use std::path::PathBuf;

/// Whose fault an [`Error`] is; decides the exit status and the `status` field of JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input (model, arrays, target, flags' values) is malformed or not supported.
    Refused,
    /// A limit that the user set, or one of the compiler's own budgets, is exceeded.
    Limit,
    /// Outputs differ from what is expected.
    Mismatch,
    /// Reading or writing a file failed.
    Io,
    /// The compiler broke one of its own rules; please report it.
    Internal,
}

/// Why a model could not be compiled, run or checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input is refused; the text says what about it.
    #[error("{0}")]
    Refused(String),
    /// A reader refused the model.
    #[error("model `{path}` is refused", path = path.display())]
    Model {
        /// The model file or folder.
        path: PathBuf,
        /// The reader's reason.
        source: aic_frontend::ReadError,
    },
    /// A stage of the pipeline refused the model: a limit of the stage, not an error of the compiler.
    #[error("{stage} refuses the model")]
    Stage {
        /// Name of the stage.
        stage: &'static str,
        /// The stage's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An array file cannot be used.
    #[error("array file `{path}`", path = path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::npy::NpyError,
    },
    /// A limit is exceeded.
    #[error("limit exceeded: {0}")]
    Limit(String),
    /// Outputs differ.
    #[error("{0}")]
    Mismatch(String),
    /// A file operation failed.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A verifier or checker found a program that the compiler made to be wrong.
    #[error("internal error after `{stage}` (please report it): {details}")]
    Internal {
        /// The stage whose result is wrong.
        stage: &'static str,
        /// What is wrong with it.
        details: String,
    },
}

impl Error {
    /// Whose fault this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused(_) | Error::Model { .. } | Error::Stage { .. } | Error::Array { .. } => ErrorKind::Refused,
            Error::Limit(_) => ErrorKind::Limit,
            Error::Mismatch(_) => ErrorKind::Mismatch,
            Error::Io { .. } => ErrorKind::Io,
            Error::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// A failed file operation.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.into(), source }
    }

    /// A refusal by a stage.
    pub(crate) fn stage(stage: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error::Stage { stage, source: Box::new(source) }
    }

    /// A rule of the compiler that it broke itself.
    pub(crate) fn internal(stage: &'static str, details: impl std::fmt::Display) -> Self {
        Error::Internal { stage, details: details.to_string() }
    }
}
