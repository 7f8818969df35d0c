//! Orders in the money that got nothing: the definition of docs/matching.md.

use std::ops::Range;

use super::super::instance::{Instance, Order};
use super::super::outcome::Outcome;
use super::pair::{Ask, Bid, Sided, common_starts, first_failure};
use super::{Constraint, Counter, Paradox};

/// A run in which an order is in the money.
struct Run<'a> {
    class: u16,
    start: u32,
    slots: u32,
    limit_msat: u64,
    market_msat: u64,
    /// Labels of the counter-orders that offer it.
    offered_by: Vec<&'a str>,
}

/// The run that was offered to an order without trades and forgoes the largest gain, the
/// first among equals. `nearest` are all counter-orders, nearest to a trade first.
pub(super) fn find(
    order: &Order,
    instance: &Instance,
    live: &[&Order],
    outcome: &Outcome,
    nearest: &[Counter],
) -> Option<Paradox> {
    let best = match Sided::from(order) {
        Sided::Bid(bid) => offered_to_bid(&bid, instance, live, outcome),
        Sided::Ask(ask) => offered_to_ask(&ask, instance.now, live, outcome),
    };
    let Run { class, start, slots, limit_msat, market_msat, offered_by } = best?;
    let against = nearest.iter().find(|counter| offered_by.contains(&counter.id.as_str()))?;
    let finding = against.finding.as_ref()?;
    let (constraint, because) = (finding.constraint, finding.because.clone());
    Some(Paradox { class, start, slots, limit_msat, market_msat, constraint, because })
}

fn offered_to_bid<'a>(
    bid: &Bid<'_>,
    instance: &Instance,
    live: &[&'a Order],
    outcome: &Outcome,
) -> Option<Run<'a>> {
    let now = instance.now;
    let max_legs = instance.max_legs.map_or(usize::MAX, usize::from);
    let asks = live.iter().filter_map(|other| match Sided::from(*other) {
        Sided::Ask(ask) => accept_each_other(bid, &ask, now).then_some(ask),
        Sided::Bid(_) => None,
    });
    let asks: Vec<Ask<'a>> = asks.collect();
    let mut best: Option<(u64, Run<'a>)> = None;
    for &(class, limit_msat) in bid.alts {
        let limit_msat = limit_msat * u64::from(bid.hours);
        let last = bid.order.window.1.saturating_add(1).saturating_sub(bid.hours);
        for start in bid.order.first_slot(now)..last {
            let Some(market_msat) = run_msat(outcome, class, start, bid.hours) else { continue };
            let gain_msat = limit_msat.saturating_sub(market_msat);
            if gain_msat <= best.as_ref().map_or(0, |(gain, _)| *gain) {
                continue;
            }
            let of_class = asks.iter().filter(|ask| ask.class == class);
            let of_run = of_class.filter(|ask| common_starts(bid, ask, now).contains(&start));
            let Some(offered_by) = offers(bid, of_run, max_legs, market_msat) else { continue };
            let slots = bid.hours;
            let run = Run { class, start, slots, limit_msat, market_msat, offered_by };
            best = Some((gain_msat, run));
        }
    }
    best.map(|(_, run)| run)
}

/// The asks of a run that offer it at a price, if the `max_legs` largest of them bring the
/// bid's minimum fill.
fn offers<'b, 'a: 'b>(
    bid: &Bid<'_>,
    asks: impl Iterator<Item = &'b Ask<'a>>,
    max_legs: usize,
    market_msat: u64,
) -> Option<Vec<&'a str>> {
    let needed = u64::from(bid.order.min_left());
    let (mut units, mut offered_by) = (Vec::new(), Vec::new());
    for ask in asks {
        if ask.limit_msat * u64::from(bid.hours) > market_msat {
            continue;
        }
        let whole = u64::from(ask.order.units_left());
        if bid.is_gang && whole < needed {
            continue;
        }
        units.push(whole);
        offered_by.push(ask.order.id.as_str());
    }
    units.sort_unstable_by(|a, b| b.cmp(a));
    let units: u64 = units.iter().take(max_legs).sum();
    (units > 0 && units >= needed).then_some(offered_by)
}

fn offered_to_ask<'a>(
    ask: &Ask<'_>,
    now: u32,
    live: &[&'a Order],
    outcome: &Outcome,
) -> Option<Run<'a>> {
    let mut best: Option<(u64, Run<'a>)> = None;
    for other in live {
        let Sided::Bid(bid) = Sided::from(*other) else { continue };
        let is_enough = ask.order.units_left() >= bid.order.min_left();
        if !is_enough || !accept_each_other(&bid, ask, now) {
            continue;
        }
        let (class, slots, hours) = (ask.class, bid.hours, u64::from(bid.hours));
        let pays_msat = bid.limit_msat(class).unwrap_or(0) * hours;
        let limit_msat = ask.limit_msat * hours;
        let runs: Range<u32> = common_starts(&bid, ask, now);
        for start in runs {
            let Some(market_msat) = run_msat(outcome, class, start, slots) else { continue };
            let gain_msat = market_msat.saturating_sub(limit_msat);
            let is_better = gain_msat > best.as_ref().map_or(0, |(gain, _)| *gain);
            if is_better && market_msat <= pays_msat {
                let offered_by = vec![other.id.as_str()];
                let run = Run { class, start, slots, limit_msat, market_msat, offered_by };
                best = Some((gain_msat, run));
            }
        }
    }
    best.map(|(_, run)| run)
}

/// Whether nothing but prices and quantities can keep the two apart.
fn accept_each_other(bid: &Bid<'_>, ask: &Ask<'_>, now: u32) -> bool {
    first_failure(bid, ask, now).is_none_or(|(constraint, ..)| constraint == Constraint::Limit)
}

/// What a run costs at the published prices; `None` if a slot of it has none.
fn run_msat(outcome: &Outcome, class: u16, start: u32, slots: u32) -> Option<u64> {
    let prices = outcome.prices.range((class, start)..(class, start + slots));
    let (count, msat) =
        prices.fold((0, 0_u64), |(count, msat), (_, price)| (count + 1, msat + price));
    (count == slots).then_some(msat)
}
