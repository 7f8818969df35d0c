//! The leases of this host, as the node sees them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::access::words::{Knock, TAKEN, knock};
use super::bell;
use super::blobs::{self, PutProgress};
use super::egress::Egress;
use super::error::{At, ExecutorError};
use super::event::LeaseEvent;
use super::launchers::{Launched, Launcher, Local, ProcessId};
use super::layout::LeaseDir;
use super::logs::LogChunk;
use super::news::{Exit, News};
use super::pulls::Pulls;
use super::rests::Rests;
use super::retention::{self, FreedProof};
use super::runtimes;
use super::spec::{LeaseSpec, Secrets, secrets_text};
use super::state::{
    Durability, Ended, Outcome, Record, Seen, State, Usage, printable, read_json, write_json,
};
use super::supervise::{self, Comebacks};
use crate::clock::now_ms;
use crate::sealed::Opener;
use capex_core::ids::{CertId, Digest, LeaseId};
use capex_core::lease::Maintenance;
use capex_core::lease::workload;
use capex_core::limits::OPEN_LEASES_MAX;

/// A good size for the event channel: a slow reader delays samples, it loses nothing.
pub const EVENT_QUEUE: usize = 256;

/// How long a lease process that runs may take to take over sealed values, and the pause between two
/// tries.
const HANDING_TIME: Duration = Duration::from_secs(10);
const HANDING_PAUSE: Duration = Duration::from_millis(50);

/// A lease process that outlives its end or a request to stop by its grace and this much
/// is killed from outside.
const KILL_MARGIN: Duration = Duration::from_secs(2);

/// Runs leases, each in a process of its own.
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
    launcher: Box<dyn Launcher>,
    opener: Option<Opener>,
    egress: Option<Egress>,
    rests: Mutex<Rests>,
    pub(super) news: Arc<News>,
    pub(super) comebacks: Comebacks,
    pub(super) events: mpsc::Sender<LeaseEvent>,
    leases: Mutex<BTreeMap<LeaseId, Arc<Lease>>>,
}

/// One lease of this host.
pub(super) struct Lease {
    pub(super) id: LeaseId,
    spec: Mutex<Arc<LeaseSpec>>,
    /// What is to be run next, once its content is here.
    next: Mutex<Option<Arc<LeaseSpec>>>,
    pub(super) dir: LeaseDir,
    /// Held over each change of the lease's files, so that requests take turns.
    pub(super) gate: tokio::sync::Mutex<()>,
    process: Mutex<Process>,
    /// It is looked at more often than it changes.
    seen: Mutex<Seen<Record>>,
    /// Something was done to it, or by its process, that whoever follows it should see.
    pub(super) moved: Arc<Notify>,
    /// Whoever follows it has looked: there may be something to read.
    pub(super) seen_to: Notify,
}

#[derive(Default)]
struct Process {
    launched: Option<Box<dyn Launched>>,
    /// Somebody follows it, and launches it again.
    is_followed: bool,
    stop_asked: Option<Instant>,
}

impl Lease {
    pub(super) fn new(spec: LeaseSpec, dir: LeaseDir) -> Self {
        Self {
            id: spec.lease_id,
            spec: Mutex::new(Arc::new(spec)),
            next: Mutex::default(),
            dir,
            gate: tokio::sync::Mutex::default(),
            process: Mutex::default(),
            seen: Mutex::default(),
            moved: Arc::default(),
            seen_to: Notify::new(),
        }
    }

    /// What it runs.
    pub(super) fn spec(&self) -> Arc<LeaseSpec> {
        Arc::clone(&lock(&self.spec))
    }

    /// What it will run: that whose content is taken.
    pub(super) fn wanted(&self) -> Arc<LeaseSpec> {
        lock(&self.next).clone().unwrap_or_else(|| self.spec())
    }

    /// Hands what is to be run next to the process, which looks for it.
    fn take_next(&self) -> Result<(), ExecutorError> {
        let next = lock(&self.next).clone();
        if let Some(next) = next {
            write_json(&self.dir.spec(), &*next, Durability::Fsync).at(&self.dir.spec())?;
            bell::ring(&self.dir);
            self.took(&next);
        }
        Ok(())
    }

    /// What is run next is written. Another may have come meanwhile, also one that says the same.
    fn took(&self, written: &Arc<LeaseSpec>) {
        *lock(&self.spec) = Arc::clone(written);
        lock(&self.next).take_if(|waiting| Arc::ptr_eq(waiting, written));
    }

    /// Lets what runs have a later end at once, though what is to be run next is not here yet.
    fn take_end(&self) -> Result<(), ExecutorError> {
        let (spec, ends_at_ms) = (self.spec(), self.wanted().ends_at_ms);
        if ends_at_ms > spec.ends_at_ms {
            let longer = LeaseSpec { ends_at_ms, ..LeaseSpec::clone(&spec) };
            write_json(&self.dir.spec(), &longer, Durability::Fsync).at(&self.dir.spec())?;
            bell::ring(&self.dir);
            *lock(&self.spec) = Arc::new(longer);
        }
        Ok(())
    }

    /// Hands the process that runs the sealed values of what it is to run next, if they are others.
    /// A process that is gone gets those of its specification with its launch.
    async fn hand_over(&self, opener: Option<&Opener>) -> Result<(), ExecutorError> {
        let (now, next) = (self.spec(), self.wanted());
        let is_same = workload::sealed(&next.workload).eq(workload::sealed(&now.workload));
        if is_same || workload::sealed(&next.workload).next().is_none() {
            return Ok(());
        }
        let text = secrets_text(&secrets(&next, opener));
        let end = Instant::now() + HANDING_TIME;
        loop {
            if !self.is_alive() {
                return Ok(());
            }
            let handed = tokio::time::timeout(HANDING_TIME, hand(self.dir.path(), &text)).await;
            match handed.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                    return Err(ExecutorError::OtherRelease);
                }
                // One that has just been started has no door yet.
                Err(_) if Instant::now() < end => tokio::time::sleep(HANDING_PAUSE).await,
                Err(error) => return Err(error).at(&self.dir.path().join(LeaseDir::DOOR)),
            }
        }
    }

    pub(super) fn record(&self) -> Result<Record, ExecutorError> {
        let path = self.dir.state();
        Ok(lock(&self.seen).read(&path).at(&path)?.unwrap_or_else(|| Record::fresh(1)))
    }

    pub(super) fn usage(&self) -> Usage {
        // Missing before the start; a sample that cannot be read is no reason to fail.
        read_json(&self.dir.usage()).ok().flatten().unwrap_or_default()
    }

    /// Whether the lease process runs.
    pub(super) fn is_alive(&self) -> bool {
        lock(&self.process).launched.as_mut().is_some_and(|launched| launched.is_alive())
    }

    /// The end of the lease process, while it runs.
    pub(super) fn exit(&self) -> Option<Exit> {
        Exit::of(lock(&self.process).launched.as_mut()?.exit()?)
    }

    pub(super) fn kill(&self) {
        if let Some(launched) = &lock(&self.process).launched {
            launched.kill();
        }
    }

    /// Whether it was ever handed to a process, and has been since.
    pub(super) fn is_launched(&self) -> bool {
        let process = lock(&self.process);
        process.launched.is_some() || process.is_followed
    }

    /// The process is gone without a word: notes it, once for each, and ends what it left. Whoever saw it
    /// end knows when, unix ms; else its last sign of life counts.
    pub(super) fn lose(&self, ended_ms: Option<u64>) -> Result<Record, ExecutorError> {
        let mut record = self.record()?;
        let had_process = lock(&self.process).launched.is_some() || record.shim.is_some();
        let is_over = matches!(record.state, State::Ended(_));
        let rests = record.is_resting() && Rests::of_host(self.dir.host()).is_now();
        if had_process && !is_over && !rests {
            let usage = match (ended_ms, record.lost.since_ms) {
                (Some(ended_ms), None) => self.usage().lasted_until(ended_ms),
                (Some(_), Some(_)) | (None, _) => self.usage(),
            };
            // The next process counts on from there.
            write_json(&self.dir.usage(), &usage, Durability::Fsync).at(&self.dir.usage())?;
            record.lose(&usage);
            write_json(&self.dir.state(), &record, Durability::Fsync).at(&self.dir.state())?;
        }
        lock(&self.process).launched = None;
        let left = runtimes::rescue(&self.dir);
        if !left.is_empty() {
            tracing::warn!(lease = %self.id, ?left, "of a lease process that is gone");
        }
        Ok(record)
    }

    /// What ends the lease while it has no process, if something does.
    pub(super) fn end_without_process(&self) -> Option<Outcome> {
        if self.dir.stop().exists() {
            return Some(Outcome::Stopped);
        }
        (now_ms() >= self.spec().ends_at_ms).then_some(Outcome::Interrupted)
    }

    /// Gives it another process, on the disk that the one before had.
    pub(super) fn launch_again(&self, shared: &Shared) -> Result<(), ExecutorError> {
        let left = runtimes::rescue(&self.dir);
        if !left.is_empty() {
            return Err(ExecutorError::Left(left.join(", ")));
        }
        self.let_out(shared.egress.as_ref())?;
        self.launch(&*shared.launcher, shared.opener.as_ref())
    }

    /// Tells the process what the lease may have beyond its own network. What it was told once stands:
    /// a host that lets nobody out any more keeps what it has promised.
    fn let_out(&self, egress: Option<&Egress>) -> Result<(), ExecutorError> {
        let path = self.dir.egress();
        match egress {
            Some(egress) if self.wanted().workload.egress => {
                write_json(&path, egress, Durability::Fsync).at(&path)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How long it is until the process should have ended by itself long since.
    pub(super) fn until_overdue(&self) -> Duration {
        let patience = Duration::from_millis(self.spec().kill_ms) + KILL_MARGIN;
        let stop_asked = lock(&self.process).stop_asked;
        let latest_ms = self.spec().ends_at_ms.saturating_add(patience.as_millis() as u64);
        let by_window = Duration::from_millis(latest_ms.saturating_sub(now_ms()));
        let by_request = stop_asked.map(|asked| patience.saturating_sub(asked.elapsed()));
        by_request.map_or(by_window, |left| left.min(by_window))
    }

    /// Asks the lease process to end.
    pub(super) fn ask_to_stop(&self, why: &str) -> Result<(), ExecutorError> {
        let path = self.dir.stop();
        fs::write(&path, printable(why)).at(&path)?;
        lock(&self.process).stop_asked.get_or_insert_with(Instant::now);
        bell::ring(&self.dir);
        self.moved.notify_one();
        Ok(())
    }

    /// Writes down the end of a lease whose process cannot do it.
    pub(super) fn record_end(&self, outcome: Outcome) -> Result<Ended, ExecutorError> {
        let mut record = self.record()?;
        let runs = record.state.runs();
        if let State::Ended(ended) = record.state {
            return Ok(ended);
        }
        let (usage, spec) = (self.usage(), self.spec());
        let started_at_ms = record.opened_at_ms(spec.starts_at_ms);
        // What happened after the last sign of life is not known, so it was not delivered.
        let last_ms = record.lost.since_ms.unwrap_or(usage.at_ms);
        let rests = Rests::of_host(self.dir.host());
        let was_announced = rests.within((last_ms, spec.ends_at_ms)) > 0;
        let ended_at_ms = match (&outcome, started_at_ms) {
            (Outcome::Interrupted, Some(started_at_ms)) if !was_announced => {
                last_ms.max(started_at_ms)
            }
            _ => now_ms(),
        };
        if was_announced || outcome != Outcome::Interrupted {
            record.lost.close(started_at_ms, spec.ends_at_ms, &rests);
        }
        let ended = Ended {
            outcome,
            runs,
            started_at_ms,
            ended_at_ms,
            delivered_ms: usage.delivered_ms,
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
            throttled_us: usage.throttled_us,
            interrupted_ms: record.lost.ms,
        };
        let path = self.dir.state();
        let record = Record { state: State::Ended(ended.clone()), written_ms: now_ms(), ..record };
        write_json(&path, &record, Durability::Fsync).at(&path)?;
        Ok(ended)
    }

    /// Takes up a specification that follows the one that is known, or is it.
    fn want(&self, spec: &LeaseSpec) -> Result<(), ExecutorError> {
        let known = self.wanted();
        if *known == *spec {
            return Ok(());
        }
        let is_newer = spec.order > known.order || spec.ends_at_ms > known.ends_at_ms;
        let is_older = spec.order < known.order || spec.ends_at_ms < known.ends_at_ms;
        let is_other = spec.order == known.order && spec.workload != known.workload;
        if !is_newer || is_older || is_other || spec.starts_at_ms != known.starts_at_ms {
            return Err(ExecutorError::Conflict);
        }
        *lock(&self.next) = Some(Arc::new(spec.clone()));
        Ok(())
    }

    /// Whether somebody follows it from now on who did not before.
    fn is_to_be_followed(&self) -> bool {
        !std::mem::replace(&mut lock(&self.process).is_followed, true)
    }

    fn launch(
        &self,
        launcher: &dyn Launcher,
        opener: Option<&Opener>,
    ) -> Result<(), ExecutorError> {
        let secrets = secrets(&self.spec(), opener);
        lock(&self.process).launched = Some(launcher.launch(self.dir.path(), &secrets)?);
        Ok(())
    }

    /// Takes over the process that an earlier daemon has launched.
    fn adopt(&self, launcher: &dyn Launcher, shim: ProcessId) {
        lock(&self.process).launched = Some(launcher.adopt(self.dir.path(), shim));
    }
}

impl Shared {
    pub(super) fn lease(&self, id: &LeaseId) -> Option<Arc<Lease>> {
        lock(&self.leases).get(id).cloned()
    }

    /// Whether it was not released: its directory is its own as long as it is held.
    pub(super) fn holds(&self, lease: &Arc<Lease>) -> bool {
        self.lease(&lease.id).is_some_and(|held| Arc::ptr_eq(&held, lease))
    }

    /// Whether all leases rest now, and how long that stays so; `None` if for good.
    pub(super) fn is_resting(&self) -> (bool, Option<Duration>) {
        let (rests, now_ms) = (lock(&self.rests), now_ms());
        let next_ms = rests.changes_ms().filter(|at_ms| *at_ms > now_ms).min();
        (rests.is_now(), next_ms.map(|at_ms| Duration::from_millis(at_ms - now_ms)))
    }

    pub(super) fn forget(&self, id: &LeaseId) {
        lock(&self.leases).remove(id);
    }

    pub(super) fn known(&self, id: &LeaseId) -> Result<Arc<Lease>, ExecutorError> {
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
        Self::with(dir, shim_exe, events, Comebacks::default())
    }

    /// As [`Self::new`], with another patience for leases that lose their processes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(
        dir: &Path,
        shim_exe: PathBuf,
        events: mpsc::Sender<LeaseEvent>,
        comebacks: Comebacks,
    ) -> Result<Self, ExecutorError> {
        fs::create_dir_all(dir).at(dir)?;
        let dir = dir.canonicalize().at(dir)?;
        let (launcher, leases) = (Box::new(Local::new(shim_exe)), Mutex::default());
        let (opener, egress, rests) = (None, None, Mutex::new(Rests::of_host(&dir)));
        let news = Arc::default();
        let shared =
            Shared { dir, launcher, opener, egress, rests, news, comebacks, events, leases };
        Ok(Self {
            shared: Arc::new(shared),
            tasks: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        })
    }

    /// Sealed values are opened so. To be called before any lease is known.
    #[must_use]
    pub fn opening(mut self, opener: Opener) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.opener = Some(opener);
        }
        self
    }

    /// Leases that ask for a way out get one. To be called before any lease is known.
    #[must_use]
    pub fn letting_out(mut self, egress: Option<Egress>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.egress = egress.map(Egress::completed);
        }
        self
    }

    /// Lets leases rest at these times, and only at these, once it is kept.
    pub fn maintain(&self, all: &[Maintenance]) {
        *lock(&self.shared.rests) = Rests::new(all);
    }

    /// Tells lease processes what [`Self::maintain`] was told last.
    ///
    /// # Errors
    /// `executor.io`.
    pub async fn keep_maintenance(&self) -> Result<(), ExecutorError> {
        let _turn = self.creating.lock().await;
        let (rests, dir) = (lock(&self.shared.rests).clone(), self.shared.dir.clone());
        blocking(move || rests.keep(&dir).at(&dir)).await?;
        for lease in lock(&self.shared.leases).values() {
            bell::ring(&lease.dir);
            lease.moved.notify_one();
        }
        Ok(())
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
        blocking(move || blobs::put(&held.dir, &held.wanted(), &digest, offset, &bytes)).await
    }

    /// The digests that are still missing.
    ///
    /// # Errors
    /// `lease.not_found`.
    pub fn need(&self, lease: &LeaseId) -> Result<Vec<Digest>, ExecutorError> {
        let lease = self.shared.known(lease)?;
        Ok(blobs::missing(&lease.dir, &lease.wanted()))
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

    /// Reads something of a lease again and again, whenever something has happened to it, until there is
    /// something or the patience is over. Output is counted within a quarter of a second.
    ///
    /// # Errors
    /// `lease.not_found`, and what the reading comes to.
    pub async fn read_when_there<F: Future<Output = Result<LogChunk, ExecutorError>>>(
        &self,
        lease: &LeaseId,
        patience: Duration,
        read: impl Fn() -> F,
    ) -> Result<LogChunk, ExecutorError> {
        let (lease, end) = (self.shared.known(lease)?, tokio::time::Instant::now() + patience);
        loop {
            // Before the reading, so that nothing is missed after it.
            let changed = lease.seen_to.notified();
            let chunk = read().await?;
            let is_there = chunk.end || !chunk.bytes.is_empty();
            if is_there || tokio::time::timeout_at(end, changed).await.is_err() {
                return Ok(chunk);
            }
        }
    }

    /// Connects to the process of a lease, to open a stream.
    ///
    /// # Errors
    /// `lease.not_found`; `executor.io` if it lets nobody in.
    pub async fn knock(&self, lease: &LeaseId) -> Result<UnixStream, ExecutorError> {
        let path = self.shared.known(lease)?.dir.path().to_owned();
        connect(&path).await.at(&path.join(LeaseDir::DOOR))
    }

    /// Follows a lease to its end, in the background.
    fn follow(&self, lease: &Arc<Lease>) {
        if !lease.is_to_be_followed() {
            return;
        }
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(supervise::follow(Arc::clone(&self.shared), Arc::clone(lease)));
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
        let Record { shim, state, lost, .. } = lease.record()?;
        if let Some(shim) = shim {
            lease.adopt(&*self.shared.launcher, shim);
        }
        // Whoever follows it sees that its process is gone.
        if lease.is_launched() || lost.since_ms.is_some() || matches!(state, State::Ended(_)) {
            self.follow(lease);
        }
        Ok(state)
    }
}

/// Sealed values that can be opened; the process says which it lacks.
fn secrets(spec: &LeaseSpec, opener: Option<&Opener>) -> Secrets {
    let open = |(name, bytes): (&str, &[u8])| Some((name.to_owned(), opener?.open(name, bytes)?));
    workload::sealed(&spec.workload).filter_map(open).collect()
}

/// Connects to the process of a lease by its directory.
async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let dir = File::open(path)?;
    // A socket's name has at most 107 bytes, a path of a directory as many as it likes.
    let short = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), LeaseDir::DOOR);
    UnixStream::connect(short).await
}

/// Hands over values of sealed variables.
async fn hand(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut door = connect(path).await?;
    let bytes = u32::try_from(text.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    knock(&mut door, &Knock::Secrets { bytes }).await?;
    door.write_all(text).await?;
    match door.read_u8().await? {
        TAKEN => Ok(()),
        _ => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

/// Makes the directory of a lease.
fn create(root: &Path, spec: LeaseSpec) -> Result<Lease, ExecutorError> {
    let dir = LeaseDir::new(root.join(spec.lease_id.to_string()));
    for part in [dir.path().to_owned(), dir.blobs(), dir.work()] {
        fs::create_dir_all(&part).at(&part)?;
    }
    let record = Record::fresh(spec.order);
    write_json(&dir.state(), &record, Durability::Fsync).at(&dir.state())?;
    // Last: a directory with a specification is a lease.
    write_json(&dir.spec(), &spec, Durability::Fsync).at(&dir.spec())?;
    Ok(Lease::new(spec, dir))
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
        lease.want(&spec)?;
        {
            let _turn = lease.gate.lock().await;
            let held = Arc::clone(&lease);
            blocking(move || held.take_end()).await?;
        }
        for (digest, bytes) in spec.blobs() {
            if bytes == 0 {
                self.put(&id, digest, 0, &[]).await?;
            }
        }
        self.need(&id)
    }

    /// Takes content that is missing from other leases, which have to be of the same holder: what a
    /// stranger has uploaded is not had by knowing its digest. Answers what is missing still.
    ///
    /// # Errors
    /// `lease.not_found`, or the disk.
    pub async fn share(
        &self,
        lease: &LeaseId,
        others: &[LeaseId],
    ) -> Result<Vec<Digest>, ExecutorError> {
        let lease = self.shared.known(lease)?;
        let others = others.iter().filter_map(|other| self.shared.lease(other));
        let others: Vec<LeaseDir> = others.map(|other| other.dir.clone()).collect();
        let _turn = lease.gate.lock().await;
        let held = Arc::clone(&lease);
        blocking(move || {
            blobs::share(&held.dir, &held.wanted(), &others)?;
            Ok(blobs::missing(&held.dir, &held.wanted()))
        })
        .await
    }

    /// Takes content that is missing from what was pulled for it. Answers what is missing still.
    ///
    /// # Errors
    /// `lease.not_found`, or the disk.
    pub async fn take_pulled(
        &self,
        lease: &LeaseId,
        pulls: &Pulls,
        cert: &CertId,
    ) -> Result<Vec<Digest>, ExecutorError> {
        let lease = self.shared.known(lease)?;
        let pulled = [pulls.of(cert)];
        let _turn = lease.gate.lock().await;
        let held = Arc::clone(&lease);
        blocking(move || {
            blobs::share(&held.dir, &held.wanted(), &pulled)?;
            Ok(blobs::missing(&held.dir, &held.wanted()))
        })
        .await
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
        let missing = blobs::missing(&lease.dir, &lease.wanted()).len();
        if missing > 0 {
            return Err(ExecutorError::BlobsMissing(missing));
        }
        lease.hand_over(self.shared.opener.as_ref()).await?;
        let (held, shared) = (Arc::clone(&lease), Arc::clone(&self.shared));
        blocking(move || {
            held.let_out(shared.egress.as_ref())?;
            held.take_next()
        })
        .await?;
        if now_ms() >= lease.spec().ends_at_ms {
            return Err(ExecutorError::WindowOver);
        }
        if lease.is_launched() {
            return Ok(());
        }
        lease.launch(&*self.shared.launcher, self.shared.opener.as_ref())?;
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
        if lease.is_launched() {
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::spec::tests::example;
    use super::*;
    use capex_core::lease::Loss;

    /// A process that is no more.
    struct Gone;

    impl Launched for Gone {
        fn is_alive(&mut self) -> bool {
            false
        }

        fn exit(&mut self) -> Option<OwnedFd> {
            None
        }

        fn kill(&self) {}
    }

    #[test]
    fn a_process_that_ends_for_a_maintenance_is_not_lost() {
        let root = tempfile::tempdir().unwrap();
        let dir = LeaseDir::new(root.path().join("lease"));
        fs::create_dir(dir.path()).unwrap();
        let (from_ms, to_ms, why) = (now_ms() - 1_000, now_ms() + 600_000, String::new());
        let now = Rests::new(&[Maintenance { from_ms, to_ms, why }]);
        // After the maintenance it should be back.
        for (rests, loss, in_a_row) in
            [(now, Loss::Maintenance, 0), (Rests::default(), Loss::Process, 1)]
        {
            rests.keep(root.path()).unwrap();
            let mut record = Record::fresh(1);
            record.rest();
            write_json(&dir.state(), &record, Durability::Rename).unwrap();
            let lease = Lease::new(example(), dir.clone());
            lock(&lease.process).launched = Some(Box::new(Gone));
            let lost = lease.lose(None).unwrap().lost;
            assert_eq!((lost.loss, lost.in_a_row), (Some(loss), in_a_row));
        }
    }

    #[test]
    fn what_comes_while_another_is_written_stays_to_be_run_next() {
        let (first, later) = (example(), LeaseSpec { order: 2, ..example() });
        // One that says the same is another order of the holder all the same.
        for later in [later, first.clone()] {
            let lease = Lease::new(example(), LeaseDir::new(PathBuf::new()));
            let written = Arc::new(first.clone());
            *lock(&lease.next) = Some(Arc::clone(&written));
            let later = Arc::new(later);
            *lock(&lease.next) = Some(Arc::clone(&later));
            lease.took(&written);
            assert!(Arc::ptr_eq(&lease.wanted(), &later));
            lease.took(&later);
            assert!(lock(&lease.next).is_none());
        }
    }
}
