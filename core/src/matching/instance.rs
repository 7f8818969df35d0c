//! The book as it is handed in: labels, bounds, refusals and what is dropped.

use crate::reason;
use crate::reasons::Reason;
use std::collections::BTreeSet;

use thiserror::Error;

use super::labels::Ranks;

/// Highest price of one slot and highest legal limit, in msat per block (10 BTC).
///
/// Sums over the longest horizon stay below 2^49, so the closure is safe in `i64`.
pub const PMAX_MSAT: u64 = 1_000_000_000_000;
/// Most units in one order: with [`PMAX_MSAT`] and [`MAX_HOURS`] a trade's total fits `u64`.
pub const MAX_QTY: u32 = 10_000;
/// Longest run of slots a bid may ask for.
pub const MAX_HOURS: u16 = 168;
/// Longest span of slots one book may cover: the closure holds one row per slot boundary.
pub const MAX_HORIZON_SLOTS: u32 = 336;
/// Most (class, limit) alternatives of one bid, each of which is searched in full.
pub const MAX_ALTERNATIVES: usize = 4;
/// Most labels in `allow` and `deny` of one order together, each read per candidate pair.
pub const MAX_KEYS: usize = 16;
/// Most starts of the greedy search; more of them add less than two points of welfare.
pub const MAX_STARTS: u8 = 8;

/// Fewest asks that a book may allow one bid: with two of them, a bid that one ask alone could
/// serve is never left without (docs/matching.md).
pub const MIN_LEGS: u16 = 2;
/// Most asks that a book may allow one bid, if it sets a bound.
pub const MAX_LEGS: u16 = 64;

/// What an order without an expiry epoch counts as, so that a late `epoch` drops it too.
const NO_EXPIRY: u64 = 1 << 62;

/// One epoch's input: a set of orders and what is known about the moment.
///
/// The order of `orders` and `cancels` does not change the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Seed of the tie-breaking draws.
    pub beacon: [u8; 32],
    /// First slot that can still be delivered; runs never start before it.
    pub now: u32,
    /// Number of the epoch being matched, against which `expiry_epoch` is read.
    pub epoch: u64,
    /// How many starts of the search to run, 1 to [`MAX_STARTS`].
    pub starts: u8,
    /// Most asks that one bid may take, [`MIN_LEGS`] to [`MAX_LEGS`]; `None` for no bound. With
    /// one there are at most so many trades as bids, times it.
    pub max_legs: Option<u16>,
    /// Bids and asks with distinct ids.
    pub orders: Vec<Order>,
    /// Cancellations; one by anyone but the order's owner has no effect.
    pub cancels: Vec<Cancel>,
}

/// A bid or an ask, with labels as its issuer wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Unique label; ties end with its bytes.
    pub id: String,
    /// Who trades. An owner never trades with itself and has one draw for all its orders.
    pub owner: String,
    /// Units wanted or offered before any fill, at most [`MAX_QTY`].
    pub qty: u32,
    /// Units filled in earlier epochs.
    pub filled: u32,
    /// Fewest units one match of a bid may bring, cut to what is left; at least 1.
    pub min_qty: u32,
    /// Half-open slot interval `[start, end)` in which delivery must lie.
    pub window: (u32, u32),
    /// Last epoch in which the order is valid; `None` stands for no expiry.
    pub expiry_epoch: Option<u64>,
    /// Feature bits: required by a bid, offered by an ask.
    pub features: u64,
    /// Only these counterparties (providers for a bid, owners for an ask); empty means all.
    pub allow: Vec<String>,
    /// None of these counterparties.
    pub deny: Vec<String>,
    /// What is particular to a bid or to an ask.
    pub side: Side,
}

/// The part of an order that differs between bids and asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A bid for a run of consecutive slots.
    Buy {
        /// Length of the run in slots, 1 to [`MAX_HOURS`].
        hours: u16,
        /// How the units may be spread over providers.
        mode: Mode,
        /// Acceptable classes with their limits in msat per block, in the owner's order of
        /// preference among equals; 1 to [`MAX_ALTERNATIVES`] distinct classes.
        alts: Vec<(u16, u64)>,
    },
    /// An ask for units of one class over a window.
    Sell {
        /// Resource class offered.
        class: u16,
        /// Lowest acceptable price in msat per block.
        limit_msat: u64,
        /// Shortest run of slots the seller accepts, at least 1.
        min_run: u16,
        /// Who delivers, if it is not the owner (resale).
        provider: Option<String>,
    },
}

/// How the units of one bid may be spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each unit stays with one ask for the whole run; units may differ.
    Sticky,
    /// All units come from one ask.
    Gang,
}

/// A request to drop an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancel {
    /// Id of the order.
    pub order: String,
    /// Who asks; only the order's owner is heard.
    pub signer: String,
}

/// Why a book is refused as a whole. See [`MatchError::code`] for the stable codes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)] // Each message states what the variant and its field mean.
pub enum MatchError {
    #[error("there is no version {version} of the matching algorithm")]
    Algorithm { version: u8 },
    #[error("starts is {starts}, allowed are 1 to {MAX_STARTS}")]
    Starts { starts: u8 },
    #[error("max_legs is {legs}, allowed are {MIN_LEGS} to {MAX_LEGS}")]
    Legs { legs: u16 },
    #[error("order {id:?} occurs twice")]
    DuplicateId { id: String },
    #[error("order {id:?} has an empty delivery window")]
    EmptyWindow { id: String },
    #[error("order {id:?} has more than {MAX_QTY} units")]
    QtyTooLarge { id: String },
    #[error("order {id:?} has min_qty 0")]
    ZeroMinQty { id: String },
    #[error("order {id:?} names more than {MAX_KEYS} labels in allow and deny together")]
    TooManyKeys { id: String },
    #[error("order {id:?} asks for 0 hours")]
    ZeroHours { id: String },
    #[error("order {id:?} asks for more than {MAX_HOURS} hours")]
    HoursTooLong { id: String },
    #[error("order {id:?} has no alternative")]
    NoAlternatives { id: String },
    #[error("order {id:?} has more than {MAX_ALTERNATIVES} alternatives")]
    TooManyAlternatives { id: String },
    #[error("order {id:?} names class {class} in two alternatives")]
    RepeatedClass { id: String, class: u16 },
    #[error("order {id:?} has min_run 0")]
    ZeroMinRun { id: String },
    #[error("live orders span {slots} slots, allowed are {MAX_HORIZON_SLOTS}")]
    HorizonTooLong { slots: u32 },
    #[error("the accepted trades have no common price")]
    Infeasible,
}

impl MatchError {
    /// The stable reason code of this refusal.
    pub fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// Its row in the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Algorithm { .. } => reason!("match.algorithm"),
            Self::Starts { .. } => reason!("match.starts"),
            Self::Legs { .. } => reason!("match.max_legs"),
            Self::DuplicateId { .. } => reason!("match.duplicate_id"),
            Self::EmptyWindow { .. } => reason!("match.empty_window"),
            Self::QtyTooLarge { .. } => reason!("match.qty_too_large"),
            Self::ZeroMinQty { .. } => reason!("match.zero_min_qty"),
            Self::TooManyKeys { .. } => reason!("match.too_many_keys"),
            Self::ZeroHours { .. } => reason!("match.zero_hours"),
            Self::HoursTooLong { .. } => reason!("match.hours_too_long"),
            Self::NoAlternatives { .. } => reason!("match.no_alternatives"),
            Self::TooManyAlternatives { .. } => reason!("match.too_many_alternatives"),
            Self::RepeatedClass { .. } => reason!("match.repeated_class"),
            Self::ZeroMinRun { .. } => reason!("match.zero_min_run"),
            Self::HorizonTooLong { .. } => reason!("match.horizon_too_long"),
            Self::Infeasible => reason!("match.infeasible"),
        }
    }
}

impl Instance {
    /// The orders that take part, ascending by id.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn live(&self) -> Result<Vec<&Order>, MatchError> {
        let mut live = self.ranked()?;
        live.sort_unstable_by_key(|&(_, rank)| rank);
        Ok(live.into_iter().map(|(order, _)| order).collect())
    }

    /// The orders that take part, as they came, each with the rank of its id among all.
    ///
    /// All orders are checked first, also those that are then dropped; the horizon is
    /// checked on what is left, since a dropped order cannot widen it.
    pub(super) fn ranked(&self) -> Result<Vec<(&Order, u32)>, MatchError> {
        if !(1..=MAX_STARTS).contains(&self.starts) {
            return Err(MatchError::Starts { starts: self.starts });
        }
        if let Some(legs) = self.max_legs.filter(|legs| !(MIN_LEGS..=MAX_LEGS).contains(legs)) {
            return Err(MatchError::Legs { legs });
        }
        self.orders.iter().try_for_each(Order::check)?;
        let ids = Ranks::new(self.orders.iter().map(|order| order.id.as_str()).collect());
        if let Some(at) = ids.repeated() {
            return Err(MatchError::DuplicateId { id: self.orders[at].id.clone() });
        }
        let cancelled = self.cancelled(&ids);
        let mut live = Vec::with_capacity(self.orders.len());
        let (mut first, mut end) = (u32::MAX, 0);
        for (at, order) in self.orders.iter().enumerate() {
            if order.is_live(self.now, self.epoch) && !cancelled.contains(&at) {
                first = first.min(order.first_slot(self.now));
                end = end.max(order.window.1);
                live.push((order, ids.at(at)));
            }
        }
        let slots = end.saturating_sub(first);
        if slots > MAX_HORIZON_SLOTS {
            return Err(MatchError::HorizonTooLong { slots });
        }
        Ok(live)
    }

    /// Positions of the orders that their owners cancelled.
    fn cancelled(&self, ids: &Ranks<'_>) -> BTreeSet<usize> {
        let cancelled = |cancel: &Cancel| {
            ids.find(&cancel.order).filter(|&at| self.orders[at].owner == cancel.signer)
        };
        self.cancels.iter().filter_map(cancelled).collect()
    }
}

impl Order {
    /// Units not filled yet.
    #[must_use]
    pub fn units_left(&self) -> u32 {
        self.qty.saturating_sub(self.filled)
    }

    /// Fewest units a match must bring, never more than are left.
    pub(super) fn min_left(&self) -> u32 {
        self.min_qty.min(self.units_left())
    }

    /// First slot of the window that can still be delivered.
    #[must_use]
    pub fn first_slot(&self, now: u32) -> u32 {
        self.window.0.max(now)
    }

    /// Slots a run of this order needs at least.
    fn needed_slots(&self) -> u32 {
        match self.side {
            Side::Buy { hours, .. } => hours.into(),
            Side::Sell { .. } => 1,
        }
    }

    /// The highest limit, in msat per block: the one that ranks a bid.
    pub(super) fn best_limit_msat(&self) -> u64 {
        match &self.side {
            Side::Buy { alts, .. } => alts.iter().map(|&(_, limit)| limit).max().unwrap_or(0),
            Side::Sell { limit_msat, .. } => *limit_msat,
        }
    }

    /// Whether the order can take part now, its owner's cancels aside.
    pub(super) fn is_live(&self, now: u32, epoch: u64) -> bool {
        self.units_left() > 0
            && self.expiry_epoch.unwrap_or(NO_EXPIRY) >= epoch
            && (1..=PMAX_MSAT).contains(&self.best_limit_msat())
            && self.window.1.saturating_sub(self.first_slot(now)) >= self.needed_slots()
    }

    fn check(&self) -> Result<(), MatchError> {
        let id = || self.id.clone();
        if self.window.0 >= self.window.1 {
            return Err(MatchError::EmptyWindow { id: id() });
        }
        if self.qty > MAX_QTY {
            return Err(MatchError::QtyTooLarge { id: id() });
        }
        if self.min_qty == 0 {
            return Err(MatchError::ZeroMinQty { id: id() });
        }
        if self.allow.len() + self.deny.len() > MAX_KEYS {
            return Err(MatchError::TooManyKeys { id: id() });
        }
        match &self.side {
            Side::Buy { hours: 0, .. } => Err(MatchError::ZeroHours { id: id() }),
            Side::Buy { hours, .. } if *hours > MAX_HOURS => {
                Err(MatchError::HoursTooLong { id: id() })
            }
            Side::Buy { alts, .. } => check_alternatives(&self.id, alts),
            Side::Sell { min_run: 0, .. } => Err(MatchError::ZeroMinRun { id: id() }),
            Side::Sell { .. } => Ok(()),
        }
    }
}

fn check_alternatives(id: &str, alts: &[(u16, u64)]) -> Result<(), MatchError> {
    if alts.is_empty() {
        return Err(MatchError::NoAlternatives { id: id.into() });
    }
    if alts.len() > MAX_ALTERNATIVES {
        return Err(MatchError::TooManyAlternatives { id: id.into() });
    }
    let repeats = |at: &usize| alts[..*at].iter().any(|alt| alt.0 == alts[*at].0);
    match (1..alts.len()).find(repeats) {
        Some(at) => Err(MatchError::RepeatedClass { id: id.into(), class: alts[at].0 }),
        None => Ok(()),
    }
}
