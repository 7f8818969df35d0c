//! A part of a transaction that others pay too.
//!
//! The wallet first names coins and change for its part, then signs its coins in the whole, for all
//! outputs and no other input. What it names is what an ordinary FUND of the same output would take,
//! so its part pays for its own size and more than its share of the rest.

use bitcoin::key::Keypair;
use bitcoin::secp256k1::{Message, Secp256k1, Signing};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness, taproot};

use super::Wallet;
use super::entry::{End, Entry, EntryId, Fund, Joint};
use super::error::WalletError;
use super::fund::{Funded, check_amounts, check_feerate};
use super::select::Wish;
use crate::chain::ChainUpdate;
use capex_core::limits::JOINT_COINS_MAX;
use capex_core::settlement::joint::{Change, Coin, Contribution, SIGHASH};

impl Fund {
    fn contribution(&self) -> Result<Contribution, WalletError> {
        let joint = self.joint.as_ref().ok_or(WalletError::OtherOutputs)?;
        let coins = joint.coins.iter().zip(&self.prevouts);
        let coins = coins.map(|(outpoint, output)| Coin::new(*outpoint, output));
        let coins: Option<Vec<Coin>> = coins.collect();
        let coins = coins.ok_or_else(|| WalletError::build("a coin that is not taproot"))?;
        let change = joint.change.as_ref().map(|change| Change {
            spk: change.script_pubkey.to_bytes(),
            value_sat: change.value.to_sat(),
        });
        Ok(Contribution { coins, change })
    }

    /// Whether a transaction takes no more of this wallet than its part, and gives all of it.
    fn is_part_of(&self, joint: &Joint, tx: &Transaction) -> bool {
        let spent = |coin: &OutPoint| tx.input.iter().any(|input| input.previous_output == *coin);
        let is_change_paid = joint.change.iter().all(|change| tx.output.contains(change));
        joint.coins.iter().all(spent) && is_change_paid && self.is_paid_by(tx)
    }
}

impl Wallet {
    /// Coins and change for a part of what others pay too, which pays `output`: selected, locked
    /// and journaled, not signed. The same terms give the same again.
    ///
    /// # Errors
    /// [`WalletError::KeysElsewhere`], [`WalletError::TooManyCoins`], and as [`Wallet::fund`].
    pub fn contribute(
        &mut self,
        terms_hash: EntryId,
        output: &(ScriptBuf, u64),
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Contribution, WalletError> {
        check_feerate(feerate_sat_kvb)?;
        match self.entries.get(&terms_hash) {
            Some(Entry::Over { end: End::Released, .. }) => return Err(WalletError::Released),
            Some(Entry::Over { end: End::Paid, .. }) => return Err(WalletError::Confirmed),
            Some(Entry::Over { end: End::Dead, .. }) => return Err(WalletError::Dead),
            Some(Entry::Live(fund)) if fund.outputs == [output.clone()] => {
                return fund.contribution();
            }
            Some(Entry::Live(_)) => return Err(WalletError::OtherOutputs),
            None => {}
        }
        if self.is_watch_only() {
            return Err(WalletError::KeysElsewhere);
        }
        let outputs = [output.clone()];
        check_amounts(&outputs)?;
        let mut fund = self.build(Wish::Outputs(&outputs), feerate_sat_kvb, tip_height)?;
        if fund.tx.input.len() > JOINT_COINS_MAX {
            self.drop_draft(&fund.tx);
            return Err(WalletError::TooManyCoins { max: JOINT_COINS_MAX });
        }
        // It is never sent by itself.
        fund.tx.input.iter_mut().for_each(|input| input.witness.clear());
        let (script, _) = output;
        let change = fund.tx.output.iter().find(|paid| paid.script_pubkey != *script).cloned();
        let (coins, fee_sat) = (fund.inputs().collect(), fund.fee_of(&fund.tx));
        fund.joint = Some(Joint { coins, change, fee_sat, waits: None });
        let contribution = fund.contribution()?;
        self.store_entry(terms_hash, Entry::Live(fund))?;
        Ok(contribution)
    }

    /// Signs the coins of a part in the whole, for all its outputs, and journals it: from now on
    /// whoever has the other signatures can send it. The same once more is the same.
    ///
    /// # Errors
    /// [`WalletError::NoFund`], [`WalletError::OtherOutputs`]: it does not take the part as it was
    /// named, or another was signed; [`WalletError::Released`], [`WalletError::Store`].
    pub fn sign_part(
        &mut self,
        terms_hash: EntryId,
        tx: &Transaction,
    ) -> Result<Funded, WalletError> {
        let fund = match self.entries.get(&terms_hash) {
            Some(Entry::Live(fund)) => fund.clone(),
            Some(Entry::Over { .. }) => return Err(WalletError::Released),
            None => return Err(WalletError::NoFund),
        };
        let joint = fund.joint.as_ref().ok_or(WalletError::OtherOutputs)?;
        let is_same = fund.tx.compute_txid() == tx.compute_txid();
        if fund.is_exported && is_same {
            return Ok(fund.funded());
        }
        if fund.is_exported || !fund.is_part_of(joint, tx) {
            return Err(WalletError::OtherOutputs);
        }
        let mut signed = tx.clone();
        signed.input.iter_mut().for_each(|input| input.witness.clear());
        for (coin, prevout) in joint.coins.iter().zip(&fund.prevouts) {
            let key = self.spend_key(prevout)?;
            sign_part_spend(self.keys.secp(), &mut signed, (coin, prevout), &key)?;
        }
        let fund = Fund { tx: signed, is_exported: true, ..fund };
        let funded = fund.funded();
        self.store_entry(terms_hash, Entry::Live(fund))?;
        Ok(funded)
    }

    fn spend_key(&self, prevout: &TxOut) -> Result<Keypair, WalletError> {
        let derivation = self.bdk.derivation_of_spk(prevout.script_pubkey.clone());
        let (keychain, index) = derivation.ok_or_else(|| WalletError::build("a foreign coin"))?;
        self.keys.spend_keypair(keychain as u32, index)
    }

    /// What became of a part, as [`Wallet::fund`] answers.
    pub(super) fn of_joint(&self, fund: &Fund) -> Result<Funded, WalletError> {
        if self.is_paid(fund) {
            Err(WalletError::Confirmed)
        } else if fund.is_broadcast {
            Ok(fund.funded())
        } else {
            Err(WalletError::Unsigned)
        }
    }

    /// It has come too late, and nothing is to replace it: other transactions may spend its coins.
    /// While it waits in a mempool only who names them, because that has to pay more than the fee
    /// of all of it. A block with it takes them back.
    pub(super) fn lend_joint(&mut self, id: EntryId, fund: Fund) -> Result<(), WalletError> {
        let txid = fund.tx.compute_txid();
        let is_known = self.unconfirmed(txid).is_some();
        if fund.is_lent && !is_known {
            return Ok(());
        }
        if is_known {
            self.forget_unconfirmed(txid);
        }
        self.store_entry(id, given_up(fund, is_known.then_some(txid)))
    }

    /// Counts a transaction no longer, until it is seen again: its coins are there, its change is
    /// not.
    fn forget_unconfirmed(&mut self, txid: Txid) {
        let seen = self.bdk.tx_graph().get_tx_node(txid).and_then(|node| node.last_seen);
        self.bdk.apply_evicted_txs([(txid, seen.unwrap_or(0).saturating_add(1))]);
    }

    /// Follows parts of which the chain shows the whole, sent by others, perhaps with an input
    /// more; and those that were given up out of the mempool.
    pub(super) fn follow_joint(&mut self, update: &ChainUpdate) -> Result<(), WalletError> {
        for (id, fund) in self.joint_seen(&update.mempool) {
            let txid = fund.tx.compute_txid();
            if fund.is_lent && !self.is_confirmed(txid) {
                self.forget_unconfirmed(txid);
                self.store_entry(id, given_up(fund, Some(txid)))?;
            } else {
                let joint = fund.joint.map(|joint| Joint { waits: None, ..joint });
                let fund = Fund { joint, is_broadcast: true, is_lent: false, ..fund };
                self.store_entry(id, Entry::Live(fund))?;
            }
        }
        let Some(waiting) = &update.waiting else { return Ok(()) };
        let is_gone = |fund: &Fund| fund.waits().is_some_and(|txid| !waiting.contains(&txid));
        let gone = self.entries.live().filter(|(_, fund)| is_gone(fund));
        let gone: Vec<_> = gone.map(|(id, fund)| (id, fund.clone())).collect();
        for (id, fund) in gone {
            self.store_entry(id, given_up(fund, None))?;
        }
        Ok(())
    }

    /// Parts of which the chain shows the whole where it was not known or was given up.
    fn joint_seen(&self, mempool: &[Transaction]) -> Vec<(EntryId, Fund)> {
        let graph = self.bdk.tx_graph();
        let seen = |(id, fund): (EntryId, &Fund)| {
            let joint = fund.joint.as_ref().filter(|_| fund.is_exported)?;
            let spenders = joint.coins.iter().flat_map(|coin| graph.outspends(*coin));
            let known = spenders.filter_map(|txid| self.bdk.get_tx(*txid));
            let known = known.map(|known| (*known.tx_node.tx).clone());
            // What was given up counts for nothing, however often it is sent again.
            let sent = mempool.iter().filter(|_| fund.is_lent).cloned();
            let tx = known.chain(sent).find(|tx| fund.is_part_of(joint, tx))?;
            let is_known = fund.is_broadcast && tx.compute_txid() == fund.tx.compute_txid();
            (!is_known).then(|| (id, Fund { tx, ..fund.clone() }))
        };
        self.entries.live().filter_map(seen).collect()
    }
}

/// An entry of a part whose coins others may take; by themselves once it waits nowhere.
fn given_up(fund: Fund, waits: Option<Txid>) -> Entry {
    let joint = fund.joint.map(|joint| Joint { waits, ..joint });
    Entry::Live(Fund { joint, is_lent: true, is_broadcast: false, ..fund })
}

fn sign_part_spend<C: Signing>(
    secp: &Secp256k1<C>,
    tx: &mut Transaction,
    (coin, prevout): (&OutPoint, &TxOut),
    key: &Keypair,
) -> Result<(), WalletError> {
    let place = tx.input.iter().position(|input| input.previous_output == *coin);
    let vin = place.ok_or(WalletError::OtherOutputs)?;
    let sighash = SighashCache::new(&*tx)
        .taproot_key_spend_signature_hash(vin, &Prevouts::One(vin, prevout), SIGHASH)
        .map_err(WalletError::build)?;
    let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), key);
    let signature = taproot::Signature { signature, sighash_type: SIGHASH };
    if let Some(input) = tx.input.get_mut(vin) {
        input.witness = Witness::p2tr_key_spend(&signature);
    }
    Ok(())
}
