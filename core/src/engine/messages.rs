//! Messages between nodes and what the answers to them are about: one line for each
//! component, which owns what it says.

use serde::{Deserialize, Serialize};

use super::courier::{CourierReply, CourierRequest};
use super::holdings::HoldingsPurpose;
use super::kernel::Answer;
use super::leases::LeasePurpose;
use super::pools::{PoolPurpose, PoolReply, PoolRequest};
use super::register::{RegisterPurpose, RegisterReply, RegisterRequest};
use super::sync::SyncPurpose;
use super::trades::{TradePurpose, TradeReply, TradeRequest};
use super::witness::{WitnessReply, WitnessRequest};

/// Requests of `settle/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleRequest {
    Trade(TradeRequest),
    Register(RegisterRequest),
    Courier(CourierRequest),
    Witness(WitnessRequest),
    Pool(PoolRequest),
}

/// Answers of `settle/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleReply {
    Trade(TradeReply),
    Register(RegisterReply),
    Courier(CourierReply),
    Witness(WitnessReply),
    /// No, with a stable reason code.
    Refused {
        /// Reason code, at most 64 bytes.
        code: String,
    },
    Pool(PoolReply),
}

/// What a request of ours was about: it routes the answer to who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Trade(TradePurpose),
    Register(RegisterPurpose),
    Holdings(HoldingsPurpose),
    Lease(LeasePurpose),
    Sync(SyncPurpose),
    Pool(PoolPurpose),
}

/// Conversions between what a component owns and what the router passes on.
macro_rules! wraps {
    ($($outer:ident { $($variant:ident($inner:ty)),* $(,)? })*) => {
        $($(impl From<$inner> for $outer {
            fn from(inner: $inner) -> Self {
                Self::$variant(inner)
            }
        }

        impl TryFrom<$outer> for $inner {
            type Error = ();

            fn try_from(outer: $outer) -> Result<Self, ()> {
                if let $outer::$variant(inner) = outer { Ok(inner) } else { Err(()) }
            }
        })*)*
    };
}
pub(super) use wraps;

wraps! {
    SettleRequest {
        Trade(TradeRequest),
        Register(RegisterRequest),
        Courier(CourierRequest),
        Witness(WitnessRequest),
        Pool(PoolRequest),
    }
    SettleReply {
        Trade(TradeReply),
        Register(RegisterReply),
        Courier(CourierReply),
        Witness(WitnessReply),
        Pool(PoolReply),
    }
    Purpose {
        Trade(TradePurpose),
        Register(RegisterPurpose),
        Holdings(HoldingsPurpose),
        Lease(LeasePurpose),
        Sync(SyncPurpose),
        Pool(PoolPurpose),
    }
}

impl SettleReply {
    /// A component's answer, or its refusal.
    pub fn of<T: Into<Self>>(result: Result<T, &'static str>) -> Self {
        result.map_or_else(|code| Self::Refused { code: code.to_owned() }, Into::into)
    }

    /// The answer for who asked; that of another component answers nothing.
    pub fn told<T: TryFrom<Self>>(result: Result<Self, String>) -> Answer<T> {
        match result {
            Ok(Self::Refused { code }) => Answer::Refused(code),
            Ok(reply) => T::try_from(reply).map_or(Answer::None, Answer::Said),
            Err(_) => Answer::None,
        }
    }
}
