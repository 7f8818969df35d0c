//! What every result promises, read off labels and limits alone.

use std::collections::{BTreeMap, BTreeSet};

use capex_core::matching::{Algorithm, Instance, Mode, Order, Outcome, Side, Trade, solve, verify};
use proptest::prelude::*;

use super::books::{Dice, contested, random};

fn order<'a>(book: &'a Instance, id: &str) -> &'a Order {
    book.orders.iter().find(|order| order.id == id).unwrap()
}

fn limit_of_bid(book: &Instance, trade: &Trade) -> u64 {
    match &order(book, &trade.buy).side {
        Side::Buy { alts, .. } => alts.iter().find(|alt| alt.0 == trade.class).unwrap().1,
        Side::Sell { .. } => panic!("{} is no bid", trade.buy),
    }
}

fn limit_of_ask(book: &Instance, trade: &Trade) -> u64 {
    match &order(book, &trade.sell).side {
        Side::Sell { class, limit_msat, .. } if *class == trade.class => *limit_msat,
        _ => panic!("{} is no ask of class {}", trade.sell, trade.class),
    }
}

fn slots(trade: &Trade) -> impl Iterator<Item = (u16, u32)> {
    (trade.start..trade.start + u32::from(trade.hours)).map(|slot| (trade.class, slot))
}

fn limits_and_money_hold(book: &Instance, outcome: &Outcome) {
    let mut welfare = 0;
    for trade in &outcome.trades {
        let run: u64 = slots(trade).map(|at| outcome.prices[&at]).sum();
        let (limit, ask) = (limit_of_bid(book, trade), limit_of_ask(book, trade));
        let hours = u64::from(trade.hours);
        assert!(ask * hours <= run && run <= limit * hours, "{trade:?} at {run}");
        assert_eq!(trade.msat, u64::from(trade.qty) * run);
        assert_eq!(trade.sat, trade.msat / 1000);
        welfare += u128::from((limit - ask) * hours * u64::from(trade.qty));
    }
    assert_eq!(outcome.welfare_msat, welfare);
    // What buyers pay and what sellers get are sums over the same rows; so is the price of
    // all units sold, slot by slot.
    let by_trade: u128 = outcome.trades.iter().map(|trade| u128::from(trade.msat)).sum();
    let by_slot: u128 = outcome
        .trades
        .iter()
        .flat_map(|trade| slots(trade).map(|at| (at, trade.qty)))
        .map(|(at, qty)| u128::from(outcome.prices[&at]) * u128::from(qty))
        .sum();
    assert_eq!(by_trade, by_slot);
    let priced: BTreeSet<_> = outcome.prices.keys().copied().collect();
    assert_eq!(priced, outcome.trades.iter().flat_map(slots).collect());
}

fn capacity_holds(book: &Instance, outcome: &Outcome) {
    let mut sold: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for trade in &outcome.trades {
        let ask = order(book, &trade.sell);
        for (_, slot) in slots(trade) {
            assert!(ask.window.0 <= slot && slot < ask.window.1 && slot >= book.now);
            *sold.entry((&trade.sell, slot)).or_default() += trade.qty;
        }
    }
    for ((id, slot), units) in sold {
        let ask = order(book, id);
        assert!(units <= ask.qty - ask.filled, "{id} sells {units} in slot {slot}");
    }
}

fn bids_get_one_run_of_enough_units(book: &Instance, outcome: &Outcome) {
    let mut runs: BTreeMap<&str, Vec<&Trade>> = BTreeMap::new();
    for trade in &outcome.trades {
        runs.entry(&trade.buy).or_default().push(trade);
    }
    for (id, trades) in runs {
        let bid = order(book, id);
        let Side::Buy { hours, mode, .. } = bid.side else { panic!("{id} is no bid") };
        let (first, left) = (trades[0], bid.qty - bid.filled);
        assert!(trades.iter().all(|t| (t.class, t.start) == (first.class, first.start)));
        assert!(trades.iter().all(|t| t.hours == hours));
        assert!(mode == Mode::Sticky || trades.len() == 1, "{id} is split");
        assert!(bid.window.0 <= first.start && first.start + u32::from(hours) <= bid.window.1);
        let units: u32 = trades.iter().map(|t| t.qty).sum();
        assert!(bid.min_qty.min(left) <= units && units <= left, "{id} gets {units}");
    }
}

fn counterparties_accept_each_other(book: &Instance, outcome: &Outcome) {
    for trade in &outcome.trades {
        let (bid, ask) = (order(book, &trade.buy), order(book, &trade.sell));
        let Side::Sell { min_run, provider, .. } = &ask.side else { panic!("no ask") };
        let provider = provider.as_ref().unwrap_or(&ask.owner);
        assert_ne!(bid.owner, ask.owner);
        assert_eq!(bid.features & !ask.features, 0);
        assert!(trade.hours >= *min_run);
        assert!(!bid.deny.contains(provider) && !ask.deny.contains(&bid.owner));
        assert!(bid.allow.is_empty() || bid.allow.contains(provider));
        assert!(ask.allow.is_empty() || ask.allow.contains(&bid.owner));
    }
}

fn is_safe(book: &Instance, outcome: &Outcome) {
    limits_and_money_hold(book, outcome);
    capacity_holds(book, outcome);
    bids_get_one_run_of_enough_units(book, outcome);
    counterparties_accept_each_other(book, outcome);
    assert_eq!(verify(book, outcome), Ok(()));
}

fn rearrange(book: &mut Instance, seed: u64) {
    let mut dice = Dice::new(seed);
    dice.shuffle(&mut book.orders);
    dice.shuffle(&mut book.cancels);
    for order in &mut book.orders {
        dice.shuffle(&mut order.allow);
        dice.shuffle(&mut order.deny);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_improved_result_is_safe_no_worse_and_free_of_the_order_of_arrival(
        seed in any::<u64>(),
        shuffle in any::<u64>(),
    ) {
        let mut book = contested(seed);
        let before = solve(&book, Algorithm::One).unwrap();
        let outcome = solve(&book, Algorithm::Two).unwrap();
        is_safe(&book, &outcome);
        prop_assert!(outcome.welfare_msat >= before.welfare_msat);
        rearrange(&mut book, shuffle);
        prop_assert_eq!(solve(&book, Algorithm::Two).unwrap(), outcome);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_result_is_safe_for_everybody(seed in any::<u64>()) {
        let book = random(seed);
        is_safe(&book, &solve(&book, Algorithm::One).unwrap());
    }

    #[test]
    fn the_order_of_arrival_changes_nothing(seed in any::<u64>(), shuffle in any::<u64>()) {
        let mut book = random(seed);
        let outcome = solve(&book, Algorithm::One).unwrap();
        rearrange(&mut book, shuffle);
        prop_assert_eq!(solve(&book, Algorithm::One).unwrap(), outcome);
    }

    #[test]
    fn dropped_orders_leave_no_trace(seed in any::<u64>()) {
        let mut book = random(seed);
        let outcome = solve(&book, Algorithm::One).unwrap();
        book.orders.retain(|order| order.filled < order.qty);
        prop_assert_eq!(solve(&book, Algorithm::One).unwrap(), outcome);
    }

    #[test]
    fn more_starts_never_lower_the_welfare(seed in any::<u64>()) {
        let mut book = random(seed);
        let mut welfare = 0;
        for starts in 1..=8 {
            book.starts = starts;
            let next = solve(&book, Algorithm::One).unwrap().welfare_msat;
            prop_assert!(next >= welfare);
            welfare = next;
        }
    }
}
