//! What the store promises: everything acknowledged is there after any interruption, and
//! nothing that was damaged goes unnoticed.

#![allow(clippy::unwrap_used)]

mod export;
mod index;
mod journal;
mod queue;

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use capex::store::{
    IndexState, Meta, OpenReport, Record, Store, StoreError, Tuning, check, erase, import, upsert,
};
use capex_core::engine::kernel::Table;
use capex_core::engine::market::records::{EpochV1, Parts};
use capex_core::epoch::parts::{ResultPart, part_key};
use capex_core::epoch::{EpochResult, ResultRow};
use capex_core::ids::{Key, TradeId};
use capex_core::settlement::objects::Row;
use proptest::prelude::*;

fn meta() -> Meta {
    Meta { network: "devnet".into(), magic: *b"capx" }
}

/// Small files, so that a short test rotates and compacts.
fn small() -> Tuning {
    Tuning { segment_bytes: 500, compact_min_bytes: u64::MAX, compact_factor: 4, frame_bytes: 100 }
}

fn open(dir: &Path) -> (Store, OpenReport) {
    Store::open_with(dir, &meta(), small()).unwrap()
}

fn put(n: u64) -> Record {
    upsert(1, n.to_be_bytes(), vec![n as u8; 20])
}

fn fill(dir: &Path, count: u64) -> Vec<Record> {
    let (store, _) = open(dir);
    for n in 0..count {
        store.persist(&[put(n)]).unwrap();
    }
    store.load().unwrap()
}

fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn copy_journal(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("journal")).unwrap();
    for file in journal_files(from) {
        fs::copy(&file, to.join("journal").join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn records_survive_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report, OpenReport { records: 0, quarantined: None, truncated_bytes: 0 });
    assert_eq!(store.persist(&[put(1), put(2), upsert(2, *b"k", *b"v")]).unwrap(), 1);
    assert_eq!(store.persist(&[erase(1, 1u64.to_be_bytes())]).unwrap(), 2);
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!(report, OpenReport { records: 2, quarantined: None, truncated_bytes: 0 });
    assert_eq!(store.load().unwrap(), vec![put(2), upsert(2, *b"k", *b"v")]);
    assert_eq!(store.get(2, b"k").unwrap(), Some(b"v".to_vec()));
    assert_eq!(store.get(1, &1u64.to_be_bytes()).unwrap(), None);
    assert_eq!(store.scan(2).unwrap(), vec![(b"k".to_vec(), b"v".to_vec())]);
}

#[test]
fn the_last_record_of_a_key_in_a_batch_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.persist(&[put(1), erase(1, 1u64.to_be_bytes()), put(1)]).unwrap();
    assert_eq!(store.load().unwrap(), vec![put(1)]);
    drop(store);
    assert_eq!(open(dir.path()).0.load().unwrap(), vec![put(1)]);
}

#[test]
fn a_second_open_says_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    match Store::open(dir.path(), &meta()).unwrap_err() {
        StoreError::Locked { pid, .. } => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other}"),
    }
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap_err().code(), "store.locked");
    drop(store);
    open(dir.path());
}

#[test]
fn a_store_of_another_network_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(dir.path(), 3);
    let other = Meta { network: "signet".into(), magic: *b"sign" };
    let error = Store::open(dir.path(), &other).unwrap_err();
    assert_eq!(error.code(), "store.wrong_network");
    assert!(error.to_string().contains("devnet"));
    assert_eq!(open(dir.path()).0.load().unwrap(), expected);
}

#[test]
fn the_reserved_table_and_an_oversized_record_are_refused_and_change_nothing() {
    let large = upsert(1, *b"k", vec![0; capex::store::MAX_FRAME_BYTES]);
    let batches = [
        (vec![put(1), upsert(0xff, *b"seq", *b"x")], "store.reserved_table"),
        (vec![large.clone()], "store.record_too_large"),
        // Also behind frames that could be written.
        (vec![put(1), put(2), put(3), put(4), large], "store.record_too_large"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (batch, code) in batches {
        let (store, _) = open(dir.path());
        assert_eq!(store.persist(&batch).unwrap_err().code(), code);
        assert_eq!(store.load().unwrap(), vec![]);
    }
    assert_eq!(open(dir.path()).0.persist(&[put(1)]).unwrap(), 1);
}

/// An epoch of more rows than the largest journal frame could hold at once.
#[test]
fn a_result_of_many_rows_is_one_batch_and_is_read_back() {
    let row = |n: u32| ResultRow {
        row: Row {
            v: 1,
            epoch: 7,
            buy: [n as u8; 32],
            sell: [3; 32],
            class: 1,
            start: n,
            slots: 1,
            qty: 1,
            msat: u64::from(n) << 20,
        },
        trade: TradeId([4; 32]),
        buyer: Key([5; 32]),
        seller: Key([6; 32]),
        void: Some("trade.below_minimum".to_owned()),
    };
    let result = EpochResult {
        epoch: 7,
        root: [1; 32],
        count: 200_000,
        rows: (0..120_000).map(row).collect(),
        prices: (0..20_000).map(|n| (1, n, u64::MAX)).collect(),
        result_root: [2; 32],
        welfare_msat: u128::MAX,
    };
    let parts = result.parts();
    let mut records: Vec<Record> =
        parts.map(|(n, part)| Record::store(&part_key(7, n), &part).unwrap()).collect();
    let head = EpochV1 { head: result.head(), parts: Parts::default() };
    records.push(Record::store(&7_u64.to_be_bytes(), &head).unwrap());
    let bytes: usize =
        records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).sum();
    assert!(bytes > 2 * capex::store::MAX_FRAME_BYTES, "{bytes}");

    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &meta()).unwrap();
    assert_eq!(store.persist(&records).unwrap(), 1);
    store.persist(&[put(1)]).unwrap();
    drop(store);
    let (store, report) = Store::open(dir.path(), &meta()).unwrap();
    assert_eq!((report.records, report.quarantined), (records.len() + 1, None));
    for _ in ["from the segments", "from a snapshot"] {
        let read = |table: Table| {
            let found = store.load().unwrap().into_iter();
            found.filter(move |record| record.table == table.number())
        };
        let head: EpochV1 = read(Table::Epoch).next().unwrap().load().unwrap();
        let parts = read(Table::EpochPart).map(|part| part.load::<ResultPart>().unwrap());
        assert_eq!(head.head.assemble(parts).unwrap(), result);
        store.compact().unwrap();
    }
}

#[test]
fn a_large_value_survives() {
    let dir = tempfile::tempdir().unwrap();
    let big = upsert(3, *b"chain", vec![0x5a; 3 << 20]);
    let (store, _) = open(dir.path());
    store.persist(std::slice::from_ref(&big)).unwrap();
    store.compact().unwrap();
    drop(store);
    assert_eq!(open(dir.path()).0.load().unwrap(), vec![big]);
}

/// Submits batches without waiting, and returns what became of each, in order of the answers.
#[test]
fn a_table_is_read_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let key = |n: u64| n.to_be_bytes().to_vec();
    store.persist(&(0..10).map(put).collect::<Vec<_>>()).unwrap();
    store.persist(&[upsert(0, *b"z", *b""), upsert(2, *b"", *b"")]).unwrap();
    let keys = |rows: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<Vec<u8>> {
        rows.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(store.page(1, None, 4).unwrap()), (0..4).map(key).collect::<Vec<_>>());
    assert_eq!(keys(store.page(1, Some(&key(7)), 4).unwrap()), [key(8), key(9)]);
    assert_eq!(keys(store.page(1, Some(&key(9)), 4).unwrap()), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store.page_back(1, None, 3).unwrap()), [key(9), key(8), key(7)]);
    assert_eq!(keys(store.page_back(1, Some(&key(2)), 3).unwrap()), [key(1), key(0)]);
    assert_eq!(keys(store.page_back(1, Some(&key(0)), 3).unwrap()), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store.page_back(3, None, 3).unwrap()), Vec::<Vec<u8>>::new());
    assert_eq!(keys(store.select(1, |key| key[7] % 4 == 1).unwrap()), [key(1), key(5), key(9)]);
    assert_eq!(keys(store.scan_prefix(1, &[0; 7]).unwrap()).len(), 10);
    assert_eq!(keys(store.scan_prefix(1, &key(3)).unwrap()), [key(3)]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("new").join("store");
    fill(&dir, 3);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in [dir.clone(), dir.join("journal"), dir.join("index")] {
        assert_eq!(mode(&path), 0o700, "{}", path.display());
    }
    for path in journal_files(&dir).into_iter().chain([dir.join("lock"), dir.join("index/db")]) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Persist(Vec<(u8, u8, Option<Vec<u8>>)>),
    Compact,
    Reopen,
    LoseIndex,
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
    prop_oneof![
        6 => prop::collection::vec((0u8..3, 0u8..12, value), 0..6).prop_map(Step::Persist),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_store_is_a_map(steps in prop::collection::vec(any_step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let tuning = Tuning {
            segment_bytes: 200,
            compact_min_bytes: 1_000,
            compact_factor: 2,
            frame_bytes: 60,
        };
        let reopen = || Store::open_with(dir.path(), &meta(), tuning.clone()).unwrap().0;
        let mut store = reopen();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Persist(rows) => {
                    let records: Vec<_> = rows
                        .into_iter()
                        .map(|(table, key, value)| Record { table, key: vec![key], value })
                        .collect();
                    store.persist(&records).unwrap();
                    for r in records {
                        match r.value.clone() {
                            Some(_) => model.insert((r.table, r.key.clone()), r),
                            None => model.remove(&(r.table, r.key)),
                        };
                    }
                }
                Step::Compact => store.compact().unwrap(),
                Step::Reopen => {
                    drop(store);
                    store = reopen();
                }
                Step::LoseIndex => {
                    drop(store);
                    fs::remove_dir_all(dir.path().join("index")).unwrap();
                    store = reopen();
                }
            }
            prop_assert_eq!(store.load().unwrap(), model.values().cloned().collect::<Vec<_>>());
        }
    }
}
