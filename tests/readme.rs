//! The documentation is true: its commands parse, its links lead somewhere, its tables say
//! what the sources say, and its transcript is one that `capex devnet` can print.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use capex::cli::Cli;
use clap::Parser;

const PAGES: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/trust.md",
    "docs/api.md",
    "docs/certificates.md",
    "docs/matching.md",
    "docs/performance.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Text of the sources below a folder, without tests.
fn sources(folder: &str) -> Vec<String> {
    let mut waiting = vec![root().join(folder)];
    let mut texts = Vec::new();
    while let Some(dir) = waiting.pop() {
        let entries =
            fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                texts.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
            }
        }
    }
    texts
}

/// Every command of a page: lines of `sh` blocks, and code in backticks.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.to_owned()) };
            continue;
        }
        match block.as_deref() {
            Some("sh") => found.push(line.to_owned()),
            Some(_) => {}
            None => {
                let inline = line.split('`').skip(1).step_by(2);
                found.extend(inline.filter(|code| code.starts_with("capex ")).map(str::to_owned));
            }
        }
    }
    found
}

/// The words of a command after `capex`, with values for ids, keys, digests and epochs.
fn words(command: &str) -> Option<Vec<String>> {
    let command = command.split(['#', '|', '>']).next().unwrap_or_default();
    let words = command.split_whitespace().skip_while(|word| word.contains('='));
    let word = |word: &str| match word {
        "ID" | "CERT_ID" | "LEASE_ID" | "KEY" => "ab".repeat(32),
        "EPOCH" => "871234567".to_owned(),
        _ => word.replace("sha256:DIGEST", &format!("sha256:{}", "ab".repeat(32))),
    };
    let words: Vec<String> = words.map(word).collect();
    (words.first().map(String::as_str) == Some("capex")).then_some(words)
}

#[test]
fn every_command_in_the_documentation_parses() {
    let mut parsed = 0;
    for name in PAGES {
        for command in commands(&read(name)) {
            let Some(words) = words(&command) else { continue };
            // Who asks for help or for the version gets it in the place of a command.
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                panic!("{name}: `{command}`: {error}");
            }
            parsed += 1;
        }
    }
    assert!(parsed > 40, "only {parsed} commands were found");
}

#[test]
fn every_link_leads_somewhere() {
    for name in PAGES {
        let folder = Path::new(name).parent().unwrap();
        let page = read(name);
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { PathBuf::from(name) } else { folder.join(path) };
            let text = read(&path.to_string_lossy());
            let heading =
                |line: &str| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-");
            let leads = anchor.is_empty()
                || text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| heading(line) == anchor);
            assert!(leads, "{name}: {target}");
        }
    }
}

#[test]
fn the_first_screen_has_the_two_commands() {
    let readme = read("README.md");
    let head: Vec<&str> = readme.lines().take(12).collect();
    let commands = head.iter().filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(commands, ["cargo run --release -- devnet", "cargo test"]);
    let end = readme.lines().position(|line| line == "<!-- end of transcript -->");
    assert!(end.is_some_and(|line| line <= 40), "the transcript ends at {end:?}");
}

/// Rows of the tables of a page: cells without backticks.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    page.lines().filter(|line| line.starts_with("| ")).map(cells).collect()
}

#[test]
fn the_routes_of_the_page_are_those_of_the_api() {
    let mut served = BTreeSet::from(["GET /livez".to_owned()]);
    for text in sources("src/api") {
        for route in text.split(".route(\"").skip(1) {
            let line = route.lines().next().unwrap();
            let (path, handlers) = line.split_once('"').unwrap();
            // The one route with a larger limit has its handler in a variable.
            let handlers = handlers.replace("upload", "post(").replace("::", "");
            for (handler, method) in [("get(", "GET"), ("post(", "POST"), ("delete(", "DELETE")] {
                if handlers.contains(handler) {
                    served.insert(format!("{method} /api/v1{path}"));
                }
            }
        }
    }
    let told = rows(&read("docs/api.md")).into_iter().map(|row| row[0].clone());
    let told: BTreeSet<String> = told.filter(|cell| cell.contains(" /")).collect();
    assert_eq!(told, served);
}

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_program() {
    let failure = read("core/src/reasons/mod.rs");
    let codes = failure.lines().filter_map(|line| {
        let (_, code) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        code.parse().ok()
    });
    let codes: BTreeSet<u16> = codes.collect();
    let told = rows(&read("docs/api.md")).into_iter().filter_map(|row| row[0].parse().ok());
    assert_eq!(told.collect::<BTreeSet<u16>>(), codes);
}

/// What a format string prints, as the fixed texts around its values.
fn fixed_parts(format: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for c in format.chars() {
        match c {
            '{' => {
                inside = true;
                parts.push(String::new());
            }
            '}' => inside = false,
            _ if inside => {}
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    parts
}

fn fits(line: &str, parts: &[String]) -> bool {
    let (first, rest) = parts.split_first().unwrap();
    let Some(mut line) = line.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return line.is_empty() };
    for part in middle {
        let Some(at) = line.find(part.as_str()) else { return false };
        line = &line[at + part.len()..];
    }
    line.ends_with(last.as_str())
}

/// The string after an opening quote, with its line breaks joined.
fn literal(text: &str) -> String {
    let raw = text.split('"').next().unwrap_or_default();
    let mut joined = String::new();
    for (n, piece) in raw.split("\\\n").enumerate() {
        joined.push_str(if n == 0 { piece } else { piece.trim_start() });
    }
    joined
}

/// Texts of the devnet that follow a call and have words in them.
fn formats_after(calls: &[&str]) -> Vec<Vec<String>> {
    let mut formats = Vec::new();
    for text in sources("src/cli/devnet") {
        for call in calls.iter().flat_map(|start| text.split(start).skip(1)) {
            if let Some(format) = call.trim_start().strip_prefix('"') {
                formats.push(fixed_parts(&literal(format)));
            }
        }
    }
    formats.retain(|parts| parts.concat().split_whitespace().count() > 3);
    formats
}

#[test]
fn the_transcript_is_one_that_the_devnet_can_print() {
    let readme = read("README.md");
    let begins = "<!-- transcript of: capex devnet";
    let transcript = readme.split(begins).skip(1).map(|rest| {
        let block = rest.split("```text\n").nth(1).unwrap();
        block.split("\n```").next().unwrap()
    });
    let transcript = transcript.collect::<Vec<_>>().join("\n");
    let formats = formats_after(&["format_args!(", "format!("]);
    let lines: Vec<&str> = transcript.lines().filter(|line| !line.is_empty()).collect();
    let told = |line: &str| line.split_once(" s  ").map_or(line, |(_, told)| told).to_owned();
    let what_to_do = "run `capex devnet --seed 7 --containers` and copy what it prints";
    for line in &lines {
        let known = formats.iter().any(|parts| fits(&told(line), parts));
        let advice = line.starts_with("Next: capex ") || line.starts_with("      capex ");
        assert!(known || advice, "`capex devnet` does not print: {line}\n{what_to_do}");
    }
    for parts in formats_after(&[".tell(format_args!("]) {
        let shown = lines.iter().any(|line| fits(&told(line), &parts));
        assert!(shown, "missing from the transcript: {}\n{what_to_do}", parts.join("…"));
    }
}
