//! Other nodes: where they are, and how they have behaved.

use std::collections::BTreeSet;

use crate::api::types::Peer;
use crate::api::{ApiError, Noun, Prefix};
use crate::clock::now_ms;
use crate::node::Node;
use capex_core::engine::kernel::{Denial, Miss};
use capex_core::ids::Key;

impl Node {
    /// Nodes that are known, connected, or remembered for what they failed to do.
    fn peer_keys(&self) -> BTreeSet<Key> {
        let known = self.outside.peers.iter().map(|(key, _)| *key);
        let missed = self.engine().conduct().keys();
        known.chain(self.engine().peers().iter().copied()).chain(missed).collect()
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        self.peer_keys().iter().map(|key| self.peer_dto(key)).collect()
    }

    pub(super) fn peer(&self, prefix: &Prefix) -> Result<Peer, ApiError> {
        let key = prefix.find(Noun::Peer, self.peer_keys(), |key| key.0)?;
        Ok(self.peer_dto(&key))
    }

    fn peer_dto(&self, key: &Key) -> Peer {
        let conduct = self.engine().conduct();
        let counts = conduct.misses(key).into_iter().flatten();
        let misses = counts.map(|(miss, count): (&Miss, &u32)| (miss.name().to_owned(), *count));
        let denial = conduct.denial(now_ms(), key);
        Peer {
            key: key.to_string(),
            connected: self.engine().peers().contains(key),
            addresses: self.outside.peers.addrs(key),
            misses: misses.collect(),
            denied_until: match denial {
                Some(Denial::Until(until_ms)) => Some(until_ms),
                Some(Denial::ForGood) | None => None,
            },
            equivocator: denial == Some(Denial::ForGood),
        }
    }
}
