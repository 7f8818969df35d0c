use capex::sim::World;
use capex_core::certificate::carve;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::market::{MarketCommand, OrderSpec, StandingState};
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::Workload;
use capex_core::order::{Alternative, Side};
use capex_core::units::Window;

use super::kit::{assert_sound, rest, story};
use super::resale::{
    BUYER, PROVIDER, QTY, RESELLER, facts, held, held_from, holds, offer, refusal, resale, standing,
};

fn place(spec: OrderSpec) -> MarketCommand {
    MarketCommand::Place(Box::new(spec))
}

/// Does something as the holder, and waits for its answer.
fn done(world: &mut World, command: impl Into<capex_core::engine::Command>) {
    let id = world.command(RESELLER, command);
    assert!(world.run_until(10_000, |world| world.answer(RESELLER, id).is_some()));
    assert!(matches!(world.answer(RESELLER, id), Some(Ok(_))), "{:?}", world.answer(RESELLER, id));
}

fn workload() -> Workload {
    Workload::wasm(Digest([7; 32]), 100)
}

#[test]
fn of_what_is_held() {
    let (mut world, cert) = held(91, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let all = || resale(cert, QTY, window);
    let later = Window { end: window.end + 1, ..window };
    let earlier = Window { start: window.start - 1, ..window };
    let other = vec![Alternative { class: 2, limit_msat: 700_000 }];
    let table = [
        ("unknown", "resale.unknown_certificate", resale(CertId([9; 32]), QTY, window)),
        ("a unit more", "resale.outside", resale(cert, QTY + 1, window)),
        ("a slot later", "resale.outside", resale(cert, QTY, later)),
        ("a slot earlier", "resale.outside", resale(cert, QTY, earlier)),
        ("another class", "resale.other_kind", OrderSpec { alts: other, ..all() }),
        ("a feature that it lacks", "resale.other_kind", OrderSpec { features: 1, ..all() }),
        ("nothing of it", "resale.outside", resale(cert, 0, window)),
        ("a bid", "order.run", OrderSpec { side: Side::Buy, slots: 1, min_run: 0, ..all() }),
    ];
    for (what, code, spec) in table {
        assert_eq!(refusal(&mut world, RESELLER, place(spec)), code, "{what}");
    }
    // Whoever does not hold it sells nothing of it.
    let foreign = refusal(&mut world, BUYER, place(all()));
    assert_eq!(foreign, "resale.unknown_certificate");
    let open = world.engine(RESELLER).unwrap().market().standing().filter(|one| one.is_open());
    assert_eq!(open.count(), 0);
    assert_eq!(holds(&world, RESELLER), [(cert, QTY, window)]);
}

#[test]
fn of_what_is_given_away_or_about_to_be() {
    let (mut world, cert) = held(92, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let to = world.nodes[BUYER].key;
    world.crash(PROVIDER);
    world.command(RESELLER, HoldingsCommand::Gift { cert, to });
    let all = || place(resale(cert, QTY, window));
    assert_eq!(refusal(&mut world, RESELLER, all()), "resale.pending");
    world.start(PROVIDER);
    let given = |world: &World| facts(world, RESELLER, cert).unwrap().holder == to;
    assert!(world.run_until(30_000, given));
    assert_eq!(refusal(&mut world, RESELLER, all()), "resale.not_holder");
}

#[test]
fn of_what_is_split_or_redeemed() {
    let (mut world, cert) = held(93, 3);
    let whole = facts(&world, RESELLER, cert).unwrap().area();
    let parts = carve(&whole, Some(1), None).unwrap();
    done(&mut world, HoldingsCommand::Split { cert, parts, give: None });
    let all = |cert, qty| place(resale(cert, qty, whole.window));
    assert_eq!(refusal(&mut world, RESELLER, all(cert, QTY)), "resale.consumed");
    let (part, ..) = holds(&world, RESELLER)[0];
    done(&mut world, LeaseCommand::Redeem { cert: part, workload: Box::new(workload()) });
    assert_eq!(refusal(&mut world, RESELLER, all(part, 1)), "resale.consumed");
}

/// An ask shrinks as its window runs out, and ends when the provider could move nothing any more.
#[test]
fn of_what_begins_too_soon() {
    let (mut world, cert) = held_from(94, 3, 14);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let order = offer(&mut world, cert);
    let ended = |world: &World| standing(world, RESELLER, order).state != StandingState::Open;
    assert!(world.run_until(60_000, ended), "{}", story(&world));
    let starts_ms = window.starts_at_ms(world.params().slot_s);
    assert!(world.now_ms < starts_ms, "before its delivery begins");
    let expired = standing(&world, RESELLER, order);
    assert_eq!(expired.state, StandingState::Expired);
    assert_eq!(expired.note.as_deref(), Some("resale.window_too_near"));
    let again = place(resale(cert, QTY, window));
    assert_eq!(refusal(&mut world, RESELLER, again), "resale.window_too_near");
    // What was signed last is matched with nobody, and then it can be used.
    world.run_for(4_000);
    done(&mut world, LeaseCommand::Redeem { cert, workload: Box::new(workload()) });
    rest(&mut world);
    assert_sound(&world);
}
