//! The cooperative exit: the seller says that it is paid, the provider moves the certificate at
//! once, and the buyer's key lets the seller spend the contract without a script.

use bitcoin::hashes::Hash;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::trades::{TradeReply, TradeRequest};
use capex_core::settlement::exit::HandedKey;
use capex_core::settlement::objects::{Quittance, Transfer};
use capex_core::wire::{decode_record, encode};

use super::*;

/// How long a seller waits for its buyer's key, ms: six blocks, as on a devnet.
const QUIT_MS: u64 = 3_000;

type Of = fn(Faults) -> World;
const BOTH: [Of; 2] = [two, three];

fn two(faults: Faults) -> World {
    of(2, faults)
}

fn three(faults: Faults) -> World {
    of(3, faults)
}

fn of(parties: usize, faults: Faults) -> World {
    let mut world = World::with(parties, faults);
    world.setup.params.settle.quit_ms = QUIT_MS;
    world
}

fn spend(world: &World) -> Option<SpendKind> {
    world.chain.contract_spend(&world.parties[BUYER]).map(|(_, kind)| kind)
}

fn is_quittance(message: &Message) -> bool {
    let Message::Request { bytes, .. } = message else { return false };
    matches!(decode_record(bytes), Ok(SettleRequest::Trade(TradeRequest::Quittance(_))))
}

fn is_key(message: &Message) -> bool {
    let Message::Reply { bytes, .. } = message else { return false };
    matches!(decode_record(bytes), Ok(SettleReply::Trade(TradeReply::Key(_))))
}

fn is_activation(message: &Message) -> bool {
    let Message::Reply { bytes, .. } = message else { return false };
    matches!(decode_record(bytes), Ok(SettleReply::Trade(TradeReply::Activation(_))))
}

fn is_transfer(message: &Message) -> bool {
    let Message::Request { bytes, .. } = message else { return false };
    matches!(decode_record(bytes), Ok(SettleRequest::Trade(TradeRequest::Transfer(_))))
}

/// The last Quittance that the seller sent.
fn quittance(world: &World) -> capex_core::wire::Envelope {
    let sent = world.posted.iter().rev().find_map(|(_, _, _, message)| match message {
        Message::Request { bytes, .. } => match decode_record(bytes) {
            Ok(SettleRequest::Trade(TradeRequest::Quittance(signed))) => Some(signed),
            _ => None,
        },
        _ => None,
    });
    sent.unwrap()
}

fn is_done(world: &World) -> bool {
    [BUYER, SELLER].into_iter().all(|who| world.view(who).unwrap().done)
}

#[test]
fn a_sale_ends_by_the_buyers_key_and_shows_no_script() {
    let mut world = two(Faults::default()).open();
    world.until("active", |world| world.state(BUYER) == "active");
    assert_eq!(spend(&world), None, "nobody waits for a block");
    world.run("active", "settled");
    world.until("done", is_done);
    let (tx, kind) = world.chain.contract_spend(&world.parties[BUYER]).unwrap();
    assert_eq!((kind, tx.vsize()), (SpendKind::Taken, 111));
    // The funding, and one spend.
    let mut offered = world.chain.offered.clone();
    offered.sort_unstable();
    offered.dedup();
    assert_eq!(offered.len(), 2, "no claim was ever sent");
    assert_eq!(world.chain.rejected, Vec::<String>::new());
    let provider = world.provider();
    assert_eq!(world.parties[provider].registrar.activations, 1);
    assert!(!world.parties[BUYER].is_watching(), "nothing is left to watch");

    let (buyer, seller) = (world.view(BUYER).unwrap(), world.view(SELLER).unwrap());
    let txid = tx.compute_txid();
    for view in [&buyer, &seller] {
        assert_eq!((view.claim.unwrap().txid, view.is_by_key), (txid, true));
        assert!(view.steps().iter().any(|step| step.what == "key_spend"));
    }
    assert_eq!(seller.fees_sat, Some(111), "44 vB less than by script");
    assert_eq!(buyer.fees_sat, Some(154));
}

/// What a certificate proves offline: the seller's own signature that it was paid.
#[test]
fn the_certificate_carries_the_sellers_word_in_place_of_a_spend() {
    let mut world = two(Faults::default()).open();
    world.run("active", "settled");
    let bought = world.events[BUYER].iter().find_map(|event| match event {
        TradeEvent::Bought { certificate, .. } => Some(certificate.clone()),
        _ => None,
    });
    let certificate = bought.unwrap();
    let params = &world.setup.params;
    let facts = verify(&certificate, params).unwrap();
    assert_eq!((facts.seq, facts.holder), (1, world.parties[BUYER].key()));
    let Some(Hop::Sale { transfer, .. }) = certificate.hops.last() else { panic!() };
    assert_eq!((transfer.spend_txid, transfer.vin), ([0; 32], 0));
    let signed = transfer.signed_quittance(world.parties[SELLER].key()).unwrap();
    assert_eq!(signed, quittance(&world));
    let text = capex_core::certificate::file::write(&certificate, params);
    let read = capex_core::certificate::file::parse(&text, params).unwrap();
    assert_eq!(read, certificate);

    let changed = |change: fn(&mut Transfer)| {
        let mut certificate = certificate.clone();
        if let Some(Hop::Sale { transfer, .. }) = certificate.hops.last_mut() {
            change(transfer);
        }
        verify(&certificate, params).unwrap_err().code()
    };
    let forged = |transfer: &mut Transfer| transfer.quittance = Some([[7; 32]; 2]);
    assert_eq!(changed(forged), "certificate.bad_signature");
    assert_eq!(changed(|transfer| transfer.vin = 1), "certificate.malformed");
    assert_eq!(changed(|transfer| transfer.spend_txid = [1; 32]), "certificate.malformed");
    assert_eq!(changed(|transfer| transfer.x = [9; 32]), "certificate.preimage");
}

#[test]
fn any_one_message_may_be_lost_or_come_twice() {
    let mut total = usize::MAX;
    let (mut lose, mut by_key) = (0, 0);
    while lose < total {
        let faults = Faults { lose: Some(lose), ..Faults::default() };
        let mut world = two(faults).open();
        world.run("active", "settled");
        by_key += usize::from(spend(&world) == Some(SpendKind::Taken));
        total = total.min(world.messages - 1);
        lose += 1;
    }
    assert_eq!(by_key, total, "each is sent again in time");
    let mut world = two(Faults { repeat: true, ..Faults::default() }).open();
    world.run("active", "settled");
    let registrar = &world.parties[world.provider()].registrar;
    assert_eq!((registrar.locks, registrar.activations), (1, 1));
}

#[test]
fn any_party_may_crash_after_any_write() {
    for (who, least) in [(BUYER, 8), (SELLER, 9)] {
        let mut number = 0;
        loop {
            let faults = Faults { crash: Some((who, number)), ..Faults::default() };
            let mut world = two(faults).open();
            world.run("active", "settled");
            world.until("done", is_done);
            assert_eq!(spend(&world), Some(SpendKind::Taken), "{who} after write {number}");
            if world.crashes == 0 {
                break;
            }
            number += 1;
        }
        assert!(number >= least, "party {who}: {number}");
    }
}

/// The cheaper way costs nobody the sale: without an answer, or with a refusal, the seller claims
/// as ever.
#[test]
fn a_buyer_without_an_answer_is_claimed_from_by_script() {
    // Its answer never comes.
    let mut world = two(Faults::default());
    world.catch = Some(is_key);
    let mut world = world.open();
    world.until("quitting", |world| world.state(SELLER) == "quitting");
    let began_ms = world.now_ms;
    let due = world.view(SELLER).unwrap();
    assert_eq!(due.next, "the buyer gives its key, else the claim is sent by script");
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    assert_eq!(world.now_ms - began_ms, QUIT_MS);
    assert!(!world.caught.is_empty(), "it was asked, and had given it");
    world.run("active", "settled");
    assert!(matches!(spend(&world), Some(SpendKind::Claim(_))));
    world.until("done", is_done);

    // It is gone, and comes back to the claim.
    let mut world = two(Faults::default()).open();
    world.until("final", |world| world.state(BUYER) == "fund_confirmed");
    world.parties[BUYER].online = false;
    world.until("settled", |world| world.state(SELLER) == "settled");
    assert!(matches!(spend(&world), Some(SpendKind::Claim(_))));
    world.heal();
    world.run("active", "settled");
}

#[test]
fn near_its_last_height_a_seller_waits_for_no_key() {
    let mut world = two(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    let quit_by = world.view(BUYER).unwrap().refund_at.unwrap() - 5 - 3;
    world.until("near Q", |world| world.chain.height() + 1 == quit_by);
    world.setup.params.settle.quit_ms = 60_000;
    world.catch = Some(is_quittance);
    world.parties[SELLER].online = true;
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.settle(SELLER);
    world.until("quitting", |world| world.state(SELLER) == "quitting");
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    assert_eq!(world.chain.height(), quit_by, "whatever time it had left by the clock");
    world.run("active", "settled");

    // From there on it does not even begin.
    let mut world = two(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.until("at Q", |world| world.chain.height() == quit_by);
    world.parties[SELLER].online = true;
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.settle(SELLER);
    world.run("active", "settled");
    assert!(!world.posted.iter().any(|(.., message)| is_quittance(message)));
}

#[test]
fn any_other_key_and_any_refusal_end_the_wait() {
    let answers = [
        SettleReply::Trade(TradeReply::Key(HandedKey([9; 32]))),
        SettleReply::Trade(TradeReply::Key(HandedKey([0; 32]))),
        SettleReply::Refused { code: "quittance.too_late".to_owned() },
    ];
    for answer in answers {
        let mut world = two(Faults::default());
        world.catch = Some(is_key);
        let mut world = world.open();
        world.until("asked", |world| !world.caught.is_empty());
        world.catch = None;
        let (from, to, message) = world.caught.remove(0);
        let Message::Reply { id, .. } = message else { panic!() };
        world.post(from, to, Message::Reply { id, bytes: encode(&answer) });
        let asked_ms = world.now_ms;
        world.until("sent", |world| world.state(SELLER) == "claim_sent");
        assert!(world.now_ms - asked_ms <= 2 * DELAY_MS, "{answer:?}");
        world.run("active", "settled");
        assert!(matches!(spend(&world), Some(SpendKind::Claim(_))), "{answer:?}");
    }
}

/// The key alone refunds the contract, so it is for the seller only, and for a certificate.
#[test]
fn a_key_is_given_to_the_seller_alone_and_only_for_the_activation() {
    let mut world = two(Faults::default());
    world.catch = Some(is_transfer);
    let mut world = world.open();
    world.until("asked", |world| world.state(BUYER) == "preimage_known");
    let signed = quittance(&world);
    let (seller, other) = (world.parties[SELLER].key(), world.parties[BUYER].key());
    let ask = |world: &mut World, peer, signed: &capex_core::wire::Envelope| {
        let request = TradeRequest::Quittance(signed.clone());
        let (setup, now_ms) = (&world.setup, world.now_ms);
        world.parties[BUYER].answer(setup, now_ms, peer, request)
    };
    // The provider has not answered yet.
    assert_eq!(ask(&mut world, seller, &signed), Ok(TradeReply::NotYet));
    assert_eq!(world.view(BUYER).unwrap().next, "the claim confirms and the provider activates");
    world.catch = None;
    world.until("active", |world| world.state(BUYER) == "active");
    assert!(matches!(ask(&mut world, seller, &signed), Ok(TradeReply::Key(_))));
    // Whoever else has come by the Quittance.
    assert_eq!(ask(&mut world, other, &signed), Err("quittance.does_not_fit"));
    let quittance: Quittance = signed.peek().unwrap();
    let by = |who: usize, quittance: Quittance| {
        let keys = world.parties[who].keys();
        keys.sign(quittance, &world.setup.params).envelope().clone()
    };
    let wrong =
        [by(BUYER, quittance.clone()), by(SELLER, Quittance { x: [9; 32], ..quittance.clone() })];
    let unknown =
        by(SELLER, Quittance { terms_hash: capex_core::ids::TermsHash([9; 32]), ..quittance });
    let before = world.parties[BUYER].records();
    for signed in wrong {
        assert_eq!(ask(&mut world, seller, &signed), Err("quittance.does_not_fit"));
    }
    assert_eq!(ask(&mut world, seller, &unknown), Err("trade.no_agreement"));
    assert!(world.parties[BUYER].records() == before);
    world.run("active", "settled");
}

/// A registrar is shown a preimage in many ways, of which one moves the certificate.
#[test]
fn a_preimage_without_the_sellers_word_moves_nothing() {
    let mut world = two(Faults::default());
    world.catch = Some(is_transfer);
    let mut world = world.open();
    world.until("asked", |world| world.state(BUYER) == "preimage_known");
    let signed = quittance(&world);
    let Quittance { x, terms_hash, .. } = signed.peek().unwrap();
    let quittance = Some(signed.signature);
    let good = Transfer { v: 1, terms_hash, x, spend_txid: [0; 32], vin: 0, quittance };
    let (provider, buyer) = (world.provider(), world.parties[BUYER].key());
    let show = |world: &mut World, transfer| {
        let request = TradeRequest::Transfer(transfer);
        let (setup, now_ms) = (&world.setup, world.now_ms);
        world.parties[provider].answer(setup, now_ms, buyer, request)
    };
    let before = world.parties[provider].records();
    let gossiped = Transfer { quittance: None, ..good.clone() };
    assert_eq!(show(&mut world, gossiped), Ok(TradeReply::NotYet));
    for wrong in [
        Transfer { quittance: Some([[1; 32]; 2]), ..good.clone() },
        Transfer { x: [9; 32], ..good.clone() },
        Transfer { vin: 1, ..good.clone() },
        Transfer { spend_txid: [1; 32], ..good.clone() },
    ] {
        let got = show(&mut world, wrong.clone());
        assert_eq!(got, Err("quittance.does_not_fit"), "{wrong:?}");
    }
    assert!(world.parties[provider].records() == before);
    assert_eq!(world.parties[provider].registrar.activations, 0);
    assert!(matches!(show(&mut world, good.clone()), Ok(TradeReply::Activation(_))));
    // Repeated it gets the same.
    assert!(matches!(show(&mut world, good), Ok(TradeReply::Activation(_))));
    assert_eq!(world.parties[provider].registrar.activations, 1);
    world.catch = None;
    world.run("active", "settled");
}

/// A seller can lose the price from when the buyer can refund, so from then on its word moves
/// nothing, and the buyer takes its coins back.
#[test]
fn past_the_last_reveal_a_quittance_moves_nothing() {
    let mut world = two(Faults::default());
    world.catch = Some(is_transfer);
    let mut world = world.open();
    world.until("asked", |world| world.state(BUYER) == "preimage_known");
    let refund_at = world.view(BUYER).unwrap().refund_at.unwrap();
    // No block takes what the seller claims meanwhile.
    world.chain.hold_all = true;
    world.until("at R", |world| world.chain.height() == refund_at - 5);
    let (_, _, message) = world.caught.last().cloned().unwrap();
    let Message::Request { bytes, .. } = message else { panic!() };
    let request: SettleRequest = decode_record(&bytes).unwrap();
    let request: TradeRequest = request.try_into().unwrap();
    let buyer = world.parties[BUYER].key();
    let show = |world: &mut World| {
        let (setup, now_ms) = (&world.setup, world.now_ms);
        world.parties[SELLER].answer(setup, now_ms, buyer, request.clone())
    };
    world.parties[SELLER].chain_up = false;
    world.step();
    assert_eq!(show(&mut world), Ok(TradeReply::NotYet), "nobody knows how late it is");
    world.parties[SELLER].chain_up = true;
    world.until("past R", |world| world.chain.height() > refund_at - 5);
    assert_eq!(show(&mut world), Err("quittance.too_late"));
    world.until("T_R", |world| world.state(BUYER) == "refunding");
    assert_eq!(world.chain.height(), refund_at);
    assert_eq!(world.parties[SELLER].registrar.activations, 0);
}

/// The seller is gone with its word given: the buyer has what it paid for, and never refunds.
#[test]
fn a_seller_that_vanishes_after_its_word_leaves_the_certificate_and_may_still_claim() {
    let mut world = two(Faults::default());
    world.catch = Some(is_key);
    let mut world = world.open();
    world.until("asked", |world| !world.caught.is_empty());
    world.parties[SELLER].online = false;
    let view = world.view(BUYER).unwrap();
    assert_eq!((view.state, view.done), ("active", false));
    let past = view.refund_at.unwrap() + 5;
    world.until("past T_R", |world| world.chain.height() > past);
    assert_eq!((world.state(BUYER), spend(&world)), ("active", None));
    world.catch = None;
    world.heal();
    world.run("active", "settled");
    assert!(matches!(spend(&world), Some(SpendKind::Claim(_))));
    world.until("done", is_done);
}

/// However late it is back: what it moved is paid for, though its register has forgotten it.
#[test]
fn a_seller_that_is_back_when_delivery_is_over_claims_what_it_has_moved() {
    let mut world = two(Faults::default());
    world.catch = Some(is_key);
    let mut world = world.open();
    world.until("asked", |world| !world.caught.is_empty());
    world.parties[SELLER].online = false;
    let ends_ms = world.setup.row.window().ends_at_ms(world.setup.params.slot_s);
    world.until("over", |world| world.now_ms > ends_ms + 10_000);
    assert_eq!(spend(&world), None);
    world.catch = None;
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.heal();
    world.until("settled", |world| world.state(SELLER) == "settled");
    assert!(matches!(spend(&world), Some(SpendKind::Claim(_))));
}

/// The provider that called the sale paid is gone for good: the coins come back at `T_R`, as
/// always, though it may have moved the certificate.
#[test]
fn a_buyer_left_alone_with_a_quittance_gets_its_coins_back_in_time() {
    for caught in [is_transfer as fn(&Message) -> bool, is_activation] {
        let mut world = two(Faults::default());
        world.catch = Some(caught);
        let mut world = world.open();
        world.until("asked", |world| !world.caught.is_empty());
        let outlook = world.parties[BUYER].trades().outlook(
            capex_core::engine::trades::Role::Buyer,
            world.setup.trade(),
            &world.setup.params,
        );
        assert_eq!(outlook.due.map(|due| due.what.name()), Some("refund"));
        world.parties[SELLER].online = false;
        let refund_at = world.view(BUYER).unwrap().refund_at.unwrap();
        world.until("T_R", |world| world.chain.height() + 1 == refund_at);
        assert_eq!(world.state(BUYER), "preimage_known");
        world.until("refunding", |world| world.state(BUYER) == "refunding");
        assert_eq!(world.chain.height(), refund_at);
        world.until("refunded", |world| world.state(BUYER) == "refunded");
    }
}

/// What it had signed is good for nothing then: when it comes back its register takes the
/// certificate back, and the buyer takes none that is brought to it.
#[test]
fn what_was_moved_ahead_of_a_refund_is_taken_back() {
    let mut world = two(Faults::default());
    world.catch = Some(is_activation);
    let mut world = world.open();
    world.until("activated", |world| !world.caught.is_empty());
    let (_, _, message) = world.caught.remove(0);
    let Message::Reply { bytes, .. } = message else { panic!() };
    let Ok(SettleReply::Trade(TradeReply::Activation(activation))) = decode_record(&bytes) else {
        panic!()
    };
    let terms_hash = world.view(BUYER).unwrap().terms_hash.unwrap();
    let Quittance { x, .. } = quittance(&world).peek().unwrap();
    let signature = Some(quittance(&world).signature);
    world.parties[SELLER].online = false;
    world.until("refunding", |world| world.state(BUYER) == "refunding");
    let transfer =
        Transfer { v: 1, terms_hash, x, spend_txid: [0; 32], vin: 0, quittance: signature };
    let (setup, now_ms) = (&world.setup, world.now_ms);
    world.parties[BUYER].hear_certificate(setup, now_ms, &transfer, &activation);
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    assert_eq!(world.parties[SELLER].registrar.taken_back, []);
    world.catch = None;
    world.heal();
    world.run("refunded", "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("settle.claim_lost"));
    assert_eq!(world.parties[SELLER].registrar.activations, 1);
    assert_eq!(world.parties[SELLER].registrar.taken_back, [terms_hash]);
    assert!(world.events[BUYER].iter().all(|event| !matches!(event, TradeEvent::Bought { .. })));
}

/// Who keeps the register cannot know whether it is the buyer who takes the coins back, or a
/// reseller that has its key. So a reseller's word moves nothing.
#[test]
fn a_resale_is_claimed_by_script() {
    let mut world = three(Faults::default()).open();
    world.run("active", "settled");
    assert!(matches!(spend(&world), Some(SpendKind::Claim(_))));
    assert!(!world.posted.iter().any(|(.., message)| is_quittance(message)));

    let mut world = three(Faults::default()).open();
    world.until("final", |world| world.state(BUYER) == "fund_confirmed");
    let terms_hash = world.view(BUYER).unwrap().terms_hash.unwrap();
    world.chain.hold_all = true;
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    world.until("revealed", |world| world.view(BUYER).unwrap().preimage.is_some());
    let x = world.view(BUYER).unwrap().preimage.unwrap();
    let quittance = Quittance { v: 1, terms_hash, x };
    let signed = world.parties[SELLER].keys().sign(quittance, &world.setup.params);
    let signed = signed.envelope().clone();
    let signature = Some(signed.signature);
    let transfer =
        Transfer { v: 1, terms_hash, x, spend_txid: [0; 32], vin: 0, quittance: signature };
    let keys = [BUYER, SELLER].map(|who| world.parties[who].key());
    let (setup, now_ms) = (&world.setup, world.now_ms);
    let before = [BUYER, PROVIDER].map(|who| world.parties[who].records());
    let told = TradeRequest::Quittance(signed);
    let got = world.parties[BUYER].answer(setup, now_ms, keys[1], told);
    assert_eq!(got, Err("quittance.resale"));
    let shown = TradeRequest::Transfer(transfer);
    let got = world.parties[PROVIDER].answer(setup, now_ms, keys[0], shown);
    assert_eq!(got, Err("quittance.resale"));
    assert!(before == [BUYER, PROVIDER].map(|who| world.parties[who].records()));
    assert_eq!(world.parties[PROVIDER].registrar.activations, 0);
    world.chain.hold_all = false;
    world.run("active", "settled");
}

#[test]
fn a_provider_that_vanishes_is_proven_by_the_claim() {
    let mut world = three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("defaulted", |world| world.state(BUYER) == "defaulted");
    assert_eq!(world.state(SELLER), "settled");
    let proof = *world.view(BUYER).unwrap().proof.unwrap();
    assert_eq!(proof.transfer.quittance, None);
    let (tx, _) = world.chain.contract_spend(&world.parties[BUYER]).unwrap();
    assert_eq!(proof.transfer.spend_txid, tx.compute_txid().to_byte_array());
}

#[test]
fn what_was_spent_by_key_and_loses_its_block_is_sent_again() {
    for blocks in [1, 2] {
        let mut world = two(Faults::default()).open();
        world.until("claimed", |world| world.state(SELLER) == "claimed");
        let lost = world.chain.disconnect(blocks);
        let spent = world.view(SELLER).unwrap().claim.unwrap().txid;
        assert!(lost.contains(&spent));
        world.chain.forget_mempool();
        world.facts(&lost);
        assert_eq!((world.state(SELLER), world.state(BUYER)), ("claim_sent", "active"));
        world.run("active", "settled");
        assert_eq!(spend(&world), Some(SpendKind::Taken));
        world.until("done", is_done);
    }
}

/// A spend by key that waits pays more as the refund nears, like any claim.
#[test]
fn a_spend_by_key_that_waits_is_replaced_by_a_better_one() {
    let mut world = two(Faults::default()).open();
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    world.chain.hold_all = true;
    let first = world.view(SELLER).unwrap().claim.unwrap();
    world.until("bumped", |world| {
        world.view(SELLER).unwrap().claim.is_some_and(|tx| tx.txid != first.txid)
    });
    // After a restart too: the key is on disk.
    let second = world.view(SELLER).unwrap().claim.unwrap();
    assert!(second.fee_sat > first.fee_sat && second.vsize == 111);
    world.parties[SELLER].restart(&world.setup, world.now_ms);
    world.settle(SELLER);
    world.until("bumped again", |world| {
        world.view(SELLER).unwrap().claim.is_some_and(|tx| tx.txid != second.txid)
    });
    world.chain.hold_all = false;
    world.run("active", "settled");
    assert_eq!(spend(&world), Some(SpendKind::Taken));
}

/// A buyer from an older copy than its hand-over: the contract is spent with its own key.
#[test]
fn a_buyer_that_lost_its_handover_ends_by_the_certificate_and_never_refunds() {
    let mut world = two(Faults::default()).open();
    world.until("confirmed", |world| world.state(BUYER) == "fund_confirmed");
    let old = world.parties[BUYER].records();
    world.run("active", "settled");
    let bought = world.events[BUYER].iter().find_map(|event| match event {
        TradeEvent::Bought { certificate, .. } => certificate.hops.last().cloned(),
        _ => None,
    });
    let Some(Hop::Sale { transfer, activation, .. }) = bought else { panic!() };
    world.parties[BUYER].restore(old);
    world.parties[BUYER].restart(&world.setup, world.now_ms);
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "fund_confirmed");
    let past = world.view(BUYER).unwrap().refund_at.unwrap() + 3;
    world.until("past T_R", |world| world.chain.height() > past);
    assert_eq!(world.state(BUYER), "fund_confirmed", "a refund would be in vain");
    assert!(world.view(BUYER).unwrap().is_by_key);
    let provider = world.parties[world.provider()].key();
    let asks = |event: &TradeEvent| matches!(event, TradeEvent::Missing { provider: at, .. } if *at == provider);
    assert!(world.events[BUYER].iter().any(asks), "for its certificate");
    let (setup, now_ms) = (&world.setup, world.now_ms);
    world.parties[BUYER].hear_certificate(setup, now_ms, &transfer, &activation);
    world.settle(BUYER);
    world.run("active", "settled");
    assert_eq!(world.chain.rejected, Vec::<String>::new());
}

/// The same, and nobody brings the certificate: the trade ends with its window, and blames nobody
/// for what this node has lost itself.
#[test]
fn a_lost_handover_without_a_certificate_ends_with_the_window() {
    let mut world = two(Faults::default()).open();
    world.until("confirmed", |world| world.state(BUYER) == "fund_confirmed");
    let old = world.parties[BUYER].records();
    world.run("active", "settled");
    world.parties[BUYER].restore(old);
    world.parties[BUYER].restart(&world.setup, world.now_ms);
    world.settle(BUYER);
    world.until("defaulted", |world| world.state(BUYER) == "defaulted");
    let view = world.view(BUYER).unwrap();
    assert_eq!((view.done, view.proof), (true, None));
    let provider = world.parties[world.provider()].key();
    assert_eq!(world.parties[BUYER].conduct.misses(&provider), None);
}

/// A seller from an older copy than its reveal: what it then spent is still its payment.
#[test]
fn a_seller_that_lost_its_reveal_is_paid_all_the_same() {
    for before in ["lock_granted", "quitting"] {
        let mut world = two(Faults::default()).open();
        world.until(before, |world| world.state(SELLER) == before);
        let old = world.parties[SELLER].records();
        world.until("claimed", |world| world.state(SELLER) == "claimed");
        world.parties[SELLER].restore(old);
        world.parties[SELLER].restart(&world.setup, world.now_ms);
        world.settle(SELLER);
        world.run("active", "settled");
        assert_eq!(spend(&world), Some(SpendKind::Taken), "{before}");
    }
}

#[test]
fn random_troubles_never_cost_anybody() {
    let mut taken = 0;
    for of in BOTH {
        for seed in 0..100 {
            let faults = Faults { random: Some(seed), ..Faults::default() };
            let mut world = of(faults).open();
            let troubles_end = world.now_ms + 1_000 + seed % 20 * 1_000;
            let patience = if seed % 3 == 0 { 400 } else { 20 };
            while world.now_ms < troubles_end {
                world.troubled_step(patience);
            }
            world.heal();
            let done = |world: &World, who| world.view(who).is_none_or(|view| view.done);
            world.until(&format!("done (seed {seed})"), |world| {
                done(world, BUYER) && done(world, SELLER)
            });
            let states = world.states();
            match spend(&world) {
                Some(kind @ (SpendKind::Claim(_) | SpendKind::Taken)) => {
                    assert_eq!(states, ["active", "settled"], "seed {seed}");
                    taken += usize::from(kind == SpendKind::Taken);
                }
                Some(SpendKind::Refund) => {
                    assert_eq!(states, ["refunded", "released"], "seed {seed}");
                }
                _ => assert!(
                    matches!(states, ["aborted" | "cancelled", "released"]),
                    "seed {seed} {states:?}"
                ),
            }
            let bad = |refused: &&String| {
                refused.starts_with("script") || refused.starts_with("non-final")
            };
            assert_eq!(world.chain.rejected.iter().find(bad), None, "seed {seed}");
        }
    }
    assert!(taken > 20, "{taken} ended by key");
}
