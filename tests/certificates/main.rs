//! Two programs that share no line read certificates and say the same: `capex cert verify`, and
//! `scripts/verify_certificate.py`, which was written from docs/certificates.md.
//!
//! `CAPEX_LIVES` sets how many random lives are played.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

#[path = "../../core/tests/certificate_fixture/mod.rs"]
mod certificate_fixture;
mod lives;
mod tampered;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use capex::cli;
use capex::cli::output::Io;
use capex::sim::Rng;
use capex_core::certificate::Certificate;
use capex_core::certificate::file::write;
use certificate_fixture::devnet;
use serde_json::Value;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/verify_certificate.py");
const STRICT: &str = include_str!("../vectors/wire/ed25519-strict.hex");
/// Lives of a normal test run, and operations in each.
const LIVES: u64 = 4;
const OPERATIONS: u64 = 400;

/// Files for both programs.
struct Files {
    folder: tempfile::TempDir,
    written: Vec<(String, PathBuf)>,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), written: Vec::new() }
    }

    fn add(&mut self, name: impl Into<String>, text: &str) {
        let path = self.folder.path().join(format!("{}.txt", self.written.len()));
        std::fs::write(&path, text).unwrap();
        self.written.push((name.into(), path));
    }

    /// Both answers of each file, which must be the same.
    fn compared(&self) -> Vec<(&str, Value)> {
        let others = said_by_python(self.written.iter().map(|(_, path)| path));
        assert_eq!(others.len(), self.written.len());
        let both = self.written.iter().zip(others).map(|((name, path), other)| {
            let one = said_by_capex(path);
            assert_eq!(one, other, "{name}");
            (name.as_str(), one)
        });
        both.collect()
    }
}

/// What `capex cert verify --json` says, of an error its code alone.
fn said_by_capex(path: &std::path::Path) -> Value {
    let args = ["capex", "cert", "verify", "--json"].map(OsString::from);
    let args = args.into_iter().chain([path.into()]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        can_ask: false,
        out_is_terminal: false,
    };
    cli::run(args, &[], &mut io);
    if !out.is_empty() {
        return serde_json::from_slice(&out).unwrap();
    }
    let failed: Value = serde_json::from_slice(&err).unwrap();
    serde_json::json!({ "error": { "code": failed["error"]["code"] } })
}

fn said_by_python<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<Value> {
    let ran = Command::new("python3").arg(PROGRAM).arg("--json").args(paths).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(matches!(ran.status.code(), Some(0 | 6)), "{told}");
    let lines = String::from_utf8(ran.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether the second program can run here; in CI it must.
#[allow(clippy::print_stdout, reason = "says that it was skipped")]
fn has_python() -> bool {
    let tried = Command::new("python3").args(["-c", "import tomllib"]).output();
    let has_it = tried.is_ok_and(|tried| tried.status.success());
    if !has_it {
        assert!(std::env::var_os("CI").is_none(), "no python3 with tomllib (3.11)");
        println!("skipped: no python3 with tomllib (3.11)");
    }
    has_it
}

fn text(certificate: &Certificate) -> String {
    write(certificate, &devnet())
}

/// Every unit-slot of what was issued is in exactly one of the certificates.
fn assert_conserved(said: &[&Value], issued: &[capex_core::certificate::objects::Area]) {
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let mut cells = BTreeMap::new();
    for one in said {
        for slot in number(&one["window"][0])..number(&one["window"][1]) {
            for range in one["units"].as_array().unwrap() {
                for unit in number(&range[0])..number(&range[1]) {
                    let other = cells.insert((unit, slot), &one["cert_id"]);
                    assert_eq!(other, None, "unit {unit} in slot {slot} is in {}", one["cert_id"]);
                }
            }
        }
    }
    let unit_slots: u64 = issued.iter().map(|area| area.unit_slots()).sum();
    assert_eq!(cells.len() as u64, unit_slots);
}

#[test]
#[allow(clippy::print_stdout, reason = "says how many there were")]
fn of_a_long_life_both_say_the_same() {
    if !has_python() {
        return;
    }
    let lives = std::env::var("CAPEX_LIVES").ok().and_then(|text| text.parse().ok());
    let mut most = (0, 0, 0);
    for seed in 0..lives.unwrap_or(LIVES) {
        let mut life = lives::Life::new(seed);
        let mut files = Files::new();
        for operation in 1..=OPERATIONS {
            let tried = life.act();
            if let Some(refused) = tried {
                files.add(format!("life {seed}, {operation}: refused"), &text(&refused));
            }
            if operation % (OPERATIONS / 4) == 0 {
                for piece in &life.pieces {
                    let name = format!("life {seed}, {operation}: {}", piece.cert_id);
                    files.add(name, &text(&piece.certificate));
                }
            }
        }
        let said = files.compared();
        let last: Vec<&Value> =
            said[said.len() - life.pieces.len()..].iter().map(|(_, said)| said).collect();
        assert!(last.iter().all(|said| said["signatures"] == "ok"), "{last:?}");
        assert_conserved(&last, &life.issued);
        for (name, said) in &said {
            let is_good = said["error"].is_null();
            assert_eq!(is_good, !name.ends_with("refused"), "{name}: {said}");
            let length = |field: &str| said[field].as_array().map_or(0, Vec::len);
            most.0 += usize::from(is_good);
            most.1 = most.1.max(length("transfers"));
            most.2 = most.2.max(said["seq"].as_u64().unwrap_or(0));
        }
        println!("life {seed}: {}", life.told());
    }
    println!("{} good files, up to {} transfers and seq {}", most.0, most.1, most.2);
}

#[test]
fn of_every_tampering_both_say_the_same() {
    if !has_python() {
        return;
    }
    let mut files = Files::new();
    let table = tampered::table();
    for (name, _, text) in &table {
        files.add(*name, text);
    }
    for ((name, code, _), (_, said)) in table.iter().zip(files.compared()) {
        let expected = (!code.is_empty()).then_some(*code);
        assert_eq!(said["error"]["code"].as_str(), expected, "{name}: {said}");
    }
}

/// Bits, characters and lines that change for no reason.
#[test]
fn of_a_spoiled_file_both_say_the_same() {
    if !has_python() {
        return;
    }
    let (mut files, mut rng) = (Files::new(), Rng::new(5));
    let mut life = lives::Life::new(9);
    (0..60).for_each(|_| drop(life.act()));
    let longest = life.pieces.iter().max_by_key(|piece| piece.certificate.hops.len()).unwrap();
    let good = text(&longest.certificate);
    let lines: Vec<&str> = good.lines().collect();
    for cut in 0..lines.len() {
        files.add(format!("without line {}", cut + 1), &without(&lines, cut));
        files.add(format!("{cut} lines"), &lines[..cut].join("\n"));
        let mut swapped = lines.clone();
        swapped.swap(cut, (cut + 1) % lines.len());
        files.add(format!("line {} and the next swapped", cut + 1), &swapped.join("\n"));
        let mut twice = lines.clone();
        twice.insert(cut, lines[cut]);
        files.add(format!("line {} twice", cut + 1), &twice.join("\n"));
    }
    for number in 0..400 {
        let mut bytes = good.clone().into_bytes();
        let at = usize::try_from(rng.within(0, bytes.len() as u64)).unwrap();
        let characters = b"0123456789abcdef \n-Ag";
        bytes[at] = characters[usize::try_from(rng.within(0, 21)).unwrap()];
        let spoiled = String::from_utf8(bytes).unwrap();
        files.add(format!("{number}: character {at}"), &spoiled);
    }
    files.compared();
}

fn without(lines: &[&str], number: usize) -> String {
    let kept = lines.iter().enumerate().filter(|(at, _)| *at != number);
    kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
}

/// What mail and editors do to a text does not change what it says.
#[test]
fn of_a_mailed_file_both_say_the_same() {
    if !has_python() {
        return;
    }
    let mut life = lives::Life::new(3);
    (0..30).for_each(|_| drop(life.act()));
    let good = text(&life.pieces[0].certificate);
    let wrapped: String = good
        .lines()
        .map(|line| {
            let (head, tail) = line.split_at(line.len().min(70));
            format!("{head}\r\n{tail}\r\n")
        })
        .collect();
    let mut files = Files::new();
    files.add("as it is", &good);
    files.add("with a mark and blank lines", &format!("\u{feff}\n\n{good}\n \n"));
    files.add("wrapped", &wrapped);
    files.add("empty", "");
    let said = files.compared();
    assert_eq!(said[0].1["signatures"], "ok");
    assert_eq!((&said[0].1, &said[0].1), (&said[1].1, &said[2].1));
    assert_eq!(said[3].1["error"]["code"], "certificate.file_header");
}

/// The cases on which verifiers of ed25519 differ.
#[test]
fn the_second_program_verifies_strictly() {
    if !has_python() {
        return;
    }
    const SCRIPT: &str = "
import runpy, sys
program = runpy.run_path(sys.argv[1])
for line in sys.stdin:
    key, payload, signature = (bytes.fromhex(field) for field in line.split())
    said = program['message']('countersign', bytes([0xca, 0xfe, 0, 5]), payload)
    print(program['is_signed'](key, said, signature))
";
    let field = |case: &str, name: &str| {
        let found =
            case.lines().skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {case}")).to_owned()
    };
    let cases: Vec<&str> = STRICT.split("\ncase ").skip(1).collect();
    let lines: String = cases
        .iter()
        .map(|case| ["key", "payload", "signature"].map(|name| field(case, name)).join(" ") + "\n")
        .collect();
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT, PROGRAM])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), cases.len());
    for (case, said) in cases.iter().zip(said.lines()) {
        let expected = field(case, "answer") == "accepted";
        assert_eq!(said == "True", expected, "{case}");
    }
}
