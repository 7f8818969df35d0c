use super::kit::{assert_sound, bought, pair, reach, rest, story};

#[test]
fn the_trade_settles_all_the_same() {
    for state in ["lock_granted", "fund_seen", "claim_sent", "claimed"] {
        for away_ms in [50, 700] {
            let mut world = pair(13, 2);
            reach(&mut world, 0, state);
            world.restart(0, away_ms);
            rest(&mut world);
            assert_sound(&world);
            assert_eq!(bought(&world), 1, "{state}, {away_ms} ms: {}", story(&world));
        }
    }
}
