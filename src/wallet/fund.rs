//! Building, locking, signing and journaling transactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bdk_wallet::coin_selection::{BranchAndBoundCoinSelection, LargestFirstCoinSelection};
use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, TxOrdering};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::WalletError;
use super::persist::{FUND_TABLE, Persist};
use super::sign::{fee_sat, sign_key_spends, signed_vsize};
use super::{Balance, Wallet};
use crate::store::{Record, erase, upsert};

/// Most outputs of one FUND: the funders of one Terms (at most 8) and room for batching.
pub const MAX_FUND_OUTPUTS: usize = 32;
/// Highest fee rate that the wallet signs for, sat per 1,000 virtual bytes: ten times the
/// highest rates ever paid for long, so only a broken estimate is above it.
pub const MAX_FEERATE_SAT_KVB: u64 = 10_000_000;
/// What a replacement pays for its own relay, sat per 1,000 virtual bytes (BIP-125 rule 4, with
/// the largest default that nodes use).
const INCREMENTAL_FEERATE_SAT_KVB: u64 = 1_000;
/// Size of a taproot output: what leaving out the change saves.
const CHANGE_BYTES: u64 = 43;
/// Version of the journaled rows.
const ROW_VERSION: u8 = 1;

/// A signed and journaled transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funded {
    /// The transaction, ready to broadcast.
    pub tx: Transaction,
    /// Where the given outputs are, in the given order; empty for a cancelling transaction.
    pub outpoints: Vec<OutPoint>,
    pub fee_sat: u64,
}

/// What is journaled about one FUND or payment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Entry {
    Live(Fund),
    /// Its coins were given back at this height of the chain. Stays for as long as its terms
    /// could be funded, so that they never are twice.
    Released {
        at_height: u32,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fund {
    pub(super) tx: Transaction,
    pub(super) is_payment: bool,
    outputs: Vec<(ScriptBuf, u64)>,
    prevouts: Vec<TxOut>,
    is_broadcast: bool,
    cancel: Option<Cancel>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cancel {
    tx: Transaction,
    feerate_sat_kvb: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    entry: Entry,
}

impl Fund {
    /// Whether `tx` is the one that should confirm now.
    pub(super) fn wants(&self, tx: &Transaction) -> bool {
        self.inputs().eq(tx.input.iter().map(|input| input.previous_output)) && self.wanted() == tx
    }

    /// The transaction that should confirm now.
    fn wanted(&self) -> &Transaction {
        self.cancel.as_ref().map_or(&self.tx, |cancel| &cancel.tx)
    }

    /// Id of the transaction that cancels it.
    pub(super) fn cancel_txid(&self) -> Option<Txid> {
        self.cancel.as_ref().map(|cancel| cancel.tx.compute_txid())
    }

    fn fee_of(&self, tx: &Transaction) -> u64 {
        let spent: u64 = self.prevouts.iter().map(|o| o.value.to_sat()).sum();
        let paid: u64 = tx.output.iter().map(|o| o.value.to_sat()).sum();
        spent.saturating_sub(paid)
    }

    fn funded(&self) -> Funded {
        let txid = self.tx.compute_txid();
        let mut taken = vec![false; self.tx.output.len()];
        let mut place = |(script, sat): &(ScriptBuf, u64)| {
            let vout = self.tx.output.iter().enumerate().position(|(i, o)| {
                !taken[i] && o.script_pubkey == *script && o.value.to_sat() == *sat
            })?;
            taken[vout] = true;
            Some(OutPoint::new(txid, vout as u32))
        };
        let outpoints = self.outputs.iter().filter_map(&mut place).collect();
        Funded { tx: self.tx.clone(), outpoints, fee_sat: self.fee_of(&self.tx) }
    }

    fn cancelled(&self, cancel: &Cancel) -> Funded {
        let fee_sat = self.fee_of(&cancel.tx);
        Funded { tx: cancel.tx.clone(), outpoints: Vec::new(), fee_sat }
    }

    fn inputs(&self) -> impl Iterator<Item = OutPoint> + '_ {
        self.tx.input.iter().map(|input| input.previous_output)
    }
}

/// Reads the journaled entries.
pub(super) fn load(persist: &dyn Persist) -> Result<BTreeMap<[u8; 32], Entry>, WalletError> {
    let damaged = || WalletError::Damaged("a fund row");
    let mut funds = BTreeMap::new();
    for (key, value) in persist.rows(FUND_TABLE)? {
        let row: Stored = serde_json::from_slice(&value).map_err(|_| damaged())?;
        if row.v != ROW_VERSION {
            return Err(damaged());
        }
        funds.insert(key.try_into().map_err(|_| damaged())?, row.entry);
    }
    Ok(funds)
}

fn row(id: &[u8; 32], entry: &Entry) -> Result<Record, WalletError> {
    let row = Stored { v: ROW_VERSION, entry: entry.clone() };
    let value = serde_json::to_vec(&row).map_err(|_| WalletError::Damaged("a fund row"))?;
    Ok(upsert(FUND_TABLE, *id, value))
}

impl Wallet {
    /// Builds, locks, signs and journals the FUND of `terms_hash`: a transaction with the given
    /// `outputs` (script, sat). The same terms and outputs give the same transaction again.
    ///
    /// Empty `outputs` cancel it instead: the answer spends the same inputs back to the wallet
    /// with enough fee to replace the FUND (BIP-125); a higher `feerate_sat_kvb` later gives a
    /// better paying one.
    ///
    /// Coins are confirmed ones; own unconfirmed change is taken when these do not suffice.
    /// `tip_height` becomes the lock time, against fee sniping. Nothing is broadcast.
    ///
    /// # Errors
    /// [`WalletError::InsufficientFunds`], [`WalletError::BadAmount`],
    /// [`WalletError::TooManyOutputs`], [`WalletError::BadFeerate`],
    /// [`WalletError::OtherOutputs`], [`WalletError::Cancelled`], [`WalletError::Released`],
    /// [`WalletError::NoFund`], [`WalletError::Confirmed`], [`WalletError::Store`] (then no coin
    /// is locked).
    pub fn fund(
        &mut self,
        terms_hash: [u8; 32],
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Funded, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        match self.funds.get(&terms_hash) {
            Some(Entry::Released { .. }) => Err(WalletError::Released),
            Some(Entry::Live(fund)) if outputs.is_empty() => {
                let fund = fund.clone();
                self.cancel(terms_hash, fund, feerate_sat_kvb, tip_height)
            }
            Some(Entry::Live(fund)) if fund.cancel.is_some() => Err(WalletError::Cancelled),
            Some(Entry::Live(fund)) if fund.outputs == outputs => Ok(fund.funded()),
            Some(Entry::Live(_)) => Err(WalletError::OtherOutputs),
            None if outputs.is_empty() => Err(WalletError::NoFund),
            None => {
                let fund = self.build(outputs, feerate_sat_kvb, tip_height)?;
                let funded = fund.funded();
                self.lock_and_journal(terms_hash, fund)?;
                Ok(funded)
            }
        }
    }

    /// Pays `amount_sat` to an address. The transaction is journaled like a FUND, counts as
    /// broadcast from now on, and is forgotten by itself once it is final.
    ///
    /// # Errors
    /// As [`Wallet::fund`]; [`WalletError::OtherNetwork`].
    pub fn send(
        &mut self,
        to: &Address,
        amount_sat: u64,
        feerate_sat_kvb: u64,
    ) -> Result<Transaction, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        if !to.as_unchecked().is_valid_for_network(self.keys.network()) {
            return Err(WalletError::OtherNetwork);
        }
        let outputs = [(to.script_pubkey(), amount_sat)];
        let mut fund = self.build(&outputs, feerate_sat_kvb, self.tip_height())?;
        fund.is_payment = true;
        fund.is_broadcast = true;
        let tx = fund.tx.clone();
        let mut hash = Sha256::new_with_prefix(b"capex/payment/v1\0");
        hash.update(tx.compute_txid());
        self.lock_and_journal(hash.finalize().into(), fund)?;
        Ok(tx)
    }

    /// Notes that a transaction of this wallet was broadcast at `seen_at_s` (unix seconds): its
    /// change can be spent, and [`Wallet::unsettled`] lists it until it confirms.
    ///
    /// # Errors
    /// [`WalletError::Store`].
    pub fn mark_broadcast(&mut self, tx: &Transaction, seen_at_s: u64) -> Result<(), WalletError> {
        self.see(tx, seen_at_s);
        let txid = tx.compute_txid();
        let newly = self.funds.iter().find_map(|(id, entry)| match entry {
            Entry::Live(fund) if fund.wanted().compute_txid() == txid && !fund.is_broadcast => {
                Some((*id, Entry::Live(Fund { is_broadcast: true, ..fund.clone() })))
            }
            _ => None,
        });
        let Some((id, entry)) = newly else {
            return self.commit(Vec::new());
        };
        self.commit(vec![row(&id, &entry)?])?;
        self.funds.insert(id, entry);
        Ok(())
    }

    /// Gives back the coins of `terms_hash`. The same terms are never funded again.
    ///
    /// # Errors
    /// [`WalletError::NoFund`], [`WalletError::Store`].
    pub fn release(&mut self, terms_hash: [u8; 32]) -> Result<(), WalletError> {
        let inputs: Vec<_> = match self.funds.get(&terms_hash) {
            Some(Entry::Live(fund)) => fund.inputs().collect(),
            Some(Entry::Released { .. }) => return Ok(()),
            None => return Err(WalletError::NoFund),
        };
        inputs.iter().for_each(|outpoint| self.bdk.unlock_outpoint(*outpoint));
        let released = Entry::Released { at_height: self.tip_height() };
        let stored = row(&terms_hash, &released).and_then(|row| self.commit(vec![row]));
        match stored {
            Ok(()) => {
                self.funds.insert(terms_hash, released);
            }
            Err(_) => inputs.iter().for_each(|outpoint| self.bdk.lock_outpoint(*outpoint)),
        }
        stored
    }

    /// Broadcast transactions that are not confirmed, to broadcast again: the FUND, or what
    /// cancels it.
    pub fn unsettled(&self) -> Vec<([u8; 32], Transaction)> {
        let open = self.funds.iter().filter_map(|(id, entry)| match entry {
            Entry::Live(fund) if fund.is_broadcast => Some((*id, fund)),
            _ => None,
        });
        open.filter(|(_, fund)| {
            !self.is_confirmed(fund.tx.compute_txid())
                && !self.is_confirmed(fund.wanted().compute_txid())
        })
        .map(|(id, fund)| (id, fund.wanted().clone()))
        .collect()
    }

    /// Keeps bdk, which only knows addresses in the chain as used, from giving the change
    /// addresses of journaled transactions to others.
    pub(super) fn mark_journaled_addresses(&mut self) {
        for entry in self.funds.values() {
            let Entry::Live(fund) = entry else { continue };
            let cancel = fund.cancel.iter().flat_map(|cancel| &cancel.tx.output);
            for output in fund.tx.output.iter().chain(cancel) {
                let place = self.bdk.derivation_of_spk(output.script_pubkey.clone());
                if let Some((keychain, index)) = place {
                    self.bdk.mark_used(keychain, index);
                }
            }
        }
    }

    /// Forgets a payment or FUND that is over; returns the row that says so.
    pub(super) fn forget(&mut self, id: [u8; 32]) -> Option<Record> {
        if let Entry::Live(fund) = self.funds.remove(&id)? {
            fund.inputs().for_each(|outpoint| self.bdk.unlock_outpoint(outpoint));
        }
        Some(erase(FUND_TABLE, id))
    }

    fn build(
        &mut self,
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Fund, WalletError> {
        check_amounts(outputs)?;
        let psbt = match self.select(outputs, feerate_sat_kvb, tip_height, false) {
            Err(CreateTxError::CoinSelection(_)) => {
                self.select(outputs, feerate_sat_kvb, tip_height, true)
            }
            other => other,
        };
        let psbt = psbt.map_err(|e| self.create_error(e))?;
        let spent = psbt.inputs.into_iter().map(|input| input.witness_utxo);
        let prevouts: Option<Vec<TxOut>> = spent.collect();
        let prevouts = prevouts.ok_or_else(|| WalletError::build("an input without its coin"))?;
        let tx = self.sign(psbt.unsigned_tx, &prevouts)?;
        Ok(Fund {
            tx,
            is_payment: false,
            outputs: outputs.to_vec(),
            prevouts,
            is_broadcast: false,
            cancel: None,
        })
    }

    /// Chooses unlocked coins: an exact match if there is one, else the largest first, so that a
    /// FUND has few inputs and the same wallet chooses the same coins. Unconfirmed ones only with `with_change`, and then only own
    /// change: a chain of unconfirmed transactions falls with its first.
    fn select(
        &mut self,
        outputs: &[(ScriptBuf, u64)],
        feerate_sat_kvb: u64,
        tip_height: u32,
        with_change: bool,
    ) -> Result<Psbt, CreateTxError> {
        let unconfirmed = self.coins().filter(|c| c.chain_position.is_unconfirmed());
        let avoided = unconfirmed
            .filter(|c| !with_change || !self.is_own_change(c))
            .map(|c| c.outpoint)
            .chain(self.spent.iter().copied())
            .collect();
        let recipients =
            outputs.iter().map(|(script, sat)| (script.clone(), Amount::from_sat(*sat))).collect();
        let algorithm = BranchAndBoundCoinSelection::new(CHANGE_BYTES, LargestFirstCoinSelection);
        let mut builder = self.bdk.build_tx().coin_selection(algorithm);
        builder
            .set_recipients(recipients)
            .fee_rate(FeeRate::from_sat_per_kwu(feerate_sat_kvb.div_ceil(4)))
            .current_height(tip_height.min(MAX_HEIGHT))
            .ordering(by_content())
            .unspendable(avoided);
        builder.finish()
    }

    fn create_error(&self, error: CreateTxError) -> WalletError {
        match error {
            CreateTxError::CoinSelection(short) => {
                let Balance { spendable_sat, .. } = self.balance();
                let need_sat = short.needed.to_sat();
                WalletError::InsufficientFunds { have_sat: spendable_sat, need_sat }
            }
            CreateTxError::OutputBelowDustLimit(index) => WalletError::BadAmount { index },
            other => WalletError::build(other),
        }
    }

    /// Pays the inputs of a FUND back to the wallet (see [`Wallet::fund`]).
    fn cancel(
        &mut self,
        terms_hash: [u8; 32],
        mut fund: Fund,
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Funded, WalletError> {
        if let Some(cancel) = fund.cancel.as_ref().filter(|c| c.feerate_sat_kvb >= feerate_sat_kvb)
        {
            return Ok(fund.cancelled(cancel));
        }
        if self.is_confirmed(fund.tx.compute_txid()) {
            return Err(WalletError::Confirmed);
        }
        let script = self.bdk.reveal_next_address(KeychainKind::Internal).script_pubkey();
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(tip_height.min(MAX_HEIGHT)),
            input: fund.inputs().map(unsigned_input).collect(),
            output: vec![TxOut { value: Amount::ZERO, script_pubkey: script.clone() }],
        };
        let fee = self.replacement_fee(&fund, &tx, feerate_sat_kvb);
        let fee = fee.ok_or(WalletError::BadFeerate { feerate_sat_kvb })?;
        let have_sat: u64 = fund.prevouts.iter().map(|o| o.value.to_sat()).sum();
        let need_sat = fee.saturating_add(script.minimal_non_dust().to_sat());
        if have_sat < need_sat {
            return Err(WalletError::InsufficientFunds { have_sat, need_sat });
        }
        tx.output[0].value = Amount::from_sat(have_sat - fee);
        let tx = self.sign(tx, &fund.prevouts)?;
        let cancel = Cancel { tx, feerate_sat_kvb };
        let funded = fund.cancelled(&cancel);
        fund.cancel = Some(cancel);
        let entry = Entry::Live(fund);
        self.commit(vec![row(&terms_hash, &entry)?])?;
        self.funds.insert(terms_hash, entry);
        self.mark_journaled_addresses();
        Ok(funded)
    }

    /// Fee of `tx`, which replaces what `fund` wants now and whatever spends its change: more
    /// than all of them together and a higher rate (BIP-125 rules 3, 4 and Core's feerate rule).
    fn replacement_fee(&self, fund: &Fund, tx: &Transaction, feerate_sat_kvb: u64) -> Option<u64> {
        let vsize = signed_vsize(tx);
        let replaced = fund.wanted();
        let replaced_txid = replaced.compute_txid();
        let descendants = self.funds.values().filter_map(|entry| match entry {
            Entry::Live(f) if f.inputs().any(|o| o.txid == replaced_txid) => Some(f),
            _ => None,
        });
        let replaced_fee = fund.fee_of(replaced);
        let evicted: u64 = replaced_fee + descendants.map(|f| f.fee_of(f.wanted())).sum::<u64>();
        let wished = fee_sat(feerate_sat_kvb, vsize)?;
        let relayed = evicted.checked_add(fee_sat(INCREMENTAL_FEERATE_SAT_KVB, vsize)?)?;
        let replaced_vsize = replaced.vsize() as u64;
        let better = replaced_fee.checked_mul(vsize)? / replaced_vsize.max(1) + 1;
        Some(wished.max(relayed).max(better))
    }

    fn sign(&self, mut tx: Transaction, prevouts: &[TxOut]) -> Result<Transaction, WalletError> {
        let mut keys = Vec::with_capacity(prevouts.len());
        for prevout in prevouts {
            let derivation = self.bdk.derivation_of_spk(prevout.script_pubkey.clone());
            let (keychain, index) =
                derivation.ok_or_else(|| WalletError::build("a foreign coin"))?;
            keys.push(self.keys.spend_keypair(keychain as u32, index)?);
        }
        sign_key_spends(self.keys.secp(), &mut tx, prevouts, &keys)?;
        Ok(tx)
    }

    /// Locks the inputs and stores the transaction in one batch; on an error nothing is locked.
    fn lock_and_journal(&mut self, id: [u8; 32], fund: Fund) -> Result<(), WalletError> {
        let inputs: Vec<_> = fund.inputs().collect();
        inputs.iter().for_each(|outpoint| self.bdk.lock_outpoint(*outpoint));
        let entry = Entry::Live(fund);
        let stored = row(&id, &entry).and_then(|row| self.commit(vec![row]));
        match stored {
            Ok(()) => {
                self.funds.insert(id, entry);
            }
            Err(_) => inputs.iter().for_each(|outpoint| self.bdk.unlock_outpoint(*outpoint)),
        }
        stored
    }
}

/// Greatest lock time that means a height (BIP-113 uses larger values as times).
const MAX_HEIGHT: u32 = 499_999_999;

/// Inputs and outputs in the order of their contents (BIP-69): it tells no more about the
/// change than a random one, and the same wallet builds the same transaction.
fn by_content() -> TxOrdering {
    TxOrdering::Custom {
        input_sort: Arc::new(|a: &TxIn, b: &TxIn| a.previous_output.cmp(&b.previous_output)),
        output_sort: Arc::new(|a: &TxOut, b: &TxOut| a.cmp(b)),
    }
}

fn unsigned_input(previous_output: OutPoint) -> TxIn {
    TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

fn check_feerate(feerate_sat_kvb: u64) -> Result<(), WalletError> {
    if feerate_sat_kvb == 0 || feerate_sat_kvb > MAX_FEERATE_SAT_KVB {
        return Err(WalletError::BadFeerate { feerate_sat_kvb });
    }
    Ok(())
}

/// Refuses what cannot be added up, before bdk adds it up.
fn check_amounts(outputs: &[(ScriptBuf, u64)]) -> Result<(), WalletError> {
    if outputs.len() > MAX_FUND_OUTPUTS {
        return Err(WalletError::TooManyOutputs { max: MAX_FUND_OUTPUTS });
    }
    let mut total_sat = 0u64;
    for (index, (_, amount_sat)) in outputs.iter().enumerate() {
        total_sat = total_sat
            .checked_add(*amount_sat)
            .filter(|total| *amount_sat > 0 && *total <= Amount::MAX_MONEY.to_sat())
            .ok_or(WalletError::BadAmount { index })?;
    }
    Ok(())
}
