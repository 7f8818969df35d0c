//! Containers on this host, as the superuser: real lease processes, and busybox for an image.
//!
//! Without the superuser or busybox each test says that it was skipped; in CI that is a failure.
#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use capex::executor::{EVENT_QUEUE, Ended, LeaseEvent, LeaseSpec, Manager, Outcome, State};
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{Content, InputFile, Payload, Stream, Workload};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};

mod access;
mod crashes;
mod image;
mod outward;
mod ssh;

use image::{busybox, rootfs};

/// Longer than a debug build needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// A window that tests which end by themselves never reach.
const LONG_MS: u64 = 300_000;
const KILL_MS: u64 = 5_000;
const MEMORY_BYTES: u64 = 64 << 20;
const DISK_BYTES: u64 = 64 << 20;

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

struct Host {
    dir: TempDir,
    manager: Manager,
    _events: Receiver<LeaseEvent>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As a data directory is: closed to all but its owner.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self::in_dir(dir)
    }

    fn in_dir(dir: TempDir) -> Self {
        let (sender, events) = channel(EVENT_QUEUE);
        let shim = PathBuf::from(env!("CARGO_BIN_EXE_capex"));
        let manager = Manager::new(&dir.path().join("leases"), shim, sender).unwrap();
        Self { dir, manager, _events: events }
    }

    fn lease_dir(&self, lease: &LeaseId) -> PathBuf {
        self.dir.path().join("leases").join(lease.to_string())
    }

    async fn start(&self, spec: LeaseSpec, contents: &[&[u8]]) -> LeaseId {
        let lease = spec.lease_id;
        self.manager.prepare(spec).await.unwrap();
        for bytes in contents {
            let mut offset = 0;
            for chunk in bytes.chunks(256 << 10) {
                let put = self.manager.put(&lease, digest(bytes), offset, chunk).await.unwrap();
                offset = put.received;
            }
        }
        self.manager.start(&lease).await.unwrap();
        lease
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Manager) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(&self.manager) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(&self, lease: &LeaseId) -> Ended {
        let over = |manager: &Manager| match manager.state(lease).unwrap() {
            State::Ended(ended) => Some(Some(ended)),
            State::Exited { .. } => Some(None),
            _ => None,
        };
        if let Some(ended) = self.until("the end", over).await {
            return ended;
        }
        // What is over before its window is not waited for.
        self.manager.stop(lease, "it is over").await.unwrap();
        self.until("the end", |manager| match manager.state(lease).unwrap() {
            State::Ended(ended) => Some(ended),
            _ => None,
        })
        .await
    }

    fn log(&self, lease: &LeaseId, stream: Stream) -> String {
        let log = self.manager.read_log(lease, stream, 0, usize::MAX).unwrap();
        String::from_utf8_lossy(&log.bytes).into_owned()
    }

    /// Runs a script to its end.
    async fn script(&self, busybox: &[u8], script: &str) -> (LeaseId, Ended, String) {
        let image = rootfs(busybox);
        let spec = spec(&image, script, LONG_MS);
        let lease = self.start(spec, &[&image, INPUT]).await;
        let ended = self.end(&lease).await;
        let printed = self.log(&lease, Stream::Stdout) + &self.log(&lease, Stream::Stderr);
        (lease, ended, printed)
    }

    async fn release(&self, lease: &LeaseId) {
        let proof = self.manager.release(lease).await.unwrap();
        assert_eq!(proof.left_behind, Vec::<String>::new());
        assert_eq!(left_of(self.dir.path(), lease), Vec::<String>::new());
    }
}

const INPUT: &[u8] = b"10 20\n30 and 40";

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn spec(image: &[u8], script: &str, window_ms: u64) -> LeaseSpec {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = now_ms();
    let id = format!("{number} {now} {}", std::process::id());
    let archive = Content { digest: digest(image), bytes: image.len() as u64 };
    let input =
        InputFile { name: "input.txt".into(), digest: digest(INPUT), bytes: INPUT.len() as u64 };
    let workload = Workload {
        command: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
        inputs: vec![input],
        results: vec!["result.txt".into()],
        workdir: Some("/home".into()),
        ..Workload::of(Payload::Rootfs { archive })
    };
    LeaseSpec {
        lease_id: LeaseId(Sha256::digest(id).into()),
        workload,
        order: 1,
        starts_at_ms: now,
        ends_at_ms: now + window_ms,
        cpu_max_milli: 500,
        memory_max_bytes: MEMORY_BYTES,
        output_max_bytes: 1 << 20,
        work_max_bytes: DISK_BYTES,
        kill_ms: KILL_MS,
    }
}

/// What a lease left on the machine: loop devices, mounts, control groups.
fn left_of(dir: &Path, lease: &LeaseId) -> Vec<String> {
    let dir = dir.display().to_string();
    let mut left = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap() {
        let path = entry.unwrap().path().join("loop/backing_file");
        let backing = fs::read_to_string(&path).unwrap_or_default();
        left.extend(backing.contains(&dir).then(|| format!("{}: {backing}", path.display())));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
    let name: String = lease.to_string().chars().take(16).collect();
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    for hierarchy in below("/sys/fs/cgroup".into()).chain(below("/sys/fs".into())) {
        let ranges = below(hierarchy.path().join("capex"));
        let groups = ranges.map(|range| range.path().join(&name)).filter(|path| path.exists());
        left.extend(groups.map(|path| path.display().to_string()));
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_prints_ends_with_its_code_and_leaves_its_results() {
    let Some(busybox) = busybox("a_container_prints") else { return };
    let host = Host::new();
    let script = "echo hello; echo oops >&2; pwd; cat input.txt > result.txt; exit 7";
    let (lease, ended, printed) = host.script(&busybox, script).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 7 }, "{printed}");
    assert_eq!(printed, "hello\n/home\noops\n");
    assert!(ended.cpu_us > 0 && ended.memory_peak_bytes > 0, "{ended:?}");
    let result = host.manager.read_result(&lease, "result.txt", 0, 1 << 10).unwrap();
    assert_eq!(result.bytes, INPUT);
    host.release(&lease).await;
    assert!(!host.lease_dir(&lease).exists());
}

/// What a container is confined by, as its own processes see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_alone_and_has_no_rights() {
    let Some(busybox) = busybox("a_container_is_alone") else { return };
    let host = Host::new();
    let script = "b=/bin/busybox
        $b grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status
        $b cat /proc/self/uid_map
        $b ls /proc | $b grep -c '^[0-9]'
        $b cat /proc/net/dev | $b grep -c :
        $b ping -c 1 127.0.0.1 >/dev/null 2>&1; echo ping $?
        $b mount -t tmpfs x /tmp 2>/dev/null && echo mounted
        $b unshare -U /bin/sh -c true 2>/dev/null && echo unshared
        $b mknod /tmp/sda b 8 0 2>/dev/null && echo made
        $b hostname other 2>/dev/null && echo renamed
        echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo wrote
        echo x > /proc/sysrq-trigger 2>/dev/null && echo wrote
        $b cat /proc/kcore >/dev/null 2>&1 && $b wc -c < /proc/kcore
        $b nc -l -p 80 127.0.0.1 >/tmp/got 2>&1 &
        i=0; until echo loop | $b nc 127.0.0.1 80 2>/dev/null || [ $i -gt 200 ]
        do i=$((i+1)); $b sleep 0.1; done; wait; $b cat /tmp/got
        $b ls -l /bin/busybox | $b cut -c1-10
        ulimit -n; $b id -u";
    let (lease, ended, printed) = host.script(&busybox, script).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 }, "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.contains(&"NoNewPrivs:\t1") && lines.contains(&"Seccomp:\t2"), "{printed}");
    let capabilities = lines.iter().filter(|line| line.starts_with("Cap"));
    for line in capabilities {
        let bits = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // Nothing of the machine: no mounts, no modules, no devices, no raw network.
        for forbidden in [12, 13, 16, 17, 19, 21, 22, 25, 27, 38, 39] {
            assert_eq!(bits >> forbidden & 1, 0, "{line}");
        }
    }
    let map: Vec<u64> = lines
        .iter()
        .find(|line| line.trim_start().starts_with("0 "))
        .unwrap()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert!(map[1] >= 0x7000_0000 && map[2] == 65_536, "{printed}");
    for word in ["mounted", "unshared", "made", "renamed", "wrote"] {
        assert!(!lines.contains(&word), "{word}: {printed}");
    }
    assert!(lines.contains(&"loop"), "the loopback is down: {printed}");
    assert!(lines.contains(&"-rwxr-xr-x"), "{printed}");
    host.release(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_holds() {
    let Some(busybox) = busybox("every_limit_holds") else { return };
    let host = Host::new();
    let memory =
        "x=$(/bin/busybox head -c 200000000 /dev/zero | /bin/busybox tr '\\0' x); echo ${#x}";
    let (lease, ended, printed) = host.script(&busybox, memory).await;
    // What the kernel killed is a process of the script, or the script itself.
    let is_killed = ended.outcome == Outcome::Memory || !printed.contains("200000000");
    assert!(is_killed, "{ended:?}: {printed}");
    assert!(ended.memory_peak_bytes <= MEMORY_BYTES, "{ended:?}");
    host.release(&lease).await;

    // Of the program alone: what it takes to make a container depends on the machine.
    let busy =
        "/bin/busybox time /bin/busybox timeout 4 /bin/busybox sh -c 'while :; do :; done'; :";
    let (lease, _, printed) = host.script(&busybox, busy).await;
    let of =
        |kind| printed.lines().find_map(|line| line.strip_prefix(kind)?.trim().strip_prefix("0m "));
    let used = ["user", "sys"].map(|kind| of(kind).unwrap().trim_end_matches('s').parse::<f64>());
    let used: f64 = used.into_iter().map(Result::unwrap).sum();
    assert!(used < 3.0, "half a processor of four seconds: {printed}");
    host.release(&lease).await;

    let disk =
        "/bin/busybox dd if=/dev/zero of=/big bs=1M count=200 2>&1; /bin/busybox wc -c < /big";
    let (lease, ended, printed) = host.script(&busybox, disk).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 });
    assert!(printed.contains("No space left"), "{printed}");
    let written: u64 = printed.lines().last().unwrap().trim().parse().unwrap();
    assert!(written < DISK_BYTES, "{printed}");
    host.release(&lease).await;

    let forks = "i=0; while [ $i -lt 3000 ]; do /bin/busybox sleep 60 & i=$((i+1)); done; echo all";
    let (lease, ended, printed) = host.script(&busybox, forks).await;
    assert!(!printed.contains("all"), "{ended:?} {printed}");
    host.release(&lease).await;
}

/// Nothing that ignores being told to end outlives its window.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_with_its_window() {
    let Some(busybox) = busybox("a_fork_bomb_ends") else { return };
    let host = Host::new();
    let image = rootfs(&busybox);
    let script = "trap '' TERM INT HUP; echo begun
        i=0; while [ $i -lt 40 ]; do (trap '' TERM; while :; do :; done) & i=$((i+1)); done; wait";
    // Long enough for a machine that is played by another.
    let begun = Instant::now();
    let (first, ..) = host.script(&busybox, "echo ready").await;
    host.release(&first).await;
    let ready_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
    let spec = spec(&image, script, 5_000 + 3 * ready_ms);
    let ends_at_ms = spec.ends_at_ms;
    let lease = host.start(spec, &[&image, INPUT]).await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Deadline, "{}", host.log(&lease, Stream::Stderr));
    let late_ms = ended.ended_at_ms.saturating_sub(ends_at_ms);
    assert!(late_ms < 1_000, "{late_ms} ms late");
    host.release(&lease).await;
}

/// What cannot be run says why, and leaves nothing either.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_has_a_code() {
    let Some(busybox) = busybox("what_cannot_be_run") else { return };
    let host = Host::new();
    let image = rootfs(&busybox);
    let noise = vec![7; 10_000];
    let mut device = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Block);
    header.set_size(0);
    header.set_mode(0o666);
    header.set_uid(0);
    header.set_gid(0);
    device.append_data(&mut header, "sda", &b""[..]).unwrap();
    let device = device.into_inner().unwrap();
    let table = [
        (&noise, "/bin/sh", "image.archive"),
        (&device, "/bin/sh", "image.special"),
        (&image, "/bin/bash", "image.no_program"),
        (&image, "bash", "image.no_program"),
    ];
    for (image, program, code) in table {
        let mut spec = spec(image, "", LONG_MS);
        spec.workload.command = vec![program.to_owned()];
        let lease = host.start(spec, &[image, INPUT]).await;
        let ended = host.end(&lease).await;
        assert_eq!((ended.outcome.code(), ended.runs), (code, 0), "{ended:?}");
        host.release(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_run_as_it_says() {
    let Some(busybox) = busybox("an_image_is_run") else { return };
    let host = Host::new();
    let layer = rootfs(&busybox);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["/bin/busybox","sh","-c"],
            "Cmd":["echo $WHO; pwd; /bin/busybox id -u"],"Env":["WHO=image"],"WorkingDir":"/root","User":"1000:1000"}},
            "rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest(&layer)
    );
    let part =
        |bytes: &[u8]| format!(r#"{{"digest":"sha256:{}","size":{}}}"#, digest(bytes), bytes.len());
    let manifest =
        format!(r#"{{"config":{},"layers":[{}]}}"#, part(config.as_bytes()), part(&layer));
    let content = |bytes: &[u8]| Content { digest: digest(bytes), bytes: bytes.len() as u64 };
    let mut spec = spec(&layer, "", LONG_MS);
    spec.workload = Workload::of(Payload::Oci {
        manifest: content(manifest.as_bytes()),
        blobs: vec![content(config.as_bytes()), content(&layer)],
    });
    let lease = host.start(spec, &[manifest.as_bytes(), config.as_bytes(), &layer]).await;
    let ended = host.end(&lease).await;
    assert_eq!(ended.outcome, Outcome::Exited { code: 0 }, "{}", host.log(&lease, Stream::Stderr));
    assert_eq!(host.log(&lease, Stream::Stdout), "image\n/root\n1000\n");
    host.release(&lease).await;
}

/// Nobody but the superuser can mount a disk whose size the kernel holds, wherever control groups are
/// delegated to: so nobody else sells containers, and is told why.
#[test]
fn who_is_not_the_superuser_is_told_why_it_sells_no_containers() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("unshare");
    // Another user, who may read what this one may.
    command.args(["--user", env!("CARGO_BIN_EXE_capex"), "host", "show", "--network", "signet"]);
    let output = command.arg("--json").arg("--datadir").arg(dir.path()).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    });
    let why = shown["no_containers"].as_str().unwrap();
    assert!(why.contains("the superuser"), "{why}");
    let classes = shown["classes"].as_array().unwrap().iter();
    let boxes: Vec<_> = classes.filter(|class| class["isolation"] == "container").collect();
    assert!(!boxes.is_empty());
    for class in boxes {
        assert_eq!(
            (&class["is_proved"], &class["because"]),
            (&false.into(), &"no containers can be run here".into())
        );
    }
}

/// `CAPEX_LEASES` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn many_leases_leave_nothing() {
    let Some(busybox) = busybox("many_leases") else { return };
    let count = std::env::var("CAPEX_LEASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let host = Host::new();
    for _ in 0..count {
        let (lease, ended, printed) = host.script(&busybox, "echo hello").await;
        assert_eq!(ended.outcome, Outcome::Exited { code: 0 }, "{printed}");
        host.release(&lease).await;
    }
}

/// How often the threads of a process have gone to sleep.
fn sleeps(pid: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    threads.map(|thread| of(thread.unwrap())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_workload_does_nothing_does_nothing_and_ends_at_once() {
    let Some(busybox) = busybox("a_process_whose_workload") else { return };
    let host = Host::new();
    let image = rootfs(&busybox);
    let spec = spec(&image, "echo up; exec /bin/busybox sleep 1000", LONG_MS);
    let lease = host.start(spec, &[&image, INPUT]).await;
    host.prints(&lease, "up").await;
    host.until("a quiet time", |manager| {
        let sampled_ms = manager.usage(&lease).unwrap().at_ms;
        (sampled_ms > 0 && now_ms() > sampled_ms + 5_000).then_some(())
    })
    .await;
    let pid = host.record(&lease)["shim"]["pid"].to_string();
    let before = sleeps(&pid);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let slept = sleeps(&pid) - before;
    // One sample may be among it.
    assert!(slept <= 8, "{slept} times in two seconds");
    host.manager.stop(&lease, "enough").await.unwrap();
    let asked = Instant::now();
    assert_eq!(host.end(&lease).await.outcome, Outcome::Stopped);
    assert!(asked.elapsed() < Duration::from_secs(5), "nobody rang");
    host.release(&lease).await;
}
