//! Times in which a provider has said that it will not deliver.

use serde::{Deserialize, Serialize};

use crate::limits::{
    HORIZON_SLOTS, MAINTENANCE_MAX_SLOTS, MAINTENANCE_WHY_MAX_BYTES, MAINTENANCES_MAX,
};
use crate::reason;
use crate::reasons::Reason;
use crate::units::{TimeMs, Window};

/// A time in which a provider will not deliver, and has said so before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Unix ms.
    pub from_ms: TimeMs,
    /// Unix ms, after the start.
    pub to_ms: TimeMs,
    /// In the provider's words, at most [`MAINTENANCE_WHY_MAX_BYTES`]; empty if it gives none.
    pub why: String,
}

/// Why a maintenance cannot be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MaintenanceError {
    /// It has no length.
    #[error("the maintenance ends before it begins")]
    Empty,
    /// It would have begun.
    #[error("the maintenance would have begun already")]
    Past,
    /// Those who are concerned would not hear of it in time.
    #[error("the maintenance begins in less than a slot")]
    ShortNotice,
    /// Nothing is sold so far ahead.
    #[error("the maintenance begins beyond the horizon")]
    TooFar,
    #[error("the maintenance is longer than {MAINTENANCE_MAX_SLOTS} slots")]
    TooLong,
    /// Another one is announced for some of the time.
    #[error("the maintenance overlaps one that is announced")]
    Overlaps,
    #[error("{MAINTENANCES_MAX} are announced already")]
    TooMany,
    /// Longer than allowed, or with control characters.
    #[error("the reason is no line of text of at most {MAINTENANCE_WHY_MAX_BYTES} bytes")]
    BadWhy,
}

impl MaintenanceError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Empty => reason!("maintenance.empty"),
            Self::Past => reason!("maintenance.past"),
            Self::ShortNotice => reason!("maintenance.short_notice"),
            Self::TooFar => reason!("maintenance.too_far"),
            Self::TooLong => reason!("maintenance.too_long"),
            Self::Overlaps => reason!("maintenance.overlaps"),
            Self::TooMany => reason!("maintenance.too_many"),
            Self::BadWhy => reason!("maintenance.bad_why"),
        }
    }
}

impl Maintenance {
    /// Whether it may be announced beside those that are open, with a slot's notice.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check<'a>(
        &self,
        open: impl IntoIterator<Item = &'a Self>,
        now_ms: TimeMs,
        slot_s: u32,
    ) -> Result<(), MaintenanceError> {
        let slots_ms = |slots: u32| u64::from(slots) * u64::from(slot_s) * 1_000;
        let length_ms = self.to_ms.saturating_sub(self.from_ms);
        if length_ms == 0 {
            return Err(MaintenanceError::Empty);
        }
        if self.from_ms < now_ms {
            return Err(MaintenanceError::Past);
        }
        let notice_ms = self.from_ms.saturating_sub(now_ms);
        if notice_ms < slots_ms(1) {
            return Err(MaintenanceError::ShortNotice);
        }
        if notice_ms > slots_ms(HORIZON_SLOTS) {
            return Err(MaintenanceError::TooFar);
        }
        if length_ms > slots_ms(MAINTENANCE_MAX_SLOTS) {
            return Err(MaintenanceError::TooLong);
        }
        if self.why.len() > MAINTENANCE_WHY_MAX_BYTES || self.why.chars().any(char::is_control) {
            return Err(MaintenanceError::BadWhy);
        }
        let mut count = 0;
        for other in open {
            count += 1;
            if other.overlap_ms((self.from_ms, self.to_ms)) > 0 {
                return Err(MaintenanceError::Overlaps);
            }
        }
        if count >= MAINTENANCES_MAX { Err(MaintenanceError::TooMany) } else { Ok(()) }
    }

    /// How much of a time, from and to in unix ms, it takes, ms.
    #[must_use]
    pub fn overlap_ms(&self, (from_ms, to_ms): (TimeMs, TimeMs)) -> u64 {
        to_ms.min(self.to_ms).saturating_sub(from_ms.max(self.from_ms))
    }

    /// The slots that it touches.
    #[must_use]
    pub fn slots(&self, slot_s: u32) -> Option<Window> {
        let slot_ms = u64::from(slot_s.max(1)) * 1_000;
        let slot = |slots: u64| u32::try_from(slots).ok();
        Window::new(slot(self.from_ms / slot_ms)?, slot(self.to_ms.div_ceil(slot_ms))?)
    }
}

/// How much of a time, from and to in unix ms, was announced, ms. What is announced does not
/// overlap.
pub fn announced_ms<'a>(
    all: impl IntoIterator<Item = &'a Maintenance>,
    time_ms: (TimeMs, TimeMs),
) -> u64 {
    all.into_iter().map(|one| one.overlap_ms(time_ms)).fold(0, u64::saturating_add)
}

/// What is left of a window outside of the slots of others, ascending.
#[must_use]
pub fn outside(window: Window, closed: &[Window]) -> Vec<Window> {
    let mut left = vec![window];
    for closed in closed {
        let cut = |window: Window| {
            let before = Window::new(window.start, window.end.min(closed.start));
            let after = Window::new(window.start.max(closed.end), window.end);
            [before, after].into_iter().flatten()
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: TimeMs = 1_800_000_000_000;
    const SLOT_S: u32 = 4;
    const SLOT_MS: u64 = 4_000;

    fn from_slots(from: u64, length: u64) -> Maintenance {
        let from_ms = NOW_MS + from * SLOT_MS;
        Maintenance { from_ms, to_ms: from_ms + length * SLOT_MS, why: String::new() }
    }

    fn why(text: &str) -> Maintenance {
        Maintenance { why: text.to_owned(), ..from_slots(2, 2) }
    }

    #[test]
    fn each_bad_announcement_has_its_code() {
        let open = [from_slots(10, 5), from_slots(20, 5)];
        let most: Vec<Maintenance> = (0..16).map(|n| from_slots(10 + 2 * n, 1)).collect();
        let longest = u64::from(MAINTENANCE_MAX_SLOTS);
        let past = Maintenance { from_ms: NOW_MS - 1, ..from_slots(2, 2) };
        let soon = Maintenance { from_ms: NOW_MS + SLOT_MS - 1, ..from_slots(2, 2) };
        let table: [(Maintenance, &[Maintenance], Result<(), &str>); 19] = [
            (from_slots(2, 2), &open, Ok(())),
            (from_slots(1, 9), &open, Ok(())),
            (from_slots(15, 5), &open, Ok(())),
            (from_slots(25, longest), &open, Ok(())),
            (from_slots(336, 1), &open, Ok(())),
            (why("new disks, höher"), &open, Ok(())),
            (from_slots(2, 2), &most[1..], Ok(())),
            (from_slots(2, 0), &open, Err("maintenance.empty")),
            (past, &open, Err("maintenance.past")),
            (soon, &open, Err("maintenance.short_notice")),
            (from_slots(337, 1), &open, Err("maintenance.too_far")),
            (from_slots(25, longest + 1), &open, Err("maintenance.too_long")),
            (from_slots(1, 10), &open, Err("maintenance.overlaps")),
            (from_slots(14, 2), &open, Err("maintenance.overlaps")),
            (from_slots(11, 1), &open, Err("maintenance.overlaps")),
            (from_slots(9, 30), &open, Err("maintenance.overlaps")),
            (from_slots(2, 2), &most, Err("maintenance.too_many")),
            (why(&"x".repeat(201)), &open, Err("maintenance.bad_why")),
            (why("a\u{1b}[31m"), &open, Err("maintenance.bad_why")),
        ];
        for (row, (new, open, expected)) in table.iter().enumerate() {
            let checked = new.check(*open, NOW_MS, SLOT_S).map_err(MaintenanceError::code);
            assert_eq!(checked, *expected, "row {row}");
        }
        // Nothing overflows, however far it reaches.
        let endless = Maintenance { to_ms: u64::MAX, ..from_slots(2, 2) };
        assert_eq!(endless.check(&open, NOW_MS, SLOT_S), Err(MaintenanceError::TooLong));
        assert_eq!(endless.slots(SLOT_S), None);
    }

    #[test]
    fn it_takes_every_slot_that_it_touches() {
        let of = |from_ms, to_ms| {
            Maintenance { from_ms, to_ms, why: String::new() }.slots(SLOT_S).unwrap()
        };
        assert_eq!(of(8_000, 16_000), Window { start: 2, end: 4 });
        assert_eq!(of(7_999, 16_001), Window { start: 1, end: 5 });
        assert_eq!(of(8_001, 8_002), Window { start: 2, end: 3 });
    }

    #[test]
    fn what_is_left_of_a_window_lies_outside_of_all() {
        let window = |start, end| Window { start, end };
        let table: [(&[Window], Vec<Window>); 6] = [
            (&[], vec![window(10, 20)]),
            (&[window(0, 10), window(20, 30)], vec![window(10, 20)]),
            (&[window(12, 14)], vec![window(10, 12), window(14, 20)]),
            (&[window(5, 12), window(18, 25)], vec![window(12, 18)]),
            (
                &[window(15, 16), window(11, 12)],
                vec![window(10, 11), window(12, 15), window(16, 20)],
            ),
            (&[window(9, 21)], vec![]),
        ];
        for (closed, expected) in table {
            assert_eq!(outside(window(10, 20), closed), expected, "{closed:?}");
        }
    }

    #[test]
    fn announced_time_is_what_lies_inside() {
        let all = [from_slots(2, 2), from_slots(6, 1)];
        let time = |from: u64, to: u64| (NOW_MS + from * SLOT_MS, NOW_MS + to * SLOT_MS);
        for ((from, to), slots) in [((0, 2), 0), ((0, 3), 1), ((3, 7), 2), ((0, 9), 3), ((9, 0), 0)]
        {
            assert_eq!(announced_ms(&all, time(from, to)), slots * SLOT_MS, "{from} to {to}");
        }
    }
}
