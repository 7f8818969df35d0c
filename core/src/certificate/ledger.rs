//! The provider's unit ledger: who has a claim on which unit in which slot.
//!
//! One writer, the engine; so a unit × slot has at most one claim, whatever the order of
//! messages. An ask stands for one free rectangle (units × window) of it, and therefore its
//! rows can always be numbered. The ledger itself is not stored: capacity,
//! certificates, settlements and standing orders are, and each restores its own claims.

use crate::reason;
use crate::reasons::Reason;
use std::collections::BTreeMap;

use super::objects::Area;
use super::parts::{partition, union};
use super::ranges;
use super::timeline::Timeline;
use crate::ids::{CertId, TradeId};
use crate::limits::UNITS_MAX;
use crate::units::{Slot, Units, Window};

/// Rectangles that one look at free space returns: the asks into which a remainder is
/// re-signed.
pub const RECTANGLES_MAX: usize = 16;

/// Claims of one class: bounds memory at some 10 MB and the time of an overlap check.
pub const CLAIMS_MAX: usize = 65_536;

/// Who holds a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A matched row, until its certificate is issued or the trade is void.
    Row(TradeId),
    /// An issued certificate, until its window has passed.
    Certificate(CertId),
}

/// Why the ledger refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// A unit number at or above the capacity.
    #[error("unit number beyond the capacity of the class")]
    BeyondCapacity,
    /// A unit × slot that another claim has.
    #[error("units are claimed already")]
    Claimed,
    /// Empty window or units that are not canonical.
    #[error("claim holds no unit or no slot")]
    Empty,
    /// More claims than a class may have.
    #[error("too many claims")]
    Full,
    /// A recut that would make or lose a unit-slot.
    #[error("the claims after it are not those before it")]
    NotConserved,
    /// Capacity may not shrink below what is claimed.
    #[error("capacity would shrink below what is claimed")]
    BelowClaims,
    /// More units than a class may number.
    #[error("capacity is larger than a class may number")]
    TooLarge,
}

impl LedgerError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::BeyondCapacity => reason!("ledger.beyond_capacity"),
            Self::Claimed => reason!("ledger.claimed"),
            Self::Empty => reason!("ledger.empty"),
            Self::Full => reason!("ledger.full"),
            Self::NotConserved => reason!("ledger.not_conserved"),
            Self::BelowClaims => reason!("capacity.below_claims"),
            Self::TooLarge => reason!("capacity.too_large"),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct ClassLedger {
    capacity: u32,
    claims: BTreeMap<Claim, Vec<(Units, Window)>>,
    /// The same claims by time, so that a look at free space need not pass through them all.
    timeline: Timeline,
}

/// Capacity of each class and the claims on it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    classes: BTreeMap<u16, ClassLedger>,
}

impl Ledger {
    /// Units of a class, numbered from 0.
    #[must_use]
    pub fn capacity(&self, class: u16) -> u32 {
        self.classes.get(&class).map_or(0, |ledger| ledger.capacity)
    }

    /// Sets the units of a class.
    ///
    /// # Errors
    /// [`LedgerError::TooLarge`] or, if a claim names a number that would go,
    /// [`LedgerError::BelowClaims`].
    pub fn set_capacity(&mut self, class: u16, units: u32) -> Result<(), LedgerError> {
        if units > UNITS_MAX {
            return Err(LedgerError::TooLarge);
        }
        let ledger = self.classes.entry(class).or_default();
        if ledger.timeline.highest() > units {
            return Err(LedgerError::BelowClaims);
        }
        ledger.capacity = units;
        Ok(())
    }

    /// The end of the highest number of a class that a claim names.
    #[must_use]
    pub fn highest(&self, class: u16) -> u32 {
        self.classes.get(&class).map_or(0, |ledger| ledger.timeline.highest())
    }

    /// Units of a class in a slot: sold with a certificate, and taken by rows that are being settled.
    #[must_use]
    pub fn taken_in(&self, class: u16, slot: Slot) -> (u32, u32) {
        let mut taken = (0_u32, 0_u32);
        let claims = self.classes.get(&class).into_iter().flat_map(|ledger| &ledger.claims);
        for (claim, areas) in claims {
            let now = areas.iter().filter(|(_, window)| window.start <= slot && slot < window.end);
            let units = now.map(|(units, _)| units.count()).fold(0, u32::saturating_add);
            let count = match claim {
                Claim::Certificate(_) => &mut taken.0,
                Claim::Row(_) => &mut taken.1,
            };
            *count = count.saturating_add(units);
        }
        taken
    }

    /// Claims units × window. Repeating a claim changes nothing.
    ///
    /// # Errors
    /// The units are not there, not free, or the ledger is full.
    pub fn claim(
        &mut self,
        claim: Claim,
        class: u16,
        units: &Units,
        window: Window,
    ) -> Result<(), LedgerError> {
        if window.is_empty() || !units.is_canonical() {
            return Err(LedgerError::Empty);
        }
        let Some(ledger) = self.classes.get_mut(&class) else {
            return Err(LedgerError::BeyondCapacity);
        };
        let area = (units.clone(), window);
        if ledger.claims.get(&claim).is_some_and(|areas| areas.contains(&area)) {
            return Ok(());
        }
        if units.ranges().iter().any(|range| range.end > ledger.capacity) {
            return Err(LedgerError::BeyondCapacity);
        }
        if ledger.timeline.overlaps(units, window) {
            return Err(LedgerError::Claimed);
        }
        if ledger.claims.len() >= CLAIMS_MAX {
            return Err(LedgerError::Full);
        }
        ledger.timeline.take(units, window);
        ledger.claims.entry(claim).or_default().push(area);
        Ok(())
    }

    /// Gives back everything that a claim holds; false if it held nothing.
    pub fn release(&mut self, claim: Claim) -> bool {
        let mut found = false;
        for ledger in self.classes.values_mut() {
            for (units, window) in ledger.claims.remove(&claim).unwrap_or_default() {
                ledger.timeline.give(&units, window);
                found = true;
            }
        }
        found
    }

    /// Hands everything from one claim to another; false if there was nothing.
    pub fn retag(&mut self, from: Claim, to: Claim) -> bool {
        let mut found = false;
        for ledger in self.classes.values_mut() {
            if let Some(areas) = ledger.claims.remove(&from) {
                ledger.claims.entry(to).or_default().extend(areas);
                found = true;
            }
        }
        found
    }

    /// Hands what certificates claim to others, each unit in each slot to exactly one: a split,
    /// a merge. Each claims one area. All or nothing.
    ///
    /// # Errors
    /// [`LedgerError::NotConserved`], [`LedgerError::Full`].
    pub fn recut(
        &mut self,
        class: u16,
        before: &[CertId],
        after: &[(CertId, Area)],
    ) -> Result<(), LedgerError> {
        let ledger = self.classes.get_mut(&class).ok_or(LedgerError::NotConserved)?;
        let claimed = |id: &CertId| match ledger.claims.get(&Claim::Certificate(*id))?.as_slice() {
            [(units, window)] => Some(Area { units: units.clone(), window: *window }),
            _ => None,
        };
        let old: Option<Vec<Area>> = before.iter().map(claimed).collect();
        let old = old.ok_or(LedgerError::NotConserved)?;
        let new: Vec<&Area> = after.iter().map(|(_, area)| area).collect();
        let is_conserved = match (old.as_slice(), new.as_slice()) {
            ([whole], _) => partition(whole, &new.into_iter().cloned().collect::<Vec<_>>()).is_ok(),
            (parts, [whole]) => union(&parts.iter().collect::<Vec<_>>()).as_ref() == Ok(*whole),
            _ => false,
        };
        let is_fresh =
            |(id, _): &(CertId, Area)| !ledger.claims.contains_key(&Claim::Certificate(*id));
        if !is_conserved || !after.iter().all(is_fresh) {
            return Err(LedgerError::NotConserved);
        }
        if ledger.claims.len().saturating_add(after.len()) > CLAIMS_MAX {
            return Err(LedgerError::Full);
        }
        for (id, area) in before.iter().zip(&old) {
            ledger.claims.remove(&Claim::Certificate(*id));
            ledger.timeline.give(&area.units, area.window);
        }
        for (id, area) in after {
            ledger.timeline.take(&area.units, area.window);
            let claim = Claim::Certificate(*id);
            ledger.claims.insert(claim, vec![(area.units.clone(), area.window)]);
        }
        Ok(())
    }

    /// What a claim holds: (class, units, window).
    pub fn areas(&self, claim: Claim) -> impl Iterator<Item = (u16, &Units, Window)> {
        self.classes.iter().flat_map(move |(class, ledger)| {
            let areas = ledger.claims.get(&claim).into_iter().flatten();
            areas.map(move |(units, window)| (*class, units, *window))
        })
    }

    /// Forgets claims whose windows ended at or before a slot.
    pub fn expire(&mut self, slot: Slot) {
        for ledger in self.classes.values_mut() {
            for areas in ledger.claims.values_mut() {
                areas.retain(|(units, window)| {
                    let stays = window.end > slot;
                    if !stays {
                        ledger.timeline.give(units, *window);
                    }
                    stays
                });
            }
            ledger.claims.retain(|_, areas| !areas.is_empty());
        }
    }

    /// Units of a class that are free during a whole window.
    #[must_use]
    #[cfg(any(test, feature = "test-support"))]
    pub fn free_units(&self, class: u16, window: Window) -> u64 {
        let Some(ledger) = self.classes.get(&class) else {
            return 0;
        };
        ranges::count(&ledger.timeline.free(ledger.capacity, window))
    }

    /// The lowest `qty` units that are free during a whole window and in none of `taken`;
    /// `None` if there are fewer, or they need more than 16 ranges.
    #[must_use]
    pub fn pick(&self, class: u16, qty: u32, window: Window, taken: &[Units]) -> Option<Units> {
        let ledger = self.classes.get(&class)?;
        let free = ledger.timeline.free(ledger.capacity, window);
        let left = ranges::subtract(&free, &ranges::sorted(taken.iter()));
        Units::new(ranges::lowest(&left, qty)?)
    }

    /// The units of a class that none of `taken` names, whoever has claims on them: of more than 16
    /// ranges the widest. `None` if there are none.
    #[must_use]
    pub fn others(&self, class: u16, taken: &[Units]) -> Option<Units> {
        let all = Units::range(0, self.capacity(class))?;
        let left = ranges::subtract(all.ranges(), &ranges::sorted(taken.iter()));
        Units::new(ranges::widest(&left))
    }

    /// Free space of a class in a window as at most 16 disjoint rectangles, largest first;
    /// of equally large ones the earliest. The same ledger gives the same answer.
    ///
    /// Units with the same free interval share a rectangle, and no free interval of a unit is
    /// ever cut: a run that fits into one unit fits into one rectangle.
    #[must_use]
    pub fn free_rectangles(&self, class: u16, window: Window) -> Vec<(Units, Window)> {
        let Some(ledger) = self.classes.get(&class) else {
            return Vec::new();
        };
        let mut found = ledger.timeline.free_intervals(ledger.capacity, window);
        let area =
            |units: &Units, window: Window| u64::from(units.count()) * u64::from(window.len());
        found.sort_by_key(|(units, window)| {
            let first = units.ranges().first().map_or(0, |range| range.first);
            (std::cmp::Reverse(area(units, *window)), window.start, first)
        });
        found.truncate(RECTANGLES_MAX);
        found
    }
}

/// What a matched row needs of its ask's rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowNeed {
    pub buy: [u8; 32],
    pub window: Window,
    pub qty: u32,
}

/// Why a row gets no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The free numbers lie in more than 16 ranges.
    #[error("units are scattered over more than 16 ranges")]
    Fragmented,
    /// More units than the rectangle has: not a row of this ask.
    #[error("the rectangle has not so many free units")]
    NotInside,
}

impl NumberError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Fragmented => reason!("trade.fragmented"),
            Self::NotInside => reason!("trade.not_inside"),
        }
    }
}

/// Numbers the rows of one ask: by (start, buy id), lowest free number first. Since rows
/// are taken by start, a unit that is free at the first slot of a row is free in all of
/// them, so no valid result runs out of numbers. Answers stand in the order of `rows`.
#[must_use]
pub fn number_rows(
    rectangle: &(Units, Window),
    rows: &[RowNeed],
) -> Vec<Result<Units, NumberError>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| (rows[index].window.start, rows[index].buy));
    let mut answers = vec![Err(NumberError::NotInside); rows.len()];
    let mut taken: Vec<(Units, Window)> = Vec::new();
    for index in order {
        let row = &rows[index];
        if !rectangle.1.covers(row.window) || row.window.is_empty() || row.qty == 0 {
            continue;
        }
        // Rows come by start: one that ended before this start is never in the way again.
        taken.retain(|(_, window)| window.end > row.window.start);
        let held = ranges::sorted(taken.iter().map(|(units, _)| units));
        let free = ranges::subtract(rectangle.0.ranges(), &held);
        let Some(numbers) = ranges::lowest(&free, row.qty) else {
            continue;
        };
        answers[index] = Units::new(numbers).ok_or(NumberError::Fragmented);
        if let Ok(units) = &answers[index] {
            taken.push((units.clone(), row.window));
        }
    }
    answers
}
