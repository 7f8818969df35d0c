//! One FUND for several purchases.

use super::super::driver::Turn;
use super::super::{Open, TradePurpose, TradeReply, Trades};
use crate::engine::io::{Effect, Funding};
use crate::engine::kernel::Answer;
use crate::ids::{FundingId, TradeId};
use crate::limits::FUND_TERMS_MAX;
use crate::settlement::buyer::{Buyer, FundPlan, Stake, State};

impl Trades {
    /// A purchase can be funded.
    pub(super) fn let_wait(&mut self, turn: &Turn<'_, '_>, trade: TradeId) {
        let Some(own) = self.buyers.get(&trade).and_then(|open| stake(turn, open)) else { return };
        let until_ms = own.waits_until_ms(turn.ctx.now_ms, turn.ctx.params);
        self.batches.purchases.entry(trade).or_insert(until_ms);
    }

    /// Funds a purchase that waits, together with those that wait too, once none is to come.
    pub(super) fn fund_with_others(&mut self, turn: &mut Turn<'_, '_>, trade: TradeId) {
        // It may have been taken along by another.
        let Some(until_ms) = self.batches.purchases.get(&trade).copied() else { return };
        let waits =
            |open: &Open<Buyer>| turn.ctx.now_ms < until_ms && self.is_companion_coming(turn, open);
        if !turn.ctx.chain.up || self.buyers.get(&trade).is_some_and(waits) {
            return;
        }
        let (mut stakes, mut members) = (Vec::new(), Vec::new());
        for member in [trade].into_iter().chain(self.companions(&trade)) {
            if members.len() >= FUND_TERMS_MAX {
                break;
            }
            let Some(stake) = self.stake_now(turn, member) else { continue };
            let fits = |known: &Stake| known.fits(&stake, turn.ctx.params);
            if stakes.iter().all(fits) {
                stakes.push(stake);
                members.push(member);
            }
        }
        let plan = FundPlan::of(stakes);
        for member in members {
            self.batches.purchases.remove(&member);
            self.buyers.touch(turn, member, |open, turn| open.enter_plan(turn, plan.clone()));
        }
    }

    /// What a purchase that waits puts into a plan: what spoke for it may not do so any more.
    fn stake_now(&mut self, turn: &mut Turn<'_, '_>, trade: TradeId) -> Option<Stake> {
        let is_good = self.buyers.touch(turn, trade, |open, turn| open.is_fundable(turn));
        let open = self.buyers.get(&trade).filter(|_| is_good == Some(true));
        let stake = open.and_then(|open| stake(turn, open));
        if stake.is_none() {
            self.batches.purchases.remove(&trade);
        }
        stake
    }

    /// Whether another purchase is about to be fundable that may share a funding with this one.
    /// One that was refused something is not waited for.
    fn is_companion_coming(&self, turn: &Turn<'_, '_>, open: &Open<Buyer>) -> bool {
        if self.batches.alone.contains(&open.machine.trade) {
            return false;
        }
        let Some(parties) = open.machine.shares_with() else { return false };
        self.buyers.iter().any(|other| {
            other.machine.shares_with() == Some(parties)
                && other.machine.is_coming(turn.now())
                && other.refusal.is_none()
        })
    }

    /// Other purchases that could be funded and wait.
    fn companions(&self, trade: &TradeId) -> Vec<TradeId> {
        if self.batches.alone.contains(trade) {
            return Vec::new();
        }
        let waiting = self.batches.purchases.keys().filter(|other| *other != trade);
        waiting.filter(|other| !self.batches.alone.contains(other)).copied().collect()
    }

    /// The wallet's answer about a funding. One that several share fits all of them, or each has
    /// one of its own: nobody has seen it yet.
    pub(in crate::engine::trades) fn on_funded_by_wallet(
        &mut self,
        turn: &mut Turn<'_, '_>,
        funding: FundingId,
        result: &Result<Funding, String>,
    ) {
        let purchases = Self::purchases_of(turn, &funding);
        let does_not_fit = |trade: &TradeId| {
            let open = self.buyers.get(trade)?;
            let State::Funding { plan, .. } = &open.machine.state else { return None };
            let fits = || result.as_ref().is_ok_and(|built| open.takes(turn, built));
            let is_whole = plan.terms.len() == purchases.len();
            (plan.is_shared() && !(is_whole && fits())).then_some(())
        };
        if purchases.iter().any(|trade| does_not_fit(trade).is_some()) {
            turn.shared.unfit(funding);
            return;
        }
        for trade in purchases {
            self.buyers.touch(turn, trade, |open, turn| open.on_funded(turn, result.clone()));
        }
    }

    /// A shared funding comes to nothing: each purchase that would have been paid by it goes on
    /// with one of its own.
    pub(super) fn part(&mut self, turn: &mut Turn<'_, '_>, funding: FundingId) {
        turn.ctx.out.push(Effect::ReleaseCoins { funding });
        for trade in Self::purchases_of(turn, &funding) {
            self.batches.alone.insert(trade);
            self.buyers.touch(turn, trade, |open, turn| {
                if open.machine.leave_plan() {
                    open.moved(turn);
                }
            });
        }
    }

    /// Whom an answer to a purchase concerns: an acknowledgement counts for all that share the
    /// funding.
    pub(in crate::engine::trades) fn concerned_by(
        &self,
        turn: &Turn<'_, '_>,
        purpose: TradePurpose,
        trade: TradeId,
        answer: &Answer<TradeReply>,
    ) -> Vec<TradeId> {
        let is_ack = matches!(answer, Answer::Said(TradeReply::FundAck { .. }));
        let plan = self.buyers.get(&trade).and_then(|open| open.machine.state.plan());
        match plan {
            Some(plan) if is_ack && matches!(purpose, TradePurpose::Fund(_)) => {
                Self::purchases_of(turn, &plan.id())
            }
            _ => vec![trade],
        }
    }
}

fn stake(turn: &Turn<'_, '_>, open: &Open<Buyer>) -> Option<Stake> {
    open.machine.stake(turn.now(), open.rail.as_ref()?)
}

impl Open<Buyer> {
    fn enter_plan(&mut self, turn: &mut Turn<'_, '_>, plan: FundPlan) {
        let State::Locked { signed, lock, .. } = &self.machine.state else { return };
        let (signed, lock) = (signed.clone(), lock.clone());
        self.enter(turn, State::Funding { signed, lock, plan });
    }
}
