//! Certificates that were split and merged: what verifies, what does not, and their files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::file::{parse, write};
use capex_core::certificate::objects::{Activation, Area, Merge, Split};
use capex_core::certificate::verify::TransferKind;
use capex_core::certificate::{Certificate, Hop, join, verify};
use capex_core::ids::CertId;
use capex_core::units::Window;
use capex_core::wire::{Envelope, Object};
use certificate_fixture::pieces::*;
use certificate_fixture::*;

const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const MALLORY: u8 = 9;
const DAY: Window = Window { start: 1000, end: 1024 };
const MORNING: Window = Window { start: 1000, end: 1012 };
const EVENING: Window = Window { start: 1012, end: 1024 };

/// Eight units for a day, bought by Alice.
fn whole() -> Piece {
    Piece::sold(1, &area(0, 8, DAY), ALICE)
}

/// Its morning and its evening.
fn halves() -> [Piece; 2] {
    whole().split(&[area(0, 8, MORNING), area(0, 8, EVENING)]).try_into().ok().unwrap()
}

/// Split, each half moved on and back, merged again and sold.
fn long_life() -> Piece {
    let [morning, evening] = halves();
    let morning = morning.give(BOB).sell(ALICE);
    let merged = Piece::merge(&[&morning, &evening], &area(0, 8, DAY));
    merged.sell(CAROL)
}

#[test]
fn a_part_verifies_and_so_do_its_own_hops() {
    let [morning, evening] = halves();
    let facts = verify(&evening.certificate, &devnet()).unwrap();
    assert_eq!((facts.cert_id, facts.seq, facts.last_hash), (evening.cert_id, 1, evening.last));
    assert_eq!((facts.area(), facts.not_after_slot), (area(0, 8, EVENING), 1023));
    assert_eq!((facts.holder, &facts.roots), (public(ALICE), &whole().roots));
    let sold = verify(&morning.give(BOB).sell(CAROL).certificate, &devnet()).unwrap();
    assert_eq!((sold.holder, sold.seq, sold.not_after_slot), (public(CAROL), 3, 1011));
    let kinds: Vec<&str> = sold.transfers.iter().map(|fact| fact.kind.name()).collect();
    assert_eq!(kinds, ["sale", "split", "gift", "sale"]);
}

#[test]
fn a_merge_of_a_split_tells_their_common_history_once() {
    let piece = long_life();
    let facts = verify(&piece.certificate, &devnet()).unwrap();
    assert_eq!((facts.cert_id, facts.seq), (piece.cert_id, 2));
    assert_eq!((facts.area(), facts.holder), (area(0, 8, DAY), public(CAROL)));
    assert_eq!((facts.not_after_slot, &facts.roots), (1023, &whole().roots));
    let kinds: Vec<TransferKind> = facts.transfers.iter().map(|fact| fact.kind).collect();
    use TransferKind::{Gift, Merge, Sale, Split};
    assert_eq!((kinds[0], &kinds[5..]), (Sale, &[Merge, Sale][..]));
    // The lines of both parts follow each other, in the order of their ids.
    let count = |kind| kinds[1..5].iter().filter(|one| **one == kind).count();
    assert_eq!((count(Split), count(Gift), count(Sale)), (2, 1, 1));
    // One sale, one split with both parts, a gift, a sale, the merge, a sale.
    assert_eq!(piece.certificate.hops.len(), 6);
}

#[test]
fn certificates_of_two_issues_merge_and_split_along_other_lines() {
    let (left, right) =
        (Piece::sold(1, &area(0, 4, DAY), ALICE), Piece::sold(2, &area(4, 8, DAY), ALICE));
    let merged = Piece::merge(&[&left, &right], &area(0, 8, DAY));
    let facts = verify(&merged.certificate, &devnet()).unwrap();
    assert_eq!((facts.area(), facts.roots.len()), (area(0, 8, DAY), 2));
    let part = merged.split(&[area(2, 6, DAY), Area { units: two(), window: DAY }]).remove(1);
    let facts = verify(&part.certificate, &devnet()).unwrap();
    assert_eq!((facts.units, facts.roots), (two(), part.roots.clone()));
}

fn two() -> capex_core::units::Units {
    capex_core::units::Units::from_sorted(&[0, 1, 6, 7]).unwrap()
}

#[test]
fn a_checkpoint_stands_for_the_history_before_it() {
    let piece = long_life();
    let full = verify(&piece.certificate, &devnet()).unwrap();
    let short = piece.clone().checkpointed().give(BOB);
    let facts = verify(&short.certificate, &devnet()).unwrap();
    assert_eq!((facts.holder, facts.seq), (public(BOB), full.seq + 1));
    assert_eq!((&facts.roots, facts.area()), (&full.roots, full.area()));
    assert_eq!((full.checkpointed_at, facts.checkpointed_at), (None, Some(200)));
    assert_eq!(facts.transfers.len(), 1);
}

#[test]
fn files_and_bytes_read_back() {
    let params = devnet();
    let [morning, evening] = halves();
    let both = Piece::merge(&[&morning.clone().checkpointed(), &evening], &area(0, 8, DAY));
    for piece in [morning, long_life(), long_life().checkpointed().give(BOB), both] {
        let text = write(&piece.certificate, &params);
        let read = parse(&text, &params).unwrap();
        assert_eq!(read, piece.certificate);
        assert_eq!(verify(&read, &params).unwrap().cert_id, piece.cert_id);
        assert_eq!(read.id(params.magic), Some(piece.cert_id));
    }
}

fn resigned<T: Object>(party: u8, old: &Envelope, change: impl FnOnce(&mut T)) -> Envelope {
    let mut value: T = old.peek().unwrap();
    change(&mut value);
    by(party, value, &devnet()).envelope().clone()
}

type Change = fn(&mut Certificate);

/// Changes the split, and signs its Activation for it.
fn split(certificate: &mut Certificate, signer: u8, change: impl FnOnce(&mut Split)) {
    let Some(Hop::Split { split, activations }) = certificate.hops.last_mut() else { panic!() };
    *split = resigned(signer, split, change);
    let id = split.id::<Split>(devnet().magic);
    activations[0] = resigned(1, &activations[0], |activation: &mut Activation| {
        activation.cause_hash = id;
        activation.cert_id = capex_core::certificate::objects::part_id(id, 0);
    });
}

fn change_activation(certificate: &mut Certificate, change: impl FnOnce(&mut Activation)) {
    match certificate.hops.last_mut().unwrap() {
        Hop::Split { activations, .. } => {
            activations[0] = resigned(1, &activations[0], change);
        }
        Hop::Merge { activation, .. } => *activation = resigned(1, activation, change),
        Hop::Sale { .. } | Hop::Gift { .. } => panic!(),
    }
}

#[test]
fn a_split_that_does_not_hold_has_its_code() {
    let table: Vec<(&str, Change)> = vec![
        ("certificate.not_holder", |c| split(c, MALLORY, |_| ())),
        ("certificate.seq_gap", |c| split(c, ALICE, |s| s.seq = 2)),
        ("certificate.prev_hash", |c| split(c, ALICE, |s| s.prev_hash = [0; 32])),
        ("certificate.foreign_part", |c| split(c, ALICE, |s| s.cert_id = CertId([7; 32]))),
        ("certificate.parts_sum", |c| split(c, ALICE, |s| s.parts[1].window.end -= 1)),
        ("certificate.parts_sum", |c| split(c, ALICE, |s| s.parts[1].window.start -= 1)),
        ("certificate.part_outside", |c| split(c, ALICE, |s| s.parts[1].window.end += 1)),
        ("certificate.part_outside", |c| split(c, ALICE, |s| s.parts[0].units = units(0, 9))),
        ("certificate.bad_parts", |c| split(c, ALICE, |s| s.parts.truncate(1))),
        ("certificate.bad_parts", |c| split(c, ALICE, |s| s.parts[1].window.start = 1024)),
        ("certificate.changed", |c| change_activation(c, |a| a.window = DAY)),
        ("certificate.changed", |c| change_activation(c, |a| a.units = units(0, 7))),
        ("certificate.changed", |c| change_activation(c, |a| a.roots = vec![CertId([7; 32])])),
        ("certificate.cause_mismatch", |c| change_activation(c, |a| a.holder_hash = [7; 32])),
        ("certificate.foreign_part", |c| change_activation(c, |a| a.cert_id = CertId([7; 32]))),
        ("certificate.seq_gap", |c| change_activation(c, |a| a.seq = 2)),
        ("certificate.seq_gap", |c| change_activation(c, |a| a.consumes.clear())),
        ("certificate.prev_hash", |c| change_activation(c, |a| a.consumes[0].prev_hash = [0; 32])),
        ("certificate.loose_part", |c| {
            let Some(Hop::Split { activations, .. }) = c.hops.last_mut() else { panic!() };
            activations.clear();
        }),
        // The same part twice, and one part too many: neither leads to one certificate.
        ("certificate.foreign_part", |c| {
            let Some(Hop::Split { activations, .. }) = c.hops.last_mut() else { panic!() };
            activations.push(activations[0].clone());
        }),
    ];
    let [morning, _] = halves();
    for (index, (code, change)) in table.into_iter().enumerate() {
        let mut bad = morning.certificate.clone();
        change(&mut bad);
        let error = verify(&bad, &devnet()).unwrap_err();
        assert_eq!((error.code(), error.hop), (code, Some(1)), "row {index}");
    }
}

/// Changes the merge, and signs its Activation for it.
fn merge(certificate: &mut Certificate, signer: u8, change: impl FnOnce(&mut Merge)) {
    let Some(Hop::Merge { merge, activation }) = certificate.hops.last_mut() else { panic!() };
    *merge = resigned(signer, merge, change);
    let id = merge.id::<Merge>(devnet().magic);
    *activation = resigned(1, activation, |activation: &mut Activation| {
        activation.cause_hash = id;
        activation.cert_id = CertId(id);
    });
}

#[test]
fn a_merge_that_does_not_hold_has_its_code() {
    let table: Vec<(&str, Change)> = vec![
        ("certificate.not_holder", |c| merge(c, MALLORY, |_| ())),
        ("certificate.seq_gap", |c| merge(c, ALICE, |m| m.parts[0].seq += 1)),
        ("certificate.prev_hash", |c| merge(c, ALICE, |m| m.parts[1].prev_hash = [0; 32])),
        ("certificate.foreign_part", |c| merge(c, ALICE, |m| m.parts[0].cert_id = CertId([0; 32]))),
        ("certificate.bad_parts", |c| merge(c, ALICE, |m| m.parts.truncate(1))),
        ("certificate.foreign_part", |c| merge(c, ALICE, |m| m.parts[0] = m.parts[1])),
        ("certificate.bad_parts", |c| merge(c, ALICE, |m| m.parts.reverse())),
        ("certificate.changed", |c| change_activation(c, |a| a.window = MORNING)),
        ("certificate.changed", |c| change_activation(c, |a| a.units = units(0, 9))),
        ("certificate.cause_mismatch", |c| change_activation(c, |a| a.holder_hash = [7; 32])),
        ("certificate.seq_gap", |c| change_activation(c, |a| a.consumes.truncate(1))),
        ("certificate.bad_signature", |c| change_activation(c, |a| a.provider = public(MALLORY))),
    ];
    let [morning, evening] = halves();
    let good = Piece::merge(&[&morning, &evening], &area(0, 8, DAY)).certificate;
    verify(&good, &devnet()).unwrap();
    for (index, (code, change)) in table.into_iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        let error = verify(&bad, &devnet()).unwrap_err();
        assert_eq!((error.code(), error.hop), (code, Some(2)), "row {index}");
    }
}

#[test]
fn what_does_not_belong_together_is_not_merged() {
    let [morning, evening] = halves();
    let other = |nonce, area: &Area| Piece::sold(nonce, area, ALICE);
    let row = |a: &Piece, b: &Piece, into: Area| {
        verify(&Piece::merge(&[a, b], &into).certificate, &devnet()).map_err(|error| error.code())
    };
    let code = |a: &Piece, b: &Piece| row(a, b, area(0, 8, DAY)).unwrap_err();
    assert_eq!(code(&morning, &other(2, &area(0, 9, EVENING))), "certificate.parts_apart");
    let late = Window { start: 1013, end: 1024 };
    assert_eq!(code(&morning, &other(2, &area(0, 8, late))), "certificate.parts_apart");
    // Two certificates of one block: the provider has sold it twice.
    assert_eq!(code(&morning, &other(2, &area(0, 8, MORNING))), "certificate.parts_sum");
    assert_eq!(code(&morning.clone().give(BOB), &evening), "certificate.not_holder");
    // A whole together with its own part: what was consumed is not there to be merged.
    assert_eq!(code(&whole(), &evening), "certificate.foreign_part");
    let many: Vec<Piece> =
        (0..6).map(|n| row_of_three(n, &[3 * n, 3 * n + 1, 3 * n + 2])).collect();
    let all: Vec<&Piece> = many.iter().collect();
    let merged = Piece::merge(&all, &area(0, 18, DAY));
    let error = verify(&merged.certificate, &devnet()).unwrap_err();
    assert_eq!(error.code(), "certificate.bad_bases", "18 issues");
}

/// Three issues of one unit, merged.
fn row_of_three(nonce: u8, numbers: &[u8; 3]) -> Piece {
    let sold = |unit: u8| {
        let unit_area = area(u32::from(unit), u32::from(unit) + 1, DAY);
        Piece::sold(10 + unit, &unit_area, ALICE)
    };
    let [a, b, c] = numbers.map(sold);
    let first = u32::from(3 * nonce);
    Piece::merge(&[&a, &b, &c], &area(first, first + 3, DAY))
}

#[test]
fn histories_begin_and_end_with_what_the_certificate_needs() {
    let [morning, evening] = halves();
    let good = Piece::merge(&[&morning, &evening], &area(0, 8, DAY)).certificate;
    let code = |change: &dyn Fn(&mut Certificate)| {
        let mut bad = good.clone();
        change(&mut bad);
        verify(&bad, &devnet()).unwrap_err().code()
    };
    assert_eq!(code(&|c| c.bases.clear()), "certificate.bad_bases");
    assert_eq!(code(&|c| c.bases.push(c.bases[0].clone())), "certificate.bad_bases");
    let other = Piece::sold(9, &area(9, 10, DAY), ALICE).certificate.bases[0].clone();
    assert_eq!(code(&|c| c.bases.push(other.clone())), "certificate.loose_part");
    assert_eq!(code(&|c| drop(c.hops.pop())), "certificate.loose_part");
    assert_eq!(code(&|c| c.hops.swap(0, 1)), "certificate.gift_before_sale");
    let joined = join([&morning.certificate, &evening.certificate]);
    assert_eq!(joined.hops.len(), 2);
    assert_eq!(verify(&joined, &devnet()).unwrap_err().code(), "certificate.loose_part");
    // A checkpoint and the history that it stands for cannot both begin it.
    let twice = join([&whole().checkpointed().certificate, &morning.certificate]);
    assert_eq!(verify(&twice, &devnet()).unwrap_err().code(), "certificate.bad_bases");
}

#[test]
fn a_checkpoint_that_no_provider_signs_is_refused() {
    let piece = long_life();
    let code = |signer: u8, change: &dyn Fn(&mut capex_core::certificate::objects::Checkpoint)| {
        let mut checkpoint = piece.checkpoint_object();
        change(&mut checkpoint);
        let certificate = piece.resting_on(by(signer, checkpoint, &devnet()).envelope().clone());
        verify(&certificate, &devnet()).map_err(|error| error.code()).map(drop)
    };
    assert_eq!(code(1, &|_| ()), Ok(()));
    assert_eq!(code(MALLORY, &|_| ()), Err("certificate.bad_signature"));
    assert_eq!(code(1, &|c| c.last_hash = [0; 32]), Err("certificate.prev_hash"));
    assert_eq!(code(1, &|c| c.holder = public(BOB)), Err("certificate.cause_mismatch"));
    assert_eq!(code(1, &|c| c.salt16 = [0; 16]), Err("certificate.cause_mismatch"));
    assert_eq!(code(1, &|c| c.not_after_slot = 1024), Err("certificate.bad_area"));
    assert_eq!(code(1, &|c| c.class_hash = [0; 32]), Err("certificate.unknown_class"));
    // Of another provider: its own word, over an Activation that is not its own.
    let own = |c: &mut capex_core::certificate::objects::Checkpoint| c.provider = public(MALLORY);
    assert_eq!(code(MALLORY, &own), Err("certificate.foreign_part"));
}
