//! Follows a lease from outside: by its files and by the life of its process, which is given
//! another one if it is lost within its window. The kernel says when there is something to see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::ExecutorError;
use super::event::LeaseEvent;
use super::manager::{Lease, Shared, blocking};
use super::news::Exit;
use super::state::{Outcome, Record, State, Usage};
use crate::clock::now_ms;

/// How often, and after what time, a lease process that was lost is started again.
#[derive(Debug, Clone, Copy)]
pub struct Comebacks {
    /// Before the second process, and twice as long before each further one of a row.
    pub first: Duration,
    /// At most.
    pub most: Duration,
    /// Losses in a row after which the lease ends: none of the processes lasted a minute.
    pub in_a_row: u32,
}

impl Default for Comebacks {
    /// Four minutes in all: whatever is gone for longer needs an operator.
    fn default() -> Self {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(60));
        Self { first, most, in_a_row: 12 }
    }
}

impl Comebacks {
    /// How long the process after so many losses waits; `None` if there is to be none.
    pub(super) fn wait(&self, in_a_row: u32) -> Option<Duration> {
        let doubled = 2_u32.saturating_pow(in_a_row.saturating_sub(1));
        (in_a_row < self.in_a_row).then(|| self.first.saturating_mul(doubled).min(self.most))
    }
}

/// Between two looks at what nothing is heard of.
const POLL: Duration = Duration::from_millis(50);
/// Between two looks at what is heard of: a bound on what a clock that is set can delay.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two samples sent.
const SAMPLE: Duration = Duration::from_secs(1);

/// Reports what happens to the lease until it has ended and its process is gone.
///
/// The lease process enforces the window; this only kills a process that has not ended
/// long after it should have.
pub(super) async fn follow(shared: Arc<Shared>, lease: Arc<Lease>) {
    let listening = shared.news.listen(&lease.dir, &lease.moved);
    if let Err(error) = &listening {
        tracing::warn!(lease = %lease.id, %error, "nothing is heard of a lease: it is looked at often");
    }
    let mut followed = Followed {
        shared,
        lease,
        last: None,
        gap: None,
        announced_ms: 0,
        dead: None,
        sampled: Instant::now(),
        is_heard: listening.is_ok(),
        exit: None,
        ended_ms: None,
    };
    while let Some(patience) = followed.step().await {
        followed.wait(patience).await;
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
    /// The kernel says when a file of it is replaced.
    is_heard: bool,
    /// Of its process, if that runs.
    exit: Option<Exit>,
    /// When that was seen, unix ms.
    ended_ms: Option<u64>,
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
        if is_alive && lease.until_overdue().is_zero() {
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
    /// One look; how long the next one may wait if nothing is heard, `None` if there is nothing to come.
    async fn step(&mut self) -> Option<Duration> {
        let lease = Arc::clone(&self.lease);
        let samples = self.sampled.elapsed() >= SAMPLE;
        let look = match tokio::task::spawn_blocking(move || Look::at(&lease, samples)).await {
            Ok(look) => look?,
            Err(error) => {
                tracing::error!(lease = %self.lease.id, %error, "a lease cannot be looked at");
                return Some(SAMPLE);
            }
        };
        if !self.shared.holds(&self.lease) {
            // Released, and what was looked at may be a later lease of the same id.
            return None;
        }
        if look.is_alive {
            self.dead = None;
        } else if self.exit.take().is_some() {
            // It has ended since the look before, which would have been told of it.
            self.ended_ms = Some(now_ms());
        }
        if let Some(record) = look.record {
            self.report(record, look.opened_at_ms, look.usage).await;
        }
        self.lease.seen_to.notify_waiters();
        if look.is_alive {
            return Some(self.until_look(samples));
        }
        self.see_to_death().await.then(|| self.until_next_process())
    }

    /// Waits until there may be something new.
    async fn wait(&mut self, patience: Duration) {
        let ended = async {
            match &self.exit {
                Some(exit) => exit.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ended => {
                self.exit = None;
                self.ended_ms = Some(now_ms());
            }
            () = self.lease.moved.notified() => {}
            () = tokio::time::sleep(patience) => {}
        }
    }

    /// How long a process that runs need not be looked at.
    fn until_look(&mut self, has_sampled: bool) -> Duration {
        self.ended_ms = None;
        if self.exit.is_none() {
            self.exit = self.lease.exit();
        }
        if !self.is_heard || self.exit.is_none() {
            return POLL;
        }
        let owed = SAMPLE.saturating_sub(self.sampled.elapsed()).max(POLL);
        let patience = if has_sampled { LONGEST } else { owed };
        patience.min(self.lease.until_overdue()).max(POLL)
    }

    /// How long a lease without a process need not be seen to.
    fn until_next_process(&self) -> Duration {
        let again_at = self.dead.as_ref().and_then(|dead| dead.again_at);
        // Else its end is to be told, or it has just been given another.
        let Some(again_at) = again_at else { return POLL };
        let window = Duration::from_millis(self.lease.spec().ends_at_ms.saturating_sub(now_ms()));
        let patience = match self.shared.is_resting() {
            (true, until) => until.unwrap_or(LONGEST),
            (false, _) => again_at.saturating_duration_since(Instant::now()),
        };
        patience.min(window).clamp(POLL, LONGEST)
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
                    if Instant::now() >= again_at && !self.shared.is_resting().0 =>
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
        let (lease, ended_ms) = (Arc::clone(&self.lease), self.ended_ms.take());
        let record = blocking(move || lease.lose(ended_ms)).await?;
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
