//! What the lease process writes down about itself.

use capex_core::reason;
use capex_core::reasons::Reason;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::launchers::ProcessId;
use super::rests::Rests;
use crate::clock::now_ms;
use capex_core::lease::{Loss, objects};

/// Longest reason kept: enough for a sentence, and it is remote text.
const MAX_REASON_CHARS: usize = 256;
/// Larger than any state, usage or specification file that validates.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// How far a lease is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Blobs arrive, or the component is being compiled.
    Preparing,
    /// Compiled, waiting for the window.
    Ready,
    Running {
        pid: u32,
        /// 1 for the first.
        run: u32,
        /// When the window was opened, unix ms.
        started_at_ms: u64,
    },
    /// The workload is over and the window is not.
    Exited {
        /// Runs that have begun.
        run: u32,
        outcome: Outcome,
        /// Unix ms.
        at_ms: u64,
        /// When the window was opened, unix ms.
        started_at_ms: Option<u64>,
    },
    Ended(Ended),
}

impl State {
    /// Whether output and results are whole, unless the workload is run again.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::Ended(_))
    }

    /// When the window was opened, unix ms.
    pub(super) fn started_at_ms(&self) -> Option<u64> {
        match self {
            Self::Preparing | Self::Ready => None,
            Self::Running { started_at_ms, .. } => Some(*started_at_ms),
            Self::Exited { started_at_ms, .. } => *started_at_ms,
            Self::Ended(ended) => ended.started_at_ms,
        }
    }

    /// Runs that have begun.
    pub(super) fn runs(&self) -> u32 {
        match self {
            Self::Preparing | Self::Ready => 0,
            Self::Running { run, .. } | Self::Exited { run, .. } => *run,
            Self::Ended(ended) => ended.runs,
        }
    }
}

/// The end of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What the workload came to by itself, else what ended the lease.
    pub outcome: Outcome,
    /// Runs that had begun.
    pub runs: u32,
    /// When the window was opened, unix ms; absent if it never was.
    pub started_at_ms: Option<u64>,
    /// Unix ms.
    pub ended_at_ms: u64,
    /// From start to end on a clock that cannot be set.
    pub delivered_ms: u64,
    pub cpu_us: u64,
    /// Most memory in use at any time.
    pub memory_peak_bytes: u64,
    /// Time in which it waited for processors beyond its own, µs.
    pub throttled_us: u64,
    /// Time without a process that was followed by one, ms.
    pub interrupted_ms: u64,
}

/// Why a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    Exited {
        /// Its exit code; 0 is success. The preview 1 adapter turns all others into 1.
        code: i32,
    },
    /// The workload broke a rule of WebAssembly.
    Trapped {
        reason: String,
    },
    Deadline,
    Stopped,
    /// It trapped after memory was refused to it.
    Memory,
    /// Its working directory outgrew the quota.
    OutputQuota,
    /// What was uploaded cannot be run.
    Unfit {
        /// Reason code.
        code: String,
        reason: String,
    },
    /// The host made it impossible to run.
    Failed {
        /// Reason code, if there is a better one than that it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        reason: String,
    },
    /// The lease process vanished without a word, killed or with its host, and the window was over
    /// before there was another, or none of many lasted.
    Interrupted,
}

impl Outcome {
    /// A failure, with a reason fit for showing.
    pub(super) fn failed(reason: impl AsRef<str>) -> Self {
        Self::Failed { code: None, reason: printable(reason.as_ref()) }
    }

    /// The outcome as receipts name it: those are about money, not about causes.
    #[must_use]
    pub fn for_receipt(&self) -> objects::Outcome {
        match self {
            Self::Exited { code } => objects::Outcome::Exited { code: *code },
            Self::Trapped { .. } => objects::Outcome::Trapped,
            Self::Deadline => objects::Outcome::Deadline,
            Self::Stopped => objects::Outcome::Stopped,
            Self::Memory => objects::Outcome::OutOfMemory,
            Self::OutputQuota => objects::Outcome::OutOfDisk,
            Self::Unfit { .. } => objects::Outcome::Unfit,
            Self::Failed { .. } => objects::Outcome::Failed,
            Self::Interrupted => objects::Outcome::Interrupted,
        }
    }

    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Exited { .. } => reason!("lease.exited"),
            Self::Trapped { .. } => reason!("lease.trapped"),
            Self::Deadline => reason!("lease.deadline"),
            Self::Stopped => reason!("lease.stopped"),
            Self::Memory => reason!("lease.memory"),
            Self::OutputQuota => reason!("lease.output_quota"),
            Self::Unfit { code, .. } => Reason::find(code).unwrap_or(reason!("workload.unfit")),
            Self::Failed { code, .. } => {
                let better = code.as_deref().and_then(Reason::find);
                better.unwrap_or(reason!("lease.failed"))
            }
            Self::Interrupted => reason!("lease.interrupted"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Trapped { reason } => write!(f, "trapped: {reason}"),
            Self::Deadline => f.write_str("the window ended"),
            Self::Stopped => f.write_str("stopped on request"),
            Self::Memory => f.write_str("out of memory"),
            Self::OutputQuota => f.write_str("wrote more than its disk quota"),
            Self::Unfit { reason, .. } => write!(f, "cannot be run: {reason}"),
            Self::Failed { reason, .. } => write!(f, "failed: {reason}"),
            Self::Interrupted => f.write_str("the lease process vanished"),
        }
    }
}

/// One sample of a lease; `usage.json`, renewed each quarter of a second while it does something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Unix ms of the sample.
    pub at_ms: u64,
    /// Since the start, on a clock that cannot be set.
    pub delivered_ms: u64,
    pub cpu_us: u64,
    /// Most memory in use at any time.
    pub memory_peak_bytes: u64,
    /// How often memory was refused.
    pub memory_denied: u64,
    /// Time in which it waited for processors beyond its own, µs.
    #[serde(default)]
    pub throttled_us: u64,
    /// Time without a process that was followed by one, ms; kept in `state.json`.
    #[serde(skip)]
    pub interrupted_ms: u64,
    /// Bytes kept of standard output.
    pub stdout_bytes: u64,
    /// Bytes of standard output beyond the cap.
    pub stdout_dropped: u64,
    /// Bytes kept of standard error.
    pub stderr_bytes: u64,
    /// Bytes of standard error beyond the cap.
    pub stderr_dropped: u64,
    /// Bytes in the working directory.
    pub work_bytes: u64,
}

impl Usage {
    /// The same of a process that was seen to live on until a time, unix ms; zeros before the start stay.
    pub(super) fn lasted_until(self, at_ms: u64) -> Self {
        let more_ms = if self.at_ms > 0 { at_ms.saturating_sub(self.at_ms) } else { 0 };
        let delivered_ms = self.delivered_ms.saturating_add(more_ms);
        Self { at_ms: self.at_ms.saturating_add(more_ms), delivered_ms, ..self }
    }

    /// Bytes kept of both standard streams.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.stdout_bytes.saturating_add(self.stderr_bytes)
    }
}

/// `state.json`: the state and the process that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Absent until a lease process took over.
    pub(super) shim: Option<ProcessId>,
    /// Order of the specification that it follows.
    pub(super) order: u32,
    /// When this was written, unix ms.
    pub(super) written_ms: u64,
    pub(super) lost: Lost,
    #[serde(flatten)]
    pub(super) state: State,
}

/// What the host has lost of a lease, for want of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// Time without a process that was followed by one, ms.
    pub(super) ms: u64,
    /// Of which in maintenances that were announced, ms.
    #[serde(default)]
    pub(super) announced_ms: u64,
    /// The last sign of life, while nothing can be had of the lease, unix ms.
    pub(super) since_ms: Option<u64>,
    pub(super) loss: Option<Loss>,
    /// Processes lost one after the other, none of which lasted.
    pub(super) in_a_row: u32,
    /// When the lease could be used again, unix ms.
    pub(super) back_at_ms: Option<u64>,
}

/// A lease process that lasts so long is steady: what is lost after it is the first of a row.
const STEADY_MS: u64 = 60_000;

impl Record {
    /// A lease that no process has taken over.
    pub(super) fn fresh(order: u32) -> Self {
        let (shim, state, lost) = (None, State::Preparing, Lost::default());
        Self { shim, order, written_ms: now_ms(), lost, state }
    }

    /// The process is gone without a word.
    pub(super) fn lose(&mut self, last: &Usage) {
        let loss = match self.shim.take() {
            Some(shim) if !shim.is_of_this_boot() => Loss::Host,
            Some(_) | None => Loss::Process,
        };
        let since_ms = self.written_ms.max(last.at_ms).min(now_ms());
        let lost = &mut self.lost;
        let steady_ms = lost.back_at_ms.or(self.state.started_at_ms()).unwrap_or(u64::MAX);
        let was_steady = since_ms.saturating_sub(steady_ms) >= STEADY_MS;
        // One that never came so far as to be of use adds to what is lost already.
        let is_first = lost.since_ms.is_none() && was_steady;
        lost.in_a_row = if is_first { 1 } else { lost.in_a_row.saturating_add(1) };
        lost.since_ms.get_or_insert(since_ms);
        lost.loss = Some(loss);
    }

    /// It rests for a maintenance, and its process is about to end.
    pub(super) fn rest(&mut self) {
        self.shim = None;
        self.lost.since_ms.get_or_insert_with(now_ms);
        self.lost.loss = Some(Loss::Maintenance);
        self.lost.in_a_row = 0;
    }

    /// Whether its process has ended for a maintenance.
    pub(super) fn is_resting(&self) -> bool {
        self.shim.is_none() && self.lost.loss == Some(Loss::Maintenance)
    }

    /// When the window was opened, unix ms: it opens over a lease without a process, too.
    pub(super) fn opened_at_ms(&self, starts_at_ms: u64) -> Option<u64> {
        let over = || {
            let since_ms = self.lost.since_ms?;
            (now_ms() >= starts_at_ms).then_some(since_ms.max(starts_at_ms))
        };
        self.state.started_at_ms().or_else(over)
    }
}

impl Lost {
    /// The lease can be used again, or is over: counts what was lost until now, within its window.
    pub(super) fn close(&mut self, opened_at_ms: Option<u64>, ends_at_ms: u64, rests: &Rests) {
        let now_ms = now_ms();
        if let Some(since_ms) = self.since_ms.take() {
            if let Some(opened_at_ms) = opened_at_ms {
                let gap_ms = (since_ms.max(opened_at_ms), now_ms.min(ends_at_ms));
                self.ms = self.ms.saturating_add(gap_ms.1.saturating_sub(gap_ms.0));
                self.announced_ms = self.announced_ms.saturating_add(rests.within(gap_ms));
            }
            self.loss = None;
            self.back_at_ms = Some(now_ms);
        }
    }
}

/// Control characters replaced and cut: the text may come from a stranger's component.
pub(super) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(MAX_REASON_CHARS).collect()
}

/// Whether a file has to survive a loss of power, or only the death of its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Fsync,
    Rename,
}

/// Replaces a file as a whole: a reader sees the old content or the new.
pub(super) fn write_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    if durability == Durability::Fsync {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)?;
    match (durability, path.parent()) {
        (Durability::Fsync, Some(dir)) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// File systems tell times by a clock that stands still for so long.
const CLOCK_STEP: Duration = Duration::from_millis(100);

/// Which file lies at a path, where each is replaced as a whole: two of one moment are two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    inode: u64,
    at: SystemTime,
}

impl Written {
    /// `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { inode: meta.ino(), at: meta.modified().ok()? })
    }

    /// Whether every later one differs: within one moment the number of a file that is gone may be
    /// another's again.
    fn is_settled(&self) -> bool {
        self.at.elapsed().is_ok_and(|age| age > CLOCK_STEP)
    }
}

/// A file of [`write_json`] as it was read last.
#[derive(Debug)]
pub(super) struct Seen<T>(Option<(Written, T)>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: DeserializeOwned + Clone> Seen<T> {
    /// What is there, read again only if it was written again.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Option<T>> {
        // Before the content, which may be a later one then, and is read once more.
        let written = Written::of(path);
        match (&self.0, written) {
            (Some((seen, value)), Some(written)) if *seen == written => {
                return Ok(Some(value.clone()));
            }
            _ => {}
        }
        let value = read_json(path)?;
        let settled = written.filter(Written::is_settled);
        self.0 = settled.zip(value.clone());
        Ok(value)
    }
}

/// Reads a file of [`write_json`]; `None` when there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    use io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use capex_core::lease::Maintenance;

    #[test]
    fn records_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read_json::<Record>(&path).unwrap(), None);
        let ended = Ended {
            outcome: Outcome::Trapped { reason: "x".into() },
            runs: 1,
            started_at_ms: Some(1),
            ended_at_ms: 2,
            delivered_ms: 1,
            cpu_us: 3,
            memory_peak_bytes: 4,
            throttled_us: 5,
            interrupted_ms: 6,
        };
        let shim = ProcessId { pid: 4, start_ticks: 9, boot_id: "b".into() };
        for state in [
            State::Preparing,
            State::Ready,
            State::Running { pid: 4, run: 1, started_at_ms: 5 },
            State::Exited { run: 1, outcome: Outcome::Stopped, at_ms: 6, started_at_ms: None },
            State::Ended(ended),
        ] {
            let record = Record { shim: Some(shim.clone()), state, ..Record::fresh(1) };
            write_json(&path, &record, Durability::Fsync).unwrap();
            assert_eq!(read_json::<Record>(&path).unwrap(), Some(record));
        }
    }

    #[test]
    fn what_was_written_again_is_read_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        let mut seen = Seen::<u32>::default();
        assert_eq!(seen.read(&path).unwrap(), None);
        let set = |at| File::options().write(true).open(&path).unwrap().set_modified(at);
        // In a moment that is not over, the next file may have the number of the one before.
        let soon = SystemTime::now() + Duration::from_secs(60);
        for number in ["0", "1", "2"] {
            fs::write(&path, number).unwrap();
            set(soon).unwrap();
            assert_eq!(seen.read(&path).unwrap(), number.parse().ok());
        }
        set(long_ago).unwrap();
        assert_eq!(seen.read(&path).unwrap(), Some(2));
        // Not as such files are written, so that it shows what is read.
        fs::write(&path, "7").unwrap();
        set(long_ago).unwrap();
        assert_eq!(seen.read(&path).unwrap(), Some(2));
        write_json(&path, &8, Durability::Rename).unwrap();
        assert_eq!(seen.read(&path).unwrap(), Some(8));
        fs::remove_file(&path).unwrap();
        assert_eq!(seen.read(&path).unwrap(), None);
    }

    #[test]
    fn what_was_seen_to_live_on_was_delivered() {
        let usage = Usage { at_ms: 1_000, delivered_ms: 300, cpu_us: 7, ..Usage::default() };
        let lasted = Usage { at_ms: 1_500, delivered_ms: 800, ..usage };
        // Clocks may be set back, and before the start nothing is delivered.
        let table = [(usage, 1_500, lasted), (usage, 900, usage)];
        for (usage, at_ms, expected) in
            table.into_iter().chain([(Usage::default(), 1_500, Usage::default())])
        {
            assert_eq!(usage.lasted_until(at_ms), expected);
        }
    }

    #[test]
    fn what_is_lost_is_counted_within_the_window_and_in_rows() {
        let now = now_ms();
        let running = State::Running { pid: 4, run: 1, started_at_ms: now - 100_000 };
        let usage = Usage { at_ms: now - 3_000, ..Usage::default() };
        let mut record = Record { state: running, written_ms: now - 90_000, ..Record::fresh(1) };
        record.lose(&usage);
        let first = record.lost;
        assert_eq!((first.since_ms, first.loss), (Some(now - 3_000), Some(Loss::Process)));
        assert_eq!(first.in_a_row, 1, "it had been steady");
        // The next one does not come so far as to be of use.
        record.written_ms = now - 1_000;
        record.lose(&usage);
        assert_eq!((record.lost.since_ms, record.lost.in_a_row), (Some(now - 3_000), 2));
        let mut over = record.lost;
        over.close(record.opened_at_ms(0), now - 1_000, &Rests::default());
        assert_eq!((over.ms, over.announced_ms, over.since_ms), (2_000, 0, None));
        // Some of it was announced.
        let from = |from_ms, to_ms| Maintenance { from_ms, to_ms, why: String::new() };
        let rests = Rests::new(&[from(now - 9_000, now - 2_500), from(now - 1_600, now + 9_000)]);
        let mut announced = record.lost;
        announced.close(record.opened_at_ms(0), now - 1_000, &rests);
        assert_eq!((announced.ms, announced.announced_ms), (2_000, 500 + 600));
        let mut early = record.lost;
        early.close(None, u64::MAX, &Rests::default());
        assert_eq!(early.ms, 0, "nothing is lost of a window that has not begun");
        // The host itself was started anew, and the lease had just come back.
        let boot_id = "another".into();
        record.lost = over;
        record.shim = Some(ProcessId { pid: 4, start_ticks: 9, boot_id });
        record.lose(&Usage { at_ms: now, ..usage });
        assert_eq!((record.lost.loss, record.lost.in_a_row), (Some(Loss::Host), 3));
    }

    #[test]
    fn a_reason_cannot_reach_a_terminal_unescaped() {
        let text = printable(&format!("\u{1b}[31mred\n{}", "x".repeat(1_000)));
        assert!(text.starts_with(" [31mred x"));
        assert_eq!(text.chars().count(), MAX_REASON_CHARS);
    }
}
