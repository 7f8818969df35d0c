//! node.

pub mod config;

use std::future::Future;

use config::Config;

/// Why the node stopped.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    code: &'static str,
    message: String,
}

impl RunError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// Runs a node until `shutdown` resolves.
///
/// # Errors
/// What stopped it.
pub async fn run(
    _config: Config,
    _shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    Err(RunError { code: "cli.not_built", message: "the node is not part of this build".to_owned() })
}
