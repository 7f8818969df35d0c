//! Polling one server for what changed.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Block, BlockHash, Network, Transaction, Txid};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{NOT_FOUND, OUT_OF_RANGE, RpcClient, blocking, malformed};
use crate::chain::{ChainError, ChainSource, ChainUpdate, FEE_FLOOR_SAT_KVB, FEE_TARGETS};

/// Most blocks in one update: on mainnet some 200 MB in memory at worst.
const MAX_BLOCKS_PER_POLL: u32 = 32;
/// Most mempool transactions fetched in one poll; a first look at a full mainnet mempool
/// takes many polls, and each stays short.
const MAX_MEMPOOL_PER_POLL: usize = 256;
/// Block hashes remembered: two weeks of chain blocks, deeper than any reorganisation.
const MAX_REMEMBERED: usize = 2_016;
/// Blocks kept whole, to tell what left the chain even to a server that forgot them.
const MAX_KEPT_BLOCKS: usize = 6;

/// Where and how an [`RpcSource`] reads.
#[derive(Debug, Clone)]
pub struct RpcConfig {
    pub client: RpcClient,
    /// The network that the server must follow.
    pub network: Network,
    /// Height of the first block to deliver when there is no checkpoint.
    pub start_height: u32,
    /// Blocks that the caller has processed: (height, hash), lowest first, gaps allowed.
    /// Delivery goes on above the highest; what is no longer on the best chain is
    /// disconnected first.
    pub checkpoints: Vec<(u32, BlockHash)>,
}

/// A Bitcoin Core or devchain server as a chain source.
///
/// Polling is safe to cancel: an update that was not taken is given by the next poll.
#[derive(Debug)]
pub struct RpcSource {
    client: RpcClient,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    network: Network,
    start_height: u32,
    branch: Branch,
    rescan: Option<u32>,
    mempool: HashSet<Txid>,
    median_time_past_s: u32,
    feerates: Vec<(u16, u64)>,
    told: Option<BlockHash>,
    pending: Option<ChainUpdate>,
}

#[derive(Debug, Clone)]
struct Seen {
    height: u32,
    hash: BlockHash,
    block: Option<Arc<Block>>,
}

/// The blocks delivered last, lowest first, and the height to deliver next.
#[derive(Debug, Clone)]
struct Branch {
    seen: VecDeque<Seen>,
    next: u32,
}

#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
    blocks: u32,
    bestblockhash: BlockHash,
}

#[derive(Deserialize)]
struct HeaderInfo {
    mediantime: u32,
}

#[derive(Deserialize)]
struct FeeEstimate {
    feerate: Option<f64>,
}

#[derive(Deserialize)]
struct MempoolInfo {
    mempoolminfee: f64,
}

impl RpcSource {
    /// A source that begins where `config` says. Makes no connection before the first poll.
    pub fn new(config: RpcConfig) -> Self {
        let mut seen: VecDeque<Seen> = config
            .checkpoints
            .iter()
            .map(|&(height, hash)| Seen { height, hash, block: None })
            .collect();
        seen.make_contiguous().sort_by_key(|seen| seen.height);
        let next = seen.back().map_or(config.start_height, |top| top.height + 1);
        let state = State {
            network: config.network,
            start_height: config.start_height,
            branch: Branch { seen, next },
            rescan: None,
            mempool: HashSet::new(),
            median_time_past_s: 0,
            feerates: Vec::new(),
            told: None,
            pending: None,
        };
        Self { client: config.client, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl ChainSource for RpcSource {
    async fn poll(&mut self) -> Result<Option<ChainUpdate>, ChainError> {
        let (client, state) = (self.client.clone(), self.state.clone());
        blocking(move || {
            let mut state = lock(&state);
            if state.pending.is_none() {
                state.pending = state.step(&client)?;
            }
            Ok(())
        })
        .await?;
        Ok(self.state().pending.take())
    }

    async fn broadcast(&mut self, tx: &Transaction) -> Result<Txid, ChainError> {
        self.client.broadcast(tx).await
    }

    async fn rescan_from(&mut self, height: u32) -> Result<(), ChainError> {
        let state = self.state.clone();
        // A poll that was cancelled may still hold the lock for the length of a call.
        blocking(move || {
            let mut state = lock(&state);
            state.rescan = Some(state.rescan.map_or(height, |earlier| earlier.min(height)));
            Ok(())
        })
        .await
    }

    fn name(&self) -> &str {
        "bitcoind"
    }
}

impl State {
    /// One look at the server. Nothing of the state changes unless all of it succeeds.
    fn step(&mut self, client: &RpcClient) -> Result<Option<ChainUpdate>, ChainError> {
        let info: ChainInfo = client.call_blocking("getblockchaininfo", &[])?;
        self.check_network(&info.chain)?;
        let mut update = ChainUpdate::default();
        let mut branch = self.branch.clone();
        if branch.tip() != Some(info.bestblockhash) {
            update.disconnected = branch.leave_stale(client, &info, self.start_height)?;
        }
        if let Some(height) = self.rescan {
            branch.rewind(height);
        }
        update.connected = branch.follow(client, info.blocks)?;
        let tip = branch.tip().unwrap_or(info.bestblockhash);
        if self.told != Some(tip) {
            self.median_time_past_s = mediantime(client, tip)?;
            self.feerates = feerates(client)?;
        }
        let nothing = HashSet::new();
        let known = if self.rescan.is_some() { &nothing } else { &self.mempool };
        // Last of the calls that may fail: from here on the state changes.
        let mempool = match branch.next > info.blocks {
            true => Some(fetch_mempool(client, known, &mut update)?),
            false => self.rescan.map(|_| HashSet::new()),
        };
        if let Some(mempool) = mempool {
            self.mempool = mempool;
        }
        self.rescan = None;
        update.tip = Some(tip);
        update.height = branch.height().unwrap_or(info.blocks);
        update.behind = branch.next <= info.blocks;
        update.median_time_past_s = self.median_time_past_s;
        update.feerates = self.feerates.clone();
        let changed = self.told != Some(tip)
            || !update.disconnected.is_empty()
            || !update.connected.is_empty()
            || !update.mempool.is_empty();
        self.branch = branch;
        self.told = Some(tip);
        Ok(changed.then_some(update))
    }

    fn check_network(&self, chain: &str) -> Result<(), ChainError> {
        let expected = self.network.to_core_arg();
        match chain == expected {
            true => Ok(()),
            false => Err(ChainError::WrongNetwork {
                expected: expected.to_owned(),
                got: crate::chain::error::clean(chain),
            }),
        }
    }
}

impl Branch {
    fn tip(&self) -> Option<BlockHash> {
        self.seen.back().filter(|top| top.height + 1 == self.next).map(|top| top.hash)
    }

    fn height(&self) -> Option<u32> {
        self.tip().and(self.next.checked_sub(1))
    }

    /// Steps back to the last block that is on the server's best chain; gives what was
    /// left, highest first. A block that nobody has any more is left out: whoever compares
    /// hashes at a height notices (see [`crate::chain::Watcher`]).
    fn leave_stale(
        &mut self,
        client: &RpcClient,
        info: &ChainInfo,
        start_height: u32,
    ) -> Result<Vec<(u32, Arc<Block>)>, ChainError> {
        let mut left = Vec::new();
        let mut lowest = self.next;
        while let Some(top) = self.seen.back().cloned() {
            if top.height <= info.blocks && hash_at(client, top.height)? == Some(top.hash) {
                self.next = top.height + 1;
                return Ok(left);
            }
            self.seen.pop_back();
            lowest = top.height;
            let block = match top.block {
                Some(block) => Some(block),
                None if left.len() < MAX_REMEMBERED => block_by_hash(client, top.hash)?,
                None => None,
            };
            let Some(block) = block else { continue };
            self.insert_parent(top.height, block.header.prev_blockhash);
            left.push((top.height, block));
        }
        if lowest != self.next || !left.is_empty() {
            // Not one block is shared: the server's chain began anew.
            self.next = lowest.min(start_height);
        }
        Ok(left)
    }

    /// The parent of a stale block may be stale as well, though the caller named no hash
    /// for it.
    fn insert_parent(&mut self, height: u32, hash: BlockHash) {
        let Some(below) = height.checked_sub(1) else {
            return;
        };
        if self.seen.back().is_some_and(|top| top.height < below) {
            self.seen.push_back(Seen { height: below, hash, block: None });
        }
    }

    /// Forgets what was delivered from `height` on.
    fn rewind(&mut self, height: u32) {
        if height >= self.next {
            return;
        }
        while self.seen.back().is_some_and(|top| top.height >= height) {
            self.seen.pop_back();
        }
        self.next = height;
    }

    /// Delivers the next blocks of the best chain, up to `tip_height`.
    fn follow(
        &mut self,
        client: &RpcClient,
        tip_height: u32,
    ) -> Result<Vec<(u32, Arc<Block>)>, ChainError> {
        let end = tip_height.saturating_add(1).min(self.next.saturating_add(MAX_BLOCKS_PER_POLL));
        let heights: Vec<Vec<Value>> = (self.next..end).map(|h| vec![json!(h)]).collect();
        let mut connected = Vec::new();
        for hash in client.batch_blocking::<BlockHash>("getblockhash", &heights)? {
            let hash = match hash {
                Ok(hash) => hash,
                // The chain became shorter since we asked for its height.
                Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(block) = block_by_hash(client, hash)? else {
                break;
            };
            // The chain moved between the calls: the next poll finds the fork.
            if self.tip().is_some_and(|tip| tip != block.header.prev_blockhash) {
                break;
            }
            connected.push((self.next, block.clone()));
            self.push(hash, block);
        }
        Ok(connected)
    }

    fn push(&mut self, hash: BlockHash, block: Arc<Block>) {
        self.seen.push_back(Seen { height: self.next, hash, block: Some(block) });
        self.next += 1;
        if let Some(old) = self.seen.len().checked_sub(MAX_KEPT_BLOCKS + 1) {
            self.seen[old].block = None;
        }
        while self.seen.len() > MAX_REMEMBERED {
            self.seen.pop_front();
        }
    }
}

fn hash_at(client: &RpcClient, height: u32) -> Result<Option<BlockHash>, ChainError> {
    match client.call_blocking("getblockhash", &[json!(height)]) {
        Ok(hash) => Ok(Some(hash)),
        Err(ChainError::Rpc { code: OUT_OF_RANGE, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn block_by_hash(client: &RpcClient, hash: BlockHash) -> Result<Option<Arc<Block>>, ChainError> {
    let hex: String = match client.call_blocking("getblock", &[json!(hash), json!(0)]) {
        Ok(hex) => hex,
        Err(ChainError::Rpc { code: NOT_FOUND, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let block: Block = deserialize_hex(&hex).map_err(malformed)?;
    match block.block_hash() == hash {
        true => Ok(Some(Arc::new(block))),
        false => Err(ChainError::Malformed(format!("another block than {hash}"))),
    }
}

fn mediantime(client: &RpcClient, hash: BlockHash) -> Result<u32, ChainError> {
    let header: HeaderInfo = client.call_blocking("getblockheader", &[json!(hash), json!(true)])?;
    Ok(header.mediantime)
}

/// Estimates for [`FEE_TARGETS`]; never under the floor, the server's own mempool minimum,
/// or the estimate of a longer target, so that a missing estimate does no harm.
fn feerates(client: &RpcClient) -> Result<Vec<(u16, u64)>, ChainError> {
    let info: MempoolInfo = client.call_blocking("getmempoolinfo", &[])?;
    let params: Vec<Vec<Value>> = FEE_TARGETS.iter().map(|target| vec![json!(target)]).collect();
    let estimates = client.batch_blocking::<FeeEstimate>("estimatesmartfee", &params)?;
    let mut least_sat = FEE_FLOOR_SAT_KVB.max(sat_kvb(info.mempoolminfee));
    let mut rates: Vec<(u16, u64)> = FEE_TARGETS
        .iter()
        .zip(estimates)
        .rev()
        .map(|(target, estimate)| {
            let rate = estimate.ok().and_then(|e| e.feerate).map_or(0, sat_kvb);
            least_sat = least_sat.max(rate);
            (*target, least_sat)
        })
        .collect();
    rates.reverse();
    Ok(rates)
}

/// BTC per kvB, as Core writes feerates, in sat per kvB; nonsense is zero.
fn sat_kvb(btc_kvb: f64) -> u64 {
    bitcoin::Amount::from_btc(btc_kvb).map_or(0, bitcoin::Amount::to_sat)
}

/// Puts the mempool's new transactions into `update`; gives all that are known now.
fn fetch_mempool(
    client: &RpcClient,
    known: &HashSet<Txid>,
    update: &mut ChainUpdate,
) -> Result<HashSet<Txid>, ChainError> {
    let listed: Vec<Txid> = client.call_blocking("getrawmempool", &[])?;
    let fresh: Vec<Txid> = listed
        .iter()
        .filter(|txid| !known.contains(*txid))
        .take(MAX_MEMPOOL_PER_POLL)
        .copied()
        .collect();
    let mut kept: HashSet<Txid> = listed.into_iter().filter(|txid| known.contains(txid)).collect();
    let params: Vec<Vec<Value>> = fresh.iter().map(|txid| vec![json!(txid)]).collect();
    for (txid, hex) in
        fresh.iter().zip(client.batch_blocking::<String>("getrawtransaction", &params)?)
    {
        match hex {
            Ok(hex) => update.mempool.push(deserialize_hex(&hex).map_err(malformed)?),
            // Mined or evicted since it was listed.
            Err(ChainError::Rpc { code: NOT_FOUND, .. }) => continue,
            Err(error) => return Err(error),
        }
        kept.insert(*txid);
    }
    Ok(kept)
}
