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

use crate::api::{ApiError, ErrorBody};
use crate::node::config::ConfigError;
use crate::store::SecretError;
use capex_core::reason;
use capex_core::reasons::Reason;

pub use capex_core::reasons::Exit;

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
    /// A failure whose exit code and hint are the reason's.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            exit: reason.exit(),
            code: reason.code().to_owned(),
            message: message.into(),
            hint: reason.hint().map(str::to_owned),
        }
    }

    /// The same for a code of this program that is only known as a text; exit 1 if it is none.
    #[must_use]
    pub fn coded(code: &str, message: impl Into<String>) -> Self {
        ApiError::coded(code, message).into()
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file of the user that cannot be read or written.
    #[must_use]
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::new(reason!("file.unusable"), format!("{}: {error}", path.display()))
    }

    /// The JSON form, the same as the API's.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code.clone(), self.message.clone(), self.hint.clone())
    }
}

impl From<io::Error> for Failure {
    /// Errors of standard output: a reader that has seen enough is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(reason!("cli.broken_pipe"), "the reader closed the pipe");
        }
        Self::new(reason!("cli.output"), error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = Exit::of_status(error.status);
        Self { exit, code: error.code, message: error.message, hint: error.hint }
    }
}
