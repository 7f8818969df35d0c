//! What a buyer has to do with others who pay a part of the price.

use super::{Buyer, Payment, Signed, State};
use crate::ids::Key;

impl Signed {
    /// Whether every funder has signed.
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        self.accepts.len() == self.agreement.terms().funders.len()
    }
}

impl State {
    /// Terms that wait for the consents of others, for the lock, or for the wallet.
    #[must_use]
    pub fn signed(&self) -> Option<&Signed> {
        match self {
            Self::TermsSigned(signed)
            | Self::Locked { signed, .. }
            | Self::Funding { signed, .. } => Some(signed),
            Self::Draft { .. } | Self::Paying { .. } | Self::Aborted { .. } => None,
        }
    }
}

impl Buyer {
    /// What this node pays of the price, sat.
    #[must_use]
    pub fn share_sat(&self) -> u64 {
        let others = self.partners.iter().map(|funder| funder.amount_sat);
        self.row.price_sat().saturating_sub(others.fold(0, u64::saturating_add))
    }

    /// Partners whose contract was never funded.
    pub fn who_did_not_pay(&self) -> impl Iterator<Item = Key> {
        let unfunded = self.state.payment().into_iter().flat_map(Payment::unfunded);
        unfunded.filter(|key| self.partners.iter().any(|partner| partner.key == *key))
    }
}

impl Payment {
    fn unfunded(&self) -> impl Iterator<Item = Key> {
        let funders = self.signed.agreement.terms().funders.iter().zip(self.facts.contracts());
        funders.filter(|(_, facts)| facts.was_never_funded()).map(|(funder, _)| funder.key)
    }
}
