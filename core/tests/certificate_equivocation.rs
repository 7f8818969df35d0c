//! Proofs that a provider spoke twice, and the honest statements that are none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::equivocation::{Statement, prove, verify_proof};
use capex_core::certificate::objects::{Activation, Consumed, EquivProof, StatementKind};
use capex_core::ids::{CertId, LeaseId};
use capex_core::units::Window;
use capex_core::wire::{self, Envelope, Object};
use certificate_fixture::pieces::{Piece, area};
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const WINDOW: Window = Window { start: 1000, end: 1004 };

fn statement<T: Object>(
    kind: StatementKind,
    envelope: &capex_core::wire::Verified<T>,
) -> Statement {
    Statement::verify(kind, envelope.envelope(), devnet().magic).unwrap()
}

fn lock(to: u8, attempt: u32) -> Statement {
    let params = devnet();
    let draft = Draft::new(PROVIDER, units(0, 2), WINDOW, &params);
    let terms = terms(&draft.issue, 0, draft.last, public(PROVIDER), public(to));
    let terms = by(PROVIDER, terms, &params);
    statement(StatementKind::LockGrant, &grant(PROVIDER, &terms, attempt, &params))
}

fn redeem(cert: CertId, seq: u32, attempt: u32, cause: u8) -> Statement {
    let params = devnet();
    let mut grant = redeem_grant(PROVIDER, cert, seq, attempt, &params).into_value();
    grant.redeem_hash = LeaseId([cause; 32]);
    statement(StatementKind::RedeemGrant, &by(PROVIDER, grant, &params))
}

fn activation(draft: &Draft, attempt: u32, holder: u8, cause: u8) -> Statement {
    let value = draft.activation(attempt, holder, [cause; 32]);
    statement(StatementKind::Activation, &by(PROVIDER, value, &devnet()))
}

/// The same Activation, signed again at another height.
fn told_later(draft: &Draft, holder: u8, cause: u8) -> Statement {
    let mut value = draft.activation(0, holder, [cause; 32]);
    value.p_height += 1;
    statement(StatementKind::Activation, &by(PROVIDER, value, &devnet()))
}

fn draft(nonce: u8, first: u32, end: u32, window: Window) -> Draft {
    let params = devnet();
    let mut draft = Draft::new(PROVIDER, units(first, end), window, &params);
    draft.issue = issue(PROVIDER, nonce, units(first, end), window, &params);
    draft.last = draft.issue.id();
    draft
}

#[test]
fn contradictions_are_found_and_honest_pairs_are_not() {
    let one = draft(1, 0, 2, WINDOW);
    let cert = CertId(one.issue.id());
    let two = draft(2, 1, 3, Window { start: 1003, end: 1005 });
    let beside = draft(3, 2, 4, WINDOW);
    let after = draft(4, 0, 2, Window { start: 1004, end: 1008 });
    let table = [
        ("two locks of one attempt", lock(ALICE, 0), lock(BOB, 0), true),
        ("a lock after a released one", lock(ALICE, 0), lock(BOB, 1), false),
        ("the same lock twice", lock(ALICE, 0), lock(ALICE, 0), false),
        ("two redemptions", redeem(cert, 1, 0, 1), redeem(cert, 1, 0, 2), true),
        ("redeemed at two numbers", redeem(cert, 1, 0, 1), redeem(cert, 2, 0, 2), false),
        ("redeemed, then locked again", redeem(cert, 0, 0, 1), lock(ALICE, 1), true),
        ("locked, released, then redeemed", lock(ALICE, 0), redeem(cert, 0, 1, 1), false),
        ("given twice", activation(&one, 0, ALICE, 1), activation(&one, 0, BOB, 2), true),
        (
            "given to two with one cause",
            activation(&one, 0, ALICE, 1),
            activation(&one, 0, BOB, 1),
            true,
        ),
        (
            "given to one for two causes",
            activation(&one, 0, ALICE, 1),
            activation(&one, 0, ALICE, 2),
            true,
        ),
        (
            "given once, told twice",
            activation(&one, 0, ALICE, 1),
            told_later(&one, ALICE, 1),
            false,
        ),
        (
            "given, then redeemed by the giver",
            activation(&one, 0, ALICE, 1),
            redeem(cert, 0, 1, 2),
            true,
        ),
        (
            "given, then redeemed by the new holder",
            activation(&one, 0, ALICE, 1),
            redeem(cert, 1, 0, 1),
            false,
        ),
        (
            "overlap in unit and slot",
            activation(&one, 0, ALICE, 1),
            activation(&two, 0, BOB, 2),
            true,
        ),
        ("beside each other", activation(&one, 0, ALICE, 1), activation(&beside, 0, BOB, 2), false),
        ("after each other", activation(&one, 0, ALICE, 1), activation(&after, 0, BOB, 2), false),
    ];
    for (name, a, b, expected) in table {
        assert_eq!(a.contradicts(&b), expected, "{name}");
        assert_eq!(b.contradicts(&a), expected, "{name}, turned round");
        let proof = prove(&a, &b);
        assert_eq!(proof, prove(&b, &a), "{name}: one proof of a pair");
        let convicted = proof.map(|proof| verify_proof(&proof, devnet().magic).unwrap());
        assert_eq!(convicted, expected.then(|| public(PROVIDER)), "{name}");
    }
}

fn said(piece: &Piece) -> Statement {
    let bytes = piece.certificate.hops.last().unwrap().activations().last().unwrap();
    Statement::verify(StatementKind::Activation, bytes, devnet().magic).unwrap()
}

fn signed(activation: Activation) -> Statement {
    statement(StatementKind::Activation, &by(PROVIDER, activation, &devnet()))
}

const HALVES: [Window; 2] = [Window { start: 1000, end: 1002 }, Window { start: 1002, end: 1004 }];

fn halves() -> [capex_core::certificate::objects::Area; 2] {
    HALVES.map(|window| area(0, 2, window))
}

#[test]
fn splits_and_merges_convict_only_where_they_contradict() {
    let whole = Piece::sold(1, &area(0, 2, WINDOW), ALICE);
    let parts = whole.split(&halves());
    let [morning, evening] = [&parts[0], &parts[1]];
    let units: Vec<Piece> = whole.split(&[area(0, 1, WINDOW), area(1, 2, WINDOW)]);
    let merged = Piece::merge(&[morning, evening], &area(0, 2, WINDOW));
    let again = merged.split(&halves());
    let split = whole.split_object(&halves(), 4);
    // The second part of the same split, said to be as long as the first.
    let wide = signed(Activation { window: WINDOW, ..whole.part_activation(&split, 1) });
    let other_holder =
        signed(Activation { holder_hash: [7; 32], ..whole.part_activation(&split, 0) });
    let stranger = Piece::sold(2, &area(1, 3, WINDOW), BOB);
    let (given, sold) = (whole.clone().give(BOB), whole.clone().sell(BOB));
    let redeemed = redeem(whole.cert_id, 1, 0, 7);
    let table = [
        ("parts of one split", said(morning), said(evening), false),
        ("a whole and its part", said(&whole), said(morning), false),
        ("a part and what it became", said(morning), said(&morning.clone().give(BOB)), false),
        ("a part and a merge of it", said(evening), said(&merged), false),
        ("a whole and a merge of its parts", said(&whole), said(&merged), false),
        ("a part, merged and cut again", said(morning), said(&again[0]), false),
        ("two splits of one seq", said(morning), said(&units[0]), true),
        ("two splits of one seq, apart", said(morning), said(&units[1]), true),
        ("split and given", said(morning), said(&given), true),
        ("split and sold", said(evening), said(&sold), true),
        ("split and redeemed", said(morning), redeemed.clone(), true),
        ("a part redeemed", said(morning), redeem(morning.cert_id, 1, 0, 7), false),
        ("a part merged and redeemed", said(&merged), redeem(evening.cert_id, 1, 0, 7), true),
        ("a part merged and given", said(&merged), said(&morning.clone().give(BOB)), true),
        ("parts of one split that overlap", said(morning), wide, true),
        ("one part for two", said(morning), other_holder, true),
        ("an overlap of two issues", said(morning), said(&stranger), true),
        ("a merge and another issue", said(&merged), said(&stranger), true),
    ];
    for (name, a, b, expected) in table {
        assert_eq!(a.contradicts(&b), expected, "{name}");
        assert_eq!(b.contradicts(&a), expected, "{name}, turned round");
        let convicted = prove(&a, &b).map(|proof| verify_proof(&proof, devnet().magic).unwrap());
        assert_eq!(convicted, expected.then(|| public(PROVIDER)), "{name}");
    }
}

#[test]
fn lists_without_their_one_form_are_no_statement() {
    let whole = Piece::sold(1, &area(0, 2, WINDOW), ALICE);
    let other = Piece::sold(2, &area(2, 4, WINDOW), ALICE);
    let parts = whole.split(&halves());
    let good = Piece::merge_activation(
        &[&whole, &other],
        &Piece::merge_object(&[&whole, &other]),
        &area(0, 4, WINDOW),
    );
    type Change = fn(&mut Activation);
    let table: Vec<(&str, Change)> = vec![
        ("it consumes nothing", |a| a.consumes.clear()),
        ("not ascending", |a| a.consumes.reverse()),
        ("one twice", |a| a.consumes[1] = a.consumes[0]),
        ("nine", |a| {
            let cert = |n| Consumed { cert_id: CertId([n; 32]), ..a.consumes[0] };
            a.consumes = (1..=9).map(cert).collect();
        }),
        ("its own id among others", |a| a.cert_id = a.consumes[0].cert_id),
        ("a merge not at its first seq", |a| a.seq = 2),
        ("no root", |a| a.roots.clear()),
        ("roots not ascending", |a| a.roots.reverse()),
        ("17 roots", |a| a.roots = (0..17).map(|n| CertId([n; 32])).collect()),
    ];
    assert!(good.is_well_formed() && parts.iter().all(|part| !said(part).consumes().is_empty()));
    for (name, change) in table {
        let mut bad = good.clone();
        change(&mut bad);
        let bytes = by(PROVIDER, bad, &devnet()).envelope().clone();
        let read = Statement::verify(StatementKind::Activation, &bytes, devnet().magic);
        assert_eq!(read.unwrap_err(), wire::WireError::Malformed, "{name}");
    }
    let skips = Activation { seq: 3, ..whole.activation(BOB, [1; 32], 1) };
    assert!(!skips.is_well_formed(), "a seq that is not the next");
}

#[test]
fn a_sale_agrees_with_its_own_lock() {
    let draft = Draft::new(PROVIDER, units(0, 2), WINDOW, &devnet()).sell(ALICE);
    let capex_core::certificate::Hop::Sale { lock, activation, .. } = &draft.hops[0] else {
        panic!()
    };
    let magic = devnet().magic;
    let lock = Statement::verify(StatementKind::LockGrant, lock, magic).unwrap();
    let activation = Statement::verify(StatementKind::Activation, activation, magic).unwrap();
    assert!(!lock.contradicts(&activation));
}

#[test]
fn false_proofs_convict_nobody() {
    let magic = devnet().magic;
    let good = prove(&lock(ALICE, 0), &lock(BOB, 0)).unwrap();
    let turned = EquivProof { a: good.b.clone(), b: good.a.clone() };
    assert_eq!(verify_proof(&turned, magic).unwrap_err().code(), "proof.order");
    let (a, b) = (lock(ALICE, 0), lock(BOB, 1));
    let mut parts = [a, b].map(|s| (s.kind(), s.envelope().clone()));
    parts.sort();
    let [a, b] = parts;
    assert_eq!(verify_proof(&EquivProof { a, b }, magic).unwrap_err().code(), "proof.compatible");
    let forged: fn(&mut Envelope) = |envelope| envelope.signature[1][0] ^= 1;
    let mut bad = good.clone();
    forged(&mut bad.b.1);
    assert_eq!(verify_proof(&bad, magic).unwrap_err().code(), "wire.bad_signature");
    let mut mixed = good.clone();
    mixed.b.0 = StatementKind::Activation;
    assert_eq!(verify_proof(&mixed, magic).unwrap_err().code(), "wire.malformed");
    assert!(wire::encode(&good).len() < capex_core::limits::GOSSIP_MAX_BYTES);
}

#[test]
fn statements_of_two_providers_prove_nothing() {
    let params = devnet();
    let mut other = redeem_grant(BOB, CertId([1; 32]), 0, 0, &params).into_value();
    other.redeem_hash = LeaseId([1; 32]);
    let other = statement(StatementKind::RedeemGrant, &by(BOB, other, &params));
    assert!(!other.contradicts(&redeem(CertId([1; 32]), 0, 0, 2)));
}
