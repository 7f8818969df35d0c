//! Standing orders that are over: the newest are kept for their owner to see.

use super::{Market, Standing};
use crate::engine::kernel::{Context, Table};
use crate::ids::StandingId;
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
}
