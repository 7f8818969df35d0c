//! What is journaled of the transactions that the wallet signed, and which coins they need.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use serde::{Deserialize, Serialize};

use super::error::WalletError;
use super::fund::Funded;
use super::persist::{FUND_TABLE, Persist};
use crate::store::{Record, upsert};

/// Version of the journaled rows.
const ROW_VERSION: u8 = 1;

/// Names an entry: the hash of its terms, or one made for a payment.
pub(super) type EntryId = [u8; 32];

/// What is journaled about one FUND or payment.
#[allow(clippy::large_enum_variant, reason = "those that are over are forgotten after a while")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Entry {
    Live(Fund),
    /// Ended at this height of the chain. Stays for as long as its terms could be funded, so
    /// that they never are twice.
    Over {
        at_height: u32,
        end: End,
    },
}

/// How a FUND ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// It is settled in the chain.
    Paid,
    /// It can never confirm: the chain gave one of its coins to another transaction.
    Dead,
    /// Its coins were given back before it left the node.
    Released,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The FUND of a trade.
    Terms,
    /// A payment that a person asked for.
    Payment {
        /// Whether it took all coins, so that its fee comes out of what it pays.
        is_sweep: bool,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fund {
    pub(super) tx: Transaction,
    pub(super) kind: Kind,
    pub(super) outputs: Vec<(ScriptBuf, u64)>,
    /// What the inputs spend, in their order.
    pub(super) prevouts: Vec<TxOut>,
    pub(super) is_broadcast: bool,
    /// Whether other transactions may spend its coins: nobody answered for it, so a conflict
    /// is welcome.
    pub(super) is_lent: bool,
    pub(super) cancel: Option<Cancel>,
    /// Whether it waits for a signature made elsewhere.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) awaits: bool,
    /// The same for a higher fee, as far as that waits for a signature made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bump: Option<Transaction>,
    /// Whether it was handed out for that signature: whoever signs it can send it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) is_exported: bool,
    /// Set where others pay it too: what is this wallet's of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joint: Option<Joint>,
}

/// What a transaction that others pay too takes of this wallet, which is all that the entry speaks
/// of. Until it is known what the others put in, the transaction is the own part alone, unsigned;
/// from then on it is the whole, with the own signatures, and once it was broadcast with all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joint {
    /// The own coins, in the order of `prevouts`.
    pub(super) coins: Vec<OutPoint>,
    pub(super) change: Option<TxOut>,
    /// What the own part pays in fees, sat.
    pub(super) fee_sat: u64,
    /// Its id in the mempool of the own chain source, once it has been given up: nodes take nothing
    /// in its place but for more than the fee of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waits: Option<Txid>,
}

/// What a transaction that a signer elsewhere sees is to its FUND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Fund,
    /// It pays to an address that a person gave.
    Payment,
    /// The same outputs from the same coins, for a higher fee.
    Bump,
    /// It pays the coins back to the wallet.
    Cancel,
}

impl Form {
    /// Name, as people and the API see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fund => "fund",
            Self::Payment => "payment",
            Self::Bump => "bump",
            Self::Cancel => "cancel",
        }
    }
}

/// What pays the coins of a FUND back to the wallet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cancel {
    pub(super) tx: Transaction,
    pub(super) feerate_sat_kvb: u64,
    /// As of a [`Fund`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) awaits: bool,
    /// The same for a higher fee, as far as that waits for a signature made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) better: Option<BetterCancel>,
}

/// What will replace a [`Cancel`] once it is signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BetterCancel {
    pub(super) tx: Transaction,
    pub(super) feerate_sat_kvb: u64,
}

impl Cancel {
    /// The same with what waited for a signature signed.
    pub(super) fn signed(self, tx: Transaction) -> Self {
        let better = self.better.map(|better| better.feerate_sat_kvb);
        let feerate_sat_kvb = better.unwrap_or(self.feerate_sat_kvb);
        Self { tx, feerate_sat_kvb, awaits: false, better: None }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u8,
    entry: Entry,
}

impl Fund {
    /// The transaction that should confirm now.
    pub(super) fn wanted(&self) -> &Transaction {
        let signed = self.cancel.as_ref().filter(|cancel| !cancel.awaits);
        signed.map_or(&self.tx, |cancel| &cancel.tx)
    }

    /// The same with a transaction that replaces it. One that took all coins pays its fee out of
    /// what it pays.
    pub(super) fn replaced_by(self, tx: Transaction) -> Self {
        let pays = |output: &TxOut| (output.script_pubkey.clone(), output.value.to_sat());
        let outputs = match self.kind {
            Kind::Payment { is_sweep: true } => tx.output.iter().map(pays).collect(),
            Kind::Payment { is_sweep: false } | Kind::Terms => self.outputs,
        };
        Self { tx, outputs, ..self }
    }

    /// Fee of one of its versions, sat.
    pub(super) fn fee_of(&self, tx: &Transaction) -> u64 {
        if let Some(joint) = &self.joint {
            return joint.fee_sat;
        }
        let spent: u64 = self.spent_by(tx).iter().map(|output| output.value.to_sat()).sum();
        let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        spent.saturating_sub(paid)
    }

    /// What one of its versions spends, in the order of its inputs.
    pub(super) fn spent_by(&self, tx: &Transaction) -> Vec<TxOut> {
        let coins: BTreeMap<OutPoint, &TxOut> = self.inputs().zip(&self.prevouts).collect();
        let spent = tx.input.iter().filter_map(|input| coins.get(&input.previous_output));
        spent.map(|output| (*output).clone()).collect()
    }

    /// Whether a transaction pays all that this one has to pay.
    pub(super) fn is_paid_by(&self, tx: &Transaction) -> bool {
        places(tx, &self.outputs).iter().all(Option::is_some)
    }

    pub(super) fn funded(&self) -> Funded {
        let txid = self.tx.compute_txid();
        let vouts = places(&self.tx, &self.outputs);
        let outpoints = vouts.into_iter().flatten().map(|vout| OutPoint { txid, vout }).collect();
        Funded { tx: self.tx.clone(), outpoints, fee_sat: self.fee_of(&self.tx) }
    }

    pub(super) fn cancelled(&self, cancel: &Cancel) -> Funded {
        let fee_sat = self.fee_of(&cancel.tx);
        Funded { tx: cancel.tx.clone(), outpoints: Vec::new(), fee_sat }
    }

    /// Where it waits although it was given up.
    pub(super) fn waits(&self) -> Option<Txid> {
        self.joint.as_ref().and_then(|joint| joint.waits)
    }

    /// Coins of this wallet that it spends.
    pub(super) fn inputs(&self) -> impl Iterator<Item = OutPoint> + '_ {
        let own = self.joint.iter().flat_map(|joint| &joint.coins).copied();
        let all = self.tx.input.iter().filter(|_| self.joint.is_none());
        own.chain(all.map(|input| input.previous_output))
    }
}

/// Where the given outputs stand in a transaction; equal ones get places of their own.
fn places(tx: &Transaction, outputs: &[(ScriptBuf, u64)]) -> Vec<Option<u32>> {
    let mut taken = BTreeSet::new();
    let mut place = |(script, sat): &(ScriptBuf, u64)| {
        let found = (0u32..).zip(&tx.output).find(|(vout, output)| {
            !taken.contains(vout)
                && output.script_pubkey == *script
                && output.value.to_sat() == *sat
        });
        found.map(|(vout, _)| {
            taken.insert(vout);
            vout
        })
    };
    outputs.iter().map(&mut place).collect()
}

/// The row of an entry.
pub(super) fn row(id: &EntryId, entry: &Entry) -> Result<Record, WalletError> {
    let row = Stored { v: ROW_VERSION, entry: entry.clone() };
    let value = serde_json::to_vec(&row).map_err(|_| WalletError::Damaged("a fund row"))?;
    Ok(upsert(FUND_TABLE, *id, value))
}

fn read(key: &[u8], value: &[u8]) -> Option<(EntryId, Entry)> {
    let row: Stored = serde_json::from_slice(value).ok()?;
    (row.v == ROW_VERSION).then_some((key.try_into().ok()?, row.entry))
}

/// Whether [`Entries::load`] could read a row.
pub(super) fn is_row(key: &[u8], value: &[u8]) -> bool {
    read(key, value).is_some()
}

/// All entries, and for each coin those that spend it.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_id: BTreeMap<EntryId, Entry>,
    users: BTreeMap<OutPoint, BTreeSet<EntryId>>,
}

impl Entries {
    /// Reads the journaled entries.
    pub(super) fn load(persist: &dyn Persist) -> Result<Self, WalletError> {
        let damaged = || WalletError::Damaged("a fund row");
        let mut entries = Self::default();
        for (key, value) in persist.rows(FUND_TABLE)? {
            let (id, entry) = read(&key, &value).ok_or_else(damaged)?;
            entries.insert(id, entry);
        }
        Ok(entries)
    }

    pub(super) fn get(&self, id: &EntryId) -> Option<&Entry> {
        self.by_id.get(id)
    }

    pub(super) fn insert(&mut self, id: EntryId, entry: Entry) {
        self.remove(&id);
        if let Entry::Live(fund) = &entry {
            for coin in fund.inputs() {
                self.users.entry(coin).or_default().insert(id);
            }
        }
        self.by_id.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: &EntryId) {
        let Some(Entry::Live(fund)) = self.by_id.remove(id) else { return };
        for coin in fund.inputs() {
            if let Some(users) = self.users.get_mut(&coin) {
                users.remove(id);
                if users.is_empty() {
                    self.users.remove(&coin);
                }
            }
        }
    }

    /// Entries that have ended, with the height at which they did.
    pub(super) fn over(&self) -> impl Iterator<Item = (EntryId, u32)> + '_ {
        self.by_id.iter().filter_map(|(id, entry)| match entry {
            Entry::Over { at_height, .. } => Some((*id, *at_height)),
            Entry::Live(_) => None,
        })
    }

    /// Entries that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = (EntryId, &Fund)> {
        self.by_id.iter().filter_map(|(id, entry)| match entry {
            Entry::Live(fund) => Some((*id, fund)),
            Entry::Over { .. } => None,
        })
    }

    /// Entries whose transaction spends a coin.
    pub(super) fn users(&self, coin: OutPoint) -> impl Iterator<Item = (EntryId, &Fund)> {
        let ids = self.users.get(&coin).into_iter().flatten();
        ids.filter_map(|id| match self.by_id.get(id) {
            Some(Entry::Live(fund)) => Some((*id, fund)),
            Some(Entry::Over { .. }) | None => None,
        })
    }

    /// Whether no transaction takes a coin by itself: an entry keeps it, or what was given up waits
    /// in a mempool with it.
    pub(super) fn is_locked(&self, coin: OutPoint) -> bool {
        self.is_kept(coin) || self.users(coin).any(|(_, fund)| fund.waits().is_some())
    }

    /// Whether an entry keeps a coin from all others, also from who names it.
    pub(super) fn is_kept(&self, coin: OutPoint) -> bool {
        self.users(coin).any(|(_, fund)| !fund.is_lent)
    }

    /// Whether an entry lends a coin, and none locks it.
    pub(super) fn is_lent(&self, coin: OutPoint) -> bool {
        !self.is_locked(coin) && self.users(coin).next().is_some()
    }
}
