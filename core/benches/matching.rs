//! Processor time to match and to verify one epoch's book, on one thread.
//!
//! `cargo bench --bench matching`; what the books are stands in docs/performance.md.

#![allow(missing_docs, clippy::unwrap_used, reason = "a broken benchmark should end")]

mod cpu_time;
#[allow(dead_code, reason = "shared with other benchmarks")]
mod instances;
mod measurement;

use std::time::Duration;

use capex_core::matching::{Algorithm, Instance, solve, verify};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use instances::SLOTS;
use measurement::CpuTime;
use rayon::{ThreadPool, ThreadPoolBuilder};

const SEED: u64 = 1;

fn matching(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("matching");
    // Each book is one long deterministic run: a few repetitions show the noise.
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let books = [
        ("one slot, 100k orders", instances::one_slot(100_000, SEED)),
        ("one slot, 100k orders apart", instances::one_slot_apart(100_000, SEED)),
        ("1k x 200 x 48, fixed", instances::runs(1_000, 200, 48, 0, SEED)),
        ("10k x 1k x 168, fixed", instances::runs(10_000, 1_000, SLOTS, 0, SEED)),
        ("10k x 1k x 168, flexible", instances::runs(10_000, 1_000, SLOTS, 24, SEED)),
        ("10k x 1k x 168, tight", instances::tight_runs(10_000, 1_000, 24, SEED)),
        ("10k x 1k x 168, one price", instances::one_price_runs(10_000, 1_000, 24, SEED)),
        ("100k x 5k x 168, fixed", instances::runs(100_000, 5_000, SLOTS, 0, SEED)),
        ("100k x 5k x 168, flexible", instances::runs(100_000, 5_000, SLOTS, 24, SEED)),
        ("100k x 5k x 168, tight", instances::tight_runs(100_000, 5_000, 24, SEED)),
        ("100k x 5k x 168, one price", instances::one_price_runs(100_000, 5_000, 24, SEED)),
        ("strangers, 100k x 5k x 168", instances::strangers(100_000, 5_000, SEED)),
        ("hostile, 1k x 10k x 168", instances::hostile(1_000, 10_000, 24, SEED)),
        (
            "100k x 5k x 168, flexible, few legs",
            few_legs(instances::runs(100_000, 5_000, SLOTS, 24, SEED)),
        ),
        (
            "hostile, 1k x 10k x 168, few legs",
            few_legs(instances::hostile(1_000, 10_000, 24, SEED)),
        ),
    ];
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (name, book) in &books {
        bench(&mut group, &one_thread, name, book);
    }
    group.finish();
}

/// The same book, in which a bid may take as many asks as in public networks.
fn few_legs(book: Instance) -> Instance {
    Instance { max_legs: Some(16), ..book }
}

fn bench(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    one_thread: &ThreadPool,
    name: &str,
    book: &Instance,
) {
    group.bench_function(format!("solve {name}"), |bencher| {
        one_thread.install(|| bencher.iter(|| solve(book, Algorithm::One)));
    });
    let outcome = solve(book, Algorithm::One).unwrap();
    group.bench_function(format!("verify {name}"), |bencher| {
        bencher.iter(|| verify(book, &outcome));
    });
}

/// Version 2 costs whatever its budget allows, so its books are those that use it up.
fn improving(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("version 2");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let books = [
        ("80 x 25 x 48, flexible", instances::runs(80, 25, 48, 24, SEED)),
        ("300 x 40 x 168, flexible", instances::runs(300, 40, SLOTS, 24, SEED)),
        ("1k x 200 x 48, fixed", instances::runs(1_000, 200, 48, 0, SEED)),
        ("32 x 10k x 168, fixed", instances::runs(32, 10_000, SLOTS, 0, SEED)),
        ("10k x 1k x 168, flexible", instances::runs(10_000, 1_000, SLOTS, 24, SEED)),
    ];
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (name, book) in &books {
        group.bench_function(format!("solve {name}"), |bencher| {
            one_thread.install(|| bencher.iter(|| solve(book, Algorithm::Two)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = matching, improving
}
criterion_main!(benches);
