//! A damaged journal: opening it says so or drops an unfinished tail; what it then loads was
//! written. The first byte says what is damaged: the tail, or three bytes per patch.

use std::fs;
use std::path::{Path, PathBuf};

use capex::store::{Meta, Record, Store};

pub fn run(bytes: &[u8]) {
    let Some((pick, bytes)) = bytes.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let meta = Meta { network: "devnet".to_owned(), magic: *b"fuzz" };
    let written = fill(dir.path(), &meta);
    let segment = segment(dir.path());
    let mut content = fs::read(&segment).expect("the journal");
    match pick % 3 {
        0 => content = bytes.to_vec(),
        1 => content.extend_from_slice(bytes),
        _ => {
            for patch in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % content.len();
                content[at] ^= patch[2];
            }
        }
    }
    fs::write(&segment, content).expect("room for it");
    fs::remove_dir_all(dir.path().join("index")).expect("the index");
    if let Ok((store, _)) = Store::open(dir.path(), &meta) {
        let loaded = store.load().expect("an index just built");
        assert!(loaded.iter().all(|record| written.contains(record)), "{loaded:?}");
    }
}

fn fill(dir: &Path, meta: &Meta) -> Vec<Record> {
    let (store, _) = Store::open(dir, meta).expect("a new store");
    let records: Vec<Record> =
        (1..=3).map(|n| Record { table: n, key: vec![n; 32], value: Some(vec![n; 40]) }).collect();
    for record in &records {
        store.persist(std::slice::from_ref(record)).expect("room for it");
    }
    records
}

fn segment(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("journal")).expect("the journal");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.pop().expect("a segment")
}
