//! How a lease process is woken, which sleeps until the next thing is due.
//!
//! ```text
//! the workload ends, it writes ──┐
//! SIGTERM ───────────────────────┼──▶ Wake ──▶ the main thread looks at everything
//! daemon ── rings ──▶ bell ──────┘
//! ```
//!
//! The bell is a named pipe in the lease's directory. Whoever has changed a file there writes a byte into
//! it; what it was is read from the files. A host has 1,024 leases and a user 128 watches of the kernel, so
//! that a process that watched its files by itself would be one of too many.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use super::layout::LeaseDir;

/// Rings that are taken at once.
const RINGS: usize = 64;

/// Wakes the main thread of a lease process, from any other.
#[derive(Debug, Clone, Default)]
pub(super) struct Wake(Arc<Call>);

#[derive(Debug, Default)]
struct Call {
    is_made: Mutex<bool>,
    made: Condvar,
}

impl Wake {
    pub(super) fn up(&self) {
        *self.0.is_made.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.made.notify_one();
    }

    /// Sleeps until it is called, at most so long. A call from before counts.
    pub(super) fn sleep(&self, most: Duration) {
        let is_made = self.0.is_made.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = self.0.made.wait_timeout_while(is_made, most, |is_made| !*is_made);
        let (mut is_made, _) = woken.unwrap_or_else(PoisonError::into_inner);
        *is_made = false;
    }
}

/// The bell of a lease, as its process has it.
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// Hangs it. To be done before the files are read for which it may ring.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn hang(dir: &LeaseDir) -> io::Result<Self> {
        match mknodat(CWD, dir.bell(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Also to be written, so that it does not end with whoever has rung.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(dir.bell(), flags, Mode::empty())?))
    }
}

/// Rings for a file that was changed. Without a process nobody has to hear it.
pub(super) fn ring(dir: &LeaseDir) {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(pipe) = rustix::fs::open(dir.bell(), flags, Mode::empty()) {
        // A full pipe has enough rings in it.
        let _ = std::fs::File::from(pipe).write(&[0]);
    }
}

/// What a lease process has heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    is_terminated: AtomicBool,
    has_rung: AtomicBool,
}

impl Heard {
    /// Whether the process was asked to end.
    pub(super) fn is_terminated(&self) -> bool {
        self.is_terminated.load(Ordering::Relaxed)
    }

    /// Whether it has rung since this was asked last.
    pub(super) fn has_rung(&self) -> bool {
        self.has_rung.swap(false, Ordering::AcqRel)
    }
}

/// Listens for SIGTERM and the bell on a thread of its own.
///
/// # Errors
/// The signals, or the thread.
pub(super) fn listen(bell: Bell, wake: &Wake) -> io::Result<Arc<Heard>> {
    let (heard, wake) = (Arc::new(Heard::default()), wake.clone());
    let known = Arc::clone(&heard);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    // A daemon that was started in the background may have been made to ignore these, and so would
    // every program in the lease: what is caught here is at its default in what is started from here.
    for kind in [SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    let mut bell = pipe::Receiver::from_owned_fd(bell.0)?;
    drop(entered);
    thread::Builder::new().name("calls".into()).spawn(move || {
        runtime.block_on(async move {
            let mut rings = [0; RINGS];
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => {
                        known.is_terminated.store(true, Ordering::Relaxed);
                    }
                    Ok(1..) = bell.read(&mut rings) => known.has_rung.store(true, Ordering::Release),
                    else => return,
                }
                wake.up();
            }
        });
    })?;
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn whoever_sleeps_hears_the_bell_also_one_that_rang_before() {
        let root = tempfile::tempdir().unwrap();
        let dir = LeaseDir::new(root.path().to_owned());
        // Nobody hears it: no process, and then none that has hung it.
        ring(&dir);
        let wake = Wake::default();
        let bell = Bell::hang(&dir).unwrap();
        ring(&dir);
        let heard = listen(bell, &wake).unwrap();
        for _ in 0..2 {
            let begun = Instant::now();
            wake.sleep(PATIENCE);
            assert!(begun.elapsed() < PATIENCE);
            assert!(heard.has_rung() && !heard.has_rung() && !heard.is_terminated());
            ring(&dir);
        }
    }

    #[test]
    fn a_call_is_heard_once() {
        let wake = Wake::default();
        wake.up();
        let begun = Instant::now();
        wake.sleep(PATIENCE);
        assert!(begun.elapsed() < PATIENCE);
        let short = Duration::from_millis(20);
        let begun = Instant::now();
        wake.sleep(short);
        assert!(begun.elapsed() >= short);
    }
}
