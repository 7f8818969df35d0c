//! Arithmetic on ascending, disjoint ranges of unit numbers, without the limit of 16 that
//! [`Units`] has: a provider's free space may be in more pieces than a certificate names.
//!
//! [`Units`]: crate::units::Units

use std::cmp::Reverse;

use crate::limits::UNIT_RANGES_MAX;
use crate::units::{UnitRange, Units};

/// Units in `from` that no range of `gone` holds. `gone` ascends by `first` and may overlap
/// itself.
pub(super) fn subtract(from: &[UnitRange], gone: &[UnitRange]) -> Vec<UnitRange> {
    let mut left = Vec::new();
    let mut holes = gone.iter().copied().peekable();
    for range in from {
        let mut first = range.first;
        while let Some(hole) = holes.peek().copied().filter(|hole| hole.first < range.end) {
            if first < hole.first {
                left.push(UnitRange { first, end: hole.first });
            }
            first = first.max(hole.end);
            if hole.end > range.end {
                break;
            }
            holes.next();
        }
        if first < range.end {
            left.push(UnitRange { first, end: range.end });
        }
    }
    left
}

/// How many units.
#[cfg(any(test, feature = "test-support"))]
pub(super) fn count(ranges: &[UnitRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.end - range.first)).sum()
}

/// The 16 widest ranges, of equally wide ones the lowest.
pub(super) fn widest(ranges: &[UnitRange]) -> Vec<UnitRange> {
    let mut kept = ranges.to_vec();
    kept.sort_by_key(|range| (Reverse(range.end - range.first), range.first));
    kept.truncate(UNIT_RANGES_MAX);
    kept.sort();
    kept
}

/// The lowest `wanted` units; `None` if there are fewer.
pub(super) fn lowest(ranges: &[UnitRange], wanted: u32) -> Option<Vec<UnitRange>> {
    let mut missing = wanted;
    let mut taken = Vec::new();
    for range in ranges {
        if missing == 0 {
            break;
        }
        let part = missing.min(range.end - range.first);
        taken.push(UnitRange { first: range.first, end: range.first + part });
        missing -= part;
    }
    (missing == 0).then_some(taken)
}

/// The ranges of some units, ascending by `first`.
pub(super) fn sorted<'a>(units: impl Iterator<Item = &'a Units>) -> Vec<UnitRange> {
    let mut ranges: Vec<UnitRange> =
        units.flat_map(|units| units.ranges().iter().copied()).collect();
    ranges.sort();
    ranges
}
