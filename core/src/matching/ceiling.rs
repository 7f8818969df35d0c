//! What searches learn about the supply for a run, kept so that it is found out once.
//!
//! During a pass supply only falls, so whatever a search finds out about a run bounds every
//! later search for the same run from above, for whatever bid. A bid that cannot be served,
//! or not well enough, is then turned away without a look at the asks.

use std::cell::{Cell, OnceCell};

use super::instance::Mode;

/// A bound on the units that the asks of one class have free for one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// No ask of a lower rank is free for the run.
    pub(super) first: usize,
    /// What the asks have together.
    together: Most,
    single: Most,
}

/// The asks of a lower rank than `counted` have at most `units` units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Most {
    pub(super) counted: usize,
    pub(super) units: u32,
}

impl Ceiling {
    /// The most units that a bid of this mode could get.
    pub(super) fn most(&self, mode: Mode) -> Most {
        match mode {
            Mode::Sticky => self.together,
            Mode::Gang => self.single,
        }
    }
}

impl Most {
    fn lower(&mut self, found: Self) {
        if found.counted > self.counted || found.units < self.units {
            *self = found;
        }
    }
}

/// The ceilings of all runs in one class. Searches lower them through a shared reference:
/// what is known changes how long a search takes, never what it finds.
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

    /// Notes that no ask of a lower rank than `first` is free for `[start, end)`.
    pub(super) fn lower_first(&self, start: u32, end: u32, first: usize) {
        let cell = self.of(start, end);
        let known = cell.get();
        cell.set(Ceiling { first: known.first.max(first), ..known });
    }

    /// Notes how many units a bid of this mode could get for `[start, end)` at most.
    pub(super) fn lower_most(&self, start: u32, end: u32, mode: Mode, found: Most) {
        let cell = self.of(start, end);
        let mut known = cell.get();
        match mode {
            Mode::Sticky => known.together.lower(found),
            Mode::Gang => known.single.lower(found),
        }
        cell.set(known);
    }
}
