use std::collections::BTreeMap;

use capex::sim::{NodeId, World};
use capex_core::engine::kernel::Miss;
use capex_core::engine::market::StandingState;

use super::kit::{assert_sound, is_in, reach, rest, story, trades};
use super::resale::{
    BUYER, PROVIDER, QTY, RESELLER, facts, held_from, holds, offer, standing, want,
};
use super::troubles::be_away;

/// What a node remembers that another failed to do.
fn misses(world: &World, of: NodeId, by: NodeId) -> BTreeMap<Miss, u32> {
    let key = world.nodes[by].key;
    world.engine(of).unwrap().conduct().misses(&key).cloned().unwrap_or_default()
}

/// How the trades of a node ended that did not come true.
fn codes(world: &World, node: NodeId) -> Vec<String> {
    let void = |state: &str| matches!(state, "aborted" | "released");
    let ended = trades(world, node).into_iter().filter(|trade| void(trade.state));
    ended.filter_map(|trade| trade.code).collect()
}

/// The row of a resale has been matched, and the provider is gone.
fn matched(seed: u64, qty: u32) -> (World, capex_core::ids::CertId) {
    let (mut world, cert) = held_from(seed, 3, 40);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    offer(&mut world, cert);
    want(&mut world, BUYER, qty, window);
    let is_matched = |world: &World| !trades(world, BUYER).is_empty();
    assert!(world.run_until(10_000, is_matched));
    (world, cert)
}

#[test]
fn before_the_lock() {
    let (mut world, cert) = matched(51, QTY);
    world.crash(PROVIDER);
    assert!(world.run_until(10_000, |world| !codes(world, BUYER).is_empty()), "{}", story(&world));
    assert_eq!(codes(&world, BUYER), ["lock.late"]);
    assert_eq!(misses(&world, BUYER, PROVIDER), BTreeMap::from([(Miss::Lock, 1)]));
    assert_eq!(misses(&world, BUYER, RESELLER), BTreeMap::new());
    assert!(world.chain.mempool().is_empty());
    let kept = facts(&world, RESELLER, cert).unwrap();
    assert_eq!((kept.holder, kept.seq), (world.nodes[RESELLER].key, 1));
    // It is offered on, and sold when the provider is back.
    world.start(PROVIDER);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, RESELLER), []);
}

#[test]
fn before_it_has_split_off_what_is_sold() {
    let (mut world, cert) = matched(52, 1);
    world.crash(PROVIDER);
    let ended =
        |world: &World| !codes(world, BUYER).is_empty() && !codes(world, RESELLER).is_empty();
    assert!(world.run_until(15_000, ended), "{}", story(&world));
    assert_eq!(codes(&world, BUYER)[0], "resale.not_split");
    assert_eq!(codes(&world, RESELLER)[0], "resale.not_split");
    assert_eq!(misses(&world, BUYER, RESELLER), BTreeMap::new());
    assert_eq!(misses(&world, RESELLER, PROVIDER), BTreeMap::from([(Miss::Split, 1)]));
    assert!(world.chain.mempool().is_empty());
    let kept = facts(&world, RESELLER, cert).unwrap();
    assert_eq!((kept.holder, kept.seq), (world.nodes[RESELLER].key, 1));
    world.start(PROVIDER);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
    let units = |node| holds(&world, node).iter().map(|held| held.1).sum::<u32>();
    assert_eq!((units(RESELLER), units(BUYER)), (1, 1));
}

/// The holder is away itself until it is too late.
#[test]
fn with_a_holder_that_does_not_hear_of_it() {
    let (mut world, _) = matched(55, 1);
    world.crash(PROVIDER);
    world.run_for(200);
    let patience_ms = 2 * world.params().settle.terms_ms;
    be_away(&mut world, RESELLER, patience_ms + 500);
    assert!(world.run_until(15_000, |world| !codes(world, RESELLER).is_empty()));
    assert_eq!(misses(&world, RESELLER, PROVIDER), BTreeMap::new());
    world.start(PROVIDER);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn for_less_time_than_the_row_has() {
    let (mut world, _) = matched(53, QTY);
    be_away(&mut world, PROVIDER, 700);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(codes(&world, BUYER), [] as [&str; 0]);
}

#[test]
fn that_refuses_the_lock() {
    let (mut world, cert) = held_from(54, 3, 40);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    // It knows nothing of the chain any more, and locks nothing by a height of before.
    world.stall_source(PROVIDER);
    world.run_for(6_000);
    let order = offer(&mut world, cert);
    want(&mut world, BUYER, QTY, window);
    assert!(world.run_until(20_000, |world| !codes(world, BUYER).is_empty()), "{}", story(&world));
    let code = codes(&world, BUYER)[0].clone();
    assert!(["terms.tips_differ", "chain.down"].contains(&code.as_str()), "{code}");
    assert_eq!(misses(&world, BUYER, RESELLER), BTreeMap::new());
    assert!(misses(&world, BUYER, PROVIDER)[&Miss::Lock] > 0);
    assert_eq!(standing(&world, RESELLER, order).state, StandingState::Open);
    assert!(!is_in(&world, BUYER, "fund_sent"));
    world.heal_source(PROVIDER);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
}
