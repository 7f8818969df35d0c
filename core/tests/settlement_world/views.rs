//! What people and programs see of a trade, from its opening to its end.

use std::collections::BTreeSet;

use capex_core::engine::trades::{Role, Stuck};

use super::*;

#[test]
fn a_sale_is_seen_alike_from_both_sides() {
    let mut world = World::of_three(Faults::default()).open();
    let keys: Vec<Key> = world.parties.iter().map(Party::key).collect();
    let opened_ms = world.setup.start_ms;
    let draft = world.view(BUYER).unwrap();
    assert_eq!((draft.state, draft.done, draft.is_locked), ("draft", false, false));
    assert_eq!((draft.terms_hash, draft.t0, draft.fund), (None, None, None));
    let mut said = BTreeSet::new();
    let mut locked = BTreeSet::new();
    world.until("an end", |world| {
        for who in [BUYER, SELLER] {
            let view = world.view(who).unwrap();
            assert!(!view.next.is_empty(), "{}", view.state);
            said.insert(view.next);
            if view.is_locked {
                locked.insert(view.state);
            }
        }
        world.states() == ["active", "settled"]
    });
    assert!(said.len() >= 10, "each state says something else: {said:?}");
    for state in ["draft", "terms_signed", "offered"] {
        assert!(!locked.contains(state), "{state}");
    }
    for state in ["locked", "fund_built", "lock_granted"] {
        assert!(locked.contains(state), "{state}: {locked:?}");
    }

    let (buyer, seller) = (world.view(BUYER).unwrap(), world.view(SELLER).unwrap());
    assert_eq!((buyer.role, seller.role), (Role::Buyer, Role::Seller));
    assert_eq!((buyer.counterparty, seller.counterparty), (keys[SELLER], keys[BUYER]));
    for view in [&buyer, &seller] {
        assert_eq!((view.registrar, view.to), (keys[PROVIDER], Some(keys[BUYER])));
        assert_eq!((view.trade, view.opened_ms), (world.setup.trade(), opened_ms));
        assert_eq!((view.done, view.is_locked, view.price_sat), (true, true, 50_000));
        assert_eq!((&view.code, &view.cancel, &view.refund), (&None, &None, &None));
        assert_eq!(view.deadlines, []);
    }
    assert_eq!(
        (buyer.terms_hash, buyer.cert, buyer.t0, buyer.fund_by, buyer.refund_at),
        (seller.terms_hash, seller.cert, seller.t0, seller.fund_by, seller.refund_at)
    );
    assert_eq!(buyer.contract_spk, seller.contract_spk);
    assert!(buyer.contract_spk.is_some() && buyer.preimage == seller.preimage);
    let (fund, claim) = (buyer.fund.unwrap(), seller.claim.unwrap());
    assert_eq!((fund.fee_sat, buyer.fees_sat), (Some(154), Some(154)));
    assert_eq!(seller.fund.unwrap().fee_sat, None, "another wallet paid it");
    assert_eq!(seller.fees_sat, claim.fee_sat);
    // The provider activated when it saw the claim in a block.
    assert_eq!((buyer.activated_at, seller.activated_at), (claim.height, None));

    let whats = |view: &TradeView| view.steps().iter().map(|s| s.what).collect::<Vec<_>>();
    assert_eq!(whats(&buyer), ["opened", "terms", "locked", "fund", "claim", "activated"]);
    assert_eq!(whats(&seller), ["opened", "terms", "locked", "fund", "claim"]);
    assert_eq!(buyer.steps()[0].at_ms, Some(opened_ms));
    assert_eq!(buyer.steps()[1].height, buyer.t0);
}

#[test]
fn what_was_sent_is_seen_before_a_mempool_shows_it() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("cancelling", |world| world.state(BUYER) == "cancelling");
    world.chain.hold_all = true;
    world.until("sent", |world| world.view(BUYER).unwrap().cancel.is_some());
    let sent = world.view(BUYER).unwrap().cancel.unwrap();
    assert_eq!((sent.height, sent.fee_sat), (None, Some(462)), "three times the funding's fee");
    world.chain.hold_all = false;
    world.run("cancelled", "released");
    let mined = world.view(BUYER).unwrap().cancel.unwrap();
    assert_eq!((mined.txid, mined.fee_sat), (sent.txid, None), "its inputs are not known here");
    assert!(mined.height.is_some());

    let mut world = World::new(Faults::default()).open();
    world.until("funded", |world| world.state(SELLER) == "fund_seen");
    world.parties[SELLER].online = false;
    world.chain.refuses = Some("mempool full");
    world.until("refunding", |world| world.state(BUYER) == "refunding");
    let refund = world.view(BUYER).unwrap().refund.unwrap();
    assert_eq!((refund.height, refund.fee_sat), (None, Some(138)));
}

#[test]
fn advice_names_the_next_command() {
    let mut world = World::of_three(Faults::default()).open();
    assert_eq!(world.view(BUYER).unwrap().advice(None), None);
    let advice = |world: &World, stuck| world.view(BUYER).unwrap().advice(Some(stuck)).unwrap();
    assert!(advice(&world, Stuck::NoChain).contains("`capex status`"));
    assert!(advice(&world, Stuck::Broadcast).contains("`capex wallet coins`"));
    assert!(!advice(&world, Stuck::Overdue).contains("cert fetch"), "nothing was claimed");
    world.until("revealed", |world| world.state(SELLER) == "claim_sent");
    world.parties[PROVIDER].online = false;
    world.until("known", |world| world.state(BUYER) == "preimage_known");
    let view = world.view(BUYER).unwrap();
    let command = format!("capex cert fetch {} --provider {}", view.cert.unwrap(), view.registrar);
    assert!(advice(&world, Stuck::Overdue).contains(&command));
    let seller = world.view(SELLER).unwrap();
    assert!(!seller.advice(Some(Stuck::Overdue)).unwrap().contains("cert fetch"));
}

/// A trade is known while it is open and after its end, on the side that has it.
#[test]
fn trades_are_found_again() {
    let mut world = World::of_three(Faults::default()).open();
    let (trade, provider) = (world.setup.trade(), world.parties[PROVIDER].key());
    let known = |world: &World| {
        world.everybody().map(|who| world.parties[who].trades().knows(&trade)).collect::<Vec<_>>()
    };
    let of = |world: &World| {
        let trades = world.parties[BUYER].trades();
        (trades.has_provider(&provider), trades.has_provider(&world.parties[SELLER].key()))
    };
    let place = (world.setup.row.epoch, trade);
    let newest = |world: &World, before| {
        let newest = world.parties[BUYER].trades().newest(before, 10);
        newest.into_iter().map(|view| view.trade).collect::<Vec<_>>()
    };
    assert_eq!(known(&world), [true, true, false]);
    assert_eq!(of(&world), (true, false));
    let lies_ahead = |world: &World, who: usize, role| {
        let outlook = world.parties[who].trades().outlook(role, trade, &world.setup.params);
        outlook.due.is_some()
    };
    assert!(lies_ahead(&world, BUYER, Role::Buyer) && lies_ahead(&world, SELLER, Role::Seller));
    assert!(!lies_ahead(&world, BUYER, Role::Seller));
    assert_eq!(newest(&world, None), [trade]);
    assert_eq!(newest(&world, Some(place)), [], "before itself");
    assert_eq!(newest(&world, Some((place.0 + 1, trade))), [trade]);
    world.run("active", "settled");
    assert_eq!(known(&world), [true, true, false]);
    assert_eq!(of(&world), (false, false), "nothing is open");
    assert!(!lies_ahead(&world, BUYER, Role::Buyer));
    // The same row again opens nothing.
    let seller = world.parties[SELLER].key();
    let told = world.parties[BUYER].try_buy(&world.setup, world.now_ms, seller, seller);
    assert_eq!((told, world.state(BUYER)), (Vec::new(), "active"));
    assert_eq!(newest(&world, None), [trade]);
    assert_eq!(newest(&world, Some(place)), [], "before itself");
    assert_eq!(newest(&world, Some((place.0 + 1, trade))), [trade]);
    assert_eq!(newest(&world, Some((place.0 - 1, trade))), []);
}

/// Each side has its record under its own key, and both of a trade that has ended stay apart.
#[test]
fn records_have_the_keys_by_which_they_are_found() {
    let mut world = World::new(Faults::default()).open();
    let trade = world.setup.trade();
    let keys = |world: &World, who: usize| {
        world.parties[who].records().into_keys().collect::<BTreeSet<_>>()
    };
    world.until("locked", |world| world.state(SELLER) == "lock_granted");
    let hash = world.view(SELLER).unwrap().terms_hash.unwrap();
    let ends = |keys: &BTreeSet<(u8, Vec<u8>)>, key: &[u8]| {
        keys.iter().filter(|(_, known)| known.as_slice() == key).count()
    };
    let seller = keys(&world, SELLER);
    assert_eq!((ends(&seller, &trade.0), ends(&seller, &hash.0)), (1, 1), "{seller:?}");
    world.run("active", "settled");
    let epoch = world.setup.row.epoch.to_be_bytes();
    for (who, side) in [(BUYER, 1), (SELLER, 2)] {
        let key = [&epoch[..], &trade.0, &[side]].concat();
        assert_eq!(ends(&keys(&world, who), &key), 1, "party {who}");
        assert_eq!(ends(&keys(&world, who), &trade.0), 0, "the open one is gone");
    }
}

/// What was on its way goes out again without waiting for a block.
#[test]
fn a_restart_sends_again_what_had_been_sent() {
    let mut world = World::new(Faults::default()).open();
    world.chain.hold_claims = true;
    world.until("sent", |world| world.state(SELLER) == "claim_sent");
    let claim = world.view(SELLER).unwrap().claim.unwrap().txid;
    world.chain.forget_mempool();
    world.chain.offered.clear();
    world.heal_only(SELLER);
    assert!(world.chain.offered.contains(&claim), "{:?}", world.chain.offered);

    let mut world = World::of_three(Faults::default()).open();
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    let fund = world.view(BUYER).unwrap().fund.unwrap().txid;
    world.chain.forget_mempool();
    world.chain.offered.clear();
    world.heal_only(PROVIDER);
    assert!(world.chain.offered.contains(&fund), "{:?}", world.chain.offered);
}

/// A seller is paid to the next script of its wallet.
#[test]
fn the_claim_pays_a_script_of_the_wallet() {
    let mut world = World::new(Faults::default()).open();
    world.run("active", "settled");
    let (tx, kind) = world.chain.contract_spend(&world.parties[BUYER]).unwrap();
    assert!(matches!(kind, SpendKind::Claim(_)));
    assert!(tx.output[0].script_pubkey.is_p2tr(), "{}", tx.output[0].script_pubkey);
}

/// A signature is awaited for a purchase until its consent ends, and for nothing once it is paid.
#[test]
fn a_funding_names_its_purchase() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("funding", |world| world.state(BUYER) == "funding");
    let hash = world.view(BUYER).unwrap().terms_hash.unwrap();
    let funding = capex_core::ids::FundingId::of(&[hash]);
    let of = |world: &World, funding| world.parties[BUYER].trades().purchase_of(funding);
    let (trade, until_ms) = of(&world, funding).unwrap();
    assert_eq!(trade, world.setup.trade());
    let settle = world.setup.params.settle;
    let latest_ms = world.now_ms + settle.fund_ms;
    assert!(until_ms.is_some_and(|at_ms| world.now_ms < at_ms && at_ms <= latest_ms));
    assert_eq!(of(&world, capex_core::ids::FundingId([9; 32])), None);
    world.parties[BUYER].is_short = false;
    world.chain.hold_contracts = true;
    world.until("sent", |world| world.state(BUYER) == "fund_sent");
    assert_eq!(of(&world, funding), Some((trade, None)));
}

/// The wallet answers when the trade has ended: what it locked is free again.
#[test]
fn a_funding_that_comes_too_late_is_given_back() {
    let mut world = World::new(Faults::default());
    world.parties[BUYER].is_short = true;
    let mut world = world.open();
    world.until("aborted", |world| world.state(BUYER) == "aborted");
    let hash = world.view(BUYER).unwrap().terms_hash.unwrap();
    let funding = capex_core::ids::FundingId::of(&[hash]);
    let before = world.parties[BUYER].released.len();
    let late = world.setup.pay(&[], 154);
    world.parties[BUYER].on_funded(&world.setup, world.now_ms, funding, Ok(late.clone()));
    world.settle(BUYER);
    assert_eq!(world.parties[BUYER].released[before..], [funding]);

    // One that was paid stays locked.
    let mut world = World::new(Faults::default()).open();
    world.run("active", "settled");
    let funding = world.parties[BUYER].funding_id();
    world.parties[BUYER].on_funded(&world.setup, world.now_ms, funding, Ok(late));
    world.settle(BUYER);
    assert_eq!(world.parties[BUYER].released, []);
}

/// The buyer and the seller tell people; the provider of another's sale has nothing to tell, and
/// nothing is sold before a claim stands in a block.
#[test]
fn news_come_from_the_two_sides_and_a_sale_from_its_claim() {
    let mut world = World::of_three(Faults::default()).open();
    let sold = |world: &World| {
        world.events[SELLER].iter().any(|event| matches!(event, TradeEvent::Sold { .. }))
    };
    world.until("an end", |world| {
        let state = world.state(SELLER);
        assert_eq!(sold(world), ["claimed", "settled"].contains(&state), "{state}");
        world.states() == ["active", "settled"]
    });
    assert_eq!(world.parties[PROVIDER].notified, 0);
    assert!(world.parties[BUYER].notified > 5 && world.parties[SELLER].notified > 3);
}
