//! Heights of a settlement, all from the network's profile of the price.
//!
//! ```text
//! t0 ── F−g ──── F ──── F+g ──── Q ──── R ───────── T_R ── T_R+1
//!  │     │       │       │       │      │            │      └ first block that can hold a refund
//!  │     │       │       │       │      │            └ from this tip on the refund is broadcast
//!  │     │       │       │       │      └ last tip at which the seller may reveal first
//!  │     │       │       │       └ from this tip on the seller claims by script
//!  │     │       │       └ an unconfirmed funding frees the lock
//!  │     │       └ the funding must have confirmed
//!  │     └ the buyer replaces an unconfirmed funding
//!  └ tip when the terms were signed
//! ```

use crate::params::{Params, Profile};
use crate::units::{TimeMs, Window};

use crate::settlement::objects::Terms;

/// Largest `g`, chain blocks: an hour of Bitcoin.
const GAP_MAX_BLOCKS: u32 = 6;
/// Chain blocks that a rescan starts before `t0`: deeper reorganisations do not happen, and
/// the parties' tips may differ by fewer.
pub const RESCAN_BLOCKS: u32 = 6;

/// The heights of one settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timelocks {
    /// Tip when the terms were signed.
    pub t0: u32,
    /// `F`: the funding must have confirmed.
    pub fund_by: u32,
    /// `Q`: from this tip on a seller claims by script, whether it has the buyer's key or not:
    /// a third of the blocks for a claim before `R`.
    pub quit_by: u32,
    /// `R`: last tip at which the seller may reveal first.
    pub last_reveal: u32,
    /// `T_R`: from this tip on the refund can be broadcast.
    pub refund_at: u32,
    /// `g`.
    pub gap: u32,
    /// `k_f`.
    pub funding_confirmations: u32,
}

impl Timelocks {
    /// The heights of a profile from `t0` on.
    #[must_use]
    pub fn new(profile: Profile, t0: u32) -> Self {
        let refund_at = t0.saturating_add(profile.refund_blocks);
        let last_reveal = refund_at.saturating_sub(profile.margin_blocks);
        Self {
            t0,
            fund_by: t0.saturating_add(profile.fund_blocks),
            quit_by: last_reveal.saturating_sub(profile.claim_blocks / 3),
            last_reveal,
            refund_at,
            gap: GAP_MAX_BLOCKS.min(profile.fund_blocks / 3),
            funding_confirmations: profile.funding_confirmations,
        }
    }

    /// The heights of signed terms. Checked terms carry exactly these.
    #[must_use]
    pub fn of(terms: &Terms, params: &Params) -> Self {
        Self::new(params.profile(terms.price_sat), terms.t0)
    }

    /// `F − g`: the buyer replaces an unconfirmed funding.
    #[must_use]
    pub fn cancel_at(&self) -> u32 {
        self.fund_by.saturating_sub(self.gap)
    }

    /// `F + g`: an unconfirmed funding frees the lock.
    #[must_use]
    pub fn release_at(&self) -> u32 {
        self.fund_by.saturating_add(self.gap)
    }
}

/// Whether a refund is sure to be possible before delivery starts:
/// `now + (T_R + 1 − own tip) · block time ≤ start of the window`.
#[must_use]
pub fn lead_suffices(
    params: &Params,
    now_ms: TimeMs,
    tip: u32,
    refund_at: u32,
    window: Window,
) -> bool {
    let blocks = u64::from(refund_at.saturating_add(1).saturating_sub(tip));
    let room = blocks.saturating_mul(params.chain.block_ms);
    now_ms.saturating_add(room) <= window.starts_at_ms(params.slot_s)
}

/// Whether two parties see nearly the same chain.
#[must_use]
pub fn tips_agree(params: &Params, a: u32, b: u32) -> bool {
    a.abs_diff(b) <= params.chain.tip_tolerance_blocks
}

/// Confirmations of a transaction in a block of height `height`.
#[must_use]
pub fn depth(tip: u32, height: u32) -> u32 {
    if tip < height { 0 } else { tip - height + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::sample;

    #[test]
    fn profiles_of_the_networks() {
        // name, price, t0: F−g, F, F+g, Q, R, T_R
        let table = [
            ("mainnet", 1_000_000, 800_000, [800_030, 800_036, 800_042, 800_090, 800_114, 800_150]),
            ("mainnet", 999_999, 800_000, [800_004, 800_006, 800_008, 800_016, 800_020, 800_032]),
            ("signet", 5_000, 200_000, [200_002, 200_003, 200_004, 200_008, 200_010, 200_016]),
            ("regtest", 5_000, 300, [308, 312, 316, 322, 326, 332]),
            ("devnet", 5_000, 300, [308, 312, 316, 320, 323, 328]),
        ];
        for (name, price, t0, expected) in table {
            let params = sample::params(name);
            let t = Timelocks::new(params.profile(price), t0);
            let [from, until] = [t.cancel_at(), t.release_at()];
            let got = [from, t.fund_by, until, t.quit_by, t.last_reveal, t.refund_at];
            assert_eq!(got, expected, "{name} {price}");
            // The seller keeps the claim room that the profile promises.
            let claim = params.profile(price).claim_blocks;
            assert!(t.last_reveal - t.fund_by - t.funding_confirmations + 1 >= claim, "{name}");
        }
    }

    #[test]
    fn lead_counts_the_blocks_to_the_first_refund() {
        let params = sample::params("regtest");
        // Window starts at slot 100 = 1,000,000 ms; T_R + 1 − tip = 33 blocks of 1 s.
        let window = Window { start: 100, end: 101 };
        assert!(lead_suffices(&params, 967_000, 300, 332, window));
        assert!(!lead_suffices(&params, 967_001, 300, 332, window));
        assert!(lead_suffices(&params, 1_000_000, 333, 332, window));
    }

    #[test]
    fn depth_starts_at_one() {
        assert_eq!([depth(99, 100), depth(100, 100), depth(105, 100)], [0, 1, 6]);
    }
}
