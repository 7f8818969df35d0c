//! Unconfirmed transactions and who spends what among them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, Weight, Wtxid};

use super::policy::fee_sat_at;

/// Most transactions held: 20 full devchain seconds of a busy test network, and a listing
/// of them stays under a MB.
pub const MAX_MEMPOOL_TXS: usize = 10_000;

/// Most virtual bytes held: ten full blocks.
pub const MAX_MEMPOOL_VSIZE: u64 = 10_000_000;

/// A transaction in the mempool.
#[derive(Debug, Clone)]
pub struct MempoolEntry {
    pub tx: Arc<Transaction>,
    pub wtxid: Wtxid,
    /// Its fee in sat.
    pub fee_sat: u64,
    /// Its virtual size in bytes.
    pub vsize: u64,
    /// Height of the tip when it arrived.
    pub height: u32,
    /// Time of the tip when it arrived, unix seconds.
    pub time_s: u32,
    /// Order of arrival: a parent is always lower than its children.
    order: u64,
}

/// The unconfirmed transactions of a [`super::Devchain`]. Every change goes through the
/// chain, which keeps it consistent with the unspent outputs.
#[derive(Debug, Clone, Default)]
pub struct Mempool {
    entries: BTreeMap<Txid, MempoolEntry>,
    spenders: HashMap<OutPoint, Txid>,
    vsize: u64,
    arrivals: u64,
}

impl Mempool {
    /// How many transactions it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of the virtual sizes in bytes.
    pub fn vsize(&self) -> u64 {
        self.vsize
    }

    /// One transaction.
    pub fn get(&self, txid: &Txid) -> Option<&MempoolEntry> {
        self.entries.get(txid)
    }

    /// All transactions, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&Txid, &MempoolEntry)> {
        self.entries.iter()
    }

    /// The unconfirmed transaction that spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Unconfirmed transactions that this one spends from.
    pub fn parents(&self, tx: &Transaction) -> BTreeSet<Txid> {
        tx.input
            .iter()
            .map(|input| input.previous_output.txid)
            .filter(|txid| self.entries.contains_key(txid))
            .collect()
    }

    /// Unconfirmed transactions that spend from this one.
    pub fn children(&self, txid: &Txid) -> BTreeSet<Txid> {
        let outputs = self.entries.get(txid).map_or(0, |entry| entry.tx.output.len() as u32);
        (0..outputs).filter_map(|vout| self.spender(&OutPoint { txid: *txid, vout })).collect()
    }

    /// All unconfirmed transactions that `tx` depends on.
    pub(super) fn ancestors(&self, tx: &Transaction) -> BTreeSet<Txid> {
        self.closure(self.parents(tx), |txid| {
            self.get(txid).map(|entry| self.parents(&entry.tx)).unwrap_or_default()
        })
    }

    /// The transaction itself and all that depend on it.
    pub(super) fn with_descendants(&self, txid: Txid) -> BTreeSet<Txid> {
        self.closure(BTreeSet::from([txid]), |txid| self.children(txid))
    }

    fn closure(
        &self,
        start: BTreeSet<Txid>,
        next: impl Fn(&Txid) -> BTreeSet<Txid>,
    ) -> BTreeSet<Txid> {
        let mut queue: Vec<Txid> = start.iter().copied().collect();
        let mut found = start;
        while let Some(txid) = queue.pop() {
            queue.extend(next(&txid).into_iter().filter(|txid| found.insert(*txid)));
        }
        found
    }

    pub(super) fn insert(&mut self, tx: Transaction, fee_sat: u64, height: u32, time_s: u32) {
        let txid = tx.compute_txid();
        for input in &tx.input {
            self.spenders.insert(input.previous_output, txid);
        }
        self.arrivals += 1;
        let entry = MempoolEntry {
            wtxid: tx.compute_wtxid(),
            vsize: tx.vsize() as u64,
            tx: Arc::new(tx),
            fee_sat,
            height,
            time_s,
            order: self.arrivals,
        };
        self.vsize += entry.vsize;
        self.entries.insert(txid, entry);
    }

    /// Removes one transaction; its children stay, as after its confirmation.
    pub(super) fn remove(&mut self, txid: &Txid) -> Option<MempoolEntry> {
        let entry = self.entries.remove(txid)?;
        self.vsize -= entry.vsize;
        for input in &entry.tx.input {
            self.spenders.remove(&input.previous_output);
        }
        Some(entry)
    }

    /// Removes a transaction and all that depend on it.
    pub(super) fn remove_with_descendants(&mut self, txid: Txid) {
        for txid in self.with_descendants(txid) {
            self.remove(&txid);
        }
    }

    /// Empties it, giving the transactions parents first.
    pub(super) fn drain(&mut self) -> Vec<Arc<Transaction>> {
        let mut entries: Vec<_> = std::mem::take(&mut self.entries).into_values().collect();
        self.spenders.clear();
        self.vsize = 0;
        entries.sort_by_key(|entry| entry.order);
        entries.into_iter().map(|entry| entry.tx).collect()
    }

    /// The transaction whose package (itself and its descendants) pays the least per byte,
    /// with the package's fee and size.
    pub(super) fn cheapest_package(&self) -> Option<(Txid, u64, u64)> {
        let package = |txid: &Txid| {
            let set = self.with_descendants(*txid);
            (*txid, self.sum(&set, |e| e.fee_sat), self.sum(&set, |e| e.vsize))
        };
        self.entries
            .keys()
            .map(package)
            .min_by(|a, b| (a.1 as u128 * b.2 as u128).cmp(&(b.1 as u128 * a.2 as u128)))
    }

    pub(super) fn sum(&self, set: &BTreeSet<Txid>, field: impl Fn(&MempoolEntry) -> u64) -> u64 {
        set.iter().filter_map(|txid| self.get(txid)).map(field).sum()
    }

    /// Transactions for a block of at most `budget`, best paying packages (a transaction
    /// with its ancestors) first, parents before children; and the sum of their fees. A
    /// package that pays less than `floor_sat_kvb` is left to wait.
    pub(super) fn select(&self, budget: Weight, floor_sat_kvb: u64) -> (Vec<Transaction>, u64) {
        let mut packages: Vec<(u64, u64, Txid)> = self
            .entries
            .iter()
            .map(|(txid, entry)| {
                let mut set = self.ancestors(&entry.tx);
                set.insert(*txid);
                (self.sum(&set, |e| e.fee_sat), self.sum(&set, |e| e.vsize), *txid)
            })
            .filter(|(fee_sat, vsize, _)| *fee_sat >= fee_sat_at(floor_sat_kvb, *vsize))
            .collect();
        packages.sort_by(|a, b| {
            (b.0 as u128 * a.1 as u128).cmp(&(a.0 as u128 * b.1 as u128)).then(a.2.cmp(&b.2))
        });
        let mut chosen: BTreeSet<Txid> = BTreeSet::new();
        let mut weight = Weight::ZERO;
        for (_, _, txid) in packages {
            let Some(entry) = self.get(&txid) else {
                continue;
            };
            let mut set = self.ancestors(&entry.tx);
            set.insert(txid);
            let fresh: Vec<Txid> = set.difference(&chosen).copied().collect();
            let more: Weight =
                fresh.iter().filter_map(|t| self.get(t)).map(|e| e.tx.weight()).sum();
            if weight + more <= budget {
                weight += more;
                chosen.extend(fresh);
            }
        }
        self.in_order(&chosen)
    }

    fn in_order(&self, chosen: &BTreeSet<Txid>) -> (Vec<Transaction>, u64) {
        let mut entries: Vec<&MempoolEntry> =
            chosen.iter().filter_map(|txid| self.get(txid)).collect();
        entries.sort_by_key(|entry| entry.order);
        let fees_sat = entries.iter().map(|entry| entry.fee_sat).sum();
        (entries.into_iter().map(|entry| (*entry.tx).clone()).collect(), fees_sat)
    }
}
