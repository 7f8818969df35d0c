//! The command line as a process: exit codes, the JSON contract, files and prompts.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

#[path = "cli/db.rs"]
mod db;
#[path = "cli/environment.rs"]
mod environment;
#[path = "api/fake.rs"]
#[allow(dead_code)]
mod fake;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use capex::definitions;
use capex_core::certificate::Certificate;
use capex_core::certificate::file;
use capex_core::certificate::objects::{Binding, Issue, Payment};
use capex_core::ids::Key;
use capex_core::units::{Units, Window};
use ed25519_dalek::SigningKey;
use fake::{Fake, HOSTILE, REFUSED_QTY};
use serde_json::Value;

/// The program, away from the real home and environment.
fn capex(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capex"));
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    done(capex(home, args).output().unwrap())
}

fn done(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs against a fake daemon.
fn ask(fake: &Fake, args: &[&str]) -> (i32, String, String) {
    let datadir = fake.path().to_str().unwrap();
    run(fake.path(), &with(args, &["--datadir", datadir]))
}

/// Flags of the command, before what belongs to a workload.
fn with<'a>(args: &[&'a str], flags: &[&'a str]) -> Vec<&'a str> {
    let at = args.iter().position(|arg| *arg == "--").unwrap_or(args.len());
    [&args[..at], flags, &args[at..]].concat()
}

/// Exit code and reason code under `--json`, where nothing goes to standard output.
fn json_error((code, out, err): (i32, String, String)) -> (i32, String) {
    assert_eq!(out, "", "{err}");
    let value: Value = serde_json::from_str(&err).unwrap_or_else(|error| panic!("{error}: {err}"));
    assert!(value["error"]["message"].is_string(), "{err}");
    (code, value["error"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn a_list_comes_in_pages_and_says_how_to_go_on() {
    let fake = Fake::start();
    let (code, out, _) = ask(&fake, &["epoch", "list", "--limit", "2"]);
    assert_eq!(code, 0);
    assert!(out.ends_with("more: capex epoch list --before 4\n"), "{out}");
    let epochs = |args: &[&str]| -> Vec<u64> {
        let (code, out, err) = ask(&fake, args);
        assert_eq!((code, err.as_str()), (0, ""));
        let value: Value = serde_json::from_str(&out).unwrap();
        value.as_array().unwrap().iter().map(|epoch| epoch["epoch"].as_u64().unwrap()).collect()
    };
    assert_eq!(epochs(&["epoch", "list", "--limit", "2", "--json"]), [5, 4]);
    let rest = ["epoch", "list", "--limit", "9", "--before", "4", "--json"];
    assert_eq!(epochs(&rest), [3, 2, 1]);
    let (_, out, _) = ask(&fake, &["epoch", "list", "--before", "4"]);
    assert!(!out.contains("more:"), "{out}");
    for bad in [["--limit", "0"], ["--limit", "1001"], ["--before", "x"]] {
        let mut args = vec!["trade", "list"];
        args.extend(bad);
        assert_eq!(ask(&fake, &args).0, 2, "{bad:?}");
    }
    for noun in ["order", "trade", "cert", "lease"] {
        let place = format!("9-{}", "0f".repeat(32));
        let (code, out, err) = ask(&fake, &[noun, "list", "--before", &place, "--limit", "1"]);
        assert_eq!((code, err.as_str()), (0, ""), "{noun}: {out}");
    }
}

const PEER: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const BID: [&str; 9] =
    ["buy", "--class", "cpu.standard", "--max-price", "20sat", "--for", "2slots", "--qty", "2"];

#[test]
fn without_a_daemon_every_question_ends_with_3_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let (code, out, err) = run(home.path(), &["status", "--datadir", dir]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("no daemon runs on") && err.contains("capex up --datadir"), "{err}");
    for args in [vec!["order", "list"], vec!["wallet", "balance"], vec!["cert", "list"]] {
        let mut args = args;
        args.extend(["--json", "--datadir", dir]);
        assert_eq!(json_error(run(home.path(), &args)), (3, "daemon.unreachable".to_owned()));
    }
    // The default data directory.
    assert_eq!(run(home.path(), &["status"]).0, 3);
}

#[test]
fn a_daemon_that_died_is_unreachable_and_a_wrong_cookie_is_not_authorised() {
    let mut fake = Fake::start();
    let endpoints = std::fs::read(fake.path().join("endpoints")).unwrap();
    assert_eq!(ask(&fake, &["status"]).0, 0);
    std::fs::write(fake.path().join("cookie"), "0".repeat(64)).unwrap();
    let refused = json_error(ask(&fake, &["status", "--json"]));
    assert_eq!(refused, (4, "api.unauthorised".to_owned()));
    fake.stop();
    std::fs::write(fake.path().join("endpoints"), endpoints).unwrap();
    std::fs::write(fake.path().join("cookie"), "0".repeat(64)).unwrap();
    let refused = json_error(ask(&fake, &["status", "--json"]));
    assert_eq!(refused, (3, "daemon.unreachable".to_owned()));
}

#[test]
fn a_cookie_is_never_sent_to_another_machine() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let text = r#"{"api":"http://192.0.2.1:80","p2p":[],"pid":1,"network":"devnet","key":""}"#;
    std::fs::write(home.path().join("endpoints"), text).unwrap();
    std::fs::write(home.path().join("cookie"), "secret").unwrap();
    assert_eq!(run(home.path(), &["status", "--datadir", dir]).0, 3);
}

#[test]
fn every_command_with_json_prints_exactly_one_value() {
    let fake = Fake::start();
    let id = |byte: &str| byte.repeat(4);
    let (order, cert, lease) = (id("07"), id("cc"), id("ee"));
    let (whole, to) = ("cc".repeat(32), "ab".repeat(32));
    let wasm = fake.path().join("a.wasm");
    std::fs::write(&wasm, b"\0asm").unwrap();
    let wasm = wasm.to_str().unwrap().to_owned();
    let psbt = fake.path().join("fund.psbt");
    std::fs::write(&psbt, b"psbt\xff").unwrap();
    let psbt = psbt.to_str().unwrap().to_owned();
    let table: Vec<Vec<&str>> = vec![
        vec!["status"],
        vec!["order", "list"],
        vec!["order", "show", &order],
        vec!["order", "cancel", &order],
        vec!["order", "explain", &order],
        vec!["order", "explain", &order, "--epoch", "5"],
        vec!["book"],
        vec!["book", "cpu.highmem"],
        [&["quote"], BID.as_slice()].concat(),
        vec![
            "quote",
            "sell",
            "--class",
            "cpu.standard",
            "--qty",
            "2",
            "--price",
            "1sat",
            "--for",
            "1h",
        ],
        vec!["trade", "list"],
        vec!["trade", "list", "--stuck"],
        vec!["trade", "show", "33333333"],
        vec!["trade", "proof", "33333333"],
        vec!["cert", "list"],
        vec!["cert", "show", &cert],
        vec!["cert", "export", &cert],
        vec!["cert", "gift", &cert, "--to", &to, "--yes"],
        vec!["cert", "gift", &cert, "--to", &to, "--qty", "1", "--yes"],
        vec!["cert", "split", &cert, "--window", "110..111"],
        vec!["cert", "merge", &cert, &cert],
        vec!["cert", "fetch", &whole, "--provider", &to],
        vec!["cert", "redeem", &cert, "--wasm", &wasm, "--result", "out", "--", "-v"],
        vec!["lease", "list"],
        vec!["lease", "show", &lease],
        vec!["lease", "logs", &lease],
        vec!["lease", "stop", &lease],
        vec!["wallet", "balance"],
        vec!["wallet", "coins"],
        vec!["wallet", "history"],
        vec!["wallet", "descriptor"],
        vec!["wallet", "send", "bcrt1qexample", "0.1btc", "--yes"],
        vec!["wallet", "bump", "ab", "--yes"],
        vec!["wallet", "rescan", "--gap", "50"],
        vec!["wallet", "psbt", "list"],
        vec!["wallet", "psbt", "export", "abababab"],
        vec!["wallet", "psbt", "import", &psbt],
        vec!["wallet", "psbt", "drop", "abababab"],
        vec!["wallet", "address"],
        vec!["wallet", "fund", "--yes"],
        vec!["peer", "list"],
        vec!["peer", "show", "abababab"],
        vec!["peer", "forgive", "abababab"],
        vec!["peer", "add", PEER],
        vec!["epoch", "verify", "5"],
        vec!["epoch", "export", "5"],
        vec!["epoch", "export", "5", "--signed"],
        vec!["config", "path"],
        vec!["config", "show"],
        [BID.as_slice(), &["--yes"]].concat(),
        [BID.as_slice(), &["--dry-run"]].concat(),
    ];
    for args in table {
        let (code, out, err) = ask(&fake, &with(&args, &["--json"]));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let (code, out, _) = ask(&fake, &args);
        assert_eq!(code, 0, "{args:?}");
        assert!(!out.is_empty(), "{args:?}");
    }
}

#[test]
fn refusals_of_the_daemon_have_their_exit_codes() {
    let fake = Fake::start();
    let qty = REFUSED_QTY.to_string();
    let mut refused = BID;
    refused[8] = &qty;
    let wasm = fake.path().join("a.wasm");
    std::fs::write(&wasm, b"\0asm").unwrap();
    let wasm = wasm.to_str().unwrap();
    let table: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["order", "show", "deadbeef"], 5, "order.not_found"),
        (vec!["trade", "show", "deadbeef"], 5, "trade.not_found"),
        (vec!["trade", "proof", "deadbeef"], 5, "trade.not_found"),
        (vec!["trade", "proof"], 2, "cli.usage"),
        (vec!["trade", "proof", "33333333", "--verify", wasm], 2, "cli.usage"),
        (vec!["trade", "proof", "--verify", "/nowhere"], 2, "file.unusable"),
        (vec!["trade", "proof", "--verify", wasm], 6, "certificate.file_header"),
        (vec!["trade", "list", "--stuck", "--limit", "3"], 2, "cli.usage"),
        (vec!["epoch", "show"], 6, "epoch.not_computed"),
        (vec!["epoch", "verify", "13"], 1, "epoch.bad_price"),
        (vec!["epoch", "verify", "--from", "/nowhere"], 2, "file.unusable"),
        (vec!["epoch", "verify", "--from", wasm], 6, "epoch.file_header"),
        (vec!["epoch", "verify"], 2, "cli.usage"),
        (vec!["wallet", "fund", "5000"], 2, "cli.usage"),
        (vec!["wallet", "psbt", "import", "/nowhere"], 2, "file.unusable"),
        (vec!["wallet", "psbt", "import", wasm], 6, "wallet.psbt_malformed"),
        (vec!["wallet", "send", "bcrt1qexample"], 2, "cli.usage"),
        (vec!["wallet", "send", "bcrt1qexample", "0.1"], 2, "cli.usage"),
        (vec!["wallet", "send", "bcrt1qexample", "1sat", "--all"], 2, "cli.usage"),
        (vec!["wallet", "send", "bcrt1qexample", "1sat", "--fee-rate", "0"], 2, "cli.usage"),
        (vec!["wallet", "send", "nonsense", "5000sat", "--yes"], 2, "wallet.bad_address"),
        (vec!["epoch", "verify", "5", "--quick"], 2, "cli.usage"),
        ([refused.as_slice(), &["--yes"]].concat(), 6, "order.capacity_exceeded"),
        (vec!["book", "--class", "cpu.big"], 2, "order.unknown_class"),
        (vec!["order", "show", "dead"], 2, "cli.usage"),
        (vec!["order", "explain", "deadbeef"], 5, "order.not_found"),
        ([&["quote"], refused.as_slice()].concat(), 2, "order.window"),
        (vec!["quote", "buy", "--qty", "1"], 2, "order.incomplete"),
        (vec!["book", "cpu.standard", "--class", "cpu.highmem"], 2, "cli.usage"),
        (vec!["book", "cpu.big", "--watch"], 2, "order.unknown_class"),
        (vec!["order", "shows", "deadbeef"], 2, "cli.usage"),
        (vec!["peer", "add", "127.0.0.1:1"], 2, "network.bad_address"),
        (vec!["peer", "forgive", "deadbeef"], 5, "peer.not_found"),
        (
            vec!["cert", "redeem", "cccccccc", "--wasm", wasm, "--wait=300ms"],
            7,
            "lease.wait_timeout",
        ),
        (vec!["cert", "redeem", "cccccccc", "--wasm", "/nowhere"], 2, "file.unusable"),
        (vec!["cert", "redeem", "cccccccc", "--wasm", "/dev/null"], 2, "workload.invalid"),
        (vec!["lease", "result", "eeeeeeee", "none", "--out", "-"], 5, "result.not_found"),
    ];
    for (args, exit, code) in table {
        let found = json_error(ask(&fake, &with(&args, &["--json"])));
        assert_eq!(found, (exit, code.to_owned()), "{args:?}");
    }
}

#[test]
fn a_trade_is_shown_as_a_timeline_with_what_comes_next() {
    let fake = Fake::start();
    let (code, out, err) = ask(&fake, &["trade", "show", "33333333"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let fund = format!("fund         {} (height 203, 154 vB, fee 308 sat)", "f1".repeat(32));
    let parts = [
        "timeline       opened       2027-01-15 08:00:00 UTC\n",
        "               terms        height 200\n",
        "               locked\n",
        &fund,
        "next           the seller claims, or the refund height comes\n",
        "by             height 350 (about 1400 min from now, 2027-01-16 07:20:00 UTC): the refund \
         is sent\n",
        "at risk        446 sat\n",
        "fees so far    308 sat\n",
        "you can        nothing: the node acts by itself while it runs\n",
    ];
    let mut rest = out.as_str();
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} in its order: {out}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!out.contains("stuck") && !out.contains("broadcast"), "{out}");
}

#[test]
fn a_stuck_trade_says_why_and_what_can_be_done() {
    let fake = Fake::start();
    let list = ask(&fake, &["trade", "list", "--stuck"]).1;
    let show = ask(&fake, &["trade", "show", "44444444"]).1;
    for part in ["refused a transaction", "look at the chain source", "evil\\u{1b}"] {
        assert!(list.contains(part) && show.contains(part), "{part}: {list}{show}");
    }
    assert!(
        list.contains("444444444444 refunding: ") && list.contains("height 350 (now)"),
        "{list}"
    );
    assert!(list.contains("capex trade show 444444444444"), "{list}");
    assert!(show.contains("[trade.broadcast_failed]"), "{show}");
}

#[test]
fn misses_of_a_peer_are_shown_and_forgiven() {
    let fake = Fake::start();
    let list = ask(&fake, &["peer", "list"]).1;
    let show = ask(&fake, &["peer", "show", "abababab"]).1;
    for part in ["away", "until 2027-01-15"] {
        assert!(list.contains(part) && show.contains(part), "{part}: {list}{show}");
    }
    assert!(show.contains("claim: 1") && show.contains("terms: 2"), "{show}");
    assert!(fake.commands.lock().unwrap().is_empty());
    assert_eq!(ask(&fake, &["peer", "forgive", "abababab"]).0, 0);
    let commands = fake.commands.lock().unwrap();
    assert!(commands[0].contains("Forgive(Key("), "{commands:?}");
}

#[test]
fn nothing_moves_money_without_a_yes() {
    let fake = Fake::start();
    let sell: &[&str] =
        &["sell", "--class", "cpu.standard", "--qty", "2", "--price", "20sat", "--for", "1h"];
    let gift = "ab".repeat(32);
    for args in [&BID[..], sell, &["cert", "gift", "cccccccc", "--to", &gift]] {
        let (code, out, err) = ask(&fake, args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        assert!(err.contains("--yes"), "{err}");
    }
    let preview = ask(&fake, &BID).2;
    for part in ["pays at most", "80 sat", "fee", "308 sat", "worst case", "trade.below_minimum"] {
        assert!(preview.contains(part), "{part}: {preview}");
    }
    let send: &[&str] = &["wallet", "send", "bcrt1qexample", "0.01btc"];
    let (code, out, err) = ask(&fake, send);
    assert_eq!((code, out.as_str()), (2, ""));
    for part in ["bcrt1qexample", "1,000,000 sat", "300 sat (2.1 sat/vB)", "--yes"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert_eq!(ask(&fake, &["wallet", "bump", "abcd"]).0, 2);
    assert_eq!(ask(&fake, &[send, &["--dry-run"]].concat()).0, 0);
    let sent = |fake: &Fake| fake.commands.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert!(sent(&fake).iter().all(|call| call.contains("dry_run: true")));
    assert_eq!(ask(&fake, &[send, &["--yes", "--fee-rate", "2.1"]].concat()).0, 0);
    let calls = sent(&fake);
    let [_, call] = calls.as_slice() else { panic!("{calls:?}") };
    let parts = ["amount_sat: Some(1000000)", "feerate_sat_kvb: Some(2100)", "dry_run: false"];
    assert!(parts.iter().all(|part| call.contains(part)), "{call}");
    let (code, out, _) = ask(&fake, &[&BID[..], &["--dry-run"]].concat());
    assert!(code == 0 && out.contains("Nothing was placed"), "{out}");
    assert!(fake.commands.lock().unwrap().is_empty());
    assert_eq!(ask(&fake, &[&BID[..], &["--yes"]].concat()).0, 0);
    let commands = fake.commands.lock().unwrap();
    assert!(commands[0].contains("window: Window { start: 107, end: 109 }"), "{commands:?}");
    assert!(commands[0].contains("share_percent: 20, cap_sat: None"), "{commands:?}");
}

#[test]
fn order_files_are_read_and_their_mistakes_place_nothing() {
    let fake = Fake::start();
    let path = fake.path().join("order.toml");
    let place = |text: &str, extra: &[&str]| {
        std::fs::write(&path, text).unwrap();
        ask(&fake, &[&["buy", "--yes", "--json", "--file", path.to_str().unwrap()], extra].concat())
    };
    let good = "class = \"cpu.standard\"\nqty = 2\nmax-price = \"20sat\"\nwindow = \"110..112\"\n";
    let table = [
        ("klass = \"cpu.standard\"\n", "order_file.unknown_key", ":1:"),
        ("class = \"cpu.standard\"\nmax-price = 20\n", "order_file.bad_value", ":2:"),
        ("class = \"cpu.standard\"\nmax-fee = 700\n", "order_file.bad_value", ":2:"),
        ("class = [\n", "order_file.syntax", ":1:"),
        ("class = \"cpu.standard\"\n", "order.incomplete", "--qty"),
    ];
    for (text, code, part) in table {
        let found = place(text, &[]);
        assert!(found.2.contains(part), "{}", found.2);
        assert_eq!(json_error(found), (2, code.to_owned()), "{text}");
    }
    assert!(fake.commands.lock().unwrap().is_empty());
    assert_eq!(place(&format!("{good}max-fee = \"700sat\"\n"), &[]).0, 0);
    assert_eq!(place(good, &["--for", "3slots", "--qty", "1", "--max-fee", "0sat"]).0, 0);
    let commands = fake.commands.lock().unwrap();
    assert!(commands[0].contains("start: 110, end: 112") && commands[0].contains("qty: 2"));
    assert!(commands[0].contains("cap_sat: Some(700)"), "{}", commands[0]);
    assert!(commands[1].contains("start: 107, end: 110") && commands[1].contains(" qty: 1"));
    assert!(commands[1].contains("cap_sat: Some(0)"), "{}", commands[1]);
}

#[test]
fn remote_text_never_reaches_a_terminal_unescaped() {
    let fake = Fake::start();
    for args in [&["book"][..], &["book", "--json"]] {
        let (code, out, _) = ask(&fake, args);
        assert_eq!(code, 0);
        assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out:?}");
        if args.len() == 2 {
            let book: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(book["bids"][0]["owner"], HOSTILE);
        }
    }
}

#[test]
fn an_explanation_and_a_quote_say_why_how_much_and_what_next() {
    let fake = Fake::start();
    let (_, out, _) = ask(&fake, &["order", "explain", "07070707"]);
    for part in [
        "unmatched [explain.promised_price]: accepted trades were promised",
        "would match from 25 sat/block (2 units), at 24.999 it gets nothing",
        "rejected in the money: its limit for [110, 112) of cpu.standard is 40 sat, above the",
        "1 stopped by explain.class",
        "40 sat a run",
        "Next: raise --max-price",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out:?}");
    let (_, out, _) = ask(&fake, &[&["quote"], &BID[..]].concat());
    for part in [
        "indication: nothing is reserved",
        "[quote.open_book]",
        "1 of 2",
        "void [trade.below_minimum]",
        "slot 110: 18 sat/block",
        "344 sat",
        "Why not all of it:",
        "Nothing was placed.",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains('\u{1b}') && !out.contains('\u{202e}'), "{out:?}");
}

#[test]
fn a_watch_prints_block_after_block_until_it_is_interrupted() {
    let fake = Fake::start();
    let dir = fake.path().to_str().unwrap();
    let args = ["book", "--watch", "--datadir", dir];
    let mut child = capex(fake.path(), &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let heads = lines.by_ref().map(Result::unwrap).filter(|line| line.contains("epoch 200"));
    assert_eq!(heads.take(2).count(), 2);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn outputs_and_results_come_in_parts_and_arrive_whole() {
    let fake = Fake::start();
    assert_eq!(ask(&fake, &["lease", "logs", "eeeeeeee"]).1, "hello\nworld\n");
    let result = ["lease", "result", "eeeeeeee", "out file.txt", "--out"];
    assert_eq!(ask(&fake, &[&result[..], &["-"]].concat()).1, "result bytes");
    let path = fake.path().join("r");
    let to_file = [&result[..], &[path.to_str().unwrap()]].concat();
    assert_eq!(ask(&fake, &to_file).0, 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"result bytes");
    // Another file of that name stays, unless it may go.
    std::fs::write(&path, b"mine").unwrap();
    assert_eq!(ask(&fake, &to_file).0, 2);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    assert_eq!(ask(&fake, &[&to_file[..], &["--force"]].concat()).0, 0);
    assert_eq!(std::fs::read(path).unwrap(), b"result bytes");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["config", "show"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = capex(home.path(), args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn init_writes_once_and_config_shows_where_values_come_from() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("n");
    let dir = dir.to_str().unwrap();
    let init = ["init", "--network", "devnet", "--datadir", dir, "--json"];
    let (code, out, err) = run(home.path(), &init);
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(made["chain_url"], "http://127.0.0.1:18543");
    let cookie = home.path().join(".local/state/capex/devchain/.cookie");
    assert_eq!(made["chain_cookie"], cookie.to_str().unwrap());
    let text = std::fs::read_to_string(Path::new(dir).join("config.toml")).unwrap();
    assert_eq!(json_error(run(home.path(), &init)), (2, "init.exists".to_owned()));
    let replaced =
        run(home.path(), &[&init[..], &["--force", "--api-listen", "127.0.0.1:0"]].concat());
    assert_eq!(replaced.0, 0);
    assert_ne!(std::fs::read_to_string(Path::new(dir).join("config.toml")).unwrap(), text);

    let (_, out, _) = run(home.path(), &["config", "show", "--datadir", dir, "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    let setting = |name: &str| {
        let found = shown.as_array().unwrap().iter().find(|item| item["setting"] == name);
        found.unwrap()["origin"].as_str().unwrap().to_owned()
    };
    assert!(setting("network").ends_with("config.toml:2"));
    assert_eq!(setting("datadir"), "--datadir");
    assert_eq!(setting("log"), "default");

    std::fs::write(Path::new(dir).join("config.toml"), "network = \"devnet\"\nlissten = 1\n")
        .unwrap();
    let (code, _, err) = run(home.path(), &["config", "show", "--datadir", dir]);
    assert!(code == 2 && err.contains("config.toml:2: unknown field `lissten`"), "{err}");
    assert_eq!(run(home.path(), &["up", "--datadir", dir]).0, 2);
    let refused = json_error(run(home.path(), &["init", "--network", "mainnet", "--json"]));
    assert_eq!(refused, (2, "config.mainnet_refused".to_owned()));
    let mut named = capex(home.path(), &["init"]);
    let (code, _, err) = done(named.env("CAPEX_NETWORK", "mainnet").output().unwrap());
    assert!(code == 2 && err.contains("allow_mainnet = true in") && !err.contains("null"), "{err}");
    let refused = json_error(run(home.path(), &["up", "--network", "mainnet", "--json"]));
    assert_eq!(refused, (2, "config.mainnet_refused".to_owned()));
    let refused = json_error(run(home.path(), &["init", "--peer", "x", "--json"]));
    assert_eq!(refused, (2, "config.invalid".to_owned()));
    assert!(!home.path().join(".config/capex").exists());
}

#[test]
fn a_seed_is_made_shown_sealed_and_restored_without_a_daemon() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (dir, other) = (home.path().join("n"), home.path().join("o"));
    let (dir, other) = (dir.to_str().unwrap(), other.to_str().unwrap());
    let at = |dir: &str, args: &[&str]| {
        run(home.path(), &[args, &["--datadir", dir, "--json"]].concat())
    };
    let words = |dir: &str, args: &[&str]| -> Value {
        let (code, out, err) = at(dir, &[&["wallet", "words"], args].concat());
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    };
    assert_eq!(at(dir, &["init", "--network", "devnet"]).0, 0);
    let made = words(dir, &[]);
    assert_eq!(made["words"].as_array().unwrap().len(), 24);
    assert!(made["birthday_at"].as_u64().unwrap() > 1_700_000_000_000);

    let (right, wrong) = (file("right", "correct horse\n"), file("wrong", "battery\n"));
    // As the first start makes it.
    let (key, seed) = (format!("{dir}/identity.key"), format!("{dir}/wallet.seed"));
    let identity = format!("{}\n", "5a".repeat(32));
    file(&key, &identity);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let open_seed = read(&seed);
    let none = json_error(at(dir, &["wallet", "encrypt"]));
    assert_eq!(none, (2, "secret.no_password".to_owned()));
    let opened = json_error(at(dir, &["wallet", "decrypt", "--password-file", &right]));
    assert_eq!(opened, (6, "secret.not_sealed".to_owned()));
    assert_eq!(at(dir, &["wallet", "encrypt", "--password-file", &right]).0, 0);
    assert!(!read(&key).contains(identity.trim()), "the identity is sealed as well");
    let twice = json_error(at(dir, &["wallet", "encrypt", "--password-file", &right]));
    assert_eq!(twice, (1, "secret.sealed".to_owned()));
    let (sealed_key, sealed_seed) = (read(&key), read(&seed));
    let shut = json_error(at(dir, &["wallet", "decrypt", "--password-file", &wrong]));
    assert_eq!(shut, (4, "secret.wrong_password".to_owned()));
    assert_eq!((read(&key), read(&seed)), (sealed_key.clone(), sealed_seed.clone()));
    // A crash between the two files: the same command, or its opposite, ends the work.
    for (left_key, left_seed) in [(&identity, &sealed_seed), (&sealed_key, &open_seed)] {
        for (verb, is_sealed) in [("encrypt", true), ("decrypt", false)] {
            file(&key, left_key);
            file(&seed, left_seed);
            assert_eq!(at(dir, &["wallet", verb, "--password-file", &right]).0, 0);
            let kept = [read(&key) != identity, read(&seed) != open_seed];
            assert_eq!(kept, [is_sealed; 2], "{verb}");
        }
    }
    file(&key, &sealed_key);
    file(&seed, &sealed_seed);
    assert_eq!(json_error(at(dir, &["wallet", "words"])), (1, "secret.sealed".to_owned()));
    let locked = json_error(at(dir, &["wallet", "words", "--password-file", &wrong]));
    assert_eq!(locked, (4, "secret.wrong_password".to_owned()));
    assert_eq!(words(dir, &["--password-file", &right]), made);
    assert_eq!(at(dir, &["wallet", "decrypt", "--password-file", &right]).0, 0);
    assert_eq!(words(dir, &[]), made);
    assert_eq!((read(&key), read(&seed)), (identity, open_seed));

    let list: Vec<&str> =
        made["words"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let copy = file("copy", &list.join("\n"));
    let again =
        ["init", "--network", "devnet", "--restore-words", &copy, "--birthday", "1800000000"];
    assert_eq!(at(other, &again).0, 0);
    let restored = words(other, &[]);
    assert_eq!(restored["words"], made["words"]);
    assert_eq!(restored["birthday_at"], 1_800_000_000_000_u64);
    let taken = json_error(at(other, &["wallet", "restore", &copy]));
    assert_eq!(taken, (6, "secret.exists".to_owned()));
    let third = home.path().join("p");
    let bad = file("bad", &list[1..].join(" "));
    for command in [&["wallet", "restore", &bad][..], &["init", "--restore-words", &bad]] {
        let refused = json_error(at(third.to_str().unwrap(), command));
        assert_eq!(refused, (2, "secret.words".to_owned()));
        assert!(!third.join("config.toml").exists(), "nothing is written then");
    }
    // The next command, as it is typed.
    let spaced = home.path().join("my node");
    let spaced = spaced.to_str().unwrap();
    let init = ["init", "--network", "devnet", "--password-file", &right, "--datadir", spaced];
    let (_, out, _) = run(home.path(), &init);
    let next = format!("Next: capex up --datadir '{spaced}' --password-file {right}\n");
    assert!(out.ends_with(&next), "{out}");
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)).unwrap();
    let open = json_error(at(third.to_str().unwrap(), &["wallet", "restore", &copy]));
    assert_eq!(open, (1, "secret.permissions".to_owned()));
    assert!(!third.join("wallet.seed").exists());
}

#[test]
fn a_backup_is_made_once_and_says_how_to_go_on_elsewhere() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (dir, other, backup, words) = (path("n"), path("my node"), path("b"), path("w"));
    let private = |file: &str, text: &str| {
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    };
    assert_eq!(run(home.path(), &["init", "--network", "devnet", "--datadir", &dir]).0, 0);
    private(&format!("{dir}/identity.key"), &format!("{}\n", "5a".repeat(32)));
    let (_, out, _) = run(home.path(), &["wallet", "words", "--datadir", &dir, "--json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    let list = shown["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    private(&words, &list.collect::<Vec<_>>().join(" "));
    let create = ["backup", "create", &backup, "--datadir", &dir, "--json"];
    let (code, _, err) = run(home.path(), &create);
    assert_eq!(code, 0, "{err}");
    let made = std::fs::read(&backup).unwrap();
    assert_eq!(json_error(run(home.path(), &create)), (2, "file.unusable".to_owned()));
    assert_eq!(std::fs::read(&backup).unwrap(), made);
    let restore = ["backup", "restore", &backup, "--words-file", &words, "--datadir", &other];
    let (code, out, err) = run(home.path(), &[&restore[..], &["--network", "devnet"]].concat());
    assert_eq!(code, 0, "{err}");
    let next = format!("Next: capex up --network devnet --datadir '{other}'\n");
    assert!(out.ends_with(&next), "{out}");
}

fn issued() -> String {
    let params = definitions::load("devnet").unwrap();
    let key = SigningKey::from_bytes(&[9; 32]);
    let issue = Issue {
        v: 1,
        provider: Key(key.verifying_key().to_bytes()),
        class: 1,
        class_hash: params.class_hash(1).unwrap(),
        features: 0,
        units: Units::range(0, 2).unwrap(),
        window: Window::new(10, 12).unwrap(),
        pay: Payment::Prepaid,
        binding: Binding::Registrar,
        nonce32: [3; 32],
        not_after_slot: 11,
    };
    let issue = capex_core::wire::sign(issue, params.magic, &key).envelope().clone();
    file::write(&Certificate::issued(issue), &params)
}

#[test]
fn certificate_files_are_verified_offline() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("cert.txt");
    let verify = |text: &str, json: bool| {
        std::fs::write(&path, text).unwrap();
        let mut args = vec!["cert", "verify", path.to_str().unwrap()];
        if json {
            args.push("--json");
        }
        run(home.path(), &args)
    };
    let good = issued();
    let (code, out, err) = verify(&good, false);
    assert_eq!(code, 0, "{err}");
    for line in ["signatures: ok\n", "payment: unchecked\n", "current: never sold\n"] {
        assert!(out.contains(line), "{out}");
    }
    let report: Value = serde_json::from_str(&verify(&good, true).1).unwrap();
    assert_eq!((&report["network"], &report["seq"]), (&"devnet".into(), &0.into()));
    assert_eq!(report["units"], serde_json::json!([[0, 2]]));

    // As editors and mail programs leave it, and as a pipe brings it.
    let (head, tail) = good.split_at(good.len() - 90);
    let (middle, tail) = tail.split_at(60);
    for pasted in [
        format!("\u{feff}{good}\n\n"),
        good.replace('\n', "\r\n"),
        format!("{head}\n{middle}\r\n{tail}"),
    ] {
        let (code, _, err) = verify(&pasted, false);
        assert_eq!(code, 0, "{pasted:?}: {err}");
    }
    let file = std::fs::File::open(&path).unwrap();
    let piped = capex(home.path(), &["cert", "verify", "-"]).stdin(file).output().unwrap();
    assert_eq!(done(piped).0, 0);

    let end = good.trim_end().len() - 1;
    let flipped = if good.as_bytes()[end] == b'0' { "1" } else { "0" };
    let table = [
        (format!("{}{flipped}\n", &good[..end]), "certificate.bad_signature"),
        (good.replace("devnet", "signet"), "certificate."),
        (good.replace("issue", "gift"), "certificate.file_kind"),
        (good.replace("devnet", "moonnet"), "certificate.other_network"),
        ("hello\n".to_owned(), "certificate.file_header"),
        (String::new(), "certificate.file_header"),
    ];
    for (text, code) in table {
        let (exit, found) = json_error(verify(&text, true));
        assert!(exit == 6 && found.starts_with(code), "{text}: {exit} {found}");
    }
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(run(home.path(), &["cert", "verify", path.to_str().unwrap()]).0, 2);
}

#[test]
fn the_devchain_says_where_it_is_and_stops_on_a_signal() {
    let home = tempfile::tempdir().unwrap();
    let mut child = capex(home.path(), &["devchain", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    assert!(url.starts_with("url") && url.contains("http://127.0.0.1:"), "{url}");
    let cookie = home.path().join(".local/state/capex/devchain/.cookie");
    assert!(lines.next().unwrap().unwrap().contains(cookie.to_str().unwrap()));
    assert!(cookie.exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!cookie.exists());
}
