//! A provider's chain source passes a funding on, and says nothing about it until the buyer's
//! consent has elapsed.

use capex::sim::World;

use super::kit::is_in;
use super::troubles::{BUYER, End, PAST_RELEASE_MS, SELLER, assert_end, world_at};

/// Past the time that the buyer's consent lasts, before the last height of the funding, ms.
const PAST_CONSENT_MS: u64 = 3_500;

fn silent_for(seed: u64, ms: u64) -> World {
    let mut world = world_at(seed, (BUYER, "fund_built"));
    world.silence_source(SELLER);
    world.run_for(ms);
    assert!(!is_in(&world, SELLER, "released"), "seed {seed}: it was given up");
    world.heal_source(SELLER);
    world
}

#[test]
fn the_trade_goes_on_when_it_speaks_again() {
    for seed in 0..4 {
        let mut world = silent_for(seed, PAST_CONSENT_MS);
        assert_end(&mut world, &format!("silent, seed {seed}"), End::Settled);
    }
}

#[test]
fn a_new_life_of_the_provider_remembers_what_it_handed_over() {
    for seed in 4..8 {
        let mut world = world_at(seed, (BUYER, "fund_built"));
        world.silence_source(SELLER);
        world.run_for(500);
        world.restart(SELLER, 200);
        world.run_for(PAST_CONSENT_MS - 500);
        assert!(!is_in(&world, SELLER, "released"), "seed {seed}: it was given up");
        world.heal_source(SELLER);
        assert_end(&mut world, &format!("silent and restarted, seed {seed}"), End::Settled);
    }
}

#[test]
fn it_holds_the_units_no_longer_than_a_funding_that_waits() {
    let mut world = silent_for(9, PAST_CONSENT_MS);
    world.silence_source(SELLER);
    world.run_for(PAST_RELEASE_MS);
    world.heal_source(SELLER);
    assert_end(&mut world, "silent past F + g", End::Either);
}
