use super::kit::{
    COINS_SAT, TRADE_MS, ask, assert_sound, bid, is_in, place, rest, story, trades, window, world,
};
use capex::sim::{Links, World};

/// More than any node of this world pays.
const CROWDED_SAT_KVB: u64 = 1_000_000;

/// Two purchases in one epoch, the second paid with change of the first: both fundings are
/// out, in the first world after a seed in which links are fast enough for that.
fn two_fundings(from: u64) -> World {
    let funded = |seed| {
        let mut world = two_purchases(seed);
        world.run_until(5_000, |world| buyers(world, "fund_sent") == 2).then_some(world)
    };
    (from..from + 20).find_map(funded).expect("a world with two fundings")
}

fn two_purchases(seed: u64) -> World {
    let mut world = world(seed, 2, Links::GOOD);
    world.set_capacity(0, &[(1, 4), (2, 4)]);
    place(&mut world, 0, ask(1, 100_000, 4, window(8, 20)));
    place(&mut world, 0, ask(2, 500, 4, window(8, 20)));
    // All four coins of the wallet, then what comes back of them.
    place(&mut world, 1, bid(1, 100_000, 1, window(8, 20), 3));
    place(&mut world, 1, bid(2, 1_000, 2, window(8, 20), 3));
    world.set_mined_feerate(CROWDED_SAT_KVB);
    world
}

fn buyers(world: &World, state: &str) -> usize {
    trades(world, 1).iter().filter(|trade| trade.state == state).count()
}

#[test]
fn and_no_coin_stays_locked() {
    for (seed, is_restarted) in [(21, false), (22, true)] {
        let mut world = two_fundings(seed);
        let both = |world: &World| buyers(world, "cancelling") == 2;
        assert!(world.run_until(TRADE_MS, both), "{}", story(&world));
        if is_restarted {
            world.restart(1, 100);
            world.run_for(1_000);
        }
        world.set_mined_feerate(0);
        rest(&mut world);
        assert_sound(&world);
        assert_eq!(buyers(&world, "cancelled"), 2, "{}", story(&world));
        let balance = world.balance(1).unwrap();
        assert_eq!((balance.locked_sat, balance.pending_sat), (0, 0));
        assert_eq!(balance.spendable_sat, balance.confirmed_sat);
        assert!(balance.confirmed_sat > COINS_SAT - 3_000, "{balance:?}");
    }
}

#[test]
fn and_the_second_goes_on_if_the_first_confirms_after_all() {
    let mut world = two_fundings(21);
    world.set_mined_feerate(0);
    rest(&mut world);
    assert_sound(&world);
    assert!(is_in(&world, 1, "active"), "{}", story(&world));
    assert_eq!(buyers(&world, "active"), 2, "{}", story(&world));
}
