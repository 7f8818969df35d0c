//! Memory of an order in its set, and peak memory of matching the largest reference book. Linux.
//!
//! `cargo bench --bench matching_memory` prints both.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a command that prints")]

#[allow(dead_code, reason = "shared with other benchmarks")]
mod instances;
#[allow(dead_code, reason = "shared with other benchmarks")]
mod signed;

use capex_core::matching::{Algorithm, solve};
use capex_core::test_support::devnet;
use instances::SLOTS;

const ORDERS: u64 = 100_000;

/// A figure of this process in kB: `VmRSS:` for its resident set, `VmHWM:` for the peak.
fn memory_kb(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn peak_mb() -> u64 {
    memory_kb("VmHWM:") / 1000
}

fn sets() {
    let book = instances::one_slot(ORDERS, 1);
    for per_owner in [1, 16] {
        let before = memory_kb("VmRSS:");
        let set = signed::signed(&book, per_owner, &devnet());
        let bytes = (memory_kb("VmRSS:") - before) * 1024 / set.len() as u64;
        println!("{} orders, {per_owner} of two owners: {bytes} bytes each in the set", set.len());
        // Kept, so that the next set takes memory of its own.
        std::mem::forget(set);
    }
}

fn main() {
    let book = instances::runs(100_000, 5_000, SLOTS, 24, 1);
    let before = peak_mb();
    let outcome = solve(&book, Algorithm::One).unwrap();
    println!("100k x 5k x 168, flexible, {} starts: {} trades", book.starts, outcome.trades.len());
    println!("peak resident set: {before} MB with the book, {} MB after matching", peak_mb());
    sets();
}
