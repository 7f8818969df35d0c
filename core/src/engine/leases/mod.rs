//! Leases of this host, and leases that this node holds elsewhere.
//!
//! Payment was checked at Activation: redemption relies on the provider's own register
//! alone, and works with the chain source down. A lease, the consumption of its
//! certificate and the grant are on disk together before anything of them leaves.

mod access;
mod attached;
mod calls;
mod delivered;
mod extend;
mod fetch;
mod holder;
mod io;
mod maintenance;
mod provider;
mod pull;
mod records;
mod views;

use std::collections::{BTreeMap, BTreeSet};

pub use access::Wanted;
pub use attached::{Asker, AttachedView};
pub use delivered::{Delivery, Receipts};
pub use fetch::Uploaded;
pub use io::{
    HeldEvent, HeldFile, HeldJob, LeaseCommand, LeaseEffect, LeaseNews, LeasePurpose, Offer, Serve,
    StopReason,
};
pub use records::FetchedResult;
pub use views::{LeaseRole, LeaseView};

pub(in crate::engine) use self::attached::{AttachedV1, Place, Purchase};
use self::calls::Replay;
use self::fetch::Fetch;
pub(in crate::engine) use self::records::{HeldLease, LeaseRecord, MaintenanceV1};
use super::holdings::Holdings;
use super::io::Done;
use super::kernel::{
    ClockCheck, Context, Pace, Record, Retry, Table, Unreadable, answer, records as read,
};
use crate::certificate::VerifiedCertificate;
use crate::code;
use crate::ids::{CertId, Key, LeaseId, StandingId};
use crate::lease::Maintenance;
use crate::lease::objects::{LeaseStatus, Workload};
use crate::limits::HORIZON_SLOTS;
use crate::params::Params;
use crate::reasons::Reason;
use crate::units::{TimeMs, Window};
use crate::wire::Envelope;

/// A challenge that waits for its Redeem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Challenge {
    nonce: [u8; 32],
    /// Who held the certificate when it asked.
    peer: Key,
    expires_at_ms: TimeMs,
}

/// What a certificate gives to a lease.
#[derive(Debug, Clone, Copy)]
struct Bought {
    window: Window,
    units: u32,
    /// Processors of all its blocks, thousandths.
    cpu_milli: u64,
    /// Memory of all its blocks.
    memory_bytes: u64,
    /// Disk of all its blocks.
    disk_bytes: u64,
}

impl Bought {
    /// `None` for a class that the network does not define.
    fn by(facts: &VerifiedCertificate, params: &Params) -> Option<Self> {
        let floors = &params.class(facts.class)?.floors;
        let count = facts.units.count();
        let units = u64::from(count);
        let bytes = |mib: u32| (u64::from(mib) << 20).saturating_mul(units);
        Some(Self {
            window: facts.window,
            units: count,
            cpu_milli: u64::from(floors.cpu_milli).saturating_mul(units),
            memory_bytes: bytes(floors.memory_mib),
            disk_bytes: bytes(floors.disk_mib),
        })
    }
}

/// What is known of a hosted lease in this life alone.
#[derive(Debug, Default)]
struct Watch {
    /// Results that the holder has read to their end.
    fetched: BTreeSet<String>,
    /// When the holder asked last for another run.
    ordered_ms: Option<TimeMs>,
    /// Stops sent after the end of the window, and when the next is due.
    stop: Option<Retry>,
    release: Option<Retry>,
    calls: BTreeMap<u8, Replay>,
}

/// A redemption that waits for its challenge.
#[derive(Debug)]
struct Asking {
    cert_id: CertId,
    provider: Key,
    workload: Workload,
    retry: Retry,
}

/// Leases of both sides.
#[derive(Debug, Default)]
pub struct Leases {
    hosted: BTreeMap<LeaseId, LeaseRecord>,
    watch: BTreeMap<LeaseId, Watch>,
    challenges: BTreeMap<CertId, Challenge>,
    held: BTreeMap<LeaseId, HeldLease>,
    asking: BTreeMap<Asker, Asking>,
    /// Workloads that came with an order.
    attached: BTreeMap<StandingId, AttachedV1>,
    /// When certificates with a workload are presented again.
    attempts: BTreeMap<CertId, Retry>,
    /// Workloads that shall run in leases held elsewhere, by the command that asked.
    replacing: BTreeMap<u64, (LeaseId, Workload)>,
    /// Redeems without an answer: next try, and whom to tell.
    redeeming: BTreeMap<LeaseId, (Retry, Option<Asker>)>,
    countersigning: BTreeMap<LeaseId, Retry>,
    /// Extensions without an answer: next try, and the command to answer.
    extending: BTreeMap<LeaseId, (Retry, Option<u64>)>,
    /// Leases that are followed in this life.
    fetching: BTreeMap<LeaseId, Fetch>,
    /// Last status that each provider told.
    told: BTreeMap<LeaseId, LeaseStatus>,
    /// Why receipts are not agreed to.
    disputes: BTreeMap<LeaseId, Reason>,
    counter: u64,
    clock: ClockCheck,
    offer: Offer,
    /// Announced by this host, by number: what is to come, and what was.
    maintenance: BTreeMap<u32, Maintenance>,
    /// Slot in which the records were last cleared.
    cleared: u32,
}

impl Leases {
    /// Restores leases from the journal. Those that have not ended are started again: the
    /// executor adopts one that runs.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) -> Result<(), Unreadable> {
        for found in read::<LeaseRecord>(records) {
            let (record, lease) = found?;
            self.hosted.insert(LeaseId(record.key_array()?), lease);
        }
        for found in read::<HeldLease>(records) {
            let (record, lease) = found?;
            self.held.insert(LeaseId(record.key_array()?), lease);
        }
        for found in read::<AttachedV1>(records) {
            let (record, attached) = found?;
            self.attached.insert(StandingId(record.key_array()?), attached);
        }
        for found in read::<MaintenanceV1>(records) {
            let (record, announced) = found?;
            self.maintenance.insert(u32::from_be_bytes(record.key_array()?), announced.into());
        }
        self.tell_host(ctx);
        self.resume_hosted(ctx);
        self.resume_held(ctx.now_ms);
        self.resume_extending(ctx.now_ms);
        Ok(())
    }

    /// What is to be thought of the own clock.
    pub fn on_clock(&mut self, clock: ClockCheck) {
        self.clock = clock;
    }

    /// Ends windows, issues receipts, releases what is over, repeats what peers did not
    /// answer.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>) {
        self.tick_hosted(ctx);
        self.tick_held(ctx);
        self.tick_extending(ctx);
        self.tick_fetching(ctx);
        let slot = ctx.params.slot_at(ctx.past_ms());
        if slot > self.cleared {
            self.cleared = slot;
            self.forget(ctx, slot);
        }
    }

    /// When [`Leases::on_tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, params: &Params) -> Option<TimeMs> {
        let held = self.held_deadlines().chain(self.fetching_deadlines());
        let held = held.chain(self.attached_deadlines(params));
        self.hosted_deadlines(params).chain(held).min()
    }

    /// Does what an operator asks: it is answered later, or at once with a refusal.
    pub fn on_command(
        &mut self,
        ctx: &mut Context<'_>,
        holdings: &Holdings,
        id: u64,
        command: LeaseCommand,
    ) {
        match command {
            LeaseCommand::Redeem { cert, workload } => {
                self.redeem(ctx, holdings, Asker::Command(id), cert, *workload);
            }
            LeaseCommand::Stop(lease) => self.stop(ctx, id, lease),
            LeaseCommand::Open(wanted) => {
                answer(ctx, Some(id), self.open_access(ctx, *wanted));
            }
            LeaseCommand::Grant { lease, to, verbs, life_s } => {
                answer(ctx, Some(id), self.grant_access(ctx, lease, to, verbs, life_s));
            }
            LeaseCommand::Extend { lease, cert } => {
                self.extend_held(ctx, holdings, id, lease, cert);
            }
            LeaseCommand::Detach(cert) => {
                let detached = self.detach(ctx, cert);
                answer(ctx, Some(id), detached);
            }
            LeaseCommand::Lost(order) => {
                self.forget_workload(ctx, order);
                answer(ctx, Some(id), Ok(Done::Ok));
            }
            LeaseCommand::Restart(lease) => self.restart_held(ctx, id, lease),
            LeaseCommand::Replace { lease, workload } => {
                self.replace_held(ctx, id, lease, *workload);
            }
            LeaseCommand::Offer(offer) => {
                self.offer = offer;
                answer(ctx, Some(id), Ok(Done::Ok));
            }
            LeaseCommand::Pull { cert, image } => self.pull(ctx, holdings, id, cert, image),
            LeaseCommand::Announce(new) => {
                let announced = self.announce(ctx, new);
                answer(ctx, Some(id), announced);
            }
            LeaseCommand::CallOff(number) => {
                let called_off = self.call_off(ctx, number);
                answer(ctx, Some(id), called_off);
            }
        }
    }

    /// Ends a lease early, on either side, for a command.
    pub fn stop(&mut self, ctx: &mut Context<'_>, command: u64, lease: LeaseId) {
        if self.hosted.contains_key(&lease) {
            self.stop_hosted(ctx, lease, StopReason::Operator);
            answer(ctx, Some(command), Ok(Done::Ok));
        } else if self.held.contains_key(&lease) {
            self.stop_held(ctx, command, lease);
        } else {
            answer(ctx, Some(command), Err(code!("lease.not_found")));
        }
    }

    /// What runs in a lease of either side.
    #[must_use]
    pub fn workload(&self, lease: &LeaseId) -> Option<&Workload> {
        let hosted = self.hosted.get(lease).map(|record| &record.workload);
        hosted.or_else(|| self.held.get(lease).map(|record| &record.workload))
    }

    /// The certificate for which a lease of either side stands.
    #[must_use]
    pub fn certificate(&self, lease: &LeaseId) -> Option<CertId> {
        let hosted = self.hosted.get(lease).map(|record| record.cert_id);
        hosted.or_else(|| self.held.get(lease).map(|record| record.cert_id))
    }

    /// Signed receipts of a lease of either side, by number.
    #[must_use]
    pub fn receipts(&self, lease: &LeaseId) -> &[Envelope] {
        let hosted = self.hosted.get(lease).map(|record| record.receipts.as_slice());
        let held = || self.held.get(lease).map(|record| record.receipts.as_slice());
        hosted.or_else(held).unwrap_or_default()
    }

    /// Deletes records whose windows ended a horizon ago, as holdings do.
    fn forget(&mut self, ctx: &mut Context<'_>, slot: u32) {
        self.forget_maintenances(ctx);
        let past = |end: u32| end.saturating_add(HORIZON_SLOTS) < slot;
        let gone = self.hosted.iter().filter(|(_, record)| past(record.window.end));
        let gone: Vec<LeaseId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.hosted.remove(&id);
            self.watch.remove(&id);
            ctx.out.delete(Table::Lease, &id.0);
        }
        let gone = self.held.iter().filter(|(_, record)| past(record.window.end));
        let gone: Vec<LeaseId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.held.remove(&id);
            self.told.remove(&id);
            self.disputes.remove(&id);
            self.redeeming.remove(&id);
            self.extending.remove(&id);
            self.countersigning.remove(&id);
            self.fetching.remove(&id);
            ctx.out.delete(Table::HeldLease, &id.0);
        }
    }
}

fn notify(ctx: &mut Context<'_>, lease: LeaseId, phase: &str) {
    ctx.out.notify(LeaseNews { lease, phase: phase.to_owned() });
}
