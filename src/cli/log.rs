//! The log of a server: written by a thread of its own, so that a reader that is gone, a full
//! disk or a stopped terminal neither ends nor delays whoever has something to tell.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::failure::Failure;
use capex_core::reason;

/// Lines that wait for the writer: about 1 MB. Those that come to a full queue are counted
/// and dropped.
const LINES_MAX: usize = 4096;
/// How long the end of the process waits for a log that does not move.
const FLUSH: Duration = Duration::from_millis(500);

enum Item {
    Line(Vec<u8>),
    /// Everything before it is written when this is dropped.
    Mark(SyncSender<()>),
}

/// The sending end: takes every line, never fails, never waits.
#[derive(Debug, Clone)]
pub(super) struct Log {
    lines: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The system gives no thread.
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Self { lines, lost: Arc::clone(&lost) };
        thread::Builder::new().name("log".to_owned()).spawn(move || write(out, &waiting, &lost))?;
        Ok(log)
    }

    /// Waits until what was logged so far is written, but not for long.
    pub(super) fn flush(&self) {
        let (mark, reached) = sync_channel(1);
        // A full queue is one that does not move.
        if self.lines.try_send(Item::Mark(mark)).is_ok() {
            // Either it is reached, which drops the other end, or the time is up.
            let _ = reached.recv_timeout(FLUSH);
        }
    }
}

fn write(mut out: impl Write, waiting: &Receiver<Item>, lost: &AtomicU64) {
    for item in waiting {
        let line = match item {
            Item::Line(line) => line,
            Item::Mark(mark) => {
                drop(mark);
                continue;
            }
        };
        let missing = lost.swap(0, Ordering::Relaxed);
        let told = match missing {
            0 => Ok(()),
            missing => writeln!(out, "({missing} lines of the log could not be written)"),
        };
        // A line that is lost is counted, and told once the log can be written again.
        let written = told.is_ok() && out.write_all(&line).and_then(|()| out.flush()).is_ok();
        if told.is_err() {
            lost.fetch_add(missing, Ordering::Relaxed);
        }
        if !written {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Item::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Starts the log of this process on standard error.
///
/// # Errors
/// The filter is none, or the system gives no thread.
pub(super) fn start(filter: &str) -> Result<Log, Failure> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(reason!("config.invalid"), format!("log: {error}")))?;
    let failed = |error: io::Error| Failure::new(reason!("node.runtime"), error.to_string());
    let log = Log::start(io::stderr()).map_err(failed)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        // Its own words about a failure would go to standard error by a panicking macro.
        .log_internal_errors(false)
        .with_writer(log.clone());
    // Fails only if a log was started before, as in tests.
    let _ = subscriber.try_init();
    Ok(log)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A file on a disk that is full while told so.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Disk {
        fn set_full(&self, full: bool) {
            self.0.lock().unwrap().0 = full;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_no_error_and_is_counted() {
        let disk = Disk::default();
        let mut log = Log::start(disk.clone()).unwrap();
        disk.set_full(true);
        for line in ["one\n", "two\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        Log::flush(&log);
        disk.set_full(false);
        log.write_all(b"three\n").unwrap();
        Log::flush(&log);
        assert_eq!(disk.text(), "(2 lines of the log could not be written)\nthree\n");
    }

    /// A reader that says when it has got something, and reads no more until it is dropped.
    struct Stuck {
        got: SyncSender<()>,
        resume: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.got.send(());
            // Ends when the sender goes.
            let _ = self.resume.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stopped_holds_up_nobody() {
        let ((got, has_got), (end, resume)) = (sync_channel(2), sync_channel(1));
        let mut log = Log::start(Stuck { got, resume }).unwrap();
        log.write_all(b"line\n").unwrap();
        has_got.recv().unwrap();
        for _ in 0..2 * LINES_MAX {
            log.write_all(b"line\n").unwrap();
        }
        assert_eq!(log.lost.load(Ordering::Relaxed), LINES_MAX as u64);
        drop((end, has_got));
    }
}
