//! A whole market through the program itself: `capex devnet --json`.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A third of the time on an idle machine.
const RUN_TIME: Duration = Duration::from_secs(120);

/// Runs the market in `dir`: exit code, standard output, and everything to read on failure.
fn devnet(dir: &Path, seed: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_capex"))
        .args(["devnet", "--containers", "--json", "--seed", seed, "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let code = wait(&mut child);
    (code, reader.join().unwrap().unwrap())
}

fn wait(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    while started.elapsed() < RUN_TIME {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Its children end with it: they see the end of their standard input.
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn logs(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            text += &format!("--- {}\n{last}\n", entry.path().display());
        }
    }
    text
}

fn list<'a>(value: &'a Value, field: &str) -> &'a Vec<Value> {
    value[field].as_array().unwrap_or_else(|| panic!("{field} is no list"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is no number"))
}

#[test]
fn a_market_trades_settles_delivers_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("market");
    let (code, stdout) = devnet(&dir, "11");
    let shown = || format!("{stdout}\n{}", logs(&dir));
    assert_eq!(code, Some(0), "{}", shown());
    let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{}", shown()));
    assert_eq!(text(&document, "schema"), "capex.devnet/1");
    assert_eq!(number(&document, "seed"), 11);
    assert_eq!(document["ok"], true);
    nodes_agree(&document);
    trades_are_settled(&document);
    certificates_moved(&document);
    leases_are_delivered(&document);
    a_container_was_entered(&document["container"]);
    assert_eq!(text(&document["refusals"][0], "code"), "redeem.not_holder");
    let sum =
        |field| list(&document, "balances").iter().map(|part| number(part, field)).sum::<u64>();
    assert!(number(&document, "fees_paid_sat") > 0);
    assert_eq!(sum("before_sat") - sum("after_sat"), number(&document, "fees_paid_sat"));
}

#[test]
fn an_interrupted_market_leaves_no_directory_behind() {
    let place = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_capex"))
        .args(["devnet", "--keep"])
        .env("TMPDIR", place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let has_log = || {
        let home = std::fs::read_dir(place.path()).unwrap().next();
        home.is_some_and(|home| home.unwrap().path().join("devchain.log").exists())
    };
    while !has_log() {
        assert!(started.elapsed() < RUN_TIME, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(wait(&mut child), Some(130));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

fn nodes_agree(document: &Value) {
    let nodes = list(document, "nodes");
    let keys: BTreeSet<&str> = nodes.iter().map(|node| text(node, "key")).collect();
    assert_eq!((nodes.len(), keys.len()), (5, 5));
    for node in nodes {
        assert!(number(node, "peers") >= 1 && number(node, "orders_seen") >= 2, "{node}");
    }
    let roots = list(&document["epoch"], "roots");
    assert_eq!(document["epoch"]["agreed"], true);
    assert_eq!(roots.len(), nodes.len());
    for field in ["root", "count", "result_root"] {
        assert!(roots.iter().all(|root| root[field] == roots[0][field]), "{field}");
    }
}

fn trades_are_settled(document: &Value) {
    let trades = list(document, "trades");
    assert_eq!(trades.len(), 4);
    for trade in trades {
        assert_eq!(number(trade, "price_sat"), number(trade, "price_msat") / 1000);
        let settlement = &trade["settlement"];
        assert_eq!(text(settlement, "state"), "settled");
        assert!(text(settlement, "address").starts_with("bcrt1p"));
        assert_eq!(text(settlement, "preimage").len(), 64);
        assert!(number(&settlement["claim"], "height") >= number(&settlement["fund"], "height"));
    }
    let (first, resold) = (&trades[0], &trades[2]);
    assert_eq!((&resold["seller"], &resold["provider"]), (&first["buyer"], &first["seller"]));
    assert!(number(resold, "epoch") > number(first, "epoch"));
    assert_eq!(2 * number(resold, "qty"), number(first, "qty"));
    assert!(2 * number(resold, "price_msat") > number(first, "price_msat"));
    let funders = list(&trades[3], "funders");
    let payers: BTreeSet<&str> = funders.iter().map(|funder| text(funder, "key")).collect();
    assert_eq!(payers.len(), 3);
    assert!(!payers.contains(text(&trades[3], "holder")));
}

/// One is cut in halves, of which one is sold on and one given away; one is given away whole, and
/// one was bought for its holder.
fn certificates_moved(document: &Value) {
    let mut histories = Vec::new();
    for certificate in list(document, "certificates") {
        let transfers = list(certificate, "transfers");
        let last = transfers.last().unwrap();
        assert_eq!(last["to"], certificate["holder"]);
        assert_eq!(last["seq"], certificate["seq"]);
        assert_eq!(list(certificate, "verified_by").len(), 4);
        histories.push(transfers.iter().map(|hop| text(hop, "kind")).collect::<Vec<_>>());
    }
    assert_eq!(
        histories,
        [
            vec!["sale", "gift"],
            vec!["sale", "split", "resale"],
            vec!["sale", "split", "gift"],
            vec!["sale"],
        ]
    );
}

/// Where this machine can run one; else it is said why not.
fn a_container_was_entered(container: &Value) {
    let has_program = ["/bin/busybox", "/usr/bin/busybox"].iter().any(|at| Path::new(at).exists());
    if container["ran"] != true {
        assert!(!text(container, "why_not").is_empty());
        let is_able = rustix::process::geteuid().is_root() && has_program;
        assert!(!is_able || std::env::var_os("CI").is_none(), "{container}");
        return;
    }
    let (trade, lease) = (&container["trade"], &container["lease"]);
    assert_eq!((&lease["cert_id"], &lease["window"]), (&trade["cert_id"], &trade["window"]));
    assert_eq!(text(lease, "backend"), "rootfs");
    assert!(text(&container["entry"], "stdout").trim_end().parse::<u64>().is_ok(), "{container}");
    assert_eq!(container["file"]["matches_expected"], true);
    assert_eq!(lease["left_behind"], Value::Array(Vec::new()));
}

fn leases_are_delivered(document: &Value) {
    let leases = list(document, "leases");
    assert_eq!(leases.len(), 4);
    for lease in leases {
        assert_eq!(lease["exit_code"], 0, "{lease}");
        assert_eq!(lease["result"]["matches_expected"], true, "{lease}");
        assert!(text(lease, "stdout").starts_with("count="));
        assert_eq!(lease["countersigned"], true);
        assert_eq!(lease["left_behind"], Value::Array(Vec::new()));
        assert!(number(lease, "started_at") < number(lease, "ended_at"));
    }
}
