//! A chain of a few rules: real scripts (Bitcoin Core's verifier), lock times, values,
//! replacement by fee.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use capex_core::settlement::transaction::{SpendKind, spend_of};

use crate::party::Party;

/// Height at the start.
const FIRST_HEIGHT: u32 = 300;

/// Only a claim's witness has four parts.
fn is_claim(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| input.witness.len() == 4)
}

/// The chain, and the mempool that everybody shares.
pub(crate) struct Chain {
    coins: BTreeMap<OutPoint, TxOut>,
    blocks: Vec<Vec<Transaction>>,
    /// Waiting transactions.
    pub(crate) mempool: Vec<Transaction>,
    /// No funding of a contract is mined: one whose first output is 50,000 sat.
    pub(crate) hold_contracts: bool,
    /// No claim is mined.
    pub(crate) hold_claims: bool,
    /// Nothing is mined.
    pub(crate) hold_all: bool,
    /// Why every broadcast is refused.
    pub(crate) refuses: Option<&'static str>,
    /// No claim reaches anybody's mempool.
    pub(crate) censor_claims: bool,
    /// (target, sat per 1,000 vB) that every source tells.
    pub(crate) feerates: Vec<(u16, u64)>,
    /// Median time past that every source tells, unix s.
    pub(crate) median_time_past_s: u32,
    /// Why broadcasts were refused.
    pub(crate) rejected: Vec<String>,
    /// Every transaction ever offered.
    pub(crate) offered: Vec<Txid>,
}

impl Chain {
    pub(crate) fn new(coins: Vec<(OutPoint, TxOut)>) -> Self {
        Self {
            coins: coins.into_iter().collect(),
            blocks: Vec::new(),
            mempool: Vec::new(),
            hold_contracts: false,
            hold_claims: false,
            hold_all: false,
            refuses: None,
            censor_claims: false,
            feerates: vec![(2, 1000), (6, 1000)],
            median_time_past_s: 0,
            rejected: Vec::new(),
            offered: Vec::new(),
        }
    }

    pub(crate) fn height(&self) -> u32 {
        FIRST_HEIGHT + u32::try_from(self.blocks.len()).unwrap()
    }

    /// Transactions in blocks with their heights.
    pub(crate) fn confirmed(&self) -> impl Iterator<Item = (u32, &Transaction)> {
        let numbered = (FIRST_HEIGHT + 1..).zip(&self.blocks);
        numbered.flat_map(|(height, block)| block.iter().map(move |tx| (height, tx)))
    }

    fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        let known = self.confirmed().map(|(_, tx)| tx).chain(&self.mempool);
        let created = known
            .filter(|tx| tx.compute_txid() == outpoint.txid)
            .find_map(|tx| tx.output.get(outpoint.vout as usize).cloned());
        self.coins.get(outpoint).cloned().or(created)
    }

    fn fee(&self, tx: &Transaction) -> Option<u64> {
        let mut value = 0;
        for input in &tx.input {
            value += self.output(&input.previous_output)?.value.to_sat();
        }
        value.checked_sub(tx.output.iter().map(|out| out.value.to_sat()).sum())
    }

    pub(crate) fn broadcast(&mut self, tx: &Transaction) -> Result<(), String> {
        let txid = tx.compute_txid();
        self.offered.push(txid);
        if let Some(why) = self.refuses {
            return Err(why.to_owned());
        }
        if self.censor_claims && is_claim(tx) {
            return Ok(());
        }
        let result = self.accept(tx);
        if let Err(why) = &result {
            self.rejected.push(why.clone());
        }
        result
    }

    fn accept(&mut self, tx: &Transaction) -> Result<(), String> {
        let txid = tx.compute_txid();
        if self.confirmed().any(|(_, known)| known.compute_txid() == txid)
            || self.mempool.contains(tx)
        {
            return Ok(());
        }
        if let LockTime::Blocks(height) = tx.lock_time
            && height.to_consensus_u32() > self.height()
        {
            return Err(format!("non-final: {height} at {}", self.height()));
        }
        let spends = |other: &Transaction| {
            other.input.iter().any(|theirs| {
                tx.input.iter().any(|ours| ours.previous_output == theirs.previous_output)
            })
        };
        if self.confirmed().any(|(_, other)| spends(other)) {
            return Err("missing-or-spent".to_owned());
        }
        let fee = self.fee(tx).ok_or("missing-or-spent")?;
        if fee * 1000 < 1000 * tx.vsize() as u64 {
            return Err(format!("min relay fee: {fee} for {} vB", tx.vsize()));
        }
        self.verify(tx)?;
        if let Some(other) = self.mempool.iter().position(spends) {
            let theirs = self.fee(&self.mempool[other]).unwrap_or(0);
            if fee < theirs + tx.vsize() as u64 {
                return Err(format!("insufficient fee: {fee} replaces {theirs}"));
            }
            self.mempool.remove(other);
        }
        self.mempool.push(tx.clone());
        Ok(())
    }

    fn verify(&self, tx: &Transaction) -> Result<(), String> {
        let spent: Vec<TxOut> = tx
            .input
            .iter()
            .map(|input| self.output(&input.previous_output).ok_or("missing-or-spent".to_owned()))
            .collect::<Result<_, _>>()?;
        let utxos: Vec<bitcoinconsensus::Utxo> = spent
            .iter()
            .map(|out| bitcoinconsensus::Utxo {
                script_pubkey: out.script_pubkey.as_bytes().as_ptr(),
                script_pubkey_len: u32::try_from(out.script_pubkey.len()).unwrap(),
                value: i64::try_from(out.value.to_sat()).unwrap(),
            })
            .collect();
        let bytes = bitcoin::consensus::serialize(tx);
        for (index, out) in spent.iter().enumerate() {
            bitcoinconsensus::verify_with_flags(
                out.script_pubkey.as_bytes(),
                out.value.to_sat(),
                &bytes,
                Some(&utxos),
                index,
                bitcoinconsensus::VERIFY_ALL_PRE_TAPROOT | bitcoinconsensus::VERIFY_TAPROOT,
            )
            .map_err(|error| format!("script: {error:?}"))?;
        }
        Ok(())
    }

    /// One block with everything that is not held back and whose inputs are in blocks or
    /// before it in this one.
    pub(crate) fn mine(&mut self) {
        let (hold_contracts, hold_claims) = (self.hold_contracts, self.hold_claims);
        let hold_all = self.hold_all;
        let held = |tx: &Transaction| {
            hold_all
                || hold_contracts && tx.output[0].value.to_sat() == 50_000
                || hold_claims && is_claim(tx)
        };
        let mut block: Vec<Transaction> = Vec::new();
        let mut left = Vec::new();
        for tx in std::mem::take(&mut self.mempool) {
            let ready = tx.input.iter().all(|input| {
                let outpoint = &input.previous_output;
                self.coins.contains_key(outpoint)
                    || self
                        .confirmed()
                        .map(|(_, tx)| tx)
                        .chain(&block)
                        .any(|known| known.compute_txid() == outpoint.txid)
            });
            if ready && !held(&tx) { block.push(tx) } else { left.push(tx) }
        }
        self.blocks.push(block);
        self.mempool = left;
    }

    /// Takes blocks off; their transactions wait again. Empty blocks of the same number
    /// follow at once, since tips do not shrink for long.
    pub(crate) fn disconnect(&mut self, count: usize) -> Vec<Txid> {
        let taken = self.blocks.split_off(self.blocks.len() - count);
        let lost: Vec<Transaction> = taken.into_iter().flatten().collect();
        let txids = lost.iter().map(Transaction::compute_txid).collect();
        self.mempool.extend(lost);
        self.blocks.extend(std::iter::repeat_n(Vec::new(), count + 1));
        txids
    }

    /// Whether there is a block to take off.
    pub(crate) fn can_disconnect(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// The mempool is lost, so that only those who care bring transactions back.
    pub(crate) fn forget_mempool(&mut self) {
        self.mempool.clear();
    }

    /// How the buyer's contract was spent in a block, if it was.
    pub(crate) fn contract_spend(&self, buyer: &Party) -> Option<(Transaction, SpendKind)> {
        let (contract, outpoint) = buyer.contract()?;
        self.confirmed().find_map(|(_, tx)| {
            spend_of(tx, outpoint, &contract).map(|(_, kind)| (tx.clone(), kind))
        })
    }
}
