//! Redemptions, and other workloads for a lease: the content is hashed and kept on the disk beside
//! the loop, before the engine may promise to upload it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::api::types::{EnvBody, Restart};
use crate::api::{Answer, ApiError, RedeemCall, Target};
use crate::executor::{Blob, Given, ImageError, check_program, inspect, open_image, pulls};
use crate::node::Node;
use crate::node::lease_client::{Content, NotKept, Source};
use crate::sealed::seal;
use capex_core::engine::Command;
use capex_core::engine::io::{Done, Refusal};
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::market::OrderSpec;
use capex_core::ids::Digest;
use capex_core::lease::objects::{
    Content as ContentName, EnvValue, EnvVar, InputFile, Payload, RestartPolicy, Workload,
};
use capex_core::lease::pull::ImageRef;
use capex_core::lease::workload;
use capex_core::reason;
use capex_core::wire::sha256;

/// Redemptions whose content is in memory: each has up to 64 MiB.
const REDEMPTIONS_MAX: usize = 4;

type Reply = oneshot::Sender<Result<Answer, ApiError>>;

/// A redemption on its way to the engine.
pub(in crate::node) struct Redemption {
    target: Target,
    workload: Box<Workload>,
    digest: Digest,
    stage: Stage,
    reply: Reply,
    turn: OwnedSemaphorePermit,
}

enum Stage {
    Named(Content),
    /// The content is on the disk, or why it is not.
    Kept(std::io::Result<()>),
}

/// How many redemptions there may be at once, and how they come back to the loop.
pub(in crate::node) struct Redemptions {
    turns: Arc<Semaphore>,
    events: mpsc::Sender<Redemption>,
}

impl Redemptions {
    pub(in crate::node) fn new(events: mpsc::Sender<Redemption>) -> Self {
        Self { turns: Arc::new(Semaphore::new(REDEMPTIONS_MAX)), events }
    }
}

impl Node {
    /// Begins a redemption.
    pub(super) fn answer_redeem(&mut self, mut call: RedeemCall, reply: Reply) {
        let Ok(turn) = Arc::clone(&self.redemptions.turns).try_acquire_owned() else {
            let _ = reply.send(Err(busy("the node is taking other workloads")));
            return;
        };
        let events = self.redemptions.events.clone();
        let (memory_bytes, disk_bytes) = self.room_of(&call.target);
        let sealed = match self.sealed(&mut call) {
            Ok(sealed) => sealed,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let pulled = match self.ask_pulled(&call) {
            Ok(pulled) => pulled,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let incoming = self.outside.held.incoming();
        tokio::task::spawn_blocking(move || {
            let target = call.target.clone();
            let room = (memory_bytes, disk_bytes);
            let taken = match pulled {
                Some(pulled) => pulled.taken(call, sealed, disk_bytes),
                None => taken((call, sealed), room, &incoming),
            };
            let (workload, content) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return;
                }
            };
            let digest = workload::digest(&workload);
            let (workload, stage) = (Box::new(workload), Stage::Named(content));
            // The loop is gone only when the node stops.
            let _ =
                events.blocking_send(Redemption { target, workload, digest, stage, reply, turn });
        });
    }

    /// Asks the provider for what it has of an image that it shall have fetched.
    fn ask_pulled(&mut self, call: &RedeemCall) -> Result<Option<Asked>, ApiError> {
        let Some(text) = &call.body.pull else { return Ok(None) };
        let image = ImageRef::parse(text).ok_or_else(|| {
            ApiError::new(reason!("pull.name"), "`pull` is not of the form NAME@sha256:DIGEST")
        })?;
        let cert = match &call.target {
            Target::Certificate(cert) => Some(*cert),
            Target::Lease(lease) => self.engine().leases().certificate(lease),
            Target::Order(_) => {
                let why = "a registry is reached by a provider, and there is none yet";
                return Err(ApiError::new(reason!("pull.needs_certificate"), why));
            }
        };
        let cert = cert.ok_or_else(|| ApiError::coded("lease.not_found", "not held here"))?;
        let (told, answer) = oneshot::channel();
        self.command(LeaseCommand::Pull { cert, image: image.clone() }.into(), Some(told));
        Ok(Some(Asked { image, answer }))
    }

    /// Closes values for the provider of the certificate.
    fn sealed(&self, call: &mut RedeemCall) -> Result<Vec<EnvVar>, ApiError> {
        let plain = std::mem::take(&mut call.body.env_sealed);
        if plain.is_empty() {
            return Ok(Vec::new());
        }
        let refused = |text: &str| ApiError::new(reason!("workload.sealed"), text);
        let cert = match &call.target {
            Target::Certificate(cert) => Some(*cert),
            // They are bound to the certificate with which the lease began.
            Target::Lease(lease) => self.engine().leases().certificate(lease),
            Target::Order(_) => return Err(refused("nobody can say yet who will open it")),
        };
        let cert = cert.ok_or_else(|| ApiError::coded("lease.not_found", "not held here"))?;
        let facts = self.engine().holdings().held(&cert);
        let provider = facts.map(|facts| facts.provider);
        let provider = provider
            .ok_or_else(|| ApiError::coded("redeem.unknown_certificate", "not held here"))?;
        let seal = |EnvBody { name, value }: EnvBody| {
            let value = Zeroizing::new(value);
            let bytes = seal(&provider, &cert, &name, &value)
                .map_err(|error| refused(&error.to_string()))?;
            Ok(EnvVar { name, value: EnvValue::Sealed(bytes) })
        };
        plain.into_iter().map(seal).collect()
    }

    /// Memory and disk of all blocks of a certificate; as much as there can be of one that is not
    /// known here, which the engine refuses.
    fn room_of(&self, target: &Target) -> (u64, u64) {
        let cert = match target {
            Target::Certificate(cert) => Some(*cert),
            Target::Lease(lease) => self.engine().leases().certificate(lease),
            Target::Order(spec) => return self.room_of_order(spec),
        };
        let room = cert.and_then(|cert| {
            let facts = self.engine().holdings().held(&cert)?;
            let floors = &self.engine().params().class(facts.class)?.floors;
            let units = u64::from(facts.units.count());
            let bytes = |mib: u32| (u64::from(mib) << 20).saturating_mul(units);
            Some((bytes(floors.memory_mib), bytes(floors.disk_mib)))
        });
        room.unwrap_or((u64::MAX, u64::MAX))
    }

    /// The most that an order can bring at once.
    fn room_of_order(&self, spec: &OrderSpec) -> (u64, u64) {
        let params = self.engine().params();
        let classes = spec.alts.iter().filter_map(|alt| params.class(alt.class));
        let bytes = |mib: u32| (u64::from(mib) << 20).saturating_mul(u64::from(spec.qty));
        let (memory, disk): (Vec<u64>, Vec<u64>) = classes
            .map(|class| (bytes(class.floors.memory_mib), bytes(class.floors.disk_mib)))
            .unzip();
        let most = |all: Vec<u64>| all.into_iter().max().unwrap_or(u64::MAX);
        (most(memory), most(disk))
    }

    /// A redemption is a step further.
    pub(in crate::node) fn on_redemption(&mut self, redemption: Redemption) {
        let Redemption { target, workload, digest, stage, reply, turn } = redemption;
        match stage {
            Stage::Named(content) => {
                let events = self.redemptions.events.clone();
                let kept = move |result| {
                    let stage = match result {
                        Ok(()) => Stage::Kept(Ok(())),
                        Err(NotKept::Disk(error)) => Stage::Kept(Err(error)),
                        Err(NotKept::Busy) => {
                            let _ = reply.send(Err(busy("the disk has too much to do")));
                            return;
                        }
                    };
                    let kept = Redemption { target, workload, digest, stage, reply, turn };
                    let _ = events.blocking_send(kept);
                };
                self.outside.held.keep(digest, content, Box::new(kept));
            }
            Stage::Kept(Ok(())) => {
                drop(turn);
                let command = match target {
                    Target::Certificate(cert) => LeaseCommand::Redeem { cert, workload }.into(),
                    Target::Lease(lease) => LeaseCommand::Replace { lease, workload }.into(),
                    Target::Order(spec) => Command::Buy { spec, workload },
                };
                self.answer_command(command, reply);
                // From here on the engine says what is needed.
                self.outside.held.handed_over(&digest);
            }
            Stage::Kept(Err(error)) => {
                self.outside.held.handed_over(&digest);
                let _ = reply.send(Err(ApiError::new(reason!("node.io"), error.to_string())));
            }
        }
    }
}

fn busy(why: &str) -> ApiError {
    ApiError::new(reason!("api.busy"), why)
}

/// Takes a workload apart into its content. Nothing is asked of the provider for what cannot
/// run: it would consume the certificate.
fn taken(
    (call, sealed): (RedeemCall, Vec<EnvVar>),
    (memory_bytes, disk_bytes): (u64, u64),
    incoming: &Path,
) -> Result<(Workload, Content), ApiError> {
    let (payload, given) = match &call.body.image {
        None => {
            inspect(&call.component)
                .and_then(|needs| needs.fit(memory_bytes))
                .map_err(|unfit| ApiError::new(unfit.reason(), unfit.to_string()))?;
            (component(&call.component), None)
        }
        Some(path) => {
            let given = open_image(Path::new(path), &call.body.command).map_err(of_image)?;
            (payload(&given), Some(given))
        }
    };
    let (mut workload, mut content) = named(call, payload);
    workload.env.extend(sealed);
    checked(&workload, disk_bytes)?;
    let Some(given) = given else { return Ok((workload, content)) };
    let mut staged = BTreeMap::new();
    let kept = given.blobs().try_for_each(|blob| {
        staged.insert(blob.digest, stage(blob, incoming)?);
        Ok(())
    });
    let kept = kept.and_then(|()| check_program(&given, &workload.command, &staged, disk_bytes));
    if let Err(error) = kept {
        // What stays behind goes with the next start.
        staged.values().for_each(|path| drop(std::fs::remove_file(path)));
        return Err(of_image(error));
    }
    content.extend(staged.into_iter().map(|(digest, path)| (digest, Source::Staged(path))));
    Ok((workload, content))
}

/// What was asked of a provider that has fetched an image.
struct Asked {
    image: ImageRef,
    answer: oneshot::Receiver<Result<Done, Refusal>>,
}

impl Asked {
    /// A workload of the image. Only its inputs are to be sent: all else is there, by digests that
    /// this node has checked.
    fn taken(
        self,
        call: RedeemCall,
        sealed: Vec<EnvVar>,
        disk_bytes: u64,
    ) -> Result<(Workload, Content), ApiError> {
        let done = self
            .answer
            .blocking_recv()
            .map_err(|_| ApiError::new(reason!("api.stopping"), "the node is stopping"))??;
        let Done::Pulled(pulled) = done else { return Err(ApiError::internal("expected Pulled")) };
        if pulled.documents.is_empty() {
            let (received, total) = (pulled.received_bytes, pulled.total_bytes);
            let why = format!("{received} of {total} bytes are there");
            return Err(ApiError::new(reason!("pull.waits"), why));
        }
        let payload = pulls::payload(&self.image, &pulled.documents, &call.body.command)
            .map_err(|reason| ApiError::new(reason, self.image.to_string()))?;
        let (mut workload, content) = named(call, payload);
        workload.env.extend(sealed);
        checked(&workload, disk_bytes)?;
        Ok((workload, content))
    }
}

fn checked(workload: &Workload, disk_bytes: u64) -> Result<(), ApiError> {
    workload::validate(workload, disk_bytes)
        .map_err(|error| ApiError::new(error.reason(), error.to_string()))
}

fn of_image(error: ImageError) -> ApiError {
    ApiError::new(error.reason(), error.to_string())
}

fn component(bytes: &[u8]) -> Payload {
    let digest = Digest(sha256(&[bytes]));
    Payload::Wasm { component: ContentName { digest, bytes: bytes.len() as u64 } }
}

fn payload(given: &Given) -> Payload {
    let name = |blob: &Blob| ContentName { digest: blob.digest, bytes: blob.bytes };
    match given {
        Given::Image { manifest, others } => {
            Payload::Oci { manifest: name(manifest), blobs: others.iter().map(name).collect() }
        }
        Given::Rootfs(archive) => Payload::Rootfs { archive: name(archive) },
    }
}

/// Copies content into a file of its own, from where it is only moved.
fn stage(blob: &Blob, incoming: &Path) -> Result<PathBuf, ImageError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = incoming.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    match blob.copy_to(&path) {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// A workload by its content.
fn named(call: RedeemCall, payload: Payload) -> (Workload, Content) {
    let digest = |bytes: &[u8]| Digest(sha256(&[bytes]));
    let mut content = Content::new();
    if let Payload::Wasm { component } = &payload {
        content.insert(component.digest, Source::Bytes(call.component));
    }
    let mut inputs = Vec::new();
    for (name, bytes) in call.inputs {
        let file = InputFile { name, digest: digest(&bytes), bytes: bytes.len() as u64 };
        content.insert(file.digest, Source::Bytes(bytes));
        inputs.push(file);
    }
    let body = call.body;
    let env = body.env.into_iter();
    let env = env.map(|EnvBody { name, value }| EnvVar { name, value: EnvValue::Plain(value) });
    let mut ports = body.ports;
    ports.sort_unstable();
    let workload = Workload {
        command: body.command,
        env: env.collect(),
        workdir: body.workdir,
        inputs,
        results: body.results,
        ports,
        egress: body.egress,
        grace_ms: body.grace_ms,
        stop_signal: body.stop_signal,
        restart: match body.restart {
            Restart::No => RestartPolicy::No,
            Restart::OnFailure => RestartPolicy::OnFailure,
            Restart::Always => RestartPolicy::Always,
        },
        ..Workload::of(payload)
    };
    (workload, content)
}
