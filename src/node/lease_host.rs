//! Leases on this host: does what the engine asks of the executor, and tells it what came
//! of it. What a holder asks for, the engine has allowed.

use std::sync::Arc;
use std::time::Duration;

use capex_network::{Command as NetCommand, Handle};
use tokio::sync::{Semaphore, mpsc};

use super::beside::Beside;
use crate::executor::pulls::{KEPT, Pulls};
use crate::executor::{Allowance, ExecutorError, LeaseSpec, LogChunk, Manager};
use capex_core::engine::Input;
use capex_core::engine::leases::{Serve, StopReason};
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::objects::{LeaseReply, Workload};
use capex_core::lease::pull::ImageRef;
use capex_core::lease::{ExecutorEvent, Maintenance};
use capex_core::limits::{LEASE_CHUNK_BYTES, OPEN_LEASES_MAX, STREAM_MAX_BYTES};
use capex_core::units::TimeMs;
use capex_core::wire::encode;

/// How long a read of output waits for something to read.
const LONG_POLL: Duration = Duration::from_secs(2);
/// How often it is looked for pulled content that nobody asks for any more.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// One step of waiting on a file.
const STEP: Duration = Duration::from_millis(50);

/// The room that a workload has bought.
pub(super) struct Room {
    /// Which run it is that the holder asks for.
    pub(super) order: u32,
    pub(super) starts_at_ms: TimeMs,
    pub(super) ends_at_ms: TimeMs,
    pub(super) cpu_max_milli: u64,
    pub(super) memory_max_bytes: u64,
    pub(super) disk_max_bytes: u64,
}

/// The executor, and what it is doing for the engine.
pub(super) struct LeaseHost {
    pub(super) executor: Arc<Manager>,
    pulls: Arc<Pulls>,
    network: Handle,
    events: mpsc::Sender<Input>,
    tasks: Beside,
    /// Requests that are served: a holder has one or two at a time.
    serving: Arc<Semaphore>,
    kill_ms: u64,
}

impl LeaseHost {
    pub(super) fn new(
        (executor, pulls): (Manager, Pulls),
        network: Handle,
        events: mpsc::Sender<Input>,
        kill_ms: u64,
    ) -> Self {
        let pulls = Arc::new(pulls);
        let mut tasks = Beside::default();
        tasks.spawn(sweep(Arc::clone(&pulls)));
        Self {
            executor: Arc::new(executor),
            pulls,
            network,
            events,
            tasks,
            serving: Arc::new(Semaphore::new(2 * OPEN_LEASES_MAX)),
            kill_ms,
        }
    }

    /// Runs something beside the loop and tells the engine what came of it.
    fn spawn<F>(&mut self, lease: LeaseId, work: impl FnOnce(Arc<Manager>) -> F)
    where
        F: Future<Output = Option<ExecutorEvent>> + Send + 'static,
    {
        let (work, events) = (work(Arc::clone(&self.executor)), self.events.clone());
        self.tasks.spawn(async move {
            if let Some(event) = work.await {
                // The loop is gone only when the node stops; its next life asks again.
                let _ = events.send(Input::Executor { lease, event }).await;
            }
        });
    }

    /// Makes room for a workload, and takes content that it shares with other leases of its holder, or
    /// that was pulled for the certificate.
    pub(super) fn prepare(
        &mut self,
        (lease, cert): (LeaseId, CertId),
        workload: &Workload,
        room: &Room,
        same_holder: Vec<LeaseId>,
    ) {
        let allowance = Allowance {
            order: room.order,
            starts_at_ms: room.starts_at_ms,
            ends_at_ms: room.ends_at_ms,
            cpu_max_milli: room.cpu_max_milli,
            memory_max_bytes: room.memory_max_bytes,
            output_max_bytes: STREAM_MAX_BYTES,
            work_max_bytes: room.disk_max_bytes,
            kill_ms: self.kill_ms,
        };
        let spec = LeaseSpec::of_workload(lease, workload.clone(), allowance);
        let pulls = Arc::clone(&self.pulls);
        self.spawn(lease, |executor| async move {
            let prepared = async {
                executor.prepare(spec).await?;
                executor.share(&lease, &same_holder).await?;
                executor.take_pulled(&lease, &pulls, &cert).await
            };
            let prepared = prepared.await;
            pulls.taken(&cert);
            match prepared {
                Ok(missing) => missing.is_empty().then_some(ExecutorEvent::Complete),
                Err(error) => Some(failed(&lease, "prepare", &error)),
            }
        });
    }

    /// Fetches an image for the holder of a certificate, and says how far it is.
    pub(super) fn pull(&self, id: u64, cert: CertId, image: ImageRef, max_bytes: u64) {
        let reply = match self.pulls.ask(cert, image, max_bytes) {
            Ok(pulled) => LeaseReply::Pulled(pulled),
            Err(reason) => LeaseReply::Refused { code: reason.code().to_owned() },
        };
        // A full queue drops the answer; the holder asks again.
        let _ = self.network.try_send(NetCommand::Reply { id, bytes: encode(&reply) });
    }

    /// Tells the executor when leases rest.
    pub(super) fn maintain(&mut self, all: &[Maintenance]) {
        let executor = Arc::clone(&self.executor);
        executor.maintain(all);
        self.tasks.spawn(async move {
            if let Err(error) = executor.keep_maintenance().await {
                tracing::error!(code = error.code(), %error, "a maintenance could not be kept");
            }
        });
    }

    pub(super) fn launch(&mut self, lease: LeaseId) {
        self.spawn(lease, |executor| async move {
            match executor.start(&lease).await {
                // Its window is over, or it has run: then its end is told by itself.
                Ok(()) | Err(ExecutorError::AlreadyEnded | ExecutorError::WindowOver) => None,
                Err(error) => Some(failed(&lease, "launch", &error)),
            }
        });
    }

    pub(super) fn stop(&mut self, lease: LeaseId, why: StopReason) {
        let why = match why {
            StopReason::Holder => "holder",
            StopReason::Operator => "operator",
            StopReason::WindowEnd => "window_end",
        };
        self.spawn(lease, |executor| async move {
            if let Err(error) = executor.stop(&lease, why).await {
                tracing::debug!(%lease, %error, "nothing to stop");
            }
            None
        });
    }

    pub(super) fn release(&mut self, lease: LeaseId) {
        self.spawn(lease, |executor| async move {
            let left_behind = match executor.release(&lease).await {
                Ok(proof) => proof.left_behind,
                Err(error) => vec![error.to_string()],
            };
            Some(ExecutorEvent::Released { left_behind })
        });
    }

    pub(super) fn serve(&mut self, id: u64, lease: LeaseId, what: Serve) {
        let network = self.network.clone();
        let Ok(turn) = Arc::clone(&self.serving).try_acquire_owned() else {
            let reply = LeaseReply::Refused { code: "lease.busy".to_owned() };
            // A full queue drops the answer; the holder asks again.
            let _ = network.try_send(NetCommand::Reply { id, bytes: encode(&reply) });
            return;
        };
        self.spawn(lease, |executor| async move {
            let (reply, event) = serve(&executor, lease, what).await;
            drop(turn);
            let _ = network.send(NetCommand::Reply { id, bytes: encode(&reply) }).await;
            event
        });
    }
}

/// Removes pulled content that nobody asks for any more, until the node stops.
async fn sweep(pulls: Arc<Pulls>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let pulls = Arc::clone(&pulls);
        let _ = tokio::task::spawn_blocking(move || pulls.sweep(KEPT)).await;
    }
}

fn failed(lease: &LeaseId, what: &str, error: &ExecutorError) -> ExecutorEvent {
    tracing::error!(%lease, code = error.code(), %error, "could not {what} a lease");
    ExecutorEvent::Failed { code: error.code() }
}

async fn serve(
    executor: &Arc<Manager>,
    lease: LeaseId,
    what: Serve,
) -> (LeaseReply, Option<ExecutorEvent>) {
    let answer = match what {
        Serve::Put { digest, offset, bytes } => {
            return match put(executor, &lease, digest, offset, &bytes).await {
                Ok(answer) => answer,
                Err(error) => {
                    let broken = matches!(error, ExecutorError::Io { .. });
                    let event = broken.then(|| failed(&lease, "keep content of", &error));
                    (refused(&error), event)
                }
            };
        }
        Serve::Logs { stream, from } => {
            let read = move |host: &Manager| host.read_log(&lease, stream, from, LEASE_CHUNK_BYTES);
            wait_for(executor, &lease, read).await
        }
        Serve::Get { name, from } => {
            let wanted = name.clone();
            let read =
                move |host: &Manager| host.read_result(&lease, &wanted, from, LEASE_CHUNK_BYTES);
            let answer = wait_for(executor, &lease, read).await;
            let is_read = match &answer {
                Ok(chunk) => chunk.end,
                Err(error) => matches!(error, ExecutorError::NoResult),
            };
            let event = is_read.then_some(ExecutorEvent::Fetched { name });
            return (answer.map_or_else(|error| refused(&error), chunk_reply), event);
        }
    };
    (answer.map_or_else(|error| refused(&error), chunk_reply), None)
}

fn refused(error: &ExecutorError) -> LeaseReply {
    LeaseReply::Refused { code: error.code().to_owned() }
}

fn chunk_reply(chunk: LogChunk) -> LeaseReply {
    LeaseReply::Bytes { bytes: chunk.bytes, end: chunk.end }
}

/// Keeps a part. Waits a little for the lease, or for its new workload, to be prepared: that may
/// still be under way.
async fn put(
    executor: &Manager,
    lease: &LeaseId,
    digest: Digest,
    offset: u64,
    bytes: &[u8],
) -> Result<(LeaseReply, Option<ExecutorEvent>), ExecutorError> {
    let mut waited = Duration::ZERO;
    loop {
        match executor.put(lease, digest, offset, bytes).await {
            Err(ExecutorError::UnknownLease | ExecutorError::UnknownDigest)
                if waited < LONG_POLL =>
            {
                tokio::time::sleep(STEP).await;
                waited += STEP;
            }
            Err(error) => return Err(error),
            Ok(progress) => {
                let is_whole = progress.complete && executor.need(lease)?.is_empty();
                let (received, complete) = (progress.received, progress.complete);
                let event = is_whole.then_some(ExecutorEvent::Complete);
                return Ok((LeaseReply::Progress { received, complete }, event));
            }
        }
    }
}

/// Long poll: returns as soon as there are bytes, or the end, or the wait is over.
async fn wait_for(
    executor: &Arc<Manager>,
    lease: &LeaseId,
    read: impl Fn(&Manager) -> Result<LogChunk, ExecutorError> + Clone + Send + 'static,
) -> Result<LogChunk, ExecutorError> {
    let read = || async {
        let (executor, read) = (Arc::clone(executor), read.clone());
        let chunk = tokio::task::spawn_blocking(move || read(&executor)).await;
        chunk.map_err(ExecutorError::background)?
    };
    executor.read_when_there(lease, LONG_POLL, read).await
}
