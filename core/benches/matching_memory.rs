//! Peak memory of matching the largest reference book, on Linux.
//!
//! `cargo bench --bench matching_memory` prints the peak resident set before and after.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a command that prints")]

#[allow(dead_code, reason = "shared with other benchmarks")]
mod instances;

use capex_core::matching::{Algorithm, solve};
use instances::SLOTS;

/// Peak resident set of this process in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1000
}

fn main() {
    let book = instances::runs(100_000, 5_000, SLOTS, 24, 1);
    let before = peak_mb();
    let outcome = solve(&book, Algorithm::One).unwrap();
    println!("100k x 5k x 168, flexible, {} starts: {} trades", book.starts, outcome.trades.len());
    println!("peak resident set: {before} MB with the book, {} MB after matching", peak_mb());
}
