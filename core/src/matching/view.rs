//! What the matcher reads of a book, however its orders are kept: as text or as wire orders.

use std::collections::BTreeSet;

use super::instance::{Cancel, MAX_HORIZON_SLOTS, MAX_LEGS, MAX_STARTS, MIN_LEGS};
use super::instance::{MAX_ALTERNATIVES, MAX_HOURS, MAX_KEYS, MAX_QTY, PMAX_MSAT};
use super::instance::{MatchError, Mode};
use super::labels::{Label, Ranks};
use super::one_slot::Plain;
use crate::ids::Key;
use crate::order::Alternative;

/// What an order without an expiry epoch counts as, so that a late `epoch` drops it too.
const NO_EXPIRY: u64 = 1 << 62;

/// A book of orders with distinct ids, in any order.
pub(crate) trait Orders<'a> {
    /// What concerns all orders.
    fn terms(&self) -> Terms<'a>;
    /// How many orders there are, fewer than 2^32.
    fn count(&self) -> usize;
    /// The order at a position below the count.
    fn view(&self, at: usize) -> View<'a>;
}

/// What is known about the moment, and what holds for all orders; see [`super::Instance`].
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) beacon: [u8; 32],
    pub(crate) now: u32,
    pub(crate) epoch: u64,
    pub(crate) starts: u8,
    pub(crate) max_legs: Option<u16>,
    pub(crate) cancels: &'a [Cancel],
}

/// An order; see [`super::Order`] for the fields.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) id: Label<'a>,
    pub(crate) owner: Label<'a>,
    pub(crate) qty: u32,
    pub(crate) filled: u32,
    pub(crate) min_qty: u32,
    pub(crate) window: (u32, u32),
    pub(crate) expiry_epoch: Option<u64>,
    pub(crate) features: u64,
    pub(crate) allow: Labels<'a>,
    pub(crate) deny: Labels<'a>,
    pub(crate) side: ViewSide<'a>,
}

/// What is particular to a bid or to an ask.
#[derive(Clone, Copy)]
pub(crate) enum ViewSide<'a> {
    Buy { hours: u16, mode: Mode, alts: Alts<'a> },
    Sell { class: u16, limit_msat: u64, min_run: u16, provider: Option<Label<'a>> },
}

/// A list of labels.
#[derive(Clone, Copy)]
pub(crate) enum Labels<'a> {
    Keys(&'a [Key]),
    Texts(&'a [String]),
}

/// The classes that a bid accepts, with its limits in msat per block.
#[derive(Clone, Copy)]
pub(crate) enum Alts<'a> {
    Wire(&'a [Alternative]),
    Pairs(&'a [(u16, u64)]),
}

impl<'a> Labels<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Keys(keys) => keys.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Label<'a>> {
        (0..self.len()).map(move |at| match self {
            Self::Keys(keys) => Label::Id(keys[at].0),
            Self::Texts(texts) => Label::Text(&texts[at]),
        })
    }
}

impl Alts<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Wire(alts) => alts.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = (u16, u64)> {
        (0..self.len()).map(move |at| match self {
            Self::Wire(alts) => (alts[at].class, alts[at].limit_msat),
            Self::Pairs(pairs) => pairs[at],
        })
    }
}

impl View<'_> {
    /// Units not filled yet.
    pub(super) fn units_left(&self) -> u32 {
        self.qty.saturating_sub(self.filled)
    }

    /// Fewest units a match must bring, never more than are left.
    pub(super) fn min_left(&self) -> u32 {
        self.min_qty.min(self.units_left())
    }

    /// First slot of the window that can still be delivered.
    pub(super) fn first_slot(&self, now: u32) -> u32 {
        self.window.0.max(now)
    }

    /// Slots a run of this order needs at least.
    fn needed_slots(&self) -> u32 {
        match self.side {
            ViewSide::Buy { hours, .. } => hours.into(),
            ViewSide::Sell { .. } => 1,
        }
    }

    /// The highest limit, in msat per block: the one that ranks a bid.
    pub(super) fn best_limit_msat(&self) -> u64 {
        match self.side {
            ViewSide::Buy { alts, .. } => alts.iter().map(|(_, limit)| limit).max().unwrap_or(0),
            ViewSide::Sell { limit_msat, .. } => limit_msat,
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
        let id = || self.id.to_string();
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
        match self.side {
            ViewSide::Buy { hours: 0, .. } => Err(MatchError::ZeroHours { id: id() }),
            ViewSide::Buy { hours, .. } if hours > MAX_HOURS => {
                Err(MatchError::HoursTooLong { id: id() })
            }
            ViewSide::Buy { alts, .. } => self.check_alternatives(alts),
            ViewSide::Sell { min_run: 0, .. } => Err(MatchError::ZeroMinRun { id: id() }),
            ViewSide::Sell { .. } => Ok(()),
        }
    }

    fn check_alternatives(&self, alts: Alts<'_>) -> Result<(), MatchError> {
        let id = || self.id.to_string();
        match alts.len() {
            0 => return Err(MatchError::NoAlternatives { id: id() }),
            1 => return Ok(()),
            2..=MAX_ALTERNATIVES => {}
            _ => return Err(MatchError::TooManyAlternatives { id: id() }),
        }
        let repeats =
            |&(at, class): &(usize, u16)| alts.iter().take(at).any(|(other, _)| other == class);
        match alts.iter().map(|(class, _)| class).enumerate().find(repeats) {
            Some((_, class)) => Err(MatchError::RepeatedClass { id: id(), class }),
            None => Ok(()),
        }
    }
}

/// A book whose bounds were checked, and what is read of all its orders at once. Those that take
/// part are numbered by position.
pub(super) struct Listing<'a> {
    pub(super) terms: Terms<'a>,
    pub(super) ids: Ranks<'a>,
    /// Positions of the orders that take part.
    live: Vec<u32>,
    /// Outermost slots of the windows of all that take part.
    span: (u32, u32),
    /// Owners, and who delivers, if it is not the owner.
    pub(super) owners: Vec<Label<'a>>,
    pub(super) providers: Vec<(usize, Label<'a>)>,
    /// `None` if an order is not plain.
    pub(super) plain: Option<Vec<Plain>>,
}

impl<'a> Listing<'a> {
    /// Checks all orders, also those that are then dropped. The horizon is checked on what is
    /// left, since a dropped order cannot widen it.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub(super) fn new(orders: &impl Orders<'a>) -> Result<Self, MatchError> {
        let terms = orders.terms();
        if !(1..=MAX_STARTS).contains(&terms.starts) {
            return Err(MatchError::Starts { starts: terms.starts });
        }
        if let Some(legs) = terms.max_legs.filter(|legs| !(MIN_LEGS..=MAX_LEGS).contains(legs)) {
            return Err(MatchError::Legs { legs });
        }
        let mut listing = Self::without(orders, &BTreeSet::new())?;
        if let Some(at) = listing.ids.repeated() {
            return Err(MatchError::DuplicateId { id: orders.view(at).id.to_string() });
        }
        let cancelled = listing.cancelled(orders);
        if !cancelled.is_empty() {
            listing = Self::without(orders, &cancelled)?;
        }
        let slots = listing.span.1.saturating_sub(listing.span.0);
        if slots > MAX_HORIZON_SLOTS {
            return Err(MatchError::HorizonTooLong { slots });
        }
        Ok(listing)
    }

    fn without(orders: &impl Orders<'a>, cancelled: &BTreeSet<usize>) -> Result<Self, MatchError> {
        let (terms, count) = (orders.terms(), orders.count());
        let mut ids = Vec::with_capacity(count);
        let mut listing = Self {
            terms,
            ids: Ranks::new(Vec::new()),
            live: Vec::with_capacity(count),
            span: (u32::MAX, 0),
            owners: Vec::with_capacity(count),
            providers: Vec::new(),
            plain: Some(Vec::with_capacity(count)),
        };
        for at in 0..count {
            let order = orders.view(at);
            order.check()?;
            ids.push(order.id);
            if order.is_live(terms.now, terms.epoch) && !cancelled.contains(&at) {
                listing.add(at, &order);
            }
        }
        listing.ids = Ranks::new(ids);
        Ok(listing)
    }

    fn add(&mut self, at: usize, order: &View<'a>) {
        let first_slot = order.first_slot(self.terms.now);
        self.span = (self.span.0.min(first_slot), self.span.1.max(order.window.1));
        if let ViewSide::Sell { provider: Some(provider), .. } = order.side {
            self.providers.push((self.live.len(), provider));
        }
        self.live.push(at as u32);
        self.owners.push(order.owner);
        if let Some(all) = &mut self.plain {
            match Plain::new(order, first_slot) {
                Some(plain) => all.push(plain),
                None => self.plain = None,
            }
        }
    }

    /// Positions of the orders that their owners cancelled.
    fn cancelled(&self, orders: &impl Orders<'a>) -> BTreeSet<usize> {
        let cancelled = |cancel: &Cancel| {
            let (order, signer) = (Label::Text(&cancel.order), Label::Text(&cancel.signer));
            self.ids.find(order).filter(|&at| orders.view(at).owner == signer)
        };
        self.terms.cancels.iter().filter_map(cancelled).collect()
    }

    /// How many orders take part.
    pub(super) fn count(&self) -> usize {
        self.live.len()
    }

    /// Rank of the id of the order with this number.
    pub(super) fn id_rank(&self, number: usize) -> u32 {
        self.ids.at(self.live[number] as usize)
    }

    /// The positions in the book of the orders that take part, ascending.
    pub(super) fn live(&self) -> impl Iterator<Item = usize> {
        self.live.iter().map(|&at| at as usize)
    }
}
