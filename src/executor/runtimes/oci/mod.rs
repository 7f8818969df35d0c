//! Containers: an image or a root file system, run in namespaces and control groups of its own.
//!
//! ```text
//! capex shim ── spawns ──▶ capex shim --enter ── becomes ──▶ the container's first process
//!      │  mounts, control groups, streams                       ▲ child of the shim, by adoption
//!      └────────────────────── starts, waits, kills ────────────┘
//! ```
//!
//! The library that makes a container copies its process, which must have one thread for that:
//! so a process of its own does it, and is gone before the workload runs. The mounts belong to
//! the lease process, whose mount namespace nobody shares; the range of user ids and the control
//! groups are found again by a file of the lease's directory. A guard beside the lease process ends
//! what it leaves behind.

mod bundle;
mod cgroup;
mod disk;
pub(in crate::executor) mod enter;
pub(in crate::executor) mod guard;
mod network;
mod outward;
mod process;
mod programs;
mod seccomp;
mod users;

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus};
use serde::{Deserialize, Serialize};

use self::bundle::Program;
use self::cgroup::{Cgroup, Counters, Limits, Place};
pub(in crate::executor) use self::cgroup::{DiskRate, DiskRates, disk_rates};
use self::disk::Disk;
use self::enter::{Answer, Request};
use self::guard::Guard;
pub(in crate::executor) use self::outward::own_addresses;
use self::process::{Kind, Reaped};
use super::{Beside, Exec, Failure, Files, Job, Left, Process, Runtime, Sample, Stop, Within};
use crate::executor::bell::Wake;
use crate::executor::egress::Egress;
use crate::executor::images::{Bounds, Config, ImageError, Layer, Manifest, declared, unpack};
use crate::executor::layout::LeaseDir;
use crate::executor::logs::CappedLog;
use crate::executor::state::{Durability, Outcome, read_json, write_json};
use capex_core::lease::objects::{Payload, Workload};
use capex_core::lease::workload::digest;
use capex_core::limits::IMAGE_MANIFEST_MAX_BYTES;
use capex_core::reason;

/// Processes and threads of one lease.
pub(in crate::executor) const PROCESSES: u64 = 2_048;
/// After the end of a container its streams are read to theirs within this.
const STREAM_PATIENCE: Duration = Duration::from_secs(1);
/// Mounts and loop devices of a process that is gone follow it within this.
const UNDO_PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);
/// Read at once from a stream.
const STREAM_BUFFER_BYTES: usize = 64 << 10;

/// Whether this host can run containers with every limit in force; else what is missing.
///
/// # Errors
/// A sentence for the operator.
pub(in crate::executor) fn probe() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("containers need the superuser, also where control groups are delegated: \
                    nobody else can mount a disk whose size the kernel holds"
            .to_owned());
    }
    if !Path::new("/proc/self/ns/user").exists() {
        return Err("the kernel has no user namespaces".to_owned());
    }
    cgroup::probe()?;
    disk::probe()
}

/// Whether leases of this host can be let out; else what is missing.
///
/// # Errors
/// A sentence for the operator.
pub fn probe_egress() -> Result<(), String> {
    probe().and_then(|()| outward::probe())
}

/// The runtime of one container.
pub(super) struct Oci {
    job: Job,
    home: PathBuf,
    /// What a container is told to be: in memory, since secrets are part of it.
    bundle: PathBuf,
    disk: Disk,
    cgroup: Option<Cgroup>,
    program: Option<Program>,
    first: Option<First>,
    /// A kill was asked for since the last start.
    is_killed: bool,
    /// Processes that had been killed for memory before this run.
    oom_kills_before: u64,
    /// What the control groups had counted before this process.
    before: Counters,
    /// From before the first of its processes until the last is gone.
    guard: Option<Guard>,
}

/// What the disk of a lease was made for, once it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    payload: String,
    /// Whose inputs were laid on it.
    workload: String,
}

impl Made {
    fn of(workload: &Workload) -> Self {
        let payload = Workload::of(workload.payload.clone());
        let digest = |workload| digest(workload).to_string();
        Self { payload: digest(&payload), workload: digest(workload) }
    }
}

/// The first process of a container, which waits to be started, runs, or has ended.
struct First {
    process: Arc<Reaped>,
    ended: Receiver<Option<WaitStatus>>,
    streams: Vec<thread::JoinHandle<()>>,
}

impl Oci {
    /// Takes mounts of its own, and adopts what its children leave: to be called from the main
    /// thread of a lease process.
    pub(super) fn open(job: Job) -> Result<Self, Failure> {
        probe().map_err(Failure::gone)?;
        let own = Pid::from_raw(rustix::process::getpid().as_raw_nonzero().get());
        rustix::process::set_child_subreaper(own)
            .map_err(|error| host("adoption", &error.into()))?;
        let guard = Guard::start(&job.dir).map_err(|error| host("guard", &error))?;
        let home = job.dir.oci();
        disk::own_mounts(&home).map_err(|error| host("mounts", &error))?;
        let disk = Disk::new(home.clone(), job.spec.work_max_bytes);
        let bundle = disk.bundle();
        fs::create_dir_all(&bundle).map_err(|error| host("directory", &error))?;
        let (cgroup, program, first) = (None, None, None);
        let (is_killed, oom_kills_before, before) = (false, 0, Counters::default());
        Ok(Self {
            job,
            home,
            bundle,
            disk,
            cgroup,
            program,
            first,
            is_killed,
            oom_kills_before,
            before,
            guard: Some(guard),
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.job.spec.memory_max_bytes,
            cpu_milli: self.job.spec.cpu_max_milli,
            processes: PROCESSES,
        }
    }

    /// Takes a range of ids and control groups with the limits of the lease.
    fn take_groups(&mut self) -> io::Result<u32> {
        let name: String = self.job.spec.lease_id.to_string().chars().take(16).collect();
        let note = |place: &Place| write_json(&place_file(&self.home), place, Durability::Fsync);
        let cgroup = Cgroup::take(&name, note)?;
        let first_id = cgroup.place().first_id();
        let limited = cgroup.limit(self.limits());
        self.cgroup = Some(cgroup);
        limited.map(|()| first_id)
    }

    /// Takes up the disk and the control groups of a process that is gone; `None` if there are none,
    /// or none that fit.
    fn take_up(&mut self, made: &Made) -> io::Result<Option<u32>> {
        let place = read_json::<Place>(&place_file(&self.home))?;
        let (Some(place), true) = (place, made.payload == Made::of(self.workload()).payload) else {
            return Ok(None);
        };
        let Some(cgroup) = Cgroup::again(place)? else { return Ok(None) };
        let first_id = cgroup.place().first_id();
        self.before = cgroup.counters();
        self.oom_kills_before = self.before.oom_kills;
        let taken = cgroup.kill().and_then(|()| cgroup.limit(self.limits()));
        self.cgroup = Some(cgroup);
        taken.and_then(|()| self.disk.take_up()).map(|()| Some(first_id))
    }

    fn workload(&self) -> &Workload {
        &self.job.spec.workload
    }

    /// The control groups and the disk, those of a process before this one if they are there.
    /// Answers the first of the lease's ids, and whether its inputs are on the disk.
    fn take_disk(&mut self, cancelled: &AtomicBool) -> Result<(u32, bool), Failure> {
        let want = Made::of(self.workload());
        let made: Option<Made> = read_json(&made_file(&self.home)).ok().flatten();
        if let Some(made) = &made {
            match self.take_up(made) {
                Ok(Some(first_id)) => return Ok((first_id, made.workload == want.workload)),
                Ok(None) => {}
                Err(error) => {
                    let text = format!("capex: the disk of this lease is lost: {error}\n");
                    // Told for the holder's good: nothing depends on it.
                    let _ = self.job.logs[1].append(text.as_bytes());
                }
            }
            self.give_back();
        }
        sweep(&self.job.dir);
        fs::create_dir_all(&self.home).map_err(|error| host("directory", &error))?;
        let first_id = self.take_groups().map_err(|error| host("control groups", &error))?;
        self.before = Counters::default();
        self.disk.make().map_err(|error| host("disk", &error))?;
        self.unpack(first_id, cancelled).map_err(of_image)?;
        Ok((first_id, false))
    }

    /// Unpacks what was uploaded.
    fn unpack(&self, first_id: u32, cancelled: &AtomicBool) -> Result<(), ImageError> {
        let (_, layers) = layers(&self.job.dir, &self.job.spec.workload.payload)?;
        let bounds = Bounds { bytes: self.job.spec.work_max_bytes, files: self.disk.files() };
        let is_cancelled = || cancelled.load(Ordering::Relaxed);
        unpack(&layers, &self.disk.image(), bounds, Some(first_id), &is_cancelled).map(drop)
    }

    /// What runs: the workload's word before the image's.
    fn program(&self, config: &Config, root: &Within) -> Result<Program, Failure> {
        let workload = &self.job.spec.workload;
        if workload.egress && self.egress().is_none() {
            // It did when the certificate was taken for it.
            return Err(Failure::gone("this host lets no lease open connections to the outside"));
        }
        let mut env = config.env();
        for (name, value) in self.job.env()? {
            env.retain(|other| other.split('=').next() != Some(name));
            env.push(format!("{name}={value}"));
        }
        let command = config.command(&workload.command).map_err(of_image)?;
        let texts = (root.text("/etc/passwd"), root.text("/etc/group"));
        let ids = users::look_up(config.user(), &texts.0, &texts.1).map_err(of_image)?;
        let workdir = workload.workdir.clone().unwrap_or_else(|| config.workdir().to_owned());
        let workdir = format!("/{}", workdir.trim_start_matches('/'));
        Ok(Program { command, env, workdir, uid: ids.uid, gid: ids.gid, groups: ids.groups })
    }

    /// What the host lets the lease have beyond its own network.
    fn egress(&self) -> Option<Egress> {
        read_json(&self.job.dir.egress()).ok().flatten()
    }

    fn place_inputs(&self, root: &Within, program: &Program, first_id: u32) -> io::Result<()> {
        if let Some(egress) = self.egress().filter(|_| self.workload().egress) {
            let (owner, text) = ((first_id, first_id), egress.resolvers_text());
            root.make_dir("/etc", owner)?;
            root.put("/etc", "resolv.conf", owner, text.as_bytes())?;
        }
        let owner = (first_id + program.uid, first_id + program.gid);
        root.make_dir(&program.workdir, owner)?;
        for input in &self.job.spec.workload.inputs {
            let content = fs::File::open(self.job.dir.blob(&input.digest))?;
            root.put(&program.workdir, &input.name, owner, content)?;
        }
        Ok(())
    }

    fn groups(&self) -> Result<&Cgroup, Failure> {
        self.cgroup.as_ref().ok_or_else(|| Failure::host("not prepared"))
    }

    /// Makes the container, which then waits to be started.
    fn create(&mut self) -> Result<(), Failure> {
        let program = self.program.as_ref().ok_or_else(|| Failure::host("not prepared"))?;
        let hostname: String = self.job.spec.lease_id.to_string().chars().take(12).collect();
        let place = self.groups()?.place().clone();
        // Of a run before.
        let _ = fs::remove_dir_all(enter::state_dir(&self.bundle));
        bundle::write(&self.bundle, &self.disk.root(), &place, &hostname, program, &[])
            .map_err(|error| host("bundle", &error))?;
        let entered = process::enter(&self.bundle, "create", &Request::Create, process::Io::Output)
            .map_err(|error| host("container", &error))?;
        let pid = entered_pid(entered.answer)?;
        let streams = entered
            .streams
            .into_iter()
            .zip(&self.job.logs)
            .map(|(stream, log)| keep(stream, log.clone()))
            .collect::<io::Result<_>>()
            .map_err(|error| host("streams", &error))?;
        let process = Arc::new(Reaped::new(pid));
        let ended =
            await_end(&process, &self.job.wake).map_err(|error| host("container", &error))?;
        self.first = Some(First { process, ended, streams });
        if self.workload().egress {
            // Noted first, to be found again.
            fs::write(outward_file(&self.home), "").map_err(|error| host("way out", &error))?;
            outward::connect(place.range(), pid).map_err(|error| host("way out", &error))?;
        }
        Ok(())
    }

    /// What the end of the first process says of the workload.
    fn concluded(&mut self, status: Option<WaitStatus>) -> Outcome {
        if let Some(first) = self.first.take() {
            let end = Instant::now() + STREAM_PATIENCE;
            while !first.streams.iter().all(thread::JoinHandle::is_finished) && Instant::now() < end
            {
                thread::sleep(LOOK);
            }
        }
        self.keep_results();
        let oom_kills = self.cgroup.as_ref().map_or(0, |groups| groups.counters().oom_kills);
        let is_oom = oom_kills > self.oom_kills_before;
        self.oom_kills_before = oom_kills;
        let Some(status) = status else {
            return Outcome::failed("the end of the container is not known");
        };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Outcome::Exited { code },
            (None, _) if self.is_killed => Outcome::Stopped,
            (None, _) if is_oom => Outcome::Memory,
            (None, Some(signal)) => Outcome::Exited { code: 128 + signal },
            (None, None) => Outcome::failed("the container ended in an unknown way"),
        }
    }

    /// Copies the files that its holder asked for to where they are read.
    fn keep_results(&self) {
        let Some(program) = &self.program else { return };
        let Ok(root) = Within::open(&self.disk.root()) else { return };
        let mut left = self.job.spec.work_max_bytes;
        for name in &self.job.spec.workload.results {
            let path = format!("{}/{name}", program.workdir);
            // What is not there, or not a file, is no result.
            if let Ok(bytes) = root.take(&path, &self.job.dir.work().join(name), left) {
                left = left.saturating_sub(bytes);
            }
        }
    }
}

impl Runtime for Oci {
    fn prepare(&mut self, cancelled: &AtomicBool) -> Result<(), Failure> {
        let (first_id, has_inputs) = self.take_disk(cancelled)?;
        let (config, _) = layers(&self.job.dir, &self.workload().payload).map_err(of_image)?;
        self.disk.overlay(first_id).map_err(|error| host("overlay", &error))?;
        let rate = DiskRate::of(self.job.spec.cpu_max_milli);
        let device = self.disk.device().map_err(|error| host("disk", &error))?;
        self.groups()?.limit_disk(&device, rate).map_err(|error| host("disk", &error))?;
        let root = Within::open(&self.disk.root()).map_err(|error| host("root", &error))?;
        let program = self.program(&config, &root)?;
        if !has_inputs {
            self.place_inputs(&root, &program, first_id).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull => of_image(ImageError::NoRoom),
                _ => host("inputs", &error),
            })?;
            let made = Made::of(self.workload());
            let kept = self.disk.sync();
            kept.and_then(|()| write_json(&made_file(&self.home), &made, Durability::Fsync))
                .map_err(|error| host("disk", &error))?;
        }
        self.program = Some(program);
        if cancelled.load(Ordering::Relaxed) {
            return Err(Failure::Cancelled);
        }
        self.create()
    }

    fn run(&mut self) -> Result<(), Failure> {
        if self.first.is_none() {
            self.create()?;
        }
        self.is_killed = false;
        enter::start(&self.bundle).map_err(|error| host("start", &error))
    }

    fn ended(&mut self) -> Option<Outcome> {
        let first = self.first.as_ref()?;
        match first.ended.try_recv() {
            Ok(status) => Some(self.concluded(status)),
            Err(TryRecvError::Disconnected) => Some(self.concluded(None)),
            Err(TryRecvError::Empty) => None,
        }
    }

    fn beside(&self) -> Option<Arc<dyn Beside>> {
        let (first, program) = (self.first.as_ref()?, self.program.clone()?);
        let first_id = self.cgroup.as_ref()?.place().first_id();
        let (bundle, first) = (self.bundle.clone(), Arc::clone(&first.process));
        let mounts = disk::mounts().ok()?;
        Some(Arc::new(Run { bundle, program, first_id, mounts, first }))
    }

    fn files(&self) -> io::Result<Files> {
        let unprepared = || io::Error::other("not prepared");
        let program = self.program.as_ref().ok_or_else(unprepared)?;
        let first_id = self.cgroup.as_ref().ok_or_else(unprepared)?.place().first_id();
        let root = Within::open(&self.disk.root())?;
        let (workdir, owner) = (program.workdir.clone(), (program.uid, program.gid));
        Ok(Files { root, workdir, owner, first_id, is_writable: true })
    }

    fn sample(&mut self) -> Sample {
        let Some(groups) = &self.cgroup else { return Sample::default() };
        let counters = groups.counters();
        Sample {
            cpu_us: counters.cpu_us.saturating_sub(self.before.cpu_us),
            memory_peak_bytes: counters.memory_peak_bytes,
            memory_denied: counters.oom_kills.saturating_sub(self.before.oom_kills),
            throttled_us: counters.throttled_us.saturating_sub(self.before.throttled_us),
            work_bytes: self.disk.used_bytes(),
        }
    }

    fn stop(&mut self, how: Stop) {
        match how {
            Stop::Signal => {
                let number = i32::from(self.job.spec.workload.stop_signal);
                let signal = Signal::from_named_raw(number).unwrap_or(Signal::TERM);
                if let Some(first) = &self.first {
                    // It may end between two looks, which is what was wanted.
                    let _ = first.process.signal(signal);
                }
            }
            Stop::Kill => {
                self.is_killed = true;
                // What does not end now is tried again at the release.
                let _ = self.cgroup.as_ref().map(Cgroup::kill);
            }
        }
    }

    fn release(&mut self) -> Vec<Left> {
        let left = self.give_back();
        self.guard = None;
        left
    }
}

impl Oci {
    fn give_back(&mut self) -> Vec<Left> {
        let mut left = Vec::new();
        if let Some(groups) = self.cgroup.take() {
            left.extend(given_back(&self.home, &groups));
        }
        self.first = None;
        self.disk.unmount();
        left.extend(without_loops(&self.disk));
        if left.is_empty() && self.home.exists() && fs::remove_dir_all(&self.home).is_err() {
            left.push(self.home.display().to_string());
        }
        left
    }
}

/// One run of a container.
struct Run {
    bundle: PathBuf,
    program: Program,
    first_id: u32,
    /// Of the lease process: the library looks for the root of the container.
    mounts: fs::File,
    first: Arc<Reaped>,
}

impl Run {
    fn over() -> Failure {
        Failure::workload(reason!("lease.not_running"), "the workload has ended")
    }

    /// Starts a program in the container, which is entered by the number of its first process.
    fn enter(&self, program: &Program, kind: Kind) -> Result<Process, Failure> {
        let started = self.first.while_there(|first| {
            let ids = (first, self.first_id);
            let start = || process::start(&self.bundle, program, kind, ids);
            disk::with_mounts(&self.mounts, start)
        });
        let (answer, process) =
            started.ok_or_else(Self::over)?.map_err(|error| host("program", &error))?;
        Ok(process.of(entered_pid(answer)?))
    }
}

impl Beside for Run {
    fn exec(&self, exec: &Exec) -> Result<Process, Failure> {
        let mut program = self.program.clone();
        program.command.clone_from(&exec.command);
        if let Some(workdir) = &exec.workdir {
            program.workdir.clone_from(workdir);
        }
        for (name, value) in &exec.env {
            program.env.retain(|other| other.split('=').next() != Some(name));
            program.env.push(format!("{name}={value}"));
        }
        self.enter(&program, exec.terminal.map_or(Kind::Pipes, Kind::Terminal))
    }

    /// The measurement needs nothing of the image: it runs in the process that enters.
    fn bench(&self) -> Result<Process, Failure> {
        let command = vec!["capex-bench".to_owned()];
        self.enter(&Program { command, ..self.program.clone() }, Kind::Bench)
    }

    fn dial(&self, port: u16) -> Result<OwnedFd, Failure> {
        let network = self.first.while_there(network::of).ok_or_else(Self::over)?;
        let network = network.map_err(|_| Self::over())?;
        network::dial(&network, port).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => {
                Failure::workload(reason!("access.no_listener"), error.to_string())
            }
            _ => host("port", &error),
        })
    }
}

/// Gives back what a lease process had that is gone, by its directory alone.
pub(super) fn sweep(dir: &LeaseDir) -> Vec<Left> {
    let home = dir.oci();
    if !home.exists() {
        return Vec::new();
    }
    let mut left = Vec::new();
    if let Ok(Some(place)) = read_json::<Place>(&place_file(&home)) {
        match Cgroup::at(place) {
            Ok(groups) => left.extend(given_back(&home, &groups)),
            Err(error) => left.push(error.to_string()),
        }
    }
    left.extend(without_loops(&Disk::new(home.clone(), 0)));
    if left.is_empty() && fs::remove_dir_all(&home).is_err() {
        left.push(home.display().to_string());
    }
    left
}

/// Ends all processes, takes back their way out and then the groups: those have the range of ids
/// after which the way out is named.
fn given_back(home: &Path, groups: &Cgroup) -> Vec<Left> {
    let mut left: Vec<Left> =
        groups.kill().err().map(|error| error.to_string()).into_iter().collect();
    // Without its groups the range may be another lease's by now.
    if outward_file(home).exists() && groups.are_there() {
        left.extend(outward::disconnect(groups.place().range()));
    }
    left.extend(groups.remove());
    left
}

/// Ends what a lease process has left that is gone, and waits until the kernel has let go of its
/// disk, which the next one takes up.
pub(super) fn rescue(dir: &LeaseDir) -> Vec<Left> {
    let home = dir.oci();
    if !home.exists() {
        return Vec::new();
    }
    let place = read_json::<Place>(&place_file(&home)).ok().flatten();
    let killed = place.map(|place| Cgroup::at(place).and_then(|groups| groups.kill()));
    let left = match killed {
        Some(Err(error)) => vec![error.to_string()],
        Some(Ok(())) | None => Vec::new(),
    };
    [left, without_loops(&Disk::new(home, 0))].concat()
}

/// Waits a moment for loop devices to follow their mounts; answers those that stay.
fn without_loops(disk: &Disk) -> Vec<Left> {
    let end = Instant::now() + UNDO_PATIENCE;
    loop {
        let left = disk.left();
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        thread::sleep(LOOK);
    }
}

fn place_file(home: &Path) -> PathBuf {
    home.join("place.json")
}

/// There if the lease has, or had, a way out.
fn outward_file(home: &Path) -> PathBuf {
    home.join("outward")
}

fn made_file(home: &Path) -> PathBuf {
    home.join("made.json")
}

/// What is unpacked of a payload, lowest first, and what it wants to be run as.
fn layers(dir: &LeaseDir, payload: &Payload) -> Result<(Config, Vec<Layer>), ImageError> {
    let read = |digest| {
        let mut bytes = Vec::new();
        let read = fs::File::open(dir.blob(digest))
            .and_then(|file| file.take(IMAGE_MANIFEST_MAX_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|source| ImageError::Io { what: digest.to_string(), source })?;
        Ok::<_, ImageError>(bytes)
    };
    match payload {
        Payload::Wasm { .. } => Err(ImageError::Format("a component".to_owned())),
        Payload::Rootfs { archive } => {
            let layer = Layer { file: dir.blob(&archive.digest), diff_id: None };
            Ok((Config::default(), vec![layer]))
        }
        Payload::Oci { manifest, blobs } => {
            let manifest = Manifest::parse(&read(&manifest.digest)?)?;
            declared(&manifest, blobs.iter().map(|blob| (blob.digest, blob.bytes)))?;
            let config = Config::parse(&read(&manifest.config.digest)?)?;
            let diff_ids = config.diff_ids();
            if diff_ids.len() != manifest.layers.len() {
                return Err(ImageError::Undeclared);
            }
            let layers = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
                file: dir.blob(&layer.digest),
                diff_id: Some(diff_id),
            });
            Ok((config, layers.collect()))
        }
    }
}

/// Copies a stream into its log until it ends.
fn keep(mut stream: fs::File, log: CappedLog) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("stream".into()).spawn(move || {
        let mut buffer = vec![0; STREAM_BUFFER_BYTES];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            if log.append(&buffer[..read]).is_err() {
                // Without its log the workload still has somebody who reads.
                continue;
            }
        }
    })
}

/// Waits for the end of a child on a thread of its own.
fn await_end(process: &Arc<Reaped>, wake: &Wake) -> io::Result<Receiver<Option<WaitStatus>>> {
    let (ended, receiver) = channel();
    let (process, wake) = (Arc::clone(process), wake.clone());
    thread::Builder::new().name("wait".into()).spawn(move || {
        // Nobody listens any more only if the process is ending.
        let _ = ended.send(process.wait().ok());
        wake.up();
    })?;
    Ok(receiver)
}

fn entered_pid(answer: Answer) -> Result<i32, Failure> {
    match answer {
        Answer::Entered { pid } => Ok(pid),
        Answer::NoProgram { why } => Err(Failure::workload(reason!("image.no_program"), why)),
        Answer::Failed { why } => Err(Failure::host(why)),
    }
}

fn of_image(error: ImageError) -> Failure {
    match &error {
        ImageError::Io { what, source } => Failure::io(what, source),
        ImageError::Cancelled => Failure::Cancelled,
        _ => Failure::workload(error.reason(), error.to_string()),
    }
}

fn host(what: &str, error: &io::Error) -> Failure {
    Failure::io(what, error)
}
