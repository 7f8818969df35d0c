//! Processor time from the orders of an epoch to its rows and root, on one thread.
//!
//! `cargo bench -p capex-core --bench epoch`; what the books are stands in docs/performance.md.

#![allow(missing_docs, clippy::unwrap_used, reason = "a broken benchmark should end")]

mod cpu_time;
#[allow(dead_code, reason = "shared with other benchmarks")]
mod instances;
mod measurement;
mod signed;

use std::time::Duration;

use capex_core::book::tree_hash;
use capex_core::epoch::compute;
use capex_core::ids::OrderId;
use capex_core::test_support::devnet;
use criterion::{Criterion, criterion_group, criterion_main};
use instances::SLOTS;
use measurement::CpuTime;
use rayon::ThreadPoolBuilder;
use signed::{EPOCH, signed};

const SEED: u64 = 1;
/// Orders of two owners in the book that has few: one bids, the other asks.
const PER_OWNER: usize = 16;

fn epoch(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("epoch");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let params = devnet();
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (size, orders) in [("1k", 1_000), ("10k", 10_000), ("100k", 100_000)] {
        let week = instances::runs(orders * 95 / 100, orders * 5 / 100, SLOTS, 24, SEED);
        let slot = instances::one_slot(orders, SEED);
        let books = [
            ("one slot", signed(&slot, 1, &params)),
            ("one slot, few owners", signed(&slot, PER_OWNER, &params)),
            ("week", signed(&week, 1, &params)),
        ];
        for (name, set) in &books {
            // The root is kept with the set, as in a node that has voted on it.
            assert_eq!(compute(EPOCH, set, &params).unwrap().root, set.root());
            group.bench_function(format!("compute {name}, {size} orders"), |bencher| {
                one_thread.install(|| bencher.iter(|| compute(EPOCH, set, &params)));
            });
        }
        let ids: Vec<OrderId> = books[0].1.ids().collect();
        group.bench_function(format!("root of {size} orders"), |bencher| {
            bencher.iter(|| tree_hash(&ids));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = epoch
}
criterion_main!(benches);
