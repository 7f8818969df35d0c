//! Reduces chain updates to the transactions that concern this node.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use thiserror::Error;

use super::ChainUpdate;
use capex_core::limits::{FUNDERS_MAX, OPEN_SETTLEMENTS_MAX, WATCHED_INPUTS_MAX};

/// Most scripts, and most outpoints, watched at once, 20 MB. A node watches one of each for
/// every contract of an open settlement, and what its fundings spend; settlements that end are
/// unwatched. So a stranger cannot fill it. If a fault does, the node stops.
pub const MAX_WATCHED: usize = 250_000;

// Buyers, sellers and registrars, with a contract for each funder and all that is shown to pay it.
const _: () = assert!(MAX_WATCHED >= 3 * OPEN_SETTLEMENTS_MAX * (FUNDERS_MAX + WATCHED_INPUTS_MAX));

/// Blocks whose relevant transactions are remembered, to name them when they leave the
/// chain: deeper than any fact is re-checked (144).
const REMEMBERED_BLOCKS: usize = 1_024;

/// The watch list is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more than {MAX_WATCHED} scripts or outpoints watched")]
pub struct WatchFull;

impl WatchFull {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        "chain.watch_full"
    }
}

/// The part of a [`ChainUpdate`] that concerns the watched scripts and outpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relevant {
    /// Transactions in blocks that joined the best chain: (height, txid, transaction).
    pub connected: Vec<(u32, Txid, Transaction)>,
    /// Transactions new in the mempool.
    pub mempool: Vec<Transaction>,
    /// Transactions in blocks that left the best chain, highest block first. One that was
    /// mined again in the same update is also in `connected`.
    pub disconnected: Vec<Txid>,
}

impl Relevant {
    /// Adds what a later update brought, so that applying both at once (disconnected, then
    /// connected, then mempool) ends where applying one after the other does.
    pub fn append(&mut self, later: Self) {
        let left = &later.disconnected;
        self.connected.retain(|(_, txid, _)| !left.contains(txid));
        self.disconnected.extend(later.disconnected);
        self.connected.extend(later.connected);
        self.mempool.extend(later.mempool);
    }

    /// Whether nothing of it concerns this node.
    pub fn is_empty(&self) -> bool {
        self.connected.is_empty() && self.mempool.is_empty() && self.disconnected.is_empty()
    }
}

/// Watched scripts and outpoints. Pure: it sees only the updates it is given.
///
/// An output that pays a watched script is watched for its spend from then on.
#[derive(Debug, Clone, Default)]
pub struct Watcher {
    spks: HashSet<ScriptBuf>,
    outpoints: HashSet<OutPoint>,
    /// Outputs that paid a watched script. Anybody can make such outputs, so the oldest
    /// gives way; what must not be missed is watched explicitly.
    paid: HashSet<OutPoint>,
    paid_order: VecDeque<(OutPoint, ScriptBuf)>,
    blocks: BTreeMap<u32, (BlockHash, Vec<Txid>)>,
}

impl Watcher {
    /// An empty watch list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches payments to a script and the spends of those payments. What happened before
    /// needs [`super::ChainSource::rescan_from`].
    ///
    /// # Errors
    /// [`WatchFull`] at [`MAX_WATCHED`] scripts.
    pub fn watch_spk(&mut self, spk: ScriptBuf) -> Result<(), WatchFull> {
        if self.spks.len() >= MAX_WATCHED && !self.spks.contains(&spk) {
            return Err(WatchFull);
        }
        self.spks.insert(spk);
        Ok(())
    }

    /// Watches the spend of an output.
    ///
    /// # Errors
    /// [`WatchFull`] at [`MAX_WATCHED`] outpoints.
    pub fn watch_outpoint(&mut self, outpoint: OutPoint) -> Result<(), WatchFull> {
        if self.outpoints.len() >= MAX_WATCHED && !self.outpoints.contains(&outpoint) {
            return Err(WatchFull);
        }
        self.outpoints.insert(outpoint);
        Ok(())
    }

    /// Stops watching scripts, payments to them, and outputs. What is settled for good must
    /// leave, or the list fills up in a year of trades. Unknown ones are passed over.
    pub fn unwatch(&mut self, spks: &[ScriptBuf], outpoints: &[OutPoint]) {
        for outpoint in outpoints {
            self.outpoints.remove(outpoint);
        }
        let gone: HashSet<&ScriptBuf> = spks.iter().filter(|spk| self.spks.remove(*spk)).collect();
        if gone.is_empty() {
            return;
        }
        self.paid_order.retain(|(outpoint, spk)| {
            let stays = !gone.contains(spk);
            if !stays {
                self.paid.remove(outpoint);
            }
            stays
        });
    }

    /// Whether a transaction pays a watched script or spends a watched outpoint.
    pub fn concerns(&self, tx: &Transaction) -> bool {
        tx.output.iter().any(|o| self.spks.contains(&o.script_pubkey))
            || tx.input.iter().any(|i| {
                self.outpoints.contains(&i.previous_output)
                    || self.paid.contains(&i.previous_output)
            })
    }

    /// Takes what concerns the watch list out of an update. Updates must come in the order
    /// in which the source gave them.
    pub fn reduce(&mut self, update: &ChainUpdate) -> Relevant {
        let mut relevant = Relevant::default();
        for (height, block) in &update.disconnected {
            self.disconnect(*height, block, &mut relevant.disconnected);
        }
        for (height, block) in &update.connected {
            self.connect(*height, block, &mut relevant);
        }
        // A child can come before its parent in a mempool listing.
        for tx in &update.mempool {
            self.remember_payments(tx);
        }
        relevant.mempool.extend(update.mempool.iter().filter(|tx| self.concerns(tx)).cloned());
        relevant
    }

    fn disconnect(&mut self, height: u32, block: &Block, out: &mut Vec<Txid>) {
        let hash = block.block_hash();
        match self.blocks.get(&height) {
            Some((known, _)) if *known == hash => {
                if let Some((_, txids)) = self.blocks.remove(&height) {
                    out.extend(txids);
                }
            }
            // Nothing remembered: connected before this watcher existed, or long ago.
            _ => out.extend(
                block.txdata.iter().filter(|tx| self.concerns(tx)).map(Transaction::compute_txid),
            ),
        }
    }

    fn connect(&mut self, height: u32, block: &Block, relevant: &mut Relevant) {
        self.drop_replaced(height, block, &mut relevant.disconnected);
        let mut txids = Vec::new();
        for tx in &block.txdata {
            self.remember_payments(tx);
            if self.concerns(tx) {
                let txid = tx.compute_txid();
                txids.push(txid);
                relevant.connected.push((height, txid, tx.clone()));
            }
        }
        self.blocks.insert(height, (block.block_hash(), txids));
        while self.blocks.len() > REMEMBERED_BLOCKS {
            self.blocks.pop_first();
        }
    }

    /// A block at a remembered height with another hash, or on another parent than the
    /// remembered one, proves that what is remembered from there on left the chain, even
    /// where the source could not produce it.
    fn drop_replaced(&mut self, height: u32, block: &Block, out: &mut Vec<Txid>) {
        let differs = |at: u32, hash: BlockHash| {
            self.blocks.get(&at).is_some_and(|(known, _)| *known != hash)
        };
        let parent = height.checked_sub(1).map(|below| (below, block.header.prev_blockhash));
        let mut places = parent.into_iter().chain([(height, block.block_hash())]);
        let Some((from, _)) = places.find(|(at, hash)| differs(*at, *hash)) else {
            return;
        };
        for (_, (_, txids)) in self.blocks.split_off(&from).into_iter().rev() {
            out.extend(txids);
        }
    }

    fn remember_payments(&mut self, tx: &Transaction) {
        if !tx.output.iter().any(|o| self.spks.contains(&o.script_pubkey)) {
            return;
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0u32..).zip(&tx.output) {
            if !self.spks.contains(&output.script_pubkey) {
                continue;
            }
            let outpoint = OutPoint { txid, vout };
            if self.paid.insert(outpoint) {
                self.paid_order.push_back((outpoint, output.script_pubkey.clone()));
            }
        }
        while self.paid_order.len() > MAX_WATCHED {
            if let Some((oldest, _)) = self.paid_order.pop_front() {
                self.paid.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, TxIn, TxOut};

    use super::*;

    fn pays(spk: &ScriptBuf, spends: Option<OutPoint>, lock: u32) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock),
            input: spends
                .into_iter()
                .map(|previous_output| TxIn { previous_output, ..TxIn::default() })
                .collect(),
            output: vec![TxOut { value: Amount::from_sat(1000), script_pubkey: spk.clone() }],
        }
    }

    #[test]
    fn what_is_unwatched_concerns_nobody_and_leaves_room() {
        let spk = |n: u8| ScriptBuf::from_bytes(vec![0x51, n]);
        let mut watcher = Watcher::new();
        watcher.watch_spk(spk(1)).unwrap();
        watcher.watch_spk(spk(2)).unwrap();
        let [first, second] = [1, 2].map(|n| pays(&spk(n), None, n.into()));
        let update =
            ChainUpdate { mempool: vec![first.clone(), second.clone()], ..ChainUpdate::default() };
        assert_eq!(watcher.reduce(&update).mempool.len(), 2);
        let paid = |tx: &Transaction| OutPoint { txid: tx.compute_txid(), vout: 0 };
        watcher.watch_outpoint(paid(&first)).unwrap();
        let [spend_1, spend_2] =
            [&first, &second].map(|tx| pays(&ScriptBuf::new(), Some(paid(tx)), 9));
        assert!(watcher.concerns(&spend_1) && watcher.concerns(&spend_2));
        watcher.unwatch(&[spk(1)], &[paid(&first)]);
        assert!(!watcher.concerns(&spend_1) && !watcher.concerns(&first));
        assert!(watcher.concerns(&spend_2) && watcher.concerns(&second));
        assert_eq!((watcher.paid.len(), watcher.paid_order.len()), (1, 1));
        assert_eq!((watcher.spks.len(), watcher.outpoints.len()), (1, 0));
    }

    #[test]
    fn a_full_list_keeps_what_it_has_and_takes_it_again() {
        let spk = |n: u32| ScriptBuf::from_bytes([&[0x51][..], &n.to_be_bytes()].concat());
        let outpoint = |n| OutPoint { txid: pays(&spk(0), None, 0).compute_txid(), vout: n };
        let mut watcher = Watcher::new();
        for n in 0..250_000 {
            watcher.watch_spk(spk(n)).unwrap();
            watcher.watch_outpoint(outpoint(n)).unwrap();
        }
        assert_eq!(watcher.watch_spk(spk(250_000)), Err(WatchFull));
        assert_eq!(watcher.watch_outpoint(outpoint(250_000)), Err(WatchFull));
        assert_eq!(watcher.watch_spk(spk(0)), Ok(()));
        assert_eq!(watcher.watch_outpoint(outpoint(0)), Ok(()));
        assert!(watcher.concerns(&pays(&spk(0), None, 1)));
        assert!(watcher.concerns(&pays(&ScriptBuf::new(), Some(outpoint(0)), 1)));
        watcher.unwatch(&[spk(0)], &[outpoint(0)]);
        assert_eq!(watcher.watch_spk(spk(250_000)), Ok(()));
        assert_eq!(watcher.watch_outpoint(outpoint(250_000)), Ok(()));
    }

    #[test]
    fn parts_of_a_scan_add_up_to_what_stands_at_its_end() {
        let tx = |height| Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(height),
            input: Vec::new(),
            output: Vec::new(),
        };
        let (left, moved) = (tx(1), tx(2));
        let (a, b) = (left.compute_txid(), moved.compute_txid());
        let mut all = Relevant {
            connected: vec![(5, a, left.clone()), (5, b, moved.clone())],
            ..Relevant::default()
        };
        all.append(Relevant {
            connected: vec![(6, b, moved.clone())],
            mempool: vec![left.clone()],
            disconnected: vec![b, a],
        });
        assert_eq!(all.connected, [(6, b, moved)]);
        assert_eq!((all.mempool, all.disconnected), (vec![left], vec![b, a]));
    }
}
