//! A provider says before that it will not deliver: holders know, and the receipt says so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;
mod lease_fixture;

use capex_core::engine::io::{Done, Effect};
use capex_core::engine::kernel::Table;
use capex_core::engine::leases::{LeaseCommand, LeaseEffect};
use capex_core::ids::LeaseId;
use capex_core::lease::objects::{Cause, Outcome, Receipt, Unavailable};
use capex_core::lease::{ExecutorEvent, Loss, Maintenance, Usage};
use certificate_fixture::party::*;
use certificate_fixture::*;
use lease_fixture::*;

fn maintenance(from_ms: u64, to_ms: u64) -> Maintenance {
    Maintenance { from_ms, to_ms, why: "new disks".to_owned() }
}

/// What the provider's operator is answered.
fn command(net: &mut Net, command: LeaseCommand) -> Result<Done, String> {
    let provider = net.party(PROVIDER);
    let id = 1_000 + provider.done().len() as u64;
    provider.with(|ctx, books, leases| leases.on_command(ctx, &books.holdings, id, command));
    net.pump();
    let done = net.party(PROVIDER).done();
    done.into_iter().find(|(of, _)| *of == id).unwrap().1
}

fn announce(net: &mut Net, from_ms: u64, to_ms: u64) -> Result<u32, String> {
    let announced = command(net, LeaseCommand::Announce(maintenance(from_ms, to_ms)));
    announced.map(|done| match done {
        Done::Announced { number } => number,
        other => panic!("{other:?}"),
    })
}

/// What the host was told last.
fn told(net: &mut Net) -> Vec<Maintenance> {
    net.pump();
    let log = net.party(PROVIDER).log.iter().rev();
    let mut told = log.filter_map(|effect| match effect {
        Effect::Lease(LeaseEffect::Maintain { all }) => Some(all.clone()),
        _ => None,
    });
    told.next().unwrap()
}

fn lost(lost: &[(Cause, u64)]) -> Vec<Unavailable> {
    lost.iter().map(|(cause, ms)| Unavailable { cause: *cause, ms: *ms }).collect()
}

fn rests(net: &mut Net, lease: LeaseId, since_ms: u64) {
    let (loss, usage) = (Loss::Maintenance, Usage::default());
    let started_at_ms = Some(STARTS_MS + 100);
    let event = ExecutorEvent::Interrupted { loss, since_ms, started_at_ms, usage };
    net.party(PROVIDER).executor(lease, event);
}

fn end(interrupted_ms: u64) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome: Outcome::Deadline,
        started_at_ms: Some(STARTS_MS + 100),
        at_ms: ENDS_MS,
        usage: Usage { interrupted_ms, ..Usage::default() },
    }
}

#[test]
fn what_was_announced_is_told_and_counts_as_maintenance() {
    let (mut net, _, lease) = redeemed();
    let (from_ms, to_ms) = (STARTS_MS + 5_000, STARTS_MS + 9_000);
    assert_eq!(announce(&mut net, from_ms, to_ms), Ok(1));
    let planned = vec![maintenance(from_ms, to_ms)];
    assert_eq!(told(&mut net), planned);
    let status = net.party(PROVIDER).status(&lease);
    assert_eq!((status.maintenance.clone(), status.unavailable.clone()), (planned.clone(), vec![]));
    net.party(ALICE).with(|ctx, _, leases| leases.note_status(ctx, lease, status));
    for who in [PROVIDER, ALICE] {
        assert_eq!(view(&mut net, who, lease).maintenance, planned, "{who}");
    }

    net.until(STARTS_MS + 3_000);
    let started = |run| ExecutorEvent::Started { run, at_ms: STARTS_MS + 100 };
    net.party(PROVIDER).executor(lease, started(1));
    net.until(STARTS_MS + 7_000);
    rests(&mut net, lease, from_ms + 100);
    let status = net.party(PROVIDER).status(&lease);
    assert_eq!(
        (status.phase.as_str(), status.code.as_deref()),
        ("interrupted", Some("lease.maintenance"))
    );
    assert_eq!(status.unavailable, lost(&[(Cause::Maintenance, 1_900)]));
    // A restart of the daemon forgets nothing of it.
    net.restart(PROVIDER);
    assert_eq!(told(&mut net), planned);
    assert_eq!(net.party(PROVIDER).status(&lease).unavailable, status.unavailable);
    // What comes after the time that was announced is an interruption like any other.
    net.until(STARTS_MS + 9_500);
    let late = lost(&[(Cause::Interrupted, 500), (Cause::Maintenance, 3_900)]);
    assert_eq!(net.party(PROVIDER).status(&lease).unavailable, late);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Announced { ms: 3_900 });
    provider.executor(lease, started(2));
    net.restart(PROVIDER);
    net.until(ENDS_MS);
    net.party(PROVIDER).executor(lease, end(4_400));

    let receipts = fetch_receipts(&mut net, lease, 1);
    let receipt: Receipt = receipts[0].peek().unwrap();
    assert_eq!((receipt.unavailable.clone(), receipt.units), (late.clone(), 2));
    assert_eq!(receipt.delivered_ms, ENDS_MS - STARTS_MS - 100 - 4_400);
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    assert_eq!(view(&mut net, ALICE, lease).countersigned, 1);
    let alice = net.party(ALICE);
    let record = alice.leases.delivery(&public(PROVIDER), alice.now_ms, &alice.params);
    let of_units = lost(&[(Cause::Interrupted, 1_000), (Cause::Maintenance, 7_800)]);
    assert_eq!(record.unavailable, of_units);
    assert_eq!(record.sold_block_ms, 2 * (ENDS_MS - STARTS_MS - 100));
}

#[test]
fn a_lease_that_it_does_not_concern_is_not_told() {
    let (mut net, _, lease) = redeemed();
    let number = announce(&mut net, ENDS_MS, ENDS_MS + 4_000).unwrap();
    assert!(net.party(PROVIDER).status(&lease).maintenance.is_empty());
    assert_eq!(command(&mut net, LeaseCommand::CallOff(number)), Ok(Done::Ok));
    assert_eq!(told(&mut net), []);
    let none = Err("maintenance.not_found".to_owned());
    assert_eq!(command(&mut net, LeaseCommand::CallOff(number)), none);
    let now_ms = net.party(PROVIDER).now_ms;
    assert_eq!(
        announce(&mut net, now_ms + 3_999, ENDS_MS),
        Err("maintenance.short_notice".to_owned())
    );
    net.pump();
    let table = Table::Maintenance.number();
    assert!(!net.party(PROVIDER).disk.keys().any(|(of, _)| *of == table), "nothing is kept");
}

/// What has passed of a maintenance was announced, though the rest of it is called off.
#[test]
fn a_maintenance_that_has_begun_ends_when_it_is_called_off() {
    let (mut net, _, lease) = redeemed();
    let (from_ms, to_ms) = (STARTS_MS + 5_000, STARTS_MS + 9_000);
    let number = announce(&mut net, from_ms, to_ms).unwrap();
    net.until(STARTS_MS + 3_000);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    net.until(STARTS_MS + 6_000);
    rests(&mut net, lease, from_ms);
    assert_eq!(command(&mut net, LeaseCommand::CallOff(number)), Ok(Done::Ok));
    assert_eq!(told(&mut net), [maintenance(from_ms, from_ms + 1_000)]);
    net.restart(PROVIDER);
    net.until(STARTS_MS + 7_000);
    let expected = lost(&[(Cause::Interrupted, 1_000), (Cause::Maintenance, 1_000)]);
    assert_eq!(net.party(PROVIDER).status(&lease).unavailable, expected);
    // As for the slots: they may be announced anew.
    assert!(announce(&mut net, STARTS_MS + 12_000, STARTS_MS + 13_000).is_ok());
}

/// Those that are over take no room from those to come, and are not kept for ever.
#[test]
fn maintenances_are_bounded_and_forgotten() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let nth = |n: u64| (START_MS + 8_000 * n, START_MS + 8_000 * n + 4_000);
    for n in 1..=16 {
        announce(&mut net, nth(n).0, nth(n).1).unwrap();
    }
    assert_eq!(announce(&mut net, nth(17).0, nth(17).1), Err("maintenance.too_many".to_owned()));
    net.until(nth(16).1);
    for n in 17..=32 {
        announce(&mut net, nth(n).0 + 8_000, nth(n).1 + 8_000).unwrap();
    }
    assert_eq!(told(&mut net).len(), 32);
    net.until(nth(33).1);
    let next = START_MS + 8_000 * 40;
    announce(&mut net, next, next + 4_000).unwrap();
    assert_eq!(told(&mut net).len(), 17, "the oldest are gone");
    net.restart(PROVIDER);
    assert_eq!(told(&mut net).len(), 17);
    net.party(PROVIDER).chain.median_time_past_s = u32::MAX;
    net.pass(4_000 * 400);
    net.restart(PROVIDER);
    assert_eq!(told(&mut net), []);
}
