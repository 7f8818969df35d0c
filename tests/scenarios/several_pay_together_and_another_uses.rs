//! Five pay for one certificate, each into a contract of its own, and a sixth node gets it.

use super::kit::{
    ask, assert_sound, assert_sound_after, devnet, place, rest, story, trades, window, world,
    world_of,
};
use super::troubles::{BLOCK_MS, PAST_REFUND_MS};
use bitcoin::consensus::serialize;
use capex::sim::{Kill, Links, NodeId, World};
use capex_core::engine::kernel::Miss;
use capex_core::engine::market::MarketCommand;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::pools::{
    Pool, PoolCommand, PoolReply, PoolRequest, PoolView, read_invitation,
};
use capex_core::engine::trades::{TradeReply, TradeRequest};
use capex_core::engine::{Done, Protocol};
use capex_core::ids::{Key, PoolId};
use capex_core::settlement::buyer::Signed;
use capex_core::settlement::fees::FeeLimit;
use capex_core::settlement::objects::TermsCancel;
use capex_core::units::Window;
use capex_core::wire::{VERSION, decode_record, encode};

pub(super) const PROVIDER: NodeId = 0;
pub(super) const CREATOR: NodeId = 1;
pub(super) const MEMBERS: [NodeId; 4] = [2, 3, 4, 5];
pub(super) const HOLDER: NodeId = 6;
pub(super) const NODES: usize = 7;
/// The highest price is 30,000 sat.
const FIRST_SAT: u64 = 10_000;
const SHARE_SAT: u64 = 5_000;
const FEES: FeeLimit = FeeLimit { share_percent: 100, cap_sat: None };

pub(super) fn payers() -> impl Iterator<Item = NodeId> {
    [CREATOR].into_iter().chain(MEMBERS)
}

/// A provider sells, and somebody invites: nobody has joined.
fn founded(seed: u64) -> (World, PoolId) {
    founded_in(world(seed, NODES, Links::GOOD), window(8, 24))
}

fn founded_in(mut world: World, window: Window) -> (World, PoolId) {
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 4_000, 4, window));
    let pool = pool_in(&world, window);
    let id = create(&mut world, pool).unwrap();
    (world, id)
}

pub(super) fn pool_in(world: &World, window: Window) -> Pool {
    Pool {
        v: VERSION,
        creator: Key::default(),
        to: world.nodes[HOLDER].key,
        class: 1,
        features: 0,
        qty: 2,
        window,
        slots: 3,
        limit_msat: 5_000_000,
        until_ms: world.now_ms + 30_000,
        invited: Vec::new(),
        all_or_nothing: false,
        nonce16: [0; 16],
    }
}

/// Founds it; the refusal's code, if it is none.
pub(super) fn create(world: &mut World, pool: Pool) -> Result<PoolId, String> {
    let command = PoolCommand::Create { pool: Box::new(pool), share_sat: FIRST_SAT, fees: FEES };
    let command = world.command(CREATOR, command);
    match world.answer(CREATOR, command) {
        Some(Ok(Done::Pool(id))) => Ok(*id),
        Some(Err(refusal)) => Err(refusal.code.clone()),
        other => panic!("{other:?}"),
    }
}

pub(super) fn view(world: &World, node: NodeId, id: PoolId) -> PoolView {
    let engine = world.engine(node).unwrap();
    let mut views = engine.pools().views(engine.me(), engine.params());
    views.find(|view| view.id == id).unwrap()
}

/// Takes the invitation; the answer's code, if it is refused.
pub(super) fn join(
    world: &mut World,
    node: NodeId,
    id: PoolId,
    share_sat: u64,
) -> Result<(), String> {
    let invitation = view(world, CREATOR, id).invitation;
    let pool = Box::new(read_invitation(&invitation, world.params()).unwrap());
    let command = world.command(node, PoolCommand::Join { pool, share_sat, fees: FEES });
    assert!(world.run_until(20_000, |world| world.answer(node, command).is_some()));
    match world.answer(node, command).unwrap() {
        Ok(Done::Pool(joined)) => {
            assert_eq!(*joined, id);
            Ok(())
        }
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code.clone()),
    }
}

/// All have joined, and the creator bids.
fn pooled(seed: u64) -> (World, PoolId) {
    all_join(founded(seed))
}

pub(super) fn all_join((mut world, id): (World, PoolId)) -> (World, PoolId) {
    for member in MEMBERS {
        join(&mut world, member, id, SHARE_SAT).unwrap();
    }
    assert_eq!(view(&world, CREATOR, id).stage, "bidding");
    (world, id)
}

fn is_in(world: &World, node: NodeId, state: &str) -> bool {
    trades(world, node).iter().any(|trade| trade.state == state)
}

pub(super) fn reach(world: &mut World, node: NodeId, state: &str) {
    let reached = world.run_until(45_000, |world| is_in(world, node, state));
    assert!(reached, "seed {}: node {node} never is {state}: {}", world.seed(), story(world));
}

/// The creator has every consent, and has told nobody yet.
pub(super) fn until_all_signed(world: &mut World) {
    let have = |world: &World| {
        let engine = world.engine(CREATOR).unwrap();
        let mut trades = engine.trades().views().map(|view| view.trade);
        trades.any(|trade| engine.trades().consents(&trade).is_some_and(Signed::is_agreed))
    };
    assert!(world.run_until(20_000, have), "{}", story(world));
}

pub(super) fn reserved_sat(world: &World, node: NodeId) -> u64 {
    world.engine(node).unwrap().treasury().reserved_sat()
}

pub(super) fn holds(world: &World) -> bool {
    let holder = world.nodes[HOLDER].key;
    let engine = world.engine(HOLDER).unwrap();
    engine.certificates(0).iter().any(|held| held.facts.holder == holder)
}

#[test]
fn five_pay_their_shares_and_the_sixth_holds() {
    let (mut world, id) = pooled(91);
    for payer in payers() {
        reach(&mut world, payer, "active");
    }
    assert!(world.run_until(10_000, holds), "{}", story(&world));
    let (mut paid_sat, mut price_sat) = (0, 0);
    for payer in payers() {
        let view = view(&world, payer, id);
        assert_eq!((view.stage, view.code), ("bought", None));
        let trade = trades(&world, payer).into_iter().find(|trade| trade.state == "active");
        let trade = trade.unwrap();
        assert!(trade.share_sat <= view.share_sat && trade.price_sat <= 30_000);
        paid_sat += trade.share_sat;
        price_sat = trade.price_sat;
        // Each keeps the certificate as its receipt.
        let receipt = world.engine(payer).unwrap().holdings().held(&trade.cert.unwrap()).cloned();
        assert_eq!(receipt.map(|facts| facts.holder), Some(world.nodes[HOLDER].key));
    }
    assert_eq!(paid_sat, price_sat, "the shares are the price");
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_pool_that_misses_its_sum_costs_nothing() {
    let (mut world, id) = founded(92);
    for member in &MEMBERS[..3] {
        join(&mut world, *member, id, SHARE_SAT).unwrap();
    }
    assert_eq!(view(&world, CREATOR, id).missing_sat, SHARE_SAT);
    assert!(reserved_sat(&world, CREATOR) >= FIRST_SAT);
    assert!(reserved_sat(&world, MEMBERS[0]) >= SHARE_SAT);
    world.run_for(31_000);
    for node in [CREATOR, MEMBERS[0], MEMBERS[1], MEMBERS[2]] {
        let view = view(&world, node, id);
        assert_eq!((view.stage, view.code.as_deref()), ("ended", Some("pool.expired")));
        assert_eq!(reserved_sat(&world, node), 0);
        assert!(trades(&world, node).is_empty());
    }
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn one_leaves_and_another_takes_its_place() {
    let (mut world, id) = pooled(93);
    let leave = world.command(MEMBERS[1], PoolCommand::Leave(id));
    assert_eq!(world.answer(MEMBERS[1], leave), Some(&Ok(Done::Ok)));
    let left = |world: &World| view(world, CREATOR, id).stage == "gathering";
    assert!(world.run_until(5_000, left), "{}", story(&world));
    assert_eq!(reserved_sat(&world, MEMBERS[1]), 0);
    assert_eq!(view(&world, CREATOR, id).missing_sat, SHARE_SAT);
    // A bid that was signed before comes to nothing for everybody.
    world.run_for(5_000);
    assert!(!payers().any(|node| is_in(&world, node, "fund_sent")), "{}", story(&world));
    join(&mut world, HOLDER, id, SHARE_SAT).unwrap();
    for payer in [CREATOR, MEMBERS[0], MEMBERS[2], MEMBERS[3], HOLDER] {
        reach(&mut world, payer, "active");
    }
    let leave = world.command(CREATOR, PoolCommand::Leave(id));
    let refused = world.answer(CREATOR, leave).unwrap().as_ref().unwrap_err();
    assert_eq!(refused.code, "pool.ended");
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_creator_that_ends_its_pool_frees_every_pledge() {
    let (mut world, id) = founded(94);
    join(&mut world, MEMBERS[0], id, SHARE_SAT).unwrap();
    let leave = world.command(CREATOR, PoolCommand::Leave(id));
    assert_eq!(world.answer(CREATOR, leave), Some(&Ok(Done::Ok)));
    let told = |world: &World| view(world, MEMBERS[0], id).code.as_deref() == Some("pool.ended");
    assert!(world.run_until(15_000, told), "{}", story(&world));
    assert_eq!((reserved_sat(&world, CREATOR), reserved_sat(&world, MEMBERS[0])), (0, 0));
    rest(&mut world);
    assert_sound(&world);
}

/// Each bid is one of the creator's few orders of an epoch.
#[test]
fn members_that_come_and_go_cost_the_creator_one_bid_an_epoch() {
    let (mut world, id) = pooled(99);
    let bids = |world: &World| world.engine(CREATOR).unwrap().market().standing().count();
    assert_eq!(bids(&world), 1);
    let before = bids(&world);
    let now_ms = world.now_ms;
    for _ in 0..4 {
        let request = encode(&SettleRequest::Pool(PoolRequest::Leave(id)));
        let member = world.nodes[MEMBERS[3]].key;
        world.ask_from(member, CREATOR, Protocol::Settle, &request).unwrap();
        let join = PoolRequest::Join { pool: id, share_sat: SHARE_SAT, refund_xonly: xonly() };
        let request = encode(&SettleRequest::Pool(join));
        let reply = world.ask_from(member, CREATOR, Protocol::Settle, &request).unwrap();
        let reply: SettleReply = decode_record(&reply).unwrap();
        assert!(matches!(reply, SettleReply::Pool(PoolReply::Members(_))), "{reply:?}");
    }
    assert!(world.now_ms - now_ms < world.params().epoch_ms());
    assert_eq!((bids(&world), view(&world, CREATOR, id).stage), (before, "gathering"));
    let bids_again = |world: &World| view(world, CREATOR, id).stage != "gathering";
    assert!(world.run_until(5_000, bids_again), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_bid_that_is_cancelled_by_hand_frees_every_pledge() {
    let (mut world, id) = pooled(100);
    let bid = world.engine(CREATOR).unwrap().market().standing().next().unwrap().id;
    world.command(CREATOR, MarketCommand::Cancel(bid));
    let ended = |world: &World| payers().all(|payer| view(world, payer, id).stage == "ended");
    assert!(world.run_until(25_000, ended), "{}", story(&world));
    assert_eq!(view(&world, CREATOR, id).code.as_deref(), Some("pool.dissolved"));
    world.run_for(5_000);
    assert!(payers().all(|payer| reserved_sat(&world, payer) == 0), "{}", story(&world));
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn one_that_never_signs_ends_the_pool_and_is_remembered() {
    let (mut world, id) = pooled(95);
    world.crash(MEMBERS[3]);
    let ended = |world: &World| view(world, CREATOR, id).stage == "ended";
    assert!(world.run_until(30_000, ended), "{}", story(&world));
    assert_eq!(view(&world, CREATOR, id).code.as_deref(), Some("pool.not_agreed"));
    let misses = world.engine(CREATOR).unwrap().conduct().misses(&world.nodes[MEMBERS[3]].key);
    assert_eq!(misses.and_then(|misses| misses.get(&Miss::Terms)), Some(&1));
    rest(&mut world);
    for payer in payers().filter(|payer| *payer != MEMBERS[3]) {
        assert_eq!(reserved_sat(&world, payer), 0);
        assert!(!trades(&world, payer).iter().any(|trade| trade.fund.is_some()));
    }
    assert_sound(&world);
}

#[test]
fn one_that_never_pays_costs_the_others_time_and_nobody_moves_the_certificate() {
    let (mut world, _) = pooled(96);
    reach(&mut world, MEMBERS[3], "terms_signed");
    reach(&mut world, CREATOR, "locked");
    world.crash(MEMBERS[3]);
    for payer in payers().filter(|payer| *payer != MEMBERS[3]) {
        reach(&mut world, payer, "refunded");
    }
    assert!(!holds(&world));
    let key = world.nodes[MEMBERS[3]].key;
    for node in [PROVIDER, CREATOR, MEMBERS[0]] {
        let released = world.run_until(20_000, |world| {
            let misses = world.engine(node).unwrap().conduct().misses(&key);
            misses.is_some_and(|misses| misses.contains_key(&Miss::Funding))
        });
        assert!(released, "node {node} does not remember who did not pay: {}", story(&world));
    }
    let honest = world.nodes[MEMBERS[0]].key;
    assert!(world.engine(CREATOR).unwrap().conduct().misses(&honest).is_none());
    rest(&mut world);
    assert_sound(&world);
}

/// States that the creator comes through, and what must be so if it is gone from there on.
const STEPS: [&str; 7] = [
    "draft",
    "terms_signed",
    "locked",
    "fund_built",
    "fund_sent",
    "fund_confirmed",
    "preimage_known",
];

#[test]
fn the_creator_vanishes_at_each_step_for_good_or_for_a_while() {
    for (number, state) in (0..).zip(STEPS) {
        for away_ms in [None, Some(2 * BLOCK_MS), Some(PAST_REFUND_MS)] {
            let (mut world, _) = pooled(110 + number);
            reach(&mut world, CREATOR, state);
            world.crash(CREATOR);
            if let Some(away_ms) = away_ms {
                world.run_for(away_ms);
                world.start(CREATOR);
            }
            rest(&mut world);
            assert_sound_after(&format!("away {away_ms:?} from {state}"), &world);
        }
    }
}

#[test]
fn a_member_killed_at_any_write_loses_nothing_and_costs_nobody() {
    for node in [CREATOR, MEMBERS[2]] {
        for write in (1..40).step_by(6) {
            let (mut world, _) = pooled(130);
            let side = if write % 4 == 1 { Kill::Before } else { Kill::After };
            let disk = &world.nodes[node].disk;
            disk.kill_at(disk.writes() + write, side);
            world.run_for(8_000);
            world.start(node);
            rest(&mut world);
            // One that was to die at a later write may have died in the meantime.
            world.start(node);
            rest(&mut world);
            assert_sound_after(&format!("node {node} killed at write {write}"), &world);
        }
    }
}

/// Everything that the creator knows of its pool, as others can change it.
fn known(world: &World, id: PoolId) -> (Vec<(Key, u64)>, &'static str) {
    let view = view(world, CREATOR, id);
    (view.members, view.stage)
}

#[test]
fn what_is_wrong_is_refused_with_a_code_and_changes_nothing() {
    let (mut world, id) = founded(97);
    for (share_sat, code) in
        [(0, "pool.share"), (999, "pool.share"), (20_001, "pool.share"), (19_500, "pool.share")]
    {
        assert_eq!(join(&mut world, MEMBERS[0], id, share_sat), Err(code.to_owned()));
        assert_eq!(reserved_sat(&world, MEMBERS[0]), 0, "{share_sat}");
    }
    join(&mut world, MEMBERS[0], id, SHARE_SAT).unwrap();
    assert_eq!(join(&mut world, MEMBERS[0], id, SHARE_SAT), Err("pool.joined_twice".to_owned()));
    assert_eq!(join(&mut world, CREATOR, id, SHARE_SAT), Err("pool.joined_twice".to_owned()));
    let before = known(&world, id);
    let (member, stranger) = (world.nodes[MEMBERS[0]].key, world.nodes[HOLDER].key);
    let join = |pool, share_sat, refund_xonly| PoolRequest::Join { pool, share_sat, refund_xonly };
    let valid = xonly();
    let rows = [
        ("another pool", stranger, join(PoolId([9; 32]), SHARE_SAT, valid), "pool.unknown"),
        ("another share", member, join(id, 6_000, valid), "pool.joined_twice"),
        ("nothing", stranger, join(id, 0, valid), "pool.share"),
        ("too much", stranger, join(id, 15_001, valid), "pool.share"),
        ("no key", stranger, join(id, SHARE_SAT, [0xff; 32]), "pool.bad_key"),
        ("leaves another", stranger, PoolRequest::Leave(PoolId([9; 32])), "pool.unknown"),
    ];
    for (what, peer, request, code) in rows {
        let request = encode(&SettleRequest::Pool(request));
        let reply = world.ask_from(peer, CREATOR, Protocol::Settle, &request).unwrap();
        let SettleReply::Refused { code: found } = decode_record(&reply).unwrap() else {
            panic!("{what} is taken")
        };
        assert_eq!(found, code, "{what}");
        assert_eq!(known(&world, id), before, "{what}");
    }
    // A stranger that leaves was never in it.
    let request = encode(&SettleRequest::Pool(PoolRequest::Leave(id)));
    let reply = world.ask_from(stranger, CREATOR, Protocol::Settle, &request).unwrap();
    assert_eq!(decode_record(&reply), Ok(SettleReply::Pool(PoolReply::Noted)));
    assert_eq!(known(&world, id), before);
    rest(&mut world);
    assert_sound(&world);
}

/// A pool that names its members has no place for a stranger who has seen the invitation, with
/// however many keys.
#[test]
fn a_pool_that_names_its_members_is_filled_by_them_alone() {
    let mut world = world(107, NODES, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    place(&mut world, PROVIDER, ask(1, 4_000, 4, window(8, 24)));
    let mut invited = MEMBERS.map(|member| world.nodes[member].key).to_vec();
    invited.sort();
    let pool = Pool { invited, ..pool_in(&world, window(8, 24)) };
    let id = create(&mut world, pool).unwrap();
    let before = known(&world, id);
    assert_eq!(join(&mut world, HOLDER, id, SHARE_SAT), Err("pool.not_invited".to_owned()));
    // Nor has it if its own node does not look.
    let request = PoolRequest::Join { pool: id, share_sat: SHARE_SAT, refund_xonly: xonly() };
    let request = encode(&SettleRequest::Pool(request));
    let stranger = world.nodes[HOLDER].key;
    let reply = world.ask_from(stranger, CREATOR, Protocol::Settle, &request).unwrap();
    let refused = SettleReply::Refused { code: "pool.not_invited".to_owned() };
    assert_eq!((decode_record(&reply), known(&world, id)), (Ok(refused), before));
    let (mut world, _) = all_join((world, id));
    for payer in payers() {
        reach(&mut world, payer, "active");
    }
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn whoever_is_named_is_named_once_in_order_and_is_not_the_creator() {
    let mut world = world(108, NODES, Links::GOOD);
    let keys = |world: &World, nodes: &[NodeId]| -> Vec<Key> {
        nodes.iter().map(|node| world.nodes[*node].key).collect()
    };
    let mut sorted = keys(&world, &MEMBERS);
    sorted.sort();
    let turned: Vec<Key> = sorted.iter().rev().copied().collect();
    let twice = vec![sorted[0], sorted[0]];
    let eight: Vec<Key> = (1..=8).map(|n| Key([n; 32])).collect();
    for invited in [turned, twice, keys(&world, &[CREATOR]), eight] {
        let pool = Pool { invited, ..pool_in(&world, window(8, 24)) };
        assert_eq!(create(&mut world, pool), Err("pool.malformed".to_owned()));
    }
}

fn is_agreed(said: &SettleRequest) -> bool {
    matches!(said, SettleRequest::Pool(PoolRequest::Agreed { .. }))
}

/// The lock that the provider gossips says that all have signed.
#[test]
fn a_member_from_whom_the_creator_keeps_the_consents_pays_in_time_and_is_not_blamed() {
    // One that has not heard the lock, because it was away, asks the provider.
    for is_away in [false, true] {
        let (mut world, _) = pooled(106);
        let last = MEMBERS[3];
        world.nodes[CREATOR].withholds = Some((last, is_agreed));
        if is_away {
            until_all_signed(&mut world);
            world.crash(last);
            reach(&mut world, CREATOR, "locked");
            world.restart(last, 100);
        }
        for payer in payers() {
            reach(&mut world, payer, "active");
        }
        rest(&mut world);
        let key = world.nodes[last].key;
        for (node, engine) in world.engines() {
            assert_eq!(engine.conduct().misses(&key), None, "away {is_away}, node {node}");
        }
        assert_sound(&world);
    }
}

/// The creator gathers consents in memory alone.
#[test]
fn a_creator_that_restarts_after_its_lock_tells_those_who_have_not_heard() {
    let (mut world, _) = pooled(101);
    let last = MEMBERS[3];
    until_all_signed(&mut world);
    world.crash(last);
    reach(&mut world, CREATOR, "locked");
    world.restart(CREATOR, 50);
    world.restart(last, 100);
    for payer in payers() {
        reach(&mut world, payer, "active");
    }
    rest(&mut world);
    assert_sound(&world);
}

/// The provider offers its chain source what each of them shows when it is shown.
#[test]
fn all_have_paid_before_the_next_block() {
    let mut params = devnet();
    params.chain.block_ms = 8 * params.settle.fund_ms;
    let world = world_of(params, 102, NODES, Links::GOOD);
    let (mut world, _) = all_join(founded_in(world, window(240, 260)));
    reach(&mut world, CREATOR, "locked");
    let height = world.chain.height();
    let fund_ms = world.params().settle.fund_ms;
    let have_paid = |world: &World| payers().all(|payer| is_in(world, payer, "fund_sent"));
    assert!(world.run_until(fund_ms, have_paid), "{}", story(&world));
    assert!(world.chain.height() <= height + 1, "a block came in between");
}

/// A consent of a member whose clock is ahead lasts too long for the provider.
#[test]
fn whose_consent_does_not_hold_is_the_one_that_did_not_sign() {
    let (mut world, id) = pooled(103);
    reach(&mut world, CREATOR, "draft");
    world.set_clock(MEMBERS[3], 9_000);
    let ended = |world: &World| view(world, CREATOR, id).stage == "ended";
    assert!(world.run_until(30_000, ended), "{}", story(&world));
    assert_eq!(view(&world, CREATOR, id).code.as_deref(), Some("pool.not_agreed"));
    for (member, missed) in MEMBERS.into_iter().zip([false, false, false, true]) {
        let misses = world.engine(CREATOR).unwrap().conduct().misses(&world.nodes[member].key);
        let terms = misses.is_some_and(|misses| misses.contains_key(&Miss::Terms));
        assert_eq!(terms, missed, "{member}: {misses:?}");
    }
}

/// One cannot sign, and the others' consents go with the life of the creator that asked.
#[test]
fn a_creator_that_was_away_until_it_was_too_late_blames_nobody() {
    let (mut world, id) = pooled(104);
    world.crash(MEMBERS[3]);
    reach(&mut world, CREATOR, "terms_signed");
    world.restart(CREATOR, 2 * world.params().settle.fund_ms);
    world.run_for(2 * world.params().settle.fund_ms + 100);
    let ended = |world: &World| view(world, CREATOR, id).stage == "ended";
    assert!(world.run_until(30_000, ended), "{}", story(&world));
    for member in MEMBERS {
        let misses = world.engine(CREATOR).unwrap().conduct().misses(&world.nodes[member].key);
        assert_eq!(misses, None, "{member}");
    }
    world.start(MEMBERS[3]);
    rest(&mut world);
    assert_sound(&world);
}

#[test]
fn a_lock_that_a_member_ends_is_no_fault_of_the_provider() {
    let (mut world, id) = pooled(105);
    reach(&mut world, CREATOR, "locked");
    let terms_hash = trades(&world, CREATOR)[0].terms_hash.unwrap();
    let member = world.nodes[MEMBERS[3]].key;
    let cancel = world.sign_as(MEMBERS[3], TermsCancel { v: VERSION, terms_hash });
    let request = encode(&SettleRequest::Trade(TradeRequest::Cancel(cancel)));
    let reply = world.ask_from(member, PROVIDER, Protocol::Settle, &request).unwrap();
    assert_eq!(decode_record(&reply), Ok(SettleReply::Trade(TradeReply::Cancelled)));
    rest(&mut world);
    assert!(!payers().any(|payer| is_in(&world, payer, "active")));
    assert_eq!(view(&world, CREATOR, id).stage, "ended");
    let provider = world.nodes[PROVIDER].key;
    for payer in payers() {
        assert_eq!(world.engine(payer).unwrap().conduct().misses(&provider), None, "{payer}");
    }
    assert_sound(&world);
}

/// What one shows for another's contract would keep the provider from trying the other's own.
#[test]
fn each_shows_the_provider_its_own_funding_alone() {
    let (mut world, _) = pooled(98);
    let paid = |world: &World| !world.chain.mempool().is_empty();
    assert!(world.run_until(45_000, paid), "{}", story(&world));
    let tx = world.chain.mempool().iter().map(|(_, entry)| serialize(&entry.tx)).next().unwrap();
    let terms_hash = trades(&world, CREATOR)[0].terms_hash.unwrap();
    let request = encode(&SettleRequest::Trade(TradeRequest::Fund { terms: vec![terms_hash], tx }));
    let codes = payers().chain([HOLDER]).map(|payer| {
        let key = world.nodes[payer].key;
        let reply = world.ask_from(key, PROVIDER, Protocol::Settle, &request).unwrap();
        match decode_record(&reply).unwrap() {
            SettleReply::Refused { code } => code,
            _ => "taken".to_owned(),
        }
    });
    let codes: Vec<String> = codes.collect();
    let count = |code| codes.iter().filter(|found| *found == code).count();
    assert_eq!((count("trade.not_the_buyer"), count("taken")), (5, 1), "{codes:?}");
    rest(&mut world);
    assert_sound(&world);
}

/// A point of the curve: that of the generator.
pub(super) fn xonly() -> [u8; 32] {
    let hex = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    hex.parse::<Key>().unwrap().0
}
