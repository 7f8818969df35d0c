//! In one epoch a seller sells to a pool, to a buyer whose coins are signed for elsewhere, and twice
//! to one of the pool. The plain two share a funding, the others have their own; what is due to the
//! seller comes in fewer claims than there are contracts.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;
use capex::sim::{Links, NodeId, World};
use capex_core::engine::Done;
use capex_core::engine::pools::{Pool, PoolCommand, read_invitation};
use capex_core::engine::trades::{Role, TradeView};
use capex_core::ids::{Key, PoolId};
use capex_core::params::Params;
use capex_core::settlement::fees::FeeLimit;
use capex_core::wire::VERSION;

use super::kit::{COINS_SAT, TRADE_MS, ask, assert_sound, bid, devnet, place, reach, rest, story};
use super::kit::{trades, window, world_of};
use super::troubles::{halt_orders, without_exit};

const SELLER: NodeId = 0;
/// Founds the pool, and buys twice for itself.
const CREATOR: NodeId = 1;
const MEMBER: NodeId = 2;
/// Its coins are signed for elsewhere.
const WATCHER: NodeId = 3;
/// Uses what the pool pays for.
const HOLDER: NodeId = 4;
const FEES: FeeLimit = FeeLimit { share_percent: 100, cap_sat: None };

fn invitation(world: &World, id: PoolId) -> String {
    let engine = world.engine(CREATOR).unwrap();
    let mut views = engine.pools().views(engine.me(), engine.params());
    views.find(|view| view.id == id).unwrap().invitation
}

fn pool(world: &mut World) {
    let pool = Pool {
        v: VERSION,
        creator: Key::default(),
        to: world.nodes[HOLDER].key,
        class: 4,
        features: 0,
        qty: 2,
        window: window(30, 60),
        slots: 3,
        limit_msat: 5_000_000,
        until_ms: world.now_ms + 30_000,
        invited: Vec::new(),
        nonce16: [0; 16],
        all_or_nothing: false,
    };
    let create = PoolCommand::Create { pool: Box::new(pool), share_sat: 15_000, fees: FEES };
    let create = world.command(CREATOR, create);
    let Some(Ok(Done::Pool(id))) = world.answer(CREATOR, create).cloned() else { panic!() };
    let invitation = invitation(world, id);
    let pool = Box::new(read_invitation(&invitation, world.params()).unwrap());
    let join = world.command(MEMBER, PoolCommand::Join { pool, share_sat: 15_000, fees: FEES });
    assert!(world.run_until(20_000, |world| world.answer(MEMBER, join).is_some()));
    assert_eq!(world.answer(MEMBER, join), Some(&Ok(Done::Pool(id))));
}

/// Buyers that their provider knows, who get several locks at a time.
fn acquainted(params: Params, seed: u64) -> World {
    let mut world = world_of(params, seed, 5, Links::GOOD);
    world.set_capacity(SELLER, &[(1, 16), (4, 4)]);
    place(&mut world, SELLER, ask(1, 500, 4, window(8, 20)));
    for buyer in [CREATOR, WATCHER] {
        place(&mut world, buyer, bid(1, 500, 1, window(8, 20), 2));
    }
    for buyer in [CREATOR, WATCHER] {
        reach(&mut world, buyer, "active");
    }
    halt_orders(&mut world);
    world.run_for(2_500);
    world.crash(WATCHER);
    world.nodes[WATCHER].is_watch_only = true;
    world.start(WATCHER);
    world.run_for(1_000);
    world
}

/// What was bought in the epoch of the mix, by each trade's payers.
fn all(world: &World) -> BTreeMap<NodeId, Vec<TradeView>> {
    let of = |node: NodeId| {
        let all = trades(world, node).into_iter();
        let late = all.filter(|t| t.role == Role::Buyer && t.row.start >= window(30, 60).start);
        (node, late.collect::<Vec<_>>())
    };
    [CREATOR, MEMBER, WATCHER].into_iter().map(of).collect()
}

fn mixed(params: Params, seed: u64) -> World {
    let mut world = acquainted(params, seed);
    pool(&mut world);
    place(&mut world, SELLER, ask(4, 4_000, 4, window(30, 60)));
    place(&mut world, SELLER, ask(1, 1_000, 8, window(30, 60)));
    for (buyer, qty) in [(CREATOR, 2), (CREATOR, 1), (WATCHER, 2)] {
        place(&mut world, buyer, bid(1, 1_000, qty, window(30, 60), 3));
    }
    let opened = world.run_until(30_000, |world| {
        let all = all(world);
        (all[&CREATOR].len(), all[&MEMBER].len(), all[&WATCHER].len()) == (3, 1, 1)
    });
    assert!(opened, "{}", story(&world));
    halt_orders(&mut world);
    world
}

fn assert_settles(mut world: World) {
    let waits = |world: &World| !world.unsigned(WATCHER).is_empty();
    assert!(world.run_until(TRADE_MS, waits), "{}", story(&world));
    world.sign_elsewhere(WATCHER);
    let is_done = |world: &World| {
        all(world).values().flatten().all(|trade| trade.state == "active" || trade.done)
    };
    assert!(world.run_until(TRADE_MS, is_done), "{}", story(&world));
    let bought = all(&world);
    let states: BTreeSet<&str> = bought.values().flatten().map(|trade| trade.state).collect();
    assert_eq!(states, BTreeSet::from(["active"]), "{}", story(&world));
    let epochs: BTreeSet<u64> = bought.values().flatten().map(|trade| trade.row.epoch).collect();
    assert_eq!(epochs.len(), 1, "of one epoch: {}", story(&world));
    let funds = |node: NodeId, is_pool: bool| -> BTreeSet<Txid> {
        let of_pool = |trade: &&TradeView| (trade.share_sat < trade.price_sat) == is_pool;
        bought[&node].iter().filter(of_pool).filter_map(|t| Some(t.fund?.txid)).collect()
    };
    assert_eq!(funds(CREATOR, false).len(), 1, "the plain two share: {}", story(&world));
    let of_pool = [funds(CREATOR, true), funds(MEMBER, true)];
    assert!(of_pool.iter().all(|funds| funds.len() == 1));
    let others = [&of_pool[0], &of_pool[1], &funds(WATCHER, false), &funds(CREATOR, false)];
    let distinct: BTreeSet<&Txid> = others.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 4, "{}", story(&world));
    let prices_sat: u64 =
        bought[&CREATOR].iter().chain(&bought[&WATCHER]).map(|t| t.price_sat).sum();
    rest(&mut world);
    assert_sound(&world);
    let sales = trades(&world, SELLER);
    assert!(sales.iter().all(|sale| sale.state == "settled"), "{}", story(&world));
    let earned_sat: u64 = sales.iter().map(|sale| sale.price_sat).sum();
    let fees_sat: u64 = sales.iter().map(|sale| sale.fees_sat.unwrap_or(0)).sum();
    assert!(earned_sat > prices_sat);
    let left_sat = world.balance(SELLER).unwrap().confirmed_sat;
    assert_eq!(left_sat + fees_sat, COINS_SAT + earned_sat, "to the sat");
}

#[test]
fn with_the_buyers_keys() {
    assert_settles(mixed(devnet(), 83));
}

#[test]
fn by_script() {
    assert_settles(mixed(without_exit(devnet()), 84));
}
