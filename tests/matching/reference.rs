//! Comparison with the independent implementation in Python that is published with the
//! vectors. `CAPEX_MATCHING_BOOKS=10000` compares as many books.

use std::fs;
use std::process::Command;

use capex::cli::match_cmd;
use capex_core::matching::{Algorithm, Instance};

use super::books;
use super::command::run_as;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/matching_ref.py");
/// How many random books to compare.
const BOOKS: &str = "CAPEX_MATCHING_BOOKS";
/// Compared where nothing else is said.
pub(crate) const USUAL_BOOKS: u64 = 500;

const SCRIPT: &str = "
import json, runpy, sys
match = runpy.run_path(sys.argv[1])['match']
books = json.load(open(sys.argv[2], encoding='utf-8'))
text = json.dumps([match(b, int(sys.argv[3])) for b in books], separators=(',', ':'), ensure_ascii=False)
sys.stdout.buffer.write(text.encode() + b'\\n')
";

/// Books of version 2 per book of version 1: in Python one takes as long as a hundred.
const IMPROVED_SHARE: u64 = 20;

#[test]
fn random_books_match_byte_for_byte_as_in_the_external_reference() {
    compare(Algorithm::One, (0..count()).map(book));
}

#[test]
fn improved_books_match_byte_for_byte_as_in_the_external_reference() {
    compare(Algorithm::Two, (0..count() / IMPROVED_SHARE).map(|at| books::contested(1_000 + at)));
}

fn count() -> u64 {
    std::env::var(BOOKS).map_or(USUAL_BOOKS, |count| count.parse().unwrap())
}

fn compare(algorithm: Algorithm, books: impl Iterator<Item = Instance>) {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no python3");
        println!("skipped: no python3");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.json");
    let books: Vec<_> = books.map(|book| match_cmd::to_json(&book)).collect();
    fs::write(&file, serde_json::to_string(&books).unwrap()).unwrap();
    let version = if algorithm == Algorithm::One { "1" } else { "2" };
    let mut python = Command::new("python3");
    let python = python.args(["-c", SCRIPT, REFERENCE]).arg(&file).arg(version);
    let expected = python.output().unwrap();
    assert!(expected.status.success(), "{}", String::from_utf8_lossy(&expected.stderr));
    let ran = run_as(Some(algorithm), file.to_str().unwrap(), false);
    assert_eq!(ran.exit_code, 0);
    if ran.out.as_bytes() != expected.stdout {
        report_difference(&ran.out, &String::from_utf8(expected.stdout).unwrap());
    }
    let trading = ran.out.matches("\"trades\":[{").count();
    println!("{} books identical, {trading} of them with trades", books.len());
}

/// One book in a hundred is a crowded one. The seeds are apart from those of the comparison
/// with the naive implementation.
pub(crate) fn book(at: u64) -> Instance {
    let seed = 1_000_000 + at;
    if seed.is_multiple_of(100) { books::crowded(seed) } else { books::random(seed) }
}

fn report_difference(ours: &str, theirs: &str) -> ! {
    let split = |text: &str| text.split("{\"welfare_msat\"").map(str::to_owned).collect::<Vec<_>>();
    let pairs = split(ours).into_iter().zip(split(theirs));
    let (at, (ours, theirs)) = pairs.enumerate().find(|(_, (a, b))| a != b).unwrap();
    panic!("book {} differs:\n ours {ours}\n reference {theirs}", at as i64 - 1);
}
