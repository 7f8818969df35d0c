//! Receipts, workloads and phases by themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::{InputFile, Outcome, Receipt, Workload, WorkloadKind};
use capex_core::lease::receipts::{Period, RECEIPTS_MAX, extend, next};
use capex_core::lease::workload::{WorkloadError, needs, validate};
use capex_core::lease::{End, Phase, Usage};
use capex_core::wire::Envelope;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const LEASE: LeaseId = LeaseId([5; 32]);

fn usage(cpu_us: u64) -> Usage {
    Usage { cpu_us, memory_peak_bytes: 10, output_bytes: cpu_us }
}

fn chain() -> Vec<Envelope> {
    let mut chain = Vec::new();
    for (from_ms, to_ms, outcome) in
        [(10, 20, None), (20, 50, None), (50, 60, Some(Outcome::Deadline))]
    {
        let period = Period { from_ms, to_ms, has_run: true, usage: usage(to_ms), outcome };
        chain.push(by(PROVIDER, next(public(PROVIDER), LEASE, &chain, period), &devnet()));
    }
    chain.iter().map(|receipt| receipt.envelope().clone()).collect()
}

fn changed(receipts: &mut [Envelope], index: usize, change: fn(&mut Receipt)) {
    let mut receipt: Receipt = receipts[index].peek().unwrap();
    change(&mut receipt);
    receipts[index] = by(PROVIDER, receipt, &devnet()).envelope().clone();
}

#[test]
fn an_honest_chain_extends_in_parts_and_repeats() {
    let receipts = chain();
    let magic = devnet().magic;
    let mut known = Vec::new();
    extend(&mut known, public(PROVIDER), LEASE, &receipts[..2], magic).unwrap();
    extend(&mut known, public(PROVIDER), LEASE, &receipts, magic).unwrap();
    assert_eq!(known.len(), 3);
    let total: u64 = known.iter().map(|receipt| receipt.cpu_us).sum();
    assert_eq!(total, 60);
    assert_eq!(known[2].prev_hash, known[1].id());
}

#[test]
fn a_tampered_chain_leaves_the_known_one_as_it_was() {
    type Change = fn(&mut Vec<Envelope>);
    let table: Vec<(&str, Change)> = vec![
        ("receipt.bad_signature", |r| r[1].signature[0][0] ^= 1),
        ("receipt.bad_signature", |r| r[1].key = public(2).0),
        ("receipt.foreign", |r| changed(r, 1, |r| r.lease = LeaseId([6; 32]))),
        ("receipt.gap", |r| drop(r.remove(1))),
        ("receipt.prev_hash", |r| changed(r, 1, |r| r.prev_hash = [0; 32])),
        ("receipt.prev_hash", |r| changed(r, 1, |r| r.cpu_us += 1)),
        ("receipt.changed", |r| changed(r, 0, |r| r.cpu_us += 1)),
        ("receipt.times", |r| changed(r, 1, |r| r.from_ms = 19)),
        ("receipt.times", |r| changed(r, 1, |r| r.to_ms = 10)),
        ("receipt.times", |r| changed(r, 1, |r| r.delivered_ms += 1)),
        ("receipt.times", |r| changed(r, 1, |r| r.unavailable_ms = u64::MAX)),
        ("receipt.too_many", |r| *r = vec![r[0].clone(); RECEIPTS_MAX + 1]),
    ];
    let magic = devnet().magic;
    for (index, (code, change)) in table.into_iter().enumerate() {
        let mut known = Vec::new();
        extend(&mut known, public(PROVIDER), LEASE, &chain()[..1], magic).unwrap();
        let before = known.clone();
        let mut bad = chain();
        change(&mut bad);
        let error = extend(&mut known, public(PROVIDER), LEASE, &bad, magic).unwrap_err();
        assert_eq!((error.code(), &known), (code, &before), "row {index}");
    }
}

#[test]
fn nothing_follows_the_final_receipt() {
    let magic = devnet().magic;
    let mut known = Vec::new();
    extend(&mut known, public(PROVIDER), LEASE, &chain(), magic).unwrap();
    let period = Period { from_ms: 60, to_ms: 61, has_run: true, usage: usage(61), outcome: None };
    let more = by(PROVIDER, next(public(PROVIDER), LEASE, &known, period), &devnet());
    let more = [more.envelope().clone()];
    let error = extend(&mut known, public(PROVIDER), LEASE, &more, magic).unwrap_err();
    assert_eq!(error.code(), "receipt.after_final");
}

#[test]
fn a_failed_period_counts_as_not_delivered() {
    let period = Period {
        from_ms: 5,
        to_ms: 9,
        has_run: true,
        usage: usage(0),
        outcome: Some(Outcome::Failed),
    };
    let receipt = next(public(PROVIDER), LEASE, &[], period);
    assert_eq!((receipt.delivered_ms, receipt.unavailable_ms), (0, 4));
}

#[test]
fn a_period_ends_with_its_window_and_without_a_start_delivers_nothing() {
    let end = |started_at_ms, outcome| End {
        started_at_ms,
        ended_at_ms: 120,
        outcome,
        usage: Usage::default(),
    };
    let table = [
        (end(Some(20), Outcome::Deadline), 20, 100, 80, 0),
        (end(None, Outcome::Stopped), 10, 100, 0, 0),
        (end(None, Outcome::Deadline), 10, 100, 0, 90),
        (end(Some(20), Outcome::Failed), 20, 100, 0, 80),
    ];
    for (end, from_ms, to_ms, delivered_ms, unavailable_ms) in table {
        let period = Period::last(&end, (10, 100), None);
        assert_eq!((period.from_ms, period.to_ms), (from_ms, to_ms), "{end:?}");
        let receipt = next(public(PROVIDER), LEASE, &[], period);
        let counted = (receipt.delivered_ms, receipt.unavailable_ms);
        assert_eq!(counted, (delivered_ms, unavailable_ms), "{end:?}");
    }
}

fn work() -> Workload {
    let input =
        |name: &str, n| InputFile { name: name.to_owned(), digest: Digest([n; 32]), bytes: 10 };
    Workload {
        kind: WorkloadKind::Wasm,
        component: Digest([1; 32]),
        component_bytes: 1,
        args: vec![],
        inputs: vec![input("a", 2), input("b", 2), input("c", 3)],
        results: vec!["a".to_owned()],
    }
}

#[test]
fn a_workload_stays_within_its_bounds() {
    type Change = fn(&mut Workload);
    let table: Vec<(bool, Change)> = vec![
        (true, |_| {}),
        (false, |w| w.component_bytes = 0),
        (true, |w| w.component_bytes = (64 << 20) - 30),
        (false, |w| w.component_bytes = (64 << 20) - 29),
        (false, |w| w.inputs[0].bytes = u64::MAX),
        // Of one content the length is the same everywhere.
        (false, |w| w.inputs[0].bytes = 9),
        (false, |w| w.inputs[1].bytes = 11),
        (true, |w| w.inputs[2].bytes = 9),
        (false, |w| w.inputs[2].digest = w.component),
        (true, |w| (w.inputs[2].digest, w.inputs[2].bytes) = (w.component, w.component_bytes)),
        (false, |w| w.inputs = vec![w.inputs[0].clone(); 17]),
        (false, |w| w.results = (0..17).map(|n| n.to_string()).collect()),
        (true, |w| w.results = (0..16).map(|n| n.to_string()).collect()),
        (false, |w| w.results.push("a".to_owned())),
        (false, |w| w.inputs[1].name = "a".to_owned()),
        (false, |w| w.results[0] = String::new()),
        (false, |w| w.results[0] = ".".to_owned()),
        (false, |w| w.results[0] = "..".to_owned()),
        (false, |w| w.results[0] = "a/b".to_owned()),
        (false, |w| w.results[0] = "a\\b".to_owned()),
        (false, |w| w.results[0] = "C:".to_owned()),
        (false, |w| w.results[0] = "a\u{1b}[31m".to_owned()),
        (false, |w| w.results[0] = "a\u{0}".to_owned()),
        (true, |w| w.results[0] = "é".repeat(64)),
        (false, |w| w.results[0] = "é".repeat(65)),
        (true, |w| w.args = vec!["x".repeat(256); 64]),
        (false, |w| w.args = vec!["x".to_owned(); 65]),
        (false, |w| w.args = vec!["x".repeat(16_385)]),
        (false, |w| w.args = vec!["a\0b".to_owned()]),
    ];
    for (index, (good, change)) in table.into_iter().enumerate() {
        let mut workload = work();
        change(&mut workload);
        assert_eq!(validate(&workload, 1 << 20).is_ok(), good, "row {index}");
    }
    // The inputs lie on the disk that was bought, the component beside it.
    assert_eq!(validate(&work(), 30), Ok(()));
    assert_eq!(validate(&work(), 29), Err(WorkloadError::Disk));
    assert_eq!(needs(&work()), [1, 2, 3].map(|n| Digest([n; 32])));
}

#[test]
fn phases_follow_each_other_and_ignore_what_is_late() {
    let started = ExecutorEvent::Started { at_ms: 50 };
    let sample = |cpu_us| ExecutorEvent::Usage { cpu_us, memory_peak_bytes: 0, output_bytes: 0 };
    let ended = ExecutorEvent::Ended {
        outcome: Outcome::Trapped,
        started_at_ms: None,
        at_ms: 40,
        cpu_us: 3,
        memory_peak_bytes: 0,
        output_bytes: 0,
    };
    let released = ExecutorEvent::Released { left_behind: vec![] };
    let mut phase = Phase::Reserved;
    let steps = [
        (sample(1), None),
        (released.clone(), None),
        (ExecutorEvent::Ready, Some("ready")),
        (ExecutorEvent::Ready, None),
        (started.clone(), Some("running")),
        (started, None),
        (ExecutorEvent::Ready, None),
        (sample(9), Some("running")),
        (sample(4), Some("running")),
        (released.clone(), None),
        (ended.clone(), Some("ended")),
        (ended.clone(), None),
        (sample(99), None),
        (released.clone(), Some("released")),
        (released, None),
    ];
    for (index, (event, expected)) in steps.into_iter().enumerate() {
        let after = phase.after(&event);
        assert_eq!(after.as_ref().map(Phase::name), expected, "step {index}");
        phase = after.unwrap_or(phase);
    }
    let end = phase.end().unwrap();
    assert_eq!((end.started_at_ms, end.ended_at_ms, end.usage.cpu_us), (Some(50), 50, 9));
    for early in [Phase::Reserved, Phase::Ready] {
        let end = early.after(&ended).unwrap();
        assert_eq!((end.name(), end.started_at_ms()), ("ended", None));
    }
}
