//! An index that is gone, behind, or wrong: it follows from the journal.

use super::*;

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
