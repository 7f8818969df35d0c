//! Moves bytes between Capex nodes: gossip with verdicts, and requests with answers.
//!
//! The crate knows no order and no certificate: it carries what the node hands it, names peers by
//! their ed25519 key, and tells the node what arrived. One task owns the libp2p swarm; the node
//! speaks to it through a [`Handle`] and a channel of [`Event`]s, both bounded.
//!
//! ```text
//! node ── Command ──▶ supervisor ─▶ swarm task ─▶ limits, identify, ping, gossipsub, request-response
//!      ◀── Event ────     │ a panic restarts the task: same identity, same ports, same peers
//! ```
//!
//! Rules the node can rely on:
//! - every [`Command::Request`] is answered by exactly one [`Event::Response`] within ten seconds or so;
//! - every [`Event::Gossip`] has a ticket; without a [`Command::Verdict`] within eight seconds it
//!   counts as [`Verdict::Ignore`];
//! - [`Event::PeerUp`] and [`Event::PeerDown`] alternate for each peer;
//! - a node that falls behind keeps its peers waiting; only a peer that takes more than its share
//!   of [`limits::MAX_TICKETS`] is refused. An answer is never lost, and waits behind no burst.
//!
//! Bounds and their reasons are in [`limits`]; what the node makes of a message is its own affair.

mod behaviour;
mod book;
mod config;
mod exchange;
mod gossip;
mod keys;
pub mod limits;
mod listen;
mod protocols;
mod request;
mod state;
mod streams;
mod subnets;
mod supervisor;
mod task;

use tokio::sync::{mpsc, oneshot, watch};

pub use config::{Config, ProtocolConfig, TopicConfig, check_address};
pub use keys::{ParsePeerKeyError, PeerKey, Secret};
pub use request::RequestError;
pub use streams::{InboundStream, Stream, StreamConfig};

use config::Plan;
use supervisor::{Input, Supervisor};

/// What the node thinks of a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Do not pass it on, and blame nobody: it depends on local state or on time.
    Ignore,
    /// Do not pass it on, and blame the peer: its bytes alone prove it wrong.
    Reject,
}

/// Names a gossip message that awaits its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the node tells the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Connect to a multiaddr, best with `/p2p/<id>`. Success is an [`Event::PeerUp`].
    Dial(String),
    /// Publish on a joined topic. Without a subscriber the message waits for one, for two epochs.
    Publish {
        topic: String,
        /// The message, at most the topic's `max_bytes`.
        bytes: Vec<u8>,
    },
    /// The verdict on a gossip message; a second or late one has no effect.
    Verdict {
        /// The ticket of the message.
        ticket: Ticket,
        verdict: Verdict,
    },
    /// Ask a peer. It is dialled at its known addresses when it is not connected.
    Request {
        /// Name the caller gives, repeated in [`Event::Response`].
        id: u64,
        peer: PeerKey,
        /// Bare name of the protocol.
        protocol: String,
        /// The request, at most the protocol's `max_bytes`.
        bytes: Vec<u8>,
    },
    /// Answer an [`Event::Request`]. A late, second or oversize one is dropped.
    Reply {
        id: u64,
        /// The reply, at most the protocol's `max_bytes`.
        bytes: Vec<u8>,
    },
    /// Addresses a peer claims to listen on (a Contact). Outside loopback networks, addresses in
    /// the own host or a private network are dropped.
    AddAddresses {
        peer: PeerKey,
        /// Multiaddrs, the first eight count.
        addrs: Vec<String>,
    },
    /// A peer broke a protocol: lower its score. The sixth fault within an hour
    /// bans it for an hour.
    Penalise { peer: PeerKey },
}

/// What the network tells the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message arrived, once, and awaits a verdict.
    Gossip {
        /// Who passed it on, not who wrote it.
        peer: PeerKey,
        topic: String,
        bytes: Vec<u8>,
        ticket: Ticket,
    },
    /// A peer asks, and awaits a reply within ten seconds.
    Request {
        peer: PeerKey,
        id: u64,
        /// Bare name of the protocol.
        protocol: String,
        bytes: Vec<u8>,
    },
    /// The answer to an own request.
    Response {
        /// The caller's name of the request.
        id: u64,
        /// The reply, or why there is none.
        result: Result<Vec<u8>, RequestError>,
    },
    /// The first connection to a peer is open.
    PeerUp {
        peer: PeerKey,
        /// Its address as seen from here.
        addr: String,
        outbound: bool,
    },
    /// The last connection to a peer is closed.
    PeerDown { peer: PeerKey },
    /// The node listens on an address, given with `/p2p/<own id>`.
    Listening { addr: String },
    /// The swarm task failed and was started again. Peers and requests were reported as lost.
    Restarted {
        /// What happened, for the log.
        reason: String,
    },
    /// A message was not published, or waited too long for a subscriber.
    PublishFailed {
        topic: String,
        /// Stable reason code: `publish.unknown_topic`, `publish.too_large`, `publish.no_peers`,
        /// `publish.queues_full` or `publish.failed`.
        reason: String,
    },
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A name, size or count in the configuration is out of bounds.
    #[error("bad network configuration: {0}")]
    BadConfig(String),
    /// The secret is no ed25519 secret.
    #[error("the secret is no ed25519 secret")]
    BadSecret,
    /// An address was not understood.
    #[error("bad address {addr}: {reason}")]
    BadAddress { addr: String, reason: String },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: String, reason: String },
    /// The transports could not be set up.
    #[error("cannot set up the transports: {0}")]
    Transport(String),
    /// Called outside a tokio runtime.
    #[error("no tokio runtime")]
    NoRuntime,
}

impl NetworkError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadConfig(_) => "network.bad_config",
            Self::BadSecret => "network.bad_secret",
            Self::BadAddress { .. } => "network.bad_address",
            Self::Listen { .. } => "network.listen",
            Self::Transport(_) => "network.transport",
            Self::NoRuntime => "network.no_runtime",
        }
    }
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full: the network is behind.
    #[error("the network's command queue is full")]
    Full,
    /// The network has stopped.
    #[error("the network has stopped")]
    Closed,
}

impl SendError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "network.queue_full",
            Self::Closed => "network.stopped",
        }
    }
}

/// The node's end of the network. The network stops when all handles are gone.
#[derive(Debug, Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    stop: watch::Sender<bool>,
    local: PeerKey,
}

impl Handle {
    /// Hands over a command without waiting.
    ///
    /// # Errors
    /// [`SendError::Full`] when the queue is full, [`SendError::Closed`] after a shutdown.
    pub fn try_send(&self, command: Command) -> Result<(), SendError> {
        self.inputs.try_send(Input::Command(command)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Hands over a command, waiting for room in the queue.
    ///
    /// # Errors
    /// [`SendError::Closed`] after a shutdown.
    pub async fn send(&self, command: Command) -> Result<(), SendError> {
        self.inputs.send(Input::Command(command)).await.map_err(|_| SendError::Closed)
    }

    /// Opens a stream to a peer, within ten seconds or so. It is dialled at its known addresses when
    /// it is not connected.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn open(&self, peer: PeerKey) -> Result<Stream, RequestError> {
        let (answer, opened) = oneshot::channel();
        let asked = self.inputs.send(Input::Open { peer, answer }).await;
        asked.map_err(|_| RequestError::Restarted)?;
        opened.await.unwrap_or(Err(RequestError::Restarted))
    }

    /// The key peers know this node by.
    #[must_use]
    pub fn local_peer(&self) -> PeerKey {
        self.local
    }

    /// Says goodbye to the peers, frees the ports and waits for it (under a second).
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.inputs.closed().await;
    }
}

/// Starts the network on the current tokio runtime.
///
/// Listening has begun when this returns; the addresses follow as [`Event::Listening`].
///
/// # Errors
/// See [`NetworkError`]; nothing runs after an error.
pub fn start(config: Config) -> Result<(Handle, mpsc::Receiver<Event>), NetworkError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| NetworkError::NoRuntime)?;
    let plan = Plan::new(&config)?;
    let local = plan.local;
    let (inputs, input_queue) = mpsc::channel(limits::COMMAND_QUEUE);
    let (events, event_queue) = mpsc::channel(limits::EVENT_QUEUE);
    let (stop, stopped) = watch::channel(false);
    let supervisor = Supervisor::new(plan, input_queue, events, stopped)?;
    runtime.spawn(supervisor.run());
    Ok((Handle { inputs, stop, local }, event_queue))
}
