//! Free units of the asks of one class, indexed by slot.

use std::ops::Range;

use super::ranked::{Ask, Class};

/// Bits per index word.
const WORD: usize = u64::BITS as usize;

/// What the asks of one class still have to sell, by rank.
pub(super) struct Supply {
    first_slot: u32,
    slots: usize,
    stock: Vec<Stock>,
    /// Bit `rank % 64` of word `(rank / 64) · slots + slot` tells that the ask has a free unit
    /// there: who is free for a whole run is the conjunction of neighbouring words.
    free: Vec<u64>,
    /// Free units of all asks together, by slot: demand beyond it needs no search.
    total: Vec<u64>,
}

/// Free units of one ask.
struct Stock {
    first_slot: u32,
    /// Free units of each slot of the deliverable window.
    units: Vec<u32>,
    /// Maximal half-open intervals of slots with a free unit, ascending.
    runs: Vec<(u32, u32)>,
}

impl Supply {
    /// Everything that the asks of `class` offer.
    pub(super) fn new(class: &Class<'_>) -> Self {
        let slots = (class.end_slot - class.first_slot) as usize;
        let mut free = vec![0; class.asks.len().div_ceil(WORD) * slots];
        let mut total = vec![0; slots];
        for (rank, ask) in class.asks.iter().enumerate() {
            let start = ask.first_slot.clamp(class.first_slot, class.end_slot);
            let end = ask.end_slot.clamp(class.first_slot, class.end_slot);
            let row = (rank / WORD) * slots;
            for slot in start - class.first_slot..end - class.first_slot {
                free[row + slot as usize] |= 1 << (rank % WORD);
                total[slot as usize] += u64::from(ask.qty);
            }
        }
        let stock = class.asks.iter().map(Stock::new).collect();
        Self { first_slot: class.first_slot, slots, stock, free, total }
    }

    /// No run over `[start, end)` can bring more units than this, whatever the prices.
    pub(super) fn most_units(&self, start: u32, end: u32) -> u64 {
        let run = (start - self.first_slot) as usize..(end - self.first_slot) as usize;
        self.total[run].iter().copied().min().unwrap_or(0)
    }

    /// Ranks of the asks with a free unit in every slot of `[start, end)`, ascending.
    pub(super) fn free_for(&self, start: u32, end: u32) -> impl Iterator<Item = usize> {
        let run = (start - self.first_slot) as usize..(end - self.first_slot) as usize;
        self.free.chunks_exact(self.slots).enumerate().flat_map(move |(word, slots)| {
            let bits = slots[run.clone()].iter().fold(u64::MAX, |all, slot| all & slot);
            ones(bits).map(move |bit| word * WORD + bit)
        })
    }

    /// Whether the ask has a free unit in `slot`.
    pub(super) fn is_free(&self, rank: usize, slot: u32) -> bool {
        self.stock[rank].runs.iter().any(|&(start, end)| start <= slot && slot < end)
    }

    /// By how many slots the ask's free interval around `[start, end)` is longer.
    pub(super) fn slack(&self, rank: usize, start: u32, end: u32) -> u32 {
        let around = self.stock[rank].runs.iter().find(|run| run.1 >= end);
        around.map_or(0, |run| (run.1 - run.0) - (end - start))
    }

    /// Units the ask has free in every slot of `[start, end)`, which lies in its window.
    pub(super) fn units(&self, rank: usize, start: u32, end: u32) -> u32 {
        let stock = &self.stock[rank];
        stock.units[stock.range(start, end)].iter().copied().min().unwrap_or(0)
    }

    /// Takes `qty` units, which are free, out of every slot of `[start, end)`.
    pub(super) fn take(&mut self, rank: usize, start: u32, end: u32, qty: u32) {
        let stock = &mut self.stock[rank];
        let row = (rank / WORD) * self.slots;
        let mut exhausted = false;
        for slot in start..end {
            let units = &mut stock.units[(slot - stock.first_slot) as usize];
            *units -= qty;
            self.total[(slot - self.first_slot) as usize] -= u64::from(qty);
            if *units == 0 {
                self.free[row + (slot - self.first_slot) as usize] &= !(1 << (rank % WORD));
                exhausted = true;
            }
        }
        if exhausted {
            stock.runs = stock.free_runs();
        }
    }
}

impl Stock {
    fn new(ask: &Ask<'_>) -> Self {
        let slots = (ask.end_slot - ask.first_slot) as usize;
        Self {
            first_slot: ask.first_slot,
            units: vec![ask.qty; slots],
            runs: vec![(ask.first_slot, ask.end_slot)],
        }
    }

    fn range(&self, start: u32, end: u32) -> Range<usize> {
        (start - self.first_slot) as usize..(end - self.first_slot) as usize
    }

    fn free_runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        let end_slot = self.first_slot + self.units.len() as u32;
        for (slot, &units) in (self.first_slot..end_slot).zip(&self.units) {
            match runs.last_mut() {
                _ if units == 0 => {}
                Some(run) if run.1 == slot => run.1 += 1,
                _ => runs.push((slot, slot + 1)),
            }
        }
        runs
    }
}

/// Positions of the bits set, ascending.
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(bit)
    })
}
