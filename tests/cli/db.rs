//! `capex db` on a frozen data directory, and on damaged ones.

use std::fs;
use std::path::{Path, PathBuf};

use capex::store::{Meta, Record, Store, upsert};
use serde_json::Value;

use super::{json_error, run};

/// A data directory of a provider in mid-trade.
fn provider(home: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/datadir/v1/provider");
    let datadir = home.join("provider");
    let journal = datadir.join("store/journal");
    fs::create_dir_all(&journal).unwrap();
    for file in fs::read_dir(from.join("journal")).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, journal.join(path.file_name().unwrap())).unwrap();
    }
    datadir
}

fn meta() -> Meta {
    let params = capex::definitions::load("devnet").unwrap();
    Meta { network: params.name, magic: params.magic }
}

fn store(datadir: &Path) -> Store {
    Store::open(&datadir.join("store"), &meta()).unwrap().0
}

fn db(datadir: &Path, network: &str, args: &[&str]) -> (i32, String, String) {
    let mut all = vec!["db"];
    all.extend(args);
    all.extend(["--network", network, "--datadir", datadir.to_str().unwrap()]);
    run(datadir.parent().unwrap(), &all)
}

fn checked(datadir: &Path) -> Value {
    let (code, out, err) = db(datadir, "devnet", &["check", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_store_moves_through_an_export_and_says_the_same_at_its_new_place() {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (provider(home.path()), home.path().join("moved"));
    let first = checked(&from);
    assert_eq!((&first["network"], &first["index"]), (&"devnet".into(), &"absent".into()));
    assert!(first["records"].as_u64().unwrap() > 10, "{first}");
    let (code, out, _) = db(&from, "devnet", &["check"]);
    assert!(code == 0 && out.contains("all sound") && out.contains("the next start fills it"));
    let (file, again) = (home.path().join("a.jsonl"), home.path().join("b.jsonl"));
    let (code, out, err) = db(&from, "devnet", &["export", file.to_str().unwrap(), "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let exported: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exported["records"], first["records"]);
    let existing = db(&from, "devnet", &["export", file.to_str().unwrap(), "--json"]);
    assert_eq!(json_error(existing).1, "file.unusable", "an export replaces nothing");
    assert_eq!(db(&to, "devnet", &["import", file.to_str().unwrap()]).0, 0);
    assert_eq!(checked(&to)["records"], first["records"]);
    assert_eq!(db(&to, "devnet", &["export", again.to_str().unwrap()]).0, 0);
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
    let (_, out, _) = db(&to, "devnet", &["export", "-"]);
    assert_eq!(fs::read(&file).unwrap(), out.into_bytes());
    let twice = db(&to, "devnet", &["import", file.to_str().unwrap(), "--json"]);
    assert_eq!(json_error(twice), (6, "store.not_empty".to_owned()));
}

#[test]
fn a_damaged_record_is_named_with_its_table_its_key_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let datadir = provider(home.path());
    // The journal is sound: only who knows the tables sees these.
    let damaged: [(Record, &str); 5] = [
        (upsert(5, [7; 32], [1, 2, 3]), "in table `buyer` (5)"),
        (upsert(11, [7; 3], [1, 0, 0, 0, 9]), "in table `capacity` (11)"),
        (upsert(2, [8; 32], [0xee]), "in table `standing` (2)"),
        (upsert(0x7f, *b"later", [1]), "in table 127"),
        (upsert(0xe1, [9; 32], *b"{}"), "in table 225"),
    ];
    let records: Vec<Record> = damaged.iter().map(|(record, _)| record.clone()).collect();
    store(&datadir).persist(&records).unwrap();
    let (code, out, err) = db(&datadir, "devnet", &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    for (record, name) in &damaged {
        let key: String = record.key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(err.contains(&format!("record {key} {name}")), "{name}: {err}");
    }
    assert!(err.contains("start that release"), "what to do about the first of them: {err}");
    let json = db(&datadir, "devnet", &["check", "--json"]);
    assert_eq!(json_error(json), (1, "record.unreadable".to_owned()));
    // A start would refuse the same.
    let many: Vec<Record> = (0..30).map(|n| upsert(5, [n; 32], [1])).collect();
    store(&datadir).persist(&many).unwrap();
    let (_, _, err) = db(&datadir, "devnet", &["check"]);
    assert!(err.contains("and 18 more"), "{err}");
}

#[test]
fn a_damaged_file_is_named_with_the_place_of_the_damage() {
    let home = tempfile::tempdir().unwrap();
    let datadir = provider(home.path());
    let (file, moved) = (home.path().join("a.jsonl"), home.path().join("moved"));
    assert_eq!(db(&datadir, "devnet", &["export", file.to_str().unwrap()]).0, 0);
    let journal = datadir.join("store/journal");
    let segment = fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    // A frame that others follow is acknowledged for sure.
    let later = upsert(0xe1, [9; 32], *b"later");
    let at = bytes.len() - 100;
    store(&datadir).persist(&[later]).unwrap();
    bytes = fs::read(&segment).unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let (code, _, err) = db(&datadir, "devnet", &["check"]);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(code == 1 && err.contains(name) && err.contains("is damaged at byte"), "{err}");
    assert_eq!(json_error(db(&datadir, "devnet", &["check", "--json"])).1, "store.corrupt");
    let text = fs::read_to_string(&file).unwrap();
    for line in [0, 5] {
        let lines: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(at, text)| if at == line { text.replacen('"', "'", 1) } else { text.into() })
            .collect();
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        let (code, out, err) = db(&moved, "devnet", &["import", file.to_str().unwrap()]);
        assert_eq!((code, out.as_str()), (6, ""));
        assert!(err.contains(&format!("line {} of the export", line + 1)), "{err}");
    }
    let changed = text.replacen("\"value\":\"01", "\"value\":\"02", 1);
    fs::write(&file, changed).unwrap();
    let refused = db(&moved, "devnet", &["import", file.to_str().unwrap(), "--json"]);
    assert_eq!(json_error(refused), (6, "store.import".to_owned()));
    let nothing = db(&moved, "devnet", &["check", "--json"]);
    assert_eq!(checked(&moved)["records"], 0, "nothing of it is kept: {nothing:?}");
}

#[test]
fn a_store_of_another_network_is_refused_by_each_command() {
    let home = tempfile::tempdir().unwrap();
    let datadir = provider(home.path());
    let (file, other) = (home.path().join("a.jsonl"), home.path().join("other"));
    assert_eq!(db(&datadir, "devnet", &["export", file.to_str().unwrap()]).0, 0);
    let unused = home.path().join("b.jsonl");
    let attempts = [
        (&datadir, vec!["check"]),
        (&datadir, vec!["export", unused.to_str().unwrap()]),
        (&other, vec!["import", file.to_str().unwrap()]),
    ];
    for (datadir, mut args) in attempts {
        args.push("--json");
        let refused = db(datadir, "regtest", &args);
        assert_eq!(json_error(refused), (1, "store.wrong_network".to_owned()), "{args:?}");
    }
    assert!(!unused.exists());
    let (code, _, err) = db(&home.path().join("none"), "devnet", &["check"]);
    assert!(code != 0 && err.contains("has no store"), "{err}");
}
