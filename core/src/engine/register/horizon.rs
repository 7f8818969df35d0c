//! How far back the register remembers: a horizon after their windows certificates are forgotten,
//! and what it once said of them is then unknown to it.
//!
//! A lock or a redemption carries the height at which it was signed, and no slot; blocks come at
//! any pace. So the register notes the height of the chain a few times in a horizon. When a note
//! is a horizon old, the certificates whose windows had ended by then are forgotten, and all that
//! was ever said of them was said at that height or before.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::engine::kernel::{Cause, Context, Record, Stored, Table, Unreadable, records as read};
use crate::limits::HORIZON_SLOTS;
use crate::units::Slot;

/// A note is made this often: what is forgotten waits for the next one.
const NOTE_SLOTS: u32 = HORIZON_SLOTS / 16;
/// Key of its only record.
const KEY: &[u8] = b"register";

/// How high the chain was in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    slot: Slot,
    height: u32,
}

/// Notes of the last horizon, and the one before: what had ended by then is forgotten. At most 18.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HorizonV1(VecDeque<Note>);

impl Stored for HorizonV1 {
    const TABLE: Table = Table::Horizon;
}

impl HorizonV1 {
    pub(super) fn load(records: &[Record]) -> Result<Self, Unreadable> {
        let mut found = Self::default();
        for stored in read::<Self>(records) {
            let (record, notes) = stored?;
            if !notes.0.iter().is_sorted_by(|a, b| a.slot < b.slot) {
                return Err(record.unreadable(Cause::Content));
            }
            found = notes;
        }
        Ok(found)
    }

    /// A slot has passed, by the own clock and by the chain. Makes a note, if one is due.
    pub(super) fn pass(&mut self, ctx: &mut Context<'_>, past: Slot) {
        let is_old = |note: &Note| note.slot.saturating_add(HORIZON_SLOTS) < past;
        while self.0.get(1).is_some_and(is_old) {
            self.0.pop_front();
        }
        // What was noted of a slot that is still to come was noted by clocks that were wrong.
        while self.0.back().is_some_and(|last| last.slot > past) {
            self.0.pop_back();
        }
        let is_due = self.0.back().is_none_or(|last| last.slot.saturating_add(NOTE_SLOTS) <= past);
        // Without a chain no time is known to have passed, and nobody knows how high it is.
        if is_due && past > 0 && ctx.chain.height > 0 {
            self.0.push_back(Note { slot: past, height: ctx.chain.height });
            ctx.out.store(KEY, self);
        }
    }

    fn last_old(&self, past: Slot) -> Option<&Note> {
        self.0.iter().rev().find(|note| note.slot.saturating_add(HORIZON_SLOTS) < past)
    }

    /// Windows that ended by this slot are forgotten when another has passed.
    pub(super) fn forgets(&self, past: Slot) -> Option<Slot> {
        self.last_old(past).map(|note| note.slot)
    }

    /// Whether what was said at a height may be forgotten.
    pub(super) fn is_beyond(&self, ctx: &Context<'_>, height: u32) -> bool {
        let past = ctx.params.slot_at(ctx.past_ms());
        if let Some(note) = self.last_old(past) {
            return height <= note.height;
        }
        // A register of an earlier release has no old note: half of the blocks that a horizon
        // should have.
        let horizon_ms = u64::from(HORIZON_SLOTS) * u64::from(ctx.params.slot_s) * 1000;
        let blocks = horizon_ms / ctx.params.chain.block_ms.max(1) / 2;
        height.saturating_add(u32::try_from(blocks).unwrap_or(u32::MAX)) < ctx.chain.height
    }
}
