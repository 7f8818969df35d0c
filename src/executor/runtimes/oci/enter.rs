//! What becomes a container, or a program in one: a process of its own for each, with one thread,
//! since it is copied while it runs. `capex shim DIR --enter NAME`.
//!
//! The lease process writes the request, starts this one with the streams of the program, and
//! reads the answer once it is gone. The container's first process is then the lease process's
//! child, and stays.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libcontainer::container::Container;
use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use super::bundle::CAPABILITY_SET as CAPABILITIES;
use super::{network, seccomp};
use crate::executor::score::Times;

/// Name of every container in the state of its own lease.
const ID: &str = "lease";
/// What has failed ends within this.
const REAP_TIME: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);
/// As shells have it: the program was found, and cannot be run.
const CANNOT_RUN: i32 = 126;

/// What is to be entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Request {
    /// Makes the container of the bundle, which waits to be started.
    Create,
    /// Starts a program in it.
    Exec {
        /// The `process` of the specification, in a file.
        process: PathBuf,
        /// Its streams are a terminal.
        terminal: bool,
        /// Not the program: the measurement of processor and memory.
        bench: bool,
        /// Process of the container, as the host numbers it, whose users it has.
        first: i32,
        /// User, group and further groups in the container.
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Answer {
    Entered {
        /// The process, as the host numbers it.
        pid: i32,
    },
    /// The program is not in the image, or cannot be run.
    NoProgram {
        why: String,
    },
    Failed {
        why: String,
    },
}

/// Where requests and answers lie.
pub(super) fn request_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.request"))
}

pub(super) fn answer_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.answer"))
}

/// The socket at which a container waits to be started.
pub(super) fn start_socket(dir: &Path) -> (PathBuf, &'static str) {
    (state_dir(dir).join(ID), "notify.sock")
}

/// What the library knows of the container.
pub(super) fn state_dir(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// Does what is asked for. To be called first thing in a process of its own.
pub(in crate::executor) fn run(dir: &Path, name: &str) -> io::Result<()> {
    let request: Request = serde_json::from_slice(&fs::read(request_file(dir, name))?)?;
    // What fails on the way is ours to reap: a container does not end while a process of it that
    // was never waited for is left.
    let own = Pid::from_raw(rustix::process::getpid().as_raw_nonzero().get());
    rustix::process::set_child_subreaper(own)?;
    let answer = match enter(dir, request) {
        Ok(pid) => Answer::Entered { pid },
        Err(why) => {
            reap();
            if why.contains(NOT_FOUND) { Answer::NoProgram { why } } else { Answer::Failed { why } }
        }
    };
    fs::write(answer_file(dir, name), serde_json::to_vec(&answer)?)
}

/// Waits for all children, for a while.
fn reap() {
    let end = Instant::now() + REAP_TIME;
    while Instant::now() < end {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(LOOK),
            // There is none.
            Err(_) => return,
        }
    }
}

/// In the text of an error that passes through the library.
const NOT_FOUND: &str = "no such program in the image";

fn enter(dir: &Path, request: Request) -> Result<i32, String> {
    let text = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    };
    let state = state_dir(dir);
    fs::create_dir_all(&state).map_err(|error| text(&error))?;
    let workload = Workload::of(&request).map_err(|error| text(&error))?;
    let builder = ContainerBuilder::new(ID.to_owned(), SyscallType::default())
        .with_root_path(&state)
        .map_err(|error| text(&error))?
        .with_executor(workload);
    match request {
        Request::Create => {
            let container = builder.as_init(dir).with_systemd(false).build();
            let container = container.map_err(|error| text(&error))?;
            let pid = container.pid().ok_or("the container has no process")?.as_raw();
            network::raise_loopback(pid).map_err(|error| text(&error))?;
            Ok(pid)
        }
        Request::Exec { process, .. } => {
            let mut container = Container::load(state.join(ID)).map_err(|error| text(&error))?;
            if container.status() == ContainerStatus::Created {
                container.set_status(ContainerStatus::Running).save().map_err(|e| text(&e))?;
            }
            let tenant = builder.as_tenant().with_process(Some(process)).with_detach(true);
            Ok(tenant.build().map_err(|error| text(&error))?.as_raw())
        }
    }
}

/// The last step, in the container: the filter of calls, then the program.
#[derive(Clone)]
struct Workload {
    is_terminal: bool,
    is_bench: bool,
    /// For a program that joins: the library leaves it in the host's user namespace.
    user: Option<Arc<User>>,
}

/// Who a program is that joins a container.
struct User {
    namespace: File,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Workload {
    fn of(request: &Request) -> io::Result<Self> {
        let Request::Exec { terminal, bench, first, uid, gid, groups, .. } = request else {
            return Ok(Self { is_terminal: false, is_bench: false, user: None });
        };
        let namespace = File::open(format!("/proc/{first}/ns/user"))?;
        let (uid, gid, groups) = (*uid, *gid, groups.clone());
        let user = Some(Arc::new(User { namespace, uid, gid, groups }));
        Ok(Self { is_terminal: *terminal, is_bench: *bench, user })
    }
}

impl User {
    /// Becomes that user, with the capabilities that the workload has, and no other.
    fn become_it(&self) -> io::Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::User))?;
        for capability in CapabilitySet::all().iter().filter(|one| !CAPABILITIES.contains(*one)) {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        let mut sets = capabilities(None)?;
        sets.permitted &= CAPABILITIES;
        sets.effective &= CAPABILITIES;
        sets.inheritable = CapabilitySet::empty();
        Ok(set_capabilities(None, sets)?)
    }
}

impl Executor for Workload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_deref().unwrap_or_default();
        let (program, args) = args.split_first().ok_or(ExecutorError::InvalidArg)?;
        let env = process.env().clone().unwrap_or_default();
        let env = env.iter().filter_map(|variable| variable.split_once('='));
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ExecutorError::Execution(error);
        if self.is_terminal {
            rustix::process::ioctl_tiocsctty(io::stdin())
                .map_err(|error| failed(Box::new(error)))?;
        }
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(env);
        if let Some(user) = &self.user {
            user.become_it().map_err(|error| failed(Box::new(error)))?;
        }
        seccompiler::apply_filter(&seccomp::filter()).map_err(|error| failed(Box::new(error)))?;
        if self.is_bench {
            let printed = Times::measure().to_bytes();
            let is_heard = io::Write::write_all(&mut io::stdout(), &printed).is_ok();
            std::process::exit(i32::from(!is_heard));
        }
        let error = command.exec();
        // Its streams are the program's own: whoever reads them learns why.
        let _ = io::Write::write_all(
            &mut io::stderr(),
            format!("capex: {program} cannot be run: {error}\n").as_bytes(),
        );
        std::process::exit(CANNOT_RUN)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        if self.is_bench {
            return Ok(());
        }
        let refused = |text: String| ExecutorValidationError::ArgValidationError(text);
        let process = spec.process().as_ref().ok_or_else(|| refused("no process".to_owned()))?;
        let program = process.args().as_ref().and_then(|args| args.first());
        let program = program.ok_or_else(|| refused(format!("{NOT_FOUND}: none")))?;
        let env = process.env().clone().unwrap_or_default();
        let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("");
        let is_there = if program.contains('/') {
            Path::new(program).is_file()
        } else {
            path.split(':').any(|dir| Path::new(dir).join(program).is_file())
        };
        if is_there { Ok(()) } else { Err(refused(format!("{NOT_FOUND}: {program}"))) }
    }

    /// The environment is given to the program alone.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Opens the directory so that its socket is reached by a short path, however long its own is.
pub(super) fn start(dir: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (place, socket) = start_socket(dir);
    let place = File::open(place)?;
    let path = format!("/proc/self/fd/{}/{socket}", place.as_raw_fd());
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    io::Write::write_all(&mut stream, b"start container")
}
