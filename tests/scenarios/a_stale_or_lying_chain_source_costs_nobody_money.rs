//! One node's view of the chain stands still, or is a branch that confirms nothing.

use capex::sim::{NodeId, World};

use super::troubles::{
    BLOCK_MS, BUYER, End, MOMENTS, PAST_REFUND_MS, PAST_RELEASE_MS, SELLER, assert_end, world_at,
};

const LASTS_MS: [u64; 3] = [3 * BLOCK_MS, PAST_RELEASE_MS, PAST_REFUND_MS];

fn play(seed: u64, what: &str, trouble: fn(&mut World, NodeId)) {
    for moment in MOMENTS {
        for node in [BUYER, SELLER] {
            for lasts_ms in LASTS_MS {
                let mut world = world_at(seed, moment);
                trouble(&mut world, node);
                world.run_for(lasts_ms);
                world.heal_source(node);
                let label = format!("{moment:?}: the source of {node} {what} for {lasts_ms} ms");
                assert_end(&mut world, &label, End::Either);
            }
        }
    }
}

#[test]
fn that_stands_still() {
    play(94, "stands still", World::stall_source);
}

#[test]
fn that_only_hears() {
    play(93, "only hears", World::silence_source);
}

#[test]
fn that_lies() {
    play(92, "lies", World::deceive);
}
