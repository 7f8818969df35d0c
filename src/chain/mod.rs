//! Where chain facts come from: one trait, several sources.
//!
//! A source delivers what changed ([`ChainUpdate`]), a [`Watcher`] reduces it to the
//! transactions that concern this node. A Bitcoin Core node and the devchain server are
//! both read by [`rpc::RpcSource`]; a devchain in the same process by
//! [`devchain::DevchainSource`].

pub mod devchain;
mod error;
pub mod rpc;
mod watcher;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, Transaction, Txid};

pub use error::{ChainError, RejectKind};
pub use watcher::{MAX_WATCHED, Relevant, WatchFull, Watcher};

/// Confirmation targets, in chain blocks, for which a source estimates a feerate.
pub const FEE_TARGETS: [u16; 5] = [2, 3, 6, 12, 144];

/// Lowest feerate a source reports, sat per 1,000 virtual bytes: 1 sat/vB. Core before
/// 29.1 relays nothing cheaper, and older nodes stay around for years.
pub const FEE_FLOOR_SAT_KVB: u64 = 1_000;

/// Why what a source delivers is not how things stand now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// More blocks follow at once: it is catching up or scans again.
    Reading {
        /// Height of its best block.
        to: u32,
    },
    /// The server itself has not downloaded the chain yet.
    Downloading {
        /// Height to which it knows headers.
        headers: u32,
    },
    /// The last block is older than the network allows: the server has lost its peers, or the
    /// clock of this machine is wrong.
    Old {
        /// Median time past of that block, unix seconds.
        median_time_past_s: u32,
    },
}

impl Behind {
    /// The stable reason code.
    pub const CODE: &'static str = "chain.behind";
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading { to } => write!(f, "its blocks are being read, of {to}"),
            Self::Downloading { headers } => {
                write!(f, "it is still downloading the chain, of which it knows {headers} headers")
            }
            Self::Old { .. } => f.write_str(
                "its last block is hours old: it has no peers, or the clock of this machine is wrong",
            ),
        }
    }
}

/// What changed on the chain since the last update, in the order in which to apply it:
/// first disconnect, then connect, then look at the mempool.
///
/// `tip`, `height` and `median_time_past_s` describe the last block *delivered*, so that
/// a height never runs ahead of the blocks it stands for while a source catches up.
#[derive(Debug, Clone, Default)]
pub struct ChainUpdate {
    /// Blocks that left the best chain, highest first.
    pub disconnected: Vec<(u32, Arc<Block>)>,
    /// Blocks that joined the best chain, lowest first. A light source gives only those
    /// that its filters matched.
    pub connected: Vec<(u32, Arc<Block>)>,
    /// Every transaction in the mempool that was not there at the last update.
    pub mempool: Vec<Transaction>,
    /// Ids of all that is in the mempool, once all of it has been delivered: what is missing has
    /// left it.
    pub waiting: Option<Arc<HashSet<Txid>>>,
    /// Hash of the last block delivered; of the best block before the first delivery.
    pub tip: Option<BlockHash>,
    pub height: u32,
    /// Median time past of that block, unix seconds.
    pub median_time_past_s: u32,
    /// Time in that block's own header, unix seconds.
    pub tip_time_s: u32,
    /// Fee estimates, ascending by target: (target in chain blocks, sat per 1,000 virtual
    /// bytes). Empty if the source has none.
    pub feerates: Vec<(u16, u64)>,
    /// Feerate under which the source's mempool takes nothing, sat per 1,000 virtual bytes.
    pub least_feerate_sat_kvb: u64,
    /// Set while neither the height nor the absence of a transaction means anything.
    pub behind: Option<Behind>,
}

/// A view of the chain that is asked again and again.
///
/// A source never gives up: after an error the caller polls again, and what was missed
/// meanwhile arrives then.
#[async_trait]
pub trait ChainSource: Send {
    /// What changed since the last poll; `None` if nothing did. One call delivers a
    /// bounded part, so a caller that is behind polls again at once. The first answer after an
    /// error describes the tip even if nothing changed meanwhile.
    ///
    /// # Errors
    /// Whatever went wrong, the next call asks again; no update is lost.
    async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError>;

    /// A way to send transactions that waits for no poll.
    fn sender(&self) -> Arc<dyn TxSender>;

    /// Lets the next polls deliver again the connected blocks from `height` on, and what is in
    /// the mempool: for scripts that are watched only now.
    ///
    /// # Errors
    /// None from the sources of this crate: the request is only remembered.
    async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError>;

    /// A short name for logs and `status`.
    fn name(&self) -> &str;
}

/// Hands transactions to the network.
#[async_trait]
pub trait TxSender: Send + Sync {
    /// Sends a transaction. One that the mempool or the chain already holds counts as sent.
    ///
    /// # Errors
    /// [`ChainError::Rejected`] carries the node's own words.
    async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError>;
}
