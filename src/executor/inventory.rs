//! What this host has: processors and memory, bounded by the limits of our own cgroup.
//!
//! Both cgroup versions are read (hosts with both are common), and
//! every ancestor counts: the tightest limit holds. Files that are missing limit nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use capex_core::engine::register::Room;
use capex_core::params::Params;

/// A version 1 limit of memory near `i64::MAX` means none.
const V1_UNLIMITED_BYTES: u64 = 1 << 60;
/// Ancestors followed; deeper hierarchies do not exist in practice.
const MAX_DEPTH: usize = 64;

/// What can be sold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HostCapacity {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    /// Whether a cgroup, rather than the machine, is the limit of processors.
    pub cpu_is_limited: bool,
    /// Whether a cgroup, rather than the machine, is the limit of memory.
    pub memory_is_limited: bool,
}

/// Left to the machine itself and to the daemon, of memory and of disk.
const RESERVED_BYTES: u64 = 512 << 20;

impl HostCapacity {
    /// What of it, and of so much free disk, leases may have.
    #[must_use]
    pub fn room(self, disk_free_bytes: u64) -> Room {
        let mib = |bytes: u64| bytes.saturating_sub(RESERVED_BYTES) >> 20;
        Room {
            cpu_milli: self.cpu_milli,
            memory_mib: mib(self.memory_bytes),
            disk_mib: mib(disk_free_bytes),
            gpus: 0,
        }
    }
}

/// What is free of the disk on which a directory lies; its nearest parent that exists counts.
///
/// # Errors
/// The system's.
pub fn free_disk_bytes(dir: &Path) -> std::io::Result<u64> {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// What units for sale need at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub gpus: u64,
}

impl Demand {
    /// Of so many units of some classes, by number.
    #[must_use]
    pub fn of(capacity: &BTreeMap<u16, u32>, params: &Params) -> Self {
        let mut demand = Self::default();
        for (class, units) in capacity {
            let Some(class) = params.class(*class) else { continue };
            let times = |floor: u32| u64::from(floor).saturating_mul(u64::from(*units));
            let bytes = times(class.floors.memory_mib).saturating_mul(1 << 20);
            let gpus = times(u32::from(class.floors.gpus));
            demand.cpu_milli = demand.cpu_milli.saturating_add(times(class.floors.cpu_milli));
            demand.memory_bytes = demand.memory_bytes.saturating_add(bytes);
            demand.gpus = demand.gpus.saturating_add(gpus);
        }
        demand
    }

    /// What of it a host does not have, in words; `None` if it has all.
    #[must_use]
    pub fn beyond(self, host: HostCapacity) -> Option<String> {
        let mut parts = Vec::new();
        if self.cpu_milli > host.cpu_milli {
            let [asked, there] = [self.cpu_milli, host.cpu_milli].map(cpus);
            parts.push(format!("{asked} processors of {there}"));
        }
        if self.memory_bytes > host.memory_bytes {
            let [asked, there] = [self.memory_bytes, host.memory_bytes].map(|bytes| bytes >> 20);
            parts.push(format!("{asked} MiB of memory of {there}"));
        }
        if self.gpus > 0 {
            parts.push(format!("{} GPUs, and leases run on processors alone", self.gpus));
        }
        (!parts.is_empty()).then(|| format!("the units for sale need {}", parts.join(", ")))
    }
}

/// Thousandths of a processor in processors.
#[must_use]
pub fn cpus(milli: u64) -> String {
    format!("{}.{:03}", milli / 1000, milli % 1000)
}

/// Reads the host below a root, `/` but for tests. What cannot be read counts as absent:
/// a host without `/proc` has nothing to sell.
#[must_use]
pub fn read(root: &Path) -> HostCapacity {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let online = cpus_in_list(&text("sys/devices/system/cpu/online"));
    let allowed = allowed_cpus(&text("proc/self/status"));
    let host_milli = online.min(allowed.unwrap_or(online)).saturating_mul(1_000);
    let host_bytes = total_memory(&text("proc/meminfo"));
    let groups = groups(&text("proc/self/cgroup"));
    let quota = lowest(&groups, |group| group.cpu_milli(root));
    let limit = lowest(&groups, |group| group.memory_bytes(root));
    HostCapacity {
        cpu_milli: host_milli.min(quota.unwrap_or(u64::MAX)),
        memory_bytes: host_bytes.min(limit.unwrap_or(u64::MAX)),
        cpu_is_limited: quota.is_some_and(|quota| quota < host_milli),
        memory_is_limited: limit.is_some_and(|limit| limit < host_bytes),
    }
}

fn lowest(groups: &[Group], limit: impl Fn(&Group) -> Option<u64>) -> Option<u64> {
    groups.iter().filter_map(limit).min()
}

/// Our place in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// `None` is version 2.
    controller: Option<String>,
    path: PathBuf,
}

impl Group {
    fn cpu_milli(&self, root: &Path) -> Option<u64> {
        match self.controller.as_deref() {
            None => self.lowest_file(root, "cpu.max", cpu_max_milli),
            Some("cpu") => self.lowest(root, |dir| {
                let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
                let period = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
                cfs_milli(&quota, &period)
            }),
            Some(_) => None,
        }
    }

    fn memory_bytes(&self, root: &Path) -> Option<u64> {
        match self.controller.as_deref() {
            None => self.lowest_file(root, "memory.max", memory_limit),
            Some("memory") => self.lowest_file(root, "memory.limit_in_bytes", memory_limit),
            Some(_) => None,
        }
    }

    fn lowest_file(
        &self,
        root: &Path,
        name: &str,
        parse: impl Fn(&str) -> Option<u64>,
    ) -> Option<u64> {
        self.lowest(root, |dir| parse(&fs::read_to_string(dir.join(name)).ok()?))
    }

    /// The lowest limit from our group up to the root of the hierarchy. Inside a container
    /// the path may be the host's and not exist here: the root alone is then read.
    fn lowest(&self, root: &Path, limit: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
        let mounts = match self.controller.as_deref() {
            None => vec!["sys/fs/cgroup".to_owned(), "sys/fs/cgroup/unified".to_owned()],
            Some(name) => vec![format!("sys/fs/cgroup/{name}")],
        };
        let dirs = self.path.ancestors().take(MAX_DEPTH);
        dirs.flat_map(|dir| mounts.iter().map(move |mount| root.join(mount).join(dir)))
            .filter_map(|dir| limit(&dir))
            .min()
    }
}

/// The lines of cgroups(7) `/proc/self/cgroup`: `id:controller,…:/path`. Paths that would
/// climb are cut to the root.
fn groups(text: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let relative = path.trim_start_matches('/');
        let climbs = relative.split('/').any(|part| part == "..");
        let path = PathBuf::from(if climbs { "" } else { relative });
        if controllers.is_empty() {
            groups.push(Group { controller: None, path });
            continue;
        }
        for controller in controllers.split(',') {
            groups.push(Group { controller: Some(controller.to_owned()), path: path.clone() });
        }
    }
    groups
}

/// `cpu.max` of version 2: `max 100000` or `<quota> <period>`, µs.
fn cpu_max_milli(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cfs_milli(quota, period)
}

/// A quota in each period, µs; version 1 writes −1 for none, version 2 `max`.
fn cfs_milli(quota: &str, period: &str) -> Option<u64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    quota.checked_mul(1_000)?.checked_div(period)
}

/// `memory.max` or `memory.limit_in_bytes`: bytes, or no limit.
fn memory_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < V1_UNLIMITED_BYTES)
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn total_memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

/// `Cpus_allowed_list` of `/proc/self/status`: affinity and cpusets together.
fn allowed_cpus(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(cpus_in_list)
}

/// Processors of a list such as `0-3,7`; parts that are no range count nothing.
fn cpus_in_list(list: &str) -> u64 {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        Some(u64::from(last.checked_sub(first)?) + 1)
    };
    list.trim().split(',').filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_does_not_have_is_named() {
        let host = HostCapacity {
            cpu_milli: 2_000,
            memory_bytes: 1 << 30,
            cpu_is_limited: false,
            memory_is_limited: false,
        };
        let params = crate::definitions::load("devnet").unwrap();
        let table: [(&[(u16, u32)], &str); 5] = [
            (&[], ""),
            (&[(1, 2)], ""),
            (&[(1, 3)], "the units for sale need 3.000 processors of 2.000"),
            (&[(2, 2)], "the units for sale need 2048 MiB of memory of 1024"),
            (&[(99, 1)], ""),
        ];
        for (capacity, words) in table {
            let demand = Demand::of(&capacity.iter().copied().collect(), &params);
            assert_eq!(demand.beyond(host).unwrap_or_default(), words);
        }
        let rich = HostCapacity { cpu_milli: u64::MAX, memory_bytes: u64::MAX, ..host };
        let demand = Demand::of(&BTreeMap::from([(4, 8)]), &params);
        assert!(demand.beyond(rich).unwrap().contains("8 GPUs"), "none can be delivered");
    }

    #[test]
    fn lists_of_processors() {
        for (list, count) in
            [("0", 1), ("0-3", 4), ("0-3,7\n", 5), ("\t0-1", 2), ("", 0), ("x", 0), ("3-1", 0)]
        {
            assert_eq!(cpus_in_list(list), count, "{list:?}");
        }
    }

    #[test]
    fn limits_of_both_versions() {
        let cpu = [
            ("max 100000\n", None),
            ("200000 100000\n", Some(2_000)),
            ("50000 100000", Some(500)),
            ("1 0", None),
            ("", None),
        ];
        for (text, milli) in cpu {
            assert_eq!(cpu_max_milli(text), milli, "{text:?}");
        }
        assert_eq!(cfs_milli("-1\n", "100000\n"), None);
        assert_eq!(cfs_milli("150000\n", "100000\n"), Some(1_500));
        let memory =
            [("max\n", None), ("1048576\n", Some(1 << 20)), ("9223372036854771712\n", None)];
        for (text, bytes) in memory {
            assert_eq!(memory_limit(text), bytes, "{text:?}");
        }
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2 << 20);
        assert_eq!(total_memory("nonsense"), 0);
    }

    #[test]
    fn groups_of_a_hybrid_host() {
        let text = "5:cpu,cpuacct:/a/b\n3:memory:/\n0::/user\n1:pids:/../up\nbroken\n";
        let group = |controller: Option<&str>, path: &str| Group {
            controller: controller.map(str::to_owned),
            path: path.into(),
        };
        assert_eq!(
            groups(text),
            [
                group(Some("cpu"), "a/b"),
                group(Some("cpuacct"), "a/b"),
                group(Some("memory"), ""),
                group(None, "user"),
                group(Some("pids"), ""),
            ]
        );
    }

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let common = [
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("proc/meminfo", "MemTotal: 1048576 kB\n"),
        ];
        for (path, text) in common.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_limit_holds() {
        let bare = host(&[]);
        let v2 = host(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.max", "268435456\n"),
        ]);
        let v1 = host(&[
            ("proc/self/status", "Cpus_allowed_list:\t0-3\n"),
            ("proc/self/cgroup", "4:memory:/x\n2:cpu,cpuacct:/x\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
        ]);
        let expect = |cpu_milli, memory_bytes, cpu_is_limited, memory_is_limited| HostCapacity {
            cpu_milli,
            memory_bytes,
            cpu_is_limited,
            memory_is_limited,
        };
        assert_eq!(read(bare.path()), expect(8_000, 1 << 30, false, false));
        assert_eq!(read(v2.path()), expect(1_500, 256 << 20, true, true));
        assert_eq!(read(v1.path()), expect(4_000, 512 << 20, false, true));
    }

    #[test]
    fn this_host_has_something() {
        let own = read(Path::new("/"));
        assert!(own.cpu_milli > 0 && own.memory_bytes > 0, "{own:?}");
    }
}
