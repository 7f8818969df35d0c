//! Why an order matched or did not: golden cases, and what must hold on any book.

use std::collections::BTreeMap;

use capex_core::matching::explain::{
    Boundary, Constraint, Dropped, Explanation, Fate, Finding, Value, boundaries, explain,
};
use capex_core::matching::{
    Algorithm, Instance, MatchError, Mode, Order, Outcome, PMAX_MSAT, Side, solve,
};
use serde_json::Value as Json;

use super::books;
use super::vectors::GOLDEN;

/// A golden vector by the number at the head of its name.
fn golden(number: usize) -> Instance {
    let vectors: Vec<Json> = serde_json::from_str(GOLDEN).unwrap();
    let vector = &vectors[number - 1];
    assert!(vector["name"].as_str().unwrap().starts_with(&format!("{number:02}-")));
    let input = &vector["input"];
    let number = |value: &Json, name: &str, default: u64| value[name].as_u64().unwrap_or(default);
    let cancel = |value: &Json| capex_core::matching::Cancel {
        order: value["order"].as_str().unwrap().to_owned(),
        signer: value["signer"].as_str().unwrap().to_owned(),
    };
    Instance {
        beacon: [0; 32],
        now: number(input, "now", 0) as u32,
        epoch: number(input, "epoch", 0),
        starts: 3,
        max_legs: None,
        orders: input["orders"].as_array().unwrap().iter().map(order).collect(),
        cancels: input["cancels"].as_array().unwrap_or(&vec![]).iter().map(cancel).collect(),
    }
}

fn order(value: &Json) -> Order {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let number = |name: &str, default: u64| value[name].as_u64().unwrap_or(default);
    let labels = |name: &str| -> Vec<String> {
        let empty = vec![];
        let list = value[name].as_array().unwrap_or(&empty);
        list.iter().map(|label| label.as_str().unwrap().to_owned()).collect()
    };
    let (class, limit) = (number("class", 0) as u16, number("limit", 0));
    let pair = |alt: &Json| (alt[0].as_u64().unwrap() as u16, alt[1].as_u64().unwrap());
    let side = match value["side"].as_str().unwrap() {
        "buy" => Side::Buy {
            hours: number("hours", 1) as u16,
            mode: if value["mode"] == "gang" { Mode::Gang } else { Mode::Sticky },
            alts: value["alts"]
                .as_array()
                .map_or_else(|| vec![(class, limit)], |alts| alts.iter().map(pair).collect()),
        },
        _ => Side::Sell {
            class,
            limit_msat: limit,
            min_run: number("min_run", 1) as u16,
            provider: text("provider"),
        },
    };
    Order {
        id: text("id").unwrap(),
        owner: text("owner").unwrap(),
        qty: number("qty", 1) as u32,
        filled: number("filled", 0) as u32,
        min_qty: number("min_qty", 1) as u32,
        window: {
            let window = value["window"].as_array().unwrap();
            (window[0].as_u64().unwrap() as u32, window[1].as_u64().unwrap() as u32)
        },
        expiry_epoch: value["expiry_epoch"].as_u64(),
        features: number("features", 0),
        allow: labels("allow"),
        deny: labels("deny"),
        side,
    }
}

fn solved(book: &Instance) -> Outcome {
    solve(book, Algorithm::One).unwrap()
}

fn boundaries_by(book: &Instance, algorithm: Algorithm, id: &str) -> Vec<Boundary> {
    boundaries(book, &solve(book, algorithm).unwrap(), algorithm, id, u64::MAX).unwrap()
}

fn explained(book: &Instance, id: &str) -> Explanation {
    explain(book, &solved(book), id, usize::MAX).unwrap()
}

/// What kept `id` from trading with `other`.
fn finding(book: &Instance, id: &str, other: &str) -> Finding {
    let found = explained(book, id);
    let counter = found.counters.iter().find(|counter| counter.id == other).unwrap();
    counter.finding.clone().unwrap_or_else(|| panic!("{id} traded with {other}"))
}

/// Bids that the accepted trades behind a finding belong to.
fn blamed(finding: &Finding) -> Vec<(&str, &str)> {
    finding.because.iter().map(|trade| (trade.buy.as_str(), trade.sell.as_str())).collect()
}

#[test]
fn golden_orders_are_stopped_by_the_constraint_that_their_vector_shows() {
    use Constraint::{
        Class, Deny, Features, Gang, Limit, Live, MinFill, MinRun, Promised, SelfTrade, Taken,
    };
    let table: &[(usize, &str, &str, Constraint, Value, Value)] = &[
        (2, "b1", "s1", Limit, Value::LimitMsat(99_000), Value::LimitMsat(100_000)),
        (2, "s1", "b1", Limit, Value::LimitMsat(100_000), Value::LimitMsat(99_000)),
        // All or none of 6 from 5 units, whoever else takes some of them.
        (8, "b1", "s1", MinFill, Value::Qty(6), Value::Qty(5)),
        (5, "b1", "s2", Constraint::Filled, Value::Qty(0), Value::Qty(4)),
        (13, "b1", "s1", Gang, Value::Qty(4), Value::Qty(2)),
        (13, "s2", "b1", Gang, Value::Qty(2), Value::Qty(4)),
        (17, "b2", "s2", Promised, Value::RunMsat(90_000), Value::RunMsat(150_000)),
        (17, "s2", "b2", Promised, Value::RunMsat(150_000), Value::RunMsat(90_000)),
        (17, "b2", "s1", Deny, Value::Party("ob2".into()), Value::Party("os1".into())),
        (19, "s1", "b1", SelfTrade, Value::Party("alice".into()), Value::Party("alice".into())),
        (20, "b1", "s1", Features, Value::Features(5), Value::Features(1)),
        (20, "b1", "s2", Deny, Value::Party("ob1".into()), Value::Party("evil".into())),
        (21, "b1", "r1", Deny, Value::Party("ob1".into()), Value::Party("acme".into())),
        (21, "b1", "s1", Promised, Value::RunMsat(340_000), Value::RunMsat(352_000)),
        (22, "b1", "s1", MinRun, Value::Slots(2), Value::Slots(3)),
        (14, "b1", "s1", Taken, Value::Qty(1), Value::Qty(0)),
        (18, "s1", "b1", Live, Value::Live, Value::Dropped(Dropped::Expired)),
        (18, "s1", "b2", Live, Value::Live, Value::Dropped(Dropped::Cancelled)),
    ];
    for (vector, id, other, constraint, own, theirs) in table {
        let found = finding(&golden(*vector), id, other);
        assert_eq!(
            (found.constraint, &found.own, &found.theirs),
            (*constraint, own, theirs),
            "vector {vector}, {id} against {other}"
        );
    }
    let mut other_class = golden(3);
    other_class.orders[1].side = Side::Sell { class: 7, limit_msat: 1, min_run: 1, provider: None };
    assert_eq!(finding(&other_class, "b1", "s1").constraint, Class);
    let mut later = golden(3);
    later.orders[1].window = (101, 105);
    assert_eq!(finding(&later, "b1", "s1").constraint, Constraint::Window);
}

#[test]
fn the_trade_that_fixed_the_price_or_took_the_units_is_named() {
    assert_eq!(blamed(&finding(&golden(17), "b2", "s2")), [("b1", "s1")]);
    assert_eq!(blamed(&finding(&golden(21), "b1", "s1")), [("b2", "r1")]);
    assert_eq!(blamed(&finding(&golden(14), "b1", "s1")), [("b2", "s1")]);
}

/// A book of one class from the fields that matter.
fn written(orders: &Json) -> Instance {
    let orders: Vec<Order> = orders.as_array().unwrap().iter().map(order).collect();
    Instance::sample(3, orders)
}

#[test]
fn an_order_in_the_money_that_was_refused_is_paradoxically_rejected() {
    // All or none of two units, of which a better bid takes one and a worse one the other.
    let mut book = written(&serde_json::json!([
        {"id": "b1", "owner": "1", "side": "buy", "window": [5, 6], "limit": 100_000},
        {"id": "b2", "owner": "2", "side": "buy", "window": [5, 6], "limit": 60_000, "qty": 2,
         "min_qty": 2},
        {"id": "b3", "owner": "3", "side": "buy", "window": [5, 6], "limit": 25_000},
        {"id": "s1", "owner": "4", "side": "sell", "window": [5, 6], "limit": 10_000, "qty": 2},
    ]));
    let paradox = explained(&book, "b2").paradox.unwrap();
    assert_eq!((paradox.start, paradox.slots), (5, 1));
    assert_eq!((paradox.limit_msat, paradox.market_msat), (60_000, 17_500));
    assert_eq!(paradox.constraint, Constraint::Taken);
    let because: Vec<&str> = paradox.because.iter().map(|trade| trade.buy.as_str()).collect();
    assert_eq!(because, ["b1", "b3"]);
    // Three were never on offer.
    (book.orders[1].qty, book.orders[1].min_qty) = (3, 3);
    assert_eq!(explained(&book, "b2").paradox, None);

    let book = written(&serde_json::json!([
        {"id": "b1", "owner": "1", "side": "buy", "window": [5, 7], "hours": 2, "limit": 100_000},
        {"id": "s1", "owner": "2", "side": "sell", "window": [5, 7], "limit": 10_000},
        {"id": "s2", "owner": "3", "side": "sell", "window": [5, 7], "min_run": 2, "limit": 50_000},
    ]));
    let ask = explained(&book, "s2").paradox.unwrap();
    assert_eq!((ask.limit_msat, ask.market_msat), (100_000, 110_000));
    assert_eq!((ask.constraint, ask.because[0].sell.as_str()), (Constraint::Filled, "s1"));
    // Out of the money, incompatible with every ask, matched; or in the money without that
    // the minimum fill is on offer at the price: all units of vector 8 are too few, each ask
    // of 13 alone; the ask of 21 is too dear, the bid of 17 for the other ask too low.
    let none = [(2, "b1"), (8, "b1"), (13, "b1"), (14, "b1"), (16, "b1"), (17, "b2"), (17, "s2")];
    for (vector, id) in none.into_iter().chain([(21, "b1"), (22, "b1")]) {
        assert_eq!(explained(&golden(vector), id).paradox, None, "vector {vector}, {id}");
    }
}

#[test]
fn a_bid_that_has_all_its_asks_says_so() {
    let asks = [("s1", 1, 10_000), ("s2", 1, 11_000), ("s3", 1, 12_000)];
    let mut orders: Vec<Json> = asks
        .iter()
        .map(|(id, qty, limit)| {
            serde_json::json!({"id": id, "owner": id, "side": "sell", "window": [5, 6],
                "limit": limit, "qty": qty})
        })
        .collect();
    orders.push(serde_json::json!({"id": "b1", "owner": "b", "side": "buy", "window": [5, 6],
        "limit": 60_000, "qty": 3}));
    let mut book = books::bounded(written(&orders.into()), 2);
    for id in ["b1", "s3"] {
        let found = finding(&book, id, if id == "b1" { "s3" } else { "b1" });
        assert_eq!(found.constraint, Constraint::Legs);
        assert_eq!(blamed(&found), [("b1", "s1"), ("b1", "s2")]);
    }
    let part = explained(&book, "b1");
    assert_eq!((part.fate, part.paradox), (Fate::Partly, None));
    // It cannot take any more, so its limit is no pressure: the price is that of the unsold ask.
    assert_eq!(solved(&book).prices[&(0, 5)], 11_500);
    // All or none of three units, of which two asks have only two.
    book.orders[3].min_qty = 3;
    let none = explained(&book, "b1");
    assert_eq!((none.fate, &none.paradox), (Fate::Unmatched, &None));
    assert!(none.counters.iter().all(|counter| {
        counter.finding.as_ref().is_some_and(|found| found.constraint == Constraint::Legs)
    }));
    book.max_legs = Some(3);
    assert_eq!(explained(&book, "b1").fate, Fate::Matched);
}

/// Whether a bid without trades is paradoxically rejected, counted anew from docs/matching.md.
fn is_paradoxical(book: &Instance, outcome: &Outcome, bid: &Order) -> bool {
    let Side::Buy { hours, mode, alts } = &bid.side else { unreachable!() };
    let (hours, qty) = (u64::from(*hours), bid.qty - bid.filled);
    let first = bid.window.0.max(book.now);
    let offered = |class: u16, start: u32, run_msat: u64| {
        let end = start + hours as u32;
        let units = book.orders.iter().filter_map(|ask| {
            let Side::Sell { class: of, limit_msat, min_run, provider } = &ask.side else {
                return None;
            };
            let provider = provider.as_ref().unwrap_or(&ask.owner);
            let admits = |order: &Order, label: &String| {
                (order.allow.is_empty() || order.allow.contains(label))
                    && !order.deny.contains(label)
            };
            let fits = *of == class
                && ask.qty > ask.filled
                && !book.cancels.iter().any(|c| c.order == ask.id && c.signer == ask.owner)
                && ask.expiry_epoch.is_none_or(|last| last >= book.epoch)
                && (1..=PMAX_MSAT).contains(limit_msat)
                && limit_msat * hours <= run_msat
                && ask.window.0.max(book.now) <= start
                && end <= ask.window.1
                && u64::from(*min_run) <= hours
                && bid.features & !ask.features == 0
                && bid.owner != ask.owner
                && admits(bid, provider)
                && admits(ask, &bid.owner);
            fits.then(|| ask.qty - ask.filled)
        });
        let most = if *mode == Mode::Gang { units.max().unwrap_or(0) } else { units.sum() };
        most > 0 && most >= bid.min_qty.min(qty)
    };
    alts.iter().any(|&(class, limit_msat)| {
        (first..bid.window.1).any(|start| {
            let run: Option<u64> =
                (start..start + hours as u32).map(|slot| outcome.prices.get(&(class, slot))).sum();
            start + hours as u32 <= bid.window.1
                && run.is_some_and(|run| run < limit_msat * hours && offered(class, start, run))
        })
    })
}

#[test]
fn a_bid_is_paradoxically_rejected_as_the_page_defines_it() {
    let (mut yes, mut no) = (0, 0);
    let random = (0..200).map(|seed| (seed, books::random(seed)));
    for (seed, book) in random.chain((0..60).map(|seed| (seed, books::contested(seed)))) {
        let Ok(outcome) = solve(&book, Algorithm::One) else { continue };
        for order in book.orders.iter().filter(|o| matches!(o.side, Side::Buy { .. })) {
            let found = explain(&book, &outcome, &order.id, 1).unwrap();
            if found.fate != Fate::Unmatched {
                assert_eq!(found.paradox, None);
                continue;
            }
            let expected = is_paradoxical(&book, &outcome, order);
            assert_eq!(found.paradox.is_some(), expected, "seed {seed} {}", order.id);
            if expected { yes += 1 } else { no += 1 }
        }
    }
    assert!(yes > 10 && no > 100, "{yes} {no}");
}

#[test]
fn orders_that_matched_say_what_they_got() {
    for (vector, id, fate, qty) in [
        (16, "b1", Fate::Matched, 1),
        (16, "s2", Fate::Matched, 1),
        (10, "b1", Fate::Partly, 4),
        (4, "b3", Fate::Unmatched, 0),
        (18, "b1", Fate::Dropped(Dropped::Expired), 0),
        (18, "b2", Fate::Dropped(Dropped::Cancelled), 0),
        (18, "b3", Fate::Matched, 1),
    ] {
        let found = explained(&golden(vector), id);
        let got: u32 = found.trades.iter().map(|trade| trade.qty).sum();
        assert_eq!((found.fate, got), (fate, qty), "vector {vector}, {id}");
    }
    let book = golden(3);
    let refused = explain(&book, &solved(&book), "b9", 1).unwrap_err();
    assert_eq!(refused.code(), "explain.unknown_order");
    let mut twice = golden(3);
    twice.orders.push(twice.orders[0].clone());
    let refused = explain(&twice, &Outcome::default(), "b1", 1).unwrap_err();
    assert_eq!(refused.code(), MatchError::DuplicateId { id: String::new() }.code());
}

#[test]
fn the_best_limit_matches_and_the_next_worse_does_not() {
    // (vector, order, best limit)
    for (vector, id, limit_msat) in [
        (2, "b1", Some(100_000)),
        (2, "s1", Some(99_000)),
        // Five units are fewer than six at any price.
        (8, "b1", None),
        (13, "b1", None),
        // As soon as the promise to s1 is no longer the better start.
        (17, "b2", Some(110_001)),
        (22, "b1", None),
        (3, "b1", Some(100_000)),
        (5, "s2", Some(110_000)),
    ] {
        let found = boundaries_by(&golden(vector), Algorithm::One, id);
        assert_eq!(found[0].limit_msat, limit_msat, "vector {vector}, {id}");
    }
    let both = boundaries_by(&golden(24), Algorithm::One, "b1");
    assert_eq!(both.len(), 1, "of an order that matched, the class in which it did");
}

fn with_limit(book: &Instance, id: &str, class: u16, msat: u64) -> Instance {
    let mut book = book.clone();
    for order in book.orders.iter_mut().filter(|order| order.id == id) {
        match &mut order.side {
            Side::Buy { alts, .. } => {
                alts.iter_mut().filter(|alt| alt.0 == class).for_each(|alt| alt.1 = msat);
            }
            Side::Sell { limit_msat, .. } => *limit_msat = msat,
        }
    }
    book
}

fn fill(book: &Instance, algorithm: Algorithm, id: &str) -> u32 {
    let trades = solve(book, algorithm).unwrap().trades.into_iter();
    trades.filter(|t| t.buy == id || t.sell == id).map(|t| t.qty).sum()
}

/// Whether matching the book again by `algorithm` bears out what a boundary says.
fn holds(book: &Instance, algorithm: Algorithm, order: &Order, found: &Boundary) -> bool {
    let bid = matches!(order.side, Side::Buy { .. });
    let at = |msat| fill(&with_limit(book, &order.id, found.class, msat), algorithm, &order.id);
    let Some(limit) = found.limit_msat else { return at(if bid { PMAX_MSAT } else { 1 }) == 0 };
    let worse = if bid { limit - 1 } else { limit + 1 };
    at(limit) == found.qty && found.qty > 0 && (worse == 0 || at(worse) == 0)
}

#[test]
fn boundaries_of_random_books_are_confirmed_by_matching_again() {
    let (mut confirmed, mut hopeless) = (0, 0);
    for seed in 0..40 {
        let book = books::random(seed);
        if solve(&book, Algorithm::One).is_err() {
            continue;
        }
        for order in book.orders.iter().take(4) {
            for found in boundaries_by(&book, Algorithm::One, &order.id) {
                assert!(found.is_confirmed, "seed {seed} {}", order.id);
                assert!(holds(&book, Algorithm::One, order, &found), "seed {seed} {}", order.id);
                match found.limit_msat {
                    Some(_) => confirmed += 1,
                    None => hopeless += 1,
                }
            }
        }
    }
    assert!(confirmed > 20 && hopeless > 10, "{confirmed} {hopeless}");
}

/// What version 2 confirms, it does; what it does not is the boundary of version 1, and says so.
#[test]
fn boundaries_of_version_2_are_confirmed_or_marked() {
    let (mut confirmed, mut marked) = (0, 0);
    for seed in 0..6 {
        let book = books::contested(seed);
        for order in book.orders.iter().take(6) {
            for found in boundaries_by(&book, Algorithm::Two, &order.id) {
                let by = if found.is_confirmed { Algorithm::Two } else { Algorithm::One };
                assert!(holds(&book, by, order, &found), "seed {seed} {}", order.id);
                assert!(found.is_confirmed || !holds(&book, Algorithm::Two, order, &found));
                if found.is_confirmed { confirmed += 1 } else { marked += 1 }
            }
        }
    }
    assert!(confirmed > 5 && marked > 0, "{confirmed} {marked}");
}

/// With more and more work allowed: nothing, then what version 1 says, then the same confirmed.
#[test]
fn the_work_on_boundaries_is_bounded() {
    let book = books::contested(1);
    let outcome = solve(&book, Algorithm::Two).unwrap();
    let id = &book.orders[0].id;
    let by_one = boundaries_by(&book, Algorithm::One, id)[0];
    let mut stages = Vec::new();
    for shift in 4..40 {
        let stage = match boundaries(&book, &outcome, Algorithm::Two, id, 1 << shift) {
            Err(refused) => {
                assert_eq!(refused.code(), "explain.book_too_large");
                0
            }
            Ok(found) => {
                assert_eq!(found[0].limit_msat, by_one.limit_msat);
                1 + u32::from(found[0].is_confirmed)
            }
        };
        stages.push(stage);
    }
    assert!(stages.is_sorted(), "{stages:?}");
    stages.dedup();
    assert_eq!(stages, [0, 1, 2]);
}

/// Every order of a book, explained: counts add up, what traded is what the outcome says, and
/// each pair that did not trade has a reason from either side. Returns how often each.
fn reasons(book: &Instance, outcome: &Outcome) -> BTreeMap<Constraint, u32> {
    let mut seen = BTreeMap::new();
    for order in &book.orders {
        let found = explain(book, outcome, &order.id, usize::MAX).unwrap();
        if matches!(found.fate, Fate::Dropped(_)) {
            assert!(found.trades.is_empty());
            continue;
        }
        let bid = matches!(order.side, Side::Buy { .. });
        let others = book.orders.iter().filter(|o| matches!(o.side, Side::Buy { .. }) != bid);
        assert_eq!(found.funnel[0].tried as usize, others.count());
        let traded = found.counters.iter().filter(|counter| counter.traded > 0).count();
        assert_eq!(found.funnel.last().unwrap().passed as usize, traded);
        assert_eq!(found.trades.is_empty(), traded == 0);
        for counter in &found.counters {
            assert_eq!(counter.traded == 0, counter.finding.is_some());
            if let Some(finding) = &counter.finding {
                *seen.entry(finding.constraint).or_insert(0) += 1;
            }
        }
    }
    seen
}

/// A pass, also the last one of version 2, refuses nothing without a reason that still stands.
#[test]
fn every_pair_of_random_books_traded_or_has_a_reason() {
    let mut seen = BTreeMap::new();
    let random = (0..400).map(|seed| (seed, books::random(seed), Algorithm::One));
    let contested = (0..20).map(|seed| (seed, books::contested(seed), Algorithm::Two));
    let scattered = (0..200).map(|seed| {
        let max_legs = 2 + (seed % 3) as u16;
        (seed, books::bounded(books::scattered(seed), max_legs), Algorithm::One)
    });
    for (seed, book, algorithm) in random.chain(contested).chain(scattered) {
        let Ok(outcome) = solve(&book, algorithm) else { continue };
        let reasons = reasons(&book, &outcome);
        assert_eq!(reasons.get(&Constraint::Chosen), None, "seed {seed} {algorithm:?}");
        for (constraint, count) in reasons {
            *seen.entry(constraint).or_insert(0) += count;
        }
    }
    // The books are rich enough to fail every constraint.
    assert_eq!(seen.len(), Constraint::ALL.len() - 1, "{seen:?}");
}

#[test]
fn the_order_of_the_book_does_not_matter_and_only_the_nearest_are_named() {
    for seed in 0..40 {
        let book = books::random(seed);
        let Ok(outcome) = solve(&book, Algorithm::One) else { continue };
        let mut reversed = book.clone();
        reversed.orders.reverse();
        for order in &book.orders {
            let found = explain(&book, &outcome, &order.id, 3).unwrap();
            assert_eq!(found, explain(&reversed, &outcome, &order.id, 3).unwrap());
            assert!(found.counters.len() <= 3);
        }
    }
}

#[test]
fn below_its_boundary_a_bid_matches_nowhere_within_one_start() {
    let mut looked = 0;
    for seed in 0..60 {
        let mut book = books::random(seed);
        book.starts = 1;
        if solve(&book, Algorithm::One).is_err() {
            continue;
        }
        let is_bid = |order: &&Order| matches!(order.side, Side::Buy { .. });
        for order in book.orders.iter().filter(is_bid).take(3) {
            for found in boundaries_by(&book, Algorithm::One, &order.id) {
                let Some(limit) = found.limit_msat else { continue };
                for below in [limit / 2, limit - limit.div_ceil(4), limit - 1] {
                    if below == 0 {
                        continue;
                    }
                    let trial = with_limit(&book, &order.id, found.class, below);
                    assert_eq!(fill(&trial, Algorithm::One, &order.id), 0, "seed {seed} {below}");
                    looked += 1;
                }
            }
        }
    }
    assert!(looked > 50, "{looked}");
}

/// Nothing is blamed that does not stand in the way: take the trades of a bid out of a result,
/// and what is left must say that they were possible.
#[test]
fn a_trade_that_is_taken_back_is_explained_as_possible() {
    let mut looked = 0;
    for seed in 0..300 {
        let book = books::random(seed);
        let Ok(outcome) = solve(&book, Algorithm::One) else { continue };
        for order in book.orders.iter().filter(|o| matches!(o.side, Side::Buy { .. })) {
            let (own, others): (Vec<_>, Vec<_>) =
                outcome.trades.iter().cloned().partition(|trade| trade.buy == order.id);
            let without = Outcome { trades: others, ..outcome.clone() };
            let constraint = |id: &str, other: &str| {
                let found = explain(&book, &without, id, usize::MAX).unwrap();
                let counter = found.counters.into_iter().find(|counter| counter.id == other);
                counter.unwrap().finding.unwrap().constraint
            };
            for trade in own {
                let pair = format!("seed {seed}: {} and {}", trade.buy, trade.sell);
                assert_eq!(constraint(&order.id, &trade.sell), Constraint::Chosen, "{pair}");
                if order.min_qty == 1 {
                    assert_eq!(constraint(&trade.sell, &order.id), Constraint::Chosen, "{pair}");
                }
                looked += 1;
            }
        }
    }
    assert!(looked > 200, "{looked}");
}
