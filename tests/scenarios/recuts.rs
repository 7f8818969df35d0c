//! What the stories of certificates that are cut, joined and given in part have in common.

use capex::sim::{Links, NodeId, World};
use capex_core::certificate::carve;
use capex_core::certificate::objects::Area;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::{Done, Refusal};
use capex_core::ids::CertId;
use capex_core::units::Window;

use super::kit::{
    ask, assert_sound_after, bid, place, reach, story, window, world as world_of_nodes,
};
use super::troubles::halt_orders;

pub(super) const PROVIDER: NodeId = 0;
pub(super) const HOLDER: NodeId = 1;
/// To whom the holder gives.
pub(super) const FRIEND: NodeId = 2;

/// More than an errand takes whose message is lost once.
pub(super) const ERRAND_MS: u64 = 4_000;
/// First slot of what is bought: late enough for everything that is done before it.
const STARTS: u32 = 25;

/// What the holder of two units in three slots does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    ByTime,
    ByUnits,
    /// A unit in one slot, and all that is left.
    ByBoth,
    /// Two parts are joined.
    Merge,
    GiftOfUnit,
    GiftOfSlot,
}

impl Cut {
    pub(super) const ALL: [Self; 6] = [
        Self::ByTime,
        Self::ByUnits,
        Self::ByBoth,
        Self::Merge,
        Self::GiftOfUnit,
        Self::GiftOfSlot,
    ];

    /// A world in which it can be done now, and nobody signs orders any more.
    pub(super) fn begin(self, seed: u64) -> World {
        let mut world = holding(seed);
        if self == Self::Merge {
            let done = tell(&mut world, Self::ByTime);
            assert!(matches!(done, Some(Ok(Done::Split { .. }))), "{done:?}");
            world.run_for(500);
        }
        world
    }

    /// What asks for it, of the largest that the holder has.
    pub(super) fn command(self, world: &World) -> HoldingsCommand {
        let certs = usable(world, HOLDER);
        let friend = world.nodes[FRIEND].key;
        let give = matches!(self, Self::GiftOfUnit | Self::GiftOfSlot).then_some((0, friend));
        if self == Self::Merge {
            return HoldingsCommand::Merge { certs };
        }
        let holdings = world.engine(HOLDER).unwrap().holdings();
        let wholes = certs.iter().map(|cert| (*cert, holdings.held(cert).unwrap().area()));
        let (cert, whole) = wholes.max_by_key(|(_, area)| area.unit_slots()).unwrap();
        HoldingsCommand::Split { cert, parts: self.parts(&whole), give }
    }

    fn parts(self, whole: &Area) -> Vec<Area> {
        let start = whole.window.start;
        let first = Window::new(start, start + 1);
        let (qty, window) = match self {
            Self::ByTime | Self::GiftOfSlot => (None, first),
            Self::ByUnits | Self::GiftOfUnit => (Some(1), None),
            Self::ByBoth | Self::Merge => (Some(1), first),
        };
        carve(whole, qty, window).unwrap()
    }

    /// Whether holder and friend have what it leaves.
    pub(super) fn is_done(self, world: &World) -> bool {
        let leaves = match self {
            Self::ByTime | Self::ByUnits => (2, 0),
            Self::ByBoth => (3, 0),
            Self::Merge => (1, 0),
            Self::GiftOfUnit | Self::GiftOfSlot => (1, 1),
        };
        (usable(world, HOLDER).len(), usable(world, FRIEND).len()) == leaves
    }
}

/// A world in which the holder has bought.
pub(super) fn holding(seed: u64) -> World {
    let mut world = world_of_nodes(seed, 3, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    let when = window(STARTS, STARTS + 12);
    place(&mut world, PROVIDER, ask(1, 500, 4, when));
    place(&mut world, HOLDER, bid(1, 1000, 2, when, 3));
    reach(&mut world, HOLDER, "active");
    halt_orders(&mut world);
    world.run_for(1_000);
    world
}

/// Certificates that a living node has and can use, ascending.
pub(super) fn usable(world: &World, node: NodeId) -> Vec<CertId> {
    let Some(engine) = world.engine(node) else { return Vec::new() };
    let slot = world.params().slot_at(world.now_ms);
    let active = engine.holdings().views(engine.me(), slot).filter(|view| view.state == "active");
    active.map(|view| view.facts.cert_id).collect()
}

/// A cut by the holder, and its answer if one comes in time.
pub(super) fn tell(world: &mut World, cut: Cut) -> Option<Result<Done, Refusal>> {
    let command = cut.command(world);
    let command = world.command(HOLDER, command);
    world.run_until(ERRAND_MS, |world| world.answer(HOLDER, command).is_some());
    world.answer(HOLDER, command).cloned()
}

/// Nobody waits for a provider any more.
fn is_settled(world: &World) -> bool {
    let slot = world.params().slot_at(world.now_ms);
    world.engines().all(|(_, engine)| {
        let mut views = engine.holdings().views(engine.me(), slot);
        !views.any(|view| view.gift_pending.is_some() || view.recut_pending.is_some())
    })
}

/// Lets everything come to rest before delivery begins, with every promise kept.
pub(super) fn assert_kept(world: &mut World, what: &str) {
    let settled = world.run_until(40_000, is_settled);
    world.run_for(3_000);
    let seed = world.seed();
    assert!(settled, "{what}, seed {seed}: somebody waits: {}", story(world));
    assert_sound_after(what, world);
    let begins_ms = window(STARTS, STARTS + 1).starts_at_ms(world.params().slot_s);
    assert!(world.now_ms < begins_ms, "{what}: delivery has begun");
}
