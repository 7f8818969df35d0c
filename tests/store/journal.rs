//! Damage to the journal, and what interrupts its compaction.

use super::*;

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
    // The index alone knows it.
    fs::remove_file(dir.path().join("acknowledged")).unwrap();
    assert_eq!(check(dir.path(), &mut |_| ()).unwrap_err().code(), "store.lost");
    assert_eq!(Store::open(dir.path(), &meta()).unwrap_err().code(), "store.lost");
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
