//! The contract's scripts against other people's code: rust-miniscript's compiler and
//! Bitcoin Core's verifier.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::str::FromStr;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{
    All, Keypair, Message, Parity, Scalar, Secp256k1, SecretKey, XOnlyPublicKey,
};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TapSighashType, Transaction, TxIn, TxOut, Txid, Witness,
};
use capex_core::ids::{CertId, Key, TermsHash, TradeId};
use capex_core::settlement::fees::FUND_VSIZE;
use capex_core::settlement::objects::{Funder, Terms};
use capex_core::settlement::script::Contract;
use capex_core::settlement::transaction::{self, Holding};
use capex_core::units::{Units, Window};
use capex_core::wire::sha256;
use miniscript::{Descriptor, Miniscript, Tap};

const X: [u8; 32] = [3; 32];
const T0: u32 = 840_000;
const REFUND_AT: u32 = T0 + 150;
const VALUE_SAT: u64 = 20_000;

fn keypair(secp: &Secp256k1<All>, seed: u8) -> Keypair {
    Keypair::from_secret_key(secp, &SecretKey::from_slice(&[seed; 32]).unwrap())
}

fn terms(secp: &Secp256k1<All>) -> Terms {
    let xonly = |seed| keypair(secp, seed).x_only_public_key().0.serialize();
    Terms {
        v: 1,
        trade_id: TradeId([10; 32]),
        cert_id: CertId([11; 32]),
        seq: 0,
        prev_hash: [11; 32],
        class: 1,
        units: Units::range(0, 2).unwrap(),
        window: Window { start: 500_000, end: 500_004 },
        from: Key([1; 32]),
        to: Key([2; 32]),
        funders: vec![Funder { key: Key([2; 32]), refund_xonly: xonly(2), amount_sat: VALUE_SAT }],
        price_sat: VALUE_SAT,
        payment_hash: sha256(&[&X]),
        s_xonly: xonly(1),
        payout_spk: Vec::new(),
        t0: T0,
        fund_by: T0 + 36,
        refund_at: REFUND_AT,
        funding_confirmations: 6,
        template: 1,
        nonce16: [6; 16],
    }
}

fn p2tr(secp: &Secp256k1<All>, seed: u8) -> ScriptBuf {
    ScriptBuf::new_p2tr(secp, keypair(secp, seed).x_only_public_key().0, None)
}

/// Core's verdict on input 0. Without every spent output and the taproot flag, each taproot
/// spend would pass.
fn consensus(tx: &Transaction, spent: &TxOut) -> bool {
    let script = spent.script_pubkey.as_bytes();
    let utxo = bitcoinconsensus::Utxo {
        script_pubkey: script.as_ptr(),
        script_pubkey_len: u32::try_from(script.len()).unwrap(),
        value: i64::try_from(spent.value.to_sat()).unwrap(),
    };
    bitcoinconsensus::verify_with_flags(
        script,
        spent.value.to_sat(),
        &bitcoin::consensus::serialize(tx),
        Some(&[utxo]),
        0,
        bitcoinconsensus::VERIFY_ALL_PRE_TAPROOT | bitcoinconsensus::VERIFY_TAPROOT,
    )
    .is_ok()
}

struct Spends {
    contract: Contract,
    spent: TxOut,
    outpoint: OutPoint,
    secp: Secp256k1<All>,
}

fn spends() -> Spends {
    let secp = Secp256k1::new();
    let contract = Contract::new(&secp, &terms(&secp), TermsHash([7; 32]), 0).unwrap();
    let spent = TxOut { value: Amount::from_sat(VALUE_SAT), script_pubkey: contract.spk.clone() };
    let outpoint = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 };
    Spends { contract, spent, outpoint, secp }
}

impl Spends {
    fn holding(&self) -> Holding<'_> {
        Holding { contract: &self.contract, outpoint: self.outpoint, value_sat: VALUE_SAT }
    }

    fn claim(&self, seed: u8, x: [u8; 32]) -> Transaction {
        let key = keypair(&self.secp, seed);
        transaction::claim(&self.secp, self.holding(), &key, x, p2tr(&self.secp, 5), 155)
            .unwrap()
            .tx
            .tx()
            .clone()
    }

    fn refund(&self, seed: u8, refund_at: u32) -> Transaction {
        let key = keypair(&self.secp, seed);
        let to = p2tr(&self.secp, 5);
        transaction::refund(&self.secp, self.holding(), &key, refund_at, to, 138)
            .unwrap()
            .tx
            .tx()
            .clone()
    }

    fn accepts(&self, tx: &Transaction) -> bool {
        consensus(tx, &self.spent)
    }
}

/// `a_S·S + B + terms_hash·G` by the secrets of both parties: the aggregate of BIP-327 for the
/// seller's key before the buyer's, where the second has coefficient 1.
fn joint_key(secp: &Secp256k1<All>, terms_hash: TermsHash) -> XOnlyPublicKey {
    let secret = |seed| {
        let pair = keypair(secp, seed);
        let (_, parity) = pair.x_only_public_key();
        let secret = pair.secret_key();
        if parity == Parity::Odd { secret.negate() } else { secret }
    };
    let (s, b) = (secret(1), secret(2));
    let tagged = |tag: &str, data: &[u8]| {
        let tag = sha256(&[tag.as_bytes()]);
        sha256(&[&tag, &tag, data])
    };
    let [first, second] = [s, b].map(|secret| secret.public_key(secp).serialize());
    let list = tagged("KeyAgg list", &[first, second].concat());
    let of_first = tagged("KeyAgg coefficient", &[&list[..], &first[..]].concat());
    let scalar = |bytes| Scalar::from_be_bytes(bytes).unwrap();
    let sum = s.mul_tweak(&scalar(of_first)).unwrap();
    let sum = sum.add_tweak(&Scalar::from(b)).unwrap();
    sum.add_tweak(&scalar(terms_hash.0)).unwrap().x_only_public_key(secp).0
}

#[test]
fn leaves_and_address_equal_those_that_miniscript_compiles() {
    let secp = Secp256k1::new();
    let terms = terms(&secp);
    let contract = Contract::new(&secp, &terms, TermsHash([7; 32]), 0).unwrap();
    let s = XOnlyPublicKey::from_slice(&terms.s_xonly).unwrap();
    let b = XOnlyPublicKey::from_slice(&terms.funders[0].refund_xonly).unwrap();
    let hash = bitcoin::hashes::sha256::Hash::from_byte_array(terms.payment_hash);
    let claim = format!("and_v(v:pk({s}),sha256({hash}))");
    let refund = format!("and_v(v:pk({b}),after({REFUND_AT}))");
    let leaf = |text: &str| Miniscript::<XOnlyPublicKey, Tap>::from_str(text).unwrap().encode();
    assert_eq!(contract.claim, leaf(&claim));
    assert_eq!(contract.refund, leaf(&refund));
    let internal = joint_key(&secp, TermsHash([7; 32]));
    assert_eq!(contract.internal_key(), internal);
    let text = format!("tr({internal},{{{claim},{refund}}})");
    let descriptor = Descriptor::<XOnlyPublicKey>::from_str(&text).unwrap();
    assert_eq!(contract.spk, descriptor.script_pubkey());
}

#[test]
fn claim_and_refund_satisfy_consensus_and_nothing_else_does() {
    let spends = spends();
    assert!(spends.accepts(&spends.claim(1, X)));
    assert!(spends.accepts(&spends.refund(2, REFUND_AT)));

    let refused = [
        ("wrong preimage", spends.claim(1, [4; 32])),
        ("claim by the buyer", spends.claim(2, X)),
        ("refund by the seller", spends.refund(1, REFUND_AT)),
        ("refund one block early", spends.refund(2, REFUND_AT - 1)),
    ];
    for (what, tx) in &refused {
        assert!(!spends.accepts(tx), "{what}");
    }
}

#[test]
fn changed_spends_fail_consensus() {
    let spends = spends();
    let mut final_sequence = spends.refund(2, REFUND_AT);
    final_sequence.input[0].sequence = Sequence::MAX;
    let mut no_lock_time = spends.refund(2, REFUND_AT);
    no_lock_time.lock_time = LockTime::ZERO;
    let mut long_preimage = spends.claim(1, X);
    replace(&mut long_preimage, 0, vec![3; 33]);
    let mut empty_preimage = spends.claim(1, X);
    replace(&mut empty_preimage, 0, Vec::new());
    let mut bit = spends.claim(1, X);
    let mut signature = bit.input[0].witness.to_vec()[1].clone();
    signature[10] ^= 1;
    replace(&mut bit, 1, signature);
    let mut more_out = spends.claim(1, X);
    more_out.output[0].value += Amount::from_sat(1);
    let refused = [
        ("final sequence", final_sequence),
        ("no lock time", no_lock_time),
        ("33-byte preimage", long_preimage),
        ("empty preimage", empty_preimage),
        ("one bit of the signature", bit),
        ("another amount", more_out),
    ];
    for (what, tx) in &refused {
        assert!(!spends.accepts(tx), "{what}");
    }
}

fn replace(tx: &mut Transaction, index: usize, with: Vec<u8>) {
    let mut parts = tx.input[0].witness.to_vec();
    parts[index] = with;
    tx.input[0].witness = Witness::from_slice(&parts);
}

#[test]
fn a_funding_has_the_size_that_fees_assume() {
    let spends = spends();
    let secp = &spends.secp;
    let coin = TxOut { value: Amount::from_sat(50_000), script_pubkey: p2tr(secp, 8) };
    let mut tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_height(T0).unwrap(),
        input: vec![TxIn {
            previous_output: spends.outpoint,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        }],
        output: vec![
            spends.spent.clone(),
            TxOut { value: Amount::from_sat(29_846), script_pubkey: p2tr(secp, 9) },
        ],
    };
    let sighash = SighashCache::new(&tx)
        .taproot_key_spend_signature_hash(
            0,
            &Prevouts::All(std::slice::from_ref(&coin)),
            TapSighashType::Default,
        )
        .unwrap();
    let key = keypair(secp, 8).tap_tweak(secp, None).to_keypair();
    let signature =
        secp.sign_schnorr_no_aux_rand(&Message::from_digest(sighash.to_byte_array()), &key);
    tx.input[0].witness.push(signature.serialize());
    assert!(consensus(&tx, &coin));
    let vsize = tx.vsize() as u64;
    assert!(vsize.abs_diff(FUND_VSIZE) * 50 <= FUND_VSIZE, "{vsize}");
}
