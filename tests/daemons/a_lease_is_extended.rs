//! A lease goes on with the certificate that adjoins it: the same process, a later end.

use std::time::Duration;

use capex::api::types::{Acknowledged, Lease, Redeemed, TimeInForce};
use capex::executor::samples::CHATTY;

use crate::a_certificate_is_given_and_redeemed::{file, lease};
use crate::daemon::{processes_of, until};
use crate::market::{SETTLING, bought, buy, provider_and_buyer, sell, soon};
use crate::world::World;

#[test]
fn a_lease_is_extended() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let [start, _] = soon(&buyer);
    let (first, next) = ([start, start + 4], [start + 4, start + 6]);
    for window in [first, next] {
        buy(&buyer, 1, window, TimeInForce::Ioc);
    }
    let (cert, adjoining) = (bought(&buyer, first).cert_id, bought(&buyer, next).cert_id);
    let wasm = file(&world, "chatty.wasm", CHATTY);
    let wasm = wasm.to_str().unwrap();
    let redeemed: Redeemed = buyer.cli_json(&["cert", "redeem", &cert, "--wasm", wasm]);
    let id = redeemed.lease_id;
    let running = |daemon| lease(daemon, &id).filter(|lease| lease.phase == "running");
    until("the start", SETTLING, || running(&buyer));
    let processes = processes_of(&provider.dir.join("leases"));
    let extend = ["lease", "extend", &id[..12], "--with", &adjoining[..12]];
    let done: Acknowledged = buyer.cli_json(&extend);
    assert!(done.ok);
    let (exit, code) = buyer.cli_error(&extend);
    assert_eq!((exit, code.as_str()), (6, "redeem.consumed"));

    let first_ends_at = u64::from(first[1]) * u64::from(buyer.status().unwrap().slot_s) * 1_000;
    let is_later = || (capex::clock::now_ms() > first_ends_at + 1_000).then_some(());
    until("the end of the first window", SETTLING, is_later);
    assert_eq!(processes_of(&provider.dir.join("leases")), processes, "the same process");
    let ended: Lease = until("receipt of both", Duration::from_secs(60), || {
        lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over())
    });
    assert_eq!(ended.outcome.as_deref(), Some("deadline"));
    assert_eq!((ended.window, ended.extensions), ([first[0], next[1]], vec![adjoining]));
    assert_eq!(ended.runs, 1);
}
