use super::*;
use crate::{Config, Handle, ProtocolConfig, RequestError, TopicConfig, start};

struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Node {
    fn new(seed: u8, listen: &[&str], bootstrap: Vec<String>) -> Self {
        let config = Config {
            network: "testnet".into(),
            secret: [seed; 32].into(),
            listen: listen.iter().map(|&addr| addr.to_owned()).collect(),
            bootstrap,
            loopback: true,
            topics: vec![TopicConfig { name: "orders".into(), max_bytes: 1_024 }],
            protocols: vec![ProtocolConfig { name: "settle/1".into(), max_bytes: 1_024 }],
            streams: None,
            epoch_ms: 2_000,
        };
        let (handle, events) = start(config).unwrap();
        Self { handle, events }
    }

    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), search).await;
        found.unwrap_or_else(|_| panic!("no {what}"))
    }

    async fn addrs(&mut self, count: usize) -> Vec<String> {
        let mut addrs = Vec::new();
        while addrs.len() < count {
            addrs.push(self.wait("address", listening).await);
        }
        addrs.sort();
        addrs
    }
}

fn listening(event: Event) -> Option<String> {
    match event {
        Event::Listening { addr } => Some(addr),
        _ => None,
    }
}

fn peer_up(event: Event) -> Option<()> {
    matches!(event, Event::PeerUp { .. }).then_some(())
}

const LISTEN: [&str; 2] = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];

/// A node and a peer connected to it, with a request of the node open at the peer.
async fn with_open_request() -> (Node, Vec<String>, Node) {
    let mut node = Node::new(1, &LISTEN, Vec::new());
    let addrs = node.addrs(2).await;
    let mut peer = Node::new(2, &LISTEN, addrs.clone());
    node.wait("peer", peer_up).await;
    peer.wait("peer", peer_up).await;
    let command = Command::Request {
        id: 7,
        peer: peer.handle.local_peer(),
        protocol: "settle/1".into(),
        bytes: b"hello".to_vec(),
    };
    node.handle.send(command).await.unwrap();
    peer.wait("request", |event| matches!(event, Event::Request { .. }).then_some(())).await;
    (node, addrs, peer)
}

/// After a crash the node hears the fate of its request and peer, listens where it listened,
/// is found again by its peer, and hears gossip.
async fn survives(crash: Input) {
    let (mut node, addrs, peer) = with_open_request().await;
    let other = peer.handle.local_peer();
    node.handle.inputs.send(crash).await.unwrap();
    let mut told = Vec::new();
    let reason = node
        .wait("restart", |event| match event {
            Event::Restarted { reason } => Some(reason),
            event => {
                told.push(event);
                None
            }
        })
        .await;
    assert_eq!(reason, "a test asked for it");
    assert!(told.contains(&Event::Response { id: 7, result: Err(RequestError::Restarted) }));
    assert!(told.contains(&Event::PeerDown { peer: other }));
    let (mut again, mut found) = (Vec::new(), false);
    node.wait("peer and ports", |event| {
        found |= matches!(event, Event::PeerUp { .. });
        again.extend(listening(event));
        (found && again.len() == addrs.len()).then_some(())
    })
    .await;
    again.sort();
    assert_eq!(again, addrs, "the ports are the same");
    let publish = Command::Publish { topic: "orders".into(), bytes: b"after".to_vec() };
    peer.handle.send(publish).await.unwrap();
    let bytes = node
        .wait("gossip", |event| match event {
            Event::Gossip { bytes, .. } => Some(bytes),
            _ => None,
        })
        .await;
    assert_eq!(bytes, b"after");
    peer.handle.shutdown().await;
}

#[tokio::test]
async fn a_panic_restarts_the_task_and_not_the_node() {
    survives(Input::Panic).await;
}

#[tokio::test]
async fn a_panic_in_the_task_of_a_connection_restarts_the_swarm() {
    survives(Input::PanicInBackground).await;
}

#[test]
fn crashes_in_a_row_are_answered_ever_more_slowly() {
    let now = Instant::now();
    let mut pauses = Pauses::default();
    let waits: Vec<u64> =
        (0..11).map(|_| u64::try_from(pauses.next(now).as_millis()).unwrap()).collect();
    assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
    assert_eq!(pauses.next(now + CRASH_WINDOW), Duration::ZERO);
}
