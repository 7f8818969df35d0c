//! Deadlines are kept by the clock, also while no block comes, and what has ended is let go of.

use super::*;

/// A world in which no block comes.
fn without_blocks(of: fn(Faults) -> World) -> World {
    let mut world = of(Faults::default());
    world.next_block_ms = u64::MAX;
    world
}

#[test]
fn an_offer_that_nobody_takes_ends_after_twice_the_time_of_terms() {
    let mut world = without_blocks(World::new);
    world.open_sell();
    world.until("released", |world| world.state(SELLER) == "released");
    let waited_ms = world.now_ms - world.setup.start_ms;
    let patience_ms = 2 * world.setup.params.settle.terms_ms;
    assert!((patience_ms..patience_ms + 100).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn a_lock_that_nobody_funds_ends_with_its_consent() {
    let mut world = without_blocks(World::of_three).open();
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    let (since_ms, settle) = (world.now_ms, world.setup.params.settle);
    world.parties[BUYER].online = false;
    world.until("free", |world| world.parties[PROVIDER].registrar.released.len() == 1);
    assert!(world.now_ms <= since_ms + settle.fund_ms + 100);
    world.until("released", |world| world.state(SELLER) == "released");
    assert!(world.now_ms <= since_ms + settle.fund_ms + settle.terms_ms + 100);
}

#[test]
fn who_waits_has_a_timer_and_who_has_ended_watches_nothing() {
    let mut world = World::of_three(Faults::default()).open();
    for who in [BUYER, SELLER] {
        assert!(world.parties[who].next_timer().is_some());
    }
    world.until("funded", |world| world.state(BUYER) == "fund_confirmed");
    assert!(world.everybody().all(|who| world.parties[who].is_watching()));
    world.run("active", "settled");
    let idle = |world: &World, who: usize| {
        !world.parties[who].is_watching() && world.parties[who].next_timer().is_none()
    };
    world.until("at rest", |world| world.everybody().all(|who| idle(world, who)));

    // A trade that never had a funding.
    let mut world = World::of_three(Faults::default()).open();
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    world.parties[BUYER].online = false;
    world.until("released", |world| world.state(SELLER) == "released");
    world.until("at rest", |world| idle(world, PROVIDER) && idle(world, SELLER));

    // One whose funding was replaced by a better form.
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    let first = world.view(BUYER).unwrap().fund.unwrap().txid;
    world.chain.feerates = vec![(2, 5_000)];
    world.chain.mine();
    world.facts(&[]);
    assert_ne!(world.view(BUYER).unwrap().fund.unwrap().txid, first);
    world.chain.hold_contracts = false;
    world.run("active", "settled");
    world.until("at rest", |world| world.everybody().all(|who| idle(world, who)));
}

#[test]
fn only_a_buyer_has_money_set_aside() {
    let mut world = World::of_three(Faults::default()).open();
    world.until("bought", |world| {
        for who in [SELLER, PROVIDER] {
            assert_eq!(world.parties[who].committed_sat(), 0, "{:?}", world.states());
        }
        world.state(BUYER) == "active"
    });
}

#[test]
fn a_node_opens_no_more_trades_than_it_can_carry() {
    const MOST: u64 = 1024;
    let mut world = World::new(Faults::default());
    let seller = world.parties[SELLER].key();
    let mut open = |n: u64| {
        world.setup.row.buy[..8].copy_from_slice(&n.to_be_bytes());
        let told = world.parties[BUYER].try_buy(&world.setup, world.now_ms, seller, seller);
        told.into_iter().find_map(|event| match event {
            TradeEvent::Void { code, .. } => Some(code),
            _ => None,
        })
    };
    for n in 0..MOST {
        assert_eq!(open(n), None, "{n}");
    }
    assert_eq!(open(MOST).as_deref(), Some("trade.too_many_open"));
}
