//! The store as a file, and a look at it that repairs nothing.

use super::*;

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
