//! `capex epoch verify --from`: an epoch proves itself by its signed orders, and whatever is
//! changed in it is found at its place.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use capex::cli::match_cmd::to_json;
use capex::definitions;
use capex_core::admission::{admit, has_work};
use capex_core::book::{OrderSet, instance};
use capex_core::epoch::audit::{DIFFERENCES_MAX, Depth, audit};
use capex_core::epoch::compute;
use capex_core::epoch::signed::{SignedEpoch, parse, write};
use capex_core::ids::{Key, to_hex};
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::units::Window;
use capex_core::wire::{Verified, sign};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

const EPOCH: u64 = 871_234_567;

fn params() -> Params {
    definitions::load("devnet").unwrap()
}

fn key(owner: u8) -> SigningKey {
    SigningKey::from_bytes(&[owner; 32])
}

/// An order for 2 slots with the work of the network.
fn order(owner: u8, side: Side, qty: u32, limit_sat: u64, epoch: u64) -> Verified<Order> {
    let params = params();
    let start = params.first_slot(EPOCH);
    let mut order = Order {
        v: 1,
        epoch,
        side,
        owner: Key(key(owner).verifying_key().to_bytes()),
        nonce: u64::from(owner),
        alts: vec![Alternative { class: 1, limit_msat: limit_sat * 1000 }],
        qty,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window { start, end: start + 4 },
        slots: if side == Side::Buy { 2 } else { 0 },
        features: 0,
        allow: vec![],
        deny: vec![],
        min_run: u16::from(side == Side::Sell),
        source: Source::Primary,
        created_ms: 0,
        backing: None,
        pow_nonce: 0,
    };
    loop {
        let signed = sign(order.clone(), params.magic, &key(owner));
        if has_work(&signed.id(), params.pow_bits) {
            assert!(admit(signed.envelope(), &params).is_ok() || epoch != EPOCH);
            return signed;
        }
        order.pow_nonce += 1;
    }
}

fn bid(owner: u8, qty: u32, limit_sat: u64) -> Verified<Order> {
    order(owner, Side::Buy, qty, limit_sat, EPOCH)
}

fn ask(owner: u8, qty: u32, limit_sat: u64) -> Verified<Order> {
    order(owner, Side::Sell, qty, limit_sat, EPOCH)
}

fn epoch_of(orders: Vec<Verified<Order>>) -> SignedEpoch {
    let mut set = OrderSet::default();
    orders.into_iter().for_each(|order| _ = set.insert(order));
    let result = compute(EPOCH, &set, &params()).unwrap();
    SignedEpoch::new(&result, &set, &params())
}

/// Three bids, two asks, more than one row.
fn sample() -> SignedEpoch {
    let orders =
        vec![bid(1, 3, 900), bid(2, 2, 800), bid(3, 1, 100), ask(4, 3, 500), ask(5, 4, 600)];
    let signed = epoch_of(orders);
    assert!(signed.rows.len() >= 2 && signed.prices.len() >= 2, "{signed:?}");
    signed
}

fn text(signed: &SignedEpoch) -> String {
    write(signed, "devnet").unwrap()
}

/// `capex epoch verify` where there is nothing: no daemon, no data directory, no home.
fn verify(text: &str, args: &[&str]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_capex"))
        .args(["epoch", "verify", "--from", "-"])
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A refusal may come before all is read.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), utf8(output.stdout), utf8(output.stderr))
}

#[test]
fn an_epoch_proves_itself_without_daemon_and_data_directory() {
    let signed = sample();
    assert_eq!(parse(&text(&signed)), Ok(signed.clone()));
    for depth in [Depth::Full, Depth::Quick] {
        let found = audit(&signed, &params(), depth);
        assert!(found.is_equal() && found.orders == 5, "{found:?}");
    }
    let (code, out, err) = verify(&text(&signed), &["--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["result_root"], to_hex(&signed.result_root));
    assert_eq!((&report["orders"], &report["result"]), (&5.into(), &"recomputed".into()));
    for args in [&[][..], &["--quick"], &["871234567"], &["--network", "devnet"]] {
        assert_eq!(verify(&text(&signed), args).0, 0, "{args:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("epoch.txt");
    std::fs::write(&path, text(&signed)).unwrap();
    assert_eq!(from_file(&path), 0);
    let empty = text(&epoch_of(Vec::new()));
    assert_eq!(verify(&empty, &[]).0, 0);
}

fn from_file(path: &Path) -> i32 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capex"));
    let run = command.args(["epoch", "verify", "--from"]).arg(path).env_clear().output();
    run.unwrap().status.code().unwrap()
}

/// Another digit in the place of the `at`-th of a word.
fn other_digit(word: &str, at: usize) -> String {
    let digit = if &word[at..=at] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &word[..at], &word[at + 1..])
}

/// Changes one word of the first line of a kind.
fn edit(text: &str, kind: &str, word: usize, change: impl Fn(&str) -> String) -> String {
    let mut done = false;
    let lines = text.lines().map(|line| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[0] == kind && !done {
            words[word] = change(&words[word]);
            done = true;
        }
        words.join(" ") + "\n"
    });
    let edited: String = lines.collect();
    assert_ne!(edited, text, "{kind} {word}");
    edited
}

fn plus_one(word: &str) -> String {
    (word.parse::<u128>().unwrap() + 1).to_string()
}

fn without(text: &str, kind: &str) -> String {
    let mut skipped = false;
    let keep = |line: &&str| {
        let skip = !skipped && line.starts_with(kind);
        skipped |= skip;
        !skip
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

fn with_order(added: Verified<Order>) -> String {
    let mut signed = sample();
    signed.orders.push(added.envelope().clone());
    signed.orders.sort_by_key(|order| order.id::<Order>(params().magic));
    text(&signed)
}

/// The same set with its first two orders exchanged.
fn swapped_orders() -> String {
    let mut signed = sample();
    signed.orders.swap(0, 1);
    text(&signed)
}

/// The last 16 hex digits of a payload are its proof of work.
fn without_work() -> String {
    let mut signed = sample();
    let owner = 1;
    let mut order = bid(owner, 1, 900).into_value();
    while has_work(&sign(order.clone(), params().magic, &key(owner)).id(), 1) {
        order.pow_nonce += 1;
    }
    signed.orders[0] = sign(order, params().magic, &key(owner)).envelope().clone();
    text(&signed)
}

#[test]
fn whatever_is_changed_is_found_at_its_place() {
    let t = text(&sample());
    // Changed text, reason codes among those told (the first is that of the failure), a part
    // of the message that names the place.
    let table: Vec<(&str, String, &[&str], &str)> = vec![
        (
            "order bytes",
            edit(&t, "order", 1, |word| other_digit(word, word.len() - 40)),
            &["epoch.bad_order", "epoch.bad_root"],
            "order 1 (",
        ),
        (
            "signature",
            edit(&t, "order", 2, |word| other_digit(word, 3)),
            &["epoch.bad_order", "epoch.bad_count", "epoch.bad_root"],
            "wire.bad_signature",
        ),
        ("work", without_work(), &["epoch.bad_order"], "order.proof_of_work"),
        ("garbage", edit(&t, "order", 1, |_| "00".into()), &["epoch.bad_order"], "order 1 ("),
        ("no bytes", edit(&t, "order", 1, |_| String::new()), &["epoch.bad_order"], "order 1 ("),
        (
            "missing order",
            without(&t, "order"),
            &["epoch.bad_count", "epoch.bad_root"],
            "orders under the root: expected 4, found 5",
        ),
        (
            "extra order",
            with_order(bid(6, 1, 1)),
            &["epoch.bad_count", "epoch.bad_root"],
            "orders under the root: expected 6, found 5",
        ),
        ("repeated order", with_order(bid(1, 3, 900)), &["epoch.repeated_order"], "twice"),
        ("order of orders", swapped_orders(), &["epoch.file_order"], "order 2 ("),
        (
            "order of another epoch",
            with_order(order(6, Side::Buy, 1, 1, EPOCH + 1)),
            &["epoch.other_epoch"],
            "expected 871234567, found 871234568",
        ),
        ("count", edit(&t, "root", 2, plus_one), &["epoch.bad_count"], "expected 5, found 6"),
        ("root", edit(&t, "root", 1, |w| other_digit(w, 9)), &["epoch.bad_root"], "root: expected"),
        ("beacon", edit(&t, "beacon", 1, |w| other_digit(w, 9)), &["epoch.bad_beacon"], "beacon: "),
        (
            "algorithm",
            edit(&t, "algorithm", 1, |_| "7".into()),
            &["epoch.bad_algorithm"],
            "found 7",
        ),
        ("epoch", edit(&t, "epoch", 1, plus_one), &["epoch.other_epoch"], "order 1 ("),
        ("row qty", edit(&t, "row", 4, plus_one), &["epoch.bad_row"], "units for 2 slots at"),
        ("row price", edit(&t, "row", 5, plus_one), &["epoch.bad_row"], "row of bid "),
        ("row slots", edit(&t, "row", 3, plus_one), &["epoch.bad_row"], "for 3 slots at"),
        (
            "row bid",
            edit(&t, "row", 6, |word| other_digit(word, 63)),
            &["epoch.extra_row", "epoch.missing_row"],
            "expected none, found ",
        ),
        ("missing row", without(&t, "row"), &["epoch.missing_row"], "found none"),
        ("price", edit(&t, "price", 3, plus_one), &["epoch.bad_price"], "price of class 1, slot "),
        ("missing price", without(&t, "price"), &["epoch.missing_price"], "found none"),
        (
            "extra price",
            edit(&t, "welfare", 0, |_| "price 9 9 9\nwelfare".into()),
            &["epoch.extra_price"],
            "price of class 9, slot 9: expected none, found 9 msat",
        ),
        ("welfare", edit(&t, "welfare", 1, plus_one), &["epoch.bad_welfare"], "welfare, msat"),
        (
            "result root",
            edit(&t, "result_root", 1, |word| other_digit(word, 0)),
            &["epoch.bad_result_root"],
            "result root: expected ",
        ),
        (
            "other network",
            edit(&t, "capex-epoch", 2, |_| "regtest".into()),
            &["epoch.bad_order", "epoch.bad_beacon", "epoch.bad_root"],
            "order 5 (",
        ),
    ];
    for (what, changed, codes, place) in table {
        let (code, out, err) = verify(&changed, &["--json"]);
        assert_eq!((code, out.as_str()), (1, ""), "{what}: {err}");
        let error: Value = serde_json::from_str(&err).unwrap();
        assert_eq!(error["error"]["code"], codes[0], "{what}: {err}");
        assert!(codes.iter().all(|code| err.contains(code)), "{what}: {err}");
        assert!(err.contains(place), "{what}: {err}");
    }
}

#[test]
fn texts_that_are_no_epoch_are_refused_with_their_line() {
    let t = text(&sample());
    let lines = t.lines().count();
    let cut: String = t.lines().take(lines - 1).map(|line| format!("{line}\n")).collect();
    let swapped = {
        let mut signed = sample();
        signed.rows.reverse();
        text(&signed)
    };
    let last_row = t.lines().position(|line| line.starts_with("row")).unwrap() + 2;
    let table: Vec<(String, &[&str], &str, usize)> = vec![
        (String::new(), &[], "epoch.file_header", 1),
        (t.replace("capex-epoch 1", "capex-epoch 2"), &[], "epoch.file_header", 1),
        (t.replace("devnet", "devnets"), &[], "epoch.unknown_network", 0),
        (t.clone(), &["--network", "regtest"], "epoch.other_network", 0),
        (t.replace("epoch 871", "epoch 0871"), &[], "epoch.file_line", 2),
        (t.replace("epoch 871", "epoch +871"), &[], "epoch.file_line", 2),
        (edit(&t, "algorithm", 1, |_| "256".into()), &[], "epoch.file_line", 3),
        (edit(&t, "beacon", 1, |_| "00".into()), &[], "epoch.file_line", 4),
        (edit(&t, "root", 2, |_| "1 1".into()), &[], "epoch.file_line", 5),
        (edit(&t, "order", 1, |_| "0G".into()), &[], "epoch.file_line", 6),
        (edit(&t, "order", 2, |_| "00".into()), &[], "epoch.file_line", 6),
        (edit(&t, "order", 0, |_| "bid".into()), &[], "epoch.file_line", 6),
        (swapped, &[], "epoch.file_order", last_row),
        (edit(&t, "welfare", 1, |_| "9".repeat(40)), &[], "epoch.file_line", lines - 1),
        (cut, &[], "epoch.file_line", lines),
        (format!("{t}\n"), &[], "epoch.file_trailing", lines + 1),
    ];
    for (text, args, reason, line) in table {
        let (code, _, err) = verify(&text, args);
        assert!(code == 6 && err.starts_with(&format!("error[{reason}]")), "{reason}: {err}");
        assert!(line == 0 || err.contains(&format!("line {line}: ")), "{line}: {err}");
    }
    // What `capex match` reads, as it is printed, and a text that was asked for with `--json`.
    let book = to_json(&instance(&[], EPOCH, &params()));
    for json in [format!("{book:#}\n"), json!({ "epoch_file": t }).to_string()] {
        let (code, out, err) = verify(&json, &[]);
        assert_eq!((code, out.as_str()), (6, ""), "{err}");
        assert!(err.starts_with("error[epoch.file_json]"), "{err}");
        assert!(err.contains("capex epoch export EPOCH --signed --out FILE"), "{err}");
    }
    let (code, _, err) = verify(&t, &["5"]);
    assert!(code == 1 && err.starts_with("error[epoch.other_epoch]"), "{err}");
}

/// Without a search it is enough that nobody is harmed.
#[test]
fn the_quick_check_finds_what_breaks_a_rule() {
    let t = text(&sample());
    let table = [
        (edit(&t, "order", 2, |word| other_digit(word, 3)), "epoch.bad_order"),
        (edit(&t, "row", 4, plus_one), "epoch.bad_result_root"),
        (edit(&t, "row", 4, plus_one), "result."),
        (edit(&t, "price", 3, plus_one), "result.money"),
        (edit(&t, "welfare", 1, plus_one), "result.welfare"),
    ];
    for (changed, reason) in table {
        let (code, out, err) = verify(&changed, &["--quick"]);
        assert!((code, out.as_str()) == (1, "") && err.contains(reason), "{reason}: {err}");
    }
    // A result that leaves out what could be traded harms nobody, but is not the one.
    let mut idle = sample();
    let none = epoch_of(Vec::new());
    (idle.rows, idle.prices, idle.welfare_msat) = (Vec::new(), Vec::new(), 0);
    idle.result_root = none.result_root;
    assert!(audit(&idle, &params(), Depth::Quick).is_equal());
    let differs = audit(&idle, &params(), Depth::Full);
    assert_eq!(differs.differences[0].code, "epoch.missing_row");
}

#[test]
fn differences_are_listed_up_to_a_bound() {
    let mut signed = sample();
    let broken = signed.orders[0].clone();
    for _ in 0..DIFFERENCES_MAX {
        signed.orders.push(broken.clone());
    }
    let found = audit(&signed, &params(), Depth::Full);
    assert_eq!((found.differences.len(), found.more > 0), (DIFFERENCES_MAX, false));
    signed.count += 1;
    let found = audit(&signed, &params(), Depth::Full);
    assert_eq!((found.differences.len(), found.more), (DIFFERENCES_MAX, 1));
}

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/matching_ref.py");
const SCRIPT: &str = "
import json, runpy, sys
print(json.dumps(runpy.run_path(sys.argv[1])['match'](json.load(sys.stdin))))
";

#[test]
fn the_reference_in_python_gives_the_rows_of_an_exported_epoch() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no python3");
        println!("skipped: no python3");
        return;
    }
    let signed = sample();
    let mut set = OrderSet::default();
    for envelope in &signed.orders {
        set.insert(admit(envelope, &params()).unwrap());
    }
    let book = to_json(&instance(&set.book(), EPOCH, &params()));
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT, REFERENCE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(book.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<Value> = signed
        .rows
        .iter()
        .map(|row| {
            let (buy, sell) = (to_hex(&row.buy), to_hex(&row.sell));
            json!({"class": row.class, "start": row.start, "hours": row.slots, "buy": buy,
                "sell": sell, "qty": row.qty, "msat": row.msat, "sat": row.price_sat()})
        })
        .collect();
    assert_eq!(outcome["trades"], Value::from(rows));
    let price = |&(class, slot, msat): &(u16, u32, u64)| (format!("{class}/{slot}"), msat.into());
    let prices: serde_json::Map<String, Value> = signed.prices.iter().map(price).collect();
    assert_eq!(outcome["prices"], Value::from(prices));
}
