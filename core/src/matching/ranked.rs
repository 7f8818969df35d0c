//! The book with labels replaced by ranks, so that passes compare integers alone.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use super::accept::{Accepted, Party, Terms};
use super::instance::{MatchError, Mode};
use super::labels::Ranks;
use super::names::Names;
use super::supply::WORD;
use super::view::{Listing, Orders, ViewSide};

/// A live bid.
pub(super) struct Bid {
    /// Rank of the id among those of all orders.
    pub(super) id_rank: u32,
    pub(super) party: Party,
    /// Units wanted and the fewest that make a match.
    pub(super) qty: u32,
    pub(super) min_qty: u32,
    /// Deliverable window and run length, in slots.
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    pub(super) hours: u32,
    pub(super) mode: Mode,
    /// Most asks that may serve it together.
    pub(super) max_legs: usize,
    /// Highest limit over all alternatives, also those whose class nobody offers.
    pub(super) best_limit_msat: u64,
    /// (index into [`Book::classes`], limit in msat per block), classes with asks only.
    pub(super) alts: Vec<(usize, u64)>,
    /// The most that a unit and slot could gain, `None` if no ask could ever serve the bid.
    margin_msat: Option<u64>,
    /// Whether the owner has asks of its own, which the bid may not accept.
    pub(super) sells: bool,
}

/// A live ask.
pub(super) struct Ask {
    /// Rank of the id among those of all orders.
    pub(super) id_rank: u32,
    pub(super) party: Party,
    pub(super) provider: u32,
    pub(super) qty: u32,
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    pub(super) limit_msat: u64,
    pub(super) min_run: u32,
}

/// A class in which a trade is conceivable.
pub(super) struct Class {
    pub(super) id: u16,
    /// Slots that lie both between the bids' and between the asks' outermost ones.
    pub(super) first_slot: u32,
    pub(super) end_slot: u32,
    /// Ascending by (limit, draw, id): the position is the ask's rank.
    pub(super) asks: Vec<Ask>,
    /// Limits of the asks in msat per block.
    pub(super) limits_msat: Vec<u64>,
    /// By 64 asks.
    pub(super) words: Vec<Word>,
    pub(super) terms: Terms,
}

/// What 64 asks offer in all.
pub(super) struct Word {
    /// Units of all together and of the largest.
    pub(super) total_units: u32,
    pub(super) largest_units: u32,
}

/// The live orders of a book.
pub(super) struct Book<'a> {
    /// Of all orders, also those that do not take part.
    pub(super) ids: Ranks<'a>,
    names: Names<'a>,
    /// Ascending by id of the class.
    pub(super) classes: Vec<Class>,
    /// In the order in which start 0 inserts them.
    pub(super) bids: Vec<Bid>,
}

impl Bid {
    /// Slots of the run, times the units that must be placed together.
    fn bundle(&self) -> u128 {
        let units = if self.mode == Mode::Gang { self.min_qty } else { 1 };
        u128::from(self.hours) * u128::from(units)
    }

    /// What ranks the bid in start 0.
    fn value(&self) -> u128 {
        let limit = u128::from(self.best_limit_msat);
        limit * limit * self.bundle()
    }

    /// Whether `ask` may serve this bid, price and free units aside.
    pub(super) fn accepts(&self, ask: &Ask) -> bool {
        self.party.owner != ask.party.owner
            && self.party.features & !ask.party.features == 0
            && self.hours >= ask.min_run
            && self.party.admits(ask.provider)
            && ask.party.admits(self.party.owner)
    }

    /// First slots of the runs that the bid could take in `class`, ascending.
    pub(super) fn starts(&self, class: &Class) -> Range<u32> {
        let first = self.first_slot.max(class.first_slot);
        let last = self.end_slot.min(class.end_slot).checked_sub(self.hours);
        first..last.map_or(first, |last| last + 1)
    }

    /// Largest (limit − ask) over the compatible asks whose window can hold the run, `None`
    /// without an ask at or below the limit.
    fn best_margin_msat(&self, classes: &[Class]) -> Option<u64> {
        let margin = |&(class, limit_msat): &(usize, u64)| {
            let ask_msat = self.cheapest_msat(&classes[class], limit_msat)?;
            Some(limit_msat - ask_msat)
        };
        self.alts.iter().filter_map(margin).max()
    }

    fn cheapest_msat(&self, class: &Class, limit_msat: u64) -> Option<u64> {
        let mut accepted = Accepted::new(self, class);
        let mut from = 0;
        while let Some((word, bits)) = accepted.next(from, class.words.len()) {
            for (bit, ask) in class.asks[word * WORD..].iter().take(WORD).enumerate() {
                if ask.limit_msat > limit_msat {
                    return None;
                }
                let holds_run = ask.first_slot <= self.end_slot - self.hours
                    && ask.end_slot >= self.first_slot + self.hours;
                if holds_run && bits >> bit & 1 == 1 {
                    return Some(ask.limit_msat);
                }
            }
            from = word + 1;
        }
        None
    }
}

impl Word {
    fn new(asks: &[Ask]) -> Self {
        Self {
            total_units: asks.iter().map(|ask| ask.qty).sum(),
            largest_units: asks.iter().map(|ask| ask.qty).max().unwrap_or(0),
        }
    }
}

impl Class {
    /// `None` if no slot is common to the bids' span and the asks, which come by rank.
    fn new(id: u16, span: (u32, u32), asks: Vec<Ask>) -> Option<Self> {
        let first_slot = asks.iter().map(|ask| ask.first_slot).min()?.max(span.0);
        let end_slot = asks.iter().map(|ask| ask.end_slot).max()?.min(span.1);
        let limits_msat = asks.iter().map(|ask| ask.limit_msat).collect();
        let words = asks.chunks(WORD).map(Word::new).collect();
        let terms = Terms::new(&asks);
        let class = Self { id, first_slot, end_slot, asks, limits_msat, words, terms };
        (first_slot < end_slot).then_some(class)
    }
}

impl<'a> Book<'a> {
    /// Checks the orders, drops what cannot trade and ranks the rest.
    ///
    /// # Errors
    /// As [`super::solve`], `match.infeasible` aside.
    pub(super) fn new(orders: &impl Orders<'a>) -> Result<Self, MatchError> {
        let mut listing = Listing::new(orders)?;
        let names = Names::new(&mut listing);
        Ok(Self::ranked(orders, listing, names))
    }

    /// Ranks the orders that take part.
    pub(super) fn ranked(orders: &impl Orders<'a>, listing: Listing<'a>, names: Names<'a>) -> Self {
        let mut sides = Sides::new(orders, &listing, &names);
        let classes = sides.classes(&names);
        let bids = sides.bids(&names, &classes);
        Self { ids: listing.ids, names, classes, bids }
    }

    /// The order in which start number `start` inserts the bids, as indices into `bids`.
    /// Those that no ask could ever serve are left out.
    pub(super) fn sequence(&self, start: u8) -> Vec<usize> {
        let mut keyed: Vec<(Reverse<u128>, u32, usize)> = Vec::with_capacity(self.bids.len());
        for (at, bid) in self.bids.iter().enumerate() {
            if let Some(margin_msat) = bid.margin_msat {
                keyed.push((Reverse(self.priority(bid, margin_msat, start)), bid.id_rank, at));
            }
        }
        let owner = |&(_, _, at): &(Reverse<u128>, u32, usize)| self.bids[at].party.owner;
        self.names.sort(&mut keyed, |&(priority, id_rank, _)| (priority, id_rank), owner);
        keyed.into_iter().map(|(.., at)| at).collect()
    }

    /// Start 0 ranks by value over the root of the bundle size, squared to stay integral;
    /// 1 by limit; 2 by the best conceivable surplus; later ones perturb the first.
    fn priority(&self, bid: &Bid, margin_msat: u64, start: u8) -> u128 {
        match start {
            0 => bid.value(),
            1 => bid.best_limit_msat.into(),
            2 => u128::from(margin_msat) * bid.bundle(),
            _ => {
                bid.value()
                    * u128::from(500 + self.names.perturbation(self.ids.label(bid.id_rank), start))
            }
        }
    }
}

/// The live orders, bids and asks apart.
#[derive(Default)]
struct Sides {
    asks: BTreeMap<u16, Vec<Ask>>,
    /// Their alternatives still name the class itself.
    bids: Vec<Bid>,
    /// Slots between the outermost ones of the bids for each class.
    spans: BTreeMap<u16, (u32, u32)>,
}

impl Sides {
    fn new<'a>(orders: &impl Orders<'a>, listing: &Listing<'a>, names: &Names<'a>) -> Self {
        let terms = &listing.terms;
        let mut sides = Self { bids: Vec::with_capacity(listing.count()), ..Self::default() };
        for (number, at) in listing.live().enumerate() {
            let order = orders.view(at);
            let id_rank = listing.ids.at(at);
            let party = Party::new(&order, number, names);
            let (qty, first_slot, end_slot) =
                (order.units_left(), order.first_slot(terms.now), order.window.1);
            match order.side {
                ViewSide::Sell { class, limit_msat, min_run, .. } => {
                    sides.asks.entry(class).or_default().push(Ask {
                        id_rank,
                        party,
                        provider: names.provider(number),
                        qty,
                        first_slot,
                        end_slot,
                        limit_msat,
                        min_run: min_run.into(),
                    });
                }
                ViewSide::Buy { hours, mode, alts } => {
                    sides.bids.push(Bid {
                        id_rank,
                        party,
                        qty,
                        min_qty: order.min_left(),
                        first_slot,
                        end_slot,
                        hours: hours.into(),
                        mode,
                        max_legs: terms.max_legs.map_or(usize::MAX, usize::from),
                        best_limit_msat: order.best_limit_msat(),
                        alts: alts.iter().map(|(class, limit)| (class.into(), limit)).collect(),
                        margin_msat: None,
                        sells: false,
                    });
                    for (class, _) in alts.iter() {
                        let span = sides.spans.entry(class).or_insert((first_slot, end_slot));
                        *span = (span.0.min(first_slot), span.1.max(end_slot));
                    }
                }
            }
        }
        sides
    }

    /// Ranks the asks and leaves out the classes that no bid can reach.
    fn classes(&mut self, names: &Names<'_>) -> Vec<Class> {
        let mut classes = Vec::new();
        for (id, mut asks) in std::mem::take(&mut self.asks) {
            if let Some(&span) = self.spans.get(&id) {
                names.sort(&mut asks, |ask| (ask.limit_msat, ask.id_rank), |ask| ask.party.owner);
                classes.extend(Class::new(id, span, asks));
            }
        }
        classes
    }

    /// Puts the bids into the order of start 0 and adds what follows from the asks.
    fn bids(mut self, names: &Names<'_>, classes: &[Class]) -> Vec<Bid> {
        let index: BTreeMap<usize, usize> =
            classes.iter().enumerate().map(|(at, class)| (class.id.into(), at)).collect();
        let mut sells = vec![false; names.len()];
        for ask in classes.iter().flat_map(|class| &class.asks) {
            sells[ask.party.owner as usize] = true;
        }
        names.sort(
            &mut self.bids,
            |bid| (Reverse(bid.value()), bid.id_rank),
            |bid| bid.party.owner,
        );
        for bid in &mut self.bids {
            bid.alts.retain_mut(|alt| index.get(&alt.0).map(|&at| alt.0 = at).is_some());
            bid.sells = sells[bid.party.owner as usize];
            bid.margin_msat = bid.best_margin_msat(classes);
        }
        self.bids
    }
}
