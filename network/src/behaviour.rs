//! The libp2p behaviour and the swarm around it.

use std::any::Any;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures::FutureExt;
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    Swarm, SwarmBuilder, dns, identify, memory_connection_limits, noise, ping, swarm, tcp, yamux,
};
use tokio::sync::mpsc;

use crate::NetworkError;
use crate::config::Plan;
use crate::gossip::{self, Gossip};
use crate::limits::{
    IDLE_TIMEOUT, MAX_ESTABLISHED, MAX_ESTABLISHED_IN, MAX_ESTABLISHED_OUT, MAX_PENDING_IN,
    MAX_PENDING_OUT, MAX_PER_PEER, MEMORY_SHARE,
};
use crate::protocols::Protocols;
use crate::streams::Streams;
use crate::subnets::Subnets;

/// All that a node speaks.
///
/// The limits stand first: a connection they deny must not have reached the others, which
/// would keep state for it (<https://github.com/libp2p/rust-libp2p/issues/4773>).
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) blocks: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) subnets: Subnets,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) gossip: Gossip,
    pub(crate) protocols: Protocols,
    pub(crate) streams: Toggle<Streams>,
}

impl Behaviour {
    fn new(plan: &Plan) -> Result<Self, NetworkError> {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING_IN))
            .with_max_pending_outgoing(Some(MAX_PENDING_OUT))
            .with_max_established_incoming(Some(MAX_ESTABLISHED_IN))
            .with_max_established_outgoing(Some(MAX_ESTABLISHED_OUT))
            .with_max_established(Some(MAX_ESTABLISHED))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        // No cache: addresses a peer claims pass the own book, which filters and bounds them.
        let identify = identify::Config::new(plan.identity(), plan.keypair.public())
            .with_agent_version(agent())
            .with_cache_size(0);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            memory: memory_limit(),
            blocks: allow_block_list::Behaviour::default(),
            subnets: Subnets::new(plan.loopback),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            gossip: gossip::behaviour(plan)?,
            protocols: Protocols::new(&plan.protocols),
            streams: plan.streams.as_ref().map(|at| Streams::new(at.protocol.clone())).into(),
        })
    }
}

/// The version of the program and a number of this swarm. The number tells a peer that came
/// back from one that opened a second connection: gossipsub greets a peer only on the first,
/// and a killed process leaves QUIC connections behind that look alive for half a minute.
fn agent() -> String {
    // The standard library seeds its hashers at random.
    let swarm = RandomState::new().build_hasher().finish();
    format!("capex/{} {swarm:016x}", env!("CARGO_PKG_VERSION"))
}

/// The limit of the control group where one is set, else the memory of the host.
fn memory_limit() -> memory_connection_limits::Behaviour {
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    match limit.and_then(|text| text.trim().parse::<usize>().ok()) {
        Some(bytes) => memory_connection_limits::Behaviour::with_max_bytes(bytes / 5 * 4),
        None => memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE),
    }
}

/// Builds a swarm that does not listen yet. A panic in one of its connection tasks is sent to
/// `crashed`: the swarm would wait for that task for ever.
pub(crate) fn build(
    plan: &Plan,
    crashed: mpsc::Sender<String>,
) -> Result<Swarm<Behaviour>, NetworkError> {
    let fail = |error: String| NetworkError::Transport(error);
    let behaviour = Behaviour::new(plan)?;
    let transports = SwarmBuilder::with_existing_identity(plan.keypair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| fail(error.to_string()))?
        .with_quic();
    // QUIC first, TCP some milliseconds behind it.
    let tune = |_| {
        swarm::Config::with_executor(executor(crashed))
            .with_smart_dial()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
    };
    // A network on one host has no names to resolve, and its host may have no resolver.
    if plan.loopback {
        let (config, options) = (dns::ResolverConfig::default(), dns::ResolverOpts::default());
        let built = transports.with_dns_config(config, options).with_behaviour(|_| behaviour);
        let built = built.map_err(|never| match never {})?;
        Ok(built.with_swarm_config(tune).build())
    } else {
        let named = transports.with_dns().map_err(|error| fail(error.to_string()))?;
        let built = named.with_behaviour(|_| behaviour).map_err(|never| match never {})?;
        Ok(built.with_swarm_config(tune).build())
    }
}

/// A background task that panics at once.
#[cfg(test)]
pub(crate) fn panic_in_background(crashed: mpsc::Sender<String>) {
    use libp2p::swarm::Executor;
    executor(crashed).exec(Box::pin(async { panic!("a test asked for it") }));
}

type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the tasks of connections on tokio and reports their panics.
fn executor(crashed: mpsc::Sender<String>) -> impl Fn(Background) + Send + 'static {
    move |background| {
        let crashed = crashed.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(background).catch_unwind().await {
                // A full channel means that the restart is under way already.
                let _ = crashed.try_send(panic_text(panic.as_ref()));
            }
        });
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
