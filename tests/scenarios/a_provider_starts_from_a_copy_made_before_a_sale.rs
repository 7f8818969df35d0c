use super::kit::{bid, bought, pair, place, reach, story, window};
use capex::sim::World;
use capex_core::engine::kernel::Record;

/// Puts a disk back to what it was.
fn restore(world: &World, node: usize, copy: &[Record]) {
    let disk = &world.nodes[node].disk;
    let gone = disk.records().into_iter().map(|record| Record { value: None, ..record });
    let records: Vec<Record> = gone.chain(copy.iter().cloned()).collect();
    disk.write(&records).unwrap();
}

#[test]
fn and_neither_sells_the_same_again_nor_convicts_itself() {
    let mut world = pair(31, 3);
    let copy = world.nodes[0].disk.records();
    reach(&mut world, 1, "active");
    world.crash(0);
    // The copy knows as little of the orders that were signed: their epochs pass.
    world.run_for(7_000);
    restore(&world, 0, &copy);
    world.start(0);
    let halted = |world: &World| world.engine(0).and_then(|engine| engine.register().halted());
    let told = world.run_until(5_000, |world| halted(world).is_some());
    assert!(told, "{}", story(&world));
    assert_eq!(halted(&world), Some("register.behind"));
    place(&mut world, 2, bid(1, 1000, 2, window(8, 20), 3));
    world.run_for(15_000);
    assert_eq!(bought(&world), 1, "{}", story(&world));
    let provider = world.nodes[0].key;
    for (node, engine) in world.engines() {
        assert!(!engine.witness().is_equivocator(provider), "node {node}");
    }
    // It does not forget what it was told.
    world.restart(0, 100);
    world.run_for(500);
    assert_eq!(halted(&world), Some("register.behind"));
}

/// What peers heard outlives their own restarts, or an attacker would only have to wait for one.
#[test]
fn and_is_told_so_by_peers_that_have_all_restarted() {
    let mut world = pair(32, 3);
    let copy = world.nodes[0].disk.records();
    reach(&mut world, 1, "active");
    world.run_for(7_000);
    (0..3).for_each(|node| world.crash(node));
    world.run_for(7_000);
    restore(&world, 0, &copy);
    (0..3).for_each(|node| world.start(node));
    let halted = |world: &World| world.engine(0).and_then(|engine| engine.register().halted());
    let told = world.run_until(5_000, |world| halted(world).is_some());
    assert!(told, "{}", story(&world));
    assert_eq!(halted(&world), Some("register.behind"));
}
