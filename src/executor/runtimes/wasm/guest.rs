//! The thread that executes a component.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tokio::sync::Notify;

use super::component::{Host, Program};
use super::meter::Meter;
use crate::executor::bell::Wake;
use crate::executor::state::Outcome;

/// The other side of the thread.
pub(super) struct Guest {
    /// One outcome; the channel ends without one if the thread dies.
    pub(super) outcome: Receiver<Outcome>,
    cancel: Arc<Notify>,
}

impl Guest {
    /// Runs a program to its end.
    pub(super) fn spawn(
        program: Arc<Program>,
        host: Host,
        meter: Arc<Meter>,
        wake: &Wake,
    ) -> io::Result<Self> {
        let (report, outcome) = channel();
        let cancel = Arc::new(Notify::new());
        let (cancelled, wake) = (Arc::clone(&cancel), wake.clone());
        // Timers of the workload live in this runtime; the wall is never behind another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("guest".into()).spawn(move || {
            meter.begin();
            let outcome = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cancelled.notified() => Outcome::Stopped,
                    outcome = program.run(host) => outcome,
                }
            });
            meter.sample_cpu();
            // Nobody listens any more only if the process is ending.
            let _ = report.send(outcome);
            wake.up();
        })?;
        Ok(Self { outcome, cancel })
    }

    /// Ends it at its next epoch or wait.
    pub(super) fn cancel(&self) {
        self.cancel.notify_one();
    }
}
