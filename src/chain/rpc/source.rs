//! Polling one server for what changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::{BlockHash, Network, Transaction, Txid};
use serde::Deserialize;
use serde_json::json;

use super::branch::{Branch, hash_at};
use super::client::{RpcClient, blocking};
use super::fees::{Feerates, feerates};
use super::pool::Pool;
use crate::chain::{Behind, ChainError, ChainSource, ChainUpdate, TxSender};
use crate::clock::now_ms;

/// A new wallet reads this many chain blocks before it looked at the chain first: a day, and
/// deeper than any reorganisation.
const BIRTHDAY_BLOCKS: u32 = 144;
/// How far the clocks of miners may be behind the one that wrote a wallet's birthday, seconds.
const BIRTHDAY_SLACK_S: u64 = 86_400;

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
    /// When the caller's keys were made, unix seconds, if that is known: with no checkpoint
    /// above genesis, blocks that are certainly older are not read.
    pub birthday_s: Option<u64>,
    /// How old the median time past of the last block may be, seconds; 0 for any age.
    pub max_tip_age_s: u32,
}

impl RpcConfig {
    /// Reads from `start_height` on, whatever the age of the tip.
    pub fn new(client: RpcClient, network: Network, start_height: u32) -> Self {
        Self {
            client,
            network,
            start_height,
            checkpoints: Vec::new(),
            birthday_s: None,
            max_tip_age_s: 0,
        }
    }
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
    birthday_s: Option<u64>,
    max_tip_age_s: u32,
    branch: Branch,
    rescan: Option<u32>,
    pool: Pool,
    /// Header of the tip that was described last.
    tip: Option<HeaderInfo>,
    feerates: Feerates,
    /// The tip that was described last, and what was said of it; nothing after an error.
    told: Option<(Option<BlockHash>, Option<Behind>)>,
    pending: Option<ChainUpdate>,
}

#[derive(Debug, Deserialize)]
struct ChainInfo {
    chain: String,
    blocks: u32,
    headers: u32,
    bestblockhash: BlockHash,
    initialblockdownload: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct HeaderInfo {
    time: u32,
    mediantime: u32,
}

impl RpcSource {
    /// A source that begins where `config` says. Makes no connection before the first poll.
    pub fn new(config: RpcConfig) -> Self {
        let state = State {
            network: config.network,
            start_height: config.start_height,
            birthday_s: config.birthday_s,
            max_tip_age_s: config.max_tip_age_s,
            branch: Branch::above(&config.checkpoints, config.start_height),
            rescan: None,
            pool: Pool::default(),
            tip: None,
            feerates: Feerates::default(),
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
                let step = state.step(&client);
                if step.is_err() {
                    // The caller takes this source for silent until it hears from it again.
                    state.told = None;
                }
                state.pending = step?;
            }
            Ok(())
        })
        .await?;
        Ok(self.state().pending.take())
    }

    fn sender(&self) -> Arc<dyn TxSender> {
        Arc::new(self.client.clone())
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

#[async_trait]
impl TxSender for RpcClient {
    async fn broadcast(&self, tx: &Transaction) -> Result<Txid, ChainError> {
        Self::broadcast(self, tx).await
    }
}

impl State {
    /// One look at the server. Nothing of the state changes unless all of it succeeds.
    fn step(&mut self, client: &RpcClient) -> Result<Option<ChainUpdate>, ChainError> {
        let info: ChainInfo = client.call_blocking("getblockchaininfo", &[])?;
        self.check_network(&info.chain)?;
        let mut update = ChainUpdate::default();
        let mut branch = self.branch.clone();
        let unborn_s = self.birthday_s.filter(|_| branch.is_unborn());
        if unborn_s.is_some() && self.is_downloading(&info) {
            // Its last block says nothing of when this wallet was born.
            let update = ChainUpdate { height: info.blocks, ..update };
            return Ok(self.describe(&info, &branch, update));
        }
        if branch.tip() != Some(info.bestblockhash) {
            update.disconnected = branch.leave_stale(client, info.blocks, self.start_height)?;
        }
        if let Some(born_s) = unborn_s {
            branch.next = birth_height(client, &info, born_s)?;
        }
        let mut again = None;
        if let Some(height) = self.rescan {
            again = branch.rewind(height);
        }
        let anew = self.rescan.is_some() && again.is_none();
        update.connected = again.unwrap_or_default();
        update.connected.extend(branch.follow(client, info.blocks)?);
        let tip = branch.tip().unwrap_or(info.bestblockhash);
        if self.told.is_none_or(|(told, _)| told != Some(tip)) {
            self.feerates = feerates(client)?;
            self.tip = Some(header(client, tip)?);
        }
        update.tip = Some(tip);
        update.height = branch.height().unwrap_or(info.blocks);
        // Last of the calls that may fail: from here on the state changes.
        let look = match branch.next > info.blocks {
            true => Some(self.pool.look(client, anew)?),
            false => None,
        };
        if anew {
            self.pool.clear();
        } else if self.rescan.is_some() {
            update.mempool = self.pool.recent();
        }
        self.rescan = None;
        if let Some(look) = look {
            let (fresh, waiting) = self.pool.take(look);
            update.mempool.extend(fresh);
            update.waiting = waiting;
        }
        let update = self.describe(&info, &branch, update);
        self.branch = branch;
        Ok(update)
    }

    fn header(&self) -> HeaderInfo {
        self.tip.unwrap_or_default()
    }

    /// Completes an update, unless it says nothing new.
    fn describe(
        &mut self,
        info: &ChainInfo,
        branch: &Branch,
        update: ChainUpdate,
    ) -> Option<ChainUpdate> {
        let behind = self.behind(info, branch, now_ms() / 1000);
        let telling = (update.tip, behind);
        let is_news = self.told.replace(telling) != Some(telling)
            || !update.disconnected.is_empty()
            || !update.connected.is_empty()
            || !update.mempool.is_empty();
        is_news.then(|| ChainUpdate {
            behind,
            median_time_past_s: self.header().mediantime,
            tip_time_s: self.header().time,
            feerates: self.feerates.estimates.clone(),
            least_feerate_sat_kvb: self.feerates.least_sat_kvb,
            ..update
        })
    }

    fn behind(&self, info: &ChainInfo, branch: &Branch, now_s: u64) -> Option<Behind> {
        let median_time_past_s = self.header().mediantime;
        let age_s = now_s.saturating_sub(median_time_past_s.into());
        if self.is_downloading(info) {
            Some(Behind::Downloading { headers: info.headers })
        } else if branch.next <= info.blocks {
            Some(Behind::Reading { to: info.blocks })
        } else if self.max_tip_age_s > 0 && age_s > self.max_tip_age_s.into() {
            Some(Behind::Old { median_time_past_s })
        } else {
            None
        }
    }

    /// Core takes any chain for unfinished whose last block is a day old. Where blocks are made
    /// on request, that means nothing.
    fn is_downloading(&self, info: &ChainInfo) -> bool {
        info.initialblockdownload && (info.headers > info.blocks || self.max_tip_age_s > 0)
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

/// Height of the first block that can hold anything for keys made at a time.
fn birth_height(client: &RpcClient, info: &ChainInfo, born_s: u64) -> Result<u32, ChainError> {
    let since_s = born_s.saturating_sub(BIRTHDAY_SLACK_S);
    // Lowest height whose median time past, which never falls, reaches `since_s`.
    let (mut low, mut high) = (1, info.blocks.saturating_sub(BIRTHDAY_BLOCKS).max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let young = match hash_at(client, middle)? {
            Some(hash) => u64::from(header(client, hash)?.mediantime) >= since_s,
            // The chain became shorter since we asked for its height.
            None => true,
        };
        (low, high) = if young { (low, middle) } else { (middle + 1, high) };
    }
    Ok(low)
}

fn header(client: &RpcClient, hash: BlockHash) -> Result<HeaderInfo, ChainError> {
    client.call_blocking("getblockheader", &[json!(hash), json!(true)])
}
