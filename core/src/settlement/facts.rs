//! What the chain says about one contract. Facts decide the state of a settlement; records
//! only remember the last facts and what this node intends.

use bitcoin::{OutPoint, Transaction, Txid};
use serde::{Deserialize, Serialize};

use super::script::Contract;
use super::timelock::depth;
use super::transaction::{Holding, SpendKind, consensus_bytes, contract_vout, spend_of};

/// Chain facts since the last input, already cut to what the engine watches. Applied in
/// the order disconnected, connected, mempool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainFacts {
    /// Height of the best block.
    pub height: u32,
    /// Median time past, unix s.
    pub median_time_past_s: u32,
    /// (target in chain blocks, sat per 1,000 vB), ascending by target.
    pub feerates: Vec<(u16, u64)>,
    /// Relevant transactions of new blocks.
    pub connected: Vec<(u32, Txid, Transaction)>,
    /// Relevant transactions that wait.
    pub mempool: Vec<Transaction>,
    /// Relevant transactions whose block left the chain.
    pub disconnected: Vec<Txid>,
}

/// Chain facts with their transaction ids, computed once for all settlements.
#[derive(Debug)]
pub struct Batch<'a> {
    disconnected: &'a [Txid],
    seen: Vec<(Txid, Option<u32>, &'a Transaction)>,
}

impl<'a> Batch<'a> {
    /// In the order in which facts apply: disconnected, connected, mempool.
    #[must_use]
    pub fn new(facts: &'a ChainFacts) -> Self {
        let connected = facts.connected.iter().map(|(height, id, tx)| (*id, Some(*height), tx));
        let mempool = facts.mempool.iter().map(|tx| (tx.compute_txid(), None, tx));
        Self { disconnected: &facts.disconnected, seen: connected.chain(mempool).collect() }
    }
}

/// The funding of a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FundFact {
    /// The transaction.
    #[serde(with = "consensus_bytes")]
    pub tx: Transaction,
    /// Its output that pays the contract.
    pub vout: u32,
    /// Whether it was seen in a mempool or block: a buyer knows it before.
    pub seen: bool,
    /// Block, if confirmed.
    pub height: Option<u32>,
}

impl FundFact {
    /// Its id.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.tx.compute_txid()
    }

    /// The contract's output.
    #[must_use]
    pub fn outpoint(&self) -> OutPoint {
        OutPoint { txid: self.txid(), vout: self.vout }
    }

    /// Value of the contract's output, sat.
    #[must_use]
    pub fn value_sat(&self) -> u64 {
        let output = usize::try_from(self.vout).ok().and_then(|vout| self.tx.output.get(vout));
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
    /// Its id.
    pub txid: Txid,
    /// Its input that spends.
    pub vin: u32,
    /// Size, vB.
    pub vsize: u64,
    /// Contract value that does not reach its outputs, sat (its fee, if it has one input).
    pub fee_sat: u64,
    /// Block, if confirmed.
    pub height: Option<u32>,
}

/// All that is known of a contract.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The funding.
    pub fund: Option<FundFact>,
    /// The seller's spend with its preimage.
    pub claim: Option<(SpendFact, [u8; 32])>,
    /// The funder's spend.
    pub refund: Option<SpendFact>,
    /// A transaction that is not the funding and spends one of its inputs.
    pub conflict: Option<SpendFact>,
}

/// What a batch changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Anything at all: the record must be written.
    pub any: bool,
    /// A funding that was not known before: its output must be watched.
    pub found_fund: bool,
    /// The funding stood in a block of this batch.
    pub confirmed_fund: bool,
    /// Known transactions that stood in a block of this batch.
    pub confirmed: Vec<Txid>,
    /// Transactions that lost their block.
    pub lost: Vec<Txid>,
}

impl Facts {
    /// Facts of a buyer that has built its funding.
    #[must_use]
    pub fn built(tx: Transaction, vout: u32) -> Self {
        let fund = FundFact { tx, vout, seen: false, height: None };
        Self { fund: Some(fund), ..Self::default() }
    }

    /// Confirmations of the funding.
    #[must_use]
    pub fn fund_depth(&self, tip: u32) -> u32 {
        depth_of(self.fund_height(), tip)
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

    /// Confirmations of the refund.
    #[must_use]
    pub fn refund_depth(&self, tip: u32) -> u32 {
        depth_of(self.refund.and_then(|spend| spend.height), tip)
    }

    /// Confirmations of a transaction that makes the funding impossible.
    #[must_use]
    pub fn conflict_depth(&self, tip: u32) -> u32 {
        depth_of(self.conflict.and_then(|spend| spend.height), tip)
    }

    /// Forgets the blocks of all but these: after a restart whose rescan did not find them
    /// again.
    pub fn forget_heights_but(&mut self, found: &[Txid]) {
        self.for_heights(|txid, height| *height = height.filter(|_| found.contains(&txid)));
    }

    fn for_heights(&mut self, mut apply: impl FnMut(Txid, &mut Option<u32>)) {
        if let Some(fund) = &mut self.fund {
            apply(fund.txid(), &mut fund.height);
        }
        let claim = self.claim.as_mut().map(|(spend, _)| spend);
        for spend in [claim, self.refund.as_mut(), self.conflict.as_mut()].into_iter().flatten() {
            apply(spend.txid, &mut spend.height);
        }
    }

    /// Applies new chain facts.
    pub fn apply(&mut self, contract: &Contract, batch: &Batch<'_>) -> Change {
        let mut change = Change::default();
        let before =
            (!batch.disconnected.is_empty() || !batch.seen.is_empty()).then(|| self.clone());
        self.for_heights(|txid, height| {
            if height.is_some() && batch.disconnected.contains(&txid) {
                *height = None;
                change.lost.push(txid);
            }
        });
        for (txid, height, tx) in &batch.seen {
            self.see_fund(contract, *txid, *height, tx, &mut change);
        }
        // Spends after fundings: one batch may hold both in any order of blocks.
        for (txid, height, tx) in &batch.seen {
            self.see_spend(contract, *txid, *height, tx);
        }
        change.any = before.is_some_and(|before| before != *self);
        // What moved from one block to another was not lost.
        let mut heights = Vec::new();
        self.for_heights(|txid, height| heights.push((txid, height.is_some())));
        change.lost.retain(|txid| !heights.contains(&(*txid, true)));
        let in_block = |id: &Txid| batch.seen.iter().any(|(txid, h, _)| txid == id && h.is_some());
        change.confirmed = heights.into_iter().map(|(txid, _)| txid).filter(in_block).collect();
        change
    }

    fn see_fund(
        &mut self,
        contract: &Contract,
        txid: Txid,
        height: Option<u32>,
        tx: &Transaction,
        change: &mut Change,
    ) {
        if let Some(fund) = self.fund.as_mut().filter(|fund| fund.txid() == txid) {
            fund.seen = true;
            fund.height = height.or(fund.height);
            if height.is_some() && fund.tx != *tx {
                // The id says nothing of the witness: the peer's copy may have a broken one,
                // and after a reorganisation it is this node's to send again.
                fund.tx = tx.clone();
            }
            change.confirmed_fund |= height.is_some();
            return;
        }
        let Some(vout) = contract_vout(tx, contract) else { return };
        // Another payment to the address counts only in place of an unconfirmed one, and
        // only once it is in a block itself.
        let replaces = match &self.fund {
            None => true,
            Some(fund) => fund.height.is_none() && height.is_some(),
        };
        if replaces {
            self.fund = Some(FundFact { tx: tx.clone(), vout, seen: true, height });
            change.found_fund = true;
            change.confirmed_fund |= height.is_some();
        }
    }

    fn see_spend(
        &mut self,
        contract: &Contract,
        txid: Txid,
        height: Option<u32>,
        tx: &Transaction,
    ) {
        let Some(fund) = &self.fund else { return };
        let outputs = tx.output.iter().map(|out| out.value.to_sat()).fold(0, u64::saturating_add);
        let fact = |vin: u32| SpendFact {
            txid,
            vin,
            vsize: tx.vsize() as u64,
            fee_sat: fund.value_sat().saturating_sub(outputs),
            height,
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
                SpendKind::Refund | SpendKind::Other => {}
            }
        } else if txid != fund.txid() && newer(self.conflict, &fact(0)) {
            let shares = |input: &bitcoin::TxIn| {
                fund.tx.input.iter().any(|own| own.previous_output == input.previous_output)
            };
            if tx.input.iter().any(shares) {
                self.conflict = Some(SpendFact { fee_sat: 0, ..fact(0) });
            }
        }
    }
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
    use bitcoin::{Amount, TxIn, TxOut};

    use super::super::sample;
    use super::*;
    use crate::ids::TermsHash;

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
        let mut facts = Facts::default();
        let waits = ChainFacts { mempool: vec![broken.clone()], ..ChainFacts::default() };
        facts.apply(&contract, &Batch::new(&waits));
        assert_eq!(facts.fund.as_ref().unwrap().tx, broken);
        let connected = vec![(801, good.compute_txid(), good.clone())];
        let mined = ChainFacts { height: 801, connected, ..ChainFacts::default() };
        assert!(facts.apply(&contract, &Batch::new(&mined)).any);
        assert_eq!(facts.fund.unwrap().tx, good);
    }
}
