//! Follows a lease from outside: by its files and by the life of its process, which is given
//! another one if it is lost within its window.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::ExecutorError;
use super::event::LeaseEvent;
use super::manager::{Lease, Shared, blocking};
use super::state::{Outcome, Record, State, Usage};

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Between two samples sent.
const SAMPLE: Duration = Duration::from_secs(1);

/// Reports what happens to the lease until it has ended and its process is gone.
///
/// The lease process enforces the window; this only kills a process that has not ended
/// long after it should have.
pub(super) async fn follow(shared: Arc<Shared>, lease: Arc<Lease>) {
    let (last, gap, dead, announced_ms) = (None, None, None, 0);
    let sampled = Instant::now();
    let mut followed = Followed { shared, lease, last, gap, announced_ms, dead, sampled };
    while followed.step().await {
        tokio::time::sleep(POLL).await;
    }
}

struct Followed {
    shared: Arc<Shared>,
    lease: Arc<Lease>,
    /// What was reported last.
    last: Option<State>,
    /// Since when it was reported to be interrupted, and when its window had begun.
    gap: Option<(u64, Option<u64>)>,
    /// How much of what is lost was reported to be announced, ms.
    announced_ms: u64,
    dead: Option<Dead>,
    sampled: Instant,
}

/// A lease whose process is gone.
struct Dead {
    /// When it gets another; never, if it has lost too many.
    again_at: Option<Instant>,
    /// How many it has lost, or could not be given, in a row.
    in_a_row: u32,
}

/// What a look at a lease finds.
struct Look {
    /// Whether its process runs.
    is_alive: bool,
    /// As far as it can be read.
    record: Option<Record>,
    /// When the window was opened, unix ms.
    opened_at_ms: Option<u64>,
    /// When the workload is over, and when a sample is due.
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
        let record = lease.record().ok();
        if is_alive && lease.is_overdue() {
            tracing::warn!(lease = %lease.id, "lease process killed: it outlived its end");
            lease.kill();
        }
        let reads =
            |record: &Record| samples || record.state.is_over() || record.lost.since_ms.is_some();
        let reads = record.as_ref().filter(|record| reads(record));
        let usage = reads.map(|record| Usage { interrupted_ms: record.lost.ms, ..lease.usage() });
        let starts_at_ms = lease.spec().starts_at_ms;
        let opened_at_ms = record.as_ref().and_then(|record| record.opened_at_ms(starts_at_ms));
        Some(Self { is_alive, record, opened_at_ms, usage })
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
        if !self.shared.holds(&self.lease) {
            // Released, and what was looked at may be a later lease of the same id.
            return false;
        }
        if look.is_alive {
            self.dead = None;
        }
        if let Some(record) = look.record {
            self.report(record, look.opened_at_ms, look.usage).await;
        }
        look.is_alive || self.see_to_death().await
    }

    async fn report(&mut self, record: Record, opened_at_ms: Option<u64>, usage: Option<Usage>) {
        let Record { state, lost, .. } = record;
        self.report_announced(lost.announced_ms).await;
        let is_over = matches!(state, State::Ended(_));
        let gap = lost.since_ms.filter(|_| !is_over).map(|since_ms| (since_ms, opened_at_ms));
        let was_lost = self.gap.is_some();
        if let (Some((since_ms, started_at_ms)), Some(loss)) = (gap, lost.loss) {
            if self.gap != gap {
                self.gap = gap;
                let (lease, usage) = (self.lease.id, usage.unwrap_or_default());
                let event = LeaseEvent::Interrupted { lease, loss, since_ms, started_at_ms, usage };
                self.send(event).await;
            }
            return;
        }
        self.gap = None;
        self.report_state(state, was_lost, usage).await;
    }

    /// Before the end that a receipt is made of.
    async fn report_announced(&mut self, ms: u64) {
        if ms > self.announced_ms {
            self.announced_ms = ms;
            self.send(LeaseEvent::Announced { lease: self.lease.id, ms }).await;
        }
    }

    async fn report_state(&mut self, state: State, was_lost: bool, usage: Option<Usage>) {
        let lease = self.lease.id;
        let is_new = was_lost || self.last.as_ref() != Some(&state);
        match &state {
            State::Running { .. } if !is_new => {
                if let Some(usage) = usage {
                    self.sampled = Instant::now();
                    self.send(LeaseEvent::Usage { lease, usage }).await;
                }
            }
            _ if !is_new => {}
            State::Preparing => {}
            State::Ready => self.send(LeaseEvent::Ready { lease }).await,
            State::Running { run, started_at_ms, .. } => {
                let (run, at_ms) = (*run, *started_at_ms);
                self.send(LeaseEvent::Started { lease, run, at_ms }).await;
            }
            State::Exited { run, outcome, at_ms, started_at_ms } => {
                let known = self.last.as_ref().map_or(0, State::runs);
                if let Some(at_ms) = started_at_ms.filter(|_| *run > known) {
                    // It began and ended between two looks.
                    self.send(LeaseEvent::Started { lease, run: *run, at_ms }).await;
                }
                let exit = (*run, outcome, *at_ms);
                let usage = usage.unwrap_or_default();
                self.send(LeaseEvent::of_exit(lease, exit, *started_at_ms, usage)).await;
            }
            State::Ended(ended) => {
                let known = self.last.as_ref().map_or(0, State::runs);
                if let Some(at_ms) = ended.started_at_ms.filter(|_| ended.runs > known) {
                    // It began and ended between two looks.
                    self.send(LeaseEvent::Started { lease, run: ended.runs, at_ms }).await;
                }
                let event = LeaseEvent::of_end(lease, ended.clone(), usage.unwrap_or_default());
                self.send(event).await;
            }
        }
        self.last = Some(state);
    }

    /// The process is gone: its end was reported, or it had none. Then the lease gets another
    /// process while its window lasts. Answers whether another look is needed.
    async fn see_to_death(&mut self) -> bool {
        if matches!(self.last, Some(State::Ended(_))) {
            return false;
        }
        let lease = Arc::clone(&self.lease);
        let _turn = lease.gate.lock().await;
        if !self.shared.holds(&lease) || !lease.dir.path().exists() {
            return false;
        }
        let done = match &self.dead {
            None => self.lose().await,
            Some(dead) => match (self.lease.end_without_process(), dead.again_at) {
                (Some(outcome), _) => self.bury(outcome).await,
                (None, None) => self.bury(Outcome::Interrupted).await,
                (None, Some(again_at))
                    if Instant::now() >= again_at && !self.shared.is_resting() =>
                {
                    self.launch_again().await
                }
                (None, Some(_)) => Ok(()),
            },
        };
        if let Err(error) = done {
            // Tried again at the next look.
            tracing::error!(lease = %self.lease.id, %error, "a lost lease cannot be seen to");
        }
        !matches!(self.last, Some(State::Ended(_)))
    }

    async fn lose(&mut self) -> Result<(), ExecutorError> {
        let lease = Arc::clone(&self.lease);
        let record = blocking(move || lease.lose()).await?;
        if matches!(record.state, State::Ended(_)) {
            // It was written between two looks; the next one reports it.
            return Ok(());
        }
        if record.is_resting() {
            tracing::info!(lease = %self.lease.id, "rests for a maintenance");
        } else {
            let in_a_row = record.lost.in_a_row;
            tracing::warn!(lease = %self.lease.id, in_a_row, "lease process lost");
        }
        self.dead = Some(self.dead_after(record.lost.in_a_row));
        Ok(())
    }

    fn dead_after(&self, in_a_row: u32) -> Dead {
        let wait = self.shared.comebacks.wait(in_a_row);
        Dead { again_at: wait.map(|wait| Instant::now() + wait), in_a_row }
    }

    async fn launch_again(&mut self) -> Result<(), ExecutorError> {
        let (shared, lease) = (Arc::clone(&self.shared), Arc::clone(&self.lease));
        let launched = blocking(move || lease.launch_again(&shared)).await;
        self.dead = match (&launched, &self.dead) {
            (Err(_), Some(dead)) => Some(self.dead_after(dead.in_a_row.saturating_add(1))),
            _ => None,
        };
        launched
    }

    async fn bury(&mut self, outcome: Outcome) -> Result<(), ExecutorError> {
        let lease = Arc::clone(&self.lease);
        let end = move || {
            let ended = lease.record_end(outcome)?;
            Ok((ended, lease.usage(), lease.record()?.lost.announced_ms))
        };
        let (ended, usage, announced_ms) = blocking(end).await?;
        self.report_announced(announced_ms).await;
        self.report_state(State::Ended(ended), true, Some(usage)).await;
        Ok(())
    }

    async fn send(&self, event: LeaseEvent) {
        // Without a listener the files still tell everything to the next one.
        let _ = self.shared.events.send(event).await;
    }
}
