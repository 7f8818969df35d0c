//! What the holder asks of peers, and what it is told to do.

use crate::ids::{CertId, Key};

/// What the holder has asked a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingsPurpose {
    /// The provider is to activate a gift.
    Gift(CertId),
    /// A given certificate was pushed to its new holder, at a sequence number.
    Push(CertId, u32),
    /// The provider is to send the whole certificate, for a command or by itself.
    Fetch(CertId, Option<u64>),
    /// The provider is to tell what this node holds.
    Held,
}

/// What an operator asks of the holdings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingsCommand {
    Gift {
        cert: CertId,
        to: Key,
    },
    /// Get a certificate that this node holds from its provider.
    Fetch {
        cert: CertId,
        provider: Key,
    },
}
