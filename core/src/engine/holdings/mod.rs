//! The holder's side of certificates: what this node holds or held, gifts, splits and merges on
//! their way, what strangers push, and what it fetches.

mod checkpoints;
mod errands;
mod exchange;
mod gifts;
mod messages;
mod providers;
mod records;
mod recuts;
mod room;
mod stock;
mod views;

use std::collections::BTreeMap;

pub use errands::Kind as ErrandKind;
pub use messages::{HoldingsCommand, HoldingsPurpose};
pub use room::{BROUGHT_HOPS_MAX, BROUGHT_HOPS_PER_PROVIDER};
pub use stock::Part;

use self::providers::Providers;
pub(in crate::engine) use self::records::HeldRecord;
use super::certificates::notify;
use super::courier::Courier;
use super::kernel::{Cause, Context, Pace, Record, Retry, Table, Unreadable, records as read};
use super::witness::Witness;
use crate::ids::{CertId, Key, LeaseId};
use crate::limits::HORIZON_SLOTS;
use crate::units::{Slot, TimeMs};

/// Certificates held by one node: at about 2 KiB each, 16 MiB.
pub const HELD_MAX: usize = 8192;

/// Waits between two tries of what the provider is to activate, which end with the window.
const ERRAND_PACE: Pace = Pace::between(1_000, 600_000);

/// Certificates that this node holds, or held.
#[derive(Debug, Default)]
pub struct Holdings {
    held: BTreeMap<CertId, HeldRecord>,
    /// Gifts, splits and merges that wait for their provider.
    errands: BTreeMap<CertId, Retry>,
    /// Given certificates that have still to be pushed.
    pushes: Courier,
    providers: Providers,
    /// Commands that wait for them.
    commands: BTreeMap<CertId, u64>,
    /// Slot in which the records were last cleared.
    cleared: Slot,
}

impl Holdings {
    /// Restores certificates from the journal and resumes what was under way. Records of
    /// other tables are left alone. `is_trader` tells who has an order.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn load(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        is_trader: &dyn Fn(&Key) -> bool,
        records: &[Record],
    ) -> Result<(), Unreadable> {
        for found in read::<HeldRecord>(records) {
            let (record, mut held) = found?;
            let id = CertId(record.key_array()?);
            if held.facts.cert_id != id {
                return Err(record.unreadable(Cause::Content));
            }
            held.facts.recall = held.certificate.recall();
            if held.matters() || is_trader(&held.facts.provider) {
                witness.learn_certificate(ctx, &held.certificate);
            }
            self.held.insert(id, held);
        }
        for (id, record) in &self.held {
            if let Some(to) = record.push {
                let until_ms = record.facts.window.ends_at_ms(ctx.params.slot_s);
                self.pushes.take(*id, to, ctx.now_ms, until_ms);
            }
            if record.pending.as_ref().is_some_and(|pending| pending.lead(*id) == *id) {
                self.errands.insert(*id, Retry::new(ERRAND_PACE, ctx.now_ms));
            }
        }
        Ok(())
    }

    /// Notes that a held certificate was redeemed.
    pub fn mark_redeemed(&mut self, ctx: &mut Context<'_>, cert: CertId, lease: LeaseId) {
        if let Some(record) = self.held.get_mut(&cert) {
            record.redeemed = Some(lease);
            self.save(ctx, cert);
            notify(ctx, cert, "redeemed");
        }
    }

    /// Repeats what peers did not answer, forgets what is long past.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        self.ask_at_start(ctx);
        let due = self.errands.iter().filter(|(_, errand)| errand.is_due(ctx.now_ms));
        let due: Vec<CertId> = due.map(|(cert, _)| *cert).collect();
        due.into_iter().for_each(|cert| self.send_errand(ctx, cert));
        self.bring_due(ctx);
        let slot = ctx.params.slot_at(ctx.past_ms());
        if std::mem::replace(&mut self.cleared, slot) != slot {
            self.forget(ctx, slot);
        }
    }

    /// When [`Holdings::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        let errands = self.errands.values().map(|errand| errand.due_ms());
        errands.chain(self.pushes.next_deadline()).min()
    }

    /// Deletes records whose windows ended a horizon ago: no order can name them any more.
    fn forget(&mut self, ctx: &mut Context<'_>, slot: Slot) {
        self.held.retain(|id, record| {
            let keep = record.facts.window.end.saturating_add(HORIZON_SLOTS) >= slot;
            if !keep {
                ctx.out.delete(Table::Held, &id.0);
            }
            keep
        });
    }

    fn save(&self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.held.get(&id) {
            ctx.out.store(&id.0, record);
        }
    }
}
