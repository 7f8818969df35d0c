//! Forgetting what no longer matters, so that a wallet of ten thousand trades costs what an
//! empty one does.
//!
//! bdk keeps every transaction and chain block for ever, and walks all of them for each
//! question about coins. A transaction whose own outputs were all spent, that itself and
//! whose spenders are deeper than any reorganisation that the protocol undoes, cannot change
//! an answer any more. Its rows are deleted and bdk starts again from the rest.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::error::WalletError;
use super::persist;
use super::{Wallet, load_bdk};
use crate::store::Record;

/// Confirmations from which a transaction is settled for good: a day of chain blocks. No fact
/// is checked again below this depth.
const FINAL_DEPTH: u32 = 144;
/// How long a finished FUND is remembered, in chain blocks: longer than any timelock of any
/// network, so the same terms can never be funded twice.
const FUND_KEPT_BLOCKS: u32 = 2_016;
/// Chain blocks and own transactions taken in between two prunings. A pruning costs about as
/// much as opening the wallet.
const PRUNE_EVERY: u32 = 1_008;

impl Wallet {
    /// Prunes once enough has come in since the last time.
    pub(super) fn prune_if_due(&mut self) -> Result<(), WalletError> {
        if self.since_prune < PRUNE_EVERY {
            return Ok(());
        }
        self.since_prune = 0;
        self.prune()
    }

    fn prune(&mut self) -> Result<(), WalletError> {
        let mut rows = self.forget_old_funds();
        let gone = self.forgettable();
        rows.extend(self.history_of(&gone)?);
        rows.extend(self.rows_to_forget(&gone));
        rows.extend(self.checkpoints_to_forget(&gone));
        if rows.is_empty() {
            return Ok(());
        }
        self.commit(rows)?;
        self.reload()
    }

    /// Starts bdk again from the rows; it can forget in no other way.
    pub(super) fn reload(&mut self) -> Result<(), WalletError> {
        let reloaded = load_bdk(&self.keys, self.persist.as_ref(), self.lookahead)?;
        self.bdk = reloaded.ok_or(WalletError::Damaged("no chain rows"))?;
        self.spent = persist::Marks::load(self.persist.as_ref())?.spent;
        self.mark_journaled_addresses();
        self.refresh_balance();
        Ok(())
    }

    /// Transactions that cannot matter any more, each with whether it ever confirmed.
    fn forgettable(&self) -> BTreeMap<Txid, bool> {
        let graph = self.bdk.tx_graph();
        let mut gone = BTreeMap::new();
        for node in graph.full_txs() {
            if self.is_final(node.txid) {
                if self.unspent_outputs(node.txid, &node.tx).next().is_none() {
                    gone.insert(node.txid, true);
                }
            } else if self.lost_its_coins(&node.tx) {
                gone.insert(node.txid, false);
            }
        }
        gone
    }

    /// Own outputs that no final transaction spends.
    fn unspent_outputs<'a>(
        &'a self,
        txid: Txid,
        tx: &'a Transaction,
    ) -> impl Iterator<Item = OutPoint> + 'a {
        let own = (0u32..)
            .zip(&tx.output)
            .filter(|(_, output)| self.bdk.is_mine(output.script_pubkey.clone()));
        own.map(move |(vout, _)| OutPoint { txid, vout })
            .filter(|outpoint| !self.spent.contains(outpoint) && !self.is_spent_finally(*outpoint))
    }

    /// Whether a final transaction took one of its coins.
    fn lost_its_coins(&self, tx: &Transaction) -> bool {
        tx.input.iter().any(|input| {
            let coin = input.previous_output;
            self.spent.contains(&coin) || self.is_spent_finally(coin)
        })
    }

    fn is_spent_finally(&self, outpoint: OutPoint) -> bool {
        self.bdk.tx_graph().outspends(outpoint).iter().any(|txid| self.is_final(*txid))
    }

    fn is_final(&self, txid: Txid) -> bool {
        self.confirmed_at(txid).is_some_and(|height| self.depth(height) >= FINAL_DEPTH)
    }

    pub(super) fn depth(&self, height: u32) -> u32 {
        self.tip_height().saturating_add(1).saturating_sub(height)
    }

    /// Rows to delete, and rows that keep the coins of those that stay marked as spent, and the
    /// inputs of those that stay known.
    fn rows_to_forget(&self, gone: &BTreeMap<Txid, bool>) -> Vec<Record> {
        let graph = self.bdk.tx_graph();
        let mut rows = Vec::new();
        for (txid, is_final) in gone {
            let Some(node) = graph.get_tx_node(*txid) else { continue };
            rows.extend(persist::forget_tx(*txid, node.anchors.iter()));
            for coin in node.tx.input.iter().map(|input| input.previous_output) {
                rows.push(persist::forget_txout(coin));
                let stays = graph.get_tx(coin.txid).is_some() && !gone.contains_key(&coin.txid);
                if *is_final && stays {
                    rows.push(persist::mark_spent(coin));
                }
            }
            for (vout, output) in (0u32..).zip(&node.tx.output) {
                let outpoint = OutPoint { txid: *txid, vout };
                rows.push(persist::forget_spent(outpoint));
                let spenders = graph.outspends(outpoint);
                if spenders.iter().any(|spender| !gone.contains_key(spender)) {
                    rows.push(persist::keep_txout(outpoint, output));
                }
            }
        }
        rows
    }

    /// Checkpoints below [`FINAL_DEPTH`] that anchor nothing that stays.
    fn checkpoints_to_forget(&self, gone: &BTreeMap<Txid, bool>) -> Vec<Record> {
        let anchors = self.bdk.tx_graph().all_anchors();
        let anchored: BTreeSet<u32> = anchors
            .iter()
            .filter(|(txid, _)| !gone.contains_key(*txid))
            .flat_map(|(_, anchors)| anchors.iter().map(|anchor| anchor.block_id.height))
            .collect();
        let old = self.bdk.latest_checkpoint();
        old.iter()
            .map(|checkpoint| checkpoint.height())
            .filter(|height| *height > 0 && self.depth(*height) > FINAL_DEPTH)
            .filter(|height| !anchored.contains(height))
            .map(persist::forget_checkpoint)
            .collect()
    }

    fn history_of(&self, gone: &BTreeMap<Txid, bool>) -> Result<Vec<Record>, WalletError> {
        let confirmed = gone.iter().filter(|(_, is_final)| **is_final);
        let entries = confirmed.filter_map(|(txid, _)| self.history_entry(*txid));
        entries.map(|entry| persist::history_row(&entry)).collect()
    }

    /// Forgets FUNDs that ended [`FUND_KEPT_BLOCKS`] ago.
    fn forget_old_funds(&mut self) -> Vec<Record> {
        let tip_height = self.tip_height();
        let is_over = |height: u32| tip_height.saturating_sub(height) >= FUND_KEPT_BLOCKS;
        let over = self.entries.over().filter(|(_, at_height)| is_over(*at_height));
        let over: Vec<_> = over.map(|(id, _)| id).collect();
        over.into_iter().map(|id| self.forget(id)).collect()
    }
}
