//! A run in 32 bytes: equal seeds must give equal traces.

use bitcoin::consensus::serialize;
use sha2::{Digest, Sha256};

use capex_core::engine::{Effect, Input, Record};
use capex_core::units::TimeMs;
use capex_core::wire::encode;

/// Hash over every (time, node, input kind, effect bytes).
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    hash: Sha256,
    steps: u64,
}

impl Trace {
    /// Notes that a node was given an input.
    pub(super) fn input(&mut self, now_ms: TimeMs, node: usize, input: &Input) {
        self.steps += 1;
        self.hash.update(now_ms.to_be_bytes());
        self.hash.update([u8::try_from(node).unwrap_or(u8::MAX), kind(input)]);
    }

    /// Notes what the node did.
    pub(super) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Persist { seq, records } => {
                self.hash.update(seq.to_be_bytes());
                records.iter().for_each(|record| self.record(record));
            }
            Effect::Publish { topic, bytes } => self.bytes(&encode(topic), bytes),
            Effect::Send { id, key, bytes, .. } => self.bytes(&encode(&(id, key)), bytes),
            Effect::Reply { id, bytes } => self.bytes(&id.to_be_bytes(), bytes),
            Effect::Broadcast { tx } => self.bytes(b"broadcast", &serialize(tx)),
            Effect::Freeze { job: _, epoch, set, own: _ }
            | Effect::Match { job: _, epoch, set } => self.bytes(&epoch.to_be_bytes(), &set.root()),
            Effect::Discard { set } => self.bytes(b"discard", &set.root()),
            // The message came with its ticket; what is verified of it follows from the ids.
            Effect::Verify { peer, ticket, candidates } => {
                self.bytes(&ticket.to_be_bytes(), &peer.0);
                candidates.ids().for_each(|id| self.bytes(b"verify", &id.0));
            }
            other => self.bytes(b"effect", format!("{other:?}").as_bytes()),
        }
    }

    fn record(&mut self, record: &Record) {
        self.hash.update([record.table]);
        self.bytes(&record.key, record.value.as_deref().unwrap_or_default());
    }

    fn bytes(&mut self, label: &[u8], bytes: &[u8]) {
        for part in [label, bytes] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
    }

    /// Inputs so far.
    #[must_use]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The hash so far.
    #[must_use]
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

fn kind(input: &Input) -> u8 {
    match input {
        Input::Started { .. } => 0,
        Input::Tick => 1,
        Input::Gossip { .. } => 2,
        Input::Request { .. } => 3,
        Input::Response { .. } => 4,
        Input::Peer { .. } => 5,
        Input::Chain(_) => 7,
        Input::ChainSource { .. } => 8,
        Input::Wallet(_) => 9,
        Input::Funded { .. } => 10,
        Input::Broadcasted { .. } => 11,
        Input::Mined { .. } => 12,
        Input::Checked { .. } => 17,
        Input::Persisted { .. } => 13,
        Input::Executor { .. } => 14,
        Input::Command { .. } => 15,
        Input::Held { .. } => 16,
        Input::Matched { .. } => 18,
        Input::Frozen { .. } => 19,
        Input::Exported { .. } => 20,
        Input::Contributed { .. } => 21,
    }
}
