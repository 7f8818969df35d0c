//! Without facts about the chain nothing is promised and nothing is paid.

use std::net::TcpListener;
use std::time::Duration;

use capex::api::types::{TimeInForce, Trade};

use crate::daemon::{Daemon, until};
use crate::market::{
    Coins, all_settled, buy, cancel, certificates, is_over, provider_and_buyer, sell, soon,
};
use crate::world::World;

const NOTICING: Duration = Duration::from_secs(10);

fn warns_of_the_chain(daemon: &Daemon) -> Option<()> {
    let status = daemon.status()?;
    let warned = status.warnings.iter().any(|warning| warning.code == "chain.down");
    (warned && !status.chain.up).then_some(())
}

const BID: [&str; 9] =
    ["buy", "--class", "cpu.standard", "--qty", "2", "--max-price", "900sat", "--for", "2slots"];

#[test]
fn a_daemon_without_its_chain_source_starts_and_spends_nothing() {
    let world = World::without_chain();
    // An address at which nobody listens any more.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{silent}");
    let mut daemon = world.daemon_on("alone", 2, &url, &world.path().join("no-cookie"));
    daemon.start(&[]);
    until("warning", NOTICING, || warns_of_the_chain(&daemon));
    assert_eq!(daemon.cli_error(&BID), (3, "chain.down".to_owned()));
    assert_eq!(daemon.cli_error(&["wallet", "fund", "0.1btc"]).0, 3);
    let (code, out, _) = daemon.cli(&["status"]);
    assert_eq!(code, 0);
    assert!(out.contains("warning[chain.down]"), "{out}");
    let (status, took) = daemon.terminate(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "after {took:?}");

    // One that accepts a connection and never says a word must not hold up the end.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let cookie = world.path().join("cookie-of-the-mute");
    std::fs::write(&cookie, "__cookie__:00").unwrap();
    let mut daemon = world.daemon_on("patient", 0, &url, &cookie);
    daemon.start(&[]);
    let _asked = mute.accept().unwrap();
    assert_eq!(daemon.cli_error(&BID), (3, "chain.down".to_owned()));
    let (status, took) = daemon.terminate(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "after {took:?}");
}

#[test]
fn a_chain_server_killed_in_mid_settlement_only_delays_it() {
    let mut world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    let daemons = [&provider, &buyer];
    let coins = Coins::count(&world, &daemons);
    let ask = sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 2, window, TimeInForce::Ioc);
    until("funding", Duration::from_secs(20), || {
        let trades: Vec<Trade> = buyer.get("/trades");
        let funded = |trade: &Trade| trade.settlement.as_ref().is_some_and(|s| s.fund.is_some());
        trades.iter().any(funded).then_some(())
    });

    // With the server, all that was in its mempool is gone.
    world.chain.kill();
    for daemon in daemons {
        until("warning", NOTICING, || warns_of_the_chain(daemon));
    }
    assert_eq!(buyer.cli_error(&BID), (3, "chain.down".to_owned()));
    let held = daemons.map(|daemon| certificates(daemon).len());
    world.chain.start();
    for daemon in daemons {
        until("chain", NOTICING, || daemon.status()?.chain.up.then_some(()));
    }
    cancel(&provider, &ask);
    all_settled(&daemons);
    let bought: Vec<Trade> = buyer.get("/trades");
    let sold: Vec<Trade> = provider.get("/trades");
    assert!(bought.iter().chain(&sold).all(is_over));
    assert_eq!((bought.len(), sold.len()), (1, 1));
    let ends = (bought[0].state.as_str(), sold[0].state.as_str());
    assert_eq!(ends, ("active", "settled"), "{held:?} certificates while it was away");
    coins.assert_only_fees_left(&world, &daemons);
}
