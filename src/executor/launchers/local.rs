//! Lease processes as children of the daemon, which they outlive.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Launched, Launcher, ProcessId};
use crate::executor::error::{At, ExecutorError};
use crate::executor::layout::LeaseDir;
use crate::executor::spec::{Secrets, secrets_text};
use crate::executor::state::{Record, read_json};

/// Starts the program itself, with the subcommand `shim`.
pub(in crate::executor) struct Local {
    exe: PathBuf,
}

impl Local {
    /// `exe` is the program whose `shim` subcommand is [`crate::executor::shim::run`]: our own.
    pub(in crate::executor) fn new(exe: PathBuf) -> Self {
        Self { exe }
    }
}

impl Launcher for Local {
    fn launch(&self, dir: &Path, secrets: &Secrets) -> Result<Box<dyn Launched>, ExecutorError> {
        let mut command = Command::new(&self.exe);
        command.arg("shim").arg(dir);
        if secrets.is_empty() {
            command.stdin(Stdio::null());
        } else {
            command.arg("--secrets").stdin(Stdio::piped());
        }
        let mut child = command
            .env_clear()
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Neither a key press in the daemon's terminal nor its death reaches it.
            .process_group(0)
            .spawn()
            .at(&self.exe)?;
        if let Some(mut pipe) = child.stdin.take() {
            // A pipe takes them at once. A process that is gone by now is found to be.
            let _ = pipe.write_all(&secrets_text(secrets));
        }
        let id = ProcessId::of(child.id());
        Ok(Box::new(Process { dir: LeaseDir::new(dir.to_owned()), child: Some(child), id }))
    }

    fn adopt(&self, dir: &Path, process: ProcessId) -> Box<dyn Launched> {
        let dir = LeaseDir::new(dir.to_owned());
        Box::new(Process { dir, child: None, id: Some(process) })
    }
}

struct Process {
    dir: LeaseDir,
    /// Ours; absent after a restart of the daemon.
    child: Option<Child>,
    id: Option<ProcessId>,
}

impl Launched for Process {
    fn is_alive(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            if matches!(child.try_wait(), Ok(None)) {
                return true;
            }
            self.child = None;
            // A child that found the lease held by another process leaves it to that one.
            let record: Option<Record> = read_json(&self.dir.state()).ok().flatten();
            self.id = record.and_then(|record| record.shim).or(self.id.take());
        }
        self.id.as_ref().is_some_and(ProcessId::is_alive)
    }

    fn exit(&mut self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.id.as_ref()?.pid).ok().and_then(Pid::from_raw)?;
        let exit = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // Else the number may be another process's.
        self.is_alive().then_some(exit)
    }

    fn kill(&self) {
        if let Some(id) = &self.id {
            id.kill();
        }
    }
}
