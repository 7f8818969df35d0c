//! Owners and providers as numbers, and who goes first among equals.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::labels::{Label, Ranks};
use super::view::{Labels, Listing};

/// Labels of owners and providers.
pub(super) struct Names<'a> {
    beacon: [u8; 32],
    /// The owner of each live order, then the providers that are not owners.
    ranks: Ranks<'a>,
    /// Where the provider of a live order stands in `ranks`, if it is not the owner.
    providers: BTreeMap<usize, usize>,
    /// By rank. A draw is made when it is first looked at: with fine prices few orders tie.
    draws: OnceLock<Vec<OnceLock<[u8; 32]>>>,
}

impl<'a> Names<'a> {
    /// Takes the labels out of the listing.
    pub(super) fn new(listing: &mut Listing<'a>) -> Self {
        let mut labels = std::mem::take(&mut listing.owners);
        let mut providers = BTreeMap::new();
        for &(number, provider) in &listing.providers {
            providers.insert(number, labels.len());
            labels.push(provider);
        }
        let ranks = Ranks::new(labels);
        Self { beacon: listing.terms.beacon, ranks, providers, draws: OnceLock::new() }
    }

    /// How many different labels there are.
    pub(super) fn len(&self) -> usize {
        self.ranks.len()
    }

    /// The owner of the live order with this number.
    pub(super) fn owner(&self, number: usize) -> u32 {
        self.ranks.at(number)
    }

    /// Who delivers for the live order with this number.
    pub(super) fn provider(&self, number: usize) -> u32 {
        self.ranks.at(self.providers.get(&number).copied().unwrap_or(number))
    }

    /// Numbers of the labels in a rule. One that no live order carries meets nobody.
    pub(super) fn find(&self, labels: Labels<'_>) -> Vec<u32> {
        let find = |label| self.ranks.find(label).map_or(u32::MAX, |at| self.ranks.at(at));
        labels.iter().map(find).collect()
    }

    /// Sorts by (key, draw of the owner, rank of the id), given (key, rank of the id). There
    /// is one draw per owner, so that splitting an order buys no further ticket.
    pub(super) fn sort<T, K: Ord>(
        &self,
        items: &mut [T],
        key: impl Fn(&T) -> (K, u32),
        owner: impl Fn(&T) -> u32,
    ) {
        items.sort_by_cached_key(&key);
        break_ties(items, |a, b| key(a).0 == key(b).0, |item| *self.draw(owner(item)));
    }

    fn draw(&self, owner: u32) -> &[u8; 32] {
        let draws = self.draws.get_or_init(|| vec![OnceLock::new(); self.len()]);
        let label = self.ranks.label(owner);
        draws[owner as usize].get_or_init(|| draw(&self.beacon, label))
    }

    /// A number from 0 to 1000 for one bid in one start of the search.
    pub(super) fn perturbation(&self, bid: Label<'_>, start: u8) -> u32 {
        let hash = bid.hash_after(&[b"pert", &self.beacon, &[start]]);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 1001
    }
}

/// Sorts neighbours that are alike by the draw of the owner; of one owner they stay as they are.
pub(super) fn break_ties<T>(
    items: &mut [T],
    are_alike: impl Fn(&T, &T) -> bool,
    draw: impl Fn(&T) -> [u8; 32],
) {
    for tied in items.chunk_by_mut(are_alike).filter(|tied| tied.len() > 1) {
        tied.sort_by_cached_key(&draw);
    }
}

/// What decides for an owner among equals.
pub(super) fn draw(beacon: &[u8; 32], owner: Label<'_>) -> [u8; 32] {
    owner.hash_after(&[b"draw", beacon])
}
