//! Programs that enter a container, as seen from the lease process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, waitid, waitpid,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::bundle::Program;
use super::enter::{Answer, Request, answer_file, request_file};
use crate::executor::runtimes::{Process, ProcessControl, ProcessIo};

/// Streams of what enters.
pub(super) enum Io {
    /// Output and errors are read, there is no input.
    Output,
    Pipes,
    /// All three are a terminal.
    Terminal(OwnedFd),
}

/// What entered, or why it did not.
pub(super) struct Entered {
    pub(super) answer: Answer,
    /// Our ends: output and errors, and input before them if there is one.
    pub(super) streams: Vec<File>,
}

/// Runs one request in a process of its own, and reads its answer.
pub(super) fn enter(dir: &Path, name: &str, request: &Request, io: Io) -> io::Result<Entered> {
    fs::write(request_file(dir, name), serde_json::to_vec(request)?)?;
    let _ = fs::remove_file(answer_file(dir, name));
    let mut command = Command::new("/proc/self/exe");
    command.arg("shim").arg(dir).args(["--enter", name]).env_clear().current_dir("/");
    match &io {
        Io::Output => {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Io::Pipes => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        Io::Terminal(slave) => {
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
        }
    }
    let mut child = command.spawn()?;
    let streams = streams(&mut child);
    let status = child.wait()?;
    let answer = fs::read(answer_file(dir, name)).ok();
    for file in [request_file(dir, name), answer_file(dir, name)] {
        let _ = fs::remove_file(file);
    }
    let answer = answer.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let answer =
        answer.unwrap_or_else(|| Answer::Failed { why: format!("it ended with {status}") });
    Ok(Entered { answer, streams })
}

fn streams(child: &mut Child) -> Vec<File> {
    let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let output = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let errors = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    [input, output, errors].into_iter().flatten().collect()
}

/// The streams of a program that is being started.
pub(super) struct Started(ProcessIo);

impl Started {
    pub(super) fn of(self, pid: i32) -> Process {
        Process { io: self.0, control: Arc::new(Reaped::new(pid)) }
    }
}

/// What is started beside the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pipes,
    /// With a terminal of so many rows and columns, which belongs to its user.
    Terminal((u16, u16)),
    /// The measurement, which is no program of the image.
    Bench,
}

/// Starts a program beside the workload.
pub(super) fn start(
    dir: &Path,
    program: &Program,
    kind: Kind,
    (first, first_id): (i32, u32),
) -> io::Result<(Answer, Started)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("exec{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let file = dir.join(format!("{name}.json"));
    let owner = first_id + program.uid;
    // Its user is one of the container, which it becomes last.
    let host = Program { uid: 0, gid: 0, groups: Vec::new(), ..program.clone() };
    fs::write(&file, host.process().to_string())?;
    let request = Request::Exec {
        process: file.clone(),
        terminal: matches!(kind, Kind::Terminal(_)),
        bench: kind == Kind::Bench,
        first,
        uid: program.uid,
        gid: program.gid,
        groups: program.groups.clone(),
    };
    let entered = match kind {
        Kind::Pipes | Kind::Bench => enter(dir, &name, &request, Io::Pipes).and_then(|entered| {
            let mut streams = entered.streams.into_iter().map(OwnedFd::from);
            match (streams.next(), streams.next(), streams.next()) {
                (Some(stdin), Some(stdout), Some(stderr)) => {
                    Ok((entered.answer, Started(ProcessIo::Pipes { stdin, stdout, stderr })))
                }
                _ => Err(io::Error::other("a stream is missing")),
            }
        }),
        Kind::Terminal((rows, columns)) => {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(master.as_fd(), size)?;
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            fchown(&slave, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
            let entered = enter(dir, &name, &request, Io::Terminal(slave));
            entered.map(|entered| (entered.answer, Started(ProcessIo::Terminal(master))))
        }
    };
    let _ = fs::remove_file(file);
    entered
}

/// A child, or what a child left: its number is good until its end has been noted.
pub(super) struct Reaped {
    pid: i32,
    is_over: RwLock<bool>,
}

impl Reaped {
    pub(super) fn new(pid: i32) -> Self {
        Self { pid, is_over: RwLock::new(false) }
    }

    /// Does something with the process, which keeps its number meanwhile; `None` if it is gone.
    pub(super) fn while_there<T>(&self, work: impl FnOnce(i32) -> T) -> Option<T> {
        // A panic elsewhere leaves the flag whole.
        let is_over = self.is_over.read().unwrap_or_else(PoisonError::into_inner);
        (!*is_over).then(|| work(self.pid))
    }

    /// Waits for its end.
    pub(super) fn wait(&self) -> io::Result<WaitStatus> {
        let pid = Pid::from_raw(self.pid).ok_or_else(|| io::Error::other("no process"))?;
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(pid), ended) {
            if error != Errno::INTR {
                return Err(error.into());
            }
        }
        *self.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exited() || status.signaled() => return Ok(status),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let sent = self.while_there(|pid| match Pid::from_raw(pid) {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Err(io::Error::other("no process")),
        });
        sent.unwrap_or(Ok(()))
    }
}

/// A program that entered: our child, since its parent is gone.
impl ProcessControl for Reaped {
    fn wait(&self) -> io::Result<i32> {
        let status = Self::wait(self)?;
        let signal = || status.terminating_signal().map(|signal| 128 + signal);
        Ok(status.exit_status().or_else(signal).unwrap_or(-1))
    }

    fn signal(&self, number: u8) -> io::Result<()> {
        let signal = Signal::from_named_raw(i32::from(number));
        Self::signal(self, signal.ok_or_else(|| io::Error::other("no such signal"))?)
    }
}
