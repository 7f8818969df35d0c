//! A value that was sealed for the provider reaches the workload, and no file of either side.

use std::fs;
use std::path::{Path, PathBuf};

use capex::api::types::{Lease, Redeemed, TimeInForce};
use capex::executor::samples::TOKEN;

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{Daemon, until};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

const VALUE: &str = "correct-horse";
/// What the workload does not know.
const OTHER: &str = "battery-staple";

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Files of a data directory that have a text.
fn having(daemon: &Daemon, text: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(&daemon.dir, &mut all);
    assert!(all.len() > 5, "{all:?}");
    let has = |path: &PathBuf| {
        // One that was renamed meanwhile is found under its other name.
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    all.into_iter().filter(has).collect()
}

#[test]
fn a_sealed_value_is_in_no_file() {
    let world = World::new();
    let (mut provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let [first, _] = soon(&buyer);
    let window = [first, first + 16];
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    let wasm = file(&world, "token.wasm", TOKEN);
    let secret = file(&world, "secret", format!("{VALUE}\n").as_bytes());
    let sealed = format!("TOKEN=@{}", secret.display());
    let wasm = wasm.to_str().unwrap();
    let redeemed: Redeemed =
        buyer.cli_json(&["cert", "redeem", &cert, "--wasm", wasm, "--env-sealed", &sealed]);
    let id = redeemed.lease_id;
    let exited = || lease(&buyer, &id).filter(|lease| lease.exit_code.is_some());
    let before = until("the exit", SETTLING, exited);
    assert_eq!(before.exit_code, Some(0), "the workload has the value");

    // A next life of the provider opens it again, for another run.
    provider.kill();
    provider.start(&[&buyer.p2p()]);
    until("another run", SETTLING, || (buyer.cli(&["lease", "restart", &id]).0 == 0).then_some(()));
    let again = until("the second exit", SETTLING, || exited().filter(|lease| lease.runs > 1));
    assert_eq!(again.exit_code, Some(0));

    // What takes its place has values of its own, which the running process is handed.
    let other = file(&world, "other", OTHER.as_bytes());
    for (runs, path, code) in [(2, &other, 1), (3, &secret, 0)] {
        let sealed = format!("TOKEN=@{}", path.display());
        let replace = ["lease", "replace", &id, "--wasm", wasm, "--env-sealed", &sealed];
        until("another workload", SETTLING, || (buyer.cli(&replace).0 == 0).then_some(()));
        let is_next = |lease: &Lease| lease.runs > runs;
        let exit = until("the next exit", SETTLING, || exited().filter(is_next));
        assert_eq!(exit.exit_code, Some(code), "run {}", runs + 1);
    }

    for daemon in [&provider, &buyer] {
        assert_eq!(having(daemon, OTHER), Vec::<PathBuf>::new());
        assert!(!having(daemon, "TOKEN").is_empty(), "its name is no secret");
        assert_eq!(having(daemon, VALUE), Vec::<PathBuf>::new());
        for args in [&["lease", "show", &id][..], &["lease", "show", &id, "--json"]] {
            let (_, out, err) = daemon.cli(args);
            assert!(!out.contains(VALUE) && !err.contains(VALUE), "{out}{err}");
        }
    }
}
