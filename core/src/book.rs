//! The set of an epoch's orders, and the book that follows from it.
//!
//! Both are pure functions of the set of valid orders: what is kept never depends on the
//! order of arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::admission::resale_activation;
use super::ids::{Key, OrderId};
use super::matching::{self, Alts, Label, Labels, Orders, Terms, View, ViewSide};
use super::order::{Mode, Order, Side, Source};
use crate::limits::{ORDERS_PER_EPOCH, ORDERS_PER_OWNER_BOOK, ORDERS_PER_OWNER_KEPT};
use crate::params::Params;
use crate::wire::{Verified, sha256};

/// Valid orders of one epoch, bounded per owner and in all by evicting the highest ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderSet {
    /// Behind a pointer: a copy of a set, and the sets of a simulated network, share the orders.
    orders: BTreeMap<OrderId, Arc<Verified<Order>>>,
    by_owner: BTreeSet<(Key, OrderId)>,
    /// Of the present orders: every root on gossip is compared with it, and a full set costs
    /// 400,000 hashes.
    root: OnceLock<[u8; 32]>,
}

/// What became of an order that was put into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    New,
    Known,
    /// The set is full of lower ids.
    Evicted,
}

impl OrderSet {
    /// Adds an order. The result is the same for every order of arrival.
    pub fn insert(&mut self, order: impl Into<Arc<Verified<Order>>>) -> Inserted {
        let order = order.into();
        let id = OrderId(order.id());
        if self.orders.contains_key(&id) {
            return Inserted::Known;
        }
        self.root.take();
        let owner = order.owner;
        self.by_owner.insert((owner, id));
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
        let ids = self.ids_of(&owner);
        if ids.clone().count() > ORDERS_PER_OWNER_KEPT
            && let Some(highest) = ids.last()
        {
            self.remove(owner, highest);
        }
    }

    fn remove(&mut self, owner: Key, id: OrderId) {
        self.orders.remove(&id);
        self.by_owner.remove(&(owner, id));
    }

    /// Ids of one owner's orders, ascending.
    pub fn ids_of(&self, owner: &Key) -> impl Iterator<Item = OrderId> + Clone {
        let all = (*owner, OrderId([0; 32]))..=(*owner, OrderId([u8::MAX; 32]));
        self.by_owner.range(all).map(|&(_, id)| id)
    }

    /// Whether an order would be evicted at once: only lower ids are kept, of its owner or of
    /// all. Cheap, so that nobody has to look at the signature of such an order.
    #[must_use]
    pub fn has_no_room_for(&self, owner: &Key, id: &OrderId) -> bool {
        let own = self.ids_of(owner);
        let is_owner_full = own.clone().count() >= ORDERS_PER_OWNER_KEPT;
        let is_full = self.orders.len() >= ORDERS_PER_EPOCH;
        is_owner_full && own.last().is_some_and(|highest| highest < *id)
            || is_full && self.orders.last_key_value().is_some_and(|(highest, _)| highest < id)
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
        self.ids_of(key).next().is_some()
    }

    /// One order.
    #[must_use]
    pub fn get(&self, id: &OrderId) -> Option<&Verified<Order>> {
        self.orders.get(id).map(|order| &**order)
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
        self.orders.values().map(|order| &**order)
    }

    /// RFC 6962 tree hash over the sorted ids: two nodes with equal roots hold equal sets.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        *self.root.get_or_init(|| tree_hash(&self.ids().collect::<Vec<OrderId>>()))
    }

    /// The same, if it has been computed since the last change.
    #[must_use]
    pub(crate) fn known_root(&self) -> Option<[u8; 32]> {
        self.root.get().copied()
    }

    /// The orders that are matched, ascending by id: of one (owner, nonce) the lowest id, of
    /// one resold (provider, certificate, seq) the lowest id, per owner the 16 lowest ids.
    #[must_use]
    pub fn book(&self) -> Vec<&Verified<Order>> {
        self.entries().into_iter().map(|entry| entry.order).collect()
    }

    /// As [`OrderSet::book`].
    pub(crate) fn entries(&self) -> Vec<Entry<'_>> {
        let all = self.orders.iter();
        let mut book: Vec<Entry<'_>> =
            all.map(|(&id, order)| Entry { id, owner: order.owner, order }).collect();
        let mut is_kept = vec![true; book.len()];
        let owners = Owners::new(&book, &self.by_owner);
        for owned in owners.iter() {
            // Of one nonce the lowest id comes first.
            for pair in owned.windows(2).filter(|pair| pair[0].nonce == pair[1].nonce) {
                is_kept[pair[1].at()] = false;
            }
        }
        let mut resold = BTreeSet::new();
        for &at in &owners.resales {
            let cert = resale_activation(book[at].order).filter(|_| is_kept[at]);
            let Some(cert) = cert else { continue };
            is_kept[at] = resold.insert((cert.provider, cert.cert_id, cert.seq));
        }
        for owned in owners.iter().filter(|owned| owned.len() > ORDERS_PER_OWNER_BOOK) {
            let mut kept: Vec<usize> =
                owned.iter().map(Owned::at).filter(|&at| is_kept[at]).collect();
            kept.sort_unstable();
            for &at in kept.iter().skip(ORDERS_PER_OWNER_BOOK) {
                is_kept[at] = false;
            }
        }
        let mut is_kept = is_kept.into_iter();
        book.retain(|_| is_kept.next() == Some(true));
        book
    }
}

/// An order of the book, with what is read of it most often.
pub(crate) struct Entry<'a> {
    pub(crate) id: OrderId,
    pub(crate) owner: Key,
    pub(crate) order: &'a Verified<Order>,
}

/// An order among those of its owner.
#[derive(Clone, Copy)]
struct Owned {
    /// The first eight bytes of the owner's key: owners are sorted as integers.
    prefix: u64,
    nonce: u64,
    /// Position in the set; ids ascend with it.
    at: u32,
}

impl Owned {
    fn at(&self) -> usize {
        self.at as usize
    }
}

/// The orders of owners that have more than one, by (owner, nonce, id).
struct Owners {
    /// Those of others may be among them.
    all: Vec<Owned>,
    /// Where those of an owner begin and end, if it has more than one.
    several: Vec<(usize, usize)>,
    /// Positions of those that resell a certificate, ascending.
    resales: Vec<usize>,
}

impl Owners {
    /// Of orders that ascend by id, and their ids by owner.
    fn new(orders: &[Entry<'_>], by_owner: &BTreeSet<(Key, OrderId)>) -> Self {
        let owned = |at: usize| {
            let Entry { owner, order, .. } = &orders[at];
            let prefix = owner.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
            // Fewer than 2^32, see ORDERS_PER_EPOCH.
            Owned { prefix, nonce: order.nonce, at: at as u32 }
        };
        // Few are looked up one by one; else it is faster to sort them all.
        let found = |id: OrderId| orders.binary_search_by_key(&id, |entry| entry.id).ok();
        let mut all: Vec<Owned> = match not_alone(by_owner, orders.len() / 8) {
            Some(ids) => ids.into_iter().filter_map(found).map(owned).collect(),
            None => (0..orders.len()).map(owned).collect(),
        };
        let is_resale = |at: &usize| orders[*at].order.source != Source::Primary;
        let resales = (0..orders.len()).filter(is_resale).collect();
        all.sort_unstable_by_key(|owned| (owned.prefix, owned.nonce, owned.at));
        let owner = |owned: &Owned| orders[owned.at()].owner;
        let (mut several, mut begin) = (Vec::new(), 0);
        for alike in all.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            if alike.len() > 1 {
                // Keys that begin alike are the same, unless someone searched for such a pair.
                alike.sort_by_key(owner);
                for owned in alike.chunk_by(|a, b| owner(a) == owner(b)) {
                    several.push((begin, begin + owned.len()));
                    begin += owned.len();
                }
            } else {
                begin += 1;
            }
        }
        Self { all, several, resales }
    }

    /// The orders of each owner with more than one.
    fn iter(&self) -> impl Iterator<Item = &[Owned]> {
        self.several.iter().map(|&(begin, end)| &self.all[begin..end])
    }
}

/// The orders of owners that have more than one, if they are no more than `most`.
fn not_alone(by_owner: &BTreeSet<(Key, OrderId)>, most: usize) -> Option<Vec<OrderId>> {
    let mut found = Vec::new();
    let (mut before, mut is_first) = (None, true);
    for &(owner, id) in by_owner {
        match before {
            Some((last, other)) if last == owner => {
                found.extend(is_first.then_some(other));
                found.push(id);
                is_first = false;
            }
            _ => is_first = true,
        }
        before = Some((owner, id));
        if found.len() > most {
            return None;
        }
    }
    Some(found)
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
/// block.
#[must_use]
pub fn beacon(epoch: u64, params: &Params) -> [u8; 32] {
    sha256(&[b"beacon", &params.magic, &epoch.to_be_bytes()])
}

/// The matcher's input for an epoch, in the form that people read: labels are lower-case hex.
#[must_use]
pub fn instance(book: &[&Verified<Order>], epoch: u64, params: &Params) -> matching::Instance {
    let Terms { beacon, now, epoch, starts, max_legs, .. } = terms(epoch, params);
    let orders = book.iter().map(|order| matching::Order::from(view(order))).collect();
    matching::Instance { beacon, now, epoch, starts, max_legs, orders, cancels: Vec::new() }
}

/// The matcher's input for an epoch, as it came.
pub(crate) struct Booked<'a> {
    pub(crate) orders: &'a [Entry<'a>],
    pub(crate) epoch: u64,
    pub(crate) params: &'a Params,
}

impl<'a> Orders<'a> for Booked<'a> {
    fn terms(&self) -> Terms<'a> {
        terms(self.epoch, self.params)
    }

    fn count(&self) -> usize {
        self.orders.len()
    }

    fn view(&self, at: usize) -> View<'a> {
        let Entry { id, owner, order } = &self.orders[at];
        View { id: Label::Id(id.0), owner: Label::Id(owner.0), ..view(order) }
    }
}

fn terms<'a>(epoch: u64, params: &Params) -> Terms<'a> {
    Terms {
        beacon: beacon(epoch, params),
        now: params.first_slot(epoch),
        epoch,
        starts: params.matching_starts,
        max_legs: Some(params.max_legs),
        cancels: &[],
    }
}

fn view(order: &Verified<Order>) -> View<'_> {
    let side = match order.side {
        Side::Buy => ViewSide::Buy {
            hours: order.slots,
            mode: match order.mode {
                Mode::Sticky => matching::Mode::Sticky,
                Mode::Gang => matching::Mode::Gang,
            },
            alts: Alts::Wire(&order.alts),
        },
        Side::Sell => ViewSide::Sell {
            // Admission guarantees exactly one alternative.
            class: order.alts.first().map_or(0, |alt| alt.class),
            limit_msat: order.alts.first().map_or(0, |alt| alt.limit_msat),
            min_run: order.min_run,
            provider: resale_activation(order).map(|cert| Label::Id(cert.provider.0)),
        },
    };
    View {
        id: Label::Id(order.id()),
        owner: Label::Id(order.owner.0),
        qty: order.qty,
        filled: 0,
        min_qty: order.min_qty,
        window: (order.window.start, order.window.end),
        expiry_epoch: None,
        features: order.features,
        allow: Labels::Keys(&order.allow),
        deny: Labels::Keys(&order.deny),
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

    /// Order number `n` of 2^32, ascending by id, of an owner of its own.
    fn order(n: u32, template: &Order) -> Verified<Order> {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let owner = Key(sha256(&[&n.to_be_bytes()]));
        Verified::made_up(Order { owner, ..template.clone() }, id)
    }

    #[test]
    fn a_full_epoch_keeps_the_lowest_ids_whoever_sent_them_first() {
        let template = Order::sample(Key([0; 32]), 7);
        let order = |n: u32| order(n, &template);
        let mut set = OrderSet::default();
        // A stranger was first, with every second number from 2,000,000 on.
        let of_stranger = |n: u32| 2_000_000 + 2 * n;
        for n in 0..200_000 {
            assert_eq!(set.insert(order(of_stranger(n))), Inserted::New, "{n}");
        }
        assert_eq!(set.len(), 200_000);
        let has_room = |set: &OrderSet, n: u32| {
            let order = order(n);
            !set.has_no_room_for(&order.owner, &OrderId(order.id()))
        };
        let highest = of_stranger(199_999);
        assert!(!has_room(&set, highest + 1) && has_room(&set, highest - 1));
        assert_eq!(set.insert(order(highest + 1)), Inserted::Evicted);
        // Each lower id comes in, and the highest goes for it.
        for n in 0..1_000 {
            assert_eq!(set.insert(order(1_000 + n)), Inserted::New, "{n}");
            assert!(!set.has_owner(&order(of_stranger(199_999 - n)).owner), "{n}");
        }
        assert_eq!((set.len(), set.by_owner.len()), (200_000, 200_000));
        assert_eq!(set.insert(order(highest - 1)), Inserted::Evicted);
        let ids: Vec<OrderId> = set.ids().collect();
        let expected = (1_000..2_000).chain((0..199_000).map(of_stranger));
        assert!(ids.iter().copied().eq(expected.map(|n| OrderId(order(n).id()))));
    }
}
