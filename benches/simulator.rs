//! What a large simulated market costs: time, and the most memory that the process needs.
//!
//! `cargo bench --bench simulator`, or with other numbers `cargo bench --bench simulator -- 50 5
//! 10` for so many nodes, epochs, and orders a node and epoch. Linux.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

use std::time::Instant;
use std::{env, fs};

use capex::definitions;
use capex::sim::{Links, Setup, World};
use capex_core::engine::market::{EpochView, MarketCommand, OrderSpec, TimeInForce};
use capex_core::limits::EPOCHS_IN_MEMORY;
use capex_core::order::{Alternative, Mode, Side};
use capex_core::settlement::fees::FeeLimit;
use capex_core::units::Window;

const NODES: usize = 200;
const EPOCHS: usize = 5;
const ORDERS: usize = 10;
/// Coins of each wallet, sat.
const COINS_SAT: u64 = 400_000;

/// An order that meets no other: orders are measured, not settlements.
fn order(world: &World, side: Side) -> OrderSpec {
    let now = world.params().slot_at(world.now_ms);
    let (limit_msat, slots) = if side == Side::Buy { (1_000_000, 1) } else { (3_000_000, 0) };
    OrderSpec {
        side,
        alts: vec![Alternative { class: 1, limit_msat }],
        qty: 1,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window::new(now + 8, now + 20).unwrap(),
        slots,
        features: 0,
        allow: Vec::new(),
        deny: Vec::new(),
        min_run: u16::from(side == Side::Sell),
        time_in_force: TimeInForce::GoodTillCancelled,
        beneficiary: None,
        use_by: None,
        is_recallable: false,
        pool: None,
        // These trades would be small.
        fees: FeeLimit { share_percent: 100, cap_sat: None },
        cert: None,
        is_spare: false,
    }
}

/// Nodes that placed their orders between two epochs, and so sign them together. The first half
/// bids: no more than a hundred nodes get coins.
fn market(nodes: usize, orders: usize) -> World {
    let (params, links) = (definitions::load("devnet").unwrap(), Links::GOOD);
    let mut world = World::new(Setup { seed: 1, nodes, params, links, coins_sat: COINS_SAT });
    let open_ms = world.params().epoch.open_ms;
    world.run_for(open_ms + 100);
    for node in 0..nodes {
        let side = if node < nodes.min(200) / 2 { Side::Buy } else { Side::Sell };
        if side == Side::Sell {
            world.set_capacity(node, &[(1, u32::try_from(orders).unwrap())]);
        }
        for _ in 0..orders {
            let spec = order(&world, side);
            let placed = world.command(node, MarketCommand::Place(Box::new(spec)));
            let answer = world.answer(node, placed);
            assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
        }
    }
    world.run_for(world.params().epoch_ms() - open_ms - 100);
    world
}

fn status_mb(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn main() {
    let mut given = env::args().skip(1).filter_map(|word| word.parse().ok());
    let nodes = given.next().unwrap_or(NODES);
    let epochs = given.next().unwrap_or(EPOCHS);
    let orders = given.next().unwrap_or(ORDERS);
    let begun = Instant::now();
    let mut world = market(nodes, orders);
    let placed = begun.elapsed();
    world.run_for(epochs as u64 * world.params().epoch_ms());
    println!(
        "{nodes} nodes, {epochs} epochs, {orders} orders a node and epoch: {:.1} s to begin, \
         {:.1} s for the epochs, peak {} MB, {} inputs, {} messages verified",
        placed.as_secs_f64(),
        (begun.elapsed() - placed).as_secs_f64(),
        status_mb("VmHWM:"),
        world.steps(),
        world.verifications(),
    );
    for (node, engine) in world.engines() {
        let is_whole = |view: &EpochView| view.result.is_some() && view.set.len() == nodes * orders;
        let whole = engine.market().epochs.iter().filter(|(_, view)| is_whole(view)).count();
        assert_eq!(whole, epochs.min(EPOCHS_IN_MEMORY), "node {node}");
    }
}
