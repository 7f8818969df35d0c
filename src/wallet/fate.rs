//! Which coins are still there, and which transactions can still confirm.
//!
//! A transaction is over as soon as the chain has given one of its coins away for good: to a
//! version of itself, to what cancels it, or to anything else. Everything that waits for it
//! ends then, so no coin stays locked for a transaction that cannot come any more.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};

use super::Wallet;
use super::entry::{End, Entry, Fund, Kind, row};
use super::error::WalletError;
use crate::store::Record;

/// Confirmations after which nothing is undone: deeper reorganisations are not undone
/// anywhere in the protocol either.
pub(super) const FINAL_CONFIRMATIONS: u32 = 6;

impl Wallet {
    /// Height of the chain block since which a coin is gone: it was spent in it, or the
    /// transaction that makes it lost a coin of its own in it.
    pub(super) fn gone_at(&self, coin: OutPoint) -> Option<u32> {
        if self.spent.contains(&coin) {
            return Some(0);
        }
        let spenders = self.bdk.tx_graph().outspends(coin);
        if let Some(height) = spenders.iter().filter_map(|txid| self.confirmed_at(*txid)).min() {
            return Some(height);
        }
        let parent = self.unconfirmed(coin.txid)?;
        parent.input.iter().filter_map(|input| self.gone_at(input.previous_output)).min()
    }

    /// A known transaction that is in no chain block.
    pub(super) fn unconfirmed(&self, txid: Txid) -> Option<Arc<Transaction>> {
        let tx = self.bdk.tx_graph().get_tx(txid)?;
        (!self.is_confirmed(txid)).then_some(tx)
    }

    /// Whether a coin will hardly come to be: what makes it is being replaced.
    pub(super) fn is_doomed(&self, coin: OutPoint) -> bool {
        let Some(parent) = self.unconfirmed(coin.txid) else { return false };
        let is_replaced =
            |fund: &Fund| fund.cancel.is_some() && fund.tx.compute_txid() == coin.txid;
        let has_rival = self.bdk.tx_graph().direct_conflicts(&parent).next().is_some();
        self.entries.live().any(|(_, fund)| is_replaced(fund))
            || (has_rival && self.bdk.get_tx(coin.txid).is_none())
            || parent.input.iter().any(|input| self.is_doomed(input.previous_output))
    }

    /// How an entry has ended, and at which height, if it has.
    fn end_of(&self, fund: &Fund) -> Option<(u32, End)> {
        let height = fund.inputs().filter_map(|coin| self.gone_at(coin)).min()?;
        if self.depth(height) < FINAL_CONFIRMATIONS {
            return None;
        }
        Some((height, if self.is_paid(fund) { End::Paid } else { End::Dead }))
    }

    /// Whether a confirmed transaction pays what a FUND has to pay.
    pub(super) fn is_paid(&self, fund: &Fund) -> bool {
        let graph = self.bdk.tx_graph();
        let spenders = fund.inputs().flat_map(|coin| graph.outspends(coin));
        spenders
            .filter(|txid| self.is_confirmed(**txid))
            .filter_map(|txid| graph.get_tx(*txid))
            .any(|tx| fund.is_paid_by(&tx))
    }

    /// Ends what is settled for good; returns the rows that say so.
    pub(super) fn end_settled(&mut self) -> Result<Vec<Record>, WalletError> {
        let ended: Vec<_> = self
            .entries
            .live()
            .filter_map(|(id, fund)| Some((id, fund.kind, self.end_of(fund)?)))
            .collect();
        let mut rows = Vec::new();
        for (id, kind, (at_height, end)) in ended {
            match kind {
                Kind::Payment { .. } => rows.push(self.forget(id)),
                Kind::Terms => {
                    let entry = Entry::Over { at_height, end };
                    rows.push(row(&id, &entry)?);
                    self.entries.insert(id, entry);
                }
            }
        }
        Ok(rows)
    }
}
