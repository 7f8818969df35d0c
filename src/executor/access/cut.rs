//! The end of the time for which somebody was let in.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock::now_ms;
use crate::executor::runtimes::Failure;
use capex_core::reason;

/// The clock may be set meanwhile: it is asked again after this.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until a time is over, unix s, which may be moved; for ever where there is none.
pub(super) async fn expired(mut until_s: watch::Receiver<Option<u64>>) {
    loop {
        let last_s = *until_s.borrow_and_update();
        let end_ms = last_s.map(|last_s| last_s.saturating_add(1).saturating_mul(1000));
        let left = end_ms.map(|end_ms| Duration::from_millis(end_ms.saturating_sub(now_ms())));
        if left == Some(Duration::ZERO) {
            return;
        }
        tokio::select! {
            moved = until_s.changed() => if moved.is_err() {
                return std::future::pending().await;
            },
            () = sleep(left.unwrap_or(LOOK).min(LOOK)), if left.is_some() => {}
        }
    }
}

/// Tells what a session is for that its time is over.
#[derive(Clone)]
pub(super) struct Cut(watch::Receiver<bool>);

impl Cut {
    /// Nothing is cut before `true` is sent.
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    pub(super) fn is_now(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it.
    pub(super) async fn wait(&mut self) {
        if self.0.wait_for(|is_now| *is_now).await.is_err() {
            std::future::pending().await
        }
    }

    /// What the other end is told.
    pub(super) fn failure() -> Failure {
        Failure::workload(reason!("access.grant_expired"), "the grant has expired")
    }
}
