//! A sale of three parties: the seller is not the provider.

use super::*;
use capex_core::engine::kernel::Miss;

/// Buyer, reseller and provider are three nodes: the lock and the Activation come from one,
/// the terms and the claim from another.
#[test]
fn a_resale_of_three_parties_ends_with_the_certificate_and_the_payment() {
    let mut world = World::of_three(Faults::default()).open();
    world.run("active", "settled");
    let bought = world.events[BUYER].iter().find_map(|event| match event {
        TradeEvent::Bought { certificate, .. } => Some(certificate.clone()),
        _ => None,
    });
    let facts = verify(&bought.unwrap(), &world.setup.params).unwrap();
    assert_eq!((facts.seq, facts.holder), (2, world.parties[BUYER].key()));
    assert_eq!(facts.provider, world.parties[PROVIDER].key());
    assert_eq!(world.parties[PROVIDER].registrar.activations, 1);
    assert_eq!(world.parties[SELLER].registrar.locks, 0);
    assert_eq!(world.chain.rejected, Vec::<String>::new());
}

#[test]
fn any_one_message_of_a_resale_may_be_lost_or_come_twice() {
    let mut total = usize::MAX;
    let mut lose = 0;
    while lose < total {
        let faults = Faults { lose: Some(lose), ..Faults::default() };
        let mut world = World::of_three(faults).open();
        world.run("active", "settled");
        total = total.min(world.messages - 1);
        lose += 1;
    }
    assert!(total >= 9, "{total}");
    let mut world = World::of_three(Faults { repeat: true, ..Faults::default() }).open();
    world.run("active", "settled");
    let registrar = &world.parties[PROVIDER].registrar;
    assert_eq!((registrar.locks, registrar.activations), (1, 1));
}

#[test]
fn any_party_of_a_resale_may_crash_after_any_write() {
    for (who, least) in [(BUYER, 7), (SELLER, 6), (PROVIDER, 3)] {
        let mut number = 0;
        loop {
            let faults = Faults { crash: Some((who, number)), ..Faults::default() };
            let mut world = World::of_three(faults).open();
            world.run("active", "settled");
            if world.crashes == 0 {
                break;
            }
            number += 1;
        }
        assert!(number >= least, "party {who}: {number}");
    }
}

#[test]
fn a_reseller_that_vanishes_leaves_the_refund() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("funded", |world| world.state(BUYER) == "fund_sent");
    world.parties[SELLER].online = false;
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    world.until("free", |world| world.parties[PROVIDER].registrar.released.len() == 1);
    assert_eq!(world.parties[PROVIDER].registrar.activations, 0);
    world.heal();
    world.run("refunded", "released");
    assert_eq!(world.view(SELLER).unwrap().preimage, None);
}

#[test]
fn a_buyer_that_vanishes_before_it_funds_a_resale_frees_the_lock() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    world.parties[BUYER].online = false;
    world.until("free", |world| world.parties[PROVIDER].registrar.released.len() == 1);
    // The reseller does not hear of it, but knows how long a consent can last.
    let fund_by = world.view(SELLER).unwrap().fund_by.unwrap();
    world.until("released", |world| world.state(SELLER) == "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("fund.not_sent"));
    assert!(world.chain.height() < fund_by);
}

#[test]
fn a_provider_that_vanishes_before_the_lock_costs_nothing() {
    let mut world = World::of_three(Faults::default());
    world.parties[PROVIDER].online = false;
    let mut world = world.open();
    world.run("aborted", "released");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("lock.late"));
    assert!(world.chain.offered.is_empty());
}

#[test]
fn a_provider_that_vanishes_before_its_acknowledgement_keeps_the_funding_at_home() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("locked", |world| world.state(BUYER) == "locked");
    world.parties[PROVIDER].online = false;
    world.until("built", |world| world.state(BUYER) == "fund_built");
    let fund = world.view(BUYER).unwrap().fund.unwrap().txid;
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    assert!(!world.chain.offered.contains(&fund), "the seller's word is not enough");
}

/// A funding can come when its lock is gone, and the seller does not hear of that by itself.
#[test]
fn a_reseller_reveals_nothing_before_the_provider_says_that_its_lock_stands() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("funded", |world| world.state(BUYER) == "fund_sent");
    world.parties[PROVIDER].online = false;
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    world.until("released", |world| world.state(SELLER) == "released");
    assert_eq!(world.view(SELLER).unwrap().preimage, None);
    assert_eq!(world.misses(SELLER, PROVIDER), conduct::once(Miss::Lock));
}

/// The provider has not moved it by then.
#[test]
fn a_reseller_whose_claim_is_undone_and_lost_to_the_refund_holds_again() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("claimed", |world| world.state(SELLER) == "claimed");
    let lost = world.chain.disconnect(1);
    world.chain.forget_mempool();
    world.parties[SELLER].online = false;
    world.facts(&lost);
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    let told = |world: &World| -> Vec<TradeEvent> {
        let is_one = |event: &&TradeEvent| {
            matches!(event, TradeEvent::Sold { .. } | TradeEvent::Unsold { .. })
        };
        world.events[SELLER].iter().filter(is_one).cloned().collect()
    };
    let [TradeEvent::Sold { cert, seq, .. }] = told(&world)[..] else { panic!() };
    world.heal();
    world.until("released", |world| world.state(SELLER) == "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("settle.claim_lost"));
    assert_eq!(told(&world).last(), Some(&TradeEvent::Unsold { cert, seq }));
}
