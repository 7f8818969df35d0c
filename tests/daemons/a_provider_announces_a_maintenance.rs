//! A provider says that it will not deliver for a while: the holder knows before, the lease rests and
//! goes on, and the record of the provider says how long.

use std::time::Duration;

use capex::api::types::{Acknowledged, Lease, Maintenance, Peer, Unavailable};

use crate::a_certificate_is_given_and_redeemed::{chatting, lease};
use crate::daemon::{Daemon, until};
use crate::market::{SETTLING, provider_and_buyer, sell};
use crate::world::World;

const ANNOUNCE: [&str; 3] = ["host", "maintenance", "announce"];

fn refused(provider: &Daemon, flags: &[&str]) -> (i32, String) {
    provider.cli_error(&[&ANNOUNCE, flags].concat())
}

fn of_maintenance(lost: &[Unavailable]) -> Option<f64> {
    let lost = lost.iter().find(|lost| lost.cause == "maintenance")?;
    Some(lost.unavailable_s.parse().unwrap())
}

#[test]
fn a_provider_announces_a_maintenance() {
    let world = World::new();
    let (provider, buyer) = provider_and_buyer(&world, 2);
    sell(&provider, 2);
    let id = chatting(&world, &buyer, 7);

    let plan = ["--from", "+6s", "--for", "5s", "--why", "new disks"];
    let planned: Maintenance = provider.cli_json(&[ANNOUNCE.as_slice(), &plan].concat());
    assert_eq!((planned.number, planned.why.as_str()), (1, "new disks"));
    assert_eq!(provider.status().unwrap().maintenance, vec![planned.clone()]);
    let listed: Vec<Maintenance> = provider.cli_json(&["host", "maintenance", "list"]);
    assert_eq!(listed, vec![planned.clone()]);
    let host: serde_json::Value = provider.cli_json(&["host", "show"]);
    assert_eq!(host["maintenance"], serde_json::json!([planned.clone()]));
    let (_, page, _) = provider.cli(&["host", "show"]);
    assert!(page.contains("announced maintenance:\n") && page.contains("new disks"), "{page}");
    let (exit, code) = refused(&provider, &plan);
    assert_eq!((exit, code.as_str()), (6, "maintenance.overlaps"));
    let (exit, code) = refused(&provider, &["--from", "+1s", "--for", "5s"]);
    assert_eq!((exit, code.as_str()), (6, "maintenance.short_notice"));
    let (exit, code) = refused(&provider, &["--from", "1700000000", "--for", "5s"]);
    assert_eq!((exit, code.as_str()), (2, "maintenance.past"));

    // The holder knows before, and so does what runs.
    let told = until("word of it", SETTLING, || {
        lease(&buyer, &id).filter(|lease| !lease.maintenance.is_empty())
    });
    let told = &told.maintenance[0];
    let said = (told.starts_at, told.ends_at, told.why.as_str());
    assert_eq!(said, (planned.starts_at, planned.ends_at, "new disks"));
    until("the notice", SETTLING, || {
        let (_, log, _) = provider.cli(&["lease", "logs", &id, "--stderr"]);
        log.contains("a maintenance of 5 seconds").then_some(())
    });
    let rests = until("the maintenance", SETTLING, || {
        lease(&buyer, &id).filter(|lease| lease.phase == "interrupted")
    });
    assert_eq!(rests.code.as_deref(), Some("lease.maintenance"));
    until("another run", SETTLING, || lease(&buyer, &id).filter(|lease| lease.runs == 2));
    let ended: Lease = until("the receipt", Duration::from_secs(60), || {
        lease(&buyer, &id).filter(|lease| lease.countersigned && lease.is_over())
    });
    assert_eq!(ended.outcome.as_deref(), Some("deadline"));
    let lost_s = of_maintenance(&ended.unavailable).unwrap();
    assert!(lost_s > 1.0 && lost_s <= 5.0, "{ended:?}");
    let peer: Peer = buyer.cli_json(&["peer", "show", &ended.provider]);
    assert_eq!(of_maintenance(&peer.record.unavailable), Some(lost_s));

    // One that is to come can be called off.
    let plan = ["--from", "+60s", "--for", "5s"];
    let planned: Maintenance = provider.cli_json(&[ANNOUNCE.as_slice(), &plan].concat());
    let number = planned.number.to_string();
    let cancel = ["host", "maintenance", "cancel", &number];
    let done: Acknowledged = provider.cli_json(&cancel);
    assert!(done.ok);
    assert_eq!(provider.cli_error(&cancel), (5, "maintenance.not_found".to_owned()));
}
