//! CLAIM and REFUND: built and signed when they are sent, and recognised on the chain.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, Signing, Verification};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Txid, Witness,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::script::{Contract, PREIMAGE_BYTES, leaf_hash};
use super::{fees, keyagg};
use crate::ids::TermsHash;
use crate::wire::sha256;

/// A transaction with its id, which is computed once. Records keep its consensus bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTx {
    txid: Txid,
    tx: Transaction,
}

impl KnownTx {
    /// Computes the id.
    #[must_use]
    pub fn new(tx: Transaction) -> Self {
        Self { txid: tx.compute_txid(), tx }
    }

    /// Its id.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// The transaction.
    #[must_use]
    pub fn tx(&self) -> &Transaction {
        &self.tx
    }
}

impl Serialize for KnownTx {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        bitcoin::consensus::serialize(&self.tx).serialize(to)
    }
}

impl<'de> Deserialize<'de> for KnownTx {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        bitcoin::consensus::deserialize(&bytes).map(Self::new).map_err(serde::de::Error::custom)
    }
}

/// A transaction of ours with its fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnTx {
    pub tx: KnownTx,
    /// What it pays, sat.
    pub fee_sat: u64,
}

impl OwnTx {
    /// A complete and signed transaction.
    #[must_use]
    pub fn new(tx: Transaction, fee_sat: u64) -> Self {
        Self { tx: KnownTx::new(tx), fee_sat }
    }

    /// Whether it spends an output: after a reorganisation the contract may stand elsewhere.
    #[must_use]
    pub fn spends(&self, outpoint: OutPoint) -> bool {
        self.place_of(outpoint).is_some()
    }

    fn place_of(&self, outpoint: OutPoint) -> Option<usize> {
        self.tx.tx.input.iter().position(|input| input.previous_output == outpoint)
    }

    /// What one of its inputs bears of its fee, sat: an equal part.
    #[must_use]
    pub fn share_sat(&self, outpoint: OutPoint) -> u64 {
        let inputs = self.tx.tx.input.len();
        fees::share_sat(self.fee_sat, inputs, self.place_of(outpoint).unwrap_or(0))
    }
}

/// A contract on the chain: where, and how much it really holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding<'a> {
    pub contract: &'a Contract,
    pub outpoint: OutPoint,
    /// Its value, sat; at least the agreed amount.
    pub value_sat: u64,
}

/// Output of `tx` that pays a contract in full.
#[must_use]
pub fn contract_vout(tx: &Transaction, contract: &Contract) -> Option<u32> {
    let pays = |out: &TxOut| {
        out.script_pubkey == contract.spk && out.value.to_sat() >= contract.amount_sat
    };
    tx.output.iter().position(pays).and_then(|vout| u32::try_from(vout).ok())
}

/// What an input that spends a contract reveals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpendKind {
    /// The seller's leaf, with this preimage.
    Claim([u8; 32]),
    /// The funder's leaf.
    Refund,
    /// The key path: by who had both keys.
    Taken,
    /// A witness that consensus would refuse.
    Other,
}

/// First byte of an annex.
const ANNEX_TAG: u8 = 0x50;

/// Recognises the spend of an outpoint: number of the input, and what it is.
#[must_use]
pub fn spend_of(
    tx: &Transaction,
    outpoint: OutPoint,
    contract: &Contract,
) -> Option<(u32, SpendKind)> {
    let mut inputs = tx.input.iter().enumerate();
    let (vin, input) = inputs.find(|(_, input)| input.previous_output == outpoint)?;
    Some((u32::try_from(vin).ok()?, spend_kind(&input.witness, contract)))
}

fn spend_kind(witness: &Witness, contract: &Contract) -> SpendKind {
    let parts: Vec<&[u8]> = witness.iter().collect();
    // An annex changes nothing of what is spent, and how (BIP-341).
    let parts = match parts.as_slice() {
        [parts @ .., last] if !parts.is_empty() && last.first() == Some(&ANNEX_TAG) => parts,
        parts => parts,
    };
    match parts {
        [_sig] => SpendKind::Taken,
        [x, _sig, leaf, _control] if *leaf == contract.claim.as_bytes() => {
            // Consensus has checked both against the leaf; a mempool transaction might
            // come from a source that has not.
            match <[u8; PREIMAGE_BYTES]>::try_from(*x) {
                Ok(x) if contract.hashes_to(x) => SpendKind::Claim(x),
                _ => SpendKind::Other,
            }
        }
        [_sig, leaf, _control] if *leaf == contract.refund.as_bytes() => SpendKind::Refund,
        _ => SpendKind::Other,
    }
}

impl Contract {
    /// Whether `x` opens the claim leaf.
    #[must_use]
    pub fn hashes_to(&self, x: [u8; 32]) -> bool {
        // The leaf is 20 <S> ad 82 01 20 88 a8 20 <H> 87: H stands at bytes 40 to 71.
        self.claim.as_bytes().get(40..72) == Some(sha256(&[&x]).as_slice())
    }
}

fn unsigned(
    holdings: &[Holding<'_>],
    to: ScriptBuf,
    fee_sat: u64,
    lock_time: LockTime,
) -> Transaction {
    let input = |holding: &Holding<'_>| TxIn {
        previous_output: holding.outpoint,
        script_sig: ScriptBuf::new(),
        // Replaceable, and lets the lock time bind.
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let value_sat = holdings.iter().map(|holding| holding.value_sat).fold(0, u64::saturating_add);
    Transaction {
        version: Version::TWO,
        lock_time,
        input: holdings.iter().map(input).collect(),
        output: vec![TxOut {
            value: Amount::from_sat(value_sat.saturating_sub(fee_sat)),
            script_pubkey: to,
        }],
    }
}

/// What some contracts hold, as signatures commit to it.
fn spent(holdings: &[Holding<'_>]) -> Vec<TxOut> {
    let spent = |holding: &Holding<'_>| TxOut {
        value: Amount::from_sat(holding.value_sat),
        script_pubkey: holding.contract.spk.clone(),
    };
    holdings.iter().map(spent).collect()
}

/// The witness of an input for a leaf, without auxiliary randomness (the engine has none):
/// `before ‖ signature ‖ leaf ‖ control block`.
fn script_witness<C: Signing>(
    secp: &Secp256k1<C>,
    tx: &Transaction,
    vin: usize,
    spent: &[TxOut],
    (contract, leaf): (&Contract, &ScriptBuf),
    key: &Keypair,
    before: Option<[u8; 32]>,
) -> Option<Witness> {
    let control = contract.control_block(leaf)?;
    let sighash = SighashCache::new(tx)
        .taproot_script_spend_signature_hash(
            vin,
            &Prevouts::All(spent),
            leaf_hash(leaf),
            TapSighashType::Default,
        )
        .ok()?;
    let message = Message::from_digest(sighash.to_byte_array());
    let signature = secp.sign_schnorr_no_aux_rand(&message, key);
    let mut witness = Witness::new();
    if let Some(x) = before {
        witness.push(x);
    }
    witness.push(signature.serialize());
    witness.push(leaf.as_bytes());
    witness.push(control.serialize());
    Some(witness)
}

/// How the seller spends a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// By script, with its key: reveals the preimage.
    Script { key: Keypair, x: [u8; 32] },
    /// With both keys, of seller and funder.
    Keys { keys: [Keypair; 2], terms_hash: TermsHash },
}

impl Means {
    fn witness<C: Signing + Verification>(
        &self,
        secp: &Secp256k1<C>,
        tx: &Transaction,
        vin: usize,
        spent: &[TxOut],
        contract: &Contract,
    ) -> Option<Witness> {
        let (keys, terms_hash) = match self {
            Self::Script { key, x } => {
                let leaf = (contract, &contract.claim);
                return script_witness(secp, tx, vin, spent, leaf, key, Some(*x));
            }
            Self::Keys { keys, terms_hash } => (keys, terms_hash),
        };
        let secret = keyagg::aggregate_secret(secp, keys, terms_hash.0).ok()?;
        let internal = Keypair::from_secret_key(secp, &secret);
        if internal.x_only_public_key().0 != contract.internal_key() {
            return None;
        }
        let key = internal.tap_tweak(secp, contract.merkle_root()).to_keypair();
        let prevouts = Prevouts::All(spent);
        let sighash = SighashCache::new(tx)
            .taproot_key_spend_signature_hash(vin, &prevouts, TapSighashType::Default)
            .ok()?;
        let message = Message::from_digest(sighash.to_byte_array());
        let mut witness = Witness::new();
        witness.push(secp.sign_schnorr_no_aux_rand(&message, &key).serialize());
        Some(witness)
    }
}

/// Spends contracts of one seller to one place. `None` if one is not a template 1 tree, or the keys
/// are not those of the contract.
#[must_use]
pub fn claim_all<C: Signing + Verification>(
    secp: &Secp256k1<C>,
    contracts: &[(Holding<'_>, Means)],
    to: ScriptBuf,
    fee_sat: u64,
) -> Option<OwnTx> {
    let holdings: Vec<Holding<'_>> = contracts.iter().map(|(holding, _)| *holding).collect();
    let mut tx = unsigned(&holdings, to, fee_sat, LockTime::ZERO);
    let spent = spent(&holdings);
    let witness = |(vin, (holding, means)): (usize, &(Holding<'_>, Means))| {
        means.witness(secp, &tx, vin, &spent, holding.contract)
    };
    let witnesses: Option<Vec<Witness>> = contracts.iter().enumerate().map(witness).collect();
    for (input, witness) in tx.input.iter_mut().zip(witnesses?) {
        input.witness = witness;
    }
    Some(OwnTx::new(tx, fee_sat))
}

/// The seller's claim of one contract: reveals `x`. `None` as for [`claim_all`].
#[must_use]
pub fn claim<C: Signing + Verification>(
    secp: &Secp256k1<C>,
    holding: Holding<'_>,
    key: &Keypair,
    x: [u8; 32],
    to: ScriptBuf,
    fee_sat: u64,
) -> Option<OwnTx> {
    claim_all(secp, &[(holding, Means::Script { key: *key, x })], to, fee_sat)
}

/// The funder's refund: final from the block after `refund_at` on. `None` as for [`claim`],
/// or if `refund_at` is no height.
#[must_use]
pub fn refund<C: Signing>(
    secp: &Secp256k1<C>,
    holding: Holding<'_>,
    key: &Keypair,
    refund_at: u32,
    to: ScriptBuf,
    fee_sat: u64,
) -> Option<OwnTx> {
    let lock_time = LockTime::from_height(refund_at).ok()?;
    let mut tx = unsigned(&[holding], to, fee_sat, lock_time);
    let (spent, leaf) = (spent(&[holding]), (holding.contract, &holding.contract.refund));
    tx.input[0].witness = script_witness(secp, &tx, 0, &spent, leaf, key, None)?;
    Some(OwnTx::new(tx, fee_sat))
}

/// The spend by both keys, of seller and funder, that no script and no preimage shows. `None`
/// if they are not the keys of this contract.
#[must_use]
pub fn key_spend<C: Signing + Verification>(
    secp: &Secp256k1<C>,
    holding: Holding<'_>,
    keys: &[Keypair; 2],
    terms_hash: TermsHash,
    to: ScriptBuf,
    fee_sat: u64,
) -> Option<OwnTx> {
    claim_all(secp, &[(holding, Means::Keys { keys: *keys, terms_hash })], to, fee_sat)
}

#[cfg(test)]
mod tests {
    use super::super::fees::{CLAIM_VSIZE, KEY_SPEND_VSIZE, REFUND_VSIZE};
    use super::*;
    use crate::settlement::sample;

    const X: [u8; 32] = [3; 32];

    fn spends() -> (Contract, OutPoint, OwnTx, OwnTx, OwnTx) {
        let secp = Secp256k1::new();
        let mut terms = sample::terms(840_000);
        terms.payment_hash = sha256(&[&X]);
        let contract = Contract::new(&secp, &terms, TermsHash([7; 32]), 0).unwrap();
        let outpoint = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 1 };
        let holding = Holding { contract: &contract, outpoint, value_sat: 20_000 };
        let to = contract.spk.clone();
        let (s, b) = (sample::keypair(&secp, 1), sample::keypair(&secp, 2));
        let claim = claim(&secp, holding, &s, X, to.clone(), 155).unwrap();
        let refund = refund(&secp, holding, &b, terms.refund_at, to.clone(), 138).unwrap();
        let hash = TermsHash([7; 32]);
        for (keys, hash) in [([s, s], hash), ([b, s], hash), ([s, b], TermsHash([8; 32]))] {
            assert_eq!(key_spend(&secp, holding, &keys, hash, to.clone(), 111), None);
        }
        let taken = key_spend(&secp, holding, &[s, b], hash, to, 111).unwrap();
        (contract.clone(), outpoint, claim, refund, taken)
    }

    #[test]
    fn sizes_are_within_two_percent_of_the_measured_ones() {
        let (_, _, claim, refund, taken) = spends();
        let all = [(&claim, CLAIM_VSIZE), (&refund, REFUND_VSIZE), (&taken, KEY_SPEND_VSIZE)];
        for (tx, expected) in all {
            let vsize = tx.tx.tx().vsize() as u64;
            assert!(vsize.abs_diff(expected) * 50 <= expected, "{vsize}, not {expected}");
        }
    }

    #[test]
    fn one_transaction_claims_several_contracts_each_by_its_own_means() {
        let secp = Secp256k1::new();
        let mut terms = sample::terms(840_000);
        terms.payment_hash = sha256(&[&X]);
        let hashes = [TermsHash([7; 32]), TermsHash([8; 32])];
        let contract = |hash| Contract::new(&secp, &terms, hash, 0).unwrap();
        let contracts = hashes.map(contract);
        let outpoint = |vout| OutPoint { txid: Txid::from_byte_array([9; 32]), vout };
        let holding = |n: usize, value_sat| {
            let (contract, outpoint) = (&contracts[n], outpoint(u32::try_from(n).unwrap()));
            Holding { contract, outpoint, value_sat }
        };
        let (s, b) = (sample::keypair(&secp, 1), sample::keypair(&secp, 2));
        let both = |terms_hash| {
            [
                (holding(0, 20_000), Means::Script { key: s, x: X }),
                (holding(1, 5_000), Means::Keys { keys: [s, b], terms_hash }),
            ]
        };
        let to = contracts[0].spk.clone();
        let own = claim_all(&secp, &both(hashes[1]), to.clone(), 213).unwrap();
        let tx = own.tx.tx();
        assert_eq!(tx.output[0].value.to_sat(), 24_787);
        assert!((tx.vsize() as u64).abs_diff(fees::spend_vsize(1, 1)) <= 1, "{}", tx.vsize());
        let kind = |n: usize| spend_of(tx, outpoint(u32::try_from(n).unwrap()), &contracts[n]);
        assert_eq!(kind(0), Some((0, SpendKind::Claim(X))));
        assert_eq!(kind(1), Some((1, SpendKind::Taken)));
        assert_eq!((own.share_sat(outpoint(0)), own.share_sat(outpoint(1))), (107, 106));
        // A key of another contract spends nothing.
        assert_eq!(claim_all(&secp, &both(hashes[0]), to, 213), None);
    }

    #[test]
    fn spends_are_recognised_by_their_leaf() {
        let (contract, outpoint, claim, refund, taken) = spends();
        assert_eq!(spend_of(taken.tx.tx(), outpoint, &contract), Some((0, SpendKind::Taken)));
        // An annex hides nothing, and is no part that counts.
        for (tx, kind) in [
            (&claim, SpendKind::Claim(X)),
            (&refund, SpendKind::Refund),
            (&taken, SpendKind::Taken),
        ] {
            let mut tx = tx.tx.tx().clone();
            tx.input[0].witness.push([ANNEX_TAG, 1]);
            assert_eq!(spend_of(&tx, outpoint, &contract), Some((0, kind)));
        }
        assert_eq!(spend_of(claim.tx.tx(), outpoint, &contract), Some((0, SpendKind::Claim(X))));
        assert_eq!(spend_of(refund.tx.tx(), outpoint, &contract), Some((0, SpendKind::Refund)));
        let elsewhere = OutPoint { vout: 0, ..outpoint };
        assert_eq!(spend_of(claim.tx.tx(), elsewhere, &contract), None);
        let mut forged = claim.tx.tx().clone();
        let parts: Vec<Vec<u8>> = forged.input[0].witness.to_vec();
        forged.input[0].witness = Witness::from_slice(&[
            vec![4; 32],
            parts[1].clone(),
            parts[2].clone(),
            parts[3].clone(),
        ]);
        assert_eq!(spend_of(&forged, outpoint, &contract), Some((0, SpendKind::Other)));
    }

    #[test]
    fn lock_times_bind() {
        let (_, _, claim, refund, _) = spends();
        let (claim, refund) = (claim.tx.tx(), refund.tx.tx());
        assert_eq!(claim.lock_time, LockTime::ZERO);
        assert_eq!(refund.lock_time.to_consensus_u32(), 840_150);
        for tx in [claim, refund] {
            assert!(
                tx.input[0].sequence.is_rbf() && tx.input[0].sequence.enables_absolute_lock_time()
            );
        }
    }
}
