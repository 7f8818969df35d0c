//! Streams into a lease: who may open one, for what, and for how long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::engine::io::Done;
use capex_core::engine::leases::{Asker, LeaseCommand, Offer, Wanted};
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::access::{
    Access, AccessCall, AccessVerb, Admission, Asked, Grant, Hello, Terminal,
};
use capex_core::lease::objects::{
    Content, LeaseCall, LeaseReply, LeaseRequest, Payload, PayloadKind, Stream, Verb, Workload,
};
use capex_core::lease::{ExecutorEvent, Exit, Usage};
use capex_core::limits::ACCESS_STRINGS_MAX_BYTES;
use capex_core::wire::Envelope;
use certificate_fixture::party::*;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const NOW_S: u64 = 1000 * 4;
const STARTS_MS: u64 = NOW_S * 1000;

/// A net in which a lease of Alice runs.
fn running() -> (Net, LeaseId) {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 2), ALICE);
    let lease = start(&mut net, cert, Workload::wasm(Digest([1; 32]), 1000));
    (net, lease)
}

/// Alice redeems her certificate, and the lease runs.
fn start(net: &mut Net, cert: CertId, work: Workload) -> LeaseId {
    let asker = Asker::Command(1);
    net.party(ALICE)
        .with(|ctx, books, leases| leases.redeem(ctx, &books.holdings, asker, cert, work));
    net.pump();
    let lease = match net.party(ALICE).done().as_slice() {
        [.., (1, Ok(Done::Redeemed { lease }))] => *lease,
        other => panic!("{other:?}"),
    };
    net.until(STARTS_MS);
    let provider = net.party(PROVIDER);
    provider.executor(lease, ExecutorEvent::Ready);
    provider.executor(lease, ExecutorEvent::Started { run: 1, at_ms: STARTS_MS });
    net.pump();
    lease
}

fn exec(command: &[&str]) -> Access {
    let command = command.iter().map(|text| (*text).to_owned()).collect();
    let terminal = Some(Terminal { rows: 24, columns: 80 });
    Access::Exec { command, env: Vec::new(), workdir: None, terminal }
}

fn call(lease: LeaseId, who: u8) -> AccessCall {
    AccessCall {
        v: 1,
        lease,
        peer: public(who),
        session16: [9; 16],
        received: 0,
        what: exec(&["sh"]),
        not_after_s: NOW_S + 60,
    }
}

fn grant(lease: LeaseId) -> Grant {
    let verbs = vec![AccessVerb::Exec, AccessVerb::Forward];
    let provider = public(PROVIDER);
    Grant { v: 1, lease, provider, to: public(BOB), verbs, not_after_s: NOW_S + 600 }
}

fn hello(signer: u8, call: AccessCall, grant: Option<(u8, Grant)>) -> Hello {
    let params = devnet();
    Hello {
        call: by(signer, call, &params).envelope().clone(),
        grant: grant.map(|(signer, grant)| by(signer, grant, &params).envelope().clone()),
    }
}

fn asked(net: &mut Net, peer: u8, hello: &Hello) -> Result<Admission, &'static str> {
    net.party(PROVIDER).leases.authorise_access(STARTS_MS, &devnet(), public(peer), hello)
}

#[test]
fn the_holder_opens_what_it_signs_for_on_its_own_connection_in_time() {
    let (mut net, lease) = running();
    type Change = fn(&mut AccessCall);
    fn with(env: &[(&str, &str)], workdir: Option<&str>) -> Access {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (command, workdir) = (vec!["sh".to_owned()], workdir.map(str::to_owned));
        Access::Exec { command, env: env.collect(), workdir, terminal: None }
    }
    let table: [(&str, u8, Change); 33] = [
        ("", ALICE, |_| {}),
        ("", ALICE, |call| call.not_after_s = NOW_S),
        ("", ALICE, |call| call.not_after_s = NOW_S + 300),
        ("", ALICE, |call| call.what = exec(&["x"; 64])),
        ("", ALICE, |call| call.what = exec(&[&"x".repeat(ACCESS_STRINGS_MAX_BYTES)])),
        ("", ALICE, |call| call.what = with(&[("A", "b"); 64], None)),
        // The directory counts as well.
        ("access.bad_request", ALICE, |call| {
            let long = format!("/{}", "x".repeat(ACCESS_STRINGS_MAX_BYTES - 1));
            call.what = with(&[], Some(&long));
        }),
        ("", ALICE, |call| {
            let path = "x".repeat(ACCESS_STRINGS_MAX_BYTES);
            call.what = Access::Get { path, is_tree: false };
        }),
        ("access.bad_request", ALICE, |call| {
            let path = "x".repeat(ACCESS_STRINGS_MAX_BYTES + 1);
            call.what = Access::Get { path, is_tree: false };
        }),
        ("access.bad_request", ALICE, |call| {
            call.what = Access::Get { path: "a\0".into(), is_tree: true };
        }),
        ("access.bad_request", ALICE, |call| {
            call.what = Access::Put { path: String::new(), mode: 0o600, is_tree: false };
        }),
        ("", ALICE, |call| call.what = Access::Bench),
        ("", ALICE, |call| call.what = Access::Dial { port: 4444 }),
        ("", ALICE, |call| {
            call.what = Access::Put { path: "a/b".into(), mode: 0o777, is_tree: false }
        }),
        ("lease.not_found", ALICE, |call| call.lease = LeaseId([0; 32])),
        ("access.other_peer", BOB, |_| {}),
        ("access.other_peer", ALICE, |call| call.peer = public(BOB)),
        ("lease.call_expired", ALICE, |call| call.not_after_s = NOW_S - 1),
        ("lease.call_too_long", ALICE, |call| call.not_after_s = NOW_S + 301),
        ("access.bad_request", ALICE, |call| call.what = exec(&[])),
        ("access.bad_request", ALICE, |call| call.what = exec(&["a\0b"])),
        ("access.bad_request", ALICE, |call| call.what = exec(&["x"; 65])),
        ("access.bad_request", ALICE, |call| {
            call.what = exec(&[&"x".repeat(ACCESS_STRINGS_MAX_BYTES + 1)]);
        }),
        ("", ALICE, |call| call.what = with(&[("A", "b=c"), ("B", "")], Some("/tmp"))),
        ("access.bad_request", ALICE, |call| call.what = with(&[("", "b")], None)),
        ("access.bad_request", ALICE, |call| call.what = with(&[("A=B", "c")], None)),
        ("access.bad_request", ALICE, |call| call.what = with(&[("A", "\0")], None)),
        ("access.bad_request", ALICE, |call| call.what = with(&[("A", "b"); 65], None)),
        ("access.bad_request", ALICE, |call| call.what = with(&[], Some("tmp"))),
        ("access.bad_request", ALICE, |call| call.what = with(&[], Some("/t\0"))),
        ("access.bad_request", ALICE, |call| call.what = Access::Dial { port: 0 }),
        ("access.bad_request", ALICE, |call| {
            call.what = Access::Get { path: String::new(), is_tree: false }
        }),
        ("access.bad_request", ALICE, |call| {
            call.what = Access::Put { path: "a".into(), mode: 0o4755, is_tree: false };
        }),
    ];
    for (row, (code, peer, change)) in table.into_iter().enumerate() {
        let mut value = call(lease, ALICE);
        change(&mut value);
        let hello = hello(ALICE, value.clone(), None);
        let admission = Admission { call: value, until_s: None };
        let expected = if code.is_empty() { Ok(admission) } else { Err(code) };
        assert_eq!(asked(&mut net, peer, &hello), expected, "row {row}");
    }
    let mut forged = hello(ALICE, call(lease, ALICE), None);
    forged.call.signature[1][3] ^= 1;
    assert_eq!(asked(&mut net, ALICE, &forged), Err("lease.bad_signature"));
    forged.call.payload.pop();
    assert_eq!(asked(&mut net, ALICE, &forged), Err("lease.bad_call"));
    assert_eq!(asked(&mut net, BOB, &hello(BOB, call(lease, BOB), None)), Err("lease.not_holder"));
    // Whoever looks the lease up by something else than the call says so.
    let other = Asked {
        lease: LeaseId([1; 32]),
        holder: public(ALICE),
        ports: &[],
        peer: public(ALICE),
        now_s: NOW_S,
        magic: devnet().magic,
    };
    assert_eq!(other.check(&hello(ALICE, call(lease, ALICE), None)), Err("access.other_lease"));
}

#[test]
fn another_key_may_what_the_holder_granted_for_as_long_as_it_said() {
    let (mut net, lease) = running();
    type Change = fn(&mut AccessCall, &mut Grant);
    let table: [(&str, u8, Change); 14] = [
        ("", ALICE, |_, _| {}),
        ("", ALICE, |_, grant| grant.not_after_s = NOW_S),
        // Measuring is running a program.
        ("", ALICE, |call, _| call.what = Access::Bench),
        ("access.not_granted", ALICE, |call, grant| {
            (call.what, grant.verbs) = (Access::Bench, vec![AccessVerb::Attach]);
        }),
        ("access.bad_grant", BOB, |_, _| {}),
        ("access.bad_grant", PROVIDER, |_, _| {}),
        ("access.bad_grant", ALICE, |_, grant| grant.lease = LeaseId([1; 32])),
        ("access.bad_grant", ALICE, |_, grant| grant.to = public(PROVIDER)),
        ("access.bad_grant", ALICE, |_, grant| grant.verbs.reverse()),
        ("access.bad_grant", ALICE, |_, grant| grant.verbs.push(AccessVerb::Forward)),
        ("access.grant_expired", ALICE, |_, grant| grant.not_after_s = NOW_S - 1),
        ("access.not_granted", ALICE, |call, _| call.what = Access::Ssh),
        ("access.not_granted", ALICE, |_, grant| grant.verbs.clear()),
        // The workload names no port.
        ("access.not_granted", ALICE, |call, _| call.what = Access::Dial { port: 80 }),
    ];
    for (row, (code, signer, change)) in table.into_iter().enumerate() {
        let (mut value, mut granted) = (call(lease, BOB), grant(lease));
        change(&mut value, &mut granted);
        let until_s = Some(granted.not_after_s);
        let hello = hello(BOB, value.clone(), Some((signer, granted)));
        let admission = Admission { call: value, until_s };
        let expected = if code.is_empty() { Ok(admission) } else { Err(code) };
        assert_eq!(asked(&mut net, BOB, &hello), expected, "row {row}");
    }
}

/// What each verb is asked for with.
fn example(verb: AccessVerb) -> Access {
    match verb {
        AccessVerb::Exec => exec(&["sh"]),
        AccessVerb::Forward => Access::Dial { port: 80 },
        AccessVerb::Ssh => Access::Ssh,
        AccessVerb::Put => Access::Put { path: "a".into(), mode: 0o600, is_tree: true },
        AccessVerb::Get => Access::Get { path: "a".into(), is_tree: true },
        AccessVerb::Attach => Access::Attach { from_start: true },
    }
}

/// Who comes with what in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Holder,
    /// Who was given this verb, with all others, or alone.
    With,
    WithAlone,
    /// Who was given every verb but this one.
    Without,
    /// Who was given nothing.
    Stranger,
    Expired,
    OfOtherLease,
    OfOtherProvider,
    ForOther,
    /// The grant is by who held the certificate before it was redeemed.
    OfFormerHolder,
    FormerHolder,
}

const CALLERS: [(Caller, &str); 11] = [
    (Caller::Holder, ""),
    (Caller::With, ""),
    (Caller::WithAlone, ""),
    (Caller::Without, "access.not_granted"),
    (Caller::Stranger, "lease.not_holder"),
    (Caller::Expired, "access.grant_expired"),
    (Caller::OfOtherLease, "access.bad_grant"),
    (Caller::OfOtherProvider, ""),
    (Caller::ForOther, "access.bad_grant"),
    (Caller::OfFormerHolder, "access.bad_grant"),
    (Caller::FormerHolder, "lease.not_holder"),
];

fn coming(caller: Caller, verb: AccessVerb, lease: LeaseId, other: LeaseId) -> (u8, Hello) {
    let all = AccessVerb::ALL.to_vec();
    let mut given = Grant { verbs: all.clone(), ..grant(lease) };
    let (mut who, mut signer) = (BOB, Some(ALICE));
    match caller {
        Caller::Holder => (who, signer) = (ALICE, None),
        Caller::With => {}
        Caller::WithAlone => given.verbs = vec![verb],
        Caller::Without => given.verbs.retain(|given| *given != verb),
        Caller::Stranger => signer = None,
        Caller::Expired => given.not_after_s = NOW_S - 1,
        Caller::OfOtherLease => given.lease = other,
        // It only says where to find the lease.
        Caller::OfOtherProvider => given.provider = public(BOB),
        Caller::ForOther => given.to = public(CAROL),
        Caller::OfFormerHolder => signer = Some(CAROL),
        Caller::FormerHolder => (who, signer) = (CAROL, None),
    }
    let call = AccessCall { what: example(verb), ..call(lease, who) };
    (who, hello(who, call, signer.map(|signer| (signer, given))))
}

/// Every verb for everybody: what is refused has its code and changes nothing, and nothing is
/// done for it.
#[test]
fn each_verb_is_for_the_holder_and_for_whom_it_gave_it() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB, CAROL]);
    let offer = Offer { runtimes: [PayloadKind::Rootfs].into(), ..Offer::default() };
    net.party(PROVIDER).with(|ctx, books, leases| {
        leases.on_command(ctx, &books.holdings, 8, LeaseCommand::Offer(offer));
    });
    let other = net.sell(6, &units(2, 4), ALICE);
    let cert = net.sell(7, &units(0, 2), CAROL);
    net.give(CAROL, 5, cert, ALICE);
    let archive = Content { digest: Digest([1; 32]), bytes: 1000 };
    let work = Workload {
        command: vec!["sh".to_owned()],
        ports: vec![80],
        ..Workload::of(Payload::Rootfs { archive })
    };
    let other = start(&mut net, other, work.clone());
    let lease = start(&mut net, cert, work);
    net.party(PROVIDER).take_effects();
    let before = (net.party(PROVIDER).records(), net.party(PROVIDER).views());
    for verb in AccessVerb::ALL {
        for (caller, code) in CALLERS {
            let (who, hello) = coming(caller, verb, lease, other);
            let got = asked(&mut net, who, &hello);
            let row = format!("{verb:?} for {caller:?}");
            match got {
                Ok(admission) => {
                    assert_eq!(code, "", "{row}");
                    assert_eq!(admission.call.what, example(verb), "{row}");
                    let until_s = (who != ALICE).then_some(NOW_S + 600);
                    assert_eq!(admission.until_s, until_s, "{row}");
                }
                Err(refused) => assert_eq!(refused, code, "{row}"),
            }
        }
    }
    assert_eq!(net.party(PROVIDER).take_effects(), []);
    // What a lease does for its holder alone, no grant gives to another.
    let verbs = [
        Verb::Put,
        Verb::Logs,
        Verb::Get,
        Verb::Status,
        Verb::Stop,
        Verb::Receipt,
        Verb::Restart,
        Verb::Replace(Digest([1; 32])),
    ];
    for (counter, verb) in (1..).zip(verbs) {
        for who in [BOB, CAROL, PROVIDER] {
            let call = LeaseCall { v: 1, lease, verb, counter, not_after_s: NOW_S + 60 };
            let call = by(who, call, &devnet()).envelope().clone();
            let refused = net.lease(PROVIDER, who, &request(verb, call));
            let code = "lease.not_holder".to_owned();
            assert_eq!(refused, LeaseReply::Refused { code }, "{verb:?} by {who}");
        }
    }
    assert_eq!(net.party(PROVIDER).take_effects(), []);
    assert_eq!((net.party(PROVIDER).records(), net.party(PROVIDER).views()), before);
}

fn request(verb: Verb, call: Envelope) -> LeaseRequest {
    match verb {
        Verb::Put => LeaseRequest::Put { call, digest: Digest([1; 32]), offset: 0, bytes: vec![1] },
        Verb::Logs => LeaseRequest::Logs { call, stream: Stream::Stdout, from: 0 },
        Verb::Get => LeaseRequest::Get { call, name: "a".to_owned(), from: 0 },
        Verb::Status => LeaseRequest::Status { call },
        Verb::Stop => LeaseRequest::Stop { call },
        Verb::Receipt => LeaseRequest::Receipts { call, from_seq: 0 },
        Verb::Restart => LeaseRequest::Restart { call },
        Verb::Replace(_) => {
            LeaseRequest::Replace { call, workload: Workload::wasm(Digest([1; 32]), 1000) }
        }
    }
}

#[test]
fn nobody_gets_into_what_does_not_run() {
    let (mut net, lease) = running();
    let hello = hello(ALICE, call(lease, ALICE), None);
    let outcome = capex_core::lease::objects::Outcome::Exited { code: 1 };
    let exit = Exit { run: 1, outcome, at_ms: STARTS_MS + 1, code: None };
    let (started_at_ms, usage) = (Some(STARTS_MS), Usage::default());
    let exited = ExecutorEvent::Exited { exit, started_at_ms, usage };
    net.party(PROVIDER).executor(lease, exited);
    assert!(asked(&mut net, ALICE, &hello).is_ok(), "its files are there until the window ends");
    net.party(PROVIDER).executor(
        lease,
        ExecutorEvent::Ended {
            outcome: capex_core::lease::objects::Outcome::Stopped,
            started_at_ms: Some(STARTS_MS),
            at_ms: STARTS_MS + 1,
            usage: Usage::default(),
        },
    );
    assert_eq!(asked(&mut net, ALICE, &hello), Err("lease.not_running"));
}

fn command(net: &mut Net, who: u8, command: LeaseCommand) -> Result<Done, String> {
    net.party(who).with(|ctx, books, leases| leases.on_command(ctx, &books.holdings, 9, command));
    net.pump();
    let done = net.party(who).done();
    done.into_iter().rev().find(|(id, _)| *id == 9).unwrap().1
}

fn wanted(lease: LeaseId, grant: Option<Envelope>) -> LeaseCommand {
    let what = exec(&["sh"]);
    LeaseCommand::Open(Box::new(Wanted { lease, what, session16: [9; 16], received: 5, grant }))
}

#[test]
fn what_the_holder_signs_is_what_its_provider_takes() {
    let (mut net, lease) = running();
    let Ok(Done::Access { provider, hello }) = command(&mut net, ALICE, wanted(lease, None)) else {
        panic!()
    };
    assert_eq!(provider, public(PROVIDER));
    assert_eq!(asked(&mut net, ALICE, &hello).unwrap().call.received, 5);
    assert_eq!(command(&mut net, BOB, wanted(lease, None)), Err("lease.not_found".to_owned()));

    let refused = Err("access.bad_request".to_owned());
    let with = |verbs, life_s| LeaseCommand::Grant { lease, to: public(BOB), verbs, life_s };
    assert_eq!(command(&mut net, ALICE, with(Vec::new(), 60)), refused);
    assert_eq!(command(&mut net, ALICE, with(vec![AccessVerb::Exec], 0)), refused);
    let done = command(&mut net, ALICE, with(vec![AccessVerb::Exec], 10));
    let Ok(Done::Granted { not_after_s, .. }) = done else { panic!("{done:?}") };
    assert_eq!(not_after_s, NOW_S + 10);
    let what = Access::Dial { port: 0 };
    let odd = Wanted { lease, what, session16: [9; 16], received: 0, grant: None };
    assert_eq!(command(&mut net, ALICE, LeaseCommand::Open(Box::new(odd))), refused);

    let verbs = vec![AccessVerb::Forward, AccessVerb::Exec, AccessVerb::Exec];
    let give = LeaseCommand::Grant { lease, to: public(BOB), verbs, life_s: 1 << 40 };
    let Ok(Done::Granted { grant, not_after_s }) = command(&mut net, ALICE, give.clone()) else {
        panic!()
    };
    assert_eq!(not_after_s, 1004 * 4, "no longer than the window");
    let elsewhere = wanted(LeaseId([1; 32]), Some((*grant).clone()));
    assert_eq!(command(&mut net, BOB, elsewhere), Err("access.bad_grant".to_owned()));
    let granted = wanted(lease, Some(*grant));
    let Ok(Done::Access { provider, hello }) = command(&mut net, BOB, granted.clone()) else {
        panic!()
    };
    assert_eq!(provider, public(PROVIDER));
    let until_s = asked(&mut net, BOB, &hello).unwrap().until_s;
    assert_eq!(until_s, Some(not_after_s), "no longer than the grant");
    assert_eq!(command(&mut net, ALICE, granted), Err("access.bad_grant".to_owned()));
    assert_eq!(command(&mut net, BOB, give), Err("lease.not_found".to_owned()));
}
