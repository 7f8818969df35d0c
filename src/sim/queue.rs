//! What will happen, in order of virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Transaction;

use capex_core::engine::{Input, Protocol, Topic};
use capex_core::ids::Key;
use capex_core::units::TimeMs;
use capex_core::wire::sha256;

/// Names a node of a world.
pub type NodeId = usize;

/// A gossip message on its way, to however many nodes.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Topic,
    pub(super) bytes: Arc<[u8]>,
    /// Names it in its world.
    pub(super) number: usize,
}

/// Messages of a world, numbered: equal ones are the same, as in a mesh.
#[derive(Debug, Default)]
pub(super) struct Messages(BTreeMap<[u8; 32], usize>);

impl Messages {
    pub(super) fn get(&mut self, topic: Topic, bytes: &[u8]) -> Message {
        let next = self.0.len();
        let hash = sha256(&[topic.name().as_bytes(), bytes]);
        let number = *self.0.entry(hash).or_insert(next);
        Message { topic, bytes: bytes.into(), number }
    }
}

/// Some messages of a world, a bit for each: in a large market every node is asked about every
/// message by all others.
#[derive(Debug, Default)]
pub(super) struct Heard(Vec<u64>);

impl Heard {
    pub(super) fn contains(&self, message: &Message) -> bool {
        let (word, bit) = place(message);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether it was not there.
    pub(super) fn insert(&mut self, message: &Message) -> bool {
        let (word, bit) = place(message);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

fn place(message: &Message) -> (usize, u64) {
    (message.number / 64, 1 << (message.number % 64))
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// A node's timer; void if it was set anew since.
    Tick(NodeId),
    /// Gossip reaches a node.
    Gossip { to: NodeId, from: Key, message: Message },
    /// A request reaches a node.
    Request { to: NodeId, call: u64, protocol: Protocol, bytes: Vec<u8> },
    /// An answer, or its absence, reaches whoever asked.
    Response { call: u64, result: Result<Vec<u8>, String> },
    /// Something inside a node: lost if that life has ended.
    Inside { node: NodeId, life: u32, input: Box<Input> },
    /// A node notices that a peer came or went.
    Peer { node: NodeId, life: u32, key: Key, up: bool },
    /// An input from the host of a node, which outlives the daemon.
    Host { node: NodeId, input: Box<Input> },
    /// A node answers a request from its disk.
    Served { node: NodeId, life: u32, call: u64, bytes: Vec<u8> },
    /// A node hands a transaction to the Bitcoin network.
    Broadcast { node: NodeId, life: u32, tx: Box<Transaction> },
    /// A node looks at the chain; a regular look sets up the next.
    Poll { node: NodeId, life: u32, regular: bool },
    /// A chain block is found.
    Block,
    /// A node ends without warning.
    Crash(NodeId),
    /// A node begins a life.
    Start(NodeId),
}

/// Happenings by time; those of one time in the order in which they were set up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeMap<(TimeMs, u64), Happening>,
    count: u64,
}

impl Queue {
    /// Sets something up.
    pub(super) fn push(&mut self, at_ms: TimeMs, happening: Happening) {
        self.count += 1;
        self.due.insert((at_ms, self.count), happening);
    }

    /// The next happening not after a time.
    pub(super) fn pop(&mut self, until_ms: TimeMs) -> Option<(TimeMs, Happening)> {
        let first = self.due.first_entry().filter(|entry| entry.key().0 <= until_ms)?;
        let ((at_ms, _), happening) = first.remove_entry();
        Some((at_ms, happening))
    }
}
