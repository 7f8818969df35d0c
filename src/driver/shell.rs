//! What surrounds a driver: one method for each kind of effect.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bitcoin::{ScriptBuf, Transaction};

use crate::store::StoreError;
use crate::wallet::WalletError;
use capex_core::book::OrderSet;
use capex_core::bundle::Candidates;
use capex_core::engine::io::WalletFacts;
use capex_core::engine::kernel::Payout;
use capex_core::engine::leases::LeaseEffect;
use capex_core::engine::{Done, Effect, Event, Input, Protocol, Record, Refusal, Topic, Verdict};
use capex_core::ids::{Key, OrderId};
use capex_core::units::TimeMs;

/// Inputs that wait for the engine, first in, first out.
#[derive(Debug, Default)]
pub struct Inputs(VecDeque<Input>);

impl Inputs {
    /// Queues an input behind those that wait.
    pub fn push(&mut self, input: Input) {
        self.0.push_back(input);
    }

    pub(super) fn pop(&mut self) -> Option<Input> {
        self.0.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Scripts that are on their way to the engine.
    pub(super) fn fresh_scripts(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.wallet_facts().flat_map(|facts| &facts.fresh_spks)
    }

    /// Places for what sales earn that are on their way to the engine.
    pub(super) fn fresh_payouts(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.wallet_facts().flat_map(|facts| {
            match &facts.payout {
                Payout::Fresh(spks) => Some(spks),
                Payout::Wallet | Payout::Fixed(_) => None,
            }
            .into_iter()
            .flatten()
        })
    }

    fn wallet_facts(&self) -> impl Iterator<Item = &WalletFacts> {
        self.0.iter().filter_map(|input| match input {
            Input::Wallet(facts) => Some(facts),
            Input::Started { .. }
            | Input::Tick
            | Input::Gossip { .. }
            | Input::Request { .. }
            | Input::Response { .. }
            | Input::Peer { .. }
            | Input::Chain(_)
            | Input::ChainSource { .. }
            | Input::Funded { .. }
            | Input::Contributed { .. }
            | Input::Exported { .. }
            | Input::Broadcasted { .. }
            | Input::Frozen { .. }
            | Input::Matched { .. }
            | Input::Mined { .. }
            | Input::Checked { .. }
            | Input::Persisted { .. }
            | Input::Executor { .. }
            | Input::Held { .. }
            | Input::Command { .. } => None,
        })
    }
}

/// Performs effects, and decides nothing.
///
/// A shell never calls the engine. What it learns at once it pushes to the inputs it is
/// handed; what it learns later it brings with [`Driver::feed`](super::Driver::feed).
pub trait Shell {
    /// This node's clock, unix ms.
    fn now_ms(&self) -> TimeMs;

    /// An input is about to be handled.
    fn on_input(&mut self, _input: &Input) {}

    /// The engine gave an effect.
    fn on_effect(&mut self, _effect: &Effect) {}

    /// Writes records; answered by [`Input::Persisted`] once they are on disk. Later batches
    /// are never on disk before earlier ones.
    ///
    /// # Errors
    /// The disk cannot be written any more.
    fn persist(
        &mut self,
        inputs: &mut Inputs,
        seq: u64,
        records: Vec<Record>,
    ) -> Result<(), StoreError>;

    /// Delivers a verdict on a gossip message.
    fn verdict(&mut self, ticket: u64, verdict: Verdict, code: Option<String>);

    /// Gossips.
    fn publish(&mut self, topic: Topic, bytes: Vec<u8>);

    /// Asks a peer; always answered by [`Input::Response`].
    fn send(&mut self, inputs: &mut Inputs, id: u64, key: Key, protocol: Protocol, bytes: Vec<u8>);

    /// Answers a peer's request.
    fn reply(&mut self, id: u64, bytes: Vec<u8>);

    /// A peer sent bytes that prove it at fault.
    fn penalise(&mut self, key: Key);

    /// Where a peer can be dialled, by its own signed word.
    fn addrs(&mut self, key: Key, addrs: Vec<String>, is_connected: bool);

    /// Hands a transaction to the Bitcoin network; answered by
    /// [`Driver::on_broadcasted`](super::Driver::on_broadcasted).
    fn broadcast(&mut self, tx: Transaction);

    /// Lets the chain source read again from a height on. Returns `false` when it cannot be
    /// told now: without the scan a trade would take what it cannot see for absent, so the
    /// driver asks again.
    fn rescan_from(&mut self, height: u32) -> bool;

    /// The wallet could not follow an update and the chain is read again.
    fn chain_refused(&mut self, error: &WalletError);

    /// Encodes orders with [`Frozen::new`](capex_core::engine::market::Frozen::new); always
    /// answered by [`Input::Frozen`].
    fn freeze(
        &mut self,
        inputs: &mut Inputs,
        job: u64,
        epoch: u64,
        set: Arc<OrderSet>,
        own: BTreeSet<OrderId>,
    );

    /// Computes an epoch with [`Computed::new`](capex_core::engine::market::Computed::new);
    /// always answered by [`Input::Matched`].
    fn compute(&mut self, inputs: &mut Inputs, job: u64, epoch: u64, set: Arc<OrderSet>);

    /// Drops orders where it holds nothing up.
    fn discard(&mut self, set: Arc<OrderSet>);

    /// Searches a nonce; answered by [`Input::Mined`].
    fn mine(&mut self, job: u64, prefix: Vec<u8>, bits: u8);

    /// Checks the signatures of a message; answered by [`Input::Checked`], which may be
    /// `Busy`, in any order.
    fn verify(&mut self, inputs: &mut Inputs, peer: Key, ticket: u64, candidates: Candidates);

    /// Does something for a lease; answered by [`Input::Executor`] where it is on this host,
    /// else by [`Input::Held`].
    fn lease(&mut self, effect: LeaseEffect);

    /// News for logs and counters.
    fn notify(&mut self, event: Event);

    /// The answer to a command.
    fn done(&mut self, id: u64, result: Result<Done, Refusal>);
}
