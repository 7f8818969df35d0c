//! Follows a lease from outside: by its files and by the life of its process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::event::LeaseEvent;
use super::manager::Lease;
use super::state::{Outcome, State};

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Between two samples sent.
const SAMPLE: Duration = Duration::from_secs(1);

/// Reports what happens to the lease until it has ended and its process is gone.
///
/// The lease process enforces the window; this only kills a process that has not ended
/// long after it should have.
pub(super) async fn follow(events: Sender<LeaseEvent>, lease: Arc<Lease>) {
    let mut followed = Followed { events, lease, stage: 0, sampled: Instant::now() };
    while followed.step().await {
        tokio::time::sleep(POLL).await;
    }
}

struct Followed {
    events: Sender<LeaseEvent>,
    lease: Arc<Lease>,
    /// Reported so far: 1 ready, 2 started, 3 ended.
    stage: u8,
    sampled: Instant,
}

impl Followed {
    /// One look; whether another is needed.
    async fn step(&mut self) -> bool {
        // Before the record: a process that is gone has written what it had to write.
        let alive = self.lease.is_alive();
        if !self.lease.dir.path().exists() {
            return false;
        }
        if let Ok(record) = self.lease.record() {
            self.report(record.state).await;
        }
        if !alive {
            return self.bury().await;
        }
        if self.lease.is_overdue() {
            tracing::warn!(lease = %self.lease.id, "lease process killed: it outlived its end");
            self.lease.kill();
        }
        true
    }

    async fn report(&mut self, state: State) {
        let lease = self.lease.id;
        match state {
            State::Preparing => {}
            State::Ready => self.once(1, LeaseEvent::Ready { lease }).await,
            State::Running { started_at_ms, .. } => {
                self.once(1, LeaseEvent::Ready { lease }).await;
                self.once(2, LeaseEvent::Started { lease, at_ms: started_at_ms }).await;
                self.sample().await;
            }
            State::Ended(ended) => {
                if let Some(at_ms) = ended.started_at_ms {
                    self.once(1, LeaseEvent::Ready { lease }).await;
                    self.once(2, LeaseEvent::Started { lease, at_ms }).await;
                }
                let event = LeaseEvent::of_end(lease, ended, self.lease.usage());
                self.once(3, event).await;
            }
        }
    }

    async fn sample(&mut self) {
        if self.sampled.elapsed() >= SAMPLE {
            self.sampled = Instant::now();
            let (lease, usage) = (self.lease.id, self.lease.usage());
            self.send(LeaseEvent::Usage { lease, usage }).await;
        }
    }

    /// The process is gone: its end is reported, or it had none. Tries again when the end
    /// cannot be written.
    async fn bury(&mut self) -> bool {
        if self.stage == 3 {
            return false;
        }
        match self.lease.record_end(Outcome::Interrupted) {
            Ok(ended) => {
                self.report(State::Ended(ended)).await;
                false
            }
            Err(error) => {
                tracing::error!(lease = %self.lease.id, %error, "the end cannot be recorded");
                true
            }
        }
    }

    async fn once(&mut self, stage: u8, event: LeaseEvent) {
        if self.stage < stage {
            self.stage = stage;
            self.send(event).await;
        }
    }

    async fn send(&self, event: LeaseEvent) {
        // Without a listener the files still tell everything to the next one.
        let _ = self.events.send(event).await;
    }
}
