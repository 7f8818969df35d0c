//! Which units of a class are taken from which slot on: the claims of a ledger, by time.

use std::collections::BTreeMap;

use super::ranges;
use crate::units::{Slot, UnitRange, Units, Window};

/// Taken units, each strip from its slot to the next one's. Nothing is taken before the first
/// strip, nor from the last one on. What is taken in a slot is disjoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    /// First unit and end of each range.
    strips: BTreeMap<Slot, BTreeMap<u32, u32>>,
}

impl Timeline {
    /// Whether one of the units is taken in a slot of the window.
    pub(super) fn overlaps(&self, units: &Units, window: Window) -> bool {
        let meets = |taken: &BTreeMap<u32, u32>, range: &UnitRange| {
            let before = taken.range(..range.end).next_back();
            before.is_some_and(|(_, end)| *end > range.first)
        };
        self.within(window).any(|(_, taken)| units.ranges().iter().any(|range| meets(taken, range)))
    }

    /// Takes units that are free in the whole window.
    pub(super) fn take(&mut self, units: &Units, window: Window) {
        for taken in self.cut_out(window) {
            taken.extend(units.ranges().iter().map(|range| (range.first, range.end)));
        }
    }

    /// Gives back what [`Timeline::take`] took.
    pub(super) fn give(&mut self, units: &Units, window: Window) {
        for taken in self.cut_out(window) {
            for range in units.ranges() {
                taken.remove(&range.first);
            }
        }
        for slot in [window.end, window.start] {
            self.join(slot);
        }
    }

    /// The end of the highest taken range.
    pub(super) fn highest(&self) -> u32 {
        let ends = self.strips.values().filter_map(|taken| taken.last_key_value());
        ends.map(|(_, end)| *end).max().unwrap_or(0)
    }

    /// Units below `capacity` that are free during a whole window.
    pub(super) fn free(&self, capacity: u32, window: Window) -> Vec<UnitRange> {
        if window.is_empty() {
            return Vec::new();
        }
        let mut taken: Vec<UnitRange> =
            self.within(window).flat_map(|(_, taken)| ranges_of(taken)).collect();
        taken.sort_unstable();
        ranges::subtract(&below(capacity), &taken)
    }

    /// Units that become free together in a window and are taken again together, with the
    /// slots between: each free cell once. Of a group in more than 16 ranges the widest.
    pub(super) fn free_intervals(&self, capacity: u32, window: Window) -> Vec<(Units, Window)> {
        let mut before: Vec<UnitRange> = Vec::new();
        let mut open = Open::default();
        let mut groups: BTreeMap<(Slot, Slot), Vec<UnitRange>> = BTreeMap::new();
        for (slot, free) in self.free_from(capacity, window) {
            for range in ranges::subtract(&before, &free) {
                for (start, closed) in open.close(range) {
                    groups.entry((start, slot)).or_default().push(closed);
                }
            }
            for range in ranges::subtract(&free, &before) {
                open.ranges.insert(range.first, (range.end, slot));
            }
            before = free;
        }
        for (first, (end, start)) in open.ranges {
            groups.entry((start, window.end)).or_default().push(UnitRange { first, end });
        }
        let whole = |((start, end), units): (_, Vec<UnitRange>)| {
            let units = Units::new(ranges::widest(&units))?;
            Some((units, Window { start, end }))
        };
        groups.into_iter().filter_map(whole).collect()
    }

    /// What is free from each slot of a window on at which that may change.
    fn free_from(&self, capacity: u32, window: Window) -> BTreeMap<Slot, Vec<UnitRange>> {
        if window.is_empty() {
            return BTreeMap::new();
        }
        // All is free until the first strip, which may have begun before the window.
        let mut free = BTreeMap::from([(window.start, below(capacity).to_vec())]);
        free.extend(self.within(window).map(|(slot, taken)| {
            let taken: Vec<UnitRange> = ranges_of(taken).collect();
            (slot.max(window.start), ranges::subtract(&below(capacity), &taken))
        }));
        free
    }

    /// Strips that overlap a window that is not empty.
    fn within(&self, window: Window) -> impl Iterator<Item = (Slot, &BTreeMap<u32, u32>)> {
        let before = self.strips.range(..=window.start).next_back();
        let first = before.map_or(window.start, |(slot, _)| *slot);
        self.strips.range(first..window.end.max(first)).map(|(slot, taken)| (*slot, taken))
    }

    /// The strips of exactly this window, cut where it starts and ends.
    fn cut_out(&mut self, window: Window) -> impl Iterator<Item = &mut BTreeMap<u32, u32>> {
        for slot in [window.start, window.end] {
            if !self.strips.contains_key(&slot) {
                let before = self.strips.range(..slot).next_back();
                let taken = before.map(|(_, taken)| taken.clone()).unwrap_or_default();
                self.strips.insert(slot, taken);
            }
        }
        self.strips.range_mut(window.start..window.end).map(|(_, taken)| taken)
    }

    /// Forgets a cut at which nothing changes any more.
    fn join(&mut self, slot: Slot) {
        let Some(taken) = self.strips.get(&slot) else { return };
        let before = self.strips.range(..slot).next_back().map(|(_, taken)| taken);
        let same = before.map_or(taken.is_empty(), |before| before == taken);
        if same {
            self.strips.remove(&slot);
        }
    }
}

/// Units that are free now, in ranges, each with the slot from which it has been.
#[derive(Default)]
struct Open {
    ranges: BTreeMap<u32, (u32, Slot)>,
}

impl Open {
    /// Takes the units of a range out; returns them by the slot from which they were free.
    fn close(&mut self, gone: UnitRange) -> Vec<(Slot, UnitRange)> {
        let before = self.ranges.range(..=gone.first).next_back();
        let from = before.map_or(gone.first, |(first, _)| *first);
        let met: Vec<(u32, (u32, Slot))> =
            self.ranges.range(from..gone.end).map(|(first, open)| (*first, *open)).collect();
        let mut closed = Vec::new();
        for (first, (end, start)) in met {
            let (low, high) = (first.max(gone.first), end.min(gone.end));
            if low >= high {
                continue;
            }
            self.ranges.remove(&first);
            if first < low {
                self.ranges.insert(first, (low, start));
            }
            if high < end {
                self.ranges.insert(high, (end, start));
            }
            closed.push((start, UnitRange { first: low, end: high }));
        }
        closed
    }
}

fn ranges_of(taken: &BTreeMap<u32, u32>) -> impl Iterator<Item = UnitRange> {
    taken.iter().map(|(first, end)| UnitRange { first: *first, end: *end })
}

/// Every unit of a class.
fn below(capacity: u32) -> [UnitRange; 1] {
    [UnitRange { first: 0, end: capacity }]
}
