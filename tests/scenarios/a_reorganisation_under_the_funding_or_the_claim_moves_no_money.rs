//! Blocks leave the chain under each transaction of a settlement, as many as confirm it.

use capex::sim::{Branch, Links, Setup, World};
use capex_core::params::{Params, Profile};

use super::kit::{COINS_SAT, ask, bid, devnet, place, reach, window};
use super::troubles::{BLOCK_MS, BUYER, End, SELLER, assert_end, halt_orders};

/// A funding counts after so many confirmations.
const FUNDING_CONFIRMATIONS: u32 = 3;
/// A spend is final after so many.
const FINAL_BLOCKS: u32 = 5;

const BRANCHES: [Branch; 3] = [Branch::Same, Branch::Empty, Branch::Forgetful];

/// A devnet as patient as a public network.
fn patient() -> Params {
    let params = devnet();
    let profile = Profile {
        funding_confirmations: FUNDING_CONFIRMATIONS,
        refund_blocks: 34,
        ..params.profiles[0]
    };
    let chain = capex_core::params::ChainParams { final_blocks: FINAL_BLOCKS, ..params.chain };
    Params { profiles: vec![profile], chain, ..params }.validate().unwrap()
}

fn at(seed: u64, node: usize, state: &str) -> World {
    let setup =
        Setup { seed, nodes: 2, params: patient(), links: Links::GOOD, coins_sat: COINS_SAT };
    let mut world = World::new(setup);
    world.run_for(300);
    world.set_capacity(SELLER, &[(1, 4)]);
    place(&mut world, SELLER, ask(1, 500, 4, window(9, 20)));
    place(&mut world, BUYER, bid(1, 1000, 2, window(9, 20), 3));
    reach(&mut world, node, state);
    halt_orders(&mut world);
    world
}

/// Lets so many blocks pass, then takes as many off, and one more if asked to.
fn reorganise(world: &mut World, depth: u32, branch: Branch) {
    let height = world.chain.height();
    world.run_until(60 * BLOCK_MS, |world| world.chain.height() >= height + depth - 1);
    world.reorganise(depth, branch);
}

#[test]
fn under_the_funding() {
    for depth in 1..=FUNDING_CONFIRMATIONS {
        for branch in BRANCHES {
            let mut world = at(41, BUYER, "fund_confirmed");
            reorganise(&mut world, depth, branch);
            let label = format!("{depth} blocks under the funding, {branch:?}");
            assert_end(&mut world, &label, End::Settled);
        }
    }
}

#[test]
fn under_the_claim() {
    for depth in 1..=FINAL_BLOCKS {
        for branch in BRANCHES {
            let mut world = at(42, SELLER, "claimed");
            reorganise(&mut world, depth, branch);
            let label = format!("{depth} blocks under the claim, {branch:?}");
            assert_end(&mut world, &label, End::Settled);
        }
    }
}

#[test]
fn under_funding_and_claim_together() {
    for branch in BRANCHES {
        let mut world = at(43, SELLER, "claimed");
        reorganise(&mut world, FUNDING_CONFIRMATIONS + 2, branch);
        assert_end(&mut world, &format!("under both, {branch:?}"), End::Settled);
    }
}

#[test]
fn while_one_party_is_away() {
    for (node, state) in [(BUYER, "fund_confirmed"), (SELLER, "claimed")] {
        for away in [BUYER, SELLER] {
            for branch in BRANCHES {
                let mut world = at(44, node, state);
                world.crash(away);
                reorganise(&mut world, 2, branch);
                world.run_for(2 * BLOCK_MS);
                world.start(away);
                let label = format!("at {state} while {away} is away, {branch:?}");
                assert_end(&mut world, &label, End::Settled);
            }
        }
    }
}

#[test]
fn again_and_again() {
    for branch in BRANCHES {
        let mut world = at(45, BUYER, "fund_sent");
        for _ in 0..6 {
            reorganise(&mut world, 2, branch);
        }
        assert_end(&mut world, &format!("again and again, {branch:?}"), End::Either);
    }
}
