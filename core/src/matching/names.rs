//! Owners and providers as numbers, and who goes first among equals.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::instance::{Order, Side};
use super::labels::Ranks;

/// Labels of owners and providers.
pub(super) struct Names<'a> {
    beacon: &'a [u8; 32],
    /// The owner of each live order, then the providers that are not owners.
    ranks: Ranks<'a>,
    /// Where the provider of an order stands in `ranks`, if it is not the owner.
    providers: BTreeMap<usize, usize>,
    /// By rank. A draw is made when it is first looked at: with fine prices few orders tie.
    draws: Vec<OnceLock<[u8; 32]>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(beacon: &'a [u8; 32], live: &[(&'a Order, u32)]) -> Self {
        let mut labels: Vec<&str> = live.iter().map(|(order, _)| order.owner.as_str()).collect();
        let mut providers = BTreeMap::new();
        for (at, (order, _)) in live.iter().enumerate() {
            if let Side::Sell { provider: Some(provider), .. } = &order.side {
                providers.insert(at, labels.len());
                labels.push(provider);
            }
        }
        let ranks = Ranks::new(labels);
        let draws = vec![OnceLock::new(); ranks.ascending().len()];
        Self { beacon, ranks, providers, draws }
    }

    /// How many different labels there are.
    pub(super) fn len(&self) -> usize {
        self.draws.len()
    }

    /// The owner of the live order at this position.
    pub(super) fn owner(&self, at: usize) -> u32 {
        self.ranks.at(at)
    }

    /// Who delivers for the live order at this position.
    pub(super) fn provider(&self, at: usize) -> u32 {
        self.ranks.at(self.providers.get(&at).copied().unwrap_or(at))
    }

    /// Numbers of the labels in a rule. One that no live order carries meets nobody.
    pub(super) fn find(&self, labels: &[String]) -> Vec<u32> {
        let find = |label: &String| self.ranks.find(label).map_or(u32::MAX, |at| self.ranks.at(at));
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
        for tied in items.chunk_by_mut(|a, b| key(a).0 == key(b).0).filter(|t| t.len() > 1) {
            tied.sort_by_cached_key(|item| *self.draw(owner(item)));
        }
    }

    fn draw(&self, owner: u32) -> &[u8; 32] {
        let label = self.ranks.label(owner).as_bytes();
        self.draws[owner as usize].get_or_init(|| sha256(&[b"draw", self.beacon, label]))
    }

    /// A number from 0 to 1000 for one bid in one start of the search.
    pub(super) fn perturbation(&self, bid: &str, start: u8) -> u32 {
        let hash = sha256(&[b"pert", self.beacon, &[start], bid.as_bytes()]);
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 1001
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
