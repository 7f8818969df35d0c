//! One wallet funds several trades at once, from four coins and their change.

use capex::sim::{Links, World};

use super::kit::{ask, bid, bought, place, trades, window, world};
use super::troubles::{BLOCK_MS, End, PAST_REFUND_MS, assert_end, halt_orders};

const SELLER: usize = 0;
const BUYER: usize = 1;

/// Trades of one epoch in several classes: each has a funding of its own.
fn many(seed: u64, limits_sat: &[u64]) -> World {
    let mut world = world(seed, 2, Links::GOOD);
    world.set_capacity(SELLER, &[(1, 4), (2, 4), (4, 4)]);
    for (class, limit_sat) in [1, 2, 4].into_iter().zip(limits_sat) {
        place(&mut world, SELLER, ask(class, *limit_sat, 4, window(9, 20)));
        place(&mut world, BUYER, bid(class, *limit_sat, 2, window(9, 20), 3));
        place(&mut world, BUYER, bid(class, *limit_sat, 1, window(9, 20), 2));
    }
    let count = 2 * limits_sat.len();
    let opened = world.run_until(20_000, |world| trades(world, BUYER).len() >= count);
    assert!(opened, "{}", super::kit::story(&world));
    halt_orders(&mut world);
    world
}

#[test]
fn when_all_go_well() {
    let mut world = many(101, &[500, 900, 4_000]);
    assert_end(&mut world, "six at once", End::Settled);
    assert_eq!(bought(&world), 6);
}

/// Fundings that spend each other's change are all replaced, in whatever order.
#[test]
fn when_no_block_takes_them() {
    for (seed, limits) in [(102, [500, 9_000, 15_000]), (103, [15_000, 500, 9_000])] {
        for waits_ms in [4_500, 6_500, 9_000, PAST_REFUND_MS] {
            let mut world = many(seed, &limits);
            world.set_mined_feerate(u64::MAX);
            world.run_for(waits_ms);
            world.set_mined_feerate(0);
            assert_end(&mut world, &format!("{limits:?} wait for {waits_ms} ms"), End::Either);
        }
    }
}

#[test]
fn when_fees_jump_and_the_seller_is_away() {
    for jump in [20, 500] {
        let mut world = many(104, &[500, 9_000, 15_000]);
        world.run_for(BLOCK_MS);
        world.set_feerate(jump * 1_000);
        super::troubles::be_away(&mut world, SELLER, PAST_REFUND_MS);
        world.set_feerate(1_000);
        assert_end(&mut world, &format!("{jump} times"), End::Either);
    }
}

#[test]
fn when_the_buyer_restarts_again_and_again() {
    let mut world = many(105, &[500, 9_000, 15_000]);
    for pause_ms in [150, 350, 700, 1_100, 1_700] {
        world.run_for(pause_ms);
        super::troubles::be_away(&mut world, BUYER, 100);
    }
    assert_end(&mut world, "five restarts", End::Either);
}
