//! Known peers, where they listen, and when to dial them again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol as Part;
use libp2p::{Multiaddr, PeerId};

use crate::limits::{FIRST_REDIAL, FIRST_REDIAL_LOOPBACK, MAX_ADDRESSES, MAX_BOOK, MAX_REDIAL};

/// What is known of one peer.
#[derive(Debug)]
struct Entry {
    addrs: Vec<Multiaddr>,
    /// Named by the operator: never evicted, always dialled.
    pinned: bool,
    failures: u32,
    next_dial: Instant,
}

/// A bounded address book with a redial clock per peer.
#[derive(Debug)]
pub(crate) struct Book {
    entries: BTreeMap<PeerId, Entry>,
    loopback: bool,
}

impl Book {
    pub(crate) fn new(loopback: bool) -> Self {
        Self { entries: BTreeMap::new(), loopback }
    }

    /// Adds an address the operator gave, whatever it is.
    pub(crate) fn pin(&mut self, peer: PeerId, addr: Multiaddr, now: Instant) {
        self.insert(peer, addr, now);
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.pinned = true;
        }
    }

    /// Adds an address the operator or the own node found good, without staying connected to it.
    pub(crate) fn insert(&mut self, peer: PeerId, addr: Multiaddr, now: Instant) {
        if !self.entries.contains_key(&peer) {
            self.make_room();
            let entry = Entry { addrs: Vec::new(), pinned: false, failures: 0, next_dial: now };
            self.entries.insert(peer, entry);
        }
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.addrs.retain(|known| *known != addr);
            entry.addrs.insert(0, addr);
            entry.addrs.truncate(MAX_ADDRESSES);
        }
    }

    /// Adds an address somebody claimed; one that leads to a place strangers must not send the
    /// node to, or over a transport it does not speak, is dropped.
    pub(crate) fn learn(&mut self, peer: PeerId, addr: Multiaddr, now: Instant) {
        if speaks(&addr) && (self.loopback || is_public(&addr)) {
            self.insert(peer, addr, now);
        }
    }

    pub(crate) fn addrs(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.entries.get(peer).map(|entry| entry.addrs.clone()).unwrap_or_default()
    }

    /// The dial of a peer succeeded, or it came by itself.
    pub(crate) fn connected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.failures = 0;
            entry.next_dial = now;
        }
    }

    /// The dial of a peer failed, or its last connection was lost: wait, twice as long each time.
    pub(crate) fn lost(&mut self, peer: &PeerId, now: Instant) {
        let first = if self.loopback { FIRST_REDIAL_LOOPBACK } else { FIRST_REDIAL };
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.next_dial = now + backoff(first, entry.failures);
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// At most `most` peers to dial now: those named by the operator, and others only while
    /// `want_more`. Each is put off, so that it is named once until its dial is decided.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        want_more: bool,
        most: usize,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<PeerId> {
        let ready = |entry: &Entry| (entry.pinned || want_more) && entry.next_dial <= now;
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(peer, entry)| ready(entry) && !is_connected(peer))
            .map(|(peer, entry)| (!entry.pinned, entry.next_dial, *peer))
            .collect();
        due.sort_unstable();
        due.truncate(most);
        let due: Vec<PeerId> = due.into_iter().map(|(_, _, peer)| peer).collect();
        for peer in &due {
            if let Some(entry) = self.entries.get_mut(peer) {
                entry.next_dial = now + MAX_REDIAL;
            }
        }
        due
    }

    /// Evicts the peer that failed most often when the book is full.
    fn make_room(&mut self) {
        if self.entries.len() < MAX_BOOK {
            return;
        }
        let movable = self.entries.iter().filter(|(_, entry)| !entry.pinned);
        let worst = movable.max_by_key(|(_, entry)| entry.failures).map(|(peer, _)| *peer);
        if let Some(peer) = worst {
            self.entries.remove(&peer);
        }
    }
}

fn backoff(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(MAX_REDIAL)
}

/// Whether the address is one of the two transports: a host, then TCP or QUIC, and nothing else.
fn speaks(addr: &Multiaddr) -> bool {
    let parts: Vec<Part<'_>> = addr.iter().collect();
    let transport = match &parts[..] {
        [host, Part::Tcp(port)] => (host, *port),
        [host, Part::Udp(port), Part::QuicV1] => (host, *port),
        _ => return false,
    };
    let host = matches!(
        transport.0,
        Part::Ip4(_) | Part::Ip6(_) | Part::Dns(_) | Part::Dns4(_) | Part::Dns6(_)
    );
    host && transport.1 != 0
}

/// Whether a stranger may send the node there: not into its own host or network.
fn is_public(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Part::Ip4(ip)) => is_public_v4(ip),
        Some(Part::Ip6(ip)) => is_public_v6(ip),
        Some(Part::Dns(name) | Part::Dns4(name) | Part::Dns6(name)) => name != "localhost",
        _ => false,
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    !(ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_broadcast()
        || shared)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.to_ipv4_mapped() {
        Some(ip) => is_public_v4(ip),
        None => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_cannot_send_a_node_into_its_own_network() {
        let cases = [
            ("/ip4/8.8.8.8/tcp/1", true),
            ("/ip4/8.8.8.8/udp/1/quic-v1", true),
            ("/ip6/2001:4860::1/tcp/1", true),
            ("/dns4/node.example.org/tcp/1", true),
            ("/ip4/8.8.8.8/tcp/0", false),
            ("/ip4/8.8.8.8/udp/1", false),
            ("/ip4/8.8.8.8/tcp/1/ws", false),
            ("/ip4/127.0.0.1/tcp/1", false),
            ("/ip4/10.1.2.3/tcp/1", false),
            ("/ip4/100.64.0.1/tcp/1", false),
            ("/ip4/169.254.169.254/tcp/80", false),
            ("/ip4/0.0.0.0/tcp/1", false),
            ("/ip6/::1/tcp/1", false),
            ("/ip6/::ffff:127.0.0.1/tcp/1", false),
            ("/ip6/fd00::1/tcp/1", false),
            ("/dns/localhost/tcp/1", false),
        ];
        for (text, kept) in cases {
            let mut book = Book::new(false);
            let peer = PeerId::random();
            book.learn(peer, addr(text), Instant::now());
            assert_eq!(!book.addrs(&peer).is_empty(), kept, "{text}");
        }
        let mut book = Book::new(true);
        let peer = PeerId::random();
        book.learn(peer, addr("/ip4/127.0.0.1/tcp/1"), Instant::now());
        assert_eq!(book.addrs(&peer).len(), 1);
    }

    #[test]
    fn a_lost_peer_is_dialled_again_ever_more_slowly() {
        let start = Instant::now();
        let mut book = Book::new(true);
        let peer = PeerId::random();
        book.pin(peer, addr("/ip4/127.0.0.1/tcp/1"), start);
        assert_eq!(book.due(start, false, 4, |_| false), [peer]);
        assert!(book.due(start, false, 4, |_| false).is_empty(), "a dial is under way");
        for wait_ms in [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            book.lost(&peer, start);
            let due = start + Duration::from_millis(wait_ms);
            assert!(book.due(due - Duration::from_millis(1), false, 4, |_| false).is_empty());
            assert_eq!(book.due(due, false, 4, |_| false), [peer], "after {wait_ms} ms");
        }
        book.connected(&peer, start);
        assert!(book.due(start, false, 4, |_| true).is_empty(), "it is connected");
        book.lost(&peer, start);
        assert_eq!(book.due(start + FIRST_REDIAL_LOOPBACK, false, 4, |_| false), [peer]);
    }

    #[test]
    fn peers_nobody_pinned_are_dialled_only_while_more_are_wanted() {
        let now = Instant::now();
        let mut book = Book::new(true);
        let (pinned, other) = (PeerId::random(), PeerId::random());
        book.learn(other, addr("/ip4/127.0.0.1/tcp/1"), now);
        book.pin(pinned, addr("/ip4/127.0.0.1/tcp/2"), now);
        assert_eq!(book.due(now, false, 4, |_| false), [pinned]);
        assert_eq!(book.due(now, true, 4, |_| false), [other]);
    }

    #[test]
    fn the_book_is_bounded_and_keeps_pinned_peers() {
        let now = Instant::now();
        let mut book = Book::new(true);
        let pinned = PeerId::random();
        book.pin(pinned, addr("/ip4/127.0.0.1/tcp/1"), now);
        for _ in 0..MAX_BOOK {
            book.learn(PeerId::random(), addr("/ip4/127.0.0.1/tcp/2"), now);
        }
        assert_eq!(book.entries.len(), MAX_BOOK);
        assert_eq!(book.addrs(&pinned).len(), 1);
        for port in 1..=20 {
            book.learn(pinned, addr(&format!("/ip4/127.0.0.1/tcp/{port}")), now);
        }
        assert_eq!(book.addrs(&pinned).len(), MAX_ADDRESSES);
        assert_eq!(book.addrs(&pinned)[0], addr("/ip4/127.0.0.1/tcp/20"));
    }
}
