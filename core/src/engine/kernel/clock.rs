//! Whether the own clock can be right, by what peers and the chain say.

use super::context::ChainView;
use crate::params::Params;
use crate::units::TimeMs;

/// Peers whose median alone is believed against the own clock: fewer may be liars together.
const PEERS_TO_JUDGE: u16 = 5;
/// Peers whose median corrects what is told of the own time, where nothing else follows from it:
/// with fewer the one that lies may be the median.
const PEERS_TO_CORRECT: u16 = 3;
/// A chain block may be this far in the future of those who accept it, and the median of
/// eleven is behind the last: a clock behind that median by more is wrong.
const CHAIN_AHEAD_MAX_MS: u64 = 2 * 3_600_000;
/// The median of eleven chain blocks is an hour old, or several when luck is bad. A day is
/// either a clock that is ahead or a source that is old.
const CHAIN_BEHIND_MAX_MS: u64 = 24 * 3_600_000;

/// What is to be thought of the own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClockState {
    /// Nobody contradicts it.
    #[default]
    Right,
    /// Somebody does, who may be wrong: the operator is told.
    Doubtful,
    /// It is wrong: nothing is signed by it.
    Off,
}

/// The own clock beside those of others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockCheck {
    pub state: ClockState,
    /// Own time minus that of the median peer, ms.
    pub offset_ms: i64,
    /// Peers that told theirs.
    pub peers: u16,
    /// Own time minus the chain's median time, where they are too far apart, ms.
    pub from_chain_ms: Option<i64>,
}

impl ClockCheck {
    /// Judges by the median offset of some peers and by the chain.
    #[must_use]
    pub fn new(
        now_ms: TimeMs,
        (offset_ms, peers): (i64, u16),
        chain: &ChainView,
        params: &Params,
    ) -> Self {
        let differs = peers > 0 && offset_ms.unsigned_abs() > params.clock_tolerance_ms();
        let from_chain_ms = far_from_chain(now_ms, chain);
        let is_behind_chain = from_chain_ms.is_some_and(|ms| ms < 0);
        // Two witnesses of different kind that say the same.
        let is_ahead_of_both = differs && offset_ms > 0 && from_chain_ms.is_some_and(|ms| ms > 0);
        let state = if differs && peers >= PEERS_TO_JUDGE || is_behind_chain || is_ahead_of_both {
            ClockState::Off
        } else if differs || from_chain_ms.is_some() {
            ClockState::Doubtful
        } else {
            ClockState::Right
        };
        Self { state, offset_ms, peers, from_chain_ms }
    }

    /// The time as others have it, unix ms: what they judge a signed time by. The own one, unless
    /// the median of three peers is far from it.
    #[must_use]
    pub fn shared_ms(&self, now_ms: TimeMs) -> TimeMs {
        let is_off = self.state != ClockState::Right && self.peers >= PEERS_TO_CORRECT;
        if is_off { now_ms.saturating_add_signed(-self.offset_ms) } else { now_ms }
    }

    /// Whether something that cannot be undone, such as an order that has expired, has to wait.
    #[must_use]
    pub fn may_be_ahead(&self) -> bool {
        self.state == ClockState::Off || self.from_chain_ms.is_some()
    }
}

fn far_from_chain(now_ms: TimeMs, chain: &ChainView) -> Option<i64> {
    let median_ms = u64::from(chain.median_time_past_s).saturating_mul(1000);
    if median_ms == 0 {
        return None;
    }
    let signed = |apart_ms: u64| i64::try_from(apart_ms).unwrap_or(i64::MAX);
    let behind_ms = median_ms.saturating_sub(now_ms);
    if behind_ms > CHAIN_AHEAD_MAX_MS {
        return Some(-signed(behind_ms));
    }
    // What was heard last says nothing while the source is away.
    let ahead_ms = now_ms.saturating_sub(median_ms);
    (chain.up && ahead_ms > CHAIN_BEHIND_MAX_MS).then_some(signed(ahead_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::devnet;

    #[test]
    fn one_peer_makes_doubt_and_two_kinds_of_witness_make_certainty() {
        const HOUR_MS: i64 = 3_600_000;
        let median_s = 1_800_000_000;
        let params = devnet();
        let table = [
            // Own clock from the chain's median, offset from peers, peers: state.
            (0, 0, 0, ClockState::Right),
            (HOUR_MS, 0, 5, ClockState::Right),
            (HOUR_MS, 149, 5, ClockState::Right),
            (HOUR_MS, 400, 1, ClockState::Doubtful),
            (HOUR_MS, -400, 4, ClockState::Doubtful),
            (HOUR_MS, -400, 5, ClockState::Off),
            (-2 * HOUR_MS, 0, 0, ClockState::Right),
            (-2 * HOUR_MS - 1, 0, 0, ClockState::Off),
            (24 * HOUR_MS, 0, 0, ClockState::Right),
            (24 * HOUR_MS + 1, 0, 3, ClockState::Doubtful),
            (24 * HOUR_MS + 1, 400, 1, ClockState::Off),
            (24 * HOUR_MS + 1, -400, 1, ClockState::Doubtful),
        ];
        for (from_chain_ms, offset_ms, peers, state) in table {
            let chain = ChainView { up: true, median_time_past_s: median_s, ..Default::default() };
            let now_ms = (u64::from(median_s) * 1000).saturating_add_signed(from_chain_ms);
            let found = ClockCheck::new(now_ms, (offset_ms, peers), &chain, &params);
            assert_eq!(found.state, state, "{from_chain_ms} {offset_ms} {peers}");
        }
    }

    #[test]
    fn a_source_that_is_away_or_unknown_is_no_witness_of_a_clock_ahead() {
        let now_ms = 1_900_000_000_000;
        for (up, median_time_past_s) in [(false, 1_800_000_000), (true, 0)] {
            let chain = ChainView { up, median_time_past_s, ..Default::default() };
            let found = ClockCheck::new(now_ms, (0, 0), &chain, &devnet());
            assert_eq!(found, ClockCheck::default());
        }
    }
}
