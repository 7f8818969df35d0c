//! Times in which this host will not deliver: announced before, told to whom it concerns, and
//! counted on receipts. Nothing is offered for their slots any more.

use super::records::{LeaseRecord, MaintenanceV1};
use super::{Context, LeaseEffect, Leases};
use crate::code;
use crate::engine::io::{Done, Effect};
use crate::engine::kernel::Table;
use crate::lease::Maintenance;
use crate::lease::maintenance::{MaintenanceError, announced_ms};
use crate::lease::receipts::Lost;
use crate::limits::{HORIZON_SLOTS, MAINTENANCES_MAX};
use crate::params::Params;
use crate::units::{TimeMs, Window};

impl Leases {
    /// Announces a maintenance: from now on it stands.
    ///
    /// # Errors
    /// `maintenance.*`
    pub(super) fn announce(
        &mut self,
        ctx: &mut Context<'_>,
        new: Maintenance,
    ) -> Result<Done, &'static str> {
        let open = self.maintenance.values().filter(|known| known.to_ms > ctx.now_ms);
        new.check(open, ctx.now_ms, ctx.params.slot_s).map_err(MaintenanceError::code)?;
        let number = self.maintenance.keys().last().map_or(1, |last| last.saturating_add(1));
        ctx.out.store(&number.to_be_bytes(), &MaintenanceV1::from(&new));
        self.maintenance.insert(number, new);
        self.forget_maintenances(ctx);
        self.tell_host(ctx);
        Ok(Done::Announced { number })
    }

    /// Calls a maintenance off, or ends one that has begun. What of it has passed was announced all
    /// the same.
    ///
    /// # Errors
    /// `maintenance.not_found`
    pub(super) fn call_off(
        &mut self,
        ctx: &mut Context<'_>,
        number: u32,
    ) -> Result<Done, &'static str> {
        let known = self.maintenance.get_mut(&number).filter(|known| known.to_ms > ctx.now_ms);
        let known = known.ok_or(code!("maintenance.not_found"))?;
        if known.from_ms < ctx.now_ms {
            known.to_ms = ctx.now_ms;
            ctx.out.store(&number.to_be_bytes(), &MaintenanceV1::from(&*known));
        } else {
            self.maintenance.remove(&number);
            ctx.out.delete(Table::Maintenance, &number.to_be_bytes());
        }
        self.tell_host(ctx);
        Ok(Done::Ok)
    }

    /// Tells the executor when leases rest.
    pub(super) fn tell_host(&self, ctx: &mut Context<'_>) {
        let all = self.maintenance.values().cloned().collect();
        ctx.out.push(Effect::Lease(LeaseEffect::Maintain { all }));
    }

    /// Forgets those that are over for a horizon, as leases are, or that are too many.
    pub(super) fn forget_maintenances(&mut self, ctx: &mut Context<'_>) {
        let past_ms = ctx.past_ms();
        let kept_ms = u64::from(HORIZON_SLOTS) * u64::from(ctx.params.slot_s) * 1_000;
        let over = self.maintenance.iter().filter(|(_, known)| known.to_ms <= ctx.now_ms);
        let over: Vec<(u32, TimeMs)> = over.map(|(number, known)| (*number, known.to_ms)).collect();
        let surplus = over.len().saturating_sub(MAINTENANCES_MAX);
        for (place, (number, to_ms)) in over.into_iter().enumerate() {
            if place < surplus || to_ms.saturating_add(kept_ms) < past_ms {
                self.maintenance.remove(&number);
                ctx.out.delete(Table::Maintenance, &number.to_be_bytes());
            }
        }
    }

    /// Those that are not over, by number.
    pub fn maintenances(&self, now_ms: TimeMs) -> impl Iterator<Item = (u32, &Maintenance)> {
        let all = self.maintenance.iter().map(|(number, known)| (*number, known));
        all.filter(move |(_, known)| known.to_ms > now_ms)
    }

    /// Slots in which this host will not deliver, or not all of the time.
    #[must_use]
    pub fn closed_slots(&self, params: &Params) -> Vec<Window> {
        self.maintenance.values().filter_map(|known| known.slots(params.slot_s)).collect()
    }

    /// Those that concern a lease.
    pub(super) fn of_lease(&self, record: &LeaseRecord) -> Vec<Maintenance> {
        let window_ms = (record.starts_at_ms, record.ends_at_ms);
        let concerns = |known: &&Maintenance| known.overlap_ms(window_ms) > 0;
        self.maintenance.values().filter(concerns).cloned().collect()
    }

    /// What a lease that goes on has lost until then.
    pub(super) fn lost(&self, record: &LeaseRecord, until_ms: TimeMs) -> Lost {
        let open_ms = record
            .phase
            .lost_since_ms()
            .map_or(0, |since_ms| announced_ms(self.maintenance.values(), (since_ms, until_ms)));
        Lost {
            ms: record.phase.interrupted_ms(until_ms),
            announced_ms: record.announced_ms.saturating_add(open_ms),
        }
    }
}
