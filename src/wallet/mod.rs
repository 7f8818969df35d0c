//! The node's coins: a taproot descriptor wallet (BIP-86) from the words of one seed file (BIP-39).
//!
//! The wallet selects coins, locks them, signs, and journals every signed transaction before
//! it hands it out, so that no crash can make it spend a coin twice. It follows
//! the chain through [`ChainUpdate`](crate::chain::ChainUpdate)s and does no IO but its
//! [`Persist`].

mod coins;
mod entry;
mod error;
mod fate;
mod faucet;
mod fund;
mod joint;
mod keys;
mod payout;
mod persist;
mod prune;
mod psbt;
mod replace;
mod seed;
mod select;
mod sign;
mod sync;
mod watched;

use std::collections::BTreeSet;

use bdk_wallet::chain::{BlockId, ChainPosition, ConfirmationBlockTime, Merge as _};
use bdk_wallet::miniscript::Descriptor;
use bdk_wallet::{KeychainKind, LocalOutput, Update};
use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::{Address, BlockHash, Network, OutPoint, ScriptBuf, Txid};
use serde::{Deserialize, Serialize};

pub use coins::{Coin, CoinState};
pub use entry::Form;
pub use error::WalletError;
pub use faucet::faucet_spend;
pub use fund::{Amounts, Funded, MAX_FEERATE_SAT_KVB, MAX_FUND_OUTPUTS, Payment};
pub use keys::Keys;
pub use persist::{CHAIN_TABLE, FUND_TABLE, HISTORY_TABLE, Persist, check_row};
pub use psbt::{PSBT_MAX_BYTES, PsbtFault, Taken, Waiting};
pub use seed::Seed;
pub use watched::{PayoutDescriptor, Watched};

use crate::store::Record;
use entry::Entries;
use payout::AllPayouts;

/// Addresses watched beyond the last revealed one: how many FUNDs may be built and dropped in a
/// row.
const LOOKAHEAD: u32 = 100;
/// The same in a wallet that is restored: all that another life may have handed out in a row
/// without being paid.
pub const RESTORE_GAP: u32 = 1_000;
/// Furthest that a wallet may be told to look: each address costs 60 bytes and a tenth of a
/// millisecond at each start.
pub const GAP_MAX: u32 = 100_000;
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
    /// Coins kept for a FUND or payment that is not in the mempool or chain yet.
    pub locked_sat: u64,
    /// What [`Wallet::fund`] can spend at once: unlocked confirmed coins, or own unconfirmed
    /// change if that is more. The two are never mixed.
    pub spendable_sat: u64,
}

/// One transaction of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
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
    entries: Entries,
    /// Coins that a pruned transaction spent: bdk takes them for unspent.
    spent: BTreeSet<OutPoint>,
    /// Indices of receiving addresses that trades may use and nobody has paid to.
    pool: BTreeSet<u32>,
    /// Addresses outside the wallet for what sales earn.
    payouts: AllPayouts,
    /// Those of them that this life has handed out, whether or not anything was paid to them.
    handed_out: BTreeSet<ScriptBuf>,
    /// Addresses watched beyond the last revealed one.
    lookahead: u32,
    /// First chain block that was joined, which pruning forgets.
    first_height: Option<u32>,
    /// What [`Wallet::balance`] answers; kept up to date by every change of coins or tip.
    balance: Balance,
    /// Whether a coin waits for its maturity, so that a new tip alone changes the balance.
    is_maturing: bool,
    /// Chain blocks and own transactions taken in since the last pruning.
    since_prune: u32,
}

/// The latest `limit` transactions of a wallet, newest first: those of
/// [`Wallet::recent_history`], and pruned ones from its store.
///
/// # Errors
/// [`WalletError::Store`], [`WalletError::Damaged`].
pub fn with_pruned(
    mut recent: Vec<HistoryEntry>,
    store: &dyn Persist,
    limit: usize,
) -> Result<Vec<HistoryEntry>, WalletError> {
    if recent.len() < limit {
        let known: BTreeSet<Txid> = recent.iter().map(|entry| entry.txid).collect();
        // A pruned transaction may be younger than an old one that still holds a coin.
        let pruned = persist::history(store)?.into_iter();
        recent.extend(pruned.filter(|entry| !known.contains(&entry.txid)));
        recent.sort_by_key(|entry| {
            let height = entry.height.unwrap_or(u32::MAX);
            (std::cmp::Reverse((height, entry.at_s)), entry.txid)
        });
        recent.truncate(limit);
    }
    Ok(recent)
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
        Self::open_within(keys, network, persist, birthday, LOOKAHEAD)
    }

    /// As [`Wallet::open`], but watching only so many addresses beyond the last revealed one:
    /// each costs a tenth of a millisecond, and a simulator opens many wallets.
    ///
    /// # Errors
    /// As [`Wallet::open`].
    pub fn open_within(
        keys: &Keys,
        network: Network,
        persist: impl Persist + 'static,
        birthday: Option<(u32, BlockHash)>,
        lookahead: u32,
    ) -> Result<Self, WalletError> {
        if keys.network() != network {
            return Err(WalletError::OtherSeed);
        }
        let marks = persist::Marks::load(&persist)?;
        let lookahead = marks.gap.unwrap_or(lookahead);
        let stored = load_bdk(keys, &persist, lookahead)?;
        let is_new = stored.is_none();
        let bdk = match stored {
            Some(bdk) => bdk,
            None => create_bdk(keys, lookahead)?,
        };
        let mut wallet = Self {
            bdk,
            keys: keys.clone(),
            entries: Entries::load(&persist)?,
            spent: marks.spent,
            pool: marks.pool,
            payouts: marks.payouts,
            handed_out: BTreeSet::new(),
            lookahead,
            first_height: marks.first_height,
            balance: Balance::default(),
            is_maturing: false,
            since_prune: 0,
            persist: Box::new(persist),
        };
        if let Some((height, hash)) = birthday.filter(|(height, _)| is_new && *height > 0) {
            wallet.push_checkpoint(height, hash)?;
            wallet.note_first(height)?;
        }
        wallet.mark_journaled_addresses();
        wallet.commit(Vec::new())?;
        wallet.refresh_balance();
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
        self.balance
    }

    /// Adds up the coins again. bdk walks all its transactions for this, so it happens when
    /// coins changed and not when somebody asks.
    fn refresh_balance(&mut self) {
        let tip_height = self.tip_height();
        let mut balance = Balance::default();
        let (mut is_maturing, mut free_sat, mut change_sat) = (false, 0u64, 0u64);
        for coin in self.coins() {
            let value_sat = coin.txout.value.to_sat();
            let is_settled = self.is_mature(&coin, tip_height);
            is_maturing |= !is_settled && !coin.chain_position.is_unconfirmed();
            let total =
                if is_settled { &mut balance.confirmed_sat } else { &mut balance.pending_sat };
            *total = total.saturating_add(value_sat);
            let part = if self.entries.is_locked(coin.outpoint) {
                &mut balance.locked_sat
            } else if is_settled {
                &mut free_sat
            } else if self.is_own_change(&coin) {
                &mut change_sat
            } else {
                continue;
            };
            *part = part.saturating_add(value_sat);
        }
        balance.spendable_sat = free_sat.max(change_sat);
        self.balance = balance;
        self.is_maturing = is_maturing;
    }

    /// Coins that nothing has spent, locked ones included.
    fn coins(&self) -> impl Iterator<Item = LocalOutput> + '_ {
        self.bdk.list_unspent().filter(|coin| !self.spent.contains(&coin.outpoint))
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

    /// `count` receiving scripts for trades, stored in one step. Those that an earlier life or
    /// a trade that came to nothing left unpaid come first, and `taken` ones not at all: a
    /// wallet restored from its words looks only so far beyond the last one that was paid.
    ///
    /// # Errors
    /// As [`Wallet::next_address`].
    pub fn trade_scripts(
        &mut self,
        count: usize,
        taken: &BTreeSet<ScriptBuf>,
    ) -> Result<Vec<ScriptBuf>, WalletError> {
        let keychain = KeychainKind::External;
        let indices = self.pool.iter().copied();
        let (paid, mut pool): (BTreeSet<u32>, BTreeSet<u32>) =
            indices.partition(|index| self.bdk.spk_index().is_used(keychain, *index));
        let mut records: Vec<_> = paid.into_iter().map(persist::leave_pool).collect();
        let script = |index: u32| self.bdk.peek_address(keychain, index).script_pubkey();
        let again = pool.iter().map(|index| script(*index)).filter(|spk| !taken.contains(spk));
        let mut scripts: Vec<ScriptBuf> = again.take(count).collect();
        while scripts.len() < count {
            let fresh = self.bdk.reveal_next_address(keychain);
            pool.insert(fresh.index);
            records.push(persist::join_pool(fresh.index));
            scripts.push(fresh.script_pubkey());
        }
        self.commit(records)?;
        self.pool = pool;
        Ok(scripts)
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

    /// Looks for coins this far beyond the last address that was handed out, from now on. The
    /// chain has to be read again for what was passed over, from [`Wallet::first_height`] on.
    ///
    /// # Errors
    /// [`WalletError::BadGap`], [`WalletError::Store`].
    pub fn widen(&mut self, gap: u32) -> Result<(), WalletError> {
        if !(1..=GAP_MAX).contains(&gap) {
            return Err(WalletError::BadGap { gap });
        }
        if gap > self.lookahead {
            self.commit(vec![persist::gap_row(gap)])?;
            self.lookahead = gap;
            self.reload()?;
        }
        Ok(())
    }

    /// Height of the first chain block that the wallet has ever joined: it has looked at no
    /// older one.
    pub fn first_height(&self) -> u32 {
        self.first_height.unwrap_or(0)
    }

    /// Public descriptors of receiving and change addresses, with their checksums: any wallet
    /// that reads them sees all coins and can spend none.
    pub fn descriptors(&self) -> [String; 2] {
        [KeychainKind::External, KeychainKind::Internal]
            .map(|keychain| self.bdk.public_descriptor(keychain).to_string())
    }

    /// Every script whose coins belong to the wallet, revealed or within reach: what a chain
    /// source has to watch.
    pub fn watched_scripts(&self) -> Vec<ScriptBuf> {
        self.bdk.spk_index().inner().all_spks().values().cloned().collect()
    }

    /// The wallet's latest `limit` transactions, newest first, pruned ones included.
    ///
    /// # Errors
    /// [`WalletError::Store`], [`WalletError::Damaged`]: pruned ones are read from the store.
    pub fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, WalletError> {
        with_pruned(self.recent_history(limit), self.persist.as_ref(), limit)
    }

    /// The latest of those that are in memory; [`with_pruned`] adds what the store has, which may
    /// take a while.
    pub fn recent_history(&self, limit: usize) -> Vec<HistoryEntry> {
        let newest_first = self.bdk.transactions_sort_by(|a, b| {
            b.chain_position.cmp(&a.chain_position).then(a.tx_node.txid.cmp(&b.tx_node.txid))
        });
        let txids = newest_first.into_iter().map(|tx| tx.tx_node.txid).take(limit);
        txids.filter_map(|txid| self.history_entry(txid)).collect()
    }

    fn history_entry(&self, txid: Txid) -> Option<HistoryEntry> {
        let node = self.bdk.tx_graph().get_tx_node(txid)?;
        let (sent, received) = self.bdk.sent_and_received(&node.tx);
        let anchor = self.anchor_of(txid);
        Some(HistoryEntry {
            txid,
            height: anchor.map(|anchor| anchor.block_id.height),
            sent_sat: sent.to_sat(),
            received_sat: received.to_sat(),
            fee_sat: self.bdk.calculate_fee(&node.tx).ok().map(|fee| fee.to_sat()),
            at_s: anchor.map(|anchor| anchor.confirmation_time).or(node.first_seen),
        })
    }

    /// Whether its coins are spent by key path; only descriptors of others say otherwise.
    fn is_taproot(&self) -> bool {
        matches!(self.bdk.public_descriptor(KeychainKind::External), Descriptor::Tr(_))
    }

    /// Stores what bdk has staged together with `records`, in one batch.
    fn commit(&mut self, mut records: Vec<Record>) -> Result<(), WalletError> {
        let mut has_moved_coins = false;
        if let Some(staged) = self.bdk.staged() {
            records.extend(persist::rows_of(staged)?);
            let own = u32::try_from(staged.tx_graph.txs.len()).unwrap_or(u32::MAX);
            let blocks = u32::try_from(staged.local_chain.blocks.len()).unwrap_or(u32::MAX);
            self.since_prune = self.since_prune.saturating_add(own).saturating_add(blocks);
            has_moved_coins = !staged.tx_graph.is_empty() || (self.is_maturing && blocks > 0);
        }
        if !records.is_empty() {
            self.persist.persist(&records)?;
        }
        // Only now: after an error the same changes are written by the next commit.
        self.bdk.take_staged();
        if has_moved_coins {
            self.refresh_balance();
        }
        Ok(())
    }

    /// Remembers the first chain block that is joined.
    fn note_first(&mut self, height: u32) -> Result<(), WalletError> {
        if self.first_height.is_none() {
            self.commit(vec![persist::first_row(height)])?;
            self.first_height = Some(height);
        }
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
        let ChainPosition::Confirmed { anchor, .. } = &coin.chain_position else {
            return false;
        };
        let height = anchor.block_id.height;
        let graph = self.bdk.tx_graph();
        let is_coinbase = graph.get_tx(coin.outpoint.txid).is_some_and(|tx| tx.is_coinbase());
        // The coinbase of block h may be spent in block h + 100, that is from tip h + 99 on.
        !is_coinbase || tip_height.saturating_add(1) >= height.saturating_add(COINBASE_MATURITY)
    }

    /// Whether an unconfirmed coin comes from a transaction that spends own coins alone, so that
    /// nobody else can take it back, and that this wallet does not mean to replace.
    fn is_own_change(&self, coin: &LocalOutput) -> bool {
        let graph = self.bdk.tx_graph();
        let Some(tx) = graph.get_tx(coin.outpoint.txid) else {
            return false;
        };
        coin.chain_position.is_unconfirmed()
            && !self.is_doomed(coin.outpoint)
            && tx.input.iter().all(|input| {
                let spent = graph.get_txout(input.previous_output);
                spent.is_some_and(|txout| self.bdk.is_mine(txout.script_pubkey.clone()))
            })
    }

    /// The chain block that holds a transaction. Asks for its anchors: bdk's own look-up walks
    /// all transactions.
    fn anchor_of(&self, txid: Txid) -> Option<ConfirmationBlockTime> {
        let tip = self.bdk.latest_checkpoint();
        let anchors = self.bdk.tx_graph().all_anchors().get(&txid)?;
        let joined = |anchor: &&ConfirmationBlockTime| {
            let block = anchor.block_id;
            tip.get(block.height).is_some_and(|known| known.hash() == block.hash)
        };
        anchors.iter().find(joined).copied()
    }

    /// Height of the chain block that holds a transaction.
    fn confirmed_at(&self, txid: Txid) -> Option<u32> {
        self.anchor_of(txid).map(|anchor| anchor.block_id.height)
    }

    fn is_confirmed(&self, txid: Txid) -> bool {
        self.anchor_of(txid).is_some()
    }
}

fn create_bdk(keys: &Keys, lookahead: u32) -> Result<bdk_wallet::Wallet, WalletError> {
    bdk_wallet::Wallet::create(keys.descriptor(0), keys.descriptor(1))
        .network(keys.network())
        .lookahead(lookahead)
        .create_wallet_no_persist()
        .map_err(WalletError::build)
}

fn load_bdk(
    keys: &Keys,
    persist: &dyn Persist,
    lookahead: u32,
) -> Result<Option<bdk_wallet::Wallet>, WalletError> {
    let Some(changes) = persist::changeset_of(persist.rows(CHAIN_TABLE)?)? else {
        return Ok(None);
    };
    bdk_wallet::Wallet::load()
        .descriptor(KeychainKind::External, Some(keys.descriptor(0)))
        .descriptor(KeychainKind::Internal, Some(keys.descriptor(1)))
        .check_network(keys.network())
        .lookahead(lookahead)
        .load_wallet_no_persist(changes)
        .map_err(|e| match e {
            bdk_wallet::LoadError::Mismatch(_) => WalletError::OtherSeed,
            _ => WalletError::Damaged("the wallet's head row"),
        })
}
