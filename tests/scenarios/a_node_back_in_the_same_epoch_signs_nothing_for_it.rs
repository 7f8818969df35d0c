use super::kit::{ask, assert_sound, bid, devnet, pair, place, reach, rest, trades, window, world};
use capex::sim::{Links, World};
use capex_core::epoch::epoch_at;

fn signed(world: &World, epoch: u64) -> usize {
    world.engine(0).map_or(0, |engine| engine.market().signed_for(epoch).count())
}

#[test]
fn it_waits_for_the_next() {
    let mut world = world(19, 2, Links::GOOD);
    world.set_capacity(0, &[(1, 4)]);
    place(&mut world, 0, ask(1, 500, 4, window(8, 20)));
    // Just after it signed for an epoch, far from the end of its open phase.
    let epoch = epoch_at(world.now_ms, &devnet()) + 1;
    assert!(world.run_until(3_000, |world| signed(world, epoch) > 0));
    world.restart(0, 50);
    world.run_for(100);
    place(&mut world, 0, bid(1, 400, 2, window(8, 20), 2));
    world.run_for(devnet().epoch.open_ms);
    assert_eq!(signed(&world, epoch), 1, "what the life before signed");
    world.run_for(devnet().epoch_ms());
    assert!(signed(&world, epoch + 1) > 0);
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn and_settles_what_it_signed_before() {
    for node in [0, 1] {
        let mut world = pair(19, 2);
        let epoch = epoch_at(world.now_ms, &devnet());
        world.run_for(50);
        assert_eq!(signed(&world, epoch), 1);
        world.restart(node, 50);
        reach(&mut world, 1, "active");
        assert_eq!(trades(&world, 1)[0].row.epoch, epoch, "node {node}");
        rest(&mut world);
        assert_sound(&world);
    }
}
