//! The wallet's rows in the store.
//!
//! bdk hands out its changes as a [`ChangeSet`]. It is stored piece by piece, so that a chain
//! block costs a few small rows and not a rewrite of the whole history:
//!
//! | key | value |
//! |---|---|
//! | `d` | descriptors and network, JSON |
//! | `r` descriptor id | last revealed index u32 |
//! | `b` height u32 | hash of the checkpoint |
//! | `t` txid | transaction |
//! | `o` outpoint | output whose transaction is not kept |
//! | `a` txid, height u32, hash | time of the confirming chain block, u64 |
//! | `s`, `f`, `e` txid | unix time last seen, first seen, evicted, u64 |
//! | `x` outpoint | empty: spent by a pruned transaction |
//! | `p` index u32 | empty: receiving address for trades, not paid to yet |
//! | `g` | how far to look for coins, u32 |
//! | `y` name of a descriptor, index u32 | empty: handed out for a sale, not used |
//! | `z` name of a descriptor | first index that was never handed out, u32 |
//! | `h` | height of the first chain block that was joined, u32 |
//!
//! A pruned transaction leaves one row of history, in a table that is read only to be shown.
//!
//! Integers are big-endian, the rest is Bitcoin's own encoding.

use std::collections::BTreeSet;
use std::sync::Arc;

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, DescriptorId};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, TxOut, Txid};
use serde::{Deserialize, Serialize};

use super::HistoryEntry;
use super::error::WalletError;
use super::payout::AllPayouts;
use crate::store::{Record, Row, Store, StoreError, erase, upsert};
use capex_core::engine::Unreadable;
use capex_core::engine::kernel::Cause;

/// Table of what bdk knows of the chain.
pub const CHAIN_TABLE: u8 = 0xe0;
/// Table of journaled FUND transactions and payments, by terms hash.
pub const FUND_TABLE: u8 = 0xe1;

/// Table of the history of pruned transactions, by txid.
pub const HISTORY_TABLE: u8 = 0xe2;

/// Version of the rows; stands in the `d` row.
const ROWS_VERSION: u8 = 1;

/// Where the wallet keeps its rows.
pub trait Persist: Send {
    /// Keys and values of one table.
    fn rows(&self, table: u8) -> Result<Vec<Row>, StoreError>;
    /// Makes the records durable as one atomic batch before it returns.
    fn persist(&mut self, records: &[Record]) -> Result<(), StoreError>;
}

impl Persist for Arc<Store> {
    fn rows(&self, table: u8) -> Result<Vec<Row>, StoreError> {
        self.scan(table)
    }

    fn persist(&mut self, records: &[Record]) -> Result<(), StoreError> {
        Store::persist(self, records).map(drop)
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    v: u8,
    descriptors: ChangeSet,
}

#[derive(Serialize, Deserialize)]
struct StoredHistory {
    v: u8,
    entry: HistoryEntry,
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn put(kind: u8, parts: &[&[u8]], value: impl Into<Vec<u8>>) -> Record {
    upsert(CHAIN_TABLE, key(kind, parts), value)
}

fn anchor_key(txid: Txid, anchor: &ConfirmationBlockTime) -> Vec<u8> {
    let block = &anchor.block_id;
    let parts: [&[u8]; 3] =
        [txid.as_byte_array(), &block.height.to_be_bytes(), block.hash.as_byte_array()];
    key(b'a', &parts)
}

/// The row that forgets the checkpoint at `height`.
pub(super) fn forget_checkpoint(height: u32) -> Record {
    erase(CHAIN_TABLE, key(b'b', &[&height.to_be_bytes()]))
}

/// The rows that forget a transaction.
pub(super) fn forget_tx<'a>(
    txid: Txid,
    anchors: impl Iterator<Item = &'a ConfirmationBlockTime> + 'a,
) -> impl Iterator<Item = Record> + 'a {
    let times = [b't', b's', b'f', b'e'].into_iter();
    let rows = times.map(move |kind| erase(CHAIN_TABLE, key(kind, &[txid.as_byte_array()])));
    rows.chain(anchors.map(move |anchor| erase(CHAIN_TABLE, anchor_key(txid, anchor))))
}

/// The row that keeps an output of a pruned transaction, for the fee of its spender.
pub(super) fn keep_txout(outpoint: OutPoint, output: &TxOut) -> Record {
    put(b'o', &[&serialize(&outpoint)], serialize(output))
}

/// The row that forgets such an output.
pub(super) fn forget_txout(outpoint: OutPoint) -> Record {
    erase(CHAIN_TABLE, key(b'o', &[&serialize(&outpoint)]))
}

/// The row that keeps a coin of a kept transaction marked as spent by a pruned one.
pub(super) fn mark_spent(outpoint: OutPoint) -> Record {
    put(b'x', &[&serialize(&outpoint)], [])
}

/// The row that forgets such a mark.
pub(super) fn forget_spent(outpoint: OutPoint) -> Record {
    erase(CHAIN_TABLE, key(b'x', &[&serialize(&outpoint)]))
}

/// The row that lets trades use a receiving address.
pub(super) fn join_pool(index: u32) -> Record {
    put(b'p', &[&index.to_be_bytes()], [])
}

/// The row that says that an address was paid to.
pub(super) fn leave_pool(index: u32) -> Record {
    erase(CHAIN_TABLE, key(b'p', &[&index.to_be_bytes()]))
}

/// The row that says that an address for sales was handed out.
pub(super) fn offer_payout(name: [u8; 8], index: u32) -> Record {
    put(b'y', &[&name, &index.to_be_bytes()], [])
}

/// The row that says that it was used.
pub(super) fn use_payout(name: [u8; 8], index: u32) -> Record {
    erase(CHAIN_TABLE, key(b'y', &[&name, &index.to_be_bytes()]))
}

/// The row that keeps the first index for sales that was never handed out.
pub(super) fn next_payout(name: [u8; 8], index: u32) -> Record {
    put(b'z', &[&name], index.to_be_bytes())
}

/// The row that keeps how far the wallet looks for coins.
pub(super) fn gap_row(gap: u32) -> Record {
    put(b'g', &[], gap.to_be_bytes())
}

/// The row that keeps the first chain block that was joined.
pub(super) fn first_row(height: u32) -> Record {
    put(b'h', &[], height.to_be_bytes())
}

/// What the wallet keeps beside bdk.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Coins that pruned transactions spent.
    pub(super) spent: BTreeSet<OutPoint>,
    /// Receiving addresses that trades may use.
    pub(super) pool: BTreeSet<u32>,
    /// Addresses outside the wallet for what sales earn.
    pub(super) payouts: AllPayouts,
    /// How far the wallet looks for coins, if it was told.
    pub(super) gap: Option<u32>,
    /// First chain block that was joined.
    pub(super) first_height: Option<u32>,
}

impl Marks {
    pub(super) fn load(persist: &dyn Persist) -> Result<Self, WalletError> {
        let mut marks = Self::default();
        for (key, value) in persist.rows(CHAIN_TABLE)? {
            marks.take(&key, &value).ok_or(WalletError::Damaged("a wallet row"))?;
        }
        Ok(marks)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key.split_first()? {
            (b'x', coin) => drop(self.spent.insert(deserialize(coin).ok()?)),
            (b'p', index) => drop(self.pool.insert(be_u32(index)?)),
            (b'y', place) => {
                let (name, index) = place.split_at_checked(8)?;
                let payouts = self.payouts.entry(name.try_into().ok()?).or_default();
                payouts.offered.insert(be_u32(index)?);
            }
            (b'z', name) => {
                self.payouts.entry(name.try_into().ok()?).or_default().next = be_u32(value)?;
            }
            (b'g', []) => self.gap = Some(be_u32(value)?),
            (b'h', []) => self.first_height = Some(be_u32(value)?),
            _ => {}
        }
        Some(())
    }
}

/// The row that remembers a pruned transaction.
pub(super) fn history_row(entry: &HistoryEntry) -> Result<Record, WalletError> {
    let value = serde_json::to_vec(&StoredHistory { v: ROWS_VERSION, entry: entry.clone() });
    let value = value.map_err(|_| WalletError::Damaged("a history row"))?;
    Ok(upsert(HISTORY_TABLE, *entry.txid.as_byte_array(), value))
}

/// Pruned transactions.
pub(super) fn history(persist: &dyn Persist) -> Result<Vec<HistoryEntry>, WalletError> {
    let rows = persist.rows(HISTORY_TABLE)?;
    rows.iter().map(|(_, value)| read_history(value)).collect()
}

fn read_history(value: &[u8]) -> Result<HistoryEntry, WalletError> {
    match serde_json::from_slice(value) {
        Ok(StoredHistory { v: ROWS_VERSION, entry }) => Ok(entry),
        Ok(_) | Err(_) => Err(WalletError::Damaged("a history row")),
    }
}

/// The rows that add `changes` to what is stored.
pub(super) fn rows_of(changes: &ChangeSet) -> Result<Vec<Record>, WalletError> {
    let mut rows = Vec::new();
    if changes.descriptor.is_some() {
        let descriptors = ChangeSet {
            descriptor: changes.descriptor.clone(),
            change_descriptor: changes.change_descriptor.clone(),
            network: changes.network,
            ..ChangeSet::default()
        };
        let head = serde_json::to_vec(&Head { v: ROWS_VERSION, descriptors });
        rows.push(put(b'd', &[], head.map_err(|_| WalletError::Damaged("descriptors"))?));
    }
    for (id, index) in &changes.indexer.last_revealed {
        rows.push(put(b'r', &[id.as_byte_array()], index.to_be_bytes()));
    }
    for (height, hash) in &changes.local_chain.blocks {
        rows.push(match hash {
            Some(hash) => put(b'b', &[&height.to_be_bytes()], *hash.as_byte_array()),
            None => forget_checkpoint(*height),
        });
    }
    push_graph_rows(&mut rows, changes);
    Ok(rows)
}

fn push_graph_rows(rows: &mut Vec<Record>, changes: &ChangeSet) {
    let graph = &changes.tx_graph;
    for tx in &graph.txs {
        rows.push(put(b't', &[tx.compute_txid().as_byte_array()], serialize(tx.as_ref())));
    }
    for (outpoint, txout) in &graph.txouts {
        rows.push(keep_txout(*outpoint, txout));
    }
    for (anchor, txid) in &graph.anchors {
        let value = anchor.confirmation_time.to_be_bytes().to_vec();
        rows.push(upsert(CHAIN_TABLE, anchor_key(*txid, anchor), value));
    }
    let times = [(b's', &graph.last_seen), (b'f', &graph.first_seen), (b'e', &graph.last_evicted)];
    for (kind, times) in times {
        for (txid, at) in times {
            rows.push(put(kind, &[txid.as_byte_array()], at.to_be_bytes()));
        }
    }
}

/// Whether an open of the wallet could read a row.
///
/// # Errors
/// [`Unreadable`] with table, key and cause.
pub fn check_row(record: &Record) -> Result<(), Unreadable> {
    let value = record.value.as_deref().unwrap_or_default();
    let is_sound = match record.table {
        CHAIN_TABLE => {
            let is_mark = Marks::default().take(&record.key, value).is_some();
            is_mark && take_row(&mut ChangeSet::default(), &record.key, value).is_some()
        }
        FUND_TABLE => super::entry::is_row(&record.key, value),
        HISTORY_TABLE => read_history(value).is_ok(),
        _ => return Err(record.unreadable(Cause::Table)),
    };
    if is_sound { Ok(()) } else { Err(record.unreadable(Cause::Malformed)) }
}

/// Everything that the rows say, as one change set; `None` for a wallet without rows.
pub(super) fn changeset_of(rows: Vec<Row>) -> Result<Option<ChangeSet>, WalletError> {
    if !rows.iter().any(|(key, _)| key.first() == Some(&b'd')) {
        return Ok(None);
    }
    let mut changes = ChangeSet::default();
    for (key, value) in rows {
        take_row(&mut changes, &key, &value).ok_or(WalletError::Damaged("a chain row"))?;
    }
    Ok(Some(changes))
}

fn take_row(changes: &mut ChangeSet, key: &[u8], value: &[u8]) -> Option<()> {
    let (kind, key) = key.split_first()?;
    let graph = &mut changes.tx_graph;
    match kind {
        b'd' => {
            let head: Head = serde_json::from_slice(value).ok()?;
            changes.descriptor = head.descriptors.descriptor;
            changes.change_descriptor = head.descriptors.change_descriptor;
            changes.network = head.descriptors.network;
            return (head.v == ROWS_VERSION).then_some(());
        }
        b'r' => {
            let id = DescriptorId::from_slice(key).ok()?;
            changes.indexer.last_revealed.insert(id, be_u32(value)?);
        }
        b'b' => {
            let hash = BlockHash::from_slice(value).ok()?;
            changes.local_chain.blocks.insert(be_u32(key)?, Some(hash));
        }
        b't' => drop(graph.txs.insert(Arc::new(deserialize(value).ok()?))),
        b'o' => drop(graph.txouts.insert(deserialize(key).ok()?, deserialize(value).ok()?)),
        b'a' => drop(graph.anchors.insert(anchor(key, value)?)),
        b's' => drop(graph.last_seen.insert(Txid::from_slice(key).ok()?, be_u64(value)?)),
        b'f' => drop(graph.first_seen.insert(Txid::from_slice(key).ok()?, be_u64(value)?)),
        b'e' => drop(graph.last_evicted.insert(Txid::from_slice(key).ok()?, be_u64(value)?)),
        // Not bdk's: see [`Marks`].
        b'x' | b'p' | b'y' | b'z' | b'g' | b'h' => {}
        _ => return None,
    }
    Some(())
}

fn anchor(key: &[u8], value: &[u8]) -> Option<(ConfirmationBlockTime, Txid)> {
    let (txid, rest) = key.split_at_checked(32)?;
    let (height, hash) = rest.split_at_checked(4)?;
    let block_id = BlockId { height: be_u32(height)?, hash: BlockHash::from_slice(hash).ok()? };
    let confirmation_time = be_u64(value)?;
    Some((ConfirmationBlockTime { block_id, confirmation_time }, Txid::from_slice(txid).ok()?))
}

fn be_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
