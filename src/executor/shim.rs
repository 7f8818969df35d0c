//! `capex shim <lease-dir>`: the process of one lease.
//!
//! It needs nobody: the specification and the blobs lie in its directory, it waits for the
//! window, runs the workload, ends it in time and writes down what happened. A workload
//! that does not yield within its grace is ended together with the process.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use wasmtime::Engine;

use super::guest::{Guest, Job, Report};
use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::meter::Meter;
use super::process::ProcessId;
use super::spec::LeaseSpec;
use super::state::{Durability, Ended, Outcome, Record, State, read_json, write_json};
use super::wasm;
use super::watch::Watch;
use crate::clock::now_ms;
use capex_core::lease::objects::Stream;

/// A workload is interrupted at most this late, and its CPU time is this fresh.
const EPOCH: Duration = Duration::from_millis(10);
/// How often a process that waits for its window looks for a request to stop.
const IDLE: Duration = Duration::from_millis(50);
/// Files, streams and timers of a workload plus our own.
const MAX_OPEN_FILES: u64 = 640;
/// State, usage and logs have to fit below the size limit of one file.
const MIN_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The outcome is in `state.json`.
const EXIT_RECORDED: u8 = 0;
/// No lease to run here: no valid specification, or it has ended.
const EXIT_NO_LEASE: u8 = 2;
/// Another process runs this lease.
const EXIT_HELD: u8 = 3;
/// The end could not be written down.
const EXIT_UNRECORDED: u8 = 4;

/// Runs the lease of a directory to its end. To be called from the main thread before any
/// runtime exists; the process is expected to exit with the returned code: 0 when the
/// outcome is recorded in `state.json`, 2 without a lease to run, 3 when another process
/// runs it, 4 when the end cannot be recorded.
#[must_use]
pub fn run(lease_dir: &Path) -> u8 {
    match Shim::open(LeaseDir::new(lease_dir.to_owned())) {
        Ok(shim) => shim.supervise(),
        Err(code) => code,
    }
}

struct Shim {
    dir: LeaseDir,
    spec: LeaseSpec,
    own: ProcessId,
    engine: Engine,
    meter: Arc<Meter>,
    logs: [CappedLog; 2],
    watch: Watch,
    ready: bool,
    /// Why the workload was cancelled, and when the process ends if it does not yield.
    cancelled: Option<(Outcome, Instant)>,
    /// Held as long as the process lives.
    _lock: File,
}

impl Shim {
    fn open(dir: LeaseDir) -> Result<Self, u8> {
        let spec: LeaseSpec = read_json(&dir.spec()).ok().flatten().ok_or(EXIT_NO_LEASE)?;
        spec.validate().map_err(|_| EXIT_NO_LEASE)?;
        let lock = File::create(dir.lock()).map_err(|_| EXIT_NO_LEASE)?;
        lock.try_lock().map_err(|_| EXIT_HELD)?;
        let record: Option<Record> = read_json(&dir.state()).map_err(|_| EXIT_NO_LEASE)?;
        if record.is_some_and(|record| matches!(record.state, State::Ended(_))) {
            return Err(EXIT_NO_LEASE);
        }
        let own = ProcessId::of(std::process::id()).ok_or(EXIT_UNRECORDED)?;
        let confined = confine(&spec);
        let terminated = confined.map_err(|_| EXIT_UNRECORDED)?;
        let engine = wasm::engine().map_err(|_| EXIT_UNRECORDED)?;
        let log = |stream| CappedLog::create(&dir.log(stream), spec.output_max_bytes);
        let stdout = log(Stream::Stdout).map_err(|_| EXIT_UNRECORDED)?;
        let stderr = log(Stream::Stderr).map_err(|_| EXIT_UNRECORDED)?;
        let (meter, logs) = (Arc::new(Meter::default()), [stdout, stderr]);
        let watch =
            Watch::new(spec.clone(), dir.clone(), Arc::clone(&meter), logs.clone(), terminated);
        let shim = Self {
            dir,
            spec,
            own,
            engine,
            meter,
            logs,
            watch,
            ready: false,
            cancelled: None,
            _lock: lock,
        };
        shim.record(State::Preparing).map_err(|_| EXIT_UNRECORDED)?;
        Ok(shim)
    }

    fn supervise(mut self) -> u8 {
        let mut guest = match Guest::spawn(self.job()) {
            Ok(guest) => guest,
            Err(error) => return self.finish(Outcome::failed(error.to_string())),
        };
        loop {
            match guest.reports.recv_timeout(self.pause()) {
                Ok(Report::Compiled) => {
                    self.ready = true;
                    if self.record(State::Ready).is_err() {
                        return EXIT_UNRECORDED;
                    }
                }
                Ok(Report::Finished(outcome)) => return self.conclude(outcome),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return self.finish(Outcome::failed("the executing thread died"));
                }
            }
            self.engine.increment_epoch();
            if self.begin_if_due(&mut guest).is_err() {
                return EXIT_UNRECORDED;
            }
            self.watch.heartbeat();
            if let Some(outcome) = self.overdue(&guest) {
                return self.finish(outcome);
            }
        }
    }

    fn job(&self) -> Job {
        Job {
            engine: self.engine.clone(),
            spec: self.spec.clone(),
            dir: self.dir.clone(),
            meter: Arc::clone(&self.meter),
            logs: self.logs.clone(),
        }
    }

    fn pause(&self) -> Duration {
        if self.watch.started_at_ms().is_some() {
            return EPOCH;
        }
        self.watch.until_start().clamp(Duration::from_millis(1), IDLE)
    }

    fn begin_if_due(&mut self, guest: &mut Guest) -> io::Result<()> {
        let waits = self.ready && self.cancelled.is_none() && self.watch.started_at_ms().is_none();
        if !waits || !self.watch.until_start().is_zero() {
            return Ok(());
        }
        let started_at_ms = self.watch.begin();
        self.record(State::Running { pid: self.own.pid, started_at_ms })?;
        guest.go();
        Ok(())
    }

    /// Cancels a workload whose time is over; answers the outcome once its grace is too.
    fn overdue(&mut self, guest: &Guest) -> Option<Outcome> {
        if let Some((outcome, hard_end)) = &self.cancelled {
            return (Instant::now() >= *hard_end).then(|| outcome.clone());
        }
        let outcome = self.watch.verdict()?;
        guest.cancel();
        let grace = Duration::from_millis(self.spec.grace_ms);
        self.cancelled = Some((outcome, Instant::now() + grace));
        None
    }

    fn conclude(mut self, reported: Option<Outcome>) -> u8 {
        let cancelled = self.cancelled.take().map(|(outcome, _)| outcome);
        let outcome = match (reported, cancelled) {
            (Some(outcome), _) => outcome,
            (None, Some(outcome)) => outcome,
            (None, None) => Outcome::failed("cancelled without a reason"),
        };
        let ran = self.watch.started_at_ms().is_some();
        let outcome =
            if ran && self.watch.is_over_quota() { Outcome::OutputQuota } else { outcome };
        self.finish(outcome)
    }

    /// Writes down the end. Everything else of this process ends with it.
    fn finish(self, outcome: Outcome) -> u8 {
        let usage = self.watch.usage();
        self.watch.sync_delivery();
        let ended = Ended {
            outcome,
            started_at_ms: self.watch.started_at_ms(),
            ended_at_ms: now_ms(),
            delivered_ms: usage.delivered_ms,
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
        };
        let _ = write_json(&self.dir.usage(), &usage, Durability::Fsync);
        match self.record(State::Ended(ended)) {
            Ok(()) => EXIT_RECORDED,
            Err(_) => EXIT_UNRECORDED,
        }
    }

    fn record(&self, state: State) -> io::Result<()> {
        let record = Record { shim: Some(self.own.clone()), state };
        write_json(&self.dir.state(), &record, Durability::Fsync)
    }
}

/// Limits the process itself, below what the workload's sandbox already denies, and
/// answers the flag that SIGTERM raises.
///
/// With SIGXFSZ handled, a write beyond the limit of one file fails instead of killing
/// the process: the quota is hard for each file, and counted over all of them.
fn confine(spec: &LeaseSpec) -> io::Result<Arc<AtomicBool>> {
    let file_bytes = spec.work_max_bytes.max(spec.output_max_bytes).max(MIN_FILE_LIMIT_BYTES);
    lower(Resource::Fsize, file_bytes)?;
    lower(Resource::Nofile, MAX_OPEN_FILES)?;
    lower(Resource::Core, 0)?;
    let terminated = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&terminated);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    drop(entered);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            while terminate.recv().await.is_some() {
                raised.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(terminated)
}

/// Lowers a limit; one that is lower already stays.
fn lower(resource: Resource, amount: u64) -> io::Result<()> {
    let limit = getrlimit(resource);
    let lowered = |old: Option<u64>| Some(old.map_or(amount, |old| old.min(amount)));
    let new = Rlimit { current: lowered(limit.current), maximum: lowered(limit.maximum) };
    Ok(setrlimit(resource, new)?)
}
