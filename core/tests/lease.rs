//! Leases between two nodes: from redemption to release.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;
mod lease_fixture;

use std::collections::BTreeSet;

use capex_core::engine::io::{Done, Effect, Topic};
use capex_core::engine::kernel::Table;
use capex_core::engine::leases::{
    LeaseCommand, LeaseEffect, LeasePurpose, LeaseRole, Offer, StopReason,
};
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::objects::{
    Content, Countersign, EnvValue, EnvVar, InputFile, LeaseCall, LeaseReply, LeaseRequest,
    LeaseStatus, Outcome, Payload, PayloadKind, Receipt, Redeem, Verb, Workload,
};
use capex_core::lease::{ExecutorEvent, Usage, workload};
use capex_core::units::Units;
use capex_core::wire;
use certificate_fixture::party::*;
use certificate_fixture::*;
use lease_fixture::*;

#[test]
fn a_lease_goes_from_redemption_to_release() {
    let (mut net, cert, lease) = redeemed();
    let said = is_published(&net.party(PROVIDER).log, Topic::Locks);
    assert_eq!(said, 3, "lock, sale and redemption");
    assert_eq!(net.state(ALICE, cert).0, "redeemed");
    assert_eq!(net.state(PROVIDER, cert).0, "redeemed");
    let start = net
        .party(PROVIDER)
        .log
        .iter()
        .find(|e| matches!(e, Effect::Lease(LeaseEffect::Prepare { .. })))
        .cloned();
    let expected = Effect::Lease(LeaseEffect::Prepare {
        cert,
        lease,
        workload: Box::new(work()),
        order: 1,
        starts_at_ms: STARTS_MS,
        ends_at_ms: ENDS_MS,
        cpu_max_milli: 2_000,
        memory_max_bytes: (2 * 256) << 20,
        disk_max_bytes: (2 * 64) << 20,
        same_holder: Vec::new(),
    });
    assert_eq!(start, Some(expected));

    run_to_end(&mut net, lease);
    let provider = view(&mut net, PROVIDER, lease);
    assert_eq!((provider.role, provider.phase.as_str()), (LeaseRole::Provider, "ended"));
    assert_eq!((provider.receipts, provider.countersigned), (1, 0));
    let receipts = fetch_receipts(&mut net, lease, 1);
    let receipt: Receipt = receipts[0].peek().unwrap();
    assert_eq!((receipt.from_ms, receipt.to_ms), (STARTS_MS + 100, STARTS_MS + 2_100));
    assert_eq!((receipt.delivered_ms, receipt.unavailable_ms()), (2_000, 0));
    assert_eq!((receipt.cpu_us, receipt.output_bytes), (5_000, 77));

    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    let holder = view(&mut net, ALICE, lease);
    assert_eq!((holder.role, holder.phase.as_str()), (LeaseRole::Holder, "ended"));
    assert_eq!((holder.receipts, holder.countersigned), (1, 1));
    assert_eq!(holder.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(holder.delivered_ms, 2_000);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 0);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Fetched { name: "other".to_owned() });
    net.pass(0);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 0);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Fetched { name: "out".to_owned() });
    net.pass(0);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 1);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Released { left_behind: vec![] });
    let provider = view(&mut net, PROVIDER, lease);
    assert_eq!((provider.phase.as_str(), provider.countersigned), ("released", 1));
    net.pass(60_000);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 1);
    assert_eq!(net.party(PROVIDER).leases.next_deadline(&devnet()), None);
}

#[test]
fn results_go_when_their_time_is_over_even_if_nobody_came() {
    let (mut net, _, lease) = redeemed();
    run_to_end(&mut net, lease);
    // All is fetched, and the receipt is not agreed to.
    net.party(PROVIDER).executor(lease, ExecutorEvent::Fetched { name: "out".to_owned() });
    let deadline = net.party(PROVIDER).leases.next_deadline(&devnet());
    assert_eq!(deadline, Some(STARTS_MS + 2_100 + 3_000));
    net.until(STARTS_MS + 2_100 + 2_999);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 0);
    net.pass(1);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 1);
    net.pass(1_000);
    assert_eq!(
        effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))),
        2,
        "repeated until answered"
    );
    let left_behind = vec!["/tmp/x".to_owned()];
    net.party(PROVIDER)
        .executor(lease, ExecutorEvent::Released { left_behind: left_behind.clone() });
    assert_eq!(view(&mut net, PROVIDER, lease).left_behind, left_behind);
}

/// A Redeem by hand, its challenge fetched by `peer`.
fn challenge(net: &mut Net, peer: u8, cert: CertId) -> [u8; 32] {
    match net.lease(PROVIDER, peer, &LeaseRequest::Challenge(cert)) {
        LeaseReply::Challenge(nonce) => nonce,
        other => panic!("{other:?}"),
    }
}

fn template(cert: CertId, seq: u32, holder: u8, challenge32: [u8; 32]) -> Redeem {
    Redeem {
        v: 1,
        cert_id: cert,
        seq,
        holder: public(holder),
        workload_digest: workload::digest(&work()),
        challenge32,
        not_after_s: START_MS / 1000 + 1_000,
    }
}

fn present(
    net: &mut Net,
    peer: u8,
    signer: u8,
    redeem: Redeem,
    workload: Workload,
) -> Result<LeaseId, String> {
    let redeem = by(signer, redeem, &devnet()).envelope().clone();
    match net.lease(PROVIDER, peer, &LeaseRequest::Redeem { redeem, workload }) {
        LeaseReply::Lease { lease, .. } => Ok(lease),
        LeaseReply::Refused { code } => Err(code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redeem_is_checked_in_the_documented_order() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let nowhere = CertId([0; 32]);
    let unknown = net.lease(PROVIDER, ALICE, &LeaseRequest::Challenge(nowhere));
    assert_eq!(unknown, LeaseReply::Refused { code: "redeem.unknown_certificate".to_owned() });
    let bad = [0; 32];
    let refused = |code: &str| Err(code.to_owned());

    // Each row has the fault of its code and of every later code.
    let mut late = template(cert, 1, ALICE, bad);
    late.not_after_s = 1;
    let mut stale = late.clone();
    stale.seq = 9;
    let mut stranger = stale.clone();
    stranger.holder = public(BOB);
    let mut lost = stranger.clone();
    lost.cert_id = nowhere;
    assert_eq!(
        present(&mut net, ALICE, ALICE, lost.clone(), work()),
        refused("redeem.bad_signature")
    );
    assert_eq!(present(&mut net, BOB, BOB, lost, work()), refused("redeem.unknown_certificate"));
    assert_eq!(present(&mut net, BOB, BOB, stranger, work()), refused("redeem.not_holder"));
    assert_eq!(present(&mut net, ALICE, ALICE, stale, work()), refused("redeem.stale_seq"));
    assert_eq!(present(&mut net, ALICE, ALICE, late.clone(), work()), refused("redeem.expired"));
    let plain = template(cert, 1, ALICE, bad);
    assert_eq!(present(&mut net, ALICE, ALICE, plain, work()), refused("redeem.bad_challenge"));

    let nonce = challenge(&mut net, ALICE, cert);
    let guessed = template(cert, 1, ALICE, bad);
    assert_eq!(present(&mut net, ALICE, ALICE, guessed, work()), refused("redeem.bad_challenge"));
    let theirs = template(cert, 1, ALICE, nonce);
    assert_eq!(
        present(&mut net, BOB, ALICE, theirs.clone(), work()),
        refused("redeem.bad_challenge")
    );
    let mut other = work();
    other.command.clear();
    assert_eq!(present(&mut net, ALICE, ALICE, theirs, other), refused("redeem.bad_workload"));
    let mut wild = work();
    wild.results.push("../x".to_owned());
    let mut named = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    named.workload_digest = workload::digest(&wild);
    assert_eq!(present(&mut net, ALICE, ALICE, named.clone(), wild), refused("workload.name"));
    named.workload_digest = workload::digest(&work());
    assert_eq!(present(&mut net, ALICE, ALICE, named, work()), refused("redeem.bad_challenge"));
    // What the host could never make room for uses up nothing.
    let mut torn = work();
    let input = InputFile { name: "again".to_owned(), bytes: 11, ..torn.inputs[0].clone() };
    torn.inputs.push(input);
    let mut named = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    named.workload_digest = workload::digest(&torn);
    assert_eq!(present(&mut net, ALICE, ALICE, named, torn), refused("workload.digest_sizes"));
    // Nor does a value that was sealed for another certificate.
    let value = EnvValue::Sealed([&[9; 32][..], &[7; 48]].concat());
    let sealed = Workload { env: vec![EnvVar { name: "TOKEN".to_owned(), value }], ..work() };
    let mut named = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    named.workload_digest = workload::digest(&sealed);
    assert_eq!(present(&mut net, ALICE, ALICE, named, sealed), refused("workload.sealed"));
    // Nor does what the host has nothing for.
    let part = |n| Content { digest: Digest([n; 32]), bytes: 10 };
    let image = Payload::Oci { manifest: part(4), blobs: vec![part(5)] };
    let image = Workload { payload: image, ..work() };
    let mut named = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    named.workload_digest = workload::digest(&image);
    assert_eq!(present(&mut net, ALICE, ALICE, named, image.clone()), refused("redeem.no_runtime"));
    assert_eq!(net.state(PROVIDER, cert).0, "active");

    let mut good = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    good.not_after_s = START_MS / 1000;
    let lease = present(&mut net, ALICE, ALICE, good.clone(), work()).unwrap();
    assert_eq!(present(&mut net, ALICE, ALICE, good, work()), Ok(lease), "the same answer");
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Prepare { .. }))), 1);
    assert_eq!(present(&mut net, ALICE, ALICE, late, work()), refused("redeem.consumed"));
}

/// Neither a redemption nor another workload later gets a way out that the provider does not offer.
#[test]
fn a_workload_goes_out_only_where_its_provider_offers_that() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let offer = |net: &mut Net, egress| {
        let runtimes = BTreeSet::from([PayloadKind::Oci]);
        let offer = Offer { runtimes, egress, ..Offer::default() };
        net.party(PROVIDER).with(|ctx, books, leases| {
            leases.on_command(ctx, &books.holdings, 99, LeaseCommand::Offer(offer));
        });
    };
    let part = |n| Content { digest: Digest([n; 32]), bytes: 10 };
    let payload = Payload::Oci { manifest: part(4), blobs: vec![part(5)] };
    let inward = Workload { payload, ..work() };
    let outward = Workload { egress: true, ..inward.clone() };
    let named = |net: &mut Net, workload: &Workload| {
        let challenge = challenge(net, ALICE, cert);
        let workload_digest = workload::digest(workload);
        Redeem { workload_digest, ..template(cert, 1, ALICE, challenge) }
    };
    let refused = "redeem.no_egress".to_owned();
    offer(&mut net, false);
    let redeem = named(&mut net, &outward);
    let presented = present(&mut net, ALICE, ALICE, redeem, outward.clone());
    assert_eq!(presented, Err(refused.clone()));
    assert_eq!(net.state(PROVIDER, cert).0, "active", "nothing is used up");

    let redeem = named(&mut net, &inward);
    let lease = present(&mut net, ALICE, ALICE, redeem, inward).unwrap();
    let replace = |net: &mut Net, counter| {
        let verb = Verb::Replace(workload::digest(&outward));
        let call = call(lease, verb, counter, ALICE);
        net.lease(PROVIDER, ALICE, &LeaseRequest::Replace { call, workload: outward.clone() })
    };
    net.pump();
    let disk = net.party(PROVIDER).disk.clone();
    assert_eq!(replace(&mut net, 1), LeaseReply::Refused { code: refused });
    net.pump();
    assert!(net.party(PROVIDER).disk == disk, "nothing has changed");
    offer(&mut net, true);
    assert!(matches!(replace(&mut net, 2), LeaseReply::Status(_)));
    // One that has a way out keeps it, whatever its host offers by then.
    offer(&mut net, false);
    net.pass(1_000);
    assert!(matches!(replace(&mut net, 3), LeaseReply::Status(_)));
}

/// What was uploaded is shared among the leases of one holder, and with nobody who only knows its
/// digest.
#[test]
fn content_is_shared_among_the_leases_of_one_holder_alone() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let certs = [(7, 0, ALICE), (8, 2, BOB), (9, 4, ALICE), (10, 6, ALICE)]
        .map(|(trade, first, who)| (who, net.sell(trade, &units(first, first + 2), who)));
    let mut leases = Vec::new();
    for (number, (who, cert)) in (0..).zip(certs) {
        redeem(&mut net, who, number, cert);
        let (_, done) = net.party(who).done().pop().unwrap();
        let Ok(Done::Redeemed { lease }) = done else { panic!("{done:?}") };
        leases.push(lease);
        if number == 2 {
            // What is gone has nothing to share.
            run_to_end(&mut net, lease);
            net.pass(10_000);
            net.party(PROVIDER).executor(lease, ExecutorEvent::Released { left_behind: vec![] });
        }
    }
    let log = net.party(PROVIDER).log.iter();
    let shared = log.filter_map(|effect| match effect {
        Effect::Lease(LeaseEffect::Prepare { lease, same_holder, .. }) => {
            Some((*lease, same_holder.clone()))
        }
        _ => None,
    });
    let expected: Vec<(LeaseId, Vec<LeaseId>)> = vec![
        (leases[0], vec![]),
        (leases[1], vec![]),
        (leases[2], vec![leases[0]]),
        (leases[3], vec![leases[0]]),
    ];
    assert_eq!(shared.collect::<Vec<_>>(), expected);
}

#[test]
fn a_challenge_lives_a_minute_and_a_certificate_until_its_window_ends() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let mut redeem = template(cert, 1, ALICE, challenge(&mut net, ALICE, cert));
    net.pass(60_000);
    assert_eq!(
        present(&mut net, ALICE, ALICE, redeem.clone(), work()),
        Err("redeem.bad_challenge".to_owned())
    );
    net.until(ENDS_MS);
    redeem.challenge32 = challenge(&mut net, ALICE, cert);
    assert_eq!(
        present(&mut net, ALICE, ALICE, redeem, work()),
        Err("redeem.window_past".to_owned())
    );
}

/// Certificate ids are public, so a place for each that asks would be filled by strangers.
#[test]
fn a_challenge_is_for_the_holder_alone_and_each_certificate_has_one() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let certs: Vec<CertId> = (0..40).map(|n| net.sell(n, &unit(n), ALICE)).collect();
    let ask = |net: &mut Net, peer, cert| net.lease(PROVIDER, peer, &LeaseRequest::Challenge(cert));
    let persisted = net.party(PROVIDER).disk.clone();
    for cert in &certs {
        let refused = LeaseReply::Refused { code: "redeem.not_holder".to_owned() };
        assert_eq!(ask(&mut net, BOB, *cert), refused);
    }
    assert_eq!(net.party(PROVIDER).disk, persisted, "a stranger costs no write");
    let nonces: Vec<[u8; 32]> =
        certs.iter().map(|cert| challenge(&mut net, ALICE, *cert)).collect();
    let again: Vec<[u8; 32]> = certs.iter().map(|cert| challenge(&mut net, ALICE, *cert)).collect();
    assert_eq!(nonces, again);
    for (cert, nonce) in certs.into_iter().zip(nonces) {
        let redeem = template(cert, 1, ALICE, nonce);
        assert!(present(&mut net, ALICE, ALICE, redeem, work()).is_ok());
    }
}

fn unit(n: u8) -> Units {
    units(u32::from(n), u32::from(n) + 1)
}

#[test]
fn a_host_of_1024_leases_refuses_the_next_before_it_consumes_anything() {
    let (mut net, _, lease) = redeemed();
    let cert = net.sell(8, &units(2, 3), BOB);
    net.pump();
    // As many leases as there may be, all like the first.
    let provider = net.party(PROVIDER);
    let is_lease =
        |(key, _): &(&(u8, Vec<u8>), &Vec<u8>)| key.1 == lease.0 && key.0 == Table::Lease.number();
    let (key, record) = provider.disk.iter().find(is_lease).unwrap();
    let (table, record) = (key.0, record.clone());
    for n in 1..1024_u16 {
        let mut id = vec![0; 30];
        id.extend(n.to_be_bytes());
        provider.disk.insert((table, id), record.clone());
    }
    net.restart(PROVIDER);
    redeem(&mut net, BOB, 5, cert);
    assert_eq!(net.party(BOB).done().pop(), Some((5, Err("redeem.busy".to_owned()))));
    assert_eq!(net.state(PROVIDER, cert), ("active", 1, public(BOB)));
    assert_eq!(net.state(BOB, cert).0, "active");
    // The others go on, and one that is over makes place.
    run_to_end(&mut net, lease);
    let released = ExecutorEvent::Released { left_behind: vec![] };
    net.party(PROVIDER).executor(lease, released);
    redeem(&mut net, BOB, 6, cert);
    assert!(matches!(net.party(BOB).done().pop(), Some((6, Ok(Done::Redeemed { .. })))));
    assert_eq!(net.state(PROVIDER, cert).0, "redeemed");
}

#[test]
fn a_locked_certificate_is_not_redeemed_and_a_redeemed_one_not_given() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let facts = net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
    let certificate = net.party(PROVIDER).books.certificate(&cert).unwrap().clone();
    let issue = certificate.issue().unwrap().verify(devnet().magic).unwrap();
    let sale = by(ALICE, terms(&issue, 1, facts.last_hash, public(ALICE), public(BOB)), &devnet());
    let accepts = [accept(BOB, &sale, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, &sale, &accepts).unwrap());
    redeem(&mut net, ALICE, 1, cert);
    assert_eq!(net.party(ALICE).done(), [(1, Err("redeem.locked".to_owned()))]);
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&sale), evidence(1)));
    redeem(&mut net, ALICE, 2, cert);
    assert!(matches!(net.party(ALICE).done()[1], (2, Ok(Done::Redeemed { .. }))));
    net.give(ALICE, 3, cert, BOB);
    assert_eq!(net.party(ALICE).done()[2], (3, Err("gift.consumed".to_owned())));
    // A redemption after a released lock has the next number, so that the pair proves nothing.
    assert!(!net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
}

#[test]
fn a_former_holder_is_refused_by_the_provider() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.give(ALICE, 1, cert, BOB);
    redeem(&mut net, ALICE, 2, cert);
    assert_eq!(net.party(ALICE).done()[1], (2, Err("redeem.not_holder".to_owned())));
    assert!(net.party(ALICE).views().is_empty(), "nothing was signed");
    redeem(&mut net, BOB, 3, cert);
    assert!(matches!(net.party(BOB).done()[0], (3, Ok(Done::Redeemed { .. }))));
    redeem(&mut net, BOB, 4, cert);
    assert_eq!(net.party(BOB).done()[1], (4, Err("redeem.consumed".to_owned())));
    redeem(&mut net, ALICE, 5, CertId([0; 32]));
    assert_eq!(net.party(ALICE).done()[2], (5, Err("redeem.unknown_certificate".to_owned())));
}

#[test]
fn a_holder_with_an_old_copy_fetches_the_new_one() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.give(ALICE, 1, cert, BOB);
    net.party(ALICE).up = false;
    net.give(BOB, 2, cert, ALICE);
    net.party(ALICE).up = true;
    assert_eq!(net.state(ALICE, cert), ("given", 2, public(BOB)));
    redeem(&mut net, ALICE, 3, cert);
    assert_eq!(net.party(ALICE).done()[1], (3, Err("redeem.stale_seq".to_owned())));
    assert_eq!(net.state(ALICE, cert), ("active", 3, public(ALICE)));
    redeem(&mut net, ALICE, 4, cert);
    assert!(matches!(net.party(ALICE).done()[2], (4, Ok(Done::Redeemed { .. }))));
}

#[test]
fn calls_are_the_holders_for_their_verb_in_time_and_once() {
    let (mut net, _, lease) = redeemed();
    let with = |change: fn(&mut LeaseCall)| {
        let mut value: LeaseCall = call(lease, Verb::Status, 1, ALICE).peek().unwrap();
        change(&mut value);
        by(ALICE, value, &devnet()).envelope().clone()
    };
    let mut forged = call(lease, Verb::Status, 1, ALICE);
    forged.signature[0][0] ^= 1;
    let mut garbage = forged.clone();
    garbage.payload.pop();
    let table = [
        (garbage, Err("lease.bad_call")),
        (call(LeaseId([0; 32]), Verb::Status, 1, ALICE), Err("lease.not_found")),
        (call(lease, Verb::Status, 1, BOB), Err("lease.not_holder")),
        (forged, Err("lease.bad_signature")),
        (call(lease, Verb::Stop, 1, ALICE), Err("lease.wrong_verb")),
        (with(|call| call.not_after_s = START_MS / 1000 - 1), Err("lease.call_expired")),
        (with(|call| call.not_after_s = START_MS / 1000 + 301), Err("lease.call_too_long")),
        (call(lease, Verb::Status, 8, ALICE), Ok(lease)),
        (call(lease, Verb::Status, 8, ALICE), Err("lease.replayed")),
        (call(lease, Verb::Status, 7, ALICE), Ok(lease)),
        (call(lease, Verb::Status, 1_000, ALICE), Ok(lease)),
        (call(lease, Verb::Status, 9, ALICE), Err("lease.replayed")),
        (with(|call| (call.counter, call.not_after_s) = (1_001, START_MS / 1000)), Ok(lease)),
        (with(|call| (call.counter, call.not_after_s) = (1_002, START_MS / 1000 + 300)), Ok(lease)),
    ];
    let params = devnet();
    for (index, (call, expected)) in table.into_iter().enumerate() {
        let leases = &mut net.party(PROVIDER).leases;
        assert_eq!(
            leases.authorise(START_MS, &params, &call, Verb::Status),
            expected,
            "row {index}"
        );
    }
    // Each verb has its own counters.
    let other = call(lease, Verb::Get, 8, ALICE);
    assert_eq!(
        net.party(PROVIDER).leases.authorise(START_MS, &params, &other, Verb::Get),
        Ok(lease)
    );
}

#[test]
fn the_holder_stops_its_lease_and_the_window_stops_it_at_the_latest() {
    let (mut net, _, lease) = redeemed();
    net.party(ALICE).with(|ctx, _, leases| leases.stop(ctx, 2, lease));
    net.pump();
    assert_eq!(net.party(ALICE).done()[1], (2, Ok(Done::Ok)));
    let holder_stop =
        |e: &Effect| matches!(e, Effect::Lease(LeaseEffect::Stop { why: StopReason::Holder, .. }));
    assert_eq!(effects(&mut net, holder_stop), 1);
    let stranger = LeaseRequest::Stop { call: call(lease, Verb::Stop, u64::MAX, BOB) };
    let reply = net.lease(PROVIDER, BOB, &stranger);
    assert_eq!(reply, LeaseReply::Refused { code: "lease.not_holder".to_owned() });
    net.party(PROVIDER).with(|ctx, _, leases| leases.stop(ctx, 3, lease));
    let operator_stop = |e: &Effect| {
        matches!(e, Effect::Lease(LeaseEffect::Stop { why: StopReason::Operator, .. }))
    };
    assert_eq!(effects(&mut net, operator_stop), 1);

    assert_eq!(net.party(PROVIDER).leases.next_deadline(&devnet()), Some(ENDS_MS));
    net.until(ENDS_MS);
    let window_stop = |e: &Effect| {
        matches!(e, Effect::Lease(LeaseEffect::Stop { why: StopReason::WindowEnd, .. }))
    };
    assert_eq!(effects(&mut net, window_stop), 1);
    net.party(PROVIDER).executor(lease, ended(Outcome::Deadline, ENDS_MS));
    assert_eq!(view(&mut net, PROVIDER, lease).outcome, Some(Outcome::Deadline));
}

#[test]
fn a_silent_executor_ends_as_the_providers_failure() {
    let (mut net, _, lease) = redeemed();
    net.until(ENDS_MS);
    for _ in 0..20 {
        net.pass(1_000);
    }
    let view = view(&mut net, PROVIDER, lease);
    assert_eq!((view.outcome, view.delivered_ms), (Some(Outcome::Failed), 0));
    let receipt: Receipt = net.party(PROVIDER).leases.receipts(&lease)[0].peek().unwrap();
    assert_eq!((receipt.delivered_ms, receipt.unavailable_ms()), (0, ENDS_MS - STARTS_MS));
}

#[test]
fn only_the_holder_countersigns_a_receipt_that_exists() {
    let (mut net, _, lease) = redeemed();
    run_to_end(&mut net, lease);
    let receipt = fetch_receipts(&mut net, lease, 1)[0].id::<Receipt>(devnet().magic);
    let sign = |who: u8, receipt: [u8; 32]| {
        by(who, Countersign { v: 1, receipt }, &devnet()).envelope().clone()
    };
    let mut forged = sign(ALICE, receipt);
    forged.signature[0][0] ^= 1;
    let table = [
        (LeaseId([0; 32]), sign(ALICE, receipt), "lease.not_found"),
        (lease, sign(BOB, receipt), "lease.not_holder"),
        (lease, forged, "lease.bad_signature"),
        (lease, sign(ALICE, [0; 32]), "receipt.unknown"),
    ];
    for (lease, signature, code) in table {
        let reply = net.lease(PROVIDER, ALICE, &LeaseRequest::Countersign { lease, signature });
        assert_eq!(reply, LeaseReply::Refused { code: code.to_owned() });
    }
    let good = LeaseRequest::Countersign { lease, signature: sign(ALICE, receipt) };
    assert_eq!(net.lease(PROVIDER, ALICE, &good), LeaseReply::Stored);
    assert_eq!(net.lease(PROVIDER, ALICE, &good), LeaseReply::Stored);
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 1);
}

#[test]
fn what_never_began_is_not_delivered() {
    for (outcome, unavailable_ms, code) in [
        (Outcome::Stopped, 0, None),
        (Outcome::Deadline, 16_000, None),
        (Outcome::Failed, 16_000, Some("lease.failed")),
    ] {
        let (mut net, _, lease) = redeemed();
        net.until(STARTS_MS + 3_000);
        let end = ExecutorEvent::Ended {
            outcome,
            started_at_ms: None,
            at_ms: STARTS_MS + 3_000,
            usage: Usage::default(),
        };
        net.party(PROVIDER).executor(lease, end);
        net.pump();
        let receipts = fetch_receipts(&mut net, lease, 1);
        let receipt: Receipt = receipts[0].peek().unwrap();
        assert_eq!((receipt.delivered_ms, receipt.unavailable_ms()), (0, unavailable_ms));
        take_receipts(&mut net, lease, &receipts).unwrap();
        for party in [PROVIDER, ALICE] {
            let view = view(&mut net, party, lease);
            assert_eq!((view.started_at_ms, view.delivered_ms, view.countersigned), (None, 0, 1));
            assert_eq!(view.refusal.as_deref(), code, "both sides are told why");
        }
    }
}

#[test]
fn receipts_are_countersigned_only_as_far_as_the_holder_saw_the_lease() {
    type Change = fn(&mut LeaseStatus);
    let table: [(Change, Option<&str>); 5] = [
        (|_| {}, None),
        (|status| status.started_at_ms = None, Some("receipt.not_as_seen")),
        (|status| status.started_at_ms = Some(STARTS_MS + 1_000), Some("receipt.not_as_seen")),
        (|status| status.outcome = Some(Outcome::Failed), Some("receipt.not_as_seen")),
        // Not a state at all: nothing was seen.
        (|status| status.phase = "fine".to_owned(), Some("receipt.unseen")),
    ];
    for (row, (change, code)) in table.into_iter().enumerate() {
        let (mut net, _, lease) = redeemed();
        run_to_end(&mut net, lease);
        let receipts = fetch_receipts(&mut net, lease, 1);
        let mut status = net.party(PROVIDER).status(&lease);
        change(&mut status);
        take_with_status(&mut net, lease, &receipts, status).unwrap();
        let view = view(&mut net, ALICE, lease);
        assert_eq!(view.refusal.as_deref(), code, "row {row}");
        let agreed = u32::from(code.is_none());
        assert_eq!((view.receipts, view.countersigned), (1, agreed), "row {row}: kept");
    }
}

#[test]
fn a_tampered_receipt_is_neither_stored_nor_countersigned() {
    let (mut net, _, lease) = redeemed();
    run_to_end(&mut net, lease);
    let mut receipts = fetch_receipts(&mut net, lease, 1);
    let last = receipts[0].payload.len() - 1;
    receipts[0].payload[last] ^= 1;
    assert_eq!(take_receipts(&mut net, lease, &receipts), Err("receipt.bad_signature"));
    assert_eq!(view(&mut net, ALICE, lease).receipts, 0);
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 0);
}

#[test]
fn a_long_lease_on_a_public_network_has_a_receipt_after_a_minute() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    for party in &mut net.parties {
        party.params.slot_s = 3600;
        party.now_ms = 999 * 3_600_000;
    }
    let cert = net.sell(7, &units(0, 2), ALICE);
    redeem(&mut net, ALICE, 1, cert);
    let (_, Ok(Done::Redeemed { lease })) = net.party(ALICE).done()[0].clone() else { panic!() };
    let start_ms = 1000 * 3_600_000;
    net.until(start_ms);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Started { run: 1, at_ms: start_ms });
    let usage = Usage { cpu_us: 40, memory_peak_bytes: 9, output_bytes: 4, ..Usage::default() };
    net.party(PROVIDER).executor(lease, ExecutorEvent::Usage(usage));
    assert_eq!(net.party(PROVIDER).leases.next_deadline(&devnet()).unwrap(), start_ms + 14_400_000);
    let params = net.party(PROVIDER).params.clone();
    assert_eq!(net.party(PROVIDER).leases.next_deadline(&params).unwrap(), start_ms + 60_000);
    net.pass(61_000);
    assert_eq!(net.party(PROVIDER).leases.receipts(&lease).len(), 1);
    net.until(start_ms + 100_000);
    let mut end = ended(Outcome::Exited { code: 3 }, start_ms + 100_000);
    if let ExecutorEvent::Ended { usage, .. } = &mut end {
        usage.cpu_us = 100;
    }
    net.party(PROVIDER).executor(lease, end);
    let receipts = net.party(PROVIDER).leases.receipts(&lease).to_vec();
    let read: Vec<Receipt> = receipts.iter().map(|receipt| receipt.peek().unwrap()).collect();
    let times: Vec<_> = read.iter().map(|r| (r.from_ms - start_ms, r.to_ms - start_ms)).collect();
    assert_eq!(times, [(0, 60_000), (60_000, 100_000)]);
    assert_eq!((read[0].cpu_us, read[1].cpu_us), (40, 60));
    assert_eq!(take_receipts(&mut net, lease, &receipts[..1]), Ok(()));
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 2);
    // Once more for the first takes nothing of that back.
    let first = receipts[0].id::<Receipt>(devnet().magic);
    let signature = by(ALICE, Countersign { v: 1, receipt: first }, &devnet()).envelope().clone();
    let again = LeaseRequest::Countersign { lease, signature };
    assert_eq!(net.lease(PROVIDER, ALICE, &again), LeaseReply::Stored);
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 2);
}

#[test]
fn a_restart_at_any_state_goes_on() {
    let (mut net, cert, lease) = redeemed();
    let start = |e: &Effect| matches!(e, Effect::Lease(LeaseEffect::Prepare { .. }));
    for phase in ["reserved", "ready", "running"] {
        net.restart(PROVIDER);
        net.restart(ALICE);
        assert_eq!(view(&mut net, PROVIDER, lease).phase, phase);
        assert_eq!(effects(&mut net, start), 1, "{phase}: started again, to be adopted");
        assert_eq!(net.state(PROVIDER, cert).0, "redeemed");
        assert_eq!(net.state(ALICE, cert).0, "redeemed");
        let event = match phase {
            "reserved" => ExecutorEvent::Ready,
            "ready" => ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 },
            _ => ended(Outcome::Exited { code: 0 }, STARTS_MS + 2_100),
        };
        net.until(STARTS_MS + 2_200);
        net.party(PROVIDER).executor(lease, event);
        net.pump();
    }
    net.restart(PROVIDER);
    assert_eq!(view(&mut net, PROVIDER, lease).phase, "ended");
    assert_eq!(effects(&mut net, start), 0);
    let receipts = net.party(PROVIDER).leases.receipts(&lease).to_vec();
    net.party(PROVIDER).up = false;
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    net.pump();
    net.restart(ALICE);
    net.party(PROVIDER).up = true;
    net.pass(0);
    assert_eq!(view(&mut net, ALICE, lease).countersigned, 1);
    net.restart(PROVIDER);
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 1);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Fetched { name: "other".to_owned() });
    net.pass(0);
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 0);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Fetched { name: "out".to_owned() });
    net.pass(0);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Released { left_behind: vec![] });
    net.restart(PROVIDER);
    assert_eq!(view(&mut net, PROVIDER, lease).phase, "released");
    assert_eq!(
        effects(&mut net, |e| matches!(
            e,
            Effect::Lease(LeaseEffect::Prepare { .. } | LeaseEffect::Release { .. })
        )),
        0
    );
    for party in [PROVIDER, ALICE] {
        net.party(party).chain.median_time_past_s = u32::MAX;
    }
    net.until(ENDS_MS + 337 * 4000);
    for party in [PROVIDER, ALICE] {
        assert!(net.party(party).views().is_empty());
    }
}

#[test]
fn a_redeem_whose_answer_is_lost_is_repeated_after_a_restart_of_both_sides() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.party(PROVIDER).loses =
        |bytes| matches!(wire::decode_record::<LeaseReply>(bytes), Ok(LeaseReply::Lease { .. }));
    redeem(&mut net, ALICE, 1, cert);
    assert!(net.party(ALICE).done().is_empty());
    let waiting = net.party(ALICE).views()[0].clone();
    assert_eq!(waiting.phase, "waiting");
    assert_eq!(view(&mut net, PROVIDER, waiting.lease_id).phase, "reserved");
    net.restart(PROVIDER);
    net.restart(ALICE);
    net.pass(120_000 - 60_000);
    assert_eq!(view(&mut net, ALICE, waiting.lease_id).phase, "reserved");
    assert_eq!(net.state(ALICE, cert).0, "redeemed");
    assert_eq!(net.party(PROVIDER).views().len(), 1);
}

#[test]
fn a_redeem_that_may_have_been_granted_is_repeated_until_its_window_ends() {
    for comes_back in [true, false] {
        let mut net = Net::new(&[PROVIDER, ALICE]);
        let cert = net.sell(7, &units(0, 2), ALICE);
        net.party(PROVIDER).loses = |bytes| {
            matches!(wire::decode_record::<LeaseReply>(bytes), Ok(LeaseReply::Lease { .. }))
        };
        redeem(&mut net, ALICE, 1, cert);
        let lease = net.party(ALICE).views()[0].lease_id;
        net.party(PROVIDER).up = false;
        for _ in 0..60 {
            net.pass(60_000);
        }
        assert_eq!(net.party(ALICE).done(), [(1, Err("redeem.no_answer".to_owned()))]);
        assert_eq!(view(&mut net, ALICE, lease).phase, "waiting");
        if comes_back {
            net.party(PROVIDER).loses = |_| false;
            net.party(PROVIDER).up = true;
        } else {
            // The own clock alone may be ahead; the chain says that the window is over.
            net.party(ALICE).chain.median_time_past_s = u32::try_from(ENDS_MS / 1000).unwrap();
        }
        net.pass(60_000);
        let (state, phase) =
            if comes_back { ("redeemed", "reserved") } else { ("expired", "refused") };
        assert_eq!(view(&mut net, ALICE, lease).phase, phase);
        assert_eq!(net.state(ALICE, cert).0, state);
    }
}

#[test]
fn a_grant_for_another_redeem_is_no_lease() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.party(PROVIDER).loses =
        |bytes| matches!(wire::decode_record::<LeaseReply>(bytes), Ok(LeaseReply::Lease { .. }));
    redeem(&mut net, ALICE, 1, cert);
    let lease = net.party(ALICE).views()[0].lease_id;
    let grant = redeem_grant(PROVIDER, cert, 1, 0, &devnet()).envelope().clone();
    let reply = LeaseReply::Lease {
        lease,
        grant,
        need: vec![],
        starts_at_ms: STARTS_MS,
        ends_at_ms: ENDS_MS,
    };
    net.party(ALICE).with(|ctx, books, leases| {
        leases.on_reply(ctx, &mut books.holdings, LeasePurpose::Redeem(lease), Ok(reply));
    });
    net.pump();
    assert_eq!(net.party(ALICE).done(), [(1, Err("redeem.bad_grant".to_owned()))]);
    assert_eq!(net.state(ALICE, cert).0, "active");
}

#[test]
fn a_redeem_that_nobody_answers_ends_for_the_command() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    net.party(PROVIDER).up = false;
    redeem(&mut net, ALICE, 1, cert);
    for _ in 0..40 {
        net.pass(1_000);
    }
    assert_eq!(net.party(ALICE).done(), [(1, Err("redeem.no_answer".to_owned()))]);
    assert_eq!(net.party(ALICE).leases.next_deadline(&devnet()), None);
}
