//! A provider calls a sale paid, moves the certificate ahead of the chain, and is not there to be
//! paid before its buyer has the coins back.

use capex::sim::Sides;
use capex_core::engine::Protocol;
use capex_core::engine::courier::CourierRequest;
use capex_core::engine::messages::SettleRequest;
use capex_core::ids::Key;
use capex_core::wire::encode;

use super::kit::{reach, story, trades};
use super::troubles::{
    BLOCK_MS, BUYER, End, PAST_REFUND_MS, SELLER, assert_end, vanish_ahead_of_the_chain, world_at,
};

#[test]
fn and_its_certificate_is_good_for_nothing() {
    let mut world = world_at(101, (SELLER, "quitting"));
    let cert = trades(&world, SELLER)[0].cert.unwrap();
    let refund_at = trades(&world, SELLER)[0].refund_at.unwrap();
    let signed = vanish_ahead_of_the_chain(&mut world);
    reach(&mut world, BUYER, "refunding");
    assert_eq!(world.chain.height(), refund_at, "no later than without an exit");
    reach(&mut world, BUYER, "refunded");
    // Whoever brings it now.
    let brought = SettleRequest::Courier(CourierRequest::Push(signed));
    world.ask_from(Key([9; 32]), BUYER, Protocol::Settle, &encode(&brought)).unwrap();
    assert!(world.engine(BUYER).unwrap().holdings().held(&cert).is_none());
    world.start(SELLER);
    assert_end(&mut world, "taken back", End::Undone);
    let codes: Vec<_> = trades(&world, SELLER).into_iter().map(|trade| trade.code).collect();
    assert_eq!(codes, [Some("settle.claim_lost".to_owned())], "{}", story(&world));
    assert!(world.engine(SELLER).unwrap().register().issued(&cert).is_none());
    assert!(world.engine(BUYER).unwrap().holdings().held(&cert).is_none());
}

/// The provider is there, its buyer does not reach it, and no block takes its claim in time.
#[test]
fn nor_does_a_provider_lose_whose_claim_no_block_takes() {
    let mut world = world_at(102, (SELLER, "quitting"));
    world.sides = Sides::cut(&[SELLER]);
    world.set_mined_feerate(u64::MAX);
    world.run_for(PAST_REFUND_MS);
    world.set_mined_feerate(0);
    world.run_for(10 * BLOCK_MS);
    world.sides = Sides::default();
    assert_end(&mut world, "a race of refund and claim", End::Either);
}
