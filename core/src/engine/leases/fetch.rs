//! The holder's client of a lease: uploads what runs, follows its output, fetches results
//! and receipts. One request at a time and lease; what must outlast a restart is in the
//! record of the lease and in its files.
//!
//! ```text
//! Open → Upload… → stdout → stderr → status → receipts
//!            ↑       ↑                  │
//!            │       └── each result ←──┤ a run is over
//!            └──────────────────────────┘ another workload, or another run
//! ```
//!
//! A step that fails does not stop the next ones: after a restart the lease may have ended,
//! and what is left of it is still worth having.

use super::io::{HeldEvent, HeldFile, HeldJob, LeaseEffect};
use super::records::{Answer, FetchedResult, HeldLease};
use super::{LeasePurpose, Leases, notify};
use crate::engine::io::{Effect, Protocol};
use crate::engine::kernel::{Context, Pace, Retry};
use crate::ids::{Digest, LeaseId};
use crate::lease::objects::{LeaseReply, LeaseRequest, PayloadKind, Receipt, Stream, Verb};
use crate::lease::workload;
use crate::limits::{LEASE_CHUNK_BYTES, RESULTS_MAX_BYTES, STREAM_MAX_BYTES};
use crate::units::TimeMs;
use crate::wire::Envelope;

/// A call is good for this long, s: longer than an answer may take.
const CALL_LIFE_S: u64 = 60;
/// Wait before asking again where there was nothing new, ms: the provider waits a little by
/// itself before it says so.
const PAUSE_MS: u64 = 100;
/// How often the provider is asked where the lease stands while its output is followed, ms: a
/// person who looks sees it move, and each call costs the provider a signature check.
const STATUS_MS: u64 = 1_000;
/// Repetition of what was not answered: the provider may be restarting.
const UNANSWERED: Pace = Pace::between(100, 5_000);
/// After this time an answer of the own disk is lost, ms.
const DISK_MS: u64 = 60_000;

/// Where the client of a lease stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Open,
    /// Which of the content, and what the provider has of it.
    Upload {
        index: usize,
        offset: u64,
        /// The provider has said so: it may have all of it from another lease, or a part from
        /// before a restart.
        is_told: bool,
    },
    Output {
        stream: Stream,
        from: u64,
    },
    /// Which result, and how much of it is here.
    Result {
        index: usize,
        from: u64,
    },
    /// How it ended, as told: receipts are compared with it.
    Status,
    Receipts,
}

impl Step {
    fn upload(index: usize) -> Self {
        Self::Upload { index, offset: 0, is_told: false }
    }
}

/// How much of the content of a workload its provider has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    pub sent_bytes: u64,
    pub total_bytes: u64,
}

/// What the provider said of the workload when output and results began to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    runs: u32,
    /// The last of them is over, so there may be results.
    is_over: bool,
    /// The lease is.
    has_ended: bool,
}

/// What the step waits for. The provider always answers, if only by its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nothing: it is due at the time.
    Until,
    Disk,
    /// The own disk, for a part after which the file or stream is whole.
    LastWrite,
    Peer,
}

fn held(job: HeldJob) -> Effect {
    Effect::Lease(LeaseEffect::Held(job))
}

/// Whether a refusal will not last: the host has too much to do, or the room for the content
/// is still being made.
fn is_passing(step: &Step, code: &str) -> bool {
    code == "lease.busy" || (code == "lease.not_found" && matches!(step, Step::Upload { .. }))
}

/// Bytes of results of one pass that may still come.
fn room(record: &HeldLease, pass: Option<Pass>) -> u64 {
    let of_pass = record.results.iter().filter(|result| is_of(result, pass));
    let fetched = of_pass.map(|result| result.bytes).fold(0, u64::saturating_add);
    RESULTS_MAX_BYTES.saturating_sub(fetched)
}

fn is_of(result: &FetchedResult, pass: Option<Pass>) -> bool {
    pass.is_some_and(|pass| pass.runs == result.run)
}

/// The client of one lease, in this life.
#[derive(Debug)]
pub(super) struct Fetch {
    step: Step,
    waits: Waits,
    due_ms: TimeMs,
    retry: Retry,
    /// Output that is here.
    stdout: u64,
    stderr: u64,
    /// What is being fetched; not known at first.
    pass: Option<Pass>,
    /// Bytes of results that may still come.
    room: u64,
    /// When the provider told last where the lease stands.
    told_ms: Option<TimeMs>,
}

impl Fetch {
    fn new(now_ms: TimeMs, record: &HeldLease) -> Self {
        Self {
            step: Step::Open,
            waits: Waits::Until,
            due_ms: now_ms,
            retry: Retry::new(UNANSWERED, now_ms),
            stdout: 0,
            stderr: 0,
            pass: None,
            room: room(record, None),
            told_ms: None,
        }
    }

    fn wait(&mut self, waits: Waits, due_ms: TimeMs) {
        (self.waits, self.due_ms) = (waits, due_ms);
    }

    /// Whether something is due. What is further away than any wait was set by a clock that has
    /// been set back since; an answer of the provider has no time.
    fn is_due(&self, now_ms: TimeMs) -> bool {
        let is_too_far = self.waits != Waits::Peer && self.due_ms.saturating_sub(now_ms) > DISK_MS;
        self.due_ms <= now_ms || is_too_far
    }

    /// Whether it is time to ask where the lease stands, also after the clock was set back.
    fn asks_status(&self, now_ms: TimeMs) -> bool {
        let is_old = |told_ms: TimeMs| now_ms.abs_diff(told_ms) >= STATUS_MS;
        match self.step {
            Step::Status => true,
            Step::Output { .. } => self.told_ms.is_none_or(is_old),
            Step::Open | Step::Upload { .. } | Step::Result { .. } | Step::Receipts => false,
        }
    }

    fn go_to(&mut self, step: Step, now_ms: TimeMs) {
        self.step = step;
        self.retry.reset(now_ms);
        self.wait(Waits::Until, now_ms);
    }
}

impl Leases {
    /// Begins to follow a lease that was granted, unless all of it is here.
    pub(super) fn follow(&mut self, now_ms: TimeMs, lease: LeaseId) {
        let granted = self
            .held
            .get(&lease)
            .filter(|record| !record.is_fetched && matches!(record.answer, Answer::Granted(_)));
        if let Some(record) = granted {
            self.fetching.entry(lease).or_insert_with(|| Fetch::new(now_ms, record));
        }
    }

    /// Asks once more how a lease ended, and for its receipts, to compare them.
    pub(super) fn compare_again(&mut self, now_ms: TimeMs, lease: LeaseId) {
        if let Some(record) = self.held.get(&lease) {
            let fetch = Fetch { step: Step::Status, ..Fetch::new(now_ms, record) };
            self.fetching.insert(lease, fetch);
        }
    }

    pub(super) fn tick_fetching(&mut self, ctx: &mut Context<'_>) {
        let due = self.fetching.iter().filter(|(_, fetch)| fetch.is_due(ctx.now_ms));
        let due: Vec<(LeaseId, Waits)> = due.map(|(lease, fetch)| (*lease, fetch.waits)).collect();
        for (lease, waits) in due {
            match waits {
                Waits::Until => self.act(ctx, lease),
                Waits::Disk | Waits::LastWrite => self.on_disk_failure(ctx, lease),
                Waits::Peer => {}
            }
        }
    }

    pub(super) fn fetching_deadlines(&self) -> impl Iterator<Item = TimeMs> {
        self.fetching.values().map(|fetch| fetch.due_ms)
    }

    /// Does what the step of a lease asks for, or asks for it again.
    fn act(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get_mut(&lease))
        else {
            return;
        };
        let disk_ms = ctx.now_ms.saturating_add(DISK_MS);
        // What has ended needs no content any more; whether it has may be asked first.
        let has_ended = fetch.pass.is_some_and(|pass| pass.has_ended);
        let is_asking = fetch.step == Step::Status && fetch.pass.is_none();
        let may_wait = has_ended || is_asking;
        if record.uploads && !may_wait && !matches!(fetch.step, Step::Open | Step::Upload { .. }) {
            fetch.go_to(Step::upload(0), ctx.now_ms);
        }
        let workload = &record.workload;
        if fetch.asks_status(ctx.now_ms) {
            let status = |call| LeaseRequest::Status { call };
            return self.call(ctx, lease, Verb::Status, status);
        }
        let (verb, request): (Verb, Box<dyn FnOnce(Envelope) -> LeaseRequest>) = match &fetch.step {
            Step::Open => {
                fetch.wait(Waits::Disk, disk_ms);
                return ctx.out.push(held(HeldJob::Open { lease }));
            }
            Step::Upload { index, offset, is_told } => {
                let Some(content) = workload::needs(workload).get(*index).copied() else {
                    return self.skip(ctx, lease);
                };
                // What is sent at once need not be asked for, but after a silence it may be there, and
                // of an image its provider may have fetched what is not here.
                let is_short = workload::size_of(workload, content) <= LEASE_CHUNK_BYTES as u64
                    && workload.payload.kind() != PayloadKind::Oci;
                if !is_told && (!is_short || fetch.retry.tries() > 0) {
                    let (digest, bytes) = (content, Vec::new());
                    let put = move |call| LeaseRequest::Put { call, digest, offset: 0, bytes };
                    return self.call(ctx, lease, Verb::Put, put);
                }
                let (workload, offset) = (workload::digest(workload), *offset);
                fetch.wait(Waits::Disk, disk_ms);
                return ctx.out.push(held(HeldJob::Read { lease, workload, content, offset }));
            }
            Step::Output { stream, from } => {
                let (stream, from) = (*stream, *from);
                (Verb::Logs, Box::new(move |call| LeaseRequest::Logs { call, stream, from }))
            }
            Step::Result { index, from } => {
                let (name, from) = (workload.results.get(*index).cloned(), *from);
                let name = name.unwrap_or_default();
                (Verb::Get, Box::new(move |call| LeaseRequest::Get { call, name, from }))
            }
            // Asked above.
            Step::Status => return,
            Step::Receipts => {
                (Verb::Receipt, Box::new(|call| LeaseRequest::Receipts { call, from_seq: 0 }))
            }
        };
        self.call(ctx, lease, verb, request);
    }

    /// Asks the provider.
    fn call(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        verb: Verb,
        request: impl FnOnce(Envelope) -> LeaseRequest,
    ) {
        let call = self.sign_call(ctx, lease, verb, CALL_LIFE_S);
        let (Ok(call), Some(record)) = (call, self.held.get(&lease)) else { return };
        let Some(fetch) = self.fetching.get_mut(&lease) else { return };
        fetch.wait(Waits::Peer, TimeMs::MAX);
        let purpose = LeasePurpose::Fetch(lease);
        if !ctx.out.send(record.provider, Protocol::Lease, &request(call), purpose) {
            self.on_silence(ctx, lease);
        }
    }

    /// The own disk answered.
    pub fn on_held(&mut self, ctx: &mut Context<'_>, lease: LeaseId, event: HeldEvent) {
        let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get_mut(&lease))
        else {
            return;
        };
        if !matches!(fetch.waits, Waits::Disk | Waits::LastWrite) {
            // Late: the step was tried again since, or is over.
            return;
        }
        let is_last = fetch.waits == Waits::LastWrite;
        match (&fetch.step, event) {
            (Step::Open, HeldEvent::Opened { stdout, stderr }) => {
                (fetch.stdout, fetch.stderr) = (stdout, stderr);
                fetch.go_to(Step::Output { stream: Stream::Stdout, from: stdout }, ctx.now_ms);
            }
            (Step::Upload { index, offset, .. }, HeldEvent::Read { bytes }) => {
                let Some(digest) = workload::needs(&record.workload).get(*index).copied() else {
                    return;
                };
                let offset = *offset;
                let put = move |call| LeaseRequest::Put { call, digest, offset, bytes };
                return self.call(ctx, lease, Verb::Put, put);
            }
            (Step::Output { .. }, HeldEvent::Written) if is_last => return self.skip(ctx, lease),
            (Step::Result { index, .. }, HeldEvent::Written) if is_last => {
                let name = record.workload.results.get(*index).cloned().unwrap_or_default();
                fetch.wait(Waits::Disk, ctx.now_ms.saturating_add(DISK_MS));
                return ctx.out.push(held(HeldJob::Finish { lease, name }));
            }
            (Step::Output { .. } | Step::Result { .. }, HeldEvent::Written) => {
                fetch.retry.reset(ctx.now_ms);
                fetch.wait(Waits::Until, ctx.now_ms);
            }
            (Step::Result { index, .. }, HeldEvent::Finished { bytes, sha256 }) => {
                let index = *index;
                return self.keep_result(ctx, lease, index, bytes, sha256);
            }
            _ => return self.on_disk_failure(ctx, lease),
        }
        self.act_if_due(ctx, lease);
    }

    /// What is on the disk is not known any more: begins again from what is.
    fn on_disk_failure(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        if let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get_mut(&lease))
            && fetch.step != Step::Open
        {
            let retry = fetch.retry;
            *fetch = Fetch { retry, ..Fetch::new(ctx.now_ms, record) };
        }
        self.on_silence(ctx, lease);
    }

    fn act_if_due(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let due = |fetch: &Fetch| fetch.waits == Waits::Until && fetch.due_ms <= ctx.now_ms;
        if self.fetching.get(&lease).is_some_and(due) {
            self.act(ctx, lease);
        }
    }

    fn keep_result(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        index: usize,
        bytes: u64,
        sha256: Digest,
    ) {
        if let Some(record) = self.held.get_mut(&lease)
            && let Some(name) = record.workload.results.get(index).cloned()
        {
            let pass = self.fetching.get(&lease).and_then(|fetch| fetch.pass);
            let run = pass.map_or(0, |pass| pass.runs);
            record.results.retain(|result| result.name != name);
            record.results.push(FetchedResult { name, bytes, sha256, run });
            ctx.out.store(&lease.0, record);
        }
        self.skip(ctx, lease);
    }

    /// The provider answered a call of the client, or could not be reached.
    pub(super) fn on_fetch_reply(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        result: Result<LeaseReply, String>,
    ) {
        let Some(fetch) = self.fetching.get_mut(&lease) else { return };
        if fetch.waits != Waits::Peer {
            return;
        }
        match (fetch.step.clone(), result) {
            (_, Err(_)) => self.on_silence(ctx, lease),
            (Step::Upload { index, .. }, Ok(LeaseReply::Progress { complete: true, .. })) => {
                fetch.go_to(Step::upload(index + 1), ctx.now_ms);
                self.after_upload(ctx, lease);
            }
            (
                Step::Upload { index, offset, is_told },
                Ok(LeaseReply::Progress { received, .. }),
            ) => {
                let before = is_told.then_some(offset);
                self.on_progress(ctx, lease, index, before, received);
            }
            (Step::Output { stream, from }, Ok(LeaseReply::Bytes { bytes, end })) => {
                self.on_output(ctx, lease, stream, from, bytes, end);
            }
            (Step::Result { index, from }, Ok(LeaseReply::Bytes { bytes, end })) => {
                self.on_part(ctx, lease, index, from, bytes, end);
            }
            (Step::Status, Ok(LeaseReply::Status(status))) => {
                let said = Pass {
                    runs: status.runs,
                    is_over: status.exited_at_ms.or(status.ended_at_ms).is_some(),
                    has_ended: status.ended_at_ms.is_some(),
                };
                self.note_status(ctx, lease, status);
                self.on_pass(ctx, lease, said);
            }
            (Step::Output { .. }, Ok(LeaseReply::Status(status))) => {
                fetch.told_ms = Some(ctx.now_ms);
                fetch.retry.reset(ctx.now_ms);
                fetch.wait(Waits::Until, ctx.now_ms);
                self.note_status(ctx, lease, status);
                self.act_if_due(ctx, lease);
            }
            (Step::Receipts, Ok(LeaseReply::Receipts(receipts))) => {
                self.on_receipts_reply(ctx, lease, &receipts);
            }
            (step, Ok(LeaseReply::Refused { code })) if is_passing(&step, &code) => {
                self.on_silence(ctx, lease);
            }
            // Refused, or an answer to something else: a workload need not leave every
            // result, and the rest still counts.
            (_, Ok(_)) => self.skip(ctx, lease),
        }
    }

    /// The provider said how far the workload is, after its output was read: what has been
    /// fetched since the same was said before is all of it.
    fn on_pass(&mut self, ctx: &mut Context<'_>, lease: LeaseId, said: Pass) {
        let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get_mut(&lease))
        else {
            return;
        };
        let before = fetch.pass.replace(said);
        // Receipts that are here came after all else, and are only compared again.
        let is_whole = before == Some(said) || !record.receipts.is_empty();
        if is_whole && said.has_ended {
            return self.skip(ctx, lease);
        }
        let runs_again = before.is_some_and(|before| before.is_over) && !said.is_over;
        if before != Some(said) && (said.is_over || runs_again) {
            fetch.room = room(record, fetch.pass);
            let from = fetch.stdout;
            fetch.go_to(Step::Output { stream: Stream::Stdout, from }, ctx.now_ms);
            return self.act(ctx, lease);
        }
        // The output can end before the provider's engine knows. Receipts are judged by what was
        // told of the end, so that is awaited.
        self.pause(ctx, lease);
        if let Some(fetch) = self.fetching.get_mut(&lease)
            && said.is_over
            && fetch.step == Step::Status
        {
            fetch.wait(Waits::Until, ctx.now_ms.saturating_add(STATUS_MS));
        }
    }

    fn after_upload(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get(&lease)) else {
            return;
        };
        let parts = workload::needs(&record.workload).len();
        match fetch.step {
            Step::Upload { index, .. } if index >= parts => self.skip(ctx, lease),
            Step::Open
            | Step::Upload { .. }
            | Step::Output { .. }
            | Step::Result { .. }
            | Step::Status
            | Step::Receipts => self.act(ctx, lease),
        }
    }

    /// Less than before means that the provider lost it: begin again from what it has.
    fn on_progress(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        index: usize,
        before: Option<u64>,
        received: u64,
    ) {
        let (Some(record), Some(fetch)) = (self.held.get(&lease), self.fetching.get_mut(&lease))
        else {
            return;
        };
        let content = workload::needs(&record.workload).get(index).copied();
        if content.is_none_or(|digest| received > workload::size_of(&record.workload, digest)) {
            return self.skip(ctx, lease);
        }
        fetch.step = Step::Upload { index, offset: received, is_told: true };
        if before.is_some_and(|before| received <= before) {
            return self.pause(ctx, lease);
        }
        fetch.retry.reset(ctx.now_ms);
        self.act(ctx, lease);
    }

    /// Keeps a part of output. An honest provider keeps no more of it than this node.
    fn on_output(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        stream: Stream,
        from: u64,
        mut bytes: Vec<u8>,
        end: bool,
    ) {
        let room = usize::try_from(STREAM_MAX_BYTES.saturating_sub(from)).unwrap_or(usize::MAX);
        bytes.truncate(room);
        let is_last = end || bytes.len() == room;
        if bytes.is_empty() {
            return if is_last { self.skip(ctx, lease) } else { self.pause(ctx, lease) };
        }
        let next = from.saturating_add(bytes.len() as u64);
        if let Some(fetch) = self.fetching.get_mut(&lease) {
            match stream {
                Stream::Stdout => fetch.stdout = next,
                Stream::Stderr => fetch.stderr = next,
            }
        }
        let next = Step::Output { stream, from: next };
        self.write(ctx, lease, HeldFile::Output(stream), next, from, bytes, is_last);
    }

    /// Keeps a part of a result. All results together have a limit; one that goes beyond is
    /// left out.
    fn on_part(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        index: usize,
        from: u64,
        bytes: Vec<u8>,
        end: bool,
    ) {
        let Some(fetch) = self.fetching.get_mut(&lease) else { return };
        let Some(room) = fetch.room.checked_sub(bytes.len() as u64) else {
            return self.skip(ctx, lease);
        };
        fetch.room = room;
        if bytes.is_empty() && !end {
            return self.pause(ctx, lease);
        }
        let next = Step::Result { index, from: from.saturating_add(bytes.len() as u64) };
        self.write(ctx, lease, HeldFile::Partial, next, from, bytes, end);
    }

    #[allow(clippy::too_many_arguments, reason = "one part of one file")]
    fn write(
        &mut self,
        ctx: &mut Context<'_>,
        lease: LeaseId,
        file: HeldFile,
        next: Step,
        offset: u64,
        bytes: Vec<u8>,
        is_last: bool,
    ) {
        let Some(fetch) = self.fetching.get_mut(&lease) else { return };
        fetch.step = next;
        let waits = if is_last { Waits::LastWrite } else { Waits::Disk };
        fetch.wait(waits, ctx.now_ms.saturating_add(DISK_MS));
        ctx.out.push(held(HeldJob::Write { lease, file, offset, bytes }));
    }

    /// Takes the receipts once the last of them is there.
    fn on_receipts_reply(&mut self, ctx: &mut Context<'_>, lease: LeaseId, receipts: &[Envelope]) {
        let last = receipts.last().and_then(|last| last.peek::<Receipt>().ok());
        if last.is_none_or(|last| last.outcome.is_none()) {
            return self.pause(ctx, lease);
        }
        // Receipts that prove nothing are neither kept nor countersigned.
        let _ = self.store_receipts(ctx, lease, receipts);
        if let Some(record) = self.held.get_mut(&lease) {
            record.is_fetched = true;
            ctx.out.store(&lease.0, record);
            notify(ctx, lease, "fetched");
        }
        self.end_fetch(ctx, lease);
    }

    /// Asks again after a while, unless the provider need not keep the lease any more.
    fn pause(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        if self.is_forgotten(ctx, lease) {
            return self.skip(ctx, lease);
        }
        if let Some(fetch) = self.fetching.get_mut(&lease) {
            fetch.retry.reset(ctx.now_ms);
            fetch.wait(Waits::Until, ctx.now_ms.saturating_add(PAUSE_MS));
        }
    }

    /// Provider or disk did not answer.
    fn on_silence(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        if self.is_forgotten(ctx, lease) {
            return self.skip(ctx, lease);
        }
        if let Some(fetch) = self.fetching.get_mut(&lease) {
            // What was sent may have come all the same.
            if let Step::Upload { is_told, .. } = &mut fetch.step {
                *is_told = false;
            }
            // There is always one more try: the time of the lease ends them.
            let _ = fetch.retry.take(ctx.now_ms);
            fetch.wait(Waits::Until, fetch.retry.due_ms());
        }
    }

    /// Whether the provider need not keep the lease any more. A clock that is ahead says so of
    /// one that is still running, and what is given up is not asked for again in this life.
    fn is_forgotten(&self, ctx: &Context<'_>, lease: LeaseId) -> bool {
        self.held.get(&lease).is_none_or(|record| {
            let ends_at_ms = record.window.ends_at_ms(ctx.params.slot_s);
            let lease = &ctx.params.lease;
            let kept_ms = lease.grace_ms.saturating_add(lease.retention_ms);
            ctx.past_ms() > ends_at_ms.saturating_add(kept_ms)
        })
    }

    /// Goes on to the next step; after the last one nothing is asked any more.
    fn skip(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        let (Some(record), Some(fetch)) =
            (self.held.get_mut(&lease), self.fetching.get_mut(&lease))
        else {
            return;
        };
        let pass = fetch.pass.filter(|pass| pass.is_over);
        let result_from = |first: usize| {
            let is_here = |name: &String| {
                record.results.iter().any(|there| there.name == *name && is_of(there, pass))
            };
            let wanted = record.workload.results.iter().enumerate().skip(first);
            let next = wanted.filter(|(_, name)| !is_here(name)).map(|(index, _)| index).next();
            // What runs has no results yet.
            let next = next.filter(|_| pass.is_some());
            next.map_or(Step::Status, |index| Step::Result { index, from: 0 })
        };
        let next = match &fetch.step {
            Step::Open => Step::Output { stream: Stream::Stdout, from: 0 },
            Step::Upload { .. } => Step::Output { stream: Stream::Stdout, from: fetch.stdout },
            Step::Output { stream: Stream::Stdout, .. } => {
                Step::Output { stream: Stream::Stderr, from: fetch.stderr }
            }
            Step::Output { stream: Stream::Stderr, .. } => result_from(0),
            Step::Result { index, .. } => result_from(index + 1),
            Step::Status => Step::Receipts,
            Step::Receipts => return self.end_fetch(ctx, lease),
        };
        if matches!(fetch.step, Step::Upload { .. }) && record.uploads {
            record.uploads = false;
            ctx.out.store(&lease.0, record);
        }
        fetch.go_to(next, ctx.now_ms);
        self.act(ctx, lease);
    }

    /// Nothing more is asked of a lease in this life; content that no other lease needs goes.
    fn end_fetch(&mut self, ctx: &mut Context<'_>, lease: LeaseId) {
        self.fetching.remove(&lease);
        let Some(record) = self.held.get(&lease) else { return };
        let digest = workload::digest(&record.workload);
        self.discard_content(ctx, digest);
    }

    /// How far the upload of a held lease is; `None` if nothing is to be sent.
    pub(super) fn uploaded(&self, lease: &LeaseId, record: &HeldLease) -> Option<Uploaded> {
        if !record.uploads || !matches!(record.answer, Answer::Granted(_)) {
            return None;
        }
        let sizes = workload::needs(&record.workload);
        let sizes = sizes.into_iter().map(|part| workload::size_of(&record.workload, part));
        let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
        let sent_bytes = match self.fetching.get(lease).map(|fetch| &fetch.step) {
            Some(Step::Upload { index, offset, .. }) => {
                sum(&mut sizes.clone().take(*index)).saturating_add(*offset)
            }
            Some(
                Step::Open
                | Step::Output { .. }
                | Step::Result { .. }
                | Step::Status
                | Step::Receipts,
            )
            | None => 0,
        };
        Some(Uploaded { sent_bytes, total_bytes: sum(&mut sizes.clone()) })
    }

    /// Whether all that there is of a lease by now is here.
    pub(super) fn is_fetched(&self, lease: &LeaseId, record: &HeldLease) -> bool {
        record.is_fetched
            || self.fetching.get(lease).is_some_and(|fetch| {
                let is_over = fetch.pass.is_some_and(|pass| pass.is_over);
                is_over && matches!(fetch.step, Step::Status | Step::Receipts)
            })
    }

    /// Removes the content of a workload that no redemption and no upload needs.
    pub(in crate::engine) fn discard_content(&self, ctx: &mut Context<'_>, workload: Digest) {
        let redeeming = self.redeeming.keys().chain(self.fetching.keys());
        let mut needed = redeeming.filter_map(|lease| self.held.get(lease));
        let mut asked = self.asking.values();
        let mut replacing = self.replacing.values();
        let is_needed = self.is_attached(workload)
            || needed.any(|record| workload::digest(&record.workload) == workload)
            || replacing.any(|(_, replacing)| workload::digest(replacing) == workload)
            || asked.any(|asking| workload::digest(&asking.workload) == workload);
        if !is_needed {
            ctx.out.push(held(HeldJob::Discard { workload }));
        }
    }
}
