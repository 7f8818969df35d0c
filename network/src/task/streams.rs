//! Streams of the swarm task: those that the node wants, and those that others open.

use std::time::Instant;

use libp2p::PeerId;
use tokio::sync::oneshot;

use crate::RequestError;
use crate::keys::PeerKey;
use crate::limits::{MAX_OPENING_STREAMS, REQUEST_TIMEOUT};
use crate::streams::{Stream, StreamEvent, outbound};

use super::Task;

/// A stream that the node waits for.
#[derive(Debug)]
pub(crate) struct Opening {
    peer: PeerKey,
    until: Instant,
    /// Whether the swarm was asked: until then the peer is being dialled.
    asked: bool,
    answer: oneshot::Sender<Result<Stream, RequestError>>,
}

impl Task<'_> {
    pub(super) fn open_stream(
        &mut self,
        peer: PeerKey,
        answer: oneshot::Sender<Result<Stream, RequestError>>,
        now: Instant,
    ) {
        if let Err(error) = self.admit_stream(peer) {
            // An error means that nobody waits any more.
            let _ = answer.send(Err(error));
            return;
        }
        let id = self.state.next_stream;
        self.state.next_stream += 1;
        let opening = Opening { peer, until: now + REQUEST_TIMEOUT, asked: false, answer };
        self.state.opening.insert(id, opening);
        self.pump_streams(peer);
        if let Some(peer) = peer.to_peer_id().filter(|peer| !self.swarm.is_connected(peer)) {
            self.dial(peer, now);
        }
    }

    fn admit_stream(&self, peer: PeerKey) -> Result<(), RequestError> {
        if self.plan.streams.is_none() {
            return Err(RequestError::UnknownProtocol);
        }
        if self.state.opening.len() >= MAX_OPENING_STREAMS {
            return Err(RequestError::Busy);
        }
        let id = peer.to_peer_id().ok_or(RequestError::Unreachable)?;
        let leads = self.swarm.is_connected(&id) || !self.state.book.addrs(&id).is_empty();
        if leads { Ok(()) } else { Err(RequestError::Unreachable) }
    }

    /// Asks for what waits for a peer, as soon as that is connected.
    pub(super) fn pump_streams(&mut self, peer: PeerKey) {
        let connected = peer.to_peer_id().filter(|peer| self.swarm.is_connected(peer));
        let Some(streams) = self.swarm.behaviour_mut().streams.as_mut() else { return };
        let Some(id) = connected else { return };
        for (name, opening) in &mut self.state.opening {
            if opening.peer == peer && !opening.asked {
                opening.asked = true;
                streams.open(*name, id);
            }
        }
    }

    pub(super) fn on_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Opened { id, result } => {
                if let Some(opening) = self.state.opening.remove(&id) {
                    let _ = opening.answer.send(result.map(outbound));
                }
            }
            StreamEvent::Inbound { peer, stream } => {
                let Some((streams, peer)) =
                    self.plan.streams.as_ref().zip(PeerKey::from_peer_id(&peer))
                else {
                    return;
                };
                let seated = self.state.places.seat(peer, stream);
                if seated.is_none_or(|stream| streams.inbound.try_send(stream).is_err()) {
                    tracing::debug!(?peer, "a stream more than there is room for");
                }
            }
        }
    }

    /// Nothing leads to a peer any more: who waits for it is told.
    pub(super) fn fail_streams(&mut self, peer: &PeerId, error: &RequestError) {
        let Some(peer) = PeerKey::from_peer_id(peer) else { return };
        let failed = self.state.opening.extract_if(.., |_, opening| opening.peer == peer);
        for (_, opening) in failed {
            let _ = opening.answer.send(Err(error.clone()));
        }
    }

    pub(super) fn expire_streams(&mut self, now: Instant) {
        let late = self.state.opening.extract_if(.., |_, opening| opening.until <= now);
        for (_, opening) in late {
            let _ = opening.answer.send(Err(RequestError::Timeout));
        }
    }
}
