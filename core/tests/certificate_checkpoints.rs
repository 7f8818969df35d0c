//! Certificates that change hands often: the provider's word in place of a long history.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::objects::{Activation, Area, Gift, Merge, Parent, Split};
use capex_core::certificate::{Certificate, Hop, verify};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::io::Done;
use capex_core::engine::kernel::Table;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::{Desk, RegisterReply, RegisterRequest};
use capex_core::engine::trades::Titles;
use capex_core::ids::{CertId, TermsHash};
use capex_core::settlement::objects::Terms;
use capex_core::units::Window;
use capex_core::wire::{self, Envelope, Verified};
use certificate_fixture::party::*;
use certificate_fixture::pieces::area;
use certificate_fixture::*;

const PROVIDER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const CAROL: u8 = 4;

#[test]
fn a_certificate_that_changes_hands_for_ever_never_outgrows_a_message() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    for command in 0..150 {
        let (from, to) = if command % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        net.give(from, command, cert, to);
        assert_eq!(net.party(from).done().last().unwrap().1.as_ref().map(drop), Ok(()));
        for party in [PROVIDER, to] {
            let certificate = net.party(party).books.certificate(&cert).unwrap().clone();
            assert!(certificate.hops.len() <= 34, "{command}");
            let reply = SettleReply::Register(RegisterReply::Certificate(certificate));
            assert!(wire::encode(&reply).len() <= capex_core::limits::SETTLE_MAX_BYTES);
        }
    }
    let certificate = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    let facts = verify(&certificate, &devnet()).unwrap();
    assert_eq!((facts.seq, facts.holder), (151, public(ALICE)));
    assert!(facts.checkpointed_at.is_some(), "what lies before is the provider's word");
    net.restart(PROVIDER);
    net.give(ALICE, 200, cert, BOB);
    assert_eq!(net.state(BOB, cert), ("active", 152, public(BOB)));
}

#[test]
fn a_checkpoint_is_for_the_holder_of_a_long_history() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    let ask =
        |net: &mut Net, peer| match net.settle(PROVIDER, peer, RegisterRequest::Checkpoint(cert)) {
            SettleReply::Register(RegisterReply::Certificate(certificate)) => Ok(certificate),
            SettleReply::Refused { code } => Err(code),
            other => panic!("{other:?}"),
        };
    let refused = Err("checkpoint.not_holder".to_owned());
    assert_eq!(ask(&mut net, BOB), refused);
    let hops = |told: Result<Certificate, String>| told.unwrap().hops.len();
    for command in 0..14 {
        let (from, to) = if command % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        net.give(from, command, cert, to);
    }
    assert_eq!(hops(ask(&mut net, ALICE)), 15, "too short");
    net.give(ALICE, 14, cert, BOB);
    assert_eq!(ask(&mut net, ALICE), refused, "it moved on");
    net.party(PROVIDER).take_effects();
    assert_eq!(hops(ask(&mut net, BOB)), 0);
    assert_eq!(hops(ask(&mut net, BOB)), 0, "the same again");
    // Who bought it still gets its Activation, before and after a restart.
    let terms = net.party(ALICE).books.certificate(&cert).unwrap().hops[0].clone();
    let Hop::Sale { terms, activation, .. } = terms else { panic!() };
    let hash = TermsHash(terms.id::<Terms>(devnet().magic));
    for _ in 0..2 {
        let told = net.party(PROVIDER).with(|_, books, _| {
            let (register, witness) = (&mut books.register, &books.witness);
            let desk = Desk { register, witness };
            let of = |peer| Titles::activation(&desk, hash, peer);
            (of(public(ALICE)), of(public(CAROL)))
        });
        assert_eq!(told, (Some(activation.clone()), None));
        net.restart(PROVIDER);
    }
}

/// A certificate of Alice whose next hop makes its history long enough for a checkpoint.
fn long_held() -> (Net, CertId) {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB, CAROL]);
    let cert = net.sell(7, &units(0, 3), ALICE);
    for command in 0..14 {
        let (from, to) = if command % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        net.give(from, command, cert, to);
    }
    (net, cert)
}

/// What is left of a certificate that Bob has is what its provider says.
fn leave_behind(net: &mut Net, cert: CertId) {
    let reply = net.settle(PROVIDER, BOB, RegisterRequest::Checkpoint(cert));
    let SettleReply::Register(RegisterReply::Certificate(short)) = reply else { panic!() };
    assert_eq!(short.hops.len(), 0);
}

fn assert_given(net: &mut Net, cert: CertId) {
    assert_eq!(net.state(ALICE, cert), ("given", 16, public(BOB)));
    net.give(ALICE, 99, cert, CAROL);
    let refused = (99, Err("gift.not_holder".to_owned()));
    assert_eq!(net.party(ALICE).done().last(), Some(&refused));
}

#[test]
fn a_giver_without_an_answer_hears_of_a_gift_that_was_left_behind() {
    let (mut net, cert) = long_held();
    net.party(PROVIDER).loses = |_| true;
    net.give(ALICE, 14, cert, BOB);
    leave_behind(&mut net, cert);
    assert_eq!(net.state(ALICE, cert).0, "active");
    net.party(PROVIDER).loses = |_| false;
    net.pass(2_000);
    let told = (14, Err("gift.not_holder".to_owned()));
    assert_eq!(net.party(ALICE).done().last(), Some(&told));
    assert_given(&mut net, cert);
}

/// Its request was refused, and a copy of it came later and was granted.
#[test]
fn a_giver_that_was_refused_hears_of_a_gift_that_was_left_behind() {
    let (mut net, cert) = long_held();
    let facts = net.party(PROVIDER).books.register.issued(&cert).unwrap().clone();
    let draft = issue(PROVIDER, 1, facts.units.clone(), facts.window, &devnet());
    let sale = terms(&draft, facts.seq, facts.last_hash, public(ALICE), public(CAROL));
    let sale = by(ALICE, Terms { cert_id: cert, ..sale }, &devnet());
    let accepts = [accept(CAROL, &sale, &devnet())];
    net.party(PROVIDER).with(|ctx, books, _| books.register.lock(ctx, &sale, &accepts).unwrap());
    let gift = HoldingsCommand::Gift { cert, to: public(BOB) };
    net.party(ALICE).command(14, gift, false);
    let asked = net.party(ALICE).take_asked();
    let [(_, SettleRequest::Register(late))] = &asked[..] else { panic!("{asked:?}") };
    net.pass(2_000);
    let told = (14, Err("gift.locked".to_owned()));
    assert_eq!(net.party(ALICE).done().last(), Some(&told));
    let hash = TermsHash(sale.id());
    net.party(PROVIDER).with(|ctx, books, _| books.register.release(ctx, hash, [1; 32]));
    net.party(ALICE).up = false;
    net.settle(PROVIDER, ALICE, late.clone());
    net.pump();
    leave_behind(&mut net, cert);
    assert_eq!(net.state(ALICE, cert).0, "active");
    net.restart(ALICE);
    net.pass(2_000);
    assert_given(&mut net, cert);
}

/// Only its own signature moves what it has: what is here is the better proof against a provider
/// that makes one up.
#[test]
fn a_holder_that_gave_nothing_keeps_what_it_has() {
    let (mut net, cert) = long_held();
    let kept = net.party(ALICE).books.certificate(&cert).unwrap().clone();
    net.party(ALICE).up = false;
    let Parent { cert_id, seq, prev_hash } = head(&mut net, cert);
    let gift = Gift { v: 1, cert_id, seq, prev_hash, to: public(BOB), nonce16: [5; 16] };
    let gift = by(ALICE, gift, &devnet()).envelope().clone();
    net.settle(PROVIDER, ALICE, RegisterRequest::Gift(gift));
    net.pump();
    leave_behind(&mut net, cert);
    net.restart(ALICE);
    net.pass(2_000);
    assert_eq!(net.state(ALICE, cert).0, "active");
    assert_eq!(net.party(ALICE).books.certificate(&cert), Some(&kept));
}

fn head(net: &mut Net, cert: CertId) -> Parent {
    net.party(PROVIDER).books.register.issued(&cert).unwrap().head()
}

/// Cuts a certificate of Bob in two; the ids of the parts.
fn split(net: &mut Net, split: &Verified<Split>) -> Vec<CertId> {
    let request = RegisterRequest::Split(split.envelope().clone());
    let SettleReply::Register(RegisterReply::Activations(activations)) =
        net.settle(PROVIDER, BOB, request)
    else {
        panic!()
    };
    let id = |bytes: &Envelope| bytes.peek::<Activation>().unwrap().cert_id;
    activations.iter().map(id).collect()
}

/// One past goes back to the Issues, the other to a checkpoint of what came of them.
#[test]
fn two_pasts_that_do_not_fit_each_other_are_not_merged() {
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let cert = net.sell(7, &units(0, 4), ALICE);
    assert_pasts_do_not_fit(net, cert);
    // The one that goes further back makes what the checkpoint begins with once more.
    let mut net = Net::new(&[PROVIDER, ALICE, BOB]);
    let halves = [(7, units(0, 2)), (8, units(2, 4))];
    let certs = halves.map(|(trade, units)| net.sell(trade, &units, ALICE)).to_vec();
    net.party(ALICE).command(1, HoldingsCommand::Merge { certs }, false);
    net.pump();
    let Ok(Done::Held { cert }) = net.party(ALICE).done().last().unwrap().1 else { panic!() };
    assert_pasts_do_not_fit(net, cert);
}

fn assert_pasts_do_not_fit(mut net: Net, cert: CertId) {
    for number in 0..15 {
        let (from, to) = if number % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        let Parent { cert_id, seq, prev_hash } = head(&mut net, cert);
        let gift = Gift { v: 1, cert_id, seq, prev_hash, to: public(to), nonce16: [number; 16] };
        let gift = by(from, gift, &devnet()).envelope().clone();
        let reply = net.settle(PROVIDER, from, RegisterRequest::Gift(gift));
        assert!(matches!(reply, SettleReply::Register(RegisterReply::Activation(_))));
    }
    let Parent { cert_id, seq, prev_hash } = head(&mut net, cert);
    let windows = [Window { start: 1000, end: 1002 }, Window { start: 1002, end: 1004 }];
    let parts: Vec<Area> = windows.map(|window| area(0, 4, window)).to_vec();
    let whole = Split { v: 1, cert_id, seq, prev_hash, parts, nonce16: [1; 16] };
    let whole = by(BOB, whole, &devnet());
    // Once with the whole history, and once on a checkpoint: the same parts.
    net.pump();
    let before = net.party(PROVIDER).disk.clone();
    let mut ids = split(&mut net, &whole);
    net.pump();
    let long = net.party(PROVIDER).disk.clone();
    net.party(PROVIDER).disk = before;
    net.restart(PROVIDER);
    net.settle(PROVIDER, BOB, RegisterRequest::Checkpoint(cert));
    assert_eq!(split(&mut net, &whole), ids);
    ids.sort();
    net.pump();
    let short = net.party(PROVIDER).disk.clone();

    let mut parents = [head(&mut net, ids[0]), head(&mut net, ids[1])];
    parents.sort();
    let merge = Merge { v: 1, parts: parents.to_vec(), nonce16: [2; 16] };
    let merge = by(BOB, merge, &devnet()).envelope().clone();
    let of = (Table::Issued.number(), ids[1].0.to_vec());
    let mut mixed = short.clone();
    mixed.insert(of.clone(), long[&of].clone());
    for (disk, code) in [(mixed, Some("merge.histories")), (short, None), (long, None)] {
        net.party(PROVIDER).disk = disk.clone();
        net.restart(PROVIDER);
        let reply = net.settle(PROVIDER, BOB, RegisterRequest::Merge(merge.clone()));
        match (reply, code) {
            (SettleReply::Refused { code: found }, Some(code)) => {
                assert_eq!(found, code);
                net.pump();
                assert_eq!(net.party(PROVIDER).disk, disk, "nothing has changed");
            }
            (SettleReply::Register(RegisterReply::Activation(_)), None) => {}
            other => panic!("{other:?}"),
        }
    }
}
