//! Room for certificates that were brought here unasked.
//!
//! Anyone can make up a provider and give its certificates away. So what is brought has a room
//! of its own beside what this node buys; in it no provider takes more than a quarter, and when
//! it is full, those whose window is over go first, then those of providers without an order in
//! recent epochs, of the one that has most. Whoever brought an evicted certificate in earnest is
//! asked for it again with `cert fetch`.

use std::collections::BTreeMap;

use super::records::HeldRecord;
use super::{HELD_MAX, Holdings};
use crate::code;
use crate::engine::kernel::{Context, Table};
use crate::ids::{CertId, Key};
use crate::units::Slot;

/// Hops of all certificates that were brought unasked: at most 2 KiB each, 8 MiB. It costs a
/// stranger 64 signatures and a message of 64 KiB to fill a sixty-fourth of it.
pub const BROUGHT_HOPS_MAX: usize = HELD_MAX / 2;
/// Hops of those of one provider.
pub const BROUGHT_HOPS_PER_PROVIDER: usize = BROUGHT_HOPS_MAX / 4;

/// What one provider takes of the room.
struct Share {
    hops: usize,
    /// Whether it has an order in recent epochs.
    trades: bool,
}

impl Holdings {
    /// Makes room for a certificate of a provider, if there can be.
    pub(super) fn make_room(
        &mut self,
        ctx: &mut Context<'_>,
        provider: Key,
        hops: usize,
        is_trader: &dyn Fn(&Key) -> bool,
    ) -> Result<(), &'static str> {
        let slot = ctx.params.slot_at(ctx.now_ms);
        let mut shares: BTreeMap<Key, Share> = BTreeMap::new();
        for record in self.brought().map(|(_, record)| record) {
            let key = record.facts.provider;
            let new = || Share { hops: 0, trades: is_trader(&key) };
            shares.entry(key).or_insert_with(new).hops += record.certificate.hops.len();
        }
        let own = shares.get(&provider).map_or(0, |share| share.hops).saturating_add(hops);
        if own > BROUGHT_HOPS_PER_PROVIDER {
            return Err(code!("acquire.full"));
        }
        let mut total: usize = shares.values().map(|share| share.hops).sum();
        // A stranger takes the place of one that has more, never that of one with less.
        let least = if is_trader(&provider) { 0 } else { own };
        while total.saturating_add(hops) > BROUGHT_HOPS_MAX {
            let rank = |record: &HeldRecord| -> Option<(bool, usize)> {
                let share = shares.get(&record.facts.provider)?;
                let is_past = record.facts.window.end <= slot;
                let goes = is_past || (share.hops > least && !share.trades);
                (goes && record.is_free()).then_some((is_past, share.hops))
            };
            let ranked = self.brought().filter_map(|(id, record)| Some((rank(record)?, *id)));
            let victim = ranked.max().map(|(_, id)| id);
            let gone = victim.and_then(|id| self.evict(ctx, id)).ok_or(code!("acquire.full"))?;
            let freed = gone.certificate.hops.len();
            total = total.saturating_sub(freed);
            if let Some(share) = shares.get_mut(&gone.facts.provider) {
                share.hops = share.hops.saturating_sub(freed);
            }
        }
        Ok(())
    }

    pub(super) fn brought(&self) -> impl Iterator<Item = (&CertId, &HeldRecord)> {
        self.held.iter().filter(|(_, record)| !record.is_wanted)
    }

    pub(super) fn evict(&mut self, ctx: &mut Context<'_>, id: CertId) -> Option<HeldRecord> {
        ctx.out.delete(Table::Held, &id.0);
        self.held.remove(&id)
    }

    /// Whether a window lies further ahead than any order can name: such a certificate would
    /// take its place for years.
    pub(super) fn is_beyond_horizon(ctx: &Context<'_>, end: Slot) -> bool {
        let next = crate::epoch::epoch_at(ctx.now_ms, ctx.params).saturating_add(1);
        end > ctx.params.horizon_end(next)
    }
}

impl HeldRecord {
    /// Whether nothing is under way with it.
    fn is_free(&self) -> bool {
        self.redeemed.is_none() && self.pending.is_none() && self.push.is_none()
    }

    /// Whether this node bought it, asked for it or uses it.
    pub(super) fn matters(&self) -> bool {
        self.is_wanted || !self.is_free()
    }
}
