//! What the trades of an epoch left: units, promised prices, and for each pair the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::instance::{Instance, Order};
use super::super::outcome::{Outcome, Trade};
use super::pair::{Ask, Bid, Sided, common_starts, first_failure};
use super::promises::Promises;
use super::{BLAMED_MAX, Constraint, Counter, Dropped, Finding, Value, covers};

/// The book after its outcome.
pub(super) struct State<'a> {
    now: u32,
    max_legs: usize,
    by_bid: BTreeMap<&'a str, Vec<&'a Trade>>,
    by_ask: BTreeMap<&'a str, Vec<&'a Trade>>,
    /// Units sold of an ask in each slot of its window. Only of asks that were asked for.
    sold: BTreeMap<&'a str, Vec<u32>>,
    /// Accepted runs of all classes: the trades of one bid.
    runs: Vec<Vec<&'a Trade>>,
    promises: BTreeMap<u16, Promises>,
}

/// What all asks that agree with a bid bring to one of its starts, in units.
#[derive(Clone, Copy, Default)]
struct Together {
    asks: usize,
    whole: u64,
    /// Of asks whose price the promises allow.
    in_bounds: u64,
    /// Of those, what the trades left.
    left: u64,
}

/// A failure with the trades to blame: values of the bid and of the ask.
type Verdict<'a> = (Constraint, Value, Value, Vec<&'a Trade>);

impl<'a> State<'a> {
    pub(super) fn new(instance: &Instance, live: &[&'a Order], outcome: &'a Outcome) -> Self {
        let now = instance.now;
        let max_legs = instance.max_legs.map_or(usize::MAX, usize::from);
        let orders: BTreeMap<&str, &Order> = live.iter().map(|o| (o.id.as_str(), *o)).collect();
        let (mut by_bid, mut by_ask) = (BTreeMap::new(), BTreeMap::new());
        for trade in &outcome.trades {
            by_bid.entry(trade.buy.as_str()).or_insert_with(Vec::new).push(trade);
            by_ask.entry(trade.sell.as_str()).or_insert_with(Vec::new).push(trade);
        }
        let first = live.iter().map(|order| order.first_slot(now)).min().unwrap_or(0);
        let end = live.iter().map(|order| order.window.1).max().unwrap_or(first);
        let runs: Vec<Vec<&Trade>> = by_bid.values().cloned().collect();
        let mut promises = BTreeMap::new();
        for (at, run) in runs.iter().enumerate() {
            let Some(Promise { class, slots, msat }) = promise(run, &orders) else { continue };
            let class = promises.entry(class).or_insert_with(|| Promises::new(first, end));
            class.promise(slots, msat, at);
        }
        Self { now, max_legs, by_bid, by_ask, sold: BTreeMap::new(), runs, promises }
    }

    /// Trades of one order.
    pub(super) fn trades_of(&self, order: &Order) -> Vec<&'a Trade> {
        let of = |by: &BTreeMap<&str, Vec<&'a Trade>>| by.get(order.id.as_str()).cloned();
        of(&self.by_bid).or_else(|| of(&self.by_ask)).unwrap_or_default()
    }

    fn got(&self, bid: &Bid<'_>) -> u32 {
        self.by_bid
            .get(bid.order.id.as_str())
            .map_or(0, |trades| trades.iter().map(|trade| trade.qty).sum())
    }

    /// Fewest further units that make a match: any, once a bid has its minimum.
    fn needed(&self, bid: &Bid<'_>) -> u64 {
        if self.got(bid) > 0 { 1 } else { bid.order.min_left().into() }
    }

    /// Starts open to a pair: all that both windows hold, or the one that the bid has.
    fn starts(&self, bid: &Bid<'_>, ask: &Ask<'_>) -> Range<u32> {
        let all = common_starts(bid, ask, self.now);
        match self.by_bid.get(bid.order.id.as_str()).and_then(|trades| trades.first()) {
            Some(trade) if trade.class == ask.class && all.contains(&trade.start) => {
                trade.start..trade.start + 1
            }
            Some(_) => all.start..all.start,
            None => all,
        }
    }

    /// Units of an ask that are free in every slot of a run within its window.
    fn left(&mut self, ask: &Ask<'a>, start: u32, hours: u32) -> u64 {
        let trades = self.by_ask.get(ask.order.id.as_str());
        let Some(trades) = trades else { return ask.order.units_left().into() };
        let (first, end) = (ask.order.first_slot(self.now), ask.order.window.1);
        let sold = self.sold.entry(ask.order.id.as_str()).or_insert_with(|| {
            let mut sold = vec![0; end.saturating_sub(first) as usize];
            for trade in trades {
                let run = sold.get_mut(slots(first, trade.start, trade.hours.into()));
                run.into_iter().flatten().for_each(|units| *units += trade.qty);
            }
            sold
        });
        let run = sold.get(slots(first, start, hours));
        let most = run.and_then(|run| run.iter().max()).copied().unwrap_or(0);
        ask.order.units_left().saturating_sub(most).into()
    }

    fn least_msat(&mut self, class: u16, start: u32, end: u32) -> u64 {
        self.promises.get_mut(&class).map_or(0, |promises| promises.least_msat(start, end))
    }

    fn most_msat(&mut self, class: u16, start: u32, end: u32) -> u64 {
        self.promises.get_mut(&class).map_or(u64::MAX, |promises| promises.most_msat(start, end))
    }

    /// Whether the promises allow a price for this run between both limits.
    fn in_bounds(&mut self, bid: &Bid<'_>, ask: &Ask<'_>, start: u32) -> bool {
        let (end, hours) = (start + bid.hours, u64::from(bid.hours));
        let limit_msat = bid.limit_msat(ask.class).unwrap_or(0) * hours;
        self.least_msat(ask.class, start, end) <= limit_msat
            && ask.limit_msat * hours <= self.most_msat(ask.class, start, end)
    }

    /// What the asks that agree with a bid bring together, by class and start.
    fn together(&mut self, bid: &Bid<'_>, asks: &[Ask<'a>]) -> BTreeMap<(u16, u32), Together> {
        let mut all: BTreeMap<(u16, u32), Together> = BTreeMap::new();
        for ask in asks {
            for start in self.starts(bid, ask) {
                let in_bounds = self.in_bounds(bid, ask, start);
                let left = self.left(ask, start, bid.hours);
                let sum = all.entry((ask.class, start)).or_default();
                let whole = u64::from(ask.order.units_left());
                sum.asks += 1;
                sum.whole += whole;
                if in_bounds {
                    sum.in_bounds += whole;
                    sum.left += left;
                }
            }
        }
        all
    }

    /// The first constraint from [`Constraint::Filled`] on that a pair fails. Without
    /// `together`, and for a gang, the ask has to bring the minimum fill alone.
    fn verdict(
        &mut self,
        bid: &Bid<'_>,
        ask: &Ask<'a>,
        together: Option<&BTreeMap<(u16, u32), Together>>,
    ) -> Verdict<'a> {
        let got = self.got(bid);
        let starts = self.starts(bid, ask);
        let whole = u64::from(ask.order.units_left());
        if got >= bid.order.units_left() || (got > 0 && bid.is_gang) {
            let blamed = self.by_bid.get(bid.order.id.as_str()).cloned().unwrap_or_default();
            return (Constraint::Filled, Value::Qty(0), Value::Qty(whole), blamed);
        }
        if starts.is_empty() {
            return self.elsewhere(bid, ask);
        }
        let (needed, mut reached) = (self.needed(bid), Constraint::MinFill);
        let (mut most_whole, mut most_left) = (0, 0);
        for start in starts.clone() {
            let alone = self.alone(bid, ask, start, whole);
            let shared = together.filter(|_| !bid.is_gang);
            let sum = match shared {
                Some(all) => all.get(&(ask.class, start)).copied().unwrap_or_default(),
                None => alone,
            };
            most_whole = most_whole.max(sum.whole);
            if sum.whole < needed {
                continue;
            }
            reached = reached.max(Constraint::Promised);
            if alone.in_bounds == 0 || sum.in_bounds < needed {
                continue;
            }
            reached = reached.max(Constraint::Taken);
            most_left = most_left.max(if alone.left == 0 { 0 } else { sum.left });
            if alone.left > 0 && sum.left >= needed {
                return self.refused(bid, needed, sum);
            }
        }
        match reached {
            Constraint::Promised => self.promised(bid, ask, starts),
            Constraint::Taken => {
                let trades = self.by_ask.get(ask.order.id.as_str()).cloned().unwrap_or_default();
                let run = starts.start..starts.end + bid.hours - 1;
                let inside = |trade: &&Trade| run.clone().any(|slot| covers(trade, slot));
                let blamed = trades.into_iter().filter(inside).collect();
                (Constraint::Taken, Value::Qty(needed), Value::Qty(most_left), blamed)
            }
            Constraint::Live
            | Constraint::Class
            | Constraint::Window
            | Constraint::SelfTrade
            | Constraint::Features
            | Constraint::MinRun
            | Constraint::Allow
            | Constraint::Deny
            | Constraint::Limit
            | Constraint::Filled
            | Constraint::Gang
            | Constraint::MinFill
            | Constraint::Legs
            | Constraint::Chosen => {
                let failed = if bid.is_gang { Constraint::Gang } else { Constraint::MinFill };
                (failed, Value::Qty(needed), Value::Qty(most_whole), Vec::new())
            }
        }
    }

    /// A bid for which there are units, and which still does not have them. If all the asks that
    /// agree with it are no more than it may take, it could have had all of them.
    fn refused(&self, bid: &Bid<'_>, needed: u64, sum: Together) -> Verdict<'a> {
        let legs = self.by_bid.get(bid.order.id.as_str()).cloned().unwrap_or_default();
        let most = if legs.is_empty() { sum.asks } else { legs.len() + 1 };
        if most <= self.max_legs {
            return (Constraint::Chosen, Value::Qty(needed), Value::Qty(sum.left), Vec::new());
        }
        let may_take = Value::Asks(self.max_legs as u64);
        (Constraint::Legs, may_take, Value::Qty(sum.left), legs)
    }

    /// A bid that was partly served in a run which the ask does not reach.
    fn elsewhere(&self, bid: &Bid<'_>, ask: &Ask<'a>) -> Verdict<'a> {
        let blamed = self.by_bid.get(bid.order.id.as_str()).cloned().unwrap_or_default();
        let start = blamed.first().map_or(0, |trade| trade.start);
        let run = Value::Window { start, end: start + bid.hours, slots: bid.hours };
        (Constraint::Filled, run, ask.window(self.now), blamed)
    }

    fn alone(&mut self, bid: &Bid<'_>, ask: &Ask<'a>, start: u32, whole: u64) -> Together {
        let left = self.left(ask, start, bid.hours);
        match self.in_bounds(bid, ask, start) {
            true => Together { asks: 1, whole, in_bounds: whole, left },
            false => Together { asks: 1, whole, in_bounds: 0, left: 0 },
        }
    }

    /// The start at which the promises are missed by least, and whose they are.
    fn promised(&mut self, bid: &Bid<'_>, ask: &Ask<'a>, starts: Range<u32>) -> Verdict<'a> {
        let (hours, class) = (u64::from(bid.hours), ask.class);
        let limit_msat = bid.limit_msat(class).unwrap_or(0) * hours;
        let ask_msat = ask.limit_msat * hours;
        let mut nearest = (u64::MAX, (0, 0), (0, 0), false);
        for start in starts {
            let run = (start, start + bid.hours);
            let (least_msat, most_msat) =
                (self.least_msat(class, run.0, run.1), self.most_msat(class, run.0, run.1));
            let missed = if limit_msat < least_msat {
                (least_msat - limit_msat, run, (limit_msat, least_msat), true)
            } else {
                (ask_msat.saturating_sub(most_msat), run, (most_msat, ask_msat), false)
            };
            if missed.0 < nearest.0 {
                nearest = missed;
            }
        }
        let (_, (start, end), (bid_msat, ask_msat), to_seller) = nearest;
        let runs = self.promises.get_mut(&class).map(|promises| match to_seller {
            true => promises.bind_least(start, end),
            false => promises.bind_most(start, end),
        });
        let runs = runs.unwrap_or_default().into_iter();
        let blamed = runs.filter_map(|run| self.runs.get(run)).flatten().copied().collect();
        (Constraint::Promised, Value::RunMsat(bid_msat), Value::RunMsat(ask_msat), blamed)
    }
}

/// The slots of a run as positions from `first` on.
fn slots(first: u32, start: u32, hours: u32) -> Range<usize> {
    let start = start.saturating_sub(first) as usize;
    start..start + hours as usize
}

/// What the parties of an accepted run were promised.
struct Promise {
    class: u16,
    slots: (u32, u32),
    /// Least and most that one unit costs: the dearest ask counts, and the bid's limit.
    msat: (u64, u64),
}

fn promise(run: &[&Trade], orders: &BTreeMap<&str, &Order>) -> Option<Promise> {
    let trade = run.first()?;
    let limit_of = |id: &str| match orders.get(id).map(|order| Sided::from(*order))? {
        Sided::Bid(bid) => bid.limit_msat(trade.class),
        Sided::Ask(ask) => Some(ask.limit_msat),
    };
    let hours = u64::from(trade.hours);
    let dearest_msat = run.iter().filter_map(|trade| limit_of(&trade.sell)).max()?;
    let slots = (trade.start, trade.start + u32::from(trade.hours));
    let msat = (dearest_msat * hours, limit_of(&trade.buy)? * hours);
    Some(Promise { class: trade.class, slots, msat })
}

/// Every order of the other side, with what kept it from trading with `order`.
pub(super) fn counters<'a>(
    instance: &'a Instance,
    live: &[&'a Order],
    order: &'a Order,
    state: &mut State<'a>,
) -> Vec<Counter> {
    let live_ids: BTreeSet<&str> = live.iter().map(|order| order.id.as_str()).collect();
    let explained = Sided::from(order);
    let is_other = |other: &&Order| {
        matches!(
            (&explained, Sided::from(*other)),
            (Sided::Bid(_), Sided::Ask(_)) | (Sided::Ask(_), Sided::Bid(_))
        )
    };
    let mut found: Vec<Counter> = instance
        .orders
        .iter()
        .filter(|other| !live_ids.contains(other.id.as_str()))
        .filter(is_other)
        .map(|other| absent(other, instance))
        .collect();
    let others: Vec<&Order> = live.iter().copied().filter(is_other).collect();
    match explained {
        Sided::Bid(bid) => found.extend(asks_for(&bid, &others, state)),
        Sided::Ask(ask) => found.extend(bids_for(&ask, &others, state)),
    }
    found
}

fn absent(order: &Order, instance: &Instance) -> Counter {
    let theirs = Value::Dropped(Dropped::of(order, instance));
    let finding =
        Finding { constraint: Constraint::Live, own: Value::Live, theirs, because: Vec::new() };
    Counter { id: order.id.clone(), traded: 0, finding: Some(finding) }
}

fn traded(trades: &[&Trade], id: &str) -> u32 {
    trades.iter().filter(|trade| trade.buy == id || trade.sell == id).map(|trade| trade.qty).sum()
}

fn finding((constraint, own, theirs, blamed): Verdict<'_>) -> Option<Finding> {
    let because = blamed.into_iter().take(BLAMED_MAX).cloned().collect();
    Some(Finding { constraint, own, theirs, because })
}

fn asks_for<'a>(bid: &Bid<'_>, others: &[&'a Order], state: &mut State<'a>) -> Vec<Counter> {
    let asks = others.iter().filter_map(|other| match Sided::from(*other) {
        Sided::Ask(ask) => Some(ask),
        Sided::Bid(_) => None,
    });
    let judged: Vec<(Ask<'a>, Option<Verdict<'a>>)> = asks
        .map(|ask| {
            let failed = first_failure(bid, &ask, state.now);
            (ask, failed.map(|(constraint, own, theirs)| (constraint, own, theirs, Vec::new())))
        })
        .collect();
    let agreeing: Vec<Ask<'a>> =
        judged.iter().filter(|(_, failed)| failed.is_none()).map(|(ask, _)| *ask).collect();
    let together = state.together(bid, &agreeing);
    let mine = state.trades_of(bid.order);
    let mut found = Vec::with_capacity(judged.len());
    for (ask, failed) in judged {
        let (id, units) = (ask.order.id.clone(), traded(&mine, &ask.order.id));
        let finding = match (units, failed) {
            (0, Some(failed)) => finding(failed),
            (0, None) => finding(state.verdict(bid, &ask, Some(&together))),
            _ => None,
        };
        found.push(Counter { id, traded: units, finding });
    }
    found
}

fn bids_for<'a>(ask: &Ask<'a>, others: &[&'a Order], state: &mut State<'a>) -> Vec<Counter> {
    let mine = state.trades_of(ask.order);
    let mut found = Vec::with_capacity(others.len());
    for other in others {
        let Sided::Bid(bid) = Sided::from(*other) else { continue };
        let (id, units) = (other.id.clone(), traded(&mine, &other.id));
        let verdict = match (units, first_failure(&bid, ask, state.now)) {
            (0, Some((constraint, bids, asks))) => Some((constraint, asks, bids, Vec::new())),
            (0, None) => {
                let (constraint, bids, asks, blamed) = state.verdict(&bid, ask, None);
                Some((constraint, asks, bids, blamed))
            }
            _ => None,
        };
        found.push(Counter { id, traded: units, finding: verdict.and_then(finding) });
    }
    found
}
