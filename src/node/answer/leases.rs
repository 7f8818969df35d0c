//! Leases on this host and leases held elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::types::{
    Lease, LeaseMaintenance, Part, ResultFile, Stream, Unavailable, Upload, seconds, slot_range,
};
use crate::api::{Answer, ApiError, Listed, Noun, Page, Place, Prefix};
use crate::clock::now_ms;
use crate::node::Node;
use crate::node::lease_client::read_at;
use capex_core::engine::leases::{FetchedResult, LeaseRole, LeaseView, Uploaded};
use capex_core::ids::{CertId, LeaseId};
use capex_core::lease::Maintenance;
use capex_core::lease::objects::{self, Cause, Outcome};
use capex_core::limits::LEASE_CHUNK_BYTES;
use capex_core::reason;

/// A look into a file, to be had beside the loop.
pub(super) type FileRead = Box<dyn FnOnce() -> Result<Part, ApiError> + Send>;

impl Node {
    pub(super) fn leases(&self, page: Page) -> Listed<Lease> {
        let place =
            |view: &LeaseView| Place { number: view.window.start.into(), id: view.lease_id.0 };
        let views = self.engine().leases().views(self.engine().me(), now_ms()).into_iter();
        page.cut(views.map(|view| (place(&view), view))).map(|view| self.lease_dto(&view))
    }

    pub(super) fn lease(&self, prefix: &Prefix) -> Result<Lease, ApiError> {
        Ok(self.lease_dto(&self.lease_view(prefix)?))
    }

    /// A node that redeems its own certificate has both sides of the lease: it is shown as
    /// the holder's.
    fn lease_view(&self, prefix: &Prefix) -> Result<LeaseView, ApiError> {
        let mut views: BTreeMap<LeaseId, LeaseView> = BTreeMap::new();
        for view in self.engine().leases().views(self.engine().me(), now_ms()) {
            if view.role == LeaseRole::Holder || !views.contains_key(&view.lease_id) {
                views.insert(view.lease_id, view);
            }
        }
        prefix.find(Noun::Lease, views.into_values(), |view| view.lease_id.0)
    }

    fn lease_dto(&self, view: &LeaseView) -> Lease {
        let role = match view.role {
            LeaseRole::Holder => "holder",
            LeaseRole::Provider => "provider",
        };
        Lease {
            lease_id: view.lease_id.to_string(),
            cert_id: view.cert_id.to_string(),
            extensions: view.extensions.iter().map(CertId::to_string).collect(),
            holder: view.holder.to_string(),
            provider: view.provider.to_string(),
            role: role.to_owned(),
            class: self.class_of_certificate(&view.cert_id),
            window: slot_range(view.window),
            backend: self.backend_of(&view.lease_id).to_owned(),
            phase: view.phase.clone(),
            exit_code: exit_code(view.outcome.as_ref()),
            outcome: view.outcome.as_ref().map(|outcome| outcome_name(outcome).to_owned()),
            runs: view.runs,
            started_at: view.started_at_ms,
            exited_at: view.exited_at_ms,
            ended_at: view.ended_at_ms,
            delivered_s: seconds(view.delivered_by(now_ms(), self.engine().params().slot_s)),
            unavailable: view.unavailable.iter().map(unavailable).collect(),
            maintenance: view.maintenance.iter().map(maintenance).collect(),
            cpu_us: view.usage.cpu_us,
            memory_peak_bytes: view.usage.memory_peak_bytes,
            throttled_us: view.usage.throttled_us,
            receipts: view.receipts,
            countersigned: view.receipts > 0 && view.countersigned == view.receipts,
            fetched: view.is_fetched,
            results: view.results.iter().map(result_file).collect(),
            left_behind: view.left_behind.clone(),
            code: view.refusal.clone(),
            upload: view
                .uploaded
                .map(|Uploaded { sent_bytes, total_bytes }| Upload { sent_bytes, total_bytes }),
            score: view.score.map(Into::into),
        }
    }

    /// Output of a lease of either side.
    pub(super) fn lease_log(
        &self,
        prefix: &Prefix,
        stream: Stream,
        from: u64,
    ) -> Result<FileRead, ApiError> {
        let view = self.lease_view(prefix)?;
        let stream = match stream {
            Stream::Stdout => objects::Stream::Stdout,
            Stream::Stderr => objects::Stream::Stderr,
        };
        let lease = view.lease_id;
        if view.role == LeaseRole::Provider {
            let executor = Arc::clone(&self.outside.leases.executor);
            return Ok(Box::new(move || {
                let chunk = executor.read_log(&lease, stream, from, LEASE_CHUNK_BYTES);
                chunk
                    .map(|chunk| Part { bytes: chunk.bytes, end: chunk.end })
                    .map_err(|error| ApiError::coded(error.code(), error.to_string()))
            }));
        }
        let path = self.outside.held.output(&lease, stream);
        Ok(Box::new(move || {
            // A file that is not there yet has no bytes yet.
            let bytes = read_at(&path, from, LEASE_CHUNK_BYTES).unwrap_or_default();
            let end = bytes.len() < LEASE_CHUNK_BYTES && view.is_fetched;
            Ok(Part { bytes, end })
        }))
    }

    /// A result that this holder has fetched.
    pub(super) fn lease_result(
        &self,
        prefix: &Prefix,
        name: &str,
        from: u64,
    ) -> Result<FileRead, ApiError> {
        let view = self.lease_view(prefix)?;
        let absent = || {
            ApiError::new(reason!("result.not_found"), "the lease has no such result here")
                .with_hint("results are fetched when the workload has ended")
        };
        if !view.results.iter().any(|result| result.name == name) {
            return Err(absent());
        }
        let path = self.outside.held.result(&view.lease_id, name);
        Ok(Box::new(move || {
            let bytes = read_at(&path, from, LEASE_CHUNK_BYTES).map_err(|_| absent())?;
            let end = bytes.len() < LEASE_CHUNK_BYTES;
            Ok(Part { bytes, end })
        }))
    }

    /// Reads a file beside the loop.
    pub(super) fn answer_file(
        read: Result<FileRead, ApiError>,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        match read {
            // The client may have given up.
            Err(error) => drop(answer.send(Err(error))),
            Ok(read) => {
                tokio::task::spawn_blocking(move || answer.send(read().map(Into::into)));
            }
        }
    }

    fn backend_of(&self, lease: &LeaseId) -> &'static str {
        let workload = self.engine().leases().workload(lease);
        workload.map_or("", |workload| workload.payload.kind().name())
    }

    fn class_of_certificate(&self, cert: &CertId) -> String {
        let held = self.engine().holdings().held(cert);
        let facts = held.or_else(|| self.engine().register().issued(cert));
        facts.map(|facts| self.class_name(facts.class)).unwrap_or_default()
    }
}

pub(super) fn unavailable(lost: &objects::Unavailable) -> Unavailable {
    let cause = match lost.cause {
        Cause::Late => "late",
        Cause::Failed => "failed",
        Cause::Interrupted => "interrupted",
        Cause::Maintenance => "maintenance",
        Cause::Withdrawn => "withdrawn",
    };
    Unavailable { cause: cause.to_owned(), unavailable_s: seconds(lost.ms) }
}

fn maintenance(announced: &Maintenance) -> LeaseMaintenance {
    let Maintenance { from_ms, to_ms, why } = announced;
    LeaseMaintenance { starts_at: *from_ms, ends_at: *to_ms, why: why.clone() }
}

fn result_file(result: &FetchedResult) -> ResultFile {
    ResultFile { name: result.name.clone(), sha256: result.sha256.to_string(), bytes: result.bytes }
}

fn exit_code(outcome: Option<&Outcome>) -> Option<i32> {
    match outcome {
        Some(Outcome::Exited { code }) => Some(*code),
        _ => None,
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exited { .. } => "exited",
        Outcome::Trapped => "trapped",
        Outcome::Deadline => "deadline",
        Outcome::Stopped => "stopped",
        Outcome::OutOfMemory => "out_of_memory",
        Outcome::OutOfDisk => "out_of_disk",
        Outcome::Failed => "failed",
        Outcome::Unfit => "unfit",
        Outcome::Interrupted => "interrupted",
    }
}
