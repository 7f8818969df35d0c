//! Other nodes: where they are, and how they have behaved.

use std::collections::BTreeSet;

use super::leases::unavailable;
use crate::api::types::{Peer, PeerRecord, seconds};
use crate::api::{ApiError, FileText, Noun, Prefix};
use crate::clock::now_ms;
use crate::node::Node;
use capex_core::engine::kernel::{Denial, Miss};
use capex_core::engine::trades::TradeView;
use capex_core::ids::{Key, to_hex};
use capex_core::wire::Envelope;

impl Node {
    /// Nodes that are known, connected, or remembered for what they failed to do.
    fn peer_keys(&self) -> BTreeSet<Key> {
        let known = self.outside.peers.iter().map(|(key, _)| *key);
        let missed = self.engine().conduct().keys();
        let sold = self.engine().leases().providers();
        known.chain(self.engine().peers().iter().copied()).chain(missed).chain(sold).collect()
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
            record: self.peer_record(key),
        }
    }

    fn peer_record(&self, key: &Key) -> PeerRecord {
        let engine = self.engine();
        let delivery = engine.leases().delivery(key, now_ms(), engine.params());
        let percent = delivery.permille().map(|permille| match permille % 10 {
            0 => (permille / 10).to_string(),
            tenth => format!("{}.{tenth}", permille / 10),
        });
        let trades = engine.trades().views();
        let is_settled = |trade: &TradeView| {
            trade.counterparty == *key && matches!(trade.state, "active" | "settled")
        };
        let settled = trades.filter(is_settled).count();
        let misses = engine.conduct().misses(key);
        PeerRecord {
            leases: delivery.leases,
            ended_early: delivery.ended_early,
            sold_block_s: seconds(delivery.sold_block_ms),
            delivered_block_s: seconds(delivery.delivered_block_ms),
            unavailable: delivery.unavailable.iter().map(unavailable).collect(),
            delivered_percent: percent,
            settled: u32::try_from(settled).unwrap_or(u32::MAX),
            defaulted: misses.map_or(0, |counts| counts.values().sum()),
        }
    }

    /// One signed object a line, as in a file of a certificate: the key that signed it, what it
    /// says, its signature.
    pub(super) fn peer_receipts(&self, prefix: &Prefix) -> Result<FileText, ApiError> {
        let key = prefix.find(Noun::Peer, self.peer_keys(), |key| key.0)?;
        let mut text = format!("capex-receipts 1 {}\n", self.engine().params().name);
        let mut line = |kind: &str, signed: &Envelope| {
            let [key, payload] = [to_hex(&signed.key), to_hex(&signed.payload)];
            let signature = to_hex(&signed.signature.concat());
            text.push_str(&format!("{kind} {key} {payload} {signature}\n"));
        };
        for of_lease in self.engine().leases().receipts_with(&key) {
            of_lease.receipts.iter().for_each(|receipt| line("receipt", receipt));
            of_lease.countersignature.iter().for_each(|signed| line("countersign", signed));
        }
        Ok(FileText(text))
    }
}
