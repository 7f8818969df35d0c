//! One libp2p request-response behaviour per protocol, behind a single one.
//!
//! The library lets a requester offer all its protocols and the other side pick; here the caller
//! names the protocol of each request, so every protocol has a behaviour of its own, and its index
//! in the configuration tells them apart.

use std::task::{Context, Poll};

use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::handler::multi::MultiHandler;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::Protocol;
use crate::limits::{MAX_STREAMS, REQUEST_TIMEOUT};
use crate::request::{Budget, FrameCodec};

pub(crate) type Inner = request_response::Behaviour<FrameCodec>;
pub(crate) type InnerEvent = request_response::Event<Vec<u8>, Vec<u8>>;

/// All request protocols of a node.
pub(crate) struct Protocols {
    inner: Vec<Inner>,
    /// The behaviour polled first the next time, so that none starves the others.
    turn: usize,
}

impl Protocols {
    pub(crate) fn new(protocols: &[Protocol]) -> Self {
        let budget = Budget::default();
        let make = |protocol: &Protocol| {
            let codec = FrameCodec { max_bytes: protocol.max_bytes, budget: budget.clone() };
            let names = [(protocol.stream.clone(), ProtocolSupport::Full)];
            let config = request_response::Config::default()
                .with_request_timeout(REQUEST_TIMEOUT)
                .with_max_concurrent_streams(MAX_STREAMS);
            Inner::with_codec(codec, names, config)
        };
        Self { inner: protocols.iter().map(make).collect(), turn: 0 }
    }

    pub(crate) fn get_mut(&mut self, protocol: usize) -> Option<&mut Inner> {
        self.inner.get_mut(protocol)
    }

    /// Gathers one handler per protocol.
    fn handlers(
        &mut self,
        make: impl FnMut(&mut Inner) -> Result<THandler<Inner>, ConnectionDenied>,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handlers = self.inner.iter_mut().map(make).collect::<Result<Vec<_>, _>>()?;
        MultiHandler::try_from_iter(handlers.into_iter().enumerate()).map_err(ConnectionDenied::new)
    }
}

impl NetworkBehaviour for Protocols {
    type ConnectionHandler = MultiHandler<usize, THandler<Inner>>;
    type ToSwarm = (usize, InnerEvent);

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handlers(|inner| {
            inner.handle_established_inbound_connection(connection, peer, local, remote)
        })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handlers(|inner| {
            inner.handle_established_outbound_connection(connection, peer, addr, role, port)
        })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        for inner in &mut self.inner {
            inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (protocol, event): THandlerOutEvent<Self>,
    ) {
        if let Some(inner) = self.inner.get_mut(protocol) {
            inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let count = self.inner.len();
        for step in 0..count {
            let protocol = (self.turn + step) % count;
            if let Poll::Ready(event) = self.inner[protocol].poll(cx) {
                self.turn = protocol + 1;
                let event =
                    event.map_in(|command| (protocol, command)).map_out(|event| (protocol, event));
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }
}
