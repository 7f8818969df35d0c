//! It is the cheapest, signs Terms and LockGrant, and never acknowledges a funding: a buyer has
//! to take its payment back, pays for that, and would meet it again in every epoch.

use capex::sim::{Links, World};
use capex_core::engine::Done;
use capex_core::engine::kernel::{Denial, Miss};
use capex_core::engine::market::MarketCommand;
use capex_core::engine::trades::TradeView;
use capex_core::ids::Key;

use super::kit::{
    COINS_SAT, ask, assert_sound, bid, bought, place, rest, story, trades, window, world,
};

/// The thief, the honest provider, the buyer.
const THIEF: usize = 0;
const HONEST: usize = 1;
const BUYER: usize = 2;

fn market(seed: u64) -> World {
    let mut world = world(seed, 3, Links::GOOD);
    world.nodes[THIEF].ignores_fundings = true;
    for (node, limit_sat) in [(THIEF, 300), (HONEST, 500)] {
        world.set_capacity(node, &[(1, 4)]);
        place(&mut world, node, ask(1, limit_sat, 4, window(8, 90)));
    }
    place(&mut world, BUYER, bid(1, 1000, 2, window(8, 90), 3));
    world
}

fn denial(world: &World, key: &Key) -> Option<Denial> {
    let now_ms = world.now_ms;
    world.engine(BUYER).and_then(|engine| engine.conduct().denial(now_ms, key))
}

fn missed(world: &World, key: &Key, miss: Miss) -> u32 {
    let misses = world.engine(BUYER).and_then(|engine| engine.conduct().misses(key));
    misses.and_then(|misses| misses.get(&miss).copied()).unwrap_or(0)
}

#[test]
fn the_buyer_loses_one_cancelled_funding_and_trades_with_the_honest_one() {
    let mut world = market(31);
    let thief = world.nodes[THIEF].key;
    assert!(world.run_until(60_000, |world| bought(world) == 1), "{}", story(&world));
    assert_eq!(missed(&world, &thief, Miss::Acknowledgement), 1, "{}", story(&world));
    let bought: Vec<TradeView> =
        trades(&world, BUYER).into_iter().filter(|trade| trade.state == "active").collect();
    assert_eq!(bought[0].counterparty, world.nodes[HONEST].key);
    rest(&mut world);
    assert_sound(&world);
    let price_and_fee_sat = bought[0].price_sat + bought[0].fund.unwrap().fee_sat.unwrap();
    let left_sat = world.balance(BUYER).unwrap().confirmed_sat;
    let lost_sat = COINS_SAT - price_and_fee_sat - left_sat;
    assert!(lost_sat <= 600, "{lost_sat} sat for one funding that was taken back");
}

#[test]
fn its_second_chance_comes_late_and_the_next_far_later_and_a_restart_forgets_nothing() {
    let mut world = market(32);
    let thief = world.nodes[THIEF].key;
    assert!(world.run_until(60_000, |world| denial(world, &thief).is_some()), "{}", story(&world));
    let first = denial(&world, &thief);
    world.restart(BUYER, 500);
    world.run_for(1_000);
    assert_eq!(denial(&world, &thief), first);
    // Nobody else sells any more.
    let honest: Vec<_> =
        world.engine(HONEST).unwrap().market().standing().map(|order| order.id).collect();
    world.command(HONEST, MarketCommand::Cancel(honest[0]));
    place(&mut world, BUYER, bid(1, 1000, 1, window(20, 90), 3));
    let twice = |world: &World| missed(world, &thief, Miss::Acknowledgement) == 2;
    assert!(world.run_until(90_000, twice), "{}", story(&world));
    let Some(Denial::Until(until_ms)) = denial(&world, &thief) else { panic!("not denied") };
    assert!(until_ms - world.now_ms > 100_000, "the denial has grown eightfold");
    let forgiven = world.command(BUYER, MarketCommand::Forgive(thief));
    assert_eq!(world.answer(BUYER, forgiven), Some(&Ok(Done::Ok)));
    assert_eq!(denial(&world, &thief), None);
}
