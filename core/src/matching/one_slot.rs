//! A book whose orders are for one slot each and ask for nothing else: sweeps in place of a pass.
//!
//! Such a book falls apart into markets, one for each class and slot. Start 0 inserts the bids of
//! a market from the highest limit down, and each takes the cheapest units that are left, at or
//! below its limit. What was promised before never stands in the way: all asks that are left cost
//! at least as much as the dearest that was used, and no earlier bid has a lower limit. So the
//! pass is one sweep over bids and asks, both sorted. No allocation has more welfare, so the
//! first start is the best, and it is the result.
//!
//! The general pass does differently where a bid meets an ask of its own owner or needs more
//! asks than it may take; then, and where version 2 would go on searching, there is no sweep.

use super::closure::Closure;
use super::improve;
use super::instance::{MatchError, Mode, PMAX_MSAT};
use super::labels::Label;
use super::names::{break_ties, draw};
use super::outcome::{Algorithm, Allocation, Allotment};
use super::prices::{self, Pressure};
use super::radix;
use super::view::{Listing, View, ViewSide};

/// What the general search would find, or `None` if only it can tell.
///
/// # Errors
/// As [`super::solve`].
pub(super) fn clear(
    listing: &mut Listing<'_>,
    algorithm: Algorithm,
) -> Result<Option<Allocation>, MatchError> {
    let Some(plain) = listing.plain.take() else { return Ok(None) };
    let markets = markets(&plain, listing);
    let owners = &listing.owners;
    let max_legs = listing.terms.max_legs.map_or(usize::MAX, usize::from);
    let mut allocation = Allocation::default();
    let mut least_work = 0;
    for mut market in markets {
        market.sort(owners, &listing.terms.beacon);
        let mut allotments = Vec::with_capacity(market.bids.len().max(market.asks.len()));
        let Some(sweep) = Sweep::over(&market, owners, max_legs, &mut allotments) else {
            return Ok(None);
        };
        least_work += sweep.served as u64 * improve::start_work(market.asks.len());
        let Some(pressure) = sweep.pressure() else { return Ok(None) };
        if sweep.served > 0 {
            let price_msat = price_msat(market.slot, pressure)?;
            allocation.prices.insert((market.class, market.slot), price_msat);
        }
        allocation.welfare_msat += sweep.welfare_msat;
        ordered(&allotments, &mut allocation.allotments);
    }
    let is_final = algorithm == Algorithm::One || improve::is_too_large(least_work);
    Ok(is_final.then_some(allocation))
}

/// Adds the allotments of a market, which come bid by bid, in canonical order.
fn ordered(allotments: &[Allotment], all: &mut Vec<Allotment>) {
    let mut first = 0;
    let of_bid = |of_bid: &[Allotment]| {
        let group = (of_bid.first().map_or(0, |one| one.bid), first, of_bid.len());
        first += of_bid.len();
        group
    };
    let mut groups: Vec<(u32, usize, usize)> =
        allotments.chunk_by(|a, b| a.bid == b.bid).map(of_bid).collect();
    radix::sort_by_key(&mut groups, |group| group.0.into());
    all.reserve(allotments.len());
    for (_, first, count) in groups {
        let begin = all.len();
        all.extend_from_slice(&allotments[first..first + count]);
        all[begin..].sort_unstable_by_key(|one| one.ask);
    }
}

fn price_msat(slot: u32, mut pressure: Pressure) -> Result<u64, MatchError> {
    let mut closure = Closure::new(slot, slot + 1);
    closure.at_most(slot, slot + 1, pressure.lowest_limit_msat)?;
    closure.at_least(slot, slot + 1, pressure.dearest_ask_msat)?;
    let prices = prices::fix(&mut closure, &mut [(slot, &mut pressure)])?;
    prices.first().map(|&(_, price_msat)| price_msat).ok_or(MatchError::Infeasible)
}

/// The orders for one slot of one class.
struct Market {
    class: u16,
    slot: u32,
    bids: Vec<Offer>,
    asks: Vec<Offer>,
}

/// A bid or an ask.
#[derive(Clone, Copy)]
struct Offer {
    limit_msat: u64,
    qty: u32,
    /// Number of the order, by which its owner is found.
    number: u32,
    id_rank: u32,
}

/// An order for one slot without any condition.
pub(super) struct Plain {
    class: u16,
    is_bid: bool,
    slot: u32,
    qty: u32,
    limit_msat: u64,
}

impl Plain {
    /// `None` if the order, whose first deliverable slot is given, is of another kind.
    pub(super) fn new(order: &View<'_>, slot: u32) -> Option<Self> {
        let is_open = order.allow.len() + order.deny.len() == 0;
        if !is_open || order.window.1 - slot != 1 {
            return None;
        }
        let qty = order.units_left();
        match order.side {
            ViewSide::Buy { hours: 1, mode: Mode::Sticky, alts } => {
                let is_divisible = order.min_left() == 1 && order.features == 0;
                let mut alts = alts.iter();
                let (class, limit_msat) =
                    alts.next().filter(|_| is_divisible && alts.next().is_none())?;
                Some(Self { class, is_bid: true, slot, qty, limit_msat })
            }
            ViewSide::Sell { class, limit_msat, min_run: 1, .. } => {
                Some(Self { class, is_bid: false, slot, qty, limit_msat })
            }
            ViewSide::Buy { .. } | ViewSide::Sell { .. } => None,
        }
    }
}

/// The markets of plain orders, which come by number: ascending by class and slot.
fn markets(plain: &[Plain], listing: &Listing<'_>) -> Vec<Market> {
    let mut markets: Vec<Market> = Vec::new();
    let mut at = 0;
    for (&Plain { class, is_bid, slot, qty, limit_msat }, number) in plain.iter().zip(0..) {
        let place = |market: &Market| (market.class, market.slot);
        // Neighbours are often of one market.
        if markets.get(at).is_none_or(|market| place(market) != (class, slot)) {
            at = markets.binary_search_by_key(&(class, slot), place).unwrap_or_else(|at| {
                markets.insert(at, Market { class, slot, bids: Vec::new(), asks: Vec::new() });
                at
            });
        }
        let offers = if is_bid { &mut markets[at].bids } else { &mut markets[at].asks };
        let id_rank = listing.id_rank(number as usize);
        offers.push(Offer { limit_msat, qty, number, id_rank });
    }
    markets
}

impl Market {
    /// Bids into the order of start 0, asks into that of their ranks.
    fn sort(&mut self, owners: &[Label<'_>], beacon: &[u8; 32]) {
        for offers in [&mut self.bids, &mut self.asks] {
            if !offers.is_sorted_by_key(|offer| offer.id_rank) {
                radix::sort_by_key(offers, |offer| offer.id_rank.into());
            }
        }
        radix::sort_by_key(&mut self.bids, |bid| u64::MAX - bid.limit_msat);
        radix::sort_by_key(&mut self.asks, |ask| ask.limit_msat);
        for offers in [&mut self.bids, &mut self.asks] {
            let draw = |offer: &Offer| draw(beacon, owners[offer.number as usize]);
            break_ties(offers, |a, b| a.limit_msat == b.limit_msat, draw);
        }
    }
}

/// One walk over the bids and asks of a market.
struct Sweep<'a> {
    market: &'a Market,
    /// Owners by number of their orders.
    owners: &'a [Label<'a>],
    max_legs: usize,
    allotments: &'a mut Vec<Allotment>,
    welfare_msat: u128,
    /// How many bids got something; all but the last of them are full.
    served: usize,
    /// The first bid that is not full.
    unfilled: Option<&'a Offer>,
    /// The first ask with free units, and how many of its units are sold.
    next: usize,
    sold: u32,
}

impl<'a> Sweep<'a> {
    /// Gives each bid the cheapest units, until one is left without. `None` where the general
    /// pass might not.
    fn over(
        market: &'a Market,
        owners: &'a [Label<'a>],
        max_legs: usize,
        allotments: &'a mut Vec<Allotment>,
    ) -> Option<Self> {
        let mut sweep = Self {
            market,
            owners,
            max_legs,
            allotments,
            welfare_msat: 0,
            served: 0,
            unfilled: None,
            next: 0,
            sold: 0,
        };
        for bid in &market.bids {
            let got = sweep.fill(bid)?;
            sweep.served += usize::from(got > 0);
            if got < bid.qty {
                sweep.unfilled = Some(bid);
                break;
            }
        }
        Some(sweep)
    }

    fn is_own(&self, bid: &Offer, ask: &Offer) -> bool {
        self.owners[bid.number as usize] == self.owners[ask.number as usize]
    }

    /// Units that a bid gets.
    fn fill(&mut self, bid: &Offer) -> Option<u32> {
        let (mut missing, mut legs) = (bid.qty, 0);
        while missing > 0
            && let Some(ask) = self.market.asks.get(self.next)
            && ask.limit_msat <= bid.limit_msat
        {
            let qty = missing.min(ask.qty - self.sold);
            missing -= qty;
            legs += 1;
            if self.is_own(bid, ask) || (missing > 0 && legs >= self.max_legs) {
                return None;
            }
            self.sold += qty;
            if self.sold == ask.qty {
                (self.next, self.sold) = (self.next + 1, 0);
            }
            self.welfare_msat += u128::from(bid.limit_msat - ask.limit_msat) * u128::from(qty);
            self.allotments.push(Allotment {
                class: self.market.class,
                start: self.market.slot,
                bid: bid.id_rank,
                ask: ask.id_rank,
                hours: 1,
                qty,
                bid_msat: bid.limit_msat,
                ask_msat: ask.limit_msat,
            });
        }
        Some(bid.qty - missing)
    }

    /// What bears on the price. `None` if the next bid or the next ask could have met nobody
    /// but its own owner, so that another one might count.
    fn pressure(&self) -> Option<Pressure> {
        let market = self.market;
        let bids = &market.bids[..self.served];
        let asks = &market.asks[..self.next + usize::from(self.sold > 0)];
        let supply = market.asks.get(self.next);
        let meets_other =
            |one: &Offer, others: &[Offer]| others.iter().any(|other| !self.is_own(one, other));
        let is_told = self.served == 0
            || self.unfilled.is_none_or(|bid| meets_other(bid, asks))
                && supply.is_none_or(|ask| meets_other(ask, bids));
        is_told.then(|| Pressure {
            dearest_ask_msat: asks.last().map_or(0, |ask| ask.limit_msat),
            lowest_limit_msat: bids.last().map_or(PMAX_MSAT, |bid| bid.limit_msat),
            demand_msat: self.unfilled.map(|bid| bid.limit_msat),
            supply_msat: supply.map(|ask| ask.limit_msat),
        })
    }
}
