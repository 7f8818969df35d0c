//! The control groups of one lease: its limits, what it used, its end.
//!
//! Written and read as files, so that every limit is read back: what the kernel did not take is
//! not sold. Version 2 has one directory, version 1 one in each hierarchy. They bear the number
//! of the lease's range of ids, so that making one is what takes the range for this host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Where all control groups are.
const MOUNT: &str = "/sys/fs/cgroup";
/// Above those of all leases of this machine.
const PARENT: &str = "capex";
/// Hierarchies of version 1 whose limits and counters are used.
const V1_NEEDED: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];
/// The one of them in which a range of ids is taken.
const V1_FIRST: &str = "pids";
/// Controllers of version 2 that have to be there.
const V2_NEEDED: [&str; 3] = ["memory", "cpu", "pids"];
/// Ranges of ids of this machine: those between what systems give to their containers and what
/// some programs take for negative.
pub(super) const RANGES: u32 = 4096;
const FIRST_ID: u32 = 0x7000_0000;
pub(super) const RANGE_IDS: u32 = 65_536;
/// Length of a period of processor time, µs.
const PERIOD_US: u64 = 100_000;
/// Killed processes are gone within this.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what was killed.
const LOOK: Duration = Duration::from_millis(2);
/// Devices that a container may open: null, zero, full, random, urandom, tty, console, ptmx, pts.
const DEVICES: [&str; 9] = [
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// What a lease may use at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) memory_bytes: u64,
    /// Thousandths of a processor.
    pub(super) cpu_milli: u64,
    pub(super) processes: u64,
}

/// What a lease may do to its disk in a second, and how much of that each processor brings: as
/// much as clouds give with a small volume, so that no lease takes the machine's disk for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) struct DiskRate {
    pub(in crate::executor) bytes: u64,
    pub(in crate::executor) operations: u64,
}

impl DiskRate {
    const OF_PROCESSOR: Self = Self { bytes: 128 << 20, operations: 4_000 };

    /// Of so many thousandths of a processor.
    pub(in crate::executor) fn of(cpu_milli: u64) -> Self {
        let share = |whole: u64| (whole.saturating_mul(cpu_milli) / 1_000).max(1);
        let Self { bytes, operations } = Self::OF_PROCESSOR;
        Self { bytes: share(bytes), operations: share(operations) }
    }
}

/// What a lease has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) cpu_us: u64,
    pub(super) memory_peak_bytes: u64,
    pub(super) oom_kills: u64,
    /// Time in which it had to wait for processor time, µs.
    pub(super) throttled_us: u64,
}

/// Which version a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The place of a lease: what finds its control groups again, and the ids that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    range: u32,
    name: String,
}

impl Place {
    /// The first of its user and group ids on this machine.
    pub(super) fn first_id(&self) -> u32 {
        FIRST_ID + self.range() * RANGE_IDS
    }

    /// Number of its range of ids, which no other lease of this machine has.
    pub(super) fn range(&self) -> u32 {
        self.range % RANGES
    }

    /// Path from the root of every hierarchy.
    pub(super) fn path(&self) -> String {
        format!("/{PARENT}/{}/{}", self.range, self.name)
    }
}

/// The control groups of a lease.
#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    place: Place,
}

/// Whether this machine has what limits need; else what is missing.
pub(super) fn probe() -> Result<(), String> {
    match version()? {
        Version::V2 => {
            let path = Path::new(MOUNT).join("cgroup.controllers");
            let have = fs::read_to_string(path).unwrap_or_default();
            let lacks =
                V2_NEEDED.iter().find(|name| !have.split_whitespace().any(|one| one == **name));
            lacks.map_or(Ok(()), |name| Err(format!("the cgroup controller {name} is not there")))
        }
        Version::V1 => {
            let lacks = V1_NEEDED.iter().find(|name| !Path::new(MOUNT).join(name).is_dir());
            lacks.map_or(Ok(()), |name| Err(format!("the cgroup hierarchy {name} is not mounted")))
        }
    }
}

/// How the kernel holds the rate at which leases use their disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum DiskRates {
    /// All that they read and write.
    All,
    /// What they read, and what they write past the memory of the machine; not what the kernel
    /// writes later for them.
    Direct,
    None,
}

impl DiskRates {
    /// In words, for the operator.
    pub(in crate::executor) fn name(self) -> &'static str {
        match self {
            Self::All => "of all that a lease reads and writes",
            Self::Direct => {
                "of what a lease reads, and writes past the memory of the machine: what the kernel \
                 writes later has no limit before control groups of version 2"
            }
            Self::None => "none: a lease may take all that the disk gives",
        }
    }
}

/// How this machine holds it.
pub(in crate::executor) fn disk_rates() -> DiskRates {
    match version() {
        Ok(Version::V2) => {
            let have = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers"));
            let has_io = have.unwrap_or_default().split_whitespace().any(|name| name == "io");
            if has_io { DiskRates::All } else { DiskRates::None }
        }
        Ok(Version::V1) if Path::new(MOUNT).join("blkio").is_dir() => DiskRates::Direct,
        Ok(Version::V1) | Err(_) => DiskRates::None,
    }
}

/// Whether a container can see its own groups as files: there is one hierarchy of them.
pub(super) fn is_unified() -> bool {
    version() == Ok(Version::V2)
}

fn version() -> Result<Version, String> {
    if Path::new(MOUNT).join("cgroup.controllers").is_file() {
        return Ok(Version::V2);
    }
    if Path::new(MOUNT).join(V1_FIRST).is_dir() {
        return Ok(Version::V1);
    }
    Err(format!("no control groups are mounted at {MOUNT}"))
}

impl Cgroup {
    /// Takes a range of ids that no lease of this machine has, beginning with the one that its
    /// name leads to. `note` is told of each before it is tried, to be found again.
    pub(super) fn take(name: &str, note: impl Fn(&Place) -> io::Result<()>) -> io::Result<Self> {
        let version = version().map_err(io::Error::other)?;
        let first = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        for step in 0..RANGES {
            let range = first.wrapping_add(step) % RANGES;
            let group = Self { version, place: Place { range, name: name.to_owned() } };
            note(&group.place)?;
            if group.make()? {
                return Ok(group);
            }
        }
        Err(io::Error::other("every range of ids is in use"))
    }

    /// Those of a lease that comes back, with the range of ids that its files have: as they are, or
    /// made again after the machine was started anew. `None` if the range is another lease's by now.
    pub(super) fn again(place: Place) -> io::Result<Option<Self>> {
        let group = Self::at(place)?;
        let path = group.place.path();
        if !group.are_there() {
            return Ok(group.make()?.then_some(group));
        }
        for hierarchy in group.hierarchies() {
            fs::create_dir_all(hierarchy.join(path.trim_start_matches('/')))?;
        }
        Ok(Some(group))
    }

    /// Those that were taken before.
    pub(super) fn at(place: Place) -> io::Result<Self> {
        Ok(Self { version: version().map_err(io::Error::other)?, place })
    }

    /// Whether they are there, and so its range is this lease's.
    pub(super) fn are_there(&self) -> bool {
        self.dir(V1_FIRST).is_dir()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Makes the directories; `false` if another lease has the range.
    fn make(&self) -> io::Result<bool> {
        let range = format!("{PARENT}/{}", self.place.range);
        let first = self.hierarchy(V1_FIRST);
        fs::create_dir_all(first.join(PARENT))?;
        if self.version == Version::V2 {
            self.delegate(Path::new(""))?;
            self.delegate(Path::new(PARENT))?;
        }
        match fs::create_dir(first.join(&range)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.version == Version::V2 {
            self.delegate(Path::new(&range))?;
        }
        for hierarchy in self.hierarchies() {
            fs::create_dir_all(hierarchy.join(&range).join(&self.place.name))?;
        }
        Ok(true)
    }

    /// Lets the groups below one have the controllers.
    fn delegate(&self, group: &Path) -> io::Result<()> {
        let path = Path::new(MOUNT).join(group).join("cgroup.subtree_control");
        let wanted = "+memory +cpu +pids";
        fs::write(&path, wanted).map_err(|error| named(&path, error))?;
        // Counts what devices did where it is to be had.
        let _ = fs::write(&path, "+io");
        Ok(())
    }

    /// Roots of the hierarchies that limits are set in.
    fn hierarchies(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![PathBuf::from(MOUNT)],
            Version::V1 => {
                let all = V1_NEEDED.iter().chain(&["devices", "blkio"]);
                all.map(|name| self.hierarchy(name)).filter(|path| path.is_dir()).collect()
            }
        }
    }

    fn hierarchy(&self, name: &str) -> PathBuf {
        match self.version {
            Version::V2 => PathBuf::from(MOUNT),
            Version::V1 => Path::new(MOUNT).join(name),
        }
    }

    /// The directory of this lease in a hierarchy.
    fn dir(&self, hierarchy: &str) -> PathBuf {
        self.hierarchy(hierarchy).join(self.place.path().trim_start_matches('/'))
    }

    /// Sets the limits, and reads each back.
    pub(super) fn limit(&self, limits: Limits) -> io::Result<()> {
        let quota = limits.cpu_milli.saturating_mul(PERIOD_US) / 1_000;
        let (memory, processes) = (limits.memory_bytes.to_string(), limits.processes.to_string());
        match self.version {
            Version::V2 => {
                self.set("memory", "memory.max", &memory)?;
                self.set_if_there("memory", "memory.swap.max", "0")?;
                self.set("memory", "memory.oom.group", "1")?;
                self.set("cpu", "cpu.max", &format!("{quota} {PERIOD_US}"))?;
            }
            Version::V1 => {
                self.set("memory", "memory.limit_in_bytes", &memory)?;
                // Memory and swap together: no more than memory alone, so no swap.
                self.set_if_there("memory", "memory.memsw.limit_in_bytes", &memory)?;
                self.set_if_there("memory", "memory.swappiness", "0")?;
                self.set("cpu", "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
                self.allow_devices()?;
            }
        }
        self.set("pids", "pids.max", &processes)
    }

    /// Sets the rate at which a block device may be used, where the kernel has such a limit, and
    /// reads it back.
    pub(super) fn limit_disk(&self, device: &str, rate: DiskRate) -> io::Result<()> {
        let DiskRate { bytes, operations } = rate;
        let set = |file: &str, limits: &str| {
            let path = self.dir("blkio").join(file);
            fs::write(&path, format!("{device} {limits}")).map_err(|error| named(&path, error))?;
            let found = fs::read_to_string(&path).map_err(|error| named(&path, error))?;
            let of_device =
                found.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
            let all = of_device.unwrap_or_default();
            match limits.split(' ').all(|limit| all.split_whitespace().any(|one| one == limit)) {
                true => Ok(()),
                false => Err(io::Error::other(format!("{}: {found}", path.display()))),
            }
        };
        match (self.version, disk_rates()) {
            (_, DiskRates::None) => Ok(()),
            (Version::V2, DiskRates::All | DiskRates::Direct) => {
                let limits =
                    format!("rbps={bytes} wbps={bytes} riops={operations} wiops={operations}");
                set("io.max", &limits)
            }
            (Version::V1, DiskRates::All | DiskRates::Direct) => {
                for (kind, most) in [("bps", bytes), ("iops", operations)] {
                    for way in ["read", "write"] {
                        set(&format!("blkio.throttle.{way}_{kind}_device"), &most.to_string())?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Beside the names of devices that a container does not have, and cannot make.
    fn allow_devices(&self) -> io::Result<()> {
        let dir = self.dir("devices");
        if dir.is_dir() {
            fs::write(dir.join("devices.deny"), "a")?;
            for device in DEVICES {
                fs::write(dir.join("devices.allow"), device)?;
            }
        }
        Ok(())
    }

    fn set(&self, hierarchy: &str, file: &str, value: &str) -> io::Result<()> {
        let path = self.dir(hierarchy).join(file);
        fs::write(&path, value).map_err(|error| named(&path, error))?;
        let found = fs::read_to_string(&path).map_err(|error| named(&path, error))?;
        // Memory is limited by whole pages.
        let close = |found: u64, wanted: u64| found <= wanted && wanted - found < 65_536;
        let is_set = found.trim() == value
            || matches!((found.trim().parse(), value.parse()), (Ok(f), Ok(w)) if close(f, w));
        if is_set {
            return Ok(());
        }
        Err(io::Error::other(format!("{}: {} instead of {value}", path.display(), found.trim())))
    }

    fn set_if_there(&self, hierarchy: &str, file: &str, value: &str) -> io::Result<()> {
        if self.dir(hierarchy).join(file).exists() {
            self.set(hierarchy, file, value)
        } else {
            Ok(())
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let stat = self.read("cpu", "cpu.stat");
        match self.version {
            Version::V2 => Counters {
                cpu_us: field(&stat, "usage_usec"),
                memory_peak_bytes: self.number("memory", "memory.peak").unwrap_or_else(|| {
                    // Kernels before 5.19 do not keep the peak.
                    self.number("memory", "memory.current").unwrap_or(0)
                }),
                oom_kills: field(&self.read("memory", "memory.events"), "oom_kill"),
                throttled_us: field(&stat, "throttled_usec"),
            },
            Version::V1 => Counters {
                cpu_us: self.number("cpuacct", "cpuacct.usage").unwrap_or(0) / 1_000,
                memory_peak_bytes: self.number("memory", "memory.max_usage_in_bytes").unwrap_or(0),
                oom_kills: field(&self.read("memory", "memory.oom_control"), "oom_kill"),
                throttled_us: field(&stat, "throttled_time") / 1_000,
            },
        }
    }

    fn read(&self, hierarchy: &str, file: &str) -> String {
        fs::read_to_string(self.dir(hierarchy).join(file)).unwrap_or_default()
    }

    fn number(&self, hierarchy: &str, file: &str) -> Option<u64> {
        self.read(hierarchy, file).trim().parse().ok()
    }

    /// Processes in the group and below it.
    fn processes(&self) -> Vec<i32> {
        let mut all = Vec::new();
        let mut open = vec![self.dir("pids")];
        while let Some(dir) = open.pop() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            open.extend(subgroups(&dir));
        }
        all
    }

    /// Ends every process, and waits until they are gone. A process cannot get away by forking:
    /// all are frozen while they are told.
    pub(super) fn kill(&self) -> io::Result<()> {
        let end = Instant::now() + KILL_PATIENCE;
        loop {
            if self.version == Version::V2
                && fs::write(self.dir("").join("cgroup.kill"), "1").is_ok()
            {
                // The kernel ends them all at once.
            } else {
                self.freeze(true);
                for process in self.processes().into_iter().filter_map(Pid::from_raw) {
                    // One that is gone by now is what is wanted.
                    let _ = kill_process(process, Signal::KILL);
                }
                self.freeze(false);
            }
            if self.processes().is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(io::Error::other(format!(
                    "{} processes do not end",
                    self.processes().len()
                )));
            }
            thread::sleep(LOOK);
        }
    }

    fn freeze(&self, is_frozen: bool) {
        let (path, value) = match (self.version, is_frozen) {
            (Version::V2, true) => (self.dir("").join("cgroup.freeze"), "1"),
            (Version::V2, false) => (self.dir("").join("cgroup.freeze"), "0"),
            (Version::V1, true) => (self.dir("freezer").join("freezer.state"), "FROZEN"),
            (Version::V1, false) => (self.dir("freezer").join("freezer.state"), "THAWED"),
        };
        // Without it a fork bomb takes more rounds, and no other harm is done.
        let _ = fs::write(path, value);
    }

    /// Removes the directories; answers those that stay.
    pub(super) fn remove(&self) -> Vec<String> {
        let roots = match self.version {
            Version::V2 => vec![PathBuf::from(MOUNT)],
            // Whoever joined a process to them made one in each hierarchy that there is.
            Version::V1 => subgroups(Path::new(MOUNT)),
        };
        let mut left = Vec::new();
        for root in roots {
            let inner = root.join(self.place.path().trim_start_matches('/'));
            remove_groups(&inner);
            if inner.exists() {
                left.push(inner.display().to_string());
            } else if let Some(range) = inner.parent() {
                // Stays if it is another lease's by now.
                let _ = fs::remove_dir(range);
            }
        }
        left
    }
}

/// A group is removed with those below it, once their last process is gone; the kernel takes a
/// moment for that.
fn remove_groups(dir: &Path) {
    let end = Instant::now() + KILL_PATIENCE;
    for inner in subgroups(dir) {
        remove_groups(&inner);
    }
    while let Err(error) = fs::remove_dir(dir) {
        if error.kind() == io::ErrorKind::NotFound || Instant::now() >= end {
            return;
        }
        thread::sleep(LOOK);
    }
}

fn subgroups(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
