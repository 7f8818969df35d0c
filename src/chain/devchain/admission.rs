//! The way of a transaction into the mempool.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction, Txid};

use super::chain::{Devchain, sigop_cost};
use super::consensus::sequence_locks_reached;
use super::consensus::{Coin, Place, check_inputs, check_transaction, is_final};
use super::mempool::Mempool;
use super::policy::{self, Accepted, Policy};
use super::reject::Reject;
use super::script::verify_scripts;

/// Which rules a transaction for the mempool must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// All, as for one that is sent to us.
    Relay,
    /// Those of a block only, for one that was in a block or in the mempool already.
    Consensus,
}

/// A transaction found good, and what gives way to it.
pub(super) struct Plan {
    accepted: Accepted,
    evicted: BTreeSet<Txid>,
}

impl Devchain {
    /// Takes a transaction into the mempool.
    ///
    /// # Errors
    /// Core's reason; among them `txn-already-in-mempool` and `txn-already-known`
    /// (confirmed), which a sender may count as success.
    pub fn submit_tx(&mut self, tx: Transaction) -> Result<Txid, Reject> {
        let plan = self.evaluate(&tx, Rules::Relay)?;
        let txid = plan.accepted.txid;
        self.admit(tx, plan);
        match self.trim(txid) {
            true => Ok(txid),
            false => Err(Reject::new("mempool full")),
        }
    }

    /// What [`Self::submit_tx`] would say, without doing it.
    ///
    /// # Errors
    /// As there.
    pub fn test_tx(&self, tx: &Transaction) -> Result<Accepted, Reject> {
        self.evaluate(tx, Rules::Relay).map(|plan| plan.accepted)
    }

    pub(super) fn admit(&mut self, tx: Transaction, plan: Plan) {
        for txid in plan.evicted {
            self.mempool.remove(&txid);
        }
        let (height, time_s) = (self.height(), self.tip_time_s());
        self.mempool.insert(tx, plan.accepted.fee_sat, height, time_s);
    }

    /// Evicts the cheapest packages until the mempool is within its bounds; whether `txid`
    /// is still there.
    fn trim(&mut self, txid: Txid) -> bool {
        let over = |m: &Mempool, p: Policy| m.len() > p.max_txs || m.vsize() > p.max_vsize;
        while over(&self.mempool, self.policy) {
            let Some((cheapest, ..)) = self.mempool.cheapest_package() else {
                break;
            };
            self.mempool.remove_with_descendants(cheapest);
        }
        self.mempool.get(&txid).is_some()
    }

    pub(super) fn evaluate(&self, tx: &Transaction, rules: Rules) -> Result<Plan, Reject> {
        let txid = tx.compute_txid();
        check_transaction(tx)?;
        if tx.is_coinbase() {
            return Err(Reject::new("coinbase"));
        }
        if rules == Rules::Relay {
            policy::check_standard(tx)?;
        }
        let mtp_at = |h: u32| self.mtp_at(h);
        let place =
            Place { height: self.height() + 1, mtp_s: self.median_time_past_s(), mtp_at: &mtp_at };
        if !is_final(tx, &place) {
            return Err(Reject::new("non-final"));
        }
        self.check_unknown(tx, &txid)?;
        let direct = policy::conflicts(&self.mempool, tx, self.policy)?;
        let spent = self.spent_coins(tx)?;
        if !sequence_locks_reached(tx, &spent, &place) {
            return Err(Reject::new("non-BIP68-final"));
        }
        let fee_sat = check_inputs(tx, &spent, place.height)?;
        let vsize = tx.vsize() as u64;
        let accepted = Accepted { txid, fee_sat, vsize };
        let evicted = match rules {
            Rules::Relay => self.check_relay(tx, &spent, accepted, &direct)?,
            Rules::Consensus if direct.is_empty() => BTreeSet::new(),
            Rules::Consensus => return Err(Reject::new("txn-mempool-conflict")),
        };
        verify_scripts(tx, &spent)?;
        Ok(Plan { accepted, evicted })
    }

    fn check_unknown(&self, tx: &Transaction, txid: &Txid) -> Result<(), Reject> {
        if let Some(entry) = self.mempool.get(txid) {
            return Err(Reject::new(match entry.wtxid == tx.compute_wtxid() {
                true => "txn-already-in-mempool",
                false => "txn-same-nonwitness-data-in-mempool",
            }));
        }
        match self.confirmed.contains_key(txid) {
            true => Err(Reject::new("txn-already-known")),
            false => Ok(()),
        }
    }

    fn check_relay(
        &self,
        tx: &Transaction,
        spent: &[Coin],
        accepted: Accepted,
        direct: &BTreeSet<Txid>,
    ) -> Result<BTreeSet<Txid>, Reject> {
        policy::check_standard_witnesses(tx, spent)?;
        policy::check_standard_sigops(sigop_cost(tx, spent))?;
        policy::check_fee(accepted.fee_sat, accepted.vsize)?;
        if !direct.is_empty() {
            return policy::check_replacement(&self.mempool, tx, accepted.fee_sat, direct);
        }
        policy::check_chain(&self.mempool, &self.mempool.ancestors(tx))?;
        Ok(BTreeSet::new())
    }

    /// The coins of all inputs, confirmed or made in the mempool.
    fn spent_coins(&self, tx: &Transaction) -> Result<Vec<Coin>, Reject> {
        tx.input
            .iter()
            .map(|input| self.coin_or_unconfirmed(&input.previous_output))
            .collect::<Option<_>>()
            .ok_or_else(|| Reject::new("bad-txns-inputs-missingorspent"))
    }

    fn coin_or_unconfirmed(&self, outpoint: &OutPoint) -> Option<Coin> {
        if let Some(coin) = self.coins.get(outpoint) {
            return Some(coin.clone());
        }
        let entry = self.mempool.get(&outpoint.txid)?;
        let output = entry.tx.output.get(outpoint.vout as usize)?.clone();
        if output.script_pubkey.is_op_return() {
            return None;
        }
        Some(Coin { output, height: self.height() + 1, coinbase: false })
    }
}
