//! Connections: who is told what, and when peers come back.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use capex_network::{Command, Event, NetworkError, SendError, limits, start};
use common::{Node, Transport, config, pair};

#[tokio::test]
async fn both_sides_hear_of_a_connection_and_of_its_end() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let mut a = Node::new(1, transport, &[]).await;
        let mut b = Node::new(2, transport, &[&a]).await;
        let (addr, outbound) = b.peer_up(a.key).await;
        assert!(outbound);
        assert!(
            a.addr.starts_with(addr.split("/p2p/").next().unwrap()),
            "{addr} is not {}",
            a.addr
        );
        assert!(!a.peer_up(b.key).await.1);
        b.handle.shutdown().await;
        a.peer_down(b.key).await;
        assert_eq!(b.handle.try_send(Command::Dial(a.addr.clone())), Err(SendError::Closed));
    }
}

#[tokio::test]
async fn the_loss_of_all_handles_stops_the_network() {
    let (mut a, b) = pair(Transport::Quic).await;
    let key = b.key;
    drop(b);
    a.peer_down(key).await;
}

#[tokio::test]
async fn a_bootstrap_peer_is_dialled_again_when_it_comes_back() {
    let (a, mut b) = pair(Transport::Tcp).await;
    let mut again = config(1, Transport::Tcp);
    again.listen = vec![a.addr.split("/p2p/").next().unwrap().to_owned()];
    a.handle.shutdown().await;
    b.peer_down(a.key).await;
    let a = Node::with(again).await;
    b.peer_up(a.key).await;
}

#[tokio::test]
async fn peers_learn_of_each_other_by_their_addresses() {
    let hub = Node::new(1, Transport::Quic, &[]).await;
    let mut b = Node::new(2, Transport::Quic, &[&hub]).await;
    let mut c = Node::new(3, Transport::Quic, &[&hub]).await;
    b.peer_up(hub.key).await;
    c.peer_up(hub.key).await;
    b.send(Command::AddAddresses { peer: c.key, addrs: vec![c.addr.clone()] }).await;
    assert!(b.peer_up(c.key).await.1);
    assert!(!c.peer_up(b.key).await.1);
}

#[tokio::test]
async fn a_banned_peer_is_cut_off_and_kept_off() {
    let (mut a, mut b) = pair(Transport::Quic).await;
    for _ in 0..limits::FAULTS_TO_BAN {
        a.send(Command::Penalise { peer: b.key }).await;
    }
    a.peer_down(b.key).await;
    b.peer_down(a.key).await;
    // The other side dials at once; the ban holds that off.
    let early = a
        .wait_for(Duration::from_millis(1_200), |event| match event {
            Event::PeerUp { peer, .. } => Some(peer),
            _ => None,
        })
        .await;
    assert_eq!(early, None);
}

#[tokio::test]
async fn a_peer_of_another_network_is_dropped() {
    let mut a = Node::new(1, Transport::Quic, &[]).await;
    let mut other = config(2, Transport::Quic);
    other.network = "othernet".into();
    let b = Node::with(other).await;
    b.send(Command::Dial(a.addr.clone())).await;
    a.peer_up(b.key).await;
    a.peer_down(b.key).await;
}

#[tokio::test]
async fn an_address_in_use_fails_at_the_start() {
    let a = Node::new(1, Transport::Tcp, &[]).await;
    let mut taken = config(2, Transport::Tcp);
    taken.listen = vec!["/ip4/192.0.2.1/tcp/0".into()];
    let error = start(taken).map(drop).unwrap_err();
    assert!(matches!(error, NetworkError::Listen { .. }), "{error}");
    drop(a);
}

#[test]
fn a_start_outside_a_runtime_is_an_error() {
    let error = start(config(1, Transport::Tcp)).map(drop).unwrap_err();
    assert_eq!(error.code(), "network.no_runtime");
}
