//! The measurement of processor and memory beside a component: another component, on a thread of its
//! own, with an engine of the same settings.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::component::{Host, Program, engine};
use super::meter::Meter;
use crate::executor::runtimes::{Beside, Exec, Failure, Process, ProcessControl, ProcessIo};
use crate::executor::samples::SCORE;
use crate::executor::score::PRINTED_BYTES;
use crate::executor::state::Outcome;
use capex_core::reason;

/// More than it needs, which is 64 MiB and a page.
const MEMORY_BYTES: usize = 80 << 20;
/// Between two measurements: neither their memory nor their time is the lease's, so there is one of
/// them, and it takes a small part of a processor however often somebody asks.
const PAUSE: Duration = Duration::from_secs(60);
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// When the last measurement of this process began.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Whether another may begin now.
fn may_begin(last: &mut Option<Instant>, now: Instant) -> bool {
    let may = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
    if may {
        *last = Some(now);
    }
    may
}

/// Beside a component nothing else is run.
pub(super) struct Bench;

impl Beside for Bench {
    fn exec(&self, _: &Exec) -> Result<Process, Failure> {
        Err(unsupported("a component has no programs beside it"))
    }

    fn bench(&self) -> Result<Process, Failure> {
        if !may_begin(&mut LAST.lock().unwrap_or_else(PoisonError::into_inner), Instant::now()) {
            return Err(Failure::workload(
                reason!("access.measured"),
                "the lease was measured less than a minute ago",
            ));
        }
        start().map_err(|error| Failure::host(error.to_string()))
    }

    fn dial(&self, _: u16) -> Result<OwnedFd, Failure> {
        Err(unsupported("a component has no ports"))
    }
}

fn unsupported(text: &str) -> Failure {
    Failure::workload(reason!("runtime.unsupported"), text)
}

fn start() -> io::Result<Process> {
    let (output, mut to) = io::pipe()?;
    let (errors, _) = io::pipe()?;
    let (_, input) = io::pipe()?;
    let (end, ended) = channel();
    thread::Builder::new().name("bench".into()).spawn(move || {
        let printed = measure().map_err(io::Error::other);
        let done = printed.and_then(|printed| to.write_all(&printed));
        drop(to);
        // Whoever asked may be gone.
        let _ = end.send(if done.is_ok() { DONE } else { FAILED });
    })?;
    Ok(Process {
        io: ProcessIo::Pipes { stdin: input.into(), stdout: output.into(), stderr: errors.into() },
        control: Arc::new(Thread(Mutex::new(ended))),
    })
}

/// What the component prints.
fn measure() -> wasmtime::Result<Vec<u8>> {
    let program = Program::compile(&engine()?, SCORE)?;
    let (host, printed) = Host::printing(MEMORY_BYTES, PRINTED_BYTES, Arc::new(Meter::default()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(program.run(host)) {
        Outcome::Exited { code: DONE } => Ok(printed.contents().to_vec()),
        outcome => Err(wasmtime::Error::msg(outcome.to_string())),
    }
}

struct Thread(Mutex<Receiver<i32>>);

impl ProcessControl for Thread {
    fn wait(&self) -> io::Result<i32> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ended.recv().unwrap_or(FAILED))
    }

    /// It is over in seconds, whatever it is told.
    fn signal(&self, _: u8) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_once_a_minute() {
        let (mut last, begun) = (None, Instant::now());
        let table = [(0, true), (1, false), (59, false), (60, true), (119, false), (120, true)];
        for (second, may) in table {
            assert_eq!(may_begin(&mut last, begun + Duration::from_secs(second)), may, "{second}");
        }
    }
}
