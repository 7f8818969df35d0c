//! What witnesses ask each other.

use serde::{Deserialize, Serialize};

use crate::certificate::objects::StatementKind;
use crate::wire::Envelope;

/// What a provider asks of those who may have heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitnessRequest {
    /// Which statements of mine have you heard? Answer: `Heard`.
    Mine,
}

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WitnessReply {
    /// Signed statements of the asker, the newest first: as many as fit one message.
    Heard(Vec<(StatementKind, Envelope)>),
}
