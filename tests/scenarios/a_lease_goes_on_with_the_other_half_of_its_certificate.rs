use super::kit::{assert_sound, bought_cert, pair, reach, rest, story};
use capex::sim::World;
use capex_core::certificate::carve;
use capex_core::engine::Done;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::{LeaseCommand, LeaseRole, LeaseView};
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::objects::{Outcome, Receipt, Workload};
use capex_core::units::Window;

const PROVIDER: usize = 0;
const HOLDER: usize = 1;

fn view(world: &World, node: usize, lease: LeaseId) -> Option<LeaseView> {
    let engine = world.engine(node)?;
    let role = if node == PROVIDER { LeaseRole::Provider } else { LeaseRole::Holder };
    let views = engine.leases().views(engine.me(), world.now_ms);
    views.into_iter().find(|view| view.lease_id == lease && view.role == role)
}

/// What was bought, and its two parts in time, the first of one slot.
fn halves(world: &mut World) -> (Window, CertId, CertId) {
    let cert = bought_cert(world, HOLDER);
    let facts = world.engine(HOLDER).unwrap().holdings().held(&cert).unwrap().clone();
    let first = Window { end: facts.window.start + 1, ..facts.window };
    let parts = carve(&facts.area(), None, Some(first)).unwrap();
    let split = world.command(HOLDER, HoldingsCommand::Split { cert, parts, give: None });
    assert!(world.run_until(5_000, |world| world.answer(HOLDER, split).is_some()));
    let engine = world.engine(HOLDER).unwrap();
    let slot = world.params().slot_at(world.now_ms);
    let held = engine.holdings().views(engine.me(), slot);
    let mut parts: Vec<(Window, CertId)> = held
        .filter(|held| held.facts.cert_id != cert && facts.window.covers(held.facts.window))
        .map(|held| (held.facts.window, held.facts.cert_id))
        .collect();
    parts.sort_by_key(|(window, _)| window.start);
    let [(_, first), (_, rest)] = parts[..] else { panic!("{parts:?}") };
    (facts.window, first, rest)
}

/// A node restarts while the extension is under way, or none does.
#[test]
fn whoever_restarts_a_lease_goes_on() {
    for (seed, restarts) in [(31, None), (32, Some(PROVIDER)), (33, Some(HOLDER))] {
        let mut world = pair(seed, 2);
        reach(&mut world, HOLDER, "active");
        let (window, first, rest_of_it) = halves(&mut world);
        let workload = Box::new(Workload::wasm(Digest([7; 32]), 100));
        let redeem = world.command(HOLDER, LeaseCommand::Redeem { cert: first, workload });
        assert!(world.run_until(5_000, |world| world.answer(HOLDER, redeem).is_some()));
        let Some(Ok(Done::Redeemed { lease })) = world.answer(HOLDER, redeem).cloned() else {
            panic!("{:?}", world.answer(HOLDER, redeem));
        };
        world.command(HOLDER, LeaseCommand::Extend { lease, cert: rest_of_it });
        if let Some(node) = restarts {
            world.restart(node, 300);
        }
        let knows = |world: &World, node| {
            view(world, node, lease).is_some_and(|view| view.extensions == [rest_of_it])
        };
        let both = |world: &World| knows(world, PROVIDER) && knows(world, HOLDER);
        assert!(world.run_until(10_000, both), "seed {seed}: {}", story(&world));
        let signed =
            |world: &World| view(world, HOLDER, lease).is_some_and(|view| view.countersigned > 0);
        assert!(world.run_until(120_000, signed), "seed {seed}: {}", story(&world));
        let ended = view(&world, HOLDER, lease).unwrap();
        assert_eq!((ended.window, ended.outcome), (window, Some(Outcome::Deadline)), "seed {seed}");
        let engine = world.engine(HOLDER).unwrap();
        let receipts = engine.leases().receipts(&lease);
        let last: Receipt = receipts.last().unwrap().peek().unwrap();
        let slot_s = world.params().slot_s;
        assert_eq!(
            last.to_ms,
            window.ends_at_ms(slot_s),
            "seed {seed}: one chain to the later end"
        );
        assert_eq!(last.delivered_ms, last.to_ms - last.from_ms, "seed {seed}");
        rest(&mut world);
        assert_sound(&world);
    }
}
