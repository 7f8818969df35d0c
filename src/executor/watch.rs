//! What a lease process looks at: the clock, and what it is asked for.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::rests::{Rests, Watched};
use super::runtimes::Sample;
use super::spec::LeaseSpec;
use super::state::{Durability, Outcome, Usage, Written, read_json, write_json};
use crate::clock::now_ms;

/// Between two looks at the specification.
const LOOK: Duration = Duration::from_millis(50);
/// Between two samples.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// What the holder is told before the end: how long before, ms, and in words.
const NOTICES: [(u64, &str); 2] = [(600_000, "10 minutes"), (60_000, "60 seconds")];

/// The observer of one lease.
pub(super) struct Watch {
    dir: LeaseDir,
    starts_at_ms: u64,
    ends_at_ms: u64,
    logs: [CappedLog; 2],
    terminated: Arc<AtomicBool>,
    begun: Option<Begun>,
    /// What an earlier process of this lease has counted.
    before: Usage,
    looked: Option<Instant>,
    beaten: Option<Instant>,
    /// Which file the specification that is known was.
    written: Option<Written>,
    /// Notices before this end were given.
    noticed: usize,
    rests: Watched,
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
        spec: &LeaseSpec,
        dir: LeaseDir,
        logs: [CappedLog; 2],
        terminated: Arc<AtomicBool>,
        before: Usage,
    ) -> Self {
        let (written, rests) = (Written::of(&dir.spec()), Watched::beside(dir.path()));
        Self {
            dir,
            starts_at_ms: spec.starts_at_ms,
            ends_at_ms: spec.ends_at_ms,
            logs,
            terminated,
            begun: None,
            before,
            looked: None,
            beaten: None,
            written,
            noticed: 0,
            rests,
        }
    }

    pub(super) fn logs(&self) -> &[CappedLog; 2] {
        &self.logs
    }

    /// Time until the window begins.
    pub(super) fn until_start(&self) -> Duration {
        Duration::from_millis(self.starts_at_ms.saturating_sub(now_ms()))
    }

    /// Opens the window, or goes on with one that an earlier process has opened.
    pub(super) fn begin(&mut self, opened_at_ms: Option<u64>) {
        if self.begun.is_none() {
            let (now_ms, at) = (now_ms(), Instant::now());
            let left = Duration::from_millis(self.ends_at_ms.saturating_sub(now_ms));
            let at_ms = opened_at_ms.unwrap_or(now_ms);
            self.begun = Some(Begun { at_ms, at, ends: at + left });
            self.noticed = self.passed();
        }
    }

    /// The lease can be used from now on: what was before is not delivered.
    pub(super) fn resume(&mut self) {
        if let Some(begun) = &mut self.begun {
            begun.at = Instant::now();
        }
    }

    /// The window ends later than was known.
    pub(super) fn extend(&mut self, ends_at_ms: u64) {
        let more = Duration::from_millis(ends_at_ms.saturating_sub(self.ends_at_ms));
        self.ends_at_ms = self.ends_at_ms.max(ends_at_ms);
        if let Some(begun) = &mut self.begun {
            begun.ends += more;
            self.noticed = self.passed();
        }
    }

    pub(super) fn window_ms(&self) -> (u64, u64) {
        (self.starts_at_ms, self.ends_at_ms)
    }

    pub(super) fn started_at_ms(&self) -> Option<u64> {
        self.begun.as_ref().map(|begun| begun.at_ms)
    }

    /// Why the lease has to end now, if it has to.
    pub(super) fn verdict(&mut self) -> Option<Outcome> {
        if self.is_window_over() {
            return Some(match self.begun {
                Some(_) => Outcome::Deadline,
                None => Outcome::failed("not ready before the window ended"),
            });
        }
        if self.terminated.load(Ordering::Relaxed) || self.dir.stop().exists() {
            return Some(Outcome::Stopped);
        }
        None
    }

    /// The specification, if another was written since.
    pub(super) fn news(&mut self) -> Option<LeaseSpec> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        self.rests.look();
        let written = Written::of(&self.dir.spec());
        if written == self.written {
            return None;
        }
        let spec: LeaseSpec = read_json(&self.dir.spec()).ok().flatten()?;
        self.written = written;
        spec.validate().is_ok().then_some(spec)
    }

    /// When leases rest.
    pub(super) fn rests(&self) -> &Rests {
        self.rests.rests()
    }

    pub(super) fn is_window_over(&self) -> bool {
        now_ms() >= self.ends_at_ms
            || self.begun.as_ref().is_some_and(|begun| Instant::now() >= begun.ends)
    }

    /// How long nothing has to be looked at: no longer than to the end of the window.
    pub(super) fn idle(&self) -> Duration {
        let left = Duration::from_millis(self.ends_at_ms.saturating_sub(now_ms()));
        left.clamp(Duration::from_millis(1), LOOK)
    }

    /// Whether the window ends within so much time.
    pub(super) fn ends_within(&self, ms: u32) -> bool {
        now_ms().saturating_add(ms.into()) >= self.ends_at_ms
    }

    /// Notices whose time has come.
    fn passed(&self) -> usize {
        let left_ms = self.ends_at_ms.saturating_sub(now_ms());
        NOTICES.iter().filter(|(before_ms, _)| left_ms <= *before_ms).count()
    }

    /// What the workload is to be told now of its end, or of a maintenance.
    pub(super) fn notice(&mut self) -> Option<String> {
        let rests = self.rests.news((self.starts_at_ms, self.ends_at_ms));
        let passed = self.passed();
        if passed <= self.noticed {
            return rests;
        }
        self.noticed = passed;
        let (_, left) = NOTICES[passed - 1];
        let end = format!("capex: the window of this lease ends in {left}\n");
        Some(rests.unwrap_or_default() + &end)
    }

    /// Takes a sample when one is due, and writes it. The next one makes up for one that fails.
    pub(super) fn heartbeat(&mut self, sample: impl FnOnce() -> Sample) {
        if self.begun.is_some() && self.beaten.is_none_or(|beaten| beaten.elapsed() >= HEARTBEAT) {
            self.beaten = Some(Instant::now());
            let _ = write_json(&self.dir.usage(), &self.usage(&sample()), Durability::Rename);
        }
    }

    /// The runtime that has used this is no more; another one counts from zero.
    pub(super) fn carry(&mut self, sample: &Sample) {
        let before = &mut self.before;
        before.cpu_us = before.cpu_us.saturating_add(sample.cpu_us);
        before.throttled_us = before.throttled_us.saturating_add(sample.throttled_us);
        before.memory_denied = before.memory_denied.saturating_add(sample.memory_denied);
        before.memory_peak_bytes = before.memory_peak_bytes.max(sample.memory_peak_bytes);
    }

    pub(super) fn usage(&self, sample: &Sample) -> Usage {
        let [(stdout_bytes, stdout_dropped), (stderr_bytes, stderr_dropped)] =
            [self.logs[0].counts(), self.logs[1].counts()];
        let delivered = self.begun.as_ref().map_or(Duration::ZERO, |begun| begun.at.elapsed());
        let delivered_ms = u64::try_from(delivered.as_millis()).unwrap_or(u64::MAX);
        let before = &self.before;
        Usage {
            at_ms: now_ms(),
            delivered_ms: before.delivered_ms.saturating_add(delivered_ms),
            cpu_us: before.cpu_us.saturating_add(sample.cpu_us),
            memory_peak_bytes: before.memory_peak_bytes.max(sample.memory_peak_bytes),
            memory_denied: before.memory_denied.saturating_add(sample.memory_denied),
            throttled_us: before.throttled_us.saturating_add(sample.throttled_us),
            interrupted_ms: 0,
            stdout_bytes,
            stdout_dropped: before.stdout_dropped.saturating_add(stdout_dropped),
            stderr_bytes,
            stderr_dropped: before.stderr_dropped.saturating_add(stderr_dropped),
            work_bytes: sample.work_bytes.unwrap_or(u64::MAX),
        }
    }

    /// Makes output and results outlast a loss of power.
    pub(super) fn sync_delivery(&self, results: &[String]) {
        for log in &self.logs {
            // What cannot be synced is still there to be read now.
            let _ = log.sync();
        }
        for name in results {
            let path = self.dir.work().join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) {
                let _ = fs::File::open(&path).and_then(|file| file.sync_all());
            }
        }
    }
}
