//! Histories of certificates: of several as one, on which a merge rests, and hop by hop.

use super::objects::{Activation, Area, Certificate, Hop};
use super::verify::TransferFact;
use crate::ids::CertId;
use crate::wire::Envelope;

/// What the hop that made a certificate what it is consumed, and units and window after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub consumed: Vec<CertId>,
    pub area: Area,
}

/// The origin of each hop of a verified certificate, in the order of its transfers.
#[must_use]
pub fn origins(certificate: &Certificate, transfers: &[TransferFact]) -> Vec<Origin> {
    let signed = certificate.hops.iter().flat_map(Hop::activations);
    let said: Vec<Activation> = signed.filter_map(|bytes| bytes.peek().ok()).collect();
    let of = |fact: &TransferFact| {
        let is_its = |one: &&Activation| (one.cert_id, one.seq) == (fact.cert_id, fact.seq);
        let one = said.iter().find(is_its)?;
        let consumed = one.consumes.iter().map(|consumed| consumed.cert_id).collect();
        Some(Origin { consumed, area: Area { units: one.units.clone(), window: one.window } })
    };
    transfers.iter().filter_map(of).collect()
}

/// Writes the histories of certificates down as one, what they have in common once. Whether it
/// holds together is for the verifier to say: one that rests on a checkpoint does not join
/// with one that goes further back over the same certificate.
#[must_use]
pub fn join<'a>(histories: impl IntoIterator<Item = &'a Certificate>) -> Certificate {
    let mut joined = Certificate { bases: Vec::new(), hops: Vec::new() };
    for history in histories {
        for base in &history.bases {
            if !joined.bases.contains(base) {
                joined.bases.push(base.clone());
            }
        }
        for hop in &history.hops {
            match hop {
                Hop::Split { split, activations } => match split_in(&mut joined, split) {
                    Some(known) => unite(known, activations),
                    None => joined.hops.push(hop.clone()),
                },
                // Copies of a sale may differ in where they look for its spend.
                Hop::Sale { .. } | Hop::Gift { .. } | Hop::Merge { .. } => {
                    if !joined.hops.iter().any(|one| one.activations() == hop.activations()) {
                        joined.hops.push(hop.clone());
                    }
                }
            }
        }
    }
    joined
}

fn split_in<'a>(joined: &'a mut Certificate, wanted: &Envelope) -> Option<&'a mut Vec<Envelope>> {
    joined.hops.iter_mut().find_map(|hop| match hop {
        Hop::Split { split, activations } => (split == wanted).then_some(activations),
        Hop::Sale { .. } | Hop::Gift { .. } | Hop::Merge { .. } => None,
    })
}

fn unite(known: &mut Vec<Envelope>, others: &[Envelope]) {
    for other in others {
        if !known.contains(other) {
            known.push(other.clone());
        }
    }
}
