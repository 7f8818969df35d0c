//! What every component works with: time, parameters, keys, chain view, outbox.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{All, Secp256k1};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::outbox::Outbox;
use super::record::{Cause, Record, Stored, Table, Unreadable, records};
use super::treasury::Treasury;
use crate::ids::{Key, StandingId};
use crate::params::Params;
use crate::units::TimeMs;
use crate::wire::{Object, Verified};

/// The chain as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainView {
    /// Whether a source delivers facts now; without one nothing is spent or signed that
    /// leads to spending.
    pub up: bool,
    /// Height of the best block.
    pub height: u32,
    /// Median time past, unix s.
    pub median_time_past_s: u32,
    /// (target, sat per 1,000 vB), ascending by target.
    pub feerates: Vec<(u16, u64)>,
}

impl ChainView {
    /// Fee rate to confirm within a number of chain blocks, sat per 1,000 vB: that of the
    /// longest target not above it, never below 1 sat/vB.
    #[must_use]
    pub fn feerate_sat_kvb(&self, blocks: u32) -> u64 {
        let fits = |(target, _): &&(u16, u64)| u32::from(*target) <= blocks.max(2);
        let found = self.feerates.iter().rev().find(fits).or_else(|| self.feerates.first());
        found.map_or(1000, |(_, rate)| (*rate).max(1000))
    }
}

/// Fresh scripts of the wallet.
#[derive(Debug, Clone, Default)]
pub struct WalletView {
    /// Unused scripts; taken from the front.
    pub fresh_spks: VecDeque<ScriptBuf>,
}

/// A counter by its name, as it stands on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterV1(pub u64);

impl Stored for CounterV1 {
    const TABLE: Table = Table::Counter;
}

/// Reads the counters of an earlier life.
///
/// # Errors
/// The first that cannot be read.
pub fn load_counters(all: &[Record]) -> Result<BTreeMap<String, u64>, Unreadable> {
    records::<CounterV1>(all)
        .map(|found| {
            let (record, CounterV1(value)) = found?;
            let name = String::from_utf8(record.key.clone());
            Ok((name.map_err(|_| record.unreadable(Cause::Key))?, value))
        })
        .collect()
}

/// Everything that a part of the engine may use while it handles one input.
#[derive(Debug)]
pub struct Context<'a> {
    /// Unix ms.
    pub now_ms: TimeMs,
    /// Network definition.
    pub params: &'a Params,
    /// Signing keys.
    pub keys: &'a Keys,
    /// Verification and signing context of secp256k1, made once.
    pub secp: &'a Secp256k1<All>,
    /// Chain view.
    pub chain: &'a ChainView,
    /// Wallet view.
    pub wallet: &'a mut WalletView,
    /// Coins and what they are reserved for.
    pub treasury: &'a mut Treasury,
    /// Counters by name; changed through [`Context::next_index`].
    pub counters: &'a mut BTreeMap<String, u64>,
    /// Where effects go.
    pub out: &'a mut Outbox,
}

impl Context<'_> {
    /// The next number of a counter, journaled before anything derived from it leaves.
    pub fn next_index(&mut self, counter: &str) -> u64 {
        let next = self.counters.get(counter).copied().unwrap_or(0).saturating_add(1);
        self.set_counter(counter, next);
        next
    }

    /// Sets a counter.
    pub fn set_counter(&mut self, counter: &str, value: u64) {
        self.counters.insert(counter.to_owned(), value);
        self.out.store(counter.as_bytes(), &CounterV1(value));
    }

    /// A counter's value.
    #[must_use]
    pub fn counter(&self, counter: &str) -> u64 {
        self.counters.get(counter).copied().unwrap_or(0)
    }

    /// 32 fresh pseudorandom bytes.
    pub fn fresh(&mut self, label: &str) -> [u8; 32] {
        let index = self.next_index(label);
        self.keys.secret(label, index)
    }

    /// Public identity of this node.
    #[must_use]
    pub fn me(&self) -> Key {
        self.keys.public()
    }

    /// Sign an object as this node.
    #[must_use]
    pub fn sign<T: Object>(&self, value: T) -> Verified<T> {
        self.keys.sign(value, self.params)
    }

    /// Id for a new standing order.
    pub fn fresh_standing_id(&mut self) -> StandingId {
        StandingId(self.fresh("standing"))
    }
}
