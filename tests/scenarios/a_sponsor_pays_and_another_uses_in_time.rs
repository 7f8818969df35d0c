use super::a_gift_redeemed_and_the_former_holder_refused::redeem_by_hand;
use super::kit::{ask, assert_sound, bid, bought_cert, place, reach, rest, story, window, world};
use capex::sim::{Links, World};
use capex_core::engine::market::{MarketCommand, OrderSpec};
use capex_core::ids::CertId;
use capex_core::lease::objects::LeaseReply;
use capex_core::units::{Slot, TimeMs};

const PROVIDER: usize = 0;
const SPONSOR: usize = 1;
const HOLDER: usize = 2;
/// Of the 3 slots from 8 to 11, two are left to use.
const USE_BY: Slot = 2;

/// A provider sells, and a sponsor bids for a holder who is to use it by a slot.
fn sponsored(seed: u64) -> (World, Slot) {
    let mut world = world(seed, 3, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 500, 4, window(8, 20)));
    let window = window(8, 11);
    let (holder, use_by) = (world.nodes[HOLDER].key, window.start + USE_BY);
    let spec = bid(1, 1000, 2, window, 3);
    let spec = OrderSpec { beneficiary: Some(holder), use_by: Some(use_by), ..spec };
    place(&mut world, SPONSOR, spec);
    reach(&mut world, SPONSOR, "active");
    (world, use_by)
}

fn starts_at_ms(world: &World, slot: Slot) -> TimeMs {
    u64::from(slot) * u64::from(world.params().slot_s) * 1000
}

fn holds(world: &World, node: usize, cert: CertId) -> bool {
    let holder = world.nodes[HOLDER].key;
    let held = world.engine(node).and_then(|engine| engine.holdings().held(&cert).cloned());
    held.is_some_and(|facts| facts.holder == holder)
}

fn refusal(reply: LeaseReply) -> String {
    let LeaseReply::Refused { code } = reply else { panic!("{reply:?}") };
    code
}

#[test]
fn both_have_the_certificate_and_only_the_holder_can_use_it() {
    let (mut world, _) = sponsored(81);
    let cert = bought_cert(&world, SPONSOR);
    let arrived = world.run_until(5_000, |world| holds(world, HOLDER, cert));
    assert!(arrived, "{}", story(&world));
    // What the sponsor keeps is its receipt: it names the holder, and no more can be done with it.
    assert!(holds(&world, SPONSOR, cert));
    let code = refusal(redeem_by_hand(&mut world, SPONSOR, cert, 1));
    assert_eq!(code, "redeem.not_holder");
    assert!(matches!(redeem_by_hand(&mut world, HOLDER, cert, 1), LeaseReply::Lease { .. }));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn what_was_not_used_in_time_has_lapsed() {
    let (mut world, use_by) = sponsored(82);
    let cert = bought_cert(&world, SPONSOR);
    assert!(world.run_until(5_000, |world| holds(world, HOLDER, cert)));
    let lapses_ms = starts_at_ms(&world, use_by);
    world.run_for(lapses_ms.saturating_sub(world.now_ms));
    let code = refusal(redeem_by_hand(&mut world, HOLDER, cert, 1));
    assert_eq!(code, "redeem.window_past");
    assert!(holds(&world, PROVIDER, cert) || holds(&world, HOLDER, cert), "nothing moved");
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_bid_that_could_leave_no_slot_to_use_is_refused() {
    let mut world = world(83, 2, Links::GOOD);
    let (window, holder) = (window(8, 20), world.nodes[0].key);
    // The latest run of three slots begins with 17.
    for (beneficiary, use_by, is_good) in
        [(Some(holder), 17, false), (None, 18, false), (Some(holder), 18, true)]
    {
        let use_by = Some(window.start - 8 + use_by);
        let spec = OrderSpec { beneficiary, use_by, ..bid(1, 1000, 2, window, 3) };
        let command = world.command(1, MarketCommand::Place(Box::new(spec)));
        let answer = world.answer(1, command).unwrap();
        let code = answer.as_ref().err().map(|refusal| refusal.code.as_str());
        assert_eq!(code, (!is_good).then_some("order.use_by"));
    }
}

/// Whom somebody names as the holder has signed nothing.
#[test]
fn one_that_is_named_as_holder_of_what_is_not_paid_buys_as_before() {
    let mut world = world(84, 3, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 500, 4, window(8, 20)));
    let spec = bid(1, 1000, 2, window(8, 11), 3);
    let named = OrderSpec { beneficiary: Some(world.nodes[HOLDER].key), ..spec.clone() };
    place(&mut world, SPONSOR, named);
    place(&mut world, HOLDER, spec);
    reach(&mut world, SPONSOR, "locked");
    world.crash(SPONSOR);
    reach(&mut world, HOLDER, "active");
    world.start(SPONSOR);
    rest(&mut world);
    assert_sound(&world);
}
