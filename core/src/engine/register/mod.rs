//! The provider's book: capacity, the ledger of units, and every certificate issued here.
//!
//! Lock, gift, split, merge and redemption each consume (cert_id, seq) under the provider's
//! signature.
//! The register grants one of them at a time, and what it grants is on disk before it
//! leaves. It knows nothing of payment: its callers check that before they ask.

mod behind;
mod checkpoints;
mod desk;
mod gifts;
mod horizon;
mod inventory;
mod messages;
mod pace;
mod parts;
mod records;
mod redeem;
mod sales;
mod share;
mod views;

use std::collections::{BTreeMap, BTreeSet};

pub use behind::{BehindV1, RestoredV1};
pub use desk::Desk;
pub use horizon::HorizonV1;
pub use messages::{
    HELD_PER_REPLY, RegisterCommand, RegisterPurpose, RegisterReply, RegisterRequest,
};
pub(in crate::engine) use parts::{merge_code, split_code};
pub use redeem::publish_grant;
pub use share::Room;

use self::behind::Mirror;
use self::pace::Pace;
use self::records::Head;
pub(in crate::engine) use self::records::{CapacityRecord, IssuedRecord};
use super::courier::{self, Courier};
use super::io::Done;
use super::kernel::{Answer, Cause, Context, Record, Table, Unreadable, answer, records as read};
use super::messages::SettleReply;
use crate::certificate::hops::Step;
use crate::certificate::objects::{Activation, Hop, Issue};
use crate::certificate::{Certificate, Claim, Ledger, VerifiedCertificate};
use crate::code;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::limits::{CERTIFICATE_HOPS_MAX, SETTLE_MAX_BYTES};
use crate::params::Params;
use crate::settlement::objects::Terms;
use crate::units::{Slot, TimeMs, Window};
use crate::wire::{self, Envelope, Verified};

/// Certificates issued and not yet forgotten: as many as the ledger has claims.
pub const ISSUED_MAX: usize = crate::certificate::ledger::CLAIMS_MAX;
/// A sale with 8 funders and 16 unit ranges, and room for the message around it.
const HOP_MAX_BYTES: usize = 4 << 10;

/// Certificates issued here, and who has a claim on which unit in which slot.
#[derive(Debug, Default)]
pub struct Register {
    /// Asks and rows are claimed by the market.
    pub ledger: Ledger,
    issued: BTreeMap<CertId, IssuedRecord>,
    by_trade: BTreeMap<TradeId, CertId>,
    /// Live locks by their terms.
    locked: BTreeMap<TermsHash, CertId>,
    /// The certificate that each sale moved.
    sold: BTreeMap<TermsHash, CertId>,
    /// Certificates that came of splits and merges, by each Issue to which they go back.
    parts: BTreeMap<CertId, usize>,
    /// What each key holds.
    by_holder: BTreeSet<(Key, CertId)>,
    /// Certificates that have still to be pushed.
    pushes: Courier,
    mirror: Mirror,
    horizon: HorizonV1,
    pace: Pace,
    /// What classes share whose units nobody has numbered.
    room: Option<Room>,
    /// Classes of which nothing new is offered.
    withheld: BTreeSet<u16>,
    /// Slots of which nothing new is offered.
    closed: Vec<Window>,
    /// Slot in which the records were last cleared.
    cleared: Slot,
}

impl Register {
    /// Restores capacity and certificates from the journal. Records of other tables are
    /// left alone.
    ///
    /// # Errors
    /// [`Unreadable`]: a unit that was forgotten would be sold twice.
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) -> Result<(), Unreadable> {
        for found in read::<CapacityRecord>(records) {
            let (record, capacity) = found?;
            let class = u16::from_be_bytes(record.key_array()?);
            let set = self.ledger.set_capacity(class, capacity.units);
            set.map_err(|_| record.unreadable(Cause::Content))?;
        }
        for found in read::<IssuedRecord>(records) {
            let (record, mut issued) = found?;
            let id = CertId(record.key_array()?);
            if issued.facts.cert_id != id {
                return Err(record.unreadable(Cause::Content));
            }
            issued.facts.recall = issued.certificate.recall();
            if let Some(trade) = issued.trade {
                self.by_trade.insert(trade, id);
            }
            self.count_part(&issued);
            self.issued.insert(id, issued);
        }
        self.mirror.load(records)?;
        self.horizon = HorizonV1::load(records)?;
        let slot = ctx.params.slot_at(ctx.now_ms);
        for (id, record) in &self.issued {
            let facts = &record.facts;
            if !record.head.gave_units_back() && facts.window.end > slot {
                // Capacity never shrinks below claims, so this can only fail on a damaged
                // journal; the certificate stays known, its units are then not re-sold twice
                // because nothing else can claim beyond capacity either.
                let claim = Claim::Certificate(*id);
                let _ = self.ledger.claim(claim, facts.class, &facts.units, facts.window);
            }
            if let Some(lock) = record.head.lock() {
                self.locked.insert(lock.terms_hash, *id);
            }
            if let Some(to) = record.push {
                let until_ms = facts.window.ends_at_ms(ctx.params.slot_s);
                self.pushes.take(*id, to, ctx.now_ms, until_ms);
            }
            for hop in &record.certificate.hops {
                // What a checkpoint left behind is found below. Parts have the sales of what they were cut from in their history too.
                if let Hop::Sale { terms, .. } = hop
                    && terms.peek::<Terms>().is_ok_and(|terms| terms.cert_id == *id)
                {
                    self.sold.insert(TermsHash(terms.id::<Terms>(ctx.params.magic)), *id);
                }
            }
            self.sold.extend(record.sales.iter().map(|sale| (sale.terms, *id)));
            if facts.seq > 0 && !record.head.is_void() && record.head.spent().is_none() {
                self.by_holder.insert((facts.holder, *id));
            }
        }
        Ok(())
    }

    /// Sets how many units of each class this host sells; of a class that is not named, only what
    /// has claims. All or nothing.
    ///
    /// # Errors
    /// `capacity.unknown_class`, `capacity.too_large` or `capacity.below_claims`.
    pub fn set_capacity(
        &mut self,
        ctx: &mut Context<'_>,
        capacity: &[(u16, u32)],
    ) -> Result<(), &'static str> {
        if capacity.iter().any(|(class, _)| ctx.params.class(*class).is_none()) {
            return Err(code!("capacity.unknown_class"));
        }
        let mut changed = self.ledger.clone();
        for class in ctx.params.classes.iter().map(|class| class.floors.id) {
            let named = capacity.iter().find(|(named, _)| *named == class);
            let units = named.map_or_else(|| changed.highest(class), |(_, units)| *units);
            changed.set_capacity(class, units).map_err(|error| error.code())?;
        }
        let before = std::mem::replace(&mut self.ledger, changed);
        for class in ctx.params.classes.iter().map(|class| class.floors.id) {
            let units = self.ledger.capacity(class);
            if units != before.capacity(class) {
                ctx.out.store(&class.to_be_bytes(), &CapacityRecord { units });
            }
        }
        Ok(())
    }

    /// Repeats pushes that were not answered, gives units of unsold certificates back,
    /// forgets what is long past.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        self.void_unsold(ctx);
        self.end_wait_due(ctx);
        self.bring_due(ctx);
        let slot = ctx.params.slot_at(ctx.past_ms());
        if std::mem::replace(&mut self.cleared, slot) != slot {
            self.ledger.expire(slot);
            if !self.issued.is_empty() {
                self.horizon.pass(ctx, slot);
            }
            if let Some(ended_by) = self.horizon.forgets(slot) {
                self.forget(ctx, ended_by);
            }
        }
    }

    /// When [`Register::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, params: &Params) -> Option<TimeMs> {
        let pushes = self.pushes.next_deadline().into_iter().chain(self.waits_until_ms(params));
        let unsold = self.issued.values().filter(|record| record.is_unsold());
        pushes.chain(unsold.map(|record| sales::sold_by_ms(record, params))).min()
    }

    /// Deletes records whose windows ended by a slot that is a horizon ago: no order can name
    /// them any more.
    fn forget(&mut self, ctx: &mut Context<'_>, ended_by: Slot) {
        let (by_trade, locked, pushes) = (&mut self.by_trade, &mut self.locked, &mut self.pushes);
        let by_holder = &mut self.by_holder;
        self.issued.retain(|id, record| {
            let keep = record.facts.window.end > ended_by;
            if !keep {
                if let Some(trade) = record.trade {
                    by_trade.remove(&trade);
                }
                by_holder.remove(&(record.facts.holder, *id));
                pushes.end(*id);
                if let Some(lock) = record.head.lock() {
                    locked.remove(&lock.terms_hash);
                }
                ctx.out.delete(Table::Issued, &id.0);
            }
            keep
        });
        let issued = &self.issued;
        self.sold.retain(|_, cert| issued.contains_key(cert));
        self.parts = parts::counted(issued.values());
    }

    fn save(&self, ctx: &mut Context<'_>, id: CertId) {
        if let Some(record) = self.issued.get(&id) {
            ctx.out.store(&id.0, record);
        }
    }

    /// Appends a hop and begins the next seq. What is consumed is on disk before the
    /// Activation leaves. The new holder has `wait_ms` to take it from an answer before it is
    /// brought the certificate.
    fn activate(
        &mut self,
        ctx: &mut Context<'_>,
        id: CertId,
        step: Step,
        wait_ms: u64,
        hop: impl FnOnce(Envelope) -> Hop,
    ) -> Result<Envelope, &'static str> {
        let record = self.issued.get_mut(&id).ok_or(code!("transfer.unknown_certificate"))?;
        if let Some(lock) = record.head.lock() {
            self.locked.remove(&lock.terms_hash);
            self.sold.insert(lock.terms_hash, id);
        }
        let activation =
            ctx.sign(step.activation(&[record.head.attempt], ctx.chain.height, ctx.params.magic));
        let bytes = activation.envelope().clone();
        record.certificate.hops.push(hop(bytes.clone()));
        self.by_holder.remove(&(record.facts.holder, id));
        record.facts = step.done(&activation);
        record.head = Head::fresh();
        let to = record.facts.holder;
        self.by_holder.insert((to, id));
        record.push = (to != ctx.me()).then_some(to);
        self.pushes.end(id);
        if let Some(to) = record.push {
            let until_ms = record.facts.window.ends_at_ms(ctx.params.slot_s);
            self.pushes.take(id, to, ctx.now_ms.saturating_add(wait_ms), until_ms);
        }
        self.save(ctx, id);
        publish_grant(ctx, &bytes);
        self.bring_due(ctx);
        Ok(bytes)
    }

    /// Brings certificates to their new holders, which can also fetch them.
    fn bring_due(&mut self, ctx: &mut Context<'_>) {
        for (id, to) in self.pushes.take_due(ctx.now_ms) {
            match (to, self.issued.get(&id)) {
                (Some(to), Some(record)) => {
                    let purpose = RegisterPurpose::Push(id, record.facts.seq);
                    courier::bring(ctx, to, record.certificate.clone(), purpose);
                }
                _ => self.end_push(ctx, id),
            }
        }
    }

    fn end_push(&mut self, ctx: &mut Context<'_>, id: CertId) {
        self.pushes.end(id);
        if let Some(record) = self.issued.get_mut(&id).filter(|record| record.push.is_some()) {
            record.push = None;
            self.save(ctx, id);
        }
    }

    /// A peer came up: what is for it is brought.
    pub fn on_peer_up(&mut self, ctx: &mut Context<'_>, peer: Key) {
        self.pushes.on_peer_up(peer, ctx.now_ms);
        self.bring_due(ctx);
    }

    /// A peer answered, or could not be reached.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        purpose: RegisterPurpose,
        result: Result<SettleReply, String>,
    ) {
        match purpose {
            RegisterPurpose::Push(id, seq) => {
                // One that has moved on since is on its way to another holder.
                let is_current = self.issued.get(&id).is_some_and(|record| record.facts.seq == seq);
                if is_current && courier::ends(&SettleReply::told(result)) {
                    self.end_push(ctx, id);
                }
            }
            RegisterPurpose::Mine => {
                if let Answer::Said(said) = SettleReply::told(result) {
                    self.on_witness(ctx, peer, said);
                }
            }
        }
    }

    /// Answers a holder. `held` finds what is not this node's to issue.
    ///
    /// # Errors
    /// The reason code.
    pub fn on_request<'a>(
        &'a mut self,
        ctx: &mut Context<'_>,
        peer: Key,
        request: &RegisterRequest,
        held: impl FnOnce(&CertId) -> Option<&'a Certificate>,
    ) -> Result<RegisterReply, &'static str> {
        match request {
            RegisterRequest::Gift(gift) => self.on_gift(ctx, gift).map(RegisterReply::Activation),
            RegisterRequest::Split(split) => {
                self.on_split(ctx, split).map(RegisterReply::Activations)
            }
            RegisterRequest::Merge(merge) => {
                self.on_merge(ctx, merge).map(RegisterReply::Activation)
            }
            RegisterRequest::Checkpoint(id) => {
                self.on_checkpoint(ctx, peer, *id).map(RegisterReply::Certificate)
            }
            // The same refusal whether it is unknown or not for this peer, so that asking
            // tells nothing.
            RegisterRequest::Get(id) => {
                let found = self.certificate_for(peer, id).or_else(|| held(id));
                let found = found.ok_or(code!("certificate.not_a_party"))?;
                Ok(RegisterReply::Certificate(found.clone()))
            }
            RegisterRequest::Held { after } => {
                let slot = ctx.params.slot_at(ctx.now_ms);
                Ok(RegisterReply::Held(self.held_by(peer, *after, slot)))
            }
        }
    }

    /// Offers nothing new of these slots: this host will not deliver then.
    pub fn close(&mut self, slots: Vec<Window>) {
        self.closed = slots;
    }

    /// Does what an operator asks.
    pub fn on_command(&mut self, ctx: &mut Context<'_>, id: u64, command: &RegisterCommand) {
        let result = match command {
            RegisterCommand::SetCapacity(capacity) => self.set_capacity(ctx, capacity),
            RegisterCommand::Share(room) => {
                self.room = Some(*room);
                Ok(())
            }
            RegisterCommand::Withhold(classes) => {
                self.withheld.clone_from(classes);
                Ok(())
            }
        };
        answer(ctx, Some(id), result.map(|()| Done::Ok));
    }
}

/// Whether a certificate can take one more hop and still travel in one message.
fn has_room(certificate: &Certificate) -> bool {
    let bytes = wire::encode(certificate).len().saturating_add(HOP_MAX_BYTES);
    certificate.hops.len() < CERTIFICATE_HOPS_MAX && bytes <= SETTLE_MAX_BYTES
}

/// The Activation that ended the hop with a cause.
fn activation_of(certificate: &Certificate, cause: [u8; 32]) -> Option<Envelope> {
    let mut activations = certificate.hops.iter().rev().flat_map(Hop::activations);
    let is_caused = |bytes: &&Envelope| {
        bytes.peek::<Activation>().is_ok_and(|activation| activation.cause_hash == cause)
    };
    activations.find(is_caused).cloned()
}

impl IssuedRecord {
    /// A certificate as it is issued: seq 0, held by its provider.
    fn new(issue: &Verified<Issue>, trade: TradeId, now_ms: TimeMs) -> Self {
        Self {
            certificate: Certificate::issued(issue.envelope().clone()),
            facts: VerifiedCertificate::issued(issue),
            trade: Some(trade),
            issued_at_ms: now_ms,
            head: Head::fresh(),
            push: None,
            sales: Vec::new(),
            givers: Vec::new(),
        }
    }

    /// One that came of a split or a merge; its holder takes it from the answer.
    fn recut(certificate: Certificate, facts: VerifiedCertificate, now_ms: TimeMs) -> Self {
        let (head, push, sales, givers) = (Head::fresh(), None, Vec::new(), Vec::new());
        Self { certificate, facts, trade: None, issued_at_ms: now_ms, head, push, sales, givers }
    }
}
