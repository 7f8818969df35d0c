//! Orders, worlds and questions that every story needs.

use capex::sim::{BEGIN_MS, Links, NodeId, Setup, World};
use capex_core::admission::has_work;
use capex_core::engine::Done;
use capex_core::engine::market::{MarketCommand, OrderSpec, TimeInForce};
use capex_core::engine::trades::{Role, TradeView};
use capex_core::ids::CertId;
use capex_core::order::{Alternative, Mode, Order, Side};
use capex_core::params::{ChainParams, Params, Profile};
use capex_core::settlement::fees::FeeLimit;
use capex_core::units::Window;
use capex_core::wire::object_id;

/// Coins of each node, sat.
pub(super) const COINS_SAT: u64 = 400_000;
/// Longest time that a trade needs on a devnet: its refund, and some.
pub(super) const TRADE_MS: u64 = 45_000;

/// The devnet with the matching rules of the public test networks.
pub(super) fn devnet() -> Params {
    let params = capex::definitions::load("devnet").unwrap();
    Params { matching_version: 2, ..params }
}

pub(super) fn world(seed: u64, nodes: usize, links: Links) -> World {
    world_of(devnet(), seed, nodes, links)
}

/// A devnet on which a funding has to be so deep, and a spend is final one block deeper.
pub(super) fn devnet_of_depth(confirmations: u32) -> Params {
    let params = devnet();
    let deeper = confirmations - 1;
    let profiles = params.profiles.iter().map(|profile| Profile {
        funding_confirmations: confirmations,
        refund_blocks: profile.refund_blocks + deeper,
        lead_s: profile.lead_s + u64::from(deeper),
        ..*profile
    });
    let profiles = profiles.collect();
    let chain = ChainParams { final_blocks: confirmations + 1, ..params.chain };
    Params { profiles, chain, ..params }.validate().unwrap()
}

pub(super) fn world_of(params: Params, seed: u64, nodes: usize, links: Links) -> World {
    let mut world = World::new(Setup { seed, nodes, params, links, coins_sat: COINS_SAT });
    world.run_for(300);
    world
}

/// Slots, counted from the beginning of the world.
pub(super) fn window(start: u32, end: u32) -> Window {
    let first = u32::try_from(BEGIN_MS / 4000).unwrap();
    Window::new(first + start, first + end).unwrap()
}

fn order(
    side: Side,
    class: u16,
    limit_sat: u64,
    qty: u32,
    window: Window,
    slots: u16,
) -> OrderSpec {
    OrderSpec {
        side,
        alts: vec![Alternative { class, limit_msat: limit_sat * 1000 }],
        qty,
        min_qty: 1,
        mode: Mode::Sticky,
        window,
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
        // Trades of a story are small.
        fees: FeeLimit { share_percent: 100, cap_sat: None },
        cert: None,
        is_spare: false,
    }
}

pub(super) fn ask(class: u16, limit_sat: u64, qty: u32, window: Window) -> OrderSpec {
    order(Side::Sell, class, limit_sat, qty, window, 0)
}

pub(super) fn bid(class: u16, limit_sat: u64, qty: u32, window: Window, slots: u16) -> OrderSpec {
    order(Side::Buy, class, limit_sat, qty, window, slots)
}

/// Searches a nonce with which an order has the work that the devnet wants, or has it not.
pub(super) fn worked(mut order: Order, enough: bool) -> Order {
    let params = devnet();
    while has_work(&object_id(&order, params.magic), params.pow_bits) != enough {
        order.pow_nonce += 1;
    }
    order
}

pub(super) fn place(world: &mut World, node: NodeId, spec: OrderSpec) {
    let command = world.command(node, MarketCommand::Place(Box::new(spec)));
    let answer = world.answer(node, command);
    assert!(matches!(answer, Some(Ok(Done::Placed(_)))), "seed {}: {answer:?}", world.seed());
}

/// One seller, one buyer, one trade to come: 2 blocks for 3 slots.
pub(super) fn pair(seed: u64, nodes: usize) -> World {
    pair_of(devnet(), seed, nodes)
}

pub(super) fn pair_of(params: Params, seed: u64, nodes: usize) -> World {
    let mut world = world_of(params, seed, nodes, Links::GOOD);
    world.set_capacity(0, &[(1, 4)]);
    place(&mut world, 0, ask(1, 500, 4, window(8, 20)));
    place(&mut world, 1, bid(1, 1000, 2, window(8, 20), 3));
    world
}

pub(super) fn trades(world: &World, node: NodeId) -> Vec<TradeView> {
    world.engine(node).map(|engine| engine.trades().views().collect()).unwrap_or_default()
}

/// Whether a node has a trade in a state.
pub(super) fn is_in(world: &World, node: NodeId, state: &str) -> bool {
    trades(world, node).iter().any(|trade| trade.state == state)
}

pub(super) fn reach(world: &mut World, node: NodeId, state: &str) {
    let reached = world.run_until(TRADE_MS, |world| is_in(world, node, state));
    assert!(reached, "seed {}: node {node} never is {state}: {}", world.seed(), story(world));
}

/// Trades in which a living node has bought.
pub(super) fn bought(world: &World) -> usize {
    let active = |trade: &TradeView| trade.role == Role::Buyer && trade.state == "active";
    (0..world.nodes.len())
        .map(|node| trades(world, node).iter().filter(|d| active(d)).count())
        .sum()
}

pub(super) fn bought_cert(world: &World, node: NodeId) -> CertId {
    let trade = trades(world, node).into_iter().find(|trade| trade.state == "active");
    trade.and_then(|trade| trade.cert).expect("the node has bought")
}

/// Stops re-signing, and waits until every trade has ended and is deep.
pub(super) fn rest(world: &mut World) {
    for node in 0..world.nodes.len() {
        let Some(engine) = world.engine(node) else { continue };
        let standing: Vec<_> = engine.market().standing().map(|order| order.id).collect();
        for id in standing {
            world.command(node, MarketCommand::Cancel(id));
        }
    }
    // What was signed before is still matched.
    world.run_for(5_000);
    let all_done = |world: &World| {
        let done = (0..world.nodes.len()).all(|node| trades(world, node).iter().all(|d| d.done));
        done && world.chain.mempool().is_empty()
    };
    world.run_until(2 * TRADE_MS, all_done);
    world.run_for(2_000);
}

/// Every promise is kept, or the seed is told.
pub(super) fn assert_sound(world: &World) {
    assert_sound_after("", world);
}

/// The same, and what was done to the world is told too.
pub(super) fn assert_sound_after(what: &str, world: &World) {
    let faults = world.faults_at_rest();
    let (seed, step) = (world.seed(), world.steps());
    assert!(
        faults.is_empty(),
        "{what}, seed {seed}, step {step}:\n{}\n{}",
        faults.join("\n"),
        story(world)
    );
}

/// What became of every trade, for a failure.
pub(super) fn story(world: &World) -> String {
    let mut lines = Vec::new();
    for node in 0..world.nodes.len() {
        let alive = if world.engine(node).is_some() { "" } else { " (dead)" };
        lines.push(format!("node {node}{alive}"));
        for trade in trades(world, node) {
            lines.push(format!(
                "  {:?} epoch {} {:?} {} {:?} {:?}",
                trade.role, trade.row.epoch, trade.trade, trade.state, trade.code, trade.trouble
            ));
        }
        for order in world.engine(node).iter().flat_map(|engine| engine.market().standing()) {
            let (state, note) = (order.state.name(), &order.note);
            lines.push(format!("  {:?} {state} filled {} {note:?}", order.spec.side, order.filled));
        }
    }
    lines.join("\n")
}
