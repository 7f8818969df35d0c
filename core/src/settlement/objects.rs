//! The signed objects of a settlement.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::units::{Slot, Units, Window};
use crate::wire::Object;

/// One row of an epoch's result: what both sides must hold identically for a trade to bind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    pub v: u8,
    pub epoch: u64,
    pub buy: [u8; 32],
    pub sell: [u8; 32],
    pub class: u16,
    pub start: Slot,
    pub slots: u16,
    pub qty: u32,
    /// Total price, msat.
    pub msat: u64,
}

impl Object for Row {
    const NAME: &'static str = "row";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

impl Row {
    /// The delivery window.
    #[must_use]
    pub fn window(&self) -> Window {
        Window { start: self.start, end: self.start.saturating_add(u32::from(self.slots)) }
    }

    /// Total price, sat: msat rounded down.
    #[must_use]
    pub fn price_sat(&self) -> u64 {
        self.msat / 1000
    }
}

/// One who pays for a trade, each with an own contract output and an own refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funder {
    /// ed25519 key that signs Accept.
    pub key: Key,
    /// Single-use refund key, x-only.
    pub refund_xonly: [u8; 32],
    /// Value of the output, sat.
    pub amount_sat: u64,
}

/// What buyer and seller sign; its hash is in the address that is paid.
///
/// Signed by `from`, the seller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub v: u8,
    pub trade_id: TradeId,
    pub cert_id: CertId,
    /// Its sequence number, consumed by the sale.
    pub seq: u32,
    /// `cert_id` at seq 0, else id of the last Activation.
    pub prev_hash: [u8; 32],
    pub class: u16,
    /// Unit numbers at the provider.
    pub units: Units,
    pub window: Window,
    /// Seller: present holder, or the provider at seq 0.
    pub from: Key,
    pub to: Key,
    /// Who pays, 1 to 8.
    pub funders: Vec<Funder>,
    /// Price, sat: the sum of the funders' amounts.
    pub price_sat: u64,
    /// SHA-256 of the preimage x (`H`).
    pub payment_hash: [u8; 32],
    /// Seller's single-use claim key, x-only.
    pub s_xonly: [u8; 32],
    /// Where the seller wants to be paid, a script of at most 42 bytes.
    pub payout_spk: Vec<u8>,
    /// Chain height at signing (`t0`).
    pub t0: u32,
    /// The funding must have confirmed by this height (`F`).
    pub fund_by: u32,
    /// From the block after this height on the buyer can refund (`T_R`).
    pub refund_at: u32,
    /// Confirmations of the funding before the seller may reveal (`k_f`).
    pub funding_confirmations: u32,
    /// Version of the script template: 1.
    pub template: u8,
    pub nonce16: [u8; 16],
}

impl Object for Terms {
    const NAME: &'static str = "terms";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.from.0)
    }
}

/// A funder's consent, with the facts on which the provider may release the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    pub v: u8,
    pub terms_hash: TermsHash,
    /// `F + g`: the lock may go if nothing confirmed by then.
    pub release_at_height: u32,
    /// Accept time + funding deadline, unix ms: the lock may go if no FUND was acknowledged.
    pub release_at_ms: u64,
    /// Whether all funders pay by one transaction: then the provider takes no other.
    pub together: bool,
}

impl Object for Accept {
    const NAME: &'static str = "accept";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// The provider's promise that (cert_id, seq) is kept for these terms alone. Gossiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockGrant {
    pub v: u8,
    pub provider: Key,
    pub cert_id: CertId,
    pub seq: u32,
    /// 0, then one more for each lock after a proven release.
    pub attempt: u32,
    /// Hash of the evidence of the last release; zero at attempt 0.
    pub prev_release: [u8; 32],
    pub terms_hash: TermsHash,
    /// `F` of the terms.
    pub fund_by: u32,
    /// `T_R` of the terms.
    pub refund_at: u32,
    /// The provider's chain height.
    pub p_height: u32,
}

impl Object for LockGrant {
    const NAME: &'static str = "lock";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
    fn signer(&self) -> Option<[u8; 32]> {
        Some(self.provider.0)
    }
}

/// Proof that a sale was paid: the preimage, and the spend that revealed it or the seller's
/// word. Signed by nobody: the chain is its witness, or the signature that it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    pub v: u8,
    pub terms_hash: TermsHash,
    pub x: [u8; 32],
    /// Transaction that spent the contract (internal byte order); zero with a Quittance.
    pub spend_txid: [u8; 32],
    /// Zero with a Quittance.
    pub vin: u32,
    /// In place of a spend: the seller's signature of the [`Quittance`] of these terms and this
    /// preimage.
    pub quittance: Option<[[u8; 32]; 2]>,
}

impl Object for Transfer {
    const NAME: &'static str = "transfer";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// The seller counts these terms as paid before it has spent the contract, and reveals its
/// preimage. Signed by the seller; without its signature the preimage moves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quittance {
    pub v: u8,
    pub terms_hash: TermsHash,
    pub x: [u8; 32],
}

impl Object for Quittance {
    const NAME: &'static str = "quittance";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// The buyer gives up before funding. Releases the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsCancel {
    pub v: u8,
    pub terms_hash: TermsHash,
}

impl Object for TermsCancel {
    const NAME: &'static str = "terms-cancel";
    const VERSIONS: RangeInclusive<u8> = 1..=1;
}

/// Buyer to seller, first message: whom the certificate is for and who pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsRequest {
    pub trade_id: TradeId,
    pub to: Key,
    pub funders: Vec<Funder>,
    /// The buyer's chain height.
    pub tip_height: u32,
    /// From this slot on the certificate is not to be redeemed any more, if who pays says so.
    pub use_by: Option<Slot>,
}

impl TermsRequest {
    /// Who alone pays, for somebody else; nobody else can ask to recall the certificate.
    #[must_use]
    pub fn sponsor(&self) -> Option<Key> {
        match self.funders.as_slice() {
            [only] => Some(only.key).filter(|key| *key != self.to),
            _ => None,
        }
    }

    /// Last slot in which the certificate of a window is to be redeemed. A redemption in it still
    /// runs until the window ends.
    #[must_use]
    pub fn not_after_slot(&self, window: Window) -> Slot {
        self.use_by.unwrap_or(window.end).min(window.end).saturating_sub(1)
    }
}
