//! The child processes: started with an own log, stopped together, never left behind.
//!
//! Three things end a child: this process asks it to (SIGTERM, then SIGKILL), this process
//! is gone and its end of the child's standard input with it, or the child itself.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::broken::Broken;
use crate::cli::failure::Failure;
use crate::cli::up::interrupted;
use capex_core::reason;

/// How long children may take to end before they are killed: a node drains its API for two
/// seconds and flushes its store.
const STOP_TIME: Duration = Duration::from_secs(6);
/// Lines of a log that are shown when its process failed.
const TAIL_LINES: usize = 15;
/// How often the state of a child or of a node is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All children.
#[derive(Debug)]
pub(super) struct Fleet {
    exe: PathBuf,
    home: PathBuf,
    children: Arc<Mutex<Vec<Running>>>,
    interrupted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
}

impl Fleet {
    /// No children yet, all to live below `home`; from now on SIGINT and SIGTERM end the run.
    ///
    /// # Errors
    /// The path of this program is not known.
    pub(super) fn new(home: &Path) -> Result<Self, Broken> {
        let fleet = Self {
            exe: std::env::current_exe()?,
            home: home.to_owned(),
            children: Arc::default(),
            interrupted: Arc::default(),
        };
        fleet.watch_signals()?;
        Ok(fleet)
    }

    /// A call to a node may last long, so children are told at once: that ends the call.
    fn watch_signals(&self) -> Result<(), Broken> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = {
            let _context = runtime.enter();
            interrupted()?
        };
        let (children, flag) = (Arc::clone(&self.children), Arc::clone(&self.interrupted));
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(stop);
            flag.store(true, Ordering::SeqCst);
            for running in lock(&children).iter() {
                terminate(running);
            }
        })?;
        Ok(())
    }

    /// Starts this program again with other arguments.
    ///
    /// # Errors
    /// The log cannot be written, or the process not started.
    pub(super) fn start(&self, name: &str, log: &Path, args: &[&OsStr]) -> Result<(), Broken> {
        let out = File::create(log)?;
        let child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        lock(&self.children).push(Running { name: name.to_owned(), child });
        Ok(())
    }

    /// Runs this program to its end, as its user would.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn run(&self, args: &[&OsStr]) -> Result<Output, Broken> {
        Ok(self.command().args(args).stdin(Stdio::null()).output()?)
    }

    /// This program again. Settings of the caller's environment do not reach it.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.exe);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CAPEX_") {
                command.env_remove(variable);
            }
        }
        command
    }

    /// Nothing has ended that should run.
    ///
    /// # Errors
    /// Interrupted, or which child ended and how.
    pub(super) fn check(&self) -> Result<(), Broken> {
        if self.interrupted.load(Ordering::SeqCst) {
            let stopped = Failure::new(reason!("devnet.interrupted"), "interrupted");
            return Err(stopped.into());
        }
        for running in lock(&self.children).iter_mut() {
            if let Some(status) = running.child.try_wait()? {
                let message = format!("{} ended before the market did: {status}", running.name);
                return Err(Broken::new(reason!("devnet.child_ended"), message).at(&running.name));
            }
        }
        Ok(())
    }

    /// Ends every child and waits for it.
    pub(super) fn stop(&self) {
        let mut children = std::mem::take(&mut *lock(&self.children));
        for running in &mut children {
            drop(running.child.stdin.take());
            terminate(running);
        }
        let deadline = Instant::now() + STOP_TIME;
        for mut running in children {
            while !matches!(running.child.try_wait(), Ok(Some(_))) {
                if Instant::now() >= deadline {
                    // Fails only if the process is gone, which is what is wanted.
                    let _ = running.child.kill();
                    let _ = running.child.wait();
                    break;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        self.stop_leases();
    }

    /// A lease outlives its node on purpose, until its window ends. Here nobody would come
    /// back to it.
    fn stop_leases(&self) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else {
                continue;
            };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0).skip(1);
            let is_shim = words.next() == Some(b"shim".as_slice());
            let dir = words.next().map(|word| Path::new(OsStr::from_bytes(word)));
            if is_shim && dir.is_some_and(|dir| dir.starts_with(&self.home)) {
                // Fails only if the process is gone, which is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(children: &Mutex<Vec<Running>>) -> MutexGuard<'_, Vec<Running>> {
    // A panic elsewhere leaves the list as it was, and children must be ended after all.
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that has been waited for has no pid that could be another's: `Child` keeps it.
fn terminate(running: &Running) {
    let pid = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Fails only if the process is gone, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> Vec<String> {
    let mut last = VecDeque::with_capacity(TAIL_LINES + 1);
    let Ok(file) = File::open(log) else {
        return Vec::new();
    };
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        last.push_back(String::from_utf8_lossy(&line).into_owned());
        if last.len() > TAIL_LINES {
            last.pop_front();
        }
    }
    last.into()
}
