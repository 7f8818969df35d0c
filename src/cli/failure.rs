//! How a command ends: exit codes and the one form of every error.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | ok; also a broken pipe |
//! | 1 | failed |
//! | 2 | usage, configuration, or a refused prompt |
//! | 3 | daemon unreachable or warming up |
//! | 4 | not authorised |
//! | 5 | not found |
//! | 6 | rejected by rules or funds |
//! | 7 | `--wait` timed out |
//! | 130 | interrupted |

use std::io;

use crate::api::{ApiError, ErrorBody, ErrorFields};
use crate::node::config::ConfigError;

/// Exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed.
    Failed = 1,
    /// Usage, configuration, or a refused prompt.
    Usage = 2,
    /// Daemon unreachable or warming up.
    Unreachable = 3,
    /// Not authorised.
    NotAuthorised = 4,
    /// Not found.
    NotFound = 5,
    /// Rejected by rules or funds.
    Rejected = 6,
    /// `--wait` timed out.
    TimedOut = 7,
    /// Interrupted.
    Interrupted = 130,
}

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// Stable dotted code.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), hint: None }
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Wrong flags, files or answers: exit 2.
    #[must_use]
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// A file of the user that can not be read or written.
    #[must_use]
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::usage("file.unusable", format!("{}: {error}", path.display()))
    }

    /// The JSON form, the same as the API's.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorFields {
                code: self.code.clone(),
                message: self.message.clone(),
                hint: self.hint.clone(),
            },
        }
    }
}

impl From<io::Error> for Failure {
    /// Errors of standard output: a reader that has seen enough is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Ok, "cli.broken_pipe", "the reader closed the pipe");
        }
        Self::new(Exit::Failed, "cli.output", error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.code(), error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match error.status {
            400 => Exit::Usage,
            401 | 403 => Exit::NotAuthorised,
            404 => Exit::NotFound,
            402 | 409 | 413 | 422 => Exit::Rejected,
            503 => Exit::Unreachable,
            504 => Exit::TimedOut,
            _ => Exit::Failed,
        };
        Self { exit, code: error.code, message: error.message, hint: error.hint }
    }
}
