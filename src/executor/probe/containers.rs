//! The self-test of containers: real leases, whose image is this program and its libraries.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::{Ran, conclude, digest, put_off, refused, trial};
use crate::clock::now_ms;
use crate::executor::egress::REFUSED;
use crate::executor::error::{At, ExecutorError};
use crate::executor::images::write_archive;
use crate::executor::manager::Manager;
use crate::executor::runtimes::{
    DiskRate, DiskRates, PROCESSES, disk_rates, own_addresses, probe_egress,
};
use crate::executor::score::of_printed;
use crate::executor::spec::LeaseSpec;
use crate::executor::state::Outcome;
use capex_core::ids::{Digest, LeaseId, from_hex};
use capex_core::lease::objects::{Content, EnvValue, EnvVar, Payload, Stream, Workload};
use capex_core::lease::score::Score;
use capex_core::limits::LEASE_CHUNK_BYTES;

/// The lease that tries every limit ends by itself, long before this.
const WINDOW_MS: u64 = 120_000;
/// The window, at first, of the lease that does not end.
const STUBBORN_MS: u64 = 2_000;
const MEMORY_MAX_BYTES: u64 = 192 << 20;
/// Half a processor.
const CPU_MAX_MILLI: u64 = 500;
/// Room beside the image.
const FREE_DISK_BYTES: u64 = 64 << 20;
const KILL_MS: u64 = 5_000;
/// A lease that does not end by itself is over this soon after its window.
const MAX_OVERRUN_MS: u64 = 1_000;
/// What the busy trial gets in its second and a half, and what coarse periods add to it.
const CPU_MAX_US: u64 = 1_100_000;
/// Of the rate that is allowed, what may be measured: the kernel counts in slices.
const RATE_PERCENT: u64 = 130;
/// Where the kernel looks for the loader of a program, as the program names it.
const LOADERS: [&str; 2] = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"];

/// What was proved of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProvedContainers {
    /// A workload was killed for memory beyond its limit; the most it ever held.
    pub memory_peak_bytes: u64,
    /// Processor time that half a processor gave in a second and a half, µs.
    pub cpu_us: u64,
    /// Threads and processes at once, before there were no more.
    pub processes: u64,
    /// Bytes that could be written beside the image, before the disk was full.
    pub disk_bytes: u64,
    /// What it wrote in a second past the memory of the machine, and by way of it.
    pub disk_direct_bytes_per_s: u64,
    pub disk_bytes_per_s: u64,
    /// What of it the kernel limits.
    pub disk_rates: &'static str,
    /// How long after its window a workload that does not end was over.
    pub deadline_overrun_ms: u64,
    /// What was proved of a lease that is let out; `null` where none is.
    pub egress: Option<ProvedEgress>,
    /// Why none is.
    pub no_egress: Option<String>,
    /// What a container does in a second.
    pub score: Option<Score>,
}

/// What was proved of a lease that is let out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProvedEgress {
    /// Addresses that it may not reach, and did not: of this machine, of its networks, of clouds.
    pub refused: u64,
}

/// The image of all containers of a self-test.
pub(super) struct Image {
    file: PathBuf,
    content: Content,
}

impl Image {
    /// Makes it below `dir`, of this program.
    pub(super) async fn make(dir: &Path, program: &Path) -> Result<Self, ExecutorError> {
        let (file, program) = (dir.join("image"), program.to_owned());
        let made = tokio::task::spawn_blocking(move || {
            write_archive(&files_of(&program, "capex")?, &file).at(&file)?;
            let content = content(&file)?;
            Ok(Self { file, content })
        });
        made.await.map_err(ExecutorError::background)?
    }
}

/// Runs containers: one tries every limit, one measures, wants out and never ends. Does something else
/// while the second waits for its end.
pub(super) async fn test(
    manager: &Manager,
    image: &Image,
    is_let_out: bool,
    meanwhile: impl Future<Output = Result<(), ExecutorError>>,
) -> Result<ProvedContainers, ExecutorError> {
    let limits = run(manager, spec("limits", WINDOW_MS, image), image).await?;
    let (outward, no_egress) = match (is_let_out, probe_egress()) {
        (false, _) => (None, Some("[egress] allow = true is not in the configuration".to_owned())),
        (true, Err(why)) => (None, Some(why)),
        (true, Ok(())) => (Some(Outward::open()?), None),
    };
    let mut stubborn = spec("stubborn", STUBBORN_MS, image);
    // A whole processor, as blocks have: it is what is measured.
    stubborn.cpu_max_milli = 1_000;
    if let Some(outward) = &outward {
        outward.ask(&mut stubborn);
    }
    begin(manager, &stubborn, image).await?;
    let lease = stubborn.lease_id;
    let has_settled = || {
        let printed = manager.read_log(&lease, Stream::Stdout, 0, usize::MAX)?.bytes;
        Ok(String::from_utf8_lossy(&printed).contains(trial::SETTLED))
    };
    let stubborn = put_off(manager, stubborn, has_settled).await?;
    let (stubborn, done) = tokio::join!(conclude(manager, &stubborn), meanwhile);
    let (stubborn, ()) = (stubborn?, done?);
    let egress = outward.map(|outward| outward.judge(&stubborn)).transpose()?;
    let proved = judge(&limits, &stubborn)?;
    let score = text(&stubborn)
        .lines()
        .find_map(|line| of_printed(&from_hex(line.strip_prefix(trial::SCORE)?.trim())?));
    let score = Some(score.ok_or_else(|| refused("no score".to_owned()))?);
    Ok(ProvedContainers { egress, no_egress, score, ..proved })
}

/// What a container that is let out may not reach, among it this process.
struct Outward {
    tried: BTreeSet<String>,
    /// Listens where a lease must not get to.
    _here: TcpListener,
}

impl Outward {
    fn open() -> Result<Self, ExecutorError> {
        let failed = |error: std::io::Error| refused(format!("a port to be tried: {error}"));
        let here = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        let port = here.local_addr().map_err(failed)?.port();
        let own = own_addresses().map_err(failed)?;
        let last =
            |first: Ipv4Addr, bits| Ipv4Addr::from_bits(first.to_bits() | ((u32::MAX >> bits) - 1));
        let others = REFUSED.iter().map(|(first, bits)| last(*first, *bits));
        // Its own loopback is the lease's.
        let tried = own.into_iter().chain(others).filter(|address| !address.is_loopback());
        let tried = tried.map(|address| format!("{address}:{port}")).collect();
        Ok(Self { tried, _here: here })
    }

    /// Has a lease try it.
    fn ask(&self, spec: &mut LeaseSpec) {
        spec.workload.egress = true;
        let value = self.tried.iter().cloned().collect::<Vec<_>>().join(",");
        let value = EnvValue::Plain(value);
        spec.workload.env.push(EnvVar { name: trial::TRIED.to_owned(), value });
    }

    fn judge(&self, ran: &Ran) -> Result<ProvedEgress, ExecutorError> {
        let output = text(ran);
        let lines: BTreeSet<&str> = output.lines().collect();
        if !lines.contains("networks lo,eth0") {
            let why = format!("a lease was not let out: {:?} {lines:?}", ran.ended.outcome);
            return Err(refused(why));
        }
        let is_held = |tried: &&String| lines.contains(format!("refused {tried}").as_str());
        match self.tried.iter().find(|tried| !is_held(tried)) {
            None => Ok(ProvedEgress { refused: self.tried.len() as u64 }),
            Some(address) => {
                Err(refused(format!("{address} is not held back from leases: {lines:?}")))
            }
        }
    }
}

fn text(ran: &Ran) -> String {
    String::from_utf8_lossy(&ran.output).into_owned()
}

fn judge(limits: &Ran, stubborn: &Ran) -> Result<ProvedContainers, ExecutorError> {
    let output = text(limits);
    let said = |what: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(what));
        line.map(|value| value.trim().to_owned()).ok_or_else(|| {
            refused(format!("{what} was not tried: {:?} {output}", limits.ended.outcome))
        })
    };
    for (what, wanted) in [("filter", "2"), ("no_new_privileges", "1"), ("networks", "lo")] {
        let found = said(what)?;
        if found != wanted {
            return Err(refused(format!("{what} is {found}, not {wanted}")));
        }
    }
    let number = |what: &str| Ok::<u64, ExecutorError>(said(what)?.parse().unwrap_or(u64::MAX));
    let overrun_ms = stubborn.ended.ended_at_ms.saturating_sub(stubborn.ends_at_ms);
    let proved = ProvedContainers {
        memory_peak_bytes: limits.ended.memory_peak_bytes,
        cpu_us: number("cpu_us")?,
        processes: number("processes")?,
        disk_bytes: number("disk_bytes")?,
        disk_direct_bytes_per_s: number("disk_direct_bytes_per_s")?,
        disk_bytes_per_s: number("disk_bytes_per_s")?,
        disk_rates: disk_rates().name(),
        deadline_overrun_ms: overrun_ms,
        egress: None,
        no_egress: None,
        score: None,
    };
    let held = [
        ("memory", limits.ended.outcome == Outcome::Memory),
        ("the peak of memory", proved.memory_peak_bytes <= MEMORY_MAX_BYTES),
        ("processors", proved.cpu_us <= CPU_MAX_US),
        ("processes", proved.processes < PROCESSES),
        ("the disk", proved.disk_bytes <= FREE_DISK_BYTES),
        ("the rate of the disk", is_rate_held(&proved)),
        ("the window", stubborn.ended.outcome == Outcome::Deadline && overrun_ms <= MAX_OVERRUN_MS),
    ];
    match held.iter().find(|(_, is_held)| !is_held) {
        None => Ok(proved),
        Some((what, _)) => {
            let ends = (&limits.ended.outcome, &stubborn.ended.outcome);
            Err(refused(format!("the limit of {what} does not hold: {proved:?}, {ends:?}")))
        }
    }
}

/// Whether the disk was used no faster than is allowed, as far as the kernel holds that.
fn is_rate_held(proved: &ProvedContainers) -> bool {
    let most = DiskRate::of(CPU_MAX_MILLI).bytes / 100 * RATE_PERCENT;
    let (all, direct) = (proved.disk_bytes_per_s, proved.disk_direct_bytes_per_s);
    match disk_rates() {
        DiskRates::All => all <= most && direct <= most,
        DiskRates::Direct => direct <= most,
        DiskRates::None => true,
    }
}

/// Writes an image of one program of this machine and what it needs to run, as an archive of a root
/// file system.
///
/// # Errors
/// A file cannot be read or written.
pub fn write_program_image(program: &Path, name: &str, to: &Path) -> Result<(), ExecutorError> {
    write_archive(&files_of(program, name)?, to).at(to)
}

/// The program, its libraries and their loader, with where each lies in the image.
fn files_of(program: &Path, name: &str) -> Result<Vec<(PathBuf, String)>, ExecutorError> {
    let mut files = vec![(program.to_owned(), name.to_owned())];
    let maps = Path::new("/proc/self/maps");
    let text = fs::read_to_string(maps).at(maps)?;
    let mapped = text.lines().filter_map(|line| line.split_once('/').map(|(_, path)| path));
    let is_loader =
        |path: &&str| path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-"));
    // Without a loader it is one file.
    let Some(loader) = mapped.into_iter().find(is_loader) else {
        return Ok(files);
    };
    let loader = Path::new("/").join(loader);
    let listed = Command::new(&loader).arg("--list").arg(program).output().at(&loader)?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.lines().filter_map(|line| line.split_once(" => "));
    for line in libraries.filter(|(name, _)| !name.contains('/')) {
        let path = line.1.split(" (").next().unwrap_or_default().trim();
        files.push((PathBuf::from(path), format!("lib/{}", line.0.trim())));
    }
    files.extend(LOADERS.iter().map(|place| (loader.clone(), (*place).to_owned())));
    Ok(files)
}

fn content(image: &Path) -> Result<Content, ExecutorError> {
    use sha2::{Digest as _, Sha256};
    let mut file = File::open(image).at(image)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; LEASE_CHUNK_BYTES];
    loop {
        let read = file.read(&mut buffer).at(image)?;
        if read == 0 {
            return Ok(Content { digest: Digest(hasher.finalize().into()), bytes });
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

async fn run(manager: &Manager, spec: LeaseSpec, image: &Image) -> Result<Ran, ExecutorError> {
    begin(manager, &spec, image).await?;
    conclude(manager, &spec).await
}

async fn begin(manager: &Manager, spec: &LeaseSpec, image: &Image) -> Result<(), ExecutorError> {
    manager.prepare(spec.clone()).await?;
    upload(manager, &spec.lease_id, image).await?;
    manager.start(&spec.lease_id).await
}

fn spec(trial: &str, window_ms: u64, image: &Image) -> LeaseSpec {
    let content = image.content;
    let mut workload = Workload {
        command: ["/capex", "shim", "/", "--trial", trial].map(str::to_owned).to_vec(),
        ..Workload::of(Payload::Rootfs { archive: content })
    };
    let value = EnvValue::Plain("/lib".to_owned());
    workload.env.push(EnvVar { name: "LD_LIBRARY_PATH".to_owned(), value });
    let now_ms = now_ms();
    LeaseSpec {
        // Another one each time: two self-tests may run on one machine.
        lease_id: LeaseId(digest(format!("{trial} {now_ms}").as_bytes()).0),
        workload,
        order: 1,
        starts_at_ms: now_ms,
        ends_at_ms: now_ms + window_ms,
        cpu_max_milli: CPU_MAX_MILLI,
        memory_max_bytes: MEMORY_MAX_BYTES,
        output_max_bytes: 64 << 10,
        work_max_bytes: content.bytes + FREE_DISK_BYTES,
        kill_ms: KILL_MS,
    }
}

async fn upload(manager: &Manager, lease: &LeaseId, image: &Image) -> Result<(), ExecutorError> {
    let Image { file: path, content } = image;
    let mut file = File::open(path).at(path)?;
    let mut offset = 0;
    while offset < content.bytes {
        let mut chunk = Vec::new();
        (&mut file).take(LEASE_CHUNK_BYTES as u64).read_to_end(&mut chunk).at(path)?;
        offset = manager.put(lease, content.digest, offset, &chunk).await?.received;
    }
    Ok(())
}
