//! Standing orders that are over: the newest are kept for their owner to see.

use super::records::StandingV1;
use super::{Market, Standing, StandingState};
use crate::engine::kernel::{Context, Table};
use crate::epoch::epoch_at;
use crate::ids::{StandingId, TradeId};
use crate::limits::STANDING_FINISHED_KEPT;

impl Market {
    /// Forgets the finished standing orders that were placed first, in memory and store. One
    /// of which a trade still settles is not finished.
    pub(super) fn forget_finished(&mut self, ctx: &mut Context<'_>) {
        let is_over = |order: &&Standing| !order.is_open() && order.matched.is_empty();
        let over = self.standing.values().filter(is_over);
        let mut over: Vec<(u64, StandingId)> =
            over.map(|order| (order.placed_at_ms, order.id)).collect();
        let surplus = over.len().saturating_sub(STANDING_FINISHED_KEPT);
        if surplus == 0 {
            return;
        }
        over.sort_unstable();
        for (_, id) in over.into_iter().take(surplus) {
            self.standing.remove(&id);
            ctx.out.delete(Table::Standing, &id.0);
        }
    }

    /// The standing order of a trade that has not ended.
    #[must_use]
    pub fn order_of(&self, trade: &TradeId) -> Option<StandingId> {
        let mut all = self.standing.values();
        all.find(|order| order.matched.contains_key(trade)).map(|order| order.id)
    }

    /// Whether a standing order may still be matched, or what was matched of it be settled.
    #[must_use]
    pub fn may_bring(&self, id: &StandingId) -> bool {
        self.standing
            .get(id)
            .is_some_and(|order| order.is_open() || !order.matched.is_empty() || self.is_firm(*id))
    }

    /// Ends the standing orders whose time or window has passed.
    pub(super) fn expire(&mut self, ctx: &mut Context<'_>) {
        if self.clock.may_be_ahead() {
            return;
        }
        self.expire_resales(ctx);
        let first = ctx.params.first_slot(epoch_at(ctx.now_ms, ctx.params));
        for standing in self.standing.values_mut().filter(|standing| standing.is_open()) {
            if standing.is_past(ctx.now_ms, first) {
                standing.state = StandingState::Expired;
                ctx.out.store(&standing.id.0, &StandingV1::from(&*standing));
            }
        }
    }

    /// Ends the orders of one epoch that have had theirs.
    pub(super) fn close_one_shots(&mut self, ctx: &mut Context<'_>, through: u64) {
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
}
