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
use super::entry::{Cancel, Entry, EntryId, Fund};
use super::error::WalletError;
use super::fund::Funded;

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
        }
    }
}

/// A transaction that waits for a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Terms that it funds, or pays back.
    pub terms_hash: [u8; 32],
    pub txid: Txid,
    /// Whether it replaces a funding, and pays its coins back.
    pub is_cancel: bool,
    /// What it pays to others, sat.
    pub amount_sat: u64,
    pub fee_sat: u64,
}

impl Fund {
    /// Which of its versions waits for a signature: itself, or what cancels it. One whose coins
    /// others may take has waited long enough.
    fn waiting(&self) -> Option<(&Transaction, bool)> {
        if self.awaits {
            return (!self.is_lent).then_some((&self.tx, false));
        }
        let cancel = self.cancel.as_ref().filter(|cancel| cancel.awaits)?;
        Some((&cancel.tx, true))
    }
}

impl Wallet {
    /// Whether its keys are elsewhere.
    pub fn is_watch_only(&self) -> bool {
        self.keys.is_watch_only()
    }

    /// What waits for a signature.
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.entries.live().filter_map(|(terms_hash, fund)| {
            let (tx, is_cancel) = fund.waiting()?;
            let paid_sat: u64 = fund.outputs.iter().map(|(_, sat)| sat).sum();
            Some(Waiting {
                terms_hash,
                txid: tx.compute_txid(),
                is_cancel,
                amount_sat: if is_cancel { 0 } else { paid_sat },
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
    pub fn export(
        &mut self,
        txid: Txid,
    ) -> Result<(Vec<u8>, Option<(EntryId, Funded)>), WalletError> {
        let found = self.entries.live().find_map(|(id, fund)| {
            let (tx, is_cancel) = fund.waiting().filter(|(tx, _)| tx.compute_txid() == txid)?;
            Some((id, fund.clone(), tx.clone(), is_cancel))
        });
        let (id, fund, tx, is_cancel) = found.ok_or(PsbtFault::Unknown)?;
        let bytes = self.psbt(&fund, &tx)?;
        if is_cancel {
            return Ok((bytes, None));
        }
        let funded = fund.funded();
        if !fund.is_exported {
            self.store_entry(id, Entry::Live(Fund { is_exported: true, ..fund }))?;
        }
        Ok((bytes, Some((id, funded))))
    }

    /// Fundings that were handed out and that the chain has not seen, whether they have come back
    /// signed or not.
    pub fn exported(&self) -> Vec<(EntryId, Funded)> {
        let is_out = |fund: &Fund| fund.is_exported && !fund.is_lent && !fund.is_broadcast;
        let exported = self.entries.live().filter(|(_, fund)| is_out(fund));
        exported.map(|(id, fund)| (id, fund.funded())).collect()
    }

    /// Takes over from the chain what was signed elsewhere and did not come back.
    pub(super) fn adopt_seen(&mut self) -> Result<(), WalletError> {
        let graph = self.bdk.tx_graph();
        let seen = |(id, fund): (EntryId, &Fund)| {
            let tx = graph.get_tx(fund.tx.compute_txid())?;
            let fund = Fund { tx: (*tx).clone(), awaits: false, is_lent: false, ..fund.clone() };
            Some((id, Fund { is_broadcast: true, ..fund }))
        };
        let waiting = self.entries.live().filter(|(_, fund)| fund.awaits);
        let seen: Vec<_> = waiting.filter_map(seen).collect();
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
    pub fn take_psbt(&mut self, bytes: &[u8]) -> Result<(EntryId, Funded), WalletError> {
        let psbt = Psbt::deserialize(bytes).map_err(|_| PsbtFault::Malformed)?;
        let (id, fund, is_cancel) = self.meant(&psbt.unsigned_tx)?;
        let ours = if is_cancel { fund.cancel.as_ref().map(|c| &c.tx) } else { Some(&fund.tx) };
        let ours = ours.ok_or(PsbtFault::Unknown)?;
        compare(&psbt.unsigned_tx, ours)?;
        let prevouts = fund.spent_by(ours);
        let signed = self.signed(&psbt, ours.clone(), &prevouts)?;
        let fund = fund.clone();
        let is_waiting = fund.waiting().is_some_and(|(_, cancels)| cancels == is_cancel);
        if !is_waiting && !is_cancel && fund.awaits {
            return Err(PsbtFault::Unknown.into());
        }
        if !is_waiting {
            let answer = fund.cancel.as_ref().filter(|_| is_cancel);
            return Ok((id, answer.map_or_else(|| fund.funded(), |c| fund.cancelled(c))));
        }
        let taken = match fund.cancel.clone().filter(|_| is_cancel) {
            Some(cancel) => {
                let cancel = Cancel { tx: signed, awaits: false, ..cancel };
                Fund { cancel: Some(cancel), is_lent: false, ..fund }
            }
            None => Fund { tx: signed, awaits: false, ..fund },
        };
        let answer = taken.cancel.as_ref().filter(|_| is_cancel);
        let funded = answer.map_or_else(|| taken.funded(), |cancel| taken.cancelled(cancel));
        self.store_entry(id, Entry::Live(taken))?;
        Ok((id, funded))
    }

    /// The entry that a transaction is for, and whether it cancels that: the one whose transaction
    /// it is, else the first that waits and shares a coin with it, to say what is wrong.
    fn meant(&self, theirs: &Transaction) -> Result<(EntryId, &Fund, bool), PsbtFault> {
        let txid = theirs.compute_txid();
        let is_it = |tx: &Transaction| tx.compute_txid() == txid;
        let same = self.entries.live().find_map(|(id, fund)| {
            let cancels = fund.cancel.as_ref().is_some_and(|cancel| is_it(&cancel.tx));
            (cancels || is_it(&fund.tx)).then_some((id, fund, cancels))
        });
        let spent: BTreeSet<OutPoint> =
            theirs.input.iter().map(|input| input.previous_output).collect();
        let shares = |(id, fund): (EntryId, &'_ Fund)| {
            let (tx, cancels) = fund.waiting()?;
            let shares = tx.input.iter().any(|input| spent.contains(&input.previous_output));
            shares.then_some((id, cancels))
        };
        if let Some(found) = same {
            return Ok(found);
        }
        let (id, cancels) = self.entries.live().find_map(shares).ok_or(PsbtFault::Unknown)?;
        match self.entries.get(&id) {
            Some(Entry::Live(fund)) => Ok((id, fund, cancels)),
            Some(Entry::Over { .. }) | None => Err(PsbtFault::Unknown),
        }
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
