//! The holder's side of certificates: what this node holds or held, gifts on their way,
//! what strangers push, and what it fetches.

mod exchange;
mod gifts;
mod messages;
mod records;
mod views;

use std::collections::BTreeMap;

pub use messages::{HoldingsCommand, HoldingsPurpose};

pub(in crate::engine) use self::records::HeldRecord;
use super::certificates::notify;
use super::kernel::{Cause, Context, Pace, Record, Retry, Table, Unreadable, records as read};
use super::witness::Witness;
use crate::ids::{CertId, LeaseId};
use crate::limits::HORIZON_SLOTS;
use crate::units::{Slot, TimeMs};

/// Certificates held by one node: at about 2 KiB each, 16 MiB.
pub const HELD_MAX: usize = 8192;
/// Hops of all held certificates beyond which none is taken as a gift: half of the room is
/// left for what this node buys, and at most 2 KiB a hop strangers fill 8 MiB.
pub const GIFTED_HOPS_MAX: usize = HELD_MAX / 2;

/// What waits for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Errand {
    Gift(CertId),
    Push(CertId),
}

/// Certificates that this node holds, or held.
#[derive(Debug, Default)]
pub struct Holdings {
    held: BTreeMap<CertId, HeldRecord>,
    errands: BTreeMap<Errand, Retry>,
    /// Commands that wait for a gift.
    commands: BTreeMap<CertId, u64>,
    /// Slot in which the records were last cleared.
    cleared: Slot,
}

impl Holdings {
    /// Restores certificates from the journal and resumes what was under way. Records of
    /// other tables are left alone.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn load(
        &mut self,
        ctx: &mut Context<'_>,
        witness: &mut Witness,
        records: &[Record],
    ) -> Result<(), Unreadable> {
        for found in read::<HeldRecord>(records) {
            let (record, held) = found?;
            let id = CertId(record.key_array()?);
            if held.facts.cert_id != id {
                return Err(record.unreadable(Cause::Content));
            }
            witness.learn_certificate(ctx, &held.certificate);
            self.held.insert(id, held);
        }
        for (id, record) in &self.held {
            if record.push.is_some() {
                self.errands.insert(Errand::Push(*id), Retry::new(Pace::PEER, ctx.now_ms));
            }
            if record.gift.is_some() {
                self.errands.insert(Errand::Gift(*id), Retry::new(Pace::PEER, ctx.now_ms));
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
        let due = self.errands.iter().filter(|(_, errand)| errand.due_ms() <= ctx.now_ms);
        let due: Vec<Errand> = due.map(|(errand, _)| *errand).collect();
        for errand in due {
            match errand {
                Errand::Gift(cert) => self.send_gift(ctx, cert),
                Errand::Push(cert) => self.send_push(ctx, cert),
            }
        }
        let slot = ctx.params.slot_at(ctx.now_ms);
        if slot > self.cleared {
            self.cleared = slot;
            self.forget(ctx, slot);
        }
    }

    /// When [`Holdings::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<TimeMs> {
        self.errands.values().map(|errand| errand.due_ms()).min()
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
