//! What is done beside a workload, from threads that are not the one that watches over it: the
//! window ends on time, whatever a program takes to start or a port to answer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Failure;
use super::within::Within;

/// Programs and ports beside one run of a workload. It takes none once the run is over.
pub(in crate::executor) trait Beside: Send + Sync {
    /// Starts another program.
    ///
    /// # Errors
    /// `image.no_program`, or what the host made of it.
    fn exec(&self, exec: &Exec) -> Result<Process, Failure>;

    /// Starts the measurement of processor and memory, which prints what came of it.
    ///
    /// # Errors
    /// What the host made of it.
    fn bench(&self) -> Result<Process, Failure>;

    /// Connects to a port inside the workload's network.
    ///
    /// # Errors
    /// `access.no_listener`, or what the host made of it.
    fn dial(&self, port: u16) -> Result<OwnedFd, Failure>;
}

/// A program to run beside the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) struct Exec {
    pub(in crate::executor) command: Vec<String>,
    /// Beside the variables of the workload.
    pub(in crate::executor) env: Vec<(String, String)>,
    pub(in crate::executor) workdir: Option<String>,
    /// Rows and columns, if it gets a terminal.
    pub(in crate::executor) terminal: Option<(u16, u16)>,
}

/// A program that was started beside the workload.
pub(in crate::executor) struct Process {
    pub(in crate::executor) io: ProcessIo,
    pub(in crate::executor) control: Arc<dyn ProcessControl>,
}

/// The ends of its streams that are ours.
pub(in crate::executor) enum ProcessIo {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The master side of its terminal, which also takes a new size.
    Terminal(OwnedFd),
}

/// A handle to it.
pub(in crate::executor) trait ProcessControl: Send + Sync {
    /// Waits for its end and answers its exit code; 128 and the number of a signal that ended it.
    /// To be called once.
    fn wait(&self) -> io::Result<i32>;

    /// Sends it a signal; none once it has ended.
    fn signal(&self, number: u8) -> io::Result<()>;
}

/// Files of a lease, which outlast the runs of its workload.
#[derive(Debug)]
pub(in crate::executor) struct Files {
    pub(in crate::executor) root: Within,
    /// Where relative paths begin: where the workload works.
    pub(in crate::executor) workdir: String,
    /// User and group of what is made, within the lease.
    pub(in crate::executor) owner: (u32, u32),
    /// As the host numbers the first user of the lease.
    pub(in crate::executor) first_id: u32,
    /// Whether the kernel holds the quota of what is written.
    pub(in crate::executor) is_writable: bool,
}

impl Files {
    /// From the root on.
    pub(in crate::executor) fn path(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.workdir) }
    }

    /// Owner of what is made, as the host numbers it.
    pub(in crate::executor) fn host_owner(&self) -> (u32, u32) {
        (self.first_id + self.owner.0, self.first_id + self.owner.1)
    }
}
