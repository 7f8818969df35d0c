//! Why the engine wants to be woken.

use crate::settlement::Deadline;

/// What is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An epoch ends: its set is closed and matched.
    EpochEnd,
    SignOrders,
    SignRoot,
    Trade(Deadline),
    /// A trade asks again.
    TradeRetry,
    /// A trade does what fell due while the node was away.
    TradeResume,
    /// Trades that wait for others to share a transaction with go on without them.
    TradeBatch,
    Register,
    Holdings,
    Leases,
    Pools,
    Contact,
    /// Peers are asked for their time.
    Clocks,
}

impl Timer {
    /// Stable name, for traces and counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EpochEnd => "epoch_end",
            Self::SignOrders => "epoch_sign",
            Self::SignRoot => "epoch_root",
            Self::Trade(deadline) => deadline.name(),
            Self::TradeRetry => "trade_retry",
            Self::TradeResume => "trade_resume",
            Self::TradeBatch => "trade_batch",
            Self::Register => "register",
            Self::Holdings => "holdings",
            Self::Leases => "leases",
            Self::Pools => "pools",
            Self::Contact => "contact",
            Self::Clocks => "clocks",
        }
    }
}
