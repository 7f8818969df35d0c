//! Fees: how much a spend may cost as its deadline nears.
//!
//! Integers only: rates in sat per 1,000 virtual bytes (sat/kvB), sizes in virtual bytes.
//! No transaction is signed ahead of time with a fixed fee; each is signed when it is
//! sent and replaced when the curve asks for more.

/// FUND with one input, the contract and change, vB (measured).
pub const FUND_VSIZE: u64 = 154;
/// CLAIM by script to a taproot output, vB (measured).
pub const CLAIM_VSIZE: u64 = 155;
/// REFUND by script to a taproot output, vB (measured).
pub const REFUND_VSIZE: u64 = 138;
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
/// Longest confirmation target of a funding, chain blocks.
pub const FUND_TARGET: u32 = 3;
/// Shortest confirmation target that estimates know, chain blocks.
pub const URGENT_TARGET: u32 = 2;

/// Fee of a size at a rate, sat, rounded up.
#[must_use]
pub fn fee_sat(rate_sat_kvb: u64, vsize: u64) -> u64 {
    rate_sat_kvb.saturating_mul(vsize).div_ceil(1000)
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

/// Where a claim stands between its first chance and the refund height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimProgress {
    /// Value of the contract, sat.
    pub value_sat: u64,
    /// Estimate for half of the blocks left, sat/kvB.
    pub estimate_sat_kvb: u64,
    /// Chain blocks since the claim became possible.
    pub elapsed: u32,
    /// Chain blocks from then to `T_R`.
    pub window: u32,
}

/// Fee of a claim, sat: the estimate or the curve, whichever is more, never above half of
/// the value; near the end all but dust. `None` if the output costs more than it holds.
#[must_use]
pub fn claim_fee_sat(progress: ClaimProgress) -> Option<u64> {
    let ClaimProgress { value_sat, estimate_sat_kvb, elapsed, window } = progress;
    let all = spendable(value_sat, CLAIM_VSIZE)?;
    let last = window.saturating_sub(elapsed) <= LAST_BLOCKS.min(window / 4);
    let cap = if last { all } else { all.min(value_sat / 2) };
    let cap_rate = cap.saturating_mul(1000) / CLAIM_VSIZE;
    let curve = geometric(FLOOR_SAT_KVB, cap_rate, elapsed, window);
    Some(fee_sat(curve.max(estimate_sat_kvb).max(FLOOR_SAT_KVB), CLAIM_VSIZE).min(cap))
}

/// Fee of a refund, sat: the estimate, within half of the value, or all but dust once the
/// seller's preimage is public. `None` if the output costs more than it holds.
#[must_use]
pub fn refund_fee_sat(value_sat: u64, estimate_sat_kvb: u64, urgent: bool) -> Option<u64> {
    let all = spendable(value_sat, REFUND_VSIZE)?;
    let cap = if urgent { all } else { all.min(value_sat / 2) };
    Some(fee_sat(estimate_sat_kvb.max(FLOOR_SAT_KVB), REFUND_VSIZE).min(cap))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(value_sat: u64, estimate_sat_kvb: u64, elapsed: u32, window: u32) -> Option<u64> {
        claim_fee_sat(ClaimProgress { value_sat, estimate_sat_kvb, elapsed, window })
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

    #[test]
    fn refunds_hurry_only_when_the_preimage_is_out() {
        assert_eq!(refund_fee_sat(10_000, 2_000, false), Some(276));
        assert_eq!(refund_fee_sat(10_000, 500_000, false), Some(5_000));
        assert_eq!(refund_fee_sat(10_000, 500_000, true), Some(9_670));
        assert_eq!(refund_fee_sat(400, 1_000, true), None);
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
