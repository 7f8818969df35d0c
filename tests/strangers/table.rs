//! The table of docs/trust.md names every bound as the code has it. What a bound does is shown
//! where it is kept; this notices one that was changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const LIMITS: &str = "core/src/limits.rs";
const NETWORK: &str = "network/src/limits.rs";
const HEARD: &str = "core/src/engine/witness/heard.rs";
const ROOM: &str = "core/src/engine/holdings/room.rs";

/// The first cell of a row, where a bound of it is, its name, and the bytes of what it counts.
const BOUNDS: [(&str, &str, &str, u64); 40] = [
    ("orders of an epoch", LIMITS, "ORDERS_PER_EPOCH", 1),
    ("orders of an epoch", LIMITS, "ORDERS_PER_OWNER_KEPT", 1),
    ("orders of an epoch", LIMITS, "ORDERS_PER_OWNER_BOOK", 1),
    ("roots of an epoch", LIMITS, "ROOTS_PER_EPOCH", 1),
    ("roots of an epoch", "core/src/engine/market/epochs.rs", "EARLY_ROOTS_MAX", 1),
    ("contacts", LIMITS, "CONTACTS_MAX", 1),
    ("statements of providers", LIMITS, "STATEMENTS_MAX_BYTES", 1 << 20),
    ("statements of providers", HEARD, "STATEMENTS_PER_PROVIDER", 1),
    ("statements of providers", HEARD, "STATEMENTS_PER_EPOCH", 1),
    ("proofs of contradiction", "core/src/engine/witness/proofs.rs", "PROOFS_MAX", 1),
    ("certificates brought unasked", ROOM, "BROUGHT_HOPS_MAX", 1),
    ("misses of others", LIMITS, "CONDUCT_MAX", 1),
    ("pools", LIMITS, "POOLS_MAX", 1),
    ("pools", LIMITS, "FUNDERS_MAX", 1),
    ("open trades, and locks", LIMITS, "OPEN_SETTLEMENTS_MAX", 1),
    ("open trades, and locks", LIMITS, "LIVE_LOCKS_PER_KEY", 1),
    ("trades that came to nothing", "core/src/engine/trades/past.rs", "PAST_KEPT", 1),
    ("watched outputs and inputs", "src/chain/watcher.rs", "MAX_WATCHED", 1),
    ("watched outputs and inputs", LIMITS, "WATCHED_INPUTS_MAX", 1),
    ("leases, and their files", LIMITS, "OPEN_LEASES_MAX", 1),
    ("leases, and their files", LIMITS, "WORKLOAD_MAX_BYTES", 1 << 20),
    ("leases, and their files", LIMITS, "STREAM_MAX_BYTES", 1 << 20),
    ("results of a lease, at its holder", LIMITS, "RESULTS_MAX_BYTES", 1 << 20),
    ("results of a lease, at its holder", LIMITS, "STREAM_MAX_BYTES", 1 << 20),
    ("gossip that waits for a verdict", NETWORK, "MAX_TICKETS", 1),
    ("gossip that waits for a verdict", NETWORK, "MAX_TICKET_BYTES", 1 << 20),
    ("requests", NETWORK, "MAX_INBOUND", 1),
    ("requests", NETWORK, "MAX_REQUESTS_PER_PEER", 1),
    ("requests", NETWORK, "REQUESTS_PER_S", 1),
    ("connections", NETWORK, "MAX_ESTABLISHED", 1),
    ("connections", NETWORK, "MAX_ESTABLISHED_IN", 1),
    ("connections", NETWORK, "MAX_PER_PEER", 1),
    ("connections", NETWORK, "MAX_INBOUND_PER_SUBNET", 1),
    ("addresses, bans, faults of peers", NETWORK, "MAX_BOOK", 1),
    ("addresses, bans, faults of peers", NETWORK, "MAX_BANS", 1),
    ("addresses, bans, faults of peers", NETWORK, "MAX_FAULTY", 1),
    ("the API, without its cookie", "src/api/auth.rs", "REQUESTS_MAX", 1),
    ("the log", "src/cli/log.rs", "LINES_MAX", 1),
    // Their costs.
    ("requests", NETWORK, "MAX_READING_BYTES", 1 << 20),
    ("the API, without its cookie", "src/api/serve.rs", "CONNECTIONS_MAX", 1),
];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The value of a constant of a file, in whole numbers.
fn constant(path: &str, name: &str) -> u64 {
    let text = text(path);
    let declares = |line: &&str| line.contains(&format!("const {name}:"));
    let line = text.lines().find(declares).unwrap_or_else(|| panic!("{path}: {name}"));
    let value = line.split_once(" = ").unwrap().1.trim_end_matches(';');
    let atom = |text: &str| -> u64 {
        let number = text.replace('_', "").parse();
        number.unwrap_or_else(|_| match text {
            "HELD_MAX" => constant("core/src/engine/holdings/mod.rs", text),
            other => constant(path, other),
        })
    };
    if let Some((number, bits)) = value.split_once(" << ") {
        return atom(number) << atom(bits);
    }
    if let Some((number, by)) = value.split_once(" / ") {
        return atom(number) / atom(by);
    }
    value.split(" * ").map(atom).product()
}

/// As the table writes it: 65,536, or 64 MiB.
fn written(value: u64, unit: u64) -> String {
    if unit > 1 {
        return format!("{} MiB", value / unit);
    }
    let digits = value.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = groups.map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn the_table_of_what_strangers_can_fill_names_the_bounds_of_the_code() {
    let trust = text("docs/trust.md");
    let (_, table) = trust.split_once("## What strangers can fill").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let rows: BTreeMap<&str, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            (cells[0], [cells[1], cells[3]].join("; "))
        })
        .collect();
    for (row, path, name, unit) in BOUNDS {
        let cells = rows.get(row).unwrap_or_else(|| panic!("no row {row}"));
        let bound = written(constant(path, name), unit);
        let mut words = cells.split(|c: char| !c.is_ascii_digit() && c != ',');
        let first = bound.split(' ').next().unwrap();
        let is_named = words.any(|word| word.trim_matches(',') == first);
        assert!(is_named && cells.contains(&bound), "{row}: {name} is {bound}, not in: {cells}");
    }
}
