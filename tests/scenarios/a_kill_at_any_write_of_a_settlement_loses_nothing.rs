//! A node dies on either side of each of its writes, whichever way the settlement goes.

use capex::sim::{Kill, NodeId, World};

use super::kit::{TRADE_MS, is_in, reach};
use super::troubles::{
    BUYER, End, PAST_RELEASE_MS, SELLER, assert_end, halt_orders, vanish_ahead_of_the_chain,
    world_at,
};

/// Which way a settlement goes when nobody dies.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// No block takes the funding in time, and the buyer replaces it.
    Cancels,
    /// The seller is away until the buyer has its coins back.
    Refunds,
    /// The seller calls the sale paid.
    Quits,
    /// The same, and it is away from when it has moved the certificate, which nobody hears of,
    /// until the buyer has its coins back.
    QuitsInVain,
}

const SEED: u64 = 17;

impl Way {
    fn end(self) -> End {
        match self {
            Self::Quits => End::Settled,
            Self::Cancels | Self::Refunds | Self::QuitsInVain => End::Undone,
        }
    }
}

fn begin(way: Way) -> World {
    let moment = match way {
        Way::Cancels | Way::Refunds => (BUYER, "locked"),
        Way::Quits | Way::QuitsInVain => (SELLER, "quitting"),
    };
    let mut world = world_at(SEED, moment);
    match way {
        Way::Quits => {}
        Way::QuitsInVain => {
            vanish_ahead_of_the_chain(&mut world);
        }
        Way::Cancels => world.set_mined_feerate(u64::MAX),
        Way::Refunds => {
            world.set_mined_feerate(u64::MAX);
            reach(&mut world, BUYER, "fund_sent");
            world.crash(SELLER);
            world.set_mined_feerate(0);
        }
    }
    world
}

/// Until the buyer's trade has ended, or as far as it comes.
fn go_on(world: &mut World, way: Way) {
    match way {
        Way::Cancels => {
            world.run_for(PAST_RELEASE_MS);
            world.set_mined_feerate(0);
            world.run_until(TRADE_MS, |world| is_in(world, BUYER, "cancelled"));
        }
        Way::Refunds | Way::QuitsInVain => {
            world.run_until(TRADE_MS, |world| is_in(world, BUYER, "refunded"));
            world.start(SELLER);
        }
        Way::Quits => {
            world.run_until(TRADE_MS, |world| is_in(world, SELLER, "settled"));
        }
    }
}

fn writes(way: Way, node: NodeId) -> std::ops::RangeInclusive<u64> {
    let mut world = begin(way);
    let before = world.nodes[node].disk.writes();
    go_on(&mut world, way);
    assert_end(&mut world, &format!("{way:?}"), way.end());
    before + 1..=world.nodes[node].disk.writes()
}

fn kill_at_each(way: Way, node: NodeId) {
    for write in writes(way, node) {
        for side in [Kill::Before, Kill::After] {
            let mut world = begin(way);
            world.nodes[node].disk.kill_at(write, side);
            // Whoever finds it dead starts it again.
            for _ in 0..8 {
                world.run_for(2_000);
                if world.engine(node).is_none() && world.nodes[node].disk.is_dead() {
                    world.start(node);
                    halt_orders(&mut world);
                }
            }
            go_on(&mut world, way);
            if world.engine(node).is_none() {
                world.start(node);
            }
            let label = format!("{way:?}: node {node} dies {side:?} write {write}");
            // Behind a reveal there is no going back, whoever dies.
            let end = if matches!(way, Way::Quits) { End::Settled } else { End::Either };
            assert_end(&mut world, &label, end);
        }
    }
}

#[test]
fn while_the_buyer_replaces_a_funding() {
    kill_at_each(Way::Cancels, BUYER);
    kill_at_each(Way::Cancels, SELLER);
}

#[test]
fn while_the_buyer_takes_its_coins_back() {
    kill_at_each(Way::Refunds, BUYER);
}

#[test]
fn while_a_sale_is_called_paid() {
    kill_at_each(Way::Quits, BUYER);
    kill_at_each(Way::Quits, SELLER);
}

#[test]
fn while_what_was_moved_in_vain_is_taken_back() {
    kill_at_each(Way::QuitsInVain, BUYER);
    kill_at_each(Way::QuitsInVain, SELLER);
}
