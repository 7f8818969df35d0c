//! What the API says and hears, as JSON. The only place that fixes these forms.
//!
//! Rules: `*_sat`, `*_msat`, heights, counts, slots, bytes and ms are
//! integers; `class` is a name; `units` is `[[first, end), …]` and `window` `[start, end)`;
//! `*_at` is unix ms; `elapsed_s` and `delivered_s` are decimal strings; ids are lower-case
//! hex. There is no floating point. Texts that came from other nodes are passed on as they
//! came: whoever shows them escapes them.

mod access;
mod certificates;
mod epochs;
mod explain;
mod leases;
mod matching;
mod node;
mod orders;
mod pools;
mod trades;
mod wallet;

pub use access::{AccessGrant, GrantAccess, OpenStream, StreamFor};
pub use certificates::*;
pub use epochs::*;
pub use explain::*;
pub use leases::*;
pub use matching::*;
pub use node::*;
pub use orders::*;
pub use pools::*;
pub use trades::*;
pub use wallet::*;

use serde::{Deserialize, Serialize};

use capex_core::units::{Units, Window};

/// Half-open range of slots, `[start, end]` in JSON.
pub type SlotRange = [u32; 2];
/// Half-open ranges of unit numbers.
pub type UnitRanges = Vec<[u32; 2]>;

/// A window as JSON.
#[must_use]
pub fn slot_range(window: Window) -> SlotRange {
    [window.start, window.end]
}

/// Unit numbers as JSON.
#[must_use]
pub fn unit_ranges(units: &Units) -> UnitRanges {
    units.ranges().iter().map(|range| [range.first, range.end]).collect()
}

/// Milliseconds as a decimal string of seconds without trailing zeros, as in `34.2`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A reason with its stable code, as in every refusal and warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub message: String,
}

/// Answer to a command that has nothing else to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Always true: a refusal is an error.
    pub ok: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_decimal_strings() {
        let table = [(0, "0"), (34_200, "34.2"), (1, "0.001"), (10_000, "10"), (12_340, "12.34")];
        for (ms, text) in table {
            assert_eq!(seconds(ms), text);
        }
    }
}
