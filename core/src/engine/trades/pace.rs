//! When a settlement's next try may happen, and whether its chain facts can be relied on.
//! In memory only: after a restart everything may be tried at once.

use bitcoin::Txid;

use crate::params::Params;
use crate::settlement::facts::{Batch, Change, Facts};
use crate::settlement::script::Contract;
use crate::units::TimeMs;

/// Tries of a message within the time that Terms have: the first repeats come early, so
/// that one lost message does not lose a trade.
const TRIES_PER_DEADLINE: u64 = 8;
/// Largest doubling of the wait between tries: 64 times the first.
const DOUBLINGS_MAX: u32 = 6;
/// Longest error text of a broadcast that is kept for people, bytes.
const ERROR_MAX_CHARS: usize = 120;

/// Tries and certainty of one settlement.
#[derive(Debug, Default)]
pub(super) struct Pace {
    tries: u32,
    retry_at_ms: TimeMs,
    acted_tip: Option<u32>,
    /// After a restart: facts of the record that the rescan has not confirmed yet.
    stale: Option<Stale>,
    sent: Option<Txid>,
    /// Why the last broadcast failed.
    pub(super) trouble: Option<String>,
}

/// A rescan is awaited.
#[derive(Debug, Default)]
struct Stale {
    /// Tip at the first facts of this life.
    first_tip: Option<u32>,
    /// Transactions seen in a block in this life: at most the four of a settlement, each
    /// once per chain block.
    found: Vec<Txid>,
}

/// What new chain facts changed.
#[derive(Debug)]
pub(super) struct Learnt {
    /// A funding that was not known before: its output must be watched.
    pub(super) found_fund: bool,
    /// The record must be written.
    pub(super) changed: bool,
    /// Transactions that lost their block.
    pub(super) lost: Vec<Txid>,
}

impl Pace {
    /// Of a settlement that a restart brought back.
    pub(super) fn resumed() -> Self {
        Self { stale: Some(Stale::default()), ..Self::default() }
    }

    /// A new state: everything may be tried at once.
    pub(super) fn reset(&mut self) {
        (self.tries, self.retry_at_ms, self.acted_tip) = (0, 0, None);
    }

    /// Whether a message may be sent (again).
    pub(super) fn message_due(&self, now_ms: TimeMs) -> bool {
        now_ms >= self.retry_at_ms
    }

    /// Whether this tip has not been acted on.
    pub(super) fn tip_due(&self, tip: u32) -> bool {
        self.acted_tip != Some(tip)
    }

    /// A try happened: the next message waits twice as long as this one did.
    pub(super) fn tried(&mut self, now_ms: TimeMs, tip: u32, params: &Params) {
        let first = (params.settle.terms_ms / TRIES_PER_DEADLINE).max(1);
        self.retry_at_ms = now_ms.saturating_add(first << self.tries.min(DOUBLINGS_MAX));
        self.tries = self.tries.saturating_add(1);
        self.acted_tip = Some(tip);
    }

    /// When the next message may go.
    pub(super) fn retry_at_ms(&self) -> TimeMs {
        self.retry_at_ms
    }

    /// Remembers a broadcast, to tell its answer.
    pub(super) fn broadcast(&mut self, txid: Txid) {
        self.sent = Some(txid);
    }

    /// The answer to a broadcast.
    pub(super) fn broadcasted(&mut self, txid: Txid, result: &Result<(), String>) {
        if self.sent == Some(txid) {
            let short = |text: &String| text.chars().take(ERROR_MAX_CHARS).collect();
            self.trouble = result.as_ref().err().map(short);
        }
    }

    /// Whether the absence of a fact means something.
    pub(super) fn is_sure(&self) -> bool {
        self.stale.is_none()
    }

    /// Applies new chain facts to those of a settlement.
    pub(super) fn apply(
        &mut self,
        facts: &mut Facts,
        contract: &Contract,
        batch: &Batch<'_>,
        tip: u32,
    ) -> Learnt {
        let change = facts.apply(contract, batch);
        let forgot = self.learn(facts, &change, tip);
        Learnt { found_fund: change.found_fund, changed: change.any || forgot, lost: change.lost }
    }

    /// After new facts: a rescan that saw the funding in its block has come through; one
    /// that has not by the second tip has nothing to show. Heights that it did not find
    /// again are forgotten. Returns whether the facts changed by that.
    fn learn(&mut self, facts: &mut Facts, change: &Change, tip: u32) -> bool {
        let Some(stale) = &mut self.stale else { return false };
        stale.found.extend_from_slice(&change.confirmed);
        let first_tip = *stale.first_tip.get_or_insert(tip);
        if !change.confirmed_fund && first_tip == tip {
            return false;
        }
        let before = facts.clone();
        facts.forget_heights_but(&stale.found);
        self.stale = None;
        before != *facts
    }
}
