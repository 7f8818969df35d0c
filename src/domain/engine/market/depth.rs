//! How much stands in a book at which price, slot by slot.

use std::collections::BTreeMap;

use crate::domain::order::{Order, Side};
use crate::domain::units::{Slot, Window};
use crate::limits::HORIZON_SLOTS;

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
    /// Units at all prices.
    pub total: u64,
}

/// Depth of one class over slots in which it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// The slots.
    pub window: Window,
    /// Units for sale.
    pub asks: Ladder,
    /// Units wanted. A bid counts in every slot of its window, whichever run of it it needs.
    pub bids: Ladder,
}

/// Depth of a class in the slots from `first` on that have any, ascending; neighbours that
/// are alike stand in one row.
#[must_use]
pub fn depth(book: &[&Order], class: u16, first: Slot) -> Vec<Depth> {
    let mut sides: [Vec<(u64, u32, Window)>; 2] = [Vec::new(), Vec::new()];
    for order in book {
        let Some(alt) = order.alts.iter().find(|alt| alt.class == class) else { continue };
        let side = usize::from(order.side == Side::Buy);
        sides[side].push((alt.limit_msat, order.qty, order.window));
    }
    sides[0].sort_unstable_by_key(|(limit_msat, _, _)| *limit_msat);
    sides[1].sort_unstable_by_key(|(limit_msat, _, _)| std::cmp::Reverse(*limit_msat));
    let mut slots: BTreeMap<Slot, [Ladder; 2]> = BTreeMap::new();
    let horizon = first.saturating_add(HORIZON_SLOTS);
    for (side, orders) in sides.iter().enumerate() {
        for (limit_msat, qty, window) in orders {
            for slot in window.start.max(first)..window.end.min(horizon) {
                slots.entry(slot).or_default()[side].add(*limit_msat, *qty);
            }
        }
    }
    rows(slots)
}

impl Ladder {
    /// Adds units at a price no better than the last.
    fn add(&mut self, limit_msat: u64, qty: u32) {
        self.total += u64::from(qty);
        let is_full = self.levels.len() == LEVELS_MAX;
        match self.levels.last_mut() {
            Some(level) if level.limit_msat == limit_msat => level.qty += u64::from(qty),
            _ if is_full => {}
            _ => self.levels.push(Level { limit_msat, qty: qty.into() }),
        }
    }
}

fn rows(slots: BTreeMap<Slot, [Ladder; 2]>) -> Vec<Depth> {
    let mut rows: Vec<Depth> = Vec::new();
    for (slot, [asks, bids]) in slots {
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
    use crate::domain::ids::Key;
    use crate::domain::order::{Alternative, Mode, Source};

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
}
