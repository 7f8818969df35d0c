//! An end by signal or by kill, a damaged index, and a life after it with everything there.

use std::time::Duration;

use capex::api::types::{Certificate, Order, TimeInForce, Trade};

use crate::daemon::Daemon;
use crate::market::{
    all_settled, balance, bought, buy, certificates, provider_and_buyer, sell, soon, total_sat,
};
use crate::world::World;

/// An operator's service manager waits longer; a person does not.
const STOPPING: Duration = Duration::from_secs(5);

/// All that must survive.
#[derive(Debug, PartialEq)]
struct Kept {
    key: String,
    total_sat: u64,
    orders: Vec<String>,
    trades: Vec<Trade>,
    certificates: Vec<Certificate>,
}

fn kept(daemon: &Daemon) -> Kept {
    let orders: Vec<Order> = daemon.get("/orders");
    Kept {
        key: daemon.key(),
        total_sat: total_sat(daemon),
        orders: orders.into_iter().map(|o| format!("{} {}", o.order_id, o.state)).collect(),
        trades: daemon.get("/trades"),
        certificates: certificates(daemon),
    }
}

#[test]
fn a_daemon_takes_up_where_it_stopped() {
    let world = World::new();
    let (mut provider, mut buyer) = provider_and_buyer(&world, 4);
    sell(&provider, 4);
    let window = soon(&buyer);
    buy(&buyer, 2, window, TimeInForce::Gtc);
    bought(&buyer, window);
    all_settled(&[&provider, &buyer]);
    world.wait_blocks(2);
    crate::daemon::until("confirmed coins", Duration::from_secs(10), || {
        (balance(&buyer).pending_sat + balance(&provider).pending_sat == 0).then_some(())
    });
    let before = (kept(&provider), kept(&buyer));

    // SIGTERM: soon, in order, and nothing left that names a process which is gone.
    let (status, took) = provider.terminate(STOPPING);
    assert_eq!(status.code(), Some(0), "after {took:?}");
    for name in ["endpoints", "cookie"] {
        assert!(!provider.dir.join(name).exists(), "{name} stayed behind");
    }
    assert_eq!(provider.cli_error(&["status"]), (3, "daemon.unreachable".to_owned()));

    // SIGKILL: the files stay behind, and the command line is not fooled by them.
    buyer.kill();
    assert!(buyer.dir.join("endpoints").exists() && buyer.dir.join("cookie").exists());
    assert_eq!(buyer.cli_error(&["status"]), (3, "daemon.unreachable".to_owned()));

    // A damaged index is put aside and made again from the journal.
    let index = provider.dir.join("store/index");
    for entry in std::fs::read_dir(&index).unwrap().flatten() {
        if entry.path().is_file() {
            let length = usize::try_from(entry.metadata().unwrap().len()).unwrap();
            std::fs::write(entry.path(), vec![0xa5; length.max(64)]).unwrap();
        }
    }
    provider.start(&[]);
    buyer.start(&[&provider.p2p()]);
    let aside = std::fs::read_dir(provider.dir.join("store")).unwrap().flatten();
    let aside = aside.filter(|e| e.file_name().to_string_lossy().starts_with("quarantine"));
    assert_eq!(aside.count(), 1);
    world.wait_blocks(2);
    assert_eq!((kept(&provider), kept(&buyer)), before);

    // It finds the market again by itself, which goes on.
    buyer.kill();
    buyer.start(&[]);
    crate::market::meet(&[&provider, &buyer]);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Gtc);
    bought(&buyer, window);
}
