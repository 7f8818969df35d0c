//! The end of an epoch: its set is closed, put on disk, matched elsewhere, and its rows are taken.
//!
//! Epochs are computed one after the other. Between the end of an epoch and its result no
//! order of it is taken, and none is signed for a later one.

use std::sync::Arc;

use super::records::StandingV1;
use super::{ComputeError, Computed, Frozen, Market, MarketNews, Matched, UnitLedger};
use crate::engine::io::Effect;
use crate::engine::kernel::ClockState;
use crate::engine::kernel::Context;
use crate::epoch::epoch_at;
use crate::params::Params;
use crate::units::TimeMs;

/// Epochs that wait for their result. A node that needs longer than an epoch for each gives
/// up the newest, for which it has signed nothing.
const ENDED_MAX: usize = 2;

/// An epoch that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) epoch: u64,
    /// Whether its orders are on disk.
    pub(super) is_frozen: bool,
}

impl Market {
    /// Closes the sets of all epochs before this one.
    pub(super) fn freeze_due(&mut self, ctx: &mut Context<'_>, now_epoch: u64) {
        let through = now_epoch.saturating_sub(1);
        let mut due = self.epochs.unfrozen(through);
        if self.clock.state == ClockState::Off {
            due.clear();
        }
        self.epochs.frozen_through = through;
        // A search for work that found nothing never answers.
        self.drafts.discard(|signed| signed.epoch <= through);
        let is_idle = self.ended.is_empty();
        for epoch in due {
            if self.ended.len() < ENDED_MAX {
                self.ended.push_back(Ended { epoch, is_frozen: false });
            } else {
                failed(ctx, epoch, &ComputeError::Behind);
            }
        }
        if is_idle {
            self.advance(ctx);
        }
    }

    /// The records of a set that is to be matched. Whether nothing comes of it: then
    /// [`Market::advance`] follows.
    pub fn on_frozen(
        &mut self,
        ctx: &mut Context<'_>,
        job: u64,
        frozen: Result<Frozen, ComputeError>,
    ) -> bool {
        let Some(epoch) = self.awaits(job, false) else { return false };
        match frozen {
            Ok(frozen) => {
                if let Some(ended) = self.ended.front_mut() {
                    ended.is_frozen = true;
                }
                self.epochs.freeze(ctx, epoch, frozen);
                self.hand_out(ctx);
                false
            }
            Err(error) => {
                self.ended.pop_front();
                failed(ctx, epoch, &error);
                true
            }
        }
    }

    /// The result of an epoch: its rows of this node's own that bind. `None` if nothing
    /// waits for it. [`Market::advance`] follows.
    pub fn on_matched(
        &mut self,
        ctx: &mut Context<'_>,
        inventory: &mut dyn UnitLedger,
        job: u64,
        result: Result<Arc<Computed>, ComputeError>,
    ) -> Option<Vec<Matched>> {
        let epoch = self.awaits(job, true)?;
        self.ended.pop_front();
        let mut matched = Vec::new();
        match result {
            Ok(computed) => {
                let found = Arc::clone(&computed.result);
                let operators = self.epochs.complete(ctx, epoch, computed);
                ctx.out.notify(MarketNews::Computed { epoch, rows: found.rows.len() });
                if operators >= usize::from(ctx.params.min_operators) {
                    matched = self.own_rows(ctx, inventory, &found.rows);
                }
            }
            Err(error) => {
                self.epochs.thaw(ctx, epoch);
                failed(ctx, epoch, &error);
            }
        }
        Some(matched)
    }

    /// The clock was ahead and is set back by more than an epoch. What was signed and computed
    /// by it was meant for nobody: it is forgotten, and the node takes part in the open epoch
    /// unless it has signed for it already.
    pub(super) fn set_back(&mut self, ctx: &mut Context<'_>, epoch: u64) {
        let latest = self.signed_epochs.last().max(self.epochs.latest());
        let latest = latest.unwrap_or(0).max(self.epochs.frozen_through);
        ctx.out.notify(MarketNews::ClockWasAhead { through: latest, epoch });
        self.closed_epochs = self.signed_epochs.clone();
        self.ended.clear();
        self.drafts.discard(|_| true);
        ctx.treasury.release_bids_through(u64::MAX);
        self.signed.retain(|_, signed| signed.epoch <= epoch);
        self.resigned_through = self.resigned_through.min(epoch.saturating_sub(1));
        for standing in self.standing.values_mut() {
            if standing.last_epoch.is_some_and(|last| last > epoch) {
                (standing.last_epoch, standing.last_order) = (None, None);
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
        self.epochs.set_back(ctx, epoch);
    }

    /// The last epoch for which this node has signed while its clock was ahead, if that has
    /// not come yet.
    #[must_use]
    pub fn signed_ahead(&self, now_ms: TimeMs, params: &Params) -> Option<u64> {
        let epoch = epoch_at(now_ms, params);
        self.closed_epochs.last().filter(|last| is_ahead(*last, epoch))
    }

    /// Takes note of what is computed, once its rows are settlements, and hands out the next
    /// set.
    pub fn advance(&mut self, ctx: &mut Context<'_>) {
        let next = self.ended.front().map(|ended| ended.epoch);
        let through = next.map_or(self.epochs.frozen_through, |epoch| epoch.saturating_sub(1));
        // The rows that bind are committed by now, so nothing is free in between.
        ctx.treasury.release_bids_through(through);
        self.epochs.computed_through = through;
        self.epochs.forget_oldest(ctx);
        self.close_one_shots(ctx, through);
        let past_ms = ctx.past_ms();
        ctx.conduct.fade(ctx.out, ctx.now_ms, past_ms, ctx.params.epoch_ms());
        self.forget_finished(ctx);
        self.signed.retain(|_, signed| signed.epoch > through.saturating_sub(8));
        self.hand_out(ctx);
    }

    /// The epoch that an answer is about, if it is the one that is awaited.
    fn awaits(&self, job: u64, is_frozen: bool) -> Option<u64> {
        let front = self.ended.front().filter(|ended| ended.is_frozen == is_frozen)?;
        (job == self.handed_out).then_some(front.epoch)
    }

    /// Hands out the first set that waits, to be written or to be matched.
    pub(super) fn hand_out(&mut self, ctx: &mut Context<'_>) {
        let Some(Ended { epoch, is_frozen }) = self.ended.front().copied() else { return };
        self.handed_out = self.handed_out.saturating_add(1);
        let job = self.handed_out;
        let set = self.epochs.get(epoch).map(|view| Arc::clone(&view.set)).unwrap_or_default();
        ctx.out.push(if is_frozen {
            Effect::Match { job, epoch, set }
        } else {
            Effect::Freeze { job, epoch, set, own: self.epochs.own(epoch) }
        });
    }
}

/// Whether an epoch is further ahead of the clock than one that was set back a little makes it.
pub(super) fn is_ahead(epoch: u64, now_epoch: u64) -> bool {
    epoch > now_epoch.saturating_add(1)
}

fn failed(ctx: &mut Context<'_>, epoch: u64, error: &ComputeError) {
    ctx.out.notify(MarketNews::Failed { epoch, code: error.code() });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{Empty, bid, with};
    use super::*;
    use crate::book::OrderSet;
    use crate::engine::io::Event;
    use crate::engine::kernel::{ClockCheck, Keys, Miss, Record, Subject};
    use crate::engine::market::signing::Obstacle;
    use crate::engine::market::signing::{order_of, signs_at_ms};
    use crate::engine::market::{Circumstances, TimeInForce};
    use crate::epoch::Root;
    use crate::epoch::{opens_at_ms, root_at_ms};
    use crate::ids::{Key, OrderId};
    use crate::order::Order;
    use crate::reason;
    use crate::units::Window;
    use crate::wire::Verified;
    use crate::wire::{VERSION, encode};

    /// Epochs that ended with their orders, and what became of epochs, by name.
    type Told = (Vec<(u64, Arc<OrderSet>)>, Vec<(u64, &'static str)>);

    fn effects(ctx: &mut Context<'_>) -> Told {
        ctx.out.flush();
        let (mut matches, mut told) = (Vec::new(), Vec::new());
        while let Some(effect) = ctx.out.poll() {
            match effect {
                Effect::Freeze { epoch, set, .. } => matches.push((epoch, set)),
                Effect::Notify(Event::Market(news)) => told.push(match news {
                    MarketNews::Computed { epoch, .. } => (epoch, "done"),
                    MarketNews::Failed { epoch, code } => (epoch, code),
                    MarketNews::Clock(_) => (0, "clock"),
                    MarketNews::ClockWasAhead { through, .. } => (through, "ahead"),
                }),
                _ => {}
            }
        }
        (matches, told)
    }

    fn begun(ctx: &mut Context<'_>) -> Market {
        let mut market = Market::default();
        market.load(ctx, &[]).unwrap();
        market.on_tick(ctx, &Empty);
        market
    }

    /// A stranger's bid in the open epoch.
    fn strange(ctx: &Context<'_>, epoch: u64) -> Verified<Order> {
        let keys = Keys::new([9; 32], [9; 32]);
        let spec = bid(ctx, TimeInForce::GoodTillCancelled);
        let first = ctx.params.first_slot(epoch);
        let window = Window { start: first, end: first + 4 };
        let mut order = order_of(&Circumstances::of(ctx), &spec, epoch, spec.qty, window, 0);
        order.owner = keys.public();
        keys.sign(order, ctx.params)
    }

    fn place(market: &mut Market, ctx: &mut Context<'_>) {
        let spec = bid(ctx, TimeInForce::GoodTillCancelled);
        market.place(ctx, &Empty, spec).unwrap();
    }

    fn computed(
        ctx: &Context<'_>,
        (epoch, set): &(u64, Arc<OrderSet>),
    ) -> Result<Arc<Computed>, ComputeError> {
        Computed::new(*epoch, set, ctx.params).map(Arc::new)
    }

    /// Puts the orders of an epoch on disk, so that it is matched.
    fn freeze(market: &mut Market, ctx: &mut Context<'_>, (epoch, set): &(u64, Arc<OrderSet>)) {
        let frozen = Frozen::new(*epoch, set, &market.epochs.own(*epoch));
        let job = market.handed_out;
        assert!(!market.on_frozen(ctx, job, frozen));
    }

    /// The answer to what was handed out last.
    fn take(
        market: &mut Market,
        ctx: &mut Context<'_>,
        result: Result<Arc<Computed>, ComputeError>,
    ) -> Option<Vec<Matched>> {
        let job = market.handed_out;
        market.on_matched(ctx, &mut Empty, job, result)
    }

    #[test]
    fn between_an_end_and_its_result_nothing_joins_and_nothing_is_signed() {
        with(&[], |ctx, epoch| {
            let mut market = begun(ctx);
            place(&mut market, ctx);
            assert_eq!(market.signed_for(epoch).count(), 1);
            ctx.now_ms = opens_at_ms(epoch + 1, ctx.params);
            market.on_tick(ctx, &Empty);
            let handed = effects(ctx).0.remove(0);
            assert_eq!((handed.0, handed.1.len()), (epoch, 1));
            // The clock steps back: the set stays what was handed out.
            ctx.now_ms -= 1;
            assert_eq!(market.epochs.is_open(ctx, epoch), Err(reason!("order.stale_epoch")));
            // Ticks find nothing due at once, and sign nothing yet.
            ctx.now_ms = signs_at_ms(ctx.me(), epoch + 1, ctx.params);
            market.on_tick(ctx, &Empty);
            assert!(market.next_deadline(ctx.now_ms, ctx.params, ctx.me(), true).0 > ctx.now_ms);
            assert!(effects(ctx).0.is_empty());
            let spec = bid(ctx, TimeInForce::GoodTillCancelled);
            market.place(ctx, &Empty, spec).unwrap();
            assert_eq!(market.signed_for(epoch + 1).count(), 0);
            assert!(ctx.treasury.reserved_sat() > 0, "coins stay reserved until the result");
            let result = computed(ctx, &handed);
            assert!(take(&mut market, ctx, result.clone()).is_none());
            freeze(&mut market, ctx, &handed);
            assert!(take(&mut market, ctx, result.clone()).is_some());
            market.advance(ctx);
            assert_eq!(ctx.treasury.reserved_sat(), 0);
            market.on_tick(ctx, &Empty);
            assert_eq!(market.signed_for(epoch + 1).count(), 2, "both are signed now");
            assert!(take(&mut market, ctx, result).is_none(), "it came twice");
            assert_eq!(effects(ctx).1, [(epoch, "done")]);
        });
    }

    #[test]
    fn while_nothing_is_open_nothing_is_written_or_signed() {
        with(&[], |ctx, first| {
            let mut market = begun(ctx);
            let denied = Subject::Key(Keys::new([9; 32], [9; 32]).public());
            ctx.missed(denied, Miss::Terms);
            effects(ctx);
            for epoch in first..first + 4 {
                let at_ms = |market: &Market, ctx: &Context<'_>| {
                    market.next_deadline(ctx.now_ms, ctx.params, ctx.me(), true).0
                };
                // Woken for the root and for the end, and for nothing else.
                for woken_ms in [root_at_ms(epoch, ctx.params), opens_at_ms(epoch + 1, ctx.params)]
                {
                    assert_eq!(at_ms(&market, ctx), woken_ms);
                    ctx.now_ms = woken_ms;
                    market.on_tick(ctx, &Empty);
                }
                ctx.out.flush();
                assert_eq!(ctx.out.poll(), None, "epoch {epoch}");
                assert!(market.denied.is_empty(), "nobody looks whom to deny");
            }
            // An order of a stranger is enough to keep its epoch.
            let order = strange(ctx, first + 4);
            market.epochs.insert(order);
            ctx.now_ms = opens_at_ms(first + 5, ctx.params);
            market.on_tick(ctx, &Empty);
            assert_eq!(effects(ctx).0.len(), 1);
        });
    }

    #[test]
    fn epochs_are_computed_in_order_and_a_node_too_slow_gives_up_the_newest() {
        with(&[], |ctx, first| {
            let mut market = begun(ctx);
            for epoch in first..first + 3 {
                ctx.now_ms = opens_at_ms(epoch, ctx.params) + 1;
                market.on_tick(ctx, &Empty);
                let order = strange(ctx, epoch);
                market.epochs.insert(order);
            }
            ctx.now_ms = opens_at_ms(first + 3, ctx.params);
            market.on_tick(ctx, &Empty);
            let (mut handed, news) = effects(ctx);
            assert_eq!(news, [(first + 2, "epoch.behind")]);
            assert_eq!(handed.len(), 1, "one at a time");
            let handed = handed.remove(0);
            let early = computed(ctx, &(first + 1, Arc::clone(&handed.1)));
            assert!(market.on_matched(ctx, &mut Empty, market.handed_out + 1, early).is_none());
            let result = computed(ctx, &handed);
            freeze(&mut market, ctx, &handed);
            assert!(take(&mut market, ctx, result).is_some());
            market.advance(ctx);
            assert_eq!(market.epochs.computed_through, first);
            let handed = effects(ctx).0.remove(0);
            assert_eq!(handed.0, first + 1);
            freeze(&mut market, ctx, &handed);
            // One that fails is told, passed and forgotten.
            let lost = Err(ComputeError::Lost);
            assert!(take(&mut market, ctx, lost).is_some());
            market.advance(ctx);
            assert_eq!(market.epochs.computed_through, first + 2);
            assert_eq!(effects(ctx), (Vec::new(), vec![(first + 1, "epoch.lost")]));
            assert!(market.epochs.frozen().is_empty());
        });
    }

    /// A bid of this node and one of a stranger, and the journal when the epoch has ended and
    /// its orders are on disk, if they are to be.
    fn ended(ctx: &mut Context<'_>, epoch: u64, is_frozen: bool) -> (Arc<OrderSet>, Vec<Record>) {
        let (mut market, mut journal) = (begun(ctx), BTreeMap::new());
        place(&mut market, ctx);
        let other = strange(ctx, epoch);
        let root = Root { v: VERSION, epoch, root: [1; 32], count: 1 };
        let root = Keys::new([9; 32], [9; 32]).sign(root, ctx.params);
        market.epochs.insert(other);
        market.epochs.on_root(ctx, Key([7; 32]), &encode(root.envelope()));
        ctx.now_ms = opens_at_ms(epoch + 1, ctx.params);
        market.on_tick(ctx, &Empty);
        let handed = drained(ctx, &mut journal).remove(0);
        if is_frozen {
            freeze(&mut market, ctx, &handed);
            drained(ctx, &mut journal);
        }
        ctx.treasury.release_bids_through(u64::MAX);
        (handed.1, journal.into_values().collect())
    }

    #[test]
    fn a_life_that_ends_before_the_orders_are_on_disk_leaves_the_epoch_missed_and_unsigned() {
        with(&[], |ctx, epoch| {
            let (_, records) = ended(ctx, epoch, false);
            let mut next = Market::default();
            next.load(ctx, &records).unwrap();
            next.on_tick(ctx, &Empty);
            assert!(effects(ctx).0.is_empty(), "half a set is not matched");
            assert!(next.closed_epochs.contains(epoch));
            assert_eq!(next.epochs.computed_through, epoch);
            assert_eq!(ctx.treasury.reserved_sat(), 0);
        });
    }

    #[test]
    fn a_life_that_ends_before_the_result_is_followed_by_one_that_matches_the_same_orders() {
        with(&[], |ctx, epoch| {
            let (set, records) = ended(ctx, epoch, true);
            let mut next = Market::default();
            next.load(ctx, &records).unwrap();
            let handed = match ctx.out.poll() {
                Some(Effect::Match { epoch, set, .. }) => (epoch, set),
                other => panic!("{other:?}"),
            };
            assert_eq!((handed.0, handed.1.root()), (epoch, set.root()));
            assert_eq!(next.epochs.computed_through, epoch - 1);
            assert_eq!(next.signed_for(epoch).count(), 1, "what it signed is known");
            assert!(ctx.treasury.reserved_sat() > 0, "and its coins are reserved");
            assert_eq!(next.epochs.operators(epoch, ctx.me()), 1, "roots heard then count");
            let result = computed(ctx, &handed);
            assert!(take(&mut next, ctx, result).is_some());
            next.advance(ctx);
            assert_eq!(ctx.treasury.reserved_sat(), 0);
            assert_eq!(next.epochs.computed_through, epoch);
        });
    }

    #[test]
    fn an_epoch_that_ended_long_before_a_start_is_forgotten() {
        with(&[], |ctx, epoch| {
            let (_, records) = ended(ctx, epoch, true);
            for (later, is_matched) in [(0, false), (1, true), (2, true), (3, false)] {
                ctx.now_ms = opens_at_ms(epoch + later, ctx.params);
                let mut next = Market::default();
                next.load(ctx, &records).unwrap();
                ctx.out.flush();
                let effects: Vec<Effect> = std::iter::from_fn(|| ctx.out.poll()).collect();
                let matches = |effect: &Effect| matches!(effect, Effect::Match { .. });
                assert_eq!(effects.iter().any(matches), is_matched, "{later}");
                if !is_matched {
                    let deleted = |effect: &Effect| match effect {
                        Effect::Persist { records, .. } => records.len(),
                        _ => 0,
                    };
                    let deleted: usize = effects.iter().map(deleted).sum();
                    assert_eq!(deleted, 3, "head, the other's order and the own one: {later}");
                }
                ctx.treasury.release_bids_through(u64::MAX);
            }
        });
    }

    #[test]
    fn orders_of_this_node_are_written_once() {
        with(&[], |ctx, epoch| {
            let (set, records) = ended(ctx, epoch, true);
            let own: Vec<OrderId> = set.ids_of(&ctx.me()).collect();
            let signed = encode(set.get(&own[0]).unwrap().envelope());
            let holds = |record: &&Record| {
                let value = record.value.as_deref().unwrap_or_default();
                value.windows(signed.len()).any(|part| part == signed)
            };
            assert_eq!(records.iter().filter(holds).count(), 1);
        });
    }

    /// A day of epochs.
    const FAR: u64 = 86_400_000;

    /// Epochs to match, and everything that was written since the last call added to a journal.
    fn drained(
        ctx: &mut Context<'_>,
        journal: &mut BTreeMap<(u8, Vec<u8>), Record>,
    ) -> Vec<(u64, Arc<OrderSet>)> {
        ctx.out.flush();
        let mut matches = Vec::new();
        while let Some(effect) = ctx.out.poll() {
            match effect {
                Effect::Freeze { epoch, set, .. } => matches.push((epoch, set)),
                Effect::Persist { records, .. } => {
                    for record in records {
                        journal.insert((record.table, record.key.clone()), record);
                    }
                }
                _ => {}
            }
        }
        journal.retain(|_, record| record.value.is_some());
        matches
    }

    #[test]
    fn a_clock_that_was_ahead_once_silences_nobody_and_signs_nothing_twice() {
        with(&[], |ctx, epoch| {
            let (right_ms, mut journal) = (ctx.now_ms, BTreeMap::new());
            let mut market = begun(ctx);
            place(&mut market, ctx);
            // The clock runs ahead: the open epoch ends, and what stands is signed for one that
            // is far away.
            ctx.now_ms += FAR;
            let ahead = epoch_at(ctx.now_ms, ctx.params);
            ctx.now_ms = signs_at_ms(ctx.me(), ahead, ctx.params);
            market.on_tick(ctx, &Empty);
            let ended = drained(ctx, &mut journal).remove(0);
            freeze(&mut market, ctx, &ended);
            let result = computed(ctx, &ended);
            take(&mut market, ctx, result).unwrap();
            market.advance(ctx);
            place(&mut market, ctx);
            assert_eq!(market.signed_for(ahead).count(), 1);
            assert!(drained(ctx, &mut journal).is_empty());
            let records: Vec<Record> = journal.into_values().collect();

            // It is set back while the node runs, or between two lives.
            ctx.now_ms = right_ms;
            let mut next = Market::default();
            next.load(ctx, &records).unwrap();
            for (mut market, name) in [(market, "runs"), (next, "starts again")] {
                ctx.now_ms = right_ms;
                market.on_tick(ctx, &Empty);
                assert_eq!(market.signed_ahead(ctx.now_ms, ctx.params), Some(ahead), "{name}");
                assert_eq!(ctx.treasury.reserved_sat(), 0, "{name}");
                let before = market.obstacle(ctx.now_ms, ctx.params, true);
                assert_eq!(before, Some(Obstacle::SignedBefore(epoch)), "{name}");
                let signed = market.signed_for(epoch).count();
                place(&mut market, ctx);
                assert_eq!(market.signed_for(epoch).count(), signed, "{name}: not twice");
                ctx.now_ms = opens_at_ms(epoch + 1, ctx.params);
                market.on_tick(ctx, &Empty);
                assert_eq!(market.obstacle(ctx.now_ms, ctx.params, true), None, "{name}");
                ctx.now_ms = signs_at_ms(ctx.me(), epoch + 1, ctx.params);
                market.on_tick(ctx, &Empty);
                assert!(market.signed_for(epoch + 1).count() > 0, "{name}");
                assert!(market.closed_epochs.contains(ahead), "{name}: nor when that day comes");
                ctx.treasury.release_bids_through(u64::MAX);
            }
        });
    }

    #[test]
    fn nothing_expires_by_a_clock_that_the_chain_contradicts() {
        with(&[], |ctx, _| {
            let mut market = begun(ctx);
            place(&mut market, ctx);
            ctx.now_ms += FAR;
            let from_chain_ms = Some(86_400_001);
            let doubt = ClockCheck { from_chain_ms, ..ClockCheck::default() };
            for (clock, is_open) in [(doubt, true), (ClockCheck::default(), false)] {
                market.on_clock(ctx, clock);
                market.on_tick(ctx, &Empty);
                assert_eq!(market.standing().all(|order| order.is_open()), is_open);
            }
        });
    }
}
