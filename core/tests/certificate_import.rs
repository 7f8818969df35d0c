//! Certificates that come back from their files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::{Certificate, Hop};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::Done;
use capex_core::wire::Envelope;
use certificate_fixture::party::*;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;

/// A party imports a certificate; its answer, and whether anything was written.
fn import(
    net: &mut Net,
    who: u8,
    certificate: &Certificate,
    provider: Option<u8>,
    is_known: bool,
) -> (Result<Done, String>, bool) {
    net.pump();
    let before = net.party(who).records();
    let certificate = Box::new(certificate.clone());
    let import = HoldingsCommand::Import { certificate, provider: provider.map(public) };
    let here = net.party(who).command(77, import, is_known);
    net.pump();
    let (_, result) = net.party(who).done().last().unwrap().clone();
    assert_eq!(here.is_some(), result.is_ok(), "a buyer is told of what is here, and nothing else");
    (result, net.party(who).records() != before)
}

#[test]
fn what_a_lost_directory_held_comes_back_from_its_file() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let sold = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    net.party(ALICE).disk.clear();
    net.restart(ALICE);
    net.party(PROVIDER).up = false;
    let unknown = Err("acquire.unknown_provider".to_owned());
    assert_eq!(import(&mut net, ALICE, &sold, None, false), (unknown, false));
    let other = Err("acquire.other_provider".to_owned());
    assert_eq!(import(&mut net, ALICE, &sold, Some(BOB), true), (other, false));
    assert_eq!(import(&mut net, ALICE, &sold, Some(PROVIDER), false), (Ok(Done::Ok), true));
    assert_eq!(import(&mut net, ALICE, &sold, None, false), (Ok(Done::Ok), false), "again");
    net.restart(ALICE);
    assert_eq!(net.state(ALICE, cert), ("active", 1, public(ALICE)));
    net.party(PROVIDER).up = true;
    net.give(ALICE, 1, cert, BOB);
    assert_eq!(net.state(BOB, cert), ("active", 2, public(BOB)));
    let stale = Err("acquire.stale".to_owned());
    assert_eq!(import(&mut net, ALICE, &sold, None, true), (stale, false), "it is Bob's now");
}

#[test]
fn a_file_that_does_not_make_this_node_the_holder_changes_nothing() {
    let mut net = Net::new(&[PROVIDER, ALICE]);
    let draft = || Draft::new(PROVIDER, units(0, 1), WINDOW, &devnet());
    let held = draft().sell(ALICE).give(BOB).give(ALICE);
    assert_eq!(import(&mut net, ALICE, &held.certificate(), None, true), (Ok(Done::Ok), true));
    let changed = |change: fn(&mut Certificate)| {
        let mut certificate = held.certificate();
        change(&mut certificate);
        certificate
    };
    let last = |certificate: &mut Certificate, change: fn(&mut Envelope)| {
        let Some(Hop::Gift { activation, .. }) = certificate.hops.last_mut() else { panic!() };
        change(activation);
    };
    let forged = {
        let mut certificate = held.certificate();
        last(&mut certificate, |activation| activation.signature[0][0] ^= 1);
        certificate
    };
    let other = Draft::new(PROVIDER, units(4, 5), WINDOW, &devnet()).sell(ALICE).certificate();
    let mut foreign = other.clone();
    foreign.hops.extend(held.certificate().hops.pop());
    let by_another = Draft::new(CAROL, units(0, 1), WINDOW, &devnet()).sell(ALICE).certificate();
    let spliced = Certificate { bases: draft().certificate().bases, hops: by_another.hops };
    let table: Vec<(&str, Certificate)> = vec![
        ("acquire.not_holder", draft().sell(BOB).certificate()),
        ("acquire.not_holder", draft().certificate()),
        ("acquire.stale", draft().sell(ALICE).certificate()),
        ("acquire.contradicted", draft().sell(CAROL).give(BOB).give(ALICE).certificate()),
        ("certificate.bad_signature", forged),
        ("certificate.foreign_part", foreign),
        ("certificate.foreign_part", spliced),
        ("certificate.not_holder", changed(|certificate| drop(certificate.hops.remove(1)))),
    ];
    for (index, (code, certificate)) in table.into_iter().enumerate() {
        let (result, is_written) = import(&mut net, ALICE, &certificate, None, true);
        assert_eq!((result, is_written), (Err(code.to_owned()), false), "row {index}");
    }
    let past = Draft::new(PROVIDER, units(8, 9), WINDOW, &devnet()).sell(ALICE).certificate();
    net.party(ALICE).now_ms = 4_000 * u64::from(WINDOW.end);
    let late = Err("acquire.window_past".to_owned());
    assert_eq!(import(&mut net, ALICE, &past, None, true), (late, false));
}
