//! The account of this node's coins: what it has promised to pay, and what is free.
//!
//! The one writer of reservations, as the ledger is of units. A bid is signed only if its
//! coins are free; a trade that was matched is owed, whatever the wallet has. Coins that the
//! wallet locked for a funding are no longer spendable, so their trade needs none any more.
//! In memory only: trades, and bids whose epoch is not computed yet, say again what they need
//! when the journal is loaded.

use std::collections::BTreeMap;

use crate::ids::{PoolId, StandingId, TradeId};

/// Coins by what they are reserved for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Treasury {
    spendable_sat: u64,
    /// By epoch and standing order: firm until the epoch is computed.
    bids: BTreeMap<(u64, StandingId), u64>,
    trades: BTreeMap<TradeId, u64>,
    /// Kept for pools that do not settle yet.
    pledges: BTreeMap<PoolId, u64>,
    reserved_sat: u64,
}

/// Fewer coins are free than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed_sat} sat are needed and {free_sat} sat are free")]
pub struct Short {
    /// Asked for, sat.
    pub needed_sat: u64,
    /// Free, sat.
    pub free_sat: u64,
}

impl Treasury {
    /// What the wallet could spend now if nothing were reserved.
    pub fn set_spendable(&mut self, spendable_sat: u64) {
        self.spendable_sat = spendable_sat;
    }

    /// Coins for new bids, sat.
    #[must_use]
    pub fn free_sat(&self) -> u64 {
        self.spendable_sat.saturating_sub(self.reserved_sat)
    }

    /// Coins promised in bids and trades, sat. May exceed what is spendable after a payment
    /// out of the wallet.
    #[must_use]
    pub fn reserved_sat(&self) -> u64 {
        self.reserved_sat
    }

    /// Whether so many coins are free.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, needed_sat: u64) -> Result<(), Short> {
        let free_sat = self.free_sat();
        if needed_sat > free_sat { Err(Short { needed_sat, free_sat }) } else { Ok(()) }
    }

    /// Reserves the coins of a bid in one epoch, all or none. Asked again it replaces what was
    /// reserved.
    ///
    /// # Errors
    /// Too few are free; an earlier reservation of this bid then stands.
    pub fn reserve_bid(
        &mut self,
        epoch: u64,
        standing: StandingId,
        needed_sat: u64,
    ) -> Result<(), Short> {
        let earlier_sat = self.bids.get(&(epoch, standing)).copied().unwrap_or(0);
        self.check(needed_sat.saturating_sub(earlier_sat))?;
        self.release_bid(epoch, standing);
        self.bids.insert((epoch, standing), needed_sat);
        self.reserved_sat = self.reserved_sat.saturating_add(needed_sat);
        Ok(())
    }

    /// Takes over what an earlier life reserved for a bid that may still be matched: it is firm,
    /// whatever the wallet has by now.
    pub fn restore_bid(&mut self, epoch: u64, standing: StandingId, needed_sat: u64) {
        let promised_sat = self.bids.entry((epoch, standing)).or_default();
        *promised_sat = promised_sat.saturating_add(needed_sat);
        self.reserved_sat = self.reserved_sat.saturating_add(needed_sat);
    }

    /// The bid was not signed after all.
    pub fn release_bid(&mut self, epoch: u64, standing: StandingId) {
        let earlier_sat = self.bids.remove(&(epoch, standing)).unwrap_or(0);
        self.reserved_sat = self.reserved_sat.saturating_sub(earlier_sat);
    }

    /// Epochs up to this one are computed: bids of theirs that were matched are trades now.
    pub fn release_bids_through(&mut self, epoch: u64) {
        while let Some(entry) = self.bids.first_entry()
            && entry.key().0 <= epoch
        {
            self.reserved_sat = self.reserved_sat.saturating_sub(entry.remove());
        }
    }

    /// What a trade still needs of the wallet, in place of what it needed before; none ends
    /// it. Owed already, so it is never refused.
    pub fn commit(&mut self, trade: TradeId, needed_sat: u64) {
        let earlier_sat = self.trades.remove(&trade).unwrap_or(0);
        self.reserved_sat = self.reserved_sat.saturating_sub(earlier_sat);
        if needed_sat > 0 {
            self.trades.insert(trade, needed_sat);
            self.reserved_sat = self.reserved_sat.saturating_add(needed_sat);
        }
    }

    /// What is kept for a pledge, in place of what was kept before; none ends it. Whether it is
    /// free is asked before it is first promised.
    pub fn pledge(&mut self, pool: PoolId, needed_sat: u64) {
        let earlier_sat = self.pledges.remove(&pool).unwrap_or(0);
        self.reserved_sat = self.reserved_sat.saturating_sub(earlier_sat);
        if needed_sat > 0 {
            self.pledges.insert(pool, needed_sat);
            self.reserved_sat = self.reserved_sat.saturating_add(needed_sat);
        }
    }

    /// What a trade still needs of the wallet, sat.
    #[must_use]
    pub fn committed_sat(&self, trade: TradeId) -> u64 {
        self.trades.get(&trade).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to an account.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Spendable(u64),
        /// Epoch, standing order, sat; whether it fits.
        Bid(u64, u8, u64, bool),
        NoBid(u64, u8),
        Kept(u64, u8, u64),
        Computed(u64),
        Trade(u8, u64),
        Pledge(u8, u64),
    }
    use Step::{Bid, Computed, Kept, NoBid, Pledge, Spendable, Trade};

    #[test]
    fn bids_never_take_more_than_is_free() {
        let no = |sat| (sat, 0);
        // name, steps, (free, reserved) at the end
        let table: &[(&str, &[Step], (u64, u64))] = &[
            ("nothing", &[Bid(1, 1, 1, false), Bid(1, 1, 0, true)], no(0)),
            ("exactly all", &[Spendable(9), Bid(1, 1, 9, true), Bid(1, 2, 1, false)], (0, 9)),
            ("asked twice", &[Spendable(9), Bid(1, 1, 8, true), Bid(1, 1, 9, true)], (0, 9)),
            (
                "asked for too much",
                &[Spendable(9), Bid(1, 1, 8, true), Bid(1, 1, 10, false)],
                (1, 8),
            ),
            ("another epoch", &[Spendable(9), Bid(1, 1, 5, true), Bid(2, 1, 5, false)], (4, 5)),
            ("given back", &[Spendable(9), Bid(1, 1, 9, true), NoBid(1, 1), NoBid(1, 1)], no(9)),
            (
                "computed",
                &[Spendable(9), Bid(1, 1, 2, true), Bid(2, 1, 3, true), Computed(1)],
                (6, 3),
            ),
            (
                "matched: a trade takes the place of its bid",
                &[Spendable(9), Bid(1, 1, 9, true), Trade(7, 6), Computed(1), Bid(2, 1, 4, false)],
                (3, 6),
            ),
            ("of an earlier life", &[Kept(1, 1, 9), Spendable(8), Bid(1, 2, 1, false)], (0, 9)),
            ("a trade is owed", &[Spendable(5), Trade(7, 6), Bid(1, 1, 1, false)], (0, 6)),
            ("told again", &[Spendable(9), Trade(7, 6), Trade(7, 6), Trade(7, 4)], (5, 4)),
            (
                "locked by the wallet",
                &[Spendable(9), Trade(7, 6), Trade(7, 0), Spendable(3)],
                (3, 0),
            ),
            (
                "before the wallet is heard",
                &[Trade(7, 6), Spendable(9), Bid(1, 1, 4, false)],
                (3, 6),
            ),
            (
                "a pledge until it is a trade",
                &[Spendable(9), Pledge(7, 6), Bid(1, 1, 4, false), Trade(7, 5), Pledge(7, 0)],
                (4, 5),
            ),
            ("pledged again", &[Spendable(9), Pledge(7, 6), Pledge(7, 6), Pledge(8, 1)], (2, 7)),
            ("spent elsewhere", &[Spendable(9), Bid(1, 1, 9, true), Spendable(4)], (0, 9)),
        ];
        for (name, steps, end) in table {
            let mut treasury = Treasury::default();
            for step in *steps {
                take(&mut treasury, *step, name);
            }
            assert_eq!((treasury.free_sat(), treasury.reserved_sat()), *end, "{name}");
            let sum: u64 = treasury.bids.values().chain(treasury.trades.values()).sum();
            let sum = sum + treasury.pledges.values().sum::<u64>();
            assert_eq!(treasury.reserved_sat(), sum, "{name}: the running sum");
        }
    }

    fn take(treasury: &mut Treasury, step: Step, name: &str) {
        let standing = |n| StandingId([n; 32]);
        match step {
            Spendable(sat) => treasury.set_spendable(sat),
            Bid(epoch, n, sat, fits) => {
                let before = treasury.clone();
                let got = treasury.reserve_bid(epoch, standing(n), sat);
                assert_eq!(got.is_ok(), fits, "{name}: {step:?}");
                if fits {
                    let within = treasury.reserved_sat() <= treasury.spendable_sat;
                    assert!(within || sat == 0, "{name}: {step:?}");
                } else {
                    assert_eq!(*treasury, before, "{name}: {step:?}");
                }
            }
            NoBid(epoch, n) => treasury.release_bid(epoch, standing(n)),
            Kept(epoch, n, sat) => treasury.restore_bid(epoch, standing(n), sat),
            Pledge(n, sat) => treasury.pledge(PoolId([n; 32]), sat),
            Computed(epoch) => treasury.release_bids_through(epoch),
            Trade(n, sat) => {
                treasury.commit(TradeId([n; 32]), sat);
                assert_eq!(treasury.committed_sat(TradeId([n; 32])), sat, "{name}: {step:?}");
            }
        }
    }
}
