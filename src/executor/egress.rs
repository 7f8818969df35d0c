//! The way out of a lease: what its provider lets it have, and what nobody may reach from one.

use std::fs;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Addresses that no lease reaches: those of the provider's own networks, of the machine and of its
/// neighbours on a cloud, and what belongs to nobody. Of IPv6 there is nothing at all.
///
/// Source: IANA IPv4 Special-Purpose Address Registry; everything from 224.0.0.0 on.
pub(super) const REFUSED: [(Ipv4Addr, u8); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Among them those of the leases themselves.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Where the system says whom it asks for names.
const RESOLVERS_FILE: &str = "/etc/resolv.conf";
/// As many as the C library asks.
pub const RESOLVERS_MAX: usize = 3;

/// What a provider lets leases have that ask for a way out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Whom they ask for names; those of the host that a lease may reach, if empty.
    pub resolvers: Vec<Ipv4Addr>,
}

impl Egress {
    /// With somebody to ask for names, if the host knows one that a lease may reach.
    #[must_use]
    pub fn completed(self) -> Self {
        self.or_those_in(&fs::read_to_string(RESOLVERS_FILE).unwrap_or_default())
    }

    fn or_those_in(self, text: &str) -> Self {
        if self.resolvers.is_empty() { Self { resolvers: resolvers_in(text) } } else { self }
    }

    /// As the file that programs read.
    pub(super) fn resolvers_text(&self) -> String {
        self.resolvers.iter().map(|address| format!("nameserver {address}\n")).collect()
    }
}

/// Whether no lease may reach an address.
#[must_use]
pub fn is_refused(address: Ipv4Addr) -> bool {
    let within = |(first, bits): &(Ipv4Addr, u8)| {
        (address.to_bits() ^ first.to_bits()).leading_zeros() >= u32::from(*bits)
    };
    REFUSED.iter().any(within)
}

fn resolvers_in(text: &str) -> Vec<Ipv4Addr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.trim().parse().ok());
    addresses.filter(|address| !is_refused(*address)).take(RESOLVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn what_no_lease_reaches_ends_where_the_registry_says() {
        // First and last address of each, as the registry has them.
        let table = [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ];
        assert_eq!(table.len(), REFUSED.len());
        for (first, last) in table.map(|(first, last)| (address(first), address(last))) {
            assert!(is_refused(first) && is_refused(last), "{first} to {last}");
            let [before, after] = [first.to_bits().checked_sub(1), last.to_bits().checked_add(1)];
            for neighbour in [before, after].into_iter().flatten().map(Ipv4Addr::from_bits) {
                assert!(!is_refused(neighbour), "{neighbour}");
            }
        }
        for metadata_or_stub in ["169.254.169.254", "127.0.0.53"] {
            assert!(is_refused(address(metadata_or_stub)), "{metadata_or_stub}");
        }
    }

    #[test]
    fn a_lease_asks_those_of_the_host_that_it_may_reach() {
        let text = "# of a network\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver fe80::1\n\
                    search lan\nnameserver 192.168.1.1\n nameserver\t1.1.1.1\nnameserver 8.8.8.8\n\
                    nameserver 8.8.4.4\n";
        let resolvers = resolvers_in(text);
        let expected = [[9, 9, 9, 9], [1, 1, 1, 1], [8, 8, 8, 8]].map(Ipv4Addr::from);
        assert_eq!(resolvers, expected);
        assert_eq!(Egress::default().or_those_in(text), Egress { resolvers: expected.to_vec() });
        let named = Egress { resolvers: vec![Ipv4Addr::new(9, 9, 9, 10)] };
        assert_eq!(named.clone().or_those_in(text), named);
        assert_eq!(named.resolvers_text(), "nameserver 9.9.9.10\n");
    }
}
