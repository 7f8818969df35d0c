//! The self-test: whether the limits of a lease hold on this host, tried and not assumed.

mod containers;
mod record;
mod trial;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use super::egress::Egress;
use super::error::{At, ExecutorError};
use super::manager::{EVENT_QUEUE, Manager};
use super::runtimes::probe_containers;
use super::samples;
use super::score::of_printed;
use super::spec::LeaseSpec;
use super::state::{Ended, Outcome, State};
use super::supervise::Comebacks;
use crate::clock::now_ms;
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::{InputFile, Stream, Workload};
use capex_core::lease::score::Score;
use capex_core::limits::LEASE_CHUNK_BYTES;
use capex_core::params::Isolation;

pub use containers::{ProvedContainers, ProvedEgress, write_program_image};
pub use record::HostProof;
pub(crate) use trial::run as trial;

/// A lease has this window at first, which is longer than most hosts need to begin one.
const WINDOW_MS: u64 = 2_000;
/// The window of a lease that does not end by itself is put off for as long as less of it is left
/// and it has not begun what it is there for: a busy host breaks no limit by that.
const LEFT_MS: u64 = 1_500;
/// Though not for ever.
const BEGIN_TIME: Duration = Duration::from_secs(60);
/// A window that a lease which ends by itself never reaches.
const LONG_MS: u64 = 60_000;
/// A memory limit that the greedy workload reaches at once.
const MEMORY_MAX_BYTES: u64 = 8 << 20;
const SCORE_MEMORY_BYTES: u64 = 80 << 20;
const KILL_MS: u64 = 1_000;
/// A busy workload has to be over this soon after its deadline.
const MAX_OVERRUN_MS: u64 = 500;
const POLL: Duration = Duration::from_millis(10);

/// What the self-test proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proved {
    pub backend: &'static str,
    /// What stands between a workload and the host.
    pub isolation: &'static str,
    /// A workload was refused memory beyond its limit; the most it ever held.
    pub memory_peak_bytes: u64,
    /// How long after its deadline a workload that never yields was over.
    pub deadline_overrun_ms: u64,
    /// What a component does in a second.
    pub score: Score,
    /// What was proved of containers; `null` where this host runs none.
    pub containers: Option<ProvedContainers>,
    /// Why it runs none.
    pub no_containers: Option<String>,
}

impl Proved {
    /// What this host does in a second, by what workloads run in.
    fn scores(&self) -> BTreeMap<Isolation, Score> {
        let container = self.containers.as_ref().and_then(|proved| proved.score);
        let container = container.map(|score| (Isolation::Container, score));
        container.into_iter().chain([(Isolation::Wasm, self.score)]).collect()
    }
}

/// Runs leases of components below `dir`: one that computes, one that wants all memory, one that
/// never ends, one that is measured; and containers, where the host can run them: one that tries
/// every limit, one that is measured, is let out, where the operator lets leases out, and never ends.
/// What waits for the end of its window waits beside the others. Takes four seconds, and
/// ten more with containers, and leaves nothing behind.
///
/// # Errors
/// `executor.self_test_failed` when a limit does not hold.
pub async fn self_test(
    dir: &Path,
    shim_exe: &Path,
    egress: Option<Egress>,
) -> Result<Proved, ExecutorError> {
    let dir = dir.join("self-test");
    if dir.exists() {
        fs::remove_dir_all(&dir).at(&dir)?;
    }
    let (events, mut heard) = mpsc::channel(EVENT_QUEUE);
    // What is lost here is not got back: that is what is to be found out.
    let comebacks = Comebacks { in_a_row: 1, ..Comebacks::default() };
    let manager = Manager::with(&dir, shim_exe.to_owned(), events, comebacks)?;
    let is_let_out = egress.is_some();
    let manager = manager.letting_out(egress);
    let drain = async { while heard.recv().await.is_some() {} };
    let result = tokio::select! {
        result = test(&dir, shim_exe, &manager, is_let_out) => result,
        () = drain => Err(ExecutorError::SelfTest("the events ended".into())),
    };
    let removed = fs::remove_dir_all(&dir).at(&dir);
    result.and_then(|capabilities| removed.map(|()| capabilities))
}

async fn test(
    dir: &Path,
    program: &Path,
    manager: &Manager,
    is_let_out: bool,
) -> Result<Proved, ExecutorError> {
    let Err(no_containers) = probe_containers() else {
        let (held, image) =
            tokio::join!(test_components(manager), containers::Image::make(dir, program));
        let (held, image) = (held?, image?);
        // Measured while the second container waits for the end of its window and uses nothing.
        let mut score = None;
        let meanwhile = async {
            score = Some(measure_component(manager).await?);
            Ok(())
        };
        let containers = containers::test(manager, &image, is_let_out, meanwhile).await?;
        let score = score.ok_or_else(|| refused("no score".into()))?;
        return Ok(held.proved(score, Some(containers), None));
    };
    let held = test_components(manager).await?;
    let score = measure_component(manager).await?;
    Ok(held.proved(score, None, Some(no_containers)))
}

/// What held for components.
struct Held {
    memory_peak_bytes: u64,
    overrun_ms: u64,
}

impl Held {
    fn proved(
        self,
        score: Score,
        containers: Option<ProvedContainers>,
        no_containers: Option<String>,
    ) -> Proved {
        Proved {
            score,
            backend: "wasm",
            isolation: "wasm",
            memory_peak_bytes: self.memory_peak_bytes,
            deadline_overrun_ms: self.overrun_ms,
            containers,
            no_containers,
        }
    }
}

async fn test_components(manager: &Manager) -> Result<Held, ExecutorError> {
    let (computed, hungry, busy) = tokio::join!(
        run(manager, spec(1, samples::WORDSUM, LONG_MS), samples::WORDSUM),
        run(manager, spec(2, samples::MEMORY_HOG, LONG_MS), samples::MEMORY_HOG),
        run_until_its_end(manager, spec(3, samples::BUSY, WINDOW_MS), samples::BUSY),
    );
    let (computed, hungry, busy) = (computed?, hungry?, busy?);
    let overrun_ms = busy.ended.ended_at_ms.saturating_sub(busy.ends_at_ms);
    expect("compute", &computed.ended.outcome, &Outcome::Exited { code: 0 })?;
    if computed.output != samples::wordsum::expected(INPUT).as_bytes() {
        return Err(refused("a workload computed a wrong result".into()));
    }
    expect("memory", &hungry.ended.outcome, &Outcome::Memory)?;
    if hungry.ended.memory_peak_bytes > MEMORY_MAX_BYTES {
        return Err(refused("memory went beyond its limit".into()));
    }
    expect("deadline", &busy.ended.outcome, &Outcome::Deadline)?;
    if overrun_ms > MAX_OVERRUN_MS {
        return Err(refused(format!("a deadline was missed by {overrun_ms} ms")));
    }
    Ok(Held { memory_peak_bytes: hungry.ended.memory_peak_bytes, overrun_ms })
}

/// What a component does in a second. By itself: others would take of what it measures.
async fn measure_component(manager: &Manager) -> Result<Score, ExecutorError> {
    let mut spec = spec(4, samples::SCORE, LONG_MS);
    spec.memory_max_bytes = SCORE_MEMORY_BYTES;
    let measured = run(manager, spec, samples::SCORE).await?;
    expect("score", &measured.ended.outcome, &Outcome::Exited { code: 0 })?;
    of_printed(&measured.output).ok_or_else(|| refused("no score".into()))
}

const INPUT: &[u8] = b"1 20 300";

fn expect(what: &str, outcome: &Outcome, wanted: &Outcome) -> Result<(), ExecutorError> {
    if outcome == wanted {
        return Ok(());
    }
    Err(refused(format!("{what}: {outcome}, not {wanted}")))
}

fn refused(why: String) -> ExecutorError {
    ExecutorError::SelfTest(why)
}

struct Ran {
    ends_at_ms: u64,
    ended: Ended,
    output: Vec<u8>,
}

/// Runs one component and releases it.
async fn run(manager: &Manager, spec: LeaseSpec, component: &[u8]) -> Result<Ran, ExecutorError> {
    begin(manager, &spec, component).await?;
    conclude(manager, &spec).await
}

/// Runs one that never ends by itself to the end of its window.
async fn run_until_its_end(
    manager: &Manager,
    spec: LeaseSpec,
    component: &[u8],
) -> Result<Ran, ExecutorError> {
    begin(manager, &spec, component).await?;
    let lease = spec.lease_id;
    let has_begun = || Ok(matches!(manager.state(&lease)?, State::Running { .. }));
    let spec = put_off(manager, spec, has_begun).await?;
    conclude(manager, &spec).await
}

async fn begin(manager: &Manager, spec: &LeaseSpec, component: &[u8]) -> Result<(), ExecutorError> {
    manager.prepare(spec.clone()).await?;
    upload(manager, &spec.lease_id, component).await?;
    upload(manager, &spec.lease_id, INPUT).await?;
    manager.start(&spec.lease_id).await
}

/// Waits until a lease has begun what it is there for, and puts the end of its window off as long as
/// it has not; answers with the end that it has then.
async fn put_off(
    manager: &Manager,
    mut spec: LeaseSpec,
    has_begun: impl Fn() -> Result<bool, ExecutorError>,
) -> Result<LeaseSpec, ExecutorError> {
    let (begun, lease) = (Instant::now(), spec.lease_id);
    while !has_begun()? && !manager.state(&lease)?.is_over() {
        if begun.elapsed() > BEGIN_TIME {
            return Err(refused("a lease did not begin".into()));
        }
        if spec.ends_at_ms < now_ms() + LEFT_MS {
            spec.ends_at_ms = now_ms() + WINDOW_MS;
            manager.prepare(spec.clone()).await?;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(spec)
}

async fn conclude(manager: &Manager, spec: &LeaseSpec) -> Result<Ran, ExecutorError> {
    let (lease, ends_at_ms) = (spec.lease_id, spec.ends_at_ms);
    let patience = ends_at_ms.saturating_sub(now_ms()) + spec.kill_ms + MAX_OVERRUN_MS;
    let ended = end_within(manager, &lease, Duration::from_millis(patience)).await?;
    let output = manager.read_log(&lease, Stream::Stdout, 0, usize::MAX)?.bytes;
    let proof = manager.release(&lease).await?;
    match proof.left_behind.first() {
        None => Ok(Ran { ends_at_ms, ended, output }),
        Some(left) => Err(refused(format!("left behind: {left}"))),
    }
}

async fn end_within(
    manager: &Manager,
    lease: &LeaseId,
    patience: Duration,
) -> Result<Ended, ExecutorError> {
    let begun = Instant::now();
    loop {
        match manager.state(lease)? {
            State::Ended(ended) => return Ok(ended),
            // What is over before its window is not waited for.
            State::Exited { .. } => manager.stop(lease, "done").await?,
            State::Preparing | State::Ready | State::Running { .. } => {}
        }
        if begun.elapsed() > patience {
            return Err(refused("a lease did not end".into()));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn upload(manager: &Manager, lease: &LeaseId, blob: &[u8]) -> Result<(), ExecutorError> {
    let digest = digest(blob);
    let mut offset = 0;
    for chunk in blob.chunks(LEASE_CHUNK_BYTES) {
        offset = manager.put(lease, digest, offset, chunk).await?.received;
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> Digest {
    use sha2::{Digest as _, Sha256};
    Digest(Sha256::digest(bytes).into())
}

fn spec(number: u8, component: &[u8], window_ms: u64) -> LeaseSpec {
    let now_ms = now_ms();
    let input =
        InputFile { name: "input.txt".into(), digest: digest(INPUT), bytes: INPUT.len() as u64 };
    let workload = Workload {
        inputs: vec![input],
        results: vec!["result.txt".into()],
        ..Workload::wasm(digest(component), component.len() as u64)
    };
    LeaseSpec {
        lease_id: LeaseId([number; 32]),
        workload,
        order: 1,
        starts_at_ms: now_ms,
        ends_at_ms: now_ms + window_ms,
        cpu_max_milli: 1_000,
        memory_max_bytes: MEMORY_MAX_BYTES,
        output_max_bytes: 64 << 10,
        work_max_bytes: 1 << 20,
        kill_ms: KILL_MS,
    }
}
