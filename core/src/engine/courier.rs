//! Certificates on their way to a new holder: from the provider, and from who gave it away.

use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;

/// What is brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CourierRequest {
    /// Giver or P → the new holder: the certificate is yours. Answer: `Stored`.
    Push(Certificate),
}

/// What the new holder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CourierReply {
    Stored,
}
