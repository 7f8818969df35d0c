//! What the store promises: everything acknowledged is there after any interruption, and
//! nothing that was damaged goes unnoticed.

#![allow(clippy::unwrap_used)]

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
fn a_tail_torn_at_any_byte_leaves_every_earlier_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut lens = Vec::new();
    {
        let (store, _) = Store::open(dir.path(), &meta()).unwrap();
        let file = journal_files(dir.path()).remove(0);
        lens.push(fs::metadata(&file).unwrap().len());
        for n in 0..3 {
            store.persist(&[put(n), put(n + 100)]).unwrap();
            lens.push(fs::metadata(&file).unwrap().len());
        }
    }
    let file = journal_files(dir.path()).remove(0);
    let bytes = fs::read(&file).unwrap();
    for cut in 0..bytes.len() {
        let copy = tempfile::tempdir().unwrap();
        let journal = copy.path().join("journal");
        fs::create_dir(&journal).unwrap();
        fs::write(journal.join(file.file_name().unwrap()), &bytes[..cut]).unwrap();
        let (store, report) = Store::open(copy.path(), &meta()).unwrap();
        let whole = lens.iter().filter(|len| **len <= cut as u64).count().saturating_sub(1);
        let kept = lens.iter().filter(|len| **len <= cut as u64).max().copied().unwrap_or(0);
        assert_eq!(report.records, 2 * whole, "cut at {cut}");
        assert_eq!(report.truncated_bytes, cut as u64 - kept, "cut at {cut}");
        assert_eq!(store.persist(&[put(50)]).unwrap(), whole as u64 + 1);
    }
}

/// A batch of many frames, the last write before the power went.
#[test]
fn a_batch_of_many_frames_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { segment_bytes: 1 << 20, ..small() };
    let (store, _) = Store::open_with(dir.path(), &meta(), tuning).unwrap();
    store.persist(&[put(1)]).unwrap();
    let file = journal_files(dir.path()).remove(0);
    let before = fs::metadata(&file).unwrap().len() as usize;
    let many: Vec<Record> = (2..30).map(put).collect();
    assert_eq!(store.persist(&many).unwrap(), 2, "one batch, one number");
    drop(store);
    let bytes = fs::read(&file).unwrap();
    let reopen = |bytes: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("journal")).unwrap();
        fs::write(copy.path().join("journal").join(file.file_name().unwrap()), bytes).unwrap();
        let (store, report) = open(copy.path());
        let found = store.load().unwrap();
        let next = store.persist(&[put(100)]).unwrap();
        drop(store);
        assert_eq!(open(copy.path()).0.load().unwrap().len(), found.len() + 1);
        (found.len(), report.truncated_bytes as usize, next)
    };
    assert_eq!(reopen(&bytes), (29, 0, 3));
    for cut in before..bytes.len() {
        assert_eq!(reopen(&bytes[..cut]), (1, cut - before, 2), "cut at {cut}");
    }
    // The disk need not have written the frames in their order.
    for at in (before..bytes.len()).step_by(13) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert_eq!(reopen(&bad), (1, bytes.len() - before, 2), "hole at {at}");
    }
    // But once a later batch is there, all of it was acknowledged.
    let (store, _) = open(dir.path());
    store.persist(&[put(200)]).unwrap();
    drop(store);
    let last = journal_files(dir.path()).pop().unwrap();
    assert_ne!(last, file, "in the next segment");
    for at in (before..bytes.len()).step_by(13) {
        let copy = tempfile::tempdir().unwrap();
        copy_journal(dir.path(), copy.path());
        let target = copy.path().join("journal").join(file.file_name().unwrap());
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        fs::write(&target, &bad).unwrap();
        assert_eq!(check(copy.path(), &mut |_| ()).unwrap_err().code(), "store.corrupt");
        fs::write(&target, &bytes[..at]).unwrap();
        assert_eq!(check(copy.path(), &mut |_| ()).unwrap_err().code(), "store.corrupt");
    }
}

#[test]
fn damage_to_acknowledged_bytes_is_an_error_with_file_and_offset() {
    let source = tempfile::tempdir().unwrap();
    fill(source.path(), 30);
    let files = journal_files(source.path());
    assert!(files.len() >= 3);
    // Every file; in the last one, every frame but the last, which an interrupted write
    // could have spoilt just so.
    for (i, file) in files.iter().enumerate() {
        let len = fs::read(file).unwrap().len();
        let end = if i + 1 == files.len() { len / 3 } else { len };
        for at in (0..end).step_by(7) {
            let copy = tempfile::tempdir().unwrap();
            copy_journal(source.path(), copy.path());
            let target = copy.path().join("journal").join(file.file_name().unwrap());
            let mut bytes = fs::read(&target).unwrap();
            bytes[at] ^= 0x10;
            fs::write(&target, &bytes).unwrap();
            match Store::open_with(copy.path(), &meta(), small()).unwrap_err() {
                StoreError::Corrupt { file, offset, .. } => {
                    assert_eq!(file, target);
                    assert!(offset as usize <= at, "offset {offset}, damage at {at}");
                }
                other => panic!("{other}"),
            }
            assert_eq!(fs::read(&target).unwrap(), bytes, "a refused journal is left as it is");
        }
    }
}

#[test]
fn a_missing_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 30);
    for gone in [0, 1] {
        let copy = tempfile::tempdir().unwrap();
        copy_journal(dir.path(), copy.path());
        fs::remove_file(&journal_files(copy.path())[gone]).unwrap();
        let error = Store::open_with(copy.path(), &meta(), small()).unwrap_err();
        assert_eq!(error.code(), "store.corrupt");
    }
}

#[test]
fn a_journal_that_vanished_from_beside_its_index_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    assert_eq!(Store::open(dir.path(), &meta()).unwrap_err().code(), "store.corrupt");
}

/// Bytes are gone from the end of the journal after they were acknowledged: a card that lies, or a
/// cut by hand.
#[test]
fn a_journal_that_ends_too_early_is_refused_with_the_index_and_without() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 25);
    let last = journal_files(dir.path()).pop().unwrap();
    let (bytes, index) = (fs::read(&last).unwrap(), dir.path().join("index"));
    let opened = || Store::open_with(dir.path(), &meta(), small()).map(drop);
    let looked = || check(dir.path(), &mut |_| ()).map(drop);
    for has_index in [true, false] {
        if !has_index {
            fs::remove_dir_all(&index).unwrap();
        }
        for gone in [1, 5, bytes.len()] {
            fs::write(&last, &bytes[..bytes.len() - gone]).unwrap();
            for refused in [looked(), opened()] {
                let error = refused.unwrap_err();
                assert_eq!(error.code(), "store.lost", "{gone} bytes, index: {has_index}");
                assert!(error.to_string().contains("up to 25 were acknowledged"), "{error}");
            }
            assert_eq!(fs::read(&last).unwrap().len(), bytes.len() - gone, "nothing is changed");
        }
        fs::remove_file(&last).unwrap();
        assert_eq!(opened().unwrap_err().code(), "store.lost");
        fs::write(&last, &bytes).unwrap();
        looked().unwrap();
        opened().unwrap();
    }
    // The index alone knows it too.
    fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();
    fs::remove_file(dir.path().join("acknowledged")).unwrap();
    assert_eq!(looked().unwrap_err().code(), "store.lost");
    assert_eq!(opened().unwrap_err().code(), "store.lost");
    assert!(index.exists(), "it is not blamed");
}

#[test]
fn a_journal_that_vanished_with_its_index_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    for name in ["journal", "index"] {
        fs::remove_dir_all(dir.path().join(name)).unwrap();
    }
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap_err().code(), "store.lost");
    assert_eq!(Store::open(dir.path(), &meta()).unwrap_err().code(), "store.lost");
}

/// Every file state that a crash inside a compaction can leave.
#[test]
fn a_crash_at_any_step_of_a_compaction_loses_nothing() {
    let before = tempfile::tempdir().unwrap();
    let expected = fill(before.path(), 40);
    let after = tempfile::tempdir().unwrap();
    copy_journal(before.path(), after.path());
    let (store, _) = open(after.path());
    store.compact().unwrap();
    drop(store);
    let old = journal_files(before.path());
    let new = journal_files(after.path());
    assert_eq!(new.len(), 2, "one new segment and one snapshot");
    let (segment, snapshot) = (&new[0], &new[1]);
    assert!(old.len() > 3 && fs::metadata(snapshot).unwrap().len() > 500);

    let state = |extra: &[(&Path, PathBuf)], removed: usize| {
        let dir = tempfile::tempdir().unwrap();
        copy_journal(before.path(), dir.path());
        for file in &old[..removed] {
            fs::remove_file(dir.path().join("journal").join(file.file_name().unwrap())).unwrap();
        }
        for (file, name) in extra {
            fs::copy(file, dir.path().join("journal").join(name)).unwrap();
        }
        dir
    };
    let name = |file: &Path| PathBuf::from(file.file_name().unwrap());
    let unfinished = || name(snapshot).with_extension("tmp");
    let mut states = vec![
        state(&[(segment, name(segment).with_extension("tmp"))], 0),
        state(&[(segment, name(segment))], 0),
        state(&[(segment, name(segment)), (snapshot, unfinished())], 0),
    ];
    for removed in 0..=old.len() {
        states.push(state(&[(segment, name(segment)), (snapshot, name(snapshot))], removed));
    }
    for (i, dir) in states.iter().enumerate() {
        let (store, report) = open(dir.path());
        assert_eq!(report.records, expected.len(), "state {i}");
        assert_eq!(store.load().unwrap(), expected, "state {i}");
        assert_eq!(store.persist(&[put(1_000)]).unwrap(), 41, "state {i}");
        drop(store);
        assert!(journal_files(dir.path()).iter().all(|f| f.extension().unwrap() == "log"));
        assert_eq!(open(dir.path()).0.load().unwrap().len(), expected.len() + 1, "state {i}");
    }
}

#[test]
fn a_damaged_snapshot_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 20);
    open(dir.path()).0.compact().unwrap();
    let snapshot = journal_files(dir.path()).pop().unwrap();
    let bytes = fs::read(&snapshot).unwrap();
    for at in (0..bytes.len()).step_by(31) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        fs::write(&snapshot, &bad).unwrap();
        assert_eq!(
            check(dir.path(), &mut |_| ()).unwrap_err().code(),
            "store.corrupt",
            "byte {at}"
        );
    }
    fs::write(&snapshot, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap_err().code(), "store.corrupt");
}

#[test]
fn the_journal_compacts_itself_and_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { segment_bytes: 2_000, compact_min_bytes: 10_000, ..small() };
    let (store, _) = Store::open_with(dir.path(), &meta(), tuning.clone()).unwrap();
    for n in 0..600u64 {
        store.persist(&[put(n % 10)]).unwrap();
        store.settle().unwrap();
        assert!(store.journal_bytes() <= 12_500, "{} bytes at {n}", store.journal_bytes());
    }
    let on_disk: u64 =
        journal_files(dir.path()).iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    assert_eq!(on_disk, store.journal_bytes());
    drop(store);
    let (store, report) = Store::open_with(dir.path(), &meta(), tuning).unwrap();
    assert_eq!((report.records, report.quarantined), (10, None));
    assert_eq!(store.last_seq(), 600);
}

#[test]
fn an_index_full_of_garbage_is_put_aside_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(dir.path(), 25);
    let index = dir.path().join("index");
    for round in 1..=5 {
        for entry in fs::read_dir(&index).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let len = fs::metadata(&path).unwrap().len().clamp(64, 1 << 16) as usize;
                fs::write(&path, (0..len).map(|i| (i * 31 + round) as u8).collect::<Vec<_>>())
                    .unwrap();
            }
        }
        let (store, report) = open(dir.path());
        let aside = dir.path().join(format!("quarantine-{round}"));
        assert_eq!(report.quarantined, Some(aside.clone()));
        assert!(aside.is_dir());
        assert_eq!(store.load().unwrap(), expected);
    }
    let kept = fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("quarantine-"));
    assert_eq!(kept.count(), 3);
}

#[test]
fn an_index_that_says_something_else_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(dir.path(), 25);
    // The index of another history of the same length.
    let other = tempfile::tempdir().unwrap();
    {
        let (store, _) = open(other.path());
        for n in 0..25 {
            store.persist(&[put(n + 1)]).unwrap();
        }
    }
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::rename(other.path().join("index"), dir.path().join("index")).unwrap();
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap().index, IndexState::Disagrees);
    let (store, report) = open(dir.path());
    assert!(report.quarantined.is_some());
    assert_eq!(store.load().unwrap(), expected);
}

#[test]
fn an_index_that_lags_behind_catches_up_in_place() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 5);
    let ahead = tempfile::tempdir().unwrap();
    copy_journal(dir.path(), ahead.path());
    let (store, _) = open(ahead.path());
    store.persist(&[put(5), erase(1, 0u64.to_be_bytes())]).unwrap();
    let expected = store.load().unwrap();
    drop(store);
    fs::remove_dir_all(ahead.path().join("index")).unwrap();
    fs::rename(dir.path().join("index"), ahead.path().join("index")).unwrap();
    let (store, report) = open(ahead.path());
    assert_eq!((report.records, report.quarantined), (5, None));
    assert_eq!(store.load().unwrap(), expected);
}

#[test]
fn a_deleted_index_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(dir.path(), 25);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap().index, IndexState::Absent);
    let (store, report) = open(dir.path());
    assert_eq!((report.records, report.quarantined), (25, None));
    assert_eq!(store.load().unwrap(), expected);
    store.durable_flush().unwrap();
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
fn submit_all(store: &Store, batches: Vec<Vec<Record>>) -> Vec<(usize, Result<u64, &'static str>)> {
    let (answers, answered) = mpsc::channel();
    for (at, batch) in batches.into_iter().enumerate() {
        let answers = answers.clone();
        store.submit(batch, move |result| {
            answers.send((at, result.map_err(|error| error.code()))).unwrap();
        });
    }
    drop(answers);
    answered.iter().collect()
}

#[test]
fn batches_that_wait_are_durable_in_order_and_share_an_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let batches: Vec<Vec<Record>> = (0..500).map(|n| vec![put(n % 50), put(1_000 + n)]).collect();
    let answers = submit_all(&store, batches);
    assert!(answers.iter().map(|(at, _)| *at).eq(0..500), "in order of submission");
    let seqs: Vec<u64> = answers.iter().map(|(_, result)| result.unwrap()).collect();
    assert!(seqs.is_sorted());
    assert_eq!(store.last_seq(), seqs[499]);
    assert!(store.last_seq() < 500, "{} fsyncs for 500 batches", store.last_seq());
    let expected = store.load().unwrap();
    assert_eq!(expected.len(), 550);
    drop(store);
    assert_eq!(open(dir.path()).0.load().unwrap(), expected);
}

/// What is written at once is held in memory several times.
#[test]
fn a_burst_is_written_in_batches_of_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), &meta()).unwrap();
    let batch = |n: u64| vec![upsert(1, n.to_be_bytes(), vec![7; 256 << 10])];
    let answers = submit_all(&store, (0..64).map(batch).collect());
    assert!(answers.iter().all(|(_, result)| result.is_ok()));
    assert!(store.last_seq() >= 12, "16 MiB in {} batches", store.last_seq());
    assert_eq!(store.load().unwrap().len(), 64);
}

#[test]
fn what_was_submitted_is_written_before_the_store_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..200 {
        store.submit(vec![put(n)], |result| assert!(result.is_ok()));
    }
    drop(store);
    assert_eq!(open(dir.path()).1.records, 200);
}

/// What comes later may build on the batch that was refused.
#[test]
fn a_refused_batch_stops_those_behind_it_and_none_before_it() {
    let large = upsert(1, *b"k", vec![0; capex::store::MAX_FRAME_BYTES]);
    let reserved = upsert(0xff, *b"seq", *b"x");
    for (bad, code) in [(large, "store.record_too_large"), (reserved, "store.reserved_table")] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let batches = vec![vec![put(1)], vec![put(3), bad], vec![put(2)]];
        let answers = submit_all(&store, batches);
        assert!(answers.iter().map(|(at, _)| *at).eq(0..3), "in order of submission");
        let codes: Vec<Option<&str>> = answers.iter().map(|(_, result)| result.err()).collect();
        assert_eq!(codes, [None, Some(code), Some("store.poisoned")]);
        assert_eq!(store.load().unwrap(), vec![put(1)]);
        drop(store);
        let (store, _) = open(dir.path());
        assert_eq!(store.load().unwrap(), vec![put(1)]);
        store.persist(&[put(2)]).unwrap();
    }
}

#[test]
fn a_compaction_and_appending_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                submit_all(&store, (0..20).map(|n| vec![put(round * 10 + n)]).collect());
            }
        });
        scope.spawn(|| (0..8).for_each(|_| store.compact().unwrap()));
    });
    let (expected, seq) = (store.load().unwrap(), store.last_seq());
    assert_eq!(expected.len(), 410);
    store.settle().unwrap();
    let files = journal_files(dir.path());
    let on_disk: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(on_disk, store.journal_bytes());
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((store.last_seq(), report.quarantined, report.truncated_bytes), (seq, None, 0));
    assert_eq!(store.load().unwrap(), expected);
}

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

fn export(store: &Store) -> Vec<u8> {
    let mut out = Vec::new();
    store.export(&mut out, &mut |_| {}).unwrap();
    out
}

#[test]
fn an_export_comes_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 25);
    let (store, _) = open(dir.path());
    store.persist(&[upsert(200, vec![], vec![]), erase(1, 3u64.to_be_bytes())]).unwrap();
    let text = export(&store);
    let copy = tempfile::tempdir().unwrap();
    assert_eq!(import(copy.path(), &meta(), &mut &text[..], &mut |_| {}).unwrap(), 25);
    let (imported, _) = open(copy.path());
    assert_eq!(imported.load().unwrap(), store.load().unwrap());
    assert_eq!(export(&imported), text);
    assert_eq!(imported.persist(&[put(99)]).unwrap(), store.last_seq() + 1);
    drop(imported);
    let again =
        import(copy.path(), &meta(), &mut BufReader::new(&text[..]), &mut |_| {}).unwrap_err();
    assert_eq!(again.code(), "store.not_empty");
}

/// No start would read it beside the mark of the journal that is gone.
#[test]
fn an_export_is_not_imported_beside_what_is_left_of_another_store() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    let text = export(&open(dir.path()).0);
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let again = import(dir.path(), &meta(), &mut &text[..], &mut |_| {});
    assert_eq!(again.unwrap_err().code(), "store.not_empty");
    fs::remove_file(dir.path().join("acknowledged")).unwrap();
    assert_eq!(import(dir.path(), &meta(), &mut &text[..], &mut |_| {}).unwrap(), 3);
}

#[test]
fn a_changed_or_shortened_export_is_refused_and_leaves_no_store() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3);
    let text = export(&open(dir.path()).0);
    let copy = tempfile::tempdir().unwrap();
    for len in 0..text.len() {
        let error = import(copy.path(), &meta(), &mut &text[..len], &mut |_| {}).unwrap_err();
        assert_eq!(error.code(), "store.import", "cut at {len}");
    }
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] = if bad[at] == b'1' { b'2' } else { b'1' };
        assert!(import(copy.path(), &meta(), &mut &bad[..], &mut |_| {}).is_err(), "byte {at}");
    }
    let mut longer = text.clone();
    longer.extend_from_slice(b"{}\n");
    assert!(import(copy.path(), &meta(), &mut &longer[..], &mut |_| {}).is_err());
    let other = Meta { network: "signet".into(), magic: *b"sign" };
    let error = import(copy.path(), &other, &mut &text[..], &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), "store.wrong_network");
    assert!(!copy.path().join("journal").exists());
    assert_eq!(import(copy.path(), &meta(), &mut &text[..], &mut |_| {}).unwrap(), 3);
}

#[test]
fn a_check_reports_without_repairing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap().meta, None);
    fill(dir.path(), 30);
    let last = journal_files(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend_from_slice(&[0; 11]);
    fs::write(&last, &bytes).unwrap();
    let report = check(dir.path(), &mut |_| ()).unwrap();
    assert_eq!(report.meta, Some(meta()));
    assert_eq!((report.records, report.last_seq, report.torn_bytes), (30, 30, 11));
    assert_eq!(report.index, IndexState::Agrees);
    assert_eq!(report.files, journal_files(dir.path()).len());
    assert_eq!(fs::read(&last).unwrap(), bytes);
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
