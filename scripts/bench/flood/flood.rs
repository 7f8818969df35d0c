//! Publishes a burst of valid orders for one epoch of a regtest through a real network peer.
//!
//! `flood <multiaddr> <orders> <per message>`: signs the orders for an epoch that is about to
//! begin, publishes them evenly over its first second, and prints the epoch and what the
//! network could not send. A message holds the orders of one owner.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use capex::definitions;
use capex_core::admission::has_work;
use capex_core::bundle::pack;
use capex_core::engine::Topic;
use capex_core::epoch::{epoch_at, opens_at_ms};
use capex_core::ids::Key;
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::units::Window;
use capex_core::wire::{Verified, sha256, sign, signing_prefix};
use capex_network::{Command, Config, Event, TopicConfig, Verdict};
use ed25519_dalek::SigningKey;

/// Time to sign 20,000 orders of 8 bits on a slow machine, ms.
const AHEAD_MS: u64 = 15_000;
const BURST_MS: u64 = 1_000;

fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(elapsed.as_millis()).unwrap()
}

fn order(key: &SigningKey, nonce: u64, epoch: u64, params: &Params) -> Verified<Order> {
    let start = params.first_slot(epoch);
    let mut order = Order {
        v: 1,
        epoch,
        side: Side::Buy,
        owner: Key(key.verifying_key().to_bytes()),
        nonce,
        alts: vec![Alternative { class: 1, limit_msat: 500_000 }],
        qty: 1,
        min_qty: 1,
        mode: Mode::Sticky,
        window: Window { start, end: start + 4 },
        slots: 1,
        features: 0,
        allow: Vec::new(),
        deny: Vec::new(),
        min_run: 0,
        source: Source::Primary,
        created_ms: 0,
        backing: None,
        pow_nonce: 0,
    };
    let mut prefix = signing_prefix(&order, params.magic);
    prefix.truncate(prefix.len() - size_of::<u64>());
    while !has_work(&sha256(&[&prefix, &order.pow_nonce.to_be_bytes()]), params.pow_bits) {
        order.pow_nonce += 1;
    }
    sign(order, params.magic, key)
}

fn messages(orders: u64, per_message: u64, epoch: u64, params: &Params) -> Vec<Vec<u8>> {
    let life = now_ms().to_be_bytes();
    let of_owner = |owner: u64| {
        let key = SigningKey::from_bytes(&sha256(&[&life, &owner.to_be_bytes()]));
        let signed: Vec<Verified<Order>> =
            (0..per_message).map(|nonce| order(&key, nonce, epoch, params)).collect();
        pack(&signed)
    };
    (0..orders / per_message).flat_map(of_owner).collect()
}

fn config(params: &Params, peer: String) -> Config {
    let topic =
        |topic: Topic| TopicConfig { name: topic.name().to_owned(), max_bytes: topic.max_bytes() };
    Config {
        network: params.name.clone(),
        secret: sha256(&[&now_ms().to_be_bytes(), b"flood"]).into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        bootstrap: vec![peer],
        loopback: true,
        topics: Topic::ALL.into_iter().map(topic).collect(),
        protocols: Vec::new(),
        streams: None,
        epoch_ms: params.epoch_ms(),
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, peer, orders, per_message] = &arguments[..] else { panic!("see the head of the file") };
    let params = definitions::load("regtest").unwrap();
    let epoch = epoch_at(now_ms() + AHEAD_MS, &params) + 1;
    let per_message = per_message.parse().unwrap();
    let messages = messages(orders.parse().unwrap(), per_message, epoch, &params);

    let (network, mut events) = capex_network::start(config(&params, peer.clone())).unwrap();
    let verdicts = network.clone();
    let unsent = Arc::new(AtomicU64::new(0));
    let failures = unsent.clone();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Gossip { ticket, .. } => {
                    let verdict = Verdict::Ignore;
                    let _ = verdicts.send(Command::Verdict { ticket, verdict }).await;
                }
                Event::PublishFailed { .. } => {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    });
    let opens_ms = opens_at_ms(epoch, &params);
    assert!(now_ms() < opens_ms, "signing took too long: {} ms late", now_ms() - opens_ms);
    let count = u64::try_from(messages.len()).unwrap();
    for (number, bytes) in (0..).zip(messages) {
        let due_ms = opens_ms + 200 + number * BURST_MS / count;
        // A sleep takes a millisecond at least: in between, messages go out as they come.
        if due_ms > now_ms() {
            tokio::time::sleep(Duration::from_millis(due_ms - now_ms())).await;
        }
        network.send(Command::Publish { topic: "orders".to_owned(), bytes }).await.unwrap();
    }
    let took_ms = now_ms() - opens_ms - 200;
    let end_ms = opens_ms + 7_000;
    tokio::time::sleep(Duration::from_millis(end_ms.saturating_sub(now_ms()))).await;
    let unsent = unsent.load(Ordering::Relaxed);
    let told = format!("epoch {epoch} messages {count} took_ms {took_ms} unsent {unsent}\n");
    std::io::stdout().write_all(told.as_bytes()).unwrap();
}
