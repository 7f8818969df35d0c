use super::kit::{pair, reach, world};
use capex::sim::{Links, World};
use capex_core::engine::contacts::ContactsCommand;

const MINUTE_MS: u64 = 60_000;

fn listen(world: &mut World, node: usize, addr: &str) {
    world.command(node, ContactsCommand::SetAddresses(vec![addr.to_owned()]));
}

#[test]
fn and_one_of_the_two_stops_though_no_gossip_joins_them() {
    let mut world = world(41, 2, Links::GOOD);
    listen(&mut world, 0, "/ip4/10.0.0.1/tcp/1");
    listen(&mut world, 1, "/ip4/10.0.0.2/tcp/1");
    world.run_for(MINUTE_MS / 2);
    // The copy of an image, or a backup that was restored beside its original.
    let second = world.start_second(0).unwrap();
    listen(&mut world, second, "/ip4/10.0.0.3/tcp/1");
    let one = |world: &World| [0, second].iter().any(|node| world.nodes[*node].gave_way);
    assert!(world.run_until(3 * MINUTE_MS, one), "both go on");
    // The other may hear no more of it, and is then the only one.
    world.run_for(3 * MINUTE_MS);
    assert!(world.engine(1).is_some(), "its peer is not concerned");
    for node in [0, second] {
        assert_eq!(world.nodes[node].gave_way, world.engine(node).is_none());
    }
}

#[test]
fn but_neither_a_restart_nor_a_restored_copy_alone_does() {
    let mut world = pair(42, 3);
    listen(&mut world, 0, "/ip4/10.0.0.1/tcp/1");
    let copy = world.nodes[0].disk.records();
    reach(&mut world, 1, "active");
    for restored in [false, true, false] {
        world.crash(0);
        if restored {
            world.nodes[0].disk.write(&copy).unwrap();
        }
        world.start(0);
        // Its peers tell it the Contact of the life before.
        listen(&mut world, 0, "/ip4/10.0.0.1/tcp/1");
        world.run_for(3 * MINUTE_MS);
        assert!(world.engine(0).is_some(), "restored: {restored}");
    }
}
