//! What a workload uses, counted on its own thread and read from others.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Counters of one workload. Readers see each counter, not a common instant.
///
/// CPU time is that of the executing thread: after an interruption fuel shows a small
/// part of what was burnt.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// CPU time of the runs before this one.
    cpu_before_us: AtomicU64,
    /// CPU time of the executing thread when this run began.
    cpu_from_us: AtomicU64,
    cpu_us: AtomicU64,
    memory_peak_bytes: AtomicU64,
    memory_denied: AtomicU64,
    /// Refusals before this run.
    denied_before: AtomicU64,
}

impl Meter {
    /// Counts a run from here; to be called on the thread that executes it.
    pub(super) fn begin(&self) {
        self.cpu_before_us.store(self.cpu_us(), Ordering::Relaxed);
        self.cpu_from_us.store(thread_cpu_us(), Ordering::Relaxed);
        self.denied_before.store(self.memory_denied(), Ordering::Relaxed);
    }

    /// Brings CPU time up to date; to be called on the executing thread.
    pub(super) fn sample_cpu(&self) {
        let spent = thread_cpu_us().saturating_sub(self.cpu_from_us.load(Ordering::Relaxed));
        let before = self.cpu_before_us.load(Ordering::Relaxed);
        self.cpu_us.store(before.saturating_add(spent), Ordering::Relaxed);
    }

    /// Whether memory was refused in this run.
    pub(super) fn was_denied(&self) -> bool {
        self.memory_denied() > self.denied_before.load(Ordering::Relaxed)
    }

    pub(super) fn memory_in_use(&self, bytes: u64) {
        self.memory_peak_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn memory_refused(&self) {
        self.memory_denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn cpu_us(&self) -> u64 {
        self.cpu_us.load(Ordering::Relaxed)
    }

    pub(super) fn memory_peak_bytes(&self) -> u64 {
        self.memory_peak_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn memory_denied(&self) -> u64 {
        self.memory_denied.load(Ordering::Relaxed)
    }
}

fn thread_cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let us = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000);
    u64::try_from(us).unwrap_or(0)
}
