//! Redemptions: the content is hashed and kept on the disk beside the loop, before the
//! engine may promise to upload it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::api::{Answer, ApiError, RedeemCall};
use crate::executor::inspect;
use crate::node::Node;
use crate::node::lease_client::{Content, NotKept};
use capex_core::engine::leases::LeaseCommand;
use capex_core::ids::{CertId, Digest};
use capex_core::lease::objects::{InputFile, Workload, WorkloadKind};
use capex_core::lease::workload;
use capex_core::reason;
use capex_core::wire::sha256;

/// Redemptions whose content is in memory: each has up to 64 MiB.
const REDEMPTIONS_MAX: usize = 4;

type Reply = oneshot::Sender<Result<Answer, ApiError>>;

/// A redemption on its way to the engine.
pub(in crate::node) struct Redemption {
    cert: CertId,
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
    pub(super) fn answer_redeem(&mut self, call: RedeemCall, reply: Reply) {
        let Ok(turn) = Arc::clone(&self.redemptions.turns).try_acquire_owned() else {
            let _ = reply.send(Err(busy("the node is taking other workloads")));
            return;
        };
        let events = self.redemptions.events.clone();
        let memory_bytes = self.memory_of(&call.cert);
        tokio::task::spawn_blocking(move || {
            // Nothing is asked of the provider for what cannot run: it would consume the
            // certificate.
            let fits = inspect(&call.component).and_then(|needs| needs.fit(memory_bytes));
            if let Err(unfit) = fits {
                let _ = reply.send(Err(ApiError::new(unfit.reason(), unfit.to_string())));
                return;
            }
            let cert = call.cert;
            let (workload, content) = named(call);
            let digest = workload::digest(&workload);
            let (workload, stage) = (Box::new(workload), Stage::Named(content));
            // The loop is gone only when the node stops.
            let _ = events.blocking_send(Redemption { cert, workload, digest, stage, reply, turn });
        });
    }

    /// Memory of all blocks of a certificate; as much as there can be of one that is not known
    /// here, which the engine refuses.
    fn memory_of(&self, cert: &CertId) -> u64 {
        let memory = self.engine().holdings().held(cert).and_then(|facts| {
            let class = self.engine().params().class(facts.class)?;
            let units = u64::from(facts.units.count());
            Some((u64::from(class.floors.memory_mib) << 20).saturating_mul(units))
        });
        memory.unwrap_or(u64::MAX)
    }

    /// A redemption is a step further.
    pub(in crate::node) fn on_redemption(&mut self, redemption: Redemption) {
        let Redemption { cert, workload, digest, stage, reply, turn } = redemption;
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
                    let kept = Redemption { cert, workload, digest, stage, reply, turn };
                    let _ = events.blocking_send(kept);
                };
                self.outside.held.keep(digest, content, Box::new(kept));
            }
            Stage::Kept(Ok(())) => {
                drop(turn);
                self.answer_command(LeaseCommand::Redeem { cert, workload }.into(), reply);
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

/// A workload by its content.
fn named(call: RedeemCall) -> (Workload, Content) {
    let digest = |bytes: &[u8]| Digest(sha256(&[bytes]));
    let mut content = Content::new();
    let component = digest(&call.component);
    let component_bytes = call.component.len() as u64;
    content.insert(component, call.component);
    let mut inputs = Vec::new();
    for (name, bytes) in call.inputs {
        let file = InputFile { name, digest: digest(&bytes), bytes: bytes.len() as u64 };
        content.insert(file.digest, bytes);
        inputs.push(file);
    }
    let (args, results) = (call.args, call.results);
    let kind = WorkloadKind::Wasm;
    (Workload { kind, component, component_bytes, args, inputs, results }, content)
}
