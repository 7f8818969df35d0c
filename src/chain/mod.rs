//! Where chain facts come from: one trait, several sources.

pub mod devchain;

use std::sync::Arc;

use bitcoin::{Block, BlockHash, Transaction};

/// What changed on the chain since the last update, in the order in which to apply it:
/// first disconnect, then connect, then look at the mempool.
#[derive(Debug, Clone, Default)]
pub struct ChainUpdate {
    /// Blocks that left the best chain, highest first.
    pub disconnected: Vec<(u32, Arc<Block>)>,
    /// Blocks that joined the best chain, lowest first. A light source gives only those
    /// that its filters matched.
    pub connected: Vec<(u32, Arc<Block>)>,
    /// Every transaction in the mempool that was not there at the last update.
    pub mempool: Vec<Transaction>,
    /// Hash of the best block.
    pub tip: Option<BlockHash>,
    /// Height of the best block.
    pub height: u32,
    /// Median time past of the best block, unix seconds.
    pub median_time_past_s: u32,
    /// Fee estimates: (target in chain blocks, sat per 1,000 virtual bytes).
    pub feerates: Vec<(u16, u64)>,
}
