//! What becomes of a lease while its host is maintained: its process ends for the time that was
//! announced, and goes on after it.

use capex::executor::{LeaseEvent, Outcome, State, samples};
use capex_core::ids::LeaseId;
use capex_core::lease::objects::Stream;
use capex_core::lease::{Loss, Maintenance};

use crate::{Host, LONG_MS, now_ms, process_exists, spec};

/// Time until a maintenance begins: more than a busy machine needs to tell of it.
const NOTICE_MS: u64 = 3_000;
const LENGTH_MS: u64 = 2_000;

impl Host {
    async fn maintain(&self, all: &[Maintenance]) {
        self.manager.maintain(all);
        self.manager.keep_maintenance().await.unwrap();
    }

    fn announced_ms(&self, lease: &LeaseId) -> u64 {
        self.record(lease)["lost"]["announced_ms"].as_u64().unwrap()
    }

    async fn rests(&mut self) -> u64 {
        let (loss, since_ms) = self.heard_interruption().await;
        assert_eq!(loss, Loss::Maintenance);
        since_ms
    }
}

fn from_now(notice_ms: u64, length_ms: u64) -> Maintenance {
    let from_ms = now_ms() + notice_ms;
    Maintenance { from_ms, to_ms: from_ms + length_ms, why: "new disks".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_told_rests_and_goes_on_after_a_restart_of_the_daemon() {
    let mut host = Host::new();
    let lease = host.start(spec(samples::CHATTY, LONG_MS), samples::CHATTY).await;
    let pid = host.running(&lease).await;
    let work = host.lease_dir(&lease).join("work");
    std::fs::write(work.join("kept"), "mine").unwrap();
    let planned = from_now(NOTICE_MS, LENGTH_MS);
    host.maintain(std::slice::from_ref(&planned)).await;
    let said = "for a maintenance of 2 seconds: new disks\n";
    host.until("the notice", |manager| {
        let log = manager.read_log(&lease, Stream::Stderr, 0, usize::MAX).unwrap().bytes;
        String::from_utf8_lossy(&log).contains(said).then_some(())
    })
    .await;
    assert!(std::fs::read_to_string(work.join("capex-notice")).unwrap().contains(said));
    let since_ms = host.rests().await;
    assert!(since_ms >= planned.from_ms);
    host.until("the end of the process", |_| (!process_exists(pid)).then_some(())).await;
    // Another daemon knows of it, and waits as well.
    let mut host = host.restart();
    host.manager.adopt().await.unwrap();
    host.manager.start(&lease).await.unwrap();
    assert_eq!(host.rests().await, since_ms);
    let is_again = |state: &State| matches!(state, State::Running { run: 2, .. });
    host.state_of("another run", &lease, is_again).await;
    assert!(now_ms() >= planned.to_ms);
    assert_eq!(std::fs::read(work.join("kept")).unwrap(), b"mine");
    assert_eq!(host.announced_ms(&lease), planned.to_ms - since_ms);
    host.manager.stop(&lease, "enough").await.unwrap();
    let heard = host.heard().await;
    let announced = heard.iter().find_map(|event| match event {
        LeaseEvent::Announced { ms, .. } => Some(*ms),
        _ => None,
    });
    assert_eq!(announced, Some(planned.to_ms - since_ms), "{heard:?}");
    let Some(LeaseEvent::Ended { ended, .. }) = heard.last() else { panic!("{heard:?}") };
    // What it took to come back was not announced.
    assert!(ended.interrupted_ms > planned.to_ms - since_ms, "{ended:?}");
    host.maintain(&[]).await;
    host.released(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_ends_at_once_and_what_was_over_stays_so() {
    let mut host = Host::new();
    let lease = host.start(spec(samples::EXIT3, LONG_MS), samples::EXIT3).await;
    host.exit(&lease, 1).await;
    host.maintain(&[from_now(0, LONG_MS)]).await;
    host.rests().await;
    let passed = Maintenance { to_ms: now_ms(), ..from_now(0, 0) };
    host.maintain(&[Maintenance { from_ms: 0, ..passed }]).await;
    let is_over = |state: &State| matches!(state, State::Exited { run: 1, .. });
    host.state_of("rest", &lease, is_over).await;
    host.until("a process", |_| host.record(&lease)["shim"]["pid"].as_u64()).await;
    host.maintain(&[]).await;
    host.released(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_ends_in_a_maintenance_is_lost_to_it() {
    let mut host = Host::new();
    let planned = from_now(0, LONG_MS);
    host.maintain(std::slice::from_ref(&planned)).await;
    let spec = spec(samples::CHATTY, 4_000);
    let lease = host.start(spec.clone(), samples::CHATTY).await;
    host.rests().await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Interrupted);
    let window_ms = spec.ends_at_ms - ended.started_at_ms.unwrap();
    assert_eq!((ended.interrupted_ms, host.announced_ms(&lease)), (window_ms, window_ms));
    assert_eq!(ended.runs, 0);
    let heard = host.heard().await;
    let place = |is: fn(&LeaseEvent) -> bool| heard.iter().position(is);
    let announced = place(|event| matches!(event, LeaseEvent::Announced { .. })).unwrap();
    assert!(
        Some(announced) < place(|event| matches!(event, LeaseEvent::Ended { .. })),
        "{heard:?}"
    );
    host.maintain(&[]).await;
    host.released(&lease).await;
}
