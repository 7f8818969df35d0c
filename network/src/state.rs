//! What outlives the swarm task: a restart begins with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol as Part;

use crate::book::Book;
use crate::config::Plan;
use crate::exchange::{Inbound, Outbound};
use crate::gossip::{Tickets, Unsent};
use crate::keys::PeerKey;
use crate::limits::{FAULT_BAN, FAULT_LIFETIME, MAX_BANS, MAX_FAULTY, MAX_LANE, MAX_LANE_BYTES};
use crate::streams::Places;
use crate::task::Opening;
use crate::{Event, RequestError};

/// Kept of what a peer calls itself: a version and a number.
const MAX_AGENT_BYTES: usize = 64;

/// Tables shared by one run of the swarm task and the next.
#[derive(Debug)]
pub(crate) struct State {
    /// Addresses to listen on: as configured, with the port once the system has chosen it.
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) book: Book,
    pub(crate) bans: BTreeMap<PeerKey, Instant>,
    pub(crate) faults: Faults,
    pub(crate) tickets: Tickets,
    pub(crate) unsent: Unsent,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    /// Streams that the node waits for, by name.
    pub(crate) opening: BTreeMap<u64, Opening>,
    pub(crate) next_stream: u64,
    /// Streams that others have open.
    pub(crate) places: Places,
    pub(crate) connected: BTreeSet<PeerKey>,
    /// What connected peers call themselves: it changes when their swarm is a new one.
    pub(crate) agents: BTreeMap<PeerKey, String>,
    /// Events other than gossip that the node has not taken yet.
    pub(crate) outbox: VecDeque<Event>,
    /// Gossip that the node has not taken yet: in a lane of its own, since an answer must not
    /// wait behind a burst.
    pub(crate) gossip: Lane,
}

impl State {
    pub(crate) fn new(plan: &Plan, now: Instant) -> Self {
        let mut book = Book::new(plan.loopback);
        for (peer, addr) in &plan.bootstrap {
            book.pin(*peer, addr.clone(), now);
        }
        Self {
            listen: plan.listen.clone(),
            book,
            bans: BTreeMap::new(),
            faults: Faults::default(),
            tickets: Tickets::default(),
            unsent: Unsent::default(),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            opening: BTreeMap::new(),
            next_stream: 0,
            places: Places::default(),
            connected: BTreeSet::new(),
            agents: BTreeMap::new(),
            outbox: VecDeque::new(),
            gossip: Lane::default(),
        }
    }

    /// Takes the next event for the node: gossip last.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.outbox.pop_front().or_else(|| self.gossip.pop())
    }

    /// Puts an event back that the node had no room for.
    pub(crate) fn put_back(&mut self, event: Event) {
        match event {
            Event::Gossip { .. } => self.gossip.put_back(event),
            _ => self.outbox.push_front(event),
        }
    }

    /// Closes the accounts of a swarm that is gone: the node hears the fate of all it waits for.
    pub(crate) fn restarted(&mut self, reason: String, now: Instant) {
        self.tickets.clear();
        self.gossip = Lane::default();
        self.inbound.clear();
        self.agents.clear();
        // Whoever waits hears that the answer will not come.
        self.opening.clear();
        for id in self.outbound.drain() {
            self.outbox.push_back(Event::Response { id, result: Err(RequestError::Restarted) });
        }
        for peer in std::mem::take(&mut self.connected) {
            if let Some(id) = peer.to_peer_id() {
                self.book.connected(&id, now);
            }
            self.outbox.push_back(Event::PeerDown { peer });
        }
        self.outbox.push_back(Event::Restarted { reason });
    }

    /// Notes what a connected peer calls itself. Returns whether it is another swarm than
    /// before, so that connections to the one before are dead.
    pub(crate) fn is_another_swarm(&mut self, peer: PeerKey, agent: &str) -> bool {
        let agent = agent.get(..MAX_AGENT_BYTES).unwrap_or(agent);
        match self.agents.get(&peer) {
            Some(known) => known != agent,
            None => {
                if self.connected.contains(&peer) {
                    self.agents.insert(peer, agent.to_owned());
                }
                false
            }
        }
    }

    /// Records a ban and its end; the ban that ends first makes room.
    pub(crate) fn ban(&mut self, peer: PeerKey, now: Instant) -> Option<PeerKey> {
        self.bans.insert(peer, now + FAULT_BAN);
        if self.bans.len() <= MAX_BANS {
            return None;
        }
        let first = self.bans.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)?;
        self.bans.remove(&first);
        Some(first)
    }

    /// Takes the bans that are over.
    pub(crate) fn pardon(&mut self, now: Instant) -> Vec<PeerKey> {
        let over = self.bans.iter().filter(|(_, until)| **until <= now);
        let over: Vec<PeerKey> = over.map(|(peer, _)| *peer).collect();
        self.bans.retain(|_, until| *until > now);
        over
    }
}

/// Gossip on its way to the node.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    events: VecDeque<Event>,
    bytes: usize,
}

impl Lane {
    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += size(&event);
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&event));
        Some(event)
    }

    fn put_back(&mut self, event: Event) {
        self.bytes += size(&event);
        self.events.push_front(event);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether no more may come: the swarm is not polled then.
    pub(crate) fn is_full(&self) -> bool {
        self.events.len() >= MAX_LANE || self.bytes >= MAX_LANE_BYTES
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Gossip { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

/// Protocol faults per peer; one is forgotten each hour.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    peers: BTreeMap<PeerKey, (u32, Instant)>,
}

impl Faults {
    /// Counts a fault and returns how many are remembered.
    pub(crate) fn add(&mut self, peer: PeerKey, now: Instant) -> u32 {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_FAULTY {
            let least = self.peers.iter().min_by_key(|(_, fault)| **fault).map(|(peer, _)| *peer);
            if let Some(least) = least {
                self.peers.remove(&least);
            }
        }
        let (count, forget) = self.peers.entry(peer).or_insert((0, now + FAULT_LIFETIME));
        *count = count.saturating_add(1);
        *forget = now + FAULT_LIFETIME;
        *count
    }

    pub(crate) fn count(&self, peer: &PeerKey) -> u32 {
        self.peers.get(peer).map_or(0, |(count, _)| *count)
    }

    /// Forgets one fault of each peer whose hour is over; returns the new counts.
    pub(crate) fn forget(&mut self, now: Instant) -> Vec<(PeerKey, u32)> {
        let mut changed = Vec::new();
        for (peer, (count, forget)) in &mut self.peers {
            if *forget <= now {
                *count -= 1;
                *forget = now + FAULT_LIFETIME;
                changed.push((*peer, *count));
            }
        }
        self.peers.retain(|_, (count, _)| *count > 0);
        changed
    }
}

/// The configured address with the port the system chose.
pub(crate) fn with_port(configured: &Multiaddr, actual: &Multiaddr) -> Multiaddr {
    let port = actual.iter().find_map(|part| match part {
        Part::Tcp(port) | Part::Udp(port) => Some(port),
        _ => None,
    });
    let Some(port) = port else {
        return configured.clone();
    };
    configured
        .iter()
        .map(|part| match part {
            Part::Tcp(0) => Part::Tcp(port),
            Part::Udp(0) => Part::Udp(port),
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: PeerKey = PeerKey([1; 32]);

    #[test]
    fn a_chosen_port_is_kept() {
        let cases = [
            (
                "/ip4/0.0.0.0/udp/0/quic-v1",
                "/ip4/10.0.0.1/udp/7/quic-v1",
                "/ip4/0.0.0.0/udp/7/quic-v1",
            ),
            ("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9"),
            ("/ip4/127.0.0.1/tcp/5", "/ip4/127.0.0.1/tcp/5", "/ip4/127.0.0.1/tcp/5"),
        ];
        for (configured, actual, kept) in cases {
            let kept: Multiaddr = kept.parse().unwrap();
            assert_eq!(with_port(&configured.parse().unwrap(), &actual.parse().unwrap()), kept);
        }
    }

    fn state() -> State {
        let config = crate::Config {
            network: "devnet".into(),
            secret: [1; 32].into(),
            listen: Vec::new(),
            bootstrap: Vec::new(),
            loopback: true,
            topics: Vec::new(),
            protocols: Vec::new(),
            streams: None,
            epoch_ms: 1,
        };
        State::new(&Plan::new(&config).unwrap(), Instant::now())
    }

    fn message(bytes: usize) -> Event {
        let (topic, ticket) = ("orders".to_owned(), crate::Ticket(0));
        Event::Gossip { peer: A, topic, bytes: vec![0; bytes], ticket }
    }

    #[test]
    fn an_answer_does_not_wait_behind_gossip() {
        let mut state = state();
        let answer = Event::Response { id: 1, result: Ok(Vec::new()) };
        (1..=3).for_each(|bytes| state.gossip.push(message(bytes)));
        state.outbox.push_back(answer.clone());
        assert_eq!(state.next_event(), Some(answer.clone()));
        state.put_back(answer.clone());
        assert_eq!(state.next_event(), Some(answer));
        let first = state.next_event().unwrap();
        state.put_back(first);
        let rest: Vec<Event> = std::iter::from_fn(|| state.next_event()).collect();
        assert_eq!(rest, [message(1), message(2), message(3)]);
        assert_eq!(state.gossip.bytes, 0);
    }

    #[test]
    fn the_lane_of_gossip_is_bounded_by_messages_and_bytes() {
        let mut lane = Lane::default();
        (1..MAX_LANE).for_each(|_| lane.push(message(1)));
        assert!(!lane.is_full());
        lane.push(message(1));
        assert!(lane.is_full());
        let mut lane = Lane::default();
        lane.push(message(MAX_LANE_BYTES - 1));
        assert!(!lane.is_full());
        lane.push(message(1));
        assert!(lane.is_full());
        assert_eq!((lane.pop(), lane.is_full()), (Some(message(MAX_LANE_BYTES - 1)), false));
    }

    #[test]
    fn faults_add_up_and_fade() {
        let now = Instant::now();
        let mut faults = Faults::default();
        assert_eq!([faults.add(A, now), faults.add(A, now)], [1, 2]);
        assert!(faults.forget(now).is_empty());
        assert_eq!(faults.forget(now + FAULT_LIFETIME), [(A, 1)]);
        assert_eq!(faults.forget(now + 2 * FAULT_LIFETIME), [(A, 0)]);
        assert!(faults.peers.is_empty());
    }

    #[test]
    fn faulty_and_banned_peers_are_bounded() {
        let now = Instant::now();
        let peer = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n as u64).to_be_bytes());
            PeerKey(key)
        };
        let mut faults = Faults::default();
        for n in 0..=MAX_FAULTY {
            faults.add(peer(n), now);
        }
        assert_eq!(faults.peers.len(), MAX_FAULTY);
        let mut state = state();
        let at = |n: usize| now + Duration::from_secs(n as u64);
        assert!((0..MAX_BANS).all(|n| state.ban(peer(n), at(n)).is_none()));
        assert_eq!(state.ban(peer(MAX_BANS), at(MAX_BANS)), Some(peer(0)));
        assert_eq!(state.pardon(at(1) + FAULT_BAN), [peer(1)]);
    }
}
