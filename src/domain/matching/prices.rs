//! One price per (class, slot) that every accepted run can live with.

use std::collections::BTreeMap;

use super::instance::{MatchError, PMAX_MSAT};
use super::pass::{Fill, Market};
use super::ranked::Book;

/// What bears on the price of one slot with a trade. Prices in msat.
struct Slot {
    /// Matched orders: indices into the book's bids, ranks within the class's asks.
    bids: Vec<usize>,
    asks: Vec<usize>,
    dearest_ask_msat: u64,
    lowest_limit_msat: u64,
    /// Highest limit of unfilled demand for this slot alone.
    demand_msat: Option<u64>,
    /// Lowest ask of unsold supply of this slot.
    supply_msat: Option<u64>,
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
        add_fill(&mut slots[fill.class], &markets[fill.class], fill);
    }
    for slot in slots.iter_mut().flat_map(BTreeMap::values_mut) {
        slot.asks.sort_unstable();
        slot.asks.dedup();
    }
    press_up(book, markets, fills, &mut slots);
    let mut prices = BTreeMap::new();
    for (market, slots) in markets.iter_mut().zip(&mut slots) {
        press_down(book, market, slots);
        fix(market, slots, &mut prices)?;
    }
    Ok(prices)
}

fn add_fill(slots: &mut BTreeMap<u32, Slot>, market: &Market<'_>, fill: &Fill) {
    for at in fill.start..fill.end {
        let slot = slots.entry(at).or_insert_with(|| Slot {
            bids: Vec::new(),
            asks: Vec::new(),
            dearest_ask_msat: 0,
            lowest_limit_msat: PMAX_MSAT,
            demand_msat: None,
            supply_msat: None,
        });
        slot.bids.push(fill.bid);
        slot.lowest_limit_msat = slot.lowest_limit_msat.min(fill.limit_msat);
        for leg in &fill.legs {
            slot.asks.push(leg.ask);
            let ask_msat = market.class.asks[leg.ask].limit_msat;
            slot.dearest_ask_msat = slot.dearest_ask_msat.max(ask_msat);
        }
    }
}

/// Unfilled demand for one slot presses its price up, if it could have bought from a seller
/// matched there. Longer runs and unreached minimum fills press nothing, so that an order
/// which can never fill cannot move a price.
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
        if bid.hours != 1 || done >= bid.qty || (done == 0 && bid.min_qty > 1) {
            continue;
        }
        for &(class, limit_msat) in &bid.alts {
            let window = match fill {
                Some(fill) if fill.class != class => continue,
                Some(fill) => fill.start..fill.end,
                None => bid.first_slot..bid.end_slot,
            };
            let asks = &markets[class].class.asks;
            for slot in slots[class].range_mut(window).map(|(_, slot)| slot) {
                if slot.demand_msat.is_none_or(|demand| limit_msat > demand)
                    && slot.asks.iter().any(|&ask| bid.accepts(&asks[ask]))
                {
                    slot.demand_msat = Some(limit_msat);
                }
            }
        }
    }
}

/// Unsold supply that may be bought slot by slot presses the price down, if a buyer matched
/// in the slot could have bought it.
fn press_down(book: &Book<'_>, market: &Market<'_>, slots: &mut BTreeMap<u32, Slot>) {
    for (rank, ask) in market.class.asks.iter().enumerate() {
        if ask.min_run > 1 {
            continue;
        }
        for (&at, slot) in slots.range_mut(ask.first_slot..ask.end_slot) {
            if slot.supply_msat.is_none_or(|lowest| ask.limit_msat < lowest)
                && market.supply.is_free(rank, at)
                && slot.bids.iter().any(|&bid| book.bids[bid].accepts(ask))
            {
                slot.supply_msat = Some(ask.limit_msat);
            }
        }
    }
}

/// Applies both pressures as far as the promises allow, then fixes each slot in turn at the
/// middle between its dearest ask and its lowest limit, or as near as the promises allow.
fn fix(
    market: &mut Market<'_>,
    slots: &mut BTreeMap<u32, Slot>,
    prices: &mut BTreeMap<(u16, u32), u64>,
) -> Result<(), MatchError> {
    let closure = &mut market.closure;
    for (&at, slot) in slots.iter_mut() {
        if let Some(demand_msat) = slot.demand_msat {
            let floor_msat = demand_msat.min(closure.max_msat(at, at + 1));
            closure.at_least(at, at + 1, floor_msat)?;
            slot.dearest_ask_msat = slot.dearest_ask_msat.max(floor_msat);
        }
        if let Some(supply_msat) = slot.supply_msat {
            let ceiling_msat = supply_msat.max(closure.min_msat(at, at + 1));
            closure.at_most(at, at + 1, ceiling_msat)?;
            slot.lowest_limit_msat = slot.lowest_limit_msat.min(ceiling_msat);
        }
    }
    for (&at, slot) in slots.iter() {
        let middle_msat = (slot.dearest_ask_msat + slot.lowest_limit_msat) / 2;
        let floor_msat = closure.min_msat(at, at + 1);
        let price_msat = middle_msat.max(floor_msat).min(closure.max_msat(at, at + 1));
        closure.at_most(at, at + 1, price_msat)?;
        closure.at_least(at, at + 1, price_msat)?;
        prices.insert((market.class.id, at), price_msat);
    }
    Ok(())
}
