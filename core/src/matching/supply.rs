//! Free units of the asks of one class, indexed by slot.

use std::ops::Range;

use super::ceiling::{Ceiling, Ceilings};
use super::instance::Mode;
use super::ranked::Class;

/// Bits per index word.
pub(super) const WORD: usize = u64::BITS as usize;

/// What the asks of one class still have to sell, by rank.
pub(super) struct Supply {
    first_slot: u32,
    slots: usize,
    words: usize,
    /// Free units, one row of slots per ask; 0 outside its window. Signed, since the least of
    /// signed numbers is what any processor finds for eight slots at a time.
    units: Vec<i16>,
    /// Maximal half-open intervals of slots with a free unit, ascending, per ask. Unlike the
    /// rows they reach to the ends of the ask's window.
    intervals: Vec<Vec<(u32, u32)>>,
    /// Bit `rank % 64` of word `(plane · words + rank / 64) · slots + slot` tells that the ask
    /// has at least `2^plane` free units there: who has as many for a whole run is the
    /// conjunction of neighbouring words.
    planes: Vec<u64>,
    ceilings: Ceilings,
}

impl Supply {
    /// Everything that the asks of `class` offer.
    pub(super) fn new(class: &Class) -> Self {
        let slots = (class.end_slot - class.first_slot) as usize;
        let words = class.words.len();
        let largest = class.asks.iter().map(|ask| ask.qty).max().unwrap_or(0);
        let mut supply = Self {
            first_slot: class.first_slot,
            slots,
            words,
            units: vec![0; class.asks.len() * slots],
            intervals: Vec::with_capacity(class.asks.len()),
            planes: vec![0; planes(largest) * words * slots],
            ceilings: Ceilings::new(class.first_slot, class.end_slot),
        };
        for (rank, ask) in class.asks.iter().enumerate() {
            let start = ask.first_slot.clamp(class.first_slot, class.end_slot);
            let end = ask.end_slot.clamp(class.first_slot, class.end_slot);
            let run = supply.run(start, end);
            // At most MAX_QTY.
            supply.units[rank * slots..][run.clone()].fill(ask.qty as i16);
            for plane in 0..planes(ask.qty) {
                let row = (plane * words + rank / WORD) * slots;
                for word in &mut supply.planes[row..][run.clone()] {
                    *word |= 1 << (rank % WORD);
                }
            }
            supply.intervals.push(vec![(ask.first_slot, ask.end_slot)]);
        }
        supply
    }

    /// How many planes there are: no ask has `2^planes` units.
    pub(super) fn planes(&self) -> u32 {
        (self.planes.len() / (self.words * self.slots)) as u32
    }

    fn run(&self, start: u32, end: u32) -> Range<usize> {
        (start - self.first_slot) as usize..(end - self.first_slot) as usize
    }

    /// Which asks of the ranks from `word · 64` have at least `2^plane` free units in every
    /// slot of `[start, end)`, one bit each.
    pub(super) fn free_for(&self, plane: u32, word: usize, start: u32, end: u32) -> u64 {
        let row = (plane as usize * self.words + word) * self.slots;
        self.planes.get(row..).map_or(0, |row| {
            row[self.run(start, end)].iter().fold(u64::MAX, |all, slot| all & slot)
        })
    }

    /// An upper bound on the units that a bid of this mode could get over `[start, end)` from
    /// the first `asks` asks, less than twice as large as what there is.
    pub(super) fn most_units(&self, mode: Mode, asks: usize, start: u32, end: u32) -> u32 {
        let planes = self.planes();
        let free = |plane| {
            let words = (0..asks / WORD).map(move |word| self.free_for(plane, word, start, end));
            let first_few = (1 << (asks % WORD)) - 1;
            let last = (first_few != 0).then(|| self.free_for(plane, asks / WORD, start, end));
            words.chain(last.map(|bits| bits & first_few))
        };
        match mode {
            Mode::Sticky => (0..planes)
                .map(|plane| {
                    free(plane).map(u64::count_ones).sum::<u32>().saturating_mul(1 << plane)
                })
                .fold(0, u32::saturating_add),
            Mode::Gang => {
                let largest = (0..planes).rev().find(|&plane| free(plane).any(|bits| bits != 0));
                largest.map_or(0, |plane| (2 << plane) - 1)
            }
        }
    }

    /// What earlier searches found out about `[start, end)`.
    pub(super) fn ceiling(&self, start: u32, end: u32) -> Ceiling {
        self.ceilings.get(start, end)
    }

    /// Where searches keep what they find out, for later ones.
    pub(super) fn ceilings(&self) -> &Ceilings {
        &self.ceilings
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
        let row = &self.units[rank * self.slots..];
        let least =
            row[self.run(start, end)].iter().fold(i16::MAX, |least, &units| least.min(units));
        u32::from(least.unsigned_abs())
    }

    /// Takes `qty` units, which are free, out of every slot of `[start, end)`.
    pub(super) fn take(&mut self, rank: usize, start: u32, end: u32, qty: u32) {
        for slot in start..end {
            let (before, after) = self.change(rank, slot, |units| units - qty);
            for plane in planes(after)..planes(before) {
                *self.plane_word(plane, rank, slot) &= !(1 << (rank % WORD));
            }
            if after == 0 {
                cut(&mut self.intervals[rank], slot);
            }
        }
    }

    /// Units of an ask in one slot before and after a change.
    fn change(&mut self, rank: usize, slot: u32, to: impl Fn(u32) -> u32) -> (u32, u32) {
        let units = &mut self.units[rank * self.slots + (slot - self.first_slot) as usize];
        let before = u32::from(units.unsigned_abs());
        let after = to(before);
        *units = after as i16;
        (before, after)
    }

    fn plane_word(&mut self, plane: usize, rank: usize, slot: u32) -> &mut u64 {
        let row = (plane * self.words + rank / WORD) * self.slots;
        &mut self.planes[row + (slot - self.first_slot) as usize]
    }
}

/// In how many planes an ask with so many free units has its bit set.
fn planes(units: u32) -> usize {
    (u32::BITS - units.leading_zeros()) as usize
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

#[cfg(test)]
mod tests {
    use super::super::instance::{Instance, Order, Side};
    use super::super::ranked::Book;
    use super::*;

    fn order(id: &str, qty: u32, window: (u32, u32), side: Side) -> Order {
        Order::sample(id.into(), id.into(), qty, window, side)
    }

    /// Two asks of 5 and 2 units over `[10, 20)` and `[8, 16)`; bids reach `[9, 20)`.
    fn book() -> Instance {
        let sell = |limit_msat| Side::Sell { class: 0, limit_msat, min_run: 1, provider: None };
        let buy = Side::Buy { hours: 2, mode: Mode::Sticky, alts: vec![(0, 9)] };
        let orders = vec![
            order("a", 5, (10, 20), sell(1)),
            order("b", 2, (8, 16), sell(2)),
            order("c", 1, (9, 20), buy),
        ];
        Instance::sample(1, orders)
    }

    #[test]
    fn free_units_are_bounded_without_a_look_at_the_asks() {
        let book = book();
        let book = Book::new(&&book).unwrap();
        let mut supply = Supply::new(&book.classes[0]);
        supply.take(0, 10, 12, 1);
        // 4 units fill planes 0 to 2, which stand for up to 7; 2 units stand for up to 3.
        assert_eq!(supply.most_units(Mode::Sticky, 2, 10, 12), 7 + 3);
        assert_eq!(supply.most_units(Mode::Sticky, 1, 10, 12), 7);
        assert_eq!(supply.most_units(Mode::Gang, 2, 10, 12), 7);
        assert_eq!(supply.most_units(Mode::Gang, 2, 9, 12), 3);
        assert_eq!(supply.most_units(Mode::Gang, 2, 15, 17), 7);
        assert_eq!((supply.units(0, 10, 13), supply.slack(0, 10, 13)), (4, 7));
    }
}
