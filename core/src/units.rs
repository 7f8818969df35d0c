//! Money, time, windows and unit numbers, with checked arithmetic.
//!
//! Inside, prices are integer msat per block and amounts integer sat. `rust_decimal` only
//! reads and prints sats at the edge (CLI, API, config) and is never hashed or signed:
//! 1.0 and 1.00 are equal, yet encode differently.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::limits::{PRICE_MAX_MSAT, UNIT_RANGES_MAX, UNITS_MAX};

/// Unix time in milliseconds.
pub type TimeMs = u64;

/// Number of a slot: floor(unix seconds / slot seconds).
pub type Slot = u32;

/// Msat of one sat.
pub const MSAT_PER_SAT: u64 = 1000;

/// Why a text is not a price or an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a number with a unit, such as `20sat` or `1500msat`.
    #[error("expected an amount with a unit, such as 20sat, 1500msat or 0.1btc")]
    Syntax,
    /// Finer than one msat.
    #[error("finer than the smallest unit")]
    TooFine,
    /// Zero, negative or more than there are coins.
    #[error("amount must lie between 1 sat and 21 million bitcoin")]
    AmountRange,
    /// Zero, negative or beyond counting.
    #[error("a fee rate must be at least 0.001 sat/vB")]
    FeerateRange,
    /// Zero, negative or above the largest price.
    #[error("price must lie between 1 msat and 10^12 msat per block")]
    OutOfRange,
}

/// A price in msat per block, `1..=10^12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Price(u64);

impl Price {
    /// Checks the range.
    ///
    /// # Errors
    /// [`MoneyError::OutOfRange`].
    pub fn from_msat(msat: u64) -> Result<Self, MoneyError> {
        if (1..=PRICE_MAX_MSAT).contains(&msat) {
            Ok(Self(msat))
        } else {
            Err(MoneyError::OutOfRange)
        }
    }

    /// Msat per block.
    #[must_use]
    pub fn msat(self) -> u64 {
        self.0
    }
}

impl FromStr for Price {
    type Err = MoneyError;

    /// Reads `20sat`, `20.5sat`, `20sat/block` or `1500msat`; a bare number is refused,
    /// because a forgotten unit costs a factor of a thousand.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let text = text.trim();
        let text = text.strip_suffix("/block").unwrap_or(text);
        let (number, scale) = if let Some(number) = text.strip_suffix("msat") {
            (number, 1)
        } else if let Some(number) = text.strip_suffix("sat") {
            (number, MSAT_PER_SAT)
        } else {
            return Err(MoneyError::Syntax);
        };
        let msat = scaled(number, scale)?.ok_or(MoneyError::OutOfRange)?;
        Self::from_msat(u64::try_from(msat).map_err(|_| MoneyError::OutOfRange)?)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/block", msat_to_sat(self.0))
    }
}

/// Sat of one bitcoin.
pub const SAT_PER_BTC: u64 = 100_000_000;

/// A number in small units, `None` if it is too large to be one.
fn scaled(number: &str, scale: u64) -> Result<Option<Decimal>, MoneyError> {
    let number = number.trim();
    let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
    let unsigned = whole.strip_prefix('-').unwrap_or(whole);
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number(unsigned) || !is_number(rest) {
        return Err(MoneyError::Syntax);
    }
    // Not rounded: what does not fit is finer than any unit, or larger than any amount.
    let value = match Decimal::from_str_exact(number) {
        Ok(value) => value,
        Err(_) if Decimal::from_str(number).is_ok() => return Err(MoneyError::TooFine),
        Err(_) => return Ok(None),
    };
    let Some(small) = value.checked_mul(Decimal::from(scale)) else { return Ok(None) };
    let small = small.normalize();
    if small.scale() == 0 { Ok(Some(small)) } else { Err(MoneyError::TooFine) }
}

/// Reads an amount of coins: `0.1btc` is bitcoin, `5000sat` is sats. As with a price, a bare
/// number is refused: nobody can see which of the two it means.
///
/// # Errors
/// Not a number, finer than one sat, zero or more than there are coins.
pub fn amount_sat(text: &str) -> Result<u64, MoneyError> {
    const SUPPLY_SAT: u64 = 21_000_000 * SAT_PER_BTC;
    let text = text.trim();
    let (number, scale) = if let Some(number) = text.strip_suffix("sat") {
        (number, 1)
    } else if let Some(number) = text.strip_suffix("btc") {
        (number, SAT_PER_BTC)
    } else {
        return Err(MoneyError::Syntax);
    };
    let sat = scaled(number, scale)?.ok_or(MoneyError::AmountRange)?;
    let sat = u64::try_from(sat).map_err(|_| MoneyError::AmountRange)?;
    if (1..=SUPPLY_SAT).contains(&sat) { Ok(sat) } else { Err(MoneyError::AmountRange) }
}

/// Reads a fee rate in sat per virtual byte, as in `2.5` or `2.5sat/vB`, as sat per 1,000.
///
/// # Errors
/// Not a number, finer than a sat per 1,000, or zero.
pub fn feerate_sat_kvb(text: &str) -> Result<u64, MoneyError> {
    let number = text.trim();
    let number = number.strip_suffix("sat/vB").unwrap_or(number);
    let rate = scaled(number, 1000)?.ok_or(MoneyError::FeerateRange)?;
    let rate = u64::try_from(rate).map_err(|_| MoneyError::FeerateRange)?;
    if rate > 0 { Ok(rate) } else { Err(MoneyError::FeerateRange) }
}

/// Msat as decimal sats, without trailing zeros, for people.
#[must_use]
pub fn msat_to_sat(msat: u64) -> Decimal {
    Decimal::from_i128_with_scale(i128::from(msat), 3).normalize()
}

/// A half-open range of slots, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    pub start: Slot,
    /// First slot after the window.
    pub end: Slot,
}

impl Window {
    /// A window of at least one slot.
    #[must_use]
    pub fn new(start: Slot, end: Slot) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// Number of slots.
    #[must_use]
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds no slot.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether both share a slot.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies inside.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// First millisecond of the window.
    #[must_use]
    pub fn starts_at_ms(self, slot_s: u32) -> TimeMs {
        u64::from(self.start) * u64::from(slot_s) * 1000
    }

    /// First millisecond after the window.
    #[must_use]
    pub fn ends_at_ms(self, slot_s: u32) -> TimeMs {
        u64::from(self.end) * u64::from(slot_s) * 1000
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// Consecutive unit numbers of a provider's class, `[first, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitRange {
    pub first: u32,
    /// First number after the range.
    pub end: u32,
}

/// A set of unit numbers as at most 16 ascending ranges that neither touch nor overlap.
///
/// Units make overselling provable: two live certificates of one provider may not share a
/// number of a class in a slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Units(Vec<UnitRange>);

impl Units {
    /// Checks that the ranges are ascending, apart, not empty and at most 16.
    #[must_use]
    pub fn new(ranges: Vec<UnitRange>) -> Option<Self> {
        let units = Self(ranges);
        units.is_canonical().then_some(units)
    }

    /// The units of one range.
    #[must_use]
    pub fn range(first: u32, end: u32) -> Option<Self> {
        Self::new(vec![UnitRange { first, end }])
    }

    /// Whether a decoded value has the one canonical form.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let apart = self.0.windows(2).all(|pair| pair[0].end < pair[1].first);
        let filled = self.0.iter().all(|range| range.first < range.end && range.end <= UNITS_MAX);
        !self.0.is_empty() && self.0.len() <= UNIT_RANGES_MAX && apart && filled
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[UnitRange] {
        &self.0
    }

    /// How many units.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0
            .iter()
            .map(|range| range.end.saturating_sub(range.first))
            .fold(0, u32::saturating_add)
    }

    /// Whether both name a common unit.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.first < b.end && b.first < a.end))
    }

    /// Whether every unit of `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|b| self.0.iter().any(|a| a.first <= b.first && b.end <= a.end))
    }

    /// The units of both, the lowest ranges if they need more than 16; `None` if there is
    /// none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let both = self.0.iter().flat_map(|a| {
            other.0.iter().filter_map(|b| {
                let (first, end) = (a.first.max(b.first), a.end.min(b.end));
                (first < end).then_some(UnitRange { first, end })
            })
        });
        Self::new(both.take(UNIT_RANGES_MAX).collect())
    }

    /// The numbers of a sorted list, joined into ranges; `None` if more than 16 are needed.
    #[must_use]
    #[cfg(any(test, feature = "test-support"))]
    pub fn from_sorted(numbers: &[u32]) -> Option<Self> {
        let mut ranges: Vec<UnitRange> = Vec::new();
        for &number in numbers {
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end = number.checked_add(1)?,
                _ => ranges.push(UnitRange { first: number, end: number.checked_add(1)? }),
            }
        }
        Self::new(ranges)
    }

    /// Every number, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|range| range.first..range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_need_a_unit_and_a_whole_number_of_msat() {
        let table = [
            ("20sat", Ok(20_000)),
            ("20.5 sat", Ok(20_500)),
            ("1.100sat/block", Ok(1_100)),
            ("1500msat", Ok(1_500)),
            ("0.0001sat", Err(MoneyError::TooFine)),
            ("20", Err(MoneyError::Syntax)),
            ("20sat/block/block", Err(MoneyError::Syntax)),
            ("1.0000000000000000000000000000001sat", Err(MoneyError::TooFine)),
            ("sat", Err(MoneyError::Syntax)),
            ("0sat", Err(MoneyError::OutOfRange)),
            ("-1sat", Err(MoneyError::OutOfRange)),
            ("1000000000.001sat", Err(MoneyError::OutOfRange)),
            ("79228162514264337593543950335sat", Err(MoneyError::OutOfRange)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Price>().map(Price::msat), expected, "{text}");
        }
        assert_eq!(Price::from_msat(20_500).unwrap().to_string(), "20.5 sat/block");
    }

    #[test]
    fn amounts_need_a_unit_and_a_whole_number_of_sat() {
        let table = [
            ("0.1btc", Ok(10_000_000)),
            ("0.10000000 btc", Ok(10_000_000)),
            ("2500sat", Ok(2500)),
            ("0.1", Err(MoneyError::Syntax)),
            ("5000", Err(MoneyError::Syntax)),
            ("0.1btcbtc", Err(MoneyError::Syntax)),
            ("0.1btcsat", Err(MoneyError::Syntax)),
            ("1500msat", Err(MoneyError::Syntax)),
            ("1e3sat", Err(MoneyError::Syntax)),
            ("1_000sat", Err(MoneyError::Syntax)),
            ("0.5sat", Err(MoneyError::TooFine)),
            ("0.000000001btc", Err(MoneyError::TooFine)),
            ("0.1000000000000000000000000000001btc", Err(MoneyError::TooFine)),
            ("0btc", Err(MoneyError::AmountRange)),
            ("-1sat", Err(MoneyError::AmountRange)),
            ("22000000btc", Err(MoneyError::AmountRange)),
            ("99999999999999999999999999999sat", Err(MoneyError::AmountRange)),
            (".5btc", Err(MoneyError::Syntax)),
            ("5.sat", Err(MoneyError::Syntax)),
            ("tenbtc", Err(MoneyError::Syntax)),
        ];
        for (text, expected) in table {
            assert_eq!(amount_sat(text), expected, "{text}");
        }
    }

    #[test]
    fn fee_rates_are_sat_per_virtual_byte() {
        let table = [
            ("1", Ok(1_000)),
            ("2.5", Ok(2_500)),
            ("0.001", Ok(1)),
            ("40 sat/vB", Ok(40_000)),
            ("0", Err(MoneyError::FeerateRange)),
            ("-1", Err(MoneyError::FeerateRange)),
            ("1.2345", Err(MoneyError::TooFine)),
            ("1e3", Err(MoneyError::Syntax)),
            ("", Err(MoneyError::Syntax)),
            ("5sat", Err(MoneyError::Syntax)),
        ];
        for (text, expected) in table {
            assert_eq!(feerate_sat_kvb(text), expected, "{text}");
        }
    }

    #[test]
    fn units_join_and_refuse_too_many_ranges() {
        let units = Units::from_sorted(&[0, 1, 2, 5, 6]).unwrap();
        assert_eq!(units.ranges().len(), 2);
        assert_eq!(units.count(), 5);
        let scattered: Vec<u32> = (0..17).map(|n| n * 2).collect();
        assert_eq!(Units::from_sorted(&scattered), None);
        assert!(Units::range(3, 3).is_none());
        assert!(units.overlaps(&Units::range(2, 4).unwrap()));
        assert!(!units.overlaps(&Units::range(3, 5).unwrap()));
        assert!(units.covers(&Units::from_sorted(&[1, 5]).unwrap()));
        assert!(!units.covers(&Units::from_sorted(&[2, 3]).unwrap()));
    }
}
