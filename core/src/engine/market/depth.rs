//! How much stands in a book at which price, slot by slot.

use std::ops::Range;

use crate::limits::HORIZON_SLOTS;
use crate::order::{Order, Side};
use crate::units::{Slot, Window};

/// Prices of each side that a depth lists: the rest is in the total.
pub const LEVELS_MAX: usize = 5;

/// Units at one price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Limit, msat per block.
    pub limit_msat: u64,
    /// Units at exactly this limit.
    pub qty: u64,
}

/// One side of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Best prices first, at most [`LEVELS_MAX`].
    pub levels: Vec<Level>,
    pub total: u64,
}

/// Depth of one class over slots in which it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    pub window: Window,
    pub asks: Ladder,
    /// Units wanted. A bid counts in every slot of its window, whichever run of it it needs.
    pub bids: Ladder,
}

/// Depth of a class in the slots from `first` on that have any, ascending; neighbours that
/// are alike stand in one row. Time: sorting the orders, and the square of the horizon.
#[must_use]
pub fn depth(book: &[&Order], class: u16, first: Slot) -> Vec<Depth> {
    let (mut asks, mut bids) = (Vec::new(), Vec::new());
    let horizon = first.saturating_add(HORIZON_SLOTS);
    for order in book {
        let Some(alt) = order.alts.iter().find(|alt| alt.class == class) else { continue };
        let (start, end) = (order.window.start.max(first), order.window.end.min(horizon));
        if start < end {
            let slots = (start - first) as usize..(end - first) as usize;
            let side = if order.side == Side::Buy { &mut bids } else { &mut asks };
            side.push(Offer { limit_msat: alt.limit_msat, qty: order.qty.into(), slots });
        }
    }
    asks.sort_unstable_by_key(|offer| offer.limit_msat);
    bids.sort_unstable_by_key(|offer| std::cmp::Reverse(offer.limit_msat));
    rows(first, ladders(&asks).into_iter().zip(ladders(&bids)))
}

/// Units of one order, in slots counted from the first of the depth.
struct Offer {
    limit_msat: u64,
    qty: u64,
    slots: Range<usize>,
}

/// The ladder of every slot of the horizon, from the orders of one side, best first.
fn ladders(offers: &[Offer]) -> Vec<Ladder> {
    let mut ladders = vec![Ladder::default(); HORIZON_SLOTS as usize];
    for (ladder, total) in ladders.iter_mut().zip(units(offers)) {
        ladder.total = total;
    }
    let mut open = Open::new(ladders.len());
    for level in offers.chunk_by(|a, b| a.limit_msat == b.limit_msat) {
        // One sweep over all slots for many orders; for few, a look at the slots of each that
        // still lack levels: no slot has more than LEVELS_MAX times as many looks as slots.
        if level.len() >= ladders.len() {
            for (ladder, qty) in ladders.iter_mut().zip(units(level)).filter(|(_, qty)| *qty > 0) {
                ladder.add(level[0].limit_msat, qty);
            }
        } else {
            for offer in level {
                let mut slot = open.from(offer.slots.start);
                while slot < offer.slots.end {
                    if !ladders[slot].add(offer.limit_msat, offer.qty) {
                        open.close(slot);
                    }
                    slot = open.from(slot + 1);
                }
            }
        }
    }
    ladders
}

/// Units of some orders in every slot of the horizon: what begins there, less what ended.
fn units(offers: &[Offer]) -> Vec<u64> {
    let mut begins = vec![0; HORIZON_SLOTS as usize + 1];
    let mut ends = begins.clone();
    for offer in offers {
        begins[offer.slots.start] += offer.qty;
        ends[offer.slots.end] += offer.qty;
    }
    let mut units = 0;
    let running = begins.into_iter().zip(ends).map(|(begin, end)| {
        units += begin;
        units -= end;
        units
    });
    running.take(HORIZON_SLOTS as usize).collect()
}

/// Slots whose ladder still takes levels; the rest is jumped over.
struct Open {
    /// Of an open slot itself, of a closed one a later slot, none of those between being open.
    next: Vec<usize>,
}

impl Open {
    fn new(slots: usize) -> Self {
        Self { next: (0..=slots).collect() }
    }

    /// The first open slot from this one on, or the end.
    fn from(&mut self, slot: usize) -> usize {
        let mut found = slot;
        while self.next[found] != found {
            found = self.next[found];
        }
        // The next reader takes the short way.
        let mut at = slot;
        while self.next[at] != found {
            at = std::mem::replace(&mut self.next[at], found);
        }
        found
    }

    fn close(&mut self, slot: usize) {
        self.next[slot] = slot + 1;
    }
}

impl Ladder {
    /// Adds units at a price no better than the last; `false` if there is no room for it.
    fn add(&mut self, limit_msat: u64, qty: u64) -> bool {
        let is_full = self.levels.len() == LEVELS_MAX;
        match self.levels.last_mut() {
            Some(level) if level.limit_msat == limit_msat => level.qty += qty,
            _ if is_full => return false,
            _ => self.levels.push(Level { limit_msat, qty }),
        }
        true
    }
}

fn rows(first: Slot, ladders: impl Iterator<Item = (Ladder, Ladder)>) -> Vec<Depth> {
    let mut rows: Vec<Depth> = Vec::new();
    let used = (first..).zip(ladders).filter(|(_, (asks, bids))| asks.total + bids.total > 0);
    for (slot, (asks, bids)) in used {
        match rows.last_mut() {
            Some(row) if row.window.end == slot && row.asks == asks && row.bids == bids => {
                row.window.end += 1;
            }
            _ => rows.push(Depth { window: Window { start: slot, end: slot + 1 }, asks, bids }),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Key;
    use crate::order::{Alternative, Mode, Source};

    fn order(side: Side, limit_msat: u64, qty: u32, (start, end): (u32, u32)) -> Order {
        Order {
            v: 1,
            epoch: 1,
            side,
            owner: Key([1; 32]),
            nonce: 0,
            alts: vec![Alternative { class: 1, limit_msat }],
            qty,
            min_qty: 1,
            mode: Mode::Sticky,
            window: Window { start, end },
            slots: 0,
            features: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            min_run: 1,
            source: Source::Primary,
            created_ms: 0,
            backing: None,
            pow_nonce: 0,
        }
    }

    #[test]
    fn rows_hold_the_best_prices_and_join_slots_that_are_alike() {
        let book = [
            order(Side::Sell, 30, 2, (100, 104)),
            order(Side::Sell, 20, 1, (98, 102)),
            order(Side::Sell, 20, 4, (101, 102)),
            order(Side::Buy, 15, 3, (103, 105)),
        ];
        let book: Vec<&Order> = book.iter().collect();
        let level = |limit_msat, qty| Level { limit_msat, qty };
        let found = depth(&book, 1, 100);
        let seen: Vec<_> = found
            .iter()
            .map(|row| (row.window.start, row.window.end, row.asks.levels.clone(), row.asks.total))
            .collect();
        assert_eq!(
            seen,
            [
                (100, 101, vec![level(20, 1), level(30, 2)], 3),
                (101, 102, vec![level(20, 5), level(30, 2)], 7),
                (102, 103, vec![level(30, 2)], 2),
                (103, 104, vec![level(30, 2)], 2),
                (104, 105, vec![], 0),
            ]
        );
        assert_eq!(found[3].bids, Ladder { levels: vec![level(15, 3)], total: 3 });
        assert_eq!(depth(&book, 2, 100), []);
        let many: Vec<Order> = (1..9).map(|limit| order(Side::Buy, limit, 1, (100, 101))).collect();
        let many: Vec<&Order> = many.iter().collect();
        let bids = &depth(&many, 1, 100)[0].bids;
        assert_eq!((bids.levels.len(), bids.levels[0].limit_msat, bids.total), (5, 8, 8));
    }

    /// What the depth is by definition, slot by slot and order by order.
    fn naive(book: &[&Order], first: Slot) -> Vec<(Slot, [Vec<Level>; 2], [u64; 2])> {
        let mut found = Vec::new();
        for slot in first..first + HORIZON_SLOTS {
            let (mut levels, mut totals) = ([Vec::new(), Vec::new()], [0, 0]);
            for (at, side) in [Side::Sell, Side::Buy].into_iter().enumerate() {
                let mut by_limit = std::collections::BTreeMap::new();
                let there = book.iter().filter(|order| {
                    order.side == side && order.window.start <= slot && slot < order.window.end
                });
                for order in there {
                    *by_limit.entry(order.alts[0].limit_msat).or_insert(0) += u64::from(order.qty);
                    totals[at] += u64::from(order.qty);
                }
                let all = by_limit.into_iter().map(|(limit_msat, qty)| Level { limit_msat, qty });
                let mut all: Vec<Level> = all.collect();
                if side == Side::Buy {
                    all.reverse();
                }
                all.truncate(LEVELS_MAX);
                levels[at] = all;
            }
            if totals != [0, 0] {
                found.push((slot, levels, totals));
            }
        }
        found
    }

    #[test]
    fn depth_is_what_a_count_of_every_slot_says() {
        // The last book has prices shared by more orders than there are slots.
        for (seed, count, prices) in [(1, 5, 3), (2, 60, 40), (3, 400, 9), (4, 1500, 2)] {
            let mut state: u32 = seed;
            let mut draw = |below: u32| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) % below
            };
            let orders: Vec<Order> = (0..count)
                .map(|_| {
                    let side = if draw(2) == 0 { Side::Sell } else { Side::Buy };
                    let start = 80 + draw(380);
                    let window = (start, start + 1 + draw(60));
                    order(side, u64::from(1 + draw(prices)), 1 + draw(9), window)
                })
                .collect();
            let book: Vec<&Order> = orders.iter().collect();
            let rows = depth(&book, 1, 100);
            let by_slot = rows.iter().flat_map(|row| {
                (row.window.start..row.window.end).map(move |slot| {
                    let levels = [row.asks.levels.clone(), row.bids.levels.clone()];
                    (slot, levels, [row.asks.total, row.bids.total])
                })
            });
            assert_eq!(by_slot.collect::<Vec<_>>(), naive(&book, 100), "book {seed}");
        }
    }
}
