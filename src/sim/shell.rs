//! A simulated node's shell: links, disk, chain and host of the world.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::Transaction;

use super::life::{Body, Node};
use super::queue::{Happening, Message, NodeId};
use super::world::{Call, World};
use crate::driver::{Inputs, Shell, search_nonce};
use crate::store::StoreError;
use crate::wallet::WalletError;
use capex_core::book::OrderSet;
use capex_core::bundle::Candidates;
use capex_core::code;
use capex_core::engine::leases::LeaseEffect;
use capex_core::engine::market::{ComputeError, Computed, Frozen};
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::trades::TradeRequest;
use capex_core::engine::{
    Checked, Done, Effect, Event, Input, Protocol, Record, Refusal, Topic, Unchecked, Verdict,
};
use capex_core::ids::{Key, LeaseId, OrderId};
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::LeaseReply;
use capex_core::units::TimeMs;
use capex_core::wire::{decode_record, encode};

/// A request without an answer fails after this time, ms: as in the network's codec.
const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// A transaction reaches the mempool of the Bitcoin network within this time, ms.
const BROADCAST_MS: (u64, u64) = (1, 30);

/// Results that are remembered: those of two epochs, on as many sides as a network has.
const COMPUTED_KEPT: usize = 16;

/// Verified messages that are remembered: all nodes verify one within seconds, and a large
/// network sends fewer in an epoch.
const VERIFIED_KEPT: usize = 4096;

/// A node in its world, while its driver runs.
pub(super) struct Here<'a> {
    pub(super) world: &'a mut World,
    pub(super) node: NodeId,
    pub(super) body: &'a mut Body,
}

impl Here<'_> {
    fn soon(&mut self, at_ms: TimeMs, input: Input) {
        let (node, life) = (self.node, self.world.nodes[self.node].lives);
        let input = Box::new(input);
        self.world.queue.push(at_ms, Happening::Inside { node, life, input });
    }

    /// What a slow node computes is there later.
    fn computed(&mut self, inputs: &mut Inputs, input: Input) {
        match self.world.nodes[self.node].computes_for_ms {
            0 => inputs.push(input),
            ms => self.soon(self.world.now_ms + ms, input),
        }
    }

    fn host_event(&mut self, at_ms: TimeMs, lease: LeaseId, event: ExecutorEvent) {
        let input = Box::new(Input::Executor { lease, event });
        self.world.queue.push(at_ms, Happening::Host { node: self.node, input });
    }
}

impl Shell for Here<'_> {
    fn now_ms(&self) -> TimeMs {
        self.world.nodes[self.node].clock_ms(self.world.now_ms)
    }

    fn on_input(&mut self, input: &Input) {
        self.world.trace.input(self.world.now_ms, self.node, input);
    }

    fn on_effect(&mut self, effect: &Effect) {
        self.world.trace.effect(effect);
        if let Effect::Watch { spks, .. } = effect {
            self.world.nodes[self.node].contracts.extend(spks.iter().cloned());
        }
    }

    fn persist(
        &mut self,
        inputs: &mut Inputs,
        seq: u64,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        self.world.nodes[self.node].disk.write(&records)?;
        inputs.push(Input::Persisted { seq });
        Ok(())
    }

    fn verdict(&mut self, ticket: u64, verdict: Verdict, code: Option<String>) {
        self.body.verdict = Some((verdict, code));
        let Some((from, message)) = self.body.tickets.remove(&ticket) else { return };
        if verdict == Verdict::Accept {
            self.world.flood(self.node, Some(from), &message);
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let lives = self.world.nodes[self.node].lives;
        self.world.evidence.published(self.node, lives, topic, &bytes);
        let message = self.world.messages.get(topic, &bytes);
        self.body.is_news(&message);
        self.world.flood(self.node, None, &message);
    }

    fn send(
        &mut self,
        _inputs: &mut Inputs,
        id: u64,
        key: Key,
        protocol: Protocol,
        bytes: Vec<u8>,
    ) {
        self.world.evidence.sent(self.node, protocol, &bytes);
        self.world.send(self.node, id, key, protocol, &bytes);
    }

    fn reply(&mut self, id: u64, bytes: Vec<u8>) {
        self.world.reply(self.node, id, bytes);
    }

    fn penalise(&mut self, _key: Key) {}

    fn addrs(&mut self, _key: Key, _addrs: Vec<String>, _is_connected: bool) {}

    fn broadcast(&mut self, tx: Transaction) {
        let world = &mut *self.world;
        let at_ms = world.now_ms + world.rng.within(BROADCAST_MS.0, BROADCAST_MS.1);
        let (node, life, tx) = (self.node, world.nodes[self.node].lives, Box::new(tx));
        world.queue.push(at_ms, Happening::Broadcast { node, life, tx });
    }

    fn rescan_from(&mut self, height: u32) -> bool {
        self.body.cursor.rescan_from(height);
        let (node, life) = (self.node, self.world.nodes[self.node].lives);
        let look = Happening::Poll { node, life, regular: false };
        self.world.queue.push(self.world.now_ms + 1, look);
        true
    }

    fn chain_refused(&mut self, _error: &WalletError) {}

    fn freeze(
        &mut self,
        inputs: &mut Inputs,
        job: u64,
        epoch: u64,
        set: Arc<OrderSet>,
        own: BTreeSet<OrderId>,
    ) {
        self.computed(inputs, Input::Frozen { job, frozen: Frozen::new(epoch, &set, &own) });
    }

    fn compute(&mut self, inputs: &mut Inputs, job: u64, epoch: u64, set: Arc<OrderSet>) {
        let result = self.world.compute(epoch, &set);
        self.computed(inputs, Input::Matched { job, result });
    }

    fn discard(&mut self, _set: Arc<OrderSet>) {}

    fn mine(&mut self, job: u64, prefix: Vec<u8>, bits: u8) {
        if let Some(nonce) = search_nonce(&prefix, bits) {
            self.soon(self.world.now_ms + 1, Input::Mined { job, nonce });
        }
    }

    fn verify(&mut self, inputs: &mut Inputs, peer: Key, ticket: u64, candidates: Candidates) {
        let message = self.body.tickets.get(&ticket).map(|(_, message)| message.number);
        let checked = match message {
            Some(message) => self.world.verify(message, candidates),
            None => candidates.verify().map_err(Unchecked::Invalid),
        };
        inputs.push(Input::Checked { peer, ticket, checked });
    }

    fn lease(&mut self, effect: LeaseEffect) {
        let now_ms = self.world.now_ms;
        let host = &mut self.world.nodes[self.node].host;
        match effect {
            LeaseEffect::Prepare { lease, workload, starts_at_ms, ends_at_ms, .. } => {
                for event in host.prepare(now_ms, lease, &workload, starts_at_ms, ends_at_ms) {
                    self.host_event(now_ms + 1, lease, event);
                }
            }
            LeaseEffect::Launch { lease } => {
                for (at_ms, event) in host.launch(now_ms, lease) {
                    self.host_event(at_ms, lease, event);
                }
            }
            LeaseEffect::Serve { id, lease, what } => {
                let served = host.serve(now_ms, lease, what);
                let (call, bytes) = (id, encode(&served.reply));
                let (node, life) = (self.node, self.world.nodes[self.node].lives);
                let reply = Happening::Served { node, life, call, bytes };
                self.world.queue.push(served.at_ms, reply);
                if let Some(event) = served.event {
                    self.host_event(served.at_ms, lease, event);
                }
            }
            // Hosts in a world reach nothing outside it.
            LeaseEffect::Pull { id, .. } => {
                let reply = LeaseReply::Refused { code: code!("pull.not_allowed").to_owned() };
                let (node, life) = (self.node, self.world.nodes[self.node].lives);
                let reply = Happening::Served { node, life, call: id, bytes: encode(&reply) };
                self.world.queue.push(now_ms + 1, reply);
            }
            LeaseEffect::Stop { lease, .. } => {
                if let Some((at_ms, event)) = host.stop(now_ms, lease) {
                    self.host_event(at_ms, lease, event);
                }
            }
            LeaseEffect::Release { lease } => {
                host.release(&lease);
                let event = ExecutorEvent::Released { left_behind: Vec::new() };
                self.host_event(now_ms + 1, lease, event);
            }
            // Hosts in a world have no processes that could rest.
            LeaseEffect::Maintain { .. } => {}
            LeaseEffect::Held(job) => {
                if let Some((lease, event)) = self.world.nodes[self.node].held.perform(&job) {
                    self.soon(now_ms + 1, Input::Held { lease, event });
                }
            }
        }
    }

    fn notify(&mut self, _event: Event) {}

    fn done(&mut self, id: u64, result: Result<Done, Refusal>) {
        self.body.answers.insert(id, result);
    }
}

/// Whether a dishonest node keeps a message from another.
fn is_withheld(from: &Node, to: NodeId, bytes: &[u8]) -> bool {
    let is_withheld = from.withholds.filter(|(from_whom, _)| *from_whom == to);
    is_withheld.is_some_and(|(_, is_it)| decode_record(bytes).is_ok_and(|said| is_it(&said)))
}

fn is_funding(bytes: &[u8]) -> bool {
    matches!(decode_record(bytes), Ok(SettleRequest::Trade(TradeRequest::Fund { .. })))
}

impl World {
    /// Equal sets give equal results, so each is matched once in the world.
    fn compute(&mut self, epoch: u64, set: &OrderSet) -> Result<Arc<Computed>, ComputeError> {
        let of_set = (epoch, set.root());
        if let Some(known) = self.computed.get(&of_set) {
            return known.clone();
        }
        while self.computed.len() >= COMPUTED_KEPT {
            self.computed.pop_first();
        }
        let result = Computed::new(epoch, set, &self.params).map(Arc::new);
        self.computed.insert(of_set, result.clone());
        result
    }

    /// The same orders of the same message are good or bad for every node, so they are
    /// verified once in the world. Nodes know different orders of it already.
    fn verify(&mut self, message: usize, candidates: Candidates) -> Checked {
        let of_orders: (_, Vec<OrderId>) = (message, candidates.ids().collect());
        if let Some(known) = self.verified.get(&of_orders) {
            return known.clone();
        }
        if self.verified.len() >= VERIFIED_KEPT {
            self.verified.clear();
        }
        self.verifications += 1;
        let checked = candidates.verify().map_err(Unchecked::Invalid);
        self.verified.insert(of_orders, checked.clone());
        checked
    }

    /// Passes a message on: one that is on its way to a node is not sent to it again.
    fn flood(&mut self, node: NodeId, from: Option<Key>, message: &Message) {
        let key = self.nodes[node].key;
        for to in 0..self.nodes.len() {
            let other = &mut self.nodes[to];
            let has_it = other.key == key || Some(other.key) == from;
            let Some(life) = other.life.as_mut().filter(|life| !life.body.awaits(message)) else {
                continue;
            };
            if has_it || !self.sides.joins(node, to) {
                continue;
            }
            for at_ms in self.links.arrivals(self.now_ms, &mut self.rng) {
                life.body.expect(message);
                let message = message.clone();
                self.queue.push(at_ms, Happening::Gossip { to, from: key, message });
            }
        }
    }

    pub(super) fn gossip(&mut self, to: NodeId, from: Key, message: Message) {
        // The mesh knows most repetitions; some come through, after its cache has expired.
        let forgetful = self.rng.hits(self.links.duplication);
        let Some(life) = self.nodes[to].life.as_mut() else { return };
        if !life.body.is_news(&message) && !forgetful {
            return;
        }
        let (topic, bytes) = (message.topic, message.bytes.to_vec());
        let ticket = life.body.ticket(from, message);
        self.feed(to, Input::Gossip { peer: from, topic, bytes, ticket });
    }

    fn send(&mut self, node: NodeId, id: u64, key: Key, protocol: Protocol, bytes: &[u8]) {
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
        let is_withheld = protocol == Protocol::Settle && is_withheld(&self.nodes[node], to, bytes);
        if is_withheld || !self.sides.joins(node, to) {
            return;
        }
        for at_ms in self.arrivals(protocol, bytes) {
            let bytes = bytes.to_vec();
            self.queue.push(at_ms, Happening::Request { to, call, protocol, bytes });
        }
    }

    fn arrivals(&mut self, protocol: Protocol, bytes: &[u8]) -> Vec<TimeMs> {
        let mut arrivals = self.links.arrivals(self.now_ms, &mut self.rng);
        if protocol == Protocol::Settle {
            self.settling.send(bytes, &mut arrivals);
        }
        arrivals
    }

    pub(super) fn request(&mut self, to: NodeId, call: u64, protocol: Protocol, bytes: Vec<u8>) {
        let Some(peer) = self.calls.get(&call).map(|call| call.peer) else { return };
        if self.nodes[to].ignores_fundings && is_funding(&bytes) {
            return;
        }
        self.feed(to, Input::Request { peer, id: call, protocol, bytes });
    }

    pub(super) fn reply(&mut self, node: NodeId, call: u64, bytes: Vec<u8>) {
        let Some(found) = self.calls.get(&call) else { return };
        let protocol = found.protocol;
        let is_kept = self.nodes[node].never_says.filter(|_| protocol == Protocol::Settle);
        if is_kept.is_some_and(|is_it| decode_record(&bytes).is_ok_and(|said| is_it(&said))) {
            return;
        }
        self.evidence.reply(node, protocol, &bytes);
        let Some(to) = found.from else {
            self.answered = Some(bytes);
            return;
        };
        if self.sides.joins(node, to) {
            for at_ms in self.arrivals(protocol, &bytes) {
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
}
