//! The provider's register, gifts between nodes, and what is heard of providers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::Claim;
use capex_core::certificate::equivocation::verify_proof;
use capex_core::certificate::objects::{EquivProof, Gift};
use capex_core::certificate::verify;
use capex_core::engine::courier::{CourierReply, CourierRequest};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::{Done, Effect, Topic, Verdict};
use capex_core::engine::kernel::Record;
use capex_core::engine::messages::SettleReply;
use capex_core::engine::register::{Desk, RegisterReply, RegisterRequest, RestoredV1};
use capex_core::engine::trades::Titles;
use capex_core::ids::{CertId, Key, TradeId};
use capex_core::settlement::objects::{Funder, LockGrant, Terms};
use capex_core::units::Units;
use capex_core::wire::{self, Verified};
use certificate_fixture::party::*;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const STARTS_MS: u64 = 1000 * 4000;

fn lock(
    net: &mut Net,
    terms: &Verified<Terms>,
    funder: u8,
) -> Result<Verified<LockGrant>, &'static str> {
    let accepts = [accept(funder, terms, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, terms, &accepts))
}

/// Terms of a resale by the holder that the register knows.
fn resale(
    net: &mut Net,
    cert: CertId,
    from: u8,
    to: u8,
    change: impl Fn(&mut Terms),
) -> Verified<Terms> {
    let facts = net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
    let certificate = net.party(PROVIDER).books.certificate(&cert).unwrap().clone();
    let issue = certificate.issue().unwrap().verify(devnet().magic).unwrap();
    let mut value = terms(&issue, facts.seq, facts.last_hash, public(from), public(to));
    change(&mut value);
    by(from, value, &devnet())
}

#[test]
fn a_sale_moves_units_from_row_to_certificate_and_the_certificate_to_its_buyer() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    assert_eq!(net.state(PROVIDER, cert), ("active", 1, public(ALICE)));
    assert_eq!(net.state(ALICE, cert), ("active", 1, public(ALICE)));
    let ledger = &net.party(PROVIDER).books.register.ledger;
    assert_eq!(ledger.areas(Claim::Row(TradeId([7; 32]))).count(), 0);
    assert_eq!(ledger.areas(Claim::Certificate(cert)).count(), 1);
    assert_eq!(ledger.free_units(1, WINDOW), 61);
    let certificate = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    assert_eq!(verify(&certificate, &devnet()).unwrap().holder, public(ALICE));
    assert_eq!(is_published(&net.party(PROVIDER).log, Topic::Locks), 2, "lock and sale");
}

#[test]
fn every_answer_of_the_register_repeats() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let terms = net.offer(7, &units(0, 2), ALICE);
    let again = net.party(PROVIDER).with(|ctx, books, _| {
        books.register.issue(ctx, TradeId([7; 32]), &fresh(1, &units(0, 2), WINDOW)).unwrap()
    });
    assert_eq!(CertId(again.id()), terms.cert_id);
    let first = lock(&mut net, &terms, ALICE).unwrap();
    assert_eq!(lock(&mut net, &terms, ALICE).unwrap(), first);
    let certificate = net.activate(&terms);
    assert_eq!(net.activate(&terms), certificate);
    net.pump();
    assert_eq!(is_published(&net.party(PROVIDER).log, Topic::Locks), 2, "lock and sale");
    assert_eq!(lock(&mut net, &terms, ALICE).unwrap_err(), "lock.not_holder");
}

#[test]
fn a_lock_is_refused_for_its_reason() {
    type Change = fn(&mut Terms);
    let table: Vec<(&str, u8, u8, Change)> = vec![
        ("lock.unknown_certificate", ALICE, BOB, |t| t.cert_id = CertId([0; 32])),
        ("lock.not_holder", CAROL, BOB, |_| {}),
        ("lock.stale_seq", ALICE, BOB, |t| t.seq = 0),
        ("lock.prev_hash", ALICE, BOB, |t| t.prev_hash = [0; 32]),
        ("lock.mismatch", ALICE, BOB, |t| t.units = units(0, 1)),
        ("lock.mismatch", ALICE, BOB, |t| t.window.end += 1),
        ("lock.accept_missing", ALICE, BOB, |t| t.funders[0].key = public(CAROL)),
        ("lock.accept_missing", ALICE, BOB, |t| {
            t.funders.push(Funder { key: public(CAROL), refund_xonly: [1; 32], amount_sat: 1 });
        }),
    ];
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    for (index, (code, from, to, change)) in table.into_iter().enumerate() {
        let terms = resale(&mut net, cert, from, to, change);
        assert_eq!(lock(&mut net, &terms, to).unwrap_err(), code, "row {index}");
    }
    let good = resale(&mut net, cert, ALICE, BOB, |_| {});
    let grant = lock(&mut net, &good, BOB).unwrap();
    assert_eq!((grant.seq, grant.attempt, grant.prev_release), (1, 0, [0; 32]));
    let other = resale(&mut net, cert, ALICE, CAROL, |_| {});
    assert_eq!(lock(&mut net, &other, CAROL).unwrap_err(), "lock.live");
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&good), evidence(1)));
    assert_eq!(lock(&mut net, &good, BOB).unwrap_err(), "lock.released");
    let grant = lock(&mut net, &other, CAROL).unwrap();
    assert_eq!((grant.seq, grant.attempt, grant.prev_release), (1, 1, evidence(1)));
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&other), evidence(2)));
    net.party(PROVIDER).now_ms = STARTS_MS;
    let late = resale(&mut net, cert, ALICE, BOB, |t| t.nonce16 = [9; 16]);
    assert_eq!(lock(&mut net, &late, BOB).unwrap_err(), "lock.window_started");
}

#[test]
fn one_key_has_at_most_eight_live_locks() {
    let mut net = Net::new(&[PROVIDER]);
    let terms: Vec<_> =
        (0..9).map(|n| net.offer(n, &units(u32::from(n), u32::from(n) + 1), ALICE)).collect();
    for terms in &terms[..8] {
        lock(&mut net, terms, ALICE).unwrap();
    }
    assert_eq!(lock(&mut net, &terms[8], ALICE).unwrap_err(), "lock.too_many");
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&terms[0]), evidence(1)));
    lock(&mut net, &terms[8], ALICE).unwrap();
}

#[test]
fn what_was_never_sold_gives_its_units_back() {
    let mut net = Net::new(&[PROVIDER]);
    let released = net.offer(1, &units(0, 2), ALICE);
    lock(&mut net, &released, ALICE).unwrap();
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&released), evidence(1)));
    let ledger = &net.party(PROVIDER).books.register.ledger;
    assert_eq!(ledger.free_units(1, WINDOW), 64);
    assert_eq!(lock(&mut net, &released, ALICE).unwrap_err(), "lock.void");

    let forgotten = net.offer(2, &units(0, 2), ALICE);
    assert_eq!(net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW), 62);
    net.pass(4_999);
    assert!(net.party(PROVIDER).books.register.issued(&forgotten.cert_id).is_some());
    let deadline = net.party(PROVIDER).books.next_deadline(&devnet());
    assert_eq!(deadline, Some(START_MS + 5_000));
    net.pass(1);
    assert!(net.party(PROVIDER).books.register.issued(&forgotten.cert_id).is_none());
    assert_eq!(net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW), 64);

    let ended = net.offer(3, &units(0, 2), ALICE);
    net.party(PROVIDER).with(|ctx, books, _| books.register.void_trade(ctx, TradeId([3; 32])));
    assert!(net.party(PROVIDER).books.register.issued(&ended.cert_id).is_none());
    net.restart(PROVIDER);
    assert_eq!(net.party(PROVIDER).books.register.ledger.free_units(1, WINDOW), 64);
}

#[test]
fn a_sale_activates_only_with_its_lock_and_preimage() {
    let mut net = Net::new(&[PROVIDER]);
    let terms = net.offer(1, &units(0, 2), ALICE);
    let activate = |net: &mut Net, x: u8| {
        let mut transfer = transfer(&terms);
        transfer.x[0] ^= x;
        net.party(PROVIDER)
            .with(|ctx, books, _| books.register.activate_sale(ctx, &terms, &transfer))
    };
    assert_eq!(activate(&mut net, 0).unwrap_err(), "transfer.no_lock");
    lock(&mut net, &terms, ALICE).unwrap();
    assert_eq!(activate(&mut net, 1).unwrap_err(), "transfer.preimage");
    // Nor by the lock of other terms.
    let other = by(PROVIDER, Terms { nonce16: [9; 16], ..(*terms).clone() }, &devnet());
    let provider = net.party(PROVIDER);
    let moved =
        provider.with(|ctx, books, _| books.register.activate_sale(ctx, &other, &transfer(&other)));
    assert_eq!(moved.err(), Some("transfer.no_lock"));
    activate(&mut net, 0).unwrap();
}

#[test]
fn issue_refuses_units_that_are_not_the_trades() {
    let mut net = Net::new(&[PROVIDER]);
    net.offer(1, &units(0, 2), ALICE);
    net.party(PROVIDER).with(|ctx, books, _| {
        let claim = Claim::Row(TradeId([2; 32]));
        books.register.ledger.claim(claim, 1, &units(2, 3), WINDOW).unwrap();
        let mut issue = |trade, class, units| {
            books
                .register
                .issue(ctx, TradeId([trade; 32]), &fresh(class, &units, WINDOW))
                .map(|_| ())
                .unwrap_err()
        };
        assert_eq!(issue(2, 1, units(3, 4)), "issue.not_claimed");
        assert_eq!(issue(3, 1, units(1, 4)), "ledger.claimed");
        assert_eq!(issue(3, 1, units(64, 65)), "ledger.beyond_capacity");
        assert_eq!(issue(3, 99, units(4, 5)), "issue.unknown_class");
    });
}

#[test]
fn gifts_go_through_three_hands_and_every_hand_knows() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB, CAROL]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.give(ALICE, 1, cert, BOB);
    net.give(BOB, 2, cert, CAROL);
    net.give(CAROL, 3, cert, ALICE);
    assert_eq!(net.party(ALICE).done(), [(1, Ok(Done::Gifted { cert, seq: 2 }))]);
    assert_eq!(net.party(CAROL).done(), [(3, Ok(Done::Gifted { cert, seq: 4 }))]);
    assert_eq!(net.state(PROVIDER, cert), ("active", 4, public(ALICE)));
    assert_eq!(net.state(ALICE, cert), ("active", 4, public(ALICE)));
    assert_eq!(net.state(BOB, cert), ("given", 3, public(CAROL)));
    assert_eq!(net.state(CAROL, cert), ("given", 4, public(ALICE)));
    let certificate = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    assert_eq!(hops(&certificate), (1, 3));
    verify(&certificate, &devnet()).unwrap();
    for party in [PROVIDER, ALICE, BOB, CAROL] {
        assert!(!net.party(ALICE).books.witness.is_equivocator(public(party)));
    }
}

#[test]
fn the_giver_is_refused_for_its_reason() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.give(ALICE, 1, CertId([0; 32]), BOB);
    net.give(ALICE, 2, cert, ALICE);
    let open = resale(&mut net, cert, ALICE, BOB, |_| {});
    lock(&mut net, &open, BOB).unwrap();
    net.give(ALICE, 3, cert, BOB);
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&open), evidence(1)));
    net.give(ALICE, 4, cert, BOB);
    net.give(ALICE, 5, cert, BOB);
    let late = net.sell(8, &units(3, 4), ALICE);
    net.party(ALICE).now_ms = STARTS_MS;
    net.give(ALICE, 6, late, BOB);
    let refused = |code: &str| Err(code.to_owned());
    assert_eq!(
        net.party(ALICE).done(),
        [
            (1, refused("gift.unknown_certificate")),
            (2, refused("gift.to_self")),
            (3, refused("gift.locked")),
            (4, Ok(Done::Gifted { cert, seq: 2 })),
            (5, refused("gift.not_holder")),
            (6, refused("gift.window_started")),
        ]
    );
    // A gift after a released lock takes the next number, so that the pair proves nothing.
    assert!(!net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
}

#[test]
fn the_provider_checks_a_gift_by_itself() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let unsold = net.offer(8, &units(3, 4), ALICE);
    let facts = net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
    let gift = |cert_id, seq, prev_hash, to: u8| Gift {
        v: 1,
        cert_id,
        seq,
        prev_hash,
        to: public(to),
        nonce16: [0; 16],
    };
    let table = [
        (
            "gift.unknown_certificate",
            by(ALICE, gift(CertId([0; 32]), 1, facts.last_hash, BOB), &devnet()),
        ),
        (
            "gift.not_holder",
            by(PROVIDER, gift(unsold.cert_id, 0, unsold.cert_id.0, BOB), &devnet()),
        ),
        ("gift.not_holder", by(BOB, gift(cert, 1, facts.last_hash, CAROL), &devnet())),
        ("gift.stale_seq", by(ALICE, gift(cert, 0, facts.last_hash, BOB), &devnet())),
        ("gift.prev_hash", by(ALICE, gift(cert, 1, [0; 32], BOB), &devnet())),
        ("gift.to_self", by(ALICE, gift(cert, 1, facts.last_hash, ALICE), &devnet())),
    ];
    for (code, gift) in table {
        let reply = net.settle(PROVIDER, ALICE, RegisterRequest::Gift(gift.envelope().clone()));
        assert_eq!(reply, SettleReply::Refused { code: code.to_owned() });
    }
    let good = by(ALICE, gift(cert, 1, facts.last_hash, BOB), &devnet());
    let request = RegisterRequest::Gift(good.envelope().clone());
    let reply = net.settle(PROVIDER, ALICE, request.clone());
    assert!(matches!(reply, SettleReply::Register(RegisterReply::Activation(_))));
    assert_eq!(net.settle(PROVIDER, ALICE, request.clone()), reply);
    let mut forged = good.envelope().clone();
    forged.signature[0][0] ^= 1;
    let reply = net.settle(PROVIDER, ALICE, RegisterRequest::Gift(forged));
    assert_eq!(reply, SettleReply::Refused { code: "wire.bad_signature".to_owned() });
}

#[test]
fn a_gift_survives_an_absent_provider_an_absent_receiver_and_a_restart() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.party(PROVIDER).up = false;
    net.party(BOB).up = false;
    net.give(ALICE, 1, cert, BOB);
    net.pass(1_000);
    assert_eq!(net.party(ALICE).done(), []);
    net.restart(ALICE);
    net.party(PROVIDER).up = true;
    net.pass(1_000);
    assert_eq!(net.state(ALICE, cert), ("given", 2, public(BOB)));
    assert_eq!(net.state(PROVIDER, cert), ("active", 2, public(BOB)));
    assert!(net.party(BOB).books.holdings.held(&cert).is_none());
    net.restart(ALICE);
    net.restart(PROVIDER);
    net.party(BOB).up = true;
    net.pass(1_000);
    assert_eq!(net.state(BOB, cert), ("active", 2, public(BOB)));
    assert_eq!(net.party(ALICE).books.next_deadline(&devnet()), None);
    assert_eq!(net.party(PROVIDER).books.next_deadline(&devnet()), None);
}

#[test]
fn a_receiver_away_until_the_last_slot_is_brought_its_gift_as_it_comes_up() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.party(BOB).up = false;
    net.give(ALICE, 1, cert, BOB);
    for _ in 0..74 {
        net.pass(1_000);
    }
    assert!(net.party(PROVIDER).books.next_deadline(&devnet()).is_some(), "still to be brought");
    net.party(BOB).up = true;
    assert!(net.party(BOB).books.holdings.held(&cert).is_none());
    net.party(PROVIDER).with(|ctx, books, _| books.register.on_peer_up(ctx, public(BOB)));
    net.pump();
    assert_eq!(net.state(BOB, cert), ("active", 2, public(BOB)));
    assert_eq!(net.party(PROVIDER).books.next_deadline(&devnet()), None);
}

#[test]
fn what_nobody_takes_is_brought_no_longer_than_its_window() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.party(BOB).up = false;
    net.give(ALICE, 1, cert, BOB);
    net.until(1004 * 4000 + 130_000);
    net.pass(1);
    for party in [PROVIDER, ALICE] {
        assert_eq!(net.party(party).books.next_deadline(&devnet()), None, "{party}");
    }
    net.restart(PROVIDER);
    assert_eq!(net.party(PROVIDER).books.next_deadline(&devnet()), None);
}

#[test]
fn a_buyer_that_never_asks_is_brought_what_it_paid_for() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let terms = net.offer(7, &units(0, 2), ALICE);
    lock(&mut net, &terms, ALICE).unwrap();
    net.activate(&terms);
    net.pump();
    assert!(net.party(ALICE).books.holdings.held(&terms.cert_id).is_none(), "time to ask");
    net.pass(5_000);
    assert_eq!(net.state(ALICE, terms.cert_id), ("active", 1, public(ALICE)));
    // However late it asks, the register has the answer, for a party alone.
    let activation = |net: &mut Net, peer: u8| {
        net.party(PROVIDER).with(|_, books, _| {
            let desk = Desk { register: &mut books.register, witness: &books.witness };
            desk.activation(terms_hash(&terms), public(peer))
        })
    };
    for _ in 0..2 {
        assert!(activation(&mut net, ALICE).is_some());
        assert!(activation(&mut net, BOB).is_none());
        net.restart(PROVIDER);
    }
}

#[test]
fn a_holder_that_lost_everything_learns_from_its_provider_what_it_holds() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let given = net.sell(7, &units(0, 3), ALICE);
    let bought = net.sell(8, &units(3, 5), BOB);
    net.give(ALICE, 1, given, BOB);
    net.party(BOB).disk.clear();
    net.restart(BOB);
    net.party(BOB)
        .with(|ctx, books, _| books.holdings.on_peer_up(ctx, public(PROVIDER), &|_| true));
    net.pump();
    assert_eq!(net.state(BOB, given), ("active", 2, public(BOB)));
    assert_eq!(net.state(BOB, bought), ("active", 1, public(BOB)));
    // Nobody is told what another holds.
    let held = RegisterRequest::Held { after: CertId([0; 32]) };
    let SettleReply::Register(RegisterReply::Held(told)) = net.settle(PROVIDER, CAROL, held) else {
        panic!("no list");
    };
    assert_eq!(told, []);
}

#[test]
fn a_certificate_is_fetched_for_an_operator_or_refused_for_its_reason() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.party(ALICE).disk.clear();
    net.restart(ALICE);
    let fetch = |net: &mut Net, who: u8, command: u64| {
        let fetch = HoldingsCommand::Fetch { cert, provider: public(PROVIDER) };
        net.party(who).command(command, fetch, false);
        net.pump();
        net.party(who).done().last().unwrap().clone()
    };
    assert_eq!(fetch(&mut net, ALICE, 1), (1, Ok(Done::Held { cert })));
    assert_eq!(net.state(ALICE, cert), ("active", 1, public(ALICE)));
    assert_eq!(fetch(&mut net, BOB, 2), (2, Err("certificate.not_a_party".to_owned())));
    net.party(PROVIDER).up = false;
    assert_eq!(fetch(&mut net, ALICE, 3), (3, Err("certificate.no_answer".to_owned())));
}

#[test]
fn a_giver_learns_when_the_provider_stays_away() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.party(PROVIDER).up = false;
    net.give(ALICE, 1, cert, BOB);
    for _ in 0..40 {
        net.pass(1_000);
    }
    assert_eq!(net.party(ALICE).done(), [(1, Err("gift.no_answer".to_owned()))]);
    net.party(PROVIDER).up = true;
    net.give(ALICE, 2, cert, CAROL);
    assert_eq!(net.party(ALICE).done()[1], (2, Err("gift.pending".to_owned())));
    net.give(ALICE, 3, cert, BOB);
    assert_eq!(net.party(ALICE).done()[2], (3, Ok(Done::Gifted { cert, seq: 2 })));
}

#[test]
fn a_certificate_is_told_to_its_parties_alone() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB, CAROL]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    net.give(ALICE, 1, cert, BOB);
    let refused = SettleReply::Refused { code: "certificate.not_a_party".to_owned() };
    for (peer, expected) in [(ALICE, true), (BOB, true), (PROVIDER, true), (CAROL, false)] {
        for of in [PROVIDER, ALICE] {
            let reply = net.settle(of, peer, RegisterRequest::Get(cert));
            assert_eq!(
                matches!(reply, SettleReply::Register(RegisterReply::Certificate(_))),
                expected,
                "{of} to {peer}"
            );
            assert!(expected || reply == refused);
        }
    }
    assert_eq!(net.settle(PROVIDER, CAROL, RegisterRequest::Get(CertId([0; 32]))), refused);
    // Who lost its copy fetches it.
    net.party(BOB).disk.clear();
    net.restart(BOB);
    net.party(BOB).with(|ctx, books, _| books.holdings.fetch(ctx, public(PROVIDER), cert, None));
    net.pump();
    assert_eq!(net.state(BOB, cert), ("active", 2, public(BOB)));
}

#[test]
fn a_push_is_stored_only_by_its_holder_and_never_shortens() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let short = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    let reply = net.settle(BOB, ALICE, CourierRequest::Push(short.clone()));
    assert_eq!(reply, SettleReply::Refused { code: "acquire.not_holder".to_owned() });
    net.give(ALICE, 1, cert, BOB);
    net.give(BOB, 2, cert, ALICE);
    assert_eq!(
        net.settle(ALICE, BOB, CourierRequest::Push(short.clone())),
        SettleReply::Courier(CourierReply::Stored)
    );
    assert_eq!(net.state(ALICE, cert).1, 3);
    let mut forged = short;
    issue_of(&mut forged).signature[0][0] ^= 1;
    let reply = net.settle(ALICE, BOB, CourierRequest::Push(forged));
    assert_eq!(reply, SettleReply::Refused { code: "certificate.bad_signature".to_owned() });
    net.parties.iter_mut().for_each(|party| party.now_ms = 1004 * 4000);
    assert_eq!(net.state(ALICE, cert).0, "expired");
}

#[test]
fn two_locks_for_one_number_convict_the_provider_everywhere() {
    let params = devnet();
    let mut net = Net::new(&[ALICE, BOB]);
    let draft = Draft::new(PROVIDER, units(0, 2), WINDOW, &params);
    let to = |to: u8| {
        let terms = terms(&draft.issue, 0, draft.last, public(PROVIDER), public(to));
        by(PROVIDER, terms, &params)
    };
    let (ours, theirs) = (to(ALICE), to(BOB));
    let (cert, mine) = (ours.cert_id, terms_hash(&ours));
    let conflicting = |net: &mut Net, attempt| {
        let witness = &net.party(ALICE).books.witness;
        witness.conflicting_lock(public(PROVIDER), cert, 0, attempt, mine)
    };
    let hear = |net: &mut Net, bytes: &[u8]| {
        net.party(ALICE).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, bytes))
    };
    let first = wire::encode(grant(PROVIDER, &ours, 1, &params).envelope());
    let earlier = wire::encode(grant(PROVIDER, &theirs, 0, &params).envelope());
    let second = wire::encode(grant(PROVIDER, &theirs, 1, &params).envelope());
    assert_eq!(hear(&mut net, &first), (Verdict::Accept, None));
    assert_eq!(hear(&mut net, &first), (Verdict::Ignore, Some("lock.known")));
    assert_eq!(hear(&mut net, &earlier), (Verdict::Accept, None));
    assert!(!conflicting(&mut net, 1));
    assert!(!net.party(ALICE).books.witness.is_equivocator(public(PROVIDER)));
    assert_eq!(hear(&mut net, &second), (Verdict::Accept, None));
    assert!(conflicting(&mut net, 1));
    net.pump();
    for party in [ALICE, BOB] {
        assert!(net.party(party).books.witness.is_equivocator(public(PROVIDER)), "{party}");
    }
    let published = net.party(ALICE).log.iter().find_map(|effect| match effect {
        Effect::Publish { topic: Topic::Proofs, bytes } => Some(bytes.clone()),
        _ => None,
    });
    let bytes = published.unwrap();
    let proof: EquivProof = wire::decode_exact(&bytes).unwrap();
    assert_eq!(verify_proof(&proof, params.magic), Ok(public(PROVIDER)));
    let again = net.party(BOB).with(|ctx, books, _| books.on_gossip(ctx, Topic::Proofs, &bytes));
    assert_eq!(again, (Verdict::Ignore, Some("proof.known")));
    net.restart(BOB);
    assert!(net.party(BOB).books.witness.is_equivocator(public(PROVIDER)));
}

#[test]
fn a_unit_sold_twice_convicts_its_provider_wherever_both_sales_are_heard() {
    let params = devnet();
    let draft = |units: Units| Draft::new(PROVIDER, units, WINDOW, &params);
    let apart = [draft(units(0, 2)), draft(units(2, 4))];
    let twice = [draft(units(0, 2)), draft(units(1, 3))];
    for (what, [one, other], convicted) in [("apart", apart, false), ("twice", twice, true)] {
        // The provider publishes neither: those who paid do.
        let mut net = Net::new(&[ALICE, BOB, CAROL]);
        for (buyer, sold) in [(ALICE, one), (BOB, other)] {
            let certificate = sold.sell(buyer).certificate();
            net.party(buyer).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
            net.pump();
            assert_eq!(is_published(&net.party(buyer).log, Topic::Locks), 1, "{what}");
        }
        for party in [ALICE, BOB, CAROL] {
            let witness = &net.party(party).books.witness;
            assert_eq!(witness.is_equivocator(public(PROVIDER)), convicted, "{what}, {party}");
        }
    }
}

#[test]
fn a_sale_for_another_than_the_payer_is_published_and_names_nobody() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let offer = net.offer(7, &units(0, 2), ALICE);
    let mut value = offer.into_value();
    value.funders[0].key = public(BOB);
    let terms = by(PROVIDER, value, &devnet());
    lock(&mut net, &terms, BOB).unwrap();
    let certificate = net.activate(&terms);
    net.pump();
    net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate).unwrap());
    net.pump();
    let log = &net.party(PROVIDER).log;
    assert_eq!(is_published(log, Topic::Locks), 2, "the lock, and the activation");
    let names = |bytes: &[u8]| bytes.windows(32).any(|part| part == public(ALICE).0);
    for effect in log {
        let Effect::Publish { bytes, .. } = effect else { continue };
        assert!(!names(bytes), "whom it is for");
    }
    assert_eq!(is_published(&net.party(ALICE).log, Topic::Locks), 0, "it was heard");
}

/// Asks the peers what the provider has said, as at the start of a life.
fn ask_witnesses(net: &mut Net, peers: &[u8]) -> Option<&'static str> {
    let peers: Vec<Key> = peers.iter().map(|peer| public(*peer)).collect();
    net.party(PROVIDER).with(|ctx, books, _| {
        books.register.ask_witnesses(ctx, peers.into_iter());
    });
    net.pump();
    net.party(PROVIDER).books.register.halted()
}

fn issue_more(net: &mut Net) -> Result<(), &'static str> {
    net.party(PROVIDER).with(|ctx, books, _| {
        let wanted = fresh(1, &units(60, 61), WINDOW);
        let issued = books.register.issue(ctx, TradeId([99; 32]), &wanted);
        issued.map(|_| ())
    })
}

#[test]
fn a_register_restored_from_an_old_copy_is_halted_by_what_others_heard_of_it() {
    let behind = Some("register.behind");
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let first = net.sell(6, &units(10, 11), ALICE);
    let old = net.party(PROVIDER).disk.clone();
    let cert = net.sell(7, &units(0, 3), ALICE);
    let grant = net.party(PROVIDER).log.iter().rev().find_map(|effect| match effect {
        Effect::Publish { topic: Topic::Locks, bytes } => Some(bytes.clone()),
        _ => None,
    });
    // Its own journal knows all that was heard of it, also after a gift.
    net.give(ALICE, 1, first, BOB);
    net.restart(PROVIDER);
    assert_eq!(ask_witnesses(&mut net, &[ALICE, BOB]), None);
    let terms = resale(&mut net, cert, ALICE, BOB, |_| {});
    // An old copy does not, and learns of it by asking or by gossip.
    for asks in [true, false] {
        net.party(PROVIDER).disk = old.clone();
        net.restart(PROVIDER);
        assert_eq!(net.party(PROVIDER).books.register.halted(), None);
        if asks {
            assert_eq!(ask_witnesses(&mut net, &[BOB]), behind);
        } else {
            let bytes = grant.clone().unwrap();
            net.party(PROVIDER).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, &bytes));
        }
        net.pump();
        // For good: in this life and the next.
        for _ in 0..2 {
            assert_eq!(net.party(PROVIDER).books.register.halted(), behind);
            assert_eq!(issue_more(&mut net), Err("register.behind"));
            let offers = &net.party(PROVIDER).books.register;
            assert!(offers.free_within(1, &units(40, 50), WINDOW).is_empty(), "nothing is offered");
            net.restart(PROVIDER);
        }
        // What it knows of, it moves no more.
        let facts = net.party(PROVIDER).books.register.issued(&first).unwrap().clone();
        assert_eq!((facts.seq, facts.holder), (1, public(ALICE)), "as it was");
        let gift = Gift {
            v: 1,
            cert_id: first,
            seq: 1,
            prev_hash: facts.last_hash,
            to: public(CAROL),
            nonce16: [1; 16],
        };
        let gift = by(ALICE, gift, &devnet()).envelope().clone();
        let refused = net.settle(PROVIDER, ALICE, RegisterRequest::Gift(gift));
        assert_eq!(refused, SettleReply::Refused { code: "register.behind".to_owned() });
        assert_eq!(lock(&mut net, &terms, BOB).unwrap_err(), "lock.unknown_certificate");
    }
}

#[test]
fn a_restored_register_waits_for_three_witnesses_or_six_blocks() {
    let restored_at = |net: &mut Net, at_ms| {
        let marker = RestoredV1 { at_ms };
        let record = Record::store(RestoredV1::KEY, &marker).unwrap();
        let key = (record.table, record.key);
        net.party(PROVIDER).disk.insert(key, record.value.unwrap());
        net.restart(PROVIDER);
    };
    let restored = |net: &mut Net| restored_at(net, START_MS);
    let mut net = Net::new(&[PROVIDER, ALICE, BOB, CAROL]);
    net.sell(7, &units(0, 3), ALICE);
    restored(&mut net);
    assert_eq!(issue_more(&mut net), Err("register.restored"));
    assert_eq!(ask_witnesses(&mut net, &[ALICE, BOB]), Some("register.restored"));
    assert_eq!(ask_witnesses(&mut net, &[CAROL]), None);
    assert_eq!(issue_more(&mut net), Ok(()));
    net.restart(PROVIDER);
    assert_eq!(net.party(PROVIDER).books.register.halted(), None, "once");
    restored(&mut net);
    net.pass(2_999);
    assert_eq!(net.party(PROVIDER).books.register.halted(), Some("register.restored"));
    net.pass(1);
    assert_eq!(net.party(PROVIDER).books.register.halted(), None);
    // By a clock that was a year ahead: as long as any other, from now on.
    restored_at(&mut net, START_MS + 365 * 86_400_000);
    net.pass(1);
    net.restart(PROVIDER);
    net.pass(2_999);
    assert_eq!(net.party(PROVIDER).books.register.halted(), Some("register.restored"));
    net.pass(1);
    assert_eq!(net.party(PROVIDER).books.register.halted(), None);
}

#[test]
fn gossip_that_is_wrong_by_its_bytes_is_rejected() {
    let params = devnet();
    let mut net = Net::new(&[ALICE]);
    let good = redeem_grant(PROVIDER, CertId([1; 32]), 1, 0, &params);
    let mut forged = good.envelope().clone();
    forged.signature[0][0] ^= 1;
    let mut other = good.envelope().clone();
    other.key = public(BOB).0;
    let mut newer = good.envelope().clone();
    newer.payload[0] = 2;
    let table = [
        (wire::encode(good.envelope()), Verdict::Accept, None),
        (wire::encode(&forged), Verdict::Reject, Some("wire.bad_signature")),
        (wire::encode(&other), Verdict::Reject, Some("wire.wrong_signer")),
        (wire::encode(&newer), Verdict::Ignore, Some("wire.unknown_version")),
        (vec![0; 40], Verdict::Reject, Some("wire.malformed")),
        (vec![0; 5000], Verdict::Reject, Some("wire.oversize")),
    ];
    for (bytes, verdict, code) in table {
        let judged =
            net.party(ALICE).with(|ctx, books, _| books.on_gossip(ctx, Topic::Locks, &bytes));
        assert_eq!(judged, (verdict, code));
    }
    let judged = net.party(ALICE).with(|ctx, books, _| books.on_gossip(ctx, Topic::Proofs, &[1]));
    assert_eq!(judged, (Verdict::Reject, Some("wire.malformed")));
}

#[test]
fn overlapping_certificates_of_one_provider_convict_it() {
    let params = devnet();
    let mut net = Net::new(&[ALICE]);
    let one = Draft::new(PROVIDER, units(0, 2), WINDOW, &params).sell(ALICE);
    let mut two = Draft::new(PROVIDER, units(1, 3), WINDOW, &params);
    two.issue = issue(PROVIDER, 2, units(1, 3), WINDOW, &params);
    two.last = two.issue.id();
    let two = two.sell(BOB).give(ALICE);
    for (draft, convicted) in [(one, false), (two, true)] {
        let certificate = draft.certificate();
        net.party(ALICE).with(|ctx, books, _| books.acquire(ctx, certificate)).unwrap();
        assert_eq!(net.party(ALICE).books.witness.is_equivocator(public(PROVIDER)), convicted);
    }
}

#[test]
fn a_restart_keeps_capacity_locks_and_attempts() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let first = resale(&mut net, cert, ALICE, BOB, |_| {});
    let second = resale(&mut net, cert, ALICE, BOB, |t| t.nonce16 = [8; 16]);
    lock(&mut net, &first, BOB).unwrap();
    net.restart(PROVIDER);
    assert_eq!(lock(&mut net, &second, BOB).unwrap_err(), "lock.live");
    net.party(PROVIDER)
        .with(|ctx, books, _| books.register.release(ctx, terms_hash(&first), evidence(1)));
    net.restart(PROVIDER);
    assert_eq!(lock(&mut net, &first, BOB).unwrap_err(), "lock.released");
    assert_eq!(lock(&mut net, &second, BOB).unwrap().attempt, 1);
    net.restart(PROVIDER);
    net.activate(&second);
    assert_eq!(net.state(PROVIDER, cert), ("active", 2, public(BOB)));
    let ledger = &net.party(PROVIDER).books.register.ledger;
    assert_eq!((ledger.capacity(1), ledger.free_units(1, WINDOW)), (64, 61));
    let shrink =
        net.party(PROVIDER).with(|ctx, books, _| books.register.set_capacity(ctx, &[(1, 2)]));
    assert_eq!(shrink, Err("capacity.below_claims"));
    let unknown =
        net.party(PROVIDER).with(|ctx, books, _| books.register.set_capacity(ctx, &[(99, 2)]));
    assert_eq!(unknown, Err("capacity.unknown_class"));
}

#[test]
fn records_are_forgotten_a_horizon_after_their_window() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    // The provider notes how high the chain is when the window ends.
    net.party(PROVIDER).chain.median_time_past_s = 1004 * 4;
    net.until((1004 + 336) * 4000);
    assert!(net.party(PROVIDER).books.register.issued(&cert).is_some());
    net.pass(4000);
    // By the own clock alone it has not passed: that may be ahead.
    for party in [PROVIDER, ALICE] {
        assert!(net.party(party).books.certificate(&cert).is_some());
        net.party(party).chain.median_time_past_s = u32::MAX;
    }
    net.pass(4000);
    for party in [PROVIDER, ALICE] {
        assert!(net.party(party).books.certificate(&cert).is_none());
        assert!(net.party(party).disk.keys().all(|(table, _)| [1, 11, 17, 25].contains(table)));
    }
}
