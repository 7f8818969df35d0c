//! What this node has paid, or is about to pay, each provider for windows that have not
//! ended: running sums.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Key, TradeId};
use crate::units::TimeMs;

#[derive(Debug, Clone, Copy)]
struct Share {
    provider: Key,
    sat: u64,
    ends_ms: TimeMs,
}

/// Sums by provider.
#[derive(Debug, Default)]
pub(super) struct Prepaid {
    shares: BTreeMap<TradeId, Share>,
    sums: BTreeMap<Key, u64>,
    ends: BTreeSet<(TimeMs, TradeId)>,
}

impl Prepaid {
    /// Counts a trade until its window ends.
    pub(super) fn add(&mut self, trade: TradeId, provider: Key, sat: u64, ends_ms: TimeMs) {
        self.remove(&trade);
        self.shares.insert(trade, Share { provider, sat, ends_ms });
        self.ends.insert((ends_ms, trade));
        let sum = self.sums.entry(provider).or_default();
        *sum = sum.saturating_add(sat);
    }

    /// Counts a trade no longer: it ended without a sale.
    pub(super) fn remove(&mut self, trade: &TradeId) {
        let Some(share) = self.shares.remove(trade) else { return };
        self.ends.remove(&(share.ends_ms, *trade));
        if let Some(sum) = self.sums.get_mut(&share.provider) {
            *sum = sum.saturating_sub(share.sat);
            if *sum == 0 {
                self.sums.remove(&share.provider);
            }
        }
    }

    /// Forgets windows that have ended.
    pub(super) fn expire(&mut self, now_ms: TimeMs) {
        while let Some((ends_ms, trade)) = self.ends.first().copied()
            && ends_ms <= now_ms
        {
            self.remove(&trade);
        }
    }

    /// The sum of a provider, sat.
    pub(super) fn sat(&self, provider: &Key) -> u64 {
        self.sums.get(provider).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_until_its_window_ends_or_its_trade_fails() {
        let [a, b] = [Key([1; 32]), Key([2; 32])];
        let mut prepaid = Prepaid::default();
        for (n, provider, sat, ends_ms) in [(1, a, 100, 50), (2, a, 20, 60), (3, b, 7, 50)] {
            prepaid.add(TradeId([n; 32]), provider, sat, ends_ms);
        }
        // The same trade twice counts once.
        prepaid.add(TradeId([2; 32]), a, 20, 60);
        assert_eq!((prepaid.sat(&a), prepaid.sat(&b)), (120, 7));
        prepaid.expire(49);
        assert_eq!((prepaid.sat(&a), prepaid.sat(&b)), (120, 7));
        prepaid.expire(50);
        assert_eq!((prepaid.sat(&a), prepaid.sat(&b)), (20, 0));
        prepaid.remove(&TradeId([2; 32]));
        assert_eq!(prepaid.sat(&a), 0);
        assert!(prepaid.shares.is_empty() && prepaid.sums.is_empty() && prepaid.ends.is_empty());
    }
}
