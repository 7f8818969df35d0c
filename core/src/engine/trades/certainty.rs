//! Whether the absence of a chain fact means something. After a restart it does not until
//! the rescan has come through.

use bitcoin::Txid;

use crate::settlement::facts::{Change, Facts};

/// How far the chain facts of one trade can be relied on.
#[derive(Debug, Default)]
pub(super) enum Certainty {
    /// Facts have come without a gap since the trade was opened.
    #[default]
    Sure,
    /// After a restart: the record's facts wait for the rescan to confirm them.
    Rescanning {
        /// Tip at the first facts of this life.
        first_tip: Option<u32>,
        /// Transactions seen in a block in this life: at most four for each contract.
        found: Vec<Txid>,
    },
}

impl Certainty {
    /// Of a trade that a restart brought back.
    pub(super) fn resumed() -> Self {
        Self::Rescanning { first_tip: None, found: Vec::new() }
    }

    pub(super) fn is_sure(&self) -> bool {
        matches!(self, Self::Sure)
    }

    /// After new facts: a rescan that saw the funding in its block has come through; one that
    /// has not by the second tip has nothing to show. Heights that it did not find again are
    /// forgotten. Returns whether the facts changed by that.
    pub(super) fn learn(&mut self, facts: &mut Facts, change: &Change, tip: u32) -> bool {
        let Self::Rescanning { first_tip, found } = self else { return false };
        for txid in &change.confirmed {
            if !found.contains(txid) {
                found.push(*txid);
            }
        }
        if !change.confirmed_fund && *first_tip.get_or_insert(tip) == tip {
            return false;
        }
        let changed = facts.forget_heights_but(found);
        *self = Self::Sure;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed_fund() -> Change {
        Change { any: true, confirmed_fund: true, confirmed: Vec::new() }
    }

    #[test]
    fn after_a_restart_only_the_rescan_or_a_second_tip_makes_sure() {
        let mut facts = Facts::none(1);
        assert!(Certainty::default().is_sure());
        let mut resumed = Certainty::resumed();
        for _ in 0..3 {
            assert!(!resumed.is_sure());
            resumed.learn(&mut facts, &Change::default(), 800);
        }
        resumed.learn(&mut facts, &Change::default(), 801);
        assert!(resumed.is_sure());
        let mut resumed = Certainty::resumed();
        resumed.learn(&mut facts, &confirmed_fund(), 800);
        assert!(resumed.is_sure());
    }
}
