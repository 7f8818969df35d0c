//! What the holder asks of peers, and what it is told to do.

use super::ErrandKind;
use crate::certificate::Certificate;
use crate::certificate::objects::Area;
use crate::ids::{CertId, Key};

/// What the holder has asked a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldingsPurpose {
    /// The provider is to activate a gift, a split or a merge.
    Errand(ErrandKind, CertId),
    /// A given certificate was pushed to its new holder, at a sequence number.
    Push(CertId, u32),
    /// The provider is to send the whole certificate, for a command or by itself.
    Fetch(CertId, Option<u64>),
    /// The provider is to put its word in place of the certificate's history.
    Checkpoint(CertId),
    /// The provider is to tell what this node holds.
    /// Of certificates above this one.
    Held { after: CertId },
}

/// What an operator asks of the holdings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldingsCommand {
    Gift {
        cert: CertId,
        to: Key,
    },
    /// Take back what this node paid for and may recall.
    Recall {
        cert: CertId,
    },
    /// Cut a certificate into parts that have everything of it once.
    Split {
        cert: CertId,
        parts: Vec<Area>,
        /// The number of a part to give away, and to whom: one step for whoever asks.
        give: Option<(u32, Key)>,
    },
    /// Join certificates of one provider, class and set of features into one.
    Merge {
        certs: Vec<CertId>,
    },
    /// Get a certificate that this node holds from its provider.
    Fetch {
        cert: CertId,
        provider: Key,
    },
    /// Take in a certificate that somebody kept as a file.
    Import {
        certificate: Box<Certificate>,
        /// Who must have issued it, where this node does not know its provider.
        provider: Option<Key>,
    },
}
