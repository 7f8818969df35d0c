//! One transaction that several pay: all contracts of some terms are its outputs, and each funder
//! puts in coins of its own.
//!
//! ```text
//! coins of funder 1 … k  →  contract 1 … k, change of those who have any
//! ```
//!
//! Everybody declares its coins and its change first, so all outputs are fixed before anyone signs,
//! and nobody needs a coin of an exact value. Each signs its own coins for all outputs
//! (`ALL|ANYONECANPAY`): the transaction is invalid until everyone has.
//!
//! A declared coin needs no look-up. Its signature commits to the value and script of the coin as it
//! stands on the chain, and is checked here against what was declared: it fits both or the
//! transaction is worth nothing to anybody.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::TweakedPublicKey;
use bitcoin::secp256k1::schnorr::Signature as Schnorr;
use bitcoin::secp256k1::{Message, Secp256k1, Verification, XOnlyPublicKey};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, Script, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Txid,
    Witness, taproot,
};
use serde::{Deserialize, Serialize};

use super::fees;
use super::script::Contract;
use crate::limits::JOINT_COINS_MAX;

/// What every signature of a joint funding commits to.
pub const SIGHASH: TapSighashType = TapSighashType::AllPlusAnyoneCanPay;

/// A Schnorr signature, in halves.
pub type Signature = [[u8; 32]; 2];

/// Weight of a key-path input with its signature and sighash type, of a taproot output, and of an
/// output without its script.
const WEIGHT: [u64; 3] = [231, 172, 36];
/// Weight of what comes beside inputs and outputs, of which each of at least two pays a half.
const OVERHEAD_WEIGHT: u64 = 42;

/// A coin that a funder puts in: a taproot output, spent by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coin {
    pub txid: [u8; 32],
    pub vout: u32,
    pub value_sat: u64,
    /// Output key, x-only.
    pub key: [u8; 32],
}

/// What a funder gets back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub spk: Vec<u8>,
    pub value_sat: u64,
}

/// What one funder puts in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// 1 to [`JOINT_COINS_MAX`].
    pub coins: Vec<Coin>,
    pub change: Option<Change>,
}

/// Why a contribution, or a signature for it, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JointError {
    /// No coin or too many, a key that is none, change without a script or below dust.
    #[error("the contribution is malformed")]
    Malformed,
    /// Its coins do not make up its contract, its change and its fee.
    #[error("the coins of a contribution are not enough")]
    TooLittle,
    /// Two funders name the same coin, or one names it twice.
    #[error("a coin is named twice")]
    CoinTwice,
    /// Not as many contributions or signatures as there are funders and coins.
    #[error("contributions are missing")]
    Missing,
    /// A signature that does not hold for all outputs.
    #[error("the signature of a coin does not hold")]
    Signature,
}

impl JointError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "joint.malformed",
            Self::TooLittle => "joint.too_little",
            Self::CoinTwice => "joint.coin_twice",
            Self::Missing => "joint.missing",
            Self::Signature => "joint.signature",
        }
    }
}

impl Coin {
    /// Of a taproot output; `None` if it is another.
    #[must_use]
    pub fn new(outpoint: OutPoint, output: &TxOut) -> Option<Self> {
        let script = output.script_pubkey.as_bytes();
        let key = script.get(2..)?.try_into().ok().filter(|_| output.script_pubkey.is_p2tr())?;
        let (txid, vout) = (outpoint.txid.to_byte_array(), outpoint.vout);
        Some(Self { txid, vout, value_sat: output.value.to_sat(), key })
    }

    /// Where it stands.
    #[must_use]
    pub fn outpoint(&self) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array(self.txid), vout: self.vout }
    }

    /// What it is.
    fn output(&self, key: XOnlyPublicKey) -> TxOut {
        let key = TweakedPublicKey::dangerous_assume_tweaked(key);
        let script_pubkey = ScriptBuf::new_p2tr_tweaked(key);
        TxOut { value: Amount::from_sat(self.value_sat), script_pubkey }
    }

    fn key(&self) -> Result<XOnlyPublicKey, JointError> {
        XOnlyPublicKey::from_slice(&self.key).map_err(|_| JointError::Malformed)
    }
}

impl Contribution {
    fn paid_sat(&self) -> Option<u64> {
        self.coins.iter().try_fold(0_u64, |sum, coin| sum.checked_add(coin.value_sat))
    }

    fn change_sat(&self) -> u64 {
        self.change.as_ref().map_or(0, |change| change.value_sat)
    }

    /// What it leaves for the fee, sat; `None` if its coins do not even make up its contract.
    #[must_use]
    pub fn fee_sat(&self, amount_sat: u64) -> Option<u64> {
        self.paid_sat()?.checked_sub(amount_sat)?.checked_sub(self.change_sat())
    }

    /// What it adds to the size of the transaction, with its part of what is there once, vB.
    #[must_use]
    pub fn vsize(&self) -> u64 {
        let [coin, contract, output] = WEIGHT;
        let change = self.change.as_ref().map_or(0, |change| output + 4 * change.spk.len() as u64);
        let coins = coin.saturating_mul(self.coins.len() as u64);
        (coins + contract + change + OVERHEAD_WEIGHT / 2).div_ceil(4)
    }

    /// Whether it pays its contract, and its part of the fee at a rate.
    ///
    /// # Errors
    /// `joint.malformed`, `joint.coin_twice` or `joint.too_little`.
    pub fn check(&self, amount_sat: u64, feerate_sat_kvb: u64) -> Result<(), JointError> {
        if !(1..=JOINT_COINS_MAX).contains(&self.coins.len()) {
            return Err(JointError::Malformed);
        }
        let keys: Result<Vec<_>, _> = self.coins.iter().map(Coin::key).collect();
        keys?;
        if let Some(Change { spk, value_sat }) = &self.change {
            // What no node relays would make the whole one that only a miner takes.
            let script = Script::from_bytes(spk);
            let is_relayed = script.is_p2tr() || script.is_p2wpkh() || script.is_p2wsh();
            if !is_relayed || *value_sat < fees::DUST_SAT {
                return Err(JointError::Malformed);
            }
        }
        let coins: BTreeSet<OutPoint> = self.coins.iter().map(Coin::outpoint).collect();
        if coins.len() < self.coins.len() {
            return Err(JointError::CoinTwice);
        }
        let due_sat = fees::fee_sat(feerate_sat_kvb, self.vsize());
        let is_enough = self.fee_sat(amount_sat).is_some_and(|fee_sat| fee_sat >= due_sat);
        if is_enough { Ok(()) } else { Err(JointError::TooLittle) }
    }
}

/// The funding of several, without signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint {
    tx: Transaction,
    /// What its inputs spend.
    spent: Vec<TxOut>,
    /// Of each funder, the number of its first input and behind its last.
    places: Vec<(usize, usize)>,
}

impl Joint {
    /// Of the contracts of terms and what each funder puts in, in the order of the terms. The same
    /// for everybody who has the same contributions.
    ///
    /// # Errors
    /// As [`Contribution::check`], for each; `joint.missing`; `joint.coin_twice`.
    pub fn new(
        contracts: &[Contract],
        contributions: &[Contribution],
        feerate_sat_kvb: u64,
    ) -> Result<Self, JointError> {
        if contributions.len() != contracts.len() {
            return Err(JointError::Missing);
        }
        let mut output: Vec<TxOut> = contracts
            .iter()
            .map(|contract| TxOut {
                value: Amount::from_sat(contract.amount_sat),
                script_pubkey: contract.spk.clone(),
            })
            .collect();
        let (mut input, mut spent, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (contract, contribution) in contracts.iter().zip(contributions) {
            contribution.check(contract.amount_sat, feerate_sat_kvb)?;
            for coin in &contribution.coins {
                spent.push(coin.output(coin.key()?));
                input.push(TxIn {
                    previous_output: coin.outpoint(),
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    witness: Witness::new(),
                });
            }
            places.push((input.len() - contribution.coins.len(), input.len()));
            output.extend(contribution.change.iter().map(|change| TxOut {
                value: Amount::from_sat(change.value_sat),
                script_pubkey: ScriptBuf::from_bytes(change.spk.clone()),
            }));
        }
        let coins: BTreeSet<OutPoint> = input.iter().map(|input| input.previous_output).collect();
        if coins.len() < input.len() {
            return Err(JointError::CoinTwice);
        }
        let (version, lock_time) = (Version::TWO, LockTime::ZERO);
        Ok(Self { tx: Transaction { version, lock_time, input, output }, spent, places })
    }

    /// The transaction without signatures: its id is final, unless somebody adds an input.
    #[must_use]
    pub fn tx(&self) -> &Transaction {
        &self.tx
    }

    /// What signs an input, as a digest; `None` if there is no such input.
    fn message(&self, vin: usize) -> Option<Message> {
        let mut cache = SighashCache::new(&self.tx);
        let spent = self.spent.get(vin)?;
        let spent = Prevouts::One(vin, spent);
        let sighash = cache.taproot_key_spend_signature_hash(vin, &spent, SIGHASH).ok()?;
        Some(Message::from_digest(sighash.to_byte_array()))
    }

    /// Checks what a funder has signed, one signature for each of its coins.
    ///
    /// # Errors
    /// `joint.missing` or `joint.signature`.
    pub fn check_signatures<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        funder: usize,
        signatures: &[Signature],
    ) -> Result<(), JointError> {
        let (from, to) = *self.places.get(funder).ok_or(JointError::Missing)?;
        if signatures.len() != to - from {
            return Err(JointError::Missing);
        }
        for (vin, signature) in (from..to).zip(signatures) {
            let script = self.spent.get(vin).map(|spent| spent.script_pubkey.as_bytes());
            let key = script.and_then(|script| script.get(2..));
            let key = key.and_then(|key| XOnlyPublicKey::from_slice(key).ok());
            let signature = Schnorr::from_slice(signature.as_flattened()).ok();
            let parts = self.message(vin).zip(key).zip(signature);
            let ((message, key), signature) = parts.ok_or(JointError::Signature)?;
            secp.verify_schnorr(&signature, &message, &key).map_err(|_| JointError::Signature)?;
        }
        Ok(())
    }

    /// The signatures of a funder in a transaction that the wallet has signed.
    #[must_use]
    pub fn signatures(&self, funder: usize, tx: &Transaction) -> Option<Vec<Signature>> {
        let (from, to) = *self.places.get(funder)?;
        let read = |input: &TxIn| {
            let bytes = input.witness.nth(0).filter(|_| input.witness.len() == 1)?;
            let signature = taproot::Signature::from_slice(bytes).ok()?;
            let halves = signature.signature.serialize();
            let (halves, _) = halves.as_chunks::<32>();
            let halves = <Signature>::try_from(halves).ok()?;
            (signature.sighash_type == SIGHASH).then_some(halves)
        };
        tx.input.get(from..to)?.iter().map(read).collect()
    }

    /// The whole transaction. The signatures have been checked.
    ///
    /// # Errors
    /// `joint.missing`.
    pub fn whole(&self, signatures: &[&[Signature]]) -> Result<Transaction, JointError> {
        let all: Vec<&Signature> = signatures.iter().copied().flatten().collect();
        if signatures.len() != self.places.len() || all.len() != self.tx.input.len() {
            return Err(JointError::Missing);
        }
        let mut tx = self.tx.clone();
        for (input, signature) in tx.input.iter_mut().zip(all) {
            let signature = Schnorr::from_slice(signature.as_flattened());
            let signature = signature.map_err(|_| JointError::Signature)?;
            let signature = taproot::Signature { signature, sighash_type: SIGHASH };
            input.witness = Witness::p2tr_key_spend(&signature);
        }
        Ok(tx)
    }
}

#[cfg(test)]
mod tests;
