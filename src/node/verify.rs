//! Checks signatures of gossip beside the event loop.

use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::mpsc;

use capex_core::bundle::Candidates;
use capex_core::engine::{Checked, Input, Unchecked};
use capex_core::ids::Key;
use capex_network::limits::MAX_LANE;

/// Messages that may wait: what one peer may have under way. A thread works off 20,000 orders
/// a second, and a verdict has no effect after eight.
const QUEUE: usize = MAX_LANE;
/// Messages that a thread takes at once: the loop is woken for all of them together.
const BATCH: usize = 32;
/// Batches that may wait for the loop; the threads wait behind it.
const ANSWERS: usize = 64;
/// Threads at most: the loop and the network cannot feed more.
const THREADS_MAX: usize = 8;

struct Job {
    peer: Key,
    ticket: u64,
    candidates: Candidates,
}

impl Job {
    fn run(self) -> Input {
        let checked = self.candidates.verify().map_err(Unchecked::Invalid);
        answer(self.peer, self.ticket, checked)
    }
}

fn answer(peer: Key, ticket: u64, checked: Checked) -> Input {
    Input::Checked { peer, ticket, checked }
}

/// Threads that end when it is dropped.
#[derive(Debug)]
pub(super) struct Verifier {
    jobs: SyncSender<Job>,
}

impl Verifier {
    /// Starts the threads: one core is left to the loop and the network.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start() -> std::io::Result<(Self, mpsc::Receiver<Vec<Input>>)> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::with(cores.saturating_sub(1).clamp(1, THREADS_MAX), QUEUE)
    }

    fn with(threads: usize, queue: usize) -> std::io::Result<(Self, mpsc::Receiver<Vec<Input>>)> {
        let (jobs, waiting) = sync_channel(queue);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 0..threads {
            let (waiting, answers) = (waiting.clone(), answers.clone());
            let name = format!("verify-{number}");
            thread::Builder::new().name(name).spawn(move || work(&waiting, &answers))?;
        }
        Ok((Self { jobs }, answered))
    }

    /// Hands a message over. Comes back with the answer at once if too many wait.
    pub(super) fn check(&self, peer: Key, ticket: u64, candidates: Candidates) -> Option<Input> {
        let refused = self.jobs.try_send(Job { peer, ticket, candidates }).is_err();
        refused.then(|| answer(peer, ticket, Err(Unchecked::Busy)))
    }
}

fn work(waiting: &Mutex<Receiver<Job>>, answers: &mpsc::Sender<Vec<Input>>) {
    loop {
        let batch: Vec<Job> = {
            // The lock guards the taking alone; a thread that fails here leaves it sound.
            let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(first) = waiting.recv() else { return };
            std::iter::once(first).chain(waiting.try_iter()).take(BATCH).collect()
        };
        let answered = batch.into_iter().map(Job::run).collect();
        if answers.blocking_send(answered).is_err() {
            return;
        }
    }
}
