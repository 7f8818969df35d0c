use super::a_gift_redeemed_and_the_former_holder_refused::redeem_by_hand;
use super::kit::{ask, assert_sound, bid, bought_cert, place, reach, rest, story, window, world};
use super::resale::resale;
use capex::sim::{Links, World};
use capex_core::engine::Done;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::market::{MarketCommand, OrderSpec};
use capex_core::ids::{CertId, Key};
use capex_core::lease::objects::LeaseReply;

const PROVIDER: usize = 0;
const SPONSOR: usize = 1;
const HOLDER: usize = 2;
const MINUTE_MS: u64 = 60_000;

/// A sponsor has bought for a holder, and may recall it.
fn sponsored(seed: u64) -> (World, CertId) {
    let mut world = world(seed, 3, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 500, 4, window(8, 20)));
    let beneficiary = Some(world.nodes[HOLDER].key);
    let spec = OrderSpec { beneficiary, is_recallable: true, ..bid(1, 1000, 2, window(8, 11), 3) };
    place(&mut world, SPONSOR, spec);
    reach(&mut world, SPONSOR, "active");
    let cert = bought_cert(&world, SPONSOR);
    let key = world.nodes[HOLDER].key;
    let arrived = world.run_until(MINUTE_MS, |world| is_held(world, HOLDER, cert, key));
    assert!(arrived, "{}", story(&world));
    (world, cert)
}

/// Whether a node knows a key as the holder.
fn is_held(world: &World, node: usize, cert: CertId, by: Key) -> bool {
    let held = world.engine(node).and_then(|engine| engine.holdings().held(&cert).cloned());
    held.is_some_and(|facts| facts.holder == by)
}

/// What a command comes to: `done`, or its code.
fn told(world: &mut World, node: usize, command: u64) -> String {
    let answered = world.run_until(MINUTE_MS, |world| world.answer(node, command).is_some());
    assert!(answered, "{}", story(world));
    match world.answer(node, command) {
        Some(Ok(Done::Gifted { .. })) => "done".to_owned(),
        Some(Err(refusal)) => refusal.code.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn its_holder_can_do_nothing_that_would_take_it_from_the_sponsor() {
    let (mut world, cert) = sponsored(91);
    let to = world.nodes[PROVIDER].key;
    let gift = world.command(HOLDER, HoldingsCommand::Gift { cert, to });
    assert_eq!(told(&mut world, HOLDER, gift), "gift.recallable");
    let offer = MarketCommand::Place(Box::new(resale(cert, 2, window(8, 11))));
    let offer = world.command(HOLDER, offer);
    assert_eq!(told(&mut world, HOLDER, offer), "resale.recallable");
    assert!(matches!(redeem_by_hand(&mut world, HOLDER, cert, 1), LeaseReply::Lease { .. }));
    // A redemption is final for the sponsor too.
    let recall = world.command(SPONSOR, HoldingsCommand::Recall { cert });
    assert_eq!(told(&mut world, SPONSOR, recall), "gift.consumed");
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn the_sponsor_takes_it_back_while_each_of_them_stops_in_turn() {
    for (seed, stopped) in [(92, PROVIDER), (93, SPONSOR), (94, HOLDER)] {
        let (mut world, cert) = sponsored(seed);
        // Whoever stops has to know of the right from its disk.
        for node in [PROVIDER, SPONSOR, HOLDER] {
            world.crash(node);
            world.start(node);
        }
        let sponsor = world.nodes[SPONSOR].key;
        if stopped != SPONSOR {
            world.crash(stopped);
        }
        let recall = world.command(SPONSOR, HoldingsCommand::Recall { cert });
        if stopped == SPONSOR {
            world.run_for(1);
            world.crash(stopped);
        }
        world.run_for(2_000);
        world.start(stopped);
        if stopped != SPONSOR {
            assert_eq!(told(&mut world, SPONSOR, recall), "done", "{stopped}");
        }
        let known = world.run_until(10 * MINUTE_MS, |world| {
            [SPONSOR, HOLDER].iter().all(|node| is_held(world, *node, cert, sponsor))
        });
        assert!(known, "{stopped}: {}", story(&world));
        let LeaseReply::Refused { code } = redeem_by_hand(&mut world, HOLDER, cert, 2) else {
            panic!("the former holder redeemed");
        };
        assert_eq!(code, "redeem.not_holder");
        assert!(matches!(redeem_by_hand(&mut world, SPONSOR, cert, 2), LeaseReply::Lease { .. }));
        rest(&mut world);
        assert_sound(&world);
    }
}

#[test]
fn only_who_buys_for_another_can_ask_for_it() {
    let mut world = world(95, 2, Links::GOOD);
    let spec = OrderSpec { is_recallable: true, ..bid(1, 1000, 2, window(8, 11), 3) };
    let command = world.command(SPONSOR, MarketCommand::Place(Box::new(spec)));
    let answer = world.answer(SPONSOR, command).unwrap();
    assert_eq!(answer.as_ref().unwrap_err().code, "order.recall");
}
