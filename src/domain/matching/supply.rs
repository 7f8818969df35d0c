//! Free units of the asks of one class, indexed by slot.

use super::ceiling::{Ceiling, Ceilings};
use super::ranked::Class;

/// Bits per index word.
pub(super) const WORD: usize = u64::BITS as usize;

/// What the asks of one class still have to sell, by rank.
#[derive(Clone)]
pub(super) struct Supply {
    first_slot: u32,
    slots: usize,
    /// Free units, one row of slots per ask; 0 outside its window.
    units: Vec<u32>,
    /// Maximal half-open intervals of slots with a free unit, ascending, per ask. Unlike the
    /// rows they reach to the ends of the ask's window.
    intervals: Vec<Vec<(u32, u32)>>,
    /// Bit `rank % 64` of word `(rank / 64) · slots + slot` tells that the ask has a free unit
    /// there: who is free for a whole run is the conjunction of neighbouring words.
    free: Vec<u64>,
    ceilings: Ceilings,
}

impl Supply {
    /// Everything that the asks of `class` offer.
    pub(super) fn new(class: &Class<'_>) -> Self {
        let slots = (class.end_slot - class.first_slot) as usize;
        let mut units = vec![0; class.asks.len() * slots];
        let mut free = vec![0; class.asks.len().div_ceil(WORD) * slots];
        for (rank, ask) in class.asks.iter().enumerate() {
            let start = ask.first_slot.clamp(class.first_slot, class.end_slot);
            let end = ask.end_slot.clamp(class.first_slot, class.end_slot);
            for slot in start - class.first_slot..end - class.first_slot {
                free[(rank / WORD) * slots + slot as usize] |= 1 << (rank % WORD);
                units[rank * slots + slot as usize] = ask.qty;
            }
        }
        let intervals = class.asks.iter().map(|ask| vec![(ask.first_slot, ask.end_slot)]).collect();
        let ceilings = Ceilings::new(class.first_slot, class.end_slot);
        Self { first_slot: class.first_slot, slots, units, intervals, free, ceilings }
    }

    /// Which asks of the ranks from `word · 64` have a free unit in every slot of
    /// `[start, end)`, one bit each.
    pub(super) fn free_for(&self, word: usize, start: u32, end: u32) -> u64 {
        let row = word * self.slots;
        let run = row + (start - self.first_slot) as usize..row + (end - self.first_slot) as usize;
        self.free[run].iter().fold(u64::MAX, |all, slot| all & slot)
    }

    /// What earlier searches found out about `[start, end)`.
    pub(super) fn ceiling(&self, start: u32, end: u32) -> Ceiling {
        self.ceilings.get(start, end)
    }

    /// Keeps for later searches what one found out about `[start, end)`.
    pub(super) fn learn(&self, start: u32, end: u32, ceiling: Ceiling) {
        self.ceilings.lower(start, end, ceiling);
    }

    /// Whether the ask has a free unit in `slot`, which lies in its window.
    pub(super) fn is_free(&self, rank: usize, slot: u32) -> bool {
        self.intervals[rank].iter().any(|&(start, end)| start <= slot && slot < end)
    }

    /// By how many slots the ask's free interval around `[start, end)` is longer.
    pub(super) fn slack(&self, rank: usize, start: u32, end: u32) -> u32 {
        let around = self.intervals[rank].iter().find(|interval| interval.1 >= end);
        around.map_or(0, |interval| (interval.1 - interval.0) - (end - start))
    }

    /// Units the ask has free in every slot of `[start, end)`.
    pub(super) fn units(&self, rank: usize, start: u32, end: u32) -> u32 {
        let row = rank * self.slots;
        let run = row + (start - self.first_slot) as usize..row + (end - self.first_slot) as usize;
        self.units[run].iter().copied().min().unwrap_or(0)
    }

    /// Takes `qty` units, which are free, out of every slot of `[start, end)`.
    pub(super) fn take(&mut self, rank: usize, start: u32, end: u32, qty: u32) {
        for slot in start..end {
            let at = (slot - self.first_slot) as usize;
            let units = &mut self.units[rank * self.slots + at];
            *units -= qty;
            if *units == 0 {
                self.free[(rank / WORD) * self.slots + at] &= !(1 << (rank % WORD));
                cut(&mut self.intervals[rank], slot);
            }
        }
    }

    /// Undoes a [`Supply::take`] of the same units.
    pub(super) fn give_back(&mut self, rank: usize, start: u32, end: u32, qty: u32) {
        for slot in start..end {
            let at = (slot - self.first_slot) as usize;
            let units = &mut self.units[rank * self.slots + at];
            if *units == 0 {
                self.free[(rank / WORD) * self.slots + at] |= 1 << (rank % WORD);
                join(&mut self.intervals[rank], slot);
            }
            *units += qty;
        }
        self.ceilings.raise(rank, start, end, qty);
    }
}

/// Removes a slot from the interval that holds it.
fn cut(intervals: &mut Vec<(u32, u32)>, slot: u32) {
    let at = intervals.partition_point(|interval| interval.1 <= slot);
    let (start, end) = intervals[at];
    match (start < slot, slot + 1 < end) {
        (false, false) => {
            intervals.remove(at);
        }
        (false, true) => intervals[at].0 = slot + 1,
        (true, false) => intervals[at].1 = slot,
        (true, true) => {
            intervals[at].1 = slot;
            intervals.insert(at + 1, (slot + 1, end));
        }
    }
}

/// Adds a slot that no interval holds, joining the intervals it touches.
fn join(intervals: &mut Vec<(u32, u32)>, slot: u32) {
    let at = intervals.partition_point(|interval| interval.1 < slot);
    let joins_left = intervals.get(at).is_some_and(|interval| interval.1 == slot);
    let next = at + usize::from(joins_left);
    let joins_right = intervals.get(next).is_some_and(|interval| interval.0 == slot + 1);
    match (joins_left, joins_right) {
        (false, false) => intervals.insert(at, (slot, slot + 1)),
        (true, false) => intervals[at].1 = slot + 1,
        (false, true) => intervals[next].0 = slot,
        (true, true) => {
            intervals[at].1 = intervals[next].1;
            intervals.remove(next);
        }
    }
}
