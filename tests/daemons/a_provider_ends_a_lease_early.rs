//! A provider that ends a lease before its window is known for it.

use std::time::Duration;

use capex::api::types::{Acknowledged, Lease, Peer};

use crate::a_certificate_is_given_and_redeemed::{chatting, lease};
use crate::daemon::until;
use crate::market::{provider_and_buyer, sell};
use crate::world::World;

#[test]
fn a_provider_ends_a_lease_early() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let id = chatting(&world, &buyer, 50);
    let done: Acknowledged = provider.cli_json(&["lease", "stop", &id]);
    assert!(done.ok);
    let ended: Lease = until("the receipt", Duration::from_secs(60), || {
        lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over())
    });
    let seconds = |text: &str| -> f64 { text.parse().unwrap() };
    let [lost] = &ended.unavailable[..] else { panic!("{ended:?}") };
    assert_eq!(lost.cause, "withdrawn");
    assert!(seconds(&lost.unavailable_s) > 100.0, "{ended:?}");
    let peer: Peer = buyer.cli_json(&["peer", "show", &ended.provider]);
    let record = &peer.record;
    assert_eq!((record.leases, record.ended_early), (1, 1));
    assert_eq!(record.unavailable, ended.unavailable);
    assert!(seconds(record.delivered_percent.as_deref().unwrap()) < 50.0, "{record:?}");
    let (_, text, _) = buyer.cli(&["peer", "show", &ended.provider]);
    assert!(text.contains("1 of them, before their windows"), "{text}");
}
