//! What the chain says about the contracts of one trade. Facts decide the state of a
//! settlement; records only remember the last facts and what this node intends.

use bitcoin::{OutPoint, Transaction, TxIn, Txid};
use serde::{Deserialize, Serialize};

use super::script::Contract;
use super::timelock::depth;
use super::transaction::{Holding, KnownTx, SpendKind, contract_vout, spend_of};

/// A transaction that was seen in a block or in a mempool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub tx: KnownTx,
    /// Its block; `None` while it waits.
    pub height: Option<u32>,
}

/// Chain facts since the last input, already cut to what the engine watches. The blocks in
/// `disconnected` left the chain before anything in `seen` was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainFacts {
    pub height: u32,
    /// Median time past, unix s.
    pub median_time_past_s: u32,
    /// (target in chain blocks, sat per 1,000 vB), ascending by target.
    pub feerates: Vec<(u16, u64)>,
    /// Under it a mempool takes nothing, sat per 1,000 vB.
    pub least_feerate_sat_kvb: u64,
    /// Relevant transactions whose block left the chain.
    pub disconnected: Vec<Txid>,
    /// Relevant transactions: those of new blocks in their order, then those that wait.
    pub seen: Vec<Sighting>,
}

/// The funding of a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundFact {
    pub tx: KnownTx,
    /// Its output that pays the contract.
    pub vout: u32,
    pub standing: Standing,
    /// Block, if confirmed.
    pub height: Option<u32>,
    /// Whether it ever stood in a block, also of a branch that was left: from then on the
    /// preimage may be public, and the funding may come back.
    pub was_confirmed: bool,
}

/// What the own chain source says of a funding. Its buyer knows it before; what a peer only
/// says of it counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has not been asked.
    Shown,
    /// It has been handed the funding, and has not answered.
    Offered,
    /// It was handed the funding again without having answered, or could not say: the funding
    /// may be on its way from mempool to mempool, whatever the source answers later.
    Unanswered,
    /// It did not take the funding, each time that it was asked.
    Refused,
    /// It accepted the funding, or showed it in a mempool or block.
    Seen,
}

impl Standing {
    /// Whether the funding may have left this node without its source having said so.
    #[must_use]
    pub fn is_undecided(self) -> bool {
        matches!(self, Self::Offered | Self::Unanswered)
    }
}

impl FundFact {
    /// Whether the own chain source knows it.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.standing == Standing::Seen
    }

    /// Its id.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.tx.txid()
    }

    /// The contract's output.
    #[must_use]
    pub fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.txid(), vout: self.vout }
    }

    /// Outputs that it spends.
    pub fn inputs(&self) -> impl Iterator<Item = OutPoint> {
        self.tx.tx().input.iter().map(|input| input.previous_output)
    }

    /// Value of the contract's output, sat.
    #[must_use]
    pub fn value_sat(&self) -> u64 {
        let output = usize::try_from(self.vout).ok();
        let output = output.and_then(|vout| self.tx.tx().output.get(vout));
        output.map_or(0, |out| out.value.to_sat())
    }

    /// The contract as it stands on the chain.
    #[must_use]
    pub fn holding<'a>(&self, contract: &'a Contract) -> Holding<'a> {
        Holding { contract, outpoint: self.outpoint(), value_sat: self.value_sat() }
    }
}

/// A transaction that spends the contract, or an input of its funding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendFact {
    pub txid: Txid,
    pub vin: u32,
    /// Size, vB.
    pub vsize: u64,
    /// Contract value that does not reach its outputs, sat: its fee, if it has one input.
    pub fee_sat: u64,
    /// How many inputs it has.
    pub inputs: u32,
    /// What its outputs hold, sat.
    pub output_sat: u64,
    /// Block, if confirmed.
    pub height: Option<u32>,
}

/// All that is known of one contract.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContractFacts {
    pub fund: Option<FundFact>,
    /// The seller's spend with its preimage.
    pub claim: Option<(SpendFact, [u8; 32])>,
    /// The funder's spend.
    pub refund: Option<SpendFact>,
    /// The spend by key path: the buyer has handed its key over, and the seller has used it.
    pub taken: Option<SpendFact>,
    /// A transaction that is not the funding and spends one of its inputs.
    pub conflict: Option<SpendFact>,
}

/// All that is known of a trade's contracts, one for each funder in the order of the terms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    contracts: Vec<ContractFacts>,
    /// Coins of fundings whose loss ends them here. Empty: any. Of a funding that others pay a part
    /// of, the coins of another can be replaced, and only the own ones not.
    coins: Vec<OutPoint>,
}

/// What new chain facts changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Anything at all: the record must be written.
    pub any: bool,
    /// A funding stood in a block of these facts.
    pub confirmed_fund: bool,
    /// Known transactions that stood in a block of these facts.
    pub confirmed: Vec<Txid>,
}

impl SpendFact {
    /// Its fee, sat, if nobody else's contract is spent with it.
    #[must_use]
    pub fn known_fee_sat(&self) -> Option<u64> {
        (self.inputs == 1).then_some(self.fee_sat)
    }
}

impl ContractFacts {
    /// Confirmations of the funding.
    #[must_use]
    pub fn fund_depth(&self, tip: u32) -> u32 {
        depth_of(self.fund_height(), tip)
    }

    /// Whether no funding of it ever stood in a block.
    #[must_use]
    pub fn was_never_funded(&self) -> bool {
        self.fund.as_ref().is_none_or(|fund| !fund.was_confirmed)
    }

    /// Block of the funding.
    #[must_use]
    pub fn fund_height(&self) -> Option<u32> {
        self.fund.as_ref().and_then(|fund| fund.height)
    }

    /// Confirmations of the claim.
    #[must_use]
    pub fn claim_depth(&self, tip: u32) -> u32 {
        depth_of(self.claim.and_then(|(spend, _)| spend.height), tip)
    }

    /// Confirmations of the spend by key path.
    #[must_use]
    pub fn taken_depth(&self, tip: u32) -> u32 {
        depth_of(self.taken.and_then(|spend| spend.height), tip)
    }

    /// Confirmations of a spend that pays the seller.
    #[must_use]
    pub fn paid_depth(&self, tip: u32) -> u32 {
        self.claim_depth(tip).max(self.taken_depth(tip))
    }

    /// The spend that pays the seller: one in a block before one that waits.
    #[must_use]
    pub fn paid(&self) -> Option<SpendFact> {
        let claim = self.claim.map(|(spend, _)| spend);
        let known = [claim, self.taken].into_iter().flatten();
        known.min_by_key(|spend| spend.height.unwrap_or(u32::MAX))
    }

    /// Confirmations of the refund.
    #[must_use]
    pub fn refund_depth(&self, tip: u32) -> u32 {
        depth_of(self.refund.and_then(|spend| spend.height), tip)
    }

    /// Confirmations of a transaction that makes the funding impossible.
    #[must_use]
    pub fn conflict_depth(&self, tip: u32) -> u32 {
        let conflict = self.conflict.filter(|_| self.fund_height().is_none());
        depth_of(conflict.and_then(|spend| spend.height), tip)
    }

    /// Ids of every transaction that is known of it.
    pub fn txids(&self) -> impl Iterator<Item = Txid> {
        let claim = self.claim.map(|(spend, _)| spend);
        let spends = [claim, self.refund, self.taken, self.conflict].into_iter().flatten();
        self.fund.iter().map(FundFact::txid).chain(spends.map(|spend| spend.txid))
    }

    fn for_heights(&mut self, mut apply: impl FnMut(Txid, &mut Option<u32>)) {
        if let Some(fund) = &mut self.fund {
            apply(fund.txid(), &mut fund.height);
        }
        let claim = self.claim.as_mut().map(|(spend, _)| spend);
        let [refund, taken] = [self.refund.as_mut(), self.taken.as_mut()];
        for spend in [claim, refund, taken, self.conflict.as_mut()].into_iter().flatten() {
            apply(spend.txid, &mut spend.height);
        }
    }

    /// Applies sightings: fundings first, since one update may hold both a funding and its
    /// spend in any order of blocks.
    fn see(
        &mut self,
        contract: &Contract,
        coins: &[OutPoint],
        seen: &[Sighting],
        change: &mut Change,
    ) {
        for sighting in seen {
            self.see_fund(contract, sighting, change);
        }
        for sighting in seen {
            self.see_spend(contract, coins, sighting);
        }
    }

    fn see_fund(&mut self, contract: &Contract, sighting: &Sighting, change: &mut Change) {
        let Sighting { tx, height } = sighting;
        if let Some(fund) = self.fund.as_mut().filter(|fund| fund.txid() == tx.txid()) {
            fund.standing = Standing::Seen;
            fund.height = height.or(fund.height);
            fund.was_confirmed |= height.is_some();
            if fund.tx != *tx {
                // The id says nothing of the witness: the peer's copy may have a broken one, that
                // of a wallet without keys has none, and this node may have to send it again.
                fund.tx = tx.clone();
            }
            change.confirmed_fund |= height.is_some();
            return;
        }
        let Some(vout) = contract_vout(tx.tx(), contract) else { return };
        // Another payment to the address counts only in place of an unconfirmed one, and
        // only once it is in a block itself.
        let replaces = match &self.fund {
            None => true,
            Some(fund) => fund.height.is_none() && height.is_some(),
        };
        if replaces {
            let (height, was_confirmed) = (*height, height.is_some());
            let standing = Standing::Seen;
            self.fund = Some(FundFact { tx: tx.clone(), vout, standing, height, was_confirmed });
            // One that took the former's place was in conflict with it until now.
            self.conflict = self.conflict.filter(|conflict| conflict.txid != tx.txid());
            change.confirmed_fund |= height.is_some();
        }
    }

    fn see_spend(&mut self, contract: &Contract, coins: &[OutPoint], sighting: &Sighting) {
        let Some(fund) = &self.fund else { return };
        let (tx, txid) = (sighting.tx.tx(), sighting.tx.txid());
        let fact = |vin: u32| SpendFact {
            txid,
            vin,
            vsize: tx.vsize() as u64,
            fee_sat: fund.value_sat().saturating_sub(output_sat(tx)),
            inputs: u32::try_from(tx.input.len()).unwrap_or(u32::MAX),
            output_sat: output_sat(tx),
            height: sighting.height,
        };
        if let Some((vin, kind)) = spend_of(tx, fund.outpoint(), contract) {
            let fact = fact(vin);
            match kind {
                SpendKind::Claim(x) => {
                    if newer(self.claim.map(|(spend, _)| spend), &fact) {
                        self.claim = Some((fact, x));
                    }
                }
                SpendKind::Refund if newer(self.refund, &fact) => self.refund = Some(fact),
                SpendKind::Taken if newer(self.taken, &fact) => self.taken = Some(fact),
                SpendKind::Refund | SpendKind::Taken | SpendKind::Other => {}
            }
        } else if txid != fund.txid() {
            let counts = |coin: OutPoint| coins.is_empty() || coins.contains(&coin);
            let shares = |input: &TxIn| {
                let spent = input.previous_output;
                counts(spent) && fund.inputs().any(|own| own == spent)
            };
            if tx.input.iter().any(shares) {
                let fact = SpendFact { fee_sat: 0, ..fact(0) };
                if newer(self.conflict, &fact) {
                    self.conflict = Some(fact);
                }
            }
        }
    }
}

impl Facts {
    /// Nothing is known yet of so many contracts.
    #[must_use]
    pub fn none(contracts: usize) -> Self {
        Self { contracts: vec![ContractFacts::default(); contracts], coins: Vec::new() }
    }

    /// The same, where these coins alone are this node's.
    #[must_use]
    pub fn of_coins(self, coins: Vec<OutPoint>) -> Self {
        Self { coins, ..self }
    }

    /// Coins whose loss alone ends a funding; none if that of any does.
    #[must_use]
    pub fn coins(&self) -> &[OutPoint] {
        &self.coins
    }

    /// The signatures of a funding are complete.
    pub fn complete(&mut self, whole: &KnownTx) {
        for fund in self.contracts.iter_mut().filter_map(|contract| contract.fund.as_mut()) {
            if fund.txid() == whole.txid() {
                fund.tx = whole.clone();
            }
        }
    }

    /// Of contracts in the order of the terms.
    #[must_use]
    pub fn new(contracts: Vec<ContractFacts>) -> Self {
        Self { contracts, coins: Vec::new() }
    }

    /// What is known of each contract.
    #[must_use]
    pub fn contracts(&self) -> &[ContractFacts] {
        &self.contracts
    }

    /// Notes a funding that nobody has seen yet for every contract that it pays and that has
    /// none, or none that was ever seen. Returns how many contracts it pays.
    pub fn fund(&mut self, contracts: &[Contract], tx: &KnownTx) -> usize {
        let mut paid = 0;
        for (facts, contract) in self.contracts.iter_mut().zip(contracts) {
            let Some(vout) = contract_vout(tx.tx(), contract) else { continue };
            paid += 1;
            if facts.fund.as_ref().is_none_or(|fund| !fund.is_seen()) {
                let (tx, standing, was_confirmed) = (tx.clone(), Standing::Shown, false);
                facts.fund = Some(FundFact { tx, vout, standing, height: None, was_confirmed });
            }
        }
        paid
    }

    /// Another form of a funding takes its place for every contract that it pays, unless one is
    /// in a block.
    pub fn replace_fund(&mut self, contracts: &[Contract], tx: &KnownTx) {
        for (facts, contract) in self.contracts.iter_mut().zip(contracts) {
            if facts.fund_height().is_none() && contract_vout(tx.tx(), contract).is_some() {
                facts.fund = None;
            }
        }
        self.fund(contracts, tx);
    }

    /// Notes that the fundings that wait are about to be handed to the own chain source. Returns
    /// whether that is to be remembered.
    pub fn offer(&mut self) -> bool {
        let mut news = false;
        for fund in self.contracts.iter_mut().filter_map(|contract| contract.fund.as_mut()) {
            let offered = match fund.standing {
                Standing::Shown | Standing::Refused => Standing::Offered,
                Standing::Offered => Standing::Unanswered,
                kept @ (Standing::Unanswered | Standing::Seen) => kept,
            };
            news |= std::mem::replace(&mut fund.standing, offered) != offered;
        }
        news
    }

    /// Notes what the own chain source answered when it was handed a transaction: whether it
    /// took it, if it could say. Returns whether that is news.
    pub fn answered(&mut self, txid: Txid, took: Option<bool>) -> bool {
        let mut news = false;
        for fund in self.contracts.iter_mut().filter_map(|contract| contract.fund.as_mut()) {
            if fund.txid() != txid {
                continue;
            }
            let known = match (fund.standing, took) {
                (_, Some(true)) => Standing::Seen,
                (Standing::Offered, Some(false)) => Standing::Refused,
                (Standing::Offered, None) => Standing::Unanswered,
                (kept, _) => kept,
            };
            news |= std::mem::replace(&mut fund.standing, known) != known;
        }
        news
    }

    /// What the own chain source says of a funding.
    #[must_use]
    pub fn standing(&self, txid: Txid) -> Option<Standing> {
        let mut funds = self.contracts.iter().filter_map(|contract| contract.fund.as_ref());
        funds.find(|fund| fund.txid() == txid).map(|fund| fund.standing)
    }

    fn any_fund(&self, is: impl Fn(Standing) -> bool) -> bool {
        let mut funds = self.contracts.iter().filter_map(|contract| contract.fund.as_ref());
        funds.any(|fund| is(fund.standing))
    }

    /// Whether a funding of any contract is known to the own chain source.
    #[must_use]
    pub fn any_funding(&self) -> bool {
        self.any_fund(|standing| standing == Standing::Seen)
    }

    /// Whether a funding was shown that the own chain source has not accepted yet.
    #[must_use]
    pub fn any_unseen(&self) -> bool {
        self.any_fund(|standing| standing != Standing::Seen)
    }

    /// Whether a funding may have left this node without its source having said so.
    #[must_use]
    pub fn any_undecided(&self) -> bool {
        self.any_fund(Standing::is_undecided)
    }

    /// Whether the own chain source has been handed a funding and may still answer.
    #[must_use]
    pub fn any_offered(&self) -> bool {
        self.any_fund(|standing| standing == Standing::Offered)
    }

    /// Whether a funding of any contract is in a block.
    #[must_use]
    pub fn any_confirmed(&self) -> bool {
        self.contracts.iter().any(|contract| contract.fund_height().is_some())
    }

    /// Whether a funding of any contract ever stood in a block.
    #[must_use]
    pub fn any_was_confirmed(&self) -> bool {
        let funds = self.contracts.iter().filter_map(|contract| contract.fund.as_ref());
        funds.into_iter().any(|fund| fund.was_confirmed)
    }

    /// Confirmations of the youngest funding; 0 unless every contract is funded.
    #[must_use]
    pub fn fund_depth(&self, tip: u32) -> u32 {
        self.contracts.iter().map(|contract| contract.fund_depth(tip)).min().unwrap_or(0)
    }

    /// The claim that came first, with its preimage: all claims reveal the same one.
    #[must_use]
    pub fn claim(&self) -> Option<(SpendFact, [u8; 32])> {
        let claims = self.contracts.iter().filter_map(|contract| contract.claim);
        claims.min_by_key(|(spend, _)| spend.height.unwrap_or(u32::MAX))
    }

    /// Confirmations of the first claim. One that takes a part of the price has sold: the
    /// preimage opens every other contract too.
    #[must_use]
    pub fn claim_depth(&self, tip: u32) -> u32 {
        self.contracts.iter().map(|contract| contract.claim_depth(tip)).max().unwrap_or(0)
    }

    /// Confirmations of the first spend that pays the seller.
    #[must_use]
    pub fn paid_depth(&self, tip: u32) -> u32 {
        self.contracts.iter().map(|contract| contract.paid_depth(tip)).max().unwrap_or(0)
    }

    /// The spend that pays the seller and came first.
    #[must_use]
    pub fn paid(&self) -> Option<SpendFact> {
        let paid = self.contracts.iter().filter_map(ContractFacts::paid);
        paid.min_by_key(|spend| spend.height.unwrap_or(u32::MAX))
    }

    /// The spend by key path that came first.
    #[must_use]
    pub fn taken(&self) -> Option<SpendFact> {
        let taken = self.contracts.iter().filter_map(|contract| contract.taken);
        taken.min_by_key(|spend| spend.height.unwrap_or(u32::MAX))
    }

    /// Confirmations of the first spend by key path.
    #[must_use]
    pub fn taken_depth(&self, tip: u32) -> u32 {
        self.contracts.iter().map(|contract| contract.taken_depth(tip)).max().unwrap_or(0)
    }

    /// Whether a refund was ever seen, in a block or not.
    #[must_use]
    pub fn any_refund(&self) -> bool {
        self.contracts.iter().any(|contract| contract.refund.is_some())
    }

    /// Whether every contract that was funded has been spent, `deep` confirmations ago.
    #[must_use]
    pub fn is_spent(&self, tip: u32, deep: u32) -> bool {
        let spent = |contract: &ContractFacts| {
            contract.fund.as_ref().is_none_or(|fund| !fund.is_seen())
                || contract.paid_depth(tip) >= deep
                || contract.refund_depth(tip) >= deep
        };
        self.any_funding() && self.contracts.iter().all(spent)
    }

    /// The refund of a trade of which every confirmed funding went back, `deep`
    /// confirmations ago.
    #[must_use]
    pub fn refund(&self, tip: u32, deep: u32) -> Option<Txid> {
        let confirmed = |contract: &&ContractFacts| {
            contract.fund_height().is_some() || contract.refund.is_some()
        };
        let mut funded = self.contracts.iter().filter(confirmed).peekable();
        let first = funded.peek().and_then(|contract| contract.refund)?;
        funded.all(|contract| contract.refund_depth(tip) >= deep).then_some(first.txid)
    }

    /// The transaction that makes a funding impossible, if every funding that is known has
    /// one, `deep` confirmations ago.
    #[must_use]
    pub fn conflict(&self, tip: u32, deep: u32) -> Option<Txid> {
        let mut funded =
            self.contracts.iter().filter(|contract| contract.fund.is_some()).peekable();
        let first = funded.peek().and_then(|contract| contract.conflict)?;
        funded.all(|contract| contract.conflict_depth(tip) >= deep).then_some(first.txid)
    }

    /// Fundings that are not in a block, each transaction once.
    #[must_use]
    pub fn waiting_fundings(&self) -> Vec<&KnownTx> {
        let fundings = self.contracts.iter().filter_map(|contract| contract.fund.as_ref());
        let mut waiting: Vec<&KnownTx> = Vec::new();
        for fund in fundings.filter(|fund| fund.height.is_none()) {
            if waiting.iter().all(|known| known.txid() != fund.txid()) {
                waiting.push(&fund.tx);
            }
        }
        waiting
    }

    /// Forgets the blocks of all but these: after a restart whose rescan did not find them
    /// again. Returns whether that changed anything.
    pub fn forget_heights_but(&mut self, found: &[Txid]) -> bool {
        let mut changed = false;
        for contract in &mut self.contracts {
            contract.for_heights(|txid, height| {
                if height.is_some() && !found.contains(&txid) {
                    *height = None;
                    changed = true;
                }
            });
        }
        changed
    }

    /// Applies new chain facts.
    pub fn apply(&mut self, contracts: &[Contract], facts: &ChainFacts) -> Change {
        let mut change = Change::default();
        if facts.disconnected.is_empty() && facts.seen.is_empty() {
            return change;
        }
        let before = self.clone();
        for (known, contract) in self.contracts.iter_mut().zip(contracts) {
            known.for_heights(|txid, height| {
                if height.is_some() && facts.disconnected.contains(&txid) {
                    *height = None;
                }
            });
            known.see(contract, &self.coins, &facts.seen, &mut change);
        }
        change.any = before != *self;
        let mut heights = Vec::new();
        for contract in &mut self.contracts {
            contract.for_heights(|txid, height| heights.push((txid, height.is_some())));
        }
        let in_block = |id: &Txid| {
            facts.seen.iter().any(|seen| seen.tx.txid() == *id && seen.height.is_some())
        };
        change.confirmed = heights.into_iter().map(|(txid, _)| txid).filter(in_block).collect();
        change
    }
}

fn output_sat(tx: &Transaction) -> u64 {
    tx.output.iter().map(|out| out.value.to_sat()).fold(0, u64::saturating_add)
}

/// Whether a sighting says more than what is known: a block beats a mempool, and the
/// mempool's latest replaces its former.
fn newer(known: Option<SpendFact>, fact: &SpendFact) -> bool {
    known.is_none_or(|known| fact.height.is_some() || known.height.is_none())
}

fn depth_of(height: Option<u32>, tip: u32) -> u32 {
    height.map_or(0, |height| depth(tip, height))
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::secp256k1::Secp256k1;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, TxOut};

    use super::*;
    use crate::ids::TermsHash;
    use crate::settlement::sample;

    /// A buyer could hand over its funding with a broken witness and broadcast the good one:
    /// nobody else could then bring the funding back after a reorganisation.
    #[test]
    fn the_chains_copy_of_a_funding_replaces_the_peers() {
        let secp = Secp256k1::new();
        let contract = Contract::new(&secp, &sample::terms(800), TermsHash([7; 32]), 0).unwrap();
        let output =
            TxOut { value: Amount::from_sat(1_000_000), script_pubkey: contract.spk.clone() };
        let mut good = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn::default()],
            output: vec![output],
        };
        let broken = good.clone();
        good.input[0].witness.push([1; 64]);
        let mut facts = Facts::none(1);
        let contracts = [contract];
        let sighting = |tx: &Transaction, height| Sighting { tx: KnownTx::new(tx.clone()), height };
        let seen = vec![sighting(&broken, None)];
        facts.apply(&contracts, &ChainFacts { seen, ..ChainFacts::default() });
        let fund = |facts: &Facts| facts.contracts()[0].fund.as_ref().unwrap().tx.tx().clone();
        assert_eq!(fund(&facts), broken);
        let seen = vec![sighting(&good, Some(801))];
        let mined = ChainFacts { height: 801, seen, ..ChainFacts::default() };
        assert!(facts.apply(&contracts, &mined).any);
        assert_eq!(fund(&facts), good);
    }

    /// One preimage opens every funding of a contract: what was acknowledged stays, until
    /// another is in a block in its place.
    #[test]
    fn an_unconfirmed_funding_is_replaced_by_a_confirmed_one_alone() {
        let secp = Secp256k1::new();
        let contract = Contract::new(&secp, &sample::terms(800), TermsHash([7; 32]), 0).unwrap();
        let paying = |lock_time: u32, sat: u64| {
            let spk = contract.spk.clone();
            KnownTx::new(Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(lock_time),
                input: vec![TxIn::default()],
                output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: spk }],
            })
        };
        let [first, other] = [1, 2].map(|n| paying(n, 1_000_000));
        let see = |facts: &mut Facts, tx: &KnownTx, height| {
            let seen = vec![Sighting { tx: tx.clone(), height }];
            facts.apply(
                std::slice::from_ref(&contract),
                &ChainFacts { seen, ..ChainFacts::default() },
            );
            facts.contracts()[0].fund.as_ref().map(|fund| (fund.txid(), fund.height))
        };
        let mut facts = Facts::none(1);
        assert_eq!(see(&mut facts, &paying(3, 999_999), Some(801)), None, "a sat too little");
        assert_eq!(see(&mut facts, &first, None), Some((first.txid(), None)));
        assert_eq!(see(&mut facts, &other, None), Some((first.txid(), None)));
        assert_eq!(see(&mut facts, &other, Some(801)), Some((other.txid(), Some(801))));
        assert_eq!(see(&mut facts, &first, Some(802)), Some((other.txid(), Some(801))));
    }

    const NO: Option<u32> = None;
    const WAITS: Option<u32> = Some(0);

    fn two(a: [Option<u32>; 4], b: [Option<u32>; 4]) -> Facts {
        Facts::new(vec![sample::contract_facts(a), sample::contract_facts(b)])
    }

    #[test]
    fn two_contracts_are_funded_when_both_are() {
        let table = [
            ([Some(801), NO, NO, NO], [Some(803), NO, NO, NO], 3),
            ([Some(801), NO, NO, NO], [WAITS, NO, NO, NO], 0),
            ([Some(801), NO, NO, NO], [NO; 4], 0),
            ([NO; 4], [NO; 4], 0),
        ];
        for (a, b, depth) in table {
            assert_eq!(two(a, b).fund_depth(805), depth, "{a:?} {b:?}");
        }
        assert_eq!(Facts::none(0).fund_depth(805), 0);
    }

    #[test]
    fn a_trade_is_refunded_when_every_confirmed_funding_went_back() {
        let refunded = [Some(801), NO, Some(851), NO];
        let table = [
            (refunded, refunded, true),
            // The other never funded, or its funding never confirmed.
            (refunded, [NO; 4], true),
            (refunded, [WAITS, NO, NO, NO], true),
            (refunded, [Some(801), NO, NO, NO], false),
            (refunded, [Some(801), NO, Some(852), NO], false),
            (refunded, [Some(801), Some(810), NO, NO], false),
            ([NO; 4], [NO; 4], false),
        ];
        for (a, b, expected) in table {
            for facts in [two(a, b), two(b, a)] {
                assert_eq!(facts.refund(856, 6).is_some(), expected, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn the_first_claim_counts_and_every_contract_must_be_spent_in_the_end() {
        let claimed = |height| [Some(801), Some(height), NO, NO];
        let facts = two(claimed(812), claimed(810));
        assert_eq!(facts.claim().unwrap().0.height, Some(810));
        assert_eq!(facts.claim_depth(812), 3);
        assert!(!facts.is_spent(816, 6) && facts.is_spent(817, 6));
        let half = two(claimed(810), [Some(801), NO, NO, NO]);
        assert_eq!(half.claim_depth(812), 3);
        assert!(!half.is_spent(900, 6));
        let lost = two(claimed(810), [Some(801), NO, Some(851), NO]);
        assert!(!lost.is_spent(855, 6) && lost.is_spent(856, 6));
    }
}
