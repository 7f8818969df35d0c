//! Leases on disk: found after a restart, removed at their release.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{At, ExecutorError};
use super::layout::LeaseDir;
use super::manager::{Lease, Shared, blocking};
use super::runtimes;
use super::spec::LeaseSpec;
use super::state::{Record, read_json};
use capex_core::ids::LeaseId;

/// Between two looks at a process that is expected to end or to begin.
const POLL: Duration = Duration::from_millis(20);
/// After its grace a lease process has this long to end, and once killed as long again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Prefix of directories on their way out.
const GONE: &str = ".gone-";

/// What a release left behind: nothing, unless the host is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreedProof {
    pub lease: LeaseId,
    /// Processes and paths that could not be removed.
    pub left_behind: Vec<String>,
}

/// Ends the process of a lease and removes its directory. An unknown lease is free.
pub(super) async fn release(shared: &Shared, id: &LeaseId) -> Result<FreedProof, ExecutorError> {
    let Some(lease) = shared.lease(id) else {
        let dir = LeaseDir::new(shared.dir.join(id.to_string()));
        return Ok(FreedProof { lease: *id, left_behind: left_behind(&dir, false) });
    };
    let _turn = lease.gate.lock().await;
    if lease.is_alive() {
        lease.ask_to_stop("released")?;
        let grace = Duration::from_millis(lease.spec().kill_ms);
        if !gone_within(&lease, grace + PATIENCE).await {
            lease.kill();
            gone_within(&lease, PATIENCE).await;
        }
    }
    let swept = Arc::clone(&lease);
    let left = blocking(move || Ok(runtimes::sweep(&swept.dir))).await?;
    let (from, gone) = (lease.dir.path().to_owned(), shared.dir.join(format!("{GONE}{id}")));
    // Nothing is removed through a mount that is still there.
    let removed =
        if left.is_empty() { blocking(move || remove(&from, &gone)).await } else { Ok(()) };
    if let Err(error) = removed {
        tracing::error!(lease = %id, %error, "a released lease could not be removed");
    }
    let left_behind = [left, left_behind(&lease.dir, lease.is_alive())].concat();
    if left_behind.is_empty() {
        shared.forget(id);
    }
    Ok(FreedProof { lease: *id, left_behind })
}

/// Renames first: a lease is either whole or no lease.
fn remove(from: &Path, gone: &Path) -> Result<(), ExecutorError> {
    match fs::rename(from, gone) {
        Ok(()) => fs::remove_dir_all(gone).at(gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at(from),
    }
}

fn left_behind(dir: &LeaseDir, alive: bool) -> Vec<String> {
    let process = alive.then(|| "process".to_owned());
    let gone = dir
        .path()
        .file_name()
        .map(|name| dir.path().with_file_name(format!("{GONE}{}", name.to_string_lossy())));
    let paths = [Some(dir.path().to_owned()), gone].into_iter().flatten();
    let present = paths.filter(|path| path.exists()).map(|path| path.display().to_string());
    process.into_iter().chain(present).collect()
}

async fn gone_within(lease: &Lease, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while lease.is_alive() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Every lease that has a valid specification. What is on its way out is removed; anything
/// else is left alone: an orphan's data is not ours to delete.
pub(super) async fn found_on_disk(dir: &Path) -> Result<Vec<Lease>, ExecutorError> {
    let dir = dir.to_owned();
    blocking(move || {
        let mut leases = Vec::new();
        for entry in fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if name.starts_with(GONE) {
                fs::remove_dir_all(&path).at(&path)?;
            } else if let Ok(id) = name.parse::<LeaseId>() {
                leases.extend(load(&id, path));
            }
        }
        Ok(leases)
    })
    .await
}

/// The lease of a directory, if its specification is valid.
pub(super) fn load(id: &LeaseId, path: PathBuf) -> Option<Lease> {
    let dir = LeaseDir::new(path);
    let spec: Option<LeaseSpec> = read_json(&dir.spec()).ok().flatten();
    let spec = spec.filter(|spec| spec.lease_id == *id && spec.validate().is_ok());
    let Some(spec) = spec else {
        tracing::warn!(path = %dir.path().display(), "no lease: the specification is unreadable");
        return None;
    };
    settled_record(&dir)?;
    Some(Lease::new(spec, dir))
}

/// The record, after a process that has just been started wrote its own: it holds the lock
/// before that.
fn settled_record(dir: &LeaseDir) -> Option<Record> {
    let end = Instant::now() + PATIENCE;
    loop {
        let record: Record = read_json(&dir.state()).ok().flatten()?;
        if record.shim.is_some() || !is_locked(&dir.lock()) || Instant::now() >= end {
            return Some(record);
        }
        std::thread::sleep(POLL);
    }
}

fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_err())
}
