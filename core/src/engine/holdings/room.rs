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
use crate::engine::kernel::{Context, Table};
use crate::ids::{CertId, Key};
use crate::units::Slot;

/// Hops of all certificates that were brought unasked: at most 2 KiB each, 8 MiB. It costs a
/// stranger 64 signatures and a message of 64 KiB to fill a sixty-fourth of it.
pub const BROUGHT_HOPS_MAX: usize = HELD_MAX / 2;
/// Hops of those of one provider.
pub const BROUGHT_HOPS_PER_PROVIDER: usize = BROUGHT_HOPS_MAX / 4;

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
        let mut of_provider: BTreeMap<Key, usize> = BTreeMap::new();
        for record in self.brought().map(|(_, record)| record) {
            *of_provider.entry(record.facts.provider).or_default() += record.certificate.hops.len();
        }
        let own = of_provider.get(&provider).copied().unwrap_or(0).saturating_add(hops);
        if own > BROUGHT_HOPS_PER_PROVIDER {
            return Err("acquire.full");
        }
        let mut total: usize = of_provider.values().sum();
        // A stranger takes the place of one that has more, never that of one with less.
        let least = if is_trader(&provider) { 0 } else { own };
        while total.saturating_add(hops) > BROUGHT_HOPS_MAX {
            let of = |record: &HeldRecord| of_provider.get(&record.facts.provider).copied();
            let rank = |record: &HeldRecord| -> (bool, usize) {
                (record.facts.window.end <= slot, of(record).unwrap_or(0))
            };
            let goes = |record: &HeldRecord| {
                let (is_past, size) = rank(record);
                is_past || (size > least && !is_trader(&record.facts.provider))
            };
            let free = self.brought().filter(|(_, record)| record.is_free() && goes(record));
            let victim = free.max_by_key(|(id, record)| (rank(record), **id)).map(|(id, _)| *id);
            let gone = victim.and_then(|id| self.evict(ctx, id)).ok_or("acquire.full")?;
            let freed = gone.certificate.hops.len();
            total = total.saturating_sub(freed);
            if let Some(size) = of_provider.get_mut(&gone.facts.provider) {
                *size = size.saturating_sub(freed);
            }
        }
        Ok(())
    }

    pub(super) fn brought(&self) -> impl Iterator<Item = (&CertId, &HeldRecord)> {
        self.held.iter().filter(|(_, record)| !record.is_wanted)
    }

    fn evict(&mut self, ctx: &mut Context<'_>, id: CertId) -> Option<HeldRecord> {
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
        self.redeemed.is_none() && self.gift.is_none() && self.push.is_none()
    }
}
