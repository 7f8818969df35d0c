//! What nodes do with certificates that they have by then, drawn from a seed.

use capex::sim::{NodeId, Rng, World};
use capex_core::certificate::objects::Area;
use capex_core::certificate::{VerifiedCertificate, carve};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::market::{MarketCommand, OrderSpec};
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::Workload;
use capex_core::units::Window;

use super::kit::{ask, bid};

const MOVES_MAX: u64 = 10;
/// What is resold costs at least this, sat per block: more than the smallest trade.
const ASK_SAT: u64 = 1_000;
/// Earliest that something is bought, and the start of the first window, ms.
const MOVING_MS: (u64, u64) = (6_000, 39_000);

/// One command of a node, about one of its certificates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) at_ms: u64,
    node: NodeId,
    /// Which of them, whatever it has.
    pick: u64,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Split {
        qty: u32,
        from: u32,
        slots: u32,
    },
    Merge,
    Gift {
        to: NodeId,
    },
    GiftOfPart {
        to: NodeId,
        qty: u32,
        from: u32,
        slots: u32,
    },
    /// A part of it is on offer, and somebody wants that.
    Resell {
        to: NodeId,
        qty: u32,
        from: u32,
        slots: u32,
    },
    Redeem,
}

/// Those of a seed.
pub(super) fn moves(seed: u64, nodes: usize) -> Vec<Move> {
    // Others than the orders' and troubles', which stay as they are.
    let mut rng = Rng::new(seed.wrapping_mul(0x85eb_ca6b).wrapping_add(11));
    let mut one = || {
        let (pick, node) = (rng.draw(), below(&mut rng, nodes));
        let mut small = || u32::try_from(rng.within(0, 3)).unwrap();
        let (qty, from, slots) = (small() + 1, small(), small() + 1);
        let to = below(&mut rng, nodes);
        let what = match rng.within(0, 100) {
            0..25 => What::Split { qty, from, slots },
            25..40 => What::Merge,
            40..50 => What::Gift { to },
            50..65 => What::GiftOfPart { to, qty, from, slots },
            65..95 => What::Resell { to, qty, from, slots },
            _ => What::Redeem,
        };
        Move { at_ms: rng.within(MOVING_MS.0, MOVING_MS.1), node, pick, what }
    };
    let mut all: Vec<Move> = (0..MOVES_MAX).map(|_| one()).collect();
    all.sort_by_key(|one| one.at_ms);
    all
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.within(0, bound as u64)).unwrap()
}

/// What a node has and can use, ascending.
fn usable(world: &World, node: NodeId) -> Vec<VerifiedCertificate> {
    let Some(engine) = world.engine(node) else { return Vec::new() };
    let slot = world.params().slot_at(world.now_ms);
    let views = engine.holdings().views(engine.me(), slot);
    views.filter(|view| view.state == "active").map(|view| view.facts).collect()
}

impl Move {
    /// Refused, if a neighbour of it is under way, or there is nothing to do it with.
    pub(super) fn begin(self, world: &mut World) {
        let held = usable(world, self.node);
        let Some(count) = u64::try_from(held.len()).ok().filter(|count| *count > 0) else { return };
        let one = &held[usize::try_from(self.pick % count).unwrap()];
        let key = |node: NodeId| world.nodes[node].key;
        let cut = |qty: u32, from: u32, slots: u32| {
            let Window { start, end } = one.window;
            let start = start + from % one.window.len();
            let window = Window::new(start, end.min(start + slots));
            carve(&one.area(), Some(qty.min(one.units.count())), window)
        };
        let cert = one.cert_id;
        let command = match self.what {
            What::Split { qty, from, slots } => cut(qty, from, slots)
                .map(|parts| HoldingsCommand::Split { cert, parts, give: None }),
            What::GiftOfPart { to, qty, from, slots } => cut(qty, from, slots)
                .map(|parts| HoldingsCommand::Split { cert, parts, give: Some((0, key(to))) }),
            What::Gift { to } => Some(HoldingsCommand::Gift { cert, to: key(to) }),
            What::Merge => {
                let other = held.iter().find(|other| fit(one, other));
                other.map(|other| HoldingsCommand::Merge { certs: vec![cert, other.cert_id] })
            }
            What::Resell { to, qty, from, slots } => {
                let part = cut(qty, from, slots).and_then(|parts| parts.into_iter().next());
                let area = part.unwrap_or(one.area());
                resell(world, (self.node, to), one, &area);
                None
            }
            What::Redeem => {
                redeem(world, self.node, cert);
                None
            }
        };
        if let Some(command) = command {
            world.command(self.node, command);
        }
    }
}

/// Refused where one cannot sell or buy; a node that trades with itself does neither.
fn resell(world: &mut World, of: (NodeId, NodeId), one: &VerifiedCertificate, area: &Area) {
    let (seller, buyer) = of;
    let (class, qty, window) = (one.class, area.units.count(), area.window);
    let offer = OrderSpec { cert: Some(one.cert_id), ..ask(class, ASK_SAT, qty, window) };
    world.command(seller, MarketCommand::Place(Box::new(offer)));
    if buyer != seller {
        let slots = u16::try_from(window.len()).unwrap();
        let bid = bid(class, 2 * ASK_SAT, qty, window, slots);
        world.command(buyer, MarketCommand::Place(Box::new(bid)));
    }
}

fn redeem(world: &mut World, node: NodeId, cert: CertId) {
    let workload = Workload::wasm(Digest([7; 32]), 100);
    world.command(node, LeaseCommand::Redeem { cert, workload: Box::new(workload) });
}

fn fit(one: &VerifiedCertificate, other: &VerifiedCertificate) -> bool {
    let (a, b) = (one.window, other.window);
    let in_time = one.units == other.units && (a.end == b.start || b.end == a.start);
    let same_kind = (one.provider, one.class) == (other.provider, other.class);
    same_kind && (in_time || a == b && !one.units.overlaps(&other.units))
}

/// What became of certificates by moves, as their providers have it.
pub(super) fn became(world: &World) -> Vec<&'static str> {
    let slot = world.params().slot_at(world.now_ms);
    let views = world.engines().flat_map(|(_, engine)| engine.register().views(slot));
    let states = views.filter_map(|view| match view.state {
        "split" => Some("cut"),
        "merged" => Some("joined"),
        "redeemed" => Some("redeemed"),
        _ => view.facts.seq.gt(&1).then_some("given"),
    });
    states.collect()
}
