//! Whether somebody else signs with this node's key now.
//!
//! A Contact of the own key that this life has not signed is of an earlier life, replayed or
//! late, or of a second process: on a copy of the data directory, or on a backup beside what it
//! was made of. Only the second goes on signing. So one such Contact is remembered, and
//! the next one that was signed after the first was heard shows that the other process runs.
//!
//! A stranger cannot sign, so it can only repeat: what this life has signed, which it knows; what
//! earlier lives have signed, which is not above the number that the last of them journaled
//! or the time at which this one began. A life of which this data directory knows nothing, on a
//! clock that was more than a minute ahead, could be repeated at its successor: that takes a
//! backup that was restored within the minute, and a restart is the answer.

use std::collections::BTreeSet;

use crate::limits::CONTACT_SKEW_MS;
use crate::units::TimeMs;

/// Contacts of this life that are told apart one by one: with one a minute those of two hours,
/// which is more than the time for which one is believed.
const SIGNED_MAX: usize = 128;

/// Numbers of Contacts of the own key.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// What is not above it may be of this life, or of an earlier one.
    floor: u64,
    /// Of this life, above the floor.
    signed: BTreeSet<u64>,
    /// One that this life has not signed, and when it was heard, unix ms.
    foreign: Option<(u64, TimeMs)>,
}

impl Own {
    /// A life begins, after one that signed up to a number.
    pub(super) fn begin(now_ms: TimeMs, signed: u64) -> Self {
        Self { floor: now_ms.max(signed), ..Self::default() }
    }

    /// This life signs a Contact.
    pub(super) fn sign(&mut self, seq: u64) {
        self.signed.insert(seq);
        if self.signed.len() > SIGNED_MAX
            && let Some(oldest) = self.signed.pop_first()
        {
            self.floor = self.floor.max(oldest);
        }
    }

    /// A Contact of the own key was heard. Whether it shows a second process.
    pub(super) fn hear(&mut self, now_ms: TimeMs, seq: u64) -> bool {
        let is_fresh = seq.abs_diff(now_ms) <= CONTACT_SKEW_MS;
        if !is_fresh || seq <= self.floor || self.signed.contains(&seq) {
            return false;
        }
        let (first, heard_ms) = *self.foreign.get_or_insert((seq, now_ms));
        seq > first && seq > heard_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: TimeMs = 1_800_000_000_000;

    /// (heard at, number), counted from the beginning of the life, and whether it shows a second
    /// process.
    type Row = (i64, i64, bool);

    fn hears(own: &mut Own, rows: &[Row]) {
        let at = |offset: i64| BEGIN.saturating_add_signed(offset);
        for (heard, seq, expected) in rows {
            assert_eq!(own.hear(at(*heard), at(*seq)), *expected, "{seq} at {heard}");
        }
    }

    #[test]
    fn two_contacts_that_this_life_did_not_sign_show_a_second_process() {
        // By its own number of heard and signed Contacts: told, what of it is believed.
        let table: [&[Row]; 6] = [
            // Once a minute, and each of them more than once.
            &[(100, 90, false), (120, 90, false), (60_100, 60_090, true)],
            // Its clock is a minute behind.
            &[(61_000, 1_000, false), (121_000, 61_000, false), (181_000, 121_000, true)],
            // Its clock is ahead: both were signed before the first was heard.
            &[(100, 30_000, false), (60_100, 90_000, true)],
            // The last of an earlier life, and those before it.
            &[(100, -200, false), (200, -100, false), (300, 0, false)],
            // Earlier ones after a later one.
            &[(90_000, 80_000, false), (90_100, 20_000, false), (90_200, 80_000, false)],
            // Of a clock that is wrong by more than is believed.
            &[(100, 600_101, false), (60_100, 660_101, false)],
        ];
        for rows in table {
            hears(&mut Own::begin(BEGIN, 0), rows);
        }
    }

    #[test]
    fn nothing_that_this_node_has_signed_stops_it() {
        // An earlier life ran with a clock that was two minutes ahead.
        let mut own = Own::begin(BEGIN, BEGIN + 120_000);
        hears(&mut own, &[(100, 60_000, false), (70_000, 120_000, false)]);
        // This life, for hours; all of it comes back in the end.
        let mut own = Own::begin(BEGIN, 0);
        for minute in 0..300 {
            own.sign(BEGIN + 1 + minute * 60_000);
        }
        assert_eq!(own.signed.len(), SIGNED_MAX);
        let now_ms = BEGIN + 300 * 60_000;
        for minute in 0..300 {
            assert!(!own.hear(now_ms, BEGIN + 1 + minute * 60_000), "minute {minute}");
        }
        assert!(!own.hear(now_ms, now_ms - 59_000));
        assert!(own.hear(now_ms + 1_000, now_ms + 500), "what it did not sign does");
    }
}
