//! What the holder asks of peers, and what it is told to do.

use crate::ids::{CertId, Key};

/// What the holder has asked a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingsPurpose {
    /// The provider is to activate a gift.
    Gift(CertId),
    /// A given certificate was pushed to its new holder.
    Push(CertId),
    /// The provider is to send the whole certificate.
    Fetch(CertId),
}

/// What an operator asks of the holdings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingsCommand {
    Gift { cert: CertId, to: Key },
}
