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
    /// Hash of the last block delivered; of the best block before the first delivery.
    pub tip: Option<BlockHash>,
    pub height: u32,
    /// Median time past of that block, unix seconds.
    pub median_time_past_s: u32,
    /// Fee estimates: (target in chain blocks, sat per 1,000 virtual bytes).
    pub feerates: Vec<(u16, u64)>,
    /// Whether more blocks follow at once: the source is catching up or scans again, so
    /// neither the height nor the absence of a transaction means anything yet.
    pub behind: bool,
}

/// A view of the chain that is asked again and again.
///
/// A source never gives up: after an error the caller polls again, and what was missed
/// meanwhile arrives then.
#[async_trait]
pub trait ChainSource: Send {
    /// What changed since the last poll; `None` if nothing did. One call delivers a
    /// bounded part, so a caller that is behind polls again at once.
    ///
    /// # Errors
    /// Whatever went wrong, the next call asks again; no update is lost.
    async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError>;

    /// Hands a transaction to the network. A transaction that the mempool or the chain
    /// already holds counts as sent.
    ///
    /// # Errors
    /// [`ChainError::Rejected`] carries the node's own words.
    async fn broadcast(&mut self, tx: &Transaction) -> Result<Txid, ChainError>;

    /// Lets the next polls deliver again the connected blocks from `height` on, and the
    /// whole mempool: for scripts that are watched only now.
    ///
    /// # Errors
    /// None from the sources of this crate: the request is only remembered.
    async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError>;

    /// A short name for logs and `status`.
    fn name(&self) -> &str;
}
