//! The swarm task: turns commands into swarm calls and swarm events into events.

use std::time::Instant;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError, TopicHash};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use tokio::sync::{mpsc, watch};

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::config::{Plan, parse, split_peer};
use crate::gossip::FAULT_SCORE;
use crate::keys::PeerKey;
use crate::limits::{
    COMMANDS_PER_TURN, FAULTS_TO_BAN, GOODBYE, MAX_ADDRESS_BYTES, MAX_ADDRESSES,
    MAX_DIALS_PER_TICK, PAUSE_COMMANDS_ABOVE, PAUSE_SWARM_ABOVE, TARGET_PEERS, TICK, TICK_LOOPBACK,
};
use crate::listen::Listeners;
use crate::state::State;
use crate::supervisor::{Channels, Input};
use crate::{Command, Event, RequestError, Ticket, Verdict};

mod requests;
mod streams;

pub(crate) use streams::Opening;

/// Why the task ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// The node wants no network any more.
    Stopped,
    /// A part of the swarm failed.
    Crashed(String),
}

/// One run of the swarm.
pub(crate) struct Task<'a> {
    plan: &'a Plan,
    state: &'a mut State,
    swarm: Swarm<Behaviour>,
    listeners: Listeners,
}

impl<'a> Task<'a> {
    /// Takes over a swarm; bans of an earlier run hold.
    pub(crate) fn new(
        plan: &'a Plan,
        state: &'a mut State,
        mut swarm: Swarm<Behaviour>,
        listeners: Option<Listeners>,
    ) -> Self {
        let listeners =
            listeners.unwrap_or_else(|| Listeners::reopen(&mut swarm, plan, &state.listen));
        for id in state.bans.keys().filter_map(PeerKey::to_peer_id) {
            swarm.behaviour_mut().blocks.block_peer(id);
        }
        Self { plan, state, swarm, listeners }
    }

    /// Runs until the node stops it or a part of the swarm fails.
    pub(crate) async fn run(mut self, channels: &mut Channels) -> Exit {
        let period = if self.plan.loopback { TICK_LOOPBACK } else { TICK };
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !self.deliver(&channels.events) {
                return self.goodbye().await;
            }
            let behind = self.state.outbox.len();
            let waits = behind > 0 || !self.state.gossip.is_empty();
            let hears = behind < PAUSE_SWARM_ABOVE && !self.state.gossip.is_full();
            tokio::select! {
                permit = channels.events.reserve(), if waits => {
                    if let (Ok(permit), Some(event)) = (permit, self.state.next_event()) {
                        permit.send(event);
                    }
                }
                input = channels.inputs.recv(), if behind < PAUSE_COMMANDS_ABOVE => match input {
                    Some(input) => self.on_inputs(input, &mut channels.inputs, &channels.crash),
                    None => return self.goodbye().await,
                },
                event = self.swarm.select_next_some(), if hears => {
                    self.on_swarm_event(event, Instant::now());
                }
                _ = tick.tick() => self.on_tick(Instant::now()),
                Some(reason) = channels.crashed.recv() => return Exit::Crashed(reason),
                () = stopped(&mut channels.stop) => return self.goodbye().await,
            }
        }
    }

    /// Moves events to the node as far as there is room; false when it listens no more.
    fn deliver(&mut self, events: &mpsc::Sender<Event>) -> bool {
        while let Some(event) = self.state.next_event() {
            match events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.state.put_back(event);
                    return true;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        !events.is_closed()
    }

    /// Closes all connections, so that peers need not wait for a timeout.
    async fn goodbye(mut self) -> Exit {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // Who is not gone by then finds out by its own timeout.
        let _ = tokio::time::timeout(GOODBYE, closing).await;
        Exit::Stopped
    }

    fn emit(&mut self, event: Event) {
        self.state.outbox.push_back(event);
    }

    /// Takes an input and those behind it, one by one: what is left in the queue outlives a
    /// panic.
    #[cfg_attr(not(test), expect(unused_variables, reason = "only tests make a connection fail"))]
    fn on_inputs(
        &mut self,
        first: Input,
        inputs: &mut mpsc::Receiver<Input>,
        crash: &mpsc::Sender<String>,
    ) {
        let now = Instant::now();
        let mut input = first;
        for left in (0..COMMANDS_PER_TURN).rev() {
            match input {
                Input::Command(command) => self.on_command(command, now),
                Input::Open { peer, answer } => self.open_stream(peer, answer, now),
                #[cfg(test)]
                Input::Panic => panic!("a test asked for it"),
                #[cfg(test)]
                Input::PanicInBackground => {
                    crate::behaviour::panic_in_background(crash.clone());
                }
            }
            if left == 0 {
                return;
            }
            match inputs.try_recv() {
                Ok(next) => input = next,
                Err(_) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial(addr) => self.dial_text(&addr, now),
            Command::Publish { topic, bytes } => {
                self.publish(&topic, bytes, now + 2 * self.plan.epoch);
            }
            Command::Verdict { ticket, verdict } => self.on_verdict(ticket, verdict),
            Command::Request { id, peer, protocol, bytes } => {
                self.request(id, peer, &protocol, bytes, now);
            }
            Command::Reply { id, bytes } => self.reply(id, bytes),
            Command::AddAddresses { peer, addrs } => self.add_addresses(&peer, &addrs, now),
            Command::Penalise { peer } => {
                let count = self.state.faults.add(peer, now);
                self.set_fault_score(&peer, count);
                if count >= FAULTS_TO_BAN {
                    tracing::warn!(peer = ?peer, "a peer is banned for its faults");
                    self.ban(peer, now);
                }
            }
        }
    }

    fn on_tick(&mut self, now: Instant) {
        while let Some(held) = self.state.tickets.expired(now) {
            self.report(&held.message, &held.peer, Verdict::Ignore);
        }
        for topic in self.state.unsent.expire(now) {
            self.publish_failed(topic, "publish.no_peers");
        }
        for peer in self.state.pardon(now) {
            if let Some(id) = peer.to_peer_id() {
                self.swarm.behaviour_mut().blocks.unblock_peer(id);
            }
        }
        for (peer, count) in self.state.faults.forget(now) {
            self.set_fault_score(&peer, count);
        }
        self.expire_requests(now);
        self.expire_streams(now);
        self.listeners.retry(&mut self.swarm, self.plan, &self.state.listen);
        self.redial(now);
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event, now),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                self.on_connected(
                    peer_id,
                    connection_id,
                    &endpoint,
                    num_established.get() == 1,
                    now,
                );
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.state.book.lost(&peer_id, now);
                self.fail_streams(&peer_id, &RequestError::Disconnected);
                if let Some(peer) = PeerKey::from_peer_id(&peer_id) {
                    self.state.agents.remove(&peer);
                    if self.state.connected.remove(&peer) {
                        self.emit(Event::PeerDown { peer });
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "dial failed");
                if !self.swarm.is_connected(&peer) {
                    self.state.book.lost(&peer, now);
                    self.fail_streams(&peer, &RequestError::Unreachable);
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listeners.opened(listener_id, &address, &mut self.state.listen);
                let addr = format!("{address}/p2p/{}", self.swarm.local_peer_id());
                self.emit(Event::Listening { addr });
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => self.listeners.closed(listener_id),
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent, now: Instant) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event, now),
            BehaviourEvent::Protocols((protocol, event)) => {
                self.on_exchange(protocol, event, now);
            }
            BehaviourEvent::Streams(event) => self.on_stream(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identify(peer_id, &info, now);
            }
            // A half-open connection would otherwise stay up for ever.
            BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout | ping::Failure::Other { .. }),
                ..
            }) => {
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    fn on_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        first: bool,
        now: Instant,
    ) {
        let Some(peer) = PeerKey::from_peer_id(&id) else {
            // Peers are named by ed25519 keys; a peer with another key has no name here.
            self.swarm.close_connection(connection);
            return;
        };
        self.state.book.connected(&id, now);
        let (addr, outbound) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => {
                self.state.book.insert(id, split_peer(address.clone()).1, now);
                (address, true)
            }
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        if first && self.state.connected.insert(peer) {
            let count = self.state.faults.count(&peer);
            self.set_fault_score(&peer, count);
            self.emit(Event::PeerUp { peer, addr: addr.to_string(), outbound });
        }
        self.pump(peer);
        self.pump_streams(peer);
    }

    /// Drops peers of other networks; notes where the others listen.
    fn on_identify(&mut self, peer: PeerId, info: &identify::Info, now: Instant) {
        if info.protocol_version != self.plan.identity() {
            tracing::debug!(%peer, other = ?info.protocol_version, "a peer of another network");
            // An error means that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        for addr in info.listen_addrs.iter().take(MAX_ADDRESSES) {
            self.learn(peer, addr.clone(), now);
        }
        if let Some(key) = PeerKey::from_peer_id(&peer)
            && self.state.is_another_swarm(key, &info.agent_version)
        {
            tracing::debug!(%peer, "the peer was restarted: its dead connections are closed");
            // All of them, since gossipsub greets a peer only on the first. Either side dials.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event, now: Instant) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                if let Some(peer) = PeerKey::from_peer_id(&propagation_source) {
                    self.on_message(peer, &message_id, message, now);
                }
            }
            gossipsub::Event::Subscribed { topic, .. } => self.publish_unsent(&topic, now),
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "a peer takes messages too slowly");
            }
            _ => {}
        }
    }

    /// Hands a message to the node, unless its size alone proves it wrong or there is no room.
    fn on_message(
        &mut self,
        peer: PeerKey,
        id: &gossipsub::MessageId,
        message: gossipsub::Message,
        now: Instant,
    ) {
        let Some(topic) = self.plan.topic_of(&message.topic) else {
            return;
        };
        let size = message.data.len();
        if size > topic.max_bytes {
            return self.report(id, &peer, Verdict::Reject);
        }
        match self.state.tickets.issue(id.clone(), peer, size, now) {
            Some(ticket) => self.state.gossip.push(Event::Gossip {
                peer,
                topic: topic.name.clone(),
                bytes: message.data,
                ticket: Ticket(ticket),
            }),
            None => self.report(id, &peer, Verdict::Ignore),
        }
    }

    fn on_verdict(&mut self, ticket: Ticket, verdict: Verdict) {
        if let Some(held) = self.state.tickets.redeem(ticket.0) {
            self.report(&held.message, &held.peer, verdict);
        }
    }

    fn report(&mut self, message: &gossipsub::MessageId, peer: &PeerKey, verdict: Verdict) {
        let Some(peer) = peer.to_peer_id() else {
            return;
        };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(message, &peer, acceptance);
    }

    fn publish(&mut self, name: &str, bytes: Vec<u8>, until: Instant) {
        let Some(topic) = self.plan.topic(name) else {
            return self.publish_failed(name.to_owned(), "publish.unknown_topic");
        };
        if bytes.len() > topic.max_bytes {
            return self.publish_failed(name.to_owned(), "publish.too_large");
        }
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match gossip.publish(topic.hash.clone(), bytes.clone()) {
            // A duplicate has been published already: that is what the caller wanted.
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic) => {
                if self.state.unsent.keep(name, bytes, until) {
                    self.publish_failed(name.to_owned(), "publish.no_peers");
                }
            }
            Err(PublishError::AllQueuesFull(_)) => {
                self.publish_failed(name.to_owned(), "publish.queues_full");
            }
            Err(error) => {
                tracing::warn!(topic = name, %error, "a message was not published");
                self.publish_failed(name.to_owned(), "publish.failed");
            }
        }
    }

    fn publish_unsent(&mut self, hash: &TopicHash, now: Instant) {
        let Some(topic) = self.plan.topic_of(hash) else {
            return;
        };
        for (until, bytes) in self.state.unsent.take(&topic.name) {
            if until > now {
                self.publish(&topic.name, bytes, until);
            }
        }
    }

    fn publish_failed(&mut self, topic: String, reason: &str) {
        self.emit(Event::PublishFailed { topic, reason: reason.to_owned() });
    }

    fn set_fault_score(&mut self, peer: &PeerKey, faults: u32) {
        if let Some(id) = peer.to_peer_id() {
            let score = FAULT_SCORE * f64::from(faults);
            self.swarm.behaviour_mut().gossip.set_application_score(&id, score);
        }
    }

    fn ban(&mut self, peer: PeerKey, now: Instant) {
        let Some(id) = peer.to_peer_id() else { return };
        self.swarm.behaviour_mut().blocks.block_peer(id);
        let pardoned = self.state.ban(peer, now);
        if let Some(id) = pardoned.and_then(|peer| peer.to_peer_id()) {
            self.swarm.behaviour_mut().blocks.unblock_peer(id);
        }
    }

    fn dial_text(&mut self, text: &str, now: Instant) {
        match parse(text).map(split_peer) {
            Ok((Some(peer), addr)) => {
                self.state.book.insert(peer, addr, now);
                self.dial(peer, now);
            }
            Ok((None, addr)) => {
                if let Err(error) = self.swarm.dial(addr) {
                    tracing::debug!(addr = text, %error, "cannot dial");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot dial"),
        }
    }

    /// Dials a peer at all its known addresses, QUIC first.
    fn dial(&mut self, peer: PeerId, now: Instant) {
        let options = DialOpts::peer_id(peer).addresses(self.state.book.addrs(&peer)).build();
        match self.swarm.dial(options) {
            // The end of the dial that is under way already is heard of too.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "cannot dial");
                self.state.book.lost(&peer, now);
            }
        }
    }

    fn redial(&mut self, now: Instant) {
        let want_more = self.state.connected.len() < TARGET_PEERS;
        let swarm = &self.swarm;
        let due = self
            .state
            .book
            .due(now, want_more, MAX_DIALS_PER_TICK, |peer| swarm.is_connected(peer));
        for peer in due {
            self.dial(peer, now);
        }
    }

    fn add_addresses(&mut self, peer: &PeerKey, addrs: &[String], now: Instant) {
        let Some(id) = peer.to_peer_id() else { return };
        let readable =
            addrs.iter().take(MAX_ADDRESSES).filter(|addr| addr.len() <= MAX_ADDRESS_BYTES);
        for addr in readable.filter_map(|addr| parse(addr).ok()) {
            self.learn(id, addr, now);
        }
    }

    /// Notes an address a peer claims, unless it names another peer or is the own one.
    fn learn(&mut self, peer: PeerId, addr: Multiaddr, now: Instant) {
        let (named, addr) = split_peer(addr);
        if named.is_none_or(|named| named == peer) && peer != *self.swarm.local_peer_id() {
            self.state.book.learn(peer, addr, now);
        }
    }
}

/// Waits until the node stops the network, or can no longer do so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that all handles are gone: the command queue ends by itself.
    if stop.wait_for(|stop| *stop).await.is_err() {
        futures::future::pending::<()>().await;
    }
}
