//! The signed objects of a certificate.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{CertId, Key, LeaseId};
use crate::units::{Slot, Units, Window};
use crate::wire::{Envelope, Object};

/// How the provider is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payment {
    /// Before delivery, by the contract of the sale.
    Prepaid,
    Metered,
}

/// What decides who holds the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// The provider's countersignature.
    Registrar,
}

/// The birth of a certificate; its object id is the `cert_id`. Signed by the provider, who
/// is its owner at seq 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    pub v: u8,
    pub provider: Key,
    pub class: u16,
    /// Object id of the class's floors.
    pub class_hash: [u8; 32],
    /// Feature bits that the units have.
    pub features: u64,
    pub units: Units,
    pub window: Window,
    pub pay: Payment,
    /// What decides who holds it.
    pub binding: Binding,
    pub nonce32: [u8; 32],
    /// Last slot in which Redeem may start.
    pub not_after_slot: Slot,
}

impl Object for Issue {
    const NAME: &'static str = "issue";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// The provider's word that the certificate moved: seq `n + 1` after a hop that consumed `n`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    pub v: u8,
    pub provider: Key,
    pub cert_id: CertId,
    /// Sequence number after the hop, from 1.
    pub seq: u32,
    /// Number of the provider's grant for the consumed seq: that of the lock, or for a gift
    /// the next after every released lock, so that no two grants share one.
    pub attempt: u32,
    pub holder: Key,
    pub class: u16,
    pub features: u64,
    pub units: Units,
    pub window: Window,
    /// `cert_id` for seq 1, else id of the last Activation.
    pub prev_hash: [u8; 32],
    /// Terms hash of a sale, object id of a Gift.
    pub cause_hash: [u8; 32],
    /// The provider's chain height.
    pub p_height: u32,
}

impl Object for Activation {
    const NAME: &'static str = "activation";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// The holder gives the certificate away, free. Signed by the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    pub v: u8,
    pub cert_id: CertId,
    pub seq: u32,
    /// Id of the last Activation (a gift needs one: seq ≥ 1).
    pub prev_hash: [u8; 32],
    pub to: Key,
    pub nonce16: [u8; 16],
}

impl Object for Gift {
    const NAME: &'static str = "gift";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// The provider's word that a redemption consumed (cert_id, seq). Final. Gossiped on `locks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedeemGrant {
    pub v: u8,
    pub provider: Key,
    pub cert_id: CertId,
    pub seq: u32,
    /// Number of this grant for the seq: 0, or the next after every released lock.
    pub attempt: u32,
    pub redeem_hash: LeaseId,
    /// The provider's chain height.
    pub p_height: u32,
}

impl Object for RedeemGrant {
    const NAME: &'static str = "redeem-grant";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// Two statements of one provider that cannot both be honest.
///
/// Valid if both envelopes verify under one provider and either consume one
/// (cert_id, seq, attempt) with different causes, or are Activations of which neither
/// descends from the other and that share a (class, unit, slot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquivProof {
    /// One statement: kind and bytes.
    pub a: (StatementKind, Envelope),
    pub b: (StatementKind, Envelope),
}

/// What kind of provider statement an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StatementKind {
    /// [`super::super::settlement::objects::LockGrant`]
    LockGrant,
    /// [`Activation`]
    Activation,
    /// [`RedeemGrant`]
    RedeemGrant,
}

/// One change of holder.
///
/// A sale carries twice as many signatures as a gift; boxing them would save a few hundred
/// bytes of a certificate that has at most 64 hops.
#[allow(clippy::large_enum_variant, reason = "see above")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hop {
    Sale {
        terms: Envelope,
        lock: Envelope,
        transfer: super::super::settlement::objects::Transfer,
        activation: Envelope,
    },
    Gift {
        gift: Envelope,
        activation: Envelope,
    },
}

/// A certificate as it travels: every signed byte since its issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub issue: Envelope,
    /// At most 64 hops.
    pub hops: Vec<Hop>,
}

/// What shows anyone that a provider was paid and gave nothing. Whether the spend stands on
/// the chain, and that no Activation was signed, only the chain and the provider can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultProof {
    /// The certificate up to the sale; at a primary sale its Issue alone.
    pub title: Certificate,
    /// Signed by the seller.
    pub terms: Envelope,
    /// The provider's promise to move the certificate if this is paid.
    pub lock: Envelope,
    /// The preimage and the spend that revealed it.
    pub transfer: super::super::settlement::objects::Transfer,
}
