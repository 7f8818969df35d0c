//! What every component works with: time, parameters, keys, chain view, outbox.

use std::collections::VecDeque;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{All, Secp256k1};

use super::counters::Counters;
use super::keys::Keys;
use super::outbox::Outbox;
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

/// Everything that a part of the engine may use while it handles one input.
#[derive(Debug)]
pub struct Context<'a> {
    /// Unix ms.
    pub now_ms: TimeMs,
    pub params: &'a Params,
    pub keys: &'a Keys,
    /// Verification and signing context of secp256k1, made once.
    pub secp: &'a Secp256k1<All>,
    pub chain: &'a ChainView,
    pub wallet: &'a mut WalletView,
    /// Coins and what they are reserved for.
    pub treasury: &'a mut Treasury,
    /// Counters by name; changed through [`Context::next_index`].
    pub counters: &'a mut Counters,
    pub out: &'a mut Outbox,
}

impl Context<'_> {
    /// The next index for [`Context::secret`], journaled with the salt of this life before
    /// anything derived from them leaves.
    pub fn next_index(&mut self, counter: &str) -> u64 {
        self.counters.next_index(self.out, counter)
    }

    /// Sets a counter.
    pub fn set_counter(&mut self, counter: &str, value: u64) {
        self.counters.set(self.out, counter, value);
    }

    /// A counter's value.
    #[must_use]
    pub fn counter(&self, counter: &str) -> u64 {
        self.counters.value(counter)
    }

    /// The secret of a label and an index of [`Context::next_index`], of this life or an
    /// earlier one.
    #[must_use]
    pub fn secret(&self, label: &str, index: u64) -> [u8; 32] {
        self.keys.secret(label, self.counters.salt(index), index)
    }

    /// 32 fresh pseudorandom bytes.
    pub fn fresh(&mut self, label: &str) -> [u8; 32] {
        let index = self.next_index(label);
        self.secret(label, index)
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
