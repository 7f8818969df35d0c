//! Leases on this host: real lease processes, real components, short windows.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod crashes;
mod doors;
mod maintenance;
mod pulls;
#[path = "../registry/mod.rs"]
mod registry;

use capex::executor::{
    Comebacks, EVENT_QUEUE, Ended, LeaseEvent, LeaseSpec, Manager, Outcome, State, samples,
    self_test,
};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{InputFile, RestartPolicy, Stream, Workload};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};

/// Longer than a debug build needs on a busy machine to compile and run a component.
const PATIENCE: Duration = Duration::from_secs(30);
/// A window that tests which end by themselves never reach.
const LONG_MS: u64 = 60_000;
/// How late an end may be seen on a busy machine.
const SLACK_MS: u64 = 1_500;
const KILL_MS: u64 = 1_000;
const MEMORY_BYTES: u64 = 8 << 20;
/// Patience with leases whose processes are killed.
const QUICK: Comebacks =
    Comebacks { first: Duration::from_millis(20), most: Duration::from_millis(200), in_a_row: 4 };

struct Host {
    dir: TempDir,
    manager: Manager,
    events: Receiver<LeaseEvent>,
}

impl Host {
    fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: TempDir) -> Self {
        Self::with(dir, Path::new(env!("CARGO_BIN_EXE_capex")), QUICK)
    }

    fn with(dir: TempDir, shim: &Path, comebacks: Comebacks) -> Self {
        let (sender, events) = channel(EVENT_QUEUE);
        let leases = dir.path().join("leases");
        let manager = Manager::with(&leases, shim.to_owned(), sender, comebacks).unwrap();
        Self { dir, manager, events }
    }

    /// The daemon dies and another one starts: nothing of the old manager is left.
    fn restart(self) -> Self {
        let Self { dir, manager, events } = self;
        drop((manager, events));
        Self::in_dir(dir)
    }

    fn lease_dir(&self, lease: &LeaseId) -> PathBuf {
        self.dir.path().join("leases").join(lease.to_string())
    }

    async fn start(&self, spec: LeaseSpec, component: &[u8]) -> LeaseId {
        let lease = spec.lease_id;
        let need = self.manager.prepare(spec).await.unwrap();
        assert!(need.contains(&digest(component)));
        self.upload(&lease, component).await;
        self.upload(&lease, INPUT).await;
        assert_eq!(self.manager.need(&lease).unwrap(), []);
        self.manager.start(&lease).await.unwrap();
        lease
    }

    async fn upload(&self, lease: &LeaseId, blob: &[u8]) {
        let mut offset = 0;
        for chunk in blob.chunks(100_000) {
            offset = self.manager.put(lease, digest(blob), offset, chunk).await.unwrap().received;
        }
        assert_eq!(offset, blob.len() as u64);
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Manager) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(&self.manager) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn running(&self, lease: &LeaseId) -> u32 {
        self.until("the start", |manager| match manager.state(lease).unwrap() {
            State::Running { pid, .. } => Some(pid),
            State::Ended(ended) => panic!("ended early: {ended:?}"),
            _ => None,
        })
        .await
    }

    async fn end(&self, lease: &LeaseId) -> Ended {
        self.until("the end", |manager| match manager.state(lease).unwrap() {
            State::Ended(ended) => Some(ended),
            _ => None,
        })
        .await
    }

    /// What a run came to, its lease going on.
    async fn exit(&self, lease: &LeaseId, which: u32) -> Outcome {
        self.until("the exit", |manager| match manager.state(lease).unwrap() {
            State::Exited { run, outcome, .. } if run >= which => Some(outcome),
            State::Ended(ended) => panic!("ended early: {ended:?}"),
            _ => None,
        })
        .await
    }

    async fn run(&self, component: &[u8], change: impl FnOnce(&mut LeaseSpec)) -> (LeaseId, Ended) {
        let mut spec = spec(component, LONG_MS);
        change(&mut spec);
        let lease = self.start(spec, component).await;
        self.exit(&lease, 0).await;
        self.manager.stop(&lease, "it is over").await.unwrap();
        let ended = self.end(&lease).await;
        (lease, ended)
    }

    /// Events up to and including the last one of a lease.
    async fn heard(&mut self) -> Vec<LeaseEvent> {
        let is_last = |event: &LeaseEvent| {
            matches!(event, LeaseEvent::Ended { .. } | LeaseEvent::Failed { .. })
        };
        self.heard_until(is_last).await
    }

    async fn heard_until(&mut self, is_last: impl Fn(&LeaseEvent) -> bool) -> Vec<LeaseEvent> {
        let mut heard = Vec::new();
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
            heard.push(event);
            if heard.last().is_some_and(&is_last) {
                return heard;
            }
        }
    }
}

const INPUT: &[u8] = b"10 20\n30 and 40";

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn spec(component: &[u8], window_ms: u64) -> LeaseSpec {
    let now = now_ms();
    let input =
        InputFile { name: "input.txt".into(), digest: digest(INPUT), bytes: INPUT.len() as u64 };
    let workload = Workload {
        command: vec!["workload".into()],
        inputs: vec![input],
        results: vec!["result.txt".into()],
        ..Workload::wasm(digest(component), component.len() as u64)
    };
    LeaseSpec {
        lease_id: LeaseId(Sha256::digest(component).into()),
        workload,
        order: 1,
        starts_at_ms: now,
        ends_at_ms: now + window_ms,
        cpu_max_milli: 1_000,
        memory_max_bytes: MEMORY_BYTES,
        output_max_bytes: 1 << 20,
        work_max_bytes: 1 << 20,
        kill_ms: KILL_MS,
    }
}

fn process_exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wordsum_computes_what_both_ends_can_recompute() {
    let mut host = Host::new();
    let lease = host.start(spec(samples::WORDSUM, LONG_MS), samples::WORDSUM).await;
    let is_exited = |event: &LeaseEvent| matches!(event, LeaseEvent::Exited { .. });
    let heard = host.heard_until(is_exited).await;
    assert!(heard.iter().any(|event| matches!(event, LeaseEvent::Started { run: 1, .. })));
    host.manager.stop(&lease, "it is over").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    assert!(ended.cpu_us > 0 && ended.memory_peak_bytes > 0, "{ended:?}");
    let expected = samples::wordsum::expected(INPUT);
    assert_eq!(expected, "count=4 sum=100\n");
    let result = host.manager.read_result(&lease, "result.txt", 0, 1 << 10).unwrap();
    assert_eq!((result.bytes.as_slice(), result.end), (expected.as_bytes(), true));
    let log = host.manager.read_log(&lease, Stream::Stdout, 0, usize::MAX).unwrap();
    assert_eq!((log.bytes.as_slice(), log.end), (expected.as_bytes(), true));
    for (name, code) in [("input.txt", "result.not_found"), ("../spec.json", "result.not_found")] {
        let error = host.manager.read_result(&lease, name, 0, 10).unwrap_err();
        assert_eq!(error.code(), code, "{name}");
    }
    let heard = host.heard().await;
    assert!(matches!(heard.last(), Some(LeaseEvent::Ended { ended: e, .. }) if *e == ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_never_yields_ends_at_its_deadline() {
    let host = Host::new();
    let spec = spec(samples::BUSY, 4_000);
    let ends_at_ms = spec.ends_at_ms;
    let lease = host.start(spec, samples::BUSY).await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Deadline);
    let late_ms = ended.ended_at_ms.checked_sub(ends_at_ms).unwrap();
    assert!(late_ms < SLACK_MS, "{late_ms} ms late");
    // Metered by CPU time: a busy loop takes what the machine leaves to it.
    assert!(ended.cpu_us > 100_000, "{ended:?}");
    assert!(ended.cpu_us <= (ended.delivered_ms + 100) * 1_000, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_waits_for_its_window_and_can_be_stopped_before_it() {
    let mut host = Host::new();
    let mut spec = spec(samples::WORDSUM, LONG_MS);
    spec.starts_at_ms += LONG_MS / 2;
    let lease = host.start(spec, samples::WORDSUM).await;
    host.until("readiness", |manager| {
        (manager.state(&lease).unwrap() == State::Ready).then_some(())
    })
    .await;
    host.manager.stop(&lease, "changed my mind").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!((ended.outcome, ended.started_at_ms), (Outcome::Stopped, None));
    assert!(matches!(
        host.heard().await.last(),
        Some(LeaseEvent::Failed { code: "lease.stopped", .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_refused() {
    let (_, ended) = Host::new().run(samples::MEMORY_HOG, |_| {}).await;
    assert_eq!(ended.outcome, Outcome::Memory);
    assert!(ended.memory_peak_bytes <= MEMORY_BYTES, "{ended:?}");
    assert!(ended.memory_peak_bytes > MEMORY_BYTES / 2, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_workload_ends_by_itself_is_reported() {
    let host = Host::new();
    let (_, trapped) = host.run(samples::TRAP, |_| {}).await;
    let reason = "wasm trap: wasm `unreachable` instruction executed".to_owned();
    assert_eq!(trapped.outcome, Outcome::Trapped { reason });
    let (_, exited) = host.run(samples::EXIT3, |_| {}).await;
    assert_eq!(exited.outcome, Outcome::Exited { code: 3 });
    let (_, broken) = host.run(b"\0asm and no component", |_| {}).await;
    assert!(matches!(broken.outcome, Outcome::Unfit { .. }), "{broken:?}");
    // The blocks wait for something that can be run.
    assert_eq!((broken.runs, broken.started_at_ms.is_some()), (0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_run_again_and_another_in_its_place_on_the_same_disk() {
    let host = Host::new();
    let first = spec(samples::WORDSUM, LONG_MS);
    let lease = host.start(first.clone(), samples::WORDSUM).await;
    assert_eq!(host.exit(&lease, 1).await, Outcome::Exited { code: 0 });
    let again = LeaseSpec { order: 2, ..first.clone() };
    assert_eq!(host.manager.prepare(again.clone()).await.unwrap(), []);
    host.manager.start(&lease).await.unwrap();
    assert_eq!(host.exit(&lease, 2).await, Outcome::Exited { code: 0 });
    let line = samples::wordsum::expected(INPUT);
    let log = host.manager.read_log(&lease, Stream::Stdout, 0, usize::MAX).unwrap();
    assert_eq!((log.bytes, log.end), (line.repeat(2).into_bytes(), true));

    let results = first.workload.results.clone();
    let other = Workload::wasm(digest(samples::EXIT3), samples::EXIT3.len() as u64);
    let other = LeaseSpec { order: 3, workload: Workload { results, ..other }, ..again.clone() };
    for wrong in [LeaseSpec { order: 2, ..other.clone() }, LeaseSpec { order: 1, ..again }] {
        let error = host.manager.prepare(wrong).await.unwrap_err();
        assert_eq!(error.code(), "lease.conflict");
    }
    let missing = host.manager.prepare(other.clone()).await.unwrap();
    assert_eq!(missing, [digest(samples::EXIT3)]);
    assert_eq!(host.manager.start(&lease).await.unwrap_err().code(), "lease.blobs_missing");
    host.upload(&lease, samples::EXIT3).await;
    host.manager.start(&lease).await.unwrap();
    assert_eq!(host.exit(&lease, 3).await, Outcome::Exited { code: 3 });
    let result = host.manager.read_result(&lease, "result.txt", 0, 1 << 10).unwrap();
    assert_eq!(result.bytes, line.as_bytes(), "the disk is kept");
    host.manager.stop(&lease, "done").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!((ended.outcome, ended.runs), (Outcome::Exited { code: 3 }, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_ended_for_what_is_to_run_next() {
    let host = Host::new();
    let first = spec(samples::BUSY, LONG_MS);
    let lease = host.start(first.clone(), samples::BUSY).await;
    let pid = host.running(&lease).await;
    host.manager.prepare(LeaseSpec { order: 2, ..first }).await.unwrap();
    host.manager.start(&lease).await.unwrap();
    let again = host
        .until("the second run", |manager| match manager.state(&lease).unwrap() {
            State::Running { run: 2, pid, .. } => Some(pid),
            _ => None,
        })
        .await;
    assert_eq!(again, pid, "in the same process");
    host.manager.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_run_again_by_its_policy() {
    let host = Host::new();
    let mut failing = spec(samples::EXIT3, LONG_MS);
    failing.workload.restart = RestartPolicy::OnFailure;
    let lease = host.start(failing, samples::EXIT3).await;
    assert_eq!(host.exit(&lease, 2).await, Outcome::Exited { code: 3 });
    let mut good = spec(samples::WORDSUM, LONG_MS);
    good.workload.restart = RestartPolicy::OnFailure;
    let good = host.start(good, samples::WORDSUM).await;
    host.exit(&good, 1).await;
    assert_eq!(host.exit(&lease, 3).await, Outcome::Exited { code: 3 });
    let State::Exited { run: 1, .. } = host.manager.state(&good).unwrap() else { panic!() };
    for lease in [lease, good] {
        host.manager.release(&lease).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_grows_ends_later_without_a_restart() {
    let host = Host::new();
    let short = spec(samples::CHATTY, 5_000);
    let long = LeaseSpec { ends_at_ms: short.ends_at_ms + 2_000, ..short.clone() };
    let lease = host.start(short, samples::CHATTY).await;
    let pid = host.running(&lease).await;
    host.manager.prepare(long.clone()).await.unwrap();
    host.manager.start(&lease).await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!((ended.outcome, ended.runs), (Outcome::Deadline, 1));
    let late_ms = ended.ended_at_ms.checked_sub(long.ends_at_ms).unwrap();
    assert!(late_ms < SLACK_MS, "{late_ms} ms late");
    host.until("the process's end", |_| (!process_exists(pid)).then_some(())).await;
}

/// A later end does not wait for what is to run next, and that has the later end too.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_grows_while_what_is_to_run_next_is_still_sent() {
    let host = Host::new();
    let short = spec(samples::CHATTY, 5_000);
    let lease = host.start(short.clone(), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let next = Workload::wasm(digest(samples::EXIT3), samples::EXIT3.len() as u64);
    let next = LeaseSpec { order: 2, workload: next, ..short.clone() };
    assert_eq!(host.manager.prepare(next.clone()).await.unwrap(), [digest(samples::EXIT3)]);
    let long = LeaseSpec { ends_at_ms: short.ends_at_ms + LONG_MS, ..next };
    assert_eq!(host.manager.prepare(long.clone()).await.unwrap(), [digest(samples::EXIT3)]);
    host.until("the end of the first window", |_| {
        (now_ms() > short.ends_at_ms + 500).then_some(())
    })
    .await;
    assert_eq!(host.running(&lease).await, pid, "what ran goes on");
    assert!(process_exists(pid));
    host.upload(&lease, samples::EXIT3).await;
    host.manager.start(&lease).await.unwrap();
    assert_eq!(host.exit(&lease, 2).await, Outcome::Exited { code: 3 });
    host.manager.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_stream_while_the_workload_runs_up_to_their_cap() {
    const CAP: u64 = 42;
    let host = Host::new();
    let mut spec = spec(samples::CHATTY, LONG_MS);
    spec.output_max_bytes = CAP;
    let lease = host.start(spec, samples::CHATTY).await;
    let early = host
        .until("output", |manager| {
            let log = manager.read_log(&lease, Stream::Stdout, 5, 10).unwrap();
            (log.bytes.len() == 10).then_some(log)
        })
        .await;
    assert_eq!((early.bytes.as_slice(), early.end), (&b"tick\ntick\n"[..], false));
    host.until("dropping", |manager| {
        (manager.usage(&lease).unwrap().stdout_dropped > 20).then_some(())
    })
    .await;
    host.manager.stop(&lease, "enough").await.unwrap();
    assert_eq!(host.end(&lease).await.outcome, Outcome::Stopped);
    let all = host.manager.read_log(&lease, Stream::Stdout, 0, usize::MAX).unwrap();
    assert_eq!((all.bytes.len() as u64, all.end), (CAP, true));
    let late = host.manager.read_log(&lease, Stream::Stdout, 1_000, 10).unwrap();
    assert_eq!((late.bytes.len(), late.end), (0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_quota_ends_a_lease_that_outgrows_it() {
    const QUOTA: u64 = 1 << 20;
    let host = Host::new();
    let (lease, ended) = host.run(samples::FILLER, |spec| spec.work_max_bytes = QUOTA).await;
    assert_eq!(ended.outcome, Outcome::OutputQuota);
    assert!(host.manager.usage(&lease).unwrap().work_bytes > QUOTA);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_single_file_outgrows_the_disk_quota() {
    const QUOTA: u64 = 3 << 20;
    let host = Host::new();
    let (lease, ended) = host.run(samples::FLOOD, |spec| spec.work_max_bytes = QUOTA).await;
    assert_eq!(ended.outcome, Outcome::OutputQuota);
    let size = std::fs::metadata(host.lease_dir(&lease).join("work/flood")).unwrap().len();
    assert!(size <= QUOTA, "{size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_stuck_in_the_host_is_ended_after_its_grace() {
    let host = Host::new();
    let mut spec = spec(samples::WORDSUM, LONG_MS);
    spec.workload.inputs.clear();
    let lease = spec.lease_id;
    host.manager.prepare(spec).await.unwrap();
    host.upload(&lease, samples::WORDSUM).await;
    // Opening a pipe that nobody writes to blocks the thread, not only the workload.
    let pipe = host.lease_dir(&lease).join("work/input.txt");
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
    host.manager.start(&lease).await.unwrap();
    let pid = host.running(&lease).await;
    let asked_ms = now_ms();
    host.manager.stop(&lease, "stuck").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    let took_ms = ended.ended_at_ms - asked_ms;
    assert!((KILL_MS..KILL_MS + SLACK_MS).contains(&took_ms), "{took_ms} ms");
    host.until("the process's end", |_| (!process_exists(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_sees_nothing_but_its_directory() {
    let host = Host::new();
    let (lease, ended) = host.run(samples::ESCAPE, |_| {}).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    let link = host.lease_dir(&lease).join("work/result.txt");
    assert!(std::fs::symlink_metadata(link).unwrap().is_symlink());
    let error = host.manager.read_result(&lease, "result.txt", 0, 10).unwrap_err();
    assert_eq!(error.code(), "result.not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_process_inherits_nothing() {
    let host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(String::from_utf8_lossy(&environment), "");
    let daemons = host.dir.path().canonicalize().unwrap().join("journal");
    for fd in names(Path::new(&format!("/proc/{pid}/fd"))) {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        assert_ne!(target.ok().as_ref(), Some(&daemons));
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let size = limits.lines().find(|line| line.starts_with("Max file size")).unwrap();
    assert!(size.contains("1048576"), "{size}");
    host.manager.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_the_daemon_and_is_adopted() {
    let host = Host::new();
    let spec = spec(samples::CHATTY, 6_000);
    let ends_at_ms = spec.ends_at_ms;
    let lease = host.start(spec, samples::CHATTY).await;
    let pid = host.running(&lease).await;

    let mut host = host.restart();
    let adopted = host.manager.adopt().await.unwrap();
    assert!(
        matches!(adopted[..], [(id, State::Running { pid: p, .. })] if id == lease && p == pid)
    );
    host.manager.start(&lease).await.unwrap();
    let heard = host.heard().await;
    assert!(heard.iter().any(|event| matches!(event, LeaseEvent::Started { .. })), "{heard:?}");
    let Some(LeaseEvent::Ended { ended, .. }) = heard.last() else { panic!("{heard:?}") };
    assert_eq!(ended.outcome, Outcome::Deadline);
    assert!((ends_at_ms..ends_at_ms + SLACK_MS).contains(&ended.ended_at_ms), "{ended:?}");

    let host = host.restart();
    let adopted = host.manager.adopt().await.unwrap();
    assert!(matches!(&adopted[..], [(_, State::Ended(again))] if again == ended), "{adopted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_on_time_without_any_daemon() {
    let host = Host::new();
    let spec = spec(samples::BUSY, 4_000);
    let ends_at_ms = spec.ends_at_ms;
    let lease = host.start(spec, samples::BUSY).await;
    let pid = host.running(&lease).await;
    let Host { dir, manager, events } = host;
    drop((manager, events));
    let begun = Instant::now();
    while process_exists(pid) {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(now_ms() < ends_at_ms + SLACK_MS);
    let host = Host::in_dir(dir);
    host.manager.adopt().await.unwrap();
    assert_eq!(host.end(&lease).await.outcome, Outcome::Deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_lease_process_says_so() {
    let host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let raw = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::TERM).unwrap();
    assert_eq!(host.end(&lease).await.outcome, Outcome::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_run_one_lease() {
    let host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_capex"))
        .arg("shim")
        .arg(host.lease_dir(&lease))
        .status()
        .unwrap();
    assert_eq!(second.code(), Some(3));
    assert!(
        matches!(host.manager.state(&lease).unwrap(), State::Running { pid: p, .. } if p == pid)
    );
    host.manager.release(&lease).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn release_leaves_nothing_behind() {
    let host = Host::new();
    let lease = host.start(spec(samples::BUSY, LONG_MS), samples::BUSY).await;
    let pid = host.running(&lease).await;
    for _ in 0..2 {
        let proof = host.manager.release(&lease).await.unwrap();
        assert_eq!((proof.lease, proof.left_behind), (lease, vec![]));
        assert!(!process_exists(pid));
        assert_eq!(names(&host.dir.path().join("leases")), Vec::<String>::new());
    }
    assert_eq!(host.manager.need(&lease).unwrap_err().code(), "lease.not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_start_is_refused_with_its_code() {
    let host = Host::new();
    let good = spec(samples::WORDSUM, LONG_MS);
    let lease = good.lease_id;
    let mut bad = good.clone();
    bad.workload.inputs[0].name = "../input.txt".into();
    assert_eq!(host.manager.prepare(bad).await.unwrap_err().code(), "workload.name");
    assert_eq!(host.manager.start(&lease).await.unwrap_err().code(), "lease.not_found");
    assert_eq!(host.manager.prepare(good.clone()).await.unwrap().len(), 2);
    assert_eq!(host.manager.prepare(good.clone()).await.unwrap().len(), 2);
    let mut other = good;
    other.kill_ms += 1;
    assert_eq!(host.manager.prepare(other).await.unwrap_err().code(), "lease.conflict");
    assert_eq!(host.manager.start(&lease).await.unwrap_err().code(), "lease.blobs_missing");
    let put = host.manager.put(&lease, digest(INPUT), 1, b"x").await;
    assert_eq!(put.unwrap_err().code(), "put.out_of_order");
    let wrong = vec![0; INPUT.len()];
    let put = host.manager.put(&lease, digest(INPUT), 0, &wrong).await;
    assert_eq!(put.unwrap_err().code(), "put.wrong_digest");

    host.manager.stop(&lease, "no need").await.unwrap();
    assert_eq!(host.end(&lease).await.outcome, Outcome::Stopped);
    assert_eq!(host.manager.start(&lease).await.unwrap_err().code(), "lease.ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_restart() {
    let host = Host::new();
    let spec = spec(samples::WORDSUM, LONG_MS);
    let lease = spec.lease_id;
    host.manager.prepare(spec).await.unwrap();
    host.upload(&lease, samples::WORDSUM).await;
    host.manager.put(&lease, digest(INPUT), 0, &INPUT[..5]).await.unwrap();
    let host = host.restart();
    assert_eq!(host.manager.adopt().await.unwrap(), [(lease, State::Preparing)]);
    assert_eq!(host.manager.need(&lease).unwrap(), [digest(INPUT)]);
    let progress = host.manager.put(&lease, digest(INPUT), 5, &INPUT[5..]).await.unwrap();
    assert!(progress.complete);
    host.manager.start(&lease).await.unwrap();
    assert_eq!(host.exit(&lease, 1).await, Outcome::Exited { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_self_test_proves_the_limits_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Path::new(env!("CARGO_BIN_EXE_capex"));
    let proved = self_test(dir.path(), shim, None).await.unwrap();
    assert_eq!(proved.backend, "wasm");
    assert!(proved.memory_peak_bytes > 0);
    let broken = self_test(dir.path(), Path::new("/bin/false"), None).await.unwrap_err();
    assert_eq!(broken.code(), "executor.self_test_failed");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

/// `CAPEX_LEASES` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn many_leases_leave_nothing() {
    let count = std::env::var("CAPEX_LEASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut host = Host::new();
    for _ in 0..count {
        let (lease, ended) = host.run(samples::WORDSUM, |_| {}).await;
        assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
        host.heard().await;
        let proof = host.manager.release(&lease).await.unwrap();
        assert_eq!(proof.left_behind, Vec::<String>::new());
    }
    assert_eq!(names(&host.dir.path().join("leases")), Vec::<String>::new());
    let own = host.dir.path().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&own)
    });
    assert_eq!(processes.count(), 0, "processes are left");
}
