//! What a lease process looks at while its workload runs: the clock, the request to stop,
//! the disk.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::meter::Meter;
use super::quota;
use super::spec::LeaseSpec;
use super::state::{Durability, Outcome, Usage, write_json};
use crate::clock::now_ms;

/// Between two looks at the disk and the stop file.
const LOOK: Duration = Duration::from_millis(50);
/// Between two samples.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// The observer of one workload.
pub(super) struct Watch {
    spec: LeaseSpec,
    dir: LeaseDir,
    meter: Arc<Meter>,
    logs: [CappedLog; 2],
    terminated: Arc<AtomicBool>,
    begun: Option<Begun>,
    looked: Option<Instant>,
    beaten: Option<Instant>,
    work_bytes: Option<u64>,
}

/// A start by both clocks. The wall decides when a window ends; the monotonic clock keeps
/// a wall clock that is set back from prolonging it.
struct Begun {
    at_ms: u64,
    at: Instant,
    ends: Instant,
}

impl Watch {
    pub(super) fn new(
        spec: LeaseSpec,
        dir: LeaseDir,
        meter: Arc<Meter>,
        logs: [CappedLog; 2],
        terminated: Arc<AtomicBool>,
    ) -> Self {
        Self {
            spec,
            dir,
            meter,
            logs,
            terminated,
            begun: None,
            looked: None,
            beaten: None,
            work_bytes: Some(0),
        }
    }

    /// Time until the window begins.
    pub(super) fn until_start(&self) -> Duration {
        Duration::from_millis(self.spec.starts_at_ms.saturating_sub(now_ms()))
    }

    /// Takes note of the start and answers its time, unix ms.
    pub(super) fn begin(&mut self) -> u64 {
        let (at_ms, at) = (now_ms(), Instant::now());
        let left = Duration::from_millis(self.spec.ends_at_ms.saturating_sub(at_ms));
        self.begun = Some(Begun { at_ms, at, ends: at + left });
        at_ms
    }

    pub(super) fn started_at_ms(&self) -> Option<u64> {
        self.begun.as_ref().map(|begun| begun.at_ms)
    }

    /// Why the workload has to end now, if it has to.
    pub(super) fn verdict(&mut self) -> Option<Outcome> {
        if self.is_window_over() {
            return Some(match self.begun {
                Some(_) => Outcome::Deadline,
                None => Outcome::failed("not ready before the window ended"),
            });
        }
        if self.terminated.load(Ordering::Relaxed) {
            return Some(Outcome::Stopped);
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        if self.dir.stop().exists() {
            return Some(Outcome::Stopped);
        }
        self.is_over_quota().then_some(Outcome::OutputQuota)
    }

    fn is_window_over(&self) -> bool {
        now_ms() >= self.spec.ends_at_ms
            || self.begun.as_ref().is_some_and(|begun| Instant::now() >= begun.ends)
    }

    /// Counts the disk. A directory that cannot be counted is over its quota: the lease
    /// must not be able to hide what it uses.
    pub(super) fn is_over_quota(&mut self) -> bool {
        let work = self.dir.work();
        let named = quota::used_bytes(&work).ok().flatten();
        let unnamed = quota::unlinked_bytes(&work).ok();
        self.work_bytes = named.zip(unnamed).map(|(named, unnamed)| named + unnamed);
        self.work_bytes.is_none_or(|bytes| bytes > self.spec.work_max_bytes)
    }

    /// Writes a sample when one is due. The next one makes up for one that fails.
    pub(super) fn heartbeat(&mut self) {
        if self.begun.is_some() && self.beaten.is_none_or(|beaten| beaten.elapsed() >= HEARTBEAT) {
            self.beaten = Some(Instant::now());
            let _ = write_json(&self.dir.usage(), &self.usage(), Durability::Rename);
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let [(stdout_bytes, stdout_dropped), (stderr_bytes, stderr_dropped)] =
            [self.logs[0].counts(), self.logs[1].counts()];
        let delivered = self.begun.as_ref().map_or(Duration::ZERO, |begun| begun.at.elapsed());
        Usage {
            at_ms: now_ms(),
            delivered_ms: u64::try_from(delivered.as_millis()).unwrap_or(u64::MAX),
            cpu_us: self.meter.cpu_us(),
            memory_peak_bytes: self.meter.memory_peak_bytes(),
            memory_denied: self.meter.memory_denied(),
            stdout_bytes,
            stdout_dropped,
            stderr_bytes,
            stderr_dropped,
            work_bytes: self.work_bytes.unwrap_or(u64::MAX),
        }
    }

    /// Makes output and results outlast a loss of power.
    pub(super) fn sync_delivery(&self) {
        for log in &self.logs {
            // What cannot be synced is still there to be read now.
            let _ = log.sync();
        }
        for name in &self.spec.results {
            let path = self.dir.work().join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
                let _ = fs::File::open(&path).and_then(|file| file.sync_all());
            }
        }
    }
}
