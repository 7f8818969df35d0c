//! What members of a pool say to each other, what people ask of it, and what it tells them.

use serde::{Deserialize, Serialize};

use super::objects::Pool;
use crate::certificate::Certificate;
use crate::ids::{Key, PoolId, TermsHash};
use crate::settlement::fees::FeeLimit;
use crate::settlement::objects::Row;
use crate::wire::{Envelope, Verified};

/// What members (M) and the creator (C) of a pool ask each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolRequest {
    /// M→C, again and again while it waits: I pledge so much. Answer: `Members`.
    Join {
        pool: PoolId,
        share_sat: u64,
        /// Single-use refund key of its contract, x-only.
        refund_xonly: [u8; 32],
    },
    /// M→C: my pledge is withdrawn. Answer: `Noted`.
    Leave(PoolId),
    /// C→M: the bid was matched, and the seller has signed. Answer: `Accept`.
    Terms {
        pool: PoolId,
        row: Row,
        /// The certificate on sale; at a primary sale its Issue alone.
        title: Box<Certificate>,
        terms: Envelope,
        /// In an all-or-nothing pool, what each pays for its part of the transaction, sat/kvB.
        feerate_sat_kvb: Option<u64>,
    },
    /// C→M: everybody has signed, in the order of the terms. Answer: `Noted`.
    Agreed { terms_hash: TermsHash, accepts: Vec<Envelope> },
}

/// What they answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolReply {
    /// Who has pledged how much, the creator first: at most 8.
    Members(Vec<(Key, u64)>),
    /// Signed Accept.
    Accept(Envelope),
    Noted,
}

/// What was asked about a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolPurpose {
    Join(PoolId),
    Leave(PoolId),
    /// The consent to these terms.
    Terms(PoolId, TermsHash),
    /// Nothing: it was told that all agree.
    Agreed(PoolId, TermsHash),
}

/// What an operator asks.
#[derive(Debug, Clone, PartialEq)]
pub enum PoolCommand {
    /// Found a pool: creator, `v` and nonce are filled in.
    Create { pool: Box<Pool>, share_sat: u64, fees: FeeLimit },
    /// Take an invitation.
    Join { pool: Box<Verified<Pool>>, share_sat: u64, fees: FeeLimit },
    /// Withdraw the pledge; of its creator, end the pool.
    Leave(PoolId),
}

/// A pool moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolNews {
    pub pool: PoolId,
    /// New stage, or the reason code of its end.
    pub stage: String,
}
