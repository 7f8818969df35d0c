use super::kit::{TRADE_MS, assert_sound, bought, pair, rest, story, trades};
use capex::sim::{Kill, NodeId, World};

fn settle(world: &mut World) {
    world.run_until(TRADE_MS, |world| bought(world) == 1);
    rest(world);
}

/// Writes of each node before the trade, and after it.
fn writes() -> [(u64, u64); 2] {
    let mut world = pair(14, 2);
    let before = [0, 1].map(|node| world.nodes[node].disk.writes());
    settle(&mut world);
    assert_eq!(bought(&world), 1, "{}", story(&world));
    [0, 1].map(|node| (before[node], world.nodes[node].disk.writes()))
}

fn killed_at(node: NodeId, write: u64, side: Kill) -> World {
    let mut world = pair(14, 2);
    world.nodes[node].disk.kill_at(write, side);
    if world.run_until(2 * TRADE_MS, |world| world.engine(node).is_none()) {
        world.restart(node, 200);
    }
    world.run_for(300);
    settle(&mut world);
    world
}

fn every_end_is_whole(side: Kill) {
    let mut settled = 0;
    let mut runs = 0;
    for (node, (first, last)) in writes().into_iter().enumerate() {
        for write in first + 1..=last {
            let world = killed_at(node, write, side);
            assert_sound(&world);
            let ends = trades(&world, 1);
            let whole = ["active", "aborted", "cancelled", "refunded"];
            assert!(
                !ends.is_empty() && ends.iter().all(|trade| whole.contains(&trade.state)),
                "node {node}, {side:?} write {write}: {}",
                story(&world)
            );
            runs += 1;
            settled += usize::from(bought(&world) > 0);
        }
    }
    // A void row is matched again in the next epoch, so most runs end in a sale.
    assert!(runs > 20 && settled * 4 > runs * 3, "{settled} of {runs}");
}

#[test]
fn a_write_that_did_not_happen_leaves_nothing_half_done() {
    every_end_is_whole(Kill::Before);
}

#[test]
fn a_write_that_nothing_followed_leaves_nothing_half_done() {
    every_end_is_whole(Kill::After);
}
