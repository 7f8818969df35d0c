//! The thread that compiles and executes a workload.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::{Notify, oneshot};
use wasmtime::Engine;

use super::layout::LeaseDir;
use super::logs::CappedLog;
use super::meter::Meter;
use super::spec::LeaseSpec;
use super::state::Outcome;
use super::wasm::{Host, Program};

/// What the thread says.
#[derive(Debug)]
pub(super) enum Report {
    /// It waits for [`Guest::go`].
    Compiled,
    /// It is over; `None` when it was cancelled.
    Finished(Option<Outcome>),
}

/// What the thread needs.
pub(super) struct Job {
    pub(super) engine: Engine,
    pub(super) spec: LeaseSpec,
    pub(super) dir: LeaseDir,
    pub(super) meter: Arc<Meter>,
    pub(super) logs: [CappedLog; 2],
}

/// The other side of the thread. Its reports end when the thread does.
pub(super) struct Guest {
    pub(super) reports: Receiver<Report>,
    go: Option<oneshot::Sender<()>>,
    cancel: Arc<Notify>,
}

impl Guest {
    /// Begins to compile.
    pub(super) fn spawn(job: Job) -> io::Result<Self> {
        let (report, reports) = channel();
        let (go, gone) = oneshot::channel();
        let cancel = Arc::new(Notify::new());
        let cancelled = Arc::clone(&cancel);
        // Timers of the workload live in this runtime; the wall is never behind another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("guest".into()).spawn(move || {
            let outcome = runtime.block_on(job.run(&report, gone, &cancelled));
            // Nobody listens any more only if the process is ending.
            let _ = report.send(Report::Finished(outcome));
        })?;
        Ok(Self { reports, go: Some(go), cancel })
    }

    /// Lets the compiled workload run.
    pub(super) fn go(&mut self) {
        if let Some(go) = self.go.take() {
            // A thread that died shows as the end of its reports.
            let _ = go.send(());
        }
    }

    /// Ends it at its next epoch or wait.
    pub(super) fn cancel(&self) {
        self.cancel.notify_one();
    }
}

impl Job {
    /// `None` when cancelled.
    async fn run(
        self,
        report: &Sender<Report>,
        go: oneshot::Receiver<()>,
        cancel: &Notify,
    ) -> Option<Outcome> {
        let program = match self.compile() {
            Ok(program) => program,
            Err(outcome) => return Some(outcome),
        };
        report.send(Report::Compiled).ok()?;
        tokio::select! {
            biased;
            () = cancel.notified() => return None,
            gone = go => gone.ok()?,
        }
        self.meter.begin();
        let meter = Arc::clone(&self.meter);
        let host = match Host::new(&self.spec, &self.dir, self.meter, self.logs) {
            Ok(host) => host,
            Err(error) => return Some(Outcome::failed(format!("{error:#}"))),
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.notified() => None,
            outcome = program.run(host) => Some(outcome),
        };
        meter.sample_cpu();
        outcome
    }

    fn compile(&self) -> Result<Program, Outcome> {
        let path = self.dir.blob(&self.spec.component);
        let bytes = fs::read(path).map_err(|error| Outcome::failed(error.to_string()))?;
        Program::compile(&self.engine, &bytes)
            .map_err(|error| Outcome::failed(format!("component: {error:#}")))
    }
}
