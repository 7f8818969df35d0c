use capex::sim::World;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::market::{MarketCommand, StandingState};

use super::kit::{assert_sound, reach, rest, story, trades};
use super::resale::{
    BUYER, PROVIDER, QTY, RESELLER, facts, held, holds, offer, offer_part, refusal, resale,
    standing, want,
};

#[test]
fn terms_by_the_holder_lock_and_activation_by_the_provider() {
    let (mut world, cert) = held(41, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let order = offer(&mut world, cert);
    want(&mut world, BUYER, QTY, window);
    reach(&mut world, BUYER, "active");
    let bought = facts(&world, BUYER, cert).unwrap();
    assert_eq!((bought.holder, bought.seq), (world.nodes[BUYER].key, 2));
    assert_eq!(bought.provider, world.nodes[PROVIDER].key);
    reach(&mut world, RESELLER, "settled");
    let sold = standing(&world, RESELLER, order);
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, RESELLER), []);
    assert_eq!(holds(&world, BUYER), [(cert, QTY, window)]);
    assert_eq!((sold.state, sold.filled), (StandingState::Filled, QTY), "{}", story(&world));
    let sale = trades(&world, RESELLER).into_iter().find(|trade| trade.state == "settled");
    assert_eq!(sale.map(|sale| sale.registrar), Some(world.nodes[PROVIDER].key));
    // Whoever sold it can do nothing with it any more.
    let to = world.nodes[PROVIDER].key;
    let given = refusal(&mut world, RESELLER, HoldingsCommand::Gift { cert, to });
    assert_eq!(given, "gift.consumed");
    let again = MarketCommand::Place(Box::new(resale(cert, QTY, window)));
    assert_eq!(refusal(&mut world, RESELLER, again), "resale.consumed");
}

#[test]
fn a_part_that_is_sold_splits_by_itself_and_the_rest_is_offered_on() {
    let (mut world, cert) = held(42, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let order = offer(&mut world, cert);
    want(&mut world, BUYER, 1, window);
    reach(&mut world, BUYER, "active");
    reach(&mut world, RESELLER, "settled");
    let left = standing(&world, RESELLER, order);
    assert_eq!(left.state, StandingState::Open, "{}", story(&world));
    assert_eq!((left.offers.len(), left.filled), (1, 1));
    // What is left finds a buyer too.
    want(&mut world, BUYER, 1, window);
    let both = |world: &World| holds(world, BUYER).len() == 2;
    assert!(world.run_until(45_000, both), "{}", story(&world));
    let is_filled = |world: &World| standing(world, RESELLER, order).state == StandingState::Filled;
    assert!(world.run_until(10_000, is_filled), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(holds(&world, RESELLER), []);
}

#[test]
fn a_part_that_is_offered_leaves_the_rest_with_its_holder() {
    let (mut world, cert) = held(43, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let late = capex_core::units::Window::new(window.start + 2, window.end).unwrap();
    offer_part(&mut world, cert, 1, late);
    want(&mut world, BUYER, 1, late);
    reach(&mut world, BUYER, "active");
    rest(&mut world);
    assert_sound(&world);
    assert_eq!(
        holds(&world, BUYER).iter().map(|held| (held.1, held.2)).collect::<Vec<_>>(),
        [(1, late)]
    );
    let blocks: u32 = holds(&world, RESELLER).iter().map(|(_, qty, slots)| qty * slots.len()).sum();
    assert_eq!(blocks, QTY * window.len() - late.len());
}

#[test]
fn on_offer_it_moves_in_no_other_way_and_a_cancel_frees_it() {
    let (mut world, cert) = held(44, 3);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let order = offer(&mut world, cert);
    let is_signed = |world: &World| standing(world, RESELLER, order).last_order.is_some();
    assert!(world.run_until(5_000, is_signed));
    let before = facts(&world, RESELLER, cert);
    let to = world.nodes[BUYER].key;
    let workload =
        capex_core::lease::objects::Workload::wasm(capex_core::ids::Digest([7; 32]), 100);
    let parts = capex_core::certificate::carve(&before.as_ref().unwrap().area(), Some(1), None);
    let split = HoldingsCommand::Split { cert, parts: parts.unwrap(), give: None };
    let redeem = LeaseCommand::Redeem { cert, workload: Box::new(workload) };
    let extend = LeaseCommand::Extend { lease: capex_core::ids::LeaseId([9; 32]), cert };
    let again = MarketCommand::Place(Box::new(resale(cert, 1, window)));
    let gift = HoldingsCommand::Gift { cert, to };
    let merge = HoldingsCommand::Merge { certs: vec![cert, capex_core::ids::CertId([9; 32])] };
    assert_eq!(refusal(&mut world, RESELLER, gift.clone()), "gift.on_offer");
    assert_eq!(refusal(&mut world, RESELLER, split), "split.on_offer");
    assert_eq!(refusal(&mut world, RESELLER, merge), "merge.on_offer");
    assert_eq!(refusal(&mut world, RESELLER, redeem), "redeem.on_offer");
    assert_eq!(refusal(&mut world, RESELLER, extend), "redeem.on_offer");
    assert_eq!(refusal(&mut world, RESELLER, again), "resale.on_offer");
    assert_eq!(facts(&world, RESELLER, cert), before, "nothing is consumed");
    world.command(RESELLER, MarketCommand::Cancel(order));
    // What was signed is firm until its epoch is computed.
    assert_eq!(refusal(&mut world, RESELLER, gift.clone()), "gift.on_offer");
    world.run_for(4_000);
    let given = world.command(RESELLER, gift);
    assert!(world.run_until(5_000, |world| world.answer(RESELLER, given).is_some()));
    assert!(matches!(world.answer(RESELLER, given), Some(Ok(_))));
    rest(&mut world);
    assert_sound(&world);
}
