//! What a container is told to be: the configuration that the runtime library reads.
//!
//! Source: OCI Runtime Specification 1.2.

use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::cgroup::{self, Place};

/// Capabilities within the user namespace of the container: what packages need that change
/// owners, drop rights or listen below port 1024.
const CAPABILITIES: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// The same, for the kernel.
pub(super) const CAPABILITY_SET: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);
/// What tells of the machine, or changes it.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Open files of a process: as many as container engines give, if the host's own limit allows.
const OPEN_FILES: u64 = 1 << 20;
const OPEN_FILES_AT_FIRST: u64 = 1024;
/// Where programs are, for an image that does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) command: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) workdir: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: Vec<u32>,
}

impl Program {
    /// As the configuration has it.
    pub(super) fn process(&self) -> Value {
        let mut env = self.env.clone();
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(PATH.to_owned());
        }
        json!({
            "terminal": false,
            "user": {"uid": self.uid, "gid": self.gid, "additionalGids": self.groups},
            "args": self.command,
            "env": env,
            "cwd": self.workdir,
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": rlimits(),
            "noNewPrivileges": true,
        })
    }
}

/// A file or directory of the host that the container sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) from: String,
    pub(super) to: String,
}

/// Writes the configuration into the directory of the bundle.
pub(super) fn write(
    dir: &Path,
    root: &Path,
    place: &Place,
    hostname: &str,
    program: &Program,
    shared: &[Shared],
) -> io::Result<()> {
    let ids = json!([{"containerID": 0, "hostID": place.first_id(), "size": cgroup::RANGE_IDS}]);
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];
    let spec = json!({
        "ociVersion": "1.2.0",
        "root": {"path": root, "readonly": false},
        "hostname": hostname,
        "process": program.process(),
        "mounts": mounts(shared),
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "cgroupsPath": place.path(),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "rootfsPropagation": "private",
        },
    });
    std::fs::write(dir.join("config.json"), spec.to_string())
}

fn mounts(shared: &[Shared]) -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
    ];
    if cgroup::is_unified() {
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
    }
    mounts.extend(shared.iter().map(|Shared { from, to }| {
        json!({"destination": to, "type": "bind", "source": from,
            "options": ["bind", "ro", "nosuid", "nodev"]})
    }));
    mounts
}

/// No limit is above what the host's own processes have: raising one is not every host's right.
fn rlimits() -> Vec<Value> {
    let hard = |resource, wanted: u64| {
        getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted))
    };
    let files = hard(Resource::Nofile, OPEN_FILES);
    vec![
        json!({"type": "RLIMIT_NOFILE", "soft": files.min(OPEN_FILES_AT_FIRST), "hard": files}),
        json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0}),
    ]
}
