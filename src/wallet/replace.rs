//! Replacing what was signed: a FUND by a payment to self, and any transaction by one that
//! pays more.

use std::collections::{BTreeMap, BTreeSet};

use bdk_wallet::KeychainKind;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use super::Wallet;
use super::entry::{BetterCancel, Cancel, Entry, EntryId, Fund, Kind};
use super::error::WalletError;
use super::fate::FINAL_CONFIRMATIONS;
use super::fund::Funded;
use super::select::MAX_HEIGHT;
use super::sign::{fee_sat, signed_vsize};

/// What a replacement pays for its own relay, sat per 1,000 virtual bytes (BIP-125 rule 4, with
/// the largest default that nodes use).
const INCREMENTAL_FEERATE_SAT_KVB: u64 = 1_000;
/// A wish for a higher rate counts if it is this many percent of the last one: an estimate
/// that trembles must not cost a relay fee at each chain block.
const STEP_PERCENT: u64 = 125;

/// Fees between which a replacement has to choose, sat.
struct Fees {
    /// Less is not relayed.
    least: u64,
    wished: u64,
}

impl Wallet {
    /// Pays the coins of a FUND back to the wallet (see [`Wallet::fund`]). One conflict is
    /// enough: coins that are themselves about to vanish are left out.
    pub(super) fn cancel(
        &mut self,
        id: EntryId,
        fund: Fund,
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Funded, WalletError> {
        let coins = self.cancellable(id, &fund)?;
        let last = fund
            .cancel
            .as_ref()
            .filter(|last| last.tx.input.iter().map(coin_of).eq(coins.iter().copied()));
        // Whoever signs elsewhere has one at a time to sign, which does not change meanwhile.
        let is_enough = |last: &&Cancel| {
            let waits = last.awaits || last.better.is_some();
            waits || !is_step(last.feerate_sat_kvb, feerate_sat_kvb)
        };
        if let Some(last) = last.filter(is_enough) {
            return if last.awaits { Err(WalletError::Unsigned) } else { Ok(fund.cancelled(last)) };
        }
        let tx = match self.build_cancel(&fund, &coins, feerate_sat_kvb, tip_height) {
            Err(error) => return last.map(|last| fund.cancelled(last)).ok_or(error),
            Ok(tx) => tx,
        };
        let awaits = self.is_watch_only();
        if let Some(last) = last.filter(|_| awaits) {
            let better = Some(BetterCancel { tx, feerate_sat_kvb });
            let (cancel, funded) = (Cancel { better, ..last.clone() }, fund.cancelled(last));
            self.store_entry(id, Entry::Live(Fund { cancel: Some(cancel), ..fund }))?;
            return Ok(funded);
        }
        let cancel = Cancel { tx, feerate_sat_kvb, awaits, better: None };
        let funded = fund.cancelled(&cancel);
        // Until it is signed, nothing replaces the funding.
        let is_lent = awaits && fund.is_lent;
        let fund = Fund { cancel: Some(cancel), is_lent, bump: None, ..fund };
        self.store_entry(id, Entry::Live(fund))?;
        self.mark_journaled_addresses();
        if awaits { Err(WalletError::Unsigned) } else { Ok(funded) }
    }

    /// Coins of a FUND from which a transaction can be made that cancels it.
    fn cancellable(&self, id: EntryId, fund: &Fund) -> Result<Vec<OutPoint>, WalletError> {
        if self.is_paid(fund) {
            return Err(WalletError::Confirmed);
        }
        if let Some(height) = fund.inputs().filter_map(|coin| self.gone_at(coin)).min() {
            let is_final = self.depth(height) >= FINAL_CONFIRMATIONS;
            return Err(if is_final { WalletError::Dead } else { WalletError::Orphaned });
        }
        let is_taken = |coin| self.entries.users(coin).any(|(other, f)| other != id && !f.is_lent);
        if fund.inputs().any(is_taken) {
            return Err(WalletError::Superseded);
        }
        let coins: Vec<_> = fund.inputs().filter(|coin| !self.is_doomed(*coin)).collect();
        if coins.is_empty() { Err(WalletError::Orphaned) } else { Ok(coins) }
    }

    fn build_cancel(
        &mut self,
        fund: &Fund,
        coins: &[OutPoint],
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Transaction, WalletError> {
        let script = self.cancel_script(fund);
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(tip_height.min(MAX_HEIGHT)),
            input: coins.iter().copied().map(unsigned_input).collect(),
            output: vec![TxOut { value: Amount::ZERO, script_pubkey: script.clone() }],
        };
        let prevouts = fund.spent_by(&tx);
        let fees = self.replacement_fees(fund, &tx, feerate_sat_kvb);
        let fees = fees.ok_or(WalletError::BadFeerate { feerate_sat_kvb })?;
        let have_sat: u64 = prevouts.iter().map(|output| output.value.to_sat()).sum();
        let dust_sat = script.minimal_non_dust().to_sat();
        let need_sat = fees.least.saturating_add(dust_sat);
        if have_sat < need_sat {
            return Err(WalletError::InsufficientFunds { have_sat, need_sat });
        }
        let fee = fees.wished.min(have_sat.saturating_sub(dust_sat));
        tx.output[0].value = Amount::from_sat(have_sat.saturating_sub(fee));
        self.sign(tx, &prevouts)
    }

    /// Each cancel of one FUND pays to the same script: at most one of them confirms.
    fn cancel_script(&mut self, fund: &Fund) -> ScriptBuf {
        let last = fund.cancel.as_ref().and_then(|cancel| cancel.tx.output.first());
        match last {
            Some(output) => output.script_pubkey.clone(),
            None => self.bdk.reveal_next_address(KeychainKind::Internal).script_pubkey(),
        }
    }

    /// A better paying version with the same outputs at the same places, from the same coins:
    /// the change pays. The last version where nothing better can be made.
    pub(super) fn bump(
        &mut self,
        id: EntryId,
        fund: Fund,
        feerate_sat_kvb: u64,
    ) -> Result<Fund, WalletError> {
        if self.is_paid(&fund) {
            return Err(WalletError::Confirmed);
        }
        let vsize = fund.tx.vsize() as u64;
        let now_sat_kvb = fund.fee_of(&fund.tx).saturating_mul(1_000) / vsize.max(1);
        let txid = fund.tx.compute_txid();
        // What spends its change would fall with it.
        let has_child = self.entries.live().any(|(_, f)| f.inputs().any(|c| c.txid == txid));
        let is_gone = fund.inputs().any(|coin| self.gone_at(coin).is_some());
        // Whoever signs elsewhere has one at a time to sign, which does not change meanwhile.
        let waits = fund.bump.is_some();
        if !is_step(now_sat_kvb, feerate_sat_kvb) || has_child || is_gone || waits {
            return Ok(fund);
        }
        let fees = self.replacement_fees(&fund, &fund.tx, feerate_sat_kvb);
        let fees = fees.ok_or(WalletError::BadFeerate { feerate_sat_kvb })?;
        let Some(mut tx) = self.with_fee(&fund, fees.wished) else { return Ok(fund) };
        if self.is_watch_only() {
            tx.input.iter_mut().for_each(|input| input.witness.clear());
            let waiting = Fund { bump: Some(tx), ..fund };
            self.store_entry(id, Entry::Live(waiting.clone()))?;
            return Ok(waiting);
        }
        let tx = self.sign(tx, &fund.prevouts)?;
        let bumped = fund.replaced_by(tx);
        self.store_entry(id, Entry::Live(bumped.clone()))?;
        Ok(bumped)
    }

    /// The unsigned transaction with another fee, if its change can pay for it.
    fn with_fee(&self, fund: &Fund, fee_sat: u64) -> Option<Transaction> {
        let mut tx = fund.tx.clone();
        let more = fee_sat.checked_sub(fund.fee_of(&tx))?;
        let is_sweep = matches!(fund.kind, Kind::Payment { is_sweep: true });
        let paid = |output: &TxOut| {
            let paid = (output.script_pubkey.clone(), output.value.to_sat());
            fund.outputs.contains(&paid)
        };
        let payer = tx.output.iter_mut().find(|output| {
            is_sweep || (!paid(output) && self.bdk.is_mine(output.script_pubkey.clone()))
        })?;
        let left = payer.value.to_sat().checked_sub(more)?;
        payer.value = Amount::from_sat(left);
        (payer.value >= payer.script_pubkey.minimal_non_dust()).then_some(tx)
    }

    /// Fees of `tx`, which replaces what `fund` wants now and whatever spends its change: more
    /// than all of them together and a higher rate (BIP-125 rules 3, 4 and Core's feerate rule).
    fn replacement_fees(
        &self,
        fund: &Fund,
        tx: &Transaction,
        feerate_sat_kvb: u64,
    ) -> Option<Fees> {
        let vsize = signed_vsize(tx, self.is_taproot());
        let replaced = fund.wanted();
        let replaced_fee = fund.fee_of(replaced);
        let evicted = replaced_fee.checked_add(self.descendants_fee(replaced.compute_txid()))?;
        let relayed = evicted.checked_add(fee_sat(INCREMENTAL_FEERATE_SAT_KVB, vsize)?)?;
        let replaced_vsize = replaced.vsize() as u64;
        let better = replaced_fee.checked_mul(vsize)? / replaced_vsize.max(1) + 1;
        let least = relayed.max(better);
        Some(Fees { least, wished: fee_sat(feerate_sat_kvb, vsize)?.max(least) })
    }

    /// Fees of all that spends from a transaction, and from that in turn, sat.
    fn descendants_fee(&self, txid: Txid) -> u64 {
        let mut fees: BTreeMap<EntryId, u64> = BTreeMap::new();
        let mut parents = BTreeSet::from([txid]);
        let mut queue = vec![txid];
        while let Some(parent) = queue.pop() {
            for (id, fund) in self.entries.live() {
                if !fund.wanted().input.iter().any(|input| input.previous_output.txid == parent) {
                    continue;
                }
                fees.insert(id, fund.fee_of(fund.wanted()));
                let child = fund.wanted().compute_txid();
                if parents.insert(child) {
                    queue.push(child);
                }
            }
        }
        fees.values().sum()
    }
}

fn is_step(from_sat_kvb: u64, to_sat_kvb: u64) -> bool {
    to_sat_kvb.saturating_mul(100) > from_sat_kvb.saturating_mul(STEP_PERCENT)
}

fn coin_of(input: &TxIn) -> OutPoint {
    input.previous_output
}

fn unsigned_input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}
