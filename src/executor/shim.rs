//! `capex shim <lease-dir>`: the process of one lease.
//!
//! It needs nobody: the specification and the blobs lie in its directory, it waits for the
//! window, has a runtime run the workload, ends it in time and writes down what happened. It
//! lasts as long as the window: a workload that ends before may be run again, by its policy, or
//! when a new specification says so. One that does not end within its patience is ended together
//! with the process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zeroize::Zeroizing;

use super::access::Doors;
use super::bell::{self, Bell, Wake};
use super::launchers::ProcessId;
use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::runtimes::{self, Failure, Job, Runtime, Stop};
use super::spec::{LeaseSpec, SECRETS_MAX_BYTES, Secrets, parse_secrets};
use super::state::{Durability, Ended, Lost, Outcome, Record, State, Usage, read_json, write_json};
use super::watch::Watch;
use crate::clock::now_ms;
use capex_core::lease::objects::{RestartPolicy, Stream};

/// How long a run by policy waits, at first and at most; it doubles in between, and begins anew
/// after a run that was as long as the most.
const BACK_OFF_LEAST: Duration = Duration::from_secs(1);
const BACK_OFF_MOST: Duration = Duration::from_secs(60);

/// The outcome is in `state.json`.
const EXIT_RECORDED: u8 = 0;
/// No lease to run here: no valid specification, or it has ended.
const EXIT_NO_LEASE: u8 = 2;
/// Another process runs this lease.
const EXIT_HELD: u8 = 3;
/// The end could not be written down.
const EXIT_UNRECORDED: u8 = 4;

/// Reads what the launcher hands over: none of it is on a disk.
fn read_secrets() -> Secrets {
    let mut text = Zeroizing::new(Vec::new());
    // The command line holds the lock of the library's standard input.
    let stdin = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let read = stdin.and_then(|stdin| stdin.take(SECRETS_MAX_BYTES.into()).read_to_end(&mut text));
    read.ok().and_then(|_| parse_secrets(&text)).unwrap_or_default()
}

/// Runs the lease of a directory to its end. `has_secrets`: values of sealed variables come on
/// standard input. To be called from the main thread before any
/// runtime exists; the process is expected to exit with the returned code: 0 when the
/// outcome is recorded in `state.json`, 2 without a lease to run, 3 when another process
/// runs it, 4 when the end cannot be recorded.
#[must_use]
pub fn run(lease_dir: &Path, has_secrets: bool) -> u8 {
    let secrets = if has_secrets { read_secrets() } else { Secrets::new() };
    match Shim::open(LeaseDir::new(lease_dir.to_owned()), secrets) {
        Ok((shim, stage)) => shim.supervise(stage),
        Err(code) => code,
    }
}

/// Makes this process a container of a lease process, or a program in one. To be called from the
/// main thread before any other exists; what came of it lies in the directory.
#[must_use]
pub fn enter(dir: &Path, request: &str) -> u8 {
    match runtimes::enter(dir, request) {
        Ok(()) => EXIT_RECORDED,
        Err(_) => EXIT_UNRECORDED,
    }
}

/// Watches over what a lease process runs beside itself, and ends what it leaves behind. To be called
/// from the main thread; the process is expected to exit with the returned code.
#[must_use]
pub fn guard(lease_dir: &Path) -> u8 {
    match runtimes::guard(&LeaseDir::new(lease_dir.to_owned())) {
        Ok(()) => EXIT_RECORDED,
        Err(_) => EXIT_UNRECORDED,
    }
}

/// A runtime that was opened for the lease.
type Opened = Box<dyn Runtime>;

struct Shim {
    dir: LeaseDir,
    spec: LeaseSpec,
    own: ProcessId,
    watch: Watch,
    wake: Wake,
    doors: Doors,
    /// Runs that have begun, in this process or before it.
    runs: u32,
    /// Another workload than that of the runtime is to be run.
    is_other: bool,
    /// How long the next run by policy waits.
    back_off: Duration,
    /// What was lost with processes before this one.
    lost: Lost,
    secrets: Arc<Secrets>,
    /// Held as long as the process lives.
    _lock: File,
}

/// Why a run or its preparation is cut short.
enum Cut {
    /// The lease ends.
    End(Outcome),
    /// The holder has asked for another run.
    Again,
    /// The host rests.
    Rest,
}

/// Where the lease stands.
enum Stage {
    /// The runtime is away on a thread that prepares it.
    Preparing {
        prepared: Receiver<(Opened, Result<(), Failure>)>,
        cancelled: Arc<AtomicBool>,
        /// Why it was cancelled, and when that is not waited for any more.
        cut: Option<(Cut, Instant)>,
        /// What it came to in an earlier process: it is not run again by itself.
        rests: Option<Outcome>,
    },
    /// Waits for the window.
    Ready(Opened),
    Running {
        runtime: Opened,
        since: Instant,
        told: Told,
    },
    /// Told to end. Killed at a time if it has not, and not waited for after another.
    Ending {
        runtime: Opened,
        cut: Cut,
        kill_at: Instant,
        hard_end: Option<Instant>,
    },
    /// Waits for the end of the window, for its holder, or to be run again by policy.
    Exited {
        runtime: Option<Opened>,
        outcome: Outcome,
        at_ms: u64,
        again_at: Option<Instant>,
    },
    Over {
        runtime: Option<Opened>,
        outcome: Outcome,
    },
    /// The process ends, and another one goes on after a maintenance.
    Rests {
        runtime: Option<Opened>,
    },
}

/// Whether what runs has been told that its end is near.
#[derive(Debug, Default)]
struct Told(bool);

impl Told {
    /// Whether it is to be told now: once of each end, so again where the end has moved away.
    fn is_due(&mut self, is_near: bool) -> bool {
        !std::mem::replace(&mut self.0, is_near) && is_near
    }
}

impl Stage {
    fn over(runtime: Opened, outcome: Outcome) -> Self {
        Self::Over { runtime: Some(runtime), outcome }
    }
}

impl Shim {
    fn open(dir: LeaseDir, secrets: Secrets) -> Result<(Self, Stage), u8> {
        let bell = Bell::hang(&dir).map_err(|_| EXIT_NO_LEASE)?;
        let spec: LeaseSpec = read_json(&dir.spec()).ok().flatten().ok_or(EXIT_NO_LEASE)?;
        spec.validate().map_err(|_| EXIT_NO_LEASE)?;
        let lock = File::create(dir.lock()).map_err(|_| EXIT_NO_LEASE)?;
        lock.try_lock().map_err(|_| EXIT_HELD)?;
        let record: Option<Record> = read_json(&dir.state()).map_err(|_| EXIT_NO_LEASE)?;
        if record.as_ref().is_some_and(|record| matches!(record.state, State::Ended(_))) {
            return Err(EXIT_NO_LEASE);
        }
        let own = ProcessId::of(std::process::id()).ok_or(EXIT_UNRECORDED)?;
        let wake = Wake::default();
        let heard = without_dumps().and_then(|()| bell::listen(bell, &wake));
        let heard = heard.map_err(|_| EXIT_UNRECORDED)?;
        let log = |stream| CappedLog::open(&dir.log(stream), spec.output_max_bytes, wake.clone());
        let stdout = log(Stream::Stdout).map_err(|_| EXIT_UNRECORDED)?;
        let stderr = log(Stream::Stderr).map_err(|_| EXIT_UNRECORDED)?;
        let before: Usage = read_json(&dir.usage()).ok().flatten().unwrap_or_default();
        let mut watch = Watch::new(&spec, dir.clone(), [stdout, stderr], heard, before);
        let mut record = record.unwrap_or_else(|| Record::fresh(spec.order));
        if record.shim.is_some() {
            record.lose(&before);
        }
        if let Some(opened_at_ms) = record.opened_at_ms(spec.starts_at_ms) {
            watch.begin(Some(opened_at_ms));
        }
        let rests = match &record.state {
            State::Exited { outcome, .. } if record.order == spec.order => Some(outcome.clone()),
            _ => None,
        };
        let (runs, lost) = (record.state.runs(), record.lost);
        let secrets = Arc::new(secrets);
        let (is_other, back_off) = (false, BACK_OFF_LEAST);
        let doors = Doors::open(&dir).map_err(|_| EXIT_UNRECORDED)?;
        let mut shim = Self {
            dir,
            spec,
            own,
            watch,
            wake,
            doors,
            runs,
            is_other,
            back_off,
            lost,
            secrets,
            _lock: lock,
        };
        // Whose process it is has to be known, whatever it was before.
        shim.record(record.state).map_err(|_| EXIT_UNRECORDED)?;
        let stage = shim.prepare(rests);
        Ok((shim, stage))
    }

    fn supervise(mut self, mut stage: Stage) -> u8 {
        loop {
            stage = match stage {
                Stage::Over { runtime, outcome } => return self.finish(runtime, outcome),
                Stage::Rests { runtime } => return self.rest(runtime),
                stage => match self.step(stage) {
                    Ok(stage) => stage,
                    Err(_) => return EXIT_UNRECORDED,
                },
            };
        }
    }

    /// Opens a runtime and begins to prepare it.
    fn prepare(&mut self, rests: Option<Outcome>) -> Stage {
        self.is_other = false;
        if let Some(secrets) = self.doors.handed() {
            self.secrets = Arc::new(secrets);
        }
        let (dir, spec, logs) = (self.dir.clone(), self.spec.clone(), self.watch.logs().clone());
        let (secrets, wake) = (Arc::clone(&self.secrets), self.wake.clone());
        let mut runtime = match runtimes::open(Job { dir, spec, logs, secrets, wake }) {
            Ok(runtime) => runtime,
            Err(failure) => return Stage::Over { runtime: None, outcome: failure.outcome() },
        };
        let (done, prepared) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let (cancel, wake) = (Arc::clone(&cancelled), self.wake.clone());
        let spawned = thread::Builder::new().name("prepare".into()).spawn(move || {
            let result = runtime.prepare(&cancel);
            // Nobody listens any more only if the process is ending.
            let _ = done.send((runtime, result));
            drop(done);
            wake.up();
        });
        match spawned {
            Ok(_) => Stage::Preparing { prepared, cancelled, cut: None, rests },
            Err(error) => {
                Stage::Over { runtime: None, outcome: Outcome::failed(error.to_string()) }
            }
        }
    }

    fn step(&mut self, stage: Stage) -> io::Result<Stage> {
        match stage {
            Stage::Preparing { prepared, cancelled, cut, rests } => {
                self.sleep([cut.as_ref().map(|(_, hard_end)| *hard_end)], None);
                match prepared.try_recv() {
                    Ok((runtime, result)) => self.on_prepared(runtime, result, cut, rests),
                    Err(TryRecvError::Disconnected) => {
                        let outcome = Outcome::failed("the preparing thread died");
                        Ok(Stage::Over { runtime: None, outcome })
                    }
                    Err(TryRecvError::Empty) => {
                        Ok(self.await_prepared(prepared, cancelled, cut, rests))
                    }
                }
            }
            Stage::Ready(runtime) => self.await_window(runtime),
            Stage::Running { runtime, since, told } => self.await_exit(runtime, since, told),
            Stage::Ending { runtime, cut, kill_at, hard_end } => {
                self.await_end(runtime, cut, kill_at, hard_end)
            }
            Stage::Exited { runtime, outcome, at_ms, again_at } => {
                self.await_order(runtime, outcome, at_ms, again_at)
            }
            over @ (Stage::Over { .. } | Stage::Rests { .. }) => Ok(over),
        }
    }

    /// Sleeps until something is due, or somebody calls.
    fn sleep(&mut self, until: impl IntoIterator<Item = Option<Instant>>, beat: Option<Duration>) {
        let now = Instant::now();
        let left = until.into_iter().flatten().map(|until| until.saturating_duration_since(now));
        let idle = self.watch.idle(self.spec.workload.grace_ms);
        self.wake.sleep(left.chain(beat).fold(idle, Duration::min));
        self.watch.wake();
    }

    /// Why what is under way has to end now, if it has to.
    fn cut(&mut self) -> Option<Cut> {
        let new = self.watch.look();
        if let Some(outcome) = self.watch.verdict() {
            return Some(Cut::End(outcome));
        }
        if self.watch.rests().is_now() {
            // What is new is taken up by the process that goes on.
            return Some(Cut::Rest);
        }
        let new = new?;
        self.watch.extend(new.ends_at_ms);
        let is_ordered = new.order > self.spec.order;
        self.is_other |= new.workload != self.spec.workload;
        self.spec = new;
        is_ordered.then_some(Cut::Again)
    }

    fn on_prepared(
        &mut self,
        mut runtime: Opened,
        result: Result<(), Failure>,
        cut: Option<(Cut, Instant)>,
        rests: Option<Outcome>,
    ) -> io::Result<Stage> {
        match (result, cut) {
            (_, Some((Cut::End(outcome), _))) => Ok(Stage::over(runtime, outcome)),
            (_, Some((Cut::Again, _))) => {
                runtime.release();
                Ok(self.prepare(None))
            }
            (_, Some((Cut::Rest, _))) => Ok(Stage::Rests { runtime: Some(runtime) }),
            (Err(failure @ Failure::Workload { .. }), None) => {
                self.exited(Some(runtime), failure.outcome())
            }
            (Err(failure), None) => Ok(Stage::over(runtime, failure.outcome())),
            // It was prepared before anything was looked at.
            (Ok(()), None) if self.watch.rests().is_now() => {
                Ok(Stage::Rests { runtime: Some(runtime) })
            }
            (Ok(()), None) => {
                self.doors.prepared(runtime.files());
                match rests {
                    Some(outcome) => self.exited(Some(runtime), outcome),
                    None if self.watch.until_start().is_zero() => self.run(runtime),
                    None => {
                        self.is_back();
                        self.record(State::Ready)?;
                        Ok(Stage::Ready(runtime))
                    }
                }
            }
        }
    }

    fn await_prepared(
        &mut self,
        prepared: Receiver<(Opened, Result<(), Failure>)>,
        cancelled: Arc<AtomicBool>,
        cut: Option<(Cut, Instant)>,
        rests: Option<Outcome>,
    ) -> Stage {
        let cut = match (cut, self.cut()) {
            (cut @ Some((Cut::End(_) | Cut::Rest, _)), _) | (cut, None) => cut,
            (_, Some(new)) => {
                cancelled.store(true, Ordering::Relaxed);
                Some((new, self.hard_end()))
            }
        };
        match cut {
            Some((Cut::End(outcome), hard_end)) if Instant::now() >= hard_end => {
                Stage::Over { runtime: None, outcome }
            }
            Some((Cut::Rest, hard_end)) if Instant::now() >= hard_end => {
                Stage::Rests { runtime: None }
            }
            cut => Stage::Preparing { prepared, cancelled, cut, rests },
        }
    }

    fn await_window(&mut self, mut runtime: Opened) -> io::Result<Stage> {
        match self.cut() {
            Some(Cut::End(outcome)) => return Ok(Stage::over(runtime, outcome)),
            Some(Cut::Rest) => return Ok(Stage::Rests { runtime: Some(runtime) }),
            Some(Cut::Again) if self.is_other => {
                self.doors.shut();
                runtime.release();
                return Ok(self.prepare(None));
            }
            Some(Cut::Again) | None => {}
        }
        if self.watch.until_start().is_zero() {
            return self.run(runtime);
        }
        self.sleep([], None);
        Ok(Stage::Ready(runtime))
    }

    /// The lease can be used, perhaps after a process that was lost.
    fn is_back(&mut self) {
        if let Some(since_ms) = self.lost.since_ms {
            let (starts_at_ms, ends_at_ms) = self.watch.window_ms();
            if self.watch.until_start().is_zero() {
                self.watch.begin(Some(since_ms.max(starts_at_ms)));
            }
            self.lost.close(self.watch.started_at_ms(), ends_at_ms, self.watch.rests());
            self.watch.resume();
        }
    }

    /// Begins a run.
    fn run(&mut self, mut runtime: Opened) -> io::Result<Stage> {
        self.is_back();
        self.watch.begin(None);
        self.runs = self.runs.saturating_add(1);
        let (pid, run) = (self.own.pid, self.runs);
        let started_at_ms = self.watch.started_at_ms().unwrap_or_else(now_ms);
        // It is counted before it begins, so that a crash in between is not taken for none.
        self.doors.beginning();
        self.record(State::Running { pid, run, started_at_ms })?;
        match runtime.run() {
            Ok(()) => {
                self.doors.running(runtime.beside());
                Ok(Stage::Running { runtime, since: Instant::now(), told: Told::default() })
            }
            Err(failure @ Failure::Workload { .. }) => {
                self.exited(Some(runtime), failure.outcome())
            }
            Err(failure) => Ok(Stage::over(runtime, failure.outcome())),
        }
    }

    /// Runs the workload of the specification, which may be another one.
    fn run_again(&mut self, runtime: Option<Opened>) -> io::Result<Stage> {
        match runtime {
            Some(runtime) if !self.is_other => {
                if self.watch.until_start().is_zero() {
                    return self.run(runtime);
                }
                Ok(Stage::Ready(runtime))
            }
            runtime => {
                self.doors.shut();
                if let Some(mut runtime) = runtime {
                    self.watch.carry(&runtime.sample());
                    // What it cannot give back now is found by the directory later.
                    runtime.release();
                }
                Ok(self.prepare(None))
            }
        }
    }

    fn await_exit(
        &mut self,
        mut runtime: Opened,
        since: Instant,
        mut told: Told,
    ) -> io::Result<Stage> {
        self.sleep([self.watch.sample_due()], runtime.beat());
        let ended = runtime.ended();
        self.watch.heartbeat(|| runtime.sample());
        if let Some(outcome) = ended {
            if since.elapsed() >= BACK_OFF_MOST {
                self.back_off = BACK_OFF_LEAST;
            }
            return self.exited(Some(runtime), outcome);
        }
        if let Some(text) = self.watch.notice() {
            // It is told for its own good: nothing depends on it.
            let _ = self.watch.logs()[1].append(text.as_bytes());
            let _ = runtime.notice(&text);
        }
        let grace_ms = self.spec.workload.grace_ms;
        match self.cut() {
            Some(cut) => {
                let is_over = self.watch.is_window_over();
                let grace = if is_over { 0 } else { grace_ms };
                if grace > 0 {
                    runtime.stop(Stop::Signal);
                }
                let kill_at = Instant::now() + Duration::from_millis(grace.into());
                Ok(Stage::Ending { runtime, cut, kill_at, hard_end: None })
            }
            None => {
                if told.is_due(grace_ms > 0 && self.watch.ends_within(grace_ms)) {
                    runtime.stop(Stop::Signal);
                }
                Ok(Stage::Running { runtime, since, told })
            }
        }
    }

    fn await_end(
        &mut self,
        mut runtime: Opened,
        mut cut: Cut,
        kill_at: Instant,
        mut hard_end: Option<Instant>,
    ) -> io::Result<Stage> {
        let patience = Some(hard_end.unwrap_or(kill_at));
        self.sleep([patience, self.watch.sample_due()], runtime.beat());
        let ended = runtime.ended();
        self.watch.heartbeat(|| runtime.sample());
        if let Some(outcome) = ended {
            return self.after_end(runtime, cut, outcome);
        }
        if matches!(cut, Cut::Again)
            && let Some(new) = self.cut()
        {
            cut = new;
        }
        let is_late = Instant::now() >= kill_at || self.watch.is_window_over();
        match hard_end {
            None if is_late => {
                runtime.stop(Stop::Kill);
                hard_end = Some(self.hard_end());
            }
            Some(hard_end) if Instant::now() >= hard_end => {
                return Ok(match cut {
                    Cut::End(outcome) => Stage::over(runtime, outcome),
                    Cut::Again => {
                        Stage::over(runtime, Outcome::failed("the workload cannot be ended"))
                    }
                    Cut::Rest => Stage::Rests { runtime: Some(runtime) },
                });
            }
            None | Some(_) => {}
        }
        Ok(Stage::Ending { runtime, cut, kill_at, hard_end })
    }

    /// The workload has ended after it was told to.
    fn after_end(&mut self, runtime: Opened, cut: Cut, outcome: Outcome) -> io::Result<Stage> {
        // What it came to by itself counts, and a signal is not that.
        let was_told = match outcome {
            Outcome::Stopped => true,
            Outcome::Exited { code } => code > 128,
            _ => false,
        };
        match cut {
            Cut::End(why) => Ok(Stage::over(runtime, if was_told { why } else { outcome })),
            Cut::Rest => Ok(Stage::Rests { runtime: Some(runtime) }),
            Cut::Again => {
                let outcome = if was_told { Outcome::Stopped } else { outcome };
                self.record_exit(&outcome, now_ms())?;
                self.run_again(Some(runtime))
            }
        }
    }

    /// The workload has ended by itself, or cannot be run.
    fn exited(&mut self, runtime: Option<Opened>, outcome: Outcome) -> io::Result<Stage> {
        if matches!(outcome, Outcome::Failed { .. } | Outcome::Interrupted) {
            return Ok(Stage::Over { runtime, outcome });
        }
        self.watch.sync_delivery(&self.spec.workload.results);
        let at_ms = now_ms();
        self.is_back();
        if self.watch.until_start().is_zero() {
            self.watch.begin(None);
        }
        self.record_exit(&outcome, at_ms)?;
        let runs_again = match (&outcome, self.spec.workload.restart) {
            (Outcome::Unfit { .. }, _) | (_, RestartPolicy::No) => false,
            (outcome, RestartPolicy::OnFailure) => *outcome != Outcome::Exited { code: 0 },
            (_, RestartPolicy::Always) => true,
        };
        let again_at = runs_again.then(|| Instant::now() + self.back_off);
        if runs_again {
            self.back_off = (2 * self.back_off).min(BACK_OFF_MOST);
        }
        Ok(Stage::Exited { runtime, outcome, at_ms, again_at })
    }

    fn await_order(
        &mut self,
        mut runtime: Option<Opened>,
        outcome: Outcome,
        at_ms: u64,
        again_at: Option<Instant>,
    ) -> io::Result<Stage> {
        match self.cut() {
            Some(Cut::End(_)) => return Ok(Stage::Over { runtime, outcome }),
            Some(Cut::Rest) => return Ok(Stage::Rests { runtime }),
            Some(Cut::Again) => return self.run_again(runtime),
            None => {}
        }
        self.watch.heartbeat(|| runtime.as_mut().map(|one| one.sample()).unwrap_or_default());
        if self.watch.started_at_ms().is_none() && self.watch.until_start().is_zero() {
            // The window opens all the same: the blocks wait for their holder.
            self.watch.begin(None);
            self.record_exit(&outcome, at_ms)?;
        }
        if again_at.is_some_and(|again_at| Instant::now() >= again_at) {
            return self.run_again(runtime);
        }
        self.sleep([again_at, self.watch.sample_due()], None);
        Ok(Stage::Exited { runtime, outcome, at_ms, again_at })
    }

    /// When the process ends whatever is still in it.
    fn hard_end(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.spec.kill_ms)
    }

    /// Writes down the end. Everything else of this process ends with it.
    fn finish(mut self, mut runtime: Option<Opened>, outcome: Outcome) -> u8 {
        self.is_back();
        let sample = runtime.as_mut().map(|runtime| runtime.sample()).unwrap_or_default();
        let usage = self.watch.usage(&sample);
        self.watch.sync_delivery(&self.spec.workload.results);
        let ended = Ended {
            outcome,
            runs: self.runs,
            started_at_ms: self.watch.started_at_ms(),
            ended_at_ms: now_ms(),
            delivered_ms: usage.delivered_ms,
            cpu_us: usage.cpu_us,
            memory_peak_bytes: usage.memory_peak_bytes,
            throttled_us: usage.throttled_us,
            interrupted_ms: self.lost.ms,
        };
        let _ = write_json(&self.dir.usage(), &usage, Durability::Fsync);
        let recorded = self.record(State::Ended(ended));
        self.doors.shut();
        // What is left is found again by the directory when the lease is released.
        if let Some(runtime) = &mut runtime {
            runtime.release();
        }
        match recorded {
            Ok(()) => EXIT_RECORDED,
            Err(_) => EXIT_UNRECORDED,
        }
    }

    /// Leaves the lease to a process after the maintenance: it goes on from where it stood.
    ///
    /// Nothing is given back, as nothing is by a process that is lost: what a runtime holds for the lease
    /// is its disk as well.
    fn rest(self, mut runtime: Option<Opened>) -> u8 {
        let sample = runtime.as_mut().map(|runtime| runtime.sample()).unwrap_or_default();
        let usage = self.watch.usage(&sample);
        self.watch.sync_delivery(&self.spec.workload.results);
        let _ = write_json(&self.dir.usage(), &usage, Durability::Fsync);
        self.doors.shut();
        let known: io::Result<Option<Record>> = read_json(&self.dir.state());
        let rested = known.and_then(|known| {
            let mut record = known.unwrap_or_else(|| Record::fresh(self.spec.order));
            record.rest();
            write_json(&self.dir.state(), &record, Durability::Fsync)
        });
        if rested.is_ok() { EXIT_RECORDED } else { EXIT_UNRECORDED }
    }

    fn record_exit(&self, outcome: &Outcome, at_ms: u64) -> io::Result<()> {
        self.doors.exited(outcome);
        let started_at_ms = self.watch.started_at_ms();
        let (run, outcome) = (self.runs, outcome.clone());
        self.record(State::Exited { run, outcome, at_ms, started_at_ms })
    }

    fn record(&self, state: State) -> io::Result<()> {
        let (shim, order, lost) = (Some(self.own.clone()), self.spec.order, self.lost);
        let record = Record { shim, order, written_ms: now_ms(), lost, state };
        write_json(&self.dir.state(), &record, Durability::Fsync)
    }
}

/// A lease leaves no memory dumps.
fn without_dumps() -> io::Result<()> {
    let limit = getrlimit(Resource::Core);
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_told_once_of_each_end() {
        let mut told = Told::default();
        // The end comes near, moves away because the lease is extended, and comes near again.
        let near = [false, true, true, false, false, true, true];
        let due = near.map(|is_near| told.is_due(is_near));
        assert_eq!(due, [false, true, false, false, false, true, false]);
    }
}
