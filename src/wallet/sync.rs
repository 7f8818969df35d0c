//! Following the chain.

use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::BlockId;
use bitcoin::{Block, Transaction};

use super::Wallet;
use super::error::WalletError;
use super::persist::forget_checkpoint;
use crate::chain::ChainUpdate;

impl Wallet {
    /// Takes in what changed on the chain: leaves the disconnected blocks, joins the connected
    /// ones, then looks at the mempool, whose transactions were seen at `seen_at_s` (unix
    /// seconds). Applying an update twice changes nothing.
    ///
    /// # Errors
    /// [`WalletError::Disconnected`] when a block does not follow from
    /// [`Wallet::checkpoints`]: the chain source then has to begin again from these.
    pub fn apply(&mut self, update: &ChainUpdate, seen_at_s: u64) -> Result<(), WalletError> {
        self.rewind(&update.disconnected, seen_at_s)?;
        if let Some((height, _)) = update.connected.first() {
            self.note_first(*height)?;
        }
        for (height, block) in &update.connected {
            self.connect(*height, block)?;
        }
        if let Some(tip) = update.tip.filter(|_| update.height > self.tip_height()) {
            self.push_checkpoint(update.height, tip)?;
        }
        for tx in &update.mempool {
            self.see(tx, seen_at_s);
        }
        self.commit(Vec::new())?;
        self.adopt_seen()?;
        self.follow_joint(update)?;
        let ended = self.end_settled()?;
        if !ended.is_empty() {
            self.commit(ended)?;
            self.refresh_balance();
        }
        self.prune_if_due()
    }

    fn connect(&mut self, height: u32, block: &Block) -> Result<(), WalletError> {
        let tip = self.bdk.latest_checkpoint();
        let below = tip.floor_at(height.saturating_sub(1));
        let is_gap = 0 < height && height < tip.height() && tip.get(height).is_none();
        let joined = match below {
            // Read again where pruning left no checkpoint: it stands between those that stayed.
            Some(_) if is_gap => {
                let id = BlockId { height, hash: block.block_hash() };
                let chain = Some(tip.insert(id));
                self.bdk.apply_update(Update { chain, ..Update::default() }).is_ok()
                    && self.bdk.apply_block_connected_to(block, height, id).is_ok()
            }
            // A light source leaves out blocks without anything of interest.
            Some(cp) if cp.height() + 1 < height => {
                self.bdk.apply_block_connected_to(block, height, cp.block_id()).is_ok()
            }
            _ => self.bdk.apply_block(block, height).is_ok(),
        };
        if joined { Ok(()) } else { Err(WalletError::Disconnected { height }) }
    }

    /// Leaves the given blocks, of which those count that the wallet had joined. Their
    /// transactions are unconfirmed again.
    fn rewind(
        &mut self,
        disconnected: &[(u32, Arc<Block>)],
        seen_at_s: u64,
    ) -> Result<(), WalletError> {
        let tip = self.bdk.latest_checkpoint();
        let is_joined = |height: u32, block: &Block| {
            height > 0 && tip.get(height).is_some_and(|cp| cp.hash() == block.block_hash())
        };
        let left: Vec<_> = disconnected.iter().filter(|(h, b)| is_joined(*h, b)).collect();
        let Some(fork_height) = left.iter().map(|(height, _)| *height).min() else {
            return Ok(());
        };
        let forgotten = tip
            .iter()
            .take_while(|cp| cp.height() >= fork_height)
            .map(|cp| forget_checkpoint(cp.height()))
            .collect();
        self.commit(forgotten)?;
        // bdk replaces chain blocks but cannot drop them.
        self.reload()?;
        for tx in left.iter().flat_map(|(_, block)| &block.txdata).filter(|tx| !tx.is_coinbase()) {
            self.see(tx, seen_at_s);
        }
        Ok(())
    }

    /// Notes an unconfirmed transaction.
    pub(super) fn see(&mut self, tx: &Transaction, seen_at_s: u64) {
        let seen_at_s = self.after_what_it_replaces(tx, seen_at_s);
        self.bdk.apply_unconfirmed_txs([(tx.clone(), seen_at_s)]);
    }

    /// bdk believes the conflicting transaction that was seen last. What the wallet itself
    /// signed last has to win, also within one second and after the clock was set back.
    fn after_what_it_replaces(&self, tx: &Transaction, seen_at_s: u64) -> u64 {
        let is_wanted = self.entries.live().any(|(_, fund)| fund.wanted() == tx);
        if !is_wanted {
            return seen_at_s;
        }
        let graph = self.bdk.tx_graph();
        let replaced = graph.direct_conflicts(tx);
        let last_seen = replaced.filter_map(|(_, txid)| graph.get_tx_node(txid)?.last_seen).max();
        last_seen.map_or(seen_at_s, |last| seen_at_s.max(last.saturating_add(1)))
    }
}
