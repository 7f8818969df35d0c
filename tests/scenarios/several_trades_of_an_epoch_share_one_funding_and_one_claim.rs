//! Four purchases of one epoch from one provider. Whatever goes wrong for one of them, or under the
//! transaction that they share, costs the others nothing.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;
use capex::sim::{Branch, Kill, Links, Mishap, NodeId, Setup, World};
use capex_core::engine::kernel::Miss;
use capex_core::engine::market::OrderSpec;
use capex_core::engine::trades::{Role, TradeView};
use capex_core::params::Params;
use capex_core::settlement::fees::{FUND_VSIZE, FeeLimit, spend_vsize};

use super::kit::{COINS_SAT, TRADE_MS, ask, bid, bought, devnet, devnet_of_depth, place, reach};
use super::kit::{story, trades, window};
use super::troubles::{BLOCK_MS, BUYER, End, PAST_RELEASE_MS, SELLER};
use super::troubles::{assert_end, halt_orders, without_exit};

const SEED: u64 = 71;
/// Purchases of the epoch.
const FOUR: usize = 4;
/// A further output of a funding, vB.
const OUTPUT_VSIZE: u64 = 43;
/// Longer than the deadlines of terms and fundings.
const AGES_MS: u64 = 4_000;

/// A buyer that its provider knows: a stranger gets one lock at a time.
fn acquainted(params: Params, seed: u64) -> World {
    let setup = Setup { seed, nodes: 2, params, links: Links::GOOD, coins_sat: COINS_SAT };
    let mut world = World::new(setup);
    world.run_for(300);
    world.set_capacity(SELLER, &[(1, 8), (2, 4), (4, 4)]);
    place(&mut world, SELLER, ask(1, 500, 1, window(8, 20)));
    place(&mut world, BUYER, bid(1, 500, 1, window(8, 20), 2));
    reach(&mut world, BUYER, "active");
    halt_orders(&mut world);
    world.run_for(2_500);
    world
}

/// Four trades have been opened: of 6,000, 3,000, 5,400 and 24,000 sat.
fn four(params: Params, seed: u64) -> World {
    four_of(params, seed, |_| ())
}

fn four_of(params: Params, seed: u64, change: fn(&mut OrderSpec)) -> World {
    let mut world = acquainted(params, seed);
    for (class, limit_sat) in [(1, 1_000), (2, 900), (4, 4_000)] {
        place(&mut world, SELLER, ask(class, limit_sat, 4, window(25, 60)));
        let mut spec = bid(class, limit_sat, 2, window(25, 60), 3);
        change(&mut spec);
        place(&mut world, BUYER, spec);
    }
    place(&mut world, BUYER, bid(1, 1_000, 1, window(25, 60), 3));
    let opened = world.run_until(20_000, |world| all(world).len() == FOUR);
    assert!(opened, "{}", story(&world));
    halt_orders(&mut world);
    world
}

/// The purchases of the epoch of the four.
fn all(world: &World) -> Vec<TradeView> {
    let mut all: Vec<TradeView> =
        trades(world, BUYER).into_iter().filter(|trade| trade.role == Role::Buyer).collect();
    let first = all.iter().map(|trade| trade.row.epoch).min();
    all.retain(|trade| Some(trade.row.epoch) != first);
    all
}

fn until_all(world: &mut World, state: &str) {
    let so = |world: &World| all(world).iter().filter(|t| t.state == state).count() == FOUR;
    assert!(world.run_until(TRADE_MS, so), "{state}: {}", story(world));
}

fn fundings(world: &World) -> BTreeSet<Txid> {
    all(world).iter().filter_map(|trade| Some(trade.fund?.txid)).collect()
}

/// What buyer and seller have is what they had, but for prices and the fees that they show.
fn assert_adds_up(world: &World) {
    for node in [BUYER, SELLER] {
        let ended = trades(world, node);
        let fees_sat: u64 = ended.iter().map(|trade| trade.fees_sat.unwrap_or(0)).sum();
        let moved = ended.iter().filter(|t| matches!(t.state, "active" | "settled"));
        let prices_sat: u64 = moved.map(|trade| trade.price_sat).sum();
        let left_sat = world.balance(node).unwrap().confirmed_sat + fees_sat;
        let expected = if node == BUYER { COINS_SAT - prices_sat } else { COINS_SAT + prices_sat };
        assert_eq!(left_sat, expected, "node {node}: {}", story(world));
    }
}

/// Claims of the four.
fn claims(world: &World) -> BTreeSet<Txid> {
    let sold = trades(world, SELLER).into_iter().filter(|sale| {
        all(world).iter().any(|bought| bought.trade == sale.trade && bought.state == "active")
    });
    sold.filter_map(|trade| Some(trade.claim?.txid)).collect()
}

#[test]
fn when_all_go_well() {
    let mut world = four(devnet(), SEED);
    assert_end(&mut world, "four at once", End::Settled);
    assert_eq!(bought(&world), 1 + FOUR);
    assert_eq!(fundings(&world).len(), 1, "{}", story(&world));
    let size = all(&world)[0].fund.unwrap().vsize;
    assert!(size <= FUND_VSIZE + 3 * OUTPUT_VSIZE + 1, "{size} vB");
    assert_eq!(claims(&world).len(), 1, "{}", story(&world));
    assert_adds_up(&world);
}

#[test]
fn when_the_buyer_gives_no_key() {
    let mut world = four(without_exit(devnet()), SEED);
    assert_end(&mut world, "by script", End::Settled);
    assert_eq!((fundings(&world).len(), claims(&world).len()), (1, 1), "{}", story(&world));
    let sale = trades(&world, SELLER).into_iter().find(|trade| trade.row == all(&world)[0].row);
    assert_eq!(sale.unwrap().claim.unwrap().vsize, spend_vsize(4, 0));
    assert_adds_up(&world);
}

/// The seller is away until the first of two buyers has its coins back; the second is away too.
#[test]
fn when_a_claim_loses_one_of_its_contracts() {
    const OTHER: NodeId = 2;
    let params = without_exit(devnet());
    let setup = Setup { seed: SEED, nodes: 3, params, links: Links::GOOD, coins_sat: COINS_SAT };
    let mut world = World::new(setup);
    world.run_for(300);
    world.set_capacity(SELLER, &[(1, 8)]);
    place(&mut world, SELLER, ask(1, 1_000, 8, window(10, 60)));
    for node in [BUYER, OTHER] {
        place(&mut world, node, bid(1, 1_000, 2, window(10, 60), 3));
    }
    let sent = |world: &World| {
        let sales = trades(world, SELLER).into_iter().filter(|sale| sale.state == "claim_sent");
        sales.filter_map(|sale| Some(sale.claim?.txid)).collect::<Vec<_>>()
    };
    reach(&mut world, SELLER, "fund_seen");
    halt_orders(&mut world);
    assert!(world.run_until(TRADE_MS, |world| sent(world).len() == 2), "{}", story(&world));
    assert_eq!(sent(&world)[0], sent(&world)[1], "one claim for both");
    world.set_mined_feerate(u64::MAX);
    world.run_for(BLOCK_MS);
    world.crash(SELLER);
    world.crash(OTHER);
    world.forget_mempool();
    world.set_mined_feerate(0);
    reach(&mut world, BUYER, "refunded");
    world.start(SELLER);
    let is_settled = |world: &World| {
        let states: BTreeSet<&str> = trades(world, SELLER).iter().map(|sale| sale.state).collect();
        states == BTreeSet::from(["released", "settled"])
    };
    assert!(world.run_until(TRADE_MS, is_settled), "{}", story(&world));
    world.start(OTHER);
    assert_end(&mut world, "one input was spent", End::Either);
    assert!(trades(&world, OTHER).iter().all(|trade| trade.state == "active"));
}

/// Fees rise while the locks are listened for, and are more than one of them is worth.
#[test]
fn when_one_of_four_is_refused() {
    let change = |spec: &mut OrderSpec| {
        if spec.alts[0].class == 2 {
            spec.fees = FeeLimit { share_percent: 100, cap_sat: Some(1_500) };
        }
    };
    let mut world = four_of(devnet(), SEED, change);
    until_all(&mut world, "locked");
    world.set_feerate(3_500);
    world.run_for(BLOCK_MS);
    assert_end(&mut world, "one is too dear", End::Either);
    assert_eq!(bought(&world), FOUR, "{}", story(&world));
    assert_eq!(fundings(&world).len(), 1, "{}", story(&world));
    assert_adds_up(&world);
}

#[test]
fn when_the_provider_is_silent_for_one() {
    for number in 0..FOUR {
        let mut world = four(devnet(), SEED);
        let silent = all(&world)[number].trade;
        world.settling.silence(silent.0);
        assert_end(&mut world, &format!("silent for number {number}"), End::Either);
        assert_eq!(bought(&world), FOUR, "{}", story(&world));
        assert_eq!(fundings(&world).len(), 1, "{}", story(&world));
        assert_adds_up(&world);
    }
}

#[test]
fn when_a_message_is_lost_or_very_late() {
    let begin = || four(devnet(), SEED);
    let mut world = begin();
    let first = world.settling.sent();
    until_all(&mut world, "fund_sent");
    let last = world.settling.sent();
    for number in first + 1..=last {
        for mishap in [Mishap::Lost, Mishap::Late(AGES_MS)] {
            let mut world = begin();
            world.settling.choose(number, mishap);
            let label = format!("message {number} of {first} to {last}: {mishap:?}");
            assert_end(&mut world, &label, End::Settled);
            assert_adds_up(&world);
        }
    }
}

#[test]
fn when_blocks_leave_the_chain_under_the_funding() {
    for branch in [Branch::Same, Branch::Empty, Branch::Forgetful] {
        for depth in 1..=2 {
            let mut world = four(devnet_of_depth(2), SEED);
            until_all(&mut world, "fund_confirmed");
            let height = world.chain.height();
            world.run_until(60 * BLOCK_MS, |world| world.chain.height() >= height + depth - 1);
            world.reorganise(depth, branch);
            let label = format!("{depth} blocks under the funding, {branch:?}");
            assert_end(&mut world, &label, End::Settled);
            assert_adds_up(&world);
        }
    }
}

/// One payment to self replaces it.
#[test]
fn when_no_block_takes_the_funding() {
    let mut world = four(devnet(), SEED);
    world.set_mined_feerate(u64::MAX);
    until_all(&mut world, "fund_sent");
    assert_eq!(fundings(&world).len(), 1);
    until_all(&mut world, "cancelling");
    world.run_for(PAST_RELEASE_MS);
    world.set_mined_feerate(0);
    assert_end(&mut world, "never mined", End::Either);
    let cancels: BTreeSet<Txid> =
        all(&world).iter().filter_map(|trade| Some(trade.cancel?.txid)).collect();
    assert_eq!((bought(&world), cancels.len()), (1, 1), "{}", story(&world));
    let buyer = world.nodes[BUYER].key;
    let held = world.engine(SELLER).and_then(|engine| engine.conduct().misses(&buyer));
    let once = BTreeMap::from([(Miss::Funding, 1)]);
    assert_eq!(held, Some(&once), "one funding that did not confirm, under four locks");
}

fn writes(node: NodeId) -> std::ops::RangeInclusive<u64> {
    let mut world = four(devnet(), SEED);
    let before = world.nodes[node].disk.writes();
    until_all(&mut world, "active");
    before + 1..=world.nodes[node].disk.writes()
}

fn kill_at_each(node: NodeId) {
    for write in writes(node) {
        for side in [Kill::Before, Kill::After] {
            let mut world = four(devnet(), SEED);
            world.nodes[node].disk.kill_at(write, side);
            for _ in 0..4 {
                world.run_for(2_000);
                if world.engine(node).is_none() {
                    world.start(node);
                    halt_orders(&mut world);
                }
            }
            let label = format!("node {node} dies {side:?} write {write}");
            assert_end(&mut world, &label, End::Either);
        }
    }
}

#[test]
fn when_the_buyer_dies_at_any_write() {
    kill_at_each(BUYER);
}

#[test]
fn when_the_seller_dies_at_any_write() {
    kill_at_each(SELLER);
}
