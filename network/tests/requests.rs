//! Requests and replies between nodes, and from peers that do not keep to the protocol.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::time::{Duration, Instant};

use capex_network::{Command, Event, PeerKey, limits};
use common::{Node, PATIENCE, PROTOCOL, PROTOCOL_BYTES, Transport, config, pair};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::request_response::{self, Codec, ProtocolSupport};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};

#[tokio::test]
async fn a_request_is_answered_over_either_transport() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (mut a, mut b) = pair(transport).await;
        for (id, length) in [(1, 0), (2, 1), (3, PROTOCOL_BYTES)] {
            let request = vec![1; length];
            a.request(id, b.key, &request).await;
            let (asked, peer, protocol, bytes) = b.asked().await;
            assert_eq!((peer, protocol.as_str(), bytes), (a.key, PROTOCOL, request));
            let reply = vec![2; PROTOCOL_BYTES - length];
            b.reply(asked, &reply).await;
            assert_eq!(a.response(id).await, Ok(reply));
        }
    }
}

#[tokio::test]
async fn each_protocol_has_its_own_name_and_cap() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    a.request_by(1, b.key, "sync/1", &[7; 1_024]).await;
    let (id, _, protocol, bytes) = b.asked().await;
    assert_eq!((protocol.as_str(), bytes.len()), ("sync/1", 1_024));
    b.reply(id, b"ok").await;
    assert_eq!(a.response(1).await, Ok(b"ok".to_vec()));
    a.request_by(2, b.key, "sync/1", &[7; 1_025]).await;
    assert_eq!(a.response(2).await, Err("request.too_large"));
}

#[tokio::test]
async fn both_sides_ask_at_once() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    a.request(1, b.key, b"from a").await;
    b.request(1, a.key, b"from b").await;
    let (of_a, ..) = b.asked().await;
    let (of_b, ..) = a.asked().await;
    b.reply(of_a, b"to a").await;
    a.reply(of_b, b"to b").await;
    assert_eq!(a.response(1).await, Ok(b"to a".to_vec()));
    assert_eq!(b.response(1).await, Ok(b"to b".to_vec()));
}

#[tokio::test]
async fn requests_beyond_two_wait_their_turn() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    for id in 0..8 {
        a.request(id, b.key, &[u8::try_from(id).unwrap()]).await;
    }
    for _ in 0..4 {
        let (first, _, _, one) = b.asked().await;
        let (second, _, _, two) = b.asked().await;
        b.reply(first, &one).await;
        b.reply(second, &two).await;
    }
    let mut answered = Vec::new();
    while answered.len() < 8 {
        let (id, result) = a
            .wait("response", |event| match event {
                Event::Response { id, result } => Some((id, result)),
                _ => None,
            })
            .await;
        assert_eq!(result, Ok(vec![u8::try_from(id).unwrap()]));
        answered.push(id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_its_code() {
    let (mut a, b) = pair(Transport::Quic).await;
    let cases = [
        (b.key, "nonsense/1", 1, "request.unknown_protocol"),
        (b.key, PROTOCOL, PROTOCOL_BYTES + 1, "request.too_large"),
        (PeerKey([9; 32]), PROTOCOL, 1, "request.unreachable"),
        (PeerKey([0xff; 32]), PROTOCOL, 1, "request.unreachable"),
        (a.key, PROTOCOL, 1, "request.unreachable"),
    ];
    for (id, (peer, protocol, length, code)) in (0..).zip(cases) {
        a.request_by(id, peer, protocol, &vec![7; length]).await;
        assert_eq!(a.response(id).await, Err(code), "case {id}");
    }
}

#[tokio::test]
async fn a_protocol_the_peer_does_not_serve_is_refused() {
    let mut less = config(1, Transport::Quic);
    less.protocols.truncate(1);
    let a = Node::with(less).await;
    let mut b = Node::new(2, Transport::Quic, &[&a]).await;
    b.peer_up(a.key).await;
    b.request_by(1, a.key, "sync/1", b"?").await;
    assert_eq!(b.response(1).await, Err("request.unsupported"));
}

#[tokio::test]
async fn a_request_dials_a_known_address() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let mut a = Node::new(1, transport, &[]).await;
        let mut b = Node::new(2, transport, &[]).await;
        let addrs = vec!["nonsense".into(), b.addr.clone()];
        a.send(Command::AddAddresses { peer: b.key, addrs }).await;
        a.request(1, b.key, b"hello").await;
        let (id, ..) = b.asked().await;
        b.reply(id, b"welcome").await;
        assert_eq!(a.response(1).await, Ok(b"welcome".to_vec()));
    }
}

#[tokio::test]
async fn a_dead_address_is_unreachable() {
    let mut a = Node::new(1, Transport::Tcp, &[]).await;
    let b = Node::new(2, Transport::Tcp, &[]).await;
    let (key, addr) = (b.key, b.addr.clone());
    b.handle.shutdown().await;
    a.send(Command::AddAddresses { peer: key, addrs: vec![addr] }).await;
    a.request(1, key, b"hello").await;
    assert_eq!(a.response(1).await, Err("request.unreachable"));
}

#[tokio::test]
async fn a_request_without_a_reply_times_out_once() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    let start = Instant::now();
    a.request(1, b.key, b"hello").await;
    let (id, ..) = b.asked().await;
    let code = a.response(1).await.unwrap_err();
    // The asked node gives up at the same time: what it says may come first.
    assert!(["request.timeout", "request.no_reply"].contains(&code), "{code}");
    assert!(start.elapsed() >= limits::REQUEST_TIMEOUT - Duration::from_secs(1));
    b.reply(id, b"too late").await;
    a.request(2, b.key, b"again").await;
    let (id, ..) = b.asked().await;
    b.reply(id, b"in time").await;
    let answer = a
        .wait("response", |event| match event {
            Event::Response { id, result } => Some((id, result)),
            _ => None,
        })
        .await;
    assert_eq!(answer, (2, Ok(b"in time".to_vec())), "the late reply is not heard");
}

#[tokio::test]
async fn an_oversize_reply_is_not_sent() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    a.request(1, b.key, b"hello").await;
    let (id, ..) = b.asked().await;
    b.reply(id, &vec![7; PROTOCOL_BYTES + 1]).await;
    assert_eq!(a.response(1).await, Err("request.no_reply"));
}

#[tokio::test]
async fn the_loss_of_the_connection_ends_a_request() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (mut a, mut b) = pair(transport).await;
        a.request(1, b.key, b"hello").await;
        b.asked().await;
        b.handle.shutdown().await;
        let code = a.response(1).await.unwrap_err();
        assert!(["request.disconnected", "request.no_reply"].contains(&code), "{code}");
    }
}

/// Writes its bytes as they are and reads to the end: a peer that frames nothing.
#[derive(Clone, Default)]
struct Bare;

impl Codec for Bare {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = [0; 4];
        io.read_exact(&mut bytes).await?;
        Ok(bytes.to_vec())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

type Stranger = Swarm<request_response::Behaviour<Bare>>;

fn stranger() -> Stranger {
    let protocol = StreamProtocol::new("/capex/testnet/settle/1");
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| {
            let config = request_response::Config::default();
            request_response::Behaviour::new([(protocol, ProtocolSupport::Full)], config)
        })
        .unwrap()
        .build()
}

async fn connect(stranger: &mut Stranger, node: &Node) -> libp2p::PeerId {
    stranger.dial(node.addr.parse::<Multiaddr>().unwrap()).unwrap();
    let connected = async {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } =
                stranger.select_next_some().await
            {
                return peer_id;
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.unwrap()
}

/// What comes back for each of `count` requests, in the order of their ends.
async fn outcomes(stranger: &mut Stranger, count: usize) -> Vec<Option<Vec<u8>>> {
    use request_response::{Event, Message};
    let collect = async {
        let mut ends = Vec::new();
        while ends.len() < count {
            match stranger.select_next_some().await {
                SwarmEvent::Behaviour(Event::Message {
                    message: Message::Response { response, .. },
                    ..
                }) => ends.push(Some(response)),
                SwarmEvent::Behaviour(Event::OutboundFailure { .. }) => ends.push(None),
                _ => {}
            }
        }
        ends
    };
    tokio::time::timeout(PATIENCE, collect).await.unwrap()
}

#[tokio::test]
async fn garbage_on_a_stream_reaches_nobody_and_harms_nobody() {
    let mut node = Node::new(1, Transport::Tcp, &[]).await;
    let mut stranger = stranger();
    let peer = connect(&mut stranger, &node).await;
    let garbage: [&[u8]; 6] = [
        b"",
        b"\0",
        b"\0\0\0\x09short",
        b"\xff\xff\xff\xff",
        b"\0\x01\0\x01oversize",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in garbage {
        stranger.behaviour_mut().send_request(&peer, bytes.to_vec());
        let ends = outcomes(&mut stranger, 1).await;
        assert!(ends[0].as_ref().is_none_or(Vec::is_empty), "{bytes:?} got {ends:?}");
    }
    // Trailing bytes are not read; the frame before them is a request like any other.
    stranger.behaviour_mut().send_request(&peer, b"\0\0\0\x02okrest".to_vec());
    let asked = tokio::select! {
        (id, _, _, bytes) = node.asked() => { assert_eq!(bytes, b"ok"); id }
        ends = outcomes(&mut stranger, 1) => panic!("{ends:?}"),
    };
    node.reply(asked, b"fine").await;
    assert_eq!(outcomes(&mut stranger, 1).await, [Some(b"\0\0\0\x04fine".to_vec())]);
}

#[tokio::test]
async fn a_third_request_of_one_peer_is_dropped() {
    let mut node = Node::new(1, Transport::Tcp, &[]).await;
    let mut stranger = stranger();
    let peer = connect(&mut stranger, &node).await;
    for _ in 0..3 {
        stranger.behaviour_mut().send_request(&peer, b"\0\0\0\x01?".to_vec());
    }
    let talking = tokio::spawn(async move {
        let first = outcomes(&mut stranger, 1).await;
        (first, stranger)
    });
    let (one, ..) = node.asked().await;
    let (two, ..) = node.asked().await;
    let (first, mut stranger) = talking.await.unwrap();
    assert!(first[0].as_ref().is_none_or(Vec::is_empty), "{first:?}");
    node.reply(one, b"1").await;
    node.reply(two, b"2").await;
    let mut rest = outcomes(&mut stranger, 2).await;
    rest.sort();
    assert_eq!(rest, [Some(b"\0\0\0\x011".to_vec()), Some(b"\0\0\0\x012".to_vec())]);
}

#[tokio::test]
async fn an_oversize_reply_of_a_stranger_is_refused() {
    use request_response::{Event, Message};
    let mut node = Node::new(1, Transport::Tcp, &[]).await;
    let mut stranger = stranger();
    connect(&mut stranger, &node).await;
    let key = PeerKey::from_peer_id(stranger.local_peer_id()).unwrap();
    node.peer_up(key).await;
    tokio::spawn(async move {
        loop {
            let event = stranger.select_next_some().await;
            if let SwarmEvent::Behaviour(Event::Message {
                message: Message::Request { channel, .. },
                ..
            }) = event
            {
                let oversize = u32::try_from(PROTOCOL_BYTES + 1).unwrap().to_be_bytes().to_vec();
                stranger.behaviour_mut().send_response(channel, oversize).unwrap();
            }
        }
    });
    node.request(1, key, b"hello").await;
    assert_eq!(node.response(1).await, Err("request.too_large"));
}
