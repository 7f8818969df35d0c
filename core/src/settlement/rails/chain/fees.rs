//! Fees: how much a spend may cost as its deadline nears.
//!
//! Integers only: rates in sat per 1,000 virtual bytes (sat/kvB), sizes in virtual bytes.
//! No transaction is signed ahead of time with a fixed fee; each is signed when it is
//! sent and replaced when the curve asks for more.

use serde::{Deserialize, Serialize};

/// FUND with one input, the contract and change, vB (measured).
pub const FUND_VSIZE: u64 = 154;
/// CLAIM by script to a taproot output, vB (measured).
pub const CLAIM_VSIZE: u64 = 155;
/// Spend of the contract by both keys to a taproot output, vB (measured).
pub const KEY_SPEND_VSIZE: u64 = 111;
/// REFUND by script to a taproot output, vB (measured).
pub const REFUND_VSIZE: u64 = 138;
/// All that a settlement may put on the chain: FUND, then CLAIM and, in vain, REFUND, vB.
pub const SETTLEMENT_VSIZE: u64 = FUND_VSIZE + CLAIM_VSIZE + REFUND_VSIZE;
/// Smallest taproot output that nodes relay, sat.
pub const DUST_SAT: u64 = 330;
/// Lowest rate offered, sat/kvB: older nodes relay nothing below.
pub const FLOOR_SAT_KVB: u64 = 1000;
/// Least increase of a replacement, sat/kvB of its own size (BIP-125 rule 4 of older nodes).
pub const STEP_SAT_KVB: u64 = 1000;
/// Within so many chain blocks of the refund height a claim may spend all but dust.
pub const LAST_BLOCKS: u32 = 12;
/// Confirmation target of a refund that nothing hurries, chain blocks.
pub const REFUND_TARGET: u32 = 6;
/// A refund that waits doubles its rate after so many chain blocks: six hours of Bitcoin.
pub const CLIMB_BLOCKS: u32 = 36;
/// Doublings of a refund's rate: to 1,024 times the estimate, and never above half of the value.
const CLIMBS_MAX: u32 = 10;
/// Longest confirmation target of a funding, chain blocks.
pub const FUND_TARGET: u32 = 3;
/// Shortest confirmation target that estimates know, chain blocks.
pub const URGENT_TARGET: u32 = 2;

/// Weight of a spend to one taproot output without its inputs, and of each input by the claim leaf
/// and by key path (measured).
const SPEND_WEIGHT: [u64; 3] = [214, 403, 230];

/// Size of a spend of so many contracts by script, and so many by key path, to a taproot output, vB.
#[must_use]
pub fn spend_vsize(scripts: u64, keys: u64) -> u64 {
    let [base, script, key] = SPEND_WEIGHT;
    base.saturating_add(scripts.saturating_mul(script))
        .saturating_add(keys.saturating_mul(key))
        .div_ceil(4)
}

/// Fee of a size at a rate, sat, rounded up.
#[must_use]
pub fn fee_sat(rate_sat_kvb: u64, vsize: u64) -> u64 {
    rate_sat_kvb.saturating_mul(vsize).div_ceil(1000)
}

/// What one of several bears of the fee of a transaction that they share, sat: equal parts, of
/// which the first are one sat larger where it does not divide. They sum up to the fee.
#[must_use]
pub fn share_sat(fee_sat: u64, parts: usize, place: usize) -> u64 {
    let (parts, place) = (parts.max(1) as u64, place as u64);
    fee_sat / parts + u64::from(place < fee_sat % parts)
}

/// `low · (high/low)^(elapsed/window)` by bisection of the exponent: each step takes the
/// geometric mean, so no floating point and no table is needed.
fn geometric(low: u64, high: u64, elapsed: u32, window: u32) -> u64 {
    /// Steps: an exponent of 1/65,536 changes a rate by less than a sat.
    const BITS: u32 = 16;
    if window == 0 || elapsed >= window || high <= low {
        return high.max(low);
    }
    let exponent = (u64::from(elapsed) << BITS) / u64::from(window);
    let (mut low, mut high) = (u128::from(low) << BITS, u128::from(high) << BITS);
    for bit in (0..BITS).rev() {
        // Both are below 2^80 for any amount of bitcoin, so halve one scale each.
        let middle = ((low >> 8) * (high >> 8)).isqrt() << 8;
        if exponent >> bit & 1 == 1 {
            low = middle;
        } else {
            high = middle;
        }
    }
    u64::try_from(low >> BITS).unwrap_or(u64::MAX)
}

/// Where a claim stands between its first try and the refund height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimProgress {
    /// Size of the spend, vB.
    pub vsize: u64,
    /// Value of the contract, sat.
    pub value_sat: u64,
    /// Estimate for half of the blocks left, sat/kvB.
    pub estimate_sat_kvb: u64,
    /// Chain blocks since the claim was first sent.
    pub elapsed: u32,
    /// Chain blocks from then to `T_R`.
    pub window: u32,
}

/// Fee of a claim, sat: the estimate or the curve, whichever is more, never above half of
/// the value; near the end all but dust. `None` if the output costs more than it holds.
#[must_use]
pub fn claim_fee_sat(progress: ClaimProgress) -> Option<u64> {
    let ClaimProgress { vsize, value_sat, estimate_sat_kvb, elapsed, window } = progress;
    let all = spendable(value_sat, vsize)?;
    let last = window.saturating_sub(elapsed) <= LAST_BLOCKS.min(window / 4);
    let cap = if last { all } else { all.min(value_sat / 2) };
    let cap_rate = cap.saturating_mul(1000) / vsize;
    let curve = geometric(FLOOR_SAT_KVB, cap_rate, elapsed, window);
    Some(fee_sat(curve.max(estimate_sat_kvb).max(FLOOR_SAT_KVB), vsize).min(cap))
}

/// Fee of a refund, sat: the estimate, within half of the value, or all but dust once the
/// seller's preimage is public. `None` if the output costs more than it holds.
#[must_use]
pub fn refund_fee_sat(value_sat: u64, estimate_sat_kvb: u64, urgent: bool) -> Option<u64> {
    let all = spendable(value_sat, REFUND_VSIZE)?;
    let cap = if urgent { all } else { all.min(value_sat / 2) };
    Some(fee_sat(estimate_sat_kvb.max(FLOOR_SAT_KVB), REFUND_VSIZE).min(cap))
}

/// Rate of a refund that has waited so many chain blocks: an estimate may be wrong for long,
/// and nothing else would raise it.
#[must_use]
pub fn climbed(estimate_sat_kvb: u64, waited_blocks: u32) -> u64 {
    let doublings = (waited_blocks / CLIMB_BLOCKS).min(CLIMBS_MAX);
    estimate_sat_kvb.max(FLOOR_SAT_KVB).saturating_mul(1 << doublings)
}

/// What a spend of `vsize` may cost at most: all but dust, and at least the floor.
fn spendable(value_sat: u64, vsize: u64) -> Option<u64> {
    let all = value_sat.checked_sub(DUST_SAT)?;
    (all >= fee_sat(FLOOR_SAT_KVB, vsize)).then_some(all)
}

/// The fee of a replacement: what is wanted, if that is enough more than what was paid.
#[must_use]
pub fn bump(paid_sat: u64, wanted_sat: u64, vsize: u64) -> Option<u64> {
    (wanted_sat >= paid_sat.saturating_add(fee_sat(STEP_SAT_KVB, vsize))).then_some(wanted_sat)
}

/// Confirmation target of a funding that must confirm within `blocks_left`, chain blocks.
#[must_use]
pub fn fund_target(blocks_left: u32) -> u32 {
    FUND_TARGET.min(blocks_left / 2).max(URGENT_TARGET)
}

/// Fee that a funding is expected to cost, sat.
#[must_use]
pub fn fund_fee_sat(estimate_sat_kvb: u64) -> u64 {
    fee_sat(estimate_sat_kvb.max(FLOOR_SAT_KVB), FUND_VSIZE)
}

/// What the owner of an order is willing to lose in fees, for each of its trades.
///
/// Fees do not depend on the price: without a limit a small trade may cost its parties many
/// times what it is worth, and an output that holds less than its spend costs is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeeLimit {
    /// Percent of what the trade is worth to the owner: at most its limit price.
    pub share_percent: u8,
    /// Never more than this, sat.
    pub cap_sat: Option<u64>,
}

impl Default for FeeLimit {
    fn default() -> Self {
        Self { share_percent: Self::DEFAULT_PERCENT, cap_sat: None }
    }
}

/// Fees beyond what the owner of an order accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("fees come to {fee_sat} sat, and its owner accepts {allowed_sat} sat")]
pub struct FeesTooHigh {
    pub fee_sat: u64,
    pub allowed_sat: u64,
}

impl FeeLimit {
    /// Share of an owner who chose none, percent.
    pub const DEFAULT_PERCENT: u8 = 20;

    /// Most that may be lost in fees of a trade that is worth so much, sat.
    #[must_use]
    pub fn allowed_sat(self, worth_sat: u64) -> u64 {
        let share = u128::from(worth_sat) * u128::from(self.share_percent) / 100;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        self.cap_sat.map_or(share, |cap| cap.min(share))
    }

    /// Whether a trade is worth the fees of so many virtual bytes at a rate.
    ///
    /// # Errors
    /// [`FeesTooHigh`].
    pub fn check(self, vsize: u64, rate_sat_kvb: u64, worth_sat: u64) -> Result<(), FeesTooHigh> {
        let (fee_sat, allowed_sat) = (fee_sat(rate_sat_kvb, vsize), self.allowed_sat(worth_sat));
        if fee_sat > allowed_sat { Err(FeesTooHigh { fee_sat, allowed_sat }) } else { Ok(()) }
    }

    /// The least that a trade must be worth for its share to pay so much, sat; `None` if the
    /// cap is below it, or no price is enough.
    #[must_use]
    pub fn least_worth_sat(self, fee_sat: u64) -> Option<u64> {
        if self.cap_sat.is_some_and(|cap| cap < fee_sat) {
            return None;
        }
        let share = u128::from(self.share_percent);
        u64::try_from((u128::from(fee_sat) * 100).checked_add(share.checked_sub(1)?)? / share).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(value_sat: u64, estimate_sat_kvb: u64, elapsed: u32, window: u32) -> Option<u64> {
        let vsize = CLAIM_VSIZE;
        claim_fee_sat(ClaimProgress { vsize, value_sat, estimate_sat_kvb, elapsed, window })
    }

    #[test]
    fn claim_curve() {
        // value, estimate, elapsed, window, fee
        let table = [
            (1_000_000, 1_000, 0, 72, Some(155)),
            (1_000_000, 5_000, 0, 72, Some(775)),
            // Half of the way: the geometric mean of 155 and 500,000.
            (1_000_000, 1_000, 36, 72, Some(8_803)),
            (1_000_000, 1_000, 72, 72, Some(999_670)),
            // Early on never above half of the value, whatever the estimate.
            (1_000, 90_000, 0, 72, Some(500)),
            (1_000, 90_000, 72, 72, Some(670)),
            // Costs more than it holds.
            (484, 1_000, 0, 72, None),
            (485, 1_000, 72, 72, Some(155)),
            (100, 1_000, 0, 72, None),
        ];
        for (value, estimate, elapsed, window, fee) in table {
            let got = claim(value, estimate, elapsed, window);
            let near = match (got, fee) {
                (Some(got), Some(fee)) => got.abs_diff(fee) <= fee / 500 + 1,
                (got, fee) => got == fee,
            };
            assert!(near, "{value} {estimate} {elapsed}/{window}: {got:?}, not {fee:?}");
        }
    }

    /// As measured: settlement of one, and of ten at once.
    #[test]
    fn sizes_of_several() {
        let table = [((1, 0), 155), ((0, 1), 111), ((10, 0), 1_061), ((0, 10), 629), ((1, 1), 212)];
        for ((scripts, keys), vsize) in table {
            assert_eq!(spend_vsize(scripts, keys), vsize, "{scripts} {keys}");
        }
        assert_eq!((spend_vsize(1, 0), spend_vsize(0, 1)), (CLAIM_VSIZE, KEY_SPEND_VSIZE));
    }

    proptest! {
        #[test]
        fn shares_sum_up_and_differ_by_a_sat(fee in any::<u64>(), parts in 1_usize..20) {
            let shares: Vec<u64> = (0..parts).map(|place| share_sat(fee, parts, place)).collect();
            prop_assert_eq!(shares.iter().map(|sat| u128::from(*sat)).sum::<u128>(), u128::from(fee));
            prop_assert!(shares[0] - shares[parts - 1] <= 1 && shares.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn refunds_hurry_only_when_the_preimage_is_out() {
        assert_eq!(refund_fee_sat(10_000, 2_000, false), Some(276));
        assert_eq!(refund_fee_sat(10_000, 500_000, false), Some(5_000));
        assert_eq!(refund_fee_sat(10_000, 500_000, true), Some(9_670));
        assert_eq!(refund_fee_sat(400, 1_000, true), None);
    }

    #[test]
    fn a_trade_is_worth_its_fees_or_is_not() {
        let limit = |share_percent, cap_sat| FeeLimit { share_percent, cap_sat };
        // limit, rate, worth, (fee, allowed) if refused
        let table = [
            (limit(20, None), 1_000, 2_235, None),
            (limit(20, None), 1_000, 2_234, Some((447, 446))),
            (limit(20, None), 500_000, 8_000, Some((223_500, 1_600))),
            (limit(100, None), 1_000, 447, None),
            (limit(0, None), 1_000, u64::MAX, Some((447, 0))),
            (limit(20, Some(446)), 1_000, 1_000_000, Some((447, 446))),
            (limit(20, Some(447)), 1_000, 1_000_000, None),
            // The cap never raises the share.
            (limit(20, Some(1_000_000)), 1_000, 2_234, Some((447, 446))),
            (limit(255, None), u64::MAX, u64::MAX, None),
        ];
        for (limit, rate, worth, refused) in table {
            let got = limit.check(SETTLEMENT_VSIZE, rate, worth).err();
            let got = got.map(|found| (found.fee_sat, found.allowed_sat));
            assert_eq!(got, refused, "{limit:?} at {rate} for {worth}");
        }
    }

    proptest! {
        #[test]
        fn the_least_worth_is_the_edge(
            share_percent in 0_u8..=255,
            cap_sat in proptest::option::of(0_u64..10_000),
            fee in 1_u64..1_000_000,
        ) {
            let limit = FeeLimit { share_percent, cap_sat };
            match limit.least_worth_sat(fee) {
                Some(worth) => {
                    prop_assert!(limit.allowed_sat(worth) >= fee);
                    prop_assert!(limit.allowed_sat(worth - 1) < fee);
                }
                None => prop_assert!(limit.allowed_sat(u64::MAX) < fee),
            }
        }
    }

    #[test]
    fn a_refund_that_waits_climbs_by_time() {
        let table = [(0, 2_000), (35, 2_000), (36, 4_000), (72, 8_000), (360, 2_048_000)];
        for (waited, rate) in table {
            assert_eq!(climbed(2_000, waited), rate, "{waited}");
        }
        assert_eq!(climbed(2_000, u32::MAX), 2_048_000);
        assert_eq!(climbed(0, 0), FLOOR_SAT_KVB);
    }

    #[test]
    fn a_replacement_pays_for_its_own_relay() {
        assert_eq!(bump(155, 309, CLAIM_VSIZE), None);
        assert_eq!(bump(155, 310, CLAIM_VSIZE), Some(310));
        assert_eq!(bump(155, 100, CLAIM_VSIZE), None);
    }

    proptest! {
        #[test]
        fn claim_fees_never_fall_and_never_leave_dust(
            value in 485_u64..2_100_000_000_000_000,
            estimate in 0_u64..1_000_000,
            window in 1_u32..200,
        ) {
            let mut last = 0;
            for elapsed in 0..=window + 2 {
                let fee = claim(value, estimate, elapsed, window).unwrap();
                prop_assert!(fee >= last, "{elapsed}: {fee} < {last}");
                prop_assert!(value - fee >= DUST_SAT);
                last = fee;
            }
        }
    }
}
