//! What falls due in a trade.

/// A time at which a role of a trade does something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// The seller's terms are due.
    Terms,
    /// The buyer's consent is due.
    Accept,
    /// The consent elapses: the funding is due.
    Funding,
    /// No conflicting lock was heard for long enough.
    Quiet,
    /// The buyer's key is due.
    Key,
    DeliveryStarts,
    DeliveryEnds,
}

impl Deadline {
    /// Stable name, for traces and counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Terms => "trade_terms",
            Self::Accept => "trade_accept",
            Self::Funding => "trade_funding",
            Self::Quiet => "trade_quiet",
            Self::Key => "trade_key",
            Self::DeliveryStarts => "trade_delivery_starts",
            Self::DeliveryEnds => "trade_delivery_ends",
        }
    }
}
