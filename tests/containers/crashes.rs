//! A container whose lease process is killed, or whose host goes down: it is run again, on the
//! disk that it had, and nothing is left of it in the end.

use std::fs;
use std::path::PathBuf;

use capex::executor::{LeaseSpec, Outcome, State};
use capex_core::ids::LeaseId;
use capex_core::lease::Maintenance;
use capex_core::lease::objects::Stream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::image::{busybox, rootfs};
use crate::{Host, INPUT, LONG_MS, PATIENCE, left_of, spec};

/// Counts its runs on its disk, and stays.
const SCRIPT: &str = "/bin/busybox cat input.txt >> seen; echo changed > input.txt
    echo run >> runs; echo began $(/bin/busybox wc -l < runs); exec /bin/busybox sleep 1000";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    Process,
    Both,
    /// The whole machine: what the kernel kept of the lease is gone, too.
    Machine,
}

impl Host {
    pub(crate) fn record(&self, lease: &LeaseId) -> Value {
        serde_json::from_slice(&fs::read(self.lease_dir(lease).join("state.json")).unwrap())
            .unwrap()
    }

    pub(crate) async fn killed(self, lease: &LeaseId, who: Killed) -> Self {
        let shim = self.until("a process", |_| self.record(lease)["shim"]["pid"].as_i64()).await;
        if who == Killed::Process {
            kill(shim);
            return self;
        }
        let path = self.lease_dir(lease);
        let Self { dir, manager, _events } = self;
        drop((manager, _events));
        kill(shim);
        if who == Killed::Machine {
            go_down(&path);
        }
        let host = Self::in_dir(dir);
        host.manager.adopt().await.unwrap();
        host
    }

    pub(crate) async fn prints(&self, lease: &LeaseId, line: &str) {
        self.until(line, |_| self.log(lease, Stream::Stdout).contains(line).then_some(())).await;
    }
}

fn kill(pid: i64) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // One that has ended by now is what is wanted.
    let _ = kill_process(pid, Signal::KILL);
}

/// Takes away what no machine keeps over its end.
fn go_down(lease: &std::path::Path) {
    let place = fs::read(lease.join("oci/place.json")).unwrap();
    let place: Value = serde_json::from_slice(&place).unwrap();
    let path = format!("capex/{}/{}", place["range"], place["name"].as_str().unwrap());
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    let groups: Vec<PathBuf> = roots
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|root| root.join(&path))
        .filter(|group| group.is_dir())
        .collect();
    for _ in 0..1_000 {
        for group in &groups {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            processes.lines().for_each(|pid| kill(pid.parse().unwrap()));
            // Not before its last process has left it.
            let _ = fs::remove_dir(group);
            let _ = fs::remove_dir(group.parent().unwrap());
        }
        if groups.iter().all(|group| !group.exists()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let path = lease.join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["shim"]["boot_id"] = "another".into();
    fs::write(&path, record.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runs_is_run_again_on_its_disk() {
    let Some(busybox) = busybox("a_container_that_runs") else { return };
    let image = rootfs(&busybox);
    for who in [Killed::Process, Killed::Both, Killed::Machine] {
        let host = Host::new();
        let lease = host.start(spec(&image, SCRIPT, LONG_MS), &[&image, INPUT]).await;
        host.prints(&lease, "began 1").await;
        let host = host.killed(&lease, who).await;
        host.prints(&lease, "began 2").await;
        let host = host.killed(&lease, Killed::Process).await;
        host.prints(&lease, "began 3").await;
        host.manager.stop(&lease, "enough").await.unwrap();
        let ended = host.end(&lease).await;
        assert_eq!((ended.outcome, ended.runs), (Outcome::Stopped, 3), "{who:?}");
        assert!(ended.interrupted_ms > 0 && ended.cpu_us > 0, "{who:?}");
        host.release(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_rests_for_a_maintenance_goes_on_on_its_disk() {
    let Some(busybox) = busybox("a_container_that_rests") else { return };
    let image = rootfs(&busybox);
    let host = Host::new();
    let lease = host.start(spec(&image, SCRIPT, LONG_MS), &[&image, INPUT]).await;
    host.prints(&lease, "began 1").await;
    let (from_ms, why) = (capex::clock::now_ms(), String::new());
    host.manager.maintain(&[Maintenance { from_ms, to_ms: from_ms + 600_000, why }]);
    host.manager.keep_maintenance().await.unwrap();
    host.until("rest", |_| {
        let record = host.record(&lease);
        let rests = record["lost"]["loss"] == "Maintenance" && record["shim"].is_null();
        rests.then_some(())
    })
    .await;
    host.manager.maintain(&[]);
    host.manager.keep_maintenance().await.unwrap();
    host.prints(&lease, "began 2").await;
    host.manager.stop(&lease, "enough").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!((ended.outcome, ended.runs), (Outcome::Stopped, 2));
    host.release(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_on_from_every_other_state() {
    let Some(busybox) = busybox("a_container_goes_on") else { return };
    let image = rootfs(&busybox);
    for who in [Killed::Process, Killed::Both] {
        // While it is prepared: wherever that is.
        let host = Host::new();
        let lease = host.start(spec(&image, SCRIPT, LONG_MS), &[&image, INPUT]).await;
        let host = host.killed(&lease, who).await;
        host.prints(&lease, "began").await;
        host.release(&lease).await;

        // While it waits for its window.
        let host = Host::new();
        let later = spec(&image, SCRIPT, LONG_MS);
        let later = LeaseSpec { starts_at_ms: later.starts_at_ms + 15_000, ..later };
        let lease = host.start(later, &[&image, INPUT]).await;
        let is_ready = || (host.manager.state(&lease).unwrap() == State::Ready).then_some(());
        host.until("readiness", |_| is_ready()).await;
        let host = host.killed(&lease, who).await;
        host.prints(&lease, "began 1").await;
        host.release(&lease).await;

        // When its workload is over.
        let host = Host::new();
        let script = "echo done; exit 3";
        let lease = host.start(spec(&image, script, LONG_MS), &[&image, INPUT]).await;
        let has_exited = |host: &Host| {
            let rests = matches!(host.manager.state(&lease).unwrap(), State::Exited { .. });
            let lost = &host.record(&lease)["lost"];
            (rests && lost["since_ms"].is_null()).then(|| lost["back_at_ms"].is_null())
        };
        host.until("the exit", |_| has_exited(&host)).await;
        let host = host.killed(&lease, who).await;
        host.until("its return", |_| has_exited(&host).filter(|is_first| !is_first)).await;
        let ended = host.end(&lease).await;
        assert_eq!((ended.outcome, ended.runs), (Outcome::Exited { code: 3 }, 1), "{who:?}");
        host.release(&lease).await;

        // While it is ended, and takes its time.
        let host = Host::new();
        let script = "trap '' TERM; echo began; while :; do /bin/busybox sleep 1; done";
        let mut stubborn = spec(&image, script, LONG_MS);
        stubborn.workload.grace_ms = 30_000;
        let lease = host.start(stubborn, &[&image, INPUT]).await;
        host.prints(&lease, "began").await;
        host.manager.stop(&lease, "enough").await.unwrap();
        let host = host.killed(&lease, who).await;
        let ended = host.end(&lease).await;
        assert_eq!(ended.outcome, Outcome::Stopped, "{who:?}");
        host.release(&lease).await;
    }
}

/// Processes of this machine whose arguments end so.
fn processes(arguments: &str) -> usize {
    let wanted = format!("{}\0", arguments.replace(' ', "\0"));
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.ends_with(wanted.as_bytes())).count()
}

/// Without daemon and lease process, or with one that hangs, nothing of a lease runs on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_on_without_anybody() {
    let Some(busybox) = busybox("nothing_runs_on") else { return };
    let image = rootfs(&busybox);
    for (signal, seconds) in [(Signal::KILL, "98701"), (Signal::STOP, "98702")] {
        let host = Host::new();
        // Two processes, of which the first is not told by the end of the other.
        let sleep = format!("/bin/busybox sleep {seconds}");
        let script = format!("trap '' TERM HUP; {sleep} & echo began; exec {sleep}");
        let window_ms = if signal == Signal::KILL { LONG_MS } else { 12_000 };
        let spec = LeaseSpec { kill_ms: 500, ..spec(&image, &script, window_ms) };
        let ends_at_ms = spec.ends_at_ms;
        let lease = host.start(spec, &[&image, INPUT]).await;
        host.prints(&lease, "began").await;
        let shim = host.record(&lease)["shim"]["pid"].as_i64().unwrap();
        let Host { dir, manager, _events } = host;
        drop((manager, _events));
        let pid = Pid::from_raw(shim.try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let begun = std::time::Instant::now();
        while processes(&sleep) > 0 {
            assert!(begun.elapsed() < PATIENCE, "{signal:?}: it runs on");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if signal == Signal::KILL {
            assert!(crate::now_ms() < ends_at_ms, "at once");
        } else {
            assert!(crate::now_ms() >= ends_at_ms, "not before the end of the window");
        }
        kill(shim);
        let host = Host::in_dir(dir);
        host.manager.adopt().await.unwrap();
        host.manager.stop(&lease, "enough").await.unwrap();
        host.end(&lease).await;
        host.release(&lease).await;
    }
}

/// A daemon that is away when the window ends finds the rest of it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_window_ends_without_a_process() {
    let Some(busybox) = busybox("nothing_is_left") else { return };
    let image = rootfs(&busybox);
    let host = Host::new();
    let short = spec(&image, SCRIPT, 12_000);
    let ends_at_ms = short.ends_at_ms;
    let lease = host.start(short, &[&image, INPUT]).await;
    host.prints(&lease, "began 1").await;
    let shim = host.record(&lease)["shim"]["pid"].as_i64().unwrap();
    let Host { dir, manager, _events } = host;
    drop((manager, _events));
    kill(shim);
    while crate::now_ms() < ends_at_ms {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let host = Host::in_dir(dir);
    host.manager.adopt().await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Interrupted);
    assert!(!left_of(host.dir.path(), &lease).is_empty(), "kept until it is released");
    host.release(&lease).await;
}
