//! Times and lengths of time as people write them.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a time or a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(String);

/// A moment: `now`, `+30s` from now, unix seconds, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// As soon as possible.
    Now,
    /// This long from now, ms.
    In(u64),
    /// Unix ms.
    At(u64),
}

impl Moment {
    /// Unix ms.
    #[must_use]
    pub fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Now => now_ms,
            Self::In(ms) => now_ms.saturating_add(ms),
            Self::At(ms) => ms,
        }
    }
}

impl FromStr for Moment {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        if text == "now" {
            return Ok(Self::Now);
        }
        if let Some(length) = text.strip_prefix('+') {
            return length_ms(length).map(Self::In);
        }
        if let Ok(seconds) = text.parse::<u32>() {
            return Ok(Self::At(u64::from(seconds) * 1000));
        }
        rfc3339_ms(text).map(Self::At).ok_or_else(|| {
            TimeError("expected now, +30s, unix seconds or 2026-01-31T12:00:00Z".to_owned())
        })
    }
}

/// A length of time: `2slots`, or `8s`, `30m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Slots of the network.
    Slots(u32),
    /// Milliseconds.
    Ms(u64),
}

impl Span {
    /// Whole slots; a length that is no multiple of the slot is refused, because rounding
    /// would change what is paid.
    ///
    /// # Errors
    /// Not a multiple, zero, or too long.
    pub fn slots(self, slot_s: u32) -> Result<u32, TimeError> {
        let slots = match self {
            Self::Slots(slots) => slots,
            Self::Ms(ms) => {
                let slot_ms = u64::from(slot_s.max(1)) * 1000;
                if ms % slot_ms != 0 {
                    let what = format!("not a whole number of slots: one is {slot_s}s here");
                    return Err(TimeError(what));
                }
                u32::try_from(ms / slot_ms).map_err(|_| TimeError("too long".to_owned()))?
            }
        };
        if slots == 0 { Err(TimeError("at least one slot".to_owned())) } else { Ok(slots) }
    }
}

impl FromStr for Span {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let slots = text.strip_suffix("slots").or_else(|| text.strip_suffix("slot"));
        match slots {
            Some(number) => number.trim().parse().map(Self::Slots).map_err(|_| span_error()),
            None => length_ms(text).map(Self::Ms),
        }
    }
}

fn span_error() -> TimeError {
    TimeError("expected a length of time such as 2slots, 500ms, 8s, 30m, 2h or 7d".to_owned())
}

/// Milliseconds of `500ms`, `8s`, `30m`, `2h`, `7d`.
///
/// # Errors
/// Not of this form, or too long.
pub fn length_ms(text: &str) -> Result<u64, TimeError> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(span_error)?;
    let (number, unit) = text.split_at(end);
    let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(span_error)?.1;
    let number: u64 = number.parse().map_err(|_| span_error())?;
    number.checked_mul(scale).ok_or_else(span_error)
}

/// A window of slots, `a..b`, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotWindow {
    /// First slot.
    pub start: u32,
    /// First slot after it.
    pub end: u32,
}

impl FromStr for SlotWindow {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let parsed = text.split_once("..").and_then(|(start, end)| {
            Some(Self { start: start.trim().parse().ok()?, end: end.trim().parse().ok()? })
        });
        match parsed {
            Some(window) if window.start < window.end => Ok(window),
            _ => Err(TimeError("expected slots such as 100..104, the end not included".to_owned())),
        }
    }
}

/// Unix ms of an RFC 3339 time with an offset.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|c| c.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let separator =
        |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|c| allowed.contains(c));
    let punctuated = separator(4, b"-")
        && separator(7, b"-")
        && separator(10, b"Tt ")
        && separator(13, b":")
        && separator(16, b":");
    if !punctuated {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let (fraction_ms, zone) = fraction(text.get(19..)?)?;
    let offset_s = offset(zone)?;
    let total_s =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    let ms = u64::try_from(total_s).ok()?.checked_mul(1000)?.checked_add(fraction_ms)?;
    valid.then_some(ms)
}

/// Milliseconds of `.123456`, and what follows.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(digits) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    let padded = format!("{:0<3}", &digits[..end]);
    (end > 0).then_some(())?;
    Some((padded[..3].parse().ok()?, &digits[end..]))
}

fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let part = |text: &str, below: i64| -> Option<i64> {
        let digits = text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse().ok())?.filter(|value| *value < below)
    };
    Some(sign * (part(hours, 24)? * 3600 + part(minutes, 60)? * 60))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible
/// low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Unix ms as `2026-01-31 12:00:00 UTC`.
#[must_use]
pub fn utc(ms: u64) -> String {
    Utc(ms / 1000).to_string()
}

struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400 + 719_468, self.0 % 86_400);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_parse() {
        let table = [
            ("now", Some(Moment::Now)),
            ("+30s", Some(Moment::In(30_000))),
            ("1700000000", Some(Moment::At(1_700_000_000_000))),
            ("1970-01-01T00:00:00Z", Some(Moment::At(0))),
            ("2024-02-29T12:30:45.5Z", Some(Moment::At(1_709_209_845_500))),
            ("2024-02-29T12:30:45+02:00", Some(Moment::At(1_709_202_645_000))),
            ("2023-02-29T12:30:45Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01T24:00:00Z", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01", None),
            ("1969-12-31T23:59:59Z", None),
            ("+30", None),
            ("soon", None),
            ("", None),
            ("2024-01-0éT00:00:00Z", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Moment>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn spans_are_whole_slots() {
        let table = [
            ("2slots", Some(2)),
            ("1slot", Some(1)),
            ("8s", Some(2)),
            ("1m", Some(15)),
            ("2h", Some(1800)),
            ("10s", None),
            ("0slots", None),
            ("0s", None),
            ("8", None),
            ("8 s", None),
            ("1w", None),
            ("99999999999999999d", None),
        ];
        for (text, expected) in table {
            let slots = text.parse::<Span>().and_then(|span| span.slots(4)).ok();
            assert_eq!(slots, expected, "{text}");
        }
    }

    #[test]
    fn windows_are_not_empty() {
        let window = SlotWindow { start: 100, end: 104 };
        assert_eq!("100..104".parse(), Ok(window));
        for bad in ["104..104", "104..100", "a..b", "100", "-1..4", "1..4294967296"] {
            assert!(bad.parse::<SlotWindow>().is_err(), "{bad}");
        }
    }

    #[test]
    fn utc_is_the_inverse_of_rfc_3339() {
        for text in ["1970-01-01", "2000-02-29", "2026-11-22", "2100-03-01", "1999-12-31"] {
            let ms = rfc3339_ms(&format!("{text}T23:59:58Z")).unwrap();
            assert_eq!(utc(ms), format!("{text} 23:59:58 UTC"));
        }
    }
}
