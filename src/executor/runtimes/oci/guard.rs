//! Who ends a container when nobody else can: the lease process is gone, or hangs, and so may the
//! daemon be that would see to it. `capex shim DIR --guard`, a child of the lease process.
//!
//! ```text
//! lease process ── holds a pipe ──▶ guard ── the pipe ends, or the window is long over ──▶ kills the group
//! ```
//!
//! A lease that comes back waits for the guard of the process before, so that this kills no container
//! of the next one: the lock of a file is the guard's for as long as it lives.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::cgroup::{Cgroup, Place};
use super::place_file;
use crate::clock::now_ms;
use crate::executor::layout::LeaseDir;
use crate::executor::spec::LeaseSpec;
use crate::executor::state::read_json;

/// The guard of an earlier process is gone within this.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);
/// Shortest and longest time between two looks at the end of the window, which may be moved, as the
/// clock may be.
const WATCH: Range<Duration> = Duration::from_millis(500)..Duration::from_secs(60);
/// The lease process ends what runs by itself; it hangs if that has not happened so long after its
/// own patience, ms.
const MARGIN_MS: u64 = 2_000;
/// What cannot be ended is tried again so often: each takes some seconds.
const TRIES: u32 = 20;

/// The guard of a container, as the lease process has it.
pub(super) struct Guard {
    child: Child,
    /// What it waits at the other end of.
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts it: before the lease process has mounts of its own, which it would hold.
    pub(super) fn start(dir: &LeaseDir) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("shim")
            .arg(dir.path())
            .arg("--guard")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            // Locked as long as it is open anywhere.
            .stdout(locked(dir)?)
            .stderr(Stdio::null())
            // Whoever kills the lease process with its group does not kill this.
            .process_group(0)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It has nothing left to do, and no more to say.
        let _ = self.child.wait();
    }
}

fn locked(dir: &LeaseDir) -> io::Result<File> {
    let file = File::create(dir.guard())?;
    let end = Instant::now() + PATIENCE;
    while let Err(error) = file.try_lock() {
        if Instant::now() >= end {
            return Err(error.into());
        }
        thread::sleep(LOOK);
    }
    Ok(file)
}

/// Waits for the end of the lease process or of the window, and kills what is left then.
pub(in crate::executor) fn guard(dir: &LeaseDir) -> io::Result<()> {
    let (gone, ended) = channel::<()>();
    // The command line holds the lock of the library's standard input.
    let mut pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    thread::Builder::new().name("pipe".into()).spawn(move || {
        // Nothing is ever written: this ends with the lease process.
        let _ = pipe.read_to_end(&mut Vec::new());
        drop(gone);
    })?;
    let mut look = WATCH.start;
    while ended.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
        // It may be another one by now, with a later end.
        let spec: Option<LeaseSpec> = read_json(&dir.spec()).ok().flatten();
        let latest_ms = spec.map_or(0, |spec| {
            spec.ends_at_ms.saturating_add(spec.kill_ms).saturating_add(MARGIN_MS)
        });
        let left = Duration::from_millis(latest_ms.saturating_sub(now_ms()));
        if latest_ms > 0 && left.is_zero() {
            break;
        }
        look = left.clamp(WATCH.start, WATCH.end);
    }
    let Some(place) = read_json::<Place>(&place_file(&dir.oci()))? else { return Ok(()) };
    let groups = Cgroup::at(place)?;
    let mut killed = groups.kill();
    for _ in 1..TRIES {
        if killed.is_ok() {
            break;
        }
        killed = groups.kill();
    }
    killed
}
