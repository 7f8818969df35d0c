//! What a start costs with a store of many records: the time that it takes to open, and the most
//! memory that it needs.
//!
//! `cargo bench --bench store`, or with another number of records `cargo bench --bench store --
//! 200000`. Each step is a process of its own, so that its peak is its own. Linux.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use capex::store::{Meta, Record, Store, upsert};

/// Records of the store unless the command says otherwise.
const RECORDS: u64 = 1_000_000;
/// Length of a value: that of a signed order.
const VALUE_BYTES: usize = 300;
/// Records of one batch.
const BATCH: u64 = 1_000;
/// Table of what is read page by page: trades of the past.
const TABLE: u8 = 16;
/// Pages that are read, of so many records.
const PAGES: u64 = 100;
const PAGE: usize = 100;

/// Names the step to the process that carries it out.
const STEP: &str = "CAPEX_BENCH_STEP";

fn meta() -> Meta {
    Meta { network: "devnet".into(), magic: *b"capx" }
}

/// A record whose bytes do not repeat.
fn record(number: u64) -> Record {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut state = number;
    while value.len() < VALUE_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value.extend((state ^ state >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
    }
    value.truncate(VALUE_BYTES);
    let mut key = number.to_be_bytes().to_vec();
    key.extend_from_slice(&value[..33]);
    upsert(TABLE, key, value)
}

fn fill(dir: &Path, records: u64) {
    let (store, _) = Store::open(dir, &meta()).unwrap();
    for first in (0..records).step_by(BATCH as usize) {
        let batch = (first..records.min(first + BATCH)).map(record).collect();
        store.submit(batch, |result| assert!(result.is_ok()));
    }
    store.settle().unwrap();
    store.durable_flush().unwrap();
}

fn open(dir: &Path, records: u64) -> Store {
    let (store, report) = Store::open(dir, &meta()).unwrap();
    assert_eq!(report.records as u64, records);
    assert_eq!(report.quarantined, None);
    store
}

/// Reads the newest pages, one after the other.
fn pages(store: &Store) {
    let mut before: Option<Vec<u8>> = None;
    for _ in 0..PAGES {
        let rows = store.page_back(TABLE, before.as_deref(), PAGE).unwrap();
        before = rows.last().map(|(key, _)| key.clone());
    }
}

fn carry_out(step: &str, dir: &Path, records: u64) {
    let begin = Instant::now();
    match step {
        "fill" => fill(dir, records),
        "open" => drop(open(dir, records)),
        "rebuild the index" => {
            fs::remove_dir_all(dir.join("index")).unwrap();
            drop(open(dir, records));
        }
        "open and read 100 pages" => {
            let store = open(dir, records);
            let begin = Instant::now();
            pages(&store);
            println!("    a page of {PAGE}: {:.2} ms", begin.elapsed().as_secs_f64() * 10.0);
        }
        "compact" => open(dir, records).compact().unwrap(),
        other => panic!("no step {other}"),
    }
    let journal: u64 = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    println!(
        "  {step}: {:.2} s, peak {} MB, journal {} MB",
        begin.elapsed().as_secs_f64(),
        peak_mb(),
        journal >> 20
    );
}

fn peak_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn main() {
    let wanted = env::args().skip(1).find_map(|argument| argument.parse().ok());
    let records = wanted.unwrap_or(RECORDS);
    if let (Ok(step), Some(dir)) = (env::var(STEP), env::var_os("CAPEX_BENCH_DIR")) {
        return carry_out(&step, Path::new(&dir), records);
    }
    let home = tempfile::tempdir().unwrap();
    println!("{records} records of {VALUE_BYTES} B:");
    let steps = ["fill", "open", "open and read 100 pages", "rebuild the index", "compact", "open"];
    for step in steps {
        let mut process = Command::new(env::current_exe().unwrap());
        process.arg(records.to_string()).env(STEP, step).env("CAPEX_BENCH_DIR", home.path());
        assert!(process.status().unwrap().success(), "{step}");
    }
}
