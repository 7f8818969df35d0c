//! What searches learn about the supply for a run, kept so that it is found out once.
//!
//! During a pass supply only falls, so whatever a search finds out about a run bounds every
//! later search for the same run from above, whoever searches. A bid that cannot be served,
//! or not well enough, is then turned away without a look at the asks.

use std::cell::{Cell, OnceCell};

/// A bound on the units that the asks of one class have free for one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// No ask of a lower rank is free for the run.
    pub(super) first: usize,
    /// The two below hold for the asks of a lower rank than this.
    pub(super) counted: usize,
    /// The most units they have together.
    pub(super) total: u32,
    /// The most units that one of them has.
    pub(super) largest: u32,
}

/// The ceilings of all runs in one class. Searches lower them through a shared reference:
/// what is known changes how long a search takes, never what it finds.
#[derive(Clone)]
pub(super) struct Ceilings {
    first_slot: u32,
    slots: usize,
    /// By length of the run in slots, then by its first slot; made when first used.
    by_length: Vec<OnceCell<Box<[Cell<Ceiling>]>>>,
}

impl Ceilings {
    /// Nothing is known about any run in `[first_slot, end_slot)`.
    pub(super) fn new(first_slot: u32, end_slot: u32) -> Self {
        let slots = (end_slot - first_slot) as usize;
        Self { first_slot, slots, by_length: vec![OnceCell::new(); slots + 1] }
    }

    fn of(&self, start: u32, end: u32) -> &Cell<Ceiling> {
        let length = (end - start) as usize;
        let row = self.by_length[length]
            .get_or_init(|| vec![Cell::default(); self.slots + 1 - length].into());
        &row[(start - self.first_slot) as usize]
    }

    /// What is known about the run `[start, end)`.
    pub(super) fn get(&self, start: u32, end: u32) -> Ceiling {
        self.of(start, end).get()
    }

    /// Adds what a search found out about `[start, end)`.
    pub(super) fn lower(&self, start: u32, end: u32, found: Ceiling) {
        let cell = self.of(start, end);
        let known = cell.get();
        let first = known.first.max(found.first);
        let better = found.counted > known.counted || found.total < known.total;
        cell.set(Ceiling { first, ..if better { found } else { known } });
    }

    /// The ask of this rank has up to `qty` units more in every run that meets `[start, end)`.
    pub(super) fn raise(&mut self, rank: usize, start: u32, end: u32, qty: u32) {
        let start = (start - self.first_slot) as usize;
        let end = (end - self.first_slot) as usize;
        for (length, row) in self.by_length.iter_mut().enumerate() {
            let Some(row) = row.get_mut() else { continue };
            let meeting = (start + 1).saturating_sub(length)..end.min(row.len());
            for ceiling in row.get_mut(meeting).into_iter().flatten().map(Cell::get_mut) {
                ceiling.first = ceiling.first.min(rank);
                if rank < ceiling.counted {
                    ceiling.total = ceiling.total.saturating_add(qty);
                    ceiling.largest = ceiling.largest.saturating_add(qty);
                }
            }
        }
    }
}
