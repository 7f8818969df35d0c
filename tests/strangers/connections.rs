//! Connections that strangers open beyond their measure.

#[path = "../../network/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;

use capex_network::{Event, PeerKey};
use common::{Node, Transport};

const SERVER: u8 = 1;
const FRIEND: u8 = 2;
/// The first of the strangers' keys.
const FIRST: u8 = 100;

/// Who is connected to a node once so many are.
async fn connected(node: &mut Node, count: usize) -> BTreeSet<PeerKey> {
    let mut peers = BTreeSet::new();
    node.wait("connections", |event| {
        match event {
            Event::PeerUp { peer, outbound: false, .. } => drop(peers.insert(peer)),
            Event::PeerDown { peer } => drop(peers.remove(&peer)),
            _ => {}
        }
        (peers.len() == count).then_some(())
    })
    .await;
    peers
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_what_comes_in_and_not_what_a_node_opens_itself() {
    let mut server = Node::new(SERVER, Transport::Tcp, &[]).await;
    let mut strangers = Vec::new();
    for seed in FIRST..FIRST + 64 {
        strangers.push(Node::new(seed, Transport::Tcp, &[&server]).await);
    }
    let peers = connected(&mut server, 64).await;
    assert!(strangers.iter().all(|stranger| peers.contains(&stranger.key)));

    // One more is let go again at once, whatever it asks for.
    let mut late = Node::new(FIRST + 64, Transport::Tcp, &[&server]).await;
    late.request(1, server.key, b"let me in").await;
    assert!(late.response(1).await.is_err());

    // The node still reaches whom it wants to reach.
    let mut friend = Node::new(FRIEND, Transport::Tcp, &[]).await;
    server.send(capex_network::Command::Dial(friend.addr.clone())).await;
    let (_, is_own) = server.peer_up(friend.key).await;
    assert!(is_own);
    server.request(2, friend.key, b"are you there").await;
    let (id, ..) = friend.asked().await;
    friend.reply(id, b"yes").await;
    assert_eq!(server.response(2).await, Ok(b"yes".to_vec()));

    // Whoever leaves makes place.
    drop(strangers.pop());
    let (_, is_own) = server.peer_up(late.key).await;
    assert!(!is_own);
}
