//! The own clock against those of peers: a node whose clock is off would put its orders into
//! epochs that are over for the others.

use std::collections::BTreeMap;

use super::{SyncPurpose, SyncReply, SyncRequest};
use crate::engine::io::Protocol;
use crate::engine::kernel::Context;
use crate::ids::Key;
use crate::units::TimeMs;

/// Peers are asked this often, ms: clocks drift by far less than the tolerance in a minute.
const ASK_EVERY_MS: u64 = 60_000;

/// What connected peers said, one sample each.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// Own time minus the peer's, ms.
    offsets: BTreeMap<Key, i64>,
    /// When all peers are asked again; `None` before the first tick.
    due_ms: Option<TimeMs>,
}

impl Clocks {
    /// Asks a peer for its time.
    pub(super) fn ask(&self, ctx: &mut Context<'_>, peer: Key) {
        let purpose = SyncPurpose::Clock { sent_ms: ctx.now_ms };
        // One that cannot be asked now is asked within a minute.
        ctx.out.send(peer, Protocol::Sync, &SyncRequest::Clock, purpose);
    }

    /// Asks every peer, once a minute.
    pub(super) fn on_tick(&mut self, ctx: &mut Context<'_>, peers: impl Iterator<Item = Key>) {
        let later_ms = ctx.now_ms.saturating_add(ASK_EVERY_MS);
        let due_ms = *self.due_ms.get_or_insert(later_ms);
        // A clock that was set back would wait for its former time.
        if ctx.now_ms >= due_ms || due_ms > later_ms {
            self.due_ms = Some(later_ms);
            peers.for_each(|peer| self.ask(ctx, peer));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<TimeMs> {
        self.due_ms
    }

    /// Takes an answer. One that took longer than the tolerance tells nothing: it is wrong by
    /// up to half of that.
    pub(super) fn answered(
        &mut self,
        ctx: &Context<'_>,
        peer: Key,
        sent_ms: TimeMs,
        reply: &SyncReply,
    ) {
        let took_ms = ctx.now_ms.saturating_sub(sent_ms);
        let (SyncReply::Clock { unix_ms, .. }, true) =
            (reply, took_ms <= ctx.params.clock_tolerance_ms())
        else {
            return;
        };
        let half_way_ms = sent_ms.saturating_add(took_ms / 2);
        let apart = i64::try_from(half_way_ms.abs_diff(*unix_ms)).unwrap_or(i64::MAX);
        self.offsets.insert(peer, if half_way_ms >= *unix_ms { apart } else { -apart });
    }

    /// A peer is gone: its sample would grow old.
    pub(super) fn forget(&mut self, peer: &Key) {
        self.offsets.remove(peer);
    }

    /// Median of the samples (of an even number the lower) and how many there are.
    pub(super) fn median(&self) -> (i64, u16) {
        let mut offsets: Vec<i64> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        let middle = offsets.len().saturating_sub(1) / 2;
        let peers = u16::try_from(offsets.len()).unwrap_or(u16::MAX);
        (offsets.get(middle).copied().unwrap_or(0), peers)
    }
}
