//! A party that stops answering, at one moment or another, costs the others no money.

use super::*;

#[test]
fn a_vanished_seller_leaves_the_refund_from_its_height_on() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.until("refunding", |world| world.state(BUYER) == "refunding");
    let view = world.view(BUYER).unwrap();
    assert_eq!(Some(world.chain.height()), view.refund_at, "first sent at this tip");
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    let refund = world.view(BUYER).unwrap().refund.unwrap();
    assert_eq!(refund.height, view.refund_at.map(|height| height + 1));
    // Nothing was ever sent that the chain would refuse as not yet final.
    assert_eq!(world.chain.rejected, Vec::<String>::new());
    assert!(
        world.events[BUYER].iter().any(
            |event| matches!(event, TradeEvent::Void { code, .. } if code == "settle.refunded")
        )
    );
}

#[test]
fn a_vanished_buyer_frees_the_lock() {
    let mut world = World::new(Faults::default()).open();
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    world.parties[BUYER].online = false;
    world.until("released", |world| world.state(SELLER) == "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("fund.not_sent"));
    assert_eq!(world.parties[SELLER].registrar.released.len(), 1);
}

#[test]
fn a_buyer_that_never_asks_frees_the_units() {
    let mut world = World::new(Faults::default());
    world.open_sell();
    world.until("released", |world| world.state(SELLER) == "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("trade.buyer_silent"));
}

#[test]
fn a_funding_that_does_not_confirm_is_replaced_by_a_payment_to_self() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    let view = world.view(BUYER).unwrap();
    assert_eq!(Some(world.chain.height() + 4), view.fund_by, "at F − g");
    world.run("cancelled", "released");
    assert_eq!(world.codes()[SELLER].as_deref(), Some("fund.cancelled"));
    assert!(world.chain.contract_spend(&world.parties[BUYER]).is_none());
}

#[test]
fn an_unacknowledged_funding_is_never_broadcast_and_its_coins_come_back() {
    let mut world = World::new(Faults::default()).open();
    world.until("locked", |world| world.state(BUYER) == "locked");
    world.parties[SELLER].online = false;
    world.until("built", |world| world.state(BUYER) == "fund_built");
    let fund = world.view(BUYER).unwrap().fund.unwrap().txid;
    world.until("lapsed", |world| world.state(BUYER) == "fund_lapsed");
    assert_eq!(world.parties[BUYER].lent.len(), 1, "others may have its coins");
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    let view = world.view(BUYER).unwrap();
    assert_eq!(Some(world.chain.height() + 4), view.fund_by, "at F − g and not before");
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    assert!(!world.chain.offered.contains(&fund));
}

/// No transaction of its own, and no fee.
#[test]
fn an_unacknowledged_funding_ends_with_the_next_that_takes_its_coins() {
    let mut world = World::new(Faults::default()).open();
    world.until("locked", |world| world.state(BUYER) == "locked");
    world.parties[SELLER].online = false;
    world.until("lapsed", |world| world.state(BUYER) == "fund_lapsed");
    let other = world.setup.pay(&[], 300).tx;
    world.chain.broadcast(&other).unwrap();
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    assert_eq!(world.chain.offered, [other.compute_txid()]);
}
