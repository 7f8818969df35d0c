//! Components of WASI 0.2, executed in the lease process itself: everywhere, without privileges.

mod bench;
mod component;
mod guest;
mod inspect;
mod meter;
mod output;
mod quota;

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use wasmtime::Engine;

use self::bench::Bench;
use self::component::{Host, Program};
use self::guest::Guest;
pub use self::inspect::{Needs, Unfit, inspect};
use self::meter::Meter;
use super::{Beside, Failure, Files, Job, Left, NOTICE_FILE, Runtime, Sample, Stop, Within};
use crate::executor::blobs;
use crate::executor::spec::LeaseSpec;
use crate::executor::state::Outcome;
use capex_core::lease::objects::Payload;
use capex_core::reason;

/// A workload is interrupted at most this late, and its CPU time is this fresh.
const EPOCH: Duration = Duration::from_millis(10);
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(50);
/// Files, streams and timers of a workload plus our own.
const MAX_OPEN_FILES: u64 = 640;
/// State, usage and logs have to fit below the size limit of one file.
const MIN_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The runtime of one component.
pub(super) struct Wasm {
    job: Job,
    engine: Engine,
    meter: Arc<Meter>,
    program: Option<Arc<Program>>,
    guest: Option<Guest>,
    looked: Option<Instant>,
    work_bytes: Option<u64>,
    /// When it was told to end for its disk.
    overfull: Option<Instant>,
}

impl Wasm {
    /// Confines the process: to be called from its main thread.
    pub(super) fn open(job: Job) -> Result<Self, Failure> {
        confine(&job.spec).map_err(|error| Failure::host(error.to_string()))?;
        let engine = component::engine().map_err(|error| Failure::host(format!("{error:#}")))?;
        let meter = Arc::new(Meter::default());
        let work_bytes = Some(0);
        let (program, guest, looked, overfull) = (None, None, None, None);
        Ok(Self { job, engine, meter, program, guest, looked, work_bytes, overfull })
    }

    /// Counts the disk. A directory that cannot be counted is over its quota: the lease
    /// must not be able to hide what it uses.
    fn is_over_quota(&mut self) -> bool {
        let work = self.job.dir.work();
        let named = quota::used_bytes(&work).ok().flatten();
        let unnamed = quota::unlinked_bytes(&work).ok();
        self.work_bytes = named.zip(unnamed).map(|(named, unnamed)| named + unnamed);
        self.looked = Some(Instant::now());
        self.work_bytes.is_none_or(|bytes| bytes > self.job.spec.work_max_bytes)
    }

    /// Ends a run that outgrows its disk; answers once it should have ended.
    fn watch_disk(&mut self) -> Option<Outcome> {
        if let Some(since) = self.overfull {
            let patience = Duration::from_millis(self.job.spec.kill_ms);
            return (since.elapsed() > patience).then_some(Outcome::OutputQuota);
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) && self.is_over_quota() {
            self.overfull = Some(Instant::now());
            self.stop(Stop::Kill);
        }
        None
    }

    fn concluded(&mut self, outcome: Outcome) -> Outcome {
        self.guest = None;
        let was_full = self.overfull.take().is_some();
        if was_full || self.is_over_quota() { Outcome::OutputQuota } else { outcome }
    }
}

impl Runtime for Wasm {
    fn prepare(&mut self, _cancelled: &AtomicBool) -> Result<(), Failure> {
        let Payload::Wasm { component } = &self.job.spec.workload.payload else {
            return Err(Failure::host("not a component"));
        };
        let host = |error: &dyn std::fmt::Display| Failure::host(error.to_string());
        blobs::place_inputs(&self.job.dir, &self.job.spec).map_err(|error| host(&error))?;
        let bytes = fs::read(self.job.dir.blob(&component.digest)).map_err(|error| host(&error))?;
        let program = Program::compile(&self.engine, &bytes).map_err(|error| {
            Failure::workload(reason!("workload.not_wasm"), format!("component: {error:#}"))
        })?;
        self.program = Some(Arc::new(program));
        self.job.env().map(drop)
    }

    fn run(&mut self) -> Result<(), Failure> {
        let program = self.program.as_ref().ok_or_else(|| Failure::host("not prepared"))?;
        if self.guest.is_some() {
            return Err(Failure::host("the run before has not ended"));
        }
        let host = Host::new(&self.job, Arc::clone(&self.meter));
        let host = host.map_err(|error| Failure::host(format!("{error:#}")))?;
        let guest =
            Guest::spawn(Arc::clone(program), host, Arc::clone(&self.meter), &self.job.wake);
        self.guest = Some(guest.map_err(|error| Failure::host(error.to_string()))?);
        Ok(())
    }

    fn ended(&mut self) -> Option<Outcome> {
        match self.guest.as_ref()?.outcome.try_recv() {
            Ok(outcome) => return Some(self.concluded(outcome)),
            Err(TryRecvError::Disconnected) => {
                self.guest = None;
                return Some(Outcome::failed("the executing thread died"));
            }
            Err(TryRecvError::Empty) => {}
        }
        self.engine.increment_epoch();
        self.watch_disk()
    }

    fn beat(&self) -> Option<Duration> {
        self.guest.as_ref().map(|_| EPOCH)
    }

    fn beside(&self) -> Option<Arc<dyn Beside>> {
        Some(Arc::new(Bench))
    }

    /// Its quota is counted while it runs, not held by the kernel: files are only read.
    fn files(&self) -> io::Result<Files> {
        let root = Within::open(&self.job.dir.work())?;
        let workdir = String::new();
        Ok(Files { root, workdir, owner: (0, 0), first_id: 0, is_writable: false })
    }

    fn sample(&mut self) -> Sample {
        Sample {
            cpu_us: self.meter.cpu_us(),
            memory_peak_bytes: self.meter.memory_peak_bytes(),
            memory_denied: self.meter.memory_denied(),
            // It has one thread, which takes no more than one processor.
            throttled_us: 0,
            work_bytes: self.work_bytes,
        }
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        let path = self.job.dir.work().join(NOTICE_FILE);
        // Whatever the workload has put there is not written through.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::File::create_new(path)?.write_all(text.as_bytes())
    }

    /// A component hears no signals: its holder could name none.
    fn stop(&mut self, how: Stop) {
        match (how, &self.guest) {
            (Stop::Kill, Some(guest)) => {
                guest.cancel();
                self.engine.increment_epoch();
            }
            (Stop::Kill, None) | (Stop::Signal, _) => {}
        }
    }

    fn release(&mut self) -> Vec<Left> {
        Vec::new()
    }
}

/// Limits the process itself, below what the workload's sandbox already denies.
///
/// With SIGXFSZ handled, a write beyond the limit of one file fails instead of killing
/// the process: the quota is hard for each file, and counted over all of them.
fn confine(spec: &LeaseSpec) -> io::Result<()> {
    let file_bytes = spec.work_max_bytes.max(spec.output_max_bytes).max(MIN_FILE_LIMIT_BYTES);
    lower(Resource::Fsize, file_bytes)?;
    lower(Resource::Nofile, MAX_OPEN_FILES)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    // The handler stays when this goes.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Lowers a limit; one that is lower already stays.
fn lower(resource: Resource, amount: u64) -> io::Result<()> {
    let limit = getrlimit(resource);
    let lowered = |old: Option<u64>| Some(old.map_or(amount, |old| old.min(amount)));
    let new = Rlimit { current: lowered(limit.current), maximum: lowered(limit.maximum) };
    Ok(setrlimit(resource, new)?)
}
