//! Certificates built by hand, for the tests of what reads them.
#![allow(dead_code, unreachable_pub)]

pub mod files;
pub mod party;
pub mod pieces;

use capex_core::certificate::objects::{
    Activation, Binding, Consumed, Gift, Issue, Payment, RedeemGrant, blinded,
};
use capex_core::certificate::{Base, Certificate, Hop};
use capex_core::ids::{CertId, Key, LeaseId, TermsHash, TradeId};
use capex_core::params::Params;
use capex_core::settlement::objects::{Accept, Funder, LockGrant, Terms, Transfer};
use capex_core::units::{Units, Window};
use capex_core::wire::{Envelope, Object, Verified, sha256, sign};
use ed25519_dalek::SigningKey;

pub fn devnet() -> Params {
    let text = include_str!("../../../network/definitions/devnet.toml");
    toml::from_str::<Params>(text).unwrap().validate().unwrap()
}

/// The secret of a party; its engine key is made of the same bytes.
pub fn secret(party: u8) -> [u8; 32] {
    [party; 32]
}

pub fn key(party: u8) -> SigningKey {
    SigningKey::from_bytes(&secret(party))
}

pub fn public(party: u8) -> Key {
    Key(key(party).verifying_key().to_bytes())
}

pub fn units(first: u32, end: u32) -> Units {
    Units::range(first, end).unwrap()
}

/// Signs as a party.
pub fn by<T: Object>(party: u8, value: T, params: &Params) -> Verified<T> {
    sign(value, params.magic, &key(party))
}

pub fn issue(
    provider: u8,
    nonce: u8,
    units: Units,
    window: Window,
    params: &Params,
) -> Verified<Issue> {
    let issue = Issue {
        v: 1,
        provider: public(provider),
        class: 1,
        class_hash: params.class_hash(1).unwrap(),
        features: 1,
        units,
        window,
        pay: Payment::Prepaid,
        binding: Binding::Registrar,
        nonce32: [nonce; 32],
        not_after_slot: window.end - 1,
    };
    by(provider, issue, params)
}

pub const PREIMAGE: [u8; 32] = [0x42; 32];

/// Terms of a sale of a whole certificate at its first or a later hop.
pub fn terms(issue: &Verified<Issue>, seq: u32, prev: [u8; 32], from: Key, to: Key) -> Terms {
    Terms {
        v: 1,
        trade_id: TradeId([9; 32]),
        cert_id: CertId(issue.id()),
        seq,
        prev_hash: prev,
        class: issue.class,
        units: issue.units.clone(),
        window: issue.window,
        from,
        to,
        funders: vec![Funder { key: to, refund_xonly: [3; 32], amount_sat: 5_000 }],
        price_sat: 5_000,
        payment_hash: sha256(&[&PREIMAGE]),
        s_xonly: [4; 32],
        payout_spk: vec![0x51, 0x20],
        t0: 100,
        fund_by: 112,
        refund_at: 128,
        funding_confirmations: 1,
        template: 1,
        nonce16: [seq as u8; 16],
    }
}

pub fn accept(funder: u8, terms: &Verified<Terms>, params: &Params) -> Verified<Accept> {
    let accept = Accept {
        v: 1,
        terms_hash: TermsHash(terms.id()),
        release_at_height: 116,
        release_at_ms: 1_000,
        together: false,
    };
    by(funder, accept, params)
}

pub fn grant(
    provider: u8,
    terms: &Verified<Terms>,
    attempt: u32,
    params: &Params,
) -> Verified<LockGrant> {
    let grant = LockGrant {
        v: 1,
        provider: public(provider),
        cert_id: terms.cert_id,
        seq: terms.seq,
        attempt,
        prev_release: [0; 32],
        terms_hash: TermsHash(terms.id()),
        fund_by: terms.fund_by,
        refund_at: terms.refund_at,
        p_height: 101,
    };
    by(provider, grant, params)
}

pub fn transfer(terms: &Verified<Terms>) -> Transfer {
    Transfer {
        v: 1,
        terms_hash: TermsHash(terms.id()),
        x: PREIMAGE,
        spend_txid: [7; 32],
        vin: 0,
        quittance: None,
    }
}

pub fn redeem_grant(
    provider: u8,
    cert_id: CertId,
    seq: u32,
    attempt: u32,
    params: &Params,
) -> Verified<RedeemGrant> {
    let grant = RedeemGrant {
        v: 1,
        provider: public(provider),
        cert_id,
        seq,
        attempt,
        redeem_hash: LeaseId([6; 32]),
        p_height: 101,
    };
    by(provider, grant, params)
}

/// The Issue of a certificate that goes back to one.
pub fn issue_of(certificate: &mut Certificate) -> &mut Envelope {
    let [Base::Issue(issue)] = certificate.bases.as_mut_slice() else { panic!() };
    issue
}

/// A certificate in the making.
pub struct Draft {
    pub provider: u8,
    pub issue: Verified<Issue>,
    pub holder: u8,
    pub seq: u32,
    pub last: [u8; 32],
    pub hops: Vec<Hop>,
    pub params: Params,
}

impl Draft {
    pub fn new(provider: u8, units: Units, window: Window, params: &Params) -> Self {
        let issue = issue(provider, 1, units, window, params);
        let last = issue.id();
        Self {
            provider,
            issue,
            holder: provider,
            seq: 0,
            last,
            hops: Vec::new(),
            params: params.clone(),
        }
    }

    /// Of the next hop, blinded as a cause of this seq blinds it.
    pub fn activation(&self, attempt: u32, holder: u8, cause: [u8; 32]) -> Activation {
        Activation {
            v: 1,
            provider: public(self.provider),
            cert_id: CertId(self.issue.id()),
            seq: self.seq + 1,
            consumes: vec![Consumed {
                cert_id: CertId(self.issue.id()),
                seq: self.seq,
                attempt,
                prev_hash: self.last,
            }],
            roots: vec![CertId(self.issue.id())],
            holder_hash: blinded(public(holder), [self.seq as u8; 16], self.params.magic),
            class: self.issue.class,
            features: self.issue.features,
            units: self.issue.units.clone(),
            window: self.issue.window,
            cause_hash: cause,
            p_height: 105 + self.seq,
        }
    }

    fn moved(&mut self, holder: u8, attempt: u32, cause: [u8; 32]) -> Envelope {
        let activation = by(self.provider, self.activation(attempt, holder, cause), &self.params);
        self.holder = holder;
        self.seq += 1;
        self.last = activation.id();
        activation.envelope().clone()
    }

    pub fn sell(mut self, to: u8) -> Self {
        let terms = terms(&self.issue, self.seq, self.last, public(self.holder), public(to));
        let terms = by(self.holder, terms, &self.params);
        let lock = grant(self.provider, &terms, 0, &self.params);
        let activation = self.moved(to, 0, terms.id());
        self.hops.push(Hop::Sale {
            terms: terms.envelope().clone(),
            lock: lock.envelope().clone(),
            transfer: transfer(&terms),
            activation,
        });
        self
    }

    pub fn gift(&self, to: u8) -> Verified<Gift> {
        let gift = Gift {
            v: 1,
            cert_id: CertId(self.issue.id()),
            seq: self.seq,
            prev_hash: self.last,
            to: public(to),
            nonce16: [self.seq as u8; 16],
        };
        by(self.holder, gift, &self.params)
    }

    pub fn give(mut self, to: u8) -> Self {
        let gift = self.gift(to);
        let activation = self.moved(to, 0, gift.id());
        self.hops.push(Hop::Gift { gift: gift.envelope().clone(), activation });
        self
    }

    pub fn certificate(&self) -> Certificate {
        Certificate {
            bases: vec![Base::Issue(self.issue.envelope().clone())],
            hops: self.hops.clone(),
        }
    }
}
