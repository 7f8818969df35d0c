//! The signed objects of a certificate.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{CertId, Key, LeaseId};
use crate::limits::{MERGE_PARTS_MAX, ROOTS_MAX};
use crate::units::{Slot, Units, Window};
use crate::wire::{Envelope, Magic, Object, domain, sha256};

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
    /// The same; and who paid for it may take it back until its window begins, unless it has been
    /// redeemed. As long as nobody has, it moves in no other way.
    Recallable { by: Key },
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

impl Issue {
    /// Who may take the certificate back from who it was sold to.
    #[must_use]
    pub fn recall(&self) -> Option<Key> {
        match self.binding {
            Binding::Registrar => None,
            Binding::Recallable { by } => Some(by),
        }
    }
}

impl Object for Issue {
    const NAME: &'static str = "issue";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// A certificate at one sequence number, which an Activation consumes under the provider's
/// signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Consumed {
    pub cert_id: CertId,
    pub seq: u32,
    /// Number of the provider's grant for this seq: that of the lock, or without one the next
    /// after every released lock, so that no two grants share one.
    pub attempt: u32,
    /// `cert_id` for seq 0, else id of the last Activation.
    pub prev_hash: [u8; 32],
}

/// The provider's word that a certificate moved, or came to be from others. A sale and a gift
/// consume seq `n` of their certificate and begin `n + 1`; a part and a merged certificate begin
/// at seq 1, with an id of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    pub v: u8,
    pub provider: Key,
    pub cert_id: CertId,
    /// Sequence number after the hop, from 1.
    pub seq: u32,
    /// What is consumed: one for a sale, a gift or a split; for a merge 2 to 8, ascending.
    pub consumes: Vec<Consumed>,
    /// Issues from which it descends, ascending: at most 16.
    pub roots: Vec<CertId>,
    /// Its holder, [`blinded`] by the nonce of the terms, gift, split or merge.
    pub holder_hash: [u8; 32],
    pub class: u16,
    pub features: u64,
    pub units: Units,
    pub window: Window,
    /// Terms hash of a sale, object id of a Gift, Split or Merge.
    pub cause_hash: [u8; 32],
    /// The provider's chain height.
    pub p_height: u32,
}

impl Activation {
    /// Whether its lists and its seq have a form that an honest provider signs.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let seq = match self.consumes.as_slice() {
            [only] if only.cert_id == self.cert_id => only.seq.checked_add(1),
            consumed if consumed.iter().any(|one| one.cert_id == self.cert_id) => None,
            _ => Some(1),
        };
        let ascends = self.consumes.is_sorted_by(|a, b| a.cert_id < b.cert_id);
        let is_counted = (1..=MERGE_PARTS_MAX).contains(&self.consumes.len());
        seq == Some(self.seq) && ascends && is_counted && are_roots(&self.roots)
    }
}

/// What stands for a holder where anyone may read it: nobody learns from an Activation whom a
/// purchase or a gift is for, who does not know the salt.
#[must_use]
pub fn blinded(holder: Key, salt16: [u8; 16], magic: Magic) -> [u8; 32] {
    sha256(&[&domain("holder", 1, magic), &holder.0, &salt16])
}

/// Whether a list of roots has its one canonical form: ascending, at least one, at most 16.
#[must_use]
pub fn are_roots(roots: &[CertId]) -> bool {
    (1..=ROOTS_MAX).contains(&roots.len()) && roots.is_sorted_by(|a, b| a < b)
}

impl Object for Activation {
    const NAME: &'static str = "activation";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// The certificate is given away, free. Signed by its holder; or by who may recall it, and then
/// by nobody else.
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

/// A rectangle of units and slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    pub units: Units,
    pub window: Window,
}

impl Area {
    /// How many unit-slots it has.
    #[must_use]
    pub fn unit_slots(&self) -> u64 {
        u64::from(self.units.count()) * u64::from(self.window.len())
    }

    /// Whether both share a unit in a slot.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.window.overlaps(other.window) && self.units.overlaps(&other.units)
    }
}

/// The holder cuts a certificate into parts that have each of its units and slots once. Signed
/// by the holder, who holds every part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub v: u8,
    pub cert_id: CertId,
    pub seq: u32,
    /// Id of the last Activation (a split needs one: seq ≥ 1).
    pub prev_hash: [u8; 32],
    /// 2 to 16; the certificate of each is [`part_id`].
    pub parts: Vec<Area>,
    pub nonce16: [u8; 16],
}

impl Object for Split {
    const NAME: &'static str = "split";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// Id of the certificate of one part: SHA-256 of the split's object id and the part's number
/// from 0, four bytes, big-endian.
#[must_use]
pub fn part_id(split: [u8; 32], index: u32) -> CertId {
    CertId(sha256(&[&split, &index.to_be_bytes()]))
}

/// A certificate that a merge joins, as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Parent {
    pub cert_id: CertId,
    pub seq: u32,
    /// Id of the last Activation.
    pub prev_hash: [u8; 32],
}

/// The holder joins certificates of one provider, class and set of features into one rectangle:
/// equal units one window after the other, or distinct units in one window. Its object id is the
/// id of the new certificate. Signed by the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    pub v: u8,
    /// 2 to 8, ascending by `cert_id`.
    pub parts: Vec<Parent>,
    pub nonce16: [u8; 16],
}

impl Object for Merge {
    const NAME: &'static str = "merge";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// The provider's word that it has verified the history of a certificate up to an Activation,
/// in place of that history: a certificate that changed hands often stays short enough to travel.
///
/// Who kept the longer file can compare: each Activation names the one before it and the terms,
/// gift, split or merge that caused it, so that `last_hash` commits to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub v: u8,
    pub provider: Key,
    /// Id of the Activation.
    pub last_hash: [u8; 32],
    /// Whom it names.
    pub holder: Key,
    pub salt16: [u8; 16],
    /// Object id of the class's floors.
    pub class_hash: [u8; 32],
    pub pay: Payment,
    /// Last slot in which Redeem may start.
    pub not_after_slot: Slot,
    /// Hops that it stands for.
    pub hops: u32,
    /// The provider's chain height.
    pub p_height: u32,
}

impl Object for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
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
/// Valid if both envelopes verify under one provider and they contradict each other, as
/// [`super::equivocation::Statement::contradicts`] says.
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

/// One change of a certificate, with the Activations that end it.
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
    /// A split, with the Activations of those parts to which the certificate goes back.
    Split {
        split: Envelope,
        /// Each part at most once.
        activations: Vec<Envelope>,
    },
    Merge {
        merge: Envelope,
        activation: Envelope,
    },
}

impl Hop {
    /// The Activations that end it.
    #[must_use]
    pub fn activations(&self) -> &[Envelope] {
        match self {
            Self::Sale { activation, .. }
            | Self::Gift { activation, .. }
            | Self::Merge { activation, .. } => std::slice::from_ref(activation),
            Self::Split { activations, .. } => activations,
        }
    }
}

/// What the history of a certificate begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Base {
    Issue(Envelope),
    Checkpoint {
        checkpoint: Envelope,
        /// The last Activation of the history that it stands for.
        activation: Envelope,
    },
}

impl Base {
    /// Id of the certificate that it begins; `None` if it does not decode.
    #[must_use]
    pub fn cert_id(&self, magic: Magic) -> Option<CertId> {
        match self {
            Self::Issue(issue) => Some(CertId(issue.id::<Issue>(magic))),
            Self::Checkpoint { activation, .. } => {
                Some(activation.peek::<Activation>().ok()?.cert_id)
            }
        }
    }
}

/// A certificate as it travels: every signed byte since its issue, or since the checkpoints that
/// its provider signed.
///
/// Parts and merges make the history a graph; it stands as a list in which each hop consumes
/// what a base or a hop before it has made, so that what two merged parts have in common stands
/// once. Nothing is left over but the certificate itself, which the last hop has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// At least one, at most 16.
    pub bases: Vec<Base>,
    /// At most 64.
    pub hops: Vec<Hop>,
}

impl Certificate {
    /// A certificate that was never sold.
    #[must_use]
    pub fn issued(issue: Envelope) -> Self {
        Self { bases: vec![Base::Issue(issue)], hops: Vec::new() }
    }

    /// Its Issue, if it goes back to one alone.
    #[must_use]
    pub fn issue(&self) -> Option<&Envelope> {
        match self.bases.as_slice() {
            [Base::Issue(issue)] => Some(issue),
            _ => None,
        }
    }

    /// Who may take it back from its holder: who paid for it, if the Issue says so, until
    /// anything but the first sale has moved it.
    #[must_use]
    pub fn recall(&self) -> Option<Key> {
        match self.hops.as_slice() {
            [] | [Hop::Sale { .. }] => self.issue()?.peek::<Issue>().ok()?.recall(),
            _ => None,
        }
    }

    /// The key that signed its first base: its provider, if it verifies.
    #[must_use]
    pub fn signer(&self) -> Option<Key> {
        let (Base::Issue(bytes) | Base::Checkpoint { checkpoint: bytes, .. }) =
            self.bases.first()?;
        Some(Key(bytes.key))
    }

    /// Its id, if it verifies; `None` if it cannot.
    #[must_use]
    pub fn id(&self, magic: Magic) -> Option<CertId> {
        match self.last_activation() {
            Some(activation) => Some(activation.peek::<Activation>().ok()?.cert_id),
            None => self.bases.first()?.cert_id(magic),
        }
    }

    /// The Activation that made it what it is; none, if it was never sold.
    #[must_use]
    pub fn last_activation(&self) -> Option<&Envelope> {
        match (self.hops.last(), self.bases.first()) {
            (Some(hop), _) => hop.activations().last(),
            (None, Some(Base::Checkpoint { activation, .. })) => Some(activation),
            (None, _) => None,
        }
    }
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
