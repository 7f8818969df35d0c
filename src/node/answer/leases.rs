//! Leases on this host and leases held elsewhere.

use std::collections::BTreeMap;
use std::fs;

use tokio::sync::oneshot;

use crate::api::types::{Lease, Part, ResultFile, Stream, seconds, slot_range};
use crate::api::{Answer, ApiError, Noun, Prefix, RedeemCall};
use crate::node::Node;
use crate::node::follow::{Followed, read_at, stream_file};
use capex_core::engine::Done;
use capex_core::engine::io::Command;
use capex_core::engine::leases::{LeaseRole, LeaseView};
use capex_core::ids::{CertId, Digest, LeaseId, to_hex};
use capex_core::lease::objects::{self, InputFile, Outcome, Workload, WorkloadKind};
use capex_core::limits::LEASE_CHUNK_BYTES;
use capex_core::reason;
use capex_core::wire::sha256;

impl Node {
    pub(super) fn leases(&self) -> Vec<Lease> {
        let mut views = self.engine().leases().views(self.engine().me());
        views.sort_by_key(|view| std::cmp::Reverse((view.window.start, view.lease_id)));
        views.iter().map(|view| self.lease_dto(view)).collect()
    }

    pub(super) fn lease(&self, prefix: &Prefix) -> Result<Lease, ApiError> {
        Ok(self.lease_dto(&self.lease_view(prefix)?))
    }

    /// A node that redeems its own certificate has both sides of the lease: it is shown as
    /// the holder's.
    fn lease_view(&self, prefix: &Prefix) -> Result<LeaseView, ApiError> {
        let mut views: BTreeMap<LeaseId, LeaseView> = BTreeMap::new();
        for view in self.engine().leases().views(self.engine().me()) {
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
            holder: view.holder.to_string(),
            provider: view.provider.to_string(),
            role: role.to_owned(),
            class: self.class_of_certificate(&view.cert_id),
            window: slot_range(view.window),
            backend: "wasm".to_owned(),
            phase: view.phase.clone(),
            exit_code: exit_code(view.outcome.as_ref()),
            outcome: view.outcome.as_ref().map(|outcome| outcome_name(outcome).to_owned()),
            started_at: view.started_at_ms,
            ended_at: view.ended_at_ms,
            delivered_s: seconds(view.delivered_ms),
            cpu_us: view.usage.cpu_us,
            memory_peak_bytes: view.usage.memory_peak_bytes,
            receipts: view.receipts,
            countersigned: view.receipts > 0 && view.countersigned == view.receipts,
            results: self.result_files(view),
            left_behind: view.left_behind.clone(),
            code: view.refusal.clone(),
        }
    }

    fn result_files(&self, view: &LeaseView) -> Vec<ResultFile> {
        if view.role == LeaseRole::Provider {
            return Vec::new();
        }
        let dir = self.follower.dir(&view.lease_id).join("results");
        let fetched = self.result_names(&view.lease_id).iter().filter_map(|name| {
            let content = fs::read(dir.join(name)).ok()?;
            Some(ResultFile {
                name: name.clone(),
                sha256: to_hex(&sha256(&[&content])),
                bytes: content.len() as u64,
            })
        });
        fetched.collect()
    }

    pub(super) fn lease_log(
        &self,
        prefix: &Prefix,
        stream: Stream,
        from: u64,
    ) -> Result<Part, ApiError> {
        let view = self.lease_view(prefix)?;
        let stream = match stream {
            Stream::Stdout => objects::Stream::Stdout,
            Stream::Stderr => objects::Stream::Stderr,
        };
        if view.role == LeaseRole::Provider {
            let chunk = self.outside.leases.executor.read_log(
                &view.lease_id,
                stream,
                from,
                LEASE_CHUNK_BYTES,
            );
            return chunk
                .map(|chunk| Part { bytes: chunk.bytes, end: chunk.end })
                .map_err(|error| ApiError::coded(error.code(), error.to_string()));
        }
        let dir = self.follower.dir(&view.lease_id);
        // A file that is not there yet has no bytes yet.
        let bytes =
            read_at(&dir.join(stream_file(stream)), from, LEASE_CHUNK_BYTES).unwrap_or_default();
        let end = bytes.len() < LEASE_CHUNK_BYTES && dir.join("done").exists();
        Ok(Part { bytes, end })
    }

    pub(super) fn lease_result(
        &self,
        prefix: &Prefix,
        name: &str,
        from: u64,
    ) -> Result<Part, ApiError> {
        let view = self.lease_view(prefix)?;
        let absent = || {
            ApiError::new(reason!("result.not_found"), "the lease has no such result here")
                .with_hint("results are fetched when the workload has ended")
        };
        if !self.result_names(&view.lease_id).iter().any(|result| result == name) {
            return Err(absent());
        }
        let path = self.follower.dir(&view.lease_id).join("results").join(name);
        let bytes = read_at(&path, from, LEASE_CHUNK_BYTES).map_err(|_| absent())?;
        let end = bytes.len() < LEASE_CHUNK_BYTES;
        Ok(Part { bytes, end })
    }

    /// Redeems, keeps the content, and follows the lease from then on.
    pub(super) fn answer_redeem(
        &mut self,
        call: RedeemCall,
        answer: oneshot::Sender<Result<Answer, ApiError>>,
    ) {
        let digest = |bytes: &[u8]| Digest(sha256(&[bytes]));
        let mut blobs = BTreeMap::new();
        let component = digest(&call.component);
        let component_bytes = call.component.len() as u64;
        blobs.insert(component, call.component);
        let mut inputs = Vec::new();
        for (name, bytes) in call.inputs {
            let file = InputFile { name, digest: digest(&bytes), bytes: bytes.len() as u64 };
            blobs.insert(file.digest, bytes);
            inputs.push(file);
        }
        let workload = Workload {
            kind: WorkloadKind::Wasm,
            component,
            component_bytes,
            args: call.args,
            inputs,
            results: call.results,
        };
        if let Err(error) = self.follower.keep(&workload, &blobs) {
            let failed = ApiError::new(reason!("node.io"), error.to_string());
            let _ = answer.send(Err(failed));
            return;
        }
        let (done, waiting) = oneshot::channel();
        let command = Command::Redeem { cert: call.cert, workload: Box::new(workload) };
        self.command(command, Some(done));
        let events = self.follow_events.clone();
        self.served.spawn(async move {
            let result = match waiting.await {
                Ok(Ok(Done::Redeemed { lease })) => {
                    let _ = events.send(crate::node::follow::FollowEvent::Redeemed(lease)).await;
                    Ok(Done::Redeemed { lease }.into())
                }
                Ok(Ok(done)) => Ok(done.into()),
                Ok(Err(refusal)) => Err(refusal.into()),
                Err(_) => Err(ApiError::new(reason!("api.stopping"), "the node is stopping")),
            };
            let _ = answer.send(result);
        });
    }

    /// Follows a held lease until nothing is left to fetch.
    pub(in crate::node) fn follow(&mut self, lease: LeaseId) {
        let leases = self.engine().leases();
        let views = leases.views(self.engine().me());
        let held = |view: &&LeaseView| view.lease_id == lease && view.role == LeaseRole::Holder;
        let (Some(view), Some(workload)) = (views.iter().find(held), leases.workload(&lease))
        else {
            return;
        };
        if view.refusal.is_some() {
            return;
        }
        let params = self.engine().params();
        let ends_at_ms = view.window.ends_at_ms(params.slot_s);
        let followed = Followed {
            lease,
            provider: view.provider,
            workload: workload.clone(),
            until_ms: ends_at_ms + params.lease.grace_ms + params.lease.retention_ms,
        };
        self.follower.follow(followed);
    }

    fn result_names(&self, lease: &LeaseId) -> &[String] {
        self.engine().leases().workload(lease).map_or(&[], |workload| &workload.results)
    }

    fn class_of_certificate(&self, cert: &CertId) -> String {
        let held = self.engine().holdings().held(cert);
        let facts = held.or_else(|| self.engine().register().issued(cert));
        facts.map(|facts| self.class_name(facts.class)).unwrap_or_default()
    }
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
    }
}
