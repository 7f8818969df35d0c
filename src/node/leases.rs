//! The provider's side of a lease on disk: content in, output and results out, against the
//! engine's lease table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use capex_network::Command as NetCommand;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Node;
use super::follow::FollowEvent;
use crate::driver::LeaseTask;
use crate::executor::{Allowance, ExecutorError, LeaseSpec, LogChunk, Manager};
use capex_core::engine::Input;
use capex_core::engine::io::StopReason;
use capex_core::engine::leases::LeaseRole;
use capex_core::ids::LeaseId;
use capex_core::lease::ExecutorEvent;
use capex_core::lease::objects::{LeaseReply, LeaseRequest, Verb};
use capex_core::limits::{LEASE_CHUNK_BYTES, LEASE_MAX_BYTES, STREAM_MAX_BYTES};
use capex_core::wire::{decode_record, encode};

/// How long a read of output waits for something to read, in steps.
const LONG_POLL: Duration = Duration::from_secs(2);
/// One step of waiting on a file.
const STEP: Duration = Duration::from_millis(50);

/// Leases on this host.
pub(super) struct Leases {
    pub(super) executor: Arc<Manager>,
    /// Results that their holders have not fetched yet.
    results_left: BTreeMap<LeaseId, BTreeSet<String>>,
    served: JoinSet<()>,
    released: mpsc::Sender<(LeaseId, ExecutorEvent)>,
    grace_ms: u64,
}

impl Node {
    /// Serves a request that needs the disk. False if it is the engine's.
    pub(super) fn serve_lease(&mut self, id: u64, bytes: &[u8]) -> bool {
        if bytes.len() > LEASE_MAX_BYTES {
            return false;
        }
        let Ok(request) = decode_record::<LeaseRequest>(bytes) else { return false };
        let (call, verb) = match &request {
            LeaseRequest::Put { call, .. } => (call, Verb::Put),
            LeaseRequest::Logs { call, .. } => (call, Verb::Logs),
            LeaseRequest::Get { call, .. } => (call, Verb::Get),
            _ => return false,
        };
        match self.driver.engine_mut().authorise(super::now_ms(), call, verb) {
            Err(code) => self.reply_lease(id, &LeaseReply::Refused { code: code.to_owned() }),
            Ok(lease) => self.serve_from_disk(id, lease, request),
        }
        true
    }

    fn reply_lease(&self, id: u64, reply: &LeaseReply) {
        self.outside.tell_network(NetCommand::Reply { id, bytes: encode(reply) });
    }

    fn serve_from_disk(&mut self, id: u64, lease: LeaseId, request: LeaseRequest) {
        let executor = Arc::clone(&self.outside.leases.executor);
        let network = self.outside.network.clone();
        let events = self.follow_events.clone();
        let served = &mut self.outside.leases.served;
        served.spawn(async move {
            let fetched = match &request {
                LeaseRequest::Get { name, .. } => Some(name.clone()),
                _ => None,
            };
            let reply = serve(&executor, &lease, request).await;
            let ended =
                matches!(reply, LeaseReply::Bytes { end: true, .. } | LeaseReply::Refused { .. });
            // A full queue drops the answer; the holder asks again.
            let _ = network.send(NetCommand::Reply { id, bytes: encode(&reply) }).await;
            if let Some(name) = fetched.filter(|_| ended) {
                let _ = events.send(FollowEvent::Fetched { lease, name }).await;
            }
        });
        while served.try_join_next().is_some() {}
    }

    /// A result was fetched to its end.
    pub(super) fn on_fetched(&mut self, lease: LeaseId, name: &str) {
        let results_left = &mut self.outside.leases.results_left;
        let Some(left) = results_left.get_mut(&lease) else { return };
        left.remove(name);
        if left.is_empty() {
            results_left.remove(&lease);
            self.driver.engine_mut().fetched(super::now_ms(), lease);
            self.feed(Input::Tick);
        }
    }

    /// After a restart: leases whose content was complete are started again, results that
    /// were not fetched are awaited again.
    pub(super) fn resume_leases(&mut self) {
        let (engine, leases) = (self.driver.engine(), &mut self.outside.leases);
        for view in engine.leases().views(engine.me()) {
            if view.role != LeaseRole::Provider || view.phase == "released" {
                continue;
            }
            let lease = view.lease_id;
            if let Some(workload) = engine.leases().workload(&lease) {
                let results = workload.results.iter().cloned().collect();
                leases.results_left.insert(lease, results);
            }
            let executor = Arc::clone(&leases.executor);
            leases.served.spawn(async move {
                if executor.need(&lease).is_ok_and(|need| need.is_empty())
                    && let Err(error) = executor.start(&lease).await
                {
                    tracing::debug!(%lease, %error, "lease not started again");
                }
            });
        }
    }
}

impl Leases {
    pub(super) fn new(
        executor: Manager,
        released: mpsc::Sender<(LeaseId, ExecutorEvent)>,
        grace_ms: u64,
    ) -> Self {
        Self {
            executor: Arc::new(executor),
            results_left: BTreeMap::new(),
            served: JoinSet::new(),
            released,
            grace_ms,
        }
    }

    /// Starts, stops and releases leases of this host.
    pub(super) fn perform(&mut self, task: LeaseTask) {
        let executor = Arc::clone(&self.executor);
        match task {
            LeaseTask::Start {
                lease,
                workload,
                starts_at_ms,
                ends_at_ms,
                memory_max_bytes,
                disk_max_bytes,
            } => {
                let results: BTreeSet<String> = workload.results.iter().cloned().collect();
                self.results_left.insert(lease, results);
                let allowance = Allowance {
                    starts_at_ms,
                    ends_at_ms,
                    memory_max_bytes,
                    output_max_bytes: STREAM_MAX_BYTES,
                    work_max_bytes: disk_max_bytes,
                    grace_ms: self.grace_ms,
                };
                let spec = LeaseSpec::of_workload(lease, &workload, allowance);
                self.served.spawn(async move {
                    if let Err(error) = executor.prepare(spec).await {
                        tracing::error!(%lease, %error, "a lease could not be prepared");
                    }
                });
            }
            LeaseTask::Stop { lease, why } => {
                let why = match why {
                    StopReason::Holder => "holder",
                    StopReason::Operator => "operator",
                    StopReason::WindowEnd => "window_end",
                };
                self.served.spawn(async move {
                    if let Err(error) = executor.stop(&lease, why).await {
                        tracing::debug!(%lease, %error, "nothing to stop");
                    }
                });
            }
            LeaseTask::Release { lease } => {
                // Nobody can fetch them any more.
                self.results_left.remove(&lease);
                let released = self.released.clone();
                self.served.spawn(async move {
                    let left_behind = match executor.release(&lease).await {
                        Ok(proof) => proof.left_behind,
                        Err(error) => vec![error.to_string()],
                    };
                    // The engine's timer asks again if the loop is gone now.
                    let _ = released.send((lease, ExecutorEvent::Released { left_behind })).await;
                });
            }
        }
    }
}

async fn serve(executor: &Manager, lease: &LeaseId, request: LeaseRequest) -> LeaseReply {
    let answer = match request {
        LeaseRequest::Put { digest, offset, bytes, .. } => {
            put(executor, lease, digest, offset, &bytes).await
        }
        LeaseRequest::Logs { stream, from, .. } => {
            wait_for(|| executor.read_log(lease, stream, from, LEASE_CHUNK_BYTES)).await
        }
        LeaseRequest::Get { name, from, .. } => {
            wait_for(|| executor.read_result(lease, &name, from, LEASE_CHUNK_BYTES)).await
        }
        _ => return LeaseReply::Refused { code: "lease.unknown_request".to_owned() },
    };
    answer.unwrap_or_else(|error| LeaseReply::Refused { code: error.code().to_owned() })
}

/// Waits a little for the lease to be prepared: its Start may still be under way.
async fn put(
    executor: &Manager,
    lease: &LeaseId,
    digest: capex_core::ids::Digest,
    offset: u64,
    bytes: &[u8],
) -> Result<LeaseReply, ExecutorError> {
    let mut waited = Duration::ZERO;
    loop {
        match executor.put(lease, digest, offset, bytes).await {
            Err(error) if error.code() == "lease.unknown" && waited < LONG_POLL => {
                tokio::time::sleep(STEP).await;
                waited += STEP;
            }
            Err(error) => return Err(error),
            Ok(progress) => {
                if progress.complete && executor.need(lease)?.is_empty() {
                    match executor.start(lease).await {
                        // It has run: a holder that restarted looks for its output next.
                        Err(ExecutorError::AlreadyEnded) => {}
                        started => started?,
                    }
                }
                let (received, complete) = (progress.received, progress.complete);
                return Ok(LeaseReply::Progress { received, complete });
            }
        }
    }
}

/// Long poll: returns as soon as there are bytes, or the end, or the wait is over.
async fn wait_for(
    read: impl Fn() -> Result<LogChunk, ExecutorError>,
) -> Result<LeaseReply, ExecutorError> {
    let mut waited = Duration::ZERO;
    loop {
        let chunk = read()?;
        if chunk.end || !chunk.bytes.is_empty() || waited >= LONG_POLL {
            return Ok(LeaseReply::Bytes { bytes: chunk.bytes, end: chunk.end });
        }
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
}
