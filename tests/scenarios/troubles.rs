//! What the tables of troubles share: moments of one trade, and how it may end.

use capex::sim::{NodeId, World};
use capex_core::engine::market::MarketCommand;

use super::kit::{assert_sound_after, pair, reach, rest, story, trades};

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
pub(super) const MOMENTS: [Moment; 12] = [
    (BUYER, "draft"),
    (SELLER, "terms_signed"),
    (BUYER, "terms_signed"),
    (SELLER, "lock_granted"),
    (BUYER, "locked"),
    (BUYER, "fund_built"),
    (SELLER, "fund_seen"),
    (BUYER, "fund_sent"),
    (BUYER, "fund_confirmed"),
    (SELLER, "claim_sent"),
    (BUYER, "preimage_known"),
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
    let mut world = pair(seed, 2);
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
