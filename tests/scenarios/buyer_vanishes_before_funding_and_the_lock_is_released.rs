use super::kit::{assert_sound, bid, bought, is_in, pair, place, reach, rest, story, window};

#[test]
fn and_another_buyer_gets_the_units() {
    let mut world = pair(12, 3);
    reach(&mut world, 0, "lock_granted");
    world.crash(1);
    reach(&mut world, 0, "released");
    assert!(!is_in(&world, 0, "claimed"));
    // All four units in the same window: only possible if the two are free again.
    place(&mut world, 2, bid(1, 1000, 4, window(12, 20), 3));
    assert!(world.run_until(45_000, |world| bought(world) == 1), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}
