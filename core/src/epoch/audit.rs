//! Computes a [`SignedEpoch`] again from its orders and says where it differs.
//!
//! Everything follows from the orders and the network definition: who signed, the proof of
//! work, the root, the seed of the ties, rows, prices and their hash. So a holder of the
//! text of an epoch need trust nobody, and a difference names its place.

use std::collections::BTreeMap;

use super::signed::SignedEpoch;
use super::{EpochResult, SlotPrice, compute, hash_result, outcome, row_key};
use crate::admission::{AdmissionError, admit};
use crate::book::{Inserted, OrderSet, beacon, instance};
use crate::ids::{OrderId, to_hex};
use crate::matching::{self, CheckError, MatchError};
use crate::order::Order;
use crate::params::Params;
use crate::settlement::objects::Row;

/// Differences that are listed; one wrong order may change every row.
pub const DIFFERENCES_MAX: usize = 32;

/// How the rows and prices are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Matches the orders again: the result must be the one that the rules give.
    Full,
    /// Checks the given result in linear time: it harms nobody, but another may be due.
    Quick,
}

/// Where an epoch differs from what its orders give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: expected {expected}, found {found}")]
pub struct Difference {
    pub code: &'static str,
    /// Which order, row or price, or which field of the epoch.
    pub place: String,
    /// What follows from the orders and the network definition.
    pub expected: String,
    pub found: String,
}

/// What an audit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    pub orders: usize,
    /// The first [`DIFFERENCES_MAX`] differences: of orders, root, then result.
    pub differences: Vec<Difference>,
    pub more: usize,
}

impl Audit {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn note(
        &mut self,
        code: &'static str,
        place: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) {
        if self.differences.len() >= DIFFERENCES_MAX {
            self.more += 1;
            return;
        }
        let (place, expected, found) = (place.into(), expected.to_string(), found.to_string());
        self.differences.push(Difference { code, place, expected, found });
    }

    fn compare<T: PartialEq + ToString>(
        &mut self,
        code: &'static str,
        place: &str,
        expected: T,
        found: T,
    ) {
        if expected != found {
            self.note(code, place, expected, found);
        }
    }
}

/// Computes an epoch again from its signed orders.
#[must_use]
pub fn audit(signed: &SignedEpoch, params: &Params, depth: Depth) -> Audit {
    let mut audit = Audit { orders: signed.orders.len(), ..Audit::default() };
    let set = orders(signed, params, &mut audit);
    let count = u32::try_from(set.len()).unwrap_or(u32::MAX);
    audit.compare("epoch.bad_count", "orders under the root", count, signed.count);
    audit.compare("epoch.bad_root", "root", to_hex(&set.root()), to_hex(&signed.root));
    let seed = beacon(signed.epoch, params);
    audit.compare("epoch.bad_beacon", "beacon", to_hex(&seed), to_hex(&signed.beacon));
    let (version, found) = (params.matching_version, signed.algorithm);
    audit.compare("epoch.bad_algorithm", "version of the matching rules", version, found);
    match depth {
        Depth::Full => match compute(signed.epoch, &set, params) {
            Ok(result) => compare_results(&result, signed, &mut audit),
            Err(refused) => no_result(&refused, &mut audit),
        },
        Depth::Quick => check_result(&set, signed, params, &mut audit),
    }
    audit
}

/// The set of the valid orders. Whatever keeps an order out of it is a difference, and so is
/// an order below one that stands before it: ids are known here, not to who reads the text.
fn orders(signed: &SignedEpoch, params: &Params, audit: &mut Audit) -> OrderSet {
    let mut set = OrderSet::default();
    let mut highest = None;
    for (number, envelope) in signed.orders.iter().enumerate() {
        let id = OrderId(envelope.id::<Order>(params.magic));
        let place = || format!("order {} ({id})", number + 1);
        let order = match admit(envelope, params) {
            Ok(order) => order,
            Err(refused) => {
                bad_order(refused, place(), audit);
                continue;
            }
        };
        if order.epoch != signed.epoch {
            audit.note("epoch.other_epoch", place(), signed.epoch, order.epoch);
            continue;
        }
        match set.insert(order) {
            Inserted::New if highest.is_some_and(|highest| highest > id) => {
                audit.note("epoch.file_order", place(), "ascending ids", "a lower one");
            }
            Inserted::New => highest = Some(id),
            Inserted::Known => audit.note("epoch.repeated_order", place(), "once", "twice"),
            Inserted::Evicted => {
                audit.note("epoch.evicted_order", place(), "none", "more than a set keeps");
            }
        }
    }
    set
}

fn bad_order(refused: AdmissionError, place: String, audit: &mut Audit) {
    let found = format!("{} ({refused})", refused.code());
    audit.note("epoch.bad_order", place, "a valid order", found);
}

fn no_result(refused: &MatchError, audit: &mut Audit) {
    audit.note("epoch.no_result", "result", format!("none: {} ({refused})", refused.code()), "one");
}

fn compare_results(expected: &EpochResult, signed: &SignedEpoch, audit: &mut Audit) {
    let rows: Vec<Row> = expected.rows.iter().map(|found| found.row.clone()).collect();
    compare_rows(&rows, &signed.rows, audit);
    compare_prices(&expected.prices, &signed.prices, audit);
    let (welfare, found) = (expected.welfare_msat, signed.welfare_msat);
    audit.compare("epoch.bad_welfare", "welfare, msat", welfare, found);
    let (root, found) = (to_hex(&expected.result_root), to_hex(&signed.result_root));
    audit.compare("epoch.bad_result_root", "result root", root, found);
}

fn compare_rows(expected: &[Row], found: &[Row], audit: &mut Audit) {
    for pair in pairs(expected, found, row_key) {
        match pair {
            (Some(row), None) => {
                audit.note("epoch.missing_row", row_place(row), row_text(row), "none");
            }
            (None, Some(row)) => {
                audit.note("epoch.extra_row", row_place(row), "none", row_text(row));
            }
            (Some(row), Some(other)) if row != other => {
                audit.note("epoch.bad_row", row_place(row), row_text(row), row_text(other));
            }
            _ => {}
        }
    }
}

fn compare_prices(expected: &[SlotPrice], found: &[SlotPrice], audit: &mut Audit) {
    let place = |price: &SlotPrice| format!("price of class {}, slot {}", price.0, price.1);
    let text = |price: &SlotPrice| format!("{} msat", price.2);
    for pair in pairs(expected, found, |price| (price.0, price.1)) {
        match pair {
            (Some(price), None) => {
                audit.note("epoch.missing_price", place(price), text(price), "none");
            }
            (None, Some(price)) => {
                audit.note("epoch.extra_price", place(price), "none", text(price));
            }
            (Some(price), Some(other)) if price != other => {
                audit.note("epoch.bad_price", place(price), text(price), text(other));
            }
            _ => {}
        }
    }
}

/// Elements of both lists, side by side by their keys, ascending.
fn pairs<'a, T, K: Ord>(
    expected: &'a [T],
    found: &'a [T],
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    let mut sides: BTreeMap<K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for value in expected {
        sides.entry(key(value)).or_default().0 = Some(value);
    }
    for value in found {
        sides.entry(key(value)).or_default().1 = Some(value);
    }
    sides.into_values()
}

fn row_place(row: &Row) -> String {
    let (buy, sell) = (to_hex(&row.buy), to_hex(&row.sell));
    format!("row of bid {buy} and ask {sell} (class {}, slot {})", row.class, row.start)
}

fn row_text(row: &Row) -> String {
    format!("{} units for {} slots at {} msat", row.qty, row.slots, row.msat)
}

/// The rows and prices as they are given: hashed as said, and a safe result of these orders.
fn check_result(set: &OrderSet, signed: &SignedEpoch, params: &Params, audit: &mut Audit) {
    let hash = hash_result(&signed.rows, &signed.prices, params);
    let (root, found) = (to_hex(&hash), to_hex(&signed.result_root));
    audit.compare("epoch.bad_result_root", "result root", root, found);
    let instance = instance(&set.book(), signed.epoch, params);
    let outcome = outcome(signed.rows.iter(), &signed.prices, signed.welfare_msat);
    match matching::verify(&instance, &outcome) {
        Ok(()) => {}
        Err(CheckError::Book(refused)) => no_result(&refused, audit),
        Err(fault) => audit.note(fault.code(), "result", "one that breaks no rule", &fault),
    }
}
