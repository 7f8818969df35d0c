//! What a provider's register tells whom, refuses, restores and notices of itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::Claim;
use capex_core::certificate::equivocation::Statement;
use capex_core::certificate::objects::StatementKind;
use capex_core::engine::certificates::LockView;
use capex_core::engine::courier::CourierRequest;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::Done;
use capex_core::engine::kernel::{Record, Stored};
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::{
    Desk, Register, RegisterCommand, RegisterPurpose, RegisterReply, RegisterRequest, RestoredV1,
};
use capex_core::engine::trades::Titles;
use capex_core::engine::witness::{WitnessReply, WitnessRequest};
use capex_core::ids::{CertId, Digest, Key, LeaseId, TradeId};
use capex_core::lease::objects::Redeem;
use capex_core::settlement::objects::{LockGrant, Row, Terms};
use capex_core::units::{Units, Window};
use capex_core::wire::{self, Object, Verified};
use certificate_fixture::party::*;
use certificate_fixture::pieces::area;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const DAVE: u8 = 5;
const ENDS_MS: u64 = 1004 * 4000;

/// A register with one certificate, sold to Alice.
fn sold() -> (Net, CertId) {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    (net, cert)
}

fn lock(
    net: &mut Net,
    terms: &Verified<Terms>,
    payer: u8,
) -> Result<Verified<LockGrant>, &'static str> {
    let accepts = [accept(payer, terms, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, terms, &accepts))
}

fn release(net: &mut Net, terms: &Verified<Terms>) {
    let terms = terms_hash(terms);
    net.party(PROVIDER).with(|ctx, books, _| books.register.release(ctx, terms, evidence(1)));
}

/// Terms of a sale by Alice to Bob, whom another pays for.
fn resale(net: &mut Net, cert: CertId, payer: u8, nonce: u8) -> Verified<Terms> {
    let register = &net.party(PROVIDER).books.register;
    let facts = register.issued(&cert).unwrap();
    let issue =
        register.certificate(&cert).unwrap().issue().unwrap().verify(devnet().magic).unwrap();
    let mut value = terms(&issue, facts.seq, facts.last_hash, public(ALICE), public(BOB));
    value.funders[0].key = public(payer);
    value.nonce16 = [nonce; 16];
    by(ALICE, value, &devnet())
}

/// What the register says a peer holds.
fn told(net: &mut Net, peer: u8) -> Vec<(CertId, u32)> {
    let held = RegisterRequest::Held { after: CertId([0; 32]) };
    match net.settle(PROVIDER, peer, held) {
        SettleReply::Register(RegisterReply::Held(told)) => told,
        other => panic!("{other:?}"),
    }
}

fn is_told(net: &mut Net, peer: u8, cert: CertId) -> bool {
    let reply = net.settle(PROVIDER, peer, RegisterRequest::Get(cert));
    matches!(reply, SettleReply::Register(RegisterReply::Certificate(_)))
}

#[test]
fn who_waits_for_a_certificate_is_told_of_it_while_its_lock_stands() {
    let (mut net, cert) = sold();
    let terms = resale(&mut net, cert, CAROL, 1);
    let parties = |net: &mut Net| [ALICE, BOB, CAROL, DAVE].map(|peer| is_told(net, peer, cert));
    assert_eq!(parties(&mut net), [true, false, false, false]);
    let grant = lock(&mut net, &terms, CAROL).unwrap();
    assert_eq!(parties(&mut net), [true, true, true, false]);
    let views = net.party(PROVIDER).books.views(public(PROVIDER), 0);
    let expected = LockView { terms_hash: terms_hash(&terms), attempt: grant.attempt };
    assert_eq!(views[0].lock, Some(expected));
    release(&mut net, &terms);
    assert_eq!(parties(&mut net), [true, false, false, false]);
    assert_eq!(net.party(PROVIDER).books.views(public(PROVIDER), 0)[0].lock, None);
}

#[test]
fn a_holder_is_told_of_what_it_can_still_use() {
    let (mut net, cert) = sold();
    let unsold = net.offer(8, &units(4, 5), ALICE);
    for _ in 0..2 {
        assert_eq!(told(&mut net, ALICE), [(cert, 1)]);
        assert_eq!(told(&mut net, BOB), []);
        assert_eq!(told(&mut net, PROVIDER), [], "{} is its own until it is sold", unsold.cert_id);
        net.restart(PROVIDER);
    }
    net.party(PROVIDER).now_ms = ENDS_MS - 1;
    assert_eq!(told(&mut net, ALICE), [(cert, 1)]);
    net.party(PROVIDER).now_ms = ENDS_MS;
    assert_eq!(told(&mut net, ALICE), []);
    net.party(PROVIDER).now_ms = START_MS;
    let lease = LeaseId([9; 32]);
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.consume_redeem(ctx, cert, lease).unwrap());
    for _ in 0..2 {
        assert_eq!(told(&mut net, ALICE), [], "redeemed");
        let views = net.party(PROVIDER).books.views(public(PROVIDER), 0);
        let view = views.iter().find(|view| view.facts.cert_id == cert).unwrap();
        assert_eq!((view.state, view.lease), ("redeemed", Some(lease)));
        net.restart(PROVIDER);
    }
}

#[test]
fn a_redemption_is_refused_for_its_reason_and_lasts_to_the_end_of_its_last_slot() {
    type Change = fn(&mut Redeem);
    type Before = fn(&mut Net, CertId);
    let nothing: Before = |_, _| {};
    let at = |net: &mut Net, now_ms| net.party(PROVIDER).now_ms = now_ms;
    let table: &[(&str, Before, Change, Result<(), &str>)] = &[
        ("as it should be", nothing, |_| {}, Ok(())),
        ("unknown", nothing, |r| r.cert_id = CertId([0; 32]), Err("redeem.unknown_certificate")),
        ("another", nothing, |r| r.holder = public(BOB), Err("redeem.not_holder")),
        ("a number ahead", nothing, |r| r.seq = 2, Err("redeem.stale_seq")),
        ("a number behind", nothing, |r| r.seq = 0, Err("redeem.stale_seq")),
        (
            "locked",
            |net, cert| {
                let terms = resale(net, cert, BOB, 1);
                lock(net, &terms, BOB).unwrap();
            },
            |_| {},
            Err("redeem.locked"),
        ),
        (
            "redeemed",
            |net, cert| {
                let lease = LeaseId([9; 32]);
                net.party(PROVIDER)
                    .with(|ctx, books, _| books.register.consume_redeem(ctx, cert, lease).unwrap());
            },
            |_| {},
            Err("redeem.consumed"),
        ),
    ];
    let check = |net: &mut Net, redeem: &Redeem| {
        net.party(PROVIDER).with(|ctx, books, _| books.register.check_redeem(ctx, redeem))
    };
    for (name, before, change, expected) in table {
        let (mut net, cert) = sold();
        before(&mut net, cert);
        let mut redeem = Redeem {
            v: 1,
            cert_id: cert,
            seq: 1,
            holder: public(ALICE),
            workload_digest: Digest([1; 32]),
            challenge32: [0; 32],
            not_after_s: 0,
        };
        change(&mut redeem);
        assert_eq!(check(&mut net, &redeem), *expected, "{name}");
        at(&mut net, ENDS_MS - 1);
        assert_eq!(check(&mut net, &redeem), *expected, "{name}, in the last slot");
        at(&mut net, ENDS_MS);
        let late = expected.and(Err("redeem.window_past"));
        assert_eq!(check(&mut net, &redeem), late, "{name}, after it");
    }
    // What its provider never sold is nobody's to redeem.
    let (mut net, _) = sold();
    let unsold = net.offer(8, &units(4, 5), ALICE);
    let redeem = Redeem {
        v: 1,
        cert_id: unsold.cert_id,
        seq: 0,
        holder: public(PROVIDER),
        workload_digest: Digest([1; 32]),
        challenge32: [0; 32],
        not_after_s: 0,
    };
    assert_eq!(check(&mut net, &redeem), Err("redeem.not_holder"));
}

#[test]
fn the_last_eight_released_terms_are_not_locked_again() {
    let (mut net, cert) = sold();
    let all: Vec<_> = (0..9).map(|nonce| resale(&mut net, cert, BOB, nonce)).collect();
    for terms in &all[..8] {
        lock(&mut net, terms, BOB).unwrap();
        release(&mut net, terms);
    }
    assert_eq!(lock(&mut net, &all[0], BOB).unwrap_err(), "lock.released");
    lock(&mut net, &all[8], BOB).unwrap();
    release(&mut net, &all[8]);
    for terms in &all[1..] {
        assert_eq!(lock(&mut net, terms, BOB).unwrap_err(), "lock.released");
    }
    assert_eq!(lock(&mut net, &all[0], BOB).unwrap().attempt, 9);
}

#[test]
fn nothing_is_issued_for_no_unit_or_no_slot() {
    let mut net = Net::new(&[PROVIDER]);
    net.offer(1, &units(0, 2), ALICE);
    let empty = Window { start: 1000, end: 1000 };
    for (units, window) in [(units(4, 5), empty), (Units::default(), WINDOW)] {
        let issued = net.party(PROVIDER).with(|ctx, books, _| {
            books.register.issue(ctx, TradeId([2; 32]), &fresh(1, &units, window)).map(|_| ())
        });
        assert_eq!(issued, Err("issue.bad_area"), "{units:?} {window}");
    }
    assert_eq!(net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW), 62);
}

#[test]
fn an_operator_sets_the_capacity_or_is_told_why_not() {
    let mut net = Net::new(&[PROVIDER]);
    let set = |net: &mut Net, command: u64, capacity: &[(u16, u32)]| {
        let asked = RegisterCommand::SetCapacity(capacity.to_vec());
        net.party(PROVIDER).with(|ctx, books, _| books.register.on_command(ctx, command, &asked));
        net.pump();
        let ledger = &net.party(PROVIDER).books.register.ledger;
        [ledger.capacity(1), ledger.capacity(2)]
    };
    assert_eq!(set(&mut net, 1, &[(1, 8), (2, 4)]), [8, 4]);
    assert_eq!(set(&mut net, 2, &[(1, 9), (99, 4)]), [8, 4], "all or nothing");
    let unknown = Err("capacity.unknown_class".to_owned());
    assert_eq!(net.party(PROVIDER).done(), [(1, Ok(Done::Ok)), (2, unknown)]);
}

#[test]
fn a_register_comes_back_with_the_claims_of_windows_that_last() {
    for (now_ms, claims) in [(ENDS_MS - 1, 1), (ENDS_MS, 0)] {
        let (mut net, cert) = sold();
        net.party(PROVIDER).now_ms = now_ms;
        net.restart(PROVIDER);
        let ledger = &net.party(PROVIDER).books.register.ledger;
        assert_eq!(ledger.areas(Claim::Certificate(cert)).count(), claims, "at {now_ms}");
    }
}

#[test]
fn the_market_sees_the_free_units_of_the_register() {
    let mut net = Net::new(&[PROVIDER]);
    net.offer(1, &units(0, 2), ALICE);
    let row = |buy: u8, qty: u32| Row {
        v: 1,
        epoch: 5,
        buy: [buy; 32],
        sell: [0; 32],
        class: 1,
        start: WINDOW.start,
        slots: 4,
        qty,
        msat: 1_000,
    };
    net.party(PROVIDER).with(|_, books, _| {
        let register = &mut books.register;
        assert_eq!(register.free_within(1, &units(0, 4), WINDOW), [(units(2, 4), WINDOW)]);
        assert_eq!(register.free_within(1, &units(0, 2), WINDOW), []);
        assert_eq!(register.pick(1, 2, WINDOW, &[units(2, 3)]), Some(units(3, 5)));
        assert_eq!(register.pick(1, 63, WINDOW, &[]), None);
        let (first, second) = (row(1, 2), row(2, 3));
        let numbers = Register::number(&(units(2, 6), WINDOW), &[&second, &first]);
        assert_eq!(numbers, [Err("trade.not_inside"), Ok(units(2, 4))]);
        register.reserve(TradeId([4; 32]), &first, &units(2, 4)).unwrap();
        assert_eq!(
            register.reserve(TradeId([5; 32]), &second, &units(3, 6)),
            Err("ledger.claimed")
        );
        assert_eq!(register.free_within(1, &units(0, 6), WINDOW), [(units(4, 6), WINDOW)]);
    });
}

#[test]
fn a_desk_speaks_for_the_register_and_the_witness() {
    let (mut net, cert) = sold();
    let terms = resale(&mut net, cert, BOB, 1);
    lock(&mut net, &terms, BOB).unwrap();
    net.pump();
    let other = resale(&mut net, cert, BOB, 2);
    let foreign = grant(DAVE, &terms, 0, &devnet());
    net.party(PROVIDER).with(|ctx, books, _| {
        let bytes = wire::encode(foreign.envelope());
        books.witness.on_statement(ctx, &|_| true, &bytes).unwrap();
        let mut desk = Desk { register: &mut books.register, witness: &books.witness };
        assert_eq!(desk.holder(cert), Some(public(ALICE)));
        assert_eq!(desk.holder(CertId([0; 32])), None);
        let ours = terms_hash(&terms);
        let conflict = |terms| desk.conflicting_lock(public(DAVE), cert, 1, 0, terms);
        assert_eq!((conflict(ours), conflict(terms_hash(&other))), (false, true));
        desk.release(ctx, ours, evidence(1));
    });
    assert_eq!(lock(&mut net, &terms, BOB).unwrap_err(), "lock.released");
    assert_eq!(lock(&mut net, &other, BOB).unwrap().attempt, 1);
}

fn statement<T: Object>(kind: StatementKind, value: &Verified<T>) -> Statement {
    Statement::verify(kind, value.envelope(), devnet().magic).unwrap()
}

/// Whether the register is halted by a statement that it hears, at a height of the chain.
fn halts(net: &mut Net, said: &Statement, height: u32) -> bool {
    let party = net.party(PROVIDER);
    party.chain.height = height;
    party.with(|ctx, books, _| books.register.hear_own(ctx, said));
    net.pump();
    net.party(PROVIDER).books.register.halted() == Some("register.behind")
}

#[test]
fn a_register_knows_its_own_statements_from_those_that_it_never_made() {
    let redeem = |provider, cert, seq, attempt| {
        let grant = redeem_grant(provider, cert, seq, attempt, &devnet());
        statement(StatementKind::RedeemGrant, &grant)
    };
    let locked = |net: &mut Net, cert, nonce, attempt| {
        let terms = resale(net, cert, BOB, nonce);
        statement(StatementKind::LockGrant, &grant(PROVIDER, &terms, attempt, &devnet()))
    };
    let never = CertId([3; 32]);
    // What is said of the certificate, which is at number 1 and locked: whether it halts
    type Row<'a> = (&'a str, &'a dyn Fn(&mut Net, CertId) -> Statement, bool);
    let table: &[Row] = &[
        ("of another provider", &|_, _| redeem(DAVE, never, 0, 0), false),
        ("of a certificate that it does not have", &|_, _| redeem(PROVIDER, never, 0, 0), true),
        ("of a number that is over", &|_, cert| redeem(PROVIDER, cert, 0, 0), false),
        ("of a number to come", &|_, cert| redeem(PROVIDER, cert, 2, 0), true),
        ("of an attempt to come", &|_, cert| redeem(PROVIDER, cert, 1, 1), true),
        ("a redemption where there is a lock", &|_, cert| redeem(PROVIDER, cert, 1, 0), true),
        ("the lock", &|net, cert| locked(net, cert, 1, 0), false),
        ("a lock for other terms", &|net, cert| locked(net, cert, 2, 0), true),
        (
            "a sale",
            &|net, cert| {
                let terms = resale(net, cert, BOB, 1);
                let register = &net.party(PROVIDER).books.register;
                let facts = register.issued(&cert).unwrap().clone();
                let mut draft = Draft::new(PROVIDER, facts.units, facts.window, &devnet());
                (draft.seq, draft.last) = (1, facts.last_hash);
                let mut value = draft.activation(0, BOB, terms.id());
                value.cert_id = cert;
                value.consumes[0].cert_id = cert;
                value.roots = vec![cert];
                statement(StatementKind::Activation, &by(PROVIDER, value, &devnet()))
            },
            true,
        ),
    ];
    for (name, said, expected) in table {
        let (mut net, cert) = sold();
        let terms = resale(&mut net, cert, BOB, 1);
        lock(&mut net, &terms, BOB).unwrap();
        let said = said(&mut net, cert);
        assert!(!halts(&mut net, &said, 0), "{name}: without a chain nothing can be judged");
        assert_eq!(halts(&mut net, &said, 103), *expected, "{name}");
    }
    for (lease, expected) in [([6; 32], false), ([7; 32], true)] {
        let (mut net, cert) = sold();
        net.party(PROVIDER).with(|ctx, books, _| {
            books.register.consume_redeem(ctx, cert, LeaseId(lease)).unwrap();
        });
        let said = redeem(PROVIDER, cert, 1, 0);
        assert_eq!(halts(&mut net, &said, 103), expected, "the redemption, or another");
    }
}

/// After half a horizon's blocks a certificate may be forgotten, with all that was said of it.
#[test]
fn what_was_said_long_ago_may_be_forgotten() {
    let grant = redeem_grant(PROVIDER, CertId([3; 32]), 0, 0, &devnet());
    let said = statement(StatementKind::RedeemGrant, &grant);
    // 336 slots of 4 s, in blocks of half a second.
    let blocks = 336 * 4 * 2 / 2;
    for (height, expected) in [(101 + blocks, true), (101 + blocks + 1, false)] {
        assert_eq!(halts(&mut sold().0, &said, height), expected, "at {height}");
    }
}

#[test]
fn peers_are_asked_until_three_have_answered() {
    let peers = |from: u8, to: u8| (from..to).map(public).collect::<Vec<Key>>();
    let ask = |net: &mut Net, peers: &[Key]| -> Vec<Key> {
        net.party(PROVIDER).with(|ctx, books, _| {
            books.register.ask_witnesses(ctx, peers.iter().copied());
        });
        let asked = net.party(PROVIDER).take_asked().into_iter().map(|(key, request)| {
            assert_eq!(request, SettleRequest::Witness(WitnessRequest::Mine));
            key
        });
        asked.collect()
    };
    let answers = |net: &mut Net, peer: u8| {
        let said = SettleReply::Witness(WitnessReply::Heard(Vec::new()));
        net.party(PROVIDER).with(|ctx, books, _| {
            books.register.on_reply(ctx, public(peer), RegisterPurpose::Mine, Ok(said));
        });
    };
    let mut net = Net::new(&[PROVIDER]);
    net.party(PROVIDER).chain.height = 0;
    assert_eq!(ask(&mut net, &peers(10, 12)), [], "no answer could be judged");
    net.party(PROVIDER).chain.height = 1;
    assert_eq!(ask(&mut net, &peers(10, 12)), peers(10, 12));
    assert_eq!(ask(&mut net, &peers(10, 13)), peers(12, 13), "each once");
    answers(&mut net, 10);
    answers(&mut net, 11);
    assert_eq!(ask(&mut net, &peers(13, 40)), peers(13, 26), "sixteen in all");
    let mut net = Net::new(&[PROVIDER]);
    assert_eq!(ask(&mut net, &peers(10, 13)), peers(10, 13));
    for peer in 10..13 {
        assert_eq!(ask(&mut net, &[public(peer + 10)]), [public(peer + 10)]);
        answers(&mut net, peer);
    }
    assert_eq!(ask(&mut net, &peers(30, 31)), [], "three have answered");
}

#[test]
fn a_restored_register_wakes_when_its_wait_is_over() {
    let mut net = Net::new(&[PROVIDER]);
    assert_eq!(net.party(PROVIDER).books.next_deadline(&devnet()), None);
    let record = Record::store(RestoredV1::KEY, &RestoredV1 { at_ms: START_MS }).unwrap();
    net.party(PROVIDER)
        .disk
        .insert((RestoredV1::TABLE.number(), record.key), record.value.unwrap());
    net.restart(PROVIDER);
    assert_eq!(net.party(PROVIDER).books.next_deadline(&devnet()), Some(START_MS + 3_000));
    let said = net.party(PROVIDER).books.register.halted();
    assert_eq!(said, Some("register.restored"));
}

/// The coins of a sale that was moved ahead of the chain have gone back to its buyer.
#[test]
fn what_is_taken_back_is_good_for_nothing_and_its_units_are_not_sold_again() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let terms = net.offer(7, &units(0, 3), ALICE);
    lock(&mut net, &terms, ALICE).unwrap();
    let certificate = net.activate(&terms);
    let (cert, hash) = (terms.cert_id, terms_hash(&terms));
    let take_back = |net: &mut Net, hash| {
        net.party(PROVIDER).with(|ctx, books, _| books.register.take_back(ctx, hash));
    };
    let before = net.party(PROVIDER).records();
    take_back(&mut net, capex_core::ids::TermsHash([9; 32]));
    assert!(net.party(PROVIDER).records() == before, "of other terms nothing");
    take_back(&mut net, hash);
    for _ in 0..2 {
        let register = &net.party(PROVIDER).books.register;
        assert!(register.issued(&cert).is_none());
        assert!(register.certificate_for(public(ALICE), &cert).is_none());
        assert_eq!(register.ledger.areas(Claim::Certificate(cert)).count(), 1);
        assert_eq!(register.ledger.free_units(1, WINDOW), 61, "a second sale would convict it");
        assert!(net.party(PROVIDER).take_asked().is_empty(), "nothing is brought any more");
        net.restart(PROVIDER);
    }
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
    net.give(ALICE, 1, cert, BOB);
    net.pump();
    let done = net.party(ALICE).done();
    assert_eq!(done, [(1, Err("gift.unknown_certificate".to_owned()))]);
    let parts = vec![area(0, 1, WINDOW), area(1, 3, WINDOW)];
    let split = HoldingsCommand::Split { cert, parts, give: None };
    net.party(ALICE).command(2, split, false);
    net.pump();
    let refused = (2, Err("split.unknown_certificate".to_owned()));
    assert_eq!(net.party(ALICE).done().last(), Some(&refused));
}

#[test]
fn what_others_have_a_right_to_is_not_taken_back() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let first = net.offer(7, &units(0, 3), ALICE);
    lock(&mut net, &first, ALICE).unwrap();
    let certificate = net.activate(&first);
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
    let (cert, hash) = (first.cert_id, terms_hash(&first));
    let take_back = |net: &mut Net| {
        net.party(PROVIDER).with(|ctx, books, _| books.register.take_back(ctx, hash));
    };
    // Bob pays for it, and has it.
    let second = resale(&mut net, cert, BOB, 1);
    lock(&mut net, &second, BOB).unwrap();
    take_back(&mut net);
    assert_eq!(net.state(PROVIDER, cert), ("active", 1, public(ALICE)));
    net.activate(&second);
    let before = net.party(PROVIDER).records();
    take_back(&mut net);
    assert!(net.party(PROVIDER).records() == before);
    assert_eq!(net.state(PROVIDER, cert), ("active", 2, public(BOB)));
}

#[test]
fn what_a_lock_kept_from_being_taken_back_is_when_the_lock_ends() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let first = net.offer(7, &units(0, 3), ALICE);
    lock(&mut net, &first, ALICE).unwrap();
    let certificate = net.activate(&first);
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
    let cert = first.cert_id;
    let second = resale(&mut net, cert, BOB, 1);
    lock(&mut net, &second, BOB).unwrap();
    net.party(PROVIDER).with(|ctx, books, _| books.register.take_back(ctx, terms_hash(&first)));
    net.restart(PROVIDER);
    assert_eq!(net.state(PROVIDER, cert), ("active", 1, public(ALICE)));
    release(&mut net, &second);
    assert!(net.party(PROVIDER).books.register.issued(&cert).is_none());
    assert_eq!(lock(&mut net, &second, BOB).err(), Some("lock.void"));
}

/// A copy of a gift that was refused comes when it can be granted: the giver learns of it from what
/// the provider publishes, or when it asks what it holds.
#[test]
fn a_gift_that_is_granted_after_it_was_refused_leaves_one_holder() {
    for hears in [true, false] {
        let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
        let cert = net.sell(7, &units(0, 3), ALICE);
        let open = resale(&mut net, cert, BOB, 1);
        lock(&mut net, &open, BOB).unwrap();
        let gift = HoldingsCommand::Gift { cert, to: public(BOB) };
        net.party(ALICE).command(1, gift, false);
        let copy = net.party(ALICE).take_asked().remove(0).1;
        net.pass(5_000);
        assert_eq!(net.party(ALICE).done(), [(1, Err("gift.locked".to_owned()))]);
        release(&mut net, &open);
        net.party(ALICE).up = hears;
        net.settle(PROVIDER, ALICE, copy);
        net.pump();
        assert_eq!(net.state(BOB, cert), ("active", 2, public(BOB)));
        net.party(ALICE).up = true;
        if !hears {
            assert_eq!(net.state(ALICE, cert).0, "active");
            net.restart(ALICE);
            net.party(ALICE).with(|ctx, books, _| books.holdings.on_tick(ctx));
            net.pump();
        }
        assert_eq!(net.state(ALICE, cert), ("given", 2, public(BOB)), "{hears}");
    }
}

/// What another has signed away is no reason to give up what is held.
#[test]
fn a_certificate_that_moved_without_its_holder_takes_nothing_from_it() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let issued = || Draft::new(PROVIDER, units(0, 3), WINDOW, &devnet());
    let held = issued().sell(ALICE).certificate();
    let other = issued().sell(BOB).give(CAROL).certificate();
    let cert = held.id(devnet().magic).unwrap();
    assert_eq!(other.id(devnet().magic), Some(cert));
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, held).unwrap());
    let before = net.party(ALICE).records();
    let push = CourierRequest::Push(other);
    let reply = net.settle(ALICE, PROVIDER, push);
    assert_eq!(reply, SettleReply::Refused { code: "acquire.not_holder".to_owned() });
    assert!(net.party(ALICE).records() == before);
    assert_eq!(net.state(ALICE, cert), ("active", 1, public(ALICE)));
}
