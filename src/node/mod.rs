//! The node: the only event loop. Inputs in, effects out, in order.
//!
//! Start-up opens the store (which takes the lock of the data directory), gives the engine
//! every record, then starts the chain source, the network and the API. Nothing after a
//! `Persist` is performed before its fsync. A store that can not write ends the node: a
//! promise that is not on disk must not be made.

mod answer;
pub(crate) mod bridge;
mod chain_task;
mod clock;
pub mod config;
mod effects;
mod faucet;
mod follow;
mod leases;
mod peers;
mod startup;
mod study;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capex_network::{Event as NetEvent, Handle, PeerKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::chain_task::{ChainCommand, ChainEvent};
use self::config::Config;
use self::follow::{FollowEvent, Follower};
use crate::api;
use crate::chain::{Relevant, Watcher};
use crate::executor::{LeaseEvent, Manager};
use crate::store::Store;
use crate::wallet::Wallet;
use capex_core::engine::{Done, Engine, Input, Protocol, Refusal, Topic};
use capex_core::ids::{Key, LeaseId};
use capex_core::lease::ExecutorEvent;

/// Shortest pause between two ticks that nothing else asks for.
const TICK_MIN: Duration = Duration::from_millis(1);
/// Own requests to peers have ids above those of the engine.
const NODE_REQUEST_IDS: u64 = 1 << 63;
/// Inputs that one event may lead to; more means a loop of effects, which is a bug that
/// must not take the node with it.
const INPUTS_PER_EVENT_MAX: usize = 10_000;

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Directory, lock or journal.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A record of this node that this release cannot read.
    #[error(transparent)]
    Record(#[from] capex_core::engine::Unreadable),
    /// Seed file or wallet state.
    #[error(transparent)]
    Wallet(#[from] crate::wallet::WalletError),
    /// Listening or identity.
    #[error(transparent)]
    Network(#[from] capex_network::NetworkError),
    /// Directory of leases.
    #[error(transparent)]
    Executor(#[from] crate::executor::ExecutorError),
    /// A file or socket of the node itself.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] crate::store::SecretError),
}

impl NodeError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Record(_) => capex_core::engine::Unreadable::CODE,
            Self::Wallet(error) => error.code(),
            Self::Network(error) => error.code(),
            Self::Executor(error) => error.code(),
            Self::Io { .. } => "node.io",
            Self::Identity(error) => error.code(),
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Record(fault) => Some(fault.hint()),
            _ => None,
        }
    }
}

/// Milliseconds since 1970 by the wall clock.
#[must_use]
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// A request of the shell to a peer, with whoever waits for its answer.
struct PeerCall {
    peer: Key,
    bytes: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, String>>,
}

/// Everything that the loop owns.
struct Node {
    config: Config,
    engine: Engine,
    store: Arc<Mutex<Store>>,
    wallet: Wallet,
    network: Handle,
    chain: mpsc::Sender<ChainCommand>,
    chain_status: ChainStatus,
    watcher: Watcher,
    /// What concerns the engine of updates that it has not been told yet.
    backlog: Relevant,
    executor: Arc<Manager>,
    follower: Follower,
    mined: mpsc::Sender<(u64, u64)>,
    inputs: VecDeque<Input>,
    commands: BTreeMap<u64, oneshot::Sender<Result<Done, Refusal>>>,
    next_command: u64,
    calls: BTreeMap<u64, oneshot::Sender<Result<Vec<u8>, String>>>,
    clocks: clock::Clocks,
    next_call: u64,
    peers: peers::Peers,
    listening: Vec<String>,
    api_addr: String,
    started_at_ms: u64,
    rescan_from: Option<u32>,
    /// Results of leases on this host that their holders have not fetched yet.
    results_left: BTreeMap<LeaseId, BTreeSet<String>>,
    served: JoinSet<()>,
    studies: study::Studies,
    released: mpsc::Sender<(LeaseId, ExecutorEvent)>,
    follow_events: mpsc::Sender<FollowEvent>,
    endpoints: Option<api::endpoints::EndpointsFile>,
    stop: bool,
    fault: Option<NodeError>,
}

/// What `status` says of the chain source.
#[derive(Debug, Default)]
struct ChainStatus {
    up: bool,
    reason: Option<String>,
    tip_at_ms: Option<u64>,
}

/// Channels on which the outside speaks to the loop.
struct Sources {
    network: mpsc::Receiver<NetEvent>,
    chain: mpsc::Receiver<ChainEvent>,
    executor: mpsc::Receiver<LeaseEvent>,
    mined: mpsc::Receiver<(u64, u64)>,
    calls: mpsc::Receiver<PeerCall>,
    released: mpsc::Receiver<(LeaseId, ExecutorEvent)>,
    follow: mpsc::Receiver<FollowEvent>,
    api: mpsc::Receiver<api::Request>,
}

/// Runs a node until `shutdown` completes.
///
/// # Errors
/// What kept it from starting, or a disk that can not be written any more.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), NodeError> {
    let (mut node, mut sources, mut tasks) = startup::open(config).await?;
    tokio::pin!(shutdown);
    let result = loop {
        if let Some(fault) = node.fault.take() {
            break Err(fault);
        }
        node.ask_clocks();
        let timeout = node.next_timeout();
        // Whoever floods one of the channels must not keep the clock from being heard.
        if timeout.is_zero() {
            node.feed(Input::Tick);
        }
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(event) = sources.network.recv() => node.on_network(event),
            Some(event) = sources.chain.recv() => node.on_chain(event),
            Some(event) = sources.executor.recv() => node.on_executor(&event),
            Some((job, nonce)) = sources.mined.recv() => node.feed(Input::Mined { job, nonce }),
            Some(call) = sources.calls.recv() => node.on_call(call),
            Some((lease, event)) = sources.released.recv() => {
                node.feed(Input::Executor { lease, event });
            }
            Some(event) = sources.follow.recv() => node.on_follow(event),
            Some(request) = sources.api.recv() => node.on_api(request),
            () = tokio::time::sleep(timeout.max(TICK_MIN)) => node.feed(Input::Tick),
        }
        if node.stop && node.fault.is_none() {
            break Ok(());
        }
    };
    tracing::info!("shutting down");
    node.network.shutdown().await;
    tasks.shutdown().await;
    node.lock_store().durable_flush()?;
    result
}

impl Node {
    /// The store. Its lock can only be poisoned by a panic in the store itself, after which
    /// the next open repairs what is on disk.
    fn lock_store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn next_timeout(&self) -> Duration {
        let now = now_ms();
        let (due, _reason) = self.engine.poll_timeout(now);
        Duration::from_millis(due.saturating_sub(now))
    }

    /// Gives the engine an input, and performs all that follows from it.
    fn feed(&mut self, input: Input) {
        if self.fault.is_some() {
            // The engine is ahead of the disk: whatever it says now might be forgotten.
            return;
        }
        self.inputs.push_back(input);
        for _ in 0..INPUTS_PER_EVENT_MAX {
            let Some(input) = self.inputs.pop_front() else { break };
            self.engine.handle(now_ms(), input);
            while let Some(effect) = self.engine.poll_effect() {
                self.perform(effect);
                if self.fault.is_some() {
                    return;
                }
            }
        }
        if !self.inputs.is_empty() {
            tracing::error!(left = self.inputs.len(), "one event led to too many inputs");
            self.inputs.clear();
        }
        self.rescan_if_asked();
    }

    fn rescan_if_asked(&mut self) {
        let Some(height) = self.rescan_from else { return };
        // A full queue must not lose it: without the scan a trade would take what it can not
        // see for absent.
        if self.chain.try_send(ChainCommand::RescanFrom(height)).is_ok() {
            self.rescan_from = None;
        }
    }

    fn on_network(&mut self, event: NetEvent) {
        match event {
            NetEvent::Gossip { peer, topic, bytes, ticket } => {
                let Some(topic) = Topic::from_name(&topic) else { return };
                self.feed(Input::Gossip { peer: Key(peer.0), topic, bytes, ticket: ticket.0 });
            }
            NetEvent::Request { peer, id, protocol, bytes } => {
                let Some(protocol) = Protocol::from_name(&protocol) else { return };
                let peer = Key(peer.0);
                if protocol == Protocol::Lease && self.serve_lease(id, &bytes) {
                    return;
                }
                self.feed(Input::Request { peer, id, protocol, bytes });
            }
            NetEvent::Response { id, result } => {
                let result = result.map_err(|error| error.to_string());
                if self.on_clock(id, &result) {
                    return;
                }
                if id >= NODE_REQUEST_IDS {
                    if let Some(waiting) = self.calls.remove(&id) {
                        // Whoever asked may have stopped waiting.
                        let _ = waiting.send(result);
                    }
                } else {
                    self.feed(Input::Response { id, result });
                }
            }
            NetEvent::PeerUp { peer, addr, outbound } => {
                let key = Key(peer.0);
                if outbound {
                    self.peers.reached(key, addr);
                }
                self.feed(Input::Peer { key, up: true });
                self.feed(Input::Tick);
                self.ask_clock(key);
            }
            NetEvent::PeerDown { peer } => {
                self.forget_clock(&Key(peer.0));
                self.feed(Input::Peer { key: Key(peer.0), up: false });
            }
            NetEvent::Listening { addr } => self.on_listening(addr),
            NetEvent::Restarted { reason } => {
                tracing::error!(%reason, "the network task failed and was started again");
            }
            NetEvent::PublishFailed { topic, reason } => {
                tracing::debug!(%topic, %reason, "not published yet");
            }
        }
    }

    fn on_listening(&mut self, addr: String) {
        if self.listening.contains(&addr) {
            return;
        }
        tracing::info!(%addr, "listening");
        self.listening.push(addr);
        self.write_endpoints();
        let addrs = self.listening.clone();
        self.command(capex_core::engine::Command::SetAddresses(addrs), None);
    }

    fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Update(update) => self.on_chain_update(&update),
            ChainEvent::Broadcasted { tx, result } => self.on_broadcasted(&tx, result),
            ChainEvent::Down(reason) => {
                if self.chain_status.up || self.chain_status.reason.is_none() {
                    tracing::warn!(%reason, "the chain source does not answer");
                }
                self.chain_status.up = false;
                self.chain_status.reason = Some(reason);
                self.feed(Input::ChainSource { up: false });
            }
        }
    }

    fn on_broadcasted(&mut self, tx: &bitcoin::Transaction, result: Result<(), String>) {
        if result.is_ok() {
            // Change of an own funding can be spent before it confirms.
            if let Err(error) = self.wallet.mark_broadcast(tx, now_ms() / 1000) {
                self.fault = Some(error.into());
                return;
            }
            self.queue_wallet();
        }
        self.feed(Input::Broadcasted { txid: tx.compute_txid(), result });
    }

    fn on_chain_update(&mut self, update: &crate::chain::ChainUpdate) {
        if let Err(error) = self.wallet.apply(update, now_ms() / 1000) {
            if matches!(error, crate::wallet::WalletError::Store(_)) {
                self.fault = Some(error.into());
                return;
            }
            tracing::error!(%error, "the wallet refused a chain update");
            let height = update.height.saturating_sub(144);
            self.rescan_from = Some(self.rescan_from.map_or(height, |from| from.min(height)));
            self.rescan_if_asked();
            return;
        }
        self.chain_status.up = true;
        self.chain_status.reason = None;
        if !update.connected.is_empty() {
            self.chain_status.tip_at_ms = Some(now_ms());
        }
        self.backlog.append(self.watcher.reduce(update));
        if update.behind {
            // Half a scan would show old heights, and fundings without their spends: a
            // preimage could be revealed after its last height, or a lock be released.
            return;
        }
        let relevant = std::mem::take(&mut self.backlog);
        self.top_up_wallet();
        self.feed(Input::Chain(bridge::chain_facts(update, relevant)));
    }

    /// Tells the engine what the wallet can do, and gives it fresh scripts.
    fn top_up_wallet(&mut self) {
        self.queue_wallet();
        if let Some(input) = self.inputs.pop_front() {
            self.feed(input);
        }
    }

    fn on_executor(&mut self, event: &LeaseEvent) {
        let (lease, event) = event.for_engine();
        self.feed(Input::Executor { lease, event });
    }

    fn on_follow(&mut self, event: FollowEvent) {
        match event {
            FollowEvent::Receipts { lease, receipts } => {
                let command = capex_core::engine::Command::TakeReceipts { lease, receipts };
                self.command(command, None);
            }
            FollowEvent::Redeemed(lease) => self.follow(lease),
            FollowEvent::Done(lease) => tracing::info!(%lease, "output and results are here"),
            FollowEvent::Fetched { lease, name } => self.on_fetched(lease, &name),
        }
    }

    fn on_call(&mut self, call: PeerCall) {
        self.next_call += 1;
        let id = NODE_REQUEST_IDS + self.next_call;
        self.calls.insert(id, call.answer);
        self.send_network(capex_network::Command::Request {
            id,
            peer: PeerKey(call.peer.0),
            protocol: Protocol::Lease.name().to_owned(),
            bytes: call.bytes,
        });
    }

    /// Gives the engine a command; the answer goes to whoever waits for it.
    fn command(
        &mut self,
        command: capex_core::engine::Command,
        answer: Option<oneshot::Sender<Result<Done, Refusal>>>,
    ) {
        self.next_command += 1;
        let id = self.next_command;
        if let Some(answer) = answer {
            self.commands.insert(id, answer);
        }
        self.feed(Input::Command { id, command });
    }

    fn send_network(&mut self, command: capex_network::Command) {
        let unsent = match &command {
            capex_network::Command::Request { id, .. } => Some(*id),
            _ => None,
        };
        if let Err(error) = self.network.try_send(command) {
            tracing::warn!(code = error.code(), "the network is too busy; a message was dropped");
            // A request always gets an answer.
            if let Some(id) = unsent {
                let result = Err(error.code().to_owned());
                if self.on_clock(id, &result) {
                    return;
                }
                match self.calls.remove(&id) {
                    Some(waiting) => drop(waiting.send(result)),
                    None => self.inputs.push_back(Input::Response { id, result }),
                }
            }
        }
    }

    fn send_chain(&mut self, command: ChainCommand) {
        if self.chain.try_send(command).is_err() {
            tracing::warn!("the chain task is too busy; the engine's timers will ask again");
        }
    }
}
