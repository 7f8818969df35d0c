//! `capex match` as people run it: the golden vectors in, the expected results out.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

const GOLDEN: &str = include_str!("vectors/matching-golden.json");

fn golden() -> (Vec<Value>, Vec<Value>) {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    let part = |name: &str| vectors.iter().map(|vector| vector[name].clone()).collect();
    (part("input"), part("expect"))
}

fn run(input: &str, text: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_capex"))
        .args(["match", "--input", input, "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), utf8(output.stdout), utf8(output.stderr))
}

#[test]
fn all_vectors_from_standard_input_and_from_a_file() {
    let (inputs, expected) = golden();
    let text = Value::from(inputs).to_string();
    let (code, out, err) = run("-", &text);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), Value::from(expected));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("books.json");
    std::fs::write(&path, &text).unwrap();
    assert_eq!(run(path.to_str().unwrap(), ""), (0, out, String::new()));
}

#[test]
fn one_object_gives_one_object_and_a_refusal_keeps_its_place() {
    let (inputs, expected) = golden();
    let (code, out, _) = run("-", &inputs[3].to_string());
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected[3]);

    let mut bad = inputs[3].clone();
    bad["orders"][0]["qty"] = 10_001.into();
    let (code, out, _) = run("-", &Value::from(vec![bad, inputs[4].clone()]).to_string());
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 6);
    assert_eq!(out[0]["error"]["code"], "match.qty_too_large");
    assert_eq!(out[1], expected[4]);
}

#[test]
fn malformed_json_is_one_line_with_its_place() {
    let (code, out, err) = run("-", "{\"orders\": [}");
    assert_eq!((code, out.as_str()), (6, ""));
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(error["error"]["code"], "match.malformed_json");
    assert!(error["error"]["message"].as_str().unwrap().contains("line 1"), "{err}");
}
