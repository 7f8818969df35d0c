//! Values that the tests of this folder share.

#![cfg(test)]

use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Transaction, Txid};

use super::buyer::{self, Buyer, FundPlan};
use super::check::{Agreement, Now, SignedTerms};
use super::objects::{Funder, Row, Terms};
use super::rails::chain::facts::{ContractFacts, Facts, FundFact, SpendFact, Standing};
use super::rails::chain::script::TEMPLATE;
use super::rails::chain::transaction::KnownTx;
use crate::certificate::Certificate;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::params::Params;
use crate::units::{Units, Window};
use crate::wire::Envelope;

pub(crate) fn params(name: &str) -> Params {
    let text = match name {
        "mainnet" => include_str!("../../../network/definitions/mainnet.toml"),
        "signet" => include_str!("../../../network/definitions/signet.toml"),
        "regtest" => include_str!("../../../network/definitions/regtest.toml"),
        _ => include_str!("../../../network/definitions/devnet.toml"),
    };
    toml::from_str::<Params>(text).unwrap().validate().unwrap()
}

pub(crate) fn keypair(secp: &Secp256k1<All>, seed: u8) -> Keypair {
    Keypair::from_secret_key(secp, &SecretKey::from_slice(&[seed; 32]).unwrap())
}

/// Terms of a million sat on mainnet, seller key 1, buyer key 2.
pub(crate) fn terms(t0: u32) -> Terms {
    let secp = Secp256k1::new();
    let xonly = |seed| keypair(&secp, seed).x_only_public_key().0.serialize();
    let funder = Funder { key: Key([2; 32]), refund_xonly: xonly(2), amount_sat: 1_000_000 };
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
        funders: vec![funder],
        price_sat: 1_000_000,
        payment_hash: [5; 32],
        s_xonly: xonly(1),
        payout_spk: vec![0x51, 0x20, 1, 2, 3],
        t0,
        fund_by: t0 + 36,
        refund_at: t0 + 150,
        funding_confirmations: 6,
        template: TEMPLATE,
        nonce16: [6; 16],
    }
}

/// Nobody's signature: the state machines look at facts, not at envelopes.
pub(crate) fn envelope() -> Envelope {
    Envelope { key: [0; 32], payload: Vec::new(), signature: [[0; 32]; 2] }
}

/// The same with two funders, of keys 2 and 3.
pub(crate) fn two_funders(t0: u32) -> Terms {
    let mut terms = terms(t0);
    let mut other = terms.funders[0].clone();
    (terms.funders[0].amount_sat, other.amount_sat) = (600_000, 400_000);
    other.key = Key([3; 32]);
    other.refund_xonly = keypair(&Secp256k1::new(), 3).x_only_public_key().0.serialize();
    terms.funders.push(other);
    terms
}

pub(crate) fn signed_terms(terms: Terms) -> SignedTerms {
    SignedTerms { envelope: envelope(), terms, hash: TermsHash([7; 32]) }
}

pub(crate) fn agreement(terms: Terms) -> Agreement {
    let (title, registrar) = (Certificate::issued(envelope()), Key([1; 32]));
    let roots = vec![terms.cert_id];
    Agreement { title, registrar, features: 0, roots, signed: signed_terms(terms) }
}

pub(crate) fn row() -> Row {
    Row {
        v: 1,
        epoch: 1,
        buy: [1; 32],
        sell: [2; 32],
        class: 1,
        start: 500_000,
        slots: 4,
        qty: 2,
        msat: 1_000_000_000,
    }
}

/// A plan for the sample terms alone: they are to be funded at the price, and their consent lasts
/// until then.
pub(crate) fn plan(ack_by_ms: u64) -> FundPlan {
    let spk = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    let (terms, outputs) = (vec![TermsHash([7; 32])], vec![(spk, 1_000_000)]);
    FundPlan { terms, outputs, fee_cap_sat: 1_000, ack_by_ms, cancel_at: 830, gathering: None }
}

/// A buyer of that row from key 1, which keeps the register too, for key 2.
pub(crate) fn buyer(state: buyer::State) -> Buyer {
    Buyer {
        trade: TradeId([10; 32]),
        row: row(),
        seller: Key([1; 32]),
        registrar: Key([1; 32]),
        to: Key([2; 32]),
        features: 0,
        fee_cap_sat: 1_000,
        max_loss_sat: 10_000,
        fee_reserve_sat: 154,
        key_index: 1,
        opened_ms: 0,
        use_by: None,
        partners: Vec::new(),
        together: None,
        state,
        is_recallable: false,
    }
}

pub(crate) fn now(params: &Params, now_ms: u64, tip: u32) -> Now<'_> {
    let median_time_past_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
    Now { ms: now_ms, tip, median_time_past_s, chain_up: true, params }
}

/// A transaction without inputs and outputs.
pub(crate) fn tx() -> KnownTx {
    KnownTx::new(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: Vec::new(),
        output: Vec::new(),
    })
}

/// Of one contract, whose funding only a peer knows.
pub(crate) fn unseen() -> Facts {
    unseen_with(None)
}

/// The same, of which the own chain source says this.
pub(crate) fn standing(standing: Standing) -> Facts {
    let mut fact = contract_facts([Some(0), None, None, None]);
    if let Some(fund) = &mut fact.fund {
        fund.standing = standing;
    }
    Facts::new(vec![fact])
}

/// The same with a conflict.
pub(crate) fn unseen_with(conflict: Option<u32>) -> Facts {
    let mut facts = contract_facts([Some(0), None, None, conflict]);
    if let Some(fund) = &mut facts.fund {
        fund.standing = Standing::Shown;
    }
    Facts::new(vec![facts])
}

/// Of one contract that was funded and then spent by key path.
pub(crate) fn taken(fund: u32, taken: u32) -> Facts {
    let mut facts = contract_facts([Some(fund), None, Some(taken), None]);
    facts.taken = facts.refund.take();
    Facts::new(vec![facts])
}

/// Facts by the heights of funding, claim, refund and conflict: `None` unknown, `Some(0)`
/// waiting, else confirmed there.
pub(crate) fn contract_facts(heights: [Option<u32>; 4]) -> ContractFacts {
    let [fund, claim, refund, conflict] = heights;
    let block = |height: u32| (height > 0).then_some(height);
    let spend = |height: u32, id: u8| SpendFact {
        txid: Txid::from_byte_array([id; 32]),
        vin: 0,
        vsize: 150,
        fee_sat: 150,
        inputs: 1,
        output_sat: 999_850,
        height: block(height),
    };
    ContractFacts {
        fund: fund.map(|height| FundFact {
            tx: tx(),
            vout: 0,
            standing: Standing::Seen,
            height: block(height),
            was_confirmed: height > 0,
        }),
        claim: claim.map(|height| (spend(height, 1), [3; 32])),
        refund: refund.map(|height| spend(height, 2)),
        taken: None,
        conflict: conflict.map(|height| spend(height, 3)),
    }
}
