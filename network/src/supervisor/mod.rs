//! Keeps the swarm task alive: libp2p has had remote crashes, and the node must outlive one.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use libp2p::Swarm;
use tokio::sync::{mpsc, oneshot, watch};

use crate::behaviour::{self, Behaviour, panic_text};
use crate::config::Plan;
use crate::keys::PeerKey;
use crate::limits::{CRASH_WINDOW, FIRST_RESTART, MAX_RESTART};
use crate::listen::Listeners;
use crate::state::State;
use crate::task::{self, Exit, Task};
use crate::{Command, Event, NetworkError, RequestError, Stream};

/// What reaches the swarm task from outside the network.
#[derive(Debug)]
pub(crate) enum Input {
    Command(Command),
    /// A stream is wanted.
    Open {
        peer: PeerKey,
        answer: oneshot::Sender<Result<Stream, RequestError>>,
    },
    /// Lets a test see what a panic does.
    #[cfg(test)]
    Panic,
    /// Lets a test see what a panic in a connection's task does.
    #[cfg(test)]
    PanicInBackground,
}

/// The channels of the swarm task. They outlive it.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Panics in the tasks of single connections.
    pub(crate) crashed: mpsc::Receiver<String>,
    /// The other end, for each new swarm.
    pub(crate) crash: mpsc::Sender<String>,
}

/// Runs the swarm task and starts it again when it fails.
pub(crate) struct Supervisor {
    plan: Plan,
    state: State,
    channels: Channels,
    first: (Swarm<Behaviour>, Listeners),
}

impl Supervisor {
    /// Builds the first swarm and lets it listen, so that a bad configuration fails here.
    pub(crate) fn new(
        plan: Plan,
        inputs: mpsc::Receiver<Input>,
        events: mpsc::Sender<Event>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, NetworkError> {
        let (crash, crashed) = mpsc::channel(1);
        let mut swarm = behaviour::build(&plan, crash.clone())?;
        let listeners = Listeners::open(&mut swarm, &plan)?;
        let state = State::new(&plan, Instant::now());
        let channels = Channels { inputs, events, stop, crashed, crash };
        Ok(Self { plan, state, channels, first: (swarm, listeners) })
    }

    /// Runs until the node stops the network or drops its handles or its event queue.
    pub(crate) async fn run(self) {
        let Self { plan, mut state, mut channels, first } = self;
        let mut first = Some(first);
        let mut pauses = Pauses::default();
        loop {
            let run = async {
                let (swarm, listeners) = match first.take() {
                    Some((swarm, listeners)) => (swarm, Some(listeners)),
                    None => (rebuild(&plan, &channels)?, None),
                };
                let task = Task::new(&plan, &mut state, swarm, listeners);
                Ok::<Exit, String>(task.run(&mut channels).await)
            };
            let reason = match AssertUnwindSafe(run).catch_unwind().await {
                Ok(Ok(Exit::Stopped)) => return,
                Ok(Ok(Exit::Crashed(reason)) | Err(reason)) => reason,
                Err(panic) => panic_text(panic.as_ref()),
            };
            tracing::error!(reason, "the swarm task failed and is started again");
            state.restarted(reason, Instant::now());
            // Reports of the swarm that is gone do not concern the next one.
            while channels.crashed.try_recv().is_ok() {}
            let pause = pauses.next(Instant::now());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = task::stopped(&mut channels.stop) => return,
            }
        }
    }
}

fn rebuild(plan: &Plan, channels: &Channels) -> Result<Swarm<Behaviour>, String> {
    behaviour::build(plan, channels.crash.clone()).map_err(|error| error.to_string())
}

/// Waits between crashes: none before the first restart, then doubling while they come fast.
#[derive(Debug, Default)]
struct Pauses {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Pauses {
    fn next(&mut self, now: Instant) -> Duration {
        let fast = self.last.is_some_and(|last| now.duration_since(last) < CRASH_WINDOW);
        self.last = Some(now);
        self.in_a_row = if fast { self.in_a_row.saturating_add(1) } else { 0 };
        match self.in_a_row.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
                FIRST_RESTART.saturating_mul(factor).min(MAX_RESTART)
            }
        }
    }
}

#[cfg(test)]
mod tests;
