//! A buyer whose funding is signed elsewhere: whoever signs it can send it, whenever they like, and
//! no coin of it is lost.

use super::*;
use capex_core::engine::kernel::Timer;
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::trades::TradeRequest;

fn watching(faults: Faults) -> World {
    let mut world = World::new(faults);
    world.parties[BUYER].is_watch_only = true;
    world.open()
}

/// The funding waits and has been handed out.
fn exported(faults: Faults) -> World {
    let mut world = watching(faults);
    world.until("built", |world| !world.parties[BUYER].built.is_empty());
    world.parties[BUYER].export(&world.setup, world.now_ms);
    world.settle(BUYER);
    world.until("exported", |world| world.state(BUYER) == "fund_exported");
    world
}

fn abandoned(faults: Faults) -> World {
    let mut world = exported(faults);
    world.until("abandoned", |world| world.state(BUYER) == "fund_abandoned");
    world
}

impl World {
    /// The signer sends what it signed.
    fn sent_elsewhere(&mut self) {
        let built = self.parties[BUYER].built.values().next().unwrap().tx.clone();
        self.chain.broadcast(&built).unwrap();
    }

    fn has_told_a_cancel(&self) -> bool {
        self.posted.iter().any(|(_, from, _, message)| {
            let Message::Request { bytes, .. } = message else { return false };
            let request = capex_core::wire::decode_record(bytes).unwrap();
            *from == BUYER && matches!(request, SettleRequest::Trade(TradeRequest::Cancel(_)))
        })
    }
}

#[test]
fn what_nobody_was_handed_ends_with_its_deadline() {
    let mut world = watching(Faults::default());
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("wallet.unsigned"));
    assert_eq!(world.parties[BUYER].released.len(), 1);
    assert!(world.has_told_a_cancel() && !world.parties[BUYER].is_watching());
}

#[test]
fn what_comes_back_signed_is_paid_like_any_other() {
    let mut world = exported(Faults::default());
    assert_eq!(world.parties[BUYER].next_timer(), Some(Timer::TradeRetry));
    world.parties[BUYER].import();
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "fund_built");
    world.run("active", "settled");
    assert_eq!(world.chain.rejected, Vec::<String>::new());
}

/// Nobody acknowledged it, and the buyer's node has no signature of its own.
#[test]
fn what_is_sent_before_its_time_is_a_sale() {
    for is_mined_at_once in [false, true] {
        let mut world = exported(Faults::default());
        world.sent_elsewhere();
        world.chain.hold_contracts = !is_mined_at_once;
        world.until("seen", |world| world.state(BUYER) != "fund_exported");
        world.chain.hold_contracts = false;
        world.run("active", "settled");
        assert_eq!(world.chain.rejected, Vec::<String>::new(), "the signed form is sent again");
    }
}

#[test]
fn nobody_is_told_that_a_trade_is_over_whose_funding_was_handed_out() {
    let mut world = abandoned(Faults::default());
    assert_eq!(world.codes()[BUYER].as_deref(), Some("wallet.unsigned"));
    assert_eq!(world.parties[BUYER].lent.len(), 1, "others may have its coins");
    assert_eq!(world.parties[BUYER].released, []);
    let is_void = |event: &TradeEvent| matches!(event, TradeEvent::Void { .. });
    assert!(world.events[BUYER].iter().any(is_void), "its order is free again");
    world.until("released", |world| world.state(SELLER) == "released");
    assert!(!world.has_told_a_cancel(), "it would prove the provider right");
    assert!(world.parties[BUYER].is_watching());
    assert_eq!(world.parties[BUYER].next_timer(), None);
}

#[test]
fn what_is_sent_after_its_time_comes_back_by_a_refund() {
    let mut number = 0;
    loop {
        let faults = Faults { crash: Some((BUYER, number)), ..Faults::default() };
        let mut world = abandoned(faults);
        world.until("released", |world| world.state(SELLER) == "released");
        world.sent_elsewhere();
        world.until("refunded", |world| world.state(BUYER) == "refunded");
        assert_eq!(world.state(SELLER), "released");
        let spend = world.chain.contract_spend(&world.parties[BUYER]);
        assert!(matches!(spend, Some((_, SpendKind::Refund))), "{spend:?}");
        if world.crashes == 0 {
            break;
        }
        number += 1;
    }
    assert!(number >= 9, "{number}");
}

/// The wallet has followed the chain past it when the node goes down before it knows.
#[test]
fn what_was_sent_just_before_a_crash_is_found_in_the_next_life() {
    // It gives the funding, or says that it is settled.
    for says in [None, Some("wallet.confirmed")] {
        let mut world = abandoned(Faults::default());
        world.parties[BUYER].online = false;
        world.sent_elsewhere();
        let height = world.chain.height();
        world.until("mined", |world| world.chain.height() > height + 3);
        world.parties[BUYER].online = true;
        world.parties[BUYER].wallet_refuses = says;
        world.parties[BUYER].restart(&world.setup, world.now_ms);
        // Blocks that the wallet has read are not read again by themselves.
        world.parties[BUYER].rescan = false;
        world.settle(BUYER);
        assert_eq!(world.state(BUYER), "fund_confirmed", "{says:?}");
        world.until("refunded", |world| world.state(BUYER) == "refunded");
    }
}

#[test]
fn what_was_abandoned_ends_when_the_wallet_knows_that_it_never_can_confirm() {
    for is_restarted in [false, true] {
        let mut world = if is_restarted { abandoned } else { exported }(Faults::default());
        world.parties[BUYER].wallet_refuses = Some("wallet.fund_dead");
        if is_restarted {
            world.parties[BUYER].restart(&world.setup, world.now_ms);
            world.settle(BUYER);
        }
        world.until("cancelled", |world| world.state(BUYER) == "cancelled");
        assert!(!world.parties[BUYER].is_watching());
    }
}

#[test]
fn a_new_life_reads_no_old_block_for_what_was_abandoned() {
    let mut world = abandoned(Faults::default());
    world.parties[BUYER].restart(&world.setup, world.now_ms);
    world.parties[BUYER].rescan = false;
    world.parties[BUYER].pump(&world.setup, &mut world.chain, None);
    assert!(world.parties[BUYER].is_watching() && !world.parties[BUYER].rescan);
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "fund_abandoned");
}

#[test]
fn what_was_abandoned_ends_when_a_block_gives_its_coins_to_another() {
    let mut world = abandoned(Faults::default());
    let other = world.setup.pay(&[], 300).tx;
    world.chain.broadcast(&other).unwrap();
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    let (conflict, _) = world.chain.confirmed().next().unwrap();
    let deep = world.setup.params.chain.final_blocks;
    assert_eq!(world.chain.height(), conflict + deep - 1);
    assert!(!world.parties[BUYER].is_watching());
}

#[test]
fn what_was_handed_out_is_taken_only_while_its_lock_is_the_only_one() {
    let mut world = exported(Faults::default());
    world.parties[BUYER].registrar.conflict = true;
    world.parties[BUYER].import();
    world.settle(BUYER);
    assert_eq!(world.state(BUYER), "fund_abandoned");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("lock.conflict"));
    let shown = |(_, from, _, message): &(u64, usize, usize, Message)| {
        let Message::Request { bytes, .. } = message else { return false };
        let request = capex_core::wire::decode_record(bytes).unwrap();
        *from == BUYER && matches!(request, SettleRequest::Trade(TradeRequest::Fund { .. }))
    };
    assert!(!world.posted.iter().any(shown));
}
