//! A book in the form that people write and read: labels, bounds and refusals.

use thiserror::Error;

use super::labels::Label;
use super::view::{Alts, Labels, Listing, Orders, Terms, View, ViewSide};
use crate::reason;
use crate::reasons::Reason;

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

#[cfg(any(test, feature = "test-support"))]
impl Order {
    /// An order that nothing restricts but these.
    #[must_use]
    pub fn sample(id: String, owner: String, qty: u32, window: (u32, u32), side: Side) -> Self {
        Self {
            id,
            owner,
            qty,
            filled: 0,
            min_qty: 1,
            window,
            expiry_epoch: None,
            features: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            side,
        }
    }
}

#[cfg(any(test, feature = "test-support"))]
impl Instance {
    /// A book of these orders alone.
    #[must_use]
    pub fn sample(starts: u8, orders: Vec<Order>) -> Self {
        let (beacon, cancels) = ([0; 32], Vec::new());
        Self { beacon, now: 0, epoch: 0, starts, max_legs: None, orders, cancels }
    }
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
    #[error("starts must be 1 to {MAX_STARTS}, got {starts}")]
    Starts { starts: u8 },
    #[error("max_legs must be {MIN_LEGS} to {MAX_LEGS}, got {legs}")]
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
    #[error("live orders span {slots} slots, at most {MAX_HORIZON_SLOTS} are allowed")]
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
        let listing = Listing::new(&self)?;
        let mut live: Vec<usize> = listing.live().collect();
        live.sort_unstable_by_key(|&at| listing.ids.at(at));
        Ok(live.into_iter().map(|at| &self.orders[at]).collect())
    }
}

impl<'a> Orders<'a> for &'a Instance {
    fn terms(&self) -> Terms<'a> {
        Terms {
            beacon: self.beacon,
            now: self.now,
            epoch: self.epoch,
            starts: self.starts,
            max_legs: self.max_legs,
            cancels: &self.cancels,
        }
    }

    fn count(&self) -> usize {
        self.orders.len()
    }

    fn view(&self, at: usize) -> View<'a> {
        let orders: &'a [Order] = &self.orders;
        orders[at].view()
    }
}

impl From<View<'_>> for Order {
    fn from(view: View<'_>) -> Self {
        let texts = |labels: Labels<'_>| labels.iter().map(|label| label.to_string()).collect();
        let side = match view.side {
            ViewSide::Buy { hours, mode, alts } => {
                Side::Buy { hours, mode, alts: alts.iter().collect() }
            }
            ViewSide::Sell { class, limit_msat, min_run, provider } => {
                let provider = provider.map(|label| label.to_string());
                Side::Sell { class, limit_msat, min_run, provider }
            }
        };
        Self {
            id: view.id.to_string(),
            owner: view.owner.to_string(),
            qty: view.qty,
            filled: view.filled,
            min_qty: view.min_qty,
            window: view.window,
            expiry_epoch: view.expiry_epoch,
            features: view.features,
            allow: texts(view.allow),
            deny: texts(view.deny),
            side,
        }
    }
}

impl Order {
    /// Units not filled yet.
    #[must_use]
    pub fn units_left(&self) -> u32 {
        self.view().units_left()
    }

    /// Fewest units a match must bring, never more than are left.
    pub(super) fn min_left(&self) -> u32 {
        self.view().min_left()
    }

    /// First slot of the window that can still be delivered.
    #[must_use]
    pub fn first_slot(&self, now: u32) -> u32 {
        self.view().first_slot(now)
    }

    pub(super) fn view(&self) -> View<'_> {
        let side = match &self.side {
            Side::Buy { hours, mode, alts } => {
                ViewSide::Buy { hours: *hours, mode: *mode, alts: Alts::Pairs(alts) }
            }
            Side::Sell { class, limit_msat, min_run, provider } => ViewSide::Sell {
                class: *class,
                limit_msat: *limit_msat,
                min_run: *min_run,
                provider: provider.as_deref().map(Label::Text),
            },
        };
        View {
            id: Label::Text(&self.id),
            owner: Label::Text(&self.owner),
            qty: self.qty,
            filled: self.filled,
            min_qty: self.min_qty,
            window: self.window,
            expiry_epoch: self.expiry_epoch,
            features: self.features,
            allow: Labels::Texts(&self.allow),
            deny: Labels::Texts(&self.deny),
            side,
        }
    }
}
