//! Provider and holder die while a lease runs: the lease ends with its window all the same,
//! the provider's next life issues the receipt, and the holder's next life gets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capex::api::types::{Lease, Redeemed, TimeInForce};
use capex::executor::samples::CHATTY;

use crate::a_certificate_is_given_and_redeemed::lease;
use crate::daemon::{processes_of, until};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

/// How late an end may be seen on a busy machine, beyond the grace of half a second.
const SLACK_MS: u64 = 2500;

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn a_lease_outlives_its_daemon() {
    let world = World::new();
    let (mut provider, mut buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let window = soon(&buyer);
    buy(&buyer, 1, window, TimeInForce::Ioc);
    let cert = bought(&buyer, window).cert_id;
    let wasm = world.path().join("chatty.wasm");
    std::fs::write(&wasm, CHATTY).unwrap();
    let redeemed: Redeemed =
        buyer.cli_json(&["cert", "redeem", &cert, "--wasm", wasm.to_str().unwrap()]);
    let id = redeemed.lease_id;
    until("output", SETTLING, || {
        let logs = buyer.client().ok()?.logs(&id, "stdout").ok()?;
        (!logs.is_empty()).then_some(())
    });
    let slot_s = buyer.status().unwrap().slot_s;
    provider.kill();
    buyer.kill();
    let leases = provider.dir.join("leases");
    assert_eq!(processes_of(&leases).len(), 1, "the lease process lives on");

    let ends_at_ms = u64::from(window[1]) * u64::from(slot_s) * 1000;
    until("end of the lease process", SETTLING, || processes_of(&leases).is_empty().then_some(()));
    let late_ms = now_ms().saturating_sub(ends_at_ms);
    assert!(now_ms() + 500 >= ends_at_ms, "not before the window ends");
    assert!(late_ms <= SLACK_MS, "{late_ms} ms after the window");

    buyer.start(&[]);
    provider.start(&[&buyer.p2p()]);
    let ended: Lease = until("receipt of both", Duration::from_secs(20), || {
        lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over())
    });
    assert_eq!(ended.outcome.as_deref(), Some("deadline"));
    let logs = buyer.client().unwrap().logs(&id, "stdout").unwrap();
    assert!(logs.len() > 100 * "tick\n".len(), "{} bytes", logs.len());
    let released = until("release", Duration::from_secs(20), || {
        lease(&provider, &id).filter(|lease| lease.phase == "released")
    });
    assert_eq!(released.left_behind, [] as [&str; 0]);
    assert!(std::fs::read_dir(&leases).unwrap().flatten().next().is_none());
}
