//! Streams between nodes: bytes both ways for as long as both want.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use capex_network::{InboundStream, Stream, StreamConfig, limits};
use common::{Node, PATIENCE, Transport, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A node that takes streams.
async fn serving(
    seed: u8,
    transport: Transport,
    bootstrap: &[&Node],
) -> (Node, mpsc::Receiver<InboundStream>) {
    let (inbound, streams) = mpsc::channel(limits::STREAM_QUEUE);
    let mut config = config(seed, transport);
    config.streams = Some(StreamConfig { name: "access/1".into(), inbound });
    config.bootstrap = bootstrap.iter().map(|node| node.addr.clone()).collect();
    (Node::with(config).await, streams)
}

async fn next(streams: &mut mpsc::Receiver<InboundStream>) -> InboundStream {
    timeout(PATIENCE, streams.recv()).await.unwrap().unwrap()
}

/// Whether the other side has closed it without a word.
async fn is_closed(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
    matches!(read, Ok(0) | Err(_))
}

#[tokio::test]
async fn bytes_go_both_ways_over_either_transport_and_either_side_opens() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (a, mut to_a) = serving(1, transport, &[]).await;
        let (mut b, mut to_b) = serving(2, transport, &[&a]).await;
        b.peer_up(a.key).await;
        let mut of_b = b.handle.open(a.key).await.unwrap();
        // The name of the protocol goes out with the first bytes.
        of_b.write_all(b"to a").await.unwrap();
        of_b.flush().await.unwrap();
        let InboundStream { peer, mut stream } = next(&mut to_a).await;
        assert_eq!(peer, b.key);
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"to a");
        let sent = vec![7; 3 << 20];
        let (mut read, copy) = (Vec::new(), sent.clone());
        let writer = tokio::spawn(async move {
            stream.write_all(&copy).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        of_b.read_to_end(&mut read).await.unwrap();
        writer.await.unwrap();
        assert_eq!(read, sent);

        let mut of_a = a.handle.open(b.key).await.unwrap();
        of_a.write_all(b"to b").await.unwrap();
        of_a.flush().await.unwrap();
        assert_eq!(next(&mut to_b).await.peer, a.key, "dropped at once");
        assert!(is_closed(&mut of_a).await);
    }
}

#[tokio::test]
async fn a_peer_is_dialled_where_it_is_known_to_be() {
    let (a, mut to_a) = serving(1, Transport::Quic, &[]).await;
    let (b, _to_b) = serving(2, Transport::Quic, &[]).await;
    let unknown = b.handle.open(a.key).await.unwrap_err();
    assert_eq!(unknown.code(), "request.unreachable");
    let addrs = vec![a.addr.clone()];
    b.send(capex_network::Command::AddAddresses { peer: a.key, addrs }).await;
    let mut stream = b.handle.open(a.key).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(next(&mut to_a).await.peer, b.key);
}

#[tokio::test]
async fn who_does_not_serve_streams_says_so() {
    let a = Node::new(1, Transport::Tcp, &[]).await;
    let (mut b, _to_b) = serving(2, Transport::Tcp, &[&a]).await;
    b.peer_up(a.key).await;
    // The answer of the other side comes with its first bytes at the latest.
    let refused = match b.handle.open(a.key).await {
        Err(error) => error.code() == "request.unsupported",
        Ok(mut stream) => is_closed(&mut stream).await,
    };
    assert!(refused);
    assert_eq!(a.handle.open(b.key).await.unwrap_err().code(), "request.unknown_protocol");
}

#[tokio::test]
async fn a_peer_has_no_more_streams_than_its_share() {
    let (a, mut to_a) = serving(1, Transport::Quic, &[]).await;
    let (mut b, _to_b) = serving(2, Transport::Quic, &[&a]).await;
    b.peer_up(a.key).await;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..limits::MAX_INBOUND_STREAMS_PER_PEER {
        let mut stream = b.handle.open(a.key).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        theirs.push(stream);
        ours.push(next(&mut to_a).await);
    }
    let mut more = b.handle.open(a.key).await.unwrap();
    let _ = more.write_all(b"x").await;
    let _ = more.flush().await;
    assert!(is_closed(&mut more).await);
    drop(ours.pop());
    let mut again = b.handle.open(a.key).await.unwrap();
    again.write_all(b"x").await.unwrap();
    again.flush().await.unwrap();
    assert_eq!(next(&mut to_a).await.peer, b.key);
}

#[tokio::test]
async fn the_end_of_a_node_ends_its_streams() {
    let (a, mut to_a) = serving(1, Transport::Tcp, &[]).await;
    let (mut b, _to_b) = serving(2, Transport::Tcp, &[&a]).await;
    b.peer_up(a.key).await;
    let mut stream = b.handle.open(a.key).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let held = next(&mut to_a).await;
    a.handle.shutdown().await;
    drop(held);
    assert!(is_closed(&mut stream).await);
    let late = timeout(PATIENCE + Duration::from_secs(10), b.handle.open(a.key)).await.unwrap();
    assert!(late.is_err());
}
