//! A pool: what several want to pay for together, and how its price is shared.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::code;
use crate::ids::{Key, PoolId};
use crate::limits::{FUNDERS_MAX, PRICE_MAX_MSAT, QTY_MAX, SLOTS_MAX};
use crate::params::Params;
use crate::settlement::objects::Row;
use crate::units::{Slot, TimeMs, Window};
use crate::wire::{Object, Verified};

/// One purchase for which several pledge, each a part of its highest price. Signed by its creator,
/// who bids when the pledges make up that price; it travels as an invitation, never by gossip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub v: u8,
    pub creator: Key,
    /// Who shall hold what is bought.
    pub to: Key,
    pub class: u16,
    pub features: u64,
    pub qty: u32,
    /// When it may be delivered.
    pub window: Window,
    /// Consecutive slots inside the window.
    pub slots: u16,
    /// Highest price, msat per block.
    pub limit_msat: u64,
    /// Until when it gathers pledges and bids, unix ms.
    pub until_ms: TimeMs,
    /// Who may pledge beside the creator, ascending, at most 7; nobody named: whoever has the
    /// invitation, with as many keys as there are places.
    pub invited: Vec<Key>,
    /// Whether all pay by one transaction, which is invalid until each has signed; else each pays by
    /// its own.
    pub all_or_nothing: bool,
    pub nonce16: [u8; 16],
}

impl Object for Pool {
    const NAME: &'static str = "pool";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.creator.0)
    }
}

/// The id of a pool: that of the object.
#[must_use]
pub fn pool_id(pool: &Verified<Pool>) -> PoolId {
    PoolId(pool.id())
}

impl Pool {
    /// The highest price of the whole, sat: what the pledges have to make up.
    #[must_use]
    pub fn price_sat(&self) -> u64 {
        let blocks = u128::from(self.qty) * u128::from(self.slots);
        u64::try_from(blocks * u128::from(self.limit_msat) / 1000).unwrap_or(u64::MAX)
    }

    /// Whether it asks for something that can be bought, and two can pay for.
    ///
    /// # Errors
    /// `pool.malformed`.
    pub fn check(&self, params: &Params) -> Result<(), &'static str> {
        let is_good = (1..=QTY_MAX).contains(&self.qty)
            && (1..=SLOTS_MAX).contains(&self.slots)
            && (1..=PRICE_MAX_MSAT).contains(&self.limit_msat)
            && u32::from(self.slots) <= self.window.len()
            && params.class(self.class).is_some()
            && self.until_ms <= self.window.ends_at_ms(params.slot_s)
            && self.price_sat() >= params.min_trade_sat.saturating_mul(2)
            && self.invited.len() < FUNDERS_MAX
            && self.invited.is_sorted_by(|one, other| one < other)
            && !self.invited.contains(&self.creator);
        if is_good { Ok(()) } else { Err(code!("pool.malformed")) }
    }

    /// Whether a row buys what the pool is for, and no dearer.
    #[must_use]
    pub fn is_bought_by(&self, row: &Row) -> bool {
        row.class == self.class
            && row.qty == self.qty
            && row.slots == self.slots
            && self.is_inside(row.window())
            && row.price_sat() <= self.price_sat()
    }

    /// Whether a key may pledge.
    #[must_use]
    pub fn is_invited(&self, key: &Key) -> bool {
        self.invited.is_empty() || self.invited.contains(key)
    }

    fn is_inside(&self, window: Window) -> bool {
        let slots = |slot: Slot| (self.window.start..=self.window.end).contains(&slot);
        slots(window.start) && slots(window.end)
    }
}

/// Whether a pledge may join others: none is less than the smallest trade, together they are no
/// more than the price, and what then is missing can be pledged by those who still have a place.
///
/// # Errors
/// `pool.full` or `pool.share`.
pub fn may_pledge(
    params: &Params,
    price_sat: u64,
    others: &[u64],
    share_sat: u64,
) -> Result<(), &'static str> {
    if others.len() >= FUNDERS_MAX {
        return Err(code!("pool.full"));
    }
    let pledged_sat = others.iter().fold(share_sat, |sum, other| sum.saturating_add(*other));
    let missing_sat = price_sat.checked_sub(pledged_sat).ok_or(code!("pool.share"))?;
    let has_place = others.len() + 1 < FUNDERS_MAX;
    let is_rest_good = missing_sat == 0 || has_place && missing_sat >= params.min_trade_sat;
    let is_good = share_sat >= params.min_trade_sat && is_rest_good;
    if is_good { Ok(()) } else { Err(code!("pool.share")) }
}

/// What each pays of a price, by its pledge: the smallest trade, since no contract may hold less,
/// and of the rest in proportion. Sats that division leaves go to the first who have pledged as
/// many. `None` if the price is too small for so many, or more than was pledged.
#[must_use]
pub fn split(pledges_sat: &[u64], price_sat: u64, least_sat: u64) -> Option<Vec<u64>> {
    let count = u64::try_from(pledges_sat.len()).ok()?;
    let pledged_sat = pledges_sat.iter().try_fold(0_u64, |sum, one| sum.checked_add(*one))?;
    let rest_sat = price_sat.checked_sub(least_sat.checked_mul(count)?)?;
    let above_sat = pledged_sat.checked_sub(least_sat.checked_mul(count)?)?;
    let mut left_sat = price_sat;
    let mut shares_sat = Vec::with_capacity(pledges_sat.len());
    for pledge in pledges_sat {
        let above = u128::from(pledge.checked_sub(least_sat)?);
        let part = (above * u128::from(rest_sat)).checked_div(u128::from(above_sat)).unwrap_or(0);
        let share_sat = least_sat.saturating_add(u64::try_from(part).ok()?);
        left_sat = left_sat.checked_sub(share_sat)?;
        shares_sat.push(share_sat);
    }
    for (share, pledge) in shares_sat.iter_mut().zip(pledges_sat) {
        if left_sat > 0 && *share < *pledge {
            *share += 1;
            left_sat -= 1;
        }
    }
    (left_sat == 0).then_some(shares_sat)
}

/// Whether a share is no more than a pledge makes it, of a price that so many share.
#[must_use]
pub fn is_fair(pool: &Pool, params: &Params, pledge_sat: u64, share: Share) -> bool {
    let least_sat = params.min_trade_sat;
    let Share { share_sat, price_sat, funders } = share;
    let all_sat = least_sat.saturating_mul(funders);
    let above = u128::from(pledge_sat.saturating_sub(least_sat));
    let rest = u128::from(price_sat.saturating_sub(all_sat));
    let of = u128::from(pool.price_sat().saturating_sub(all_sat));
    let part = (above * rest).checked_div(of).unwrap_or(0);
    let most = u128::from(least_sat) + part + 1;
    share_sat <= pledge_sat && u128::from(share_sat) <= most
}

/// What one of several is to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of this one, sat.
    pub share_sat: u64,
    /// Of all, sat.
    pub price_sat: u64,
    /// How many pay.
    pub funders: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::devnet;

    #[test]
    fn a_price_is_shared_by_the_pledges_and_nobody_pays_more_than_it_pledged() {
        type Case = (&'static [u64], u64, Option<&'static [u64]>);
        let table: [Case; 9] = [
            (&[6_000, 4_000], 10_000, Some(&[6_000, 4_000])),
            (&[6_000, 4_000], 6_000, Some(&[3_500, 2_500])),
            (&[6_000, 4_000], 6_001, Some(&[3_501, 2_500])),
            (&[6_000, 4_000], 2_000, Some(&[1_000, 1_000])),
            (&[6_000, 4_000], 1_999, None),
            (&[6_000, 4_000], 10_001, None),
            (&[1_000, 1_000], 2_000, Some(&[1_000, 1_000])),
            (&[1_000, 1_001, 7_999], 5_000, Some(&[1_000, 1_001, 2_999])),
            (&[999, 9_001], 10_000, None),
        ];
        for (pledges, price, shares) in table {
            assert_eq!(split(pledges, price, 1_000).as_deref(), shares, "{pledges:?} {price}");
        }
    }

    #[test]
    fn every_split_is_fair_and_adds_up() {
        let params = devnet();
        let least = params.min_trade_sat;
        for pledges in
            [vec![5 * least, 2 * least, 3 * least + 7], vec![least; 8], vec![least, 90_001]]
        {
            let cap: u64 = pledges.iter().sum();
            let pool = Pool { qty: 1, slots: 1, limit_msat: cap * 1000, ..pool() };
            for price in (least * pledges.len() as u64..=cap).step_by(499).chain([cap]) {
                let shares = split(&pledges, price, least).unwrap();
                assert_eq!(shares.iter().sum::<u64>(), price);
                for (share_sat, pledge) in shares.iter().zip(&pledges) {
                    let funders = pledges.len() as u64;
                    let share = Share { share_sat: *share_sat, price_sat: price, funders };
                    assert!(*share_sat >= least && is_fair(&pool, &params, *pledge, share));
                    let dearer = Share { share_sat: share_sat + 2, ..share };
                    assert!(!is_fair(&pool, &params, *pledge, dearer), "{pledges:?} {price}");
                }
            }
        }
    }

    #[test]
    fn none_outlives_its_window() {
        let params = devnet();
        let ends_ms = pool().window.ends_at_ms(params.slot_s);
        let check = |until_ms| Pool { until_ms, ..pool() }.check(&params);
        assert_eq!((check(ends_ms), check(ends_ms + 1)), (Ok(()), Err("pool.malformed")));
    }

    fn pool() -> Pool {
        Pool {
            v: 1,
            creator: Key([1; 32]),
            to: Key([2; 32]),
            class: 1,
            features: 0,
            qty: 2,
            window: Window { start: 100, end: 110 },
            slots: 3,
            limit_msat: 1_000_000,
            until_ms: 1,
            invited: Vec::new(),
            all_or_nothing: true,
            nonce16: [3; 16],
        }
    }

    #[test]
    fn a_pledge_is_refused_that_can_never_become_a_share() {
        let params = devnet();
        let least = params.min_trade_sat;
        let price = 10 * least;
        let seven = vec![least; 7];
        let table: [(&[u64], u64, Result<(), &str>); 10] = [
            (&[], 0, Err("pool.share")),
            (&[], least - 1, Err("pool.share")),
            (&[], least, Ok(())),
            (&[], price + 1, Err("pool.share")),
            (&[4 * least], 6 * least, Ok(())),
            (&[4 * least], 6 * least + 1, Err("pool.share")),
            // The last sats would be too few for anyone.
            (&[4 * least], 6 * least - 1, Err("pool.share")),
            // The last place has to take all that is missing.
            (&seven, 2 * least, Err("pool.share")),
            (&seven, 3 * least, Ok(())),
            (&[least; 8], 2 * least, Err("pool.full")),
        ];
        for (others, share, expected) in table {
            assert_eq!(may_pledge(&params, price, others, share), expected, "{others:?} {share}");
        }
    }

    #[test]
    fn a_row_is_bought_only_as_the_invitation_says() {
        let row = Row {
            v: 1,
            epoch: 1,
            buy: [1; 32],
            sell: [2; 32],
            class: 1,
            start: 107,
            slots: 3,
            qty: 2,
            msat: 6_000_000,
        };
        assert!(pool().is_bought_by(&row));
        for other in [
            Row { class: 2, ..row.clone() },
            Row { qty: 1, ..row.clone() },
            Row { slots: 2, ..row.clone() },
            Row { start: 99, ..row.clone() },
            Row { start: 108, ..row.clone() },
            Row { msat: 6_001_000, ..row.clone() },
        ] {
            assert!(!pool().is_bought_by(&other), "{other:?}");
        }
    }
}
