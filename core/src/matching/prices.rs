//! One price per (class, slot) that every accepted run can live with.

use std::collections::BTreeMap;

use super::accept::Accepted;
use super::closure::Closure;
use super::instance::{MatchError, PMAX_MSAT};
use super::pass::{Fill, Market};
use super::ranked::{Bid, Book, Class};
use super::supply::WORD;

/// A slot with a trade.
struct Slot {
    /// Matched asks, one bit each by rank.
    asks: Vec<u64>,
    /// Asks that a matched bid accepts, unless one accepts them all.
    welcome: Vec<u64>,
    is_any_welcome: bool,
    pressure: Pressure,
}

/// What bears on the price of one slot with a trade. Prices in msat.
pub(super) struct Pressure {
    pub(super) dearest_ask_msat: u64,
    pub(super) lowest_limit_msat: u64,
    /// Highest limit of unfilled demand for this slot alone.
    pub(super) demand_msat: Option<u64>,
    /// Lowest ask of unsold supply of this slot.
    pub(super) supply_msat: Option<u64>,
}

/// Fixes the price of every slot in which something trades.
///
/// # Errors
/// `match.infeasible`, if a price contradicts a promise: the closure excludes it.
pub(super) fn settle(
    book: &Book<'_>,
    markets: &mut [Market<'_>],
    fills: &[Fill],
) -> Result<BTreeMap<(u16, u32), u64>, MatchError> {
    let mut slots: Vec<BTreeMap<u32, Slot>> = markets.iter().map(|_| BTreeMap::new()).collect();
    for fill in fills {
        add_fill(&mut slots[fill.class], &book.bids[fill.bid], markets[fill.class].class, fill);
    }
    press_up(book, markets, fills, &mut slots);
    let mut prices = BTreeMap::new();
    for (market, slots) in markets.iter_mut().zip(&mut slots) {
        press_down(market, slots);
        let slots = slots.iter_mut().map(|(&at, slot)| (at, &mut slot.pressure));
        let fixed = fix(&mut market.closure, &mut slots.collect::<Vec<_>>())?;
        let class = market.class.id;
        prices.extend(fixed.into_iter().map(|(at, price_msat)| ((class, at), price_msat)));
    }
    Ok(prices)
}

fn add_fill(slots: &mut BTreeMap<u32, Slot>, bid: &Bid, class: &Class, fill: &Fill) {
    let words = class.words.len();
    let mut accepted = Accepted::new(bid, class);
    for at in fill.start..fill.end {
        let slot = slots.entry(at).or_insert_with(|| Slot {
            asks: vec![0; words],
            welcome: vec![0; words],
            is_any_welcome: false,
            pressure: Pressure {
                dearest_ask_msat: 0,
                lowest_limit_msat: PMAX_MSAT,
                demand_msat: None,
                supply_msat: None,
            },
        });
        slot.is_any_welcome |= accepted.is_all;
        if !slot.is_any_welcome {
            accepted.each(|word, bits| slot.welcome[word] |= bits);
        }
        slot.pressure.lowest_limit_msat = slot.pressure.lowest_limit_msat.min(fill.limit_msat);
        for leg in &fill.legs {
            slot.asks[leg.ask / WORD] |= 1 << (leg.ask % WORD);
            let ask_msat = class.limits_msat[leg.ask];
            slot.pressure.dearest_ask_msat = slot.pressure.dearest_ask_msat.max(ask_msat);
        }
    }
}

/// Unfilled demand for one slot presses its price up, if it could have bought from a seller
/// matched there. Longer runs, unreached minimum fills and bids that have all the asks they may
/// take press nothing, so that an order which cannot take any more cannot move a price.
fn press_up(
    book: &Book<'_>,
    markets: &[Market<'_>],
    fills: &[Fill],
    slots: &mut [BTreeMap<u32, Slot>],
) {
    let mut fill_of: Vec<Option<&Fill>> = vec![None; book.bids.len()];
    for fill in fills {
        fill_of[fill.bid] = Some(fill);
    }
    for (bid, fill) in book.bids.iter().zip(fill_of) {
        let done = fill.map_or(0, |fill| fill.gain.qty);
        let is_served = done >= bid.qty || fill.is_some_and(|fill| fill.legs.len() >= bid.max_legs);
        if bid.hours != 1 || is_served || (done == 0 && bid.min_qty > 1) {
            continue;
        }
        for &(class, limit_msat) in &bid.alts {
            let window = match fill {
                Some(fill) if fill.class != class => continue,
                Some(fill) => fill.start..fill.end,
                None => bid.first_slot..bid.end_slot,
            };
            let mut accepted = Accepted::new(bid, markets[class].class);
            for slot in slots[class].range_mut(window).map(|(_, slot)| slot) {
                if slot.pressure.demand_msat.is_none_or(|demand| limit_msat > demand)
                    && accepted.meets(&slot.asks)
                {
                    slot.pressure.demand_msat = Some(limit_msat);
                }
            }
        }
    }
}

/// Unsold supply that may be bought slot by slot presses the price down, if a buyer matched
/// in the slot could have bought it.
fn press_down(market: &Market<'_>, slots: &mut BTreeMap<u32, Slot>) {
    for (rank, ask) in market.class.asks.iter().enumerate() {
        if ask.min_run > 1 {
            continue;
        }
        for (&at, slot) in slots.range_mut(ask.first_slot..ask.end_slot) {
            if slot.pressure.supply_msat.is_none_or(|lowest| ask.limit_msat < lowest)
                && market.supply.is_free(rank, at)
                && (slot.is_any_welcome || slot.welcome[rank / WORD] >> (rank % WORD) & 1 == 1)
            {
                slot.pressure.supply_msat = Some(ask.limit_msat);
            }
        }
    }
}

/// Applies both pressures as far as the promises allow, then fixes each slot in turn at the
/// middle between its dearest ask and its lowest limit, or as near as the promises allow.
/// Slots ascend, before and after.
///
/// # Errors
/// As [`settle`].
pub(super) fn fix(
    closure: &mut Closure,
    slots: &mut [(u32, &mut Pressure)],
) -> Result<Vec<(u32, u64)>, MatchError> {
    for (at, slot) in &mut *slots {
        let (at, end) = (*at, *at + 1);
        if let Some(demand_msat) = slot.demand_msat {
            let floor_msat = demand_msat.min(closure.max_msat(at, end));
            closure.at_least(at, end, floor_msat)?;
            slot.dearest_ask_msat = slot.dearest_ask_msat.max(floor_msat);
        }
        if let Some(supply_msat) = slot.supply_msat {
            let ceiling_msat = supply_msat.max(closure.min_msat(at, end));
            closure.at_most(at, end, ceiling_msat)?;
            slot.lowest_limit_msat = slot.lowest_limit_msat.min(ceiling_msat);
        }
    }
    let mut prices = Vec::with_capacity(slots.len());
    for (at, slot) in slots {
        let (at, end) = (*at, *at + 1);
        let middle_msat = (slot.dearest_ask_msat + slot.lowest_limit_msat) / 2;
        let floor_msat = closure.min_msat(at, end);
        let price_msat = middle_msat.max(floor_msat).min(closure.max_msat(at, end));
        closure.at_most(at, end, price_msat)?;
        closure.at_least(at, end, price_msat)?;
        prices.push((at, price_msat));
    }
    Ok(prices)
}
