//! What the tables of troubles share: moments of one trade, and how it may end.

use capex::sim::{NodeId, World};
use capex_core::certificate::Certificate;
use capex_core::engine::market::MarketCommand;
use capex_core::params::{Params, SettleTimes};

use super::kit::{assert_sound_after, devnet, pair_of, reach, rest, story, trades};

/// Sells, and keeps the register of its certificates.
pub(super) const SELLER: NodeId = 0;
pub(super) const BUYER: NodeId = 1;

/// Chain blocks of a devnet, ms.
pub(super) const BLOCK_MS: u64 = 500;
/// Past the height from which the buyer can refund, ms from the lock.
pub(super) const PAST_REFUND_MS: u64 = 17_000;
/// Past the height at which an unconfirmed funding frees the lock, ms from the lock.
pub(super) const PAST_RELEASE_MS: u64 = 9_000;

/// A node and a state in which it is seen.
pub(super) type Moment = (NodeId, &'static str);

/// Every moment of a trade that goes well, in their order.
pub(super) const MOMENTS: [Moment; 14] = [
    (BUYER, "draft"),
    (SELLER, "terms_signed"),
    (BUYER, "terms_signed"),
    (SELLER, "lock_granted"),
    (BUYER, "locked"),
    (BUYER, "fund_built"),
    (SELLER, "fund_seen"),
    (BUYER, "fund_sent"),
    (BUYER, "fund_confirmed"),
    (SELLER, "quitting"),
    (BUYER, "preimage_known"),
    (BUYER, "active"),
    (SELLER, "claim_sent"),
    (SELLER, "claimed"),
];

/// How one trade may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The seller is paid, and the certificate is the buyer's.
    Settled,
    /// The buyer has its coins but for fees, and the seller its units.
    Undone,
    /// One of these, as chance has it.
    Either,
    /// One of these, or the provider did not deliver.
    EitherOrDefaulted,
    /// The provider was paid and is gone: the buyer may be left with the proof of it.
    Defaulted,
}

/// A world in which one trade has come to a moment, and no other follows.
pub(super) fn world_at(seed: u64, moment: Moment) -> World {
    world_of_at(devnet(), seed, moment)
}

/// The same where a seller claims by script, as it does for a buyer that gives no key.
pub(super) fn world_by_script_at(seed: u64, moment: Moment) -> World {
    world_of_at(without_exit(devnet()), seed, moment)
}

/// A network whose sellers ask for no key.
pub(super) fn without_exit(params: Params) -> Params {
    Params { settle: SettleTimes { quit_ms: 0, ..params.settle }, ..params }
}

fn world_of_at(params: Params, seed: u64, moment: Moment) -> World {
    let mut world = pair_of(params, seed, 2);
    reach(&mut world, moment.0, moment.1);
    halt_orders(&mut world);
    world
}

/// Nobody signs orders any more.
pub(super) fn halt_orders(world: &mut World) {
    for node in 0..world.nodes.len() {
        halt_orders_of(world, node);
    }
}

/// This node signs no orders any more.
pub(super) fn halt_orders_of(world: &mut World, node: NodeId) {
    let standing = world.engine(node).map(|engine| engine.market().standing());
    let standing: Vec<_> = standing.into_iter().flatten().map(|order| order.id).collect();
    for id in standing {
        world.command(node, MarketCommand::Cancel(id));
    }
}

/// A node is away for a while.
pub(super) fn be_away(world: &mut World, node: NodeId, ms: u64) {
    world.crash(node);
    world.run_for(ms);
    world.start(node);
}

/// A seller that called the sale paid moves the certificate, and is gone before anybody hears.
/// Returns what it has signed.
pub(super) fn vanish_ahead_of_the_chain(world: &mut World) -> Certificate {
    let cert = trades(world, SELLER)[0].cert.expect("it is issued");
    let moved = |world: &World| {
        let register = world.engine(SELLER)?.register();
        let has_moved = register.issued(&cert)?.seq > 0;
        register.certificate(&cert).filter(|_| has_moved).cloned()
    };
    assert!(world.run_until(BLOCK_MS, |world| moved(world).is_some()), "{}", story(world));
    let certificate = moved(world).expect("it has moved");
    world.crash(SELLER);
    // What was on its way to it is lost.
    be_away(world, BUYER, BLOCK_MS);
    certificate
}

/// Lets everything come to its end, which must be sound and the expected one.
pub(super) fn assert_end(world: &mut World, label: &str, end: End) {
    rest(world);
    let told = || format!("{label}, expected {end:?}");
    assert_sound_after(&told(), world);
    let states: Vec<&str> =
        (0..world.nodes.len()).flat_map(|node| trades(world, node)).map(|t| t.state).collect();
    let undone = |state: &&str| matches!(*state, "aborted" | "cancelled" | "refunded" | "released");
    let settled = |state: &&str| matches!(*state, "active" | "settled" | "claimed");
    let paid = |state: &&str| settled(state) || matches!(*state, "preimage_known" | "defaulted");
    let mut all = states.iter();
    let as_expected = match end {
        End::Settled => all.all(settled),
        End::Undone => all.all(undone),
        End::Either => all.all(|state| settled(state) || undone(state)),
        End::EitherOrDefaulted => all.all(|state| paid(state) || undone(state)),
        End::Defaulted => all.all(paid),
    };
    assert!(as_expected, "{}: {}", told(), story(world));
}
