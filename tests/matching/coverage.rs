//! The random books use every attribute of an order, on both sides of every bound that drops
//! or limits it: a comparison on them says something about each.

use std::collections::{BTreeMap, BTreeSet};

use capex_core::matching::{Algorithm, Instance, Mode, Order, PMAX_MSAT, Side, solve};

use super::books;
use super::reference::{self, USUAL_BOOKS};

/// Counts by name.
type Counts = BTreeMap<&'static str, u64>;

fn count(counts: &mut Counts, name: &'static str, is: bool) {
    *counts.entry(name).or_default() += u64::from(is);
}

fn count_order(order: &Order, book: &Instance, counts: &mut Counts) {
    let mut note = |name, is| count(counts, name, is);
    let left = order.qty.saturating_sub(order.filled);
    let open = order.window.1.saturating_sub(order.window.0.max(book.now));
    note("no units", order.qty == 0);
    note("most units", order.qty == 10_000);
    note("filled in part", order.filled > 0 && left > 0);
    note("filled", order.qty > 0 && left == 0);
    note("filled beyond", order.filled > order.qty);
    note("minimum fill", (2..left).contains(&order.min_qty));
    note("all or none", order.min_qty > 1 && order.min_qty == left);
    note("minimum above what is left", order.min_qty > left && left > 0);
    note("window of one slot", order.window.1 - order.window.0 == 1);
    note("wide window", order.window.1 - order.window.0 >= 24);
    note("window cut by now", order.window.0 < book.now && open > 0);
    note("window past", open == 0);
    note("expired", order.expiry_epoch.is_some_and(|epoch| epoch < book.epoch));
    note("expires in this epoch", order.expiry_epoch == Some(book.epoch));
    note("expires later", order.expiry_epoch.is_some_and(|epoch| epoch > book.epoch));
    note("label beyond ASCII", !order.id.is_ascii() && !order.owner.is_ascii());
    match &order.side {
        Side::Buy { hours, mode, alts } => {
            note("bid: one slot", *hours == 1);
            note("bid: several slots", *hours > 1);
            note("bid: run longer than the window", open > 0 && open < u32::from(*hours));
            note("bid: gang of one slot", *mode == Mode::Gang && *hours == 1);
            note("bid: gang of several slots", *mode == Mode::Gang && *hours > 1);
            note("bid: gang with a minimum", *mode == Mode::Gang && order.min_qty > 1);
            note("bid: sticky of several slots", *mode == Mode::Sticky && *hours > 1);
            note("bid: two alternatives", alts.len() == 2);
            note("bid: three alternatives", alts.len() == 3);
            note("bid: four alternatives", alts.len() == 4);
            note("bid: alternatives not by class", !alts.is_sorted());
            note("bid: features required", order.features != 0);
            note("bid: allow", !order.allow.is_empty());
            note("bid: deny", !order.deny.is_empty());
            note("bid: several deny", order.deny.len() > 1);
            for (_, limit_msat) in alts {
                count_limit(*limit_msat, &mut note);
            }
        }
        Side::Sell { limit_msat, min_run, provider, .. } => {
            note("ask: minimum run", *min_run > 1);
            note("ask: no features", order.features == 0);
            note("ask: features offered", order.features != 0);
            note("ask: allow", !order.allow.is_empty());
            note("ask: deny", !order.deny.is_empty());
            note("ask: resale", provider.as_ref().is_some_and(|name| *name != order.owner));
            count_limit(*limit_msat, &mut note);
        }
    }
}

fn count_limit(limit_msat: u64, note: &mut impl FnMut(&'static str, bool)) {
    note("limit 0", limit_msat == 0);
    note("limit 1", limit_msat == 1);
    note("limit PMAX", limit_msat == PMAX_MSAT);
    note("limit above PMAX", limit_msat > PMAX_MSAT);
}

/// Whether two orders of one side have one limit in one class: the draw decides.
fn has_ties(book: &Instance, bids: bool) -> bool {
    let mut seen = BTreeSet::new();
    let limits = book.orders.iter().filter_map(|order| match &order.side {
        Side::Buy { alts, .. } => bids.then(|| alts[0]),
        Side::Sell { class, limit_msat, .. } => (!bids).then_some((*class, *limit_msat)),
    });
    limits.into_iter().any(|limit| !seen.insert(limit))
}

fn count_book(book: &Instance, counts: &mut Counts) {
    const STARTS: [&str; 8] = [
        "1 start", "2 starts", "3 starts", "4 starts", "5 starts", "6 starts", "7 starts",
        "8 starts",
    ];
    for order in &book.orders {
        count_order(order, book, counts);
    }
    count(counts, STARTS[usize::from(book.starts) - 1], true);
    count(counts, "empty book", book.orders.is_empty());
    count(counts, "thin book", (1..=5).contains(&book.orders.len()));
    count(counts, "deep book", book.orders.len() >= 40);
    count(counts, "tied bids", has_ties(book, true));
    count(counts, "tied asks", has_ties(book, false));
    let owners: BTreeMap<&str, &str> =
        book.orders.iter().map(|order| (order.id.as_str(), order.owner.as_str())).collect();
    for cancel in &book.cancels {
        let owner = owners.get(cancel.order.as_str());
        count(counts, "cancel by the owner", owner == Some(&cancel.signer.as_str()));
        count(counts, "cancel by another", owner.is_some_and(|owner| *owner != cancel.signer));
        count(counts, "cancel of nothing", owner.is_none());
    }
    let outcome = solve(book, Algorithm::One).unwrap();
    let (mut buyers, mut sellers) = (BTreeSet::new(), BTreeSet::new());
    for trade in &outcome.trades {
        count(counts, "bid served by several asks", !buyers.insert(&trade.buy));
        count(counts, "ask serves several bids", !sellers.insert(&trade.sell));
        count(counts, "trade over several slots", trade.hours > 1);
    }
    count(counts, "trades", !outcome.trades.is_empty());
    count(counts, "no trade", outcome.trades.is_empty() && book.orders.len() > 10);
}

fn assert_all_are_used(books: impl Iterator<Item = Instance>) {
    let mut counts = Counts::new();
    for book in books {
        count_book(&book, &mut counts);
    }
    let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < 5).collect();
    assert!(rare.is_empty(), "hardly ever in the books: {rare:?}");
}

#[test]
fn the_books_of_the_reference_use_every_attribute() {
    assert_all_are_used((0..USUAL_BOOKS).map(reference::book));
}

#[test]
fn the_books_of_the_naive_matcher_use_every_attribute() {
    assert_all_are_used((0..500).map(books::random));
}
