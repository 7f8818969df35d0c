//! The unit ledger: nothing is ever claimed twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use capex_core::certificate::ledger::{
    Claim, Ledger, LedgerError, RECTANGLES_MAX, RowNeed, number_rows,
};
use capex_core::certificate::objects::Area;
use capex_core::ids::{CertId, TradeId};
use capex_core::limits::UNITS_MAX;
use capex_core::units::{UnitRange, Units, Window};
use proptest::prelude::*;

fn units(first: u32, end: u32) -> Units {
    Units::range(first, end).unwrap()
}

fn window(start: u32, end: u32) -> Window {
    Window { start, end }
}

fn row(n: u8) -> Claim {
    Claim::Row(TradeId([n; 32]))
}

fn ledger(capacity: u32) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_capacity(1, capacity).unwrap();
    ledger
}

#[test]
fn sold_and_reserved_are_counted_by_slot_and_others_are_what_is_left() {
    let mut ledger = ledger(8);
    let sold = Claim::Certificate(CertId([1; 32]));
    ledger.claim(sold, 1, &units(0, 2), window(10, 12)).unwrap();
    ledger.claim(sold, 1, &units(2, 3), window(11, 13)).unwrap();
    ledger.claim(row(1), 1, &units(5, 6), window(11, 12)).unwrap();
    for (slot, taken) in [(9, (0, 0)), (10, (2, 0)), (11, (3, 1)), (12, (1, 0)), (13, (0, 0))] {
        assert_eq!(ledger.taken_in(1, slot), taken, "{slot}");
    }
    assert_eq!(ledger.taken_in(2, 11), (0, 0));
    assert_eq!((ledger.highest(1), ledger.highest(2)), (6, 0));
    // Claims do not count: what is taken now is free later.
    let others = |taken: &[Units]| ledger.others(1, taken);
    assert_eq!(others(&[]), Some(units(0, 8)));
    assert_eq!(others(&[units(0, 3), units(7, 8)]), Some(units(3, 7)));
    assert_eq!(others(&[units(0, 4), units(3, 8)]), None);
    assert_eq!(ledger.others(2, &[]), None);
}

#[test]
fn claims_are_exclusive_and_move_from_row_to_certificate() {
    let mut ledger = ledger(4);
    let first = row(9);
    ledger.claim(first, 1, &units(0, 4), window(10, 20)).unwrap();
    ledger.claim(first, 1, &units(0, 4), window(10, 20)).unwrap();
    let table = [
        (row(1), units(0, 1), window(19, 21), Err(LedgerError::Claimed)),
        (row(1), units(4, 5), window(30, 31), Err(LedgerError::BeyondCapacity)),
        (row(1), units(0, 1), window(30, 30), Err(LedgerError::Empty)),
        (row(1), Units::default(), window(30, 31), Err(LedgerError::Empty)),
        (row(1), units(0, 1), window(20, 21), Ok(())),
    ];
    for (claim, units, when, expected) in table {
        assert_eq!(ledger.claim(claim, 1, &units, when), expected, "{units:?} {when}");
    }
    assert_eq!(
        ledger.claim(row(1), 2, &units(0, 1), window(1, 2)),
        Err(LedgerError::BeyondCapacity)
    );
    assert!(ledger.release(first));
    assert!(!ledger.release(first));
    ledger.claim(row(2), 1, &units(0, 2), window(10, 12)).unwrap();
    let certificate = Claim::Certificate(CertId([1; 32]));
    assert!(ledger.retag(row(2), certificate));
    assert!(!ledger.retag(row(2), certificate));
    let held: Vec<_> = ledger.areas(certificate).collect();
    assert_eq!(held, [(1, &units(0, 2), window(10, 12))]);
    ledger.expire(12);
    assert_eq!(ledger.areas(certificate).count(), 0);
}

#[test]
fn capacity_never_shrinks_below_a_claim() {
    let mut ledger = ledger(4);
    ledger.claim(row(1), 1, &units(2, 3), window(1, 2)).unwrap();
    assert_eq!(ledger.set_capacity(1, 2), Err(LedgerError::BelowClaims));
    assert_eq!(ledger.capacity(1), 4);
    ledger.set_capacity(1, 3).unwrap();
    assert_eq!(ledger.set_capacity(1, UNITS_MAX + 1), Err(LedgerError::TooLarge));
    assert_eq!(ledger.capacity(1), 3);
    ledger.set_capacity(1, UNITS_MAX).unwrap();
    ledger.release(row(1));
    ledger.set_capacity(1, 0).unwrap();
    assert!(ledger.free_rectangles(1, window(0, 10)).is_empty());
}

#[test]
fn a_claim_ends_with_its_window_and_no_slot_earlier() {
    let mut ledger = ledger(4);
    ledger.claim(row(1), 1, &units(0, 1), window(10, 12)).unwrap();
    ledger.claim(row(1), 1, &units(1, 3), window(10, 13)).unwrap();
    ledger.expire(11);
    assert_eq!(ledger.areas(row(1)).count(), 2);
    ledger.expire(12);
    assert_eq!(ledger.areas(row(1)).collect::<Vec<_>>(), [(1, &units(1, 3), window(10, 13))]);
    assert_eq!(ledger.free_units(1, window(10, 13)), 2, "of four");
}

/// A provider that sells for years must not keep a cut for each sale.
#[test]
fn what_is_given_back_leaves_nothing_behind() {
    let mut ledger = ledger(4);
    ledger.claim(row(1), 1, &units(0, 1), window(10, 20)).unwrap();
    let before = format!("{ledger:?}");
    for (start, end) in [(5, 10), (5, 12), (12, 15), (15, 20), (18, 25), (20, 25), (30, 40)] {
        ledger.claim(row(2), 1, &units(2, 4), window(start, end)).unwrap();
        ledger.release(row(2));
        assert_eq!(format!("{ledger:?}"), before, "{start} to {end}");
    }
}

#[test]
fn the_lowest_units_are_picked_that_are_free_throughout() {
    let mut ledger = ledger(40);
    ledger.claim(row(1), 1, &units(0, 2), window(10, 12)).unwrap();
    ledger.claim(row(2), 1, &units(4, 5), window(12, 14)).unwrap();
    let ranges = |ranges: &[(u32, u32)]| {
        let ranges = ranges.iter().map(|(first, end)| UnitRange { first: *first, end: *end });
        Units::new(ranges.collect())
    };
    // class, units wanted, window, taken besides, picked
    type Row<'a> = (u16, u32, Window, &'a [Units], Option<Units>);
    let table: &[Row] = &[
        (1, 2, window(0, 10), &[], ranges(&[(0, 2)])),
        (1, 2, window(10, 12), &[], ranges(&[(2, 4)])),
        (1, 2, window(9, 11), &[], ranges(&[(2, 4)])),
        (1, 4, window(11, 13), &[], ranges(&[(2, 4), (5, 7)])),
        (1, 3, window(12, 13), &[units(1, 3)], ranges(&[(0, 1), (3, 4), (5, 6)])),
        (1, 2, window(0, 1), &[units(1, 3), units(2, 6), units(0, 2)], ranges(&[(6, 8)])),
        (1, 38, window(10, 12), &[], ranges(&[(2, 40)])),
        (1, 39, window(10, 12), &[], None),
        (1, 40, window(14, 15), &[], ranges(&[(0, 40)])),
        (1, 1, window(10, 10), &[], None),
        (2, 1, window(0, 1), &[], None),
    ];
    for (class, wanted, when, taken, expected) in table {
        let picked = ledger.pick(*class, *wanted, *when, taken);
        assert_eq!(picked, *expected, "{wanted} in {when} beside {taken:?}");
    }
    // Every other unit is free: 16 ranges are units of a certificate, 17 are not.
    let odd: Vec<Units> = (0..20).map(|n| units(2 * n + 1, 2 * n + 2)).collect();
    assert_eq!(ledger.pick(1, 16, window(0, 1), &odd).unwrap().ranges().len(), 16);
    assert_eq!(ledger.pick(1, 17, window(0, 1), &odd), None);
}

#[test]
fn of_free_units_in_many_pieces_the_widest_sixteen_are_offered() {
    let mut ledger = ledger(200);
    // Holes of one unit between ranges of 18, 17, … 1 units.
    let (mut at, mut ranges) = (0, Vec::new());
    for width in (1..=18).rev() {
        ranges.push(UnitRange { first: at, end: at + width });
        at += width + 1;
        ledger
            .claim(row(u8::try_from(width).unwrap()), 1, &units(at - 1, at), window(0, 9))
            .unwrap();
    }
    ledger.claim(row(99), 1, &units(at, 200), window(0, 9)).unwrap();
    let widest = Units::new(ranges[..16].to_vec()).unwrap();
    assert_eq!(ledger.free_rectangles(1, window(0, 9)), [(widest.clone(), window(0, 9))]);
    // With the two narrowest taken, all that is left fits.
    for (n, range) in (97..).zip(&ranges[16..]) {
        ledger.claim(row(n), 1, &units(range.first, range.end), window(0, 9)).unwrap();
    }
    assert_eq!(ledger.free_rectangles(1, window(0, 9)), [(widest, window(0, 9))]);
}

#[test]
fn free_space_comes_as_the_largest_rectangles_first() {
    let mut ledger = ledger(4);
    assert_eq!(ledger.free_rectangles(1, window(0, 10)), [(units(0, 4), window(0, 10))]);
    ledger.claim(row(1), 1, &units(0, 1), window(0, 4)).unwrap();
    let free = ledger.free_rectangles(1, window(0, 10));
    assert_eq!(free, [(units(1, 4), window(0, 10)), (units(0, 1), window(4, 10))]);
    assert_eq!(ledger.free_units(1, window(0, 10)), 3);
}

/// A run that fits into one unit must fit into one ask: after units 0 and 1 are sold for a
/// while, units 2 and 3 are still offered for the whole window.
#[test]
fn a_sale_never_cuts_the_free_time_of_other_units() {
    let mut ledger = ledger(4);
    ledger.claim(row(1), 1, &units(0, 2), window(12, 14)).unwrap();
    let expected = [
        (units(2, 4), window(10, 40)),
        (units(0, 2), window(14, 40)),
        (units(0, 2), window(10, 12)),
    ];
    assert_eq!(ledger.free_rectangles(1, window(10, 40)), expected);
}

#[test]
fn rows_are_numbered_by_start_and_buy_lowest_number_first() {
    let need =
        |buy: u8, start, end, qty| RowNeed { buy: [buy; 32], window: window(start, end), qty };
    let rectangle = (units(5, 9), window(0, 10));
    let rows = [
        need(9, 4, 8, 2),
        need(2, 0, 4, 3),
        need(1, 0, 6, 1),
        need(3, 6, 12, 1),
        need(4, 9, 10, 5),
    ];
    let numbers = number_rows(&rectangle, &rows);
    assert_eq!(numbers[2], Ok(units(5, 6)));
    assert_eq!(numbers[1], Ok(units(6, 9)));
    assert_eq!(numbers[0], Ok(units(6, 8)));
    assert_eq!(numbers[3].as_ref().unwrap_err().code(), "trade.not_inside");
    assert_eq!(numbers[4].as_ref().unwrap_err().code(), "trade.not_inside");
}

#[test]
fn a_row_that_needs_more_than_sixteen_ranges_is_fragmented() {
    let need =
        |buy: u8, start, end, qty| RowNeed { buy: [buy; 32], window: window(start, end), qty };
    // Rows of one unit that end early leave holes between rows that stay.
    let mut rows: Vec<RowNeed> =
        (0..36).map(|n| need(n, 0, if n % 2 == 0 { 2 } else { 10 }, 1)).collect();
    rows.push(need(40, 5, 10, 17));
    rows.push(need(41, 5, 10, 16));
    let numbers = number_rows(&(units(0, 36), window(0, 10)), &rows);
    assert!(numbers[..36].iter().all(Result::is_ok));
    assert_eq!(numbers[36].as_ref().unwrap_err().code(), "trade.fragmented");
    assert_eq!(numbers[37].as_ref().unwrap().ranges().len(), 16);
}

/// Every (unit, slot) of an area.
fn cert(n: u8) -> CertId {
    CertId([n; 32])
}

fn area(first: u32, end: u32, when: Window) -> Area {
    Area { units: units(first, end), window: when }
}

#[test]
fn a_recut_conserves_every_unit_slot_or_changes_nothing() {
    let (day, early, late) = (window(10, 20), window(10, 15), window(15, 20));
    let mut ledger = ledger(8);
    ledger.claim(Claim::Certificate(cert(1)), 1, &units(0, 4), day).unwrap();
    ledger.claim(Claim::Certificate(cert(2)), 1, &units(4, 8), day).unwrap();
    let halves = [(cert(3), area(0, 4, early)), (cert(4), area(0, 4, late))];
    let whole = [(cert(5), area(0, 8, day))];
    type After = Vec<(CertId, Area)>;
    let refused: Vec<(&str, u16, Vec<CertId>, After)> = vec![
        ("less", 1, vec![cert(1)], vec![halves[0].clone(), (cert(4), area(0, 3, late))]),
        ("more", 1, vec![cert(1)], vec![halves[0].clone(), (cert(4), area(0, 5, late))]),
        ("one part", 1, vec![cert(1)], vec![(cert(3), area(0, 4, day))]),
        ("no part", 1, vec![cert(1)], vec![]),
        ("nothing before", 1, vec![], whole.to_vec()),
        ("an unknown one", 1, vec![cert(9)], halves.to_vec()),
        ("another class", 2, vec![cert(1)], halves.to_vec()),
        ("an id in use", 1, vec![cert(1)], vec![halves[0].clone(), (cert(2), area(0, 4, late))]),
        ("a merge of too little", 1, vec![cert(1), cert(2)], vec![(cert(5), area(0, 7, day))]),
        ("a merge of one twice", 1, vec![cert(1), cert(1)], whole.to_vec()),
        ("two into two", 1, vec![cert(1), cert(2)], halves.to_vec()),
    ];
    let claimed = |ledger: &Ledger| {
        let all = (0..10).flat_map(|n| {
            ledger
                .areas(Claim::Certificate(cert(n)))
                .map(move |area| (n, area.0, area.1.clone(), area.2))
                .collect::<Vec<_>>()
        });
        all.collect::<Vec<_>>()
    };
    let before = claimed(&ledger);
    for (name, class, from, to) in refused {
        assert_eq!(ledger.recut(class, &from, &to), Err(LedgerError::NotConserved), "{name}");
        assert_eq!(claimed(&ledger), before, "{name}");
    }
    ledger.recut(1, &[cert(1)], &halves).unwrap();
    assert_eq!(ledger.free_units(1, day), 0);
    ledger.recut(1, &[cert(4), cert(3)], &[(cert(6), area(0, 4, day))]).unwrap();
    ledger.recut(1, &[cert(6), cert(2)], &whole).unwrap();
    assert_eq!(claimed(&ledger), [(5, 1, units(0, 8), day)]);
    let quarters = [(cert(7), area(0, 8, early)), (cert(8), area(0, 8, late))];
    ledger.recut(1, &[cert(5)], &quarters).unwrap();
    // A part ends with its own window, and leaves nothing behind.
    ledger.expire(15);
    assert_eq!((ledger.free_units(1, early), ledger.free_units(1, late)), (8, 0));
    assert!(ledger.release(Claim::Certificate(cert(8))));
    assert_eq!(ledger.free_units(1, day), 8);
    assert_eq!(ledger.free_rectangles(1, day), [(units(0, 8), day)]);
}

fn cells(units: &Units, when: Window) -> Vec<(u32, u32)> {
    units.numbers().flat_map(|unit| (when.start..when.end).map(move |slot| (unit, slot))).collect()
}

/// Free units of 10 in slots 0 to 15, those with the same run of free slots together.
fn runs(taken: &BTreeSet<(u32, u32)>) -> BTreeSet<(Units, Window)> {
    let mut found: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
    for unit in 0..10 {
        let mut start = None;
        for slot in 0..=15 {
            let is_free = slot < 15 && !taken.contains(&(unit, slot));
            match (is_free, start) {
                (true, None) => start = Some(slot),
                (false, Some(from)) => {
                    found.entry((from, slot)).or_default().push(unit);
                    start = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
    let groups = found.into_iter();
    groups
        .map(|((from, to), units)| (Units::from_sorted(&units).unwrap(), window(from, to)))
        .collect()
}

proptest! {
    #[test]
    fn nothing_is_ever_claimed_twice(
        steps in prop::collection::vec((0..4u8, 0..12u8, 0..10u32, 1..4u32, 0..10u32, 1..5u32), 1..60),
    ) {
        let mut ledger = ledger(10);
        for (step, who, first, count, start, len) in steps {
            let (claim, other) = (row(who), Claim::Certificate(CertId([who / 2; 32])));
            match step {
                0 | 1 => { let _ = ledger.claim(claim, 1, &units(first, first + count), window(start, start + len)); }
                2 => { ledger.release(claim); }
                3 if first == 9 => ledger.expire(start),
                _ => { ledger.retag(claim, other); }
            }
            let mut taken = BTreeSet::new();
            for who in 0..12 {
                for claim in [row(who), Claim::Certificate(CertId([who; 32]))] {
                    for (_, units, when) in ledger.areas(claim) {
                        for cell in cells(units, when) {
                            prop_assert!(cell.0 < 10);
                            prop_assert!(taken.insert(cell), "{cell:?} twice");
                        }
                    }
                }
            }
            let rectangles = ledger.free_rectangles(1, window(0, 15));
            prop_assert!(rectangles.len() <= RECTANGLES_MAX);
            let sizes: Vec<u32> = rectangles.iter().map(|(u, w)| u.count() * w.len()).collect();
            prop_assert!(sizes.is_sorted_by(|a, b| a >= b));
            let mut free = BTreeSet::new();
            for (units, when) in &rectangles {
                for cell in cells(units, *when) {
                    prop_assert!(!taken.contains(&cell) && free.insert(cell), "{cell:?} is not free");
                }
            }
            if rectangles.len() < RECTANGLES_MAX {
                let all = (0..10).flat_map(|u| (0..15).map(move |s| (u, s)));
                let left = all.filter(|cell| !taken.contains(cell)).count();
                prop_assert_eq!(free.len(), left);
                prop_assert_eq!(rectangles.into_iter().collect::<BTreeSet<_>>(), runs(&taken));
            }
        }
    }

    #[test]
    fn rows_that_fit_an_ask_slot_by_slot_always_get_distinct_numbers(
        wanted in prop::collection::vec((any::<[u8; 4]>(), 0..12u32, 1..6u32, 1..4u32), 1..30),
    ) {
        let rectangle = (Units::from_sorted(&[1, 2, 5, 7, 8, 9]).unwrap(), window(0, 16));
        let mut load = [0u32; 17];
        let mut rows = Vec::new();
        for (index, (buy, start, len, qty)) in wanted.into_iter().enumerate() {
            let when = window(start, (start + len).min(16));
            if (when.start..when.end).all(|slot| load[slot as usize] + qty <= 6) {
                (when.start..when.end).for_each(|slot| load[slot as usize] += qty);
                let mut id = [index as u8; 32];
                id[..4].copy_from_slice(&buy);
                rows.push(RowNeed { buy: id, window: when, qty });
            }
        }
        let numbers = number_rows(&rectangle, &rows);
        let mut taken = BTreeSet::new();
        for (row, numbers) in rows.iter().zip(&numbers) {
            let numbers = numbers.as_ref().unwrap();
            prop_assert_eq!(numbers.count(), row.qty);
            prop_assert!(rectangle.0.covers(numbers));
            for cell in cells(numbers, row.window) {
                prop_assert!(taken.insert(cell));
            }
        }
        rows.reverse();
        let mut turned = number_rows(&rectangle, &rows);
        turned.reverse();
        prop_assert_eq!(turned, numbers);
    }
}

/// Run with `cargo test -p capex-core --test certificate_ledger -- --ignored --nocapture`.
#[test]
#[ignore = "measures, and asserts nothing about time"]
fn how_long_a_look_at_free_space_takes() {
    for claims in [1_000_u32, 20_000] {
        let mut ledger = ledger(20_000);
        let start = std::time::Instant::now();
        let mut state = 7_u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for n in 0..claims {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            let first = draw(320);
            let when = window(100 + first, 101 + first + draw(16));
            let _ = ledger.claim(Claim::Row(TradeId(id)), 1, &units(n, n + 1), when);
        }
        let claimed = start.elapsed();
        let start = std::time::Instant::now();
        let found = ledger.free_rectangles(1, window(100, 436));
        println!(
            "{claims} claims in {claimed:?}, {} rectangles in {:?}",
            found.len(),
            start.elapsed()
        );
    }
}
