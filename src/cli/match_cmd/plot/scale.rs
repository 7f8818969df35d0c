//! Axes: where a value lies, and which values are worth a tick.

use crate::cli::sanitise;
use capex_core::units::msat_to_sat;

/// An axis from one value to a higher one, over pixels in either direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) from: u64,
    pub(super) to: u64,
    first_px: i64,
    last_px: i64,
    step: u64,
}

impl Scale {
    /// An axis that covers both values and ends at ticks, of which there are at most
    /// `ticks` + 2.
    pub(super) fn new(low: u64, high: u64, ticks: u64, first_px: i64, last_px: i64) -> Self {
        let step = step(high.saturating_sub(low), ticks);
        let from = low / step * step;
        let to = high.div_ceil(step).saturating_mul(step).max(from.saturating_add(step));
        Self { from, to, first_px, last_px, step }
    }

    /// The pixel of a value; beyond the axis, that of its end.
    pub(super) fn px(&self, value: u64) -> i64 {
        let (span, length) = (self.to - self.from, self.last_px - self.first_px);
        let done = value.clamp(self.from, self.to) - self.from;
        let offset = i128::from(done) * i128::from(length) / i128::from(span.max(1));
        self.first_px + offset as i64 // No longer than `length`.
    }

    /// Values with a tick, ascending.
    pub(super) fn ticks(&self) -> impl Iterator<Item = u64> {
        let (from, to, step) = (self.from, self.to, self.step);
        (0..).map_while(move |n: u64| {
            from.checked_add(n.checked_mul(step)?).filter(|tick| *tick <= to)
        })
    }
}

/// The smallest 1, 2 or 5 times a power of ten that divides a span into at most `ticks`.
fn step(span: u64, ticks: u64) -> u64 {
    let least = span.div_ceil(ticks).max(1);
    let mut power: u64 = 1;
    while power.saturating_mul(5) < least {
        power = power.saturating_mul(10);
    }
    let fits = [1, 2, 5].map(|factor| power.saturating_mul(factor));
    fits.into_iter().find(|step| *step >= least).unwrap_or(u64::MAX)
}

/// Digits in groups of three.
pub(super) fn grouped(number: impl ToString) -> String {
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if fraction.is_empty() { out } else { format!("{out}.{fraction}") }
}

/// A number of things.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Msat as sat, for people.
pub(super) fn sat(msat: u64) -> String {
    grouped(msat_to_sat(msat))
}

/// The beginning of a label, where it is too long for its place. Counted as it is shown: an
/// escape takes several characters.
pub(super) fn cut(label: &str, chars: usize) -> String {
    let label = sanitise::line(label);
    if label.chars().count() <= chars {
        return label;
    }
    label.chars().take(chars.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_cut_as_they_are_shown() {
        assert_eq!(cut("plain", 5), "plain");
        assert_eq!(cut("longer", 5), "long…");
        let hostile = "\u{202e}\u{ffff}\0\x1b".repeat(4);
        assert_eq!(cut(&hostile, 14), "\\u{202e}\\u{ff…");
        assert_eq!(cut(&cut(&hostile, 80), 80), cut(&hostile, 80), "escaped once");
    }

    #[test]
    fn axes_end_at_ticks_and_hold_every_value() {
        let table: [(u64, u64, &[u64]); 5] = [
            (90, 120, &[90, 100, 110, 120]),
            (0, 7, &[0, 2, 4, 6, 8]),
            (5, 5, &[5, 6]),
            (1, 1_000_000_000_000, &[0, 500_000_000_000, 1_000_000_000_000]),
            (99_990, 100_010, &[99_990, 99_995, 100_000, 100_005, 100_010]),
        ];
        for (low, high, ticks) in table {
            let most = if high > 1_000_000 { 2 } else { 4 };
            let scale = Scale::new(low, high, most, 300, 100);
            assert_eq!(scale.ticks().collect::<Vec<_>>(), ticks, "{low} {high}");
            assert_eq!((scale.px(scale.from), scale.px(scale.to)), (300, 100));
            assert_eq!((scale.px(0).max(300), scale.px(u64::MAX)), (300, 100));
        }
        assert!(Scale::new(0, u64::MAX, 5, 0, 9).ticks().count() <= 7);
    }

    #[test]
    fn amounts_and_labels_are_short() {
        assert_eq!(sat(1_234_567_890), "1,234,567.89");
        assert_eq!((sat(100_500), sat(999)), ("100.5".to_owned(), "0.999".to_owned()));
        assert_eq!(
            (counted(1, "bid"), counted(2000, "ask")),
            ("1 bid".into(), "2,000 asks".into())
        );
        assert_eq!((cut("abcdef", 6), cut("äbcdefg", 6)), ("abcdef".into(), "äbcde…".into()));
    }
}
