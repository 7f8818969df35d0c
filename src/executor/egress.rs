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
        if !self.resolvers.is_empty() {
            return self;
        }
        Self { resolvers: resolvers_in(&fs::read_to_string(RESOLVERS_FILE).unwrap_or_default()) }
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

    #[test]
    fn what_no_lease_reaches_ends_where_the_registry_says() {
        let table = [
            ("0.255.255.255", true),
            ("1.0.0.0", false),
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("11.0.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("127.0.0.53", true),
            ("169.254.169.254", true),
            ("169.255.0.0", false),
            ("172.15.255.255", false),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.168.1.1", true),
            ("192.169.0.0", false),
            ("198.17.255.255", false),
            ("198.18.0.1", true),
            ("198.19.255.255", true),
            ("223.255.255.255", false),
            ("224.0.0.1", true),
            ("239.1.2.3", true),
            ("255.255.255.255", true),
        ];
        for (address, refused) in table {
            assert_eq!(is_refused(address.parse().unwrap()), refused, "{address}");
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
        let named = Egress { resolvers: vec![Ipv4Addr::new(9, 9, 9, 9)] };
        assert_eq!(named.clone().completed(), named);
        assert_eq!(named.resolvers_text(), "nameserver 9.9.9.9\n");
    }
}
