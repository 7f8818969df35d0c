//! Few inbound peers per neighbourhood of the Internet, so that one owner of many addresses
//! cannot take all inbound places.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::{ConnectedPoint, Endpoint, transport::PortUse};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::limits::MAX_INBOUND_PER_SUBNET;

/// The first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subnet {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Subnet {
    fn of(addr: &Multiaddr) -> Option<Self> {
        match addr.iter().next()? {
            Part::Ip4(ip) => Some(Self::v4(ip.octets())),
            Part::Ip6(ip) => Some(match ip.to_ipv4_mapped() {
                Some(ip) => Self::v4(ip.octets()),
                None => {
                    let [a, b, c, d, e, f, ..] = ip.octets();
                    Self::V6([a, b, c, d, e, f])
                }
            }),
            _ => None,
        }
    }

    fn v4([a, b, c, _]: [u8; 4]) -> Self {
        Self::V4([a, b, c])
    }
}

/// Denies an inbound connection from a subnet that has its share.
#[derive(Debug, Default)]
pub(crate) struct Subnets {
    /// On a network of one host all peers share a subnet.
    exempt: bool,
    inbound: HashMap<ConnectionId, Subnet>,
}

/// A subnet has its share of inbound connections.
#[derive(Debug, thiserror::Error)]
#[error("too many inbound connections from one subnet")]
struct Crowded;

impl Subnets {
    pub(crate) fn new(exempt: bool) -> Self {
        Self { exempt, inbound: HashMap::new() }
    }

    fn check(&self, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        let Some(subnet) = Subnet::of(remote).filter(|_| !self.exempt) else {
            return Ok(());
        };
        let taken = self.inbound.values().filter(|other| **other == subnet).count();
        if taken >= MAX_INBOUND_PER_SUBNET {
            return Err(ConnectionDenied::new(Crowded));
        }
        Ok(())
    }

    fn opened(&mut self, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if let ConnectedPoint::Listener { send_back_addr, .. } = endpoint
            && let Some(subnet) = Subnet::of(send_back_addr)
        {
            self.inbound.insert(connection, subnet);
        }
    }
}

impl NetworkBehaviour for Subnets {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check(remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(remote)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.opened(event.connection_id, event.endpoint);
            }
            FromSwarm::ConnectionClosed(event) => {
                self.inbound.remove(&event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(remote: &str) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: "/ip4/192.0.2.1/tcp/1".parse().unwrap(),
            send_back_addr: remote.parse().unwrap(),
        }
    }

    fn open(subnets: &mut Subnets, from: usize, remote: &str) {
        subnets.opened(ConnectionId::new_unchecked(from), &endpoint(remote));
    }

    #[test]
    fn a_subnet_has_its_share_and_no_more() {
        let cases = [
            (
                "/ip4/198.51.100.1/tcp/1",
                "/ip4/198.51.100.250/udp/9/quic-v1",
                "/ip4/198.51.101.1/tcp/1",
            ),
            (
                "/ip6/2001:db8:1::1/tcp/1",
                "/ip6/2001:db8:1:ffff::1/tcp/1",
                "/ip6/2001:db8:2::1/tcp/1",
            ),
            ("/ip6/::ffff:198.51.100.1/tcp/1", "/ip4/198.51.100.9/tcp/1", "/ip6/::1/tcp/1"),
        ];
        for (first, same, other) in cases {
            let mut subnets = Subnets::new(false);
            for number in 0..MAX_INBOUND_PER_SUBNET {
                assert!(subnets.check(&same.parse().unwrap()).is_ok());
                open(&mut subnets, number, first);
            }
            assert!(subnets.check(&same.parse().unwrap()).is_err(), "{same}");
            assert!(subnets.check(&other.parse().unwrap()).is_ok(), "{other}");
            subnets.inbound.remove(&ConnectionId::new_unchecked(0));
            assert!(subnets.check(&same.parse().unwrap()).is_ok());
        }
    }

    #[test]
    fn a_network_on_one_host_is_exempt() {
        let mut subnets = Subnets::new(true);
        for number in 0..2 * MAX_INBOUND_PER_SUBNET {
            open(&mut subnets, number, "/ip4/127.0.0.1/tcp/1");
        }
        assert!(subnets.check(&"/ip4/127.0.0.1/tcp/2".parse().unwrap()).is_ok());
    }
}
