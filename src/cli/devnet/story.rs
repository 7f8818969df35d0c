//! The story for people: one line per thing that happened, with the time since the start.

use std::borrow::Borrow;
use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use super::broken::Broken;
use crate::cli::sanitise;

/// Digits of an id in the story.
const ID_DIGITS: usize = 8;

/// Where the story is told.
pub(super) struct Story<'a> {
    out: &'a mut dyn Write,
    started: Instant,
}

impl<'a> Story<'a> {
    /// A story that begins now.
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, started: Instant::now() }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A line of the story.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn tell(&mut self, text: impl Display) -> Result<(), Broken> {
        let (seconds, tenths) = tenths(self.elapsed());
        self.line(format_args!("{seconds:>3}.{tenths} s  {text}"))
    }

    /// A line without a time.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), Broken> {
        writeln!(self.out, "{}", sanitise::line(&text.to_string()))?;
        Ok(self.out.flush()?)
    }

    /// Text of several lines, without a time.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub(super) fn paragraph(&mut self, text: &str) -> Result<(), Broken> {
        self.out.write_all(sanitise::paragraph(text).as_bytes())?;
        Ok(self.out.flush()?)
    }
}

fn tenths(time: Duration) -> (u64, u32) {
    (time.as_secs(), time.subsec_millis() / 100)
}

/// A time as `34.2`.
pub(super) fn seconds(time: Duration) -> String {
    let (seconds, tenths) = tenths(time);
    format!("{seconds}.{tenths}")
}

/// The beginning of an id.
pub(super) fn id(id: &str) -> String {
    id.chars().take(ID_DIGITS).collect()
}

/// A price as `4,321.5 sat`: its thousandths are msat.
pub(super) fn msat(amount: u64) -> String {
    let whole = crate::cli::output::sat(amount / 1000);
    let rest = format!("{:03}", amount % 1000);
    match rest.trim_end_matches('0') {
        "" => whole,
        digits => whole.replace(" sat", &format!(".{digits} sat")),
    }
}

/// `1 slot`, `2 slots`.
pub(in crate::cli) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `a, b and c`.
pub(super) fn list<S: Borrow<str>>(items: &[S]) -> String {
    match items {
        [] => String::new(),
        [only] => only.borrow().to_owned(),
        [first @ .., last] => format!("{} and {}", first.join(", "), last.borrow()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_counts_and_lists_read_well() {
        for (amount, text) in
            [(0, "0 sat"), (4_321_500, "4,321.5 sat"), (1, "0.001 sat"), (7_000, "7 sat")]
        {
            assert_eq!(msat(amount), text);
        }
        assert_eq!((count(1, "slot"), count(2, "slot")), ("1 slot".into(), "2 slots".into()));
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(seconds(Duration::from_millis(34_289)), "34.2");
    }
}
