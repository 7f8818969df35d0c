//! The leases of this host, as the node sees them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::blobs::{self, PutProgress};
use super::error::{At, ExecutorError};
use super::event::LeaseEvent;
use super::layout::LeaseDir;
use super::logs::{LogChunk, read_range};
use super::process::ProcessId;
use super::retention::{self, FreedProof};
use super::spec::LeaseSpec;
use super::state::{
    Durability, Ended, Outcome, Record, State, Usage, printable, read_json, write_json,
};
use super::supervise;
use crate::clock::now_ms;
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::Stream;
use capex_core::limits::OPEN_LEASES_MAX;

/// A good size for the event channel: a slow reader delays samples, it loses nothing.
pub const EVENT_QUEUE: usize = 256;
/// A lease process that outlives its end or a request to stop by its grace and this much
/// is killed from outside.
const KILL_MARGIN: Duration = Duration::from_secs(2);

/// Runs leases of WebAssembly components, each in a process of its own.
///
/// Dropping it ends the supervision, not the leases.
pub struct Manager {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
    /// Held while a lease is created, so that one id makes one lease.
    creating: tokio::sync::Mutex<()>,
}

/// What supervising tasks need.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) shim_exe: PathBuf,
    pub(super) events: mpsc::Sender<LeaseEvent>,
    leases: Mutex<BTreeMap<LeaseId, Arc<Lease>>>,
}

/// One lease of this host.
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) spec: LeaseSpec,
    pub(super) dir: LeaseDir,
    /// Held over each change of the lease's files, so that requests take turns.
    pub(super) gate: tokio::sync::Mutex<()>,
    process: Mutex<Process>,
}

#[derive(Default)]
struct Process {
    /// Ours; absent after a restart of the daemon.
    child: Option<Child>,
    id: Option<ProcessId>,
    spawned: bool,
    stop_asked: Option<Instant>,
}

impl Lease {
    pub(super) fn new(spec: LeaseSpec, dir: LeaseDir, shim: Option<ProcessId>) -> Self {
        let process = Process { spawned: shim.is_some(), id: shim, ..Process::default() };
        Self {
            id: spec.lease_id,
            spec,
            dir,
            gate: tokio::sync::Mutex::default(),
            process: Mutex::new(process),
        }
    }

    pub(super) fn record(&self) -> Result<Record, ExecutorError> {
        let path = self.dir.state();
        let none = Record { shim: None, state: State::Preparing };
        Ok(read_json(&path).at(&path)?.unwrap_or(none))
    }

    pub(super) fn usage(&self) -> Usage {
        // Missing before the start; a sample that cannot be read is no reason to fail.
        read_json(&self.dir.usage()).ok().flatten().unwrap_or_default()
    }

    /// Whether the lease process runs; reaps it if it is our child and does not.
    pub(super) fn is_alive(&self) -> bool {
        let mut process = lock(&self.process);
        if let Some(child) = &mut process.child {
            if matches!(child.try_wait(), Ok(None)) {
                return true;
            }
            process.child = None;
            // A child that found the lease held by another process leaves it to that one.
            let recorded = self.record().ok().and_then(|record| record.shim);
            process.id = recorded.or(process.id.take());
        }
        process.id.as_ref().is_some_and(ProcessId::is_alive)
    }

    pub(super) fn kill(&self) {
        if let Some(id) = &lock(&self.process).id {
            id.kill();
        }
    }

    pub(super) fn is_spawned(&self) -> bool {
        lock(&self.process).spawned
    }

    /// Whether the process should have ended by itself long since.
    pub(super) fn is_overdue(&self) -> bool {
        let patience = Duration::from_millis(self.spec.grace_ms) + KILL_MARGIN;
        let stop_asked = lock(&self.process).stop_asked;
        let latest_ms = self.spec.ends_at_ms.saturating_add(patience.as_millis() as u64);
        now_ms() > latest_ms || stop_asked.is_some_and(|asked| asked.elapsed() > patience)
    }

    /// Asks the lease process to end.
    pub(super) fn ask_to_stop(&self, why: &str) -> Result<(), ExecutorError> {
        let path = self.dir.stop();
        fs::write(&path, printable(why)).at(&path)?;
        lock(&self.process).stop_asked.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Writes down the end of a lease whose process cannot do it.
    pub(super) fn record_end(&self, outcome: Outcome) -> Result<Ended, ExecutorError> {
        let record = self.record()?;
        let started_at_ms = match record.state {
            State::Running { started_at_ms, .. } => Some(started_at_ms),
            State::Ended(ended) => return Ok(ended),
            State::Preparing | State::Ready => None,
        };
        let usage = self.usage();
        let ended = Ended {
            outcome,
            started_at_ms,
            // What happened after the last sample is not known, so it was not delivered.
            ended_at_ms: started_at_ms.map_or_else(now_ms, |started| usage.at_ms.max(started)),
            delivered_ms: usage.delivered_ms,
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
        };
        let path = self.dir.state();
        let record = Record { shim: record.shim, state: State::Ended(ended.clone()) };
        write_json(&path, &record, Durability::Fsync).at(&path)?;
        Ok(ended)
    }

    fn spawn(&self, shim_exe: &Path) -> Result<(), ExecutorError> {
        let child = Command::new(shim_exe)
            .arg("shim")
            .arg(self.dir.path())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Neither a key press in the daemon's terminal nor its death reaches it.
            .process_group(0)
            .spawn()
            .at(shim_exe)?;
        let mut process = lock(&self.process);
        process.id = ProcessId::of(child.id());
        process.child = Some(child);
        process.spawned = true;
        Ok(())
    }
}

impl Shared {
    pub(super) fn lease(&self, id: &LeaseId) -> Option<Arc<Lease>> {
        lock(&self.leases).get(id).cloned()
    }

    pub(super) fn forget(&self, id: &LeaseId) {
        lock(&self.leases).remove(id);
    }

    fn known(&self, id: &LeaseId) -> Result<Arc<Lease>, ExecutorError> {
        self.lease(id).ok_or(ExecutorError::UnknownLease)
    }

    fn check_room(&self) -> Result<(), ExecutorError> {
        let full = lock(&self.leases).len() >= OPEN_LEASES_MAX;
        if full { Err(ExecutorError::Full) } else { Ok(()) }
    }

    /// Adds a lease, or answers the one of the same id. A lease found on disk is never too
    /// many: somebody has to see to its end.
    fn insert(&self, lease: Lease) -> Arc<Lease> {
        let mut leases = lock(&self.leases);
        let id = lease.id;
        Arc::clone(leases.entry(id).or_insert_with(|| Arc::new(lease)))
    }
}

impl Manager {
    /// A manager of the leases in `dir`, which is created if missing. `shim_exe` is the
    /// program whose `shim` subcommand is [`super::shim::run`]: our own.
    ///
    /// # Errors
    /// `executor.io` when the directory cannot be made.
    pub fn new(
        dir: &Path,
        shim_exe: PathBuf,
        events: mpsc::Sender<LeaseEvent>,
    ) -> Result<Self, ExecutorError> {
        fs::create_dir_all(dir).at(dir)?;
        let dir = dir.canonicalize().at(dir)?;
        let leases = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared { dir, shim_exe, events, leases }),
            tasks: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        })
    }

    /// Takes the next chunk of a blob, at most [`capex_core::limits::LEASE_CHUNK_BYTES`].
    /// Chunks come in order and may be repeated.
    ///
    /// # Errors
    /// `lease.not_found` and the `put.*` codes; after `put.wrong_digest` the blob starts over.
    pub async fn put(
        &self,
        lease: &LeaseId,
        digest: Digest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<PutProgress, ExecutorError> {
        let lease = self.shared.known(lease)?;
        let _turn = lease.gate.lock().await;
        let (held, bytes) = (Arc::clone(&lease), bytes.to_vec());
        blocking(move || blobs::put(&held.dir, &held.spec, &digest, offset, &bytes)).await
    }

    /// The digests that are still missing.
    ///
    /// # Errors
    /// `lease.not_found`.
    pub fn need(&self, lease: &LeaseId) -> Result<Vec<Digest>, ExecutorError> {
        let lease = self.shared.known(lease)?;
        Ok(blobs::missing(&lease.dir, &lease.spec))
    }

    /// How far the lease is, by its last durable record.
    ///
    /// # Errors
    /// `lease.not_found`, `executor.io`.
    pub fn state(&self, lease: &LeaseId) -> Result<State, ExecutorError> {
        Ok(self.shared.known(lease)?.record()?.state)
    }

    /// The latest sample; zeros before the start.
    ///
    /// # Errors
    /// `lease.not_found`.
    pub fn usage(&self, lease: &LeaseId) -> Result<Usage, ExecutorError> {
        Ok(self.shared.known(lease)?.usage())
    }

    /// At most `max` bytes of a stream from an offset, `max` being cut to
    /// [`capex_core::limits::LEASE_CHUNK_BYTES`].
    ///
    /// # Errors
    /// `lease.not_found`, `executor.io`.
    pub fn read_log(
        &self,
        lease: &LeaseId,
        stream: Stream,
        from: u64,
        max: usize,
    ) -> Result<LogChunk, ExecutorError> {
        let lease = self.shared.known(lease)?;
        let path = lease.dir.log(stream);
        // Before the bytes, so that nothing can be written between them and the end.
        let ended = matches!(lease.record()?.state, State::Ended(_));
        if !path.exists() {
            return Ok(LogChunk { bytes: Vec::new(), end: ended });
        }
        let mut file = File::open(&path).at(&path)?;
        let bytes = read_range(&mut file, from, max).at(&path)?;
        let read_to = from.saturating_add(bytes.len() as u64);
        let end = ended && read_to >= file.metadata().at(&path)?.len();
        Ok(LogChunk { bytes, end })
    }

    /// At most `max` bytes of a result from an offset, once the lease has ended. Only
    /// regular files that the specification names: a link the workload left is no result.
    ///
    /// # Errors
    /// `lease.not_found`, `result.not_ended`, `result.not_found`, `executor.io`.
    pub fn read_result(
        &self,
        lease: &LeaseId,
        name: &str,
        from: u64,
        max: usize,
    ) -> Result<LogChunk, ExecutorError> {
        let lease = self.shared.known(lease)?;
        if !lease.spec.results.iter().any(|result| result == name) {
            return Err(ExecutorError::NoResult);
        }
        if !matches!(lease.record()?.state, State::Ended(_)) {
            return Err(ExecutorError::NotEnded);
        }
        let path = lease.dir.work().join(name);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let mut file = opened.map_err(|_| ExecutorError::NoResult)?;
        let meta = file.metadata().at(&path)?;
        if !meta.is_file() {
            return Err(ExecutorError::NoResult);
        }
        let bytes = read_range(&mut file, from, max).at(&path)?;
        let end = from.saturating_add(bytes.len() as u64) >= meta.len();
        Ok(LogChunk { bytes, end })
    }

    /// Follows a lease to its end, in the background.
    fn follow(&self, lease: &Arc<Lease>) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(supervise::follow(self.shared.events.clone(), Arc::clone(lease)));
    }

    /// The lease of this specification: known, found on disk, or made.
    async fn obtain(&self, spec: &LeaseSpec) -> Result<Arc<Lease>, ExecutorError> {
        let _turn = self.creating.lock().await;
        if let Some(lease) = self.shared.lease(&spec.lease_id) {
            return Ok(lease);
        }
        self.shared.check_room()?;
        let path = self.shared.dir.join(spec.lease_id.to_string());
        if path.exists() {
            let id = spec.lease_id;
            let found = blocking(move || Ok(retention::load(&id, path))).await?;
            if let Some(lease) = found {
                let lease = self.shared.insert(lease);
                self.take_over(&lease)?;
                return Ok(lease);
            }
        }
        let (root, spec) = (self.shared.dir.clone(), spec.clone());
        let lease = blocking(move || create(&root, spec)).await?;
        Ok(self.shared.insert(lease))
    }

    /// Goes on with a lease of an earlier daemon.
    fn take_over(&self, lease: &Arc<Lease>) -> Result<State, ExecutorError> {
        let mut state = lease.record()?.state;
        if lease.is_spawned() && !lease.is_alive() {
            state = State::Ended(lease.record_end(Outcome::Interrupted)?);
        }
        if lease.is_spawned() || matches!(state, State::Ended(_)) {
            self.follow(lease);
        }
        Ok(state)
    }
}

/// Makes the directory of a lease.
fn create(root: &Path, spec: LeaseSpec) -> Result<Lease, ExecutorError> {
    let dir = LeaseDir::new(root.join(spec.lease_id.to_string()));
    for part in [dir.path().to_owned(), dir.blobs(), dir.work()] {
        fs::create_dir_all(&part).at(&part)?;
    }
    let record = Record { shim: None, state: State::Preparing };
    write_json(&dir.state(), &record, Durability::Fsync).at(&dir.state())?;
    // Last: a directory with a specification is a lease.
    write_json(&dir.spec(), &spec, Durability::Fsync).at(&dir.spec())?;
    Ok(Lease::new(spec, dir, None))
}

/// The life of a lease. Every verb may be repeated: the second answer equals the first.
impl Manager {
    /// Records the lease durably; answers the digests that are still missing.
    ///
    /// # Errors
    /// A bad specification, another lease of this id, or the disk.
    pub async fn prepare(&self, spec: LeaseSpec) -> Result<Vec<Digest>, ExecutorError> {
        spec.validate()?;
        let id = spec.lease_id;
        let lease = self.obtain(&spec).await?;
        if lease.spec != spec {
            return Err(ExecutorError::Conflict);
        }
        for (digest, bytes) in spec.blobs() {
            if bytes == 0 {
                self.put(&id, digest, 0, &[]).await?;
            }
        }
        self.need(&id)
    }

    /// Hands the lease to its process, which waits for the window by itself.
    ///
    /// # Errors
    /// Content is missing, the lease is over, or no process can be started.
    pub async fn start(&self, lease: &LeaseId) -> Result<(), ExecutorError> {
        let lease = self.shared.known(lease)?;
        let _turn = lease.gate.lock().await;
        if matches!(lease.record()?.state, State::Ended(_)) {
            return Err(ExecutorError::AlreadyEnded);
        }
        if lease.is_spawned() {
            return Ok(());
        }
        let missing = blobs::missing(&lease.dir, &lease.spec).len();
        if missing > 0 {
            return Err(ExecutorError::BlobsMissing(missing));
        }
        if now_ms() >= lease.spec.ends_at_ms {
            return Err(ExecutorError::WindowOver);
        }
        let held = Arc::clone(&lease);
        blocking(move || blobs::place_inputs(&held.dir, &held.spec)).await?;
        lease.spawn(&self.shared.shim_exe)?;
        self.follow(&lease);
        Ok(())
    }

    /// Takes over, after a restart, every lease found on disk.
    ///
    /// # Errors
    /// The disk.
    pub async fn adopt(&self) -> Result<Vec<(LeaseId, State)>, ExecutorError> {
        let mut adopted = Vec::new();
        for lease in retention::found_on_disk(&self.shared.dir).await? {
            let lease = self.shared.insert(lease);
            adopted.push((lease.id, self.take_over(&lease)?));
        }
        Ok(adopted)
    }

    /// Asks the lease to end now; its end is reported by an event.
    ///
    /// # Errors
    /// Unknown lease, or the disk.
    pub async fn stop(&self, lease: &LeaseId, why: &str) -> Result<(), ExecutorError> {
        let lease = self.shared.known(lease)?;
        let _turn = lease.gate.lock().await;
        if matches!(lease.record()?.state, State::Ended(_)) {
            return Ok(());
        }
        if lease.is_spawned() {
            return lease.ask_to_stop(why);
        }
        lease.record_end(Outcome::Stopped)?;
        self.follow(&lease);
        Ok(())
    }

    /// Frees everything and says what, if anything, was left behind.
    ///
    /// # Errors
    /// Unknown lease, one that still runs, or the disk.
    pub async fn release(&self, lease: &LeaseId) -> Result<FreedProof, ExecutorError> {
        retention::release(&self.shared, lease).await
    }
}

/// Runs file work that may take long beside the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExecutorError> + Send + 'static,
) -> Result<T, ExecutorError> {
    tokio::task::spawn_blocking(work).await.map_err(ExecutorError::background)?
}

/// A panic elsewhere does not make the table wrong: each change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
