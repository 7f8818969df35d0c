//! The holder's client of a lease: content goes up, output and results come back, whatever
//! restarts or fails on the way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use std::collections::BTreeMap;

use capex_core::engine::io::{Done, Effect};
use capex_core::engine::kernel::Table;
use capex_core::engine::leases::{
    Asker, FetchedResult, HeldJob, LeaseCommand, LeaseEffect, LeaseView, Uploaded,
};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{InputFile, LeaseReply, Outcome, Stream, Workload};
use capex_core::lease::{ExecutorEvent, Exit, Usage, workload};
use capex_core::limits::{LEASE_CHUNK_BYTES, STREAM_MAX_BYTES};
use capex_core::units::Window;
use capex_core::wire::{self, sha256};
use certificate_fixture::files::HeldFiles;
use certificate_fixture::party::*;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const ASKER: Asker = Asker::Command(1);
const STARTS_MS: u64 = 1000 * 4000;
const ENDS_MS: u64 = 1004 * 4000;
const STDOUT: &[u8] = b"tick tock tick tock";
const RESULT: &[u8] = b"forty-two";

fn content() -> BTreeMap<Digest, Vec<u8>> {
    let parts: [&[u8]; 2] = [b"a component of some length", b"input"];
    parts.into_iter().map(|part| (Digest(sha256(&[part])), part.to_vec())).collect()
}

fn work() -> Workload {
    let content = content();
    let sized = |bytes: &[u8]| (Digest(sha256(&[bytes])), bytes.len() as u64);
    let (component, component_bytes) = sized(b"a component of some length");
    let (digest, bytes) = sized(b"input");
    assert!(content.contains_key(&component) && content.contains_key(&digest));
    Workload {
        inputs: vec![InputFile { name: "data".to_owned(), digest, bytes }],
        results: vec!["out".to_owned(), "absent".to_owned()],
        ..Workload::wasm(component, component_bytes)
    }
}

/// A net in which Alice has redeemed, with her content on a disk.
fn redeemed() -> (Net, LeaseId) {
    redeemed_at(&[])
}

/// As [`redeemed`], at a host that refuses some requests first.
fn redeemed_at(refusals: &[&'static str]) -> (Net, LeaseId) {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let digest = workload::digest(&work());
    let content = content();
    let host = &mut net.party(PROVIDER).host;
    host.part = 7;
    host.refusals = refusals.to_vec();
    host.sizes = content.iter().map(|(digest, bytes)| (*digest, bytes.len())).collect();
    let kept = content.into_iter().map(|(part, bytes)| ((digest, part), bytes)).collect();
    net.party(ALICE).files = Some(HeldFiles { content: kept, part: 5, ..HeldFiles::default() });
    net.party(ALICE)
        .with(|ctx, books, leases| leases.redeem(ctx, &books.holdings, ASKER, cert, work()));
    net.pump();
    let done = net.party(ALICE).done();
    let [(1, Ok(Done::Redeemed { lease }))] = done[..] else { panic!("{done:?}") };
    (net, lease)
}

fn count(net: &mut Net, who: u8, is: fn(&LeaseEffect) -> bool) -> usize {
    net.pump();
    let log = &net.party(who).log;
    log.iter().filter(|effect| matches!(effect, Effect::Lease(effect) if is(effect))).count()
}

fn view(net: &mut Net, who: u8, lease: LeaseId) -> LeaseView {
    let views = net.party(who).views();
    views.into_iter().find(|view| view.lease_id == lease).unwrap()
}

fn prints(net: &mut Net, lease: LeaseId) {
    net.until(STARTS_MS + 100);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Ready);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS + 100 });
    provider.host.stdout = STDOUT[..9].to_vec();
}

fn ends(net: &mut Net, lease: LeaseId) {
    let provider = net.party(PROVIDER);
    provider.host.stdout = STDOUT.to_vec();
    provider.host.stderr = b"oh".to_vec();
    provider.host.results.insert("out".to_owned(), RESULT.to_vec());
    provider.host.is_over = true;
    let at_ms = provider.now_ms;
    provider.executor(
        lease,
        ExecutorEvent::Ended {
            outcome: Outcome::Exited { code: 0 },
            started_at_ms: Some(STARTS_MS + 100),
            at_ms,
            usage: Usage { cpu_us: 5, memory_peak_bytes: 6, output_bytes: 7, ..Usage::default() },
        },
    );
}

/// Lets time pass in small steps, with something done before each.
fn pass(net: &mut Net, ms: u64, mut before: impl FnMut(&mut Net)) {
    for _ in 0..ms / 100 {
        before(net);
        net.pass(100);
    }
}

fn assert_whole(net: &mut Net, lease: LeaseId) {
    let view = view(net, ALICE, lease);
    assert!(view.is_fetched);
    assert_eq!((view.receipts, view.countersigned), (1, 1));
    let sha256 = Digest(sha256(&[RESULT]));
    let bytes = RESULT.len() as u64;
    assert_eq!(view.results, [FetchedResult { name: "out".to_owned(), bytes, sha256, run: 1 }]);
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.output[&(lease, Stream::Stdout)], STDOUT);
    assert_eq!(files.output[&(lease, Stream::Stderr)], b"oh");
    assert_eq!(files.results[&(lease, "out".to_owned())], RESULT);
    assert!(files.content.is_empty(), "nothing will be uploaded any more");
    assert_eq!(net.party(ALICE).leases.next_deadline(&devnet()), None);
}

#[test]
fn what_runs_goes_up_and_what_it_leaves_comes_back() {
    let (mut net, lease) = redeemed();
    assert_eq!(net.party(PROVIDER).host.content, content());
    assert_eq!(count(&mut net, PROVIDER, |e| matches!(e, LeaseEffect::Launch { .. })), 1);
    prints(&mut net, lease);
    pass(&mut net, 400, |_| {});
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.output[&(lease, Stream::Stdout)], STDOUT[..9], "output is followed");
    ends(&mut net, lease);
    pass(&mut net, 300, |_| {});
    assert_whole(&mut net, lease);
    // The host said that the result was read and that the other one is absent.
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Fetched { name: "absent".to_owned() });
    assert_eq!(count(&mut net, PROVIDER, |e| matches!(e, LeaseEffect::Release { .. })), 1);
    net.restart(ALICE);
    assert_eq!(net.party(ALICE).leases.next_deadline(&devnet()), None, "not asked for again");
}

#[test]
fn a_holder_is_told_that_its_lease_runs_while_it_does() {
    let (mut net, lease) = redeemed();
    assert_eq!(view(&mut net, ALICE, lease).started_at_ms, None);
    prints(&mut net, lease);
    pass(&mut net, 1_100, |_| {});
    let running = view(&mut net, ALICE, lease);
    assert_eq!(running.phase, "running");
    assert_eq!(running.started_at_ms, Some(STARTS_MS + 100));
    let now_ms = net.party(ALICE).now_ms;
    assert_eq!(running.delivered_by(now_ms, 4), now_ms - STARTS_MS - 100);
    assert_eq!(running.delivered_by(u64::MAX, 4), ENDS_MS - STARTS_MS - 100, "no longer than sold");
}

#[test]
fn a_refusal_that_passes_does_not_end_an_upload() {
    let (mut net, _) = redeemed_at(&["lease.busy", "lease.not_found", "lease.busy"]);
    assert!(net.party(PROVIDER).host.content.is_empty());
    pass(&mut net, 2_000, |_| {});
    assert_eq!(net.party(PROVIDER).host.content, content());
    // Any other one does, and the rest goes on.
    let (mut net, other) = redeemed_at(&["put.wrong_digest"]);
    pass(&mut net, 2_000, |_| {});
    assert!(net.party(PROVIDER).host.content.is_empty());
    assert_eq!(view(&mut net, ALICE, other).phase, "reserved");
}

#[test]
fn a_holder_that_restarts_all_the_time_loses_nothing() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    pass(&mut net, 400, |net| net.restart(ALICE));
    ends(&mut net, lease);
    pass(&mut net, 1_000, |net| net.restart(ALICE));
    pass(&mut net, 200, |_| {});
    assert_whole(&mut net, lease);
}

#[test]
fn a_disk_that_fails_for_a_while_is_asked_again() {
    for failures in 1..12 {
        let (mut net, lease) = redeemed();
        prints(&mut net, lease);
        pass(&mut net, 300, |_| {});
        net.party(ALICE).files.as_mut().unwrap().failures = failures;
        ends(&mut net, lease);
        net.pass(20_000);
        pass(&mut net, 40_000, |_| {});
        let files = net.party(ALICE).files.as_ref().unwrap();
        assert_eq!(files.failures, 0);
        assert_whole(&mut net, lease);
    }
}

#[test]
fn a_host_that_cannot_run_it_is_seen_within_a_second() {
    let (mut net, lease) = redeemed();
    net.party(PROVIDER).executor(lease, ExecutorEvent::Failed { code: "executor.io" });
    pass(&mut net, 1_000, |_| {});
    let hosted = view(&mut net, PROVIDER, lease);
    assert_eq!(hosted.outcome, Some(Outcome::Failed));
    assert_eq!(hosted.refusal.as_deref(), Some("executor.io"));
    let held = view(&mut net, ALICE, lease);
    assert_eq!((held.phase.as_str(), held.outcome), ("ended", Some(Outcome::Failed)));
    assert_eq!((held.receipts, held.delivered_ms), (1, 0));
    // The first reason stays.
    net.party(PROVIDER).executor(lease, ExecutorEvent::Failed { code: "lease.still_in_use" });
    assert_eq!(view(&mut net, PROVIDER, lease).refusal.as_deref(), Some("executor.io"));
    // What runs has a process that tells its own end.
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    net.party(PROVIDER).executor(lease, ExecutorEvent::Failed { code: "executor.io" });
    assert_eq!(view(&mut net, PROVIDER, lease).phase, "running");
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_a_lease_waiting() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    pass(&mut net, 300, |_| {});
    for party in [PROVIDER, ALICE] {
        net.party(party).now_ms -= 600_000;
    }
    net.party(PROVIDER).host.stdout = STDOUT.to_vec();
    pass(&mut net, 1_000, |_| {});
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.output[&(lease, Stream::Stdout)], STDOUT, "not only after ten minutes");
}

#[test]
fn a_provider_that_stays_away_is_asked_until_it_may_forget_the_lease() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    net.party(PROVIDER).up = false;
    net.until(ENDS_MS + 3_000);
    assert!(net.party(ALICE).leases.next_deadline(&devnet()).is_some());
    for (median_time_past_s, asks) in [(0, true), (u32::MAX, false)] {
        net.party(ALICE).chain.median_time_past_s = median_time_past_s;
        for _ in 0..20 {
            net.pass(1_000);
        }
        // The own clock alone may be ahead, while the lease still runs.
        assert_eq!(net.party(ALICE).leases.next_deadline(&devnet()).is_some(), asks);
    }
    assert!(!view(&mut net, ALICE, lease).is_fetched);
}

#[test]
fn a_provider_that_sends_too_much_fills_no_disk() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    let host = &mut net.party(PROVIDER).host;
    host.part = 200 << 10;
    host.stdout = vec![b'x'; usize::try_from(STREAM_MAX_BYTES).unwrap() + 1000];
    pass(&mut net, 300, |_| {});
    ends(&mut net, lease);
    pass(&mut net, 300, |_| {});
    assert!(view(&mut net, ALICE, lease).is_fetched);
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.output[&(lease, Stream::Stdout)].len() as u64, STREAM_MAX_BYTES);
}

/// Results that are here already, by their length alone, leave room for the rest.
#[test]
fn results_beyond_256_mib_are_left_out() {
    for (room, is_taken) in [(RESULT.len() as u64, true), (RESULT.len() as u64 - 1, false)] {
        let (mut net, lease) = redeemed();
        let bytes = (256 << 20) - room;
        let (name, sha256) = ("absent".to_owned(), Digest([0; 32]));
        let before = FetchedResult { name, bytes, sha256, run: 1 };
        // The record ends with its results, none so far, whether they are all here, and whether the
        // lease was stopped.
        let key = (Table::HeldLease.number(), lease.0.to_vec());
        let record = net.party(ALICE).disk.get_mut(&key).unwrap();
        let none = [wire::encode(&Vec::<FetchedResult>::new()), vec![0, 0]].concat();
        assert!(record.ends_with(&none));
        record.truncate(record.len() - none.len());
        record.extend([wire::encode(&vec![before]), vec![0, 0]].concat());
        net.restart(ALICE);
        prints(&mut net, lease);
        ends(&mut net, lease);
        pass(&mut net, 10_000, |_| {});
        let held = view(&mut net, ALICE, lease);
        assert!(held.is_fetched, "{room}");
        let files = net.party(ALICE).files.as_ref().unwrap();
        assert_eq!(files.results.contains_key(&(lease, "out".to_owned())), is_taken, "{room}");
    }
}

/// A lease goes on after its workload: what each run leaves is here while it does.
#[test]
fn what_a_run_leaves_is_fetched_at_its_exit_and_that_of_the_next_again() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    let exits = |net: &mut Net, run| {
        let provider = net.party(PROVIDER);
        provider.host.is_over = true;
        let at_ms = provider.now_ms;
        let exit = Exit { run, outcome: Outcome::Exited { code: 0 }, at_ms, code: None };
        let (started_at_ms, usage) = (Some(STARTS_MS + 100), Usage::default());
        provider.executor(lease, ExecutorEvent::Exited { exit, started_at_ms, usage });
    };
    net.party(PROVIDER).host.results.insert("out".to_owned(), b"first".to_vec());
    exits(&mut net, 1);
    pass(&mut net, 500, |_| {});
    let held = view(&mut net, ALICE, lease);
    assert_eq!((held.phase.as_str(), held.is_fetched, held.receipts), ("exited", true, 0));
    assert_eq!((held.results.len(), held.results[0].run), (1, 1));

    net.party(ALICE).with(|ctx, _, leases| leases.restart_held(ctx, 2, lease));
    net.pump();
    assert_eq!(net.party(ALICE).done()[1], (2, Ok(Done::Ok)));
    let provider = net.party(PROVIDER);
    provider.host.is_over = false;
    provider.host.stdout.extend(b"again");
    provider.executor(lease, ExecutorEvent::Started { run: 2, at_ms: STARTS_MS + 100 });
    pass(&mut net, 1_500, |_| {});
    let held = view(&mut net, ALICE, lease);
    assert_eq!((held.phase.as_str(), held.runs, held.is_fetched), ("running", 2, false));
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.output[&(lease, Stream::Stdout)], [&STDOUT[..9], b"again"].concat());
    net.party(PROVIDER).host.results.insert("out".to_owned(), b"second".to_vec());
    exits(&mut net, 2);
    // Its holder restarts meanwhile.
    net.restart(ALICE);
    pass(&mut net, 2_000, |_| {});
    let held = view(&mut net, ALICE, lease);
    assert_eq!((held.is_fetched, held.results[0].run), (true, 2));
    let files = net.party(ALICE).files.as_ref().unwrap();
    assert_eq!(files.results[&(lease, "out".to_owned())], b"second");
}

#[test]
fn another_workload_is_uploaded_to_a_lease_that_runs() {
    let (mut net, lease) = redeemed();
    prints(&mut net, lease);
    pass(&mut net, 500, |_| {});
    let new: &[u8] = b"another component";
    let part = Digest(sha256(&[new]));
    let other = Workload::wasm(part, new.len() as u64);
    let digest = workload::digest(&other);
    net.party(PROVIDER).host.sizes.insert(part, new.len());
    let files = net.party(ALICE).files.as_mut().unwrap();
    files.content.insert((digest, part), new.to_vec());
    net.party(ALICE).with(|ctx, _, leases| leases.replace_held(ctx, 2, lease, other.clone()));
    net.pump();
    assert_eq!(net.party(ALICE).done()[1], (2, Ok(Done::Ok)));
    // It is still sent after a restart of its holder.
    net.restart(ALICE);
    pass(&mut net, 1_000, |_| {});
    assert_eq!(net.party(PROVIDER).host.content[&part], new);
    assert_eq!(net.party(ALICE).leases.workload(&lease), Some(&other));
    assert_eq!(net.party(PROVIDER).leases.workload(&lease), Some(&other));
}

/// What the provider has of a large part is asked before anything of it is read: all of it, as
/// another lease of the same holder had it, or as much as came before a cut.
#[test]
fn only_what_is_missing_is_read_and_sent() {
    let large = vec![7_u8; LEASE_CHUNK_BYTES + 100];
    let part = Digest(sha256(&[&large]));
    let table = [(large.len(), None), (LEASE_CHUNK_BYTES, Some(LEASE_CHUNK_BYTES)), (0, Some(0))];
    for (there, first_read) in table {
        let mut net = Net::new(&[PROVIDER, ALICE]);
        let cert = net.sell(7, &units(0, 2), ALICE);
        let work = Workload::wasm(part, large.len() as u64);
        let digest = workload::digest(&work);
        let host = &mut net.party(PROVIDER).host;
        host.sizes = BTreeMap::from([(part, large.len())]);
        host.content = BTreeMap::from([(part, large[..there].to_vec())]);
        let content = BTreeMap::from([((digest, part), large.clone())]);
        let files = HeldFiles { content, part: LEASE_CHUNK_BYTES, ..HeldFiles::default() };
        net.party(ALICE).files = Some(files);
        net.party(ALICE)
            .with(|ctx, books, leases| leases.redeem(ctx, &books.holdings, ASKER, cert, work));
        net.pump();
        pass(&mut net, 500, |_| {});
        let read = net.party(ALICE).log.iter().find_map(|effect| match effect {
            Effect::Lease(LeaseEffect::Held(HeldJob::Read { offset, .. })) => Some(*offset),
            _ => None,
        });
        assert_eq!(read, first_read.map(|offset| offset as u64), "{there}");
        assert_eq!(net.party(PROVIDER).host.content[&part], large, "{there}");
        let lease = net.party(ALICE).views()[0].lease_id;
        assert_eq!(view(&mut net, ALICE, lease).uploaded, None, "{there}");
    }
}

/// The offsets at which the holder read what it uploads.
fn read_at(net: &mut Net) -> Vec<u64> {
    let log = net.party(ALICE).log.iter();
    let read = log.filter_map(|effect| match effect {
        Effect::Lease(LeaseEffect::Held(HeldJob::Read { offset, .. })) => Some(*offset),
        _ => None,
    });
    read.collect()
}

/// As by a provider that dies when it has kept a part and not yet said so: of one that is sent in
/// several, and of one that is sent at once.
#[test]
fn what_came_without_an_answer_is_not_sent_again() {
    for parts in [3, 1] {
        let large = vec![7_u8; parts * LEASE_CHUNK_BYTES];
        let part = Digest(sha256(&[&large]));
        let mut net = Net::new(&[PROVIDER, ALICE]);
        let cert = net.sell(7, &units(0, 2), ALICE);
        let work = Workload::wasm(part, large.len() as u64);
        let digest = workload::digest(&work);
        net.party(PROVIDER).host.sizes = BTreeMap::from([(part, large.len())]);
        let content = BTreeMap::from([((digest, part), large.clone())]);
        let files = HeldFiles { content, part: LEASE_CHUNK_BYTES, ..HeldFiles::default() };
        net.party(ALICE).files = Some(files);
        net.party(PROVIDER).loses = |bytes| {
            let reply = wire::decode_record::<LeaseReply>(bytes);
            matches!(reply, Ok(LeaseReply::Progress { received: 1.., .. }))
        };
        net.party(ALICE)
            .with(|ctx, books, leases| leases.redeem(ctx, &books.holdings, ASKER, cert, work));
        net.pump();
        assert_eq!(net.party(PROVIDER).host.content[&part].len(), LEASE_CHUNK_BYTES);
        net.party(PROVIDER).loses = |_| false;
        pass(&mut net, 2_000, |_| {});
        assert_eq!(net.party(PROVIDER).host.content[&part], large);
        let once: Vec<u64> = (0..parts).map(|n| (n * LEASE_CHUNK_BYTES) as u64).collect();
        assert_eq!(read_at(&mut net), once);
    }
}

/// How far an upload is, is told until it is whole.
#[test]
fn an_upload_is_told_while_it_lasts() {
    let (mut net, lease) = redeemed_at(&["lease.busy"]);
    let total_bytes = content().values().map(|part| part.len() as u64).sum();
    let told = view(&mut net, ALICE, lease).uploaded;
    assert_eq!(told, Some(Uploaded { sent_bytes: 0, total_bytes }));
    pass(&mut net, 2_000, |_| {});
    assert_eq!(view(&mut net, ALICE, lease).uploaded, None);
}

#[test]
fn a_refused_redemption_leaves_no_content() {
    let (mut net, _) = redeemed();
    let digest = workload::digest(&work());
    let kept: Vec<_> = content().into_iter().collect();
    let files = net.party(ALICE).files.as_mut().unwrap();
    files.content = kept.into_iter().map(|(part, bytes)| ((digest, part), bytes)).collect();
    let mut other = work();
    other.command.push("other".to_owned());
    let cert = net.party(ALICE).views()[0].cert_id;
    let asker = Asker::Command(2);
    net.party(ALICE)
        .with(|ctx, books, leases| leases.redeem(ctx, &books.holdings, asker, cert, other));
    net.pump();
    assert_eq!(net.party(ALICE).done()[1], (2, Err("redeem.consumed".to_owned())));
    let discarded = |workload: Digest, net: &mut Net| {
        let log = &net.party(ALICE).log;
        log.contains(&Effect::Lease(LeaseEffect::Held(HeldJob::Discard { workload })))
    };
    let mut other = work();
    other.command.push("other".to_owned());
    assert!(discarded(workload::digest(&other), &mut net));
    assert!(!discarded(digest, &mut net), "the first lease still needs its own");
}

/// As long as it would matter, and no longer: then nothing is kept waiting for it.
#[test]
fn an_extension_that_nobody_answers_is_asked_for_until_its_window_is_over() {
    let over_s = 1007 * 4;
    for (median_time_past_s, asks) in [(over_s - 1, true), (over_s, false)] {
        let (mut net, lease) = redeemed();
        let next = Window { start: 1004, end: 1007 };
        let cert = net.sell_of(8, &units(8, 10), (1, next), ALICE);
        prints(&mut net, lease);
        net.party(PROVIDER).up = false;
        net.party(ALICE).with(|ctx, books, leases| {
            leases.on_command(ctx, &books.holdings, 5, LeaseCommand::Extend { lease, cert });
        });
        net.until(u64::from(over_s) * 1000);
        net.party(ALICE).chain.median_time_past_s = median_time_past_s;
        // The lease itself is over, and not asked for any more.
        (0..20).for_each(|_| net.pass(61_000));
        assert_eq!(net.party(ALICE).leases.next_deadline(&devnet()).is_some(), asks);
    }
}
