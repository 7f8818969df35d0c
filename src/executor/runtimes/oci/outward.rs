//! The way out of a container: a pair of network devices and rules of the kernel's packet filter.
//!
//! ```text
//! network of the lease                          network of the host
//!   table capex: what may leave  eth0 ══ capexN   table capexN: nothing to the host itself, nothing
//!                                                 to other leases, the source address translated
//! ```
//!
//! What may leave is held in the lease's own network, where nobody reloads the rules and the lease
//! has no right to change them: whatever becomes of the host's rules, a lease gets less and never
//! more. The network goes with its last process, and the pair of devices with it; the table of the
//! host is named after the lease's range of ids, by which it is found again.

use std::io;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::{Left, network, programs};
use crate::executor::egress::REFUSED;

/// Programs that are needed, and the package that has them on Debian.
const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];
/// Where the kernel says whether the host passes packets on.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Name of the device in the lease.
const DEVICE: &str = "eth0";
/// Of the networks of the leases, four addresses each: reserved, and on no real network.
const FIRST_NETWORK: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const NETWORK_ADDRESSES: u32 = 4;
const NETWORK_BITS: u8 = 30;
/// Connections that a lease has at once: the host keeps each of them in memory.
const CONNECTIONS: u32 = 4_096;

/// Whether this host can let leases out and hold what they must not reach; else what is missing.
pub(super) fn probe() -> Result<(), String> {
    if let Some(what) = programs::missing(&PROGRAMS) {
        return Err(what);
    }
    let forwards = std::fs::read_to_string(FORWARD).unwrap_or_default();
    if forwards.trim() != "1" {
        return Err("the host passes no packets on: set net.ipv4.ip_forward = 1".to_owned());
    }
    let line = Line::of(0);
    for rules in [line.inner_rules(&[Ipv4Addr::LOCALHOST]), line.outer_rules()] {
        programs::run("nft", &["--check", "-f", "-"], &rules)
            .map_err(|error| format!("the packet filter does not take the rules: {error}"))?;
    }
    Ok(())
}

/// Connects the network of a process to the outside, by rules that are in force before the first
/// packet.
pub(super) fn connect(range: u32, pid: i32) -> io::Result<()> {
    let line = Line::of(range);
    // Of a run before: the kernel takes its time to end the network of processes that are gone.
    if let Some(left) = disconnect(range).into_iter().next() {
        return Err(io::Error::other(format!("{left} is still there")));
    }
    let inner = network::of(pid)?;
    let rules = line.inner_rules(&own_addresses()?);
    network::within(&inner, || programs::run("nft", &["-f", "-"], &rules))?;
    programs::run("nft", &["-f", "-"], &line.outer_rules())?;
    let (name, pid) = (line.name.as_str(), pid.to_string());
    let pair = ["link", "add", name, "type", "veth", "peer", "name", DEVICE, "netns", &pid];
    programs::run("ip", &pair, "")?;
    let host = format!("{}/{NETWORK_BITS}", line.host);
    programs::run("ip", &["address", "add", &host, "dev", name], "")?;
    programs::run("ip", &["link", "set", name, "up"], "")?;
    let (own, gateway) = (format!("{}/{NETWORK_BITS}", line.lease), line.host.to_string());
    network::within(&inner, || {
        programs::run("ip", &["address", "add", &own, "dev", DEVICE], "")?;
        programs::run("ip", &["link", "set", DEVICE, "up"], "")?;
        programs::run("ip", &["route", "add", "default", "via", &gateway], "")
    })?;
    Ok(())
}

/// Takes back what a lease was connected by; answers what stays.
pub(super) fn disconnect(range: u32) -> Vec<Left> {
    let line = Line::of(range);
    let mut left = Vec::new();
    // Whether it is there is asked only if it cannot be removed.
    let device = ["link", "delete", &line.name];
    if programs::run("ip", &device, "").is_err()
        && programs::run("ip", &["link", "show", &line.name], "").is_ok()
    {
        left.push(format!("network device {}", line.name));
    }
    // Made first, so that its absence is no error.
    let rules = format!("table inet {0}\ndelete table inet {0}\n", line.name);
    if let Err(error) = programs::run("nft", &["-f", "-"], &rules) {
        left.push(format!("table {}: {error}", line.name));
    }
    left
}

/// Addresses of the host, as it has them now.
pub(in crate::executor) fn own_addresses() -> io::Result<Vec<Ipv4Addr>> {
    #[derive(Deserialize)]
    struct Device {
        #[serde(default)]
        addr_info: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        local: Option<Ipv4Addr>,
    }
    let text = programs::run("ip", &["-json", "-4", "address", "show"], "")?;
    let devices: Vec<Device> = serde_json::from_str(&text)?;
    Ok(devices.into_iter().flat_map(|one| one.addr_info).filter_map(|one| one.local).collect())
}

/// Names and addresses of one lease's way out.
struct Line {
    /// Of the device on the host, and of the host's table.
    name: String,
    host: Ipv4Addr,
    lease: Ipv4Addr,
}

impl Line {
    fn of(range: u32) -> Self {
        let first = FIRST_NETWORK.to_bits() + range * NETWORK_ADDRESSES;
        Self {
            name: format!("capex{range}"),
            host: Ipv4Addr::from_bits(first + 1),
            lease: Ipv4Addr::from_bits(first + 2),
        }
    }

    /// What may leave the lease, in its own network. Nothing comes in but answers.
    fn inner_rules(&self, own: &[Ipv4Addr]) -> String {
        let refuse = "reject with icmpx type admin-prohibited";
        let own: String = own.iter().map(|one| format!("{one}, ")).collect();
        format!(
            "table inet capex {{
                {refused}
                set own {{ type ipv4_addr; elements = {{ {own}{host} }}; }}
                chain out {{
                    type filter hook output priority 0; policy drop;
                    oifname \"lo\" accept
                    meta nfproto ipv6 {refuse}
                    ip daddr @refused {refuse}
                    ip daddr @own {refuse}
                    ct state new ct count over {CONNECTIONS} {refuse}
                    oifname \"{DEVICE}\" accept
                }}
                chain in {{
                    type filter hook input priority 0; policy drop;
                    iifname \"lo\" accept
                    ct state established,related accept
                }}
            }}\n",
            refused = refused_set(),
            host = self.host,
        )
    }

    /// What passes the host, and nothing that ends at it.
    fn outer_rules(&self) -> String {
        let Self { name, lease, .. } = self;
        format!(
            "table inet {name} {{
                {refused}
                chain input {{
                    type filter hook input priority -10; policy accept;
                    iifname \"{name}\" drop
                }}
                chain forward {{
                    type filter hook forward priority -10; policy accept;
                    iifname \"{name}\" oifname \"capex*\" drop
                    iifname \"{name}\" ip saddr != {lease} drop
                    iifname \"{name}\" ip daddr @refused drop
                    iifname \"{name}\" meta nfproto ipv6 drop
                    oifname \"{name}\" ct state established,related accept
                    oifname \"{name}\" drop
                }}
                chain translate {{
                    type nat hook postrouting priority 100; policy accept;
                    ip saddr {lease} masquerade
                }}
            }}\n",
            refused = refused_set(),
        )
    }
}

fn refused_set() -> String {
    let all: Vec<String> = REFUSED.iter().map(|(first, bits)| format!("{first}/{bits}")).collect();
    format!(
        "set refused {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}",
        all.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_a_network_of_its_own_that_no_lease_reaches() {
        let [first, last] = [Line::of(0), Line::of(super::super::cgroup::RANGES - 1)];
        assert_eq!((first.host, first.lease), ([198, 18, 0, 1].into(), [198, 18, 0, 2].into()));
        assert_eq!((last.host, last.lease), ([198, 18, 63, 253].into(), [198, 18, 63, 254].into()));
        assert!(crate::executor::egress::is_refused(last.lease));
        // The kernel takes names of 15 bytes.
        assert!(last.name.len() <= 15);
    }
}
