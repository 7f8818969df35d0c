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
        let mut taken: Vec<(u32, u32)> =
            self.within(window).flat_map(|(_, taken)| taken.iter().map(pair)).collect();
        taken.sort_unstable();
        gaps(capacity, taken.into_iter())
    }

    /// Units that become free together in a window and are taken again together, with the
    /// slots between: each free cell once. Of a group in more than 16 ranges the widest.
    pub(super) fn free_intervals(&self, capacity: u32, window: Window) -> Vec<(Units, Window)> {
        let mut before: Vec<UnitRange> = Vec::new();
        let mut open = Open::default();
        let mut groups: BTreeMap<(Slot, Slot), Vec<UnitRange>> = BTreeMap::new();
        for (part, free) in self.free_strips(capacity, window) {
            for range in ranges::subtract(&before, &free) {
                for (start, closed) in open.close(range) {
                    groups.entry((start, part.start)).or_default().push(closed);
                }
            }
            for range in ranges::subtract(&free, &before) {
                open.ranges.insert(range.first, (range.end, part.start));
            }
            before = free;
        }
        for (first, (end, start)) in open.ranges {
            groups.entry((start, window.end)).or_default().push(UnitRange { first, end });
        }
        let whole = |((start, end), units): (_, Vec<UnitRange>)| {
            let units = Units::new(ranges::widest(&ranges::joined(&units)))?;
            Some((units, Window { start, end }))
        };
        groups.into_iter().filter_map(whole).collect()
    }

    /// The window cut where free space changes, with what is free in each part.
    fn free_strips(&self, capacity: u32, window: Window) -> Vec<(Window, Vec<UnitRange>)> {
        let mut strips: Vec<(Window, Vec<UnitRange>)> = Vec::new();
        if window.is_empty() {
            return strips;
        }
        let mut first = vec![(window.start, gaps(capacity, std::iter::empty()))];
        first.extend(
            self.within(window).map(|(slot, taken)| {
                (slot.max(window.start), gaps(capacity, taken.iter().map(pair)))
            }),
        );
        let ends: Vec<Slot> =
            first.iter().skip(1).map(|(slot, _)| *slot).chain([window.end]).collect();
        for ((start, free), end) in first.into_iter().zip(ends) {
            match strips.last_mut() {
                _ if start == end => {}
                Some((last, same)) if *same == free => last.end = end,
                _ => strips.push((Window { start, end }, free)),
            }
        }
        strips
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

fn pair((first, end): (&u32, &u32)) -> (u32, u32) {
    (*first, *end)
}

/// What ascending ranges leave of the units below a capacity.
fn gaps(capacity: u32, taken: impl Iterator<Item = (u32, u32)>) -> Vec<UnitRange> {
    let mut free = Vec::new();
    let mut at = 0;
    for (first, end) in taken.chain([(capacity, capacity)]) {
        if at < first.min(capacity) {
            free.push(UnitRange { first: at, end: first.min(capacity) });
        }
        at = at.max(end);
    }
    free
}
