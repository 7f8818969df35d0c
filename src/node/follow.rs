//! The holder's side of a lease: uploads what runs, follows its output, fetches results and
//! receipts. One task per lease; everything it learns is on disk, so a restart continues.
//!
//! ```text
//! <datadir>/held/content/<workload>/<digest>   what to upload
//! <datadir>/held/<lease>/stdout stderr         what came back so far
//!                        partial               the file being fetched
//!                        results/<name>        fetched files
//!                        done                  nothing is left to do
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{PeerCall, now_ms};
use capex_core::engine::{Keys, remote_code};
use capex_core::ids::{Digest, Key, LeaseId};
use capex_core::lease::objects::{
    LeaseCall, LeaseReply, LeaseRequest, Receipt, Stream, Verb, Workload,
};
use capex_core::lease::workload::is_name;
use capex_core::limits::{LEASE_CHUNK_BYTES, RESULTS_MAX_BYTES, STREAM_MAX_BYTES};
use capex_core::params::Params;
use capex_core::wire::{Envelope, VERSION, decode_record, encode, sha256};

/// First pause after a failed call; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A signed call is good for this long.
const CALL_GOOD_S: u64 = 60;
/// A provider answers within ten seconds or not at all; the network says so by then.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What a followed lease tells the loop.
#[derive(Debug)]
pub(super) enum FollowEvent {
    /// Signed receipts arrived.
    Receipts {
        /// Of which lease.
        lease: LeaseId,
        /// Ascending.
        receipts: Vec<Envelope>,
    },
    /// A redemption was granted: follow the lease.
    Redeemed(LeaseId),
    /// Output, results and receipts are all here.
    Done(LeaseId),
    /// The holder of a lease on this host fetched a result to its end.
    Fetched {
        /// Of which lease.
        lease: LeaseId,
        /// Which result.
        name: String,
    },
}

/// Starts and owns the tasks.
pub(super) struct Follower {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    calls: mpsc::Sender<PeerCall>,
    events: mpsc::Sender<FollowEvent>,
    keys: Keys,
    params: Params,
    dir: PathBuf,
    counter: AtomicU64,
    active: Mutex<BTreeMap<LeaseId, Workload>>,
}

/// A lease to follow.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    /// Which.
    pub(super) lease: LeaseId,
    /// Whose machine.
    pub(super) provider: Key,
    /// What runs.
    pub(super) workload: Workload,
    /// When its provider forgets it, unix ms.
    pub(super) until_ms: u64,
}

/// Why a call came to nothing.
#[derive(Debug)]
enum CallError {
    /// The provider said no, with this code.
    Refused(String),
    /// No answer, or none that fits.
    Unanswered(String),
}

impl Follower {
    pub(super) fn new(
        calls: mpsc::Sender<PeerCall>,
        events: mpsc::Sender<FollowEvent>,
        keys: Keys,
        params: Params,
        dir: PathBuf,
    ) -> Self {
        // Counters rise across restarts, since the clock does.
        let counter = AtomicU64::new(now_ms().saturating_mul(1000));
        let active = Mutex::default();
        let shared = Arc::new(Shared { calls, events, keys, params, dir, counter, active });
        Self { shared, tasks: JoinSet::new() }
    }

    /// Where a lease's files are.
    pub(super) fn dir(&self, lease: &LeaseId) -> PathBuf {
        self.shared.dir.join(lease.to_string())
    }

    /// Keeps what will be uploaded, before the lease stands: a crash must not lose it.
    pub(super) fn keep(
        &self,
        workload: &Workload,
        blobs: &BTreeMap<Digest, Vec<u8>>,
    ) -> std::io::Result<()> {
        let dir = self.shared.content_dir(workload);
        std::fs::create_dir_all(&dir)?;
        for (digest, bytes) in blobs {
            std::fs::write(dir.join(digest.to_string()), bytes)?;
        }
        Ok(())
    }

    /// Follows a lease until it is done, unless it is done already.
    pub(super) fn follow(&mut self, followed: Followed) {
        while self.tasks.try_join_next().is_some() {}
        let dir = self.dir(&followed.lease);
        if dir.join("done").exists() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        shared.begin(&followed);
        self.tasks.spawn(async move {
            let client = Client { shared, followed, dir };
            if let Err(error) = client.run().await {
                tracing::warn!(lease = %client.followed.lease, %error, "gave up on a lease");
            }
            client.shared.end(&client.followed);
        });
    }
}

impl Shared {
    fn content_dir(&self, workload: &Workload) -> PathBuf {
        let digest = Digest(sha256(&[&encode(workload)]));
        self.dir.join("content").join(digest.to_string())
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<LeaseId, Workload>> {
        // The map is whole after every statement, so a poisoned one is as good.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, followed: &Followed) {
        self.active().insert(followed.lease, followed.workload.clone());
    }

    /// Removes content that no lease needs any more.
    fn end(&self, followed: &Followed) {
        let mut active = self.active();
        active.remove(&followed.lease);
        if !active.values().any(|workload| *workload == followed.workload) {
            // What stays behind is only disk space, and goes with the next equal workload.
            let _ = std::fs::remove_dir_all(self.content_dir(&followed.workload));
        }
    }
}

struct Client {
    shared: Arc<Shared>,
    followed: Followed,
    dir: PathBuf,
}

impl Client {
    async fn run(&self) -> Result<(), String> {
        let io = |error: std::io::Error| format!("{}: {error}", self.dir.display());
        std::fs::create_dir_all(self.dir.join("results")).map_err(io)?;
        // A step that fails does not stop the next ones: after a restart the lease may have
        // ended, and what is left of it is still worth having.
        self.note("upload", self.upload().await);
        self.note("stdout", self.follow_logs(Stream::Stdout).await);
        self.note("stderr", self.follow_logs(Stream::Stderr).await);
        let mut room_bytes = RESULTS_MAX_BYTES;
        for name in &self.followed.workload.results {
            self.note(name, self.fetch(name, &mut room_bytes).await);
        }
        self.receipts().await?;
        std::fs::write(self.dir.join("done"), b"").map_err(io)?;
        self.tell(FollowEvent::Done(self.followed.lease)).await;
        Ok(())
    }

    fn note(&self, step: &str, result: Result<(), String>) {
        if let Err(reason) = result {
            tracing::info!(lease = %self.followed.lease, step, %reason, "not complete");
        }
    }

    async fn upload(&self) -> Result<(), String> {
        let workload = &self.followed.workload;
        let inputs = workload.inputs.iter().map(|input| (input.digest, input.bytes));
        for (digest, bytes) in
            std::iter::once((workload.component, workload.component_bytes)).chain(inputs)
        {
            self.put(digest, bytes).await?;
        }
        Ok(())
    }

    async fn put(&self, digest: Digest, total: u64) -> Result<(), String> {
        let dir = self.shared.content_dir(&self.followed.workload);
        let path = dir.join(digest.to_string());
        let mut offset = 0;
        loop {
            let bytes = read_at(&path, offset, LEASE_CHUNK_BYTES)?;
            let request = |call| LeaseRequest::Put { call, digest, offset, bytes: bytes.clone() };
            match self.persist(Verb::Put, request).await? {
                LeaseReply::Progress { complete: true, .. } => return Ok(()),
                // Less than before means that the provider lost it: begin again.
                LeaseReply::Progress { received, .. } if received <= total => {
                    if received <= offset {
                        self.pause().await?;
                    }
                    offset = received;
                }
                _ => return Err("unexpected answer to put".to_owned()),
            }
        }
    }

    async fn follow_logs(&self, stream: Stream) -> Result<(), String> {
        let name = stream_file(stream);
        let path = self.dir.join(name);
        loop {
            let from = std::fs::metadata(&path).map_or(0, |file| file.len());
            // An honest provider keeps no more of it either.
            let room = usize::try_from(STREAM_MAX_BYTES.saturating_sub(from)).unwrap_or(usize::MAX);
            if room == 0 {
                return Ok(());
            }
            let request = |call| LeaseRequest::Logs { call, stream, from };
            match self.persist(Verb::Logs, request).await? {
                LeaseReply::Bytes { bytes, end } => {
                    append(&path, &bytes[..bytes.len().min(room)])?;
                    if end {
                        return Ok(());
                    }
                    if bytes.is_empty() {
                        self.pause().await?;
                    }
                }
                _ => return Err("unexpected answer to logs".to_owned()),
            }
        }
    }

    /// Fetches a result, which may take what `room_bytes` still allows. The whole file moves
    /// to its place at once.
    async fn fetch(&self, name: &str, room_bytes: &mut u64) -> Result<(), String> {
        // The engine has seen to it; what leaves this directory would be worse than a loss.
        if !is_name(name) {
            return Err("a result has no file name".to_owned());
        }
        let partial = self.dir.join("partial");
        // Left by an earlier life, if it is there.
        let _ = std::fs::remove_file(&partial);
        let mut from = 0_u64;
        loop {
            let request = |call| LeaseRequest::Get { call, name: name.to_owned(), from };
            match self.persist(Verb::Get, request).await {
                Ok(LeaseReply::Bytes { bytes, end }) => {
                    let length = bytes.len() as u64;
                    *room_bytes = room_bytes
                        .checked_sub(length)
                        .ok_or_else(|| format!("results exceed {RESULTS_MAX_BYTES} bytes"))?;
                    append(&partial, &bytes)?;
                    from = from.saturating_add(length);
                    if end {
                        break;
                    }
                    if bytes.is_empty() {
                        self.pause().await?;
                    }
                }
                Ok(_) => return Err("unexpected answer to get".to_owned()),
                // A workload need not leave every result: the rest still counts.
                Err(reason) => {
                    tracing::info!(lease = %self.followed.lease, name, %reason, "no such result");
                    return Ok(());
                }
            }
        }
        let path = self.dir.join("results").join(name);
        std::fs::rename(&partial, &path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Waits before asking again where there was nothing new; an error once the provider
    /// need not keep the lease any more.
    async fn pause(&self) -> Result<(), String> {
        if now_ms() > self.followed.until_ms {
            return Err("nothing more came until the provider may forget the lease".to_owned());
        }
        tokio::time::sleep(PAUSE_MIN).await;
        Ok(())
    }

    async fn receipts(&self) -> Result<(), String> {
        loop {
            let request = |call| LeaseRequest::Receipts { call, from_seq: 0 };
            match self.persist(Verb::Receipt, request).await? {
                LeaseReply::Receipts(receipts) => {
                    let last = receipts.last().and_then(|last| last.peek::<Receipt>().ok());
                    let complete = last.is_some_and(|last| last.outcome.is_some());
                    if complete {
                        let lease = self.followed.lease;
                        self.tell(FollowEvent::Receipts { lease, receipts }).await;
                        return Ok(());
                    }
                    self.pause().await?;
                }
                _ => return Err("unexpected answer to receipts".to_owned()),
            }
        }
    }

    async fn tell(&self, event: FollowEvent) {
        // The loop is gone only when the node shuts down; the next life asks again.
        let _ = self.shared.events.send(event).await;
    }

    /// Calls until there is an answer, the provider says no, or the lease is forgotten.
    async fn persist(
        &self,
        verb: Verb,
        request: impl Fn(Envelope) -> LeaseRequest,
    ) -> Result<LeaseReply, String> {
        let mut pause = PAUSE_MIN;
        loop {
            match self.call(request(self.sign(verb))).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(code)) => return Err(code),
                Err(CallError::Unanswered(reason)) => {
                    if now_ms() > self.followed.until_ms {
                        return Err(reason);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn call(&self, request: LeaseRequest) -> Result<LeaseReply, CallError> {
        let (answer, answered) = oneshot::channel();
        let call = PeerCall { peer: self.followed.provider, bytes: encode(&request), answer };
        let gone = |_| CallError::Unanswered("the node is shutting down".to_owned());
        self.shared.calls.send(call).await.map_err(|_| gone(()))?;
        let bytes = tokio::time::timeout(ANSWER_MAX, answered)
            .await
            .map_err(|_| CallError::Unanswered("no answer in time".to_owned()))?
            .map_err(|_| gone(()))?
            .map_err(CallError::Unanswered)?;
        match decode_record::<LeaseReply>(&bytes) {
            Ok(LeaseReply::Refused { code }) => {
                Err(CallError::Refused(remote_code(&code).to_owned()))
            }
            Ok(reply) => Ok(reply),
            Err(error) => Err(CallError::Unanswered(error.to_string())),
        }
    }

    fn sign(&self, verb: Verb) -> Envelope {
        let call = LeaseCall {
            v: VERSION,
            lease: self.followed.lease,
            verb,
            counter: self.shared.counter.fetch_add(1, Ordering::Relaxed),
            not_after_s: now_ms() / 1000 + CALL_GOOD_S,
        };
        self.shared.keys.sign(call, &self.shared.params).envelope().clone()
    }
}

/// File name of a stream.
pub(super) fn stream_file(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// At most `most` bytes of a file from an offset.
pub(super) fn read_at(path: &Path, offset: u64, most: usize) -> Result<Vec<u8>, String> {
    let read = || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
}

fn append(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| format!("{}: {error}", path.display()))
}
