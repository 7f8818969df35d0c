//! Five pay for one certificate by one transaction, which is invalid until each has signed.

use super::kit::{
    COINS_SAT, ask, assert_sound, assert_sound_after, bid, place, rest, story, trades, window,
    world,
};
use super::several_pay_together_and_another_uses::{
    CREATOR, HOLDER, MEMBERS, NODES, PROVIDER, all_join, create, holds, payers, pool_in, reach,
    reserved_sat, until_all_signed, view,
};
use super::troubles::{BLOCK_MS, PAST_REFUND_MS};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Transaction, Txid};
use capex::sim::{Kill, Links, NodeId, World};
use capex::wallet::Amounts;
use capex_core::engine::Protocol;
use capex_core::engine::kernel::Miss;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::pools::{Pool, PoolReply, PoolRequest};
use capex_core::engine::trades::{TradeReply, TradeRequest, TradeView};
use capex_core::ids::{PoolId, TermsHash};
use capex_core::settlement::buyer::{Gathering, Part};
use capex_core::settlement::joint::{Contribution, Joint, Signature};
use capex_core::settlement::{Deadline, Rail};
use capex_core::wire::{decode_record, encode};

/// The member that does not do what it should.
const LAST: NodeId = MEMBERS[3];

/// All have joined, and the creator bids.
fn pooled(seed: u64) -> (World, PoolId) {
    let mut world = world(seed, NODES, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 4_000, 4, window(8, 24)));
    let pool = Pool { all_or_nothing: true, ..pool_in(&world, window(8, 24)) };
    let id = create(&mut world, pool).unwrap();
    all_join((world, id))
}

fn purchase(world: &World, node: NodeId) -> TradeView {
    trades(world, node).into_iter().next_back().unwrap()
}

fn gathering(world: &World, node: NodeId) -> Gathering {
    let trade = purchase(world, node).trade;
    world.engine(node).unwrap().trades().gathering(&trade).unwrap().clone()
}

fn fund(world: &World, node: NodeId) -> Option<Txid> {
    purchase(world, node).fund.map(|fund| fund.txid)
}

fn others() -> impl Iterator<Item = NodeId> {
    payers().filter(|payer| *payer != LAST)
}

/// Nothing of these nodes is kept for anything, and each has what it began with.
fn assert_nothing_was_lost(world: &World, nodes: impl Iterator<Item = NodeId>) {
    for node in nodes {
        let balance = world.balance(node).unwrap();
        assert_eq!(balance.confirmed_sat, COINS_SAT, "node {node}: {}", story(world));
        assert_eq!((balance.locked_sat, reserved_sat(world, node)), (0, 0), "node {node}");
    }
}

/// Each spends its coins for something else, which ends what it waits for.
fn all_pay_themselves(world: &mut World) {
    for payer in payers().filter(|payer| is_abandoned(world, *payer)).collect::<Vec<_>>() {
        assert!(world.pay_itself(payer), "node {payer} cannot spend its coins");
    }
    world.run_for(5 * BLOCK_MS);
    assert!(!payers().any(|payer| is_abandoned(world, payer)), "{}", story(world));
}

fn is_abandoned(world: &World, node: NodeId) -> bool {
    trades(world, node).iter().any(|trade| trade.state == "fund_abandoned")
}

fn until(world: &mut World, what: &str, so: impl FnMut(&World) -> bool) {
    let came = world.run_until(45_000, so);
    assert!(came, "seed {}: never {what}: {}", world.seed(), story(world));
}

/// The whole, as whoever has all signatures can make it, though one has kept its own.
fn whole(world: &World) -> Transaction {
    let all: Vec<Gathering> = payers().map(|payer| gathering(world, payer)).collect();
    let contributions: Vec<Contribution> = all[0].contributions.values().cloned().collect();
    let signatures: Vec<Vec<Signature>> = (0_u8..5)
        .map(|number| all.iter().find_map(|one| one.signatures.get(&number)).unwrap().clone())
        .collect();
    let engine = world.engine(CREATOR).unwrap();
    let (_, agreement) = engine.trades().agreed_terms(&purchase(world, CREATOR).trade).unwrap();
    let rail = Rail::of(&Secp256k1::new(), agreement.terms(), agreement.hash()).unwrap();
    let joint = Joint::new(rail.contracts(), &contributions, all[0].feerate_sat_kvb).unwrap();
    joint.whole(&signatures.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// One signs and tells nobody: all others have given their signatures to the creator.
fn one_keeps_its_signature(seed: u64) -> World {
    let (mut world, _) = pooled(seed);
    let is_signed = |said: &SettleRequest| {
        matches!(said, SettleRequest::Trade(TradeRequest::Part { part, .. })
            if !part.signatures.is_empty())
    };
    let says_signed = |said: &SettleReply| matches!(said, SettleReply::Trade(TradeReply::Part(part)) if !part.signatures.is_empty());
    world.nodes[LAST].withholds = Some((CREATOR, is_signed));
    world.nodes[LAST].never_says = Some(says_signed);
    for payer in payers() {
        reach(&mut world, payer, "fund_signed");
    }
    world
}

#[test]
fn five_pay_by_one_transaction_and_the_sixth_holds() {
    let (mut world, id) = pooled(191);
    for payer in payers() {
        reach(&mut world, payer, "active");
    }
    assert!(world.run_until(10_000, holds), "{}", story(&world));
    let first = fund(&world, CREATOR);
    assert!(first.is_some() && payers().all(|payer| fund(&world, payer) == first));
    let shares = payers().map(|payer| purchase(&world, payer).share_sat);
    assert_eq!(shares.sum::<u64>(), purchase(&world, CREATOR).price_sat);
    assert!(payers().all(|payer| view(&world, payer, id).stage == "bought"));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn one_that_puts_in_no_coin_costs_nobody_a_sat() {
    let (mut world, id) = pooled(192);
    reach(&mut world, LAST, "terms_signed");
    until_all_signed(&mut world);
    world.crash(LAST);
    let ended = |world: &World| view(world, CREATOR, id).stage == "ended";
    assert!(world.run_until(30_000, ended), "{}", story(&world));
    assert_eq!(view(&world, CREATOR, id).code.as_deref(), Some("joint.not_whole"));
    let misses = world.engine(CREATOR).unwrap().conduct().misses(&world.nodes[LAST].key);
    assert_eq!(misses.and_then(|misses| misses.get(&Miss::Funding)), Some(&1));
    rest(&mut world);
    assert_nothing_was_lost(&world, others());
    for member in &MEMBERS[..3] {
        let honest = world.nodes[*member].key;
        for (node, engine) in world.engines() {
            assert_eq!(engine.conduct().misses(&honest), None, "node {node}");
        }
    }
    assert_sound(&world);
}

#[test]
fn one_that_keeps_its_signature_costs_nobody_a_sat() {
    let mut world = one_keeps_its_signature(193);
    let kept = gathering(&world, LAST);
    let part = kept.part(*kept.signatures.keys().next().unwrap()).unwrap();
    let terms = purchase(&world, CREATOR).terms_hash.unwrap();
    for payer in others() {
        reach(&mut world, payer, "fund_abandoned");
        assert_eq!(purchase(&world, payer).code.as_deref(), Some("joint.not_whole"));
    }
    // Too late it gets nothing for it.
    let late = encode(&SettleRequest::Trade(TradeRequest::Part { terms, part }));
    let peer = world.nodes[LAST].key;
    let reply = world.ask_from(peer, CREATOR, Protocol::Settle, &late).unwrap();
    let reply = decode_record(&reply).unwrap();
    assert!(!matches!(reply, SettleReply::Trade(TradeReply::Parts(_))), "{reply:?}");
    world.run_for(PAST_REFUND_MS);
    assert_nothing_was_lost(&world, others());
    let misses = world.engine(CREATOR).unwrap().conduct().misses(&world.nodes[LAST].key);
    assert_eq!(misses.and_then(|misses| misses.get(&Miss::Funding)), Some(&1));
    // What they signed is void as soon as its coins pay for something else.
    all_pay_themselves(&mut world);
    rest(&mut world);
    assert_sound(&world);
}

/// The lock is gone by then, so the seller reveals nothing; in time for the deadline of the terms,
/// after it, and when the refund is due already.
#[test]
fn a_whole_that_comes_late_is_refunded_to_each() {
    for blocks in [0, 14, 30] {
        let mut world = one_keeps_its_signature(194);
        let whole = whole(&world);
        for payer in payers() {
            reach(&mut world, payer, "fund_abandoned");
        }
        world.run_for(blocks * BLOCK_MS);
        world.chain.submit_tx(whole.clone()).unwrap();
        for payer in payers() {
            let refunded = |world: &World| purchase(world, payer).state == "refunded";
            until(&mut world, "refunded", refunded);
        }
        assert!(!holds(&world));
        assert!(payers().all(|payer| fund(&world, payer) == Some(whole.compute_txid())));
        // A seller that nobody has told in time is not to blame.
        let provider = world.nodes[PROVIDER].key;
        for payer in payers() {
            let conduct = world.engine(payer).unwrap().conduct();
            assert_eq!(conduct.misses(&provider), None, "{blocks} blocks, node {payer}");
        }
        rest(&mut world);
        assert_sound_after(&format!("{blocks} blocks late"), &world);
    }
}

/// Who restarts in between does not know from its own disk what others have sent.
#[test]
fn a_whole_that_comes_while_a_member_is_down_is_refunded_too() {
    let mut world = one_keeps_its_signature(195);
    let whole = whole(&world);
    for payer in payers() {
        reach(&mut world, payer, "fund_abandoned");
    }
    world.run_for(14 * BLOCK_MS);
    world.crash(MEMBERS[0]);
    world.chain.submit_tx(whole).unwrap();
    world.run_for(6 * BLOCK_MS);
    world.start(MEMBERS[0]);
    for payer in payers() {
        let refunded = |world: &World| purchase(world, payer).state == "refunded";
        until(&mut world, "refunded", refunded);
    }
    rest(&mut world);
    assert_sound(&world);
}

/// Its coin pays for something else before the whole is in a block: the others wait until the
/// deadline of the terms, and have lost nothing.
#[test]
fn one_that_spends_its_coin_twice_costs_the_others_time_alone() {
    for is_first in [true, false] {
        let (mut world, id) = pooled(196);
        reach(&mut world, LAST, "funding_together");
        let mut careless = world.careless_wallet(LAST).unwrap();
        if !is_first {
            // The whole is in the mempool, and what replaces it pays more than all of it.
            until(&mut world, "in a mempool", |world| !world.chain.mempool().is_empty());
            world.forget_mempool();
        }
        let to = careless.next_address().unwrap();
        let twice = careless.send(&to, Amounts::All, 50_000, &[]).unwrap();
        world.chain.submit_tx(twice.tx).unwrap();
        for payer in others() {
            reach(&mut world, payer, "fund_abandoned");
        }
        assert!(!holds(&world));
        assert_eq!(view(&world, CREATOR, id).stage, "ended");
        world.run_for(PAST_REFUND_MS);
        assert_nothing_was_lost(&world, others());
        all_pay_themselves(&mut world);
        let provider = world.nodes[PROVIDER].key;
        for payer in others() {
            let conduct = world.engine(payer).unwrap().conduct();
            assert_eq!(conduct.misses(&provider), None, "first {is_first}, node {payer}");
        }
        rest(&mut world);
        assert_sound_after(&format!("before the whole: {is_first}"), &world);
    }
}

/// More than any node of this world pays.
const CROWDED_SAT_KVB: u64 = 1_000_000;

/// Nodes take nothing in place of what waits in their mempools but for the fee of all of it, so the
/// next payment of a member leaves its coins alone until they have forgotten it.
#[test]
fn what_waits_in_a_mempool_keeps_its_coins_from_the_next_payment() {
    let (mut world, _) = pooled(198);
    world.set_mined_feerate(CROWDED_SAT_KVB);
    for payer in payers() {
        reach(&mut world, payer, "fund_abandoned");
        assert_eq!(purchase(&world, payer).code.as_deref(), Some("fund.not_confirmed"));
    }
    assert_eq!(world.chain.mempool().len(), 1);
    let locked_sat = |world: &World| world.balance(MEMBERS[0]).unwrap().locked_sat;
    assert!(locked_sat(&world) > 0);
    place(&mut world, MEMBERS[0], bid(1, 5_000, 1, window(14, 24), 3));
    reach(&mut world, MEMBERS[0], "fund_sent");
    assert_nobody_blames(&world, MEMBERS[0]);
    assert!(locked_sat(&world) > 0);
    world.forget_mempool();
    world.set_mined_feerate(0);
    until(&mut world, "free again", |world| locked_sat(world) == 0);
    settle_down(&mut world);
    assert!(trades(&world, MEMBERS[0]).iter().any(|trade| trade.state == "active"));
    assert_sound(&world);
}

/// Sent when it had been given up, it keeps the coins of each for as long as it waits, and no
/// longer.
#[test]
fn a_whole_that_is_sent_when_it_was_given_up_keeps_no_coin_once_it_is_forgotten() {
    let mut world = one_keeps_its_signature(199);
    let whole = whole(&world);
    for payer in payers() {
        reach(&mut world, payer, "fund_abandoned");
    }
    world.set_mined_feerate(CROWDED_SAT_KVB);
    world.chain.submit_tx(whole).unwrap();
    let keeps = |world: &World, node| world.balance(node).unwrap().locked_sat > 0;
    until(&mut world, "seen", |world| payers().all(|payer| keeps(world, payer)));
    world.run_for(2 * BLOCK_MS);
    assert!(payers().all(|payer| keeps(&world, payer)));
    world.forget_mempool();
    world.set_mined_feerate(0);
    until(&mut world, "forgotten", |world| !payers().any(|payer| keeps(world, payer)));
    assert!(payers().all(|payer| is_abandoned(&world, payer)), "{}", story(&world));
    settle_down(&mut world);
    assert_nothing_was_lost_but_fees(&world);
    assert_sound(&world);
}

fn assert_nothing_was_lost_but_fees(world: &World) {
    for payer in payers() {
        let balance = world.balance(payer).unwrap();
        assert!(balance.confirmed_sat > COINS_SAT - 3_000, "node {payer}: {balance:?}");
        assert_eq!((balance.locked_sat, reserved_sat(world, payer)), (0, 0), "node {payer}");
    }
}

/// When a node gives it up, unix ms.
fn given_up_at_ms(world: &World, node: NodeId) -> u64 {
    let deadlines = purchase(world, node).deadlines;
    let funding = deadlines.into_iter().find(|(_, what)| *what == Deadline::Funding);
    funding.unwrap().0
}

fn assert_nobody_blames(world: &World, node: NodeId) {
    let key = world.nodes[node].key;
    for (other, engine) in world.engines() {
        assert_eq!(engine.conduct().misses(&key), None, "node {other}: {}", story(world));
    }
}

/// What is signed in the last moment could not be shown to the provider in time.
#[test]
fn a_signature_of_the_last_moment_gets_nothing_and_leaves_no_miss_at_the_provider() {
    for before_ms in [240, 20] {
        let mut world = one_keeps_its_signature(200);
        let kept = gathering(&world, LAST);
        let part = kept.part(*kept.signatures.keys().next().unwrap()).unwrap();
        let terms = purchase(&world, CREATOR).terms_hash.unwrap();
        let last_ms = given_up_at_ms(&world, CREATOR) - before_ms;
        world.run_for(last_ms - world.now_ms);
        let late = TradeRequest::Part { terms, part };
        let known = gathering(&world, CREATOR);
        let refused = refusal(&mut world, LAST, CREATOR, late);
        assert_eq!(refused.as_deref(), Some("joint.not_whole"), "{before_ms} ms before");
        assert_eq!(gathering(&world, CREATOR), known);
        for payer in payers() {
            reach(&mut world, payer, "fund_abandoned");
        }
        world.run_for(PAST_REFUND_MS);
        assert_nobody_blames(&world, PROVIDER);
        all_pay_themselves(&mut world);
        rest(&mut world);
        assert_sound(&world);
    }
}

/// A creator that shows it so late, or a link: the provider cannot have answered.
#[test]
fn a_member_that_has_the_whole_in_the_last_moment_does_not_blame_the_provider() {
    for (before_ms, is_blamed) in [(800, true), (240, false), (20, false)] {
        let mut world = one_keeps_its_signature(201);
        let terms = purchase(&world, CREATOR).terms_hash.unwrap();
        let all: Vec<Gathering> = payers().map(|payer| gathering(&world, payer)).collect();
        let signed = |number| all.iter().find_map(|one| one.part(number).filter(is_signed));
        let parts: Vec<Part> = (0..5).map(|number| signed(number).unwrap()).collect();
        let last_ms = given_up_at_ms(&world, MEMBERS[0]) - before_ms;
        world.crash(CREATOR);
        world.crash(PROVIDER);
        world.run_for(last_ms - world.now_ms);
        let shown = TradeRequest::Parts { terms, parts };
        assert_eq!(refusal(&mut world, CREATOR, MEMBERS[0], shown), None);
        assert_eq!(purchase(&world, MEMBERS[0]).state, "fund_built");
        reach(&mut world, MEMBERS[0], "fund_abandoned");
        let provider = world.nodes[PROVIDER].key;
        let misses = world.engine(MEMBERS[0]).unwrap().conduct().misses(&provider);
        assert_eq!(misses.is_some(), is_blamed, "{before_ms} ms before");
    }
}

/// It names them before their owner does, and only the chain could say whose they are.
#[test]
fn one_that_names_the_coins_of_another_has_nobody_blamed() {
    let (mut world, id) = pooled(202);
    let liar = MEMBERS[0];
    let is_part =
        |said: &SettleRequest| matches!(said, SettleRequest::Trade(TradeRequest::Part { .. }));
    let says_part = |said: &SettleReply| matches!(said, SettleReply::Trade(TradeReply::Part(_)));
    for silent in [LAST, liar] {
        world.nodes[silent].withholds = Some((CREATOR, is_part));
        world.nodes[silent].never_says = Some(says_part);
    }
    let named = |world: &World, node| {
        let at = trades(world, node).into_iter().find(|trade| trade.state == "funding_together");
        at.is_some_and(|_| !gathering(world, node).contributions.is_empty())
    };
    until(&mut world, "named", |world| named(world, LAST) && named(world, CREATOR));
    let terms = purchase(&world, CREATOR).terms_hash.unwrap();
    let stolen = gathering(&world, LAST).contributions.values().next().unwrap().clone();
    let part = Part { contribution: stolen, signatures: Vec::new() };
    let lie = TradeRequest::Part { terms, part };
    assert_eq!(refusal(&mut world, liar, CREATOR, lie), None);
    world.nodes[LAST].withholds = None;
    world.nodes[LAST].never_says = None;
    let ended = |world: &World| view(world, CREATOR, id).stage == "ended";
    until(&mut world, "ended", ended);
    assert_eq!(view(&world, CREATOR, id).code.as_deref(), Some("joint.not_whole"));
    assert_nobody_blames(&world, LAST);
    settle_down(&mut world);
    assert_sound(&world);
}

fn is_signed(part: &Part) -> bool {
    !part.signatures.is_empty()
}

/// Who gathers answers for a transaction that is never whole. Terms that name another first are
/// signed by nobody else.
#[test]
fn a_member_signs_no_terms_that_let_another_than_the_creator_gather() {
    let (mut world, pool) = pooled(203);
    let is_shown =
        |said: &SettleRequest| matches!(said, SettleRequest::Pool(PoolRequest::Terms { .. }));
    world.nodes[CREATOR].withholds = Some((LAST, is_shown));
    reach(&mut world, CREATOR, "terms_signed");
    let trade = purchase(&world, CREATOR).trade;
    let engine = world.engine(CREATOR).unwrap();
    let (row, agreement) = engine.trades().agreed_terms(&trade).unwrap();
    let (row, title) = (row.clone(), Box::new(agreement.title.clone()));
    let (envelope, terms) = (agreement.signed.envelope.clone(), agreement.terms().clone());
    let feerate_sat_kvb = engine.trades().joint_feerate(&trade);
    let mut other = terms;
    other.funders.swap(0, 1);
    let other = world.sign_as(PROVIDER, other);
    let before = (view(&world, LAST, pool).stage, reserved_sat(&world, LAST));
    let creator = world.nodes[CREATOR].key;
    for (signed, expected) in [(other, Some("terms.wrong_party")), (envelope, None)] {
        let (row, title) = (row.clone(), title.clone());
        let shown = PoolRequest::Terms { pool, row, title, terms: signed, feerate_sat_kvb };
        let shown = encode(&SettleRequest::Pool(shown));
        let reply = world.ask_from(creator, LAST, Protocol::Settle, &shown).unwrap();
        match decode_record(&reply).unwrap() {
            SettleReply::Refused { code } => {
                assert_eq!(Some(code.as_str()), expected);
                let after = (view(&world, LAST, pool).stage, reserved_sat(&world, LAST));
                assert_eq!(after, before);
                assert!(trades(&world, LAST).is_empty());
            }
            reply => {
                assert!(matches!(reply, SettleReply::Pool(PoolReply::Accept(_))), "{reply:?}");
                assert_eq!(expected, None);
            }
        }
    }
    world.nodes[CREATOR].withholds = None;
    settle_down(&mut world);
    assert_sound(&world);
}

/// States that the creator comes through.
const STEPS: [&str; 9] = [
    "draft",
    "terms_signed",
    "locked",
    "funding_together",
    "fund_signed",
    "fund_built",
    "fund_sent",
    "fund_confirmed",
    "preimage_known",
];

/// Nodes that wait for what may be sent yet spend its coins, and the world comes to rest.
fn settle_down(world: &mut World) {
    rest(world);
    if payers().any(|payer| is_abandoned(world, payer)) {
        all_pay_themselves(world);
        rest(world);
    }
}

#[test]
fn the_creator_vanishes_at_each_step_of_one_payment_for_good_or_for_a_while() {
    for (number, state) in (0..).zip(STEPS) {
        for away_ms in [None, Some(2 * BLOCK_MS), Some(PAST_REFUND_MS)] {
            let (mut world, _) = pooled(210 + number);
            // A block may come right behind an acknowledgement.
            let later = &STEPS[usize::try_from(number).unwrap()..];
            if state == "locked" {
                until_all_signed(&mut world);
            } else {
                let came = |world: &World| {
                    trades(world, CREATOR).iter().any(|trade| later.contains(&trade.state))
                };
                until(&mut world, state, came);
            }
            world.crash(CREATOR);
            if let Some(away_ms) = away_ms {
                world.run_for(away_ms);
                world.start(CREATOR);
            }
            settle_down(&mut world);
            assert_sound_after(&format!("away {away_ms:?} from {state}"), &world);
        }
    }
}

#[test]
fn a_payer_of_one_transaction_killed_at_any_write_loses_nothing() {
    for node in [CREATOR, MEMBERS[2]] {
        for write in (1..44).step_by(3) {
            let (mut world, _) = pooled(230);
            let side = if write % 2 == 1 { Kill::Before } else { Kill::After };
            let disk = &world.nodes[node].disk;
            disk.kill_at(disk.writes() + write, side);
            world.run_for(8_000);
            world.start(node);
            settle_down(&mut world);
            // One that was to die at a later write may have died in the meantime.
            world.start(node);
            settle_down(&mut world);
            assert_sound_after(&format!("node {node} killed at write {write}"), &world);
        }
    }
}

fn refusal(world: &mut World, from: NodeId, to: NodeId, request: TradeRequest) -> Option<String> {
    let peer = world.nodes[from].key;
    let request = encode(&SettleRequest::Trade(request));
    let reply = world.ask_from(peer, to, Protocol::Settle, &request).unwrap();
    match decode_record(&reply).unwrap() {
        SettleReply::Refused { code } => Some(code),
        _ => None,
    }
}

#[test]
fn a_part_that_is_wrong_is_refused_with_a_code_and_changes_nothing() {
    let (mut world, _) = pooled(197);
    let is_part =
        |said: &SettleRequest| matches!(said, SettleRequest::Trade(TradeRequest::Part { .. }));
    let says_part = |said: &SettleReply| matches!(said, SettleReply::Trade(TradeReply::Part(_)));
    world.nodes[LAST].withholds = Some((CREATOR, is_part));
    world.nodes[LAST].never_says = Some(says_part);
    let gathered = |world: &World| {
        let has_own = |node| {
            trades(world, node).iter().any(|trade| trade.state == "funding_together")
                && gathering(world, node).contributions.len() >= if node == CREATOR { 4 } else { 1 }
        };
        has_own(CREATOR) && has_own(LAST)
    };
    until(&mut world, "gathered but one", gathered);
    let terms = purchase(&world, CREATOR).terms_hash.unwrap();
    let own = gathering(&world, LAST).contributions.values().next().unwrap().clone();
    let another = gathering(&world, CREATOR).contributions[&1].clone();
    let part = |contribution: Contribution, signatures: Vec<Signature>| {
        let part = Part { contribution, signatures };
        TradeRequest::Part { terms, part }
    };
    let changed = |change: fn(&mut Contribution)| {
        let mut contribution = own.clone();
        change(&mut contribution);
        part(contribution, Vec::new())
    };
    let of = |terms: TermsHash| TradeRequest::Part {
        terms,
        part: Part { contribution: own.clone(), signatures: Vec::new() },
    };
    let before = gathering(&world, CREATOR);
    let rows: Vec<(&str, NodeId, NodeId, TradeRequest, &str)> = vec![
        ("other terms", LAST, CREATOR, of(TermsHash([9; 32])), "trade.no_agreement"),
        ("a stranger", HOLDER, CREATOR, of(terms), "joint.unknown"),
        ("to another member", LAST, MEMBERS[0], of(terms), "joint.unknown"),
        ("no coin", LAST, CREATOR, changed(|one| one.coins.clear()), "joint.malformed"),
        ("no key", LAST, CREATOR, changed(|one| one.coins[0].key = [0xff; 32]), "joint.malformed"),
        (
            "dust",
            LAST,
            CREATOR,
            changed(|one| one.change.as_mut().unwrap().value_sat = 329),
            "joint.malformed",
        ),
        (
            "no script",
            LAST,
            CREATOR,
            changed(|one| one.change.as_mut().unwrap().spk.clear()),
            "joint.malformed",
        ),
        (
            "a coin twice",
            LAST,
            CREATOR,
            changed(|one| one.coins.push(one.coins[0])),
            "joint.coin_twice",
        ),
        (
            "the fee of nothing",
            LAST,
            CREATOR,
            changed(|one| one.change.as_mut().unwrap().value_sat += 20),
            "joint.too_little",
        ),
        ("another's coin", LAST, CREATOR, part(another.clone(), Vec::new()), "joint.coin_twice"),
    ];
    for (what, from, to, request, code) in rows {
        let found = refusal(&mut world, from, to, request);
        assert_eq!(found.as_deref(), Some(code), "{what}");
        let in_doubt = before.in_doubt.clone();
        let after = Gathering { in_doubt, ..gathering(&world, CREATOR) };
        assert_eq!(after, before, "{what}");
    }
    // A signature that does not hold, with a part that is good.
    let forged = part(own.clone(), vec![[[1; 32]; 2]]);
    assert_eq!(refusal(&mut world, LAST, CREATOR, forged).as_deref(), Some("joint.signature"));
    assert!(!gathering(&world, CREATOR).signatures.contains_key(&4));
    // Now all have put something in, which nobody changes any more.
    let other = changed(|one| one.change.as_mut().unwrap().value_sat -= 1);
    assert_eq!(refusal(&mut world, LAST, CREATOR, other).as_deref(), Some("joint.changed"));
    // Nor does the creator show one member what it did not put in.
    let mut parts: Vec<Part> = gathering(&world, CREATOR).parts(5);
    parts[4].contribution = another;
    let shown = TradeRequest::Parts { terms, parts };
    assert_eq!(refusal(&mut world, CREATOR, LAST, shown).as_deref(), Some("joint.changed"));
    let shown = TradeRequest::Parts { terms, parts: gathering(&world, CREATOR).parts(5) };
    let found = refusal(&mut world, MEMBERS[0], LAST, shown);
    assert_eq!(found.as_deref(), Some("joint.unknown"));
    settle_down(&mut world);
    assert_sound(&world);
}
