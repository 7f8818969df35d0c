//! A bid takes a part of what a holder resells, and its owner never asks for terms: nothing is
//! split for it.

use capex::sim::World;
use capex_core::engine::market::StandingState;
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::trades::TradeRequest;

use super::kit::{assert_sound, reach, rest, story, trades};
use super::resale::{
    BUYER, PROVIDER, QTY, RESELLER, facts, held_from, holds, offer, standing, want,
};

fn asks_for_terms(said: &SettleRequest) -> bool {
    matches!(said, SettleRequest::Trade(TradeRequest::Terms(_)))
}

#[test]
fn until_it_asks_for_terms() {
    let (mut world, cert) = held_from(56, 3, 40);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let order = offer(&mut world, cert);
    world.nodes[BUYER].withholds = Some((RESELLER, asks_for_terms));
    want(&mut world, BUYER, 1, window);
    let code = |world: &World| trades(world, RESELLER).into_iter().find_map(|trade| trade.code);
    assert!(world.run_until(20_000, |world| code(world).is_some()), "{}", story(&world));
    assert_eq!(code(&world).as_deref(), Some("trade.buyer_silent"));
    assert_eq!(holds(&world, RESELLER), [(cert, QTY, window)]);
    let provider = world.nodes[PROVIDER].key;
    assert_eq!(world.engine(RESELLER).unwrap().conduct().misses(&provider), None);
    // All of it is on offer still, and sold to the bid when its owner asks.
    let offered = standing(&world, RESELLER, order);
    assert_eq!((offered.state, offered.offers.len()), (StandingState::Open, 1));
    world.nodes[BUYER].withholds = None;
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
    let units = |node| holds(&world, node).iter().map(|held| held.1).sum::<u32>();
    assert_eq!((units(RESELLER), units(BUYER)), (1, 1));
}
