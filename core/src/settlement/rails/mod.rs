//! How a trade is paid for. A rail turns signed terms into something that one side can pay
//! and the other can take only by revealing the preimage of the terms' payment hash; what
//! has been paid and revealed it reports as [`Facts`](chain::facts::Facts).
//!
//! The terms name their rail by `template`. A rail without contracts on the chain (an
//! invoice over the same payment hash) is a further variant of [`Rail`].

pub mod chain;

use std::collections::BTreeSet;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{Secp256k1, Verification};

use self::chain::script::{Contract, ScriptError, TEMPLATE};
use super::objects::Terms;
use crate::ids::TermsHash;

/// The rail of one trade, recomputed from its terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rail {
    /// One contract for each funder, in the order of the terms.
    Chain(Vec<Contract>),
}

impl Rail {
    /// Recomputes the rail from signed terms.
    ///
    /// # Errors
    /// [`ScriptError`]: a template that this node does not know, no funder, or keys without
    /// an address.
    pub fn of<C: Verification>(
        secp: &Secp256k1<C>,
        terms: &Terms,
        hash: TermsHash,
    ) -> Result<Self, ScriptError> {
        match terms.template {
            TEMPLATE if terms.funders.is_empty() => Err(ScriptError::Funder),
            TEMPLATE => {
                let funders = 0..terms.funders.len();
                let contracts = funders.map(|funder| Contract::new(secp, terms, hash, funder));
                let contracts = contracts.collect::<Result<Vec<_>, _>>()?;
                // One output would pay two contracts of the same script.
                let spks: BTreeSet<&ScriptBuf> = contracts.iter().map(|c| &c.spk).collect();
                if spks.len() < contracts.len() {
                    return Err(ScriptError::Key);
                }
                Ok(Self::Chain(contracts))
            }
            _ => Err(ScriptError::Template),
        }
    }

    /// Its contracts on the chain.
    #[must_use]
    pub fn contracts(&self) -> &[Contract] {
        match self {
            Self::Chain(contracts) => contracts,
        }
    }

    /// Scripts of its contracts.
    pub fn spks(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.contracts().iter().map(|contract| &contract.spk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::sample;

    #[test]
    fn terms_have_a_contract_for_each_funder() {
        let secp = Secp256k1::new();
        let of = |terms: &Terms| Rail::of(&secp, terms, TermsHash([7; 32]));
        let one = sample::terms(800);
        assert_eq!(of(&one).unwrap().contracts().len(), 1);
        let two = sample::two_funders(800);
        let rail = of(&two).unwrap();
        let amounts: Vec<u64> = rail.contracts().iter().map(|c| c.amount_sat).collect();
        assert_eq!(amounts, [600_000, 400_000]);
        assert_ne!(rail.contracts()[0].spk, rail.contracts()[1].spk);
        // Two funders with one refund key would share one output.
        let mut same = two;
        same.funders[1].refund_xonly = same.funders[0].refund_xonly;
        assert_eq!(of(&same), Err(ScriptError::Key));
        let mut nobody = one.clone();
        nobody.funders.clear();
        assert_eq!(of(&nobody), Err(ScriptError::Funder));
        let mut other = one;
        other.template = 2;
        assert_eq!(of(&other), Err(ScriptError::Template));
    }
}
