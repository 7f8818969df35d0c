//! What someone outside the world can do to a node, answered at once.

use super::queue::NodeId;
use super::world::{Call, World};
use capex_core::engine::{Input, Keys, Protocol, Topic, Verdict};
use capex_core::ids::Key;
use capex_core::wire::{Envelope, Object};

impl World {
    /// Signs an object with the true key of a node that keeps to no rule.
    #[must_use]
    pub fn sign_as<T: Object>(&self, node: NodeId, object: T) -> Envelope {
        let keys = Keys::new(self.nodes[node].secret, [0; 32]);
        keys.sign(object, &self.params).envelope().clone()
    }

    /// Gossip from a stranger: the verdict with its reason code.
    pub fn gossip_from(
        &mut self,
        stranger: Key,
        to: NodeId,
        topic: Topic,
        bytes: &[u8],
    ) -> Option<(Verdict, Option<String>)> {
        let message = self.messages.get(topic, bytes);
        let body = &mut self.nodes[to].life.as_mut()?.body;
        body.verdict = None;
        body.is_news(&message);
        let ticket = body.ticket(stranger, message);
        self.feed(to, Input::Gossip { peer: stranger, topic, bytes: bytes.to_vec(), ticket });
        self.nodes[to].life.as_mut()?.body.verdict.take()
    }

    /// A request from a stranger: the answer, if the engine has one at once.
    pub fn ask_from(
        &mut self,
        stranger: Key,
        to: NodeId,
        protocol: Protocol,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        self.next_call += 1;
        let call = self.next_call;
        let record = Call { from: None, life: 0, id: 0, to, peer: stranger, protocol };
        self.calls.insert(call, record);
        self.answered = None;
        self.feed(to, Input::Request { peer: stranger, id: call, protocol, bytes: bytes.to_vec() });
        self.calls.remove(&call);
        self.answered.take()
    }
}
