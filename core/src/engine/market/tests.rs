use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::secp256k1::Secp256k1;

use super::*;
use crate::bundle::Bundle;
use crate::engine::kernel::{
    ChainView, Conduct, CounterV1, Counters, Miss, Outbox, Subject, Table, Treasury, WalletView,
};
use crate::engine::{Engine, Input, Keys};
use crate::ids::{CertId, TradeId};
use crate::limits::STANDING_FINISHED_KEPT;
use crate::order::{Alternative, Mode, Side};
use crate::settlement::fees::FeeLimit;
use crate::settlement::objects::Row;
use crate::settlement::sample;
use crate::test_support::devnet;

pub(super) struct Empty;

impl Inventory for Empty {
    fn free_within(&self, _: u16, _: &Units, _: Window) -> Vec<Rectangle> {
        Vec::new()
    }

    fn pick(&self, _: u16, _: u32, _: Window, _: &[Units]) -> Option<Units> {
        None
    }

    fn others(&self, _: u16, _: &[Units]) -> Option<Units> {
        None
    }

    fn may_offer(&self, _: u16) -> Result<(), &'static str> {
        Ok(())
    }

    fn stock(&self, _: &CertId) -> Option<Stock<'_>> {
        None
    }
}

impl UnitLedger for Empty {
    fn number(&self, _: &Rectangle, _: &[&Row]) -> Vec<Result<Units, &'static str>> {
        Vec::new()
    }

    fn reserve(&mut self, _: TradeId, _: &Row, _: &Units) -> Result<(), &'static str> {
        Err("ledger.taken")
    }
}

/// Runs `test` in the OPEN phase of epoch 1,000, with these counters in the journal.
pub(super) fn with(counters: &[(&str, u64)], test: impl FnOnce(&mut Context<'_>, u64)) {
    with_work(0, counters, test);
}

fn with_work(pow_bits: u8, counters: &[(&str, u64)], test: impl FnOnce(&mut Context<'_>, u64)) {
    let params = Params { pow_bits, ..sample::params("devnet") };
    let epoch = 1000;
    let chain = ChainView { up: true, feerates: vec![(2, 1_000)], ..ChainView::default() };
    let mut treasury = Treasury::default();
    treasury.set_spendable(100_000_000);
    let counters: Vec<Record> = counters
        .iter()
        .map(|(name, at)| Record::store(name.as_bytes(), &CounterV1(*at)).unwrap())
        .collect();
    let mut counters = Counters::load(&counters, [3; 32]).unwrap();
    let mut ctx = Context {
        now_ms: crate::epoch::opens_at_ms(epoch, &params) + 1,
        params: &params,
        keys: &Keys::new([1; 32], [2; 32]),
        secp: &Secp256k1::new(),
        chain: &chain,
        wallet: &mut WalletView::default(),
        treasury: &mut treasury,
        conduct: &mut Conduct::default(),
        counters: &mut counters,
        out: &mut Outbox::default(),
    };
    test(&mut ctx, epoch);
}

pub(super) fn bid(ctx: &Context<'_>, time_in_force: TimeInForce) -> OrderSpec {
    let first = ctx.params.first_slot(epoch_at(ctx.now_ms, ctx.params));
    OrderSpec {
        side: Side::Buy,
        alts: vec![Alternative { class: 1, limit_msat: 900_000 }],
        qty: 4,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window { start: first, end: first + 4 },
        slots: 2,
        features: 0,
        allow: Vec::new(),
        deny: Vec::new(),
        min_run: 0,
        time_in_force,
        beneficiary: None,
        use_by: None,
        is_recallable: false,
        pool: None,
        fees: FeeLimit::default(),
        cert: None,
        is_spare: false,
    }
}

fn placed(ctx: &mut Context<'_>, time_in_force: TimeInForce) -> (Market, StandingId) {
    let mut market = Market::default();
    market.load(ctx, &[]).unwrap();
    let spec = bid(ctx, time_in_force);
    let id = market.place(ctx, &Empty, spec).unwrap();
    let standing = market.standing.get_mut(&id).unwrap();
    standing.matched = BTreeMap::from([(TradeId([1; 32]), 2), (TradeId([2; 32]), 2)]);
    (market, id)
}

#[test]
fn a_bid_is_filled_only_when_nothing_of_it_can_come_back() {
    with(&[], |ctx, _| {
        let (mut market, id) = placed(ctx, TimeInForce::GoodTillCancelled);
        market.on_trade_end(ctx, TradeId([1; 32]), true);
        assert_eq!(market.standing[&id].state, StandingState::Open);
        market.on_trade_end(ctx, TradeId([2; 32]), false);
        let standing = &market.standing[&id];
        assert_eq!((standing.state, standing.remainder()), (StandingState::Open, 2));
        market.on_trade_end(ctx, TradeId([2; 32]), false);
        assert_eq!(market.standing[&id].remainder(), 2, "an end counts once");
        market.standing.get_mut(&id).unwrap().matched.insert(TradeId([3; 32]), 2);
        market.on_trade_end(ctx, TradeId([3; 32]), true);
        assert_eq!(market.standing[&id].state, StandingState::Filled);
    });
}

#[test]
fn an_order_of_one_epoch_whose_trade_is_void_was_not_filled() {
    with(&[], |ctx, epoch| {
        let (mut market, id) = placed(ctx, TimeInForce::FillOrKill);
        market.standing.get_mut(&id).unwrap().last_epoch = Some(epoch);
        market.close_one_shots(ctx, epoch);
        assert_eq!(market.standing[&id].state, StandingState::Filled);
        market.on_trade_end(ctx, TradeId([1; 32]), false);
        assert_eq!(market.standing[&id].state, StandingState::Expired);
    });
}

#[test]
fn after_a_restart_no_order_joins_an_epoch_that_may_be_signed() {
    for (signed, joins) in [(1000, false), (999, true), (1_000_000, true)] {
        with(&[], |ctx, epoch| {
            let mut earlier = SignedEpochs::default();
            earlier.add(ctx, signed);
            let records = written(ctx);
            let mut market = Market::default();
            market.load(ctx, &records).unwrap();
            // As the first tick does.
            market.sign_due(ctx, &Empty, epoch);
            let spec = bid(ctx, TimeInForce::GoodTillCancelled);
            market.place(ctx, &Empty, spec).unwrap();
            assert_eq!(market.signed_for(epoch).count() == 1, joins, "{signed}");
        });
    }
}

#[test]
fn a_signed_bid_holds_its_coins_until_its_epoch_is_computed() {
    with(&[], |ctx, epoch| {
        let mut market = Market::default();
        market.load(ctx, &[]).unwrap();
        market.sign_due(ctx, &Empty, epoch);
        let spec = bid(ctx, TimeInForce::GoodTillCancelled);
        let needed_sat = Circumstances::of(ctx).needed_sat(&spec, spec.qty);
        ctx.treasury.set_spendable(needed_sat * 2 - 1);
        let id = market.place(ctx, &Empty, spec.clone()).unwrap();
        assert_eq!(ctx.treasury.reserved_sat(), needed_sat);
        let refused = market.place(ctx, &Empty, spec).unwrap_err();
        assert_eq!(refused.code, "order.insufficient_funds");
        // What was gossiped stays firm.
        market.cancel(ctx, id).unwrap();
        assert_eq!(ctx.treasury.reserved_sat(), needed_sat);
        ctx.now_ms = computed_at_ms(epoch, ctx.params);
        market.on_tick(ctx, &Empty);
        assert_eq!(ctx.treasury.reserved_sat(), needed_sat, "it has ended, no more");
        let set = Arc::clone(&market.epochs.get(epoch).unwrap().set);
        let frozen = Frozen::new(epoch, &set, &market.epochs.own(epoch));
        let job = market.handed_out;
        assert!(!market.on_frozen(ctx, job, frozen));
        let result = Computed::new(epoch, &set, ctx.params).map(Arc::new);
        let job = market.handed_out;
        market.on_matched(ctx, &mut Empty, job, result).unwrap();
        market.advance(ctx);
        assert_eq!(ctx.treasury.reserved_sat(), 0);
    });
}

pub(super) fn written(ctx: &mut Context<'_>) -> Vec<Record> {
    let records = sent(ctx).into_iter().filter_map(|effect| match effect {
        Effect::Persist { records, .. } => Some(records),
        _ => None,
    });
    records.flatten().collect()
}

fn sent(ctx: &mut Context<'_>) -> Vec<Effect> {
    ctx.out.flush();
    std::iter::from_fn(|| ctx.out.poll()).collect()
}

fn bundles(effects: &[Effect], magic: [u8; 4]) -> Vec<Bundle> {
    let published = effects.iter().filter_map(|effect| match effect {
        Effect::Publish { bytes, .. } => Some(Bundle::decode(bytes, magic).unwrap()),
        _ => None,
    });
    published.collect()
}

/// A market with bids of earlier epochs, before they are signed again.
fn standing_bids(ctx: &mut Context<'_>, count: u8) -> Market {
    let mut market = Market::default();
    market.load(ctx, &[]).unwrap();
    let spec = bid(ctx, TimeInForce::GoodTillCancelled);
    for number in 0..count {
        let id = StandingId([number; 32]);
        market.standing.insert(id, Standing::new(id, spec.clone(), None, ctx.now_ms));
    }
    market
}

#[test]
fn what_is_signed_again_is_one_write_and_one_message() {
    with(&[], |ctx, epoch| {
        let mut market = standing_bids(ctx, 16);
        let due_ms = signing::signs_at_ms(ctx.me(), epoch, ctx.params);
        let next = market.next_deadline(ctx.now_ms, ctx.params, ctx.me(), true);
        assert_eq!(next, (due_ms, Timer::SignOrders));
        ctx.now_ms = due_ms - 1;
        market.sign_due(ctx, &Empty, epoch);
        assert!(sent(ctx).is_empty());
        ctx.now_ms = due_ms;
        market.sign_due(ctx, &Empty, epoch);
        let effects = sent(ctx);
        assert!(matches!(effects[..], [Effect::Persist { .. }, Effect::Publish { .. }]));
        assert_eq!(bundles(&effects, ctx.params.magic)[0].orders().len(), 16);
        market.sign_due(ctx, &Empty, epoch);
        assert!(sent(ctx).is_empty(), "once an epoch");
        assert_ne!(market.next_deadline(due_ms, ctx.params, ctx.me(), true).1, next.1);
    });
}

#[test]
fn orders_begun_together_wait_for_each_others_work() {
    with_work(4, &[], |ctx, epoch| {
        let mut market = standing_bids(ctx, 3);
        ctx.now_ms = signing::signs_at_ms(ctx.me(), epoch, ctx.params);
        market.sign_due(ctx, &Empty, epoch);
        let jobs: Vec<u64> = sent(ctx).iter().filter_map(mine).collect();
        assert_eq!(jobs, [1, 2, 3]);
        market.on_mined(ctx, 2, 7);
        assert!(sent(ctx).is_empty());
        // Of a cancelled order nothing is left to wait for.
        market.cancel(ctx, StandingId([0; 32])).unwrap();
        assert!(bundles(&sent(ctx), ctx.params.magic).is_empty());
        market.on_mined(ctx, 3, 8);
        let sent_then = bundles(&sent(ctx), ctx.params.magic);
        assert_eq!(sent_then.iter().map(|b| b.orders().len()).collect::<Vec<_>>(), [2]);
        market.on_mined(ctx, 1, 9);
        assert!(sent(ctx).is_empty());
    });
}

fn mine(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Mine { job, .. } => Some(*job),
        _ => None,
    }
}

#[test]
fn work_that_comes_too_late_is_dropped_with_its_reservation() {
    with_work(4, &[], |ctx, epoch| {
        let mut market = standing_bids(ctx, 1);
        ctx.now_ms = signing::signs_at_ms(ctx.me(), epoch, ctx.params);
        market.sign_due(ctx, &Empty, epoch);
        assert_ne!(ctx.treasury.reserved_sat(), 0);
        ctx.now_ms = root_at_ms(epoch, ctx.params);
        market.on_mined(ctx, 1, 7);
        assert!(bundles(&sent(ctx), ctx.params.magic).is_empty());
        assert_eq!(ctx.treasury.reserved_sat(), 0);
    });
}

#[test]
fn bids_beyond_the_cap_wait_their_turn_and_say_so() {
    with(&[], |ctx, epoch| {
        let mut market = standing_bids(ctx, 18);
        ctx.now_ms = signing::signs_at_ms(ctx.me(), epoch, ctx.params);
        market.sign_due(ctx, &Empty, epoch);
        assert_eq!(market.signed_for(epoch).count(), 16);
        let waits = |market: &Market| -> Vec<u8> {
            let noted = market.standing().filter(|s| s.is_open() && s.note.is_some());
            noted.map(|s| s.id.0[0]).collect()
        };
        assert_eq!(waits(&market), [16, 17]);
        let spec = bid(ctx, TimeInForce::GoodTillCancelled);
        let placed = market.place(ctx, &Empty, spec).unwrap();
        let note = market.standing[&placed].note.as_deref();
        assert_eq!(note, Some("order.too_many_in_epoch"));
        market.cancel(ctx, placed).unwrap();

        ctx.now_ms = signing::signs_at_ms(ctx.me(), epoch + 1, ctx.params);
        market.epochs.computed_through = epoch;
        market.sign_due(ctx, &Empty, epoch + 1);
        assert_eq!(waits(&market), [14, 15], "who waited comes first");
    });
}

#[test]
fn a_new_order_is_signed_at_once_and_not_again_in_its_epoch() {
    with(&[], |ctx, epoch| {
        let mut market = standing_bids(ctx, 2);
        let due_ms = signing::signs_at_ms(ctx.me(), epoch, ctx.params);
        ctx.now_ms = due_ms - 1;
        let spec = bid(ctx, TimeInForce::GoodTillCancelled);
        market.place(ctx, &Empty, spec).unwrap();
        assert_eq!(market.signed_for(epoch).count(), 1);
        ctx.now_ms = due_ms;
        market.sign_due(ctx, &Empty, epoch);
        assert_eq!(market.signed_for(epoch).count(), 3);
    });
}

#[test]
fn owners_sign_again_at_moments_of_their_own_in_the_first_half_of_open() {
    let params = devnet();
    let opens_ms = crate::epoch::opens_at_ms(1000, &params);
    let offset = |owner: u8, epoch| signing::signs_at_ms(Key([owner; 32]), epoch, &params);
    let moments: BTreeSet<u64> = (0..100).map(|owner| offset(owner, 1000) - opens_ms).collect();
    assert!(moments.len() > 80, "{moments:?}");
    assert!(moments.iter().all(|ms| *ms < params.epoch.open_ms / 2), "{moments:?}");
    assert_ne!(offset(1, 1000) + params.epoch_ms(), offset(1, 1001), "no owner is always last");
}

#[test]
fn the_newest_finished_orders_are_kept_and_what_settles_is_not_finished() {
    with(&[], |ctx, _| {
        let (mut market, settling) = placed(ctx, TimeInForce::GoodTillCancelled);
        market.cancel(ctx, settling).unwrap();
        let standing = market.standing[&settling].clone();
        for n in 0..=STANDING_FINISHED_KEPT as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let (id, placed_at_ms) = (StandingId(id), ctx.now_ms + 1 + n);
            let matched = BTreeMap::new();
            let order = Standing { id, placed_at_ms, matched, ..standing.clone() };
            market.standing.insert(id, order);
        }
        while ctx.out.poll().is_some() {}
        market.forget_finished(ctx);
        assert_eq!(market.standing.len(), STANDING_FINISHED_KEPT + 1);
        assert!(market.standing.contains_key(&settling));
        ctx.out.flush();
        let Some(Effect::Persist { records, .. }) = ctx.out.poll() else {
            panic!("nothing is deleted")
        };
        let gone = Record::delete(Table::Standing, &[0; 32]);
        assert!(records.contains(&gone), "the one placed first goes");
    });
}

#[test]
fn what_was_matched_and_never_opened_is_signed_again() {
    with(&[], |ctx, _| {
        let (mut market, id) = placed(ctx, TimeInForce::GoodTillCancelled);
        let known = BTreeSet::from([TradeId([1; 32])]);
        market.forget_unopened(ctx, |trade| known.contains(trade));
        assert_eq!(market.standing[&id].remainder(), 2);
    });
}

#[test]
fn a_deadline_that_an_input_overtook_is_due_at_once() {
    let params = devnet();
    let epoch = 900_000_000;
    let opens_at = computed_at_ms(epoch - 1, &params);
    let mut engine = Engine::new(params.clone(), Keys::new([1; 32], [2; 32]));
    engine.handle(opens_at, Input::Started { records: Vec::new(), salt: [3; 32] });
    engine.handle(opens_at, Input::Tick);
    let root_at = root_at_ms(epoch, &params);
    let computed_at = computed_at_ms(epoch, &params);
    assert_eq!(engine.poll_timeout(opens_at), (root_at, Timer::SignRoot));
    // The loop serves something else just when the root is due, and again when the
    // epoch has ended.
    for late in [root_at, root_at + 3] {
        engine.handle(late, Input::ChainSource { up: false });
        assert_eq!(engine.poll_timeout(late), (root_at, Timer::SignRoot));
    }
    engine.handle(root_at + 3, Input::Tick);
    assert_eq!(engine.poll_timeout(root_at + 3), (computed_at, Timer::EpochEnd));
    for late in [computed_at, computed_at + 7] {
        engine.handle(late, Input::ChainSource { up: false });
        assert_eq!(engine.poll_timeout(late), (late, Timer::EpochEnd));
    }
    engine.handle(computed_at + 7, Input::Tick);
    assert_eq!(engine.poll_timeout(computed_at + 7).1, Timer::SignRoot);
}

#[test]
fn who_let_trades_lapse_is_denied_as_far_as_there_is_room() {
    let keys = |numbers: &[u8]| numbers.iter().map(|n| Key([*n; 32])).collect::<Vec<Key>>();
    let all: Vec<u8> = (1..=20).collect();
    // allow, deny of the owner; who missed, the worst first; allow, deny of the order
    type Row<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8], &'a [u8]);
    let table: [Row<'_>; 6] = [
        (&[], &[], &[], &[], &[]),
        (&[], &[9], &[], &[], &[9]),
        (&[], &[9], &[7, 9, 8], &[], &[7, 8, 9]),
        (&[], &[30], &all, &[], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 30]),
        (&[3, 7], &[], &[7], &[3], &[]),
        (&[3, 7], &[9], &[8], &[3, 7], &[9]),
    ];
    for (allow, deny, missed, allowed, denied) in table {
        with(&[], |ctx, epoch| {
            let mut market = Market::default();
            market.load(ctx, &[]).unwrap();
            for (rank, key) in missed.iter().enumerate() {
                ctx.now_ms -= rank as u64;
                ctx.missed(Subject::Key(Key([*key; 32])), Miss::Default);
                ctx.now_ms += rank as u64;
            }
            let mut spec = bid(ctx, TimeInForce::GoodTillCancelled);
            (spec.allow, spec.deny) = (keys(allow), keys(deny));
            let id = market.place(ctx, &Empty, spec.clone()).unwrap();
            let (signed, _) = market.signed_for(epoch).next().unwrap();
            let order = market.epochs.order(epoch, signed).unwrap();
            assert_eq!((&order.allow, &order.deny), (&keys(allowed), &keys(denied)), "{missed:?}");
            assert_eq!(market.standing[&id].spec, spec, "what the owner asked for stays");
        });
    }
}
