//! An order: a signed, firm instruction to buy or sell in one epoch.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::ids::Key;
use super::units::Window;
use crate::wire::{Envelope, Object};

/// Buy or sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    Buy,
    Sell,
}

/// How the units of a bid may be spread over providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Each unit stays with one provider for the whole run.
    Sticky,
    /// All units with one provider.
    Gang,
}

/// One class that an order accepts, with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alternative {
    pub class: u16,
    /// Worst acceptable price, msat per block.
    pub limit_msat: u64,
}

/// What an ask sells. Few orders resell, so what it takes is kept apart from the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The owner's own hardware.
    Primary,
    /// A certificate that the owner holds: the provider's last signed Activation.
    Resale {
        /// The Activation, as its provider signed it.
        activation: Box<Envelope>,
        /// What blinds the owner in it.
        salt16: [u8; 16],
    },
}

/// Coins that back an order. Carried and checked for form; enforced by later networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    pub txid: [u8; 32],
    pub vout: u32,
    /// Its value, sat.
    pub amount_sat: u64,
    /// Height at which it confirmed.
    pub height: u32,
    pub xonly: [u8; 32],
    /// BIP-340 signature of the owner key, in halves.
    pub signature: [[u8; 32]; 2],
}

/// An order for one epoch. Field order and widths are the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub v: u8,
    /// The one epoch in which it is valid.
    pub epoch: u64,
    pub side: Side,
    pub owner: Key,
    /// Distinguishes the owner's orders; of two with one nonce the lower id stays.
    pub nonce: u64,
    /// Classes and limits in the owner's order of preference: 1 to 4, an ask has 1.
    pub alts: Vec<Alternative>,
    pub qty: u32,
    pub min_qty: u32,
    /// Spread over providers; an ask is sticky.
    pub mode: Mode,
    /// When the blocks may be delivered.
    pub window: Window,
    /// Consecutive slots that a bid needs; 0 for an ask.
    pub slots: u16,
    /// Required (bid) or offered (ask) feature bits.
    pub features: u64,
    /// Only these counterparties, ascending; empty means all.
    pub allow: Vec<Key>,
    /// Never these counterparties, ascending.
    pub deny: Vec<Key>,
    /// Shortest run that an ask accepts; 0 for a bid.
    pub min_run: u16,
    pub source: Source,
    /// Offset in the epoch, ms; orders reconciliation only.
    pub created_ms: u32,
    pub backing: Option<Box<Backing>>,
    /// Proof of work: the last 8 bytes, searched until the id is small enough.
    pub pow_nonce: u64,
}

#[cfg(any(test, feature = "test-support"))]
impl Order {
    /// A bid of its owner for one block of slots 0 and 1.
    #[must_use]
    pub fn sample(owner: Key, epoch: u64) -> Self {
        Self {
            v: crate::wire::VERSION,
            epoch,
            side: Side::Buy,
            owner,
            nonce: 1,
            alts: vec![Alternative { class: 1, limit_msat: 900_000 }],
            qty: 1,
            min_qty: 1,
            mode: Mode::Sticky,
            window: Window { start: 0, end: 2 },
            slots: 1,
            features: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            min_run: 0,
            source: Source::Primary,
            created_ms: 0,
            backing: None,
            pow_nonce: 0,
        }
    }
}

impl Object for Order {
    const NAME: &'static str = "order";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.owner.0)
    }
}
