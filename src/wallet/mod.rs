//! The node's coins: a taproot descriptor wallet (BIP-86) from one seed file.
//!
//! The wallet selects coins, locks them, signs, and journals every signed transaction before
//! it hands it out, so that no crash can make it spend a coin twice (DESIGN §2, §7). It follows
//! the chain through [`ChainUpdate`](crate::chain::ChainUpdate)s and does no IO but its
//! [`Persist`].

mod error;
mod faucet;
mod fund;
mod keys;
mod persist;
mod sign;
mod sync;

use std::collections::BTreeMap;

use bdk_wallet::chain::{BlockId, ChainPosition, ConfirmationBlockTime};
use bdk_wallet::{KeychainKind, LocalOutput, Update};
use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::{Address, BlockHash, Network, ScriptBuf, Txid};

pub use error::WalletError;
pub use faucet::faucet_spend;
pub use fund::{Funded, MAX_FEERATE_SAT_KVB, MAX_FUND_OUTPUTS};
pub use keys::Keys;
pub use persist::{CHAIN_TABLE, FUND_TABLE, Persist};

use crate::store::Record;
use fund::Entry;

/// Addresses watched beyond the last revealed one: how far a wallet restored from its seed looks
/// for coins, and how many FUNDs may be built and dropped in a row.
const LOOKAHEAD: u32 = 100;
/// Most recent checkpoints that [`Wallet::checkpoints`] gives one by one; a deeper fork is found
/// by the doubling steps below them.
const DENSE_CHECKPOINTS: u32 = 16;

/// What the wallet holds, in sat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Confirmed and mature coins, locked ones included.
    pub confirmed_sat: u64,
    /// Unconfirmed coins and immature coinbases.
    pub pending_sat: u64,
    /// Coins reserved by a FUND or payment that is not in the mempool or chain yet.
    pub locked_sat: u64,
    /// What [`Wallet::fund`] can spend now: unlocked confirmed coins and own unconfirmed change.
    pub spendable_sat: u64,
}

/// One transaction of the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its id.
    pub txid: Txid,
    /// Height of its chain block, `None` while unconfirmed.
    pub height: Option<u32>,
    /// Own coins that it spends, in sat.
    pub sent_sat: u64,
    /// What it pays to own addresses, change included, in sat.
    pub received_sat: u64,
    /// Its fee in sat, when every coin that it spends is known.
    pub fee_sat: Option<u64>,
    /// Time of its chain block, or when it was first seen, in unix seconds.
    pub at_s: Option<u64>,
}

/// The open wallet.
pub struct Wallet {
    bdk: bdk_wallet::Wallet,
    keys: Keys,
    persist: Box<dyn Persist>,
    funds: BTreeMap<[u8; 32], Entry>,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("network", &self.keys.network()).finish_non_exhaustive()
    }
}

impl Wallet {
    /// Opens the stored wallet of `keys`, or creates it. A new wallet looks for coins from
    /// `birthday` (a chain block known to be older than its first address) or from genesis.
    ///
    /// # Errors
    /// [`WalletError::OtherSeed`] when the stored wallet is another one, [`WalletError::Damaged`],
    /// [`WalletError::Store`].
    pub fn open(
        keys: &Keys,
        network: Network,
        persist: impl Persist + 'static,
        birthday: Option<(u32, BlockHash)>,
    ) -> Result<Self, WalletError> {
        if keys.network() != network {
            return Err(WalletError::OtherSeed);
        }
        let stored = load_bdk(keys, &persist)?;
        let is_new = stored.is_none();
        let bdk = match stored {
            Some(bdk) => bdk,
            None => create_bdk(keys)?,
        };
        let funds = fund::load(&persist)?;
        let mut wallet = Self { bdk, keys: keys.clone(), persist: Box::new(persist), funds };
        if let Some((height, hash)) = birthday.filter(|(height, _)| is_new && *height > 0) {
            wallet.push_checkpoint(height, hash)?;
        }
        wallet.mark_journaled_addresses();
        wallet.commit(Vec::new())?;
        Ok(wallet)
    }

    /// Known chain blocks, highest first, ending with genesis: recent ones one by one, then in
    /// doubling steps. A chain source resumes after the first that is on its best chain.
    pub fn checkpoints(&self) -> Vec<(u32, BlockHash)> {
        let mut found = Vec::new();
        let mut next = Some(self.bdk.latest_checkpoint());
        let mut step = 1;
        while let Some(checkpoint) = next {
            found.push((checkpoint.height(), checkpoint.hash()));
            if found.len() > DENSE_CHECKPOINTS as usize {
                step *= 2;
            }
            next = match checkpoint.height().checked_sub(step) {
                Some(height) => checkpoint.floor_at(height),
                None => checkpoint.iter().last().filter(|c| c.height() < checkpoint.height()),
            };
        }
        found
    }

    /// Height of the latest known chain block.
    pub fn tip_height(&self) -> u32 {
        self.bdk.latest_checkpoint().height()
    }

    /// What the wallet holds now.
    pub fn balance(&self) -> Balance {
        let tip_height = self.tip_height();
        let mut balance = Balance::default();
        for coin in self.bdk.list_unspent() {
            let value_sat = coin.txout.value.to_sat();
            let is_settled = self.is_mature(&coin, tip_height);
            let total =
                if is_settled { &mut balance.confirmed_sat } else { &mut balance.pending_sat };
            *total = total.saturating_add(value_sat);
            let part = if self.bdk.is_outpoint_locked(coin.outpoint) {
                &mut balance.locked_sat
            } else if is_settled || self.is_own_change(&coin) {
                &mut balance.spendable_sat
            } else {
                continue;
            };
            *part = part.saturating_add(value_sat);
        }
        balance
    }

    /// A new receiving address.
    ///
    /// # Errors
    /// [`WalletError::Store`]: an address that is not stored is not handed out.
    pub fn next_address(&mut self) -> Result<Address, WalletError> {
        let address = self.bdk.reveal_next_address(KeychainKind::External).address;
        self.commit(Vec::new())?;
        Ok(address)
    }

    /// `count` new receiving scripts, each for one use, stored in one step.
    ///
    /// # Errors
    /// As [`Wallet::next_address`].
    pub fn fresh_scripts(&mut self, count: u16) -> Result<Vec<ScriptBuf>, WalletError> {
        let scripts = (0..count)
            .map(|_| self.bdk.reveal_next_address(KeychainKind::External).script_pubkey())
            .collect();
        self.commit(Vec::new())?;
        Ok(scripts)
    }

    /// Every script whose coins belong to the wallet, revealed or within reach: what a chain
    /// source has to watch.
    pub fn watched_scripts(&self) -> Vec<ScriptBuf> {
        self.bdk.spk_index().inner().all_spks().values().cloned().collect()
    }

    /// The wallet's latest `limit` transactions, newest first.
    pub fn history(&self, limit: usize) -> Vec<HistoryEntry> {
        let newest_first = self.bdk.transactions_sort_by(|a, b| {
            b.chain_position.cmp(&a.chain_position).then(a.tx_node.txid.cmp(&b.tx_node.txid))
        });
        let entry = |tx: bdk_wallet::WalletTx<'_>| {
            let (sent, received) = self.bdk.sent_and_received(&tx.tx_node.tx);
            let (height, at_s) = position(&tx.chain_position);
            HistoryEntry {
                txid: tx.tx_node.txid,
                height,
                sent_sat: sent.to_sat(),
                received_sat: received.to_sat(),
                fee_sat: self.bdk.calculate_fee(&tx.tx_node.tx).ok().map(|fee| fee.to_sat()),
                at_s,
            }
        };
        newest_first.into_iter().take(limit).map(entry).collect()
    }

    /// Stores what bdk has staged together with `records`, in one batch.
    fn commit(&mut self, mut records: Vec<Record>) -> Result<(), WalletError> {
        if let Some(staged) = self.bdk.staged() {
            records.extend(persist::rows_of(staged)?);
        }
        if !records.is_empty() {
            self.persist.persist(&records)?;
        }
        // Only now: after an error the same changes are written by the next commit.
        self.bdk.take_staged();
        Ok(())
    }

    fn push_checkpoint(&mut self, height: u32, hash: BlockHash) -> Result<(), WalletError> {
        let disconnected = WalletError::Disconnected { height };
        let Ok(chain) = self.bdk.latest_checkpoint().push(BlockId { height, hash }) else {
            return Err(disconnected);
        };
        let update = Update { chain: Some(chain), ..Update::default() };
        self.bdk.apply_update(update).map_err(|_| disconnected)
    }

    fn is_mature(&self, coin: &LocalOutput, tip_height: u32) -> bool {
        let (Some(height), _) = position(&coin.chain_position) else {
            return false;
        };
        let graph = self.bdk.tx_graph();
        let is_coinbase = graph.get_tx(coin.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
        // The coinbase of block h may be spent in block h + 100, that is from tip h + 99 on.
        !is_coinbase || tip_height.saturating_add(1) >= height.saturating_add(COINBASE_MATURITY)
    }

    /// Whether an unconfirmed coin comes from a transaction that spends own coins alone, so that
    /// nobody else can take it back.
    fn is_own_change(&self, coin: &LocalOutput) -> bool {
        let graph = self.bdk.tx_graph();
        let Some(tx) = graph.get_tx(coin.outpoint.txid) else {
            return false;
        };
        coin.chain_position.is_unconfirmed()
            && tx.input.iter().all(|input| {
                let spent = graph.get_txout(input.previous_output);
                spent.is_some_and(|txout| self.bdk.is_mine(txout.script_pubkey.clone()))
            })
    }

    fn is_confirmed(&self, txid: Txid) -> bool {
        self.bdk.get_tx(txid).is_some_and(|tx| tx.chain_position.is_confirmed())
    }
}

fn position(position: &ChainPosition<ConfirmationBlockTime>) -> (Option<u32>, Option<u64>) {
    match position {
        ChainPosition::Confirmed { anchor, .. } => {
            (Some(anchor.block_id.height), Some(anchor.confirmation_time))
        }
        ChainPosition::Unconfirmed { first_seen, .. } => (None, *first_seen),
    }
}

fn create_bdk(keys: &Keys) -> Result<bdk_wallet::Wallet, WalletError> {
    bdk_wallet::Wallet::create(keys.descriptor(0), keys.descriptor(1))
        .network(keys.network())
        .lookahead(LOOKAHEAD)
        .create_wallet_no_persist()
        .map_err(WalletError::build)
}

fn load_bdk(keys: &Keys, persist: &dyn Persist) -> Result<Option<bdk_wallet::Wallet>, WalletError> {
    let Some(changes) = persist::changeset_of(persist.rows(CHAIN_TABLE)?)? else {
        return Ok(None);
    };
    bdk_wallet::Wallet::load()
        .descriptor(KeychainKind::External, Some(keys.descriptor(0)))
        .descriptor(KeychainKind::Internal, Some(keys.descriptor(1)))
        .check_network(keys.network())
        .lookahead(LOOKAHEAD)
        .load_wallet_no_persist(changes)
        .map_err(|e| match e {
            bdk_wallet::LoadError::Mismatch(_) => WalletError::OtherSeed,
            _ => WalletError::Damaged("the wallet's head row"),
        })
}
