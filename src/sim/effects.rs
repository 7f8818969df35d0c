//! Performs effects as a node does, with links, disk, chain and host of the world.

use bitcoin::Transaction;

use super::queue::{Happening, NodeId};
use super::world::{Call, World};
use crate::node::bridge;
use capex_core::engine::{Effect, Input, Protocol, Record, Topic, Verdict};
use capex_core::ids::{Key, LeaseId};
use capex_core::lease::ExecutorEvent;
use capex_core::units::TimeMs;

/// A request without an answer fails after this time, ms: as in the network's codec.
const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// A transaction reaches the mempool of the Bitcoin network within this time, ms.
const BROADCAST_MS: (u64, u64) = (1, 30);
/// How deep a wallet looks again when an update does not fit it, chain blocks.
const REWIND_BLOCKS: u32 = 144;

impl World {
    pub(super) fn perform(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Halt { fault } => {
                self.evidence.broken(format!("node {node} halts: {fault}"));
                self.crash(node);
                return;
            }
            Effect::Persist { seq, records } => self.persist(node, seq, &records),
            Effect::Verdict { ticket, verdict, code } => self.verdict(node, ticket, verdict, code),
            Effect::Publish { topic, bytes } => {
                if let Some(life) = self.nodes[node].life.as_mut() {
                    life.is_news(topic, &bytes);
                }
                self.flood(node, None, topic, &bytes);
            }
            Effect::Send { id, key, protocol, bytes } => self.send(node, id, key, protocol, bytes),
            Effect::Reply { id, bytes } => self.reply(node, id, bytes),
            Effect::Watch { spks, outpoints, from_height } => {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                if bridge::watch(&mut life.watcher, spks, outpoints).is_err() {
                    self.evidence.broken(format!("node {node} watches too much"));
                }
                let lowest = life.rescan_from.map_or(from_height, |height| height.min(from_height));
                life.rescan_from = Some(lowest);
            }
            Effect::Fund { terms_hash, outputs, feerate_sat_kvb } => {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                let height = life.engine.chain().height;
                let wallet = &mut life.wallet;
                let funded = bridge::fund(wallet, terms_hash, &outputs, feerate_sat_kvb, height);
                let result = funded.map_err(|error| error.code().to_owned());
                life.inputs.push_back(Input::Funded { terms_hash, result });
                self.queue_wallet(node);
            }
            Effect::ReleaseCoins { terms_hash } => {
                let Some(life) = self.nodes[node].life.as_mut() else { return };
                // Nothing to release is as good as released.
                let _ = life.wallet.release(terms_hash.0);
                self.queue_wallet(node);
            }
            Effect::Broadcast { tx } => {
                let at_ms = self.now_ms + self.rng.within(BROADCAST_MS.0, BROADCAST_MS.1);
                let (life, tx) = (self.nodes[node].lives, Box::new(tx));
                self.queue.push(at_ms, Happening::Broadcast { node, life, tx });
            }
            Effect::Mine { job, prefix, bits } => {
                if let Some(nonce) = bridge::search_nonce(&prefix, bits) {
                    let life = self.nodes[node].lives;
                    let input = Box::new(Input::Mined { job, nonce });
                    self.queue.push(self.now_ms + 1, Happening::Inside { node, life, input });
                }
            }
            Effect::Start { .. } | Effect::Stop { .. } | Effect::Release { .. } => {
                self.perform_lease(node, &effect);
            }
            Effect::CommandDone { id, result } => {
                if let Some(life) = self.nodes[node].life.as_mut() {
                    life.answers.insert(id, result);
                }
            }
            Effect::Addrs { .. } | Effect::Penalise { .. } | Effect::Notify(_) => {}
        }
        if self.nodes[node].disk.is_dead() {
            self.crash(node);
        }
    }

    fn persist(&mut self, node: NodeId, seq: u64, records: &[Record]) {
        if self.nodes[node].disk.write(records).is_ok()
            && let Some(life) = self.nodes[node].life.as_mut()
        {
            life.inputs.push_back(Input::Persisted { seq });
        }
    }

    fn perform_lease(&mut self, node: NodeId, effect: &Effect) {
        let now_ms = self.now_ms;
        let host = &mut self.nodes[node].host;
        match effect {
            Effect::Start { lease, starts_at_ms, ends_at_ms, .. } => {
                for (at_ms, event) in host.start(now_ms, *lease, *starts_at_ms, *ends_at_ms) {
                    self.host_event(node, at_ms, *lease, event);
                }
            }
            Effect::Stop { lease, .. } => {
                if let Some((at_ms, event)) = host.stop(now_ms, *lease) {
                    self.host_event(node, at_ms, *lease, event);
                }
            }
            Effect::Release { lease } => {
                let event = ExecutorEvent::Released { left_behind: Vec::new() };
                self.host_event(node, now_ms + 1, *lease, event);
            }
            _ => {}
        }
    }

    fn host_event(&mut self, node: NodeId, at_ms: TimeMs, lease: LeaseId, event: ExecutorEvent) {
        let input = Box::new(Input::Executor { lease, event });
        self.queue.push(at_ms, Happening::Host { node, input });
    }

    fn verdict(&mut self, node: NodeId, ticket: u64, verdict: Verdict, code: Option<String>) {
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        life.verdict = Some((verdict, code));
        let Some((from, topic, bytes)) = life.tickets.remove(&ticket) else { return };
        if verdict == Verdict::Accept {
            self.flood(node, Some(from), topic, &bytes);
        }
    }

    fn flood(&mut self, node: NodeId, from: Option<Key>, topic: Topic, bytes: &[u8]) {
        let key = self.nodes[node].key;
        for to in 0..self.nodes.len() {
            if to == node || Some(self.nodes[to].key) == from || !self.sides.joins(node, to) {
                continue;
            }
            for at_ms in self.links.arrivals(self.now_ms, &mut self.rng) {
                let bytes = bytes.to_vec();
                self.queue.push(at_ms, Happening::Gossip { to, from: key, topic, bytes });
            }
        }
    }

    pub(super) fn gossip(&mut self, to: NodeId, from: Key, topic: Topic, bytes: Vec<u8>) {
        // The mesh knows most repetitions; some come through, after its cache has expired.
        let forgetful = self.rng.hits(self.links.duplication);
        let Some(life) = self.nodes[to].life.as_mut() else { return };
        if !life.is_news(topic, &bytes) && !forgetful {
            return;
        }
        life.next_ticket += 1;
        let ticket = life.next_ticket;
        life.tickets.insert(ticket, (from, topic, bytes.clone()));
        self.feed(to, Input::Gossip { peer: from, topic, bytes, ticket });
    }

    fn send(&mut self, node: NodeId, id: u64, key: Key, protocol: Protocol, bytes: Vec<u8>) {
        let peer = self.nodes[node].key;
        let to = self.nodes.iter().position(|other| other.key == key);
        let life = self.nodes[node].lives;
        let absent = to.is_none_or(|to| self.nodes[to].life.is_none());
        self.next_call += 1;
        let call = self.next_call;
        let record = Call { from: Some(node), life, id, to: to.unwrap_or(node), peer, protocol };
        self.calls.insert(call, record);
        let failed = |why: &str| Happening::Response { call, result: Err(why.to_owned()) };
        let Some(to) = to.filter(|_| !absent) else {
            self.queue.push(self.now_ms + 1, failed("no such peer"));
            return;
        };
        self.queue.push(self.now_ms + REQUEST_TIMEOUT_MS, failed("timeout"));
        if !self.sides.joins(node, to) {
            return;
        }
        for at_ms in self.links.arrivals(self.now_ms, &mut self.rng) {
            let bytes = bytes.clone();
            self.queue.push(at_ms, Happening::Request { to, call, protocol, bytes });
        }
    }

    pub(super) fn request(&mut self, to: NodeId, call: u64, protocol: Protocol, bytes: Vec<u8>) {
        let Some(peer) = self.calls.get(&call).map(|call| call.peer) else { return };
        self.feed(to, Input::Request { peer, id: call, protocol, bytes });
    }

    fn reply(&mut self, node: NodeId, call: u64, bytes: Vec<u8>) {
        let Some(found) = self.calls.get(&call) else { return };
        self.evidence.reply(node, found.protocol, &bytes);
        let Some(to) = found.from else {
            self.answered = Some(bytes);
            return;
        };
        if self.sides.joins(node, to) {
            for at_ms in self.links.arrivals(self.now_ms, &mut self.rng) {
                let result = Ok(bytes.clone());
                self.queue.push(at_ms, Happening::Response { call, result });
            }
        }
    }

    pub(super) fn response(&mut self, call: u64, result: Result<Vec<u8>, String>) {
        let Some(Call { from: Some(node), life, id, .. }) = self.calls.remove(&call) else {
            return;
        };
        if self.nodes[node].lives == life {
            self.feed(node, Input::Response { id, result });
        }
    }

    /// Tells the engine what its wallet can do, before the next input.
    fn queue_wallet(&mut self, node: NodeId) {
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        if let Ok(facts) = bridge::wallet_facts(&mut life.wallet, life.engine.fresh_scripts()) {
            life.inputs.push_back(Input::Wallet(facts));
        }
        if self.nodes[node].disk.is_dead() {
            self.crash(node);
        }
    }

    pub(super) fn feed_wallet(&mut self, node: NodeId) {
        self.queue_wallet(node);
        let first = self.nodes[node].life.as_mut().and_then(|life| life.inputs.pop_front());
        if let Some(input) = first {
            self.feed(node, input);
        }
    }

    pub(super) fn broadcast(&mut self, node: NodeId, tx: &Transaction) {
        let result = match self.chain.submit_tx(tx.clone()) {
            Err(reject) if !reject.is_already_known() => Err(reject.to_string()),
            _ => Ok(()),
        };
        let now_s = self.nodes[node].clock_ms(self.now_ms) / 1000;
        let Some(life) = self.nodes[node].life.as_mut() else { return };
        if result.is_ok() {
            if life.wallet.mark_broadcast(tx, now_s).is_err() {
                self.crash(node);
                return;
            }
            self.queue_wallet(node);
        }
        self.feed(node, Input::Broadcasted { txid: tx.compute_txid(), result });
        self.poll(node);
    }

    /// Looks at the chain, and gives wallet and engine what is new.
    pub(super) fn poll(&mut self, node: NodeId) {
        loop {
            let now_s = self.nodes[node].clock_ms(self.now_ms) / 1000;
            let disk = self.nodes[node].disk.clone();
            let Some(life) = self.nodes[node].life.as_mut() else { return };
            let Some(update) = life.cursor.changes(&self.chain) else { return };
            if life.wallet.apply(&update, now_s).is_err() {
                if disk.is_dead() {
                    self.crash(node);
                } else {
                    life.cursor.rescan_from(update.height.saturating_sub(REWIND_BLOCKS));
                }
                return;
            }
            let relevant = life.watcher.reduce(&update);
            self.feed_wallet(node);
            self.feed(node, Input::Chain(bridge::chain_facts(&update, relevant)));
        }
    }
}
