//! Mempools lose what waits in them, once or at every block.

use super::troubles::{BLOCK_MS, End, MOMENTS, assert_end, world_at};

#[test]
fn at_any_moment() {
    for moment in MOMENTS {
        let mut world = world_at(71, moment);
        world.forget_mempool();
        assert_end(&mut world, &format!("{moment:?}"), End::Settled);
    }
}

#[test]
fn before_every_block_for_a_while() {
    for moment in MOMENTS {
        let mut world = world_at(72, moment);
        for _ in 0..4 {
            world.set_mined_feerate(u64::MAX);
            world.run_for(BLOCK_MS);
            world.forget_mempool();
        }
        world.set_mined_feerate(0);
        assert_end(&mut world, &format!("{moment:?}, four times"), End::Settled);
    }
}
