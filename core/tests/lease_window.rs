//! A lease lasts as long as its window, whatever its workload does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;
mod lease_fixture;

use capex_core::engine::io::Effect;
use capex_core::engine::leases::{Asker, Delivery, LeaseEffect};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{
    Cause, Content, EnvValue, EnvVar, LeaseReply, LeaseRequest, LeaseStatus, Outcome, Payload,
    Receipt, Stream, Unavailable, Verb, Workload,
};
use capex_core::lease::{ExecutorEvent, Exit, Loss, Usage, workload};
use certificate_fixture::party::*;
use certificate_fixture::*;
use lease_fixture::*;

fn exited(run: u32, outcome: Outcome, at_ms: u64) -> ExecutorEvent {
    let exit = Exit { run, outcome, at_ms, code: None };
    let usage = Usage { cpu_us: 5, ..Usage::default() };
    ExecutorEvent::Exited { exit, started_at_ms: Some(STARTS_MS + 100), usage }
}

/// The last order to the host that its provider gave: which, and what is to run.
fn ordered(net: &mut Net) -> (u32, Workload) {
    net.pump();
    let log = net.party(PROVIDER).log.iter().rev();
    let mut orders = log.filter_map(|effect| match effect {
        Effect::Lease(LeaseEffect::Prepare { order, workload, .. }) => {
            Some((*order, (**workload).clone()))
        }
        _ => None,
    });
    orders.next().unwrap()
}

#[test]
fn a_workload_that_ends_leaves_its_lease_until_the_window_ends() {
    let (mut net, _, lease) = redeemed();
    net.until(STARTS_MS + 3_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(lease, exited(1, Outcome::Exited { code: 3 }, STARTS_MS + 2_100));
    net.pass(0);
    let status = net.party(PROVIDER).status(&lease);
    assert_eq!((status.phase.as_str(), status.runs), ("exited", 1));
    assert_eq!((status.exited_at_ms, status.ended_at_ms), (Some(STARTS_MS + 2_100), None));
    assert_eq!(status.outcome, Some(Outcome::Exited { code: 3 }));
    assert!(net.party(PROVIDER).leases.receipts(&lease).is_empty(), "it goes on");
    assert_eq!(effects(&mut net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. }))), 0);
    // It is there again after a restart, and its host is told to go on.
    net.restart(PROVIDER);
    assert_eq!(view(&mut net, PROVIDER, lease).phase, "exited");
    assert_eq!(ordered(&mut net), (1, work()));
    net.until(ENDS_MS);
    let end = ended(Outcome::Exited { code: 3 }, ENDS_MS);
    net.party(PROVIDER).executor(lease, end);
    let receipts = fetch_receipts(&mut net, lease, 1);
    let receipt: Receipt = receipts[0].peek().unwrap();
    // What was bought was delivered, whatever its holder made of it.
    assert_eq!((receipt.delivered_ms, receipt.unavailable_ms()), (ENDS_MS - STARTS_MS - 100, 0));
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 1);
}

/// A host that loses the process of a lease says so at once, and what it cost in the end.
#[test]
fn an_interruption_is_told_while_it_lasts_and_on_the_receipt() {
    let (mut net, _, lease) = redeemed();
    net.until(STARTS_MS + 3_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(
        lease,
        ExecutorEvent::Interrupted {
            loss: Loss::Host,
            since_ms: STARTS_MS + 1_000,
            started_at_ms: Some(STARTS_MS + 100),
            usage: Usage::default(),
        },
    );
    let lost = |ms| vec![Unavailable { cause: Cause::Interrupted, ms }];
    let status = net.party(PROVIDER).status(&lease);
    assert_eq!((status.phase.as_str(), status.unavailable), ("interrupted", lost(2_000)));
    assert_eq!(status.code.as_deref(), Some("lease.host_restarted"));
    net.restart(PROVIDER);
    assert_eq!(view(&mut net, PROVIDER, lease).phase, "interrupted");
    assert_eq!(ordered(&mut net), (1, work()), "the host is told to go on");
    net.pass(1_000);
    let told = net.party(PROVIDER).status(&lease);
    assert_eq!(told.unavailable, lost(3_000), "it goes on");
    net.party(PROVIDER).executor(lease, ExecutorEvent::Started { run: 2, at_ms: STARTS_MS + 100 });
    net.until(ENDS_MS);
    let usage = Usage { interrupted_ms: 3_500, ..Usage::default() };
    let end = ExecutorEvent::Ended {
        outcome: Outcome::Deadline,
        started_at_ms: Some(STARTS_MS + 100),
        at_ms: ENDS_MS,
        usage,
    };
    net.party(PROVIDER).executor(lease, end);
    let receipts = fetch_receipts(&mut net, lease, 1);
    let receipt: Receipt = receipts[0].peek().unwrap();
    assert_eq!((receipt.units, receipt.unavailable.clone()), (2, lost(3_500)));
    assert_eq!(receipt.delivered_ms, ENDS_MS - STARTS_MS - 3_600);
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    for who in [PROVIDER, ALICE] {
        let view = view(&mut net, who, lease);
        assert_eq!((view.unavailable, view.countersigned), (lost(3_500), 1), "{who}");
    }
    // More was told than is on the receipt.
    let ended = net.party(PROVIDER).status(&lease);
    let worse = LeaseStatus { unavailable: lost(9_000), ..ended };
    take_with_status(&mut net, lease, &receipts, worse).unwrap();
    assert_eq!(view(&mut net, ALICE, lease).refusal.as_deref(), Some("receipt.not_as_seen"));
}

fn stop(net: &mut Net, who: u8, lease: LeaseId) {
    net.party(who).with(|ctx, _, leases| leases.stop(ctx, 77, lease));
    net.pump();
    net.restart(who);
}

/// A provider that ends a lease by itself keeps the rest of what it sold, whether it says so or not.
#[test]
fn a_lease_that_its_provider_ends_counts_against_it() {
    let withdrawn = |ms| vec![Unavailable { cause: Cause::Withdrawn, ms }];
    let exited = || Outcome::Exited { code: 0 };
    // Who ends it; what comes of its workload; what the receipt says, and to when; what the holder
    // counts: leases ended early, sold, not delivered.
    let early = (1, 31_800, withdrawn(24_000));
    let table = [
        (Some(PROVIDER), Outcome::Stopped, withdrawn(12_000), ENDS_MS, early.clone()),
        // However its workload takes the signal.
        (Some(PROVIDER), exited(), withdrawn(12_000), ENDS_MS, early.clone()),
        // One that does not say so.
        (None, Outcome::Stopped, vec![], STARTS_MS + 4_000, early.clone()),
        (None, exited(), vec![], STARTS_MS + 4_000, early),
        (Some(ALICE), Outcome::Stopped, vec![], STARTS_MS + 4_000, (0, 7_800, vec![])),
        (Some(ALICE), exited(), vec![], STARTS_MS + 4_000, (0, 7_800, vec![])),
    ];
    for (who, outcome, said, to_ms, (ended_early, sold, lost)) in table {
        let (mut net, _, lease) = redeemed();
        net.until(STARTS_MS + 3_000);
        let started = ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 };
        net.party(PROVIDER).executor(lease, started);
        if let Some(who) = who {
            stop(&mut net, who, lease);
        }
        net.pass(1_500);
        net.party(PROVIDER).executor(lease, ended(outcome.clone(), STARTS_MS + 4_000));
        let status = net.party(PROVIDER).status(&lease);
        let code = (who == Some(PROVIDER)).then_some("lease.withdrawn");
        assert_eq!(status.code.as_deref(), code, "{who:?}");
        let receipts = fetch_receipts(&mut net, lease, 100);
        let receipt: Receipt = receipts[0].peek().unwrap();
        assert_eq!((receipt.unavailable, receipt.to_ms), (said, to_ms), "{who:?} {outcome:?}");
        assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
        assert_eq!(view(&mut net, ALICE, lease).countersigned, 1, "{who:?} {outcome:?}");
        let alice = net.party(ALICE);
        let known = alice.leases.delivery(&public(PROVIDER), alice.now_ms, &alice.params);
        assert_eq!((known.leases, known.delivered_block_ms), (1, 7_800));
        let counted = (known.ended_early, known.sold_block_ms, known.unavailable);
        assert_eq!(counted, (ended_early, sold, lost), "{who:?} {outcome:?}");
    }
}

/// What a holder knows of a provider are the receipts that it has; what none says was not
/// delivered.
#[test]
fn a_provider_is_known_by_what_it_delivered() {
    let delivery = |net: &mut Net, of: u8| {
        let alice = net.party(ALICE);
        alice.leases.delivery(&public(of), alice.now_ms, &alice.params)
    };
    let (mut net, _, lease) = redeemed();
    assert_eq!(delivery(&mut net, PROVIDER), Delivery::default(), "nothing is over");
    assert!(net.party(ALICE).leases.receipts_with(&public(PROVIDER)).is_empty());
    stop(&mut net, ALICE, lease);
    run_to_end(&mut net, lease);
    let receipts = fetch_receipts(&mut net, lease, 1);
    take_receipts(&mut net, lease, &receipts).unwrap();
    let good = delivery(&mut net, PROVIDER);
    // Two units for two seconds; its holder did not want the rest.
    assert_eq!((good.leases, good.sold_block_ms, good.delivered_block_ms), (1, 4_000, 4_000));
    assert_eq!((good.permille(), good.unavailable), (Some(1_000), vec![]));
    assert_eq!(delivery(&mut net, BOB), Delivery::default());
    assert_eq!(net.party(ALICE).leases.providers().collect::<Vec<_>>(), [public(PROVIDER)]);
    for who in [PROVIDER, ALICE] {
        let other = if who == ALICE { PROVIDER } else { ALICE };
        let known = net.party(who).leases.receipts_with(&public(other));
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].lease, &known[0].receipts), (lease, &receipts));
        assert_eq!(known[0].countersignature.is_some(), who == PROVIDER);
        assert!(net.party(who).leases.receipts_with(&public(BOB)).is_empty());
    }

    // What this node has not signed is the provider's word on itself: it has delivered nothing of all.
    let (mut net, _, lease) = redeemed();
    run_to_end(&mut net, lease);
    let receipts = fetch_receipts(&mut net, lease, 1);
    net.party(PROVIDER).loses = |_| true;
    take_receipts(&mut net, lease, &receipts).unwrap();
    let alone = delivery(&mut net, PROVIDER);
    assert_eq!(view(&mut net, ALICE, lease).countersigned, 0);
    assert_eq!((alone.leases, alone.sold_block_ms, alone.permille()), (1, 32_000, Some(0)));

    // One that says nothing after the window has delivered nothing.
    let (mut net, _, _) = redeemed();
    net.until(ENDS_MS + 1);
    let silent = delivery(&mut net, PROVIDER);
    assert_eq!((silent.sold_block_ms, silent.delivered_block_ms), (32_000, 0));
    assert_eq!(silent.permille(), Some(0));

    // What it says that it did not deliver counts as sold.
    let (mut net, _, lease) = redeemed();
    net.until(STARTS_MS + 3_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS });
    provider.executor(lease, ended(Outcome::Failed, STARTS_MS + 4_000));
    let receipts = fetch_receipts(&mut net, lease, 1);
    take_receipts(&mut net, lease, &receipts).unwrap();
    let poor = delivery(&mut net, PROVIDER);
    assert_eq!((poor.sold_block_ms, poor.permille()), (32_000, Some(250)));
    assert_eq!(poor.unavailable, [Unavailable { cause: Cause::Failed, ms: 24_000 }]);
}

#[test]
fn the_holder_alone_runs_a_workload_again_or_another_one() {
    let (mut net, cert, lease) = redeemed();
    net.until(STARTS_MS + 3_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(lease, exited(1, Outcome::Trapped, STARTS_MS + 2_100));
    // A sealed value is for the certificate of the lease, and may be a new one.
    let sealed = |cert: [u8; 32]| {
        let value = EnvValue::Sealed([cert.as_slice(), &[7; 48]].concat());
        Workload { env: vec![EnvVar { name: "TOKEN".to_owned(), value }], ..work() }
    };
    let mut other = sealed(cert.0);
    other.command.push("other".to_owned());
    let digest = workload::digest(&other);
    let restart = |call| LeaseRequest::Restart { call };
    let replace = |call| LeaseRequest::Replace { call, workload: work() };
    let part = |n| Content { digest: Digest([n; 32]), bytes: 10 };
    let image = Payload::Oci { manifest: part(4), blobs: vec![part(5)] };
    let image = Workload { payload: image, ..work() };
    let wild = Workload { results: vec!["../x".to_owned()], ..work() };
    let swap = |workload: &Workload, counter| LeaseRequest::Replace {
        call: call(lease, Verb::Replace(workload::digest(workload)), counter, ALICE),
        workload: workload.clone(),
    };
    let table = [
        (restart(call(lease, Verb::Restart, 1, BOB)), "lease.not_holder"),
        (restart(call(lease, Verb::Stop, 1, ALICE)), "lease.wrong_verb"),
        (restart(call(LeaseId([0; 32]), Verb::Restart, 1, ALICE)), "lease.not_found"),
        // Signed for another workload than the one that comes with it.
        (replace(call(lease, Verb::Replace(digest), 1, ALICE)), "lease.wrong_verb"),
        (swap(&wild, 2), "workload.name"),
        (swap(&image, 3), "lease.other_kind"),
        (swap(&sealed([9; 32]), 8), "workload.sealed"),
    ];
    net.pump();
    let disk = net.party(PROVIDER).disk.clone();
    for (request, code) in table {
        let reply = net.lease(PROVIDER, ALICE, &request);
        assert_eq!(reply, LeaseReply::Refused { code: code.to_owned() });
    }
    net.pump();
    assert!(net.party(PROVIDER).disk == disk, "nothing has changed");
    assert_eq!(ordered(&mut net), (1, work()));

    let again = restart(call(lease, Verb::Restart, 4, ALICE));
    assert!(matches!(net.lease(PROVIDER, ALICE, &again), LeaseReply::Status(_)));
    assert_eq!(ordered(&mut net), (2, work()));
    let code = |code: &str| LeaseReply::Refused { code: code.to_owned() };
    assert_eq!(net.lease(PROVIDER, ALICE, &again), code("lease.replayed"));
    assert_eq!(net.lease(PROVIDER, ALICE, &swap(&other, 5)), code("lease.busy"));
    net.party(PROVIDER).executor(lease, ExecutorEvent::Started { run: 2, at_ms: STARTS_MS + 100 });
    assert_eq!(view(&mut net, PROVIDER, lease).runs, 2);
    net.pass(1_000);
    // Also while it runs, and it outlasts a restart.
    assert!(matches!(net.lease(PROVIDER, ALICE, &swap(&other, 6)), LeaseReply::Status(_)));
    net.restart(PROVIDER);
    assert_eq!(ordered(&mut net), (3, other.clone()));
    net.until(ENDS_MS);
    let late = restart(call(lease, Verb::Restart, 7, ALICE));
    assert_eq!(net.lease(PROVIDER, ALICE, &late), code("lease.ended"));
}

/// A lease that its holder has ended is over, though its window is not; until then the reason why a
/// workload to come failed goes with the next order.
#[test]
fn an_order_takes_a_failure_back_and_comes_too_late_after_the_end() {
    let (mut net, _, lease) = redeemed();
    net.until(STARTS_MS + 1_000);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(lease, ExecutorEvent::Failed { code: "executor.io" });
    assert_eq!(view(&mut net, PROVIDER, lease).refusal.as_deref(), Some("executor.io"));
    let restart =
        |counter| LeaseRequest::Restart { call: call(lease, Verb::Restart, counter, ALICE) };
    assert!(matches!(net.lease(PROVIDER, ALICE, &restart(1)), LeaseReply::Status(_)));
    assert_eq!(view(&mut net, PROVIDER, lease).refusal, None);
    net.pass(1_000);
    net.party(PROVIDER).executor(lease, ended(Outcome::Stopped, STARTS_MS + 2_000));
    let over = LeaseReply::Refused { code: "lease.ended".to_owned() };
    assert_eq!(net.lease(PROVIDER, ALICE, &restart(2)), over);
    let put = LeaseRequest::Put {
        call: call(lease, Verb::Put, 1, ALICE),
        digest: Digest([1; 32]),
        offset: 0,
        bytes: vec![1],
    };
    assert_eq!(net.lease(PROVIDER, ALICE, &put), over);
}

/// What was never granted was never sold.
#[test]
fn a_refused_redemption_says_nothing_of_its_provider() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let part = |n| Content { digest: Digest([n; 32]), bytes: 10 };
    let image = Payload::Oci { manifest: part(4), blobs: vec![part(5)] };
    let image = Workload { payload: image, ..work() };
    net.party(ALICE).with(|ctx, books, leases| {
        leases.redeem(ctx, &books.holdings, Asker::Command(1), cert, image);
    });
    net.pump();
    assert_eq!(net.party(ALICE).done(), [(1, Err("redeem.no_runtime".to_owned()))]);
    net.until(ENDS_MS + 1);
    let alice = net.party(ALICE);
    let delivery = alice.leases.delivery(&public(PROVIDER), alice.now_ms, &alice.params);
    assert_eq!(delivery, Delivery::default());
    assert_eq!(alice.leases.providers().count(), 0);
}

/// What was fetched of one run is not what the next one leaves.
#[test]
fn the_results_of_the_last_run_are_kept_until_they_are_fetched() {
    let (mut net, _, lease) = redeemed();
    net.until(STARTS_MS + 1_000);
    let fetched = || ExecutorEvent::Fetched { name: "out".to_owned() };
    let releases =
        |net: &mut Net| effects(net, |e| matches!(e, Effect::Lease(LeaseEffect::Release { .. })));
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.executor(lease, fetched());
    provider.executor(lease, ExecutorEvent::Started { run: 2, at_ms: STARTS_MS + 100 });
    provider.executor(lease, ended(Outcome::Exited { code: 0 }, STARTS_MS + 900));
    let receipts = fetch_receipts(&mut net, lease, 1);
    assert_eq!(take_receipts(&mut net, lease, &receipts), Ok(()));
    assert_eq!(view(&mut net, PROVIDER, lease).countersigned, 1);
    assert_eq!(releases(&mut net), 0);
    net.party(PROVIDER).executor(lease, fetched());
    assert_eq!(releases(&mut net), 1);
}

/// A lease that failed after it had begun has something to read; one that never began has not.
#[test]
fn what_a_failed_lease_has_written_is_read_all_the_same() {
    for has_begun in [true, false] {
        let (mut net, _, lease) = redeemed();
        net.until(STARTS_MS + 1_000);
        let provider = net.party(PROVIDER);
        provider.host.stdout = b"so far".to_vec();
        provider.host.part = 100;
        provider.host.is_over = true;
        if has_begun {
            provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
            provider.executor(lease, ended(Outcome::Failed, STARTS_MS + 900));
        } else {
            provider.executor(lease, ExecutorEvent::Failed { code: "runtime.gone" });
        }
        let call = call(lease, Verb::Logs, 1, ALICE);
        let logs = LeaseRequest::Logs { call, stream: Stream::Stdout, from: 0 };
        let read = net.lease(PROVIDER, ALICE, &logs);
        let expected = match has_begun {
            true => LeaseReply::Bytes { bytes: b"so far".to_vec(), end: true },
            false => LeaseReply::Refused { code: "runtime.gone".to_owned() },
        };
        assert_eq!(read, expected);
    }
}
