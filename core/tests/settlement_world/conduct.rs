//! What a party remembers of the others: who broke a promise, and who kept one.

use std::collections::BTreeMap;

use capex_core::engine::kernel::Miss;

use super::*;

impl World {
    /// What a party holds against another.
    pub(crate) fn misses(&self, who: usize, of: usize) -> BTreeMap<Miss, u32> {
        let key = self.parties[of].key();
        self.parties[who].conduct.misses(&key).cloned().unwrap_or_default()
    }

    /// Brings one party back.
    pub(crate) fn heal_only(&mut self, who: usize) {
        self.parties[who].online = true;
        self.parties[who].restart(&self.setup, self.now_ms);
        self.settle(who);
    }
}

pub(crate) fn once(miss: Miss) -> BTreeMap<Miss, u32> {
    BTreeMap::from([(miss, 1)])
}

#[test]
fn who_lets_a_trade_lapse_is_remembered_and_nobody_else() {
    let none = BTreeMap::new;
    // No terms.
    let mut world = World::of_three(Faults::default());
    world.parties[SELLER].online = false;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.misses(BUYER, SELLER), once(Miss::Terms));
    assert_eq!(world.misses(BUYER, PROVIDER), none());

    // No lock.
    let mut world = World::of_three(Faults::default());
    world.parties[PROVIDER].online = false;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.misses(BUYER, PROVIDER), once(Miss::Lock));
    assert_eq!(world.misses(BUYER, SELLER), none());

    // No acknowledgement.
    let mut world = World::of_three(Faults::default()).open();
    world.until("locked", |world| world.state(BUYER) == "locked");
    world.parties[PROVIDER].online = false;
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    assert_eq!(world.misses(BUYER, PROVIDER), once(Miss::Acknowledgement));
    assert_eq!(world.view(BUYER).unwrap().proof, None, "it was not paid");

    // A provider that was paid.
    let mut world = World::of_three(Faults::default()).open();
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("defaulted", |world| world.state(BUYER) == "defaulted");
    assert_eq!(world.misses(BUYER, PROVIDER), once(Miss::Default));
    assert_eq!(world.misses(BUYER, SELLER), none());
}

/// The provider's signature for another is enough, asked for or not in this life.
#[test]
fn a_provider_that_locks_for_two_is_remembered() {
    for is_restarted in [false, true] {
        let mut world = World::of_three(Faults::default()).open();
        world.until("locked", |world| world.state(BUYER) == "locked");
        if is_restarted {
            world.parties[BUYER].online = false;
            world.heal_only(BUYER);
        }
        world.parties[BUYER].registrar.conflict = true;
        world.until("aborted", |world| world.state(BUYER) == "aborted");
        assert_eq!(world.codes()[BUYER].as_deref(), Some("lock.conflict"));
        assert_eq!(world.misses(BUYER, PROVIDER), once(Miss::Lock), "{is_restarted}");
        assert_eq!(world.misses(BUYER, SELLER), BTreeMap::new());
        assert_eq!(world.parties[BUYER].committed_sat(), 0);
    }
}

/// The deadline passed while this node was away, so nobody was asked.
#[test]
fn who_was_not_asked_has_missed_nothing() {
    let mut world = World::new(Faults::default());
    world.parties[SELLER].online = false;
    let mut world = world.open();
    world.parties[BUYER].online = false;
    let until_ms = world.setup.start_ms + world.setup.params.settle.terms_ms;
    world.until("late", |world| world.now_ms > until_ms);
    world.heal_only(BUYER);
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("terms.late"));
    assert_eq!(world.misses(BUYER, SELLER), BTreeMap::new());
}

#[test]
fn a_seller_that_does_not_claim_in_time_is_remembered() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("funded", |world| world.state(BUYER) == "fund_sent");
    world.parties[SELLER].online = false;
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    assert_eq!(world.misses(BUYER, SELLER), once(Miss::Claim));
    assert_eq!(world.misses(BUYER, PROVIDER), BTreeMap::new());
}

/// It must not reveal: the refund would outrun its claim.
#[test]
fn a_seller_that_was_funded_too_late_is_not() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    let fund = world.chain.mempool.clone();
    let fund_by = world.view(BUYER).unwrap().fund_by.unwrap();
    world.until("past F", |world| {
        world.chain.height() >= fund_by || world.state(BUYER) == "cancelling"
    });
    // Nothing is mined until then, and then it is the funding.
    world.chain.hold_all = true;
    world.until("past F", |world| world.chain.height() >= fund_by);
    world.chain.mempool = fund;
    (world.chain.hold_all, world.chain.hold_contracts) = (false, false);
    world.run("refunded", "released");
    assert_eq!(world.misses(BUYER, SELLER), BTreeMap::new());
}

/// One that waits for a block too long is nobody's fault.
#[test]
fn a_funding_that_does_not_confirm_is_held_against_nobody() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.run("cancelled", "released");
    assert_eq!(world.misses(BUYER, SELLER), BTreeMap::new());
}

#[test]
fn a_sale_that_comes_true_makes_good_for_an_earlier_miss() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].has_missed(&Setup::new(), Miss::Terms, SELLER);
    assert_eq!(world.misses(BUYER, SELLER), once(Miss::Terms));
    let mut world = world.open();
    world.run("active", "settled");
    assert_eq!(world.misses(BUYER, SELLER), BTreeMap::new());
}

#[test]
fn a_broadcast_that_is_refused_says_why_until_one_is_taken() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.chain.refuses = Some("mempool full");
    world.until("refunding", |world| world.state(BUYER) == "refunding");
    assert_eq!(world.view(BUYER).unwrap().trouble.as_deref(), Some("mempool full"));
    world.chain.refuses = None;
    world.until("sent", |world| world.view(BUYER).unwrap().trouble.is_none());
    world.until("refunded", |world| world.state(BUYER) == "refunded");

    let mut world = World::new(Faults::default()).open();
    world.until("seen", |world| world.state(SELLER) == "fund_seen");
    world.chain.refuses = Some("mempool full");
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    world.step();
    assert_eq!(world.view(SELLER).unwrap().trouble.as_deref(), Some("mempool full"));
    world.chain.refuses = None;
    world.run("active", "settled");

    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    world.chain.refuses = Some("mempool full");
    world.until("refused", |world| world.view(BUYER).unwrap().trouble.is_some());
    world.chain.refuses = None;
    world.run("cancelled", "released");
}

/// The lock stood for nothing: its payer and the coins it named are left out for a while.
#[test]
fn a_registrar_holds_a_lapsed_funding_against_its_payer_and_its_coins() {
    let mut world = World::of_three(Faults::default()).open();
    world.chain.hold_all = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    world.parties[BUYER].online = false;
    world.until("free", |world| world.parties[PROVIDER].registrar.released.len() == 1);
    assert_eq!(world.misses(PROVIDER, BUYER), once(Miss::Funding));
    assert_eq!(world.misses(PROVIDER, SELLER), BTreeMap::new());
    let (coin, _) = world.setup.coin().remove(0);
    let conduct = &world.parties[PROVIDER].conduct;
    assert!(conduct.is_coin_denied(world.now_ms, coin));
    assert!(!conduct.is_coin_denied(world.now_ms + 3_600_000, coin), "not for ever");

    // A lock whose funding confirmed and was refunded is nobody's miss here.
    let mut world = World::of_three(Faults::default()).open();
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    world.parties[SELLER].online = false;
    world.until("free", |world| world.parties[PROVIDER].registrar.released.len() == 1);
    assert_eq!(world.misses(PROVIDER, BUYER), BTreeMap::new());
}

#[test]
fn a_buyer_that_paid_makes_good_for_an_earlier_miss() {
    let mut world = World::new(Faults::default());
    world.parties[SELLER].has_missed(&Setup::new(), Miss::Terms, BUYER);
    let known = world.misses(SELLER, BUYER);
    assert_eq!(known, once(Miss::Terms));
    let mut world = world.open();
    world.until("claimed", |world| world.state(SELLER) == "claimed");
    assert_eq!(world.misses(SELLER, BUYER), known, "not before it is final");
    world.run("active", "settled");
    assert_eq!(world.misses(SELLER, BUYER), BTreeMap::new());
}

#[test]
fn a_sale_is_told_when_its_claim_is_in_a_block_and_not_before() {
    let mut world = World::new(Faults::default()).open();
    let sold = |world: &World| {
        let told = |event: &&TradeEvent| matches!(event, TradeEvent::Sold { .. });
        world.events[SELLER].iter().filter(told).count()
    };
    world.until("claim", |world| world.state(SELLER) == "claim_sent");
    assert_eq!(sold(&world), 0);
    world.until("block", |world| world.state(SELLER) == "claimed");
    assert_eq!(sold(&world), 1);
}
