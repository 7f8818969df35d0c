//! The node: the only event loop. Inputs in, effects out, in order.
//!
//! Start-up opens the store (which takes the lock of the data directory), gives the engine
//! every record, then starts the chain source, the network and the API. Nothing after a
//! `Persist` is performed before its fsync. A store that cannot write ends the node: a
//! promise that is not on disk must not be made.

// A new variant must be decided on wherever it arrives; a test looks for what it expects.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod access;
mod answer;
mod beside;
mod chain_task;
mod clock;
pub mod config;
mod faucet;
mod history;
mod host;
mod lease_client;
mod lease_host;
pub mod newcomer;
mod offload;
mod owner;
mod peers;
mod presence;
mod shell;
mod startup;
mod verify;

use std::future::Future;
use std::time::{Duration, Instant};

use capex_network::{Event as NetEvent, InboundStream};
use tokio::sync::mpsc;

use self::beside::Beside;
use self::chain_task::ChainEvent;
use self::config::Config;
use self::presence::Presence;
use self::shell::{CommandAnswer, Outside};
use crate::api;
use crate::backup::Keeper;
use crate::chain::{Behind, ChainUpdate};
use crate::clock::now_ms;
use crate::definitions;
use crate::driver::{Driver, Fault, Shell as _};
use crate::executor::LeaseEvent;
use capex_core::engine::contacts::ContactsCommand;
use capex_core::engine::{Command, Engine, Input, Protocol, Topic};
use capex_core::ids::Key;
use capex_core::reason;
use capex_core::reasons::Reason;

/// Shortest pause between two ticks that nothing else asks for.
const TICK_MIN: Duration = Duration::from_millis(1);

/// Why a node ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Directory, lock or journal.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
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
    Io { what: String, source: std::io::Error },
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] crate::store::SecretError),
    /// More for sale than there is.
    #[error("{0}")]
    Capacity(String),
    /// A secret that is not the store's.
    #[error(transparent)]
    Owner(#[from] owner::OwnerError),
    /// The backup that is written by itself.
    #[error(transparent)]
    Backup(#[from] crate::backup::BackupError),
    /// A task has ended before the node: without it nothing of what it told can be believed.
    #[error("a task of the node has failed: {0}")]
    Task(String),
    /// The loop cannot go on.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl NodeError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Wallet(error) => error.code(),
            Self::Network(error) => error.code(),
            Self::Executor(error) => error.code(),
            Self::Io { .. } => "node.io",
            Self::Identity(error) => error.code(),
            Self::Capacity(_) => "capacity.exceeds_host",
            Self::Owner(error) => error.reason().code(),
            Self::Backup(error) => error.code(),
            Self::Task(_) => "node.panic",
            Self::Fault(fault) => fault.code(),
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fault(Fault::Halt(fault)) => Some(fault.hint()),
            Self::Store(_)
            | Self::Wallet(_)
            | Self::Network(_)
            | Self::Executor(_)
            | Self::Io { .. }
            | Self::Identity(_)
            | Self::Owner(_)
            | Self::Capacity(_)
            | Self::Backup(_)
            | Self::Task(_)
            | Self::Fault(_) => Reason::find(self.code()).and_then(Reason::hint),
        }
    }
}

/// Everything that the loop owns.
struct Node {
    config: Config,
    driver: Driver,
    outside: Outside,
    /// The backup that is written by itself.
    backup: Option<Keeper>,
    redemptions: answer::Redemptions,
    chain_status: ChainStatus,
    presence: Presence,
    /// What of the units for sale this machine does not have.
    overcommitted: Option<String>,
    /// Answers that are being prepared.
    served: Beside,
    /// Where streams of peers ask whether they may.
    asks: mpsc::Sender<access::Asked>,
    /// For what this node asks itself beside the loop.
    api: api::ApiHandle,
    studies: offload::Studies,
    stop: bool,
}

/// What `status` says of the chain source.
#[derive(Debug, Default)]
struct ChainStatus {
    /// Why its facts are none, or old: the reason code and what people read.
    trouble: Option<(&'static str, String)>,
    /// Time of its last block.
    tip_at_ms: Option<u64>,
}

impl ChainStatus {
    /// Why nothing is known of the chain now: a reason code, and a sentence.
    fn trouble(&self) -> (&'static str, String) {
        let Some((code, why)) = &self.trouble else {
            return ("chain.down", "it has not answered yet".to_owned());
        };
        let reason =
            Reason::find(code).filter(|_| matches!(*code, "chain.behind" | "chain.pruned"));
        let Some(reason) = reason else { return ("chain.down", why.clone()) };
        let hint = reason.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        (reason.code(), format!("{why}{hint}"))
    }

    fn learn(&mut self, update: &ChainUpdate) {
        let trouble = update.behind.map(|behind| match behind {
            Behind::Reading { to } => format!("reading block {} of {to}", update.height),
            Behind::Downloading { .. } | Behind::Old { .. } => behind.to_string(),
        });
        if let Some(what) = &trouble
            && self.trouble.is_none()
        {
            tracing::info!(code = Behind::CODE, "{what}");
        }
        self.trouble = trouble.map(|what| (Behind::CODE, what));
        if update.tip_time_s > 0 {
            self.tip_at_ms = Some(u64::from(update.tip_time_s) * 1000);
        }
    }
}

/// Channels on which the outside speaks to the loop.
struct Sources {
    network: mpsc::Receiver<NetEvent>,
    chain: mpsc::Receiver<ChainEvent>,
    executor: mpsc::Receiver<LeaseEvent>,
    answers: mpsc::UnboundedReceiver<Input>,
    written: mpsc::UnboundedReceiver<shell::Written>,
    checked: mpsc::Receiver<Vec<Input>>,
    /// What became of leases and their files.
    leases: mpsc::Receiver<Input>,
    redemptions: mpsc::Receiver<answer::Redemption>,
    /// Streams that peers have opened, and what they are for.
    streams: mpsc::Receiver<InboundStream>,
    asked: mpsc::Receiver<access::Asked>,
    api: mpsc::Receiver<api::Request>,
}

/// Runs a node until `shutdown` completes.
///
/// # Errors
/// What kept it from starting, or a disk that cannot be written any more.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), NodeError> {
    let (mut node, mut sources, mut tasks) = startup::open(config).await?;
    tokio::pin!(shutdown);
    let result = loop {
        if let Some(fault) = node.driver.take_fault() {
            break Err(fault.into());
        }
        let timeout = node.next_timeout();
        // A busy channel must not starve the timer.
        if timeout.is_zero() {
            node.feed(Input::Tick);
        }
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            failed = tasks.failed() => break Err(failed),
            Some(event) = sources.network.recv() => node.on_network(event),
            Some(event) = sources.chain.recv() => node.on_chain(event),
            Some(event) = sources.executor.recv() => node.on_executor(&event),
            Some(input) = sources.answers.recv() => node.feed(input),
            Some(written) = sources.written.recv() => node.on_written(written),
            Some(checked) = sources.checked.recv() => {
                checked.into_iter().for_each(|input| node.feed(input));
            }
            Some(input) = sources.leases.recv() => node.feed(input),
            Some(redemption) = sources.redemptions.recv() => node.on_redemption(redemption),
            Some(inbound) = sources.streams.recv() => node.on_stream(inbound),
            Some(asked) = sources.asked.recv() => node.on_asked(asked),
            Some(request) = sources.api.recv() => node.on_api(request),
            () = tokio::time::sleep(timeout.max(TICK_MIN)) => node.feed(Input::Tick),
        }
        node.outside.peers.tend(Instant::now());
        if node.stop && !node.driver.has_failed() {
            break Ok(());
        }
    };
    tracing::info!("shutting down");
    node.outside.network.shutdown().await;
    // Who waits for an answer is told that the node is stopping, and does not hold up its end.
    drop(sources);
    node.outside.forget_commands();
    tasks.shutdown().await;
    let flushed = node.outside.store.durable_flush();
    // Why the node ended says more than what came of its end.
    result.and(flushed.map_err(NodeError::from))
}

impl Node {
    fn engine(&self) -> &Engine {
        self.driver.engine()
    }

    fn next_timeout(&self) -> Duration {
        let now = now_ms();
        let (due, timer) = self.driver.poll_timeout(now);
        tracing::trace!(timer = timer.name(), due, "sleeps");
        Duration::from_millis(due.saturating_sub(now))
    }

    /// Gives the engine an input, and performs all that follows from it.
    fn feed(&mut self, input: Input) {
        self.driver.feed(&mut self.outside, input);
    }

    /// Records are on disk, or the disk cannot be written: a promise that is not there must not
    /// be made.
    fn on_written(&mut self, written: shell::Written) {
        match written {
            Ok(seq) => self.feed(Input::Persisted { seq }),
            Err(error) => self.driver.fail(error),
        }
    }

    fn on_network(&mut self, event: NetEvent) {
        match event {
            NetEvent::Gossip { peer, topic, bytes, ticket } => {
                let Some(topic) = Topic::from_name(&topic) else { return };
                self.feed(Input::Gossip { peer: Key(peer.0), topic, bytes, ticket: ticket.0 });
            }
            NetEvent::Request { id, protocol, bytes, .. } if protocol == definitions::PROTOCOL => {
                self.outside.reply(id, definitions::answer(&self.config.definition, &bytes));
            }
            NetEvent::Request { peer, id, protocol, bytes } => {
                let Some(protocol) = Protocol::from_name(&protocol) else { return };
                let peer = Key(peer.0);
                self.feed(Input::Request { peer, id, protocol, bytes });
            }
            NetEvent::Response { id, result } => {
                let result = result.map_err(|error| error.to_string());
                self.feed(Input::Response { id, result });
            }
            NetEvent::PeerUp { peer, addr, outbound } => {
                let key = Key(peer.0);
                if outbound {
                    self.outside.peers.reached(key, addr);
                }
                self.driver.on_peer(&mut self.outside, key, true);
            }
            NetEvent::PeerDown { peer } => {
                let key = Key(peer.0);
                self.driver.on_peer(&mut self.outside, key, false);
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
        if self.presence.listening.contains(&addr) {
            return;
        }
        tracing::info!(%addr, "listening");
        self.presence.listening.push(addr);
        self.tell_endpoints();
        let addrs = self.presence.listening.clone();
        self.command(ContactsCommand::SetAddresses(addrs).into(), None);
    }

    fn on_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::Update(update) => {
                if self.driver.on_chain(&mut self.outside, &update) {
                    self.chain_status.learn(&update);
                }
            }
            ChainEvent::Broadcasted { tx, result } => {
                self.driver.on_broadcasted(&mut self.outside, &tx, result);
            }
            ChainEvent::Down(error) => {
                if self.chain_status.trouble.is_none() {
                    tracing::warn!(code = error.code(), %error, "the chain source does not answer");
                }
                self.chain_status.trouble = Some((error.code(), error.to_string()));
                self.feed(Input::ChainSource { up: false });
            }
        }
    }

    fn on_executor(&mut self, event: &LeaseEvent) {
        if let LeaseEvent::Failed { lease, code, reason, .. } = event {
            tracing::warn!(%lease, code, %reason, "a workload never ran");
        }
        if event.cause() == Some(reason!("runtime.gone").code()) {
            self.look_at_host();
        }
        let (lease, events) = event.for_engine();
        for event in events {
            self.feed(Input::Executor { lease, event });
        }
    }

    /// Finds out again what this machine does for leases: no certificate is to be used up for what it
    /// cannot do any more.
    fn look_at_host(&mut self) {
        let (config, api) = (self.config.clone(), self.api.clone());
        self.served.spawn(async move {
            // Refused or in vain only when the node stops.
            let look = tokio::task::spawn_blocking(move || config.host_commands());
            let Ok(told) = look.await else { return };
            tracing::warn!("this host was looked at again");
            for command in told {
                let _ = api.command(command).await;
            }
        });
    }

    /// Gives the engine a command.
    fn command(&mut self, command: Command, answer: Option<CommandAnswer>) {
        let id = self.outside.new_command(answer);
        self.feed(Input::Command { id, command });
    }
}
