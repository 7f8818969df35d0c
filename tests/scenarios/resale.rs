//! What the stories of certificates that are sold on share: a provider, a holder that resells and
//! a buyer, and what each of them has.

use capex::sim::{Links, NodeId, World};
use capex_core::certificate::VerifiedCertificate;
use capex_core::engine::Done;
use capex_core::engine::market::{MarketCommand, OrderSpec, Standing};
use capex_core::ids::{CertId, StandingId};
use capex_core::units::Window;

use super::kit::{ask, bid, bought_cert, place, reach, window, world};
use super::troubles::halt_orders;

pub(super) const PROVIDER: NodeId = 0;
pub(super) const RESELLER: NodeId = 1;
pub(super) const BUYER: NodeId = 2;

/// Blocks of the certificate that is sold on, in each of its slots.
pub(super) const QTY: u32 = 2;
const SLOTS: u16 = 4;
/// Lowest price of the holder, sat per block.
const PRICE_SAT: u64 = 700;

/// A world in which the reseller has bought a certificate, and nobody has an order.
pub(super) fn held(seed: u64, nodes: usize) -> (World, CertId) {
    held_from(seed, nodes, 24)
}

/// The same, and delivery begins in a slot.
pub(super) fn held_from(seed: u64, nodes: usize, start: u32) -> (World, CertId) {
    let mut world = world(seed, nodes, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    let window = window(start, start + u32::from(SLOTS));
    place(&mut world, PROVIDER, ask(1, 500, QTY, window));
    place(&mut world, RESELLER, bid(1, 1_000, QTY, window, SLOTS));
    reach(&mut world, RESELLER, "active");
    halt_orders(&mut world);
    world.run_for(4_000);
    let cert = bought_cert(&world, RESELLER);
    (world, cert)
}

/// What a living node knows of a certificate that it holds or held.
pub(super) fn facts(world: &World, node: NodeId, cert: CertId) -> Option<VerifiedCertificate> {
    world.engine(node)?.holdings().held(&cert).cloned()
}

/// An ask of a certificate: of some of its units, in a window of it.
pub(super) fn resale(cert: CertId, qty: u32, window: Window) -> OrderSpec {
    OrderSpec { cert: Some(cert), ..ask(1, PRICE_SAT, qty, window) }
}

/// The reseller puts all of a certificate on offer.
pub(super) fn offer(world: &mut World, cert: CertId) -> StandingId {
    let facts = facts(world, RESELLER, cert).unwrap();
    offer_part(world, cert, facts.units.count(), facts.window)
}

/// The reseller puts a part of a certificate on offer.
pub(super) fn offer_part(world: &mut World, cert: CertId, qty: u32, window: Window) -> StandingId {
    let spec = resale(cert, qty, window);
    let command = world.command(RESELLER, MarketCommand::Place(Box::new(spec)));
    match world.answer(RESELLER, command) {
        Some(Ok(Done::Placed(id))) => *id,
        other => panic!("seed {}: {other:?}", world.seed()),
    }
}

/// Somebody wants blocks in every slot of a window.
pub(super) fn want(world: &mut World, node: NodeId, qty: u32, window: Window) {
    let slots = u16::try_from(window.len()).unwrap();
    place(world, node, bid(1, 1_000, qty, window, slots));
}

pub(super) fn standing(world: &World, node: NodeId, id: StandingId) -> Standing {
    let mut all = world.engine(node).unwrap().market().standing();
    all.find(|standing| standing.id == id).cloned().unwrap()
}

/// The code with which a node refuses a command.
pub(super) fn refusal(
    world: &mut World,
    node: NodeId,
    command: impl Into<capex_core::engine::Command>,
) -> String {
    let id = world.command(node, command);
    world.run_until(20_000, |world| world.answer(node, id).is_some());
    match world.answer(node, id) {
        Some(Err(refusal)) => refusal.code.clone(),
        other => panic!("seed {}: {other:?}", world.seed()),
    }
}

/// What a node holds: units and slots of each certificate.
pub(super) fn holds(world: &World, node: NodeId) -> Vec<(CertId, u32, Window)> {
    let engine = world.engine(node).unwrap();
    let slot = engine.params().slot_at(world.now_ms);
    let held = engine.holdings().views(engine.me(), slot);
    held.filter(|view| view.state == "active")
        .map(|view| (view.facts.cert_id, view.facts.units.count(), view.facts.window))
        .collect()
}
