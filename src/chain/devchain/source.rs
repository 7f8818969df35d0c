//! A devchain in this process as a chain source: for tests and the simulator.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::{BlockHash, Transaction, Txid};

use super::chain::Devchain;
use crate::chain::{
    Behind, ChainError, ChainSource, ChainUpdate, FEE_FLOOR_SAT_KVB, FEE_TARGETS, TxSender,
};

/// Most blocks in one update; the next call continues.
const MAX_BLOCKS_PER_UPDATE: usize = 512;

/// A reader's place on a [`Devchain`]: tells what changed since it last asked. Pure.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Height of the next block to deliver.
    next: u32,
    /// The block below it, if this cursor has seen it.
    last: Option<BlockHash>,
    told: Option<BlockHash>,
    mempool: Arc<HashSet<Txid>>,
    rescan: Option<u32>,
}

impl Cursor {
    /// A place below the block at `height`, which is the first to be delivered.
    pub fn at(height: u32) -> Self {
        Self { next: height, last: None, told: None, mempool: Arc::default(), rescan: None }
    }

    /// Delivers again from `height` on, and the whole mempool.
    pub fn rescan_from(&mut self, height: u32) {
        self.rescan = Some(self.rescan.map_or(height, |earlier| earlier.min(height)));
    }

    /// What changed on `chain` since the last call.
    pub fn changes(&mut self, chain: &Devchain) -> Option<ChainUpdate> {
        let mut update = ChainUpdate::default();
        self.leave_stale_branch(chain, &mut update);
        if let Some(height) = self.rescan.take() {
            if height < self.next {
                self.next = height;
                self.last = None;
            }
            self.mempool = Arc::default();
        }
        while update.connected.len() < MAX_BLOCKS_PER_UPDATE {
            let Some(hash) = chain.hash_at(self.next) else {
                break;
            };
            let Some(block) = chain.block(&hash) else {
                break;
            };
            update.connected.push((self.next, block.clone()));
            self.next += 1;
            self.last = Some(hash);
        }
        self.collect_mempool(chain, &mut update);
        self.describe_tip(chain, update)
    }

    fn leave_stale_branch(&mut self, chain: &Devchain, update: &mut ChainUpdate) {
        while let Some(hash) = self.last {
            let Some(height) = self.next.checked_sub(1) else {
                break;
            };
            let Some(block) = chain.block(&hash).filter(|_| chain.hash_at(height) != Some(hash))
            else {
                break;
            };
            update.disconnected.push((height, block.clone()));
            self.last = Some(block.header.prev_blockhash);
            self.next = height;
        }
    }

    fn collect_mempool(&mut self, chain: &Devchain, update: &mut ChainUpdate) {
        if self.next <= chain.height() {
            return;
        }
        let waiting: HashSet<Txid> = chain.mempool().iter().map(|(txid, _)| *txid).collect();
        let fresh = chain.mempool().iter().filter(|(txid, _)| !self.mempool.contains(*txid));
        update.mempool.extend(fresh.map(|(_, entry)| (*entry.tx).clone()));
        self.mempool = Arc::new(waiting);
        update.waiting = Some(Arc::clone(&self.mempool));
    }

    fn describe_tip(&mut self, chain: &Devchain, mut update: ChainUpdate) -> Option<ChainUpdate> {
        let tip = self.last.unwrap_or_else(|| chain.tip());
        let (height, mtp_s) = chain.position(&tip)?;
        update.tip = Some(tip);
        update.height = height;
        let to = chain.height();
        update.behind = (self.next <= to).then_some(Behind::Reading { to });
        update.median_time_past_s = mtp_s;
        update.tip_time_s = chain.block(&tip).map_or(0, |block| block.header.time);
        update.least_feerate_sat_kvb = FEE_FLOOR_SAT_KVB;
        let estimate_sat_kvb = chain.fees().estimate_sat_kvb;
        update.feerates = FEE_TARGETS.map(|target| (target, estimate_sat_kvb)).to_vec();
        let changed = self.told.replace(tip) != Some(tip)
            || !update.disconnected.is_empty()
            || !update.connected.is_empty()
            || !update.mempool.is_empty();
        changed.then_some(update)
    }
}

/// A shared devchain behind [`ChainSource`].
#[derive(Debug, Clone)]
pub struct DevchainSource {
    chain: Arc<Mutex<Devchain>>,
    cursor: Cursor,
}

impl DevchainSource {
    /// Reads `chain`, delivering first the block at `from_height`.
    pub fn new(chain: Arc<Mutex<Devchain>>, from_height: u32) -> Self {
        Self { chain, cursor: Cursor::at(from_height) }
    }
}

/// A panic of another holder left the chain between two of its own steps at worst.
pub(super) fn lock(chain: &Mutex<Devchain>) -> MutexGuard<'_, Devchain> {
    chain.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl ChainSource for DevchainSource {
    async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError> {
        Ok(self.cursor.changes(&lock(&self.chain)))
    }

    fn sender(&self) -> Arc<dyn TxSender> {
        Arc::new(DevchainSender(Arc::clone(&self.chain)))
    }

    async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError> {
        self.cursor.rescan_from(height);
        Ok(())
    }

    fn name(&self) -> &str {
        "devchain"
    }
}

#[derive(Debug)]
struct DevchainSender(Arc<Mutex<Devchain>>);

#[async_trait]
impl TxSender for DevchainSender {
    async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        match lock(&self.0).submit_tx(tx.clone()) {
            Ok(txid) => Ok(txid),
            Err(reject) if reject.is_already_known() => Ok(tx.compute_txid()),
            Err(reject) => Err(ChainError::rejected(&reject.to_string())),
        }
    }
}
