//! What a node is told at start, and its checked form.

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::gossipsub::{IdentTopic, TopicHash};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use tokio::sync::mpsc;

use crate::NetworkError;
use crate::keys::{PeerKey, Secret};
use crate::limits::{
    MAX_NAME_BYTES, MAX_PROTOCOL_BYTES, MAX_PROTOCOLS, MAX_TOPIC_BYTES, MAX_TOPICS,
};
use crate::streams::{InboundStream, StreamConfig};

/// A gossip topic. On the wire it is `/capex/<network>/<name>/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Bare name, for example `orders`.
    pub name: String,
    /// Largest message in bytes; 100 to 48 KiB.
    pub max_bytes: usize,
}

/// A request protocol. On the wire it is `/capex/<network>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolConfig {
    /// Bare name with its version, for example `settle/1`.
    pub name: String,
    /// Largest request and largest reply in bytes; 1 to 16 MiB.
    pub max_bytes: usize,
}

/// Everything [`crate::start`] needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the network, part of every topic and protocol name: nodes of two networks do not talk.
    pub network: String,
    /// ed25519 secret of the node.
    pub secret: Secret,
    /// Multiaddrs to listen on, QUIC (`/udp/<port>/quic-v1`) and TCP; port 0 lets the system choose.
    pub listen: Vec<String>,
    /// Multiaddrs with `/p2p/<id>` of peers to stay connected to.
    pub bootstrap: Vec<String>,
    /// The network runs on one host: 127.0.0.1 may be dialled and is exempt from IP scoring.
    pub loopback: bool,
    pub topics: Vec<TopicConfig>,
    /// Protocols to serve and to call.
    pub protocols: Vec<ProtocolConfig>,
    /// Streams to open and to take; none without.
    pub streams: Option<StreamConfig>,
    /// Length of an epoch in milliseconds: duplicates are recognised for twice as long.
    pub epoch_ms: u64,
}

/// A joined topic.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) hash: TopicHash,
    pub(crate) max_bytes: usize,
}

/// A served protocol.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) stream: StreamProtocol,
    pub(crate) max_bytes: usize,
}

/// The protocol of streams, and where they go.
#[derive(Debug, Clone)]
pub(crate) struct Streamed {
    pub(crate) protocol: StreamProtocol,
    pub(crate) inbound: mpsc::Sender<InboundStream>,
}

/// A [`Config`] in which every text has been understood.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) keypair: Keypair,
    pub(crate) local: PeerKey,
    pub(crate) network: String,
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<(PeerId, Multiaddr)>,
    pub(crate) loopback: bool,
    pub(crate) topics: Vec<Topic>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) streams: Option<Streamed>,
    pub(crate) epoch: Duration,
}

impl Plan {
    pub(crate) fn new(config: &Config) -> Result<Self, NetworkError> {
        check_name("network", &config.network)?;
        let keypair = config.secret.keypair().ok_or(NetworkError::BadSecret)?;
        let own_id = keypair.public().to_peer_id();
        let local = PeerKey::from_peer_id(&own_id).ok_or(NetworkError::BadSecret)?;
        let mut bootstrap = Vec::new();
        for text in &config.bootstrap {
            let (peer, addr) = split_peer(parse(text)?);
            let peer = peer.ok_or_else(|| bad_address(text, "it lacks /p2p/<id>"))?;
            // A list shared by a whole network names its own members too.
            if peer != own_id {
                bootstrap.push((peer, addr));
            }
        }
        Ok(Self {
            keypair,
            local,
            network: config.network.clone(),
            listen: config.listen.iter().map(|text| parse(text)).collect::<Result<_, _>>()?,
            bootstrap,
            loopback: config.loopback,
            topics: topics(config)?,
            protocols: protocols(config)?,
            streams: config.streams.as_ref().map(|at| streamed(&config.network, at)).transpose()?,
            epoch: Duration::from_millis(config.epoch_ms),
        })
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.name == name)
    }

    pub(crate) fn topic_of(&self, hash: &TopicHash) -> Option<&Topic> {
        self.topics.iter().find(|topic| topic.hash == *hash)
    }

    pub(crate) fn protocol(&self, name: &str) -> Option<usize> {
        self.protocols.iter().position(|protocol| protocol.name == name)
    }

    /// What identify announces; a peer that announces another network is dropped.
    pub(crate) fn identity(&self) -> String {
        format!("/capex/{}/1", self.network)
    }
}

fn topics(config: &Config) -> Result<Vec<Topic>, NetworkError> {
    check_count("topics", config.topics.len(), MAX_TOPICS)?;
    check_distinct(config.topics.iter().map(|topic| &topic.name))?;
    let make = |topic: &TopicConfig| {
        check_name("topic", &topic.name)?;
        // Below 100 bytes gossipsub refuses the configuration.
        check_range("topic", topic.max_bytes, 100, MAX_TOPIC_BYTES)?;
        let full = format!("/capex/{}/{}/v1", config.network, topic.name);
        let hash = IdentTopic::new(full).hash();
        Ok(Topic { name: topic.name.clone(), hash, max_bytes: topic.max_bytes })
    };
    config.topics.iter().map(make).collect()
}

fn protocols(config: &Config) -> Result<Vec<Protocol>, NetworkError> {
    check_count("protocols", config.protocols.len(), MAX_PROTOCOLS)?;
    check_distinct(config.protocols.iter().map(|protocol| &protocol.name))?;
    let make = |protocol: &ProtocolConfig| {
        check_name("protocol", &protocol.name)?;
        check_range("protocol", protocol.max_bytes, 1, MAX_PROTOCOL_BYTES)?;
        let stream = stream_protocol(&config.network, &protocol.name)?;
        Ok(Protocol { name: protocol.name.clone(), stream, max_bytes: protocol.max_bytes })
    };
    config.protocols.iter().map(make).collect()
}

fn streamed(network: &str, at: &StreamConfig) -> Result<Streamed, NetworkError> {
    check_name("stream", &at.name)?;
    let protocol = stream_protocol(network, &at.name)?;
    Ok(Streamed { protocol, inbound: at.inbound.clone() })
}

fn stream_protocol(network: &str, name: &str) -> Result<StreamProtocol, NetworkError> {
    let full = format!("/capex/{network}/{name}");
    StreamProtocol::try_from_owned(full).map_err(|error| NetworkError::BadConfig(error.to_string()))
}

fn check_name(what: &str, name: &str) -> Result<(), NetworkError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-./_".contains(&c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(allowed) {
        return Err(NetworkError::BadConfig(format!("{what} name {name:?}")));
    }
    Ok(())
}

fn check_count(what: &str, count: usize, most: usize) -> Result<(), NetworkError> {
    if count > most {
        return Err(NetworkError::BadConfig(format!("{count} {what}, at most {most}")));
    }
    Ok(())
}

fn check_range(what: &str, bytes: usize, least: usize, most: usize) -> Result<(), NetworkError> {
    if !(least..=most).contains(&bytes) {
        let text = format!("{what} of {bytes} bytes, allowed are {least} to {most}");
        return Err(NetworkError::BadConfig(text));
    }
    Ok(())
}

fn check_distinct<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), NetworkError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(NetworkError::BadConfig(format!("{name:?} is declared twice")));
        }
    }
    Ok(())
}

pub(crate) fn parse(text: &str) -> Result<Multiaddr, NetworkError> {
    text.parse().map_err(|error: libp2p::multiaddr::Error| bad_address(text, &error.to_string()))
}

/// Checks an address as a person writes it: a multiaddr, and to reach a peer, one that ends
/// in `/p2p/<id>`.
///
/// # Errors
/// [`NetworkError::BadAddress`].
pub fn check_address(text: &str, with_peer: bool) -> Result<(), NetworkError> {
    let parsed: Result<Multiaddr, _> = text.parse();
    match parsed.map(split_peer) {
        Err(_) => Err(bad_address(text, "not a multiaddr such as /ip4/127.0.0.1/tcp/7210")),
        Ok((None, _)) if with_peer => Err(bad_address(text, "it lacks /p2p/<id>")),
        Ok(_) => Ok(()),
    }
}

fn bad_address(text: &str, reason: &str) -> NetworkError {
    NetworkError::BadAddress { addr: text.to_owned(), reason: reason.to_owned() }
}

/// Takes a trailing `/p2p/<id>` off an address.
pub(crate) fn split_peer(mut addr: Multiaddr) -> (Option<PeerId>, Multiaddr) {
    match addr.pop() {
        Some(Part::P2p(peer)) => (Some(peer), addr),
        Some(part) => (None, addr.with(part)),
        None => (None, addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            network: "devnet".into(),
            secret: Secret([1; 32]),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
            bootstrap: Vec::new(),
            loopback: true,
            topics: vec![TopicConfig { name: "orders".into(), max_bytes: 4_096 }],
            protocols: vec![ProtocolConfig { name: "settle/1".into(), max_bytes: 65_536 }],
            streams: None,
            epoch_ms: 2_000,
        }
    }

    #[test]
    fn names_on_the_wire_carry_network_and_version() {
        let plan = Plan::new(&config()).unwrap();
        assert_eq!(plan.topics[0].hash.as_str(), "/capex/devnet/orders/v1");
        assert_eq!(plan.protocols[0].stream.as_ref(), "/capex/devnet/settle/1");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_code() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 9] = [
            (|c| c.network = "Dev net".into(), "network.bad_config"),
            (|c| c.network = String::new(), "network.bad_config"),
            (|c| c.topics[0].max_bytes = 99, "network.bad_config"),
            (|c| c.topics[0].max_bytes = MAX_TOPIC_BYTES + 1, "network.bad_config"),
            (|c| c.topics.push(c.topics[0].clone()), "network.bad_config"),
            (|c| c.protocols[0].max_bytes = 0, "network.bad_config"),
            (|c| c.protocols.push(c.protocols[0].clone()), "network.bad_config"),
            (|c| c.listen.push("localhost:1".into()), "network.bad_address"),
            (|c| c.bootstrap.push("/ip4/127.0.0.1/tcp/1".into()), "network.bad_address"),
        ];
        for (number, (change, code)) in cases.into_iter().enumerate() {
            let mut config = config();
            change(&mut config);
            let error = Plan::new(&config).unwrap_err();
            assert_eq!(error.code(), code, "case {number}: {error}");
        }
    }

    #[test]
    fn the_own_entry_of_a_shared_bootstrap_list_is_skipped() {
        let mut config = config();
        let own = config.secret.keypair().unwrap().public().to_peer_id();
        config.bootstrap.push(format!("/ip4/127.0.0.1/tcp/1/p2p/{own}"));
        assert!(Plan::new(&config).unwrap().bootstrap.is_empty());
    }
}
