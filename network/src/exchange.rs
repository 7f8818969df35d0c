//! Accounts of the open requests, in both directions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::request_response::{OutboundRequestId, ResponseChannel};

use crate::keys::PeerKey;
use crate::limits::{
    MAX_INBOUND, MAX_METERED, MAX_OUTBOUND, MAX_REQUESTS_PER_PEER, MAX_WAITING_PER_PEER,
    REQUEST_BURST, REQUEST_TIMEOUT, REQUESTS_PER_S,
};
use crate::request::RequestError;

/// A request of the own node that has not been sent yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    pub(crate) protocol: usize,
    pub(crate) bytes: Vec<u8>,
    deadline: Instant,
}

/// A request that was handed to the swarm.
#[derive(Debug)]
struct Sent {
    id: u64,
    peer: PeerKey,
    deadline: Instant,
    /// The caller has been told that it timed out; the swarm still holds the stream.
    given_up: bool,
}

/// Requests of the own node: two in flight per peer, the rest in order behind them, because
/// the other side drops what exceeds its own account.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    waiting: BTreeMap<PeerKey, VecDeque<Waiting>>,
    sent: HashMap<(usize, OutboundRequestId), Sent>,
    in_flight: BTreeMap<PeerKey, usize>,
}

impl Outbound {
    /// Queues a request, or refuses it when too many are open.
    pub(crate) fn admit(
        &mut self,
        id: u64,
        peer: PeerKey,
        protocol: usize,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), RequestError> {
        let open = self.sent.len() + self.waiting.values().map(VecDeque::len).sum::<usize>();
        let queue = self.waiting.get(&peer).map_or(0, VecDeque::len);
        if open >= MAX_OUTBOUND || queue >= MAX_WAITING_PER_PEER {
            return Err(RequestError::Busy);
        }
        let waiting = Waiting { id, protocol, bytes, deadline: now + REQUEST_TIMEOUT };
        self.waiting.entry(peer).or_default().push_back(waiting);
        Ok(())
    }

    /// The next request that may be sent to this peer now.
    pub(crate) fn next_for(&mut self, peer: &PeerKey) -> Option<Waiting> {
        if self.in_flight.get(peer).copied().unwrap_or(0) >= MAX_REQUESTS_PER_PEER {
            return None;
        }
        let queue = self.waiting.get_mut(peer)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(peer);
        }
        next
    }

    /// Records that a request is in the swarm's hands.
    pub(crate) fn sent(
        &mut self,
        key: (usize, OutboundRequestId),
        id: u64,
        peer: PeerKey,
        deadline: Instant,
    ) {
        *self.in_flight.entry(peer).or_default() += 1;
        self.sent.insert(key, Sent { id, peer, deadline, given_up: false });
    }

    /// Closes a request; the id is `None` when the caller already has its answer.
    pub(crate) fn finished(
        &mut self,
        key: (usize, OutboundRequestId),
    ) -> Option<(Option<u64>, PeerKey)> {
        let sent = self.sent.remove(&key)?;
        if let Some(count) = self.in_flight.get_mut(&sent.peer) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&sent.peer);
            }
        }
        Some(((!sent.given_up).then_some(sent.id), sent.peer))
    }

    /// Ids whose time is over, each named once.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let mut late = Vec::new();
        for queue in self.waiting.values_mut() {
            queue.retain(|waiting| {
                if waiting.deadline <= now {
                    late.push(waiting.id);
                }
                waiting.deadline > now
            });
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        for sent in self.sent.values_mut() {
            if !sent.given_up && sent.deadline <= now {
                sent.given_up = true;
                late.push(sent.id);
            }
        }
        late.sort_unstable();
        late
    }

    /// Forgets everything and names the ids still without an answer.
    pub(crate) fn drain(&mut self) -> Vec<u64> {
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten().map(|w| w.id);
        let sent = std::mem::take(&mut self.sent).into_values();
        let mut open: Vec<u64> =
            waiting.chain(sent.filter(|s| !s.given_up).map(|s| s.id)).collect();
        self.in_flight.clear();
        open.sort_unstable();
        open
    }
}

impl Waiting {
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// A request of a peer that awaits the node's reply.
#[derive(Debug)]
pub(crate) struct Open<C> {
    pub(crate) peer: PeerKey,
    pub(crate) protocol: usize,
    pub(crate) channel: C,
    deadline: Instant,
}

/// How fast peers ask: a bucket per peer that fills with [`REQUESTS_PER_S`] up to
/// [`REQUEST_BURST`].
#[derive(Debug, Default)]
struct Meter {
    /// When the bucket of a peer is full again: the further ahead, the emptier it is.
    full_at: BTreeMap<PeerKey, Instant>,
}

impl Meter {
    /// Takes a token; false when the peer has none left.
    fn take(&mut self, peer: PeerKey, now: Instant) -> bool {
        let token = Duration::from_secs(1) / REQUESTS_PER_S;
        if self.full_at.len() >= MAX_METERED {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if !self.full_at.contains_key(&peer) && self.full_at.len() >= MAX_METERED {
            return false;
        }
        let full_at = self.full_at.entry(peer).or_insert(now);
        let after = (*full_at).max(now) + token;
        if after > now + token * REQUEST_BURST {
            return false;
        }
        *full_at = after;
        true
    }
}

/// Requests of peers that await a reply. Dropping an entry closes its stream.
#[derive(Debug)]
pub(crate) struct Inbound<C = ResponseChannel<Vec<u8>>> {
    open: BTreeMap<u64, Open<C>>,
    next_id: u64,
    meter: Meter,
}

impl<C> Default for Inbound<C> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next_id: 0, meter: Meter::default() }
    }
}

impl<C> Inbound<C> {
    /// Books a request, or refuses it (by dropping its channel) when the peer, or all peers
    /// together, have too many open, or the peer asks too fast.
    pub(crate) fn admit(
        &mut self,
        peer: PeerKey,
        protocol: usize,
        channel: C,
        now: Instant,
    ) -> Option<u64> {
        let of_peer = self.open.values().filter(|open| open.peer == peer).count();
        if of_peer >= MAX_REQUESTS_PER_PEER || self.open.len() >= MAX_INBOUND {
            return None;
        }
        if !self.meter.take(peer, now) {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.open.insert(id, Open { peer, protocol, channel, deadline: now + REQUEST_TIMEOUT });
        Some(id)
    }

    /// Takes the request a reply belongs to.
    pub(crate) fn take(&mut self, id: u64) -> Option<Open<C>> {
        self.open.remove(&id)
    }

    /// Drops what was not answered in time, and what `dead` tells to be without a stream.
    pub(crate) fn expire(&mut self, now: Instant, dead: impl Fn(&C) -> bool) {
        self.open.retain(|_, open| open.deadline > now && !dead(&open.channel));
    }

    /// Drops all; ids are not used again.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    #[test]
    fn a_peer_has_two_requests_open_and_the_third_is_refused() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        let first = inbound.admit(A, 0, (), now).unwrap();
        assert!(inbound.admit(A, 1, (), now).is_some());
        assert_eq!(inbound.admit(A, 0, (), now), None);
        assert!(inbound.admit(B, 0, (), now).is_some());
        inbound.take(first).unwrap();
        assert!(inbound.admit(A, 0, (), now).is_some());
    }

    #[test]
    fn inbound_requests_are_bounded_and_expire() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        let peer = |n: usize| PeerKey([u8::try_from(n).unwrap(); 32]);
        assert!((0..MAX_INBOUND).all(|n| inbound.admit(peer(n), 0, (), now).is_some()));
        assert_eq!(inbound.admit(peer(200), 0, (), now), None);
        inbound.expire(now + REQUEST_TIMEOUT, |()| false);
        assert!(inbound.open.is_empty());
    }

    #[test]
    fn a_peer_that_asks_too_fast_is_refused_until_its_bucket_fills() {
        let now = Instant::now();
        let mut inbound = Inbound::default();
        let mut ask = |peer, now| {
            let id = inbound.admit(peer, 0, (), now);
            id.is_some_and(|id| inbound.take(id).is_some())
        };
        assert!((0..REQUEST_BURST).all(|_| ask(A, now)));
        assert!(!ask(A, now));
        assert!(ask(B, now), "others are not held up");
        let later = now + Duration::from_secs(1);
        let taken = (0..REQUEST_BURST).filter(|_| ask(A, later)).count();
        assert_eq!(taken, REQUESTS_PER_S as usize);
    }

    #[test]
    fn metered_peers_are_bounded_and_forgotten() {
        let now = Instant::now();
        let mut meter = Meter::default();
        let peer = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n as u64).to_be_bytes());
            PeerKey(key)
        };
        assert!((0..MAX_METERED).all(|n| meter.take(peer(n), now)));
        assert!(!meter.take(peer(MAX_METERED), now));
        assert!(meter.take(peer(MAX_METERED), now + Duration::from_secs(1)));
        assert_eq!(meter.full_at.len(), 1);
    }

    #[test]
    fn outbound_requests_wait_their_turn_and_time_out_once() {
        let now = Instant::now();
        let mut outbound = Outbound::default();
        for id in 0..3 {
            outbound.admit(id, A, 0, Vec::new(), now).unwrap();
        }
        assert_eq!(outbound.next_for(&A).map(|w| w.id), Some(0));
        assert!(outbound.next_for(&B).is_none());
        outbound.in_flight.insert(A, MAX_REQUESTS_PER_PEER);
        assert!(outbound.next_for(&A).is_none());
        assert_eq!(outbound.expire(now), Vec::<u64>::new());
        assert_eq!(outbound.expire(now + REQUEST_TIMEOUT), [1, 2]);
        assert_eq!(outbound.expire(now + REQUEST_TIMEOUT), Vec::<u64>::new());
    }

    #[test]
    fn outbound_requests_are_bounded() {
        let now = Instant::now();
        let mut outbound = Outbound::default();
        for id in 0..MAX_WAITING_PER_PEER {
            outbound.admit(id as u64, A, 0, Vec::new(), now).unwrap();
        }
        assert_eq!(outbound.admit(99, A, 0, Vec::new(), now), Err(RequestError::Busy));
        assert_eq!(outbound.admit(99, B, 0, Vec::new(), now), Ok(()));
        assert_eq!(outbound.drain().len(), MAX_WAITING_PER_PEER + 1);
    }
}
