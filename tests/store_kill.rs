//! A process that is killed while it writes has lost nothing that it acknowledged.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use capex::store::{Meta, Store, StoreError, Tuning, upsert};

const DIR_VAR: &str = "CAPEX_TEST_STORE_KILL_DIR";
const KILLS: u64 = 60;
const COUNTED: u8 = 1;
const OVERWRITTEN: u8 = 2;

fn open(dir: &Path) -> Store {
    let meta = Meta { network: "devnet".into(), magic: *b"capx" };
    // Small enough that kills fall into rotations and compactions too.
    let tuning = Tuning {
        segment_bytes: 4_000,
        compact_min_bytes: 40_000,
        compact_factor: 2,
        frame_bytes: 200,
    };
    let (store, report) = Store::open_with(dir, &meta, tuning).unwrap();
    assert_eq!(report.quarantined, None, "a killed process leaves a usable index");
    store
}

fn counted(store: &Store) -> Vec<u64> {
    let rows = store.scan(COUNTED).unwrap();
    rows.iter().map(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap())).collect()
}

/// The child: writes until it is killed. Does nothing when run as a test of its own.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(DIR_VAR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let mut next = counted(&store).len() as u64;
    let mut out = std::io::stdout();
    loop {
        let bulk = upsert(OVERWRITTEN, [next as u8 % 8], vec![next as u8; 400]);
        store.persist(&[upsert(COUNTED, next.to_be_bytes(), vec![]), bulk]).unwrap();
        writeln!(out, "ack {next}").unwrap();
        out.flush().unwrap();
        next += 1;
    }
}

fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(DIR_VAR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// SplitMix64: the kill times differ from loop to loop and repeat from run to run.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Kills the child a drawn moment after a drawn number of acknowledgements and returns the
/// last number that it acknowledged.
fn run_and_kill(dir: &Path, seed: &mut u64) -> u64 {
    let mut child = start_writer(dir);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acks = 1 + draw(seed) % 20;
    let mut last = None;
    let mut seen = 0;
    while seen < acks {
        let line = lines.next().expect("the writer ended by itself").unwrap();
        // The test harness writes its own text before the first acknowledgement.
        if let Some(at) = line.find("ack ") {
            last = Some(line[at + 4..].parse().unwrap());
            seen += 1;
        }
    }
    let moment = Instant::now() + Duration::from_micros(draw(seed) % 3_000);
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.map_while(Result::ok) {
        last = line.strip_prefix("ack ").and_then(|n| n.parse().ok()).or(last);
    }
    last.unwrap()
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 7;
    let mut total = 0;
    for kill in 0..KILLS {
        let acknowledged = run_and_kill(dir.path(), &mut seed);
        let numbers = counted(&open(dir.path()));
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "a gap after kill {kill}");
        total = numbers.len() as u64;
        assert!(total > acknowledged, "kill {kill}: {acknowledged} acknowledged, {total} kept");
        assert!(total <= acknowledged + 2, "kill {kill}: at most one write is in flight");
    }
    assert!(total >= KILLS);
}

#[test]
fn a_held_store_names_its_holder_and_is_free_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_writer(dir.path());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = lines.map_while(Result::ok).any(|line| line.contains("ack "));
    let meta = Meta { network: "devnet".into(), magic: *b"capx" };
    let refused = Store::open(dir.path(), &meta);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(acknowledged);
    match refused.unwrap_err() {
        StoreError::Locked { pid, .. } => assert_eq!(pid, Some(child.id())),
        other => panic!("{other}"),
    }
    open(dir.path());
}
