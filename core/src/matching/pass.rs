//! One greedy pass: bids are inserted one by one, each where it gains most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Add;

use super::accept::Accepted;
use super::closure::Closure;
use super::instance::MatchError;
use super::outcome::{Allocation, Allotment};
use super::prices;
use super::ranked::{Book, Class};
use super::search::Search;
use super::supply::Supply;

/// What is left of one class during a pass.
pub(super) struct Market<'a> {
    pub(super) class: &'a Class,
    pub(super) closure: Closure,
    pub(super) supply: Supply,
}

/// Units of one bid that one ask serves; `ask` is a rank within the class.
pub(super) struct Leg {
    pub(super) ask: usize,
    pub(super) qty: u32,
}

/// An accepted bid.
pub(super) struct Fill {
    pub(super) bid: usize,
    /// Index into [`Book::classes`].
    pub(super) class: usize,
    /// Limit of the alternative used, in msat per block.
    pub(super) limit_msat: u64,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) legs: Vec<Leg>,
    pub(super) gain: Gain,
}

/// What an option is worth; the larger wins, the first among equals.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gain {
    /// Sum of units × slots × (limit − ask): at most 10^4 · 168 · 10^12.
    pub(super) surplus_msat: u64,
    pub(super) qty: u32,
}

/// What an option is worth and where it stands among the bid's options: the alternative's
/// index and the first slot of the run. The greatest is chosen.
pub(super) type Standing = (Gain, Reverse<(usize, u32)>);

impl Add for Gain {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { surplus_msat: self.surplus_msat + more.surplus_msat, qty: self.qty + more.qty }
    }
}

/// The bids of one pass in their places, not yet priced.
pub(super) struct Placement<'a> {
    markets: Vec<Market<'a>>,
    fills: Vec<Fill>,
    pub(super) welfare_msat: u128,
}

/// Inserts the bids in the order of `sequence`.
///
/// # Errors
/// `match.infeasible`, if a promise contradicts an earlier one: the closure excludes it.
pub(super) fn place<'a>(
    book: &'a Book<'a>,
    sequence: &[usize],
) -> Result<Placement<'a>, MatchError> {
    let mut markets: Vec<Market<'_>> = book.classes.iter().map(Market::new).collect();
    let mut choice = Choice::new(book);
    let mut fills = Vec::new();
    for &bid in sequence {
        if let Some(fill) = choice.best_fill(&markets, bid) {
            markets[fill.class].accept(&fill)?;
            fills.push(fill);
        }
    }
    let welfare_msat = fills.iter().map(|fill| u128::from(fill.gain.surplus_msat)).sum();
    Ok(Placement { markets, fills, welfare_msat })
}

impl Placement<'_> {
    /// Gives every slot with a trade its price.
    ///
    /// # Errors
    /// As [`prices::settle`].
    pub(super) fn settle(mut self, book: &Book<'_>) -> Result<Allocation, MatchError> {
        let prices = prices::settle(book, &mut self.markets, &self.fills)?;
        let legs = self.fills.iter().flat_map(|fill| fill.legs.iter().map(move |leg| (fill, leg)));
        let allot = |(fill, leg): (&Fill, &Leg)| {
            let (class, bid) = (&book.classes[fill.class], &book.bids[fill.bid]);
            let ask = &class.asks[leg.ask];
            Allotment {
                class: class.id,
                start: fill.start,
                bid: bid.id_rank,
                ask: ask.id_rank,
                // At most MAX_HOURS.
                hours: bid.hours as u16,
                qty: leg.qty,
                bid_msat: fill.limit_msat,
                ask_msat: ask.limit_msat,
            }
        };
        let allotments = legs.map(allot).collect();
        Ok(Allocation { welfare_msat: self.welfare_msat, prices, allotments })
    }
}

/// Finds the best options of one bid after another, with the same memory.
struct Choice<'a> {
    book: &'a Book<'a>,
    promises: BinaryHeap<Standing>,
    /// By alternative of the present bid.
    accepted: Vec<Accepted<'a>>,
    level: Vec<usize>,
}

impl<'a> Choice<'a> {
    fn new(book: &'a Book<'a>) -> Self {
        Self { book, promises: BinaryHeap::new(), accepted: Vec::new(), level: Vec::new() }
    }

    /// The option of one bid that gains most: over all its alternatives, in the owner's order,
    /// and all starts, ascending, the first among the largest.
    ///
    /// The most promising runs are searched first, until none of the rest can win.
    fn best_fill(&mut self, markets: &[Market<'a>], index: usize) -> Option<Fill> {
        let bid = &self.book.bids[index];
        self.promises.clear();
        self.accepted.clear();
        for (alt, &(class, limit_msat)) in bid.alts.iter().enumerate() {
            let market = &markets[class];
            self.accepted.push(Accepted::new(bid, market.class));
            for start in bid.starts(market.class) {
                if let Some(search) = Search::new(bid, market, limit_msat, start) {
                    self.promises.push((search.bound(), Reverse((alt, start))));
                }
            }
        }
        let mut best: Option<(Standing, Fill)> = None;
        while let Some(promise) = self.promises.pop() {
            let to_beat = best.as_ref().map(|(standing, _)| *standing);
            if to_beat.is_some_and(|best| best >= promise) {
                break;
            }
            let (_, Reverse((alt, start))) = promise;
            let (class, limit_msat) = bid.alts[alt];
            let standing = |gain| (gain, Reverse((alt, start)));
            let Some(mut search) = Search::new(bid, &markets[class], limit_msat, start) else {
                continue;
            };
            let (accepted, level) = (&mut self.accepted[alt], &mut self.level);
            if let Some((gain, legs)) = search.option(accepted, level, standing, to_beat) {
                let end = start + bid.hours;
                let fill = Fill { bid: index, class, limit_msat, start, end, legs, gain };
                best = Some((standing(gain), fill));
            }
        }
        best.map(|(_, fill)| fill)
    }
}

impl<'a> Market<'a> {
    pub(super) fn new(class: &'a Class) -> Self {
        Self {
            class,
            closure: Closure::new(class.first_slot, class.end_slot),
            supply: Supply::new(class),
        }
    }

    /// Books the units and promises the run's price to both sides.
    pub(super) fn accept(&mut self, fill: &Fill) -> Result<(), MatchError> {
        let (start, end) = (fill.start, fill.end);
        for leg in &fill.legs {
            self.supply.take(leg.ask, start, end, leg.qty);
        }
        let asks = &self.class.asks;
        let dearest_msat = fill.legs.iter().map(|leg| asks[leg.ask].limit_msat).max().unwrap_or(0);
        let hours = u64::from(end - start);
        self.closure.at_most(start, end, fill.limit_msat * hours)?;
        self.closure.at_least(start, end, dearest_msat * hours)
    }
}
