//! A host that pretends to run leases, and the files of leases held elsewhere. Like the
//! processes and disks of a real one they outlive the daemon, and a new life is told what it
//! missed.

use std::collections::BTreeMap;

use capex_core::engine::Input;
use capex_core::engine::leases::{HeldEvent, HeldFile, HeldJob, Serve};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{LeaseReply, Outcome, Stream, Workload};
use capex_core::lease::{ExecutorEvent, Usage, workload};
use capex_core::units::TimeMs;
use capex_core::wire::sha256;

/// Time that a workload needs to be prepared, ms.
const PREPARE_MS: u64 = 20;
/// How long a read of output waits for something to read, ms: as a node does.
const LONG_POLL_MS: u64 = 2_000;
/// What is uploaded at once, bytes.
const PART_BYTES: usize = 16 << 10;
/// What every workload prints and leaves as each of its results.
const OUTPUT: &[u8] = b"done\n";

/// One lease on the host.
#[derive(Debug)]
struct Hosted {
    workload: Workload,
    starts_at_ms: TimeMs,
    ends_at_ms: TimeMs,
    /// Bytes of each part of the content that are here.
    content: BTreeMap<Digest, u64>,
    /// What happened and will happen.
    events: Vec<(TimeMs, ExecutorEvent)>,
}

impl Hosted {
    fn is_complete(&self) -> bool {
        let is_here = |part: &Digest| {
            self.content.get(part).copied().unwrap_or(0) >= workload::size_of(&self.workload, *part)
        };
        workload::needs(&self.workload).iter().all(is_here)
    }

    fn ends_at_ms(&self) -> Option<TimeMs> {
        let is_end = |event: &ExecutorEvent| matches!(event, ExecutorEvent::Ended { .. });
        self.events.iter().find(|(_, event)| is_end(event)).map(|(at_ms, _)| *at_ms)
    }
}

/// The answer to a holder, and when it is given.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) at_ms: TimeMs,
    pub(super) reply: LeaseReply,
    pub(super) event: Option<ExecutorEvent>,
}

/// Leases on one host.
#[derive(Debug, Default)]
pub(super) struct Host {
    leases: BTreeMap<LeaseId, Hosted>,
}

impl Host {
    /// Makes room for a lease, or tells again what has become of it.
    pub(super) fn prepare(
        &mut self,
        now_ms: TimeMs,
        lease: LeaseId,
        workload: &Workload,
        starts_at_ms: TimeMs,
        ends_at_ms: TimeMs,
    ) -> Vec<ExecutorEvent> {
        let hosted = self.leases.entry(lease).or_insert_with(|| Hosted {
            workload: workload.clone(),
            starts_at_ms,
            ends_at_ms,
            content: BTreeMap::new(),
            events: Vec::new(),
        });
        if ends_at_ms > hosted.ends_at_ms {
            // Another certificate extends it.
            hosted.ends_at_ms = ends_at_ms;
            hosted.events.retain(|(_, event)| !matches!(event, ExecutorEvent::Ended { .. }));
        }
        let complete = hosted.is_complete().then_some(ExecutorEvent::Complete);
        let missed = hosted.events.iter().filter(|(at_ms, _)| *at_ms <= now_ms);
        complete.into_iter().chain(missed.map(|(_, event)| event.clone())).collect()
    }

    /// Runs a lease in its window, unless it does.
    pub(super) fn launch(
        &mut self,
        now_ms: TimeMs,
        lease: LeaseId,
    ) -> Vec<(TimeMs, ExecutorEvent)> {
        let Some(hosted) = self.leases.get_mut(&lease) else { return Vec::new() };
        let started = hosted.events.iter().find_map(|(at_ms, event)| {
            matches!(event, ExecutorEvent::Started { .. }).then_some(*at_ms)
        });
        if hosted.ends_at_ms().is_some() {
            return Vec::new();
        }
        if let Some(started_ms) = started {
            let ended_ms = hosted.ends_at_ms.max(started_ms);
            let end = (ended_ms, ended(Outcome::Deadline, started_ms, ended_ms));
            hosted.events.push(end.clone());
            return vec![end];
        }
        let ready_ms = now_ms + PREPARE_MS;
        let started_ms = ready_ms.max(hosted.starts_at_ms);
        let ended_ms = hosted.ends_at_ms.max(started_ms);
        hosted.events = vec![
            (ready_ms, ExecutorEvent::Ready),
            (started_ms, ExecutorEvent::Started { run: 1, at_ms: started_ms }),
            (ended_ms, ended(Outcome::Deadline, started_ms, ended_ms)),
        ];
        hosted.events.clone()
    }

    /// Serves a holder.
    pub(super) fn serve(&mut self, now_ms: TimeMs, lease: LeaseId, what: Serve) -> Served {
        let Some(hosted) = self.leases.get_mut(&lease) else {
            return refused(now_ms, "lease.not_found");
        };
        match what {
            Serve::Put { digest, offset, bytes } => {
                let here = hosted.content.entry(digest).or_default();
                *here = (*here).max(offset.saturating_add(bytes.len() as u64));
                let received = *here;
                let complete = received >= workload::size_of(&hosted.workload, digest);
                let event = hosted.is_complete().then_some(ExecutorEvent::Complete);
                Served {
                    at_ms: now_ms + 1,
                    reply: LeaseReply::Progress { received, complete },
                    event,
                }
            }
            Serve::Logs { from, .. } => {
                let patience_ms = now_ms + LONG_POLL_MS;
                let ends_at_ms = hosted.ends_at_ms().unwrap_or(TimeMs::MAX);
                let at_ms = ends_at_ms.clamp(now_ms, patience_ms) + 1;
                let (bytes, end) =
                    if ends_at_ms < at_ms { part(from) } else { (Vec::new(), false) };
                Served { at_ms, reply: LeaseReply::Bytes { bytes, end }, event: None }
            }
            Serve::Get { name, from } => {
                if hosted.ends_at_ms().is_none_or(|ends_at_ms| ends_at_ms > now_ms) {
                    return refused(now_ms, "result.not_ended");
                }
                let (bytes, end) = part(from);
                let event = end.then_some(ExecutorEvent::Fetched { name });
                Served { at_ms: now_ms + 1, reply: LeaseReply::Bytes { bytes, end }, event }
            }
        }
    }

    /// Ends a lease early.
    pub(super) fn stop(
        &mut self,
        now_ms: TimeMs,
        lease: LeaseId,
    ) -> Option<(TimeMs, ExecutorEvent)> {
        let events = &mut self.leases.get_mut(&lease)?.events;
        events.retain(|(at_ms, _)| *at_ms <= now_ms);
        let started = |event: &ExecutorEvent| matches!(event, ExecutorEvent::Started { .. });
        let started_ms = events.iter().find(|(_, event)| started(event)).map_or(now_ms, |e| e.0);
        let last = (now_ms + 1, ended(Outcome::Stopped, started_ms, now_ms));
        events.push(last.clone());
        Some(last)
    }

    /// Whether something that was to happen still does: a lease may end at another time than it
    /// was to at first.
    pub(super) fn stands(&self, input: &Input) -> bool {
        let Input::Executor { lease, event: event @ ExecutorEvent::Ended { .. } } = input else {
            return true;
        };
        let hosted = self.leases.get(lease);
        hosted.is_some_and(|hosted| hosted.events.iter().any(|(_, known)| known == event))
    }

    /// Removes a lease.
    pub(super) fn release(&mut self, lease: &LeaseId) {
        self.leases.remove(lease);
    }
}

fn refused(now_ms: TimeMs, code: &str) -> Served {
    let reply = LeaseReply::Refused { code: code.to_owned() };
    Served { at_ms: now_ms + 1, reply, event: None }
}

/// Output from an offset, and whether that is all.
fn part(from: u64) -> (Vec<u8>, bool) {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    (OUTPUT.get(from..).unwrap_or_default().to_vec(), true)
}

fn ended(outcome: Outcome, started_ms: TimeMs, at_ms: TimeMs) -> ExecutorEvent {
    ExecutorEvent::Ended {
        outcome,
        started_at_ms: Some(started_ms),
        at_ms,
        usage: Usage {
            cpu_us: at_ms.saturating_sub(started_ms) * 1000,
            memory_peak_bytes: 1 << 20,
            ..Usage::default()
        },
    }
}

/// Files of the leases that a node holds elsewhere. Content to upload is made up.
#[derive(Debug, Default)]
pub(super) struct HeldFiles {
    leases: BTreeMap<LeaseId, [Vec<u8>; 3]>,
}

impl HeldFiles {
    /// Does a job, and answers it; what is only removed has no answer.
    pub(super) fn perform(&mut self, job: &HeldJob) -> Option<(LeaseId, HeldEvent)> {
        Some(match job {
            HeldJob::Open { lease } => {
                let files = self.leases.entry(*lease).or_default();
                let (stdout, stderr) = (files[0].len() as u64, files[1].len() as u64);
                (*lease, HeldEvent::Opened { stdout, stderr })
            }
            HeldJob::Read { lease, .. } => (*lease, HeldEvent::Read { bytes: vec![0; PART_BYTES] }),
            HeldJob::Write { lease, file, offset, bytes } => {
                let kept = &mut self.leases.entry(*lease).or_default()[number(*file)];
                kept.truncate(usize::try_from(*offset).unwrap_or(usize::MAX));
                kept.extend_from_slice(bytes);
                (*lease, HeldEvent::Written)
            }
            HeldJob::Finish { lease, .. } => {
                let kept = &mut self.leases.entry(*lease).or_default()[number(HeldFile::Partial)];
                let kept = std::mem::take(kept);
                let (bytes, sha256) = (kept.len() as u64, Digest(sha256(&[&kept])));
                (*lease, HeldEvent::Finished { bytes, sha256 })
            }
            HeldJob::Discard { .. } => return None,
        })
    }
}

fn number(file: HeldFile) -> usize {
    match file {
        HeldFile::Output(Stream::Stdout) => 0,
        HeldFile::Output(Stream::Stderr) => 1,
        HeldFile::Partial => 2,
    }
}
