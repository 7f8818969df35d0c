//! The blocks delivered last, and the way from there to a server's best chain.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Block, BlockHash};
use serde_json::{Value, json};

use super::client::{NOT_FOUND, OUT_OF_RANGE, RpcClient, malformed};
use crate::chain::ChainError;

/// Most blocks in one update: on mainnet some 200 MB in memory at worst.
const MAX_BLOCKS_PER_POLL: u32 = 32;
/// Block hashes remembered: two weeks of chain blocks, deeper than any reorganisation.
const MAX_REMEMBERED: usize = 2_016;
/// Blocks kept whole, to tell what left the chain even to a server that forgot them, and to
/// deliver again what a scan for new terms asks for.
const MAX_KEPT_BLOCKS: usize = 10;

#[derive(Debug, Clone)]
struct Seen {
    height: u32,
    hash: BlockHash,
    block: Option<Arc<Block>>,
}

/// The blocks delivered last, lowest first, and the height to deliver next.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    seen: VecDeque<Seen>,
    pub(super) next: u32,
}

impl Branch {
    /// Above the highest checkpoint, or at a height if there is none.
    pub(super) fn above(checkpoints: &[(u32, BlockHash)], start_height: u32) -> Self {
        let mut seen: VecDeque<Seen> =
            checkpoints.iter().map(|&(height, hash)| Seen { height, hash, block: None }).collect();
        seen.make_contiguous().sort_by_key(|seen| seen.height);
        let next = seen.back().map_or(start_height, |top| top.height + 1);
        Self { seen, next }
    }

    /// Whether nothing above genesis was delivered.
    pub(super) fn is_unborn(&self) -> bool {
        self.seen.back().is_none_or(|top| top.height == 0) && self.next <= 1
    }

    pub(super) fn tip(&self) -> Option<BlockHash> {
        self.seen.back().filter(|top| top.height + 1 == self.next).map(|top| top.hash)
    }

    pub(super) fn height(&self) -> Option<u32> {
        self.tip().and(self.next.checked_sub(1))
    }

    /// Steps back to the last block that is on the server's best chain; gives what was
    /// left, highest first. A block that nobody has any more is left out: whoever compares
    /// hashes at a height notices (see [`crate::chain::Watcher`]).
    pub(super) fn leave_stale(
        &mut self,
        client: &RpcClient,
        tip_height: u32,
        start_height: u32,
    ) -> Result<Vec<(u32, Arc<Block>)>, ChainError> {
        let mut left = Vec::new();
        let mut lowest = self.next;
        while let Some(top) = self.seen.back().cloned() {
            if top.height <= tip_height && hash_at(client, top.height)? == Some(top.hash) {
                self.next = top.height + 1;
                return Ok(left);
            }
            self.seen.pop_back();
            lowest = top.height;
            let block = match top.block {
                Some(block) => Some(block),
                None if left.len() < MAX_REMEMBERED => match block_by_hash(client, top.hash) {
                    Err(ChainError::Pruned) => None,
                    asked => asked?,
                },
                None => None,
            };
            let Some(block) = block else { continue };
            self.insert_parent(top.height, block.header.prev_blockhash);
            left.push((top.height, block));
        }
        if lowest != self.next || !left.is_empty() {
            // Not one block is shared: the server's chain began anew.
            self.next = lowest.min(start_height);
        }
        Ok(left)
    }

    /// The parent of a stale block may be stale as well, though the caller named no hash
    /// for it.
    fn insert_parent(&mut self, height: u32, hash: BlockHash) {
        let Some(below) = height.checked_sub(1) else {
            return;
        };
        if self.seen.back().is_some_and(|top| top.height < below) {
            self.seen.push_back(Seen { height: below, hash, block: None });
        }
    }

    /// Forgets what was delivered from `height` on. Gives those blocks, if all of them are kept
    /// whole; the caller has seen that they are on the best chain.
    pub(super) fn rewind(&mut self, height: u32) -> Option<Vec<(u32, Arc<Block>)>> {
        let mut kept = VecDeque::new();
        let mut are_whole = true;
        while let Some(top) = self.seen.pop_back_if(|top| top.height >= height) {
            match top.block {
                Some(block) => kept.push_front((top.height, block)),
                None => are_whole = false,
            }
        }
        are_whole &= kept.len() == self.next.saturating_sub(height) as usize;
        self.next = self.next.min(height);
        if !are_whole {
            return None;
        }
        for (_, block) in &kept {
            self.push(block.block_hash(), Arc::clone(block));
        }
        Some(kept.into())
    }

    /// Delivers the next blocks of the best chain, up to `tip_height`.
    pub(super) fn follow(
        &mut self,
        client: &RpcClient,
        tip_height: u32,
    ) -> Result<Vec<(u32, Arc<Block>)>, ChainError> {
        let end = tip_height.saturating_add(1).min(self.next.saturating_add(MAX_BLOCKS_PER_POLL));
        let heights: Vec<Vec<Value>> = (self.next..end).map(|h| vec![json!(h)]).collect();
        let mut connected = Vec::new();
        for hash in client.batch_blocking::<BlockHash>("getblockhash", &heights)? {
            let hash = match hash {
                Ok(hash) => hash,
                // The chain became shorter since we asked for its height.
                Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(block) = block_by_hash(client, hash)? else {
                break;
            };
            // The chain moved between the calls: the next poll finds the fork.
            if self.tip().is_some_and(|tip| tip != block.header.prev_blockhash) {
                break;
            }
            connected.push((self.next, block.clone()));
            self.push(hash, block);
        }
        Ok(connected)
    }

    fn push(&mut self, hash: BlockHash, block: Arc<Block>) {
        self.seen.push_back(Seen { height: self.next, hash, block: Some(block) });
        self.next += 1;
        if let Some(old) = self.seen.len().checked_sub(MAX_KEPT_BLOCKS + 1) {
            self.seen[old].block = None;
        }
        while self.seen.len() > MAX_REMEMBERED {
            self.seen.pop_front();
        }
    }
}

pub(super) fn hash_at(client: &RpcClient, height: u32) -> Result<Option<BlockHash>, ChainError> {
    match client.call_blocking("getblockhash", &[json!(height)]) {
        Ok(hash) => Ok(Some(hash)),
        Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn block_by_hash(client: &RpcClient, hash: BlockHash) -> Result<Option<Arc<Block>>, ChainError> {
    let hex: String = match client.call_blocking("getblock", &[json!(hash), json!(0)]) {
        Ok(hex) => hex,
        Err(ChainError::Rpc { code: NOT_FOUND, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let block: Block = deserialize_hex(&hex).map_err(malformed)?;
    match block.block_hash() == hash {
        true => Ok(Some(Arc::new(block))),
        false => Err(ChainError::Malformed(format!("another block than {hash}"))),
    }
}
