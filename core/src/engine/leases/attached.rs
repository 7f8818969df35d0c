//! Workloads that travel with a purchase: kept beside its order, and presented with each
//! certificate that the order brings, in time for the first second of its window. Whoever holds
//! the certificate by then decides: one that was given, sold, cut or redeemed by hand takes no
//! workload with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Context, Holdings, Leases, Pace, Retry};
use crate::code;
use crate::engine::io::Done;
use crate::engine::kernel::{Stored, Table, remote_code};
use crate::ids::{CertId, Digest, Key, StandingId};
use crate::lease::objects::{PayloadKind, Workload};
use crate::lease::workload;
use crate::limits::{ATTACHED_LEAD_MS, ATTACHED_UPLOAD_BYTES_PER_S};
use crate::params::{ClassDef, Isolation, Params};
use crate::units::{TimeMs, Window};

/// Repetition of what the provider refused, or what the certificate was not free for: both may
/// pass. The end of the window ends it.
const ATTEMPTS: Pace = Pace::between(1_000, 60_000);

/// For whom a certificate is redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// A command waits for the answer.
    Command(u64),
    /// The workload that came with the purchase of the certificate.
    Attached(CertId),
}

/// Where a certificate is that has a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Place {
    /// This node holds it, and nothing is under way with it.
    Free,
    /// It is on offer, or its provider has been asked to move it.
    Waits,
    Gone,
}

/// The workload of an order; its key is the standing order's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct AttachedV1 {
    workload: Workload,
    /// Certificates that the order has brought and that wait to be redeemed.
    certs: BTreeMap<CertId, Attached>,
}

/// A certificate that waits to be redeemed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Attached {
    window: Window,
    /// Why the last try failed: reason code.
    refusal: Option<String>,
}

impl Stored for AttachedV1 {
    const TABLE: Table = Table::Attached;
}

/// What is to run on a certificate by itself, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedView {
    /// The order that brought it.
    pub order: StandingId,
    /// Of the workload.
    pub kind: PayloadKind,
    /// When the certificate is presented, unix ms.
    pub redeems_at_ms: TimeMs,
    /// Why the last try failed: reason code.
    pub refusal: Option<String>,
}

/// What a purchase is to bring, as far as a workload has to know it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Purchase<'a> {
    pub(in crate::engine) is_bid: bool,
    /// Who shall hold what is bought, if not this node.
    pub(in crate::engine) beneficiary: Option<Key>,
    pub(in crate::engine) classes: &'a [u16],
    pub(in crate::engine) qty: u32,
}

/// Whether a class is one of those that run a kind of payload.
fn runs(class: &ClassDef, kind: PayloadKind) -> bool {
    match kind {
        PayloadKind::Wasm => class.isolation == Isolation::Wasm,
        PayloadKind::Oci | PayloadKind::Rootfs => class.isolation == Isolation::Container,
    }
}

/// Time before the window at which a certificate is presented, ms: enough for an upload and for a
/// provider that does not answer at once, and no more, so that the holder may still decide.
fn lead_ms(workload: &Workload, slot_s: u32) -> u64 {
    let bytes = workload::needs(workload).into_iter().map(|part| workload::size_of(workload, part));
    let bytes = bytes.fold(0, u64::saturating_add);
    let upload_ms = bytes.saturating_mul(1_000) / ATTACHED_UPLOAD_BYTES_PER_S;
    ATTACHED_LEAD_MS.min(u64::from(slot_s) * 2_000).saturating_add(upload_ms)
}

impl Leases {
    /// Checks that a workload can run on what a purchase may bring, at the most.
    ///
    /// # Errors
    /// `attach.*`, `workload.*`.
    pub(in crate::engine) fn check_attached(
        &self,
        params: &Params,
        me: Key,
        purchase: Purchase<'_>,
        workload: &Workload,
    ) -> Result<(), &'static str> {
        if !purchase.is_bid {
            return Err(code!("attach.not_a_bid"));
        }
        if purchase.beneficiary.is_some_and(|holder| holder != me) {
            return Err(code!("attach.for_key"));
        }
        if workload::sealed(workload).next().is_some() {
            return Err(code!("attach.sealed"));
        }
        let kind = workload.payload.kind();
        let defined = params.classes.iter().map(|class| &class.floors);
        let fitting =
            defined.filter(|class| purchase.classes.contains(&class.id) && runs(class, kind));
        let disk_mib = fitting.map(|class| class.disk_mib).max().ok_or(code!("attach.class"))?;
        let disk_bytes = (u64::from(disk_mib) << 20).saturating_mul(u64::from(purchase.qty));
        workload::validate(workload, disk_bytes).map_err(|error| error.code())
    }

    /// Keeps the workload of an order.
    pub(in crate::engine) fn attach(
        &mut self,
        ctx: &mut Context<'_>,
        order: StandingId,
        workload: Workload,
    ) {
        let record = AttachedV1 { workload, certs: BTreeMap::new() };
        ctx.out.store(&order.0, &record);
        self.attached.insert(order, record);
    }

    /// An order has brought a certificate, which is to run its workload if it has one.
    pub(in crate::engine) fn attach_to(
        &mut self,
        ctx: &mut Context<'_>,
        order: StandingId,
        cert: CertId,
        window: Window,
    ) {
        if let Some(record) = self.attached.get_mut(&order) {
            record.certs.insert(cert, Attached { window, refusal: None });
            ctx.out.store(&order.0, record);
        }
    }

    /// Lets the workload of a certificate go, which is held as any other from then on.
    pub(super) fn detach(
        &mut self,
        ctx: &mut Context<'_>,
        cert: CertId,
    ) -> Result<Done, &'static str> {
        if self.is_being_redeemed(&cert) {
            return Err(code!("redeem.busy"));
        }
        let mut all = self.attached.iter_mut();
        let found = all.find(|(_, record)| record.certs.contains_key(&cert));
        let (order, record) = found.ok_or(code!("attach.none"))?;
        record.certs.remove(&cert);
        ctx.out.store(&order.0, record);
        Ok(Done::Ok)
    }

    /// Forgets a workload whose content is not on the own disk, as after a restore from a backup: its
    /// certificates would be used up for something that cannot be sent.
    pub(super) fn forget_workload(&mut self, ctx: &mut Context<'_>, order: StandingId) {
        let Some(record) = self.attached.remove(&order) else { return };
        ctx.out.delete(Table::Attached, &order.0);
        let is_of_it = |asker: &Asker| match asker {
            Asker::Attached(cert) => record.certs.contains_key(cert),
            Asker::Command(_) => false,
        };
        self.asking.retain(|asker, _| !is_of_it(asker));
    }

    /// The workloads of orders, and of which content each is.
    pub fn attached_content(&self) -> impl Iterator<Item = (StandingId, Digest)> {
        self.attached.iter().map(|(order, record)| (*order, workload::digest(&record.workload)))
    }

    /// Presents certificates whose time has come, and lets go of those that are gone and of the
    /// workloads of orders that bring no more.
    pub(in crate::engine) fn tick_attached(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        place: &dyn Fn(&CertId) -> Place,
        may_bring: &dyn Fn(&StandingId) -> bool,
    ) {
        let (slot_s, past_ms) = (ctx.params.slot_s, ctx.past_ms());
        let is_gone = |cert: &CertId, attached: &Attached| {
            place(cert) == Place::Gone || attached.window.ends_at_ms(slot_s) <= past_ms
        };
        let mut unused = Vec::new();
        self.attached.retain(|order, record| {
            let before = record.certs.len();
            record.certs.retain(|cert, attached| !is_gone(cert, attached));
            let is_needed = !record.certs.is_empty() || may_bring(order);
            if !is_needed {
                ctx.out.delete(Table::Attached, &order.0);
                unused.push(workload::digest(&record.workload));
            } else if record.certs.len() != before {
                ctx.out.store(&order.0, record);
            }
            is_needed
        });
        unused.into_iter().for_each(|workload| self.discard_content(ctx, workload));
        let certs = self.attached.values().flat_map(|record| record.certs.keys());
        let waiting: BTreeSet<CertId> = certs.copied().collect();
        self.attempts.retain(|cert, _| waiting.contains(cert));
        for cert in waiting {
            self.present(ctx, holdings, cert, place(&cert));
        }
    }

    /// Redeems a certificate with the workload that came with it, if it is time.
    fn present(&mut self, ctx: &mut Context<'_>, holdings: &Holdings, cert: CertId, place: Place) {
        let Some((record, attached)) = self.attached_to(&cert) else { return };
        let starts_at_ms = attached.window.starts_at_ms(ctx.params.slot_s);
        let lead_ms = lead_ms(&record.workload, ctx.params.slot_s);
        if ctx.now_ms < starts_at_ms.saturating_sub(lead_ms) || self.is_being_redeemed(&cert) {
            return;
        }
        let first = Retry::new(ATTEMPTS, ctx.now_ms);
        let attempt = self.attempts.entry(cert).or_insert(first);
        if !attempt.is_due(ctx.now_ms) || !attempt.take(ctx.now_ms) {
            return;
        }
        match place {
            Place::Free => {
                let Some((record, _)) = self.attached_to(&cert) else { return };
                let workload = record.workload.clone();
                self.redeem(ctx, holdings, Asker::Attached(cert), cert, workload);
            }
            Place::Waits => self.note_attached(ctx, cert, code!("attach.waits")),
            Place::Gone => {}
        }
    }

    fn attached_to(&self, cert: &CertId) -> Option<(&AttachedV1, &Attached)> {
        self.attached.values().find_map(|record| Some((record, record.certs.get(cert)?)))
    }

    fn is_being_redeemed(&self, cert: &CertId) -> bool {
        let asked = self.asking.values().any(|asking| asking.cert_id == *cert);
        let mut redeeming = self.redeeming.keys().filter_map(|lease| self.held.get(lease));
        asked || redeeming.any(|record| record.cert_id == *cert)
    }

    /// Notes why a certificate was not redeemed by itself; it is tried again.
    pub(super) fn note_attached(&mut self, ctx: &mut Context<'_>, cert: CertId, code: &str) {
        let mut all = self.attached.iter_mut();
        let found = all.find_map(|(order, record)| {
            record.certs.contains_key(&cert).then_some((order, record))
        });
        let Some((order, record)) = found else { return };
        let Some(attached) = record.certs.get_mut(&cert) else { return };
        if attached.refusal.as_deref() != Some(code) {
            attached.refusal = Some(remote_code(code).to_owned());
            ctx.out.store(&order.0, record);
        }
    }

    /// Who asked for a redemption that an earlier life began.
    pub(super) fn asker_of(&self, cert: CertId) -> Option<Asker> {
        self.attached_to(&cert).map(|_| Asker::Attached(cert))
    }

    /// Whether the content of a workload waits for its order or a certificate.
    pub(super) fn is_attached(&self, workload: Digest) -> bool {
        self.attached.values().any(|record| workload::digest(&record.workload) == workload)
    }

    pub(super) fn attached_deadlines(&self, params: &Params) -> impl Iterator<Item = TimeMs> {
        let slot_s = params.slot_s;
        self.attached.values().flat_map(move |record| {
            let lead_ms = lead_ms(&record.workload, slot_s);
            let waiting = record.certs.iter().filter(|(cert, _)| !self.is_being_redeemed(cert));
            waiting.map(move |(cert, attached)| {
                let due_ms = attached.window.starts_at_ms(slot_s).saturating_sub(lead_ms);
                let attempt = self.attempts.get(cert).map_or(0, |attempt| attempt.due_ms());
                due_ms.max(attempt)
            })
        })
    }

    /// The workload of an order.
    #[must_use]
    pub fn workload_of_order(&self, order: &StandingId) -> Option<PayloadKind> {
        self.attached.get(order).map(|record| record.workload.payload.kind())
    }

    /// What is to run by itself, by certificate.
    pub fn attached(&self, params: &Params) -> impl Iterator<Item = (CertId, AttachedView)> {
        let slot_s = params.slot_s;
        self.attached.iter().flat_map(move |(order, record)| {
            let lead_ms = lead_ms(&record.workload, slot_s);
            record.certs.iter().map(move |(cert, attached)| {
                let starts_at_ms = attached.window.starts_at_ms(slot_s);
                let view = AttachedView {
                    order: *order,
                    kind: record.workload.payload.kind(),
                    redeems_at_ms: starts_at_ms.saturating_sub(lead_ms),
                    refusal: attached.refusal.clone(),
                };
                (*cert, view)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::objects::{Content, Payload};
    use crate::test_support;

    fn root(bytes: u64) -> Workload {
        let archive = Content { digest: Digest([1; 32]), bytes };
        let command = vec!["sh".to_owned()];
        Workload { command, ..Workload::of(Payload::Rootfs { archive }) }
    }

    #[test]
    fn a_certificate_is_presented_in_time_for_its_upload_and_not_long_before() {
        let second = ATTACHED_UPLOAD_BYTES_PER_S;
        let table = [
            (1, 4, 8_000),
            (3 * second, 4, 11_000),
            // Of long slots it is no longer than this.
            (1, 3_600, ATTACHED_LEAD_MS),
            (3 * second, 3_600, ATTACHED_LEAD_MS + 3_000),
        ];
        for (bytes, slot_s, expected) in table {
            assert_eq!(lead_ms(&root(bytes), slot_s), expected, "{bytes} {slot_s}");
        }
    }

    #[test]
    fn a_workload_may_have_the_disk_of_all_blocks_and_be_of_who_names_itself() {
        let (mut params, me, leases) = (test_support::devnet(), Key([1; 32]), Leases::default());
        let class = &mut params.classes[0].floors;
        class.isolation = Isolation::Container;
        let (id, disk_bytes) = (class.id, u64::from(class.disk_mib) << 20);
        let check = |qty, beneficiary, bytes| {
            let classes = [id];
            let purchase = Purchase { is_bid: true, beneficiary, classes: &classes, qty };
            leases.check_attached(&params, me, purchase, &root(bytes))
        };
        assert_eq!(check(1, None, disk_bytes), Ok(()));
        assert_eq!(check(1, None, disk_bytes + 1), Err("workload.disk"));
        assert_eq!(check(2, None, 2 * disk_bytes), Ok(()));
        assert_eq!(check(2, None, 2 * disk_bytes + 1), Err("workload.disk"));
        assert_eq!(check(1, Some(me), 1), Ok(()));
        assert_eq!(check(1, Some(Key([2; 32])), 1), Err("attach.for_key"));
    }
}
