//! The table of reasons and the program say the same: every code that a source names is in
//! the table, every row is used, and `docs/api.md` lists them all.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use capex_core::reasons::{Blame, Kind, Reason, all, families};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where reason codes are named, and the table itself, which does not count as a use.
const SOURCES: [&str; 3] = ["core/src", "network/src", "src"];
const TABLE: &str = "core/src/reasons";

/// What stands after the dot in names of files, and before it in names of classes and of
/// control files: texts that only look like reason codes.
const FILE_ENDINGS: [&str; 11] =
    ["addr", "dat", "html", "img", "part", "sock", "tar", "tmp", "toml", "txt", "wasm"];
const NO_FAMILIES: [&str; 10] =
    ["box", "cgroup", "cpu", "cpuacct", "devices", "freezer", "gpu", "io", "memory", "pids"];
/// Files, settings, and labels of counters and secrets.
const OTHER_NAMES: [&str; 25] = [
    "docker.io",
    "config.json",
    "maintenance.json",
    "egress.json",
    "resolv.conf",
    "index.json",
    "manifest.json",
    "made.json",
    "place.json",
    "peers.json",
    "spec.json",
    "state.json",
    "usage.json",
    "api.listen",
    "chain.cookie",
    "chain.url",
    "identity.key",
    "json.tmp",
    "order.nonce",
    "backup.password_file",
    "backup.path",
    "wallet.descriptor",
    "wallet.password_file",
    "wallet.payout",
    "wallet.seed",
];

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every text in quotes of the sources that has the form of a code, and one place of it. Tests
/// stand last in a file, or in a file of their own.
fn named() -> BTreeMap<String, String> {
    let mut paths = Vec::new();
    for folder in SOURCES {
        walk(&root().join(folder), &mut paths);
    }
    let mut found = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let is_test = name.ends_with("/tests.rs") || name.contains("test_support");
        if is_test || name.starts_with(TABLE) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]");
        for (number, line) in lines.enumerate() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            for code in line.split('"').skip(1).step_by(2).filter(|text| is_code(text)) {
                found.insert(code.to_owned(), format!("{name}:{}", number + 1));
            }
        }
    }
    found
}

fn is_code(text: &str) -> bool {
    let Some((family, rest)) = text.split_once('.') else { return false };
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let other = FILE_ENDINGS.contains(&rest) || NO_FAMILIES.contains(&family);
    plain(family) && plain(rest) && !other && !OTHER_NAMES.contains(&text)
}

#[test]
fn every_code_of_the_sources_is_in_the_table() {
    let missing: Vec<String> = named()
        .into_iter()
        .filter(|(code, _)| Reason::find(code).is_none())
        .map(|(code, place)| format!("{place}: {code}"))
        .collect();
    assert!(missing.is_empty(), "add to {TABLE}:\n{}", missing.join("\n"));
}

#[test]
fn every_row_is_used() {
    let named = named();
    let unused: Vec<&str> =
        all().map(Reason::code).filter(|code| !named.contains_key(*code)).collect();
    assert!(unused.is_empty(), "remove from {TABLE}:\n{}", unused.join("\n"));
}

#[test]
fn rows_are_well_formed() {
    let mut codes = BTreeSet::new();
    let mut names = BTreeSet::new();
    for family in families() {
        assert!(names.insert(family.name), "{} twice", family.name);
        let rows: Vec<&str> = family.reasons().map(Reason::code).collect();
        assert!(rows.is_sorted(), "{} ascends", family.name);
        assert!(!rows.is_empty() && !family.who.is_empty(), "{}", family.name);
        for reason in family.reasons() {
            let code = reason.code();
            assert!(codes.insert(code), "{code} twice");
            assert!(is_code(code), "{code}");
            assert_eq!(code.split('.').next(), Some(family.name));
            assert!(code.len() <= 64, "{code} is longer than a peer would take");
            for text in [Some(reason.sentence()), reason.hint()].into_iter().flatten() {
                let plain = !text.ends_with('.') && !text.contains('\n') && !text.contains("  ");
                assert!(plain && !text.contains('|'), "{code}: {text:?}");
            }
            assert!(!reason.sentence().is_empty(), "{code}");
            assert_eq!(Reason::find(code), Some(reason));
            // What is not known as a name must not be found by its beginning.
            assert_eq!(Reason::find(&code[..code.len() - 1]).map(Reason::code), None, "{code}");
        }
    }
}

const BEGIN: &str = "<!-- reasons: CAPEX_BLESS=1 cargo test --test reasons writes this part -->\n";
const END: &str = "<!-- end of reasons -->\n";

fn section() -> String {
    let mut text = BEGIN.to_owned();
    text.push_str("| Code | Meaning | What to do | HTTP, exit | Fault |\n|---|---|---|---|---|\n");
    for family in families() {
        writeln!(text, "| **{}** | **{}** | | | |", family.name, family.who).unwrap();
        for reason in family.reasons() {
            text += &row(reason);
        }
    }
    text + END
}

fn row(reason: Reason) -> String {
    let ends = match reason.kind() {
        Kind::Note => String::new(),
        _ => format!("{}, {}", reason.status(), reason.exit() as u8),
    };
    let fault = match reason.blame() {
        Blame::Nobody => "",
        Blame::Local => "own",
        Blame::Peer => "peer",
    };
    let sentence = reason.sentence().replace('<', "&lt;");
    let hint = reason.hint().unwrap_or_default();
    let cells = [&format!("`{reason}`"), sentence.as_str(), hint, &ends, fault];
    let cells = cells.map(|cell| if cell.is_empty() { String::new() } else { format!(" {cell} ") });
    format!("|{}|\n", cells.join("|"))
}

#[test]
fn the_page_lists_the_table() {
    let path = root().join("docs/api.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/api.md has the part of reasons");
    let (_, after) = rest.split_once(END).expect("the part of reasons has an end");
    let expected = format!("{before}{}{after}", section());
    if std::env::var_os("CAPEX_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/api.md differs from {TABLE}: run `CAPEX_BLESS=1 cargo test --test reasons`"
    );
}
