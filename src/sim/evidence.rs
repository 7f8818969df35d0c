//! What nodes signed and sent, in all their lives, and the promises that it breaks.

use std::collections::BTreeMap;

use super::queue::NodeId;
use capex_core::certificate::objects::{Activation, Consumed, Hop};
use capex_core::engine::courier::CourierRequest;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::RegisterReply;
use capex_core::engine::trades::TradeReply;
use capex_core::engine::{Protocol, Topic};
use capex_core::ids::{CertId, Key, TermsHash};
use capex_core::order::Order;
use capex_core::settlement::objects::LockGrant;
use capex_core::wire::{Envelope, decode_record};

/// Everything of weight that left a node.
#[derive(Debug, Default)]
pub struct Evidence {
    /// In which life a key signed for an epoch.
    signed: BTreeMap<(Key, u64), u32>,
    locks: BTreeMap<(Key, CertId, u32), BTreeMap<u32, LockGrant>>,
    activations: BTreeMap<(Key, CertId, u32), Activation>,
    broken: Vec<String>,
}

impl Evidence {
    /// Notes a broken promise.
    pub fn broken(&mut self, what: String) {
        self.broken.push(what);
    }

    /// Promises broken so far.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.broken
    }

    /// Every Activation that left its provider.
    pub fn activations(&self) -> impl Iterator<Item = &Activation> {
        self.activations.values()
    }

    /// Every lock that left its provider.
    pub fn locks(&self) -> impl Iterator<Item = &LockGrant> {
        self.locks.values().flat_map(BTreeMap::values)
    }

    pub(super) fn published(&mut self, node: NodeId, life: u32, topic: Topic, bytes: &[u8]) {
        match topic {
            Topic::Orders => self.orders(node, life, bytes),
            Topic::Locks => {
                if let Ok(envelope) = decode_record::<Envelope>(bytes) {
                    self.lock(node, &envelope);
                    self.activation(node, &envelope);
                }
            }
            Topic::Proofs => self.broken(format!("node {node} proves an equivocation")),
            Topic::Roots | Topic::Contacts => {}
        }
    }

    pub(super) fn sent(&mut self, node: NodeId, protocol: Protocol, bytes: &[u8]) {
        if protocol == Protocol::Settle
            && let Ok(SettleRequest::Courier(CourierRequest::Push(certificate))) =
                decode_record(bytes)
        {
            certificate.hops.iter().for_each(|hop| self.hop(node, hop));
        }
    }

    pub(super) fn reply(&mut self, node: NodeId, protocol: Protocol, bytes: &[u8]) {
        if protocol != Protocol::Settle {
            return;
        }
        match decode_record(bytes) {
            Ok(SettleReply::Trade(TradeReply::LockGrant(lock))) => self.lock(node, &lock),
            Ok(
                SettleReply::Trade(TradeReply::Activation(signed))
                | SettleReply::Register(RegisterReply::Activation(signed)),
            ) => self.activation(node, &signed),
            Ok(SettleReply::Register(RegisterReply::Activations(parts))) => {
                parts.iter().for_each(|signed| self.activation(node, signed));
            }
            Ok(SettleReply::Register(RegisterReply::Certificate(certificate))) => {
                certificate.hops.iter().for_each(|hop| self.hop(node, hop));
            }
            _ => {}
        }
    }

    fn hop(&mut self, node: NodeId, hop: &Hop) {
        hop.activations().iter().for_each(|activation| self.activation(node, activation));
    }

    fn orders(&mut self, node: NodeId, life: u32, bytes: &[u8]) {
        let Ok(envelopes) = decode_record::<Vec<Envelope>>(bytes) else { return };
        let Some(Ok(order)) = envelopes.first().map(Envelope::peek::<Order>) else { return };
        let first = *self.signed.entry((order.owner, order.epoch)).or_insert(life);
        if first != life {
            let epoch = order.epoch;
            self.broken(format!("node {node} signs for epoch {epoch} in lives {first} and {life}"));
        }
    }

    /// One lock per (cert, seq) at a time: the same attempt never for other terms, a later
    /// one only with evidence of release.
    fn lock(&mut self, node: NodeId, signed: &Envelope) {
        let Ok(lock) = signed.peek::<LockGrant>() else { return };
        let place = (lock.provider, lock.cert_id, lock.seq);
        let attempts = self.locks.entry(place).or_default();
        let known = attempts.insert(lock.attempt, lock.clone());
        let terms = |lock: LockGrant| -> TermsHash { lock.terms_hash };
        if known.map(terms).is_some_and(|known| known != lock.terms_hash) {
            self.broken(format!("node {node} locks {} twice", lock.cert_id));
        } else if (lock.attempt > 0) == (lock.prev_release == [0; 32]) {
            self.broken(format!("node {node} locks {} without a release", lock.cert_id));
        }
    }

    /// No unit × slot is sold twice, over all that a provider ever activated.
    fn activation(&mut self, node: NodeId, signed: &Envelope) {
        let Ok(new) = signed.peek::<Activation>() else { return };
        let place = (new.provider, new.cert_id, new.seq);
        if let Some(known) = self.activations.get(&place) {
            if *known != new {
                self.broken(format!("node {node}: two activations of {} {}", new.cert_id, new.seq));
            }
            return;
        }
        let sold = self.activations.values().find(|known| {
            (known.provider, known.class) == (new.provider, new.class)
                && known.cert_id != new.cert_id
                && known.window.overlaps(new.window)
                && known.units.overlaps(&new.units)
                && !is_descent(known, &new)
        });
        if let Some(sold) = sold {
            let what = format!("{} and {} share a block", sold.cert_id, new.cert_id);
            self.broken.push(what);
        }
        self.activations.insert(place, new);
    }
}

/// Whether one of two certificates that overlap may descend from the other: they go back to a
/// common Issue, and do not consume the same.
fn is_descent(a: &Activation, b: &Activation) -> bool {
    let has = |other: &Activation, one: &Consumed| {
        other.consumes.iter().any(|two| (two.cert_id, two.seq) == (one.cert_id, one.seq))
    };
    a.roots.iter().any(|root| b.roots.contains(root)) && !a.consumes.iter().any(|one| has(b, one))
}
