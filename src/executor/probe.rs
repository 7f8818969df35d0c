//! The self-test: whether the limits of a lease hold on this host, tried and not assumed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;

use super::error::{At, ExecutorError};
use super::manager::{EVENT_QUEUE, Manager};
use super::samples;
use super::spec::{Input, LeaseSpec};
use super::state::{Ended, Outcome, State};
use crate::clock::now_ms;
use capex_core::ids::{Digest, LeaseId};
use capex_core::lease::objects::Stream;
use capex_core::limits::LEASE_CHUNK_BYTES;

/// The tests run side by side for this long: enough to compile on a busy host.
const WINDOW_MS: u64 = 3_000;
/// A memory limit that the greedy workload reaches at once.
const MEMORY_MAX_BYTES: u64 = 8 << 20;
const GRACE_MS: u64 = 1_000;
/// A busy workload has to be over this soon after its deadline.
const MAX_OVERRUN_MS: u64 = 500;
const POLL: Duration = Duration::from_millis(50);

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
}

/// Runs three leases below `dir`: one that computes, one that wants all memory, one that
/// never ends. Takes three seconds and leaves nothing behind.
///
/// # Errors
/// `executor.self_test_failed` when a limit does not hold.
pub async fn self_test(dir: &Path, shim_exe: &Path) -> Result<Proved, ExecutorError> {
    let dir = dir.join("self-test");
    if dir.exists() {
        fs::remove_dir_all(&dir).at(&dir)?;
    }
    let (events, mut heard) = mpsc::channel(EVENT_QUEUE);
    let manager = Manager::new(&dir, shim_exe.to_owned(), events)?;
    let drain = async { while heard.recv().await.is_some() {} };
    let result = tokio::select! {
        result = test(&manager) => result,
        () = drain => Err(ExecutorError::SelfTest("the events ended".into())),
    };
    let removed = fs::remove_dir_all(&dir).at(&dir);
    result.and_then(|capabilities| removed.map(|()| capabilities))
}

async fn test(manager: &Manager) -> Result<Proved, ExecutorError> {
    let (computed, hungry, busy) = tokio::join!(
        run(manager, 1, samples::WORDSUM),
        run(manager, 2, samples::MEMORY_HOG),
        run(manager, 3, samples::BUSY),
    );
    let (computed, hungry, busy) = (computed?, hungry?, busy?);
    let overrun_ms = busy.ended.ended_at_ms.saturating_sub(busy.ends_at_ms);
    expect("compute", &computed.ended.outcome, &Outcome::Exited { code: 0 })?;
    if computed.output != samples::wordsum::expected(INPUT).as_bytes() {
        return Err(ExecutorError::SelfTest("a workload computed a wrong result".into()));
    }
    expect("memory", &hungry.ended.outcome, &Outcome::Memory)?;
    if hungry.ended.memory_peak_bytes > MEMORY_MAX_BYTES {
        return Err(ExecutorError::SelfTest("memory went beyond its limit".into()));
    }
    expect("deadline", &busy.ended.outcome, &Outcome::Deadline)?;
    if overrun_ms > MAX_OVERRUN_MS {
        return Err(ExecutorError::SelfTest(format!("a deadline was missed by {overrun_ms} ms")));
    }
    Ok(Proved {
        backend: "wasm",
        isolation: "wasm",
        memory_peak_bytes: hungry.ended.memory_peak_bytes,
        deadline_overrun_ms: overrun_ms,
    })
}

const INPUT: &[u8] = b"1 20 300";

fn expect(what: &str, outcome: &Outcome, wanted: &Outcome) -> Result<(), ExecutorError> {
    if outcome == wanted {
        return Ok(());
    }
    Err(ExecutorError::SelfTest(format!("{what}: {outcome}, not {wanted}")))
}

struct Ran {
    ends_at_ms: u64,
    ended: Ended,
    output: Vec<u8>,
}

/// Runs one component and releases it.
async fn run(manager: &Manager, number: u8, component: &[u8]) -> Result<Ran, ExecutorError> {
    let spec = spec(number, component);
    let lease = spec.lease_id;
    let ends_at_ms = spec.ends_at_ms;
    manager.prepare(spec).await?;
    upload(manager, &lease, component).await?;
    upload(manager, &lease, INPUT).await?;
    manager.start(&lease).await?;
    let patience = Duration::from_millis(WINDOW_MS + GRACE_MS + MAX_OVERRUN_MS);
    let ended = end_within(manager, &lease, patience).await?;
    let output = manager.read_log(&lease, Stream::Stdout, 0, usize::MAX)?.bytes;
    let proof = manager.release(&lease).await?;
    match proof.left_behind.first() {
        None => Ok(Ran { ends_at_ms, ended, output }),
        Some(left) => Err(ExecutorError::SelfTest(format!("left behind: {left}"))),
    }
}

async fn end_within(
    manager: &Manager,
    lease: &LeaseId,
    patience: Duration,
) -> Result<Ended, ExecutorError> {
    let begun = Instant::now();
    loop {
        if let State::Ended(ended) = manager.state(lease)? {
            return Ok(ended);
        }
        if begun.elapsed() > patience {
            return Err(ExecutorError::SelfTest("a lease did not end".into()));
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

fn spec(number: u8, component: &[u8]) -> LeaseSpec {
    let now_ms = now_ms();
    LeaseSpec {
        lease_id: LeaseId([number; 32]),
        component: digest(component),
        component_bytes: component.len() as u64,
        inputs: vec![Input {
            name: "input.txt".into(),
            digest: digest(INPUT),
            bytes: INPUT.len() as u64,
        }],
        args: Vec::new(),
        env: Vec::new(),
        results: vec!["result.txt".into()],
        starts_at_ms: now_ms,
        ends_at_ms: now_ms + WINDOW_MS,
        memory_max_bytes: MEMORY_MAX_BYTES,
        output_max_bytes: 64 << 10,
        work_max_bytes: 1 << 20,
        grace_ms: GRACE_MS,
    }
}
