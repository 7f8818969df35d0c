//! The result of an epoch, and the choice among the starts.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::instance::{Instance, MatchError};
use super::labels::Ranks;
use super::names::Names;
use super::pass::{self, Placement};
use super::ranked::Book;
use super::view::{Listing, Orders};
use super::{improve, one_slot};

/// Trades and prices of one epoch, in canonical order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sum over all trades of units × slots × (limit − ask), in msat.
    pub welfare_msat: u128,
    /// The uniform price of each (class, slot) in which something trades, in msat per block.
    pub prices: BTreeMap<(u16, u32), u64>,
    /// Ascending by (class, start, buy, sell).
    pub trades: Vec<Trade>,
}

/// Units that one ask delivers to one bid over a run of slots.
///
/// The derived order is the canonical one, since (class, start, buy, sell) is unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trade {
    pub class: u16,
    pub start: u32,
    pub buy: String,
    pub sell: String,
    /// Length of the run in slots.
    pub hours: u16,
    pub qty: u32,
    /// Total to pay in msat: units × the sum of the run's slot prices. Authoritative.
    pub msat: u64,
    /// `msat` in whole satoshis, rounded down.
    pub sat: u64,
}

/// Version of the rules: every node of a network runs the one its definition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The best of the greedy starts.
    One,
    /// The best of the greedy starts, then improved within a fixed budget.
    Two,
}

impl TryFrom<u8> for Algorithm {
    type Error = MatchError;

    fn try_from(version: u8) -> Result<Self, MatchError> {
        match version {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(MatchError::Algorithm { version }),
        }
    }
}

/// Matches one book by the rules of `algorithm`.
///
/// Orders that cannot trade are dropped: cancelled by their owner, expired, filled, no
/// deliverable run left in the window, limit 0 or above [`super::PMAX_MSAT`].
/// The starts run in parallel; the largest welfare wins, the lowest start among equals, so
/// the result depends on nothing but the set of orders. Version 2 then looks for a better
/// sequence of insertion, within a budget that the book alone determines.
///
/// # Errors
/// A book that breaks a bound is refused as a whole, see [`MatchError`]; all orders are
/// checked, also those that would be dropped. [`MatchError::Infeasible`] stands for what
/// the price constraints exclude by construction.
pub fn solve(instance: &Instance, algorithm: Algorithm) -> Result<Outcome, MatchError> {
    Ok(clear(&instance, algorithm)?.labelled(instance))
}

/// An [`Outcome`] that names orders by their positions in the book.
pub(crate) struct Cleared {
    pub(crate) welfare_msat: u128,
    pub(crate) prices: BTreeMap<(u16, u32), u64>,
    /// Ascending by (class, start, id of the bid, id of the ask).
    pub(crate) matches: Vec<Match>,
}

impl Cleared {
    fn labelled(self, instance: &Instance) -> Outcome {
        let Self { welfare_msat, prices, matches } = self;
        let label = |at: usize| instance.orders[at].id.clone();
        let trade = |Match { class, start, hours, bid, ask, qty, msat }| {
            let (buy, sell) = (label(bid), label(ask));
            Trade { class, start, buy, sell, hours, qty, msat, sat: msat / 1000 }
        };
        Outcome { welfare_msat, prices, trades: matches.into_iter().map(trade).collect() }
    }
}

/// A [`Trade`] between the orders at two positions of the book.
pub(crate) struct Match {
    pub(crate) class: u16,
    pub(crate) start: u32,
    pub(crate) hours: u16,
    pub(crate) bid: usize,
    pub(crate) ask: usize,
    pub(crate) qty: u32,
    pub(crate) msat: u64,
}

/// As [`solve`], for orders of any form.
///
/// # Errors
/// As [`solve`].
pub(crate) fn clear<'a>(
    orders: &impl Orders<'a>,
    algorithm: Algorithm,
) -> Result<Cleared, MatchError> {
    let mut listing = Listing::new(orders)?;
    match one_slot::clear(&mut listing, algorithm)? {
        Some(allocation) => allocation.cleared(&listing.ids),
        None => {
            let names = Names::new(&mut listing);
            search(orders, listing, names, algorithm)
        }
    }
}

/// As [`solve`], always by the general search: what shortcuts must agree with.
///
/// # Errors
/// As [`solve`].
#[cfg(any(test, feature = "test-support"))]
pub fn solve_by_search(instance: &Instance, algorithm: Algorithm) -> Result<Outcome, MatchError> {
    let mut listing = Listing::new(&instance)?;
    let names = Names::new(&mut listing);
    Ok(search(&instance, listing, names, algorithm)?.labelled(instance))
}

/// Whether [`solve`] needs no search.
///
/// # Errors
/// As [`solve`].
#[cfg(any(test, feature = "test-support"))]
pub fn is_swept(instance: &Instance, algorithm: Algorithm) -> Result<bool, MatchError> {
    let mut listing = Listing::new(&instance)?;
    Ok(one_slot::clear(&mut listing, algorithm)?.is_some())
}

/// Clears a book of any kind by passes over its bids.
pub(super) fn search<'a>(
    orders: &impl Orders<'a>,
    listing: Listing<'a>,
    names: Names<'a>,
    algorithm: Algorithm,
) -> Result<Cleared, MatchError> {
    let terms = listing.terms;
    let book = Book::ranked(orders, listing, names);
    let Some((mut placement, sequence)) = best_start(&book, terms.starts)? else {
        return Allocation::default().cleared(&book.ids);
    };
    if algorithm == Algorithm::Two {
        let start = (placement.welfare_msat, sequence);
        let better = improve::improve(&book, &terms.beacon, start)?;
        placement = pass::place(&book, &better)?;
    }
    placement.settle(&book)?.cleared(&book.ids)
}

/// The start with the largest welfare, the first among equals, and its sequence.
fn best_start<'a>(
    book: &'a Book<'a>,
    starts: u8,
) -> Result<Option<(Placement<'a>, Vec<usize>)>, MatchError> {
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    for start in 0..starts {
        let sequence = book.sequence(start);
        // The same order again would bring the same result.
        if !sequences.contains(&sequence) {
            sequences.push(sequence);
        }
    }
    let placements: Vec<Result<Placement<'_>, MatchError>> =
        sequences.par_iter().map(|sequence| pass::place(book, sequence)).collect();
    let mut best: Option<(Placement<'_>, Vec<usize>)> = None;
    for (placement, sequence) in placements.into_iter().zip(sequences) {
        let placement = placement?;
        if best.as_ref().is_none_or(|(best, _)| placement.welfare_msat > best.welfare_msat) {
            best = Some((placement, sequence));
        }
    }
    Ok(best)
}

/// What was allotted and at which prices, not yet in order.
#[derive(Default)]
pub(super) struct Allocation {
    pub(super) welfare_msat: u128,
    pub(super) prices: BTreeMap<(u16, u32), u64>,
    pub(super) allotments: Vec<Allotment>,
}

/// Units that one bid gets from one ask.
#[derive(Clone, Copy)]
pub(super) struct Allotment {
    pub(super) class: u16,
    pub(super) start: u32,
    /// Ranks of the ids, by which the canonical order goes.
    pub(super) bid: u32,
    pub(super) ask: u32,
    pub(super) hours: u16,
    pub(super) qty: u32,
    /// Limits of both, in msat per block.
    pub(super) bid_msat: u64,
    pub(super) ask_msat: u64,
}

impl Allocation {
    /// Checks once more that nobody pays or gets less than agreed, and sorts.
    fn cleared(mut self, ids: &Ranks<'_>) -> Result<Cleared, MatchError> {
        self.allotments.sort_unstable_by_key(|one| (one.class, one.start, one.bid, one.ask));
        let mut matches = Vec::with_capacity(self.allotments.len());
        let mut run = Run::default();
        for Allotment { class, start, bid, ask, hours, qty, bid_msat, ask_msat } in self.allotments
        {
            run.reach(class, start, hours, &self.prices);
            let least_msat = ask_msat * u64::from(hours);
            let most_msat = bid_msat * u64::from(hours);
            if run.msat > most_msat || run.msat < least_msat {
                return Err(MatchError::Infeasible);
            }
            let (bid, ask) = (ids.position(bid), ids.position(ask));
            let msat = run.msat * u64::from(qty);
            matches.push(Match { class, start, hours, bid, ask, qty, msat });
        }
        Ok(Cleared { welfare_msat: self.welfare_msat, prices: self.prices, matches })
    }
}

/// The price of one unit over a run; neighbours in canonical order often share the run.
#[derive(Default)]
struct Run {
    class: u16,
    start: u32,
    hours: u16,
    msat: u64,
}

impl Run {
    fn reach(&mut self, class: u16, start: u32, hours: u16, prices: &BTreeMap<(u16, u32), u64>) {
        if (self.class, self.start, self.hours) != (class, start, hours) {
            let slots = (class, start)..(class, start + u32::from(hours));
            let msat = prices.range(slots).map(|(_, price_msat)| price_msat).sum();
            *self = Self { class, start, hours, msat };
        }
    }
}
