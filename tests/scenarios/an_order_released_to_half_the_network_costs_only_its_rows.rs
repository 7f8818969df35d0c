use super::kit::{
    ask, assert_sound, bid, bought, devnet, place, rest, story, trades, window, worked, world,
};
use capex::sim::Links;
use capex_core::bundle::pack;
use capex_core::engine::{Keys, Topic, Verdict};
use capex_core::epoch::{computed_at_ms, epoch_at};
use capex_core::order::{Alternative, Order};

fn strangers_bid(epoch: u64) -> (Keys, Vec<u8>) {
    let (params, keys) = (devnet(), Keys::new([9; 32], [9; 32]));
    let order = Order {
        alts: vec![Alternative { class: 1, limit_msat: 2_000_000 }],
        qty: 2,
        min_qty: 2,
        window: window(8, 14),
        slots: 3,
        ..Order::sample(keys.public(), epoch)
    };
    let order = worked(order, true);
    let bytes = pack(&[keys.sign(order, &params)]).concat();
    (keys, bytes)
}

#[test]
fn the_other_class_settles_in_the_same_epoch() {
    let mut world = world(16, 5, Links::GOOD);
    world.set_capacity(0, &[(1, 2)]);
    world.set_capacity(1, &[(2, 2)]);
    // Room for one bid in class 1: the stranger's or that of node 2.
    place(&mut world, 0, ask(1, 500, 2, window(8, 14)));
    place(&mut world, 1, ask(2, 500, 2, window(8, 14)));
    place(&mut world, 2, bid(1, 1000, 2, window(8, 14), 6));
    place(&mut world, 3, bid(2, 1000, 2, window(8, 14), 3));
    let epoch = epoch_at(world.now_ms, &devnet());
    let cutoff_ms = computed_at_ms(epoch, &devnet());
    world.run_for(cutoff_ms - world.now_ms - 1);
    let (stranger, bytes) = strangers_bid(epoch);
    for node in [0, 1] {
        let verdict = world.gossip_from(stranger.public(), node, Topic::Orders, &bytes);
        assert_eq!(verdict, Some((Verdict::Accept, None)), "node {node}");
    }
    world.run_for(200);
    let root = |node: usize| {
        let view = world.engine(node).unwrap().market().epochs.get(epoch).unwrap();
        view.result.as_ref().unwrap().root
    };
    assert_eq!(root(0), root(1));
    assert_ne!(root(1), root(3));
    assert!(world.run_until(45_000, |world| bought(world) == 2), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);

    let settled_in = |node: usize| {
        let trade = trades(&world, node).into_iter().find(|trade| trade.state == "active").unwrap();
        trade.row.epoch
    };
    assert_eq!(settled_in(3), epoch, "the class that the order did not touch");
    assert!(settled_in(2) > epoch);
    let void = trades(&world, 2).into_iter().find(|trade| trade.row.epoch == epoch).unwrap();
    assert_eq!((void.state, void.code.as_deref()), ("aborted", Some("trade.no_agreement")));
}
