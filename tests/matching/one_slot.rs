//! The sweep over books of one slot against the general search and the naive implementation.

use capex_core::matching::{
    Algorithm, Instance, Mode, Order, Side, is_swept, solve, solve_by_search,
};

use super::{books, naive};

const BOOKS: u64 = 6_000;

#[test]
fn sweeps_find_what_the_search_finds() {
    let (mut swept, mut trading) = (0, 0);
    for seed in 0..BOOKS {
        // A third of the books is plain, the others have orders that a sweep must not take.
        let book = books::one_slot(seed, [u64::MAX, 12, 3][(seed % 3) as usize]);
        let found = solve(&book, Algorithm::One);
        assert_eq!(found, solve_by_search(&book, Algorithm::One), "book {seed}");
        if is_swept(&book, Algorithm::One) == Ok(true) {
            swept += 1;
            trading += u64::from(!found.unwrap().trades.is_empty());
        }
        // Version 2 searches books as small as these.
        assert_eq!(solve(&book, Algorithm::Two), solve_by_search(&book, Algorithm::Two));
    }
    println!("{swept} of {BOOKS} books swept, {trading} of them with trades");
    assert!(swept > BOOKS / 4 && swept < BOOKS * 3 / 4 && trading > swept / 2);
}

#[test]
fn sweeps_find_what_the_naive_implementation_finds() {
    for seed in 0..BOOKS / 12 {
        let book = books::one_slot(1_000_000 + seed, u64::MAX);
        assert_eq!(
            solve(&book, Algorithm::One).unwrap(),
            naive::solve(&book, Algorithm::One),
            "book {seed}"
        );
    }
}

/// So many orders that version 2 has no budget for a search.
#[test]
fn large_books_are_swept_by_version_2_too() {
    for (orders, is_large) in [(5_700, false), (5_800, true)] {
        let book = crossing(orders);
        assert_eq!(is_swept(&book, Algorithm::Two), Ok(is_large));
        if is_large {
            assert_eq!(solve(&book, Algorithm::Two), solve_by_search(&book, Algorithm::Two));
        }
    }
}

/// So many bids, and as many asks below all of them.
fn crossing(orders: u64) -> Instance {
    let mut book = books::one_slot(0, u64::MAX);
    let mut dice = books::Dice::new(1);
    let order =
        |at: u64, side| Order::sample(format!("{at:05}"), format!("o{at}"), 3, (100, 101), side);
    let ask = |limit_msat| Side::Sell { class: 0, limit_msat, min_run: 1, provider: None };
    let bid = |limit| Side::Buy { hours: 1, mode: Mode::Sticky, alts: vec![(0, limit)] };
    book.orders.clear();
    for at in 0..orders {
        book.orders.push(order(2 * at, ask(dice.within(1, 900))));
        book.orders.push(order(2 * at + 1, bid(dice.within(901, 2_000))));
    }
    Instance { max_legs: Some(16), starts: 3, ..book }
}
