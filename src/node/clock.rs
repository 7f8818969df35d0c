//! The own clock against those of peers (DESIGN §5): a node whose clock is off would put its
//! orders into epochs that are over for the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Node, now_ms};
use capex_core::engine::sync::{SyncReply, SyncRequest};
use capex_core::engine::{Input, Protocol};
use capex_core::ids::Key;
use capex_core::wire::{decode_exact, encode};

/// Peers are asked this often: clocks drift by far less than the tolerance in a minute.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// What connected peers said, one sample each.
#[derive(Debug)]
pub(super) struct Clocks {
    asked: BTreeMap<u64, (Key, Instant)>,
    /// Own time minus the peer's, ms.
    offsets: BTreeMap<Key, i64>,
    asked_all: Instant,
}

impl Clocks {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: BTreeMap::new(), offsets: BTreeMap::new(), asked_all: now }
    }

    /// Takes an answer, received at the own time `own_ms`. One that took longer than the
    /// tolerance tells nothing: it is wrong by up to half of that.
    fn answered(
        &mut self,
        id: u64,
        reply: Option<SyncReply>,
        own_ms: u64,
        now: Instant,
        tolerance_ms: u64,
    ) {
        let Some((key, sent)) = self.asked.remove(&id) else { return };
        let took_ms = now.duration_since(sent).as_millis();
        let took_ms = u64::try_from(took_ms).unwrap_or(u64::MAX);
        let (Some(SyncReply::Clock { unix_ms }), true) = (reply, took_ms <= tolerance_ms) else {
            return;
        };
        let half_way_ms = own_ms.saturating_sub(took_ms / 2);
        let apart = i64::try_from(half_way_ms.abs_diff(unix_ms)).unwrap_or(i64::MAX);
        self.offsets.insert(key, if half_way_ms >= unix_ms { apart } else { -apart });
    }

    /// Median of the samples (of an even number the lower) and how many there are.
    fn median(&self) -> (i64, u16) {
        let mut offsets: Vec<i64> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        let middle = offsets.len().saturating_sub(1) / 2;
        let peers = u16::try_from(offsets.len()).unwrap_or(u16::MAX);
        (offsets.get(middle).copied().unwrap_or(0), peers)
    }
}

impl Node {
    /// Asks a peer for its time.
    pub(super) fn ask_clock(&mut self, peer: Key) {
        let id = self.calls.next_id();
        self.clocks.asked.insert(id, (peer, Instant::now()));
        self.request(id, peer, Protocol::Sync, encode(&SyncRequest::Clock));
    }

    /// Asks every peer, once a minute.
    pub(super) fn ask_clocks(&mut self) {
        if self.clocks.asked_all.elapsed() < ASK_EVERY {
            return;
        }
        self.clocks.asked_all = Instant::now();
        let peers: Vec<Key> = self.engine().peers().iter().copied().collect();
        peers.into_iter().for_each(|peer| self.ask_clock(peer));
    }

    /// Takes the answer of a peer; false if the request was about something else.
    pub(super) fn on_clock(&mut self, id: u64, result: &Result<Vec<u8>, String>) -> bool {
        if !self.clocks.asked.contains_key(&id) {
            return false;
        }
        let reply = result.as_ref().ok().and_then(|bytes| decode_exact(bytes).ok());
        let tolerance_ms = self.engine().params().clock_tolerance_ms();
        self.clocks.answered(id, reply, now_ms(), Instant::now(), tolerance_ms);
        self.tell_clock();
        true
    }

    /// A peer is gone: its sample would grow old.
    pub(super) fn forget_clock(&mut self, peer: &Key) {
        if self.clocks.offsets.remove(peer).is_some() {
            self.tell_clock();
        }
    }

    fn tell_clock(&mut self) {
        let (offset_ms, peers) = self.clocks.median();
        self.feed(Input::Clock { offset_ms, peers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(clocks: &mut Clocks, id: u8, unix_ms: u64, took_ms: u64) {
        let sent = Instant::now();
        clocks.asked.insert(u64::from(id), (Key([id; 32]), sent));
        let now = sent + Duration::from_millis(took_ms);
        let reply = Some(SyncReply::Clock { unix_ms });
        clocks.answered(u64::from(id), reply, 10_000, now, 150);
    }

    #[test]
    fn the_median_outvotes_liars_and_slow_answers_tell_nothing() {
        let mut clocks = Clocks::new(Instant::now());
        assert_eq!(clocks.median(), (0, 0));
        // Own clock 300 ms ahead, seen half a round trip ago.
        for id in 0..3 {
            sample(&mut clocks, id, 9_650, 100);
        }
        sample(&mut clocks, 3, 0, 0);
        sample(&mut clocks, 4, u64::MAX, 0);
        sample(&mut clocks, 5, 10_000, 151);
        assert_eq!(clocks.median(), (300, 5));
        assert!(clocks.asked.is_empty());
    }

    #[test]
    fn an_answer_that_is_none_leaves_no_sample() {
        let mut clocks = Clocks::new(Instant::now());
        clocks.asked.insert(1, (Key([1; 32]), Instant::now()));
        clocks.answered(1, Some(SyncReply::Ids(Vec::new())), 0, Instant::now(), 150);
        clocks.answered(2, Some(SyncReply::Clock { unix_ms: 0 }), 0, Instant::now(), 150);
        assert_eq!(clocks.median(), (0, 0));
        assert!(clocks.asked.is_empty());
    }
}
