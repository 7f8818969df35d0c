//! The set of an epoch's orders, and the book that follows from it.
//!
//! Both are pure functions of the set of valid orders: what is kept never depends on the
//! order of arrival (DESIGN §5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::admission::resale_activation;
use super::ids::{Key, OrderId, to_hex};
use super::matching;
use super::order::{Mode, Order, Side};
use crate::limits::{ORDERS_PER_EPOCH, ORDERS_PER_OWNER_BOOK, ORDERS_PER_OWNER_KEPT};
use crate::params::Params;
use crate::wire::{Verified, sha256};

/// Valid orders of one epoch, bounded per owner and in all by evicting the highest ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderSet {
    orders: BTreeMap<OrderId, Verified<Order>>,
    by_owner: BTreeMap<Key, BTreeSet<OrderId>>,
    /// Of the present orders: every root on gossip is compared with it, and a full set costs
    /// 400,000 hashes.
    root: OnceLock<[u8; 32]>,
}

/// What became of an order that was put into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the set.
    New,
    /// It was there before.
    Known,
    /// The set is full of lower ids.
    Evicted,
}

impl OrderSet {
    /// Adds an order. The result is the same for every order of arrival.
    pub fn insert(&mut self, order: Verified<Order>) -> Inserted {
        let id = OrderId(order.id());
        if self.orders.contains_key(&id) {
            return Inserted::Known;
        }
        self.root.take();
        let owner = order.owner;
        self.by_owner.entry(owner).or_default().insert(id);
        self.orders.insert(id, order);
        self.evict_of(owner);
        while self.orders.len() > ORDERS_PER_EPOCH {
            let Some((highest, owner)) =
                self.orders.iter().next_back().map(|(id, o)| (*id, o.owner))
            else {
                break;
            };
            self.remove(owner, highest);
        }
        if self.orders.contains_key(&id) { Inserted::New } else { Inserted::Evicted }
    }

    fn evict_of(&mut self, owner: Key) {
        let Some(ids) = self.by_owner.get(&owner) else { return };
        if ids.len() > ORDERS_PER_OWNER_KEPT
            && let Some(highest) = ids.iter().next_back().copied()
        {
            self.remove(owner, highest);
        }
    }

    fn remove(&mut self, owner: Key, id: OrderId) {
        self.orders.remove(&id);
        if let Some(ids) = self.by_owner.get_mut(&owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    /// Whether an order would be evicted at once: only lower ids are kept, of its owner or of
    /// all. Cheap, so that nobody has to look at the signature of such an order.
    #[must_use]
    pub fn has_no_room_for(&self, owner: &Key, id: &OrderId) -> bool {
        let own = self.by_owner.get(owner);
        own.is_some_and(|ids| {
            ids.len() >= ORDERS_PER_OWNER_KEPT && ids.last().is_some_and(|highest| highest < id)
        }) || self.orders.len() >= ORDERS_PER_EPOCH
            && self.orders.last_key_value().is_some_and(|(highest, _)| highest < id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Whether a key has an order here.
    #[must_use]
    pub fn has_owner(&self, key: &Key) -> bool {
        self.by_owner.contains_key(key)
    }

    /// One order.
    #[must_use]
    pub fn get(&self, id: &OrderId) -> Option<&Verified<Order>> {
        self.orders.get(id)
    }

    /// Ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = OrderId> + '_ {
        self.orders.keys().copied()
    }

    /// Ids from this one on, ascending.
    pub fn ids_from(&self, first: OrderId) -> impl Iterator<Item = OrderId> + '_ {
        self.orders.range(first..).map(|(id, _)| *id)
    }

    /// Orders, ascending by id.
    pub fn iter(&self) -> impl Iterator<Item = &Verified<Order>> {
        self.orders.values()
    }

    /// RFC 6962 tree hash over the sorted ids: two nodes with equal roots hold equal sets.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        *self.root.get_or_init(|| tree_hash(&self.ids().collect::<Vec<OrderId>>()))
    }

    /// The orders that are matched, ascending by id: of one (owner, nonce) the lowest id, of
    /// one resold (provider, certificate, seq) the lowest id, per owner the 16 lowest ids.
    #[must_use]
    pub fn book(&self) -> Vec<&Verified<Order>> {
        let mut nonces = BTreeSet::new();
        let mut resold = BTreeSet::new();
        let mut per_owner: BTreeMap<Key, usize> = BTreeMap::new();
        self.iter()
            .filter(|order| nonces.insert((order.owner, order.nonce)))
            .filter(|order| {
                resale_activation(order)
                    .is_none_or(|cert| resold.insert((cert.provider, cert.cert_id, cert.seq)))
            })
            .filter(|order| {
                let count = per_owner.entry(order.owner).or_default();
                *count += 1;
                *count <= ORDERS_PER_OWNER_BOOK
            })
            .collect()
    }
}

/// Merkle tree hash of RFC 6962 §2.1 with SHA-256.
#[must_use]
pub fn tree_hash(ids: &[OrderId]) -> [u8; 32] {
    match ids {
        [] => sha256(&[]),
        [id] => sha256(&[&[0], &id.0]),
        _ => {
            let split = ids.len().next_power_of_two() / 2;
            sha256(&[&[1], &tree_hash(&ids[..split]), &tree_hash(&ids[split..])])
        }
    }
}

/// Seed of an epoch's ties: predictable on purpose, since a tie is worth at most 1 msat per
/// block (DESIGN §5).
#[must_use]
pub fn beacon(epoch: u64, params: &Params) -> [u8; 32] {
    sha256(&[b"beacon", &params.magic, &epoch.to_be_bytes()])
}

/// The matcher's input for an epoch: labels are lower-case hex.
#[must_use]
pub fn instance(book: &[&Verified<Order>], epoch: u64, params: &Params) -> matching::Instance {
    matching::Instance {
        beacon: beacon(epoch, params),
        now: params.first_slot(epoch),
        epoch,
        starts: params.matching_starts,
        max_legs: Some(params.max_legs),
        orders: book.iter().map(|order| labelled(order)).collect(),
        cancels: Vec::new(),
    }
}

fn labelled(order: &Verified<Order>) -> matching::Order {
    let hex = |keys: &[Key]| keys.iter().map(ToString::to_string).collect();
    let side = match order.side {
        Side::Buy => matching::Side::Buy {
            hours: order.slots,
            mode: match order.mode {
                Mode::Sticky => matching::Mode::Sticky,
                Mode::Gang => matching::Mode::Gang,
            },
            alts: order.alts.iter().map(|alt| (alt.class, alt.limit_msat)).collect(),
        },
        Side::Sell => matching::Side::Sell {
            // Admission has seen to exactly one alternative.
            class: order.alts.first().map_or(0, |alt| alt.class),
            limit_msat: order.alts.first().map_or(0, |alt| alt.limit_msat),
            min_run: order.min_run,
            provider: resale_activation(order).map(|cert| cert.provider.to_string()),
        },
    };
    matching::Order {
        id: to_hex(&order.id()),
        owner: order.owner.to_string(),
        qty: order.qty,
        filled: 0,
        min_qty: order.min_qty,
        window: (order.window.start, order.window.end),
        expiry_epoch: None,
        features: order.features,
        allow: hex(&order.allow),
        deny: hex(&order.deny),
        side,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_hash_follows_rfc_6962() {
        let id = |byte: u8| OrderId([byte; 32]);
        let leaf = |byte: u8| sha256(&[&[0], &[byte; 32]]);
        let node = |l: [u8; 32], r: [u8; 32]| sha256(&[&[1], &l, &r]);
        assert_eq!(
            super::super::ids::to_hex(&tree_hash(&[])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(tree_hash(&[id(1)]), leaf(1));
        assert_eq!(
            tree_hash(&[id(1), id(2), id(3)]),
            node(node(leaf(1), leaf(2)), leaf(3)),
            "the left subtree is the largest power of two below the count"
        );
    }
}
