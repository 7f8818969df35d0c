//! Transactions that wait for a signature made elsewhere (BIP-174, BIP-371).
//!
//! A wallet that watches descriptors selects, locks and journals like any other, but what it
//! builds waits here. What comes back is taken only if it is exactly the transaction that was
//! asked for, with a valid signature for every input that covers all of it. Everything else in
//! what comes back is left unread.

use std::collections::BTreeSet;

use bdk_wallet::miniscript::psbt::PsbtExt;
use bitcoin::psbt::{Input, Psbt};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{
    EcdsaSighashType, OutPoint, ScriptBuf, TapSighashType, Transaction, TxOut, Txid, Witness,
    XOnlyPublicKey, ecdsa, taproot,
};

use super::Wallet;
use super::entry::{Entry, EntryId, Form, Fund, Kind};
use super::error::WalletError;
use super::fund::{Funded, Payment, payment_of};
use super::persist::FUND_TABLE;
use crate::store::erase;

/// Largest transaction that comes back, bytes: 200 inputs with the transactions that they spend.
pub const PSBT_MAX_BYTES: usize = 1 << 20;

/// Why what came back is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PsbtFault {
    #[error("these bytes are no partially signed transaction")]
    Malformed,
    #[error("no transaction of this wallet waits for this signature")]
    Unknown,
    #[error("it spends other coins than the transaction that waits")]
    Inputs,
    #[error("it pays something else than the transaction that waits")]
    Outputs,
    #[error("version, lock time or sequence differ from the transaction that waits")]
    Form,
    #[error("input {input} is not signed")]
    Unsigned { input: usize },
    #[error("the signature of input {input} does not cover the whole transaction")]
    Sighash { input: usize },
    #[error("the signature of input {input} is not valid")]
    Signature { input: usize },
    #[error("a trade asked for it, and ends it by itself")]
    OfTrade,
}

impl PsbtFault {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "wallet.psbt_malformed",
            Self::Unknown => "wallet.psbt_unknown",
            Self::Inputs => "wallet.psbt_inputs",
            Self::Outputs => "wallet.psbt_outputs",
            Self::Form => "wallet.psbt_form",
            Self::Unsigned { .. } => "wallet.psbt_unsigned",
            Self::Sighash { .. } => "wallet.psbt_sighash",
            Self::Signature { .. } => "wallet.psbt_signature",
            Self::OfTrade => "wallet.psbt_of_trade",
        }
    }
}

/// A transaction that waits for a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Terms that it funds, or pays back.
    pub terms_hash: [u8; 32],
    pub txid: Txid,
    pub form: Form,
    /// What it pays to others, sat.
    pub amount_sat: u64,
    pub fee_sat: u64,
}

/// A signed transaction that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Of a trade, which goes on with it.
    Funding { terms_hash: [u8; 32], funded: Funded },
    /// A payment that a person asked for, to be broadcast.
    Payment(Payment),
}

impl Fund {
    /// All that was ever built for it and may still be meant, signed or not.
    fn forms(&self) -> impl Iterator<Item = (Form, &Transaction)> {
        let first = match self.kind {
            Kind::Terms => Form::Fund,
            Kind::Payment { .. } => Form::Payment,
        };
        let bump = self.bump.iter().map(|tx| (Form::Bump, tx));
        let cancel = self.cancel.as_ref();
        let better = cancel.and_then(|cancel| cancel.better.as_ref());
        let cancels = cancel.map(|cancel| &cancel.tx).into_iter().chain(better.map(|b| &b.tx));
        [(first, &self.tx)].into_iter().chain(bump).chain(cancels.map(|tx| (Form::Cancel, tx)))
    }

    /// Which of its forms waits for a signature. A funding whose coins others may take has waited
    /// long enough.
    fn waiting(&self) -> Option<(Form, &Transaction)> {
        if self.awaits {
            return if self.is_lent { None } else { self.forms().next() };
        }
        let cancel = self.cancel.as_ref().and_then(|cancel| {
            let better = cancel.better.as_ref().map(|better| &better.tx);
            if cancel.awaits { Some(&cancel.tx) } else { better }
        });
        let cancel = cancel.map(|tx| (Form::Cancel, tx));
        cancel.or_else(|| self.bump.as_ref().map(|bump| (Form::Bump, bump)))
    }

    /// The same with the form that waited signed.
    fn signed(self, form: Form, tx: Transaction) -> Self {
        match form {
            Form::Fund => Self { tx, awaits: false, ..self },
            Form::Payment => Self { tx, awaits: false, is_broadcast: true, ..self },
            Form::Bump => Self { bump: None, ..self }.replaced_by(tx),
            Form::Cancel => {
                let cancel = self.cancel.map(|cancel| cancel.signed(tx));
                Self { cancel, is_lent: false, ..self }
            }
        }
    }

    /// The answer to whoever asked for one of its forms.
    fn answer(&self, terms_hash: EntryId, form: Form) -> Taken {
        if matches!(self.kind, Kind::Payment { .. }) {
            return Taken::Payment(payment_of(self));
        }
        let cancel = self.cancel.as_ref().filter(|_| form == Form::Cancel);
        let funded = cancel.map_or_else(|| self.funded(), |cancel| self.cancelled(cancel));
        Taken::Funding { terms_hash, funded }
    }
}

/// A transaction for a signer, and if it is the funding of a trade, its terms and itself.
pub(super) type Exported = (Vec<u8>, Option<(EntryId, Funded)>);

impl Wallet {
    /// Whether its keys are elsewhere.
    pub fn is_watch_only(&self) -> bool {
        self.keys.is_watch_only()
    }

    /// What waits for a signature.
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.entries.live().filter_map(|(terms_hash, fund)| {
            let (form, tx) = fund.waiting()?;
            // A block has decided already.
            if fund.inputs().any(|coin| self.gone_at(coin).is_some()) {
                return None;
            }
            let paid_sat: u64 = fund.outputs.iter().map(|(_, sat)| sat).sum();
            Some(Waiting {
                terms_hash,
                txid: tx.compute_txid(),
                form,
                amount_sat: if form == Form::Cancel { 0 } else { paid_sat },
                fee_sat: fund.fee_of(tx),
            })
        });
        waiting.collect()
    }

    /// A waiting transaction with all that a signer wants to know: coins, key paths, change. If
    /// it is a funding, also its terms and itself: that it was handed out is journaled first, and
    /// from then on its coins are not simply given back.
    ///
    /// # Errors
    /// [`PsbtFault::Unknown`], [`WalletError::Store`].
    pub fn export(&mut self, txid: Txid) -> Result<Exported, WalletError> {
        let found = self.entries.live().find_map(|(id, fund)| {
            let (form, tx) = fund.waiting().filter(|(_, tx)| tx.compute_txid() == txid)?;
            Some((id, fund.clone(), tx.clone(), form))
        });
        let (id, fund, tx, form) = found.ok_or(PsbtFault::Unknown)?;
        let bytes = self.psbt(&fund, &tx)?;
        // What replaces another spends its coins, and all of them are watched already.
        let funded = match form {
            Form::Bump | Form::Cancel => return Ok((bytes, None)),
            Form::Fund => Some((id, fund.funded())),
            Form::Payment => None,
        };
        if !fund.is_exported {
            self.store_entry(id, Entry::Live(Fund { is_exported: true, ..fund }))?;
        }
        Ok((bytes, funded))
    }

    /// Fundings that were handed out and that the chain has not seen, whether they have come back
    /// signed or not.
    pub fn exported(&self) -> Vec<(EntryId, Funded)> {
        let is_out = |fund: &Fund| {
            fund.kind == Kind::Terms && fund.is_exported && !fund.is_lent && !fund.is_broadcast
        };
        let exported = self.entries.live().filter(|(_, fund)| is_out(fund));
        exported.map(|(id, fund)| (id, fund.funded())).collect()
    }

    /// Takes over from the chain what was signed elsewhere and did not come back.
    pub(super) fn adopt_seen(&mut self) -> Result<(), WalletError> {
        let graph = self.bdk.tx_graph();
        let seen = |(id, fund): (EntryId, &Fund)| {
            let (form, tx) = fund.waiting().or(fund.forms().next().filter(|_| fund.awaits))?;
            let tx = graph.get_tx(tx.compute_txid())?;
            let fund = fund.clone().signed(form, (*tx).clone());
            Some((id, Fund { is_broadcast: true, is_lent: false, ..fund }))
        };
        let seen: Vec<_> = self.entries.live().filter_map(seen).collect();
        for (id, fund) in seen {
            self.store_entry(id, Entry::Live(fund))?;
        }
        Ok(())
    }

    fn psbt(&self, fund: &Fund, tx: &Transaction) -> Result<Vec<u8>, WalletError> {
        let prevouts = fund.spent_by(tx);
        let mut psbt = Psbt::from_unsigned_tx(tx.clone()).map_err(WalletError::build)?;
        for (index, prevout) in prevouts.into_iter().enumerate() {
            let script = prevout.script_pubkey.clone();
            let outpoint = tx.input.get(index).map(|input| input.previous_output);
            let Some(input) = psbt.inputs.get_mut(index) else { continue };
            input.witness_utxo = Some(prevout);
            if !script.is_p2tr() {
                // Signers check the amount of such a coin in the transaction that made it.
                let parent = outpoint.and_then(|coin| self.bdk.tx_graph().get_tx(coin.txid));
                input.non_witness_utxo = parent.map(|tx| (*tx).clone());
            }
            let (keychain, at) =
                self.bdk.derivation_of_spk(script).ok_or_else(|| WalletError::build("a coin"))?;
            let descriptor = self.bdk.public_descriptor(keychain).at_derivation_index(at);
            let descriptor = descriptor.map_err(WalletError::build)?;
            psbt.update_input_with_descriptor(index, &descriptor).map_err(WalletError::build)?;
        }
        for (index, output) in tx.output.iter().enumerate() {
            let own = self.bdk.derivation_of_spk(output.script_pubkey.clone());
            let Some((keychain, at)) = own else { continue };
            let descriptor = self.bdk.public_descriptor(keychain).at_derivation_index(at);
            let descriptor = descriptor.map_err(WalletError::build)?;
            psbt.update_output_with_descriptor(index, &descriptor).map_err(WalletError::build)?;
        }
        Ok(psbt.serialize())
    }

    /// Takes back what was signed, and journals it. The same once more changes nothing.
    ///
    /// # Errors
    /// [`PsbtFault`], [`WalletError::Store`]; nothing has changed then.
    pub fn take_psbt(&mut self, bytes: &[u8]) -> Result<Taken, WalletError> {
        let psbt = Psbt::deserialize(bytes).map_err(|_| PsbtFault::Malformed)?;
        let (id, fund, form, ours) = self.meant(&psbt.unsigned_tx)?;
        compare(&psbt.unsigned_tx, ours)?;
        let prevouts = fund.spent_by(ours);
        let signed = self.signed(&psbt, ours.clone(), &prevouts)?;
        let txid = signed.compute_txid();
        if fund.waiting().is_none_or(|(_, waits)| waits.compute_txid() != txid) {
            // What nobody waits for any more is not taken; what is signed already is the answer.
            let is_first = matches!(form, Form::Fund | Form::Payment);
            let is_signed = !is_first || !fund.awaits;
            return if is_signed {
                Ok(fund.answer(id, form))
            } else {
                Err(PsbtFault::Unknown.into())
            };
        }
        let taken = fund.clone().signed(form, signed);
        let answer = taken.answer(id, form);
        self.store_entry(id, Entry::Live(taken))?;
        Ok(answer)
    }

    /// Ends the wait for the signature of a payment. Its coins are free; if it was handed out,
    /// whoever signs it can still send it, so the next payment takes the same coins first.
    ///
    /// # Errors
    /// [`PsbtFault::Unknown`], [`PsbtFault::OfTrade`], [`WalletError::Store`].
    pub fn drop_psbt(&mut self, txid: Txid) -> Result<(), WalletError> {
        let is_meant =
            |fund: &Fund| fund.waiting().is_some_and(|(_, tx)| tx.compute_txid() == txid);
        let found = self.entries.live().find(|(_, fund)| is_meant(fund));
        let (id, fund) = found.ok_or(PsbtFault::Unknown)?;
        if fund.kind == Kind::Terms {
            return Err(PsbtFault::OfTrade.into());
        }
        let fund = fund.clone();
        if !fund.awaits {
            return self.store_entry(id, Entry::Live(Fund { bump: None, ..fund }));
        }
        if fund.is_exported {
            return self.store_entry(id, Entry::Live(Fund { is_lent: true, ..fund }));
        }
        self.commit(vec![erase(FUND_TABLE, id)])?;
        self.entries.remove(&id);
        self.refresh_balance();
        Ok(())
    }

    /// What a transaction is for: the one that it is, else the first that waits and shares a coin
    /// with it, to say what is wrong.
    fn meant(
        &self,
        theirs: &Transaction,
    ) -> Result<(EntryId, &Fund, Form, &Transaction), PsbtFault> {
        let txid = theirs.compute_txid();
        let same = self.entries.live().find_map(|(id, fund)| {
            let (form, tx) = fund.forms().find(|(_, tx)| tx.compute_txid() == txid)?;
            Some((id, fund, form, tx))
        });
        let spent: BTreeSet<OutPoint> =
            theirs.input.iter().map(|input| input.previous_output).collect();
        let shares = |(id, fund): (EntryId, &'_ Fund)| {
            let (form, tx) = fund.waiting()?;
            let shares = tx.input.iter().any(|input| spent.contains(&input.previous_output));
            shares.then_some((id, form))
        };
        if let Some(found) = same {
            return Ok(found);
        }
        let (id, _) = self.entries.live().find_map(shares).ok_or(PsbtFault::Unknown)?;
        let Some(Entry::Live(fund)) = self.entries.get(&id) else { return Err(PsbtFault::Unknown) };
        let (form, tx) = fund.waiting().ok_or(PsbtFault::Unknown)?;
        Ok((id, fund, form, tx))
    }

    /// The transaction with the witnesses that came back, each of them checked.
    fn signed(
        &self,
        psbt: &Psbt,
        ours: Transaction,
        prevouts: &[TxOut],
    ) -> Result<Transaction, PsbtFault> {
        let mut unsigned = ours.clone();
        unsigned.input.iter_mut().for_each(|input| input.witness = Witness::new());
        let mut cache = SighashCache::new(&unsigned);
        let mut signed = ours;
        for (index, input) in signed.input.iter_mut().enumerate() {
            let found = psbt.inputs.get(index).ok_or(PsbtFault::Unsigned { input: index })?;
            let coin = prevouts.get(index).ok_or(PsbtFault::Inputs)?;
            if found.witness_utxo.as_ref().is_some_and(|told| told != coin) {
                return Err(PsbtFault::Inputs);
            }
            input.witness = if coin.script_pubkey.is_p2tr() {
                self.key_spend(&mut cache, index, found, prevouts)?
            } else {
                self.wpkh_spend(&mut cache, index, found, coin)?
            };
        }
        Ok(signed)
    }

    fn key_spend(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        input: &Input,
        prevouts: &[TxOut],
    ) -> Result<Witness, PsbtFault> {
        let invalid = PsbtFault::Signature { input: index };
        let signature = match (&input.final_script_witness, input.tap_key_sig) {
            (Some(witness), _) => match (witness.len(), witness.nth(0)) {
                (1, Some(bytes)) => read_schnorr(bytes, index)?,
                _ => return Err(invalid),
            },
            (None, Some(signature)) => signature,
            (None, None) => return Err(PsbtFault::Unsigned { input: index }),
        };
        if !matches!(signature.sighash_type, TapSighashType::Default | TapSighashType::All) {
            return Err(PsbtFault::Sighash { input: index });
        }
        let script = prevouts.get(index).map(|coin| coin.script_pubkey.as_bytes());
        let key = script.and_then(|bytes| bytes.get(2..)).map(XOnlyPublicKey::from_slice);
        let Some(Ok(key)) = key else { return Err(invalid) };
        let all = Prevouts::All(prevouts);
        let hash = cache.taproot_key_spend_signature_hash(index, &all, signature.sighash_type);
        let message = Message::from(hash.map_err(|_| invalid)?);
        let checked = self.keys.secp().verify_schnorr(&signature.signature, &message, &key);
        checked.map_err(|_| invalid)?;
        Ok(Witness::p2tr_key_spend(&signature))
    }

    fn wpkh_spend(
        &self,
        cache: &mut SighashCache<&Transaction>,
        index: usize,
        input: &Input,
        coin: &TxOut,
    ) -> Result<Witness, PsbtFault> {
        let invalid = PsbtFault::Signature { input: index };
        let pays = |key: &bitcoin::PublicKey| {
            let hash = key.wpubkey_hash().ok();
            hash.is_some_and(|hash| ScriptBuf::new_p2wpkh(&hash) == coin.script_pubkey)
        };
        let (key, signature) = match &input.final_script_witness {
            Some(witness) => {
                let (2, Some(signature), Some(key)) =
                    (witness.len(), witness.nth(0), witness.nth(1))
                else {
                    return Err(invalid);
                };
                let key = bitcoin::PublicKey::from_slice(key).map_err(|_| invalid)?;
                (key, read_ecdsa(signature, index)?)
            }
            None => {
                let own = input.partial_sigs.iter().find(|(key, _)| pays(key));
                let (key, signature) = own.ok_or(PsbtFault::Unsigned { input: index })?;
                (*key, *signature)
            }
        };
        if signature.sighash_type != EcdsaSighashType::All {
            return Err(PsbtFault::Sighash { input: index });
        }
        if !pays(&key) {
            return Err(invalid);
        }
        let (script, all) = (&coin.script_pubkey, EcdsaSighashType::All);
        let hash = cache.p2wpkh_signature_hash(index, script, coin.value, all);
        let message = Message::from(hash.map_err(|_| invalid)?);
        let checked = self.keys.secp().verify_ecdsa(&message, &signature.signature, &key.inner);
        checked.map_err(|_| invalid)?;
        Ok(Witness::p2wpkh(&signature, &key.inner))
    }
}

fn read_schnorr(bytes: &[u8], input: usize) -> Result<taproot::Signature, PsbtFault> {
    taproot::Signature::from_slice(bytes).map_err(|error| match error {
        taproot::SigFromSliceError::SighashType(_) => PsbtFault::Sighash { input },
        _ => PsbtFault::Signature { input },
    })
}

fn read_ecdsa(bytes: &[u8], input: usize) -> Result<ecdsa::Signature, PsbtFault> {
    ecdsa::Signature::from_slice(bytes).map_err(|error| match error {
        ecdsa::Error::SighashType(_) => PsbtFault::Sighash { input },
        _ => PsbtFault::Signature { input },
    })
}

/// Whether two transactions are the same but for their witnesses.
fn compare(theirs: &Transaction, ours: &Transaction) -> Result<(), PsbtFault> {
    let coins = |tx: &Transaction| -> Vec<_> {
        tx.input.iter().map(|input| input.previous_output).collect()
    };
    if coins(theirs) != coins(ours) {
        Err(PsbtFault::Inputs)
    } else if theirs.output != ours.output {
        Err(PsbtFault::Outputs)
    } else if theirs.compute_txid() != ours.compute_txid() {
        Err(PsbtFault::Form)
    } else {
        Ok(())
    }
}
