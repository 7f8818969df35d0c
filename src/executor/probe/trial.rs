//! What the self-test runs inside a container: this program itself, which tries to do what a
//! workload must not be able to do, and prints how far it came.
//!
//! No other program is sure to be on a provider's machine, and every machine that runs this one
//! has what it needs to run: its libraries, which go into the image beside it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::executor::score::Times;
use capex_core::ids::to_hex;

/// Processors are used by so many threads for so long.
const BUSY_THREADS: usize = 4;
const BUSY: Duration = Duration::from_millis(1_500);
/// Processes that are wanted: more than any lease has.
const PROCESSES: usize = 5_000;
const STACK_BYTES: usize = 64 << 10;
/// Processes that a stubborn workload leaves running. In a debug build each has some megabytes of
/// relocations of its own, and all together have to stay below the limit of memory.
const STUBBORN: usize = 8;
/// Written or claimed at once.
const STEP_BYTES: usize = 1 << 20;
/// Written past the memory of the machine.
const DIRECT_BYTES: usize = 24 << 20;
const AHEAD_BYTES: usize = 16 << 20;
const BLOCK_BYTES: usize = 4_096;
/// More than any lease of the self-test has, of memory and of disk.
const STEPS: usize = 2_048;

/// Variable with the addresses that a lease tries which is let out, with commas between them.
pub(super) const TRIED: &str = "TRIED";
/// Before what processor and memory do, as hex.
pub(super) const SCORE: &str = "score";
/// What a lease that does not end says once it has tried what it shall.
pub(super) const SETTLED: &str = "settled";
/// What is held back is refused at once.
const REFUSAL: Duration = Duration::from_secs(2);

/// Runs one trial; the exit code of its process.
pub(crate) fn run(name: &str) -> u8 {
    let done = match name {
        "limits" => limits(),
        "stubborn" => stubborn(),
        "wait" => loop {
            thread::sleep(Duration::from_secs(60));
        },
        _ => return 2,
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            say("error", error);
            1
        }
    }
}

fn say(what: &str, found: impl std::fmt::Display) {
    // Whoever does not hear it takes it for not proved.
    let _ = writeln!(io::stdout(), "{what} {found}");
}

/// Tries every limit; that of memory ends it.
fn limits() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    for (what, field) in [("filter", "Seccomp:"), ("no_new_privileges", "NoNewPrivs:")] {
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        say(what, value.unwrap_or_default().trim());
    }
    say("networks", networks()?);
    say("cpu_us", busy());
    say("processes", processes());
    let (written, bytes_per_s) = disk()?;
    say("disk_bytes", written);
    say("disk_bytes_per_s", bytes_per_s);
    say("disk_direct_bytes_per_s", disk_direct()?);
    say("memory", "begins");
    let mut kept = Vec::new();
    for _ in 0..STEPS {
        // Of something else than zeros, which need no memory.
        kept.push(vec![7_u8; STEP_BYTES]);
    }
    say("memory_bytes", kept.len() * STEP_BYTES);
    Ok(())
}

/// Names of the network devices.
fn networks() -> io::Result<String> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let names =
        devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    Ok(names.collect::<Vec<_>>().join(","))
}

/// Tries to reach what must not be reached.
fn egress(tried: &str) -> io::Result<()> {
    say("networks", networks()?);
    for tried in tried.split(',') {
        let address = tried.parse().map_err(io::Error::other)?;
        match TcpStream::connect_timeout(&address, REFUSAL) {
            Ok(_) => say("reached", tried),
            // What the filter answers, and no machine that is not there.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => say("refused", tried),
            Err(error) => say("lost", format!("{tried}: {error}")),
        }
    }
    Ok(())
}

/// Processor time that some threads got together, µs.
fn busy() -> u64 {
    let used_us = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).unwrap_or(0)
    };
    let before = used_us();
    let end = Instant::now() + BUSY;
    thread::scope(|scope| {
        for _ in 0..BUSY_THREADS {
            scope.spawn(|| while Instant::now() < end {});
        }
    });
    used_us().saturating_sub(before)
}

fn start(trial: &str) -> io::Result<Child> {
    Command::new("/proc/self/exe").args(["shim", "/", "--trial", trial]).spawn()
}

/// How many threads there could be at once, which count as processes.
fn processes() -> usize {
    let (done, wait) = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        let stay = || {
            let guard = done.lock().unwrap_or_else(PoisonError::into_inner);
            drop(wait.wait_while(guard, |done| !*done));
        };
        let spawn = |_: &usize| {
            thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, stay).is_ok()
        };
        let count = (0..PROCESSES).take_while(spawn).count();
        *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wait.notify_all();
        count
    })
}

/// How many bytes could be written, and how many of them in a second.
fn disk() -> io::Result<(u64, u64)> {
    let mut file = File::create("/filled")?;
    let step = vec![7_u8; STEP_BYTES];
    let (mut written, begun) = (0, Instant::now());
    while written < STEPS * STEP_BYTES
        && file.write_all(&step).and_then(|()| file.sync_data()).is_ok()
    {
        written += STEP_BYTES;
    }
    let bytes_per_s = per_second(written, begun.elapsed());
    fs::remove_file("/filled")?;
    Ok((written as u64, bytes_per_s))
}

/// Bytes in a second past the memory of the machine, over as many as there is room for.
fn disk_direct() -> io::Result<u64> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let mut file = File::options().write(true).create(true).custom_flags(direct).open("/direct")?;
    // The kernel takes it from whole blocks of memory.
    let buffer = vec![7_u8; STEP_BYTES + BLOCK_BYTES];
    let first = buffer.as_ptr().align_offset(BLOCK_BYTES);
    let step = buffer.get(first..first + STEP_BYTES).unwrap_or_default();
    let mut write = |bytes| (0..bytes / STEP_BYTES).try_for_each(|_| file.write_all(step));
    // Who has written nothing for a while is let ahead by some of it.
    write(AHEAD_BYTES)?;
    let begun = Instant::now();
    write(DIRECT_BYTES)?;
    let bytes_per_s = per_second(DIRECT_BYTES, begun.elapsed());
    fs::remove_file("/direct")?;
    Ok(bytes_per_s)
}

fn per_second(bytes: usize, time: Duration) -> u64 {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    (bytes as u64).saturating_mul(1_000_000) / us
}

/// Tries what else there is to try, and never ends, and has others that do not.
fn stubborn() -> io::Result<()> {
    for _ in 0..STUBBORN {
        start("wait")?;
    }
    if let Ok(tried) = std::env::var(TRIED) {
        egress(&tried)?;
    }
    say(SCORE, to_hex(&Times::measure().to_bytes()));
    say(SETTLED, STUBBORN);
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}
