//! By which names an open trade is found: scripts and outputs on the chain, transactions,
//! terms and fundings. What is indexed is what is watched, so that a trade that ends takes
//! its watches along.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, ScriptBuf, Txid};

use super::Party;
use crate::engine::io::Effect;
use crate::engine::kernel::Context;
use crate::ids::{FundingId, TermsHash};
use crate::settlement::facts::ChainFacts;

/// The names of one trade in one role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Names {
    pub(super) spks: BTreeSet<ScriptBuf>,
    /// Outputs whose spending is watched.
    pub(super) outpoints: BTreeSet<OutPoint>,
    /// Transactions seen or sent.
    pub(super) txids: BTreeSet<Txid>,
    pub(super) terms: BTreeSet<TermsHash>,
    /// What the wallet was asked to fund.
    pub(super) fundings: BTreeSet<FundingId>,
}

/// One kind of names.
#[derive(Debug)]
struct Parties<K>(BTreeMap<K, Vec<Party>>);

impl<K> Default for Parties<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Parties<K> {
    fn of(&self, name: &K) -> &[Party] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Moves a party from old names to new ones. Returns the names that it is the first to
    /// have, and those that nobody has any more.
    fn rename(&mut self, party: Party, old: &BTreeSet<K>, new: &BTreeSet<K>) -> (Vec<K>, Vec<K>) {
        let (mut first, mut gone) = (Vec::new(), Vec::new());
        for name in new.difference(old) {
            let parties = self.0.entry(name.clone()).or_default();
            if parties.is_empty() {
                first.push(name.clone());
            }
            parties.push(party);
        }
        for name in old.difference(new) {
            let Some(parties) = self.0.get_mut(name) else { continue };
            parties.retain(|other| *other != party);
            if parties.is_empty() {
                self.0.remove(name);
                gone.push(name.clone());
            }
        }
        (first, gone)
    }
}

/// Open trades by their names.
#[derive(Debug, Default)]
pub(super) struct Index {
    spks: Parties<ScriptBuf>,
    outpoints: Parties<OutPoint>,
    txids: Parties<Txid>,
    terms: Parties<TermsHash>,
    fundings: Parties<FundingId>,
}

impl Index {
    /// Gives a party new names in place of its old ones; watches what is new from a height
    /// on, or from now on, and unwatches what nobody needs any more.
    pub(super) fn rename(
        &mut self,
        ctx: &mut Context<'_>,
        party: Party,
        old: &Names,
        new: &Names,
        from_height: Option<u32>,
    ) {
        let (spks, lost_spks) = self.spks.rename(party, &old.spks, &new.spks);
        let (outpoints, lost) = self.outpoints.rename(party, &old.outpoints, &new.outpoints);
        self.txids.rename(party, &old.txids, &new.txids);
        self.terms.rename(party, &old.terms, &new.terms);
        self.fundings.rename(party, &old.fundings, &new.fundings);
        if !spks.is_empty() || !outpoints.is_empty() {
            ctx.out.push(Effect::Watch { spks, outpoints, from_height });
        }
        if !lost_spks.is_empty() || !lost.is_empty() {
            ctx.out.push(Effect::Unwatch { spks: lost_spks, outpoints: lost });
        }
    }

    /// Whom chain facts concern.
    pub(super) fn concerned(&self, facts: &ChainFacts) -> BTreeSet<Party> {
        let mut found: BTreeSet<Party> = BTreeSet::new();
        for txid in &facts.disconnected {
            found.extend(self.txids.of(txid));
        }
        for sighting in &facts.seen {
            found.extend(self.txids.of(&sighting.tx.txid()));
            for output in &sighting.tx.tx().output {
                found.extend(self.spks.of(&output.script_pubkey));
            }
            for input in &sighting.tx.tx().input {
                found.extend(self.outpoints.of(&input.previous_output));
            }
        }
        found
    }

    pub(super) fn by_txid(&self, txid: &Txid) -> Vec<Party> {
        self.txids.of(txid).to_vec()
    }

    pub(super) fn by_terms(&self, terms: &TermsHash) -> &[Party] {
        self.terms.of(terms)
    }

    pub(super) fn by_funding(&self, funding: &FundingId) -> Vec<Party> {
        self.fundings.of(funding).to_vec()
    }
}
