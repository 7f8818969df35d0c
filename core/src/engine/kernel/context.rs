//! What every component works with: time, parameters, keys, chain view, outbox.

use std::collections::VecDeque;

use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{ScriptBuf, Txid};

use super::conduct::{Conduct, Miss, Subject};
use super::counters::Counters;
use super::keys::Keys;
use super::outbox::Outbox;
use super::treasury::Treasury;
use crate::ids::{Key, StandingId};
use crate::params::{FeeBounds, Params};
use crate::settlement::fees::FLOOR_SAT_KVB;
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
    /// (target, sat per 1,000 vB), ascending by target, as far as they are believed; none if
    /// nobody knows what a transaction costs now.
    pub feerates: Vec<(u16, u64)>,
    /// Under it a mempool takes nothing, sat per 1,000 vB.
    pub least_feerate_sat_kvb: u64,
}

impl ChainView {
    /// Takes over what a source estimates, within the bounds of the network.
    pub fn set_feerates(&mut self, heard: &[(u16, u64)], bounds: FeeBounds) {
        let believed = |(target, rate): &(u16, u64)| (*target, (*rate).min(bounds.max_sat_kvb));
        self.feerates = heard.iter().map(believed).collect();
        if self.feerates.is_empty() && bounds.fallback_sat_kvb > 0 {
            self.feerates.push((0, bounds.fallback_sat_kvb));
        }
    }

    /// Fee rate to confirm within a number of chain blocks, sat per 1,000 vB: that of the
    /// longest target not above it, never below 1 sat/vB or the mempool's minimum. `None`
    /// without an estimate.
    #[must_use]
    pub fn estimate(&self, blocks: u32) -> Option<u64> {
        let fits = |(target, _): &&(u16, u64)| u32::from(*target) <= blocks.max(2);
        let found = self.feerates.iter().rev().find(fits).or_else(|| self.feerates.first());
        found.map(|(_, rate)| (*rate).max(self.floor_sat_kvb()))
    }

    /// [`ChainView::estimate`], or the lowest rate that is relayed: for what has to be sent in
    /// any case and can be replaced.
    #[must_use]
    pub fn feerate_sat_kvb(&self, blocks: u32) -> u64 {
        self.estimate(blocks).unwrap_or(self.floor_sat_kvb())
    }

    fn floor_sat_kvb(&self) -> u64 {
        self.least_feerate_sat_kvb.max(FLOOR_SAT_KVB)
    }
}

/// Fresh scripts of the wallet.
#[derive(Debug, Clone, Default)]
pub struct WalletView {
    /// Unused scripts; taken from the front.
    pub fresh_spks: VecDeque<ScriptBuf>,
    /// Where sales are paid out.
    pub payout: Payout,
}

/// Where sales are paid out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Payout {
    /// To a fresh script of the wallet.
    #[default]
    Wallet,
    /// To the one place that the owner named.
    Fixed(ScriptBuf),
    /// To these places that the owner named, each once.
    Fresh(VecDeque<ScriptBuf>),
}

impl WalletView {
    /// Takes in what the wallet says: fresh places come to those that are there.
    pub fn pay_out_to(&mut self, payout: Payout) {
        match (&mut self.payout, payout) {
            (Payout::Fresh(have), Payout::Fresh(more)) => have.extend(more),
            (have, new) => *have = new,
        }
    }

    /// Where the next sale is paid out, if there is a place.
    #[must_use]
    pub fn next_payout(&self) -> Option<&ScriptBuf> {
        match &self.payout {
            Payout::Wallet => self.fresh_spks.front(),
            Payout::Fixed(spk) => Some(spk),
            Payout::Fresh(spks) => spks.front(),
        }
    }

    /// Gives that place to a sale.
    pub fn use_payout(&mut self) {
        match &mut self.payout {
            Payout::Wallet => drop(self.fresh_spks.pop_front()),
            Payout::Fixed(_) => {}
            Payout::Fresh(spks) => drop(spks.pop_front()),
        }
    }
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
    /// Who let trades lapse.
    pub conduct: &'a mut Conduct,
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

    /// Counts what somebody failed to do.
    pub fn missed(&mut self, by: Subject, miss: Miss) {
        self.missed_with(by, miss, None);
    }

    /// The same for a funding, which several trades may share: it counts once.
    pub fn missed_with(&mut self, by: Subject, miss: Miss, funding: Option<Txid>) {
        self.conduct.miss(self.out, self.now_ms, self.params.epoch_ms(), (by, funding), miss);
    }

    /// Somebody kept a promise.
    pub fn kept(&mut self, by: Key) {
        self.conduct.kept(self.out, self.now_ms, self.params.epoch_ms(), by);
    }

    /// 32 fresh pseudorandom bytes.
    pub fn fresh(&mut self, label: &str) -> [u8; 32] {
        let index = self.next_index(label);
        self.secret(label, index)
    }

    /// A time that has passed, by the own clock and by the chain, unix ms: what it ends may be
    /// forgotten for good. None has without a chain, since a clock alone may be ahead.
    #[must_use]
    pub fn past_ms(&self) -> TimeMs {
        self.now_ms.min(u64::from(self.chain.median_time_past_s).saturating_mul(1000))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_believed_within_the_bounds_of_the_network() {
        let public = FeeBounds { max_sat_kvb: 2_000_000, fallback_sat_kvb: 0 };
        let own = FeeBounds { fallback_sat_kvb: 1_000, ..public };
        // heard, bounds, estimates for 1, 3 and 144 chain blocks
        type Row = (&'static [(u16, u64)], FeeBounds, [Option<u64>; 3]);
        let table: [Row; 5] = [
            (&[(2, 9_000), (6, 5_000)], public, [Some(9_000), Some(9_000), Some(5_000)]),
            (&[(2, 50_000_000), (6, 0)], public, [Some(2_000_000), Some(2_000_000), Some(1_000)]),
            (&[(6, u64::MAX)], own, [Some(2_000_000); 3]),
            (&[], public, [None; 3]),
            (&[], own, [Some(1_000); 3]),
        ];
        for (heard, bounds, expected) in table {
            let mut chain = ChainView::default();
            chain.set_feerates(&[(2, 7_777)], bounds);
            chain.set_feerates(heard, bounds);
            assert_eq!([1, 3, 144].map(|blocks| chain.estimate(blocks)), expected, "{heard:?}");
        }
        assert_eq!(ChainView::default().feerate_sat_kvb(3), 1_000);
    }
}
