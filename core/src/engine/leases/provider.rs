//! The provider's side: challenge, redemption, executor events, receipts, release.

use super::io::{LeaseEffect, Serve, StopReason};
use super::records::LeaseRecord;
use super::{Bought, Challenge, Context, Leases, Pace, Retry, Watch, notify};
use crate::code;
use crate::engine::io::Effect;
use crate::engine::register::{Register, publish_grant};
use crate::ids::{CertId, Key, LeaseId};
use crate::lease::objects::{
    Countersign, LeaseReply, LeaseRequest, LeaseStatus, Outcome, PayloadKind, Receipt, Redeem,
    Unavailable, Verb, Workload,
};
use crate::lease::receipts::{self, ByProvider, PERIOD_MS, Period};
use crate::lease::score::Score;
use crate::lease::workload::{self, WorkloadError};
use crate::lease::{ExecutorEvent, Phase, Usage};
use crate::limits::{CHALLENGE_MS, OPEN_LEASES_MAX};
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Envelope, Magic, Verified};

/// Stops after the end of the window before the lease counts as failed: the shim enforces
/// the end by itself, so an executor that stays silent this long is broken.
const STOPS_MAX: u32 = 4;
/// Time between two orders to run something, ms: each costs a write, and perhaps a compilation.
const ORDER_MS: u64 = 1_000;
/// Leases of one holder that are searched for content: each costs a look at the disk.
const SHARING_MAX: usize = 16;
/// Receipts in one answer.
const RECEIPTS_PER_REPLY: usize = 16;

impl Leases {
    /// Answers a request of `lease/1`; `None` for what the shell serves from disk and answers.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        register: &mut Register,
        peer: Key,
        id: u64,
        request: LeaseRequest,
    ) -> Option<LeaseReply> {
        let answer = match request {
            LeaseRequest::Challenge(cert) => self.on_challenge(ctx, register, peer, cert),
            LeaseRequest::Redeem { redeem, workload } => {
                self.on_redeem(ctx, register, peer, &redeem, &workload)
            }
            LeaseRequest::Extend { extend } => self.on_extend(ctx, register, &extend),
            LeaseRequest::Status { call } => self.on_status(ctx, &call, Verb::Status),
            LeaseRequest::Stop { call } => self.on_status(ctx, &call, Verb::Stop),
            LeaseRequest::Restart { call } => self.on_restart(ctx, &call),
            LeaseRequest::Replace { call, workload } => self.on_replace(ctx, &call, workload),
            LeaseRequest::Receipts { call, from_seq } => self.on_receipts(ctx, &call, from_seq),
            LeaseRequest::Countersign { lease, signature } => {
                self.on_countersign(ctx, lease, &signature)
            }
            LeaseRequest::Put { call, digest, offset, bytes } => {
                let what = Serve::Put { digest, offset, bytes };
                return self.serve(ctx, id, &call, Verb::Put, what);
            }
            LeaseRequest::Logs { call, stream, from } => {
                return self.serve(ctx, id, &call, Verb::Logs, Serve::Logs { stream, from });
            }
            LeaseRequest::Pull { cert, image } => {
                return self.on_pull(ctx, register, peer, id, cert, image).err().map(refused);
            }
            LeaseRequest::Get { call, name, from } => {
                return self.serve(ctx, id, &call, Verb::Get, Serve::Get { name, from });
            }
        };
        Some(answer.unwrap_or_else(refused))
    }

    /// Lets the shell serve a request of the holder.
    fn serve(
        &mut self,
        ctx: &mut Context<'_>,
        id: u64,
        call: &Envelope,
        verb: Verb,
        what: Serve,
    ) -> Option<LeaseReply> {
        let lease = match self.authorise(ctx.now_ms, ctx.params, call, verb) {
            Ok(lease) => lease,
            Err(code) => return Some(refused(code)),
        };
        let record = self.hosted.get(&lease)?;
        if let Some(code) = &record.failure
            && record.phase.started_at_ms().is_none()
            && record.phase.end().is_some()
        {
            // There is nothing to read, and there never will be.
            return Some(LeaseReply::Refused { code: code.clone() });
        }
        if verb == Verb::Put && record.phase.end().is_some() {
            return Some(refused("lease.ended"));
        }
        ctx.out.push(Effect::Lease(LeaseEffect::Serve { id, lease, what }));
        None
    }

    fn on_challenge(
        &mut self,
        ctx: &mut Context<'_>,
        register: &Register,
        peer: Key,
        cert_id: CertId,
    ) -> Result<LeaseReply, &'static str> {
        // A challenge costs an fsync and a place, and certificate ids are public: so there is one
        // for each certificate, and it is for its holder, who is given it again if it asks again.
        let facts = register.issued(&cert_id).ok_or(code!("redeem.unknown_certificate"))?;
        if facts.holder != peer {
            return Err(code!("redeem.not_holder"));
        }
        let now_ms = ctx.now_ms;
        self.challenges.retain(|_, challenge| challenge.expires_at_ms > now_ms);
        let fresh = now_ms.saturating_add(CHALLENGE_MS / 2);
        let live = self.challenges.get(&cert_id);
        let live = live.filter(|live| live.peer == peer && live.expires_at_ms >= fresh);
        if let Some(live) = live {
            return Ok(LeaseReply::Challenge(live.nonce));
        }
        let nonce = ctx.fresh("challenge");
        let expires_at_ms = now_ms.saturating_add(CHALLENGE_MS);
        self.challenges.insert(cert_id, Challenge { nonce, peer, expires_at_ms });
        Ok(LeaseReply::Challenge(nonce))
    }

    /// Checks in the order signature, certificate, holder, seq, consumed, window, challenge,
    /// workload; so a stranger learns only that it is one.
    fn on_redeem(
        &mut self,
        ctx: &mut Context<'_>,
        register: &mut Register,
        peer: Key,
        redeem: &Envelope,
        workload: &Workload,
    ) -> Result<LeaseReply, &'static str> {
        let redeem: Verified<Redeem> =
            redeem.verify(ctx.params.magic).map_err(|_| "redeem.bad_signature")?;
        let lease = LeaseId(redeem.id());
        if let Some(record) = self.hosted.get(&lease) {
            return Ok(lease_reply(lease, record));
        }
        register.check_redeem(ctx, &redeem)?;
        if redeem.not_after_s < ctx.now_ms / 1000 {
            return Err(code!("redeem.expired"));
        }
        if !self.use_challenge(ctx.now_ms, peer, &redeem) {
            return Err(code!("redeem.bad_challenge"));
        }
        let facts = register.issued(&redeem.cert_id).ok_or(code!("redeem.unknown_certificate"))?;
        let bought = Bought::by(facts, ctx.params).ok_or(code!("redeem.unknown_certificate"))?;
        if workload::digest(workload) != redeem.workload_digest {
            return Err(code!("redeem.bad_workload"));
        }
        workload::validate(workload, bought.disk_bytes).map_err(WorkloadError::code)?;
        workload::check_sealed(workload, redeem.cert_id).map_err(WorkloadError::code)?;
        let kind = workload.payload.kind();
        if kind != PayloadKind::Wasm && !self.offer.runtimes.contains(&kind) {
            return Err(code!("redeem.no_runtime"));
        }
        if workload.egress && !self.offer.egress {
            return Err(code!("redeem.no_egress"));
        }
        let open = self.hosted.values().filter(|record| !is_released(record)).count();
        if open >= OPEN_LEASES_MAX {
            return Err(code!("redeem.busy"));
        }
        self.grant(ctx, register, lease, &redeem, workload, bought)
    }

    fn use_challenge(&mut self, now_ms: TimeMs, peer: Key, redeem: &Redeem) -> bool {
        let meant = |live: &Challenge| live.nonce == redeem.challenge32 && live.peer == peer;
        if !self.challenges.get(&redeem.cert_id).is_some_and(meant) {
            return false;
        }
        let used = self.challenges.remove(&redeem.cert_id);
        used.is_some_and(|used| used.expires_at_ms > now_ms)
    }

    fn grant(
        &mut self,
        ctx: &mut Context<'_>,
        register: &mut Register,
        lease: LeaseId,
        redeem: &Redeem,
        workload: &Workload,
        Bought { window, units, cpu_milli, memory_bytes, disk_bytes }: Bought,
    ) -> Result<LeaseReply, &'static str> {
        let grant = register.consume_redeem(ctx, redeem.cert_id, lease)?;
        let record = LeaseRecord {
            cert_id: redeem.cert_id,
            holder: redeem.holder,
            grant: grant.clone(),
            workload: workload.clone(),
            order: 1,
            units,
            window,
            starts_at_ms: window.starts_at_ms(ctx.params.slot_s),
            ends_at_ms: window.ends_at_ms(ctx.params.slot_s),
            cpu_max_milli: cpu_milli,
            memory_max_bytes: memory_bytes,
            disk_max_bytes: disk_bytes,
            extensions: Vec::new(),
            phase: Phase::Reserved,
            receipts: Vec::new(),
            countersigned: 0,
            countersignature: None,
            failure: None,
            announced_ms: 0,
            is_withdrawn: false,
        };
        ctx.out.store(&lease.0, &record);
        publish_grant(ctx, &grant);
        let same_holder = self.same_holder(&lease, record.holder);
        ctx.out.push(prepare(lease, &record, same_holder));
        notify(ctx, lease, record.phase.name());
        let reply = lease_reply(lease, &record);
        self.hosted.insert(lease, record);
        Ok(reply)
    }

    fn on_status(
        &mut self,
        ctx: &mut Context<'_>,
        call: &Envelope,
        verb: Verb,
    ) -> Result<LeaseReply, &'static str> {
        let lease = self.authorise(ctx.now_ms, ctx.params, call, verb)?;
        if verb == Verb::Stop {
            self.stop_hosted(ctx, lease, StopReason::Holder);
        }
        self.status(ctx.now_ms, &lease).map(LeaseReply::Status).ok_or(code!("lease.not_found"))
    }

    /// State of a lease on this host. `need` is what the workload names while it is not
    /// ready; the node knows what of it has arrived.
    #[must_use]
    pub fn status(&self, now_ms: TimeMs, lease: &LeaseId) -> Option<LeaseStatus> {
        let record = self.hosted.get(lease)?;
        let usage = record.phase.usage();
        let waits = record.phase == Phase::Reserved;
        let exit = record.phase.exit();
        let why = exit.and_then(|exit| exit.code.clone()).or_else(|| loss(&record.phase));
        Some(LeaseStatus {
            phase: record.phase.name().to_owned(),
            runs: record.phase.runs(),
            started_at_ms: record.phase.started_at_ms(),
            exited_at_ms: exit.map(|exit| exit.at_ms),
            ended_at_ms: record.phase.end().map(|end| end.ended_at_ms),
            outcome: record.phase.outcome().cloned(),
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
            need: if waits { workload::needs(&record.workload) } else { Vec::new() },
            unavailable: self.unavailable(record, now_ms),
            maintenance: self.of_lease(record),
            code: record.failure.clone().or(why),
            score: self.score(record),
        })
    }

    /// Time in which a lease was not at its holder's disposal: by its receipts once it is over, and
    /// as far as it is known before.
    pub(super) fn unavailable(&self, record: &LeaseRecord, now_ms: TimeMs) -> Vec<Unavailable> {
        if record.phase.end().is_some() {
            let read = record.receipts.iter().filter_map(|receipt| receipt.peek::<Receipt>().ok());
            return receipts::merged(read.flat_map(|receipt| receipt.unavailable).map(Some));
        }
        let lost = self.lost(record, now_ms.min(record.ends_at_ms));
        receipts::merged(lost.by_cause().map(Some))
    }

    /// In which band this host was measured for what runs in a lease.
    pub(super) fn score(&self, record: &LeaseRecord) -> Option<Score> {
        self.offer.scores.get(&record.workload.payload.isolation()).copied()
    }

    fn on_restart(
        &mut self,
        ctx: &mut Context<'_>,
        call: &Envelope,
    ) -> Result<LeaseReply, &'static str> {
        let lease = self.authorise(ctx.now_ms, ctx.params, call, Verb::Restart)?;
        let record = self.hosted.get(&lease).ok_or(code!("lease.not_found"))?;
        let workload = record.workload.clone();
        self.order(ctx, lease, workload)
    }

    /// Checks the new workload as a redemption does; it runs on what was bought.
    fn on_replace(
        &mut self,
        ctx: &mut Context<'_>,
        call: &Envelope,
        workload: Workload,
    ) -> Result<LeaseReply, &'static str> {
        let verb = Verb::Replace(workload::digest(&workload));
        let lease = self.authorise(ctx.now_ms, ctx.params, call, verb)?;
        let record = self.hosted.get(&lease).ok_or(code!("lease.not_found"))?;
        workload::validate(&workload, record.disk_max_bytes).map_err(WorkloadError::code)?;
        workload::check_sealed(&workload, record.cert_id).map_err(WorkloadError::code)?;
        let is_wasm = |workload: &Workload| workload.payload.kind() == PayloadKind::Wasm;
        if is_wasm(&workload) != is_wasm(&record.workload) {
            return Err(code!("lease.other_kind"));
        }
        // One that has a way out keeps it, whatever its host offers by now.
        if workload.egress && !self.offer.egress && !record.workload.egress {
            return Err(code!("redeem.no_egress"));
        }
        self.order(ctx, lease, workload)
    }

    /// Has a workload run, also where one runs already.
    fn order(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        workload: Workload,
    ) -> Result<LeaseReply, &'static str> {
        let holder = self.hosted.get(&lease).map(|record| record.holder);
        let same_holder = holder.map(|holder| self.same_holder(&lease, holder));
        let record = self.hosted.get_mut(&lease).ok_or(code!("lease.not_found"))?;
        if record.phase.end().is_some() || ctx.now_ms >= record.ends_at_ms {
            return Err(code!("lease.ended"));
        }
        let watch = self.watch.entry(lease).or_default();
        let is_soon = |ordered_ms: TimeMs| ctx.now_ms.abs_diff(ordered_ms) < ORDER_MS;
        if watch.ordered_ms.is_some_and(is_soon) {
            return Err(code!("lease.busy"));
        }
        watch.ordered_ms = Some(ctx.now_ms);
        record.workload = workload;
        record.order = record.order.saturating_add(1);
        record.failure = None;
        ctx.out.store(&lease.0, record);
        ctx.out.push(prepare(lease, record, same_holder.unwrap_or_default()));
        self.status(ctx.now_ms, &lease).map(LeaseReply::Status).ok_or(code!("lease.not_found"))
    }

    fn on_receipts(
        &mut self,
        ctx: &mut Context<'_>,
        call: &Envelope,
        from_seq: u32,
    ) -> Result<LeaseReply, &'static str> {
        let lease = self.authorise(ctx.now_ms, ctx.params, call, Verb::Receipt)?;
        let record = self.hosted.get(&lease).ok_or(code!("lease.not_found"))?;
        let from = usize::try_from(from_seq).unwrap_or(usize::MAX);
        let wanted = record.receipts.iter().skip(from).take(RECEIPTS_PER_REPLY);
        Ok(LeaseReply::Receipts(wanted.cloned().collect()))
    }

    fn on_countersign(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        signature: &Envelope,
    ) -> Result<LeaseReply, &'static str> {
        let record = self.hosted.get_mut(&lease).ok_or(code!("lease.not_found"))?;
        if record.holder != Key(signature.key) {
            return Err(code!("lease.not_holder"));
        }
        let signed = signature.verify::<Countersign>(ctx.params.magic);
        let signed = signed.map_err(|_| "lease.bad_signature")?;
        let magic = ctx.params.magic;
        let is_meant = |receipt: &Envelope| receipt.id::<Receipt>(magic) == signed.receipt;
        let place = record.receipts.iter().position(is_meant).ok_or(code!("receipt.unknown"))?;
        let countersigned = u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1);
        if countersigned > record.countersigned {
            record.countersigned = countersigned;
            record.countersignature = Some(signature.clone());
            ctx.out.store(&lease.0, record);
        }
        self.release_if_done(ctx, lease);
        Ok(LeaseReply::Stored)
    }

    /// Something happened to a lease on this host.
    pub fn on_executor(&mut self, ctx: &mut Context<'_>, lease: LeaseId, event: ExecutorEvent) {
        let Some(record) = self.hosted.get_mut(&lease) else {
            return;
        };
        match event {
            ExecutorEvent::Complete => {
                if record.phase.end().is_none() && ctx.now_ms < record.ends_at_ms {
                    ctx.out.push(Effect::Lease(LeaseEffect::Launch { lease }));
                }
            }
            ExecutorEvent::Fetched { name } => {
                if record.workload.results.contains(&name) {
                    self.watch.entry(lease).or_default().fetched.insert(name);
                    self.release_if_done(ctx, lease);
                }
            }
            ExecutorEvent::Failed { code } => self.on_failure(ctx, lease, code),
            ExecutorEvent::Announced { ms } => {
                if record.phase.end().is_none() && ms > record.announced_ms {
                    record.announced_ms = ms;
                    ctx.out.store(&lease.0, record);
                }
            }
            event @ (ExecutorEvent::Ready
            | ExecutorEvent::Started { .. }
            | ExecutorEvent::Usage(_)
            | ExecutorEvent::Exited { .. }
            | ExecutorEvent::Interrupted { .. }
            | ExecutorEvent::Ended { .. }
            | ExecutorEvent::Released { .. }) => {
                let Some(phase) = record.phase.after(&event) else {
                    return;
                };
                record.phase = phase;
                if matches!(event, ExecutorEvent::Started { .. }) {
                    // It may leave other results.
                    self.watch.entry(lease).or_default().fetched.clear();
                    record.failure = None;
                }
                // Samples are not facts to keep: the final one comes with the end.
                if !matches!(event, ExecutorEvent::Usage(_)) {
                    self.changed(ctx, lease);
                }
            }
        }
    }

    /// The host cannot run a lease: its end is the provider's failure. One that it has run has a
    /// process that tells its own end, so what fails is only the workload to come.
    fn on_failure(&mut self, ctx: &mut Context<'_>, lease: LeaseId, code: &str) {
        let Some(record) = self.hosted.get_mut(&lease) else {
            return;
        };
        if record.phase.end().is_some() || record.failure.as_deref() == Some(code) {
            return;
        }
        record.failure = Some(code.to_owned());
        if record.phase != Phase::Reserved {
            ctx.out.store(&lease.0, record);
            return;
        }
        record.phase = record.phase.ended(Outcome::Failed, None, ctx.now_ms, Usage::default());
        self.changed(ctx, lease);
    }

    /// Stores a new phase, with the final receipt if it is the end.
    fn changed(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some(record) = self.hosted.get_mut(&lease) else {
            return;
        };
        if let Phase::Ended(end) = &record.phase {
            let code = match end.outcome {
                Outcome::Failed => Some("lease.failed"),
                Outcome::Interrupted => Some("lease.interrupted"),
                Outcome::Deadline => None,
                Outcome::Exited { .. }
                | Outcome::Trapped
                | Outcome::Stopped
                | Outcome::OutOfMemory
                | Outcome::OutOfDisk
                | Outcome::Unfit => record.is_withdrawn.then_some("lease.withdrawn"),
            };
            record.failure = record.failure.take().or(code.map(str::to_owned));
            let chain = chain(record, ctx.params.magic);
            let window_ms = (record.starts_at_ms, record.ends_at_ms);
            let by_provider =
                ByProvider { announced_ms: record.announced_ms, has_ended_it: record.is_withdrawn };
            let period = Period::last(end, by_provider, window_ms, &chain);
            let receipt = ctx.sign(receipts::next(ctx.me(), (lease, record.units), &chain, period));
            record.receipts.push(receipt.envelope().clone());
        }
        ctx.out.store(&lease.0, record);
        notify(ctx, lease, record.phase.name());
    }

    /// Other leases of a holder whose content is here.
    fn same_holder(&self, lease: &LeaseId, holder: Key) -> Vec<LeaseId> {
        let is_one = |(other, record): &(&LeaseId, &LeaseRecord)| {
            *other != lease && record.holder == holder && !is_released(record)
        };
        let others = self.hosted.iter().filter(is_one).map(|(other, _)| *other);
        others.take(SHARING_MAX).collect()
    }

    pub(super) fn stop_hosted(&mut self, ctx: &mut Context<'_>, lease: LeaseId, why: StopReason) {
        let me = ctx.me();
        let Some(record) =
            self.hosted.get_mut(&lease).filter(|record| record.phase.end().is_none())
        else {
            return;
        };
        // On disk before it is done: what it cost the holder is on the receipt.
        if why == StopReason::Operator && record.holder != me && !record.is_withdrawn {
            record.is_withdrawn = true;
            ctx.out.store(&lease.0, record);
        }
        ctx.out.push(Effect::Lease(LeaseEffect::Stop { lease, why }));
    }

    pub(super) fn resume_hosted(&mut self, ctx: &mut Context<'_>) {
        for (lease, record) in &self.hosted {
            if record.phase.end().is_none() && ctx.now_ms < record.ends_at_ms {
                let same_holder = self.same_holder(lease, record.holder);
                ctx.out.push(prepare(*lease, record, same_holder));
            }
        }
    }

    pub(super) fn tick_hosted(&mut self, ctx: &mut Context<'_>) {
        let open = self.hosted.iter().filter(|(_, record)| !is_released(record));
        let open: Vec<LeaseId> = open.map(|(id, _)| *id).collect();
        for lease in open {
            self.first_receipt(ctx, lease);
            self.end_of_window(ctx, lease);
            self.release_if_done(ctx, lease);
        }
    }

    fn first_receipt(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some(record) = self.hosted.get(&lease) else {
            return;
        };
        let Some(due_ms) = first_receipt_ms(record, ctx.params) else {
            return;
        };
        if ctx.now_ms < due_ms {
            return;
        }
        let Some(started_at_ms) = record.phase.started_at_ms() else {
            return;
        };
        let lost = self.lost(record, due_ms);
        let Some(record) = self.hosted.get_mut(&lease) else {
            return;
        };
        let period = Period::passing((started_at_ms, due_ms), lost, record.phase.usage(), &[]);
        let receipt = ctx.sign(receipts::next(ctx.me(), (lease, record.units), &[], period));
        record.receipts.push(receipt.envelope().clone());
        ctx.out.store(&lease.0, record);
    }

    /// The shim ends a lease by itself, even without this daemon; this is the second lock.
    fn end_of_window(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some(record) = self.hosted.get_mut(&lease) else {
            return;
        };
        if record.phase.end().is_some() || ctx.now_ms < record.ends_at_ms {
            return;
        }
        let watch = self.watch.entry(lease).or_default();
        let stop = watch.stop.get_or_insert(Retry::new(Pace::PEER, ctx.now_ms));
        if ctx.now_ms < stop.due_ms() {
            return;
        }
        if stop.tries() < STOPS_MAX && stop.take(ctx.now_ms) {
            ctx.out.push(Effect::Lease(LeaseEffect::Stop { lease, why: StopReason::WindowEnd }));
            return;
        }
        let end_ms = record.ends_at_ms;
        record.phase = record.phase.ended(Outcome::Failed, None, end_ms, record.phase.usage());
        self.changed(ctx, lease);
    }

    /// Releases an ended lease once the holder has agreed and fetched, or its time is over.
    fn release_if_done(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let Some(record) = self.hosted.get(&lease) else {
            return;
        };
        let watch = self.watch.entry(lease).or_default();
        if release_at_ms(record, watch, ctx.params).is_none_or(|due_ms| ctx.now_ms < due_ms) {
            return;
        }
        let retry = watch.release.get_or_insert(Retry::new(Pace::PEER, ctx.now_ms));
        if retry.due_ms() <= ctx.now_ms && retry.take(ctx.now_ms) {
            ctx.out.push(Effect::Lease(LeaseEffect::Release { lease }));
        }
    }

    pub(super) fn hosted_deadlines(&self, params: &Params) -> impl Iterator<Item = TimeMs> {
        self.hosted.iter().filter_map(move |(lease, record)| {
            let watch = self.watch.get(lease);
            if record.phase.end().is_none() {
                let stop = watch.and_then(|watch| watch.stop).map(Retry::due_ms);
                let end_ms = record.ends_at_ms.max(stop.unwrap_or(0));
                return Some(first_receipt_ms(record, params).unwrap_or(end_ms).min(end_ms));
            }
            let fresh = Watch::default();
            let watch = watch.unwrap_or(&fresh);
            if watch.release.is_some_and(Retry::is_spent) {
                // The host does not answer; the next start of the daemon tries again.
                return None;
            }
            let retry = watch.release.map_or(0, Retry::due_ms);
            Some(release_at_ms(record, watch, params)?.max(retry))
        })
    }
}

/// Why a lease is without a process, if it is.
pub(super) fn loss(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Interrupted { loss, .. } => Some(loss.code().to_owned()),
        Phase::Reserved
        | Phase::Ready
        | Phase::Running { .. }
        | Phase::Exited { .. }
        | Phase::Ended(_)
        | Phase::Released { .. } => None,
    }
}

fn is_released(record: &LeaseRecord) -> bool {
    matches!(record.phase, Phase::Released { .. })
}

/// When the first receipt is due, unix ms. Networks with slots shorter than the period
/// settle with the final one alone, as do leases that end before.
fn first_receipt_ms(record: &LeaseRecord, params: &Params) -> Option<TimeMs> {
    if record.phase.end().is_some() {
        return None;
    }
    let due_ms = record.phase.started_at_ms()?.saturating_add(PERIOD_MS);
    let public = u64::from(params.slot_s) * 1000 >= PERIOD_MS;
    (public && record.receipts.is_empty() && due_ms < record.ends_at_ms).then_some(due_ms)
}

/// From when on an ended lease may be released, unix ms.
fn release_at_ms(record: &LeaseRecord, watch: &Watch, params: &Params) -> Option<TimeMs> {
    let Phase::Ended(end) = &record.phase else {
        return None;
    };
    let agreed = usize::try_from(record.countersigned).is_ok_and(|n| n >= record.receipts.len());
    let mut results = record.workload.results.iter();
    if agreed && results.all(|name| watch.fetched.contains(name)) {
        return Some(end.ended_at_ms);
    }
    Some(end.ended_at_ms.saturating_add(params.lease.retention_ms))
}

/// The receipts of this node's own journal.
fn chain(record: &LeaseRecord, magic: Magic) -> Vec<Verified<Receipt>> {
    record.receipts.iter().filter_map(|receipt| receipt.verify(magic).ok()).collect()
}

pub(super) fn prepare(lease: LeaseId, record: &LeaseRecord, same_holder: Vec<LeaseId>) -> Effect {
    Effect::Lease(LeaseEffect::Prepare {
        lease,
        cert: record.cert_id,
        workload: Box::new(record.workload.clone()),
        order: record.order,
        starts_at_ms: record.starts_at_ms,
        ends_at_ms: record.ends_at_ms,
        cpu_max_milli: record.cpu_max_milli,
        memory_max_bytes: record.memory_max_bytes,
        disk_max_bytes: record.disk_max_bytes,
        same_holder,
    })
}

fn refused(code: &'static str) -> LeaseReply {
    LeaseReply::Refused { code: code.to_owned() }
}

fn lease_reply(lease: LeaseId, record: &LeaseRecord) -> LeaseReply {
    LeaseReply::Lease {
        lease,
        grant: record.grant.clone(),
        need: workload::needs(&record.workload),
        starts_at_ms: record.starts_at_ms,
        ends_at_ms: record.ends_at_ms,
    }
}
