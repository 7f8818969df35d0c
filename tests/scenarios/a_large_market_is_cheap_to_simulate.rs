//! What a large market costs, for people to look at: `cargo test --release --test sim large --
//! --ignored --nocapture` prints seconds and peak memory of the process. Linux.

use std::time::Instant;

use capex::sim::{Links, Setup, World};

use super::kit::{COINS_SAT, ask, bid, devnet, place, window};

const EPOCHS: u64 = 5;
const ORDERS_PER_NODE: usize = 10;

/// Nodes that place their orders between two epochs, and so sign them together. No ask meets
/// a bid: it is orders that are measured, not settlements. The first half bids, since no more
/// than a hundred nodes get coins.
fn market(nodes: usize, orders_per_node: usize) -> World {
    let setup =
        Setup { seed: 1, nodes, params: devnet(), links: Links::GOOD, coins_sat: COINS_SAT };
    let mut world = World::new(setup);
    world.run_for(world.params().epoch.open_ms + 100);
    for node in 0..nodes {
        let bids = node < nodes / 2;
        if !bids {
            world.set_capacity(node, &[(1, u32::try_from(orders_per_node).unwrap())]);
        }
        for _ in 0..orders_per_node {
            let order = if bids {
                bid(1, 1000, 1, window(8, 20), 1)
            } else {
                ask(1, 3000, 1, window(8, 20))
            };
            place(&mut world, node, order);
        }
    }
    world.run_for(world.params().epoch_ms() - world.params().epoch.open_ms - 100);
    world
}

/// Every living node has the result of so many epochs of all these orders.
fn assert_computed(world: &World, epochs: usize, orders: usize) {
    for (node, engine) in world.engines() {
        let full = |view: &&capex_core::engine::market::EpochView| {
            view.result.is_some() && view.set.len() == orders
        };
        let found = engine.market().epochs.iter().map(|(_, view)| view).filter(full).count();
        assert_eq!(found, epochs, "node {node}");
    }
}

#[test]
fn signatures_of_a_message_are_verified_once_for_all_nodes() {
    let mut world = market(6, 3);
    world.run_for(2 * world.params().epoch_ms());
    assert_computed(&world, 2, 18);
    // A message for each node and epoch, which five others receive.
    assert_eq!(world.verifications(), 12);
}

#[test]
#[ignore = "prints what 200 nodes cost; takes minutes in a debug build"]
#[allow(clippy::print_stdout, reason = "a command that prints")]
fn large() {
    const NODES: usize = 200;
    let begun = Instant::now();
    let mut world = market(NODES, ORDERS_PER_NODE);
    let placed = begun.elapsed();
    world.run_for(EPOCHS * world.params().epoch_ms());
    println!(
        "{NODES} nodes, {ORDERS_PER_NODE} orders each, {EPOCHS} epochs: {:.1} s to begin, {:.1} s \
         for the epochs, peak {}, {} inputs, {} messages verified",
        placed.as_secs_f64(),
        (begun.elapsed() - placed).as_secs_f64(),
        peak_memory(),
        world.steps(),
        world.verifications(),
    );
    // Older ones are on disk alone.
    assert_computed(&world, 4, NODES * ORDERS_PER_NODE);
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}
