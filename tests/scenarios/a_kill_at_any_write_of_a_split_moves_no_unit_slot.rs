//! Holder, provider or the one who is given a part dies on either side of each of its writes, and
//! comes back.

use std::ops::RangeInclusive;

use capex::sim::{Kill, NodeId};

use super::recuts::{Cut, FRIEND, HOLDER, PROVIDER, assert_kept, tell};

const SEED: u64 = 61;

/// Writes of a node while all goes well.
fn writes(cut: Cut, node: NodeId) -> RangeInclusive<u64> {
    let mut world = cut.begin(SEED);
    let before = world.nodes[node].disk.writes();
    let done = tell(&mut world, cut);
    assert!(matches!(done, Some(Ok(_))), "{cut:?}: {done:?}");
    assert_kept(&mut world, &format!("{cut:?}, nobody dies"));
    assert!(cut.is_done(&world), "{cut:?}");
    before + 1..=world.nodes[node].disk.writes()
}

fn kill_at_each(node: NodeId) {
    let mut rows = 0;
    for cut in Cut::ALL {
        for write in writes(cut, node) {
            for side in [Kill::Before, Kill::After] {
                let mut world = cut.begin(SEED);
                world.nodes[node].disk.kill_at(write, side);
                let command = cut.command(&world);
                world.command(HOLDER, command);
                let label = format!("{cut:?}: node {node} dies {side:?} write {write}");
                let died = world.run_until(8_000, |world| world.nodes[node].disk.is_dead());
                assert!(died, "{label}");
                // Long enough for others to find it gone.
                world.run_for(1_500);
                world.start(node);
                assert_kept(&mut world, &label);
                // Only what the holder had not written down before it died is forgotten.
                let is_forgotten = node == HOLDER && side == Kill::Before;
                assert!(cut.is_done(&world) || is_forgotten, "{label}");
                rows += 1;
            }
        }
    }
    assert!(rows >= 12 || node == FRIEND, "{rows} rows");
}

#[test]
fn of_the_holder() {
    kill_at_each(HOLDER);
}

#[test]
fn of_the_provider() {
    kill_at_each(PROVIDER);
}

#[test]
fn of_the_one_who_is_given_a_part() {
    kill_at_each(FRIEND);
}
