//! What a holder takes in, for whom it makes room, and whom it asks for what.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::objects::Payment;
use capex_core::certificate::verify::TransferKind;
use capex_core::certificate::{Base, Certificate, Hop, VerifiedCertificate};
use capex_core::engine::certificates::CertificateNews;
use capex_core::engine::courier::{CourierReply, CourierRequest};
use capex_core::engine::holdings::{
    BROUGHT_HOPS_MAX, BROUGHT_HOPS_PER_PROVIDER, ErrandKind, HELD_MAX, HoldingsCommand,
    HoldingsPurpose,
};
use capex_core::engine::io::{Done, Effect, Event};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::{HELD_PER_REPLY, RegisterReply, RegisterRequest};
use capex_core::epoch::epoch_at;
use capex_core::ids::{CertId, Key, LeaseId};
use capex_core::limits::REQUESTS_PENDING_MAX;
use capex_core::units::Window;
use capex_core::wire::{self, Envelope};
use certificate_fixture::party::*;
use certificate_fixture::*;
use serde::{Deserialize, Serialize};

const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
/// A provider that brings something.
const NEWCOMER: u8 = 50;
/// Table of held certificates.
const HELD: u8 = 8;
const PAST: Window = Window { start: 900, end: 980 };

/// A record of a held certificate as it stands on disk.
#[derive(Clone, Serialize, Deserialize)]
struct Held {
    certificate: Certificate,
    facts: VerifiedCertificate,
    redeemed: Option<LeaseId>,
    spent: Option<TransferKind>,
    pending: Option<Pending>,
    has_signed_gift: bool,
    push: Option<Key>,
    is_wanted: bool,
}

#[derive(Clone, Serialize, Deserialize)]
enum Pending {
    Gift { gift: Envelope, to: Key },
}

fn number(n: usize) -> CertId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
    CertId(id)
}

/// A record of a certificate nobody signed: a store is not verified again.
fn held(n: usize, provider: u8, hops: usize) -> Held {
    let blank = || Envelope { key: [0; 32], payload: Vec::new(), signature: [[0; 32]; 2] };
    let hop = || Hop::Gift { gift: blank(), activation: blank() };
    let facts = VerifiedCertificate {
        cert_id: number(n),
        provider: public(provider),
        class: 1,
        class_hash: [0; 32],
        features: 0,
        units: units(0, 1),
        window: WINDOW,
        pay: Payment::Prepaid,
        not_after_slot: WINDOW.end - 1,
        holder: public(ALICE),
        salt16: [0; 16],
        seq: 2,
        last_hash: [0; 32],
        as_of_height: 0,
        transfers: Vec::new(),
        roots: vec![number(n)],
        checkpointed_at: None,
        recall: None,
    };
    Held {
        certificate: Certificate {
            bases: vec![Base::Issue(blank())],
            hops: (0..hops).map(|_| hop()).collect(),
        },
        facts,
        redeemed: None,
        spent: None,
        pending: None,
        has_signed_gift: false,
        push: None,
        is_wanted: false,
    }
}

/// A holder with these records in its store.
fn alice(records: impl IntoIterator<Item = Held>) -> Net {
    let mut net = Net::new(&[ALICE]);
    for record in records {
        let value = [vec![1], wire::encode(&record)].concat();
        net.party(ALICE).disk.insert((HELD, record.facts.cert_id.0.to_vec()), value);
    }
    net.restart(ALICE);
    net
}

/// A certificate of a provider that ends with the holder, after an odd number of hops.
fn certificate(provider: u8, first: u32, hops: usize, window: Window) -> Certificate {
    let mut draft = Draft::new(provider, units(first, first + 1), window, &devnet()).sell(ALICE);
    while draft.hops.len() < hops {
        draft = draft.give(BOB).give(ALICE);
    }
    draft.certificate()
}

fn id(certificate: &Certificate) -> CertId {
    capex_core::certificate::verify(certificate, &devnet()).unwrap().cert_id
}

/// A peer brings a certificate; providers among `traders` have orders.
fn bring(net: &mut Net, certificate: Certificate, traders: &[u8]) -> Result<(), &'static str> {
    let traders: Vec<Key> = traders.iter().map(|number| public(*number)).collect();
    let request = CourierRequest::Push(certificate);
    let reply = net.party(ALICE).with(|ctx, books, _| {
        let is_trader = |key: &Key| traders.contains(key);
        books.holdings.on_request(ctx, &mut books.witness, &is_trader, &request)
    });
    reply.map(|CourierReply::Stored| ())
}

fn reply(net: &mut Net, peer: u8, purpose: HoldingsPurpose, reply: SettleReply) -> Option<CertId> {
    net.party(ALICE).with(|ctx, books, _| {
        let (witness, peer) = (&mut books.witness, public(peer));
        books.holdings.on_reply(ctx, witness, &|_| true, peer, purpose, Ok(reply))
    })
}

fn refused(code: &str) -> SettleReply {
    SettleReply::Refused { code: code.to_owned() }
}

/// What is on disk of a certificate.
fn stored(net: &mut Net, cert: CertId) -> Option<Held> {
    net.party(ALICE).take_effects();
    let value = net.party(ALICE).disk.get(&(HELD, cert.0.to_vec()))?.clone();
    Some(wire::decode_record(&value[1..]).unwrap())
}

fn is_held(net: &mut Net, cert: CertId) -> bool {
    net.party(ALICE).books.holdings.held(&cert).is_some()
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Past,
    Redeemed,
    Giving,
    Pushed,
    Wanted,
}
use Kind::{Giving, Past, Plain, Pushed, Redeemed, Wanted};

fn kept(n: usize, (provider, hops, kind): (u8, usize, Kind)) -> Held {
    let mut record = held(n, provider, hops);
    match kind {
        Plain => {}
        Past => record.facts.window = PAST,
        Redeemed => record.redeemed = Some(LeaseId([1; 32])),
        Giving => {
            let gift = record.certificate.issue().unwrap().clone();
            record.pending = Some(Pending::Gift { gift, to: public(BOB) });
        }
        Pushed => record.push = Some(public(BOB)),
        Wanted => record.is_wanted = true,
    }
    record
}

#[test]
fn a_full_room_gives_up_what_is_past_and_then_of_the_stranger_that_has_most() {
    const QUARTER: usize = BROUGHT_HOPS_PER_PROVIDER;
    type Kept<'a> = &'a [(u8, usize, Kind)];
    let strangers: Kept =
        &[(10, QUARTER, Plain), (11, QUARTER, Plain), (12, QUARTER, Plain), (13, QUARTER, Plain)];
    let nearly: Kept = &[
        (10, QUARTER, Plain),
        (11, QUARTER, Plain),
        (12, QUARTER, Plain),
        (13, QUARTER - 1, Plain),
        (14, 1, Plain),
    ];
    let one_past: Kept = &[
        (10, QUARTER, Plain),
        (11, QUARTER, Plain),
        (12, QUARTER, Plain),
        (13, QUARTER - 1, Plain),
        (14, 1, Past),
    ];
    // name, what is there, who trades, hops of the newcomer: what happens, and which one goes
    type Row<'a> = (&'a str, Kept<'a>, &'a [u8], usize, Result<Option<usize>, &'static str>);
    let full = Err("acquire.full");
    let table: &[Row] = &[
        ("the last place", &nearly[..4], &[], 1, Ok(None)),
        ("one too many", strangers, &[], 1, Ok(Some(3))),
        ("all trade", strangers, &[10, 11, 12, 13], 1, full),
        ("one is past", one_past, &[10, 11, 12, 13, 14], 1, Ok(Some(4))),
        ("what is past goes before what is larger", one_past, &[], 1, Ok(Some(4))),
        ("a stranger with as little", nearly, &[10, 11, 12, 13], 1, full),
        ("a stranger with less, for a trader", nearly, &[10, 11, 12, 13, NEWCOMER], 1, Ok(Some(4))),
        (
            "a trader that has more",
            &[(10, QUARTER, Plain), (11, QUARTER, Plain), (12, 1000, Plain), (13, 1048, Plain)],
            &[10, 11],
            1,
            Ok(Some(3)),
        ),
        (
            "something is under way with all",
            &[(10, 1024, Redeemed), (11, 1024, Giving), (12, 1024, Pushed), (13, 1024, Redeemed)],
            &[],
            1,
            full,
        ),
        (
            "bought ones have a place of their own",
            &[(10, 1024, Wanted), (11, 1024, Wanted), (12, 1024, Wanted), (13, 1024, Plain)],
            &[],
            1,
            Ok(None),
        ),
        (
            "the last of a provider's share",
            &[(NEWCOMER, 600, Plain), (NEWCOMER, 421, Plain)],
            &[NEWCOMER],
            3,
            Ok(None),
        ),
        (
            "beyond a provider's share",
            &[(NEWCOMER, 600, Plain), (NEWCOMER, 422, Plain)],
            &[NEWCOMER],
            3,
            full,
        ),
    ];
    assert_eq!((QUARTER, BROUGHT_HOPS_MAX), (1024, 4 * QUARTER));
    for (name, there, traders, hops, expected) in table {
        let mut net = alice(there.iter().enumerate().map(|(n, of)| kept(n, *of)));
        let brought = certificate(NEWCOMER, 0, *hops, WINDOW);
        let taken = bring(&mut net, brought.clone(), traders);
        assert_eq!(taken, expected.map(|_| ()), "{name}");
        assert_eq!(is_held(&mut net, id(&brought)), expected.is_ok(), "{name}");
        let gone: Vec<usize> =
            (0..there.len()).filter(|n| !is_held(&mut net, number(*n))).collect();
        assert_eq!(gone, expected.unwrap_or(None).into_iter().collect::<Vec<_>>(), "{name}");
        for n in gone {
            assert!(stored(&mut net, number(n)).is_none(), "{name}: from the store too");
        }
    }
}

#[test]
fn signatures_are_checked_only_of_what_there_could_be_room_for() {
    let full = || alice([kept(0, (NEWCOMER, BROUGHT_HOPS_PER_PROVIDER, Plain))]);
    let forged = |provider: u8| {
        let mut certificate = certificate(provider, 0, 1, WINDOW);
        issue_of(&mut certificate).signature[0][0] ^= 1;
        certificate
    };
    let mut net = full();
    assert_eq!(bring(&mut net, forged(NEWCOMER), &[]), Err("acquire.full"));
    assert_eq!(bring(&mut net, forged(NEWCOMER + 1), &[]), Err("certificate.bad_signature"));
    let mut net = alice([kept(0, (NEWCOMER, BROUGHT_HOPS_PER_PROVIDER - 1, Plain))]);
    assert_eq!(bring(&mut net, forged(NEWCOMER), &[]), Err("certificate.bad_signature"));
}

#[test]
fn what_is_here_already_grows_though_its_provider_has_no_room() {
    for is_bought in [true, false] {
        let mut net = alice([kept(0, (NEWCOMER, BROUGHT_HOPS_PER_PROVIDER - 1, Plain))]);
        let short = certificate(NEWCOMER, 0, 1, WINDOW);
        if is_bought {
            net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, short.clone()).unwrap());
        } else {
            bring(&mut net, short.clone(), &[]).unwrap();
        }
        assert_eq!(bring(&mut net, certificate(NEWCOMER, 0, 3, WINDOW), &[]), Ok(()));
        let record = stored(&mut net, id(&short)).unwrap();
        assert_eq!((record.facts.seq, record.is_wanted), (3, is_bought));
    }
}

#[test]
fn what_was_bought_or_asked_for_is_wanted_and_what_is_brought_is_not() {
    let mut net = alice([]);
    let certificate = certificate(NEWCOMER, 0, 1, WINDOW);
    let cert = id(&certificate);
    let news = |net: &mut Net| -> Vec<&'static str> {
        let told = net.party(ALICE).take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Notify(Event::Certificate(CertificateNews { what, .. })) => Some(what),
            _ => None,
        });
        told.collect()
    };
    for _ in 0..2 {
        bring(&mut net, certificate.clone(), &[]).unwrap();
        assert!(!stored(&mut net, cert).unwrap().is_wanted, "brought, and brought again");
    }
    let fetched = SettleReply::Register(RegisterReply::Certificate(certificate.clone()));
    let by_itself = HoldingsPurpose::Fetch(cert, None);
    assert_eq!(reply(&mut net, NEWCOMER, by_itself, fetched.clone()), Some(cert));
    assert!(!stored(&mut net, cert).unwrap().is_wanted, "fetched without a command");
    let asked = HoldingsPurpose::Fetch(cert, Some(1));
    assert_eq!(reply(&mut net, NEWCOMER, asked, fetched.clone()), Some(cert));
    assert!(stored(&mut net, cert).unwrap().is_wanted, "an operator asked for it");
    bring(&mut net, certificate.clone(), &[]).unwrap();
    assert!(stored(&mut net, cert).unwrap().is_wanted, "for good");

    let mut net = alice([]);
    bring(&mut net, certificate.clone(), &[]).unwrap();
    assert_eq!(news(&mut net), ["received"]);
    let mut net = alice([]);
    assert_eq!(reply(&mut net, NEWCOMER, asked, fetched), Some(cert));
    assert_eq!(news(&mut net), ["received"]);
    let mut net = alice([]);
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
    assert_eq!(news(&mut net), ["acquired"]);
    assert!(stored(&mut net, cert).unwrap().is_wanted);
}

#[test]
fn a_node_holds_no_more_than_it_has_room_for_and_what_it_holds_may_grow() {
    let all = |count: usize| (0..count).map(|n| kept(n, (10, 0, Wanted)));
    let one = certificate(NEWCOMER, 0, 1, WINDOW);
    let acquire = |net: &mut Net, certificate: Certificate| {
        net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).map(|_| ()))
    };
    let mut net = alice(all(HELD_MAX - 1));
    assert_eq!(acquire(&mut net, one.clone()), Ok(()));
    assert_eq!(acquire(&mut net, certificate(NEWCOMER, 1, 1, WINDOW)), Err("acquire.full"));
    assert_eq!(acquire(&mut net, certificate(NEWCOMER, 0, 3, WINDOW)), Ok(()));
    assert_eq!(stored(&mut net, id(&one)).unwrap().facts.seq, 3);
}

#[test]
fn what_lies_beyond_every_order_is_not_taken_unasked() {
    let params = devnet();
    let end = params.horizon_end(epoch_at(START_MS, &params) + 1);
    let window = |end: u32| Window { start: end - 1, end };
    let mut net = alice([]);
    let beyond = certificate(NEWCOMER, 0, 1, window(end + 1));
    assert_eq!(bring(&mut net, beyond.clone(), &[]), Err("acquire.beyond_horizon"));
    assert_eq!(bring(&mut net, certificate(NEWCOMER, 0, 1, window(end)), &[]), Ok(()));
    // An operator that asks for it gets it, and then its later hops too.
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, beyond).unwrap());
    assert_eq!(bring(&mut net, certificate(NEWCOMER, 0, 3, window(end + 1)), &[]), Ok(()));
    // The slot that is running has not passed.
    let slot = params.slot_at(START_MS);
    assert_eq!(
        bring(&mut net, certificate(NEWCOMER, 1, 1, window(slot)), &[]),
        Err("acquire.window_past")
    );
    assert_eq!(bring(&mut net, certificate(NEWCOMER, 1, 1, window(slot + 1)), &[]), Ok(()));
}

#[test]
fn an_answer_with_another_certificate_is_none() {
    let mut net = alice([]);
    let (wanted, other) =
        (certificate(NEWCOMER, 0, 1, WINDOW), certificate(NEWCOMER, 1, 1, WINDOW));
    let purpose = HoldingsPurpose::Fetch(id(&wanted), Some(1));
    let answer = SettleReply::Register(RegisterReply::Certificate(other.clone()));
    assert_eq!(reply(&mut net, NEWCOMER, purpose, answer), None);
    net.pump();
    assert_eq!(net.party(ALICE).done(), [(1, Err("certificate.no_answer".to_owned()))]);
    assert!(!is_held(&mut net, id(&other)));
}

#[test]
fn an_operator_is_told_when_too_much_waits_already() {
    let mut net = alice([]);
    let fetch = |net: &mut Net, command: u64| {
        let fetch = HoldingsCommand::Fetch { cert: number(1), provider: public(NEWCOMER) };
        net.party(ALICE).command(command, fetch, false);
    };
    for command in 0..REQUESTS_PENDING_MAX as u64 {
        fetch(&mut net, command);
    }
    fetch(&mut net, 9_999);
    let told = net.party(ALICE).take_effects().into_iter().filter_map(|effect| match effect {
        Effect::CommandDone { id, result } => Some((id, result.unwrap_err().code)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(9_999, "node.busy".to_owned())]);
}

#[test]
fn a_giver_is_refused_at_once_where_its_own_books_say_no() {
    let mut given = held(4, NEWCOMER, 1);
    given.facts.holder = public(BOB);
    let mut begun = held(5, NEWCOMER, 1);
    begun.facts.window.start = 985;
    let mut first = held(6, NEWCOMER, 1);
    first.facts.window.start = 986;
    let mut net = alice([
        kept(1, (NEWCOMER, 1, Redeemed)),
        held(2, NEWCOMER, 1),
        kept(3, (NEWCOMER, 1, Giving)),
        given,
        begun,
        first,
    ]);
    // The slot before 986 ends now.
    net.party(ALICE).now_ms = 986 * 4000 - 1;
    let table = [
        (0, BOB, Some("gift.unknown_certificate")),
        (1, BOB, Some("gift.consumed")),
        (2, ALICE, Some("gift.to_self")),
        (3, CAROL, Some("gift.pending")),
        (3, BOB, None),
        (4, CAROL, Some("gift.not_holder")),
        (5, BOB, Some("gift.window_started")),
        (6, BOB, None),
        (2, BOB, None),
    ];
    for (n, to, expected) in table {
        let gift = HoldingsCommand::Gift { cert: number(n), to: public(to) };
        let before = stored(&mut net, number(n)).map(|record| record.pending.is_some());
        net.party(ALICE).command(7, gift, false);
        let effects = net.party(ALICE).take_effects();
        let told = effects.iter().find_map(|effect| match effect {
            Effect::CommandDone { result: Err(refusal), .. } => Some(refusal.code.as_str()),
            _ => None,
        });
        assert_eq!(told, expected, "{n} to {to}");
        let asked = effects.iter().any(|effect| matches!(effect, Effect::Send { .. }));
        assert_eq!(asked, expected.is_none(), "{n} to {to}");
        let after = stored(&mut net, number(n)).map(|record| record.pending.is_some());
        assert_eq!(after, if expected.is_none() { Some(true) } else { before }, "{n} to {to}");
    }
}

#[test]
fn a_refused_gift_ends_and_a_stale_one_fetches_what_moved_on() {
    for (code, fetches) in [("gift.stale_seq", true), ("gift.prev_hash", false)] {
        let mut net = alice([kept(1, (NEWCOMER, 1, Giving))]);
        net.party(ALICE).take_effects();
        assert_eq!(net.party(ALICE).books.next_deadline(&devnet()), Some(START_MS));
        reply(
            &mut net,
            NEWCOMER,
            HoldingsPurpose::Errand(ErrandKind::Gift, number(1)),
            refused(code),
        );
        let get = SettleRequest::Register(RegisterRequest::Get(number(1)));
        let expected = if fetches { vec![(public(NEWCOMER), get)] } else { Vec::new() };
        assert_eq!(net.party(ALICE).take_asked(), expected, "{code}");
        assert!(stored(&mut net, number(1)).unwrap().pending.is_none(), "{code}");
        assert_eq!(net.party(ALICE).books.next_deadline(&devnet()), None, "{code}");
    }
}

#[test]
fn a_given_certificate_is_brought_until_its_receiver_has_this_very_one() {
    let stored_reply = SettleReply::Courier(CourierReply::Stored);
    // Sequence number that was brought, answer, whether it ends
    let table = [
        (1, stored_reply.clone(), false),
        (2, refused("acquire.full"), false),
        (1, refused("acquire.full"), false),
        (2, stored_reply, true),
        (2, refused("acquire.not_holder"), true),
    ];
    for (seq, answer, ends) in table {
        let mut net = alice([kept(1, (NEWCOMER, 1, Pushed))]);
        net.party(ALICE).take_effects();
        net.party(ALICE).with(|ctx, books, _| books.holdings.on_tick(ctx));
        let brought = net.party(ALICE).take_asked().into_iter().filter(|(to, request)| {
            *to == public(BOB) && matches!(request, SettleRequest::Courier(_))
        });
        assert_eq!(brought.count(), 1);
        reply(&mut net, BOB, HoldingsPurpose::Push(number(1), seq), answer.clone());
        assert_eq!(stored(&mut net, number(1)).unwrap().push.is_none(), ends, "{seq} {answer:?}");
        let waits = net.party(ALICE).books.next_deadline(&devnet()).is_some();
        assert_eq!(waits, !ends, "{seq} {answer:?}");
    }
}

/// Whom a party asks what it holds.
fn asked(net: &mut Net) -> Vec<Key> {
    let asked = net.party(ALICE).take_asked().into_iter();
    let is_first = |request: &SettleRequest| {
        *request == SettleRequest::Register(RegisterRequest::Held { after: CertId([0; 32]) })
    };
    asked.filter(|(_, request)| is_first(request)).map(|(key, _)| key).collect()
}

fn up(net: &mut Net, peer: Key, is_trader: bool) -> bool {
    let before = asked(net);
    assert_eq!(before, []);
    net.party(ALICE).with(|ctx, books, _| books.holdings.on_peer_up(ctx, peer, &|_| is_trader));
    let asked = asked(net);
    assert!(asked.is_empty() || asked == [peer]);
    !asked.is_empty()
}

#[test]
fn the_provider_of_what_was_only_brought_is_not_one_of_this_node() {
    let used = |change: fn(&mut Held)| {
        let mut held = held(1, NEWCOMER, 1);
        change(&mut held);
        let mut net = alice([held]);
        let holdings = &net.party(ALICE).books.holdings;
        assert!(!holdings.has_provider(&public(BOB)));
        holdings.has_provider(&public(NEWCOMER))
    };
    assert!(!used(|_| ()));
    assert!(used(|held| held.is_wanted = true));
    assert!(used(|held| held.redeemed = Some(LeaseId([1; 32]))));
    assert!(used(|held| held.push = Some(public(BOB))));
}

#[test]
fn a_provider_that_comes_up_is_asked_what_this_node_holds_every_ten_minutes() {
    let mut net = alice([held(1, NEWCOMER, 1)]);
    asked(&mut net);
    assert!(!up(&mut net, public(BOB), false), "no provider");
    assert!(up(&mut net, public(BOB), true), "one that trades may be one");
    assert!(up(&mut net, public(NEWCOMER), false), "of something held");
    net.party(ALICE).now_ms += 599_999;
    assert!(!up(&mut net, public(NEWCOMER), true));
    net.party(ALICE).now_ms += 1;
    assert!(up(&mut net, public(NEWCOMER), true));
    assert!(!up(&mut net, public(NEWCOMER), true));
}

#[test]
fn no_more_providers_are_asked_than_can_be_remembered() {
    const ASKED_MAX: u16 = 1024;
    let key = |n: u16| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        Key(key)
    };
    let mut net = alice([]);
    for n in 0..ASKED_MAX {
        net.party(ALICE).now_ms = START_MS + if n < 10 { 0 } else { 1_000 };
        assert!(up(&mut net, key(n), true));
    }
    net.party(ALICE).now_ms = START_MS + 599_999;
    assert!(!up(&mut net, key(ASKED_MAX), true));
    // The first ten are forgotten, and no others.
    net.party(ALICE).now_ms += 1;
    assert!(up(&mut net, key(ASKED_MAX), true));
    for n in 10..ASKED_MAX {
        assert!(!up(&mut net, key(n), true), "{n}");
    }
    for n in 0..9 {
        assert!(up(&mut net, key(n), true), "{n}");
    }
    assert!(!up(&mut net, key(9), true), "full again");
}

#[test]
fn at_start_the_providers_of_what_can_still_be_used_are_asked_once() {
    let slot = devnet().slot_at(START_MS);
    let ends = |n: usize, provider: u8, end: u32| {
        let mut record = held(n, provider, 1);
        record.facts.window = Window { start: slot - 1, end };
        record
    };
    let mut net = alice([ends(1, 10, slot), ends(2, 11, slot + 1), ends(3, ALICE, slot + 9)]);
    for expected in [vec![public(11)], Vec::new()] {
        net.party(ALICE).with(|ctx, books, _| books.holdings.on_tick(ctx));
        assert_eq!(asked(&mut net), expected);
    }
}

#[test]
fn what_a_provider_tells_of_is_fetched_where_it_differs_and_a_full_answer_goes_on() {
    let all: Vec<(CertId, u32)> = (1..=HELD_PER_REPLY).map(|n| (number(n), 2)).collect();
    let with = |n: usize, seq: u32| {
        let mut told = all.clone();
        told[n].1 = seq;
        told
    };
    let numbers = |all: std::ops::RangeInclusive<usize>| all.map(number).collect::<Vec<_>>();
    let last = number(HELD_PER_REPLY);
    let turned: Vec<_> = all.iter().rev().copied().collect();
    // name, what is told, what is fetched, after which the provider is asked on
    type Row = (&'static str, Vec<(CertId, u32)>, Vec<CertId>, Option<CertId>);
    let table: Vec<Row> = vec![
        // What is here and not there may have moved on.
        ("known", all[..3].to_vec(), numbers(4..=67), None),
        ("shorter", vec![(number(1), 1)], numbers(2..=65), None),
        ("longer", vec![(number(1), 3)], [numbers(1..=1), numbers(2..=65)].concat(), None),
        (
            "unknown",
            vec![(number(9_000), 1)],
            [vec![number(9_000)], numbers(1..=64)].concat(),
            None,
        ),
        ("full", all.clone(), Vec::new(), Some(last)),
        ("one less", all[1..].to_vec(), vec![number(1)], None),
        ("full, and one to fetch first", with(7, 3), vec![number(8)], None),
        ("turned round", turned, Vec::new(), None),
        ("the same again and again", vec![all[0]; HELD_PER_REPLY], Vec::new(), None),
        ("too much", [&all[..], &[(number(9_000), 1)]].concat(), Vec::new(), Some(last)),
    ];
    for (name, told, fetched, after) in table {
        let mut net = alice((1..=HELD_PER_REPLY).map(|n| held(n, NEWCOMER, 1)));
        net.party(ALICE).take_effects();
        let held = SettleReply::Register(RegisterReply::Held(told));
        reply(&mut net, NEWCOMER, HoldingsPurpose::Held { after: CertId([0; 32]) }, held);
        let to = public(NEWCOMER);
        let gets = fetched.into_iter().map(|cert| (to, RegisterRequest::Get(cert).into()));
        let next = after.map(|after| (to, RegisterRequest::Held { after }.into()));
        assert_eq!(net.party(ALICE).take_asked(), gets.chain(next).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_fetch_answers_its_command() {
    let mut net = alice([]);
    let certificate = certificate(NEWCOMER, 0, 1, WINDOW);
    let cert = id(&certificate);
    let purpose = HoldingsPurpose::Fetch(cert, Some(4));
    let answer = SettleReply::Register(RegisterReply::Certificate(certificate));
    reply(&mut net, NEWCOMER, purpose, answer);
    net.pump();
    assert_eq!(net.party(ALICE).done(), [(4, Ok(Done::Held { cert }))]);
}

#[test]
fn what_was_sold_is_held_again_if_that_sale_was_none() {
    let mut net = Net::new(&[1, ALICE]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let mark = |net: &mut Net, is_sold, seq| {
        net.party(ALICE).with(|ctx, books, _| match is_sold {
            true => books.holdings.mark_sold(ctx, cert, seq),
            false => books.holdings.mark_unsold(ctx, cert, seq),
        });
        net.state(ALICE, cert).0
    };
    assert_eq!(mark(&mut net, false, 1), "active");
    assert_eq!(mark(&mut net, true, 1), "sold");
    assert_eq!(mark(&mut net, false, 2), "sold", "of another sale");
    assert_eq!(mark(&mut net, false, 1), "active");
    net.restart(ALICE);
    assert_eq!(net.state(ALICE, cert), ("active", 1, public(ALICE)));
}

#[test]
fn a_holder_splits_nothing_for_which_it_has_no_room() {
    let mut net = alice((1..HELD_MAX).map(|n| held(n, NEWCOMER, 1)));
    // Whatever they are.
    let parts = vec![held(1, NEWCOMER, 1).facts.area(); 2];
    let split = HoldingsCommand::Split { cert: number(1), parts, give: None };
    net.party(ALICE).command(1, split, false);
    net.pump();
    assert_eq!(net.party(ALICE).done(), [(1, Err("split.full".to_owned()))]);
}
