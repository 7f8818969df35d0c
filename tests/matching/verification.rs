//! A result with one thing wrong is found out, with the code of that thing.

use capex_core::matching::{
    Algorithm, CheckError, Instance, Mode, Order, Outcome, Side, solve, verify,
};

fn order(id: &str, qty: u32, window: (u32, u32), side: Side) -> Order {
    Order::sample(id.to_owned(), format!("owner of {id}"), qty, window, side)
}

fn ask(id: &str, qty: u32, limit_msat: u64) -> Order {
    let side = Side::Sell { class: 0, limit_msat, min_run: 1, provider: None };
    order(id, qty, (0, 4), side)
}

/// `b` wants 4 units for 2 slots, at least 3, and gets them from `s` and `t`.
fn book() -> Instance {
    let side = Side::Buy { hours: 2, mode: Mode::Sticky, alts: vec![(0, 100)] };
    let mut bid = order("b", 4, (0, 2), side);
    bid.min_qty = 3;
    let orders = vec![bid, ask("s", 2, 50), ask("t", 2, 60)];
    Instance::sample(3, orders)
}

fn bid(book: &mut Instance) -> &mut Order {
    &mut book.orders[0]
}

/// Sets both prices and the money that follows from them.
fn reprice(outcome: &mut Outcome, price_msat: u64) {
    outcome.prices.values_mut().for_each(|price| *price = price_msat);
    for trade in &mut outcome.trades {
        trade.msat = u64::from(trade.qty) * price_msat * 2;
        trade.sat = trade.msat / 1000;
    }
}

type Change = fn(&mut Instance, &mut Outcome);

#[test]
fn each_fault_is_found_with_its_code() {
    let table: &[(Change, &str)] = &[
        (|_, o| o.trades.reverse(), "result.order"),
        (|_, o| o.trades[1] = o.trades[0].clone(), "result.order"),
        (|_, o| o.trades[0].sell = "a".into(), "result.unknown_order"),
        (|_, o| o.trades[0].class = 1, "result.order"),
        (|_, o| o.trades.iter_mut().for_each(|t| t.class = 1), "result.unknown_order"),
        (|b, _| bid(b).deny = vec!["owner of t".into()], "result.incompatible"),
        (|b, _| bid(b).features = 1, "result.incompatible"),
        (|b, _| bid(b).owner = "owner of s".into(), "result.incompatible"),
        (|_, o| o.trades[0].hours = 1, "result.run"),
        (|_, o| o.trades[1].start = 1, "result.run"),
        (|_, o| o.trades[0].qty = 0, "result.run"),
        (
            |b, o| {
                bid(b).window = (0, 3);
                o.trades[1].start = 1;
            },
            "result.split_run",
        ),
        (
            |b, _| bid(b).side = Side::Buy { hours: 2, mode: Mode::Gang, alts: vec![(0, 100)] },
            "result.split_gang",
        ),
        (|b, _| bid(b).qty = 3, "result.overfilled"),
        (|_, o| o.trades.truncate(1), "result.underfilled"),
        (
            |_, o| {
                o.trades[0].qty = 3;
                o.trades[1].qty = 1;
                o.trades[0].msat += 160;
            },
            "result.oversold",
        ),
        (|_, o| o.prices.retain(|at, _| at.1 != 1), "result.price_slots"),
        (|_, o| o.prices.extend([((0, 3), 1)]), "result.price_slots"),
        (|_, o| reprice(o, 101), "result.above_limit"),
        (|_, o| reprice(o, 59), "result.below_limit"),
        (|_, o| o.trades[0].msat += 1, "result.money"),
        (|_, o| o.trades[0].sat += 1, "result.money"),
        (|_, o| o.welfare_msat += 1, "result.welfare"),
        (|b, _| b.starts = 0, "match.starts"),
        (|b, _| b.max_legs = Some(1), "match.max_legs"),
        (|b, _| b.max_legs = Some(65), "match.max_legs"),
    ];
    let outcome = solve(&book(), Algorithm::One).unwrap();
    assert_eq!(outcome.trades.len(), 2);
    for (row, (change, expected)) in table.iter().enumerate() {
        let (mut book, mut outcome) = (book(), outcome.clone());
        assert_eq!(verify(&book, &outcome), Ok(()));
        change(&mut book, &mut outcome);
        let code = verify(&book, &outcome).as_ref().map_err(CheckError::code).copied();
        assert_eq!(code, Err(*expected), "row {row}");
    }
}

#[test]
fn more_asks_than_the_book_allows_are_found() {
    let mut book = book();
    bid(&mut book).qty = 5;
    book.orders.push(ask("u", 1, 60));
    let outcome = solve(&book, Algorithm::One).unwrap();
    assert_eq!(outcome.trades.len(), 3);
    for (max_legs, code) in [(None, None), (Some(3), None), (Some(2), Some("result.too_many_legs"))]
    {
        book.max_legs = max_legs;
        let found = verify(&book, &outcome).err();
        assert_eq!(found.as_ref().map(CheckError::code), code);
    }
}

#[test]
fn another_price_within_all_limits_is_safe_too() {
    let mut outcome = solve(&book(), Algorithm::One).unwrap();
    for price_msat in [60, 77, 100] {
        reprice(&mut outcome, price_msat);
        assert_eq!(verify(&book(), &outcome), Ok(()));
    }
}
