//! Comparison with an independent implementation in Python, where one is given.

use std::fs;
use std::process::Command;

use capex::cli::match_cmd;
use capex::domain::matching::Instance;

use super::books;
use super::command::run;

/// Path of the reference. The test is skipped without it.
const REFERENCE: &str = "CAPEX_MATCHING_REF";
/// How many random books to compare.
const BOOKS: &str = "CAPEX_MATCHING_BOOKS";

const SCRIPT: &str = "
import json, runpy, sys
match = runpy.run_path(sys.argv[1])['match']
books = json.load(open(sys.argv[2], encoding='utf-8'))
text = json.dumps([match(b) for b in books], separators=(',', ':'), ensure_ascii=False)
sys.stdout.buffer.write(text.encode() + b'\\n')
";

#[test]
fn random_books_match_byte_for_byte_as_in_the_external_reference() {
    let Ok(reference) = std::env::var(REFERENCE) else {
        println!("skipped: {REFERENCE} names no reference");
        return;
    };
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3");
        return;
    }
    let count: u64 = std::env::var(BOOKS).map_or(500, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.json");
    // Seeds apart from those of the comparison with the naive implementation.
    let books: Vec<_> = (0..count).map(|at| match_cmd::to_json(&book(1_000_000 + at))).collect();
    fs::write(&file, serde_json::to_string(&books).unwrap()).unwrap();
    let expected =
        Command::new("python3").args(["-c", SCRIPT, &reference]).arg(&file).output().unwrap();
    assert!(expected.status.success(), "{}", String::from_utf8_lossy(&expected.stderr));
    let ran = run(file.to_str().unwrap(), false);
    assert_eq!(ran.exit_code, 0);
    if ran.out.as_bytes() != expected.stdout {
        report_difference(&ran.out, &String::from_utf8(expected.stdout).unwrap());
    }
    let trading = ran.out.matches("\"trades\":[{").count();
    println!("{count} books identical, {trading} of them with trades");
}

/// One book in a hundred is a crowded one.
fn book(seed: u64) -> Instance {
    if seed.is_multiple_of(100) { books::crowded(seed) } else { books::random(seed) }
}

fn report_difference(ours: &str, theirs: &str) -> ! {
    let split = |text: &str| text.split("{\"welfare_msat\"").map(str::to_owned).collect::<Vec<_>>();
    let pairs = split(ours).into_iter().zip(split(theirs));
    let (at, (ours, theirs)) = pairs.enumerate().find(|(_, (a, b))| a != b).unwrap();
    panic!("book {} differs:\n ours {ours}\n reference {theirs}", at as i64 - 1);
}
