//! Block space becomes dearer in the middle of a settlement, and cheaper again later.

use super::kit::reach;
use super::troubles::{
    BLOCK_MS, BUYER, End, MOMENTS, PAST_REFUND_MS, PAST_RELEASE_MS, SELLER, assert_end, world_at,
};

/// What relays at all, sat per 1,000 vB.
const FLOOR_SAT_KVB: u64 = 1_000;
const JUMPS: [u64; 3] = [1, 20, 500];
const LASTS_MS: [u64; 3] = [3 * BLOCK_MS, PAST_RELEASE_MS, PAST_REFUND_MS + 4_000];

#[test]
fn whenever_it_comes_and_however_long_it_lasts() {
    for moment in MOMENTS {
        for jump in JUMPS {
            for lasts_ms in LASTS_MS.into_iter().take(if jump == 1 { 1 } else { 3 }) {
                let mut world = world_at(61, moment);
                world.set_feerate(jump * FLOOR_SAT_KVB);
                world.run_for(lasts_ms);
                world.set_feerate(FLOOR_SAT_KVB);
                let end = if jump == 1 { End::Settled } else { End::Either };
                assert_end(&mut world, &format!("{moment:?}: {jump} times for {lasts_ms} ms"), end);
            }
        }
    }
}

#[test]
fn nor_does_one_that_no_estimate_tells() {
    for moment in MOMENTS {
        for lasts_ms in LASTS_MS {
            let mut world = world_at(62, moment);
            world.set_mined_feerate(u64::MAX);
            world.run_for(lasts_ms);
            world.set_mined_feerate(0);
            assert_end(&mut world, &format!("{moment:?}: no block for {lasts_ms} ms"), End::Either);
        }
    }
}

#[test]
fn a_funding_that_no_block_takes_is_replaced_and_the_replacement_bumped() {
    let mut world = world_at(63, (BUYER, "fund_sent"));
    world.set_mined_feerate(3 * FLOOR_SAT_KVB);
    reach(&mut world, BUYER, "cancelling");
    world.set_feerate(20 * FLOOR_SAT_KVB);
    world.run_for(4 * BLOCK_MS);
    reach(&mut world, SELLER, "released");
    assert_end(&mut world, "a replacement in a market of 20 sat/vB", End::Undone);
}
