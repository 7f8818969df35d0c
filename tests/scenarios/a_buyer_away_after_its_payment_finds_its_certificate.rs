use super::kit::{assert_sound, is_in, pair, reach, rest, story};

/// The buyer is away from its payment on until its window is near; the provider restarts
/// meanwhile. It is the provider that knows that the sale is paid.
#[test]
fn as_soon_as_it_is_back() {
    for restarts in [false, true] {
        let mut world = pair(29, 2);
        reach(&mut world, 0, "fund_seen");
        world.crash(1);
        reach(&mut world, 0, "settled");
        if restarts {
            world.restart(0, 300);
            world.run_for(2_000);
        }
        world.start(1);
        let back = world.run_until(20_000, |world| is_in(world, 1, "active"));
        assert!(back, "{restarts}: {}", story(&world));
        let held = |world: &capex::sim::World| {
            let engine = world.engine(1)?;
            engine.holdings().views(engine.me(), 0).next()
        };
        assert!(held(&world).is_some(), "{restarts}: {}", story(&world));
        rest(&mut world);
        assert_sound(&world);
    }
}
