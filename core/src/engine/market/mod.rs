//! The market side of a node: standing orders, the open epoch, roots, results.
//!
//! A standing order is re-signed for every epoch until nothing of it is left. A node signs
//! for an epoch only what is neither reserved nor sold, and never before it has computed
//! the epoch before; after a restart never for an epoch that it may have signed for already.

pub mod archive;
mod closing;
mod computed;
pub mod depth;
mod drafts;
pub mod epochs;
mod finished;
mod gossip;
pub mod inventory;
mod messages;
pub mod quote;
pub mod records;
pub mod signing;
mod spec;
pub mod standing;

use std::collections::{BTreeMap, VecDeque};

pub use computed::{ComputeError, Computed};
pub use epochs::{EpochView, Epochs, Lack};
pub use inventory::Inventory;
pub use messages::{MarketCommand, MarketNews};
pub use spec::{OrderSpec, TimeInForce};
pub use standing::{Standing, StandingState};

use self::drafts::Drafts;
use self::records::StandingV1;
use super::io::{Done, Effect, Refusal};
use super::kernel::{Context, Record, Timer, Unreadable, records};
use crate::epoch::{ResultRow, computed_at_ms, epoch_at, root_at_ms};
use crate::ids::{Key, OrderId, StandingId, TradeId};
use crate::limits::STANDING_ORDERS_MAX;
use crate::order::Side;
use crate::params::Params;
use crate::reason;
use crate::settlement::objects::Row;
use crate::units::{TimeMs, Units, Window};

/// Unit numbers and when: what one ask stands for.
pub type Rectangle = (Units, Window);

/// A row of this node's own that binds, ready for settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    Buy {
        row: Row,
        trade: TradeId,
        seller: Key,
        /// Who shall hold the certificate.
        to: Key,
        /// Feature bits that the bid requires.
        features: u64,
    },
    Sell {
        row: Row,
        trade: TradeId,
        buyer: Key,
        units: Units,
        features: u64,
    },
}

/// An order of ours in an epoch.
#[derive(Debug, Clone)]
pub struct SignedOrder {
    /// Which standing order it came from.
    pub standing: StandingId,
    pub epoch: u64,
    pub rectangle: Option<Rectangle>,
    pub features: u64,
}

/// Standing orders, epochs and their results.
#[derive(Debug, Default)]
pub struct Market {
    standing: BTreeMap<StandingId, Standing>,
    /// Order sets, roots and results.
    pub epochs: Epochs,
    signed: BTreeMap<OrderId, SignedOrder>,
    drafts: Drafts,
    /// Number of the last order of ours.
    nonce: u64,
    /// Never sign for an epoch up to this one: an earlier life may have.
    floor: u64,
    /// Standing orders were signed again for every epoch up to here.
    resigned_through: u64,
    /// Epochs that ended and have no result yet, oldest first: the first is being computed.
    ended: VecDeque<u64>,
    clock_is_off: bool,
    started: bool,
}

const SIGNED_THROUGH: &str = "epoch.signed";
const NONCE: &str = "order.nonce";
const COMPUTED_THROUGH: &str = "epoch.computed";

impl Market {
    /// Restores state from the journal.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn load(&mut self, ctx: &mut Context<'_>, all: &[Record]) -> Result<(), Unreadable> {
        for found in records::<StandingV1>(all) {
            let (record, standing) = found?;
            let id = StandingId(record.key_array()?);
            self.standing.insert(id, standing.with_id(id));
        }
        self.epochs.load(ctx, all)?;
        self.floor = ctx.counter(SIGNED_THROUGH);
        self.resigned_through = self.floor;
        self.nonce = ctx.counter(NONCE);
        let now_epoch = epoch_at(ctx.now_ms, ctx.params);
        // What ended meanwhile was missed, also where it waited for its result. The orders of
        // others and the roots heard are on disk only with the result: written before it, an
        // epoch of 100,000 orders would cost the loop 60 MB, and fetched anew from peers it would
        // be a set that this node has not voted for. Nothing is owed: no terms were signed, and
        // the counterparty's request ends as `trade.no_agreement`.
        self.epochs.computed_through =
            ctx.counter(COMPUTED_THROUGH).max(now_epoch.saturating_sub(1));
        self.epochs.frozen_through = self.epochs.computed_through;
        self.started = true;
        Ok(())
    }

    /// Every standing order, by id.
    pub fn standing(&self) -> impl Iterator<Item = &Standing> {
        self.standing.values()
    }

    /// What this node has signed for an epoch.
    pub fn signed_for(&self, epoch: u64) -> impl Iterator<Item = (&OrderId, &SignedOrder)> {
        self.signed.iter().filter(move |(_, signed)| signed.epoch == epoch)
    }

    /// Does what an operator asks.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        id: u64,
        command: MarketCommand,
    ) {
        let result = match command {
            MarketCommand::Place(spec) => self.place(ctx, inventory, *spec).map(Done::Placed),
            MarketCommand::Cancel(order) => self.cancel(ctx, order).map(|()| Done::Ok),
        };
        ctx.out.push(Effect::CommandDone { id, result });
    }

    /// Puts a standing order into the market.
    ///
    /// # Errors
    /// A refusal that says which bound it breaks.
    pub fn place(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &dyn Inventory,
        spec: OrderSpec,
    ) -> Result<StandingId, Refusal> {
        self.expire(ctx);
        self.forget_finished(ctx);
        let open = self.standing.values().filter(|order| order.is_open()).count();
        if open >= STANDING_ORDERS_MAX {
            return Err(Refusal::new(
                reason!("order.too_many"),
                "this node keeps as many orders as it may",
            ));
        }
        signing::check_spec(ctx, &spec)?;
        let units = match spec.side {
            Side::Buy => {
                signing::check_funds(ctx, &spec)?;
                None
            }
            Side::Sell => Some(self.pick_units(inventory, &spec)?),
        };
        let id = ctx.fresh_standing_id();
        let standing = Standing::new(id, spec, units, ctx.now_ms);
        ctx.out.store(&id.0, &StandingV1::from(&standing));
        self.standing.insert(id, standing);
        self.sign_one(ctx, inventory, id);
        Ok(id)
    }

    fn pick_units(&self, inventory: &dyn Inventory, spec: &OrderSpec) -> Result<Units, Refusal> {
        let class = spec.alts.first().map_or(0, |alt| alt.class);
        let taken: Vec<Units> = self
            .standing
            .values()
            .filter(|other| other.is_open() && other.spec.window.overlaps(spec.window))
            .filter(|other| other.spec.alts.first().map(|alt| alt.class) == Some(class))
            .filter_map(|other| other.units.clone())
            .collect();
        inventory.pick(class, spec.qty, spec.window, &taken).ok_or_else(|| {
            Refusal::new(
                reason!("order.capacity_exceeded"),
                "this host has fewer free units of the class in that window",
            )
        })
    }

    /// Stops re-signing; what was gossiped stays firm for its epoch.
    ///
    /// # Errors
    /// `order.not_found`.
    pub fn cancel(&mut self, ctx: &mut Context<'_>, id: StandingId) -> Result<(), Refusal> {
        let standing = self
            .standing
            .get_mut(&id)
            .ok_or_else(|| Refusal::new(reason!("order.not_found"), "no such order"))?;
        if standing.is_open() {
            standing.state = StandingState::Cancelled;
            ctx.out.store(&id.0, &StandingV1::from(&*standing));
        }
        for dropped in self.drafts.discard(|signed| signed.standing == id) {
            ctx.treasury.release_bid(dropped.epoch, id);
        }
        self.publish_ready(ctx);
        Ok(())
    }

    /// Does what is due: closes the epoch that ended, votes, signs for the open one.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, inventory: &dyn Inventory) {
        if !self.started {
            return;
        }
        let epoch = epoch_at(ctx.now_ms, ctx.params);
        if self.epochs.frozen_through.saturating_add(1) < epoch {
            self.freeze_due(ctx, epoch);
        }
        self.expire(ctx);
        if ctx.now_ms >= root_at_ms(epoch, ctx.params) {
            self.epochs.vote(ctx, epoch);
        }
        self.sign_due(ctx, inventory, epoch);
    }

    /// When `on_tick` is due next: at once, if an input came between a deadline and its tick.
    #[must_use]
    pub fn next_deadline(
        &self,
        now_ms: TimeMs,
        params: &Params,
        me: Key,
        is_chain_up: bool,
    ) -> (TimeMs, Timer) {
        let epoch = epoch_at(now_ms, params);
        if self.started && self.epochs.frozen_through.saturating_add(1) < epoch {
            (now_ms, Timer::EpochEnd)
        } else if is_chain_up && self.awaits_signing(now_ms, params, epoch) {
            (signing::signs_at_ms(me, epoch, params).max(now_ms), Timer::SignOrders)
        } else if self.started && self.epochs.voted_through < epoch {
            (root_at_ms(epoch, params), Timer::SignRoot)
        } else {
            (computed_at_ms(epoch, params), Timer::EpochEnd)
        }
    }

    fn own_rows(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn Inventory,
        rows: &[ResultRow],
    ) -> Vec<Matched> {
        let binding: Vec<&ResultRow> = rows.iter().filter(|row| row.void.is_none()).collect();
        let mut matched = Vec::new();
        for row in &binding {
            if let Some(signed) = self.signed.get(&OrderId(row.row.buy)).cloned() {
                matched.extend(self.own_buy(ctx, row, &signed));
            }
        }
        let asks: Vec<(OrderId, SignedOrder)> = self
            .signed
            .iter()
            .filter(|(_, signed)| signed.rectangle.is_some())
            .map(|(id, signed)| (*id, signed.clone()))
            .collect();
        for (ask, signed) in asks {
            let rows: Vec<&ResultRow> =
                binding.iter().copied().filter(|row| row.row.sell == ask.0).collect();
            matched.extend(self.own_sells(ctx, inventory, &rows, &signed));
        }
        matched
    }

    fn own_buy(
        &mut self,
        ctx: &mut Context<'_>,
        result: &ResultRow,
        signed: &SignedOrder,
    ) -> Option<Matched> {
        let me = ctx.me();
        let standing = self.standing.get_mut(&signed.standing)?;
        standing.matched.insert(result.trade, result.row.qty);
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        let needed_sat = result.row.price_sat().saturating_add(signing::fee_reserve_sat(ctx));
        ctx.treasury.commit(result.trade, needed_sat);
        Some(Matched::Buy {
            row: result.row.clone(),
            trade: result.trade,
            seller: result.seller,
            to: standing.spec.beneficiary.unwrap_or(me),
            features: standing.spec.features,
        })
    }

    fn own_sells(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn Inventory,
        results: &[&ResultRow],
        signed: &SignedOrder,
    ) -> Vec<Matched> {
        let (Some(rectangle), Some(standing)) =
            (&signed.rectangle, self.standing.get_mut(&signed.standing))
        else {
            return Vec::new();
        };
        let mut results = results.to_vec();
        results.sort_by_key(|result| (result.row.start, result.row.buy));
        let rows: Vec<&Row> = results.iter().map(|result| &result.row).collect();
        let numbered = inventory.number(rectangle, &rows);
        let mut matched = Vec::new();
        for (result, units) in results.iter().zip(numbered) {
            let reserved = units.and_then(|units| {
                inventory.reserve(result.trade, &result.row, &units).map(|()| units)
            });
            let units = match reserved {
                Ok(units) => units,
                Err(code) => {
                    standing.note = Some(code.to_owned());
                    continue;
                }
            };
            standing.matched.insert(result.trade, result.row.qty);
            matched.push(Matched::Sell {
                row: result.row.clone(),
                trade: result.trade,
                buyer: result.buyer,
                units,
                features: signed.features,
            });
        }
        if !rows.is_empty() {
            ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
        }
        matched
    }

    /// A trade of ours ended: filled, or its part goes back into the market.
    pub fn on_trade_end(&mut self, ctx: &mut Context<'_>, trade: TradeId, filled: bool) {
        let Some(standing) =
            self.standing.values_mut().find(|standing| standing.matched.contains_key(&trade))
        else {
            return;
        };
        let qty = standing.matched.remove(&trade).unwrap_or(0);
        if filled {
            standing.filled = standing.filled.saturating_add(qty);
            // What still settles may come back: then it has to be signed again.
            let all = standing.matched.is_empty() && standing.remainder() == 0;
            if standing.is_open() && standing.spec.side == Side::Buy && all {
                standing.state = StandingState::Filled;
            }
        } else if standing.state == StandingState::Filled {
            // It lived for one epoch, and not all of it came true.
            standing.state = StandingState::Expired;
        }
        ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
    }

    /// Puts back what was matched just before a crash and never became a settlement.
    pub fn forget_unopened(&mut self, ctx: &mut Context<'_>, is_known: impl Fn(&TradeId) -> bool) {
        for standing in self.standing.values_mut() {
            let before = standing.matched.len();
            standing.matched.retain(|trade, _| is_known(trade));
            if standing.matched.len() != before {
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }

    fn expire(&mut self, ctx: &mut Context<'_>) {
        let first = ctx.params.first_slot(epoch_at(ctx.now_ms, ctx.params));
        for standing in self.standing.values_mut().filter(|standing| standing.is_open()) {
            if standing.is_past(ctx.now_ms, first) {
                standing.state = StandingState::Expired;
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }

    fn close_one_shots(&mut self, ctx: &mut Context<'_>, through: u64) {
        for standing in self.standing.values_mut().filter(|standing| standing.is_open()) {
            let had_its_epoch = standing.last_epoch.is_some_and(|epoch| epoch <= through);
            if standing.is_one_shot() && had_its_epoch {
                let all_matched = standing.remainder() == 0;
                standing.state =
                    if all_matched { StandingState::Filled } else { StandingState::Expired };
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }

    /// The clock was compared with that of peers: beyond min(2 s, FREEZE / 4)
    /// this node computes nothing.
    pub fn on_clock(&mut self, ctx: &Context<'_>, offset_ms: i64, peers: u16) {
        const PEERS_TO_JUDGE: u16 = 5;
        let is_far = offset_ms.unsigned_abs() > ctx.params.clock_tolerance_ms();
        self.clock_is_off = peers >= PEERS_TO_JUDGE && is_far;
    }

    /// Whether the clock is too far off to match.
    #[must_use]
    pub fn clock_is_off(&self) -> bool {
        self.clock_is_off
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use bitcoin::secp256k1::Secp256k1;

    use super::*;
    use crate::bundle::Bundle;
    use crate::engine::kernel::{
        ChainView, CounterV1, Counters, Outbox, Table, Treasury, WalletView,
    };
    use crate::engine::{Engine, Input, Keys};
    use crate::limits::STANDING_FINISHED_KEPT;
    use crate::order::{Alternative, Mode};
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
        let chain = ChainView { up: true, ..ChainView::default() };
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
        for (signed, joins) in [(1000, false), (999, true)] {
            with(&[(SIGNED_THROUGH, signed)], |ctx, epoch| {
                let mut market = Market::default();
                market.load(ctx, &[]).unwrap();
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
        with(&[(SIGNED_THROUGH, 999)], |ctx, epoch| {
            let mut market = Market::default();
            market.load(ctx, &[]).unwrap();
            market.sign_due(ctx, &Empty, epoch);
            let spec = bid(ctx, TimeInForce::GoodTillCancelled);
            let needed_sat = signing::needed_sat(ctx, &spec, spec.qty);
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
            let result = Computed::new(epoch, &set, ctx.params).map(Arc::new);
            market.on_matched(ctx, &mut Empty, epoch, result).unwrap();
            market.advance(ctx);
            assert_eq!(ctx.treasury.reserved_sat(), 0);
        });
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
}
