//! Receipts, workloads and phases by themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::objects::{
    Cause, Content, EnvValue, EnvVar, InputFile, LeaseStatus, Outcome, Payload, Receipt,
    Unavailable, Workload,
};
use capex_core::lease::receipts::{
    ByProvider, Lost, Period, RECEIPTS_MAX, ReceiptError, Seen, extend, next,
};
use capex_core::lease::workload::{WorkloadError, check_sealed, needs, validate};
use capex_core::lease::{End, ExecutorEvent, Exit, Loss, Phase, Usage};
use capex_core::limits::{IMAGE_MANIFEST_MAX_BYTES, IMAGE_MAX_BYTES, WORKLOAD_MAX_BYTES};
use capex_core::wire::{Envelope, Verified};
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const LEASE: LeaseId = LeaseId([5; 32]);

fn usage(cpu_us: u64) -> Usage {
    Usage { cpu_us, memory_peak_bytes: 10, output_bytes: cpu_us, ..Usage::default() }
}

fn chain() -> Vec<Envelope> {
    let mut chain = Vec::new();
    for (from_ms, to_ms, outcome) in
        [(10, 20, None), (20, 50, None), (50, 60, Some(Outcome::Deadline))]
    {
        let (is_delivered, unavailable) = (true, vec![]);
        let usage = usage(to_ms);
        let period = Period { from_ms, to_ms, is_delivered, unavailable, usage, outcome };
        chain.push(by(PROVIDER, next(public(PROVIDER), (LEASE, 2), &chain, period), &devnet()));
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
        ("receipt.times", |r| {
            changed(r, 1, |r| r.unavailable = lost(&[(Cause::Failed, u64::MAX)]))
        }),
        ("receipt.times", |r| {
            changed(r, 1, |r| r.unavailable = lost(&[(Cause::Late, 0), (Cause::Late, 0)]));
        }),
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
    let period = Period {
        from_ms: 60,
        to_ms: 61,
        is_delivered: true,
        unavailable: vec![],
        usage: usage(61),
        outcome: None,
    };
    let more = by(PROVIDER, next(public(PROVIDER), (LEASE, 2), &known, period), &devnet());
    let more = [more.envelope().clone()];
    let error = extend(&mut known, public(PROVIDER), LEASE, &more, magic).unwrap_err();
    assert_eq!(error.code(), "receipt.after_final");
}

fn lost(lost: &[(Cause, u64)]) -> Vec<Unavailable> {
    lost.iter().map(|(cause, ms)| Unavailable { cause: *cause, ms: *ms }).collect()
}

/// What a provider fails to deliver is lost to the end of the window, whenever it fails; what a
/// holder does not use of it is delivered.
#[test]
fn a_lease_counts_to_the_end_of_its_window_and_without_a_start_delivers_nothing() {
    let end = |started_at_ms, ended_at_ms, outcome| End {
        started_at_ms,
        ended_at_ms,
        outcome,
        usage: Usage::default(),
        runs: 1,
    };
    let exited = || Outcome::Exited { code: 0 };
    let table = [
        (end(Some(20), 120, Outcome::Deadline), 20, 100, 80, vec![]),
        (end(Some(20), 120, exited()), 20, 100, 80, vec![]),
        (end(Some(20), 60, Outcome::Stopped), 20, 60, 40, vec![]),
        (end(None, 120, Outcome::Stopped), 10, 100, 0, vec![]),
        (end(None, 120, Outcome::Unfit), 10, 100, 0, vec![]),
        (end(None, 120, Outcome::Deadline), 10, 100, 0, vec![(Cause::Late, 90)]),
        (end(Some(20), 60, Outcome::Failed), 20, 100, 40, vec![(Cause::Failed, 40)]),
        (end(None, 60, Outcome::Failed), 10, 100, 0, vec![(Cause::Failed, 90)]),
        // It failed before its window.
        (end(None, 5, Outcome::Failed), 10, 100, 0, vec![(Cause::Failed, 90)]),
    ];
    for (end, from_ms, to_ms, delivered_ms, unavailable) in table {
        let period = Period::last(&end, ByProvider::default(), (10, 100), &[]);
        assert_eq!((period.from_ms, period.to_ms), (from_ms, to_ms), "{end:?}");
        let receipt = next(public(PROVIDER), (LEASE, 2), &[], period);
        let counted = (receipt.delivered_ms, receipt.unavailable);
        assert_eq!(counted, (delivered_ms, lost(&unavailable)), "{end:?}");
    }
}

/// What is lost on the way is on the next receipt, once, and takes nothing from the others.
#[test]
fn interruptions_are_told_once_and_fit_into_their_period() {
    let usage = |interrupted_ms| Usage { interrupted_ms, ..Usage::default() };
    let end = |ended_at_ms, outcome, interrupted_ms| End {
        started_at_ms: Some(20),
        ended_at_ms,
        outcome,
        usage: usage(interrupted_ms),
        runs: 2,
    };
    let interrupted = |ms| vec![(Cause::Interrupted, ms)];
    let both = |interrupted_ms, announced_ms| {
        vec![(Cause::Interrupted, interrupted_ms), (Cause::Maintenance, announced_ms)]
    };
    let announced = |ms| vec![(Cause::Maintenance, ms)];
    // Lost before a first receipt to 50, and what of it was announced; the end, and what was
    // announced by then; what the first and the last say.
    let table = [
        ((0, 0), end(100, Outcome::Deadline, 0), 0, vec![], 50, vec![]),
        ((10, 0), end(100, Outcome::Deadline, 10), 0, interrupted(10), 50, vec![]),
        ((10, 0), end(100, Outcome::Deadline, 25), 0, interrupted(10), 35, interrupted(15)),
        // Never got back.
        ((0, 0), end(70, Outcome::Interrupted, 5), 0, vec![], 15, interrupted(35)),
        (
            (0, 0),
            end(70, Outcome::Failed, 5),
            0,
            vec![],
            15,
            vec![(Cause::Failed, 30), (Cause::Interrupted, 5)],
        ),
        // More than there was is not lost.
        ((99, 0), end(100, Outcome::Deadline, 999), 0, interrupted(30), 0, interrupted(50)),
        // What was announced is told as that, once.
        ((10, 10), end(100, Outcome::Deadline, 10), 10, announced(10), 50, vec![]),
        ((10, 4), end(100, Outcome::Deadline, 25), 17, both(6, 4), 35, both(2, 13)),
        ((0, 0), end(100, Outcome::Deadline, 9), 99, vec![], 41, announced(9)),
        ((99, 99), end(100, Outcome::Deadline, 999), 999, announced(30), 0, announced(50)),
    ];
    for ((ms, announced_ms), end, announced, first_lost, delivered_ms, last_lost) in table {
        let period = Period::passing((20, 50), Lost { ms, announced_ms }, usage(0), &[]);
        let first = next(public(PROVIDER), (LEASE, 2), &[], period);
        assert_eq!(first.unavailable, lost(&first_lost), "{end:?}");
        assert_eq!((first.units, first.delivered_ms), (2, 30 - first.unavailable_ms()));
        let chain = vec![by(PROVIDER, first, &devnet())];
        let by_provider = ByProvider { announced_ms: announced, ..ByProvider::default() };
        let period = Period::last(&end, by_provider, (10, 100), &chain);
        let last = next(public(PROVIDER), (LEASE, 2), &chain, period);
        let said = (last.delivered_ms, last.unavailable.clone());
        assert_eq!(said, (delivered_ms, lost(&last_lost)), "{end:?}");
        let mut known = Vec::new();
        let both = [chain[0].envelope().clone(), by(PROVIDER, last, &devnet()).envelope().clone()];
        extend(&mut known, public(PROVIDER), LEASE, &both, devnet().magic).unwrap();
    }
}

/// A holder agrees to what was in the window and has been, within what two clocks may differ, and to
/// no more than it was told.
#[test]
fn a_receipt_is_agreed_to_within_its_window_and_what_was_told() {
    // From, to, lost; started as told; own time; whether it is agreed to.
    let rows = [
        ((100_000, 200_000, 0), 100_000, 300_000, true),
        ((95_000, 200_000, 0), 95_000, 300_000, true),
        ((94_999, 200_000, 0), 94_999, 300_000, false),
        ((100_000, 155_000, 0), 100_000, 150_000, true),
        ((100_000, 155_001, 0), 100_000, 150_000, false),
        ((100_000, 205_000, 10_000), 100_000, 300_000, true),
        ((100_000, 205_001, 10_000), 100_000, 300_000, false),
        // Not before it was told to have begun; and no more than has passed since.
        ((109_999, 200_000, 0), 110_000, 300_000, false),
        ((100_000, 200_000, 20_000), 110_000, 300_000, false),
    ];
    let status = |started_at_ms| LeaseStatus {
        phase: "ended".to_owned(),
        runs: 1,
        started_at_ms: Some(started_at_ms),
        exited_at_ms: None,
        ended_at_ms: None,
        outcome: None,
        cpu_us: 0,
        memory_peak_bytes: 0,
        need: vec![],
        unavailable: vec![],
        maintenance: vec![],
        code: None,
        score: None,
    };
    let signed = |chain: &[Verified<Receipt>], (from_ms, to_ms, lost_ms)| {
        let (is_delivered, unavailable) = (true, lost(&[(Cause::Failed, lost_ms)]));
        let (usage, outcome) = (usage(0), None);
        let period = Period { from_ms, to_ms, is_delivered, unavailable, usage, outcome };
        by(PROVIDER, next(public(PROVIDER), (LEASE, 2), chain, period), &devnet())
    };
    let agreed = |chain: &[Verified<Receipt>], started_at_ms, now_ms| {
        let (window_ms, status) = ((100_000, 200_000), status(started_at_ms));
        Seen { window_ms, now_ms, status: Some(&status) }.agree(chain)
    };
    for (row, (period, started_at_ms, now_ms, is_agreed)) in rows.into_iter().enumerate() {
        let expected = if is_agreed { Ok(()) } else { Err(ReceiptError::NotAsSeen) };
        assert_eq!(agreed(&[signed(&[], period)], started_at_ms, now_ms), expected, "row {row}");
    }
    // Two that say the same time twice hold more than has passed.
    let first = signed(&[], (100_000, 200_000, 0));
    let twice = vec![first.clone(), signed(&[first], (100_000, 200_000, 0))];
    assert_eq!(agreed(&twice, 100_000, 300_000), Err(ReceiptError::NotAsSeen));
}

fn work() -> Workload {
    let input =
        |name: &str, n| InputFile { name: name.to_owned(), digest: Digest([n; 32]), bytes: 10 };
    Workload {
        inputs: vec![input("a", 2), input("b", 2), input("c", 3)],
        results: vec!["a".to_owned()],
        ..Workload::wasm(Digest([1; 32]), 1)
    }
}

fn payload(bytes: u64) -> Payload {
    Workload::wasm(Digest([1; 32]), bytes).payload
}

fn image(layers: usize, layer_bytes: u64) -> Payload {
    let part = |n, bytes| Content { digest: Digest([n; 32]), bytes };
    Payload::Oci { manifest: part(9, 500), blobs: vec![part(8, layer_bytes); layers] }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: EnvValue::Plain(value.to_owned()) }
}

type Change = fn(&mut Workload);

/// Checks a table of changes to the workload, each with the code that refuses it.
fn bounded(table: Vec<(Option<&'static str>, Change)>) {
    for (index, (code, change)) in table.into_iter().enumerate() {
        let mut workload = work();
        change(&mut workload);
        let refused = validate(&workload, 1 << 20).err().map(WorkloadError::code);
        assert_eq!(refused, code, "row {index}: {workload:?}");
    }
}

#[test]
fn content_of_a_workload_stays_within_its_bounds() {
    let size = Some("workload.size");
    let (digest, name, files) =
        (Some("workload.digest_sizes"), Some("workload.name"), Some("workload.files"));
    bounded(vec![
        (None, |_| {}),
        (size, |w| w.payload = payload(0)),
        (None, |w| w.payload = payload((64 << 20) - 30)),
        (size, |w| w.payload = payload((64 << 20) - 29)),
        (size, |w| w.inputs[0].bytes = u64::MAX),
        // Of one content the length is the same everywhere.
        (digest, |w| w.inputs[0].bytes = 9),
        (digest, |w| w.inputs[1].bytes = 11),
        (None, |w| w.inputs[2].bytes = 9),
        (digest, |w| w.inputs[2].digest = Digest([1; 32])),
        (None, |w| (w.inputs[2].digest, w.inputs[2].bytes) = (Digest([1; 32]), 1)),
        (files, |w| w.inputs = vec![w.inputs[0].clone(); 17]),
        (None, |w| {
            w.inputs =
                (0..16).map(|n| InputFile { name: n.to_string(), ..w.inputs[0].clone() }).collect()
        }),
        (files, |w| w.results = (0..17).map(|n| n.to_string()).collect()),
        (None, |w| w.results = (0..16).map(|n| n.to_string()).collect()),
        (name, |w| w.results.push("a".to_owned())),
        (name, |w| w.inputs[1].name = "a".to_owned()),
        (name, |w| w.results[0] = String::new()),
        (name, |w| w.results[0] = ".".to_owned()),
        (name, |w| w.results[0] = "..".to_owned()),
        (name, |w| w.results[0] = "a/b".to_owned()),
        (name, |w| w.results[0] = "a\\b".to_owned()),
        (name, |w| w.results[0] = "C:".to_owned()),
        (name, |w| w.results[0] = "a\u{1b}[31m".to_owned()),
        (name, |w| w.results[0] = "a\u{0}".to_owned()),
        (None, |w| w.results[0] = "é".repeat(64)),
        (name, |w| w.results[0] = "é".repeat(65)),
        (None, |w| w.payload = image(128, 1)),
        (Some("workload.blobs"), |w| w.payload = image(129, 1)),
        (size, |w| w.payload = image(1, 0)),
        (size, |w| w.payload = image(1, 32 << 30)),
        (Some("workload.disk"), |w| w.payload = image(1, (1 << 20) - 499)),
        (None, |w| w.payload = image(1, (1 << 20) - 500)),
    ]);
    // Of an image and its inputs the larger has to fit.
    let both = |image_bytes| Workload { payload: image(1, image_bytes), ..work() };
    assert_eq!(validate(&both(1), 501), Ok(()));
    let mut heavy = both(1);
    heavy.inputs[2].bytes = 600;
    assert_eq!(validate(&heavy, 619), Err(WorkloadError::Disk));
    assert_eq!(validate(&heavy, 620), Ok(()));
    // The inputs lie on the disk that was bought, the component beside it.
    assert_eq!(validate(&work(), 30), Ok(()));
    assert_eq!(validate(&work(), 29), Err(WorkloadError::Disk));
    assert_eq!(needs(&work()), [1, 2, 3].map(|n| Digest([n; 32])));
}

#[test]
fn an_image_and_its_inputs_are_as_large_as_they_may_be_and_no_larger() {
    let part = |n, bytes| Content { digest: Digest([n; 32]), bytes };
    let of = |payload| Workload { command: vec!["sh".to_owned()], ..Workload::of(payload) };
    let oci = |manifest_bytes, bytes| {
        of(Payload::Oci { manifest: part(9, manifest_bytes), blobs: vec![part(8, bytes)] })
    };
    let root = |bytes| of(Payload::Rootfs { archive: part(9, bytes) });
    let input = |bytes| {
        let input = InputFile { name: "a".to_owned(), digest: Digest([2; 32]), bytes };
        Workload { inputs: vec![input], ..oci(1, 1) }
    };
    let (manifest, image, inputs) = (IMAGE_MANIFEST_MAX_BYTES, IMAGE_MAX_BYTES, WORKLOAD_MAX_BYTES);
    let table = [
        (oci(manifest, 1), true),
        (oci(manifest + 1, 1), false),
        (oci(1, image - 1), true),
        (oci(1, image), false),
        (root(image), true),
        (root(image + 1), false),
        (input(inputs), true),
        (input(inputs + 1), false),
    ];
    for (row, (workload, is_good)) in table.into_iter().enumerate() {
        let expected = if is_good { Ok(()) } else { Err(WorkloadError::Size) };
        assert_eq!(validate(&workload, u64::MAX), expected, "row {row}");
    }
}

/// It is for one certificate, and as long as something that was sealed at all.
#[test]
fn a_sealed_value_is_whole_and_for_its_certificate() {
    let sealed = |cert: u8, extra: usize| {
        let value = EnvValue::Sealed([&[cert; 32][..], &vec![7; extra]].concat());
        Workload { env: vec![EnvVar { name: "A".to_owned(), value }], ..work() }
    };
    let cert = CertId([4; 32]);
    assert_eq!(check_sealed(&sealed(4, 48), cert), Ok(()));
    assert_eq!(check_sealed(&sealed(4, 47), cert), Err(WorkloadError::Sealed));
    assert_eq!(check_sealed(&sealed(5, 48), cert), Err(WorkloadError::Sealed));
}

#[test]
fn what_a_workload_asks_for_stays_within_its_bounds() {
    let strings = Some("workload.strings");
    let (env, ports) = (Some("workload.env_name"), Some("workload.ports"));
    bounded(vec![
        (None, |w| w.command = vec!["x".repeat(256); 64]),
        (strings, |w| w.command = vec!["x".to_owned(); 65]),
        (strings, |w| w.command = vec!["x".repeat(16_385)]),
        (strings, |w| w.command = vec!["a\0b".to_owned()]),
        (None, |w| w.env = vec![variable("A", "b=c"), variable("B", "")]),
        (strings, |w| w.env = vec![variable("A", "\0")]),
        (None, |w| w.env = (0..64).map(|n| variable(&n.to_string(), "")).collect()),
        (strings, |w| w.env = (0..65).map(|n| variable(&n.to_string(), "")).collect()),
        (strings, |w| {
            w.env = vec![EnvVar { name: "A".into(), value: EnvValue::Sealed(vec![0; 16_384]) }];
        }),
        (env, |w| w.env = vec![variable("", "b")]),
        (env, |w| w.env = vec![variable("A=B", "b")]),
        (env, |w| w.env = vec![variable("A", "b"), variable("A", "c")]),
        // A component is not promised what it will not have.
        (Some("workload.not_in_wasm"), |w| w.ports = vec![80]),
        (Some("workload.not_in_wasm"), |w| w.egress = true),
        (Some("workload.not_in_wasm"), |w| w.grace_ms = 1),
        (Some("workload.not_in_wasm"), |w| w.stop_signal = 15),
        (Some("workload.not_in_wasm"), |w| w.workdir = Some("/tmp".to_owned())),
        (None, |w| (w.payload, w.ports) = (image(1, 1), (1..=16).collect())),
        (ports, |w| (w.payload, w.ports) = (image(1, 1), (1..=17).collect())),
        (ports, |w| (w.payload, w.ports) = (image(1, 1), vec![0])),
        (ports, |w| (w.payload, w.ports) = (image(1, 1), vec![80, 80])),
        (ports, |w| (w.payload, w.ports) = (image(1, 1), vec![80, 22])),
        (None, |w| (w.payload, w.grace_ms, w.stop_signal) = (image(1, 1), 30_000, 64)),
        (Some("workload.grace"), |w| (w.payload, w.grace_ms) = (image(1, 1), 30_001)),
        (Some("workload.signal"), |w| (w.payload, w.stop_signal) = (image(1, 1), 65)),
        (None, |w| (w.payload, w.workdir) = (image(1, 1), Some("/srv/a..b".to_owned()))),
        (Some("workload.workdir"), |w| {
            (w.payload, w.workdir) = (image(1, 1), Some("/srv/../etc".to_owned()));
        }),
        (Some("workload.workdir"), |w| {
            (w.payload, w.workdir) = (image(1, 1), Some("srv".to_owned()));
        }),
        (Some("workload.nothing_to_run"), |w| {
            w.payload = Payload::Rootfs { archive: Content { digest: Digest([5; 32]), bytes: 5 } };
        }),
    ]);
}

#[test]
fn phases_follow_each_other_and_ignore_what_is_late() {
    let started = |run| ExecutorEvent::Started { run, at_ms: 50 };
    let sample = |cpu_us| {
        ExecutorEvent::Usage(Usage {
            cpu_us,
            memory_peak_bytes: 0,
            output_bytes: 0,
            ..Usage::default()
        })
    };
    let exited = |run, started_at_ms| ExecutorEvent::Exited {
        exit: Exit { run, outcome: Outcome::Exited { code: 3 }, at_ms: 60, code: None },
        started_at_ms,
        usage: usage(5),
    };
    let ended = ExecutorEvent::Ended {
        outcome: Outcome::Trapped,
        started_at_ms: None,
        at_ms: 40,
        usage: usage(3),
    };
    let interrupted = |since_ms, started_at_ms, interrupted_ms| ExecutorEvent::Interrupted {
        loss: Loss::Process,
        since_ms,
        started_at_ms,
        usage: Usage { interrupted_ms, ..Usage::default() },
    };
    let released = ExecutorEvent::Released { left_behind: vec![] };
    let mut phase = Phase::Reserved;
    let steps = [
        (sample(1), None),
        (released.clone(), None),
        (ExecutorEvent::Ready, Some("ready")),
        (ExecutorEvent::Ready, None),
        (started(1), Some("running")),
        (started(1), None),
        (ExecutorEvent::Ready, None),
        (sample(9), Some("running")),
        (sample(4), Some("running")),
        (released.clone(), None),
        (exited(1, Some(50)), Some("exited")),
        (exited(1, Some(50)), None),
        (started(1), None),
        (sample(99), None),
        (started(2), Some("running")),
        // Of the run before, told late.
        (exited(1, Some(50)), None),
        (exited(2, Some(50)), Some("exited")),
        (interrupted(70, Some(50), 3), Some("interrupted")),
        (interrupted(70, Some(50), 3), None),
        (ExecutorEvent::Ready, None),
        (sample(99), None),
        // It rests as it did.
        (exited(2, Some(50)), Some("exited")),
        (interrupted(80, Some(50), 7), Some("interrupted")),
        (started(2), None),
        (started(3), Some("running")),
        (ended.clone(), Some("ended")),
        (ended.clone(), None),
        (started(4), None),
        (interrupted(90, Some(50), 0), None),
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
    assert_eq!((end.runs, end.usage.interrupted_ms), (3, 7));
    let gap = Phase::Exited {
        started_at_ms: Some(50),
        exit: Exit { run: 1, outcome: Outcome::Trapped, at_ms: 60, code: None },
        usage: Usage::default(),
    };
    let gap = gap.after(&interrupted(70, Some(50), 3)).unwrap();
    assert_eq!((gap.interrupted_ms(100), gap.runs()), (33, 1));
    for early in [Phase::Reserved, Phase::Ready] {
        let lost = interrupted(70, None, 0);
        let gap = early.after(&lost).unwrap();
        assert_eq!((gap.name(), gap.interrupted_ms(99)), ("interrupted", 0), "before its window");
        assert_eq!(gap.after(&ExecutorEvent::Ready), Some(Phase::Ready));
        let end = early.after(&ended).unwrap();
        assert_eq!((end.name(), end.started_at_ms()), ("ended", None));
        // What cannot be run is told before the window, and the window opens all the same.
        let unfit = early.after(&exited(0, None)).unwrap();
        assert_eq!((unfit.name(), unfit.started_at_ms()), ("exited", None));
        let opened = unfit.after(&exited(0, Some(50))).unwrap();
        assert_eq!((opened.name(), opened.started_at_ms()), ("exited", Some(50)));
    }
}
