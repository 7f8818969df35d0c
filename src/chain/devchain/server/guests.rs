//! Nodes of others that use the chain: what they may call, and how often.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// Calls that an address may make at once: the first blocks of a newcomer.
const BURST: u32 = 2_000;
/// Calls a second that it may make for long. A node makes a few for each block.
const EACH_S: u32 = 200;
/// Addresses that are kept apart. Of those beyond, the one that was silent longest is forgotten:
/// it has its whole burst again.
const ADDRESSES_MAX: usize = 1_024;

/// The calls of guests: reading, and transactions. They neither mine nor stop the chain.
pub(super) fn may_call(method: &str) -> bool {
    !matches!(
        method,
        "stop" | "generatetoaddress" | "invalidateblock" | "reconsiderblock" | "submitblock"
    )
}

/// How many calls each address has left.
#[derive(Debug, Default)]
pub(super) struct Paces {
    of: BTreeMap<IpAddr, Pace>,
}

#[derive(Debug)]
struct Pace {
    left: u32,
    at: Instant,
}

impl Paces {
    /// Whether an address may make so many calls now; they are counted then.
    pub(super) fn take(&mut self, address: IpAddr, calls: usize, now: Instant) -> bool {
        if !self.of.contains_key(&address) && self.of.len() >= ADDRESSES_MAX {
            let oldest =
                self.of.iter().min_by_key(|(_, pace)| pace.at).map(|(address, _)| *address);
            oldest.map(|oldest| self.of.remove(&oldest));
        }
        let pace = self.of.entry(address).or_insert(Pace { left: BURST, at: now });
        let rested =
            now.saturating_duration_since(pace.at).as_millis() * u128::from(EACH_S) / 1_000;
        if rested > 0 {
            pace.left = pace.left.saturating_add(u32::try_from(rested).unwrap_or(BURST)).min(BURST);
            pace.at = now;
        }
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        match pace.left.checked_sub(calls) {
            Some(left) => {
                pace.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        assert!(paces.take(address(1), BURST as usize, now));
        assert!(!paces.take(address(1), 1, now));
        assert!(paces.take(address(2), 1, now), "each has its own");
        let later = now + Duration::from_secs(2);
        assert!(paces.take(address(1), 2 * EACH_S as usize, later));
        assert!(!paces.take(address(1), 1, later));
        assert!(!paces.take(address(1), usize::MAX, later + Duration::from_hours(1)));
        assert!(paces.take(address(1), BURST as usize, later + Duration::from_hours(1)));
    }

    #[test]
    fn strangers_do_not_fill_the_table() {
        let (mut paces, now) = (Paces::default(), Instant::now());
        for n in 0..3 * u32::try_from(ADDRESSES_MAX).unwrap() {
            assert!(paces.take(address(n), 1, now + Duration::from_millis(n.into())));
        }
        assert_eq!(paces.of.len(), ADDRESSES_MAX);
    }
}
