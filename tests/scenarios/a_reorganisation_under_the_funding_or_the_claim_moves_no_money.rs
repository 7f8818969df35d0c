//! Blocks leave the chain under each transaction of a settlement, as many as confirm it.

use capex::sim::{Branch, Links, Setup, World};
use capex_core::params::{Params, Profile};

use super::kit::{COINS_SAT, ask, bid, devnet, place, reach, trades, window};
use super::troubles::{BLOCK_MS, BUYER, End, SELLER, assert_end, halt_orders, without_exit};

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
    at_of(patient(), seed, node, state)
}

fn at_of(params: Params, seed: u64, node: usize, state: &str) -> World {
    let setup = Setup { seed, nodes: 2, params, links: Links::GOOD, coins_sat: COINS_SAT };
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
            let mut world = at_of(without_exit(patient()), 42, SELLER, "claimed");
            reorganise(&mut world, depth, branch);
            let label = format!("{depth} blocks under the claim, {branch:?}");
            assert_end(&mut world, &label, End::Settled);
            assert!(!is_by_key(&world), "{label}");
        }
    }
}

#[test]
fn under_the_spend_with_the_buyers_key() {
    for depth in 1..=FINAL_BLOCKS {
        for branch in BRANCHES {
            let mut world = at(42, SELLER, "claimed");
            reorganise(&mut world, depth, branch);
            let label = format!("{depth} blocks under the spend by key, {branch:?}");
            assert_end(&mut world, &label, End::Settled);
            assert!(is_by_key(&world), "{label}");
        }
    }
}

/// The certificate has moved, and its funding is undone, for a while or until others wait for it.
#[test]
fn under_the_funding_of_a_sale_that_was_called_paid() {
    for depth in 1..=FUNDING_CONFIRMATIONS + 1 {
        for branch in BRANCHES {
            for (node, state) in [(SELLER, "quitting"), (BUYER, "active")] {
                let mut world = at(46, node, state);
                world.reorganise(depth, branch);
                let label = format!("{depth} blocks at {state}, {branch:?}");
                assert_end(&mut world, &label, End::Settled);
            }
        }
    }
}

/// Whether the seller has spent with its buyer's key.
fn is_by_key(world: &World) -> bool {
    trades(world, SELLER).iter().any(|trade| trade.is_by_key)
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
