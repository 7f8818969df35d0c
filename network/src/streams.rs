//! Streams of bytes between two peers that live as long as both want: what a person or a program
//! has open to a lease. What runs over them is the node's own affair.
//!
//! One protocol name is enough, since what a stream is for stands in its first bytes. Unlike a
//! request a stream holds a place for as long as it is open, so places are counted by peer.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use crate::keys::PeerKey;
use crate::limits::{MAX_INBOUND_STREAMS, MAX_INBOUND_STREAMS_PER_PEER, REQUEST_TIMEOUT};
use crate::request::RequestError;

/// Where streams of other peers arrive. On the wire the protocol is `/capex/<network>/<name>`.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Bare name with its version, for example `access/1`.
    pub name: String,
    /// A stream that finds no room here is closed.
    pub inbound: mpsc::Sender<InboundStream>,
}

/// A stream that another peer opened. Who it is was proven when the connection was made.
#[derive(Debug)]
pub struct InboundStream {
    pub peer: PeerKey,
    pub stream: Stream,
}

/// Bytes both ways, in order, encrypted. Its peer sees the end when it is dropped.
#[derive(Debug)]
pub struct Stream {
    inner: Compat<libp2p::Stream>,
    /// Held by streams that others opened.
    _place: Option<Place>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How many streams each peer has open here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<BTreeMap<PeerKey, usize>>>);

/// A place that is free again when this is dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    peer: PeerKey,
}

impl Places {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<PeerKey, usize>> {
        // Each change is one step, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a stream that a peer opened its place; none if it has too many, or all have.
    pub(crate) fn seat(&self, peer: PeerKey, stream: libp2p::Stream) -> Option<InboundStream> {
        let place = self.take(peer)?;
        Some(InboundStream { peer, stream: Stream { inner: stream.compat(), _place: Some(place) } })
    }

    fn take(&self, peer: PeerKey) -> Option<Place> {
        let mut counts = self.counts();
        let all: usize = counts.values().sum();
        let own = counts.get(&peer).copied().unwrap_or(0);
        if all >= MAX_INBOUND_STREAMS || own >= MAX_INBOUND_STREAMS_PER_PEER {
            return None;
        }
        counts.insert(peer, own + 1);
        Some(Place { places: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.counts();
        match counts.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                counts.remove(&self.peer);
            }
            None => {}
        }
    }
}

/// A stream of the own node.
pub(crate) fn outbound(stream: libp2p::Stream) -> Stream {
    Stream { inner: stream.compat(), _place: None }
}

/// What happened to streams.
#[derive(Debug)]
pub(crate) enum StreamEvent {
    /// Another peer opened one.
    Inbound { peer: PeerId, stream: libp2p::Stream },
    /// An own wish came true, or did not.
    Opened { id: u64, result: Result<libp2p::Stream, RequestError> },
}

/// Opens and takes streams of one protocol.
pub(crate) struct Streams {
    protocol: StreamProtocol,
    pending: VecDeque<ToSwarm<StreamEvent, u64>>,
}

impl Streams {
    pub(crate) fn new(protocol: StreamProtocol) -> Self {
        Self { protocol, pending: VecDeque::new() }
    }

    /// Asks for a stream to a connected peer; [`StreamEvent::Opened`] follows unless the connection
    /// is lost.
    pub(crate) fn open(&mut self, id: u64, peer_id: PeerId) {
        let handler = NotifyHandler::Any;
        self.pending.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: id });
    }

    fn handler(&self) -> Handler {
        let protocol = self.protocol.clone();
        Handler { protocol, wanted: VecDeque::new(), made: VecDeque::new() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            Made::Inbound(stream) => StreamEvent::Inbound { peer, stream },
            Made::Opened(id, result) => StreamEvent::Opened { id, result },
        };
        self.pending.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<StreamEvent, THandlerInEvent<Self>>> {
        self.pending.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What a handler has made.
#[derive(Debug)]
pub(crate) enum Made {
    Inbound(libp2p::Stream),
    Opened(u64, Result<libp2p::Stream, RequestError>),
}

/// The streams of one connection. What is open keeps the connection, the handler does not.
pub(crate) struct Handler {
    protocol: StreamProtocol,
    wanted: VecDeque<u64>,
    made: VecDeque<Made>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = u64;
    type ToBehaviour = Made;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, u64, Made>> {
        if let Some(made) = self.made.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(made));
        }
        let Some(id) = self.wanted.pop_front() else { return Poll::Pending };
        let upgrade = ReadyUpgrade::new(self.protocol.clone());
        let protocol = SubstreamProtocol::new(upgrade, id).with_timeout(REQUEST_TIMEOUT);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, id: u64) {
        self.wanted.push_back(id);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), u64>,
    ) {
        let made = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => Made::Inbound(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => Made::Opened(info, Ok(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                Made::Opened(info, Err(why(error)))
            }
            _ => return,
        };
        self.made.push_back(made);
    }
}

fn why(error: StreamUpgradeError<Infallible>) -> RequestError {
    match error {
        StreamUpgradeError::NegotiationFailed => RequestError::Unsupported,
        StreamUpgradeError::Timeout => RequestError::Timeout,
        StreamUpgradeError::Io(error) => error.into(),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_share_of_the_places_and_leaves_them() {
        let places = Places::default();
        let peer = |n: usize| PeerKey([u8::try_from(n).unwrap(); 32]);
        let mut taken: Vec<Place> = Vec::new();
        let mut of = 0;
        while taken.len() < MAX_INBOUND_STREAMS {
            for _ in 0..MAX_INBOUND_STREAMS_PER_PEER {
                taken.extend(places.take(peer(of)));
            }
            assert!(places.take(peer(of)).is_none(), "its share");
            of += 1;
        }
        assert!(places.take(peer(of)).is_none(), "all");
        taken.pop();
        assert!(places.take(peer(of)).is_some());
        drop(taken);
        assert!(places.counts().is_empty());
    }
}
