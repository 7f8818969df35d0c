//! Certificates that prove nothing, each signed anew by those who would have to be in it.

use std::collections::BTreeSet;

use capex_core::certificate::objects::{
    Activation, Checkpoint, Gift, Hop, Issue, Merge, Split, part_id,
};
use capex_core::certificate::{Base, Certificate, join};
use capex_core::ids::{CertId, TermsHash};
use capex_core::settlement::objects::{LockGrant, Quittance, Terms, Transfer};
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{Envelope, Object, decode_record, encode};

use crate::certificate_fixture::pieces::{Piece, area};
use crate::certificate_fixture::{Draft, PREIMAGE, by, devnet, issue_of, public, units};
use crate::text;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const OTHER_PROVIDER: u8 = 7;
const MALLORY: u8 = 9;
const DAY: Window = Window { start: 1000, end: 1024 };
const MORNING: Window = Window { start: 1000, end: 1012 };
const EVENING: Window = Window { start: 1012, end: 1024 };

/// Name, code (none if it is good after all), text of the file.
type Row = (&'static str, &'static str, String);

fn whole() -> Piece {
    Piece::sold(1, &area(0, 8, DAY), ALICE)
}

fn halves() -> [Piece; 2] {
    whole().split(&[area(0, 8, MORNING), area(0, 8, EVENING)]).try_into().ok().unwrap()
}

fn merged() -> Piece {
    let [morning, evening] = halves();
    Piece::merge(&[&morning, &evening], &area(0, 8, DAY))
}

fn resigned<T: Object>(signer: u8, old: &mut Envelope, change: impl FnOnce(&mut T)) {
    let mut value: T = old.peek().unwrap();
    change(&mut value);
    *old = by(signer, value, &devnet()).envelope().clone();
}

fn changed(piece: &Piece, change: impl FnOnce(&mut Certificate)) -> String {
    let mut certificate = piece.certificate.clone();
    change(&mut certificate);
    text(&certificate)
}

fn last(certificate: &mut Certificate) -> &mut Envelope {
    match certificate.hops.last_mut().unwrap() {
        Hop::Sale { activation, .. }
        | Hop::Gift { activation, .. }
        | Hop::Merge { activation, .. } => activation,
        Hop::Split { activations, .. } => &mut activations[0],
    }
}

fn activation(piece: &Piece, signer: u8, change: impl FnOnce(&mut Activation)) -> String {
    changed(piece, |certificate| resigned(signer, last(certificate), change))
}

/// A changed split whose parts the provider signs for it.
fn split(signer: u8, change: impl FnOnce(&mut Split)) -> String {
    changed(&halves()[0], |certificate| {
        let Some(Hop::Split { split, activations }) = certificate.hops.last_mut() else { panic!() };
        resigned(signer, split, change);
        let id = split.id::<Split>(devnet().magic);
        resigned(PROVIDER, &mut activations[0], |made: &mut Activation| {
            (made.cause_hash, made.cert_id) = (id, part_id(id, 0));
        });
    })
}

fn merge(signer: u8, change: impl FnOnce(&mut Merge)) -> String {
    changed(&merged(), |certificate| {
        let Some(Hop::Merge { merge, activation }) = certificate.hops.last_mut() else { panic!() };
        resigned(signer, merge, change);
        let id = merge.id::<Merge>(devnet().magic);
        resigned(PROVIDER, activation, |made: &mut Activation| {
            (made.cause_hash, made.cert_id) = (id, CertId(id));
        });
    })
}

fn gift(signer: u8, change: impl FnOnce(&mut Gift)) -> String {
    changed(&whole().give(BOB), |certificate| {
        let Some(Hop::Gift { gift, activation }) = certificate.hops.last_mut() else { panic!() };
        resigned(signer, gift, change);
        let id = gift.id::<Gift>(devnet().magic);
        resigned(PROVIDER, activation, |made: &mut Activation| made.cause_hash = id);
    })
}

type Sale<'a> = (&'a mut Envelope, &'a mut Envelope, &'a mut Transfer, &'a mut Envelope);

fn sale(piece: &Piece, change: impl FnOnce(Sale<'_>)) -> String {
    changed(piece, |certificate| {
        let Hop::Sale { terms, lock, transfer, activation } = &mut certificate.hops[0] else {
            panic!()
        };
        change((terms, lock, transfer, activation));
    })
}

/// Changed terms with a lock, a transfer and an Activation that are for them.
fn terms(signer: u8, change: impl FnOnce(&mut Terms)) -> String {
    sale(&whole(), |(terms, lock, transfer, activation)| {
        resigned(signer, terms, change);
        let id = terms.id::<Terms>(devnet().magic);
        resigned(PROVIDER, lock, |lock: &mut LockGrant| lock.terms_hash = TermsHash(id));
        transfer.terms_hash = TermsHash(id);
        resigned(PROVIDER, activation, |made: &mut Activation| made.cause_hash = id);
    })
}

/// The seller's word that it was paid, in place of a spend.
fn quittance(signer: u8, change: impl FnOnce(&mut Transfer)) -> String {
    sale(&whole(), |(_, _, transfer, _)| {
        let said = Quittance { v: 1, terms_hash: transfer.terms_hash, x: PREIMAGE };
        transfer.quittance = Some(by(signer, said, &devnet()).envelope().signature);
        transfer.spend_txid = [0; 32];
        change(transfer);
    })
}

fn checkpoint(signer: u8, change: impl FnOnce(&mut Checkpoint)) -> String {
    let piece = merged().give(BOB);
    let mut object = piece.checkpoint_object();
    change(&mut object);
    text(&piece.resting_on(by(signer, object, &devnet()).envelope().clone()))
}

/// A checkpoint over an Activation that only its own provider would sign.
fn odd_checkpoint(change: impl FnOnce(&mut Activation)) -> String {
    let piece = merged();
    let mut activation = piece.certificate.last_activation().unwrap().clone();
    resigned(PROVIDER, &mut activation, change);
    let last_hash = activation.id::<Activation>(devnet().magic);
    let object = Checkpoint { last_hash, ..piece.checkpoint_object() };
    let checkpoint = by(PROVIDER, object, &devnet()).envelope().clone();
    text(&Certificate { bases: vec![Base::Checkpoint { checkpoint, activation }], hops: vec![] })
}

fn issue(change: impl FnOnce(&mut Issue)) -> String {
    let mut certificate = Certificate::issued(whole().certificate.issue().unwrap().clone());
    resigned(PROVIDER, issue_of(&mut certificate), change);
    text(&certificate)
}

/// Eight units in an evening, of another provider or class.
fn of(provider: u8, class: u16) -> Piece {
    let params = devnet();
    let mut draft = Draft::new(provider, units(0, 8), EVENING, &params);
    let mut issue = (*draft.issue).clone();
    (issue.class, issue.class_hash) = (class, params.class_hash(class).unwrap());
    draft.issue = by(provider, issue, &params);
    draft.last = draft.issue.id();
    Piece::of(&draft.sell(ALICE))
}

fn of_two(one: &Piece, other: &Piece) -> String {
    text(&Piece::merge(&[one, other], &area(0, 8, DAY)).certificate)
}

/// The only way to units that are not canonical is by their bytes.
fn odd_units(ranges: &[(u32, u32)]) -> Units {
    let ranges: Vec<UnitRange> =
        ranges.iter().map(|&(first, end)| UnitRange { first, end }).collect();
    decode_record(&encode(&ranges)).unwrap()
}

pub(crate) fn table() -> Vec<Row> {
    let all = [issues(), sales(), gifts(), splits(), merges(), checkpoints(), shapes()].concat();
    let names: BTreeSet<&str> = all.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), all.len(), "every name once");
    all
}

fn issues() -> Vec<Row> {
    let two = |ranges: &[(u32, u32)]| issue(|issue| issue.units = odd_units(ranges));
    vec![
        ("an issue, never sold", "", issue(|_| ())),
        ("an issue of metered capacity", "", {
            issue(|issue| issue.pay = capex_core::certificate::objects::Payment::Metered)
        }),
        ("a class that is none", "certificate.unknown_class", issue(|issue| issue.class = 99)),
        ("another class's floors", "certificate.unknown_class", issue(|issue| issue.class = 2)),
        ("no slots", "certificate.bad_area", issue(|issue| issue.window.end = 1000)),
        ("redeemed too late", "certificate.bad_area", issue(|issue| issue.not_after_slot = 1024)),
        ("redeemed too early", "certificate.bad_area", issue(|issue| issue.not_after_slot = 999)),
        ("no units", "certificate.bad_area", two(&[])),
        ("an empty range", "certificate.bad_area", two(&[(3, 3)])),
        ("a range backwards", "certificate.bad_area", two(&[(4, 3)])),
        ("ranges that touch", "certificate.bad_area", two(&[(0, 2), (2, 4)])),
        ("ranges that descend", "certificate.bad_area", two(&[(4, 6), (0, 2)])),
        ("a unit beyond all", "certificate.bad_area", two(&[(999_999, 1_000_001)])),
        ("the last unit", "", two(&[(999_999, 1_000_000)])),
        ("seventeen ranges", "certificate.bad_area", {
            issue(|issue| {
                let ranges: Vec<(u32, u32)> = (0..17).map(|n| (2 * n, 2 * n + 1)).collect();
                issue.units = odd_units(&ranges);
            })
        }),
        ("an issue of version 2", "certificate.file_payload", issue(|issue| issue.v = 2)),
    ]
}

fn sales() -> Vec<Row> {
    let lock = |change: fn(&mut LockGrant)| {
        sale(&whole(), |(_, lock, ..)| resigned(PROVIDER, lock, change))
    };
    let transfer =
        |change: fn(&mut Transfer)| sale(&whole(), |(_, _, transfer, _)| change(transfer));
    vec![
        ("sold by another", "certificate.not_holder", {
            terms(MALLORY, |terms| terms.from = public(MALLORY))
        }),
        ("signed by another", "certificate.bad_signature", terms(MALLORY, |_| ())),
        ("terms of a stale seq", "certificate.seq_gap", terms(PROVIDER, |terms| terms.seq = 1)),
        ("terms of another past", "certificate.prev_hash", {
            terms(PROVIDER, |terms| terms.prev_hash = [0; 32])
        }),
        ("fewer units sold", "certificate.changed", {
            terms(PROVIDER, |terms| terms.units = units(0, 7))
        }),
        ("another class sold", "certificate.changed", terms(PROVIDER, |terms| terms.class = 2)),
        ("another window sold", "certificate.changed", {
            terms(PROVIDER, |terms| terms.window = MORNING)
        }),
        ("another certificate sold", "certificate.foreign_part", {
            terms(PROVIDER, |terms| terms.cert_id = CertId([7; 32]))
        }),
        ("a lock of another provider", "certificate.foreign_part", {
            sale(&whole(), |(_, lock, ..)| {
                resigned(MALLORY, lock, |lock: &mut LockGrant| lock.provider = public(MALLORY));
            })
        }),
        ("a lock that another signed", "certificate.bad_signature", {
            sale(&whole(), |(_, lock, ..)| resigned(MALLORY, lock, |_: &mut LockGrant| ()))
        }),
        ("a lock of another seq", "certificate.lock_mismatch", lock(|lock| lock.seq = 1)),
        ("a lock for other terms", "certificate.lock_mismatch", {
            lock(|lock| lock.terms_hash = TermsHash([7; 32]))
        }),
        ("a lock that ends later", "certificate.lock_mismatch", lock(|lock| lock.fund_by += 1)),
        ("a lock that is late", "certificate.lock_mismatch", lock(|lock| lock.refund_at += 1)),
        ("a lock of another attempt", "certificate.cause_mismatch", lock(|lock| lock.attempt = 1)),
        ("a wrong preimage", "certificate.preimage", transfer(|transfer| transfer.x[0] ^= 1)),
        ("a transfer of version 2", "certificate.preimage", transfer(|transfer| transfer.v = 2)),
        ("a transfer for other terms", "certificate.preimage", {
            transfer(|transfer| transfer.terms_hash = TermsHash([7; 32]))
        }),
        ("another spend", "", transfer(|transfer| transfer.spend_txid = [8; 32])),
        ("a quittance", "", quittance(PROVIDER, |_| ())),
        ("a quittance by another", "certificate.bad_signature", quittance(MALLORY, |_| ())),
        ("a quittance and a spend", "certificate.malformed", {
            quittance(PROVIDER, |transfer| transfer.vin = 1)
        }),
        ("a sale with a foreign cause", "certificate.cause_mismatch", {
            activation(&whole(), PROVIDER, |made| made.cause_hash = [0; 32])
        }),
        ("a forged activation", "certificate.bad_signature", {
            activation(&whole(), MALLORY, |_| ())
        }),
        ("an activation of another provider", "certificate.foreign_part", {
            activation(&whole(), MALLORY, |made| made.provider = public(MALLORY))
        }),
        ("an activation for another holder", "certificate.cause_mismatch", {
            activation(&whole(), PROVIDER, |made| made.holder_hash = [7; 32])
        }),
        ("an activation of another seq", "certificate.seq_gap", {
            activation(&whole(), PROVIDER, |made| made.seq = 2)
        }),
        ("an activation with more units", "certificate.changed", {
            activation(&whole(), PROVIDER, |made| made.units = units(0, 9))
        }),
        ("an activation with other features", "certificate.changed", {
            activation(&whole(), PROVIDER, |made| made.features = 3)
        }),
        ("an activation with another root", "certificate.changed", {
            activation(&whole(), PROVIDER, |made| made.roots = vec![CertId([7; 32])])
        }),
        ("an activation of another past", "certificate.prev_hash", {
            activation(&whole(), PROVIDER, |made| made.consumes[0].prev_hash = [0; 32])
        }),
        ("resold", "", text(&whole().sell(BOB).sell(ALICE).certificate)),
        ("resold by who does not hold it", "certificate.not_holder", {
            let mut piece = whole();
            piece.holder = MALLORY;
            text(&piece.sell(BOB).certificate)
        }),
    ]
}

fn gifts() -> Vec<Row> {
    vec![
        ("given", "", gift(ALICE, |_| ())),
        ("given by another", "certificate.bad_signature", gift(MALLORY, |_| ())),
        ("given at a stale seq", "certificate.seq_gap", gift(ALICE, |gift| gift.seq = 0)),
        ("given at a later seq", "certificate.seq_gap", gift(ALICE, |gift| gift.seq = 2)),
        ("given from another past", "certificate.prev_hash", {
            gift(ALICE, |gift| gift.prev_hash = [0; 32])
        }),
        ("what nobody holds is given", "certificate.bad_signature", {
            gift(ALICE, |gift| gift.cert_id = CertId([7; 32]))
        }),
        ("given to another than signed for", "certificate.cause_mismatch", {
            gift(ALICE, |gift| gift.to = public(MALLORY))
        }),
        ("given before it was sold", "certificate.gift_before_sale", {
            text(&Draft::new(PROVIDER, units(0, 8), DAY, &devnet()).give(BOB).certificate())
        }),
        ("given twice from one seq", "certificate.seq_gap", {
            let once = whole().give(ALICE);
            let mut again = once.clone();
            (again.seq, again.last) = (whole().seq, whole().last);
            text(&again.give(BOB).certificate)
        }),
    ]
}

fn splits() -> Vec<Row> {
    let [morning, _] = halves();
    let made = |change: fn(&mut Activation)| activation(&halves()[0], PROVIDER, change);
    vec![
        ("a part", "", text(&morning.certificate)),
        ("split by another", "certificate.bad_signature", split(MALLORY, |_| ())),
        ("split at a stale seq", "certificate.seq_gap", split(ALICE, |split| split.seq = 0)),
        ("split from another past", "certificate.prev_hash", {
            split(ALICE, |split| split.prev_hash = [0; 32])
        }),
        ("what nobody holds is split", "certificate.bad_signature", {
            split(ALICE, |split| split.cert_id = CertId([7; 32]))
        }),
        ("a slot in no part", "certificate.parts_sum", {
            split(ALICE, |split| split.parts[1].window.end -= 1)
        }),
        ("a slot in two parts", "certificate.parts_sum", {
            split(ALICE, |split| split.parts[1].window.start -= 1)
        }),
        ("a unit in no part", "certificate.parts_sum", {
            split(ALICE, |split| split.parts[1].units = units(0, 7))
        }),
        ("as many unit-slots, and not the same", "certificate.parts_sum", {
            split(ALICE, |split| {
                let twice = area(0, 4, MORNING);
                split.parts = vec![twice.clone(), twice, area(0, 8, EVENING)];
            })
        }),
        ("a part that goes on after it", "certificate.part_outside", {
            split(ALICE, |split| split.parts[1].window.end += 1)
        }),
        ("a part that begins before it", "certificate.part_outside", {
            split(ALICE, |split| split.parts[0].window.start -= 1)
        }),
        ("a part with a unit more", "certificate.part_outside", {
            split(ALICE, |split| split.parts[0].units = units(0, 9))
        }),
        ("one part", "certificate.bad_parts", split(ALICE, |split| split.parts.truncate(1))),
        ("no parts", "certificate.bad_parts", split(ALICE, |split| split.parts.clear())),
        ("seventeen parts", "certificate.bad_parts", {
            split(ALICE, |split| split.parts = vec![area(0, 8, MORNING); 17])
        }),
        ("a part without a slot", "certificate.bad_parts", {
            split(ALICE, |split| split.parts[1].window.start = 1024)
        }),
        ("a part whose units touch", "certificate.bad_parts", {
            split(ALICE, |split| split.parts[1].units = odd_units(&[(0, 4), (4, 8)]))
        }),
        ("a part that nobody could redeem", "certificate.bad_parts", early_end()),
        ("a part as large as the whole", "certificate.changed", made(|made| made.window = DAY)),
        ("a part with a unit less", "certificate.changed", made(|made| made.units = units(0, 7))),
        ("a part with another root", "certificate.changed", {
            made(|made| made.roots = vec![CertId([7; 32])])
        }),
        ("a part for another", "certificate.cause_mismatch", {
            made(|made| made.holder_hash = [7; 32])
        }),
        ("a part of another id", "certificate.foreign_part", {
            made(|made| made.cert_id = CertId([7; 32]))
        }),
        ("a part at seq 2", "certificate.seq_gap", made(|made| made.seq = 2)),
        ("a part of nothing", "certificate.seq_gap", made(|made| made.consumes.clear())),
        ("a part of another seq", "certificate.seq_gap", made(|made| made.consumes[0].seq = 2)),
        ("a part of another past", "certificate.prev_hash", {
            made(|made| made.consumes[0].prev_hash = [0; 32])
        }),
        ("a part that another signed", "certificate.bad_signature", {
            activation(&halves()[0], MALLORY, |_| ())
        }),
        ("one part twice", "certificate.foreign_part", {
            changed(&morning, |certificate| {
                let Some(Hop::Split { activations, .. }) = certificate.hops.last_mut() else {
                    panic!()
                };
                activations.push(activations[0].clone());
            })
        }),
    ]
}

/// Redeemed by noon at the latest, and then cut so that a part begins after it.
fn early_end() -> String {
    let params = devnet();
    let mut draft = Draft::new(PROVIDER, units(0, 8), DAY, &params);
    let issue = Issue { not_after_slot: 1010, ..(*draft.issue).clone() };
    draft.issue = by(PROVIDER, issue, &params);
    draft.last = draft.issue.id();
    let piece = Piece::of(&draft.sell(ALICE));
    text(&piece.split(&[area(0, 8, MORNING), area(0, 8, EVENING)])[0].certificate)
}

fn merges() -> Vec<Row> {
    let [morning, evening] = halves();
    let made = |change: fn(&mut Activation)| activation(&merged(), PROVIDER, change);
    let sold = |nonce, area| Piece::sold(nonce, &area, ALICE);
    vec![
        ("merged", "", text(&merged().certificate)),
        ("merged across providers", "certificate.other_kind", {
            of_two(&morning, &of(OTHER_PROVIDER, 1))
        }),
        ("merged across classes", "certificate.other_kind", of_two(&morning, &of(PROVIDER, 2))),
        ("merged with another's", "certificate.not_holder", {
            // The lower of them says who must have signed.
            let (low, high) = if morning.cert_id < evening.cert_id {
                (&morning, &evening)
            } else {
                (&evening, &morning)
            };
            of_two(low, &high.clone().give(BOB))
        }),
        ("merged with a gap", "certificate.parts_apart", {
            of_two(&morning, &sold(2, area(0, 8, Window { start: 1013, end: 1024 })))
        }),
        ("merged with other units", "certificate.parts_apart", {
            of_two(&morning, &sold(2, area(0, 9, EVENING)))
        }),
        ("merged with the same slots", "certificate.parts_sum", {
            of_two(&morning, &sold(2, area(0, 8, Window { start: 1011, end: 1024 })))
        }),
        ("merged with the same units", "certificate.parts_sum", {
            of_two(&morning, &sold(2, area(7, 9, MORNING)))
        }),
        (
            "merged with what it was cut from",
            "certificate.foreign_part",
            of_two(&whole(), &evening),
        ),
        ("merged by another", "certificate.bad_signature", merge(MALLORY, |_| ())),
        ("merged at a stale seq", "certificate.seq_gap", {
            merge(ALICE, |merge| merge.parts[0].seq = 0)
        }),
        ("merged from another past", "certificate.prev_hash", {
            merge(ALICE, |merge| merge.parts[1].prev_hash = [0; 32])
        }),
        ("one merged", "certificate.bad_parts", merge(ALICE, |merge| merge.parts.truncate(1))),
        ("nothing merged", "certificate.bad_signature", merge(ALICE, |merge| merge.parts.clear())),
        ("merged in another order", "certificate.bad_parts", {
            merge(ALICE, |merge| merge.parts.reverse())
        }),
        ("merged with itself", "certificate.foreign_part", {
            merge(ALICE, |merge| merge.parts[0] = merge.parts[1])
        }),
        ("merged into less", "certificate.changed", made(|made| made.window = MORNING)),
        ("merged into more", "certificate.changed", made(|made| made.units = units(0, 9))),
        ("merged into fewer roots", "certificate.changed", made(|made| made.roots.clear())),
        ("merged of one that it names", "certificate.seq_gap", {
            made(|made| made.consumes.truncate(1))
        }),
        (
            "merged for another",
            "certificate.cause_mismatch",
            made(|made| made.holder_hash = [7; 32]),
        ),
        ("a merge that another signed", "certificate.bad_signature", {
            activation(&merged(), MALLORY, |_| ())
        }),
        ("seventeen roots", "certificate.file_too_long", of_many_issues(17)),
        ("sixteen roots", "", of_many_issues(16)),
        ("seventeen roots, eight of them behind a checkpoint", "certificate.too_many_roots", {
            let early = of_issues(0..8).checkpointed();
            let late = of_issues(8..17);
            text(&Piece::merge(&[&early, &late], &area(0, 17, DAY)).certificate)
        }),
    ]
}

/// Units of one number, each an issue of its own, merged.
fn of_issues(numbers: std::ops::Range<u8>) -> Piece {
    let sold = |unit: u8| {
        let unit_area = area(u32::from(unit), u32::from(unit) + 1, DAY);
        Piece::sold(20 + unit, &unit_area, ALICE)
    };
    let pieces: Vec<Piece> = numbers.map(sold).collect();
    let joined = |pieces: &[Piece]| {
        let (first, end) = pieces.iter().fold((u32::MAX, 0), |(first, end), piece| {
            let range = piece.area.units.ranges()[0];
            (first.min(range.first), end.max(range.end))
        });
        Piece::merge(&pieces.iter().collect::<Vec<_>>(), &area(first, end, DAY))
    };
    let (few, rest) = pieces.split_at(pieces.len() / 2);
    joined(&[joined(few), joined(rest)])
}

fn of_many_issues(count: u8) -> String {
    let half = of_issues(0..8);
    let rest = of_issues(8..count);
    text(&Piece::merge(&[&half, &rest], &area(0, u32::from(count), DAY)).certificate)
}

fn checkpoints() -> Vec<Row> {
    vec![
        ("a checkpoint", "", checkpoint(PROVIDER, |_| ())),
        ("a checkpoint that another signed", "certificate.bad_signature", {
            checkpoint(MALLORY, |_| ())
        }),
        ("a checkpoint of another provider", "certificate.foreign_part", {
            checkpoint(MALLORY, |one| one.provider = public(MALLORY))
        }),
        ("a checkpoint of another past", "certificate.prev_hash", {
            checkpoint(PROVIDER, |one| one.last_hash = [0; 32])
        }),
        ("a checkpoint for another holder", "certificate.cause_mismatch", {
            checkpoint(PROVIDER, |one| one.holder = public(MALLORY))
        }),
        ("a checkpoint with another salt", "certificate.cause_mismatch", {
            checkpoint(PROVIDER, |one| one.salt16 = [0; 16])
        }),
        ("a checkpoint without a class", "certificate.unknown_class", {
            checkpoint(PROVIDER, |one| one.class_hash = [0; 32])
        }),
        ("a checkpoint for too long", "certificate.bad_area", {
            checkpoint(PROVIDER, |one| one.not_after_slot = 1024)
        }),
        ("a checkpoint at another seq", "certificate.seq_gap", odd_checkpoint(|one| one.seq = 2)),
        ("a checkpoint without roots", "certificate.seq_gap", {
            odd_checkpoint(|one| one.roots.clear())
        }),
        ("a checkpoint that came of nothing", "certificate.seq_gap", {
            odd_checkpoint(|one| one.consumes.clear())
        }),
        ("a checkpoint that consumes itself", "certificate.seq_gap", {
            odd_checkpoint(|one| one.consumes[1].cert_id = one.cert_id)
        }),
        ("a checkpoint in another order", "certificate.seq_gap", {
            odd_checkpoint(|one| one.consumes.reverse())
        }),
        ("a checkpoint with odd units", "certificate.bad_area", {
            odd_checkpoint(|one| one.units = odd_units(&[(4, 3)]))
        }),
        ("a checkpoint and what it stands for", "certificate.bad_bases", {
            let short = whole().checkpointed();
            text(&join([&short.certificate, &halves()[0].certificate]))
        }),
        ("given after a checkpoint", "", text(&merged().checkpointed().give(BOB).certificate)),
    ]
}

/// What does not begin, hang together or end as it must.
fn shapes() -> Vec<Row> {
    let [morning, evening] = halves();
    let good = text(&merged().certificate);
    let foreign = Piece::sold(9, &area(9, 10, DAY), ALICE).certificate.bases[0].clone();
    let lines: Vec<&str> = good.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n")
    };
    let of_hops = |count: usize| {
        let mut piece = whole();
        while piece.certificate.hops.len() < count {
            let to = if piece.holder == ALICE { BOB } else { ALICE };
            piece = piece.give(to);
        }
        text(&piece.certificate)
    };
    vec![
        ("sixty-four hops", "", of_hops(64)),
        ("sixty-five hops", "certificate.file_too_long", of_hops(65)),
        ("the same base twice", "certificate.bad_bases", {
            changed(&merged(), |one| one.bases.push(one.bases[0].clone()))
        }),
        ("a base that leads nowhere", "certificate.loose_part", {
            changed(&merged(), |one| one.bases.push(foreign.clone()))
        }),
        ("without its last hop", "certificate.loose_part", {
            changed(&merged(), |one| drop(one.hops.pop()))
        }),
        ("two parts that are not merged", "certificate.loose_part", {
            text(&join([&morning.certificate, &evening.certificate]))
        }),
        ("hops in another order", "certificate.bad_signature", {
            changed(&merged(), |one| one.hops.swap(0, 1))
        }),
        ("another header", "certificate.file_header", with(0, "capex-certificate 2 devnet")),
        ("of another network", "certificate.bad_signature", with(0, "capex-certificate 1 regtest")),
        ("of no network", "certificate.other_network", with(0, "capex-certificate 1 moon")),
        ("only the header", "certificate.file_truncated", lines[0].to_owned()),
        ("an unknown line", "certificate.file_kind", with(2, &lines[2].replace("terms", "swap"))),
        (
            "a kind that is not one",
            "certificate.file_kind",
            with(2, &lines[2].replace("terms", "lock")),
        ),
        ("no signature", "certificate.file_syntax", with(1, "issue 00")),
        ("too many fields", "certificate.file_syntax", with(1, &format!("{} 00", lines[1]))),
        ("capital letters", "certificate.file_hex", {
            with(1, &lines[1].to_uppercase().replace("ISSUE", "issue"))
        }),
        (
            "an odd number of digits",
            "certificate.file_hex",
            with(1, &lines[1].replace("issue ", "issue 0")),
        ),
        ("a short signature", "certificate.file_hex", with(1, &lines[1][..lines[1].len() - 2])),
        ("bytes after an object", "certificate.file_payload", {
            let fields: Vec<&str> = lines[1].split(' ').collect();
            with(1, &format!("issue {}00 {}", fields[1], fields[2]))
        }),
        ("an empty object", "certificate.file_payload", {
            let fields: Vec<&str> = lines[1].split(' ').collect();
            with(1, &format!("issue  {}", fields[2]))
        }),
        (
            "a transfer that is signed",
            "certificate.file_syntax",
            with(4, &lines[4].replace(" -", " 00")),
        ),
        ("a list longer than its object", "certificate.file_payload", {
            // The length of the units of the issue.
            let at = "issue ".len() + 2 * (1 + 32 + 2 + 32 + 8);
            with(1, &format!("{}ff{}", &lines[1][..at], &lines[1][at + 2..]))
        }),
        ("an option that is neither", "certificate.file_payload", {
            with(4, &lines[4].replace("00 -", "02 -"))
        }),
    ]
}
