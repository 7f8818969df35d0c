//! Follows a lease from outside: by its files and by the life of its process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::event::LeaseEvent;
use super::manager::{Lease, blocking};
use super::state::{Outcome, State, Usage};

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

/// What a look at a lease finds.
struct Look {
    /// Whether its process runs.
    is_alive: bool,
    /// As far as it can be read.
    state: Option<State>,
    /// At the end, and when a sample is due.
    usage: Option<Usage>,
}

impl Look {
    /// Reads the files, which may take a while: not on the event loop. `None` once the lease is
    /// gone.
    fn at(lease: &Lease, samples: bool) -> Option<Self> {
        // Before the record: a process that is gone has written what it had to write.
        let is_alive = lease.is_alive();
        if !lease.dir.path().exists() {
            return None;
        }
        let state = lease.record().ok().map(|record| record.state);
        if is_alive && lease.is_overdue() {
            tracing::warn!(lease = %lease.id, "lease process killed: it outlived its end");
            lease.kill();
        }
        let reads = samples || matches!(state, Some(State::Ended(_)));
        Some(Self { is_alive, state, usage: reads.then(|| lease.usage()) })
    }
}

impl Followed {
    /// One look; whether another is needed.
    async fn step(&mut self) -> bool {
        let lease = Arc::clone(&self.lease);
        let samples = self.sampled.elapsed() >= SAMPLE;
        let look = match tokio::task::spawn_blocking(move || Look::at(&lease, samples)).await {
            Ok(Some(look)) => look,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(lease = %self.lease.id, %error, "a lease cannot be looked at");
                return true;
            }
        };
        if let Some(state) = look.state {
            self.report(state, look.usage).await;
        }
        look.is_alive || self.bury().await
    }

    async fn report(&mut self, state: State, usage: Option<Usage>) {
        let lease = self.lease.id;
        match state {
            State::Preparing => {}
            State::Ready => self.once(1, LeaseEvent::Ready { lease }).await,
            State::Running { started_at_ms, .. } => {
                self.once(1, LeaseEvent::Ready { lease }).await;
                self.once(2, LeaseEvent::Started { lease, at_ms: started_at_ms }).await;
                if let Some(usage) = usage {
                    self.sampled = Instant::now();
                    self.send(LeaseEvent::Usage { lease, usage }).await;
                }
            }
            State::Ended(ended) => {
                if let Some(at_ms) = ended.started_at_ms {
                    self.once(1, LeaseEvent::Ready { lease }).await;
                    self.once(2, LeaseEvent::Started { lease, at_ms }).await;
                }
                let event = LeaseEvent::of_end(lease, ended, usage.unwrap_or_default());
                self.once(3, event).await;
            }
        }
    }

    /// The process is gone: its end is reported, or it had none. Tries again when the end
    /// cannot be written.
    async fn bury(&mut self) -> bool {
        if self.stage == 3 {
            return false;
        }
        let lease = Arc::clone(&self.lease);
        let end = move || Ok((lease.record_end(Outcome::Interrupted)?, lease.usage()));
        match blocking(end).await {
            Ok((ended, usage)) => {
                self.report(State::Ended(ended), Some(usage)).await;
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
