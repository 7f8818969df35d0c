//! What went wrong, and at whom.

use crate::cli::failure::{Exit, Failure};
use capex_core::reasons::Reason;

/// A failure with the process that it concerns.
#[derive(Debug)]
pub(super) struct Broken {
    /// What failed.
    pub(super) failure: Failure,
    /// Name of the child whose log may say more.
    pub(super) whose: Option<String>,
}

impl Broken {
    /// A failure of the run itself.
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Failure::new(reason, message).into()
    }

    /// The same, about a child.
    pub(super) fn at(mut self, name: &str) -> Self {
        self.whose = Some(name.to_owned());
        self
    }

    /// Whether asking again can help: not there yet, or not yet able to answer.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.failure.exit, Exit::Unreachable | Exit::NotFound)
    }

    /// Whether nothing failed: the user asked to stop, or nobody reads the story any more.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.failure.exit, Exit::Interrupted | Exit::Ok)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, whose: None }
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Failure::from(error).into()
    }
}
