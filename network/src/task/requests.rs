//! Requests and replies of the swarm task.

use std::time::Instant;

use libp2p::request_response::{self, Message, ResponseChannel};

use crate::exchange::Waiting;
use crate::keys::PeerKey;
use crate::limits::SHED_REQUESTS_ABOVE;
use crate::protocols::InnerEvent;
use crate::{Event, RequestError};

use super::Task;

impl Task<'_> {
    pub(super) fn request(
        &mut self,
        id: u64,
        peer: PeerKey,
        protocol: &str,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        match self.admit(id, peer, protocol, bytes, now) {
            Ok(()) => self.pump(peer),
            Err(error) => self.answer(id, Err(error)),
        }
    }

    fn admit(
        &mut self,
        id: u64,
        peer: PeerKey,
        protocol: &str,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), RequestError> {
        let index = self.plan.protocol(protocol).ok_or(RequestError::UnknownProtocol)?;
        if bytes.len() > self.plan.protocols[index].max_bytes {
            return Err(RequestError::TooLarge);
        }
        self.state.outbound.admit(id, peer, index, bytes, now)
    }

    /// Sends what may be sent to a peer; the swarm dials it when it is not connected.
    pub(super) fn pump(&mut self, peer: PeerKey) {
        while let Some(waiting) = self.state.outbound.next_for(&peer) {
            let id = waiting.id;
            if !self.hand_over(peer, waiting) {
                self.answer(id, Err(RequestError::Unreachable));
            }
        }
    }

    /// Gives a request to the swarm; false when nothing is known that leads to the peer.
    fn hand_over(&mut self, peer: PeerKey, waiting: Waiting) -> bool {
        let Some(id) = peer.to_peer_id() else {
            return false;
        };
        let addrs = self.state.book.addrs(&id);
        if addrs.is_empty() && !self.swarm.is_connected(&id) {
            return false;
        }
        let Some(inner) = self.swarm.behaviour_mut().protocols.get_mut(waiting.protocol) else {
            return false;
        };
        let deadline = waiting.deadline();
        let key = inner.send_request_with_addresses(&id, waiting.bytes, addrs);
        self.state.outbound.sent((waiting.protocol, key), waiting.id, peer, deadline);
        true
    }

    pub(super) fn reply(&mut self, id: u64, bytes: Vec<u8>) {
        let Some(open) = self.state.inbound.take(id) else {
            tracing::debug!(id, "a reply without an open request");
            return;
        };
        let Some(protocol) = self.plan.protocols.get(open.protocol) else {
            return;
        };
        if bytes.len() > protocol.max_bytes {
            // Dropping the channel tells the peer that there is no answer.
            tracing::warn!(id, bytes = bytes.len(), "a reply larger than the protocol allows");
            return;
        }
        if let Some(inner) = self.swarm.behaviour_mut().protocols.get_mut(open.protocol) {
            // An error means that the peer has gone: nobody waits for the reply.
            let _ = inner.send_response(open.channel, bytes);
        }
    }

    pub(super) fn on_exchange(&mut self, protocol: usize, event: InnerEvent, now: Instant) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => {
                    if let Some(peer) = PeerKey::from_peer_id(&peer) {
                        self.on_request(peer, protocol, request, channel, now);
                    }
                }
                Message::Response { request_id, response } => {
                    self.on_finished((protocol, request_id), Ok(response));
                }
            },
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                self.on_finished((protocol, request_id), Err(error.into()));
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        peer: PeerKey,
        protocol: usize,
        bytes: Vec<u8>,
        channel: ResponseChannel<Vec<u8>>,
        now: Instant,
    ) {
        let Some(name) = self.plan.protocols.get(protocol).map(|p| p.name.clone()) else {
            return;
        };
        if self.state.outbox.len() >= SHED_REQUESTS_ABOVE {
            return;
        }
        if let Some(id) = self.state.inbound.admit(peer, protocol, channel, now) {
            self.emit(Event::Request { peer, id, protocol: name, bytes });
        }
    }

    fn on_finished(
        &mut self,
        key: (usize, request_response::OutboundRequestId),
        result: Result<Vec<u8>, RequestError>,
    ) {
        if let Some((id, peer)) = self.state.outbound.finished(key) {
            if let Some(id) = id {
                self.answer(id, result);
            }
            self.pump(peer);
        }
    }

    pub(super) fn expire_requests(&mut self, now: Instant) {
        self.state.inbound.expire(now, |channel| !channel.is_open());
        for id in self.state.outbound.expire(now) {
            self.answer(id, Err(RequestError::Timeout));
        }
    }

    fn answer(&mut self, id: u64, result: Result<Vec<u8>, RequestError>) {
        self.emit(Event::Response { id, result });
    }
}
