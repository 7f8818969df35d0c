//! Custody: the provider's register of certificates, the holder's certificates, and what was
//! heard of other providers' statements.
//!
//! Lock, gift and redemption each consume (cert_id, seq) under the provider's signature.
//! The register grants one of them at a time; what it grants is on disk before it leaves.

mod exchange;
mod gifts;
mod gossip;
mod records;
pub(in crate::engine) mod register;
mod views;

use std::collections::BTreeMap;

pub use views::{CertificateRole, CertificateView, LockView};

use self::gossip::Heard;
use self::records::{HeldRecord, IssuedRecord};
use super::io::{Done, Event};
use super::kernel::{Backoff, Context, Record, Table, answer};
use crate::certificate::objects::EquivProof;
use crate::certificate::{Certificate, Claim, Ledger, VerifiedCertificate};
use crate::ids::{CertId, Key, TradeId};
use crate::limits::HORIZON_SLOTS;
use crate::units::{Slot, TimeMs};

/// Certificates held by one node: at about 2 KiB each, 16 MiB.
pub const HELD_MAX: usize = 8192;
/// Hops of all held certificates beyond which none is taken as a gift: half of the room is
/// left for what this node buys, and at most 2 KiB a hop strangers fill 8 MiB.
pub const GIFTED_HOPS_MAX: usize = HELD_MAX / 2;
/// Certificates issued and not yet forgotten: as many as the ledger has claims.
pub const ISSUED_MAX: usize = crate::certificate::ledger::CLAIMS_MAX;

/// What waits for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Errand {
    /// Gift to the provider.
    Gift(CertId),
    /// Push to the new holder.
    Push(CertId),
}

/// Certificates issued, held and heard of.
#[derive(Debug, Default)]
pub struct Custody {
    /// Who has a claim on which unit in which slot. Asks and rows are claimed by the market.
    pub ledger: Ledger,
    issued: BTreeMap<CertId, IssuedRecord>,
    by_trade: BTreeMap<TradeId, CertId>,
    held: BTreeMap<CertId, HeldRecord>,
    heard: Heard,
    proofs: BTreeMap<Key, EquivProof>,
    errands: BTreeMap<Errand, Backoff>,
    /// Commands that wait for a gift.
    commands: BTreeMap<CertId, u64>,
    /// Slot in which the records were last cleared.
    cleared: Slot,
}

impl Custody {
    /// Takes over what the journal holds and resumes what was under way. Records of other
    /// tables are left alone.
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) {
        for record in records {
            self.load_record(record);
        }
        let slot = ctx.params.slot_at(ctx.now_ms);
        for (id, record) in &self.issued {
            let facts = &record.facts;
            if !record.void && facts.window.end > slot {
                // Capacity never shrinks below claims, so this can only fail on a damaged
                // journal; the certificate stays known, its units are then not re-sold twice
                // because nothing else can claim beyond capacity either.
                let _ = self.ledger.claim(
                    Claim::Certificate(*id),
                    facts.class,
                    &facts.units,
                    facts.window,
                );
            }
        }
        let held: Vec<Certificate> =
            self.held.values().map(|record| record.certificate.clone()).collect();
        for certificate in held {
            self.learn_certificate(ctx, &certificate);
        }
        self.resume(ctx.now_ms);
    }

    fn load_record(&mut self, record: &Record) {
        let Ok(key) = <[u8; 32]>::try_from(record.key.as_slice()) else {
            self.load_capacity(record);
            return;
        };
        match record.table {
            table if table == Table::Issued.number() => {
                if let Ok(issued) = record.read::<IssuedRecord>() {
                    self.by_trade.insert(issued.trade, CertId(key));
                    self.issued.insert(CertId(key), issued);
                }
            }
            table if table == Table::Held.number() => {
                if let Ok(held) = record.read::<HeldRecord>() {
                    self.held.insert(CertId(key), held);
                }
            }
            table if table == Table::Proof.number() => {
                if let Ok(proof) = record.read::<EquivProof>() {
                    self.proofs.insert(Key(key), proof);
                }
            }
            _ => {}
        }
    }

    fn load_capacity(&mut self, record: &Record) {
        if record.table == Table::Capacity.number()
            && let Ok(class) = <[u8; 2]>::try_from(record.key.as_slice())
            && let Ok(units) = record.read::<u32>()
        {
            // Before any claim is loaded nothing can be below claims.
            let _ = self.ledger.set_capacity(u16::from_be_bytes(class), units);
        }
    }

    fn resume(&mut self, now_ms: TimeMs) {
        let issued = self.issued.iter().filter(|(_, record)| record.push.is_some());
        for (id, _) in issued {
            self.errands.insert(Errand::Push(*id), Backoff::new(now_ms));
        }
        for (id, record) in &self.held {
            if record.push.is_some() {
                self.errands.insert(Errand::Push(*id), Backoff::new(now_ms));
            }
            if record.gift.is_some() {
                self.errands.insert(Errand::Gift(*id), Backoff::new(now_ms));
            }
        }
    }

    /// Sets how many units of each class this host sells. All or nothing.
    ///
    /// # Errors
    /// `capacity.unknown_class`, `capacity.too_large` or `capacity.below_claims`.
    pub fn set_capacity(
        &mut self,
        ctx: &mut Context<'_>,
        capacity: &[(u16, u32)],
    ) -> Result<(), &'static str> {
        let mut changed = self.ledger.clone();
        for (class, units) in capacity {
            ctx.params.class(*class).ok_or("capacity.unknown_class")?;
            changed.set_capacity(*class, *units).map_err(|error| error.code())?;
        }
        self.ledger = changed;
        for (class, units) in capacity {
            ctx.out.put(Table::Capacity, &class.to_be_bytes(), units);
        }
        Ok(())
    }

    /// As [`Custody::set_capacity`], answering a command.
    pub fn set_capacity_command(
        &mut self,
        ctx: &mut Context<'_>,
        command: u64,
        capacity: &[(u16, u32)],
    ) {
        let result = self.set_capacity(ctx, capacity);
        answer(ctx, Some(command), result.map(|()| Done::Ok));
    }

    /// A certificate that this node holds, held or issued.
    #[must_use]
    pub fn certificate(&self, id: &CertId) -> Option<&Certificate> {
        let held = self.held.get(id).map(|record| &record.certificate);
        held.or_else(|| self.issued.get(id).map(|record| &record.certificate))
    }

    /// What the held copy of a certificate says; former holdings included.
    #[must_use]
    pub fn held(&self, id: &CertId) -> Option<&VerifiedCertificate> {
        self.held.get(id).map(|record| &record.facts)
    }

    /// What the register says of a certificate issued here.
    #[must_use]
    pub fn issued(&self, id: &CertId) -> Option<&VerifiedCertificate> {
        self.issued.get(id).filter(|record| !record.void).map(|record| &record.facts)
    }

    /// Whether a provider was proven to have made contradicting statements.
    #[must_use]
    pub fn is_equivocator(&self, provider: Key) -> bool {
        self.proofs.contains_key(&provider)
    }

    /// Proofs of equivocation by provider.
    pub fn proofs(&self) -> impl Iterator<Item = (&Key, &EquivProof)> {
        self.proofs.iter()
    }

    /// Repeats what peers did not answer, gives units of unsold certificates back, forgets
    /// what is long past.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        self.void_unsold(ctx);
        self.run_errands(ctx);
        let slot = ctx.params.slot_at(ctx.now_ms);
        if slot > self.cleared {
            self.cleared = slot;
            self.ledger.expire(slot);
            self.forget(ctx, slot);
        }
    }

    /// When [`Custody::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, params: &crate::params::Params) -> Option<TimeMs> {
        let errands = self.errands.values().map(|errand| errand.due_ms());
        let unsold = self.issued.values().filter(|record| register::is_unsold(record));
        let unsold = unsold.map(|record| register::sold_by_ms(record, params));
        errands.chain(unsold).min()
    }

    fn run_errands(&mut self, ctx: &mut Context<'_>) {
        let due = self.errands.iter().filter(|(_, errand)| errand.due_ms() <= ctx.now_ms);
        let due: Vec<Errand> = due.map(|(errand, _)| *errand).collect();
        for errand in due {
            match errand {
                Errand::Gift(cert) => self.send_gift(ctx, cert),
                Errand::Push(cert) => self.send_push(ctx, cert),
            }
        }
    }

    /// Deletes records whose windows ended a horizon ago: no order can name them any more.
    fn forget(&mut self, ctx: &mut Context<'_>, slot: Slot) {
        let past =
            |facts: &VerifiedCertificate| facts.window.end.saturating_add(HORIZON_SLOTS) < slot;
        self.issued.retain(|id, record| {
            let keep = !past(&record.facts);
            if !keep {
                self.by_trade.remove(&record.trade);
                ctx.out.delete(Table::Issued, &id.0);
            }
            keep
        });
        self.held.retain(|id, record| {
            let keep = !past(&record.facts);
            if !keep {
                ctx.out.delete(Table::Held, &id.0);
            }
            keep
        });
    }

    fn save_issued(&self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.issued.get(&id) {
            ctx.out.put(Table::Issued, &id.0, record);
        }
    }

    fn save_held(&self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.held.get(&id) {
            ctx.out.put(Table::Held, &id.0, record);
        }
    }
}

fn notify(ctx: &mut Context<'_>, cert: CertId, what: &'static str) {
    ctx.out.notify(Event::Certificate { cert, what });
}
