//! What an owner asks the market to keep.

use serde::{Deserialize, Serialize};

use crate::admission::{AdmissionError, check_content};
use crate::ids::{CertId, Key, PoolId};
use crate::order::{Alternative, Mode, Order, Side, Source};
use crate::params::Params;
use crate::settlement::fees::FeeLimit;
use crate::units::{Slot, TimeMs, Window};
use crate::wire::VERSION;

/// How long a standing order lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeInForce {
    /// Until filled or cancelled.
    GoodTillCancelled,
    /// Until a time, unix ms.
    GoodTillTime(TimeMs),
    ImmediateOrCancel,
    /// One epoch, all or nothing.
    FillOrKill,
}

/// An instruction to keep an order in the market: what the owner's daemon re-signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSpec {
    pub side: Side,
    /// Classes and limits, 1 to 4 (an ask: 1).
    pub alts: Vec<Alternative>,
    pub qty: u32,
    pub min_qty: u32,
    pub mode: Mode,
    pub window: Window,
    /// Consecutive slots of a bid; 0 for an ask.
    pub slots: u16,
    pub features: u64,
    /// Only these counterparties.
    pub allow: Vec<Key>,
    pub deny: Vec<Key>,
    /// Shortest run of an ask; 0 for a bid.
    pub min_run: u16,
    pub time_in_force: TimeInForce,
    /// Holder of what is bought, if not this node.
    pub beneficiary: Option<Key>,
    /// From this slot on the beneficiary is not to redeem any more.
    pub use_by: Option<Slot>,
    /// Whether who pays may take it back from the beneficiary until its window begins.
    pub is_recallable: bool,
    /// Several pay for it, who keep their coins elsewhere.
    pub pool: Option<PoolId>,
    /// What its owner is willing to lose in fees. Not gossiped.
    pub fees: FeeLimit,
    /// The held certificate that an ask sells, or sells a part of; else it sells own capacity.
    pub cert: Option<CertId>,
    /// Whether an ask sells all units of own capacity that no other one of this node does, however
    /// many they are at the time; `qty` is what there was of them at the last.
    pub is_spare: bool,
}

impl OrderSpec {
    /// Most that so many blocks at a time can be worth to the owner, in one class or the
    /// dearest, msat: the limit for each of them. An ask may earn more.
    #[must_use]
    pub fn worth_msat(&self, class: Option<u16>, qty: u32) -> u128 {
        let of_class = self.alts.iter().filter(|alt| class.is_none_or(|class| class == alt.class));
        let limit = of_class.map(|alt| alt.limit_msat).max().unwrap_or(0);
        let run = match self.side {
            Side::Buy => u32::from(self.slots),
            Side::Sell => self.window.len(),
        };
        u128::from(limit) * u128::from(qty) * u128::from(run)
    }

    /// [`OrderSpec::worth_msat`] in sat, rounded up.
    #[must_use]
    pub fn worth_sat(&self, class: Option<u16>, qty: u32) -> u64 {
        u64::try_from(self.worth_msat(class, qty).div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// Checks what holds at any time: the rules of admission for the content of every order that
    /// would be signed from it, and that its parts fit each other.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self, params: &Params) -> Result<(), AdmissionError> {
        check_content(&self.form(), params)?;
        if self.window.is_empty() {
            return Err(AdmissionError::Window);
        }
        let longer = u32::from(self.slots) > self.window.len();
        let is_foreign = match self.side {
            Side::Buy => self.cert.is_some() || self.is_spare,
            Side::Sell => self.beneficiary.is_some() || self.is_spare && self.cert.is_some(),
        };
        if longer || is_foreign {
            return Err(AdmissionError::Run);
        }
        // However late the run begins, its first slot is left to use.
        let last_start = self.window.end.saturating_sub(u32::from(self.slots));
        if self.use_by.is_some_and(|slot| slot <= last_start || self.beneficiary.is_none()) {
            return Err(AdmissionError::UseBy);
        }
        if self.is_recallable && (self.beneficiary.is_none() || self.pool.is_some()) {
            return Err(AdmissionError::Recall);
        }
        Ok(())
    }

    /// Its content as an order of nobody and no epoch.
    fn form(&self) -> Order {
        Order {
            v: VERSION,
            epoch: 0,
            side: self.side,
            owner: Key([0; 32]),
            nonce: 0,
            alts: self.alts.clone(),
            qty: self.qty,
            min_qty: self.min_qty,
            mode: self.mode,
            window: self.window,
            slots: self.slots,
            features: self.features,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            min_run: self.min_run,
            source: Source::Primary,
            created_ms: 0,
            backing: None,
            pow_nonce: 0,
        }
    }
}
