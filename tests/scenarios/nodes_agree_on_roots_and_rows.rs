use super::kit::{ask, assert_sound, bid, bought, place, rest, story, window, world};
use capex::sim::Links;

#[test]
fn on_good_links_every_node_computes_the_same_and_every_bid_is_filled() {
    let mut world = world(1, 5, Links::GOOD);
    world.set_capacity(0, &[(1, 6)]);
    world.set_capacity(1, &[(1, 6)]);
    place(&mut world, 0, ask(1, 400, 6, window(8, 30)));
    place(&mut world, 1, ask(1, 500, 6, window(8, 30)));
    for buyer in 2..5 {
        place(&mut world, buyer, bid(1, 900 + buyer as u64, 2, window(8, 30), 3));
    }
    assert!(world.run_until(45_000, |world| bought(world) == 3), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
    let first = world.engine(0).unwrap();
    let mut rows = 0;
    for (epoch, view) in first.market().epochs.iter().filter(|(_, view)| view.result.is_some()) {
        rows += view.result.as_ref().unwrap().rows.len();
        for (node, engine) in world.engines() {
            let other = engine.market().epochs.get(epoch).and_then(|view| view.result.as_ref());
            assert_eq!(other, view.result.as_ref(), "node {node}, epoch {epoch}");
        }
    }
    assert_eq!(rows, 3);
}
