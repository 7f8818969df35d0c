//! The chain itself: block tree, unspent outputs, mempool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::constants::genesis_block;
use bitcoin::{Block, BlockHash, Network, OutPoint, Script, Transaction, TxOut, Txid, Weight};

use super::admission::Rules;
use super::block::{build_block, check_block, check_header, check_sigops, subsidy_sat};
use super::consensus::{Coin, Place, check_inputs, is_final, sequence_locks_reached};
use super::faucet::faucet_script;
use super::mempool::Mempool;
use super::policy::Policy;
use super::reject::Reject;
use super::script::verify_scripts;
use crate::chain::FEE_FLOOR_SAT_KVB;

/// Blocks that a new devchain starts with: 100 of them are mature.
pub const PREMINED_BLOCKS: u32 = 200;

/// Most blocks kept, all branches together: more than five days at two per second, about
/// half a GB.
pub const MAX_BLOCKS: usize = 1_000_000;

/// Blocks over whose times the median is taken.
const MEDIAN_SPAN: usize = 11;

/// Weight kept free for the header and the coinbase when a block is filled.
const RESERVED_WEIGHT: Weight = Weight::from_wu(8_000);

/// What connecting a block changed, to take it back.
#[derive(Debug, Clone, Default)]
struct Undo {
    created: Vec<OutPoint>,
    spent: Vec<(OutPoint, Coin)>,
}

#[derive(Debug, Clone)]
struct Node {
    block: Arc<Block>,
    height: u32,
    mtp_s: u32,
    /// Order of arrival: of two branches of equal height the first seen is the best.
    arrival: u64,
    /// Marked by hand, or found invalid.
    invalid: bool,
    /// Set while the block is on the best chain.
    undo: Option<Undo>,
}

impl Node {
    /// More is better: every block holds the same work, so height decides, then who came
    /// first.
    fn rank(&self) -> (u32, u64) {
        (self.height, u64::MAX - self.arrival)
    }
}

/// A chain with Bitcoin's regtest rules.
#[derive(Debug, Clone)]
pub struct Devchain {
    nodes: HashMap<BlockHash, Node>,
    active: Vec<BlockHash>,
    pub(super) coins: HashMap<OutPoint, Coin>,
    pub(super) mempool: Mempool,
    pub(super) policy: Policy,
    /// Where each transaction of the best chain stands.
    pub(super) confirmed: HashMap<Txid, u32>,
    arrivals: u64,
    fees: Fees,
}

/// What block space costs on this chain, sat per 1,000 vB. A test changes it; a devchain that
/// nobody asked to mines everything that it relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// What every estimate says, whatever the target.
    pub estimate_sat_kvb: u64,
    /// A miner leaves out what pays less.
    pub mined_sat_kvb: u64,
}

impl Default for Fees {
    fn default() -> Self {
        Self { estimate_sat_kvb: FEE_FLOOR_SAT_KVB, mined_sat_kvb: 0 }
    }
}

impl Devchain {
    /// A chain of [`PREMINED_BLOCKS`] blocks that pay the faucet, one second apart, the
    /// last at `now_s` (unix seconds).
    pub fn new(now_s: u32) -> Self {
        let mut chain = Self::genesis();
        let payee = faucet_script();
        for left in (0..PREMINED_BLOCKS).rev() {
            // Nothing can refuse an empty block on the tip; a clock before 2011 only makes
            // the times differ.
            let _ = chain.mine(&payee, now_s.saturating_sub(left));
        }
        chain
    }

    /// A chain of the regtest genesis block alone.
    pub fn genesis() -> Self {
        let block = genesis_block(Network::Regtest);
        let hash = block.block_hash();
        let node = Node {
            mtp_s: block.header.time,
            block: Arc::new(block),
            height: 0,
            arrival: 0,
            invalid: false,
            undo: None,
        };
        Self {
            nodes: HashMap::from([(hash, node)]),
            active: vec![hash],
            // The coinbase of the genesis block cannot be spent.
            coins: HashMap::new(),
            mempool: Mempool::default(),
            policy: Policy::default(),
            confirmed: HashMap::new(),
            arrivals: 0,
            fees: Fees::default(),
        }
    }

    /// Replaces the mempool settings.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Replaces what block space costs.
    pub fn set_fees(&mut self, fees: Fees) {
        self.fees = fees;
    }

    /// What block space costs.
    pub fn fees(&self) -> Fees {
        self.fees
    }

    /// Forgets an unconfirmed transaction and all that depend on it, as a mempool does when
    /// it is full or restarted.
    pub fn evict(&mut self, txid: Txid) {
        self.mempool.remove_with_descendants(txid);
    }

    /// Height of the best block.
    pub fn height(&self) -> u32 {
        self.active.len() as u32 - 1
    }

    /// Hash of the best block.
    pub fn tip(&self) -> BlockHash {
        self.active[self.active.len() - 1]
    }

    /// Median time past of the best block, unix seconds.
    pub fn median_time_past_s(&self) -> u32 {
        self.nodes[&self.tip()].mtp_s
    }

    /// The best chain's block hash at a height.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(height as usize).copied()
    }

    /// A block of any branch.
    pub fn block(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.nodes.get(hash).map(|node| &node.block)
    }

    /// Height and median time past of a block of any branch.
    pub fn position(&self, hash: &BlockHash) -> Option<(u32, u32)> {
        self.nodes.get(hash).map(|node| (node.height, node.mtp_s))
    }

    /// Time of the best block, unix seconds.
    pub fn tip_time_s(&self) -> u32 {
        self.nodes[&self.tip()].block.header.time
    }

    /// An unspent confirmed output.
    pub fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// Number of unspent confirmed outputs.
    pub fn coin_count(&self) -> usize {
        self.coins.len()
    }

    /// A confirmed transaction and its height.
    pub fn confirmed_tx(&self, txid: &Txid) -> Option<(u32, &Transaction)> {
        let height = *self.confirmed.get(txid)?;
        let block = &self.nodes[&self.hash_at(height)?].block;
        let tx = block.txdata.iter().find(|tx| tx.compute_txid() == *txid)?;
        Some((height, tx))
    }

    /// The unconfirmed transactions.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// Mines one block on the tip from the mempool. Its time is `now_s` or, if that is too
    /// early, one second past the median.
    ///
    /// # Errors
    /// `chain-full` at [`MAX_BLOCKS`]; `time-too-new` if blocks ran two hours ahead.
    pub fn mine(&mut self, payee: &Script, now_s: u32) -> Result<BlockHash, Reject> {
        let block = self.template(payee, now_s);
        self.submit_block(block, now_s)
    }

    /// The block that [`Self::mine`] would submit, solved.
    pub fn template(&self, payee: &Script, now_s: u32) -> Block {
        let budget = Weight::MAX_BLOCK - RESERVED_WEIGHT;
        let (txs, fees_sat) = self.mempool.select(budget, self.fees.mined_sat_kvb);
        let time_s = now_s.max(self.median_time_past_s().saturating_add(1));
        build_block(self.tip(), self.height() + 1, time_s, txs, fees_sat, payee, self.arrivals)
    }

    /// Takes a block; if it makes the best chain, connects it.
    ///
    /// # Errors
    /// Core's reason. A block on a shorter branch is stored and not yet checked for what it
    /// spends.
    pub fn submit_block(&mut self, block: Block, now_s: u32) -> Result<BlockHash, Reject> {
        let hash = block.block_hash();
        if let Some(node) = self.nodes.get(&hash) {
            return Err(Reject::new(if node.invalid { "duplicate-invalid" } else { "duplicate" }));
        }
        self.check_room()?;
        let Some(parent) = self.nodes.get(&block.header.prev_blockhash) else {
            return Err(Reject::new("prev-blk-not-found"));
        };
        if parent.invalid {
            return Err(Reject::new("bad-prevblk"));
        }
        let height = parent.height + 1;
        check_header(&block.header, parent.mtp_s, now_s)?;
        check_block(&block, height)?;
        self.store(hash, block, height);
        match self.activate(Some(hash)) {
            Some((bad, reject)) if bad == hash => Err(reject),
            _ => Ok(hash),
        }
    }

    /// Whether one more block can be kept: a bound of this chain, not of Bitcoin.
    fn check_room(&self) -> Result<(), Reject> {
        match self.nodes.len() >= MAX_BLOCKS {
            true => Err(Reject::new("chain-full")),
            false => Ok(()),
        }
    }

    fn store(&mut self, hash: BlockHash, block: Block, height: u32) {
        self.arrivals += 1;
        let node = Node {
            mtp_s: self.median_with(&block),
            block: Arc::new(block),
            height,
            arrival: self.arrivals,
            invalid: false,
            undo: None,
        };
        self.nodes.insert(hash, node);
    }

    /// Median of the times of a block and its ten ancestors.
    fn median_with(&self, block: &Block) -> u32 {
        let mut times = vec![block.header.time];
        let mut hash = block.header.prev_blockhash;
        while let Some(node) = self.nodes.get(&hash).filter(|_| times.len() < MEDIAN_SPAN) {
            times.push(node.block.header.time);
            hash = node.block.header.prev_blockhash;
        }
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// Moves to `candidate` if it is better than the tip. If it proves invalid, moves to the
    /// best of what is left. Gives the first block found invalid on the way.
    fn activate(&mut self, mut candidate: Option<BlockHash>) -> Option<(BlockHash, Reject)> {
        let mut returned = Vec::new();
        let mut first_bad = None;
        let mut moved = false;
        while let Some(path) = candidate.and_then(|hash| self.path_to(hash)) {
            moved |= path.fork < self.height();
            while self.height() > path.fork {
                returned.splice(0..0, self.disconnect_tip());
            }
            candidate = None;
            for hash in path.up {
                if let Err(reject) = self.connect(hash) {
                    self.mark_invalid(hash);
                    first_bad.get_or_insert((hash, reject));
                    candidate = self.best();
                    break;
                }
            }
        }
        if moved {
            self.refill_mempool(returned);
        }
        first_bad
    }

    /// The best valid block of all branches.
    fn best(&self) -> Option<BlockHash> {
        let valid = self.nodes.iter().filter(|(_, node)| !node.invalid);
        valid.max_by_key(|(_, node)| node.rank()).map(|(hash, _)| *hash)
    }

    /// The way to `target`, or `None` if the tip is at least as good.
    fn path_to(&self, target: BlockHash) -> Option<Path> {
        let tip = &self.nodes[&self.tip()];
        if !tip.invalid && self.nodes[&target].rank() <= tip.rank() {
            return None;
        }
        let mut up = Vec::new();
        let mut hash = target;
        loop {
            let node = &self.nodes[&hash];
            if self.hash_at(node.height) == Some(hash) {
                up.reverse();
                return Some(Path { fork: node.height, up });
            }
            up.push(hash);
            hash = node.block.header.prev_blockhash;
        }
    }

    fn connect(&mut self, hash: BlockHash) -> Result<(), Reject> {
        let block = self.nodes[&hash].block.clone();
        let height = self.height() + 1;
        let mut undo = Undo::default();
        if let Err(reject) = self.apply(&block, height, &mut undo) {
            self.revert(undo);
            return Err(reject);
        }
        self.active.push(hash);
        if let Some(node) = self.nodes.get_mut(&hash) {
            node.undo = Some(undo);
        }
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            self.confirmed.insert(txid, height);
            self.settle_in_mempool(tx, &txid);
        }
        Ok(())
    }

    fn apply(&mut self, block: &Block, height: u32, undo: &mut Undo) -> Result<(), Reject> {
        let mut fees_sat = 0u64;
        let mut sigops = 0usize;
        for tx in &block.txdata {
            let (spent, fee_sat) = match tx.is_coinbase() {
                true => (Vec::new(), 0),
                false => self.spend_in_block(tx, height, undo)?,
            };
            fees_sat = fees_sat.saturating_add(fee_sat);
            sigops += sigop_cost(tx, &spent);
            check_sigops(sigops)?;
            self.create_outputs(tx, height, undo);
        }
        let claimed_sat: u64 = block.txdata[0].output.iter().map(|o| o.value.to_sat()).sum();
        let allowed_sat = subsidy_sat(height).saturating_add(fees_sat);
        match claimed_sat > allowed_sat {
            true => Err(Reject::with(
                "bad-cb-amount",
                format!("coinbase pays too much (actual={claimed_sat} vs limit={allowed_sat})"),
            )),
            false => Ok(()),
        }
    }

    /// Checks a transaction of a block against the coins and takes those it spends; gives
    /// them and the fee in sat.
    fn spend_in_block(
        &mut self,
        tx: &Transaction,
        height: u32,
        undo: &mut Undo,
    ) -> Result<(Vec<Coin>, u64), Reject> {
        let spent: Vec<Coin> = tx
            .input
            .iter()
            .map(|input| self.coins.get(&input.previous_output).cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| Reject::new("bad-txns-inputs-missingorspent"))?;
        let fee_sat = check_inputs(tx, &spent, height)?;
        let mtp_at = |h: u32| self.mtp_at(h);
        let place = Place { height, mtp_s: self.median_time_past_s(), mtp_at: &mtp_at };
        if !is_final(tx, &place) || !sequence_locks_reached(tx, &spent, &place) {
            return Err(Reject::with("bad-txns-nonfinal", "non-final transaction"));
        }
        // The same bytes with the same coins passed already if the mempool holds them.
        let checked = self
            .mempool
            .get(&tx.compute_txid())
            .is_some_and(|entry| entry.wtxid == tx.compute_wtxid());
        if !checked {
            verify_scripts(tx, &spent)?;
        }
        for (input, coin) in tx.input.iter().zip(&spent) {
            self.coins.remove(&input.previous_output);
            undo.spent.push((input.previous_output, coin.clone()));
        }
        Ok((spent, fee_sat))
    }

    fn create_outputs(&mut self, tx: &Transaction, height: u32, undo: &mut Undo) {
        let txid = tx.compute_txid();
        for (vout, output) in (0u32..).zip(&tx.output) {
            // Never spendable, so never a coin.
            if output.script_pubkey.is_op_return() {
                continue;
            }
            let outpoint = OutPoint { txid, vout };
            let coin = Coin { output: output.clone(), height, coinbase: tx.is_coinbase() };
            self.coins.insert(outpoint, coin);
            undo.created.push(outpoint);
        }
    }

    fn revert(&mut self, undo: Undo) {
        self.coins.extend(undo.spent);
        for outpoint in undo.created {
            self.coins.remove(&outpoint);
        }
    }

    /// Takes the tip off the chain; gives its transactions but for the coinbase.
    fn disconnect_tip(&mut self) -> Vec<Transaction> {
        let hash = self.tip();
        self.active.pop();
        let Some(node) = self.nodes.get_mut(&hash) else {
            return Vec::new();
        };
        let undo = node.undo.take().unwrap_or_default();
        let block = node.block.clone();
        self.revert(undo);
        for tx in &block.txdata {
            self.confirmed.remove(&tx.compute_txid());
        }
        block.txdata[1..].to_vec()
    }

    /// A confirmed transaction leaves the mempool, and with it whatever it contradicts.
    fn settle_in_mempool(&mut self, tx: &Transaction, txid: &Txid) {
        self.mempool.remove(txid);
        for input in &tx.input {
            if let Some(other) = self.mempool.spender(&input.previous_output) {
                self.mempool.remove_with_descendants(other);
            }
        }
    }

    /// After a reorganisation: what left the chain returns, and everything is judged anew
    /// (a lock may be open again, a coinbase immature or gone).
    fn refill_mempool(&mut self, returned: Vec<Transaction>) {
        let held = self.mempool.drain();
        let all = returned.into_iter().chain(held.into_iter().map(Arc::unwrap_or_clone));
        for tx in all {
            // Those that are not valid on the new branch are dropped, as Core does.
            if let Ok(plan) = self.evaluate(&tx, Rules::Consensus) {
                self.admit(tx, plan);
            }
        }
    }

    fn mark_invalid(&mut self, bad: BlockHash) {
        let mut marked = HashSet::from([bad]);
        let Some(from) = self.nodes.get(&bad).map(|node| node.height) else {
            return;
        };
        let mut above: Vec<(u32, BlockHash, BlockHash)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.height > from)
            .map(|(hash, node)| (node.height, *hash, node.block.header.prev_blockhash))
            .collect();
        above.sort_unstable();
        for (_, hash, prev) in above {
            if marked.contains(&prev) {
                marked.insert(hash);
            }
        }
        for hash in marked {
            if let Some(node) = self.nodes.get_mut(&hash) {
                node.invalid = true;
            }
        }
    }

    /// Treats a block and all above it as invalid and moves to the best of what is left
    /// (Core's `invalidateblock`). Transactions return to the mempool.
    ///
    /// # Errors
    /// `block-not-found`; `genesis` cannot be invalidated.
    pub fn invalidate_block(&mut self, hash: &BlockHash) -> Result<(), Reject> {
        let node = self.nodes.get(hash).ok_or_else(|| Reject::new("block-not-found"))?;
        if node.height == 0 {
            return Err(Reject::new("genesis"));
        }
        self.mark_invalid(*hash);
        self.activate(self.best());
        Ok(())
    }

    /// Takes back [`Self::invalidate_block`] for a block, what is above it and what it
    /// stands on.
    ///
    /// # Errors
    /// `block-not-found`.
    pub fn reconsider_block(&mut self, hash: &BlockHash) -> Result<(), Reject> {
        let node = self.nodes.get(hash).ok_or_else(|| Reject::new("block-not-found"))?;
        let from = node.height;
        let mut below = Some(*hash);
        while let Some(node) = below.and_then(|h| self.nodes.get_mut(&h)).filter(|n| n.invalid) {
            node.invalid = false;
            below = Some(node.block.header.prev_blockhash);
        }
        let mut above: Vec<(u32, BlockHash)> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.height > from)
            .map(|(hash, node)| (node.height, *hash))
            .collect();
        above.sort_unstable();
        let mut cleared = HashSet::from([*hash]);
        for (_, hash) in above {
            let Some(node) = self.nodes.get_mut(&hash) else {
                continue;
            };
            if cleared.contains(&node.block.header.prev_blockhash) {
                node.invalid = false;
                cleared.insert(hash);
            }
        }
        self.activate(self.best());
        Ok(())
    }

    /// Median time past at a height of the best chain, unix seconds.
    pub(super) fn mtp_at(&self, height: u32) -> u32 {
        self.hash_at(height).map_or(0, |hash| self.nodes[&hash].mtp_s)
    }
}

struct Path {
    /// Height of the last common block.
    fork: u32,
    /// Blocks above it, lowest first.
    up: Vec<BlockHash>,
}

/// Signature operations of a transaction, weighted (BIP-141).
pub(super) fn sigop_cost(tx: &Transaction, spent: &[Coin]) -> usize {
    let outputs: HashMap<OutPoint, &TxOut> =
        tx.input.iter().map(|i| i.previous_output).zip(spent.iter().map(|c| &c.output)).collect();
    tx.total_sigop_cost(|outpoint| outputs.get(outpoint).map(|output| (*output).clone()))
}
