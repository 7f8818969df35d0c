//! What a transaction that waits is worth, and when a better one replaces it.

use bitcoin::Transaction;

use super::*;

/// A new tip at which every source tells a rate, sat per 1,000 vB.
fn tip_at(world: &mut World, sat_kvb: u64) {
    world.chain.feerates = vec![(2, sat_kvb), (6, sat_kvb)];
    world.chain.mine();
    world.facts(&[]);
    // What was sent at it is seen in the mempool.
    world.facts(&[]);
}

/// A buyer whose funding waits from its first moment on at a rate.
fn waiting(sat_kvb: u64) -> World {
    let mut world = World::new(Faults::default());
    // No block comes before the funding is sent.
    world.next_block_ms += 2_000;
    let mut world = world.open();
    world.until("built", |world| world.state(BUYER) == "fund_built");
    world.chain.hold_contracts = true;
    world.chain.feerates = vec![(2, sat_kvb)];
    world.facts(&[]);
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    world
}

#[test]
fn a_funding_is_bumped_from_its_last_twelve_blocks_on_up_to_the_cap() {
    // `F` is 12 blocks after the terms were signed.
    let mut world = waiting(5_000);
    assert_eq!(world.view(BUYER).unwrap().fund_by, Some(world.chain.height() + 12));
    world.step();
    assert_eq!(world.parties[BUYER].wallet_asked.last(), Some(&(1, 5_000)));

    // 154 vB at 64,935 sat per 1,000 vB are 10,000 sat, the cap.
    let mut world = waiting(64_935);
    world.step();
    assert_eq!(world.parties[BUYER].wallet_asked.last(), Some(&(1, 64_935)));
    let mut world = waiting(64_942);
    world.step();
    assert_eq!(world.parties[BUYER].wallet_asked.last(), Some(&(1, 1_000)));
}

#[test]
fn a_funding_that_pays_enough_is_left_alone() {
    let mut world = waiting(1_000);
    for _ in 0..4 {
        tip_at(&mut world, 1_000);
    }
    assert_eq!(world.parties[BUYER].wallet_asked.len(), 1);
    // Less than the step by which a replacement must pay more.
    tip_at(&mut world, 1_500);
    assert_eq!(world.parties[BUYER].wallet_asked.len(), 1);
}

/// At the cap, not above it, and at what its owner is willing to lose.
#[test]
fn a_funding_is_asked_for_up_to_the_cap() {
    for (sat_kvb, code) in [(64_935, None), (64_942, Some("fund.fee_above_cap"))] {
        let mut world = World::new(Faults::default());
        // Not what this is about: then the cap alone decides.
        world.parties[BUYER].max_loss_sat = 1_000_000;
        let mut world = world.open();
        world.until("locked", |world| world.state(BUYER) == "locked");
        world.chain.feerates = vec![(2, sat_kvb), (3, sat_kvb)];
        world.facts(&[]);
        world.until("an answer", |world| {
            ["fund_sent", "aborted", "fund_confirmed"].contains(&world.state(BUYER))
        });
        assert_eq!(world.codes()[BUYER].as_deref(), code, "{sat_kvb}");
        assert_eq!(world.parties[BUYER].wallet_asked.is_empty(), code.is_some());
    }
}

fn refunding() -> World {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.until("near", |world| {
        world.view(BUYER).unwrap().refund_at == Some(world.chain.height() + 1)
    });
    world.chain.hold_all = true;
    world.until("refunding", |world| world.state(BUYER) == "refunding");
    world.step();
    world
}

#[test]
fn a_refund_is_replaced_only_by_one_that_pays_a_step_more_and_is_written_first() {
    let mut world = refunding();
    let refund = |world: &World| world.view(BUYER).unwrap().refund.unwrap();
    let first = refund(&world);
    tip_at(&mut world, 1_050);
    assert_eq!(refund(&world), first, "a step more is 1 sat/vB");
    tip_at(&mut world, 9_000);
    let second = refund(&world);
    assert!(second.fee_sat > first.fee_sat && second.txid != first.txid, "{second:?}");
    assert!(world.chain.mempool.iter().any(|tx| tx.compute_txid() == second.txid));
    world.parties[BUYER].restart(&world.setup, world.now_ms);
    assert_eq!(refund(&world), second, "it stands in the record");
    world.settle(BUYER);
    assert_eq!(world.chain.rejected, Vec::<String>::new());
    world.chain.hold_all = false;
    world.until("refunded", |world| world.state(BUYER) == "refunded");
}

#[test]
fn a_refund_in_a_block_is_not_sent_again() {
    let mut world = refunding();
    world.setup.params.chain.final_blocks = 4;
    world.chain.hold_all = false;
    world.until("mined", |world| world.view(BUYER).unwrap().refund.unwrap().height.is_some());
    assert_eq!(world.state(BUYER), "refunding");
    let offered = world.chain.offered.len();
    world.until("refunded", |world| world.state(BUYER) == "refunded");
    assert_eq!(world.chain.offered.len(), offered);
}

/// A reorganisation may leave another funding of the same contract in the chain.
#[test]
fn a_refund_follows_its_contract_to_another_funding() {
    let mut world = refunding();
    let (contract, old) = world.parties[BUYER].contract().unwrap();
    let other = world.setup.pay(&[(contract.spk, contract.amount_sat)], 5_000).tx;
    assert_ne!(other.compute_txid(), old.txid);
    let height = world.view(BUYER).unwrap().fund.unwrap().height.unwrap();
    let blocks = (world.chain.height() + 1 - height) as usize;
    let lost = world.chain.disconnect(blocks);
    world.chain.forget_mempool();
    world.chain.broadcast(&other).unwrap();
    world.chain.hold_all = false;
    world.chain.mine();
    world.facts(&lost);
    let spends = |tx: &Transaction| {
        tx.input.iter().any(|input| input.previous_output.txid == other.compute_txid())
    };
    world.until("sent again", |world| world.chain.mempool.iter().any(spends));
    world.until("refunded", |world| world.state(BUYER) == "refunded");
}

#[test]
fn what_the_wallet_says_ends_a_trade_or_is_waited_for() {
    // Before there is a funding.
    let mut world = World::new(Faults::default());
    world.parties[BUYER].wallet_refuses = Some("wallet.fund_dead");
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    assert_eq!(world.codes()[BUYER].as_deref(), Some("wallet.fund_dead"));
    assert_eq!(world.parties[BUYER].wallet_asked.len(), 1, "no second try");

    // A replacement that cannot be made yet is asked for at each tip.
    let cancelling = |code| {
        let mut world = World::new(Faults::default()).open();
        world.until("built", |world| world.state(BUYER) == "fund_built");
        world.chain.hold_contracts = true;
        world.parties[BUYER].wallet_refuses = Some(code);
        world
    };
    let mut world = cancelling("wallet.no_replacement");
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    let tip = world.chain.height();
    world.until("later", |world| world.chain.height() == tip + 3);
    assert_eq!(world.state(BUYER), "cancelling");
    assert!(
        world.parties[BUYER].wallet_asked.len() >= 4,
        "{:?}",
        world.parties[BUYER].wallet_asked
    );
    world.parties[BUYER].wallet_refuses = None;
    world.run("cancelled", "released");

    // One that can never confirm needs none.
    let mut world = cancelling("wallet.fund_dead");
    world.until("cancelled", |world| world.state(BUYER) == "cancelled");
    assert_eq!(world.view(BUYER).unwrap().cancel, None);
}

/// 447 vB are funding, claim and a refund in vain.
#[test]
fn a_trade_may_cost_what_its_owner_is_willing_to_lose_and_not_a_sat_more() {
    for (max_loss_sat, state) in [(447, "draft"), (446, "none")] {
        let mut world = World::new(Faults::default());
        world.parties[BUYER].max_loss_sat = max_loss_sat;
        let world = world.open();
        assert_eq!(world.state(BUYER), state, "{max_loss_sat}");
    }
}

/// The wallet may repeat an answer, or make another transaction than was asked for.
#[test]
fn only_a_better_form_within_the_cap_takes_the_place_of_a_funding() {
    let mut world = waiting(1_000);
    let fund = |world: &World| world.view(BUYER).unwrap().fund.unwrap();
    let first = fund(&world);
    let (contract, _) = world.parties[BUYER].contract().unwrap();
    let outputs = [(contract.spk.clone(), contract.amount_sat)];
    let id = world.parties[BUYER].funding_id();
    let mut told = |pays_sat: u64, says_sat: u64, outputs: &[(bitcoin::ScriptBuf, u64)]| {
        let mut funding = world.setup.pay(outputs, pays_sat);
        funding.fee_sat = says_sat;
        world.parties[BUYER].on_funded(&world.setup, world.now_ms, id, Ok(funding));
        world.settle(BUYER);
        world.facts(&[]);
        (fund(&world).txid != first.txid, fund(&world).fee_sat)
    };
    let same = (false, first.fee_sat);
    assert_eq!(told(154, 154, &outputs), same, "the same");
    assert_eq!(told(154, 5_000, &outputs), same, "the same at another price");
    assert_eq!(told(400, 154, &outputs), same, "no better");
    assert_eq!(told(400, 100, &outputs), same, "cheaper");
    assert_eq!(told(10_001, 10_001, &outputs), same, "above the cap");
    let other = [(contract.spk.clone(), contract.amount_sat - 1)];
    assert_eq!(told(400, 400, &other), same, "another contract");
    assert_eq!(told(10_000, 10_000, &outputs), (true, Some(10_000)), "at the cap");
}

#[test]
fn a_refund_on_its_way_keeps_its_address() {
    let world = refunding();
    let refund = world.view(BUYER).unwrap().refund.unwrap().txid;
    let sent = world.chain.mempool.iter().find(|tx| tx.compute_txid() == refund).unwrap();
    assert_eq!(world.parties[BUYER].promised(), [sent.output[0].script_pubkey.clone()]);
}

#[test]
fn the_targets_and_curves_of_fees() {
    use capex_core::settlement::fees::*;

    let targets = [(0, 2), (1, 2), (4, 2), (5, 2), (6, 3), (7, 3), (100, 3)];
    for (blocks_left, target) in targets {
        assert_eq!(fund_target(blocks_left), target, "{blocks_left} blocks left");
    }
    // A quarter of 40 blocks before the end a claim may spend all but dust.
    let claim = |elapsed, window| {
        let estimate_sat_kvb = 10_000_000;
        let (vsize, value_sat) = (155, 50_000);
        claim_fee_sat(ClaimProgress { vsize, value_sat, estimate_sat_kvb, elapsed, window })
    };
    let table = [
        (29, 40, 25_000),
        (30, 40, 49_670),
        (39, 40, 49_670),
        // Never earlier than 12 blocks before it.
        (87, 100, 25_000),
        (88, 100, 49_670),
        (7, 10, 25_000),
        (8, 10, 49_670),
    ];
    for (elapsed, window, fee_sat) in table {
        assert_eq!(claim(elapsed, window), Some(fee_sat), "{elapsed} of {window}");
    }
    let limit = |cap_sat| FeeLimit { share_percent: 20, cap_sat };
    assert_eq!(limit(Some(100)).least_worth_sat(100), Some(500));
    assert_eq!(limit(Some(99)).least_worth_sat(100), None);
    assert_eq!(limit(None).least_worth_sat(100), Some(500));
}

/// The first claim has half of the blocks left until the refund.
#[test]
fn a_claim_pays_for_half_of_the_blocks_left() {
    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(BUYER) == "fund_sent");
    world.chain.feerates = vec![(2, 9_000), (6, 3_000), (40, 1_000)];
    world.facts(&[]);
    world.until("sent", |world| world.view(SELLER).unwrap().claim.is_some());
    assert_eq!(world.view(SELLER).unwrap().claim.unwrap().fee_sat, Some(465), "155 vB at 3 sat/vB");
}
