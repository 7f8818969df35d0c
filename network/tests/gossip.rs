//! Gossip between nodes: once to everybody, and only as far as the verdicts let it.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use capex_network::{Command, Event, Verdict, limits};
use common::{Node, TOPIC, TOPIC_BYTES, Transport, accept, config, pair};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};

#[tokio::test]
async fn a_message_arrives_once_over_either_transport() {
    for transport in [Transport::Quic, Transport::Tcp] {
        let (a, mut b) = pair(transport).await;
        for text in [b"one".as_slice(), b"two", b"one", b"three"] {
            a.publish(text).await;
        }
        for text in [b"one".as_slice(), b"two", b"three"] {
            assert_eq!(b.gossip(accept).await, (a.key, text.to_vec()), "{transport:?}");
        }
    }
}

/// A killed process leaves a QUIC connection that looks alive, as that of the first life does
/// here until it is shut down.
#[tokio::test]
async fn a_peer_that_returns_before_its_old_connection_ends_is_greeted_again() {
    let (mut a, first) = pair(Transport::Quic).await;
    let mut again = config(2, Transport::Quic);
    again.bootstrap = vec![a.addr.clone()];
    let second = Node::with(again).await;
    assert_eq!(first.key, second.key);
    a.peer_down(first.key).await;
    first.handle.shutdown().await;
    for number in 0..60_u8 {
        // Both directions need the other's subscriptions.
        second.publish(&[1, number]).await;
        let wait = Duration::from_millis(500);
        if a.gossip_for(wait, accept).await.is_some() {
            return;
        }
    }
    panic!("the second life is not heard");
}

#[tokio::test]
async fn a_message_of_exactly_the_cap_costs_its_sender_nothing() {
    let (a, mut b) = pair(Transport::Quic).await;
    for number in 0..12 {
        a.publish(&[number; TOPIC_BYTES]).await;
        assert_eq!(b.gossip(accept).await.1.len(), TOPIC_BYTES);
    }
}

#[tokio::test]
async fn five_nodes_hear_every_message_once() {
    const EACH: usize = 10;
    let hub = Node::new(1, Transport::Quic, &[]).await;
    let mut nodes = vec![hub];
    for seed in 2..=5 {
        let transport = if seed % 2 == 0 { Transport::Quic } else { Transport::Tcp };
        let node = Node::new(seed, transport, &[&nodes[0]]).await;
        nodes.push(node);
    }
    mesh(&mut nodes).await;
    for (author, node) in nodes.iter().enumerate() {
        for number in 0..EACH {
            node.publish(format!("{author}/{number}").as_bytes()).await;
        }
    }
    let hearing = nodes.into_iter().map(|mut node| {
        tokio::spawn(async move {
            let mut heard = BTreeMap::new();
            while heard.len() < 4 * EACH {
                let (_, bytes) = node.gossip(accept).await;
                if bytes.starts_with(b"warm") {
                    continue;
                }
                *heard.entry(bytes).or_insert(0) += 1;
            }
            (node, heard)
        })
    });
    let mut nodes = Vec::new();
    for hearing in hearing.collect::<Vec<_>>() {
        let (node, heard) = hearing.await.unwrap();
        assert!(heard.values().all(|times| *times == 1), "{heard:?}");
        nodes.push(node);
    }
    // A copy that was still under way would come before what is published now.
    nodes[0].publish(b"last").await;
    for node in &mut nodes[1..] {
        let (_, bytes) = node.gossip(accept).await;
        assert_eq!(bytes, b"last");
    }
}

/// Publishes until every node has heard every other: a message that is under way while a node
/// subscribes may pass it by.
async fn mesh(nodes: &mut [Node]) {
    let mut heard = BTreeSet::new();
    let complete = nodes.len() * (nodes.len() - 1);
    for round in 0.. {
        assert!(round < 100, "no mesh: {heard:?}");
        for (author, node) in nodes.iter().enumerate() {
            node.publish(format!("warm {author} {round}").as_bytes()).await;
        }
        for (listener, node) in nodes.iter_mut().enumerate() {
            while let Some((_, bytes)) = node.gossip_for(Duration::from_millis(50), accept).await {
                heard.insert((listener, bytes[5]));
            }
        }
        if heard.len() == complete {
            return;
        }
    }
}

/// Three nodes in a line; returns when a message has passed from the first to the last.
async fn line() -> [Node; 3] {
    let mut a = Node::new(1, Transport::Quic, &[]).await;
    let mut b = Node::new(2, Transport::Quic, &[&a]).await;
    b.peer_up(a.key).await;
    a.peer_up(b.key).await;
    // The last one refuses the first, else it would learn of it and make a triangle.
    let mut c = Node::new(3, Transport::Quic, &[]).await;
    for _ in 0..limits::FAULTS_TO_BAN {
        c.send(Command::Penalise { peer: a.key }).await;
    }
    c.send(Command::Dial(b.addr.clone())).await;
    c.peer_up(b.key).await;
    for number in 0.. {
        a.publish(format!("warm {number}").as_bytes()).await;
        b.gossip(accept).await;
        if c.gossip_for(Duration::from_millis(500), accept).await.is_some() {
            break;
        }
        assert!(number < 20, "the line does not carry");
    }
    [a, b, c]
}

#[tokio::test]
async fn only_accepted_messages_travel_on() {
    let [a, mut b, mut c] = line().await;
    let judge = |bytes: &[u8]| match bytes {
        b"reject" => Verdict::Reject,
        b"ignore" => Verdict::Ignore,
        _ => Verdict::Accept,
    };
    for text in [b"reject".as_slice(), b"ignore", b"accept"] {
        a.publish(text).await;
        assert_eq!(b.gossip(judge).await.1, text);
    }
    loop {
        let (_, bytes) = c.gossip(accept).await;
        if !bytes.starts_with(b"warm") {
            assert_eq!(bytes, b"accept", "neither of the others may come first");
            break;
        }
    }
    let rest = c.gossip_for(Duration::from_secs(2), accept).await;
    assert_eq!(rest.filter(|(_, bytes)| !bytes.starts_with(b"warm")), None);
}

#[tokio::test]
async fn a_message_without_a_verdict_is_not_passed_on() {
    let [a, mut b, mut c] = line().await;
    a.publish(b"unjudged").await;
    let ticket = b
        .wait("gossip", |event| match event {
            Event::Gossip { bytes, ticket, .. } if bytes == b"unjudged" => Some(ticket),
            _ => None,
        })
        .await;
    let lifetime = limits::TICKET_LIFETIME + Duration::from_secs(1);
    assert_eq!(c.gossip_for(lifetime, accept).await, None);
    // Too late: the verdict has no effect, a second one neither.
    for _ in 0..2 {
        b.send(Command::Verdict { ticket, verdict: Verdict::Accept }).await;
    }
    a.publish(b"judged").await;
    assert_eq!(b.gossip(accept).await.1, b"judged");
    assert_eq!(c.gossip(accept).await.1, b"judged");
}

#[tokio::test]
async fn a_node_that_does_not_listen_loses_neither_gossip_nor_answers() {
    const MESSAGES: u32 = 2_000;
    let (mut a, mut b) = pair(Transport::Tcp).await;
    // What is published before the other has subscribed would wait for it, and little may.
    a.publish(b"first").await;
    b.gossip(accept).await;
    for number in 0..MESSAGES {
        a.publish(&number.to_be_bytes()).await;
    }
    // The node reads no event, and the network still takes its commands.
    let (protocol, bytes) = (common::PROTOCOL.to_owned(), b"?".to_vec());
    b.send(Command::Request { id: 1, peer: a.key, protocol, bytes }).await;
    let (id, ..) = a.asked().await;
    a.reply(id, b"!").await;
    let mut heard = BTreeSet::new();
    let answer = b
        .wait("response", |event| match event {
            Event::Response { result, .. } => Some(result),
            Event::Gossip { bytes, .. } => {
                heard.insert(bytes);
                None
            }
            _ => None,
        })
        .await;
    assert_eq!(answer, Ok(b"!".to_vec()));
    while heard.len() < MESSAGES as usize {
        heard.insert(b.gossip(accept).await.1);
    }
}

/// Counts the messages of `a` that reach `b` before they stop.
async fn heard_until_silence(a: &Node, b: &mut Node, verdict: Verdict, most: usize) -> usize {
    for number in 0..most {
        a.publish(format!("message {number}").as_bytes()).await;
        if b.gossip_for(Duration::from_secs(2), |_| verdict).await.is_none() {
            return number;
        }
    }
    most
}

#[tokio::test]
async fn six_rejected_messages_graylist_a_peer_and_ignored_ones_do_not() {
    let (a, mut b) = pair(Transport::Quic).await;
    assert_eq!(heard_until_silence(&a, &mut b, Verdict::Ignore, 12).await, 12);
    let (a, mut b) = pair(Transport::Quic).await;
    assert_eq!(heard_until_silence(&a, &mut b, Verdict::Reject, 12).await, 6);
}

#[tokio::test]
async fn the_sixth_protocol_fault_bans_a_peer() {
    let (a, mut b) = pair(Transport::Tcp).await;
    for _ in 0..limits::FAULTS_TO_BAN {
        b.send(Command::Penalise { peer: a.key }).await;
    }
    let gone = |event| matches!(event, Event::PeerDown { .. }).then_some(());
    b.wait("end of the connection", gone).await;
    assert_eq!(heard_until_silence(&a, &mut b, Verdict::Accept, 3).await, 0);
}

#[tokio::test]
async fn a_message_waits_for_the_first_subscriber() {
    let a = Node::new(1, Transport::Quic, &[]).await;
    for text in [b"early".as_slice(), b"later"] {
        a.publish(text).await;
    }
    let mut b = Node::new(2, Transport::Quic, &[&a]).await;
    assert_eq!(b.gossip(accept).await.1, b"early");
    assert_eq!(b.gossip(accept).await.1, b"later");
}

#[tokio::test]
async fn a_message_nobody_took_is_reported_after_two_epochs() {
    let mut config = config(1, Transport::Quic);
    config.epoch_ms = 50;
    let mut a = Node::with(config).await;
    a.publish(b"unheard").await;
    let reason = a.wait("report", publish_failed).await;
    assert_eq!(reason, "publish.no_peers");
}

#[tokio::test]
async fn what_cannot_be_published_is_reported() {
    let mut a = Node::new(1, Transport::Quic, &[]).await;
    let cases =
        [(TOPIC, TOPIC_BYTES + 1, "publish.too_large"), ("nonsense", 1, "publish.unknown_topic")];
    for (topic, length, reason) in cases {
        a.send(Command::Publish { topic: topic.into(), bytes: vec![7; length] }).await;
        assert_eq!(a.wait("report", publish_failed).await, reason);
    }
}

fn publish_failed(event: Event) -> Option<String> {
    match event {
        Event::PublishFailed { reason, .. } => Some(reason),
        _ => None,
    }
}

/// A gossipsub peer with the library's own limits.
fn stranger() -> Swarm<gossipsub::Behaviour> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| message.data.clone().into())
        .build()
        .unwrap();
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| {
            gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap()
        })
        .unwrap()
        .build()
}

#[tokio::test]
async fn an_oversize_message_of_a_stranger_does_not_arrive() {
    use futures::StreamExt;
    let mut b = Node::new(2, Transport::Tcp, &[]).await;
    let topic = IdentTopic::new("/capex/testnet/orders/v1");
    let mut stranger = stranger();
    stranger.behaviour_mut().subscribe(&topic).unwrap();
    stranger.dial(b.addr.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let hash = topic.hash();
    let talk = async move {
        let mut sent = false;
        loop {
            let event = stranger.select_next_some().await;
            let subscribed = matches!(
                event,
                libp2p::swarm::SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. })
            );
            if subscribed && !sent {
                sent = true;
                for length in [TOPIC_BYTES + 1, TOPIC_BYTES + 100, 32_000, TOPIC_BYTES] {
                    stranger.behaviour_mut().publish(hash.clone(), vec![7; length]).unwrap();
                }
            }
        }
    };
    let talking = tokio::spawn(talk);
    assert_eq!(b.gossip(accept).await.1.len(), TOPIC_BYTES);
    talking.abort();
}
