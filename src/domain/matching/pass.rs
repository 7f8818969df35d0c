//! One greedy pass: bids are inserted one by one, each where it gains most.

use std::collections::BTreeMap;
use std::iter::Peekable;

use super::closure::Closure;
use super::instance::{MatchError, Mode};
use super::prices;
use super::ranked::{Bid, Book, Class};
use super::supply::Supply;

/// What is left of one class during a pass.
pub(super) struct Market<'a> {
    pub(super) class: &'a Class<'a>,
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

/// The result of one pass.
pub(super) struct Allocation {
    pub(super) welfare_msat: u128,
    pub(super) fills: Vec<Fill>,
    pub(super) prices: BTreeMap<(u16, u32), u64>,
}

/// A run that one bid could take at one alternative's limit.
struct Search<'a> {
    bid: &'a Bid<'a>,
    market: &'a Market<'a>,
    limit_msat: u64,
    /// The most the whole run may cost per unit.
    cap_msat: u64,
    start: u32,
    end: u32,
    /// An option is of use only if it gains more than this.
    best: Option<Gain>,
}

/// Runs start number `start` over the book.
///
/// # Errors
/// `match.infeasible`, if a promise contradicts an earlier one: the closure excludes it.
pub(super) fn run(book: &Book<'_>, start: u8) -> Result<Allocation, MatchError> {
    let mut markets: Vec<Market<'_>> = book.classes.iter().map(Market::new).collect();
    let mut fills = Vec::new();
    for bid in book.sequence(start) {
        if let Some(fill) = best_fill(book, &markets, bid) {
            markets[fill.class].accept(&fill)?;
            fills.push(fill);
        }
    }
    let prices = prices::settle(book, &mut markets, &fills)?;
    let welfare_msat = fills.iter().map(|fill| u128::from(fill.gain.surplus_msat)).sum();
    Ok(Allocation { welfare_msat, fills, prices })
}

fn best_fill(book: &Book<'_>, markets: &[Market<'_>], index: usize) -> Option<Fill> {
    let bid = &book.bids[index];
    let mut best: Option<Fill> = None;
    for &(class, limit_msat) in &bid.alts {
        let market = &markets[class];
        let first = bid.first_slot.max(market.class.first_slot);
        let Some(last) = bid.end_slot.min(market.class.end_slot).checked_sub(bid.hours) else {
            continue;
        };
        for start in first..=last {
            let so_far = best.as_ref().map(|fill| fill.gain);
            let Some(search) = market.search(bid, limit_msat, start, so_far) else {
                continue;
            };
            if let Some((gain, legs)) = search.option()
                && so_far.is_none_or(|best| gain > best)
            {
                let end = start + bid.hours;
                best = Some(Fill { bid: index, class, limit_msat, start, end, legs, gain });
            }
        }
    }
    best
}

impl<'a> Market<'a> {
    fn new(class: &'a Class<'a>) -> Self {
        Self {
            class,
            closure: Closure::new(class.first_slot, class.end_slot),
            supply: Supply::new(class),
        }
    }

    /// `None` if too few units are left, or the limit is below a total already promised to
    /// a seller.
    fn search<'s>(
        &'s self,
        bid: &'s Bid<'s>,
        limit_msat: u64,
        start: u32,
        best: Option<Gain>,
    ) -> Option<Search<'s>> {
        let end = start + bid.hours;
        let most_msat = limit_msat * u64::from(bid.hours);
        if most_msat < self.closure.min_msat(start, end)
            || self.supply.most_units(start, end) < u64::from(bid.min_qty)
        {
            return None;
        }
        let cap_msat = most_msat.min(self.closure.max_msat(start, end));
        Some(Search { bid, market: self, limit_msat, cap_msat, start, end, best })
    }

    /// Books the units and promises the run's price to both sides.
    fn accept(&mut self, fill: &Fill) -> Result<(), MatchError> {
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

impl Search<'_> {
    fn option(&self) -> Option<(Gain, Vec<Leg>)> {
        match self.bid.mode {
            Mode::Sticky => self.sticky(),
            Mode::Gang => self.gang(),
        }
    }

    /// Takes units from the cheapest asks until the bid is full.
    fn sticky(&self) -> Option<(Gain, Vec<Leg>)> {
        let mut gain = Gain::default();
        let mut legs = Vec::new();
        let mut asks = self.candidates().peekable();
        while gain.qty < self.bid.qty {
            let missing = self.bid.qty - gain.qty;
            let Some(ask_msat) = asks.peek().map(|&rank| self.ask_msat(rank)) else {
                break;
            };
            if !self.can_win(gain.surplus_msat + self.surplus_msat(ask_msat, missing)) {
                return None;
            }
            for ask in self.level(ask_msat, &mut asks) {
                let qty = self.units(ask).min(self.bid.qty - gain.qty);
                if qty == 0 {
                    break;
                }
                gain.qty += qty;
                gain.surplus_msat += self.surplus_msat(ask_msat, qty);
                legs.push(Leg { ask, qty });
            }
        }
        (gain.qty > 0 && gain.qty >= self.bid.min_qty).then_some((gain, legs))
    }

    /// Takes all units from the one ask with the largest surplus.
    fn gang(&self) -> Option<(Gain, Vec<Leg>)> {
        let mut best: Option<(u64, Leg)> = None;
        let mut asks = self.candidates().peekable();
        while let Some(ask_msat) = asks.peek().map(|&rank| self.ask_msat(rank)) {
            let bound_msat = self.surplus_msat(ask_msat, self.bid.qty);
            let useless = best.as_ref().is_some_and(|(surplus, _)| bound_msat <= *surplus);
            if useless || !self.can_win(bound_msat) {
                break;
            }
            for ask in self.level(ask_msat, &mut asks) {
                let qty = self.units(ask).min(self.bid.qty);
                let surplus_msat = self.surplus_msat(ask_msat, qty);
                if qty >= self.bid.min_qty
                    && best.as_ref().is_none_or(|(surplus, _)| surplus_msat > *surplus)
                {
                    best = Some((surplus_msat, Leg { ask, qty }));
                }
            }
        }
        let (surplus_msat, leg) = best?;
        Some((Gain { surplus_msat, qty: leg.qty }, vec![leg]))
    }

    /// Ranks of the asks that can serve the run at a price it may have, cheapest first.
    fn candidates(&self) -> impl Iterator<Item = usize> {
        let hours = u64::from(self.bid.hours);
        self.market
            .supply
            .free_for(self.start, self.end)
            .take_while(move |&rank| self.ask_msat(rank) * hours <= self.cap_msat)
            .filter(|&rank| self.bid.accepts(&self.market.class.asks[rank]))
    }

    /// The next of `asks` that cost exactly `ask_msat`, best fit first.
    fn level(
        &self,
        ask_msat: u64,
        asks: &mut Peekable<impl Iterator<Item = usize>>,
    ) -> impl Iterator<Item = usize> {
        let mut fits: Vec<(u32, usize)> = Vec::new();
        while let Some(rank) = asks.next_if(|&rank| self.ask_msat(rank) == ask_msat) {
            fits.push((self.market.supply.slack(rank, self.start, self.end), rank));
        }
        fits.sort_unstable();
        fits.into_iter().map(|(_, rank)| rank)
    }

    fn ask_msat(&self, rank: usize) -> u64 {
        self.market.class.asks[rank].limit_msat
    }

    fn units(&self, rank: usize) -> u32 {
        self.market.supply.units(rank, self.start, self.end)
    }

    fn surplus_msat(&self, ask_msat: u64, qty: u32) -> u64 {
        (self.limit_msat - ask_msat) * u64::from(qty) * u64::from(self.bid.hours)
    }

    /// Whether an option of at most this surplus could still replace the best one. Asks
    /// ascend, so the bound at the next ask holds for all that follow.
    fn can_win(&self, bound_msat: u64) -> bool {
        let bound = Gain { surplus_msat: bound_msat, qty: self.bid.qty };
        self.best.is_none_or(|best| bound > best)
    }
}
