//! Certificates that are cut and joined, built by hand.

use capex_core::certificate::objects::{
    Activation, Area, Checkpoint, Consumed, Gift, Merge, Parent, Payment, Split, blinded, part_id,
};
use capex_core::certificate::{Base, Certificate, Hop, join, verify};
use capex_core::ids::{CertId, TermsHash};
use capex_core::units::Window;
use capex_core::wire::{Envelope, Verified};

use super::{Draft, by, devnet, grant, public, terms, transfer, units};

/// Units and window.
pub fn area(first: u32, end: u32, window: Window) -> Area {
    Area { units: units(first, end), window }
}

/// One certificate at its last seq.
#[derive(Clone)]
pub struct Piece {
    pub provider: u8,
    pub cert_id: CertId,
    pub seq: u32,
    pub holder: u8,
    pub area: Area,
    pub last: [u8; 32],
    pub roots: Vec<CertId>,
    pub certificate: Certificate,
}

impl Piece {
    pub fn of(draft: &Draft) -> Self {
        let cert_id = CertId(draft.issue.id());
        Self {
            provider: draft.provider,
            cert_id,
            seq: draft.seq,
            holder: draft.holder,
            area: Area { units: draft.issue.units.clone(), window: draft.issue.window },
            last: draft.last,
            roots: vec![cert_id],
            certificate: draft.certificate(),
        }
    }

    /// One that was sold once.
    pub fn sold(nonce: u8, area: &Area, to: u8) -> Self {
        let (provider, params) = (1, devnet());
        let mut draft = Draft::new(provider, area.units.clone(), area.window, &params);
        draft.issue = super::issue(provider, nonce, area.units.clone(), area.window, &params);
        draft.last = draft.issue.id();
        Self::of(&draft.sell(to))
    }

    pub fn head(&self) -> Parent {
        Parent { cert_id: self.cert_id, seq: self.seq, prev_hash: self.last }
    }

    pub fn consumed(&self) -> Consumed {
        let Parent { cert_id, seq, prev_hash } = self.head();
        Consumed { cert_id, seq, attempt: 0, prev_hash }
    }

    /// Of the next hop under the same id.
    pub fn activation(&self, to: u8, cause_hash: [u8; 32], salt: u8) -> Activation {
        Activation {
            v: 1,
            provider: public(self.provider),
            cert_id: self.cert_id,
            seq: self.seq + 1,
            consumes: vec![self.consumed()],
            roots: self.roots.clone(),
            holder_hash: blinded(public(to), [salt; 16], devnet().magic),
            class: 1,
            features: 1,
            units: self.area.units.clone(),
            window: self.area.window,
            cause_hash,
            p_height: 200,
        }
    }

    fn moved(&mut self, to: u8, activation: &Verified<Activation>, hop: Hop) {
        self.certificate.hops.push(hop);
        self.cert_id = activation.cert_id;
        self.seq = activation.seq;
        self.area = Area { units: activation.units.clone(), window: activation.window };
        self.roots = activation.roots.clone();
        self.last = activation.id();
        self.holder = to;
    }

    /// What blinds its holder.
    pub fn salt16(&self) -> [u8; 16] {
        verify(&self.certificate, &devnet()).unwrap().salt16
    }

    pub fn signed(&self, activation: Activation) -> Verified<Activation> {
        by(self.provider, activation, &devnet())
    }

    pub fn give(mut self, to: u8) -> Self {
        let Parent { cert_id, seq, prev_hash } = self.head();
        let gift = Gift { v: 1, cert_id, seq, prev_hash, to: public(to), nonce16: [3; 16] };
        let gift = by(self.holder, gift, &devnet());
        let activation = self.signed(self.activation(to, gift.id(), 3));
        let (gift, bytes) = (gift.envelope().clone(), activation.envelope().clone());
        self.moved(to, &activation, Hop::Gift { gift, activation: bytes });
        self
    }

    pub fn sell(mut self, to: u8) -> Self {
        let params = devnet();
        let draft = Draft::new(self.provider, self.area.units.clone(), self.area.window, &params);
        let mut terms = terms(&draft.issue, self.seq, self.last, public(self.holder), public(to));
        terms.cert_id = self.cert_id;
        let terms = by(self.holder, terms, &params);
        let lock = grant(self.provider, &terms, 0, &params);
        let activation = self.signed(self.activation(to, terms.id(), self.seq as u8));
        let hop = Hop::Sale {
            terms: terms.envelope().clone(),
            lock: lock.envelope().clone(),
            transfer: transfer(&terms),
            activation: activation.envelope().clone(),
        };
        assert_eq!(transfer(&terms).terms_hash, TermsHash(terms.id()));
        self.moved(to, &activation, hop);
        self
    }

    pub fn split_object(&self, parts: &[Area], nonce: u8) -> Verified<Split> {
        let Parent { cert_id, seq, prev_hash } = self.head();
        let (parts, nonce16) = (parts.to_vec(), [nonce; 16]);
        by(self.holder, Split { v: 1, cert_id, seq, prev_hash, parts, nonce16 }, &devnet())
    }

    /// The Activation of one part.
    pub fn part_activation(&self, split: &Verified<Split>, index: usize) -> Activation {
        let part = &split.parts[index];
        Activation {
            cert_id: part_id(split.id(), index as u32),
            seq: 1,
            units: part.units.clone(),
            window: part.window,
            ..self.activation(self.holder, split.id(), split.nonce16[0])
        }
    }

    pub fn part(&self, split: &Verified<Split>, index: usize) -> Self {
        let activation = self.signed(self.part_activation(split, index));
        let (split, bytes) = (split.envelope().clone(), activation.envelope().clone());
        let mut part = self.clone();
        part.moved(self.holder, &activation, Hop::Split { split, activations: vec![bytes] });
        part
    }

    pub fn split(&self, parts: &[Area]) -> Vec<Self> {
        let split = self.split_object(parts, 4);
        (0..parts.len()).map(|index| self.part(&split, index)).collect()
    }

    pub fn merge_object(parts: &[&Self]) -> Verified<Merge> {
        let mut heads: Vec<Parent> = parts.iter().map(|part| part.head()).collect();
        heads.sort_unstable();
        by(parts[0].holder, Merge { v: 1, parts: heads, nonce16: [5; 16] }, &devnet())
    }

    /// The Activation of a merge into an area.
    pub fn merge_activation(parts: &[&Self], merge: &Verified<Merge>, into: &Area) -> Activation {
        let mut consumes: Vec<Consumed> = parts.iter().map(|part| part.consumed()).collect();
        consumes.sort_unstable();
        let mut roots: Vec<CertId> = parts.iter().flat_map(|part| part.roots.clone()).collect();
        roots.sort_unstable();
        roots.dedup();
        Activation {
            cert_id: CertId(merge.id()),
            seq: 1,
            consumes,
            roots,
            units: into.units.clone(),
            window: into.window,
            ..parts[0].activation(parts[0].holder, merge.id(), merge.nonce16[0])
        }
    }

    pub fn merge(parts: &[&Self], into: &Area) -> Self {
        let merge = Self::merge_object(parts);
        let activation = parts[0].signed(Self::merge_activation(parts, &merge, into));
        let mut merged = parts[0].clone();
        merged.certificate = join(parts.iter().map(|part| &part.certificate));
        let hop = Hop::Merge {
            merge: merge.envelope().clone(),
            activation: activation.envelope().clone(),
        };
        merged.moved(parts[0].holder, &activation, hop);
        merged
    }

    pub fn checkpoint_object(&self) -> Checkpoint {
        Checkpoint {
            v: 1,
            provider: public(self.provider),
            last_hash: self.last,
            holder: public(self.holder),
            salt16: self.salt16(),
            class_hash: devnet().class_hash(1).unwrap(),
            pay: Payment::Prepaid,
            not_after_slot: self.area.window.end - 1,
            hops: self.certificate.hops.len() as u32,
            p_height: 201,
        }
    }

    /// A checkpoint in place of its history.
    pub fn resting_on(&self, checkpoint: Envelope) -> Certificate {
        let activation = self.certificate.hops.last().unwrap().activations()[0].clone();
        let base = Base::Checkpoint { checkpoint, activation };
        Certificate { bases: vec![base], hops: Vec::new() }
    }

    /// The same without its history.
    pub fn checkpointed(mut self) -> Self {
        let checkpoint = by(self.provider, self.checkpoint_object(), &devnet());
        self.certificate = self.resting_on(checkpoint.envelope().clone());
        self
    }
}
