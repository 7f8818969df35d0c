//! Certificates: what verifies, what does not, and their files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::file::{TEXT_MAX_BYTES, parse, write};
use capex_core::certificate::objects::{Activation, Hop, Issue};
use capex_core::certificate::verify::TransferKind;
use capex_core::certificate::{Certificate, verify};
use capex_core::ids::{CertId, TermsHash};
use capex_core::limits::UNITS_MAX;
use capex_core::settlement::objects::LockGrant;
use capex_core::units::{UnitRange, Units, Window};
use capex_core::wire::{self, Envelope, Object};
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;
const MALLORY: u8 = 9;
const WINDOW: Window = Window { start: 1000, end: 1004 };

fn sold() -> Draft {
    Draft::new(PROVIDER, units(2, 5), WINDOW, &devnet()).sell(ALICE)
}

#[test]
fn a_sale_and_three_gifts_verify_with_every_change_of_holder() {
    let params = devnet();
    let draft = sold().give(BOB).give(CAROL).give(ALICE);
    let facts = verify(&draft.certificate(), &params).unwrap();
    assert_eq!(facts.holder, public(ALICE));
    assert_eq!(facts.provider, public(PROVIDER));
    assert_eq!((facts.seq, facts.as_of_height), (4, 108));
    assert_eq!((facts.last_hash, facts.cert_id.0), (draft.last, draft.issue.id()));
    assert_eq!((facts.units.count(), facts.window, facts.not_after_slot), (3, WINDOW, 1003));
    let kinds: Vec<_> = facts.transfers.iter().map(|fact| fact.kind).collect();
    assert_eq!([kinds[0], kinds[1]].map(TransferKind::name), ["sale", "gift"]);
    assert_eq!(kinds[0], TransferKind::Sale);
    assert_eq!(kinds[1..], [TransferKind::Gift; 3]);
    let holders: Vec<_> = facts.transfers.iter().map(|fact| (fact.from, fact.to)).collect();
    let parties = [PROVIDER, ALICE, BOB, CAROL, ALICE].map(public);
    let expected: Vec<_> = parties.windows(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(holders, expected);
}

#[test]
fn a_resale_by_the_holder_verifies() {
    let facts = verify(&sold().give(BOB).sell(CAROL).certificate(), &devnet()).unwrap();
    assert_eq!((facts.holder, facts.seq), (public(CAROL), 3));
}

/// Signs a changed copy of an object again, as `party`.
fn resigned<T: Object>(party: u8, old: &Envelope, change: impl Fn(&mut T)) -> Envelope {
    let mut value: T = old.peek().unwrap();
    change(&mut value);
    by(party, value, &devnet()).envelope().clone()
}

fn change_activation(certificate: &mut Certificate, hop: usize, change: impl Fn(&mut Activation)) {
    let (Hop::Sale { activation, .. } | Hop::Gift { activation, .. }) = &mut certificate.hops[hop]
    else {
        panic!()
    };
    *activation = resigned(PROVIDER, activation, change);
}

fn change_lock(certificate: &mut Certificate, change: impl Fn(&mut LockGrant)) {
    let Hop::Sale { lock, .. } = &mut certificate.hops[0] else { panic!() };
    *lock = resigned(PROVIDER, lock, change);
}

fn change_issue(certificate: &mut Certificate, change: impl Fn(&mut Issue)) {
    let issue = issue_of(certificate);
    *issue = resigned(PROVIDER, issue, change);
}

/// Units that no class may number.
fn beyond() -> Units {
    wire::decode_record(&wire::encode(&vec![UnitRange { first: 0, end: UNITS_MAX + 1 }])).unwrap()
}

type Change = fn(&mut Certificate);

#[test]
fn every_broken_link_has_its_code_and_hop() {
    let table: Vec<(&str, Option<usize>, Change)> = vec![
        ("certificate.unknown_class", None, |c| change_issue(c, |issue| issue.class = 99)),
        ("certificate.unknown_class", None, |c| {
            change_issue(c, |issue| issue.class_hash = [0; 32])
        }),
        ("certificate.bad_area", None, |c| change_issue(c, |issue| issue.not_after_slot = 1004)),
        ("certificate.bad_area", None, |c| change_issue(c, |issue| issue.window.end = 1000)),
        ("certificate.foreign_part", Some(0), |c| change_issue(c, |issue| issue.nonce32 = [8; 32])),
        ("certificate.bad_signature", None, |c| issue_of(c).key = public(MALLORY).0),
        ("certificate.bad_area", None, |c| {
            change_issue(c, |issue| issue.units = beyond());
        }),
        ("certificate.bad_signature", Some(0), |c| {
            let Hop::Sale { activation, .. } = &mut c.hops[0] else { panic!() };
            *activation = resigned(MALLORY, activation, |_: &mut Activation| ());
        }),
        ("certificate.bad_signature", Some(1), |c| {
            let Hop::Gift { activation, .. } = &mut c.hops[1] else { panic!() };
            *activation = resigned(MALLORY, activation, |_: &mut Activation| ());
        }),
        ("certificate.foreign_part", Some(0), |c| {
            let Hop::Sale { activation, .. } = &mut c.hops[0] else { panic!() };
            *activation = resigned(MALLORY, activation, |activation: &mut Activation| {
                activation.provider = public(MALLORY);
            });
        }),
        ("certificate.foreign_part", Some(0), |c| {
            change_activation(c, 0, |a| a.cert_id = CertId([8; 32]));
        }),
        ("certificate.foreign_part", Some(0), |c| change_lock(c, |l| l.cert_id = CertId([8; 32]))),
        ("certificate.lock_mismatch", Some(0), |c| change_lock(c, |lock| lock.seq += 1)),
        ("certificate.lock_mismatch", Some(0), |c| {
            change_lock(c, |lock| lock.terms_hash = TermsHash([8; 32]));
        }),
        ("certificate.lock_mismatch", Some(0), |c| change_lock(c, |lock| lock.fund_by += 1)),
        ("certificate.preimage", Some(0), |c| {
            let Hop::Sale { transfer, .. } = &mut c.hops[0] else { panic!() };
            transfer.v = 2;
        }),
        ("certificate.preimage", Some(0), |c| {
            let Hop::Sale { transfer, .. } = &mut c.hops[0] else { panic!() };
            transfer.terms_hash = TermsHash([8; 32]);
        }),
        ("certificate.bad_signature", Some(1), |c| {
            let Hop::Gift { gift, .. } = &mut c.hops[1] else { panic!() };
            gift.signature[0][0] ^= 1;
        }),
        ("certificate.not_holder", Some(1), |c| {
            let Hop::Gift { gift, .. } = &mut c.hops[1] else { panic!() };
            *gift = resigned::<capex_core::certificate::objects::Gift>(MALLORY, gift, |_| {});
        }),
        ("certificate.foreign_part", Some(0), |c| {
            let Hop::Sale { lock, .. } = &mut c.hops[0] else { panic!() };
            *lock =
                resigned(MALLORY, lock, |lock: &mut capex_core::settlement::objects::LockGrant| {
                    lock.provider = public(MALLORY);
                });
        }),
        ("certificate.lock_mismatch", Some(0), |c| change_lock(c, |lock| lock.refund_at += 1)),
        ("certificate.preimage", Some(0), |c| {
            let Hop::Sale { transfer, .. } = &mut c.hops[0] else { panic!() };
            transfer.x[0] ^= 1;
        }),
        ("certificate.seq_gap", Some(0), |c| change_activation(c, 0, |a| a.seq = 2)),
        ("certificate.prev_hash", Some(1), |c| {
            change_activation(c, 1, |a| a.consumes[0].prev_hash = [0; 32])
        }),
        ("certificate.changed", Some(0), |c| change_activation(c, 0, |a| a.units = units(2, 6))),
        ("certificate.changed", Some(0), |c| change_activation(c, 0, |a| a.window.end += 1)),
        ("certificate.changed", Some(0), |c| change_activation(c, 0, |a| a.features = 3)),
        ("certificate.cause_mismatch", Some(0), |c| {
            change_activation(c, 0, |a| a.cause_hash = [0; 32])
        }),
        ("certificate.cause_mismatch", Some(0), |c| {
            change_activation(c, 0, |a| a.consumes[0].attempt = 1)
        }),
        ("certificate.cause_mismatch", Some(1), |c| {
            change_activation(c, 1, |a| a.holder_hash = [9; 32]);
        }),
        ("certificate.prev_hash", Some(1), |c| change_activation(c, 0, |a| a.p_height += 1)),
        ("certificate.gift_before_sale", Some(0), |c| {
            let draft = Draft::new(PROVIDER, units(2, 5), WINDOW, &devnet()).give(BOB);
            *c = draft.certificate();
        }),
        ("certificate.not_holder", Some(1), |c| {
            let mut draft = sold();
            draft.holder = MALLORY;
            *c = draft.sell(BOB).certificate();
        }),
        ("certificate.too_many_hops", None, |c| {
            let gift = c.hops[1].clone();
            c.hops.extend(std::iter::repeat_n(gift, 63));
        }),
        ("certificate.seq_gap", Some(2), |c| {
            let mut draft = sold().give(ALICE);
            draft.seq += 1;
            *c = draft.give(BOB).certificate();
        }),
    ];
    let params = devnet();
    let good = sold().give(BOB).certificate();
    verify(&good, &params).unwrap();
    for (index, (code, hop, change)) in table.into_iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        let error = verify(&bad, &params).unwrap_err();
        assert_eq!((error.code(), error.hop), (code, hop), "row {index}");
    }
}

#[test]
fn a_certificate_of_another_network_does_not_verify() {
    let mut other = devnet();
    other.magic[3] ^= 1;
    let error = verify(&sold().certificate(), &other).unwrap_err();
    assert_eq!(error.code(), "certificate.bad_signature");
}

#[test]
fn a_file_reads_back_as_it_was_written() {
    let params = devnet();
    for draft in
        [Draft::new(PROVIDER, units(0, 1), WINDOW, &params), sold(), sold().give(BOB).sell(CAROL)]
    {
        let certificate = draft.certificate();
        let text = write(&certificate, &params);
        assert_eq!(parse(&text, &params).unwrap(), certificate);
        assert_eq!(text.lines().next(), Some("capex-certificate 1 devnet"));
    }
}

#[test]
fn a_broken_file_names_its_line() {
    let params = devnet();
    let text = write(&sold().give(BOB).certificate(), &params);
    let lines: Vec<&str> = text.lines().collect();
    let with = |number: usize, line: &str| {
        let mut lines = lines.clone();
        lines[number - 1] = line;
        lines.join("\n")
    };
    let upper = lines[1].to_uppercase().replace("ISSUE", "issue");
    let short = &lines[2][..lines[2].len() - 2];
    let table = [
        (String::new(), 1, "certificate.file_header"),
        (with(1, "capex-certificate 2 devnet"), 1, "certificate.file_header"),
        (with(1, "capex-certificate 1 mainnet"), 1, "certificate.other_network"),
        (lines[..1].join("\n"), 2, "certificate.file_truncated"),
        (with(2, lines[2]), 2, "certificate.file_kind"),
        (with(2, &upper), 2, "certificate.file_hex"),
        (with(3, short), 3, "certificate.file_hex"),
        (with(4, "lock"), 4, "certificate.file_syntax"),
        (with(4, &format!("{} 00", lines[3])), 4, "certificate.file_syntax"),
        (with(5, &lines[4].replace(" -", " 00")), 5, "certificate.file_syntax"),
        (with(5, "transfer 00 -"), 5, "certificate.file_payload"),
        (with(7, &lines[6].replace("gift ", "swap ")), 7, "certificate.file_kind"),
        (with(7, ""), 7, "certificate.file_kind"),
        (lines[..7].join("\n"), 8, "certificate.file_truncated"),
        (lines[..4].join("\n"), 5, "certificate.file_truncated"),
        ("x".repeat(TEXT_MAX_BYTES), 1, "certificate.file_header"),
        ("x".repeat(TEXT_MAX_BYTES + 1), 1, "certificate.file_too_long"),
    ];
    for (index, (text, line, code)) in table.into_iter().enumerate() {
        let error = parse(&text, &params).unwrap_err();
        assert_eq!((error.line, error.code()), (line, code), "row {index}");
    }
}

#[test]
fn a_certificate_mutated_at_any_byte_is_refused_or_says_the_same() {
    let params = devnet();
    let certificate = sold().give(BOB).certificate();
    let facts = verify(&certificate, &params).unwrap();
    let bytes = wire::encode(&certificate);
    let mut refused = 0;
    for index in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut mutated = bytes.clone();
            mutated[index] ^= bit;
            let read = wire::decode_record::<Certificate>(&mutated);
            match read.ok().and_then(|bad| verify(&bad, &params).ok()) {
                None => refused += 1,
                Some(same) => assert_eq!(same, facts, "byte {index}"),
            }
        }
    }
    // Only the place of the spend, which the chain witnesses, is not signed: 36 bytes.
    assert_eq!(refused, 2 * (bytes.len() - 36));
}

#[test]
fn a_file_mutated_at_any_character_is_refused_or_says_the_same() {
    let params = devnet();
    let text = write(&sold().give(BOB).certificate(), &params);
    let facts = verify(&parse(&text, &params).unwrap(), &params).unwrap();
    for index in (0..text.len()).step_by(3) {
        let mut mutated = text.clone().into_bytes();
        mutated[index] = if mutated[index] == b'1' { b'2' } else { b'1' };
        let mutated = String::from_utf8(mutated).unwrap();
        if let Some(read) = parse(&mutated, &params).ok().and_then(|c| verify(&c, &params).ok()) {
            assert_eq!(read, facts, "character {index}");
        }
    }
}
