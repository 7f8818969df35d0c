//! Rules of the house that the compiler cannot see: who names what, and how large a room
//! may grow.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 800;
const FILE_LINES_MEDIAN: usize = 200;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = rust_files(&root().join("src"));
    files.extend(rust_files(&root().join("core/src")));
    files.extend(rust_files(&root().join("network/src")));
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The lines before the test module, which stands last in a file.
fn without_tests(text: &str) -> Vec<&str> {
    text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]").collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Whole files of tests: named so, or saying so in their first attribute.
fn is_test_file(path: &Path, text: &str) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    let says_so = text.lines().any(|line| line.trim_end() == "#![cfg(test)]");
    says_so || name == "tests" || name.ends_with("_tests") || relative(path).contains("/tests/")
}

#[test]
fn files_and_functions_stay_small() {
    let mut sizes = Vec::new();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if is_test_file(&path, &text) {
            continue;
        }
        let lines = without_tests(&text);
        if lines.len() > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines", relative(&path), lines.len()));
        }
        faults.extend(long_functions(&path, &lines));
        sizes.push(lines.len());
    }
    sizes.sort_unstable();
    let median = sizes[sizes.len() / 2];
    assert!(faults.is_empty(), "too large:\n{}", faults.join("\n"));
    assert!(median <= FILE_LINES_MEDIAN, "the median file has {median} lines");
}

/// A file of tests is read as often as one of sources.
#[test]
fn files_of_tests_stay_small_too() {
    let folders =
        ["tests", "core/tests", "network/tests", "benches", "core/benches", "fuzz/bodies"];
    let files = folders.into_iter().flat_map(|folder| rust_files(&root().join(folder)));
    let long: Vec<String> = files
        .map(|path| (relative(&path), fs::read_to_string(&path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "too large:\n{}", long.join("\n"));
}

/// Functions longer than the limit, found by their indentation, which rustfmt guarantees.
fn long_functions(path: &Path, lines: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let is_fn = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn "]
            .iter()
            .chain(&["pub async fn ", "pub(super) async fn ", "const fn ", "pub const fn "])
            .any(|start| body.starts_with(start));
        if !is_fn || line.trim_end().ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(line.len() - body.len()));
        if let Some(length) = lines[first..].iter().position(|line| **line == close)
            && length + 1 > FUNCTION_LINES_MAX
        {
            faults.push(format!("{}:{}: {} lines", relative(path), first + 1, length + 1));
        }
    }
    faults
}

/// One crate may be named, as a path, only in one place.
#[test]
fn heavy_crates_have_one_door() {
    let doors = [
        ("bincode", "core/src/wire.rs"),
        ("sled", "src/store/"),
        ("libp2p", "network/src/"),
        ("wasmtime", "src/executor/"),
        ("wasmtime_wasi", "src/executor/"),
        ("libcontainer", "src/executor/runtimes/oci/"),
        ("seccompiler", "src/executor/runtimes/oci/"),
        ("tar", "src/executor/"),
        ("rustls", "src/executor/pulls/"),
        ("rustls_native_certs", "src/executor/pulls/"),
        ("russh", "src/executor/access/"),
        ("russh_sftp", "src/executor/access/"),
        ("bdk_wallet", "src/wallet/"),
        ("bitcoinconsensus", "src/chain/"),
        ("axum", "src/api/"),
        ("clap", "src/cli/"),
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        for (krate, door) in doors {
            let devchain_server = krate == "axum" && name.starts_with("src/chain/devchain/");
            if name.starts_with(door) || devchain_server {
                continue;
            }
            for (number, line) in without_tests(&text).iter().enumerate() {
                if names_crate(line, krate) {
                    faults.push(format!("{name}:{}: names {krate}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn names_crate(line: &str, krate: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let path = format!("{krate}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// What the core must not do, as far as the compiler cannot see it.
#[test]
fn the_core_is_pure() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::io",
        "std::thread",
        "std::env",
        "std::process",
        "Instant::now",
        "SystemTime",
        "HashMap",
        "HashSet",
        "f32",
        "f64",
        "async fn",
        "rand::",
        "getrandom",
        "unwrap()",
    ];
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        if !name.starts_with("core/src/") || is_test_file(&path, &text) {
            continue;
        }
        for (number, line) in without_tests(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in forbidden {
                if contains_word(code, word) {
                    faults.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joins(before) && (word.ends_with(':') || word.ends_with(')') || !joins(after))
    })
}

/// All that the core may depend on. `cargo tree` prints the direct dependencies.
#[test]
fn the_core_depends_on_nothing_impure() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", "capex-core", "-e", "normal"])
        .args(["--depth", "1", "--prefix", "none", "--format", "{lib}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let expected: BTreeSet<String> = [
        "capex_core",
        "bincode",
        "bitcoin",
        "ed25519_dalek",
        "hmac",
        "rayon",
        "rust_decimal",
        "serde",
        "sha2",
        "thiserror",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(found, expected);
}

/// One copy of each of the big ones.
#[test]
fn big_dependencies_are_not_duplicated() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in [
        "bitcoin",
        "secp256k1",
        "miniscript",
        "bdk_wallet",
        "libp2p",
        "libp2p-gossipsub",
        "ed25519-dalek",
        "tokio",
        "axum",
        "hyper",
        "sled",
        "bincode",
        "rustls",
        "wasmtime",
        "serde",
    ] {
        let entry = format!("name = \"{name}\"\n");
        assert_eq!(lock.matches(&entry).count(), 1, "{name} in Cargo.lock");
    }
}

/// Code before the test module, without comments.
fn code(text: &str) -> String {
    let lines = without_tests(text).into_iter();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// A folder of modules begins with its `mod.rs`.
#[test]
fn modules_have_one_style() {
    let has_folder = |path: &Path| path.with_extension("").is_dir();
    let beside: Vec<String> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| has_folder(path))
        .map(|path| relative(&path))
        .collect();
    assert!(
        beside.is_empty(),
        "these belong into their folders, as mod.rs:\n{}",
        beside.join("\n")
    );
}

/// An error that is a code alone names it by `code!`, so that one that is in no table does not
/// compile.
#[test]
fn codes_of_errors_are_looked_up_while_compiling() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        if !name.starts_with("core/src/") || is_test_file(&path, &text) {
            continue;
        }
        let code = code(&text);
        for word in ["Err(\"", "ok_or(\""] {
            for (at, _) in code.match_indices(word) {
                let literal = code[at + word.len()..].split('"').next().unwrap_or_default();
                let is_code = |part: &str| {
                    !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                };
                if literal.split('.').count() == 2 && literal.split('.').all(is_code) {
                    faults.push(format!("{name}: {literal}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "write code!(..) for these:\n{}", faults.join("\n"));
}

/// What stands below the engine does not name it.
#[test]
fn the_domain_does_not_name_its_engine() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        let below = name.starts_with("core/src/") && !name.starts_with("core/src/engine/");
        if below && name != "core/src/lib.rs" && code(&text).contains("engine::") {
            faults.push(name);
        }
    }
    assert!(faults.is_empty(), "these name the engine:\n{}", faults.join("\n"));
}

/// Rooms may build on each other, in one direction: a folder, how its modules are named from the
/// crate on, and what in it knows all of them.
#[test]
fn no_rooms_import_each_other_in_a_circle() {
    let router = ["mod", "router", "queries", "io", "messages", "kernel"];
    for (folder, base, besides) in [
        ("core/src/engine/", "crate::engine", &router[..]),
        ("src/", "crate", &["lib", "main"]),
        ("src/node/", "crate::node", &["mod"]),
        ("src/cli/", "crate::cli", &["mod"]),
    ] {
        let circle = circle(folder, base, besides);
        assert!(circle.is_empty(), "a circle in {folder}: {circle:?}");
    }
}

/// The rooms of a folder that import each other in a circle, and whom they import.
fn circle(folder: &str, base: &str, besides: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in sources() {
        let Some(inside) = relative(&path).strip_prefix(folder).map(str::to_owned) else {
            continue;
        };
        let room = inside.split(['/', '.']).next().unwrap_or_default().to_owned();
        if besides.contains(&room.as_str()) || is_test_file(&path, &text) {
            continue;
        }
        let depth = inside.matches('/').count() - usize::from(inside.ends_with("/mod.rs"));
        let above = format!("{}super::", "super::".repeat(depth));
        let others = named(&code(&text)).into_iter().filter_map(|path| {
            let path = path.strip_prefix(base).and_then(|path| path.strip_prefix("::"));
            path.map(str::to_owned)
        });
        let beside = named(&code(&text))
            .into_iter()
            .filter_map(|path| path.strip_prefix(above.as_str()).map(str::to_owned));
        for path in others.chain(beside) {
            let other = path.split("::").next().unwrap_or_default();
            if other != room && !besides.contains(&other) {
                names.entry(room.clone()).or_default().insert(other.to_owned());
            }
        }
    }
    // Takes away what names nothing that is left, until only circles are.
    loop {
        let before = names.len();
        let left: BTreeSet<String> = names.keys().cloned().collect();
        names.retain(|_, others| others.iter().any(|other| left.contains(other)));
        if names.len() == before {
            return names;
        }
    }
}

/// Every path that a source names, those of grouped imports one by one.
fn named(code: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut prefixes, mut path) = (vec![String::new()], String::new());
    for c in code.chars() {
        match c {
            '{' if path.ends_with("::") => {
                let prefix = prefixes.last().cloned().unwrap_or_default();
                prefixes.push(prefix + &path);
                path.clear();
            }
            _ if c.is_alphanumeric() || c == '_' || c == ':' => path.push(c),
            _ => {
                if !path.is_empty() {
                    all.push(format!("{}{path}", prefixes.last().cloned().unwrap_or_default()));
                    path.clear();
                }
                if c == '}' && prefixes.len() > 1 {
                    prefixes.pop();
                }
            }
        }
    }
    all
}

/// All changes of state enter by `handle`, and `poll_effect` hands out what follows.
#[test]
fn an_engine_is_changed_by_its_inputs_alone() {
    let mut doors = Vec::new();
    for file in ["mod.rs", "queries.rs", "router.rs"] {
        let text = fs::read_to_string(root().join("core/src/engine").join(file)).unwrap();
        let text = code(&text);
        let open = text.split("    pub fn ").skip(1);
        let changes = open.filter(|rest| rest.split(')').next().unwrap().contains("&mut self"));
        doors.extend(changes.map(|rest| rest.split('(').next().unwrap().to_owned()));
    }
    assert_eq!(doors, ["handle", "poll_effect"]);
}

/// Sources whose names other crates' tests use: instruments, in the program because a test of
/// a whole node needs them.
const INSTRUMENTS: [(&str, &str); 3] = [
    ("src/sim/", "the simulator, driven by tests/scenarios"),
    ("src/executor/samples.rs", "the workloads that tests/executor runs"),
    ("src/chain/devchain/", "the development chain, driven by tests/devchain"),
];

/// Names that nothing in the sources uses, each for its reason.
const UNUSED: [(&str, &str); 2] = [
    ("is_equal", "what the fuzzer of `capex epoch verify` asks of an audit"),
    ("local_peer", "a user of the network crate that lets it make the key has to learn it"),
];

/// The compiler takes what is public for used. What only tests call stands behind
/// `test-support`, or goes.
#[test]
fn nothing_public_is_unused() {
    let files: Vec<(String, String)> = sources()
        .into_iter()
        .filter(|(path, text)| !is_test_file(path, text))
        .map(|(path, text)| (relative(&path), code(&text)))
        .filter(|(name, _)| !name.contains("test_support"))
        .collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for word in files.iter().flat_map(|(_, text)| words(text)) {
        *uses.entry(word).or_default() += 1;
    }
    let mut found = BTreeSet::new();
    let mut faults = Vec::new();
    for (file, text) in &files {
        for name in declared(text).filter(|name| uses[name] == 1) {
            if UNUSED.iter().any(|(known, _)| *known == name) {
                found.insert(name);
            } else if !INSTRUMENTS.iter().any(|(start, _)| file.starts_with(start)) {
                faults.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "public, and used by no source:\n{}", faults.join("\n"));
    assert_eq!(found.len(), UNUSED.len(), "used by now, or gone: only {found:?} are left");
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Names of public functions and constants that every build contains.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    let mut is_gated = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[cfg(") {
            is_gated = true;
        }
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let gated = std::mem::take(&mut is_gated);
        let mut rest = words(line)
            .skip_while(|word| ["pub", "crate", "super", "async", "unsafe"].contains(word));
        let (kind, name) = (rest.next()?, rest.next()?);
        let name = if (kind, name) == ("const", "fn") { rest.next()? } else { name };
        let is_item = line.starts_with("pub") && ["fn", "const"].contains(&kind);
        (is_item && !gated).then_some(name)
    })
}

/// Public functions, types and constants of the libraries say what they are for. Fields and
/// variants need no sentence where their name says it all.
#[test]
fn the_libraries_document_what_they_offer() {
    let is_offer = |line: &str| {
        ["fn ", "async fn ", "const fn ", "struct ", "enum ", "trait ", "const ", "type "]
            .iter()
            .any(|kind| line.strip_prefix("pub ").is_some_and(|rest| rest.starts_with(kind)))
    };
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let name = relative(&path);
        let is_library = name.starts_with("core/src/") || name.starts_with("network/src/");
        if !is_library || is_test_file(&path, &text) {
            continue;
        }
        let lines = without_tests(&text);
        for (number, line) in lines.iter().enumerate() {
            // A macro hands the documentation on.
            if !is_offer(line.trim_start()) || line.contains('$') {
                continue;
            }
            let above = lines[..number].iter().rev().map(|line| line.trim());
            let mut above = above.skip_while(|line| {
                line.starts_with("#[") || line.ends_with(']') || line.ends_with("))]")
            });
            if !above.next().is_some_and(|line| line.starts_with("///")) {
                faults.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "no documentation:\n{}", faults.join("\n"));
}

/// What is said of a rule stands in the repository, so that a reader can follow it.
#[test]
fn nothing_refers_to_a_page_outside_the_repository() {
    let outside = [concat!("DES", "IGN"), concat!("rese", "arch/"), concat!("../sha", "red")];
    let mut faults = Vec::new();
    let mut look = |name: &str, text: &str| {
        for (number, line) in text.lines().enumerate() {
            if outside.iter().any(|word| line.contains(word)) {
                faults.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    };
    for (path, text) in sources() {
        look(&relative(&path), &text);
    }
    for folder in ["", "docs"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                look(&relative(&path), &fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
