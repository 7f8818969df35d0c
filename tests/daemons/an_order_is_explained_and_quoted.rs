//! What a buyer asks before and after: what would it cost, why was I not matched.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use capex::api::types::{Depth, Explanation, Fact, Order, Placed, Quote};

use crate::daemon::{Daemon, error_of, signal, until};
use crate::market::{provider_and_buyer, sell, soon};
use crate::world::World;

/// A bid at a price, by the command line, under `verb`.
fn bid<'a>(verb: &[&'a str], price: &'a str, window: &'a str) -> Vec<&'a str> {
    let flags = ["--class", "cpu.standard", "--qty", "2", "--max-price", price, "--window", window];
    [verb, &flags].concat()
}

/// The explanation of an order, once an epoch with it is computed.
fn explained(daemon: &Daemon, id: &str) -> Explanation {
    until("explanation", Duration::from_secs(20), || {
        let (code, out, _) = daemon.cli(&["--json", "order", "explain", id]);
        (code == 0).then(|| serde_json::from_str(&out).unwrap())
    })
}

#[test]
fn an_order_is_explained_and_quoted() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 4);
    assert_eq!(buyer.cli_error(&["order", "explain", "00112233"]), (5, "order.not_found".into()));
    let ask = sell(&provider, 4);
    until("ask in the buyer's book", Duration::from_secs(20), || {
        let depth: Depth = buyer.try_get("/depth").ok()?;
        depth.classes.first().is_some_and(|class| class.slots[0].ask_total_qty == 4).then_some(())
    });

    let [start, end] = soon(&buyer);
    let window = format!("{start}..{end}");
    let quote: Quote = buyer.cli_json(&bid(&["quote", "buy"], "900sat", &window));
    assert_eq!((quote.binding.as_str(), quote.filled_qty), ("indication", 2));
    // Two units in two slots at the 500 sat of the one ask.
    assert_eq!((quote.price_sat, quote.fills.len(), quote.prices.len()), (2000, 1, 2));
    assert_eq!(quote.fills[0].counterparty, provider.key());
    assert!(quote.fee_sat > 0 && quote.total_sat == quote.price_sat + quote.fee_sat);
    assert_eq!(quote.explanation, None);
    let cheap: Quote = buyer.cli_json(&bid(&["quote", "buy"], "400sat", &window));
    let why = cheap.explanation.unwrap();
    assert_eq!((cheap.filled_qty, cheap.total_sat, cheap.fee_sat), (0, 0, 0));
    assert_eq!(why.code.as_deref(), Some("explain.limit"));
    assert_eq!(why.best_limits[0].limit_msat, Some(500_000));
    let orders: Vec<Order> = buyer.get("/orders");
    assert_eq!(orders, [], "a quote places nothing");
    let past = bid(&["quote", "buy"], "900sat", "1..3");
    assert_eq!(buyer.cli_error(&past), (2, "order.window".into()));
    let (code, text, _) = buyer.cli(&bid(&["quote", "buy"], "400sat", &window));
    assert!(code == 0 && text.contains("Nothing was placed") && text.contains("indication"));

    let placed: Placed = buyer.cli_json(&bid(&["buy"], "400sat", &window));
    let found = explained(&buyer, &placed.order_id);
    assert_eq!(found.order_id.as_deref(), Some(placed.order_id.as_str()));
    assert_eq!((found.state.as_str(), found.code.as_deref()), ("unmatched", Some("explain.limit")));
    assert_eq!(found.best_limits[0].limit_msat, Some(500_000));
    let nearest = &found.nearest[0];
    assert_eq!(nearest.owner, provider.key());
    assert_eq!(nearest.own, Some(Fact::LimitMsat(400_000)));
    assert_eq!(nearest.theirs, Some(Fact::LimitMsat(500_000)));
    // The provider sees the same bid from the other side, by its id in that epoch.
    let epoch = found.epoch.to_string();
    let theirs: Explanation =
        provider.cli_json(&["order", "explain", &found.id, "--epoch", &epoch]);
    assert_eq!((theirs.id, theirs.order_id), (found.id, None));
    assert_eq!((theirs.nearest, theirs.funnel), (found.nearest, found.funnel));
    let mine = explained(&provider, &ask);
    assert_eq!(mine.order_id.as_deref(), Some(ask.as_str()));
    let never = buyer.cli_error(&["order", "explain", &placed.order_id, "--epoch", "1"]);
    assert_eq!(never, (5, "epoch.not_found".into()));
    let (code, text, _) = buyer.cli(&["order", "explain", &placed.order_id]);
    assert!(code == 0 && text.contains("limits cross"), "{text}");
    assert!(text.contains("Next: raise --max-price"), "{text}");
    watched(&buyer);
}

/// `book --watch` prints a line of JSON a second and ends cleanly on an interrupt; a reader
/// that closes the pipe ends it too.
fn watched(daemon: &Daemon) {
    for interrupted in [true, false] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_capex"));
        let dir = daemon.dir.to_str().unwrap();
        command.args(["--network", "devnet", "--datadir", dir, "--json", "book", "--watch"]);
        command.env_clear().env("HOME", daemon.dir.parent().unwrap());
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let depth: Depth = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(depth.classes[0].class, "cpu.standard");
        }
        if interrupted {
            signal(child.id(), "INT");
        } else {
            drop(lines);
        }
        let status =
            until("end of the watch", Duration::from_secs(10), || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "interrupted: {interrupted}");
    }
    let gone = ["--json", "book", "cpu.big", "--watch"];
    assert_eq!(error_of(daemon.cli(&gone)), (2, "order.unknown_class".into()));
}
