use std::sync::Arc;

use super::kit::{
    ask, assert_sound, bid, bought, devnet, place, rest, story, window, worked, world,
};
use capex::sim::{Links, NodeId, World};
use capex_core::bundle::pack;
use capex_core::engine::kernel::Table;
use capex_core::engine::{Keys, Topic, Verdict};
use capex_core::epoch::{EpochResult, epoch_at, opens_at_ms};
use capex_core::limits::{HORIZON_SLOTS, ORDERS_PER_OWNER_BOOK, RECORD_MAX_BYTES};
use capex_core::order::{Alternative, Order, Side};
use capex_core::units::Window;

const BIDS: u32 = HORIZON_SLOTS;
const ASKS: u32 = 150;

/// One unit in each slot of the horizon from each ask, and for each slot a bid for all of them.
/// Nobody pays: 2 msat are below the smallest trade.
fn hostile_book(epoch: u64) -> Vec<(Keys, Vec<u8>)> {
    let params = devnet();
    let first = params.first_slot(epoch);
    let horizon = Window { start: first, end: first + HORIZON_SLOTS };
    let orders = (0..BIDS + ASKS).map(|number| {
        let keys = Keys::new([100 + (number / ORDERS_PER_OWNER_BOOK as u32) as u8; 32], [9; 32]);
        let (side, qty, window) = match number.checked_sub(BIDS) {
            None => (Side::Buy, ASKS, Window { start: first + number, end: first + number + 1 }),
            Some(_) => (Side::Sell, 1, horizon),
        };
        let is_bid = side == Side::Buy;
        let order = Order {
            side,
            nonce: number.into(),
            alts: vec![Alternative { class: 2, limit_msat: if is_bid { 2 } else { 1 } }],
            qty,
            window,
            slots: is_bid.into(),
            min_run: (!is_bid).into(),
            ..Order::sample(keys.public(), epoch)
        };
        let order = worked(order, true);
        let bytes = pack(&[keys.sign(order, &params)]).concat();
        (keys, bytes)
    });
    orders.collect()
}

fn result(world: &World, node: NodeId, epoch: u64) -> Arc<EpochResult> {
    let view = world.engine(node).expect("the node lives").market().epochs.get(epoch);
    view.and_then(|view| view.result.clone()).expect("the epoch has a result")
}

#[test]
fn its_rows_are_bounded_and_read_back_and_honest_orders_trade_beside_it() {
    let mut world = world(17, 3, Links::GOOD);
    world.set_capacity(0, &[(1, 4)]);
    place(&mut world, 0, ask(1, 500, 4, window(8, 20)));
    place(&mut world, 1, bid(1, 1000, 2, window(8, 20), 3));
    let epoch = epoch_at(world.now_ms, &devnet()) + 1;
    world.run_for(opens_at_ms(epoch, &devnet()) + 10 - world.now_ms);
    let orders = hostile_book(epoch);
    assert_eq!(orders.len(), 486);
    for (stranger, bytes) in &orders {
        let verdict = world.gossip_from(stranger.public(), 0, Topic::Orders, bytes);
        assert_eq!(verdict, Some((Verdict::Accept, None)));
    }
    world.run_for(opens_at_ms(epoch + 1, &devnet()) + 300 - world.now_ms);

    let found = result(&world, 0, epoch);
    let max_legs = usize::from(devnet().max_legs);
    let hostile = found.rows.iter().filter(|row| row.row.class == 2);
    assert_eq!(hostile.clone().count(), BIDS as usize * max_legs, "without a bound 50,340");
    assert!(hostile.clone().all(|row| row.void.is_some()));
    for node in 0..3 {
        assert_eq!(result(&world, node, epoch), found, "node {node}");
        let records = world.nodes[node].disk.records();
        let longest = records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len);
        assert!(longest.max().unwrap() < RECORD_MAX_BYTES / 8);
        let parts = |table: Table| records.iter().filter(|r| r.table == table.number()).count();
        assert!(parts(Table::EpochPart) > 5);
        world.restart(node, 50);
    }
    world.run_for(500);
    for node in 0..3 {
        assert_eq!(result(&world, node, epoch), found, "node {node} in its next life");
    }
    assert!(world.run_until(45_000, |world| bought(world) == 1), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}
