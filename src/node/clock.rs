//! What a person is told of the clock of this machine.

use capex_core::engine::kernel::ClockCheck;

/// How far the clock is off, by whom, and what to do.
pub(super) fn words(clock: &ClockCheck) -> String {
    let mut parts = Vec::new();
    if clock.peers > 0 {
        let peers = match clock.peers {
            1 => "that of the one peer that told it".to_owned(),
            peers => format!("the median of {peers} peers"),
        };
        parts.push(format!("{} {peers}", apart(clock.offset_ms)));
    }
    match clock.from_chain_ms {
        Some(ms) if ms < 0 => parts.push(format!("{} the chain", apart(ms))),
        Some(ms) => parts.push(format!("{} the chain, or the chain source is old", apart(ms))),
        None => {}
    }
    format!("the clock of this machine is {}; set it by NTP", parts.join(" and "))
}

fn apart(ms: i64) -> String {
    let side = if ms < 0 { "behind" } else { "ahead of" };
    let size = match ms.unsigned_abs() {
        ms if ms < 60_000 => format!("{}.{:01} s", ms / 1000, ms % 1000 / 100),
        ms if ms < 2 * 3_600_000 => format!("{} min", ms / 60_000),
        ms if ms < 2 * 86_400_000 => format!("{} h", ms / 3_600_000),
        ms => format!("{} days", ms / 86_400_000),
    };
    format!("{size} {side}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_every_witness() {
        let day_ms = 86_400_000;
        let table = [
            (-400, 1, None, "0.4 s behind that of the one peer that told it"),
            (3_600_000, 6, None, "60 min ahead of the median of 6 peers"),
            (0, 0, Some(-3 * 3_600_000), "3 h behind the chain"),
            (
                365 * day_ms,
                2,
                Some(365 * day_ms),
                "365 days ahead of the median of 2 peers and 365 days ahead of the chain, or the \
                 chain source is old",
            ),
        ];
        for (offset_ms, peers, from_chain_ms, expected) in table {
            let clock = ClockCheck { offset_ms, peers, from_chain_ms, ..ClockCheck::default() };
            let whole = format!("the clock of this machine is {expected}; set it by NTP");
            assert_eq!(words(&clock), whole);
        }
    }
}
