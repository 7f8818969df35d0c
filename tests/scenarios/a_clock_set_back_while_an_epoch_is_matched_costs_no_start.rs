use super::kit::{ask, assert_sound_after, devnet, pair, place, rest, window};

/// Until when a node goes on after its epoch has ended for the second time, from there, ms: by then
/// the first answers have come, and those that count not all.
const KILLED_AFTER_MS: u64 = 1_600;

#[test]
fn and_what_was_matched_before_counts_for_nothing() {
    // How long the node needs to write the orders down and to match them while its clock is
    // ahead, and for each of both afterwards.
    for (what, write_ms, match_ms, later_ms) in [
        ("orders written too late", 2_500, 0, 2_500),
        ("a result that comes too late", 50, 3_000, 1_000),
        ("nothing that is late", 0, 0, 0),
    ] {
        let mut world = pair(31, 2);
        let epoch_ms = devnet().epoch_ms();
        let ends_ms = world.now_ms / epoch_ms * epoch_ms + epoch_ms;
        world.nodes[1].computes_for_ms = write_ms;
        world.set_clock(1, i64::try_from(4 * epoch_ms).unwrap());
        world.run_for(20);
        world.nodes[1].computes_for_ms = match_ms;
        world.run_for(100);
        world.nodes[1].computes_for_ms = later_ms;
        world.set_clock(1, 0);
        world.run_for(20);
        // The epoch goes on: its set is another one when it ends again.
        world.set_capacity(0, &[(1, 8)]);
        place(&mut world, 0, ask(1, 600, 1, window(8, 20)));
        world.run_for(ends_ms + KILLED_AFTER_MS - world.now_ms);
        world.restart(1, 100);
        world.run_for(200);
        assert!(world.engine(1).is_some(), "{what}: {:?}", world.faults());
        world.nodes[1].computes_for_ms = 0;
        rest(&mut world);
        assert_sound_after(what, &world);
    }
}
