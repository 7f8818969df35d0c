//! What a lease process looks at: the clock, and what it is asked for.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bell::Heard;
use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::rests::{Rests, Watched};
use super::runtimes::Sample;
use super::spec::LeaseSpec;
use super::state::{Durability, Outcome, Usage, Written, read_json, write_json};
use crate::clock::now_ms;

/// Between two looks at files for which the bell did not ring, at least: a runtime may want to be asked
/// more often than that.
const LOOK: Duration = Duration::from_secs(1);
/// Between two samples of what uses its processors, or writes: so much of it is in doubt after a crash.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// With each sample of what does next to nothing the time to the next is so many times as long, up to this,
/// which also bounds what a clock that is set, or a bell that nobody rang, can delay.
const QUIETER: u32 = 4;
const QUIET: Duration = Duration::from_secs(32);
/// What does next to nothing uses no more than this part of a processor.
const QUIET_PART: u128 = 100;

/// What the holder is told before the end: how long before, ms, and in words.
const NOTICES: [(u64, &str); 2] = [(600_000, "10 minutes"), (60_000, "60 seconds")];

/// The observer of one lease.
pub(super) struct Watch {
    dir: LeaseDir,
    starts_at_ms: u64,
    ends_at_ms: u64,
    logs: [CappedLog; 2],
    heard: Arc<Heard>,
    /// A request to stop lies there.
    is_to_stop: bool,
    begun: Option<Begun>,
    /// What an earlier process of this lease has counted.
    before: Usage,
    /// When the process woke last, by both clocks.
    woken: (Instant, u64),
    looked: Option<Instant>,
    /// The last sample, and how long it is good for.
    beaten: Option<(Instant, Usage)>,
    beat: Duration,
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
        heard: Arc<Heard>,
        before: Usage,
    ) -> Self {
        let (written, rests) = (Written::of(&dir.spec()), Watched::beside(dir.path()));
        Self {
            dir,
            starts_at_ms: spec.starts_at_ms,
            ends_at_ms: spec.ends_at_ms,
            logs,
            heard,
            is_to_stop: false,
            begun: None,
            before,
            woken: (Instant::now(), 0),
            looked: None,
            beaten: None,
            beat: HEARTBEAT,
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

    /// Looks at what others may have written: when it has rung for it, and sometimes without.
    pub(super) fn look(&mut self) -> Option<LeaseSpec> {
        let is_old = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        if !self.heard.has_rung() && !is_old {
            return None;
        }
        self.looked = Some(Instant::now());
        self.is_to_stop = self.is_to_stop || self.dir.stop().exists();
        self.rests.look();
        let written = Written::of(&self.dir.spec());
        if written == self.written {
            return None;
        }
        let spec: LeaseSpec = read_json(&self.dir.spec()).ok().flatten()?;
        self.written = written;
        spec.validate().is_ok().then_some(spec)
    }

    /// Why the lease has to end now, if it has to.
    pub(super) fn verdict(&mut self) -> Option<Outcome> {
        if self.is_window_over() {
            return Some(match self.begun {
                Some(_) => Outcome::Deadline,
                None => Outcome::failed("not ready before the window ended"),
            });
        }
        (self.heard.is_terminated() || self.is_to_stop).then_some(Outcome::Stopped)
    }

    /// When leases rest.
    pub(super) fn rests(&self) -> &Rests {
        self.rests.rests()
    }

    pub(super) fn is_window_over(&self) -> bool {
        now_ms() >= self.ends_at_ms
            || self.begun.as_ref().is_some_and(|begun| Instant::now() >= begun.ends)
    }

    /// How long nothing is due by the clock, if all that was due when this woke is done. The workload is
    /// told of its end `near_ms` before it.
    pub(super) fn idle(&self, near_ms: u32) -> Duration {
        let (woken, woken_ms) = self.woken;
        let before_end = NOTICES.iter().map(|(before_ms, _)| *before_ms).chain([near_ms.into(), 0]);
        let ends_ms = before_end.map(|before_ms| self.ends_at_ms.saturating_sub(before_ms));
        let times_ms = ends_ms.chain([self.starts_at_ms]).chain(self.rests().changes_ms());
        let next_ms = times_ms.filter(|at_ms| *at_ms > woken_ms).min();
        let by_the_wall =
            next_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms())));
        let end = self.begun.as_ref().map(|begun| begun.ends).filter(|end| *end > woken);
        let by_itself = end.map(|end| end.saturating_duration_since(Instant::now()));
        [by_the_wall, by_itself].into_iter().flatten().fold(QUIET, Duration::min)
    }

    /// The process has slept: what is due by now is what it does next.
    pub(super) fn wake(&mut self) {
        self.woken = (Instant::now(), now_ms());
    }

    /// When the next sample is due; `None` before the window.
    pub(super) fn sample_due(&self) -> Option<Instant> {
        let begun = self.begun.as_ref()?;
        let is_new = self.logs.iter().any(CappedLog::is_new);
        let beat = if is_new { HEARTBEAT } else { self.beat };
        Some(self.beaten.map_or(begun.at, |(beaten, _)| beaten + beat))
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
        let now = Instant::now();
        if self.sample_due().is_some_and(|due| due <= now) {
            let usage = self.usage(&sample());
            let is_busy = self.beaten.is_none_or(|(_, last)| is_busy(&last, &usage));
            self.beat = if is_busy { HEARTBEAT } else { (QUIETER * self.beat).min(QUIET) };
            self.beaten = Some((now, usage));
            let _ = write_json(&self.dir.usage(), &usage, Durability::Rename);
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

/// Whether a lease did more than next to nothing between two samples.
fn is_busy(last: &Usage, now: &Usage) -> bool {
    let used_us = u128::from(now.cpu_us.saturating_sub(last.cpu_us));
    let passed_us = 1_000 * u128::from(now.at_ms.saturating_sub(last.at_ms));
    let counts = |usage: &Usage| {
        let Usage { memory_denied, throttled_us, .. } = usage;
        let output =
            [usage.stdout_bytes, usage.stdout_dropped, usage.stderr_bytes, usage.stderr_dropped];
        (*memory_denied, *throttled_us, output)
    };
    used_us * QUIET_PART > passed_us || counts(last) != counts(now)
}

#[cfg(test)]
mod tests {
    use super::super::bell::Wake;
    use super::super::spec::tests::example;
    use super::*;

    fn watch(root: &std::path::Path, starts_in_ms: u64, lasts_ms: u64) -> Watch {
        let dir = LeaseDir::new(root.join("lease"));
        fs::create_dir_all(dir.path()).unwrap();
        let starts_at_ms = now_ms() + starts_in_ms;
        let spec = LeaseSpec { starts_at_ms, ends_at_ms: starts_at_ms + lasts_ms, ..example() };
        let log = |name| CappedLog::open(&dir.path().join(name), 100, Wake::default()).unwrap();
        let (logs, heard) = ([log("stdout"), log("stderr")], Arc::default());
        Watch::new(&spec, dir, logs, heard, Usage::default())
    }

    #[test]
    fn it_sleeps_until_the_next_thing_that_is_due_and_never_past_it() {
        let root = tempfile::tempdir().unwrap();
        // Of a window: begins in, lasts, ms before its end at which the workload is told; sleeps.
        let table = [
            (20_000, 3_600_000, 0, 20_000),
            (0, 3_600_000, 0, QUIET.as_millis()),
            (0, 610_000, 0, 10_000),
            (0, 75_000, 0, 15_000),
            (0, 25_000, 0, 25_000),
            (0, 25_000, 5_000, 20_000),
        ];
        for (starts_in_ms, lasts_ms, near_ms, expected_ms) in table {
            let mut watch = watch(root.path(), starts_in_ms, lasts_ms);
            watch.wake();
            if starts_in_ms == 0 {
                watch.begin(None);
            }
            let idle_ms = watch.idle(near_ms).as_millis();
            assert!(
                idle_ms <= expected_ms && expected_ms - idle_ms < 5_000,
                "{idle_ms} {expected_ms}"
            );
        }
        // What became due since it woke is not slept over.
        let mut watch = watch(root.path(), 3, 3_600_000);
        watch.wake();
        while !watch.until_start().is_zero() {
            std::hint::spin_loop();
        }
        assert_eq!(watch.idle(0), Duration::ZERO);
        watch.wake();
        assert_eq!(watch.idle(0), QUIET);
    }

    #[test]
    fn samples_are_rarer_the_longer_nothing_happens() {
        let root = tempfile::tempdir().unwrap();
        let mut watch = watch(root.path(), 0, 3_600_000);
        watch.begin(None);
        let beat = |watch: &mut Watch, sample: Sample| {
            // As if it had waited.
            if let Some((beaten, last)) = &mut watch.beaten {
                *beaten = beaten.checked_sub(QUIET).unwrap_or(*beaten);
                last.at_ms -= watch.beat.as_millis() as u64;
            }
            let mut is_taken = false;
            watch.heartbeat(|| {
                is_taken = true;
                sample
            });
            assert!(is_taken);
            watch.beat
        };
        let idle = Sample::default();
        let beats: Vec<Duration> = (0..6).map(|_| beat(&mut watch, idle)).collect();
        assert_eq!(beats[..3], [HEARTBEAT, 4 * HEARTBEAT, 16 * HEARTBEAT]);
        assert_eq!(beats[5], QUIET);
        watch.heartbeat(|| panic!("none is due"));
        let busy = Sample { cpu_us: 5_000_000, ..idle };
        assert_eq!(beat(&mut watch, busy), HEARTBEAT);
        assert_eq!(beat(&mut watch, busy), 4 * HEARTBEAT);
        watch.logs[0].append(b"x").unwrap();
        let due = watch.sample_due().unwrap();
        assert!(due <= Instant::now() + HEARTBEAT, "what it writes is counted soon");
        assert_eq!(beat(&mut watch, busy), HEARTBEAT);
    }
}
