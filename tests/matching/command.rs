//! `capex match` as a command: what it reads, prints and returns.

use std::io::Write;

use capex::cli::match_cmd;
use capex_core::matching::Algorithm;
use serde_json::{Value, json};

use super::vectors::{GOLDEN, GOLDEN_2};

/// What one run of the command leaves behind.
pub(crate) struct Ran {
    pub(crate) exit_code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(input: &str, json: bool) -> Ran {
    run_as(None, input, json)
}

pub(crate) fn run_as(algorithm: Option<Algorithm>, input: &str, json: bool) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stdin = &mut std::io::empty();
    let exit_code = match_cmd::run(input, algorithm, json, stdin, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit_code, out: text(out), err: text(err) }
}

pub(crate) fn run_on(text: &str, json: bool) -> Ran {
    run_on_as(None, text, json)
}

fn run_on_as(algorithm: Option<Algorithm>, text: &str, json: bool) -> Ran {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    run_as(algorithm, file.path().to_str().unwrap(), json)
}

pub(crate) fn matched(book: &Value) -> Value {
    matched_as(None, book)
}

pub(crate) fn matched_as(algorithm: Option<Algorithm>, book: &Value) -> Value {
    let ran = run_on_as(algorithm, &book.to_string(), false);
    assert_eq!((ran.exit_code, ran.err.as_str()), (0, ""), "{}", ran.out);
    serde_json::from_str(&ran.out).unwrap()
}

fn beacon() -> String {
    "00".repeat(32)
}

#[test]
fn an_array_of_books_prints_an_array_of_results_in_order() {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    let inputs: Vec<&Value> = vectors.iter().map(|vector| &vector["input"]).collect();
    let ran = run_on(&serde_json::to_string(&inputs).unwrap(), true);
    let expected: Vec<&Value> = vectors.iter().map(|vector| &vector["expect"]).collect();
    assert_eq!(ran.exit_code, 0);
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&ran.out).unwrap(),
        expected.into_iter().cloned().collect::<Vec<_>>()
    );
    let empty = run_on("[]", false);
    assert_eq!((empty.exit_code, empty.out.as_str()), (0, "[]\n"));
}

#[test]
fn a_refused_book_keeps_its_place_and_sets_the_exit_code() {
    let good = json!({"beacon": beacon(), "orders": []});
    let bad = json!({"beacon": "00", "orders": []});
    let ran = run_on(&json!([good, bad, 7, good]).to_string(), false);
    assert_eq!((ran.exit_code, ran.err.as_str()), (6, ""));
    let answers: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answers[0], json!({"welfare_msat": 0, "prices": {}, "trades": []}));
    assert_eq!(answers[0], answers[3]);
    assert_eq!(answers[1]["error"]["code"], "match.beacon");
    assert_eq!(answers[2]["error"]["code"], "match.wrong_type");
    let keys: Vec<_> = answers[1]["error"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "message"]);
}

#[test]
fn malformed_json_is_one_line_with_its_place() {
    let ran = run_on("{\n  \"beacon\": }", false);
    assert_eq!((ran.exit_code, ran.out.as_str()), (6, ""));
    assert_eq!(ran.err.lines().count(), 1);
    assert!(ran.err.contains("line 2 column 13"), "{}", ran.err);
    let ran = run_on("{\n  \"beacon\": }", true);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.exit_code, ran.out.as_str()), (6, ""));
    assert_eq!(error["error"]["code"], "match.malformed_json");
}

#[test]
fn an_unreadable_file_is_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.json");
    let ran = run(missing.to_str().unwrap(), false);
    assert_eq!((ran.exit_code, ran.out.as_str()), (2, ""));
    assert!(ran.err.starts_with("error[match.unreadable]: "), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert_eq!(run(folder.path().to_str().unwrap(), false).exit_code, 2);
}

#[test]
fn failures_have_the_form_of_every_other_command() {
    let ran = run("missing\x1b\u{202e}", false);
    let shown = "error[match.unreadable]: missing\\u{1b}\\u{202e}: ";
    assert!(ran.err.starts_with(shown), "{}", ran.err);
    let ran = run("missing", true);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    let keys: Vec<_> = error["error"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "hint", "message"]);
}

#[test]
fn more_books_than_a_machine_can_answer_are_refused() {
    let books = vec![0; 65_537];
    let ran = run_on(&json!(books).to_string(), false);
    assert_eq!((ran.exit_code, ran.out.as_str()), (6, ""));
    assert!(ran.err.starts_with("error[match.too_many_books]: 65537 books"), "{}", ran.err);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
    let ran = run_on(&json!(books[1..]).to_string(), false);
    assert_eq!((ran.exit_code, ran.err.as_str()), (6, ""));
    assert_eq!(serde_json::from_str::<Vec<Value>>(&ran.out).unwrap().len(), 65_536);
}

/// Standard output of which the reader is gone, or whose disk is full.
struct Broken(std::io::ErrorKind);

impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let run_to = |kind| {
        let mut err = Vec::new();
        let mut input = b"[]".as_slice();
        let mut out = Broken(kind);
        let code = match_cmd::run("-", Some(Algorithm::One), false, &mut input, &mut out, &mut err);
        (code, String::from_utf8(err).unwrap())
    };
    assert_eq!(run_to(std::io::ErrorKind::BrokenPipe), (0, String::new()));
    let (code, err) = run_to(std::io::ErrorKind::StorageFull);
    assert!(code == 2 && err.starts_with("error[match.unwritable]: "), "{code} {err}");
}

#[test]
fn welfare_beyond_64_bits_prints_exactly() {
    let mut orders = Vec::new();
    for at in 0..20 {
        let common =
            json!({"owner": at.to_string(), "qty": 10_000, "window": [0, 168], "class": 0});
        for (side, limit) in [("buy", 1_000_000_000_000u64), ("sell", 1)] {
            let mut order = common.clone();
            order["id"] = format!("{side}{at}").into();
            order["owner"] = format!("{side}{at}").into();
            order["side"] = side.into();
            order["limit"] = limit.into();
            if side == "buy" {
                order["hours"] = 168.into();
            }
            orders.push(order);
        }
    }
    let ran = run_on(&json!({"beacon": beacon(), "orders": orders}).to_string(), false);
    let welfare = 20u128 * 10_000 * 168 * 999_999_999_999;
    assert!(welfare > u128::from(u64::MAX));
    assert!(ran.out.starts_with(&format!("{{\"welfare_msat\":{welfare},")), "{}", &ran.out[..80]);
}

#[test]
fn an_exported_book_reads_back_to_the_same_result() {
    for seed in 0..50 {
        let book = super::books::random(seed);
        let exported = match_cmd::to_json(&book);
        let expected = capex_core::matching::solve(&book, Algorithm::One).unwrap();
        let result = matched(&exported);
        assert_eq!(result["trades"].as_array().unwrap().len(), expected.trades.len());
        assert_eq!(result["prices"].as_object().unwrap().len(), expected.prices.len());
    }
}

#[test]
fn a_book_may_name_the_version_of_the_rules_and_the_flag_goes_before_it() {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN_2).unwrap();
    let contested = vectors.iter().find(|v| v["name"].as_str().unwrap().starts_with("contested"));
    let (mut book, expected) = (contested.unwrap()["input"].clone(), &contested.unwrap()["expect"]);
    let first = matched(&book);
    assert_ne!(first, *expected);
    book["algorithm"] = 2.into();
    assert_eq!(matched(&book), *expected);
    assert_eq!(matched_as(Some(Algorithm::One), &book), first);
    for (value, code) in [
        (json!(0), "match.algorithm"),
        (json!(3), "match.algorithm"),
        (json!(1000), "match.algorithm"),
        (json!("2"), "match.wrong_type"),
    ] {
        book["algorithm"] = value;
        let ran = run_on(&book.to_string(), false);
        assert_eq!(ran.exit_code, 6);
        assert!(ran.out.contains(&format!("\"{code}\"")), "{}", ran.out);
    }
}
