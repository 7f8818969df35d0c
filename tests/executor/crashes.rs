//! What becomes of a lease whose process is killed, or its host, or its daemon: it goes on while
//! its window lasts, and what was lost is counted.

use std::path::Path;
use std::time::Duration;

use capex::executor::{Comebacks, Ended, LeaseEvent, LeaseSpec, Outcome, State, samples};
use capex_core::ids::LeaseId;
use capex_core::lease::Loss;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Host, LONG_MS, QUICK, names, now_ms, process_exists, spec};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Process,
    Daemon,
    Both,
}

const ALL: [Killed; 3] = [Killed::Process, Killed::Daemon, Killed::Both];

impl Host {
    pub(crate) fn record(&self, lease: &LeaseId) -> serde_json::Value {
        let text = std::fs::read(self.lease_dir(lease).join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The process that vouches for the lease.
    fn shim(&self, lease: &LeaseId) -> Option<u32> {
        u32::try_from(self.record(lease)["shim"]["pid"].as_u64()?).ok()
    }

    async fn killed(self, lease: &LeaseId, who: Killed) -> Self {
        let pid = self.until("a process", |_| self.shim(lease)).await;
        let Self { dir, manager, events } = self;
        let (host, daemon) = match who {
            Killed::Process => (Some((manager, events)), None),
            Killed::Daemon | Killed::Both => (None, Some((manager, events))),
        };
        drop(daemon);
        if who != Killed::Daemon {
            kill(pid);
        }
        match host {
            Some((manager, events)) => Self { dir, manager, events },
            None => {
                let host = Self::in_dir(dir);
                host.manager.adopt().await.unwrap();
                // As the daemon does for all that has not ended.
                match host.manager.start(lease).await {
                    Err(error) if error.code() != "lease.ended" => panic!("{error}"),
                    Ok(()) | Err(_) => host,
                }
            }
        }
    }

    pub(crate) async fn state_of(
        &self,
        what: &str,
        lease: &LeaseId,
        is: impl Fn(&State) -> bool,
    ) -> State {
        self.until(what, |manager| {
            let state = manager.state(lease).unwrap();
            // Without a process nothing of it can be had.
            (is(&state) && self.record(lease)["lost"]["since_ms"].is_null()).then_some(state)
        })
        .await
    }

    pub(crate) async fn heard_interruption(&mut self) -> (Loss, u64) {
        loop {
            let event = tokio::time::timeout(crate::PATIENCE, self.events.recv()).await;
            match event.unwrap().unwrap() {
                LeaseEvent::Interrupted { loss, since_ms, .. } => return (loss, since_ms),
                LeaseEvent::Ended { .. } | LeaseEvent::Failed { .. } => panic!("it has ended"),
                _ => {}
            }
        }
    }

    pub(crate) async fn released(self, lease: &LeaseId) {
        let pid = self.shim(lease);
        let proof = self.manager.release(lease).await.unwrap();
        assert_eq!(proof.left_behind, Vec::<String>::new());
        assert_eq!(names(&self.dir.path().join("leases")), Vec::<String>::new());
        assert!(pid.is_none_or(|pid| !process_exists(pid)));
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// What is left of a running lease, and what was lost of it.
async fn check_counted(host: &Host, lease: &LeaseId, loses: bool) -> Ended {
    host.manager.stop(lease, "enough").await.unwrap();
    let ended = host.end(lease).await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert_eq!(ended.interrupted_ms > 0, loses, "{ended:?}");
    let lasted_ms = ended.ended_at_ms - ended.started_at_ms.unwrap();
    let counted_ms = ended.delivered_ms + ended.interrupted_ms;
    // Counted by two clocks, and by samples a quarter of a second apart.
    assert!(counted_ms.abs_diff(lasted_ms) < 400, "{ended:?}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_prepared_goes_on() {
    for who in ALL {
        let host = Host::new();
        let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
        let host = host.killed(&lease, who).await;
        host.state_of("the start", &lease, |s| matches!(s, State::Running { .. })).await;
        host.released(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_waits_for_its_window_goes_on() {
    for who in ALL {
        let host = Host::new();
        let mut spec = spec(samples::CHATTY, LONG_MS);
        spec.starts_at_ms += 4_000;
        let starts_at_ms = spec.starts_at_ms;
        let lease = host.start(spec, samples::CHATTY).await;
        host.state_of("readiness", &lease, |s| matches!(s, State::Ready)).await;
        let host = host.killed(&lease, who).await;
        let state =
            host.state_of("the start", &lease, |s| matches!(s, State::Running { .. })).await;
        let State::Running { started_at_ms, run: 1, .. } = state else { panic!("{state:?}") };
        assert!(started_at_ms >= starts_at_ms, "{who:?}");
        host.released(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_is_run_again_on_its_disk() {
    for who in ALL {
        let host = Host::new();
        let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
        let pid = host.running(&lease).await;
        let kept = host.lease_dir(&lease).join("work/kept");
        std::fs::write(&kept, "mine").unwrap();
        let mut host = host.killed(&lease, who).await;
        if who != Killed::Daemon {
            let (loss, since_ms) = host.heard_interruption().await;
            assert_eq!(loss, Loss::Process);
            assert!(now_ms() - since_ms < 10_000);
        }
        let run = if who == Killed::Daemon { 1 } else { 2 };
        let again = host
            .state_of(
                "another run",
                &lease,
                |s| matches!(s, State::Running { run: r, .. } if *r == run),
            )
            .await;
        let State::Running { pid: again, .. } = again else { panic!() };
        assert_eq!(again == pid, who == Killed::Daemon);
        assert_eq!(std::fs::read(&kept).unwrap(), b"mine");
        check_counted(&host, &lease, who != Killed::Daemon).await;
        host.released(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_workload_is_over_waits_on() {
    for who in ALL {
        let host = Host::new();
        let lease = host.start(spec(samples::EXIT3, LONG_MS), samples::EXIT3).await;
        host.exit(&lease, 1).await;
        let pid = host.shim(&lease);
        let host = host.killed(&lease, who).await;
        if who != Killed::Daemon {
            host.until("another process", |_| {
                let other = host.shim(&lease);
                (other.is_some() && other != pid).then_some(())
            })
            .await;
        }
        let state = host.state_of("rest", &lease, |s| matches!(s, State::Exited { .. })).await;
        let State::Exited { run: 1, outcome, .. } = state else { panic!("{who:?} {state:?}") };
        assert_eq!(outcome, Outcome::Exited { code: 3 });
        host.released(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_being_ended_ends() {
    for who in ALL {
        let host = Host::new();
        let mut spec = spec(samples::WORDSUM, LONG_MS);
        spec.workload.inputs.clear();
        let lease = spec.lease_id;
        host.manager.prepare(spec).await.unwrap();
        host.upload(&lease, samples::WORDSUM).await;
        // Opening a pipe that nobody writes to keeps it busy until it is killed.
        let pipe = host.lease_dir(&lease).join("work/input.txt");
        let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
        host.manager.start(&lease).await.unwrap();
        host.running(&lease).await;
        host.manager.stop(&lease, "stuck").await.unwrap();
        let host = host.killed(&lease, who).await;
        let ended = host.end(&lease).await;
        assert_eq!(ended.outcome, Outcome::Stopped, "{who:?}");
        host.released(&lease).await;
    }
}

/// A lease that does nothing is sampled seldom. Whoever sees its process end knows when it did.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_quiet_lease_delivered_until_its_process_was_lost_counts() {
    let mut host = Host::new();
    let lease = host.start(spec(samples::EXIT3, LONG_MS), samples::EXIT3).await;
    host.exit(&lease, 1).await;
    let sampled_ms = |host: &Host| host.manager.usage(&lease).unwrap().at_ms;
    host.until("a quiet time", |_| (now_ms() > sampled_ms(&host) + 2_000).then_some(())).await;
    let killed_ms = now_ms();
    kill(host.shim(&lease).unwrap());
    let (_, since_ms) = host.heard_interruption().await;
    assert!(since_ms.abs_diff(killed_ms) < 500, "{since_ms} {killed_ms}");
    host.state_of("rest", &lease, |s| matches!(s, State::Exited { .. })).await;
    host.manager.stop(&lease, "enough").await.unwrap();
    let ended = host.end(&lease).await;
    let lasted_ms = ended.ended_at_ms - ended.started_at_ms.unwrap();
    let counted_ms = ended.delivered_ms + ended.interrupted_ms;
    assert!(counted_ms.abs_diff(lasted_ms) < 400, "{ended:?}");
    host.released(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_started_anew_says_so() {
    let host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let Host { dir, manager, events } = host;
    drop((manager, events));
    kill(pid);
    let path = dir.path().join("leases").join(lease.to_string()).join("state.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["shim"]["boot_id"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let mut host = Host::in_dir(dir);
    host.manager.adopt().await.unwrap();
    assert_eq!(host.heard_interruption().await.0, Loss::Host);
    host.state_of("another run", &lease, |s| matches!(s, State::Running { run: 2, .. })).await;
    check_counted(&host, &lease, true).await;
    host.released(&lease).await;
}

/// A patience in which the lease stays without a process.
const SLOW: Comebacks =
    Comebacks { first: Duration::from_secs(3_600), most: Duration::from_secs(3_600), in_a_row: 4 };

async fn interrupted(window_ms: u64) -> (Host, LeaseId, LeaseSpec) {
    let shim = Path::new(env!("CARGO_BIN_EXE_capex"));
    let mut host = Host::with(tempfile::tempdir().unwrap(), shim, SLOW);
    let spec = spec(samples::CHATTY, window_ms);
    let lease = host.start(spec.clone(), samples::CHATTY).await;
    kill(host.running(&lease).await);
    host.heard_interruption().await;
    (host, lease, spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_without_a_process_ends_with_its_window_or_as_its_holder_says() {
    let (host, lease, spec) = interrupted(5_000).await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Interrupted);
    assert!(ended.ended_at_ms < spec.ends_at_ms, "what came after its last sign was not delivered");
    assert!(now_ms() >= spec.ends_at_ms);
    host.released(&lease).await;

    let (host, lease, _) = interrupted(LONG_MS).await;
    host.manager.stop(&lease, "no use").await.unwrap();
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Stopped);
    assert!(ended.interrupted_ms > 0, "{ended:?}");
    host.released(&lease).await;

    let (host, lease, _) = interrupted(LONG_MS).await;
    host.released(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_loses_too_many_processes_ends_with_a_code() {
    let mut host = Host::with(tempfile::tempdir().unwrap(), Path::new("/bin/false"), QUICK);
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Interrupted);
    let heard = host.heard().await;
    assert!(matches!(heard.last(), Some(LeaseEvent::Ended { .. })), "{heard:?}");
    host.released(&lease).await;
}
