//! Certificates that change hands often: the provider's word in place of a long history.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificate_fixture;

use capex_core::certificate::{Certificate, Hop, verify};
use capex_core::engine::messages::SettleReply;
use capex_core::engine::register::{Desk, RegisterReply, RegisterRequest};
use capex_core::engine::trades::Titles;
use capex_core::ids::TermsHash;
use capex_core::settlement::objects::Terms;
use capex_core::wire;
use certificate_fixture::party::*;
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
