//! Nodes on loopback with ports the system chooses, and bounded waits.

#![allow(dead_code)]

use std::time::Duration;

use capex_network::{
    Command, Config, Event, Handle, PeerKey, ProtocolConfig, TopicConfig, Verdict, start,
};
use tokio::sync::mpsc;

/// Bound of every wait for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const TOPIC: &str = "orders";
pub(crate) const TOPIC_BYTES: usize = 4_096;
pub(crate) const PROTOCOL: &str = "settle/1";
pub(crate) const PROTOCOL_BYTES: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Quic,
    Tcp,
}

pub(crate) fn config(seed: u8, transport: Transport) -> Config {
    let listen = match transport {
        Transport::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        Transport::Tcp => "/ip4/127.0.0.1/tcp/0",
    };
    Config {
        network: "testnet".into(),
        secret: [seed; 32].into(),
        listen: vec![listen.into()],
        bootstrap: Vec::new(),
        loopback: true,
        topics: vec![TopicConfig { name: TOPIC.into(), max_bytes: TOPIC_BYTES }],
        protocols: vec![
            ProtocolConfig { name: PROTOCOL.into(), max_bytes: PROTOCOL_BYTES },
            ProtocolConfig { name: "sync/1".into(), max_bytes: 1_024 },
        ],
        streams: None,
        epoch_ms: 30_000,
    }
}

pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) addr: String,
    pub(crate) key: PeerKey,
}

impl Node {
    pub(crate) async fn new(seed: u8, transport: Transport, bootstrap: &[&Self]) -> Self {
        let mut config = config(seed, transport);
        config.bootstrap = bootstrap.iter().map(|node| node.addr.clone()).collect();
        Self::with(config).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let (handle, events) = start(config).unwrap();
        let key = handle.local_peer();
        let mut node = Self { handle, events, addr: String::new(), key };
        node.addr = node
            .wait("a listen address", |event| match event {
                Event::Listening { addr } => Some(addr),
                _ => None,
            })
            .await;
        node
    }

    pub(crate) async fn send(&self, command: Command) {
        self.handle.send(command).await.unwrap();
    }

    /// The next event that `pick` takes; the others are dropped.
    pub(crate) async fn wait<T>(&mut self, what: &str, pick: impl FnMut(Event) -> Option<T>) -> T {
        match self.wait_for(PATIENCE, pick).await {
            Some(found) => found,
            None => panic!("no {what} within {PATIENCE:?}"),
        }
    }

    pub(crate) async fn wait_for<T>(
        &mut self,
        bound: Duration,
        mut pick: impl FnMut(Event) -> Option<T>,
    ) -> Option<T> {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(bound, search).await.ok()
    }

    pub(crate) async fn peer_up(&mut self, peer: PeerKey) -> (String, bool) {
        self.wait("connection", |event| match event {
            Event::PeerUp { peer: up, addr, outbound } if up == peer => Some((addr, outbound)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn peer_down(&mut self, peer: PeerKey) {
        self.wait("disconnection", |event| (event == Event::PeerDown { peer }).then_some(())).await;
    }

    pub(crate) async fn publish(&self, bytes: &[u8]) {
        self.send(Command::Publish { topic: TOPIC.into(), bytes: bytes.to_vec() }).await;
    }

    /// The next gossip message, judged by `judge`.
    pub(crate) async fn gossip(&mut self, judge: impl Fn(&[u8]) -> Verdict) -> (PeerKey, Vec<u8>) {
        match self.gossip_for(PATIENCE, judge).await {
            Some(message) => message,
            None => panic!("no gossip within {PATIENCE:?}"),
        }
    }

    pub(crate) async fn gossip_for(
        &mut self,
        bound: Duration,
        judge: impl Fn(&[u8]) -> Verdict,
    ) -> Option<(PeerKey, Vec<u8>)> {
        let (peer, bytes, ticket) = self
            .wait_for(bound, |event| match event {
                Event::Gossip { peer, bytes, ticket, topic } => {
                    assert_eq!(topic, TOPIC);
                    Some((peer, bytes, ticket))
                }
                _ => None,
            })
            .await?;
        let verdict = judge(&bytes);
        self.send(Command::Verdict { ticket, verdict }).await;
        Some((peer, bytes))
    }

    pub(crate) async fn request(&self, id: u64, peer: PeerKey, bytes: &[u8]) {
        self.request_by(id, peer, PROTOCOL, bytes).await;
    }

    pub(crate) async fn request_by(&self, id: u64, peer: PeerKey, protocol: &str, bytes: &[u8]) {
        let (protocol, bytes) = (protocol.to_owned(), bytes.to_vec());
        self.send(Command::Request { id, peer, protocol, bytes }).await;
    }

    /// The answer to the request `id`, by its reason code where there is none.
    pub(crate) async fn response(&mut self, id: u64) -> Result<Vec<u8>, &'static str> {
        let result = self
            .wait("response", |event| match event {
                Event::Response { id: of, result } if of == id => Some(result),
                _ => None,
            })
            .await;
        result.map_err(|error| error.code())
    }

    /// The next request of a peer.
    pub(crate) async fn asked(&mut self) -> (u64, PeerKey, String, Vec<u8>) {
        self.wait("request", |event| match event {
            Event::Request { peer, id, protocol, bytes } => Some((id, peer, protocol, bytes)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn reply(&self, id: u64, bytes: &[u8]) {
        self.send(Command::Reply { id, bytes: bytes.to_vec() }).await;
    }
}

/// Two nodes, the second connected to the first.
pub(crate) async fn pair(transport: Transport) -> (Node, Node) {
    let mut a = Node::new(1, transport, &[]).await;
    let mut b = Node::new(2, transport, &[&a]).await;
    a.peer_up(b.key).await;
    b.peer_up(a.key).await;
    (a, b)
}

pub(crate) fn accept(_: &[u8]) -> Verdict {
    Verdict::Accept
}
