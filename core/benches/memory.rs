//! Memory of an engine that keeps epochs of 10,000 and of 100,000 orders.
//!
//! `cargo bench -p capex-core --bench memory`, or `scripts/bench/memory/run`. Each size is a process
//! of its own. Linux.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

mod life;

use std::process::Command;
use std::{env, fs};

use capex_core::epoch::epoch_at;
use life::{BEGIN_MS, EPOCHS, Watched, messages};

/// Names the number of orders to the process that measures it.
const ORDERS: &str = "CAPEX_BENCH_ORDERS";

fn status_mb(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn live(orders: usize) {
    let mut life = Watched::new();
    let first = epoch_at(BEGIN_MS, &life.params) + 1;
    for epoch in first..first + EPOCHS {
        let messages = messages(epoch, orders, &life.params);
        life.epoch(epoch, orders, &messages);
        drop(messages);
        println!("  epoch {}: {} MB", epoch + 1 - first, status_mb("VmRSS:"));
    }
    println!("  peak, with the messages of an epoch: {} MB", status_mb("VmHWM:"));
}

fn main() {
    if let Ok(orders) = env::var(ORDERS) {
        return live(orders.parse().unwrap());
    }
    for orders in [10_000, 100_000] {
        println!("{orders} orders an epoch, resident after each:");
        let mut process = Command::new(env::current_exe().unwrap());
        assert!(process.env(ORDERS, orders.to_string()).status().unwrap().success());
    }
}
